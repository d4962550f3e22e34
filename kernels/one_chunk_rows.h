/* SPDX-License-Identifier: MIT */
/* Many rows of one chunk, of 256 to 2048 logits: the sums of softmax_row.h, at less cost for a row.
 *
 * There a row's sum is folded when its exponentials are done, and what the fold, a division and the
 * label take is waited for at the end of every row: 190 cycles, as long as 150 logits. Here each row
 * goes through four passes, beside those of its neighbours, and has a whole row's time to end one:
 *
 *   row i + 1   its maximum is found
 *   row i       its exponentials are computed; they are kept in a slot
 *   row i - 1   its exponentials are added
 *   row i - 2   it leaves, scaled
 *
 * So the sum that comes out when row i is taken in is that of the row before it. The last group of a
 * maximum, or of exponentials, ends where its row does, and overlaps the group before: what is done
 * twice comes to the same, and no group is ragged.
 *
 * Rows of 16 bits go through the same passes in narrow_rows.c. */
#ifndef BALLAST_ONE_CHUNK_ROWS_H
#define BALLAST_ONE_CHUNK_ROWS_H

#include "softmax_row.h"

_Static_assert((int)LEAST_ONE_CHUNK == (int)GROUP, "a row has a group at least");

/* With a row alone softmax_row.h is faster. Of 16 bits, the vn_max() of some ISAs takes an element more
 * than a group. */
LANES int go_as_one_chunk_rows(int64_t rows, int64_t classes, const storage_format *format)
{
    return rows >= LEAST_ONE_CHUNK_ROWS && classes >= LEAST_ONE_CHUNK + (format != NULL) && classes <= CHUNK;
}

/* A row whose exponentials are in its slot, but not yet added. Absent logits have exponential 0. */
typedef struct kept_row {
    float *slot;
    reference ref;
    float left_out; /* the exponential of the column left out, which is 0 in the slot */
} kept_row;

typedef struct one_chunk_rows {
    int64_t classes;
    int64_t apart; /* outputs that are streamed: elements from one to the next, if there is a gap; else 0 */
    float *free_slot;
    kept_row kept;   /* the row taken in last */
    departure leaves; /* the row before it; n = 0: none does */
    search ahead; /* of the row there, n > 0, the maximum is known */
    open_line line;
    const storage_format *format; /* of 16 bits; NULL: f32 */
} one_chunk_rows;

/* Of what open_rows() is given, on a LINE. Exponentials begin up to a block into a slot, which has a block after
 * them, too, and what is streamed is read by groups that begin on lines. */
enum { ONE_CHUNK_ROOM = SCRATCH_ROWS * (CHUNK + SLOT_ROOM) + BLOCK };

LANES void open_rows(one_chunk_rows *r, int64_t classes, int64_t out_stride, float *scratch, fetching chosen,
                     const storage_format *format)
{
    const int64_t slot = width_of(classes) + SLOT_ROOM;
    /* 0 behind where a row may end, and all of the slot that is added beside the first row */
    for (int64_t i = (classes & -BLOCK) - BLOCK; i < 2 * slot; i += BLOCK)
        vstore_f32(scratch + i, vset1(0.0f));
    r->classes = classes;
    r->apart = out_stride != classes ? out_stride : 0;
    r->free_slot = scratch + BLOCK;
    r->kept = (kept_row){.slot = scratch + slot + BLOCK};
    r->leaves = (departure){.n = 0};
    r->ahead = (search){.fetch = fetching_of(chosen)};
    r->line = (open_line){.n = 0};
    r->format = format;
}

/* From how many classes on rows that are streamed are in step: shorter ones end too often.
 *
 * Exponentials begin as far within a line as the logits that they come from, so that both are loaded and stored by
 * whole lines, and the outputs too, if these lie as the logits do. Loads of parts of two lines, and stores to
 * others a few pages away, wait for each other: on Zen 5, 1000 classes took 1.16 of the time, 2047 1.45. */
enum { LEAST_IN_STEP = 8 * GROUP };
LANES int can_go_in_step(const int leaving, const int streamed)
{
    return LOADS_LINES && leaving == SCALED && streamed; /* a constant after inlining */
}
LANES int go_in_step(int64_t n, const int leaving, const int streamed)
{
    return can_go_in_step(leaving, streamed) && n >= LEAST_IN_STEP;
}

/* The slot of a row that was in step with other logits, in step with those at x. Where it begins is found anew:
 * kept beside it, compilers copy both in one piece, which waits for two stores: 25 cycles a row. */
