/* SPDX-License-Identifier: MIT */
/* Sixteen rows at once that stay rows: where a row has a few blocks, which lanes then fill well.
 *
 * Blocks are loaded and stored as they are in memory, and nothing is transposed. Only the folds of
 * maxima and of sums cross lanes, and those of sixteen rows are done together, if the ISA can: see
 * LEAST_ROW_TILE. What comes after the sums is that of softmax_tile.h.
 *
 * Four tiles are under way, two rows of each in turn, so that nothing waits for exponentials, for a fold or
 * a division, or for what was stored in pieces and is fetched whole:
 *
 *   the next one    its maxima are found
 *   this one        its exponentials are computed, and kept in slots
 *   the one before  they are added
 *   the one before that leaves, each row just before its slot is taken */
#ifndef BALLAST_ROW_TILE_H
#define BALLAST_ROW_TILE_H

#include "softmax_tile.h"

typedef struct row_tile {
    const storage *x;
    float *e;                           /* BLOCK rows of width_of(classes), 0 beyond the classes */
    float rounder[BLOCK], floor[BLOCK]; /* of exp_scale */
    _Alignas(LINE) double folded[BLOCK * BLOCK / 2]; /* what vd_across_rows() makes their sums of */
    const int32_t *column;              /* parted: these of each row are not in its sum, */
    float left_out[BLOCK];              /* but here */
    storage *out;                       /* NULL: it does not leave */
    storage *past;                      /* where `out` goes on to, past the caches; NULL: it stays */
    const float *label_value;           /* labelled: what those columns become */
    float factor[BLOCK], least[BLOCK];  /* SCALED: out = e factor; 0 below `least` */
    float max[BLOCK], rest[BLOCK];      /* SUBTRACTED: out = (x - max) - rest */
} row_tile;

/* Wider tiles than these fill L1 (48 KiB) by themselves. */
enum { WIDEST_NEAR = 128 };

/* What a call needs before tiles overlap. */
enum { LEAST_ROW_TILES = 3 };

/* Whether rows that go in tiles go this way. Wide ones that are streamed do not where the CPU fetches rows into
 * L1: on Zen 5, 144 and 160 classes took 1.3 to 1.6 of the time. */
LANES int stay_rows(int64_t rows, int64_t classes, int streamed, fetching fetch)
{
    const int crowded = streamed && fetch.near && classes > WIDEST_NEAR;
    return LEAST_ROW_TILE && classes >= LEAST_ROW_TILE && rows >= LEAST_ROW_TILES * BLOCK && !crowded;
}

/* The last block ends where its row does, and overlaps the one before. */
LANES int64_t block_at(int64_t c, int64_t classes) { return smaller(c, classes - BLOCK); }

/* The maxima of sixteen rows from x on, never -0. */
LANES vf maxima_of_rows(const storage *x, int64_t classes, int64_t stride)
{
    _Alignas(LINE) float lanes[BLOCK * BLOCK];
    for (int64_t j = 0; j < BLOCK; j++, x += stride) {
        vf max = vset1(-LANE_INFINITY);
        for (int64_t c = 0; c < classes; c += BLOCK)
            max = vmax(vload(x + block_at(c, classes)), max);
        vstore_f32(lanes + j * BLOCK, max);
    }
    return vadd(vmax_across_rows(lanes), vset1(0.0f));
}

/* Tiles that take turns; the one that leaves has the slots of the one under way. */
enum { ROW_TILES = 3 };
typedef struct row_tiles {
    row_tile tile[ROW_TILES], *leaves, *before, *now;
    const storage *last; /* the last tile of the call: nothing is fetched beyond it */
    open_line line;      /* of what is streamed */
    int near;            /* of a fetching */
} row_tiles;

/* e: two tiles of whole groups. The second is added to nothing before it is written. */
LANES void open_row_tiles(row_tiles *r, float *e, int64_t classes, const storage *last, fetching fetch)
{
    static const int32_t none[BLOCK] = {0};
    const int64_t width = width_of(classes), size = BLOCK * width;
    for (int64_t end = width; end <= size; end += width)
        FOR_BLOCKS(k, GROUP_BLOCKS) vstore_f32(e + end - GROUP + k * BLOCK, vset1(0.0f));
    for (int64_t i = size; i < 2 * size; i += BLOCK)
        vstore_f32(e + i, vset1(0.0f));
    r->last = last;
    r->line = (open_line){.n = 0};
    r->near = fetch.near && classes <= WIDEST_NEAR;
    for (int k = 0; k < ROW_TILES; k++) {
        r->tile[k].e = k == 1 ? e + size : e;
        r->tile[k].out = r->tile[k].past = NULL;
        r->tile[k].column = none;
    }
    r->now = r->tile;
    r->before = r->tile + 1;
    r->leaves = r->tile + 2;
}

/* The tile at x begins; its rows leave, if at all, when it has been told so. */
LANES void begin_row_tile(row_tiles *r, const storage *x, vf n)
{
    row_tile *t = r->now;
    t->x = x;
    t->out = NULL;
    vstore_f32(t->rounder, vsub(vset1(ROUNDER + 126.0f), n));
    vstore_f32(t->floor, vmul(vsub(n, vset1(126.0f)), vset1(LN2)));
}

