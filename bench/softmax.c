/* SPDX-License-Identifier: MIT */
#include "operation.h"

#include <math.h>
#include <stdlib.h>

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

static void refer_log_softmax(const case_data *c, int64_t row, case_reference *r)
{
    load_row(&c->in[IN_X], row, r->x);
    oracle_log_softmax(r->x, c->p.classes, r->value[0]);
    r->tiny_sum = flushed(c) * (long double)c->p.classes;
    r->sum_column = ALL_COLUMNS;
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
    void *row = allocate((size_t)y.columns * size_of(y.dtype));

    for (int64_t i = 0; i < y.rows; i++) {
        const row_place r = {&c->p, IN_X, i, y.columns, -1};
        const int special = c->p.inputs == INPUTS_MIXED_SPECIALS && i & 8;

        (special ? fill_row : fill)(&r, row);
        put_row(&y, i, row);
    }
    free(row);
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

/* ---- The table ------------------------------------------------------------------------------- */

#define ONE_MATRIX(name) {{name, OUT_MATRIX, 4}}
VARIANTS(in_place, "", "inplace=1");
VARIANTS(backward, "", "inplace=1", "inplace=2,pieces=1");
VARIANTS(unweighted, "", "pieces=1");

const operation operation_softmax = {
    "softmax", PLANE_KEYS | KEY(KEY_INPLACE), ONE_MATRIX("output"), in_place,
    FUNCTIONS(make_softmax, softmax)};

const operation operation_log_softmax = {
    "log_softmax", PLANE_KEYS | KEY(KEY_INPLACE), ONE_MATRIX("output"), in_place,
    FUNCTIONS(make_softmax, log_softmax)};

const operation operation_log_sum_exp = {
    "log_sum_exp", PLANE_KEYS, {{"output", OUT_ROWS, 4}}, unweighted,
    FUNCTIONS(make_softmax, log_sum_exp)};

const operation operation_softmax_backward = {
    "softmax_backward", PLANE_KEYS | KEY(KEY_INPLACE), ONE_MATRIX("grad_input"), backward,
    FUNCTIONS(make_softmax_backward, softmax_backward)};

const operation operation_log_softmax_backward = {
    "log_softmax_backward", PLANE_KEYS | KEY(KEY_INPLACE), ONE_MATRIX("grad_input"), backward,
    FUNCTIONS(make_log_softmax_backward, log_softmax_backward)};
