/* SPDX-License-Identifier: MIT */
/* exp, log1p and exact scaling of kernels/lanes/functions.h against long double, for one ISA. Prints
 * the worst error of each with the input that attains it.
 *
 * Samples are every STRIDE-th float: a prime, so that all low bits are seen. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>

#include "../kernels/lanes/functions.h"
#include "oracle/oracle.h"

int functions_test(void);

#ifndef STRIDE
#define STRIDE 1009u
#endif

typedef struct worst {
    double error;
    float witness;
} worst;

static void note(worst *w, double error, float x)
{
    if (error > w->error)
        *w = (worst){error, x};
}

static void report(const char *what, worst w, double bound)
{
    print_message("# %s: %.3f ULP at %a (bound %.2f)\n", what, w.error, (double)w.witness, bound);
    assert_true(w.error <= bound);
}

/* e^x / 2^n in long double; n ln 2 in two words, so that large n cost no digits. */
static long double exp_over_power(float x, float n)
{
    const long double high = 0xb.17217f7dp-4L, low = (long double)0x1.cf79abc9e3b39p-40;
    return expl(((long double)x - (long double)n * high) - (long double)n * low);
}

static worst worst_exp(float top, float range)
{
    const float n = exponent_of(top);
    const exp_scale scale = exp_scale_of(n);
    const float bottom = top - range;
    worst w = {0.0, 0.0f};
    for (int k = 0; k < 400000; k += BLOCK) {
        float x[BLOCK], e[BLOCK];
        for (int i = 0; i < BLOCK; i++)
            x[i] = bottom + (top - bottom) * ((float)(k + i) * (1.0f / 400000.0f));
        vf v = vload_f32(x);
        vexp_scaled(&v, &v, 1, scale);
        vstore_f32(e, v);
        for (int i = 0; i < BLOCK; i++)
            note(&w, ulp_error_f32(e[i], exp_over_power(x[i], n)), x[i]);
    }
    return w;
}

static void test_exp(void **state)
{
    static const struct {
        float top;
        double bound;
    } cases[] = {{0.0f, 0.89},       {1.0f, 0.89},        {-100.0f, 0.89},    {10000.0f, 0.89},
                 {65536.0f, 0.89},   {-65536.0f, 0.89},   {262144.0f, 1.04}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char what[80];
        snprintf(what, sizeof what, "exp, row maximum %g", (double)cases[i].top);
        report(what, worst_exp(cases[i].top, 80.0f), cases[i].bound);
    }
}

/* Every STRIDE-th float in [0, 87], negated: n = 0, as the element-wise losses use it. */
static void test_exp_of_negative(void **state)
{
    const exp_scale scale = exp_scale_of(0.0f);
    worst w = {0.0, 0.0f};
    (void)state;
    for (uint32_t bits = 0; bits < bits_of_float(87.0f) - BLOCK * STRIDE; bits += BLOCK * STRIDE) {
        float x[BLOCK], e[BLOCK];
        for (uint32_t i = 0; i < BLOCK; i++)
            x[i] = -float_of_bits(bits + i * STRIDE);
        vf v = vload_f32(x);
        vexp_scaled(&v, &v, 1, scale);
        vstore_f32(e, v);
        for (int i = 0; i < BLOCK; i++)
            note(&w, ulp_error_f32(e[i], expl((long double)x[i])), x[i]);
    }
    report("exp on [-87, 0]", w, 0.89);
}

/* 0 or normal, never subnormal; NaN stays NaN; -inf gives 0; four blocks give what one gives. */
static void test_exp_edges(void **state)
{
    const exp_scale scale = exp_scale_of(3.0f);
    (void)state;
    for (int k = 0; k < 100000; k++) {
        float x[4 * BLOCK], one[BLOCK], four[4 * BLOCK];
        vf v[4], alone;
        for (int i = 0; i < 4 * BLOCK; i++)
            x[i] = -82.0f - (float)k * 1e-4f - (float)i * 1e-6f;
        x[k % 64] = k % 3 == 0 ? -LANE_INFINITY : k % 3 == 1 ? -3e38f : LANE_NAN;
        for (int b = 0; b < 4; b++)
            v[b] = vload_f32(x + BLOCK * b);
        alone = v[k % 4];
        vexp_scaled(v, v, 4, scale);
        vexp_scaled(&alone, &alone, 1, scale);
        for (int b = 0; b < 4; b++)
            vstore_f32(four + BLOCK * b, v[b]);
        vstore_f32(one, alone);
        for (int i = 0; i < 4 * BLOCK; i++) {
            if (x[i] != x[i]) {
                assert_true(four[i] != four[i]);
                continue;
            }
            assert_true(four[i] == 0.0f ? !signbit(four[i]) : four[i] >= SMALLEST_NORMAL);
            if (x[i] < -86.0f)
                assert_true(four[i] == 0.0f);
        }
        assert_memory_equal(one, four + BLOCK * (k % 4), sizeof one);
    }
}

