/* SPDX-License-Identifier: MIT */
/* ballast loss: losses and gradients of logits in a file. */
#include "loss.h"

#include "class_counts.h"
#include "interrupt.h"
#include "json.h"
#include "paths.h"
#include "pool.h"
#include "progress.h"
#include "slices.h"
#include "user_profile.h"

#include "../bench/arrays.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- Options --------------------------------------------------------------------------------- */

enum {
    OPT_LOSS = 1, OPT_BETA, OPT_COUNTS, OPT_EMPTY, OPT_WEIGHTS, OPT_GAMMA, OPT_ALPHA, OPT_REDUCTION,
    OPT_DENOMINATOR, OPT_IGNORE, OPT_GRAD_OUT, OPT_ROW_LOSS_OUT, OPT_ISA, OPT_TIME
};

static const option_spec specs[] = {
    {"loss", "NAME",
     "softmax (cross-entropy; default), sigmoid (binary cross-entropy, also called bce), or focal",
     OPT_LOSS},
    {"beta", "B", HELP_BETA "; turns on the class-balanced form of the loss", OPT_BETA},
    {"counts", "LIST|FILE",
     "with --beta: samples per class, numbers such as 5000,3237,100 or a .npy file (default: "
     "counted from LABELS)",
     OPT_COUNTS},
    {"empty-class", "WHAT", "with --beta: " HELP_EMPTY_CLASS, OPT_EMPTY},
    {"weights", "FILE", "instead of --beta: class weights, a .npy file of f4 or f8", OPT_WEIGHTS},
    {"gamma", "G", "focal: how much easy samples are played down (default 2)", OPT_GAMMA},
    {"alpha", "A", "focal: weight of positives, in [0, 1], or off (default 0.25; off with --beta)",
     OPT_ALPHA},
    {"reduction", "NAME", "mean (default), sum or none", OPT_REDUCTION},
    {"denominator", "WHAT",
     "of the mean: weight-sum (default of softmax), rows (default with --beta), counted-rows, "
     "elements (default of sigmoid and focal), positives, or a number",
     OPT_DENOMINATOR},
    {"ignore-index", "N", HELP_IGNORE, OPT_IGNORE},
    {"grad-out", "FILE", "write the gradient of the logits to a .npy file", OPT_GRAD_OUT},
    {"row-loss-out", "FILE", "write the loss of each row to a .npy file", OPT_ROW_LOSS_OUT},
    {"isa", "NAME", "implementation: scalar, avx2, avx512 or neon (default: see ballast info)",
     OPT_ISA},
    {"time", NULL, "print time and throughput on standard error", OPT_TIME},
    {NULL, NULL, NULL, 0},
};

static const char *const examples[] = {
    "ballast loss logits.npy labels.npy",
    "ballast loss logits.npy labels.npy --beta 0.999 --grad-out grad.npy",
    "ballast loss logits.npy labels.npy --loss focal --gamma 1.5 --json",
    "ballast loss logits.npy targets.npy --loss sigmoid --reduction sum",
    NULL,
};

static const command_spec spec = {
    .name = "loss",
    .operands = "LOGITS.npy LABELS.npy",
    .about = "Loss of a matrix of logits (f2, f4 or f8, one row per sample), and with labels (i4, "
             "i8 or u1, one per row) each class's share: its rows, its weight, and the mean of its "
             "rows' losses, weights included. Gradients have the dtype of the logits; so have row "
             "losses, but for those of f2, which are f4. For sigmoid and focal, LABELS may also be a "
             "matrix of targets in [0, 1] (u1, or the dtype of the logits; 0 and 1 only for focal). "
             "\"-\" is standard input. Files larger than memory are fine.",
    .options = specs,
    .examples = examples,
    .operand_count = 2,
};

typedef enum loss_name { SOFTMAX, SIGMOID, FOCAL, BCE } loss_name;
static const char *const loss_names[] = {"softmax", "sigmoid", "focal", "bce", NULL};
static const char *const reduction_names[] = {"none", "sum", "mean", NULL};
static const char *const denominator_names[] = {
    "weight-sum", "rows", "counted-rows", "elements", "positives", NULL,
};

enum { DENOMINATOR_DEFAULT = -1 };

