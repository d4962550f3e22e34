/* SPDX-License-Identifier: MIT */
/* What the sections of the report share. One file draws one section. */
#ifndef BALLAST_TOOLS_REPORT_PARTS_H
#define BALLAST_TOOLS_REPORT_PARTS_H

#include "report.h"
#include "axis.h"

#include <stdbool.h>

/* Which line of the growth plots a result belongs to. */
typedef enum growth {
    GROWTH_NONE,
    GROWTH_CLASSES, /* the same number of elements in ever longer rows */
    GROWTH_ROWS     /* ever more rows of the same length */
} growth;

enum { LEVELS = 4, ROOF_BOXES = 100 };

/* Where a line of a growth plot ends, and the height of its name. */
typedef struct line_end {
    const bench_result *result;
    point at;
    double name;
} line_end;

typedef struct report {
    FILE *out;
    const bench_machine *machine;
    const bench_result *results;
    growth *growth; /* of each result */
    int count;

    /* Room for a drawing, as much as it can need: */
    const bench_result **group; /* its results, at most all */
    point *points;              /* a curve through them */
    line_end *ends;             /* of the curves */
    box *boxes;                 /* where a marker and a label of each stand, and ROOF_BOXES more */
} report;

/* ---- Sections, in their order ---------------------------------------------------------------- */

void report_style(FILE *out);
void report_ratios(const report *);
void report_roofline(const report *);
void report_bars(const report *);
void report_growth(const report *);

/* Says for each result whether it belongs to a line of the growth plots. Such results are left out
 * where every problem has a drawing of its own: they would bury the others. */
void report_find_growth(report *p);

/* ---- Numbers --------------------------------------------------------------------------------- */

enum { NUMBER_SIZE = 32, LABEL_SIZE = 96 };

/* Measured: neither 0, which says unknown, nor NaN nor infinite. */
bool is_known(double v);

/* Three digits after the point at most, four in all; a dash for what is not known. */
void format_number(char text[NUMBER_SIZE], double v);
void print_number(FILE *out, double v);
void print_cell(FILE *out, double v);
void print_percent_cell(FILE *out, double fraction);

/* "3.41 [3.32, 3.50]" */
void print_ratio(FILE *out, const bench_result *r);

/* In full as long as it is short: 8192, but 1M. */
void format_count(char text[TICK_SIZE], double v);

/* "512 KiB" */
void format_bytes(char text[NUMBER_SIZE], double bytes);

/* ---- Results --------------------------------------------------------------------------------- */

/* NULL is "". */
int compare_text(const char *a, const char *b);
bool same_text(const char *a, const char *b);

bool is_ballast(const bench_result *r);

/* Timed together: the same suite, problem, threads and pages. */
bool same_case(const bench_result *a, const bench_result *b);

/* Style class and marker of a contender, the same in every section. */
const char *contender_class(const bench_result *r);
marker contender_marker(const bench_result *r);

/* "ballast avx2, 2 threads"; cut off where it is too long. The page size is left to the caller. */
void contender_label(char text[LABEL_SIZE], const bench_result *r, bool with_threads);

/* "2 threads, 4k pages" */
void print_setting(FILE *out, const bench_result *r);

/* Puts the results that are the same as result `first` into the group. Returns how many, and 0
 * where an earlier result was the same already, so that a walk over all results meets each group
 * once. */
typedef bool same_results(const report *p, int i, int j);
int report_gather(const report *p, int first, same_results *same);

/* ---- Problem strings ------------------------------------------------------------------------- */

/* In full, with leave to break a line after a comma. */
void print_problem(FILE *out, const char *problem);

/* A problem without its sizes and threads: cross_entropy:f32:outputs=loss. */
bool same_variant(const char *a, const char *b);
void print_variant(FILE *out, const char *problem);

/* "cross_entropy 50×1000 loss"; cut off where it is too long. */
void problem_label(char text[LABEL_SIZE], const bench_result *r);

#endif
