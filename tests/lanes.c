/* SPDX-License-Identifier: MIT */
/* Every word of the sixteen-lane vocabulary against a definition of one lane in plain C. Compiled
 * once for each ISA, with its flags, -DBALLAST_ISA_<isa> and -ffp-contract=off; started by
 * lanes_main.c.
 *
 * Inputs: all pairs of special values in every lane, all triples of the decisive ones for the fused
 * words, and random bits. A NaN result of arithmetic need only be a NaN; words that move or choose
 * lanes keep every bit. With -DLANES_PLAIN no cmocka is needed (emulators, cross compilers). */
#define _DEFAULT_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#ifndef LANES_PLAIN
#include <cmocka.h>
#endif

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kernels/lanes/lanes.h"

_Static_assert(BLOCKS_IN_FLIGHT == 1 || BLOCKS_IN_FLIGHT == 2 || BLOCKS_IN_FLIGHT == 4,
               "blocks in flight");

#if defined(BALLAST_ISA_scalar)
#define ISA "scalar"
#elif defined(BALLAST_ISA_avx2)
#define ISA "avx2"
#elif defined(BALLAST_ISA_avx512)
#define ISA "avx512"
#elif defined(BALLAST_ISA_neon)
#define ISA "neon"
#endif

int lanes_test(void);

enum { RANDOM_BLOCKS = 20000, MOST_PRINTED = 20 };
static const uint64_t SEED = 20190616;

static int failures, failures_before; /* of this test, of those before it */

static int failed(void)
{
    return ++failures <= MOST_PRINTED;
}

static int verdict(void)
{
    const int n = failures;

    failures_before += n;
    failures = 0;
    return n;
}

#ifdef LANES_PLAIN
#define VERDICT() (void)verdict()
#else
#define VERDICT() assert_int_equal(verdict(), 0)
#endif

static uint32_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

static int next_below(uint64_t *state, uint32_t limit)
{
    return (int)(next_random(state) % limit);
}

static int is_nan(uint32_t bits)
{
    return (bits & 0x7fffffffu) > 0x7f800000u;
}

/* ---- Values ---- */

static const uint32_t decisive[] = {
    0x00000000, 0x80000000, 0x00000001, 0x80000001, /* zeros, least subnormal */
    0x007fffff, 0x807fffff, 0x00800000, 0x80800000, /* around the least normal */
    0x00800001, 0x3f800000, 0xbf800000, 0x3f800001, /* 1 and its neighbours */
    0x3f7fffff, 0x3f800800, 0xbf800800, 0x39800000, /* 1 + 2^-12: its square is a tie; 2^-12 */
    0x33800000, 0x33000000, 0xb3000000, 0x1a000000, /* 2^-24, 2^-25; squared 2^-150, half a step */
    0x1a000001, 0x99ffffff, 0x7f7fffff, 0xff7fffff, /* ... and beside it; greatest finite */
    0x73000000, 0x7f000000, 0x7f800000, 0xff800000, /* 2^103, half its last place; infinities */
    0x7fc00000, 0xff800001                          /* quiet and signalling NaN */
};

static const uint32_t special[] = {
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x00000002, 0x00000003, 0x00400000, 0x80400001,
    0x007fffff, 0x807fffff, 0x00800000, 0x80800000, 0x00800001, 0x80800001, 0x00ffffff, 0x01000000,
    0x01000001, 0x01800000, 0x1a000000, 0x99ffffff, 0x20000000, 0x33000000, 0x33800000, 0xb3800000,
    0x33800001, 0x34000000, 0x39800000, 0x3eaaaaab, 0x3f000000, 0xbf000000, 0x3f000001, 0x3f7fffff,
    0xbf7fffff, 0x3f800000, 0xbf800000, 0x3f800001, 0xbf800001, 0x3f800800, 0x3fc00000, 0x40000000,
    0xc0000000, 0x40400000, 0x40490fdb, 0x40800000, 0x42b17218, 0xc2aeac50, 0x4b000000, 0x4b000001,
    0x4b400000, 0x4b7fffff, 0x4b800000, 0xcb800000, 0x4b800001, 0x5f000000, 0x5f800000, 0x7e800000,
    0x7f000000, 0x7f7ffffe, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000,
    0x7fffffff, 0xffffffff, 0x7f800001, 0xff800001, 0x7fbfffff, 0xffbfffff, 0xff000000, 0x7fc12345
};

enum {
    SPECIALS = sizeof special / sizeof *special,
    DECISIVES = sizeof decisive / sizeof *decisive
};

static uint32_t around(uint64_t *state, int least, int most) /* exponents */
{
    const uint32_t exponent = (uint32_t)(127 + least + next_below(state, (uint32_t)(most - least)));

    return (next_random(state) & 0x807fffffu) | exponent << 23;
}

/* Operands whose result is near a rounding decision more often than random bits are. */
static void random_lane(uint64_t *state, uint32_t *x, uint32_t *y, uint32_t *z)
{
    float product;

    *x = next_random(state);
    *y = next_random(state);
    *z = next_random(state);
    switch (next_below(state, 6)) {
    case 0: /* any bits */
        return;
    case 1: /* nearly equal */
        *y = *x + (uint32_t)(next_below(state, 9) - 4);
        *z = *y + (uint32_t)(next_below(state, 9) - 4);
        return;
    case 2: /* of similar size */
        *x = around(state, -26, 26);
        *y = around(state, -26, 26);
        *z = around(state, -30, 30);
        return;
    case 3: /* x y about -z or z */
        *x = around(state, -60, 60);
        *y = around(state, -60, 60);
        product = float_of_bits(*x) * float_of_bits(*y);
        *z = bits_of_float(product) + (uint32_t)(next_below(state, 5) - 2);
        *z ^= next_random(state) & 0x80000000u;
        return;
    case 4: /* few digits: ties */
        *x = around(state, -12, 13) & 0xfffff000u;
        *y = around(state, -12, 13) & 0xfffff000u;
        *z = around(state, -40, 40) & 0xff800000u;
        return;
    default: /* x y, x / y and z about the least normal */
        *x = around(state, -76, -60);
        *y = around(state, -76, -60);
        *z &= 0x80ffffffu;
        if (next_below(state, 2))
            *x = (*x & 0x80ffffffu), *y = around(state, -2, 30);
    }
}

/* ---- Words of lanes ---- */

enum {
    ANY_NAN = 1,  /* a NaN result may be any NaN */
    TRIPLES = 2,  /* three operands that matter together */
    INTEGERS = 4  /* the first operand is an integer up to 2^24 in magnitude */
};

typedef struct {
    const char *name;
    void (*run)(const float *x, const float *y, const float *z, float *result);
    uint32_t (*want)(uint32_t x, uint32_t y, uint32_t z);
    int how;
} word;

/* `block` is written with the blocks x, y, z; `lane` with one lane of each: x, y, z are its bits,
 * a, b, c the floats. */
#define WORD(id, block, lane)                                                                     \
    static void run_##id(const float *px, const float *py, const float *pz, float *result)        \
    {                                                                                             \
        const vf x = vload_f32(px), y = vload_f32(py), z = vload_f32(pz);                         \
        (void)x, (void)y, (void)z;                                                                \
        vstore_f32(result, block);                                                                \
    }                                                                                             \
    static uint32_t want_##id(uint32_t x, uint32_t y, uint32_t z)                                 \
    {                                                                                             \
        const float a = float_of_bits(x), b = float_of_bits(y), c = float_of_bits(z);             \
        (void)a, (void)b, (void)c;                                                                \
        return lane;                                                                              \
    }

static uint32_t arithmetic_shift(uint32_t x, int k)
{
    const uint32_t sign = x >> 31 ? ~(uint32_t)0 : 0;

    return k ? x >> k | sign << (32 - k) : x;
}

static int32_t integer_of(uint32_t x)
{
    int32_t i;

    memcpy(&i, &x, sizeof i);
    return i;
}

#define MASK(m) vselect(m, vset1(float_of_bits(0xffffffffu)), vset1(0))

