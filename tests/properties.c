/* SPDX-License-Identifier: MIT */
/* Properties: what follows from the definitions, without knowing any result. Some hold in bits, by
 * the order in which things are computed; the others within the errors that the header grants. */
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

enum { ROWS = 21, MAX_CLASSES = 2100, MAX_ELEMENTS = ROWS * MAX_CLASSES };

static const int64_t widths[] = {1, 2, 3, 10, 16, 17, 63, 64, 65, 100, 259, 1000, 2049};
enum { WIDTHS = sizeof widths / sizeof widths[0] };

/* ---- What is being tested: an ISA's f32, or f64 -------------------------------------------- */

static bool f64;
static ballast_exec exec;
static char current[256];

static ballast_dtype real_dtype(void) { return f64 ? BALLAST_F64 : BALLAST_F32; }
static size_t real_size(void) { return f64 ? 8 : 4; }
static double epsilon(void) { return f64 ? DBL_EPSILON : (double)FLT_EPSILON; }

static double get(const void *data, int64_t i)
{
    return f64 ? ((const double *)data)[i] : (double)((const float *)data)[i];
}

static void set(void *data, int64_t i, double value)
{
    if (f64)
        ((double *)data)[i] = value;
    else
        ((float *)data)[i] = (float)value;
}

/* As stored. */
static double rounded(double value) { return f64 ? value : (double)(float)value; }

static bool library_has_f64(void)
{
    const double one = 1.0;
    double result;
    ballast_reduce_args a = BALLAST_REDUCE_ARGS;

    a.x = ballast_vector_f64(&one, 1);
    a.result = &result;
    return ballast_weighted_sum(&a, NULL) == BALLAST_OK;
}

/* The state is the ISA's name, or "f64": the one implementation of f64, as scalar calls it. */
static void begin(void **state)
{
    char reason[128] = "not in this library";

    f64 = strcmp(*state, "f64") == 0;
    exec = (ballast_exec)BALLAST_EXEC;
    exec.implementation = ballast_implementation_find(f64 ? "scalar" : *state);
    if (f64 ? library_has_f64()
            : exec.implementation &&
                  ballast_implementation_supported(exec.implementation, reason, sizeof reason))
        return;
    print_message("skipped %s: %s\n", (const char *)*state, reason);
    skip();
}

static void must(ballast_status status)
{
    if (status != BALLAST_OK)
        fail_msg("%s: %s", current, ballast_status_name(status));
}

/* ---- Data ---------------------------------------------------------------------------------- */

/* Of doubles, to hold either type. */
typedef double reals[MAX_ELEMENTS];

static int64_t classes;
static reals x, y, targets;
static uint8_t hard[MAX_ELEMENTS];
static int32_t labels[ROWS];
static double row_weight[ROWS], class_weight[MAX_CLASSES];

static uint32_t random_state = 1;

static double random_real(double low, double high)
{
    random_state = random_state * 1664525u + 1013904223u;
    return low + (high - low) * (double)(random_state >> 8) * 0x1p-24;
}

/* Multiples of `unit`, so that what is added to them leaves them exact. */
static void make_data(int64_t width, double range, double unit)
{
    classes = width;
    for (int64_t i = 0; i < ROWS * width; i++) {
        set(x, i, floor(random_real(-range, range) / unit) * unit);
        set(targets, i, random_real(0.0, 1.0));
    }
    for (int64_t r = 0; r < ROWS; r++) {
        labels[r] = (int32_t)(r * 5 % width);
        set(row_weight, r, random_real(0.1, 3.0));
    }
    for (int64_t c = 0; c < width; c++)
        set(class_weight, c, random_real(0.1, 3.0));
    memset(hard, 0, sizeof hard);
    for (int64_t r = 0; r < ROWS; r++)
        hard[r * width + labels[r]] = 1;
    snprintf(current, sizeof current, "%lld classes", (long long)width);
}

#define FOR_WIDTHS(range, unit)                                                                    \
    for (int w_ = 0; w_ < WIDTHS && (make_data(widths[w_], range, unit), true); w_++)

static ballast_const_tensor input(const void *data)
{
    return (ballast_const_tensor){data, real_dtype(), ROWS, classes, 1, classes, 1};
}

static ballast_tensor output(void *data)
{
    return (ballast_tensor){data, real_dtype(), ROWS, classes, 1, classes, 1};
}

/* ---- Everything that is computed of logits ------------------------------------------------- */

typedef struct outcome {
    reals softmax, log_softmax, grad, element_loss, element_grad, focal_loss, focal_grad;
    double lse[ROWS], loss[ROWS], element_rows[ROWS], focal_rows[ROWS]; /* f32 or f64 */
} outcome;

static outcome one, two;

