/* SPDX-License-Identifier: MIT */
/* Sixteen lanes as one zmm register (AVX-512 F, BW, DQ, VL). */
#ifndef BALLAST_LANES_AVX512_H
#define BALLAST_LANES_AVX512_H

#include <immintrin.h>

#define BLOCKS_IN_FLIGHT 4
#define LEAST_ROW_TILE 40
#define MASK_REGISTERS 1
#define WIDEST_TILE 255
#define WIDEST_STREAMED_TILE 160
#define STREAMS 1
#define STREAMS_SIGMOIDS 1
#define NARROW_PAIRS 1
#define CPU_ROUNDS 1
#define LOADS_LINES 1
#define ROW_WIDTHS 0xeeec /* odd or twice odd, up to 15 */

/* Tuned for any CPU, gcc keeps addresses in vector registers, and orders instructions otherwise: on Zen 5, passes
 * of row tiles took 1.05 to 1.13 of the time. */
#ifndef __clang__
#define LANES_PASS static __attribute__((noinline, target("tune=skylake-avx512")))
#endif

typedef __m512 vf;
typedef __mmask16 vm;
typedef __mmask16 vp;
typedef struct { __m512d a, b; } vd;

#define INT(x) _mm512_castps_si512(x)
#define FLOAT(x) _mm512_castsi512_ps(x)
#define LOW_PAIRS(x, y)                                                                           \
    _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)))
#define HIGH_PAIRS(x, y)                                                                          \
    _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)))

LANES vm vmask_first(int n) { return (vm)_bzhi_u32(0xffff, (unsigned)n); }
LANES vm vmask_without(int k) { return (vm)~((unsigned)((unsigned)k < BLOCK) << (k & 15)); }

LANES vf vset1(float x) { return _mm512_set1_ps(x); }
LANES vf vconstant(float x) { return vset1(x); }
LANES vf vload_f32(const float *p) { return _mm512_loadu_ps(p); }
/* Of parts of two lines, two loads wait for stores twice: on Zen 5, past the caches, rows of 8142 took 1.15. */
LANES vf vheld(vf a)
{
    __asm__("" : "+v"(a));
    return a;
}
LANES void vstore_f32(float *p, vf x) { _mm512_storeu_ps(p, x); }
LANES void vstore_stream_f32(float *p, vf x) { _mm512_stream_ps(p, x); }
LANES void vstream_fence(void) { _mm_sfence(); }
LANES void vprefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }
LANES void vprefetch_near(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
/* Where the CPU lacks it, it does nothing. Compilers have no intrinsic for it without an option of its own. */
LANES void vprefetch_write(void *p) { __asm__ volatile("prefetchw %0" : : "m"(*(char *)p)); }
LANES vf vload_n_f32(const float *p, int n, float fill)
{
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), vmask_first(n), p);
}
LANES void vstore_n_f32(float *p, int n, vf x) { _mm512_mask_storeu_ps(p, vmask_first(n), x); }
/* In each quarter, four rows of four become four columns; its own inverse. */
LANES void transpose4(const vf *x, vf *y)
{
    const vf a = _mm512_unpacklo_ps(x[0], x[1]), b = _mm512_unpackhi_ps(x[0], x[1]);
    const vf c = _mm512_unpacklo_ps(x[2], x[3]), d = _mm512_unpackhi_ps(x[2], x[3]);
    y[0] = LOW_PAIRS(a, c);
    y[1] = HIGH_PAIRS(a, c);
    y[2] = LOW_PAIRS(b, d);
    y[3] = HIGH_PAIRS(b, d);
}
/* Rows r, r + 4, r + 8, r + 12 in one register, so that columns come out in the order of rows. The
 * masked broadcasts are loads: no shuffle. */
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
LANES void vload_columns_f32(const float *p, int64_t stride, const int n, vf *x)
{
    vf q[4];
    UNROLL for (int r = 0; r < 4; r++, p += stride) {
        q[r] = _mm512_castps128_ps512(load4(p, n));
        q[r] = _mm512_mask_broadcast_f32x4(q[r], 0x00f0, load4(p + 4 * stride, n));
        q[r] = _mm512_mask_broadcast_f32x4(q[r], 0x0f00, load4(p + 8 * stride, n));
        q[r] = _mm512_mask_broadcast_f32x4(q[r], 0xf000, load4(p + 12 * stride, n));
    }
    transpose4(q, x);
}
LANES void vstore_columns_f32(float *p, int64_t stride, const int n, const vf *x)
{
    vf q[4];
    transpose4(x, q);
    UNROLL for (int r = 0; r < 4; r++, p += stride) {
        store4(p, n, _mm512_castps512_ps128(q[r]));
        store4(p + 4 * stride, n, _mm512_extractf32x4_ps(q[r], 1));
        store4(p + 8 * stride, n, _mm512_extractf32x4_ps(q[r], 2));
        store4(p + 12 * stride, n, _mm512_extractf32x4_ps(q[r], 3));
    }
}

