/* SPDX-License-Identifier: MIT */
#include "canonical.h"
#include "loss.h"
#include "values.h"

#include <math.h>

DEFINE_LAYOUT(layout, "struct_size", ballast_cross_entropy_args, BALLAST_CROSS_ENTROPY_ARGS,
              class_weight);

static inline loss loss_of(const ballast_cross_entropy_args *a)
{
    return (loss){.kind = CROSS_ENTROPY, SHARED_BY_LOSSES(a), WITHOUT_TARGETS, WITHOUT_FOCUS,
                  .class_weight_needed = false, .row_weight = a->row_weight};
}

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_cross_entropy_args room;

    (void)variant;
    const loss l = loss_of(ballast__read_struct(in, &layout, args, &room));
    return ballast__prepare_loss(in, &l, p);
}

/* ---- A few rows, at once -------------------------------------------------------------------- */

/* No more than a leaf has at least. */
static bool has_few_rows(const ballast_cross_entropy_args *a)
{
    return a->logits.outer <= LEAF_LANES;
}

static bool has_plain_options(const ballast_cross_entropy_args *a)
{
    return (unsigned)a->reduction <= BALLAST_MEAN && (a->reduction != BALLAST_NONE || !a->loss) &&
           (unsigned)a->denominator < BALLAST_GIVEN && (unsigned)a->empty <= BALLAST_EMPTY_ZERO &&
           isfinite(a->grad_scale);
}

static bool all_labels_count(const ballast_cross_entropy_args *a)
{
    const int64_t rows = a->logits.outer;

    for (int64_t i = 0; i < rows; i++) {
        const int64_t label = ballast__label_at(a->labels, i);

        if ((uint64_t)label >= (uint64_t)a->logits.classes || label == a->ignore_index)
            return false;
    }
    return true;
}

/* Of rows that all count, and weigh 1. */
static double denominator_of(const ballast_cross_entropy_args *a)
{
    const double rows = (double)a->logits.outer;

    if (a->reduction != BALLAST_MEAN)
        return 1.0;
    return a->denominator == BALLAST_ELEMENTS ? rows * (double)a->logits.classes : rows;
}

static bool at_once(const void *args, const ballast_exec *exec)
{
    const ballast_cross_entropy_args *a = args;
    const ballast_implementation *implementation = ballast__serial_implementation(exec);

    if (!implementation || !a || a->struct_size != sizeof *a || !has_few_rows(a))
        return false;
    const loss l = loss_of(a);
    if (!ballast__is_plain_loss(&l) || !has_plain_options(a) || !all_labels_count(a))
        return false;
    const tuning tuned =
        ballast__tuning_of(TUNE_CROSS_ENTROPY, BALLAST_F32, a->logits.outer, a->logits.classes);
    if (tuned.word != 0) /* a profile says how */
        return false;
    const double denominator = denominator_of(a);
    const kernel_table *kernels = implementation->f32;
    cross_entropy_job job;
    double sum;
    ballast__set_cross_entropy(&job, &l, denominator, LEAF_LANES, kernels);
    job.beyond_cache = tuned.streams;
    job.tile_classes = kernels->tile_classes;
    job.kept_chunks = 0;
    job.rows.partial = a->loss ? &sum : NULL;
    kernels->cross_entropy(&job, 0, a->logits.outer);
    if (a->loss) /* one row is not kept waiting for a division by 1 */
        *a->loss = canonical(denominator == 1.0 ? sum : sum / denominator);
    return true;
}

DEFINE_OPERATION(cross_entropy, ballast_cross_entropy_args, prepare, 0, at_once)
