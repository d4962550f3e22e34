/* SPDX-License-Identifier: MIT */
#include "values.h"

#include <float.h>
#include <string.h>

int64_t ballast__label_at(ballast_labels labels, int64_t row)
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

double ballast__real_at(const void *data, ballast_dtype dtype, int64_t index)
{
    if (dtype == BALLAST_F32)
        return (double)((const float *)data)[index];
    return ((const double *)data)[index];
}

/* ---- Labels ---------------------------------------------------------------------------------- */

typedef struct label_kinds {
    int64_t ignored, negative, beyond; /* the latter two of labels that are not ignored */
} label_kinds;

/* Counts without branches, which compilers turn into SIMD; where a count shows a bad label, a
 * second look finds it. */
#define DEFINE_KINDS(name, type)                                                                  \
    static label_kinds kinds_of_##name(const label_rows *l)                                       \
    {                                                                                             \
        const type *labels = l->labels.data;                                                      \
        const int64_t rows = l->rows, classes = l->classes, ignore = l->ignore_index;             \
        label_kinds k = {0, 0, 0};                                                                \
                                                                                                  \
        for (int64_t i = 0; i < rows; i++) {                                                      \
            const int64_t label = labels[i];                                                      \
            const int ignored = label == ignore;                                                  \
                                                                                                  \
            k.ignored += ignored;                                                                 \
            k.negative += !ignored & (label < 0);                                                 \
            k.beyond += !ignored & (label >= classes);                                            \
        }                                                                                         \
        return k;                                                                                 \
    }
DEFINE_KINDS(u8, uint8_t)
DEFINE_KINDS(i32, int32_t)
DEFINE_KINDS(i64, int64_t)

static label_kinds kinds_of(const label_rows *l)
{
    switch (l->labels.dtype) {
    case BALLAST_U8:
        return kinds_of_u8(l);
    case BALLAST_I32:
        return kinds_of_i32(l);
    default:
        return kinds_of_i64(l);
    }
}

static bool is_allowed(const label_rows *l, int64_t label)
{
    return label == l->ignore_index || (label < 0 ? l->background : label < l->classes);
}

static void refuse_first_bad(arguments *in, const label_rows *l)
{
    for (int64_t i = 0; i < l->rows; i++) {
        const int64_t label = ballast__label_at(l->labels, i);

        if (!is_allowed(l, label)) {
            ballast__refuse_element(in, BALLAST_ERR_LABEL, "labels", i, label, (double)label);
            return;
        }
    }
}

label_counts ballast__check_labels(arguments *in, const label_rows *l)
{
    label_counts counts = {0, 0};

    if (in->fault.status != BALLAST_OK)
        return counts;
    const label_kinds k = kinds_of(l);
    if (k.beyond > 0 || (k.negative > 0 && !l->background))
        refuse_first_bad(in, l);
    counts.counted = l->rows - k.ignored;
    counts.positives = counts.counted - k.negative;
    return counts;
}

/* ---- Weights --------------------------------------------------------------------------------- */

static bool is_weight(double w) { return w >= 0.0 && w <= DBL_MAX; }

void ballast__check_weights(arguments *in, const char *name, const void *data,
                            ballast_dtype dtype, int64_t count)
{
    if (in->fault.status != BALLAST_OK || !data)
        return;
    for (int64_t i = 0; i < count; i++) {
        const double w = ballast__real_at(data, dtype, i);

        if (!is_weight(w)) {
            ballast__refuse_element(in, BALLAST_ERR_WEIGHT, name, i, 0, w);
            return;
        }
    }
}

/* ---- Groups of classes ----------------------------------------------------------------------- */

void ballast__gather_classes(class_group *group, int64_t first, const label_rows *l,
                             const ballast_vector *values)
{
    const int64_t left = l->classes - first;
    const int64_t size = left < CLASS_GROUP ? left : CLASS_GROUP;

    group->first = first;
    group->end = first + size;
    memset(group->counts, 0, sizeof group->counts);
    memset(group->sums, 0, sizeof group->sums);
    for (int64_t i = 0; i < l->rows; i++) {
        const int64_t label = ballast__label_at(l->labels, i);

        if (label == l->ignore_index || label < first || label >= group->end)
            continue;
        group->counts[label - first]++;
        if (values->data)
            group->sums[label - first] += ballast__real_at(values->data, values->dtype, i);
    }
}
