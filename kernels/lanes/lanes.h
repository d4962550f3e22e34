/* SPDX-License-Identifier: MIT */
/* The sixteen-lane machine: the one vocabulary in which every kernel is written.
 *
 * A kernel sees a machine whose register (`vf`, a block) holds 16 f32 lanes. Each ISA header builds
 * that register from what its hardware has: one zmm, two ymm, four NEON registers, four plain vectors.
 * No kernel can learn the hardware's width, so the order of every sum is spelled in lanes, and equal
 * inputs give equal bits on every ISA. This file is the contract; the ISA headers carry no prose.
 *
 * Contract
 *   - An operation is correctly rounded (to nearest, ties to even), or exact, or a bit operation.
 *     No reciprocal estimate, no horizontal-add instruction, no contraction: vfma is the only fused
 *     operation and is always fused.
 *   - Subnormals are honoured in and out. A NaN result is some NaN: which one may differ between
 *     ISAs, so kernels replace NaN results before they store them (vcanonical).
 *   - vmax(a, b) is a > b ? a : b, vmin(a, b) is a < b ? a : b, lane by lane: the second operand
 *     where either is NaN or both are zeros. Pass new data first and the running value second, and
 *     a NaN never enters the running value.
 *   - Comparisons are false on NaN, except vnan, which is true exactly there.
 *   - Lane order is memory order. _across folds halves: lane i takes lane i + 8, then i + 4, i + 2,
 *     i + 1, with vadd or vmax (lane i first).
 *   - vload_n and vstore_n touch the first n elements (1 <= n <= 15, or 16 if MASK_REGISTERS) and nothing
 *     beyond them.
 *   - Loads and stores name their storage type; kernels use vload, vstore of kernels/storage.h.
 *     bf16 and f16 are uint16_t. They are widened exactly (NaN to some NaN), and narrowed to nearest
 *     even, subnormals included, beyond the largest finite to infinity; NaN to 0x7fc0 and 0x7e00.
 *
 * The words ("m" is a mask, "p" sixteen targets, "w" powers of two, "d" sixteen double lanes)
 *   vf   vload_f32(p)   vload_n_f32(p, n, fill)       vset1(x)
 *   vf   vload_bf16(p)  vload_n_bf16(p, n, fill)      vload_f16(p)  vload_n_f16(p, n, fill)
 *   vf   vheld(a) = a                 in a register, for two uses of what was loaded: compilers load it for each
 *   vf   vconstant(x)                 vset1 for a constant of a hot loop that several blocks share
 *   void vstore_f32(p, v)   vstore_n_f32(p, n, v)
 *   void vstore_bf16(p, v)  vstore_n_bf16(p, n, v)    vstore_f16(p, v)  vstore_n_f16(p, n, v)
 *   void vstore_numbers_bf16(p, v)  vstore_numbers_f16(p, v)    the same where no lane is NaN
 *   void vload_pair_bf16(p, v)  vload_pair_f16(p, v)            v[0] and v[1] are the blocks at p and p + BLOCK
 *   void vstore_pair_bf16(p, a, b)  vstore_pair_f16(p, a, b)    the inverse, where no lane is NaN
 *   void vstore_pair_by_cpu_bf16(p, a, b)       the same of zeros and normal numbers, on CPUs that have AVX512_BF16
 *   vf   vload_uppers(p)              lane j has p[2 j] for its lower 16 bits and p[2 j + 1] for its upper ones
 *   vf   vuppers_bf16(a)  vuppers_f16(a)        the upper 16 bits of each lane, widened
 *   vn   vn_none()  vn_max(n, p)      running maxima of 2 BLOCK elements of 16 bits from p + WORDS_FROM on
 *   vf   vn_uppers(n, v)              the maximum of v and of those in the upper halves of lanes
 *   void vstore_stream_f32(p, v)      past the caches, p on a 64-byte line; vstream_fence() ends them
 *   void vprefetch(p)                 p will be read; it may be no address at all
 *   void vprefetch_near(p)            the same, and soon: into L1
 *   void vprefetch_write(p)           p will be written; likewise
 *   void vload_columns_f32(p, stride, n, c)    c[k] lane j = p[j stride + k] for k < n: n columns of
 *   void vstore_columns_f32(p, stride, n, c)   sixteen rows, n a constant from 1 to 4, and the inverse;
 *                                              c has four blocks
 *   void vload_rows_f32(p, n, c)      c[k] lane j = p[j n + k] for k < n: sixteen rows that follow each
 *   void vstore_rows_f32(p, n, c)     other, n a constant up to 15, odd or twice odd, and the inverse
 *   vf   vload_i64(p)                 p[i] as i32 lanes; -1 where it is not in [0, 2^32)
 *   vf   vadd vsub vmul vdiv (a, b)   vsqrt(a)   vmax vmin (a, b)   vabs(a)   vneg(a)
 *   vf   vfma(a, b, c) = a b + c      vfnma(a, b, c) = c - a b      vfms(a, b, c) = a b - c
 *   vf   vsqrt_fraction(a)            vsqrt for a of 0 or in [2^-100, 1], or NaN
 *   vf   vand vor vxor (a, b)         bits
 *   vf   vshl_bits(a, k) vsar_bits(a, k)   lanes as i32, shifted by the constant k
 *   vf   vadd_bits vsub_bits (a, b)   lanes as i32, wrapping      vmax_bits(a, b)   the larger of two
 *   vf   vfloat_of_bits(a)            i32 lanes converted to f32, exactly for |i| <= 2^24
 *   m    vlt vle veq (a, b)   vnan(a)
 *   vf   vselect(m, a, b) = m ? a : b     vkeep(m, a) = m ? a : +0
 *   vf   vsign_select(s, a, b)        a where the sign bit of s is set, else b
 *   vf   vsign_times(s, a, b, zero)   a b + zero where the sign bit of s is set, else a + zero; where that is
 *                                     +0 and not -0, a is not -0, unless vpositive_opposite made it
 *   vf   vpower_clamp(floor, a)       vmax(floor, a) where vpower() needs it, else a
 *   w    vpower(t, m)                 2^m / (2 POWER_UNIT(2^n)), and 0 for m <= n - 126: the integer m is
 *                                     t - (1.5 * 2^23 + 126 - n), of vpower_clamp() with (n - 126) ln 2
 *   vf   vpower_times(w, a) = a w     where that is normal, or w is 0 and a finite, or a and t are NaN
 *   vf   vpower_times_where(m, w, a)  the same where m is set, else 0, whatever a is
 *   p    vload_positive_u8(p)         set where p[i] != 0
 *   p    vpositive(m)
 *   vf   vpositive_select(t, a, b) = t ? a : b      vpositive_neg(t, a) = t ? -a : a
 *   vf   vpositive_opposite(t, a, b) = t ? b : a, where b is -a; what is 0 has either sign
 *   m    vmask_or(m, m)   vmask_first(n)   the first n lanes, 0 <= n <= 16
 *   m    vmask_without(k)             all lanes but lane k; all where k is not in [0, 16)
 *   int  vany(m)   vfirst(m)          the lowest lane set; 16 for none
 *   f32  vmax_across(v)   vadd_across(v)   vlane0(v)
 *   d    vd_zero()   vd_add(d, v)     each lane widened, then added in double
 *   d    vd_widen(v)   vd_plus vd_times vd_over (d, d): + * /   vd_set1(x)
 *   d    vd_load(p)   vd_load_f32(p)   void vd_store(double *p, d)
 *   d    vd_normal(d)                 0 where |d| < 2^-126, else d
 *   vf   vd_narrow(d)                 rounded to f32
 *   f64  vd_across(d)
 *   vf   vmax_across_rows(p)          lane j is vmax_across() of the block at p + BLOCK j
 *   s    vs_zero()                    sixteen double lanes in the ISA's own order; what they sum is 0, or
 *                                     normal and in (0, 2^100), or NaN
 *   s    vs_load(p)                   the block of f32 at p; the float after it may be read, too
 *   s    vs_load_sum(p, q)            the sum of the blocks of f32 at p and q, rounded to f32
 *   s    vs_plus(s, s)                vs_add(s, p, q) = vs_plus(s, vs_load_sum(p, q))
 *   d    vs_widen(s)                  in the order of lanes; at least 2^128, or NaN, where one was added
 *   f64  vs_across(s)                 as vd_across; NaN where one was added
 *   void vs_store_folded(double *p, s)     lanes l + 8 added to lanes l: eight doubles, in the ISA's own order
 *   d    vs_across_rows(p)            lane j is vd_across() of what vs_store_folded() left at p + 8 j; at least
 *                                     2^128, or NaN, where one was added
 *
 * Constants of an ISA, all of them speed only; accumulators belong to the definition of an operation:
 *   BLOCKS_IN_FLIGHT        1, 2 or 4: how many blocks its registers carry through a polynomial side by side
 *   MASK_REGISTERS          0 or 1: any operation can be masked, and targets are masks
 *   LEAST_ROW_TILE          from so many classes on, short rows that leave scaled stay rows (kernels/row_tile.h);
 *                           0: never
 *   WIDEST_TILE             up to so many classes rows go sixteen at once by default,
 *   WIDEST_STREAMED_TILE    and where outputs are streamed
 *   ROW_WIDTHS              bit n: vload_rows_f32 and vstore_rows_f32 of n are faster than columns
 *   NARROW_PAIRS            0 or 1: the ISA has words of its own for pairs of blocks of 16 bits
 *   CPU_ROUNDS              0 or 1: some of its CPUs have what vstore_pair_by_cpu_bf16() takes
 *   LOADS_LINES             0 or 1: a block is one load, so that rows are read by lines, and fetched into L1
 *                           where the CPU wants it: where a block is more, that takes longer than it gains
 *   STREAMS                 0 or 1: outputs may go past the caches; in scalar, arithmetic takes ten times as long
 *                           as memory, and the code of it would be a tenth of the library
 *   STREAMS_SIGMOIDS        0 or 1: those of losses of sigmoids, too, if the CPU wants it
 *
 * An ISA header may use an instruction of its own wherever its result is exactly the one above;
 * tests/lanes.c proves every word of every ISA, lane by lane, against the scalar definition. */