LANES float *in_step(float *slot, const storage *x)
{
    float *const begin = slot - 1 - (uintptr_t)(slot - 1) % LINE / sizeof *slot;
    return begin + BLOCK - before_line(x, BLOCK);
}

/* How much of a row leaves before the passes: up to the first line of what is streamed, and a block more where
 * exponentials, which are written from `kept` on, would overtake it else. */
LANES int64_t leaves_first(const departure *d, const float *kept, int64_t before_line)
{
    const uintptr_t behind = (uintptr_t)kept - (uintptr_t)(d->e + before_line);
    return behind - 1 < LINE - 1 ? before_line + BLOCK : before_line;
}

/* Four rows, a group of each in turn. Returns the sum of the row before. */
LANES_LARGE double pass_rows(one_chunk_rows *r, const storage *x, exp_scale scale, const departure d,
                             const int leaving, const int streamed, const int seeking)
{
    const storage *const ahead = r->ahead.x;
    const int64_t n = r->classes, last = n - GROUP, whole = n & -GROUP;
    const int64_t first = go_in_step(n, leaving, streamed) ? before_line(x, n) : 0;
    const int64_t before_out = leaving && streamed ? before_line(d.out, n) : 0;
    const int64_t unaligned =
        go_in_step(n, leaving, streamed) ? leaves_first(&d, r->free_slot + first, before_out) : before_out;
    const int64_t whole_leaving = (n - unaligned) & -GROUP;
    const float *const added = r->kept.slot;
    float *const kept = r->free_slot;
    const int64_t line = LOADS_LINES ? before_line(ahead, n) : 0;
    const fetching fetch = r->ahead.fetch;
    running_max max = {vset1(-LANE_INFINITY), vset1(0.0f)};
    if (!(seeking && NOTE_PLACE)) /* first, so that it is not waited for */
        add_to_max(&max, ahead + last, 0);
    vs total = vs_zero();

    if (LOADS_LINES)
        max.max = vmax(vload(ahead), max.max);
    if (leaving && streamed)
        prefetch_pages(d.out, 2 * n, n);
    if (leaving && streamed && r->apart > 0) { /* the next row's ends, if parts of lines, are stored the ordinary way */
        const uintptr_t next = (uintptr_t)d.out + (uintptr_t)r->apart * sizeof *d.out;
        vprefetch_write((void *)next);
        vprefetch_write((void *)(next + (uintptr_t)(n - 1) * sizeof *d.out));
    }
    /* The row that leaves is in the slot that is written: it is read first, and so far ahead of what is written
     * in the loop that it stays so. */
    if (leaving && before_out > 0)
        leave_group(&d, 0, before_out, leaving, streamed);
    if (leaving && before_out < unaligned)
        leave_group(&d, before_out, BLOCK, leaving, streamed);
    if (leaving == SCALED && unaligned + whole_leaving < n)
        leave_group(&d, unaligned + whole_leaving, n - unaligned - whole_leaving, leaving, streamed);
    for (int64_t i = 0; i < whole; i += GROUP) {
        const int64_t at = can_go_in_step(leaving, streamed) ? smaller(i + first, last) : i;
        exp_reduced begun;
        begin_exponentials(&begun, x + at, scale, BEGINS_EARLY);
        total = add_exponentials(total, added + i);
        if (leaving && (!streamed || i < whole_leaving))
            leave_group(&d, i + unaligned, GROUP, leaving, streamed);
        prefetch_group(ahead + i, fetch);
        add_to_max(&max, group_on_lines(ahead, n, line, i), seeking);
        end_exponentials(&begun, x + at, scale, BEGINS_EARLY, kept + at);
    }
    if (whole < n) {
        prefetch_group(ahead + whole, fetch);
        if (seeking && NOTE_PLACE)
            add_to_max(&max, ahead + last, 1);
        total = add_exponentials(total, added + whole);
        exponentials_of_group(x + last, GROUP, scale, vset1(0.0f), 0, kept + last);
    }
    if (first > 0)
        exponentials_of_group(x, GROUP, scale, vset1(0.0f), 0, kept);
    if (leaving == SUBTRACTED && unaligned + whole_leaving < n) /* last: the row's logarithm is waited for least */
        leave_group(&d, unaligned + whole_leaving, n - unaligned - whole_leaving, leaving, streamed);
    if (leaving)
        leave_label(&d, leaving, streamed);
    r->ahead.max = vmax_across(max.max) + 0.0f; /* no -0 */
    if (seeking && NOTE_PLACE)
        r->ahead.from = place_of_max(&max, r->ahead.max, width_of(n), line, last);
    return vs_across(total);
}

/* In softmax_row.c: the same at the first rows of a call, when nothing leaves; and one pass after the other,
 * where logits are shifted. */
