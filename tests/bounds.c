/* SPDX-License-Identifier: MIT */
/* No operation reads or writes a byte outside of its arguments.
 *
 * Every array of a problem lies in memory of its own between two pages that nobody may touch, and
 * either ends at the one or begins at the other. Inputs are mapped read-only. What is not part of
 * an output, the gaps between its rows too, holds a canary that must survive. Results are compared
 * in bits with those of the scalar implementation on plain memory.
 *
 * Sanitizers are no substitute: they do not see masked loads, masked stores and gathers. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ballast/ballast.h>

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- Slots: memory between guard pages ----------------------------------------------------- */

enum slot {
    X, /* logits, input, output of the forward call, x */
    LABELS,
    TARGETS, /* also grad_output, weights of a vector */
    CLASS_WEIGHT,
    ROW_WEIGHT,
    GRAD_ROWS,
    LOSS,
    ROWS_OUT, /* row_loss, output of log_sum_exp */
    ELEMENTS, /* element_loss */
    GRAD,     /* also output, grad_input */
    ARGS,
    PLAN,
    SLOTS
};

enum { SLOT_BYTES = 1 << 19, CANARY = 0xa7, MARGIN = 256 };

/* The same memory three times: to prepare it in, guarded for reading, guarded for writing. */
typedef struct memory {
    unsigned char *own, *readable, *writable;
} memory;

static memory slots[SLOTS];
static unsigned char *plain[SLOTS];

static unsigned char *map_guarded(int file, int protection)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *all =
        mmap(NULL, SLOT_BYTES + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (all == MAP_FAILED)
        return NULL;
    void *inside = mmap(all + page, SLOT_BYTES, protection, MAP_SHARED | MAP_FIXED, file, 0);
    return inside == MAP_FAILED ? NULL : inside;
}

static bool make_slot(memory *m)
{
    FILE *file = tmpfile();

    if (!file || ftruncate(fileno(file), SLOT_BYTES) != 0)
        return false;
    m->own = mmap(NULL, SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    m->readable = map_guarded(fileno(file), PROT_READ);
    m->writable = map_guarded(fileno(file), PROT_READ | PROT_WRITE);
    fclose(file);
    return m->own != MAP_FAILED && m->readable && m->writable;
}

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < SLOTS; i++) {
        plain[i] = aligned_alloc(64, SLOT_BYTES);
        if (!plain[i] || !make_slot(&slots[i]))
            return -1;
    }
    return 0;
}

/* ---- A problem ----------------------------------------------------------------------------- */

enum operation {
    SOFTMAX,
    LOG_SOFTMAX,
    LOG_SUM_EXP,
    SOFTMAX_BACKWARD,
    LOG_SOFTMAX_BACKWARD,
    CROSS_ENTROPY,
    BINARY_CROSS_ENTROPY,
    SIGMOID_FOCAL,
    CB_SOFTMAX,
    CB_SIGMOID,
    CB_FOCAL,
    WEIGHTED_SUM,
    WEIGHTED_MEAN,
    WEIGHTED_SUM_OF_SQUARES,
    DOT,
    WEIGHTED_LOG_SUM_EXP,
    OPERATIONS
};

static const char *const operation_names[OPERATIONS] = {"softmax",
                                                        "log_softmax",
                                                        "log_sum_exp",
                                                        "softmax_backward",
                                                        "log_softmax_backward",
                                                        "cross_entropy",
                                                        "binary_cross_entropy",
                                                        "sigmoid_focal",
                                                        "cb_softmax",
                                                        "cb_sigmoid",
                                                        "cb_focal",
                                                        "weighted_sum",
                                                        "weighted_mean",
                                                        "weighted_sum_of_squares",
                                                        "dot",
                                                        "weighted_log_sum_exp"};

enum target { LABELS_U8, LABELS_I32, LABELS_I64, DENSE, DENSE_U8, TARGET_KINDS };

/* Outputs that are wanted, as bits. */
enum { WANT_LOSS = 1, WANT_ROWS = 2, WANT_ELEMENTS = 4, WANT_GRAD = 8, WANT_ALL = 15 };

/* Inputs that need not be there, as bits. Upstream row gradients exclude a reduced loss. */
enum { WITH_CLASS_WEIGHT = 1, WITH_ROW_WEIGHT = 2, WITH_GRAD_ROWS = 4 };

enum placement { AT_END, AT_BEGIN, IN_BETWEEN, PLACEMENTS };
static const char *const placement_names[PLACEMENTS] = {"end", "begin", "between"};

typedef struct array {
    unsigned char *data; /* as the library sees it; NULL: not given */
    unsigned char *own;  /* as the test sees it */
    size_t size;         /* of an element */
    int64_t rows, width, stride;
} array;

typedef struct problem {
    enum operation operation;
    bool f64;
    int64_t rows, classes, padding; /* padding: row stride - classes */
    enum target target;
    unsigned wanted, with;
    double gamma;
    bool in_place;
    enum slot in_place_with; /* the input that becomes the output */
    bool guarded;
    enum placement placement;
    int offset; /* of IN_BETWEEN, in elements */
    array at[SLOTS];
} problem;

