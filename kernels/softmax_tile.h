/* SPDX-License-Identifier: MIT */
/* The exponential sums of sixteen rows at once, for rows that are shorter than the latency of their own
 * reductions.
 *
 * A tile holds the rows class by class, x[class * BLOCK + row]: lanes are rows, maxima and sums run down
 * the tile, and nothing crosses lanes. tile_rows.h brings them there and back.
 *
 * Every number is that of softmax_row.h, and so is the order of its sum: what is double lane l there is
 * here the sum over the classes l, l + 16, l + 32, ... of a row, and the sixteen are folded 8, 4, 2, 1.
 *
 * A tile is irregular when a row of it holds a NaN or an infinite maximum, or one beyond DIRECT_BOUND.
 * Such tiles are left to the code that takes one row at a time. */
#ifndef BALLAST_SOFTMAX_TILE_H
#define BALLAST_SOFTMAX_TILE_H

#include "softmax_row.h"
#include "tile_rows.h"

/* Tiles go through each step side by side, which hides the latency of short ones. Together they have
 * at most SET_CLASSES classes, 8 KiB, and stay in L1 beside their rows; a wider tile goes alone. */
enum { SET_CLASSES = 128, MAX_TILES = 8, TILE_CLASSES = 255 };

/* Tiles, and behind them what sum_exponentials() may read. */
enum { TILE_FLOATS = (TILE_CLASSES + 1) * BLOCK };

/* A row that could go in a tile and goes by itself: whole groups. */
enum { SHORT_ROW = (TILE_CLASSES + GROUP - 1) / GROUP * GROUP };

/* The scratch of rows that could go in tiles and go one after the other. */
enum { SHORT_SCRATCH = SCRATCH_ROWS * (SHORT_ROW + SLOT_ROOM) + BLOCK };

/* Whether rows go in tiles; `widest` is tile_classes of the job. */
LANES int go_in_tiles(int64_t classes, int64_t widest)
{
    return classes >= 1 && classes <= smaller(widest, TILE_CLASSES);
}

/* How many tiles of `classes` classes, at most TILE_CLASSES, go side by side. */
LANES int64_t tiles_of(int64_t classes)
{
    const int64_t tiles = SET_CLASSES / classes;
    return tiles < 1 ? 1 : tiles < MAX_TILES ? tiles : MAX_TILES;
}

/* Rows [begin, what is returned) go in tiles: all but a few at the end, which cost less one by one. */
LANES int64_t end_of_tiles(int64_t begin, int64_t end, int64_t classes)
{
    const int64_t rest = (end - begin) % BLOCK;
    return rest < 2 + classes / 4 ? end - rest : end;
}

/* ---- a row by itself -------------------------------------------------------------------------- */

LANES row_sum sum_short_row(const storage *x, int64_t classes, int64_t left_out, float *e)
{
    const reference ref = reference_of(max_of(x, classes));
    const chunk_sum sum = sum_alone(x, classes, ref, left_out, e);
    return (row_sum){ref, sum.others, (double)sum.left_out};
}

/* out = e h, as leave_group has it. */
LANES void scale_short_row(const float *e, int64_t classes, float h, storage *out)
{
    const vf scale = vset1(h), least = vset1(least_of(h));
    for (int64_t c = 0; c < classes; c += BLOCK) {
        const vf v = vload_f32(e + c);
        vstore_tail(out + c, classes - c, vkeep(vle(least, v), vmul(v, scale)));
    }
}

/* ---- sixteen rows ----------------------------------------------------------------------------- */

/* exponent_of, lane by lane. */
LANES vf exponents_of(vf max)
{
    const vf rounder = vset1(ROUNDER);
    return vsub(vadd(vmul(max, vset1(LOG2_E)), rounder), rounder);
}

/* Where the tile lies that comes `tiles` tiles after the one at x, in a contiguous matrix. Only to be
 * fetched: it may lie beyond the array, and in any other matrix it is some place else. */
LANES const void *tile_ahead(const storage *x, int64_t stride, int64_t tiles)
{
    return (const void *)((uintptr_t)x + (size_t)(tiles * BLOCK * stride) * sizeof *x);
}

LANES const void *block_ahead(const void *ahead, int64_t block)
{
    return (const void *)((uintptr_t)ahead + (size_t)(block * BLOCK) * sizeof(storage));
}

/* `near` is of a fetching. */
LANES void fetch_block(const void *ahead, int64_t block, int near)
{
    if (near)
        vprefetch_near(block_ahead(ahead, block));
    else
        vprefetch(block_ahead(ahead, block));
}

/* Whether a class of each row is told by comparison with every class. In memory it would be taken from
 * whole blocks, and those loaded again while parts of them are being stored. */
LANES int are_compared(int64_t classes) { return MASK_REGISTERS && classes <= BLOCK; }