WORD(load_store, x, x)
WORD(vheld, vheld(x), x)
WORD(vadd, vadd(x, y), bits_of_float(a + b))
WORD(vsub, vsub(x, y), bits_of_float(a - b))
WORD(vmul, vmul(x, y), bits_of_float(a * b))
WORD(vdiv, vdiv(x, y), bits_of_float(a / b))
WORD(vsqrt, vsqrt(x), bits_of_float(sqrtf(a)))
WORD(vmax, vmax(x, y), a > b ? x : y)
WORD(vmin, vmin(x, y), a < b ? x : y)
WORD(vabs, vabs(x), x & 0x7fffffffu)
WORD(vneg, vneg(x), x ^ 0x80000000u)
WORD(vfma, vfma(x, y, z), bits_of_float(fmaf(a, b, c)))
WORD(vfnma, vfnma(x, y, z), bits_of_float(fmaf(-a, b, c)))
WORD(vfms, vfms(x, y, z), bits_of_float(fmaf(a, b, -c)))
WORD(vand, vand(x, y), x & y)
WORD(vor, vor(x, y), x | y)
WORD(vxor, vxor(x, y), x ^ y)
WORD(vshl_bits_0, vshl_bits(x, 0), x)
WORD(vshl_bits_1, vshl_bits(x, 1), x << 1)
WORD(vshl_bits_23, vshl_bits(x, 23), x << 23)
WORD(vshl_bits_31, vshl_bits(x, 31), x << 31)
WORD(vsar_bits_0, vsar_bits(x, 0), x)
WORD(vsar_bits_1, vsar_bits(x, 1), arithmetic_shift(x, 1))
WORD(vsar_bits_23, vsar_bits(x, 23), arithmetic_shift(x, 23))
WORD(vsar_bits_31, vsar_bits(x, 31), arithmetic_shift(x, 31))
WORD(vadd_bits, vadd_bits(x, y), x + y)
WORD(vsub_bits, vsub_bits(x, y), x - y)
WORD(vmax_bits, vmax_bits(x, y), integer_of(x) > integer_of(y) ? x : y)
WORD(vfloat_of_bits, vfloat_of_bits(x), bits_of_float((float)integer_of(x)))
WORD(vlt, MASK(vlt(x, y)), a < b ? ~(uint32_t)0 : 0)
WORD(vle, MASK(vle(x, y)), a <= b ? ~(uint32_t)0 : 0)
WORD(veq, MASK(veq(x, y)), a == b ? ~(uint32_t)0 : 0)
WORD(vnan, MASK(vnan(x)), is_nan(x) ? ~(uint32_t)0 : 0)
WORD(vmask_or, MASK(vmask_or(vlt(x, y), vnan(z))), a < b || is_nan(z) ? ~(uint32_t)0 : 0)
WORD(vselect, vselect(vlt(x, y), z, x), a < b ? z : x)
WORD(vkeep, vkeep(vle(x, y), z), a <= b ? z : 0)
WORD(vsign_select, vsign_select(x, y, z), x >> 31 ? y : z)
WORD(vsign_times, vsign_times(x, vadd(y, vset1(0.0f)), z, vset1(0.0f)),
     bits_of_float(x >> 31 ? fmaf(b, c, 0.0f) : b + 0.0f))
WORD(vsign_times_exactly, vsign_times(x, y, z, vset1(-0.0f)), bits_of_float(x >> 31 ? b * c : b))
WORD(vpositive_select, vpositive_select(vpositive(vlt(x, y)), z, x), a < b ? z : x)
WORD(vpositive_neg, vpositive_neg(vpositive(vlt(x, y)), z), a < b ? z ^ 0x80000000u : z)
WORD(vpositive_opposite, vpositive_opposite(vpositive(vlt(x, y)), z, vneg(z)), a < b ? z ^ 0x80000000u : z)
/* An exponent up to 1, as exponentials find it, and what it multiplies: from 2 to 4, NaN as the exponent;
 * anything where the product is not wanted. */
static vf power_times(vf x, vf y, vf z)
{
    const vf bias = vset1(0x1.8p23f + 126.0f), nan = vadd(x, x);
    const vf exponent = vselect(vlt(vset1(1.0f), x), vneg(x), x);
    const vf t = vadd(bias, vpower_clamp(vset1(-126.0f), exponent));
    const vf significand = vor(vand(y, vset1(float_of_bits(0x7fffffu))), vset1(2.0f));
    const vf p = vselect(vnan(x), nan, vmul(vset1(POWER_UNIT(1.0f)), significand));
    const vw power = vpower(t, vsub(t, bias));
    const vm wanted = vmask_or(vle(y, z), vnan(x));

    return vpower_times_where(wanted, power, vselect(wanted, p, y));
}
static float want_of_power(float a, uint32_t y, int kept)
{
    const float m = rintf(a > 1.0f ? -a : a);

    if (m != m)
        return m;
    return m > -126.0f && kept ? ldexpf(float_of_bits((y & 0x7fffffu) | 0x40000000u), (int)m - 1) : 0.0f;
}
WORD(vpower_times_where, power_times(x, y, z), bits_of_float(want_of_power(a, y, b <= c)))
WORD(vcanonical, vcanonical(x), is_nan(x) ? 0x7fc00000u : x)

#define ROW(id, how) {#id, run_##id, want_##id, how}
static const word words[] = {
    ROW(load_store, 0),
    ROW(vheld, 0),
    ROW(vadd, ANY_NAN),
    ROW(vsub, ANY_NAN),
    ROW(vmul, ANY_NAN),
    ROW(vdiv, ANY_NAN),
    ROW(vsqrt, ANY_NAN),
    ROW(vmax, 0),
    ROW(vmin, 0),
    ROW(vabs, 0),
    ROW(vneg, 0),
    ROW(vfma, ANY_NAN | TRIPLES),
    ROW(vfnma, ANY_NAN | TRIPLES),
    ROW(vfms, ANY_NAN | TRIPLES),
    ROW(vand, 0),
    ROW(vor, 0),
    ROW(vxor, 0),
    ROW(vshl_bits_0, 0),
    ROW(vshl_bits_1, 0),
    ROW(vshl_bits_23, 0),
    ROW(vshl_bits_31, 0),
    ROW(vsar_bits_0, 0),
    ROW(vsar_bits_1, 0),
    ROW(vsar_bits_23, 0),
    ROW(vsar_bits_31, 0),
    ROW(vadd_bits, 0),
    ROW(vsub_bits, 0),
    ROW(vmax_bits, 0),
    ROW(vfloat_of_bits, INTEGERS),
    ROW(vlt, 0),
    ROW(vle, 0),
    ROW(veq, 0),
    ROW(vnan, 0),
    ROW(vmask_or, TRIPLES),
    ROW(vselect, TRIPLES),
    ROW(vkeep, TRIPLES),
    ROW(vsign_select, TRIPLES),
    ROW(vsign_times, ANY_NAN | TRIPLES),
    ROW(vsign_times_exactly, ANY_NAN | TRIPLES),
    ROW(vpositive_select, TRIPLES),
    ROW(vpositive_neg, TRIPLES),
    ROW(vpositive_opposite, TRIPLES),
    ROW(vpower_times_where, ANY_NAN | TRIPLES),
    ROW(vcanonical, 0),
};
enum { WORDS = sizeof words / sizeof *words };

/* From -2^24 to 2^24. */
static uint32_t small_integer(uint32_t x)
{
    return x % 0x2000001u - 0x1000000u;
}

static void check_block(const word *w, uint32_t x[BLOCK], uint32_t y[BLOCK], uint32_t z[BLOCK])
{
    float fx[BLOCK], fy[BLOCK], fz[BLOCK], result[BLOCK];
    uint32_t got[BLOCK];
    int i;

    if (w->how & INTEGERS)
        for (i = 0; i < BLOCK; i++)
            x[i] = small_integer(x[i]);
    memcpy(fx, x, sizeof fx);
    memcpy(fy, y, sizeof fy);
    memcpy(fz, z, sizeof fz);
    w->run(fx, fy, fz, result);
    memcpy(got, result, sizeof got);
    for (i = 0; i < BLOCK; i++) {
        const uint32_t want = w->want(x[i], y[i], z[i]);

        if (got[i] == want || ((w->how & ANY_NAN) && is_nan(got[i]) && is_nan(want)))
            continue;
        if (failed())
            printf("lanes %s: %s lane %d of (0x%08" PRIx32 ", 0x%08" PRIx32 ", 0x%08" PRIx32
                   "): got 0x%08" PRIx32 ", wanted 0x%08" PRIx32 "\n",
                   ISA, w->name, i, x[i], y[i], z[i], got[i], want);
    }
}

/* Tuple t of the list, base `count`; each lane sees every tuple, beside others each time. */
static void check_tuples(const word *w, const uint32_t *values, int count, int operands)
{
    int tuples = count, start, turn, i;

    for (i = 1; i < operands; i++)
        tuples *= count;
    for (turn = 0; turn < BLOCK; turn++) {
        for (start = 0; start < tuples; start += BLOCK) {
            uint32_t x[BLOCK], y[BLOCK], z[BLOCK];

            for (i = 0; i < BLOCK; i++) {
                const int t = (start + (i + turn) % BLOCK) % tuples;

                x[i] = values[t % count];
                y[i] = values[t / count % count];
                z[i] = values[operands > 2 ? t / count / count : (t * 7 + turn) % count];
            }
            check_block(w, x, y, z);
        }
    }
}

