/* SPDX-License-Identifier: MIT */
/* Ballast: loss kernels for CPUs. Loss and gradient in one pass, the same bits on every CPU.
 *
 * How to read this manual
 *
 * Every operation is one struct of arguments and three ways to run it:
 *
 *   ballast_X(&args, exec)                 the whole call; serial unless exec brings threads
 *   ballast_X_prepare(&args, exec, &plan)  validates, sums the weights: O(rows + classes), serial
 *   ballast_plan_rows(&plan, begin, end)   computes rows [begin, end), from any thread
 *   ballast_plan_finish(&plan)             reduces and stores the reduced loss
 *
 * Start from the initialiser of the struct (it holds the documented defaults), then set what you
 * need:
 *
 *   ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
 *   a.logits = ballast_const_matrix_f32(x, rows, classes);
 *   a.labels = ballast_labels_i64(y);
 *   a.loss   = &loss;
 *   a.grad   = ballast_matrix_f32(g, rows, classes);
 *   ballast_status s = ballast_cross_entropy(&a, NULL);
 *
 * What holds for every function below
 *
 *   Bits       the same for the same input and options: on every CPU and implementation, with every
 *              compiler, for every thread count and split, whichever outputs are asked for.
 *   Threads    safe to call from any number of threads at a time, on different outputs.
 *   Guest      no allocation, no printing, no signals; errno and the floating-point control and
 *              status words are as they were when the call returns. The host may run in any rounding
 *              or flush-to-zero mode: inside, arithmetic is IEEE 754, to nearest.
 *   Errors     a status other than BALLAST_OK means that no output was written. `error`, where given,
 *              names the argument, the lowest bad index and the value.
 *              Beside what is listed, every call may return _OVERLAP, _UNSUPPORTED (f64 in a library
 *              built without it; inner or class_stride other than 1 where classes must be rows), and
 *              for `exec` _ISA, _NULL, _OPTION and _STRUCT_SIZE ("exec.implementation", ...).
 *   Rows       of a tensor [outer, classes, inner] there are outer * inner: row r is position r % inner
 *              of outer index r / inner. Everything of one value per row (labels, weights, row losses)
 *              is an array of outer * inner in that order: N x H x W for logits N x C x H x W. Results
 *              are, bit for bit, those of the matrix [outer * inner, classes] that holds the same rows.
 *   16 bits    bf16 and f16 are storage: every number is widened to f32, all arithmetic is that of f32,
 *              and what is stored in 16 bits is the f32 result, rounded once to nearest, ties to even:
 *              half an ULP of the storage type and a little. Below 2^-14 f16 loses digits, below 2^-25
 *              it is 0, from 65520 on it is infinite: scale the gradient (grad_scale) where it matters.
 *              Arrays of one number per row or class (weights, row losses, log-sum-exp) are f32.
 *   NaN        a NaN result is the quiet NaN 0x7fc00000 (f64: 0x7ff8000000000000; bf16: 0x7fc0; f16:
 *              0x7e00).
 *   Tiny       all but f64: an exponential below about 2^-125 of the largest of its row counts as 0 (so
 *              that what is left of a sum may be wrong by classes * 2^-125), and so may a result below
 *              2^-125, before weights. Factors so large that f32 overflows give inf or NaN.
 *   Stack      a call needs at most 80 KiB, 16 of them for sums over many rows; 84 KiB with bf16 and f16;
 *              100 KiB where classes do not stand side by side (inner or class_stride other than 1).
 *   Overlap    outputs must not overlap inputs or each other, except a gradient (or softmax output)
 *              that is exactly the tensor it is computed from: "in place".
 *   Alignment  data must be aligned to its element, no more.
 *   Sizes      an array may have PTRDIFF_MAX / 8 elements at most. A struct_size between the first
 *              arguments and the whole struct is read as far as it goes; a larger one is refused
 *              where it sets anything unknown here, and above 4096 bytes.
 *   Accuracy   figures are worst cases found, in units in the last place (docs/accuracy.md).
 */
#ifndef BALLAST_BALLAST_H
#define BALLAST_BALLAST_H

#include <stddef.h>
#include <stdint.h>

#define BALLAST_VERSION_MAJOR 0
#define BALLAST_VERSION_MINOR 1
#define BALLAST_VERSION_PATCH 0

#if defined(__GNUC__) && __GNUC__ >= 4
#define BALLAST_API __attribute__((visibility("default")))
#else
#define BALLAST_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status and errors ------------------------------------------------------------------------ */

typedef enum ballast_status {
    BALLAST_OK = 0,
    BALLAST_ERR_STRUCT_SIZE = 1,  /* struct_size unset, or the struct sets options unknown here */
    BALLAST_ERR_NULL = 2,         /* a pointer that is needed is NULL */
    BALLAST_ERR_DTYPE = 3,        /* a dtype that this argument cannot have */
    BALLAST_ERR_SHAPE = 4,        /* a negative size, sizes that do not match or overflow */
    BALLAST_ERR_STRIDE = 5,       /* rows or classes would overlap */
    BALLAST_ERR_ALIGNMENT = 6,    /* data not aligned to its element */
    BALLAST_ERR_OVERLAP = 7,      /* an output overlaps another argument, and is not in place */
    BALLAST_ERR_LABEL = 8,        /* a label outside [0, classes) that is not ignore_index */
    BALLAST_ERR_WEIGHT = 9,       /* a weight that is negative, infinite or NaN */
    BALLAST_ERR_COUNT = 10,       /* a class count that is negative, no integer, or 0 where refused */
    BALLAST_ERR_OPTION = 11,      /* an option outside its range, or one that excludes another */
    BALLAST_ERR_SPLIT = 12,       /* rows [begin, end) not on the plan's row steps */
    BALLAST_ERR_ISA = 13,         /* an implementation that this machine cannot run */
    BALLAST_ERR_UNSUPPORTED = 14, /* understood, but not built into this library */
    BALLAST_ERR_FILE = 15,        /* a file that cannot be read or written */
    BALLAST_ERR_PROFILE = 16      /* a profile of another machine or build, or a damaged one: ignored */
} ballast_status;

