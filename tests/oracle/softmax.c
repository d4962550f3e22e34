/* SPDX-License-Identifier: MIT */
#include "oracle.h"

#include <math.h>

int64_t oracle_row_max(const double *x, int64_t classes)
{
    int64_t at = -1;
    for (int64_t c = 0; c < classes; c++) {
        if (isnan(x[c]) || x[c] == INFINITY)
            return -1;
        if (x[c] != -INFINITY && (at < 0 || x[c] > x[at]))
            at = c;
    }
    return at;
}

/* 64 bits do not always hold the difference of two logits, and at a gap of 700 what they round away
 * would be 2^-56 of the exponential.  Knuth's two-sum finds it: e^(d + r) = e^d (1 + r). */
long double oracle_exp_difference(double x, double max)
{
    if (x == -INFINITY)
        return 0.0L;
    const long double a = x, b = -(long double)max;
    const long double d = a + b;
    const long double b_used = d - a;
    const long double r = (a - (d - b_used)) + (b - b_used);
    const long double e = expl(d);
    /* r belongs to a d that is large only where e is 0 */
    return e == 0.0L ? 0.0L : e + e * r;
}

long double oracle_sum_exp_without(const double *x, int64_t classes, int64_t without, double max)
{
    oracle_sum s = {0};
    for (int64_t c = 0; c < classes; c++) {
        if (c != without)
            oracle_add(&s, oracle_exp_difference(x[c], max));
    }
    return oracle_total(&s);
}

static void fill_nan(long double *out, int64_t classes)
{
    for (int64_t c = 0; c < classes; c++)
        out[c] = NAN;
}

void oracle_softmax(const double *x, int64_t classes, long double *p)
{
    const int64_t k = oracle_row_max(x, classes);
    if (k < 0) {
        fill_nan(p, classes);
        return;
    }
    const long double sum = 1.0L + oracle_sum_exp_without(x, classes, k, x[k]);
    for (int64_t c = 0; c < classes; c++)
        p[c] = oracle_exp_difference(x[c], x[k]) / sum;
}

void oracle_log_softmax(const double *x, int64_t classes, long double *lp)
{
    const int64_t k = oracle_row_max(x, classes);
    if (k < 0) {
        fill_nan(lp, classes);
        return;
    }
    const long double log_sum = log1pl(oracle_sum_exp_without(x, classes, k, x[k]));
    for (int64_t c = 0; c < classes; c++)
        lp[c] = ((long double)x[c] - (long double)x[k]) - log_sum;
}

long double oracle_log_sum_exp(const double *x, int64_t classes, long double *terms)
{
    const int64_t k = oracle_row_max(x, classes);
    long double max = NAN, log_sum = NAN;
    if (k >= 0) {
        max = x[k];
        log_sum = log1pl(oracle_sum_exp_without(x, classes, k, x[k]));
    }
    if (terms)
        *terms = fabsl(max) + log_sum;
    return max + log_sum;
}

void oracle_softmax_backward(const double *y, const double *g, int64_t classes, long double *dx,
                             long double *terms)
{
    oracle_sum s = {0};
    for (int64_t c = 0; c < classes; c++)
        oracle_add(&s, (long double)g[c] * (long double)y[c]);
    const long double sum = oracle_total(&s);
    for (int64_t c = 0; c < classes; c++) {
        dx[c] = (long double)y[c] * ((long double)g[c] - sum);
        if (terms)
            terms[c] = fabsl((long double)y[c]) * (fabsl((long double)g[c]) + s.terms);
    }
}

void oracle_log_softmax_backward(const double *lp, const double *g, int64_t classes,
                                 long double *dx, long double *terms)
{
    oracle_sum s = {0};
    for (int64_t c = 0; c < classes; c++)
        oracle_add(&s, g[c]);
    const long double sum = oracle_total(&s);
    for (int64_t c = 0; c < classes; c++) {
        const long double p = expl((long double)lp[c]);
        dx[c] = (long double)g[c] - p * sum;
        if (terms)
            terms[c] = fabsl((long double)g[c]) + p * s.terms;
    }
}
