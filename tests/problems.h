/* SPDX-License-Identifier: MIT */
/* Small problems of every operation with a plan, for the tests of what must never change a bit:
 * splits, threads, the host's floating-point environment. */
#ifndef BALLAST_TESTS_PROBLEMS_H
#define BALLAST_TESTS_PROBLEMS_H

#include <ballast/ballast.h>

#include <string.h>

/* Enough rows that a leaf is more than its least, and a parallel call more than one task. */
enum { MAX_ROWS = 180000, MAX_CLASSES = 7, MAX_ELEMENTS = MAX_ROWS * MAX_CLASSES };

static float problem_x[MAX_ELEMENTS], problem_y[MAX_ELEMENTS];
static double problem_x64[MAX_ELEMENTS];
static int32_t problem_labels[MAX_ROWS];
static float problem_row_weight[MAX_ROWS], problem_class_weight[MAX_CLASSES];

/* All that a problem writes. */
typedef struct results {
    double loss;
    float rows[MAX_ROWS], elements[MAX_ELEMENTS], grad[MAX_ELEMENTS];
    double elements64[MAX_ELEMENTS];
} results;

static results problem_out;

/* Tiny weights and logits are subnormal: what flush-to-zero would change. A set-up of cmocka's. */
static inline int make_problems(void **state)
{
    uint32_t random = 1;

    (void)state;
    for (int i = 0; i < MAX_ELEMENTS; i++) {
        random = random * 1664525u + 1013904223u;
        problem_x[i] = (float)(int32_t)random * 0x1p-28f;
        problem_y[i] = (float)(random >> 8) * 0x1p-24f;
        problem_x64[i] = (double)problem_x[i] * 1.1;
        if (i % 11 == 0)
            problem_x[i] *= 0x1p-133f;
    }
    for (int i = 0; i < MAX_ROWS; i++) {
        problem_labels[i] = i % 13 == 0 ? -100 : i * 31 % MAX_CLASSES;
        problem_row_weight[i] = i % 17 == 0 ? 0x1.8p-140f : problem_y[i];
    }
    for (int i = 0; i < MAX_CLASSES; i++)
        problem_class_weight[i] = 0.3f * (float)(i + 1);
    return 0;
}

/* A problem is run by `run`: with plan, prepares it; without, makes the whole call. */
typedef struct problem {
    const char *name;
    ballast_status (*run)(const ballast_exec *exec, ballast_plan *plan, int64_t rows);
} problem;

#define RUN(function) (plan ? ballast_##function##_prepare(&a, e, plan) : ballast_##function(&a, e))
#define PROBLEM(name) \
    static ballast_status name(const ballast_exec *e, ballast_plan *plan, int64_t rows)

#define SOFTMAX_PROBLEM(function)                                                                  \
    PROBLEM(run_##function)                                                                        \
    {                                                                                              \
        ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;                                             \
        a.input = ballast_const_matrix_f32(problem_x, rows, MAX_CLASSES);                          \
        a.output = ballast_matrix_f32(problem_out.elements, rows, MAX_CLASSES);                    \
        return RUN(function);                                                                      \
    }
SOFTMAX_PROBLEM(softmax)
SOFTMAX_PROBLEM(log_softmax)

PROBLEM(run_softmax_f64)
{
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;
    a.input = ballast_const_matrix_f64(problem_x64, rows, MAX_CLASSES);
    a.output = ballast_matrix_f64(problem_out.elements64, rows, MAX_CLASSES);
    return RUN(softmax);
}

#define BACKWARD_PROBLEM(function)                                                                 \
    PROBLEM(run_##function)                                                                        \
    {                                                                                              \
        ballast_softmax_backward_args a = BALLAST_SOFTMAX_BACKWARD_ARGS;                           \
        a.output = ballast_const_matrix_f32(problem_y, rows, MAX_CLASSES);                         \
        a.grad_output = ballast_const_matrix_f32(problem_x, rows, MAX_CLASSES);                    \
        a.grad_input = ballast_matrix_f32(problem_out.grad, rows, MAX_CLASSES);                    \
        return RUN(function);                                                                      \
    }
BACKWARD_PROBLEM(softmax_backward)
BACKWARD_PROBLEM(log_softmax_backward)

PROBLEM(run_log_sum_exp)
{
    ballast_log_sum_exp_args a = BALLAST_LOG_SUM_EXP_ARGS;
    a.input = ballast_const_matrix_f32(problem_x, rows, MAX_CLASSES);
    a.output = problem_out.rows;
    return RUN(log_sum_exp);
}

#define SET_LOSS(a)                                                                                \
    a.logits = ballast_const_matrix_f32(problem_x, rows, MAX_CLASSES);                             \
    a.labels = ballast_labels_i32(problem_labels);                                                 \
    a.class_weight = problem_class_weight;                                                         \
    a.denominator = BALLAST_WEIGHT_SUM;                                                            \
    a.loss = &problem_out.loss;                                                                    \
    a.row_loss = problem_out.rows;                                                                 \
    a.grad = ballast_matrix_f32(problem_out.grad, rows, MAX_CLASSES)

PROBLEM(run_cross_entropy)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    SET_LOSS(a);
    a.row_weight = problem_row_weight;
    return RUN(cross_entropy);
}

PROBLEM(run_cross_entropy_rows)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    SET_LOSS(a);
    a.loss = NULL;
    a.grad_rows = problem_row_weight;
    a.reduction = BALLAST_NONE;
    return RUN(cross_entropy);
}

