/* SPDX-License-Identifier: MIT */
#include "oracle.h"

#include <math.h>

long double oracle_limit_product(long double a, long double b)
{
    return a == 0.0L && isinf(b) ? 0.0L : a * b;
}

long double oracle_sigmoid(double x)
{
    return 1.0L / (1.0L + expl(-(long double)x));
}

long double oracle_softplus(double x)
{
    if (x > 0.0)
        return (long double)x + log1pl(expl(-(long double)x));
    return log1pl(expl((long double)x));
}

/* -(pw t log p + (1 - t) log(1 - p)), both parts >= 0 */
long double oracle_binary_cross_entropy(double x, double target, long double pos_weight,
                                        long double *grad, long double *grad_terms)
{
    const long double positive = pos_weight * (long double)target;
    const long double negative = 1.0L - (long double)target;
    const long double pull_up = positive * oracle_sigmoid(-x);
    const long double pull_down = negative * oracle_sigmoid(x);
    if (grad)
        *grad = pull_down - pull_up;
    if (grad_terms)
        *grad_terms = fabsl(pull_down) + fabsl(pull_up);
    return oracle_limit_product(positive, oracle_softplus(-x))
         + oracle_limit_product(negative, oracle_softplus(x));
}