typedef struct settings {
    const char *logits, *labels, *counts, *weights, *grad_out, *row_loss_out;
    int loss, reduction, denominator;
    double beta, gamma, alpha; /* NaN: not given */
    double denominator_value;
    ballast_empty_class empty;
    bool empty_given, time, quiet, json;
    int64_t ignore_index, threads;
    const ballast_implementation *isa; /* NULL: the default */
} settings;

static bool balanced(const settings *s) { return !isnan(s->beta); }

static bool read_gamma(const options *o, double *gamma)
{
    if (!options_real(o, gamma))
        return false;
    if (isfinite(*gamma) && *gamma >= 0.0)
        return true;
    complain("--gamma: %s is not a finite number >= 0", o->value);
    return false;
}

static bool read_alpha(const options *o, double *alpha)
{
    *alpha = -1.0;
    if (strcmp(o->value, "off") == 0)
        return true;
    if (!options_real(o, alpha))
        return false;
    if (*alpha >= 0.0 && *alpha <= 1.0)
        return true;
    complain("--alpha: %s is outside [0, 1] (off switches it off)", o->value);
    return false;
}

static bool read_denominator(const options *o, settings *s)
{
    char *end;
    double value = strtod(o->value, &end);
    if (end == o->value || *end != '\0')
        return options_choice(o, denominator_names, &s->denominator);
    s->denominator = BALLAST_GIVEN;
    s->denominator_value = value;
    if (isfinite(value) && value > 0.0)
        return true;
    complain("--denominator: %s is not a finite number > 0", o->value);
    return false;
}

static bool apply(const options *o, void *to, int id)
{
    settings *const s = to;
    switch (id) {
    case OPT_LOSS: return options_choice(o, loss_names, &s->loss);
    case OPT_BETA: return read_beta(o, &s->beta);
    case OPT_COUNTS: s->counts = o->value; return true;
    case OPT_EMPTY: s->empty_given = true; return read_empty_class(o, &s->empty);
    case OPT_WEIGHTS: s->weights = o->value; return true;
    case OPT_GAMMA: return read_gamma(o, &s->gamma);
    case OPT_ALPHA: return read_alpha(o, &s->alpha);
    case OPT_REDUCTION: return options_choice(o, reduction_names, &s->reduction);
    case OPT_DENOMINATOR: return read_denominator(o, s);
    case OPT_IGNORE: return options_integer(o, INT64_MIN, INT64_MAX, &s->ignore_index);
    case OPT_GRAD_OUT: s->grad_out = o->value; return true;
    case OPT_ROW_LOSS_OUT: s->row_loss_out = o->value; return true;
    case OPT_ISA: return options_implementation(o, &s->isa);
    default: s->time = true; return true;
    }
}

static const char *conflict(const settings *s)
{
    if (!balanced(s) && s->counts)
        return "--counts needs --beta";
    if (!balanced(s) && s->empty_given)
        return "--empty-class needs --beta";
    if (balanced(s) && s->weights)
        return "--weights and --beta exclude each other";
    if (s->loss != FOCAL && !isnan(s->gamma))
        return "--gamma goes with --loss focal";
    if (s->loss != FOCAL && !isnan(s->alpha))
        return "--alpha goes with --loss focal";
    if (balanced(s) && s->alpha >= 0.0)
        return "--alpha and --beta exclude each other: the class-balanced loss has no alpha";
    if (s->reduction != BALLAST_MEAN && s->denominator != DENOMINATOR_DEFAULT)
        return "--denominator goes with --reduction mean";
    if (strcmp(s->logits, "-") == 0 && strcmp(s->labels, "-") == 0)
        return "LOGITS and LABELS cannot both be standard input";
    return NULL;
}

static bool check(const settings *s)
{
    const char *inputs[] = {s->logits, s->labels, s->counts, s->weights};
    const char *why = conflict(s);
    if (why)
        complain("%s", why);
    return !why && path_may_write("grad-out", s->grad_out, s->row_loss_out, inputs, 4) &&
           path_may_write("row-loss-out", s->row_loss_out, NULL, inputs, 4);
}

/* ---- Input ----------------------------------------------------------------------------------- */

