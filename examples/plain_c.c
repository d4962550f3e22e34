/* SPDX-License-Identifier: MIT */
/* Straightforward C: one loop per step, expf and logf of the C library, the usual care for large
 * logits. Built with -O3 -march=native and nothing of Ballast. */
#include "plain_c.h"

#include <math.h>

double plain_c_softmax(int64_t rows, int64_t classes, const float *logits, const int64_t *labels,
                       const float *weights, float *grad)
{
    double total = 0;

    for (int64_t i = 0; i < rows; i++) {
        const float *x = logits + i * classes;
        float *g = grad + i * classes;
        const int64_t y = labels[i];
        const float w = weights[y];
        float max = x[0], sum = 0;

        for (int64_t j = 1; j < classes; j++)
            max = x[j] > max ? x[j] : max;
        const float label_logit = x[y];
        for (int64_t j = 0; j < classes; j++) {
            g[j] = expf(x[j] - max);
            sum += g[j];
        }
        total += w * (logf(sum) + max - label_logit);

        const float scale = w / (float)rows;
        for (int64_t j = 0; j < classes; j++)
            g[j] *= scale / sum;
        g[y] -= scale;
    }
    return total / (double)rows;
}

/* With z = x for the true class and -x for the others, q = sigmoid(-z) and s = log(1 + exp(-z)):
 * the loss of a logit is s, its derivative by z is -q. */
double plain_c_sigmoid(int64_t rows, int64_t classes, const float *logits, const int64_t *labels,
                       const float *weights, float *grad)
{
    double total = 0;

    for (int64_t i = 0; i < rows; i++) {
        const float w = weights[labels[i]], scale = w / (float)rows;
        float sum = 0;

        for (int64_t j = 0; j < classes; j++) {
            const float sign = j == labels[i] ? 1.0f : -1.0f;
            const float z = sign * logits[i * classes + j];
            const float e = expf(-fabsf(z));
            const float q = (z > 0 ? e : 1) / (1 + e);

            sum += (z > 0 ? 0 : -z) + logf(1 + e);
            grad[i * classes + j] = -sign * scale * q;
        }
        total += w * sum;
    }
    return total / (double)rows;
}

/* As above, and p = 1 - q: the loss of a logit is q^gamma s, its derivative by z is
 * -q^gamma (gamma p s + q). */
double plain_c_focal(int64_t rows, int64_t classes, const float *logits, const int64_t *labels,
                     const float *weights, float gamma, float *grad)
{
    double total = 0;

    for (int64_t i = 0; i < rows; i++) {
        const float w = weights[labels[i]], scale = w / (float)rows;
        float sum = 0;

        for (int64_t j = 0; j < classes; j++) {
            const float sign = j == labels[i] ? 1.0f : -1.0f;
            const float z = sign * logits[i * classes + j];
            const float e = expf(-fabsf(z));
            const float q = (z > 0 ? e : 1) / (1 + e);
            const float p = (z > 0 ? 1 : e) / (1 + e);
            const float s = (z > 0 ? 0 : -z) + logf(1 + e);
            const float power = gamma == 2 ? q * q : powf(q, gamma);

            sum += power * s;
            grad[i * classes + j] = -sign * scale * power * (gamma * p * s + q);
        }
        total += w * sum;
    }
    return total / (double)rows;
}
