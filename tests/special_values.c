/* SPDX-License-Identifier: MIT */
/* Special values: zeros, subnormals, the largest numbers, infinities, NaN of every sort, at each
 * position of rows of many widths, and the edges of the options. What the header says of them
 * holds, every NaN is the canonical one, f32 gradients without factors are never subnormal, and all
 * bits are those of scalar. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ballast/ballast.h>

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ELEMENTS = 60000, MAX_ROWS = 400 };

/* ---- What is being tested: an ISA's f32, or f64 -------------------------------------------- */

static bool f64;
static const char *isa;
static char current[256];

static size_t real_size(void) { return f64 ? 8 : 4; }
static ballast_dtype real_dtype(void) { return f64 ? BALLAST_F64 : BALLAST_F32; }

static double get(const void *data, int64_t i)
{
    return f64 ? ((const double *)data)[i] : (double)((const float *)data)[i];
}

static uint64_t bits_at(const void *data, int64_t i)
{
    uint64_t bits = 0;

    memcpy(&bits, (const unsigned char *)data + (size_t)i * real_size(), real_size());
    return bits;
}

static void set_bits(void *data, int64_t i, uint64_t bits)
{
    memcpy((unsigned char *)data + (size_t)i * real_size(), &bits, real_size());
}

static void set(void *data, int64_t i, double value)
{
    if (f64)
        ((double *)data)[i] = value;
    else
        ((float *)data)[i] = (float)value;
}

static uint64_t canonical_nan(void) { return f64 ? UINT64_C(0x7ff8000000000000) : 0x7fc00000; }

static double smallest_normal(void) { return f64 ? DBL_MIN : (double)FLT_MIN; }
static double largest(void) { return f64 ? DBL_MAX : (double)FLT_MAX; }
static double epsilon(void) { return f64 ? DBL_EPSILON : (double)FLT_EPSILON; }

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
static void begin(void **state)
{
    char reason[128] = "not in this library";

    f64 = strcmp(*state, "f64") == 0;
    isa = f64 ? "scalar" : *state;
    const ballast_implementation *implementation = ballast_implementation_find(isa);
    if (f64 ? library_has_f64()
            : implementation &&
                  ballast_implementation_supported(implementation, reason, sizeof reason))
        return;
    print_message("skipped %s: %s\n", (const char *)*state, reason);
    skip();
}

static const ballast_exec *on(const char *name)
{
    static ballast_exec exec = BALLAST_EXEC;

    exec.implementation = ballast_implementation_find(name);
    return &exec;
}

static void must(ballast_status status)
{
    if (status != BALLAST_OK)
        fail_msg("%s: %s", current, ballast_status_name(status));
}

/* ---- Special values ------------------------------------------------------------------------ */

typedef struct special {
    const char *name;
    uint32_t f32;
    uint64_t f64;
} special;

#define REAL(name, f32, f64)                                                                       \
    {                                                                                              \
        name, f32, UINT64_C(f64)                                                                   \
    }
static const special specials[] = {
    REAL("0", 0x00000000, 0x0000000000000000),
    REAL("-0", 0x80000000, 0x8000000000000000),
    REAL("smallest subnormal", 0x00000001, 0x0000000000000001),
    REAL("-largest subnormal", 0x807fffff, 0x800fffffffffffff),
    REAL("smallest normal", 0x00800000, 0x0010000000000000),
    REAL("-smallest normal", 0x80800000, 0x8010000000000000),
    REAL("largest", 0x7f7fffff, 0x7fefffffffffffff),
    REAL("-largest", 0xff7fffff, 0xffefffffffffffff),
    REAL("+inf", 0x7f800000, 0x7ff0000000000000),
    REAL("-inf", 0xff800000, 0xfff0000000000000),
    REAL("quiet NaN", 0x7fc00000, 0x7ff8000000000000),
    REAL("-quiet NaN", 0xffc00000, 0xfff8000000000000),
    REAL("quiet NaN, payload", 0x7fc12345, 0x7ff8000012345678),
    REAL("-quiet NaN, all ones", 0xffffffff, 0xffffffffffffffff),
    REAL("signalling NaN", 0x7f800001, 0x7ff0000000000001),
    REAL("-signalling NaN", 0xff800001, 0xfff0000000000001),
    REAL("signalling NaN, payload", 0x7fbfffff, 0x7ff7ffffffffffff),
    REAL("1e30", 0x7149f2ca, 0x46293e5939a08cea),
    REAL("-1e30", 0xf149f2ca, 0xc6293e5939a08cea),
    REAL("65536", 0x47800000, 0x40f0000000000000),
    REAL("-65537", 0xc7800080, 0xc0f0001000000000),
    REAL("89", 0x42b20000, 0x4056400000000000),
    REAL("-89", 0xc2b20000, 0xc056400000000000),
    REAL("-104", 0xc2d00000, 0xc05a000000000000),
    REAL("210", 0x43520000, 0x406a400000000000),
    REAL("-210", 0xc3520000, 0xc06a400000000000),
};
enum { SPECIALS = sizeof specials / sizeof specials[0] };

static void set_special(void *data, int64_t i, const special *s)
{
    set_bits(data, i, f64 ? s->f64 : s->f32);
}

/* ---- A batch of rows, and everything that is computed of it -------------------------------- */

typedef struct batch {
    int64_t rows, classes;
    double gamma;
    double x[MAX_ELEMENTS]; /* f32 or f64 */
    double soft[MAX_ELEMENTS];
    uint8_t hard[MAX_ELEMENTS];
    int32_t labels[MAX_ROWS];
} batch;

enum matrix {
    SOFTMAX,
    LOG_SOFTMAX,
    SOFTMAX_BACKWARD,     /* of x as outputs, and of soft as upstream gradient */
    LOG_SOFTMAX_BACKWARD, /* the same */
    BACKWARD_OF_SPECIAL,  /* of soft as outputs, and of x as upstream gradient */
    CROSS_ENTROPY_GRAD,
    LABEL_LOSS, /* binary cross-entropy against labels */
    LABEL_GRAD,
    HARD_LOSS, /* against targets of u8 */
    HARD_GRAD,
    SOFT_LOSS, /* against soft targets */
    SOFT_GRAD,
    FOCAL_LABEL_LOSS,
    FOCAL_LABEL_GRAD,
    FOCAL_HARD_LOSS,
    FOCAL_HARD_GRAD,
    MATRICES
};
enum { FIRST_FOCAL = FOCAL_LABEL_LOSS };

enum vector {
    LOG_SUM_EXP,
    CROSS_ENTROPY_ROWS,
    LABEL_ROWS,
    HARD_ROWS,
    SOFT_ROWS,
    FOCAL_LABEL_ROWS,
    FOCAL_HARD_ROWS,
    VECTORS
};

static const char *const matrix_names[MATRICES] = {"softmax",
                                                   "log_softmax",
                                                   "softmax_backward",
                                                   "log_softmax_backward",
                                                   "softmax_backward of special gradients",
                                                   "cross-entropy grad",
                                                   "bce loss (labels)",
                                                   "bce grad (labels)",
                                                   "bce loss (u8)",
                                                   "bce grad (u8)",
                                                   "bce loss (soft)",
                                                   "bce grad (soft)",
                                                   "focal loss (labels)",
                                                   "focal grad (labels)",
                                                   "focal loss (u8)",
                                                   "focal grad (u8)"};
static const char *const vector_names[VECTORS] = {
    "log_sum_exp",     "cross-entropy rows",  "bce rows (labels)", "bce rows (u8)",
    "bce rows (soft)", "focal rows (labels)", "focal rows (u8)"};

typedef struct outcome {
    double matrix[MATRICES][MAX_ELEMENTS]; /* f32 or f64 */
    double vector[VECTORS][MAX_ROWS];
    double loss[VECTORS]; /* the means */
} outcome;

static batch given, plain_batch;
static outcome got, scalar, plain;

static ballast_tensor matrix(void *data, const batch *b)
{
    return (ballast_tensor){data, real_dtype(), b->rows, b->classes, 1, b->classes, 1};
}

