/* SPDX-License-Identifier: MIT */
#include "losses.h"

static ballast_status run_binary_cross_entropy(const case_data *c, case_results *r,
                                               const ballast_exec *exec)
{
    ballast_binary_cross_entropy_args a = BALLAST_BINARY_CROSS_ENTROPY_ARGS;

    SET_SIGMOID_LOSS(a, c, r);
    RUN(binary_cross_entropy, a);
}

static long double binary_element(const case_data *c, double x, double target, long double *grad,
                                  long double *terms)
{
    (void)c;
    return oracle_binary_cross_entropy(x, target, 1.0L, grad, terms);
}

static void refer_binary_cross_entropy(const case_data *c, int64_t row, case_reference *r)
{
    r->of_terms[GRAD] = c->p.targets == TARGETS_SOFT || c->p.targets == TARGETS_DENSE;
    refer_elements(c, row, r, binary_element);
}

VARIANTS(binary, "reduction=sum", "reduction=sum,targets=u8,inplace=1",
         "reduction=sum,targets=soft",
         "weights=both,ignored=20,background=20,denominator=positives",
         "targets=dense,weights=row,inplace=1,pieces=1",
         "labels=u8,ignored=10,reduction=none,grad_rows=1,grad_scale=0.3");

const operation operation_binary_cross_entropy = {
    "binary_cross_entropy", SIGMOID_KEYS, SIGMOID_OUTPUTS(4, 4), binary,
    FUNCTIONS(make_loss, binary_cross_entropy)};
