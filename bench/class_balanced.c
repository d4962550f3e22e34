/* SPDX-License-Identifier: MIT */
#include "losses.h"

#include <math.h>

/* A long tail of counts, and the weights that the library makes of them. */
static void make_class_balanced(case_data *c)
{
    ballast_class_weights_args a = BALLAST_CLASS_WEIGHTS_ARGS;
    const problem *p = &c->p;

    make_loss(c);
    c->in[IN_COUNTS] = make_array(p, "counts", BALLAST_I64, p->classes, 1);
    for (int64_t k = 0; k < p->classes; k++)
        store_integer(&c->in[IN_COUNTS], k, 1 + (5000 >> k % 12) + k % 7);
    c->in[IN_CLASS_WEIGHT] = make_array(p, "class_weight", row_dtype(p->dtype), 1, p->classes);
    a.beta = p->beta;
    a.classes = p->classes;
    a.counts = c->in[IN_COUNTS].data;
    a.weights = c->in[IN_CLASS_WEIGHT].data;
    a.weights_dtype = row_dtype(p->dtype);
    if (p->classes > 0 && ballast_class_weights(&a) != BALLAST_OK)
        fputs("ballast_class_weights failed\n", stderr);
}

static ballast_status run_class_balanced_loss(const case_data *c, case_results *r,
                                              const ballast_exec *exec)
{
    ballast_class_balanced_args a = BALLAST_CLASS_BALANCED_ARGS;

    SET_LOSS(a, c, r);
    a.kind = (ballast_class_balanced_kind)c->p.kind;
    a.gamma = c->p.gamma;
    RUN(class_balanced_loss, a);
}

static long double class_balanced(const case_data *c, case_reference *r, int64_t label,
                                  long double weight)
{
    switch (c->p.kind) {
    case BALLAST_CB_SOFTMAX:
        return oracle_class_balanced_softmax(r->x, c->p.classes, label, weight, r->value[GRAD]);
    case BALLAST_CB_SIGMOID:
        return oracle_class_balanced_sigmoid(r->x, c->p.classes, label, weight, r->value[GRAD]);
    default:
        return oracle_class_balanced_focal(r->x, c->p.classes, label, weight, c->p.gamma,
                                           r->value[GRAD]);
    }
}

static void refer_class_balanced_loss(const case_data *c, int64_t row, case_reference *r)
{
    const row_factor f = factor_of(c, row, r);

    load_row(&c->in[IN_X], row, r->x);
    if (f.ignored) {
        set_ignored_row(c, r);
        return;
    }
    r->value[ROW_LOSS][0] = class_balanced(c, r, f.label, f.loss);
    for (int64_t j = 0; j < c->p.classes; j++)
        r->value[GRAD][j] *= f.grad / f.loss; /* class-balanced weights are never 0 */
    if (isfinite(r->value[ROW_LOSS][0]) && sum_overflows(c, r->value[ROW_LOSS][0] / f.loss))
        r->unknown = 1u << ROW_LOSS | 1u << LOSS;
    r->loss += r->value[ROW_LOSS][0];
}

VARIANTS(balanced, "", "kind=sigmoid,ignored=10", "kind=focal,inplace=1",
         "kind=focal,gamma=0.5,beta=0.9999,pieces=1", "labels=u8,denominator=weight_sum,inplace=1",
         "kind=sigmoid,labels=i32,reduction=none,grad_rows=1");

const operation operation_class_balanced_loss = {
    "class_balanced_loss", LOSS_KEYS | PLANE_KEYS | KEY(KEY_KIND) | KEY(KEY_GAMMA) | KEY(KEY_BETA),
    {LOSS_OUTPUTS(4, 4)}, balanced, FUNCTIONS(make_class_balanced, class_balanced_loss)};
