/* SPDX-License-Identifier: MIT */
/* Tensors [outer, classes, inner]: every result has the bits of the matrix [outer * inner, classes] that
 * holds the same rows; nothing outside of a tensor is read or written.
 *
 * Arrays lie between pages that cannot be touched, at their first or their last byte by turns. Gaps
 * between rows and planes hold a pattern that must stay. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ballast/ballast.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef enum operation {
    SOFTMAX, LOG_SOFTMAX, LOG_SUM_EXP, SOFTMAX_BACKWARD, LOG_SOFTMAX_BACKWARD, CROSS_ENTROPY,
    OPERATIONS
} operation;

static const char *const operation_names[OPERATIONS] = {
    "softmax", "log_softmax", "log_sum_exp", "softmax_backward", "log_softmax_backward",
    "cross_entropy"};

/* What is run; `choice` settles everything else: values, gaps, in place, options, how it is split. */
typedef struct setting {
    operation operation;
    ballast_dtype dtype;
    int64_t outer, classes, inner;
    uint64_t choice;
} setting;

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int64_t below(uint64_t *state, int64_t n) { return (int64_t)(next(state) % (uint64_t)n); }

static size_t size_of(ballast_dtype dtype) { return dtype == BALLAST_F32 ? 4 : 8; }

/* ---- Memory ---------------------------------------------------------------------------------- */

enum { PATTERN = 0x5a, ARRAYS = 10, MOST_BYTES = 24 << 20 };

static unsigned char *memory[ARRAYS]; /* MOST_BYTES each, pages that cannot be touched around it */
static int taken;

static int make_memory(void **state)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    (void)state;
    for (int i = 0; i < ARRAYS; i++) {
        unsigned char *p = mmap(NULL, MOST_BYTES + 2 * page, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (p == MAP_FAILED || mprotect(p + page, MOST_BYTES, PROT_READ | PROT_WRITE) != 0)
            return -1;
        memory[i] = p + page;
    }
    return 0;
}

/* An array of so many bytes, filled with the pattern. */
static void *take(size_t bytes, int at_the_end)
{
    unsigned char *p = memory[taken++];

    assert_true(taken <= ARRAYS && bytes <= MOST_BYTES);
    if (at_the_end)
        p += MOST_BYTES - bytes;
    memset(p, PATTERN, bytes);
    return p;
}

/* ---- Tensors --------------------------------------------------------------------------------- */

static size_t span_of(const ballast_tensor *t)
{
    if (t->outer == 0 || t->classes == 0 || t->inner == 0)
        return 0;
    return (size_t)((t->outer - 1) * t->outer_stride + (t->classes - 1) * t->class_stride + t->inner);
}

static unsigned char *element(const ballast_tensor *t, int64_t row, int64_t c)
{
    const int64_t o = row / t->inner, i = row % t->inner;

    return (unsigned char *)t->data
         + (size_t)(o * t->outer_stride + c * t->class_stride + i) * size_of(t->dtype);
}

/* Without gaps, or with some between the planes, the outer indices, or both. */
static ballast_tensor make_tensor(const setting *s, uint64_t *choice)
{
    ballast_tensor t = {NULL, s->dtype, s->outer, s->classes, s->inner, 0, 0};

    t.class_stride = s->inner + (next(choice) % 2 ? below(choice, 20) : 0);
    t.outer_stride = s->classes > 0 ? (s->classes - 1) * t.class_stride + s->inner : 0;
    if (next(choice) % 2)
        t.outer_stride += below(choice, 40);
    t.data = take(span_of(&t) * size_of(t.dtype), next(choice) % 2);
    return t;
}

static ballast_tensor make_matrix(const setting *s)
{
    ballast_tensor t = {NULL, s->dtype, s->outer * s->inner, s->classes, 1, s->classes, 1};

    t.data = take(span_of(&t) * size_of(t.dtype), 0);
    return t;
}

static ballast_const_tensor as_input(ballast_tensor t)
{
    const ballast_const_tensor c = {t.data,  t.dtype,        t.outer,       t.classes,
                                    t.inner, t.outer_stride, t.class_stride};
    return c;
}

