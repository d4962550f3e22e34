/* SPDX-License-Identifier: MIT */
/* The host's floating-point environment: whatever it is, results have the same bits, nothing traps,
 * and it is the same afterwards, sticky flags included. errno too. */
#define _POSIX_C_SOURCE 200809L

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "problems.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

enum { ROWS = 700, ROWS_IN_PARALLEL = MAX_ROWS, HOST_ERRNO = 123 };

/* ---- The control word ------------------------------------------------------------------------ */

typedef struct environment {
    uint64_t modes, flags;
} environment;

typedef struct host {
    const char *name;
    environment e;
} host;

#if defined(__x86_64__)

#include <xmmintrin.h>

static environment get_environment(void)
{
    const environment e = {_mm_getcsr() & 0xffc0, _mm_getcsr() & 0x3f};
    return e;
}
static void set_environment(environment e) { _mm_setcsr((unsigned)(e.modes | e.flags)); }

/* Flush-to-zero 0x8000, denormals-are-zero 0x40, rounding 0x6000, masks 0x1f80. */
static const host hosts[] = {
    {"default", {0x1f80, 0}},
    {"every flag set", {0x1f80, 0x3f}},
    {"inexact set", {0x1f80, 0x20}},
    {"flush to zero", {0x9f80, 0}},
    {"denormals are zero", {0x1fc0, 0}},
    {"both, every flag set", {0x9fc0, 0x3f}},
    {"round down", {0x3f80, 0}},
    {"round up", {0x5f80, 0}},
    {"round to zero, flush", {0xffc0, 0x01}},
    {"every exception unmasked", {0x0000, 0}},
    {"invalid unmasked, inexact set", {0x1f00, 0x20}},
    {"inexact and underflow unmasked, round up", {0x4780, 0}},
};

#elif defined(__aarch64__)

static environment get_environment(void)
{
    environment e;
    __asm__ volatile("mrs %0, fpcr" : "=r"(e.modes));
    __asm__ volatile("mrs %0, fpsr" : "=r"(e.flags));
    return e;
}
static void set_environment(environment e)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(e.modes) : "memory");
    __asm__ volatile("msr fpsr, %0" : : "r"(e.flags) : "memory");
}

/* Flush to zero bit 24, default NaN bit 25, rounding bits 22 and 23. CPUs need not offer traps. */
static const host hosts[] = {
    {"default", {0, 0}},
    {"every flag set", {0, 0x9f}},
    {"inexact set", {0, 0x10}},
    {"flush to zero", {1u << 24, 0}},
    {"default NaN", {1u << 25, 0}},
    {"round up", {1u << 22, 0}},
    {"round down", {2u << 22, 0}},
    {"round to zero, flush, every flag set", {3u << 22 | 1u << 24, 0x9f}},
};

#else

#include <fenv.h>

static environment get_environment(void)
{
    const environment e = {(uint64_t)fegetround(), (uint64_t)fetestexcept(FE_ALL_EXCEPT)};
    return e;
}
static void set_environment(environment e)
{
    fesetround((int)e.modes);
    feclearexcept(FE_ALL_EXCEPT);
    feraiseexcept((int)e.flags);
}

static const host hosts[] = {
    {"default", {FE_TONEAREST, 0}},
#ifdef FE_UPWARD
    {"round up", {FE_UPWARD, 0}},
#endif
#ifdef FE_DOWNWARD
    {"round down", {FE_DOWNWARD, FE_INEXACT}},
#endif
};

#endif

enum { HOSTS = sizeof hosts / sizeof hosts[0] };

static bool same(environment a, environment b) { return a.modes == b.modes && a.flags == b.flags; }

/* ---- Calls in a foreign environment ---------------------------------------------------------- */

/* What is compared afterwards: the environment and errno right behind the call. */
typedef struct outcome {
    ballast_status status;
    environment after;
    int error_number;
} outcome;

#define IN_ENVIRONMENT(host_, outcome_, call)                                                      \
    do {                                                                                           \
        const environment own_ = get_environment();                                                \
        errno = HOST_ERRNO;                                                                        \
        set_environment((host_)->e);                                                               \
        call;                                                                                      \
        (outcome_).after = get_environment();                                                      \
        set_environment(own_);                                                                     \
        (outcome_).error_number = errno;                                                           \
    } while (0)

static void check_outcome(const char *name, const host *h, const outcome *o)
{
    if (!same(o->after, h->e))
        fail_msg("%s: host %s: modes 0x%llx flags 0x%llx after the call", name, h->name,
                 (unsigned long long)o->after.modes, (unsigned long long)o->after.flags);
    if (o->error_number != HOST_ERRNO)
        fail_msg("%s: host %s: errno %d after the call", name, h->name, o->error_number);
}

