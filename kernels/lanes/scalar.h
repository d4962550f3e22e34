/* SPDX-License-Identifier: MIT */
/* Sixteen lanes in portable C: four generic vectors of four, which a compiler lowers to whatever the
 * baseline has. It defines the bits; it is also the product on CPUs without a header of their own. */
#ifndef BALLAST_LANES_SCALAR_H
#define BALLAST_LANES_SCALAR_H

#define BLOCKS_IN_FLIGHT 1
#define LEAST_ROW_TILE 0
#define MASK_REGISTERS 0
#define WIDEST_TILE 255
#define WIDEST_STREAMED_TILE 255
#define STREAMS 0
#define STREAMS_SIGMOIDS 0
#define NARROW_PAIRS 0
#define CPU_ROUNDS 0
#define LOADS_LINES 0
#define ROW_WIDTHS 0

typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));
typedef uint32_t u4 __attribute__((vector_size(16)));
typedef uint16_t h4 __attribute__((vector_size(8)));
typedef float f2 __attribute__((vector_size(8)));
typedef double d2 __attribute__((vector_size(16)));
typedef int64_t l2 __attribute__((vector_size(16)));
typedef double d4 __attribute__((vector_size(32)));
typedef int64_t l4 __attribute__((vector_size(32)));

typedef struct { f4 a, b, c, d; } vf;
typedef struct { i4 a, b, c, d; } vm;
typedef vf vp; /* the sign bits, all others 0 */
typedef struct { d4 a, b, c, d; } vd;

#define EACH1(f, x) {f((x).a), f((x).b), f((x).c), f((x).d)}
#define EACH2(f, x, y) {f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d)}
#define EACH3(f, x, y, z)                                                                         \
    {f((x).a, (y).a, (z).a), f((x).b, (y).b, (z).b), f((x).c, (y).c, (z).c),                      \
     f((x).d, (y).d, (z).d)}

