/* SPDX-License-Identifier: MIT */
#include "measure.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#define SHORTEST_RUN 50e-6

double measure_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A dependent integer addition takes one cycle on every CPU that Ballast has kernels for. Of a register, for
 * CPUs since Intel's Golden Cove add constants while they rename, several a cycle. */
double measure_cycle(void)
{
    enum { STEPS = 4000, ADDS = 8 };
    uint64_t sum = 1, step = 1;
    const double start = measure_now();
    for (int i = 0; i < STEPS; i++)
#if defined(__x86_64__)
#define ADD "add %1, %0\n\t"
#elif defined(__aarch64__)
#define ADD "add %0, %0, %1\n\t"
#endif
#ifdef ADD
        __asm__ volatile(ADD ADD ADD ADD ADD ADD ADD ADD : "+r"(sum) : "r"(step));
#undef ADD
#else
        for (int k = 0; k < ADDS; k++) {
            sum += step;
            __asm__ volatile("" : "+r"(sum), "+r"(step));
        }
#endif
    return (measure_now() - start) / (STEPS * ADDS);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int64_t count)
{
    qsort(values, (size_t)count, sizeof *values, by_size);
    return values[count / 2];
}

typedef struct rounds {
    double seconds[MEASURE_CONTENDERS][MEASURE_ROUNDS];
    double cycles[MEASURE_CONTENDERS][MEASURE_ROUNDS];
} rounds;

/* The faster of the clock before and after: a pause in the measurement of the clock must not make
 * the work look cheaper. */
void measure_run(const contender *c, int64_t repeats, double *seconds, double *cycles)
{
    if (c->before)
        c->before(c->context);
    if (repeats > 1)
        c->run(c->context);
    const double cycle_before = measure_cycle();
    const double start = measure_now();
    for (int64_t i = 0; i < repeats; i++)
        c->run(c->context);
    *seconds = (measure_now() - start) / (double)repeats;
    *cycles = *seconds / fmin(cycle_before, measure_cycle());
}

int64_t measure_repeats(const contender *c)
{
    if (c->before)
        c->before(c->context);
    c->run(c->context); /* warm */
    const double start = measure_now();
    c->run(c->context);
    const double once = measure_now() - start;
    return once >= SHORTEST_RUN ? 1 : (int64_t)ceil(SHORTEST_RUN / fmax(once, 1e-8));
}

static void summarise(rounds *r, int k, int64_t count, double *ratios, measurement *out)
{
    for (int64_t i = 0; i < count; i++)
        ratios[i] = r->seconds[k][i] / r->seconds[0][i];
    qsort(ratios, (size_t)count, sizeof *ratios, by_size);
    /* the order statistics between which the median lies with 95 % */
    const int64_t half = (int64_t)ceil(0.98 * sqrt((double)count));
    const int64_t low = count / 2 - half, high = count / 2 + half;
    out->ratio = ratios[count / 2];
    out->ratio_low = ratios[low < 0 ? 0 : low];
    out->ratio_high = ratios[high >= count ? count - 1 : high];
    out->rounds = count;
}

void measure_in_turn(const contender *contenders, int count, double budget, measurement *out)
{
    int64_t repeats[MEASURE_CONTENDERS], done = 0;
    rounds *r = malloc(sizeof *r);
    double *ratios = malloc(MEASURE_ROUNDS * sizeof *ratios);
    if (!r || !ratios)
        abort();
    for (int k = 0; k < count; k++)
        repeats[k] = measure_repeats(&contenders[k]);
    const double end = measure_now() + budget;
    while (done < MEASURE_ROUNDS && (done < 3 || measure_now() < end)) {
        for (int i = 0; i < count; i++) {
            const int k = done % 2 ? count - 1 - i : i;
            measure_run(&contenders[k], repeats[k], &r->seconds[k][done], &r->cycles[k][done]);
        }
        done++;
    }
    for (int k = 0; k < count; k++)
        summarise(r, k, done, ratios, &out[k]);
    for (int k = 0; k < count; k++) {
        out[k].seconds = median(r->seconds[k], done);
        out[k].cycles = median(r->cycles[k], done);
        out[k].least_cycles = r->cycles[k][done / 20]; /* median() sorted them */
    }
    free(ratios);
    free(r);
}

void measure_pairs(const contender pair[2], double budget, paired *out)
{
    const int64_t a = measure_repeats(&pair[0]), b = measure_repeats(&pair[1]), repeats = a > b ? a : b;
    double *seconds[2] = {malloc(2 * MEASURE_PAIRS * sizeof(double)),
                          malloc(2 * MEASURE_PAIRS * sizeof(double))};
    double log_ratio[MEASURE_PAIRS], cycles;
    if (!seconds[0] || !seconds[1])
        abort();
    const double end = measure_now() + budget;
    int n = 0;
    for (; n < MEASURE_PAIRS && (n < 1 || measure_now() < end); n++) {
        double *first = seconds[0] + 2 * n, *second = seconds[1] + 2 * n;
        measure_run(&pair[0], repeats, &first[0], &cycles);
        measure_run(&pair[1], repeats, &second[0], &cycles);
        measure_run(&pair[1], repeats, &second[1], &cycles);
        measure_run(&pair[0], repeats, &first[1], &cycles);
        log_ratio[n] = 0.5 * log(second[0] / first[0] * second[1] / first[1]);
    }
    out->count = n;
    out->log_ratio = median(log_ratio, n);
    for (int k = 0; k < 2; k++) {
        out->seconds[k] = median(seconds[k], 2 * n);
        free(seconds[k]);
    }
}