/* The tile `now` is in its slots. */
LANES void turn_row_tiles(row_tiles *r)
{
    row_tile *const gone = r->leaves;
    r->leaves = r->before;
    r->before = r->now;
    r->now = gone;
    gone->e = r->leaves->e;
}

LANES void set_scaled(row_tile *t, vf factor, storage *out)
{
    const tile_output o = product_with(factor);
    t->out = out;
    vstore_f32(t->factor, o.factor);
    vstore_f32(t->least, o.least);
}

LANES void set_subtracted(row_tile *t, vf max, vf rest, storage *out)
{
    t->out = out;
    vstore_f32(t->max, max);
    vstore_f32(t->rest, rest);
}

LANES void leave_label_of_row(const row_tile *t, int64_t j, int64_t out_stride)
{
    store_one(t->out + j * out_stride + t->column[j], t->label_value[j]);
}

/* Row j of a tile that is parted. */
LANES void part_row(row_tile *t, int64_t j, int64_t width)
{
    float *e = t->e + j * width + t->column[j];
    t->left_out[j] = *e;
    *e = 0.0f;
}

/* As add_exponentials(), in lanes that are folded together. */
LANES void add_group(vd *total, const float *e)
{
    *total = vd_plus(*total, vd_load_sum(e, e + 2 * BLOCK));
    *total = vd_plus(*total, vd_load_sum(e + BLOCK, e + 3 * BLOCK));
}

