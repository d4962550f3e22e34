/* SPDX-License-Identifier: MIT */
/* Effective numbers and class-balanced weights against MPFR, which evaluates the closed form
 * (1 - beta^n) / (1 - beta): a formula that the library does not use.
 *
 *   effective_number [trials [seed]] */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <mpfr.h>
#include <stdio.h>
#include <stdlib.h>

#include "../dispatch/effective_number.h"

_Static_assert(ULONG_MAX >= INT64_MAX, "mpfr_pow_ui takes every count");

enum {
    /* 1 - beta^n needs the exponent of 2^-1074 and the cancellation near 1 beside the result. */
    ORACLE_BITS = 1400,
    MAX_CLASSES = 24
};

static uint64_t seed = 20190616;
static int64_t trials = 20000;

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double next_uniform(uint64_t *state)
{
    return (double)(next_random(state) >> 11) * 0x1p-53;
}

static int next_below(uint64_t *state, int limit)
{
    return (int)(next_random(state) % (uint64_t)limit);
}

/* Half of them log-uniform up to 2^61, half small. */
static int64_t random_count(uint64_t *state)
{
    const uint64_t bits = next_random(state);

    if (next_below(state, 2))
        return (int64_t)(bits >> 59) + next_below(state, 200);
    return (int64_t)(bits >> 3 | (uint64_t)1 << 60) >> next_below(state, 61);
}

/* Every magnitude from 2^-1074 up, every distance from 1 down to 2^-53, and the usual ones. */
static double random_beta(uint64_t *state)
{
    static const double usual[] = {0.0,    1.0,         0.9,        0.99,        0.999,
                                   0.9999, 1 - 0x1p-53, 1 - 0x1p-52, 0x1p-1074, 0x1p-53};
    const double digits = 1.0 + next_uniform(state);

    switch (next_below(state, 8)) {
    case 0:
        return usual[next_below(state, (int)(sizeof usual / sizeof *usual))];
    case 1:
        return ldexp(digits, -1 - next_below(state, 1074));
    case 2:
        return ldexp(digits, -1 - next_below(state, 110));
    case 3:
        return next_uniform(state);
    case 4:
        return 1.0 - 0x1p-53 * (double)(1 + next_below(state, 100));
    default: {
        const double beta = 1.0 - ldexp(digits, -1 - next_below(state, 53));
        return beta < 1.0 ? beta : 1 - 0x1p-53;
    }
    }
}

static void oracle(mpfr_t result, double beta, int64_t n)
{
    mpfr_t denominator;

    mpfr_set_d(result, beta, MPFR_RNDN);
    if (beta == 1.0) {
        mpfr_set_ui(result, (unsigned long)n, MPFR_RNDN);
        return;
    }
    mpfr_init2(denominator, ORACLE_BITS);
    mpfr_ui_sub(denominator, 1, result, MPFR_RNDN);
    mpfr_pow_ui(result, result, (unsigned long)n, MPFR_RNDN);
    mpfr_ui_sub(result, 1, result, MPFR_RNDN);
    mpfr_div(result, result, denominator, MPFR_RNDN);
    mpfr_clear(denominator);
}

static double ulps_between(double got, const mpfr_t exact)
{
    mpfr_t difference;
    double ulps;

    mpfr_init2(difference, ORACLE_BITS);
    mpfr_d_sub(difference, got, exact, MPFR_RNDN);
    mpfr_mul_2si(difference, difference, 53 - (long)mpfr_get_exp(exact), MPFR_RNDN);
    ulps = fabs(mpfr_get_d(difference, MPFR_RNDN));
    mpfr_clear(difference);
    return ulps;
}

/* Returns the error in ULP, after asserting that no double is closer. */
static double check_rounding(mpfr_t scratch, double beta, int64_t n)
{
    const double got = ballast__effective_number(beta, n);
    double expected;

    oracle(scratch, beta, n);
    expected = mpfr_get_d(scratch, MPFR_RNDN);
    if (got != expected) {
        fail_msg("beta=%a n=%" PRId64 ": got %a, expected %a\n"
                 "  run again: effective_number %" PRId64 " %" PRIu64,
                 beta, n, got, expected, trials, seed);
    }
    return n == 0 ? 0.0 : ulps_between(got, scratch);
}

