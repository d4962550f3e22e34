/* SPDX-License-Identifier: MIT */
/* The class-balanced loss: one of three losses, weighted by the label's class, without alpha. */
#include "loss.h"

static const loss_kind kinds[] = {
    [BALLAST_CB_SOFTMAX] = CROSS_ENTROPY,
    [BALLAST_CB_SIGMOID] = BINARY_CROSS_ENTROPY,
    [BALLAST_CB_FOCAL] = SIGMOID_FOCAL,
};

DEFINE_LAYOUT(layout, "struct_size", ballast_class_balanced_args, BALLAST_CLASS_BALANCED_ARGS,
              ignore_index);

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_class_balanced_args room;

    (void)variant;
    const ballast_class_balanced_args *a = ballast__read_struct(in, &layout, args, &room);
    const bool known = (unsigned)a->kind <= BALLAST_CB_FOCAL;
    ballast__refuse(in, !known, BALLAST_ERR_OPTION, "kind", (int)a->kind);
    const loss l = {
        .kind = known ? kinds[a->kind] : CROSS_ENTROPY,
        SHARED_BY_LOSSES(a),
        WITHOUT_TARGETS,
        .class_weight_needed = true,
        .row_weight = NULL,
        .gamma = a->gamma,
        .alpha = -1.0,
    };
    return ballast__prepare_loss(in, &l, p);
}

DEFINE_OPERATION(class_balanced_loss, ballast_class_balanced_args, prepare, 0, NULL)
