/* SPDX-License-Identifier: MIT */
/* Tiles of sixteen rows: from a matrix and back, and the sum of each row.
 *
 * A tile holds the rows class by class, x[class * BLOCK + row]: lanes are rows. */
#ifndef BALLAST_TILE_ROWS_H
#define BALLAST_TILE_ROWS_H

#include "storage.h"

/* ---- the sum of each row: double lane l is that of the classes l, l + 16, l + 32, ... ----------
 *
 * pair_of      class c of a group, and class c + 32 of the same: added in f32
 * lane_of      double lane l of the sixteen rows: each group of 64 classes adds l + 32 to l and l + 48
 *              to l + 16
 * folded_8     lane l after the fold of 8, then of 4, of 2 and of 1. Lanes that have no class are 0 and
 *              are not added.
 *
 * for `lanes`, sixteen doubles. */
#define DEFINE_FOLD(lanes, plus, half, before)                                                    \
    LANES lanes folded_##half##_##lanes(const float *e, int64_t classes, int64_t l)               \
    {                                                                                             \
        const lanes total = before##_##lanes(e, classes, l);                                      \
        return l + half < classes ? plus(total, before##_##lanes(e, classes, l + half)) : total;  \
    }
#define DEFINE_SUMS(lanes, load, load_sum, plus)                                                  \
    LANES lanes pair_of_##lanes(const float *e, int64_t classes, int64_t c)                       \
    {                                                                                             \
        return c + 32 < classes ? load_sum(e + c * BLOCK, e + (c + 32) * BLOCK)                   \
                                : load(e + c * BLOCK);                                            \
    }                                                                                             \
    LANES_LARGE lanes lane_of_##lanes(const float *e, int64_t classes, int64_t l)                 \
    {                                                                                             \
        lanes total = pair_of_##lanes(e, classes, l);                                             \
        if (l + 16 < classes)                                                                     \
            total = plus(total, pair_of_##lanes(e, classes, l + 16));                             \
        for (int64_t c = l + GROUP; c < classes; c += GROUP) {                                    \
            total = plus(total, pair_of_##lanes(e, classes, c));                                  \
            if (c + 16 < classes)                                                                 \
                total = plus(total, pair_of_##lanes(e, classes, c + 16));                         \
        }                                                                                         \
        return total;                                                                             \
    }                                                                                             \
    DEFINE_FOLD(lanes, plus, 8, lane_of)                                                          \
    DEFINE_FOLD(lanes, plus, 4, folded_8)                                                         \
    DEFINE_FOLD(lanes, plus, 2, folded_4)                                                         \
    DEFINE_FOLD(lanes, plus, 1, folded_2)

LANES vd vd_load_sum(const float *p, const float *q)
{
    return vd_widen(vadd(vload_f32(p), vload_f32(q)));
}
DEFINE_SUMS(vd, vd_load_f32, vd_load_sum, vd_plus)
DEFINE_SUMS(vs, vs_load, vs_load_sum, vs_plus)
#undef DEFINE_SUMS
#undef DEFINE_FOLD

/* The sum of each row. In tile_rows.c: it is long, and several files need it. */
#define sum_tile KERNEL(sum_tile)
void sum_tile(const float *e, int64_t classes, double *sum);

/* The same for exponentials, 0 or normal; at least 2^128, or NaN, where one is NaN. The float after the
 * tile may be read. */
#define sum_exponentials KERNEL(sum_exponentials)
void sum_exponentials(const float *e, int64_t classes, double *sum);

/* What becomes of an element of a tile when it leaves: itself, or a product or two differences with
 * terms of its row, or a product but for one class of the row. `kind` is a constant after inlining. What is
 * not inlined takes the terms one by one: a structure would be stored in parts and wait to be loaded whole. */
enum output_kind { ITSELF, PRODUCT, DIFFERENCES, PRODUCT_BUT_ONE };
typedef struct tile_output {
    enum output_kind kind;
    vf factor, least; /* below `least` the product would be subnormal */
    vf column, instead; /* the one class, as a number, and what leaves there */
    vf max, rest;
} tile_output;

/* v, unchanged. */
LANES tile_output unchanged(void) { return (tile_output){.kind = ITSELF}; }

/* v factor; least is that of set_scale. */
LANES tile_output product_with(vf factor)
{
    const vf one = vset1(1.0f), smallest = vset1(SMALLEST_NORMAL), size = vabs(factor);
    const vf least = vdiv(smallest, vmin(one, size)); /* a subnormal would take 150 cycles */
    return (tile_output){.kind = PRODUCT, .factor = factor, .least = least};
}

/* The same, but `instead` of class `column`. */
LANES tile_output product_but_one(vf factor, vf column, vf instead)
{
    tile_output o = product_with(factor);
    o.kind = PRODUCT_BUT_ONE;
    o.column = column;
    o.instead = instead;
    return o;
}

/* (v - max) - rest */
LANES tile_output less_by(vf max, vf rest)
{
    return (tile_output){.kind = DIFFERENCES, .max = max, .rest = rest};
}

LANES vf output_of(vf v, tile_output o)
{
    if (o.kind == ITSELF)
        return v;
    return o.kind == DIFFERENCES ? vsub(vsub(v, o.max), o.rest)
                                 : vkeep(vle(o.least, v), vmul(v, o.factor));
}

/* The same of class c of a tile. */
LANES vf output_of_class(int64_t c, const float *tile, tile_output o)
{
    const vf v = output_of(vload_f32(tile + c * BLOCK), o);
    return o.kind == PRODUCT_BUT_ONE ? vselect(veq(o.column, vset1((float)c)), o.instead, v) : v;
}

/* All of a tile, in its place. */
LANES void put_out(float *tile, tile_output o, int64_t classes)
{
    for (int64_t c = 0; c < classes; c++)
        vstore_f32(tile + c * BLOCK, output_of_class(c, tile, o));
}

/* ---- rows of a matrix to tiles and back ------------------------------------------------------- */

/* Whether sixteen rows go in blocks, which they fill: contiguous ones, of a width that the ISA can. */
LANES int fill_blocks(int64_t stride, int64_t classes)
{
    return stride == classes && classes <= BLOCK && (ROW_WIDTHS >> classes & 1);
}

/* Such rows: to a tile, which gives the maximum of each, and back: themselves, or products. */
#define load_filled_blocks KERNEL(load_filled_blocks)
#define store_filled_blocks KERNEL(store_filled_blocks)
#define store_products KERNEL(store_products)
#define store_products_but_one KERNEL(store_products_but_one)
vf load_filled_blocks(const storage *x, int64_t classes, float *tile);
void store_filled_blocks(const float *tile, int64_t classes, storage *out);
void store_products(const float *tile, vf factor, vf least, int64_t classes, storage *out);
void store_products_but_one(const float *tile, vf factor, vf least, vf column, vf instead,
                            int64_t classes, storage *out);

/* Columns [at, at + n) of sixteen rows; n is a constant. `max`, and what is returned: the maxima of the
 * columns before, and of these too. */
LANES vf load_columns(const storage *x, int64_t stride, int64_t at, const int n, float *tile, vf max)
{
    vf v[4];
    vload_columns(x + at, stride, n, v);
    FOR_BLOCKS(k, n) vstore_f32(tile + (at + k) * BLOCK, v[k]);
    FOR_BLOCKS(k, n) max = vmax(v[k], max);
    return max;
}

LANES void store_columns(const float *tile, tile_output o, int64_t at, const int n, storage *out,
                         int64_t stride)
{
    vf v[4];
    FOR_BLOCKS(k, 4) v[k] = output_of_class(at + (k < n ? k : 0), tile, o);
    vstore_columns(out + at, stride, n, v);
}

/* Four columns at a time. Where the width is no multiple of four, the last step takes the last four
 * columns, some of them for the second time. */
LANES int64_t column_at(int64_t c, int64_t classes) { return c + 4 <= classes ? c : classes - 4; }

/* The maximum of each row of a tile, never -0; NaN counts for nothing. */
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

/* `count` rows, and rows of zeros up to sixteen; and max_of_tile() of them. */
LANES_SELDOM vf load_few_rows(const storage *x, int64_t stride, int64_t count, int64_t classes, float *tile)
{
    memset(tile, 0, (size_t)classes * BLOCK * sizeof *tile);
    for (int64_t j = 0; j < count; j++)
        for (int64_t c = 0; c < classes; c++)
            tile[c * BLOCK + j] = load_one(x + j * stride + c);
    return max_of_tile(tile, classes);
}

LANES_SELDOM void store_few_rows(const float *tile, int64_t count, int64_t classes, storage *out,
                                 int64_t stride)
{
    for (int64_t j = 0; j < count; j++)
        for (int64_t c = 0; c < classes; c++)
            store_one(out + j * stride + c, tile[c * BLOCK + j]);
}

/* Sixteen rows, or `count` of them and rows of zeros; and max_of_tile() of them, while they are in
 * registers. */
LANES vf load_rows(const storage *x, int64_t stride, int64_t count, int64_t classes, float *tile)
{
    vf max = vset1(-LANE_INFINITY);
    if (__builtin_expect(count < BLOCK, 0))
        return load_few_rows(x, stride, count, classes, tile);
    if (fill_blocks(stride, classes))
        return load_filled_blocks(x, classes, tile);
    switch (classes) {
    case 1:
        max = load_columns(x, stride, 0, 1, tile, max);
        break;
    case 2:
        max = load_columns(x, stride, 0, 2, tile, max);
        break;
    case 3:
        max = load_columns(x, stride, 0, 3, tile, max);
        break;
    default:
        for (int64_t c = 0; c < classes; c += 4)
            max = load_columns(x, stride, column_at(c, classes), 4, tile, max);
    }
    return vadd(max, vset1(0.0f));
}

/* Rows that fill blocks. What has no code of its own is formed in the tile first. */
LANES void store_blocks_as(float *tile, tile_output o, int64_t classes, storage *out)
{
    if (o.kind == PRODUCT)
        store_products(tile, o.factor, o.least, classes, out);
    else if (o.kind == PRODUCT_BUT_ONE)
        store_products_but_one(tile, o.factor, o.least, o.column, o.instead, classes, out);
    else {
        if (o.kind != ITSELF)
            put_out(tile, o, classes);
        store_filled_blocks(tile, classes, out);
    }
}

/* Sixteen rows, or `count` of them, and what each element becomes on its way out. The tile is not
 * needed afterwards. */
LANES void store_rows(float *tile, tile_output o, int64_t count, int64_t classes, storage *out,
                      int64_t stride)
{
    if (__builtin_expect(count < BLOCK, 0)) {
        put_out(tile, o, classes);
        store_few_rows(tile, count, classes, out, stride);
        return;
    }
    if (fill_blocks(stride, classes)) {
        store_blocks_as(tile, o, classes, out);
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

/* Rows that leave past the caches are laid out one after the other first, and go on line by line beside
 * other work: at once, they would be waited for. */
typedef struct line_stream {
    const storage *rows;
    storage *out;
    int64_t gone, n; /* elements */
    open_line *line; /* that streams share which follow one another */
} line_stream;

LANES line_stream open_stream(const storage *rows, int64_t n, storage *out, open_line *line)
{
    return (line_stream){rows, out, before_line(out, n), n, line};
}

/* The whole lines before element `end`. */
LANES void stream_to(line_stream *s, int64_t end)
{
    for (end = smaller(end, s->n); s->gone + BLOCK <= end; s->gone += BLOCK)
        vstore_stream(s->out + s->gone, vload(s->rows + s->gone));
}

/* The others, and what is no whole line at either end. */
LANES void finish_stream(line_stream *s)
{
    const int64_t unaligned = before_line(s->out, s->n);
    stream_to(s, s->n);
    if (unaligned > 0)
        put_in_line(s->line, s->out, unaligned, vload_tail(s->rows, unaligned, 0.0f));
    if (s->gone < s->n)
        put_in_line(s->line, s->out + s->gone, s->n - s->gone,
                    vload_tail(s->rows + s->gone, s->n - s->gone, 0.0f));
    s->n = s->gone = 0;
}

#endif