static results expected;

static void expect_plain(const problem *p, int64_t rows)
{
    memset(&problem_out, 0x5a, sizeof problem_out);
    assert_int_equal(p->run(NULL, NULL, rows), BALLAST_OK);
    expected = problem_out;
    memset(&problem_out, 0x5a, sizeof problem_out);
}

static void check_bits(const char *name, const host *h)
{
    if (memcmp(&expected, &problem_out, sizeof expected) != 0)
        fail_msg("%s: host %s: other bits (loss %a, expected %a)", name, h->name, problem_out.loss,
                 expected.loss);
}

static void whole_calls(void **state)
{
    (void)state;
    for (const problem *p = problems; p < problems + PROBLEMS; p++)
        for (const host *h = hosts; h < hosts + HOSTS; h++) {
            outcome o;

            expect_plain(p, ROWS);
            IN_ENVIRONMENT(h, o, o.status = p->run(NULL, NULL, ROWS));
            assert_int_equal(o.status, BALLAST_OK);
            check_outcome(p->name, h, &o);
            check_bits(p->name, h);
        }
}

/* Each piece in another host's environment. */
static void pieces(void **state)
{
    (void)state;
    for (const problem *p = problems; p < problems + PROBLEMS; p++)
        for (int i = 0; i < HOSTS; i++) {
            const host *h[3] = {&hosts[i], &hosts[(i + 3) % HOSTS], &hosts[(i + 5) % HOSTS]};
            ballast_plan plan;
            outcome o;

            expect_plain(p, ROWS);
            IN_ENVIRONMENT(h[0], o, o.status = p->run(NULL, &plan, ROWS));
            check_outcome(p->name, h[0], &o);
            const int64_t rows = ballast_plan_row_count(&plan);
            IN_ENVIRONMENT(h[1], o, o.status = ballast_plan_rows(&plan, 0, rows));
            check_outcome(p->name, h[1], &o);
            IN_ENVIRONMENT(h[2], o, o.status = ballast_plan_finish(&plan));
            check_outcome(p->name, h[2], &o);
            check_bits(p->name, h[0]);
        }
}

/* ---- Tasks ----------------------------------------------------------------------------------- */

/* Runs tasks on another thread, in a third environment, and looks at the caller's and its own. */
typedef struct worker {
    const host *caller, *own;
    int64_t tasks;
    int runs;
    void (*task)(void *, int64_t);
    void *arg;
    bool caller_kept, own_kept;
} worker;

static void *work(void *arg)
{
    worker *w = arg;

    w->own_kept = w->runs == 1 || w->own_kept;
    for (int64_t i = w->tasks - 1; i >= 0; i--) {
        set_environment(w->own->e);
        w->task(w->arg, i);
        const environment after = get_environment();
        w->own_kept = w->own_kept && same(after, w->own->e);
    }
    return NULL;
}

static void run_on_worker(void *context, int64_t tasks, void (*task)(void *, int64_t), void *arg)
{
    worker *w = context;
    const environment found = get_environment();
    pthread_t thread;

    set_environment(hosts[0].e); /* thread creation is no part of the test */
    w->caller_kept = (w->runs++ == 0 || w->caller_kept) && same(found, w->caller->e);
    w->tasks = tasks;
    w->task = task;
    w->arg = arg;
    const int saved_errno = errno;
    if (pthread_create(&thread, NULL, work, w) == 0)
        pthread_join(thread, NULL);
    errno = saved_errno;
    set_environment(found);
}

typedef ballast_status lent_call(const void *what, const ballast_exec *exec);

/* The call in the environment of hosts[i], its tasks in another's. What it computed is the caller's to
 * check. So many threads are lent that the fastest implementation shares long rows, too. */
static worker call_with_worker(const char *name, int i, lent_call *call, const void *what)
{
    worker w = {.caller = &hosts[i], .own = &hosts[(i + 4) % HOSTS]};
    const ballast_parallel parallel = {&w, run_on_worker, 100};
    ballast_exec exec = BALLAST_EXEC;
    outcome o;

    exec.parallel = &parallel;
    IN_ENVIRONMENT(w.caller, o, o.status = call(what, &exec));
    assert_int_equal(o.status, BALLAST_OK);
    check_outcome(name, w.caller, &o);
    assert_true(w.caller_kept && w.own_kept);
    return w;
}

