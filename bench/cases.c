/* SPDX-License-Identifier: MIT */
/* The operations: their inputs, how they are run, and what their results should be. */
#include "cases.h"

#include "../tests/oracle/oracle.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Arrays ---------------------------------------------------------------------------------- */

enum { GUARD = 256, FILL = 0xA5, ALIGNMENT = 64 };

static size_t size_of(ballast_dtype dtype)
{
    switch (dtype) {
    case BALLAST_U8:
        return 1;
    case BALLAST_F32:
    case BALLAST_I32:
        return 4;
    default:
        return 8;
    }
}

static void *allocate(size_t bytes)
{
    const size_t whole = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    void *memory = aligned_alloc(ALIGNMENT, whole);

    if (!memory) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(2);
    }
    return memory;
}

static case_array make_strided(const problem *p, const char *name, ballast_dtype dtype,
                               int64_t rows, int64_t columns, int64_t stride)
{
    const size_t elements = rows > 0 ? (size_t)((rows - 1) * stride + columns) : 0;
    case_array a = {name, dtype, rows, columns, stride, rows == p->rows, NULL, NULL, 0};

    a.bytes = 2 * GUARD + ((size_t)p->offset + elements) * size_of(dtype);
    a.memory = allocate(a.bytes);
    a.data = (char *)a.memory + GUARD + (size_t)p->offset * size_of(dtype);
    memset(a.memory, FILL, a.bytes);
    return a;
}

static case_array make_array(const problem *p, const char *name, ballast_dtype dtype, int64_t rows,
                             int64_t columns)
{
    return make_strided(p, name, dtype, rows, columns, columns);
}

static case_array make_matrix(const problem *p, const char *name, ballast_dtype dtype)
{
    return make_strided(p, name, dtype, p->rows, p->classes, p->stride ? p->stride : p->classes);
}

static void *at(const case_array *a, int64_t row, int64_t column)
{
    return (char *)a->data + (size_t)(row * a->stride + column) * size_of(a->dtype);
}

static double real_at(const case_array *a, int64_t row, int64_t column)
{
    const void *p = at(a, row, column);

    return a->dtype == BALLAST_F32 ? (double)*(const float *)p : *(const double *)p;
}

/* A factor that is 1 where it is not given. */
static double factor_at(const case_array *a, int64_t row, int64_t column)
{
    return a->data ? real_at(a, row, column) : 1.0;
}

static int64_t integer_at(const case_array *a, int64_t row, int64_t column)
{
    const void *p = at(a, row, column);

    switch (a->dtype) {
    case BALLAST_U8:
        return *(const uint8_t *)p;
    case BALLAST_I32:
        return *(const int32_t *)p;
    default:
        return *(const int64_t *)p;
    }
}

static void load_row(const case_array *a, int64_t row, double *to)
{
    for (int64_t c = 0; c < a->columns; c++)
        to[c] = real_at(a, row, c);
}

static void store_real(ballast_dtype dtype, void *row, int64_t column, double value)
{
    if (dtype == BALLAST_F32)
        ((float *)row)[column] = (float)value;
    else
        ((double *)row)[column] = value;
}

/* Bits, so that no signalling NaN passes through a register that would make it quiet. */
static void store_bits(ballast_dtype dtype, void *row, int64_t column, uint64_t bits)
{
    const uint32_t low = (uint32_t)bits;

    if (dtype == BALLAST_F32)
        memcpy((char *)row + column * 4, &low, 4);
    else
        memcpy((char *)row + column * 8, &bits, 8);
}

static void store_integer(const case_array *a, int64_t row, int64_t value)
{
    void *p = at(a, row, 0);

    if (a->dtype == BALLAST_U8)
        *(uint8_t *)p = (uint8_t)value;
    else if (a->dtype == BALLAST_I32)
        *(int32_t *)p = (int32_t)value;
    else
        *(int64_t *)p = value;
}

/* ---- Random numbers: every product is exact, every value rounded once ------------------------ */

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* splitmix64 */
static uint64_t draw(uint64_t *state) { return mix(*state += UINT64_C(0x9e3779b97f4a7c15)); }

/* A generator of its own for each row of each array. */
static uint64_t state_of(const problem *p, int input, int64_t row)
{
    return mix(mix((uint64_t)p->seed + (uint64_t)input * UINT64_C(0x632be59bd9b4e019))
               + (uint64_t)row);
}

static int64_t below(uint64_t *state, int64_t n) { return (int64_t)(draw(state) % (uint64_t)n); }

/* In [0, 1), of 40 bits. */
static double fraction(uint64_t *state) { return (double)(draw(state) >> 24) * 0x1p-40; }

/* Twelve numbers of 16 bits, added: deviation 2; and 24 bits below them. */
static double normal(uint64_t *state)
{
    int64_t sum = -6 * 65535;

    for (int i = 0; i < 3; i++) {
        const uint64_t r = draw(state);

        sum += (int64_t)((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48));
    }
    return (double)(sum * (1 << 24) + (int64_t)(draw(state) >> 40)) * 0x1p-39;
}

static double either_sign(uint64_t *state, double x) { return draw(state) >> 63 ? -x : x; }

