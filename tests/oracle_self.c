/* SPDX-License-Identifier: MIT */
/* The oracle against MPFR, on random and extreme inputs.
 *
 * The references below are the textbook formulas with all their cancellation, 1 - p and lse - x_y
 * included, and derivatives of the sigmoid losses are central differences: nothing to derive,
 * nothing to rearrange.  The precision pays for it: 1 - p at |x| = 700 costs 1010 bits, a step of
 * 2^-200 another 200. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <mpfr.h>

#include "oracle/oracle.h"

enum {
    PRECISION = 1536,
    STEP_EXPONENT = -200,
    ROWS = 3000,
    POINTS = 2000,
    MAX_CLASSES = 16,
    MAX_TERMS = 64
};

#define SEED UINT64_C(20190616)

static const long double tolerance = 0x1p-58L;

/* Random inputs ------------------------------------------------------------------------------ */

static uint64_t random_bits(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static double uniform(uint64_t *state, double low, double high)
{
    return low + (high - low) * ((double)(random_bits(state) >> 11) * 0x1p-53);
}

static int64_t below(uint64_t *state, int64_t n)
{
    return (int64_t)(random_bits(state) % (uint64_t)n);
}

static double either_sign(uint64_t *state, double magnitude)
{
    return random_bits(state) & 1 ? magnitude : -magnitude;
}

typedef enum {
    ROW_SMALL,
    ROW_WIDE,
    ROW_CONFIDENT,      /* one logit 20 to 80 above the others */
    ROW_VERY_CONFIDENT, /* up to 700 above: what f64 can still tell from 0 */
    ROW_OFFSET_1E4,
    ROW_OFFSET_1E30,
    ROW_ONE_HUGE,       /* one or two logits near 1e30 or -1e30 among ordinary ones */
    ROW_HOLES,          /* -inf */
    ROW_TINY,           /* subnormal in f32 */
    ROW_TIES,
    ROW_MAGNITUDES,     /* 2^-40 to 2^40 */
    ROW_KINDS
} row_kind;

static double logit(uint64_t *state, row_kind kind)
{
    switch (kind) {
    case ROW_WIDE: return uniform(state, -350.0, 350.0);
    case ROW_OFFSET_1E4: return 1e4 + uniform(state, -20.0, 20.0);
    case ROW_OFFSET_1E30: return 1e30 + (double)below(state, 3) * 0x1p77;
    case ROW_HOLES: return below(state, 3) ? uniform(state, -9.0, 9.0) : -INFINITY;
    case ROW_TINY: return either_sign(state, uniform(state, 0.0, 0x1p-126));
    case ROW_TIES: return (double)below(state, 2);
    case ROW_MAGNITUDES: return either_sign(state, exp2(uniform(state, -40.0, 40.0)));
    default: return uniform(state, -5.0, 5.0);
    }
}

/* Row number i, by turns in f32 and f64 and of each kind; returns the number of classes. */
static int64_t make_row(uint64_t *state, int i, double *x)
{
    const row_kind kind = (row_kind)(i / 2 % ROW_KINDS);
    const int64_t classes = 1 + below(state, MAX_CLASSES);
    const int64_t odd_one = below(state, classes);
    for (int64_t c = 0; c < classes; c++)
        x[c] = logit(state, kind);
    if (kind == ROW_CONFIDENT)
        x[odd_one] += uniform(state, 20.0, 80.0);
    if (kind == ROW_VERY_CONFIDENT)
        x[odd_one] += uniform(state, 80.0, 690.0);
    if (kind == ROW_ONE_HUGE)
        x[odd_one] = either_sign(state, 1e30);
    if (kind == ROW_HOLES)
        x[odd_one] = uniform(state, -9.0, 9.0);
    for (int64_t c = 0; c < classes && i % 2; c++)
        x[c] = (double)(float)x[c];
    return classes;
}

/* Comparison --------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    long double worst;
    long compared;
    int number; /* of the row or point, for the message of a failure */
} tally;

static void report(const tally *t)
{
    if (t->worst > 0.0L)
        print_message("# %-32s worst 2^%.2f of %ld\n", t->name, (double)log2l(t->worst),
                      t->compared);
    else
        print_message("# %-32s all exact of %ld\n", t->name, t->compared);
}

static void fail_with(const tally *t, long double got, mpfr_srcptr want)
{
    print_error("%s: number %d, seed %llu: got %La, want %La\n", t->name, t->number,
                (unsigned long long)SEED, got, mpfr_get_ld(want, MPFR_RNDN));
    fail();
}

/* The error of got, relative to scale: want itself, or its terms.  Results too small for any f64,
 * of which the references may have lost every digit, need only be as small. */
