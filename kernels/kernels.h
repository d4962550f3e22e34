/* SPDX-License-Identifier: MIT */
/* What dispatch hands to the kernels: one job per family of operations, one table per ISA.
 *
 * A job is a validated problem: the arguments of the public call with defaults resolved. A kernel
 * computes rows [begin, end) of it on the calling thread: no allocation, no checks, no state. Arrays
 * are untyped here; their storage type is that of the table. Where it has a format, logits, gradients,
 * dense targets, element losses and vectors are of 16 bits, and what is one per row or class is f32.
 *
 * Tensors are [outer, classes, inner]. Row i is position i % inner of outer index i / inner; its class
 * c stands at (i / inner) * stride + c * class_stride + i % inner. Kernels without `planes` in their
 * name are for inner = 1 and class strides of 1: rows of contiguous classes. They do not read either.
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

/* A storage type of 16 bits: n elements become f32, and f32 is rounded to n elements, once.
 * NULL in a job: f32, or f64. */
typedef struct storage_format {
    void (*widen)(const uint16_t *from, int64_t n, float *to);
    void (*narrow)(const float *from, int64_t n, uint16_t *to);
    int is_f16; /* else bf16 */
    int cpu_rounds; /* whether the CPU has what vstore_pair_by_cpu_bf16() takes */
} storage_format;

/* A chunk: what is summed of a long row at once. Of so many, a row's references have room on the stack. */
enum { CHUNK = 2048, MOST_KEPT_CHUNKS = 128 };

/* What a call needs before rows of one chunk overlap, each of so many classes at least. Short rows of cross-entropy,
 * of which there must be more, are over as fast one by one: two of 70 classes take 1.07 of the time side by side (AMD
 * Zen 5; AVX2 1.25), four less. */
enum { LEAST_ONE_CHUNK_ROWS = 2, LEAST_ONE_CHUNK = 64, LEAST_SHORT_LOSSES = 4 };

/* How rows that are read once are fetched: so many elements before they are needed, 0: as suits most
 * CPUs; and how near. */
typedef struct fetching {
    int32_t ahead;
    int32_t near; /* 1: into L1 */
} fetching;

/* Softmax, log-softmax (output a matrix) and log-sum-exp (output one value per row). */
typedef struct softmax_job {
    const void *input;
    int64_t input_stride, input_class_stride;
    void *output;
    int64_t output_stride, output_class_stride;
    int64_t classes, inner;
    const storage_format *format;
    int beyond_cache;     /* the problem is too large for the caches: stream what is written */
    int64_t tile_classes; /* rows of at most so many classes go sixteen at once, if they can, */
    int64_t row_tile_classes; /* and those that stay rows of at most so many */
    /* Long rows of so many chunks keep their exponentials in the output, those of more, and of more than
     * MOST_KEPT_CHUNKS, compute them twice. 0: as many as can be. */
    int64_t kept_chunks;
    fetching fetch;
} softmax_job;

/* Backward of softmax and log-softmax. */
typedef struct softmax_backward_job {
    const void *output;
    int64_t output_stride, output_class_stride;
    const void *grad_output;
    int64_t grad_output_stride, grad_output_class_stride;
    void *grad_input;
    int64_t grad_input_stride, grad_input_class_stride;
    int64_t classes, inner;
    int beyond_cache; /* as in softmax_job */
    const storage_format *format;
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
    int64_t logits_stride, logits_class_stride;
    void *grad;
    int64_t grad_stride, grad_class_stride;
    int64_t classes, inner;
    const storage_format *format;
    int beyond_cache; /* as in softmax_job, like */
    int64_t tile_classes, row_tile_classes, kept_chunks;
    fetching fetch;
} cross_entropy_job;

enum target_kind {
    TARGET_LABEL, /* one class per row, from rows.labels */
    TARGET_U8,    /* 0 negative, else positive */
    TARGET_DENSE  /* the logits' storage type */
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
    const storage_format *format;
    int beyond_cache; /* as in softmax_job */
    double gamma;
    double alpha_positive, alpha_negative; /* 1 and 1 where alpha is off */
} sigmoid_job;

/* Reductions of a vector. Its "rows" are elements; leaves are multiples of REDUCE_SPAN. A leaf's
 * partial results are `parts` doubles at partial[leaf * REDUCE_PARTS]. x and weights are no neighbours, or a
 * compiler copies them from the arguments in one piece with half of each vector's next member, which the CPU
 * cannot forward from the stores that filled them. */
enum { REDUCE_SPAN = 4096, REDUCE_PARTS = 2 };
typedef struct reduce_job {
    const void *x;
    const storage_format *format;
    const void *weights; /* NULL: all ones */
    double *partial;
    int64_t leaf_rows;
} reduce_job;

