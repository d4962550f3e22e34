/* SPDX-License-Identifier: MIT */
/* Which cases `ballast bench` and `ballast compare` measure, and how far they are. */
#ifndef BALLAST_TOOLS_BENCH_CASES_H
#define BALLAST_TOOLS_BENCH_CASES_H

#include "../bench/cases.h"
#include "options.h"

#include <stdbool.h>

enum { BENCH_CASES = 256 };

typedef struct bench_selection {
    const char *named[BENCH_CASES]; /* by --problem; else a suite's */
    int named_count;
    const char *suite, *filter; /* filter: NULL for none */
    bool suite_given;
    int64_t threads;            /* 0: as the problem says */
} bench_selection;

typedef struct bench_case {
    const char *suite; /* "" where named */
    problem p;
    char text[PROBLEM_TEXT];
} bench_case;

typedef struct bench_cases {
    bench_case cases[BENCH_CASES];
    int count;
} bench_cases;

/* The help of the options --problem, --suite, --filter and --threads, and what the first two do. */
#define BENCH_PROBLEM_HELP                                                                        \
    "measure this case, such as cross_entropy:f32:rows=50,classes=1000 (may be repeated; ballast "   \
    "check --help tells of problems)"
#define BENCH_SUITE_HELP "these cases: quick (the default), cache, memory, growth, or all"
#define BENCH_FILTER_HELP "only cases whose problem has this text in it"
#define BENCH_THREADS_HELP                                                                        \
    "threads to lend to each call (default: as many as the problem says, one for those of the suites)"
bool bench_add_problem(const options *o, bench_selection *s);
bool bench_choose_suite(const options *o, bench_selection *s);

/* The value of --seconds. */
bool bench_seconds(const options *o, double *seconds);

/* False where there is none, or one is wrong: a line about it was printed. */
bool bench_choose(const bench_selection *s, bench_cases *out);

int bench_list(const bench_cases *all);

/* On a terminal, unless `quiet`: one line that is written over. Cleared before anything else is. */
void bench_show_progress(bool quiet, const bench_cases *all, int i);
void bench_clear_progress(bool quiet);

#endif