static void run_softmax(const void *logits, outcome *o)
{
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;
    ballast_log_sum_exp_args l = BALLAST_LOG_SUM_EXP_ARGS;

    a.input = l.input = input(logits);
    a.output = output(o->softmax);
    must(ballast_softmax(&a, &exec));
    a.output = output(o->log_softmax);
    must(ballast_log_softmax(&a, &exec));
    l.output = o->lse;
    must(ballast_log_sum_exp(&l, &exec));
}

static void run_losses(const void *logits, outcome *o)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    ballast_binary_cross_entropy_args b = BALLAST_BINARY_CROSS_ENTROPY_ARGS;
    ballast_sigmoid_focal_args f = BALLAST_SIGMOID_FOCAL_ARGS;

    a.logits = b.logits = f.logits = input(logits);
    a.labels = b.labels = f.labels = ballast_labels_i32(labels);
    a.reduction = b.reduction = f.reduction = BALLAST_NONE;
    a.row_loss = o->loss;
    b.row_loss = o->element_rows;
    f.row_loss = o->focal_rows;
    a.grad = output(o->grad);
    b.grad = output(o->element_grad);
    f.grad = output(o->focal_grad);
    b.element_loss = output(o->element_loss);
    f.element_loss = output(o->focal_loss);
    must(ballast_cross_entropy(&a, &exec));
    must(ballast_binary_cross_entropy(&b, &exec));
    must(ballast_sigmoid_focal(&f, &exec));
}

static void run(const void *logits, outcome *o)
{
    run_softmax(logits, o);
    run_losses(logits, o);
}

/* ---- Comparisons --------------------------------------------------------------------------- */

static void check_same(const char *what, const void *a, const void *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (memcmp((const char *)a + (size_t)i * real_size(),
                   (const char *)b + (size_t)i * real_size(), real_size()) != 0)
            fail_msg("%s: %s[%lld]: %a and %a", current, what, (long long)i, get(a, i), get(b, i));
}

/* Within `ulps` of `scale`; what is below 2^-125 may be 0. */
static void check_near(const char *what, int64_t i, double a, double b, double ulps, double scale)
{
    const double tiny = f64 ? 4.0 * DBL_MIN : 4.0 * (double)FLT_MIN;

    if (!(fabs(a - b) <= ulps * epsilon() * fabs(scale) + tiny))
        fail_msg("%s: %s[%lld]: %a and %a", current, what, (long long)i, a, b);
}

static void check_all_near(const char *what, const void *a, const void *b, int64_t count,
                           double ulps)
{
    for (int64_t i = 0; i < count; i++)
        check_near(what, i, get(a, i), get(b, i), ulps, get(b, i));
}

/* ---- A constant added to every logit ------------------------------------------------------- */

static void check_shifted_near(double shift)
{
    check_all_near("softmax", two.softmax, one.softmax, ROWS * classes, 8.0);
    check_all_near("log_softmax", two.log_softmax, one.log_softmax, ROWS * classes, 8.0);
    check_all_near("loss", two.loss, one.loss, ROWS, 8.0);
    check_all_near("grad", two.grad, one.grad, ROWS * classes, 8.0);
    for (int64_t r = 0; r < ROWS; r++)
        check_near("log_sum_exp", r, get(two.lse, r), get(one.lse, r) + shift, 4.0,
                   fabs(get(one.lse, r)) + fabs(shift) + 32.0);
}

static void check_shifted_same(void)
{
    check_same("softmax", two.softmax, one.softmax, ROWS * classes);
    check_same("log_softmax", two.log_softmax, one.log_softmax, ROWS * classes);
    check_same("loss", two.loss, one.loss, ROWS);
    check_same("grad", two.grad, one.grad, ROWS * classes);
}

static void run_shifted(double shift, outcome *o)
{
    for (int64_t i = 0; i < ROWS * classes; i++)
        set(y, i, get(x, i) + shift);
    run(y, o);
    snprintf(current, sizeof current, "%lld classes, shifted by %g", (long long)classes, shift);
}

/* f32 reduces the logits themselves while their maximum is within 65536: there a shift may change
 * last digits, and nothing more. Beyond, and always in f64, logits are taken relative to the
 * maximum, and a shift that is exact changes no bit of anything but the log-sum-exp. */
static void shifts(void **state)
{
    static const double near[] = {1.0,     -1.0,   3.25,     -20.0,  100.0,
                                  -1000.0, 8192.0, -65000.0, 65472.0};
    static const double far[] = {65600.0, -65600.0, 100000.0, 131000.0, -120000.0};

    begin(state);
    FOR_WIDTHS(14.0, 0x1p-6)
    {
        run(x, &one);
        for (size_t k = 0; k < sizeof near / sizeof near[0]; k++) {
            run_shifted(near[k], &two);
            check_shifted_near(near[k]);
            if (f64)
                check_shifted_same();
        }
        if (!f64)
            run_shifted(far[0], &one);
        for (size_t k = 0; k < sizeof far / sizeof far[0]; k++) {
            run_shifted(far[k], &two);
            check_shifted_same();
        }
        run(x, &one);
        check_shifted_near(far[4]);
    }
}

