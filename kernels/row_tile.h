/* SPDX-License-Identifier: MIT */
/* Sixteen rows at once that stay rows: where a row has a few blocks, which lanes then fill well.
 *
 * Blocks are loaded and stored as they are in memory, and nothing is transposed. Only the folds of
 * maxima and of sums cross lanes, and those of sixteen rows are done together, if the ISA can: see
 * LEAST_ROW_TILE. What comes after the sums is that of softmax_tile.h.
 *
 * Three tiles are under way, a row of each in turn, so that none waits for a fold or a division:
 * the next one's maxima are found, this one's exponentials are computed, the one before leaves. */
#ifndef BALLAST_ROW_TILE_H
#define BALLAST_ROW_TILE_H

#include "softmax_tile.h"

typedef struct row_tile {
    const storage *x;
    float *e;                           /* BLOCK rows of width_of(classes), 0 beyond the classes */
    float rounder[BLOCK], floor[BLOCK]; /* of exp_scale */
    storage *out;                       /* NULL: it does not leave */
    storage *past;                      /* where `out` goes on to, past the caches; NULL: it stays */
    const int32_t *label;               /* if labelled, the columns that become label_value */
    const float *label_value;
    float factor[BLOCK], least[BLOCK];  /* SCALED: out = e factor; 0 below `least` */
    float max[BLOCK], rest[BLOCK];      /* SUBTRACTED: out = (x - max) - rest */
} row_tile;

/* What a call needs before tiles overlap. */
enum { LEAST_ROW_TILES = 3 };

/* Whether rows that go in tiles go this way. */
LANES int stay_rows(int64_t rows, int64_t classes)
{
    return LEAST_ROW_TILE && classes >= LEAST_ROW_TILE && rows >= LEAST_ROW_TILES * BLOCK;
}

LANES int64_t width_of(int64_t classes) { return (classes + GROUP - 1) & -GROUP; }

/* The last block ends where its row does, and overlaps the one before. */
LANES int64_t block_at(int64_t c, int64_t classes) { return smaller(c, classes - BLOCK); }

/* The lanes of a row's maximum. Meanwhile as much is fetched from `ahead` on. */
LANES void maximum_lanes(const storage *x, int64_t classes, const char *ahead, float *lanes)
{
    vf max = vset1(-LANE_INFINITY);
    for (int64_t c = 0; c < classes; c += BLOCK) {
        vprefetch(ahead + c * (int64_t)sizeof *x);
        max = vmax(vload(x + block_at(c, classes)), max);
    }
    vstore_f32(lanes, max);
}

LANES void exponentials_of_row(const storage *x, int64_t classes, exp_scale scale, float *e)
{
    vf v[GROUP_BLOCKS];
    int64_t c = 0;
    for (; c + GROUP <= classes; c += GROUP) {
        FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vload(x + c + k * BLOCK);
        vexp_scaled(v, v, GROUP_BLOCKS, scale);
        FOR_BLOCKS(k, GROUP_BLOCKS) vstore_f32(e + c + k * BLOCK, v[k]);
    }
    for (; c < classes; c += BLOCK) {
        const int64_t at = block_at(c, classes);
        v[0] = vload(x + at);
        vexp_scaled(v, v, 1, scale);
        vstore_f32(e + at, v[0]);
    }
}

/* The last block of a row in place must not be read where it was written. */
LANES void leave_row(const row_tile *t, int64_t j, int64_t classes, int64_t stride,
                     int64_t out_stride, const int leaving)
{
    const vf factor = vset1(t->factor[j]), least = vset1(t->least[j]);
    const vf max = vset1(t->max[j]), rest = vset1(t->rest[j]);
    const float *e = t->e + j * width_of(classes);
    const storage *x = t->x + j * stride;
    storage *out = t->out + j * out_stride;
    for (int64_t c = 0; c < classes; c += BLOCK) {
        const int64_t at = block_at(c, classes);
        if (leaving == SCALED) {
            const vf v = vload_f32(e + at);
            vstore(out + at, vkeep(vle(least, v), vmul(v, factor)));
        } else if (c == at || x != out) {
            vstore(out + at, vsub(vsub(vload(x + at), max), rest));
        } else {
            const vf v = vload_tail(x + c, classes - c, 0.0f);
            vstore_tail(out + c, classes - c, vsub(vsub(v, max), rest));
        }
    }
}

