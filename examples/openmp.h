/* SPDX-License-Identifier: MIT */
/* OpenMP threads for Ballast: compile with -fopenmp and set `parallel` of a ballast_exec.
 *
 *   const ballast_parallel threads = ballast_openmp();
 *   ballast_exec exec = BALLAST_EXEC;
 *   exec.parallel = &threads; */
#ifndef BALLAST_EXAMPLES_OPENMP_H
#define BALLAST_EXAMPLES_OPENMP_H

#include <ballast/ballast.h>
#include <omp.h>

static inline void ballast_openmp_run(void *context, int64_t tasks,
                                      void (*task)(void *arg, int64_t index), void *arg)
{
    (void)context;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < tasks; i++)
        task(arg, i);
}

/* As many threads as OpenMP would start here: OMP_NUM_THREADS, omp_set_num_threads. */
static inline ballast_parallel ballast_openmp(void)
{
    ballast_parallel p = {NULL, ballast_openmp_run, omp_get_max_threads()};
    return p;
}

#endif
