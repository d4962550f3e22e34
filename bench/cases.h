/* SPDX-License-Identifier: MIT */
/* The registry of cases: what tests, `ballast check`, the benchmark and the tuner run.
 *
 * A problem is a string that names one case:
 *
 *   cross_entropy:f32:rows=31,classes=259,offset=5,stride=300,inputs=confident,outputs=loss+grad
 *
 * operation, dtype (f32, f64, bf16 or f16), and keys that differ from their defaults; `ballast check --help`
 * lists them. The values of a case's inputs depend on the kind of inputs and the seed alone, row by
 * row: not on strides, inner, offsets, outputs or the machine. They are made of integers, powers of two
 * and single roundings, so that they are the same bits wherever the program is compiled.
 *
 * To add an operation: a file with its entry and the three functions that make its inputs, run it
 * and say what its results should be, and a line in `operations` (cases.c). To add a key: an entry
 * in `keys` (problem.c). */
#ifndef BALLAST_BENCH_CASES_H
#define BALLAST_BENCH_CASES_H

#include "ballast/ballast.h"
#include "library.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { CASE_OUTPUTS = 4, PROBLEM_TEXT = 512, ALL_COLUMNS = -2 };

/* ---- Problems: problem.c --------------------------------------------------------------------- */

typedef struct operation operation;

enum case_kind_of_inputs {
    INPUTS_NORMAL,         /* of deviation 2 */
    INPUTS_UNIFORM,        /* in [-16, 16) */
    INPUTS_CONFIDENT,      /* normal, one of each row, mostly the label's, ahead by up to 80 */
    INPUTS_OFFSET_1E4,     /* normal, +-1e4 by turns */
    INPUTS_OFFSET_1E30,    /* +-1e30 by turns, and neighbours of it */
    INPUTS_MASKED,         /* normal, a quarter of them -inf */
    INPUTS_EQUAL,          /* one value a row */
    INPUTS_EXPONENTS,      /* either sign, magnitudes from 2^-30 to 2^7 */
    INPUTS_PATTERNS,       /* every bit pattern once in 2^32 elements (2^16); f64: random bits */
    INPUTS_MIXED_SPECIALS, /* rows of infinities, NaN, subnormals, extremes, by turns */
    INPUTS_KINDS
};

enum case_targets { TARGETS_LABELS, TARGETS_U8, TARGETS_DENSE, TARGETS_SOFT };
enum case_labels { LABELS_I64, LABELS_I32, LABELS_U8 };
enum case_weights { WEIGHTS_NONE, WEIGHTS_CLASS, WEIGHTS_ROW, WEIGHTS_BOTH };

/* In place: the result replaces the logits (input, grad_output); of the backward operations, 2
 * replaces `output`. */
typedef struct problem {
    const operation *operation;
    ballast_dtype dtype;
    int64_t rows; /* of a vector: elements */
    int64_t classes;
    int64_t stride; /* of every matrix, in elements; 0: without gaps */
    /* of every matrix: rows are [outer, inner], classes a plane apart; class_stride 0: inner */
    int64_t inner, class_stride;
    int64_t offset; /* of every array, in elements, from an address on a multiple of 64 bytes */
    int64_t inputs, targets, labels, weights;
    int64_t kind; /* of the class-balanced loss: ballast_class_balanced_kind */
    double gamma, alpha, beta;
    int64_t ignored, background; /* rows, in percent */
    int64_t outputs;             /* a bit for each that is asked for; 0: all */
    int64_t inplace;
    int64_t reduction;   /* ballast_reduction */
    int64_t denominator; /* 0: the operation's default, else 1 + ballast_denominator */
    double grad_scale;
    int64_t grad_rows; /* 1: given */
    int64_t pieces;    /* 1: by prepare, rows of one step each, last step first, and finish */
    int64_t threads;   /* how many the caller of case_run lends */
    int64_t seed;
} problem;

/* Reads a problem; 1 on success. Otherwise 0, and what is wrong with it in `message`. */
int problem_parse(const char *text, problem *p, char *message, size_t size);

/* The dtypes of problems; BALLAST_DTYPE_NONE past the last. */
ballast_dtype problem_dtype(int index);
const char *problem_dtype_name(ballast_dtype dtype);

/* The canonical form. Returns `text`. */
const char *problem_format(const problem *p, char *text, size_t size);

/* Prints the grammar: operations, keys, their values and defaults. */
void problem_help(FILE *out);

/* The outputs that the problem asks for and its operation can give: a bit for each. */
unsigned problem_outputs(const problem *p);

int problem_is_vector(const problem *p);

/* The i-th of the problems that are run by default, `sweep` 0 quick, 1 more, 2 long; 0 past the
 * last. */
int problem_default(int sweep, int64_t i, problem *p);

/* ---- Operations: cases.c --------------------------------------------------------------------- */

enum case_shape { OUT_NONE, OUT_MATRIX, OUT_ROWS, OUT_NUMBER, OUT_CLASSES, OUT_COUNTS };

/* bound: in ULP of f32; what is known of other dtypes, weights and options is added by case_bound. */
typedef struct case_output {
    const char *name;
    enum case_shape shape;
    double bound;
} case_output;

typedef struct case_data case_data;
typedef struct case_results case_results;
typedef struct case_reference case_reference;

struct operation {
    const char *name;
    uint64_t keys; /* a bit for each key that it has */
    case_output outputs[CASE_OUTPUTS];
    const char *const *variants; /* options worth testing, as in a problem; ends with NULL */
    void (*make)(case_data *c);
    ballast_status (*run)(const case_data *c, case_results *out, const ballast_exec *exec);
    /* Row `row` of every output, in r->value. */
    void (*refer)(const case_data *c, int64_t row, case_reference *r);
};

