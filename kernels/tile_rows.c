/* SPDX-License-Identifier: MIT */
#include "tile_rows.h"

/* Sixteen classes and fewer have code of their own, without the tests for more: those are half of its
 * instructions. */
void sum_tile(const float *e, int64_t classes, double *sum)
{
    if (classes <= BLOCK)
        vd_store(sum, folded_1(e, smaller(classes, BLOCK)));
    else
        vd_store(sum, folded_1(e, classes));
}
