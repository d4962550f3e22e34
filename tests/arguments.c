/* SPDX-License-Identifier: MIT */
/* Every wrong argument once, for every public call: the status, what `error` says, and that nothing
 * was written. Then the edges of what is right: empty problems, smaller structs, in place. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ballast/ballast.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ROWS = 5, CLASSES = 4, COUNT = 20, STRIDE = 6 };

/* All memory that a call may touch. Whatever a refused call changes shows as a difference. */
typedef struct arena {
    float x[ROWS * STRIDE], x2[ROWS * STRIDE], out[ROWS * STRIDE], out2[ROWS * STRIDE];
    double x64[ROWS * STRIDE], out64[ROWS * STRIDE];
    int64_t labels[ROWS], counts[CLASSES], counts_out[CLASSES];
    int32_t labels32[ROWS];
    uint8_t labels8[ROWS], dense8[ROWS * CLASSES];
    float class_weight[CLASSES], row_weight[ROWS], grad_rows[ROWS], row_out[ROWS];
    double loss, sums[CLASSES], means[CLASSES];
} arena;

static arena m, before;
static ballast_plan plan;
static ballast_error error;

static int fill(void **state)
{
    static const int64_t labels[ROWS] = {0, 3, -100, 1, 2};

    (void)state;
    memset(&m, 0x5a, sizeof m);
    for (int i = 0; i < ROWS * STRIDE; i++) {
        m.x[i] = (float)(i % 7) - 3.0f;
        m.x2[i] = (float)(i % 5) * 0.25f;
        m.x64[i] = m.x[i];
    }
    for (int i = 0; i < ROWS; i++) {
        m.labels[i] = labels[i];
        m.labels32[i] = (int32_t)labels[i];
        m.labels8[i] = (uint8_t)(i % CLASSES);
        m.row_weight[i] = 1.0f;
        m.grad_rows[i] = 1.0f;
    }
    for (int i = 0; i < CLASSES; i++) {
        m.class_weight[i] = 1.0f;
        m.counts[i] = 10 * (i + 1);
    }
    for (int i = 0; i < ROWS * CLASSES; i++)
        m.dense8[i] = i % 3 == 0;
    before = m;
    memset(&error, 0x5a, sizeof error);
    return 0;
}

/* ---- The calls, with all arguments right ----------------------------------------------------- */

#define CALL_WITH_PLAN(short_name, function, args_type)                                            \
    static ballast_status short_name##_call(const args_type *a, const ballast_exec *e)             \
    {                                                                                              \
        return ballast_##function(a, e);                                                           \
    }                                                                                              \
    static ballast_status short_name##_prepare(const args_type *a, const ballast_exec *e)          \
    {                                                                                              \
        return ballast_##function##_prepare(a, e, &plan);                                          \
    }                                                                                              \
    typedef args_type short_name##_type;

static ballast_const_tensor input(void) { return ballast_const_matrix_f32(m.x, ROWS, CLASSES); }
static ballast_tensor output(void) { return ballast_matrix_f32(m.out, ROWS, CLASSES); }

static ballast_softmax_args sm_args(void)
{
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;
    a.input = input();
    a.output = output();
    a.error = &error;
    return a;
}
CALL_WITH_PLAN(sm, softmax, ballast_softmax_args)

static ballast_softmax_args lsm_args(void) { return sm_args(); }
CALL_WITH_PLAN(lsm, log_softmax, ballast_softmax_args)

static ballast_softmax_backward_args sb_args(void)
{
    ballast_softmax_backward_args a = BALLAST_SOFTMAX_BACKWARD_ARGS;
    a.output = input();
    a.grad_output = ballast_const_matrix_f32(m.x2, ROWS, CLASSES);
    a.grad_input = output();
    a.error = &error;
    return a;
}
CALL_WITH_PLAN(sb, softmax_backward, ballast_softmax_backward_args)

static ballast_softmax_backward_args lsb_args(void) { return sb_args(); }
CALL_WITH_PLAN(lsb, log_softmax_backward, ballast_softmax_backward_args)

static ballast_log_sum_exp_args lse_args(void)
{
    ballast_log_sum_exp_args a = BALLAST_LOG_SUM_EXP_ARGS;
    a.input = input();
    a.output = m.row_out;
    a.error = &error;
    return a;
}
CALL_WITH_PLAN(lse, log_sum_exp, ballast_log_sum_exp_args)

#define SET_LOSS(a)                                                                                \
    a.logits = input();                                                                            \
    a.labels = ballast_labels_i64(m.labels);                                                       \
    a.class_weight = m.class_weight;                                                               \
    a.loss = &m.loss;                                                                              \
    a.row_loss = m.row_out;                                                                        \
    a.grad = output();                                                                             \
    a.error = &error

static ballast_cross_entropy_args ce_args(void)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    SET_LOSS(a);
    a.row_weight = m.row_weight;
    return a;
}
CALL_WITH_PLAN(ce, cross_entropy, ballast_cross_entropy_args)

static ballast_binary_cross_entropy_args bce_args(void)
{
    ballast_binary_cross_entropy_args a = BALLAST_BINARY_CROSS_ENTROPY_ARGS;
    SET_LOSS(a);
    a.row_weight = m.row_weight;
    a.element_loss = ballast_matrix_f32(m.out2, ROWS, CLASSES);
    return a;
}
CALL_WITH_PLAN(bce, binary_cross_entropy, ballast_binary_cross_entropy_args)

static ballast_sigmoid_focal_args sf_args(void)
{
    ballast_sigmoid_focal_args a = BALLAST_SIGMOID_FOCAL_ARGS;
    SET_LOSS(a);
    a.row_weight = m.row_weight;
    a.element_loss = ballast_matrix_f32(m.out2, ROWS, CLASSES);
    return a;
}
CALL_WITH_PLAN(sf, sigmoid_focal, ballast_sigmoid_focal_args)

static ballast_class_balanced_args cb_args(void)
{
    ballast_class_balanced_args a = BALLAST_CLASS_BALANCED_ARGS;
    SET_LOSS(a);
    return a;
}
CALL_WITH_PLAN(cb, class_balanced_loss, ballast_class_balanced_args)

/* The same with nothing but small matrices and labels that all count: these are looked at once. */
#define SET_PLAIN(a)                                                                               \
    a.class_weight = NULL;                                                                         \
    a.row_weight = NULL;                                                                           \
    before.labels[2] = m.labels[2] = 0

static ballast_cross_entropy_args pce_args(void)
{
    ballast_cross_entropy_args a = ce_args();
    SET_PLAIN(a);
    return a;
}
CALL_WITH_PLAN(pce, cross_entropy, ballast_cross_entropy_args)

/* And without a gradient, whose shape would have to be as wrong as that of the logits. */
static ballast_cross_entropy_args lce_args(void)
{
    ballast_cross_entropy_args a = pce_args();
    a.grad.data = NULL;
    return a;
}
CALL_WITH_PLAN(lce, cross_entropy, ballast_cross_entropy_args)

static ballast_binary_cross_entropy_args pbce_args(void)
{
    ballast_binary_cross_entropy_args a = bce_args();
    SET_PLAIN(a);
    a.element_loss.data = NULL;
    return a;
}
CALL_WITH_PLAN(pbce, binary_cross_entropy, ballast_binary_cross_entropy_args)

static ballast_reduce_args ws_args(void)
{
    ballast_reduce_args a = BALLAST_REDUCE_ARGS;
    a.x = ballast_vector_f32(m.x, COUNT);
    a.weights = ballast_vector_f32(m.x2, COUNT);
    a.result = &m.loss;
    a.error = &error;
    return a;
}
CALL_WITH_PLAN(ws, weighted_sum, ballast_reduce_args)
static ballast_reduce_args wm_args(void) { return ws_args(); }
CALL_WITH_PLAN(wm, weighted_mean, ballast_reduce_args)
static ballast_reduce_args wq_args(void) { return ws_args(); }
CALL_WITH_PLAN(wq, weighted_sum_of_squares, ballast_reduce_args)
static ballast_reduce_args dot_args(void) { return ws_args(); }
CALL_WITH_PLAN(dot, dot, ballast_reduce_args)
static ballast_reduce_args wl_args(void) { return ws_args(); }
CALL_WITH_PLAN(wl, weighted_log_sum_exp, ballast_reduce_args)