/* What was wrong, filled in on every status but BALLAST_OK, where struct_size reaches as far as the
 * pointer to it: a struct_size that was not set tells by its status alone. `argument` is a static string such as
 * "labels"; index is -1 where the fault is not in one element; for labels, index is the row. Integer
 * values (labels, sizes, strides) are exact in `integer`; `value` is the same as a double. */
typedef struct ballast_error {
    ballast_status status;
    const char *argument;
    int64_t index;
    int64_t integer;
    double value;
} ballast_error;

/* The name of a status, "BALLAST_ERR_LABEL"; "unknown status" for other numbers. Static storage. */
BALLAST_API const char *ballast_status_name(ballast_status status);

/* One line of English, "labels[17] = 12: label outside [0, classes) and not ignore_index", cut to
 * `size` bytes with its final zero. Returns `text`. */
BALLAST_API const char *ballast_error_message(const ballast_error *error, char *text, size_t size);

/* "0.1.0": the version of the library that runs; compare with the macros of this header. */
BALLAST_API const char *ballast_version(void);

/* ---- tensors ---------------------------------------------------------------------------------- */

typedef enum ballast_dtype {
    BALLAST_DTYPE_NONE = 0,
    BALLAST_F32 = 1,
    BALLAST_F64 = 2,
    BALLAST_BF16 = 3, /* bits in a uint16_t: the upper half of an f32 */
    BALLAST_F16 = 4,  /* bits in a uint16_t: IEEE 754 half precision */
    BALLAST_I32 = 5,
    BALLAST_I64 = 6,
    BALLAST_U8 = 7
} ballast_dtype;

/* Everything of the logits' shape: [outer, classes, inner], inner contiguous; sizes and strides in
 * elements. Element (o, c, i) is data[o * outer_stride + c * class_stride + i].
 * A matrix [rows, classes] has inner = 1, class_stride = 1 and outer_stride = row stride. Images
 * N x C x H x W have outer = N, inner = H * W, class_stride = H * W, outer_stride = C * H * W.
 * class_stride must be at least inner, outer_stride at least (classes - 1) * class_stride + inner;
 * a stride that is never taken (one class, one outer index) may be anything.
 * data == NULL means "not given". The sigmoid losses take matrices only. */
typedef struct ballast_tensor {
    void *data;
    ballast_dtype dtype;
    int64_t outer, classes, inner;
    int64_t outer_stride, class_stride;
} ballast_tensor;

typedef struct ballast_const_tensor {
    const void *data;
    ballast_dtype dtype;
    int64_t outer, classes, inner;
    int64_t outer_stride, class_stride;
} ballast_const_tensor;

/* One class index per row: i32, i64 or u8, contiguous. data == NULL means "not given". */
typedef struct ballast_labels {
    const void *data;
    ballast_dtype dtype;
} ballast_labels;

/* A contiguous array of f32, f64, bf16 or f16. data == NULL means "not given". */
typedef struct ballast_vector {
    const void *data;
    ballast_dtype dtype;
    int64_t count;
} ballast_vector;

#define BALLAST_NO_TENSOR {NULL, BALLAST_DTYPE_NONE, 0, 0, 0, 0, 0}
#define BALLAST_NO_LABELS {NULL, BALLAST_DTYPE_NONE}
#define BALLAST_NO_VECTOR {NULL, BALLAST_DTYPE_NONE, 0}

#define BALLAST_DEFINE_MATRIX(suffix, type, dtype_)                                               \
    static inline ballast_tensor ballast_matrix_##suffix(type *data, int64_t rows,                \
                                                         int64_t classes)                         \
    {                                                                                             \
        ballast_tensor t = {data, dtype_, rows, classes, 1, classes, 1};                          \
        return t;                                                                                 \
    }                                                                                             \
    static inline ballast_tensor ballast_strided_matrix_##suffix(type *data, int64_t rows,        \
                                                                 int64_t classes,                 \
                                                                 int64_t row_stride)              \
    {                                                                                             \
        ballast_tensor t = {data, dtype_, rows, classes, 1, row_stride, 1};                       \
        return t;                                                                                 \
    }                                                                                             \
    static inline ballast_const_tensor ballast_const_matrix_##suffix(const type *data,            \
                                                                     int64_t rows,                \
                                                                     int64_t classes)             \
    {                                                                                             \
        ballast_const_tensor t = {data, dtype_, rows, classes, 1, classes, 1};                    \
        return t;                                                                                 \
    }                                                                                             \
    static inline ballast_const_tensor ballast_const_strided_matrix_##suffix(                     \
        const type *data, int64_t rows, int64_t classes, int64_t row_stride)                      \
    {                                                                                             \
        ballast_const_tensor t = {data, dtype_, rows, classes, 1, row_stride, 1};                 \
        return t;                                                                                 \
    }
