/* SPDX-License-Identifier: MIT */
/* What `ballast compare` found, and how it is told. */
#ifndef BALLAST_TOOLS_COMPARE_RESULT_H
#define BALLAST_TOOLS_COMPARE_RESULT_H

#include "../bench/cases.h"

#include <stdbool.h>
#include <stdio.h>

enum { EXIT_UNCLEAR = 3 };

typedef enum verdict {
    VERDICT_SAME,    /* whatever the difference is, it is no regression of the effect asked for */
    VERDICT_FASTER,  /* by the effect at least, and not by chance */
    VERDICT_SLOWER,  /* the same to the other side */
    VERDICT_UNCLEAR, /* neither: too noisy, or too few runs */
    VERDICT_ABSENT,  /* only one of them has it */
    VERDICT_BROKEN   /* the old one does it, the new one refuses */
} verdict;

typedef enum bits { BITS_NOT_COMPARED, BITS_EQUAL, BITS_DIFFERENT } bits;

typedef struct comparison {
    char name[PROBLEM_TEXT];
    double ns[2];              /* of one call, old and new; 0: unknown */
    double ratio, low, high;   /* new time over old, and its 95 % interval */
    double p;                  /* adjusted for the number of cases */
    int runs;                  /* loads of the libraries, or repetitions of the one with fewer */
    verdict verdict;
    bits bits;
    char note[160];            /* where bits differ, or why there is nothing to tell */
} comparison;

enum { COMPARE_WARNINGS = 8, COMPARE_TEXT = 256 };

typedef struct comparisons {
    const char *path[2];
    char version[2][64], isa[2][32]; /* "" unknown */
    const char *kind;                /* "libraries" or "runs" */
    double effect, level;            /* 0.03; 0.01 */
    comparison *cases;
    int count;
    int problems_compared, problems_different; /* for their bits alone */
    char bits_note[COMPARE_TEXT]; /* the first that differs; "" */
    char warnings[COMPARE_WARNINGS][COMPARE_TEXT];
    int warning_count;
} comparisons;

/* Printf-like; forgotten where there are too many. */
void compare_warn(comparisons *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* After p of every case is there: adjusts it, and gives a verdict to those that have times. */
void compare_judge(comparisons *c);

/* 1 where something is slower, refused or has other bits, else 3 where something is unclear. */
int compare_exit_code(const comparisons *c);

const char *verdict_name(verdict v);

void compare_print(const comparisons *c);
void compare_write_json(FILE *out, const comparisons *c);
void compare_write_markdown(FILE *out, const comparisons *c);
int compare_write_html(FILE *out, const comparisons *c); /* 0, or -1 */

#endif