static char current[256]; /* the problem that runs, for the handler */

static void describe(const problem *p, const char *isa)
{
    snprintf(current, sizeof current,
             "%s:%s:rows=%lld,classes=%lld,padding=%lld,target=%d,wanted=%u,with=%u,gamma=%g,"
             "in_place=%d,%s+%d on %s",
             operation_names[p->operation], p->f64 ? "f64" : "f32", (long long)p->rows,
             (long long)p->classes, (long long)p->padding, (int)p->target, p->wanted, p->with,
             p->gamma, (int)p->in_place, placement_names[p->placement], p->offset, isa);
}

static void on_fault(int number)
{
    static const char text[] = "outside of an argument: ";

    if (write(STDERR_FILENO, text, sizeof text - 1) < 0 ||
        write(STDERR_FILENO, current, strlen(current)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
        _exit(3);
    signal(number, SIG_DFL); /* the access is repeated, and ends the program */
}

/* ---- Placing arrays ------------------------------------------------------------------------ */

static size_t span_of(const array *a)
{
    return a->rows > 0 ? (size_t)((a->rows - 1) * a->stride + a->width) * a->size : 0;
}

static size_t offset_of(const problem *p, const array *a)
{
    switch (p->placement) {
    case AT_END:
        return SLOT_BYTES - span_of(a);
    case AT_BEGIN:
        return 0;
    default:
        return MARGIN + (size_t)p->offset * a->size;
    }
}

/* The bytes around an array, as far as they are filled and looked at. */
static void neighbourhood(const array *a, unsigned char *slot, unsigned char **from,
                          unsigned char **to)
{
    unsigned char *end = a->own + span_of(a);

    *from = a->own - slot < MARGIN ? slot : a->own - MARGIN;
    *to = slot + SLOT_BYTES - end < MARGIN ? slot + SLOT_BYTES : end + MARGIN;
}

static void place(problem *p, enum slot slot, size_t size, int64_t rows, int64_t width,
                  int64_t stride, bool written)
{
    array *a = &p->at[slot];
    unsigned char *from, *to;

    *a = (array){NULL, NULL, size, rows, width, stride};
    assert_true(span_of(a) + 2 * MARGIN <= SLOT_BYTES);
    const size_t offset = p->guarded ? offset_of(p, a) : 0;
    unsigned char *own = p->guarded ? slots[slot].own : plain[slot];
    unsigned char *seen = written ? slots[slot].writable : slots[slot].readable;
    a->own = own + offset;
    a->data = p->guarded ? seen + offset : a->own;
    neighbourhood(a, own, &from, &to);
    memset(from, CANARY, (size_t)(to - from));
}

static size_t real_size(const problem *p) { return p->f64 ? 8 : 4; }

static void place_matrix(problem *p, enum slot slot, size_t size, bool written)
{
    place(p, slot, size, p->rows, p->classes, p->classes + p->padding, written);
}

static void place_vector(problem *p, enum slot slot, size_t size, int64_t count, bool written)
{
    place(p, slot, size, 1, count, count, written);
}

/* ---- Filling them -------------------------------------------------------------------------- */

static uint32_t hash_of(uint32_t slot, int64_t row, int64_t column)
{
    uint32_t h = slot * 0x9e3779b9u ^ (uint32_t)row * 0x85ebca6bu ^ (uint32_t)column * 0xc2b2ae35u;

    h ^= h >> 15;
    h *= 0x2c1b3c6du;
    h ^= h >> 12;
    h *= 0x297a2d39u;
    return h ^ h >> 15;
}

static void set_real(const array *a, int64_t row, int64_t column, double value)
{
    unsigned char *at = a->own + (size_t)(row * a->stride + column) * a->size;
    const float f = (float)value;

    if (a->size == 4)
        memcpy(at, &f, sizeof f);
    else
        memcpy(at, &value, sizeof value);
}

static void set_integer(const array *a, int64_t row, int64_t column, int64_t value)
{
    memcpy(a->own + (size_t)(row * a->stride + column) * a->size, &value, a->size);
}

/* low + fraction of (high - low); negative logits only, too, as padding must not win a maximum. */
static void fill_reals(const problem *p, enum slot slot, double low, double high)
{
    const array *a = &p->at[slot];

    for (int64_t r = 0; r < a->rows; r++)
        for (int64_t c = 0; c < a->width; c++)
            set_real(a, r, c,
                     low + (high - low) * (double)(float)(hash_of(slot, r, c) >> 8) * 0x1p-24);
}

static void fill_labels(const problem *p)
{
    const array *a = &p->at[LABELS];
    const int64_t limit = p->target == LABELS_U8 && p->classes > 256 ? 256 : p->classes;

    for (int64_t r = 0; r < a->width; r++)
        set_integer(a, 0, r, limit > 0 ? (r == 0 ? limit - 1 : hash_of(LABELS, r, 0) % limit) : 7);
}

static void fill_targets(const problem *p)
{
    const array *a = &p->at[TARGETS];
    const bool soft = p->operation == BINARY_CROSS_ENTROPY;

    for (int64_t r = 0; r < a->rows; r++)
        for (int64_t c = 0; c < a->width; c++) {
            const uint32_t h = hash_of(TARGETS, r, c);

            if (a->size == 1)
                set_integer(a, r, c, h & 1);
            else
                set_real(a, r, c, soft ? (double)(h >> 8) * 0x1p-24 : (double)(h & 1));
        }
}

static void fill(const problem *p)
{
    fill_reals(p, X, -9.0, p->classes % 2 ? -1.0 : 9.0);
    fill_reals(p, CLASS_WEIGHT, 0.1, 2.0);
    fill_reals(p, ROW_WEIGHT, 0.1, 3.0);
    fill_reals(p, GRAD_ROWS, -1.0, 3.0);
    fill_labels(p);
    fill_targets(p);
}

/* ---- Which arrays an operation has --------------------------------------------------------- */

static bool is_loss(const problem *p)
{
    return p->operation >= CROSS_ENTROPY && p->operation <= CB_FOCAL;
}

static bool is_reduction(const problem *p) { return p->operation >= WEIGHTED_SUM; }

static bool is_dense(const problem *p) { return p->target >= DENSE; }

static bool has_elements(const problem *p)
{
    return p->operation == BINARY_CROSS_ENTROPY || p->operation == SIGMOID_FOCAL;
}

static bool is_backward(const problem *p)
{
    return p->operation == SOFTMAX_BACKWARD || p->operation == LOG_SOFTMAX_BACKWARD;
}

static void place_loss(problem *p)
{
    static const size_t label_size[] = {1, 4, 8};
    const size_t real = real_size(p);

    if (is_dense(p))
        place_matrix(p, TARGETS, p->target == DENSE ? real : 1, false);
    else
        place_vector(p, LABELS, label_size[p->target], p->rows, false);
    if (p->with & WITH_CLASS_WEIGHT)
        place_vector(p, CLASS_WEIGHT, real, p->classes, false);
    if (p->with & WITH_ROW_WEIGHT)
        place_vector(p, ROW_WEIGHT, real, p->rows, false);
    if (p->with & WITH_GRAD_ROWS)
        place_vector(p, GRAD_ROWS, real, p->rows, false);
    if (p->wanted & WANT_LOSS)
        place_vector(p, LOSS, sizeof(double), 1, true);
    if (p->wanted & WANT_ROWS)
        place_vector(p, ROWS_OUT, real, p->rows, true);
    if (p->wanted & WANT_ELEMENTS)
        place_matrix(p, ELEMENTS, real, true);
}

static void place_reduction(problem *p)
{
    place_vector(p, X, real_size(p), p->classes, false);
    if (p->with & WITH_CLASS_WEIGHT || p->operation == DOT)
        place_vector(p, TARGETS, real_size(p), p->classes, false);
    place_vector(p, LOSS, sizeof(double), 1, true);
}

static void place_matrices(problem *p)
{
    const size_t real = real_size(p);
    const bool writes_matrix =
        p->operation != LOG_SUM_EXP && (!is_loss(p) || p->wanted & WANT_GRAD);

    place_matrix(p, X, real, p->in_place && p->in_place_with == X);
    if (is_loss(p))
        place_loss(p);
    if (is_backward(p))
        place_matrix(p, TARGETS, real, p->in_place && p->in_place_with == TARGETS);
    if (p->operation == LOG_SUM_EXP)
        place_vector(p, ROWS_OUT, real, p->rows, true);
    if (writes_matrix && !p->in_place)
        place_matrix(p, GRAD, real, true);
    if (writes_matrix && p->in_place)
        p->at[GRAD] = p->at[p->in_place_with];
}

static void place_all(problem *p)
{
    memset(p->at, 0, sizeof p->at);
    if (is_reduction(p))
        place_reduction(p);
    else
        place_matrices(p);
    fill(p);
}

/* ---- The call ------------------------------------------------------------------------------ */

static ballast_dtype real_dtype(const problem *p) { return p->f64 ? BALLAST_F64 : BALLAST_F32; }

static ballast_tensor tensor(const problem *p, enum slot slot)
{
    const array *a = &p->at[slot];

    return (ballast_tensor){
        a->data, a->size == 1 ? BALLAST_U8 : real_dtype(p), a->rows, a->width, 1, a->stride, 1};
}

static ballast_const_tensor const_tensor(const problem *p, enum slot slot)
{
    const ballast_tensor t = tensor(p, slot);

    return (ballast_const_tensor){t.data,  t.dtype,        t.outer,       t.classes,
                                  t.inner, t.outer_stride, t.class_stride};
}

static ballast_labels labels(const problem *p)
{
    static const ballast_dtype dtypes[] = {BALLAST_U8, BALLAST_I32, BALLAST_I64};

    return (ballast_labels){p->at[LABELS].data, dtypes[p->target]};
}

static ballast_vector vector(const problem *p, enum slot slot)
{
    return (ballast_vector){p->at[slot].data, real_dtype(p), p->at[slot].width};
}

/* The struct of arguments, read-only and at the end of its page too. */
static const void *guarded_args(const problem *p, const void *args, size_t size)
{
    const size_t offset = SLOT_BYTES - size;

    if (!p->guarded)
        return args;
    memcpy(slots[ARGS].own + offset, args, size);
    return slots[ARGS].readable + offset;
}

static ballast_plan *guarded_plan(void)
{
    return (ballast_plan *)(void *)(slots[PLAN].writable + SLOT_BYTES - sizeof(ballast_plan));
}

static ballast_status run_plan(ballast_status prepared)
{
    ballast_plan *plan = guarded_plan();

    if (prepared != BALLAST_OK)
        return prepared;
    const int64_t rows = ballast_plan_row_count(plan), step = ballast_plan_row_step(plan);
    const int64_t half = rows / 2 / step * step;
    const ballast_status second = ballast_plan_rows(plan, half, rows);
    const ballast_status first = ballast_plan_rows(plan, 0, half);
    return second != BALLAST_OK ? second : first != BALLAST_OK ? first : ballast_plan_finish(plan);
}

#define CALL(function, args)                                                                       \
    do {                                                                                           \
        const void *in_ = guarded_args(p, &(args), sizeof(args));                                  \
        if (p->guarded && p->placement == IN_BETWEEN)                                              \
            return run_plan(ballast_##function##_prepare(in_, exec, guarded_plan()));              \
        return ballast_##function(in_, exec);                                                      \
    } while (0)

#define FUNCTION(name) static ballast_status name(const problem *p, const ballast_exec *exec)

FUNCTION(run_softmax)
{
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;

    a.input = const_tensor(p, X);
    a.output = tensor(p, GRAD);
    if (p->operation == SOFTMAX)
        CALL(softmax, a);
    CALL(log_softmax, a);
}

FUNCTION(run_log_sum_exp)
{
    ballast_log_sum_exp_args a = BALLAST_LOG_SUM_EXP_ARGS;

    a.input = const_tensor(p, X);
    a.output = p->at[ROWS_OUT].data;
    CALL(log_sum_exp, a);
}

FUNCTION(run_backward)
{
    ballast_softmax_backward_args a = BALLAST_SOFTMAX_BACKWARD_ARGS;

    a.output = const_tensor(p, X);
    a.grad_output = const_tensor(p, TARGETS);
    a.grad_input = tensor(p, GRAD);
    if (p->operation == SOFTMAX_BACKWARD)
        CALL(softmax_backward, a);
    CALL(log_softmax_backward, a);
}

#define SET_LOSS(a)                                                                                \
    a.logits = const_tensor(p, X);                                                                 \
    if (!is_dense(p))                                                                              \
        a.labels = labels(p);                                                                      \
    a.class_weight = p->at[CLASS_WEIGHT].data;                                                     \
    a.grad_rows = p->at[GRAD_ROWS].data;                                                           \
    a.reduction = p->with & WITH_GRAD_ROWS ? BALLAST_NONE : BALLAST_SUM;                           \
    a.grad_scale = 0.7;                                                                            \
    a.loss = (double *)(void *)p->at[LOSS].data;                                                   \
    a.row_loss = p->at[ROWS_OUT].data;                                                             \
    a.grad = tensor(p, GRAD)

FUNCTION(run_cross_entropy)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    SET_LOSS(a);
    a.row_weight = p->at[ROW_WEIGHT].data;
    CALL(cross_entropy, a);
}

#define SET_SIGMOID(a)                                                                             \
    SET_LOSS(a);                                                                                   \
    if (is_dense(p))                                                                               \
        a.targets = const_tensor(p, TARGETS);                                                      \
    a.row_weight = p->at[ROW_WEIGHT].data;                                                         \
    a.element_loss = tensor(p, ELEMENTS)

FUNCTION(run_binary_cross_entropy)
{
    ballast_binary_cross_entropy_args a = BALLAST_BINARY_CROSS_ENTROPY_ARGS;

    SET_SIGMOID(a);
    CALL(binary_cross_entropy, a);
}

FUNCTION(run_sigmoid_focal)
{
    ballast_sigmoid_focal_args a = BALLAST_SIGMOID_FOCAL_ARGS;

    SET_SIGMOID(a);
    a.gamma = p->gamma;
    CALL(sigmoid_focal, a);
}

FUNCTION(run_class_balanced)
{
    ballast_class_balanced_args a = BALLAST_CLASS_BALANCED_ARGS;

    SET_LOSS(a);
    a.kind = (ballast_class_balanced_kind)(p->operation - CB_SOFTMAX);
    a.gamma = p->gamma;
    CALL(class_balanced_loss, a);
}

#define REDUCTION(name)                                                                            \
    FUNCTION(run_##name)                                                                           \
    {                                                                                              \
        ballast_reduce_args a = BALLAST_REDUCE_ARGS;                                               \
                                                                                                   \
        a.x = vector(p, X);                                                                        \
        if (p->at[TARGETS].data)                                                                   \
            a.weights = vector(p, TARGETS);                                                        \
        a.result = (double *)(void *)p->at[LOSS].data;                                             \
        CALL(name, a);                                                                             \
    }
REDUCTION(weighted_sum)
REDUCTION(weighted_mean)
REDUCTION(weighted_sum_of_squares)
REDUCTION(dot)
REDUCTION(weighted_log_sum_exp)

static ballast_status run(const problem *p, const char *isa)
{
    static ballast_status (*const functions[OPERATIONS])(const problem *, const ballast_exec *) = {
        run_softmax,
        run_softmax,
        run_log_sum_exp,
        run_backward,
        run_backward,
        run_cross_entropy,
        run_binary_cross_entropy,
        run_sigmoid_focal,
        run_class_balanced,
        run_class_balanced,
        run_class_balanced,
        run_weighted_sum,
        run_weighted_mean,
        run_weighted_sum_of_squares,
        run_dot,
        run_weighted_log_sum_exp};
    ballast_exec exec = BALLAST_EXEC;

    exec.implementation = ballast_implementation_find(isa);
    describe(p, isa);
    return functions[p->operation](p, &exec);
}

/* ---- Checks -------------------------------------------------------------------------------- */

static const enum slot outputs[] = {LOSS, ROWS_OUT, ELEMENTS, GRAD};
enum { OUTPUTS = sizeof outputs / sizeof outputs[0] };

static void check_equal(const problem *p, const problem *expected, enum slot slot)
{
    const array *a = &p->at[slot], *e = &expected->at[slot];
    const size_t bytes = (size_t)a->width * a->size;

    for (int64_t r = 0; a->data && r < a->rows; r++) {
        const unsigned char *got = a->own + (size_t)(r * a->stride) * a->size;
        const unsigned char *want = e->own + (size_t)(r * e->stride) * e->size;

        for (size_t i = 0; i < bytes; i++)
            if (got[i] != want[i])
                fail_msg("%s: output %d: other bits than scalar on plain memory, first at [%lld]"
                         "[%lld]",
                         current, (int)slot, (long long)r, (long long)(i / a->size));
    }
}

static bool is_canary(const unsigned char *from, const unsigned char *to)
{
    while (from < to)
        if (*from++ != CANARY)
            return false;
    return true;
}

static void check_canaries(const problem *p, enum slot slot)
{
    const array *a = &p->at[slot];
    const enum slot home = slot == GRAD && p->in_place ? p->in_place_with : slot;
    unsigned char *from, *to;

    if (!a->data)
        return;
    neighbourhood(a, slots[home].own, &from, &to);
    bool whole = is_canary(from, a->own) && is_canary(a->own + span_of(a), to);
    for (int64_t r = 0; r + 1 < a->rows; r++) {
        const unsigned char *gap = a->own + (size_t)(r * a->stride + a->width) * a->size;

        whole = whole && is_canary(gap, gap + (size_t)(a->stride - a->width) * a->size);
    }
    if (!whole)
        fail_msg("%s: output %d: written outside of it", current, (int)slot);
}

/* Problem p, as it is, against what scalar gives on plain memory. */
static void check(problem *p, const problem *expected, const char *isa)
{
    p->guarded = true;
    place_all(p);
    const ballast_status status = run(p, isa);
    if (status != BALLAST_OK)
        fail_msg("%s: %s", current, ballast_status_name(status));
    for (int i = 0; i < OUTPUTS; i++) {
        check_equal(p, expected, outputs[i]);
        check_canaries(p, outputs[i]);
    }
}

static problem expect(const problem *p, bool elements)
{
    problem e = *p;

    e.guarded = e.in_place = false;
    e.padding = 0;
    e.wanted = WANT_ALL & ~(elements ? 0u : (unsigned)WANT_ELEMENTS) &
               ~(p->with & WITH_GRAD_ROWS ? (unsigned)WANT_LOSS : 0u);
    place_all(&e);
    assert_int_equal(run(&e, "scalar"), BALLAST_OK);
    return e;
}

/* ---- Sweeps -------------------------------------------------------------------------------- */

/* 0 to 130, and around the sizes of a span and of a chunk; vectors have leaves as well. */
static bool next_width(int64_t *width, bool is_vector)
{
    static const int64_t after[] = {255, 256, 257, 258, 259, 2047, 2048, 2049, 2050};
    static const int64_t vectors[] = {4095, 4096, 4097, 8191, 8200};

    if (*width < 130)
        return ++*width, true;
    for (size_t i = 0; i < sizeof after / sizeof after[0]; i++)
        if (*width < after[i])
            return *width = after[i], true;
    for (size_t i = 0; is_vector && i < sizeof vectors / sizeof vectors[0]; i++)
        if (*width < vectors[i])
            return *width = vectors[i], true;
    return false;
}

/* Around the sixteen rows that share a logarithm, too. */
static int64_t rows_for(int64_t width)
{
    static const int64_t rows[] = {3, 1, 2, 17, 5, 16};

    return width > 300 ? 1 + width % 3 : rows[width % 6];
}

/* Tight rows, a gap of one, and one that is more than a block. */
static void for_each_layout(problem *p, const problem *expected, const char *isa)
{
    static const int64_t paddings[] = {0, 1, 19};

    for (int placement = 0; placement < PLACEMENTS; placement++) {
        p->placement = (enum placement)placement;
        p->offset = placement == IN_BETWEEN ? 1 + (int)(p->classes + p->wanted) % 17 : 0;
        p->padding = paddings[(p->classes + placement + (int64_t)p->wanted / 4) % 3];
        check(p, expected, isa);
    }
}

static void sweep_softmax(bool f64, const char *isa)
{
    for (int64_t width = -1; next_width(&width, false);)
        for (int op = SOFTMAX; op <= LOG_SOFTMAX_BACKWARD; op++) {
            problem p = {.operation = (enum operation)op,
                         .f64 = f64,
                         .classes = width,
                         .rows = rows_for(width)};
            const problem expected = expect(&p, false);

            for_each_layout(&p, &expected, isa);
            if (op == LOG_SUM_EXP)
                continue;
            p.in_place = true;
            p.in_place_with = X;
            for_each_layout(&p, &expected, isa);
            p.in_place_with = TARGETS;
            if (is_backward(&p))
                for_each_layout(&p, &expected, isa);
        }
}

/* Loss only, gradient only, both, all; and the gradient in place of the logits. */
static void for_each_choice_of_outputs(problem *p, const char *isa)
{
    static const unsigned choices[] = {WANT_LOSS,     WANT_ROWS, WANT_GRAD, WANT_LOSS | WANT_GRAD,
                                       WANT_ELEMENTS, WANT_ALL};
    const problem expected = expect(p, has_elements(p));

    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        p->wanted = choices[i] & expected.wanted;
        p->in_place = false;
        for_each_layout(p, &expected, isa);
        p->in_place = true;
        p->in_place_with = X;
        if (p->wanted & WANT_GRAD)
            for_each_layout(p, &expected, isa);
    }
}

static void sweep_loss(enum operation op, double gamma, bool f64, const char *isa)
{
    const problem kind = {.operation = op};
    const int targets = has_elements(&kind) ? TARGET_KINDS : DENSE;
    const unsigned balanced = op >= CB_SOFTMAX ? WITH_CLASS_WEIGHT : 0;

    for (int64_t width = 0; next_width(&width, false);)
        for (int target = 0; target < targets; target++) {
            problem p = {.operation = op,
                         .f64 = f64,
                         .rows = rows_for(width),
                         .classes = width,
                         .target = (enum target)target,
                         .gamma = gamma};

            p.with = (unsigned)(width + target * 3) % 8 | balanced;
            if (balanced)
                p.with &= ~(unsigned)WITH_ROW_WEIGHT;
            if (is_dense(&p))
                p.with &= ~(unsigned)WITH_CLASS_WEIGHT;
            for_each_choice_of_outputs(&p, isa);
        }
}

/* Rows that go sixteen at a time, and what is left of them: every width with every number of rows. */
static void sweep_short_rows(const char *isa)
{
    for (int64_t width = 1; width <= 40; width++)
        for (int64_t rows = 1; rows <= 40; rows++) {
            problem p = {.operation = (enum operation)((width + rows) % 3), /* softmax and its logs */
                         .classes = width,
                         .rows = rows};
            problem loss = {.operation = CROSS_ENTROPY, .classes = width, .rows = rows};
            problem expected = expect(&p, false);

            p.in_place = p.operation != LOG_SUM_EXP && rows % 2;
            p.in_place_with = X;
            for_each_layout(&p, &expected, isa);
            loss.with = (unsigned)(width + rows) % 8;
            expected = expect(&loss, false);
            loss.wanted = (WANT_LOSS | WANT_GRAD) & expected.wanted;
            loss.in_place = rows % 3 == 0;
            loss.in_place_with = X;
            for_each_layout(&loss, &expected, isa);
        }
}

static void sweep_reductions(bool f64, const char *isa)
{
    for (int64_t width = -1; next_width(&width, true);)
        for (int op = WEIGHTED_SUM; op < OPERATIONS; op++)
            for (unsigned with = 0; with <= WITH_CLASS_WEIGHT; with++) {
                problem p = {.operation = (enum operation)op,
                             .f64 = f64,
                             .rows = 1,
                             .classes = width,
                             .with = with};
                const problem expected = expect(&p, false);

                for_each_layout(&p, &expected, isa);
            }
}

/* No rows and no classes: outputs of nothing, but for the losses. */
static void sweep_empty(bool f64, const char *isa)
{
    for (int op = 0; op < WEIGHTED_SUM; op++)
        for (int64_t rows = 0; rows < 3; rows++) {
            const bool balanced = op >= CB_SOFTMAX && op <= CB_FOCAL;
            problem p = {.operation = (enum operation)op,
                         .f64 = f64,
                         .rows = rows,
                         .classes = rows > 0 ? 0 : 5,
                         .target = LABELS_I32,
                         .with = balanced ? WITH_CLASS_WEIGHT : 0,
                         .gamma = 2.0};

            if (is_loss(&p) && !has_elements(&p) && rows > 0)
                continue; /* no label is right */
            if (has_elements(&p))
                p.target = DENSE;
            const problem expected = expect(&p, has_elements(&p));
            p.wanted = expected.wanted;
            for_each_layout(&p, &expected, isa);
        }
}

/* ---- Tests --------------------------------------------------------------------------------- */

static void skip_where_missing(const char *isa)
{
    char reason[128] = "not in this library";
    const ballast_implementation *implementation = ballast_implementation_find(isa);

    if (implementation && ballast_implementation_supported(implementation, reason, sizeof reason)) {
        signal(SIGSEGV, on_fault);
        signal(SIGBUS, on_fault);
        return;
    }
    print_message("skipped %s: %s\n", isa, reason);
    skip();
}

static bool library_has_f64(void)
{
    const double one = 1.0;
    double result;
    ballast_reduce_args a = BALLAST_REDUCE_ARGS;

    a.x = ballast_vector_f64(&one, 1);
    a.result = &result;
    return ballast_weighted_sum(&a, NULL) == BALLAST_OK;
}

/* The state is the ISA's name, or "f64": the one implementation of f64, as scalar calls it. */
static bool begin(void **state, const char **isa)
{
    const bool f64 = strcmp(*state, "f64") == 0;

    *isa = f64 ? "scalar" : *state;
    skip_where_missing(*isa);
    if (f64 && !library_has_f64()) {
        print_message("skipped f64: not in this library\n");
        skip();
    }
    return f64;
}

static void softmax(void **state)
{
    const char *isa;
    const bool f64 = begin(state, &isa);

    sweep_softmax(f64, isa);
}

static void short_rows(void **state)
{
    const char *isa;

    if (begin(state, &isa))
        skip(); /* f64 has no tiles */
    sweep_short_rows(isa);
}

static void losses(void **state)
{
    const char *isa;
    const bool f64 = begin(state, &isa);

    sweep_loss(CROSS_ENTROPY, 0.0, f64, isa);
    sweep_loss(BINARY_CROSS_ENTROPY, 0.0, f64, isa);
    sweep_loss(CB_SOFTMAX, 0.0, f64, isa);
    sweep_loss(CB_SIGMOID, 0.0, f64, isa);
    sweep_loss(CB_FOCAL, 2.0, f64, isa);
}

/* Each exponent that has code of its own, and one that has not. */
static void focal(void **state)
{
    static const double gammas[] = {0.0, 0.5, 1.0, 2.0, 3.7};
    const char *isa;
    const bool f64 = begin(state, &isa);

    for (size_t i = 0; i < sizeof gammas / sizeof gammas[0]; i++)
        sweep_loss(SIGMOID_FOCAL, gammas[i], f64, isa);
}

static void reductions(void **state)
{
    const char *isa;
    const bool f64 = begin(state, &isa);

    sweep_reductions(f64, isa);
}

static void nothing(void **state)
{
    const char *isa;
    const bool f64 = begin(state, &isa);

    sweep_empty(f64, isa);
}

/* ---- Calls without a plan ------------------------------------------------------------------ */

static void place_for_classes(problem *p, int placement, size_t label_size)
{
    p->guarded = true;
    p->placement = (enum placement)placement;
    p->offset = 1 + (int)p->classes % 17;
    memset(p->at, 0, sizeof p->at);
    place_vector(p, LABELS, label_size, p->rows, false);
    fill_labels(p);
}

static void check_vector(const problem *p, enum slot slot, const void *want)
{
    const array *a = &p->at[slot];

    if (memcmp(a->own, want, (size_t)a->width * a->size) != 0)
        fail_msg("%s: output %d: other bits than on plain memory", current, (int)slot);
    check_canaries(p, slot);
}

enum { MOST_CLASSES = 600 };

static void check_class_weights(problem *p, int placement, size_t label_size)
{
    double weights[MOST_CLASSES];
    int64_t counts[MOST_CLASSES];
    ballast_class_weights_args a = BALLAST_CLASS_WEIGHTS_ARGS;

    place_for_classes(p, placement, label_size);
    snprintf(current, sizeof current, "class_weights:classes=%lld,rows=%lld,%s,%s",
             (long long)p->classes, (long long)p->rows, p->f64 ? "f64" : "f32",
             placement_names[placement]);
    place_vector(p, GRAD, real_size(p), p->classes, true);
    place_vector(p, ELEMENTS, sizeof(int64_t), p->classes, true);
    a.classes = p->classes;
    a.label_count = p->rows;
    a.empty_class = p->classes % 2 ? BALLAST_EMPTY_CLASS_ZERO : BALLAST_EMPTY_CLASS_ONE;
    a.weights_dtype = real_dtype(p);
    a.labels = (ballast_labels){p->at[LABELS].own, labels(p).dtype};
    a.counts_out = counts;
    a.weights = weights;
    assert_int_equal(ballast_class_weights(&a), BALLAST_OK);
    a.labels = labels(p);
    a.counts_out = (int64_t *)(void *)p->at[ELEMENTS].data;
    a.weights = p->at[GRAD].data;
    assert_int_equal(ballast_class_weights(guarded_args(p, &a, sizeof a)), BALLAST_OK);
    check_vector(p, GRAD, weights);
    check_vector(p, ELEMENTS, counts);
    place_vector(p, X, sizeof(int64_t), p->classes, false); /* the counts as an input */
    memcpy(p->at[X].own, counts, sizeof counts[0] * (size_t)p->classes);
    place_vector(p, GRAD, real_size(p), p->classes, true);
    a.labels.data = NULL;
    a.counts_out = NULL;
    a.counts = (const int64_t *)(const void *)p->at[X].data;
    assert_int_equal(ballast_class_weights(guarded_args(p, &a, sizeof a)), BALLAST_OK);
    check_vector(p, GRAD, weights);
}

static void check_per_class(problem *p, int placement, size_t label_size)
{
    double sums[MOST_CLASSES], means[MOST_CLASSES];
    int64_t counts[MOST_CLASSES];
    ballast_per_class_args a = BALLAST_PER_CLASS_ARGS;

    place_for_classes(p, placement, label_size);
    snprintf(current, sizeof current, "per_class:classes=%lld,rows=%lld,%s,%s",
             (long long)p->classes, (long long)p->rows, p->f64 ? "f64" : "f32",
             placement_names[placement]);
    place_vector(p, X, real_size(p), p->rows, false);
    place_vector(p, GRAD, sizeof(double), p->classes, true);
    place_vector(p, ELEMENTS, sizeof(int64_t), p->classes, true);
    place_vector(p, ROWS_OUT, sizeof(double), p->classes, true);
    fill_reals(p, X, -1.0, 1.0);
    a.classes = p->classes;
    a.values = (ballast_vector){p->at[X].own, real_dtype(p), p->rows};
    a.labels = (ballast_labels){p->at[LABELS].own, labels(p).dtype};
    a.sums = sums;
    a.counts = counts;
    a.means = means;
    assert_int_equal(ballast_per_class(&a), BALLAST_OK);
    a.values = vector(p, X);
    a.labels = labels(p);
    a.sums = (double *)(void *)p->at[GRAD].data;
    a.counts = (int64_t *)(void *)p->at[ELEMENTS].data;
    a.means = (double *)(void *)p->at[ROWS_OUT].data;
    assert_int_equal(ballast_per_class(guarded_args(p, &a, sizeof a)), BALLAST_OK);
    check_vector(p, GRAD, sums);
    check_vector(p, ELEMENTS, counts);
    check_vector(p, ROWS_OUT, means);
}

static void classes(void **state)
{
    static const size_t label_size[] = {1, 4, 8};

    (void)state;
    skip_where_missing("scalar");
    for (int64_t width = 1; width <= MOST_CLASSES; width = width < 131 ? width + 1 : width + 157)
        for (int variant = 0; variant < 3 * PLACEMENTS * 2; variant++) {
            problem p = {.classes = width, .rows = 1 + width * 5 % 97, .f64 = variant % 2};
            const int placement = variant / 2 % PLACEMENTS, target = variant / 2 / PLACEMENTS;

            p.target = (enum target)target;
            check_class_weights(&p, placement, label_size[target]);
            check_per_class(&p, placement, label_size[target]);
        }
}

#define ON(isa)                                                                                    \
    {"softmax on " isa, softmax, NULL, NULL, isa}, {"losses on " isa, losses, NULL, NULL, isa},    \
        {"short rows on " isa, short_rows, NULL, NULL, isa},                                       \
        {"focal loss on " isa, focal, NULL, NULL, isa},                                            \
        {"reductions on " isa, reductions, NULL, NULL, isa},                                       \
    {                                                                                              \
        "nothing on " isa, nothing, NULL, NULL, isa                                                \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON("scalar"), ON("neon"), ON("avx2"), ON("avx512"), ON("f64"), cmocka_unit_test(classes),
    };

    return cmocka_run_group_tests_name("bounds", tests, setup, NULL);
}