static void compare(tally *t, long double got, mpfr_srcptr want, mpfr_srcptr scale)
{
    t->compared++;
    if (mpfr_inf_p(want)) {
        if (got != mpfr_get_ld(want, MPFR_RNDN))
            fail_with(t, got, want);
        return;
    }
    if (mpfr_zero_p(scale) || mpfr_get_exp(scale) < -1100) {
        if (!(fabsl(got) < 0x1p-1099L))
            fail_with(t, got, want);
        return;
    }
    mpfr_t error;
    mpfr_init(error);
    mpfr_set_ld(error, got, MPFR_RNDN);
    mpfr_sub(error, error, want, MPFR_RNDN);
    mpfr_div(error, error, scale, MPFR_RNDN);
    const long double relative = fabsl(mpfr_get_ld(error, MPFR_RNDN));
    mpfr_clear(error);
    if (!(relative < tolerance))
        fail_with(t, got, want);
    t->worst = fmaxl(t->worst, relative);
}

/* Rows --------------------------------------------------------------------------------------- */

static mpfr_t ref_e[MAX_CLASSES], ref_max, ref_sum, ref_log_sum; /* of the current row */
static mpfr_t a, b, sum, magnitude, want;                        /* scratch */

static int set_up(void **state)
{
    (void)state;
    mpfr_set_default_prec(PRECISION);
    for (int c = 0; c < MAX_CLASSES; c++)
        mpfr_init(ref_e[c]);
    mpfr_inits(ref_max, ref_sum, ref_log_sum, a, b, sum, magnitude, want, (mpfr_ptr)0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int c = 0; c < MAX_CLASSES; c++)
        mpfr_clear(ref_e[c]);
    mpfr_clears(ref_max, ref_sum, ref_log_sum, a, b, sum, magnitude, want, (mpfr_ptr)0);
    mpfr_free_cache();
    return 0;
}

static void reference_row(const double *x, int64_t classes)
{
    mpfr_set_inf(ref_max, -1);
    for (int64_t c = 0; c < classes; c++) {
        mpfr_set_d(a, x[c], MPFR_RNDN);
        mpfr_max(ref_max, ref_max, a, MPFR_RNDN);
    }
    mpfr_set_zero(ref_sum, 1);
    for (int64_t c = 0; c < classes; c++) {
        mpfr_d_sub(a, x[c], ref_max, MPFR_RNDN);
        mpfr_exp(ref_e[c], a, MPFR_RNDN);
        mpfr_add(ref_sum, ref_sum, ref_e[c], MPFR_RNDN);
    }
    mpfr_log(ref_log_sum, ref_sum, MPFR_RNDN);
}

/* want = lse(x) - value */
static void reference_lse_minus(double value)
{
    mpfr_sub_d(want, ref_max, value, MPFR_RNDN);
    mpfr_add(want, want, ref_log_sum, MPFR_RNDN);
}

static void test_softmax(void **unused)
{
    (void)unused;
    tally softmax = {.name = "softmax"}, log_softmax = {.name = "log-softmax"};
    tally lse = {.name = "log-sum-exp (terms)"};
    uint64_t state = SEED;
    for (int i = 0; i < ROWS; i++) {
        double x[MAX_CLASSES];
        long double p[MAX_CLASSES], lp[MAX_CLASSES], terms;
        const int64_t classes = make_row(&state, i, x);
        softmax.number = log_softmax.number = lse.number = i;
        reference_row(x, classes);
        oracle_softmax(x, classes, p);
        oracle_log_softmax(x, classes, lp);
        for (int64_t c = 0; c < classes; c++) {
            mpfr_div(want, ref_e[c], ref_sum, MPFR_RNDN);
            compare(&softmax, p[c], want, want);
            reference_lse_minus(x[c]);
            mpfr_neg(want, want, MPFR_RNDN);
            compare(&log_softmax, lp[c], want, want);
        }
        reference_lse_minus(0.0);
        const long double got = oracle_log_sum_exp(x, classes, &terms);
        mpfr_set_ld(magnitude, terms, MPFR_RNDN);
        compare(&lse, got, want, magnitude);
    }
    report(&softmax);
    report(&log_softmax);
    report(&lse);
}

static void test_cross_entropy(void **unused)
{
    (void)unused;
    tally loss = {.name = "cross-entropy"}, gradient = {.name = "cross-entropy gradient"};
    uint64_t state = SEED + 1;
    for (int i = 0; i < ROWS; i++) {
        double x[MAX_CLASSES];
        long double grad[MAX_CLASSES];
        const int64_t classes = make_row(&state, i, x);
        const int64_t label = below(&state, classes);
        const double weight = i % 3 ? uniform(&state, 0.0, 4.0) : 1.0;
        loss.number = gradient.number = i;
        reference_row(x, classes);
        const long double got = oracle_cross_entropy(x, classes, label, weight, grad);
        reference_lse_minus(x[label]);
        mpfr_mul_d(want, want, weight, MPFR_RNDN);
        compare(&loss, got, want, want);
        for (int64_t c = 0; c < classes; c++) {
            mpfr_div(want, ref_e[c], ref_sum, MPFR_RNDN);
            mpfr_sub_ui(want, want, c == label, MPFR_RNDN);
            mpfr_mul_d(want, want, weight, MPFR_RNDN);
            compare(&gradient, grad[c], want, want);
        }
    }
    report(&loss);
    report(&gradient);
}

