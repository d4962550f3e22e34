/* SPDX-License-Identifier: MIT */
/* What made a measurement on a shared machine worth less: other jobs on the same cores, time that a
 * hypervisor gave to others, and a clock that changed. */
#ifndef BALLAST_TOOLS_NOISE_H
#define BALLAST_TOOLS_NOISE_H

#include <stdbool.h>
#include <stdint.h>

/* Numbers are 0 where /proc does not say. */
typedef struct noise_mark {
    uint64_t stolen, all; /* ticks of all CPUs */
    uint64_t ran, waited; /* ns of this process's threads: on a core, and ready but without one */
    double cycle;         /* seconds, at its fastest */
} noise_mark;

/* stolen: share of the CPUs' time. waited: share of the time in which threads were ready to run.
 * drift: of the clock, 0.05 for 5 %. */
typedef struct noise {
    double stolen, waited, drift;
    bool too_much; /* more than a tenth stolen or waited, or more than 5 % of drift */
} noise;

noise_mark noise_begin(void);
noise noise_since(const noise_mark *begin);

#endif
