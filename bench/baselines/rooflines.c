/* SPDX-License-Identifier: MIT */
#include "rooflines.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Registers as wide as the machine's. */
#if defined(__AVX512F__)
enum { WIDTH = 64 };
#elif defined(__AVX__)
enum { WIDTH = 32 };
#else
enum { WIDTH = 16 };
#endif
typedef float vec __attribute__((vector_size(WIDTH), may_alias));
enum { UNROLL = 4, LANES = WIDTH / 4 };

/* The compiler must not see through these: it would leave the loop out, or call memcpy. */
static inline void keep(vec v) { __asm__ volatile("" : : "m"(v)); }
static inline void barrier(void) { __asm__ volatile("" : : : "memory"); }

void roofline_read(const void *from, size_t bytes)
{
    const vec *p = from, *end = p + bytes / sizeof *p;
    vec sum[UNROLL] = {0};
    for (; p + UNROLL <= end; p += UNROLL)
        for (int k = 0; k < UNROLL; k++)
            sum[k] += p[k];
    for (; p < end; p++)
        sum[0] += *p;
    keep((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

void roofline_copy(void *to, const void *from, size_t bytes)
{
    const vec *p = from, *end = p + bytes / sizeof *p;
    vec *q = to;
    for (; p + UNROLL <= end; p += UNROLL, q += UNROLL) {
        for (int k = 0; k < UNROLL; k++)
            q[k] = p[k];
        barrier();
    }
    for (; p < end; p++, q++)
        *q = *p;
}

void roofline_scale(void *array, size_t bytes)
{
    vec *p = array;
    const vec *end = p + bytes / sizeof *p;
    float one = 1.0f;
    __asm__("" : "+x"(one));
    for (; p + UNROLL <= end; p += UNROLL)
        for (int k = 0; k < UNROLL; k++)
            p[k] *= one;
    for (; p < end; p++)
        *p *= one;
}

int roofline_stream_copy(void *to, const void *from, size_t bytes)
{
#if defined(__x86_64__)
    const __m128i *p = from, *end = p + bytes / sizeof *p;
    __m128i *q = to;
    for (; p < end; p += 4, q += 4) { /* a line of 64 bytes */
        const __m128i a = p[0], b = p[1], c = p[2], d = p[3];
        _mm_stream_si128(q, a);
        _mm_stream_si128(q + 1, b);
        _mm_stream_si128(q + 2, c);
        _mm_stream_si128(q + 3, d);
    }
    _mm_sfence();
    return 1;
#else
    (void)to, (void)from, (void)bytes;
    return 0;
#endif
}

/* Ten chains cover two units of four cycles, or of five. They look different to the compiler, which
 * would compute one of them. */
double roofline_multiply_add(long steps)
{
    enum { CHAINS = 10 };
    vec c[CHAINS] = {0}, a = {0}, b = {0};
    a += 0.5f;
    b += 1.0f;
    for (int k = 0; k < CHAINS; k++)
        __asm__("" : "+x"(c[k]));
    for (long i = 0; i < steps; i++)
        for (int k = 0; k < CHAINS; k++)
            c[k] = c[k] * a + b;
    for (int k = 1; k < CHAINS; k++)
        c[0] += c[k];
    keep(c[0]);
    return (double)steps * CHAINS * LANES;
}