/* Those without a plan run twice. */
#define CALL_WITHOUT_PLAN(short_name, function, args_type)                                         \
    static ballast_status short_name##_call(const args_type *a, const ballast_exec *e)             \
    {                                                                                              \
        (void)e;                                                                                   \
        return ballast_##function(a);                                                              \
    }                                                                                              \
    static ballast_status short_name##_prepare(const args_type *a, const ballast_exec *e)          \
    {                                                                                              \
        (void)e;                                                                                   \
        return ballast_##function(a);                                                              \
    }                                                                                              \
    typedef args_type short_name##_type;

static ballast_class_weights_args cw_args(void)
{
    ballast_class_weights_args a = BALLAST_CLASS_WEIGHTS_ARGS;
    a.classes = CLASSES;
    a.counts = m.counts;
    a.weights = m.out;
    a.error = &error;
    return a;
}
CALL_WITHOUT_PLAN(cw, class_weights, ballast_class_weights_args)

static ballast_class_weights_args cwl_args(void)
{
    ballast_class_weights_args a = cw_args();
    a.counts = NULL;
    a.labels = ballast_labels_i64(m.labels);
    a.label_count = ROWS;
    a.counts_out = m.counts_out;
    a.empty_class = BALLAST_EMPTY_CLASS_ONE;
    return a;
}
CALL_WITHOUT_PLAN(cwl, class_weights, ballast_class_weights_args)

static ballast_per_class_args pc_args(void)
{
    ballast_per_class_args a = BALLAST_PER_CLASS_ARGS;
    a.values = ballast_vector_f32(m.x, ROWS);
    a.labels = ballast_labels_i64(m.labels);
    a.classes = CLASSES;
    a.sums = m.sums;
    a.counts = m.counts_out;
    a.means = m.means;
    a.error = &error;
    return a;
}
CALL_WITHOUT_PLAN(pc, per_class, ballast_per_class_args)

/* ---- Claims ---------------------------------------------------------------------------------- */

typedef struct claim {
    const char *where; /* the call and what was wrong */
    ballast_status status;
    const char *argument;
    int64_t index, integer;
    double value;
} claim;

#define ALSO(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("%s: %s: got %s %s[%lld] = %lld = %g", c->where, #condition,                  \
                     ballast_status_name(got), error.argument ? error.argument : "(null)",         \
                     (long long)error.index, (long long)error.integer, error.value);               \
    } while (0)

