/* SPDX-License-Identifier: MIT */
#include "losses.h"

#include <math.h>

void make_loss(case_data *c)
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

static long double row_weight(const case_data *c, int64_t row, int64_t label)
{
    const long double w = factor_at(&c->in[IN_WEIGHT], row, 0);

    return label >= 0 ? w * factor_at(&c->in[IN_CLASS_WEIGHT], 0, label) : w;
}

int64_t label_at(const case_data *c, int64_t row)
{
    return c->in[IN_LABELS].data ? integer_at(&c->in[IN_LABELS], row, 0) : -1;
}

int is_ignored(const case_data *c, int64_t row)
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

long double divisor_of(const case_data *c)
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

row_factor factor_of(const case_data *c, int64_t row, case_reference *r)
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
int sum_overflows(const case_data *c, long double sum)
{
    return fabsl(sum) > (c->p.dtype == BALLAST_F64 ? 0x1p1022L : 0x1p126L);
}

void set_ignored_row(const case_data *c, case_reference *r)
{
    r->value[ROW_LOSS][0] = 0.0L;
    for (int64_t j = 0; j < c->p.classes; j++) {
        r->value[GRAD][j] = 0.0L;
        r->terms[GRAD][j] = 1.0L;
        r->value[ELEMENT_LOSS][j] = 0.0L;
    }
}

static double target_at(const case_data *c, int64_t row, int64_t column, int64_t label)
{
    const case_array *t = &c->in[IN_TARGETS];

    if (!t->data)
        return column == label ? 1.0 : 0.0;
    return t->dtype == BALLAST_U8 ? *(uint8_t *)at(t, row, column) != 0 : real_at(t, row, column);
}

void refer_elements(const case_data *c, int64_t row, case_reference *r,
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
