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

/* Labels, or else dense targets. Empty tensors have no data to tell which: their dtype does. */
static inline bool ballast__has_labels(const loss *l)
{
    return l->labels->data || (!l->targets->data && l->targets->dtype == BALLAST_DTYPE_NONE);
}

/* What says which classes are true, if plain: labels, or else dense targets. */
static inline bool ballast__is_plain_target(const loss *l, byte_range *bytes)
{
    const ballast_const_tensor *x = l->logits, *t = l->targets;
    const size_t label = ballast__size_of(l->labels->dtype), element = ballast__size_of(t->dtype);

    if (l->labels->data) {
        *bytes = ballast__bytes(l->labels->data, (size_t)x->outer * label);
        return ballast__is_in(LABEL_DTYPES, l->labels->dtype) &&
               ballast__is_plain_range(*bytes, label);
    }
    return (t->dtype == BALLAST_U8 || t->dtype == x->dtype) && t->outer == x->outer &&
           t->classes == x->classes && ballast__is_plain(t, element, bytes);
}

/* Whether all that is memory is plain (see arguments.h): f32 logits and no weights. */
static inline bool ballast__is_plain_loss(const loss *l)
{
    const ballast_const_tensor *x = l->logits;
    byte_range logits, target, grad;

    if (l->class_weight || l->class_weight_needed || l->row_weight || l->grad_rows ||
        l->element_loss->data || x->dtype != BALLAST_F32 ||
        !ballast__is_plain(x, sizeof(float), &logits) || !ballast__is_plain_target(l, &target) ||
        !ballast__is_plain_output(l->grad, sizeof(float), x, logits, &grad))
        return false;
    const byte_range result = ballast__bytes(l->loss, sizeof(double));
    const byte_range row_loss = ballast__bytes(l->row_loss, (size_t)x->outer * sizeof(float));
    return ballast__is_plain_range(result, sizeof(double)) &&
           ballast__are_apart(grad, target) && ballast__are_apart(grad, result) &&
           ballast__are_apart(result, logits) && ballast__are_apart(result, target) &&
           (!l->row_loss ||
            (ballast__is_plain_range(row_loss, sizeof(float)) &&
             ballast__are_apart(row_loss, logits) && ballast__are_apart(row_loss, target) &&
             ballast__are_apart(row_loss, grad) && ballast__are_apart(row_loss, result)));
}

/* ---- Jobs ----------------------------------------------------------------------------------- */

/* They are filled in place: a copy would be read in larger pieces than it was written in, which
 * the CPU cannot forward from its store buffer. */

static inline void ballast__set_rows(row_terms *r, const loss *l, double denominator,
                                     int64_t leaf_rows)
{
    const bool labels = ballast__has_labels(l);

    r->labels = labels ? l->labels->data : NULL;
    r->label_bytes = labels ? (int)ballast__size_of(l->labels->dtype) : 0;
    r->ignore_index = l->ignore_index;
    r->class_weight = l->class_weight;
    r->row_weight = l->row_weight;
    r->grad_rows = l->grad_rows;
    r->grad_scale = denominator == 0.0 ? 0.0 : l->grad_scale / denominator;
    r->row_loss = l->row_loss;
    r->partial = NULL; /* until rows are run */
    r->leaf_rows = leaf_rows;
}

/* All but what only planes have. */
static inline void ballast__set_cross_entropy(cross_entropy_job *job, const loss *l,
                                              double denominator, int64_t leaf_rows,
                                              const kernel_table *kernels, tuning tuned)
{
    ballast__set_rows(&job->rows, l, denominator, leaf_rows);
    job->logits = l->logits->data;
    job->logits_stride = l->logits->outer_stride;
    job->grad = l->grad->data;
    job->grad_stride = l->grad->outer_stride;
    job->classes = l->logits->classes;
    job->format = ballast__format(kernels);
    job->beyond_cache = tuned.streams;
    job->tile_classes =
        ballast__matrix_tile_classes(tuned, l->logits->outer, LEAST_SHORT_LOSSES, l->logits->classes, true,
                                     kernels);
    job->row_tile_classes = ballast__row_tile_classes(tuned, kernels);
    job->kept_chunks = ballast__kept_chunks(tuned);
    job->fetch = ballast__fetching();
}

static inline enum target_kind ballast__target_kind(const loss *l)
{
    if (ballast__has_labels(l))
        return TARGET_LABEL;
    return l->targets->dtype == BALLAST_U8 ? TARGET_U8 : TARGET_DENSE;
}

static inline void ballast__set_sigmoid(sigmoid_job *job, const loss *l, double denominator,
                                        int64_t leaf_rows, const kernel_table *kernels,
                                        tuning tuned)
{
    const bool alpha = l->kind == SIGMOID_FOCAL && l->alpha >= 0.0;

    ballast__set_rows(&job->rows, l, denominator, leaf_rows);
    job->logits = l->logits->data;
    job->logits_stride = l->logits->outer_stride;
    job->target_kind = ballast__target_kind(l);
    job->targets = l->targets->data;
    job->targets_stride = l->targets->outer_stride;
    job->element_loss = l->element_loss->data;
    job->element_loss_stride = l->element_loss->outer_stride;
    job->grad = l->grad->data;
    job->grad_stride = l->grad->outer_stride;
    job->classes = l->logits->classes;
    job->format = kernels->format;
    job->beyond_cache = tuned.streams;
    job->gamma = l->gamma;
    job->alpha_positive = alpha ? l->alpha : 1.0;
    job->alpha_negative = alpha ? 1.0 - l->alpha : 1.0;
}

/* Checks everything, sums the weights, fills the plan. */
ballast_status ballast__prepare_loss(arguments *in, const loss *l, plan *p);

#endif
