/* SPDX-License-Identifier: MIT */
/* The exponential sums of rows whose classes stand a plane apart.
 *
 * In a tensor [outer, classes, inner] neighbouring rows are neighbours in memory: a block of each plane
 * is a tile of softmax_tile.h as it stands, and nothing is transposed. Up to four tiles are a pack, so
 * that a visit to a plane takes whole cache lines.
 *
 * A pack is copied to the scratch, where its exponentials wait until the sums are known: planes may be
 * a power of two apart, and then few of their lines stay in cache together. Packs of more than
 * SCRATCH_CLASSES classes do not fit. They go through the scratch by windows of 64 classes, with the
 * sixteen double lanes of each row in memory, and once more when the results are written.
 *
 * Planes of 16 bits are widened when they are copied. What becomes of them takes the place of the
 * exponentials, and is rounded from there: so a visit takes all of a pack's tiles here, too.
 *
 * The lines of the next pack, its neighbour in each plane, are fetched while a pack is copied: no CPU follows as many
 * planes by itself. Results are streamed where they are whole lines.
 *
 * Every number is that of softmax_row.h, also of rows beyond DIRECT_BOUND or with infinities or NaN:
 * such rows stay in their lanes. */
#ifndef BALLAST_SOFTMAX_PLANES_H
#define BALLAST_SOFTMAX_PLANES_H

#include "neighbours.h"
#include "softmax_tile.h"

enum {
    PACK_TILES = 4,
    PACK_ROWS = PACK_TILES * BLOCK,
    SCRATCH_CLASSES = 1024, /* of all its tiles: 64 KiB, in L2 */
    NEAR_CLASSES = 256      /* 16 KiB, in L1 beside the planes */
};

/* How many rows a pack has, where each class of a tile takes so many blocks of the scratch. Beyond the caches
 * wide visits to planes are worth more than exponentials in L1; elsewhere 250 classes took 1.15 of the time so. */
LANES int64_t rows_of_pack(int64_t classes, int64_t blocks, int beyond_cache)
{
    const int64_t of_tile = blocks * classes;
    if (of_tile <= 0 || of_tile > SCRATCH_CLASSES) /* no row, or windows */
        return PACK_ROWS;
    const int64_t tiles = (beyond_cache ? SCRATCH_CLASSES : NEAR_CLASSES) / of_tile;
    return (tiles < 1 ? 1 : smaller(tiles, PACK_TILES)) * BLOCK;
}

LANES int tiles_of_pack(int64_t rows) { return (int)((rows + BLOCK - 1) / BLOCK); }

/* ---- planes ----------------------------------------------------------------------------------- */

/* Sixteen or fewer neighbouring rows in their planes, or a pack of them. */
typedef struct input_planes {
    const void *x;
    int64_t stride, rows;
    const storage_format *format;
    int near; /* of a fetching */
} input_planes;

typedef struct output_planes {
    void *x;
    int64_t stride, rows;
    const storage_format *format;
    int streamed; /* past the caches: whole lines of each plane */
} output_planes;

LANES input_planes input_at(const storage_format *format, const void *x, int64_t outer_stride,
                            int64_t class_stride, neighbours r, int near)
{
    const void *first = input_address(format, x, r.outer * outer_stride + r.at);
    return (input_planes){first, class_stride, r.count, format, near};
}

/* `streams`: whether what can be streamed shall be. */
LANES output_planes output_at(const storage_format *format, void *x, int64_t outer_stride,
                              int64_t class_stride, neighbours r, int streams)
{
    void *first = output_address(format, x, r.outer * outer_stride + r.at);
    const int are_lines = (uintptr_t)first % LINE == 0 && class_stride % BLOCK == 0 && r.count % BLOCK == 0;
    return (output_planes){first, class_stride, r.count, format, streams && !format && are_lines};
}

/* Tile t of a pack; at most a block of it is there. */
LANES input_planes input_tile(input_planes p, int t)
{
    return (input_planes){input_address(p.format, p.x, t * BLOCK), p.stride, p.rows - t * BLOCK,
                          p.format, p.near};
}

