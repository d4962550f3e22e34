/* SPDX-License-Identifier: MIT */
/* The exponential sums of sixteen rows at once, for rows that are shorter than the latency of their own
 * reductions.
 *
 * A tile holds the rows class by class, x[class * BLOCK + row]: lanes are rows, maxima and sums run down
 * the tile, and nothing crosses lanes. How the rows came there is not this file's business.
 *
 * Every number is that of softmax_row.h, and so is the order of its sum: what is double lane l there is
 * here the sum over the classes l, l + 16, l + 32, ... of a row, and the sixteen are folded 8, 4, 2, 1.
 *
 * A tile is irregular when a row of it holds a NaN or an infinite maximum, or one beyond DIRECT_BOUND.
 * Such tiles are left to the code that takes one row at a time. */
#ifndef BALLAST_SOFTMAX_TILE_H
#define BALLAST_SOFTMAX_TILE_H

#include "softmax_row.h"

/* Tiles go through each step side by side, which hides the latency of short ones. Together they have
 * at most SET_CLASSES classes, 8 KiB, and stay in L1 beside their rows; a wider tile goes alone. */
enum { SET_CLASSES = 128, MAX_TILES = 8, TILE_CLASSES = 255 };

/* How many tiles of `classes` classes go side by side; 0: such rows are too long for tiles. */
LANES int64_t tiles_of(int64_t classes)
{
    if (classes < 1 || classes > TILE_CLASSES)
        return 0;
    const int64_t tiles = SET_CLASSES / classes;
    return tiles < 1 ? 1 : tiles < MAX_TILES ? tiles : MAX_TILES;
}

/* Rows [begin, what is returned) go in tiles: none where rows are long, else all but a few at the end,
 * which cost less one by one. */
LANES int64_t end_of_tiles(int64_t begin, int64_t end, int64_t classes)
{
    if (tiles_of(classes) == 0)
        return begin;
    const int64_t rest = (end - begin) % BLOCK;
    return rest < 2 + classes / 4 ? end - rest : end;
}

LANES vf max_of_tile(const float *x, int64_t classes)
{
    vf max[4];
    FOR_BLOCKS(k, 4) max[k] = vset1(-LANE_INFINITY);
    int64_t c = 0;
    for (; c + 4 <= classes; c += 4)
        FOR_BLOCKS(k, 4) max[k] = vmax(vload_f32(x + (c + k) * BLOCK), max[k]);
    for (; c < classes; c++)
        max[0] = vmax(vload_f32(x + c * BLOCK), max[0]);
    return vadd(vmax(vmax(max[0], max[2]), vmax(max[1], max[3])), vset1(0.0f)); /* no -0 */
}

/* exponent_of, lane by lane. */
LANES vf exponents_of(vf max)
{
    const vf rounder = vset1(ROUNDER);
    return vsub(vadd(vmul(max, vset1(LOG2_E)), rounder), rounder);
}

/* e = exp(x) / 2^n; e may be x. */
LANES void exp_tile(const float *x, float *e, int64_t classes, vf n)
{
    const exp_scale scale = {vsub(vset1(ROUNDER + 126.0f), n),
                             vmul(vsub(n, vset1(126.0f)), vset1(LN2))};
    vf v[BLOCKS_IN_FLIGHT];
    int64_t c = 0;
    for (; c + BLOCKS_IN_FLIGHT <= classes; c += BLOCKS_IN_FLIGHT) {
        FOR_BLOCKS(k, BLOCKS_IN_FLIGHT) v[k] = vload_f32(x + (c + k) * BLOCK);
        vexp_scaled(v, v, BLOCKS_IN_FLIGHT, scale);
        FOR_BLOCKS(k, BLOCKS_IN_FLIGHT) vstore_f32(e + (c + k) * BLOCK, v[k]);
    }
    for (; c < classes; c++) {
        v[0] = vload_f32(x + c * BLOCK);
        vexp_scaled(v, v, 1, scale);
        vstore_f32(e + c * BLOCK, v[0]);
    }
}

/* The column of each row, from where it stands in a block as an integer. */
LANES void store_numbers(int32_t *column, vf at)
{
    float bits[BLOCK];
    vstore_f32(bits, at);
    memcpy(column, bits, sizeof bits);
}

/* The first class of each row whose logit is the maximum; 0 for none. */
LANES void first_maxima(const float *x, int64_t classes, vf max, int32_t *first)
{
    vf at = vset1(0.0f);
    for (int64_t c = classes - 1; c >= 0; c--)
        at = vselect(veq(vload_f32(x + c * BLOCK), max), vset1(float_of_bits((uint32_t)c)), at);
    store_numbers(first, at);
}

/* Takes one class of each row out of the sum: it is moved from the tile, which has 0 there then. */
LANES void leave_out(float *e, const int32_t *column, float *left_out)
{
    UNROLL for (int j = 0; j < BLOCK; j++)
    {
        float *at = e + column[j] * BLOCK + j;
        left_out[j] = *at;
        *at = 0.0f;
    }
}

/* Class c of a group, and class c + 32 of the same: added in f32. */
LANES vd pair_of(const float *e, int64_t classes, int64_t c)
{
    if (c + 32 < classes)
        return vd_widen(vadd(vload_f32(e + c * BLOCK), vload_f32(e + (c + 32) * BLOCK)));
    return vd_load_f32(e + c * BLOCK);
}

/* Double lane l of the sixteen rows: each group of 64 classes adds l + 32 to l and l + 48 to l + 16. */
LANES vd lane_of_tile(const float *e, int64_t classes, int64_t l)
{
    vd total = pair_of(e, classes, l);
    if (l + 16 < classes)
        total = vd_plus(total, pair_of(e, classes, l + 16));
    for (int64_t c = l + GROUP; c < classes; c += GROUP) {
        total = vd_plus(total, pair_of(e, classes, c));
        if (c + 16 < classes)
            total = vd_plus(total, pair_of(e, classes, c + 16));
    }
    return total;
}