/* dx_i = sum_j g_j dy_j/dx_i = sum_j g_j y_j ([i = j] - y_i), with its terms g_j y_j and y_i taken
 * apart as in the oracle: magnitude = |y_i| (|g_i| + sum_j |g_j y_j|) */
static void reference_softmax_backward(const double *y, const double *g, int64_t classes,
                                       int64_t i)
{
    mpfr_set_zero(want, 1);
    mpfr_set_d(magnitude, fabs(g[i]), MPFR_RNDN);
    for (int64_t j = 0; j < classes; j++) {
        mpfr_set_d(a, g[j], MPFR_RNDN);
        mpfr_mul_d(a, a, y[j], MPFR_RNDN);
        mpfr_abs(b, a, MPFR_RNDN);
        mpfr_add(magnitude, magnitude, b, MPFR_RNDN);
        mpfr_mul_d(b, a, y[i], MPFR_RNDN);
        mpfr_sub(want, want, b, MPFR_RNDN);
    }
    mpfr_set_d(a, g[i], MPFR_RNDN);
    mpfr_mul_d(a, a, y[i], MPFR_RNDN);
    mpfr_add(want, want, a, MPFR_RNDN);
    mpfr_mul_d(magnitude, magnitude, fabs(y[i]), MPFR_RNDN);
}

static void reference_log_softmax_backward(const double *lp, const double *g, int64_t classes,
                                           int64_t i)
{
    mpfr_set_zero(want, 1);
    mpfr_set_zero(magnitude, 1);
    mpfr_set_d(a, lp[i], MPFR_RNDN);
    mpfr_exp(a, a, MPFR_RNDN);
    for (int64_t j = 0; j < classes; j++) {
        mpfr_mul_d(b, a, g[j], MPFR_RNDN);
        mpfr_sub(want, want, b, MPFR_RNDN);
        mpfr_abs(b, b, MPFR_RNDN);
        mpfr_add(magnitude, magnitude, b, MPFR_RNDN);
    }
    mpfr_add_d(want, want, g[i], MPFR_RNDN);
    mpfr_add_d(magnitude, magnitude, fabs(g[i]), MPFR_RNDN);
}

static void compare_with_terms(tally *t, tally *of_terms, long double got, long double terms)
{
    compare(t, got, want, magnitude);
    compare(of_terms, terms, magnitude, magnitude);
}

static void test_backward(void **unused)
{
    (void)unused;
    tally plain = {.name = "softmax backward (terms)"};
    tally logarithm = {.name = "log-softmax backward (terms)"};
    tally of_terms = {.name = "terms of both"};
    uint64_t state = SEED + 2;
    for (int i = 0; i < ROWS; i++) {
        double x[MAX_CLASSES], y[MAX_CLASSES], lp[MAX_CLASSES], g[MAX_CLASSES];
        long double out[MAX_CLASSES], terms[MAX_CLASSES];
        const int64_t classes = make_row(&state, i, x);
        plain.number = logarithm.number = of_terms.number = i;
        oracle_softmax(x, classes, out);
        for (int64_t c = 0; c < classes; c++) {
            y[c] = i % 2 ? (double)(float)out[c] : (double)out[c];
            g[c] = either_sign(&state, exp2(uniform(&state, -20.0, 20.0)));
        }
        oracle_log_softmax(x, classes, out);
        for (int64_t c = 0; c < classes; c++)
            lp[c] = i % 2 ? (double)(float)out[c] : (double)out[c];
        oracle_softmax_backward(y, g, classes, out, terms);
        for (int64_t c = 0; c < classes; c++) {
            reference_softmax_backward(y, g, classes, c);
            compare_with_terms(&plain, &of_terms, out[c], terms[c]);
        }
        oracle_log_softmax_backward(lp, g, classes, out, terms);
        for (int64_t c = 0; c < classes; c++) {
            reference_log_softmax_backward(lp, g, classes, c);
            compare_with_terms(&logarithm, &of_terms, out[c], terms[c]);
        }
    }
    report(&plain);
    report(&logarithm);
    report(&of_terms);
}

/* Sigmoid losses ----------------------------------------------------------------------------- */

typedef struct {
    double target;
    double pos_weight;
    double alpha; /* < 0: off */
    double gamma; /* < 0: binary cross-entropy */
} sigmoid_loss;

