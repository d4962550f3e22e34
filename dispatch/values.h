/* SPDX-License-Identifier: MIT */
/* Labels and weights: the arrays whose values are checked, and that dispatch itself reads. */
#ifndef BALLAST_DISPATCH_VALUES_H
#define BALLAST_DISPATCH_VALUES_H

#include "arguments.h"

/* Labels of `rows` rows, and what they may be: in [0, classes), ignore_index, and, where
 * `background` says so, any other negative number. */
typedef struct label_rows {
    ballast_labels labels;
    int64_t rows, classes, ignore_index;
    bool background;
} label_rows;

typedef struct label_counts {
    int64_t counted;   /* not ignored */
    int64_t positives; /* of those, in [0, classes) */
} label_counts;

static inline int64_t ballast__label_at(ballast_labels labels, int64_t row)
{
    switch (labels.dtype) {
    case BALLAST_U8:
        return ((const uint8_t *)labels.data)[row];
    case BALLAST_I32:
        return ((const int32_t *)labels.data)[row];
    default:
        return ((const int64_t *)labels.data)[row];
    }
}

static inline double ballast__real_at(const void *data, ballast_dtype dtype, int64_t index)
{
    if (dtype == BALLAST_F32)
        return (double)((const float *)data)[index];
    return ((const double *)data)[index];
}

/* Refuses the first label that is none of these, and counts the others. */
label_counts ballast__check_labels(arguments *in, const label_rows *l);

/* Refuses the first weight that is negative, infinite or NaN. */
void ballast__check_given_weights(arguments *in, const char *name, const void *data,
                                  ballast_dtype dtype, int64_t count);

/* data NULL: nothing to check. */
static inline void ballast__check_weights(arguments *in, const char *name, const void *data,
                                          ballast_dtype dtype, int64_t count)
{
    if (data)
        ballast__check_given_weights(in, name, data, dtype, count);
}

/* The per-class work of calls that have no memory of their own: classes in groups that fit on the
 * stack, and one pass over the rows for each group.
 * Counts the labels of [first, end) and, where values are given, sums them, from [0] on. */
enum { CLASS_GROUP = 1024 };
typedef struct class_group {
    int64_t first, end;
    int64_t counts[CLASS_GROUP];
    double sums[CLASS_GROUP];
} class_group;

void ballast__gather_classes(class_group *group, int64_t first, const label_rows *l,
                             const ballast_vector *values);

#endif