/* f32 and f64 in any case: "per_class" has no others. */
int operation_has_dtype(const operation *op, ballast_dtype dtype);

const operation *operation_at(int index); /* NULL past the last */
const operation *operation_find(const char *name, size_t length);

/* Keys, as bits of operation.keys: in the order of `keys` in problem.c. */
enum {
    KEY_ROWS, KEY_COUNT, KEY_CLASSES, KEY_STRIDE, KEY_INNER, KEY_CLASS_STRIDE, KEY_OFFSET, KEY_INPUTS, KEY_TARGETS, KEY_LABELS,
    KEY_WEIGHTS, KEY_KIND, KEY_GAMMA, KEY_ALPHA, KEY_BETA, KEY_IGNORED, KEY_BACKGROUND,
    KEY_OUTPUTS, KEY_INPLACE, KEY_REDUCTION, KEY_DENOMINATOR, KEY_GRAD_SCALE, KEY_GRAD_ROWS,
    KEY_PIECES, KEY_THREADS, KEY_SEED, KEYS
};
#define KEY(k) (UINT64_C(1) << (k))

/* ---- Cases ----------------------------------------------------------------------------------- */

/* A vector is a matrix of one row. Row i begins at i / inner * stride + i % inner, and its columns are
 * column_stride apart. */
typedef struct case_array {
    const char *name;
    ballast_dtype dtype;
    int64_t rows, columns, stride, inner, column_stride;
    int per_row; /* row i belongs to row i of the problem */
    void *data;  /* NULL: not given */
    void *memory;
    size_t bytes; /* of the memory */
} case_array;

enum case_input { IN_X, IN_GRAD, IN_TARGETS, IN_LABELS, IN_CLASS_WEIGHT, IN_WEIGHT, IN_GRAD_ROWS,
                  IN_COUNTS, CASE_INPUTS };

struct case_data {
    problem p;
    const library *library; /* that runs it: the linked one, unless the caller names another */
    case_array in[CASE_INPUTS];
    int64_t ignore_index;
    int is_view; /* rows of another: owns nothing */
};

struct case_results {
    case_array out[CASE_OUTPUTS];
    int is_view;
};

/* What large arrays stand on from now on. A CPU translates addresses page by page: figures of work
 * that leaves the caches depend on it. Memory is written to, and so there, before it is used. */
enum case_pages { PAGES_OF_SYSTEM, PAGES_4K, PAGES_HUGE };
void case_use_pages(enum case_pages pages);

/* Makes the inputs. Ends the program where there is no memory. case_free gives it back. */
void case_make(const problem *p, case_data *c);
void case_free(case_data *c);

/* Memory for the outputs that c->p asks for. Afterwards c->p may be changed in what is no matter of
 * the inputs (outputs, in place, reduction, pieces, ...), and results be made for that. */
void case_results_make(const case_data *c, case_results *out);
void case_results_free(case_results *out);

/* Fills results with the pattern, and with the inputs that they replace. */
void case_results_reset(const case_data *c, case_results *out);

/* Rows [begin, end) of a case or of results, in the same memory: multiples of inner. */
void case_rows(const case_data *c, int64_t begin, int64_t end, case_data *view);
void case_results_rows(const case_results *r, int64_t begin, int64_t end, case_results *view);

/* Runs it, with everything around the outputs filled with a pattern. Neither may be missing but
 * `implementation` and `parallel` may be NULL, for the defaults. */
ballast_status case_run(const case_data *c, const ballast_implementation *implementation,
                        const ballast_parallel *parallel, case_results *out);

/* The output around which something was overwritten; NULL where nothing was. */
const char *case_stray_write(const case_results *out);

/* FNV-1a, 64 bits, over the bytes of the outputs' rows. */
uint64_t case_hash(const case_results *out);

/* Draws a problem, runs it as case_run() does, and hashes its outputs; the status of the call. */
ballast_status case_hash_of(const problem *p, const ballast_implementation *implementation,
                            const ballast_parallel *parallel, uint64_t *hash);

/* The first difference of the outputs that both have. */
typedef struct case_difference {
    const char *output;
    int64_t row, column;
    int is_matrix;
    char a[24], b[24]; /* both values, in hex */
} case_difference;

/* 1 where all bits are equal. */
int case_equal(const case_results *a, const case_results *b, case_difference *d);

/* "grad[17][203]" */
const char *case_place(const case_difference *d, char *text, size_t size);

/* ---- Accuracy: needs tests/oracle ------------------------------------------------------------ */

typedef struct case_error {
    int measured; /* the output is there, and there is a reference for it */
    double ulp;
    int of_terms; /* ULP of the sum of |terms| */
    int64_t row, column;
    double got;
    long double want;
    double x; /* the input at that place; 0 where there is none */
} case_error;

/* Worst error of each output against the oracle. NaN that is not canonical counts as infinite. */
void case_measure(const case_data *c, const case_results *out, case_error worst[CASE_OUTPUTS]);

/* What the error of output k must not exceed; INFINITY where nothing is promised. */
double case_bound(const problem *p, int k);

/* One row of expected values, as operation.refer fills it in. */
struct case_reference {
    long double *value[CASE_OUTPUTS];
    long double *terms[CASE_OUTPUTS]; /* read where of_terms */
    int of_terms[CASE_OUTPUTS];
    unsigned unknown; /* a bit for each output without a reference in this row */
    /* by how much a result may be off because tiny exponentials are 0 or subnormal before they are
     * multiplied; and a sum of them */
    long double tiny, tiny_sum;
    int64_t sum_column; /* of matrices, the column that is a sum; -1: none, ALL_COLUMNS */
    double *x, *y;    /* room for a row */
    long double loss;    /* sum of the row losses so far, weighted */
    long double divisor; /* of a mean */
};

#endif