/* out = -(pw t log p + (1 - t) log(1 - p)), or -(a_t (1 - p_t)^gamma log p_t), at x in MPFR */
static void reference_sigmoid_loss(mpfr_ptr out, mpfr_srcptr x, const sigmoid_loss *l)
{
    mpfr_t p, q, log_q;
    mpfr_inits(p, q, log_q, (mpfr_ptr)0);
    mpfr_neg(p, x, MPFR_RNDN);
    mpfr_exp(p, p, MPFR_RNDN);
    mpfr_add_ui(p, p, 1, MPFR_RNDN);
    mpfr_ui_div(p, 1, p, MPFR_RNDN);
    mpfr_ui_sub(q, 1, p, MPFR_RNDN);
    if (l->gamma >= 0.0) {
        if (l->target == 0.0)
            mpfr_swap(p, q);
        mpfr_log(out, p, MPFR_RNDN);
        mpfr_set_d(p, l->gamma, MPFR_RNDN);
        mpfr_pow(q, q, p, MPFR_RNDN);
        mpfr_mul(out, out, q, MPFR_RNDN);
        mpfr_set_d(p, l->alpha < 0.0 ? 1.0 : l->alpha, MPFR_RNDN);
        if (l->alpha >= 0.0 && l->target == 0.0)
            mpfr_ui_sub(p, 1, p, MPFR_RNDN);
        mpfr_mul(out, out, p, MPFR_RNDN);
    } else {
        mpfr_log(out, p, MPFR_RNDN);
        mpfr_mul_d(out, out, l->pos_weight, MPFR_RNDN);
        mpfr_mul_d(out, out, l->target, MPFR_RNDN);
        mpfr_log(log_q, q, MPFR_RNDN);
        mpfr_set_d(q, l->target, MPFR_RNDN);
        mpfr_ui_sub(q, 1, q, MPFR_RNDN);
        mpfr_mul(log_q, log_q, q, MPFR_RNDN);
        mpfr_add(out, out, log_q, MPFR_RNDN);
    }
    mpfr_neg(out, out, MPFR_RNDN);
    mpfr_clears(p, q, log_q, (mpfr_ptr)0);
}

/* out = (loss(x + h) - loss(x - h)) / 2h */
static void reference_sigmoid_gradient(mpfr_ptr out, double x, const sigmoid_loss *l)
{
    mpfr_t at, left;
    mpfr_inits(at, left, (mpfr_ptr)0);
    mpfr_set_ui_2exp(out, 1, STEP_EXPONENT, MPFR_RNDN);
    mpfr_d_sub(at, x, out, MPFR_RNDN);
    reference_sigmoid_loss(left, at, l);
    mpfr_set_ui_2exp(out, 1, STEP_EXPONENT, MPFR_RNDN);
    mpfr_add_d(at, out, x, MPFR_RNDN);
    reference_sigmoid_loss(out, at, l);
    mpfr_sub(out, out, left, MPFR_RNDN);
    mpfr_div_2si(out, out, STEP_EXPONENT + 1, MPFR_RNDN);
    mpfr_clears(at, left, (mpfr_ptr)0);
}

static void reference_sigmoid_loss_at(mpfr_ptr out, double x, const sigmoid_loss *l)
{
    mpfr_set_d(a, x, MPFR_RNDN);
    reference_sigmoid_loss(out, a, l);
}

static double point(uint64_t *state, int i)
{
    static const double fixed[] = {0.0,  -0.0,  100.0,  -100.0, 17.0,
                                   -17.0, 88.73, -88.73, 700.0,  -700.0};
    if (i < (int)(sizeof fixed / sizeof *fixed))
        return fixed[i];
    switch (i % 4) {
    case 0: return uniform(state, -4.0, 4.0);
    case 1: return uniform(state, -700.0, 700.0);
    case 2: return either_sign(state, exp2(uniform(state, -140.0, 7.0)));
    default: return (double)(float)uniform(state, -100.0, 100.0);
    }
}

static void test_binary_cross_entropy(void **unused)
{
    (void)unused;
    tally loss = {.name = "binary cross-entropy"}, gradient = {.name = "its gradient (terms)"};
    tally hard = {.name = "its gradient for t = 0, 1"};
    uint64_t state = SEED + 3;
    for (int i = 0; i < POINTS; i++) {
        const double x = point(&state, i);
        const double t = i % 3 ? (double)(i % 3 - 1) : uniform(&state, 0.0, 1.0);
        const sigmoid_loss l = {t, i % 5 ? 1.0 : uniform(&state, 0.0, 50.0), -1.0, -1.0};
        long double grad, terms;
        loss.number = gradient.number = hard.number = i;
        const long double got = oracle_binary_cross_entropy(x, t, l.pos_weight, &grad, &terms);
        reference_sigmoid_loss_at(want, x, &l);
        compare(&loss, got, want, want);
        reference_sigmoid_gradient(want, x, &l);
        mpfr_set_ld(magnitude, terms, MPFR_RNDN);
        compare(&gradient, grad, want, magnitude);
        if (i % 3)
            compare(&hard, grad, want, want);
    }
    report(&loss);
    report(&gradient);
    report(&hard);
}

static double some_gamma(uint64_t *state, int i)
{
    static const double fixed[] = {0.0, 0.5, 1.0, 2.0, 5.0};
    return i % 2 ? fixed[i / 2 % 5] : uniform(state, 0.0, 5.0);
}

