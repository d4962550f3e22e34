/* SPDX-License-Identifier: MIT */
#include "loss.h"

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    const size_t least = offsetof(ballast_cross_entropy_args, class_weight);

    (void)variant;
    ballast__read_struct(in, "struct_size", &a, sizeof a, least, args);
    const loss l = {.kind = CROSS_ENTROPY, SHARED_BY_LOSSES(a), .row_weight = a.row_weight};
    return ballast__prepare_loss(in, &l, p);
}

DEFINE_OPERATION(cross_entropy, ballast_cross_entropy_args, prepare, 0)