static ballast_const_tensor const_matrix(const void *data, const batch *b)
{
    return (ballast_const_tensor){data, real_dtype(), b->rows, b->classes, 1, b->classes, 1};
}

static void run_softmax(const batch *b, const ballast_exec *exec, outcome *o)
{
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;
    ballast_log_sum_exp_args l = BALLAST_LOG_SUM_EXP_ARGS;

    l.input = a.input = const_matrix(b->x, b);
    a.output = matrix(o->matrix[SOFTMAX], b);
    must(ballast_softmax(&a, exec));
    a.output = matrix(o->matrix[LOG_SOFTMAX], b);
    must(ballast_log_softmax(&a, exec));
    l.output = o->vector[LOG_SUM_EXP];
    must(ballast_log_sum_exp(&l, exec));
}

static void run_backward(const batch *b, const ballast_exec *exec, outcome *o)
{
    ballast_softmax_backward_args a = BALLAST_SOFTMAX_BACKWARD_ARGS;

    a.output = const_matrix(b->x, b);
    a.grad_output = const_matrix(b->soft, b);
    a.grad_input = matrix(o->matrix[SOFTMAX_BACKWARD], b);
    must(ballast_softmax_backward(&a, exec));
    a.grad_input = matrix(o->matrix[LOG_SOFTMAX_BACKWARD], b);
    must(ballast_log_softmax_backward(&a, exec));
    a.output = const_matrix(b->soft, b);
    a.grad_output = const_matrix(b->x, b);
    a.grad_input = matrix(o->matrix[BACKWARD_OF_SPECIAL], b);
    must(ballast_softmax_backward(&a, exec));
}

/* The sum of the row losses and gradients without a factor. */
#define SET_LOSS(a, grad_, rows_)                                                                  \
    a.logits = const_matrix(b->x, b);                                                              \
    a.reduction = BALLAST_SUM;                                                                     \
    a.grad = matrix(o->matrix[grad_], b);                                                          \
    a.row_loss = o->vector[rows_];                                                                 \
    a.loss = &o->loss[rows_]

static void run_cross_entropy(const batch *b, const ballast_exec *exec, outcome *o)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    SET_LOSS(a, CROSS_ENTROPY_GRAD, CROSS_ENTROPY_ROWS);
    a.labels = ballast_labels_i32(b->labels);
    must(ballast_cross_entropy(&a, exec));
}

#define SET_SIGMOID(a, loss_, grad_, rows_)                                                        \
    SET_LOSS(a, grad_, rows_);                                                                     \
    a.element_loss = matrix(o->matrix[loss_], b)

static void run_binary_cross_entropy(const batch *b, const ballast_exec *exec, outcome *o)
{
    ballast_binary_cross_entropy_args a = BALLAST_BINARY_CROSS_ENTROPY_ARGS;

    SET_SIGMOID(a, LABEL_LOSS, LABEL_GRAD, LABEL_ROWS);
    a.labels = ballast_labels_i32(b->labels);
    must(ballast_binary_cross_entropy(&a, exec));
    SET_SIGMOID(a, HARD_LOSS, HARD_GRAD, HARD_ROWS);
    a.labels.data = NULL;
    a.targets = ballast_const_matrix_u8(b->hard, b->rows, b->classes);
    must(ballast_binary_cross_entropy(&a, exec));
    SET_SIGMOID(a, SOFT_LOSS, SOFT_GRAD, SOFT_ROWS);
    a.targets = const_matrix(b->soft, b);
    must(ballast_binary_cross_entropy(&a, exec));
}

static void run_focal(const batch *b, const ballast_exec *exec, outcome *o)
{
    ballast_sigmoid_focal_args a = BALLAST_SIGMOID_FOCAL_ARGS;

    a.gamma = b->gamma;
    SET_SIGMOID(a, FOCAL_LABEL_LOSS, FOCAL_LABEL_GRAD, FOCAL_LABEL_ROWS);
    a.labels = ballast_labels_i32(b->labels);
    must(ballast_sigmoid_focal(&a, exec));
    SET_SIGMOID(a, FOCAL_HARD_LOSS, FOCAL_HARD_GRAD, FOCAL_HARD_ROWS);
    a.labels.data = NULL;
    a.targets = ballast_const_matrix_u8(b->hard, b->rows, b->classes);
    must(ballast_sigmoid_focal(&a, exec));
}

static void run(const batch *b, const char *name, outcome *o)
{
    const ballast_exec *exec = on(name);

    run_softmax(b, exec, o);
    run_backward(b, exec, o);
    run_cross_entropy(b, exec, o);
    run_binary_cross_entropy(b, exec, o);
    run_focal(b, exec, o);
}

/* ---- What holds of all results ------------------------------------------------------------- */

/* Without factors. The focal loss's alpha is one, and may make a subnormal of the least normal. */
static bool is_plain_gradient(int m)
{
    return m == CROSS_ENTROPY_GRAD || m == LABEL_GRAD || m == HARD_GRAD;
}

static void check_real(const char *name, const void *data, int64_t i, bool may_be_subnormal)
{
    const double v = get(data, i);

    if (v != v && bits_at(data, i) != canonical_nan())
        fail_msg("%s: %s[%lld] is NaN 0x%llx", current, name, (long long)i,
                 (unsigned long long)bits_at(data, i));
    if (!may_be_subnormal && v != 0.0 && fabs(v) < smallest_normal())
        fail_msg("%s: %s[%lld] = %a is subnormal", current, name, (long long)i, v);
}

static void check_same(const char *name, const void *a, const void *b, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++)
        if (bits_at(a, i) != bits_at(b, i))
            fail_msg("%s: %s[%lld]: 0x%llx, expected 0x%llx", current, name, (long long)i,
                     (unsigned long long)bits_at(a, i), (unsigned long long)bits_at(b, i));
}

static void check_canonical(const batch *b, const outcome *o)
{
    for (int m = 0; m < MATRICES; m++)
        for (int64_t i = 0; i < b->rows * b->classes; i++)
            check_real(matrix_names[m], o->matrix[m], i, f64 || !is_plain_gradient(m));
    for (int v = 0; v < VECTORS; v++) {
        for (int64_t i = 0; i < b->rows; i++)
            check_real(vector_names[v], o->vector[v], i, true);
        uint64_t bits;
        memcpy(&bits, &o->loss[v], sizeof bits);
        if (v != LOG_SUM_EXP && o->loss[v] != o->loss[v] && bits != UINT64_C(0x7ff8000000000000))
            fail_msg("%s: %s: reduced loss is NaN 0x%llx", current, vector_names[v],
                     (unsigned long long)bits);
    }
}

static void check_as_scalar(const batch *b)
{
    for (int m = 0; m < MATRICES; m++)
        check_same(matrix_names[m], got.matrix[m], scalar.matrix[m], 0, b->rows * b->classes);
    for (int v = 0; v < VECTORS; v++) {
        check_same(vector_names[v], got.vector[v], scalar.vector[v], 0, b->rows);
        if (v != LOG_SUM_EXP && memcmp(&got.loss[v], &scalar.loss[v], sizeof got.loss[v]) != 0)
            fail_msg("%s: %s: reduced loss %a, scalar %a", current, vector_names[v], got.loss[v],
                     scalar.loss[v]);
    }
}

/* ---- What holds of a row of logits --------------------------------------------------------- */

typedef struct row_sort {
    bool nan, infinite, empty; /* some NaN; some +inf; nothing but -inf */
} row_sort;

static row_sort sort_of(const batch *b, int64_t row)
{
    row_sort s = {false, false, true};

    for (int64_t c = 0; c < b->classes; c++) {
        const double x = get(b->x, row * b->classes + c);

        s.nan |= x != x;
        s.infinite |= x == INFINITY;
        s.empty &= x == -INFINITY;
    }
    return s;
}

