/* SPDX-License-Identifier: MIT */
/* Softmax, log-softmax, log-sum-exp, and the gradients of the first two. */
#include "softmax_row.h"

/* ---- forward ---------------------------------------------------------------------------------- */

/* output_c = e_c / S. The exponentials wait in the output row until S is known. */
void KERNEL(softmax)(const softmax_job *job, int64_t begin, int64_t end)
{
    const int64_t classes = job->classes;
    row_chunks chunks;
    for (int64_t i = begin; i < end; i++) {
        const storage *x = (const storage *)job->input + i * job->input_stride;
        storage *out = (storage *)job->output + i * job->output_stride;
        float *kept = keeps_exponentials(classes) ? kept_in(out) : NULL;
        const row_sum row = sum_row(x, classes, LEAVE_NOTHING, kept, &chunks);
        if (row_is_special(row))
            store_fill(out, classes, LANE_NAN);
        else if (classes == 1)
            store_one(out, 1.0f); /* e (1 / e) could be the number below 1 */
        else
            write_row(x, classes, row, &chunks, 1.0 / row.others, kept, out);
    }
}

/* log(sum / e_max) = log1p(the others / e_max): never negative, accurate when the maximum is nearly
 * all of the sum. */
LANES vf log_of_sum_over_max(row_sum row)
{
    return vlog1p(vset1((float)(row.others / row.left_out)));
}

/* output_c = (x_c - max) - log(S / e_max): both terms are <= 0, so nothing cancels. */
void KERNEL(log_softmax)(const softmax_job *job, int64_t begin, int64_t end)
{
    const int64_t classes = job->classes;
    row_chunks chunks;
    for (int64_t i = begin; i < end; i++) {
        const storage *x = (const storage *)job->input + i * job->input_stride;
        storage *out = (storage *)job->output + i * job->output_stride;
        const row_sum row = sum_row(x, classes, LEAVE_MAXIMUM, NULL, &chunks);
        if (row_is_special(row)) {
            store_fill(out, classes, LANE_NAN);
            continue;
        }
        const vf max = vset1(row.ref.max), rest = log_of_sum_over_max(row);
        int64_t j = 0;
        for (; j + GROUP <= classes; j += GROUP) {
            vf v[GROUP_BLOCKS];
            FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vload(x + j + BLOCK * k);
            FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vsub(vsub(v[k], max), rest);
            FOR_BLOCKS(k, GROUP_BLOCKS) vstore(out + j + BLOCK * k, v[k]);
        }
        for (; j < classes; j += BLOCK) {
            vf v = vload_tail(x + j, classes - j, 0.0f);
            vstore_tail(out + j, classes - j, vsub(vsub(v, max), rest));
        }
    }
}

/* Whether a special row holds a NaN; without one it is +inf, or nothing but -inf. */
LANES int has_nan(const storage *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += BLOCK)
        if (vany(vnan(vload_tail(x + i, n - i, 0.0f))))
            return 1;
    return 0;
}

/* output = max + log(S / e_max). */
void KERNEL(log_sum_exp)(const softmax_job *job, int64_t begin, int64_t end)
{
    const int64_t classes = job->classes;
    row_chunks chunks;
    for (int64_t i = begin; i < end; i++) {
        const storage *x = (const storage *)job->input + i * job->input_stride;
        storage *out = (storage *)job->output + i;
        const row_sum row = sum_row(x, classes, LEAVE_MAXIMUM, NULL, &chunks);
        float lse;
        if (row_is_special(row))
            lse = has_nan(x, classes) ? LANE_NAN : row.ref.max;
        else
            lse = row.ref.max + vmax_across(log_of_sum_over_max(row));
        store_one(out, lse);
    }
}

/* ---- backward --------------------------------------------------------------------------------- */

/* sum a_c b_c, or sum a_c where b is NULL, in the order of softmax_row.h. */
LANES double sum_products(const storage *a, const storage *b, int64_t n)
{
    vd total = vd_zero();
    for (int64_t i = 0; i < n; i += GROUP) {
        vf t[GROUP_BLOCKS];
        FOR_BLOCKS(k, GROUP_BLOCKS)
        {
            t[k] = vload_tail(a + i + BLOCK * k, n - i - BLOCK * k, 0.0f);
            if (b)
                t[k] = vmul(t[k], vload_tail(b + i + BLOCK * k, n - i - BLOCK * k, 0.0f));
        }
        total = vd_add(total, fold_blocks(t));
    }
    return vd_across(total);
}

/* grad_input_c = y_c (g_c - sum_k g_k y_k) */
void KERNEL(softmax_backward)(const softmax_backward_job *job, int64_t begin, int64_t end)
{
    const int64_t classes = job->classes;
    for (int64_t i = begin; i < end; i++) {
        const storage *y = (const storage *)job->output + i * job->output_stride;
        const storage *g = (const storage *)job->grad_output + i * job->grad_output_stride;
        storage *out = (storage *)job->grad_input + i * job->grad_input_stride;
        const vf mean = vset1((float)sum_products(g, y, classes));
        for (int64_t j = 0; j < classes; j += BLOCK) {
            const vf gj = vload_tail(g + j, classes - j, 0.0f);
            const vf yj = vload_tail(y + j, classes - j, 0.0f);
            vstore_tail(out + j, classes - j, vcanonical(vmul(yj, vsub(gj, mean))));
        }
    }
}

/* grad_input_c = g_c - exp(y_c) sum_k g_k */
void KERNEL(log_softmax_backward)(const softmax_backward_job *job, int64_t begin, int64_t end)
{
    const int64_t classes = job->classes;
    const exp_scale scale = exp_scale_of(0.0f);
    for (int64_t i = begin; i < end; i++) {
        const storage *y = (const storage *)job->output + i * job->output_stride;
        const storage *g = (const storage *)job->grad_output + i * job->grad_output_stride;
        storage *out = (storage *)job->grad_input + i * job->grad_input_stride;
        const vf sum = vset1((float)sum_products(g, NULL, classes));
        for (int64_t j = 0; j < classes; j += GROUP) {
            vf p[GROUP_BLOCKS];
            FOR_BLOCKS(k, GROUP_BLOCKS)
            p[k] = vmin(vset1(88.0f), /* y > 0 is no log-probability; the exponential must hold */
                        vload_tail(y + j + BLOCK * k, classes - j - BLOCK * k, 0.0f));
            vexp_scaled(p, p, GROUP_BLOCKS, scale);
            FOR_BLOCKS(k, GROUP_BLOCKS)
            {
                const int64_t at = j + BLOCK * k;
                const vf gj = vload_tail(g + at, classes - at, 0.0f);
                vstore_tail(out + at, classes - at, vcanonical(vfnma(p[k], sum, gj)));
            }
        }
    }
}
