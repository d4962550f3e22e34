/* SPDX-License-Identifier: MIT */
/* More than 2^31 elements, rows and classes, in little memory: one file of 128 MiB is mapped again
 * and again. Its first half repeats; the last mapping is its second half, so that an index that
 * lost its upper bits finds other values, or no memory at all. */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ballast/ballast.h>

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PERIOD ((int64_t)1 << 24) /* floats in a half of the file */
#define PERIOD_BYTES ((size_t)PERIOD * sizeof(float))
#define TWO_31 ((int64_t)1 << 31)

/* ---- Memory -------------------------------------------------------------------------------- */

/* A file whose halves are read and written here. */
typedef struct source {
    int file;
    float *first, *second;
} source;

static bool make_source(source *s)
{
    s->file = memfd_create("ballast-size", 0);
    if (s->file < 0 || ftruncate(s->file, (off_t)(2 * PERIOD_BYTES)) != 0)
        return false;
    s->first = mmap(NULL, 2 * PERIOD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, s->file, 0);
    if (s->first == MAP_FAILED)
        return false;
    s->second = s->first + PERIOD;
    return true;
}

static void free_source(source *s)
{
    munmap(s->first, 2 * PERIOD_BYTES);
    close(s->file);
}

/* What cannot be had here is skipped, not failed: address space is the host's to grant. skip() does
 * not return, but is not declared so. */
static _Noreturn void skip_for(const char *what)
{
    print_message("skipped: no %s here\n", what);
    skip();
    abort();
}

