/* SPDX-License-Identifier: MIT */
/* The machine that a report is about. */
#ifndef BALLAST_TOOLS_BENCH_MACHINE_H
#define BALLAST_TOOLS_BENCH_MACHINE_H

#include "report.h"

/* Measures the peak and the bandwidth of every level of memory on one core: half a second. Texts
 * are valid until the next call. */
void bench_machine_read(bench_machine *m, int argc, char **argv);

#endif