/* Row j, beside nothing. */
LANES void add_row(row_tile *t, int64_t j, int64_t width)
{
    vd total = vd_zero();
    for (int64_t c = 0; c < width; c += GROUP)
        add_group(&total, t->e + j * width + c);
    vd_store_folded(t->folded + j * BLOCK / 2, total);
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

/* Two rows of each tile, from a group on. */
typedef struct row_pairs {
    const storage *next, *x; /* the second of two at `stride` */
    float *e;
    const float *added; /* at width_of(classes) */
    const storage *leaving_x;
    storage *out; /* at out_stride */
} row_pairs;

LANES row_pairs moved(row_pairs p, int64_t x, int64_t e, int64_t out)
{
    return (row_pairs){p.next + x,  p.x + x,         p.e + e,
                       p.added + e, p.leaving_x + x, p.out ? p.out + out : NULL};
}

/* `blocks` blocks of row j of a tile leave; `at_end`: of the last one n elements are there. */
LANES void leave_blocks(const row_tile *t, int64_t j, const float *e, const storage *x, const int blocks,
                        const int at_end, int64_t n, const int leaving, storage *out)
{
    const vf factor = vset1(t->factor[j]), least = vset1(t->least[j]);
    const vf max = vset1(t->max[j]), rest = vset1(t->rest[j]);
    FOR_BLOCKS(k, blocks)
    {
        const int some = at_end && k == blocks - 1;
        vf v = leaving == SCALED ? vload_f32(e + k * BLOCK) : load_some(x + k * BLOCK, some, n);
        v = leaving == SCALED ? vkeep(vle(least, v), vmul(v, factor)) : vsub(vsub(v, max), rest);
        store_some(out + k * BLOCK, some, n, v);
    }
}

/* A tile leaves beside nothing. */
LANES void leave_row_tile(const row_tile *t, open_line *line, int64_t classes, int64_t stride, int64_t out_stride,
                          const int leaving, const int labelled)
{
    const int64_t width = width_of(classes), last = (classes - 1) & -BLOCK;
    for (int64_t j = 0; t->out && j < BLOCK; j++) {
        const float *e = t->e + j * width;
        const storage *x = t->x + j * stride;
        storage *out = t->out + j * out_stride;
        for (int64_t c = 0; c < last; c += BLOCK)
            leave_blocks(t, j, e + c, x + c, 1, 0, BLOCK, leaving, out + c);
        leave_blocks(t, j, e + last, x + last, 1, 1, classes - last, leaving, out + last);
        if (labelled)
            leave_label_of_row(t, j, out_stride);
    }
    if (t->out && t->past) {
        line_stream lines = open_stream(t->out, BLOCK * out_stride, t->past, line);
        finish_stream(&lines);
        close_line(line);
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

/* The next `blocks` blocks of rows j and j + 1. Pointers are taken anew, and blocks found from there: else
 * compilers hold an address of each. */
LANES void pass_blocks(const row_tile *leaves, const row_tile *now, int64_t j, row_pairs p,
                       int64_t width, int64_t stride, int64_t out_stride, int64_t ahead, const int near,
                       const int blocks, const int at_end, int64_t n, const int leaving, vf *max,
                       vd *total)
{
    const exp_scale even = {vset1(now->rounder[j]), vset1(now->floor[j])};
    const exp_scale odd = {vset1(now->rounder[j + 1]), vset1(now->floor[j + 1])};
    const storage *const next = anew(p.next), *const x = anew(p.x), *const old_x = anew(p.leaving_x);
    const float *const added = anew(p.added);
    float *const e = (float *)anew(p.e);
    storage *const out = (storage *)anew(p.out);
    vf v[2 * GROUP_BLOCKS];
    UNROLL for (int i = 0; i < 2; i++)
        FOR_BLOCKS(k, blocks)
        v[i * blocks + k] = load_some(x + i * stride + k * BLOCK, at_end && k == blocks - 1, n);
    const exp_reduced_rows begun = vexp_reduced_rows(v, blocks, even, odd);
    UNROLL for (int i = 0; i < 2; i++)
        max[i] = max_of_blocks(next + i * stride, next + i * stride + ahead, near, blocks, at_end, n,
                               max[i]);
    UNROLL for (int i = 0; i < 2; i++) add_group(&total[i], added + i * width);
    UNROLL for (int i = 0; leaving && i < 2; i++)
        leave_blocks(leaves, j + i, e + i * width, old_x + i * stride, blocks, at_end, n, leaving,
                     out + i * out_stride);
    vexp_of_reduced_rows(&begun, v, blocks);
    UNROLL for (int i = 0; i < 2; i++)
        FOR_BLOCKS(k, blocks) vstore_f32(e + i * width + k * BLOCK, v[i * blocks + k]);
}

/* The tile under way, and the sums of the one before, while another leaves, `streamed` where it goes on
 * past the caches, and `labelled` where one column of each row has a value of its own. `parted`: one column
 * of each row is not in its sum. Returns the maxima of the tile at `next`. */
LANES vf pass_rows_of_tile(row_tiles *r, const storage *next, int64_t classes, int64_t stride,
                           int64_t out_stride, const int leaving, const int labelled, const int parted,
                           int streamed)
{
    const int64_t width = width_of(classes), last = (classes - 1) & -GROUP;
    const int64_t last_blocks = (classes - last + BLOCK - 1) / BLOCK;
    const int64_t n = classes - ((classes - 1) & -BLOCK); /* of the last block */
    const int64_t ahead = next == r->last ? 0 : BLOCK * stride;
    const int near = r->near;
    const row_tile *const leaves = r->leaves;
    row_tile *const now = r->now, *const before = r->before;
    row_pairs p = {next, now->x, now->e, before->e, leaving ? leaves->x : now->x, leaves->out};
    line_stream lines = {.n = 0};
    _Alignas(LINE) float maximum[BLOCK * BLOCK];
    if (streamed) {
        lines = open_stream(leaves->out, BLOCK * out_stride, leaves->past, &r->line);
        prefetch_pages(leaves->past, 2 * BLOCK * out_stride, BLOCK * out_stride);
    }
    for (int64_t j = 0; j < BLOCK; j += 2) {
        vf max[2] = {vset1(-LANE_INFINITY), vset1(-LANE_INFINITY)};
        vd total[2] = {vd_zero(), vd_zero()};
        UNROLL for (int i = 0; parted && i < 2; i++)
            part_row(j == 0 ? before : now, (j + i - 2) & (BLOCK - 1), width);
        for (int64_t at = 0; at < last; at += GROUP) {
            pass_blocks(leaves, now, j, p, width, stride, out_stride, ahead, near, GROUP_BLOCKS, 0, BLOCK,
                        leaving, max, total);
            p = moved(p, GROUP, GROUP, GROUP);
        }
#define LAST(blocks)                                                                              \
    case blocks:                                                                                  \
        pass_blocks(leaves, now, j, p, width, stride, out_stride, ahead, near, blocks, 1, n,      \
                    leaving, max, total);                                                         \
        break;
        switch (last_blocks) {
            LAST(1) LAST(2) LAST(3) LAST(4)
        }
#undef LAST
        UNROLL for (int i = 0; i < 2; i++)
        {
            vstore_f32(maximum + (j + i) * BLOCK, max[i]);
            vd_store_folded(before->folded + (j + i) * BLOCK / 2, total[i]);
            if (leaving && labelled)
                leave_label_of_row(leaves, j + i, out_stride);
        }
        if (streamed) /* two rows later: their stores are done by then */
            stream_to(&lines, j * out_stride);
        p = moved(p, 2 * stride - last, 2 * width - last, 2 * out_stride - last);
    }
    if (streamed)
        finish_stream(&lines);
    return vadd(vmax_across_rows(maximum), vset1(0.0f));
}

LANES vf pass_row_tile(row_tiles *r, const storage *next, int64_t classes, int64_t stride,
                       int64_t out_stride, const int leaving, const int labelled, const int parted)
{
    if (!r->leaves->out)
        return pass_rows_of_tile(r, next, classes, stride, out_stride, NOTHING_LEAVES, 0, parted, 0);
    return pass_rows_of_tile(r, next, classes, stride, out_stride, leaving, labelled, parted,
                             r->leaves->past != NULL);
}

/* When no tile begins, the last one is added beside nothing. */
LANES void add_last_row_tile(row_tiles *r, int64_t classes, const int parted)
{
    const int64_t width = width_of(classes);
    for (int64_t j = BLOCK - 2; parted && j < BLOCK; j++)
        part_row(r->before, j, width);
    for (int64_t j = 0; j < BLOCK; j++)
        add_row(r->before, j, width);
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
