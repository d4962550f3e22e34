/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_TOOLS_BOUND_POOL_H
#define BALLAST_TOOLS_BOUND_POOL_H

#include "pool.h"
#include "topology.h"

/* Binds each thread, the caller's too, to a core of its own, to measure: the system wakes a thread on
 * the core of the one that wakes it at times, and both wait for each other.  False where they are not
 * all bound, for want of cores or of permission. */
bool pool_bind(const pool *p, const topology_cores *cores);

#endif
