/* SPDX-License-Identifier: MIT */
/* The exponential sum of one row: what softmax, log-softmax, log-sum-exp and cross-entropy share.
 *
 * A row is cut into chunks of 2048 logits. Each chunk has a reference of its own, from its own
 * maximum, so that a chunk is read from memory once: maximum and exponentials while it is in L1.
 *
 *   e_c = exp(x_c - shift) / 2^n
 *
 * Normally shift = 0 and n = RNE(max log2 e): x itself is reduced, exactly, and two chunks differ by a
 * power of two. Beyond |max| = 65536 the reduction of x would lose digits; there shift = max and n = 0,
 * and x - max is exact for every logit that matters. Which way is taken depends on the chunk's logits
 * alone.
 *
 * One column can be left out of the sum: the label's for cross-entropy, the maximum for log-softmax.
 * The sum of the others keeps its digits then when the column's probability rounds to 1.
 *
 * Order of the sum: the four blocks of a group of 64 logits are added in f32 two by two, 0 + 2 and
 * 1 + 3, and these go one after the other into 16 double lanes, which are folded at the end of the
 * chunk. One rounding to f32 in a sum is what 4 ULP of a gradient leave room for. Chunks are added in
 * index order, in double, relative to the row's maximum. */
#ifndef BALLAST_SOFTMAX_ROW_H
#define BALLAST_SOFTMAX_ROW_H

#include "storage.h"

enum { CHUNK = 2048, KEPT_CHUNKS = 128 };

#define DIRECT_BOUND 65536.0f

/* Columns to leave out that are no column. */
enum { LEAVE_NOTHING = -1, LEAVE_MAXIMUM = -2 };

typedef struct reference {
    float max;
    float n;
    float shift;
} reference;

LANES reference reference_of(float max)
{
    if (max == -LANE_INFINITY) /* nothing but -inf (or NaN): every exponential is 0 (or NaN) */
        return (reference){max, 0.0f, 0.0f};
    if (max > DIRECT_BOUND || max < -DIRECT_BOUND)
        return (reference){max, 0.0f, max};
    return (reference){max, exponent_of(max), 0.0f};
}

/* exp(chunk's reference - row's reference): what a chunk's exponentials are worth in the row. */
LANES double chunk_factor(reference chunk, reference row)
{
    if (chunk.max == -LANE_INFINITY)
        return 0.0;
    if (chunk.shift == 0.0f && row.shift == 0.0f)
        return power_of_two((double)chunk.n - (double)row.n);
    if (chunk.shift == row.shift && chunk.n == row.n)
        return 1.0;
    const double ln2 = 0x1.62e42fefa39efp-1;
    double difference = ((double)chunk.shift - (double)row.shift) +
                        ((double)chunk.n - (double)row.n) * ln2;
    return exp_of_double(difference);
}

LANES float max_of(const storage *x, int64_t n)
{
    vf max[GROUP_BLOCKS];
    FOR_BLOCKS(k, GROUP_BLOCKS) max[k] = vset1(-LANE_INFINITY);
    int64_t i = 0;
    for (; i + GROUP <= n; i += GROUP)
        FOR_BLOCKS(k, GROUP_BLOCKS) max[k] = vmax(vload(x + i + BLOCK * k), max[k]);
    for (; i < n; i += BLOCK)
        max[0] = vmax(vload_tail(x + i, n - i, -LANE_INFINITY), max[0]);
    return vmax_across(vmax(vmax(max[0], max[2]), vmax(max[1], max[3]))) + 0.0f; /* no -0 */
}

/* The first index whose element equals `value`; n for none. */
LANES int64_t index_of(const storage *x, int64_t n, float value)
{
    const vf v = vset1(value);
    for (int64_t i = 0; i < n; i += BLOCK) {
        int lane = vfirst(veq(vload_tail(x + i, n - i, LANE_NAN), v));
        if (lane < BLOCK)
            return i + lane;
    }
    return n;
}

typedef struct chunk_sum {
    double others;  /* without the column left out */
    float left_out; /* that column's exponential; 0 where there is none */
} chunk_sum;

/* Sums the exponentials of n <= CHUNK logits, and stores them in `kept` unless that is NULL (it may be
 * x, or lie in the gradient: nothing beyond n is written). `shifted` is a constant after inlining. */