#ifndef BALLAST_LANES_H
#define BALLAST_LANES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#error "Ballast needs float arithmetic in float (FLT_EVAL_METHOD 0): on 32-bit x86, -msse2 -mfpmath=sse"
#endif
#if defined(__FAST_MATH__) || defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "Ballast's kernels cannot be built with -ffast-math"
#endif

/* Everything here is static inline: a function that the linker shares could be one compiled for an
 * ISA that the machine lacks. */
#define LANES static inline __attribute__((always_inline))

/* For what is long and done once a row or chunk at most: inlined into every pass, it would be a quarter of the
 * library. */
#define LANES_SELDOM static __attribute__((noinline, unused))

/* Before it: not even a copy for each constant argument, as gcc makes them. clang makes none. */
#ifdef __clang__
#define LANES_ONE_COPY
#else
#define LANES_ONE_COPY __attribute__((noclone))
#endif

/* For functions of many words. In scalar a word is up to a hundred instructions, and a call costs
 * little beside them; inlined, a kernel would take the compiler minutes. */
#ifdef BALLAST_ISA_scalar
#define LANES_LARGE static __attribute__((noinline, unused))
#else
#define LANES_LARGE LANES
#endif

enum { BLOCK = 16 };

#ifdef __clang__
#define UNROLL_ALWAYS _Pragma("clang loop unroll(full)")
#else
#define UNROLL_ALWAYS _Pragma("GCC unroll 16")
#endif