/* The rows of a matrix into those of a tensor, or back. */
static void copy_rows(const ballast_tensor *from, const ballast_tensor *to, int64_t rows)
{
    const size_t size = size_of(from->dtype);

    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < from->classes; c++)
            memcpy(element(to, i, c), element(from, i, c), size);
}

/* What lies in the gaps; the elements are overwritten. */
static int gaps_are_whole(const ballast_tensor *t, int64_t rows)
{
    const size_t bytes = span_of(t) * size_of(t->dtype);
    const unsigned char *p = t->data;

    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < t->classes; c++)
            memset(element(t, i, c), PATTERN, size_of(t->dtype));
    for (size_t b = 0; b < bytes; b++)
        if (p[b] != PATTERN)
            return 0;
    return 1;
}

/* ---- Values ---------------------------------------------------------------------------------- */

static void store(const ballast_tensor *t, int64_t row, int64_t c, double x)
{
    if (t->dtype == BALLAST_F32) {
        const float narrow = (float)x;

        memcpy(element(t, row, c), &narrow, sizeof narrow);
    } else {
        memcpy(element(t, row, c), &x, sizeof x);
    }
}

/* In [-4, 4), of 10 bits: equal maxima are common. */
static double value(uint64_t *state) { return (double)below(state, 1024) / 128.0 - 4.0; }

/* Half of the rows are ordinary; the others by turns what takes another path. */
static void fill_row(const ballast_tensor *t, int64_t row, int specials, uint64_t *state)
{
    const int64_t kind = specials ? below(state, 24) : 23, n = t->classes;
    const double offset = kind == 0 ? 70000.0 : kind == 1 ? -1e30 : kind == 2 ? 1e5 : 0.0;

    for (int64_t c = 0; c < n; c++) {
        double x = value(state) + offset;

        if (kind == 3 || (kind == 4 && below(state, 3)))
            x = -(double)INFINITY;
        if (kind == 5)
            x = below(state, 2) ? 0.0 : -0.0;
        if (kind == 6)
            x *= 30.0;
        if (kind == 7)
            x *= 1e-42;
        store(t, row, c, x);
    }
    if (n == 0)
        return;
    const int64_t one = below(state, n);
    if (kind == 8)
        store(t, row, one, (double)NAN);
    if (kind == 9)
        store(t, row, one, (double)INFINITY);
    if (kind == 10)
        store(t, row, one, 150.0); /* ahead of a label by more than f32 holds */
    if (kind == 11)
        store(t, row, one, 80000.0);
    if (kind == 12)
        store(t, row, one, -1e20);
    if (kind == 13) {
        store(t, row, one, (double)NAN);
        store(t, row, below(state, n), (double)INFINITY);
    }
}

/* Of the softmax whose backward is asked for: any numbers will do. */
static ballast_tensor filled_matrix(const setting *s, int specials, uint64_t *choice)
{
    const ballast_tensor m = make_matrix(s);

    for (int64_t i = 0; i < m.outer; i++)
        fill_row(&m, i, specials, choice);
    return m;
}

/* ---- Losses ---------------------------------------------------------------------------------- */

/* What cross-entropy has beside its tensors. */
typedef struct loss_arrays {
    void *labels, *class_weight, *row_weight, *grad_rows;
} loss_arrays;

static void fill_weights(const setting *s, void *to, int64_t n, uint64_t *state)
{
    for (int64_t i = 0; i < n; i++) {
        const double w = below(state, 8) ? fabs(value(state)) : 0.0;

        if (s->dtype == BALLAST_F32)
            ((float *)to)[i] = (float)w;
        else
            ((double *)to)[i] = w;
    }
}

static loss_arrays make_loss_arrays(const setting *s, uint64_t *choice)
{
    const int64_t rows = s->outer * s->inner;
    const size_t size = size_of(s->dtype);
    loss_arrays a = {NULL, NULL, NULL, NULL};

    a.labels = take((size_t)rows * 4, 1);
    for (int64_t i = 0; i < rows; i++)
        ((int32_t *)a.labels)[i] =
            s->classes > 0 && below(choice, 5) ? (int32_t)below(choice, s->classes) : -100;
    if (next(choice) % 2) {
        a.class_weight = take((size_t)s->classes * size, 1);
        fill_weights(s, a.class_weight, s->classes, choice);
    }
    if (next(choice) % 2) {
        a.row_weight = take((size_t)rows * size, 1);
        fill_weights(s, a.row_weight, rows, choice);
    }
    if (next(choice) % 4 == 0) {
        a.grad_rows = take((size_t)rows * size, 1);
        fill_weights(s, a.grad_rows, rows, choice);
    }
    return a;
}

