/* SPDX-License-Identifier: MIT */
/* exp, log1p and exact scaling, written once in the vocabulary of lanes.h.
 *
 * Coefficients come from coefficients.py beside this file, which prints the error they reach. Error
 * figures are worst cases found by tests/functions.c; "FMA-class" counts what competes for the FMA
 * port: fma, multiply, compare. */
#ifndef BALLAST_LANES_FUNCTIONS_H
#define BALLAST_LANES_FUNCTIONS_H

#include "lanes.h"

#define LOG2_E 0x1.715476p+0f
/* ln 2 in two words. The first has 15 bits, so n * LN2_HIGH leaves x exactly, under FMA. */
#define LN2 0x1.62e43p-1f
#define LN2_HIGH 0x1.62e4p-1f
#define LN2_LOW 0x1.7f7d1cp-20f
/* 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits. */
#define ROUNDER 0x1.8p23f
#define SMALLEST_NORMAL 0x1p-126f
#define LARGEST_FLOAT 0x1.fffffep+127f

/* Breadth first: a step of a polynomial is taken for all blocks in flight before the next step. */
#define FOR_BLOCKS(k, blocks) UNROLL for (int k = 0; k < (blocks); k++)

/* Four accumulators become one. */
LANES vf fold_blocks(const vf *a) { return vadd(vadd(a[0], a[2]), vadd(a[1], a[3])); }

/* ---- exp -------------------------------------------------------------------------------------- */

/* The integer n nearest to x log2(e): the power of two that a row's exponentials are relative to. It
 * stands in the low bits of ROUNDER + n. */
LANES float exponent_bits_of(float x) { return x * LOG2_E + ROUNDER; }
LANES float exponent_of(float x) { return exponent_bits_of(x) - ROUNDER; }

/* e^x / 2^n for one n of a whole chunk. */
typedef struct exp_scale {
    vf rounder; /* ROUNDER + 126 - n */
    vf floor;   /* (n - 126) ln 2: below it the result is exactly 0 */
} exp_scale;

LANES exp_scale exp_scale_of(float n)
{
    return (exp_scale){vset1(ROUNDER + 126.0f - n), vset1((n - 126.0f) * LN2)};
}

/* e^r on |r| <= ln 2 / 2 (1 + 2^-7), times 2: degree 6, relative error 3.1e-9. */
#define EXP_DEGREE 6
static const float exp_coefficient[EXP_DEGREE + 1] = {
    0x1p+1f, 0x1p+1f, 0x1.fffffcp-1f, 0x1.55548ep-2f, 0x1.5559p-4f, 0x1.123c32p-6f, 0x1.6a205ep-9f};

/* Of at most BLOCKS_IN_FLIGHT blocks: r and t of vexp_scaled(), of which it is the first half. A loop that does other
 * work besides has it between the halves: a CPU looks ahead only so far, and its FMA pipes find work on either
 * side. */
typedef struct exp_reduced {
    vf r[BLOCKS_IN_FLIGHT], t[BLOCKS_IN_FLIGHT];
} exp_reduced;

LANES exp_reduced vexp_reduced(const vf *x, const int blocks, exp_scale s)
{
    exp_reduced d;
    vf m[BLOCKS_IN_FLIGHT];
    vf c = vconstant(LOG2_E);
    FOR_BLOCKS(k, blocks) d.r[k] = vmax(s.floor, x[k]);
    FOR_BLOCKS(k, blocks) d.t[k] = vfma(d.r[k], c, s.rounder);
    FOR_BLOCKS(k, blocks) m[k] = vsub(d.t[k], s.rounder);
    c = vconstant(LN2_HIGH);
    FOR_BLOCKS(k, blocks) d.r[k] = vfnma(m[k], c, d.r[k]);
    c = vconstant(LN2_LOW);
    FOR_BLOCKS(k, blocks) d.r[k] = vfnma(m[k], c, d.r[k]);
    return d;
}

/* The second half; first: exp_coefficient, whose first two in use are loaded from there each time, if it is anew(). */
LANES void vexp_of_reduced(const exp_reduced *d, vf *e, const int blocks, const float *first)
{
    vf p[BLOCKS_IN_FLIGHT];
    const vf leading = vconstant(first[EXP_DEGREE]);
    vf c = vconstant(first[EXP_DEGREE - 1]);
    FOR_BLOCKS(k, blocks) p[k] = vfma(leading, d->r[k], c);
    UNROLL for (int j = EXP_DEGREE - 2; j >= 0; j--)
    {
        c = vconstant(exp_coefficient[j]);
        FOR_BLOCKS(k, blocks) p[k] = vfma(p[k], d->r[k], c);
    }
    FOR_BLOCKS(k, blocks) e[k] = vmul(p[k], vshl_bits(d->t[k], 23));
}

