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
LANES void soft_terms(const tile *t, int out, int width)
{
    const vf zero = vset1(0.0f), one = vset1(1.0f);
    exponential_pass(t, SOFT, width);
    FOR_TILE(b, t, width) {
        vf x[BLOCKS_IN_FLIGHT], target[BLOCKS_IN_FLIGHT], e[BLOCKS_IN_FLIGHT];
        vf loss[BLOCKS_IN_FLIGHT], grad[BLOCKS_IN_FLIGHT];
        load_blocks(t->x, b, width, x);
        load_blocks(t->targets, b, width, target);
        load_blocks(t->scratch->e, b, width, e);
        if (out & OUT_GRAD)
            FOR_BLOCKS(k, width) {
                const vf scale = vload_f32(t->scale_negative + (b + k) * t->scale_step);
                const vf up = vsign_select(x[k], e[k], one), down = vsign_select(x[k], one, e[k]);
                const vf both = vfnma(target[k], down, vfnma(target[k], up, up));
                grad[k] = vdiv(vfma(both, scale, zero), vadd(one, e[k]));
            }
        if (out & OUT_LOSS) {
            log1p_of_fraction(e, loss, width);
            FOR_BLOCKS(k, width) {
                const vf a = vsign_select(x[k], target[k], vsub(one, target[k]));
                loss[k] = vfma(vselect(veq(a, zero), zero, vabs(x[k])), a, loss[k]);
            }
        }
        store_terms(t, out, b, width, loss, grad);
    }
}

LANES void tile_terms(const tile *t, int path, enum tile_targets targets, int out, int width)
{
    (void)path;
    if (targets == SOFT)
        soft_terms(t, out, width);
    else
        binary_terms(t, 0, targets, out, width);
}

SIGMOID_FUNCTIONS(loss_tiles, 0, OUT_LOSS, SOFT)
SIGMOID_FUNCTIONS(grad_tiles, 0, OUT_GRAD, SOFT)
SIGMOID_FUNCTIONS(both_tiles, 0, OUT_BOTH, SOFT)

/* Binary cross-entropy with logits: loss, gradient or both. Without a gradient there is no
 * division, without a loss no logarithm. */
void KERNEL(binary_cross_entropy)(const sigmoid_job *job, int64_t begin, int64_t end)
{
    const sigmoid_functions *const functions[] = {
        [OUT_LOSS] = &loss_tiles, [OUT_GRAD] = &grad_tiles, [OUT_BOTH] = &both_tiles};
    const sigmoid_loss none = {0};
    const int outputs = outputs_of(job);
    if (outputs)
        KERNEL(sigmoid_rows)(job, &none, functions[outputs], outputs, begin, end);
}