PROBLEM(run_binary_cross_entropy)
{
    ballast_binary_cross_entropy_args a = BALLAST_BINARY_CROSS_ENTROPY_ARGS;
    SET_LOSS(a);
    a.labels.data = NULL;
    a.class_weight = NULL;
    a.targets = ballast_const_matrix_f32(problem_y, rows, MAX_CLASSES);
    a.element_loss = ballast_matrix_f32(problem_out.elements, rows, MAX_CLASSES);
    return RUN(binary_cross_entropy);
}

PROBLEM(run_sigmoid_focal)
{
    ballast_sigmoid_focal_args a = BALLAST_SIGMOID_FOCAL_ARGS;
    SET_LOSS(a);
    a.row_weight = problem_row_weight;
    a.gamma = 1.7;
    return RUN(sigmoid_focal);
}

PROBLEM(run_class_balanced)
{
    ballast_class_balanced_args a = BALLAST_CLASS_BALANCED_ARGS;
    SET_LOSS(a);
    a.kind = BALLAST_CB_FOCAL;
    return RUN(class_balanced_loss);
}

/* As many elements as the matrices have. */
#define REDUCTION_PROBLEM(function)                                                                \
    PROBLEM(run_##function)                                                                        \
    {                                                                                              \
        ballast_reduce_args a = BALLAST_REDUCE_ARGS;                                               \
        a.x = ballast_vector_f32(problem_x, rows * MAX_CLASSES);                                   \
        a.weights = ballast_vector_f32(problem_y, rows * MAX_CLASSES);                             \
        a.result = &problem_out.loss;                                                              \
        return RUN(function);                                                                      \
    }
REDUCTION_PROBLEM(weighted_sum)
REDUCTION_PROBLEM(weighted_mean)
REDUCTION_PROBLEM(weighted_sum_of_squares)
REDUCTION_PROBLEM(dot)
REDUCTION_PROBLEM(weighted_log_sum_exp)

static const problem problems[] = {
    {"softmax", run_softmax},
    {"softmax:f64", run_softmax_f64},
    {"log_softmax", run_log_softmax},
    {"softmax_backward", run_softmax_backward},
    {"log_softmax_backward", run_log_softmax_backward},
    {"log_sum_exp", run_log_sum_exp},
    {"cross_entropy", run_cross_entropy},
    {"cross_entropy:none", run_cross_entropy_rows},
    {"binary_cross_entropy", run_binary_cross_entropy},
    {"sigmoid_focal", run_sigmoid_focal},
    {"class_balanced_loss", run_class_balanced},
    {"weighted_sum", run_weighted_sum},
    {"weighted_mean", run_weighted_mean},
    {"weighted_sum_of_squares", run_weighted_sum_of_squares},
    {"dot", run_dot},
    {"weighted_log_sum_exp", run_weighted_log_sum_exp},
};

enum { PROBLEMS = sizeof problems / sizeof problems[0] };

#endif
