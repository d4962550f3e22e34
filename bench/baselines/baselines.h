/* SPDX-License-Identifier: MIT */
/* What others would write or call: contenders on the same inputs.
 *
 * Each works on a slice of rows as plain contiguous arrays of floats, so that threads share a case
 * by rows, whoever computes them. Vectors are one row. */
#ifndef BALLAST_BENCH_BASELINES_H
#define BALLAST_BENCH_BASELINES_H

#include <stdint.h>

typedef struct slice {
    int64_t rows, classes;
    const float *x;         /* may be `out` */
    const int64_t *labels;  /* cross_entropy: [rows] */
    const uint8_t *targets; /* binary_cross_entropy, sigmoid_focal: [rows, classes], 0 or not */
    const float *weights;   /* weighted_sum, dot; NULL: 1 */
    float *out;             /* the output, of losses the gradient; NULL: not wanted */
    float *row_loss;        /* [rows]; NULL: not wanted */
    float gamma, alpha;     /* sigmoid_focal; alpha negative: off */
    float scale;            /* of the gradient: 1 / divisor of the mean */
    double sum;             /* result: of the losses; of the reduction */
    void *state;            /* of prepare */
} slice;

typedef struct baseline {
    const char *operation; /* NULL ends the list */
    void (*run)(slice *s);
    void *(*prepare)(const slice *s); /* outside the timed part; NULL: nothing to do */
    void (*release)(void *state);
} baseline;

/* fast_math.c: the straightforward loops, -O3 -march=native -ffast-math.
 * sleef.c: the same steps, composed of SLEEF's vector functions.
 * onednn.c: primitives of oneDNN, one thread for each slice. */
extern const baseline fast_math_baselines[], sleef_baselines[], onednn_baselines[];

#endif