/* `periods` mappings in a row, the last of the second half; nothing is mapped around them. */
static void *map_repeatedly(const source *s, int64_t periods, int protection)
{
    const size_t margin = PERIOD_BYTES, bytes = (size_t)periods * PERIOD_BYTES;
    char *all = mmap(NULL, bytes + 2 * margin, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (all == MAP_FAILED)
        skip_for("address space of so many GiB");
    for (int64_t i = 0; i < periods; i++) {
        const off_t offset = i == periods - 1 ? (off_t)PERIOD_BYTES : 0;

        if (mmap(all + margin + (size_t)i * PERIOD_BYTES, PERIOD_BYTES, protection,
                 MAP_SHARED | MAP_FIXED, s->file, offset) == MAP_FAILED)
            skip_for("so many mappings");
    }
    return all + margin;
}

static void unmap(const void *data, int64_t periods)
{
    munmap((char *)(uintptr_t)data - PERIOD_BYTES, (size_t)(periods + 2) * PERIOD_BYTES);
}

static void skip_where_slow(void)
{
    char reason[128];
    const ballast_implementation *best = ballast_implementation_default(reason, sizeof reason);

    if (strcmp(ballast_implementation_name(best), "scalar") != 0)
        return;
    print_message("skipped on scalar: it would take minutes (%s)\n", reason);
    skip();
}

/* ---- Data ---------------------------------------------------------------------------------- */

/* The second half is of another size, so that it counts. */
static void fill(const source *s)
{
    for (int64_t i = 0; i < PERIOD; i++) {
        s->first[i] = (float)(i * 7919 % 10007) * 0x1p-11f - 2.0f;
        s->second[i] = (float)(i * 104729 % 10007) * 0x1p-10f + 1.0f;
    }
}

static long double sum_of(const float *x)
{
    long double sum = 0.0L;

    for (int64_t i = 0; i < PERIOD; i++)
        sum += (long double)x[i];
    return sum;
}

static long double sum_of_exponentials(const float *x)
{
    long double sum = 0.0L;

    for (int64_t i = 0; i < PERIOD; i++)
        sum += (long double)exp((double)x[i]);
    return sum;
}

static void check_near(const char *what, long double got, long double want, double tolerance)
{
    if (!(fabsl(got - want) <= (long double)tolerance * fabsl(want)))
        fail_msg("%s: %.9Lg, expected %.9Lg", what, got, want);
}

#define ULPS(n) ((n) * (double)FLT_EPSILON)

/* ---- Long rows ----------------------------------------------------------------------------- */

static source data;

/* Three rows of 2^30 classes: the last begins at element 2^31, and ends in the second half. */
static void three_rows_of_a_billion(void **state)
{
    const int64_t classes = (int64_t)1 << 30, periods = 3 * classes / PERIOD;
    const int64_t labels[3] = {classes - 1, 0, classes - 3};
    float rows[3];
    double loss = 0.0;
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    (void)state;
    skip_where_slow();
    const float *x = map_repeatedly(&data, periods, PROT_READ);
    const long double first = sum_of_exponentials(data.first);
    const long double second = sum_of_exponentials(data.second);
    a.logits = ballast_const_matrix_f32(x, 3, classes);
    a.labels = ballast_labels_i64(labels);
    a.reduction = BALLAST_SUM;
    a.loss = &loss;
    a.row_loss = rows;
    assert_int_equal(ballast_cross_entropy(&a, NULL), BALLAST_OK);
    const long double lse = logl(64.0L * first), last = logl(63.0L * first + second);
    check_near("row 0", rows[0], lse - (long double)data.first[PERIOD - 1], ULPS(4.0));
    check_near("row 1", rows[1], lse - (long double)data.first[0], ULPS(4.0));
    check_near("row 2", rows[2], last - (long double)data.second[PERIOD - 3], ULPS(4.0));
    check_near("loss", loss, (long double)rows[0] + (long double)rows[1] + (long double)rows[2],
               1e-14);
    unmap(x, periods);
}

/* Its gradient is mapped upon itself as well; what is left there is the last period's. */
static void one_row_of_two_to_the_28(void **state)
{
    const int64_t classes = (int64_t)1 << 28, periods = classes / PERIOD;
    const int32_t label = (int32_t)(classes - 2);
    source gradient;
    float row = 0.0f;
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    (void)state;
    skip_where_slow();
    if (!make_source(&gradient))
        skip_for("memory");
    const float *x = map_repeatedly(&data, periods, PROT_READ);
    float *grad = map_repeatedly(&gradient, periods, PROT_READ | PROT_WRITE);
    const long double sum = (long double)(periods - 1) * sum_of_exponentials(data.first) +
                            sum_of_exponentials(data.second);
    a.logits = ballast_const_matrix_f32(x, 1, classes);
    a.labels = ballast_labels_i32(&label);
    a.row_loss = &row;
    a.grad = ballast_matrix_f32(grad, 1, classes);
    assert_int_equal(ballast_cross_entropy(&a, NULL), BALLAST_OK);
    check_near("loss", row, logl(sum) - (long double)data.second[PERIOD - 2], ULPS(4.0));
    for (int64_t i = 0; i < PERIOD; i += i % 4096 == 0 ? 1 : 4095) {
        check_near("gradient of the first half", gradient.first[i],
                   expl((long double)data.first[i]) / sum, ULPS(4.0));
        check_near("gradient of the last half", gradient.second[i],
                   expl((long double)data.second[i]) / sum, ULPS(4.0));
    }
    check_near("gradient of the label", gradient.second[PERIOD - 2],
               expl((long double)data.second[PERIOD - 2]) / sum - 1.0L, ULPS(4.0));
    unmap(x, periods);
    unmap(grad, periods);
    free_source(&gradient);
}

/* ---- Many rows ----------------------------------------------------------------------------- */

/* 2^31 and more elements, in rows of 2^14: the loss is that of every row. */
static void many_rows(void **state)
{
    const int64_t classes = 1 << 14, rows = (TWO_31 + PERIOD) / classes;
    const int64_t periods = TWO_31 / PERIOD + 1, in_period = PERIOD / classes;
    uint8_t *labels = calloc((size_t)rows, 1);
    float *row_loss = calloc((size_t)rows, sizeof *row_loss);
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    (void)state;
    skip_where_slow();
    assert_non_null(labels);
    assert_non_null(row_loss);
    const float *x = map_repeatedly(&data, periods, PROT_READ);
    a.logits = ballast_const_matrix_f32(x, rows, classes);
    a.labels = ballast_labels_u8(labels);
    a.row_loss = row_loss;
    assert_int_equal(ballast_cross_entropy(&a, NULL), BALLAST_OK);
    for (int64_t r = in_period; r < rows - in_period; r++)
        if (row_loss[r] != row_loss[r % in_period])
            fail_msg("row %lld: %a, row %lld: %a", (long long)r, (double)row_loss[r],
                     (long long)(r % in_period), (double)row_loss[r % in_period]);
    for (int64_t r = 0; r < in_period; r++) {
        const float *second = data.second + r * classes;
        double sum = 0.0;

        for (int64_t c = 0; c < classes; c++)
            sum += exp((double)second[c]);
        check_near("a last row", row_loss[rows - in_period + r], log(sum) - (double)second[0],
                   ULPS(4.0));
    }
    unmap(x, periods);
    free(labels);
    free(row_loss);
}

/* Labels of u8, and as many rows of one class: all 0, but the last sixteen million alternate with
 * `ignored`. */
enum { IGNORED = 1 };

static const uint8_t *map_labels(source *s, int64_t *periods)
{
    *periods = TWO_31 / (int64_t)PERIOD_BYTES + 1;
    if (!make_source(s))
        skip_for("memory");
    memset(s->second, 0, PERIOD_BYTES);
    for (size_t i = 1; i < PERIOD_BYTES; i += 2)
        ((uint8_t *)s->second)[i] = IGNORED;
    return map_repeatedly(s, *periods, PROT_READ);
}

/* Rows around 2^31, and the last, which alone are computed; the labels are all looked at. */
static void rows_beyond_two_to_the_31(void **state)
{
    const int64_t rows = TWO_31 + PERIOD, periods = TWO_31 / PERIOD + 1;
    const int64_t begins[] = {0, TWO_31 - 40, TWO_31, rows - 60};
    source label_source, loss_source;
    int64_t label_periods;
    ballast_plan plan;
    ballast_binary_cross_entropy_args a = BALLAST_BINARY_CROSS_ENTROPY_ARGS;

    (void)state;
    skip_where_slow();
    const uint8_t *labels = map_labels(&label_source, &label_periods);
    if (!make_source(&loss_source))
        skip_for("memory");
    const float *x = map_repeatedly(&data, periods, PROT_READ);
    float *losses = map_repeatedly(&loss_source, periods, PROT_READ | PROT_WRITE);
    a.logits = ballast_const_matrix_f32(x, rows, 1);
    a.labels = ballast_labels_u8(labels);
    a.ignore_index = IGNORED;
    a.reduction = BALLAST_NONE;
    a.row_loss = losses;
    assert_int_equal(ballast_binary_cross_entropy_prepare(&a, NULL, &plan), BALLAST_OK);
    assert_true(ballast_plan_row_count(&plan) == rows);
    for (int k = 0; k < 4; k++) {
        assert_int_equal(ballast_plan_rows(&plan, begins[k], begins[k] + 60), BALLAST_OK);
        for (int64_t i = begins[k]; i < begins[k] + 60; i++) {
            const double want = labels[i] == IGNORED ? 0.0 : log1p(exp(-(double)x[i]));

            check_near("row loss", losses[i], want, ULPS(4.0));
        }
    }
    unmap(x, periods);
    unmap(losses, periods);
    unmap(labels, label_periods);
    free_source(&label_source);
    free_source(&loss_source);
}

/* The first wrong label is behind 2^31 right ones, and is named exactly. No logit is read. */
static void check_wrong_label(const float *x, const uint8_t *labels, int64_t rows, int64_t wrong)
{
    ballast_error error;
    ballast_plan plan;
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    double loss;

    a.logits = ballast_const_matrix_f32(x, rows, 1);
    a.labels = ballast_labels_u8(labels);
    a.ignore_index = IGNORED;
    a.loss = &loss;
    a.error = &error;
    assert_int_equal(ballast_cross_entropy_prepare(&a, NULL, &plan), BALLAST_ERR_LABEL);
    assert_true(error.index == wrong && error.integer == 3);
}

static void counts_and_a_wrong_label(void **state)
{
    source label_source;
    int64_t periods, counts[1] = {0};
    ballast_per_class_args a = BALLAST_PER_CLASS_ARGS;

    (void)state;
    skip_where_slow();
    const uint8_t *labels = map_labels(&label_source, &periods);
    const int64_t right = TWO_31 / (int64_t)PERIOD_BYTES * (int64_t)PERIOD_BYTES;
    a.labels = ballast_labels_u8(labels);
    a.label_count = right + 1000;
    a.classes = 1;
    a.ignore_index = IGNORED;
    a.counts = counts;
    assert_int_equal(ballast_per_class(&a), BALLAST_OK);
    assert_true(counts[0] == right + 500);
    ((uint8_t *)label_source.second)[777] = 3;
    check_wrong_label(data.first, labels, right + 1000, right + 777);
    unmap(labels, periods);
    free_source(&label_source);
}

/* ---- Vectors ------------------------------------------------------------------------------- */

static void sums(void **state)
{
    const int64_t periods = TWO_31 / PERIOD + 1, count = periods * PERIOD - 5;
    double sum = 0.0, dot = 0.0;
    long double products = 0.0L, last = 0.0L;
    ballast_reduce_args a = BALLAST_REDUCE_ARGS;

    (void)state;
    skip_where_slow();
    const float *x = map_repeatedly(&data, periods, PROT_READ);
    for (int64_t i = 0; i < PERIOD; i++) {
        products += (long double)data.first[i] * (long double)data.first[i];
        if (i < PERIOD - 5)
            last += (long double)data.second[i] * (long double)data.second[i];
    }
    long double want = (long double)(periods - 1) * sum_of(data.first) + sum_of(data.second);
    for (int64_t i = PERIOD - 5; i < PERIOD; i++)
        want -= (long double)data.second[i];
    a.x = ballast_vector_f32(x, count);
    a.result = &sum;
    assert_int_equal(ballast_weighted_sum(&a, NULL), BALLAST_OK);
    check_near("sum", sum, want, ULPS(4.0));
    a.weights = a.x;
    a.result = &dot;
    assert_int_equal(ballast_weighted_sum(&a, NULL), BALLAST_OK);
    check_near("dot", dot, (long double)(periods - 1) * products + last, ULPS(4.0));
    unmap(x, periods);
}

/* ---- Wide strides -------------------------------------------------------------------------- */

/* Four short rows, 2^30 elements from each other, in memory of which four pages are used. */
enum { ROWS = 4, CLASSES = 100 };
#define STRIDE ((int64_t)1 << 30)

static float *map_sparse(void)
{
    void *data_ = mmap(NULL, (size_t)(3 * STRIDE + CLASSES) * sizeof(float), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (data_ == MAP_FAILED)
        skip_for("address space of 12 GiB");
    return data_;
}

static void unmap_sparse(float *x) { munmap(x, (size_t)(3 * STRIDE + CLASSES) * sizeof(float)); }

typedef struct wide {
    float *x, *out, *elements;
    float tight[ROWS * CLASSES], tight_out[ROWS * CLASSES], tight_elements[ROWS * CLASSES];
} wide;

static void check_wide(const char *what, const float *strided, const float *tight)
{
    for (int64_t r = 0; r < ROWS; r++)
        if (memcmp(strided + r * STRIDE, tight + r * CLASSES, CLASSES * sizeof(float)) != 0)
            fail_msg("%s: row %lld: other bits with a wide stride", what, (long long)r);
}

static void wide_softmax(const wide *w, const ballast_exec *exec)
{
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS, b = BALLAST_SOFTMAX_ARGS;

    a.input = ballast_const_strided_matrix_f32(w->x, ROWS, CLASSES, STRIDE);
    a.output = ballast_strided_matrix_f32(w->out, ROWS, CLASSES, STRIDE);
    b.input = ballast_const_matrix_f32(w->tight, ROWS, CLASSES);
    b.output = ballast_matrix_f32((float *)(uintptr_t)w->tight_out, ROWS, CLASSES);
    assert_int_equal(ballast_log_softmax(&a, exec), BALLAST_OK);
    assert_int_equal(ballast_log_softmax(&b, exec), BALLAST_OK);
    check_wide("log_softmax", w->out, w->tight_out);
}

static void wide_losses(wide *w, const ballast_exec *exec)
{
    static const int32_t labels[ROWS] = {3, 99, 0, 50};
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    ballast_sigmoid_focal_args b = BALLAST_SIGMOID_FOCAL_ARGS;

    a.labels = b.labels = ballast_labels_i32(labels);
    a.logits = b.logits = ballast_const_matrix_f32(w->tight, ROWS, CLASSES);
    a.grad = b.grad = ballast_matrix_f32(w->tight_out, ROWS, CLASSES);
    assert_int_equal(ballast_cross_entropy(&a, exec), BALLAST_OK);
    a.logits = b.logits = ballast_const_strided_matrix_f32(w->x, ROWS, CLASSES, STRIDE);
    a.grad = ballast_strided_matrix_f32(w->out, ROWS, CLASSES, STRIDE);
    assert_int_equal(ballast_cross_entropy(&a, exec), BALLAST_OK);
    check_wide("cross_entropy", w->out, w->tight_out);
    b.logits = ballast_const_matrix_f32(w->tight, ROWS, CLASSES);
    b.element_loss = ballast_matrix_f32(w->tight_elements, ROWS, CLASSES);
    assert_int_equal(ballast_sigmoid_focal(&b, exec), BALLAST_OK);
    b.logits = a.logits;
    b.grad = a.grad;
    b.element_loss = ballast_strided_matrix_f32(w->elements, ROWS, CLASSES, STRIDE);
    assert_int_equal(ballast_sigmoid_focal(&b, exec), BALLAST_OK);
    check_wide("sigmoid_focal", w->out, w->tight_out);
    check_wide("sigmoid_focal, elements", w->elements, w->tight_elements);
}

static void wide_strides(void **state)
{
    static wide w;

    (void)state;
    if (sizeof(size_t) < 8)
        skip_for("64-bit addresses");
    w.x = map_sparse();
    w.out = map_sparse();
    w.elements = map_sparse();
    for (int i = 0; i < ROWS * CLASSES; i++) {
        w.tight[i] = (float)(i * 7919 % 1009) * 0x1p-7f - 4.0f;
        w.x[i / CLASSES * STRIDE + i % CLASSES] = w.tight[i];
    }
    for (int i = 0; ballast_implementation_at(i); i++) {
        char reason[128];
        ballast_exec exec = BALLAST_EXEC;

        exec.implementation = ballast_implementation_at(i);
        if (!ballast_implementation_supported(exec.implementation, reason, sizeof reason)) {
            print_message("skipped %s: %s\n", ballast_implementation_name(exec.implementation),
                          reason);
            continue;
        }
        wide_softmax(&w, &exec);
        wide_losses(&w, &exec);
    }
    unmap_sparse(w.x);
    unmap_sparse(w.out);
    unmap_sparse(w.elements);
}

static int setup(void **state)
{
    (void)state;
    if (sizeof(size_t) < 8 || !make_source(&data))
        return -1;
    fill(&data);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free_source(&data);
    return 0;
}

/* Classes a plane apart, more than floats can count: the one that is ignored is told from its neighbour. */
static void ignored_class_beyond_floats(void **state)
{
    const int64_t beyond = (int64_t)1 << 24, classes = beyond + 2;
    const int64_t labels[1] = {beyond};
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    float *logits = calloc((size_t)(2 * classes), sizeof *logits);
    double loss = 0.0;

    (void)state;
    if (!logits)
        skip_for("memory for 2^25 floats");
    a.logits = ballast_const_tensor_f32(logits, 1, classes, 1);
    a.logits.class_stride = 2;
    a.logits.outer_stride = 2 * classes;
    a.labels = ballast_labels_i64(labels);
    a.ignore_index = beyond + 1;
    a.loss = &loss;
    assert_int_equal(ballast_cross_entropy(&a, NULL), BALLAST_OK);
    assert_true(fabs(loss - log((double)classes)) < 1e-5);
    free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wide_strides),
        cmocka_unit_test(three_rows_of_a_billion),
        cmocka_unit_test(one_row_of_two_to_the_28),
        cmocka_unit_test(many_rows),
        cmocka_unit_test(rows_beyond_two_to_the_31),
        cmocka_unit_test(counts_and_a_wrong_label),
        cmocka_unit_test(sums),
        cmocka_unit_test(ignored_class_beyond_floats),
    };

    return cmocka_run_group_tests_name("size", tests, setup, teardown);
}
