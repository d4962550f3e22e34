/* SPDX-License-Identifier: MIT */
/* The grammar of problems, and the problems that are run by default. */
#include "cases.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- Dtypes ---------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    ballast_dtype dtype;
} dtypes[] = {
    {"f32", BALLAST_F32}, {"f64", BALLAST_F64}, {"bf16", BALLAST_BF16}, {"f16", BALLAST_F16}};

enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

ballast_dtype problem_dtype(int index)
{
    return index >= 0 && index < DTYPES ? dtypes[index].dtype : BALLAST_DTYPE_NONE;
}

const char *problem_dtype_name(ballast_dtype dtype)
{
    for (int i = 0; i < DTYPES; i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].name;
    return "none";
}

/* ---- Keys ------------------------------------------------------------------------------------ */

enum value_kind { INTEGER, REAL, NAME, OUTPUT_NAMES };

typedef struct key {
    const char *name;
    enum value_kind kind;
    size_t at; /* in struct problem */
    double standard, low, high;
    const char *const *names;
    const char *help;
} key;

#define NAMES(...) (const char *const[]){__VA_ARGS__, NULL}
#define AT(field) offsetof(problem, field)

static const key keys[KEYS] = {
    {"rows", INTEGER, AT(rows), 64, 0, 1e12, NULL, "rows"},
    {"count", INTEGER, AT(rows), 100000, 0, 1e12, NULL, "elements of a vector"},
    {"classes", INTEGER, AT(classes), 1000, 0, 1e12, NULL, "columns"},
    {"stride", INTEGER, AT(stride), 0, 0, 1e12, NULL, "elements from row to row; 0: no gaps"},
    {"inner", INTEGER, AT(inner), 1, 1, 1e12, NULL, "rows side by side, their classes in planes"},
    {"class_stride", INTEGER, AT(class_stride), 0, 0, 1e12, NULL,
     "elements from class to class; 0: inner"},
    {"offset", INTEGER, AT(offset), 0, 0, 1e6, NULL, "elements off an aligned address"},
    {"inputs", NAME, AT(inputs), 0, 0, 0,
     NAMES("normal", "uniform", "confident", "offset1e4", "offset1e30", "masked", "equal",
           "exponents", "patterns", "mixed_specials"), "what the logits are like"},
    {"targets", NAME, AT(targets), 0, 0, 0, NAMES("labels", "u8", "dense", "soft"), "or dense"},
    {"labels", NAME, AT(labels), 0, 0, 0, NAMES("i64", "i32", "u8"), "dtype of the labels"},
    {"weights", NAME, AT(weights), 0, 0, 0, NAMES("none", "class", "row", "both"), "given"},
    {"kind", NAME, AT(kind), 0, 0, 0, NAMES("softmax", "sigmoid", "focal"), "class-balanced"},
    {"gamma", REAL, AT(gamma), 2, 0, 1e300, NULL, "focal"},
    {"alpha", REAL, AT(alpha), 0.25, -1, 1, NULL, "focal; negative: off"},
    {"beta", REAL, AT(beta), 0.999, 0, 1, NULL, "of the class weights"},
    {"ignored", INTEGER, AT(ignored), 0, 0, 100, NULL, "rows with ignore_index, in percent"},
    {"background", INTEGER, AT(background), 0, 0, 100, NULL, "rows with label -1, in percent"},
    {"outputs", OUTPUT_NAMES, AT(outputs), 0, 0, 0, NULL, "names joined by +; default: all"},
    {"inplace", INTEGER, AT(inplace), 0, 0, 2, NULL, "1: replaces the logits; 2: the output"},
    {"reduction", NAME, AT(reduction), BALLAST_MEAN, 0, 0, NAMES("none", "sum", "mean"), ""},
    {"denominator", NAME, AT(denominator), 0, 0, 0,
     NAMES("default", "weight_sum", "rows", "counted_rows", "elements", "positives", "given"), ""},
    {"grad_scale", REAL, AT(grad_scale), 1, -1e300, 1e300, NULL, "upstream gradient"},
    {"grad_rows", INTEGER, AT(grad_rows), 0, 0, 1, NULL, "1: upstream gradient per row"},
    {"pieces", INTEGER, AT(pieces), 0, 0, 1, NULL, "1: prepare, rows step by step, finish"},
    {"threads", INTEGER, AT(threads), 1, 1, 1024, NULL, "lent to the call"},
    {"seed", INTEGER, AT(seed), 20190616, 0, 9e15, NULL, "of the inputs"},
};

static int has_key(const operation *op, int k) { return (op->keys & KEY(k)) != 0; }

static int64_t *integer_of(problem *p, const key *k)
{
    return (int64_t *)(void *)((char *)p + k->at);
}

static double *real_of(problem *p, const key *k) { return (double *)(void *)((char *)p + k->at); }

