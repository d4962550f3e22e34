/* SPDX-License-Identifier: MIT */
/* The contenders of a problem, as C++ sees them. */
#ifndef BALLAST_BENCH_GOOGLE_MEASURED_H
#define BALLAST_BENCH_GOOGLE_MEASURED_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The i-th problem of all suites, each once; NULL past the last. */
const char *measured_problem(int i);

/* The i-th who may take part in it; NULL past the last, or where it is no problem. */
const char *measured_contender(const char *problem, int i);

/* Why a text is no problem, in `message`; 1: it is one. */
int measured_is_problem(const char *text, char *message, size_t size);

/* What one contender does. */
typedef struct measured {
    void (*run)(void *context);
    void *context;
    double elements, bytes; /* of one run */
    char message[512];      /* of failure: why */
} measured;

/* Returns 0, with a message, where it does not take part after all. The arrays of the last problem
 * are kept until another is asked for. */
int measured_find(const char *problem, const char *contender, measured *out);
void measured_end(void);

/* 1: 2 MiB pages; 0: 4 KiB. */
void measured_pages(int huge);

double measured_now(void);   /* seconds */
double measured_cycle(void); /* seconds of one cycle of the clock */

#ifdef __cplusplus
}
#endif
#endif
