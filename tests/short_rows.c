/* SPDX-License-Identifier: MIT */
/* Rows of few classes go sixteen at a time, and rows of one chunk beside their neighbours: a row's bits
 * are those that it has in a call of its own, which takes it alone. For every width and number of rows, beside ordinary rows, rows that are ignored
 * and rows that need other code (NaN, infinities, huge logits, nothing but -inf) in every lane of a
 * tile; with strides, offsets and in place; and nothing between the rows is written. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ballast/ballast.h>

#include <math.h>
#include <string.h>

enum { MOST_ROWS = 80, MOST_CLASSES = 2112, MOST_PADDING = 5, MOST_OFFSET = 16 };
enum { MATRIX = MOST_ROWS * (MOST_CLASSES + MOST_PADDING) + 2 * MOST_OFFSET };
enum {
    SOFTMAX, LOG_SOFTMAX, LOG_SUM_EXP, CROSS_ENTROPY, SOFTMAX_BACKWARD, LOG_SOFTMAX_BACKWARD, OPERATIONS
};
static const char *const names[] = {"softmax",       "log_softmax",      "log_sum_exp",
                                    "cross_entropy", "softmax_backward", "log_softmax_backward"};

static const float CANARY = 77.0f;

typedef struct problem {
    const char *isa;
    int operation, rows, classes, stride, offset;
    int label_bytes;      /* 1, 4 or 8 */
    int64_t ignore;
    int weighted, losses; /* class, row and upstream weights; row losses wanted */
    int gradients, in_place;
    int taken; /* of sixteen rows that may be ignored, how many are not */
} problem;

/* The elements that a call may touch, and some after them. */
static int extent(const problem *p) { return p->offset + p->rows * p->stride + MOST_OFFSET; }

static uint64_t state = 20190616;

static uint32_t next_random(void) /* splitmix64 */
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

static int below(int limit) { return (int)(next_random() % (uint32_t)limit); }

static float uniform(float size) { return size * ((float)(next_random() >> 8) * 0x1p-23f - 1.0f); }

static float x[MATRIX], whole[MATRIX], alone[MATRIX], upstream[MATRIX], class_weight[MOST_CLASSES];
static float row_weight[MOST_ROWS], grad_rows[MOST_ROWS], row_loss[MOST_ROWS];
static uint8_t label_u8[MOST_ROWS];
static int32_t label_i32[MOST_ROWS];
static int64_t label_i64[MOST_ROWS];

/* ---- Rows ------------------------------------------------------------------------------------ */

/* From NAN_ONE on a tile with such a row is left to the code that takes one row at a time. */
enum { ORDINARY, WIDE, TIES, TWO_MAXIMA, MASKED_LABEL, NAN_ONE, INFINITE, ALL_MASKED, HUGE_LOGIT, KINDS };

static void fill_row(float *row, int classes, int label, int kind)
{
    for (int c = 0; c < classes; c++)
        row[c] = kind == TIES ? (below(2) ? 0.0f : -0.0f)
                              : uniform(kind == WIDE ? 300.0f : 8.0f);
    if (kind == TWO_MAXIMA) { /* which of them is left out is seen in how the sum is rounded */
        const float most = uniform(1.0f) + 9.0f;

        row[below(classes)] = most;
        row[below(classes)] = most;
    }
    if (kind == MASKED_LABEL)
        row[label] = -INFINITY;
    if (kind == NAN_ONE)
        row[below(classes)] = NAN;
    if (kind == INFINITE)
        row[below(classes)] = INFINITY;
    if (kind == HUGE_LOGIT)
        row[below(classes)] = uniform(1e6f);
    for (int c = 0; kind == ALL_MASKED && c < classes; c++)
        row[c] = -INFINITY;
}

/* kinds: the row `only`, or every row if that is -1, is of one of the first so many kinds, and may be
 * ignored; the others are ordinary. */
