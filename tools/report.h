/* SPDX-License-Identifier: MIT */
/* A benchmark run as one HTML file that needs nothing else: no script, no font, no network. Light
 * and dark, on a phone and on paper. It is well-formed XML, so other programs can read it too. */
#ifndef BALLAST_TOOLS_REPORT_H
#define BALLAST_TOOLS_REPORT_H

#include <stdio.h>

/* One contender on one problem. A number that is not known is 0; NaN and infinities count as
 * unknown. Texts are UTF-8; NULL is an empty text. */
typedef struct bench_result {
    const char *suite, *problem;   /* "growth", "cross_entropy:f32:rows=50,classes=1000" */
    const char *operation, *dtype; /* parsed from the problem */
    const char *contender;         /* "ballast", "scalar", "fast-math", "sleef", "onednn",
                                    * "copy", "stream copy", "read", "scale" */
    const char *isa;               /* of ballast's own; "" otherwise */
    const char *pages;             /* "4k" or "huge" */
    int threads;
    double rows, classes, elements, bytes;  /* bytes: necessary traffic */
    double ns_per_element, cycles_per_element, least_cycles_per_element;
    double gigabytes_per_second;
    double roofline;               /* attained fraction of that measured in the same run */
    double flops_per_element;      /* FMA-class operations */
    double ratio, ratio_low, ratio_high; /* time over ballast's: median and 95 % interval */
    int is_roofline;               /* copy, read, ...: a limit, not a competitor */
    int repetition;                /* from 0 */
} bench_result;

/* Where it ran, and how to run it again. Bandwidths and the peak are those of one core. */
typedef struct bench_machine {
    const char *cpu, *isa, *compiler, *version, *date, *command, *features;
    double clock_ghz, peak_flops_per_cycle;
    double level_gbps[4]; /* L1, L2, L3, memory: measured read bandwidth and size */
    double level_bytes[4];
    const char *level_name[4];
    int cores; unsigned long long seed;
} bench_machine;

/* Writes a self-contained page. Returns 0, or -1 with errno. */
int report_write(FILE *out, const bench_machine *m, const bench_result *results, int count);

#endif