/* Scalar words are long as they are: unrolled, kernels took 0.97 of the time and a third more code. */
#ifdef BALLAST_ISA_scalar
#define UNROLL
#else
#define UNROLL UNROLL_ALWAYS
#endif

/* p, of which compilers know nothing: what is loaded from there is loaded anew each time, and takes no
 * register in between. */
LANES const float *anew(const float *p)
{
    __asm__ volatile("" : "+r"(p));
    return p;
}

LANES float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

LANES uint32_t bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

#define LANE_INFINITY float_of_bits(0x7f800000u)
#define LANE_NAN float_of_bits(0x7fc00000u)

#if defined(BALLAST_ISA_scalar)
#include "scalar.h"
#define ISA_SUFFIX _scalar
#elif defined(BALLAST_ISA_avx2)
#include "avx2.h"
#define ISA_SUFFIX _avx2
#elif defined(BALLAST_ISA_avx512)
#include "avx512.h"
#define ISA_SUFFIX _avx512
#elif defined(BALLAST_ISA_neon)
#include "neon.h"
#define ISA_SUFFIX _neon
#else
#error "compile kernel files with -DBALLAST_ISA_<name>"
#endif

/* For a pass of many streams, which needs all registers. */
#ifndef LANES_PASS
#define LANES_PASS static __attribute__((noinline))
#endif

/* Every NaN becomes the one that Ballast stores. */
LANES vf vcanonical(vf a)
{
    return vselect(vnan(a), vset1(LANE_NAN), a);
}

LANES vs vs_add(vs s, const float *p, const float *q) { return vs_plus(s, vs_load_sum(p, q)); }

#if !MASK_REGISTERS /* targets are signs, and what is not wanted is clamped */
LANES vf vsign_times(vf s, vf x, vf y, vf zero)
{
    return vfma(vsign_select(s, y, vset1(1.0f)), x, zero);
}
#define POWER_UNIT(unit) (unit)
LANES vf vpower_clamp(vf floor, vf x) { return vmax(floor, x); }
typedef vf vw;
LANES vw vpower(vf t, vf m) { return (void)m, vshl_bits(t, 23); }
LANES vf vpower_times(vw w, vf x) { return vmul(x, w); }
LANES vf vpower_times_where(vm m, vw w, vf x) { return vkeep(m, vmul(x, w)); }
LANES vp vpositive(vm m) { return vkeep(m, vset1(-0.0f)); }
LANES vf vpositive_select(vp t, vf x, vf y) { return vsign_select(t, x, y); }
LANES vf vpositive_neg(vp t, vf x) { return vxor(x, t); }
LANES vf vpositive_opposite(vp t, vf x, vf y) { return (void)y, vxor(x, t); }
#endif