static void fill(const problem *p, int kinds, int only)
{
    for (int i = 0; i < extent(p); i++)
        x[i] = whole[i] = CANARY;
    for (int i = 0; i < extent(p); i++) /* zeros of both signs make sums that are zero, too */
        upstream[i] = below(4) ? below(2) ? 0.0f : -0.0f : uniform(2.0f);
    for (int i = 0; i < p->rows; i++) {
        const int any = only == -1 || i == only, label = below(p->classes);
        const int64_t given = any && below(16) >= p->taken ? p->ignore : label;

        fill_row(x + p->offset + i * p->stride, p->classes, label, any ? below(kinds) : ORDINARY);
        label_u8[i] = (uint8_t)given;
        label_i32[i] = (int32_t)given;
        label_i64[i] = given;
        row_weight[i] = below(9) ? 1.0f + uniform(1.0f) : 0.0f;
        grad_rows[i] = uniform(2.0f);
    }
    for (int c = 0; c < p->classes; c++)
        class_weight[c] = below(9) ? 1.0f + uniform(1.0f) : 0.0f;
}

/* ---- Calls ----------------------------------------------------------------------------------- */

static ballast_labels labels_from(const problem *p, int begin)
{
    if (p->label_bytes == 1)
        return (ballast_labels){label_u8 + begin, BALLAST_U8};
    if (p->label_bytes == 4)
        return (ballast_labels){label_i32 + begin, BALLAST_I32};
    return (ballast_labels){label_i64 + begin, BALLAST_I64};
}

/* Rows [begin, end) from `in` to `out`, and their losses. */
static void run(const problem *p, const float *in, float *out, float *losses, int begin, int end)
{
    const int at = p->offset + begin * p->stride;
    ballast_const_tensor logits = ballast_const_matrix_f32(in + at, end - begin, p->classes);
    ballast_tensor result = ballast_matrix_f32(out + at, end - begin, p->classes);
    ballast_exec exec = BALLAST_EXEC;
    ballast_status status;

    logits.outer_stride = result.outer_stride = p->stride;
    exec.implementation = ballast_implementation_find(p->isa);
    if (p->operation == CROSS_ENTROPY) {
        ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
        double loss;

        a.logits = logits;
        a.labels = labels_from(p, begin);
        a.ignore_index = p->ignore;
        a.reduction = p->weighted ? BALLAST_NONE : BALLAST_SUM;
        a.loss = p->weighted ? NULL : &loss;
        a.grad_scale = 0.25;
        if (p->weighted) {
            a.class_weight = class_weight;
            a.row_weight = row_weight + begin;
            a.grad_rows = grad_rows + begin;
        }
        if (p->losses)
            a.row_loss = losses + begin;
        if (p->gradients)
            a.grad = result;
        status = ballast_cross_entropy(&a, &exec);
    } else if (p->operation == LOG_SUM_EXP) {
        ballast_log_sum_exp_args a = BALLAST_LOG_SUM_EXP_ARGS;

        a.input = logits;
        a.output = losses + begin;
        status = ballast_log_sum_exp(&a, &exec);
    } else if (p->operation >= SOFTMAX_BACKWARD) {
        ballast_softmax_backward_args a = BALLAST_SOFTMAX_BACKWARD_ARGS;

        a.output = logits; /* need not be probabilities */
        a.grad_output = ballast_const_matrix_f32(upstream + at, end - begin, p->classes);
        a.grad_output.outer_stride = p->stride;
        a.grad_input = result;
        status = p->operation == SOFTMAX_BACKWARD ? ballast_softmax_backward(&a, &exec)
                                                  : ballast_log_softmax_backward(&a, &exec);
    } else {
        ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;

        a.input = logits;
        a.output = result;
        status = p->operation == SOFTMAX ? ballast_softmax(&a, &exec) : ballast_log_softmax(&a, &exec);
    }
    if (status != BALLAST_OK)
        fail_msg("%s on %s: %s", names[p->operation], p->isa, ballast_status_name(status));
}

static void expect_equal(const problem *p, const float *got, const float *want, int count,
                         const char *what)
{
    for (int i = 0; i < count; i++)
        if (memcmp(got + i, want + i, sizeof *got) != 0)
            fail_msg("%s on %s, rows=%d classes=%d stride=%d offset=%d labels=%d weighted=%d "
                     "losses=%d in_place=%d: %s[%d] is %a, in a call of its own row %a",
                     names[p->operation], p->isa, p->rows, p->classes, p->stride, p->offset,
                     p->label_bytes, p->weighted, p->losses, p->in_place, what, i, (double)got[i],
                     (double)want[i]);
}

