/* SPDX-License-Identifier: MIT */
/* Threads for tests and tools that have no pool: each run starts them and waits for their end. */
#ifndef BALLAST_BENCH_THREADS_H
#define BALLAST_BENCH_THREADS_H

#include "ballast/ballast.h"

/* Lends `threads` threads, the caller's among them. */
ballast_parallel threads_to_lend(int64_t threads);

#endif