/* ---- Order --------------------------------------------------------------------------------- */

/* Row r of `to` is row (r * 8 + 3) mod 21 of `from`: a permutation. */
static int64_t from_row(int64_t r) { return (r * 8 + 3) % ROWS; }

static void take_rows(void *to, const void *from, int64_t width)
{
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t c = 0; c < width; c++)
            set(to, r * width + c, get(from, from_row(r) * width + c));
}

static void check_rows_taken(const char *what, const void *permuted, const void *plain,
                             int64_t width)
{
    static reals expected;

    take_rows(expected, plain, width);
    check_same(what, permuted, expected, ROWS * width);
}

static void permuted_rows(void **state)
{
    int32_t own[ROWS];

    begin(state);
    FOR_WIDTHS(20.0, 0x1p-12)
    {
        run(x, &one);
        take_rows(y, x, classes);
        memcpy(own, labels, sizeof own);
        for (int64_t r = 0; r < ROWS; r++)
            labels[r] = own[from_row(r)];
        run(y, &two);
        check_rows_taken("softmax", two.softmax, one.softmax, classes);
        check_rows_taken("log_softmax", two.log_softmax, one.log_softmax, classes);
        check_rows_taken("grad", two.grad, one.grad, classes);
        check_rows_taken("element_loss", two.element_loss, one.element_loss, classes);
        check_rows_taken("element_grad", two.element_grad, one.element_grad, classes);
        check_rows_taken("focal_loss", two.focal_loss, one.focal_loss, classes);
        check_rows_taken("focal_grad", two.focal_grad, one.focal_grad, classes);
        check_rows_taken("log_sum_exp", two.lse, one.lse, 1);
        check_rows_taken("loss", two.loss, one.loss, 1);
        check_rows_taken("element_rows", two.element_rows, one.element_rows, 1);
        check_rows_taken("focal_rows", two.focal_rows, one.focal_rows, 1);
    }
}

/* Class c becomes class (classes - 1 - c): sums are taken in another order. Elements of the sigmoid
 * losses do not depend on each other, and keep their bits. */
static void reverse_rows(void *to, const void *from)
{
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t c = 0; c < classes; c++)
            set(to, r * classes + c, get(from, r * classes + classes - 1 - c));
}

static void permuted_classes(void **state)
{
    static reals back;

    begin(state);
    FOR_WIDTHS(20.0, 0x1p-12)
    {
        run(x, &one);
        reverse_rows(y, x);
        for (int64_t r = 0; r < ROWS; r++)
            labels[r] = (int32_t)(classes - 1 - labels[r]);
        run(y, &two);
        reverse_rows(back, two.softmax);
        check_all_near("softmax", back, one.softmax, ROWS * classes, 8.0);
        reverse_rows(back, two.log_softmax);
        check_all_near("log_softmax", back, one.log_softmax, ROWS * classes, 8.0);
        reverse_rows(back, two.grad);
        check_all_near("grad", back, one.grad, ROWS * classes, 8.0);
        check_all_near("loss", two.loss, one.loss, ROWS, 8.0);
        check_all_near("element_rows", two.element_rows, one.element_rows, ROWS, 4.0);
        check_all_near("focal_rows", two.focal_rows, one.focal_rows, ROWS, 4.0);
        reverse_rows(back, two.element_loss);
        check_same("element_loss", back, one.element_loss, ROWS * classes);
        reverse_rows(back, two.element_grad);
        check_same("element_grad", back, one.element_grad, ROWS * classes);
        reverse_rows(back, two.focal_grad);
        check_same("focal_grad", back, one.focal_grad, ROWS * classes);
    }
}

/* ---- Sums and signs ------------------------------------------------------------------------ */

static void rows_sum_up(void **state)
{
    begin(state);
    FOR_WIDTHS(20.0, 0x1p-12)
    {
        run(x, &one);
        for (int64_t r = 0; r < ROWS; r++) {
            long double p = 0.0L, g = 0.0L, size = 0.0L, rows = 0.0L;

            for (int64_t i = r * classes; i < (r + 1) * classes; i++) {
                p += (long double)get(one.softmax, i);
                g += (long double)get(one.grad, i);
                size += fabsl((long double)get(one.grad, i));
                rows += (long double)get(one.element_loss, i);
                assert_true(get(one.softmax, i) >= 0.0 && get(one.softmax, i) <= 1.0);
                assert_true(get(one.log_softmax, i) <= 0.0);
                assert_true(get(one.element_loss, i) >= 0.0 && get(one.focal_loss, i) >= 0.0);
            }
            check_near("sum of p", r, (double)p, 1.0, 4.0, 1.0);
            check_near("sum of grad", r, (double)g, 0.0, 4.0, (double)size);
            check_near("sum of elements", r, get(one.element_rows, r), (double)rows, 4.0,
                       (double)rows);
            assert_true(get(one.loss, r) >= 0.0);
        }
    }
}

