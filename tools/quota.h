/* SPDX-License-Identifier: MIT */
/* How much CPU this process may use: its affinity, and the quota of its control groups (v1, v2),
 * which is what limits a container and which no list of CPUs shows. */
#ifndef BALLAST_TOOLS_QUOTA_H
#define BALLAST_TOOLS_QUOTA_H

typedef struct quota {
    int cpus;      /* hardware threads that it may run on, >= 1 */
    int cores;     /* and the cores that they belong to, >= 1 */
    double limit;  /* CPUs' worth of time; 0: no limit */
    char group[256]; /* the control group that sets the limit; "" for none */
} quota;

/* root: "" for this system; another folder for a test's own /proc and /sys. */
void quota_read(const char *root, quota *q);

/* Threads worth starting: the cores, but no more than the quota feeds, as a thread beyond it stops
 * all of them for the rest of the period. */
int quota_threads(const quota *q);

#endif
