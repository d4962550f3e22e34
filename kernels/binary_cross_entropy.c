/* SPDX-License-Identifier: MIT */
#include "sigmoid_row.h"

/* Soft targets t:  loss = t log(1 + exp(-x)) + (1 - t) log(1 + exp(x))
 *                       = |x| a + log(1 + e)                    a = x > 0 ? 1 - t : t
 *                  grad = (1 - t) sigmoid(x) - t sigmoid(-x)
 *                       = ((1 - t) A - t B) / (1 + e)      A = x > 0 ? 1 : e, B = x > 0 ? e : 1
 *
 * For t of 0 and 1 these are the bits of binary_terms. |x| a is 0 where a is, at infinity too.
 * Error: loss 2.2 ULP, witness x = -0x1.cc0466p-2, t = 0x1.2ad27ap-8; gradient 3.9 ULP of the sum
 * (1 - t) sigmoid(x) + t sigmoid(-x), witness x = -0x1.094e72p+2, t = 0x1.3228cep-17. */
LANES void soft_terms(const sigmoid_row *r, int out, const vf *x, const vf *t, int blocks, vf *loss,
                      vf *grad)
{
    const vf zero = vset1(0.0f), one = vset1(1.0f);
    vf e[BLOCKS_IN_FLIGHT], l[BLOCKS_IN_FLIGHT];
    exp_of_minus_abs(x, e, blocks);
    if (out & OUT_GRAD)
        FOR_BLOCKS(k, blocks) {
            const vf up = vsign_select(x[k], e[k], one), down = vsign_select(x[k], one, e[k]);
            const vf both = vfnma(t[k], down, vfnma(t[k], up, up));
            grad[k] = vdiv(vfma(both, vset1(r->scale_negative), zero), vadd(one, e[k]));
        }
    if (out & OUT_LOSS) {
        log1p_of_fraction(e, l, blocks);
        FOR_BLOCKS(k, blocks) {
            vf a = vsign_select(x[k], t[k], vsub(one, t[k]));
            loss[k] = vfma(vselect(veq(a, zero), zero, vabs(x[k])), a, l[k]);
        }
    }
}

LANES void element_terms(const sigmoid_row *r, int path, enum step_targets targets, int out,
                         const vf *x, const vf *target, int blocks, vf *loss, vf *grad)
{
    (void)path;
    if (targets == SOFT)
        soft_terms(r, out, x, target, blocks, loss, grad);
    else
        binary_terms(r, 0, targets, out, x, target, blocks, loss, grad);
}

ROW_FUNCTIONS(loss_rows, 0, OUT_LOSS, SOFT)
ROW_FUNCTIONS(grad_rows, 0, OUT_GRAD, SOFT)
ROW_FUNCTIONS(both_rows, 0, OUT_BOTH, SOFT)

/* Binary cross-entropy with logits: loss, gradient or both. Without a gradient there is no
 * division, without a loss no logarithm. */
void KERNEL(binary_cross_entropy)(const sigmoid_job *job, int64_t begin, int64_t end)
{
    sigmoid_row r = sigmoid_row_of(job);
    switch (outputs_of(job)) {
    case OUT_LOSS: sigmoid_rows(job, &r, loss_rows[job->target_kind], begin, end); break;
    case OUT_GRAD: sigmoid_rows(job, &r, grad_rows[job->target_kind], begin, end); break;
    case OUT_BOTH: sigmoid_rows(job, &r, both_rows[job->target_kind], begin, end); break;
    }
}