static double power_of_two(int64_t n)
{
    const uint64_t bits = (uint64_t)(n + 1023) << 52;
    double x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static double of_any_exponent(uint64_t *state, int64_t low, int64_t high)
{
    const double mantissa = 1.0 + fraction(state);

    return either_sign(state, mantissa * power_of_two(low + below(state, high - low)));
}

/* ---- Rows of logits -------------------------------------------------------------------------- */

typedef struct row_place {
    const problem *p;
    int input; /* enum case_input */
    int64_t row, columns;
    int64_t lead; /* the column that is ahead in confident rows; -1: any */
} row_place;

static double ordinary(const row_place *r, uint64_t *state)
{
    switch (r->p->inputs) {
    case INPUTS_UNIFORM:
        return 32.0 * fraction(state) - 16.0;
    case INPUTS_OFFSET_1E4:
        return normal(state) + (r->row & 1 ? -1e4 : 1e4);
    case INPUTS_MASKED:
        return draw(state) >> 62 ? normal(state) : -(double)INFINITY;
    case INPUTS_EXPONENTS:
        return of_any_exponent(state, -30, 7);
    default:
        return normal(state);
    }
}

/* +-1e30, and up to three steps below it in magnitude. */
static uint64_t bits_near_1e30(const row_place *r, uint64_t *state)
{
    const uint64_t k = draw(state);
    const uint64_t step = k & 4 ? k & 3 : 0, minus = (uint64_t)r->row & 1;

    if (r->p->dtype == BALLAST_F32)
        return (UINT64_C(0x7149f2ca) - step) | minus << 31;
    return (UINT64_C(0x46293e5939a08cea) - step) | minus << 63;
}

static uint64_t any_pattern(const row_place *r, int64_t column, uint64_t *state)
{
    const uint64_t index = (uint64_t)(r->row * r->columns + column);

    if (r->p->dtype == BALLAST_F32)
        return (uint32_t)((uint64_t)r->p->seed + index * UINT64_C(2654435761));
    return draw(state);
}

enum { PLUS_INFINITY = 2, MINUS_INFINITY, A_NAN, SPECIALS = 20 };
static const uint32_t specials_f32[SPECIALS] = {
    0x00000000, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffc12345,
    0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x80800000, 0x7f7fffff, 0xff7fffff,
    0x42b17218 /* 88.7 */, 0xc2b17218, 0xc2cff1b5 /* -104 */, 0x7149f2ca, 0xf149f2ca, 0x47800001};
static const uint64_t specials_f64[SPECIALS] = {
    0, UINT64_C(1) << 63, UINT64_C(0x7ff0000000000000), UINT64_C(0xfff0000000000000),
    UINT64_C(0x7ff8000000000000), UINT64_C(0x7ff0000000000001), UINT64_C(0xfff8123456789abc),
    1, UINT64_C(0x8000000000000001), UINT64_C(0x000fffffffffffff), UINT64_C(0x0010000000000000),
    UINT64_C(0x8010000000000000), UINT64_C(0x7fefffffffffffff), UINT64_C(0xffefffffffffffff),
    UINT64_C(0x40862e42fefa39ef) /* 709.8 */, UINT64_C(0xc0862e42fefa39ef),
    UINT64_C(0xc0874910d52d3051) /* -745 */, UINT64_C(0x46293e5939a08cea),
    UINT64_C(0xc6293e5939a08cea), UINT64_C(0x40f0000100000000)};

static void put_special(const row_place *r, void *row, int64_t column, int special)
{
    const ballast_dtype dtype = r->p->dtype;

    store_bits(dtype, row, column,
               dtype == BALLAST_F32 ? specials_f32[special] : specials_f64[special]);
}

/* By turns: a few of +inf, of -inf, of NaN; nothing but -inf; finite extremes; subnormals and
 * zeros; everything; and one special value alone, each in its turn. */
static void fill_special(const row_place *r, void *row, uint64_t *state)
{
    const int turn = (int)((uint64_t)(r->row + r->p->seed) % 8);
    const int64_t alone = r->columns > 0 ? below(state, r->columns) : 0;

    for (int64_t c = 0; c < r->columns; c++) {
        const int rare = below(state, 16) == 0, one = (int)below(state, SPECIALS);

        store_real(r->p->dtype, row, c, normal(state));
        if (turn <= 2 && rare)
            put_special(r, row, c, PLUS_INFINITY + turn);
        else if (turn == 3)
            put_special(r, row, c, MINUS_INFINITY);
        else if (turn == 4 && rare)
            put_special(r, row, c, 12 + one % (SPECIALS - 12));
        else if (turn == 5)
            put_special(r, row, c, one % 2 ? one % 4 / 2 : 7 + one / 2 % 5);
        else if (turn == 6)
            put_special(r, row, c, one);
        else if (turn == 7 && c == alone)
            put_special(r, row, c, one);
    }
}

static void fill_row(const row_place *r, void *row)
{
    const ballast_dtype dtype = r->p->dtype;
    uint64_t state = state_of(r->p, r->input, r->row);
    const double same = normal(&state), gap = 80.0 * fraction(&state);
    const int64_t any = r->columns > 0 ? below(&state, r->columns) : 0;
    const int64_t lead = r->lead < 0 || below(&state, 4) == 0 ? any : r->lead;

    if (r->p->inputs == INPUTS_MIXED_SPECIALS) {
        fill_special(r, row, &state);
        return;
    }
    for (int64_t c = 0; c < r->columns; c++) {
        if (r->p->inputs == INPUTS_PATTERNS)
            store_bits(dtype, row, c, any_pattern(r, c, &state));
        else if (r->p->inputs == INPUTS_OFFSET_1E30)
            store_bits(dtype, row, c, bits_near_1e30(r, &state));
        else if (r->p->inputs == INPUTS_EQUAL)
            store_real(dtype, row, c, same);
        else if (r->p->inputs == INPUTS_CONFIDENT && c == lead)
            store_real(dtype, row, c, normal(&state) + gap);
        else
            store_real(dtype, row, c, ordinary(r, &state));
    }
}

/* Confident rows are so of their labels, where there are any. */
static case_array fill_reals(const case_data *c, int input, case_array a)
{
    const case_array *labels = &c->in[IN_LABELS];

    for (int64_t i = 0; i < a.rows; i++) {
        const int64_t label = labels->data ? integer_at(labels, i, 0) : -1;
        const row_place r = {&c->p, input, i, a.columns, label < a.columns ? label : -1};

        fill_row(&r, at(&a, i, 0));
    }
    return a;
}

static case_array make_logits(const case_data *c, int input, const char *name)
{
    return fill_reals(c, input, make_matrix(&c->p, name, c->p.dtype));
}

static case_array make_reals(const case_data *c, int input, const char *name, int64_t rows,
                             int64_t columns)
{
    return fill_reals(c, input, make_array(&c->p, name, c->p.dtype, rows, columns));
}

/* ---- Rows of other inputs -------------------------------------------------------------------- */

/* What a softmax could have given, without a library's exponential: k_c / sum k, rounded once after
 * the division. Confident: one of them all but 1. */
static void fill_probabilities(const row_place *r, void *row)
{
    uint64_t state = state_of(r->p, r->input, r->row);
    const int64_t lead = r->columns > 0 ? below(&state, r->columns) : 0;
    const uint64_t first = state;
    double sum = 0.0;

    for (int pass = 0; pass < 2; pass++) {
        state = first;
        for (int64_t c = 0; c < r->columns; c++) {
            double k = (double)(1 + (draw(&state) >> 44));

            if (r->p->inputs == INPUTS_CONFIDENT && c == lead)
                k *= 0x1p28;
            if (r->p->inputs == INPUTS_MASKED && below(&state, 4) == 0)
                k = 0.0;
            if (pass == 0)
                sum += k;
            else
                store_real(r->p->dtype, row, c, sum > 0.0 ? k / sum : 0.0);
        }
    }
}

/* Numbers like those that a log-softmax gives; their exponentials do not add to 1. */
static void fill_log_probabilities(const row_place *r, void *row)
{
    uint64_t state = state_of(r->p, r->input, r->row);
    const int64_t lead = r->columns > 0 ? below(&state, r->columns) : 0;
    const double gap = r->p->inputs == INPUTS_CONFIDENT ? 80.0 * fraction(&state) : 1.0;

    for (int64_t c = 0; c < r->columns; c++) {
        double lp = -(gap + 8.0 * fraction(&state));

        if (r->p->inputs == INPUTS_CONFIDENT && c == lead)
            lp = -0x1p-20 * fraction(&state);
        if (r->p->inputs == INPUTS_MASKED && below(&state, 4) == 0)
            lp = -(double)INFINITY;
        store_real(r->p->dtype, row, c, lp);
    }
}

/* In [0, 4], multiples of 2^-20, one of 16 is 0. */
static double weight_of(uint64_t *state)
{
    const double w = (double)(1 + (draw(state) >> 42)) * 0x1p-20;

    return below(state, 16) ? w : 0.0;
}

static case_array make_weights(const case_data *c, int input, const char *name, int64_t rows,
                               int64_t columns)
{
    const case_array a = make_array(&c->p, name, c->p.dtype, rows, columns);

    for (int64_t i = 0; i < rows; i++) {
        uint64_t state = state_of(&c->p, input, i);

        for (int64_t j = 0; j < columns; j++)
            store_real(a.dtype, at(&a, i, 0), j, weight_of(&state));
    }
    return a;
}

static ballast_dtype label_dtype(const problem *p)
{
    if (p->labels == LABELS_U8)
        return BALLAST_U8;
    return p->labels == LABELS_I32 ? BALLAST_I32 : BALLAST_I64;
}

/* Half of the labels are in the first tenth of the classes. */
static int64_t label_of(const case_data *c, int64_t row)
{
    const problem *p = &c->p;
    uint64_t state = state_of(p, IN_LABELS, row);
    const int64_t kind = below(&state, 100), frequent = below(&state, 2);
    int64_t classes = p->classes;

    if (kind < p->ignored || classes == 0)
        return c->ignore_index;
    if (kind >= 100 - p->background)
        return -1;
    if (p->labels == LABELS_U8 && classes > 255)
        classes = 255;
    return below(&state, frequent ? 1 + (classes - 1) / 10 : classes);
}

static void make_labels(case_data *c)
{
    c->ignore_index = c->p.labels == LABELS_U8 ? 255 : -100;
    c->in[IN_LABELS] = make_array(&c->p, "labels", label_dtype(&c->p), c->p.rows, 1);
    for (int64_t i = 0; i < c->p.rows; i++)
        store_integer(&c->in[IN_LABELS], i, label_of(c, i));
}

static double target_of(const case_data *c, uint64_t *state)
{
    const uint64_t r = draw(state);
    const int hard = c->p.targets != TARGETS_SOFT || r % 8 == 0;

    return hard ? (double)(r >> 63) : (double)(r >> 40) * 0x1p-24;
}

static void make_targets(case_data *c)
{
    const ballast_dtype dtype = c->p.targets == TARGETS_U8 ? BALLAST_U8 : c->p.dtype;
    const case_array a = make_matrix(&c->p, "targets", dtype);

    for (int64_t i = 0; i < a.rows; i++) {
        uint64_t state = state_of(&c->p, IN_TARGETS, i);

        for (int64_t j = 0; j < a.columns; j++) {
            const double t = target_of(c, &state);

            if (dtype == BALLAST_U8)
                *(uint8_t *)at(&a, i, j) = t == 0.0 ? 0 : (uint8_t)(1 + (state >> 60));
            else
                store_real(dtype, at(&a, i, 0), j, t);
        }
    }
    c->in[IN_TARGETS] = a;
}

/* ---- Running --------------------------------------------------------------------------------- */

static ballast_const_tensor const_tensor(const case_array *a)
{
    const ballast_const_tensor none = BALLAST_NO_TENSOR;
    const ballast_const_tensor t = {a->data, a->dtype, a->rows, a->columns, 1, a->stride, 1};

    return a->data ? t : none;
}

static ballast_tensor tensor(const case_array *a)
{
    const ballast_tensor none = BALLAST_NO_TENSOR;
    const ballast_tensor t = {a->data, a->dtype, a->rows, a->columns, 1, a->stride, 1};

    return a->data ? t : none;
}

static ballast_vector vector(const case_array *a)
{
    const ballast_vector none = BALLAST_NO_VECTOR;
    const ballast_vector v = {a->data, a->dtype, a->rows * a->columns};

    return a->data ? v : none;
}

static ballast_labels labels(const case_array *a)
{
    const ballast_labels none = BALLAST_NO_LABELS;
    const ballast_labels l = {a->data, a->dtype};

    return a->data ? l : none;
}

/* An input, or the output that it is replaced by. */
static ballast_const_tensor replaced(const case_data *c, int input, const case_array *out,
                                     int64_t inplace)
{
    return const_tensor(c->p.inplace == inplace && out->data ? out : &c->in[input]);
}

/* The rows of a plan, one step at a time, from the last to the first. */
static ballast_status run_pieces(ballast_status prepared, ballast_plan *plan)
{
    if (prepared != BALLAST_OK)
        return prepared;
    const int64_t rows = ballast_plan_row_count(plan), step = ballast_plan_row_step(plan);

    for (int64_t begin = rows > 0 ? (rows - 1) / step * step : -1; begin >= 0; begin -= step) {
        const int64_t end = rows - begin < step ? rows : begin + step;
        const ballast_status status = ballast_plan_rows(plan, begin, end);

        if (status != BALLAST_OK)
            return status;
    }
    return ballast_plan_finish(plan);
}

#define RUN(name, a)                                                                              \
    ballast_plan plan;                                                                            \
    return c->p.pieces ? run_pieces(ballast_##name##_prepare(&(a), exec, &plan), &plan)           \
                       : ballast_##name(&(a), exec)

/* ---- Softmax --------------------------------------------------------------------------------- */

static void make_softmax(case_data *c)
{
    c->in[IN_X] = make_logits(c, IN_X, "input");
}

#define DEFINE_RUN_SOFTMAX(name)                                                                  \
    static ballast_status run_##name(const case_data *c, case_results *r,                         \
                                     const ballast_exec *exec)                                    \
    {                                                                                             \
        ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;                                            \
                                                                                                  \
        a.input = replaced(c, IN_X, &r->out[0], 1);                                               \
        a.output = tensor(&r->out[0]);                                                            \
        RUN(name, a);                                                                             \
    }
DEFINE_RUN_SOFTMAX(softmax)
DEFINE_RUN_SOFTMAX(log_softmax)

static ballast_status run_log_sum_exp(const case_data *c, case_results *r, const ballast_exec *exec)
{
    ballast_log_sum_exp_args a = BALLAST_LOG_SUM_EXP_ARGS;

    a.input = const_tensor(&c->in[IN_X]);
    a.output = r->out[0].data;
    RUN(log_sum_exp, a);
}

static void refer_softmax(const case_data *c, int64_t row, case_reference *r)
{
    load_row(&c->in[IN_X], row, r->x);
    oracle_softmax(r->x, c->p.classes, r->value[0]);
}

/* Below this, exponentials are 0 (f32) or lose digits (f64). */
static long double flushed(const case_data *c)
{
    return c->p.dtype == BALLAST_F32 ? 0x1p-125L : 0x1p-1021L;
}

static void refer_log_softmax(const case_data *c, int64_t row, case_reference *r)
{
    load_row(&c->in[IN_X], row, r->x);
    oracle_log_softmax(r->x, c->p.classes, r->value[0]);
    r->tiny_sum = flushed(c) * (long double)c->p.classes;
    r->sum_column = ALL_COLUMNS;
}

/* The sum of +inf and finite numbers is +inf, of nothing 0: what the oracle leaves open. */
static int is_special_sum(const double *x, const double *w, int64_t n, long double *result)
{
    long double max = -INFINITY;

    for (int64_t i = 0; i < n; i++) {
        if (w && w[i] == 0.0)
            continue;
        if (isnan(x[i]))
            max = NAN;
        if (x[i] > max)
            max = x[i];
    }
    *result = max;
    return !isfinite(max);
}

static void refer_log_sum_exp(const case_data *c, int64_t row, case_reference *r)
{
    load_row(&c->in[IN_X], row, r->x);
    r->of_terms[0] = 1;
    r->terms[0][0] = 1.0L;
    if (!is_special_sum(r->x, NULL, c->p.classes, r->value[0]))
        r->value[0][0] = oracle_log_sum_exp(r->x, c->p.classes, r->terms[0]);
}

/* ---- Backward of softmax --------------------------------------------------------------------- */

static void make_backward(case_data *c, void (*fill)(const row_place *r, void *row))
{
    const case_array y = make_matrix(&c->p, "output", c->p.dtype);

    for (int64_t i = 0; i < y.rows; i++) {
        const row_place r = {&c->p, IN_X, i, y.columns, -1};
        const int special = c->p.inputs == INPUTS_MIXED_SPECIALS && i & 8;

        (special ? fill_row : fill)(&r, at(&y, i, 0));
    }
    c->in[IN_X] = y;
    c->in[IN_GRAD] = make_logits(c, IN_GRAD, "grad_output");
}

static void make_softmax_backward(case_data *c) { make_backward(c, fill_probabilities); }
static void make_log_softmax_backward(case_data *c) { make_backward(c, fill_log_probabilities); }

#define DEFINE_RUN_BACKWARD(name)                                                                 \
    static ballast_status run_##name(const case_data *c, case_results *r,                         \
                                     const ballast_exec *exec)                                    \
    {                                                                                             \
        ballast_softmax_backward_args a = BALLAST_SOFTMAX_BACKWARD_ARGS;                          \
                                                                                                  \
        a.output = replaced(c, IN_X, &r->out[0], 2);                                              \
        a.grad_output = replaced(c, IN_GRAD, &r->out[0], 1);                                      \
        a.grad_input = tensor(&r->out[0]);                                                        \
        RUN(name, a);                                                                             \
    }
