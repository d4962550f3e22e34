/* SPDX-License-Identifier: MIT */
#include "loss.h"

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_binary_cross_entropy_args a = BALLAST_BINARY_CROSS_ENTROPY_ARGS;
    const size_t least = offsetof(ballast_binary_cross_entropy_args, class_weight);

    (void)variant;
    ballast__read_struct(in, "struct_size", &a, sizeof a, least, args);
    const loss l = {.kind = BINARY_CROSS_ENTROPY, SHARED_BY_SIGMOID(a)};
    return ballast__prepare_loss(in, &l, p);
}

DEFINE_OPERATION(binary_cross_entropy, ballast_binary_cross_entropy_args, prepare, 0)