/* Everything that one run holds; job_close gives it back, however far it came. */
typedef struct job {
    const settings *s;
    npy_array logits, labels;
    int64_t rows, classes, counted;
    ballast_dtype dtype; /* of logits, their gradient, and targets that are real */
    bool dense;          /* labels is a matrix of targets */
    class_counts seen;   /* labels per class */
    void *weights;       /* [classes]; NULL: all 1 */
    double *sums;        /* [classes], of row losses */

    npy_writer grad_file, row_loss_file;
    void *grad, *row_loss, *scratch;
    row_memory row_loss_memory;

    ballast_plan plan;
    ballast_error error;
    double loss;
    int denominator; /* the one that was used */
    int64_t folded;  /* rows whose losses have been added to their classes */
    atomic_llong bad_target; /* the first element that is no target; -1: none */
    progress progress;
    double seconds;
    size_t written; /* bytes */
} job;

static bool complain_false(const char *text)
{
    complain("%s", text);
    return false;
}

/* What is one per row or class: weights and row losses. */
static size_t row_item_size(const job *j) { return size_of(row_dtype(j->dtype)); }

static ballast_dtype dtype_of(npy_dtype dtype)
{
    return dtype == NPY_F8 ? BALLAST_F64 : dtype == NPY_F2 ? BALLAST_F16 : BALLAST_F32;
}

static bool open_logits(job *j)
{
    npy_error err;
    const char *name = path_shown(j->s->logits);
    if (!npy_open(j->s->logits, &j->logits, &err) ||
        !npy_expect(&j->logits, name, NPY_F2 | NPY_F4 | NPY_F8, 2, &err))
        return complain_false(err.text);
    j->rows = j->logits.shape[0];
    j->classes = j->logits.shape[1];
    j->dtype = dtype_of(j->logits.dtype);
    if (j->classes > 0)
        return true;
    complain("%s: shape (%" PRId64 ", 0): there are no classes", name, j->rows);
    return false;
}

static bool refuse_dense(const job *j, const char *why)
{
    complain("%s: shape (%" PRId64 ", %" PRId64 "): %s", path_shown(j->s->labels),
             j->labels.shape[0], j->labels.shape[1], why);
    return false;
}

static bool check_dense(job *j)
{
    npy_error err;
    char why[256];
    j->counted = j->rows;
    if (balanced(j->s) || j->s->weights)
        return refuse_dense(j, "class weights need one label per row");
    if (j->s->loss == SOFTMAX)
        return refuse_dense(j, "softmax needs one label per row");
    if (j->s->denominator == BALLAST_POSITIVES || j->s->denominator == BALLAST_WEIGHT_SUM)
        return refuse_dense(j, "this --denominator needs one label per row");
    if (j->labels.shape[0] != j->rows || j->labels.shape[1] != j->classes) {
        snprintf(why, sizeof why, "want (%" PRId64 ", %" PRId64 "), the shape of %.200s", j->rows,
                 j->classes, path_shown(j->s->logits));
        return refuse_dense(j, why);
    }
    if (!npy_expect(&j->labels, path_shown(j->s->labels), NPY_U1 | (unsigned)j->logits.dtype, 2,
                    &err))
        return complain_false(err.text);
    return true;
}

static bool check_labels(job *j)
{
    npy_error err;
    const char *name = path_shown(j->s->labels);
    if (!npy_expect(&j->labels, name, NPY_I4 | NPY_I8 | NPY_U1, 1, &err))
        return complain_false(err.text);
    if (j->labels.count != j->rows) {
        complain("%s: shape (%" PRId64 ",): want (%" PRId64 ",), one label per row of %s", name,
                 j->labels.count, j->rows, path_shown(j->s->logits));
        return false;
    }
    if (!counts_from_labels(j->s->labels, &j->labels, j->classes, j->s->ignore_index, &j->seen))
        return false;
    for (int64_t c = 0; c < j->classes; c++)
        j->counted += j->seen.values[c];
    return true;
}

static bool open_labels(job *j)
{
    npy_error err;
    if (!npy_open(j->s->labels, &j->labels, &err))
        return complain_false(err.text);
    j->dense = j->labels.ndim == 2;
    return j->dense ? check_dense(j) : check_labels(j);
}

/* ---- Weights --------------------------------------------------------------------------------- */