/* A class of each row, as a number, and its exponential, which is kept out of the sum. */
typedef struct class_apart {
    vf column, e;
} class_apart;

/* e, which is of the class `class`: 0 where that is kept apart. */
LANES vf keep_apart(class_apart *apart, float class, vf e)
{
    const vm own = veq(apart->column, vset1(class));
    apart->e = vselect(own, e, apart->e);
    return vselect(own, vset1(0.0f), e);
}

/* `blocks` classes of exp_tile(), from class c on; `apart`, whose columns are those less c, may be NULL. */
LANES_LARGE void exp_classes(const float *x, float *e, int64_t c, const int blocks, exp_scale scale, const void *ahead,
                             int near, class_apart *apart)
{
    vf v[BLOCKS_IN_FLIGHT];
    FOR_BLOCKS(k, blocks) fetch_block(ahead, c + k, near);
    FOR_BLOCKS(k, blocks) v[k] = vload_f32(x + (c + k) * BLOCK);
    vexp_scaled(v, v, blocks, scale);
    if (apart)
        FOR_BLOCKS(k, blocks) v[k] = keep_apart(apart, (float)k, v[k]);
    FOR_BLOCKS(k, blocks) vstore_f32(e + (c + k) * BLOCK, v[k]);
}

/* e = exp(x) / 2^n; e may be x. Meanwhile, for each class, a block is fetched of what will be read at
 * `ahead`, as `near` as a fetching says, and one goes on of what leaves past the caches, if `lines` are
 * given. `apart` may be NULL. */
LANES_LARGE void exp_tile(const float *x, float *e, int64_t classes, vf n, const void *ahead,
                          int near, line_stream *lines, class_apart *apart)
{
    class_apart from_c = apart ? *apart : (class_apart){vset1(0.0f), vset1(0.0f)}; /* columns less c */
    class_apart *const own = apart ? &from_c : NULL;
    const exp_scale scale = {vsub(vset1(ROUNDER + 126.0f), n),
                             vmul(vsub(n, vset1(126.0f)), vset1(LN2))};
    int64_t c = 0;
    for (; c + BLOCKS_IN_FLIGHT <= classes; c += BLOCKS_IN_FLIGHT) {
        if (lines)
            stream_to(lines, lines->gone + BLOCKS_IN_FLIGHT * BLOCK);
        exp_classes(x, e, c, BLOCKS_IN_FLIGHT, scale, ahead, near, own);
        if (apart)
            from_c.column = vsub(from_c.column, vset1((float)BLOCKS_IN_FLIGHT));
    }
    if (BLOCKS_IN_FLIGHT > 1 && classes - c == 1)
        exp_classes(x, e, c, 1, scale, ahead, near, own);
    else if (BLOCKS_IN_FLIGHT > 2 && classes - c == 2)
        exp_classes(x, e, c, 2, scale, ahead, near, own);
    else if (BLOCKS_IN_FLIGHT > 2 && classes - c == 3)
        exp_classes(x, e, c, 3, scale, ahead, near, own);
    if (apart)
        apart->e = from_c.e;
}

/* The same, but for the class of each row that is told by comparison: its exponential is returned, and 0 in
 * its place. In softmax_tile.c, for several files need it. */
#define exp_tile_but_one KERNEL(exp_tile_but_one)
vf exp_tile_but_one(const float *x, float *e, int64_t classes, vf n, const void *ahead, int near,
                    line_stream *lines, vf column);

/* The column of each row, from where it stands in a block as an integer. */
LANES void store_numbers(int32_t *column, vf at)
{
    float bits[BLOCK];
    vstore_f32(bits, at);
    memcpy(column, bits, sizeof bits);
}

/* The first class of each row whose logit is the maximum, as an integer; 0 for none. */
LANES vf first_maxima(const float *x, int64_t classes, vf max)
{
    vf at = vset1(0.0f);
    for (int64_t c = classes - 1; c >= 0; c--)
        at = vselect(veq(vload_f32(x + c * BLOCK), max), vset1(float_of_bits((uint32_t)c)), at);
    return at;
}

/* Takes one class of each row out of the sum: it is moved from the tile, which has 0 there then. */
LANES void leave_out(float *e, const int32_t *column, float *left_out)
{
    UNROLL for (int j = 0; j < BLOCK; j++)
    {
        float *at = e + (size_t)(uint32_t)column[j] * BLOCK + j; /* unsigned: no extension of signs */
        left_out[j] = *at;
        *at = 0.0f;
    }
}

/* Whether the rows need more than this file does; `sum` is that of every class, in f32. Where the
 * maximum is finite and small the sum is above 0.7 - or infinite or NaN, where a logit is NaN. */
LANES int tile_is_irregular(vf max, vf sum)
{
    return vany(vmask_or(vlt(vset1(DIRECT_BOUND), vabs(max)), vnan(vsub(sum, sum))));
}

#endif
