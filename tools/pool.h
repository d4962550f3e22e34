/* SPDX-License-Identifier: MIT */
/* Threads for the library: pthreadpool where the tool is built with it, else the calling thread. */
#ifndef BALLAST_TOOLS_POOL_H
#define BALLAST_TOOLS_POOL_H

#include "ballast/ballast.h"

#include <stdbool.h>

typedef struct pool {
    ballast_parallel parallel; /* parallel.threads: how many there are, >= 1 */
    bool spins; /* the caller's to set: workers spin after a call, and the next finds them awake */
    void *handle; /* private */
} pool;

/* threads: >= 1, or 0 for the default, the cores that this process may use.  Fewer than asked for
 * where the system gives no more.  The pool must not move while it is open. */
void pool_open(pool *p, int64_t threads);
void pool_close(pool *p);

/* Other threads, where it has not as many.  True where they are others now. */
bool pool_adapt(pool *p, int64_t threads);

/* "pthreadpool" or "none". */
const char *pool_kind(void);

#endif
