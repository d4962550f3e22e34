/* SPDX-License-Identifier: MIT */
#include "class_counts.h"

#include "paths.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* More classes than this are a label that went wrong, unless the user says how many there are. */
static const int64_t guessed_classes_max = INT64_C(1) << 24;

const char *const empty_class_names[] = {"error", "zero", "one", NULL};

static bool allocate(class_counts *c, int64_t classes)
{
    c->classes = classes;
    c->values = calloc(classes > 0 ? (size_t)classes : 1, sizeof *c->values);
    if (c->values)
        return true;
    complain("%s: no memory for %" PRId64 " classes", c->source, classes);
    return false;
}

void counts_free(class_counts *c)
{
    free(c->values);
    c->values = NULL;
}

/* ---- Given counts ---------------------------------------------------------------------------- */

/* What is wrong with a count; NULL for nothing. */
static const char *fault_of(double value)
{
    if (isnan(value) || value != floor(value))
        return "is not a whole number";
    if (value < 0.0)
        return "is negative";
    return value < 0x1p63 ? NULL : "is too large";
}

static bool refuse_count(const class_counts *c, int64_t index, const char *text, const char *fault)
{
    complain("%s: class %" PRId64 ": count %s %s", c->source, index, text, fault);
    return false;
}

static bool take_real(class_counts *c, int64_t index, double value)
{
    char text[CELL_SIZE];
    const char *fault = fault_of(value);
    format_exact(text, value);
    if (fault)
        return refuse_count(c, index, text, fault);
    c->values[index] = (int64_t)value;
    return true;
}

static bool take_integer(class_counts *c, int64_t index, int64_t value)
{
    char text[CELL_SIZE];
    snprintf(text, sizeof text, "%" PRId64, value);
    c->values[index] = value;
    return value >= 0 || refuse_count(c, index, text, "is negative");
}

static bool take_element(class_counts *c, int64_t i, const npy_array *a)
{
    switch (a->dtype) {
    case NPY_F4: return take_real(c, i, ((const float *)a->data)[i]);
    case NPY_F8: return take_real(c, i, ((const double *)a->data)[i]);
    case NPY_I4: return take_integer(c, i, ((const int32_t *)a->data)[i]);
    case NPY_I8: return take_integer(c, i, ((const int64_t *)a->data)[i]);
    default: return take_integer(c, i, ((const uint8_t *)a->data)[i]);
    }
}

static bool take_array(class_counts *c, const npy_array *a)
{
    npy_error err;
    if (!npy_expect(a, c->source, ~0u, 1, &err)) {
        complain("%s", err.text);
        return false;
    }
    if (!allocate(c, a->count))
        return false;
    for (int64_t i = 0; i < a->count; i++)
        if (!take_element(c, i, a))
            return false;
    return true;
}

static bool counts_from_file(const char *path, class_counts *out)
{
    npy_array array;
    npy_error err;
    out->source = path_shown(path);
    if (!npy_open(path, &array, &err)) {
        complain("%s", err.text);
        return false;
    }
    bool ok = take_array(out, &array);
    npy_close(&array);
    return ok;
}

/* An integer where it is one, so that no digit of a large count is lost. */
static bool take_field(class_counts *c, int64_t index, const char *field)
{
    char *end;
    long long whole = strtoll(field, &end, 10);
    if (end != field && *end == '\0' && whole < INT64_MAX)
        return take_integer(c, index, whole);
    double value = strtod(field, &end);
    if (end == field || *end != '\0')
        return refuse_count(c, index, *field ? field : "''", "is not a whole number");
    return take_real(c, index, value);
}

static bool counts_from_list(const char *text, class_counts *out)
{
    int64_t classes = 1;
    out->source = "--counts";
    for (const char *p = text; *p; p++)
        classes += *p == ',';
    char *copy = strdup(text);
    bool ok = copy && allocate(out, classes);
    char *field = copy;
    for (int64_t i = 0; ok && i < classes; i++) {
        char *comma = strchr(field, ',');
        if (comma)
            *comma = '\0';
        ok = take_field(out, i, field);
        field = comma ? comma + 1 : field;
    }
    free(copy);
    return ok;
}

/* A list has commas or is one number; a file has a folder or ends like one. */
static bool is_file(const char *text)
{
    size_t length = strlen(text);
    char *end;
    if (strchr(text, '/') || strcmp(text, "-") == 0 ||
        (length > 4 && strcmp(text + length - 4, ".npy") == 0))
        return true;
    strtod(text, &end);
    return !strchr(text, ',') && (end == text || *end != '\0');
}

