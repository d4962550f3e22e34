/* SPDX-License-Identifier: MIT */
#include "losses.h"

#include <math.h>
#include <stdlib.h>

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
    return c->library->per_class(&a);
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

VARIANTS(per_class, "ignored=10", "labels=u8", "labels=i32,outputs=means");

const operation operation_per_class = {
    "per_class", PER_CLASS_KEYS,
    {{"sums", OUT_CLASSES, 4}, {"counts", OUT_COUNTS, 0}, {"means", OUT_CLASSES, 4}}, per_class,
    FUNCTIONS(make_per_class, per_class)};
