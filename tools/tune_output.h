/* SPDX-License-Identifier: MIT */
/* Results of `ballast tune` as a table, as JSON, and as a page. */
#ifndef BALLAST_TOOLS_TUNE_OUTPUT_H
#define BALLAST_TOOLS_TUNE_OUTPUT_H

#include "caches.h"
#include "output.h"
#include "tune_measure.h"

#include <stdio.h>

/* What was measured, case by case. Where no candidate does anything else there is no result. */
typedef struct tune_results {
    const char *path; /* of the profile; NULL: none was written */
    bool entries;     /* of a profile, measured again */
    bool interrupted; /* by Ctrl-C or a signal */
    caches caches;
    int threads;
    bool bound;                                    /* each to a core */
    double seconds;                                /* that it took */
    int case_count, cases_measured, cases_refused; /* refused: cannot be run here */
    int count;
    tune_result results[TUNE_CASES * CHOICES];
} tune_results;

void tune_print(const tune_results *r);
void tune_write_json(FILE *out, const tune_results *r);

/* A page that needs nothing else, with the candidates drawn. */
void tune_write_html(FILE *out, const tune_results *r);

/* For all of these. */
const char *tune_verdict_name(tune_verdict v);
void tune_format_interval(char text[CELL_SIZE], const tune_trial *t); /* "0.934  [0.921, 0.947]" */

/* Entries that were measured again. */
bool tune_is_stale(const tune_result *r);
void tune_print_check(const tune_results *r);

#endif
