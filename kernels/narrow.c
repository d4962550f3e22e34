/* SPDX-License-Identifier: MIT */
/* Storage of 16 bits: rows go through f32.
 *
 * Arithmetic is in f32 whatever the storage is, so its kernels serve every storage type. Here are
 * those of whole rows: as many rows as fit are widened onto a stage on the stack, computed there in
 * place by the f32 kernel, and narrowed to where they belong. A row that is too long for the stage
 * comes by chunks, for its sum and once more for its output: its exponentials have no place to wait.
 * The sigmoid losses and the reductions take their rows by pieces anyway, and widen these
 * (storage.h).
 *
 * A result is that of the f32 kernel for the same numbers, rounded once more where it has 16 bits. */
#include "cross_entropy_loss.h"
#include "neighbours.h"
#include "shared_row.h"

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

static void fill_row(const tensor *t, int64_t row, int64_t classes, float x)
{
    float same[CHUNK];
    store_fill(same, smaller(classes, CHUNK), x);
    for (int64_t at = 0; at < classes; at += CHUNK)
        write_classes(t, row, at, chunk_length(classes, at), same);
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

/* ---- a row by chunks -------------------------------------------------------------------------- */

typedef struct long_row {
    const tensor *from;
    int64_t row, classes;
    reference ref[KEPT_CHUNKS]; /* of its first chunks, once it is summed */
    chunk_sum sum[KEPT_CHUNKS];
} long_row;

LANES void start_long_row(long_row *r, const tensor *from, int64_t row, int64_t classes)
{
    r->from = from;
    r->row = row;
    r->classes = classes;
}

/* LEAVE_MAXIMUM leaves out that of each chunk. */
LANES int64_t left_out_of_chunk(int64_t left_out, int64_t at)
{
    return left_out == LEAVE_MAXIMUM ? left_out : left_out_from(left_out, at);
}

/* The chunk that begins at class `at`; returns its length. */
LANES int64_t read_chunk(const long_row *r, int64_t at, float *x)
{
    const int64_t n = chunk_length(r->classes, at);
    read_classes(r->from, r->row, at, n, x);
    return n;
}

/* As sum_row(): the row's reference is that of the first chunk that has its maximum. Chunks beyond
 * those that are kept are summed when it is known. */
static __attribute__((noinline)) row_sum sum_long_row(long_row *r, int64_t left_out)
{
    float x[CHUNK], e[CHUNK];
    row_sum row = {reference_of(-LANE_INFINITY), 0.0, 0.0};
    int64_t best = 0;
    for (int64_t at = 0, k = 0; at < r->classes; at += CHUNK, k++) {
        const int64_t n = read_chunk(r, at, x);
        const reference ref = KERNEL(chunk_reference)(x, n);
        if (k < KEPT_CHUNKS) {
            r->ref[k] = ref;
            r->sum[k] = KERNEL(chunk_sum)(x, n, ref, left_out_of_chunk(left_out, at), e);
        }
        if (ref.max > row.ref.max) {
            row.ref = ref;
            best = k;
        }
    }
    for (int64_t at = 0, k = 0; at < r->classes; at += CHUNK, k++) {
        const int in_sum = left_out == LEAVE_MAXIMUM && k != best;
        if (k < KEPT_CHUNKS) {
            add_chunk(&row, r->sum[k], r->ref[k], in_sum);
        } else {
            const int64_t n = read_chunk(r, at, x);
            const reference ref = KERNEL(chunk_reference)(x, n);
            const int64_t column = left_out_of_chunk(left_out, at);
            add_chunk(&row, KERNEL(chunk_sum)(x, n, ref, column, e), ref, in_sum);
        }
    }
    return row;
}

/* out_c = h e_c / (the row's reference), but for the column `label`, which becomes label_value. */
static __attribute__((noinline)) void scale_long_row(const long_row *r, row_sum row, double h,
                                                     int64_t label, float label_value,
                                                     const tensor *out)
{
    float x[CHUNK], e[CHUNK];
    for (int64_t at = 0; at < r->classes; at += CHUNK) {
        const int64_t n = read_chunk(r, at, x), k = at / CHUNK;
        const reference ref = k < KEPT_CHUNKS ? r->ref[k] : KERNEL(chunk_reference)(x, n);
        departure d = {.e = e, .out = x, .n = n, .label = label - at, .label_value = label_value};
        KERNEL(chunk_sum)(x, n, ref, LEAVE_NOTHING, e);
        set_scale(&d, narrowed(h * chunk_factor(ref, row.ref)));
        KERNEL(chunk_leaves)(&d, SCALED);
        write_classes(out, r->row, at, n, x);
    }
}

/* out_c = (x_c - max) - rest */
static void subtract_from_long_row(const long_row *r, float max, float rest, const tensor *out)
{
    float x[CHUNK];
    for (int64_t at = 0; at < r->classes; at += CHUNK) {
        const int64_t n = read_chunk(r, at, x);
        const departure d = {.x = x, .out = x, .n = n, .max = max, .rest = rest};
        KERNEL(chunk_leaves)(&d, SUBTRACTED);
        write_classes(out, r->row, at, n, x);
    }
}

/* What a special row's log-sum-exp is: NaN, or its infinity. */
static float special_log_sum(const long_row *r, float max)
{
    float x[CHUNK];
    for (int64_t at = 0; at < r->classes; at += CHUNK) {
        const int64_t n = read_chunk(r, at, x);
        for (int64_t c = 0; c < n; c++)
            if (x[c] != x[c])
                return LANE_NAN;
    }
    return max;
}

/* ---- softmax, log-softmax, log-sum-exp -------------------------------------------------------- */

typedef void forward_kernel(const softmax_job *, int64_t begin, int64_t end);

/* `out` is the output, where it has the shape of the input. */
typedef void long_forward(const softmax_job *, long_row *, const tensor *out);

static void long_softmax(const softmax_job *job, long_row *r, const tensor *out)
{
    const row_sum row = sum_long_row(r, LEAVE_NOTHING);
    (void)job;
    if (row_is_special(row))
        fill_row(out, r->row, r->classes, LANE_NAN);
    else
        scale_long_row(r, row, 1.0 / row.others, LEAVE_NOTHING, 0.0f, out);
}

static void long_log_softmax(const softmax_job *job, long_row *r, const tensor *out)
{
    const row_sum row = sum_long_row(r, LEAVE_MAXIMUM);
    (void)job;
    if (row_is_special(row))
        fill_row(out, r->row, r->classes, LANE_NAN);
    else
        subtract_from_long_row(r, row.ref.max, log_of_sum_over_max(row), out);
}

static void long_log_sum_exp(const softmax_job *job, long_row *r, const tensor *out)
{
    const row_sum row = sum_long_row(r, LEAVE_MAXIMUM);
    (void)out;
    ((float *)job->output)[r->row] = row_is_special(row) ? special_log_sum(r, row.ref.max)
                                                         : row.ref.max + log_of_sum_over_max(row);
}

/* One of the three: for rows on the stage, side by side or as planes, and for longer ones. */
typedef struct forward_kernels {
    forward_kernel *rows, *planes;
    long_forward *row;
    int to_matrix; /* or to one number per row, in f32 */
} forward_kernels;

static const forward_kernels softmax_kernels = {KERNEL(softmax), KERNEL(softmax_planes),
                                                long_softmax, 1};
static const forward_kernels log_softmax_kernels = {KERNEL(log_softmax), KERNEL(log_softmax_planes),
                                                    long_log_softmax, 1};
static const forward_kernels log_sum_exp_kernels = {KERNEL(log_sum_exp), KERNEL(log_sum_exp_planes),
                                                    long_log_sum_exp, 0};

static __attribute__((noinline)) void forward_by_batches(const softmax_job *job, const tensor *in,
                                                         const tensor *out, int64_t begin, int64_t end,
                                                         const forward_kernels *k)
{
    float x[STAGE];
    for (int64_t i = begin; i < end;) {
        const batch b = batch_from(i, end, job->classes, in->inner, STAGE);
        const softmax_job staged = {.input = x,
                                    .input_stride = b.stride,
                                    .input_class_stride = b.class_stride,
                                    .output = k->to_matrix ? x : (float *)job->output + i,
                                    .output_stride = b.stride,
                                    .output_class_stride = b.class_stride,
                                    .classes = job->classes,
                                    .inner = b.inner};
        read_batch(in, &b, x);
        (b.planes ? k->planes : k->rows)(&staged, 0, b.count);
        if (k->to_matrix)
            write_batch(out, &b, x);
        i += b.count;
    }
}

static void forward(const softmax_job *job, const tensor *in, const tensor *out, int64_t begin,
                    int64_t end, const forward_kernels *k)
{
    if (job->classes <= STAGE) {
        forward_by_batches(job, in, out, begin, end, k);
        return;
    }
    long_row row;
    for (int64_t i = begin; i < end; i++) {
        start_long_row(&row, in, i, job->classes);
        k->row(job, &row, out);
    }
}

static void forward_rows(const softmax_job *job, int64_t begin, int64_t end, const forward_kernels *k)
{
    const tensor in = tensor_of(job->format, job->input, job->input_stride, 1, 1);
    const tensor out = tensor_of(job->format, job->output, job->output_stride, 1, 1);
    forward(job, &in, &out, begin, end, k);
}

static void forward_planes(const softmax_job *job, int64_t begin, int64_t end,
                           const forward_kernels *k)
{
    const tensor in = tensor_of(job->format, job->input, job->input_stride, job->input_class_stride,
                                job->inner);
    const tensor out = tensor_of(job->format, job->output, job->output_stride,
                                 job->output_class_stride, job->inner);
    forward(job, &in, &out, begin, end, k);
}

#define DEFINE_FORWARD(name)                                                                      \
    static void name(const softmax_job *job, int64_t begin, int64_t end)                          \
    {                                                                                             \
        forward_rows(job, begin, end, &name##_kernels);                                           \
    }                                                                                             \
    static void name##_planes(const softmax_job *job, int64_t begin, int64_t end)                 \
    {                                                                                             \
        forward_planes(job, begin, end, &name##_kernels);                                         \
    }
DEFINE_FORWARD(softmax)
DEFINE_FORWARD(log_softmax)
DEFINE_FORWARD(log_sum_exp)

/* ---- cross-entropy ---------------------------------------------------------------------------- */

LANES const void *advanced(const void *array, int64_t bytes)
{
    return array ? (const char *)array + bytes : NULL;
}

/* What is known of rows from `row` on; their losses go to `loss` and are added up here. */
LANES row_terms terms_from(const row_terms *t, int64_t row, float *loss)
{
    row_terms from = *t;
    from.labels = advanced(t->labels, row * t->label_bytes);
    from.row_weight = advanced(t->row_weight, row * (int64_t)sizeof(float));
    from.grad_rows = advanced(t->grad_rows, row * (int64_t)sizeof(float));
    from.row_loss = loss;
    from.partial = NULL;
    return from;
}

/* A batch from row `row` on; returns its number of rows. */
static __attribute__((noinline)) int64_t losses_of_batch(const cross_entropy_job *job,
                                                         const tensor *logits, const tensor *grad,
                                                         int64_t row, int64_t end, float *loss)
{
    float x[STAGE];
    const batch b = batch_from(row, end, job->classes, logits->inner, STAGE);
    const cross_entropy_job staged = {.rows = terms_from(&job->rows, row, loss),
                                      .logits = x,
                                      .logits_stride = b.stride,
                                      .logits_class_stride = b.class_stride,
                                      .grad = job->grad ? x : NULL,
                                      .grad_stride = b.stride,
                                      .grad_class_stride = b.class_stride,
                                      .classes = job->classes,
                                      .inner = b.inner};
    read_batch(logits, &b, x);
    (b.planes ? KERNEL(cross_entropy_planes) : KERNEL(cross_entropy))(&staged, 0, b.count);
    if (job->grad)
        write_batch(grad, &b, x);
    return b.count;
}

/* As cross_entropy_row(). */
static void long_cross_entropy_row(const cross_entropy_job *job, long_row *r, const tensor *grad,
                                   pending_losses *pending, int64_t j)
{
    const int64_t label = label_at(&job->rows, r->row);
    float label_logit;
    if (label == job->rows.ignore_index) {
        set_pending(pending, j, 0.0f, 1.0f, 0.0f);
        if (job->grad)
            fill_row(grad, r->row, r->classes, 0.0f);
        return;
    }
    const row_factors w = row_factors_of(&job->rows, r->row, label);
    const row_sum row = sum_long_row(r, label);
    if (row_is_special(row)) {
        set_pending(pending, j, LANE_NAN, 1.0f, w.loss);
        if (job->grad)
            fill_row(grad, r->row, r->classes, LANE_NAN);
        return;
    }
    read_classes(r->from, r->row, label, 1, &label_logit);
    set_pending(pending, j, (float)row.others, (float)row.left_out, w.loss);
    pending->n[j] = row.ref.n;
    pending->shift_minus_logit[j] = row.ref.shift - label_logit;
    if (job->grad) {
        const double h = w.gradient / (row.others + row.left_out);
        const float label_gradient = narrowed(-(row.others * h)) + 0.0f; /* never -0 */
        scale_long_row(r, row, h, label, label_gradient, grad);
    }
}

/* At most sixteen; returns how many. */
static __attribute__((noinline)) int64_t losses_of_long_rows(const cross_entropy_job *job,
                                                             const tensor *logits,
                                                             const tensor *grad, int64_t row,
                                                             int64_t end, float *loss)
{
    const int64_t count = smaller(end - row, BLOCK);
    pending_losses pending;
    long_row r;
    for (int64_t j = 0; j < count; j++) {
        start_long_row(&r, logits, row + j, job->classes);
        long_cross_entropy_row(job, &r, grad, &pending, j);
    }
    for (int64_t j = count; j < BLOCK; j++)
        set_pending(&pending, j, 0.0f, 1.0f, 0.0f);
    vstore_f32(loss, finish_pending(&pending));
    return count;
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

static void cross_entropy_of(const cross_entropy_job *job, const tensor *logits, const tensor *grad,
                             int64_t begin, int64_t end)
{
    const row_terms *rows = &job->rows;
    const int64_t leaf_rows = rows->partial ? rows->leaf_rows : end - begin;
    for (int64_t leaf = begin; leaf < end; leaf += leaf_rows) {
        const int64_t leaf_end = smaller(end, leaf + leaf_rows);
        vd total = vd_zero();
        for (int64_t i = leaf, count; i < leaf_end; i += count) {
            float loss[BATCH_ROWS];
            count = job->classes <= STAGE
                      ? losses_of_batch(job, logits, grad, i, leaf_end, loss)
                      : losses_of_long_rows(job, logits, grad, i, leaf_end, loss);
            total = take_losses(rows, i, count, loss, total);
        }
        if (rows->partial)
            rows->partial[leaf / leaf_rows] = vd_across(total);
    }
}

static void cross_entropy(const cross_entropy_job *job, int64_t begin, int64_t end)
{
    const tensor logits = tensor_of(job->format, job->logits, job->logits_stride, 1, 1);
    const tensor grad = tensor_of(job->format, job->grad, job->grad_stride, 1, 1);
    cross_entropy_of(job, &logits, &grad, begin, end);
}

static void cross_entropy_planes(const cross_entropy_job *job, int64_t begin, int64_t end)
{
    const tensor logits = tensor_of(job->format, job->logits, job->logits_stride,
                                    job->logits_class_stride, job->inner);
    const tensor grad = tensor_of(job->format, job->grad, job->grad_stride, job->grad_class_stride,
                                  job->inner);
    cross_entropy_of(job, &logits, &grad, begin, end);
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

/* Long rows are not shared between threads. */
#define DEFINE_STORAGE(type)                                                                      \
    static void f32_of_##type(const uint16_t *from, int64_t n, float *to)                          \
    {                                                                                             \
        const int64_t whole = n & -(int64_t)BLOCK;                                                \
        for (int64_t i = 0; i < whole; i += BLOCK)                                                \
            vstore_f32(to + i, vload_##type(from + i));                                           \
        if (n > whole)                                                                            \
            vstore_n_f32(to + whole, (int)(n - whole),                                            \
                         vload_n_##type(from + whole, (int)(n - whole), 0.0f));                   \
    }                                                                                             \
    static void f32_to_##type(const float *from, int64_t n, uint16_t *to)                         \
    {                                                                                             \
        const int64_t whole = n & -(int64_t)BLOCK;                                                \
        for (int64_t i = 0; i < whole; i += BLOCK)                                                \
            vstore_##type(to + i, vload_f32(from + i));                                           \
        if (n > whole)                                                                            \
            vstore_n_##type(to + whole, (int)(n - whole),                                         \
                            vload_n_f32(from + whole, (int)(n - whole), 0.0f));                   \
    }                                                                                             \
    static const storage_format format_##type = {f32_of_##type, f32_to_##type};                    \
    const kernel_table PASTE(ballast__kernels_##type, ISA_SUFFIX) = {                             \
        .format = &format_##type,                                                                 \
        .softmax = softmax,                                                                       \
        .log_softmax = log_softmax,                                                               \
        .log_sum_exp = log_sum_exp,                                                               \
        .softmax_backward = softmax_backward,                                                     \
        .log_softmax_backward = log_softmax_backward,                                             \
        .cross_entropy = cross_entropy,                                                           \
        .softmax_planes = softmax_planes,                                                         \
        .log_softmax_planes = log_softmax_planes,                                                 \
        .log_sum_exp_planes = log_sum_exp_planes,                                                 \
        .softmax_backward_planes = softmax_backward_planes,                                       \
        .log_softmax_backward_planes = log_softmax_backward_planes,                               \
        .cross_entropy_planes = cross_entropy_planes,                                             \
        .binary_cross_entropy = KERNEL(binary_cross_entropy),                                     \
        .sigmoid_focal = KERNEL(sigmoid_focal),                                                   \
        .weighted_sum = KERNEL(weighted_sum),                                                     \
        .weighted_mean = KERNEL(weighted_mean),                                                   \
        .weighted_sum_of_squares = KERNEL(weighted_sum_of_squares),                               \
        .weighted_log_sum_exp = KERNEL(weighted_log_sum_exp),                                     \
        .log_sum_exp_of_parts = KERNEL(log_sum_exp_of_parts),                                     \
    };
DEFINE_STORAGE(bf16)
DEFINE_STORAGE(f16)