static void test_sigmoid_focal(void **unused)
{
    (void)unused;
    tally loss = {.name = "sigmoid focal"}, gradient = {.name = "sigmoid focal gradient"};
    uint64_t state = SEED + 4;
    for (int i = 0; i < POINTS; i++) {
        const double x = point(&state, i);
        const double alpha = i % 3 ? 0.25 : -1.0;
        const int target = (int)below(&state, 2);
        const sigmoid_loss l = {(double)target, 1.0, alpha, some_gamma(&state, i)};
        long double grad;
        loss.number = gradient.number = i;
        const long double got = oracle_sigmoid_focal(x, target, alpha, l.gamma, &grad);
        reference_sigmoid_loss_at(want, x, &l);
        compare(&loss, got, want, want);
        reference_sigmoid_gradient(want, x, &l);
        compare(&gradient, grad, want, want);
    }
    report(&loss);
    report(&gradient);
}

/* want = weight sum_i loss(x_i), l->target set for each class in turn; grad against its own */
static void reference_sigmoid_row(const double *x, int64_t classes, int64_t label, double weight,
                                  sigmoid_loss *l, tally *gradient, const long double *grad)
{
    mpfr_set_zero(sum, 1);
    for (int64_t c = 0; c < classes; c++) {
        l->target = c == label;
        reference_sigmoid_gradient(want, x[c], l);
        mpfr_mul_d(want, want, weight, MPFR_RNDN);
        compare(gradient, grad[c], want, want);
        reference_sigmoid_loss_at(want, x[c], l);
        mpfr_add(sum, sum, want, MPFR_RNDN);
    }
    mpfr_mul_d(want, sum, weight, MPFR_RNDN);
}

static void test_class_balanced(void **unused)
{
    (void)unused;
    tally loss = {.name = "class-balanced sigmoid, focal"}, gradient = {.name = "their gradients"};
    uint64_t state = SEED + 5;
    for (int i = 0; i < POINTS / 8; i++) {
        double x[4];
        long double grad[4];
        const int64_t classes = 1 + below(&state, 4), label = below(&state, classes + 1) - 1;
        const double weight = uniform(&state, 0.0, 4.0);
        sigmoid_loss l = {0.0, 1.0, -1.0, i % 2 ? some_gamma(&state, i) : -1.0};
        for (int64_t c = 0; c < classes; c++)
            x[c] = point(&state, 16 + (int)below(&state, 100));
        loss.number = gradient.number = i;
        const long double got =
            i % 2 ? oracle_class_balanced_focal(x, classes, label, weight, l.gamma, grad)
                  : oracle_class_balanced_sigmoid(x, classes, label, weight, grad);
        reference_sigmoid_row(x, classes, label, weight, &l, &gradient, grad);
        compare(&loss, got, want, want);
    }
    report(&loss);
    report(&gradient);
}

/* Logits [[.78, .1, .05], [.78, .83, .05]], labels [0, 2], counts [30, 100, 25], beta .999 and
 * gamma 2: the figures that the authors' own code gives. */
static void test_golden_vector(void **unused)
{
    (void)unused;
    static const double x[2][3] = {{0.78, 0.1, 0.05}, {0.78, 0.83, 0.05}};
    static const int64_t labels[2] = {0, 2};
    static const int counts[3] = {30, 100, 25};
    static const long double golden[3] = {1.196368092733L, 0.371560183609L, 1.432071723658L};
    long double w[3], total = 0.0L, softmax = 0.0L, sigmoid = 0.0L, focal = 0.0L;
    for (int c = 0; c < 3; c++) {
        w[c] = (1.0L - 0.999L) / (1.0L - powl(0.999L, counts[c]));
        total += w[c];
    }
    for (int c = 0; c < 3; c++) {
        w[c] *= 3.0L / total;
        assert_true(fabsl(w[c] - golden[c]) < 1e-12L);
    }
    for (int i = 0; i < 2; i++) {
        const long double weight = w[labels[i]];
        softmax += oracle_class_balanced_softmax(x[i], 3, labels[i], weight, NULL);
        sigmoid += oracle_class_balanced_sigmoid(x[i], 3, labels[i], weight, NULL);
        focal += oracle_class_balanced_focal(x[i], 3, labels[i], weight, 2.0, NULL);
    }
    assert_true(fabsl(softmax / 2.0L - 1.599431860650L) < 1e-12L);
    assert_true(fabsl(softmax / (w[0] + w[2]) - 1.217019960416L) < 1e-12L);
    assert_true(fabsl(sigmoid / 2.0L - 3.261559572710L) < 1e-12L);
    assert_true(fabsl(focal / 2.0L - 1.175118066658L) < 1e-12L);
}

/* Reductions --------------------------------------------------------------------------------- */

typedef enum { SUM, MEAN, SQUARES, DOT, REDUCTIONS } reduction;

/* want and magnitude: the sum and its terms; y holds weights, or the other factor of the dot */
static void reference_reduction(reduction kind, const double *x, const double *y, int64_t n)
{
    mpfr_set_zero(want, 1);
    mpfr_set_zero(magnitude, 1);
    mpfr_set_zero(sum, 1);
    for (int64_t i = 0; i < n; i++) {
        mpfr_set_d(a, x[i], MPFR_RNDN);
        if (kind == SQUARES)
            mpfr_mul_d(a, a, x[i], MPFR_RNDN);
        mpfr_mul_d(a, a, y[i], MPFR_RNDN);
        mpfr_add(want, want, a, MPFR_RNDN);
        mpfr_abs(a, a, MPFR_RNDN);
        mpfr_add(magnitude, magnitude, a, MPFR_RNDN);
        mpfr_add_d(sum, sum, y[i], MPFR_RNDN);
    }
    if (kind == MEAN) {
        mpfr_div(want, want, sum, MPFR_RNDN);
        mpfr_div(magnitude, magnitude, sum, MPFR_RNDN);
    }
}