DEFINE_RUN_BACKWARD(softmax_backward)
DEFINE_RUN_BACKWARD(log_softmax_backward)

static void load_backward(const case_data *c, int64_t row, case_reference *r)
{
    load_row(&c->in[IN_X], row, r->x);
    load_row(&c->in[IN_GRAD], row, r->y);
    r->of_terms[0] = 1;
    /* where infinities meet is rounding's matter */
    for (int64_t i = 0; i < c->p.classes; i++)
        if (!isfinite(r->y[i]) || isnan(r->x[i]) || r->x[i] > 1.0)
            r->unknown = ~0u;
    if (c->p.inputs == INPUTS_PATTERNS || c->p.inputs == INPUTS_MIXED_SPECIALS)
        r->unknown = ~0u;
}

static void refer_softmax_backward(const case_data *c, int64_t row, case_reference *r)
{
    load_backward(c, row, r);
    oracle_softmax_backward(r->x, r->y, c->p.classes, r->value[0], r->terms[0]);
}

static void refer_log_softmax_backward(const case_data *c, int64_t row, case_reference *r)
{
    load_backward(c, row, r);
    oracle_log_softmax_backward(r->x, r->y, c->p.classes, r->value[0], r->terms[0]);
}

/* ---- Losses ---------------------------------------------------------------------------------- */