LANES chunk_sum sum_exponentials(const storage *x, int64_t n, reference ref, const int shifted,
                                 int64_t left_out, float *kept)
{
    const exp_scale scale = exp_scale_of(ref.n);
    const vf shift = vset1(ref.shift);
    const int64_t left_out_group = left_out < 0 || left_out >= n ? -1 : left_out & ~(GROUP - 1);
    chunk_sum sum = {0.0, 0.0f};
    vd total = vd_zero();
    for (int64_t i = 0; i < n; i += GROUP) {
        vf e[GROUP_BLOCKS];
        if (i + GROUP <= n) {
            FOR_BLOCKS(k, GROUP_BLOCKS) e[k] = vload(x + i + BLOCK * k);
            if (shifted)
                FOR_BLOCKS(k, GROUP_BLOCKS) e[k] = vsub(e[k], shift);
            vexp_scaled(e, e, GROUP_BLOCKS, scale);
            if (kept)
                FOR_BLOCKS(k, GROUP_BLOCKS) vstore_f32(kept + i + BLOCK * k, e[k]);
        } else {
            FOR_BLOCKS(k, GROUP_BLOCKS)
            {
                const int64_t at = i + BLOCK * k;
                e[k] = vset1(0.0f);
                if (at < n) {
                    e[k] = vload_tail(x + at, n - at, -LANE_INFINITY);
                    if (shifted)
                        e[k] = vsub(e[k], shift);
                    vexp_scaled(e + k, e + k, 1, scale);
                    if (kept)
                        vstore_tail_f32(kept + at, n - at, e[k]);
                }
            }
        }
        if (__builtin_expect(i == left_out_group, 0)) {
            float group[GROUP];
            FOR_BLOCKS(k, GROUP_BLOCKS) vstore_f32(group + BLOCK * k, e[k]);
            sum.left_out = group[left_out - i];
            FOR_BLOCKS(k, GROUP_BLOCKS)
                e[k] = vkeep(vmask_without((int)(left_out - i) - BLOCK * k), e[k]);
        }
        total = vd_add(vd_add(total, vadd(e[0], e[2])), vadd(e[1], e[3]));
    }
    sum.others = vd_across(total);
    return sum;
}

/* Out of line, so that ordinary rows keep their registers. */
static __attribute__((noinline)) chunk_sum
sum_exponentials_shifted(const storage *x, int64_t n, reference ref, int64_t left_out, float *kept)
{
    return sum_exponentials(x, n, ref, 1, left_out, kept);
}

/* One chunk: left_out is an index in the chunk (outside it: nothing), or LEAVE_MAXIMUM. */
LANES chunk_sum sum_chunk(const storage *x, int64_t n, reference ref, int64_t left_out, float *kept)
{
    if (left_out == LEAVE_MAXIMUM)
        left_out = ref.max == -LANE_INFINITY ? LEAVE_NOTHING : index_of(x, n, ref.max);
    if (__builtin_expect(ref.shift != 0.0f, 0))
        return sum_exponentials_shifted(x, n, ref, left_out, kept);
    return sum_exponentials(x, n, ref, 0, left_out, kept);
}

/* What a row comes to, relative to its reference: the sum of the exponentials without the column left
 * out, and that column's own. */
typedef struct row_sum {
    reference ref;
    double others;
    double left_out;
} row_sum;

/* NaN or +inf in the row, or nothing but -inf. */
LANES int row_is_special(row_sum r)
{
    return !(r.others + r.left_out > 0.0);
}

LANES int64_t chunk_length(int64_t classes, int64_t at)
{
    return classes - at < CHUNK ? classes - at : CHUNK;
}

/* left_out as seen from the chunk that begins at `at`. */
LANES int64_t left_out_from(int64_t left_out, int64_t at)
{
    if (left_out < 0)
        return left_out;
    return left_out >= at && left_out - at < CHUNK ? left_out - at : LEAVE_NOTHING;
}

/* The chunks of one row, added in index order. `chunk` holds the reference of each, when there are at
 * most KEPT_CHUNKS. */
typedef struct row_chunks {
    reference chunk[KEPT_CHUNKS];
} row_chunks;