static bool same_double(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static void check_refusal(const claim *c, ballast_status got)
{
    char text[160], start[64];

    ALSO(got == c->status);
    ALSO(memcmp(&m, &before, sizeof m) == 0);
    ALSO(error.status == c->status && strcmp(error.argument, c->argument) == 0);
    ALSO(error.index == c->index && error.integer == c->integer);
    ALSO(same_double(error.value, c->value));
    snprintf(start, sizeof start, c->index < 0 ? "%s" : "%s[%lld]", c->argument,
             (long long)c->index);
    ALSO(strncmp(ballast_error_message(&error, text, sizeof text), start, strlen(start)) == 0);
    memset(&error, 0x5a, sizeof error);
}

/* Makes the call with one thing changed: the whole call and prepare. */
#define REFUSED_AS(call, change, status, argument, index, integer, value)                          \
    do {                                                                                           \
        const claim c = {#call ": " #change, status, argument, index, integer, value};             \
        fill(NULL);                                                                                \
        call##_type a = call##_args();                                                             \
        ballast_exec e = BALLAST_EXEC;                                                             \
        (void)e;                                                                                   \
        change;                                                                                    \
        before = m;                                                                                \
        check_refusal(&c, call##_call(&a, &e));                                                    \
        memset(&plan, 0, sizeof plan);                                                             \
        check_refusal(&c, call##_prepare(&a, &e));                                                 \
        assert_int_equal(ballast_plan_rows(&plan, 0, 0), BALLAST_ERR_NULL);                        \
    } while (0)

#define REFUSED(call, change, status, argument, integer)                                           \
    REFUSED_AS(call, change, BALLAST_ERR_##status, argument, -1, integer, (double)(integer))
#define REFUSED_REAL(call, change, argument, value)                                                \
    REFUSED_AS(call, change, BALLAST_ERR_OPTION, argument, -1, 0, value)

#define ACCEPTED(call, change)                                                                     \
    do {                                                                                           \
        fill(NULL);                                                                                \
        call##_type a = call##_args();                                                             \
        ballast_exec e = BALLAST_EXEC;                                                             \
        (void)e;                                                                                   \
        change;                                                                                    \
        assert_int_equal(call##_prepare(&a, &e), BALLAST_OK);                                      \
        assert_int_equal(call##_call(&a, &e), BALLAST_OK);                                         \
    } while (0)

/* ---- What holds for every call --------------------------------------------------------------- */

static void no_run(void *context, int64_t tasks, void (*task)(void *, int64_t), void *arg)
{
    (void)context, (void)tasks, (void)task, (void)arg;
    fail_msg("a refused call ran tasks");
}

static ballast_parallel parallel(int64_t threads, bool run)
{
    ballast_parallel p = {NULL, run ? no_run : NULL, threads};
    return p;
}

/* A struct that is one pointer longer than today's. */
#define LONGER(call, a, unknown_option)                                                            \
    struct {                                                                                       \
        call##_type known;                                                                         \
        void *unknown;                                                                             \
    } longer = {a, unknown_option};                                                                \
    longer.known.struct_size = sizeof longer;

/* Arguments that are their size and no more, at the end of what can be read. */
static const void *only_a_size(void)
{
    static char *end;
    const size_t size = sizeof size, page = (size_t)sysconf(_SC_PAGESIZE);

    if (!end) {
        char *const pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(pages != MAP_FAILED);
        end = pages + page;
        assert_int_equal(mprotect(end, page, PROT_NONE), 0);
        memcpy(end - sizeof size, &size, sizeof size);
    }
    return end - sizeof size;
}

#define STRUCT_SIZES(call)                                                                         \
    do {                                                                                           \
        fill(NULL);                                                                                \
        ACCEPTED(call, (void)0);                                                                   \
        fill(NULL);                                                                                \
        call##_type a = call##_args();                                                             \
        assert_int_equal(call##_call(NULL, NULL), BALLAST_ERR_NULL);                               \
        assert_int_equal(call##_prepare(NULL, NULL), BALLAST_ERR_NULL);                            \
        for (size_t i = 0; i <= 3; i++) {                                                          \
            static const size_t sizes[] = {0, sizeof(size_t), 20, SIZE_MAX};                       \
            a.struct_size = sizes[i];                                                              \
            assert_int_equal(call##_call(&a, NULL), BALLAST_ERR_STRUCT_SIZE);                      \
            assert_int_equal(call##_prepare(&a, NULL), BALLAST_ERR_STRUCT_SIZE);                   \
        }                                                                                          \
        assert_int_equal(call##_call(only_a_size(), NULL), BALLAST_ERR_STRUCT_SIZE);               \
        assert_int_equal(call##_prepare(only_a_size(), NULL), BALLAST_ERR_STRUCT_SIZE);            \
        assert_memory_equal(&m, &before, sizeof m);                                                \
        LONGER(call, call##_args(), &m)                                                            \
        const claim c = {#call ": an unknown option", BALLAST_ERR_STRUCT_SIZE, "struct_size", -1,  \
                         (int64_t)sizeof longer, (double)sizeof longer};                           \
        check_refusal(&c, call##_call(&longer.known, NULL));                                       \
        check_refusal(&c, call##_prepare(&longer.known, NULL));                                    \
        longer.unknown = NULL;                                                                     \
        assert_int_equal(call##_call(&longer.known, NULL), BALLAST_OK);                            \
        a = call##_args();                                                                         \
        a.struct_size = offsetof(call##_type, error);                                              \
        assert_int_equal(call##_call(&a, NULL), BALLAST_OK);                                       \
    } while (0)

#define EXEC(call)                                                                                 \
    do {                                                                                           \
        ballast_parallel p;                                                                        \
        REFUSED(call, e.struct_size = 0, STRUCT_SIZE, "exec.struct_size", 0);                      \
        REFUSED(call, e.implementation = (const ballast_implementation *)&m, ISA,                  \
                "exec.implementation", 0);                                                         \
        REFUSED(call, p = parallel(1, false); e.parallel = &p, NULL, "exec.parallel.run", 0);      \
        REFUSED(call, p = parallel(0, true); e.parallel = &p, OPTION, "exec.parallel.threads", 0); \
        ACCEPTED(call, e.struct_size = offsetof(ballast_exec, parallel));                          \
    } while (0)

#define ALL_WITH_PLAN(do_it)                                                                       \
    do_it(sm);                                                                                     \
    do_it(lsm);                                                                                    \
    do_it(sb);                                                                                     \
    do_it(lsb);                                                                                    \
    do_it(lse);                                                                                    \
    do_it(ce);                                                                                     \
    do_it(pce);                                                                                    \
    do_it(bce);                                                                                    \
    do_it(sf);                                                                                     \
    do_it(cb);                                                                                     \
    do_it(ws);                                                                                     \
    do_it(wm);                                                                                     \
    do_it(wq);                                                                                     \
    do_it(dot);                                                                                    \
    do_it(wl)

static void struct_sizes(void **state)
{
    (void)state;
    ALL_WITH_PLAN(STRUCT_SIZES);
    STRUCT_SIZES(cw);
    STRUCT_SIZES(pc);
}

static void exec_is_checked(void **state)
{
    (void)state;
    ALL_WITH_PLAN(EXEC);
}

/* ---- Rows shared between threads ------------------------------------------------------------- */

enum { LONG_ROWS = 2, LONG_CLASSES = 131072 };
static float long_x[LONG_ROWS * LONG_CLASSES], long_out[LONG_ROWS * LONG_CLASSES];
static float long_weight[LONG_CLASSES];

/* Two long rows and four threads: the rows are shared, unless the call is refused. */
#define SHARE(tensor_in, tensor_out)                                                               \
    do {                                                                                           \
        static ballast_parallel p;                                                                 \
        p = parallel(4, true);                                                                     \
        e.parallel = &p;                                                                           \
        a.tensor_in = ballast_const_matrix_f32(long_x, LONG_ROWS, LONG_CLASSES);                   \
        a.tensor_out = ballast_matrix_f32(long_out, LONG_ROWS, LONG_CLASSES);                      \
    } while (0)

#define SHARE_LOSS                                                                                 \
    SHARE(logits, grad);                                                                           \
    a.class_weight = long_weight

static void count_runs(void *context, int64_t tasks, void (*task)(void *, int64_t), void *arg)
{
    ++*(int *)context;
    for (int64_t i = 0; i < tasks; i++)
        task(arg, i);
}

/* Refused before the first task runs and before anything is written. */
static void shared_rows_are_checked(void **state)
{
    static const float untouched[LONG_ROWS * LONG_CLASSES];
    int runs = 0;

    (void)state;
    REFUSED_AS(ce, SHARE_LOSS; m.labels[1] = LONG_CLASSES, BALLAST_ERR_LABEL, "labels", 1,
               LONG_CLASSES, LONG_CLASSES);
    REFUSED_AS(ce, SHARE_LOSS; m.row_weight[1] = -1.0f, BALLAST_ERR_WEIGHT, "row_weight", 1, 0,
               -1.0);
    REFUSED(ce, SHARE_LOSS; a.grad.data = long_x + 1, OVERLAP, "grad", 0);
    REFUSED(ce, SHARE_LOSS; a.row_loss = long_out, OVERLAP, "row_loss", 0);
    REFUSED_AS(ce, SHARE_LOSS; long_weight[LONG_CLASSES - 1] = NAN, BALLAST_ERR_WEIGHT,
               "class_weight", LONG_CLASSES - 1, 0, (double)NAN);
    REFUSED(sm, SHARE(input, output); a.output.outer = 1, SHAPE, "output", 1);
    REFUSED(lsm, SHARE(input, output); a.output.outer_stride = 1, STRIDE, "output", 1);
    assert_memory_equal(long_out, untouched, sizeof untouched);

    fill(NULL); /* and with nothing wrong they are shared: two runs, not one */
    ballast_softmax_args a = sm_args();
    ballast_exec e = BALLAST_EXEC;
    const ballast_parallel counting = {&runs, count_runs, 100};
    SHARE(input, output);
    e.parallel = &counting;
    assert_int_equal(ballast_softmax(&a, &e), BALLAST_OK);
    assert_int_equal(runs, 2);
}

static void plan_is_needed(void **state)
{
    (void)state;
    ballast_softmax_args a = sm_args();

    assert_int_equal(ballast_softmax_prepare(&a, NULL, NULL), BALLAST_ERR_NULL);
    assert_string_equal(error.argument, "plan");
    assert_int_equal(ballast_plan_rows(NULL, 0, 0), BALLAST_ERR_NULL);
    assert_int_equal(ballast_plan_finish(NULL), BALLAST_ERR_NULL);
    assert_int_equal(ballast_plan_row_count(NULL), 0);
    assert_int_equal(ballast_plan_row_step(NULL), 1);
}

/* ---- Tensors --------------------------------------------------------------------------------- */

#define OFF_BY_ONE_BYTE(pointer) ((void *)((char *)(uintptr_t)(pointer) + 1))
#define HUGE_SIZE (INT64_MAX / 4)
#define ONE_ROW_BY_BYTES ((INT64_C(1) << 61) + 1) /* where sizes in bytes are taken modulo 2^64 */

#define TENSOR(call, field, name)                                                                  \
    do {                                                                                           \
        REFUSED(call, a.field.dtype = BALLAST_I32, DTYPE, name, BALLAST_I32);                      \
        REFUSED(call, a.field.dtype = (ballast_dtype)99, DTYPE, name, 99);                         \
        REFUSED(call, a.field.outer = -1, SHAPE, name, -1);                                        \
        REFUSED(call, a.field.classes = -2, SHAPE, name, -2);                                      \
        REFUSED(call, a.field.inner = -3, SHAPE, name, -3);                                        \
        REFUSED(call, a.field.outer = HUGE_SIZE, SHAPE, name, HUGE_SIZE);                          \
        REFUSED(call, a.field.classes = INT64_MAX, SHAPE, name, ROWS);                             \
        REFUSED(call, a.field.outer_stride = INT64_MAX / 8, SHAPE, name, INT64_MAX / 8);           \
        REFUSED(call, a.field.outer_stride = CLASSES - 1, STRIDE, name, CLASSES - 1);              \
        REFUSED(call, a.field.outer_stride = -CLASSES, STRIDE, name, -CLASSES);                    \
        REFUSED(call, a.field.data = OFF_BY_ONE_BYTE(a.field.data), ALIGNMENT, name, 0);           \
    } while (0)

/* Classes may stand anywhere, but in order and apart. */
#define PLANES(call, field, name)                                                                  \
    do {                                                                                           \
        REFUSED(call, a.field.inner = HUGE_SIZE, SHAPE, name, HUGE_SIZE);                          \
        REFUSED(call, a.field.class_stride = 0, STRIDE, name, 0);                                  \
        REFUSED(call, a.field.class_stride = -1, STRIDE, name, -1);                                \
        REFUSED(call, a.field.class_stride = HUGE_SIZE, SHAPE, name, HUGE_SIZE);                   \
        REFUSED(call, a.field.class_stride = 2; a.field.outer_stride = 6, STRIDE, name, 6);        \
    } while (0)

/* Rows of contiguous classes, and nothing else. */
#define ROWS_ONLY(call, field, name)                                                               \
    do {                                                                                           \
        REFUSED(call, a.field.inner = 2, UNSUPPORTED, name, 2);                                    \
        REFUSED(call, a.field.class_stride = 2, UNSUPPORTED, name, 2);                             \
    } while (0)

#define NEEDED_TENSOR(call, field, name)                                                           \
    do {                                                                                           \
        TENSOR(call, field, name);                                                                 \
        REFUSED(call, a.field.data = NULL, NULL, name, 0);                                         \
        REFUSED(call, memset(&a.field, 0, sizeof a.field), NULL, name, 0);                         \
    } while (0)

#define LIKE_THE_INPUT(call, field, name)                                                          \
    do {                                                                                           \
        REFUSED(call, a.field.dtype = BALLAST_F64, DTYPE, name, BALLAST_F64);                      \
        REFUSED(call, a.field.outer = ROWS + 1, SHAPE, name, ROWS + 1);                            \
        REFUSED(call, a.field.classes = CLASSES - 1, SHAPE, name, CLASSES - 1);                    \
    } while (0)

#define OVERLAP(call, field, name, where)                                                          \
    REFUSED(call, a.field.data = (void *)(uintptr_t)(where), OVERLAP, name, 0)

static void softmax_tensors(void **state)
{
    (void)state;
    NEEDED_TENSOR(sm, input, "input");
    NEEDED_TENSOR(sm, output, "output");
    LIKE_THE_INPUT(sm, output, "output");
    OVERLAP(sm, output, "output", m.x + 1);
    REFUSED(sm, a.output.data = m.x; a.output.outer_stride = STRIDE, OVERLAP, "output", 0);
    PLANES(sm, input, "input");
    PLANES(sm, output, "output");
    REFUSED(sm, a.output.inner = 2, SHAPE, "output", 2);
    REFUSED(sm, a.output = ballast_tensor_f32(m.out, 1, CLASSES, ROWS), SHAPE, "output", 1);
    PLANES(lsm, input, "input");
    PLANES(lse, input, "input");
    NEEDED_TENSOR(lsm, input, "input");
    NEEDED_TENSOR(lsm, output, "output");
    NEEDED_TENSOR(lse, input, "input");
    REFUSED(lse, a.output = NULL, NULL, "output", 0);
    REFUSED(lse, a.output = OFF_BY_ONE_BYTE(m.row_out), ALIGNMENT, "output", 0);
    REFUSED(lse, a.output = m.x, OVERLAP, "output", 0);
}

static void backward_tensors(void **state)
{
    (void)state;
    NEEDED_TENSOR(sb, output, "output");
    NEEDED_TENSOR(sb, grad_output, "grad_output");
    NEEDED_TENSOR(sb, grad_input, "grad_input");
    LIKE_THE_INPUT(sb, grad_output, "grad_output");
    LIKE_THE_INPUT(sb, grad_input, "grad_input");
    OVERLAP(sb, grad_input, "grad_input", m.x + 4);
    OVERLAP(sb, grad_input, "grad_input", m.x2 + 1);
    NEEDED_TENSOR(lsb, grad_input, "grad_input");
    PLANES(sb, output, "output");
    PLANES(sb, grad_output, "grad_output");
    PLANES(sb, grad_input, "grad_input");
    REFUSED(sb, a.grad_input.inner = 3, SHAPE, "grad_input", 3);
}

/* Where an output may and may not lie. */
/* Two by two elements of planes that are four apart, of two images. */
static ballast_tensor output_crop(float *data)
{
    const ballast_tensor t = {data, BALLAST_F32, 2, 2, 2, 12, 4};

    return t;
}

static ballast_const_tensor crop(const float *data)
{
    const ballast_const_tensor t = {data, BALLAST_F32, 2, 2, 2, 12, 4};

    return t;
}

static void placements(void **state)
{
    (void)state;
    REFUSED(sm, a.input.dtype = a.output.dtype = BALLAST_U8, DTYPE, "input", BALLAST_U8);
    REFUSED(sm, a.input.dtype = BALLAST_BF16, DTYPE, "output", BALLAST_F32);
    REFUSED(sm, a.input.dtype = BALLAST_BF16; a.output.dtype = BALLAST_F16, DTYPE, "output",
            BALLAST_F16);
    ACCEPTED(sm, a.input.dtype = a.output.dtype = BALLAST_BF16);
    ACCEPTED(sm, a.input.dtype = a.output.dtype = BALLAST_F16; a.output.data = m.x);
    ACCEPTED(sm, a.output.data = m.x);
    ACCEPTED(lsm, a.output.data = m.x);
    ACCEPTED(sb, a.grad_input.data = m.x);
    ACCEPTED(sb, a.grad_input.data = m.x2);
    REFUSED(ce, a.logits.dtype = BALLAST_BF16, DTYPE, "grad", BALLAST_F32);
    ACCEPTED(ce, a.logits.dtype = a.grad.dtype = BALLAST_F16; a.grad.data = m.x);
    ACCEPTED(ce, a.grad.data = m.x);
    ACCEPTED(bce, a.grad.data = m.x);
    ACCEPTED(sf, a.grad.data = m.x);
    ACCEPTED(cb, a.grad.data = m.x);
    /* columns of one matrix, side by side, in both orders; and one column too close */
    ACCEPTED(sm, a.input = ballast_const_strided_matrix_f32(m.x, ROWS, 3, STRIDE);
             a.output = ballast_strided_matrix_f32(m.x + 3, ROWS, 3, STRIDE));
    ACCEPTED(sm, a.output = ballast_strided_matrix_f32(m.x, ROWS, 3, STRIDE);
             a.input = ballast_const_strided_matrix_f32(m.x + 3, ROWS, 3, STRIDE));
    REFUSED(sm, a.input = ballast_const_strided_matrix_f32(m.x, ROWS, 3, STRIDE);
            a.output = ballast_strided_matrix_f32(m.x + 2, ROWS, 3, STRIDE), OVERLAP, "output", 0);
    REFUSED(sm, a.input = ballast_const_strided_matrix_f32(m.x + 2, ROWS, 3, STRIDE);
            a.output = ballast_strided_matrix_f32(m.x + 6, ROWS - 1, 3, STRIDE), SHAPE, "output",
            ROWS - 1);
    REFUSED(sm, a.input = ballast_const_strided_matrix_f32(m.x, ROWS, 3, STRIDE);
            a.output = ballast_strided_matrix_f32(m.x + 4, ROWS, 3, STRIDE), OVERLAP, "output", 0);
    REFUSED(sm, a.input = ballast_const_strided_matrix_f32(m.x, ROWS, 3, STRIDE);
            a.output = ballast_strided_matrix_f32(m.x + 3, ROWS, 3, STRIDE - 1), OVERLAP, "output",
            0);
    /* planes: in place, and two crops of one wide image */
    ACCEPTED(sm, a.input = ballast_const_tensor_f32(m.x, 1, CLASSES, ROWS);
             a.output = ballast_tensor_f32(m.x, 1, CLASSES, ROWS));
    REFUSED(sm, a.input = ballast_const_tensor_f32(m.x, 1, CLASSES, ROWS);
            a.output = ballast_tensor_f32(m.x, 1, CLASSES, ROWS); a.output.class_stride = ROWS + 1,
            OVERLAP, "output", 0);
    ACCEPTED(sm, a.input = crop(m.x); a.output = output_crop(m.x + 2));
    ACCEPTED(sm, a.input = crop(m.x + 2); a.output = output_crop(m.x));
    REFUSED(sm, a.input = crop(m.x); a.output = output_crop(m.x + 1), OVERLAP, "output", 0);
    REFUSED(sm, a.input = crop(m.x); a.output = output_crop(m.x + 3), OVERLAP, "output", 0);
    REFUSED(sm, a.input = crop(m.x); a.output = output_crop(m.x + 2); a.output.class_stride = 5,
            OVERLAP, "output", 0);
    REFUSED(sm, a.input = crop(m.x); a.input.outer_stride = 13; a.output = output_crop(m.x + 2),
            OVERLAP, "output", 0);
    /* with one class its stride says nothing */
    ACCEPTED(sm, a.input = ballast_const_tensor_f32(m.x, 2, 1, ROWS); a.input.class_stride = -7;
             a.output = ballast_tensor_f32(m.out, 2, 1, ROWS));
    /* with one row its stride says nothing */
    ACCEPTED(sm, a.input = ballast_const_strided_matrix_f32(m.x, 1, 3, 1);
             a.output = ballast_strided_matrix_f32(m.x, 1, 3, -9));
}

/* ---- Losses ---------------------------------------------------------------------------------- */

static float with_nan(float *p, float value)
{
    *p = value;
    return value;
}

#define WEIGHTS(call, field, name, last)                                                           \
    do {                                                                                           \
        REFUSED(call, a.field = OFF_BY_ONE_BYTE(m.field), ALIGNMENT, name, 0);                     \
        REFUSED_AS(call, with_nan(&m.field[last], NAN), BALLAST_ERR_WEIGHT, name, last, 0, NAN);   \
        REFUSED_AS(call, with_nan(&m.field[last], INFINITY); with_nan(&m.field[1], -1.5f),         \
                   BALLAST_ERR_WEIGHT, name, 1, 0, -1.5);                                          \
        REFUSED_AS(call, with_nan(&m.field[0], INFINITY), BALLAST_ERR_WEIGHT, name, 0, 0,          \
                   INFINITY);                                                                      \
        ACCEPTED(call, with_nan(&m.field[0], -0.0f); with_nan(&m.field[1], 1e-45f));               \
    } while (0)

#define LABEL(call, change, row, label)                                                            \
    REFUSED_AS(call, change, BALLAST_ERR_LABEL, "labels", row, label, (double)(label))

#define LABELS(call)                                                                               \
    do {                                                                                           \
        REFUSED(call, a.labels.dtype = BALLAST_F32, DTYPE, "labels", BALLAST_F32);                 \
        REFUSED(call, a.labels.data = OFF_BY_ONE_BYTE(m.labels), ALIGNMENT, "labels", 0);          \
        LABEL(call, m.labels[4] = CLASSES, 4, CLASSES);                                            \
        LABEL(call, m.labels[4] = 99; m.labels[1] = CLASSES, 1, CLASSES);                          \
        LABEL(call, m.labels[0] = INT64_MAX, 0, INT64_MAX);                                        \
        LABEL(call, a.labels = ballast_labels_i32(m.labels32); m.labels32[3] = INT32_MAX, 3,       \
              INT32_MAX);                                                                          \
        LABEL(call, a.labels = ballast_labels_u8(m.labels8); m.labels8[3] = 255, 3, 255);          \
        ACCEPTED(call, a.labels = ballast_labels_u8(m.labels8); m.labels8[3] = 255;                \
                 a.ignore_index = 255);                                                            \
        ACCEPTED(call, a.labels = ballast_labels_i32(m.labels32));                                 \
    } while (0)

#define POSITIVE_LABELS(call)                                                                      \
    do {                                                                                           \
        LABEL(call, m.labels[3] = -1, 3, -1);                                                      \
        LABEL(call, m.labels[3] = INT64_MIN, 3, INT64_MIN);                                        \
        LABEL(call, a.ignore_index = 0, 2, -100);                                                  \
    } while (0)

/* What does not depend on weights. */
#define UNWEIGHTED_LOSS(call, layout)                                                              \
    do {                                                                                           \
        NEEDED_TENSOR(call, logits, "logits");                                                     \
        layout(call, logits, "logits");                                                            \
        TENSOR(call, grad, "grad");                                                                \
        layout(call, grad, "grad");                                                                \
        LIKE_THE_INPUT(call, grad, "grad");                                                        \
        OVERLAP(call, grad, "grad", m.x + 1);                                                      \
        OVERLAP(call, grad, "grad", m.labels);                                                     \
        REFUSED(call, a.row_loss = m.out, OVERLAP, "row_loss", 0);                                 \
        REFUSED(call, a.row_loss = m.x + 2, OVERLAP, "row_loss", 0);                               \
        REFUSED(call, a.row_loss = m.labels, OVERLAP, "row_loss", 0);                              \
        REFUSED(call, a.row_loss = &m.loss, OVERLAP, "loss", 0);                                   \
        REFUSED(call, a.row_loss = OFF_BY_ONE_BYTE(m.row_out), ALIGNMENT, "row_loss", 0);          \
        REFUSED(call, a.loss = OFF_BY_ONE_BYTE(&m.loss), ALIGNMENT, "loss", 0);                    \
        REFUSED(call, a.loss = (double *)m.labels, OVERLAP, "loss", 0);                            \
        REFUSED(call, a.loss = (double *)(void *)m.x, OVERLAP, "loss", 0);                         \
        REFUSED(call, a.loss = (double *)(void *)m.out, OVERLAP, "loss", 0);                       \
        REFUSED(call, a.grad = ballast_strided_matrix_f32(m.x, ROWS, CLASSES, CLASSES + 1),        \
                OVERLAP, "grad", 0);                                                               \
        REFUSED(call, a.reduction = (ballast_reduction)3, OPTION, "reduction", 3);                 \
        REFUSED(call, a.reduction = (ballast_reduction)-1, OPTION, "reduction", -1);               \
        REFUSED(call, a.denominator = (ballast_denominator)6, OPTION, "denominator", 6);           \
        REFUSED(call, a.empty = (ballast_empty)2, OPTION, "empty", 2);                             \
        REFUSED_REAL(call, a.grad_scale = NAN, "grad_scale", NAN);                                 \
        REFUSED_REAL(call, a.grad_scale = -INFINITY, "grad_scale", -INFINITY);                     \
        REFUSED(call, a.reduction = BALLAST_NONE, OPTION, "loss", 0);                              \
        REFUSED(call, a.grad_rows = m.grad_rows, OPTION, "grad_rows", 0);                          \
        REFUSED(call, a.reduction = BALLAST_NONE; a.loss = NULL;                                   \
                a.grad_rows = OFF_BY_ONE_BYTE(m.grad_rows), ALIGNMENT, "grad_rows", 0);            \
        REFUSED_REAL(call, a.denominator = BALLAST_GIVEN; a.denominator_value = 0.0,               \
                     "denominator_value", 0.0);                                                    \
        REFUSED_REAL(call, a.denominator = BALLAST_GIVEN; a.denominator_value = -2.0,              \
                     "denominator_value", -2.0);                                                   \
        REFUSED_REAL(call, a.denominator = BALLAST_GIVEN; a.denominator_value = NAN,               \
                     "denominator_value", NAN);                                                    \
        REFUSED_REAL(call, a.denominator = BALLAST_GIVEN; a.denominator_value = INFINITY,          \
                     "denominator_value", INFINITY);                                               \
        ACCEPTED(call, a.denominator_value = NAN);                                                 \
        ACCEPTED(call, a.reduction = BALLAST_NONE; a.loss = NULL; a.grad_rows = m.grad_rows);      \
        ACCEPTED(call, a.grad.data = NULL; a.loss = NULL; a.row_loss = NULL);                      \
        ACCEPTED(call, a.denominator = BALLAST_POSITIVES);                                         \
        LABELS(call);                                                                              \
    } while (0)

#define LOSS(call, layout)                                                                         \
    do {                                                                                           \
        UNWEIGHTED_LOSS(call, layout);                                                             \
        REFUSED(call, a.grad.data = m.class_weight; a.row_loss = NULL, OVERLAP, "grad", 0);        \
        REFUSED(call, a.row_loss = m.class_weight + 1, OVERLAP, "row_loss", 0);                    \
        WEIGHTS(call, class_weight, "class_weight", CLASSES - 1);                                  \
    } while (0)

static void cross_entropy_arguments(void **state)
{
    (void)state;
    LOSS(ce, PLANES);
    WEIGHTS(ce, row_weight, "row_weight", ROWS - 1);
    POSITIVE_LABELS(ce);
    REFUSED(ce, a.labels.data = NULL, NULL, "labels", 0);
    REFUSED(ce, memset(&a.labels, 0, sizeof a.labels), NULL, "labels", 0);
}

static void class_balanced_arguments(void **state)
{
    (void)state;
    LOSS(cb, PLANES);
    REFUSED(cb, a.kind = BALLAST_CB_SIGMOID; a.logits.inner = 2, UNSUPPORTED, "logits", 2);
    POSITIVE_LABELS(cb);
    LABEL(cb, a.kind = BALLAST_CB_SIGMOID; m.labels[3] = -1, 3, -1);
    LABEL(cb, a.kind = BALLAST_CB_FOCAL; m.labels[3] = -1, 3, -1);
    REFUSED(cb, a.class_weight = NULL, NULL, "class_weight", 0);
    REFUSED(cb, a.labels.data = NULL, NULL, "labels", 0);
    REFUSED(cb, a.kind = (ballast_class_balanced_kind)3, OPTION, "kind", 3);
    REFUSED_REAL(cb, a.kind = BALLAST_CB_FOCAL; a.gamma = NAN, "gamma", NAN);
    ACCEPTED(cb, a.kind = BALLAST_CB_SIGMOID; a.gamma = NAN);
}

#define DENSE(a)                                                                                   \
    a.labels.data = NULL;                                                                          \
    a.class_weight = NULL;                                                                         \
    a.targets = ballast_const_matrix_f32(m.x2, ROWS, CLASSES)
#define DENSE_U8(a)                                                                                \
    DENSE(a);                                                                                      \
    a.targets = ballast_const_matrix_u8(m.dense8, ROWS, CLASSES)

#define SIGMOID(call)                                                                              \
    do {                                                                                           \
        LOSS(call, ROWS_ONLY);                                                                     \
        WEIGHTS(call, row_weight, "row_weight", ROWS - 1);                                         \
        TENSOR(call, element_loss, "element_loss");                                                \
        ROWS_ONLY(call, element_loss, "element_loss");                                             \
        LIKE_THE_INPUT(call, element_loss, "element_loss");                                        \
        OVERLAP(call, element_loss, "element_loss", m.x);                                          \
        OVERLAP(call, element_loss, "element_loss", m.out);                                        \
        ACCEPTED(call, m.labels[3] = -1; m.labels[4] = INT64_MIN);                                 \
        ACCEPTED(call, DENSE(a));                                                                  \
        ACCEPTED(call, DENSE_U8(a));                                                               \
        REFUSED(call, a.labels.data = NULL, NULL, "labels", 0);                                    \
        REFUSED(call, DENSE(a); a.targets.data = NULL, NULL, "targets", 0);                        \
        REFUSED(call, DENSE(a); a.targets.outer_stride = 3, STRIDE, "targets", 3);                 \
        REFUSED(call, DENSE(a); a.targets.classes = 3; a.targets.outer_stride = 3, SHAPE,          \
                "targets", 3);                                                                     \
        REFUSED(call, DENSE(a); a.targets.dtype = BALLAST_F64, DTYPE, "targets", BALLAST_F64);     \
        REFUSED(call, DENSE(a); a.grad.data = m.x2, OVERLAP, "grad", 0);                           \
        REFUSED(call, DENSE(a); a.class_weight = m.class_weight, OPTION, "class_weight", 0);       \
        REFUSED(call, DENSE(a); a.denominator = BALLAST_POSITIVES, OPTION, "denominator",          \
                BALLAST_POSITIVES);                                                                \
        REFUSED(call, DENSE(a); a.labels.data = m.labels, OPTION, "targets", 0);                   \
    } while (0)

/* One row is taken at once; so are these few. With more rows a plan is made. */
static void plain_arguments(void **state)
{
    (void)state;
    UNWEIGHTED_LOSS(pce, PLANES);
    NEEDED_TENSOR(lce, logits, "logits");
    PLANES(lce, logits, "logits");
    REFUSED(lce, a.row_loss = NULL; a.logits.outer = ONE_ROW_BY_BYTES, SHAPE, "logits",
            ONE_ROW_BY_BYTES);
    REFUSED(lce, a.logits.data = (void *)(UINTPTR_MAX - 31), SHAPE, "logits", CLASSES);
    LABEL(pce, m.labels[3] = -1, 3, -1);
    LABEL(pce, m.labels[2] = -100; a.ignore_index = -1, 2, -100);
    LABEL(pce, a.logits.outer = a.grad.outer = 1; m.labels[0] = CLASSES, 0, CLASSES);
    REFUSED(pce, a.class_weight = OFF_BY_ONE_BYTE(m.class_weight), ALIGNMENT, "class_weight", 0);
    REFUSED(pce, a.row_weight = OFF_BY_ONE_BYTE(m.row_weight), ALIGNMENT, "row_weight", 0);
    REFUSED(pce, a.labels.data = NULL, NULL, "labels", 0);
    REFUSED(pce, a.labels.dtype = (ballast_dtype)99, DTYPE, "labels", 99);
    REFUSED(pce, a.row_loss = (void *)(UINTPTR_MAX - 15), SHAPE, "row_loss", ROWS);
    UNWEIGHTED_LOSS(pbce, ROWS_ONLY);
    REFUSED(pbce, a.element_loss.data = m.x, OVERLAP, "element_loss", 0);
    REFUSED(pbce, DENSE(a); a.targets.data = NULL, NULL, "targets", 0);
    REFUSED(pbce, DENSE(a); a.targets.dtype = BALLAST_BF16, DTYPE, "targets", BALLAST_BF16);
    REFUSED(pbce, DENSE_U8(a); a.targets.outer = ROWS - 1, SHAPE, "targets", ROWS - 1);
    REFUSED(pbce, DENSE_U8(a); a.targets.classes = 3, SHAPE, "targets", 3);
    REFUSED(pbce, DENSE(a); a.grad.data = m.x2, OVERLAP, "grad", 0);
}

/* A call that is done at once writes what the pieces of a plan write. */
static void check_at_once(const ballast_cross_entropy_args *a)
{
    static arena by_plan;

    assert_int_equal(ballast_cross_entropy_prepare(a, NULL, &plan), BALLAST_OK);
    assert_int_equal(ballast_plan_rows(&plan, 0, ballast_plan_row_count(&plan)), BALLAST_OK);
    assert_int_equal(ballast_plan_finish(&plan), BALLAST_OK);
    by_plan = m;
    m = before;
    assert_int_equal(ballast_cross_entropy(a, NULL), BALLAST_OK);
    assert_memory_equal(&m, &by_plan, sizeof m);
    m = before;
}

static void at_once_is_as_planned(void **state)
{
    (void)state;
    for (int ignored = -1; ignored < CLASSES; ignored++)
        for (int rows = 1; rows <= ROWS; rows++)
            for (int denominator = BALLAST_WEIGHT_SUM; denominator <= BALLAST_POSITIVES;
                 denominator++)
                for (int k = 0; k < 3; k++) {
                    fill(NULL);
                    ballast_cross_entropy_args a = pce_args();
                    a.logits = ballast_const_strided_matrix_f32(m.x, rows, CLASSES, STRIDE);
                    a.grad = ballast_strided_matrix_f32(m.out, rows, CLASSES, STRIDE);
                    a.grad.data = k == 1 ? m.x : m.out;
                    a.ignore_index = ignored;
                    a.denominator = (ballast_denominator)denominator;
                    a.reduction = k == 2 ? BALLAST_SUM : BALLAST_MEAN;
                    a.grad_scale = 0.3;
                    check_at_once(&a);
                    a.labels = ballast_labels_u8(m.labels8);
                    a.reduction = BALLAST_NONE;
                    a.loss = NULL;
                    check_at_once(&a);
                }
}

static void binary_cross_entropy_arguments(void **state)
{
    (void)state;
    SIGMOID(bce);
}

static void sigmoid_focal_arguments(void **state)
{
    (void)state;
    SIGMOID(sf);
    REFUSED_REAL(sf, a.alpha = 1.5, "alpha", 1.5);
    REFUSED_REAL(sf, a.alpha = NAN, "alpha", NAN);
    REFUSED_REAL(sf, a.gamma = -0.5, "gamma", -0.5);
    REFUSED_REAL(sf, a.gamma = INFINITY, "gamma", INFINITY);
    ACCEPTED(sf, a.alpha = -1.0);
}

/* ---- Calls on vectors ------------------------------------------------------------------------ */

#define REDUCTION(call)                                                                            \
    do {                                                                                           \
        REFUSED(call, a.x.data = NULL, NULL, "x", 0);                                              \
        REFUSED(call, a.x.dtype = BALLAST_U8, DTYPE, "x", BALLAST_U8);                             \
        REFUSED(call, a.x.count = -1, SHAPE, "x", -1);                                             \
        REFUSED(call, a.x.count = INT64_MAX, SHAPE, "x", INT64_MAX);                               \
        REFUSED(call, a.x.data = OFF_BY_ONE_BYTE(m.x), ALIGNMENT, "x", 0);                         \
        REFUSED(call, a.weights.dtype = BALLAST_F64, DTYPE, "weights", BALLAST_F64);               \
        REFUSED(call, a.weights.count = COUNT - 1, SHAPE, "weights", COUNT - 1);                   \
        REFUSED(call, a.weights.data = OFF_BY_ONE_BYTE(m.x2), ALIGNMENT, "weights", 0);            \
        REFUSED(call, a.result = NULL, NULL, "result", 0);                                         \
        REFUSED(call, a.result = OFF_BY_ONE_BYTE(&m.loss), ALIGNMENT, "result", 0);                \
        REFUSED(call, a.x = a.weights = ballast_vector_f64(m.x64, COUNT);                          \
                a.result = m.x64 + 3, OVERLAP, "result", 0);                                       \
        REFUSED(call, a.result = (void *)(m.x + COUNT - 2), OVERLAP, "result", 0);                 \
        REFUSED(call, a.result = (void *)m.x2, OVERLAP, "result", 0);                              \
        REFUSED(call, a.x.data = (void *)(UINTPTR_MAX - 15), SHAPE, "x", COUNT);                   \
        REFUSED(call, a.weights.data = (void *)(UINTPTR_MAX - 15), SHAPE, "weights", COUNT);       \
        REFUSED(call, a.result = (void *)(UINTPTR_MAX - 7), SHAPE, "result", 1);                   \
        ACCEPTED(call, a.result = (void *)(m.x + COUNT));                                          \
        ACCEPTED(call, m.x2[3] = -INFINITY; m.x2[4] = NAN);                                        \
    } while (0)

static void reduction_arguments(void **state)
{
    (void)state;
    REDUCTION(ws);
    REDUCTION(wm);
    REDUCTION(wq);
    REDUCTION(dot);
    REDUCTION(wl);
    ACCEPTED(ws, a.weights.data = NULL);
    REFUSED(dot, a.weights.data = NULL, NULL, "weights", 0);
}

/* A sum of one leaf is taken at once: what the plan says, whatever stands around. */
static void sums_at_once_are_as_planned(void **state)
{
    enum { SPAN = 4096 };
    static float x[2 * SPAN + 1], weights[2 * SPAN + 1];
    static const int64_t counts[] = {0, 1, 2, 255, SPAN - 1, SPAN, SPAN + 1, 2 * SPAN + 1};

    (void)state;
    for (int i = 0; i <= 2 * SPAN; i++) {
        x[i] = 0x1p-9f * (float)(i * 7919 % 4001) + 0.3f;
        weights[i] = 0x1p-7f * (float)(i * 31 % 257) - 0.7f;
    }
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        for (int weighted = 0; weighted < 2; weighted++) {
            double at_once = 1.0, planned = 2.0;
            ballast_reduce_args a = BALLAST_REDUCE_ARGS;

            a.x = ballast_vector_f32(x, counts[i]);
            a.weights = ballast_vector_f32(weighted ? weights : NULL, counts[i]);
            a.result = &planned;
            assert_int_equal(ballast_weighted_sum_prepare(&a, NULL, &plan), BALLAST_OK);
            assert_int_equal(ballast_plan_rows(&plan, 0, ballast_plan_row_count(&plan)),
                             BALLAST_OK);
            assert_int_equal(ballast_plan_finish(&plan), BALLAST_OK);
            a.result = &at_once;
            assert_int_equal(ballast_weighted_sum(&a, NULL), BALLAST_OK);
            assert_memory_equal(&at_once, &planned, sizeof planned);
        }
}

static void per_class_arguments(void **state)
{
    (void)state;
    REFUSED(pc, a.values.dtype = BALLAST_U8, DTYPE, "values", BALLAST_U8);
    REFUSED(pc, a.values.count = -1, SHAPE, "values", -1);
    REFUSED(pc, a.values.data = NULL, NULL, "values", 0);
    REFUSED(pc, memset(&a.values, 0, sizeof a.values); a.label_count = ROWS, NULL, "values", 0);
    REFUSED(pc, memset(&a.values, 0, sizeof a.values); a.sums = a.means = NULL;
            a.label_count = -1, SHAPE, "label_count", -1);
    REFUSED(pc, a.values.data = OFF_BY_ONE_BYTE(m.x), ALIGNMENT, "values", 0);
    REFUSED(pc, a.labels.data = NULL, NULL, "labels", 0);
    REFUSED(pc, a.classes = -1, SHAPE, "classes", -1);
    REFUSED(pc, a.sums = OFF_BY_ONE_BYTE(m.sums), ALIGNMENT, "sums", 0);
    REFUSED(pc, a.means = m.sums + 1, OVERLAP, "sums", 0);
    REFUSED(pc, a.counts = m.labels, OVERLAP, "counts", 0);
    LABELS(pc);
    POSITIVE_LABELS(pc);
    ACCEPTED(pc, memset(&a.values, 0, sizeof a.values); a.sums = a.means = NULL;
             a.label_count = ROWS);
}

#define COUNT_REFUSED(call, change, index, count)                                                  \
    REFUSED_AS(call, change, BALLAST_ERR_COUNT, "counts", index, count, (double)(count))

static void class_weights_arguments(void **state)
{
    (void)state;
    REFUSED(cw, a.classes = 0, SHAPE, "classes", 0);
    REFUSED(cw, a.classes = -1, SHAPE, "classes", -1);
    REFUSED(cw, a.weights = NULL, NULL, "weights", 0);
    REFUSED(cw, a.weights = OFF_BY_ONE_BYTE(m.out), ALIGNMENT, "weights", 0);
    REFUSED(cw, a.weights = m.counts, OVERLAP, "weights", 0);
    REFUSED(cw, a.weights_dtype = BALLAST_I64, DTYPE, "weights", BALLAST_I64);
    REFUSED(cw, a.counts = OFF_BY_ONE_BYTE(m.counts), ALIGNMENT, "counts", 0);
    REFUSED(cw, a.counts_out = m.counts_out, OPTION, "counts_out", 0);
    REFUSED(cw, a.labels = ballast_labels_i64(m.labels), OPTION, "labels", 0);
    REFUSED_REAL(cw, a.beta = -0.5, "beta", -0.5);
    REFUSED_REAL(cw, a.beta = 1.5, "beta", 1.5);
    REFUSED_REAL(cw, a.beta = NAN, "beta", NAN);
    REFUSED(cw, a.empty_class = (ballast_empty_class)3, OPTION, "empty_class", 3);
    COUNT_REFUSED(cw, m.counts[2] = 0; m.counts[3] = -5, 2, 0);
    COUNT_REFUSED(cw, m.counts[3] = -5; a.empty_class = BALLAST_EMPTY_CLASS_ONE, 3, -5);
    ACCEPTED(cw, m.counts[3] = 0; a.empty_class = BALLAST_EMPTY_CLASS_ZERO);
    ACCEPTED(cw, a.weights_dtype = BALLAST_F64; a.weights = m.out64);
    REFUSED(cwl, a.labels.data = NULL, NULL, "labels", 0);
    REFUSED(cwl, a.label_count = -1, SHAPE, "label_count", -1);
    REFUSED(cwl, a.counts_out = NULL, NULL, "counts_out", 0);
    REFUSED(cwl, a.counts_out = m.labels, OVERLAP, "counts_out", 0);
    LABELS(cwl);
    POSITIVE_LABELS(cwl);
    COUNT_REFUSED(cwl, m.labels[3] = -100; a.empty_class = BALLAST_EMPTY_CLASS_ERROR, 1, 0);
    ACCEPTED(cwl, m.labels[3] = -100; a.empty_class = BALLAST_EMPTY_CLASS_ZERO);
}

static void class_weights_counts_labels(void **state)
{
    static const int64_t expected[CLASSES] = {1, 1, 1, 1};

    (void)state;
    ACCEPTED(cwl, (void)0);
    assert_memory_equal(m.counts_out, expected, sizeof expected);
    for (int i = 0; i < CLASSES; i++)
        assert_true(m.out[i] == 1.0f);
}

/* More classes than are gathered at a time. */
static void per_class_of_many_classes(void **state)
{
    enum { MANY = 2500 };
    static const int32_t labels[] = {0, 1023, 1024, 2499, 1024, -100, 0};
    static const double values[] = {1, 2, 3, 4, 5, 6, 7};
    static double means[MANY];
    ballast_per_class_args a = BALLAST_PER_CLASS_ARGS;

    (void)state;
    a.values = ballast_vector_f64(values, 7);
    a.labels = ballast_labels_i32(labels);
    a.classes = MANY;
    a.means = means;
    assert_int_equal(ballast_per_class(&a), BALLAST_OK);
    for (int c = 0; c < MANY; c++) {
        const double expected = c == 0 ? 4 : c == 1023 ? 2 : c == 1024 ? 4 : c == 2499 ? 4 : NAN;
        assert_true(same_double(means[c], expected) && !signbit(means[c]));
    }
}

static void effective_number_range(void **state)
{
    (void)state;
    assert_true(isnan(ballast_effective_number(-0.1, 1)));
    assert_true(isnan(ballast_effective_number(1.1, 1)));
    assert_true(isnan(ballast_effective_number(NAN, 1)));
    assert_true(isnan(ballast_effective_number(0.5, -1)));
    assert_true(ballast_effective_number(0.5, 2) == 1.5);
    assert_true(ballast_effective_number(1.0, 0) == 0.0);
}

/* ---- Empty problems -------------------------------------------------------------------------- */

static void no_rows(void **state)
{
    (void)state;
    ACCEPTED(sm, a.input = ballast_const_matrix_f32(NULL, 0, CLASSES);
             a.output = ballast_matrix_f32(NULL, 0, CLASSES));
    ACCEPTED(ce, a.logits = ballast_const_matrix_f32(NULL, 0, CLASSES);
             a.labels = ballast_labels_i64(NULL); a.grad.data = NULL; a.row_loss = NULL;
             a.row_weight = NULL; a.reduction = BALLAST_SUM);
    assert_true(m.loss == 0.0);
    ACCEPTED(ce, a.logits.outer = 0; a.grad.outer = 0);
    assert_true(isnan(m.loss) && !signbit(m.loss));
    ACCEPTED(ce, a.logits.outer = 0; a.grad.outer = 0; a.empty = BALLAST_EMPTY_ZERO);
    assert_true(m.loss == 0.0);
    ACCEPTED(bce, DENSE(a); a.targets = ballast_const_matrix_f32(NULL, 0, CLASSES);
             a.logits.outer = 0; a.grad.outer = 0; a.element_loss.outer = 0);
    assert_true(isnan(m.loss));
    ACCEPTED(ws, a.x = ballast_vector_f32(NULL, 0); a.weights.data = NULL);
    assert_true(m.loss == 0.0);
    ACCEPTED(wm, a.x = ballast_vector_f32(NULL, 0); a.weights.data = NULL);
    assert_true(isnan(m.loss));
    ACCEPTED(wl, a.x = ballast_vector_f32(NULL, 0); a.weights.data = NULL);
    assert_true(m.loss == -INFINITY);
}

/* Weights that cancel are a denominator of 0, too. */
static void weights_that_cancel(void **state)
{
    (void)state;
    ACCEPTED(wm, a.x.count = a.weights.count = 2; m.x2[0] = 1.0f; m.x2[1] = -1.0f);
    assert_true(isnan(m.loss));
}

static void no_classes(void **state)
{
    (void)state;
    ACCEPTED(sm, a.input = ballast_const_matrix_f32(NULL, ROWS, 0);
             a.output = ballast_matrix_f32(NULL, ROWS, 0));
    ACCEPTED(lse, a.input = ballast_const_matrix_f32(NULL, ROWS, 0));
    assert_true(m.row_out[ROWS - 1] == -INFINITY);
    LABEL(ce, a.logits.classes = 0; a.grad.classes = 0, 0, 0);
    ACCEPTED(ce, a.logits.classes = 0; a.grad.classes = 0;
             for (int i = 0; i < ROWS; i++) m.labels[i] = -100);
    assert_true(isnan(m.loss) && m.row_out[0] == 0.0f);
}

/* Denominator 0 with rows that count: weights that are all 0. */
static void no_weight(void **state)
{
    (void)state;
    ACCEPTED(ce, memset(m.class_weight, 0, sizeof m.class_weight));
    assert_true(isnan(m.loss));
    for (int i = 0; i < ROWS * CLASSES; i++)
        assert_true(m.out[i] == 0.0f);
    ACCEPTED(ce, memset(m.class_weight, 0, sizeof m.class_weight); a.empty = BALLAST_EMPTY_ZERO);
    assert_true(m.loss == 0.0);
}

/* A NaN with sign and digits of its own does not reach a reduced result. */
static void nan_is_canonical(void **state)
{
    static const uint32_t foreign = 0xffc12345;
    uint64_t bits;

    (void)state;
    ACCEPTED(ws, memcpy(m.x, &foreign, sizeof foreign));
    memcpy(&bits, &m.loss, sizeof bits);
    assert_true(bits == UINT64_C(0x7ff8000000000000));
    ACCEPTED(pc, memcpy(m.x, &foreign, sizeof foreign));
    memcpy(&bits, &m.means[0], sizeof bits);
    assert_true(bits == UINT64_C(0x7ff8000000000000));
}

/* ---- Messages -------------------------------------------------------------------------------- */

static void messages(void **state)
{
    static const struct {
        ballast_error error;
        const char *text;
    } cases[] = {
        {{BALLAST_ERR_LABEL, "labels", 17, 12, 12.0},
         "labels[17] = 12: label outside [0, classes) and not ignore_index"},
        {{BALLAST_ERR_LABEL, "labels", 0, INT64_MAX, 0x1p63},
         "labels[0] = 9223372036854775807: label outside [0, classes) and not ignore_index"},
        {{BALLAST_ERR_WEIGHT, "row_weight", 3, 0, -0.5},
         "row_weight[3] = -0.5: weight that is negative, infinite or NaN"},
        {{BALLAST_ERR_NULL, "logits", -1, 0, 0.0}, "logits: a pointer that is needed is NULL"},
        {{BALLAST_ERR_OPTION, "loss", -1, 0, 0.0},
         "loss: outside its range, or excluded by another argument"},
        {{BALLAST_OK, NULL, -1, 0, 0.0}, "no error"},
        {{(ballast_status)77, NULL, -1, 0, 0.0}, "unknown status"},
    };
    char text[128];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(ballast_error_message(&cases[i].error, text, sizeof text),
                            cases[i].text);
    assert_string_equal(ballast_error_message(NULL, text, sizeof text), "no error");
    memset(text, 'x', sizeof text);
    assert_string_equal(ballast_error_message(&cases[0].error, text, 7), "labels");
    assert_int_equal(text[7], 'x');
    assert_null(ballast_error_message(&cases[0].error, NULL, 0));
    assert_string_equal(ballast_status_name(BALLAST_ERR_UNSUPPORTED), "BALLAST_ERR_UNSUPPORTED");
    assert_string_equal(ballast_status_name((ballast_status)-1), "unknown status");
    assert_string_equal(ballast_version(), "0.1.0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(struct_sizes, fill),
        cmocka_unit_test_setup(exec_is_checked, fill),
        cmocka_unit_test_setup(shared_rows_are_checked, fill),
        cmocka_unit_test_setup(plan_is_needed, fill),
        cmocka_unit_test_setup(softmax_tensors, fill),
        cmocka_unit_test_setup(backward_tensors, fill),
        cmocka_unit_test_setup(placements, fill),
        cmocka_unit_test_setup(cross_entropy_arguments, fill),
        cmocka_unit_test_setup(plain_arguments, fill),
        cmocka_unit_test_setup(at_once_is_as_planned, fill),
        cmocka_unit_test_setup(class_balanced_arguments, fill),
        cmocka_unit_test_setup(binary_cross_entropy_arguments, fill),
        cmocka_unit_test_setup(sigmoid_focal_arguments, fill),
        cmocka_unit_test_setup(reduction_arguments, fill),
        cmocka_unit_test_setup(sums_at_once_are_as_planned, fill),
        cmocka_unit_test_setup(per_class_arguments, fill),
        cmocka_unit_test_setup(class_weights_arguments, fill),
        cmocka_unit_test_setup(class_weights_counts_labels, fill),
        cmocka_unit_test_setup(per_class_of_many_classes, fill),
        cmocka_unit_test_setup(effective_number_range, fill),
        cmocka_unit_test_setup(no_rows, fill),
        cmocka_unit_test_setup(weights_that_cancel, fill),
        cmocka_unit_test_setup(no_classes, fill),
        cmocka_unit_test_setup(no_weight, fill),
        cmocka_unit_test_setup(nan_is_canonical, fill),
        cmocka_unit_test_setup(messages, fill),
    };

    return cmocka_run_group_tests_name("arguments", tests, NULL, NULL);
}