int problem_is_vector(const problem *p) { return has_key(p->operation, KEY_COUNT); }

static unsigned all_outputs(const operation *op)
{
    unsigned all = 0;

    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (op->outputs[k].shape != OUT_NONE)
            all |= 1u << k;
    return all;
}

unsigned problem_outputs(const problem *p)
{
    const case_output *o = p->operation->outputs;
    unsigned wanted = p->outputs ? (unsigned)p->outputs : all_outputs(p->operation);

    for (int k = 0; k < CASE_OUTPUTS; k++) /* losses of no reduction have no reduced loss */
        if (o[k].shape == OUT_NUMBER && has_key(p->operation, KEY_REDUCTION)
            && p->reduction == BALLAST_NONE)
            wanted &= ~(1u << k);
    return wanted;
}

/* ---- Reading --------------------------------------------------------------------------------- */

typedef struct text {
    const char *at;
    size_t length;
} text;

/* Cuts off what stands before the first of `ends`. */
static text next_part(const char **rest, const char *ends)
{
    const text t = {*rest, strcspn(*rest, ends)};

    *rest += t.length;
    if (**rest)
        ++*rest;
    return t;
}

static int is(text t, const char *name)
{
    return strlen(name) == t.length && strncmp(t.at, name, t.length) == 0;
}

typedef struct complaint {
    char *text;
    size_t size;
} complaint;

__attribute__((format(printf, 2, 3))) static int complain(complaint c, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vsnprintf(c.text, c.size, format, list);
    va_end(list);
    return 0;
}

static int read_number(text t, const key *k, double *number, complaint c)
{
    char digits[64], *end;

    if (t.length == 0 || t.length >= sizeof digits)
        return complain(c, "%s: a number is missing", k->name);
    memcpy(digits, t.at, t.length);
    digits[t.length] = '\0';
    *number = strtod(digits, &end);
    if (*end)
        return complain(c, "%s=%s: not a number", k->name, digits);
    if (!(*number >= k->low && *number <= k->high))
        return complain(c, "%s=%s: outside [%g, %g]", k->name, digits, k->low, k->high);
    if (k->kind == INTEGER && *number != (double)(int64_t)*number)
        return complain(c, "%s=%s: not an integer", k->name, digits);
    return 1;
}

static int read_name(text t, const key *k, int64_t *value, complaint c)
{
    for (int i = 0; k->names[i]; i++)
        if (is(t, k->names[i])) {
            *value = i;
            return 1;
        }
    complain(c, "%s=%.*s: none of", k->name, (int)t.length, t.at);
    for (int i = 0; k->names[i]; i++) {
        const size_t used = strlen(c.text);
        snprintf(c.text + used, c.size - used, "%s %s", i ? "," : "", k->names[i]);
    }
    return 0;
}

static int read_outputs(text t, problem *p, complaint c)
{
    const char *rest = t.at;

    while (rest < t.at + t.length) {
        text name = next_part(&rest, "+,");
        int found = 0;

        for (int k = 0; k < CASE_OUTPUTS; k++)
            if (p->operation->outputs[k].name && is(name, p->operation->outputs[k].name)) {
                p->outputs |= 1 << k;
                found = 1;
            }
        if (!found)
            return complain(c, "outputs: %s has no %.*s", p->operation->name, (int)name.length,
                            name.at);
    }
    if (p->outputs == (int64_t)all_outputs(p->operation))
        p->outputs = 0;
    return 1;
}

static int read_value(text t, const key *k, problem *p, complaint c)
{
    double number = 0;

    switch (k->kind) {
    case NAME:
        return read_name(t, k, integer_of(p, k), c);
    case OUTPUT_NAMES:
        return read_outputs(t, p, c);
    default:
        if (!read_number(t, k, &number, c))
            return 0;
        if (k->kind == REAL)
            *real_of(p, k) = number;
        else
            *integer_of(p, k) = (int64_t)number;
        return 1;
    }
}

static int read_pair(text pair, problem *p, complaint c)
{
    const char *equals = memchr(pair.at, '=', pair.length);
    const text name = {pair.at, equals ? (size_t)(equals - pair.at) : pair.length};

    for (int k = 0; k < KEYS; k++) {
        if (!is(name, keys[k].name))
            continue;
        if (!has_key(p->operation, k))
            return complain(c, "%s: not a key of %s", keys[k].name, p->operation->name);
        if (!equals)
            return complain(c, "%s: a value is missing", keys[k].name);
        const text value = {equals + 1, pair.length - name.length - 1};
        return read_value(value, &keys[k], p, c);
    }
    return complain(c, "%.*s: no such key (ballast check --help names them)", (int)name.length, name.at);
}

