/* SPDX-License-Identifier: MIT */
#include "operation.h"

#include <math.h>

int is_special_sum(const double *x, const double *w, int64_t n, long double *result)
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

/* ---- The table ------------------------------------------------------------------------------- */

#define NUMBER(bound) {{"result", OUT_NUMBER, bound}}
VARIANTS(weighted, "", "weights=row", "weights=row,pieces=1");
VARIANTS(unweighted, "", "pieces=1");

const operation operation_weighted_sum = {
    "weighted_sum", VECTOR_KEYS, NUMBER(4), weighted, FUNCTIONS(make_vector, weighted_sum)};

const operation operation_weighted_mean = {
    "weighted_mean", VECTOR_KEYS, NUMBER(4), weighted, FUNCTIONS(make_vector, weighted_mean)};

const operation operation_weighted_sum_of_squares = {
    "weighted_sum_of_squares", VECTOR_KEYS, NUMBER(4), weighted,
    FUNCTIONS(make_vector, weighted_sum_of_squares)};

const operation operation_dot = {
    "dot", VECTOR_KEYS & ~KEY(KEY_WEIGHTS), NUMBER(4), unweighted, FUNCTIONS(make_dot, dot)};

const operation operation_weighted_log_sum_exp = {
    "weighted_log_sum_exp", VECTOR_KEYS, NUMBER(4), weighted,
    FUNCTIONS(make_vector, weighted_log_sum_exp)};
