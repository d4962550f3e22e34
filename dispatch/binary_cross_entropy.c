/* SPDX-License-Identifier: MIT */
#include "loss.h"

DEFINE_LAYOUT(layout, "struct_size", ballast_binary_cross_entropy_args, BALLAST_BINARY_CROSS_ENTROPY_ARGS,
              class_weight);

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_binary_cross_entropy_args room;

    (void)variant;
    const ballast_binary_cross_entropy_args *a = ballast__read_struct(in, &layout, args, &room);
    const loss l = {.kind = BINARY_CROSS_ENTROPY, SHARED_BY_SIGMOID(a), WITHOUT_FOCUS};
    return ballast__prepare_loss(in, &l, p);
}

DEFINE_OPERATION(binary_cross_entropy, ballast_binary_cross_entropy_args, prepare, 0, NULL)
