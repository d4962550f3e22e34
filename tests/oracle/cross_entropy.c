/* SPDX-License-Identifier: MIT */
#include "oracle.h"

#include <math.h>

/* loss = w (log S + (m - x_y)): both parts are >= 0, and log S = log1p of what is not the maximum,
 * so nothing cancels however confident the row is.
 * grad_y = w (p_y - 1) = -w (the others' share of S). */
long double oracle_cross_entropy(const double *x, int64_t classes, int64_t label,
                                 long double weight, long double *grad)
{
    const int64_t k = oracle_row_max(x, classes);
    if (k < 0 || label < 0 || label >= classes) {
        for (int64_t c = 0; grad && c < classes; c++)
            grad[c] = NAN;
        return NAN;
    }
    const double max = x[k];
    const long double rest = oracle_sum_exp_without(x, classes, k, max);
    const long double sum = 1.0L + rest;
    for (int64_t c = 0; grad && c < classes; c++)
        grad[c] = weight * (oracle_exp_difference(x[c], max) / sum);
    if (grad)
        grad[label] = -weight * (oracle_sum_exp_without(x, classes, label, max) / sum);
    const long double below_max = (long double)max - (long double)x[label];
    return oracle_limit_product(weight, below_max + log1pl(rest));
}
