/* SPDX-License-Identifier: MIT */
/* Sixteen lanes as two ymm registers (AVX2, FMA). */
#ifndef BALLAST_LANES_AVX2_H
#define BALLAST_LANES_AVX2_H

#include <immintrin.h>

#define BLOCKS_IN_FLIGHT 2
#define LEAST_ROW_TILE 0
#define MASK_REGISTERS 0
#define WIDEST_TILE 160
#define WIDEST_STREAMED_TILE 160
#define STREAMS 1
#define STREAMS_SIGMOIDS 0
#define NARROW_PAIRS 0
#define CPU_ROUNDS 0
#define LOADS_LINES 0
#define ROW_WIDTHS 0

typedef struct { __m256 a, b; } vf;
typedef struct { __m256 a, b; } vm;
typedef vf vp; /* the sign bits, all others 0 */
typedef struct { __m256d a, b, c, d; } vd;

#define INT(x) _mm256_castps_si256(x)
#define FLOAT(x) _mm256_castsi256_ps(x)
#define LOW_PAIRS(x, y)                                                                           \
    _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(x), _mm256_castps_pd(y)))
#define HIGH_PAIRS(x, y)                                                                          \
    _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(x), _mm256_castps_pd(y)))
#define EACH1(f, x) {f((x).a), f((x).b)}
#define EACH2(f, x, y) {f((x).a, (y).a), f((x).b, (y).b)}
#define EACH3(f, x, y, z) {f((x).a, (y).a, (z).a), f((x).b, (y).b, (z).b)}

LANES __m256i first8(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
LANES vm vmask_first(int n) { return (vm){FLOAT(first8(n)), FLOAT(first8(n - 8))}; }

LANES __m256i without8(int k)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_xor_si256(_mm256_cmpeq_epi32(lane, _mm256_set1_epi32(k)),
                            _mm256_set1_epi32(-1));
}
LANES vm vmask_without(int k) { return (vm){FLOAT(without8(k)), FLOAT(without8(k - 8))}; }

LANES vf vset1(float x)
{
    __m256 v = _mm256_set1_ps(x);
    return (vf){v, v};
}
/* One load for all blocks in flight: left alone, compilers make it a memory operand of every use, and
 * the loads of constants are then more than the load ports take beside two FMA a cycle. */
