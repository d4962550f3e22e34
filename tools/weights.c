/* SPDX-License-Identifier: MIT */
/* ballast weights: class-balanced weights of a data set. */
#include "weights.h"

#include "class_counts.h"
#include "json.h"
#include "paths.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPT_BETA = 1, OPT_COUNTS, OPT_LABELS, OPT_CLASSES, OPT_IGNORE, OPT_EMPTY, OPT_OUT, OPT_DTYPE
};

static const option_spec specs[] = {
    {"beta", "B", HELP_BETA "; must be given", OPT_BETA},
    {"counts", "LIST|FILE", "samples per class: numbers such as 5000,3237,100, or a .npy file",
     OPT_COUNTS},
    {"labels", "FILE", "count the labels of a .npy file instead", OPT_LABELS},
    {"classes", "N", "with --labels: how many classes (default: the largest label plus 1)",
     OPT_CLASSES},
    {"ignore-index", "N", "with --labels: labels that are not counted (default -100)", OPT_IGNORE},
    {"empty-class", "WHAT", HELP_EMPTY_CLASS, OPT_EMPTY},
    {"out", "FILE", "write the weights to a .npy file, too", OPT_OUT},
    {"dtype", "TYPE", "of --out: f4 (default) or f8", OPT_DTYPE},
    {NULL, NULL, NULL, 0},
};

static const char *const examples[] = {
    "ballast weights --beta 0.999 --counts 5000,3237,2096,1357",
    "ballast weights --beta 0.9999 --labels train_labels.npy --out weights.npy",
    NULL,
};

static const command_spec spec = {
    .name = "weights",
    .operands = "--beta B (--counts LIST|FILE | --labels FILE)",
    .about = "Class-balanced weights: the inverse of the effective number of samples of each "
             "class, (1 - B^n) / (1 - B), scaled so that they sum to the number of classes.",
    .options = specs,
    .examples = examples,
    .threads = "",
    .operand_count = 0,
};

typedef struct settings {
    double beta; /* < 0: not given */
    const char *counts, *labels, *out;
    int64_t classes; /* < 0: not given */
    int64_t ignore_index;
    bool ignore_given;
    ballast_empty_class empty;
    int f8;
    bool dtype_given;
} settings;

static bool apply(const options *o, void *to, int id)
{
    settings *const s = to;
    static const char *const dtypes[] = {"f4", "f8", NULL};
    switch (id) {
    case OPT_BETA: return read_beta(o, &s->beta);
    case OPT_COUNTS: s->counts = o->value; return true;
    case OPT_LABELS: s->labels = o->value; return true;
    case OPT_CLASSES: return options_integer(o, 1, INT32_MAX, &s->classes);
    case OPT_IGNORE:
        s->ignore_given = true;
        return options_integer(o, INT64_MIN, INT64_MAX, &s->ignore_index);
    case OPT_EMPTY: return read_empty_class(o, &s->empty);
    case OPT_OUT: s->out = o->value; return true;
    default: s->dtype_given = true; return options_choice(o, dtypes, &s->f8);
    }
}

static int check(const settings *s)
{
    const char *inputs[] = {s->counts, s->labels};
    if (s->beta < 0.0)
        return complain("--beta is missing (see ballast weights --help)");
    if (!s->counts == !s->labels)
        return complain("give either --counts or --labels");
    if (s->counts && s->classes >= 0)
        return complain("--classes goes with --labels, not with --counts");
    if (s->counts && s->ignore_given)
        return complain("--ignore-index goes with --labels, not with --counts");
    if (s->dtype_given && !s->out)
        return complain("--dtype goes with --out");
    return path_may_write("out", s->out, NULL, inputs, 2) ? EXIT_GOOD : EXIT_BAD_INPUT;
}

static bool read_counts(const settings *s, class_counts *c)
{
    npy_array labels;
    npy_error err;
    if (s->counts)
        return counts_from_text(s->counts, c);
    if (!npy_open(s->labels, &labels, &err)) {
        complain("%s", err.text);
        return false;
    }
    bool ok = counts_from_labels(s->labels, &labels, s->classes, s->ignore_index, c);
    npy_close(&labels);
    return ok;
}