static void make_loss(case_data *c)
{
    const problem *p = &c->p;

    if (p->targets == TARGETS_LABELS)
        make_labels(c);
    else
        make_targets(c);
    c->in[IN_X] = make_logits(c, IN_X, "logits");
    if (p->weights & WEIGHTS_CLASS)
        c->in[IN_CLASS_WEIGHT] = make_weights(c, IN_CLASS_WEIGHT, "class_weight", 1, p->classes);
    if (p->weights & WEIGHTS_ROW)
        c->in[IN_WEIGHT] = make_weights(c, IN_WEIGHT, "row_weight", p->rows, 1);
    if (p->grad_rows)
        c->in[IN_GRAD_ROWS] = make_weights(c, IN_GRAD_ROWS, "grad_rows", p->rows, 1);
}

/* A long tail of counts, and the weights that the library makes of them. */
static void make_class_balanced(case_data *c)
{
    ballast_class_weights_args a = BALLAST_CLASS_WEIGHTS_ARGS;
    const problem *p = &c->p;

    make_loss(c);
    c->in[IN_COUNTS] = make_array(p, "counts", BALLAST_I64, p->classes, 1);
    for (int64_t k = 0; k < p->classes; k++)
        store_integer(&c->in[IN_COUNTS], k, 1 + (5000 >> k % 12) + k % 7);
    c->in[IN_CLASS_WEIGHT] = make_array(p, "class_weight", p->dtype, 1, p->classes);
    a.beta = p->beta;
    a.classes = p->classes;
    a.counts = c->in[IN_COUNTS].data;
    a.weights = c->in[IN_CLASS_WEIGHT].data;
    a.weights_dtype = p->dtype;
    if (p->classes > 0 && ballast_class_weights(&a) != BALLAST_OK)
        fputs("ballast_class_weights failed\n", stderr);
}

/* The outputs of losses, in the order of their tables. */
enum { LOSS, ROW_LOSS, GRAD, ELEMENT_LOSS };

#define SET_LOSS(a, c, r)                                                                         \
    do {                                                                                          \
        (a).logits = replaced(c, IN_X, &(r)->out[GRAD], 1);                                       \
        (a).labels = labels(&(c)->in[IN_LABELS]);                                                 \
        (a).class_weight = (c)->in[IN_CLASS_WEIGHT].data;                                         \
        (a).grad_rows = (c)->in[IN_GRAD_ROWS].data;                                               \
        (a).grad_scale = (c)->p.grad_scale;                                                       \
        (a).ignore_index = (c)->ignore_index;                                                     \
        (a).reduction = (ballast_reduction)(c)->p.reduction;                                      \
        if ((c)->p.denominator)                                                                   \
            (a).denominator = (ballast_denominator)((c)->p.denominator - 1);                      \
        (a).denominator_value = GIVEN_DENOMINATOR;                                                \
        (a).loss = (r)->out[LOSS].data;                                                           \
        (a).row_loss = (r)->out[ROW_LOSS].data;                                                   \
        (a).grad = tensor(&(r)->out[GRAD]);                                                       \
    } while (0)
#define GIVEN_DENOMINATOR 12.5

#define SET_SIGMOID_LOSS(a, c, r)                                                                 \
    do {                                                                                          \
        SET_LOSS(a, c, r);                                                                        \
        (a).row_weight = (c)->in[IN_WEIGHT].data;                                                 \
        (a).targets = const_tensor(&(c)->in[IN_TARGETS]);                                         \
        (a).element_loss = tensor(&(r)->out[ELEMENT_LOSS]);                                       \
    } while (0)

static ballast_status run_cross_entropy(const case_data *c, case_results *r,
                                        const ballast_exec *exec)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    SET_LOSS(a, c, r);
    a.row_weight = c->in[IN_WEIGHT].data;
    RUN(cross_entropy, a);
}

static ballast_status run_binary_cross_entropy(const case_data *c, case_results *r,
                                               const ballast_exec *exec)
{
    ballast_binary_cross_entropy_args a = BALLAST_BINARY_CROSS_ENTROPY_ARGS;

    SET_SIGMOID_LOSS(a, c, r);
    RUN(binary_cross_entropy, a);
}

static ballast_status run_sigmoid_focal(const case_data *c, case_results *r,
                                        const ballast_exec *exec)
{
    ballast_sigmoid_focal_args a = BALLAST_SIGMOID_FOCAL_ARGS;

    SET_SIGMOID_LOSS(a, c, r);
    a.alpha = c->p.alpha;
    a.gamma = c->p.gamma;
    RUN(sigmoid_focal, a);
}

static ballast_status run_class_balanced_loss(const case_data *c, case_results *r,
                                              const ballast_exec *exec)
{
    ballast_class_balanced_args a = BALLAST_CLASS_BALANCED_ARGS;

    SET_LOSS(a, c, r);
    a.kind = (ballast_class_balanced_kind)c->p.kind;
    a.gamma = c->p.gamma;
    RUN(class_balanced_loss, a);
}

/* What a row's loss and gradient are multiplied by. */
typedef struct row_factor {
    int ignored;
    int64_t label; /* -1: none */
    long double loss, grad;
} row_factor;

static long double row_weight(const case_data *c, int64_t row, int64_t label)
{
    const long double w = factor_at(&c->in[IN_WEIGHT], row, 0);

    return label >= 0 ? w * factor_at(&c->in[IN_CLASS_WEIGHT], 0, label) : w;
}

static int64_t label_at(const case_data *c, int64_t row)
{
    return c->in[IN_LABELS].data ? integer_at(&c->in[IN_LABELS], row, 0) : -1;
}

static int is_ignored(const case_data *c, int64_t row)
{
    return c->in[IN_LABELS].data && label_at(c, row) == c->ignore_index;
}

static ballast_denominator denominator_of(const case_data *c)
{
    const problem *p = &c->p;

    if (p->denominator)
        return (ballast_denominator)(p->denominator - 1);
    if (p->operation->keys & KEY(KEY_KIND))
        return BALLAST_ROWS;
    return p->operation->keys & KEY(KEY_TARGETS) ? BALLAST_ELEMENTS : BALLAST_WEIGHT_SUM;
}

static long double sum_over_rows(const case_data *c, ballast_denominator d)
{
    long double sum = 0.0L;

    for (int64_t i = 0; i < c->p.rows; i++) {
        if (is_ignored(c, i))
            continue;
        if (d == BALLAST_WEIGHT_SUM)
            sum += row_weight(c, i, label_at(c, i));
        else if (d != BALLAST_POSITIVES || label_at(c, i) >= 0)
            sum += 1.0L;
    }
    return d == BALLAST_ELEMENTS ? sum * (long double)c->p.classes : sum;
}

static long double divisor_of(const case_data *c)
{
    const ballast_denominator d = denominator_of(c);

    if (c->p.reduction != BALLAST_MEAN)
        return 1.0L;
    if (d == BALLAST_GIVEN)
        return GIVEN_DENOMINATOR;
    return d == BALLAST_ROWS ? (long double)c->p.rows : sum_over_rows(c, d);
}

/* The exponentials of a row, and of a loss of elements the losses, are summed. */
static void set_tiny(const case_data *c, case_reference *r, long double factor, int64_t sum_column)
{
    r->tiny = flushed(c) * fmaxl(1.0L, factor);
    r->tiny_sum = r->tiny * (long double)c->p.classes;
    r->sum_column = sum_column;
}