static void random_trials_are_correctly_rounded(void **unused)
{
    uint64_t state = seed;
    double worst = 0.0, worst_beta = 0.0;
    int64_t worst_n = 0;
    mpfr_t exact;

    (void)unused;
    mpfr_init2(exact, ORACLE_BITS);
    for (int64_t i = 0; i < trials; i++) {
        const double beta = random_beta(&state);
        const int64_t n = random_count(&state);
        const double error = check_rounding(exact, beta, n);

        if (error > worst) {
            worst = error;
            worst_beta = beta;
            worst_n = n;
        }
    }
    print_message("# effective_number: %" PRId64 " trials, seed %" PRIu64 ": %.9f ULP at beta=%a n=%"
                  PRId64 "\n", trials, seed, worst, worst_beta, worst_n);
    mpfr_clear(exact);
}

/* Powers of two and few-bit distances from 0 and 1 are where ties and near-ties live. */
static void near_ties_are_correctly_rounded(void **unused)
{
    mpfr_t exact;

    (void)unused;
    mpfr_init2(exact, ORACLE_BITS);
    for (int n = 0; n <= 130; n++) {
        for (int k = 1; k <= 120; k++)
            check_rounding(exact, ldexp(1.0, -k), n);
        for (int j = 1; j <= 20; j++) {
            check_rounding(exact, 1.0 - j * 0x1p-53, n);
            check_rounding(exact, j * 0x1p-54, n);
            check_rounding(exact, j * 0x1p-1074, n);
            check_rounding(exact, 0x1p-53 + j * 0x1p-105, n);
            check_rounding(exact, 0.5 + j * 0x1p-53, n);
        }
    }
    for (int k = 52; k <= 62; k++) {
        for (int64_t n = ((int64_t)1 << k) - 3; n <= ((int64_t)1 << k) + 3; n++) {
            check_rounding(exact, 1.0, n);
            check_rounding(exact, 1 - 0x1p-53, n);
        }
    }
    check_rounding(exact, 1.0, INT64_MAX);
    check_rounding(exact, 1 - 0x1p-53, INT64_MAX);
    check_rounding(exact, 0x1p-1074, INT64_MAX);
    check_rounding(exact, 0.0, INT64_MAX);
    mpfr_clear(exact);
}

/* 1 + 2^-53 + 2^-106 + ... is no tie, though the nearest double-double is; n = 2 is one.  The last
 * three lie within 2^-79 of a tie: powers of beta squared in double-double round them wrongly. */
static void known_hard_cases(void **unused)
{
    mpfr_t exact;

    (void)unused;
    assert_true(ballast__effective_number(0x1p-53, 3) == 1 + 0x1p-52);
    assert_true(ballast__effective_number(0x1p-53, INT64_MAX) == 1 + 0x1p-52);
    assert_true(ballast__effective_number(0x1p-53, 2) == 1.0);
    assert_true(ballast__effective_number(0.3, 0) == 0.0);
    assert_true(ballast__effective_number(0.0, 1) == 1.0);

    mpfr_init2(exact, ORACLE_BITS);
    check_rounding(exact, 0x1.fffffff54a9aap-1, 2153050807);
    check_rounding(exact, 0x1.fffffff07f24p-1, 2164160708);
    check_rounding(exact, 0x1.fffffff2c0eaep-1, 2149923594);
    mpfr_clear(exact);
}

static void grows_with_n_and_beta(void **unused)
{
    uint64_t state = seed;

    (void)unused;
    for (int i = 0; i < 20000; i++) {
        const double beta = random_beta(&state), other_beta = random_beta(&state);
        const int64_t n = random_count(&state), other_n = random_count(&state);
        const double e = ballast__effective_number(beta, n);

        assert_true(ballast__effective_number(beta, n + 1) >= e);
        assert_true(ballast__effective_number(beta, n + other_n) >= e);
        assert_true(ballast__effective_number(fmax(beta, other_beta), n) >= e);
        assert_true(e <= (double)n && (n == 0 || e >= 1.0));
    }
}

