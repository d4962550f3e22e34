/* SPDX-License-Identifier: MIT */
#include "values.h"

#include <float.h>
#include <string.h>

/* ---- Labels ---------------------------------------------------------------------------------- */

/* Whether all labels are classes, as they usually are: label and classes - 1 - label have no sign bit
 * then, which SSE2 finds two labels at a time; it has no comparison of 64 bits. */
#define DEFINE_ALL_IN_RANGE(name, type)                                                           \
    static bool all_in_range_##name(const label_rows *l)                                          \
    {                                                                                             \
        const type *labels = l->labels.data;                                                      \
        const uint64_t last = (uint64_t)l->classes - 1;                                           \
        uint64_t signs = 0;                                                                       \
                                                                                                  \
        for (int64_t i = 0; i < l->rows; i++)                                                     \
            signs |= (uint64_t)(int64_t)labels[i] | (last - (uint64_t)(int64_t)labels[i]);        \
        return signs >> 63 == 0;                                                                  \
    }
DEFINE_ALL_IN_RANGE(i32, int32_t)
DEFINE_ALL_IN_RANGE(i64, int64_t)

/* Without branches: one unsigned comparison says whether a label is in [0, classes). */
#define DEFINE_COUNTS(name, type)                                                                 \
    static int64_t in_range_##name(const label_rows *l)                                           \
    {                                                                                             \
        const type *labels = l->labels.data;                                                      \
        const uint64_t classes = (uint64_t)l->classes;                                            \
        int64_t count = 0;                                                                        \
                                                                                                  \
        for (int64_t i = 0; i < l->rows; i++)                                                     \
            count += (uint64_t)(int64_t)labels[i] < classes;                                      \
        return count;                                                                             \
    }                                                                                             \
    static int64_t ignored_##name(const label_rows *l)                                            \
    {                                                                                             \
        const type *labels = l->labels.data;                                                      \
        int64_t count = 0;                                                                        \
                                                                                                  \
        for (int64_t i = 0; i < l->rows; i++)                                                     \
            count += labels[i] == l->ignore_index;                                                \
        return count;                                                                             \
    }
DEFINE_COUNTS(u8, uint8_t)
DEFINE_COUNTS(i32, int32_t)
DEFINE_COUNTS(i64, int64_t)

static int64_t in_range(const label_rows *l)
{
    switch (l->labels.dtype) {
    case BALLAST_U8:
        return in_range_u8(l);
    case BALLAST_I32:
        return in_range_i32(l);
    default:
        return in_range_i64(l);
    }
}

static bool all_in_range(const label_rows *l)
{
    switch (l->labels.dtype) {
    case BALLAST_U8:
        return in_range_u8(l) == l->rows;
    case BALLAST_I32:
        return all_in_range_i32(l);
    default:
        return all_in_range_i64(l);
    }
}

static int64_t ignored(const label_rows *l)
{
    switch (l->labels.dtype) {
    case BALLAST_U8:
        return ignored_u8(l);
    case BALLAST_I32:
        return ignored_i32(l);
    default:
        return ignored_i64(l);
    }
}

static bool is_allowed(const label_rows *l, int64_t label)
{
    return label == l->ignore_index || (label < 0 ? l->background : label < l->classes);
}

/* If there is one: with a background, negative labels are no classes and yet allowed. */
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
    const bool is_class = l->ignore_index >= 0 && l->ignore_index < l->classes;
    counts.counted = counts.positives = l->rows;
    if (!is_class && all_in_range(l)) /* nothing is ignored: one look is enough */
        return counts;
    const int64_t left_out = ignored(l);
    counts.positives = in_range(l);
    counts.counted -= left_out;
    if (is_class)
        counts.positives -= left_out;
    if (counts.positives != counts.counted)
        refuse_first_bad(in, l);
    return counts;
}

/* ---- Weights --------------------------------------------------------------------------------- */

static bool is_weight(double w) { return w >= 0.0 && w <= DBL_MAX; }

/* As labels: one look without branches; where it shows a bad one, a second finds it. */
#define DEFINE_ALL_WEIGHTS(type, largest)                                                         \
    static bool all_weights_##type(const type *w, int64_t count)                                  \
    {                                                                                             \
        int64_t good = 0;                                                                         \
                                                                                                  \
        for (int64_t i = 0; i < count; i++)                                                       \
            good += (w[i] >= 0) & (w[i] <= largest);                                              \
        return good == count;                                                                     \
    }
DEFINE_ALL_WEIGHTS(float, FLT_MAX)
DEFINE_ALL_WEIGHTS(double, DBL_MAX)

void ballast__check_given_weights(arguments *in, const char *name, const void *data,
                                  ballast_dtype dtype, int64_t count)
{
    if (in->fault.status != BALLAST_OK)
        return;
    if (dtype == BALLAST_F32 ? all_weights_float(data, count) : all_weights_double(data, count))
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
