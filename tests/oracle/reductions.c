/* SPDX-License-Identifier: MIT */
#include "oracle.h"

#include <math.h>
#include <stddef.h>

/* Neumaier's sum: what each addition rounds away is kept beside it. */
void oracle_add(oracle_sum *s, long double value)
{
    const long double sum = s->sum + value;
    if (fabsl(s->sum) >= fabsl(value))
        s->rest += (s->sum - sum) + value;
    else
        s->rest += (value - sum) + s->sum;
    s->sum = sum;
    s->terms += fabsl(value);
}

long double oracle_total(const oracle_sum *s)
{
    /* after an infinity the rest is NaN, the sum is what IEEE arithmetic says */
    return isfinite(s->sum) ? s->sum + s->rest : s->sum;
}

static long double weight_of(const double *w, int64_t i)
{
    return w ? (long double)w[i] : 1.0L;
}

static long double finish(const oracle_sum *s, long double *terms)
{
    if (terms)
        *terms = s->terms;
    return oracle_total(s);
}

long double oracle_weighted_sum(const double *x, const double *w, int64_t n, long double *terms)
{
    oracle_sum s = {0};
    for (int64_t i = 0; i < n; i++)
        oracle_add(&s, weight_of(w, i) * (long double)x[i]);
    return finish(&s, terms);
}

long double oracle_weighted_mean(const double *x, const double *w, int64_t n, long double *terms)
{
    oracle_sum weights = {0};
    for (int64_t i = 0; i < n; i++)
        oracle_add(&weights, weight_of(w, i));
    const long double divisor = oracle_total(&weights);
    const long double sum = oracle_weighted_sum(x, w, n, terms);
    if (terms)
        *terms /= fabsl(divisor);
    return sum / divisor;
}

long double oracle_sum_of_squares(const double *x, const double *w, int64_t n, long double *terms)
{
    oracle_sum s = {0};
    for (int64_t i = 0; i < n; i++)
        oracle_add(&s, weight_of(w, i) * ((long double)x[i] * (long double)x[i]));
    return finish(&s, terms);
}

long double oracle_dot(const double *x, const double *y, int64_t n, long double *terms)
{
    oracle_sum s = {0};
    for (int64_t i = 0; i < n; i++)
        oracle_add(&s, (long double)x[i] * (long double)y[i]);
    return finish(&s, terms);
}

/* Index of the largest w_i e^x_i, or -1 where the result is NaN. */
static int64_t largest_term(const double *x, const double *w, int64_t n)
{
    int64_t at = -1;
    long double largest = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        const long double weight = weight_of(w, i);
        if (isnan(x[i]) || x[i] == INFINITY || !(weight >= 0.0L && isfinite(weight)))
            return -1;
        const long double size = (long double)x[i] + logl(weight);
        if (size > largest) {
            largest = size;
            at = i;
        }
    }
    return at;
}

/* x_k + log w_k + log1p(the others over the largest): the logarithm of a sum near 1 never appears,
 * so the three parts bound the error. */
long double oracle_weighted_log_sum_exp(const double *x, const double *w, int64_t n,
                                        long double *terms)
{
    const int64_t k = largest_term(x, w, n);
    if (k < 0) {
        if (terms)
            *terms = NAN;
        return NAN;
    }
    oracle_sum others = {0};
    for (int64_t i = 0; i < n; i++) {
        const long double share = weight_of(w, i) / weight_of(w, k);
        if (i != k && share > 0.0L)
            oracle_add(&others, share * oracle_exp_difference(x[i], x[k]));
    }
    const long double log_others = log1pl(oracle_total(&others));
    const long double log_weight = logl(weight_of(w, k));
    if (terms)
        *terms = fabsl((long double)x[k]) + fabsl(log_weight) + log_others;
    oracle_sum s = {0};
    oracle_add(&s, x[k]);
    oracle_add(&s, log_weight);
    oracle_add(&s, log_others);
    return oracle_total(&s);
}

void oracle_class_counts(const int64_t *labels, int64_t rows, int64_t classes, int64_t *counts)
{
    for (int64_t c = 0; c < classes; c++)
        counts[c] = 0;
    for (int64_t row = 0; row < rows; row++) {
        if (labels[row] >= 0 && labels[row] < classes)
            counts[labels[row]]++;
    }
}

/* One pass over the rows per class: slow, and free of any memory of its own. */
void oracle_class_sums(const double *x, const int64_t *labels, int64_t rows, int64_t classes,
                       long double *sums, long double *terms, int64_t *counts)
{
    for (int64_t c = 0; c < classes; c++) {
        oracle_sum s = {0};
        for (int64_t row = 0; row < rows; row++) {
            if (labels[row] == c)
                oracle_add(&s, x[row]);
        }
        sums[c] = finish(&s, terms ? &terms[c] : NULL);
    }
    if (counts)
        oracle_class_counts(labels, rows, classes, counts);
}

static int64_t count_of(const int64_t *labels, int64_t rows, int64_t class)
{
    int64_t count = 0;
    for (int64_t row = 0; row < rows; row++)
        count += labels[row] == class;
    return count;
}

void oracle_class_means(const double *x, const int64_t *labels, int64_t rows, int64_t classes,
                        long double *means, long double *terms, int64_t *counts)
{
    oracle_class_sums(x, labels, rows, classes, means, terms, counts);
    for (int64_t c = 0; c < classes; c++) {
        const long double count = (long double)count_of(labels, rows, c);
        means[c] /= count;
        if (terms)
            terms[c] /= count;
    }
}
