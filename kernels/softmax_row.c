/* SPDX-License-Identifier: MIT */
/* What softmax_row.h and one_chunk_rows.h do seldom: at the ends of calls, of long rows, of rows far from 0.
 * Apart, for it is long, and one copy does for the kernels of all files. */
#include "one_chunk_rows.h"

/* What leaves, leaves first: no other pass is long enough beside it. */
chunk_sum pass_chunk_shifted(chunk c, search *next, departure d, int leaving, int streamed)
{
    if (leaving && d.n > 0) /* else nothing of it is set */
        leave_now(&d, leaving, streamed);
    return pass_chunk(c, next, (departure){.n = 0}, NOTHING_LEAVES, 0, 1, 0);
}

/* While nothing leaves, the other passes should not wait as if something did: at the first rows of a
 * call, and in rows too long for the scratch. */
chunk_sum pass_chunk_alone(chunk c, search *next, int seeking)
{
    if (seeking)
        return pass_chunk(c, next, (departure){.n = 0}, NOTHING_LEAVES, 0, 0, 1);
    return pass_chunk(c, next, (departure){.n = 0}, NOTHING_LEAVES, 0, 0, 0);
}

/* `leaving`, a constant. */
LANES_LARGE void leave_groups(const departure *d, const int leaving)
{
    const departure own = *d; /* no store changes it */
    for (int64_t i = 0; i < own.n; i += GROUP)
        leave_group(&own, i, own.n - i, leaving, 0);
}

/* What leaves, leaves now, with nothing beside it. */
void leave_now(const departure *d, int leaving, int streamed)
{
    if (streamed) {
        const int64_t ahead = before_line(d->out, d->n);
        leave_ends(d, ahead, ahead, leaving, streamed);
    } else if (leaving == SCALED) { /* long rows leave so whose exponentials were kept */
        leave_groups(d, SCALED);
    } else {
        leave_groups(d, SUBTRACTED);
    }
    leave_label(d, leaving, streamed);
}

void lend_outputs(row_pipe *p, void *out, int64_t rows, int64_t stride)
{
    const int64_t lent = p->format ? 2 : 1, last_chunk = p->classes - (chunks_of(p->classes) - 1) * CHUNK;
    if (fits_scratch(p->classes) || rows <= lent || (p->format && stride != p->classes))
        return;
    p->lent_from = output_address(p->format, out, (rows - lent) * stride);
    if (last_chunk >= BLOCK) /* there is room, for the exponentials of that chunk are elsewhere */
        p->lent = (float *)(((uintptr_t)p->lent_from + LINE - 1) & -(uintptr_t)LINE);
    else if (!p->format)
        p->lent = p->lent_from;
}

float *kept_in(const row_pipe *p, void *out, int64_t kept_chunks, int streamed)
{
    /* The first row that lends waits there, too, for it is done before the one after it, of 16 bits, begins. */
    const int is_lent_to = p->lent && (uintptr_t)out <= (uintptr_t)p->lent_from;
    const int64_t usual = streamed && !is_lent_to ? 0 : MOST_KEPT_CHUNKS;
    const int64_t most = kept_chunks > 0 ? smaller(kept_chunks, MOST_KEPT_CHUNKS) : usual;
    if (fits_scratch(p->classes) || p->classes > most * CHUNK)
        return NULL;
    return is_lent_to ? p->lent : exponentials_in(p->format, out);
}

/* Whether the row summed last may leave as COMPUTED, beside the next one: its references are known, and none
 * of its chunks is shifted. */
static int leaves_computed(const row_pipe *p)
{
    if (p->classes > (int64_t)MOST_KEPT_CHUNKS * CHUNK)
        return 0;
    for (int64_t k = 0; k < chunks_of(p->classes); k++)
        if (p->ref[k].shift != 0.0f)
            return 0;
    return 1;
}

