/* SPDX-License-Identifier: MIT */
/* The library is a guest in its host's process: no allocation, no output, errno as it was, little
 * stack, at home in constructors, in forked children and in many threads at once, and gone after
 * dlclose. BALLAST_LIBRARY: path of the shared library that is loaded for the last of these. */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ballast/ballast.h>

#include "sanitized.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Counted allocations ------------------------------------------------------------------- */

static atomic_long allocations;

#if !SANITIZED

/* dlsym may allocate itself, before there is an allocator to ask. */
static _Alignas(64) unsigned char early[4096];
static size_t early_used;

static void *allocate_early(size_t size)
{
    const size_t begin = (early_used + 63) / 64 * 64;

    if (size > sizeof early - begin)
        return NULL;
    early_used = begin + size;
    return early + begin;
}

static bool is_early(const void *p) { return (uintptr_t)p - (uintptr_t)early < sizeof early; }

static _Thread_local bool searching;

static void *next_function(_Atomic(void *) *known, const char *name)
{
    void *function = atomic_load_explicit(known, memory_order_relaxed);

    if (!function) {
        searching = true;
        function = dlsym(RTLD_NEXT, name);
        searching = false;
        atomic_store_explicit(known, function, memory_order_relaxed);
    }
    return function;
}

#define NEXT(result, name, parameters)                                                             \
    static _Atomic(void *) known_;                                                                 \
    result(*next_) parameters;                                                                     \
    void *found_ = next_function(&known_, #name);                                                  \
    memcpy(&next_, &found_, sizeof next_)

void *malloc(size_t size)
{
    atomic_fetch_add(&allocations, 1);
    if (searching)
        return allocate_early(size);
    NEXT(void *, malloc, (size_t));
    return next_(size);
}

void *calloc(size_t count, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    if (searching)
        return allocate_early(count * size); /* static memory: zero */
    NEXT(void *, calloc, (size_t, size_t));
    return next_(count, size);
}

void *realloc(void *p, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    if (is_early(p))
        return NULL;
    NEXT(void *, realloc, (void *, size_t));
    return next_(p, size);
}

void free(void *p)
{
    atomic_fetch_add(&allocations, 1);
    if (is_early(p))
        return;
    NEXT(void, free, (void *));
    next_(p);
}

int posix_memalign(void **p, size_t alignment, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    NEXT(int, posix_memalign, (void **, size_t, size_t));
    return next_(p, alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    NEXT(void *, aligned_alloc, (size_t, size_t));
    return next_(alignment, size);
}

#endif

/* ---- Problems ------------------------------------------------------------------------------ */

/* Short rows; rows of two chunks; a row of more chunks than a kernel remembers; enough rows for
 * several tasks; and for many leaves, of tiles that stay rows. */
typedef struct shape {
    int64_t rows, classes;
    ballast_dtype dtype;
} shape;

#define SHAPES_IN(dtype) {50, 7, dtype}, {2, 3000, dtype}, {1, 300000, dtype}, {9000, 11, dtype}, \
    {700, 128, dtype}
static const shape shapes[] = {SHAPES_IN(BALLAST_F32), SHAPES_IN(BALLAST_F64),
                               SHAPES_IN(BALLAST_BF16)};
enum { SHAPES = sizeof shapes / sizeof shapes[0], MAX_ELEMENTS = 300000, MAX_ROWS = 9000 };

static float x32[MAX_ELEMENTS], targets32[MAX_ELEMENTS];
static double x64[MAX_ELEMENTS], targets64[MAX_ELEMENTS];
static uint16_t x16[MAX_ELEMENTS], targets16[MAX_ELEMENTS];
static int64_t labels[MAX_ROWS];

static uint16_t upper_half(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static void fill_inputs(void)
{
    for (int i = 0; i < MAX_ELEMENTS; i++) {
        x64[i] = (double)(i * 7919LL % 10007) * 0x1p-9 - 9.0;
        x32[i] = (float)x64[i];
        targets64[i] = (double)(i * 31LL % 101) * 0x1p-7;
        targets32[i] = (float)targets64[i];
        x16[i] = upper_half(x32[i]);
        targets16[i] = upper_half(targets32[i]);
    }
    for (int i = 0; i < MAX_ROWS; i++)
        labels[i] = i % 7;
}

/* What one thread writes. The plan lies here, not on the stack that is measured. */
typedef struct outputs {
    int64_t elements; /* room in each matrix */
    double *matrix, *grad;
    double rows[MAX_ROWS], loss;
    int64_t counts[16];
    char text[160];
    ballast_error error;
    ballast_plan plan;
} outputs;

static outputs *new_outputs(int64_t elements)
{
    outputs *o = calloc(1, sizeof *o);

    if (!o)
        abort();
    o->elements = elements;
    o->matrix = calloc((size_t)elements, sizeof *o->matrix);
    o->grad = calloc((size_t)elements, sizeof *o->grad);
    if (!o->matrix || !o->grad)
        abort();
    return o;
}

static void free_outputs(outputs *o)
{
    free(o->matrix);
    free(o->grad);
    free(o);
}

static void clear(outputs *o)
{
    memset(o->matrix, 0, (size_t)o->elements * sizeof *o->matrix);
    memset(o->grad, 0, (size_t)o->elements * sizeof *o->grad);
    memset(o->rows, 0, sizeof o->rows);
    o->loss = 0.0;
    memset(o->counts, 0, sizeof o->counts);
}

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i += 8) { /* everything here is made of eight bytes */
        uint64_t word;

        memcpy(&word, (const char *)data + i, sizeof word);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return hash;
}

static uint64_t hash_of(const outputs *o, const shape *s)
{
    const size_t size = (size_t)(s->rows * s->classes) * sizeof(double);
    uint64_t hash = hash_bytes(1, o->matrix, size);

    hash = hash_bytes(hash, o->grad, size);
    hash = hash_bytes(hash, o->rows, (size_t)s->rows * sizeof(double));
    hash = hash_bytes(hash, o->counts, sizeof o->counts);
    return hash_bytes(hash, &o->loss, sizeof o->loss);
}

/* ---- Every call ---------------------------------------------------------------------------- */

typedef ballast_status call_function(const shape *s, outputs *o, const ballast_exec *exec);

#define CALL(name) static ballast_status name(const shape *s, outputs *o, const ballast_exec *exec)

static const char *dtype_name(const shape *s)
{
    return s->dtype == BALLAST_F64 ? "f64" : s->dtype == BALLAST_F32 ? "f32" : "bf16";
}

/* What is one number per row or class. */
static ballast_dtype row_dtype(const shape *s)
{
    return s->dtype == BALLAST_F64 ? BALLAST_F64 : BALLAST_F32;
}

static const void *x_of(const shape *s)
{
    return s->dtype == BALLAST_F64   ? (const void *)x64
           : s->dtype == BALLAST_F32 ? (const void *)x32
                                     : x16;
}

static const void *targets_of(const shape *s)
{
    return s->dtype == BALLAST_F64   ? (const void *)targets64
           : s->dtype == BALLAST_F32 ? (const void *)targets32
                                     : targets16;
}

static ballast_const_tensor input(const shape *s, const void *data)
{
    return (ballast_const_tensor){data, s->dtype, s->rows, s->classes, 1, s->classes, 1};
}

static ballast_tensor output(const shape *s, double *data)
{
    return (ballast_tensor){data, s->dtype, s->rows, s->classes, 1, s->classes, 1};
}

/* The same numbers as classes in planes. */
static ballast_const_tensor in_planes(ballast_const_tensor t)
{
    t.inner = t.class_stride = t.outer;
    t.outer = 1;
    return t;
}

static ballast_tensor out_in_planes(ballast_tensor t)
{
    t.inner = t.class_stride = t.outer;
    t.outer = 1;
    return t;
}

#define SOFTMAX(name)                                                                              \
    CALL(call_##name)                                                                              \
    {                                                                                              \
        ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;                                             \
                                                                                                   \
        a.input = input(s, x_of(s));                                                              \
        a.output = output(s, o->matrix);                                                           \
        return ballast_##name(&a, exec);                                                           \
    }
SOFTMAX(softmax)
SOFTMAX(log_softmax)

CALL(call_log_sum_exp)
{
    ballast_log_sum_exp_args a = BALLAST_LOG_SUM_EXP_ARGS;

    a.input = input(s, x_of(s));
    a.output = o->rows;
    return ballast_log_sum_exp(&a, exec);
}

#define BACKWARD(name)                                                                             \
    CALL(call_##name)                                                                              \
    {                                                                                              \
        ballast_softmax_backward_args a = BALLAST_SOFTMAX_BACKWARD_ARGS;                           \
                                                                                                   \
        a.output = input(s, targets_of(s));                                                 \
        a.grad_output = input(s, x_of(s));                                                        \
        a.grad_input = output(s, o->grad);                                                         \
        return ballast_##name(&a, exec);                                                           \
    }
BACKWARD(softmax_backward)
BACKWARD(log_softmax_backward)

#define SET_LOSS(a)                                                                                \
    a.logits = input(s, x_of(s));                                                                 \
    a.loss = &o->loss;                                                                             \
    a.row_loss = o->rows;                                                                          \
    a.grad = output(s, o->grad);                                                                   \
    a.error = &o->error

CALL(call_cross_entropy)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    SET_LOSS(a);
    a.labels = ballast_labels_i64(labels);
    return ballast_cross_entropy(&a, exec);
}

CALL(call_cross_entropy_loss)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    SET_LOSS(a);
    a.grad.data = NULL;
    a.labels = ballast_labels_i64(labels);
    return ballast_cross_entropy(&a, exec);
}

#define SOFTMAX_PLANES(name)                                                                       \
    CALL(call_##name##_planes)                                                                     \
    {                                                                                              \
        ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;                                             \
                                                                                                   \
        a.input = in_planes(input(s, x_of(s)));                                                    \
        a.output = out_in_planes(output(s, o->matrix));                                            \
        return ballast_##name(&a, exec);                                                           \
    }
SOFTMAX_PLANES(softmax)
SOFTMAX_PLANES(log_softmax)

#define BACKWARD_PLANES(name)                                                                      \
    CALL(call_##name##_planes)                                                                     \
    {                                                                                              \
        ballast_softmax_backward_args a = BALLAST_SOFTMAX_BACKWARD_ARGS;                           \
                                                                                                   \
        a.output = in_planes(input(s, targets_of(s)));                                             \
        a.grad_output = in_planes(input(s, x_of(s)));                                              \
        a.grad_input = out_in_planes(output(s, o->grad));                                          \
        return ballast_##name(&a, exec);                                                           \
    }
BACKWARD_PLANES(softmax_backward)
BACKWARD_PLANES(log_softmax_backward)

CALL(call_cross_entropy_planes)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    SET_LOSS(a);
    a.logits = in_planes(a.logits);
    a.grad = out_in_planes(a.grad);
    a.labels = ballast_labels_i64(labels);
    return ballast_cross_entropy(&a, exec);
}

#define SIGMOID(call, name, Name, targets_)                                                        \
    CALL(call)                                                                                     \
    {                                                                                              \
        ballast_##name##_args a = Name;                                                            \
                                                                                                   \
        SET_LOSS(a);                                                                               \
        a.element_loss = output(s, o->matrix);                                                     \
        targets_;                                                                                  \
        return ballast_##name(&a, exec);                                                           \
    }
#define LABELS a.labels = ballast_labels_i64(labels)
#define DENSE a.targets = input(s, targets_of(s))
SIGMOID(call_bce_labels, binary_cross_entropy, BALLAST_BINARY_CROSS_ENTROPY_ARGS, LABELS)
SIGMOID(call_bce_dense, binary_cross_entropy, BALLAST_BINARY_CROSS_ENTROPY_ARGS, DENSE)
SIGMOID(call_focal_labels, sigmoid_focal, BALLAST_SIGMOID_FOCAL_ARGS, LABELS)
SIGMOID(call_focal_dense, sigmoid_focal, BALLAST_SIGMOID_FOCAL_ARGS, DENSE)
SIGMOID(call_focal_gamma, sigmoid_focal, BALLAST_SIGMOID_FOCAL_ARGS, LABELS; a.gamma = 3.7)

CALL(call_class_balanced)
{
    ballast_class_balanced_args a = BALLAST_CLASS_BALANCED_ARGS;
    ballast_status status = BALLAST_OK;

    SET_LOSS(a);
    a.labels = ballast_labels_i64(labels);
    a.class_weight = row_dtype(s) == BALLAST_F64 ? (const void *)targets64 : targets32;
    for (int kind = BALLAST_CB_SOFTMAX; kind <= BALLAST_CB_FOCAL && status == BALLAST_OK; kind++) {
        a.kind = (ballast_class_balanced_kind)kind;
        status = ballast_class_balanced_loss(&a, exec);
    }
    return status;
}

#define REDUCTION(name)                                                                            \
    CALL(call_##name)                                                                              \
    {                                                                                              \
        const int64_t n = s->rows * s->classes;                                                    \
        ballast_reduce_args a = BALLAST_REDUCE_ARGS;                                               \
                                                                                                   \
        a.x = (ballast_vector){x_of(s), s->dtype, n};                                              \
        a.weights = (ballast_vector){targets_of(s), s->dtype, n};                                  \
        a.result = &o->loss;                                                                       \
        return ballast_##name(&a, exec);                                                           \
    }
REDUCTION(weighted_sum)
REDUCTION(weighted_mean)
REDUCTION(weighted_sum_of_squares)
REDUCTION(dot)
REDUCTION(weighted_log_sum_exp)

CALL(call_sum_without_weights)
{
    const int64_t n = s->rows * s->classes;
    ballast_reduce_args a = BALLAST_REDUCE_ARGS;

    a.x = (ballast_vector){x_of(s), s->dtype, n};
    a.result = &o->loss;
    return ballast_weighted_sum(&a, exec);
}

CALL(call_plan)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    SET_LOSS(a);
    a.labels = ballast_labels_i64(labels);
    ballast_status status = ballast_cross_entropy_prepare(&a, exec, &o->plan);
    if (status == BALLAST_OK)
        status = ballast_plan_rows(&o->plan, 0, ballast_plan_row_count(&o->plan));
    return status == BALLAST_OK ? ballast_plan_finish(&o->plan) : status;
}

CALL(call_class_weights)
{
    ballast_class_weights_args a = BALLAST_CLASS_WEIGHTS_ARGS;

    (void)exec;
    a.classes = 7;
    a.labels = ballast_labels_i64(labels);
    a.label_count = s->rows;
    a.counts_out = o->counts;
    a.empty_class = BALLAST_EMPTY_CLASS_ZERO;
    a.weights = o->matrix;
    a.weights_dtype = row_dtype(s);
    o->loss = ballast_effective_number(0.999, s->rows);
    return ballast_class_weights(&a);
}

CALL(call_per_class)
{
    ballast_per_class_args a = BALLAST_PER_CLASS_ARGS;

    (void)exec;
    a.values = row_dtype(s) == BALLAST_F64 ? ballast_vector_f64(x64, s->rows)
                                           : ballast_vector_f32(x32, s->rows);
    a.labels = ballast_labels_i64(labels);
    a.classes = 7;
    a.sums = o->matrix;
    a.counts = o->counts;
    a.means = o->rows;
    return s->rows >= 7 ? ballast_per_class(&a) : BALLAST_OK;
}

/* A wrong label, its message, and questions about implementations. */
CALL(call_error)
{
    static const int32_t wrong[MAX_ROWS] = {123456789};
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    SET_LOSS(a);
    a.labels = ballast_labels_i32(wrong);
    const ballast_status status = ballast_cross_entropy(&a, exec);
    ballast_error_message(&o->error, o->text, sizeof o->text);
    ballast_implementation_default(o->text, sizeof o->text);
    for (int i = 0; ballast_implementation_at(i); i++)
        ballast_implementation_supported(ballast_implementation_at(i), o->text, sizeof o->text);
    return status == BALLAST_ERR_LABEL ? BALLAST_OK
           : status == BALLAST_OK      ? BALLAST_ERR_LABEL
                                       : status;
}

typedef struct call {
    const char *name;
    call_function *run;
} call;

static const call calls[] = {
    {"softmax", call_softmax},
    {"log_softmax", call_log_softmax},
    {"log_sum_exp", call_log_sum_exp},
    {"softmax_backward", call_softmax_backward},
    {"log_softmax_backward", call_log_softmax_backward},
    {"cross_entropy", call_cross_entropy},
    {"cross_entropy, loss only", call_cross_entropy_loss},
    {"softmax in planes", call_softmax_planes},
    {"log_softmax in planes", call_log_softmax_planes},
    {"softmax_backward in planes", call_softmax_backward_planes},
    {"log_softmax_backward in planes", call_log_softmax_backward_planes},
    {"cross_entropy in planes", call_cross_entropy_planes},
    {"binary_cross_entropy, labels", call_bce_labels},
    {"binary_cross_entropy, dense", call_bce_dense},
    {"sigmoid_focal, labels", call_focal_labels},
    {"sigmoid_focal, dense", call_focal_dense},
    {"sigmoid_focal, gamma 3.7", call_focal_gamma},
    {"class_balanced_loss", call_class_balanced},
    {"weighted_sum", call_weighted_sum},
    {"weighted_mean", call_weighted_mean},
    {"weighted_sum_of_squares", call_weighted_sum_of_squares},
    {"dot", call_dot},
    {"weighted_log_sum_exp", call_weighted_log_sum_exp},
    {"weighted_sum without weights", call_sum_without_weights},
    {"a plan of cross_entropy", call_plan},
    {"class_weights", call_class_weights},
    {"per_class", call_per_class},
    {"an error", call_error},
};
enum { CALLS = sizeof calls / sizeof calls[0] };

static outputs *out; /* of the main thread */

static bool has_f64;

/* Every call on every shape that the library has and `most` elements hold. */
#define FOR_CALLS(c, s, most)                                                                      \
    for (const shape *s = shapes; s < shapes + SHAPES; s++)                                        \
        for (const call *c = calls; c < calls + CALLS; c++)                                        \
            if ((s->dtype != BALLAST_F64 || has_f64) && s->rows * s->classes <= (most))

/* Each implementation of this library; those that do not run here are named. */
static bool runs_here(const ballast_implementation *implementation)
{
    char reason[128];

    if (ballast_implementation_supported(implementation, reason, sizeof reason))
        return true;
    print_message("skipped %s: %s\n", ballast_implementation_name(implementation), reason);
    return false;
}

static ballast_exec exec_of(const ballast_implementation *implementation)
{
    ballast_exec exec = BALLAST_EXEC;

    exec.implementation = implementation;
    return exec;
}

#define FOR_IMPLEMENTATIONS(exec)                                                                  \
    for (int i_ = 0; ballast_implementation_at(i_); i_++)                                          \
        for (ballast_exec exec = exec_of(ballast_implementation_at(i_)),                           \
                          *once_ = runs_here(exec.implementation) ? &exec : NULL;                  \
             once_; once_ = NULL)

/* ---- Allocation, output, errno ------------------------------------------------------------- */

static void run_on_caller(void *context, int64_t tasks, void (*task)(void *, int64_t), void *arg)
{
    *(int64_t *)context += tasks;
    for (int64_t i = 0; i < tasks; i++)
        task(arg, i);
}

/* Returns how many allocations a call makes, and checks that errno is as it was. */
static long allocations_of(const call *c, const shape *s, const ballast_exec *exec)
{
    errno = 123;
    const long before = atomic_load(&allocations);
    const ballast_status status = c->run(s, out, exec);
    const long after = atomic_load(&allocations);
    const int number = errno;
    if (status != BALLAST_OK || number != 123)
        fail_msg("%s: %lld x %lld: %s, errno %d", c->name, (long long)s->rows,
                 (long long)s->classes, ballast_status_name(status), number);
    return after - before;
}

/* BALLAST_PROFILE is read inside a call, by what reads it here. */
static long allocations_of_profiles(void)
{
    char path[] = "/tmp/ballast-guest-XXXXXX";
    const int file = mkstemp(path);

    assert_true(file >= 0);
    close(file);
    const long before = atomic_load(&allocations);
    const ballast_status refused = ballast_profile_load(path);
    const ballast_status saved = ballast_profile_save(path);
    const ballast_status loaded = ballast_profile_load(path);
    ballast_profile_describe(out->text, sizeof out->text);
    ballast_profile_reset();
    const long count = atomic_load(&allocations) - before;
    unlink(path);
    assert_int_equal(refused, BALLAST_ERR_PROFILE);
    assert_int_equal(saved, BALLAST_OK);
    assert_int_equal(loaded, BALLAST_OK);
    return count;
}

static void no_allocation(void **state)
{
    int64_t tasks = 0;
    const ballast_parallel parallel = {&tasks, run_on_caller, 4};

    (void)state;
#if SANITIZED
    print_message("skipped: a sanitizer has taken malloc\n");
    skip();
#else
    const long before = atomic_load(&allocations);
    void *volatile p = malloc(1);
    free(p);
    assert_int_equal(atomic_load(&allocations) - before, 2);
#endif
    FOR_IMPLEMENTATIONS(exec)
    FOR_CALLS(c, s, MAX_ELEMENTS)
    {
        exec.parallel = NULL;
        const long serial = allocations_of(c, s, &exec);
        exec.parallel = &parallel;
        const long shared = allocations_of(c, s, &exec);
        if (serial != 0 || shared != 0)
            fail_msg("%s: %ld and %ld allocations", c->name, serial, shared);
    }
    assert_true(tasks > 100); /* the parallel form was one */
    assert_int_equal(allocations_of_profiles(), 0);
}

static void no_output(void **state)
{
    FILE *file = tmpfile();
    const int kept[2] = {dup(STDOUT_FILENO), dup(STDERR_FILENO)};

    (void)state;
    assert_non_null(file);
    fflush(stdout);
    fflush(stderr);
    assert_true(dup2(fileno(file), STDOUT_FILENO) >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    ballast_status worst = BALLAST_OK;
    FOR_CALLS(c, s, MAX_ELEMENTS)
    {
        const ballast_status status = c->run(s, out, NULL);
        worst = status != BALLAST_OK ? status : worst;
    }
    fflush(stdout);
    fflush(stderr);
    dup2(kept[0], STDOUT_FILENO);
    dup2(kept[1], STDERR_FILENO);
    close(kept[0]);
    close(kept[1]);
    const off_t written = lseek(fileno(file), 0, SEEK_END);
    fclose(file);
    assert_int_equal(worst, BALLAST_OK);
    assert_int_equal(written, 0);
}

/* ---- Before main, after fork --------------------------------------------------------------- */

static uint64_t in_constructor[CALLS * SHAPES];

static void hash_calls(uint64_t *hashes, outputs *o, int64_t most)
{
    FOR_CALLS(c, s, most)
    {
        clear(o);
        const ballast_status status = c->run(s, o, NULL);
        hashes[(s - shapes) * CALLS + (c - calls)] = hash_of(o, s) + (uint64_t)status;
    }
}

enum { FEW_ELEMENTS = 6000 };

__attribute__((constructor)) static void use_before_main(void)
{
    const shape small = {50, 7, BALLAST_F64};

    fill_inputs();
    out = new_outputs(MAX_ELEMENTS);
    has_f64 = call_softmax(&small, out, NULL) == BALLAST_OK;
    hash_calls(in_constructor, out, MAX_ELEMENTS);
}

static void constructor(void **state)
{
    static uint64_t now[CALLS * SHAPES];

    (void)state;
    if (!has_f64)
        print_message("without f64: not in this library\n");
    hash_calls(now, out, MAX_ELEMENTS);
    assert_memory_equal(now, in_constructor, sizeof now);
}

/* A child and its child. */
static void forks(void **state)
{
    static uint64_t now[CALLS * SHAPES];
    int status = -1;

    (void)state;
    fflush(stdout);
    fflush(stderr);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const pid_t grandchild = fork();

        hash_calls(now, out, MAX_ELEMENTS);
        const bool same = memcmp(now, in_constructor, sizeof now) == 0;
        if (grandchild == 0)
            _exit(same ? 0 : 1);
        if (grandchild < 0 || waitpid(grandchild, &status, 0) != grandchild)
            _exit(2);
        _exit(same && WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- Threads ------------------------------------------------------------------------------- */

enum { THREADS = 64 };

static void *hash_on_thread(void *arg)
{
    outputs *o = new_outputs(FEW_ELEMENTS);

    hash_calls(arg, o, FEW_ELEMENTS);
    free_outputs(o);
    return NULL;
}

static void many_threads(void **state)
{
    static uint64_t hashes[THREADS][CALLS * SHAPES], expected[CALLS * SHAPES];
    pthread_t threads[THREADS];

    (void)state;
    hash_on_thread(expected);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hash_on_thread, hashes[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++)
        assert_memory_equal(hashes[i], expected, sizeof expected);
}

/* ---- Stack --------------------------------------------------------------------------------- */

enum { SMALL_STACK = 128 << 10, PAINTED_STACK = 512 << 10, PAINT = 0x5c };

/* What a call may take, its plan included. Kernels are compiled alike in every build type, so this
 * holds of debug builds too. */
enum { STACK_BOUND = 80 << 10, HALF_STACK_BOUND = 84 << 10, PLANES_STACK_BOUND = 100 << 10 };

static size_t stack_bound(const call *c, const shape *s)
{
    if (strstr(c->name, "in planes"))
        return PLANES_STACK_BOUND;
    return s->dtype == BALLAST_BF16 ? HALF_STACK_BOUND : STACK_BOUND;
}

typedef struct stack_run {
    const call *c;
    const shape *s;
    const ballast_exec *exec;
    ballast_status status;
    const unsigned char *painted; /* lowest byte of the stack; NULL: not measured */
    size_t used;
} stack_run;

static void *run_on_stack(void *arg)
{
    stack_run *r = arg;
    const unsigned char *const top = __builtin_frame_address(0);
    const unsigned char *lowest = r->painted;

    r->status = r->c->run(r->s, out, r->exec);
    while (lowest && lowest < top && *lowest == PAINT)
        lowest++;
    r->used = lowest ? (size_t)(top - lowest) : 0;
    return NULL;
}

static void run_thread(stack_run *r, const pthread_attr_t *attributes)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, attributes, run_on_stack, r), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (r->status != BALLAST_OK)
        fail_msg("%s: %s", r->c->name, ballast_status_name(r->status));
}

static void small_stack(void **state)
{
    pthread_attr_t attributes;

    (void)state;
    assert_int_equal(pthread_attr_init(&attributes), 0);
    if (pthread_attr_setstacksize(&attributes, SMALL_STACK) != 0 || SANITIZED) {
        print_message("skipped: no thread with so small a stack here\n");
        skip();
    }
    FOR_IMPLEMENTATIONS(exec)
    FOR_CALLS(c, s, MAX_ELEMENTS)
    {
        stack_run r = {c, s, &exec, BALLAST_OK, NULL, 0};

        run_thread(&r, &attributes);
    }
    pthread_attr_destroy(&attributes);
}

/* The stack is painted, and what has lost its paint was used. */
static void stack_use(void **state)
{
    unsigned char *stack =
        mmap(NULL, PAINTED_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_t attributes;

    (void)state;
    if (SANITIZED) {
        print_message("skipped: sanitizers have stacks of their own\n");
        skip();
    }
    assert_true(stack != MAP_FAILED);
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, PAINTED_STACK), 0);
    FOR_IMPLEMENTATIONS(exec)
    {
        stack_run most = {0};

        FOR_CALLS(c, s, MAX_ELEMENTS)
        {
            stack_run r = {c, s, &exec, BALLAST_OK, stack, 0};

            memset(stack, PAINT, PAINTED_STACK);
            run_thread(&r, &attributes);
            if (r.used > most.used)
                most = r;
            if (r.used > stack_bound(c, s))
                fail_msg("%s takes %zu bytes of stack, %lld x %lld", c->name, r.used,
                         (long long)s->rows, (long long)s->classes);
        }
        print_message("%s: at most %zu bytes of stack, by %s, %lld x %lld, %s\n",
                      ballast_implementation_name(exec.implementation), most.used, most.c->name,
                      (long long)most.s->rows, (long long)most.s->classes,
                      dtype_name(most.s));
    }
    pthread_attr_destroy(&attributes);
    munmap(stack, PAINTED_STACK);
}

/* ---- Loaded and unloaded ------------------------------------------------------------------- */

#if defined(__x86_64__)
static uint64_t control_word(void)
{
    uint32_t word;

    __asm__ volatile("stmxcsr %0" : "=m"(word));
    return word;
}
static void set_control_word(uint64_t value)
{
    const uint32_t word = (uint32_t)value;

    __asm__ volatile("ldmxcsr %0" : : "m"(word));
}
enum { OTHER_CONTROL_WORD = 0x5fa1 }; /* round up, inexact and invalid seen */
#elif defined(__aarch64__)
static uint64_t control_word(void)
{
    uint64_t word;

    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
}
static void set_control_word(uint64_t word) { __asm__ volatile("msr fpcr, %0" : : "r"(word)); }
enum { OTHER_CONTROL_WORD = 1 << 22 };
#else
static uint64_t control_word(void) { return 0; }
static void set_control_word(uint64_t word) { (void)word; }
enum { OTHER_CONTROL_WORD = 0 };
#endif

typedef ballast_status cross_entropy_function(const ballast_cross_entropy_args *,
                                              const ballast_exec *);

/* The calls are made with the control word that was found; dlopen and dlclose, with `word`. */
static void *load(const char *path, uint64_t word)
{
    const uint64_t own = control_word();

    set_control_word(word);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const uint64_t after = control_word();
    set_control_word(own);
    if (!library)
        fail_msg("%s", dlerror());
    assert_true(after == word);
    return library;
}

static void unload(void *library, uint64_t word)
{
    const uint64_t own = control_word();

    set_control_word(word);
    const int status = dlclose(library);
    const uint64_t after = control_word();
    set_control_word(own);
    assert_int_equal(status, 0);
    assert_true(after == word);
}

static void use(void *library, outputs *o)
{
    const shape small = {50, 7, BALLAST_F32}, *s = &small;
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    cross_entropy_function *function;
    void *symbol = dlsym(library, "ballast_cross_entropy");

    assert_non_null(symbol);
    memcpy(&function, &symbol, sizeof function);
    SET_LOSS(a);
    a.labels = ballast_labels_i64(labels);
    assert_int_equal(function(&a, NULL), BALLAST_OK);
}

static void loaded_and_unloaded(void **state)
{
    const char *path = getenv("BALLAST_LIBRARY");
    const uint64_t own = control_word();
    double loss = 0.0;

    (void)state;
    if (!path) {
        print_message("skipped: BALLAST_LIBRARY names no shared library\n");
        skip();
    }
    void *present = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    for (int i = 0; i < 100; i++) {
        const uint64_t word = i % 2 ? own : OTHER_CONTROL_WORD;
        void *library = load(path, word);

        clear(out);
        use(library, out);
        assert_true(i == 0 || out->loss == loss);
        loss = out->loss;
        unload(library, word);
        if (!present && !SANITIZED)
            assert_null(dlopen(path, RTLD_NOW | RTLD_NOLOAD)); /* it is gone */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_allocation), cmocka_unit_test(no_output),
        cmocka_unit_test(constructor),   cmocka_unit_test(forks),
        cmocka_unit_test(many_threads),  cmocka_unit_test(small_stack),
        cmocka_unit_test(stack_use),     cmocka_unit_test(loaded_and_unloaded),
    };
    const int failed = cmocka_run_group_tests_name("guest", tests, NULL, NULL);

    free_outputs(out);
    return failed;
}
