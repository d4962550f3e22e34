/* SPDX-License-Identifier: MIT */
#include "oracle.h"

#include <math.h>

typedef struct {
    int digits;
    int min_exponent; /* of the smallest normal number, as 2^min_exponent */
    int max_exponent; /* of the binade of the largest finite number */
} dtype;

static const dtype f32 = {24, -126, 127};
static const dtype f64 = {53, -1022, 1023};

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
    const long double normal = ldexpl(1.0L, d->min_exponent);
    const long double error = fabsl(got - want);
    if (fabsl(want) < 2.0L * normal && (got == 0.0L || error <= normal))
        return 0.0;
    return (double)(error / unit_in_last_place(scale, d));
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