#define CHECK(claim)                                                                               \
    do {                                                                                           \
        if (!(claim))                                                                              \
            fail_msg("%s: row %lld, column %lld: not so: %s", current, (long long)row,             \
                     (long long)c, #claim);                                                        \
    } while (0)

static void check_softmax_row(const batch *b, const outcome *o, int64_t row)
{
    const row_sort sort = sort_of(b, row);
    const double lse = get(o->vector[LOG_SUM_EXP], row);
    int64_t c = -1;

    if (sort.nan)
        CHECK(lse != lse);
    else if (sort.infinite || sort.empty)
        CHECK(lse == (sort.infinite ? INFINITY : -INFINITY));
    for (c = 0; c < b->classes; c++) {
        const int64_t i = row * b->classes + c;
        const double x = get(b->x, i), p = get(o->matrix[SOFTMAX], i);
        const double log_p = get(o->matrix[LOG_SOFTMAX], i);

        if (sort.nan || sort.infinite || sort.empty) {
            CHECK(p != p && log_p != log_p);
        } else {
            CHECK(p >= 0.0 && p <= 1.0 && log_p <= 0.0);
            if (x == -INFINITY)
                CHECK(p == 0.0 && log_p == -INFINITY);
        }
    }
}

/* x as outputs of the forward call, beside ordinary gradients; and the reverse for softmax. */
static void check_backward_row(const batch *b, const outcome *o, int64_t row)
{
    const bool nan = sort_of(b, row).nan;

    for (int64_t c = 0; c < b->classes; c++) {
        const int64_t i = row * b->classes + c;
        const double x = get(b->x, i), softmax = get(o->matrix[SOFTMAX_BACKWARD], i);
        const double log_softmax = get(o->matrix[LOG_SOFTMAX_BACKWARD], i);
        const double special = get(o->matrix[BACKWARD_OF_SPECIAL], i);

        if (nan)
            CHECK(softmax != softmax && special != special);
        CHECK((log_softmax != log_softmax) == (x != x));
    }
}

static void check_cross_entropy_row(const batch *b, const outcome *o, int64_t row)
{
    const row_sort sort = sort_of(b, row);
    const double loss = get(o->vector[CROSS_ENTROPY_ROWS], row);
    const int64_t label = b->labels[row];
    const bool impossible = get(b->x, row * b->classes + label) == -INFINITY;
    int64_t c = -1;

    if (sort.nan || sort.infinite || sort.empty)
        CHECK(loss != loss);
    else
        CHECK(impossible ? loss == INFINITY : loss >= 0.0);
    for (c = 0; c < b->classes; c++) {
        const double g = get(o->matrix[CROSS_ENTROPY_GRAD], row * b->classes + c);

        if (sort.nan || sort.infinite || sort.empty)
            CHECK(g != g);
        else
            CHECK(c == label ? g <= 0.0 && g >= -1.0 : g >= 0.0 && g <= 1.0);
        if (!(g != g) && impossible && c == label)
            CHECK(g == -1.0);
    }
}

/* An element against a hard target: limits at infinity; a, the factor of its loss. */
static void check_element(const char *name, double x, bool positive, double loss, double grad,
                          double a)
{
    const double easy = positive ? INFINITY : -INFINITY;
    bool right = positive ? grad <= 0.0 : grad >= 0.0;

    if (x != x)
        right = loss != loss && grad != grad;
    else if (x == easy)
        right = loss == 0.0 && grad == 0.0;
    else if (x == -easy)
        right = loss == INFINITY && grad == (positive ? -a : a);
    else
        right = right && loss >= 0.0 && isfinite(grad);
    if (!right)
        fail_msg("%s: %s: x = %a, target %d: loss %a, grad %a", current, name, x, positive, loss,
                 grad);
}

static void check_elements(const batch *b, const outcome *o, int64_t row)
{
    for (int64_t c = 0; c < b->classes; c++) {
        const int64_t i = row * b->classes + c;
        const double x = get(b->x, i), soft_loss = get(o->matrix[SOFT_LOSS], i);
        const bool hit = c == b->labels[row], hard = b->hard[i] != 0;

        check_element("bce, labels", x, hit, get(o->matrix[LABEL_LOSS], i),
                      get(o->matrix[LABEL_GRAD], i), 1.0);
        check_element("bce, u8", x, hard, get(o->matrix[HARD_LOSS], i),
                      get(o->matrix[HARD_GRAD], i), 1.0);
        check_element("focal, labels", x, hit, get(o->matrix[FOCAL_LABEL_LOSS], i),
                      get(o->matrix[FOCAL_LABEL_GRAD], i), hit ? 0.25 : 0.75);
        check_element("focal, u8", x, hard, get(o->matrix[FOCAL_HARD_LOSS], i),
                      get(o->matrix[FOCAL_HARD_GRAD], i), hard ? 0.25 : 0.75);
        if (x != x ? soft_loss == soft_loss : !(soft_loss >= 0.0))
            fail_msg("%s: bce, soft: x = %a: loss %a", current, x, soft_loss);
    }
}

static void check_batch(const batch *b)
{
    run(b, isa, &got);
    check_canonical(b, &got);
    if (strcmp(isa, "scalar") != 0) {
        run(b, "scalar", &scalar);
        check_as_scalar(b);
    }
    for (int64_t row = 0; row < b->rows; row++) {
        check_softmax_row(b, &got, row);
        check_backward_row(b, &got, row);
        check_cross_entropy_row(b, &got, row);
        check_elements(b, &got, row);
    }
}

/* ---- Each special value in each lane ------------------------------------------------------- */

static uint32_t random_state = 1;

static double random_real(double low, double high)
{
    random_state = random_state * 1664525u + 1013904223u;
    return low + (high - low) * (double)(float)(random_state >> 8) * 0x1p-24;
}

enum background { ORDINARY, NEGATIVE, BACKGROUNDS };

static void fill_batch(batch *b, int64_t rows, int64_t classes, enum background background)
{
    assert_true(rows * classes <= MAX_ELEMENTS && rows <= MAX_ROWS);
    b->rows = rows;
    b->classes = classes;
    for (int64_t i = 0; i < rows * classes; i++) {
        set(b->x, i, background == NEGATIVE ? random_real(-80.0, -60.0) : random_real(-4.0, 4.0));
        set(b->soft, i, random_real(0.0, 1.0));
        b->hard[i] = (uint8_t)(i * 7 % 3 == 1);
    }
    for (int64_t row = 0; row < rows; row++)
        b->labels[row] = (int32_t)(row % classes);
}

/* Every column of a short row; of a longer one those around blocks, spans and chunks. */
static int64_t columns_of(int64_t classes, int64_t *columns)
{
    static const int64_t edges[] = {0, 1, 15, 16, 31, 63, 64, 100, 255, 256, 1023, 2047, 2048};
    int64_t count = 0;

    if (classes <= 65)
        for (; count < classes; count++)
            columns[count] = count;
    else
        for (size_t i = 0; i < sizeof edges / sizeof edges[0] && edges[i] < classes; i++)
            columns[count++] = edges[i];
    columns[count++] = classes - 1;
    return count;
}

/* Row 2 k has the special value in column k, and a label there or elsewhere; rows 2 k + 1 have no
 * special value, and must be as they are without any in their neighbours. */
static void lanes_of(int64_t classes, const special *s, enum background background)
{
    int64_t columns[70];
    const int64_t count = columns_of(classes, columns);

    snprintf(current, sizeof current, "%s at each of %lld classes (%d) on %s", s->name,
             (long long)classes, (int)background, f64 ? "f64" : isa);
    fill_batch(&given, 2 * count, classes, background);
    plain_batch = given;
    run(&plain_batch, isa, &plain);
    for (int64_t k = 0; k < count; k++) {
        set_special(given.x, 2 * k * classes + columns[k], s);
        given.labels[2 * k] = (int32_t)((columns[k] + (k + classes) % 2) % classes);
    }
    check_batch(&given);
    for (int64_t row = 1; row < given.rows; row += 2) {
        for (int m = 0; m < MATRICES; m++)
            check_same(matrix_names[m], got.matrix[m], plain.matrix[m], row * classes,
                       (row + 1) * classes);
        for (int v = 0; v < VECTORS; v++)
            check_same(vector_names[v], got.vector[v], plain.vector[v], row, row + 1);
    }
}

static void each_lane(void **state)
{
    static const int64_t widths[] = {1, 2, 5, 16, 17, 33, 65, 130, 259, 2050};
    static const double gammas[] = {2.0, 0.5, 1.0, 3.7, 0.0};
    int round = 0;

    begin(state);
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++)
        for (int s = 0; s < SPECIALS; s++)
            for (int background = 0; background < BACKGROUNDS; background++) {
                if (widths[w] > 65 && background != s % BACKGROUNDS)
                    continue; /* one of them will do for rows that take long */
                given.gamma = gammas[round++ % 5];
                lanes_of(widths[w], &specials[s], (enum background)background);
            }
}