LANES void leave_label_of_row(const row_tile *t, int64_t j, int64_t out_stride)
{
    store_one(t->out + j * out_stride + t->label[j], t->label_value[j]);
}

LANES void leave_row_tile(const row_tile *t, int64_t classes, int64_t stride, int64_t out_stride,
                          const int leaving, const int labelled)
{
    for (int64_t j = 0; t->out && j < BLOCK; j++)
        leave_row(t, j, classes, stride, out_stride, leaving);
    for (int64_t j = 0; t->out && labelled && j < BLOCK; j++)
        leave_label_of_row(t, j, out_stride);
    if (t->out && t->past) {
        line_stream lines = open_stream(t->out, BLOCK * out_stride, t->past);
        finish_stream(&lines);
    }
}

/* The maxima of sixteen rows from x on, never -0. */
LANES vf maxima_of_rows(const storage *x, int64_t classes, int64_t stride)
{
    float lanes[BLOCK * BLOCK];
    for (int64_t j = 0; j < BLOCK; j++)
        maximum_lanes(x + j * stride, classes, (const char *)x, lanes + j * BLOCK);
    return vadd(vmax_across_rows(lanes), vset1(0.0f));
}

/* Two tiles that take turns. */
LANES void open_row_tiles(row_tile *t, float *e, int64_t classes)
{
    const int64_t width = width_of(classes);
    for (int64_t j = 1; j <= 2 * BLOCK; j++)
        FOR_BLOCKS(k, GROUP_BLOCKS) vstore_f32(e + j * width - GROUP + k * BLOCK, vset1(0.0f));
    t[0].e = e;
    t[1].e = e + BLOCK * width;
    t[0].out = t[1].out = NULL;
    t[0].past = t[1].past = NULL;
}

LANES void set_reference(row_tile *t, const storage *x, vf n)
{
    t->x = x;
    t->out = NULL;
    vstore_f32(t->rounder, vsub(vset1(ROUNDER + 126.0f), n));
    vstore_f32(t->floor, vmul(vsub(n, vset1(126.0f)), vset1(LN2)));
}

LANES void set_scaled(row_tile *t, vf factor, storage *out)
{
    const tile_output o = product_with(factor);
    t->out = out;
    vstore_f32(t->factor, o.factor);
    vstore_f32(t->least, o.least);
}

/* The tile `now` while `before` leaves, `streamed` where it goes on past the caches, and `labelled` where one
 * column of each row has a value of its own; returns the maxima of the one at `next`. */
LANES vf pass_rows_of_tile(const row_tile *before, const row_tile *now, const storage *next, int64_t classes,
                           int64_t stride, int64_t out_stride, const int leaving, const int labelled,
                           const int streamed)
{
    const int64_t width = width_of(classes);
    line_stream leaving_lines = {.n = 0};
    float lanes[BLOCK * BLOCK];
    if (streamed)
        leaving_lines = open_stream(before->out, BLOCK * out_stride, before->past);
    for (int64_t j = 0; j < BLOCK; j++) {
        const exp_scale scale = {vset1(now->rounder[j]), vset1(now->floor[j])};
        const storage *x = next + j * stride;
        maximum_lanes(x, classes, tile_ahead(x, stride, 1), lanes + j * BLOCK);
        if (streamed || before->out)
            leave_row(before, j, classes, stride, out_stride, leaving);
        if (streamed && labelled)
            leave_label_of_row(before, j, out_stride);
        if (streamed) /* a row later: its stores are done by then */
            stream_to(&leaving_lines, j * out_stride);
        exponentials_of_row(now->x + j * stride, classes, scale, now->e + j * width);
    }
    for (int64_t j = 0; !streamed && labelled && before->out && j < BLOCK; j++)
        leave_label_of_row(before, j, out_stride);
    if (streamed)
        finish_stream(&leaving_lines);
    return vadd(vmax_across_rows(lanes), vset1(0.0f));
}

