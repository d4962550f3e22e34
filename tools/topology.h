/* SPDX-License-Identifier: MIT */
/* What the machine is made of: from hwloc where the tool is built with it, else from /sys. */
#ifndef BALLAST_TOOLS_TOPOLOGY_H
#define BALLAST_TOOLS_TOPOLOGY_H

#include <stdbool.h>
#include <stdint.h>

enum { TOPOLOGY_CACHES = 8 };

typedef struct topology_cache {
    int level;
    char kind; /* 'd' data, 'i' instructions, 'u' both */
    int64_t bytes;
    int line;  /* bytes; 0: unknown */
    int count; /* such caches in the machine; those of unlike size count apart */
} topology_cache;

/* Numbers are 0 where unknown. */
typedef struct topology {
    char source[16]; /* "hwloc" or "/sys" */
    int packages, cores, cpus, numa_nodes;
    int64_t memory; /* bytes */
    int cache_count;
    topology_cache caches[TOPOLOGY_CACHES];
} topology;

/* With hwloc this costs some 10 ms. */
void topology_read(topology *t);

/* ---- Threads on cores ------------------------------------------------------------------------ */

/* The cores that this process may use, to bind threads to while something is measured. */
typedef struct topology_cores {
    int count; /* 0: threads cannot be bound here */
    void *handle; /* private */
} topology_cores;

void topology_cores_open(topology_cores *c);
void topology_cores_close(topology_cores *c);

/* Binds the calling thread to the `index`-th core; beyond the last it is the first again. */
bool topology_bind(const topology_cores *c, int index);

#endif
