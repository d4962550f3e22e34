/* SPDX-License-Identifier: MIT */
/* Long rows shared between threads: the same bits as in a serial call, for every implementation,
 * number of threads, order of tasks, choice of outputs, and whatever is in which chunk. */
#define _POSIX_C_SOURCE 200809L

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ballast/ballast.h>

#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 2048, MOST_ROWS = 40, MOST_ELEMENTS = 1 << 20, GAP = 5 };

/* So many threads share a few rows, on the fastest implementation, too; two would compute them whole. */
enum { LENT = 100 };

/* ---- Threads that count what they are given ---------------------------------------------------- */

typedef struct crew {
    int threads; /* 0: on the caller, in reverse order */
    int64_t next, runs, most_tasks;
    pthread_mutex_t lock;
    void (*task)(void *, int64_t);
    void *arg;
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

    c->runs++;
    c->next = tasks;
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

/* ---- Calls ------------------------------------------------------------------------------------- */

enum operation { SOFTMAX, LOG_SOFTMAX, LOG_SUM_EXP, LOSS, GRAD, LOSS_AND_GRAD, ROW_LOSS, OPERATIONS };
static const char *const names[] = {"softmax", "log_softmax", "log_sum_exp", "cross_entropy loss",
                                    "cross_entropy grad", "cross_entropy loss+grad",
                                    "cross_entropy none"};

typedef struct outputs {
    double loss;
    float rows[MOST_ROWS];
    float *matrix; /* [rows, classes + GAP] */
} outputs;

static float *logits, class_weight[MOST_ELEMENTS], row_weight[MOST_ROWS];
static int64_t labels[MOST_ROWS];
static outputs expected, found;

static ballast_status run_softmax(enum operation o, ballast_const_tensor x, ballast_tensor y,
                                  outputs *out, const ballast_exec *exec)
{
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;
    ballast_log_sum_exp_args l = BALLAST_LOG_SUM_EXP_ARGS;

    l.input = a.input = x;
    a.output = y;
    l.output = out->rows;
    if (o == LOG_SUM_EXP)
        return ballast_log_sum_exp(&l, exec);
    return o == SOFTMAX ? ballast_softmax(&a, exec) : ballast_log_softmax(&a, exec);
}

static ballast_status run(enum operation o, int64_t rows, int64_t classes, bool in_place,
                          outputs *out, const ballast_exec *exec)
{
    const int64_t stride = classes + GAP;
    float *x = in_place ? out->matrix : logits;
    const ballast_const_tensor input = ballast_const_strided_matrix_f32(x, rows, classes, stride);
    const ballast_tensor output = ballast_strided_matrix_f32(out->matrix, rows, classes, stride);
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    memset(out->rows, 0x5a, sizeof out->rows);
    memset(out->matrix, 0x5a, (size_t)(rows * stride) * sizeof *x);
    if (in_place)
        memcpy(x, logits, (size_t)(rows * stride) * sizeof *x);
    if (o <= LOG_SUM_EXP)
        return run_softmax(o, input, output, out, exec);
    a.logits = input;
    a.labels = ballast_labels_i64(labels);
    a.class_weight = class_weight;
    a.row_weight = row_weight;
    if (o == LOSS || o == LOSS_AND_GRAD)
        a.loss = &out->loss;
    if (o == LOSS_AND_GRAD || o == ROW_LOSS)
        a.row_loss = out->rows;
    if (o != LOSS)
        a.grad = output;
    if (o == ROW_LOSS) {
        a.reduction = BALLAST_NONE;
        a.grad_rows = row_weight;
    }
    return ballast_cross_entropy(&a, exec);
}

static void check_equal(enum operation o, int64_t rows, int64_t classes, const char *what,
                        const char *isa, int threads)
{
    const size_t bytes = (size_t)(rows * (classes + GAP)) * sizeof *found.matrix;

    if (memcmp(&expected.loss, &found.loss, sizeof found.loss) != 0 ||
        memcmp(expected.rows, found.rows, sizeof found.rows) != 0 ||
        memcmp(expected.matrix, found.matrix, bytes) != 0)
        fail_msg("%s rows=%lld classes=%lld: %s: %s, %d threads: other bits than the serial call",
                 names[o], (long long)rows, (long long)classes, what, isa, threads);
}

/* Whether a task was shared is for the caller to know: returns how often threads were asked for. */
static int64_t compare(enum operation o, int64_t rows, int64_t classes, bool in_place,
                       const char *what, int64_t lent)
{
    const ballast_implementation *isa;
    int64_t runs = 0;

    if (in_place && (o == LOG_SUM_EXP || o == LOSS))
        return 0;
    expected.loss = found.loss = 0.0;
    assert_int_equal(run(o, rows, classes, in_place, &expected, NULL), BALLAST_OK);
    for (int i = 0; (isa = ballast_implementation_at(i)) != NULL; i++)
        for (int threads = 0; threads <= 3; threads += threads ? 1 : 2) {
            crew c = {.threads = threads, .lock = PTHREAD_MUTEX_INITIALIZER};
            const ballast_parallel parallel = {&c, run_tasks, lent};
            ballast_exec exec = BALLAST_EXEC;

            if (!ballast_implementation_supported(isa, NULL, 0))
                continue;
            exec.implementation = isa;
            exec.parallel = &parallel;
            assert_int_equal(run(o, rows, classes, in_place, &found, &exec), BALLAST_OK);
            check_equal(o, rows, classes, what, ballast_implementation_name(isa), threads);
            assert_true(c.most_tasks <= 16 * lent);
            runs += c.runs;
        }
    return runs;
}

static void compare_all(int64_t rows, int64_t classes, const char *what, int64_t lent)
{
    for (int o = 0; o < OPERATIONS; o++)
        for (int in_place = 0; in_place <= 1; in_place++)
            compare((enum operation)o, rows, classes, in_place, what, lent);
}

/* ---- Inputs ------------------------------------------------------------------------------------ */

static void fill(int64_t rows, int64_t classes)
{
    uint32_t random = 7;

    for (int64_t i = 0; i < rows * (classes + GAP); i++) {
        random = random * 1664525u + 1013904223u;
        logits[i] = (float)(int32_t)random * 0x1p-28f;
    }
    for (int64_t i = 0; i < rows; i++) {
        labels[i] = (i * 1237 + 5) % classes;
        row_weight[i] = ldexpf((float)(i % 5 + 1), (int)(i * 23 % 40) - 20); /* sums round */
    }
}

static int make(void **state)
{
    (void)state;
    logits = malloc(MOST_ELEMENTS * sizeof *logits);
    expected.matrix = malloc(MOST_ELEMENTS * sizeof *logits);
    found.matrix = malloc(MOST_ELEMENTS * sizeof *logits);
    for (int i = 0; i < MOST_ELEMENTS; i++)
        class_weight[i] = 0.5f + (float)(i % 7);
    return !logits || !expected.matrix || !found.matrix;
}

static int discard(void **state)
{
    (void)state;
    free(logits);
    free(expected.matrix);
    free(found.matrix);
    return 0;
}

/* ---- Claims ------------------------------------------------------------------------------------ */

static void shapes(void **state)
{
    static const int64_t all[][2] = {{1, 8192},   {3, 8193},   {13, 8192},  {40, 8193}, {17, 20000},
                                     {1, 131072}, {2, 262144}, {3, 262145}, {3, 300001}};

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        fill(all[i][0], all[i][1]);
        compare_all(all[i][0], all[i][1], "any logits", 2);
        compare_all(all[i][0], all[i][1], "any logits", 100);
    }
}