/* Sixteen rows of n = w m elements, w a power of two and m odd, that follow each other are n blocks: w runs
 * of L = 16 / w rows, m blocks each, whose lanes are cells of w elements. Cell p of row r is cell m r + p
 * of its run. As m is odd, p has another lane in each of L rows, so that blends bring it into one block:
 * lane l of block k is cell L k + l, and is moved g blocks on, where L g = l modulo m. Then block q has
 * the cells p = L q modulo m. Each bit of g is a step. */
LANES int inverse_modulo(const int m, const int power_of_two)
{
    int inverse = 1 % m;
    UNROLL for (int k = power_of_two; k > 1; k /= 2) inverse = inverse * ((m + 1) / 2) % m;
    return inverse;
}
LANES void move_lanes(vf *x, const int m, const int w, const int back)
{
    const int unit = inverse_modulo(m, BLOCK / w);
    UNROLL for (int step = 1; step < m; step *= 2)
    {
        vf y[BLOCK];
        unsigned moved = 0;
        UNROLL for (int i = 0; i < BLOCK; i++)
            moved |= (unsigned)((i / w * unit % m & step) != 0) << i;
        UNROLL for (int q = 0; q < m; q++) y[q] = x[q];
        UNROLL for (int q = 0; q < m; q++)
            x[q] = _mm512_mask_blend_ps((vm)moved, y[q], y[(q + (back ? step : m - step)) % m]);
    }
}
#define SIXTEEN(f, ...)                                                                           \
    _mm512_setr_epi32(f(0, __VA_ARGS__), f(1, __VA_ARGS__), f(2, __VA_ARGS__), f(3, __VA_ARGS__), \
                      f(4, __VA_ARGS__), f(5, __VA_ARGS__), f(6, __VA_ARGS__), f(7, __VA_ARGS__), \
                      f(8, __VA_ARGS__), f(9, __VA_ARGS__), f(10, __VA_ARGS__),                   \
                      f(11, __VA_ARGS__), f(12, __VA_ARGS__), f(13, __VA_ARGS__),                 \
                      f(14, __VA_ARGS__), f(15, __VA_ARGS__))
/* Where element o of cell p of row j is in its run, or in the two runs that there are. */
#define PLACE_OF_ROW(j, m, w, p, o)                                                               \
    ((w) * (((m) * ((j) % (BLOCK / (w))) + (p)) % (BLOCK / (w))) + (o) + (j) / (BLOCK / (w)) * BLOCK)
/* The row of which cell p is at element i of run h; 16 more where that is the cell's second element. m
 * times (2 - m m) m is 1 modulo 16. */
#define ROW_AT_PLACE(i, m, w, p, h)                                                               \
    ((((i) / (w) + BLOCK - (p)) * ((2 + 256 - (m) * (m)) * (m)) % (BLOCK / (w))) +                \
     (h) * (BLOCK / (w)) + (i) % (w) * BLOCK)
