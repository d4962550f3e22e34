/* SPDX-License-Identifier: MIT */
#include "oracle.h"

#include <math.h>

/* With z = x for a positive and -x for a negative, p = sigmoid(z), q = 1 - p = sigmoid(-z):
 *   loss = a q^gamma (-log p)
 *   dp/dz = p q, so dloss/dz = a (-gamma q^(gamma - 1) p q (-log p) - q^gamma q)
 *                            = -a q^gamma (gamma p (-log p) + q)
 * All parts of the bracket are >= 0.  p (-log p) goes to 0 with p. */
long double oracle_sigmoid_focal(double x, int target, double alpha, double gamma,
                                 long double *grad)
{
    const double z = target ? x : -x;
    const long double for_target = target ? (long double)alpha : 1.0L - (long double)alpha;
    const long double a = alpha < 0.0 ? 1.0L : for_target;
    const long double p = oracle_sigmoid(z);
    const long double q = oracle_sigmoid(-z);
    const long double minus_log_p = oracle_softplus(-z);
    const long double modulator = a * powl(q, (long double)gamma);
    if (grad) {
        const long double p_log_p = oracle_limit_product(p, minus_log_p);
        const long double by_z = -modulator * ((long double)gamma * p_log_p + q);
        *grad = target ? by_z : -by_z;
    }
    return oracle_limit_product(modulator, minus_log_p);
}