static double weight_of(const job *j, int64_t class_index)
{
    if (!j->weights)
        return 1.0;
    return j->dtype == BALLAST_F64 ? ((const double *)j->weights)[class_index]
                                   : (double)((const float *)j->weights)[class_index];
}

static bool wrong_length(const job *j, const char *name, int64_t count, const char *what)
{
    complain("%s: %" PRId64 " %s, but %s has %" PRId64 " classes", name, count, what,
             path_shown(j->s->logits), j->classes);
    return false;
}

static bool balance_weights(job *j)
{
    class_counts given;
    if (!j->s->counts)
        return counts_weights(&j->seen, j->s->beta, j->s->empty, j->weights, row_dtype(j->dtype));
    if (!counts_from_text(j->s->counts, &given))
        return false;
    bool ok = given.classes == j->classes ||
              wrong_length(j, given.source, given.classes, "counts");
    ok = ok && counts_weights(&given, j->s->beta, j->s->empty, j->weights, row_dtype(j->dtype));
    counts_free(&given);
    return ok;
}

static bool take_weight(job *j, int64_t i, double weight)
{
    char text[CELL_SIZE];
    if (j->dtype == BALLAST_F64)
        ((double *)j->weights)[i] = weight;
    else
        ((float *)j->weights)[i] = (float)weight;
    if (isfinite(weight_of(j, i)) && weight >= 0.0)
        return true;
    format_real(text, weight, 9);
    complain("%s: class %" PRId64 ": weight %s is not a finite number >= 0",
             path_shown(j->s->weights), i, text);
    return false;
}

static bool take_weights(job *j, const npy_array *a)
{
    npy_error err;
    const char *name = path_shown(j->s->weights);
    if (!npy_expect(a, name, NPY_F4 | NPY_F8, 1, &err))
        return complain_false(err.text);
    if (a->count != j->classes)
        return wrong_length(j, name, a->count, "weights");
    for (int64_t i = 0; i < a->count; i++)
        if (!take_weight(j, i, a->dtype == NPY_F8 ? ((const double *)a->data)[i]
                                                  : (double)((const float *)a->data)[i]))
            return false;
    return true;
}

static bool read_weights(job *j)
{
    npy_array array;
    npy_error err;
    if (!npy_open(j->s->weights, &array, &err))
        return complain_false(err.text);
    bool ok = take_weights(j, &array);
    npy_close(&array);
    return ok;
}

static bool make_weights(job *j)
{
    if (!balanced(j->s) && !j->s->weights)
        return true;
    j->weights = calloc((size_t)j->classes, row_item_size(j));
    if (!j->weights)
        return complain_false("no memory for the class weights");
    return balanced(j->s) ? balance_weights(j) : read_weights(j);
}

/* ---- Output ---------------------------------------------------------------------------------- */

static bool create(const char *path, const job *j, npy_dtype dtype, int ndim, npy_writer *w,
                   void **data)
{
    npy_error err;
    if (!npy_create(path, dtype, ndim, j->logits.shape, w, &err))
        return complain_false(err.text);
    *data = npy_map(w, &err);
    return *data != NULL || complain_false(err.text);
}

static bool make_scratch(job *j)
{
    j->scratch = scratch_map((size_t)j->rows * row_item_size(j));
    j->sums = calloc((size_t)j->classes, sizeof *j->sums);
    if (!j->scratch || !j->sums)
        return complain_false("no memory for the losses by class");
    return true;
}

/* Row losses are needed by class, too: then they live in memory only until they are added. */
static bool create_outputs(job *j)
{
    const settings *s = j->s;
    if (s->grad_out || s->row_loss_out)
        interrupt_watch();
    if (s->grad_out && !create(s->grad_out, j, j->logits.dtype, 2, &j->grad_file, &j->grad))
        return false;
    const npy_dtype row_loss = j->dtype == BALLAST_F64 ? NPY_F8 : NPY_F4;
    if (s->row_loss_out &&
        !create(s->row_loss_out, j, row_loss, 1, &j->row_loss_file, &j->row_loss))
        return false;
    if (j->row_loss)
        j->row_loss_memory = row_memory_of_output(&j->row_loss_file, j->row_loss, j->rows);
    if (!j->dense && !make_scratch(j))
        return false;
    if (!j->row_loss && j->scratch) {
        j->row_loss = j->scratch;
        j->row_loss_memory = row_memory_of_scratch(j->scratch, row_item_size(j));
    }
    return true;
}

