/* SPDX-License-Identifier: MIT */
#include "few_rows.h"

DEFINE_LAYOUT(layout, "struct_size", ballast_sigmoid_focal_args, BALLAST_SIGMOID_FOCAL_ARGS,
              alpha);

static inline loss loss_of(const ballast_sigmoid_focal_args *a)
{
    return (loss){.kind = SIGMOID_FOCAL, SHARED_BY_SIGMOID(a), .alpha = a->alpha, .gamma = a->gamma};
}

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_sigmoid_focal_args room;

    (void)variant;
    const loss l = loss_of(ballast__read_struct(in, &layout, args, &room));
    return ballast__prepare_loss(in, &l, p);
}

DEFINE_AT_ONCE(ballast_sigmoid_focal_args, TUNE_SIGMOID_FOCAL)
DEFINE_OPERATION(sigmoid_focal, ballast_sigmoid_focal_args, prepare, 0, at_once)
