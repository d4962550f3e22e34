/* SPDX-License-Identifier: MIT */
/* Reductions of a vector to one double. The plan's rows are elements. */
#include "canonical.h"
#include "plan.h"

#include <math.h>

/* ---- What becomes of the leaves -------------------------------------------------------------- */

static double sum(const plan *p, const double *partial) { return ballast__sum_leaves(p, partial, REDUCE_PARTS, 0); }

/* Not left to the division, which makes an infinity of weights that cancel. */
static double mean_of(double sum, double weights)
{
    return weights == 0.0 ? (double)NAN : sum / weights;
}

static double mean(const plan *p, const double *partial)
{
    return mean_of(sum(p, partial), ballast__sum_leaves(p, partial, REDUCE_PARTS, 1));
}

static double log_sum_exp(const plan *p, const double *partial)
{
    const int64_t leaves = p->leaf_count;

    return leaves > 0 ? p->log_sum_exp_of_parts(partial, leaves) : -(double)INFINITY;
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

/* Adding and multiplying take a fifth of a cycle an element, an exponential one and a half. */
static void plan_reduction(plan *p, const arguments *in, const ballast_reduce_args *a, int variant,
                           const kernel_table *kernels)
{
    const row_cost cost = {0.0, variant == WEIGHTED_LOG_SUM_EXP ? 1.5 : 0.2};

    ballast__plan_rows(p, in, a->x.count, 1, cost);
    ballast__plan_reduction(p, a->result, REDUCE_SPAN);
    p->rows = reduce_elements;
    p->job.reduce = (reduce_job){.x = a->x.data,
                                 .weights = a->weights.data,
                                 .format = kernels->format,
                                 .leaf_rows = p->row_step};
}

DEFINE_LAYOUT(layout, "struct_size", ballast_reduce_args, BALLAST_REDUCE_ARGS, weights);

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_reduce_args room;
    const ballast_reduce_args *a = ballast__read_struct(in, &layout, args, &room);
    const ballast_vector *x = &a->x, *weights = &a->weights;

    ballast__take_array(in, "x", x->data, x->dtype, REAL_DTYPES, x->count, NEEDED);
    ballast__take_array(in, "weights", weights->data, weights->dtype, ballast__only(x->dtype),
                        weights->count, variant == DOT ? NEEDED : 0);
    ballast__refuse(in, weights->data && weights->count != x->count, BALLAST_ERR_SHAPE, "weights",
                    weights->count);
    ballast__take_array(in, "result", a->result, BALLAST_F64, ROW_DTYPES, 1, NEEDED | WRITTEN);
    ballast__check_overlaps(in);
    ballast__tune(in, variant == WEIGHTED_LOG_SUM_EXP ? TUNE_WEIGHTED_LOG_SUM_EXP : TUNE_WEIGHTED_SUM,
                  x->dtype, x->count, 1);
    const kernel_table *kernels = ballast__kernels_for(in, "x", x->dtype);
    if (in->fault.status == BALLAST_OK) {
        plan_reduction(p, in, a, variant, kernels);
        set_kernel(p, kernels, variant);
    }
    return ballast__report(in, a->error);
}

/* ---- One leaf, at once ----------------------------------------------------------------------- */

/* So many f32 elements that there are, and nothing wrong about where. */
static bool is_plain_vector(const ballast_vector *v, int64_t count)
{
    return v->data && v->dtype == BALLAST_F32 && v->count == count &&
           ballast__is_plain_range(ballast__bytes(v->data, (size_t)count * sizeof(float)),
                                   sizeof(float));
}

static bool is_apart_from(byte_range result, const ballast_vector *v, int64_t count)
{
    return ballast__are_apart(result, ballast__bytes(v->data, (size_t)count * sizeof(float)));
}

/* A sum of a short vector takes no longer than its plan would. */
static bool at_once(const void *args, const ballast_exec *exec, int variant)
{
    const ballast_reduce_args *a = args;
    const ballast_implementation *implementation = ballast__serial_implementation(exec);

    if (!implementation || !a || a->struct_size != sizeof *a)
        return false;
    const int64_t count = a->x.count;
    const byte_range result = ballast__bytes(a->result, sizeof *a->result);
    if (count < 1 || count > REDUCE_SPAN || !is_plain_vector(&a->x, count) ||
        (a->weights.data ? !is_plain_vector(&a->weights, count) : variant == DOT) || !a->result ||
        !ballast__is_plain_range(result, sizeof *a->result) ||
        !is_apart_from(result, &a->x, count) || !is_apart_from(result, &a->weights, count))
        return false;
    if (ballast__tuning_of(TUNE_WEIGHTED_SUM, BALLAST_F32, count, 1).word != 0)
        return false; /* a profile says how */
    double parts[REDUCE_PARTS];
    const reduce_job job = {.x = a->x.data,
                            .weights = a->weights.data,
                            .partial = parts,
                            .leaf_rows = REDUCE_SPAN};
    const kernel_table *kernels = implementation->f32;
    (variant == WEIGHTED_MEAN             ? kernels->weighted_mean
     : variant == WEIGHTED_SUM_OF_SQUARES ? kernels->weighted_sum_of_squares
                                          : kernels->weighted_sum)(&job, 0, count);
    *a->result = variant == WEIGHTED_MEAN ? canonical(mean_of(parts[0], parts[1])) : parts[0];
    return true;
}

#define DEFINE_AT_ONCE(name, variant)                                                             \
    static bool name(const void *args, const ballast_exec *exec) { return at_once(args, exec, variant); }
DEFINE_AT_ONCE(sum_at_once, WEIGHTED_SUM)
DEFINE_AT_ONCE(mean_at_once, WEIGHTED_MEAN)
DEFINE_AT_ONCE(squares_at_once, WEIGHTED_SUM_OF_SQUARES)
DEFINE_AT_ONCE(dot_at_once, DOT)

DEFINE_OPERATION(weighted_sum, ballast_reduce_args, prepare, WEIGHTED_SUM, sum_at_once)
DEFINE_OPERATION(weighted_mean, ballast_reduce_args, prepare, WEIGHTED_MEAN, mean_at_once)
DEFINE_OPERATION(weighted_sum_of_squares, ballast_reduce_args, prepare, WEIGHTED_SUM_OF_SQUARES,
                 squares_at_once)
DEFINE_OPERATION(dot, ballast_reduce_args, prepare, DOT, dot_at_once)
DEFINE_OPERATION(weighted_log_sum_exp, ballast_reduce_args, prepare, WEIGHTED_LOG_SUM_EXP, NULL)