static bool commit(npy_writer *w)
{
    npy_error err;
    if (!w->name)
        return true;
    return npy_commit(w, &err) || complain_false(err.text);
}

static void job_close(job *j)
{
    npy_abandon(&j->grad_file);
    npy_abandon(&j->row_loss_file);
    scratch_unmap(j->scratch, (size_t)j->rows * row_item_size(j));
    npy_close(&j->logits);
    npy_close(&j->labels);
    counts_free(&j->seen);
    free(j->weights);
    free(j->sums);
}

/* ---- The library's arguments ----------------------------------------------------------------- */

static ballast_const_tensor matrix(const npy_array *a, ballast_dtype dtype)
{
    ballast_const_tensor t = {a->data, dtype, a->shape[0], a->shape[1], 1, a->shape[1], 1};
    return t;
}

static ballast_tensor grad_matrix(const job *j)
{
    ballast_tensor none = BALLAST_NO_TENSOR;
    ballast_tensor t = {j->grad, j->dtype, j->rows, j->classes, 1, j->classes, 1};
    return j->grad ? t : none;
}

/* What all argument structs have. The denominator stays the loss's own unless one was given. */
#define FILL(a, j)                                                                                \
    do {                                                                                          \
        (a).logits = matrix(&(j)->logits, (j)->dtype);                                            \
        if (!(j)->dense)                                                                          \
            (a).labels = labels_of(&(j)->labels);                                                 \
        (a).class_weight = (j)->weights;                                                          \
        (a).ignore_index = (j)->s->ignore_index;                                                  \
        (a).reduction = (ballast_reduction)(j)->s->reduction;                                     \
        if ((j)->s->denominator != DENOMINATOR_DEFAULT)                                           \
            (a).denominator = (ballast_denominator)(j)->s->denominator;                           \
        (a).denominator_value = (j)->s->denominator_value;                                        \
        (a).loss = (j)->s->reduction == BALLAST_NONE ? NULL : &(j)->loss;                         \
        (a).row_loss = (j)->row_loss;                                                             \
        (a).grad = grad_matrix(j);                                                                \
        (a).error = &(j)->error;                                                                  \
        (j)->denominator = (int)(a).denominator;                                                  \
    } while (0)

static ballast_dtype target_dtype(const job *j)
{
    return j->labels.dtype == NPY_U1 ? BALLAST_U8 : j->dtype;
}

static double or_default(double value, double standard) { return isnan(value) ? standard : value; }

static ballast_status prepare_balanced(job *j, const ballast_exec *exec)
{
    static const ballast_class_balanced_kind kinds[] = {
        [SOFTMAX] = BALLAST_CB_SOFTMAX, [SIGMOID] = BALLAST_CB_SIGMOID,
        [FOCAL] = BALLAST_CB_FOCAL,     [BCE] = BALLAST_CB_SIGMOID,
    };
    ballast_class_balanced_args a = BALLAST_CLASS_BALANCED_ARGS;
    FILL(a, j);
    a.kind = kinds[j->s->loss];
    a.gamma = or_default(j->s->gamma, a.gamma);
    return ballast_class_balanced_loss_prepare(&a, exec, &j->plan);
}

static ballast_status prepare_softmax(job *j, const ballast_exec *exec)
{
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    FILL(a, j);
    return ballast_cross_entropy_prepare(&a, exec, &j->plan);
}

static ballast_status prepare_sigmoid(job *j, const ballast_exec *exec)
{
    ballast_binary_cross_entropy_args a = BALLAST_BINARY_CROSS_ENTROPY_ARGS;
    FILL(a, j);
    if (j->dense)
        a.targets = matrix(&j->labels, target_dtype(j));
    return ballast_binary_cross_entropy_prepare(&a, exec, &j->plan);
}

static ballast_status prepare_focal(job *j, const ballast_exec *exec)
{
    ballast_sigmoid_focal_args a = BALLAST_SIGMOID_FOCAL_ARGS;
    FILL(a, j);
    if (j->dense)
        a.targets = matrix(&j->labels, target_dtype(j));
    a.alpha = or_default(j->s->alpha, a.alpha);
    a.gamma = or_default(j->s->gamma, a.gamma);
    return ballast_sigmoid_focal_prepare(&a, exec, &j->plan);
}

