/* SPDX-License-Identifier: MIT */
/* Batch by batch: the states of all chunks, in tasks; the rows they make up, here; the outputs, in
 * tasks again. A batch is as many rows as there is room for on the stack. */
#include "shared_rows.h"

#include "fp_environment.h"

#include <string.h>

void ballast__plan_sharing(plan *p, const shared_kernel *kernel, int64_t classes, bool outputs)
{
    p->shared = kernel;
    p->shared_chunks = classes / CHUNK + (classes % CHUNK != 0);
    p->shared_outputs = outputs;
}

bool ballast__can_share(const plan *p)
{
    return p->shared && p->shared->states && p->shared_chunks <= SHARED_CHUNKS &&
           p->shared_chunks >= ballast__chosen(p->tuning, CHOOSE_SHARE);
}

typedef void chunks_function(const void *job, shared_rows *, int64_t begin, int64_t end);

/* One batch, as it passes through tasks and guard. */
typedef struct batch {
    const shared_kernel *kernel;
    const void *job;
    shared_rows rows;
    chunks_function *work; /* of the tasks */
    int64_t chunks, tasks;
} batch;

typedef struct chunk_task {
    batch *b;
    int64_t begin, end;
} chunk_task;

static void guarded_chunks(void *arg)
{
    const chunk_task *t = arg;

    t->b->work(t->b->job, &t->b->rows, t->begin, t->end);
}

static void guarded_combine(void *arg)
{
    batch *b = arg;

    b->kernel->combine(b->job, &b->rows);
}

static void run_task(void *arg, int64_t index)
{
    batch *b = arg;
    chunk_task t = {b, ballast__cut(b->chunks, b->tasks, index),
                    ballast__cut(b->chunks, b->tasks, index + 1)};

    ballast__guarded(guarded_chunks, &t);
}

static void run_chunks(batch *b, const ballast_parallel *parallel, chunks_function *work)
{
    b->work = work;
    parallel->run(parallel->context, b->tasks, run_task, b);
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t ballast__shared_batch(const plan *p)
{
    return smaller(SHARED_CHUNKS / p->shared_chunks, SHARED_ROWS);
}

void ballast__run_shared(const plan *p, double *partial, const ballast_parallel *parallel,
                         int64_t most_tasks)
{
    const int64_t size = ballast__shared_batch(p);
    cross_entropy_job loss;
    batch b;

    b.kernel = p->shared;
    b.job = &p->job;
    if (p->result) { /* of the operations that share rows, one reduces */
        loss = p->job.cross_entropy;
        loss.rows.partial = partial;
        b.job = &loss;
    }
    b.rows.row_count = p->row_count;
    b.rows.chunks = p->shared_chunks;
    memset(b.rows.leaf, 0, sizeof b.rows.leaf);
    for (int64_t begin = 0; begin < p->row_count; begin = b.rows.end) {
        b.rows.begin = begin;
        b.rows.end = smaller(begin + size, p->row_count);
        b.chunks = (b.rows.end - begin) * p->shared_chunks;
        b.tasks = smaller(b.chunks, most_tasks);
        run_chunks(&b, parallel, b.kernel->states);
        ballast__guarded(guarded_combine, &b);
        if (p->shared_outputs)
            run_chunks(&b, parallel, b.kernel->outputs);
    }
}