BALLAST_DEFINE_MATRIX(f32, float, BALLAST_F32)
BALLAST_DEFINE_MATRIX(f64, double, BALLAST_F64)
BALLAST_DEFINE_MATRIX(bf16, uint16_t, BALLAST_BF16)
BALLAST_DEFINE_MATRIX(f16, uint16_t, BALLAST_F16)
BALLAST_DEFINE_MATRIX(u8, uint8_t, BALLAST_U8)
#undef BALLAST_DEFINE_MATRIX

/* [outer, classes, inner] without gaps, as N x C x H x W with inner = H * W. */
#define BALLAST_DEFINE_TENSOR(suffix, type, dtype_)                                               \
    static inline ballast_tensor ballast_tensor_##suffix(type *data, int64_t outer,               \
                                                         int64_t classes, int64_t inner)          \
    {                                                                                             \
        ballast_tensor t = {data, dtype_, outer, classes, inner, classes * inner, inner};         \
        return t;                                                                                 \
    }                                                                                             \
    static inline ballast_const_tensor ballast_const_tensor_##suffix(                             \
        const type *data, int64_t outer, int64_t classes, int64_t inner)                          \
    {                                                                                             \
        ballast_const_tensor t = {data, dtype_, outer, classes, inner, classes * inner, inner};   \
        return t;                                                                                 \
    }
BALLAST_DEFINE_TENSOR(f32, float, BALLAST_F32)
BALLAST_DEFINE_TENSOR(f64, double, BALLAST_F64)
#undef BALLAST_DEFINE_TENSOR

static inline ballast_labels ballast_labels_i32(const int32_t *data)
{
    ballast_labels l = {data, BALLAST_I32};
    return l;
}
static inline ballast_labels ballast_labels_i64(const int64_t *data)
{
    ballast_labels l = {data, BALLAST_I64};
    return l;
}
static inline ballast_labels ballast_labels_u8(const uint8_t *data)
{
    ballast_labels l = {data, BALLAST_U8};
    return l;
}
static inline ballast_vector ballast_vector_f32(const float *data, int64_t count)
{
    ballast_vector v = {data, BALLAST_F32, count};
    return v;
}
static inline ballast_vector ballast_vector_f64(const double *data, int64_t count)
{
    ballast_vector v = {data, BALLAST_F64, count};
    return v;
}
static inline ballast_vector ballast_vector_bf16(const uint16_t *data, int64_t count)
{
    ballast_vector v = {data, BALLAST_BF16, count};
    return v;
}
static inline ballast_vector ballast_vector_f16(const uint16_t *data, int64_t count)
{
    ballast_vector v = {data, BALLAST_F16, count};
    return v;
}

/* ---- implementations -------------------------------------------------------------------------- */

/* The kernels compiled for one ISA: "scalar", "avx2", "avx512", "neon". All give the same bits. */
typedef struct ballast_implementation ballast_implementation;

/* The i-th implementation in this library, slowest first; NULL past the last. */
BALLAST_API const ballast_implementation *ballast_implementation_at(int index);

/* By name; NULL where this library has none of that name. */
BALLAST_API const ballast_implementation *ballast_implementation_find(const char *name);

BALLAST_API const char *ballast_implementation_name(const ballast_implementation *implementation);

/* 1 where this CPU and its operating system run it. Otherwise 0, and why, in `reason` (may be
 * NULL), such as "the CPU lacks AVX512VL". */
BALLAST_API int ballast_implementation_supported(const ballast_implementation *implementation,
                                                 char *reason, size_t size);

/* The one that calls use unless `exec` names another: the fastest supported, or a lower one named
 * by the environment variable BALLAST_ISA (read once, at first use) or by set_default. Where it is the
 * fastest, a profile may choose a lower one for some problems. `reason` (may be NULL) says why it is
 * this one. */
BALLAST_API const ballast_implementation *ballast_implementation_default(char *reason, size_t size);

/* Makes `implementation` the default of this process; NULL goes back to the start's choice.
 * Returns BALLAST_ERR_ISA, and changes nothing, where this machine cannot run it. */
BALLAST_API ballast_status
ballast_implementation_set_default(const ballast_implementation *implementation);

/* ---- profiles -------------------------------------------------------------------------------- */

/* A profile is a text file of choices that were measured to be faster on a machine: when outputs
 * go past the caches, how large tasks are, from where on long rows are shared between threads,
 * which implementation runs (docs/tuning.md). It changes speed, never a bit. Without one,
 * defaults that follow from the caches apply.
 *
 * The library reads a profile only where it is told to: by ballast_profile_load, or by the
 * environment variable BALLAST_PROFILE (a path, or "off": none at all, not even one that the
 * program loads), which is read once, at first use. One that was made on another CPU or by
 * another build of the library, and one that is damaged, is ignored: what was in force stays.
 *
 *   Threads    safe, also while others compute: a call takes its choices once, when it begins or is
 *              prepared. Not for a child that fork() made while another thread was in one of these.
 *   Guest      no allocation; errno is kept. Files are closed again, also over exec. */

/* Puts the profile at `path` in force. Returns BALLAST_ERR_FILE where it cannot be read,
 * BALLAST_ERR_PROFILE where it is ignored; ballast_profile_describe says why. */
BALLAST_API ballast_status ballast_profile_load(const char *path);

/* Writes the profile in force to `path`: what was loaded, byte for byte. Without one, a profile
 * without choices. The file is replaced at once and whole: by a temporary one beside it that is
 * written, synced and renamed. Returns BALLAST_ERR_FILE where that fails; what was there before
 * is left. */
BALLAST_API ballast_status ballast_profile_save(const char *path);