#define pass_rows_alone KERNEL(pass_rows_alone)
double pass_rows_alone(one_chunk_rows *r, const storage *x, exp_scale scale);

LANES_LARGE double sum_of_slot(const float *slot, int64_t n)
{
    vs total = vs_zero();
    for (int64_t i = 0; i < n; i += GROUP)
        total = add_exponentials(total, slot + i);
    return vs_across(total);
}

#define pass_rows_apart KERNEL(pass_rows_apart)
double pass_rows_apart(one_chunk_rows *r, const storage *x, reference ref, int leaving,
                       int streamed);

/* In narrow_rows.c: take_in_row(), of 16 bits. */
#define take_in_narrow_row KERNEL(take_in_narrow_row)
row_sum take_in_narrow_row(one_chunk_rows *r, const void *x, int64_t left_out, const void *next, void *out,
                           int leaving);

/* Takes in the row at x, which `next` follows (NULL: none does), and which will leave to `out`, if at all.
 * Returns the sum of the row taken in before, which may be told to leave then; of the first row, nothing
 * of use. `seeking` as given to sum_row(). */
LANES_LARGE row_sum take_in_row(one_chunk_rows *r, const void *x, int64_t left_out, const void *next,
                                void *out, const int leaving, const int streamed, const int seeking)
{
    if (__builtin_expect(r->format != NULL, 0))
        return take_in_narrow_row(r, x, left_out, next, out, leaving);
    const int64_t n = r->classes;
    const int is_known = is_found(&r->ahead, x);
    const reference ref = reference_of(is_known ? r->ahead.max : max_of(x, n));
    const int64_t from = is_known ? r->ahead.from : 0;
    row_sum before = {r->kept.ref, 0.0, (double)r->kept.left_out};
    r->ahead.x = next ? next : x;
    r->ahead.n = n;
    if (seeking)
        r->ahead.from = 0;
    if (go_in_step(n, leaving, streamed))
        r->free_slot = in_step(r->free_slot, x);
    if (seeking && !NOTE_PLACE)
        left_out = column_of_maximum(x, n, ref.max, 0);
    if (__builtin_expect(ref.shift != 0.0f, 0))
        before.others = pass_rows_apart(r, x, ref, leaving, streamed);
    else if (leaving && r->leaves.n == 0)
        before.others = pass_rows_alone(r, x, exp_scale_of(ref.n));
    else
        before.others = pass_rows(r, x, exp_scale_of(ref.n), r->leaves, leaving, streamed, seeking);
    r->leaves.n = 0;
    if (seeking && NOTE_PLACE) /* now, so that the passes do not wait for it */
        left_out = column_of_maximum(x, n, ref.max, from);
    if (go_in_step(n, leaving, streamed)) /* the row that was there may have been further on */
        vstore_f32(r->free_slot + n, vset1(0.0f));
    float *slot = r->free_slot;
    r->free_slot = r->kept.slot;
    r->kept = (kept_row){slot, ref, left_out < 0 ? 0.0f : take_out(slot, left_out)};
    return before;
}

/* The row that leaves, if one does, beside nothing. */
LANES_SELDOM void leave_rows(one_chunk_rows *r, const int leaving, const int streamed)
{
    if (r->leaves.n > 0)
        leave_any_now(r->format, &r->leaves, leaving, streamed);
    r->leaves.n = 0;
}

/* The sum of the row taken in last. It may be told to leave then, before close_rows(). */
#define end_of_rows KERNEL(end_of_rows)
row_sum end_of_rows(one_chunk_rows *r, int leaving, int streamed);

/* The row whose sum came out last will leave as out_c = h e_c / (its reference), but for the column
 * `label`, which becomes label_value. */
LANES_LARGE void leave_row_scaled(one_chunk_rows *r, double h, int64_t label, float label_value,
                                  void *out)
{
    r->leaves = (departure){.e = r->free_slot,
                            .out = out,
                            .n = r->classes,
                            .label = label,
                            .label_value = label_value,
                            .line = &r->line};
    set_scale(&r->leaves, narrowed(h));
}

/* The same as out_c = (x_c - max) - rest. */
LANES_LARGE void leave_row_subtracted(one_chunk_rows *r, const void *x, float max, float rest, void *out)
{
    r->leaves = (departure){
        .x = x, .out = out, .n = r->classes, .max = max, .rest = rest, .line = &r->line};
}

LANES_SELDOM void close_rows(one_chunk_rows *r, const int leaving, const int streamed)
{
    leave_rows(r, leaving, streamed);
    if (streamed)
        end_streams(&r->line);
}

#endif