bool counts_from_text(const char *text, class_counts *out)
{
    memset(out, 0, sizeof *out);
    bool ok = is_file(text) ? counts_from_file(text, out) : counts_from_list(text, out);
    if (!ok)
        counts_free(out);
    return ok;
}

/* ---- Counts of labels ------------------------------------------------------------------------ */

ballast_labels labels_of(const npy_array *a)
{
    ballast_labels none = BALLAST_NO_LABELS;
    return a->dtype == NPY_I4   ? ballast_labels_i32(a->data)
           : a->dtype == NPY_I8 ? ballast_labels_i64(a->data)
           : a->dtype == NPY_U1 ? ballast_labels_u8(a->data)
                                : none;
}

static int64_t label_at(const npy_array *a, int64_t i)
{
    return a->dtype == NPY_I4   ? ((const int32_t *)a->data)[i]
           : a->dtype == NPY_I8 ? ((const int64_t *)a->data)[i]
                                : ((const uint8_t *)a->data)[i];
}

static bool guess_classes(const char *name, const npy_array *a, int64_t ignore_index,
                          int64_t *classes)
{
    *classes = 0;
    for (int64_t i = 0; i < a->count; i++) {
        int64_t label = label_at(a, i);
        if (label == ignore_index || label < *classes)
            continue;
        if (label >= guessed_classes_max) {
            complain("%s: row %" PRId64 ": label %" PRId64
                     " would make too many classes: say how many with --classes",
                     name, i, label);
            return false;
        }
        *classes = label + 1;
    }
    if (*classes == 0)
        complain("%s: no label to count: say how many classes there are with --classes", name);
    return *classes > 0;
}

static bool count(class_counts *c, const npy_array *labels, int64_t ignore_index)
{
    ballast_error error;
    ballast_per_class_args a = BALLAST_PER_CLASS_ARGS;
    a.labels = labels_of(labels);
    a.label_count = labels->count;
    a.classes = c->classes;
    a.ignore_index = ignore_index;
    a.counts = c->values;
    a.error = &error;
    if (ballast_per_class(&a) == BALLAST_OK)
        return true;
    char text[256];
    if (error.status == BALLAST_ERR_LABEL)
        complain("%s: row %" PRId64 ": label %" PRId64 " is outside [0, %" PRId64 ")", c->source,
                 error.index, error.integer, c->classes);
    else
        complain("%s: %s", c->source, ballast_error_message(&error, text, sizeof text));
    return false;
}

bool counts_from_labels(const char *path, const npy_array *labels, int64_t classes,
                        int64_t ignore_index, class_counts *out)
{
    npy_error err;
    memset(out, 0, sizeof *out);
    out->source = path_shown(path);
    out->of_labels = true;
    if (!npy_expect(labels, out->source, NPY_I4 | NPY_I8 | NPY_U1, 1, &err)) {
        complain("%s", err.text);
        return false;
    }
    if (classes < 0 && !guess_classes(out->source, labels, ignore_index, &classes))
        return false;
    bool ok = allocate(out, classes) && count(out, labels, ignore_index);
    if (!ok)
        counts_free(out);
    return ok;
}

/* ---- Weights --------------------------------------------------------------------------------- */

bool counts_weights(const class_counts *c, double beta, ballast_empty_class empty, void *weights,
                    ballast_dtype dtype)
{
    char text[256];
    ballast_error error;
    ballast_class_weights_args a = BALLAST_CLASS_WEIGHTS_ARGS;
    a.beta = beta;
    a.classes = c->classes;
    a.counts = c->values;
    a.empty_class = empty;
    a.weights = weights;
    a.weights_dtype = dtype;
    a.error = &error;
    if (ballast_class_weights(&a) == BALLAST_OK)
        return true;
    if (error.status == BALLAST_ERR_COUNT)
        complain("%s: class %" PRId64 ": %s (--empty-class zero or one allows it)", c->source,
                 error.index, c->of_labels ? "no label" : "count 0");
    else
        complain("%s: %s", c->source, ballast_error_message(&error, text, sizeof text));
    return false;
}

bool read_beta(const options *o, double *beta)
{
    if (!options_real(o, beta))
        return false;
    if (*beta >= 0.0 && *beta <= 1.0)
        return true;
    complain("--beta: %s is outside [0, 1]", o->value);
    return false;
}

bool read_empty_class(const options *o, ballast_empty_class *empty)
{
    int choice;
    if (!options_choice(o, empty_class_names, &choice))
        return false;
    *empty = (ballast_empty_class)choice;
    return true;
}
