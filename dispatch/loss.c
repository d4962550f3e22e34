/* SPDX-License-Identifier: MIT */
#include "loss.h"

#include "shared_rows.h"
#include "values.h"

#include <math.h>

/* ---- Checks ---------------------------------------------------------------------------------- */

/* Everything that is memory, in the order of the structs. */
static void take_arrays(arguments *in, const loss *l)
{
    const ballast_const_tensor *like = l->logits;
    const ballast_dtype real = ballast__row_dtype(like->dtype);
    const int64_t rows = ballast__row_count(like), classes = like->classes;
    const unsigned same = ballast__only(like->dtype);
    const unsigned planes = l->kind == CROSS_ENTROPY ? PLANES : 0;

    ballast__take_tensor(in, "logits", like, REAL_DTYPES, NEEDED | IN_PLACE | planes, NULL);
    if (ballast__has_labels(l))
        ballast__take_array(in, "labels", l->labels->data, l->labels->dtype, LABEL_DTYPES, rows,
                            NEEDED);
    else
        ballast__take_tensor(in, "targets", l->targets, same | ballast__only(BALLAST_U8), NEEDED,
                             like);
    ballast__take_array(in, "class_weight", l->class_weight, real, ROW_DTYPES, classes,
                        l->class_weight_needed ? NEEDED : 0);
    ballast__take_array(in, "row_weight", l->row_weight, real, ROW_DTYPES, rows, 0);
    ballast__take_array(in, "grad_rows", l->grad_rows, real, ROW_DTYPES, rows, 0);
    ballast__take_array(in, "loss", l->loss, BALLAST_F64, ROW_DTYPES, 1, WRITTEN);
    ballast__take_array(in, "row_loss", l->row_loss, real, ROW_DTYPES, rows, WRITTEN);
    ballast__take_output(in, "element_loss", l->element_loss, same, 0, like);
    ballast__take_output(in, "grad", l->grad, same, IN_PLACE | planes, like);
    ballast__check_overlaps(in);
}

static void refuse_option(arguments *in, bool wrong, const char *name, int64_t value)
{
    ballast__refuse(in, wrong, BALLAST_ERR_OPTION, name, value);
}

/* Unsigned, so that negative numbers are above the range too. */
static void check_enumerator(arguments *in, const char *name, unsigned value, unsigned last)
{
    refuse_option(in, value > last, name, (int)value);
}

static void check_denominator(arguments *in, const loss *l)
{
    const double given = l->denominator_value;

    if (l->reduction != BALLAST_MEAN)
        return;
    refuse_option(in, l->denominator == BALLAST_POSITIVES && !ballast__has_labels(l), "denominator",
                  (int64_t)l->denominator);
    ballast__refuse_real(in, l->denominator == BALLAST_GIVEN && !(given > 0.0 && isfinite(given)),
                         "denominator_value", given);
}

static void check_options(arguments *in, const loss *l)
{
    const bool none = l->reduction == BALLAST_NONE;

    if (!ballast__has_labels(l))
        refuse_option(in, l->class_weight != NULL, "class_weight", 0);
    else
        refuse_option(in, l->targets->data != NULL, "targets", 0);
    if (l->kind == SIGMOID_FOCAL) {
        ballast__refuse_real(in, !(l->alpha <= 1.0), "alpha", l->alpha);
        ballast__refuse_real(in, !(l->gamma >= 0.0 && isfinite(l->gamma)), "gamma", l->gamma);
    }
    check_enumerator(in, "reduction", (unsigned)l->reduction, BALLAST_MEAN);
    check_enumerator(in, "denominator", (unsigned)l->denominator, BALLAST_GIVEN);
    check_enumerator(in, "empty", (unsigned)l->empty, BALLAST_EMPTY_ZERO);
    check_denominator(in, l);
    ballast__refuse_real(in, !isfinite(l->grad_scale), "grad_scale", l->grad_scale);
    refuse_option(in, l->grad_rows && !none, "grad_rows", 0);
    refuse_option(in, l->loss && none, "loss", 0);
}

static label_rows labels_of(const loss *l)
{
    return (label_rows){*l->labels, ballast__row_count(l->logits), l->logits->classes,
                        l->ignore_index, l->background};
}

/* Weights, then labels; and how many rows count. */
static label_counts check_values(arguments *in, const loss *l)
{
    const label_rows labels = labels_of(l);
    const label_counts all = {labels.rows, labels.rows};
    const ballast_dtype real = ballast__row_dtype(l->logits->dtype);

    ballast__check_weights(in, "class_weight", l->class_weight, real, labels.classes);
    ballast__check_weights(in, "row_weight", l->row_weight, real, labels.rows);
    return ballast__has_labels(l) ? ballast__check_labels(in, &labels) : all;
}

/* ---- The denominator ------------------------------------------------------------------------- */

static double weight_of(const loss *l, const void *weights, int64_t index)
{
    return weights ? ballast__real_at(weights, ballast__row_dtype(l->logits->dtype), index) : 1.0;
}

/* In index order, in double; what each addition rounds away is summed beside (Knuth's TwoSum), so
 * that the error does not grow with the rows. Without weights it is a count, and so exact. */
