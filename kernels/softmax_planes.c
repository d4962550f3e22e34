/* SPDX-License-Identifier: MIT */
/* Packs: from planes to the scratch, their sums, and back. */
#include "softmax_planes.h"

static __attribute__((noinline)) void widen_pack(input_planes p, int64_t from, int64_t n,
                     float *tile)
{
    const int tiles = tiles_of_pack(p.rows);
    float wide[PACK_ROWS] = {0.0f};
    for (int64_t c = 0; c < n; c++) {
        p.format->widen(input_address(p.format, p.x, (from + c) * p.stride), p.rows, wide);
        for (int t = 0; t < tiles; t++)
            vstore_f32(tile + (t * n + c) * BLOCK, vload_f32(wide + t * BLOCK));
    }
}

/* The inverse, of n classes in the scratch, where tiles are `apart` blocks. */
void narrow_pack(const float *tile, int64_t apart, output_planes p, int64_t from, int64_t n)
{
    const int tiles = tiles_of_pack(p.rows);
    float wide[PACK_ROWS];
    for (int64_t c = 0; c < n; c++) {
        for (int t = 0; t < tiles; t++)
            vstore_f32(wide + t * BLOCK, vload_f32(tile + (t * apart + c) * BLOCK));
        p.format->narrow(wide, p.rows, output_address(p.format, p.x, (from + c) * p.stride));
    }
}

/* Copies classes [from, from + n) of a pack to the scratch, tile by tile of n blocks. */
void read_pack(input_planes p, int64_t from, int64_t n,
                     float *tile)
{
    if (p.format) {
        widen_pack(p, from, n, tile);
        return;
    }
    if (p.rows == PACK_ROWS) {
        for (int64_t c = 0; c < n; c++) { /* the next pack is its neighbour */
            const storage *x = (const storage *)p.x + (from + c) * p.stride;
            FOR_BLOCKS(t, PACK_TILES) fetch_block(x, PACK_TILES + t, p.near);
            FOR_BLOCKS(t, PACK_TILES) vstore_f32(tile + (t * n + c) * BLOCK, vload(x + t * BLOCK));
        }
        return;
    }
    for (int t = 0; t < tiles_of_pack(p.rows); t++)
        for (int64_t c = 0; c < n; c++)
            vstore_f32(tile + (t * n + c) * BLOCK, load_class(input_tile(p, t), from + c));
}

/* chunk_factor(), lane by lane. */
static __attribute__((noinline)) void factors_of_tile(const tile_reference *part,
                     const tile_reference *row, double *factor)
{
    for (int j = 0; j < BLOCK; j++)
        factor[j] = chunk_factor(reference_at(part, j), reference_at(row, j));
}

/* x may be e. Without a shift in any lane, x is what is reduced. Returns what exp_tile_but_one() does, if a column
 * is given. */
LANES vf exponentials_of_tile(const float *x, float *e, int64_t n, const tile_reference *ref, const vf *column)
{
    if (__builtin_expect(vany(vlt(vset1(0.0f), vabs(ref->shift))), 0)) {
        for (int64_t c = 0; c < n; c++)
            vstore_f32(e + c * BLOCK, vsub(vload_f32(x + c * BLOCK), ref->shift));
        x = e;
    }
    if (column)
        return exp_tile_but_one(x, e, n, ref->n, x, 0, NULL, *column);
    exp_tile(x, e, n, ref->n, x, 0, NULL, NULL);
    return vset1(0.0f);
}

/* ---- sums ------------------------------------------------------------------------------------- */

/* What sum_exponentials() says of a row that holds a NaN. */
static __attribute__((noinline)) void set_nan(double *sum)
{
    for (int j = 0; j < BLOCK; j++)
        sum[j] = sum[j] < 0x1p128 ? sum[j] : (double)LANE_NAN;
}

/* The class of each row of tile t that is left out of its sum, as an integer. */
LANES vf class_left_out(const pack *p, int t, const float *x)
{
    if (p->leave == LEAVE_COLUMN)
        return vload_i64(p->column + t * BLOCK);
    return p->leave == LEAVE_MAXIMUM ? first_maxima(x, p->classes, p->sum[t].ref.max) : vset1(0.0f);
}

/* The sum of tile t, whose exponentials are in the scratch. */
LANES void sum_kept_tile(pack *p, int t, const float *left_out)
{
    tile_sum *s = &p->sum[t];
    sum_exponentials(kept_exponentials(p, t), p->classes, s->others);
    vd_store(s->left_out, vd_load_f32(left_out));
    const vf others = vd_narrow(others_of(s));
    if (__builtin_expect(vany(vnan(vsub(others, others))), 0))
        set_nan(s->others);
}

/* Rows that fit: one chunk, one window. What is left out, if it is not told by comparison, is moved a tile behind, and
 * sums are two behind, so that no store is waited for. */
