/* SPDX-License-Identifier: MIT */
/* How large the last cache is: as told, and as reads show it. Virtual machines tell of none, or of
 * the whole socket's, of which others have their part. */
#ifndef BALLAST_TOOLS_CACHES_H
#define BALLAST_TOOLS_CACHES_H

#include <stdbool.h>
#include <stdint.h>

/* Reads of growing arrays, again and again: sizes in steps of the square root of two. */
enum { CACHES_POINTS = 23 };
typedef struct caches_point {
    int64_t bytes;
    double gbps;
} caches_point;

/* Bytes; 0 where nobody says. */
typedef struct caches {
    int64_t l2;       /* as the CPU says, or else the operating system */
    int64_t cpu, os;  /* the last cache, as either says */
    int64_t taken;    /* as the library takes it: classes of data go by it */
    int64_t measured; /* beyond so much reads slow down; 0: not measured, or not to be seen */
    int64_t real;     /* what to believe */
    int64_t memory;   /* of the machine */
    int count;
    caches_point points[CACHES_POINTS]; /* as measured */
} caches;

/* What is told; some 10 ms. */
void caches_read(caches *c);

/* And what is measured, in about so many seconds: 0.3 at least, one does well. Ends early where the
 * process is interrupted. */
void caches_measure(caches *c, double seconds);

/* Reads a word of each line. */
void caches_touch(const char *from, int64_t bytes);

/* The size beyond which reads are no longer those of the cache behind L2, but of memory; l2: 0
 * where unknown. 0 where no such step is to be seen. */
int64_t caches_knee(const caches_point *points, int count, int64_t l2);

/* Of sizes as told and measured: what to believe. */
int64_t caches_believed(const caches *c);

/* Whether a is at least twice b, or b twice a. */
bool caches_differ(int64_t a, int64_t b);

/* Whether the CPU, the operating system and the measurement differ, as far as they say anything. */
bool caches_disagree(const caches *c);

#endif
