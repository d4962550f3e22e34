/* SPDX-License-Identifier: MIT */
/* Sums, counts and means of a value per row, by label. */
#include "canonical.h"
#include "fp_environment.h"
#include "values.h"

typedef struct per_class_call {
    const ballast_per_class_args *args;
    ballast_status status;
} per_class_call;

static void store_group(const class_group *group, const ballast_per_class_args *a)
{
    for (int64_t c = group->first; c < group->end; c++) {
        const double sum = group->sums[c - group->first];
        const int64_t count = group->counts[c - group->first];

        if (a->sums)
            a->sums[c] = canonical(sum);
        if (a->counts)
            a->counts[c] = count;
        if (a->means)
            a->means[c] = canonical(sum / (double)count);
    }
}

static void compute(const ballast_per_class_args *a, const label_rows *l)
{
    class_group group;

    for (int64_t first = 0; first < l->classes; first = group.end) {
        ballast__gather_classes(&group, first, l, &a->values);
        store_group(&group, a);
    }
}

/* Values are needed for anything but counts; then it is they who say how many rows there are. */
static void check(arguments *in, const ballast_per_class_args *a, const label_rows *l)
{
    const bool needed = a->sums || a->means || a->values.count > 0;

    if (a->values.data || (needed && l->rows > 0))
        ballast__take_array(in, "values", a->values.data, a->values.dtype, ROW_DTYPES, l->rows,
                            NEEDED);
    ballast__refuse(in, l->rows < 0, BALLAST_ERR_SHAPE, "label_count", l->rows);
    ballast__take_array(in, "labels", l->labels.data, l->labels.dtype, LABEL_DTYPES, l->rows,
                        NEEDED);
    ballast__refuse(in, l->classes < 0, BALLAST_ERR_SHAPE, "classes", l->classes);
    ballast__take_array(in, "sums", a->sums, BALLAST_F64, ROW_DTYPES, l->classes, WRITTEN);
    ballast__take_array(in, "counts", a->counts, BALLAST_I64, LABEL_DTYPES, l->classes, WRITTEN);
    ballast__take_array(in, "means", a->means, BALLAST_F64, ROW_DTYPES, l->classes, WRITTEN);
    ballast__check_overlaps(in);
    ballast__check_labels(in, l);
}

DEFINE_LAYOUT(layout, "struct_size", ballast_per_class_args, BALLAST_PER_CLASS_ARGS, label_count);

static void guarded_per_class(void *arg)
{
    per_class_call *call = arg;
    ballast_per_class_args room;
    arguments in;

    ballast__begin(&in);
    const ballast_per_class_args *a = ballast__read_struct(&in, &layout, call->args, &room);
    const int64_t rows = a->values.data || a->values.count > 0 ? a->values.count : a->label_count;
    const label_rows l = {a->labels, rows, a->classes, a->ignore_index, false};
    check(&in, a, &l);
    if (in.fault.status == BALLAST_OK)
        compute(a, &l);
    call->status = ballast__report(&in, a->error);
}

ballast_status ballast_per_class(const ballast_per_class_args *args)
{
    per_class_call call = {args, BALLAST_OK};

    ballast__guarded(guarded_per_class, &call);
    return call.status;
}