static bool prepare(job *j)
{
    char text[256];
    ballast_exec exec = BALLAST_EXEC;
    exec.implementation = j->s->isa;
    ballast_status status = balanced(j->s)         ? prepare_balanced(j, &exec)
                            : j->s->loss == SOFTMAX ? prepare_softmax(j, &exec)
                            : j->s->loss == FOCAL   ? prepare_focal(j, &exec)
                                                    : prepare_sigmoid(j, &exec);
    if (status == BALLAST_OK)
        return true;
    if (status == BALLAST_ERR_UNSUPPORTED && j->dtype == BALLAST_F64)
        complain("%s: dtype '<f8' is not supported: this Ballast is built without f64 tensors",
                 path_shown(j->s->logits));
    else
        complain("%s", ballast_error_message(&j->error, text, sizeof text));
    return false;
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* Row losses are added to their classes in batches of this many, whatever the slices, so that the
 * sums do not depend on the number of threads. */
static const int64_t batch_rows = INT64_C(1) << 20;

static ballast_labels labels_from(const job *j, int64_t row)
{
    ballast_labels labels = labels_of(&j->labels);
    labels.data = (const char *)labels.data + (size_t)row * npy_item_size(j->labels.dtype);
    return labels;
}

static bool fold_batch(job *j, int64_t begin, int64_t end, double *sums)
{
    ballast_per_class_args a = BALLAST_PER_CLASS_ARGS;
    a.values.data = (const char *)j->row_loss + (size_t)begin * row_item_size(j);
    a.values.dtype = row_dtype(j->dtype);
    a.values.count = end - begin;
    a.labels = labels_from(j, begin);
    a.classes = j->classes;
    a.ignore_index = j->s->ignore_index;
    a.sums = sums;
    a.error = &j->error;
    if (ballast_per_class(&a) != BALLAST_OK)
        return complain_false("labels changed while they were read");
    for (int64_t c = 0; c < j->classes; c++)
        j->sums[c] += sums[c];
    row_memory_drop(&j->row_loss_memory, begin, end);
    return true;
}

/* All batches that are complete before row `end`. */
static bool fold(job *j, int64_t end)
{
    double *sums = malloc((size_t)j->classes * sizeof *sums);
    bool ok = sums || complain_false("no memory for the losses by class");
    while (ok && j->folded < end) {
        int64_t next = j->rows - j->folded > batch_rows ? j->folded + batch_rows : j->rows;
        if (next > end)
            break;
        ok = fold_batch(j, j->folded, next, sums);
        j->folded = next;
    }
    free(sums);
    return ok;
}

static double target_at(const job *j, int64_t i)
{
    switch (j->labels.dtype) {
    case NPY_U1: return ((const uint8_t *)j->labels.data)[i];
    case NPY_F2:
        return (double)float_of_half(BALLAST_F16, ((const uint16_t *)j->labels.data)[i]);
    case NPY_F4: return (double)((const float *)j->labels.data)[i];
    default: return ((const double *)j->labels.data)[i];
    }
}

static bool is_target(const job *j, double value)
{
    return value == 0.0 || value == 1.0 || (j->s->loss != FOCAL && value > 0.0 && value < 1.0);
}

/* The library leaves targets to the caller: a mask of 0 and 255 would give a number that means
 * nothing. */
static void look_at_targets(void *arg, int64_t begin, int64_t end)
{
    job *j = arg;
    for (int64_t i = begin * j->classes; i < end * j->classes; i++) {
        if (is_target(j, target_at(j, i)))
            continue;
        long long first = atomic_load(&j->bad_target);
        while ((first < 0 || i < first) &&
               !atomic_compare_exchange_weak(&j->bad_target, &first, (long long)i))
            ;
        return;
    }
}

static bool refuse_target(job *j, int64_t element)
{
    char text[CELL_SIZE];
    format_real(text, target_at(j, element), 9);
    progress_end(&j->progress);
    complain("%s: row %" PRId64 ", class %" PRId64 ": target %s is %s", path_shown(j->s->labels),
             element / j->classes, element % j->classes, text,
             j->s->loss == FOCAL ? "neither 0 nor 1" : "outside [0, 1]");
    return false;
}

static bool after_slice(void *arg, int64_t begin, int64_t end)
{
    job *j = arg;
    if (!j->dense)
        return fold(j, end);
    row_memory_drop(&j->row_loss_memory, begin, end);
    int64_t bad = atomic_load(&j->bad_target);
    return bad < 0 || refuse_target(j, bad);
}

static bool run_rows(job *j, const ballast_parallel *parallel)
{
    slices run = {.plan = &j->plan, .parallel = parallel, .after = after_slice, .arg = j};
    run.before = j->dense ? look_at_targets : NULL;
    run.row_bytes = (size_t)j->classes * npy_item_size(j->logits.dtype);
    run.progress = &j->progress;
    run.memory[run.memory_count++] = row_memory_of_input(&j->logits, j->rows);
    run.memory[run.memory_count++] = row_memory_of_input(&j->labels, j->rows);
    if (j->grad)
        run.memory[run.memory_count++] = row_memory_of_output(&j->grad_file, j->grad, j->rows);
    progress_begin(&j->progress, path_shown(j->s->logits), (int64_t)j->logits.bytes, j->s->quiet);
    bool ok = slices_run(&run);
    progress_end(&j->progress);
    return ok;
}

static bool compute(job *j)
{
    pool threads;
    if (!prepare(j))
        return false;
    pool_open(&threads, j->s->threads);
    double begin = monotonic_seconds();
    bool ok = run_rows(j, &threads.parallel);
    ok = ok && ballast_plan_finish(&j->plan) == BALLAST_OK;
    j->seconds = monotonic_seconds() - begin;
    j->written = j->grad_file.bytes + j->row_loss_file.bytes;
    pool_close(&threads);
    return ok && commit(&j->grad_file) && commit(&j->row_loss_file);
}

/* ---- The report ------------------------------------------------------------------------------ */

static const char *kind_name(const settings *s)
{
    switch (s->loss) {
    case SOFTMAX: return balanced(s) ? "class-balanced softmax" : "softmax cross-entropy";
    case FOCAL: return balanced(s) ? "class-balanced focal" : "sigmoid focal";
    default: return balanced(s) ? "class-balanced sigmoid" : "binary cross-entropy";
    }
}

/* NULL for f64: its code is the same on every CPU. */
static const char *isa_name(const job *j)
{
    const ballast_implementation *isa = j->s->isa;
    if (j->dtype == BALLAST_F64)
        return NULL;
    return ballast_implementation_name(isa ? isa : ballast_implementation_default(NULL, 0));
}

static double class_mean(const job *j, int64_t c)
{
    return j->sums[c] / (double)j->seen.values[c];
}

static void write_cell(const void *arg, int64_t row, int column, char text[CELL_SIZE])
{
    const job *j = arg;
    if (column == 0)
        snprintf(text, CELL_SIZE, "%" PRId64, row);
    else if (column == 1)
        snprintf(text, CELL_SIZE, "%" PRId64, j->seen.values[row]);
    else if (column == 2)
        snprintf(text, CELL_SIZE, "%#.9g", weight_of(j, row));
    else if (j->seen.values[row] == 0)
        snprintf(text, CELL_SIZE, "-");
    else
        format_real(text, class_mean(j, row), 9);
}

static void print_parameters(const job *j)
{
    const settings *s = j->s;
    char beta[CELL_SIZE];
    format_exact(beta, s->beta);
    printf("kind          %s", kind_name(s));
    if (balanced(s))
        printf(", beta %s", beta);
    if (s->loss == FOCAL)
        printf(", gamma %g", or_default(s->gamma, 2.0));
    if (s->loss == FOCAL && !balanced(s) && or_default(s->alpha, 0.25) >= 0.0)
        printf(", alpha %g", or_default(s->alpha, 0.25));
    printf("\nreduction     %s", reduction_names[s->reduction]);
    if (s->reduction == BALLAST_MEAN && j->denominator == BALLAST_GIVEN)
        printf(" over %g", s->denominator_value);
    else if (s->reduction == BALLAST_MEAN)
        printf(" over %s", denominator_names[j->denominator]);
    putchar('\n');
}

static void print_text(const job *j)
{
    static const char *const heads[] = {"class", "rows", "weight", "mean loss"};
    char text[CELL_SIZE];
    const char *isa = isa_name(j);
    format_real(text, j->loss, 15);
    if (j->s->reduction != BALLAST_NONE)
        printf("%sloss          %s%s\n", output_style(stdout, STYLE_HEAD), text,
               output_style(stdout, STYLE_PLAIN));
    print_parameters(j);
    printf("rows          %" PRId64 "\ncounted rows  %" PRId64 "\nclasses       %" PRId64 "\n",
           j->rows, j->counted, j->classes);
    printf("isa           %s\n", isa ? isa : "none (f64: the same code on every CPU)");
    if (j->dense)
        return;
    putchar('\n');
    table t = {heads, 4, j->classes, write_cell, j};
    table_print(&t);
}

static void write_parameters(json *out, const job *j)
{
    const settings *s = j->s;
    json_text(out, "kind", kind_name(s));
    if (balanced(s))
        json_real(out, "beta", s->beta);
    if (s->loss == FOCAL)
        json_real(out, "gamma", or_default(s->gamma, 2.0));
    if (s->loss == FOCAL && !balanced(s) && or_default(s->alpha, 0.25) >= 0.0)
        json_real(out, "alpha", or_default(s->alpha, 0.25));
    json_text(out, "reduction", reduction_names[s->reduction]);
    if (s->reduction == BALLAST_MEAN && j->denominator == BALLAST_GIVEN)
        json_real(out, "denominator", s->denominator_value);
    else if (s->reduction == BALLAST_MEAN)
        json_text(out, "denominator", denominator_names[j->denominator]);
}

static void write_classes(json *out, const job *j)
{
    json_array(out, "per_class");
    for (int64_t c = 0; c < j->classes; c++) {
        json_object(out, NULL);
        json_integer(out, "class", c);
        json_integer(out, "rows", j->seen.values[c]);
        json_real(out, "weight", weight_of(j, c));
        json_real(out, "mean_loss", class_mean(j, c));
        json_end(out);
    }
    json_end(out);
}

static void print_json(const job *j)
{
    json out;
    json_begin(&out, stdout);
    if (j->s->reduction != BALLAST_NONE)
        json_real(&out, "loss", j->loss);
    write_parameters(&out, j);
    json_integer(&out, "rows", j->rows);
    json_integer(&out, "counted_rows", j->counted);
    json_integer(&out, "classes", j->classes);
    json_text(&out, "isa", isa_name(j));
    if (!j->dense)
        write_classes(&out, j);
    json_end(&out);
}

static void print_time(const job *j)
{
    double read = 1e-9 * (double)(j->logits.bytes + j->labels.bytes);
    double written = 1e-9 * (double)j->written;
    fprintf(stderr, "ballast: %.6f s, %.6f GB read, %.6f GB written, %.3f GB/s\n", j->seconds, read,
            written, j->seconds > 0.0 ? (read + written) / j->seconds : 0.0);
}

static bool run(job *j)
{
    return open_logits(j) && open_labels(j) && make_weights(j) && create_outputs(j) && compute(j);
}

static int run_job(const settings *s)
{
    job *j = calloc(1, sizeof *j); /* its plan alone is 17 KiB */
    if (!j)
        return complain("no memory");
    j->s = s;
    atomic_init(&j->bad_target, -1);
    bool ok = run(j);
    if (ok && s->time)
        print_time(j);
    if (ok && s->json)
        print_json(j);
    else if (ok)
        print_text(j);
    job_close(j);
    free(j);
    interrupt_leave();
    return ok ? EXIT_GOOD : EXIT_BAD_INPUT;
}

int loss_main(int argc, char **argv)
{
    settings s = {.reduction = BALLAST_MEAN, .denominator = DENOMINATOR_DEFAULT,
                  .denominator_value = 1.0, .beta = NAN, .gamma = NAN, .alpha = NAN,
                  .ignore_index = -100};
    options o;
    if (!options_read(&o, &spec, argc, argv, apply, &s))
        return o.exit_code;
    s.logits = o.operands[0];
    s.labels = o.operands[1];
    s.threads = o.threads;
    s.quiet = o.quiet;
    s.json = o.json;
    user_profile_load();
    return check(&s) ? run_job(&s) : EXIT_BAD_INPUT;
}
