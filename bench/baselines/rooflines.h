/* SPDX-License-Identifier: MIT */
/* What the machine can do at best with the same bytes: limits, not competitors. */
#ifndef BALLAST_BENCH_ROOFLINES_H
#define BALLAST_BENCH_ROOFLINES_H

#include <stddef.h>

/* `bytes` are those of one array, a multiple of 64; arrays stand on multiples of 64. */
void roofline_read(const void *from, size_t bytes);
void roofline_copy(void *to, const void *from, size_t bytes);
void roofline_scale(void *array, size_t bytes); /* in place, floats by 1 */

/* With stores that pass the caches by. Returns 0, and does nothing, where there are none. */
int roofline_stream_copy(void *to, const void *from, size_t bytes);

/* `steps` rounds of fused multiply-additions in independent registers; how many, of floats. */
double roofline_multiply_add(long steps);

/* Whether this CPU has what -march=native meant on the machine that built this. */
int native_code_runs(void);

#endif