static row_factor factor_of(const case_data *c, int64_t row, case_reference *r)
{
    row_factor f = {is_ignored(c, row), label_at(c, row), 0.0L, 0.0L};

    if (row == 0)
        r->divisor = divisor_of(c);
    f.loss = row_weight(c, row, f.ignored ? -1 : f.label);
    if (r->divisor != 0.0L)
        f.grad = f.loss * factor_at(&c->in[IN_GRAD_ROWS], row, 0)
               * (long double)c->p.grad_scale / r->divisor;
    set_tiny(c, r, fmaxl(f.loss, fabsl(f.grad)), f.label);
    return f;
}

/* The largest number that sums of the dtype may pass through. */
static int sum_overflows(const case_data *c, long double sum)
{
    return fabsl(sum) > (c->p.dtype == BALLAST_F32 ? 0x1p126L : 0x1p1022L);
}

static void set_ignored_row(const case_data *c, case_reference *r)
{
    r->value[ROW_LOSS][0] = 0.0L;
    for (int64_t j = 0; j < c->p.classes; j++) {
        r->value[GRAD][j] = 0.0L;
        r->terms[GRAD][j] = 1.0L;
        r->value[ELEMENT_LOSS][j] = 0.0L;
    }
}

static void refer_cross_entropy(const case_data *c, int64_t row, case_reference *r)
{
    const row_factor f = factor_of(c, row, r);

    load_row(&c->in[IN_X], row, r->x);
    if (f.ignored) {
        set_ignored_row(c, r);
        return;
    }
    const long double loss = oracle_cross_entropy(r->x, c->p.classes, f.label, 1.0L,
                                                  r->value[GRAD]);
    for (int64_t j = 0; j < c->p.classes; j++)
        r->value[GRAD][j] *= f.grad;
    r->value[ROW_LOSS][0] = oracle_limit_product(f.loss, loss);
    r->loss += r->value[ROW_LOSS][0];
}

typedef long double element_function(const case_data *c, double x, double target,
                                     long double *grad, long double *terms);

static long double binary_element(const case_data *c, double x, double target, long double *grad,
                                  long double *terms)
{
    (void)c;
    return oracle_binary_cross_entropy(x, target, 1.0L, grad, terms);
}

static long double focal_element(const case_data *c, double x, double target, long double *grad,
                                 long double *terms)
{
    *terms = 0.0L;
    return oracle_sigmoid_focal(x, target != 0.0, c->p.alpha, c->p.gamma, grad);
}

static double target_at(const case_data *c, int64_t row, int64_t column, int64_t label)
{
    const case_array *t = &c->in[IN_TARGETS];

    if (!t->data)
        return column == label ? 1.0 : 0.0;
    return t->dtype == BALLAST_U8 ? *(uint8_t *)at(t, row, column) != 0 : real_at(t, row, column);
}

static void refer_elements(const case_data *c, int64_t row, case_reference *r,
                           element_function *element)
{
    const row_factor f = factor_of(c, row, r);
    oracle_sum sum = {0};

    load_row(&c->in[IN_X], row, r->x);
    if (f.ignored) {
        set_ignored_row(c, r);
        return;
    }
    for (int64_t j = 0; j < c->p.classes; j++) {
        long double *grad = &r->value[GRAD][j], *terms = &r->terms[GRAD][j];
        const double target = target_at(c, row, j, f.label);
        const long double loss = element(c, r->x[j], target, grad, terms);

        oracle_add(&sum, loss);
        r->value[ELEMENT_LOSS][j] = oracle_limit_product(f.loss, loss);
        *grad *= f.grad;
        *terms *= fabsl(f.grad);
    }
    r->value[ROW_LOSS][0] = oracle_limit_product(f.loss, oracle_total(&sum));
    if (isfinite(oracle_total(&sum)) && sum_overflows(c, oracle_total(&sum)))
        r->unknown = 1u << ROW_LOSS | 1u << LOSS;
    r->loss += r->value[ROW_LOSS][0];
}

static void refer_binary_cross_entropy(const case_data *c, int64_t row, case_reference *r)
{
    r->of_terms[GRAD] = c->p.targets == TARGETS_SOFT || c->p.targets == TARGETS_DENSE;
    refer_elements(c, row, r, binary_element);
}

static void refer_sigmoid_focal(const case_data *c, int64_t row, case_reference *r)
{
    refer_elements(c, row, r, focal_element);
}

static long double class_balanced(const case_data *c, case_reference *r, int64_t label,
                                  long double weight)
{
    switch (c->p.kind) {
    case BALLAST_CB_SOFTMAX:
        return oracle_class_balanced_softmax(r->x, c->p.classes, label, weight, r->value[GRAD]);
    case BALLAST_CB_SIGMOID:
        return oracle_class_balanced_sigmoid(r->x, c->p.classes, label, weight, r->value[GRAD]);
    default:
        return oracle_class_balanced_focal(r->x, c->p.classes, label, weight, c->p.gamma,
                                           r->value[GRAD]);
    }
}

static void refer_class_balanced_loss(const case_data *c, int64_t row, case_reference *r)
{
    const row_factor f = factor_of(c, row, r);

    load_row(&c->in[IN_X], row, r->x);
    if (f.ignored) {
        set_ignored_row(c, r);
        return;
    }
    r->value[ROW_LOSS][0] = class_balanced(c, r, f.label, f.loss);
    for (int64_t j = 0; j < c->p.classes; j++)
        r->value[GRAD][j] *= f.grad / f.loss; /* class-balanced weights are never 0 */
    if (isfinite(r->value[ROW_LOSS][0]) && sum_overflows(c, r->value[ROW_LOSS][0] / f.loss))
        r->unknown = 1u << ROW_LOSS | 1u << LOSS;
    r->loss += r->value[ROW_LOSS][0];
}

/* ---- Reductions ------------------------------------------------------------------------------ */

static void make_vector(case_data *c)
{
    c->in[IN_X] = make_reals(c, IN_X, "x", 1, c->p.rows);
    if (c->p.weights & WEIGHTS_ROW)
        c->in[IN_WEIGHT] = make_weights(c, IN_WEIGHT, "weights", 1, c->p.rows);
}

/* Weights of both signs, and always. */
static void make_dot(case_data *c)
{
    problem *p = &c->p;
    const int64_t inputs = p->inputs;

    c->in[IN_X] = make_reals(c, IN_X, "x", 1, p->rows);
    p->inputs = inputs == INPUTS_EQUAL ? INPUTS_EQUAL : INPUTS_NORMAL;
    c->in[IN_WEIGHT] = make_reals(c, IN_WEIGHT, "weights", 1, p->rows);
    p->inputs = inputs;
}

#define DEFINE_RUN_REDUCTION(name)                                                                \
    static ballast_status run_##name(const case_data *c, case_results *r,                         \
                                     const ballast_exec *exec)                                    \
    {                                                                                             \
        ballast_reduce_args a = BALLAST_REDUCE_ARGS;                                              \
                                                                                                  \
        a.x = vector(&c->in[IN_X]);                                                               \
        a.weights = vector(&c->in[IN_WEIGHT]);                                                    \
        a.result = r->out[0].data;                                                                \
        RUN(name, a);                                                                             \
    }
DEFINE_RUN_REDUCTION(weighted_sum)
DEFINE_RUN_REDUCTION(weighted_mean)
DEFINE_RUN_REDUCTION(weighted_sum_of_squares)
DEFINE_RUN_REDUCTION(dot)
DEFINE_RUN_REDUCTION(weighted_log_sum_exp)

/* Infinities and overflow are IEEE arithmetic in f32, which the oracle's range does not show. */
static const double *load_vector(const case_data *c, case_reference *r)
{
    const case_array *w = &c->in[IN_WEIGHT];

    load_row(&c->in[IN_X], 0, r->x);
    if (w->data)
        load_row(w, 0, r->y);
    r->of_terms[0] = 1;
    for (int64_t i = 0; i < c->p.rows; i++)
        if (!(fabs(r->x[i]) < 1e15) || (w->data && !(fabs(r->y[i]) < 1e15)))
            r->unknown = ~0u;
    return w->data ? r->y : NULL;
}

