/* SPDX-License-Identifier: MIT */
/* The first calls of a process come from many threads at once: what is found out at first use must
 * be found out by all of them, and be the same. Then threads that the host lends share one problem.
 * The order matters, and so nothing here may use the library before: meant for the thread
 * sanitizer. */
#define _POSIX_C_SOURCE 200809L

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "problems.h"

#include <pthread.h>

enum { THREADS = 64, MEMBERS = 3, FEW_ROWS = 40, CLASSES = 33 };

/* ---- First calls --------------------------------------------------------------------------- */

static float logits[FEW_ROWS * CLASSES];
static uint8_t labels[FEW_ROWS];
static pthread_barrier_t start;

/* What a thread writes; outputs of its own. */
typedef struct caller {
    int number;
    ballast_status status;
    const ballast_implementation *implementation;
    int supported;
    double loss;
    float grad[FEW_ROWS * CLASSES];
} caller;

static caller callers[THREADS];

static void fill(void)
{
    for (int i = 0; i < FEW_ROWS * CLASSES; i++)
        logits[i] = (float)(i * 7919 % 1000) * 0.01f - 5.0f;
    for (int i = 0; i < FEW_ROWS; i++)
        labels[i] = (uint8_t)(i % CLASSES);
}

static ballast_status call(caller *c)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    a.logits = ballast_const_matrix_f32(logits, FEW_ROWS, CLASSES);
    a.labels = ballast_labels_u8(labels);
    a.loss = &c->loss;
    a.grad = ballast_matrix_f32(c->grad, FEW_ROWS, CLASSES);
    return ballast_cross_entropy(&a, NULL);
}

/* A third each calls first, asks for the default first, asks what is supported first. */
static void *first_call(void *arg)
{
    caller *c = arg;

    pthread_barrier_wait(&start);
    if (c->number % 3 == 1)
        c->implementation = ballast_implementation_default(NULL, 0);
    if (c->number % 3 == 2)
        c->supported = ballast_implementation_supported(ballast_implementation_at(0), NULL, 0);
    c->status = call(c);
    c->implementation = ballast_implementation_default(NULL, 0);
    c->supported = ballast_implementation_supported(ballast_implementation_at(0), NULL, 0);
    return NULL;
}

static void first_calls(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    fill();
    assert_int_equal(pthread_barrier_init(&start, NULL, THREADS), 0);
    for (int i = 0; i < THREADS; i++) {
        callers[i].number = i;
        assert_int_equal(pthread_create(&threads[i], NULL, first_call, &callers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(callers[i].status, BALLAST_OK);
        assert_ptr_equal(callers[i].implementation, callers[0].implementation);
        assert_int_equal(callers[i].supported, 1);
        assert_memory_equal(&callers[i].loss, &callers[0].loss, sizeof callers[0].loss);
        assert_memory_equal(callers[i].grad, callers[0].grad, sizeof callers[0].grad);
    }
}

/* ---- The parallel form --------------------------------------------------------------------- */

/* Tasks are handed out under a lock, as a host would. */
typedef struct crew {
    pthread_mutex_t lock;
    int64_t next, tasks;
    void (*task)(void *, int64_t);
    void *arg;
} crew;

static void *work(void *arg)
{
    crew *c = arg;

    for (;;) {
        pthread_mutex_lock(&c->lock);
        const int64_t index = c->next++;
        pthread_mutex_unlock(&c->lock);
        if (index >= c->tasks)
            return NULL;
        c->task(c->arg, index);
    }
}

static void run_crew(void *context, int64_t tasks, void (*task)(void *, int64_t), void *arg)
{
    crew *c = context;
    pthread_t threads[MEMBERS];
    int started = 0;

    c->next = 0;
    c->tasks = tasks;
    c->task = task;
    c->arg = arg;
    while (started < MEMBERS && pthread_create(&threads[started], NULL, work, c) == 0)
        started++;
    work(c);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

static void parallel_calls(void **state)
{
    static results expected;
    crew c = {.lock = PTHREAD_MUTEX_INITIALIZER};
    const ballast_parallel parallel = {&c, run_crew, MEMBERS};
    ballast_exec exec = BALLAST_EXEC;

    (void)state;
    make_problems(NULL);
    exec.parallel = &parallel;
    for (const problem *p = problems; p < problems + PROBLEMS; p++) {
        memset(&problem_out, 0, sizeof problem_out);
        const ballast_status status = p->run(NULL, NULL, MAX_ROWS);
        if (status == BALLAST_ERR_UNSUPPORTED)
            continue; /* f64, where this library has none */
        assert_int_equal(status, BALLAST_OK);
        expected = problem_out;
        memset(&problem_out, 0, sizeof problem_out);
        assert_int_equal(p->run(&exec, NULL, MAX_ROWS), BALLAST_OK);
        if (memcmp(&expected, &problem_out, sizeof expected) != 0)
            fail_msg("%s: other bits with %d threads than without", p->name, (int)MEMBERS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_calls), /* first, or it is none */
        cmocka_unit_test(parallel_calls),
    };

    return cmocka_run_group_tests_name("first_use", tests, NULL, NULL);
}