static double weight_sum(const loss *l, label_counts counts)
{
    const bool labels = ballast__has_labels(l);
    const int64_t rows = ballast__row_count(l->logits);
    double sum = 0.0, lost = 0.0;

    if (!l->class_weight && !l->row_weight)
        return (double)counts.counted;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t label = labels ? ballast__label_at(*l->labels, i) : -1;

        if (labels && label == l->ignore_index)
            continue;
        const double class_weight = label >= 0 ? weight_of(l, l->class_weight, label) : 1.0;
        const double weight = class_weight * weight_of(l, l->row_weight, i);
        const double next = sum + weight, added = next - sum;
        lost += (sum - (next - added)) + (weight - added);
        sum = next;
    }
    return sum + lost;
}

static double denominator_of(const loss *l, label_counts counts)
{
    if (l->reduction != BALLAST_MEAN)
        return 1.0;
    switch (l->denominator) {
    case BALLAST_WEIGHT_SUM:
        return weight_sum(l, counts);
    case BALLAST_ROWS:
        return (double)ballast__row_count(l->logits);
    case BALLAST_COUNTED_ROWS:
        return (double)counts.counted;
    case BALLAST_ELEMENTS:
        return (double)counts.counted * (double)l->logits->classes;
    case BALLAST_POSITIVES:
        return (double)counts.positives;
    default:
        return l->denominator_value;
    }
}

/* ---- The plan -------------------------------------------------------------------------------- */

static double reduced_loss(const plan *p, const double *partial)
{
    return p->denominator == 0.0 ? p->empty : ballast__sum_leaves(p, partial, 1, 0) / p->denominator;
}

static void cross_entropy_rows(const plan *p, double *partial, int64_t begin, int64_t end)
{
    cross_entropy_job job = p->job.cross_entropy;

    job.rows.partial = partial;
    p->kernel.cross_entropy(&job, begin, end);
}

static void sigmoid_rows(const plan *p, double *partial, int64_t begin, int64_t end)
{
    sigmoid_job job = p->job.sigmoid;

    job.rows.partial = partial;
    p->kernel.sigmoid(&job, begin, end);
}

static void plan_cross_entropy(plan *p, const loss *l, const kernel_table *kernels)
{
    cross_entropy_job *job = &p->job.cross_entropy;
    const ballast_const_tensor *x = l->logits;
    const ballast_tensor *grad = l->grad;
    const bool rows =
        ballast__has_rows(x->classes, x->inner, x->class_stride) &&
        (!grad->data || ballast__has_rows(grad->classes, grad->inner, grad->class_stride));

    p->rows = cross_entropy_rows;
    p->kernel.cross_entropy = rows ? kernels->cross_entropy : kernels->cross_entropy_planes;
    ballast__set_cross_entropy(job, l, p->denominator, p->row_step, kernels, p->tuning);
    job->logits_class_stride = x->class_stride;
    job->grad_class_stride = grad->class_stride;
    job->inner = x->inner;
    if (rows)
        ballast__plan_sharing(p, &kernels->shared_cross_entropy, job->classes, grad->data != NULL);
}

static void plan_sigmoid(plan *p, const loss *l, const kernel_table *kernels)
{
    p->rows = sigmoid_rows;
    p->kernel.sigmoid = l->kind == SIGMOID_FOCAL ? kernels->sigmoid_focal
                                                 : kernels->binary_cross_entropy;
    ballast__set_sigmoid(&p->job.sigmoid, l, p->denominator, p->row_step, kernels, p->tuning);
}

/* Loss and gradient. */
static const row_cost costs[] = {
    [CROSS_ENTROPY] = {30.0, 1.4},
    [BINARY_CROSS_ENTROPY] = {60.0, 2.3},
    [SIGMOID_FOCAL] = {70.0, 4.0},
};

static const tuned_operation tuned[] = {
    [CROSS_ENTROPY] = TUNE_CROSS_ENTROPY,
    [BINARY_CROSS_ENTROPY] = TUNE_BINARY_CROSS_ENTROPY,
    [SIGMOID_FOCAL] = TUNE_SIGMOID_FOCAL,
};

static void plan_loss(plan *p, const arguments *in, const loss *l, label_counts counts,
                      const kernel_table *kernels)
{
    ballast__plan_rows(p, in, ballast__row_count(l->logits), l->logits->classes, costs[l->kind]);
    if (l->loss)
        ballast__plan_reduction(p, l->loss, LEAF_LANES);
    p->reduced = reduced_loss;
    p->denominator = denominator_of(l, counts);
    p->empty = l->empty == BALLAST_EMPTY_ZERO ? 0.0 : (double)NAN;
    if (l->kind == CROSS_ENTROPY)
        plan_cross_entropy(p, l, kernels);
    else
        plan_sigmoid(p, l, kernels);
}

ballast_status ballast__prepare_loss(arguments *in, const loss *l, plan *p)
{
    if (!ballast__is_plain_loss(l))
        take_arrays(in, l);
    ballast__tune(in, tuned[l->kind], l->logits->dtype, ballast__row_count(l->logits),
                  l->logits->classes);
    const kernel_table *kernels = ballast__kernels_for(in, "logits", l->logits->dtype);
    check_options(in, l);
    const label_counts counts = check_values(in, l);
    if (in->fault.status == BALLAST_OK)
        plan_loss(p, in, l, counts, kernels);
    return ballast__report(in, l->error);
}
