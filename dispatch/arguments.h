/* SPDX-License-Identifier: MIT */
/* Reading and checking the arguments of a call.
 *
 * An `arguments` keeps the first fault that was found; after that, every check does nothing. So the
 * checks of a call are a plain list, in the order in which faults take precedence. */
#ifndef BALLAST_DISPATCH_ARGUMENTS_H
#define BALLAST_DISPATCH_ARGUMENTS_H

#include <stdbool.h>

#include "implementation.h"
#include "tuning.h"

/* How an array is used. NEEDED: NULL only where it has no elements. A call's output with IN_PLACE,
 * one at most, may be exactly one of its inputs with IN_PLACE. PLANES: inner and class_stride may be
 * other than 1. */
enum { NEEDED = 1, WRITTEN = 2, IN_PLACE = 4, PLANES = 8 };

/* Sets of dtypes: a bit for each. */
enum {
    ROW_DTYPES = 1 << BALLAST_F32 | 1 << BALLAST_F64, /* weights, and whatever is one per row */
    REAL_DTYPES = ROW_DTYPES | 1 << BALLAST_BF16 | 1 << BALLAST_F16,
    LABEL_DTYPES = 1 << BALLAST_I32 | 1 << BALLAST_I64 | 1 << BALLAST_U8
};
/* Of no dtype, or of a number that is none: the empty set. */
static inline unsigned ballast__only(ballast_dtype dtype)
{
    const unsigned all = REAL_DTYPES | LABEL_DTYPES;

    return (unsigned)dtype <= BALLAST_U8 ? 1u << dtype & all : 0;
}

static inline bool ballast__is_in(unsigned dtypes, ballast_dtype dtype)
{
    return (dtypes & ballast__only(dtype)) != 0;
}

/* Bytes of an element; 0 of what is no dtype. */
static inline size_t ballast__size_of(ballast_dtype dtype)
{
    static const unsigned char sizes[] = {
        [BALLAST_F32] = 4, [BALLAST_F64] = 8, [BALLAST_BF16] = 2, [BALLAST_F16] = 2,
        [BALLAST_I32] = 4, [BALLAST_I64] = 8, [BALLAST_U8] = 1,
    };

    return (unsigned)dtype < sizeof sizes ? sizes[dtype] : 0;
}

/* Of the weights and row losses that go with logits of a dtype: f32, or f64 with f64. */
static inline ballast_dtype ballast__row_dtype(ballast_dtype dtype)
{
    return dtype == BALLAST_F64 ? BALLAST_F64 : BALLAST_F32;
}

/* An argument as memory: rows of row_bytes, row_stride apart (0 where there is one row at most); in
 * them planes of plane_bytes, plane_stride apart (0 where there is one at most, or classes are
 * neighbours). With planes, a row is all of one outer index. */
typedef struct array {
    const char *name;
    ballast_dtype dtype;
    unsigned use;
    uintptr_t begin, end;
    uintptr_t row_bytes, row_stride;
    uintptr_t plane_bytes, plane_stride;
} array;

enum { MAX_ARRAYS = 10 };

typedef struct arguments {
    ballast_error fault; /* status BALLAST_OK: none */
    const ballast_implementation *implementation;
    bool implementation_named; /* by the caller */
    const ballast_parallel *parallel;
    tuning tuning;
    double slowness; /* of the kernels, see implementation.h */
    array arrays[MAX_ARRAYS]; /* those with elements */
    int count;
} arguments;

void ballast__begin(arguments *in);

/* A struct of the API: the size it has today, of which every caller has the `least` first bytes. */
typedef struct struct_layout {
    const char *name; /* of the member that holds the size, for errors */
    const void *defaults;
    size_t size, least;
} struct_layout;

/* `first_newer`: the first member that a caller may lack. */
#define DEFINE_LAYOUT(layout, name, type, initialiser, first_newer)                               \
    static const type layout##_defaults = initialiser;                                            \
    static const struct_layout layout = {name, &layout##_defaults, sizeof(type),                  \
                                         offsetof(type, first_newer)}

/* The caller's struct, where it has all of today's members. Else what it has is copied to `room`,
 * over the defaults. */
const void *ballast__read_struct(arguments *in, const struct_layout *layout, const void *given,
                                 void *room);

/* How to run: the implementation, and threads if any. */
void ballast__read_exec(arguments *in, const ballast_exec *exec);

/* The implementation that a call is to run on serially; NULL where `exec` says more than that, or
 * something wrong. */
static inline const ballast_implementation *ballast__serial_implementation(const ballast_exec *exec)
{
    if (!exec)
        return ballast__implementation_resolve(NULL);
    if (exec->struct_size != sizeof *exec || exec->parallel)
        return NULL;
    return ballast__implementation_resolve(exec->implementation);
}

/* Stores the fault, if any, where the caller wants it, and returns its status. */
ballast_status ballast__report(const arguments *in, ballast_error *error);

/* Where nothing was found yet, that is the fault. */
void ballast__refuse_element(arguments *in, ballast_status status, const char *name, int64_t index,
                             int64_t integer, double value);

/* Where nothing was found yet and `wrong`, that is the fault. Returns `wrong`: a chain of || ends
 * at the first fault. Inline, for nothing is wrong. */
static inline bool ballast__refuse(arguments *in, bool wrong, ballast_status status,
                                   const char *name, int64_t integer)
{
    if (wrong)
        ballast__refuse_element(in, status, name, -1, integer, (double)integer);
    return wrong;
}