/* Below 2^-125 a loss may be 0, and then stays 0. */
static bool is_less(const void *a, const void *b, int64_t i)
{
    return get(a, i) < get(b, i) || (get(a, i) == 0.0 && get(b, i) == 0.0);
}

/* The better the label's logit, the smaller the loss: a step is more than the error of two losses.
 */
static void monotone_in_the_label(void **state)
{
    begin(state);
    FOR_WIDTHS(5.0, 0x1p-12)
    {
        run(x, &one);
        for (int step = 0; step < 60; step++) {
            for (int64_t r = 0; r < ROWS; r++) {
                const int64_t i = r * classes + labels[r];

                set(x, i, get(x, i) + 0.5);
            }
            run(x, &two);
            for (int64_t r = 0; r < ROWS; r++) {
                const int64_t i = r * classes + labels[r];

                if (!is_less(two.loss, one.loss, r) ||
                    !is_less(two.element_loss, one.element_loss, i) ||
                    !is_less(two.focal_loss, one.focal_loss, i))
                    fail_msg("%s: row %lld: no less with a better logit %g", current, (long long)r,
                             get(x, i));
            }
            one = two;
        }
    }
}

/* log p = log_softmax, lse - x_y = loss, the gradient is p - [label]: each by its own kernel. */
static void pieces_agree(void **state)
{
    begin(state);
    FOR_WIDTHS(20.0, 0x1p-12)
    {
        run(x, &one);
        for (int64_t i = 0; i < ROWS * classes; i++) {
            const double log_p = get(one.log_softmax, i);
            const bool hit = hard[i] != 0;

            check_near("softmax", i, get(one.softmax, i), exp(log_p), 5.0 + 4.0 * fabs(log_p),
                       get(one.softmax, i));
            check_near("grad", i, get(one.grad, i), get(one.softmax, i) - (double)hit,
                       hit ? 5.0 : 9.0, hit ? 1.0 : get(one.softmax, i));
            if (hit)
                check_near("loss", i, get(one.loss, i / classes), -log_p, 8.0, log_p);
            check_near("log_softmax", i, log_p, get(x, i) - get(one.lse, i / classes), 5.0,
                       fabs(log_p) + fabs(get(x, i)) + 32.0);
        }
    }
}

/* ---- The same thing said in two ways ------------------------------------------------------- */

typedef struct factors {
    const void *class_weight, *row_weight, *grad_rows;
    double grad_scale;
    ballast_reduction reduction;
    ballast_denominator denominator;
    double denominator_value;
} factors;

static const factors no_factors = {NULL, NULL, NULL, 1.0, BALLAST_NONE, BALLAST_ROWS, 1.0};

enum loss_name { CROSS_ENTROPY, BINARY_CROSS_ENTROPY, SIGMOID_FOCAL, LOSSES };

#define SET_FACTORS(a)                                                                             \
    a.logits = input(x);                                                                           \
    a.labels = ballast_labels_i32(labels);                                                         \
    a.class_weight = f->class_weight;                                                              \
    a.row_weight = f->row_weight;                                                                  \
    a.grad_rows = f->grad_rows;                                                                    \
    a.grad_scale = f->grad_scale;                                                                  \
    a.reduction = f->reduction;                                                                    \
    a.denominator = f->denominator;                                                                \
    a.denominator_value = f->denominator_value;                                                    \
    a.row_loss = rows;                                                                             \
    a.grad = output(grad)

static void run_with(enum loss_name which, const factors *f, void *grad, void *rows)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    ballast_binary_cross_entropy_args b = BALLAST_BINARY_CROSS_ENTROPY_ARGS;
    ballast_sigmoid_focal_args s = BALLAST_SIGMOID_FOCAL_ARGS;

    SET_FACTORS(a);
    SET_FACTORS(b);
    SET_FACTORS(s);
    must(which == CROSS_ENTROPY          ? ballast_cross_entropy(&a, &exec)
         : which == BINARY_CROSS_ENTROPY ? ballast_binary_cross_entropy(&b, &exec)
                                         : ballast_sigmoid_focal(&s, &exec));
}

/* Two descriptions of the same gradient: equal in bits. */
static void check_same_grad(const char *what, const factors *a, const factors *b)
{
    static reals grad_a, grad_b;
    double rows[ROWS];

    for (int which = 0; which < LOSSES; which++) {
        run_with((enum loss_name)which, a, grad_a, rows);
        run_with((enum loss_name)which, b, grad_b, rows);
        check_same(what, grad_a, grad_b, ROWS * classes);
    }
}