/* What is in force and, a line each, with what was measured; and why the last profile was
 * ignored, if it was. Lines end in a newline; the text is cut to `size` bytes with its final
 * zero. `text` may be NULL if size is 0. Returns the length of the whole text. */
BALLAST_API size_t ballast_profile_describe(char *text, size_t size);

/* Back to the defaults, as without a profile. */
BALLAST_API void ballast_profile_reset(void);

/* ---- execution -------------------------------------------------------------------------------- */

/* Threads that the host lends. run() calls task(arg, i) once for every i in [0, tasks), in any
 * order, on any threads, also all on the caller's, and returns when all are done. Tasks are
 * independent and never call run() themselves; run() itself is called in the host's own
 * floating-point environment. threads: how many may run at a time, > 0. A call of less than about 30 us
 * of work is not shared; a longer one runs at most 16 tasks per thread at a time, none of less than 7 us
 * (a profile may say otherwise: 32 tasks, 1 us); where there are fewer rows (of sums: groups of 16) than two per thread, too few to keep threads
 * busy, and they are long, it shares rows between threads and calls run() several times, one after the
 * other. */
typedef struct ballast_parallel {
    void *context;
    void (*run)(void *context, int64_t tasks, void (*task)(void *arg, int64_t index), void *arg);
    int64_t threads;
} ballast_parallel;

/* How a call is to run; NULL for the defaults everywhere. */
typedef struct ballast_exec {
    size_t struct_size;
    const ballast_implementation *implementation; /* NULL: the default one */
    const ballast_parallel *parallel;             /* NULL: serial, on the calling thread */
} ballast_exec;
#define BALLAST_EXEC {sizeof(ballast_exec), NULL, NULL}

/* A validated problem, in memory that the caller owns (a local variable does: 17 KiB). It keeps the
 * pointers of the arguments, which must stay valid and unchanged until the last rows are done. It may
 * be copied. What a plan that was not prepared returns: row count 0, step 1, BALLAST_ERR_NULL. */
typedef struct ballast_plan {
    uint64_t opaque[2176];
} ballast_plan;

/* Rows of the problem. For reductions over a vector: its count. */
BALLAST_API int64_t ballast_plan_row_count(const ballast_plan *plan);

/* A split must begin and end at multiples of this, or at the row count; at most 1024 steps make up a
 * problem. It is 1 where nothing is reduced. It depends on the problem's shape alone. */
BALLAST_API int64_t ballast_plan_row_step(const ballast_plan *plan);

/* Computes rows [begin, end). Each row once, in any order, from any thread.
 * Returns BALLAST_ERR_SPLIT where begin or end is off the steps or outside the problem. */
BALLAST_API ballast_status ballast_plan_rows(ballast_plan *plan, int64_t begin, int64_t end);

/* After all rows: adds the partial sums and stores the reduced results. May be called again. */
BALLAST_API ballast_status ballast_plan_finish(ballast_plan *plan);

/* ---- options shared by the losses ------------------------------------------------------------- */

typedef enum ballast_reduction {
    BALLAST_NONE = 0, /* row_loss only; `loss` must be NULL */
    BALLAST_SUM = 1,
    BALLAST_MEAN = 2 /* the sum over the denominator, divided in double */
} ballast_reduction;

/* What a mean divides by. "Counted" rows are those whose label is not ignore_index. */
typedef enum ballast_denominator {
    BALLAST_WEIGHT_SUM = 0,   /* sum of class_weight[label] * row_weight over the counted rows */
    BALLAST_ROWS = 1,         /* all rows */
    BALLAST_COUNTED_ROWS = 2, /* counted rows */
    BALLAST_ELEMENTS = 3,     /* counted rows * classes */
    BALLAST_POSITIVES = 4,    /* counted rows with a label in [0, classes); label targets only */
    BALLAST_GIVEN = 5         /* denominator_value */
} ballast_denominator;

/* The mean over nothing (denominator 0); the gradient is 0 either way. */
typedef enum ballast_empty { BALLAST_EMPTY_NAN = 0, BALLAST_EMPTY_ZERO = 1 } ballast_empty;

/* ---- softmax ---------------------------------------------------------------------------------- */

/* Softmax or log-softmax along the classes:
 *
 *   softmax      output_ij = exp(x_ij) / sum_k exp(x_ik)
 *   log_softmax  output_ij = x_ij - log(sum_k exp(x_ik))
 *
 * input     [outer, classes, inner], any strides; a matrix [rows, classes] has inner = 1; f32, f64,
 *           bf16 or f16
 * output    same shape and dtype, strides of its own; may be the input
 * Special   x = -inf: probability 0, log -inf. A row with NaN or +inf, or of -inf only: NaN.
 * Accuracy  within 4 ULP (f32)
 * Cost      one read and one write of memory for rows that fit in cache
 * Returns   BALLAST_OK, _STRUCT_SIZE, _NULL, _DTYPE, _SHAPE, _STRIDE, _ALIGNMENT, _OVERLAP
 * Source    PyTorch nn.functional.softmax, log_softmax */
typedef struct ballast_softmax_args {
    size_t struct_size;
    ballast_const_tensor input;
    ballast_tensor output;
    ballast_error *error;
} ballast_softmax_args;
#define BALLAST_SOFTMAX_ARGS                                                                      \
    {sizeof(ballast_softmax_args), BALLAST_NO_TENSOR, BALLAST_NO_TENSOR, NULL}

BALLAST_API ballast_status ballast_softmax(const ballast_softmax_args *args,
                                           const ballast_exec *exec);
BALLAST_API ballast_status ballast_softmax_prepare(const ballast_softmax_args *args,
                                                   const ballast_exec *exec, ballast_plan *plan);
