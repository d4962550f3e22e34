/* SPDX-License-Identifier: MIT */
#include "few_rows.h"

DEFINE_LAYOUT(layout, "struct_size", ballast_binary_cross_entropy_args, BALLAST_BINARY_CROSS_ENTROPY_ARGS,
              class_weight);

static inline loss loss_of(const ballast_binary_cross_entropy_args *a)
{
    return (loss){.kind = BINARY_CROSS_ENTROPY, SHARED_BY_SIGMOID(a), WITHOUT_FOCUS};
}

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_binary_cross_entropy_args room;

    (void)variant;
    const loss l = loss_of(ballast__read_struct(in, &layout, args, &room));
    return ballast__prepare_loss(in, &l, p);
}

DEFINE_AT_ONCE(ballast_binary_cross_entropy_args, TUNE_BINARY_CROSS_ENTROPY)
DEFINE_OPERATION(binary_cross_entropy, ballast_binary_cross_entropy_args, prepare, 0, at_once)
