/* SPDX-License-Identifier: MIT */
/* Plans: any legal split, in any order, on any threads, equals the plain call in bits; an illegal
 * one is refused. */
#define _POSIX_C_SOURCE 200809L

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "problems.h"

#include <pthread.h>
#include <stdio.h>

static const int64_t row_counts[] = {1, 15, 16, 17, 100, 1000, MAX_ROWS};
enum { ROW_COUNTS = sizeof row_counts / sizeof row_counts[0] };

static results expected;

static void run_plain(const problem *p, int64_t rows)
{
    memset(&problem_out, 0x5a, sizeof problem_out);
    assert_int_equal(p->run(NULL, NULL, rows), BALLAST_OK);
    expected = problem_out;
    memset(&problem_out, 0x5a, sizeof problem_out);
}

static void check_equal(const problem *p, int64_t rows, const char *how)
{
    if (memcmp(&problem_out, &expected, sizeof expected) != 0)
        fail_msg("%s:rows=%lld: %s: other bits than the plain call (loss %a, plain %a)", p->name,
                 (long long)rows, how, problem_out.loss, expected.loss);
}

#define FOR_ALL(p, rows)                                                                           \
    for (const problem *p = problems; p < problems + PROBLEMS; p++)                                \
        for (int k_ = 0; k_ < ROW_COUNTS; k_++)                                                    \
            for (int64_t rows = row_counts[k_], once_ = 1; once_; once_ = 0)

/* ---- Splits ---------------------------------------------------------------------------------- */

static int64_t boundary(const ballast_plan *plan, int64_t step)
{
    const int64_t row = step * ballast_plan_row_step(plan), last = ballast_plan_row_count(plan);

    return row < last ? row : last;
}

static int64_t step_count(const ballast_plan *plan)
{
    const int64_t step = ballast_plan_row_step(plan);

    return (ballast_plan_row_count(plan) + step - 1) / step;
}

/* Pieces of `size` steps, from the last to the first. */
static void run_backwards(ballast_plan *plan, int64_t size)
{
    const int64_t steps = step_count(plan);

    for (int64_t first = (steps - 1) / size * size; first >= 0; first -= size)
        assert_int_equal(
            ballast_plan_rows(plan, boundary(plan, first), boundary(plan, first + size)),
            BALLAST_OK);
    assert_int_equal(ballast_plan_finish(plan), BALLAST_OK);
}

static void any_split(void **state)
{
    static const int64_t sizes[] = {1, 2, 7, INT32_MAX};

    (void)state;
    FOR_ALL(p, rows)
    {
        run_plain(p, rows);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            ballast_plan plan;

            memset(&plan, 0xff, sizeof plan);
            assert_int_equal(p->run(NULL, &plan, rows), BALLAST_OK);
            assert_true(step_count(&plan) <= (ballast_plan_row_step(&plan) > 1 ? 1024 : rows));
            run_backwards(&plan, sizes[i]);
            check_equal(p, rows, "split");
        }
    }
}

/* A plan holds no pointer into itself. */
static void a_copy_is_as_good(void **state)
{
    (void)state;
    FOR_ALL(p, rows)
    {
        ballast_plan plan, copy;

        run_plain(p, rows);
        assert_int_equal(p->run(NULL, &plan, rows), BALLAST_OK);
        copy = plan;
        memset(&plan, 0xff, sizeof plan);
        run_backwards(&copy, 3);
        check_equal(p, rows, "copied plan");
    }
}

static void finish_twice(void **state)
{
    (void)state;
    FOR_ALL(p, rows)
    {
        ballast_plan plan;

        run_plain(p, rows);
        assert_int_equal(p->run(NULL, &plan, rows), BALLAST_OK);
        run_backwards(&plan, 1);
        assert_int_equal(ballast_plan_finish(&plan), BALLAST_OK);
        check_equal(p, rows, "finished twice");
    }
}

static void illegal_splits(void **state)
{
    (void)state;
    FOR_ALL(p, rows)
    {
        ballast_plan plan;

        memset(&problem_out, 0x5a, sizeof problem_out);
        expected = problem_out;
        assert_int_equal(p->run(NULL, &plan, rows), BALLAST_OK);
        const int64_t count = ballast_plan_row_count(&plan), step = ballast_plan_row_step(&plan);
        const int64_t illegal[][2] = {{-step, count},    {0, count + 1},         {count, 0},
                                      {0, count + step}, {0, INT64_MAX},         {INT64_MIN, 0},
                                      {count + 1, count + 1}, {INT64_MIN, INT64_MAX}};

        for (size_t i = 0; i < sizeof illegal / sizeof illegal[0]; i++)
            assert_int_equal(ballast_plan_rows(&plan, illegal[i][0], illegal[i][1]),
                             BALLAST_ERR_SPLIT);
        if (count > step && step > 1) {
            assert_int_equal(ballast_plan_rows(&plan, 0, step - 1), BALLAST_ERR_SPLIT);
            assert_int_equal(ballast_plan_rows(&plan, 1, count), BALLAST_ERR_SPLIT);
        }
        assert_int_equal(ballast_plan_rows(&plan, 0, 0), BALLAST_OK);
        assert_int_equal(ballast_plan_rows(&plan, count, count), BALLAST_OK);
        check_equal(p, rows, "refused split");
    }
}

