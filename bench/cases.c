/* SPDX-License-Identifier: MIT */
/* The table of operations, and how their cases are made, run and compared. */
#include "operation.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const operation *const operations[] = {
    &operation_softmax,
    &operation_log_softmax,
    &operation_log_sum_exp,
    &operation_softmax_backward,
    &operation_log_softmax_backward,
    &operation_cross_entropy,
    &operation_binary_cross_entropy,
    &operation_sigmoid_focal,
    &operation_weighted_sum,
    &operation_weighted_mean,
    &operation_weighted_sum_of_squares,
    &operation_dot,
    &operation_weighted_log_sum_exp,
    &operation_per_class,
    &operation_class_balanced_loss,
};

const operation *operation_at(int index)
{
    const int count = (int)(sizeof operations / sizeof operations[0]);

    return index >= 0 && index < count ? operations[index] : NULL;
}

const operation *operation_find(const char *name, size_t length)
{
    for (int i = 0; operation_at(i); i++) {
        const operation *op = operation_at(i);

        if (strlen(op->name) == length && strncmp(op->name, name, length) == 0)
            return op;
    }
    return NULL;
}

int operation_has_dtype(const operation *op, ballast_dtype dtype)
{
    return !is_half(dtype) || op->outputs[0].shape != OUT_CLASSES;
}

/* ---- Cases ----------------------------------------------------------------------------------- */

void case_make(const problem *p, case_data *c)
{
    memset(c, 0, sizeof *c);
    c->p = *p;
    c->library = &library_linked;
    c->ignore_index = -100;
    p->operation->make(c);
}

void case_free(case_data *c)
{
    for (int i = 0; i < CASE_INPUTS && !c->is_view; i++)
        free(c->in[i].memory);
    memset(c, 0, sizeof *c);
}

static case_array make_output(const problem *p, const case_output *o)
{
    switch (o->shape) {
    case OUT_MATRIX:
        return make_matrix(p, o->name, p->dtype);
    case OUT_ROWS:
        return make_array(p, o->name, row_dtype(p->dtype), p->rows, 1);
    case OUT_NUMBER:
        return make_array(p, o->name, BALLAST_F64, 1, 1);
    default:
        return make_array(p, o->name, o->shape == OUT_COUNTS ? BALLAST_I64 : BALLAST_F64, 1,
                          p->classes);
    }
}

void case_results_make(const case_data *c, case_results *out)
{
    const unsigned wanted = problem_outputs(&c->p);

    memset(out, 0, sizeof *out);
    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (wanted >> k & 1) {
            const case_output *o = &c->p.operation->outputs[k];

            out->out[k] = make_output(&c->p, o);
            out->out[k].per_row = o->shape == OUT_MATRIX || o->shape == OUT_ROWS;
        }
}

void case_results_free(case_results *out)
{
    for (int k = 0; k < CASE_OUTPUTS && !out->is_view; k++)
        free(out->out[k].memory);
    memset(out, 0, sizeof *out);
}

/* Rows [begin, end) of an array, whole outer indices where there are planes; nothing of one that is not made of the problem's rows. */
static case_array rows_of(const case_array *a, int64_t begin, int64_t end)
{
    case_array view = *a;

    if (a->data) {
        view.data = at(a, begin, 0);
        view.rows = end - begin;
    }
    return view;
}

void case_rows(const case_data *c, int64_t begin, int64_t end, case_data *view)
{
    *view = *c;
    view->is_view = 1;
    view->p.rows = end - begin;
    for (int i = 0; i < CASE_INPUTS; i++)
        if (i != IN_CLASS_WEIGHT && i != IN_COUNTS)
            view->in[i] = rows_of(&c->in[i], begin, end);
}

void case_results_rows(const case_results *r, int64_t begin, int64_t end, case_results *view)
{
    const case_array none = {0};

    view->is_view = 1;
    for (int k = 0; k < CASE_OUTPUTS; k++)
        view->out[k] = r->out[k].per_row ? rows_of(&r->out[k], begin, end) : none;
}

/* The input that an output replaces; NULL where there is none. */
static const case_array *replaced_input(const case_data *c, const case_array *out, int k)
{
    const int is_backward = c->in[IN_GRAD].data != NULL;

    if (!c->p.inplace || !out->data || c->p.operation->outputs[k].shape != OUT_MATRIX
        || strcmp(out->name, "element_loss") == 0)
        return NULL;
    return &c->in[is_backward && c->p.inplace == 1 ? IN_GRAD : IN_X];
}

