/* SPDX-License-Identifier: MIT */
/* What the losses have in common: one struct with the arguments of all of them. */
#ifndef BALLAST_DISPATCH_LOSS_H
#define BALLAST_DISPATCH_LOSS_H

#include "plan.h"

typedef enum loss_kind { CROSS_ENTROPY, BINARY_CROSS_ENTROPY, SIGMOID_FOCAL } loss_kind;

/* The arguments of the public structs, under their names there. What a loss does not have is 0, as
 * "not given". Initialisers name every member: else compilers clear the whole struct first, and a
 * call of one short row took 3 % longer. */
typedef struct loss {
    loss_kind kind;
    bool background;          /* a negative label means: all classes are negative */
    bool class_weight_needed;
    double alpha, gamma; /* focal */
    const ballast_const_tensor *logits, *targets;
    const ballast_labels *labels;
    const void *class_weight, *row_weight;
    int64_t ignore_index;
    ballast_reduction reduction;
    ballast_denominator denominator;
    double denominator_value;
    ballast_empty empty;
    double grad_scale;
    const void *grad_rows;
    double *loss;
    void *row_loss;
    const ballast_tensor *element_loss, *grad;
    ballast_error *error;
} loss;

static const ballast_const_tensor no_targets = BALLAST_NO_TENSOR;
static const ballast_tensor no_element_loss = BALLAST_NO_TENSOR;

/* The arguments that all loss structs have, for an initialiser. */
#define SHARED_BY_LOSSES(a)                                                                       \
    .logits = &(a)->logits, .labels = &(a)->labels, .class_weight = (a)->class_weight,            \
    .ignore_index = (a)->ignore_index, .reduction = (a)->reduction,                               \
    .denominator = (a)->denominator, .denominator_value = (a)->denominator_value,                 \
    .empty = (a)->empty, .grad_scale = (a)->grad_scale, .grad_rows = (a)->grad_rows,              \
    .loss = (a)->loss, .row_loss = (a)->row_loss, .grad = &(a)->grad, .error = (a)->error

/* And those that the sigmoid losses have, and others have not. */
#define WITHOUT_TARGETS                                                                           \
    .targets = &no_targets, .element_loss = &no_element_loss, .background = false
#define WITHOUT_FOCUS .alpha = 0.0, .gamma = 0.0
#define SHARED_BY_SIGMOID(a)                                                                      \
    SHARED_BY_LOSSES(a), .row_weight = (a)->row_weight, .targets = &(a)->targets,                 \
    .element_loss = &(a)->element_loss, .background = true, .class_weight_needed = false

/* Checks everything, sums the weights, fills the plan. */
ballast_status ballast__prepare_loss(arguments *in, const loss *l, plan *p);

#endif
