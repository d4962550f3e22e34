/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_DISPATCH_EFFECTIVE_NUMBER_H
#define BALLAST_DISPATCH_EFFECTIVE_NUMBER_H

#include <stdint.h>

/* What a class without samples weighs.  A caller that treats n = 0 as an error finds it first. */
enum ballast__empty_class {
    BALLAST__EMPTY_ONE, /* as if n = 1 */
    BALLAST__EMPTY_ZERO /* weight 0, left out of the normalisation */
};

/* The effective number of n samples (Cui et al., CVPR 2019).
 *
 *   E_n = (1 - beta^n) / (1 - beta) = sum of beta^k over k < n,  E_0 = 0;  beta = 1 gives n
 *
 * beta          in [0, 1]
 * n             >= 0, up to INT64_MAX
 * Rounding      mode to nearest, subnormals not flushed (every entry point sets both)
 * Accuracy      0.50 ULP: no result differed from the correctly rounded one (tests).
 * Cost          log2(n) steps of about 80 operations. */
double ballast__effective_number(double beta, int64_t n);

/* Class-balanced weights: inversely proportional to the effective numbers, K of them summing to K.
 *
 *   w_c = K (1 / E(n_c)) / (sum over j of 1 / E(n_j))
 *
 * counts        [classes], each >= 0
 * classes       >= 0
 * beta          in [0, 1]; 0 gives exactly 1 everywhere
 * empty_policy  one of enum ballast__empty_class.  ZERO: K and the sum are over the non-empty
 *               classes alone, so all are 0 when every class is empty.
 * weights_f64   [classes] or NULL; weights_f32 the same.  Each is rounded once, from about 100
 *               bits.  Neither may overlap the counts or each other.
 * Rounding      as above
 * Cost          two effective numbers a class; no memory of its own. */
void ballast__class_weights(const int64_t *counts, int64_t classes, double beta, int empty_policy,
                            double *weights_f64, float *weights_f32);

#endif