static void test_special_values(void **unused)
{
    int i;

    (void)unused;
    for (i = 0; i < WORDS; i++) {
        check_tuples(&words[i], special, SPECIALS, 2);
        if (words[i].how & TRIPLES)
            check_tuples(&words[i], decisive, DECISIVES, 3);
    }
    for (i = 0; i < SPECIALS; i++) {
        float result[BLOCK];
        int lane;

        vstore_f32(result, vset1(float_of_bits(special[i])));
        for (lane = 0; lane < BLOCK; lane++)
            if (bits_of_float(result[lane]) != special[i] && failed())
                printf("lanes %s: vset1 lane %d of 0x%08" PRIx32 ": got 0x%08" PRIx32 "\n", ISA,
                       lane, special[i], bits_of_float(result[lane]));
        vstore_f32(result, vconstant(float_of_bits(special[i])));
        for (lane = 0; lane < BLOCK; lane++)
            if (bits_of_float(result[lane]) != special[i] && failed())
                printf("lanes %s: vconstant lane %d of 0x%08" PRIx32 ": got 0x%08" PRIx32 "\n", ISA,
                       lane, special[i], bits_of_float(result[lane]));
    }
    VERDICT();
}

static void test_random_values(void **unused)
{
    int i, k, lane;

    (void)unused;
    printf("# lanes %s: random values from seed %" PRIu64 "\n", ISA, SEED);
    for (i = 0; i < WORDS; i++) {
        uint64_t state = SEED + (uint64_t)i;

        for (k = 0; k < RANDOM_BLOCKS; k++) {
            uint32_t x[BLOCK], y[BLOCK], z[BLOCK];

            for (lane = 0; lane < BLOCK; lane++)
                random_lane(&state, &x[lane], &y[lane], &z[lane]);
            check_block(&words[i], x, y, z);
        }
    }
    VERDICT();
}

/* Single roundings that a second rounding, in double or at the subnormal boundary, would spoil. The
 * results are worked out by hand, so that no fmaf has to be believed. */
static void test_fused_rounding(void **unused)
{
    static const struct {
        uint32_t x, y, z, want;
    } known[] = {
        /* (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24, a tie: z decides, however small */
        {0x3f800800, 0x3f800800, 0x00000000, 0x3f801000},
        {0x3f800800, 0x3f800800, 0x00000001, 0x3f801001},
        {0x3f800800, 0x3f800800, 0x80000001, 0x3f801000},
        {0xbf800800, 0x3f800800, 0x80000001, 0xbf801001},
        {0xbf800800, 0x3f800800, 0x00000001, 0xbf801000},
        /* (1 + 2^-23)^2 - (1 + 2^-22) = 2^-46 */
        {0x3f800001, 0x3f800001, 0xbf800002, 0x28800000},
        /* z + half a last place, a little more, a little less; z odd, then even */
        {0x33800000, 0x3f800000, 0x3f800001, 0x3f800002},
        {0x33800000, 0x3f7fffff, 0x3f800001, 0x3f800001},
        {0x33800000, 0x3f800000, 0x3f800000, 0x3f800000},
        {0x33800000, 0x3f800001, 0x3f800000, 0x3f800001},
        /* half a last place, and within one last place of a double below it or above it */
        {0x39a8b000, 0x394240b0, 0x3f800001, 0x3f800001},
        {0x3bfffd00, 0x37000180, 0x3f800001, 0x3f800001},
        {0x3a383800, 0x38b1e020, 0x3f800000, 0x3f800001},
        {0x3bbc1100, 0x372e3c80, 0x3f800000, 0x3f800001},
        {0xba383800, 0x38b1e020, 0xbf800000, 0xbf800001},
        /* 2^-150, half of the least subnormal: to even, up beside it, with its sign */
        {0x1a000000, 0x1a000000, 0x00000000, 0x00000000},
        {0x1a000000, 0x1a000001, 0x00000000, 0x00000001},
        {0x1a000000, 0x9a000000, 0x80000000, 0x80000000},
        {0x1a000000, 0x1a000000, 0x00000001, 0x00000002},
        {0x1a000000, 0x19ffffff, 0x00000001, 0x00000001},
        {0x1a000000, 0x9a000000, 0x00000001, 0x00000000},
        /* across the boundary: greatest subnormal + half a step is a tie to the least normal */
        {0x1a000000, 0x1a000000, 0x007fffff, 0x00800000},
        {0x1a000000, 0x19ffffff, 0x007fffff, 0x007fffff},
        {0x1a000000, 0x9a000000, 0x00800000, 0x00800000},
        {0x1a000000, 0x9a000001, 0x00800000, 0x007fffff},
        {0x1a000000, 0x9a000000, 0x00800001, 0x00800000},
        /* overflow is decided after the sum: greatest + half a last place, and just below */
        {0x73000000, 0x3f800000, 0x7f7fffff, 0x7f800000},
        {0x73000000, 0x3f7fffff, 0x7f7fffff, 0x7f7fffff},
        {0x7f7fffff, 0x40000000, 0xff7fffff, 0x7f7fffff},
        /* exact cancellation is +0; -0 stays */
        {0x3f800000, 0x3f800000, 0xbf800000, 0x00000000},
        {0x80000000, 0x3f800000, 0x80000000, 0x80000000},
        {0x80000000, 0x3f800000, 0x00000000, 0x00000000},
    };
    size_t i;

    (void)unused;
    for (i = 0; i < sizeof known / sizeof *known; i++) {
        const uint32_t minus = 0x80000000u;
        const float x = float_of_bits(known[i].x), y = float_of_bits(known[i].y);
        const float z = float_of_bits(known[i].z), minus_x = float_of_bits(known[i].x ^ minus);
        const float minus_z = float_of_bits(known[i].z ^ minus);
        float result[3][BLOCK];
        int form, lane;

        vstore_f32(result[0], vfma(vset1(x), vset1(y), vset1(z)));
        vstore_f32(result[1], vfnma(vset1(minus_x), vset1(y), vset1(z)));
        vstore_f32(result[2], vfms(vset1(x), vset1(y), vset1(minus_z)));
        for (form = 0; form < 3; form++) {
            for (lane = 0; lane < BLOCK; lane++) {
                const uint32_t got = bits_of_float(result[form][lane]);

                if (got != known[i].want && failed())
                    printf("lanes %s: %s lane %d of 0x%08" PRIx32 " * 0x%08" PRIx32
                           " + 0x%08" PRIx32 ": got 0x%08" PRIx32 ", wanted 0x%08" PRIx32 "\n",
                           ISA, form == 0 ? "vfma" : form == 1 ? "vfnma" : "vfms", lane,
                           known[i].x, known[i].y, known[i].z, got, known[i].want);
            }
        }
    }
    VERDICT();
}

/* ---- Masks ---- */

static vm mask_of(unsigned set)
{
    float t[BLOCK];

    for (int i = 0; i < BLOCK; i++)
        t[i] = set >> i & 1 ? 1.0f : 2.0f;
    return veq(vload_f32(t), vset1(1.0f));
}

static unsigned set_of(vm m)
{
    float t[BLOCK];
    unsigned set = 0;

    vstore_f32(t, vselect(m, vset1(1.0f), vset1(0.0f)));
    for (int i = 0; i < BLOCK; i++)
        set |= (unsigned)(t[i] == 1.0f) << i;
    return set;
}

static void check_mask(const char *name, unsigned input, unsigned got, unsigned want)
{
    if (got != want && failed())
        printf("lanes %s: %s of 0x%04x: got 0x%x, wanted 0x%x\n", ISA, name, input, got, want);
}

static void test_masks(void **unused)
{
    float left[BLOCK], right[BLOCK], result[BLOCK];
    static const int far[] = {-2000000000, -65536, -32, 32, 64, 256, 65536, 2000000000};
    unsigned set, other;
    int i;

    (void)unused;
    for (i = 0; i < BLOCK; i++) {
        left[i] = float_of_bits(0x7f800001u + (unsigned)i);
        right[i] = float_of_bits(0x80000001u + (unsigned)i);
    }
    for (set = 0; set < 1u << BLOCK; set++) {
        const vm m = mask_of(set);
        unsigned chosen = 0, kept = 0;
        int first = 0;

        while (first < BLOCK && !(set >> first & 1))
            first++;
        other = set * 40503u & 0xffffu;
        check_mask("vany", set, (unsigned)vany(m) != 0, set != 0);
        check_mask("vfirst", set, (unsigned)vfirst(m), (unsigned)first);
        check_mask("vmask_or", set, set_of(vmask_or(m, mask_of(other))), set | other);
        vstore_f32(result, vselect(m, vload_f32(left), vload_f32(right)));
        for (i = 0; i < BLOCK; i++)
            chosen |= (unsigned)!memcmp(&result[i], set >> i & 1 ? &left[i] : &right[i], 4) << i;
        check_mask("vselect", set, chosen, 0xffff);
        vstore_f32(result, vkeep(m, vload_f32(left)));
        for (i = 0; i < BLOCK; i++)
            kept |= (unsigned)(bits_of_float(result[i]) ==
                               (set >> i & 1 ? bits_of_float(left[i]) : 0))
                    << i;
        check_mask("vkeep", set, kept, 0xffff);
    }
    for (i = 0; i <= BLOCK; i++) {
        check_mask("vmask_first", (unsigned)i, set_of(vmask_first(i)), (1u << i) - 1);
        check_mask("vfirst of vmask_first", (unsigned)i, (unsigned)vfirst(vmask_first(i)),
                   i ? 0 : BLOCK);
    }
    for (i = -BLOCK; i < 2 * BLOCK; i++)
        check_mask("vmask_without", (unsigned)i, set_of(vmask_without(i)),
                   i >= 0 && i < BLOCK ? 0xffff & ~(1u << i) : 0xffff);
    for (i = 0; i < (int)(sizeof far / sizeof *far); i++)
        check_mask("vmask_without", (unsigned)far[i], set_of(vmask_without(far[i])), 0xffff);
    VERDICT();
}

