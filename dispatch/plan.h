/* SPDX-License-Identifier: MIT */
/* The inside of a ballast_plan, and what runs it. */
#ifndef BALLAST_DISPATCH_PLAN_H
#define BALLAST_DISPATCH_PLAN_H

#include "arguments.h"

/* A validated problem. Once prepared it is only read. Nothing in it points into it, so that it may be
 * copied. */
typedef struct plan {
    uint64_t mark; /* PREPARED, or anything else */
    int64_t row_count, row_step;
    int64_t leaf_count; /* 0 where nothing is reduced */
    double row_cycles; /* how much work a row is, about */
    tuning tuning;

    /* Runs `kernel` on `job`. partial: where the leaves go, of which each belongs to one call of
     * rows(); NULL where nothing is reduced. */
    void (*rows)(const struct plan *, double *partial, int64_t begin, int64_t end);
    union {
        void (*softmax)(const softmax_job *, int64_t begin, int64_t end);
        void (*softmax_backward)(const softmax_backward_job *, int64_t begin, int64_t end);
        void (*cross_entropy)(const cross_entropy_job *, int64_t begin, int64_t end);
        void (*sigmoid)(const sigmoid_job *, int64_t begin, int64_t end);
        void (*reduce)(const reduce_job *, int64_t begin, int64_t end);
    } kernel;
    union {
        softmax_job softmax;
        softmax_backward_job softmax_backward;
        cross_entropy_job cross_entropy;
        sigmoid_job sigmoid;
        reduce_job reduce;
    } job;

    const shared_kernel *shared; /* NULL: rows are not shared between threads */
    int64_t shared_chunks;       /* of a row */
    bool shared_outputs;

    double *result; /* the reduced result; NULL where nothing is reduced */
    double (*reduced)(const struct plan *, const double *partial);
    double denominator, empty; /* losses: what to divide by, and the result where that is 0 */
    double (*log_sum_exp_of_parts)(const double *parts, int64_t leaves);
} plan;

/* What is in a ballast_plan. */
typedef struct kept_plan {
    plan plan;
    double partial[MAX_LEAVES * REDUCE_PARTS];
} kept_plan;

_Static_assert(sizeof(kept_plan) <= sizeof(ballast_plan), "the public struct holds the plan");
_Static_assert(_Alignof(kept_plan) <= _Alignof(ballast_plan), "and is aligned for it");

/* Fills the plan from the arguments of one operation; stores and returns what was wrong. `in` has
 * been begun and knows how to run. `variant` tells operations of one family apart. */
typedef ballast_status prepare_function(arguments *in, const void *args, plan *p, int variant);

/* A short call without a plan: to make one takes as long as the call. Returns false, with nothing
 * written, where anything is out of the ordinary, or wrong: then a plan is prepared. */
typedef bool at_once_function(const void *args, const ballast_exec *exec);

/* An operation: how it is prepared, and, unless NULL, done at once. */
typedef struct operation {
    prepare_function *prepare;
    int variant;
    at_once_function *at_once;
} operation;

ballast_status ballast__prepare(const operation *op, const void *args, const ballast_exec *exec,
                                ballast_plan *out);
ballast_status ballast__call(const operation *op, const void *args, const ballast_exec *exec);

/* What a row takes with AVX2, in cycles: so many for itself, so many for an element. It says how
 * much work a task is, and need not be exact. Those of losses and softmax are fitted by eye to
 * `ballast bench` of 10, 100, 1000 and 8192 classes in cache (5th percentile, AMD Zen 3): within a
 * third. */
typedef struct row_cost {
    double row, element;
} row_cost;

/* Starts a plan whose rows are independent of each other, ... */
void ballast__plan_rows(plan *p, const arguments *in, int64_t row_count, int64_t row_elements,
                        row_cost cost);

/* ... and makes it one whose rows are reduced, by leaves of a multiple of `unit` rows. What becomes
 * of the leaves is left to say: `reduced`. */
void ballast__plan_reduction(plan *p, double *result, int64_t unit);

/* The sum over the leaves of partial[leaf * stride + part]. */
double ballast__sum_leaves(const plan *p, const double *partial, int stride, int part);

/* The two entry points of an operation. */
#define DEFINE_OPERATION(name, args_type, prepare, variant, at_once)                              \
    static const operation name##_operation = {prepare, variant, at_once};                        \
    ballast_status ballast_##name(const args_type *args, const ballast_exec *exec)                \
    {                                                                                             \
        return ballast__call(&name##_operation, args, exec);                                      \
    }                                                                                             \
    ballast_status ballast_##name##_prepare(const args_type *args, const ballast_exec *exec,      \
                                            ballast_plan *out)                                    \
    {                                                                                             \
        return ballast__prepare(&name##_operation, args, exec, out);                              \
    }

#endif
