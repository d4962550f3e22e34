/* SPDX-License-Identifier: MIT */
/* A loss of a few plain rows, at once: to plan such a call takes as long as the call. Inline, so
 * that what one loss does not have is no question there. */
#ifndef BALLAST_DISPATCH_FEW_ROWS_H
#define BALLAST_DISPATCH_FEW_ROWS_H

#include "canonical.h"
#include "loss.h"
#include "values.h"

#include <math.h>

/* No more than a leaf has at least. */
static inline bool ballast__has_few_rows(const loss *l) { return l->logits->outer <= LEAF_LANES; }

static inline bool ballast__has_plain_focus(const loss *l)
{
    return l->kind != SIGMOID_FOCAL || (l->alpha <= 1.0 && l->gamma >= 0.0 && isfinite(l->gamma));
}

/* Labels or else targets, and nothing to divide by but what their number says. */
static inline bool ballast__has_plain_options(const loss *l)
{
    const bool labels = l->labels->data != NULL;

    return (unsigned)l->reduction <= BALLAST_MEAN && (l->reduction != BALLAST_NONE || !l->loss) &&
           (unsigned)l->denominator < BALLAST_GIVEN && (unsigned)l->empty <= BALLAST_EMPTY_ZERO &&
           (labels ? !l->targets->data : l->denominator != BALLAST_POSITIVES) &&
           isfinite(l->grad_scale) && ballast__has_plain_focus(l);
}

static inline bool ballast__all_labels_count(const loss *l)
{
    const int64_t rows = l->labels->data ? l->logits->outer : 0;

    for (int64_t i = 0; i < rows; i++) {
        const int64_t label = ballast__label_at(*l->labels, i);

        if ((uint64_t)label >= (uint64_t)l->logits->classes || label == l->ignore_index)
            return false;
    }
    return true;
}

/* Of rows that all count, and weigh 1. */
static inline double ballast__plain_denominator(const loss *l)
{
    const double rows = (double)l->logits->outer;

    if (l->reduction != BALLAST_MEAN)
        return 1.0;
    return l->denominator == BALLAST_ELEMENTS ? rows * (double)l->logits->classes : rows;
}

/* Returns false, with nothing written, where anything is out of the ordinary. */
static inline bool ballast__few_rows_at_once(const loss *l,
                                             const ballast_implementation *implementation,
                                             const tuned_operation tuned_for)
{
    if (!ballast__has_few_rows(l) || !ballast__is_plain_loss(l) ||
        !ballast__has_plain_options(l) || !ballast__all_labels_count(l))
        return false;
    const int64_t rows = l->logits->outer;
    const tuning tuned = ballast__tuning_of(tuned_for, BALLAST_F32, rows, l->logits->classes);
    if (tuned.word != 0) /* a profile says how */
        return false;
    const double denominator = ballast__plain_denominator(l);
    const kernel_table *kernels = implementation->f32;
    double sum;
    if (l->kind == CROSS_ENTROPY) {
        cross_entropy_job job;
        ballast__set_cross_entropy(&job, l, denominator, LEAF_LANES, kernels, tuned);
        job.rows.partial = l->loss ? &sum : NULL;
        kernels->cross_entropy(&job, 0, rows);
    } else {
        sigmoid_job job;
        ballast__set_sigmoid(&job, l, denominator, LEAF_LANES, kernels, tuned);
        job.rows.partial = l->loss ? &sum : NULL;
        (l->kind == SIGMOID_FOCAL ? kernels->sigmoid_focal
                                  : kernels->binary_cross_entropy)(&job, 0, rows);
    }
    if (l->loss) /* one row is not kept waiting for a division by 1 */
        *l->loss = canonical(denominator == 1.0 ? sum : sum / denominator);
    return true;
}

/* at_once() of a loss that is described by loss_of(). */
#define DEFINE_AT_ONCE(args_type, tuned_for)                                                      \
    static bool at_once(const void *args, const ballast_exec *exec)                               \
    {                                                                                             \
        const args_type *a = args;                                                                \
        const ballast_implementation *implementation = ballast__serial_implementation(exec);      \
                                                                                                  \
        if (!implementation || !a || a->struct_size != sizeof *a)                                 \
            return false;                                                                         \
        const loss l = loss_of(a);                                                                \
        return ballast__few_rows_at_once(&l, implementation, tuned_for);                          \
    }

#endif
