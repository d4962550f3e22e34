/* SPDX-License-Identifier: MIT */
#include "losses.h"

static ballast_status run_sigmoid_focal(const case_data *c, case_results *r,
                                        const ballast_exec *exec)
{
    ballast_sigmoid_focal_args a = BALLAST_SIGMOID_FOCAL_ARGS;

    SET_SIGMOID_LOSS(a, c, r);
    a.alpha = c->p.alpha;
    a.gamma = c->p.gamma;
    RUN(sigmoid_focal, a);
}

static long double focal_element(const case_data *c, double x, double target, long double *grad,
                                 long double *terms)
{
    *terms = 0.0L;
    return oracle_sigmoid_focal(x, target != 0.0, c->p.alpha, c->p.gamma, grad);
}

static void refer_sigmoid_focal(const case_data *c, int64_t row, case_reference *r)
{
    refer_elements(c, row, r, focal_element);
}

VARIANTS(focal, "reduction=sum,alpha=-1", "reduction=sum,targets=u8,gamma=0,alpha=-1",
         "reduction=sum,alpha=-1,gamma=0.5,targets=dense,inplace=1",
         "reduction=sum,alpha=-1,gamma=1",
         "reduction=sum,alpha=-1,gamma=1.5,targets=u8", "reduction=sum,alpha=-1,gamma=5",
         "weights=both,ignored=20,background=20,denominator=positives,inplace=1",
         "targets=u8,weights=row,gamma=3,pieces=1",
         "labels=i32,alpha=0,reduction=none,grad_rows=1,grad_scale=0.3");

const operation operation_sigmoid_focal = {
    "sigmoid_focal", SIGMOID_KEYS | KEY(KEY_GAMMA) | KEY(KEY_ALPHA), SIGMOID_OUTPUTS(5, 6), focal,
    FUNCTIONS(make_loss, sigmoid_focal)};
