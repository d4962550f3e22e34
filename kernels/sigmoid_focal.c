/* SPDX-License-Identifier: MIT */
/* Sigmoid focal loss. With q = sigmoid(z), p = 1 - q and S = softplus(z) = log(1 + exp(z)):
 *
 *   f = a q^gamma S          df/dz = a q^gamma (gamma p S + q)
 *
 * In terms of e = exp(-|z|), with (P, Q) = (e, 1) for z >= 0 and (1, e) below, p and q are P and Q
 * over 1 + e, and S = max(z, 0) + log(1 + e). The bracket is F / (1 + e), F = gamma P S + Q, a sum
 * of terms of one sign:
 *
 *   gamma 1/2   w = Q       f = a sqrt(w / (1 + e)) S       f' = a sqrt(w / (1 + e)^3) F
 *   gamma 1     w = Q       f = a w S / (1 + e)             f' = a w F / (1 + e)^2
 *   gamma 2     w = Q^2     f = a w S / (1 + e)^2           f' = a w F / (1 + e)^3
 *   any gamma   w = exp(-gamma softplus(-z))    f = a w S    f' = a w F / (1 + e)
 *
 * gamma 0 is binary cross-entropy times a; a gamma below 2^-32 is taken as 0, which loses no digit.
 *
 * For z < 0 both go down as e^(gamma + 1): an error of e counts gamma + 1 times. For gamma 1 and 2,
 * e is therefore held in two words; for any gamma, exp(gamma z) is formed from z, not from e. Where
 * the gradient would be below 2^-125 (for gamma above 20: gamma 2^-125), w is exactly 0.
 *
 * Error in ULP, alpha off or 0.25 (gamma 1/2, 1 and 2: all floats from 2^-7 to 24 in magnitude):
 *
 *   gamma   loss, witness z          gradient, witness z
 *   0       2.82  -0x1.3d09bp-4      3.36  -0x1.2395f4p+2
 *   1/4     3.95  -0x1.59b6bcp+0     5.02  -0x1.62caeep+0
 *   1/2     4.60  -0x1.e1f49p+3      4.67  -0x1.4da312p+2
 *   1       4.20  -0x1.b2617ap+2     5.13  -0x1.362eccp+2
 *   3/2     3.96  -0x1.260a26p+2     5.28  -0x1.07f388p+2
 *   2       4.81  -0x1.211dd8p+2     5.22  -0x1.1ae9f4p+2
 *   3       4.44  0x1.0ca77ap-2      5.73  0x1.3604dep-2
 *   5       7.17  0x1.9eaeccp-3      8.65  0x1.e8e49ep-5 */
#include "sigmoid_row.h"

enum focal_path { GAMMA_0, GAMMA_HALF, GAMMA_1, GAMMA_2, GAMMA_ANY };

/* F needs no larger S: beyond it P S is 0 or negligible, and P = 0 times infinity would be NaN. */
#define LARGEST_S 128.0f

/* exp(-|z|) = e + low, |low| <= ULP(e) / 2; both exactly 0 below about 2^(n - 125.5). unit is 2^n.
 *
 *   -|z| = m ln 2 + r      2 unit exp(r) = (a + b) + c,  a = 2 unit,  b = a r,  c = unit r^2 g(r)
 *
 * b is exact, and s + t = a + b by FastTwoSum, whose sums take b as the product it is; t + c is small, and
 * so is its rounding; e + low is s + (t + c), by FastTwoSum again, times 2^(m - n - 1), which is 0 at the
 * clamp as in vexp_scaled.
 * Error of e + low 0.29 ULP(e), witness z = -0x1.76aa6ep+2.
 * Cost 13 FMA-class operations a block. */