#if !LEAST_ROW_TILE /* no shuffles that would fold sixteen rows together: one after the other */
LANES vf vmax_across_rows(const float *p)
{
    float max[BLOCK];
    for (int j = 0; j < BLOCK; j++)
        max[j] = vmax_across(vload_f32(p + j * BLOCK));
    return vload_f32(max);
}
LANES void vs_store_folded(double *p, vs s)
{
    double lane[BLOCK];
    vd_store(lane, vs_widen(s));
    for (int l = 0; l < BLOCK / 2; l++)
        p[l] = lane[l] + lane[l + BLOCK / 2];
}
LANES vd vs_across_rows(const double *p)
{
    double lane[BLOCK] = {0.0}, sum[BLOCK];
    for (int j = 0; j < BLOCK; j++) {
        memcpy(lane, p + j * BLOCK / 2, sizeof lane / 2);
        sum[j] = vd_across(vd_load(lane));
    }
    return vd_load(sum);
}
#endif

#if !ROW_WIDTHS /* column by column */
LANES void vload_rows_f32(const float *p, const int n, vf *column)
{
    vf one[4];
    UNROLL for (int k = 0; k < n; k++)
    {
        vload_columns_f32(p + k, n, 1, one);
        column[k] = one[0];
    }
}
LANES void vstore_rows_f32(float *p, const int n, const vf *column)
{
    UNROLL for (int k = 0; k < n; k++)
    {
        const vf one[4] = {column[k], column[k], column[k], column[k]};
        vstore_columns_f32(p + k, n, 1, one);
    }
}
#endif

/* What an ISA header gives for 16-bit storage: sixteen elements in a `vh`, widened and narrowed. */
#define DEFINE_HALF_WORDS(type)                                                                   \
    LANES vf vload_n_##type(const uint16_t *p, int n, float fill)                                 \
    {                                                                                             \
        return vselect(vmask_first(n), widen_##type(vh_load_n(p, n)), vset1(fill));               \
    }                                                                                             \
    LANES void vstore_##type(uint16_t *p, vf v) { vh_store(p, narrow_##type(vcanonical(v))); }    \
    LANES void vstore_numbers_##type(uint16_t *p, vf v) { vh_store(p, narrow_##type(v)); }        \
    LANES void vstore_n_##type(uint16_t *p, int n, vf v)                                          \
    {                                                                                             \
        vh_store_n(p, n, narrow_##type(vcanonical(v)));                                           \
    }
DEFINE_HALF_WORDS(bf16)
DEFINE_HALF_WORDS(f16)
#undef DEFINE_HALF_WORDS

enum { WORDS_FROM = !NARROW_PAIRS };

#if !NARROW_PAIRS /* one block after the other */
#define DEFINE_PAIR_WORDS(type, load)                                                             \
    LANES void vload_pair_##type(const uint16_t *p, vf *v)                                        \
    {                                                                                             \
        v[0] = load(p);                                                                           \
        v[1] = load(p + BLOCK);                                                                   \
    }                                                                                             \
    LANES void vstore_pair_##type(uint16_t *p, vf a, vf b)                                        \
    {                                                                                             \
        vstore_numbers_##type(p, a);                                                              \
        vstore_numbers_##type(p + BLOCK, b);                                                      \
    }
/* Beside polynomials, whole registers are unpacked faster than halves are widened as they are loaded. */
LANES vf unpack_bf16(const uint16_t *p) { return widen_bf16(vh_load(p)); }
DEFINE_PAIR_WORDS(bf16, unpack_bf16)
DEFINE_PAIR_WORDS(f16, vload_f16)
#undef DEFINE_PAIR_WORDS
/* Of sixteen bits the larger of two has the larger upper half as f32, too, whatever the lower one is: of
 * both types, for the sign comes first, then the exponent. So pairs need not be parted to find the maximum. */
typedef vf vn;
LANES vn vn_none(void) { return vset1(-LANE_INFINITY); }
LANES vn vn_max(vn n, const uint16_t *p) { return vmax(vload_uppers(p + 1), vmax(vload_uppers(p), n)); }
LANES vf vn_uppers(vn n, vf v) { return vmax(n, v); }
LANES void vstore_pair_by_cpu_bf16(uint16_t *p, vf a, vf b) { vstore_pair_bf16(p, a, b); }
LANES vf vuppers_bf16(vf x) { return vand(x, vset1(float_of_bits(0xffff0000u))); }
LANES vf vuppers_f16(vf x)
{
    float pairs[BLOCK];
    uint16_t upper[BLOCK];
    vstore_f32(pairs, x);
    for (int i = 0; i < BLOCK; i++)
        upper[i] = (uint16_t)(bits_of_float(pairs[i]) >> 16);
    return vload_f16(upper);
}
#endif

#endif