BALLAST_API ballast_status ballast_log_softmax(const ballast_softmax_args *args,
                                               const ballast_exec *exec);
BALLAST_API ballast_status ballast_log_softmax_prepare(const ballast_softmax_args *args,
                                                       const ballast_exec *exec,
                                                       ballast_plan *plan);

/* Gradient of softmax or log-softmax from their outputs:
 *
 *   softmax      grad_input_ij = y_ij (g_ij - sum_k g_ik y_ik)
 *   log_softmax  grad_input_ij = g_ij - exp(y_ij) sum_k g_ik
 *
 * output       y, what the forward call gave: [outer, classes, inner], any strides; f32, f64, bf16
 *              or f16
 * grad_output  g, same shape and dtype, strides of its own
 * grad_input   same shape and dtype, strides of its own; may be grad_output or output
 * Special      NaN in y or g: NaN in that row; of log_softmax, NaN in y: NaN in that element
 * Accuracy     terms of both signs are added: within 4 ULP of the sum of |terms| (f32)
 * Returns      as ballast_softmax
 * Source       PyTorch, the backward of softmax and log_softmax */
typedef struct ballast_softmax_backward_args {
    size_t struct_size;
    ballast_const_tensor output;
    ballast_const_tensor grad_output;
    ballast_tensor grad_input;
    ballast_error *error;
} ballast_softmax_backward_args;
#define BALLAST_SOFTMAX_BACKWARD_ARGS                                                             \
    {sizeof(ballast_softmax_backward_args), BALLAST_NO_TENSOR, BALLAST_NO_TENSOR,                 \
     BALLAST_NO_TENSOR, NULL}

BALLAST_API ballast_status ballast_softmax_backward(const ballast_softmax_backward_args *args,
                                                    const ballast_exec *exec);
BALLAST_API ballast_status
ballast_softmax_backward_prepare(const ballast_softmax_backward_args *args,
                                 const ballast_exec *exec, ballast_plan *plan);
BALLAST_API ballast_status ballast_log_softmax_backward(const ballast_softmax_backward_args *args,
                                                        const ballast_exec *exec);
BALLAST_API ballast_status
ballast_log_softmax_backward_prepare(const ballast_softmax_backward_args *args,
                                     const ballast_exec *exec, ballast_plan *plan);

/* Log-sum-exp of each row:  output_i = log(sum_k exp(x_ik))
 *
 * input     [outer, classes, inner], any strides; f32, f64, bf16 or f16
 * output    [rows], rows = outer * inner; f32 (f64 with f64 input)
 * Special   a row of -inf only: -inf. +inf without NaN: +inf. NaN: NaN.
 * Accuracy  within 4 ULP of |max| + log(sum of exp(x - max)) (f32)
 * Returns   as ballast_softmax
 * Source    PyTorch logsumexp */
typedef struct ballast_log_sum_exp_args {
    size_t struct_size;
    ballast_const_tensor input;
    void *output;
    ballast_error *error;
} ballast_log_sum_exp_args;
#define BALLAST_LOG_SUM_EXP_ARGS {sizeof(ballast_log_sum_exp_args), BALLAST_NO_TENSOR, NULL, NULL}

BALLAST_API ballast_status ballast_log_sum_exp(const ballast_log_sum_exp_args *args,
                                               const ballast_exec *exec);
BALLAST_API ballast_status ballast_log_sum_exp_prepare(const ballast_log_sum_exp_args *args,
                                                       const ballast_exec *exec,
                                                       ballast_plan *plan);

/* ---- softmax cross-entropy -------------------------------------------------------------------- */

/* Softmax cross-entropy with index labels: loss and gradient in one call.
 *
 *   row_loss_i = w_i (log sum_k exp(x_ik) - x_iy)       w_i = class_weight[y_i] * row_weight[i]
 *   loss       = sum_i row_loss_i / D                   D = 1 for SUM, see denominator for MEAN
 *   grad_ij    = s_i w_i (softmax(x_i)_j - [j = y_i])   s_i = grad_scale * grad_rows[i] / D
 *
 * logits        [outer, classes, inner], any strides; a matrix [rows, classes] has inner = 1; f32, f64,
 *               bf16 or f16
 * labels        [rows], rows = outer * inner; i32, i64 or u8; in [0, classes) or ignore_index
 * class_weight  [classes], finite, >= 0; f32 (f64 with f64 logits); NULL: all 1
 * row_weight    [rows], finite, >= 0; same dtype; NULL: all 1
 * ignore_index  rows with this label have loss 0 and gradient 0, whatever their logits
 * reduction     NONE, SUM or MEAN (default)
 * denominator   of the mean: WEIGHT_SUM (default), ROWS, COUNTED_ROWS, ELEMENTS, POSITIVES, GIVEN
 * denominator_value  finite, > 0; read for GIVEN only
 * empty         the mean's value where the denominator is 0: NaN (default) or 0
 * grad_scale    upstream gradient of the reduced loss, times any constant; finite
 * grad_rows     [rows], upstream gradient per row, same dtype as the weights; NONE only; NULL: all 1
 * loss          one double, for SUM and MEAN; NULL: not wanted
 * row_loss      [rows], same dtype as the weights; never divided by D; NULL: not wanted
 * grad          as the logits, strides of its own; may be the logits; data NULL: not wanted
 * Special       x = -inf: probability 0. x_iy = -inf: loss +inf (0 where the row's weight is 0),
 *               gradient finite. A row with NaN or +inf, or of -inf only: NaN in that row only.
 * Accuracy      within 4 ULP for unweighted loss and gradient, also where p_y rounds to 1 (f32)
 * Cost          one read and one write of memory for rows that fit in cache; loss alone: one read
 * Returns       BALLAST_OK, _STRUCT_SIZE, _NULL, _DTYPE, _SHAPE, _STRIDE, _ALIGNMENT, _OVERLAP,
 *               _LABEL (error: row and label), _WEIGHT (error: index and weight), _OPTION
 * Source        PyTorch nn.functional.cross_entropy; the denominators of others by option */