LANES_LARGE void exp_of_minus_abs_two_words(const vf *z, vf *e, vf *low, int blocks, float n, float unit)
{
    const exp_scale scale = exp_scale_of(n);
    const float factor = POWER_UNIT(unit);
    const vf a = vset1(2.0f * factor);
    vf r[BLOCKS_IN_FLIGHT], t[BLOCKS_IN_FLIGHT], m[BLOCKS_IN_FLIGHT], g[BLOCKS_IN_FLIGHT];
    vf s[BLOCKS_IN_FLIGHT];
    vw w[BLOCKS_IN_FLIGHT];
    FOR_BLOCKS(k, blocks) r[k] = vpower_clamp(scale.floor, vor(z[k], vset1(-0.0f)));
    FOR_BLOCKS(k, blocks) t[k] = vfma(r[k], vset1(LOG2_E), scale.rounder);
    FOR_BLOCKS(k, blocks) m[k] = vsub(t[k], scale.rounder);
    FOR_BLOCKS(k, blocks) w[k] = vpower(t[k], m[k]);
    FOR_BLOCKS(k, blocks) r[k] = vfnma(m[k], vset1(LN2_HIGH), r[k]);
    FOR_BLOCKS(k, blocks) r[k] = vfnma(m[k], vset1(LN2_LOW), r[k]);
    FOR_BLOCKS(k, blocks) {
        s[k] = vfma(a, r[k], a);
        t[k] = vfma(a, r[k], vsub(a, s[k]));
    }
    FOR_BLOCKS(k, blocks)
        g[k] = vfma(vset1(factor * exp_coefficient[EXP_DEGREE]), r[k],
                    vset1(factor * exp_coefficient[EXP_DEGREE - 1]));
    UNROLL for (int j = EXP_DEGREE - 2; j >= 2; j--)
        FOR_BLOCKS(k, blocks) g[k] = vfma(g[k], r[k], vset1(factor * exp_coefficient[j]));
    FOR_BLOCKS(k, blocks) t[k] = vfma(g[k], vmul(r[k], r[k]), t[k]);
    FOR_BLOCKS(k, blocks) e[k] = vadd(s[k], t[k]);
    FOR_BLOCKS(k, blocks) low[k] = vsub(t[k], vsub(e[k], s[k]));
    FOR_BLOCKS(k, blocks) e[k] = vpower_times(w[k], e[k]);
    FOR_BLOCKS(k, blocks) low[k] = vpower_times(w[k], low[k]);
}

/* w = q^gamma = exp(y),  y = -gamma softplus(-z) = gamma (u - l),  u = min(z, 0),  l = log(1 + e)
 *
 * y goes down to -87 and may not be rounded. gamma u = h + its fma remainder; h and -gamma l are
 * reduced by multiples n and m - n of ln 2 of their own, so each is small before it is rounded:
 *
 *   y = m ln 2 + r     r = (h - n ln 2) - (gamma l + (m - n) ln 2) + low
 *
 * gamma is two words, for y magnifies the rounding of gamma itself. t holds m as vexp_scaled() has it.
 * What is left is the error of gamma l and of the exponential.  Cost 20 FMA-class operations, 13 of them here. */
LANES_LARGE void reduce_modulator(const sigmoid_loss *f, const vf *z, const vf *l, int blocks, vf *r, vf *t)
{
    const vf zero = vset1(0.0f), rounder = vset1(ROUNDER), biased = vset1(ROUNDER + 126.0f);
    const vf gamma = vset1(f->gamma), log2_e = vset1(LOG2_E), ln2_high = vset1(LN2_HIGH);
    vf h[BLOCKS_IN_FLIGHT], low[BLOCKS_IN_FLIGHT], m[BLOCKS_IN_FLIGHT], n[BLOCKS_IN_FLIGHT];
    vf y[BLOCKS_IN_FLIGHT];
    FOR_BLOCKS(k, blocks) {
        const vf u = vmin(z[k], zero);
        h[k] = vmul(gamma, u);
        low[k] = vfma(vset1(f->gamma_low), vsub(u, l[k]), vfms(gamma, u, h[k]));
    }
    FOR_BLOCKS(k, blocks) y[k] = vpower_clamp(vset1(-126.0f * LN2), vfnma(gamma, l[k], h[k]));
    FOR_BLOCKS(k, blocks) t[k] = vfma(y[k], log2_e, biased);
    FOR_BLOCKS(k, blocks) m[k] = vsub(t[k], biased);
    FOR_BLOCKS(k, blocks) n[k] = vsub(vfma(h[k], log2_e, rounder), rounder);
    FOR_BLOCKS(k, blocks) low[k] = vfnma(m[k], vset1(LN2_LOW), low[k]);
    FOR_BLOCKS(k, blocks) y[k] = vmul(vsub(m[k], n[k]), ln2_high);
    FOR_BLOCKS(k, blocks) h[k] = vfnma(n[k], ln2_high, h[k]);
    FOR_BLOCKS(k, blocks) r[k] = vadd(vsub(h[k], vfma(gamma, l[k], y[k])), low[k]);
    FOR_BLOCKS(k, blocks) r[k] = vpower_clamp(vset1(-1.0f), r[k]); /* finite, where y was clamped */
}