/* Row losses are not touched by anything upstream. */
static void check_same_rows(const factors *a)
{
    static reals grad;
    double plain[ROWS], rows[ROWS];

    for (int which = 0; which < LOSSES; which++) {
        run_with((enum loss_name)which, &no_factors, grad, plain);
        run_with((enum loss_name)which, a, grad, rows);
        check_same("row_loss", rows, plain, ROWS);
    }
}

static void equivalent_factors(void **state)
{
    static double constant_class[MAX_CLASSES], constant_row[ROWS];

    begin(state);
    FOR_WIDTHS(6.0, 0x1p-12)
    {
        factors a = no_factors, b = no_factors;

        for (int64_t c = 0; c < classes; c++)
            set(constant_class, c, 0.3);
        for (int64_t r = 0; r < ROWS; r++)
            set(constant_row, r, 0.3);
        a.row_weight = row_weight;
        b.grad_rows = row_weight;
        check_same_grad("row_weight is grad_rows", &a, &b);
        check_same_rows(&b);
        a.row_weight = constant_row;
        b = no_factors;
        b.class_weight = constant_class;
        check_same_grad("row_weight is class_weight", &a, &b);
        b = no_factors;
        b.grad_scale = rounded(0.3);
        check_same_grad("row_weight is grad_scale", &a, &b);
        check_same_rows(&b);
        a = no_factors;
        a.reduction = BALLAST_SUM;
        a.grad_scale = rounded(0.3);
        check_same_grad("SUM is NONE", &a, &b);
        a.reduction = BALLAST_MEAN; /* 0.3 / 2^-1 */
        a.denominator = BALLAST_GIVEN;
        a.denominator_value = 0.5;
        b.grad_scale *= 2.0;
        check_same_grad("a mean of one half is twice", &a, &b);
        check_same_rows(&a);
        a.denominator_value = 1.0;
        a.grad_scale = 1.0 / (double)ROWS;
        b = no_factors;
        b.reduction = BALLAST_MEAN;
        check_same_grad("a mean of the rows", &a, &b);
    }
}

static void powers_of_two(void **state)
{
    static const int powers[] = {1, -1, 7, -12, 20, -20};
    static reals plain, scaled;
    double rows[ROWS];

    begin(state);
    FOR_WIDTHS(6.0, 0x1p-12)
    for (int which = 0; which < LOSSES; which++)
        for (size_t k = 0; k < sizeof powers / sizeof powers[0]; k++)
            for (int sign = -1; sign <= 1; sign += 2) {
                factors f = no_factors;

                f.row_weight = row_weight;
                f.grad_scale = 0.7;
                run_with((enum loss_name)which, &f, plain, rows);
                f.grad_scale = sign * ldexp(0.7, powers[k]);
                run_with((enum loss_name)which, &f, scaled, rows);
                for (int64_t i = 0; i < ROWS * classes; i++)
                    if (get(scaled, i) != sign * ldexp(get(plain, i), powers[k]))
                        fail_msg("%s: loss %d: grad[%lld] %a, times 2^%d: %a", current, which,
                                 (long long)i, get(plain, i), powers[k], get(scaled, i));
            }
}

/* Labels, u8 targets and dense ones that say the same. Dense targets of binary cross-entropy may be
 * soft and are computed in another way. */
static void targets_agree(void **state)
{
    begin(state);
    FOR_WIDTHS(20.0, 0x1p-12)
    {
        ballast_binary_cross_entropy_args b = BALLAST_BINARY_CROSS_ENTROPY_ARGS;
        ballast_sigmoid_focal_args f = BALLAST_SIGMOID_FOCAL_ARGS;

        for (int64_t i = 0; i < ROWS * classes; i++)
            set(targets, i, (double)hard[i]);
        run_losses(x, &one);
        b.logits = f.logits = input(x);
        b.reduction = f.reduction = BALLAST_NONE;
        b.row_loss = two.element_rows;
        f.row_loss = two.focal_rows;
        b.element_loss = output(two.element_loss);
        f.element_loss = output(two.focal_loss);
        b.grad = output(two.element_grad);
        f.grad = output(two.focal_grad);
        for (int dense = 0; dense < 2; dense++) {
            const double ulps = dense ? 8.0 : 0.0;

            b.targets = f.targets =
                dense ? input(targets) : ballast_const_matrix_u8(hard, ROWS, classes);
            must(ballast_binary_cross_entropy(&b, &exec));
            must(ballast_sigmoid_focal(&f, &exec));
            check_all_near("element_loss", two.element_loss, one.element_loss, ROWS * classes,
                           ulps);
            check_all_near("element_grad", two.element_grad, one.element_grad, ROWS * classes,
                           ulps);
            check_same("focal_loss", two.focal_loss, one.focal_loss, ROWS * classes);
            check_same("focal_grad", two.focal_grad, one.focal_grad, ROWS * classes);
            check_same("focal_rows", two.focal_rows, one.focal_rows, ROWS);
            if (!dense)
                check_same("element_rows", two.element_rows, one.element_rows, ROWS);
        }
    }
}

