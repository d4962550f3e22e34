/* SPDX-License-Identifier: MIT */
#include "oracle.h"

#include <math.h>

typedef struct {
    int digits;
    int min_exponent; /* of the smallest normal number, as 2^min_exponent */
    int max_exponent; /* of the binade of the largest finite number */
    int flushed;      /* below 2^flushed a result may be 0: kernels compute f16 and bf16 in f32 */
} dtype;

static const dtype f32 = {24, -126, 127, -126};
static const dtype f64 = {53, -1022, 1023, -1022};
static const dtype bf16 = {8, -126, 127, -126};
static const dtype f16 = {11, -14, 15, -126};

/* `rounded` is a value of the dtype, 0 and infinities included. */
static long double unit_in_last_place(long double rounded, const dtype *d)
{
    int exponent = d->min_exponent;
    if (isinf(rounded))
        exponent = d->max_exponent;
    else if (rounded != 0.0L && ilogbl(rounded) > exponent)
        exponent = ilogbl(rounded);
    return ldexpl(1.0L, exponent - (d->digits - 1));
}

/* `rounded` is `want` in the dtype, `scale` what names the binade of the unit. */
static double error_in_units(long double got, long double want, long double rounded,
                             long double scale, const dtype *d)
{
    if (isnan(got) || isnan(want))
        return isnan(got) && isnan(want) ? 0.0 : (double)INFINITY;
    if (got == rounded && isinf(got))
        return 0.0;
    if (isinf(got) || isinf(want) || isnan(scale))
        return (double)INFINITY;
    const long double normal = ldexpl(1.0L, d->flushed);
    const long double error = fabsl(got - want);
    if (fabsl(want) < 2.0L * normal && (got == 0.0L || error <= normal))
        return 0.0;
    return (double)(error / unit_in_last_place(scale, d));
}

/* To nearest, ties to even. */
static long double rounded_to(long double x, const dtype *d)
{
    if (isnan(x) || isinf(x) || x == 0.0L)
        return x;
    const long double unit = unit_in_last_place(x, d);
    const long double rounded = nearbyintl(x / unit) * unit;
    return fabsl(rounded) < ldexpl(1.0L, d->max_exponent + 1) ? rounded
                                                              : copysignl(INFINITY, rounded);
}

double ulp_error_f32(float got, long double want)
{
    const float rounded = (float)want;
    return error_in_units(got, want, rounded, rounded, &f32);
}

double ulp_error_f64(double got, long double want)
{
    const double rounded = (double)want;
    return error_in_units(got, want, rounded, rounded, &f64);
}

double ulp_error_of_terms_f32(float got, long double want, long double terms)
{
    return error_in_units(got, want, (float)want, (float)terms, &f32);
}

double ulp_error_of_terms_f64(double got, long double want, long double terms)
{
    return error_in_units(got, want, (double)want, (double)terms, &f64);
}

#define DEFINE_HALF(type)                                                                         \
    double ulp_error_##type(float got, long double want)                                          \
    {                                                                                             \
        const long double rounded = rounded_to(want, &type);                                      \
        return error_in_units(got, want, rounded, rounded, &type);                                \
    }                                                                                             \
    double ulp_error_of_terms_##type(float got, long double want, long double terms)              \
    {                                                                                             \
        return error_in_units(got, want, rounded_to(want, &type), rounded_to(terms, &type),       \
                              &type);                                                             \
    }
DEFINE_HALF(bf16)
DEFINE_HALF(f16)