/* w from r and t, 0 below about 2^-125, and where z < cut: there the gradient is below 2^-125, and w F might be
 * subnormal. */
LANES_LARGE void modulator(const sigmoid_loss *f, const vf *z, const vf *r, const vf *t, int blocks, vf *w)
{
    const float factor = POWER_UNIT(1.0f);
    vw power[BLOCKS_IN_FLIGHT];
    vm kept[BLOCKS_IN_FLIGHT];
    FOR_BLOCKS(k, blocks) kept[k] = vle(vset1(f->cut), z[k]);
    FOR_BLOCKS(k, blocks) power[k] = vpower(t[k], vsub(t[k], vset1(ROUNDER + 126.0f)));
    FOR_BLOCKS(k, blocks)
        w[k] = vfma(vset1(factor * exp_coefficient[EXP_DEGREE]), r[k],
                    vset1(factor * exp_coefficient[EXP_DEGREE - 1]));
    UNROLL for (int j = EXP_DEGREE - 2; j >= 0; j--)
        FOR_BLOCKS(k, blocks) w[k] = vfma(w[k], r[k], vset1(factor * exp_coefficient[j]));
    FOR_BLOCKS(k, blocks) w[k] = vpower_times_where(kept[k], power[k], w[k]);
}

/* Takes e and low to log(1 + e + low) = log(1 + e) + low / (1 + e), where 1 / (1 + e) is 1 - e / 2,
 * nearly; and to (e + low)^2, where low takes the same share: powers of 1 + e are not corrected. */
LANES void log1p_of_two_words(const vf *e, const vf *low, int blocks, vf *l, vf *square)
{
    const vf two = vset1(2.0f), half = vset1(0.5f);
    vf twice[BLOCKS_IN_FLIGHT];
    FOR_BLOCKS(k, blocks) twice[k] = vmul(low[k], vsub(two, e[k]));
    log1p_bend(e, l, blocks, 2.0f);
    FOR_BLOCKS(k, blocks) l[k] = vfma(half, vfma(l[k], e[k], twice[k]), e[k]);
    FOR_BLOCKS(k, blocks)
        square[k] = vfma(e[k], e[k], vmul(e[k], twice[k]));
}

/* First pass: e, and its second word for gamma 1 and 2. */
LANES_LARGE void focal_exponentials(const tile *t, int path, enum tile_targets targets, int width)
{
    FOR_TILE(b, t, width) {
        vf z[BLOCKS_IN_FLIGHT], e[BLOCKS_IN_FLIGHT], low[BLOCKS_IN_FLIGHT];
        fetch_ahead(t, b, width);
        load_logits(t, targets, b, width, z);
        if (path == GAMMA_1) {
            exp_of_minus_abs_two_words(z, e, low, width, 62.0f, 0x1p62f);
        } else if (path == GAMMA_2) {
            exp_of_minus_abs_two_words(z, e, low, width, 83.0f, 0x1p83f);
        } else if (path == GAMMA_HALF) {
            exp_of_minus_abs(z, e, width, 41.0f, 0x1p41f); /* 0 below 2^-84 */
        } else {
            exp_of_minus_abs(z, e, width, 0.0f, 1.0f);
        }
        store_blocks(t->scratch->e, b, width, e);
        if (path == GAMMA_1 || path == GAMMA_2)
            store_blocks(t->scratch->low, b, width, low);
    }
}

/* (1 + e)^power, correctly rounded but for the inner sums, which are small against it. */
LANES_LARGE vf power_of_one_plus(vf e, int power)
{
    const vf one = vset1(1.0f), two = vset1(2.0f), three = vset1(3.0f);
    if (power == 1)
        return vadd(one, e);
    if (power == 2)
        return vfma(e, vadd(e, two), one);
    return vfma(e, vfma(e, vadd(e, three), three), one);
}