/* An element is nobody else's business, in losses that are element by element. */
static void elements_stay_apart(void **state)
{
    static const int apart[] = {LABEL_LOSS,      LABEL_GRAD,     HARD_LOSS,        HARD_GRAD,
                                SOFT_LOSS,       SOFT_GRAD,      FOCAL_LABEL_LOSS, FOCAL_LABEL_GRAD,
                                FOCAL_HARD_LOSS, FOCAL_HARD_GRAD};
    const int64_t classes = 130;

    begin(state);
    given.gamma = 2.0;
    for (int s = 0; s < SPECIALS; s++)
        for (int64_t column = 0; column < classes; column += 7) {
            snprintf(current, sizeof current, "%s in column %lld", specials[s].name,
                     (long long)column);
            fill_batch(&given, 1, classes, ORDINARY);
            run(&given, isa, &plain);
            set_special(given.x, column, &specials[s]);
            run(&given, isa, &got);
            for (size_t k = 0; k < sizeof apart / sizeof apart[0]; k++) {
                const int m = apart[k];

                check_same(matrix_names[m], got.matrix[m], plain.matrix[m], 0, column);
                check_same(matrix_names[m], got.matrix[m], plain.matrix[m], column + 1, classes);
            }
        }
}

/* ---- Rows of one value, and of a few ------------------------------------------------------- */

static void rows_of_one_special(void **state)
{
    static const int64_t widths[] = {1, 2, 15, 16, 17, 64, 100, 257, 2049};

    begin(state);
    given.gamma = 2.0;
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++)
        for (int s = 0; s < SPECIALS; s++) {
            snprintf(current, sizeof current, "row of %s, %lld classes", specials[s].name,
                     (long long)widths[w]);
            fill_batch(&given, 2, widths[w], ORDINARY);
            for (int64_t c = 0; c < widths[w]; c++)
                set_special(given.x, c, &specials[s]);
            check_batch(&given);
        }
}

/* Pairs of special values in one row, in two lanes that meet early, late or in another chunk. */
static void pairs(void **state)
{
    static const int64_t distances[] = {1, 8, 16, 64, 2048};

    begin(state);
    given.gamma = 1.0;
    for (int s = 0; s < SPECIALS; s++)
        for (size_t d = 0; d < sizeof distances / sizeof distances[0]; d++) {
            const int64_t classes = distances[d] < 2048 ? 3 + distances[d] : 2060;
            const int64_t group = classes > 2048 ? 16 : SPECIALS;

            for (int first = 0; first < SPECIALS; first += (int)group) {
                const int64_t rows = SPECIALS - first < group ? SPECIALS - first : group;

                snprintf(current, sizeof current, "%s and others, %lld apart", specials[s].name,
                         (long long)distances[d]);
                fill_batch(&given, rows, classes, ORDINARY);
                for (int64_t row = 0; row < rows; row++) {
                    set_special(given.x, row * classes + 1, &specials[s]);
                    set_special(given.x, row * classes + 1 + distances[d], &specials[first + row]);
                    given.labels[row] = (int32_t)(row % 3 == 0 ? 0 : 1);
                }
                check_batch(&given);
            }
        }
}

static bool is_near(double value, long double want, double ulps)
{
    return fabsl((long double)value - want) <= (long double)(ulps * epsilon()) * fabsl(want);
}

/* Rows of equal logits, however low: p = 1 / C, loss = log C. What pads a row must not show. */
static void equal_logits(void **state)
{
    static const double values[] = {0.0,  1.0,      -1.0,     -87.0, -89.0, -104.0, -200.0,
                                    -1e4, -65536.0, -70000.0, -1e30, 1e30,  200.0,  70000.0};

    begin(state);
    given.gamma = 0.0;
    for (size_t v = 0; v < sizeof values / sizeof values[0]; v++)
        for (int64_t classes = 1; classes < 2200;
             classes = classes < 70 ? classes + 1 : 2 * classes - 3) {
            const int64_t row = 0;
            int64_t c = 0;

            snprintf(current, sizeof current, "%lld logits of %g", (long long)classes, values[v]);
            fill_batch(&given, 1, classes, ORDINARY);
            for (int64_t i = 0; i < classes; i++)
                set(given.x, i, values[v]);
            check_batch(&given);
            for (; c < classes; c++)
                CHECK(is_near(get(got.matrix[SOFTMAX], c), 1.0L / (long double)classes, 3.0));
            CHECK(is_near(get(got.vector[CROSS_ENTROPY_ROWS], 0), logl((long double)classes), 3.0));
            const long double x = get(given.x, 0), n = logl((long double)classes);
            CHECK(fabsl(get(got.vector[LOG_SUM_EXP], 0) - (x + n)) <=
                  (long double)(3.0 * epsilon()) * (fabsl(x) + n));
        }
}

/* ---- Far apart ----------------------------------------------------------------------------- */

/* Within `ulps`; or 0 where each of the `terms` that add up to it is below 2^-125. */
static bool is_near_or_tiny(double value, long double want, double ulps, int64_t terms)
{
    const long double tiny = 2.0L * (long double)smallest_normal() * (long double)terms;

    return is_near(value, want, ulps) ||
           (fabsl(want) < tiny && fabsl((long double)value - want) <= tiny);
}

static void check_gap(double base, double gap, int64_t classes, int64_t high)
{
    const int64_t row = 0, low = (high + 1) % classes;
    int64_t c = low;

    snprintf(current, sizeof current, "%lld classes, a gap of %g above %g at %lld",
             (long long)classes, gap, base, (long long)high);
    fill_batch(&given, 2, classes, ORDINARY);
    for (int64_t i = 0; i < 2 * classes; i++)
        set(given.x, i, base);
    set(given.x, high, base + gap);
    set(given.x, classes + high, base + gap);
    given.labels[0] = (int32_t)high;
    given.labels[1] = (int32_t)low;
    check_batch(&given);
    const long double d = (long double)get(given.x, high) - (long double)get(given.x, low);
    const long double others = (long double)(classes - 1) * expl(-d), log_sum = log1pl(others);
    CHECK(is_near_or_tiny(get(got.vector[CROSS_ENTROPY_ROWS], 0), log_sum, 4.0, classes));
    if (d + log_sum < (long double)largest())
        CHECK(is_near(get(got.vector[CROSS_ENTROPY_ROWS], 1), d + log_sum, 4.0));
    CHECK(is_near_or_tiny(get(got.matrix[SOFTMAX], low), expl(-d) / (1.0L + others), 4.0, 1));
    CHECK(is_near(get(got.matrix[SOFTMAX], high), 1.0L / (1.0L + others), 4.0));
    CHECK(is_near_or_tiny(get(got.matrix[CROSS_ENTROPY_GRAD], high), -others / (1.0L + others), 4.0,
                          classes));
    CHECK(is_near_or_tiny(get(got.matrix[CROSS_ENTROPY_GRAD], low), expl(-d) / (1.0L + others), 4.0,
                          1));
}

static void huge_spread(void **state)
{
    static const double gaps[] = {10.0,  17.0,  60.0,  80.0,  86.0,   87.0, 88.0, 89.0, 95.0, 104.0,
                                  150.0, 200.0, 700.0, 740.0, 1000.0, 1e5,  1e10, 1e30, 2e38};
    static const double bases[] = {0.0, -100.0, 100.0, -65536.0, 65500.0, -1e30};
    static const int64_t widths[] = {2, 17, 70, 2050};

    begin(state);
    given.gamma = 2.0;
    for (size_t g = 0; g < sizeof gaps / sizeof gaps[0]; g++)
        for (size_t b = 0; b < sizeof bases / sizeof bases[0]; b++)
            for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
                check_gap(bases[b], gaps[g], widths[w], 0);
                check_gap(bases[b], gaps[g], widths[w], widths[w] - 1);
            }
}

