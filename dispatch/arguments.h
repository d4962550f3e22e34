/* SPDX-License-Identifier: MIT */
/* Reading and checking the arguments of a call.
 *
 * An `arguments` keeps the first fault that was found; after that, every check does nothing. So the
 * checks of a call are a plain list, in the order in which faults take precedence. */
#ifndef BALLAST_DISPATCH_ARGUMENTS_H
#define BALLAST_DISPATCH_ARGUMENTS_H

#include <stdbool.h>

#include "implementation.h"

/* How an array is used. NEEDED: NULL only where it has no elements. A call's output with IN_PLACE,
 * one at most, may be exactly one of its inputs with IN_PLACE. */
enum { NEEDED = 1, WRITTEN = 2, IN_PLACE = 4 };

/* Sets of dtypes. */
enum {
    REAL_DTYPES = 1 << BALLAST_F32 | 1 << BALLAST_F64,
    LABEL_DTYPES = 1 << BALLAST_I32 | 1 << BALLAST_I64 | 1 << BALLAST_U8
};
unsigned ballast__only(ballast_dtype dtype);

/* An argument as memory. */
typedef struct array {
    const char *name;
    ballast_const_tensor tensor;
    unsigned use;
    uintptr_t begin, end; /* equal where there are no elements */
} array;

enum { MAX_ARRAYS = 10 };

typedef struct arguments {
    ballast_error fault; /* status BALLAST_OK: none */
    const ballast_implementation *implementation;
    const ballast_parallel *parallel;
    array arrays[MAX_ARRAYS];
    int count;
} arguments;

void ballast__begin(arguments *in);

/* Copies the caller's struct over the defaults, as far as struct_size says. `size` is that of
 * today's struct, `least` that of the part that every caller has. `name`: what to call it. */
void ballast__read_struct(arguments *in, const char *name, void *defaults, size_t size,
                          size_t least, const void *given);

/* How to run: the implementation, and threads if any. */
void ballast__read_exec(arguments *in, const ballast_exec *exec);

/* Stores the fault, if any, where the caller wants it, and returns its status. */
ballast_status ballast__report(const arguments *in, ballast_error *error);

/* Where nothing was found yet and `wrong`, that is the fault. */
void ballast__refuse(arguments *in, bool wrong, ballast_status status, const char *name,
                     int64_t integer);
void ballast__refuse_real(arguments *in, bool wrong, const char *name, double value);
void ballast__refuse_element(arguments *in, ballast_status status, const char *name, int64_t index,
                             int64_t integer, double value);

/* Checks an array's pointer, dtype, shape (that of `like`, unless NULL), strides and alignment, and
 * puts it on the list. One that is not given is passed over, unless it is NEEDED. */
void ballast__take_tensor(arguments *in, const char *name, ballast_const_tensor tensor,
                          unsigned dtypes, unsigned use, const ballast_const_tensor *like);
void ballast__take_array(arguments *in, const char *name, const void *data, ballast_dtype dtype,
                         unsigned dtypes, int64_t count, unsigned use);

/* No output of the list may overlap anything else of it. */
void ballast__check_overlaps(arguments *in);

/* The kernels for a dtype. */
const kernel_table *ballast__kernels_for(arguments *in, const char *name, ballast_dtype dtype);

ballast_const_tensor ballast__const_tensor(ballast_tensor tensor);

#endif