static inline void ballast__refuse_real(arguments *in, bool wrong, const char *name, double value)
{
    if (wrong)
        ballast__refuse_element(in, BALLAST_ERR_OPTION, name, -1, 0, value);
}

/* Checks an array's pointer, dtype, shape (that of `like`, unless NULL), strides and alignment, and
 * puts it on the list. */
void ballast__take_given_tensor(arguments *in, const char *name, const ballast_const_tensor *tensor,
                                unsigned dtypes, unsigned use, const ballast_const_tensor *like);
void ballast__take_given_output(arguments *in, const char *name, const ballast_tensor *tensor,
                                unsigned dtypes, unsigned use, const ballast_const_tensor *like);
void ballast__take_given_array(arguments *in, const char *name, const void *data,
                               ballast_dtype dtype, unsigned dtypes, int64_t count, unsigned use);

/* The same; one that is not given is passed over, unless it is NEEDED. Inline, for most are not. */
static inline void ballast__take_tensor(arguments *in, const char *name,
                                        const ballast_const_tensor *tensor, unsigned dtypes,
                                        unsigned use, const ballast_const_tensor *like)
{
    if (tensor->data || (use & NEEDED))
        ballast__take_given_tensor(in, name, tensor, dtypes, use, like);
}

static inline void ballast__take_output(arguments *in, const char *name,
                                        const ballast_tensor *tensor, unsigned dtypes,
                                        unsigned use, const ballast_const_tensor *like)
{
    if (tensor->data || (use & NEEDED))
        ballast__take_given_output(in, name, tensor, dtypes, use, like);
}

static inline void ballast__take_array(arguments *in, const char *name, const void *data,
                                       ballast_dtype dtype, unsigned dtypes, int64_t count,
                                       unsigned use)
{
    if (data || (use & NEEDED))
        ballast__take_given_array(in, name, data, dtype, dtypes, count, use);
}

/* outer * inner; no number to rely on before the tensor is taken. */
static inline int64_t ballast__row_count(const ballast_const_tensor *tensor)
{
    return (int64_t)((uint64_t)tensor->outer * (uint64_t)tensor->inner);
}

/* Whether the classes of a row are neighbours; also where there are none. */
static inline bool ballast__has_rows(int64_t classes, int64_t inner, int64_t class_stride)
{
    return classes == 0 || (inner == 1 && class_stride == 1);
}

/* No output of the list may overlap anything else of it. */
void ballast__check_overlaps(arguments *in);

/* What is chosen for a problem of that shape; before the kernels are asked for. */
void ballast__tune(arguments *in, tuned_operation operation, ballast_dtype dtype, int64_t rows,
                   int64_t classes);

/* The kernels for a dtype. */
const kernel_table *ballast__kernels_for(arguments *in, const char *name, ballast_dtype dtype);

/* ---- A quick look --------------------------------------------------------------------------- */

/* Most calls give a few small matrices with nothing wrong about them. To see no more than that takes
 * a quarter of the instructions. What is not plain need not be wrong: the checks above tell. */

/* What an argument takes of memory; nothing where begin is end. */
typedef struct byte_range {
    uintptr_t begin, end;
} byte_range;

static inline byte_range ballast__bytes(const void *data, size_t bytes)
{
    return (byte_range){(uintptr_t)data, (uintptr_t)data + (data ? bytes : 0)};
}

static inline bool ballast__are_apart(byte_range a, byte_range b)
{
    return a.end <= b.begin || b.end <= a.begin;
}

/* Aligned to `size`, a power of two, and not around the end of the address space. */
static inline bool ballast__is_plain_range(byte_range r, size_t size)
{
    return (r.begin & (size - 1)) == 0 && r.begin <= r.end;
}

/* Sizes, and strides beyond them, of a plain matrix: no product of two is out of range. */
enum { PLAIN_BITS = 12 };

/* A matrix that has elements, of `size` bytes each, and its classes side by side. */
static inline bool ballast__is_plain(const ballast_const_tensor *t, size_t size, byte_range *bytes)
{
    const uint64_t classes = (uint64_t)t->classes, stride = (uint64_t)t->outer_stride,
                   last_row = (uint64_t)t->outer - 1;

    if ((last_row | (classes - 1) | (stride - classes)) >> PLAIN_BITS != 0 ||
        ((t->inner ^ 1) | (t->class_stride ^ 1)) != 0)
        return false;
    *bytes = ballast__bytes(t->data, (size_t)(last_row * stride + classes) * size);
    return t->data && ballast__is_plain_range(*bytes, size);
}

/* An output like a plain input of `input` bytes, and apart from it or in its place; or none. */
static inline bool ballast__is_plain_output(const ballast_tensor *t, size_t size,
                                            const ballast_const_tensor *like, byte_range input,
                                            byte_range *bytes)
{
    const int64_t other = (t->outer ^ like->outer) | (t->classes ^ like->classes) |
                          (t->inner ^ like->inner) | (t->outer_stride ^ like->outer_stride) |
                          (t->class_stride ^ like->class_stride);

    *bytes = ballast__bytes(t->data, input.end - input.begin);
    if (!t->data)
        return true;
    return other == 0 && t->dtype == like->dtype && ballast__is_plain_range(*bytes, size) &&
           (bytes->begin == input.begin || ballast__are_apart(*bytes, input));
}

#endif
