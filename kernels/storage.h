/* SPDX-License-Identifier: MIT */
/* What kernels read and write, and the names of what a kernel file exports.
 *
 * A kernel file is compiled once per ISA, with -DBALLAST_ISA_<isa>. Its `storage` is f32. Elements of
 * 16 bits come to it widened: by rows in narrow.c, or piece by piece, as its job's format says. */
#ifndef BALLAST_STORAGE_H
#define BALLAST_STORAGE_H

#include "kernels.h"
#include "lanes/functions.h"

#ifndef BALLAST_STORAGE
#define BALLAST_STORAGE f32
#endif

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)

#define KERNEL(name) PASTE(PASTE(PASTE(ballast__, name), PASTE(_, BALLAST_STORAGE)), ISA_SUFFIX)

/* What the kernel files define, one entry of kernel_table each. */
#define DECLARE(name, job) void KERNEL(name)(const job *, int64_t, int64_t)
DECLARE(softmax, softmax_job);
DECLARE(log_softmax, softmax_job);
DECLARE(log_sum_exp, softmax_job);
DECLARE(softmax_backward, softmax_backward_job);
DECLARE(log_softmax_backward, softmax_backward_job);
DECLARE(cross_entropy, cross_entropy_job);
DECLARE(softmax_planes, softmax_job);
DECLARE(log_softmax_planes, softmax_job);
DECLARE(log_sum_exp_planes, softmax_job);
DECLARE(softmax_backward_planes, softmax_backward_job);
DECLARE(log_softmax_backward_planes, softmax_backward_job);
DECLARE(cross_entropy_planes, cross_entropy_job);
DECLARE(binary_cross_entropy, sigmoid_job);
DECLARE(sigmoid_focal, sigmoid_job);
DECLARE(weighted_sum, reduce_job);
DECLARE(weighted_mean, reduce_job);
DECLARE(weighted_sum_of_squares, reduce_job);
DECLARE(weighted_log_sum_exp, reduce_job);
double KERNEL(log_sum_exp_of_parts)(const double *, int64_t);
#undef DECLARE
#define DECLARE_SHARED(name)                                                                      \
    void KERNEL(name##_states)(const void *, shared_rows *, int64_t, int64_t);                    \
    void KERNEL(name##_combine)(const void *, shared_rows *)
DECLARE_SHARED(softmax);
DECLARE_SHARED(log_softmax);
DECLARE_SHARED(log_sum_exp);
DECLARE_SHARED(cross_entropy);
#define DECLARE_OUTPUTS(name)                                                                     \
    void KERNEL(name##_outputs)(const void *, shared_rows *, int64_t, int64_t)
DECLARE_OUTPUTS(softmax);
DECLARE_OUTPUTS(log_softmax);
DECLARE_OUTPUTS(cross_entropy);
#undef DECLARE_OUTPUTS
#undef DECLARE_SHARED

/* The step of a loop over a row, and the accumulators of a sum. */
enum { GROUP_BLOCKS = 4, GROUP = GROUP_BLOCKS * BLOCK };

typedef float storage_f32;
typedef uint16_t storage_bf16, storage_f16;
#define storage PASTE(storage_, BALLAST_STORAGE)
#define vload PASTE(vload_, BALLAST_STORAGE)
#define vload_columns PASTE(vload_columns_, BALLAST_STORAGE)
#define vstore_columns PASTE(vstore_columns_, BALLAST_STORAGE)
#define vload_rows PASTE(vload_rows_, BALLAST_STORAGE)
#define vstore_rows PASTE(vstore_rows_, BALLAST_STORAGE)
#define vload_n PASTE(vload_n_, BALLAST_STORAGE)
#define vstore PASTE(vstore_, BALLAST_STORAGE)
#define vstore_n PASTE(vstore_n_, BALLAST_STORAGE)
#define vstore_stream PASTE(vstore_stream_, BALLAST_STORAGE)

/* One element, widened and narrowed as the lanes do. */
LANES float load_f32(const float *p) { return *p; }
LANES void store_f32(float *p, float x) { *p = x; }
#define load_one PASTE(load_, BALLAST_STORAGE)
#define store_one PASTE(store_, BALLAST_STORAGE)

LANES int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* A block that may reach past the end: `left` elements are there, the other lanes are `fill`. */
#define DEFINE_TAIL(type)                                                                         \
    LANES vf vload_tail_##type(const storage_##type *p, int64_t left, float fill)                 \
    {                                                                                             \
        if (left >= BLOCK)                                                                        \
            return vload_##type(p);                                                               \
        return left > 0 ? vload_n_##type(p, (int)left, fill) : vset1(fill);                       \
    }                                                                                             \
    LANES void vstore_tail_##type(storage_##type *p, int64_t left, vf v)                          \
    {                                                                                             \
        if (left >= BLOCK)                                                                        \
            vstore_##type(p, v);                                                                  \
        else if (left > 0)                                                                        \
            vstore_n_##type(p, (int)left, v);                                                     \
    }
DEFINE_TAIL(f32)
DEFINE_TAIL(bf16)
DEFINE_TAIL(f16)
#define vload_tail PASTE(vload_tail_, BALLAST_STORAGE)
#define vstore_tail PASTE(vstore_tail_, BALLAST_STORAGE)

/* ---- past the caches: 64-byte lines are streamed whole or not at all --------------------------- */

enum { LINE = 64, PAGE = 4096 /* bytes */, PREFETCH_AHEAD = 1024 /* elements */ };

/* The elements before the first whole line. */
LANES int64_t before_line(const storage *out, int64_t n)
{
    return smaller(n, (int64_t)((0 - (uintptr_t)out) % LINE / sizeof *out));
}

LANES fetching fetching_of(fetching chosen)
{
    return chosen.ahead > 0 ? chosen : (fetching){PREFETCH_AHEAD, 0};
}

/* A block that may reach past the end; out is at the beginning of a line, or in its middle. */
LANES void store_block(storage *out, int64_t left, vf v, const int streamed)
{
    if (streamed && left >= BLOCK)
        vstore_stream(out, v);
    else
        vstore_tail(out, left, v);
}

/* A line that is streamed, but whose rest leaves later: rows and chunks that follow one another may share
 * a line. By ordinary stores it would come from memory first, and all stores after it would wait. */
typedef struct open_line {
    storage element[2 * BLOCK];
    storage *out; /* where they go, n of them; 0: none is open */
    int64_t n;
} open_line;

/* What begins within a line goes one by one: a block would reach into the next line, even with a mask, and have
 * that come from memory. */
LANES_SELDOM void close_line(open_line *l)
{
    if ((uintptr_t)l->out % LINE == 0)
        store_block(l->out, l->n, vload(l->element), 1);
    else
        for (int64_t i = 0; i < l->n; i++)
            store_one(l->out + i, l->element[i]);
    l->n = 0;
}

LANES void end_streams(open_line *l)
{
    close_line(l);
    vstream_fence();
}

/* n elements of a line. */
LANES_SELDOM void put_in_line(open_line *l, storage *out, int64_t n, vf v)
{
    if (l->out + l->n != out) {
        close_line(l);
        l->out = out;
    }
    vstore(l->element + l->n, v);
    l->n += n;
    if ((uintptr_t)(out + n) % LINE == 0)
        close_line(l);
}

/* A block, of which `there` elements are there; `streamed`, a constant: past the caches, the rest of a line by way
 * of `line`. */
LANES void leave_block(open_line *line, storage *out, int64_t there, vf v, const int streamed)
{
    if (streamed && there > 0 && there < BLOCK)
        put_in_line(line, out, there, v);
    else
        store_block(out, there, v, streamed);
}

LANES void store_fill(storage *p, int64_t n, float x)
{
    for (int64_t i = 0; i < n; i += BLOCK)
        vstore_tail(p + i, n - i, vset1(x));
}

/* ---- arrays of a job that may have a format ----------------------------------------------------- */

LANES int64_t bytes_of(const storage_format *f, int64_t n)
{
    return n * (int64_t)(f ? sizeof(uint16_t) : sizeof(float));
}

/* Where element `at` is. */
LANES const void *input_address(const storage_format *f, const void *p, int64_t at)
{
    return (const char *)p + bytes_of(f, at);
}
LANES void *output_address(const storage_format *f, void *p, int64_t at)
{
    return (char *)p + bytes_of(f, at);
}

/* n elements in f32: where they are, or widened into `scratch`. */
LANES const float *read_elements(const storage_format *f, const void *p, int64_t n, float *scratch)
{
    if (!f)
        return p;
    f->widen(p, n, scratch);
    return scratch;
}

/* Every row asks for its label's: bf16 without a conversion of blocks. */
LANES_SELDOM float read_narrow_element(const storage_format *f, const uint16_t *p)
{
    float x = float_of_bits((uint32_t)*p << 16);
    if (f->is_f16)
        f->widen(p, 1, &x);
    return x;
}
LANES float read_element(const storage_format *f, const void *p, int64_t at)
{
    return f ? read_narrow_element(f, (const uint16_t *)p + at) : ((const float *)p)[at];
}

/* Where elements are written in f32: in their place, or in `scratch`; from there they are narrowed. */
LANES float *place_of_elements(const storage_format *f, void *p, float *scratch)
{
    return f ? scratch : p;
}
LANES void write_elements(const storage_format *f, const float *from, int64_t n, void *p)
{
    if (f)
        f->narrow(from, n, p);
}

LANES void write_element(const storage_format *f, void *p, int64_t at, float x)
{
    if (f)
        f->narrow(&x, 1, output_address(f, p, at));
    else
        ((float *)p)[at] = x;
}

/* n times x. */
static __attribute__((noinline, unused)) void fill_elements(const storage_format *f, void *p,
                                                            int64_t n, float x)
{
    float same[CHUNK];
    if (!f) {
        store_fill(p, n, x);
        return;
    }
    store_fill(same, smaller(n, CHUNK), x);
    for (int64_t at = 0; at < n; at += CHUNK)
        f->narrow(same, smaller(n - at, CHUNK), output_address(f, p, at));
}

/* An output that can hold exponentials, which are f32; NULL where the storage is narrower. */
LANES float *exponentials_in(const storage_format *f, void *out) { return f ? NULL : out; }

#endif
