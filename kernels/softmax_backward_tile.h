/* SPDX-License-Identifier: MIT */
/* The gradients of softmax and log-softmax, sixteen rows at once: lanes are rows. Each sum is in the order
 * of one row alone. */
#ifndef BALLAST_SOFTMAX_BACKWARD_TILE_H
#define BALLAST_SOFTMAX_BACKWARD_TILE_H

#include "softmax_planes.h"

/* A y > 0 is no log-probability, and the exponential must hold. */
#define MOST_LOG_PROBABILITY 88.0f

/* One of the two tensors that a backward operation reads: a tile of it in the scratch, or in its
 * planes. */
typedef struct operand {
    input_planes planes;
    const float *kept; /* NULL: in its planes */
} operand;

LANES vf class_of(operand a, int64_t c)
{
    return a.kept ? vload_f32(a.kept + c * BLOCK) : load_class(a.planes, c);
}

/* add_products() for each row; b NULL as there. */
LANES vf sums_of_products(const operand *a, const operand *b, int64_t classes)
{
    vd lane[BLOCK];
    double sum[BLOCK];
    for (int64_t l = 0; l < BLOCK; l++) {
        lane[l] = vd_zero();
        for (int64_t g = l; g < classes; g += GROUP) {
            vf t[GROUP_BLOCKS];
            FOR_BLOCKS(k, GROUP_BLOCKS)
            {
                const int64_t c = g + BLOCK * k;
                t[k] = vset1(0.0f);
                if (c < classes)
                    t[k] = b ? vmul(class_of(*a, c), class_of(*b, c)) : class_of(*a, c);
            }
            lane[l] = vd_add(lane[l], fold_blocks(t));
        }
    }
    fold_lanes(lane, sum);
    return vd_narrow(vd_load(sum));
}

/* ---- short rows of a matrix ------------------------------------------------------------------- */

enum backward { OF_SOFTMAX, OF_LOG_SOFTMAX };

/* Beyond these a row alone is faster. */
enum { BACKWARD_TILE_CLASSES = 24 };

/* y (g - sum g y), in place of y. */
LANES void softmax_gradients(float *y, const float *g, int64_t classes)
{
    const vf mean = sums_of_products(&(operand){.kept = g}, &(operand){.kept = y}, classes);
    for (int64_t i = 0; i < classes * BLOCK; i += BLOCK)
        vstore_f32(y + i, vcanonical(vmul(vload_f32(y + i), vsub(vload_f32(g + i), mean))));
}

/* g - exp(y) sum g, in place of y. */
LANES void log_softmax_gradients(float *y, const float *g, int64_t classes, const void *ahead)
{
    const vf sum = sums_of_products(&(operand){.kept = g}, NULL, classes);
    for (int64_t i = 0; i < classes * BLOCK; i += BLOCK)
        vstore_f32(y + i, vmin(vset1(MOST_LOG_PROBABILITY), vload_f32(y + i)));
    exp_tile(y, y, classes, vset1(0.0f), ahead, 0, NULL, NULL);
    for (int64_t i = 0; i < classes * BLOCK; i += BLOCK)
        vstore_f32(y + i, vcanonical(vfnma(vload_f32(y + i), sum, vload_f32(g + i))));
}

/* Rows [begin, what is returned); the others cost less one by one. */
LANES int64_t backward_tiles(const softmax_backward_job *job, int64_t begin, int64_t end,
                             const enum backward of)
{
    const int64_t classes = job->classes;
    const int64_t tiles_end =
        classes <= BACKWARD_TILE_CLASSES ? end_of_tiles(begin, end, classes) : begin;
    float y[BACKWARD_TILE_CLASSES * BLOCK], g[BACKWARD_TILE_CLASSES * BLOCK];
    for (; begin < tiles_end; begin += BLOCK) {
        const int64_t count = smaller(tiles_end - begin, BLOCK);
        const storage *output = (const storage *)job->output + begin * job->output_stride;
        load_rows(output, job->output_stride, count, classes, y);
        load_rows((const storage *)job->grad_output + begin * job->grad_output_stride,
                  job->grad_output_stride, count, classes, g);
        if (of == OF_SOFTMAX)
            softmax_gradients(y, g, classes);
        else
            log_softmax_gradients(y, g, classes, tile_ahead(output, job->output_stride, 1));
        store_rows(y, unchanged(), count, classes,
                   (storage *)job->grad_input + begin * job->grad_input_stride,
                   job->grad_input_stride);
    }
    return smaller(begin, end);
}

#endif
