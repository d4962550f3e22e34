/* SPDX-License-Identifier: MIT */
/* Storage of 16 bits: elements go through f32.
 *
 * Arithmetic is in f32 whatever the storage is, so its kernels serve every storage type. Most take a
 * job's format themselves: long rows go through narrow_rows.c, the sigmoid losses and the
 * reductions widen the pieces that they take anyway. Here are those that do not: as many short rows, or
 * rows of gradients, as fit are widened onto a stage on the stack, computed there in place, and narrowed
 * to where they belong. Rows of gradients that are too long for it come by chunks, twice.
 *
 * A result is that of the f32 kernel for the same numbers, rounded once more where it has 16 bits. */
#include "cross_entropy_loss.h"
#include "neighbours.h"
#include "shared_row.h"
#include "softmax_tile.h"

enum {
    STAGE = 2 * CHUNK, /* numbers: 16 KiB. Twice as many take 3 % off rows of 1000 classes */
    BATCH_ROWS = 256,  /* at most so many rows are on the stage */
    PACK_ROWS = 64     /* and so many neighbours, where classes are planes */
};

/* ---- where elements are ----------------------------------------------------------------------- */

/* A tensor [outer, classes, inner] of the job; an output's elements are written. */
typedef struct tensor {
    const storage_format *format;
    uint16_t *data;
    int64_t stride, class_stride, inner;
} tensor;

/* A const array is read only. */
LANES tensor tensor_of(const storage_format *format, const void *data, int64_t stride,
                       int64_t class_stride, int64_t inner)
{
    return (tensor){format, (uint16_t *)(uintptr_t)data, stride, class_stride, inner};
}

LANES uint16_t *row_of(const tensor *t, int64_t row)
{
    return t->data + row / t->inner * t->stride + row % t->inner;
}

/* Classes [at, at + n) of a row. */
static __attribute__((noinline)) void read_classes(const tensor *t, int64_t row, int64_t at, int64_t n,
                                                   float *to)
{
    const uint16_t *from = row_of(t, row) + at * t->class_stride;
    uint16_t near[CHUNK];
    if (t->class_stride == 1) {
        t->format->widen(from, n, to);
        return;
    }
    for (int64_t i = 0; i < n; i += CHUNK) {
        const int64_t some = chunk_length(n, i);
        for (int64_t c = 0; c < some; c++)
            near[c] = from[(i + c) * t->class_stride];
        t->format->widen(near, some, to + i);
    }
}

static __attribute__((noinline)) void write_classes(const tensor *t, int64_t row, int64_t at, int64_t n,
                                                    const float *from)
{
    uint16_t *to = row_of(t, row) + at * t->class_stride, near[CHUNK];
    if (t->class_stride == 1) {
        t->format->narrow(from, n, to);
        return;
    }
    for (int64_t i = 0; i < n; i += CHUNK) {
        const int64_t some = chunk_length(n, i);
        t->format->narrow(from + i, some, near);
        for (int64_t c = 0; c < some; c++)
            to[(i + c) * t->class_stride] = near[c];
    }
}

/* ---- rows on the stage ------------------------------------------------------------------------ */

/* Rows [row, row + count) of a job. As planes they are neighbours and stay [classes, count];
 * otherwise they stand one after the other, [count, classes]. */
typedef struct batch {
    int64_t row, count, classes;
    int planes;
    int64_t stride, class_stride, inner; /* on the stage */
} batch;

/* How many rows of a job go on a stage of `room` numbers at a time; 0: not even one does. Whole blocks
 * where there are several: the kernels take them sixteen at a time. */
LANES int64_t rows_on_stage(int64_t classes, int64_t room, int64_t most)
{
    const int64_t rows = classes > 0 ? smaller(room / classes, most) : most;
    return rows > BLOCK ? rows & -(int64_t)BLOCK : rows;
}

/* Fewer than a block of neighbours are better off as rows. */
LANES int as_planes(int64_t classes, int64_t inner, int64_t room)
{
    return inner >= BLOCK && classes * BLOCK <= room;
}