static __attribute__((noinline)) row_sum sum_chunks(const storage *x, int64_t classes,
                                                    int64_t left_out, float *kept,
                                                    row_chunks *chunks)
{
    const int fits = classes <= (int64_t)KEPT_CHUNKS * CHUNK;
    chunk_sum sum[KEPT_CHUNKS];
    row_sum row = {{-LANE_INFINITY, 0.0f, 0.0f}, 0.0, 0.0};
    int64_t best = 0;

    for (int64_t at = 0, c = 0; at < classes; at += CHUNK, c++) {
        const int64_t n = chunk_length(classes, at);
        const reference ref = reference_of(max_of(x + at, n));
        if (fits) {
            chunks->chunk[c] = ref;
            sum[c] = sum_chunk(x + at, n, ref, left_out_from(left_out, at), kept ? kept + at : NULL);
        }
        if (ref.max > row.ref.max) {
            row.ref = ref;
            best = c;
        }
    }
    for (int64_t at = 0, c = 0; at < classes; at += CHUNK, c++) {
        const int64_t n = chunk_length(classes, at);
        const reference ref = fits ? chunks->chunk[c] : reference_of(max_of(x + at, n));
        const chunk_sum s =
            fits ? sum[c] : sum_chunk(x + at, n, ref, left_out_from(left_out, at), NULL);
        const double factor = s.others != s.others ? 1.0 : chunk_factor(ref, row.ref);
        row.others += s.others * factor;
        if (left_out == LEAVE_MAXIMUM && c != best)
            row.others += (double)s.left_out * factor;
        else
            row.left_out += (double)s.left_out * factor;
    }
    return row;
}

/* Sums one row. With `kept`, its exponentials are there afterwards, chunk by chunk relative to the
 * references in `chunks` - but only where keeps_exponentials(classes). */
LANES row_sum sum_row(const storage *x, int64_t classes, int64_t left_out, float *kept,
                      row_chunks *chunks)
{
    if (__builtin_expect(classes > CHUNK, 0))
        return sum_chunks(x, classes, left_out, kept, chunks);
    const reference ref = reference_of(max_of(x, classes));
    const chunk_sum s = sum_chunk(x, classes, ref, left_out, kept);
    chunks->chunk[0] = ref;
    return (row_sum){ref, s.others, (double)s.left_out};
}

LANES int keeps_exponentials(int64_t classes) { return classes <= (int64_t)KEPT_CHUNKS * CHUNK; }

/* out = e h, and exactly 0 where that is below the normal range, or e is 0. e >= 0; out may be e. */
LANES void scale_exponentials(const float *e, storage *out, int64_t n, float h)
{
    const float size = h < 0.0f ? -h : h;
    const vf scale = vset1(h);
    const vf least = vset1(size > 1.0f ? SMALLEST_NORMAL : SMALLEST_NORMAL / size);
    int64_t i = 0;
    for (; i + GROUP <= n; i += GROUP) {
        vf v[GROUP_BLOCKS];
        FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vload_f32(e + i + BLOCK * k);
        FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vkeep(vle(least, v[k]), vmul(v[k], scale));
        FOR_BLOCKS(k, GROUP_BLOCKS) vstore(out + i + BLOCK * k, v[k]);
    }
    for (; i < n; i += BLOCK) {
        vf v = vload_tail_f32(e + i, n - i, 0.0f);
        vstore_tail(out + i, n - i, vkeep(vle(least, v), vmul(v, scale)));
    }
}

/* To f32, rounded once; 0 below the normal range. No branch: loops over rows are vectorised. */
LANES float narrowed(double h)
{
    const double least = (double)SMALLEST_NORMAL;
    return (float)(((h < least) & (h > -least)) ? 0.0 : h);
}

static __attribute__((noinline)) void write_chunks(const storage *x, int64_t classes, row_sum row,
                                                   const row_chunks *chunks, double h,
                                                   const float *kept, storage *out)
{
    float fresh[CHUNK];
    for (int64_t at = 0, c = 0; at < classes; at += CHUNK, c++) {
        const int64_t n = chunk_length(classes, at);
        reference ref;
        const float *e;
        if (keeps_exponentials(classes)) {
            ref = chunks->chunk[c];
            e = kept + at;
        } else { /* too many chunks to have kept their references: once more */
            ref = reference_of(max_of(x + at, n));
            sum_chunk(x + at, n, ref, LEAVE_NOTHING, fresh);
            e = fresh;
        }
        scale_exponentials(e, out + at, n, narrowed(h * chunk_factor(ref, row.ref)));
    }
}

/* out_c = h exp(x_c) / (the row's reference): softmax with h = 1 / sum. After sum_row with the same
 * `kept` and `chunks`; the row must not be special. out may be x. */
LANES void write_row(const storage *x, int64_t classes, row_sum row, const row_chunks *chunks, double h,
                     const float *kept, storage *out)
{
    if (__builtin_expect(classes > CHUNK, 0))
        write_chunks(x, classes, row, chunks, h, kept, out);
    else
        scale_exponentials(kept, out, classes, narrowed(h));
}

#endif