static void random_weights_are_correctly_rounded(void **unused)
{
    uint64_t state = seed;
    mpfr_t e[MAX_CLASSES], total, weight;

    (void)unused;
    mpfr_inits2(ORACLE_BITS, total, weight, (mpfr_ptr)0);
    for (int c = 0; c < MAX_CLASSES; c++)
        mpfr_init2(e[c], ORACLE_BITS);
    for (int i = 0; i < 500; i++) {
        const double beta = random_beta(&state);
        const int classes = 1 + next_below(&state, MAX_CLASSES);
        int64_t counts[MAX_CLASSES];
        double f64[MAX_CLASSES];
        float f32[MAX_CLASSES];

        mpfr_set_zero(total, 1);
        for (int c = 0; c < classes; c++) {
            counts[c] = 1 + random_count(&state);
            oracle(e[c], beta, counts[c]);
            mpfr_ui_div(weight, 1, e[c], MPFR_RNDN);
            mpfr_add(total, total, weight, MPFR_RNDN);
        }
        ballast__class_weights(counts, classes, beta, BALLAST__EMPTY_ONE, f64, f32);
        for (int c = 0; c < classes; c++) {
            mpfr_mul(weight, e[c], total, MPFR_RNDN);
            mpfr_ui_div(weight, (unsigned long)classes, weight, MPFR_RNDN);
            const double want_f64 = mpfr_get_d(weight, MPFR_RNDN);
            const float want_f32 = mpfr_get_flt(weight, MPFR_RNDN);

            if (f64[c] != want_f64 || f32[c] != want_f32)
                fail_msg("weights, trial %d: beta=%a class %d of %d: got %a and %a, expected %a "
                         "and %a\n  run again: effective_number %" PRId64 " %" PRIu64,
                         i, beta, c, classes, f64[c], (double)f32[c], want_f64, (double)want_f32,
                         trials, seed);
        }
    }
    for (int c = 0; c < MAX_CLASSES; c++)
        mpfr_clear(e[c]);
    mpfr_clears(total, weight, (mpfr_ptr)0);
    mpfr_free_cache();
}

