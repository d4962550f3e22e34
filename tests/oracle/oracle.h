/* SPDX-License-Identifier: MIT */
/* The oracle: what each operation is, written down as plainly as the mathematics allows, in long
 * double.
 *
 * It defines the accuracy of the f32 and f64 kernels and shares no formula with them.  Nothing here
 * is fast.  Its own error is below 2^-58 of each result, or of its `terms` where a result has them
 * (tests/oracle_self.c, against MPFR).  That needs 64 bits or more in long double, so under
 * valgrind, which computes long double in 53, the oracle is no reference for f64.
 *
 * Inputs are doubles; the caller converts other dtypes, which is exact.
 * `terms` is the sum of the magnitudes that were added or subtracted: the scale of the error of a
 * result in which they may cancel.  Outputs said to be optional may be NULL.
 *
 * Rows of logits: x = -inf has probability exactly 0.  A row with NaN or +inf, and a row of nothing
 * but -inf, gives NaN in every output of that row.  A weight of 0 times an infinite loss is 0.
 * Exponentials below about 2^-16445 are 0; no dtype can hold them. */
#ifndef BALLAST_TESTS_ORACLE_H
#define BALLAST_TESTS_ORACLE_H

#include <float.h>
#include <stdint.h>

_Static_assert(LDBL_MANT_DIG >= 64, "the oracle needs a long double wider than double");

/* Rows: softmax.c ----------------------------------------------------------------------------- */

/* p_c = e^x_c / sum_k e^x_k */
void oracle_softmax(const double *x, int64_t classes, long double *p);

/* lp_c = log p_c; both of its parts are <= 0, so it is accurate in itself, without terms */
void oracle_log_softmax(const double *x, int64_t classes, long double *lp);

/* log sum_c e^x_c = m + log S with m the largest logit; terms (optional) = |m| + |log S| */
long double oracle_log_sum_exp(const double *x, int64_t classes, long double *terms);

/* dx_c = y_c (g_c - sum_k g_k y_k), y the softmax as stored; terms [classes], optional */
void oracle_softmax_backward(const double *y, const double *g, int64_t classes, long double *dx,
                             long double *terms);

/* dx_c = g_c - e^lp_c sum_k g_k, lp the log-softmax as stored; terms [classes], optional */
void oracle_log_softmax_backward(const double *lp, const double *g, int64_t classes,
                                 long double *dx, long double *terms);

/* Softmax cross-entropy: cross_entropy.c ------------------------------------------------------ */

/* Returns weight (lse(x) - x_label); grad (optional): grad_c = weight (p_c - [c = label]).
 * label in [0, classes), otherwise everything is NaN. */
long double oracle_cross_entropy(const double *x, int64_t classes, int64_t label,
                                 long double weight, long double *grad);

/* Sigmoid losses: binary_cross_entropy.c, sigmoid_focal.c -------------------------------------- */

/* 1 / (1 + e^-x) and log(1 + e^x), with their limits at -inf and +inf */
long double oracle_sigmoid(double x);
long double oracle_softplus(double x);

/* Returns pos_weight t softplus(-x) + (1 - t) softplus(x), which is
 * (1 + (pos_weight - 1) t) softplus(-x) + (1 - t) x.
 * grad (optional): (1 - t) sigmoid(x) - pos_weight t sigmoid(-x); grad_terms (optional).
 * target in [0, 1]; at x = -inf and +inf the limits. */
long double oracle_binary_cross_entropy(double x, double target, long double pos_weight,
                                        long double *grad, long double *grad_terms);

/* Returns alpha_t (1 - p_t)^gamma (-log p_t) and its derivative by x (optional).
 * target 0 or 1; alpha_t = alpha for 1, 1 - alpha for 0, 1 for both when alpha < 0; gamma >= 0. */
long double oracle_sigmoid_focal(double x, int target, double alpha, double gamma,
                                 long double *grad);

/* Class-balanced losses of one row: class_balanced.c ------------------------------------------ */

