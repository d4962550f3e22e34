/* SPDX-License-Identifier: MIT */
#include "oracle.h"

#include <stddef.h>

long double oracle_class_balanced_softmax(const double *x, int64_t classes, int64_t label,
                                          long double weight, long double *grad)
{
    return oracle_cross_entropy(x, classes, label, weight, grad);
}

long double oracle_class_balanced_sigmoid(const double *x, int64_t classes, int64_t label,
                                          long double weight, long double *grad)
{
    oracle_sum s = {0};
    for (int64_t c = 0; c < classes; c++) {
        long double by_x;
        oracle_add(&s, oracle_binary_cross_entropy(x[c], c == label ? 1.0 : 0.0, 1.0L, &by_x,
                                                   NULL));
        if (grad)
            grad[c] = weight * by_x;
    }
    return oracle_limit_product(weight, oracle_total(&s));
}

long double oracle_class_balanced_focal(const double *x, int64_t classes, int64_t label,
                                        long double weight, double gamma, long double *grad)
{
    oracle_sum s = {0};
    for (int64_t c = 0; c < classes; c++) {
        long double by_x;
        oracle_add(&s, oracle_sigmoid_focal(x[c], c == label, -1.0, gamma, &by_x));
        if (grad)
            grad[c] = weight * by_x;
    }
    return oracle_limit_product(weight, oracle_total(&s));
}