/* ---- Loads and stores at the edge of what is mapped ---- */

static char touching[100] = "nothing";

static void touch(const char *name, int n, const char *edge)
{
    snprintf(touching, sizeof touching, "lanes " ISA ": %s, n = %d, at the page's %s", name, n,
             edge);
}

static void fault(int signal_number)
{
    static const char more[] = ": touches memory outside its elements\n";

    (void)signal_number;
    (void)!write(STDOUT_FILENO, touching, strlen(touching));
    (void)!write(STDOUT_FILENO, more, sizeof more - 1);
    _exit(1);
}

static void check_lane(int i, uint32_t got, uint32_t want)
{
    if (got != want && failed())
        printf("%s: lane %d: got 0x%08" PRIx32 ", wanted 0x%08" PRIx32 "\n", touching, i, got,
               want);
}

/* n elements at p: elements first, first + 1, ... of a page that holds the bits 0x7f800001 + i. */
static void check_load(const float *p, int n, uint32_t first)
{
    static const uint32_t fills[] = {0, 0xff800000, 0x3f800000, 0x7fc00000};
    float result[BLOCK];
    size_t k;
    int i;

    for (k = 0; k < (n < BLOCK ? 4 : 1); k++) {
        const vf v = n < BLOCK ? vload_n_f32(p, n, float_of_bits(fills[k])) : vload_f32(p);

        vstore_f32(result, v);
        for (i = 0; i < BLOCK; i++)
            check_lane(i, bits_of_float(result[i]),
                       i < n ? 0x7f800001u + first + (uint32_t)i : fills[k]);
        if (n == BLOCK && MASK_REGISTERS) { /* all of them: as the load above */
            vstore_f32(result, vload_n_f32(p, n, 0.0f));
            for (i = 0; i < BLOCK; i++)
                check_lane(i, bits_of_float(result[i]), 0x7f800001u + first + (uint32_t)i);
        }
    }
}

static void check_load_u8(const uint8_t *p)
{
    float result[BLOCK];
    int i;

    vstore_f32(result, vpositive_select(vload_positive_u8(p), vset1(1.0f), vset1(0.0f)));
    for (i = 0; i < BLOCK; i++)
        check_lane(i, bits_of_float(result[i]), bits_of_float(p[i] ? 1.0f : 0.0f));
}

/* n columns of sixteen rows; the words want a constant. */
static void load_columns(const float *p, int stride, int n, vf *column)
{
    if (n == 1)
        vload_columns_f32(p, stride, 1, column);
    else if (n == 2)
        vload_columns_f32(p, stride, 2, column);
    else if (n == 3)
        vload_columns_f32(p, stride, 3, column);
    else
        vload_columns_f32(p, stride, 4, column);
}

static void store_columns(float *p, int stride, int n, const vf *column)
{
    if (n == 1)
        vstore_columns_f32(p, stride, 1, column);
    else if (n == 2)
        vstore_columns_f32(p, stride, 2, column);
    else if (n == 3)
        vstore_columns_f32(p, stride, 3, column);
    else
        vstore_columns_f32(p, stride, 4, column);
}

/* `first` elements into a page. */
static void check_load_columns(const float *p, int stride, int n, uint32_t first)
{
    vf column[4];
    float result[BLOCK];

    load_columns(p, stride, n, column);
    for (int k = 0; k < n; k++) {
        vstore_f32(result, column[k]);
        for (int i = 0; i < BLOCK; i++)
            check_lane(i, bits_of_float(result[i]),
                       0x7f800001u + first + (uint32_t)(i * stride + k));
    }
}

static void check_store_columns(float *page, size_t floats, size_t first, int stride, int n)
{
    vf column[4];
    float values[BLOCK];

    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < BLOCK; i++)
            values[i] = float_of_bits(0x7f800001u + (uint32_t)(4 * i + k));
        column[k] = vload_f32(values);
    }
    memset(page, 0xa5, floats * sizeof *page);
    store_columns(page + first, stride, n, column);
    for (size_t i = 0; i < floats; i++) {
        const size_t at = i - first, row = at / (size_t)stride, k = at % (size_t)stride;
        const int stored = i >= first && row < BLOCK && k < (size_t)n;
        uint32_t got;

        memcpy(&got, page + i, sizeof got);
        check_lane((int)at, got, stored ? 0x7f800001u + (uint32_t)(4 * row + k) : 0xa5a5a5a5);
    }
}

#define EACH_WIDTH(of)                                                                            \
    of(1) of(2) of(3) of(5) of(6) of(7) of(9) of(10) of(11) of(13) of(14) of(15)

/* Sixteen rows of n that follow each other. */
static void check_load_rows(const float *p, int n, uint32_t first)
{
    vf column[BLOCK];
    float result[BLOCK];

    switch (n) {
#define WIDTH(n)                                                                                  \
    case n:                                                                                       \
        vload_rows_f32(p, n, column);                                                             \
        break;
        EACH_WIDTH(WIDTH)
#undef WIDTH
    }
    for (int k = 0; k < n; k++) {
        vstore_f32(result, column[k]);
        for (int i = 0; i < BLOCK; i++)
            check_lane(i, bits_of_float(result[i]), 0x7f800001u + first + (uint32_t)(i * n + k));
    }
}

static void check_store_rows(float *page, size_t floats, size_t first, int n)
{
    vf column[BLOCK];
    float values[BLOCK];

    for (int k = 0; k < n; k++) {
        for (int i = 0; i < BLOCK; i++)
            values[i] = float_of_bits(0x7f800001u + (uint32_t)(n * i + k));
        column[k] = vload_f32(values);
    }
    memset(page, 0xa5, floats * sizeof *page);
    switch (n) {
#define WIDTH(n)                                                                                  \
    case n:                                                                                       \
        vstore_rows_f32(page + first, n, column);                                                 \
        break;
        EACH_WIDTH(WIDTH)
#undef WIDTH
    }
    for (size_t i = 0; i < floats; i++) {
        const size_t at = i - first;
        uint32_t got;

        memcpy(&got, page + i, sizeof got);
        check_lane((int)at, got,
                   i >= first && at < (size_t)(BLOCK * n) ? 0x7f800001u + (uint32_t)at : 0xa5a5a5a5);
    }
}

static const int strides[] = {1, 2, 3, 4, 5, 7, 8, 10, 33};
enum { STRIDES = sizeof strides / sizeof *strides };

/* A page between two that nobody may touch. */
typedef struct guarded_page {
    size_t size;
    char *base, *page; /* NULL: none to be had */
    struct sigaction before[2];
} guarded_page;

static guarded_page guard_page(void)
{
    const struct sigaction on_fault = {.sa_handler = fault};
    guarded_page g = {.size = (size_t)sysconf(_SC_PAGESIZE)};

    g.base = mmap(NULL, 3 * g.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.base == MAP_FAILED || mprotect(g.base, g.size, PROT_NONE) ||
        mprotect(g.base + 2 * g.size, g.size, PROT_NONE)) {
        failures++;
        printf("lanes %s: no guarded page to be had\n", ISA);
        return g;
    }
    g.page = g.base + g.size;
    sigaction(SIGSEGV, &on_fault, &g.before[0]);
    sigaction(SIGBUS, &on_fault, &g.before[1]);
    return g;
}

static void release_page(const guarded_page *g)
{
    sigaction(SIGSEGV, &g->before[0], NULL);
    sigaction(SIGBUS, &g->before[1], NULL);
    munmap(g->base, 3 * g->size);
}