/* `weight` is that of the true class and multiplies the whole row; grad [classes] is optional.
 * The sigmoid forms are sums over the classes, without alpha; a negative label makes all of them
 * negative.  Dividing by the number of rows is left to the caller. */
long double oracle_class_balanced_softmax(const double *x, int64_t classes, int64_t label,
                                          long double weight, long double *grad);
long double oracle_class_balanced_sigmoid(const double *x, int64_t classes, int64_t label,
                                          long double weight, long double *grad);
long double oracle_class_balanced_focal(const double *x, int64_t classes, int64_t label,
                                        long double weight, double gamma, long double *grad);

/* Reductions: reductions.c -------------------------------------------------------------------- */

/* w is NULL for all ones; terms is optional.  Special values follow IEEE arithmetic. */
long double oracle_weighted_sum(const double *x, const double *w, int64_t n, long double *terms);
long double oracle_weighted_mean(const double *x, const double *w, int64_t n, long double *terms);
long double oracle_sum_of_squares(const double *x, const double *w, int64_t n, long double *terms);
long double oracle_dot(const double *x, const double *y, int64_t n, long double *terms);

/* log sum_i w_i e^x_i, weights finite and >= 0.  terms = |x_k| + |log w_k| + log S, with k the
 * largest term of the sum and S the sum divided by it.  Special values as for a row of logits: NaN
 * or +inf gives NaN, and so does a row of which no element of positive weight is above -inf. */
long double oracle_weighted_log_sum_exp(const double *x, const double *w, int64_t n,
                                        long double *terms);

/* Per class of labels[row]; rows whose label is outside [0, classes) are left out.
 * terms, counts: [classes], optional.  The mean of an empty class is NaN. */
void oracle_class_counts(const int64_t *labels, int64_t rows, int64_t classes, int64_t *counts);
void oracle_class_sums(const double *x, const int64_t *labels, int64_t rows, int64_t classes,
                       long double *sums, long double *terms, int64_t *counts);
void oracle_class_means(const double *x, const int64_t *labels, int64_t rows, int64_t classes,
                        long double *means, long double *terms, int64_t *counts);

/* Errors: ulp.c ------------------------------------------------------------------------------- */

/* |got - want| in units in the last place of the binade of `want` as rounded to the dtype; the unit
 * is never below the smallest subnormal nor above that of the largest finite number.
 *
 * Small    |want| below twice the smallest normal number (f16 and bf16: of f32, in which they are
 *          computed): no error if got is 0 or within one smallest normal number of `want` (results
 *          there may be flushed)
 * Special  NaN for NaN: 0.  The infinity to which `want` rounds: 0.  Any other mismatch of NaN or
 *          infinity: INFINITY. */
double ulp_error_f32(float got, long double want);
double ulp_error_f64(double got, long double want);
double ulp_error_bf16(float got, long double want);
double ulp_error_f16(float got, long double want);

/* The same in units of the binade of `terms`: for results in which terms may cancel. */
double ulp_error_of_terms_f32(float got, long double want, long double terms);
double ulp_error_of_terms_f64(double got, long double want, long double terms);
double ulp_error_of_terms_bf16(float got, long double want, long double terms);
double ulp_error_of_terms_f16(float got, long double want, long double terms);

/* Shared by the files of the oracle ----------------------------------------------------------- */

/* A compensated sum, started from {0}: about twice the digits of long double. */
typedef struct {
    long double sum;
    long double rest;
    long double terms;
} oracle_sum;

void oracle_add(oracle_sum *s, long double value);
long double oracle_total(const oracle_sum *s);

/* a b, and 0 where a is 0 and b infinite: the limits of these losses, whose factor wins */
long double oracle_limit_product(long double a, long double b);

/* Index of the largest logit, or -1 where the row's outputs are NaN. */
int64_t oracle_row_max(const double *x, int64_t classes);

/* e^(x - max), also where x - max does not fit a long double */
long double oracle_exp_difference(double x, double max);

/* sum_{c != without} e^(x_c - max) */
long double oracle_sum_exp_without(const double *x, int64_t classes, int64_t without, double max);

#endif
