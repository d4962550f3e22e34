/* SPDX-License-Identifier: MIT */
/* Who is measured on one problem: Ballast, what others would write or call, and the machine's own
 * limits, all on the same arrays and as many threads. For `ballast bench` and `ballast-bench`. */
#ifndef BALLAST_BENCH_CONTEST_H
#define BALLAST_BENCH_CONTEST_H

#include "baselines/baselines.h"
#include "cases.h"
#include "measure.h"

enum { CONTEST_TEXT = 256, CONTEST_THREADS = 64 };

typedef struct contest contest;

typedef struct entrant {
    const char *name; /* "ballast", "scalar", "fast-math", "sleef", "onednn", "copy", ... */
    const char *isa;  /* of Ballast's own; else "" */
    int is_limit;     /* what the machine, or Ballast in L2, can do at best */
    double elements, bytes; /* of one run, maybe of fewer rows; every input and output once */

    contest *contest; /* from here on private */
    const ballast_implementation *implementation;
    ballast_status status;
    case_data data; /* the first rows of the contest's, for who runs no more */
    case_results results;
    const baseline *baseline;
    slice slices[CONTEST_THREADS];
    enum { READ, COPY, STREAM_COPY, SCALE } limit;
} entrant;

struct contest {
    case_data data;
    case_results results;
    const ballast_parallel *parallel;
    int threads;
    int count;
    entrant entrants[MEASURE_CONTENDERS]; /* the first: Ballast, fastest or as wanted */
    contender contenders[MEASURE_CONTENDERS];
    char notes[MEASURE_CONTENDERS][CONTEST_TEXT]; /* who was refused, and why */
    int note_count;
    void (*put_in_force)(int tuned); /* NULL: nobody is tuned */
};

typedef struct contest_options {
    const ballast_implementation *implementation; /* this alone; NULL: the fastest, and others */
    const ballast_parallel *parallel;             /* NULL: this thread */
    int baselines, limits;                        /* 1: with them */
} contest_options;

/* Makes the arrays and finds who takes part. A baseline whose result is not Ballast's is refused,
 * with a note. The contest must not move while it is open. Returns 1; or 0, closed, with the reason
 * in `message`. */
int contest_open(const problem *p, const contest_options *o, contest *c, char *message,
                 size_t size);
void contest_close(contest *c);

/* Lets a baseline take part. 0 where it cannot do this case, or is refused, which leaves a note. */
int contest_add(contest *c, const char *name, const baseline *b);

/* Lets Ballast take part a second time, as "ballast tuned", with what `put_in_force(1)` puts in
 * force, while the first entrant is measured with `put_in_force(0)`. */
void contest_add_tuned(contest *c, void (*put_in_force)(int tuned));

/* 0 where it has no elements, or there is not memory enough, with the reason in `message`. */
int contest_can_be_measured(const problem *p, char *message, size_t size);

/* About as many bytes as contest_open takes. */
double contest_memory(const problem *p);

#endif
