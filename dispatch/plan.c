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
#include "shared_rows.h"

#define PREPARED UINT64_C(0x706c616e20312e30)

/* ---- Leaves ---------------------------------------------------------------------------------- */

/* For sizes: a >= 0, b > 0. Divisions take as long as all else here, and few are needed. */
static int64_t ceil_div(int64_t a, int64_t b)
{
    if (a <= b)
        return a > 0;
    return a / b + (a % b != 0);
}

void ballast__plan_rows(plan *p, const arguments *in, int64_t row_count, int64_t row_elements,
                        row_cost cost)
{
    p->row_count = row_count;
    p->row_step = 1;
    p->leaf_count = 0;
    p->row_cycles = (cost.row + cost.element * (double)row_elements) * in->slowness;
    p->tuning = in->tuning;
    p->result = NULL;
    p->shared = NULL;
}

void ballast__plan_reduction(plan *p, double *result, int64_t unit)
{
    const int64_t units = ceil_div(p->row_count, unit * MAX_LEAVES);

    p->row_step = unit * (units > 0 ? units : 1);
    p->leaf_count = ceil_div(p->row_count, p->row_step);
    p->result = result;
}

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

double ballast__sum_leaves(const plan *p, const double *partial, int stride, int part)
{
    if (p->leaf_count > 1)
        return sum_tree(partial + part, stride, p->leaf_count);
    return p->leaf_count == 1 ? partial[part] : 0.0;
}

/* ---- The three pieces, inside the guard ------------------------------------------------------ */

static void run_rows(const plan *p, double *partial, int64_t begin, int64_t end)
{
    if (begin < end)
        p->rows(p, p->result ? partial : NULL, begin, end);
}

static void store_result(const plan *p, const double *partial)
{
    if (p->result)
        *p->result = canonical(p->reduced(p, partial));
}

/* One piece of work, as it passes through the guard. */
typedef struct piece {
    plan *p;
    double *partial;
    const operation *op; /* to prepare */
    const void *args;
    const ballast_exec *exec;
    ballast_status status;
    const ballast_parallel *parallel; /* of a whole call */
    int64_t tasks, task_step;
    bool shared; /* rows between threads */
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
    w->status = w->op->prepare(&in, w->args, w->p, w->op->variant);
    if (w->status == BALLAST_OK)
        w->p->mark = PREPARED;
    w->parallel = in.parallel;
}

static void guarded_rows(void *arg)
{
    const piece *w = arg;

    run_rows(w->p, w->partial, w->begin, w->end);
}

static void guarded_finish(void *arg)
{
    const piece *w = arg;

    store_result(w->p, w->partial);
}

/* Only what rows and finish read is set: an initialiser would clear the rest of the struct, too. */
static void run_guarded(void (*work)(void *), plan *p, double *partial, int64_t begin, int64_t end)
{
    piece w;

    w.p = p;
    w.partial = partial;
    w.begin = begin;
    w.end = end;
    ballast__guarded(work, &w);
}

/* ---- The plan, as the host sees it ----------------------------------------------------------- */

static kept_plan *inside(ballast_plan *out) { return (kept_plan *)(void *)out; }

static const plan *prepared(const ballast_plan *out)
{
    const plan *p = (const plan *)(const void *)out;

    return p && p->mark == PREPARED ? p : NULL;
}

ballast_status ballast__prepare(const operation *op, const void *args, const ballast_exec *exec,
                                ballast_plan *out)
{
    piece w;

    w.p = out ? &inside(out)->plan : NULL;
    w.op = op;
    w.args = args;
    w.exec = exec;
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

    if (!p)
        return BALLAST_ERR_NULL;
    if (begin > end || !is_boundary(p, begin) || !is_boundary(p, end))
        return BALLAST_ERR_SPLIT;
    run_guarded(guarded_rows, &inside(out)->plan, inside(out)->partial, begin, end);
    return BALLAST_OK;
}

ballast_status ballast_plan_finish(ballast_plan *out)
{
    if (!prepared(out))
        return BALLAST_ERR_NULL;
    run_guarded(guarded_finish, &inside(out)->plan, inside(out)->partial, 0, 0);
    return BALLAST_OK;
}

/* ---- Room for the leaves of a whole call ----------------------------------------------------- */

/* On the stack, and no more of it than the call needs. Out of line, or every call would need it. */
#define DEFINE_ROOM(name, count)                                                                  \
    static __attribute__((noinline)) void name(piece *w, void (*use)(piece *))                    \
    {                                                                                             \
        double partial[count];                                                                    \
                                                                                                  \
        w->partial = partial;                                                                     \
        use(w);                                                                                   \
    }
enum { FEW_LEAVES = 32 };
DEFINE_ROOM(with_few_leaves, FEW_LEAVES * REDUCE_PARTS)
DEFINE_ROOM(with_many_leaves, MAX_LEAVES * REDUCE_PARTS)

static void with_leaves(piece *w, void (*use)(piece *))
{
    if (w->p->leaf_count <= FEW_LEAVES)
        with_few_leaves(w, use);
    else
        with_many_leaves(w, use);
}

/* ---- The whole call -------------------------------------------------------------------------- */

