/* SPDX-License-Identifier: MIT */
/* What the file of an operation is made of: the library's view of arrays, plans run in pieces, the
 * keys of problems, and the row of the table. */
#ifndef BALLAST_BENCH_OPERATION_H
#define BALLAST_BENCH_OPERATION_H

#include "../tests/oracle/oracle.h"
#include "inputs.h"

/* ---- Running --------------------------------------------------------------------------------- */

static inline ballast_const_tensor const_tensor(const case_array *a)
{
    const ballast_const_tensor none = BALLAST_NO_TENSOR;

    if (!a->data)
        return none;
    return (ballast_const_tensor){a->data,  a->dtype,  a->rows / a->inner, a->columns,
                                  a->inner, a->stride, a->column_stride};
}

static inline ballast_tensor tensor(const case_array *a)
{
    const ballast_tensor none = BALLAST_NO_TENSOR;

    if (!a->data)
        return none;
    return (ballast_tensor){a->data,  a->dtype,  a->rows / a->inner, a->columns,
                            a->inner, a->stride, a->column_stride};
}

static inline ballast_vector vector(const case_array *a)
{
    const ballast_vector none = BALLAST_NO_VECTOR;
    const ballast_vector v = {a->data, a->dtype, a->rows * a->columns};

    return a->data ? v : none;
}

static inline ballast_labels labels(const case_array *a)
{
    const ballast_labels none = BALLAST_NO_LABELS;
    const ballast_labels l = {a->data, a->dtype};

    return a->data ? l : none;
}

/* An input, or the output that it is replaced by. */
static inline ballast_const_tensor replaced(const case_data *c, int input, const case_array *out,
                                            int64_t inplace)
{
    return const_tensor(c->p.inplace == inplace && out->data ? out : &c->in[input]);
}

/* The rows of a plan, one step at a time, from the last to the first. */
static inline ballast_status run_pieces(const library *l, ballast_status prepared,
                                        ballast_plan *plan)
{
    if (prepared != BALLAST_OK)
        return prepared;
    const int64_t rows = l->plan_row_count(plan), step = l->plan_row_step(plan);

    for (int64_t begin = rows > 0 ? (rows - 1) / step * step : -1; begin >= 0; begin -= step) {
        const int64_t end = rows - begin < step ? rows : begin + step;
        const ballast_status status = l->plan_rows(plan, begin, end);

        if (status != BALLAST_OK)
            return status;
    }
    return l->plan_finish(plan);
}

#define RUN(name, a)                                                                              \
    const library *l = c->library;                                                                \
    ballast_plan plan;                                                                            \
    return c->p.pieces ? run_pieces(l, l->name##_prepare(&(a), exec, &plan), &plan)               \
                       : l->name(&(a), exec)

/* ---- Expected results ------------------------------------------------------------------------ */

/* Below this, exponentials are 0 (f64: lose digits). */
static inline long double flushed(const case_data *c)
{
    return c->p.dtype == BALLAST_F64 ? 0x1p-1021L : 0x1p-125L;
}

/* The sum of +inf and finite numbers is +inf, of nothing 0: what the oracle leaves open. */
int is_special_sum(const double *x, const double *w, int64_t n, long double *result);

/* ---- The table ------------------------------------------------------------------------------- */

#define COMMON_KEYS (KEY(KEY_OFFSET) | KEY(KEY_INPUTS) | KEY(KEY_SEED))
#define RUN_KEYS (COMMON_KEYS | KEY(KEY_PIECES) | KEY(KEY_THREADS))
#define MATRIX_KEYS (RUN_KEYS | KEY(KEY_ROWS) | KEY(KEY_CLASSES) | KEY(KEY_STRIDE))
#define PLANE_KEYS (MATRIX_KEYS | KEY(KEY_INNER) | KEY(KEY_CLASS_STRIDE))
#define LOSS_KEYS                                                                                 \
    (MATRIX_KEYS | KEY(KEY_LABELS) | KEY(KEY_IGNORED) | KEY(KEY_OUTPUTS) | KEY(KEY_INPLACE)       \
     | KEY(KEY_REDUCTION) | KEY(KEY_DENOMINATOR) | KEY(KEY_GRAD_SCALE) | KEY(KEY_GRAD_ROWS))
#define SIGMOID_KEYS (LOSS_KEYS | KEY(KEY_TARGETS) | KEY(KEY_WEIGHTS) | KEY(KEY_BACKGROUND))
#define VECTOR_KEYS (RUN_KEYS | KEY(KEY_COUNT) | KEY(KEY_WEIGHTS))
#define PER_CLASS_KEYS                                                                            \
    (COMMON_KEYS | KEY(KEY_ROWS) | KEY(KEY_CLASSES) | KEY(KEY_LABELS) | KEY(KEY_IGNORED)          \
     | KEY(KEY_OUTPUTS))

#define VARIANTS(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}
#define FUNCTIONS(make, name) make, run_##name, refer_##name

extern const operation operation_softmax, operation_log_softmax, operation_log_sum_exp,
    operation_softmax_backward, operation_log_softmax_backward, operation_cross_entropy,
    operation_binary_cross_entropy, operation_sigmoid_focal, operation_weighted_sum,
    operation_weighted_mean, operation_weighted_sum_of_squares, operation_dot,
    operation_weighted_log_sum_exp, operation_per_class, operation_class_balanced_loss;

#endif