LANES output_planes output_tile(output_planes p, int t)
{
    return (output_planes){output_address(p.format, p.x, t * BLOCK), p.stride, p.rows - t * BLOCK,
                           p.format, p.streamed};
}

/* One class of a tile of f32. Rows that are not there are 0, which is no special value. */
LANES vf load_class(input_planes p, int64_t c)
{
    return vload_tail((const storage *)p.x + c * p.stride, p.rows, 0.0f);
}

LANES void store_class(output_planes p, int64_t c, vf v)
{
    vstore_tail((storage *)p.x + c * p.stride, p.rows, v);
}

/* One row of one class. */
LANES float load_position(input_planes p, int64_t c, int64_t j)
{
    return read_element(p.format, p.x, c * p.stride + j);
}

/* In softmax_planes.c, one copy for the kernels of all files: copies classes [from, from + n) of a pack to
 * the scratch, tile by tile of n blocks; and n classes from there to a pack of 16 bits, where tiles are
 * `apart` blocks. */
#define read_pack KERNEL(read_pack)
void read_pack(input_planes p, int64_t from, int64_t n, float *tile);
#define narrow_pack KERNEL(narrow_pack)
void narrow_pack(const float *tile, int64_t apart, output_planes p, int64_t from, int64_t n);

/* ---- references ------------------------------------------------------------------------------- */

/* reference_of(), lane by lane. */
typedef struct tile_reference {
    vf max, n, shift;
} tile_reference;

LANES tile_reference tile_reference_of(vf max)
{
    const vf zero = vset1(0.0f);
    const vm is_far = vlt(vset1(DIRECT_BOUND), vabs(max));
    const vf shift = vselect(veq(max, vset1(-LANE_INFINITY)), zero, max);
    return (tile_reference){max, vselect(is_far, zero, exponents_of(max)), vkeep(is_far, shift)};
}

LANES reference reference_at(const tile_reference *r, int j)
{
    float max[BLOCK], n[BLOCK], shift[BLOCK];
    vstore_f32(max, r->max);
    vstore_f32(n, r->n);
    vstore_f32(shift, r->shift);
    return (reference){max[j], n[j], shift[j]};
}

/* ---- sums of packs ---------------------------------------------------------------------------- */

enum { LEAVE_COLUMN = 0 };

/* row_sum, lane by lane. */
typedef struct tile_sum {
    tile_reference ref;
    double others[BLOCK], left_out[BLOCK];
} tile_sum;

LANES vd others_of(const tile_sum *s) { return vd_load(s->others); }
LANES vd left_out_of(const tile_sum *s) { return vd_load(s->left_out); }

/* A pack on its way. Once summed, and where it fits, the exponentials are in the scratch: tile by tile,
 * with 0 for the class left out of the sum. */
typedef struct pack {
    input_planes in;
    int64_t classes;
    int tiles;
    int fits;
    int leave; /* out of each row's sum: LEAVE_COLUMN, LEAVE_MAXIMUM (the first) or LEAVE_NOTHING */
    float *exponentials;
    int64_t column[PACK_ROWS]; /* LEAVE_COLUMN: which */
    tile_sum sum[PACK_TILES];
    union {
        float scratch[(SCRATCH_CLASSES + 1) * BLOCK]; /* sum_exponentials() may read behind it */
        struct { /* of a pack that does not fit */
            float window[PACK_TILES * GROUP * BLOCK];
            vd lane[PACK_TILES][BLOCK]; /* the sums of a chunk */
        };
    };
} pack;

/* keep_logits: they shall be in the scratch beside the exponentials. */
LANES void start_pack(pack *p, input_planes in, int64_t classes, int leave, int keep_logits)
{
    const int tiles = tiles_of_pack(in.rows);
    p->in = in;
    p->classes = classes;
    p->tiles = tiles;
    p->leave = leave;
    p->fits = classes <= SCRATCH_CLASSES / ((keep_logits ? 2 : 1) * tiles);
    p->exponentials = p->scratch + (p->fits && keep_logits ? tiles * classes * BLOCK : 0);
}