static long double oracle_reduction(reduction kind, const double *x, const double *y, int64_t n,
                                    long double *terms)
{
    switch (kind) {
    case SUM: return oracle_weighted_sum(x, y, n, terms);
    case MEAN: return oracle_weighted_mean(x, y, n, terms);
    case SQUARES: return oracle_sum_of_squares(x, y, n, terms);
    default: return oracle_dot(x, y, n, terms);
    }
}

static void test_reductions(void **unused)
{
    (void)unused;
    tally results[REDUCTIONS] = {{.name = "weighted sum (terms)"},
                                 {.name = "weighted mean (terms)"},
                                 {.name = "sum of squares (terms)"},
                                 {.name = "dot (terms)"}};
    tally of_terms = {.name = "terms of reductions"};
    uint64_t state = SEED + 6;
    for (int i = 0; i < ROWS; i++) {
        const reduction kind = (reduction)(i % REDUCTIONS);
        const int64_t n = 1 + below(&state, MAX_TERMS);
        double x[MAX_TERMS], y[MAX_TERMS];
        long double terms;
        for (int64_t k = 0; k < n; k++) {
            x[k] = either_sign(&state, exp2(uniform(&state, -60.0, 60.0)));
            y[k] = exp2(uniform(&state, -5.0, 5.0));
            if (kind == DOT)
                y[k] = either_sign(&state, y[k]);
        }
        results[kind].number = of_terms.number = i;
        const long double got = oracle_reduction(kind, x, y, n, &terms);
        reference_reduction(kind, x, y, n);
        compare_with_terms(&results[kind], &of_terms, got, terms);
    }
    for (int kind = 0; kind < REDUCTIONS; kind++)
        report(&results[kind]);
    report(&of_terms);
}

/* log sum w e^x, its largest exponent taken out: MPFR's exponents end near 2^62 */
static void reference_weighted_lse(const double *x, const double *w, int64_t n)
{
    double max = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        max = w[i] > 0.0 && x[i] > max ? x[i] : max;
    mpfr_set_zero(sum, 1);
    for (int64_t i = 0; i < n; i++) {
        mpfr_set_d(a, x[i], MPFR_RNDN);
        mpfr_sub_d(a, a, max, MPFR_RNDN);
        mpfr_exp(a, a, MPFR_RNDN);
        mpfr_mul_d(a, a, w[i], MPFR_RNDN);
        if (w[i] > 0.0)
            mpfr_add(sum, sum, a, MPFR_RNDN);
    }
    mpfr_log(want, sum, MPFR_RNDN);
    mpfr_add_d(want, want, max, MPFR_RNDN);
}

static void test_weighted_log_sum_exp(void **unused)
{
    (void)unused;
    tally lse = {.name = "weighted log-sum-exp (terms)"};
    uint64_t state = SEED + 7;
    for (int i = 0; i < ROWS; i++) {
        double x[MAX_CLASSES], w[MAX_CLASSES];
        long double terms;
        const int64_t n = make_row(&state, i, x);
        const double range = i % 3 ? 1.0 : 900.0;
        for (int64_t k = 0; k < n; k++)
            w[k] = below(&state, 8) ? exp2(uniform(&state, -range, range)) : 0.0;
        const int64_t counted = below(&state, n);
        w[counted] = 1.0;
        if (x[counted] == -INFINITY)
            x[counted] = 1.0;
        lse.number = i;
        reference_weighted_lse(x, w, n);
        const long double got = oracle_weighted_log_sum_exp(x, w, n, &terms);
        mpfr_set_ld(magnitude, terms, MPFR_RNDN);
        compare(&lse, got, want, magnitude);
    }
    report(&lse);
}

static void test_per_class(void **unused)
{
    (void)unused;
    static const double x[] = {1.5, 0x1p60, -2.0, 0.25, 0x1p-60, 7.0, -0x1p60};
    static const int64_t labels[] = {0, 2, 0, -100, 2, 4, 2};
    long double sums[4], means[4], terms[4];
    int64_t counts[4];
    oracle_class_sums(x, labels, 7, 4, sums, terms, counts);
    assert_true(sums[0] == -0.5L && sums[1] == 0.0L && sums[2] == 0x1p-60L && sums[3] == 0.0L);
    assert_true(terms[0] == 3.5L && terms[1] == 0.0L && terms[2] == 0x1p61L);
    assert_true(counts[0] == 2 && counts[1] == 0 && counts[2] == 3 && counts[3] == 0);
    oracle_class_means(x, labels, 7, 4, means, terms, counts);
    assert_true(means[0] == -0.25L && isnan(means[1]) && means[2] == 0x1p-60L / 3.0L);
    assert_true(terms[0] == 1.75L && counts[2] == 3);
    assert_true(oracle_weighted_sum(x, NULL, 7, NULL) == 6.75L + 0x1p-60L);
    assert_true(oracle_weighted_mean(x, NULL, 4, NULL) == (0x1p60L - 0.25L) / 4.0L);
}