#define DEFINE_REFER_REDUCTION(name, oracle)                                                      \
    static void refer_##name(const case_data *c, int64_t row, case_reference *r)                  \
    {                                                                                             \
        const double *w = load_vector(c, r);                                                      \
                                                                                                  \
        (void)row;                                                                                \
        r->value[0][0] = oracle(r->x, w, c->p.rows, r->terms[0]);                                 \
    }
DEFINE_REFER_REDUCTION(weighted_sum, oracle_weighted_sum)
DEFINE_REFER_REDUCTION(weighted_mean, oracle_weighted_mean)
DEFINE_REFER_REDUCTION(weighted_sum_of_squares, oracle_sum_of_squares)
DEFINE_REFER_REDUCTION(dot, oracle_dot)

static void refer_weighted_log_sum_exp(const case_data *c, int64_t row, case_reference *r)
{
    const double *w = load_vector(c, r);

    (void)row;
    r->unknown = 0;
    r->terms[0][0] = 1.0L;
    if (!is_special_sum(r->x, w, c->p.rows, r->value[0]))
        r->value[0][0] = oracle_weighted_log_sum_exp(r->x, w, c->p.rows, r->terms[0]);
}

/* ---- Per class ------------------------------------------------------------------------------- */

enum { SUMS, COUNTS, MEANS };

static void make_per_class(case_data *c)
{
    make_labels(c);
    c->in[IN_X] = make_reals(c, IN_X, "values", c->p.rows, 1);
}

static ballast_status run_per_class(const case_data *c, case_results *r, const ballast_exec *exec)
{
    ballast_per_class_args a = BALLAST_PER_CLASS_ARGS;

    (void)exec;
    a.values = vector(&c->in[IN_X]);
    a.labels = labels(&c->in[IN_LABELS]);
    a.classes = c->p.classes;
    a.ignore_index = c->ignore_index;
    a.sums = r->out[SUMS].data;
    a.counts = r->out[COUNTS].data;
    a.means = r->out[MEANS].data;
    return ballast_per_class(&a);
}

static void refer_per_class(const case_data *c, int64_t row, case_reference *r)
{
    const problem *p = &c->p;
    oracle_sum *sums = allocate((size_t)p->classes * sizeof *sums);
    int64_t *counts = allocate((size_t)p->classes * sizeof *counts);

    (void)row;
    memset(sums, 0, (size_t)p->classes * sizeof *sums);
    memset(counts, 0, (size_t)p->classes * sizeof *counts);
    for (int64_t i = 0; i < p->rows; i++)
        if (!is_ignored(c, i)) {
            const double value = real_at(&c->in[IN_X], i, 0);

            if (!(fabs(value) < 1e300))
                r->unknown = ~0u;
            oracle_add(&sums[label_at(c, i)], value);
            counts[label_at(c, i)]++;
        }
    r->of_terms[SUMS] = r->of_terms[MEANS] = 1;
    for (int64_t k = 0; k < p->classes; k++) {
        const long double n = (long double)counts[k];

        r->value[SUMS][k] = oracle_total(&sums[k]);
        r->terms[SUMS][k] = sums[k].terms;
        r->value[COUNTS][k] = n;
        r->value[MEANS][k] = oracle_total(&sums[k]) / n;
        r->terms[MEANS][k] = n > 0 ? sums[k].terms / n : 1.0L;
    }
    free(sums);
    free(counts);
}

/* ---- The table ------------------------------------------------------------------------------- */

#define COMMON_KEYS (KEY(KEY_OFFSET) | KEY(KEY_INPUTS) | KEY(KEY_SEED))
#define RUN_KEYS (COMMON_KEYS | KEY(KEY_PIECES) | KEY(KEY_THREADS))
#define MATRIX_KEYS (RUN_KEYS | KEY(KEY_ROWS) | KEY(KEY_CLASSES) | KEY(KEY_STRIDE))
#define LOSS_KEYS                                                                                 \
    (MATRIX_KEYS | KEY(KEY_LABELS) | KEY(KEY_IGNORED) | KEY(KEY_OUTPUTS) | KEY(KEY_INPLACE)       \
     | KEY(KEY_REDUCTION) | KEY(KEY_DENOMINATOR) | KEY(KEY_GRAD_SCALE) | KEY(KEY_GRAD_ROWS))
#define SIGMOID_KEYS (LOSS_KEYS | KEY(KEY_TARGETS) | KEY(KEY_WEIGHTS) | KEY(KEY_BACKGROUND))
#define VECTOR_KEYS (RUN_KEYS | KEY(KEY_COUNT) | KEY(KEY_WEIGHTS))
#define PER_CLASS_KEYS                                                                            \
    (COMMON_KEYS | KEY(KEY_ROWS) | KEY(KEY_CLASSES) | KEY(KEY_LABELS) | KEY(KEY_IGNORED)          \
     | KEY(KEY_OUTPUTS))

#define VARIANTS(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}
VARIANTS(in_place, "", "inplace=1");
VARIANTS(backward, "", "inplace=1", "inplace=2,pieces=1");
VARIANTS(weighted, "", "weights=row", "weights=row,pieces=1");
VARIANTS(unweighted, "", "pieces=1");
VARIANTS(per_class, "ignored=10", "labels=u8", "labels=i32,outputs=means");
VARIANTS(cross_entropy, "reduction=sum", "inplace=1,weights=both,ignored=20",
         "labels=i32,weights=class,denominator=rows,pieces=1",
         "labels=u8,weights=row,ignored=10,reduction=none,grad_rows=1,grad_scale=0.3");
VARIANTS(binary, "reduction=sum", "reduction=sum,targets=u8,inplace=1",
         "reduction=sum,targets=soft",
         "weights=both,ignored=20,background=20,denominator=positives",
         "targets=dense,weights=row,inplace=1,pieces=1",
         "labels=u8,ignored=10,reduction=none,grad_rows=1,grad_scale=0.3");
VARIANTS(focal, "reduction=sum,alpha=-1", "reduction=sum,targets=u8,gamma=0,alpha=-1",
         "reduction=sum,alpha=-1,gamma=0.5,targets=dense,inplace=1",
         "reduction=sum,alpha=-1,gamma=1",
         "reduction=sum,alpha=-1,gamma=1.5,targets=u8", "reduction=sum,alpha=-1,gamma=5",
         "weights=both,ignored=20,background=20,denominator=positives,inplace=1",
         "targets=u8,weights=row,gamma=3,pieces=1",
         "labels=i32,alpha=0,reduction=none,grad_rows=1,grad_scale=0.3");
VARIANTS(balanced, "", "kind=sigmoid,ignored=10", "kind=focal,inplace=1",
         "kind=focal,gamma=0.5,beta=0.9999,pieces=1", "labels=u8,denominator=weight_sum,inplace=1",
         "kind=sigmoid,labels=i32,reduction=none,grad_rows=1");

#define FUNCTIONS(make, name) make, run_##name, refer_##name
#define ONE_MATRIX(name) {{name, OUT_MATRIX, 4}}
#define NUMBER(bound) {{"result", OUT_NUMBER, bound}}
#define LOSS_OUTPUTS(loss, grad)                                                                  \
    {"loss", OUT_NUMBER, loss}, {"row_loss", OUT_ROWS, loss}, {"grad", OUT_MATRIX, grad}
#define SIGMOID_OUTPUTS(loss, grad)                                                               \
    {LOSS_OUTPUTS(loss, grad), {"element_loss", OUT_MATRIX, loss}}

