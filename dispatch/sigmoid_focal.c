/* SPDX-License-Identifier: MIT */
#include "loss.h"

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_sigmoid_focal_args a = BALLAST_SIGMOID_FOCAL_ARGS;
    const size_t least = offsetof(ballast_sigmoid_focal_args, alpha);

    (void)variant;
    ballast__read_struct(in, "struct_size", &a, sizeof a, least, args);
    const loss l = {
        .kind = SIGMOID_FOCAL, SHARED_BY_SIGMOID(a), .alpha = a.alpha, .gamma = a.gamma};
    return ballast__prepare_loss(in, &l, p);
}

DEFINE_OPERATION(sigmoid_focal, ballast_sigmoid_focal_args, prepare, 0)
