/* SPDX-License-Identifier: MIT */
/* Sixteen rows at once that stay rows: where a row has a few blocks, which lanes then fill well.
 *
 * Blocks are loaded and stored as they are in memory, and nothing is transposed. Only the folds of
 * maxima and of sums cross lanes, and those of sixteen rows are done together, if the ISA can: see
 * LEAST_ROW_TILE. What comes after the sums is that of softmax_tile.h.
 *
 * Eight rows are half a tile, and what a pass takes of each tile under way. While a row's exponentials are
 * computed, which are kept in slots,
 *
 *   the maximum is found of a row three halves on
 *   the exponentials are added of the row half a tile before
 *   the row two tiles before leaves, just before its slot is taken
 *
 * so that what all rows of a tile are wanted for, the fold of maxima and that of sums, comes half a tile before
 * anything waits for it. */
#ifndef BALLAST_ROW_TILE_H
#define BALLAST_ROW_TILE_H

#include "softmax_tile.h"

enum { HALF = BLOCK / 2, SLOTS = 2 * BLOCK };

/* Of rows in slots: what their passes need of each. */
typedef struct row_tiles {
    _Alignas(LINE) float rounder[SLOTS], floor[SLOTS]; /* of exp_scale; all of these by whole lines */
    int32_t own[SLOTS];    /* parted: where in e the one is that is not in its row's sum, */
    float left_out[SLOTS]; /* but here */
    float factor[SLOTS], least[SLOTS]; /* SCALED: out = e factor; 0 below `least` */
    float max[SLOTS], rest[SLOTS];     /* SUBTRACTED: out = (x - max) - rest */
    int32_t label[SLOTS];              /* labelled: this column */
    float label_value[SLOTS];          /* becomes that */
    float maxima[BLOCK * BLOCK];       /* of the next tile, to be folded */
    double folded[BLOCK * BLOCK / 2];  /* what vs_across_rows() makes sums of */
    float *e;            /* SLOTS rows of width_of(classes), 0 beyond the classes */
    const storage *x[2]; /* SUBTRACTED: of tiles by their slots, */
    storage *out[2];     /* NULL: it does not leave */
    storage *past[2];    /* where `out` goes on to, past the caches; NULL: it stays */
    int64_t tile;        /* 0, 1: whose slots are those of the tile under way */
    line_stream lines;   /* of what is streamed */
    open_line line;
    int near; /* of a fetching */
} row_tiles;

/* Wider tiles than these fill L1 (48 KiB) by themselves. */
enum { WIDEST_NEAR = 128 };

/* How far what is fetched is ahead of the maxima: two tiles, where they are no longer than a page and fetched into
 * L1; one else. */
LANES int64_t rows_ahead(const row_tiles *r, int64_t classes)
{
    const int is_short = BLOCK * classes * (int64_t)sizeof(storage) <= PAGE;
    return r->near && is_short ? 2 * BLOCK : BLOCK;
}

/* What a call needs before tiles overlap. */
enum { LEAST_ROW_TILES = 3 };

/* Whether rows that go in tiles go this way. Wide ones that are streamed do not where the CPU fetches rows into
 * L1: on Zen 5, 144 and 160 classes took 1.3 to 1.6 of the time. */
LANES int are_row_tiles(int64_t rows, int64_t classes, const int leaving)
{
    const int least = leaving == SCALED ? LEAST_ROW_TILE : LEAST_ROW_TILE + 4;
    return LEAST_ROW_TILE && classes >= least && rows >= LEAST_ROW_TILES * BLOCK;
}
LANES int stay_rows(int64_t rows, int64_t classes, const int leaving, int streamed, fetching fetch)
{
    const int crowded = streamed && fetch.near && classes > WIDEST_NEAR;
    return are_row_tiles(rows, classes, leaving) && !crowded;
}

/* As go_in_tiles(), of rows that go this way if they do not have to be streamed; `widest` is row_tile_classes of the
 * job. */
enum { ROW_TILE_CLASSES = SHORT_ROW };
LANES int go_in_row_tiles(int64_t rows, int64_t classes, int64_t widest, const int leaving)
{
    return classes <= smaller(widest, ROW_TILE_CLASSES) && are_row_tiles(rows, classes, leaving);
}

