/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_DISPATCH_IMPLEMENTATION_H
#define BALLAST_DISPATCH_IMPLEMENTATION_H

#include "../kernels/kernels.h"
#include "ballast/ballast.h"
#include "cpu.h"

#include <stdbool.h>

struct ballast_implementation {
    ballast__isa isa;
    const kernel_table *f32, *bf16, *f16;
    double slowness; /* about how many times the cycles that AVX2 takes */
};

/* Of the f64 kernels, which are the same for all. */
#define F64_SLOWNESS 16.0

/* The one to use where the caller names `wanted`, or none (NULL). NULL where this machine cannot
 * run it. Cheap after the first call of the process; safe from any thread. */
const ballast_implementation *
ballast__implementation_resolve(const ballast_implementation *wanted);

/* The one of that ISA, where nobody said which: neither BALLAST_ISA nor set_default. Else, and where
 * this machine cannot run it, the default one. */
const ballast_implementation *ballast__implementation_tuned(ballast__isa isa);

/* The ISAs whose implementation runs here: a bit for each. */
unsigned ballast__isas(void);

#endif
