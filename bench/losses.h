/* SPDX-License-Identifier: MIT */
/* What the losses share: inputs, arguments, and the factors of their rows. */
#ifndef BALLAST_BENCH_LOSSES_H
#define BALLAST_BENCH_LOSSES_H

#include "operation.h"

/* The outputs of losses, in the order of their tables. */
enum { LOSS, ROW_LOSS, GRAD, ELEMENT_LOSS };

#define SET_LOSS(a, c, r)                                                                         \
    do {                                                                                          \
        (a).logits = replaced(c, IN_X, &(r)->out[GRAD], 1);                                       \
        (a).labels = labels(&(c)->in[IN_LABELS]);                                                 \
        (a).class_weight = (c)->in[IN_CLASS_WEIGHT].data;                                         \
        (a).grad_rows = (c)->in[IN_GRAD_ROWS].data;                                               \
        (a).grad_scale = (c)->p.grad_scale;                                                       \
        (a).ignore_index = (c)->ignore_index;                                                     \
        (a).reduction = (ballast_reduction)(c)->p.reduction;                                      \
        if ((c)->p.denominator)                                                                   \
            (a).denominator = (ballast_denominator)((c)->p.denominator - 1);                      \
        (a).denominator_value = GIVEN_DENOMINATOR;                                                \
        (a).loss = (r)->out[LOSS].data;                                                           \
        (a).row_loss = (r)->out[ROW_LOSS].data;                                                   \
        (a).grad = tensor(&(r)->out[GRAD]);                                                       \
    } while (0)
#define GIVEN_DENOMINATOR 12.5

#define SET_SIGMOID_LOSS(a, c, r)                                                                 \
    do {                                                                                          \
        SET_LOSS(a, c, r);                                                                        \
        (a).row_weight = (c)->in[IN_WEIGHT].data;                                                 \
        (a).targets = const_tensor(&(c)->in[IN_TARGETS]);                                         \
        (a).element_loss = tensor(&(r)->out[ELEMENT_LOSS]);                                       \
    } while (0)

/* Logits, labels or targets, and the weights that the problem asks for. */
void make_loss(case_data *c);

int64_t label_at(const case_data *c, int64_t row); /* -1: none */
int is_ignored(const case_data *c, int64_t row);

/* What a mean divides by. */
long double divisor_of(const case_data *c);

/* What a row's loss and gradient are multiplied by. */
typedef struct row_factor {
    int ignored;
    int64_t label; /* -1: none */
    long double loss, grad;
} row_factor;

row_factor factor_of(const case_data *c, int64_t row, case_reference *r);

/* The expected results of a row that is ignored. */
void set_ignored_row(const case_data *c, case_reference *r);

/* The largest number that sums of the dtype may pass through is below it. */
int sum_overflows(const case_data *c, long double sum);

/* The loss of one logit; its gradient, and the sum of the magnitudes of the gradient's terms. */
typedef long double element_function(const case_data *c, double x, double target,
                                     long double *grad, long double *terms);

void refer_elements(const case_data *c, int64_t row, case_reference *r, element_function *element);

#define LOSS_OUTPUTS(loss, grad)                                                                  \
    {"loss", OUT_NUMBER, loss}, {"row_loss", OUT_ROWS, loss}, {"grad", OUT_MATRIX, grad}
#define SIGMOID_OUTPUTS(loss, grad)                                                               \
    {LOSS_OUTPUTS(loss, grad), {"element_loss", OUT_MATRIX, loss}}

#endif
