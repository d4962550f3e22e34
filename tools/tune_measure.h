/* SPDX-License-Identifier: MIT */
/* Measures the candidates of one case against the default.
 *
 * Candidates that do the same as the default, or as another, are found out first: they lead to the
 * same tasks and the same way to memory. The others are visited in turn. Each visit is a pair of
 * the default and the candidate, A B B A, on every problem of the case, with one thread and with
 * all, as far as it makes a difference there; where outputs may go past the caches, with a read of
 * them, for whoever called will read them. A candidate that cannot gain 3 % any more is visited no
 * more.
 *
 * The best is measured again, and is chosen where the 95 % interval of these fresh pairs lies below
 * 0.97 and no problem takes longer: of many that do nothing, some look good once. */
#ifndef BALLAST_TOOLS_TUNE_MEASURE_H
#define BALLAST_TOOLS_TUNE_MEASURE_H

#include "noise.h"
#include "pool.h"
#include "tune_cases.h"

enum { TUNE_CANDIDATES = 16 };

/* Time with the candidate over time with the default, and its 95 % interval. */
typedef struct tune_trial {
    int candidate;
    double ratio, low, high;
    int samples; /* pairs */
} tune_trial;

typedef enum tune_verdict {
    TUNE_SAME,     /* no candidate does anything else here */
    TUNE_DEFAULT,  /* none is faster by 3 %, or what is takes longer elsewhere */
    TUNE_CHOSEN,   /* the best is */
    TUNE_NOISY,    /* it seemed to be, twice in too much noise */
    TUNE_UNDECIDED /* too little time, or too much noise to tell */
} tune_verdict;

/* Of one choice of a case. */
typedef struct tune_result {
    const tune_case *of;
    choice_kind which;
    tune_verdict verdict;
    tune_trial best; /* measured again, where that was done */
    noise noise;     /* meanwhile */
    int trial_count;
    tune_trial trials[TUNE_CANDIDATES];
} tune_result;

/* What a case is measured with. */
typedef struct tune_means {
    const ballast_parallel *parallel; /* of one thread: tasks are not measured */
    bool (*stop)(void *context);      /* asked between pairs: whether to end at once */
    void *context;
    double end; /* monotonic_seconds(): no search goes on */
} tune_means;

/* Of every choice, in about so many seconds, where that is enough to decide. Chosen ones are in
 * force for those that come after them. False, and no results, where the case cannot be run here:
 * `message` says why. */
bool tune_measure_case(const tune_case *c, const tune_means *means, double seconds,
                       tune_result results[CHOICES], char *message, size_t size);

/* One candidate again, as an entry of a profile has it. */
bool tune_measure_candidate(const tune_case *c, const tune_means *means, double seconds,
                            const tuned_choice *chosen, tune_result *out, char *message,
                            size_t size);

#endif