/* The last block ends where its row does, and overlaps the one before. */
LANES int64_t block_at(int64_t c, int64_t classes) { return smaller(c, classes - BLOCK); }

/* The maximum of `rows` rows from x on, in lanes. */
LANES void find_maxima(const storage *x, int64_t classes, int64_t stride, int rows, float *lanes)
{
    for (int64_t j = 0; j < rows; j++, x += stride) {
        vf max = vset1(-LANE_INFINITY);
        for (int64_t c = 0; c < classes; c += BLOCK)
            max = vmax(vload(x + block_at(c, classes)), max);
        vstore_f32(lanes + j * BLOCK, max);
    }
}

/* Those of the next tile, never -0. */
LANES vf maxima_of_rows(const row_tiles *r) { return vadd(vmax_across_rows(r->maxima), vset1(0.0f)); }

/* e: SLOTS rows of whole groups. The last half is parted, and added to nothing, before it is written. */
LANES void open_row_tiles(row_tiles *r, float *e, int64_t classes, fetching fetch)
{
    const int64_t width = width_of(classes), size = SLOTS * width;
    for (int64_t end = width; end <= size; end += width)
        FOR_BLOCKS(k, GROUP_BLOCKS) vstore_f32(e + end - GROUP + k * BLOCK, vset1(0.0f));
    for (int64_t i = size - HALF * width; i < size; i += BLOCK)
        vstore_f32(e + i, vset1(0.0f));
    r->line = (open_line){.n = 0};
    r->near = fetch.near && classes <= WIDEST_NEAR;
    r->e = e;
    r->out[0] = r->out[1] = r->past[0] = r->past[1] = NULL;
    r->own[SLOTS - 1] = (int32_t)((SLOTS - 1) * width);
    r->tile = 0;
}

/* The tile that has slots `tile` is going to begin. */
LANES void begin_row_tile(row_tiles *r, int64_t tile, vf n)
{
    vstore_f32(r->rounder + tile * BLOCK, vsub(vset1(ROUNDER + 126.0f), n));
    vstore_f32(r->floor + tile * BLOCK, vmul(vsub(n, vset1(126.0f)), vset1(LN2)));
}

LANES void set_own(row_tiles *r, int64_t tile, const int32_t *column, int64_t width)
{
    for (int j = 0; j < BLOCK; j++)
        r->own[tile * BLOCK + j] = column[j] + (int32_t)((tile * BLOCK + j) * width);
}

LANES void set_scaled(row_tiles *r, int64_t tile, vf factor, storage *out)
{
    const tile_output o = product_with(factor);
    r->out[tile] = out;
    vstore_f32(r->factor + tile * BLOCK, o.factor);
    vstore_f32(r->least + tile * BLOCK, o.least);
}

LANES void set_subtracted(row_tiles *r, int64_t tile, vf max, vf rest, storage *out)
{
    r->out[tile] = out;
    vstore_f32(r->max + tile * BLOCK, max);
    vstore_f32(r->rest + tile * BLOCK, rest);
}

/* The row in the slot before is parted. */
LANES void part_row(row_tiles *r, int64_t slot)
{
    const int64_t row = (slot - 1) & (SLOTS - 1);
    float *const e = r->e + r->own[row];
    r->left_out[row] = *e;
    *e = 0.0f;
}

/* A block, of which `some` says whether it ends a row: n elements of it are there then. */
LANES vf load_some(const storage *x, const int some, int64_t n)
{
    return some ? vload_n(x, (int)n, -LANE_INFINITY) : vload(x);
}
LANES void store_some(storage *out, const int some, int64_t n, vf v)
{
    if (some)
        vstore_n(out, (int)n, v);
    else
        vstore(out, v);
}

/* A row of each tile under way. What keeps its distance from another is found from there: else compilers have more
 * addresses than registers. */
typedef struct row_set {
    const storage *x;
    int64_t to_next, to_ahead; /* from x to the row whose maximum is found, and to what is fetched */
    float *e;
    int64_t to_added; /* from e */
    const storage *leaving_x;
    storage *out;
} row_set;