/* Sharing takes two rounds of tasks, or one where nothing depends on the sum. */
static void rows_are_shared(void **state)
{
    static const int rounds[] = {2, 2, 1, 1, 2, 2, 2};
    const ballast_implementation *fastest = ballast_implementation_default(NULL, 0);

    (void)state;
    fill(1, 300001);
    for (int o = 0; o < OPERATIONS; o++) {
        crew c = {.threads = 2, .lock = PTHREAD_MUTEX_INITIALIZER};
        const ballast_parallel parallel = {&c, run_tasks, LENT};
        ballast_exec exec = BALLAST_EXEC;

        exec.implementation = fastest;
        exec.parallel = &parallel;
        assert_int_equal(run((enum operation)o, 1, 300001, false, &found, &exec), BALLAST_OK);
        assert_int_equal(c.runs, rounds[o]);
        assert_true(c.most_tasks > 1);
    }
}

static void label_in_each_chunk(void **state)
{
    enum { CLASSES = 200000 };

    (void)state;
    fill(1, CLASSES);
    for (int64_t at = 0; at < CLASSES; at += CHUNK) {
        labels[0] = at;
        compare(LOSS_AND_GRAD, 1, CLASSES, at & CHUNK, "label first in a chunk", LENT);
        labels[0] = at + CHUNK - 1 < CLASSES ? at + CHUNK - 1 : CLASSES - 1;
        compare(LOSS_AND_GRAD, 1, CLASSES, !(at & CHUNK), "label last in a chunk", LENT);
    }
}

