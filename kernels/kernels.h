/* SPDX-License-Identifier: MIT */
/* What dispatch hands to the kernels: one job per family of operations, one table per ISA.
 *
 * A job is a validated problem: the arguments of the public call with defaults resolved. A kernel
 * computes rows [begin, end) of it on the calling thread: no allocation, no checks, no state. Arrays
 * are untyped here; their storage type is that of the table.
 *
 * Sums over rows. Rows are cut into leaves of `leaf_rows` (a multiple of 16, chosen by dispatch from
 * the number of rows alone). Within a leaf, row i adds into double lane i % 16; the lanes are folded
 * 16 -> 8 -> 4 -> 2 -> 1 into partial[leaf]. A kernel is called with begin on a leaf's boundary, and
 * end on one or at the last row, whenever partial is given. Dispatch adds the leaves pairwise. */
#ifndef BALLAST_KERNELS_H
#define BALLAST_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { LEAF_LANES = 16, MAX_LEAVES = 1024 };

/* Softmax, log-softmax (output a matrix) and log-sum-exp (output one value per row). */
typedef struct softmax_job {
    const void *input;
    int64_t input_stride;
    void *output;
    int64_t output_stride;
    int64_t classes;
    int beyond_cache; /* the problem is larger than the last cache: stream what is written */
} softmax_job;

/* Backward of softmax and log-softmax. */
typedef struct softmax_backward_job {
    const void *output;
    int64_t output_stride;
    const void *grad_output;
    int64_t grad_output_stride;
    void *grad_input;
    int64_t grad_input_stride;
    int64_t classes;
} softmax_backward_job;

/* What every loss knows about its rows. NULL means: all ones (weights), not wanted (outputs).
 * A row's loss is weighted by class_weight[label] * row_weight[row]; its gradient by that times
 * grad_scale (the denominator is in it) times grad_rows[row]. */
typedef struct row_terms {
    const void *labels;
    int label_bytes; /* 1: u8, 4: i32, 8: i64; 0: no labels */
    int64_t ignore_index;
    const void *class_weight;
    const void *row_weight;
    const void *grad_rows;
    double grad_scale;
    void *row_loss;
    double *partial; /* [leaves], or NULL */
    int64_t leaf_rows;
} row_terms;

typedef struct cross_entropy_job {
    row_terms rows;
    const void *logits;
    int64_t logits_stride;
    void *grad;
    int64_t grad_stride;
    int64_t classes;
    int beyond_cache; /* as in softmax_job */
} cross_entropy_job;

enum target_kind {
    TARGET_LABEL, /* one class per row, from rows.labels */
    TARGET_U8,    /* 0 negative, else positive */
    TARGET_DENSE  /* the storage type */
};

/* Binary cross-entropy and sigmoid focal loss (the focal fields are read by the latter only). */
typedef struct sigmoid_job {
    row_terms rows;
    const void *logits;
    int64_t logits_stride;
    enum target_kind target_kind;
    const void *targets;
    int64_t targets_stride;
    void *element_loss;
    int64_t element_loss_stride;
    void *grad;
    int64_t grad_stride;
    int64_t classes;
    double gamma;
    double alpha_positive, alpha_negative; /* 1 and 1 where alpha is off */
} sigmoid_job;

/* Reductions of a vector. Its "rows" are elements; leaves are multiples of REDUCE_SPAN. A leaf's
 * partial results are `parts` doubles at partial[leaf * REDUCE_PARTS]. */
enum { REDUCE_SPAN = 4096, REDUCE_PARTS = 2 };
typedef struct reduce_job {
    const void *x;
    const void *weights; /* NULL: all ones */
    double *partial;
    int64_t leaf_rows;
} reduce_job;

typedef struct kernel_table {
    void (*softmax)(const softmax_job *, int64_t begin, int64_t end);
    void (*log_softmax)(const softmax_job *, int64_t begin, int64_t end);
    void (*log_sum_exp)(const softmax_job *, int64_t begin, int64_t end);
    void (*softmax_backward)(const softmax_backward_job *, int64_t begin, int64_t end);
    void (*log_softmax_backward)(const softmax_backward_job *, int64_t begin, int64_t end);
    void (*cross_entropy)(const cross_entropy_job *, int64_t begin, int64_t end);
    void (*binary_cross_entropy)(const sigmoid_job *, int64_t begin, int64_t end);
    void (*sigmoid_focal)(const sigmoid_job *, int64_t begin, int64_t end);
    /* parts: { sum w x } ; { sum w x, sum w } ; { sum w x^2 } ; { total, reference } */
    void (*weighted_sum)(const reduce_job *, int64_t begin, int64_t end);
    void (*weighted_mean)(const reduce_job *, int64_t begin, int64_t end);
    void (*weighted_sum_of_squares)(const reduce_job *, int64_t begin, int64_t end);
    void (*weighted_log_sum_exp)(const reduce_job *, int64_t begin, int64_t end);
    /* log(sum over leaves of total * exp(reference)) of weighted_log_sum_exp's parts */
    double (*log_sum_exp_of_parts)(const double *parts, int64_t leaves);
} kernel_table;

/* The tables, one per storage type and ISA, are defined by kernels/table.c. */
#define DECLARE_TABLE(storage, isa) extern const kernel_table ballast__kernels_##storage##_##isa
DECLARE_TABLE(f32, scalar);
DECLARE_TABLE(f32, avx2);
DECLARE_TABLE(f32, avx512);
DECLARE_TABLE(f32, neon);
DECLARE_TABLE(f64, reference);

#endif