LANES vf vconstant(float x)
{
    __m256 v = _mm256_set1_ps(x);
    __asm__ volatile("" : "+x"(v));
    return (vf){v, v};
}
LANES vf vload_f32(const float *p) { return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
LANES vf vheld(vf a) { return a; }
LANES void vstore_f32(float *p, vf x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
LANES void vstore_stream_f32(float *p, vf x)
{
    _mm256_stream_ps(p, x.a);
    _mm256_stream_ps(p + 8, x.b);
}
LANES void vstream_fence(void) { _mm_sfence(); }
LANES void vprefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }
LANES void vprefetch_near(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
/* Where the CPU lacks it, it does nothing. Compilers have no intrinsic for it without an option of its own. */
LANES void vprefetch_write(void *p) { __asm__ volatile("prefetchw %0" : : "m"(*(char *)p)); }
LANES vf vload_n_f32(const float *p, int n, float fill)
{
    __m256i low = first8(n), high = first8(n - 8);
    __m256 f = _mm256_set1_ps(fill);
    return (vf){_mm256_blendv_ps(f, _mm256_maskload_ps(p, low), FLOAT(low)),
                _mm256_blendv_ps(f, _mm256_maskload_ps(p + 8, high), FLOAT(high))};
}
LANES void vstore_n_f32(float *p, int n, vf x)
{
    __m256 v = x.a; /* by powers of two: a masked store takes as long as fifteen whole ones */
    if (n & 8) {
        _mm256_storeu_ps(p, v);
        v = x.b;
        p += 8;
    }
    __m128 q = _mm256_castps256_ps128(v);
    if (n & 4) {
        _mm_storeu_ps(p, q);
        q = _mm256_extractf128_ps(v, 1);
        p += 4;
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)p, q);
        q = _mm_movehl_ps(q, q);
        p += 2;
    }
    if (n & 1)
        _mm_store_ss(p, q);
}
/* In each half, four rows of four become four columns; its own inverse. */
LANES void transpose4(__m256 *q)
{
    const __m256 a = _mm256_unpacklo_ps(q[0], q[1]), b = _mm256_unpackhi_ps(q[0], q[1]);
    const __m256 c = _mm256_unpacklo_ps(q[2], q[3]), d = _mm256_unpackhi_ps(q[2], q[3]);
    q[0] = LOW_PAIRS(a, c);
    q[1] = HIGH_PAIRS(a, c);
    q[2] = LOW_PAIRS(b, d);
    q[3] = HIGH_PAIRS(b, d);
}
/* The first n of four elements, n a constant; the others are 0. */
LANES __m128 load4(const float *p, const int n)
{
    if (n == 4)
        return _mm_loadu_ps(p);
    if (n == 1)
        return _mm_load_ss(p);
    const __m128 two = _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)p));
    return n == 2 ? two : _mm_insert_ps(two, _mm_load_ss(p + 2), 0x20);
}
LANES void store4(float *p, const int n, __m128 x)
{
    if (n == 4)
        _mm_storeu_ps(p, x);
    else if (n == 1)
        _mm_store_ss(p, x);
    else
        _mm_storel_epi64((__m128i *)p, _mm_castps_si128(x));
    if (n == 3)
        _mm_store_ss(p + 2, _mm_movehl_ps(x, x));
}
LANES void load8x4(const float *p, int64_t stride, const int n, __m256 *q)
{
    UNROLL for (int r = 0; r < 4; r++)
        q[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(load4(p + r * stride, n)),
                                    load4(p + (r + 4) * stride, n), 1);
    transpose4(q);
}
LANES void store8x4(float *p, int64_t stride, const int n, __m256 x, __m256 y, __m256 z, __m256 w)
{
    __m256 q[4] = {x, y, z, w};
    transpose4(q);
    UNROLL for (int r = 0; r < 4; r++) store4(p + r * stride, n, _mm256_castps256_ps128(q[r]));
    UNROLL for (int r = 0; r < 4; r++)
        store4(p + (r + 4) * stride, n, _mm256_extractf128_ps(q[r], 1));
}
LANES void vload_columns_f32(const float *p, int64_t stride, const int n, vf *x)
{
    __m256 a[4], b[4];
    load8x4(p, stride, n, a);
    load8x4(p + 8 * stride, stride, n, b);
    UNROLL for (int k = 0; k < 4; k++) x[k] = (vf){a[k], b[k]};
}
LANES void vstore_columns_f32(float *p, int64_t stride, const int n, const vf *x)
{
    store8x4(p, stride, n, x[0].a, x[1].a, x[2].a, x[3].a);
    store8x4(p + 8 * stride, stride, n, x[0].b, x[1].b, x[2].b, x[3].b);
}
/* Halves of eight 64-bit numbers, then their order: shuffles work within 128 bits. */
LANES __m256 load8_i64(const int64_t *p)
{
    const __m256 x = _mm256_loadu_ps((const float *)p), y = _mm256_loadu_ps((const float *)(p + 4));
    const __m256 low = _mm256_shuffle_ps(x, y, 0x88), high = _mm256_shuffle_ps(x, y, 0xdd);
    const __m256i fits = _mm256_cmpeq_epi32(INT(high), _mm256_setzero_si256());
    const __m256i all = _mm256_or_si256(INT(low), _mm256_xor_si256(fits, _mm256_set1_epi32(-1)));
    return FLOAT(_mm256_permute4x64_epi64(all, 0xd8));
}
LANES vf vload_i64(const int64_t *p) { return (vf){load8_i64(p), load8_i64(p + 8)}; }
LANES vp vload_positive_u8(const uint8_t *p)
{
    __m256i low = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    __m256i high = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)));
    __m256i zero = _mm256_setzero_si256();
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (vf){_mm256_and_ps(FLOAT(_mm256_sub_epi32(zero, low)), sign),
                _mm256_and_ps(FLOAT(_mm256_sub_epi32(zero, high)), sign)};
}

