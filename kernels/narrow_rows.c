/* SPDX-License-Identifier: MIT */
/* Rows of 16 bits in the passes of softmax_row.h and one_chunk_rows.h. */
#include "narrow_rows.h"

/* ---- what leaves -------------------------------------------------------------------------------- */

LANES const uint16_t *narrow_source(const departure *d) { return (const uint16_t *)(const void *)d->x; }
LANES uint16_t *narrow_place(const departure *d) { return (uint16_t *)(void *)d->out; }

/* `blocks` blocks of e, or of x, become what leaves. */
LANES_LARGE void depart(vf *v, const departure *d, const int blocks, const int leaving)
{
    if (leaving == SUBTRACTED) {
        const vf max = vset1(d->max), rest = vset1(d->rest);
        FOR_BLOCKS(k, blocks) v[k] = vsub(vsub(v[k], max), rest);
    } else {
        const vf scale = vset1(d->h), least = vset1(d->least);
        FOR_BLOCKS(k, blocks) v[k] = vkeep(vle(least, v[k]), vmul(v[k], scale));
    }
}

/* A group on its way out, of which `left` elements are there. */
LANES_LARGE void departing_group(vf *v, const departure *d, int64_t at, int64_t left, const int leaving,
                           const int is_f16)
{
    if (leaving != SCALED)
        load_narrow_some(v, narrow_source(d) + at, left, leaving == COMPUTED ? -LANE_INFINITY : 0.0f, is_f16);
    else
        FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vload_f32(d->e + at + BLOCK * k);
    if (leaving == COMPUTED)
        vexp_scaled(v, v, GROUP_BLOCKS, exp_scale_of(d->exponent));
    depart(v, d, GROUP_BLOCKS, leaving);
}

LANES void departing_pair(vf *v, const departure *d, int64_t at, const int leaving, const int is_f16)
{
    if (leaving == SUBTRACTED)
        load_narrow_pair(v, narrow_source(d) + at, is_f16);
    else
        FOR_BLOCKS(k, 2) v[k] = vheld(vload_f32(d->e + at + BLOCK * k));
    depart(v, d, 2, leaving);
}

/* A whole group, without a NaN. Where a pair is more than two blocks, it leaves before the next one is loaded, for
 * registers are full beside what begin_narrow_exponentials() leaves there. */
LANES void leave_narrow_group(const departure *d, int64_t at, const int leaving, const int is_f16, int cpu_rounds)
{
    const int together = !NARROW_PAIRS || leaving == COMPUTED;
    vf v[GROUP_BLOCKS];
    if (together)
        departing_group(v, d, at, GROUP, leaving, is_f16);
    UNROLL for (int k = 0; k < GROUP_BLOCKS; k += 2)
    {
        if (!together)
            departing_pair(v + k, d, at + BLOCK * k, leaving, is_f16);
        store_narrow_pair(narrow_place(d) + at + BLOCK * k, v + k, is_f16, leaving != SUBTRACTED && cpu_rounds);
    }
}

/* Elements [at, end), block by block, with NaN if there is one. One for each way of leaving and each type would be
 * 10 KB. */
LANES_ONE_COPY LANES_SELDOM void leave_narrow_some(const departure *d, int64_t at, int64_t end, int leaving, int is_f16)
{
    for (; at < end; at += GROUP) {
        vf v[GROUP_BLOCKS];
        departing_group(v, d, at, end - at, leaving, is_f16);
        FOR_BLOCKS(k, GROUP_BLOCKS)
        store_narrow_tail(narrow_place(d) + at + BLOCK * k, end - at - BLOCK * k, v[k], is_f16);
    }
}

/* The label's, after all others. */
LANES void leave_narrow_label(const departure *d, const int leaving, const int is_f16)
{
    uint16_t value[BLOCK]; /* stores by a mask take long on some CPUs */
    if (leaving != SUBTRACTED && (uint64_t)d->label < (uint64_t)d->n) {
        store_narrow_tail(value, BLOCK, vset1(d->label_value), is_f16);
        narrow_place(d)[d->label] = value[0];
    }
}

LANES void leave_narrow(const departure *d, const int leaving, const int is_f16)
{
    leave_narrow_some(d, 0, d->n, leaving, is_f16);
    leave_narrow_label(d, leaving, is_f16);
}

