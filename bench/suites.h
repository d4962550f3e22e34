/* SPDX-License-Identifier: MIT */
/* Lists of problems worth measuring. */
#ifndef BALLAST_BENCH_SUITES_H
#define BALLAST_BENCH_SUITES_H

typedef struct suite {
    const char *name, *about;
    const char *const *problems; /* ends with NULL */
} suite;

const suite *suite_at(int index); /* NULL past the last */

#endif