LANES vf vadd(vf x, vf y) { return (vf)EACH2(_mm256_add_ps, x, y); }
LANES vf vsub(vf x, vf y) { return (vf)EACH2(_mm256_sub_ps, x, y); }
LANES vf vmul(vf x, vf y) { return (vf)EACH2(_mm256_mul_ps, x, y); }
LANES vf vdiv(vf x, vf y) { return (vf)EACH2(_mm256_div_ps, x, y); }
LANES vf vsqrt(vf x) { return (vf)EACH1(_mm256_sqrt_ps, x); }
LANES vf vsqrt_fraction(vf x) { return vsqrt(x); }
LANES vf vmax(vf x, vf y) { return (vf)EACH2(_mm256_max_ps, x, y); }
LANES vf vmin(vf x, vf y) { return (vf)EACH2(_mm256_min_ps, x, y); }
LANES vf vfma(vf x, vf y, vf z) { return (vf)EACH3(_mm256_fmadd_ps, x, y, z); }
LANES vf vfnma(vf x, vf y, vf z) { return (vf)EACH3(_mm256_fnmadd_ps, x, y, z); }
LANES vf vfms(vf x, vf y, vf z) { return (vf)EACH3(_mm256_fmsub_ps, x, y, z); }
LANES vf vand(vf x, vf y) { return (vf)EACH2(_mm256_and_ps, x, y); }
LANES vf vor(vf x, vf y) { return (vf)EACH2(_mm256_or_ps, x, y); }
LANES vf vxor(vf x, vf y) { return (vf)EACH2(_mm256_xor_ps, x, y); }
LANES vf vabs(vf x) { return vand(x, vset1(float_of_bits(0x7fffffffu))); }
LANES vf vneg(vf x) { return vxor(x, vset1(-0.0f)); }
LANES vf vadd_bits(vf x, vf y)
{
    return (vf){FLOAT(_mm256_add_epi32(INT(x.a), INT(y.a))),
                FLOAT(_mm256_add_epi32(INT(x.b), INT(y.b)))};
}
LANES vf vsub_bits(vf x, vf y)
{
    return (vf){FLOAT(_mm256_sub_epi32(INT(x.a), INT(y.a))),
                FLOAT(_mm256_sub_epi32(INT(x.b), INT(y.b)))};
}
LANES vf vmax_bits(vf x, vf y)
{
    return (vf){FLOAT(_mm256_max_epi32(INT(x.a), INT(y.a))),
                FLOAT(_mm256_max_epi32(INT(x.b), INT(y.b)))};
}
LANES vf vfloat_of_bits(vf x)
{
    return (vf){_mm256_cvtepi32_ps(INT(x.a)), _mm256_cvtepi32_ps(INT(x.b))};
}
LANES vf vshl_bits(vf x, int k)
{
    return (vf){FLOAT(_mm256_slli_epi32(INT(x.a), k)), FLOAT(_mm256_slli_epi32(INT(x.b), k))};
}
LANES vf vsar_bits(vf x, int k)
{
    return (vf){FLOAT(_mm256_srai_epi32(INT(x.a), k)), FLOAT(_mm256_srai_epi32(INT(x.b), k))};
}

#define COMPARE(name, predicate)                                                                  \
    LANES vm name(vf x, vf y)                                                                     \
    {                                                                                             \
        return (vm){_mm256_cmp_ps(x.a, y.a, predicate), _mm256_cmp_ps(x.b, y.b, predicate)};      \
    }
COMPARE(vlt, _CMP_LT_OQ)
COMPARE(vle, _CMP_LE_OQ)
COMPARE(veq, _CMP_EQ_OQ)
COMPARE(unordered, _CMP_UNORD_Q)
#undef COMPARE
LANES vm vnan(vf x) { return unordered(x, x); }
LANES vm vmask_or(vm x, vm y) { return (vm)EACH2(_mm256_or_ps, x, y); }
LANES vf vselect(vm m, vf x, vf y) { return (vf)EACH3(_mm256_blendv_ps, y, x, m); }
LANES vf vkeep(vm m, vf x) { return (vf)EACH2(_mm256_and_ps, m, x); }
LANES vf vsign_select(vf s, vf x, vf y) { return (vf)EACH3(_mm256_blendv_ps, y, x, s); }
LANES unsigned mask_bits(vm m)
{
    return (unsigned)_mm256_movemask_ps(m.a) | (unsigned)_mm256_movemask_ps(m.b) << 8;
}
LANES int vany(vm m) { return !_mm256_testz_ps(_mm256_or_ps(m.a, m.b), _mm256_or_ps(m.a, m.b)); }
LANES int vfirst(vm m) { return __builtin_ctz(mask_bits(m) | 1u << BLOCK); }

