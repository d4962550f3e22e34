/* SPDX-License-Identifier: MIT */
/* Sixteen lanes as four NEON registers (AArch64). */
#ifndef BALLAST_LANES_NEON_H
#define BALLAST_LANES_NEON_H

#include <arm_neon.h>

#define BLOCKS_IN_FLIGHT 1
#define LEAST_ROW_TILE 0
#define MASK_REGISTERS 0
#define WIDEST_TILE 255
#define WIDEST_STREAMED_TILE 255
#define STREAMS 1
#define STREAMS_SIGMOIDS 0
#define NARROW_PAIRS 0
#define CPU_ROUNDS 0
#define LOADS_LINES 0
#define ROW_WIDTHS 0

typedef struct { float32x4_t a, b, c, d; } vf;
typedef struct { uint32x4_t a, b, c, d; } vm;
typedef vf vp; /* the sign bits, all others 0 */
typedef struct { float64x2_t a, b, c, d, e, f, g, h; } vd;

#define INT(x) vreinterpretq_s32_f32(x)
#define BITS(x) vreinterpretq_u32_f32(x)
#define FLOAT(x) vreinterpretq_f32_u32(x)
#define PAIRS(x) vreinterpretq_f64_f32(x)
#define EACH1(f, x) {f((x).a), f((x).b), f((x).c), f((x).d)}
#define EACH2(f, x, y) {f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d)}
#define EACH3(f, x, y, z)                                                                         \
    {f((x).a, (y).a, (z).a), f((x).b, (y).b, (z).b), f((x).c, (y).c, (z).c),                      \
     f((x).d, (y).d, (z).d)}

