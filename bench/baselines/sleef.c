/* SPDX-License-Identifier: MIT */
/* The same steps composed of SLEEF's vector functions, as somebody experienced would: wide vectors,
 * four accumulators, exponentials kept in the output, tails in padded vectors. */
#include "baselines.h"

#include <math.h>
#include <sleef.h>
#include <stddef.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#define SLEEF(name) Sleef_##name##f16_u10avx512f
#define SLEEF_SQRT Sleef_sqrtf16_avx512f
#define vmax(a, b) ((vec)_mm512_max_ps(a, b))
#elif defined(__AVX2__)
enum { LANES = 8 };
#define SLEEF(name) Sleef_##name##f8_u10avx2
#define SLEEF_SQRT Sleef_sqrtf8_avx2
#define vmax(a, b) ((vec)_mm256_max_ps(a, b))
#else
enum { LANES = 4 };
#define SLEEF(name) Sleef_##name##f4_u10
#define SLEEF_SQRT Sleef_sqrtf4
#if defined(__aarch64__)
#define vmax(a, b) vmaxq_f32(a, b)
#else
#define vmax(a, b) ((vec)_mm_max_ps(a, b))
#endif
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

static inline vec load(const float *x)
{
    vec v;
    memcpy(&v, x, sizeof v);
    return v;
}

static inline void store(float *y, vec v) { memcpy(y, &v, sizeof v); }

static inline vec load_some(const float *x, int64_t n, float rest)
{
    float part[LANES];
    for (int64_t i = 0; i < LANES; i++)
        part[i] = i < n ? x[i] : rest;
    return load(part);
}

static inline void store_some(float *y, vec v, int64_t n)
{
    memcpy(y, &v, (size_t)n * sizeof *y);
}

static inline vec all(float x) { return x - (vec){0}; }
static inline vec choose(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}
static inline vec vabs(vec a) { return (vec)((ivec)a & INT32_MAX); }

static inline float add_lanes(vec v)
{
    float sum = 0.0f;
    for (int i = 0; i < LANES; i++)
        sum += v[i];
    return sum;
}

static float max_of(const float *x, int64_t n)
{
    vec m[4] = {all(-INFINITY), all(-INFINITY), all(-INFINITY), all(-INFINITY)};
    int64_t c = 0;
    for (; c + 4 * LANES <= n; c += 4 * LANES)
        for (int k = 0; k < 4; k++)
            m[k] = vmax(load(x + c + k * LANES), m[k]);
    for (; c < n; c += LANES)
        m[0] = vmax(c + LANES <= n ? load(x + c) : load_some(x + c, n - c, -INFINITY), m[0]);
    m[0] = vmax(vmax(m[0], m[1]), vmax(m[2], m[3]));
    float max = m[0][0];
    for (int i = 1; i < LANES; i++)
        max = m[0][i] > max ? m[0][i] : max;
    return max;
}