void sum_kept_pack(pack *p)
{
    const int64_t n = p->classes;
    const int compared = p->leave != LEAVE_NOTHING && are_compared(n);
    const int moved = p->leave != LEAVE_NOTHING && !compared;
    int32_t column[PACK_TILES][BLOCK];
    float left_out[PACK_TILES][BLOCK];
    read_pack(p->in, 0, n, p->scratch);
    for (int t = 0; t < p->tiles + 2; t++) {
        if (t < p->tiles) {
            const float *x = p->scratch + t * n * BLOCK;
            tile_reference *ref = &p->sum[t].ref;
            *ref = tile_reference_of(max_of_tile(x, n));
            const vf number = class_left_out(p, t, x), apart = vfloat_of_bits(number);
            store_numbers(column[t], number);
            vstore_f32(left_out[t], exponentials_of_tile(x, kept_exponentials(p, t), n, ref,
                                                         compared ? &apart : NULL));
        }
        if (moved && t > 0 && t <= p->tiles)
            leave_out(kept_exponentials(p, t - 1), column[t - 1], left_out[t - 1]);
        if (t > 1)
            sum_kept_tile(p, t - 2, left_out[t - 2]);
    }
}

/* The largest logit of each row, and the first class that has it; -1 for none. */
typedef struct tile_maximum {
    vf max, at;
} tile_maximum;

LANES void update_maximum(tile_maximum *m, vf x, vf c)
{
    m->at = vselect(vlt(m->max, x), c, m->at);
    m->max = vmax(x, m->max);
}

static __attribute__((noinline)) void maxima_of_pack(pack *p, int64_t from, int64_t n,
                     tile_maximum *m)
{
    const vf one = vset1(1.0f);
    vf c = vset1(0.0f);
    for (int t = 0; t < p->tiles; t++)
        m[t] = (tile_maximum){vset1(-LANE_INFINITY), vset1(-1.0f)};
    for (int64_t i = 0; !p->in.format && i < n; i++, c = vadd(c, one))
        for (int t = 0; t < p->tiles; t++)
            update_maximum(&m[t], load_class(input_tile(p->in, t), from + i), c);
    for (int64_t w = 0; p->in.format && w < n; w += GROUP) {
        const int64_t some = smaller(n - w, GROUP);
        read_pack(p->in, from + w, some, p->window);
        for (int64_t i = 0; i < some; i++, c = vadd(c, one))
            for (int t = 0; t < p->tiles; t++)
                update_maximum(&m[t], vload_f32(p->window + (t * some + i) * BLOCK), c);
    }
    for (int t = 0; t < p->tiles; t++)
        m[t].max = vadd(m[t].max, vset1(0.0f)); /* no -0 */
}

/* The exponentials of classes [from, from + n) of a pack that does not fit. */
LANES void window_of_pack(pack *p, int64_t from, int64_t n, const tile_reference *ref)
{
    read_pack(p->in, from, n, p->window);
    for (int t = 0; t < p->tiles; t++) {
        float *e = p->window + t * n * BLOCK;
        exponentials_of_tile(e, e, n, &ref[t], NULL);
    }
}

/* As leave_out(), for columns that may be outside of the window: then nothing is, and what was found in
 * an earlier window stays. */
LANES void leave_out_of_window(float *e, int64_t n, const int64_t *column, double *left_out)
{
    for (int j = 0; j < BLOCK; j++)
        if (column[j] >= 0 && column[j] < n) {
            float *at = e + column[j] * BLOCK + j;
            left_out[j] = (double)*at;
            *at = 0.0f;
        }
}

/* A group of up to 64 classes into the double lanes of each row. */
LANES void add_group(vd *lane, const float *e, int64_t n)
{
    for (int64_t l = 0; l < BLOCK && l < n; l++) {
        lane[l] = vd_plus(lane[l], pair_of_vd(e, n, l));
        if (l + BLOCK < n)
            lane[l] = vd_plus(lane[l], pair_of_vd(e, n, l + BLOCK));
    }
}

/* One chunk of a pack that does not fit, relative to references of its own. column: in the chunk. */
static __attribute__((noinline)) void sum_chunk_of_pack(pack *p, int64_t from, int64_t n,
                     tile_sum *sum)
{
    tile_maximum m[PACK_TILES];
    tile_reference ref[PACK_TILES];
    int64_t column[PACK_TILES][BLOCK];
    maxima_of_pack(p, from, n, m);
    for (int t = 0; t < p->tiles; t++) {
        float at[BLOCK];
        vstore_f32(at, m[t].at);
        ref[t] = sum[t].ref = tile_reference_of(m[t].max);
        for (int j = 0; j < BLOCK; j++) {
            column[t][j] = p->leave == LEAVE_MAXIMUM ? (int64_t)at[j] : LEAVE_NOTHING;
            if (p->leave == LEAVE_COLUMN)
                column[t][j] = p->column[t * BLOCK + j] - from;
            sum[t].left_out[j] = 0.0;
            p->lane[t][j] = vd_zero();
        }
    }
    for (int64_t w = 0; w < n; w += GROUP) {
        const int64_t some = n - w < GROUP ? n - w : GROUP;
        window_of_pack(p, from + w, some, ref);
        for (int t = 0; t < p->tiles; t++) {
            float *e = p->window + t * some * BLOCK;
            leave_out_of_window(e, some, column[t], sum[t].left_out);
            add_group(p->lane[t], e, some);
            for (int j = 0; j < BLOCK; j++)
                column[t][j] -= some;
        }
    }
    for (int t = 0; t < p->tiles; t++)
        fold_lanes(p->lane[t], sum[t].others);
}