LANES row_set moved(row_set p, int64_t x, int64_t e, int64_t out)
{
    p.x += x;
    p.e += e;
    p.leaving_x += x;
    p.out = p.out ? p.out + out : NULL;
    return p;
}

/* `blocks` blocks of the row in a slot leave; `at_end`: of the last one n elements are there. */
LANES void leave_blocks(const row_tiles *r, int64_t slot, const float *e, const storage *x, const int blocks,
                        const int at_end, int64_t n, const int leaving, storage *out)
{
    const vf factor = vset1(r->factor[slot]), least = vset1(r->least[slot]);
    const vf max = vset1(r->max[slot]), rest = vset1(r->rest[slot]);
    FOR_BLOCKS(k, blocks)
    {
        const int some = at_end && k == blocks - 1;
        vf v = leaving == SCALED ? vheld(vload_f32(e + k * BLOCK)) : load_some(x + k * BLOCK, some, n);
        v = leaving == SCALED ? vkeep(vle(least, v), vmul(v, factor)) : vsub(vsub(v, max), rest);
        store_some(out + k * BLOCK, some, n, v);
    }
}

LANES void leave_label_of_row(const row_tiles *r, int64_t slot, storage *out)
{
    store_one(out + r->label[slot], r->label_value[slot]);
}

/* A tile leaves beside nothing, if it does. The line may be open afterwards. */
LANES void leave_row_tile(row_tiles *r, int64_t tile, int64_t classes, int64_t stride, int64_t out_stride,
                          const int leaving, const int labelled)
{
    const int64_t width = width_of(classes), last = (classes - 1) & -BLOCK;
    for (int64_t j = 0; r->out[tile] && j < BLOCK; j++) {
        const int64_t slot = tile * BLOCK + j;
        const float *e = r->e + slot * width;
        storage *out = r->out[tile] + j * out_stride;
        const storage *x = leaving == SUBTRACTED ? r->x[tile] + j * stride : out;
        for (int64_t c = 0; c < last; c += BLOCK)
            leave_blocks(r, slot, e + c, x + c, 1, 0, BLOCK, leaving, out + c);
        leave_blocks(r, slot, e + last, x + last, 1, 1, classes - last, leaving, out + last);
        if (labelled)
            leave_label_of_row(r, slot, out);
    }
    if (r->out[tile] && r->past[tile]) {
        line_stream lines = open_stream(r->out[tile], BLOCK * out_stride, r->past[tile], &r->line);
        finish_stream(&lines);
    }
}

/* The maximum of so many blocks. Meanwhile as much is fetched of the tile after, `ahead`. */
LANES vf max_of_blocks(const storage *x, const storage *ahead, const int near, const int blocks,
                       const int at_end, int64_t n, vf max)
{
    if (near)
        FOR_BLOCKS(k, blocks) vprefetch_near(block_ahead(ahead, k));
    else
        FOR_BLOCKS(k, blocks) vprefetch(block_ahead(ahead, k));
    FOR_BLOCKS(k, blocks) max = vmax(load_some(x + k * BLOCK, at_end && k == blocks - 1, n), max);
    return max;
}

/* The next `blocks` blocks of each row. */
LANES void pass_blocks(const row_tiles *r, int64_t slot, const row_set p, const exp_constants *constants,
                       const int blocks, const int at_end, int64_t n, const int leaving, vf *max, vs *total)
{
    const exp_scale scale = {vset1(r->rounder[slot]), vset1(r->floor[slot])};
    const storage *const x = anew(p.x);
    float *const e = (float *)anew(p.e);
    vf v[GROUP_BLOCKS];
    FOR_BLOCKS(k, blocks) v[k] = load_some(x + k * BLOCK, at_end && k == blocks - 1, n);
    const exp_held begun = vexp_reduced_held(v, blocks, scale, constants);
    *max = max_of_blocks(anew(x + p.to_next), anew(x + p.to_ahead), r->near, blocks, at_end, n, *max);
    *total = add_exponentials(*total, anew(e + p.to_added));
    if (leaving)
        leave_blocks(r, slot, e, leaving == SUBTRACTED ? anew(p.leaving_x) : x, blocks, at_end, n, leaving,
                     (storage *)anew(p.out));
    vexp_of_reduced_held(&begun, v, blocks, constants);
    FOR_BLOCKS(k, blocks) vstore_f32(e + k * BLOCK, v[k]);
}