/* ---- What is printed and written ------------------------------------------------------------- */

typedef struct result {
    const settings *s;
    class_counts counts;
    double *weights;
} result;

/* Of as many samples as the weight is made from. */
static double effective_number(const result *r, int64_t i)
{
    int64_t n = r->counts.values[i];
    if (n == 0 && r->s->empty == BALLAST_EMPTY_CLASS_ONE)
        n = 1;
    return ballast_effective_number(r->s->beta, n);
}

static void write_cell(const void *arg, int64_t row, int column, char text[CELL_SIZE])
{
    const result *r = arg;
    if (column == 0)
        snprintf(text, CELL_SIZE, "%" PRId64, row);
    else if (column == 1)
        snprintf(text, CELL_SIZE, "%" PRId64, r->counts.values[row]);
    else
        snprintf(text, CELL_SIZE, "%#.10g", column == 2 ? effective_number(r, row)
                                                        : r->weights[row]);
}

static void print_table(const result *r)
{
    static const char *const heads[] = {"class", "count", "effective number", "weight"};
    table t = {heads, 4, r->counts.classes, write_cell, r};
    table_print(&t);
}

static void print_json(const result *r)
{
    json j;
    json_begin(&j, stdout);
    json_real(&j, "beta", r->s->beta);
    json_integer(&j, "classes", r->counts.classes);
    json_text(&j, "empty_class", empty_class_names[r->s->empty]);
    json_array(&j, "per_class");
    for (int64_t i = 0; i < r->counts.classes; i++) {
        json_object(&j, NULL);
        json_integer(&j, "class", i);
        json_integer(&j, "count", r->counts.values[i]);
        json_real(&j, "effective_number", effective_number(r, i));
        json_real(&j, "weight", r->weights[i]);
        json_end(&j);
    }
    json_end(&j);
    json_end(&j);
}

/* f32 weights are rounded once, from the exact sum: not a second time here. */
static int write_file(const result *r)
{
    npy_writer w;
    npy_error err;
    bool f8 = r->s->f8 != 0;
    if (!r->s->out)
        return EXIT_GOOD;
    if (!npy_create(r->s->out, f8 ? NPY_F8 : NPY_F4, 1, &r->counts.classes, &w, &err))
        return complain("%s", err.text);
    void *data = npy_map(&w, &err);
    bool ok = data != NULL;
    if (!ok)
        complain("%s", err.text);
    ok = ok && counts_weights(&r->counts, r->s->beta, r->s->empty, data,
                              f8 ? BALLAST_F64 : BALLAST_F32);
    if (!ok)
        npy_abandon(&w);
    else if (!npy_commit(&w, &err))
        return complain("%s", err.text);
    return ok ? EXIT_GOOD : EXIT_BAD_INPUT;
}

static int compute(result *r, bool as_json)
{
    int64_t classes = r->counts.classes;
    r->weights = calloc(classes > 0 ? (size_t)classes : 1, sizeof *r->weights);
    if (!r->weights)
        return complain("no memory for %" PRId64 " weights", classes);
    if (!counts_weights(&r->counts, r->s->beta, r->s->empty, r->weights, BALLAST_F64))
        return EXIT_BAD_INPUT;
    int code = write_file(r);
    if (code != EXIT_GOOD)
        return code;
    if (as_json)
        print_json(r);
    else
        print_table(r);
    return EXIT_GOOD;
}

int weights_main(int argc, char **argv)
{
    settings s = {.beta = -1.0, .classes = -1, .ignore_index = -100};
    result r = {.s = &s};
    options o;
    if (!options_read(&o, &spec, argc, argv, apply, &s))
        return o.exit_code;
    int code = check(&s);
    if (code != EXIT_GOOD)
        return code;
    if (!read_counts(&s, &r.counts))
        return EXIT_BAD_INPUT;
    code = compute(&r, o.json);
    free(r.weights);
    counts_free(&r.counts);
    return code;
}
