/* SPDX-License-Identifier: MIT */
#include "caches.h"

#include "../dispatch/cpu.h"
#include "../dispatch/implementation.h"
#include "../dispatch/tuning.h"
#include "interrupt.h"
#include "progress.h"
#include "topology.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64 };
#define FEWEST_BYTES 131072.0 /* more than any L1, no more than any L2 */
#define MOST_BYTES 268435456.0

/* ---- As told --------------------------------------------------------------------------------- */

static int64_t os_level(const topology *t, int level)
{
    for (int i = 0; i < t->cache_count; i++)
        if (t->caches[i].level == level && t->caches[i].kind != 'i')
            return t->caches[i].bytes;
    return 0;
}

void caches_read(caches *c)
{
    ballast__cpu cpu;
    topology t;

    *c = (caches){0};
    ballast__cpu_read(NULL, &cpu);
    topology_read(&t);
    for (int i = 0; i < BALLAST__CPU_CACHE_LEVELS; i++) {
        const int64_t os = os_level(&t, i + 1);
        c->cpu = (int64_t)cpu.cache[i] > c->cpu ? (int64_t)cpu.cache[i] : c->cpu;
        c->os = os > c->os ? os : c->os;
    }
    c->l2 = cpu.cache[1] ? (int64_t)cpu.cache[1] : os_level(&t, 2);
    (void)ballast__isas(); /* the first use, which finds out what the library takes it for */
    c->taken = (int64_t)ballast__data_bytes(1);
    c->real = caches_believed(c);
    c->memory = t.memory;
}

/* ---- As measured ----------------------------------------------------------------------------- */

/* As fast as lines come, in any instruction set. */
void caches_touch(const char *from, int64_t bytes)
{
    uint64_t sum = 0;

    for (int64_t at = 0; at < bytes; at += LINE) {
        uint64_t x;
        memcpy(&x, from + at, sizeof x);
        sum += x;
    }
    __asm__ volatile("" : : "r"(sum));
}

/* The fastest pass, of three at least: others slow down, and nobody speeds up. */
static double rate_of(const char *from, int64_t bytes, double seconds)
{
    const int64_t repeats = 1 + (1 << 21) / bytes; /* the clock takes time, too */
    const double end = monotonic_seconds() + seconds;
    double best = INFINITY;
    int passes = 0;

    caches_touch(from, bytes); /* into the caches */
    do {
        const double begin = monotonic_seconds();
        for (int64_t i = 0; i < repeats; i++)
            caches_touch(from, bytes);
        best = fmin(best, monotonic_seconds() - begin);
    } while (++passes < 3 || monotonic_seconds() < end);
    return 1e-9 * (double)(bytes * repeats) / best;
}

/* No more than an eighth of the memory. */
static int64_t most_bytes(const caches *c)
{
    const int64_t most = (int64_t)MOST_BYTES;

    return c->memory > 0 && c->memory / 8 < most ? c->memory / 8 : most;
}

void caches_measure(caches *c, double seconds)
{
    const int64_t most = most_bytes(c);
    char *array = malloc((size_t)most);

    c->count = 0;
    if (!array)
        return;
    memset(array, 1, (size_t)most); /* pages of its own */
    for (int i = 0; i < CACHES_POINTS && !interrupt_seen(); i++) {
        const int64_t bytes = (int64_t)(FEWEST_BYTES * exp2(0.5 * i)) / LINE * LINE;
        if (bytes > most)
            break;
        c->points[c->count++] =
            (caches_point){bytes, rate_of(array, bytes, 0.6 * seconds / CACHES_POINTS)};
    }
    free(array);
    c->measured = interrupt_seen() ? 0 : caches_knee(c->points, c->count, c->l2);
    c->real = caches_believed(c);
}
