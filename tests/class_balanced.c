/* SPDX-License-Identifier: MIT */
/* Class-balanced weights and losses against published and worked numbers: the weights of
 * long-tailed CIFAR-10 (imbalance 50) for four betas, and one small batch in all figures, loss and
 * gradient.
 *
 * f64 is skipped by name where the library is built without it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "ballast/ballast.h"

#include <math.h>
#include <string.h>

enum { ROWS = 2, CLASSES = 3, CIFAR = 10 };

/* ---- The batch ------------------------------------------------------------------------------- */

static const double logits[ROWS * CLASSES] = {0.78, 0.1, 0.05, 0.78, 0.83, 0.05};
static const int64_t labels[ROWS] = {0, 2};
static const int64_t counts[CLASSES] = {30, 100, 25};
static const double weights[CLASSES] = {1.196368092733, 0.371560183609, 1.432071723658};

typedef struct figure {
    const char *name;
    ballast_class_balanced_kind kind;
    ballast_denominator denominator;
    double loss;
} figure;

static const figure figures[] = {
    {"softmax / N", BALLAST_CB_SOFTMAX, BALLAST_ROWS, 1.599431860650},
    {"softmax / sum of weights", BALLAST_CB_SOFTMAX, BALLAST_WEIGHT_SUM, 1.217019960416},
    {"sigmoid / N", BALLAST_CB_SIGMOID, BALLAST_ROWS, 3.261559572710},
    {"focal / N", BALLAST_CB_FOCAL, BALLAST_ROWS, 1.175118066658},
};
enum { FIGURES = sizeof figures / sizeof figures[0] };

/* ---- Both dtypes under one roof -------------------------------------------------------------- */

static size_t size_of(ballast_dtype dtype) { return dtype == BALLAST_F32 ? 4 : 8; }

