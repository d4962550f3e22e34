/* SPDX-License-Identifier: MIT */
#include "arrays.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { GUARD = 256, ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

static enum case_pages pages_wanted = PAGES_OF_SYSTEM;

void case_use_pages(enum case_pages pages) { pages_wanted = pages; }

/* Huge pages are 2 MiB: what is smaller stands on small ones. */
static void *allocate_pages(size_t bytes)
{
    const size_t whole = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *memory = aligned_alloc(HUGE_PAGE, whole);

    if (memory)
        madvise(memory, whole, pages_wanted == PAGES_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return memory;
}

void *allocate(size_t bytes)
{
    const size_t whole = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    const int by_page = pages_wanted != PAGES_OF_SYSTEM && bytes >= HUGE_PAGE;
    void *memory = by_page ? allocate_pages(bytes) : aligned_alloc(ALIGNMENT, whole);

    if (!memory) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(2);
    }
    return memory;
}

/* With the strides set; the memory is to come. */
static case_array with_memory(const problem *p, case_array a)
{
    const int64_t plane = a.columns > 0 ? (a.columns - 1) * a.column_stride + a.inner : 0;
    const size_t elements = a.rows > 0 ? (size_t)((a.rows / a.inner - 1) * a.stride + plane) : 0;
    const ballast_dtype dtype = a.dtype;

    a.bytes = 2 * GUARD + ((size_t)p->offset + elements) * size_of(dtype);
    a.memory = allocate(a.bytes);
    a.data = (char *)a.memory + GUARD + (size_t)p->offset * size_of(dtype);
    memset(a.memory, FILL, a.bytes);
    return a;
}

case_array make_array(const problem *p, const char *name, ballast_dtype dtype, int64_t rows,
                      int64_t columns)
{
    return with_memory(p, (case_array){.name = name,
                                       .dtype = dtype,
                                       .rows = rows,
                                       .columns = columns,
                                       .stride = columns,
                                       .inner = 1,
                                       .column_stride = 1,
                                       .per_row = rows == p->rows});
}

case_array make_matrix(const problem *p, const char *name, ballast_dtype dtype)
{
    const int64_t plane = p->class_stride ? p->class_stride : p->inner;

    return with_memory(p, (case_array){.name = name,
                                       .dtype = dtype,
                                       .rows = p->rows,
                                       .columns = p->classes,
                                       .stride = p->stride ? p->stride : p->classes * plane,
                                       .inner = p->inner,
                                       .column_stride = plane,
                                       .per_row = 1});
}

/* ---- bf16 and f16 ---------------------------------------------------------------------------- */

enum { F16_DIGITS = 10, F16_BIAS = 15, F16_INFINITY = 0x7c00 }; /* digits after the leading one */

static float float_of_f16(uint16_t h)
{
    const int field = h >> F16_DIGITS & 31, digits = h & 1023;
    float x = ldexpf((float)(field ? digits + 1024 : digits),
                     (field ? field : 1) - F16_BIAS - F16_DIGITS);

    if (field == 31)
        x = digits ? NAN : INFINITY;
    return h >> 15 ? -x : x;
}

static uint16_t f16_of_float(float x)
{
    const int sign = signbit(x) ? 0x8000 : 0;
    int exponent;

    if (isinf(x))
        return (uint16_t)(sign | F16_INFINITY);
    frexpf(x, &exponent);
    const int field = x != 0.0f && exponent > 1 - F16_BIAS ? exponent + F16_BIAS - 2 : 0;
    /* the leading digit counts as one in the field, and so does a carry */
    const double digits = nearbyint(ldexp(fabs((double)x), F16_DIGITS + F16_BIAS - 1 - field));
    const double bits = field * 1024.0 + digits;
    return (uint16_t)(sign | (bits < F16_INFINITY ? (int)bits : F16_INFINITY));
}

float float_of_half(ballast_dtype dtype, uint16_t bits)
{
    const uint32_t upper = (uint32_t)bits << 16;
    float x;

    if (dtype == BALLAST_F16)
        return float_of_f16(bits);
    memcpy(&x, &upper, sizeof x);
    return x;
}

uint16_t half_of_float(ballast_dtype dtype, float x)
{
    uint32_t bits;

    if (dtype == BALLAST_F16)
        return f16_of_float(x);
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
