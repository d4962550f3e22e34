/* SPDX-License-Identifier: MIT */
#include "threads.h"

#include <pthread.h>
#include <stdatomic.h>

enum { MAX_THREADS = 64 };

typedef struct work {
    void (*task)(void *arg, int64_t index);
    void *arg;
    int64_t tasks;
    _Atomic int64_t next;
} work;

static void *do_tasks(void *context)
{
    work *w = context;

    for (int64_t i = atomic_fetch_add(&w->next, 1); i < w->tasks; i = atomic_fetch_add(&w->next, 1))
        w->task(w->arg, i);
    return NULL;
}

/* A thread that cannot be started is one fewer: its tasks are done by the others. */
static void run(void *context, int64_t tasks, void (*task)(void *arg, int64_t index), void *arg)
{
    const int64_t threads = (int64_t)(intptr_t)context;
    work w = {task, arg, tasks, 0};
    pthread_t started[MAX_THREADS];
    int count = 0;

    while (count + 1 < threads && count < MAX_THREADS
           && pthread_create(&started[count], NULL, do_tasks, &w) == 0)
        count++;
    do_tasks(&w);
    while (count > 0)
        pthread_join(started[--count], NULL);
}

ballast_parallel threads_to_lend(int64_t threads)
{
    const ballast_parallel parallel = {(void *)(intptr_t)threads, run, threads};

    return parallel;
}