static void set_defaults(problem *p)
{
    for (int k = 0; k < KEYS; k++) {
        if (k == (problem_is_vector(p) ? KEY_ROWS : KEY_COUNT))
            continue;
        if (keys[k].kind == REAL)
            *real_of(p, &keys[k]) = keys[k].standard;
        else
            *integer_of(p, &keys[k]) = (int64_t)keys[k].standard;
    }
    if (problem_is_vector(p))
        p->classes = 1;
}

/* In double, for the product may be larger than an int64_t. */
static double element_count(const problem *p)
{
    const int64_t plane = p->class_stride ? p->class_stride : p->inner;
    const double packed = (double)p->classes * (double)plane;

    return (double)p->rows / (double)p->inner * (p->stride > packed ? (double)p->stride : packed);
}

static int has_sense(const problem *p, complaint c)
{
    const int64_t plane = p->class_stride ? p->class_stride : p->inner;

    if (element_count(p) > (double)(PTRDIFF_MAX / 8))
        return complain(c, "rows, classes: more elements than an array can have");
    if (p->rows % p->inner)
        return complain(c, "inner: the rows are no multiple of it");
    if (plane < p->inner)
        return complain(c, "class_stride: below inner");
    if (p->stride && p->classes && p->stride < (p->classes - 1) * plane + p->inner)
        return complain(c, plane == 1 ? "stride: below the number of classes"
                                      : "stride: below what the planes take");
    if (plane != 1 && has_key(p->operation, KEY_KIND) && p->kind != BALLAST_CB_SOFTMAX)
        return complain(c, "inner: of the class-balanced losses softmax only");
    if (p->labels == LABELS_U8 && p->background)
        return complain(c, "background: labels of u8 are never negative");
    if (p->grad_rows && p->reduction != BALLAST_NONE)
        return complain(c, "grad_rows: for reduction=none only");
    if (p->targets != TARGETS_LABELS && (p->weights & WEIGHTS_CLASS))
        return complain(c, "weights: dense targets have no class weights");
    if (p->targets == TARGETS_SOFT && has_key(p->operation, KEY_GAMMA))
        return complain(c, "targets: focal targets are 0 or 1");
    return 1;
}

static ballast_dtype read_dtype(text t)
{
    for (int i = 0; i < DTYPES; i++)
        if (is(t, dtypes[i].name))
            return dtypes[i].dtype;
    return BALLAST_DTYPE_NONE;
}

int problem_parse(const char *string, problem *p, char *message, size_t size)
{
    const complaint c = {message, size};
    const char *rest = string;
    const text name = next_part(&rest, ":"), dtype = next_part(&rest, ":");

    memset(p, 0, sizeof *p);
    p->operation = operation_find(name.at, name.length);
    if (!p->operation)
        return complain(c, "%.*s: no such operation (ballast check --help names them)", (int)name.length,
                        name.at);
    if (dtype.length == 0)
        return complain(c, "a dtype is missing, such as %s:f32", p->operation->name);
    p->dtype = read_dtype(dtype);
    if (p->dtype == BALLAST_DTYPE_NONE)
        return complain(c, "%.*s: no such dtype (f32, f64, bf16 or f16)", (int)dtype.length, dtype.at);
    if (!operation_has_dtype(p->operation, p->dtype))
        return complain(c, "%.*s: not a dtype of %s", (int)dtype.length, dtype.at,
                        p->operation->name);
    set_defaults(p);
    while (*rest) {
        const text pair = next_part(&rest, ",");

        if (pair.length > 0 && !read_pair(pair, p, c))
            return 0;
    }
    return has_sense(p, c);
}

/* ---- Writing --------------------------------------------------------------------------------- */

typedef struct writer {
    char *text;
    size_t size, used;
    char separator;
} writer;

__attribute__((format(printf, 2, 3))) static void put(writer *w, const char *format, ...)
{
    va_list list;
    int n;

    va_start(list, format);
    n = vsnprintf(w->text + w->used, w->size - w->used, format, list);
    va_end(list);
    w->used += n > 0 ? (size_t)n : 0;
    if (w->used >= w->size)
        w->used = w->size - 1;
}

