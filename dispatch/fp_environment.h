/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_DISPATCH_FP_ENVIRONMENT_H
#define BALLAST_DISPATCH_FP_ENVIRONMENT_H

#include "cpu.h"

/* Calls work(arg) with IEEE arithmetic: to nearest, gradual underflow, nothing trapped. Afterwards
 * the control and status words of the calling thread are what they were, sticky flags included.
 * All arithmetic of the library runs inside, so results pass through memory, never in registers. */
void ballast__guarded(void (*work)(void *arg), void *arg);

/* What is fast on that CPU; until it is said, what is right on any. */
void ballast__fp_environment_begin(const ballast__cpu *cpu);

#endif