/* The class-balanced losses are the others, weighted, by another name. */
static void balanced_losses_agree(void **state)
{
    static reals plain, balanced;
    double plain_rows[ROWS], rows[ROWS];

    begin(state);
    FOR_WIDTHS(9.0, 0x1p-12)
    for (int kind = 0; kind < LOSSES; kind++) {
        const enum loss_name which = (enum loss_name)kind;
        factors f = no_factors;
        ballast_class_balanced_args c = BALLAST_CLASS_BALANCED_ARGS;
        ballast_sigmoid_focal_args s = BALLAST_SIGMOID_FOCAL_ARGS;

        f.class_weight = c.class_weight = class_weight;
        f.reduction = BALLAST_MEAN;
        c.kind = (ballast_class_balanced_kind)kind;
        c.logits = s.logits = input(x);
        c.labels = s.labels = ballast_labels_i32(labels);
        c.row_loss = rows;
        c.grad = output(balanced);
        must(ballast_class_balanced_loss(&c, &exec));
        s.alpha = -1.0;
        s.class_weight = class_weight;
        s.denominator = BALLAST_ROWS;
        s.row_loss = plain_rows;
        s.grad = output(plain);
        if (which == SIGMOID_FOCAL)
            must(ballast_sigmoid_focal(&s, &exec));
        else
            run_with(which, &f, plain, plain_rows);
        check_same("class-balanced grad", balanced, plain, ROWS * classes);
        check_same("class-balanced row_loss", rows, plain_rows, ROWS);
    }
}

/* ---- Backward ------------------------------------------------------------------------------ */

/* Cross-entropy taken apart: upstream -[label] through log-softmax, and -[label] / p_y through
 * softmax, are its gradient. */
static void backward_of_cross_entropy(void **state)
{
    begin(state);
    FOR_WIDTHS(5.0, 0x1p-12)
    {
        ballast_softmax_backward_args a = BALLAST_SOFTMAX_BACKWARD_ARGS;

        run(x, &one);
        for (int64_t i = 0; i < ROWS * classes; i++)
            set(y, i, hard[i] ? -1.0 : 0.0);
        a.output = input(one.log_softmax);
        a.grad_output = input(y);
        a.grad_input = output(two.grad);
        must(ballast_log_softmax_backward(&a, &exec));
        for (int64_t i = 0; i < ROWS * classes; i++)
            check_near("log_softmax_backward", i, get(two.grad, i), get(one.grad, i), 16.0,
                       hard[i] ? 1.0 : get(one.grad, i) * (1.0 + fabs(get(one.log_softmax, i))));
        for (int64_t i = 0; i < ROWS * classes; i++)
            set(y, i, hard[i] ? -1.0 / get(one.softmax, i) : 0.0);
        a.output = input(one.softmax);
        must(ballast_softmax_backward(&a, &exec));
        for (int64_t i = 0; i < ROWS * classes; i++)
            check_near("softmax_backward", i, get(two.grad, i), get(one.grad, i), 16.0,
                       hard[i] ? 1.0 + get(one.softmax, i) : get(one.grad, i));
    }
}

/* A constant upstream gradient gives nothing through softmax. */
static void constant_upstream(void **state)
{
    begin(state);
    FOR_WIDTHS(9.0, 0x1p-12)
    {
        ballast_softmax_backward_args a = BALLAST_SOFTMAX_BACKWARD_ARGS;

        run_softmax(x, &one);
        for (int64_t i = 0; i < ROWS * classes; i++)
            set(y, i, 3.5);
        a.output = input(one.softmax);
        a.grad_output = input(y);
        a.grad_input = output(two.grad);
        must(ballast_softmax_backward(&a, &exec));
        for (int64_t i = 0; i < ROWS * classes; i++)
            check_near("softmax_backward", i, get(two.grad, i), 0.0, 8.0,
                       3.5 * get(one.softmax, i));
    }
}

/* ---- Finite differences, in f64 ------------------------------------------------------------ */

/* Everything that has a gradient, as a function of x: the value, and the gradient unless NULL. */
typedef double differentiable(double *grad);

static double focal_gamma;

#define DIFFERENTIABLE(name, type, initial, function, ...)                                         \
    static double name(double *grad)                                                               \
    {                                                                                              \
        double loss = 0.0;                                                                         \
        type a = initial;                                                                          \
                                                                                                   \
        a.logits = input(x);                                                                       \
        a.loss = &loss;                                                                            \
        if (grad)                                                                                  \
            a.grad = output(grad);                                                                 \
        __VA_ARGS__;                                                                               \
        must(function(&a, &exec));                                                                 \
        return loss;                                                                               \
    }
