/* SPDX-License-Identifier: MIT */
/* What `ballast tune` measures: for each operation, dtype and class of shapes the problems that
 * stand for it. */
#ifndef BALLAST_TOOLS_TUNE_CASES_H
#define BALLAST_TOOLS_TUNE_CASES_H

#include "../bench/cases.h"
#include "../dispatch/tuning.h"

#include <stdbool.h>

enum { TUNE_PROBLEMS = 4, TUNE_CASES = 1024, TUNE_NAME = 96 };

typedef struct tune_problem {
    problem p;
    char text[PROBLEM_TEXT];
} tune_problem;

/* ways: a bit for each choice_kind that these kernels have for these rows, next to tasks and ISAs. */
typedef struct tune_case {
    tuned_case where;
    char name[TUNE_NAME]; /* "softmax:f32:classes=short,data=L2,rows=many" */
    unsigned ways;
    int problem_count; /* 1 at least */
    tune_problem problems[TUNE_PROBLEMS];
} tune_case;

typedef struct tune_cases {
    int count;
    tune_case cases[TUNE_CASES];
} tune_cases;

/* All that can exist on this machine, the most used first. filter: only names, or problems, with
 * this text in it; NULL for all. cache: bytes of the last one in truth (caches.h), which need not be
 * what the library takes it for. */
void tune_cases_make(const char *filter, int64_t cache, tune_cases *out);

/* Of one shape. False where it cannot exist. */
bool tune_case_make(tuned_case where, int64_t cache, tune_case *out);

#endif