LANES batch batch_from(int64_t row, int64_t end, int64_t classes, int64_t inner, int64_t room)
{
    batch b = {.row = row, .classes = classes, .planes = as_planes(classes, inner, room)};
    if (b.planes) {
        const int64_t most = rows_on_stage(classes, room, PACK_ROWS);
        b.count = first_neighbours(row, end, inner, most).count;
        b.stride = classes * b.count;
        b.class_stride = b.inner = b.count;
    } else {
        b.count = smaller(end - row, rows_on_stage(classes, room, BATCH_ROWS));
        b.stride = classes;
        b.class_stride = b.inner = 1;
    }
    return b;
}

/* Rows that follow each other in memory go at once. */
LANES int is_contiguous(const tensor *t, const batch *b)
{
    return t->inner == 1 && t->class_stride == 1 && t->stride == b->classes;
}

static __attribute__((noinline)) void read_batch(const tensor *t, const batch *b, float *to)
{
    if (b->planes)
        for (int64_t c = 0; c < b->classes; c++)
            t->format->widen(row_of(t, b->row) + c * t->class_stride, b->count, to + c * b->count);
    else if (is_contiguous(t, b))
        t->format->widen(row_of(t, b->row), b->count * b->classes, to);
    else
        for (int64_t i = 0; i < b->count; i++)
            read_classes(t, b->row + i, 0, b->classes, to + i * b->classes);
}

static __attribute__((noinline)) void write_batch(const tensor *t, const batch *b, const float *from)
{
    if (b->planes)
        for (int64_t c = 0; c < b->classes; c++)
            t->format->narrow(from + c * b->count, b->count, row_of(t, b->row) + c * t->class_stride);
    else if (is_contiguous(t, b))
        t->format->narrow(from, b->count * b->classes, row_of(t, b->row));
    else
        for (int64_t i = 0; i < b->count; i++)
            write_classes(t, b->row + i, 0, b->classes, from + i * b->classes);
}

/* ---- softmax, log-softmax, log-sum-exp -------------------------------------------------------- */

typedef void forward_kernel(const softmax_job *, int64_t begin, int64_t end);

/* Longer rows are widened by their kernel. */
LANES int is_short(int64_t classes) { return classes <= TILE_CLASSES; }

/* `to_matrix`: or to one number per row, in f32. */
static __attribute__((noinline)) void forward_by_batches(const softmax_job *job, int64_t begin,
                                                         int64_t end, forward_kernel *kernel,
                                                         int to_matrix)
{
    const tensor in = tensor_of(job->format, job->input, job->input_stride, 1, 1);
    const tensor out = tensor_of(job->format, job->output, job->output_stride, 1, 1);
    float x[STAGE];
    for (int64_t i = begin; i < end;) {
        const batch b = batch_from(i, end, job->classes, 1, STAGE);
        const softmax_job staged = {.input = x,
                                    .input_stride = b.stride,
                                    .output = to_matrix ? x : (float *)job->output + i,
                                    .output_stride = b.stride,
                                    .classes = job->classes,
                                    .inner = 1,
                                    .tile_classes = job->tile_classes};
        read_batch(&in, &b, x);
        kernel(&staged, 0, b.count);
        if (to_matrix)
            write_batch(&out, &b, x);
        i += b.count;
    }
}

#define DEFINE_FORWARD(name, to_matrix)                                                           \
    static void name(const softmax_job *job, int64_t begin, int64_t end)                          \
    {                                                                                             \
        if (is_short(job->classes))                                                               \
            forward_by_batches(job, begin, end, KERNEL(name), to_matrix);                         \
        else                                                                                      \
            KERNEL(name)(job, begin, end);                                                        \
    }
DEFINE_FORWARD(softmax, 1)
DEFINE_FORWARD(log_softmax, 1)
DEFINE_FORWARD(log_sum_exp, 0)

/* ---- cross-entropy ---------------------------------------------------------------------------- */

LANES const void *advanced(const void *array, int64_t bytes)
{
    return array ? (const char *)array + bytes : NULL;
}

/* What is known of rows from `row` on; their losses go to `loss`, and the sums of leaves to `partial`. */
LANES row_terms terms_from(const row_terms *t, int64_t row, void *loss, double *partial)
{
    row_terms from = *t;
    from.labels = advanced(t->labels, row * t->label_bytes);
    from.row_weight = advanced(t->row_weight, row * (int64_t)sizeof(float));
    from.grad_rows = advanced(t->grad_rows, row * (int64_t)sizeof(float));
    from.row_loss = loss;
    from.partial = partial;
    return from;
}

