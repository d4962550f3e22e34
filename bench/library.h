/* SPDX-License-Identifier: MIT */
/* The functions of a Ballast library that cases call, so that one case runs against the library
 * that this program is linked with, and against any other: `ballast compare` has two at once. */
#ifndef BALLAST_BENCH_LIBRARY_H
#define BALLAST_BENCH_LIBRARY_H

#include "ballast/ballast.h"

/* OPERATION(name, type of its arguments): ballast_<name> and ballast_<name>_prepare. */
#define LIBRARY_OPERATIONS(OPERATION)                                                             \
    OPERATION(softmax, ballast_softmax_args)                                                      \
    OPERATION(log_softmax, ballast_softmax_args)                                                  \
    OPERATION(log_sum_exp, ballast_log_sum_exp_args)                                              \
    OPERATION(softmax_backward, ballast_softmax_backward_args)                                    \
    OPERATION(log_softmax_backward, ballast_softmax_backward_args)                                \
    OPERATION(cross_entropy, ballast_cross_entropy_args)                                          \
    OPERATION(binary_cross_entropy, ballast_binary_cross_entropy_args)                            \
    OPERATION(sigmoid_focal, ballast_sigmoid_focal_args)                                          \
    OPERATION(class_balanced_loss, ballast_class_balanced_args)                                   \
    OPERATION(weighted_sum, ballast_reduce_args)                                                  \
    OPERATION(weighted_mean, ballast_reduce_args)                                                 \
    OPERATION(weighted_sum_of_squares, ballast_reduce_args)                                       \
    OPERATION(dot, ballast_reduce_args)                                                           \
    OPERATION(weighted_log_sum_exp, ballast_reduce_args)

/* FUNCTION(name, type of its result, types of its parameters): ballast_<name>. */
#define LIBRARY_FUNCTIONS(FUNCTION)                                                               \
    FUNCTION(per_class, ballast_status, (const ballast_per_class_args *))                         \
    FUNCTION(plan_row_count, int64_t, (const ballast_plan *))                                     \
    FUNCTION(plan_row_step, int64_t, (const ballast_plan *))                                      \
    FUNCTION(plan_rows, ballast_status, (ballast_plan *, int64_t, int64_t))                       \
    FUNCTION(plan_finish, ballast_status, (ballast_plan *))                                       \
    FUNCTION(version, const char *, (void))                                                       \
    FUNCTION(implementation_find, const ballast_implementation *, (const char *))                 \
    FUNCTION(implementation_name, const char *, (const ballast_implementation *))                 \
    FUNCTION(implementation_supported, int, (const ballast_implementation *, char *, size_t))     \
    FUNCTION(implementation_default, const ballast_implementation *, (char *, size_t))

#define LIBRARY_OPERATION_FIELDS(name, args)                                                      \
    ballast_status (*name)(const args *, const ballast_exec *);                                   \
    ballast_status (*name##_prepare)(const args *, const ballast_exec *, ballast_plan *);
#define LIBRARY_FUNCTION_FIELD(name, result, parameters) result(*name) parameters;

typedef struct library {
    LIBRARY_OPERATIONS(LIBRARY_OPERATION_FIELDS)
    LIBRARY_FUNCTIONS(LIBRARY_FUNCTION_FIELD)
} library;

extern const library library_linked;

#endif
