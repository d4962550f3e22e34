/* SPDX-License-Identifier: MIT */
/* The class-balanced losses as one would write them without Ballast: what examples/class_balanced
 * compares its times with. Each returns the mean loss and writes its gradient.
 *
 * logits, grad  [rows, classes]
 * labels        [rows], in [0, classes)
 * weights       [classes] */
#ifndef BALLAST_EXAMPLES_PLAIN_C_H
#define BALLAST_EXAMPLES_PLAIN_C_H

#include <stdint.h>

double plain_c_softmax(int64_t rows, int64_t classes, const float *logits, const int64_t *labels,
                       const float *weights, float *grad);
double plain_c_sigmoid(int64_t rows, int64_t classes, const float *logits, const int64_t *labels,
                       const float *weights, float *grad);
double plain_c_focal(int64_t rows, int64_t classes, const float *logits, const int64_t *labels,
                     const float *weights, float gamma, float *grad);

#endif
