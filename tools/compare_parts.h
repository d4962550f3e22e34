/* SPDX-License-Identifier: MIT */
/* The two ways to compare: libraries, and files of earlier runs. */
#ifndef BALLAST_TOOLS_COMPARE_PARTS_H
#define BALLAST_TOOLS_COMPARE_PARTS_H

#include "bench_cases.h"
#include "compare_result.h"

enum { COMPARE_LOADS = 100 };

typedef struct compare_settings {
    bench_selection selection;
    const char *isa; /* NULL: what each library takes by default */
    double seconds; /* for each case */
    int64_t loads;  /* of the libraries, at most COMPARE_LOADS */
    bool bits, quiet;
} compare_settings;

/* Fill in everything but effect, level and verdicts. Return 0; or an exit code, where a line about
 * what is wrong was printed. */
int compare_libraries(const compare_settings *s, comparisons *out);
int compare_runs(comparisons *out);

#endif
