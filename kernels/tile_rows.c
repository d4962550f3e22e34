/* SPDX-License-Identifier: MIT */
#include "tile_rows.h"

/* Sixteen classes and fewer have code of their own, without the tests for more: those are half of its
 * instructions. */
void sum_tile(const float *e, int64_t classes, double *sum)
{
    if (classes <= BLOCK)
        vd_store(sum, folded_1_vd(e, smaller(classes, BLOCK), 0));
    else
        vd_store(sum, folded_1_vd(e, classes, 0));
}

/* For very few classes, to put lanes in order costs more than conversions do. */
void sum_exponentials(const float *e, int64_t classes, double *sum)
{
    if (classes < 4)
        vd_store(sum, folded_1_vd(e, smaller(classes, 4), 0));
    else if (classes <= BLOCK)
        vd_store(sum, vs_widen(folded_1_vs(e, smaller(classes, BLOCK), 0)));
    else
        vd_store(sum, vs_widen(folded_1_vs(e, classes, 0)));
}

/* ---- rows that fill blocks: each width has code of its own -------------------------------------- */

#define EACH_WIDTH(of)                                                                            \
    of(2) of(3) of(5) of(6) of(7) of(9) of(10) of(11) of(13) of(14) of(15)

LANES vf load_blocks(const storage *x, const int classes, float *tile)
{
    vf v[BLOCK], max = vset1(-LANE_INFINITY);
    vload_rows(x, classes, v);
    FOR_BLOCKS(c, classes) vstore_f32(tile + c * BLOCK, v[c]);
    FOR_BLOCKS(c, classes) max = vmax(v[c], max);
    return vadd(max, vset1(0.0f)); /* no -0 */
}

vf load_filled_blocks(const storage *x, int64_t classes, float *tile)
{
#define WIDTH(n)                                                                                  \
    case n:                                                                                       \
        if (ROW_WIDTHS >> n & 1)                                                                  \
            return load_blocks(x, n, tile);                                                       \
        break;
    switch (classes) {
        EACH_WIDTH(WIDTH)
    }
#undef WIDTH
    return max_of_tile(tile, classes); /* not reached */
}

LANES void store_blocks(const float *tile, tile_output o, const int classes, storage *out)
{
    vf v[BLOCK];
    FOR_BLOCKS(c, classes) v[c] = output_of_class(c, tile, o);
    vstore_rows(out, classes, v);
}

LANES void store_blocks_of(const float *tile, tile_output o, int64_t classes, storage *out)
{
#define WIDTH(n)                                                                                  \
    case n:                                                                                       \
        if (ROW_WIDTHS >> n & 1)                                                                  \
            store_blocks(tile, o, n, out);                                                        \
        break;
    switch (classes) {
        EACH_WIDTH(WIDTH)
    }
#undef WIDTH
}

void store_filled_blocks(const float *tile, int64_t classes, storage *out)
{
    store_blocks_of(tile, unchanged(), classes, out);
}

void store_products(const float *tile, vf factor, vf least, int64_t classes, storage *out)
{
    const tile_output o = {.kind = PRODUCT, .factor = factor, .least = least};
    store_blocks_of(tile, o, classes, out);
}

void store_products_but_one(const float *tile, vf factor, vf least, vf column, vf instead,
                            int64_t classes, storage *out)
{
    const tile_output o = {PRODUCT_BUT_ONE, factor, least, .column = column, .instead = instead};
    store_blocks_of(tile, o, classes, out);
}
