/* SPDX-License-Identifier: MIT */
#include "arguments.h"

#include <string.h>

/* No array has more elements: differences of pointers stay in range for the largest dtype. The same
 * for all, as a division by the size would cost more than the rest of the checks. */
#define MAX_ELEMENTS ((int64_t)(PTRDIFF_MAX / 8))

/* No struct of any version is larger: beyond it, struct_size was never set. */
enum { MAX_STRUCT_SIZE = 4096 };

/* ---- Faults ---------------------------------------------------------------------------------- */

void ballast__begin(arguments *in)
{
    in->fault = (ballast_error){BALLAST_OK, NULL, -1, 0, 0.0};
    in->implementation = NULL;
    in->parallel = NULL;
    in->count = 0;
}

void ballast__refuse_element(arguments *in, ballast_status status, const char *name, int64_t index,
                             int64_t integer, double value)
{
    if (in->fault.status == BALLAST_OK)
        in->fault = (ballast_error){status, name, index, integer, value};
}

void ballast__refuse(arguments *in, bool wrong, ballast_status status, const char *name,
                     int64_t integer)
{
    if (wrong)
        ballast__refuse_element(in, status, name, -1, integer, (double)integer);
}

void ballast__refuse_real(arguments *in, bool wrong, const char *name, double value)
{
    if (wrong)
        ballast__refuse_element(in, BALLAST_ERR_OPTION, name, -1, 0, value);
}

ballast_status ballast__report(const arguments *in, ballast_error *error)
{
    if (error && in->fault.status != BALLAST_OK)
        *error = in->fault;
    return in->fault.status;
}

/* ---- Structs --------------------------------------------------------------------------------- */

/* Every struct of the API holds pointers, so no version's size is off their alignment. */
static bool is_struct_size(size_t size, size_t least)
{
    return size >= least && size <= MAX_STRUCT_SIZE && size % _Alignof(void *) == 0;
}

static bool any_set(const unsigned char *bytes, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        if (bytes[i] != 0)
            return true;
    return false;
}

/* The struct is copied even where a fault is known already, or where it sets options that are newer
 * than this library: it says where the error goes. */
void ballast__read_struct(arguments *in, const char *name, void *defaults, size_t size,
                          size_t least, const void *given)
{
    size_t struct_size = 0;

    ballast__refuse(in, !given, BALLAST_ERR_NULL, name, 0);
    if (!given)
        return;
    memcpy(&struct_size, given, sizeof struct_size);
    bool wrong = !is_struct_size(struct_size, least);
    if (!wrong) {
        memcpy(defaults, given, struct_size < size ? struct_size : size);
        wrong = any_set(given, size, struct_size);
    }
    ballast__refuse(in, wrong, BALLAST_ERR_STRUCT_SIZE, name, (int64_t)struct_size);
}

void ballast__read_exec(arguments *in, const ballast_exec *exec)
{
    ballast_exec e = BALLAST_EXEC;

    if (exec)
        ballast__read_struct(in, "exec.struct_size", &e, sizeof e,
                             offsetof(ballast_exec, implementation), exec);
    in->implementation = ballast__implementation_resolve(e.implementation);
    in->parallel = e.parallel;
    ballast__refuse(in, !in->implementation, BALLAST_ERR_ISA, "exec.implementation", 0);
    if (e.parallel) {
        ballast__refuse(in, !e.parallel->run, BALLAST_ERR_NULL, "exec.parallel.run", 0);
        ballast__refuse(in, e.parallel->threads < 1, BALLAST_ERR_OPTION, "exec.parallel.threads",
                        e.parallel->threads);
    }
}

/* ---- Arrays ---------------------------------------------------------------------------------- */

static int64_t size_of(ballast_dtype dtype)
{
    switch (dtype) {
    case BALLAST_U8:
        return 1;
    case BALLAST_F32:
    case BALLAST_I32:
        return 4;
    case BALLAST_F64:
    case BALLAST_I64:
        return 8;
    default:
        return 0;
    }
}

/* Of no dtype, or of a number that is none: the empty set. */
unsigned ballast__only(ballast_dtype dtype) { return size_of(dtype) > 0 ? 1u << dtype : 0; }

static bool is_in(unsigned dtypes, ballast_dtype dtype) { return dtypes & ballast__only(dtype); }

ballast_const_tensor ballast__const_tensor(ballast_tensor t)
{
    return (ballast_const_tensor){t.data,  t.dtype,        t.outer,       t.classes,
                                  t.inner, t.outer_stride, t.class_stride};
}

/* NULL, dtype, sizes: what has to be right before a size may be computed. */
static bool is_sound(arguments *in, const char *name, const ballast_const_tensor *t,
                     unsigned dtypes)
{
    const bool empty = t->outer == 0 || t->classes == 0;

    ballast__refuse(in, !t->data && (t->dtype == BALLAST_DTYPE_NONE || !empty), BALLAST_ERR_NULL,
                    name, 0);
    ballast__refuse(in, !is_in(dtypes, t->dtype), BALLAST_ERR_DTYPE, name, (int64_t)t->dtype);
    ballast__refuse(in, t->outer < 0, BALLAST_ERR_SHAPE, name, t->outer);
    ballast__refuse(in, t->classes < 0, BALLAST_ERR_SHAPE, name, t->classes);
    ballast__refuse(in, t->inner < 0, BALLAST_ERR_SHAPE, name, t->inner);
    return in->fault.status == BALLAST_OK;
}