static void test_memory(void **unused)
{
    const guarded_page g = guard_page();
    const size_t page = g.size, floats = page / sizeof(float);
    char *base = g.base;
    float *f = (float *)g.page, pattern[BLOCK], result[BLOCK];
    double doubles[BLOCK];
    uint8_t *bytes = (uint8_t *)g.page;
    uint64_t state = SEED;
    size_t i;
    int n, at, k;

    (void)unused;
    if (!g.page) {
        VERDICT();
        return;
    }
    for (n = 1; n <= BLOCK; n++) { /* stores: the page around them keeps its bytes */
        for (i = 0; i < BLOCK; i++)
            pattern[i] = float_of_bits(0x7f800001u + (uint32_t)next_below(&state, 0x7ffff));
        for (at = 0; at <= BLOCK + 1; at++) {
            const size_t first = at <= BLOCK ? (size_t)at : floats - (size_t)n;
            const vf v = vload_f32(pattern);

            touch(n < BLOCK ? "vstore_n_f32" : "vstore_f32", n, at <= BLOCK ? "start" : "end");
            memset(f, 0xa5, page);
            if (n < BLOCK || (MASK_REGISTERS && at == 0)) {
                vstore_n_f32(f + first, n, v);
            } else if (first % BLOCK == 0 && at != 0) { /* on a line: the streamed store */
                vprefetch(f - BLOCK); /* an address that must not be read */
                vprefetch_write(f - BLOCK);
                vstore_stream_f32(f + first, v);
                vstream_fence();
            } else {
                vstore_f32(f + first, v);
            }
            for (i = 0; i < floats; i++) {
                uint32_t got, want = 0xa5a5a5a5;

                memcpy(&got, f + i, sizeof got);
                if (i >= first && i < first + (size_t)n)
                    memcpy(&want, pattern + (i - first), sizeof want);
                check_lane((int)i - (int)first, got, want);
            }
        }
    }

    for (k = 0; k < 4 * STRIDES; k++) {
        const int columns = k % 4 + 1, stride = strides[k / 4];
        const size_t span = (size_t)((BLOCK - 1) * stride + columns);

        if (columns > stride)
            continue;
        touch("vstore_columns_f32", stride, "start");
        check_store_columns(f, floats, 0, stride, columns);
        touch("vstore_columns_f32", stride, "end");
        check_store_columns(f, floats, floats - span, stride, columns);
    }

    for (n = 1; n < BLOCK; n++) {
        if (n % 4 == 0)
            continue;
        touch("vstore_rows_f32", n, "start");
        check_store_rows(f, floats, 0, n);
        touch("vstore_rows_f32", n, "end");
        check_store_rows(f, floats, floats - (size_t)(BLOCK * n), n);
    }

    for (i = 0; i < floats; i++) {
        const uint32_t bits = 0x7f800001u + (uint32_t)i;

        memcpy(f + i, &bits, sizeof bits);
    }
    mprotect(base + page, page, PROT_READ);
    for (n = 1; n <= BLOCK; n++) {
        for (at = 0; at <= BLOCK; at++) {
            touch(n < BLOCK ? "vload_n_f32" : "vload_f32", n, "start");
            check_load(f + at, n, (uint32_t)at);
        }
        touch(n < BLOCK ? "vload_n_f32" : "vload_f32", n, "end");
        check_load(f + floats - n, n, (uint32_t)(floats - (size_t)n));
    }

    for (k = 0; k < 4 * STRIDES; k++) {
        const int columns = k % 4 + 1, stride = strides[k / 4];
        const size_t span = (size_t)((BLOCK - 1) * stride + columns);

        if (columns > stride)
            continue;
        touch("vload_columns_f32", stride, "start");
        check_load_columns(f, stride, columns, 0);
        touch("vload_columns_f32", stride, "end");
        check_load_columns(f + floats - span, stride, columns, (uint32_t)(floats - span));
    }

    for (n = 1; n < BLOCK; n++) {
        if (n % 4 == 0)
            continue;
        touch("vload_rows_f32", n, "start");
        check_load_rows(f, n, 0);
        touch("vload_rows_f32", n, "end");
        check_load_rows(f + floats - BLOCK * n, n, (uint32_t)floats - (uint32_t)(BLOCK * n));
    }

    touch("vload_i64, vd_load or vd_load_f32", 0, "start and end"); /* no value is looked at */
    vstore_f32(result, vload_i64((const int64_t *)f));
    vstore_f32(result, vload_i64((const int64_t *)(f + floats) - BLOCK));
    vd_store(doubles, vd_load((const double *)f));
    vd_store(doubles, vd_load((const double *)(f + floats) - BLOCK));
    vd_store(doubles, vd_load_f32(f));
    vd_store(doubles, vd_load_f32(f + floats - BLOCK));
    touch("vs_load or vs_load_sum", 0, "start and end");
    vd_store(doubles, vs_widen(vs_load(f)));
    vd_store(doubles, vs_widen(vs_load(f + floats - BLOCK - 1)));
    vd_store(doubles, vs_widen(vs_load_sum(f, f + floats - BLOCK)));

    for (k = 0; k < 20; k++) {
        mprotect(base + page, page, PROT_READ | PROT_WRITE);
        for (i = 0; i < page; i++) /* each value at the edges in turn, half of them 0 */
            bytes[i] = k < 19 ? (uint8_t)(next_below(&state, 2) * next_below(&state, 256))
                              : (uint8_t)i;
        mprotect(base + page, page, PROT_READ);
        for (at = 0; at <= 256; at++) {
            touch("vload_positive_u8", BLOCK, "start");
            check_load_u8(bytes + at);
        }
        touch("vload_positive_u8", BLOCK, "end");
        check_load_u8(bytes + page - BLOCK);
    }

    release_page(&g);
    VERDICT();
}

/* ---- 16-bit storage ---- */

typedef struct half_type {
    const char *name;
    int digits, least_exponent, most_exponent;
    vf (*load)(const uint16_t *p);
    vf (*load_n)(const uint16_t *p, int n, float fill);
    void (*store)(uint16_t *p, vf v);
    void (*store_n)(uint16_t *p, int n, vf v);
    void (*store_numbers)(uint16_t *p, vf v);
    void (*load_pair)(const uint16_t *p, vf *v);
    void (*store_pair)(uint16_t *p, vf a, vf b);
    vf (*uppers)(vf v);
} half_type;

#define HALF_TYPE(type, digits, least, most)                                                      \
    static vf load_##type(const uint16_t *p) { return vload_##type(p); }                          \
    static vf load_n_##type(const uint16_t *p, int n, float f) { return vload_n_##type(p, n, f); } \
    static void store_##type(uint16_t *p, vf v) { vstore_##type(p, v); }                          \
    static void store_n_##type(uint16_t *p, int n, vf v) { vstore_n_##type(p, n, v); }            \
    static void numbers_##type(uint16_t *p, vf v) { vstore_numbers_##type(p, v); }                \
    static void load_pair_##type(const uint16_t *p, vf *v) { vload_pair_##type(p, v); }           \
    static void store_pair_##type(uint16_t *p, vf a, vf b) { vstore_pair_##type(p, a, b); }       \
    static vf uppers_##type(vf v) { return vuppers_##type(v); }                                   \
    static const half_type half_##type = {#type,          digits,         least,                  \
                                          most,           load_##type,    load_n_##type,          \
                                          store_##type,   store_n_##type, numbers_##type,         \
                                          load_pair_##type, store_pair_##type, uppers_##type};
HALF_TYPE(bf16, 8, -126, 127)
HALF_TYPE(f16, 11, -14, 15)
static const half_type *const half_types[] = {&half_bf16, &half_f16};

/* The number that the bits h stand for, by the definition of the format. */
static double half_value(const half_type *t, uint32_t h)
{
    const uint32_t leading = 1u << (t->digits - 1), digits = h & (leading - 1);
    const int field = (int)((h & 0x7fff) / leading);
    const double sign = h >> 15 ? -1.0 : 1.0;

    if (field > t->most_exponent - t->least_exponent + 1)
        return digits ? (double)NAN : sign * HUGE_VAL;
    return sign * ldexp(field ? leading + digits : digits,
                        (field ? field - 1 : 0) + t->least_exponent - (t->digits - 1));
}

/* The bits to which x is rounded: to a whole number of units in the last place, ties to even. */
static uint32_t half_nearest(const half_type *t, float x)
{
    const uint32_t leading = 1u << (t->digits - 1);
    const uint32_t infinity = (uint32_t)(t->most_exponent - t->least_exponent + 2) * leading;
    const uint32_t sign = bits_of_float(x) >> 31 << 15;
    int exponent;

    if (isnan(x))
        return infinity + leading / 2;
    if (isinf(x) || x == 0.0f)
        return sign | (x == 0.0f ? 0 : infinity);
    frexp((double)x, &exponent);
    exponent = exponent - 1 > t->least_exponent ? exponent - 1 : t->least_exponent;
    /* The leading digit counts as 1 in the field of the exponent, and so does a carry. */
    const double units = nearbyint(ldexp(fabs((double)x), t->digits - 1 - exponent));
    const uint32_t h = (uint32_t)(exponent - t->least_exponent) * leading + (uint32_t)units;
    return sign | (h < infinity ? h : infinity);
}

/* An emulator may round ties of f16 away from even: -DLANES_SKIP_F16_TIES leaves them out. */
static int is_left_out(const half_type *t, float x)
{
#ifdef LANES_SKIP_F16_TIES
    const double size = fabs((double)x), low = ldexp(1.0, t->least_exponent - t->digits);
    double units;
    int exponent;

    if (t != &half_f16 || !isfinite(x))
        return 0;
    frexp(size, &exponent);
    units = ldexp(1.0, exponent - 1 - t->digits); /* half a unit in the last place */
    units = units > low ? units : low;
    return fmod(size / units, 2.0) == 1.0;
#else
    (void)t;
    (void)x;
    return 0;
#endif
}