/* A batch from row `row` on; returns its number of rows. `loss` and `partial` as for terms_from(). */
static __attribute__((noinline)) int64_t losses_of_batch(const cross_entropy_job *job,
                                                         const tensor *logits, const tensor *grad,
                                                         int64_t row, int64_t end, void *loss,
                                                         double *partial)
{
    float x[STAGE];
    const batch b = batch_from(row, end, job->classes, 1, STAGE);
    const cross_entropy_job staged = {.rows = terms_from(&job->rows, row, loss, partial),
                                      .logits = x,
                                      .logits_stride = b.stride,
                                      .grad = job->grad ? x : NULL,
                                      .grad_stride = b.stride,
                                      .classes = job->classes,
                                      .inner = 1,
                                      .tile_classes = job->tile_classes};
    read_batch(logits, &b, x);
    KERNEL(cross_entropy)(&staged, 0, b.count);
    if (job->grad)
        write_batch(grad, &b, x);
    return b.count;
}

/* The losses of rows from `row` on, into their lanes of the leaf, and to where they are wanted. */
static vd take_losses(const row_terms *rows, int64_t row, int64_t count, const float *loss, vd total)
{
    for (int64_t j = 0; j < count; j += BLOCK) {
        const int64_t some = smaller(count - j, BLOCK);
        const vf v = vload_tail_f32(loss + j, some, 0.0f);
        if (rows->row_loss)
            vstore_tail_f32((float *)rows->row_loss + row + j, some, v);
        total = add_losses_anywhere(total, row + j, some, v);
    }
    return total;
}

/* A leaf that is longer than a batch: its losses are added up here. */
static vd losses_of_leaf(const cross_entropy_job *job, const tensor *logits, const tensor *grad,
                         int64_t begin, int64_t end)
{
    vd total = vd_zero();
    for (int64_t i = begin, count; i < end; i += count) {
        float loss[BATCH_ROWS];
        count = losses_of_batch(job, logits, grad, i, end, loss, NULL);
        total = take_losses(&job->rows, i, count, loss, total);
    }
    return total;
}

static void cross_entropy_by_batches(const cross_entropy_job *job, int64_t begin, int64_t end)
{
    const tensor logits = tensor_of(job->format, job->logits, job->logits_stride, 1, 1);
    const tensor grad = tensor_of(job->format, job->grad, job->grad_stride, 1, 1);
    const row_terms *rows = &job->rows;
    const int64_t leaf_rows = rows->partial ? rows->leaf_rows : 1;
    const int64_t batch_leaves = rows_on_stage(job->classes, STAGE, BATCH_ROWS) / leaf_rows;
    const int64_t step = (batch_leaves > 0 ? batch_leaves : 1) * leaf_rows;
    for (int64_t i = begin; i < end; i += step) {
        const int64_t step_end = smaller(end, i + step);
        double *partial = rows->partial ? rows->partial + i / leaf_rows : NULL;
        float *row_loss = rows->row_loss ? (float *)rows->row_loss + i : NULL;
        if (batch_leaves > 0)
            losses_of_batch(job, &logits, &grad, i, step_end, row_loss, partial);
        else
            *partial = vd_across(losses_of_leaf(job, &logits, &grad, i, step_end));
    }
}

static void cross_entropy(const cross_entropy_job *job, int64_t begin, int64_t end)
{
    if (is_short(job->classes))
        cross_entropy_by_batches(job, begin, end);
    else
        KERNEL(cross_entropy)(job, begin, end);
}

/* ---- backward --------------------------------------------------------------------------------- */

typedef void backward_kernel(const softmax_backward_job *, int64_t begin, int64_t end);

typedef struct backward_tensors {
    tensor y, g, out;
    int is_log;
} backward_tensors;

