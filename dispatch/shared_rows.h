/* SPDX-License-Identifier: MIT */
/* Long rows shared between threads: where there are too few rows to give each thread its own. */
#ifndef BALLAST_DISPATCH_SHARED_ROWS_H
#define BALLAST_DISPATCH_SHARED_ROWS_H

#include "plan.h"

/* Makes the plan one whose rows may be shared. outputs: there is something to write after the sums. */
void ballast__plan_sharing(plan *p, const shared_kernel *kernel, int64_t classes, bool outputs);

bool ballast__can_share(const plan *p);

/* Rows that are shared at a time, of a plan that can. */
int64_t ballast__shared_batch(const plan *p);

/* Computes all rows, `most_tasks` tasks at a time at most. Outside the guard. */
void ballast__run_shared(const plan *p, double *partial, const ballast_parallel *parallel,
                         int64_t most_tasks);

/* Where part i begins, of `total` steps cut into `parts` that differ by one at most. */
static inline int64_t ballast__cut(int64_t total, int64_t parts, int64_t i)
{
    const int64_t rest = total % parts;

    return total / parts * i + (i < rest ? i : rest);
}

#endif