static ballast_status call_problem(const void *what, const ballast_exec *exec)
{
    const problem *p = what;

    return p->run(exec, NULL, ROWS_IN_PARALLEL);
}

static void tasks(void **state)
{
    (void)state;
    for (const problem *p = problems; p < problems + PROBLEMS; p++)
        for (int i = 0; i < HOSTS; i++) {
            expect_plain(p, ROWS_IN_PARALLEL);
            check_bits(p->name, call_with_worker(p->name, i, call_problem, p).caller);
        }
}

/* ---- Rows shared between threads -------------------------------------------------------------- */

enum { LONG_ROWS = 2, LONG_CLASSES = 100001 };

/* All that the calls write. */
typedef struct long_results {
    double loss;
    float rows[LONG_ROWS], matrix[LONG_ROWS * LONG_CLASSES];
} long_results;

static float long_x[LONG_ROWS * LONG_CLASSES];
static long_results long_expected, long_found;

static ballast_const_tensor long_input(void)
{
    return ballast_const_matrix_f32(long_x, LONG_ROWS, LONG_CLASSES);
}
static ballast_tensor long_output(void)
{
    return ballast_matrix_f32(long_found.matrix, LONG_ROWS, LONG_CLASSES);
}

static ballast_status long_softmax(const ballast_exec *e)
{
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;

    a.input = long_input();
    a.output = long_output();
    return ballast_softmax(&a, e);
}

static ballast_status long_log_softmax(const ballast_exec *e)
{
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;

    a.input = long_input();
    a.output = long_output();
    return ballast_log_softmax(&a, e);
}

static ballast_status long_log_sum_exp(const ballast_exec *e)
{
    ballast_log_sum_exp_args a = BALLAST_LOG_SUM_EXP_ARGS;

    a.input = long_input();
    a.output = long_found.rows;
    return ballast_log_sum_exp(&a, e);
}

static ballast_status long_cross_entropy(const ballast_exec *e)
{
    static const int32_t labels[LONG_ROWS] = {5000, LONG_CLASSES - 1};
    static const float weight[LONG_ROWS] = {0x1.8p-140f, 3.0f};
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    a.logits = long_input();
    a.labels = ballast_labels_i32(labels);
    a.row_weight = weight;
    a.loss = &long_found.loss;
    a.row_loss = long_found.rows;
    a.grad = long_output();
    return ballast_cross_entropy(&a, e);
}

/* `runs`: the rounds of tasks, two where something depends on a row's sum. Rows that are not shared
 * take one. */
static const struct long_call {
    const char *name;
    ballast_status (*call)(const ballast_exec *e);
    int runs;
} long_calls[] = {
    {"softmax of shared rows", long_softmax, 2},
    {"log_softmax of shared rows", long_log_softmax, 2},
    {"log_sum_exp of shared rows", long_log_sum_exp, 1},
    {"cross_entropy of shared rows", long_cross_entropy, 2},
};

/* Some logits are subnormal, some so far down that their exponentials nearly are. */
static void make_long_rows(void)
{
    uint32_t random = 3;

    for (int i = 0; i < LONG_ROWS * LONG_CLASSES; i++) {
        random = random * 1664525u + 1013904223u;
        long_x[i] = (float)(int32_t)random * 0x1p-28f;
        if (i % 11 == 0)
            long_x[i] *= 0x1p-133f;
        if (i % 13 == 0)
            long_x[i] -= 79.0f;
    }
}

static ballast_status call_long(const void *what, const ballast_exec *exec)
{
    const struct long_call *c = what;

    return c->call(exec);
}

static void tasks_that_share_rows(void **state)
{
    (void)state;
    make_long_rows();
    for (size_t k = 0; k < sizeof long_calls / sizeof long_calls[0]; k++) {
        const struct long_call *c = &long_calls[k];

        memset(&long_found, 0x5a, sizeof long_found);
        assert_int_equal(c->call(NULL), BALLAST_OK);
        long_expected = long_found;
        for (int i = 0; i < HOSTS; i++) {
            memset(&long_found, 0x5a, sizeof long_found);
            const worker w = call_with_worker(c->name, i, call_long, c);
            if (memcmp(&long_found, &long_expected, sizeof long_found) != 0)
                fail_msg("%s: host %s: other bits than the serial call", c->name, w.caller->name);
            assert_int_equal(w.runs, c->runs);
        }
    }
}

/* ---- Calls without a plan, and errors -------------------------------------------------------- */