typedef struct ballast_cross_entropy_args {
    size_t struct_size;
    ballast_const_tensor logits;
    ballast_labels labels;
    const void *class_weight;
    const void *row_weight;
    int64_t ignore_index;
    ballast_reduction reduction;
    ballast_denominator denominator;
    double denominator_value;
    ballast_empty empty;
    double grad_scale;
    const void *grad_rows;
    double *loss;
    void *row_loss;
    ballast_tensor grad;
    ballast_error *error;
} ballast_cross_entropy_args;
#define BALLAST_CROSS_ENTROPY_ARGS                                                                \
    {sizeof(ballast_cross_entropy_args), BALLAST_NO_TENSOR, BALLAST_NO_LABELS, NULL, NULL, -100,  \
     BALLAST_MEAN, BALLAST_WEIGHT_SUM, 1.0, BALLAST_EMPTY_NAN, 1.0, NULL, NULL, NULL,             \
     BALLAST_NO_TENSOR, NULL}

BALLAST_API ballast_status ballast_cross_entropy(const ballast_cross_entropy_args *args,
                                                 const ballast_exec *exec);
BALLAST_API ballast_status ballast_cross_entropy_prepare(const ballast_cross_entropy_args *args,
                                                         const ballast_exec *exec,
                                                         ballast_plan *plan);

/* ---- sigmoid losses --------------------------------------------------------------------------- */

/* Binary cross-entropy with logits and sigmoid focal loss: loss and gradient in one call.
 * With z = x for a positive and -x for a negative element, p = sigmoid(z), q = 1 - p = sigmoid(-z):
 *
 *   binary_cross_entropy  e = log(1 + exp(-z))                    de/dz = -q
 *   sigmoid_focal         e = a q^gamma log(1 + exp(-z))          a = alpha (positive), 1 - alpha
 *   element_loss_ij = w_i e_ij        w_i = row_weight[i] * class_weight[label of row i]
 *   row_loss_i      = sum_j element_loss_ij
 *   loss            = sum_i row_loss_i / D        D = 1 for SUM, see denominator for MEAN
 *   grad_ij         = s_i w_i de_ij/dx_ij         s_i = grad_scale * grad_rows[i] / D
 *
 * logits        [rows, classes], any row stride; f32, f64, bf16 or f16
 * targets       dense: [rows, classes], any row stride, the logits' dtype or u8; 1 is positive, 0
 *               negative. Soft targets t in [0, 1] for binary cross-entropy only:
 *               e = t log(1 + exp(-x)) + (1 - t) log(1 + exp(x)). For focal, other targets give NaN.
 * labels        instead of targets: one label per row, i32, i64 or u8. The class of that index is
 *               positive, the others negative; a negative label other than ignore_index means that
 *               all are negative (background). Exactly one of targets and labels must be given.
 * class_weight  [classes], of the row's label (background rows: 1); with labels only
 * row_weight, ignore_index (with labels), reduction, denominator_value, empty, grad_scale, grad_rows,
 * loss, grad    as in ballast_cross_entropy
 * denominator   default ELEMENTS; POSITIVES needs labels
 * row_loss      [rows]
 * element_loss  [rows, classes], dtype of the logits; data NULL: not wanted
 * alpha         focal: in [0, 1]; default 0.25; negative: a = 1 for all elements
 * gamma         focal: finite, >= 0; default 2
 * Special       x = +-inf: the limit (0, or +inf for the loss). NaN: NaN in that element (and sums).
 * Accuracy      f32, without weights: binary cross-entropy within 4 ULP; focal within 5 (loss) and 6
 *               (gradient) ULP for gamma <= 2, within 10 for gamma <= 5. Soft targets add terms of
 *               both signs in the gradient: ULP of the sum of |terms|.
 * Cost          one read of logits and targets, one write of each output
 * Returns       as ballast_cross_entropy
 * Source        PyTorch nn.functional.binary_cross_entropy_with_logits, torchvision
 *               ops.sigmoid_focal_loss (Lin et al., ICCV 2017) */
typedef struct ballast_binary_cross_entropy_args {
    size_t struct_size;
    ballast_const_tensor logits;
    ballast_const_tensor targets;
    ballast_labels labels;
    const void *class_weight;
    const void *row_weight;
    int64_t ignore_index;
    ballast_reduction reduction;
    ballast_denominator denominator;
    double denominator_value;
    ballast_empty empty;
    double grad_scale;
    const void *grad_rows;
    double *loss;
    void *row_loss;
    ballast_tensor element_loss;
    ballast_tensor grad;
    ballast_error *error;
} ballast_binary_cross_entropy_args;
#define BALLAST_BINARY_CROSS_ENTROPY_ARGS                                                         \
    {sizeof(ballast_binary_cross_entropy_args), BALLAST_NO_TENSOR, BALLAST_NO_TENSOR,             \
     BALLAST_NO_LABELS, NULL, NULL, -100, BALLAST_MEAN, BALLAST_ELEMENTS, 1.0, BALLAST_EMPTY_NAN, \
     1.0, NULL, NULL, NULL, BALLAST_NO_TENSOR, BALLAST_NO_TENSOR, NULL}