static void check(const problem *p)
{
    const size_t size = (size_t)extent(p) * sizeof *x;
    float losses[MOST_ROWS] = {0.0f};

    if (p->in_place)
        memcpy(whole, x, size);
    memcpy(alone, whole, size);
    memset(row_loss, 0, sizeof row_loss);
    run(p, p->in_place ? whole : x, whole, row_loss, 0, p->rows);
    for (int i = 0; i < p->rows; i++)
        run(p, x, alone, losses, i, i + 1);
    expect_equal(p, whole, alone, extent(p), "output");
    expect_equal(p, row_loss, losses, MOST_ROWS, "row");
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void vary(problem *p)
{
    static const int bytes[] = {8, 4, 1};
    /* A class too, and numbers whose low half is one. */
    static const int64_t ignored[] = {-100, -1, 0, 0x100000001, INT64_MIN};

    p->stride = p->classes + below(2) * below(MOST_PADDING + 1);
    p->offset = below(MOST_OFFSET);
    p->label_bytes = bytes[below(3)];
    p->ignore = p->label_bytes == 1 ? 255 : ignored[below(p->label_bytes == 4 ? 3 : 5)];
    p->weighted = below(2);
    p->losses = p->weighted || below(2);
    p->gradients = below(4) > 0;
    p->taken = below(4) ? 12 : 1;
    p->in_place = below(2) && (p->operation != CROSS_ENTROPY || p->gradients);
    if (p->operation == LOG_SUM_EXP)
        p->in_place = 0;
}

static void skip_where_missing(const char *isa)
{
    char reason[128] = "not in this library";
    const ballast_implementation *i = ballast_implementation_find(isa);

    if (i && ballast_implementation_supported(i, reason, sizeof reason))
        return;
    print_message("skipped %s: %s\n", isa, reason);
    skip();
}

/* Every operation twice; rows that need other code are among those of the second time. */
static void each_operation(const char *isa, int classes)
{
    for (int turn = 0; turn < 2 * OPERATIONS; turn++) {
        problem p = {.isa = isa, .operation = turn % OPERATIONS, .classes = classes};

        p.rows = 1 + (classes * 8 + turn * 7) % MOST_ROWS;
        vary(&p);
        fill(&p, turn < OPERATIONS ? NAN_ONE : KINDS, -1);
        check(&p);
    }
}

/* Every width, and every number of rows. */
static void shapes(void **isa)
{
    skip_where_missing(*isa);
    for (int classes = 1; classes <= 260; classes++)
        each_operation(*isa, classes);
}

/* Around the widths at which rows of one chunk begin and end, and groups do. */
static void one_chunk(void **isa)
{
    static const int widths[] = {256, 257, 271, 272, 300, 319, 320, 321, 383, 500, 1000, 1024, 2047, 2048,
                                 2049, 2112};

    skip_where_missing(*isa);
    for (int w = 0; w < 16; w++)
        for (int turn = 0; turn < 3; turn++)
            each_operation(*isa, widths[w]);
}

/* One row that is not ordinary, in each lane of the first two tiles. */
static void lanes(void **isa)
{
    static const int widths[] = {1, 2, 3, 4, 7, 16, 17, 33, 64, 65, 100, 128, 255};

    skip_where_missing(*isa);
    for (int w = 0; w < 13; w++)
        for (int row = 0; row < 32; row++)
            for (int operation = 0; operation < OPERATIONS; operation++) {
                problem p = {.isa = *isa, .operation = operation, .rows = 33, .classes = widths[w]};

                vary(&p);
                fill(&p, KINDS, row);
                check(&p);
            }
}

#define ON(isa)                                                                                   \
    {"shapes on " isa, shapes, NULL, NULL, isa}, {"lanes on " isa, lanes, NULL, NULL, isa},          \
    {                                                                                             \
        "one chunk on " isa, one_chunk, NULL, NULL, isa                                           \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {ON("scalar"), ON("avx2"), ON("avx512"), ON("neon")};

    return cmocka_run_group_tests_name("short rows", tests, NULL, NULL);
}