LANES void vload_rows_f32(const float *x, const int n, vf *column)
{
    const int w = n & -n, m = n / w;
    vf a[BLOCK], b[BLOCK];
    UNROLL for (int q = 0; q < m; q++) a[q] = vload_f32(x + q * BLOCK);
    move_lanes(a, m, w, 0);
    if (w == 2) {
        UNROLL for (int q = 0; q < m; q++) b[q] = vload_f32(x + (m + q) * BLOCK);
        move_lanes(b, m, w, 0);
    }
    UNROLL for (int q = 0; q < m; q++)
    {
        const int p = BLOCK / w * q % m;
        if (w == 1)
            column[p] = _mm512_permutexvar_ps(SIXTEEN(PLACE_OF_ROW, m, 1, p, 0), a[q]);
        else {
            column[2 * p] = _mm512_permutex2var_ps(a[q], SIXTEEN(PLACE_OF_ROW, m, 2, p, 0), b[q]);
            column[2 * p + 1] = _mm512_permutex2var_ps(a[q], SIXTEEN(PLACE_OF_ROW, m, 2, p, 1), b[q]);
        }
    }
}
LANES void vstore_rows_f32(float *out, const int n, const vf *column)
{
    const int w = n & -n, m = n / w;
    UNROLL for (int h = 0; h < w; h++)
    {
        vf a[BLOCK];
        UNROLL for (int q = 0; q < m; q++)
        {
            const int p = BLOCK / w * q % m;
            if (w == 1)
                a[q] = _mm512_permutexvar_ps(SIXTEEN(ROW_AT_PLACE, m, 1, p, 0), column[p]);
            else
                a[q] = _mm512_permutex2var_ps(column[2 * p], SIXTEEN(ROW_AT_PLACE, m, 2, p, h),
                                              column[2 * p + 1]);
        }
        move_lanes(a, m, w, 1);
        UNROLL for (int q = 0; q < m; q++) vstore_f32(out + (h * m + q) * BLOCK, a[q]);
    }
}
LANES vf vload_i64(const int64_t *p)
{
    const __m256i x = _mm512_cvtusepi64_epi32(_mm512_loadu_si512(p));
    const __m256i y = _mm512_cvtusepi64_epi32(_mm512_loadu_si512(p + 8));
    return FLOAT(_mm512_inserti64x4(_mm512_castsi256_si512(x), y, 1));
}
LANES vp vload_positive_u8(const uint8_t *p)
{
    const __m128i v = _mm_loadu_si128((const __m128i *)p);
    return _mm_test_epi8_mask(v, v);
}
LANES vp vpositive(vm m) { return m; }

LANES vf vadd(vf x, vf y) { return _mm512_add_ps(x, y); }
LANES vf vsub(vf x, vf y) { return _mm512_sub_ps(x, y); }
LANES vf vmul(vf x, vf y) { return _mm512_mul_ps(x, y); }
LANES vf vdiv(vf x, vf y) { return _mm512_div_ps(x, y); }
LANES vf vsqrt(vf x) { return _mm512_sqrt_ps(x); }
LANES vf vmax(vf x, vf y) { return _mm512_max_ps(x, y); }
LANES vf vmin(vf x, vf y) { return _mm512_min_ps(x, y); }
LANES vf vfma(vf x, vf y, vf z) { return _mm512_fmadd_ps(x, y, z); }
LANES vf vfnma(vf x, vf y, vf z) { return _mm512_fnmadd_ps(x, y, z); }
LANES vf vfms(vf x, vf y, vf z) { return _mm512_fmsub_ps(x, y, z); }
/* Beside the divider, which roots would keep busy: from y, within 2^-14 of 1 / sqrt(x), g to sqrt(x) and
 * h to 1 / (2 sqrt(x)), each by one step of Newton's, then g corrected by its exact remainder. That this
 * rounds correctly is known by trial of all x in [1/4, 1), for any such y, whatever a CPU estimates
 * (tests/lanes.c); a factor of 4 in x changes exponents only. */
