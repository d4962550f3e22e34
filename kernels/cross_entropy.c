/* SPDX-License-Identifier: MIT */
/* Softmax cross-entropy with index labels, loss and gradient of a row in one read:
 *
 *   loss = w log1p(others / e_y)     dx_c = w e_c / S     dx_y = -w others / S     S = others + e_y
 *
 * where `others` sums the exponentials of every class but the true one. The loss and the true class's
 * gradient keep all their digits when p_y rounds to 1, because 1 - p_y is never formed.
 *
 * The exponentials wait in the gradient's row until S is known, and leave scaled. Losses are finished
 * sixteen rows at a time: log1p is latency bound, and sixteen lanes cost what one does. */
#include "loss_rows.h"
#include "softmax_row.h"

/* Sixteen rows on their way to their losses. */
typedef struct pending_losses {
    float others[BLOCK], label_term[BLOCK], weight[BLOCK];
    float n[BLOCK], shift_minus_logit[BLOCK]; /* for rows whose e_y is too small to divide by */
} pending_losses;

/* Below this e_y, others / e_y could overflow. */
#define SMALLEST_LABEL_TERM 0x1p-90f

/* loss = w log1p(others / e_y); where e_y is tiny, the loss is above 60 and
 * loss = w (n ln 2 + shift - x_y + log S) loses nothing. Error 3 ULP with w = 1. */
LANES vf finish_losses(const pending_losses *p)
{
    const vf others = vload_f32(p->others), label_term = vload_f32(p->label_term);
    const vf n = vload_f32(p->n), minus_logit = vload_f32(p->shift_minus_logit);
    const vf near_loss = vlog1p(vdiv(others, label_term));
    const vf log_sum = vlog1p(vsub(vadd(others, label_term), vset1(1.0f)));
    const vf far_loss = vadd(vfma(n, vset1(LN2_HIGH), minus_logit),
                             vfma(n, vset1(LN2_LOW), log_sum));
    const vm is_near = vle(vset1(SMALLEST_LABEL_TERM), label_term);
    const vf loss = vselect(vmask_or(is_near, vnan(others)), near_loss, far_loss);
    const vf weight = vload_f32(p->weight);
    return vcanonical(vmul(weight, vmin(limit_for_weight(weight), loss)));
}

LANES void set_pending(pending_losses *p, int64_t j, float others, float label_term, float weight)
{
    p->others[j] = others;
    p->label_term[j] = label_term;
    p->weight[j] = weight;
    p->n[j] = 0.0f;
    p->shift_minus_logit[j] = 0.0f;
}

LANES void cross_entropy_row(const cross_entropy_job *job, int64_t i, pending_losses *pending,
                             int64_t j, row_chunks *chunks)
{
    const int64_t classes = job->classes, label = label_at(&job->rows, i);
    const storage *x = (const storage *)job->logits + i * job->logits_stride;
    storage *grad = job->grad ? (storage *)job->grad + i * job->grad_stride : NULL;
    if (label == job->rows.ignore_index) {
        set_pending(pending, j, 0.0f, 1.0f, 0.0f);
        if (grad)
            store_fill(grad, classes, 0.0f);
        return;
    }
    const row_factors w = row_factors_of(&job->rows, i, label);
    const float label_logit = load_one(x + label); /* read first: the gradient may be the logits */
    float *kept = grad && keeps_exponentials(classes) ? kept_in(grad) : NULL;
    const row_sum row = sum_row(x, classes, label, kept, chunks);
    if (row_is_special(row)) {
        set_pending(pending, j, LANE_NAN, 1.0f, w.loss);
        if (grad)
            store_fill(grad, classes, LANE_NAN);
        return;
    }
    set_pending(pending, j, (float)row.others, (float)row.left_out, w.loss);
    pending->n[j] = row.ref.n;
    pending->shift_minus_logit[j] = row.ref.shift - label_logit;
    if (grad) {
        const double h = w.gradient / (row.others + row.left_out);
        write_row(x, classes, row, chunks, h, kept, grad);
        store_one(grad + label, narrowed(-(row.others * h)) + 0.0f); /* never -0 */
    }
}

void KERNEL(cross_entropy)(const cross_entropy_job *job, int64_t begin, int64_t end)
{
    const row_terms *rows = &job->rows;
    const int64_t leaf_rows = rows->partial ? rows->leaf_rows : end - begin;
    row_chunks chunks;
    for (int64_t leaf = begin; leaf < end; leaf += leaf_rows) {
        const int64_t leaf_end = end - leaf < leaf_rows ? end : leaf + leaf_rows;
        vd total = vd_zero();
        for (int64_t i = leaf; i < leaf_end; i += BLOCK) {
            pending_losses pending;
            const int64_t count = leaf_end - i < BLOCK ? leaf_end - i : BLOCK;
            for (int64_t j = 0; j < count; j++)
                cross_entropy_row(job, i + j, &pending, j, &chunks);
            for (int64_t j = count; j < BLOCK; j++)
                set_pending(&pending, j, 0.0f, 1.0f, 0.0f);
            const vf loss = finish_losses(&pending);
            if (rows->row_loss)
                vstore_tail_f32((float *)rows->row_loss + i, count, loss);
            total = vd_add(total, loss);
        }
        if (rows->partial)
            rows->partial[leaf / leaf_rows] = vd_across(total);
    }
}