/* Thousands of roundings: another direction would show. */
static void effective_number(void **state)
{
    const double beta = 0x1.fffffffffffffp-1;
    const double expected_value = ballast_effective_number(beta, 12345);

    (void)state;
    for (const host *h = hosts; h < hosts + HOSTS; h++) {
        volatile double value = 0.0;
        outcome o;

        IN_ENVIRONMENT(h, o, value = ballast_effective_number(beta, 12345));
        check_outcome("effective_number", h, &o);
        assert_true(value == expected_value);
        IN_ENVIRONMENT(h, o, value = ballast_effective_number(-1.0, 1));
        check_outcome("effective_number of a wrong beta", h, &o);
    }
}

static void class_weights(void **state)
{
    static const int64_t counts[] = {1, 30, 1000000, 7};
    float weights[4], expected_weights[4];
    ballast_class_weights_args a = BALLAST_CLASS_WEIGHTS_ARGS;

    (void)state;
    a.classes = 4;
    a.counts = counts;
    a.weights = expected_weights;
    assert_int_equal(ballast_class_weights(&a), BALLAST_OK);
    a.weights = weights;
    for (const host *h = hosts; h < hosts + HOSTS; h++) {
        outcome o;

        memset(weights, 0, sizeof weights);
        IN_ENVIRONMENT(h, o, o.status = ballast_class_weights(&a));
        check_outcome("class_weights", h, &o);
        assert_memory_equal(weights, expected_weights, sizeof weights);
    }
}

static void per_class(void **state)
{
    double means[MAX_CLASSES + 1], expected_means[MAX_CLASSES + 1];
    ballast_per_class_args a = BALLAST_PER_CLASS_ARGS;

    (void)state;
    a.values = ballast_vector_f32(problem_x, ROWS);
    a.labels = ballast_labels_i32(problem_labels);
    a.classes = MAX_CLASSES + 1; /* the last has no rows: 0 / 0 */
    a.means = expected_means;
    assert_int_equal(ballast_per_class(&a), BALLAST_OK);
    a.means = means;
    for (const host *h = hosts; h < hosts + HOSTS; h++) {
        outcome o;

        memset(means, 0, sizeof means);
        IN_ENVIRONMENT(h, o, o.status = ballast_per_class(&a));
        check_outcome("per_class", h, &o);
        assert_memory_equal(means, expected_means, sizeof means);
    }
}

/* A subnormal weight has a sign, a signalling NaN is found without a trap, and INT64_MAX as a label
 * is inexact as a double. */
static void faults_and_messages(void **state)
{
    static const uint32_t signalling = 0x7f800001;
    static int64_t labels[2] = {0, INT64_MAX};
    float x[2] = {1.0f, 2.0f}, weight[1] = {-0x1p-149f};
    ballast_error error, label_error;
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    (void)state;
    a.logits = ballast_const_matrix_f32(x, 2, 1);
    a.labels = ballast_labels_i64(labels);
    for (const host *h = hosts; h < hosts + HOSTS; h++) {
        char text[160];
        outcome o;

        a.class_weight = NULL;
        a.error = &label_error;
        IN_ENVIRONMENT(h, o, o.status = ballast_cross_entropy(&a, NULL));
        check_outcome("a wrong label", h, &o);
        assert_int_equal(o.status, BALLAST_ERR_LABEL);
        IN_ENVIRONMENT(h, o, ballast_error_message(&label_error, text, sizeof text));
        check_outcome("the message of a wrong label", h, &o);
        a.class_weight = weight;
        a.error = &error;
        IN_ENVIRONMENT(h, o, o.status = ballast_cross_entropy(&a, NULL));
        check_outcome("a subnormal negative weight", h, &o);
        assert_int_equal(o.status, BALLAST_ERR_WEIGHT);
        IN_ENVIRONMENT(h, o, ballast_error_message(&error, text, sizeof text));
        check_outcome("the message of a wrong weight", h, &o);
        assert_non_null(strstr(text, "class_weight[0] = -1.40129846e-45: "));
        a.class_weight = &signalling;
        IN_ENVIRONMENT(h, o, o.status = ballast_cross_entropy(&a, NULL));
        check_outcome("a signalling NaN as weight", h, &o);
        assert_int_equal(o.status, BALLAST_ERR_WEIGHT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_calls),   cmocka_unit_test(pieces),
        cmocka_unit_test(tasks),         cmocka_unit_test(tasks_that_share_rows),
        cmocka_unit_test(effective_number),
        cmocka_unit_test(class_weights), cmocka_unit_test(per_class),
        cmocka_unit_test(faults_and_messages),
    };

    return cmocka_run_group_tests_name("environment", tests, make_problems, NULL);
}