static void check_half(const half_type *t, const char *what, int lane, uint32_t x, uint32_t got,
                       uint32_t want)
{
    if (got != want && failed())
        printf("lanes %s: %s_%s, lane %d of 0x%08" PRIx32 ": got 0x%08" PRIx32
               ", wanted 0x%08" PRIx32 "\n", ISA, what, t->name, lane, x, got, want);
}

/* All of them, each in every lane. */
static void check_widening(const half_type *t)
{
    for (uint32_t start = 0; start < 0x10000; start++) {
        uint16_t h[2 * BLOCK];
        float result[BLOCK], pair[2 * BLOCK], upper[BLOCK];
        vf v[2];

        for (int i = 0; i < 2 * BLOCK; i++)
            h[i] = (uint16_t)(start + (uint32_t)i * 0x1003);
        vstore_f32(result, t->load(h));
        t->load_pair(h, v);
        vstore_f32(pair, v[0]);
        vstore_f32(pair + BLOCK, v[1]);
        vstore_f32(upper, t->uppers(vload_uppers(h)));
        for (int i = 0; i < 2 * BLOCK; i++) {
            const double want = half_value(t, h[i]);
            const uint32_t bits = bits_of_float((float)want);

            if (isnan(want))
                continue;
            if (i < BLOCK)
                check_half(t, "vload", i, h[i], bits_of_float(result[i]), bits);
            check_half(t, "vload_pair", i, h[i], bits_of_float(pair[i]), bits);
            if (i % 2)
                check_half(t, "vuppers", i / 2, h[i], bits_of_float(upper[i / 2]), bits);
        }
    }
}

static int cpu_rounds(void)
{
#if CPU_ROUNDS
    return __builtin_cpu_supports("avx512bf16");
#else
    return 0;
#endif
}

static void check_rounding_by_cpu(const float *x)
{
    uint16_t pair[2 * BLOCK];

    vstore_pair_by_cpu_bf16(pair, vload_f32(x), vneg(vload_f32(x)));
    for (int i = 0; i < BLOCK; i++)
        if (!isnan(x[i]) && (x[i] == 0.0f || fabsf(x[i]) >= 0x1p-126f)) {
            const uint16_t right = (uint16_t)half_nearest(&half_bf16, x[i]);
            check_half(&half_bf16, "vstore_pair_by_cpu", i, bits_of_float(x[i]), pair[i], right);
            check_half(&half_bf16, "vstore_pair_by_cpu", BLOCK + i, bits_of_float(x[i]), pair[BLOCK + i],
                       right ^ 0x8000u);
        }
}

/* Each of count floats in every lane. */
static void check_narrowing(const half_type *t, const uint32_t *bits, uint32_t count)
{
    for (uint32_t start = 0; start < count; start++) {
        float x[BLOCK];
        uint16_t h[BLOCK], numbers[BLOCK], pair[2 * BLOCK], swapped[2 * BLOCK];

        for (int i = 0; i < BLOCK; i++)
            x[i] = float_of_bits(bits[(start + (uint32_t)i) % count]);
        t->store(h, vload_f32(x));
        t->store_numbers(numbers, vload_f32(x));
        t->store_pair(pair, vload_f32(x), vset1(1.0f));
        t->store_pair(swapped, vset1(1.0f), vload_f32(x));
        if (t == &half_bf16 && cpu_rounds())
            check_rounding_by_cpu(x);
        for (int i = 0; i < BLOCK; i++) {
            if (!is_left_out(t, x[i]))
                check_half(t, "vstore", i, bits_of_float(x[i]), h[i], half_nearest(t, x[i]));
            if (!isnan(x[i]))
                check_half(t, "vstore_numbers", i, bits_of_float(x[i]), numbers[i], h[i]);
            if (!isnan(x[i])) {
                check_half(t, "vstore_pair", i, bits_of_float(x[i]), pair[i], h[i]);
                check_half(t, "vstore_pair", BLOCK + i, bits_of_float(x[i]), swapped[BLOCK + i], h[i]);
            }
        }
    }
}

/* A number, the tie between it and the next, and the floats on either side of both. */
static uint32_t around_tie(const half_type *t, uint32_t h, uint32_t *bits)
{
    const uint32_t infinity = bits_of_float(LANE_INFINITY);
    const double low = half_value(t, h);
    double high = half_value(t, h + 1);
    uint32_t n = 0;

    if (!isfinite(low))
        return 0;
    if (!isfinite(high)) /* the next number, had it an exponent */
        high = (low < 0.0 ? -1.0 : 1.0) * ldexp(1.0, t->most_exponent + 1);
    const float value = (float)low, tie = (float)((low + high) / 2.0);
    for (uint32_t k = 0; k < 6; k++) {
        const uint32_t near = bits_of_float(k < 3 ? value : tie) + k % 3 - 1;

        if ((near & 0x7fffffff) <= infinity)
            bits[n++] = near;
    }
    return n;
}

static void test_halves(void **unused)
{
    (void)unused;
    if (CPU_ROUNDS && !cpu_rounds())
        printf("# lanes %s: vstore_pair_by_cpu_bf16 is not tried, this CPU lacks AVX512_BF16\n", ISA);
    for (size_t k = 0; k < sizeof half_types / sizeof *half_types; k++) {
        const half_type *t = half_types[k];
        uint64_t state = SEED;
        uint32_t bits[16 * 6], n = 0;

        check_widening(t);
        check_narrowing(t, special, SPECIALS);
        check_narrowing(t, decisive, DECISIVES);
        for (uint32_t h = 0; h < 0x10000; h++) {
            n += around_tie(t, h, bits + n);
            if (h % 16 == 15) {
                check_narrowing(t, bits, n);
                n = 0;
            }
        }
        for (int i = 0; i < RANDOM_BLOCKS; i++) { /* any bits, and NaN among numbers of f16 */
            for (n = 0; n < BLOCK; n++)
                bits[n] = i % 2 ? next_random(&state) : around(&state, -26, 17);
            if (i % 2 == 0)
                bits[next_below(&state, BLOCK)] = 0xff800001u | next_random(&state);
            check_narrowing(t, bits, n);
        }
    }
    VERDICT();
}

static void test_half_stores(const half_type *t, uint16_t *page, size_t halves)
{
    uint64_t state = SEED;

    for (int n = 1; n <= BLOCK; n++)
        for (int at = 0; at <= BLOCK + 1; at++) {
            const size_t first = at <= BLOCK ? (size_t)at : halves - (size_t)n;
            float x[BLOCK];

            touch(n < BLOCK ? "vstore_n_16" : "vstore_16", n, at <= BLOCK ? "start" : "end");
            memset(page, 0xa5, halves * sizeof *page);
            for (int i = 0; i < BLOCK; i++)
                x[i] = float_of_bits(around(&state, -26, 17));
            if (n < BLOCK)
                t->store_n(page + first, n, vload_f32(x));
            else
                t->store(page + first, vload_f32(x));
            for (size_t i = 0; i < halves; i++)
                check_lane((int)i - (int)first, page[i],
                           i >= first && i < first + (size_t)n
                               ? half_nearest(t, x[i - first]) : 0xa5a5);
        }
}

/* n elements at p, of a page where each stands for itself. */
static void check_half_load(const half_type *t, const uint16_t *p, int n)
{
    static const uint32_t fills[] = {0, 0xff800000, 0x3f800000, 0x7fc00000};
    float result[BLOCK];

    for (int k = 0; k < (n < BLOCK ? 4 : 1); k++) {
        const float fill = float_of_bits(fills[k]);

        vstore_f32(result, n < BLOCK ? t->load_n(p, n, fill) : t->load(p));
        for (int i = 0; i < BLOCK; i++)
            check_lane(i, bits_of_float(result[i]),
                       i < n ? bits_of_float((float)half_value(t, p[i])) : fills[k]);
    }
}

static void test_half_memory(void **unused)
{
    const guarded_page g = guard_page();
    uint16_t *page = (uint16_t *)(void *)g.page;
    const size_t halves = g.size / sizeof *page;

    (void)unused;
    for (size_t k = 0; g.page && k < sizeof half_types / sizeof *half_types; k++) {
        const half_type *t = half_types[k];

        mprotect(g.page, g.size, PROT_READ | PROT_WRITE);
        test_half_stores(t, page, halves);
        for (size_t i = 0; i < halves; i++)
            page[i] = (uint16_t)(i * 13 % 0x7b00 + (i % 2 ? 0x8000 : 0)); /* finite, all different */
        mprotect(g.page, g.size, PROT_READ);
        for (int n = 1; n <= BLOCK; n++) {
            touch(n < BLOCK ? "vload_n_16" : "vload_16", n, "start");
            for (int at = 0; at <= BLOCK; at++)
                check_half_load(t, page + at, n);
            touch(n < BLOCK ? "vload_n_16" : "vload_16", n, "end");
            check_half_load(t, page + halves - n, n);
        }
    }
    if (g.page)
        release_page(&g);
    VERDICT();
}