static void test_special_sums(void **unused)
{
    (void)unused;
    static const double x[] = {1.0, INFINITY, -1.0, -INFINITY, NAN};
    long double terms;
    assert_true(oracle_weighted_sum(x, NULL, 3, &terms) == INFINITY && terms == INFINITY);
    assert_true(oracle_sum_of_squares(x, NULL, 4, NULL) == INFINITY);
    assert_true(oracle_dot(x + 2, x + 2, 2, NULL) == INFINITY);
    assert_true(isnan(oracle_weighted_sum(x, NULL, 4, NULL)));
    assert_true(isnan(oracle_weighted_mean(x, NULL, 5, NULL)));
    assert_true(oracle_weighted_sum(x, NULL, 0, &terms) == 0.0L && terms == 0.0L);
    assert_true(isnan(oracle_weighted_mean(x, NULL, 0, NULL)));
}

/* Special values ----------------------------------------------------------------------------- */

static void assert_row_is_nan(const double *x, int64_t classes)
{
    long double out[3], grad[3], terms;
    oracle_softmax(x, classes, out);
    oracle_log_softmax(x, classes, grad);
    for (int64_t c = 0; c < classes; c++)
        assert_true(isnan(out[c]) && isnan(grad[c]));
    assert_true(isnan(oracle_log_sum_exp(x, classes, &terms)) && isnan(terms));
    assert_true(isnan(oracle_weighted_log_sum_exp(x, NULL, classes, &terms)) && isnan(terms));
    assert_true(isnan(oracle_cross_entropy(x, classes, 0, 1.0L, out)));
    for (int64_t c = 0; c < classes; c++)
        assert_true(isnan(out[c]));
}

static void test_special_rows(void **unused)
{
    (void)unused;
    static const double not_a_number[] = {1.0, NAN, 2.0}, infinite[] = {1.0, INFINITY, 2.0};
    static const double empty[] = {-INFINITY, -INFINITY}, hole[] = {0.0, -INFINITY, 0.0};
    long double p[3], lp[3], grad[3];
    assert_row_is_nan(not_a_number, 3);
    assert_row_is_nan(infinite, 3);
    assert_row_is_nan(empty, 2);
    oracle_softmax(hole, 3, p);
    oracle_log_softmax(hole, 3, lp);
    assert_true(p[0] == 0.5L && p[1] == 0.0L && lp[1] == -INFINITY && lp[2] == -logl(2.0L));
    assert_true(oracle_cross_entropy(hole, 3, 1, 2.0L, grad) == INFINITY);
    assert_true(grad[0] == 1.0L && grad[1] == -2.0L && grad[2] == 1.0L);
    assert_true(oracle_cross_entropy(hole, 3, 1, 0.0L, grad) == 0.0L);
    assert_true(isnan(oracle_cross_entropy(hole, 3, 3, 1.0L, grad)) && isnan(grad[0]));
    assert_true(oracle_cross_entropy(hole, 1, 0, 1.0L, grad) == 0.0L && grad[0] == 0.0L);
}

static void test_special_points(void **unused)
{
    (void)unused;
    long double grad;
    assert_true(oracle_binary_cross_entropy(INFINITY, 1.0, 3.0L, &grad, NULL) == 0.0L);
    assert_true(grad == 0.0L);
    assert_true(oracle_binary_cross_entropy(INFINITY, 0.0, 3.0L, &grad, NULL) == INFINITY);
    assert_true(grad == 1.0L);
    assert_true(oracle_binary_cross_entropy(-INFINITY, 1.0, 3.0L, &grad, NULL) == INFINITY);
    assert_true(grad == -3.0L);
    assert_true(oracle_binary_cross_entropy(-INFINITY, 0.0, 3.0L, &grad, NULL) == 0.0L);
    assert_true(oracle_binary_cross_entropy(-INFINITY, 0.5, 3.0L, &grad, NULL) == INFINITY);
    assert_true(grad == -1.5L);
    assert_true(isnan(oracle_binary_cross_entropy(NAN, 1.0, 1.0L, &grad, NULL)) && isnan(grad));
    assert_true(oracle_binary_cross_entropy(-1e30, 1.0, 1.0L, &grad, NULL) == (long double)1e30);
    for (double gamma = 0.0; gamma <= 5.0; gamma += 0.5) {
        assert_true(oracle_sigmoid_focal(INFINITY, 1, -1.0, gamma, &grad) == 0.0L && grad == 0.0L);
        assert_true(oracle_sigmoid_focal(1e30, 1, -1.0, gamma, &grad) == 0.0L && grad == 0.0L);
        assert_true(oracle_sigmoid_focal(INFINITY, 0, -1.0, gamma, &grad) == INFINITY);
        assert_true(grad == 1.0L);
        assert_true(oracle_sigmoid_focal(1e30, 0, -1.0, gamma, &grad) == (long double)1e30);
        assert_true(grad == 1.0L);
        assert_true(oracle_sigmoid_focal(-INFINITY, 1, 0.25, gamma, &grad) == INFINITY);
        assert_true(grad == -0.25L);
        assert_true(isnan(oracle_sigmoid_focal(NAN, 1, -1.0, gamma, &grad)) && isnan(grad));
    }
}

