/* SPDX-License-Identifier: MIT */
#include "effective_number.h"

#include <float.h>
#include <string.h>

_Static_assert(FLT_EVAL_METHOD == 0, "error terms are exact only if double stays double");

/* An unevaluated sum of about 106 bits; lo is at most half an ulp of hi. */
typedef struct pair {
    double hi, lo;
} pair;

/* Knuth: a + b exactly. */
static pair two_sum(double a, double b)
{
    const double sum = a + b;
    const double b_part = sum - a;
    const pair exact = {sum, (a - (sum - b_part)) + (b - b_part)};
    return exact;
}

/* Dekker: the same, where a is the larger of the two or zero. */
static pair fast_two_sum(double a, double b)
{
    const double sum = a + b;
    const pair exact = {sum, b - (sum - a)};
    return exact;
}

/* Veltkamp: a as the sum of two halves, whose products are exact.  2^27 a cannot overflow here, as
 * nothing exceeds 2^94; nor does it round wrongly for a subnormal a, all of whose parts are
 * multiples of 2^-1074. */
static pair halves(double a)
{
    const double scaled = a * 0x1.0000002p+27;
    const double high = scaled - (scaled - a);
    const pair exact = {high, a - high};
    return exact;
}

/* Dekker: a * b exactly, by splitting, so that the bits do not depend on there being an fma.
 * Where the lowest part falls below 2^-1074 the error is a few of those; see partial_sum. */
static pair two_product(double a, double b)
{
    const double product = a * b;
    const pair x = halves(a), y = halves(b);
    const double rest = ((x.hi * y.hi - product) + x.hi * y.lo) + x.lo * y.hi;
    const pair exact = {product, rest + x.lo * y.lo};
    return exact;
}

static pair multiply(pair a, pair b)
{
    const pair p = two_product(a.hi, b.hi);
    return fast_two_sum(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

static pair scale(pair a, double b)
{
    const pair p = two_product(a.hi, b);
    return fast_two_sum(p.hi, p.lo + a.lo * b);
}

/* Of terms that do not cancel: both positive, or as in partial_sum. */
static pair add(pair a, pair b)
{
    const pair s = two_sum(a.hi, b.hi);
    return fast_two_sum(s.hi, s.lo + (a.lo + b.lo));
}

static pair divide(double a, pair b)
{
    const double quotient = a / b.hi;
    const pair product = scale(b, quotient);
    const double rest = (a - product.hi) - product.lo;
    return fast_two_sum(quotient, rest / b.hi);
}

static pair of_double(double a)
{
    const pair exact = {a, 0.0};
    return exact;
}

/* Rounds to the neighbour with an odd last bit unless exact: a second rounding, to nearest and to
 * at least two bits fewer, then gives what a single one would have given (Boldo and Melquiond). */
static double round_to_odd(pair a)
{
    uint64_t bits;
    double odd;

    memcpy(&bits, &a.hi, sizeof bits);
    if (a.lo != 0.0 && (bits & 1) == 0) {
        if ((a.lo > 0.0) == (a.hi > 0.0))
            bits++;
        else
            bits--;
    }
    memcpy(&odd, &bits, sizeof odd);
    return odd;
}

/* E_n from the bits of n, highest first: E_2k = E_k (1 + beta^k), E_(k+1) = 1 + beta E_k.
 *
 * 1 + beta^k is taken as 2 - (1 - beta) E_k, which lies in [1, 2]; 1 - beta is exact as a pair.
 * Squaring beta^k alongside would double its relative error at each step, up to 2^-79 of E_n, and
 * misrounds beta = 0x1.fffffff54a9aap-1, n = 2153050807.  Here an error in E_k shrinks with the
 * doubling; the largest seen was 2^-102.5, at beta = 1 - 2^-43 or so.
 *
 * Underflow: below beta = 2^-900 every E_k has hi = 1, and products with 1 are exact; what is lost
 * in the low words is a few times 2^-1074, next to 1. */
static pair partial_sum(double beta, int64_t n)
{
    const pair complement = two_sum(1.0, -beta);
    pair e = {0.0, 0.0};
    int bit = 0;

    while (n >> bit > 1)
        bit++;
    for (; bit >= 0; bit--) {
        const pair d = multiply(complement, e);
        const pair minus_d = {-d.hi, -d.lo};

        e = multiply(e, add(of_double(2.0), minus_d));
        if (n >> bit & 1)
            e = add(of_double(1.0), scale(e, beta));
    }
    return e;
}

/* Rounds 1 + beta E_(n-1) from three words, since a pair cannot tell 1 + 2^-53 + 2^-106 from a tie:
 * beta = 2^-53 and n = 3 would give 1. */
double ballast__effective_number(double beta, int64_t n)
{
    if (n == 0)
        return 0.0;
    const pair rest = scale(partial_sum(beta, n - 1), beta);
    const pair sum = two_sum(1.0, rest.hi);
    return sum.hi + round_to_odd(two_sum(sum.lo, rest.lo));
}

static int64_t samples(int64_t count, int empty_policy)
{
    return count == 0 && empty_policy == BALLAST__EMPTY_ONE ? 1 : count;
}

/* The effective numbers are computed twice rather than kept: a pair has no room in either output,
 * and so the bits of one output do not depend on whether the other is wanted. */
void ballast__class_weights(const int64_t *counts, int64_t classes, double beta, int empty_policy,
                            double *weights_f64, float *weights_f32)
{
    pair total = {0.0, 0.0};
    int64_t present = 0;

    for (int64_t c = 0; c < classes; c++) {
        const int64_t n = samples(counts[c], empty_policy);

        if (n > 0) {
            total = add(total, divide(1.0, partial_sum(beta, n)));
            present++;
        }
    }
    for (int64_t c = 0; c < classes; c++) {
        const int64_t n = samples(counts[c], empty_policy);
        pair weight = {0.0, 0.0};

        if (n > 0)
            weight = divide((double)present, multiply(total, partial_sum(beta, n)));
        if (weights_f64)
            weights_f64[c] = weight.hi;
        if (weights_f32)
            weights_f32[c] = (float)round_to_odd(weight);
    }
}