/* The gradients take the place of g on the stage. */
static __attribute__((noinline)) void backward_by_batches(const backward_tensors *t, int64_t begin,
                                                          int64_t end, int64_t classes)
{
    float y[STAGE / 2], g[STAGE / 2];
    backward_kernel *const rows = t->is_log ? KERNEL(log_softmax_backward) : KERNEL(softmax_backward);
    backward_kernel *const planes = t->is_log ? KERNEL(log_softmax_backward_planes)
                                              : KERNEL(softmax_backward_planes);
    for (int64_t i = begin; i < end;) {
        const batch b = batch_from(i, end, classes, t->y.inner, STAGE / 2);
        const softmax_backward_job staged = {.output = y,
                                             .output_stride = b.stride,
                                             .output_class_stride = b.class_stride,
                                             .grad_output = g,
                                             .grad_output_stride = b.stride,
                                             .grad_output_class_stride = b.class_stride,
                                             .grad_input = g,
                                             .grad_input_stride = b.stride,
                                             .grad_input_class_stride = b.class_stride,
                                             .classes = classes,
                                             .inner = b.inner};
        read_batch(&t->y, &b, y);
        read_batch(&t->g, &b, g);
        (b.planes ? planes : rows)(&staged, 0, b.count);
        write_batch(&t->out, &b, g);
        i += b.count;
    }
}

static __attribute__((noinline)) void long_backward(const backward_tensors *t, int64_t row,
                                                    int64_t classes)
{
    float y[CHUNK], g[CHUNK];
    vd total = vd_zero();
    for (int64_t at = 0; at < classes; at += CHUNK) {
        const int64_t n = chunk_length(classes, at);
        read_classes(&t->g, row, at, n, g);
        if (!t->is_log)
            read_classes(&t->y, row, at, n, y);
        KERNEL(add_products)(&total, g, t->is_log ? NULL : y, n);
    }
    const float sum = (float)vd_across(total);
    for (int64_t at = 0; at < classes; at += CHUNK) {
        const int64_t n = chunk_length(classes, at);
        read_classes(&t->g, row, at, n, g);
        read_classes(&t->y, row, at, n, y);
        if (t->is_log)
            KERNEL(log_softmax_gradient)(y, g, sum, n, g);
        else
            KERNEL(softmax_gradient)(y, g, sum, n, g);
        write_classes(&t->out, row, at, n, g);
    }
}

static void backward(const backward_tensors *t, int64_t begin, int64_t end, int64_t classes)
{
    if (classes <= STAGE / 2)
        backward_by_batches(t, begin, end, classes);
    else
        for (int64_t i = begin; i < end; i++)
            long_backward(t, i, classes);
}

LANES backward_tensors tensors_of_rows(const softmax_backward_job *job, int is_log)
{
    return (backward_tensors){
        tensor_of(job->format, job->output, job->output_stride, 1, 1),
        tensor_of(job->format, job->grad_output, job->grad_output_stride, 1, 1),
        tensor_of(job->format, job->grad_input, job->grad_input_stride, 1, 1), is_log};
}

LANES backward_tensors tensors_of_planes(const softmax_backward_job *job, int is_log)
{
    return (backward_tensors){
        tensor_of(job->format, job->output, job->output_stride, job->output_class_stride, job->inner),
        tensor_of(job->format, job->grad_output, job->grad_output_stride,
                  job->grad_output_class_stride, job->inner),
        tensor_of(job->format, job->grad_input, job->grad_input_stride, job->grad_input_class_stride,
                  job->inner),
        is_log};
}

#define DEFINE_BACKWARD(name, tensors, is_log)                                                    \
    static void name(const softmax_backward_job *job, int64_t begin, int64_t end)                 \
    {                                                                                             \
        const backward_tensors t = tensors(job, is_log);                                          \
        backward(&t, begin, end, job->classes);                                                   \
    }
DEFINE_BACKWARD(softmax_backward, tensors_of_rows, 0)
DEFINE_BACKWARD(softmax_backward_planes, tensors_of_planes, 0)
DEFINE_BACKWARD(log_softmax_backward, tensors_of_rows, 1)
DEFINE_BACKWARD(log_softmax_backward_planes, tensors_of_planes, 1)

/* ---- the storage types ------------------------------------------------------------------------ */

/* Four blocks a step: a conversion is as short as the end of a loop. One element is read again at once, and what a
 * mask stores is not forwarded. */