/* f and f' of block b, of l = log(1 + e) and w: for gamma 2 the square of e. */
LANES void focal_products(const tile *t, int path, enum tile_targets targets, int out, int b, vf z,
                          vp target, vf e, vf l, vf w)
{
    const vf zero = vset1(0.0f), one = vset1(1.0f);
    const int power = path == GAMMA_1 ? 1 : path == GAMMA_2 ? 2 : 0; /* of 1 + e, below w in f */
    const vf gamma = vset1(path == GAMMA_HALF ? 0.5f
                         : path == GAMMA_ANY ? t->loss->gamma : (float)power);
    const vf s = vadd(l, vmax(z, zero)), q = vsign_select(z, e, one);
    vf loss, grad;
    if (out & OUT_LOSS) {
        const vf a = alpha_of(t->loss, targets, target);
        if (power)
            loss = vsign_times(z, a, w, vset1(-0.0f));
        else
            loss = vmul(path == GAMMA_ANY ? w : vsqrt_fraction(vdiv(q, vadd(one, e))), a);
        loss = vmul(loss, limited_loss(t->loss, targets, target, s));
        if (power)
            loss = vdiv(loss, power_of_one_plus(e, power));
    }
    if (out & OUT_GRAD) {
        const vf scale = scale_of(t, 1, targets, target, b);
        const vf gamma_p = vsign_select(z, gamma, vmul(gamma, e));
        const vf f = vfma(gamma_p, vmin(vset1(LARGEST_S), s), q);
        if (power)
            grad = vsign_times(z, scale, w, zero);
        else
            grad = vfma(path == GAMMA_ANY ? w : vsqrt(vdiv(q, power_of_one_plus(e, 3))), scale, zero);
        grad = vmul(grad, f);
        if (path != GAMMA_HALF)
            grad = vdiv(grad, power_of_one_plus(e, power + 1));
    }
    store_terms(t, out, b, 1, &loss, &grad);
}

/* Second pass: l = log(1 + e); for gamma 2 also the square of e, which is w for z < 0, and for any gamma what w is
 * computed from. */
LANES_LARGE void focal_logarithms(const tile *t, int path, enum tile_targets targets, int width)
{
    FOR_TILE(b, t, width) {
        vf z[BLOCKS_IN_FLIGHT], e[BLOCKS_IN_FLIGHT], low[BLOCKS_IN_FLIGHT], l[BLOCKS_IN_FLIGHT];
        vf w[BLOCKS_IN_FLIGHT];
        vp target[BLOCKS_IN_FLIGHT];
        load_blocks(t->scratch->e, b, width, e);
        if (path == GAMMA_1 || path == GAMMA_2) {
            load_blocks(t->scratch->low, b, width, low);
            log1p_of_two_words(e, low, width, l, w);
        } else {
            log1p_of_fraction(e, l, width);
        }
        store_blocks(t->scratch->l, b, width, l);
        if (path == GAMMA_ANY) {
            load_elements(t, targets, b, width, z, target);
            reduce_modulator(t->loss, z, l, width, low, w);
            store_blocks(t->scratch->low, b, width, low);
        }
        if (path == GAMMA_2 || path == GAMMA_ANY)
            store_blocks(t->scratch->w, b, width, w);
    }
}

/* Last pass for any gamma: w, f and f', so that the divider works beside the polynomial, of half as many blocks
 * as elsewhere: of more, registers do not hold the constants. */
LANES_LARGE void any_terms(const tile *t, enum tile_targets targets, int out, int width)
{
    FOR_TILE(b, t, width) {
        vf z[BLOCKS_IN_FLIGHT], r[BLOCKS_IN_FLIGHT], power[BLOCKS_IN_FLIGHT], w[BLOCKS_IN_FLIGHT], e, l;
        vp target[BLOCKS_IN_FLIGHT];
        load_elements(t, targets, b, width, z, target);
        load_blocks(t->scratch->low, b, width, r);
        load_blocks(t->scratch->w, b, width, power);
        modulator(t->loss, z, r, power, width, w);
        FOR_BLOCKS(k, width) {
            load_blocks(t->scratch->e, b + k, 1, &e);
            load_blocks(t->scratch->l, b + k, 1, &l);
            focal_products(t, GAMMA_ANY, targets, out, b + k, z[k], target[k], e, l, w[k]);
        }
    }
}

/* For gamma 1/2 the logarithms, f and f' are one loop, so that the divider, which is busiest here, works
 * beside the polynomial. For gamma 2 on AVX2 that took 0.98 of the time, and 1.03 with labels. */
LANES_LARGE void half_terms(const tile *t, enum tile_targets targets, int out, int width)
{
    FOR_TILE(b, t, width) {
        vf z[BLOCKS_IN_FLIGHT], e[BLOCKS_IN_FLIGHT], l[BLOCKS_IN_FLIGHT];
        vp target[BLOCKS_IN_FLIGHT];
        load_blocks(t->scratch->e, b, width, e);
        log1p_of_fraction(e, l, width);
        load_elements(t, targets, b, width, z, target);
        FOR_BLOCKS(k, width)
            focal_products(t, GAMMA_HALF, targets, out, b + k, z[k], target[k], e[k], l[k], e[k]);
    }
}

