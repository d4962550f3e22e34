/* SPDX-License-Identifier: MIT */
#include "loss.h"

DEFINE_LAYOUT(layout, "struct_size", ballast_sigmoid_focal_args, BALLAST_SIGMOID_FOCAL_ARGS,
              alpha);

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_sigmoid_focal_args room;

    (void)variant;
    const ballast_sigmoid_focal_args *a = ballast__read_struct(in, &layout, args, &room);
    const loss l = {
        .kind = SIGMOID_FOCAL, SHARED_BY_SIGMOID(a), .alpha = a->alpha, .gamma = a->gamma};
    return ballast__prepare_loss(in, &l, p);
}

DEFINE_OPERATION(sigmoid_focal, ballast_sigmoid_focal_args, prepare, 0, NULL)