/* ---- Running --------------------------------------------------------------------------------- */

/* All that one run reads and writes. `in[1]`: the gradient that a backward operation is given. */
typedef struct run {
    ballast_tensor in[2], out;
    void *row_out; /* one value per row; NULL: not wanted */
    double loss;
} run;

/* By rows in pieces of any size, from the last; or as one call. */
static ballast_status finish(ballast_status prepared, ballast_plan *plan, uint64_t choice)
{
    if (prepared != BALLAST_OK)
        return prepared;
    const int64_t rows = ballast_plan_row_count(plan);
    const int64_t step = ballast_plan_row_step(plan) * (1 + (int64_t)(choice % 5));

    for (int64_t begin = rows > 0 ? (rows - 1) / step * step : -1; begin >= 0; begin -= step)
        if (ballast_plan_rows(plan, begin, rows - begin < step ? rows : begin + step) != BALLAST_OK)
            return BALLAST_ERR_SPLIT;
    return ballast_plan_finish(plan);
}

/* All tasks on the caller, last first: a host may do that. */
static void run_backwards(void *context, int64_t tasks, void (*task)(void *arg, int64_t index),
                          void *arg)
{
    (void)context;
    while (tasks > 0)
        task(arg, --tasks);
}

#define RUN(name)                                                                                 \
    (in_pieces ? finish(ballast_##name##_prepare(&a, exec, &plan), &plan, s->choice >> 8)         \
               : ballast_##name(&a, exec))

static ballast_status run_softmax(const setting *s, run *r, const ballast_exec *exec, int in_pieces)
{
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;
    ballast_plan plan;

    a.input = as_input(r->in[0]);
    a.output = r->out;
    return s->operation == SOFTMAX ? RUN(softmax) : RUN(log_softmax);
}

static ballast_status run_log_sum_exp(const setting *s, run *r, const ballast_exec *exec,
                                      int in_pieces)
{
    ballast_log_sum_exp_args a = BALLAST_LOG_SUM_EXP_ARGS;
    ballast_plan plan;

    a.input = as_input(r->in[0]);
    a.output = r->row_out;
    return RUN(log_sum_exp);
}

static ballast_status run_backward(const setting *s, run *r, const ballast_exec *exec, int in_pieces)
{
    ballast_softmax_backward_args a = BALLAST_SOFTMAX_BACKWARD_ARGS;
    ballast_plan plan;

    a.output = as_input(r->in[0]);
    a.grad_output = as_input(r->in[1]);
    a.grad_input = r->out;
    return s->operation == SOFTMAX_BACKWARD ? RUN(softmax_backward) : RUN(log_softmax_backward);
}

static ballast_status run_cross_entropy(const setting *s, run *r, const loss_arrays *l,
                                        const ballast_exec *exec, int in_pieces)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    ballast_plan plan;

    a.logits = as_input(r->in[0]);
    a.labels = ballast_labels_i32(l->labels);
    a.class_weight = l->class_weight;
    a.row_weight = l->row_weight;
    a.grad_rows = l->grad_rows;
    a.grad_scale = s->choice >> 16 & 1 ? -0.37 : 1.0;
    a.reduction = l->grad_rows ? BALLAST_NONE : s->choice >> 17 & 1 ? BALLAST_SUM : BALLAST_MEAN;
    a.loss = l->grad_rows ? NULL : &r->loss;
    a.row_loss = r->row_out;
    a.grad = r->out;
    return RUN(cross_entropy);
}

static ballast_status run_one(const setting *s, run *r, const loss_arrays *l,
                              const ballast_exec *exec, int in_pieces)
{
    switch (s->operation) {
    case SOFTMAX:
    case LOG_SOFTMAX:
        return run_softmax(s, r, exec, in_pieces);
    case LOG_SUM_EXP:
        return run_log_sum_exp(s, r, exec, in_pieces);
    case CROSS_ENTROPY:
        return run_cross_entropy(s, r, l, exec, in_pieces);
    default:
        return run_backward(s, r, exec, in_pieces);
    }
}

/* ---- Comparing ------------------------------------------------------------------------------- */

static void fail_setting(const setting *s, const ballast_exec *exec, const char *what, int64_t row,
                         int64_t c)
{
    const ballast_implementation *i = exec->implementation;

    fail_msg("%s:f%d, [%lld, %lld, %lld], choice 0x%llx, %s: %s at row %lld, class %lld",
             operation_names[s->operation], s->dtype == BALLAST_F32 ? 32 : 64, (long long)s->outer,
             (long long)s->classes, (long long)s->inner, (unsigned long long)s->choice,
             i ? ballast_implementation_name(i) : "default", what, (long long)row, (long long)c);
}

static void compare(const setting *s, const ballast_exec *exec, const run *tensor,
                    const run *matrix)
{
    const int64_t rows = s->outer * s->inner;
    const size_t size = size_of(s->dtype);

    if (memcmp(&tensor->loss, &matrix->loss, sizeof tensor->loss) != 0)
        fail_setting(s, exec, "other loss", -1, -1);
    for (int64_t i = 0; i < rows; i++) {
        if (tensor->row_out && memcmp((char *)tensor->row_out + (size_t)i * size,
                                      (char *)matrix->row_out + (size_t)i * size, size) != 0)
            fail_setting(s, exec, "other value of a row", i, -1);
        for (int64_t c = 0; tensor->out.data && c < s->classes; c++)
            if (memcmp(element(&tensor->out, i, c), element(&matrix->out, i, c), size) != 0)
                fail_setting(s, exec, "other bits", i, c);
    }
    if (tensor->out.data && !gaps_are_whole(&tensor->out, rows))
        fail_setting(s, exec, "a gap is written", -1, -1);
}

/* The input that the output replaces: none, the first, or the last. */
static int replaced_input(const setting *s, uint64_t *choice)
{
    const int in_place = (int)below(choice, 3);

    if (s->operation == LOG_SUM_EXP || in_place == 0)
        return -1;
    return s->operation == SOFTMAX_BACKWARD || s->operation == LOG_SOFTMAX_BACKWARD ? in_place - 1
                                                                                    : 0;
}

static void check(const setting *s, const ballast_implementation *implementation)
{
    uint64_t choice = s->choice;
    const ballast_parallel parallel = {NULL, run_backwards, 3};
    ballast_exec exec = BALLAST_EXEC;
    const int64_t rows = s->outer * s->inner;
    const int specials = next(&choice) % 2, backward = s->operation == SOFTMAX_BACKWARD
                                                    || s->operation == LOG_SOFTMAX_BACKWARD;
    const int one_per_row = s->operation == LOG_SUM_EXP
                         || (s->operation == CROSS_ENTROPY && next(&choice) % 2);
    const int elements = s->operation != LOG_SUM_EXP
                      && (s->operation != CROSS_ENTROPY || next(&choice) % 4);
    const int replaced = elements ? replaced_input(s, &choice) : -1;
    run matrix = {.loss = 0.0}, tensor = {.loss = 0.0};
    loss_arrays l = {NULL, NULL, NULL, NULL};

    taken = 0;
    exec.implementation = implementation;
    for (int k = 0; k <= backward; k++) {
        matrix.in[k] = filled_matrix(s, specials, &choice);
        tensor.in[k] = make_tensor(s, &choice);
        copy_rows(&matrix.in[k], &tensor.in[k], rows);
    }
    if (elements) {
        matrix.out = make_matrix(s);
        tensor.out = replaced >= 0 ? tensor.in[replaced] : make_tensor(s, &choice);
    }
    if (s->operation == CROSS_ENTROPY)
        l = make_loss_arrays(s, &choice);
    if (one_per_row) {
        /* behind each other: ten arrays are all there are */
        matrix.row_out = take((size_t)(2 * rows) * size_of(s->dtype), 1);
        tensor.row_out = (char *)matrix.row_out + (size_t)rows * size_of(s->dtype);
    }
    if (run_one(s, &matrix, &l, &exec, 0) != BALLAST_OK)
        fail_setting(s, &exec, "the matrix is refused", -1, -1);
    if (next(&choice) % 2)
        exec.parallel = &parallel;
    if (run_one(s, &tensor, &l, &exec, next(&choice) % 2) != BALLAST_OK)
        fail_setting(s, &exec, "the tensor is refused", -1, -1);
    compare(s, &exec, &tensor, &matrix);
}

/* Every operation, on every implementation that this machine runs. */
static void check_all(ballast_dtype dtype, int64_t outer, int64_t classes, int64_t inner,
                      uint64_t *choice)
{
    for (int op = 0; op < OPERATIONS; op++)
        for (int k = 0; ballast_implementation_at(k); k++) {
            const ballast_implementation *i = ballast_implementation_at(k);
            const setting s = {(operation)op, dtype, outer, classes, inner, next(choice)};

            if (ballast_implementation_supported(i, NULL, 0) && (dtype == BALLAST_F32 || k == 0))
                check(&s, i);
        }
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void short_rows(void **state)
{
    uint64_t choice = 1;

    (void)state;
    for (int64_t classes = 1; classes <= 130; classes++)
        for (int64_t inner = 1; inner <= 40; inner++)
            check_all(BALLAST_F32, 1 + (classes + inner) % 3, classes, inner, &choice);
}

static void whole_packs(void **state)
{
    static const int64_t inners[] = {47, 48, 49, 63, 64, 65, 80, 127, 128, 131, 300};
    uint64_t choice = 2;

    (void)state;
    for (int64_t classes = 1; classes <= 100; classes += 1 + classes / 10)
        for (size_t k = 0; k < sizeof inners / sizeof inners[0]; k++)
            check_all(BALLAST_F32, 1 + (int64_t)k % 3, classes, inners[k], &choice);
}

/* Around every constant of the kernels: scratch, chunks, windows; rows of one chunk and of several. */
static void long_rows(void **state)
{
    static const int64_t classes[] = {255, 256, 257, 511, 512, 513, 1000, 1023, 1024, 1025, 1087,
                                      1088, 1089, 2047, 2048, 2049, 2064, 4096, 4100, 6145};
    static const int64_t inners[] = {1, 5, 16, 17, 40, 64, 70};
    uint64_t choice = 3;

    (void)state;
    for (size_t k = 0; k < sizeof classes / sizeof classes[0]; k++)
        for (size_t i = 0; i < sizeof inners / sizeof inners[0]; i++)
            check_all(BALLAST_F32, 1 + (int64_t)(k + i) % 2, classes[k], inners[i], &choice);
}

/* No rows, and rows of nothing. */
static void nothing(void **state)
{
    uint64_t choice = 6;

    (void)state;
    for (int k = 0; k < 20; k++) {
        check_all(BALLAST_F32, 2, 0, 17, &choice);
        check_all(BALLAST_F32, 0, 5, 17, &choice);
        check_all(BALLAST_F32, 3, 5, 0, &choice);
    }
}

/* Enough elements for several tasks. */
static void many_rows(void **state)
{
    uint64_t choice = 5;

    (void)state;
    for (int64_t k = 0; k < 4; k++) {
        check_all(BALLAST_F32, 1, 21, 5000 + k, &choice);
        check_all(BALLAST_F32, 300 + k, 7, 49, &choice);
    }
}

static void doubles(void **state)
{
    uint64_t choice = 4;
    double x = 0.0, y = 0.0;
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;

    (void)state;
    a.input = ballast_const_matrix_f64(&x, 1, 1);
    a.output = ballast_matrix_f64(&y, 1, 1);
    if (ballast_softmax(&a, NULL) == BALLAST_ERR_UNSUPPORTED)
        skip();
    for (int64_t size = 1; size <= 60; size++)
        check_all(BALLAST_F64, 1 + size % 3, 1 + size * 7 % 40, 1 + size % 19, &choice);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_rows),
        cmocka_unit_test(whole_packs),
        cmocka_unit_test(long_rows),
        cmocka_unit_test(nothing),
        cmocka_unit_test(many_rows),
        cmocka_unit_test(doubles),
    };

    return cmocka_run_group_tests_name("planes", tests, make_memory, NULL);
}
