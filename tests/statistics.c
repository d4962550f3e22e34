/* SPDX-License-Identifier: MIT */
/* The statistics of `ballast compare`, against values that can be counted by hand, against counting
 * all permutations, and by how often they find what is there and what is not. */
#include "../bench/statistics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

static uint64_t state = 20190616;

static double uniform(void)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return ((double)(state >> 33) + 0.5) / 2147483648.0;
}

/* Like times on a shared machine: mostly close to 0, now and then far off, to either side. */
static double noise(void)
{
    const double wide = uniform() < 0.1 ? 20.0 : 1.0;
    return wide * (uniform() + uniform() + uniform() - 1.5);
}

static void assert_near(double got, double want)
{
    if (got != want && !(fabs(got - want) <= 1e-12 * fabs(want)))
        fail_msg("%.17g, should be %.17g", got, want);
}

/* ---- Pairs ----------------------------------------------------------------------------------- */

static double rank_of(const double *d, int n, int i)
{
    double below = 0.0, same = 0.0;

    for (int k = 0; k < n; k++) {
        below += fabs(d[k]) < fabs(d[i]);
        same += fabs(d[k]) == fabs(d[i]);
    }
    return below + 0.5 * (same + 1.0);
}

/* All 2^n signs. */
static double counted_p(const double *d, int n)
{
    double observed = 0.0, low = 0.0, high = 0.0;

    for (int i = 0; i < n; i++)
        observed += d[i] > 0.0 ? rank_of(d, n, i) : 0.0;
    for (uint32_t signs = 0; signs < UINT32_C(1) << n; signs++) {
        double sum = 0.0;
        for (int i = 0; i < n; i++)
            sum += signs >> i & 1 ? rank_of(d, n, i) : 0.0;
        low += sum <= observed;
        high += sum >= observed;
    }
    return fmin(1.0, 2.0 * fmin(low, high) / ldexp(1.0, n));
}

static void test_pairs_by_hand(void **unused)
{
    (void)unused;
    const double up[] = {3, 1, 4, 2, 5}, zeros[] = {0, 0, 0};
    const shift s = shift_of_pairs(up, 5);
    assert_near(s.p, 2.0 / 32);
    assert_near(s.value, 3);
    assert_true(isinf(s.low) && isinf(s.high)); /* five signs cannot be below 5 % */
    assert_near(shift_of_pairs(up, 1).p, 1);
    const shift none = shift_of_pairs(zeros, 3);
    assert_true(none.p == 1.0 && none.value == 0.0);
    assert_true(shift_of_pairs(zeros, 0).p == 1.0);
    const double six[] = {1, 2, 3, 4, 5, 6};
    assert_near(shift_of_pairs(six, 6).low, 1);
    assert_near(shift_of_pairs(six, 6).high, 6);
}

static void test_pairs_count_all_signs(void **unused)
{
    (void)unused;
    for (int n = 2; n <= 11; n++)
        for (int again = 0; again < 4; again++) {
            double d[11], negated[11];
            for (int i = 0; i < n; i++) {
                d[i] = noise() + 0.5;
                negated[i] = -d[i];
            }
            assert_near(shift_of_pairs(d, n).p, counted_p(d, n));
            assert_near(shift_of_pairs(negated, n).p, counted_p(d, n));
            assert_near(shift_of_pairs(negated, n).low, -shift_of_pairs(d, n).high);
        }
}

/* The interval is that of the test: a shift at its end is hardly refused any more, or not yet. */
static void test_interval_is_that_of_the_test(void **unused)
{
    (void)unused;
    double d[40], moved[40];
    for (int i = 0; i < 40; i++)
        d[i] = noise();
    const shift s = shift_of_pairs(d, 40);
    assert_true(s.low < s.value && s.value < s.high);
    for (int i = 0; i < 40; i++)
        moved[i] = d[i] - (s.low - 1e-6);
    assert_true(shift_of_pairs(moved, 40).p <= 0.05);
    for (int i = 0; i < 40; i++)
        moved[i] = d[i] - (s.low + 1e-6);
    assert_true(shift_of_pairs(moved, 40).p > 0.05);
}

/* In 2000 trials without a shift 5 % lie below 5 %, and as many intervals miss 0; with one of half
 * a deviation few tests of 200 pairs fail to see it at 0.1 %. */