static void row_steps(void **state)
{
    ballast_plan plan;

    (void)state;
    assert_int_equal(run_softmax(NULL, &plan, 1000), BALLAST_OK);
    assert_int_equal(ballast_plan_row_step(&plan), 1);
    assert_int_equal(run_cross_entropy_rows(NULL, &plan, 1000), BALLAST_OK);
    assert_int_equal(ballast_plan_row_step(&plan), 1);
    assert_int_equal(run_cross_entropy(NULL, &plan, 1000), BALLAST_OK);
    assert_int_equal(ballast_plan_row_step(&plan), 16);
    assert_int_equal(run_cross_entropy(NULL, &plan, 16384), BALLAST_OK);
    assert_int_equal(ballast_plan_row_step(&plan), 16);
    assert_int_equal(run_cross_entropy(NULL, &plan, 16385), BALLAST_OK);
    assert_int_equal(ballast_plan_row_step(&plan), 32);
    assert_int_equal(run_dot(NULL, &plan, 1000), BALLAST_OK);
    assert_int_equal(ballast_plan_row_step(&plan), 4096);
    assert_int_equal(ballast_plan_row_count(&plan), 1000 * MAX_CLASSES);
}

/* ---- Threads --------------------------------------------------------------------------------- */

typedef struct crew {
    int threads; /* 0: on the caller, in reverse order */
    int64_t tasks, next;
    pthread_mutex_t lock;
    void (*task)(void *, int64_t);
    void *arg;
    int64_t most_tasks; /* seen */
} crew;

static void *work(void *arg)
{
    crew *c = arg;

    for (;;) {
        pthread_mutex_lock(&c->lock);
        const int64_t index = --c->next;
        pthread_mutex_unlock(&c->lock);
        if (index < 0)
            return NULL;
        c->task(c->arg, index);
    }
}

static void run_tasks(void *context, int64_t tasks, void (*task)(void *, int64_t), void *arg)
{
    crew *c = context;
    pthread_t threads[3];

    c->tasks = c->next = tasks;
    c->task = task;
    c->arg = arg;
    if (tasks > c->most_tasks)
        c->most_tasks = tasks;
    for (int i = 0; i < c->threads; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, c), 0);
    if (c->threads == 0)
        work(c);
    for (int i = 0; i < c->threads; i++)
        pthread_join(threads[i], NULL);
}

static void parallel_equals_serial(void **state)
{
    (void)state;
    FOR_ALL(p, rows)
    {
        run_plain(p, rows);
        for (int threads = 0; threads <= 3; threads++) {
            crew c = {.threads = threads, .lock = PTHREAD_MUTEX_INITIALIZER};
            const ballast_parallel parallel = {&c, run_tasks, threads ? threads : 1};
            ballast_exec exec = BALLAST_EXEC;

            exec.parallel = &parallel;
            memset(&problem_out, 0x5a, sizeof problem_out);
            assert_int_equal(p->run(&exec, NULL, rows), BALLAST_OK);
            check_equal(p, rows, "parallel");
            assert_true(c.most_tasks <= 16 * parallel.threads);
            if (rows < 100)
                assert_int_equal(c.most_tasks, 0);
            if (rows == MAX_ROWS)
                assert_true(c.most_tasks > 1);
        }
    }
}

static void any_number_of_threads(void **state)
{
    static const int64_t threads[] = {4, 1000, INT64_MAX};

    (void)state;
    for (const problem *p = problems; p < problems + PROBLEMS; p++) {
        run_plain(p, MAX_ROWS);
        for (int i = 0; i < 3; i++) {
            crew c = {.threads = 0, .lock = PTHREAD_MUTEX_INITIALIZER};
            const ballast_parallel parallel = {&c, run_tasks, threads[i]};
            ballast_exec exec = BALLAST_EXEC;

            exec.parallel = &parallel;
            assert_int_equal(p->run(&exec, NULL, MAX_ROWS), BALLAST_OK);
            check_equal(p, MAX_ROWS, "many threads");
            assert_true(c.most_tasks <= MAX_ROWS / 16); /* sixteen rows stay together */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split),      cmocka_unit_test(a_copy_is_as_good),
        cmocka_unit_test(finish_twice),   cmocka_unit_test(illegal_splits),
        cmocka_unit_test(row_steps),      cmocka_unit_test(parallel_equals_serial),
        cmocka_unit_test(any_number_of_threads),
    };

    return cmocka_run_group_tests_name("plan", tests, make_problems, NULL);
}