BALLAST_API ballast_status
ballast_binary_cross_entropy(const ballast_binary_cross_entropy_args *args,
                             const ballast_exec *exec);
BALLAST_API ballast_status
ballast_binary_cross_entropy_prepare(const ballast_binary_cross_entropy_args *args,
                                     const ballast_exec *exec, ballast_plan *plan);

typedef struct ballast_sigmoid_focal_args {
    size_t struct_size;
    ballast_const_tensor logits;
    ballast_const_tensor targets;
    ballast_labels labels;
    double alpha;
    double gamma;
    const void *class_weight;
    const void *row_weight;
    int64_t ignore_index;
    ballast_reduction reduction;
    ballast_denominator denominator;
    double denominator_value;
    ballast_empty empty;
    double grad_scale;
    const void *grad_rows;
    double *loss;
    void *row_loss;
    ballast_tensor element_loss;
    ballast_tensor grad;
    ballast_error *error;
} ballast_sigmoid_focal_args;
#define BALLAST_SIGMOID_FOCAL_ARGS                                                                \
    {sizeof(ballast_sigmoid_focal_args), BALLAST_NO_TENSOR, BALLAST_NO_TENSOR, BALLAST_NO_LABELS, \
     0.25, 2.0, NULL, NULL, -100, BALLAST_MEAN, BALLAST_ELEMENTS, 1.0, BALLAST_EMPTY_NAN, 1.0,    \
     NULL, NULL, NULL, BALLAST_NO_TENSOR, BALLAST_NO_TENSOR, NULL}

BALLAST_API ballast_status ballast_sigmoid_focal(const ballast_sigmoid_focal_args *args,
                                                 const ballast_exec *exec);
BALLAST_API ballast_status ballast_sigmoid_focal_prepare(const ballast_sigmoid_focal_args *args,
                                                         const ballast_exec *exec,
                                                         ballast_plan *plan);

/* ---- class-balanced weights and losses -------------------------------------------------------- */

/* Effective number of n samples, E_n = (1 - beta^n) / (1 - beta) = sum of beta^k for k < n.
 *
 * beta      in [0, 1]; otherwise the result is NaN
 * n         >= 0; otherwise the result is NaN
 * Accuracy  correctly rounded
 * Source    Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019 */
BALLAST_API double ballast_effective_number(double beta, int64_t n);

typedef enum ballast_empty_class {
    BALLAST_EMPTY_CLASS_ERROR = 0, /* a class without samples is BALLAST_ERR_COUNT */
    BALLAST_EMPTY_CLASS_ZERO = 1,  /* weight 0; the K others' weights sum to K */
    BALLAST_EMPTY_CLASS_ONE = 2    /* as if it had one sample */
} ballast_empty_class;

/* Class-balanced weights  w_c = C (1 / E_{n_c}) / sum_k (1 / E_{n_k}),  so that they sum to C.
 *
 * beta         in [0, 1]: 0 weighs all classes alike, 1 by inverse frequency
 * classes      number of classes, > 0
 * counts       [classes], samples per class, >= 0; or NULL, and then:
 * labels       [label_count], the training labels, from which the samples are counted
 * label_count  >= 0
 * ignore_index labels with this value are not counted
 * counts_out   [classes], the counts; needed with labels (the call allocates nothing), else NULL
 * empty_class  what a class without samples gets; default: an error
 * weights      [classes], f32 or f64 as weights_dtype says; f32 is rounded once from the exact sum
 * Accuracy     f64: 1 ULP; f32: 0.5 ULP and a little
 * Returns      BALLAST_OK, _STRUCT_SIZE, _NULL, _DTYPE, _SHAPE, _ALIGNMENT, _LABEL, _OPTION (beta),
 *              _COUNT (error: class and count)
 * Source       Cui et al., CVPR 2019 */
typedef struct ballast_class_weights_args {
    size_t struct_size;
    double beta;
    int64_t classes;
    const int64_t *counts;
    ballast_labels labels;
    int64_t label_count;
    int64_t ignore_index;
    int64_t *counts_out;
    ballast_empty_class empty_class;
    void *weights;
    ballast_dtype weights_dtype;
    ballast_error *error;
} ballast_class_weights_args;
#define BALLAST_CLASS_WEIGHTS_ARGS                                                                \
    {sizeof(ballast_class_weights_args), 0.999, 0, NULL, BALLAST_NO_LABELS, 0, -100, NULL,        \
     BALLAST_EMPTY_CLASS_ERROR, NULL, BALLAST_F32, NULL}

BALLAST_API ballast_status ballast_class_weights(const ballast_class_weights_args *args);

typedef enum ballast_class_balanced_kind {
    BALLAST_CB_SOFTMAX = 0, /* w_y (-log softmax(x)_y) */
    BALLAST_CB_SIGMOID = 1, /* w_y sum_j -log sigmoid(z_j),  z_j = x_j if j = y, else -x_j */
    BALLAST_CB_FOCAL = 2    /* w_y sum_j (1 - p_j)^gamma (-log p_j),  p_j = sigmoid(z_j); no alpha */
} ballast_class_balanced_kind;