/* ---- Focal exponents ----------------------------------------------------------------------- */

static const double gammas[] = {0.0, 1e-30, 1e-12, 0.1,   0.5,  1.0,  1.5,
                                2.0, 3.7,   5.0,   100.0, 1e10, 1e300};
enum { GAMMAS = sizeof gammas / sizeof gammas[0] };

static void focal_exponents(void **state)
{
    begin(state);
    for (int g = 0; g < GAMMAS; g++)
        for (int64_t classes = 1; classes < 150; classes += 37)
            for (int s = 0; s < SPECIALS; s++) {
                given.gamma = gammas[g];
                snprintf(current, sizeof current, "gamma %g, ", gammas[g]);
                fill_batch(&given, 8, classes, ORDINARY);
                for (int64_t i = s % 3; i < 8 * classes; i += 3)
                    set_special(given.x, i, &specials[s]);
                for (int64_t i = 0; i < 8 * classes; i += 2)
                    if (i % 3 != s % 3)
                        set(given.x, i, random_real(-120.0, 120.0));
                check_batch(&given);
            }
}

/* gamma 0 is binary cross-entropy times alpha; next to 0 it is nearly so; and beyond all, only what
 * is entirely wrong counts. */
static void focal_limits(void **state)
{
    const int64_t row = 0;
    int64_t c;

    begin(state);
    snprintf(current, sizeof current, "focal limits");
    fill_batch(&given, 40, 100, ORDINARY);
    for (int64_t i = 0; i < 4000; i++)
        set(given.x, i, random_real(-150.0, 150.0));
    for (int g = 0; g < 2; g++) {
        given.gamma = gammas[g];
        run(&given, isa, &got);
        for (c = 0; c < 4000; c++) {
            const double a = given.hard[c] ? 0.25 : 0.75;

            CHECK(is_near_or_tiny(get(got.matrix[FOCAL_HARD_LOSS], c),
                                  a * (long double)get(got.matrix[HARD_LOSS], c), 6.0, 1));
            CHECK(is_near_or_tiny(get(got.matrix[FOCAL_HARD_GRAD], c),
                                  a * (long double)get(got.matrix[HARD_GRAD], c), 6.0, 1));
        }
    }
    given.gamma = 1e10;
    run(&given, isa, &got);
    for (c = 0; c < 4000; c++) {
        const double x = get(given.x, c), z = given.hard[c] ? x : -x;
        const double a = given.hard[c] ? 0.25 : 0.75, loss = get(got.matrix[FOCAL_HARD_LOSS], c);

        if (z > -15.0)
            CHECK(loss == 0.0 && get(got.matrix[FOCAL_HARD_GRAD], c) == 0.0);
        if (z < -80.0)
            CHECK(is_near(loss, a * (long double)fabs(z), 8.0));
    }
}

/* alpha 0 and 1 rule one sort out, infinite losses included; a negative one switches it off. */
static void focal_alphas(void **state)
{
    static const double alphas[] = {0.0, 1.0, -1.0, -INFINITY};

    begin(state);
    fill_batch(&given, 8, 40, ORDINARY);
    for (int64_t i = 0; i < 320; i += 3)
        set(given.x, i, i % 2 ? INFINITY : -INFINITY);
    for (int k = 0; k < 4; k++)
        for (int g = 0; g < GAMMAS; g++) {
            const batch *b = &given;
            outcome *o = &got;
            ballast_sigmoid_focal_args a = BALLAST_SIGMOID_FOCAL_ARGS;

            snprintf(current, sizeof current, "alpha %g, gamma %g", alphas[k], gammas[g]);
            SET_SIGMOID(a, FOCAL_HARD_LOSS, FOCAL_HARD_GRAD, FOCAL_HARD_ROWS);
            a.alpha = alphas[k];
            a.gamma = gammas[g];
            a.targets = ballast_const_matrix_u8(b->hard, b->rows, b->classes);
            must(ballast_sigmoid_focal(&a, on(isa)));
            for (int64_t i = 0; i < 320; i++) {
                const bool out = alphas[k] == (b->hard[i] ? 0.0 : 1.0);
                const double loss = get(o->matrix[FOCAL_HARD_LOSS], i);
                const double grad = get(o->matrix[FOCAL_HARD_GRAD], i);

                if (loss != loss || grad != grad || (out && (loss != 0.0 || grad != 0.0)))
                    fail_msg("%s: x = %g, target %d: loss %g, grad %g", current, get(b->x, i),
                             b->hard[i], loss, grad);
            }
        }
}

/* Dense targets of the focal loss are 0 and 1, of either sign of zero; others give NaN. */
static void focal_targets(void **state)
{
    static const double targets[] = {0.0, -0.0, 1.0, 0.5, -1.0, 2.0, NAN, INFINITY, 0x1p-140};
    enum { TARGETS = sizeof targets / sizeof targets[0] };

    begin(state);
    for (int64_t at = 0; at < 100; at += 9)
        for (int t = 0; t < TARGETS; t++) {
            const batch *b = &given;
            outcome *o = &got;
            ballast_sigmoid_focal_args a = BALLAST_SIGMOID_FOCAL_ARGS;

            snprintf(current, sizeof current, "target %g at %lld", targets[t], (long long)at);
            fill_batch(&given, 1, 100, ORDINARY);
            for (int64_t i = 0; i < 100; i++)
                set(given.soft, i, (double)(i % 2));
            set(given.soft, at, targets[t]);
            SET_SIGMOID(a, FOCAL_HARD_LOSS, FOCAL_HARD_GRAD, FOCAL_HARD_ROWS);
            a.targets = const_matrix(b->soft, b);
            must(ballast_sigmoid_focal(&a, on(isa)));
            for (int64_t i = 0; i < 100; i++) {
                check_real("loss", o->matrix[FOCAL_HARD_LOSS], i, true);
                check_real("grad", o->matrix[FOCAL_HARD_GRAD], i, true);
                const double loss = get(o->matrix[FOCAL_HARD_LOSS], i);
                const double grad = get(o->matrix[FOCAL_HARD_GRAD], i);
                if ((loss != loss) != (i == at && t >= 3) || (grad != grad) != (i == at && t >= 3))
                    fail_msg("%s: [%lld]: loss %g, grad %g", current, (long long)i, loss, grad);
            }
        }
}

/* ---- One class, no class, no row ----------------------------------------------------------- */

static void one_class(void **state)
{
    const int64_t c = 0;

    begin(state);
    snprintf(current, sizeof current, "one class");
    given.gamma = 2.0;
    fill_batch(&given, 200, 1, ORDINARY);
    for (int64_t row = 0; row < 200; row++)
        set(given.x, row, random_real(-1e4, 1e4) * (row % 3 ? 1.0 : 1e20));
    check_batch(&given);
    for (int64_t row = 0; row < 200; row++) {
        CHECK(get(got.matrix[SOFTMAX], row) >= 1.0 - epsilon() / 2.0); /* e^x times 1 / e^x */
        CHECK(get(got.matrix[LOG_SOFTMAX], row) == 0.0);
        CHECK(get(got.vector[LOG_SUM_EXP], row) == get(given.x, row));
        CHECK(get(got.vector[CROSS_ENTROPY_ROWS], row) == 0.0);
        CHECK(bits_at(got.matrix[CROSS_ENTROPY_GRAD], row) == 0);
    }
}

