/* SPDX-License-Identifier: MIT */
/* Prepare, rows, finish; and the call that is made of the three.
 *
 * Sums over rows have two levels. Leaves are runs of rows whose length follows from the number of
 * rows alone, so that no split changes them; kernels sum within a leaf. The leaves are added here,
 * as a tree that follows from their number alone: neighbours first, (0 + 1) + (2 + 3), then
 * neighbours of those; one without a neighbour waits for the next level. */
#include "plan.h"

#include "canonical.h"
#include "fp_environment.h"

#define PREPARED UINT64_C(0x706c616e20312e30)

/* A task below this many elements costs more to hand out than it saves: about 10 us of work. */
enum { TASK_ELEMENTS = 32768 };

/* Enough tasks for threads to even out, few enough to hand out. */
enum { TASKS_PER_THREAD = 4 };

/* ---- Leaves ---------------------------------------------------------------------------------- */

static int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

void ballast__plan_rows(plan *p, int64_t row_count, int64_t row_elements)
{
    p->row_count = row_count;
    p->row_step = 1;
    p->row_elements = row_elements > 0 ? row_elements : 1;
    p->result = NULL;
}

void ballast__plan_reduction(plan *p, double *result, int64_t unit)
{
    const int64_t units = ceil_div(p->row_count, unit * MAX_LEAVES);

    p->row_step = unit * (units > 0 ? units : 1);
    p->result = result;
}

int64_t ballast__leaf_count(const plan *p) { return ceil_div(p->row_count, p->row_step); }

/* The left half is the largest power of two that leaves something on the right. */
static double sum_tree(const double *values, int stride, int64_t count)
{
    int64_t half = 1;

    if (count == 1)
        return values[0];
    while (half * 2 < count)
        half *= 2;
    const double left = sum_tree(values, stride, half);
    return left + sum_tree(values + half * stride, stride, count - half);
}

double ballast__sum_leaves(const plan *p, int stride, int part)
{
    const int64_t leaves = ballast__leaf_count(p);

    return leaves > 0 ? sum_tree(p->partial + part, stride, leaves) : 0.0;
}

/* ---- The three pieces, inside the guard ------------------------------------------------------ */

static void run_rows(plan *p, int64_t begin, int64_t end)
{
    if (begin < end)
        p->rows(p, p->result ? p->partial : NULL, begin, end);
}

static void store_result(const plan *p)
{
    if (p->result)
        *p->result = canonical(p->reduced(p));
}

/* One piece of work, as it passes through the guard. */
typedef struct piece {
    plan *p;
    operation op; /* to prepare */
    const void *args;
    const ballast_exec *exec;
    ballast_status status;
    const ballast_parallel *parallel; /* of a whole call */
    int64_t tasks;
    int64_t begin, end; /* of rows */
} piece;

static void guarded_prepare(void *arg)
{
    piece *w = arg;
    arguments in;

    ballast__begin(&in);
    ballast__read_exec(&in, w->exec);
    ballast__refuse(&in, !w->p, BALLAST_ERR_NULL, "plan", 0);
    if (w->p)
        w->p->mark = 0;
    w->status = w->op.prepare(&in, w->args, w->p, w->op.variant);
    if (w->status == BALLAST_OK)
        w->p->mark = PREPARED;
    w->parallel = in.parallel;
}

static void guarded_rows(void *arg)
{
    const piece *w = arg;

    run_rows(w->p, w->begin, w->end);
}

static void guarded_finish(void *arg)
{
    const piece *w = arg;

    store_result(w->p);
}

/* ---- The plan, as the host sees it ----------------------------------------------------------- */

static plan *inside(ballast_plan *out) { return (plan *)(void *)out; }

static const plan *prepared(const ballast_plan *out)
{
    const plan *p = (const plan *)(const void *)out;

    return p && p->mark == PREPARED ? p : NULL;
}

ballast_status ballast__prepare(operation op, const void *args, const ballast_exec *exec,
                                ballast_plan *out)
{
    piece w = {.p = inside(out), .op = op, .args = args, .exec = exec};

    ballast__guarded(guarded_prepare, &w);
    return w.status;
}

int64_t ballast_plan_row_count(const ballast_plan *out)
{
    return prepared(out) ? prepared(out)->row_count : 0;
}

int64_t ballast_plan_row_step(const ballast_plan *out)
{
    return prepared(out) ? prepared(out)->row_step : 1;
}

static int is_boundary(const plan *p, int64_t row)
{
    return row == p->row_count || (row >= 0 && row < p->row_count && row % p->row_step == 0);
}

ballast_status ballast_plan_rows(ballast_plan *out, int64_t begin, int64_t end)
{
    const plan *p = prepared(out);
    piece w = {.p = inside(out), .begin = begin, .end = end};

    if (!p)
        return BALLAST_ERR_NULL;
    if (begin > end || !is_boundary(p, begin) || !is_boundary(p, end))
        return BALLAST_ERR_SPLIT;
    ballast__guarded(guarded_rows, &w);
    return BALLAST_OK;
}

ballast_status ballast_plan_finish(ballast_plan *out)
{
    piece w = {.p = inside(out)};

    if (!prepared(out))
        return BALLAST_ERR_NULL;
    ballast__guarded(guarded_finish, &w);
    return BALLAST_OK;
}

/* ---- The whole call -------------------------------------------------------------------------- */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t task_count(const plan *p, const ballast_parallel *parallel)
{
    const int64_t steps = ceil_div(p->row_count, p->row_step);
    const int64_t worth = p->row_count / ceil_div(TASK_ELEMENTS, p->row_elements);

    if (!parallel)
        return 1;
    const int64_t threads = smaller(parallel->threads, INT64_MAX / TASKS_PER_THREAD);
    return smaller(smaller(steps, worth), threads * TASKS_PER_THREAD);
}

/* All of it where there is one task; where there are more, the host's code runs them, and must not
 * find its environment changed. */
static void guarded_call(void *arg)
{
    piece *w = arg;

    guarded_prepare(w);
    if (w->status != BALLAST_OK)
        return;
    w->tasks = task_count(w->p, w->parallel);
    if (w->tasks > 1)
        return;
    run_rows(w->p, 0, w->p->row_count);
    store_result(w->p);
}

/* Where part i begins, of `total` steps cut into `parts` that differ by one at most. */
static int64_t cut(int64_t total, int64_t parts, int64_t i)
{
    return total / parts * i + smaller(i, total % parts);
}

static void run_task(void *arg, int64_t index)
{
    const piece *call = arg;
    plan *p = call->p;
    const int64_t steps = ceil_div(p->row_count, p->row_step);
    const int64_t begin = cut(steps, call->tasks, index) * p->row_step;
    const int64_t end = cut(steps, call->tasks, index + 1);
    piece w = {.p = p, .begin = begin};

    w.end = end < steps ? end * p->row_step : p->row_count;
    ballast__guarded(guarded_rows, &w);
}

ballast_status ballast__call(operation op, const void *args, const ballast_exec *exec)
{
    plan p;
    piece w = {.p = &p, .op = op, .args = args, .exec = exec};

    ballast__guarded(guarded_call, &w);
    if (w.status == BALLAST_OK && w.tasks > 1) {
        w.parallel->run(w.parallel->context, w.tasks, run_task, &w);
        ballast__guarded(guarded_finish, &w);
    }
    return w.status;
}