void leave_narrow_now(const storage_format *format, const departure *d, int leaving)
{
    const int what = leaving == SCALED && !d->e ? COMPUTED : leaving;
    if (what == SCALED)
        format->is_f16 ? leave_narrow(d, SCALED, 1) : leave_narrow(d, SCALED, 0);
    else if (what == COMPUTED)
        format->is_f16 ? leave_narrow(d, COMPUTED, 1) : leave_narrow(d, COMPUTED, 0);
    else
        format->is_f16 ? leave_narrow(d, SUBTRACTED, 1) : leave_narrow(d, SUBTRACTED, 0);
}

/* What will be read f.ahead after x, and, if something leaves, written at `place`: it is not streamed,
 * so that its lines would be waited for. Past the caches, rows of 1000 took 1.1 times as long on Zen 5. */
LANES void prefetch_narrow_group(const uint16_t *x, fetching f, uint16_t *place, const int leaving)
{
    UNROLL for (int i = 0; i < GROUP; i += LINE / (int)sizeof *x)
    {
        if (LOADS_LINES && f.near)
            vprefetch_near(x + f.ahead + i);
        else
            vprefetch(x + f.ahead + i);
        if (leaving)
            vprefetch_write(place + i);
    }
}

float max_of_narrow(const storage_format *format, const void *elements, int64_t n)
{
    const uint16_t *const x = elements;
    vn max = max_of_end_groups(x, n);
    for (int64_t i = 0; i + GROUP < n; i += GROUP)
        max = max_of_narrow_group(x, i, n, max);
    return format->is_f16 ? max_of_lanes(max, x, n, 1) : max_of_lanes(max, x, n, 0);
}

LANES int64_t index_of_narrow(const uint16_t *x, int64_t n, float value, const int is_f16)
{
    for (int64_t i = 0; i < n; i += GROUP) {
        vf t[GROUP_BLOCKS];
        load_narrow_some(t, x + i, n - i, LANE_NAN, is_f16);
        const int at = first_in_group(t, value);
        if (at < GROUP)
            return i + at;
    }
    return LEAVE_NOTHING;
}

/* The first column of the maximum; LEAVE_NOTHING where all are -inf. */
static int64_t first_maximum(const storage_format *format, const void *x, int64_t n, float max)
{
    if (max == -LANE_INFINITY)
        return LEAVE_NOTHING;
    return format->is_f16 ? index_of_narrow(x, n, max, 1) : index_of_narrow(x, n, max, 0);
}

/* ---- a chunk in each pass ------------------------------------------------------------------------ */

LANES_SELDOM float narrow_exponentials_from(int64_t from, const chunk *c, exp_scale scale, const int shifted,
                                            const int is_f16)
{
    const uint16_t *const x = (const uint16_t *)(const void *)c->x;
    for (int64_t i = from; i < c->n; i += GROUP)
        narrow_exponentials(x + i, c->n - i, scale, vset1(c->ref.shift), shifted, is_f16, c->kept + i);
    if (c->left_out >= from && c->left_out >= 0 && c->left_out < c->n)
        return take_out(c->kept, c->left_out);
    return 0.0f;
}

/* As pass_chunk(); but what is COMPUTED leaves beside the search alone: there are not registers enough for the
 * constants and the blocks of two exponentials. */
LANES_LARGE chunk_sum pass_narrow_chunk(const chunk c, search *next, const departure d, const int leaving,
                                        const int is_f16, const int shifted, int cpu_rounds)
{
    static const float nothing[GROUP] = {0.0f};
    const uint16_t *const x = (const uint16_t *)(const void *)c.x;
    const uint16_t *const ahead = (const uint16_t *)(const void *)next->x;
    const exp_scale scale = exp_scale_of(c.ref.n);
    const int64_t group_of_left_out = c.left_out & -GROUP, n = next->n;
    const fetching fetch = next->fetch;
    int64_t together = shifted || n <= GROUP ? 0 : smaller(c.n & -GROUP, n & -GROUP);
    if (leaving)
        together = smaller(together, d.n & -GROUP);
    const int64_t line = before_narrow_line(ahead);
    vn max = max_of_end_groups(ahead, n);
    vs total = vs_zero();

    if (leaving && together < d.n) {
        const departure ends = d; /* d itself stays in registers */
        leave_narrow_some(&ends, together, d.n, leaving, is_f16);
    }
    if (leaving == COMPUTED)
        for (int64_t i = 0; i < together; i += GROUP) {
            leave_narrow_group(&d, i, COMPUTED, is_f16, cpu_rounds);
            prefetch_narrow_group(ahead + i, fetch, narrow_place(&d) + i + fetch.ahead, COMPUTED);
            max = max_of_narrow_group(ahead, i + line, n, max);
        }
    for (int64_t i = together; i + GROUP < n; i += GROUP)
        max = max_of_narrow_group(ahead, i + line, n, max);
    float left_out = 0.0f;
    if (together < c.n) {
        const chunk ends = c;
        left_out = narrow_exponentials_from(together, &ends, scale, shifted, is_f16);
    }
    for (int64_t i = 0; i < together; i += GROUP) {
        const narrow_group group = begin_narrow_exponentials(x + i, scale, vset1(0.0f), 0, is_f16);
        total = add_exponentials(total, i >= SUM_LAG ? c.kept + i - SUM_LAG : nothing);
        if (leaving != COMPUTED) {
            if (leaving)
                leave_narrow_group(&d, i, leaving, is_f16, cpu_rounds);
            prefetch_narrow_group(ahead + i, fetch,
                                  leaving ? narrow_place(&d) + i + fetch.ahead : NULL, leaving);
            max = max_of_narrow_group(ahead, i + line, n, max);
        }
        end_narrow_exponentials(&group, scale, vset1(0.0f), 0, is_f16, c.kept + i);
        if (__builtin_expect(i == group_of_left_out, 0))
            left_out = take_out(c.kept, c.left_out);
    }
    if (leaving)
        leave_narrow_label(&d, leaving, is_f16);
    next->max = max_of_lanes(max, ahead, n, is_f16);
    for (int64_t i = together > SUM_LAG ? together - SUM_LAG : 0; i < c.n; i += GROUP)
        total = add_exponentials(total, c.kept + i);
    return (chunk_sum){vs_across(total), left_out};
}