#define DEFINE_WIDENING(name, type)                                                               \
    static void name(const uint16_t *from, int64_t n, float *to)                                  \
    {                                                                                             \
        int64_t i = 0;                                                                            \
        for (; i + GROUP <= n; i += GROUP)                                                        \
            FOR_BLOCKS(k, GROUP_BLOCKS)                                                           \
        vstore_f32(to + i + BLOCK * k, vload_##type(from + i + BLOCK * k));                       \
        for (; i + BLOCK <= n; i += BLOCK)                                                        \
            vstore_f32(to + i, vload_##type(from + i));                                           \
        if (n - i == 1)                                                                           \
            to[i] = vlane0(vload_n_##type(from + i, 1, 0.0f));                                    \
        else if (i < n)                                                                           \
            vstore_n_f32(to + i, (int)(n - i), vload_n_##type(from + i, (int)(n - i), 0.0f));     \
    }
#define DEFINE_NARROWING(name, type)                                                              \
    static void name(const float *from, int64_t n, uint16_t *to)                                  \
    {                                                                                             \
        int64_t i = 0;                                                                            \
        for (; i + GROUP <= n; i += GROUP)                                                        \
            FOR_BLOCKS(k, GROUP_BLOCKS)                                                           \
        vstore_##type(to + i + BLOCK * k, vload_f32(from + i + BLOCK * k));                       \
        for (; i + BLOCK <= n; i += BLOCK)                                                        \
            vstore_##type(to + i, vload_f32(from + i));                                           \
        if (i < n)                                                                                \
            vstore_n_##type(to + i, (int)(n - i), vload_n_f32(from + i, (int)(n - i), 0.0f));     \
    }

#define DEFINE_STORAGE(type, is_f16)                                                              \
    DEFINE_WIDENING(f32_of_##type, type)                                                          \
    DEFINE_NARROWING(f32_to_##type, type)                                                         \
    static const storage_format format_##type = {f32_of_##type, f32_to_##type, is_f16, 0};        \
    static const storage_format cpu_format_##type = {f32_of_##type, f32_to_##type, is_f16,        \
                                                     CPU_ROUNDS && !is_f16};                      \
    const kernel_table PASTE(ballast__kernels_##type, ISA_SUFFIX) = {                             \
        .format = &format_##type,                                                                 \
        .cpu_format = &cpu_format_##type,                                                         \
        .tile_classes = WIDEST_TILE,                                                              \
        .streamed_tile_classes = WIDEST_TILE, /* they are not streamed */                         \
        .log_sum_exp_tile_classes = TILE_CLASSES,                                                 \
        .softmax = softmax,                                                                       \
        .log_softmax = log_softmax,                                                               \
        .log_sum_exp = log_sum_exp,                                                               \
        .softmax_backward = softmax_backward,                                                     \
        .log_softmax_backward = log_softmax_backward,                                             \
        .cross_entropy = cross_entropy,                                                           \
        .softmax_planes = KERNEL(softmax_planes),                                                 \
        .log_softmax_planes = KERNEL(log_softmax_planes),                                         \
        .log_sum_exp_planes = KERNEL(log_sum_exp_planes),                                         \
        .softmax_backward_planes = softmax_backward_planes,                                       \
        .log_softmax_backward_planes = log_softmax_backward_planes,                               \
        .cross_entropy_planes = KERNEL(cross_entropy_planes),                                     \
        .binary_cross_entropy = KERNEL(binary_cross_entropy),                                     \
        .sigmoid_focal = KERNEL(sigmoid_focal),                                                   \
        .weighted_sum = KERNEL(weighted_sum),                                                     \
        .weighted_mean = KERNEL(weighted_mean),                                                   \
        .weighted_sum_of_squares = KERNEL(weighted_sum_of_squares),                               \
        .weighted_log_sum_exp = KERNEL(weighted_log_sum_exp),                                     \
        .log_sum_exp_of_parts = KERNEL(log_sum_exp_of_parts),                                     \
        .shared_softmax = {KERNEL(softmax_states), KERNEL(softmax_combine),                       \
                           KERNEL(softmax_outputs)},                                              \
        .shared_log_softmax = {KERNEL(log_softmax_states), KERNEL(log_softmax_combine),           \
                               KERNEL(log_softmax_outputs)},                                      \
        .shared_log_sum_exp = {KERNEL(log_sum_exp_states), KERNEL(log_sum_exp_combine), NULL},    \
        .shared_cross_entropy = {KERNEL(cross_entropy_states), KERNEL(cross_entropy_combine),     \
                                 KERNEL(cross_entropy_outputs)},                                  \
    };
DEFINE_STORAGE(bf16, 0)
DEFINE_STORAGE(f16, 1)