LANES float *kept_exponentials(const pack *p, int t)
{
    return p->exponentials + t * p->classes * BLOCK;
}

/* vd_across() for each row. */
LANES void fold_lanes(vd *lane, double *sum)
{
    for (int half = BLOCK / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] = vd_plus(lane[l], lane[l + half]);
    vd_store(sum, lane[0]);
}

/* Rows that fit: one chunk, one window. Others: chunk by chunk. */
#define sum_kept_pack KERNEL(sum_kept_pack)
void sum_kept_pack(pack *p);

#define sum_long_pack KERNEL(sum_long_pack)
void sum_long_pack(pack *p);

LANES void sum_pack(pack *p)
{
    if (p->fits)
        sum_kept_pack(p);
    else
        sum_long_pack(p);
}

/* row_is_special() of any row. A sum that is above 0 is so in f32, too. */
LANES int has_special_rows(const tile_sum *s)
{
    const vf sum = vd_narrow(vd_plus(others_of(s), left_out_of(s)));
    return vany(vmask_or(vle(sum, vset1(0.0f)), vnan(sum)));
}

/* 1 for each row that is special. */
LANES void special_rows(const tile_sum *s, int *special)
{
    for (int j = 0; j < BLOCK; j++)
        special[j] = !(s->others[j] + s->left_out[j] > 0.0);
}

/* ---- results ---------------------------------------------------------------------------------- */

/* n classes of a tile, from the scratch, to so many rows of planes; or in their place. */
LANES void write_planes(const float *tile, int64_t n, tile_output o, storage *x, int64_t stride, int64_t rows,
                        int streamed)
{
    const vf one = vset1(1.0f);
    for (int64_t c = 0; c < n; c++, x += stride, o.column = vsub(o.column, one)) {
        const vf v = output_of_class(0, tile + c * BLOCK, o); /* the column counts from c on */
        if (streamed)
            vstore_stream_f32(x, v);
        else
            vstore_tail(x, rows, v);
    }
}

/* What the rows of a pack are written with: factors relative to the rows' references, and the value of
 * each row's p->column, if `has_values`. */
typedef struct pack_factors {
    double factor[PACK_TILES][BLOCK];
    float value[PACK_TILES][BLOCK];
} pack_factors;

/* Classes [from, from + n) of a pack, whose exponentials are at `e`, to `out` or, of 16 bits, in their place; `worth`
 * is what those of a chunk are worth in their rows, NULL: 1. */
#define write_window KERNEL(write_window)
void write_window(const pack *p, float *e, int64_t from, int64_t n, const pack_factors *f,
                  const double (*worth)[BLOCK], int has_values, const output_planes *out);

/* A chunk of a pack that does not fit: its exponentials once more, window by window. */
#define write_chunk KERNEL(write_chunk)
void write_chunk(pack *p, int64_t from, int64_t n, const pack_factors *f, int has_values,
                 output_planes out);

/* Every class of a pack that is summed: exponential times factor. out may be what was read. */
LANES void write_pack(pack *p, const pack_factors *f, const int has_values, output_planes out)
{
    if (!p->fits)
        for (int64_t at = 0; at < p->classes; at += CHUNK)
            write_chunk(p, at, chunk_length(p->classes, at), f, has_values, out);
    else
        write_window(p, p->exponentials, 0, p->classes, f, NULL, has_values, &out);
    if (p->fits && out.format)
        narrow_pack(p->exponentials, p->classes, out, 0, p->classes);
}

/* All classes of those rows of a tile that `which` is not 0 for. */
LANES void fill_rows(output_planes out, const int *which, int64_t classes, float x)
{
    for (int j = 0; j < BLOCK && j < out.rows; j++)
        for (int64_t c = 0; which[j] && c < classes; c++)
            write_element(out.format, out.x, c * out.stride + j, x);
}

#endif
