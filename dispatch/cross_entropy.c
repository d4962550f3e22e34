/* SPDX-License-Identifier: MIT */
#include "few_rows.h"

DEFINE_LAYOUT(layout, "struct_size", ballast_cross_entropy_args, BALLAST_CROSS_ENTROPY_ARGS,
              class_weight);

static inline loss loss_of(const ballast_cross_entropy_args *a)
{
    return (loss){.kind = CROSS_ENTROPY, SHARED_BY_LOSSES(a), WITHOUT_TARGETS, WITHOUT_FOCUS,
                  .class_weight_needed = false, .row_weight = a->row_weight};
}

static ballast_status prepare(arguments *in, const void *args, plan *p, int variant)
{
    ballast_cross_entropy_args room;

    (void)variant;
    const loss l = loss_of(ballast__read_struct(in, &layout, args, &room));
    return ballast__prepare_loss(in, &l, p);
}

DEFINE_AT_ONCE(ballast_cross_entropy_args, TUNE_CROSS_ENTROPY)
DEFINE_OPERATION(cross_entropy, ballast_cross_entropy_args, prepare, 0, at_once)
