/* SPDX-License-Identifier: MIT */
/* What every loss does with its rows: label, weights, and the sum of the row losses. */
#ifndef BALLAST_LOSS_ROWS_H
#define BALLAST_LOSS_ROWS_H

#include "storage.h"

LANES int64_t label_at(const row_terms *t, int64_t row)
{
    switch (t->label_bytes) {
    case 1:
        return ((const uint8_t *)t->labels)[row];
    case 4:
        return ((const int32_t *)t->labels)[row];
    default:
        return ((const int64_t *)t->labels)[row];
    }
}

/* The labels of sixteen rows: where they stand, or in `room`. Rows beyond `count` are ignored ones. */
LANES const int64_t *labels_at(const row_terms *t, int64_t row, int64_t count, int64_t *room)
{
    if (count == BLOCK && t->label_bytes == 8)
        return (const int64_t *)t->labels + row;
    if (count == BLOCK && t->label_bytes == 4)
        for (int j = 0; j < BLOCK; j++)
            room[j] = ((const int32_t *)t->labels)[row + j];
    else
        for (int64_t j = 0; j < BLOCK; j++)
            room[j] = j < count ? label_at(t, row + j) : t->ignore_index;
    return room;
}

/* The two factors of a row, each rounded to f32 once: of its loss, and of its gradient. */
typedef struct row_factors {
    float loss;
    double gradient; /* still in double: an operation may have a constant of its own to multiply */
} row_factors;

/* label < 0: the row has none, and no class weight. */
LANES row_factors row_factors_of(const row_terms *t, int64_t row, int64_t label)
{
    const float *class_weight = t->class_weight, *row_weight = t->row_weight, *g = t->grad_rows;
    const double cw = class_weight && label >= 0 ? (double)class_weight[label] : 1.0;
    const double rw = row_weight ? (double)row_weight[row] : 1.0;
    const double upstream = g ? t->grad_scale * (double)g[row] : t->grad_scale;
    return (row_factors){(float)(cw * rw), (upstream * cw) * rw};
}

/* What a loss is limited to before it is weighted: a weight of 0 leaves an infinite loss out like any
 * other. Use as vmul(weight, vmin(limit, loss)), which lets NaN pass. */
LANES vf limit_for_weight(vf weight)
{
    return vselect(veq(weight, vset1(0.0f)), vset1(LARGEST_FLOAT), vset1(LANE_INFINITY));
}

#endif
