/* SPDX-License-Identifier: MIT */
/* From the sums of sixteen rows to their cross-entropy losses. */
#ifndef BALLAST_CROSS_ENTROPY_LOSS_H
#define BALLAST_CROSS_ENTROPY_LOSS_H

#include "loss_rows.h"

/* Sixteen rows on their way to their losses. */
typedef struct pending_losses {
    float others[BLOCK], label_term[BLOCK], weight[BLOCK];
    float n[BLOCK], shift_minus_logit[BLOCK]; /* for rows whose e_y is too small to divide by */
} pending_losses;

/* Below this e_y, others / e_y could overflow. */
#define SMALLEST_LABEL_TERM 0x1p-90f

/* loss = log1p(others / e_y); where e_y is tiny, the loss is above 60 and
 * loss = n ln 2 + shift - x_y + log S loses nothing. Error 3 ULP. */
LANES_LARGE vf plain_losses(vf others, vf label_term, vf n, vf minus_logit)
{
    const vf near_loss = vlog1p(vdiv(others, label_term));
    const vm is_near = vle(vset1(SMALLEST_LABEL_TERM), label_term);
    vf loss = near_loss;
    if (vany(vlt(label_term, vset1(SMALLEST_LABEL_TERM)))) {
        const vf log_sum = vlog1p(vsub(vadd(others, label_term), vset1(1.0f)));
        const vf far_loss = vadd(vfma(n, vset1(LN2_HIGH), minus_logit),
                                 vfma(n, vset1(LN2_LOW), log_sum));
        loss = vselect(vmask_or(is_near, vnan(others)), near_loss, far_loss);
    }
    return loss;
}

LANES_LARGE vf weighted_losses(vf weight, vf loss)
{
    return vcanonical(vmul(weight, vmin(limit_for_weight(weight), loss)));
}

LANES vf finish_losses(vf others, vf label_term, vf weight, vf n, vf minus_logit)
{
    return weighted_losses(weight, plain_losses(others, label_term, n, minus_logit));
}

LANES vf finish_pending(const pending_losses *p)
{
    return finish_losses(vload_f32(p->others), vload_f32(p->label_term), vload_f32(p->weight),
                         vload_f32(p->n), vload_f32(p->shift_minus_logit));
}

LANES void set_pending(pending_losses *p, int64_t j, float others, float label_term, float weight)
{
    p->others[j] = others;
    p->label_term[j] = label_term;
    p->weight[j] = weight;
    p->n[j] = 0.0f;
    p->shift_minus_logit[j] = 0.0f;
}

/* Lanes without a row stay so. */
LANES void set_nothing_pending(pending_losses *p)
{
    const vf nothing = vset1(0.0f);
    vstore_f32(p->others, nothing);
    vstore_f32(p->label_term, vset1(1.0f));
    vstore_f32(p->weight, nothing);
    vstore_f32(p->n, nothing);
    vstore_f32(p->shift_minus_logit, nothing);
}

/* Row `row` and those after it add into the lanes that they are of their leaf. */
LANES vd add_losses_anywhere(vd total, int64_t row, int64_t count, vf loss)
{
    if (row % BLOCK == 0 && count == BLOCK)
        return vd_add(total, loss);
    float lane[2 * BLOCK] = {0.0f};
    vstore_tail_f32(lane + row % BLOCK, count, loss);
    total = vd_add(total, vload_f32(lane));
    return row % BLOCK + count > BLOCK ? vd_add(total, vload_f32(lane + BLOCK)) : total;
}

#endif
