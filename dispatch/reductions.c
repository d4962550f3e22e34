/* SPDX-License-Identifier: MIT */
/* Reductions of a vector to one double. The plan's rows are elements. */
#include "plan.h"

#include <math.h>

/* ---- What becomes of the leaves -------------------------------------------------------------- */

static double sum(const plan *p) { return ballast__sum_leaves(p, REDUCE_PARTS, 0); }

/* Not left to the division, which makes an infinity of weights that cancel. */
static double mean(const plan *p)
{
    const double weights = ballast__sum_leaves(p, REDUCE_PARTS, 1);

    return weights == 0.0 ? (double)NAN : sum(p) / weights;
}

static double log_sum_exp(const plan *p)
{
    const int64_t leaves = ballast__leaf_count(p);

    return leaves > 0 ? p->log_sum_exp_of_parts(p->partial, leaves) : -(double)INFINITY;
}

/* ---- The plan -------------------------------------------------------------------------------- */

enum { WEIGHTED_SUM, WEIGHTED_MEAN, WEIGHTED_SUM_OF_SQUARES, WEIGHTED_LOG_SUM_EXP, DOT };

static void set_kernel(plan *p, const kernel_table *kernels, int variant)
{
    switch (variant) {
    case WEIGHTED_MEAN:
        p->kernel.reduce = kernels->weighted_mean;
        p->reduced = mean;
        break;
    case WEIGHTED_SUM_OF_SQUARES:
        p->kernel.reduce = kernels->weighted_sum_of_squares;
        p->reduced = sum;
        break;
    case WEIGHTED_LOG_SUM_EXP:
        p->kernel.reduce = kernels->weighted_log_sum_exp;
        p->log_sum_exp_of_parts = kernels->log_sum_exp_of_parts;
        p->reduced = log_sum_exp;
        break;
    default: /* a dot product is a weighted sum whose weights must be given */
        p->kernel.reduce = kernels->weighted_sum;
        p->reduced = sum;
    }
}

static void reduce_elements(const plan *p, double *partial, int64_t begin, int64_t end)
{
    reduce_job job = p->job.reduce;

    job.partial = partial;
    p->kernel.reduce(&job, begin, end);
}

static void plan_reduction(plan *p, const ballast_reduce_args *a)
{
    ballast__plan_rows(p, a->x.count, 1);
    ballast__plan_reduction(p, a->result, REDUCE_SPAN);
    p->rows = reduce_elements;
    p->job.reduce = (reduce_job){
        .x = a->x.data, .weights = a->weights.data, .leaf_rows = p->row_step};
}

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_reduce_args a = BALLAST_REDUCE_ARGS;

    ballast__read_struct(in, "struct_size", &a, sizeof a, offsetof(ballast_reduce_args, weights),
                         args);
    ballast__take_array(in, "x", a.x.data, a.x.dtype, REAL_DTYPES, a.x.count, NEEDED);
    ballast__take_array(in, "weights", a.weights.data, a.weights.dtype, ballast__only(a.x.dtype),
                        a.weights.count, variant == DOT ? NEEDED : 0);
    ballast__refuse(in, a.weights.data && a.weights.count != a.x.count, BALLAST_ERR_SHAPE,
                    "weights", a.weights.count);
    ballast__take_array(in, "result", a.result, BALLAST_F64, REAL_DTYPES, 1, NEEDED | WRITTEN);
    ballast__check_overlaps(in);
    const kernel_table *kernels = ballast__kernels_for(in, "x", a.x.dtype);
    if (in->fault.status == BALLAST_OK) {
        plan_reduction(p, &a);
        set_kernel(p, kernels, variant);
    }
    return ballast__report(in, a.error);
}

DEFINE_OPERATION(weighted_sum, ballast_reduce_args, prepare, WEIGHTED_SUM)
DEFINE_OPERATION(weighted_mean, ballast_reduce_args, prepare, WEIGHTED_MEAN)
DEFINE_OPERATION(weighted_sum_of_squares, ballast_reduce_args, prepare, WEIGHTED_SUM_OF_SQUARES)
DEFINE_OPERATION(dot, ballast_reduce_args, prepare, DOT)
DEFINE_OPERATION(weighted_log_sum_exp, ballast_reduce_args, prepare, WEIGHTED_LOG_SUM_EXP)
