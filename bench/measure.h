/* SPDX-License-Identifier: MIT */
/* Times contenders in turn, in one process, with the clock measured beside each run: what the tool
 * and the tuner call. Machines are shared and change speed, so results are compared pair by pair. */
#ifndef BALLAST_BENCH_MEASURE_H
#define BALLAST_BENCH_MEASURE_H

#include <stdint.h>

enum { MEASURE_CONTENDERS = 12, MEASURE_ROUNDS = 1001, MEASURE_PAIRS = 500 };

/* run: does the work once. before: what must be so for it, done before each turn, and not timed; or
 * NULL. */
typedef struct contender {
    void (*run)(void *context);
    void *context;
    void (*before)(void *context);
} contender;

typedef struct measurement {
    double seconds, cycles; /* of one run: median over the rounds */
    double least_cycles;    /* 5th percentile: what a core does when nobody else slows it down */
    double ratio;           /* time over the first contender's, pair by pair: median */
    double ratio_low, ratio_high; /* its 95 % interval, from the order of the pairs */
    int64_t rounds;
} measurement;

/* Monotonic time in seconds. */
double measure_now(void);

/* Seconds of one cycle, from a chain of dependent additions that takes a few microseconds. */
double measure_cycle(void);

/* Runs contenders A B C, C B A, A B C ... until `budget` seconds or MEASURE_ROUNDS rounds are over,
 * three rounds at least. A run that is shorter than 50 microseconds is repeated within a round,
 * after one that is not timed, for the caches hold what the others left there. */
void measure_in_turn(const contender *contenders, int count, double budget, measurement *out);

/* What a round is made of, for who changes something between runs. How often a run is repeated, and
 * seconds of one of them and in cycles. */
int64_t measure_repeats(const contender *c);
void measure_run(const contender *c, int64_t repeats, double *seconds, double *cycles);

/* Two contenders, A B B A for each pair, as many pairs as the budget allows, one at least. */
typedef struct paired {
    double seconds[2]; /* of one run: median */
    double log_ratio;  /* of the second's time to the first's: median over the pairs */
    int count;
} paired;
void measure_pairs(const contender pair[2], double budget, paired *out);

#endif