/* ---- Across lanes ---- */

/* Folds lane i with lane i + distance, in the order of distances given; 8, 4, 2, 1 is the rule. */
static const int rule[] = {8, 4, 2, 1}, neighbours[] = {1, 2, 4, 8}, inside_out[] = {4, 8, 1, 2};

static float add_tree(const float *x, const int *distance)
{
    float t[BLOCK];

    memcpy(t, x, sizeof t);
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < BLOCK; i++)
            if (!(i & distance[k]))
                t[i] = t[i] + t[i + distance[k]];
    return t[0];
}

static double add_tree_d(const double *x, const int *distance)
{
    double t[BLOCK];

    memcpy(t, x, sizeof t);
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < BLOCK; i++)
            if (!(i & distance[k]))
                t[i] = t[i] + t[i + distance[k]];
    return t[0];
}

static float max_tree(const float *x)
{
    float t[BLOCK];

    memcpy(t, x, sizeof t);
    for (int half = BLOCK / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            t[i] = t[i] > t[i + half] ? t[i] : t[i + half];
    return t[0];
}

static void check_across(const char *name, const float *x, uint64_t got, uint64_t want, int nans)
{
    if (got == want || nans || !failed())
        return;
    printf("lanes %s: %s of", ISA, name);
    for (int i = 0; i < BLOCK; i++)
        printf(" 0x%08" PRIx32, bits_of_float(x[i]));
    printf(": got 0x%08" PRIx64 ", wanted 0x%08" PRIx64 "\n", got, want);
}

static void check_folds(const float *x)
{
    const float sum = vadd_across(vload_f32(x)), max = vmax_across(vload_f32(x));
    const float want_sum = add_tree(x, rule), want_max = max_tree(x);

    check_across("vlane0", x, bits_of_float(vlane0(vload_f32(x))), bits_of_float(x[0]), 0);
    check_across("vadd_across", x, bits_of_float(sum), bits_of_float(want_sum),
                 isnan(sum) && isnan(want_sum));
    check_across("vmax_across", x, bits_of_float(max), bits_of_float(want_max),
                 isnan(max) && isnan(want_max));
}

static void test_across(void **unused)
{
    static const uint32_t few[] = {0, 0x80000000, 0x3f800000, 0x7fc00000, 0xff800000, 0x00000001};
    uint64_t state = SEED;
    int other_sums = 0;
    float x[BLOCK];
    int k, i;

    (void)unused;
    for (k = 0; k < RANDOM_BLOCKS; k++) {
        float sum;

        for (i = 0; i < BLOCK; i++)
            x[i] = float_of_bits(around(&state, -4, 4));
        check_folds(x);
        sum = add_tree(x, rule);
        other_sums += sum != add_tree(x, neighbours) && sum != add_tree(x, inside_out);
        for (i = 0; i < BLOCK; i++) /* zeros of both signs and NaN tell the order of a maximum */
            x[i] = float_of_bits(few[next_below(&state, k % 2 ? 2 : 6)]);
        check_folds(x);
    }
    for (k = 0; k < SPECIALS; k++) {
        for (i = 0; i < BLOCK; i++)
            x[i] = k % 2 ? -1.0f : -0.0f;
        for (i = 0; i < BLOCK; i++) {
            const float kept = x[i];

            x[i] = float_of_bits(special[k]);
            check_folds(x);
            x[i] = kept;
        }
    }
    if (other_sums < RANDOM_BLOCKS / 4 && failed())
        printf("lanes %s: the sums do not tell one order from another (%d of %d)\n", ISA,
               other_sums, RANDOM_BLOCKS);
    VERDICT();
}

static uint64_t bits_of_double(double d)
{
    uint64_t bits;

    memcpy(&bits, &d, sizeof bits);
    return bits;
}

static void test_double_lanes(void **unused)
{
    uint64_t state = SEED;
    int other_sums = 0;
    float x[BLOCK];
    double want[BLOCK], sum, got;
    int k, i, step;

    (void)unused;
    check_across("vd_zero", (const float[BLOCK]){0}, bits_of_double(vd_across(vd_zero())), 0, 0);

    for (k = 0; k < SPECIALS; k++) { /* one lane at a time: widened exactly, the others stay 0 */
        for (i = 0; i < BLOCK; i++) {
            memset(x, 0, sizeof x);
            x[i] = float_of_bits(special[k]);
            got = vd_across(vd_add(vd_zero(), vload_f32(x)));
            sum = 0.0 + (double)x[i];
            check_across("vd_add", x, bits_of_double(got), bits_of_double(sum),
                         isnan(got) && isnan(sum));
        }
    }
    for (k = 0; k < RANDOM_BLOCKS; k++) { /* several adds in all lanes, rounded in double */
        vd all = vd_zero(), one = vd_zero();
        const int lane = k % BLOCK;
        float alone[BLOCK] = {0};

        memset(want, 0, sizeof want);
        for (step = 0; step < 4; step++) {
            for (i = 0; i < BLOCK; i++) {
                x[i] = float_of_bits(around(&state, -20, 20));
                want[i] += (double)x[i];
            }
            alone[lane] = x[lane];
            all = vd_add(all, vload_f32(x));
            one = vd_add(one, vload_f32(alone));
        }
        sum = add_tree_d(want, rule);
        other_sums +=
            sum != add_tree_d(want, neighbours) && sum != add_tree_d(want, inside_out);
        check_across("vd_across", x, bits_of_double(vd_across(all)), bits_of_double(sum), 0);
        check_across("vd_add, one lane", alone, bits_of_double(vd_across(one)),
                     bits_of_double(want[lane]), 0);
    }
    for (k = 0; k < RANDOM_BLOCKS; k++) { /* lane by lane, without a fold */
        double widened[BLOCK], summed[BLOCK];
        float y[BLOCK];

        for (i = 0; i < BLOCK; i++) {
            x[i] = float_of_bits(k % 2 ? special[next_below(&state, SPECIALS)]
                                       : around(&state, -60, 60));
            y[i] = float_of_bits(around(&state, -60, 60));
        }
        vd_store(widened, vd_widen(vload_f32(x)));
        vd_store(summed, vd_plus(vd_widen(vload_f32(x)), vd_widen(vload_f32(y))));
        for (i = 0; i < BLOCK; i++) {
            check_across("vd_widen, vd_store", x, bits_of_double(widened[i]),
                         bits_of_double((double)x[i]), isnan(x[i]) && isnan(widened[i]));
            check_across("vd_plus", x, bits_of_double(summed[i]),
                         bits_of_double((double)x[i] + (double)y[i]),
                         isnan(x[i]) && isnan(summed[i]));
        }
    }
    if (other_sums < RANDOM_BLOCKS / 4 && failed())
        printf("lanes %s: the double sums do not tell one order from another (%d of %d)\n", ISA,
               other_sums, RANDOM_BLOCKS);
    VERDICT();
}

/* Doubles that arithmetic and rounding to f32 may treat differently: around the smallest normal f32,
 * subnormal f32, half-way cases, overflow, zeros and what is no number. */
static double any_double(uint64_t *state)
{
    static const double edges[] = {0x1p-126,  0x1.fffffffffffffp-127, 0x1p-127, 0x1p-149, 0x1p-150,
                                   0x1.000001p0, 0x1.000003p0, 0x1.fffffefffffffp127,
                                   0x1.ffffffp127, 0x1p1000, 0x1p-1040, 0.0, INFINITY, NAN};
    const int kind = next_below(state, 3), sign = next_below(state, 2);
    double d;

    if (kind == 0)
        d = edges[next_below(state, sizeof edges / sizeof *edges)];
    else if (kind == 1)
        d = (double)float_of_bits(around(state, -60, 60)) * (1.0 + next_below(state, 1000) * 0x1p-40);
    else
        d = (double)float_of_bits(around(state, -20, 20)) * 0x1.3456789abcdefp-126;
    return sign ? -d : d;
}

static void check_double(const char *name, double got, double want)
{
    const float none[BLOCK] = {0};

    check_across(name, none, bits_of_double(got), bits_of_double(want), isnan(got) && isnan(want));
}

static void check_narrowed(const double *x)
{
    float got[BLOCK];

    vstore_f32(got, vd_narrow(vd_load(x)));
    for (int i = 0; i < BLOCK; i++)
        check_across("vd_narrow", got, bits_of_float(got[i]), bits_of_float((float)x[i]),
                     isnan(x[i]) && isnan(got[i]));
}

/* Where a NaN was added there is one, or a number that no sum of others reaches. */
static void check_sum_lanes(const char *name, vs got, const double *want)
{
    double lane[BLOCK];

    vd_store(lane, vs_widen(got));
    for (int i = 0; i < BLOCK; i++)
        if (isnan(want[i]))
            check_double(name, lane[i] < 0x1p128, 0.0);
        else
            check_double(name, lane[i], want[i]);
}

/* Sums of 0 and of normal numbers, some with a NaN in one lane. */
static void check_sums(uint64_t *state)
{
    double sum[BLOCK] = {0.0}, sum_of_p[BLOCK] = {0.0};
    vs total = vs_zero(), total_of_p = vs_zero();
    int is_nan = 0;
    for (int k = 0; k < 8; k++) {
        float p[BLOCK + 1] = {0.0f}, q[BLOCK];
        for (int i = 0; i < BLOCK; i++) {
            p[i] = fabsf(float_of_bits(around(state, -126, 20)));
            q[i] = i == k ? 0.0f : fabsf(float_of_bits(around(state, -126, 20)));
            if (i == 2 * k)
                p[i] = 0.0f;
        }
        if (float_of_bits(around(state, -2, 2)) > 3.5f) {
            p[k] = k % 2 ? -LANE_NAN : LANE_NAN;
            is_nan = 1;
        }
        total = vs_add(total, p, q);
        total_of_p = vs_plus(total_of_p, vs_load(p));
        for (int i = 0; i < BLOCK; i++) {
            sum[i] += (double)(p[i] + q[i]);
            sum_of_p[i] += (double)p[i];
        }
    }
    check_sum_lanes("vs_load_sum", total, sum);
    check_sum_lanes("vs_load", total_of_p, sum_of_p);
    for (int half = BLOCK / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            sum[i] += sum[i + half];
    if (is_nan)
        check_double("vs_add of NaN", isnan(vs_across(total)) ? 1.0 : 0.0, 1.0);
    else
        check_double("vs_add", vs_across(total), sum[0]);
}

static void test_double_arithmetic(void **unused)
{
    uint64_t state = SEED;

    (void)unused;
    for (int k = 0; k < RANDOM_BLOCKS; k++) {
        double x[BLOCK], y[BLOCK], got[5][BLOCK], constant[BLOCK];
        float f[BLOCK];

        for (int i = 0; i < BLOCK; i++) {
            x[i] = any_double(&state);
            y[i] = any_double(&state);
            f[i] = float_of_bits(around(&state, -60, 60));
        }
        vd_store(got[0], vd_load(x));
        vd_store(got[1], vd_times(vd_load(x), vd_load(y)));
        vd_store(got[2], vd_over(vd_load(x), vd_load(y)));
        vd_store(got[3], vd_normal(vd_load(x)));
        vd_store(got[4], vd_load_f32(f));
        vd_store(constant, vd_set1(x[0]));
        for (int i = 0; i < BLOCK; i++) {
            check_double("vd_load", got[0][i], x[i]);
            check_double("vd_times", got[1][i], x[i] * y[i]);
            check_double("vd_over", got[2][i], x[i] / y[i]);
            check_double("vd_normal", got[3][i], fabs(x[i]) < 0x1p-126 ? 0.0 : x[i]);
            check_double("vd_load_f32", got[4][i], (double)f[i]);
            check_double("vd_set1", constant[i], x[0]);
        }
        check_narrowed(x);
        check_sums(&state);
    }
    VERDICT();
}

/* Every edge in every lane. */
static void test_integers(void **unused)
{
    static const int64_t edges[] = {0,          1,          127,      16777217,  INT32_MAX, 0x80000000,
                                    0xffffffff, 0x100000000, 0x100000003, -1,    -100,      INT32_MIN,
                                    INT64_MAX,  INT64_MIN};
    uint64_t state = SEED;

    (void)unused;
    for (int k = 0; k < RANDOM_BLOCKS; k++) {
        int64_t p[BLOCK];
        float got[BLOCK];

        for (int i = 0; i < BLOCK; i++)
            p[i] = edges[next_below(&state, sizeof edges / sizeof *edges)];
        vstore_f32(got, vload_i64(p));
        for (int i = 0; i < BLOCK; i++)
            check_across("vload_i64", got, bits_of_float(got[i]),
                         p[i] < 0 || p[i] > 0xffffffff ? 0xffffffffu : (uint32_t)p[i], 0);
    }
    VERDICT();
}

/* Sixteen folds at once, of blocks with every special and both zeros, and of sums of exponentials. */
static void test_across_rows(void **unused)
{
    uint64_t state = SEED;
    float x[BLOCK * BLOCK], max[BLOCK], e[BLOCK * BLOCK + 1] = {0.0f};
    double d[BLOCK * BLOCK], folded[BLOCK * BLOCK / 2], sum[BLOCK];

    (void)unused;
    for (int k = 0; k < RANDOM_BLOCKS; k++) {
        for (int i = 0; i < BLOCK * BLOCK; i++) {
            x[i] = float_of_bits(k % 2 ? special[next_below(&state, SPECIALS)]
                                       : around(&state, -60, 60));
            e[i] = fabsf(float_of_bits(around(&state, -20, 20)));
            d[i] = (double)e[i];
        }
        vstore_f32(max, vmax_across_rows(x));
        for (int j = 0; j < BLOCK; j++)
            vs_store_folded(folded + j * BLOCK / 2, vs_load(e + j * BLOCK));
        vd_store(sum, vs_across_rows(folded));
        for (int j = 0; j < BLOCK; j++) {
            const float want = max_tree(x + j * BLOCK);

            check_across("vmax_across_rows", x + j * BLOCK, bits_of_float(max[j]),
                         bits_of_float(want), isnan(max[j]) && isnan(want));
            check_across("vs_across_rows", x + j * BLOCK, bits_of_double(sum[j]),
                         bits_of_double(add_tree_d(d + j * BLOCK, rule)), 0);
        }
    }
    VERDICT();
}

static void check_root(uint32_t from, uint32_t step)
{
    float x[BLOCK], got[BLOCK];

    for (uint32_t i = 0; i < BLOCK; i++)
        x[i] = float_of_bits(from + i * step);
    vstore_f32(got, vsqrt_fraction(vload_f32(x)));
    for (int i = 0; i < BLOCK; i++)
        check_across("vsqrt_fraction", x, bits_of_float(got[i]), bits_of_float(sqrtf(x[i])),
                     isnan(x[i]) && isnan(got[i]));
}

#ifdef BALLAST_ISA_avx512
/* CPUs may estimate differently. */
static void check_estimates(uint32_t from)
{
    float x[BLOCK], got[BLOCK];

    for (uint32_t i = 0; i < BLOCK; i++)
        x[i] = float_of_bits(from + i);
    const vf v = vload_f32(x), root = vsqrt(v), estimate = vdiv(vset1(1.0f), root);
    for (int k = -32; k <= 32; k += 4) {
        const vf g = root_by_estimate(v, vmul(estimate, vset1(1.0f + (float)k * 0x1p-19f)));

        vstore_f32(got, g);
        if (!vany(vmask_or(vlt(g, root), vlt(root, g))))
            continue;
        for (int i = 0; i < BLOCK; i++)
            check_across("root_by_estimate", x, bits_of_float(got[i]), bits_of_float(sqrtf(x[i])), 0);
    }
}
#endif

/* All of [1/4, 1), by whose results an ISA's own sequence stands or falls; some of the rest of its
 * domain, where only exponents differ; and the edges. */
static void test_roots_of_fractions(void **unused)
{
    static const uint32_t edges[] = {0, 0x0d800000, 0x0d800001, 0x3f800000, 0x7fc00000, 0xffc00000};
    const uint32_t quarter = 0x3e800000, one = 0x3f800000, least = 0x0d800000; /* 2^-100 */

    (void)unused;
    for (size_t k = 0; k < sizeof edges / sizeof *edges; k++)
        check_root(edges[k], 0);
    for (uint32_t x = quarter; x < one; x += BLOCK)
        check_root(x, 1);
    for (uint32_t x = least; x < quarter - 16 * 997; x += 16 * 997)
        check_root(x, 997);
#ifdef BALLAST_ISA_avx512
    for (uint32_t x = quarter; x < one; x += BLOCK)
        check_estimates(x);
#endif
    VERDICT();
}

#define EACH_TEST(test)                                                                           \
    test(test_special_values), test(test_random_values), test(test_fused_rounding),               \
        test(test_masks), test(test_memory), test(test_halves), test(test_half_memory),           \
        test(test_across), test(test_double_lanes), test(test_double_arithmetic),                 \
        test(test_across_rows), test(test_integers), test(test_roots_of_fractions)

int lanes_test(void)
{
#ifdef LANES_PLAIN
#define CALL(test) test(NULL)
    EACH_TEST(CALL);
    printf("lanes %s: %d failures\n", ISA, failures_before);
    return failures_before != 0;
#else
    const struct CMUnitTest tests[] = {EACH_TEST(cmocka_unit_test)};

    return cmocka_run_group_tests_name("lanes " ISA, tests, NULL, NULL);
#endif
}
