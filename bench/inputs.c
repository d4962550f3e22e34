/* SPDX-License-Identifier: MIT */
#include "inputs.h"

#include <math.h>
#include <stdlib.h>

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

/* +-1e30 (f16: the largest number), and up to three steps below it in magnitude. */
static uint64_t bits_near_1e30(const row_place *r, uint64_t *state)
{
    const uint64_t k = draw(state);
    const uint64_t step = k & 4 ? k & 3 : 0, minus = (uint64_t)r->row & 1;

    if (is_half(r->p->dtype))
        return ((r->p->dtype == BALLAST_BF16 ? 0x714a : 0x7bff) - step) | minus << 15;
    if (r->p->dtype == BALLAST_F32)
        return (UINT64_C(0x7149f2ca) - step) | minus << 31;
    return (UINT64_C(0x46293e5939a08cea) - step) | minus << 63;
}

static uint64_t any_pattern(const row_place *r, int64_t column, uint64_t *state)
{
    const uint64_t index = (uint64_t)(r->row * r->columns + column);

    if (is_half(r->p->dtype))
        return (uint16_t)((uint64_t)r->p->seed + index * 40503);
    if (r->p->dtype == BALLAST_F32)
        return (uint32_t)((uint64_t)r->p->seed + index * UINT64_C(2654435761));
    return draw(state);
}

enum { PLUS_INFINITY = 2, MINUS_INFINITY, A_NAN, SPECIALS = 20 };
static const uint32_t specials_f32[SPECIALS] = {
    0x00000000, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffc12345,
    0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x80800000, 0x7f7fffff, 0xff7fffff,
    0x42b17218 /* 88.7 */, 0xc2b17218, 0xc2cff1b5 /* -104 */, 0x7149f2ca, 0xf149f2ca, 0x47800001};
static const uint16_t specials_bf16[SPECIALS] = {
    0x0000, 0x8000, 0x7f80, 0xff80, 0x7fc0, 0x7f81, 0xffd2, 0x0001, 0x8001, 0x007f,
    0x0080, 0x8080, 0x7f7f, 0xff7f, 0x42b1, 0xc2b1, 0xc2d0, 0x714a, 0xf14a, 0x4781 /* > 65536 */};
static const uint16_t specials_f16[SPECIALS] = {
    0x0000, 0x8000, 0x7c00, 0xfc00, 0x7e00, 0x7c01, 0xff45, 0x0001, 0x8001, 0x03ff,
    0x0400, 0x8400, 0x7bff, 0xfbff, 0x558b, 0xd58b, 0xd680, 0x7b00, 0xfb00, 0x7800};
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
    const uint64_t bits = dtype == BALLAST_BF16  ? specials_bf16[special]
                          : dtype == BALLAST_F16 ? specials_f16[special]
                          : dtype == BALLAST_F32 ? specials_f32[special]
                                                 : specials_f64[special];

    store_bits(dtype, row, column, bits);
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

void fill_row(const row_place *r, void *row)
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
    void *row = allocate((size_t)a.columns * size_of(a.dtype));

    for (int64_t i = 0; i < a.rows; i++) {
        const int64_t label = labels->data ? integer_at(labels, i, 0) : -1;
        const row_place r = {&c->p, input, i, a.columns, label < a.columns ? label : -1};

        fill_row(&r, row);
        put_row(&a, i, row);
    }
    free(row);
    return a;
}

case_array make_logits(const case_data *c, int input, const char *name)
{
    return fill_reals(c, input, make_matrix(&c->p, name, c->p.dtype));
}

case_array make_reals(const case_data *c, int input, const char *name, int64_t rows,
                      int64_t columns)
{
    return fill_reals(c, input, make_array(&c->p, name, c->p.dtype, rows, columns));
}

/* ---- Rows of other inputs -------------------------------------------------------------------- */

/* What a softmax could have given, without a library's exponential: k_c / sum k, rounded once after
 * the division. Confident: one of them all but 1. */
void fill_probabilities(const row_place *r, void *row)
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
void fill_log_probabilities(const row_place *r, void *row)
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

case_array make_weights(const case_data *c, int input, const char *name, int64_t rows,
                        int64_t columns)
{
    const ballast_dtype dtype = c->p.dtype; /* of a vector's weights: its own */
    const case_array a = make_array(&c->p, name, problem_is_vector(&c->p) ? dtype : row_dtype(dtype),
                                    rows, columns);

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

void make_labels(case_data *c)
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

void make_targets(case_data *c)
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