/* A block of which both ways must give the same bits, or NaN. */
static void assert_same_exponentials(const float *x, float n)
{
    const vf v = vload_f32(x);
    float together[BLOCK], apart[BLOCK];
    vf e;
    vexp_scaled(&v, &e, 1, exp_scale_of(n));
    vstore_f32(together, e);
    vstore_f32(apart, vexp_of_factors(vexp_factors(v), ROUNDER + n));
    for (int i = 0; i < BLOCK; i++)
        if (x[i] != x[i])
            assert_true(apart[i] != apart[i]);
        else
            assert_int_equal(bits_of_float(apart[i]), bits_of_float(together[i]));
}

/* Rows with maxima over the whole range in which x itself is reduced: logits near the maximum, and
 * every STRIDE-th float below it. */
static void test_exp_factors(void **state)
{
    static const float tops[] = {0.0f,  1.0f,    -1.0f,    0x1p-149f, -100.0f,   88.7f,
                                 1e4f,  12345.6f, -3e4f,   65536.0f,  -65536.0f, -65535.7f};
    (void)state;
    for (size_t t = 0; t < sizeof tops / sizeof tops[0]; t++) {
        const float top = tops[t], n = exponent_of(top);
        float x[BLOCK];
        for (int k = 0; k < 100000; k += BLOCK) {
            for (int i = 0; i < BLOCK; i++)
                x[i] = top - 1e-3f * (float)(k + i);
            assert_same_exponentials(x, n);
        }
        for (uint32_t bits = 0; bits < 0x7f800000u - BLOCK * STRIDE; bits += BLOCK * STRIDE) {
            for (uint32_t i = 0; i < BLOCK; i++) {
                const float size = float_of_bits(bits + i * STRIDE);
                x[i] = size <= top ? size : -size <= top ? -size : top;
            }
            x[bits / (BLOCK * STRIDE) % BLOCK] = bits % 3 == 0 ? LANE_NAN : -LANE_INFINITY;
            assert_same_exponentials(x, n);
        }
    }
}

static void test_log1p(void **state)
{
    worst w = {0.0, 0.0f};
    (void)state;
    for (uint32_t bits = bits_of_float(SMALLEST_NORMAL);
         bits < bits_of_float(0x1p125f) - BLOCK * STRIDE; bits += BLOCK * STRIDE) {
        float u[BLOCK], l[BLOCK];
        for (uint32_t i = 0; i < BLOCK; i++)
            u[i] = float_of_bits(bits + i * STRIDE);
        vstore_f32(l, vlog1p(vload_f32(u)));
        for (int i = 0; i < BLOCK; i++)
            note(&w, ulp_error_f32(l[i], log1pl((long double)u[i])), u[i]);
    }
    report("log1p on [2^-126, 2^125]", w, 1.50);
    float out[BLOCK];
    vstore_f32(out, vlog1p(vset1(0.0f)));
    assert_true(out[0] == 0.0f && !signbit(out[0]));
    vstore_f32(out, vlog1p(vset1(LANE_NAN)));
    assert_true(out[0] != out[0]);
}

static void test_doubles(void **state)
{
    double worst_error = 0.0;
    (void)state;
    for (int k = -1022; k <= 0; k++)
        assert_true(power_of_two(k) == ldexp(1.0, k));
    assert_true(power_of_two(-1023) == 0.0 && power_of_two(-1e9) == 0.0);
    for (int k = 0; k < 1000000; k++) {
        const double y = 0.5 - k * 7.0e-4;
        const double want = (double)expl((long double)y), got = exp_of_double(y);
        if (y > -700.0 && fabs(got - want) > worst_error * want)
            worst_error = fabs(got - want) / want;
        if (y <= -700.0)
            assert_true(got == 0.0);
    }
    print_message("# exp of a double: relative error %.2g (bound 4e-16)\n", worst_error);
    assert_true(worst_error <= 4e-16);
}

int functions_test(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),       cmocka_unit_test(test_exp_of_negative),
        cmocka_unit_test(test_exp_edges), cmocka_unit_test(test_log1p),
        cmocka_unit_test(test_doubles),   cmocka_unit_test(test_exp_factors),
    };
    return cmocka_run_group_tests_name("functions", tests, NULL, NULL);
}