/* The shortest digits that read back as the same number. */
static void put_real(writer *w, double value)
{
    char digits[40];

    for (int precision = 1; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    put(w, "%s", digits);
}

static void put_outputs(writer *w, const problem *p)
{
    const char *separator = "";

    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (p->outputs >> k & 1) {
            put(w, "%s%s", separator, p->operation->outputs[k].name);
            separator = "+";
        }
}

static void put_key(writer *w, const problem *p, const key *k)
{
    problem copy = *p;
    const double value = k->kind == REAL ? *real_of(&copy, k) : (double)*integer_of(&copy, k);

    if (value == k->standard)
        return;
    put(w, "%c%s=", w->separator, k->name);
    w->separator = ',';
    if (k->kind == NAME)
        put(w, "%s", k->names[(int)value]);
    else if (k->kind == OUTPUT_NAMES)
        put_outputs(w, p);
    else if (k->kind == REAL)
        put_real(w, value);
    else
        put(w, "%" PRId64, (int64_t)value);
}

const char *problem_format(const problem *p, char *string, size_t size)
{
    writer w = {string, size, 0, ':'};

    put(&w, "%s:%s", p->operation->name, problem_dtype_name(p->dtype));
    for (int k = 0; k < KEYS; k++)
        if (has_key(p->operation, k))
            put_key(&w, p, &keys[k]);
    return string;
}

static void help_on_key(FILE *out, const key *k)
{
    fprintf(out, "  %-12s %s", k->name, k->help);
    if (k->kind == NAME) {
        fprintf(out, "%s", *k->help ? ": " : "");
        for (int i = 0; k->names[i]; i++)
            fprintf(out, "%s%s", i ? " | " : "", k->names[i]);
        fprintf(out, " (%s)", k->names[(int)k->standard]);
    } else if (k->kind != OUTPUT_NAMES) {
        fprintf(out, " (%.10g)", k->standard);
    }
    fputc('\n', out);
}

void problem_help(FILE *out)
{
    fputs("PROBLEM is OPERATION:DTYPE[:KEY=VALUE,...], DTYPE f32, f64, bf16 or f16. Operations, and "
          "their outputs:\n", out);
    for (int i = 0; operation_at(i); i++) {
        const operation *op = operation_at(i);

        fprintf(out, "  %-24s", op->name);
        for (int k = 0; k < CASE_OUTPUTS && op->outputs[k].name; k++)
            fprintf(out, "%s%s", k ? " + " : "", op->outputs[k].name);
        fputc('\n', out);
    }
    fputs("Keys, and their defaults:\n", out);
    for (int k = 0; k < KEYS; k++)
        help_on_key(out, &keys[k]);
}

/* ---- Problems run by default ----------------------------------------------------------------- */

/* A chunk is 2048 logits, a reduction's span 4096 elements: beside, below and beyond them. */
static const char *const matrix_shapes[][3] = {
    {"rows=5,classes=3", "rows=31,classes=259,offset=5", "rows=2,classes=4097,offset=1"},
    {"rows=40,classes=10", "rows=3,classes=2049,offset=3", "rows=300,classes=100"},
    {"rows=2000,classes=33", "rows=64,classes=32000", "rows=2,classes=262145,offset=7"},
};
static const char *const vector_shapes[][3] = {
    {"count=7", "count=4097,offset=3", "count=70001,offset=1"},
    {"count=1000", "count=8192", "count=300001"},
    {"count=1", "count=2097152", "count=5000011,offset=1"},
};
enum { SHAPES = 3 };

static int64_t variant_count(const operation *op)
{
    int64_t n = 0;

    while (op->variants[n])
        n++;
    return n;
}

/* f64 has one implementation and takes the oracle's time, bf16 and f16 are f32 but for loads and
 * stores: the shapes of the quick sweep do. */
static int64_t shape_count(const operation *op, ballast_dtype dtype, int sweep)
{
    if (!operation_has_dtype(op, dtype))
        return 0;
    return dtype == BALLAST_F32 ? SHAPES * (sweep + 1) : SHAPES;
}

static void fill_default(const operation *op, ballast_dtype dtype, int64_t inputs, int64_t shape,
                         int64_t variant, problem *p)
{
    char string[PROBLEM_TEXT], message[PROBLEM_TEXT];
    const char *const (*shapes)[SHAPES] = op->keys & KEY(KEY_COUNT) ? vector_shapes : matrix_shapes;
    const key *k = &keys[KEY_INPUTS];

    snprintf(string, sizeof string, "%s:%s:inputs=%s,%s,%s", op->name, problem_dtype_name(dtype),
             k->names[inputs], shapes[shape / SHAPES][shape % SHAPES], op->variants[variant]);
    if (!problem_parse(string, p, message, sizeof message)) {
        fprintf(stderr, "%s: %s\n", string, message);
        abort();
    }
}

int problem_default(int sweep, int64_t i, problem *p)
{
    for (int at = 0; operation_at(at); at++) {
        const operation *op = operation_at(at);
        const int64_t variants = variant_count(op);

        for (int d = 0; d < DTYPES; d++)
            for (int64_t shape = 0; shape < shape_count(op, dtypes[d].dtype, sweep); shape++) {
                if (i < variants * INPUTS_KINDS) {
                    fill_default(op, dtypes[d].dtype, i % INPUTS_KINDS, shape, i / INPUTS_KINDS, p);
                    return 1;
                }
                i -= variants * INPUTS_KINDS;
            }
    }
    return 0;
}