LANES vf vload_f32(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
LANES vf vheld(vf a) { return a; }
LANES void vstore_f32(float *p, vf v) { memcpy(p, &v, sizeof v); }
LANES void vstore_stream_f32(float *p, vf x) { vstore_f32(p, x); }
LANES void vstream_fence(void) {}
LANES void vprefetch(const void *p) { __builtin_prefetch(p, 0, 2); }
LANES void vprefetch_near(const void *p) { __builtin_prefetch(p, 0, 3); }
LANES void vprefetch_write(void *p) { __builtin_prefetch(p, 1, 3); }
LANES vf vset1(float x)
{
    f4 q = {x, x, x, x};
    return (vf){q, q, q, q};
}
LANES vf vconstant(float x) { return vset1(x); }
LANES vf vload_i64(const int64_t *p)
{
    float bits[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        bits[i] = float_of_bits((uint64_t)p[i] > UINT32_MAX ? UINT32_MAX : (uint32_t)p[i]);
    return vload_f32(bits);
}
LANES vf vload_n_f32(const float *p, int n, float fill)
{
    float t[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        t[i] = i < n ? p[i] : fill;
    return vload_f32(t);
}
LANES void vstore_n_f32(float *p, int n, vf v)
{
    float t[BLOCK];
    vstore_f32(t, v);
    for (int i = 0; i < n; i++)
        p[i] = t[i];
}
/* Four rows of four become four columns; its own inverse. */
LANES void transpose4(f4 *q)
{
    const f4 a = __builtin_shufflevector(q[0], q[1], 0, 4, 1, 5);
    const f4 b = __builtin_shufflevector(q[0], q[1], 2, 6, 3, 7);
    const f4 c = __builtin_shufflevector(q[2], q[3], 0, 4, 1, 5);
    const f4 d = __builtin_shufflevector(q[2], q[3], 2, 6, 3, 7);
    q[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
    q[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    q[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
    q[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}
/* The first n of four elements, n a constant; the others are 0. */
LANES f4 load4(const float *p, const int n)
{
    f4 q = {0, 0, 0, 0};
    memcpy(&q, p, (size_t)n * sizeof *p);
    return q;
}
LANES void store4(float *p, const int n, f4 q) { memcpy(p, &q, (size_t)n * sizeof *p); }
LANES void load4x4(const float *p, int64_t stride, const int n, f4 *q)
{
    UNROLL for (int r = 0; r < 4; r++) q[r] = load4(p + r * stride, n);
    transpose4(q);
}
LANES void store4x4(float *p, int64_t stride, const int n, f4 x, f4 y, f4 z, f4 w)
{
    f4 q[4] = {x, y, z, w};
    transpose4(q);
    UNROLL for (int r = 0; r < 4; r++) store4(p + r * stride, n, q[r]);
}
LANES void vload_columns_f32(const float *p, int64_t stride, const int n, vf *x)
{
    f4 a[4], b[4], c[4], d[4];
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
LANES vp vload_positive_u8(const uint8_t *p)
{
    float t[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        t[i] = p[i] ? -0.0f : 0.0f;
    return vload_f32(t);
}

LANES f4 add4(f4 x, f4 y) { return x + y; }
LANES f4 sub4(f4 x, f4 y) { return x - y; }
LANES f4 mul4(f4 x, f4 y) { return x * y; }
LANES f4 div4(f4 x, f4 y) { return x / y; }
LANES f4 sqrt4(f4 x)
{
    return (f4){__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]),
                __builtin_sqrtf(x[3])};
}
LANES f4 and4(f4 x, f4 y) { return (f4)((i4)x & (i4)y); }
LANES f4 or4(f4 x, f4 y) { return (f4)((i4)x | (i4)y); }
LANES f4 xor4(f4 x, f4 y) { return (f4)((i4)x ^ (i4)y); }
LANES f4 select4(i4 m, f4 x, f4 y) { return (f4)((m & (i4)x) | (~m & (i4)y)); }
LANES f4 max4(f4 x, f4 y) { return select4(x > y, x, y); }
LANES f4 min4(f4 x, f4 y) { return select4(x < y, x, y); }
LANES f4 add_bits4(f4 x, f4 y) { return (f4)((u4)x + (u4)y); }
LANES f4 sub_bits4(f4 x, f4 y) { return (f4)((u4)x - (u4)y); }
LANES f4 max_bits4(f4 x, f4 y) { return select4((i4)x > (i4)y, x, y); }
LANES f4 float_of_bits4(f4 x) { return __builtin_convertvector((i4)x, f4); }
LANES i4 lt4(f4 x, f4 y) { return x < y; }
LANES i4 le4(f4 x, f4 y) { return x <= y; }
LANES i4 eq4(f4 x, f4 y) { return x == y; }
LANES i4 nan4(f4 x) { return ~(i4)(x == x); }
LANES i4 mask_or4(i4 x, i4 y) { return x | y; }
LANES f4 keep4(i4 m, f4 x) { return (f4)(m & (i4)x); }
LANES f4 sign_select4(f4 s, f4 x, f4 y) { return select4((i4)s >> 31, x, y); }

#ifdef __FP_FAST_FMAF
LANES f4 fma4(f4 x, f4 y, f4 z)
{
    return (f4){__builtin_fmaf(x[0], y[0], z[0]), __builtin_fmaf(x[1], y[1], z[1]),
                __builtin_fmaf(x[2], y[2], z[2]), __builtin_fmaf(x[3], y[3], z[3])};
}
#else
/* No fused multiply-add in hardware: x y is exact in double; its sum with z is rounded to odd (the
 * error of the sum, by TwoSum, decides the last bit), after which rounding to float is the only
 * rounding that counts. Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008. */
LANES d2 fma2(d2 x, d2 y, d2 z)
{
    const d2 zero = {0, 0};
    d2 p = x * y;
    d2 s = p + z;
    d2 back = s - p;
    d2 error = (p - (s - back)) + (z - back);
    l2 inexact = (error < zero) | (error > zero); /* false on NaN: inf and NaN stay as they are */
    l2 even = ((l2)s & 1) - 1;
    l2 inward = (error < zero) ^ (s < zero); /* the error's sign is not the sum's */
    l2 step = inward | 1;                    /* +1 away from zero, -1 towards it */
    return (d2)((l2)s + (step & inexact & even));
}
LANES d2 low2(f4 x)
{
    return __builtin_convertvector(__builtin_shufflevector(x, x, 0, 1), d2);
}
LANES d2 high2(f4 x)
{
    return __builtin_convertvector(__builtin_shufflevector(x, x, 2, 3), d2);
}
/* A function of its own: inlined, forty instructions at every fma made the library twice as large. */
static __attribute__((noinline, unused)) f4 fma4(f4 x, f4 y, f4 z)
{
    f2 low = __builtin_convertvector(fma2(low2(x), low2(y), low2(z)), f2);
    f2 high = __builtin_convertvector(fma2(high2(x), high2(y), high2(z)), f2);
    return __builtin_shufflevector(low, high, 0, 1, 2, 3);
}
#endif
LANES f4 fnma4(f4 x, f4 y, f4 z) { return fma4(-x, y, z); }
LANES f4 fms4(f4 x, f4 y, f4 z) { return fma4(x, y, -z); }

LANES vf vadd(vf x, vf y) { return (vf)EACH2(add4, x, y); }
LANES vf vsub(vf x, vf y) { return (vf)EACH2(sub4, x, y); }
LANES vf vmul(vf x, vf y) { return (vf)EACH2(mul4, x, y); }
LANES vf vdiv(vf x, vf y) { return (vf)EACH2(div4, x, y); }
LANES vf vsqrt(vf x) { return (vf)EACH1(sqrt4, x); }
LANES vf vsqrt_fraction(vf x) { return vsqrt(x); }
LANES vf vmax(vf x, vf y) { return (vf)EACH2(max4, x, y); }
LANES vf vmin(vf x, vf y) { return (vf)EACH2(min4, x, y); }
LANES vf vfma(vf x, vf y, vf z) { return (vf)EACH3(fma4, x, y, z); }
LANES vf vfnma(vf x, vf y, vf z) { return (vf)EACH3(fnma4, x, y, z); }
LANES vf vfms(vf x, vf y, vf z) { return (vf)EACH3(fms4, x, y, z); }
LANES vf vand(vf x, vf y) { return (vf)EACH2(and4, x, y); }
LANES vf vor(vf x, vf y) { return (vf)EACH2(or4, x, y); }
LANES vf vxor(vf x, vf y) { return (vf)EACH2(xor4, x, y); }
LANES vf vabs(vf x) { return vand(x, vset1(float_of_bits(0x7fffffffu))); }
LANES vf vneg(vf x) { return vxor(x, vset1(-0.0f)); }
LANES vf vadd_bits(vf x, vf y) { return (vf)EACH2(add_bits4, x, y); }
LANES vf vsub_bits(vf x, vf y) { return (vf)EACH2(sub_bits4, x, y); }
LANES vf vmax_bits(vf x, vf y) { return (vf)EACH2(max_bits4, x, y); }
LANES vf vfloat_of_bits(vf x) { return (vf)EACH1(float_of_bits4, x); }
LANES vf vshl_bits(vf x, int k)
{
    return (vf){(f4)((u4)x.a << k), (f4)((u4)x.b << k), (f4)((u4)x.c << k), (f4)((u4)x.d << k)};
}
LANES vf vsar_bits(vf x, int k)
{
    return (vf){(f4)((i4)x.a >> k), (f4)((i4)x.b >> k), (f4)((i4)x.c >> k), (f4)((i4)x.d >> k)};
}

LANES vm vlt(vf x, vf y) { return (vm)EACH2(lt4, x, y); }
LANES vm vle(vf x, vf y) { return (vm)EACH2(le4, x, y); }
LANES vm veq(vf x, vf y) { return (vm)EACH2(eq4, x, y); }
LANES vm vnan(vf x) { return (vm)EACH1(nan4, x); }
LANES vm vmask_or(vm x, vm y) { return (vm)EACH2(mask_or4, x, y); }
LANES vm vmask_first(int n)
{
    const i4 lane = {0, 1, 2, 3};
    return (vm){lane < n, lane + 4 < n, lane + 8 < n, lane + 12 < n};
}
LANES vm vmask_without(int k)
{
    const i4 lane = {0, 1, 2, 3};
    return (vm){lane != k, lane + 4 != k, lane + 8 != k, lane + 12 != k};
}
LANES vf vselect(vm m, vf x, vf y) { return (vf)EACH3(select4, m, x, y); }
LANES vf vkeep(vm m, vf x) { return (vf)EACH2(keep4, m, x); }
LANES vf vsign_select(vf s, vf x, vf y) { return (vf)EACH3(sign_select4, s, x, y); }
LANES int vany(vm m)
{
    l4 any = (l4)__builtin_shufflevector(m.a | m.b, m.c | m.d, 0, 1, 2, 3, 4, 5, 6, 7);
    return (any[0] | any[1] | any[2] | any[3]) != 0;
}
LANES int vfirst(vm m)
{
    int32_t t[BLOCK];
    memcpy(t, &m, sizeof t);
    for (int i = 0; i < BLOCK; i++)
        if (t[i])
            return i;
    return BLOCK;
}

LANES float vlane0(vf x) { return x.a[0]; }
LANES float vadd_across(vf x)
{
    f4 q = (x.a + x.c) + (x.b + x.d);
    return (q[0] + q[2]) + (q[1] + q[3]);
}
LANES float vmax_across(vf x)
{
    f4 q = max4(max4(x.a, x.c), max4(x.b, x.d));
    float low = q[0] > q[2] ? q[0] : q[2], high = q[1] > q[3] ? q[1] : q[3];
    return low > high ? low : high;
}
LANES vd vd_zero(void)
{
    const d4 zero = {0, 0, 0, 0};
    return (vd){zero, zero, zero, zero};
}
LANES vd vd_widen(vf x)
{
    return (vd){__builtin_convertvector(x.a, d4), __builtin_convertvector(x.b, d4),
                __builtin_convertvector(x.c, d4), __builtin_convertvector(x.d, d4)};
}
LANES vd vd_plus(vd s, vd t) { return (vd){s.a + t.a, s.b + t.b, s.c + t.c, s.d + t.d}; }
LANES vd vd_times(vd s, vd t) { return (vd){s.a * t.a, s.b * t.b, s.c * t.c, s.d * t.d}; }
LANES vd vd_over(vd s, vd t) { return (vd){s.a / t.a, s.b / t.b, s.c / t.c, s.d / t.d}; }
LANES vd vd_set1(double x)
{
    const d4 q = {x, x, x, x};
    return (vd){q, q, q, q};
}
LANES vd vd_load(const double *p)
{
    vd s;
    memcpy(&s, p, sizeof s);
    return s;
}
LANES vd vd_load_f32(const float *p) { return vd_widen(vload_f32(p)); }
LANES void vd_store(double *p, vd s) { memcpy(p, &s, sizeof s); }
LANES d4 normal4(d4 x)
{
    const l4 subnormal = (x < 0x1p-126) & (x > -0x1p-126);
    return (d4)((l4)x & ~subnormal);
}
LANES vd vd_normal(vd s) { return (vd)EACH1(normal4, s); }
LANES f4 narrow4(d4 x) { return __builtin_convertvector(x, f4); }
LANES vf vd_narrow(vd s) { return (vf)EACH1(narrow4, s); }
LANES vd vd_add(vd s, vf x)
{
    return (vd){s.a + __builtin_convertvector(x.a, d4), s.b + __builtin_convertvector(x.b, d4),
                s.c + __builtin_convertvector(x.c, d4), s.d + __builtin_convertvector(x.d, d4)};
}
LANES double vd_across(vd s)
{
    d4 q = (s.a + s.c) + (s.b + s.d);
    return (q[0] + q[2]) + (q[1] + q[3]);
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

typedef struct { u4 a, b, c, d; } vh; /* an element in the low half of each lane */

LANES u4 load_h4(const uint16_t *p)
{
    h4 h;
    memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, u4);
}
LANES void store_h4(uint16_t *p, u4 x)
{
    const h4 h = __builtin_convertvector(x, h4);
    memcpy(p, &h, sizeof h);
}
LANES vh vh_load(const uint16_t *p)
{
    return (vh){load_h4(p), load_h4(p + 4), load_h4(p + 8), load_h4(p + 12)};
}
LANES void vh_store(uint16_t *p, vh h)
{
    store_h4(p, h.a);
    store_h4(p + 4, h.b);
    store_h4(p + 8, h.c);
    store_h4(p + 12, h.d);
}
LANES vh vh_load_n(const uint16_t *p, int n)
{
    uint16_t t[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        t[i] = i < n ? p[i] : 0;
    return vh_load(t);
}
LANES void vh_store_n(uint16_t *p, int n, vh h)
{
    uint16_t t[BLOCK];
    vh_store(t, h);
    for (int i = 0; i < n; i++)
        p[i] = t[i];
}

LANES vf vload_uppers(const uint16_t *p)
{
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}

LANES f4 widen_bf16_4(u4 h) { return (f4)(h << 16); }
LANES u4 narrow_bf16_4(f4 x)
{
    const u4 bits = (u4)x;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
/* The exponent is 112 too low until the product, which is exact for subnormals too. */
LANES f4 widen_f16_4(u4 h)
{
    const u4 magnitude = (h & 0x7fff) << 13, special = (u4)(magnitude >= 0x7c00u << 13);
    const u4 finite = (u4)((f4)magnitude * 0x1p112f);
    return (f4)(finite | (special & 0x7f800000) | (h & 0x8000) << 16);
}
LANES u4 narrow_f16_4(f4 x)
{
    const u4 bits = (u4)x, magnitude = bits & 0x7fffffff;
    const u4 normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    /* Subnormals are multiples of 2^-24, which is the last place of the sum. */
    const u4 subnormal = (u4)((f4)magnitude + 0.5f) - 0x3f000000;
    const u4 special = 0x7c00 | ((u4)nan4(x) & 0x0200);
    const u4 small = (u4)(magnitude < 0x38800000), large = (u4)(magnitude >= 0x47800000);
    const u4 h = (small & subnormal) | (large & special) | (~(small | large) & normal);
    return h | (bits >> 16 & 0x8000);
}
LANES vf widen_bf16(vh h) { return (vf)EACH1(widen_bf16_4, h); }
LANES vh narrow_bf16(vf x) { return (vh)EACH1(narrow_bf16_4, x); }
LANES vf widen_f16(vh h) { return (vf)EACH1(widen_f16_4, h); }
LANES vh narrow_f16(vf x) { return (vh)EACH1(narrow_f16_4, x); }
LANES vf vload_bf16(const uint16_t *p) { return widen_bf16(vh_load(p)); }
LANES vf vload_f16(const uint16_t *p) { return widen_f16(vh_load(p)); }

#undef EACH1
#undef EACH2
#undef EACH3

#endif
