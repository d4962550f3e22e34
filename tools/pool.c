/* SPDX-License-Identifier: MIT */
#include "pool.h"

#include "quota.h"

#include <stddef.h>

static void run_serially(void *context, int64_t tasks, void (*task)(void *arg, int64_t index),
                         void *arg)
{
    (void)context;
    for (int64_t i = 0; i < tasks; i++)
        task(arg, i);
}

static int64_t wanted_threads(int64_t threads)
{
    quota q;
    if (threads > 0)
        return threads;
    quota_read("", &q);
    return quota_threads(&q);
}

#if HAVE_PTHREADPOOL
#include <pthread.h>
#include <pthreadpool.h>
#include <stdlib.h>

typedef struct call {
    void (*task)(void *arg, int64_t index);
    void *arg;
} call;

static void run_one(void *context, size_t index)
{
    const call *c = context;
    c->task(c->arg, (int64_t)index);
}

/* Workers sleep after the call unless told to spin: between slices the tool waits for the disk. Two
 * empty tasks took 5.5 us so, 1 us with workers that spin; but these spin for up to 20 ms, and a call
 * waits as long for one that lost its core (AMD Zen 3, 2 virtual CPUs, other work beside). */
static void run_in_pool(void *context, int64_t tasks, void (*task)(void *arg, int64_t index),
                        void *arg)
{
    const pool *p = context;
    call c = {task, arg};

    pthreadpool_parallelize_1d(p->handle, run_one, &c, (size_t)tasks,
                               p->spins ? 0 : PTHREADPOOL_FLAG_YIELD_WORKERS);
}

static void *wait_at(void *gate)
{
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

/* As many as can be started, the caller among them. pthreadpool (of 2021) does not look whether its workers
 * were: it waits for ever for one that the system would not give. */
static int64_t threads_to_be_had(int64_t wanted)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_t *thread = malloc((size_t)wanted * sizeof *thread);
    int64_t n = 0;

    if (!thread)
        return 1;
    pthread_mutex_lock(&gate);
    while (n < wanted - 1 && pthread_create(&thread[n], NULL, wait_at, &gate) == 0)
        n++;
    pthread_mutex_unlock(&gate);
    for (int64_t i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    free(thread);
    return n + 1;
}

void pool_open(pool *p, int64_t threads)
{
    threads = threads_to_be_had(wanted_threads(threads));
    p->spins = false;
    p->handle = threads > 1 ? pthreadpool_create((size_t)threads) : NULL;
    p->parallel.context = p;
    p->parallel.run = p->handle ? run_in_pool : run_serially;
    p->parallel.threads = p->handle ? (int64_t)pthreadpool_get_threads_count(p->handle) : 1;
}

void pool_close(pool *p)
{
    if (p->handle)
        pthreadpool_destroy(p->handle);
    p->handle = NULL;
}

const char *pool_kind(void) { return "pthreadpool"; }

#else

void pool_open(pool *p, int64_t threads)
{
    (void)wanted_threads(threads);
    *p = (pool){.parallel = {NULL, run_serially, 1}};
}

void pool_close(pool *p) { (void)p; }

const char *pool_kind(void) { return "none"; }

#endif

bool pool_adapt(pool *p, int64_t threads)
{
    if (p->parallel.threads == threads)
        return false;
    const bool spins = p->spins;
    pool_close(p);
    pool_open(p, threads);
    p->spins = spins;
    return true;
}
