/* SPDX-License-Identifier: MIT */
#include "losses.h"

static ballast_status run_cross_entropy(const case_data *c, case_results *r,
                                        const ballast_exec *exec)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    SET_LOSS(a, c, r);
    a.row_weight = c->in[IN_WEIGHT].data;
    RUN(cross_entropy, a);
}

static void refer_cross_entropy(const case_data *c, int64_t row, case_reference *r)
{
    const row_factor f = factor_of(c, row, r);

    load_row(&c->in[IN_X], row, r->x);
    if (f.ignored) {
        set_ignored_row(c, r);
        return;
    }
    const long double loss = oracle_cross_entropy(r->x, c->p.classes, f.label, 1.0L,
                                                  r->value[GRAD]);
    for (int64_t j = 0; j < c->p.classes; j++)
        r->value[GRAD][j] *= f.grad;
    r->value[ROW_LOSS][0] = oracle_limit_product(f.loss, loss);
    r->loss += r->value[ROW_LOSS][0];
}

VARIANTS(cross_entropy, "reduction=sum", "inplace=1,weights=both,ignored=20",
         "labels=i32,weights=class,denominator=rows,pieces=1",
         "labels=u8,weights=row,ignored=10,reduction=none,grad_rows=1,grad_scale=0.3");

const operation operation_cross_entropy = {
    "cross_entropy", LOSS_KEYS | PLANE_KEYS | KEY(KEY_WEIGHTS), {LOSS_OUTPUTS(4, 4)}, cross_entropy,
    FUNCTIONS(make_loss, cross_entropy)};
