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
    in->implementation_named = false;
    in->parallel = NULL;
    in->tuning = (tuning){0, false};
    in->slowness = 1.0;
    in->count = 0;
}

void ballast__refuse_element(arguments *in, ballast_status status, const char *name, int64_t index,
                             int64_t integer, double value)
{
    if (in->fault.status == BALLAST_OK)
        in->fault = (ballast_error){status, name, index, integer, value};
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

/* The struct is read even where a fault is known already, or where it sets options that are newer
 * than this library: it says where the error goes. It is not copied where that can be helped: the
 * copies were a quarter of a short call. */
const void *ballast__read_struct(arguments *in, const struct_layout *layout, const void *given,
                                 void *room)
{
    size_t size = 0;

    ballast__refuse(in, !given, BALLAST_ERR_NULL, layout->name, 0);
    if (!given)
        return layout->defaults;
    memcpy(&size, given, sizeof size);
    const bool wrong = !is_struct_size(size, layout->least);
    ballast__refuse(in, wrong || any_set(given, layout->size, size), BALLAST_ERR_STRUCT_SIZE,
                    layout->name, (int64_t)size);
    if (wrong)
        return layout->defaults;
    if (size >= layout->size)
        return given;
    memcpy(room, layout->defaults, layout->size);
    memcpy(room, given, size);
    return room;
}

DEFINE_LAYOUT(exec_layout, "exec.struct_size", ballast_exec, BALLAST_EXEC, implementation);

void ballast__read_exec(arguments *in, const ballast_exec *exec)
{
    ballast_exec room;
    const ballast_exec *e = exec ? ballast__read_struct(in, &exec_layout, exec, &room)
                                 : &exec_layout_defaults;

    in->implementation = ballast__implementation_resolve(e->implementation);
    in->implementation_named = e->implementation != NULL;
    in->parallel = e->parallel;
    ballast__refuse(in, !in->implementation, BALLAST_ERR_ISA, "exec.implementation", 0);
    if (e->parallel) {
        ballast__refuse(in, !e->parallel->run, BALLAST_ERR_NULL, "exec.parallel.run", 0);
        ballast__refuse(in, e->parallel->threads < 1, BALLAST_ERR_OPTION, "exec.parallel.threads",
                        e->parallel->threads);
    }
}

/* ---- Arrays ---------------------------------------------------------------------------------- */

/* a b > limit, for sizes; divides only where the product could overflow. */
static bool product_exceeds(int64_t a, int64_t b, int64_t limit)
{
    if (a <= INT32_MAX && b <= INT32_MAX)
        return a * b > limit;
    return a > 0 && b > limit / a;
}

/* NULL and dtype: what every array has. These return whether something is wrong. */
static bool wrong_data(arguments *in, const char *name, const void *data, ballast_dtype dtype,
                       unsigned dtypes, bool empty)
{
    return ballast__refuse(in, !data && (dtype == BALLAST_DTYPE_NONE || !empty), BALLAST_ERR_NULL,
                           name, 0) ||
           ballast__refuse(in, !ballast__is_in(dtypes, dtype), BALLAST_ERR_DTYPE, name,
                           (int64_t)dtype);
}

static bool is_empty(const ballast_const_tensor *t)
{
    return t->outer == 0 || t->classes == 0 || t->inner == 0;
}

/* Sizes, before anything is computed of them. Of sizes below 2^28 none is negative, and no product
 * of two exceeds MAX_ELEMENTS: one look at all of them tells. */
static bool wrong_shape(arguments *in, const char *name, const ballast_const_tensor *t)
{
    if ((uint64_t)(t->outer | t->classes | t->inner) >> 28 == 0)
        return false;
    return ballast__refuse(in, t->outer < 0, BALLAST_ERR_SHAPE, name, t->outer) ||
           ballast__refuse(in, t->classes < 0, BALLAST_ERR_SHAPE, name, t->classes) ||
           ballast__refuse(in, t->inner < 0, BALLAST_ERR_SHAPE, name, t->inner) ||
           ballast__refuse(in,
                           t->outer > 1 && product_exceeds(t->outer, t->classes, MAX_ELEMENTS),
                           BALLAST_ERR_SHAPE, name, t->outer);
}

static bool wrong_shape_beside(arguments *in, const char *name, const ballast_const_tensor *t,
                               const ballast_const_tensor *like)
{
    return ballast__refuse(in, t->outer != like->outer, BALLAST_ERR_SHAPE, name, t->outer) ||
           ballast__refuse(in, t->classes != like->classes, BALLAST_ERR_SHAPE, name, t->classes) ||
           ballast__refuse(in, t->inner != like->inner, BALLAST_ERR_SHAPE, name, t->inner);
}

static bool not_planes(arguments *in, const char *name, const ballast_const_tensor *t)
{
    return ballast__refuse(in, t->inner != 1, BALLAST_ERR_UNSUPPORTED, name, t->inner) ||
           ballast__refuse(in, t->class_stride != 1, BALLAST_ERR_UNSUPPORTED, name,
                           t->class_stride);
}

static bool is_matrix(const ballast_const_tensor *t)
{
    return t->inner == 1 && t->class_stride == 1;
}

/* Elements from the first to the last of `count` pieces, both included, or -1 where that is beyond any
 * memory. */
static int64_t span_of(int64_t count, int64_t stride, int64_t piece)
{
    if (count == 0 || piece == 0)
        return 0;
    if (piece < 0 || piece > MAX_ELEMENTS)
        return -1;
    if (count == 1)
        return piece;
    if (product_exceeds(count - 1, stride, MAX_ELEMENTS - piece))
        return -1;
    return (count - 1) * stride + piece;
}

/* Puts it on the list: `span` elements from the first to the last, in rows of `row`, `stride` apart
 * (0: one row). Returns its place there; NULL where something is wrong, or it has no elements. */
static inline array *add_array(arguments *in, const char *name, const void *data,
                               ballast_dtype dtype, unsigned use, int64_t span, int64_t row,
                               int64_t stride)
{
    const uintptr_t begin = (uintptr_t)data, size = ballast__size_of(dtype);

    if (ballast__refuse(in, span < 0 || (uintptr_t)span * size > UINTPTR_MAX - begin,
                        BALLAST_ERR_SHAPE, name, stride ? stride : row) ||
        ballast__refuse(in, (begin & (size - 1)) != 0, BALLAST_ERR_ALIGNMENT, name, 0) || span == 0)
        return NULL;
    array *a = &in->arrays[in->count++];
    a->name = name;
    a->dtype = dtype;
    a->use = use;
    a->begin = begin;
    a->end = begin + (uintptr_t)span * size;
    a->row_bytes = (uintptr_t)row * size;
    a->row_stride = (uintptr_t)stride * size;
    a->plane_bytes = a->plane_stride = 0;
    return a;
}

/* Any inner and class_stride: sizes, then strides from the inside out. Out of line, for it needs
 * more registers than a matrix does. */
static __attribute__((noinline)) void take_planes(arguments *in, const char *name,
                                                  const ballast_const_tensor *t, unsigned use)
{
    const int64_t rows = t->outer > 1 ? t->outer_stride : 0;
    const bool has_planes = t->classes > 1 && t->inner > 0 && t->outer > 0;

    if (ballast__refuse(in, product_exceeds(t->outer, t->inner, MAX_ELEMENTS), BALLAST_ERR_SHAPE,
                        name, t->inner) ||
        ballast__refuse(in, has_planes && t->class_stride < t->inner, BALLAST_ERR_STRIDE, name,
                        t->class_stride) ||
        ballast__refuse(in, product_exceeds(ballast__row_count(t), t->classes, MAX_ELEMENTS),
                        BALLAST_ERR_SHAPE, name, t->outer))
        return;
    const int64_t row = span_of(t->classes, t->class_stride, t->inner);
    if (ballast__refuse(in, row < 0, BALLAST_ERR_SHAPE, name, t->class_stride) ||
        ballast__refuse(in, t->outer > 1 && t->outer_stride < row, BALLAST_ERR_STRIDE, name,
                        t->outer_stride))
        return;
    array *a = add_array(in, name, t->data, t->dtype, use,
                         span_of(t->outer, t->outer_stride, row), row, rows);
    if (a && has_planes) {
        a->plane_bytes = (uintptr_t)t->inner * ballast__size_of(t->dtype);
        a->plane_stride = (uintptr_t)t->class_stride * ballast__size_of(t->dtype);
    }
}

static void take_matrix(arguments *in, const char *name, const ballast_const_tensor *t,
                        unsigned use)
{
    const bool rows = t->outer > 1;

    if (ballast__refuse(in, rows && t->outer_stride < t->classes, BALLAST_ERR_STRIDE, name,
                        t->outer_stride))
        return;
    add_array(in, name, t->data, t->dtype, use, span_of(t->outer, t->outer_stride, t->classes),
              t->classes, rows ? t->outer_stride : 0);
}

void ballast__take_given_tensor(arguments *in, const char *name, const ballast_const_tensor *t,
                                unsigned dtypes, unsigned use, const ballast_const_tensor *like)
{
    if (in->fault.status != BALLAST_OK ||
        wrong_data(in, name, t->data, t->dtype, dtypes, !t->data && is_empty(t)) ||
        wrong_shape(in, name, t) || (!(use & PLANES) && not_planes(in, name, t)) ||
        (like && wrong_shape_beside(in, name, t, like)))
        return;
    if (is_matrix(t))
        take_matrix(in, name, t, use);
    else
        take_planes(in, name, t, use);
}

void ballast__take_given_output(arguments *in, const char *name, const ballast_tensor *t,
                                unsigned dtypes, unsigned use, const ballast_const_tensor *like)
{
    const ballast_const_tensor tensor = {t->data,  t->dtype,        t->outer,       t->classes,
                                         t->inner, t->outer_stride, t->class_stride};
    ballast__take_given_tensor(in, name, &tensor, dtypes, use | WRITTEN, like);
}

void ballast__take_given_array(arguments *in, const char *name, const void *data,
                               ballast_dtype dtype, unsigned dtypes, int64_t count, unsigned use)
{
    if (in->fault.status != BALLAST_OK ||
        wrong_data(in, name, data, dtype, dtypes, count == 0) ||
        ballast__refuse(in, count < 0, BALLAST_ERR_SHAPE, name, count))
        return;
    add_array(in, name, data, dtype, use, count <= MAX_ELEMENTS ? count : -1, count, 0);
}

/* ---- Overlaps -------------------------------------------------------------------------------- */

static bool is_in_place(const array *a, const array *b)
{
    return (a->use & b->use & IN_PLACE) && a->begin == b->begin && a->dtype == b->dtype &&
           a->row_stride == b->row_stride && a->plane_stride == b->plane_stride;
}

/* Both repeat after `period` bytes, and use so many bytes of each. `a` begins first. */
static bool alternate(const array *a, uintptr_t a_bytes, const array *b, uintptr_t b_bytes,
                      uintptr_t period)
{
    const uintptr_t distance = (b->begin - a->begin) % period;

    return distance >= a_bytes && distance + b_bytes <= period;
}

/* Columns of one wide matrix, or crops of one wide image: rows alternate, or planes, but share no
 * element. `a` begins first. */
static bool is_interleaved(const array *a, const array *b)
{
    const uintptr_t rows = a->row_stride, planes = a->plane_stride;

    if (rows != 0 && rows == b->row_stride && alternate(a, a->row_bytes, b, b->row_bytes, rows))
        return true;
    return planes != 0 && planes == b->plane_stride && rows % planes == 0 &&
           b->row_stride % planes == 0 && alternate(a, a->plane_bytes, b, b->plane_bytes, planes);
}

static bool are_apart(const array *a, const array *b)
{
    return a->end <= b->begin || b->end <= a->begin;
}

static void check_overlap(arguments *in, const array *output, const array *other)
{
    const bool interleaved = output->begin <= other->begin ? is_interleaved(output, other)
                                                           : is_interleaved(other, output);

    ballast__refuse(in, !interleaved && !is_in_place(output, other), BALLAST_ERR_OVERLAP,
                    output->name, 0);
}

void ballast__check_overlaps(arguments *in)
{
    const array *const end = in->arrays + in->count;

    for (const array *output = in->arrays; output < end; output++) {
        if (!(output->use & WRITTEN))
            continue;
        for (const array *other = in->arrays; other < end; other++)
            if (!are_apart(output, other) && other != output)
                check_overlap(in, output, other);
    }
}

/* ---- Kernels --------------------------------------------------------------------------------- */

#if BALLAST_HAVE_F64
#define F64_KERNELS &ballast__kernels_f64_reference
#else
#define F64_KERNELS NULL
#endif

static const kernel_table *table_of(const ballast_implementation *i, ballast_dtype dtype)
{
    switch (dtype) {
    case BALLAST_F32:
        return i->f32;
    case BALLAST_BF16:
        return i->bf16;
    case BALLAST_F16:
        return i->f16;
    default:
        return F64_KERNELS;
    }
}

void ballast__tune(arguments *in, tuned_operation operation, ballast_dtype dtype, int64_t rows,
                   int64_t classes)
{
    if (in->fault.status != BALLAST_OK)
        return;
    in->tuning = ballast__tuning_of(operation, dtype, rows, classes);
    if (in->tuning.word == 0 || in->implementation_named)
        return;
    const int64_t isa = ballast__chosen(in->tuning, CHOOSE_ISA);
    if (isa >= 0)
        in->implementation = ballast__implementation_tuned((ballast__isa)isa);
}

const kernel_table *ballast__kernels_for(arguments *in, const char *name, ballast_dtype dtype)
{
    if (in->fault.status != BALLAST_OK)
        return NULL;
    const kernel_table *table = table_of(in->implementation, dtype);
    in->slowness = dtype == BALLAST_F64 ? F64_SLOWNESS : in->implementation->slowness;
    ballast__refuse(in, !table, BALLAST_ERR_UNSUPPORTED, name, (int64_t)dtype);
    return table;
}