/* It leaves beside the next row. */
static void leave_later(const row_pipe *p, departing_row *row, reference ref, double h, float *kept)
{
    for (int64_t k = 0; k < chunks_of(p->classes); k++) {
        row->h[k] = narrowed(h * chunk_factor(p->ref[k], ref));
        row->exponent[k] = p->ref[k].n;
    }
    row->e = kept;
}

void leave_long_row(row_pipe *p, departing_row *row, row_sum sum, double h, float *kept, int streamed)
{
    const int64_t classes = p->classes;
    const int waits = kept ? !is_lent(p, row->out) : p->format && leaves_computed(p);
    if (waits) {
        leave_later(p, row, sum.ref, h, kept);
        return;
    }
    const search after = p->next;
    departure before = {.n = 0};
    for (int64_t at = 0, k = 0; at < classes; at += CHUNK, k++) {
        const int64_t n = chunk_length(classes, at);
        departure d = row->whole;
        d.n = n;
        d.out = output_address(p->format, row->out, at);
        d.label -= at;
        if (kept) {
            d.e = place_of_chunk(p, kept, at);
            set_scale(&d, narrowed(h * chunk_factor(p->ref[k], sum.ref)));
            leave_any_now(p->format, &d, SCALED, 0); /* its lines are in the caches */
            continue;
        }
        const void *x = input_address(p->format, row->x, at);
        const chunk c = {x, n, reference_of_chunk(p, x, n), LEAVE_NOTHING, p->scratch + k % 2 * CHUNK};
        const int last = at + n == classes;
        look_ahead(p, last ? NULL : input_address(p->format, row->x, at + n),
                   chunk_length(classes, at + n));
        if (p->format)
            sum_narrow_chunk(p->format, &c, LEAVE_NOTHING, &p->next, &before, SCALED);
        else if (c.ref.shift != 0.0f)
            pass_chunk_shifted(c, &p->next, before, SCALED, streamed);
        else if (before.n == 0)
            pass_chunk_alone(c, &p->next, 0);
        else if (streamed)
            pass_chunk(c, &p->next, before, SCALED, 1, 0, 0);
        else
            pass_chunk(c, &p->next, before, SCALED, 0, 0, 0);
        d.e = c.kept;
        set_scale(&d, narrowed(h * chunk_factor(c.ref, sum.ref)));
        before = d;
    }
    if (before.n > 0)
        leave_any_now(p->format, &before, SCALED, streamed);
    p->next = after;
    row->whole.n = 0;
}

/* At the first rows of a call, when nothing leaves. */
double pass_rows_alone(one_chunk_rows *r, const storage *x, exp_scale scale)
{
    return pass_rows(r, x, scale, r->leaves, NOTHING_LEAVES, 0, 0);
}

/* One pass after the other, where logits are shifted. */
double pass_rows_apart(one_chunk_rows *r, const storage *x, reference ref, int leaving, int streamed)
{
    const int64_t n = r->classes, last = n - GROUP;
    const exp_scale scale = exp_scale_of(ref.n);
    const vf shift = vset1(ref.shift);
    if (r->leaves.n > 0)
        leave_now(&r->leaves, leaving, streamed);
    for (int64_t i = 0; i < n; i += GROUP) {
        const int64_t at = smaller(i, last);
        exponentials_of_group(x + at, GROUP, scale, shift, 1, r->free_slot + at);
    }
    r->ahead.max = max_of(r->ahead.x, n);
    return sum_of_slot(r->kept.slot, n);
}

/* The sum of the row taken in last. It may be told to leave then, before close_rows(). */
row_sum end_of_rows(one_chunk_rows *r, int leaving, int streamed)
{
    const row_sum last = {r->kept.ref, sum_of_slot(r->kept.slot, r->classes), (double)r->kept.left_out};
    leave_rows(r, leaving, streamed); /* while the sum is folded */
    r->free_slot = r->kept.slot;
    return last;
}