LANES vf root_by_estimate(vf x, vf y)
{
    const vf half = vset1(0.5f);
    const vf g = vmul(x, y), h = vmul(y, half), r = vfnma(g, h, half);
    const vf g2 = vfma(g, r, g), h2 = vfma(h, r, h);
    return vfma(vfnma(g2, g2, x), h2, g2);
}
/* For 0 the estimate is infinite, and bounded; a NaN passes the minimum. */
LANES vf vsqrt_fraction(vf x)
{
    return root_by_estimate(x, vmin(vset1(0x1p60f), _mm512_rsqrt14_ps(x)));
}
LANES vf vand(vf x, vf y) { return _mm512_and_ps(x, y); }
LANES vf vor(vf x, vf y) { return _mm512_or_ps(x, y); }
LANES vf vxor(vf x, vf y) { return _mm512_xor_ps(x, y); }
LANES vf vabs(vf x) { return vand(x, vset1(float_of_bits(0x7fffffffu))); }
LANES vf vneg(vf x) { return vxor(x, vset1(-0.0f)); }
LANES vf vadd_bits(vf x, vf y) { return FLOAT(_mm512_add_epi32(INT(x), INT(y))); }
LANES vf vsub_bits(vf x, vf y) { return FLOAT(_mm512_sub_epi32(INT(x), INT(y))); }
LANES vf vmax_bits(vf x, vf y) { return FLOAT(_mm512_max_epi32(INT(x), INT(y))); }
LANES vf vfloat_of_bits(vf x) { return _mm512_cvtepi32_ps(INT(x)); }
LANES vf vshl_bits(vf x, int k) { return FLOAT(_mm512_slli_epi32(INT(x), (unsigned)k)); }
LANES vf vsar_bits(vf x, int k) { return FLOAT(_mm512_srai_epi32(INT(x), (unsigned)k)); }

LANES vm vlt(vf x, vf y) { return _mm512_cmp_ps_mask(x, y, _CMP_LT_OQ); }
LANES vm vle(vf x, vf y) { return _mm512_cmp_ps_mask(x, y, _CMP_LE_OQ); }
LANES vm veq(vf x, vf y) { return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ); }
LANES vm vnan(vf x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
LANES vm vmask_or(vm x, vm y) { return _kor_mask16(x, y); }
LANES vf vselect(vm m, vf x, vf y) { return _mm512_mask_blend_ps(m, y, x); }
LANES vf vkeep(vm m, vf x) { return _mm512_maskz_mov_ps(m, x); }
/* One mask serves all selections by a sign, and becomes that of the operation selected. vpmovd2m would
 * take two places of the ports, vptestmd takes one. */
LANES vf vsign_select(vf s, vf x, vf y)
{
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(INT(s), INT(vset1(-0.0f))), y, x);
}
LANES vf vsign_times(vf s, vf x, vf y, vf zero)
{
    return _mm512_mask_fmadd_ps(x, _mm512_test_epi32_mask(INT(s), INT(vset1(-0.0f))), y, zero);
}
LANES vf vpositive_select(vp t, vf x, vf y) { return _mm512_mask_blend_ps(t, y, x); }
LANES vf vpositive_opposite(vp t, vf x, vf y) { return vpositive_select(t, y, x); }
LANES vf vpositive_neg(vp t, vf x) { return _mm512_mask_xor_ps(x, t, x, vset1(-0.0f)); }
LANES int vany(vm m) { return !_kortestz_mask16_u8(m, m); }
LANES int vfirst(vm m) { return __builtin_ctz(m | 1u << BLOCK); }

LANES float vlane0(vf x) { return _mm512_cvtss_f32(x); }
/* Without a clamp: what it would clamp is masked off. */
#define POWER_UNIT(unit) ((void)(unit), 0.5f)
LANES vf vpower_clamp(vf floor, vf x) { return (void)floor, x; }
typedef struct { vf m; vm kept; } vw;
LANES vw vpower(vf t, vf m) { return (vw){m, _mm512_cmp_ps_mask(t, vset1(0x1.8p23f), _CMP_NLE_UQ)}; }
LANES vf vpower_times(vw w, vf x) { return _mm512_maskz_scalef_ps(w.kept, x, w.m); }
LANES vf vpower_times_where(vm m, vw w, vf x) { return _mm512_maskz_scalef_ps(w.kept & m, x, w.m); }