static const operation operations[] = {
    {"softmax", MATRIX_KEYS | KEY(KEY_INPLACE), ONE_MATRIX("output"), in_place,
     FUNCTIONS(make_softmax, softmax)},
    {"log_softmax", MATRIX_KEYS | KEY(KEY_INPLACE), ONE_MATRIX("output"), in_place,
     FUNCTIONS(make_softmax, log_softmax)},
    {"log_sum_exp", MATRIX_KEYS, {{"output", OUT_ROWS, 4}}, unweighted,
     FUNCTIONS(make_softmax, log_sum_exp)},
    {"softmax_backward", MATRIX_KEYS | KEY(KEY_INPLACE), ONE_MATRIX("grad_input"), backward,
     FUNCTIONS(make_softmax_backward, softmax_backward)},
    {"log_softmax_backward", MATRIX_KEYS | KEY(KEY_INPLACE), ONE_MATRIX("grad_input"), backward,
     FUNCTIONS(make_log_softmax_backward, log_softmax_backward)},
    {"cross_entropy", LOSS_KEYS | KEY(KEY_WEIGHTS), {LOSS_OUTPUTS(4, 4)}, cross_entropy,
     FUNCTIONS(make_loss, cross_entropy)},
    {"binary_cross_entropy", SIGMOID_KEYS, SIGMOID_OUTPUTS(4, 4), binary,
     FUNCTIONS(make_loss, binary_cross_entropy)},
    {"sigmoid_focal", SIGMOID_KEYS | KEY(KEY_GAMMA) | KEY(KEY_ALPHA), SIGMOID_OUTPUTS(5, 6), focal,
     FUNCTIONS(make_loss, sigmoid_focal)},
    {"weighted_sum", VECTOR_KEYS, NUMBER(4), weighted, FUNCTIONS(make_vector, weighted_sum)},
    {"weighted_mean", VECTOR_KEYS, NUMBER(4), weighted, FUNCTIONS(make_vector, weighted_mean)},
    {"weighted_sum_of_squares", VECTOR_KEYS, NUMBER(4), weighted,
     FUNCTIONS(make_vector, weighted_sum_of_squares)},
    {"dot", VECTOR_KEYS & ~KEY(KEY_WEIGHTS), NUMBER(4), unweighted, FUNCTIONS(make_dot, dot)},
    {"weighted_log_sum_exp", VECTOR_KEYS, NUMBER(4), weighted,
     FUNCTIONS(make_vector, weighted_log_sum_exp)},
    {"per_class", PER_CLASS_KEYS,
     {{"sums", OUT_CLASSES, 4}, {"counts", OUT_COUNTS, 0}, {"means", OUT_CLASSES, 4}}, per_class,
     FUNCTIONS(make_per_class, per_class)},
    {"class_balanced_loss", LOSS_KEYS | KEY(KEY_KIND) | KEY(KEY_GAMMA) | KEY(KEY_BETA),
     {LOSS_OUTPUTS(4, 4)}, balanced, FUNCTIONS(make_class_balanced, class_balanced_loss)},
};

const operation *operation_at(int index)
{
    const int count = (int)(sizeof operations / sizeof operations[0]);

    return index >= 0 && index < count ? &operations[index] : NULL;
}

const operation *operation_find(const char *name, size_t length)
{
    for (int i = 0; operation_at(i); i++) {
        const operation *op = operation_at(i);

        if (strlen(op->name) == length && strncmp(op->name, name, length) == 0)
            return op;
    }
    return NULL;
}

/* ---- Cases ----------------------------------------------------------------------------------- */

void case_make(const problem *p, case_data *c)
{
    memset(c, 0, sizeof *c);
    c->p = *p;
    c->ignore_index = -100;
    p->operation->make(c);
}

void case_free(case_data *c)
{
    for (int i = 0; i < CASE_INPUTS && !c->is_view; i++)
        free(c->in[i].memory);
    memset(c, 0, sizeof *c);
}

static case_array make_output(const problem *p, const case_output *o)
{
    switch (o->shape) {
    case OUT_MATRIX:
        return make_matrix(p, o->name, p->dtype);
    case OUT_ROWS:
        return make_array(p, o->name, p->dtype, p->rows, 1);
    case OUT_NUMBER:
        return make_array(p, o->name, BALLAST_F64, 1, 1);
    default:
        return make_array(p, o->name, o->shape == OUT_COUNTS ? BALLAST_I64 : BALLAST_F64, 1,
                          p->classes);
    }
}

void case_results_make(const case_data *c, case_results *out)
{
    const unsigned wanted = problem_outputs(&c->p);

    memset(out, 0, sizeof *out);
    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (wanted >> k & 1) {
            const case_output *o = &c->p.operation->outputs[k];

            out->out[k] = make_output(&c->p, o);
            out->out[k].per_row = o->shape == OUT_MATRIX || o->shape == OUT_ROWS;
        }
}

void case_results_free(case_results *out)
{
    for (int k = 0; k < CASE_OUTPUTS && !out->is_view; k++)
        free(out->out[k].memory);
    memset(out, 0, sizeof *out);
}

/* Rows [begin, end) of an array; nothing of one that is not made of the problem's rows. */
static case_array rows_of(const case_array *a, int64_t begin, int64_t end)
{
    case_array view = *a;

    if (a->data) {
        view.data = at(a, begin, 0);
        view.rows = end - begin;
    }
    return view;
}

void case_rows(const case_data *c, int64_t begin, int64_t end, case_data *view)
{
    *view = *c;
    view->is_view = 1;
    view->p.rows = end - begin;
    for (int i = 0; i < CASE_INPUTS; i++)
        if (i != IN_CLASS_WEIGHT && i != IN_COUNTS)
            view->in[i] = rows_of(&c->in[i], begin, end);
}

void case_results_rows(const case_results *r, int64_t begin, int64_t end, case_results *view)
{
    const case_array none = {0};

    view->is_view = 1;
    for (int k = 0; k < CASE_OUTPUTS; k++)
        view->out[k] = r->out[k].per_row ? rows_of(&r->out[k], begin, end) : none;
}

/* The input that an output replaces; NULL where there is none. */
static const case_array *replaced_input(const case_data *c, const case_array *out, int k)
{
    const int is_backward = c->in[IN_GRAD].data != NULL;

    if (!c->p.inplace || !out->data || c->p.operation->outputs[k].shape != OUT_MATRIX
        || strcmp(out->name, "element_loss") == 0)
        return NULL;
    return &c->in[is_backward && c->p.inplace == 1 ? IN_GRAD : IN_X];
}

static void reset(const case_data *c, case_results *r)
{
    for (int k = 0; k < CASE_OUTPUTS; k++) {
        case_array *out = &r->out[k];
        const case_array *in = replaced_input(c, out, k);

        if (out->data && !r->is_view)
            memset(out->memory, FILL, out->bytes);
        for (int64_t i = 0; in && i < out->rows; i++)
            memcpy(at(out, i, 0), at(in, i, 0), (size_t)out->columns * size_of(out->dtype));
    }
}

ballast_status case_run(const case_data *c, const ballast_implementation *implementation,
                        const ballast_parallel *parallel, case_results *out)
{
    ballast_exec exec = BALLAST_EXEC;

    exec.implementation = implementation;
    exec.parallel = parallel;
    reset(c, out);
    return c->p.operation->run(c, out, &exec);
}

static int is_filled(const unsigned char *p, const unsigned char *end)
{
    for (; p < end; p++)
        if (*p != FILL)
            return 0;
    return 1;
}

static int is_tidy(const case_array *a)
{
    const unsigned char *from = a->memory, *end = from + a->bytes;
    const size_t row_bytes = (size_t)a->columns * size_of(a->dtype);

    for (int64_t i = 0; i < a->rows; i++) {
        const unsigned char *row = at(a, i, 0);

        if (!is_filled(from, row))
            return 0;
        from = row + row_bytes;
    }
    return is_filled(from, end);
}

const char *case_stray_write(const case_results *r)
{
    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (r->out[k].data && !r->is_view && !is_tidy(&r->out[k]))
            return r->out[k].name;
    return NULL;
}

uint64_t case_hash(const case_results *r)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (int k = 0; k < CASE_OUTPUTS; k++) {
        const case_array *a = &r->out[k];

        for (int64_t i = 0; a->data && i < a->rows; i++) {
            const unsigned char *row = at(a, i, 0);
            const size_t bytes = (size_t)a->columns * size_of(a->dtype);

            for (size_t b = 0; b < bytes; b++)
                hash = (hash ^ row[b]) * UINT64_C(0x100000001b3);
        }
    }
    return hash;
}

/* ---- Comparing ------------------------------------------------------------------------------- */

