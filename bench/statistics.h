/* SPDX-License-Identifier: MIT */
/* Whether two sets of times differ by more than chance, and by how much. Only the order of numbers
 * counts: on shared machines a pause makes one run many times as long as its neighbours.
 *
 * Nothing is drawn at random: the distributions are those over all permutations, by counting. */
#ifndef BALLAST_BENCH_STATISTICS_H
#define BALLAST_BENCH_STATISTICS_H

enum { STATISTICS_PAIRS = 500, STATISTICS_SAMPLES = 64 };

/* p: how often chance alone gives so large a shift, to either side. The interval holds the shifts
 * that the same test does not refuse at 5 %; it is infinite where there are too few numbers. */
typedef struct shift {
    double p, value, low, high;
} shift;

/* Differences of pairs, at most STATISTICS_PAIRS. Had the pair's members changed places, the sign
 * would be the other one: Wilcoxon's signed ranks over all 2^n signs, with the estimate of Hodges
 * and Lehmann (1963), the median of the means of two. */
shift shift_of_pairs(const double *differences, int count);

/* How much larger b's are than a's, at most STATISTICS_SAMPLES each, that were not measured in
 * pairs: Wilcoxon's rank sum over all ways to deal the numbers out. */
shift shift_of_samples(const double *a, int a_count, const double *b, int b_count);

/* Raises the p of `count` tests made at once, so that one of them that is below a level is so by
 * chance with that level's probability at most, however many there are (Holm 1979). */
void adjust_for_count(double *p, int count);

#endif
