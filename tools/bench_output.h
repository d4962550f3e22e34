/* SPDX-License-Identifier: MIT */
/* Results of `ballast bench` as a table and as JSON. */
#ifndef BALLAST_TOOLS_BENCH_OUTPUT_H
#define BALLAST_TOOLS_BENCH_OUTPUT_H

#include "report.h"

#include <stdint.h>

void bench_print_heads(int64_t seed, const char *pages);

/* The results of one problem. */
void bench_print(const bench_result *results, int count);

/* In the layout of Google Benchmark's JSON reporter, so that its tools read it. */
void bench_write_json(FILE *out, const bench_result *results, int count);

#endif