LANES vf pass_row_tile(const row_tile *before, const row_tile *now, const storage *next, int64_t classes,
                       int64_t stride, int64_t out_stride, const int leaving, const int labelled)
{
    if (before->out && before->past)
        return pass_rows_of_tile(before, now, next, classes, stride, out_stride, leaving, labelled, 1);
    return pass_rows_of_tile(before, now, next, classes, stride, out_stride, leaving, labelled, 0);
}

LANES void set_subtracted(row_tile *t, vf max, vf rest, storage *out)
{
    t->out = out;
    vstore_f32(t->max, max);
    vstore_f32(t->rest, rest);
}

/* Takes one class of each row out of the sum, as leave_out(). */
LANES void leave_out_of_rows(float *e, int64_t classes, const int32_t *column, float *left_out)
{
    float *at[BLOCK];
    UNROLL for (int j = 0; j < BLOCK; j++)
    {
        at[j] = e + j * width_of(classes) + column[j];
        left_out[j] = *at[j];
    }
    UNROLL for (int j = 0; j < BLOCK; j++) *at[j] = 0.0f;
}

/* As first_maxima(): in each lane of a row its first block, then the lowest class of the lanes. */
LANES void first_maxima_of_rows(const storage *x, int64_t classes, int64_t stride, vf max,
                                int32_t *first)
{
    static const float lane[BLOCK] = {0.0f, 1.0f, 2.0f,  3.0f,  4.0f,  5.0f,  6.0f,  7.0f,
                                      8.0f, 9.0f, 10.0f, 11.0f, 12.0f, 13.0f, 14.0f, 15.0f};
    const vf none = vset1((float)(TILE_CLASSES + 1)), rounder = vset1(ROUNDER);
    float maxima[BLOCK], lanes[BLOCK * BLOCK];
    vstore_f32(maxima, max);
    for (int64_t j = 0; j < BLOCK; j++, x += stride) {
        const vf most = vset1(maxima[j]);
        const int64_t last = (classes - 1) & -BLOCK;
        const vm in_last = veq(vload(x + classes - BLOCK), most);
        vf at = vselect(in_last, vset1((float)(classes - BLOCK)), none);
        vf start = vset1((float)(last - BLOCK));
        for (int64_t c = last - BLOCK; c >= 0; c -= BLOCK) {
            at = vselect(veq(vload(x + c), most), start, at);
            start = vsub(start, vset1((float)BLOCK));
        }
        vstore_f32(lanes + j * BLOCK, vneg(vadd(at, vload_f32(lane))));
    }
    const vf lowest = vneg(vmax_across_rows(lanes));
    const vf class = vkeep(vle(lowest, vset1((float)TILE_CLASSES)), lowest);
    store_numbers(first, vsub_bits(vadd(class, rounder), rounder));
}

/* As add_exponentials(), in lanes that are folded together. */
LANES vd add_widened(vd total, const float *e)
{
    total = vd_plus(total, vd_load_sum(e, e + 2 * BLOCK));
    return vd_plus(total, vd_load_sum(e + BLOCK, e + 3 * BLOCK));
}

/* The double lanes of each row's sum, folded. */
LANES void sum_row_tile(const float *e, int64_t classes, double *sum)
{
    const int64_t width = width_of(classes);
    double lanes[BLOCK * BLOCK];
    for (int64_t j = 0; j < BLOCK; j++, e += width) {
        vd total = vd_zero();
        for (int64_t c = 0; c < width; c += GROUP)
            total = add_widened(total, e + c);
        vd_store(lanes + j * BLOCK, total);
    }
    vd_store(sum, vd_across_rows(lanes));
}

#endif
