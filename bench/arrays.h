/* SPDX-License-Identifier: MIT */
/* The arrays of a case: memory with a pattern around what is used, and elements of every dtype. */
#ifndef BALLAST_BENCH_ARRAYS_H
#define BALLAST_BENCH_ARRAYS_H

#include "cases.h"

#include <string.h>

/* What memory holds where nothing was written: every byte. */
enum { FILL = 0xA5 };

/* Ends the program where there is no memory. To be freed. */
void *allocate(size_t bytes);

case_array make_array(const problem *p, const char *name, ballast_dtype dtype, int64_t rows,
                      int64_t columns);

/* Of the problem's rows, classes and stride. */
case_array make_matrix(const problem *p, const char *name, ballast_dtype dtype);

static inline size_t size_of(ballast_dtype dtype)
{
    switch (dtype) {
    case BALLAST_U8:
        return 1;
    case BALLAST_BF16:
    case BALLAST_F16:
        return 2;
    case BALLAST_F32:
    case BALLAST_I32:
        return 4;
    default:
        return 8;
    }
}

static inline void *at(const case_array *a, int64_t row, int64_t column)
{
    const int64_t start = row / a->inner * a->stride + row % a->inner;

    return (char *)a->data + (size_t)(start + column * a->column_stride) * size_of(a->dtype);
}

static inline int is_half(ballast_dtype dtype)
{
    return dtype == BALLAST_BF16 || dtype == BALLAST_F16;
}

/* Of weights, row losses and whatever else is one per row or class. */
static inline ballast_dtype row_dtype(ballast_dtype dtype)
{
    return dtype == BALLAST_F64 ? BALLAST_F64 : BALLAST_F32;
}

/* bf16 or f16. */
float float_of_half(ballast_dtype dtype, uint16_t bits);
uint16_t half_of_float(ballast_dtype dtype, float x); /* x no NaN; to nearest, ties to even */

static inline double real_at(const case_array *a, int64_t row, int64_t column)
{
    const void *p = at(a, row, column);

    if (is_half(a->dtype))
        return (double)float_of_half(a->dtype, *(const uint16_t *)p);
    return a->dtype == BALLAST_F32 ? (double)*(const float *)p : *(const double *)p;
}

/* A factor that is 1 where it is not given. */
static inline double factor_at(const case_array *a, int64_t row, int64_t column)
{
    return a->data ? real_at(a, row, column) : 1.0;
}

static inline int64_t integer_at(const case_array *a, int64_t row, int64_t column)
{
    const void *p = at(a, row, column);

    switch (a->dtype) {
    case BALLAST_U8:
        return *(const uint8_t *)p;
    case BALLAST_I32:
        return *(const int32_t *)p;
    default:
        return *(const int64_t *)p;
    }
}

/* All columns of a row, from contiguous memory. */
static inline void put_row(const case_array *a, int64_t row, const void *from)
{
    const size_t size = size_of(a->dtype);

    for (int64_t c = 0; c < a->columns; c++)
        memcpy(at(a, row, c), (const char *)from + (size_t)c * size, size);
}

static inline void load_row(const case_array *a, int64_t row, double *to)
{
    for (int64_t c = 0; c < a->columns; c++)
        to[c] = real_at(a, row, c);
}

static inline void store_real(ballast_dtype dtype, void *row, int64_t column, double value)
{
    if (is_half(dtype))
        ((uint16_t *)row)[column] = half_of_float(dtype, (float)value);
    else if (dtype == BALLAST_F32)
        ((float *)row)[column] = (float)value;
    else
        ((double *)row)[column] = value;
}

/* Bits, so that no signalling NaN passes through a register that would make it quiet. */
static inline void store_bits(ballast_dtype dtype, void *row, int64_t column, uint64_t bits)
{
    const uint32_t low = (uint32_t)bits;

    if (is_half(dtype))
        ((uint16_t *)row)[column] = (uint16_t)bits;
    else if (dtype == BALLAST_F32)
        memcpy((char *)row + column * 4, &low, 4);
    else
        memcpy((char *)row + column * 8, &bits, 8);
}

static inline void store_integer(const case_array *a, int64_t row, int64_t value)
{
    void *p = at(a, row, 0);

    if (a->dtype == BALLAST_U8)
        *(uint8_t *)p = (uint8_t)value;
    else if (a->dtype == BALLAST_I32)
        *(int32_t *)p = (int32_t)value;
    else
        *(int64_t *)p = value;
}

#endif
