/* SPDX-License-Identifier: MIT */
#include "statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEVEL 0.05 /* of the intervals */

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double *numbers(size_t count)
{
    double *p = calloc(count + 1, sizeof *p);

    if (!p)
        abort();
    return p;
}

/* A whole number and how often chance gives it, 0 to `largest`: all that the tests need. */
typedef struct distribution {
    double *probability;
    int largest;
} distribution;

static double at_most(const distribution *d, int sum)
{
    double p = 0.0;

    for (int s = 0; s <= sum; s++)
        p += d->probability[s];
    return p;
}

static double at_least(const distribution *d, int sum)
{
    double p = 0.0;

    for (int s = d->largest; s >= sum; s--)
        p += d->probability[s];
    return p;
}

static double two_sided(const distribution *d, int sum)
{
    return fmin(1.0, 2.0 * fmin(at_most(d, sum), at_least(d, sum)));
}

/* The largest sum that is so improbable, in steps of `step`, that it is refused; -1: none is. */
static int refused(const distribution *d, int first, int step)
{
    double p = 0.0;
    int count = -1;

    for (int s = first; s <= d->largest; s += step) {
        p += d->probability[s];
        if (p > 0.5 * LEVEL)
            break;
        count++;
    }
    return count;
}

/* Median of the sorted values, and the interval that leaves out those that are refused. */
static void estimate(const double *sorted, int count, int left_out, shift *out)
{
    out->value = 0.5 * (sorted[(count - 1) / 2] + sorted[count / 2]);
    out->low = left_out < 0 ? -INFINITY : sorted[left_out];
    out->high = left_out < 0 ? INFINITY : sorted[count - 1 - left_out];
}

/* ---- Pairs ----------------------------------------------------------------------------------- */

/* The sum of the ranks 1 to n of which each counts or not, by a coin. */
static distribution signed_ranks(int n)
{
    distribution d = {numbers((size_t)n * (size_t)(n + 1) / 2), n * (n + 1) / 2};

    d.probability[0] = 1.0;
    for (int rank = 1, top = 0; rank <= n; rank++) {
        top += rank;
        for (int s = top; s >= 0; s--)
            d.probability[s] = 0.5 * d.probability[s]
                             + (s < rank ? 0.0 : 0.5 * d.probability[s - rank]);
    }
    return d;
}

static int by_magnitude(const void *a, const void *b)
{
    const double x = fabs(*(const double *)a), y = fabs(*(const double *)b);
    return (x > y) - (x < y);
}

/* Where magnitudes are equal, which of them ranks higher is no matter as long as it does not depend
 * on the signs: they share the mean rank, in halves, and the sum is rounded to the middle. */
static int positive_ranks(double *differences, int n)
{
    const double half = 0.25 * n * (n + 1);
    double sum = 0.0;

    qsort(differences, (size_t)n, sizeof *differences, by_magnitude);
    for (int i = 0, end; i < n; i = end) {
        for (end = i; end < n && fabs(differences[end]) == fabs(differences[i]); end++)
            continue;
        for (int k = i; k < end; k++)
            sum += differences[k] > 0.0 ? 0.5 * (i + 1 + end) : 0.0;
    }
    return (int)(sum > half ? floor(sum) : ceil(sum));
}

/* Means of two of the values, each with itself too. */
static double *means_of_two(const double *values, int n, int *count)
{
    double *means = numbers((size_t)n * (size_t)(n + 1) / 2);

    *count = 0;
    for (int i = 0; i < n; i++)
        for (int j = i; j < n; j++)
            means[(*count)++] = 0.5 * (values[i] + values[j]);
    qsort(means, (size_t)*count, sizeof *means, by_size);
    return means;
}

shift shift_of_pairs(const double *differences, int count)
{
    shift out = {1.0, 0.0, -INFINITY, INFINITY};
    double *ranked = numbers((size_t)count);
    int n = 0, mean_count;

    if (count < 1) {
        free(ranked);
        return out;
    }
    for (int i = 0; i < count; i++)
        if (differences[i] != 0.0) /* its sign says nothing */
            ranked[n++] = differences[i];
    distribution d = signed_ranks(n);
    if (n > 0)
        out.p = two_sided(&d, positive_ranks(ranked, n));
    if (n < count) {
        free(d.probability);
        d = signed_ranks(count);
    }
    double *means = means_of_two(differences, count, &mean_count);
    estimate(means, mean_count, refused(&d, 0, 1), &out);
    free(means);
    free(d.probability);
    free(ranked);
    return out;
}