/* e[k] = e^x[k] / 2^n, for 0 to 4 blocks; exactly 0 where that is below about 2^-125.5, never
 * subnormal. x is reduced itself, never x - max, so nothing is rounded before the reduction:
 *
 *   m = RNE(x log2 e)   r = x - m ln 2 (two words)   e = 2 p(r) * 2^(m - n - 1)
 *
 * ROUNDER + 126 - n + m holds m - n + 126 in its low bits: shifted into the exponent field that is
 * 2^(m - n - 1). x is clamped at `floor`, where the field is 0, so the product is +0 without a
 * compare. max's operand order lets NaN pass.
 * Needs x <= n ln 2 + 1.  Error 0.89 ULP for |x| <= 65536 (0.882 at -0x1.aaf86cp+4, the worst of all
 * f32 in [-87, 0] with n = 0), 1.04 up to 2^18.
 * Cost 10 FMA-class operations a block. */
LANES_LARGE void vexp_scaled(const vf *x, vf *e, int blocks, exp_scale s)
{
    UNROLL for (int first = 0; first < blocks; first += BLOCKS_IN_FLIGHT) {
        const int some = blocks - first < BLOCKS_IN_FLIGHT ? blocks - first : BLOCKS_IN_FLIGHT;
        const exp_reduced reduced = vexp_reduced(x + first, some, s);
        vexp_of_reduced(&reduced, e + first, some, exp_coefficient);
    }
}

/* The same halves, of at most four blocks, with constants that stay in registers over a loop with ragged ends:
 * compilers would load some of them for each end. */
typedef struct exp_constants {
    vf p[EXP_DEGREE + 1], log2_e, ln2_high, ln2_low;
} exp_constants;
typedef struct exp_held {
    vf r[4], t[4];
} exp_held;

LANES exp_constants vexp_constants(void)
{
    exp_constants c = {.log2_e = vheld(vset1(LOG2_E)),
                       .ln2_high = vheld(vset1(LN2_HIGH)),
                       .ln2_low = vheld(vset1(LN2_LOW))};
    UNROLL for (int j = 0; j <= EXP_DEGREE; j++) c.p[j] = vheld(vset1(exp_coefficient[j]));
    return c;
}

LANES_LARGE exp_held vexp_reduced_held(const vf *x, const int blocks, exp_scale s, const exp_constants *c)
{
    exp_held d;
    vf m[4];
    FOR_BLOCKS(k, blocks) d.r[k] = vmax(s.floor, x[k]);
    FOR_BLOCKS(k, blocks) d.t[k] = vfma(d.r[k], c->log2_e, s.rounder);
    FOR_BLOCKS(k, blocks) m[k] = vsub(d.t[k], s.rounder);
    FOR_BLOCKS(k, blocks) d.r[k] = vfnma(m[k], c->ln2_high, d.r[k]);
    FOR_BLOCKS(k, blocks) d.r[k] = vfnma(m[k], c->ln2_low, d.r[k]);
    return d;
}

LANES_LARGE void vexp_of_reduced_held(const exp_held *d, vf *e, const int blocks, const exp_constants *c)
{
    vf p[4];
    FOR_BLOCKS(k, blocks) p[k] = vfma(c->p[EXP_DEGREE], d->r[k], c->p[EXP_DEGREE - 1]);
    UNROLL for (int j = EXP_DEGREE - 2; j >= 0; j--)
        FOR_BLOCKS(k, blocks) p[k] = vfma(p[k], d->r[k], c->p[j]);
    FOR_BLOCKS(k, blocks) e[k] = vmul(p[k], vshl_bits(d->t[k], 23));
}

/* e^x in two factors, for one block: 2^m and p, which is 2 p(r) above. Where a row is one block,
 * they are computed beside the maximum that n comes from: only a multiplication waits for it. */
typedef struct exp_factors {
    vf p;
    vf biased_bits; /* of ROUNDER + 126 + m: the exponent field, but for n */
} exp_factors;

/* Below any floor of a row in range: its exponential is 0. */
#define EXP_FACTORS_LEAST (-65700.0f)