/* Class-balanced loss as the paper's official code defines it: the weight of the true class times
 * the row's loss, divided by the number of rows.
 *
 * kind          softmax (default), sigmoid or focal
 * gamma         focal only; default 2
 * logits, labels, row_loss, grad, grad_scale, grad_rows, loss, ignore_index   as in
 *               ballast_cross_entropy; labels in [0, classes) or ignore_index
 * class_weight  [classes], from ballast_class_weights; must be given
 * reduction     default MEAN, denominator default ROWS, as the official code
 * Accuracy      as the loss it is made of
 * Returns       as ballast_cross_entropy
 * Source        Cui et al., CVPR 2019, and its TensorFlow code */
typedef struct ballast_class_balanced_args {
    size_t struct_size;
    ballast_class_balanced_kind kind;
    double gamma;
    ballast_const_tensor logits;
    ballast_labels labels;
    const void *class_weight;
    int64_t ignore_index;
    ballast_reduction reduction;
    ballast_denominator denominator;
    double denominator_value;
    ballast_empty empty;
    double grad_scale;
    const void *grad_rows;
    double *loss;
    void *row_loss;
    ballast_tensor grad;
    ballast_error *error;
} ballast_class_balanced_args;
#define BALLAST_CLASS_BALANCED_ARGS                                                               \
    {sizeof(ballast_class_balanced_args), BALLAST_CB_SOFTMAX, 2.0, BALLAST_NO_TENSOR,             \
     BALLAST_NO_LABELS, NULL, -100, BALLAST_MEAN, BALLAST_ROWS, 1.0, BALLAST_EMPTY_NAN, 1.0,      \
     NULL, NULL, NULL, BALLAST_NO_TENSOR, NULL}

BALLAST_API ballast_status ballast_class_balanced_loss(const ballast_class_balanced_args *args,
                                                       const ballast_exec *exec);
BALLAST_API ballast_status
ballast_class_balanced_loss_prepare(const ballast_class_balanced_args *args,
                                    const ballast_exec *exec, ballast_plan *plan);

/* ---- weighted reductions ---------------------------------------------------------------------- */

/* Reductions of a vector to one double:
 *
 *   weighted_sum             sum_i w_i x_i
 *   weighted_mean            sum_i w_i x_i / sum_i w_i      (over nothing, or weights of sum 0: NaN)
 *   weighted_sum_of_squares  sum_i w_i x_i^2
 *   dot                      sum_i x_i w_i                  (weights must be given)
 *   weighted_log_sum_exp     log sum_i w_i exp(x_i)         (over nothing: -inf)
 *
 * x         [count]; f32, f64, bf16 or f16
 * weights   [count], dtype of x; data NULL: all 1. Not validated: any values, of any sign.
 * result    one double
 * Special   NaN, and inf - inf: NaN. Log-sum-exp of weights of negative sum: NaN; an element of
 *           weight 0 or logit -inf adds nothing.
 * Accuracy  f32: within 4 ULP (f32) of the sum of |terms|; log-sum-exp: of |max| + |log of the rest|
 * Cost      one read of x and weights
 * Returns   BALLAST_OK, _STRUCT_SIZE, _NULL, _DTYPE, _SHAPE, _ALIGNMENT */
typedef struct ballast_reduce_args {
    size_t struct_size;
    ballast_vector x;
    ballast_vector weights;
    double *result;
    ballast_error *error;
} ballast_reduce_args;
#define BALLAST_REDUCE_ARGS                                                                       \
    {sizeof(ballast_reduce_args), BALLAST_NO_VECTOR, BALLAST_NO_VECTOR, NULL, NULL}

#define BALLAST_DECLARE_REDUCTION(name)                                                           \
    BALLAST_API ballast_status ballast_##name(const ballast_reduce_args *args,                    \
                                              const ballast_exec *exec);                          \
    BALLAST_API ballast_status ballast_##name##_prepare(const ballast_reduce_args *args,          \
                                                        const ballast_exec *exec,                 \
                                                        ballast_plan *plan);
BALLAST_DECLARE_REDUCTION(weighted_sum)
BALLAST_DECLARE_REDUCTION(weighted_mean)
BALLAST_DECLARE_REDUCTION(weighted_sum_of_squares)
BALLAST_DECLARE_REDUCTION(dot)
BALLAST_DECLARE_REDUCTION(weighted_log_sum_exp)
#undef BALLAST_DECLARE_REDUCTION

/* Sums, counts and means of one value per row, by the row's label:
 *
 *   sums[c]   = sum of values[i] over rows with label c     (doubles, added in index order)
 *   counts[c] = number of rows with label c
 *   means[c]  = sums[c] / counts[c]                         (a class without rows: NaN)
 *
 * values        [count]; f32 or f64; data NULL: counts only
 * labels        [values.count or label_count]; in [0, classes) or ignore_index
 * label_count   read only where values are not given
 * sums, counts, means   [classes] each; NULL: not wanted
 * Returns       BALLAST_OK, _STRUCT_SIZE, _NULL, _DTYPE, _SHAPE, _ALIGNMENT, _LABEL */
typedef struct ballast_per_class_args {
    size_t struct_size;
    ballast_vector values;
    ballast_labels labels;
    int64_t label_count;
    int64_t classes;
    int64_t ignore_index;
    double *sums;
    int64_t *counts;
    double *means;
    ballast_error *error;
} ballast_per_class_args;
#define BALLAST_PER_CLASS_ARGS                                                                    \
    {sizeof(ballast_per_class_args), BALLAST_NO_VECTOR, BALLAST_NO_LABELS, 0, 0, -100, NULL,      \
     NULL, NULL, NULL}

BALLAST_API ballast_status ballast_per_class(const ballast_per_class_args *args);

#ifdef __cplusplus
}
#endif

#endif /* BALLAST_BALLAST_H */