static void no_rows(void **state)
{
    double loss = 7.0, x = 0.0, grad = 7.0;
    int32_t label = 0;
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    ballast_binary_cross_entropy_args s = BALLAST_BINARY_CROSS_ENTROPY_ARGS;

    begin(state);
    a.logits = s.logits = (ballast_const_tensor){&x, real_dtype(), 0, 5, 1, 5, 1};
    a.grad = s.grad = (ballast_tensor){&grad, real_dtype(), 0, 5, 1, 5, 1};
    a.labels = s.labels = ballast_labels_i32(&label);
    a.loss = s.loss = &loss;
    for (int denominator = BALLAST_WEIGHT_SUM; denominator <= BALLAST_POSITIVES; denominator++)
        for (int empty = BALLAST_EMPTY_NAN; empty <= BALLAST_EMPTY_ZERO; empty++) {
            a.denominator = s.denominator = (ballast_denominator)denominator;
            a.empty = s.empty = (ballast_empty)empty;
            assert_int_equal(ballast_cross_entropy(&a, on(isa)), BALLAST_OK);
            assert_true(empty == BALLAST_EMPTY_NAN ? loss != loss : loss == 0.0);
            assert_int_equal(ballast_binary_cross_entropy(&s, on(isa)), BALLAST_OK);
            assert_true(empty == BALLAST_EMPTY_NAN ? loss != loss : loss == 0.0);
        }
    a.reduction = BALLAST_SUM;
    assert_int_equal(ballast_cross_entropy(&a, on(isa)), BALLAST_OK);
    assert_true(loss == 0.0 && grad == 7.0);
    a.reduction = BALLAST_MEAN;
    a.denominator = BALLAST_GIVEN;
    assert_int_equal(ballast_cross_entropy(&a, on(isa)), BALLAST_OK);
    assert_true(loss == 0.0);
}

/* Rows without classes: log-sum-exp of nothing is -inf; sums over nothing are 0. */
static void no_classes(void **state)
{
    double x[3] = {1.0, 2.0, 3.0}, out[3] = {7.0, 7.0, 7.0}, loss = 7.0;
    ballast_log_sum_exp_args l = BALLAST_LOG_SUM_EXP_ARGS;
    ballast_softmax_args f = BALLAST_SOFTMAX_ARGS;
    ballast_binary_cross_entropy_args s = BALLAST_BINARY_CROSS_ENTROPY_ARGS;

    begin(state);
    const ballast_const_tensor none = {x, real_dtype(), 3, 0, 1, 0, 1};
    const ballast_tensor nowhere = {out, real_dtype(), 3, 0, 1, 0, 1};
    f.input = l.input = s.logits = s.targets = none;
    f.output = nowhere;
    assert_int_equal(ballast_softmax(&f, on(isa)), BALLAST_OK);
    assert_int_equal(ballast_log_softmax(&f, on(isa)), BALLAST_OK);
    assert_true(out[0] == 7.0 && out[1] == 7.0 && out[2] == 7.0);
    l.output = out;
    assert_int_equal(ballast_log_sum_exp(&l, on(isa)), BALLAST_OK);
    for (int64_t i = 0; i < 3; i++)
        assert_true(get(out, i) == -INFINITY);
    s.row_loss = out;
    s.loss = &loss;
    s.reduction = BALLAST_SUM;
    assert_int_equal(ballast_binary_cross_entropy(&s, on(isa)), BALLAST_OK);
    for (int64_t i = 0; i < 3; i++)
        assert_true(get(out, i) == 0.0);
    assert_true(loss == 0.0);
    s.reduction = BALLAST_MEAN; /* over no elements */
    assert_int_equal(ballast_binary_cross_entropy(&s, on(isa)), BALLAST_OK);
    assert_true(loss != loss);
}

/* ---- Weights of 0, and ignored rows -------------------------------------------------------- */

static const special *find_special(const char *name)
{
    for (int s = 0; s < SPECIALS; s++)
        if (strcmp(specials[s].name, name) == 0)
            return &specials[s];
    return NULL;
}

typedef ballast_status loss_function(const batch *b, const void *weights, bool ignored,
                                     ballast_empty empty, outcome *o);

static ballast_status cross_entropy_with(const batch *b, const void *weights, bool ignored,
                                         ballast_empty empty, outcome *o)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    SET_LOSS(a, CROSS_ENTROPY_GRAD, CROSS_ENTROPY_ROWS);
    a.labels = ballast_labels_i32(b->labels);
    a.reduction = BALLAST_MEAN;
    a.row_weight = weights;
    a.empty = empty;
    a.ignore_index = ignored ? 0 : -100;
    a.loss = &o->loss[0];
    return ballast_cross_entropy(&a, on(isa));
}

static ballast_status binary_cross_entropy_with(const batch *b, const void *weights, bool ignored,
                                                ballast_empty empty, outcome *o)
{
    ballast_binary_cross_entropy_args a = BALLAST_BINARY_CROSS_ENTROPY_ARGS;

    SET_SIGMOID(a, LABEL_LOSS, CROSS_ENTROPY_GRAD, CROSS_ENTROPY_ROWS);
    a.labels = ballast_labels_i32(b->labels);
    a.reduction = BALLAST_MEAN;
    a.denominator = BALLAST_WEIGHT_SUM;
    a.row_weight = weights;
    a.empty = empty;
    a.ignore_index = ignored ? 0 : -100;
    a.loss = &o->loss[0];
    return ballast_binary_cross_entropy(&a, on(isa));
}

static ballast_status sigmoid_focal_with(const batch *b, const void *weights, bool ignored,
                                         ballast_empty empty, outcome *o)
{
    ballast_sigmoid_focal_args a = BALLAST_SIGMOID_FOCAL_ARGS;

    SET_SIGMOID(a, LABEL_LOSS, CROSS_ENTROPY_GRAD, CROSS_ENTROPY_ROWS);
    a.labels = ballast_labels_i32(b->labels);
    a.reduction = BALLAST_MEAN;
    a.denominator = BALLAST_WEIGHT_SUM;
    a.row_weight = weights;
    a.empty = empty;
    a.ignore_index = ignored ? 0 : -100;
    a.loss = &o->loss[0];
    return ballast_sigmoid_focal(&a, on(isa));
}

static loss_function *const losses[] = {cross_entropy_with, binary_cross_entropy_with,
                                        sigmoid_focal_with};
enum { LOSSES = 3 };

static void check_nothing(const batch *b, const outcome *o, ballast_empty empty)
{
    for (int64_t i = 0; i < b->rows * b->classes; i++)
        if (get(o->matrix[CROSS_ENTROPY_GRAD], i) != 0.0)
            fail_msg("%s: grad[%lld] = %g", current, (long long)i,
                     get(o->matrix[CROSS_ENTROPY_GRAD], i));
    for (int64_t i = 0; i < b->rows; i++)
        if (get(o->vector[CROSS_ENTROPY_ROWS], i) != 0.0)
            fail_msg("%s: row_loss[%lld] = %g", current, (long long)i,
                     get(o->vector[CROSS_ENTROPY_ROWS], i));
    if (empty == BALLAST_EMPTY_NAN ? o->loss[0] == o->loss[0] : o->loss[0] != 0.0)
        fail_msg("%s: loss %g", current, o->loss[0]);
}

static void every_row_ignored(void **state)
{
    begin(state);
    for (int l = 0; l < LOSSES; l++)
        for (int64_t classes = 1; classes < 300; classes += 43)
            for (int empty = BALLAST_EMPTY_NAN; empty <= BALLAST_EMPTY_ZERO; empty++) {
                snprintf(current, sizeof current, "loss %d: every row ignored", l);
                fill_batch(&given, 20, classes, ORDINARY);
                memset(given.labels, 0, sizeof given.labels);
                for (int64_t i = 0; i < 20 * classes; i += 2)
                    set_special(given.x, i, &specials[i % SPECIALS]);
                must(losses[l](&given, NULL, true, (ballast_empty)empty, &got));
                check_nothing(&given, &got, (ballast_empty)empty);
            }
}