/* Sum of exp(x - max); they are kept in e, where given. */
static float exponentials(const float *x, int64_t n, float max, float *e)
{
    vec sum[4] = {0};
    int64_t c = 0;
    for (; c + 4 * LANES <= n; c += 4 * LANES)
        for (int k = 0; k < 4; k++) {
            const vec v = SLEEF(exp)(load(x + c + k * LANES) - max);
            sum[k] += v;
            if (e)
                store(e + c + k * LANES, v);
        }
    for (; c < n; c += LANES) {
        const int64_t left = n - c < LANES ? n - c : LANES;
        const vec v = SLEEF(exp)(load_some(x + c, left, -INFINITY) - max);
        sum[0] += v;
        if (e)
            store_some(e + c, v, left);
    }
    return add_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

/* y = a x + b */
static void scale_row(const float *x, int64_t n, float a, float b, float *y)
{
    int64_t c = 0;
    for (; c + LANES <= n; c += LANES)
        store(y + c, load(x + c) * a + b);
    for (; c < n; c++)
        y[c] = x[c] * a + b;
}

/* ---- Softmax --------------------------------------------------------------------------------- */

static void softmax(slice *s)
{
    const int64_t n = s->classes;
    for (int64_t i = 0; i < s->rows; i++) {
        const float *x = s->x + i * n;
        float *y = s->out + i * n;
        scale_row(y, n, 1.0f / exponentials(x, n, max_of(x, n), y), 0.0f, y);
    }
}

static float log_sum_exp_of(const float *x, int64_t n)
{
    const float max = max_of(x, n);
    return max + logf(exponentials(x, n, max, NULL));
}

static void log_softmax(slice *s)
{
    const int64_t n = s->classes;
    for (int64_t i = 0; i < s->rows; i++) {
        const float *x = s->x + i * n;
        scale_row(x, n, 1.0f, -log_sum_exp_of(x, n), s->out + i * n);
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
    const int64_t n = s->classes;
    s->sum = 0.0;
    for (int64_t i = 0; i < s->rows; i++) {
        const float *x = s->x + i * n, max = max_of(x, n), label_logit = x[s->labels[i]];
        float *g = s->out ? s->out + i * n : NULL;
        const float sum = exponentials(x, n, max, g), loss = max + logf(sum) - label_logit;
        s->sum += loss;
        if (s->row_loss)
            s->row_loss[i] = loss;
        if (g) {
            scale_row(g, n, s->scale / sum, 0.0f, g);
            g[s->labels[i]] -= s->scale;
        }
    }
}

/* Losses of LANES logits; their gradients into *g. `positive` is a mask. */
typedef vec element_losses(const slice *s, vec x, ivec positive, vec *g);

static inline vec binary_losses(const slice *s, vec x, ivec positive, vec *g)
{
    const vec e = SLEEF(exp)(-vabs(x)), one = all(1.0f), t = (vec)(positive & (ivec)one);
    *g = s->scale * (choose(x >= 0.0f, one, e) / (1.0f + e) - t);
    return vmax(x, all(0.0f)) - x * t + SLEEF(log1p)(e);
}

/* The formulas stand in fast_math.c. */
static inline vec focal_losses(const slice *s, vec x, ivec positive, vec *g)
{
    const vec one = all(1.0f), sign = choose(positive, one, -one), z = sign * x;
    const vec e = SLEEF(exp)(-vabs(z)), entropy = vmax(-z, all(0.0f)) + SLEEF(log1p)(e);
    const vec p = choose(z >= 0.0f, one, e) / (1.0f + e);
    const vec q = choose(z >= 0.0f, e, one) / (1.0f + e);
    vec w;
    if (s->gamma == 2.0f)
        w = q * q;
    else if (s->gamma == 0.5f)
        w = SLEEF_SQRT(q);
    else
        w = SLEEF(pow)(q, all(s->gamma));
    if (s->alpha >= 0.0f)
        w *= choose(positive, all(s->alpha), all(1.0f - s->alpha));
    *g = -s->scale * sign * w * (s->gamma * p * entropy + q);
    return w * entropy;
}

static inline ivec positives(const uint8_t *targets)
{
    bytes b;
    memcpy(&b, targets, sizeof b);
    return __builtin_convertvector(b, ivec) != 0;
}

static inline void elements(slice *s, element_losses *losses)
{
    const int64_t n = s->classes;
    s->sum = 0.0;
    for (int64_t i = 0; i < s->rows; i++) {
        const float *x = s->x + i * n;
        const uint8_t *targets = s->targets + i * n;
        float *gradient = s->out ? s->out + i * n : NULL;
        vec sum = {0}, g;
        int64_t c = 0;
        for (; c + LANES <= n; c += LANES) {
            sum += losses(s, load(x + c), positives(targets + c), &g);
            if (gradient)
                store(gradient + c, g);
        }
        float row = add_lanes(sum);
        if (c < n) {
            uint8_t part[LANES] = {0};
            memcpy(part, targets + c, (size_t)(n - c));
            const vec last = losses(s, load_some(x + c, n - c, 0.0f), positives(part), &g);
            for (int64_t k = 0; k < n - c; k++)
                row += last[k];
            if (gradient)
                store_some(gradient + c, g, n - c);
        }
        s->sum += row;
        if (s->row_loss)
            s->row_loss[i] = row;
    }
}

static void binary_cross_entropy(slice *s) { elements(s, binary_losses); }
static void sigmoid_focal(slice *s) { elements(s, focal_losses); }

/* Reductions need none of SLEEF's functions: fast_math.c has them. */
const baseline sleef_baselines[] = {
    {"softmax", softmax, 0, 0},
    {"log_softmax", log_softmax, 0, 0},
    {"log_sum_exp", log_sum_exp, 0, 0},
    {"cross_entropy", cross_entropy, 0, 0},
    {"binary_cross_entropy", binary_cross_entropy, 0, 0},
    {"sigmoid_focal", sigmoid_focal, 0, 0},
    {0, 0, 0, 0},
};
