/* SPDX-License-Identifier: MIT */
/* A long row, chunk by chunk: what the kernels of rows shared between threads are made of. */
#ifndef BALLAST_SHARED_ROW_H
#define BALLAST_SHARED_ROW_H

#include "softmax_row.h"

/* A chunk of a batch: columns [at, at + n) of row `row`, and what is known of both. */
typedef struct shared_chunk {
    int64_t row, at, n;
    chunk_state *state;
    shared_row *shared;
} shared_chunk;

LANES shared_chunk chunk_of(shared_rows *s, int64_t index, int64_t classes)
{
    const int64_t r = index / s->chunks, at = index % s->chunks * CHUNK;
    return (shared_chunk){s->begin + r, at, chunk_length(classes, at), &s->state[index],
                          &s->row[r]};
}

LANES reference reference_of_state(const chunk_state *s)
{
    return (reference){s->max, s->n, s->shift};
}

/* One copy of each, in softmax.c: what a chunk's maximum says; the sum of its exponentials, which are
 * left in `e`; and how it leaves. left_out as given to sum_alone(). */
reference KERNEL(chunk_reference)(const storage *x, int64_t n);
chunk_sum KERNEL(chunk_sum)(const storage *x, int64_t n, reference ref, int64_t left_out, float *e);
void KERNEL(chunk_leaves)(const departure *d, int leaving);

/* Where a chunk's exponentials are: in the output where they wait, but for a last group that is not
 * whole, for groups are read and written whole. */
LANES float *exponentials_at(float *waiting, int64_t n, float *room)
{
    return waiting && n % GROUP == 0 ? waiting : room;
}

/* Sums the n logits at x, without column `left_out`. Where the output (NULL: none is wanted) can hold
 * exponentials, they wait there. */
static __attribute__((noinline, unused)) void sum_shared(const storage_format *format, const void *x,
                                                         int64_t n, int64_t left_out, void *out,
                                                         chunk_state *state)
{
    float room[CHUNK], wide[CHUNK], *const waiting = out ? exponentials_in(format, out) : NULL;
    float *const e = exponentials_at(waiting, n, room);
    const float *const logits = read_elements(format, x, n, wide);
    const reference ref = KERNEL(chunk_reference)(logits, n);
    const chunk_sum sum = KERNEL(chunk_sum)(logits, n, ref, left_out, e);
    *state = (chunk_state){sum.others, sum.left_out, ref.max, ref.n, ref.shift};
    if (waiting && e == room)
        memcpy(waiting, e, (size_t)n * sizeof *e);
}

/* out = factor e, where e is relative to the chunk's reference, and the factor to the row's; column
 * `label` becomes the row's value. What did not wait in the output is computed once more. */
static __attribute__((noinline, unused)) void scale_shared(const storage_format *format,
                                                           const shared_chunk *c, const void *x,
                                                           int64_t label, void *out)
{
    float room[CHUNK], wide[CHUNK], *const waiting = exponentials_in(format, out);
    float *const e = exponentials_at(waiting, c->n, room);
    const reference ref = reference_of_state(c->state);
    const double worth = chunk_factor(ref, reference_of_state(&c->shared->whole));
    departure d = {.e = e, .out = place_of_elements(format, out, wide), .n = c->n, .label = label,
                   .label_value = c->shared->value};
    if (!waiting)
        KERNEL(chunk_sum)(read_elements(format, x, c->n, wide), c->n, ref, label, e);
    else if (e == room)
        memcpy(e, waiting, (size_t)c->n * sizeof *e);
    set_scale(&d, narrowed(c->shared->factor * worth));
    KERNEL(chunk_leaves)(&d, SCALED);
    write_elements(format, d.out, c->n, out);
}

/* The chunks of row r of the batch, added in index order, as sum_row does. */
LANES row_sum add_chunks(const shared_rows *s, int64_t r, int leave_maximum)
{
    const chunk_state *state = &s->state[r * s->chunks];
    row_sum row = {{-LANE_INFINITY, 0.0f, 0.0f}, 0.0, 0.0};
    int64_t best = 0;
    for (int64_t c = 0; c < s->chunks; c++)
        if (state[c].max > row.ref.max) {
            row.ref = reference_of_state(&state[c]);
            best = c;
        }
    for (int64_t c = 0; c < s->chunks; c++)
        add_chunk(&row, (chunk_sum){state[c].others, state[c].left_out},
                  reference_of_state(&state[c]), leave_maximum && c != best);
    return row;
}

/* The same, kept for the outputs. */
LANES row_sum combine_row(shared_rows *s, int64_t r, int leave_maximum)
{
    const row_sum row = add_chunks(s, r, leave_maximum);
    s->row[r].whole = (chunk_state){row.others, (float)row.left_out, row.ref.max, row.ref.n,
                                    row.ref.shift};
    s->row[r].is_special = row_is_special(row);
    return row;
}

/* The gradients of softmax and log-softmax, of a row or a part of one; in softmax.c, too. */
void KERNEL(add_products)(vd *sum, const storage *a, const storage *b, int64_t n);
void KERNEL(softmax_gradient)(const storage *y, const storage *g, float mean, int64_t n, storage *out);
void KERNEL(log_softmax_gradient)(const storage *y, const storage *g, float sum, int64_t n,
                                  storage *out);

#endif