/* The others as if the ignored rows held ordinary numbers. */
static void ignored_rows_do_not_leak(void **state)
{
    const int64_t rows = 37, classes = 19;

    begin(state);
    for (int l = 0; l < LOSSES; l++)
        for (int s = 0; s < SPECIALS; s++) {
            snprintf(current, sizeof current, "loss %d: %s in ignored rows", l, specials[s].name);
            fill_batch(&given, rows, classes, ORDINARY);
            must(losses[l](&given, NULL, true, BALLAST_EMPTY_NAN, &plain));
            for (int64_t row = 0; row < rows; row++)
                for (int64_t c = 0; given.labels[row] == 0 && c < classes; c++)
                    set_special(given.x, row * classes + c, &specials[s]);
            must(losses[l](&given, NULL, true, BALLAST_EMPTY_NAN, &got));
            check_same("grad", got.matrix[CROSS_ENTROPY_GRAD], plain.matrix[CROSS_ENTROPY_GRAD], 0,
                       rows * classes);
            check_same("row_loss", got.vector[CROSS_ENTROPY_ROWS], plain.vector[CROSS_ENTROPY_ROWS],
                       0, rows);
            assert_memory_equal(&got.loss[0], &plain.loss[0], sizeof got.loss[0]);
        }
}

static void weights_of_zero(void **state)
{
    static double weights[MAX_ROWS];

    begin(state);
    memset(weights, 0, sizeof weights);
    for (int l = 0; l < LOSSES; l++)
        for (int empty = BALLAST_EMPTY_NAN; empty <= BALLAST_EMPTY_ZERO; empty++) {
            snprintf(current, sizeof current, "loss %d: weights of 0", l);
            fill_batch(&given, 33, 70, ORDINARY);
            must(losses[l](&given, weights, false, (ballast_empty)empty, &got));
            check_nothing(&given, &got, (ballast_empty)empty);
        }
}

/* One row of weight 0 among others, and an infinite loss in it: it adds nothing. */
static void weight_of_zero_and_infinite_loss(void **state)
{
    static double weights[MAX_ROWS];

    begin(state);
    for (int l = 0; l < LOSSES; l++) {
        snprintf(current, sizeof current, "loss %d: weight 0 and an infinite loss", l);
        fill_batch(&given, 20, 30, ORDINARY);
        for (int64_t row = 0; row < 20; row++)
            set(weights, row, row == 7 ? 0.0 : 1.0);
        set_special(given.x, 7 * 30 + given.labels[7], find_special("-inf"));
        must(losses[l](&given, weights, false, BALLAST_EMPTY_NAN, &got));
        if (get(got.vector[CROSS_ENTROPY_ROWS], 7) != 0.0 || !isfinite(got.loss[0]))
            fail_msg("%s: row loss %g, loss %g", current, get(got.vector[CROSS_ENTROPY_ROWS], 7),
                     got.loss[0]);
        for (int64_t i = 0; i < 600; i++)
            if (!isfinite(get(got.matrix[CROSS_ENTROPY_GRAD], i)))
                fail_msg("%s: grad[%lld] = %g", current, (long long)i,
                         get(got.matrix[CROSS_ENTROPY_GRAD], i));
    }
}

/* With a weight, a label of probability 0 has gradient -w, exactly. */
static void impossible_label(void **state)
{
    static double weights[MAX_ROWS];
    const int64_t classes = 50;

    begin(state);
    snprintf(current, sizeof current, "impossible label");
    fill_batch(&given, 50, classes, ORDINARY);
    for (int64_t row = 0; row < 50; row++) {
        set(weights, row, random_real(0.01, 3.0));
        set_special(given.x, row * classes + given.labels[row], find_special("-inf"));
    }
    const batch *b = &given;
    outcome *o = &got;
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    SET_LOSS(a, CROSS_ENTROPY_GRAD, CROSS_ENTROPY_ROWS);
    a.labels = ballast_labels_i32(b->labels);
    a.row_weight = weights;
    must(ballast_cross_entropy(&a, on(isa)));
    assert_true(o->loss[CROSS_ENTROPY_ROWS] == INFINITY);
    for (int64_t row = 0; row < 50; row++) {
        const int64_t c = b->labels[row];

        CHECK(get(o->vector[CROSS_ENTROPY_ROWS], row) == INFINITY);
        CHECK(is_near(get(o->matrix[CROSS_ENTROPY_GRAD], row * classes + c),
                      -(long double)get(weights, row), f64 ? 2.0 : 0.0));
    }
}

/* Factors that overflow with a gradient, but do not where it is 0: that stays 0. Those that are
 * beyond f32 themselves leave no more than the canonical NaN there. */
static void huge_factors(void **state)
{
    static const double scales[] = {3e38, 1e39, 1e300, -1e300, 1e-300, 1e-40, 0.0};

    begin(state);
    for (size_t s = 0; s < sizeof scales / sizeof scales[0]; s++)
        for (int64_t classes = 2; classes < 2100; classes = 3 * classes - 1) {
            const int64_t rows = 9;

            fill_batch(&given, rows, classes, ORDINARY);
            for (int64_t i = 1; i < rows * classes; i += 2)
                set(given.x, i, i % 4 == 1 ? -INFINITY : -300.0);
            const batch *b = &given;
            outcome *o = &got;
            ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
            ballast_binary_cross_entropy_args e = BALLAST_BINARY_CROSS_ENTROPY_ARGS;
            ballast_sigmoid_focal_args f = BALLAST_SIGMOID_FOCAL_ARGS;
            SET_LOSS(a, CROSS_ENTROPY_GRAD, CROSS_ENTROPY_ROWS);
            SET_LOSS(e, LABEL_GRAD, LABEL_ROWS);
            SET_LOSS(f, FOCAL_LABEL_GRAD, FOCAL_LABEL_ROWS);
            a.labels = e.labels = f.labels = ballast_labels_i32(b->labels);
            a.grad_scale = e.grad_scale = f.grad_scale = scales[s];
            must(ballast_cross_entropy(&a, on(isa)));
            must(ballast_binary_cross_entropy(&e, on(isa)));
            must(ballast_sigmoid_focal(&f, on(isa)));
            for (int m = CROSS_ENTROPY_GRAD; m < MATRICES; m++) {
                const bool wanted =
                    m == CROSS_ENTROPY_GRAD || m == LABEL_GRAD || m == FOCAL_LABEL_GRAD;

                snprintf(current, sizeof current, "grad_scale %g, %lld classes", scales[s],
                         (long long)classes);
                for (int64_t i = 0; wanted && i < rows * classes; i++) {
                    const double g = get(o->matrix[m], i);

                    check_real(matrix_names[m], o->matrix[m], i, true);
                    if (g != g && (f64 || fabs(scales[s]) <= (double)FLT_MAX))
                        fail_msg("%s: %s[%lld], x = %g: NaN", current, matrix_names[m],
                                 (long long)i, get(b->x, i));
                }
            }
        }
}

/* ---- Reductions ---------------------------------------------------------------------------- */

typedef ballast_status reduction(const ballast_reduce_args *args, const ballast_exec *exec);
static reduction *const reductions[] = {ballast_weighted_sum, ballast_weighted_mean,
                                        ballast_weighted_sum_of_squares, ballast_dot,
                                        ballast_weighted_log_sum_exp};
static const char *const reduction_names[] = {
    "weighted_sum", "weighted_mean", "weighted_sum_of_squares", "dot", "weighted_log_sum_exp"};
enum { SUM, MEAN, SQUARES, DOT, EXPONENTIALS, REDUCTIONS };

static double reduce(int which, const void *x, const void *w, int64_t n, const char *name)
{
    double result = 7.0;
    uint64_t bits;
    ballast_reduce_args a = BALLAST_REDUCE_ARGS;

    a.x = (ballast_vector){x, real_dtype(), n};
    if (w)
        a.weights = (ballast_vector){w, real_dtype(), n};
    a.result = &result;
    must(reductions[which](&a, on(name)));
    memcpy(&bits, &result, sizeof bits);
    if (result != result && bits != UINT64_C(0x7ff8000000000000))
        fail_msg("%s: %s: NaN 0x%llx", current, reduction_names[which], (unsigned long long)bits);
    return result;
}