/* Elements from the first to the last, both included, or -1 where that is beyond any memory. */
static int64_t span_of(const ballast_const_tensor *t)
{
    if (t->outer == 0 || t->classes == 0)
        return 0;
    if (t->classes > MAX_ELEMENTS)
        return -1;
    if (t->outer == 1)
        return t->classes;
    if (t->outer_stride > (MAX_ELEMENTS - t->classes) / (t->outer - 1))
        return -1;
    return (t->outer - 1) * t->outer_stride + t->classes;
}

static bool is_too_large(const ballast_const_tensor *t)
{
    return t->outer > 1 && t->classes > MAX_ELEMENTS / t->outer;
}

static void check_layout(arguments *in, const char *name, const ballast_const_tensor *t,
                         const ballast_const_tensor *like)
{
    ballast__refuse(in, is_too_large(t), BALLAST_ERR_SHAPE, name, t->outer);
    ballast__refuse(in, t->inner != 1, BALLAST_ERR_UNSUPPORTED, name, t->inner);
    ballast__refuse(in, t->class_stride != 1, BALLAST_ERR_UNSUPPORTED, name, t->class_stride);
    if (like) {
        ballast__refuse(in, t->outer != like->outer, BALLAST_ERR_SHAPE, name, t->outer);
        ballast__refuse(in, t->classes != like->classes, BALLAST_ERR_SHAPE, name, t->classes);
    }
    ballast__refuse(in, t->outer > 1 && t->outer_stride < t->classes, BALLAST_ERR_STRIDE, name,
                    t->outer_stride);
}

static void add_array(arguments *in, const char *name, const ballast_const_tensor *t, unsigned use)
{
    const uintptr_t begin = (uintptr_t)t->data, size = (uintptr_t)size_of(t->dtype);
    const int64_t span = span_of(t);

    ballast__refuse(in, span < 0 || (uintptr_t)span * size > UINTPTR_MAX - begin,
                    BALLAST_ERR_SHAPE, name, t->outer_stride);
    ballast__refuse(in, (begin & (size - 1)) != 0, BALLAST_ERR_ALIGNMENT, name, 0);
    if (in->fault.status == BALLAST_OK)
        in->arrays[in->count++] = (array){name, *t, use, begin, begin + (uintptr_t)span * size};
}

void ballast__take_tensor(arguments *in, const char *name, ballast_const_tensor tensor,
                          unsigned dtypes, unsigned use, const ballast_const_tensor *like)
{
    if (in->fault.status != BALLAST_OK || (!tensor.data && !(use & NEEDED)))
        return;
    if (!is_sound(in, name, &tensor, dtypes))
        return;
    check_layout(in, name, &tensor, like);
    if (in->fault.status == BALLAST_OK)
        add_array(in, name, &tensor, use);
}

void ballast__take_array(arguments *in, const char *name, const void *data, ballast_dtype dtype,
                         unsigned dtypes, int64_t count, unsigned use)
{
    const ballast_const_tensor row = {data, dtype, 1, count, 1, count, 1};

    ballast__take_tensor(in, name, row, dtypes, use, NULL);
}

/* ---- Overlaps -------------------------------------------------------------------------------- */

static bool is_same_memory(const ballast_const_tensor *a, const ballast_const_tensor *b)
{
    return a->data == b->data && a->dtype == b->dtype &&
           (a->outer <= 1 || a->outer_stride == b->outer_stride);
}

static bool is_in_place(const array *a, const array *b)
{
    return (a->use & b->use & IN_PLACE) && is_same_memory(&a->tensor, &b->tensor);
}

/* Columns of one wide matrix: rows alternate, but share no element. `a` begins first. */
static bool is_interleaved(const array *a, const array *b)
{
    const uintptr_t a_size = (uintptr_t)size_of(a->tensor.dtype);
    const uintptr_t b_size = (uintptr_t)size_of(b->tensor.dtype);
    const uintptr_t stride = (uintptr_t)a->tensor.outer_stride * a_size;

    if (a->tensor.outer < 2 || b->tensor.outer < 2 ||
        stride != (uintptr_t)b->tensor.outer_stride * b_size)
        return false;
    const uintptr_t distance = (b->begin - a->begin) % stride;
    return distance >= (uintptr_t)a->tensor.classes * a_size &&
           distance + (uintptr_t)b->tensor.classes * b_size <= stride;
}

static bool overlap(const array *a, const array *b)
{
    if (a->begin == a->end || b->begin == b->end || a->end <= b->begin || b->end <= a->begin)
        return false;
    return !(a->begin <= b->begin ? is_interleaved(a, b) : is_interleaved(b, a));
}

void ballast__check_overlaps(arguments *in)
{
    for (int i = 0; i < in->count; i++)
        for (int j = 0; j < in->count; j++) {
            const array *output = &in->arrays[i], *other = &in->arrays[j];

            if (i != j && output->use & WRITTEN && overlap(output, other))
                ballast__refuse(in, !is_in_place(output, other), BALLAST_ERR_OVERLAP, output->name,
                                0);
        }
}

/* ---- Kernels --------------------------------------------------------------------------------- */

#if BALLAST_HAVE_F64
#define F64_KERNELS &ballast__kernels_f64_reference
#else
#define F64_KERNELS NULL
#endif

const kernel_table *ballast__kernels_for(arguments *in, const char *name, ballast_dtype dtype)
{
    if (in->fault.status != BALLAST_OK)
        return NULL;
    const kernel_table *table = dtype == BALLAST_F32 ? in->implementation->f32 : F64_KERNELS;
    ballast__refuse(in, !table, BALLAST_ERR_UNSUPPORTED, name, (int64_t)dtype);
    return table;
}