void case_results_reset(const case_data *c, case_results *r)
{
    for (int k = 0; k < CASE_OUTPUTS; k++) {
        case_array *out = &r->out[k];
        const case_array *in = replaced_input(c, out, k);

        if (out->data && !r->is_view)
            memset(out->memory, FILL, out->bytes);
        for (int64_t i = 0; in && i < out->rows; i++)
            for (int64_t j = 0; j < out->columns; j++)
                memcpy(at(out, i, j), at(in, i, j), size_of(out->dtype));
    }
}

ballast_status case_run(const case_data *c, const ballast_implementation *implementation,
                        const ballast_parallel *parallel, case_results *out)
{
    ballast_exec exec = BALLAST_EXEC;

    exec.implementation = implementation;
    exec.parallel = parallel;
    case_results_reset(c, out);
    return c->p.operation->run(c, out, &exec);
}

static int is_filled(const unsigned char *p, const unsigned char *end)
{
    for (; p < end; p++)
        if (*p != FILL)
            return 0;
    return 1;
}

/* Elements in the order of memory: outer index, class, position. */
static int is_tidy(const case_array *a)
{
    const unsigned char *from = a->memory, *end = from + a->bytes;

    for (int64_t first = 0; first < a->rows; first += a->inner)
        for (int64_t j = 0; j < a->columns; j++) {
            const unsigned char *run = at(a, first, j);

            if (!is_filled(from, run))
                return 0;
            from = run + (size_t)a->inner * size_of(a->dtype);
        }
    return is_filled(from, end);
}

const char *case_stray_write(const case_results *r)
{
    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (r->out[k].data && !r->is_view && !is_tidy(&r->out[k]))
            return r->out[k].name;
    return NULL;
}

uint64_t case_hash(const case_results *r)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (int k = 0; k < CASE_OUTPUTS; k++) {
        const case_array *a = &r->out[k];

        for (int64_t i = 0; a->data && i < a->rows; i++)
            for (int64_t j = 0; j < a->columns; j++) {
                const unsigned char *element = at(a, i, j);

                for (size_t b = 0; b < size_of(a->dtype); b++)
                    hash = (hash ^ element[b]) * UINT64_C(0x100000001b3);
            }
    }
    return hash;
}

ballast_status case_hash_of(const problem *p, const ballast_implementation *implementation,
                            const ballast_parallel *parallel, uint64_t *hash)
{
    case_data c;
    case_results r;

    case_make(p, &c);
    case_results_make(&c, &r);
    const ballast_status status = case_run(&c, implementation, parallel, &r);
    *hash = case_hash(&r);
    case_results_free(&r);
    case_free(&c);
    return status;
}

/* ---- Comparing ------------------------------------------------------------------------------- */

static void print_bits(const void *value, size_t size, char *text, size_t room)
{
    uint64_t bits = 0;

    memcpy(&bits, value, size);
    snprintf(text, room, "0x%0*" PRIx64, (int)(2 * size), bits);
}

static int row_equal(const case_array *a, const case_array *b, int64_t row, case_difference *d)
{
    const size_t size = size_of(a->dtype);
    int64_t c = 0;

    while (c < a->columns && memcmp(at(a, row, c), at(b, row, c), size) == 0)
        c++;
    if (c == a->columns)
        return 1;
    d->output = a->name;
    d->row = row;
    d->column = c;
    d->is_matrix = a->columns != 1 && a->per_row;
    if (!a->per_row)
        d->row = c;
    print_bits(at(a, row, c), size, d->a, sizeof d->a);
    print_bits(at(b, row, c), size, d->b, sizeof d->b);
    return 0;
}

int case_equal(const case_results *a, const case_results *b, case_difference *d)
{
    for (int k = 0; k < CASE_OUTPUTS; k++)
        for (int64_t i = 0; a->out[k].data && b->out[k].data && i < a->out[k].rows; i++)
            if (!row_equal(&a->out[k], &b->out[k], i, d))
                return 0;
    return 1;
}

const char *case_place(const case_difference *d, char *text, size_t size)
{
    if (d->is_matrix)
        snprintf(text, size, "%s[%" PRId64 "][%" PRId64 "]", d->output, d->row, d->column);
    else
        snprintf(text, size, "%s[%" PRId64 "]", d->output, d->row);
    return text;
}