static void ignored_rows(void **state)
{
    enum { ROWS = 3, CLASSES = 100000 };

    (void)state;
    fill(ROWS, CLASSES);
    for (int mask = 1; mask < 1 << ROWS; mask++) {
        for (int i = 0; i < ROWS; i++)
            labels[i] = mask >> i & 1 ? -100 : 7 * i;
        for (int o = LOSS; o < OPERATIONS; o++)
            compare((enum operation)o, ROWS, CLASSES, o == GRAD, "ignored rows", LENT);
    }
}

/* `value` in one place of the middle row, or (n = CHUNK) all over a chunk of it. */
static void special_chunks(void **state)
{
    enum { ROWS = 3, CLASSES = 80000 };
    static const float values[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 65536.5f, 70000.0f, 3e38f,
                                   0x1p-140f};
    static const int64_t places[][2] = {{0, 1},     {2047, 1},        {2048, 1},     {79999, 1},
                                        {0, CHUNK}, {CHUNK, 5 * CHUNK}, {79872, 128}, {0, CLASSES}};

    (void)state;
    for (size_t v = 0; v < sizeof values / sizeof values[0]; v++)
        for (size_t k = 0; k < sizeof places / sizeof places[0]; k++) {
            char what[64];

            fill(ROWS, CLASSES);
            for (int64_t i = 0; i < places[k][1]; i++)
                logits[CLASSES + GAP + places[k][0] + i] = values[v];
            for (int64_t i = 0; i < ROWS; i++)
                labels[i] = places[k][0];
            snprintf(what, sizeof what, "%lld times %g at %lld of row 1", (long long)places[k][1],
                     (double)values[v], (long long)places[k][0]);
            compare_all(ROWS, CLASSES, what, LENT);
        }
}

/* Every chunk has a maximum of its own, some beyond 65536, some so low that their sum vanishes. */
static void far_chunks(void **state)
{
    enum { ROWS = 2, CLASSES = 100000 };
    static const float offsets[] = {0.0f, 65530.0f, 65540.0f, -65540.0f, 88.0f, -100.0f, 1e6f, 3.0f};

    (void)state;
    for (size_t first = 0; first < 8; first++) {
        fill(ROWS, CLASSES);
        for (int64_t i = 0; i < ROWS * (CLASSES + GAP); i++)
            logits[i] += offsets[((size_t)(i / CHUNK) * (first | 1) + first) % 8];
        labels[0] = (int64_t)first * CHUNK;
        labels[1] = CLASSES - 1;
        compare_all(ROWS, CLASSES, "chunks far apart", LENT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes),        cmocka_unit_test(rows_are_shared),
        cmocka_unit_test(ignored_rows),  cmocka_unit_test(label_in_each_chunk),
        cmocka_unit_test(special_chunks), cmocka_unit_test(far_chunks),
    };

    return cmocka_run_group_tests_name("shared_rows", tests, make, discard);
}
