/* SPDX-License-Identifier: MIT */
/* Times loops of instructions that tools/ports/measure writes: cycles of each way around, a line each. */
#include <stdio.h>
#include <time.h>

enum { ROUNDS = 1000, TRIES = 30 };

typedef void loop(int rounds, float *from, float *to);
extern loop *const loops[]; /* ends with NULL; each sets what its instructions read */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Cycles a second: a multiplication waits three cycles for the one before it. */
static double clock_rate(void)
{
    double best = 1;
    for (int i = 0; i < 5; ++i) {
        long x = 0;
        double begin = seconds();
        for (int j = 0; j < 20000; ++j)
            __asm__ volatile("imul %0, %0\n\timul %0, %0\n\timul %0, %0\n\timul %0, %0" : "+r"(x));
        double time = seconds() - begin;
        best = time < best ? time : best;
    }
    return 20000 * 4 * 3 / best;
}

int main(void)
{
    static _Alignas(4096) float from[1024], to[1024];
    if (!__builtin_cpu_supports("avx512vl"))
        return 77;
    for (loop *const *l = loops; *l; ++l) {
        double rate = clock_rate(), best = 1;
        for (int i = 0; i < TRIES; ++i) {
            double begin = seconds();
            (*l)(ROUNDS, from, to + 512);
            double time = seconds() - begin;
            best = time < best ? time : best;
        }
        printf("%.3f\n", best * rate / ROUNDS);
    }
    return 0;
}