/* CIFAR-10 with an imbalance of 50: counts of 5000 * 50^(-i / 9), rounded down. */
static void weights_of_cifar10_long_tail(void **unused)
{
    static const int64_t counts[10] = {5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100};
    static const struct {
        double beta;
        double weights[10];
    } expected[] = {
        {.9999, {.089030, .126678, .185257, .276057, .416751, .634413, .969534, 1.489447, 2.292256,
                 3.520576}},
        {.999, {.295900, .305908, .335063, .395711, .502782, .677990, .954225, 1.387085, 2.058287,
                3.087047}},
        {.99, {.910988, .910988, .910988, .910989, .911122, .914020, .934117, 1.002682, 1.157142,
               1.436963}},
        {0, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
    };

    (void)unused;
    for (size_t b = 0; b < sizeof expected / sizeof *expected; b++) {
        double f64[10];

        ballast__class_weights(counts, 10, expected[b].beta, BALLAST__EMPTY_ZERO, f64, NULL);
        for (int c = 0; c < 10; c++)
            assert_true(round(f64[c] * 1e6) == round(expected[b].weights[c] * 1e6));
    }
}

static void weights_of_the_golden_vector(void **unused)
{
    static const int64_t counts[3] = {30, 100, 25};
    static const double expected[3] = {1.196368092733, .371560183609, 1.432071723658};
    double f64[3];

    (void)unused;
    ballast__class_weights(counts, 3, .999, BALLAST__EMPTY_ONE, f64, NULL);
    for (int c = 0; c < 3; c++)
        assert_true(fabs(f64[c] - expected[c]) <= 1e-12);
}

static void beta_0_and_equal_counts_give_ones(void **unused)
{
    uint64_t state = seed;
    int64_t counts[MAX_CLASSES];
    double f64[MAX_CLASSES];
    float f32[MAX_CLASSES];

    (void)unused;
    for (int i = 0; i < 1000; i++) {
        const int equal = i % 2;
        const double beta = equal ? random_beta(&state) : 0.0;
        const int classes = 1 + next_below(&state, MAX_CLASSES);

        for (int c = 0; c < classes; c++)
            counts[c] = equal && c ? counts[0] : random_count(&state);
        ballast__class_weights(counts, classes, beta, BALLAST__EMPTY_ONE, f64, f32);
        for (int c = 0; c < classes; c++)
            assert_true(f64[c] == 1.0 && f32[c] == 1.0f);
    }
}

static void fall_with_counts_and_sum_to_classes(void **unused)
{
    uint64_t state = seed;
    int64_t counts[MAX_CLASSES];
    double f64[MAX_CLASSES];

    (void)unused;
    for (int i = 0; i < 1000; i++) {
        double sum = 0.0;

        for (int c = 0; c < MAX_CLASSES; c++)
            counts[c] = random_count(&state);
        ballast__class_weights(counts, MAX_CLASSES, random_beta(&state), BALLAST__EMPTY_ONE, f64,
                               NULL);
        for (int c = 0; c < MAX_CLASSES; c++) {
            sum += f64[c];
            for (int d = 0; d < c; d++)
                assert_true(counts[c] >= counts[d] ? f64[c] <= f64[d] : f64[c] >= f64[d]);
        }
        assert_true(fabs(sum - MAX_CLASSES) <= MAX_CLASSES * MAX_CLASSES * 0x1p-52);
    }
}

static void empty_classes_follow_the_policy(void **unused)
{
    static const int64_t counts[5] = {0, 30, 100, 0, 25}, as_one[5] = {1, 30, 100, 1, 25};
    static const int64_t present[3] = {30, 100, 25}, none[2] = {0, 0};
    double got[5], expected[5];
    float got_f32[5], expected_f32[5];

    (void)unused;
    ballast__class_weights(counts, 5, .999, BALLAST__EMPTY_ONE, got, got_f32);
    ballast__class_weights(as_one, 5, .999, BALLAST__EMPTY_ZERO, expected, expected_f32);
    assert_memory_equal(got, expected, sizeof got);
    assert_memory_equal(got_f32, expected_f32, sizeof got_f32);

    ballast__class_weights(counts, 5, .999, BALLAST__EMPTY_ZERO, got, got_f32);
    ballast__class_weights(present, 3, .999, BALLAST__EMPTY_ONE, expected, expected_f32);
    assert_true(got[0] == 0.0 && !signbit(got[0]) && got_f32[3] == 0.0f && !signbit(got_f32[3]));
    assert_true(got[1] == expected[0] && got[2] == expected[1] && got[4] == expected[2]);
    assert_true(got_f32[1] == expected_f32[0] && got_f32[4] == expected_f32[2]);

    ballast__class_weights(none, 2, .999, BALLAST__EMPTY_ZERO, got, got_f32);
    assert_true(got[0] == 0.0 && got[1] == 0.0 && got_f32[0] == 0.0f && got_f32[1] == 0.0f);
    ballast__class_weights(none, 2, .999, BALLAST__EMPTY_ONE, got, got_f32);
    assert_true(got[0] == 1.0 && got[1] == 1.0 && got_f32[0] == 1.0f && got_f32[1] == 1.0f);
}

static void outputs_do_not_depend_on_each_other(void **unused)
{
    static const int64_t counts[4] = {7, 1000, 0, 123456789};
    double both_f64[4], f64[4];
    float both_f32[4], f32[4];

    (void)unused;
    ballast__class_weights(counts, 4, .9999, BALLAST__EMPTY_ONE, both_f64, both_f32);
    ballast__class_weights(counts, 4, .9999, BALLAST__EMPTY_ONE, f64, NULL);
    ballast__class_weights(counts, 4, .9999, BALLAST__EMPTY_ONE, NULL, f32);
    assert_memory_equal(f64, both_f64, sizeof f64);
    assert_memory_equal(f32, both_f32, sizeof f32);
    ballast__class_weights(counts, 4, .9999, BALLAST__EMPTY_ONE, NULL, NULL);
    ballast__class_weights(NULL, 0, .9999, BALLAST__EMPTY_ONE, NULL, NULL);
}

/* The first weight is 1 + 2^-24 + 2^-76, then 1 + 2^-24 - 2^-96: ties by way of double, which would
 * round both to 1. */
static void f32_is_rounded_once(void **unused)
{
    static const int64_t counts[2] = {1, 2};
    double f64[2];
    float f32[2];

    (void)unused;
    ballast__class_weights(counts, 2, 0x1.0000010000011p-23, BALLAST__EMPTY_ONE, f64, f32);
    assert_true(f64[0] == 1 + 0x1p-24);
    assert_true(f32[0] == 1 + 0x1p-23f);
    ballast__class_weights(counts, 2, 0x1.000001000001p-23, BALLAST__EMPTY_ONE, f64, f32);
    assert_true(f64[0] == 1 + 0x1p-24);
    assert_true(f32[0] == 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_trials_are_correctly_rounded),
        cmocka_unit_test(near_ties_are_correctly_rounded),
        cmocka_unit_test(known_hard_cases),
        cmocka_unit_test(grows_with_n_and_beta),
        cmocka_unit_test(random_weights_are_correctly_rounded),
        cmocka_unit_test(weights_of_cifar10_long_tail),
        cmocka_unit_test(weights_of_the_golden_vector),
        cmocka_unit_test(beta_0_and_equal_counts_give_ones),
        cmocka_unit_test(fall_with_counts_and_sum_to_classes),
        cmocka_unit_test(empty_classes_follow_the_policy),
        cmocka_unit_test(outputs_do_not_depend_on_each_other),
        cmocka_unit_test(f32_is_rounded_once),
    };

    if (argc > 1)
        trials = strtoll(argv[1], NULL, 10);
    if (argc > 2)
        seed = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