/* Half a tile under way, and of the others. `streamed`: what leaves goes on past the caches; `labelled`: one
 * column of each row has a value of its own; `parted`: one column of each row is not in its sum. */
LANES void pass_half(row_tiles *r, const storage *x, const storage *next, int second, int64_t classes,
                     int64_t stride, int64_t out_stride, const int leaving, const int labelled,
                     const int parted, int streamed)
{
    const int64_t width = width_of(classes), last = (classes - 1) & -GROUP;
    const int64_t last_blocks = (classes - last + BLOCK - 1) / BLOCK;
    const int64_t n = classes - ((classes - 1) & -BLOCK); /* of the last block */
    const int64_t first = r->tile * BLOCK + second * HALF, other = HALF - second * HALF;
    const int64_t to_next = next - x;
    row_set p = {x, to_next, to_next + rows_ahead(r, classes) * stride, r->e + first * width,
                 (first > 0 ? -HALF : SLOTS - HALF) * width,
                 leaving == SUBTRACTED ? r->x[r->tile] + second * HALF * stride : x,
                 leaving ? r->out[r->tile] + second * HALF * out_stride : NULL};
    if (streamed && !second) {
        r->lines = open_stream(r->out[r->tile], BLOCK * out_stride, r->past[r->tile], &r->line);
        prefetch_pages(r->past[r->tile], 2 * BLOCK * out_stride, BLOCK * out_stride);
    }
    const exp_constants constants = vexp_constants();
    for (int64_t j = 0; j < HALF; j++) {
        const int64_t slot = first + j;
        vf max = vset1(-LANE_INFINITY);
        vs total = vs_zero();
        if (parted)
            part_row(r, slot);
        for (int64_t c = 0; c < last; c += GROUP, p = moved(p, GROUP, GROUP, GROUP))
            pass_blocks(r, slot, p, &constants, GROUP_BLOCKS, 0, BLOCK, leaving, &max, &total);
#define LAST(blocks)                                                                              \
    case blocks:                                                                                  \
        pass_blocks(r, slot, p, &constants, blocks, 1, n, leaving, &max, &total);                 \
        break;
        switch (last_blocks) {
            LAST(1) LAST(2) LAST(3) LAST(4)
        }
#undef LAST
        vstore_f32(r->maxima + (other + j) * BLOCK, max);
        vs_store_folded(r->folded + (other + j) * (BLOCK / 2), total);
        if (leaving && labelled)
            leave_label_of_row(r, slot, p.out - last);
        if (streamed && j % 2 == 0) /* two rows later: their stores are done by then */
            stream_to(&r->lines, (second * HALF + j) * out_stride);
        p = moved(p, stride - last, width - last, out_stride - last);
    }
    if (streamed && second)
        finish_stream(&r->lines);
}

LANES void pass_row_tiles(row_tiles *r, const storage *x, const storage *next, int second, int64_t classes,
                          int64_t stride, int64_t out_stride, const int leaving, const int labelled,
                          const int parted)
{
    if (!r->out[r->tile])
        pass_half(r, x, next, second, classes, stride, out_stride, NOTHING_LEAVES, 0, parted, 0);
    else
        pass_half(r, x, next, second, classes, stride, out_stride, leaving, labelled, parted,
                  r->past[r->tile] != NULL);
}

/* When no tile begins, the second half of the last one, whose slots are those of `tile`, is added beside
 * nothing. */
LANES void add_last_half(row_tiles *r, int64_t tile, int64_t classes, const int parted)
{
    const int64_t width = width_of(classes), end = (tile + 1) * BLOCK;
    if (parted)
        part_row(r, end);
    for (int64_t j = HALF; j < BLOCK; j++) {
        vs total = vs_zero();
        for (int64_t c = 0; c < width; c += GROUP)
            total = add_exponentials(total, r->e + (end - BLOCK + j) * width + c);
        vs_store_folded(r->folded + j * BLOCK / 2, total);
    }
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

#endif