LANES vf vset1(float x)
{
    float32x4_t q = vdupq_n_f32(x);
    return (vf){q, q, q, q};
}
LANES vf vconstant(float x) { return vset1(x); }
LANES vf vload_f32(const float *p)
{
    return (vf){vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
LANES vf vheld(vf a) { return a; }
LANES void vstore_f32(float *p, vf x)
{
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
}
LANES void vstore_stream_f32(float *p, vf x) { vstore_f32(p, x); }
LANES void vstream_fence(void) {}
LANES void vprefetch(const void *p) { __builtin_prefetch(p, 0, 2); }
LANES void vprefetch_near(const void *p) { __builtin_prefetch(p, 0, 3); }
LANES void vprefetch_write(void *p) { __builtin_prefetch(p, 1, 3); }
LANES float32x4_t load_n4(const float *p, int n, float32x4_t q)
{
    if (n >= 4)
        return vld1q_f32(p);
    if (n > 0)
        q = vld1q_lane_f32(p, q, 0);
    if (n > 1)
        q = vld1q_lane_f32(p + 1, q, 1);
    if (n > 2)
        q = vld1q_lane_f32(p + 2, q, 2);
    return q;
}
LANES vf vload_n_f32(const float *p, int n, float fill)
{
    float32x4_t q = vdupq_n_f32(fill);
    return (vf){load_n4(p, n, q), load_n4(p + 4, n - 4, q), load_n4(p + 8, n - 8, q),
                load_n4(p + 12, n - 12, q)};
}
LANES void store_n4(float *p, int n, float32x4_t q)
{
    if (n >= 4) {
        vst1q_f32(p, q);
        return;
    }
    if (n > 0)
        vst1q_lane_f32(p, q, 0);
    if (n > 1)
        vst1q_lane_f32(p + 1, q, 1);
    if (n > 2)
        vst1q_lane_f32(p + 2, q, 2);
}
LANES void vstore_n_f32(float *p, int n, vf x)
{
    store_n4(p, n, x.a);
    store_n4(p + 4, n - 4, x.b);
    store_n4(p + 8, n - 8, x.c);
    store_n4(p + 12, n - 12, x.d);
}
/* Four rows of four become four columns; its own inverse. */
LANES void transpose4(float32x4_t *q)
{
    const float64x2_t a = PAIRS(vzip1q_f32(q[0], q[1])), b = PAIRS(vzip2q_f32(q[0], q[1]));
    const float64x2_t c = PAIRS(vzip1q_f32(q[2], q[3])), d = PAIRS(vzip2q_f32(q[2], q[3]));
    q[0] = vreinterpretq_f32_f64(vzip1q_f64(a, c));
    q[1] = vreinterpretq_f32_f64(vzip2q_f64(a, c));
    q[2] = vreinterpretq_f32_f64(vzip1q_f64(b, d));
    q[3] = vreinterpretq_f32_f64(vzip2q_f64(b, d));
}
/* The first n of four elements, n a constant; the others are 0. */
LANES float32x4_t load4(const float *p, const int n)
{
    if (n == 4)
        return vld1q_f32(p);
    if (n == 1)
        return vld1q_lane_f32(p, vdupq_n_f32(0), 0);
    const float32x4_t two = vcombine_f32(vld1_f32(p), vdup_n_f32(0));
    return n == 2 ? two : vld1q_lane_f32(p + 2, two, 2);
}
LANES void store4(float *p, const int n, float32x4_t x)
{
    if (n == 4)
        vst1q_f32(p, x);
    else if (n == 1)
        vst1q_lane_f32(p, x, 0);
    else
        vst1_f32(p, vget_low_f32(x));
    if (n == 3)
        vst1q_lane_f32(p + 2, x, 2);
}
LANES void load4x4(const float *p, int64_t stride, const int n, float32x4_t *q)
{
    UNROLL for (int r = 0; r < 4; r++) q[r] = load4(p + r * stride, n);
    transpose4(q);
}
LANES void store4x4(float *p, int64_t stride, const int n, float32x4_t x, float32x4_t y,
                    float32x4_t z, float32x4_t w)
{
    float32x4_t q[4] = {x, y, z, w};
    transpose4(q);
    UNROLL for (int r = 0; r < 4; r++) store4(p + r * stride, n, q[r]);
}
LANES void vload_columns_f32(const float *p, int64_t stride, const int n, vf *x)
{
    float32x4_t a[4], b[4], c[4], d[4];
    load4x4(p, stride, n, a);
    load4x4(p + 4 * stride, stride, n, b);
    load4x4(p + 8 * stride, stride, n, c);
    load4x4(p + 12 * stride, stride, n, d);
    UNROLL for (int k = 0; k < 4; k++) x[k] = (vf){a[k], b[k], c[k], d[k]};
}
LANES void vstore_columns_f32(float *p, int64_t stride, const int n, const vf *x)
{
    store4x4(p, stride, n, x[0].a, x[1].a, x[2].a, x[3].a);
    store4x4(p + 4 * stride, stride, n, x[0].b, x[1].b, x[2].b, x[3].b);
    store4x4(p + 8 * stride, stride, n, x[0].c, x[1].c, x[2].c, x[3].c);
    store4x4(p + 12 * stride, stride, n, x[0].d, x[1].d, x[2].d, x[3].d);
}
LANES float32x4_t load4_i64(const int64_t *p)
{
    const uint32x2_t x = vqmovn_u64(vreinterpretq_u64_s64(vld1q_s64(p)));
    return vreinterpretq_f32_u32(vqmovn_high_u64(x, vreinterpretq_u64_s64(vld1q_s64(p + 2))));
}
LANES vf vload_i64(const int64_t *p)
{
    return (vf){load4_i64(p), load4_i64(p + 4), load4_i64(p + 8), load4_i64(p + 12)};
}
LANES vp vload_positive_u8(const uint8_t *p)
{
    uint8x16_t v = vld1q_u8(p), zero = vdupq_n_u8(0);
    uint8x16_t sign = vandq_u8(vtstq_u8(v, v), vdupq_n_u8(0x80));
    uint16x8_t wide = vreinterpretq_u16_u8(zero);
    uint16x8_t low = vreinterpretq_u16_u8(vzip1q_u8(zero, sign));
    uint16x8_t high = vreinterpretq_u16_u8(vzip2q_u8(zero, sign));
    return (vf){vreinterpretq_f32_u16(vzip1q_u16(wide, low)),
                vreinterpretq_f32_u16(vzip2q_u16(wide, low)),
                vreinterpretq_f32_u16(vzip1q_u16(wide, high)),
                vreinterpretq_f32_u16(vzip2q_u16(wide, high))};
}

LANES float32x4_t max4(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
LANES float32x4_t min4(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
LANES float32x4_t fma4(float32x4_t x, float32x4_t y, float32x4_t z) { return vfmaq_f32(z, x, y); }
LANES float32x4_t fnma4(float32x4_t x, float32x4_t y, float32x4_t z) { return vfmsq_f32(z, x, y); }
LANES float32x4_t fms4(float32x4_t x, float32x4_t y, float32x4_t z)
{
    return vfmaq_f32(vnegq_f32(z), x, y);
}
LANES float32x4_t and4(float32x4_t x, float32x4_t y) { return FLOAT(vandq_u32(BITS(x), BITS(y))); }
LANES float32x4_t or4(float32x4_t x, float32x4_t y) { return FLOAT(vorrq_u32(BITS(x), BITS(y))); }
LANES float32x4_t xor4(float32x4_t x, float32x4_t y) { return FLOAT(veorq_u32(BITS(x), BITS(y))); }
LANES float32x4_t add_bits4(float32x4_t x, float32x4_t y)
{
    return FLOAT(vaddq_u32(BITS(x), BITS(y)));
}
LANES float32x4_t sub_bits4(float32x4_t x, float32x4_t y)
{
    return FLOAT(vsubq_u32(BITS(x), BITS(y)));
}
LANES float32x4_t max_bits4(float32x4_t x, float32x4_t y)
{
    return vreinterpretq_f32_s32(vmaxq_s32(INT(x), INT(y)));
}
LANES float32x4_t float_of_bits4(float32x4_t x) { return vcvtq_f32_s32(INT(x)); }
/* The operators, not vshlq: they become immediate shifts. */
LANES float32x4_t shl4(float32x4_t x, int k) { return FLOAT(BITS(x) << k); }
LANES float32x4_t sar4(float32x4_t x, int k) { return vreinterpretq_f32_s32(INT(x) >> k); }
LANES uint32x4_t nan4(float32x4_t x) { return vmvnq_u32(vceqq_f32(x, x)); }
LANES float32x4_t keep4(uint32x4_t m, float32x4_t x) { return FLOAT(vandq_u32(m, BITS(x))); }
LANES float32x4_t sign_select4(float32x4_t s, float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcltzq_s32(INT(s)), x, y);
}

LANES vf vadd(vf x, vf y) { return (vf)EACH2(vaddq_f32, x, y); }
LANES vf vsub(vf x, vf y) { return (vf)EACH2(vsubq_f32, x, y); }
LANES vf vmul(vf x, vf y) { return (vf)EACH2(vmulq_f32, x, y); }
LANES vf vdiv(vf x, vf y) { return (vf)EACH2(vdivq_f32, x, y); }
LANES vf vsqrt(vf x) { return (vf)EACH1(vsqrtq_f32, x); }
LANES vf vsqrt_fraction(vf x) { return vsqrt(x); }
LANES vf vmax(vf x, vf y) { return (vf)EACH2(max4, x, y); }
LANES vf vmin(vf x, vf y) { return (vf)EACH2(min4, x, y); }
LANES vf vfma(vf x, vf y, vf z) { return (vf)EACH3(fma4, x, y, z); }
LANES vf vfnma(vf x, vf y, vf z) { return (vf)EACH3(fnma4, x, y, z); }
LANES vf vfms(vf x, vf y, vf z) { return (vf)EACH3(fms4, x, y, z); }
LANES vf vand(vf x, vf y) { return (vf)EACH2(and4, x, y); }
LANES vf vor(vf x, vf y) { return (vf)EACH2(or4, x, y); }
LANES vf vxor(vf x, vf y) { return (vf)EACH2(xor4, x, y); }
LANES vf vabs(vf x) { return (vf)EACH1(vabsq_f32, x); }
LANES vf vneg(vf x) { return (vf)EACH1(vnegq_f32, x); }
LANES vf vadd_bits(vf x, vf y) { return (vf)EACH2(add_bits4, x, y); }
LANES vf vsub_bits(vf x, vf y) { return (vf)EACH2(sub_bits4, x, y); }
LANES vf vmax_bits(vf x, vf y) { return (vf)EACH2(max_bits4, x, y); }
LANES vf vfloat_of_bits(vf x) { return (vf)EACH1(float_of_bits4, x); }
LANES vf vshl_bits(vf x, int k)
{
    return (vf){shl4(x.a, k), shl4(x.b, k), shl4(x.c, k), shl4(x.d, k)};
}
LANES vf vsar_bits(vf x, int k)
{
    return (vf){sar4(x.a, k), sar4(x.b, k), sar4(x.c, k), sar4(x.d, k)};
}

LANES vm vlt(vf x, vf y) { return (vm)EACH2(vcltq_f32, x, y); }
LANES vm vle(vf x, vf y) { return (vm)EACH2(vcleq_f32, x, y); }
LANES vm veq(vf x, vf y) { return (vm)EACH2(vceqq_f32, x, y); }
LANES vm vnan(vf x) { return (vm)EACH1(nan4, x); }
LANES vm vmask_or(vm x, vm y) { return (vm)EACH2(vorrq_u32, x, y); }
LANES vm vmask_first(int n)
{
    const uint32x4_t lane = {0, 1, 2, 3};
    uint32x4_t limit = vdupq_n_u32((uint32_t)n), four = vdupq_n_u32(4);
    uint32x4_t b = vaddq_u32(lane, four), c = vaddq_u32(b, four), d = vaddq_u32(c, four);
    return (vm){vcltq_u32(lane, limit), vcltq_u32(b, limit), vcltq_u32(c, limit),
                vcltq_u32(d, limit)};
}
LANES vm vmask_without(int k)
{
    const int32x4_t lane = {0, 1, 2, 3};
    int32x4_t left_out = vdupq_n_s32(k), four = vdupq_n_s32(4);
    int32x4_t b = vaddq_s32(lane, four), c = vaddq_s32(b, four), d = vaddq_s32(c, four);
    return (vm){vmvnq_u32(vceqq_s32(lane, left_out)), vmvnq_u32(vceqq_s32(b, left_out)),
                vmvnq_u32(vceqq_s32(c, left_out)), vmvnq_u32(vceqq_s32(d, left_out))};
}
LANES vf vselect(vm m, vf x, vf y) { return (vf)EACH3(vbslq_f32, m, x, y); }
LANES vf vkeep(vm m, vf x) { return (vf)EACH2(keep4, m, x); }
LANES vf vsign_select(vf s, vf x, vf y) { return (vf)EACH3(sign_select4, s, x, y); }
LANES int vany(vm m)
{
    return vmaxvq_u32(vorrq_u32(vorrq_u32(m.a, m.b), vorrq_u32(m.c, m.d))) != 0;
}
LANES int vfirst(vm m)
{
    uint16x8_t low = vcombine_u16(vmovn_u32(m.a), vmovn_u32(m.b));
    uint16x8_t high = vcombine_u16(vmovn_u32(m.c), vmovn_u32(m.d));
    uint8x16_t bytes = vcombine_u8(vmovn_u16(low), vmovn_u16(high));
    uint8x8_t nibbles = vshrn_n_u16(vreinterpretq_u16_u8(bytes), 4);
    uint64_t bits = vget_lane_u64(vreinterpret_u64_u8(nibbles), 0);
    return bits ? __builtin_ctzll(bits) >> 2 : BLOCK;
}

LANES float vlane0(vf x) { return vgetq_lane_f32(x.a, 0); }
LANES float vadd_across(vf x)
{
    float32x4_t q = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    float32x2_t h = vadd_f32(vget_low_f32(q), vget_high_f32(q));
    return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
}
LANES float vmax_across(vf x)
{
    float32x4_t q = max4(max4(x.a, x.c), max4(x.b, x.d));
    float32x2_t low = vget_low_f32(q), high = vget_high_f32(q);
    float32x2_t h = vbsl_f32(vcgt_f32(low, high), low, high);
    float even = vget_lane_f32(h, 0), odd = vget_lane_f32(h, 1);
    return even > odd ? even : odd;
}
LANES vd vd_zero(void)
{
    float64x2_t z = vdupq_n_f64(0);
    return (vd){z, z, z, z, z, z, z, z};
}
LANES float64x2_t low_d(float32x4_t x) { return vcvt_f64_f32(vget_low_f32(x)); }
LANES float64x2_t high_d(float32x4_t x) { return vcvt_high_f64_f32(x); }
LANES vd vd_add(vd s, vf x)
{
    return (vd){vaddq_f64(s.a, low_d(x.a)), vaddq_f64(s.b, high_d(x.a)),
                vaddq_f64(s.c, low_d(x.b)), vaddq_f64(s.d, high_d(x.b)),
                vaddq_f64(s.e, low_d(x.c)), vaddq_f64(s.f, high_d(x.c)),
                vaddq_f64(s.g, low_d(x.d)), vaddq_f64(s.h, high_d(x.d))};
}
LANES vd vd_widen(vf x)
{
    return (vd){low_d(x.a), high_d(x.a), low_d(x.b), high_d(x.b),
                low_d(x.c), high_d(x.c), low_d(x.d), high_d(x.d)};
}
LANES vd vd_plus(vd s, vd t)
{
    return (vd){vaddq_f64(s.a, t.a), vaddq_f64(s.b, t.b), vaddq_f64(s.c, t.c),
                vaddq_f64(s.d, t.d), vaddq_f64(s.e, t.e), vaddq_f64(s.f, t.f),
                vaddq_f64(s.g, t.g), vaddq_f64(s.h, t.h)};
}
#define EACH_PAIR2(op, s, t)                                                                      \
    {op((s).a, (t).a), op((s).b, (t).b), op((s).c, (t).c), op((s).d, (t).d),                      \
     op((s).e, (t).e), op((s).f, (t).f), op((s).g, (t).g), op((s).h, (t).h)}
LANES vd vd_times(vd s, vd t) { return (vd)EACH_PAIR2(vmulq_f64, s, t); }
LANES vd vd_over(vd s, vd t) { return (vd)EACH_PAIR2(vdivq_f64, s, t); }
LANES vd vd_set1(double x)
{
    const float64x2_t q = vdupq_n_f64(x);
    return (vd){q, q, q, q, q, q, q, q};
}
LANES vd vd_load(const double *p)
{
    return (vd){vld1q_f64(p), vld1q_f64(p + 2), vld1q_f64(p + 4), vld1q_f64(p + 6),
                vld1q_f64(p + 8), vld1q_f64(p + 10), vld1q_f64(p + 12), vld1q_f64(p + 14)};
}
LANES vd vd_load_f32(const float *p) { return vd_widen(vload_f32(p)); }
LANES float64x2_t normal2(float64x2_t x, float64x2_t least)
{
    const uint64x2_t subnormal = vcltq_f64(vabsq_f64(x), least);
    return vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(x), subnormal));
}
LANES vd vd_normal(vd s)
{
    const vd least = vd_set1(0x1p-126);
    return (vd)EACH_PAIR2(normal2, s, least);
}
LANES float32x4_t narrow4(float64x2_t x, float64x2_t y)
{
    return vcvt_high_f32_f64(vcvt_f32_f64(x), y);
}
LANES vf vd_narrow(vd s)
{
    return (vf){narrow4(s.a, s.b), narrow4(s.c, s.d), narrow4(s.e, s.f), narrow4(s.g, s.h)};
}
LANES void vd_store(double *p, vd s)
{
    vst1q_f64(p, s.a);
    vst1q_f64(p + 2, s.b);
    vst1q_f64(p + 4, s.c);
    vst1q_f64(p + 6, s.d);
    vst1q_f64(p + 8, s.e);
    vst1q_f64(p + 10, s.f);
    vst1q_f64(p + 12, s.g);
    vst1q_f64(p + 14, s.h);
}
LANES double vd_across(vd s)
{
    float64x2_t p = vaddq_f64(vaddq_f64(s.a, s.e), vaddq_f64(s.c, s.g));
    float64x2_t q = vaddq_f64(vaddq_f64(s.b, s.f), vaddq_f64(s.d, s.h));
    float64x2_t h = vaddq_f64(p, q);
    return vgetq_lane_f64(h, 0) + vgetq_lane_f64(h, 1);
}
typedef vd vs;
LANES vs vs_zero(void) { return vd_zero(); }
LANES vs vs_plus(vs s, vs t) { return vd_plus(s, t); }
LANES vs vs_load(const float *p) { return vd_load_f32(p); }
LANES vs vs_load_sum(const float *p, const float *q)
{
    return vd_widen(vadd(vload_f32(p), vload_f32(q)));
}
LANES vd vs_widen(vs s) { return s; }
LANES double vs_across(vs s) { return vd_across(s); }

/* ---- 16-bit storage --------------------------------------------------------------------------- */

typedef struct { uint16x8_t a, b; } vh;

LANES vh vh_load(const uint16_t *p) { return (vh){vld1q_u16(p), vld1q_u16(p + 8)}; }
LANES void vh_store(uint16_t *p, vh h)
{
    vst1q_u16(p, h.a);
    vst1q_u16(p + 8, h.b);
}
/* The first n of sixteen elements, in pieces of 8, 4, 2 and 1. */
LANES void copy_n_16(uint16_t *to, const uint16_t *from, int n)
{
    if (n & 8)
        memcpy(to, from, 16);
    if (n & 4)
        memcpy(to + (n & 8), from + (n & 8), 8);
    if (n & 2)
        memcpy(to + (n & 12), from + (n & 12), 4);
    if (n & 1)
        to[n & 14] = from[n & 14];
}
LANES vh vh_load_n(const uint16_t *p, int n)
{
    uint16_t t[BLOCK] = {0};
    copy_n_16(t, p, n);
    return vh_load(t);
}
LANES void vh_store_n(uint16_t *p, int n, vh h)
{
    uint16_t t[BLOCK];
    vh_store(t, h);
    copy_n_16(p, t, n);
}

LANES vf vload_uppers(const uint16_t *p)
{
    const vh low = vh_load(p), high = vh_load(p + 16);
    return (vf){vreinterpretq_f32_u16(low.a), vreinterpretq_f32_u16(low.b),
                vreinterpretq_f32_u16(high.a), vreinterpretq_f32_u16(high.b)};
}

LANES vf widen_bf16(vh h)
{
    const uint16x8_t zero = vdupq_n_u16(0);
    return (vf){
        vreinterpretq_f32_u16(vzip1q_u16(zero, h.a)), vreinterpretq_f32_u16(vzip2q_u16(zero, h.a)),
        vreinterpretq_f32_u16(vzip1q_u16(zero, h.b)), vreinterpretq_f32_u16(vzip2q_u16(zero, h.b))};
}
LANES uint16x8_t round8(float32x4_t x, float32x4_t y)
{
    const uint32x4_t one = vdupq_n_u32(1), below_half = vdupq_n_u32(0x7fff);
    const uint32x4_t x_odd = vandq_u32(vshrq_n_u32(BITS(x), 16), one);
    const uint32x4_t y_odd = vandq_u32(vshrq_n_u32(BITS(y), 16), one);
    const uint32x4_t low = vaddq_u32(BITS(x), vaddq_u32(x_odd, below_half));
    const uint32x4_t high = vaddq_u32(BITS(y), vaddq_u32(y_odd, below_half));
    return vuzp2q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high));
}
LANES vh narrow_bf16(vf x) { return (vh){round8(x.a, x.b), round8(x.c, x.d)}; }
LANES vf widen_f16(vh h)
{
    const float16x8_t a = vreinterpretq_f16_u16(h.a), b = vreinterpretq_f16_u16(h.b);
    return (vf){vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a),
                vcvt_f32_f16(vget_low_f16(b)), vcvt_high_f32_f16(b)};
}
LANES vh narrow_f16(vf x)
{
    return (vh){vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.a), x.b)),
                vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.c), x.d))};
}
LANES vf vload_bf16(const uint16_t *p) { return widen_bf16(vh_load(p)); }
LANES vf vload_f16(const uint16_t *p) { return widen_f16(vh_load(p)); }

#undef INT
#undef BITS
#undef FLOAT
#undef PAIRS
#undef EACH1
#undef EACH2
#undef EACH3
#undef EACH_PAIR2

#endif