/* Lane l after the folds of 8, of 4 and of 2. Lanes that have no class are 0 and are not added. */
LANES vd folded_8(const float *e, int64_t classes, int64_t l)
{
    const vd total = lane_of_tile(e, classes, l);
    return l + 8 < classes ? vd_plus(total, lane_of_tile(e, classes, l + 8)) : total;
}
LANES vd folded_4(const float *e, int64_t classes, int64_t l)
{
    const vd total = folded_8(e, classes, l);
    return l + 4 < classes ? vd_plus(total, folded_8(e, classes, l + 4)) : total;
}
LANES vd folded_2(const float *e, int64_t classes, int64_t l)
{
    const vd total = folded_4(e, classes, l);
    return l + 2 < classes ? vd_plus(total, folded_4(e, classes, l + 2)) : total;
}

/* The sum of each row. Out of line: it is long, and each file needs it more than once. */
static __attribute__((noinline)) void sum_tile(const float *e, int64_t classes, double *sum)
{
    const vd total = folded_2(e, classes, 0);
    vd_store(sum, classes > 1 ? vd_plus(total, folded_2(e, classes, 1)) : total);
}

/* What becomes of an element of a tile when it leaves: a product or two differences, with terms of its
 * row. `is_product` is a constant after inlining. */
typedef struct tile_output {
    int is_product;
    vf factor, least; /* below `least` the product would be subnormal */
    vf max, rest;
} tile_output;

/* v factor; least is that of set_scale. */
LANES tile_output product_with(vf factor)
{
    const vf one = vset1(1.0f), smallest = vset1(SMALLEST_NORMAL), size = vabs(factor);
    const vf least = vselect(vlt(one, size), smallest, vdiv(smallest, size));
    return (tile_output){.is_product = 1, .factor = factor, .least = least};
}

/* (v - max) - rest */
LANES tile_output less_by(vf max, vf rest)
{
    return (tile_output){.is_product = 0, .max = max, .rest = rest};
}

LANES vf output_of(vf v, tile_output o)
{
    return o.is_product ? vkeep(vle(o.least, v), vmul(v, o.factor))
                        : vsub(vsub(v, o.max), o.rest);
}

/* Whether the rows need more than this file does; `sum` is that of every class, in f32. Where the
 * maximum is finite and small the sum is above 0.7 - or NaN. */
LANES int tile_is_irregular(vf max, vf sum)
{
    return vany(vmask_or(vlt(vset1(DIRECT_BOUND), vabs(max)), vnan(sum)));
}

/* ---- rows of a matrix to tiles and back ------------------------------------------------------- */

/* Columns [at, at + n) of sixteen rows; n is a constant. */
LANES void load_columns(const storage *x, int64_t stride, int64_t at, const int n, float *tile)
{
    vf v[4];
    vload_columns(x + at, stride, n, v);
    FOR_BLOCKS(k, n) vstore_f32(tile + (at + k) * BLOCK, v[k]);
}

LANES void store_columns(const float *tile, tile_output o, int64_t at, const int n, storage *out,
                         int64_t stride)
{
    vf v[4];
    FOR_BLOCKS(k, 4) v[k] = output_of(vload_f32(tile + (at + (k < n ? k : 0)) * BLOCK), o);
    vstore_columns(out + at, stride, n, v);
}

/* Four columns at a time. Where the width is no multiple of four, the last step takes the last four
 * columns, some of them for the second time. */
LANES int64_t column_at(int64_t c, int64_t classes) { return c + 4 <= classes ? c : classes - 4; }

/* Sixteen rows, or `count` of them and rows of zeros. */
LANES void load_rows(const storage *x, int64_t stride, int64_t count, int64_t classes, float *tile)
{
    if (__builtin_expect(count < BLOCK, 0)) {
        memset(tile, 0, (size_t)classes * BLOCK * sizeof *tile);
        for (int64_t j = 0; j < count; j++)
            for (int64_t c = 0; c < classes; c++)
                tile[c * BLOCK + j] = load_one(x + j * stride + c);
        return;
    }
    switch (classes) {
    case 1:
        load_columns(x, stride, 0, 1, tile);
        break;
    case 2:
        load_columns(x, stride, 0, 2, tile);
        break;
    case 3:
        load_columns(x, stride, 0, 3, tile);
        break;
    default:
        for (int64_t c = 0; c < classes; c += 4)
            load_columns(x, stride, column_at(c, classes), 4, tile);
    }
}

/* Sixteen rows, or `count` of them, and what each element becomes on its way out. The tile is not
 * needed afterwards. */
LANES void store_rows(float *tile, tile_output o, int64_t count, int64_t classes, storage *out,
                      int64_t stride)
{
    if (__builtin_expect(count < BLOCK, 0)) {
        for (int64_t c = 0; c < classes; c++)
            vstore_f32(tile + c * BLOCK, output_of(vload_f32(tile + c * BLOCK), o));
        for (int64_t j = 0; j < count; j++)
            for (int64_t c = 0; c < classes; c++)
                store_one(out + j * stride + c, tile[c * BLOCK + j]);
        return;
    }
    switch (classes) {
    case 1:
        store_columns(tile, o, 0, 1, out, stride);
        break;
    case 2:
        store_columns(tile, o, 0, 2, out, stride);
        break;
    case 3:
        store_columns(tile, o, 0, 3, out, stride);
        break;
    default:
        for (int64_t c = 0; c < classes; c += 4)
            store_columns(tile, o, column_at(c, classes), 4, out, stride);
    }
}

#endif
