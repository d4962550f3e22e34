/* SPDX-License-Identifier: MIT */
/* The knee of a curve of reads, and what follows from it. */
#include "caches.h"

#include <math.h>

/* The largest size that is as fast as this. */
static int64_t last_as_fast(const caches_point *points, int count, double gbps)
{
    for (int i = count - 1; i >= 0; i--)
        if (points[i].gbps >= gbps)
            return points[i].bytes;
    return 0;
}

/* Where L2 is not told: up to where reads are about as fast as at the beginning of the curve, which
 * is beyond L1 and within any L2. */
static int64_t end_of_l2(const caches_point *points, int count)
{
    return last_as_fast(points, count, points[0].gbps / 1.4);
}

/* The fastest from three times L2 on is what the cache behind it does; the last three are memory.
 * In between, the middle of the two, as their product goes: a cache that is no strict LRU, and that
 * others share, ends little by little. */
int64_t caches_knee(const caches_point *points, int count, int64_t l2)
{
    double cache = 0.0, memory = 0.0;

    if (count < 6)
        return 0;
    if (l2 == 0)
        l2 = end_of_l2(points, count);
    for (int i = 0; i < count; i++)
        if (points[i].bytes >= 3 * l2)
            cache = fmax(cache, points[i].gbps);
    for (int i = count - 3; i < count; i++)
        memory = fmax(memory, points[i].gbps);
    if (cache < 1.25 * memory)
        return 0;
    return last_as_fast(points, count, sqrt(cache * memory));
}

bool caches_differ(int64_t a, int64_t b) { return a >= 2 * b || b >= 2 * a; }

static bool contradict(int64_t a, int64_t b) { return a && b && caches_differ(a, b); }

bool caches_disagree(const caches *c)
{
    return contradict(c->cpu, c->os) || contradict(c->cpu, c->measured) ||
           contradict(c->os, c->measured);
}

/* The CPU's word, then the operating system's, unless what was measured is far from it. */
int64_t caches_believed(const caches *c)
{
    const int64_t told = c->cpu ? c->cpu : c->os;

    if (c->measured && (!told || caches_differ(c->measured, told)))
        return c->measured;
    return told ? told : c->taken;
}
