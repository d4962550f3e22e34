/* SPDX-License-Identifier: MIT */
#include "bound_pool.h"

#include "progress.h"

#include <sched.h>
#include <stdatomic.h>

typedef struct binding {
    const topology_cores *cores;
    int threads;
    atomic_int arrived, bound;
} binding;

/* Waits for the others, so that each thread gets one of these; not for ever, for a pool may give a
 * thread two. */
static void bind_one(void *arg, int64_t index)
{
    binding *b = arg;
    const double end = monotonic_seconds() + 1.0;

    atomic_fetch_add(&b->arrived, 1);
    while (atomic_load(&b->arrived) < b->threads && monotonic_seconds() < end)
        sched_yield();
    if (topology_bind(b->cores, (int)index))
        atomic_fetch_add(&b->bound, 1);
}

bool pool_bind(const pool *p, const topology_cores *cores)
{
    binding b = {cores, (int)p->parallel.threads, 0, 0};

    if (b.threads <= cores->count)
        p->parallel.run(p->parallel.context, b.threads, bind_one, &b);
    return atomic_load(&b.bound) == b.threads;
}