LANES float vadd_across(vf x)
{
    __m256 o = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(o), _mm256_extractf128_ps(o, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
LANES float vmax_across(vf x)
{
    __m256 o = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(o), _mm256_extractf128_ps(o, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
LANES vd vd_zero(void) { return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
LANES vd vd_add(vd s, vf x)
{
    return (vd){_mm512_add_pd(s.a, _mm512_cvtps_pd(_mm512_castps512_ps256(x))),
                _mm512_add_pd(s.b, _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)))};
}
LANES vd vd_widen(vf x)
{
    return (vd){_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
                _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))};
}
LANES vd vd_plus(vd s, vd t) { return (vd){_mm512_add_pd(s.a, t.a), _mm512_add_pd(s.b, t.b)}; }
LANES vd vd_times(vd s, vd t) { return (vd){_mm512_mul_pd(s.a, t.a), _mm512_mul_pd(s.b, t.b)}; }
LANES vd vd_over(vd s, vd t) { return (vd){_mm512_div_pd(s.a, t.a), _mm512_div_pd(s.b, t.b)}; }
LANES vd vd_set1(double x) { return (vd){_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
LANES vd vd_load(const double *p) { return (vd){_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)}; }
LANES vd vd_load_f32(const float *p)
{
    return (vd){_mm512_cvtps_pd(_mm256_loadu_ps(p)), _mm512_cvtps_pd(_mm256_loadu_ps(p + 8))};
}
LANES __m512d normal8(__m512d x)
{
    const __mmask8 kept = _mm512_cmp_pd_mask(_mm512_abs_pd(x), _mm512_set1_pd(0x1p-126), _CMP_NLT_UQ);
    return _mm512_maskz_mov_pd(kept, x);
}
LANES vd vd_normal(vd s) { return (vd){normal8(s.a), normal8(s.b)}; }
LANES vf vd_narrow(vd s)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(s.a)), _mm512_cvtpd_ps(s.b), 1);
}
LANES void vd_store(double *p, vd s)
{
    _mm512_storeu_pd(p, s.a);
    _mm512_storeu_pd(p + 8, s.b);
}
LANES double vd_across(vd s)
{
    __m512d o = _mm512_add_pd(s.a, s.b);
    __m256d q = _mm256_add_pd(_mm512_castpd512_pd256(o), _mm512_extractf64x4_pd(o, 1));
    __m128d h = _mm_add_pd(_mm256_castpd256_pd128(q), _mm256_extractf128_pd(q, 1));
    return _mm_cvtsd_f64(_mm_add_sd(h, _mm_unpackhi_pd(h, h)));
}
/* Odd elements in a, even ones in b: vcvtps2pd takes two places, one of them on port 5. Shifted so
 * that 29 bits of 0 follow it, a float has its fields where those of a double are, and is worth 2^-896
 * of what it was, in which unit sums are kept; a NaN has become a number of at least 2^128 then. A
 * product of the low halves shifts them and drops the high ones. */
typedef vd vs;
LANES vs vs_zero(void) { return vd_zero(); }
LANES vs vs_plus(vs s, vs t) { return vd_plus(s, t); }
LANES vs vs_load(const float *p)
{
    const __m512i shift = _mm512_set1_epi64(1 << 29);
    return (vs){_mm512_castsi512_pd(_mm512_mul_epu32(_mm512_loadu_si512(p + 1), shift)),
                _mm512_castsi512_pd(_mm512_mul_epu32(_mm512_loadu_si512(p), shift))};
}
LANES vs vs_load_sum(const float *p, const float *q)
{
    const vf x = vload_f32(p), y = vload_f32(q);
    const __m512i odd = _mm512_srli_epi64(INT(_mm512_maskz_add_ps(0xaaaa, x, y)), 3);
    const __m512i even = _mm512_slli_epi64(INT(_mm512_maskz_add_ps(0x5555, x, y)), 29);
    return (vs){_mm512_castsi512_pd(odd), _mm512_castsi512_pd(even)};
}
LANES vd vs_widen(vs s)
{
    const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    const __m512i high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    const vd all = vd_times(s, vd_set1(0x1p896));
    return (vd){_mm512_permutex2var_pd(all.b, low, all.a), _mm512_permutex2var_pd(all.b, high, all.a)};
}
LANES __m128d across4(__m512d x)
{
    const __m256d q = _mm256_add_pd(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd(x, 1));
    const __m128d h = _mm_add_pd(_mm256_castpd256_pd128(q), _mm256_extractf128_pd(q, 1));
    return _mm_add_sd(h, _mm_unpackhi_pd(h, h));
}
LANES double vs_across(vs s)
{
    const double sum = _mm_cvtsd_f64(_mm_add_sd(across4(s.b), across4(s.a))) * 0x1p896;
    return sum < 0x1p127 ? sum : (double)LANE_NAN;
}