static void reduced_specials(void **state)
{
    static const int64_t lengths[] = {1, 2, 17, 65, 259, 2050, 4099};

    begin(state);
    for (size_t n = 0; n < sizeof lengths / sizeof lengths[0]; n++)
        for (int s = 0; s < SPECIALS; s++)
            for (int where = 0; where < 3; where++) /* in x, in the weights, in both */
                for (int64_t at = 0; at < lengths[n]; at = at < 64 ? at + 1 : 2 * at + 1) {
                    snprintf(current, sizeof current, "%s (%d) at %lld of %lld", specials[s].name,
                             where, (long long)at, (long long)lengths[n]);
                    fill_batch(&given, 1, lengths[n], ORDINARY);
                    if (where != 1)
                        set_special(given.x, at, &specials[s]);
                    if (where != 0)
                        set_special(given.soft, at, &specials[s]);
                    for (int which = 0; which < REDUCTIONS; which++) {
                        const double mine = reduce(which, given.x, given.soft, lengths[n], isa);
                        const double other =
                            reduce(which, given.x, given.soft, lengths[n], "scalar");
                        const double x = get(given.x, at), w = get(given.soft, at);

                        if (memcmp(&mine, &other, sizeof mine) != 0)
                            fail_msg("%s: %s: %a, scalar %a", current, reduction_names[which], mine,
                                     other);
                        if ((w != w || (x != x && which != EXPONENTIALS)) && mine == mine)
                            fail_msg("%s: %s: %a, NaN expected", current, reduction_names[which],
                                     mine);
                        if (x != x && w == w && which == EXPONENTIALS && w != 0.0 && mine == mine)
                            fail_msg("%s: %s: %a, NaN expected", current, reduction_names[which],
                                     mine);
                    }
                }
}

static void reduced_limits(void **state)
{
    const double inf = INFINITY;

    begin(state);
    snprintf(current, sizeof current, "limits of reductions");
    assert_true(reduce(SUM, given.x, NULL, 0, isa) == 0.0);
    assert_true(reduce(SQUARES, given.x, NULL, 0, isa) == 0.0);
    assert_true(reduce(DOT, given.x, given.soft, 0, isa) == 0.0);
    assert_true(isnan(reduce(MEAN, given.x, NULL, 0, isa)));
    assert_true(reduce(EXPONENTIALS, given.x, NULL, 0, isa) == -inf);
    for (int64_t n = 2; n < 5000; n = 3 * n - 1) {
        fill_batch(&given, 1, n, ORDINARY);
        set(given.x, 0, inf);
        assert_true(reduce(SUM, given.x, NULL, n, isa) == inf);
        assert_true(reduce(EXPONENTIALS, given.x, NULL, n, isa) == inf);
        set(given.x, n - 1, -inf);
        assert_true(isnan(reduce(SUM, given.x, NULL, n, isa)));
        assert_true(isnan(reduce(MEAN, given.x, NULL, n, isa)));
        assert_true(reduce(SQUARES, given.x, NULL, n, isa) == inf);
        assert_true(reduce(EXPONENTIALS, given.x, NULL, n, isa) == inf);
        set(given.soft, 0, 0.0); /* an element of weight 0 adds nothing */
        assert_true(isfinite(reduce(EXPONENTIALS, given.x, given.soft, n, isa)) || n == 2);
        for (int64_t i = 0; i < n; i++)
            set(given.soft, i, 0.0);
        assert_true(reduce(EXPONENTIALS, given.x, given.soft, n, isa) == -inf);
        for (int64_t i = 0; i < n; i++) {
            set(given.x, i, 1.0);
            set(given.soft, i, i % 2 ? -1.0 : 1.0);
        }
        if (n % 2 == 0)
            assert_true(isnan(reduce(MEAN, given.x, given.soft, n, isa)));
        set(given.soft, n - 1, -3.0 * (double)n);
        assert_true(isnan(reduce(EXPONENTIALS, given.x, given.soft, n, isa)));
        for (int64_t i = 0; i < n; i++)
            set(given.x, i, -inf);
        assert_true(reduce(EXPONENTIALS, given.x, NULL, n, isa) == -inf);
    }
}

/* ---- Class weights ------------------------------------------------------------------------- */

static void betas(void **state)
{
    static const int64_t counts[] = {1, 2, 5, 100, 1000000};
    double weights[5];
    ballast_class_weights_args a = BALLAST_CLASS_WEIGHTS_ARGS;

    (void)state;
    assert_true(ballast_effective_number(0.0, 0) == 0.0);
    assert_true(ballast_effective_number(1.0, 0) == 0.0);
    assert_true(ballast_effective_number(0.0, 1) == 1.0);
    assert_true(ballast_effective_number(0.0, INT64_MAX) == 1.0);
    assert_true(ballast_effective_number(1.0, 123456789) == 123456789.0);
    assert_true(ballast_effective_number(1.0, INT64_MAX) == 0x1p63);
    assert_true(ballast_effective_number(0x1p-1074, 5) == 1.0);
    const double wrong[] = {-0x1p-1074, 1.0 + DBL_EPSILON, -1.0, INFINITY, -INFINITY, NAN};
    for (int i = 0; i < 6; i++) {
        const double nan = ballast_effective_number(wrong[i], 3);
        uint64_t bits;

        memcpy(&bits, &nan, sizeof bits);
        assert_true(bits == UINT64_C(0x7ff8000000000000));
    }
    assert_true(isnan(ballast_effective_number(0.5, -1)));
    a.classes = 5;
    a.counts = counts;
    a.weights = weights;
    a.weights_dtype = BALLAST_F64;
    a.beta = 0.0;
    assert_int_equal(ballast_class_weights(&a), BALLAST_OK);
    for (int c = 0; c < 5; c++)
        assert_true(weights[c] == 1.0);
    a.beta = 1.0;
    assert_int_equal(ballast_class_weights(&a), BALLAST_OK);
    const long double sum = 1.0L + 0.5L + 0.2L + 0.01L + 0.000001L;
    for (int c = 0; c < 5; c++)
        assert_true(fabsl(weights[c] - 5.0L / ((long double)counts[c] * sum)) <=
                    2.0L * (long double)DBL_EPSILON * (long double)weights[c]);
}

#define ON(isa)                                                                                    \
    {"each lane on " isa, each_lane, NULL, NULL, isa},                                             \
        {"elements stay apart on " isa, elements_stay_apart, NULL, NULL, isa},                     \
        {"rows of one special value on " isa, rows_of_one_special, NULL, NULL, isa},               \
        {"pairs on " isa, pairs, NULL, NULL, isa},                                                 \
        {"equal logits on " isa, equal_logits, NULL, NULL, isa},                                   \
        {"huge spread on " isa, huge_spread, NULL, NULL, isa},                                     \
        {"focal exponents on " isa, focal_exponents, NULL, NULL, isa},                             \
        {"focal limits on " isa, focal_limits, NULL, NULL, isa},                                   \
        {"focal alphas on " isa, focal_alphas, NULL, NULL, isa},                                   \
        {"focal targets on " isa, focal_targets, NULL, NULL, isa},                                 \
        {"one class on " isa, one_class, NULL, NULL, isa},                                         \
        {"no rows on " isa, no_rows, NULL, NULL, isa},                                             \
        {"no classes on " isa, no_classes, NULL, NULL, isa},                                       \
        {"every row ignored on " isa, every_row_ignored, NULL, NULL, isa},                         \
        {"ignored rows do not leak on " isa, ignored_rows_do_not_leak, NULL, NULL, isa},           \
        {"weights of zero on " isa, weights_of_zero, NULL, NULL, isa},                             \
        {"weight of zero, infinite loss on " isa, weight_of_zero_and_infinite_loss, NULL, NULL,    \
         isa},                                                                                     \
        {"impossible label on " isa, impossible_label, NULL, NULL, isa},                           \
        {"huge factors on " isa, huge_factors, NULL, NULL, isa},                                   \
        {"reduced specials on " isa, reduced_specials, NULL, NULL, isa},                           \
    {                                                                                              \
        "reduced limits on " isa, reduced_limits, NULL, NULL, isa                                  \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON("scalar"), ON("neon"), ON("avx2"), ON("avx512"), ON("f64"), cmocka_unit_test(betas),
    };

    return cmocka_run_group_tests_name("special_values", tests, NULL, NULL);
}