#define WITH_LABELS a.labels = ballast_labels_i32(labels), a.class_weight = class_weight
#define WITH_TARGETS a.targets = input(targets)
#define WITH_ROW_WEIGHT a.row_weight = row_weight

DIFFERENTIABLE(cross_entropy, ballast_cross_entropy_args, BALLAST_CROSS_ENTROPY_ARGS,
               ballast_cross_entropy, WITH_LABELS, WITH_ROW_WEIGHT)
DIFFERENTIABLE(bce_labels, ballast_binary_cross_entropy_args, BALLAST_BINARY_CROSS_ENTROPY_ARGS,
               ballast_binary_cross_entropy, WITH_LABELS, WITH_ROW_WEIGHT)
DIFFERENTIABLE(bce_soft, ballast_binary_cross_entropy_args, BALLAST_BINARY_CROSS_ENTROPY_ARGS,
               ballast_binary_cross_entropy, WITH_TARGETS, WITH_ROW_WEIGHT)
DIFFERENTIABLE(focal, ballast_sigmoid_focal_args, BALLAST_SIGMOID_FOCAL_ARGS, ballast_sigmoid_focal,
               WITH_LABELS, WITH_ROW_WEIGHT, a.gamma = focal_gamma)
DIFFERENTIABLE(cb_softmax, ballast_class_balanced_args, BALLAST_CLASS_BALANCED_ARGS,
               ballast_class_balanced_loss, WITH_LABELS, a.kind = BALLAST_CB_SOFTMAX)
DIFFERENTIABLE(cb_sigmoid, ballast_class_balanced_args, BALLAST_CLASS_BALANCED_ARGS,
               ballast_class_balanced_loss, WITH_LABELS, a.kind = BALLAST_CB_SIGMOID)
DIFFERENTIABLE(cb_focal, ballast_class_balanced_args, BALLAST_CLASS_BALANCED_ARGS,
               ballast_class_balanced_loss, WITH_LABELS, a.kind = BALLAST_CB_FOCAL,
               a.gamma = focal_gamma)

typedef ballast_status forward_function(const ballast_softmax_args *, const ballast_exec *);
typedef ballast_status backward_function(const ballast_softmax_backward_args *,
                                         const ballast_exec *);

/* sum of target * softmax(x), and of target * log_softmax(x). */
static double through(forward_function *forward, backward_function *backward, double *grad)
{
    static reals out;
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;
    ballast_softmax_backward_args b = BALLAST_SOFTMAX_BACKWARD_ARGS;
    long double sum = 0.0L;

    a.input = input(x);
    a.output = output(out);
    must(forward(&a, &exec));
    b.output = input(out);
    b.grad_output = input(targets);
    b.grad_input = output(grad);
    if (grad)
        must(backward(&b, &exec));
    for (int64_t i = 0; i < ROWS * classes; i++)
        sum += (long double)out[i] * (long double)targets[i];
    return (double)sum;
}

static double of_softmax(double *grad)
{
    return through(ballast_softmax, ballast_softmax_backward, grad);
}

static double of_log_softmax(double *grad)
{
    return through(ballast_log_softmax, ballast_log_softmax_backward, grad);
}

/* Central differences of each logit of every third row. The error of the values over the step, and
 * its square, are below 1e-8 of the values' size. */
static void check_differences(const char *name, differentiable *f)
{
    static reals grad;
    const double step = 0x1p-14, size = 1.0 + fabs(f(grad));

    for (int64_t i = 0; i < ROWS * classes; i += i % 7 == 0 ? 1 : 2) {
        const double kept = x[i];

        x[i] = kept + step;
        const double above = f(NULL);
        x[i] = kept - step;
        const double below = f(NULL);
        x[i] = kept;
        const double slope = (above - below) / (2.0 * step);
        if (!(fabs(slope - grad[i]) <= 1e-8 * size))
            fail_msg("%s, %s, gamma %g: [%lld], x = %g: gradient %.12g, slope %.12g", current, name,
                     focal_gamma, (long long)i, kept, grad[i], slope);
    }
}

static void finite_differences(void **state)
{
    static const double gammas[] = {0.0, 0.5, 1.0, 2.0, 3.7};

    begin(state);
    for (int64_t width = 1; width < 20; width += 6) {
        make_data(width, 4.0, 0x1p-30);
        check_differences("softmax", of_softmax);
        check_differences("log_softmax", of_log_softmax);
        check_differences("cross_entropy", cross_entropy);
        check_differences("binary_cross_entropy, labels", bce_labels);
        check_differences("binary_cross_entropy, soft targets", bce_soft);
        check_differences("class-balanced softmax", cb_softmax);
        check_differences("class-balanced sigmoid", cb_sigmoid);
        for (int g = 0; g < 5; g++) {
            focal_gamma = gammas[g];
            check_differences("sigmoid_focal", focal);
            check_differences("class-balanced focal", cb_focal);
        }
    }
}