/* A chunk into its rows, as sum_chunks() does. The maximum that is left out of a row is the first
 * chunk's that has it. */
LANES void add_chunk_of_tile(tile_sum *row, const tile_sum *part, int leave, int *has_maximum)
{
    double factor[BLOCK];
    factors_of_tile(&part->ref, &row->ref, factor);
    for (int j = 0; j < BLOCK; j++) {
        const double others = part->others[j], f = others != others ? 1.0 : factor[j];
        const int is_row_s = reference_at(&part->ref, j).max == reference_at(&row->ref, j).max;
        row->others[j] += others * f;
        if (leave == LEAVE_MAXIMUM && (!is_row_s || has_maximum[j]))
            row->others[j] += part->left_out[j] * f;
        else
            row->left_out[j] += part->left_out[j] * f;
        has_maximum[j] |= is_row_s;
    }
}

void sum_long_pack(pack *p)
{
    tile_maximum m[PACK_TILES];
    tile_sum part[PACK_TILES];
    int has_maximum[PACK_TILES][BLOCK] = {{0}};
    if (p->classes <= CHUNK) {
        sum_chunk_of_pack(p, 0, p->classes, p->sum);
        return;
    }
    maxima_of_pack(p, 0, p->classes, m);
    for (int t = 0; t < p->tiles; t++) {
        p->sum[t].ref = tile_reference_of(m[t].max);
        for (int j = 0; j < BLOCK; j++)
            p->sum[t].others[j] = p->sum[t].left_out[j] = 0.0;
    }
    for (int64_t at = 0; at < p->classes; at += CHUNK) {
        sum_chunk_of_pack(p, at, chunk_length(p->classes, at), part);
        for (int t = 0; t < p->tiles; t++)
            add_chunk_of_tile(&p->sum[t], &part[t], p->leave, has_maximum[t]);
    }
}

/* ---- results ---------------------------------------------------------------------------------- */

void write_window(const pack *p, float *e, int64_t from, int64_t n, const pack_factors *f,
                  const double (*worth)[BLOCK], int has_values, const output_planes *out)
{
    const int in_place = out->format != NULL, streamed = out->streamed;
    const int64_t stride = in_place ? BLOCK : out->stride;
    for (int t = 0; t < p->tiles; t++, e += n * BLOCK) {
        const int64_t rows = in_place ? BLOCK : out->rows - t * BLOCK;
        storage *x = in_place ? e : (storage *)out->x + from * stride + t * BLOCK;
        vd h = vd_load(f->factor[t]);
        if (worth)
            h = vd_times(h, vd_load(worth[t]));
        const vf factor = vd_narrow(vd_normal(h));
        if (has_values) {
            float column[BLOCK];
            for (int j = 0; j < BLOCK; j++)
                column[j] = (float)(p->column[t * BLOCK + j] - from);
            write_planes(e, n, product_but_one(factor, vload_f32(column), vload_f32(f->value[t])), x, stride,
                         rows, streamed);
        } else {
            write_planes(e, n, product_with(factor), x, stride, rows, streamed);
        }
    }
}

/* The exponentials once more: the chunk's references, and window by window. */
void write_chunk(pack *p, int64_t from, int64_t n, const pack_factors *f, int has_values,
                 output_planes out)
{
    double worth[PACK_TILES][BLOCK];
    tile_reference ref[PACK_TILES];
    tile_maximum m[PACK_TILES];
    maxima_of_pack(p, from, n, m);
    for (int t = 0; t < p->tiles; t++) {
        ref[t] = tile_reference_of(m[t].max);
        factors_of_tile(&ref[t], &p->sum[t].ref, worth[t]);
    }
    for (int64_t w = 0; w < n; w += GROUP) {
        const int64_t some = n - w < GROUP ? n - w : GROUP;
        window_of_pack(p, from + w, some, ref);
        write_window(p, p->window, from + w, some, f, (const double(*)[BLOCK])worth, has_values, &out);
        if (out.format)
            narrow_pack(p->window, some, out, from + w, some);
    }
}