static double at(ballast_dtype dtype, const void *data, int i)
{
    return dtype == BALLAST_F32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

static void put(ballast_dtype dtype, void *data, int i, double value)
{
    if (dtype == BALLAST_F32)
        ((float *)data)[i] = (float)value;
    else
        ((double *)data)[i] = value;
}

static double tolerance(ballast_dtype dtype) { return dtype == BALLAST_F32 ? 1e-6 : 1e-12; }

static void expect_near(const char *name, double got, double want, double error)
{
    if (!(fabs(got - want) <= error))
        fail_msg("%s: got %.13g, want %.13g, off by %.3g, allowed %g", name, got, want, got - want,
                 error);
}

static void make_weights(ballast_dtype dtype, double beta, const int64_t *n, int classes, void *out)
{
    ballast_class_weights_args a = BALLAST_CLASS_WEIGHTS_ARGS;

    a.beta = beta;
    a.classes = classes;
    a.counts = n;
    a.weights = out;
    a.weights_dtype = dtype;
    assert_int_equal(ballast_class_weights(&a), BALLAST_OK);
}

/* Loss and, where grad is not NULL, gradient of the batch x. */
static ballast_status run(const figure *f, ballast_dtype dtype, const double *x, double *loss,
                          void *grad)
{
    ballast_class_balanced_args a = BALLAST_CLASS_BALANCED_ARGS;
    double memory[ROWS * CLASSES], w[CLASSES];

    for (int i = 0; i < ROWS * CLASSES; i++)
        put(dtype, memory, i, x[i]);
    make_weights(dtype, 0.999, counts, CLASSES, w);
    a.kind = f->kind;
    a.denominator = f->denominator;
    a.logits = ballast_const_matrix_f64(memory, ROWS, CLASSES);
    a.logits.dtype = dtype;
    a.labels = ballast_labels_i64(labels);
    a.class_weight = w;
    a.loss = loss;
    if (grad) {
        a.grad = ballast_matrix_f64(grad, ROWS, CLASSES);
        a.grad.dtype = dtype;
    }
    return ballast_class_balanced_loss(&a, NULL);
}

static void skip_without_f64(ballast_status status)
{
    if (status != BALLAST_ERR_UNSUPPORTED)
        return;
    print_message("f64: not built into this library\n");
    skip();
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void test_weights(void **state)
{
    const ballast_dtype dtypes[] = {BALLAST_F32, BALLAST_F64};
    double got[CLASSES];

    (void)state;
    for (int d = 0; d < 2; d++) {
        make_weights(dtypes[d], 0.999, counts, CLASSES, got);
        for (int k = 0; k < CLASSES; k++)
            expect_near("weight", at(dtypes[d], got, k), weights[k], tolerance(dtypes[d]));
    }
}

static void expect_losses(ballast_dtype dtype)
{
    for (int i = 0; i < FIGURES; i++) {
        double loss = 0.0;
        const ballast_status status = run(&figures[i], dtype, logits, &loss, NULL);

        skip_without_f64(status);
        assert_int_equal(status, BALLAST_OK);
        expect_near(figures[i].name, loss, figures[i].loss, tolerance(dtype));
    }
}

static void test_losses_f32(void **state)
{
    (void)state;
    expect_losses(BALLAST_F32);
}

static void test_losses_f64(void **state)
{
    (void)state;
    expect_losses(BALLAST_F64);
}

/* The loss as its formula says, in long double, with the weights as published; for differences. */
static long double softplus(long double x)
{
    return x > 0.0L ? x + log1pl(expl(-x)) : log1pl(expl(x));
}

static long double row_by_formula(ballast_class_balanced_kind kind, const long double *x, int label)
{
    long double sum = 0.0L;

    for (int j = 0; j < CLASSES; j++) {
        const long double z = j == label ? x[j] : -x[j], q = 1.0L / (1.0L + expl(z));

        if (kind == BALLAST_CB_SOFTMAX)
            sum += expl(x[j]);
        else
            sum += softplus(-z) * (kind == BALLAST_CB_FOCAL ? q * q : 1.0L);
    }
    return kind == BALLAST_CB_SOFTMAX ? logl(sum) - x[label] : sum;
}

static long double by_formula(const figure *f, const long double *x)
{
    long double sum = 0.0L, divisor = 0.0L;
    double w[CLASSES];

    make_weights(BALLAST_F64, 0.999, counts, CLASSES, w);
    for (int i = 0; i < ROWS; i++) {
        sum += w[labels[i]] * row_by_formula(f->kind, x + CLASSES * i, (int)labels[i]);
        divisor += f->denominator == BALLAST_ROWS ? 1.0L : w[labels[i]];
    }
    return sum / divisor;
}

static long double difference_by_formula(const figure *f, int i)
{
    const long double step = 0x1p-14L;
    long double x[ROWS * CLASSES], f_of[4];
    const int at_step[4] = {-2, -1, 1, 2};

    for (int k = 0; k < 4; k++) {
        for (int j = 0; j < ROWS * CLASSES; j++)
            x[j] = logits[j];
        x[i] += at_step[k] * step;
        f_of[k] = by_formula(f, x);
    }
    return (8.0L * (f_of[2] - f_of[1]) - (f_of[3] - f_of[0])) / (12.0L * step);
}

static void expect_gradients(ballast_dtype dtype)
{
    for (int i = 0; i < FIGURES; i++) {
        double grad[ROWS * CLASSES];
        double loss = 0.0;
        const ballast_status status = run(&figures[i], dtype, logits, &loss, grad);

        skip_without_f64(status);
        assert_int_equal(status, BALLAST_OK);
        for (int j = 0; j < ROWS * CLASSES; j++)
            expect_near(figures[i].name, at(dtype, grad, j),
                        (double)difference_by_formula(&figures[i], j), tolerance(dtype));
    }
}

static void test_gradients_f32(void **state)
{
    (void)state;
    expect_gradients(BALLAST_F32);
}

static void test_gradients_f64(void **state)
{
    (void)state;
    expect_gradients(BALLAST_F64);
}

/* The library against itself: differences of its own f64 loss. Error of a central difference with
 * step h = 2^-17: h^2 f''' / 6 and rounding 2^-53 / h, both below 1e-9. */
static void test_gradients_are_slopes(void **state)
{
    const double step = 0x1p-17;

    (void)state;
    for (int i = 0; i < FIGURES; i++) {
        double grad[ROWS * CLASSES], loss, above, below, x[ROWS * CLASSES];

        skip_without_f64(run(&figures[i], BALLAST_F64, logits, &loss, grad));
        for (int j = 0; j < ROWS * CLASSES; j++) {
            memcpy(x, logits, sizeof x);
            x[j] = logits[j] + step;
            assert_int_equal(run(&figures[i], BALLAST_F64, x, &above, NULL), BALLAST_OK);
            x[j] = logits[j] - step;
            assert_int_equal(run(&figures[i], BALLAST_F64, x, &below, NULL), BALLAST_OK);
            expect_near(figures[i].name, grad[j], (above - below) / (2.0 * step), 1e-9);
        }
    }
}

static void test_cifar_10(void **state)
{
    static const int64_t n[CIFAR] = {5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100};
    static const struct {
        double beta, weight[CIFAR];
    } published[] = {
        {0.9999, {.089030, .126678, .185257, .276057, .416751, .634413, .969534, 1.489447, 2.292256,
                  3.520576}},
        {0.999, {.295900, .305908, .335063, .395711, .502782, .677990, .954225, 1.387085, 2.058287,
                 3.087047}},
        {0.99, {.910988, .910988, .910988, .910989, .911122, .914020, .934117, 1.002682, 1.157142,
                1.436963}},
        {0.0, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
    };
    const ballast_dtype dtypes[] = {BALLAST_F32, BALLAST_F64};

    (void)state;
    for (int b = 0; b < 4; b++)
        for (int d = 0; d < 2; d++) {
            double got[CIFAR], sum = 0.0;

            assert_true(sizeof got >= CIFAR * size_of(dtypes[d]));
            make_weights(dtypes[d], published[b].beta, n, CIFAR, got);
            for (int k = 0; k < CIFAR; k++) {
                expect_near("CIFAR-10 weight", at(dtypes[d], got, k), published[b].weight[k],
                            0.5e-6 + tolerance(dtypes[d]));
                sum += at(dtypes[d], got, k);
            }
            expect_near("sum of the weights", sum, CIFAR, 4.0 * tolerance(dtypes[d]));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),       cmocka_unit_test(test_losses_f32),
        cmocka_unit_test(test_losses_f64),    cmocka_unit_test(test_gradients_f32),
        cmocka_unit_test(test_gradients_f64), cmocka_unit_test(test_gradients_are_slopes),
        cmocka_unit_test(test_cifar_10),
    };

    return cmocka_run_group_tests_name("class_balanced", tests, NULL, NULL);
}