static void print_bits(const void *value, size_t size, char *text, size_t room)
{
    uint64_t bits = 0;

    memcpy(&bits, value, size);
    snprintf(text, room, "0x%0*" PRIx64, (int)(2 * size), bits);
}

static int row_equal(const case_array *a, const case_array *b, int64_t row, case_difference *d)
{
    const size_t size = size_of(a->dtype);
    int64_t c = 0;

    if (memcmp(at(a, row, 0), at(b, row, 0), (size_t)a->columns * size) == 0)
        return 1;
    while (memcmp(at(a, row, c), at(b, row, c), size) == 0)
        c++;
    d->output = a->name;
    d->row = row;
    d->column = c;
    d->is_matrix = a->columns != 1 && a->per_row;
    if (!a->per_row)
        d->row = c;
    print_bits(at(a, row, c), size, d->a, sizeof d->a);
    print_bits(at(b, row, c), size, d->b, sizeof d->b);
    return 0;
}

int case_equal(const case_results *a, const case_results *b, case_difference *d)
{
    for (int k = 0; k < CASE_OUTPUTS; k++)
        for (int64_t i = 0; a->out[k].data && b->out[k].data && i < a->out[k].rows; i++)
            if (!row_equal(&a->out[k], &b->out[k], i, d))
                return 0;
    return 1;
}

const char *case_place(const case_difference *d, char *text, size_t size)
{
    if (d->is_matrix)
        snprintf(text, size, "%s[%" PRId64 "][%" PRId64 "]", d->output, d->row, d->column);
    else
        snprintf(text, size, "%s[%" PRId64 "]", d->output, d->row);
    return text;
}

/* ---- Accuracy -------------------------------------------------------------------------------- */

static int is_canonical(const case_array *a, int64_t row, int64_t column)
{
    uint64_t bits = 0;

    memcpy(&bits, at(a, row, column), size_of(a->dtype));
    return bits == (a->dtype == BALLAST_F32 ? UINT64_C(0x7fc00000) : UINT64_C(0x7ff8000000000000));
}

/* Results that are small against this are not wrong for losing it; those of elements are 0. */
static long double tiny_error(const case_array *a, int64_t column, const case_reference *r)
{
    const int is_sum = a->columns == 1 || r->sum_column == ALL_COLUMNS || column == r->sum_column;

    return is_sum ? r->tiny_sum : r->tiny;
}

static double error_of(const case_data *c, const case_array *a, int64_t row, int64_t column,
                       const case_reference *r, int k, double *got)
{
    const long double want = r->value[k][column], terms = r->terms[k][column];

    if (a->dtype == BALLAST_I64) {
        *got = (double)integer_at(a, row, column);
        return *got == (double)want ? 0.0 : (double)INFINITY;
    }
    *got = real_at(a, row, column);
    if (isnan(*got) && !is_canonical(a, row, column))
        return (double)INFINITY;
    if (fabsl((long double)*got - want) <= tiny_error(a, column, r))
        return 0.0;
    if (c->p.dtype == BALLAST_F32)
        return r->of_terms[k] ? ulp_error_of_terms_f32((float)*got, want, terms)
                              : ulp_error_f32((float)*got, want);
    return r->of_terms[k] ? ulp_error_of_terms_f64(*got, want, terms) : ulp_error_f64(*got, want);
}

/* `row` of the array against the one row that r holds. */
static void measure_row(const case_data *c, const case_array *a, int64_t row,
                        const case_reference *r, int k, case_error *worst)
{
    const case_array *x = &c->in[IN_X];
    const int has_x = a->per_row && x->columns == a->columns;

    for (int64_t j = 0; j < a->columns; j++) {
        double got = 0.0;
        const double ulp = error_of(c, a, row, j, r, k, &got);

        if (worst->measured && !(ulp > worst->ulp))
            continue;
        *worst = (case_error){1, ulp, r->of_terms[k], row, j, got, r->value[k][j],
                              has_x ? real_at(x, row, j) : 0.0};
    }
}

static int is_whole(const case_data *c)
{
    return problem_is_vector(&c->p) || c->p.operation->outputs[0].shape == OUT_CLASSES;
}

static void begin_reference(const case_data *c, case_reference *r)
{
    const size_t n = (size_t)(problem_is_vector(&c->p) ? c->p.rows : c->p.classes) + 1;

    memset(r, 0, sizeof *r);
    for (int k = 0; k < CASE_OUTPUTS; k++) {
        r->value[k] = allocate(2 * n * sizeof(long double));
        r->terms[k] = r->value[k] + n;
        memset(r->value[k], 0, 2 * n * sizeof(long double));
    }
    r->x = allocate(2 * n * sizeof(double));
    r->y = r->x + n;
}

static void end_reference(case_reference *r)
{
    for (int k = 0; k < CASE_OUTPUTS; k++)
        free(r->value[k]);
    free(r->x);
}

static void reduce_losses(const case_data *c, case_reference *r)
{
    if (c->p.rows == 0)
        r->divisor = divisor_of(c);
    r->value[LOSS][0] = r->divisor == 0.0L ? (long double)NAN : r->loss / r->divisor;
}

void case_measure(const case_data *c, const case_results *out, case_error worst[CASE_OUTPUTS])
{
    const operation *op = c->p.operation;
    const int64_t rows = is_whole(c) ? 1 : c->p.rows;
    unsigned unknown = 0;
    case_reference r;

    memset(worst, 0, CASE_OUTPUTS * sizeof *worst);
    begin_reference(c, &r);
    for (int64_t i = 0; i < rows; i++) {
        r.unknown = 0;
        op->refer(c, i, &r);
        unknown |= r.unknown;
        for (int k = 0; k < CASE_OUTPUTS; k++)
            if (out->out[k].data && out->out[k].per_row && !(r.unknown >> k & 1))
                measure_row(c, &out->out[k], i, &r, k, &worst[k]);
    }
    if (!is_whole(c) && op->keys & KEY(KEY_REDUCTION))
        reduce_losses(c, &r);
    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (out->out[k].data && !out->out[k].per_row && !(unknown >> k & 1))
            measure_row(c, &out->out[k], 0, &r, k, &worst[k]);
    end_reference(&r);
}

/* Factors that are not powers of two are rounded, and multiplied with another rounding. */
static int has_factors(const problem *p)
{
    return p->weights != WEIGHTS_NONE || p->grad_scale != 1.0 || p->grad_rows
        || p->operation->keys & KEY(KEY_KIND)
        || (p->operation->keys & KEY(KEY_ALPHA) && p->alpha >= 0.0)
        || (p->operation->keys & KEY(KEY_REDUCTION) && p->reduction == BALLAST_MEAN);
}

static int is_weighted_mean(const problem *p)
{
    return p->operation->keys & KEY(KEY_REDUCTION) && p->reduction == BALLAST_MEAN
        && (p->weights != WEIGHTS_NONE || p->denominator == 1 + BALLAST_WEIGHT_SUM);
}

static int is_focal(const problem *p)
{
    return p->operation->keys & KEY(KEY_ALPHA)
        || (p->operation->keys & KEY(KEY_KIND) && p->kind == BALLAST_CB_FOCAL);
}

enum {
    FOCAL_LOSS_ULP = 5,
    FOCAL_GRAD_ULP = 6,
    STEEP_FOCAL_ULP = 10,
    FACTOR_ULP = 2,
    WEIGHT_SUM_ULP = 2 /* f64: of the denominator */
};

double case_bound(const problem *p, int k)
{
    const case_output *o = &p->operation->outputs[k];
    double bound = o->bound;

    if (problem_is_vector(p) || o->shape == OUT_COUNTS)
        return bound;
    if (is_focal(p)) {
        bound = k == GRAD ? FOCAL_GRAD_ULP : FOCAL_LOSS_ULP;
        if (p->gamma > 2.0)
            bound = p->gamma <= 5.0 ? STEEP_FOCAL_ULP : (double)INFINITY;
    }
    if (p->dtype == BALLAST_F64 && is_weighted_mean(p) && (k == LOSS || k == GRAD))
        bound += WEIGHT_SUM_ULP;
    return bound + (has_factors(p) ? FACTOR_ULP : 0);
}