/* ---- Samples --------------------------------------------------------------------------------- */

/* The sum of `chosen` of the ranks, every choice alike. */
static distribution rank_sums(const int *rank, int n, int chosen)
{
    int largest = 0;

    for (int i = 0; i < n; i++)
        largest += rank[i];
    const size_t row = (size_t)largest + 1;
    double *ways = numbers(row * (size_t)(chosen + 1)), total = 0.0;
    distribution d = {numbers(row), largest};

    ways[0] = 1.0;
    for (int i = 0; i < n; i++)
        for (int k = chosen < i + 1 ? chosen : i + 1; k > 0; k--)
            for (size_t s = row - 1; s >= (size_t)rank[i]; s--)
                ways[(size_t)k * row + s] += ways[(size_t)(k - 1) * row + s - (size_t)rank[i]];
    memcpy(d.probability, ways + (size_t)chosen * row, row * sizeof *ways);
    for (size_t s = 0; s < row; s++)
        total += d.probability[s];
    for (size_t s = 0; s < row; s++)
        d.probability[s] /= total;
    free(ways);
    return d;
}

typedef struct sample {
    double value;
    int is_b;
} sample;

static int by_value(const void *a, const void *b)
{
    return by_size(&((const sample *)a)->value, &((const sample *)b)->value);
}

/* Ranks, doubled so that equal values can share the mean of theirs; returns the sum of b's. */
static int rank_samples(sample *all, int n, int *rank)
{
    int sum = 0;

    qsort(all, (size_t)n, sizeof *all, by_value);
    for (int i = 0, end; i < n; i = end) {
        for (end = i; end < n && all[end].value == all[i].value; end++)
            continue;
        for (int k = i; k < end; k++) {
            rank[k] = i + 1 + end;
            sum += all[k].is_b ? rank[k] : 0;
        }
    }
    return sum;
}

/* How many of all differences of two must be left out at either end. */
static int samples_refused(int a_count, int b_count)
{
    int rank[2 * STATISTICS_SAMPLES];

    for (int i = 0; i < a_count + b_count; i++)
        rank[i] = i + 1;
    distribution d = rank_sums(rank, a_count + b_count, b_count);
    const int count = refused(&d, b_count * (b_count + 1) / 2, 1);
    free(d.probability);
    return count;
}

shift shift_of_samples(const double *a, int a_count, const double *b, int b_count)
{
    shift out = {1.0, 0.0, -INFINITY, INFINITY};
    sample all[2 * STATISTICS_SAMPLES];
    int rank[2 * STATISTICS_SAMPLES];
    const int n = a_count + b_count;

    if (a_count < 1 || b_count < 1)
        return out;
    for (int i = 0; i < n; i++)
        all[i] = (sample){i < a_count ? a[i] : b[i - a_count], i >= a_count};
    const int sum = rank_samples(all, n, rank);
    distribution d = rank_sums(rank, n, b_count);
    out.p = two_sided(&d, sum);
    free(d.probability);

    double *differences = numbers((size_t)a_count * (size_t)b_count);
    for (int i = 0; i < a_count; i++)
        for (int j = 0; j < b_count; j++)
            differences[i * b_count + j] = b[j] - a[i];
    qsort(differences, (size_t)a_count * (size_t)b_count, sizeof *differences, by_size);
    estimate(differences, a_count * b_count, samples_refused(a_count, b_count), &out);
    free(differences);
    return out;
}

/* ---- Many tests ------------------------------------------------------------------------------ */

typedef struct placed {
    double p;
    int at;
} placed;

static int by_p(const void *a, const void *b)
{
    return by_size(&((const placed *)a)->p, &((const placed *)b)->p);
}

void adjust_for_count(double *p, int count)
{
    placed *sorted = malloc((size_t)(count + 1) * sizeof *sorted);
    double most = 0.0;

    if (!sorted)
        abort();
    for (int i = 0; i < count; i++)
        sorted[i] = (placed){p[i], i};
    qsort(sorted, (size_t)count, sizeof *sorted, by_p);
    for (int i = 0; i < count; i++) {
        most = fmax(most, fmin(1.0, (count - i) * sorted[i].p));
        p[sorted[i].at] = most;
    }
    free(sorted);
}
