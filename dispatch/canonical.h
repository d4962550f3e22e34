/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_DISPATCH_CANONICAL_H
#define BALLAST_DISPATCH_CANONICAL_H

#include <math.h>

/* CPUs differ in the sign and the digits of the NaN that they make; results have the quiet one. */
static inline double canonical(double x) { return x == x ? x : (double)NAN; }

#endif