static void run_serially(piece *w)
{
    run_rows(w->p, w->partial, 0, w->p->row_count);
    store_result(w->p, w->partial);
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* A thread that runs takes tasks of half of what it is woken for: one that comes late finds fewer left, and
 * at the end none waits long. Smaller ones begin and end too often: cold lines, no row before to overlap. */
static double least_task(const plan *p)
{
    return 0.5 * (double)ballast__chosen(p->tuning, CHOOSE_TASK);
}

/* Tasks begin at multiples of this. Short rows are computed sixteen at a time, and sixteen rows of
 * f32 end where a cache line does, if they began there and nothing is between them. */
static int64_t task_step_of(const plan *p)
{
    const int short_rows = p->row_cycles * LEAF_LANES < least_task(p);

    return p->row_step == 1 && short_rows ? LEAF_LANES : p->row_step;
}

/* Whether long rows are better shared. Whole, they take as long as the thread that has most of them; shared,
 * all threads have as much to do, but 1.2 to 1.45 times as much (Emerald Rapids, Zen 5, two threads): in two
 * rounds, passes do not overlap, and what leaves waits in the output; a row alone overlaps with none anyway.
 * And threads are woken for each batch, for the first twice. */
static bool sharing_pays(const plan *p, double cycles, int64_t steps, int64_t threads)
{
    const double waking = (double)ballast__chosen(p->tuning, CHOOSE_TASK);
    const double work = p->row_count > 1 ? 1.4 : 1.0;

    if (threads < 2 || steps / 2 >= threads || !ballast__can_share(p))
        return false;
    const double most = cycles * (double)ceil_div(steps, threads) / (double)steps;
    const double whole = most + (steps > 1 ? waking : 0.0);
    const double shared = work * cycles / (double)threads +
                          waking * (double)(1 + ceil_div(p->row_count, ballast__shared_batch(p)));
    return shared < whole;
}

/* Rows that go whole lose half a task at the end, and half a row at the last row of each task, which has
 * nothing beside it. Together that is least where a thread has as many tasks as a task has rows. */
static int64_t most_tasks_of_whole_rows(const plan *p, int64_t tasks_per_thread, int64_t threads)
{
    while (tasks_per_thread > 1 && tasks_per_thread * tasks_per_thread > p->row_count / threads)
        tasks_per_thread--;
    return threads * tasks_per_thread;
}

static void plan_tasks(piece *w)
{
    const plan *p = w->p;

    w->tasks = 1;
    if (!w->parallel)
        return;
    const double cycles = (double)p->row_count * p->row_cycles;
    if (cycles < 2.0 * (double)ballast__chosen(p->tuning, CHOOSE_TASK))
        return;
    const double worth = cycles / least_task(p);
    const int64_t tasks_per_thread = ballast__chosen(p->tuning, CHOOSE_TASKS);
    const int64_t threads = smaller(w->parallel->threads, INT64_MAX / tasks_per_thread);
    w->task_step = task_step_of(p);
    const int64_t steps = ceil_div(p->row_count, w->task_step);
    w->shared = sharing_pays(p, cycles, steps, threads);
    w->tasks = threads * tasks_per_thread;
    if (!w->shared)
        w->tasks = smaller(steps, most_tasks_of_whole_rows(p, tasks_per_thread, threads));
    if (worth < (double)w->tasks)
        w->tasks = (int64_t)worth;
    if (w->tasks > threads) /* three tasks take two threads as long as four */
        w->tasks -= w->tasks % threads;
}

/* All of it where there is one task; where there are more, the host's code runs them, and must not
 * find its environment changed. Out of line: what is done at once needs no registers for this. */
static __attribute__((noinline)) void guarded_planned_call(piece *w)
{
    guarded_prepare(w);
    if (w->status != BALLAST_OK)
        return;
    plan_tasks(w);
    if (w->tasks == 1)
        with_leaves(w, run_serially);
}

static void guarded_call(void *arg)
{
    piece *w = arg;

    if (w->op->at_once && w->op->at_once(w->args, w->exec)) {
        w->status = BALLAST_OK;
        w->tasks = 1;
    } else {
        guarded_planned_call(w);
    }
}

static void run_task(void *arg, int64_t index)
{
    const piece *call = arg;
    const int64_t rows = call->p->row_count, step = call->task_step;
    const int64_t steps = ceil_div(rows, step);
    const int64_t begin = ballast__cut(steps, call->tasks, index);
    const int64_t end = ballast__cut(steps, call->tasks, index + 1);

    run_guarded(guarded_rows, call->p, call->partial, begin * step,
                end < steps ? end * step : rows);
}

static void run_in_parallel(piece *w)
{
    if (w->shared)
        ballast__run_shared(w->p, w->partial, w->parallel, w->tasks);
    else
        w->parallel->run(w->parallel->context, w->tasks, run_task, w);
    ballast__guarded(guarded_finish, w);
}

ballast_status ballast__call(const operation *op, const void *args, const ballast_exec *exec)
{
    plan p;
    piece w;

    w.p = &p;
    w.op = op;
    w.args = args;
    w.exec = exec;
    ballast__guarded(guarded_call, &w);
    if (w.status == BALLAST_OK && w.tasks > 1)
        with_leaves(&w, run_in_parallel);
    return w.status;
}
