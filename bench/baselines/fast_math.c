/* SPDX-License-Identifier: MIT */
/* The loops as people write them, left to the compiler: -O3 -march=native -ffast-math, with libmvec
 * where there is one. `omp simd` says what the authors know, that x and out are the same array or
 * apart; without it in-place calls would not be vectorised. */
#include "baselines.h"

#include <math.h>
#include <stddef.h>

static float max_of(const float *x, int64_t n)
{
    float max = x[0];
#pragma omp simd reduction(max : max)
    for (int64_t c = 1; c < n; c++)
        max = x[c] > max ? x[c] : max;
    return max;
}

static float sum_of_exponentials(const float *x, int64_t n, float max)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; c++)
        sum += expf(x[c] - max);
    return sum;
}

static float store_exponentials(const float *x, int64_t n, float max, float *e)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; c++) {
        e[c] = expf(x[c] - max);
        sum += e[c];
    }
    return sum;
}

static void scale_row(float *y, int64_t n, float factor)
{
#pragma omp simd
    for (int64_t c = 0; c < n; c++)
        y[c] *= factor;
}

/* ---- Softmax --------------------------------------------------------------------------------- */

static void softmax(slice *s)
{
    for (int64_t i = 0; i < s->rows; i++) {
        const float *x = s->x + i * s->classes;
        float *y = s->out + i * s->classes;
        const float sum = store_exponentials(x, s->classes, max_of(x, s->classes), y);
        scale_row(y, s->classes, 1.0f / sum);
    }
}

static float log_sum_exp_of(const float *x, int64_t n)
{
    const float max = max_of(x, n);
    return max + logf(sum_of_exponentials(x, n, max));
}

static void log_softmax(slice *s)
{
    for (int64_t i = 0; i < s->rows; i++) {
        const float *x = s->x + i * s->classes;
        float *y = s->out + i * s->classes;
        const float lse = log_sum_exp_of(x, s->classes);
#pragma omp simd
        for (int64_t c = 0; c < s->classes; c++)
            y[c] = x[c] - lse;
    }
}

static void log_sum_exp(slice *s)
{
    for (int64_t i = 0; i < s->rows; i++)
        s->out[i] = log_sum_exp_of(s->x + i * s->classes, s->classes);
}

/* ---- Losses ---------------------------------------------------------------------------------- */

static void cross_entropy(slice *s)
{
    s->sum = 0.0;
    for (int64_t i = 0; i < s->rows; i++) {
        const float *x = s->x + i * s->classes, max = max_of(x, s->classes);
        float *g = s->out ? s->out + i * s->classes : NULL;
        const float label_logit = x[s->labels[i]];
        const float sum = g ? store_exponentials(x, s->classes, max, g)
                            : sum_of_exponentials(x, s->classes, max);
        const float loss = max + logf(sum) - label_logit;
        s->sum += loss;
        if (s->row_loss)
            s->row_loss[i] = loss;
        if (g) {
            scale_row(g, s->classes, s->scale / sum);
            g[s->labels[i]] -= s->scale;
        }
    }
}

static void binary_cross_entropy(slice *s)
{
    s->sum = 0.0;
    for (int64_t i = 0; i < s->rows; i++) {
        const float *x = s->x + i * s->classes, scale = s->scale;
        const uint8_t *targets = s->targets + i * s->classes;
        float *g = s->out ? s->out + i * s->classes : NULL;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < s->classes; c++) {
            const float t = targets[c] != 0 ? 1.0f : 0.0f, e = expf(-fabsf(x[c]));
            sum += fmaxf(x[c], 0.0f) - x[c] * t + log1pf(e);
            if (g)
                g[c] = scale * ((x[c] >= 0.0f ? 1.0f : e) / (1.0f + e) - t);
        }
        s->sum += sum;
        if (s->row_loss)
            s->row_loss[i] = sum;
    }
}

enum power { SQUARE, ROOT, ANY };

/* With z = x for positives and -x for the others, p = sigma(z), q = 1 - p:
 * loss = q^gamma log(1 + e^-z), its derivative by z = -q^gamma (gamma p log(1 + e^-z) + q). */
static inline void focal(slice *s, enum power power)
{
    const float gamma = s->gamma, scale = s->scale;
    const float positive = s->alpha < 0.0f ? 1.0f : s->alpha;
    const float negative = s->alpha < 0.0f ? 1.0f : 1.0f - s->alpha;
    s->sum = 0.0;
    for (int64_t i = 0; i < s->rows; i++) {
        const float *x = s->x + i * s->classes;
        const uint8_t *targets = s->targets + i * s->classes;
        float *g = s->out ? s->out + i * s->classes : NULL;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < s->classes; c++) {
            const float sign = targets[c] != 0 ? 1.0f : -1.0f, z = sign * x[c];
            const float e = expf(-fabsf(z)), entropy = fmaxf(-z, 0.0f) + log1pf(e);
            const float p = (z >= 0.0f ? 1.0f : e) / (1.0f + e);
            const float q = (z >= 0.0f ? e : 1.0f) / (1.0f + e);
            const float w = (targets[c] != 0 ? positive : negative)
                          * (power == SQUARE ? q * q : power == ROOT ? sqrtf(q) : powf(q, gamma));
            sum += w * entropy;
            if (g)
                g[c] = -scale * sign * w * (gamma * p * entropy + q);
        }
        s->sum += sum;
        if (s->row_loss)
            s->row_loss[i] = sum;
    }
}

static void sigmoid_focal(slice *s)
{
    if (s->gamma == 2.0f)
        focal(s, SQUARE);
    else if (s->gamma == 0.5f)
        focal(s, ROOT);
    else
        focal(s, ANY);
}

/* ---- Reductions ------------------------------------------------------------------------------ */

static void dot(slice *s)
{
    const float *x = s->x, *w = s->weights;
    float sum = 0.0f;
    if (w) {
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < s->classes; c++)
            sum += x[c] * w[c];
    } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < s->classes; c++)
            sum += x[c];
    }
    s->sum = sum;
}

const baseline fast_math_baselines[] = {
    {"softmax", softmax, 0, 0},
    {"log_softmax", log_softmax, 0, 0},
    {"log_sum_exp", log_sum_exp, 0, 0},
    {"cross_entropy", cross_entropy, 0, 0},
    {"binary_cross_entropy", binary_cross_entropy, 0, 0},
    {"sigmoid_focal", sigmoid_focal, 0, 0},
    {"weighted_sum", dot, 0, 0},
    {"dot", dot, 0, 0},
    {0, 0, 0, 0},
};