LANES float vlane0(vf x) { return _mm256_cvtss_f32(x.a); }
LANES float vadd_across(vf x)
{
    __m256 o = _mm256_add_ps(x.a, x.b);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(o), _mm256_extractf128_ps(o, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
LANES float vmax_across(vf x)
{
    __m256 o = _mm256_max_ps(x.a, x.b);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(o), _mm256_extractf128_ps(o, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
LANES vd vd_zero(void)
{
    __m256d z = _mm256_setzero_pd();
    return (vd){z, z, z, z};
}
/* Four floats in memory, widened. From a register, widening crosses lanes, which on AMD takes a slot
 * of an FMA pipe; from memory it takes none. */
LANES __m256d widened(const float *p)
{
    __m256d d;
    __asm__("vcvtps2pd %1, %0" : "=x"(d) : "m"(*(const __m128 *)p));
    return d;
}
LANES vd vd_add(vd s, vf x)
{
    float t[BLOCK] __attribute__((aligned(32)));
    vstore_f32(t, x);
    return (vd){_mm256_add_pd(s.a, widened(t)), _mm256_add_pd(s.b, widened(t + 4)),
                _mm256_add_pd(s.c, widened(t + 8)), _mm256_add_pd(s.d, widened(t + 12))};
}
LANES vd vd_widen(vf x)
{
    return (vd){_mm256_cvtps_pd(_mm256_castps256_ps128(x.a)),
                _mm256_cvtps_pd(_mm256_extractf128_ps(x.a, 1)),
                _mm256_cvtps_pd(_mm256_castps256_ps128(x.b)),
                _mm256_cvtps_pd(_mm256_extractf128_ps(x.b, 1))};
}
LANES vd vd_plus(vd s, vd t)
{
    return (vd){_mm256_add_pd(s.a, t.a), _mm256_add_pd(s.b, t.b), _mm256_add_pd(s.c, t.c),
                _mm256_add_pd(s.d, t.d)};
}
LANES vd vd_times(vd s, vd t)
{
    return (vd){_mm256_mul_pd(s.a, t.a), _mm256_mul_pd(s.b, t.b), _mm256_mul_pd(s.c, t.c),
                _mm256_mul_pd(s.d, t.d)};
}
LANES vd vd_over(vd s, vd t)
{
    return (vd){_mm256_div_pd(s.a, t.a), _mm256_div_pd(s.b, t.b), _mm256_div_pd(s.c, t.c),
                _mm256_div_pd(s.d, t.d)};
}
LANES vd vd_set1(double x)
{
    const __m256d q = _mm256_set1_pd(x);
    return (vd){q, q, q, q};
}
LANES vd vd_load(const double *p)
{
    return (vd){_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4), _mm256_loadu_pd(p + 8),
                _mm256_loadu_pd(p + 12)};
}
LANES vd vd_load_f32(const float *p)
{
    return (vd){_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4)),
                _mm256_cvtps_pd(_mm_loadu_ps(p + 8)), _mm256_cvtps_pd(_mm_loadu_ps(p + 12))};
}
LANES __m256d normal4(__m256d x)
{
    const __m256d size = _mm256_andnot_pd(_mm256_set1_pd(-0.0), x);
    return _mm256_andnot_pd(_mm256_cmp_pd(size, _mm256_set1_pd(0x1p-126), _CMP_LT_OQ), x);
}
LANES vd vd_normal(vd s) { return (vd){normal4(s.a), normal4(s.b), normal4(s.c), normal4(s.d)}; }
LANES __m256 narrow8(__m256d x, __m256d y)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(x)), _mm256_cvtpd_ps(y), 1);
}
LANES vf vd_narrow(vd s) { return (vf){narrow8(s.a, s.b), narrow8(s.c, s.d)}; }
LANES void vd_store(double *p, vd s)
{
    _mm256_storeu_pd(p, s.a);
    _mm256_storeu_pd(p + 4, s.b);
    _mm256_storeu_pd(p + 8, s.c);
    _mm256_storeu_pd(p + 12, s.d);
}
LANES double vd_across(vd s)
{
    __m256d q = _mm256_add_pd(_mm256_add_pd(s.a, s.c), _mm256_add_pd(s.b, s.d));
    __m128d h = _mm_add_pd(_mm256_castpd256_pd128(q), _mm256_extractf128_pd(q, 1));
    return _mm_cvtsd_f64(_mm_add_sd(h, _mm_unpackhi_pd(h, h)));
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

typedef __m256i vh;

LANES vh vh_load(const uint16_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
LANES void vh_store(uint16_t *p, vh h) { _mm256_storeu_si256((__m256i *)p, h); }
/* Whole pairs, then the last element, which may be half of one. */
LANES vh vh_load_n(const uint16_t *p, int n)
{
    const __m256i lane = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m256i last = _mm256_cmpeq_epi16(lane, _mm256_set1_epi16((short)(n - 1)));
    const __m256i pairs = _mm256_maskload_epi32((const int *)p, first8(n >> 1));
    return _mm256_blendv_epi8(pairs, _mm256_set1_epi16((short)p[n - 1]), last);
}
/* In pieces: no store by mask has elements of 16 bits. */
LANES void vh_store_n(uint16_t *p, int n, vh h)
{
    __m128i v = _mm256_castsi256_si128(h);
    if (n & 8) {
        _mm_storeu_si128((__m128i *)p, v);
        v = _mm256_extracti128_si256(h, 1);
        p += 8;
    }
    if (n & 4) {
        _mm_storel_epi64((__m128i *)p, v);
        v = _mm_unpackhi_epi64(v, v);
        p += 4;
    }
    if (n & 2) {
        _mm_storeu_si32(p, v);
        v = _mm_srli_si128(v, 4);
        p += 2;
    }
    if (n & 1)
        *p = (uint16_t)_mm_extract_epi16(v, 0);
}

LANES vf vload_uppers(const uint16_t *p)
{
    return (vf){_mm256_loadu_ps((const void *)p), _mm256_loadu_ps((const void *)(p + 16))};
}

/* Elements 0 to 3, 8 to 11, 4 to 7 and 12 to 15, so that unpacking in lanes puts them in order. */
LANES vf widen_bf16(vh h)
{
    const __m256i zero = _mm256_setzero_si256(), quarters = _mm256_permute4x64_epi64(h, 0xd8);
    return (vf){FLOAT(_mm256_unpacklo_epi16(zero, quarters)),
                FLOAT(_mm256_unpackhi_epi16(zero, quarters))};
}
/* By halves, which are widened as they are loaded. */
LANES vf vload_bf16(const uint16_t *p)
{
    const __m128i low = _mm_loadu_si128((const __m128i *)p);
    const __m128i high = _mm_loadu_si128((const __m128i *)(p + 8));
    return (vf){FLOAT(_mm256_slli_epi32(_mm256_cvtepu16_epi32(low), 16)),
                FLOAT(_mm256_slli_epi32(_mm256_cvtepu16_epi32(high), 16))};
}
LANES vf vload_f16(const uint16_t *p)
{
    return (vf){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
LANES __m256i round8(__m256 x)
{
    const __m256i bits = INT(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
}
LANES vh narrow_bf16(vf x)
{
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(round8(x.a), round8(x.b)), 0xd8);
}
LANES vf widen_f16(vh h)
{
    return (vf){_mm256_cvtph_ps(_mm256_castsi256_si128(h)),
                _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1))};
}
LANES vh narrow_f16(vf x)
{
    return _mm256_setr_m128i(_mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT),
                             _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}

#undef INT
#undef FLOAT
#undef LOW_PAIRS
#undef HIGH_PAIRS
#undef EACH1
#undef EACH2
#undef EACH3

#endif