static void test_ulp(void **unused)
{
    (void)unused;
    assert_true(ulp_error_f32(1.0f, 1.0L) == 0.0 && ulp_error_f32(-0.0f, 0.0L) == 0.0);
    assert_true(ulp_error_f32(1.0f + FLT_EPSILON, 1.0L) == 1.0);
    assert_true(ulp_error_f32(1.0f, 1.0L - 0x1p-26L) == 0.125);
    assert_true(ulp_error_f32(-2.0f, 2.0L) == 0x1p24);
    assert_true(ulp_error_f32(0x1p-100f, 0x1p-100L + 0x1p-124L) == 0.5);
    assert_true(ulp_error_f32(0.0f, 0x1.fffp-126L) == 0.0);
    assert_true(ulp_error_f32(0.0f, -0x1p-149L) == 0.0);
    assert_true(ulp_error_f32(0x1.8p-126f, 0x1p-127L) == 0.0);
    assert_true(ulp_error_f32(0x1p-125f, 0x1p-127L) == 0x1.8p23);
    assert_true(ulp_error_f32(0.0f, 0x1p-125L) == 0x1p23);
    assert_true(ulp_error_f32(NAN, NAN) == 0.0 && isinf(ulp_error_f32(NAN, 1.0L)));
    assert_true(isinf(ulp_error_f32(1.0f, NAN)) && isinf(ulp_error_f32(0.0f, NAN)));
    assert_true(ulp_error_f32(INFINITY, INFINITY) == 0.0 && ulp_error_f32(INFINITY, 1e60L) == 0.0);
    assert_true(isinf(ulp_error_f32(INFINITY, -INFINITY)) && isinf(ulp_error_f32(INFINITY, 1e38L)));
    assert_true(isinf(ulp_error_f32(FLT_MAX, INFINITY)));
    assert_true(ulp_error_f32(FLT_MAX, 0x1p128L) == 1.0);
    assert_true(ulp_error_f64(1.0 + DBL_EPSILON, 1.0L) == 1.0 && ulp_error_f64(NAN, NAN) == 0.0);
    assert_true(ulp_error_f64(1.0, 1.0L + 0x1p-60L) == 0x1p-8);
    assert_true(ulp_error_f64(0.0, 0x1p-1022L) == 0.0 && ulp_error_f64(0.0, 0x1p-1021L) == 0x1p52);
    assert_true(ulp_error_of_terms_f32(0.0f, 0x1p-24L, 1.0L) == 0.5);
    assert_true(ulp_error_of_terms_f32(0x1p-23f, 0.0L, 2.5L) == 0.5);
    assert_true(ulp_error_of_terms_f32(NAN, NAN, NAN) == 0.0);
    assert_true(ulp_error_of_terms_f32(-INFINITY, -INFINITY, INFINITY) == 0.0);
    assert_true(isinf(ulp_error_of_terms_f32(1.0f, 1.0L, NAN)));
    assert_true(ulp_error_of_terms_f64(0x1p-52, 0.0L, 3.0L) == 0.5);
    assert_true(ulp_error_bf16(1.0f, 1.0L + 0x1p-8L) == 0.5);
    assert_true(ulp_error_bf16(0x1p-7f, 0.0L) == 0x1p126 && ulp_error_bf16(0.0f, 0x1p-126L) == 0.0);
    assert_true(ulp_error_bf16(INFINITY, 0x1.ffp127L) == 0.0);
    assert_true(isinf(ulp_error_bf16(INFINITY, 0x1.fep127L)));
    assert_true(ulp_error_f16(1.0f, 1.0L - 0x1p-13L) == 0.125);
    assert_true(ulp_error_f16(0.0f, 0x1p-25L) == 0.5 && ulp_error_f16(0.0f, 0x1p-14L) == 1024.0);
    assert_true(ulp_error_f16(INFINITY, 65520.0L) == 0.0);
    assert_true(isinf(ulp_error_f16(INFINITY, 65519.0L)));
    assert_true(ulp_error_of_terms_f16(0x1p-10f, 0.0L, 2.5L) == 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_softmax),          cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_backward),         cmocka_unit_test(test_binary_cross_entropy),
        cmocka_unit_test(test_sigmoid_focal),    cmocka_unit_test(test_class_balanced),
        cmocka_unit_test(test_golden_vector),    cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_per_class),        cmocka_unit_test(test_weighted_log_sum_exp),
        cmocka_unit_test(test_special_rows),     cmocka_unit_test(test_special_points),
        cmocka_unit_test(test_special_sums),     cmocka_unit_test(test_ulp),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