/* Last pass for gamma 1 and 2: f and f'. It goes block by block, for its steps are few and its values
 * many: those of two blocks are more than AVX2 has registers. */
LANES void focal_terms(const tile *t, int path, enum tile_targets targets, int out)
{
    FOR_TILE(b, t, 1) {
        vf z, e, l, w;
        vp target;
        load_elements(t, targets, b, 1, &z, &target);
        load_blocks(t->scratch->e, b, 1, &e);
        load_blocks(t->scratch->l, b, 1, &l);
        load_blocks(path == GAMMA_1 ? t->scratch->e : t->scratch->w, b, 1, &w);
        focal_products(t, path, targets, out, b, z, target, e, l, w);
    }
}

LANES void tile_terms(const tile *t, int path, enum tile_targets targets, int out, int width)
{
    if (path == GAMMA_0) {
        binary_terms(t, 1, targets, out, width);
        return;
    }
    focal_exponentials(t, path, targets, width);
    if (path == GAMMA_HALF) {
        half_terms(t, targets, out, width);
        return;
    }
    focal_logarithms(t, path, targets, width);
    if (path == GAMMA_ANY)
        any_terms(t, targets, out, width > 1 ? width / 2 : 1);
    else
        focal_terms(t, path, targets, out);
}

#define FOCAL_FUNCTIONS(name, path)                                                                    \
    SIGMOID_FUNCTIONS(name##_loss, path, OUT_LOSS, HARD)                                          \
    SIGMOID_FUNCTIONS(name##_both, path, OUT_BOTH, HARD)
FOCAL_FUNCTIONS(gamma_0, GAMMA_0)
FOCAL_FUNCTIONS(gamma_half, GAMMA_HALF)
FOCAL_FUNCTIONS(gamma_1, GAMMA_1)
FOCAL_FUNCTIONS(gamma_2, GAMMA_2)
FOCAL_FUNCTIONS(gamma_any, GAMMA_ANY)

LANES enum focal_path path_of(double gamma)
{
    if (gamma < 0x1p-32)
        return GAMMA_0;
    if (gamma == 0.5)
        return GAMMA_HALF;
    if (gamma == 1.0)
        return GAMMA_1;
    return gamma == 2.0 ? GAMMA_2 : GAMMA_ANY;
}

void KERNEL(sigmoid_rows)(const sigmoid_job *job, const sigmoid_loss *loss,
                          const sigmoid_functions *f, int outputs, int64_t begin, int64_t end)
{
    sigmoid_rows(job, loss, f, outputs, begin, end);
}

/* Loss, or loss and gradient: most of the work is in both. */
void KERNEL(sigmoid_focal)(const sigmoid_job *job, int64_t begin, int64_t end)
{
    static const sigmoid_functions *const functions[][2] = {
        [GAMMA_0] = {&gamma_0_loss, &gamma_0_both},
        [GAMMA_HALF] = {&gamma_half_loss, &gamma_half_both},
        [GAMMA_1] = {&gamma_1_loss, &gamma_1_both},
        [GAMMA_2] = {&gamma_2_loss, &gamma_2_both},
        [GAMMA_ANY] = {&gamma_any_loss, &gamma_any_both},
    };
    const double gamma = job->gamma < 0x1p100 ? job->gamma : 0x1p100; /* q^gamma is 0 or 1 there */
    sigmoid_loss f;
    f.alpha_negative = (float)job->alpha_negative;
    f.alpha_positive = (float)job->alpha_positive;
    f.limit_negative = f.alpha_negative == 0.0f ? LARGEST_FLOAT : LANE_INFINITY;
    f.limit_positive = f.alpha_positive == 0.0f ? LARGEST_FLOAT : LANE_INFINITY;
    f.gamma = (float)gamma;
    f.gamma_low = (float)(gamma - (double)f.gamma);
    /* for z < 0, f' < (gamma + 1) e^(gamma + 1); and log(gamma + 1) / (gamma + 1) < 0.37 */
    f.cut = (float)(-87.4 / (gamma + 1.0) - 0.37);
    KERNEL(sigmoid_rows)(job, &f, functions[path_of(gamma)][job->grad != NULL],
                         job->grad ? OUT_BOTH : OUT_LOSS, begin, end);
}