#define DEFINE_CHUNK_PASS(name, leaving, is_f16)                                                  \
    static __attribute__((noinline)) chunk_sum name(const chunk *c, search *next,                 \
                                                    const departure *d, int cpu_rounds)           \
    {                                                                                             \
        return pass_narrow_chunk(*c, next, *d, leaving, is_f16, 0, cpu_rounds);                   \
    }
#define DEFINE_CHUNK_PASSES(type, is_f16)                                                         \
    DEFINE_CHUNK_PASS(chunk_alone_##type, NOTHING_LEAVES, is_f16)                                 \
    DEFINE_CHUNK_PASS(chunk_scaled_##type, SCALED, is_f16)                                        \
    DEFINE_CHUNK_PASS(chunk_subtracted_##type, SUBTRACTED, is_f16)                                \
    DEFINE_CHUNK_PASS(chunk_computed_##type, COMPUTED, is_f16)                                    \
    static chunk_pass *const chunk_pass_of_##type[] = {chunk_alone_##type, chunk_scaled_##type,   \
                                                       chunk_subtracted_##type,                   \
                                                       chunk_computed_##type};
typedef chunk_sum chunk_pass(const chunk *, search *, const departure *, int cpu_rounds);
DEFINE_CHUNK_PASSES(bf16, 0)
DEFINE_CHUNK_PASSES(f16, 1)

/* Seldom: one for both types. */
static __attribute__((noinline)) chunk_sum shifted_chunk(const chunk *c, search *next, const departure *d,
                                                         int is_f16)
{
    return pass_narrow_chunk(*c, next, *d, NOTHING_LEAVES, is_f16, 1, 0);
}

/* What leaves, leaves first where the logits are shifted, or where NaN leaves. */
chunk_sum sum_narrow_chunk(const storage_format *format, const chunk *c, int64_t left_out, search *next,
                           const departure *d, int leaving)
{
    chunk own = *c;
    int what = !leaving || d->n == 0 ? NOTHING_LEAVES : leaving == SCALED && !d->e ? COMPUTED : leaving;
    if (left_out == LEAVE_MAXIMUM)
        own.left_out = first_maximum(format, c->x, c->n, c->ref.max);
    if (what && (c->ref.shift != 0.0f || !leaves_numbers(d, leaving))) {
        leave_narrow_now(format, d, leaving);
        what = NOTHING_LEAVES;
    }
    if (c->ref.shift != 0.0f)
        return shifted_chunk(&own, next, d, format->is_f16);
    return (format->is_f16 ? chunk_pass_of_f16 : chunk_pass_of_bf16)[what](&own, next, d, format->cpu_rounds);
}

/* ---- four rows, a group of each in turn ---------------------------------------------------------- */

/* `shifted`: x - shift is what e is computed from; `out`: where the row at x will leave to. */
LANES_LARGE double pass_narrow_rows(one_chunk_rows *r, const uint16_t *x, reference ref, void *out,
                                    const int leaving, const int is_f16, const int shifted)
{
    const departure d = r->leaves;
    uint16_t *const place = out;
    const uint16_t *const ahead = (const uint16_t *)(const void *)r->ahead.x;
    const exp_scale scale = exp_scale_of(ref.n);
    const int64_t n = r->classes, last = n - GROUP, whole = n & -GROUP;
    const fetching fetch = r->ahead.fetch;
    const int cpu_rounds = r->format->cpu_rounds;
    const float *const added = r->kept.slot;
    float *const kept = r->free_slot;
    const vf shift = vset1(ref.shift);
    const int64_t line = before_narrow_line(ahead);
    vn max = max_of_end_groups(ahead, n);
    vs total = vs_zero();

    /* The row that leaves is in the slot that is written: it is read first. */
    if (leaving == SCALED && whole < n)
        leave_narrow_group(&d, last, SCALED, is_f16, cpu_rounds); /* comes to the same twice */
    else if (leaving)
        leave_narrow_some(&r->leaves, whole, n, leaving, is_f16);
    for (int64_t i = 0; i < whole; i += GROUP) {
        const narrow_group group = begin_narrow_exponentials(x + i, scale, shift, shifted, is_f16);
        total = add_exponentials(total, added + i);
        if (leaving)
            leave_narrow_group(&d, i, leaving, is_f16, cpu_rounds);
        prefetch_narrow_group(ahead + i, fetch, leaving ? place + i : NULL, leaving);
        max = max_of_narrow_group(ahead, i + line, n, max);
        end_narrow_exponentials(&group, scale, shift, shifted, is_f16, kept + i);
    }
    if (whole < n) {
        total = add_exponentials(total, added + whole);
        narrow_exponentials(x + last, GROUP, scale, shift, shifted, is_f16, kept + last);
    }
    if (leaving)
        leave_narrow_label(&d, leaving, is_f16);
    r->ahead.max = max_of_lanes(max, ahead, n, is_f16);
    return vs_across(total);
}

#define DEFINE_PASS(name, leaving, is_f16)                                                        \
    static __attribute__((noinline)) double name(one_chunk_rows *r, const uint16_t *x,            \
                                                 reference ref, void *out)                        \
    {                                                                                             \
        return pass_narrow_rows(r, x, ref, out, leaving, is_f16, 0);                              \
    }
#define DEFINE_PASSES(type, is_f16)                                                               \
    DEFINE_PASS(alone_##type, NOTHING_LEAVES, is_f16)                                             \
    DEFINE_PASS(scaled_##type, SCALED, is_f16)                                                    \
    DEFINE_PASS(subtracted_##type, SUBTRACTED, is_f16)                                            \
    static rows_pass *const pass_of_##type[] = {alone_##type, scaled_##type, subtracted_##type};
typedef double rows_pass(one_chunk_rows *, const uint16_t *, reference, void *);
DEFINE_PASSES(bf16, 0)
DEFINE_PASSES(f16, 1)

static __attribute__((noinline)) double shifted_row(one_chunk_rows *r, const uint16_t *x, reference ref, void *out)
{
    return pass_narrow_rows(r, x, ref, out, NOTHING_LEAVES, r->format->is_f16, 1);
}

/* ---- rows ---------------------------------------------------------------------------------------- */

row_sum take_in_narrow_row(one_chunk_rows *r, const void *x, int64_t left_out, const void *next, void *out,
                           int leaving)
{
    const storage_format *const format = r->format;
    const int is_known = is_found(&r->ahead, x);
    const reference ref = reference_of(is_known ? r->ahead.max : max_of_narrow(format, x, r->classes));
    row_sum before = {r->kept.ref, 0.0, (double)r->kept.left_out};
    int what = r->leaves.n > 0 ? leaving : NOTHING_LEAVES;
    r->ahead = (search){.x = next ? next : x, .n = r->classes, .fetch = r->ahead.fetch};
    if (left_out == LEAVE_MAXIMUM)
        left_out = first_maximum(format, x, r->classes, ref.max);
    if (what && (ref.shift != 0.0f || !leaves_numbers(&r->leaves, leaving))) {
        leave_narrow_now(format, &r->leaves, leaving);
        what = NOTHING_LEAVES;
    }
    if (ref.shift != 0.0f)
        before.others = shifted_row(r, x, ref, out);
    else
        before.others = (format->is_f16 ? pass_of_f16 : pass_of_bf16)[what](r, x, ref, out);
    r->leaves.n = 0;
    float *slot = r->free_slot;
    r->free_slot = r->kept.slot;
    r->kept = (kept_row){slot, ref, left_out < 0 ? 0.0f : take_out(slot, left_out)};
    return before;
}