static void test_how_often_pairs_err(void **unused)
{
    (void)unused;
    enum { TRIALS = 2000, PAIRS = 60 };
    double d[200];
    int wrong = 0, outside = 0, missed = 0;
    for (int t = 0; t < TRIALS; t++) {
        for (int i = 0; i < PAIRS; i++)
            d[i] = noise();
        const shift s = shift_of_pairs(d, PAIRS);
        wrong += s.p <= 0.05;
        outside += s.low > 0.0 || s.high < 0.0;
    }
    assert_in_range(wrong, 60, 140);
    assert_in_range(outside, 60, 140);
    for (int t = 0; t < 100; t++) {
        for (int i = 0; i < 200; i++)
            d[i] = noise() + 0.25;
        missed += shift_of_pairs(d, 200).p > 0.001;
    }
    assert_in_range(missed, 0, 15);
}

static void test_most_pairs(void **unused)
{
    (void)unused;
    static double d[STATISTICS_PAIRS];
    for (int i = 0; i < STATISTICS_PAIRS; i++)
        d[i] = 1.0 + i;
    assert_near(shift_of_pairs(d, STATISTICS_PAIRS).p, ldexp(2.0, -STATISTICS_PAIRS));
}

/* ---- Samples --------------------------------------------------------------------------------- */

static void test_samples_by_hand(void **unused)
{
    (void)unused;
    const double a[] = {1, 2, 3, 4}, b[] = {15, 16, 17, 18};
    const shift s = shift_of_samples(a, 4, b, 4);
    assert_near(s.p, 2.0 / 70);
    assert_near(s.value, 14);
    assert_near(s.low, 11);
    assert_near(s.high, 17);
    assert_near(shift_of_samples(b, 4, a, 4).value, -14);
    assert_near(shift_of_samples(a, 3, b, 3).p, 2.0 / 20);
    assert_true(isinf(shift_of_samples(a, 3, b, 3).high));
    assert_near(shift_of_samples(a, 4, a, 4).p, 1); /* the same numbers: shared ranks */
    assert_true(shift_of_samples(a, 1, b, 1).p == 1.0);
    assert_true(shift_of_samples(a, 0, b, 4).p == 1.0);
}

static void test_samples_count_all_choices(void **unused)
{
    (void)unused;
    for (int again = 0; again < 20; again++) {
        double all[9], ranks[9], observed = 0.0, low = 0.0, high = 0.0, choices = 0.0;
        for (int i = 0; i < 9; i++)
            all[i] = floor(4.0 * noise()); /* some are equal */
        for (int i = 0; i < 9; i++) {
            double below = 0.0, same = 0.0;
            for (int k = 0; k < 9; k++) {
                below += all[k] < all[i];
                same += all[k] == all[i];
            }
            ranks[i] = below + 0.5 * (same + 1.0);
            observed += i >= 4 ? ranks[i] : 0.0;
        }
        for (uint32_t set = 0; set < 512; set++) {
            double sum = 0.0;
            int members = 0;
            for (int i = 0; i < 9; i++)
                if (set >> i & 1) {
                    sum += ranks[i];
                    members++;
                }
            if (members != 5)
                continue;
            choices += 1.0;
            low += sum <= observed;
            high += sum >= observed;
        }
        assert_near(shift_of_samples(all, 4, all + 4, 5).p,
                    fmin(1.0, 2.0 * fmin(low, high) / choices));
    }
}

static void test_most_samples(void **unused)
{
    (void)unused;
    double a[STATISTICS_SAMPLES], b[STATISTICS_SAMPLES];
    for (int i = 0; i < STATISTICS_SAMPLES; i++) {
        a[i] = i;
        b[i] = i + 0.5;
    }
    const shift s = shift_of_samples(a, STATISTICS_SAMPLES, b, STATISTICS_SAMPLES);
    assert_true(s.p > 0.5 && s.p <= 1.0 && s.low < 0.5 && s.high > 0.5);
}

/* ---- Many tests ------------------------------------------------------------------------------ */

static void test_adjusting(void **unused)
{
    (void)unused;
    double p[] = {0.01, 0.04, 0.03, 0.005}, one[] = {0.2}, large[] = {0.9, 0.8};
    const double want[] = {0.03, 0.06, 0.06, 0.02};
    adjust_for_count(p, 4);
    for (int i = 0; i < 4; i++)
        assert_near(p[i], want[i]);
    adjust_for_count(one, 1);
    assert_near(one[0], 0.2);
    adjust_for_count(large, 2);
    assert_true(large[0] == 1.0 && large[1] == 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_by_hand),
        cmocka_unit_test(test_pairs_count_all_signs),
        cmocka_unit_test(test_interval_is_that_of_the_test),
        cmocka_unit_test(test_how_often_pairs_err),
        cmocka_unit_test(test_most_pairs),
        cmocka_unit_test(test_samples_by_hand),
        cmocka_unit_test(test_samples_count_all_choices),
        cmocka_unit_test(test_most_samples),
        cmocka_unit_test(test_adjusting),
    };
    return cmocka_run_group_tests_name("statistics", tests, NULL, NULL);
}