/* Long rows shared between threads.
 *
 * A row's sum is that of its chunks, whoever computes them. So a batch of rows takes three steps, of
 * which the first and the last are cut anywhere between chunks and run on any threads:
 *   states   what each chunk sums to. Its exponentials wait where its output will be, or, of 16 bits, are
 *            computed once more.
 *   combine  adds a row's chunks in index order. Row outputs and the sums over rows are done then.
 *   outputs  what depends on the row's sum.
 * Chunks are counted through the rows of the batch. The bits are those of the kernel that computes
 * rows whole. */
enum { SHARED_CHUNKS = 256, SHARED_ROWS = 64 };

/* A row, or a chunk of one: exponentials are relative to exp(shift) 2^n; `left_out` is that of one
 * column, which is not among the others. */
typedef struct chunk_state {
    double others;
    float left_out, max, n, shift;
} chunk_state;

typedef struct shared_row {
    chunk_state whole;
    double factor;     /* of the exponentials in the output */
    float label_logit; /* read before an output in place overwrites it */
    float value;       /* the label's gradient, or what log-softmax subtracts */
    int is_special;
} shared_row;

typedef struct shared_rows {
    int64_t row_count;  /* of the job */
    int64_t begin, end; /* rows of the batch, at most SHARED_ROWS */
    int64_t chunks;     /* of a row; of all rows together at most SHARED_CHUNKS */
    chunk_state state[SHARED_CHUNKS];
    shared_row row[SHARED_ROWS];
    double leaf[LEAF_LANES]; /* losses of the leaf under way; 0 before the first batch */
} shared_rows;

typedef struct shared_kernel { /* all NULL: rows are not shared */
    void (*states)(const void *job, shared_rows *, int64_t begin, int64_t end);
    void (*combine)(const void *job, shared_rows *);
    void (*outputs)(const void *job, shared_rows *, int64_t begin, int64_t end); /* NULL: none */
} shared_kernel;

typedef struct kernel_table {
    const storage_format *format; /* for the jobs */
    const storage_format *cpu_format; /* the same where the CPU rounds */
    /* For the jobs, too, where nothing else was chosen: usually, where outputs are streamed, and of
     * log-sum-exp, of which no rows leave. */
    int64_t tile_classes, streamed_tile_classes, log_sum_exp_tile_classes;
    void (*softmax)(const softmax_job *, int64_t begin, int64_t end);
    void (*log_softmax)(const softmax_job *, int64_t begin, int64_t end);
    void (*log_sum_exp)(const softmax_job *, int64_t begin, int64_t end);
    void (*softmax_backward)(const softmax_backward_job *, int64_t begin, int64_t end);
    void (*log_softmax_backward)(const softmax_backward_job *, int64_t begin, int64_t end);
    void (*cross_entropy)(const cross_entropy_job *, int64_t begin, int64_t end);
    /* The same for any inner and class stride: each class is a plane of its own. */
    void (*softmax_planes)(const softmax_job *, int64_t begin, int64_t end);
    void (*log_softmax_planes)(const softmax_job *, int64_t begin, int64_t end);
    void (*log_sum_exp_planes)(const softmax_job *, int64_t begin, int64_t end);
    void (*softmax_backward_planes)(const softmax_backward_job *, int64_t begin, int64_t end);
    void (*log_softmax_backward_planes)(const softmax_backward_job *, int64_t begin, int64_t end);
    void (*cross_entropy_planes)(const cross_entropy_job *, int64_t begin, int64_t end);
    void (*binary_cross_entropy)(const sigmoid_job *, int64_t begin, int64_t end);
    void (*sigmoid_focal)(const sigmoid_job *, int64_t begin, int64_t end);
    /* parts: { sum w x } ; { sum w x, sum w } ; { sum w x^2 } ; { total, reference } */
    void (*weighted_sum)(const reduce_job *, int64_t begin, int64_t end);
    void (*weighted_mean)(const reduce_job *, int64_t begin, int64_t end);
    void (*weighted_sum_of_squares)(const reduce_job *, int64_t begin, int64_t end);
    void (*weighted_log_sum_exp)(const reduce_job *, int64_t begin, int64_t end);
    /* log(sum over leaves of total * exp(reference)) of weighted_log_sum_exp's parts */
    double (*log_sum_exp_of_parts)(const double *parts, int64_t leaves);
    /* of softmax_job, but for the last, of cross_entropy_job */
    shared_kernel shared_softmax, shared_log_softmax, shared_log_sum_exp, shared_cross_entropy;
} kernel_table;

/* The tables, one per storage type and ISA: of f32 in kernels/table.c, of 16 bits in kernels/narrow.c. */
#define DECLARE_TABLE(storage, isa) extern const kernel_table ballast__kernels_##storage##_##isa
#define DECLARE_TABLES(isa)                                                                       \
    DECLARE_TABLE(f32, isa);                                                                      \
    DECLARE_TABLE(bf16, isa);                                                                     \
    DECLARE_TABLE(f16, isa)
DECLARE_TABLES(scalar);
DECLARE_TABLES(avx2);
DECLARE_TABLES(avx512);
DECLARE_TABLES(neon);
DECLARE_TABLE(f64, reference);

#endif
