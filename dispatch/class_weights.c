/* SPDX-License-Identifier: MIT */
/* Effective numbers and class-balanced weights: the public calls. The arithmetic is that of
 * effective_number.c. */
#include "canonical.h"
#include "effective_number.h"
#include "fp_environment.h"
#include "values.h"

/* ---- Effective number ------------------------------------------------------------------------ */

typedef struct effective_number_call {
    double beta;
    int64_t n;
    double result;
} effective_number_call;

static bool is_beta(double beta) { return beta >= 0.0 && beta <= 1.0; }

static void guarded_effective_number(void *arg)
{
    effective_number_call *call = arg;
    const bool valid = is_beta(call->beta) && call->n >= 0;

    call->result = valid ? ballast__effective_number(call->beta, call->n) : (double)NAN;
}

double ballast_effective_number(double beta, int64_t n)
{
    effective_number_call call = {beta, n, 0.0};

    ballast__guarded(guarded_effective_number, &call);
    return call.result;
}

/* ---- Class weights --------------------------------------------------------------------------- */

typedef struct class_weights_call {
    const ballast_class_weights_args *args;
    ballast_status status;
} class_weights_call;

static void take_arrays(arguments *in, const ballast_class_weights_args *a, const label_rows *l)
{
    ballast__refuse(in, l->classes < 1, BALLAST_ERR_SHAPE, "classes", l->classes);
    ballast__refuse(in, !a->counts && l->rows < 0, BALLAST_ERR_SHAPE, "label_count", l->rows);
    if (!a->counts)
        ballast__take_array(in, "labels", l->labels.data, l->labels.dtype, LABEL_DTYPES, l->rows,
                            NEEDED);
    ballast__take_array(in, "counts", a->counts, BALLAST_I64, LABEL_DTYPES, l->classes, 0);
    ballast__take_array(in, "counts_out", a->counts_out, BALLAST_I64, LABEL_DTYPES, l->classes,
                        a->counts ? WRITTEN : NEEDED | WRITTEN);
    ballast__take_array(in, "weights", a->weights, a->weights_dtype, ROW_DTYPES, l->classes,
                        NEEDED | WRITTEN);
    ballast__check_overlaps(in);
}

static void check_options(arguments *in, const ballast_class_weights_args *a)
{
    ballast__refuse(in, a->counts && a->labels.data, BALLAST_ERR_OPTION, "labels", 0);
    ballast__refuse(in, a->counts && a->counts_out, BALLAST_ERR_OPTION, "counts_out", 0);
    ballast__refuse_real(in, !is_beta(a->beta), "beta", a->beta);
    ballast__refuse(in, (unsigned)a->empty_class > BALLAST_EMPTY_CLASS_ONE, BALLAST_ERR_OPTION,
                    "empty_class", (int)a->empty_class);
}

static void check_count(arguments *in, const ballast_class_weights_args *a, int64_t class_index,
                        int64_t count)
{
    const int64_t least = a->empty_class == BALLAST_EMPTY_CLASS_ERROR ? 1 : 0;

    if (count < least)
        ballast__refuse_element(in, BALLAST_ERR_COUNT, "counts", class_index, count,
                                (double)count);
}

/* Labels are counted twice: counts_out is written only when all counts are known to be right. */
static void check_counts_of_labels(arguments *in, const ballast_class_weights_args *a,
                                   const label_rows *l)
{
    const ballast_vector no_values = BALLAST_NO_VECTOR;
    class_group group;

    for (int64_t first = 0; first < l->classes; first = group.end) {
        ballast__gather_classes(&group, first, l, &no_values);
        for (int64_t c = first; c < group.end; c++)
            check_count(in, a, c, group.counts[c - first]);
    }
}

static void check_counts(arguments *in, const ballast_class_weights_args *a, const label_rows *l)
{
    if (!a->counts)
        ballast__check_labels(in, l);
    if (in->fault.status != BALLAST_OK)
        return;
    if (!a->counts && a->empty_class == BALLAST_EMPTY_CLASS_ERROR)
        check_counts_of_labels(in, a, l);
    for (int64_t c = 0; a->counts && c < l->classes; c++)
        check_count(in, a, c, a->counts[c]);
}

static void count_labels(int64_t *counts, const label_rows *l)
{
    for (int64_t c = 0; c < l->classes; c++)
        counts[c] = 0;
    for (int64_t i = 0; i < l->rows; i++) {
        const int64_t label = ballast__label_at(l->labels, i);

        if (label != l->ignore_index)
            counts[label]++;
    }
}

static void compute(const ballast_class_weights_args *a, const label_rows *l)
{
    const int empty = a->empty_class == BALLAST_EMPTY_CLASS_ZERO ? BALLAST__EMPTY_ZERO
                                                                 : BALLAST__EMPTY_ONE;
    const bool f64 = a->weights_dtype == BALLAST_F64;

    if (!a->counts)
        count_labels(a->counts_out, l);
    ballast__class_weights(a->counts ? a->counts : a->counts_out, a->classes, a->beta, empty,
                           f64 ? a->weights : NULL, f64 ? NULL : a->weights);
}

DEFINE_LAYOUT(layout, "struct_size", ballast_class_weights_args, BALLAST_CLASS_WEIGHTS_ARGS, counts);

static void guarded_class_weights(void *arg)
{
    class_weights_call *call = arg;
    ballast_class_weights_args room;
    arguments in;

    ballast__begin(&in);
    const ballast_class_weights_args *a = ballast__read_struct(&in, &layout, call->args, &room);
    const label_rows l = {a->labels, a->label_count, a->classes, a->ignore_index, false};
    take_arrays(&in, a, &l);
    check_options(&in, a);
    check_counts(&in, a, &l);
    if (in.fault.status == BALLAST_OK)
        compute(a, &l);
    call->status = ballast__report(&in, a->error);
}

ballast_status ballast_class_weights(const ballast_class_weights_args *args)
{
    class_weights_call call = {args, BALLAST_OK};

    ballast__guarded(guarded_class_weights, &call);
    return call.status;
}
