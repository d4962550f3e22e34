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
        for (int64_t c = 0; c < n; c++)
            FOR_BLOCKS(t, PACK_TILES)
            vstore_f32(tile + (t * n + c) * BLOCK,
                       vload((const storage *)p.x + (from + c) * p.stride + t * BLOCK));
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

/* x may be e. Without a shift in any lane, x is what is reduced. */
LANES void exponentials_of_tile(const float *x, float *e, int64_t n, const tile_reference *ref)
{
    if (__builtin_expect(vany(vlt(vset1(0.0f), vabs(ref->shift))), 0)) {
        for (int64_t c = 0; c < n; c++)
            vstore_f32(e + c * BLOCK, vsub(vload_f32(x + c * BLOCK), ref->shift));
        x = e;
    }
    exp_tile(x, e, n, ref->n, x, 0, NULL, NULL);
}

/* ---- sums ------------------------------------------------------------------------------------- */

/* Rows that fit: one chunk, one window. */
void sum_kept_pack(pack *p)
{
    const int64_t n = p->classes;
    read_pack(p->in, 0, n, p->scratch);
    for (int t = 0; t < p->tiles; t++) {
        const float *x = p->scratch + t * n * BLOCK;
        float *e = p->exponentials + t * n * BLOCK, left_out[BLOCK];
        int32_t column[BLOCK];
        tile_sum *s = &p->sum[t];
        s->ref = tile_reference_of(max_of_tile(x, n));
        if (p->leave == LEAVE_MAXIMUM)
            store_numbers(column, first_maxima(x, n, s->ref.max));
        else if (p->leave == LEAVE_COLUMN)
            for (int j = 0; j < BLOCK; j++)
                column[j] = (int32_t)p->column[t * BLOCK + j];
        exponentials_of_tile(x, e, n, &s->ref);
        vstore_f32(left_out, vset1(0.0f));
        if (p->leave != LEAVE_NOTHING)
            leave_out(e, column, left_out);
        sum_tile(e, n, s->others);
        for (int j = 0; j < BLOCK; j++)
            s->left_out[j] = (double)left_out[j];
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
        exponentials_of_tile(e, e, n, &ref[t]);
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
        for (int t = 0; t < p->tiles; t++)
            write_window(p, t, p->window + t * some * BLOCK, from + w, some, f, worth[t],
                         has_values, out);
        if (out.format)
            narrow_pack(p->window, some, out, from + w, some);
    }
}