/* ---- Reductions ---------------------------------------------------------------------------- */

typedef ballast_status reduction(const ballast_reduce_args *args, const ballast_exec *exec);

static double reduce(reduction *f, const void *values, const void *weights, int64_t n)
{
    double result = 0.0;
    ballast_reduce_args a = BALLAST_REDUCE_ARGS;

    a.x = (ballast_vector){values, real_dtype(), n};
    if (weights)
        a.weights = (ballast_vector){weights, real_dtype(), n};
    a.result = &result;
    must(f(&a, &exec));
    return result;
}

static void reductions(void **state)
{
    static reals ones, scaled;

    begin(state);
    for (int64_t n = 1; n < 20000; n = n < 66 ? n + 1 : 2 * n - 3) {
        make_data(1, 1.0, 1.0);
        snprintf(current, sizeof current, "%lld elements", (long long)n);
        double size = 0.0;
        for (int64_t i = 0; i < n; i++) {
            set(x, i, random_real(-3.0, 3.0));
            set(y, i, random_real(-1.0, 2.0));
            set(targets, i, random_real(0.0, 1.0));
            set(ones, i, 1.0);
            set(scaled, i, get(x, i) * 1024.0);
            size += fabs(get(x, i));
        }
        const double sum = reduce(ballast_weighted_sum, x, y, n);
        assert_true(sum == reduce(ballast_dot, x, y, n));
        assert_true(sum == reduce(ballast_dot, y, x, n));
        assert_true(sum * 1024.0 == reduce(ballast_weighted_sum, scaled, y, n));
        assert_true(reduce(ballast_dot, x, x, n) ==
                    reduce(ballast_weighted_sum_of_squares, x, NULL, n));
        assert_true(reduce(ballast_weighted_sum_of_squares, x, NULL, n) >= 0.0);
        check_near("sum without weights", n, reduce(ballast_weighted_sum, x, NULL, n),
                   reduce(ballast_weighted_sum, x, ones, n), 8.0, size);
        check_near("mean without weights", n, reduce(ballast_weighted_mean, x, NULL, n),
                   reduce(ballast_weighted_sum, x, NULL, n) / (double)n, 1.0, 3.0);
        check_near("mean", n, reduce(ballast_weighted_mean, x, targets, n),
                   reduce(ballast_weighted_sum, x, targets, n) /
                       reduce(ballast_weighted_sum, targets, NULL, n),
                   16.0, 3.0);
        const double lse = reduce(ballast_weighted_log_sum_exp, x, NULL, n);
        check_near("log_sum_exp", n, lse, reduce(ballast_weighted_log_sum_exp, x, ones, n), 8.0,
                   16.0);
        for (int64_t i = 0; i < n; i++)
            set(scaled, i, 0.25);
        check_near("log_sum_exp of a quarter", n, lse - log(4.0),
                   reduce(ballast_weighted_log_sum_exp, x, scaled, n), 8.0, 16.0);
    }
}

#define ON(isa)                                                                                    \
    {"shifts on " isa, shifts, NULL, NULL, isa},                                                   \
        {"permuted rows on " isa, permuted_rows, NULL, NULL, isa},                                 \
        {"permuted classes on " isa, permuted_classes, NULL, NULL, isa},                           \
        {"rows sum up on " isa, rows_sum_up, NULL, NULL, isa},                                     \
        {"monotone in the label on " isa, monotone_in_the_label, NULL, NULL, isa},                 \
        {"pieces agree on " isa, pieces_agree, NULL, NULL, isa},                                   \
        {"equivalent factors on " isa, equivalent_factors, NULL, NULL, isa},                       \
        {"powers of two on " isa, powers_of_two, NULL, NULL, isa},                                 \
        {"targets agree on " isa, targets_agree, NULL, NULL, isa},                                 \
        {"balanced losses agree on " isa, balanced_losses_agree, NULL, NULL, isa},                 \
        {"backward of cross-entropy on " isa, backward_of_cross_entropy, NULL, NULL, isa},         \
        {"constant upstream on " isa, constant_upstream, NULL, NULL, isa},                         \
    {                                                                                              \
        "reductions on " isa, reductions, NULL, NULL, isa                                          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON("scalar"), ON("neon"), ON("avx2"),
        ON("avx512"), ON("f64"),  {"finite differences", finite_differences, NULL, NULL, "f64"},
    };

    return cmocka_run_group_tests_name("properties", tests, NULL, NULL);
}
