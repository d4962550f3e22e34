/* SPDX-License-Identifier: MIT */
/* Results against the oracle, and the bounds of their errors. */
#include "losses.h"

#include <math.h>
#include <stdlib.h>

static int is_canonical(const case_array *a, int64_t row, int64_t column)
{
    uint64_t bits = 0;

    memcpy(&bits, at(a, row, column), size_of(a->dtype));
    switch (a->dtype) {
    case BALLAST_BF16:
        return bits == 0x7fc0;
    case BALLAST_F16:
        return bits == 0x7e00;
    case BALLAST_F32:
        return bits == 0x7fc00000;
    default:
        return bits == UINT64_C(0x7ff8000000000000);
    }
}

/* Results that are small against this are not wrong for losing it; those of elements are 0. */
static long double tiny_error(const case_array *a, int64_t column, const case_reference *r)
{
    const int is_sum = a->columns == 1 || r->sum_column == ALL_COLUMNS || column == r->sum_column;

    return is_sum ? r->tiny_sum : r->tiny;
}

/* In ULP of a dtype; terms NULL: of the result. */
static double ulp_of(ballast_dtype dtype, double got, long double want, const long double *terms)
{
    const float f = (float)got;

    switch (dtype) {
    case BALLAST_BF16:
        return terms ? ulp_error_of_terms_bf16(f, want, *terms) : ulp_error_bf16(f, want);
    case BALLAST_F16:
        return terms ? ulp_error_of_terms_f16(f, want, *terms) : ulp_error_f16(f, want);
    case BALLAST_F32:
        return terms ? ulp_error_of_terms_f32(f, want, *terms) : ulp_error_f32(f, want);
    default:
        return terms ? ulp_error_of_terms_f64(got, want, *terms) : ulp_error_f64(got, want);
    }
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
    const ballast_dtype dtype = is_half(a->dtype) ? a->dtype : row_dtype(c->p.dtype);
    return ulp_of(dtype, *got, want, r->of_terms[k] ? &terms : NULL);
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

/* An f32 result is rounded once more. */
static double bound_of_half(ballast_dtype dtype, double bound_f32)
{
    return 0.5 + bound_f32 * (dtype == BALLAST_BF16 ? 0x1p-16 : 0x1p-13);
}

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
    bound += has_factors(p) ? FACTOR_ULP : 0;
    return o->shape == OUT_MATRIX && is_half(p->dtype) ? bound_of_half(p->dtype, bound) : bound;
}