/* Needs x <= 65537. No x in range is halfway between two m, so that m is that of vexp_scaled. */
LANES_LARGE exp_factors vexp_factors(vf x)
{
    const vf rounder = vset1(ROUNDER);
    vf r = vmax(vset1(EXP_FACTORS_LEAST), x);
    const vf m = vsub(vfma(r, vset1(LOG2_E), rounder), rounder);
    r = vfnma(m, vset1(LN2_HIGH), r);
    r = vfnma(m, vset1(LN2_LOW), r);
    vf p = vset1(exp_coefficient[EXP_DEGREE]);
    UNROLL for (int j = EXP_DEGREE - 1; j >= 0; j--) p = vfma(p, r, vset1(exp_coefficient[j]));
    return (exp_factors){p, vadd(m, vset1(ROUNDER + 126.0f))};
}

/* e^x / 2^n, bit for bit that of vexp_scaled, for |n| <= 65536 log2(e). n_bits: exponent_bits_of() the
 * maximum. In integers it is three cycles from there to the power of two, not a dozen. */
LANES vf vexp_of_factors(exp_factors e, float n_bits)
{
    const vf exponent = vmax_bits(vset1(0.0f), vsub_bits(e.biased_bits, vset1(n_bits)));
    return vmul(e.p, vshl_bits(exponent, 23));
}

/* ---- log1p ------------------------------------------------------------------------------------ */

/* log(1 + u) = k ln 2 + log(1 + f),  f = (1 + u) / 2^k - 1 in [-1/3, 1/3],  log(1 + f) = f + f^2 q(f).
 * q of degree 8, relative error 4.5e-9. */
#define LOG_DEGREE 8
static const float log_coefficient[LOG_DEGREE + 1] = {
    -0x1p-1f,         0x1.555502p-2f,  -0x1.fffe84p-3f,  0x1.99d1f2p-3f, -0x1.55a754p-3f,
    0x1.1ebe68p-3f, -0x1.f25ddap-4f, 0x1.1ed142p-3f, -0x1.0931ep-3f};

/* log(1 + u) for u in (-0.5, 2^126), one block. f is formed from u, not from 1 + u, so that nothing
 * is lost for small u: f = u 2^-k + (2^-k - 1), one rounding. NaN gives NaN.
 * Error 1.48 ULP for u >= 0.  Not for hot loops: one block, latency bound. */
LANES_LARGE vf vlog1p(vf u)
{
    const vf one = vset1(1.0f);
    vf above = vsub_bits(vadd(u, one), vset1(0x1.555556p-1f)); /* k and what is below it */
    vf k_bits = vsar_bits(above, 23);
    vf scale = vsub_bits(one, vand(above, vset1(float_of_bits(0xff800000u)))); /* 2^-k */
    vf f = vfma(u, scale, vsub(scale, one));
    vf q = vset1(log_coefficient[LOG_DEGREE]);
    UNROLL for (int j = LOG_DEGREE - 1; j >= 0; j--) q = vfma(q, f, vset1(log_coefficient[j]));
    vf k = vfloat_of_bits(k_bits);
    vf low = vfma(k, vset1(LN2_LOW), vmul(vmul(f, f), q));
    return vfma(k, vset1(LN2_HIGH), vadd(f, low));
}

/* ---- doubles, one at a time: combining chunks, never in a hot loop ---------------------------- */

/* 2^k for an integer k <= 1023; 0 below the normal range. */
LANES double power_of_two(double k)
{
    if (!(k >= -1022.0))
        return 0.0;
    uint64_t bits = (uint64_t)((int64_t)k + 1023) << 52;
    double p;
    memcpy(&p, &bits, sizeof p);
    return p;
}

/* e^y for y <= 1, by Taylor's series to the 13th power on |r| <= ln 2 / 2: relative error 4e-16. Where
 * two chunks are relative to references that are no powers of two (logits beyond 65536). */
LANES_SELDOM double exp_of_double(double y)
{
    if (!(y > -700.0))
        return 0.0;
    const double rounder = 0x1.8p52;
    double m = (y * 0x1.71547652b82fep+0 + rounder) - rounder;
    double r = (y - m * 0x1.62e42fefa38p-1) - m * 0x1.ef35793c7673p-45;
    double p = 1.0;
    for (int j = 13; j >= 1; j--)
        p = 1.0 + p * r / j;
    return p * power_of_two(m);
}

#endif