/* A step of the fold for two registers at once: their first halves against their second. */
LANES vf vmax_across_rows(const float *p)
{
    vf q[4], h[2];
    UNROLL for (int r = 0; r < 4; r++)
    {
        const vf a = vload_f32(p + 16 * r), b = vload_f32(p + 16 * (r + 4));
        const vf c = vload_f32(p + 16 * (r + 8)), d = vload_f32(p + 16 * (r + 12));
        const vf ab = vmax(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
        const vf cd = vmax(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
        q[r] = vmax(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    }
    UNROLL for (int r = 0; r < 2; r++)
        h[r] = vmax(_mm512_shuffle_ps(q[2 * r], q[2 * r + 1], 0x44),
                    _mm512_shuffle_ps(q[2 * r], q[2 * r + 1], 0xee));
    return vmax(_mm512_shuffle_ps(h[0], h[1], 0x88), _mm512_shuffle_ps(h[0], h[1], 0xdd));
}
/* Odd lanes come first, even ones last: these two halves are added in the end. */
LANES void vs_store_folded(double *p, vs s)
{
    _mm512_storeu_pd(p, _mm512_add_pd(_mm512_shuffle_f64x2(s.a, s.b, 0x44),
                                      _mm512_shuffle_f64x2(s.a, s.b, 0xee)));
}
LANES __m512d across8(const double *p)
{
    __m512d h[2];
    UNROLL for (int r = 0; r < 2; r++, p += 32)
    {
        const __m512d a = _mm512_loadu_pd(p), b = _mm512_loadu_pd(p + 8);
        const __m512d c = _mm512_loadu_pd(p + 16), d = _mm512_loadu_pd(p + 24);
        const __m512d ac = _mm512_add_pd(_mm512_shuffle_f64x2(a, c, 0x88), _mm512_shuffle_f64x2(a, c, 0xdd));
        const __m512d bd = _mm512_add_pd(_mm512_shuffle_f64x2(b, d, 0x88), _mm512_shuffle_f64x2(b, d, 0xdd));
        h[r] = _mm512_add_pd(_mm512_unpacklo_pd(ac, bd), _mm512_unpackhi_pd(ac, bd));
    }
    return _mm512_add_pd(_mm512_shuffle_f64x2(h[0], h[1], 0x88), _mm512_shuffle_f64x2(h[0], h[1], 0xdd));
}
LANES vd vs_across_rows(const double *p)
{
    return vd_times((vd){across8(p), across8(p + 64)}, vd_set1(0x1p896));
}

/* ---- 16-bit storage --------------------------------------------------------------------------- */

typedef __m256i vh;

LANES vh vh_load(const uint16_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
LANES void vh_store(uint16_t *p, vh h) { _mm256_storeu_si256((__m256i *)p, h); }
LANES vh vh_load_n(const uint16_t *p, int n) { return _mm256_maskz_loadu_epi16(vmask_first(n), p); }
LANES void vh_store_n(uint16_t *p, int n, vh h) { _mm256_mask_storeu_epi16(p, vmask_first(n), h); }

LANES vf widen_bf16(vh h) { return FLOAT(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
/* Not vcvtneps2bf16: it takes subnormals for 0. Two operations round and two pack; shifts and vpmovdw would
 * take seven, four of them on one port each. */
LANES vh narrow_bf16(vf x)
{
    const __m512i upper = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 29, 27, 25,
                                           23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    const __m512i bits = INT(x), up = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
    const __m512i rounded = _mm512_mask_sub_epi32(up, odd, up, _mm512_set1_epi32(-1));
    return _mm512_castsi512_si256(_mm512_permutexvar_epi16(upper, rounded));
}
LANES vf widen_f16(vh h) { return _mm512_cvtph_ps(h); }
LANES vh narrow_f16(vf x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
LANES vf vload_bf16(const uint16_t *p) { return widen_bf16(vh_load(p)); }
LANES vf vload_f16(const uint16_t *p) { return widen_f16(vh_load(p)); }
LANES void vload_pair_bf16(const uint16_t *p, vf *v)
{
    const __m512i halves = _mm512_set_epi16(15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9, 8, 8,
                                            7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    const __m512i others = _mm512_add_epi16(halves, _mm512_set1_epi16(16));
    const __mmask32 upper = 0xaaaaaaaau;
    const __m512i x = INT(vheld(FLOAT(_mm512_loadu_si512(p))));
    v[0] = FLOAT(_mm512_maskz_permutexvar_epi16(upper, halves, x));
    v[1] = FLOAT(_mm512_maskz_permutexvar_epi16(upper, others, x));
}
/* Five operations for two blocks: upper halves and lower halves apart, all the rest is of 32 words. Rounded
 * up is from 0x8000 on where the upper half is odd, from 0x8001 on where it is even. */
LANES __m512i narrow_pair_bf16(vf x, vf y)
{
    const __m512i first = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32,
                                           30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(1)), one = _mm512_set1_epi16(1);
    const __m512i lower = _mm512_permutex2var_epi16(INT(x), first, INT(y));
    const __m512i upper = _mm512_permutex2var_epi16(INT(x), second, INT(y));
    const __m512i least = _mm512_or_si512(_mm512_andnot_si512(upper, one), _mm512_set1_epi16(-0x8000));
    return _mm512_mask_sub_epi16(upper, _mm512_cmpge_epu16_mask(lower, least), upper,
                                 _mm512_set1_epi16(-1));
}
LANES void vstore_pair_bf16(uint16_t *p, vf x, vf y) { _mm512_storeu_si512(p, narrow_pair_bf16(x, y)); }
/* One operation for two blocks, which takes subnormals for 0. Its intrinsic is one of another level of the ISA. */
LANES void vstore_pair_by_cpu_bf16(uint16_t *p, vf x, vf y)
{
    vf both;
    __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(x), "v"(y));
    _mm512_storeu_ps(p, both);
}
LANES void vload_pair_f16(const uint16_t *p, vf *v)
{
    v[0] = vload_f16(p);
    v[1] = vload_f16(p + 16);
}
/* One store: vcvtps2ph to memory takes two cycles on Zen 5, whatever is beside it. */
LANES void vstore_pair_f16(uint16_t *p, vf x, vf y)
{
    const __m512i low = _mm512_castsi256_si512(narrow_f16(x));
    _mm512_storeu_si512(p, _mm512_inserti64x4(low, narrow_f16(y), 1));
}
LANES vf vload_uppers(const uint16_t *p) { return _mm512_loadu_ps(p); }
/* Of numbers of 16 bits of one sign the bits order them, so that two operations and one load do for two blocks: the
 * largest of signed words is the maximum where one is positive, else the least of unsigned ones is. */
typedef struct { __m512i signed_max, unsigned_min; } vn;
LANES vn vn_none(void) { return (vn){_mm512_set1_epi16(-0x8000), _mm512_set1_epi16(-1)}; }
LANES vn vn_max(vn n, const uint16_t *p)
{
    const __m512i x = INT(vheld(FLOAT(_mm512_loadu_si512(p))));
    return (vn){_mm512_max_epi16(n.signed_max, x), _mm512_min_epu16(n.unsigned_min, x)};
}
/* What would be a NaN as f32 is made infinity: the row is special, and no other maximum of the lane is left. */
LANES vf vn_uppers(vn n, vf v)
{
    const __m512i all = _mm512_mask_mov_epi16(n.signed_max, _mm512_movepi16_mask(n.signed_max), n.unsigned_min);
    const __m512i numbers = _mm512_min_epi16(all, _mm512_set1_epi16(0x7f80));
    const vf uppers = FLOAT(_mm512_and_si512(numbers, _mm512_set1_epi32(-0x10000)));
    return vmax(FLOAT(_mm512_slli_epi32(numbers, 16)), vmax(uppers, v));
}
LANES vf vuppers_bf16(vf x) { return vand(x, vset1(float_of_bits(0xffff0000u))); }
LANES vf vuppers_f16(vf x)
{
    return widen_f16(_mm512_cvtepi32_epi16(_mm512_srli_epi32(INT(x), 16)));
}

#undef LOW_PAIRS
#undef HIGH_PAIRS
#undef INT
#undef FLOAT

#endif
