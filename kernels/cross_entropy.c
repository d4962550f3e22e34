/* SPDX-License-Identifier: MIT */
/* Softmax cross-entropy with index labels, loss and gradient of a row in one read:
 *
 *   loss = w log1p(others / e_y)     dx_c = w e_c / S     dx_y = -w others / S     S = others + e_y
 *
 * where `others` sums the exponentials of every class but the true one. The loss and the true class's
 * gradient keep all their digits when p_y rounds to 1, because 1 - p_y is never formed.
 *
 * A row's gradient leaves while later rows are computed. Losses are finished sixteen rows at a time:
 * log1p is latency bound, and sixteen lanes cost what one does. */
#include "cross_entropy_loss.h"
#include "one_chunk_rows.h"
#include "row_tile.h"
#include "shared_row.h"
#include "softmax_planes.h"

LANES const storage *logits_of(const cross_entropy_job *job, int64_t i)
{
    return (const storage *)job->logits + i * job->logits_stride;
}

/* The same where they may be of 16 bits. */
LANES const void *logits_row(const cross_entropy_job *job, int64_t i)
{
    return input_address(job->format, job->logits, i * job->logits_stride);
}

LANES void *grad_row(const cross_entropy_job *job, int64_t i)
{
    return output_address(job->format, job->grad, i * job->grad_stride);
}

LANES int streams(const cross_entropy_job *job)
{
    return STREAMS && job->beyond_cache && job->grad && job->grad != job->logits;
}

LANES int leaving_of(const cross_entropy_job *job) { return job->grad ? SCALED : NOTHING_LEAVES; }

LANES storage *grad_of(const cross_entropy_job *job, int64_t i)
{
    return job->grad ? (storage *)job->grad + i * job->grad_stride : NULL;
}

/* A row that is ignored weighs nothing; a special one has NaN for its loss and its gradient. */
LANES void set_ignored(pending_losses *p, int64_t j) { set_pending(p, j, 0.0f, 1.0f, 0.0f); }
LANES void set_special(pending_losses *p, int64_t j, float weight)
{
    set_pending(p, j, LANE_NAN, 1.0f, weight);
}

/* What a row's gradient is made of: h e_c, and the label's own. */
typedef struct row_gradient {
    double h;
    float label;
} row_gradient;

LANES row_gradient gradient_of(row_sum row, row_factors w)
{
    const double h = w.gradient / (row.others + row.left_out);
    return (row_gradient){h, narrowed(-(row.others * h)) + 0.0f}; /* never -0 */
}

/* Whether a row's loss needs its label's logit. */
LANES int needs_logit(row_sum row) { return row.left_out < (double)SMALLEST_LABEL_TERM; }

/* From a row's sum to its loss, which is left pending, and to its gradient. `label_logit` is of no matter unless
 * it is needed. */
LANES row_gradient end_row(row_sum row, row_factors w, float label_logit, pending_losses *pending,
                           int64_t j)
{
    set_pending(pending, j, (float)row.others, (float)row.left_out, w.loss);
    if (__builtin_expect(needs_logit(row), 0)) {
        pending->n[j] = row.ref.n;
        pending->shift_minus_logit[j] = row.ref.shift - label_logit;
    }
    return gradient_of(row, w);
}

/* `leaving` and `streamed` are constants after inlining; row `end` is none. */
LANES_LARGE void cross_entropy_row(const cross_entropy_job *job, int64_t i, int64_t end,
                                   row_pipe *pipe, pending_losses *pending, int64_t j,
                                   const int leaving, const int streamed)
{
    const int64_t classes = job->classes, label = label_at(&job->rows, i);
    const void *x = logits_row(job, i), *next = i + 1 < end ? logits_row(job, i + 1) : NULL;
    void *grad = leaving ? grad_row(job, i) : NULL;
    if (label == job->rows.ignore_index) {
        set_ignored(pending, j);
        if (leaving && is_lent(pipe, grad))
            close_pipe(pipe, leaving, streamed);
        if (leaving)
            fill_elements(job->format, grad, classes, 0.0f);
        return;
    }
    const row_factors w = row_factors_of(&job->rows, i, label);
    /* read first: the gradient may be the logits */
    const float label_logit = read_element(job->format, x, label);
    float *kept = leaving ? kept_in(pipe, grad, job->kept_chunks, streamed) : NULL;
    const row_sum row = sum_row(pipe, x, label, next, kept, leaving, streamed, 0);
    if (row_is_special(row)) {
        set_special(pending, j, w.loss);
        if (leaving)
            fill_elements(job->format, grad, classes, LANE_NAN);
        return;
    }
    const row_gradient g = end_row(row, w, label_logit, pending, j);
    if (leaving)
        leave_scaled(pipe, x, row, g.h, label, g.label, kept, grad, streamed);
}

/* The rows of pending block [begin, begin + count); those after it begin before `end`. */
LANES_LARGE vf losses_of_rows(const cross_entropy_job *job, int64_t begin, int64_t count, int64_t end,
                        row_pipe *pipe, const int leaving, const int streamed)
{
    pending_losses pending;
    set_nothing_pending(&pending);
    for (int64_t j = 0; j < count; j++)
        cross_entropy_row(job, begin + j, end, pipe, &pending, j, leaving, streamed);
    return finish_pending(&pending);
}

LANES vd add_losses(const row_terms *rows, int64_t begin, int64_t count, vf loss, vd total)
{
    if (rows->row_loss)
        vstore_tail_f32((float *)rows->row_loss + begin, count, loss);
    return vd_add(total, loss);
}

/* The losses before row `next` have been added, in order; `end` is that of the call. Where a leaf ends
 * there, its sum is stored, and the next one begins. */
LANES vd end_leaf(const row_terms *rows, int64_t next, int64_t end, vd total)
{
    if (!rows->partial || (next != end && next % rows->leaf_rows != 0))
        return total;
    rows->partial[(next - 1) / rows->leaf_rows] = vd_across(total);
    return vd_zero();
}

/* Rows [begin, end), one after the other. */
LANES void cross_entropy_rows_to(const cross_entropy_job *job, int64_t begin, int64_t end,
                                 row_pipe *pipe, const int leaving, const int streamed)
{
    const row_terms *rows = &job->rows;
    const int64_t leaf_rows = rows->partial ? rows->leaf_rows : end - begin;
    for (int64_t leaf = begin; leaf < end; leaf += leaf_rows) {
        const int64_t leaf_end = smaller(end, leaf + leaf_rows);
        vd total = vd_zero();
        for (int64_t i = leaf; i < leaf_end; i += BLOCK) {
            const int64_t count = smaller(leaf_end - i, BLOCK);
            const vf loss = losses_of_rows(job, i, count, end, pipe, leaving, streamed);
            total = add_losses(rows, i, count, loss, total);
        }
        if (rows->partial)
            rows->partial[leaf / leaf_rows] = vd_across(total);
    }
    close_pipe(pipe, leaving, streamed);
}

static __attribute__((noinline)) void cross_entropy_rows_through(const cross_entropy_job *job,
                                                                 int64_t begin, int64_t end,
                                                                 row_pipe *pipe)
{
    if (!job->grad)
        cross_entropy_rows_to(job, begin, end, pipe, NOTHING_LEAVES, 0);
    else if (streams(job) && !job->format)
        cross_entropy_rows_to(job, begin, end, pipe, SCALED, 1);
    else
        cross_entropy_rows_to(job, begin, end, pipe, SCALED, 0);
}

static __attribute__((noinline)) void cross_entropy_rows(const cross_entropy_job *job, int64_t begin,
                                                         int64_t end)
{
    _Alignas(LINE) float scratch[SCRATCH_ROOM];
    row_pipe pipe;
    open_pipe(&pipe, job->classes, scratch, job->fetch, job->format);
    if (job->grad && job->grad != job->logits)
        lend_outputs(&pipe, grad_row(job, begin), end - begin, job->grad_stride);
    cross_entropy_rows_through(job, begin, end, &pipe);
}

/* ---- rows of one chunk ------------------------------------------------------------------------- */

/* A row taken in, whose sum is not known yet. */
typedef struct waiting_row {
    int64_t i; /* -1: there is none */
    int64_t label;
} waiting_row;

/* Losses in the order of the rows: those of block [begin, begin + BLOCK) are pending. */
typedef struct loss_sums {
    int64_t begin, end; /* of the rows that have no loss yet */
    pending_losses pending;
    vd total; /* of the leaf under way */
} loss_sums;

/* Out of line: it is long, and needed at three places. */
static __attribute__((noinline)) void end_block(const cross_entropy_job *job, loss_sums *s)
{
    const int64_t count = smaller(s->end - s->begin, BLOCK);
    const vf loss = finish_pending(&s->pending);
    s->total = add_losses(&job->rows, s->begin, count, loss, s->total);
    s->begin += count;
    s->total = end_leaf(&job->rows, s->begin, s->end, s->total);
    set_nothing_pending(&s->pending);
}

/* `row` is the sum of the waiting row. Rows that were passed over since the last one are ignored ones. */
LANES void end_waiting_row(const cross_entropy_job *job, waiting_row waiting, row_sum row,
                           one_chunk_rows *rows, loss_sums *sums, const int leaving)
{
    while (waiting.i - sums->begin >= BLOCK)
        end_block(job, sums);
    const int64_t j = waiting.i - sums->begin;
    const row_factors w = row_factors_of(&job->rows, waiting.i, waiting.label);
    void *grad = leaving ? grad_row(job, waiting.i) : NULL;
    if (row_is_special(row)) {
        set_special(&sums->pending, j, w.loss);
        if (leaving)
            fill_elements(job->format, grad, job->classes, LANE_NAN);
        return;
    }
    float label_logit = 0.0f;
    if (__builtin_expect(needs_logit(row), 0)) /* still there: the row has not left yet */
        label_logit = read_element(job->format, logits_row(job, waiting.i), waiting.label);
    const row_gradient g = end_row(row, w, label_logit, &sums->pending, j);
    if (leaving)
        leave_row_scaled(rows, g.h, waiting.label, g.label, grad);
}

/* Rows [begin, end), begin at a multiple of BLOCK in a leaf; `total` is of the leaf's rows before. */
LANES void cross_entropy_one_chunk_to(const cross_entropy_job *job, int64_t begin, int64_t end,
                                      const one_chunk_rows *opened, vd total, const int leaving,
                                      const int streamed)
{
    one_chunk_rows own = *opened, *const rows = &own; /* no stores of others are between its own */
    loss_sums sums = {.begin = begin, .end = end, .total = total};
    waiting_row waiting = {.i = -1};
    set_nothing_pending(&sums.pending);
    for (int64_t i = begin; i < end; i++) {
        const int64_t label = label_at(&job->rows, i);
        const void *x = logits_row(job, i), *next = i + 1 < end ? logits_row(job, i + 1) : NULL;
        void *grad = leaving ? grad_row(job, i) : NULL;
        if (label == job->rows.ignore_index) {
            if (leaving)
                fill_elements(job->format, grad, job->classes, 0.0f);
            continue;
        }
        const row_sum before = take_in_row(rows, x, label, next, grad, leaving, streamed, 0);
        if (waiting.i >= 0)
            end_waiting_row(job, waiting, before, rows, &sums, leaving);
        waiting = (waiting_row){i, label};
    }
    if (waiting.i >= 0)
        end_waiting_row(job, waiting, end_of_rows(rows, leaving, streamed), rows, &sums, leaving);
    while (sums.begin < end)
        end_block(job, &sums);
    close_rows(rows, leaving, streamed);
}

static __attribute__((noinline)) void cross_entropy_one_chunk_through(const cross_entropy_job *job,
                                                                      int64_t begin, int64_t end,
                                                                      const one_chunk_rows *rows,
                                                                      vd total)
{
    if (!job->grad)
        cross_entropy_one_chunk_to(job, begin, end, rows, total, NOTHING_LEAVES, 0);
    else if (streams(job) && !job->format)
        cross_entropy_one_chunk_to(job, begin, end, rows, total, SCALED, 1);
    else
        cross_entropy_one_chunk_to(job, begin, end, rows, total, SCALED, 0);
}

static __attribute__((noinline)) void cross_entropy_one_chunk(const cross_entropy_job *job,
                                                              int64_t begin, int64_t end, vd total)
{
    _Alignas(LINE) float scratch[ONE_CHUNK_ROOM];
    one_chunk_rows rows;
    open_rows(&rows, job->classes, job->grad_stride, scratch, job->fetch, job->format);
    cross_entropy_one_chunk_through(job, begin, end, &rows, total);
}

/* ---- sixteen rows at once --------------------------------------------------------------------- */

/* What a tile's rows come to, between the steps. */
typedef struct cross_entropy_tile {
    vf max, n, weight, others, factor, minus_logit, column;
    vd gradient;
    float label_term[BLOCK], label_gradient[BLOCK];
    double sum[BLOCK];
    int32_t label[BLOCK];
    int64_t begin, count;
    int irregular;
} cross_entropy_tile;

/* Weights, where there are some: of the rows that there are and are not ignored. */
static __attribute__((noinline)) void load_weights(const row_terms *rows, cross_entropy_tile *t)
{
    float weight[BLOCK] = {0.0f};
    double gradient[BLOCK] = {0.0};
    for (int64_t j = 0; j < t->count; j++) {
        const int64_t label = label_at(rows, t->begin + j);
        if (label == rows->ignore_index)
            continue;
        const row_factors w = row_factors_of(rows, t->begin + j, label);
        weight[j] = w.loss;
        gradient[j] = w.gradient;
    }
    t->weight = vload_f32(weight);
    t->gradient = vd_load(gradient);
}

/* An ignore_index that is no class has the lane of no class: others than it do not occur. */
LANES vf lane_of_label(int64_t label)
{
    return vset1(float_of_bits((uint64_t)label > UINT32_MAX ? UINT32_MAX : (uint32_t)label));
}

/* A row that is ignored, or missing, weighs nothing: its loss and gradient come out as 0 whatever its
 * label, which is set to 0. */
LANES void weigh_rows(const row_terms *rows, cross_entropy_tile *t)
{
    const vf zero = vset1(0.0f);
    int64_t room[BLOCK];
    const vf label = vload_i64(labels_at(rows, t->begin, t->count, room)), column = vfloat_of_bits(label);
    /* 0 only where they are the same integer: labels of planes may be beyond 2^24 */
    const vf apart = vfloat_of_bits(vsub_bits(label, lane_of_label(rows->ignore_index)));
    const vm ignored = veq(apart, zero);
    store_numbers(t->label, vselect(ignored, zero, label));
    t->column = vselect(ignored, zero, column);
    if (rows->class_weight || rows->row_weight || rows->grad_rows) {
        load_weights(rows, t);
        return;
    }
    t->weight = vselect(ignored, zero, vset1(1.0f));
    t->gradient = vd_times(vd_set1(rows->grad_scale), vd_widen(t->weight));
}

/* The label's own, of each row; never -0. */
LANES vf label_gradients(vd others, vd h)
{
    return vadd(vneg(vd_narrow(vd_normal(vd_times(others, h)))), vset1(0.0f));
}

/* From the sums to what the gradients are scaled with. */
LANES void scale_rows(cross_entropy_tile *t)
{
    const vd others = vd_load(t->sum);
    const vd h = vd_over(t->gradient, vd_plus(others, vd_load_f32(t->label_term)));
    t->others = vd_narrow(others);
    t->factor = vd_narrow(vd_normal(h));
    vstore_f32(t->label_gradient, label_gradients(others, h));
}

LANES int is_irregular(const cross_entropy_tile *t)
{
    return tile_is_irregular(t->max, vadd(t->others, vload_f32(t->label_term)));
}

/* What finish_losses needs of rows whose e_y is too small to divide by. */
static __attribute__((noinline)) vf label_logits(const cross_entropy_job *job,
                                                 const cross_entropy_tile *t)
{
    const storage *x = (const storage *)job->logits + t->begin * job->logits_stride;
    float logit[BLOCK] = {0.0f};
    for (int64_t j = 0; j < t->count; j++)
        logit[j] = load_one(x + j * job->logits_stride + t->label[j]);
    return vload_f32(logit);
}

/* A short row by itself. It has one chunk, and is over before a pass could run beside it: nothing is
 * carried from row to row, and the CPU has the next one under way by itself. */
LANES_LARGE void cross_entropy_short_row(const cross_entropy_job *job, int64_t i,
                                         pending_losses *pending, int64_t j)
{
    float e[SHORT_ROW];
    const int64_t classes = job->classes, label = label_at(&job->rows, i);
    const storage *x = logits_of(job, i);
    storage *grad = grad_of(job, i);
    if (label == job->rows.ignore_index) {
        set_ignored(pending, j);
        if (grad)
            store_fill(grad, classes, 0.0f);
        return;
    }
    const row_factors w = row_factors_of(&job->rows, i, label);
    const float label_logit = load_one(x + label); /* read first: the gradient may be the logits */
    const row_sum row = sum_short_row(x, classes, label, e);
    if (row_is_special(row)) {
        set_special(pending, j, w.loss);
        if (grad)
            store_fill(grad, classes, LANE_NAN);
        return;
    }
    const row_gradient g = end_row(row, w, label_logit, pending, j);
    if (grad) {
        scale_short_row(e, classes, narrowed(g.h), grad);
        store_one(grad + label, g.label);
    }
}

/* Fewer than a tile, or irregular: `count` rows from `begin` on, one after the other. Out of line:
 * tiles are seldom irregular. */
static __attribute__((noinline)) vf losses_of_few_rows(const cross_entropy_job *job, int64_t begin,
                                                       int64_t count)
{
    pending_losses pending;
    set_nothing_pending(&pending);
    for (int64_t j = 0; j < count; j++)
        cross_entropy_short_row(job, begin + j, &pending, j);
    return finish_pending(&pending);
}

/* Before the tile's gradients are written, which may lie over its logits. */
LANES void see_label_logits(const cross_entropy_job *job, cross_entropy_tile *t)
{
    t->minus_logit = vset1(0.0f);
    if (__builtin_expect(vany(vlt(vload_f32(t->label_term), vset1(SMALLEST_LABEL_TERM))), 0))
        t->minus_logit = vsub(vset1(0.0f), label_logits(job, t));
}

/* An irregular tile's gradients are written here, too. */
LANES vf losses_of_tile(const cross_entropy_job *job, cross_entropy_tile *t)
{
    t->irregular = is_irregular(t);
    if (__builtin_expect(t->irregular, 0))
        return losses_of_few_rows(job, t->begin, t->count);
    return finish_losses(t->others, vload_f32(t->label_term), t->weight, t->n, t->minus_logit);
}

/* Out of line: inlined, the addresses of its sixteen rows are kept on the stack, and read from there. */
static __attribute__((noinline)) void write_tile(const cross_entropy_tile *t, float *e,
                                                 int64_t classes, storage *grad, int64_t stride)
{
    if (are_compared(classes) && t->count == BLOCK) {
        const vf label_gradient = vload_f32(t->label_gradient);
        store_rows(e, product_but_one(t->factor, t->column, label_gradient), BLOCK, classes, grad,
                   stride);
        return;
    }
    store_rows(e, product_with(t->factor), t->count, classes, grad, stride);
    if (__builtin_expect(t->count == BLOCK, 1)) { /* the same without a test for each row */
        UNROLL for (int j = 0; j < BLOCK; j++, grad += stride)
            store_one(grad + t->label[j], t->label_gradient[j]);
        return;
    }
    for (int64_t j = 0; j < t->count; j++, grad += stride)
        store_one(grad + t->label[j], t->label_gradient[j]);
}

/* The gradients of tiles that follow each other. `lines` has room for them where they are contiguous and
 * streamed, and is NULL elsewhere; those that leave from there meanwhile must be gone. */
LANES void write_tiles(const cross_entropy_job *job, const cross_entropy_tile *tile, int64_t tiles,
                       float *e, storage *lines, line_stream *leaving)
{
    const int64_t classes = job->classes, stride = job->grad_stride, last = tiles - 1;
    const int64_t rows = tile[last].begin + tile[last].count - tile->begin;
    storage *grad = (storage *)job->grad + tile->begin * stride;
    for (int64_t k = 0; k < tiles; k++)
        if (tile[k].irregular) /* its gradients are written */
            lines = NULL;
    storage *out = lines ? lines : grad;
    for (int64_t k = 0; k < tiles; k++)
        if (!tile[k].irregular)
            write_tile(tile + k, e + k * classes * BLOCK, classes, out + k * BLOCK * stride, stride);
    if (lines)
        *leaving = open_stream(lines, rows * classes, grad, leaving->line);
}

/* The lines that a tile's gradients go to, if rows are contiguous, are fetched before they are stored; and up to three
 * of the tile after. */
LANES void fetch_gradients(storage *grad, int64_t classes)
{
    for (int64_t c = 0; c < classes; c += 4)
        FOR_BLOCKS(k, 4) vprefetch_write((void *)((uintptr_t)grad + (size_t)((c + k) * BLOCK) * sizeof *grad));
}

/* Rows [begin, tiles_end), begin at a multiple of BLOCK in a leaf. Tiles go side by side through each
 * step, over the ends of leaves, for a step of one tile is latency bound. Two steps share a loop where one
 * is bound by arithmetic and the other by stores, or by divisions: it is a tile behind, so that it waits
 * for nothing. Gradients are written last, for they may lie over logits that an irregular tile reads
 * again. `lines` as for write_tiles(). */
LANES vd cross_entropy_tiles(const cross_entropy_job *job, int64_t begin, int64_t tiles_end, int64_t end,
                             storage *lines, vd total)
{
    const int64_t classes = job->classes, most = tiles_of(classes), size = classes * BLOCK;
    const int compared = are_compared(classes);
    _Alignas(LINE) float e[TILE_FLOATS];
    cross_entropy_tile tile[MAX_TILES];
    vf loss[MAX_TILES];
    open_line line = {.n = 0};
    line_stream leaving = {.n = 0, .line = &line}; /* of the tiles before */
    while (begin < tiles_end) {
        int64_t tiles = 0;
        if (lines)
            prefetch_pages(grad_of(job, begin), most * size, most * size);
        for (; tiles < most && begin < tiles_end; tiles++, begin += BLOCK) {
            cross_entropy_tile *t = tile + tiles;
            float *x = e + tiles * size;
            t->begin = begin;
            t->count = smaller(tiles_end - begin, BLOCK);
            weigh_rows(&job->rows, t);
            t->max = load_rows(logits_of(job, begin), job->logits_stride, t->count, classes, x);
            t->n = exponents_of(t->max);
        }
        for (int64_t k = 0; k <= tiles; k++) {
            if (k < tiles) {
                const void *ahead = tile_ahead(logits_of(job, tile[k].begin), job->logits_stride, most);
                line_stream *meanwhile = lines ? &leaving : NULL;
                const int near = job->fetch.near;
                const vf n = tile[k].n;
                float *x = e + k * size;
                if (compared)
                    vstore_f32(tile[k].label_term, exp_tile_but_one(x, x, classes, n, ahead, near, meanwhile,
                                                                    tile[k].column));
                else
                    exp_tile(x, x, classes, n, ahead, near, meanwhile, NULL);
            }
            if (k < tiles && job->grad && !lines)
                fetch_gradients(grad_of(job, tile[k].begin), classes);
            if (k > 0 && !compared)
                leave_out(e + (k - 1) * size, tile[k - 1].label, tile[k - 1].label_term);
        }
        for (int64_t k = 0; k <= tiles; k++) {
            if (k < tiles)
                sum_exponentials(e + k * size, classes, tile[k].sum);
            if (k > 0)
                scale_rows(tile + k - 1);
        }
        for (int64_t k = 0; k < tiles; k++) {
            see_label_logits(job, tile + k);
            loss[k] = losses_of_tile(job, tile + k);
        }
        for (int64_t k = 0; k < tiles; k++) { /* after the calls above: `total` stays in registers */
            const cross_entropy_tile *t = tile + k;
            total = add_losses(&job->rows, t->begin, t->count, loss[k], total);
            total = end_leaf(&job->rows, t->begin + t->count, end, total);
        }
        finish_stream(&leaving);
        if (job->grad)
            write_tiles(job, tile, tiles, e, lines, &leaving);
    }
    finish_stream(&leaving);
    close_line(&line);
    return total;
}

LANES_PASS void pass_cross_entropy(row_tiles *r, const storage *x, const storage *next, int second,
                                   const cross_entropy_job *job)
{
    pass_row_tiles(r, x, next, second, job->classes, job->logits_stride, job->grad_stride, SCALED, 1, 1);
}

/* All of a tile that stayed rows, with slots `tile`, is added. */
LANES void scale_row_tile(const cross_entropy_job *job, row_tiles *r, int64_t tile, cross_entropy_tile *t,
                          storage *lines)
{
    vd_store(t->sum, vs_across_rows(r->folded));
    vstore_f32(t->label_term, vload_f32(r->left_out + tile * BLOCK));
    scale_rows(t);
    see_label_logits(job, t);
    r->out[tile] = NULL;
    if (job->grad && !is_irregular(t))
        set_scaled(r, tile, t->factor, lines ? lines : grad_of(job, t->begin));
    r->past[tile] = lines ? grad_of(job, t->begin) : NULL;
    memcpy(r->label + tile * BLOCK, t->label, sizeof t->label);
    vstore_f32(r->label_value + tile * BLOCK, vload_f32(t->label_gradient));
}

LANES void begin_cross_entropy_tile(const cross_entropy_job *job, row_tiles *r, int64_t tile, int64_t i,
                                    cross_entropy_tile *t)
{
    t->begin = i;
    t->count = BLOCK;
    t->max = maxima_of_rows(r);
    t->n = exponents_of(t->max);
    weigh_rows(&job->rows, t);
    begin_row_tile(r, tile, t->n);
    set_own(r, tile, t->label, width_of(job->classes));
}

LANES vd end_tile(const cross_entropy_job *job, cross_entropy_tile *t, int64_t end, vd total)
{
    total = add_losses(&job->rows, t->begin, BLOCK, losses_of_tile(job, t), total);
    return end_leaf(&job->rows, t->begin + BLOCK, end, total);
}

/* Rows [begin, tiles_end), whole tiles that stay rows; all else is as in cross_entropy_tiles(). */
static __attribute__((noinline)) vd cross_entropy_row_tiles(const cross_entropy_job *job,
                                                            int64_t begin, int64_t tiles_end,
                                                            int64_t end, storage *lines)
{
    const int64_t classes = job->classes, last = tiles_end - BLOCK;
    const int64_t stride = job->logits_stride, out_stride = job->grad_stride;
    _Alignas(LINE) float e[SLOTS * SHORT_ROW];
    row_tiles r;
    cross_entropy_tile state[3], *old = state, *before = state + 1, *t = state + 2;
    vd total = vd_zero();
    open_row_tiles(&r, e, classes, job->fetch);
    find_maxima(logits_of(job, begin), classes, stride, BLOCK, r.maxima);
    begin_cross_entropy_tile(job, &r, 0, begin, t);
    find_maxima(logits_of(job, begin + BLOCK), classes, stride, HALF, r.maxima);
    int64_t now = 0;
    for (int64_t i = begin; i < tiles_end; i += BLOCK, now = !now) {
        const int64_t next = smaller(i + BLOCK, last), after = smaller(i + 2 * BLOCK, last);
        r.tile = now;
        pass_cross_entropy(&r, logits_of(job, i), logits_of(job, next + HALF), 0, job);
        if (i > begin + BLOCK) /* a tile later, so that it waits for nothing; first, for it takes longest */
            total = end_tile(job, old, end, total);
        begin_cross_entropy_tile(job, &r, !now, next, old);
        if (i > begin)
            scale_row_tile(job, &r, !now, before, lines);
        pass_cross_entropy(&r, logits_of(job, i + HALF), logits_of(job, after), 1, job);
        cross_entropy_tile *const begun = old;
        old = before;
        before = t;
        t = begun;
    }
    if (tiles_end - begin > BLOCK)
        total = end_tile(job, old, end, total);
    leave_row_tile(&r, now, classes, stride, out_stride, SCALED, 1);
    add_last_half(&r, !now, classes, 1);
    scale_row_tile(job, &r, !now, before, lines);
    leave_row_tile(&r, !now, classes, stride, out_stride, SCALED, 1);
    close_line(&r.line); /* of whichever tile left last: those after it may have been irregular */
    return end_tile(job, before, end, total);
}

/* Only these two take the stack for what is streamed. */
static __attribute__((noinline)) vd cross_entropy_row_tiles_streamed(const cross_entropy_job *job,
                                                                     int64_t begin, int64_t tiles_end,
                                                                     int64_t end)
{
    _Alignas(LINE) storage lines[TILE_FLOATS];
    const vd total = cross_entropy_row_tiles(job, begin, tiles_end, end, lines);
    vstream_fence();
    return total;
}
static __attribute__((noinline)) vd cross_entropy_tiles_streamed(const cross_entropy_job *job,
                                                                 int64_t begin, int64_t tiles_end,
                                                                 int64_t end)
{
    storage lines[TILE_CLASSES * BLOCK];
    const vd total = cross_entropy_tiles(job, begin, tiles_end, end, lines, vd_zero());
    vstream_fence();
    return total;
}

static __attribute__((noinline)) vd cross_entropy_tiles_stored(const cross_entropy_job *job,
                                                               int64_t begin, int64_t tiles_end,
                                                               int64_t end, vd total)
{
    return cross_entropy_tiles(job, begin, tiles_end, end, NULL, total);
}

/* Rows [begin, end) that make no tile, begin at a multiple of BLOCK in a leaf; `total` is of the leaf's
 * rows before. Out of line: neither should take the other's stack. */
static __attribute__((noinline)) void cross_entropy_few_rows(const cross_entropy_job *job,
                                                             int64_t begin, int64_t end, vd total)
{
    for (int64_t i = begin; i < end; i += BLOCK) {
        const int64_t count = smaller(end - i, BLOCK);
        total = add_losses(&job->rows, i, count, losses_of_few_rows(job, i, count), total);
        total = end_leaf(&job->rows, i + count, end, total);
    }
}

/* ---- one row of one block ------------------------------------------------------------------- */

/* A call's only row. Its time is the latency of one step after the other: so it stays in registers,
 * and nothing waits that need not. Returns 0, with nothing written, where the row is ignored,
 * special, or beyond DIRECT_BOUND. */
LANES int cross_entropy_block_row(const cross_entropy_job *job, int64_t i)
{
    const row_terms *rows = &job->rows;
    const int64_t classes = job->classes, label = label_at(rows, i);
    const storage *x = logits_of(job, i);
    if (label == rows->ignore_index)
        return 0;
    const vf logits = vload_tail(x, classes, -LANE_INFINITY);
    const float label_logit = load_one(x + label);
    const float max = vmax_across(vmax(logits, vset1(-LANE_INFINITY)));
    const exp_factors factors = vexp_factors(logits);
    if (!(max >= -DIRECT_BOUND && max <= DIRECT_BOUND))
        return 0;
    float kept[BLOCK];
    const reference ref = {max, exponent_of(max), 0.0f};
    const vf e = vexp_of_factors(factors, exponent_bits_of(max));
    vstore_f32(kept, e);
    const row_sum row = {ref, vd_across(vd_widen(vkeep(vmask_without((int)label), e))),
                         (double)kept[label]};
    if (row_is_special(row))
        return 0;
    const row_factors w = row_factors_of(rows, i, label);
    const row_gradient g = gradient_of(row, w);
    if (job->grad) {
        storage *grad = grad_of(job, i);
        scale_short_row(kept, classes, narrowed(g.h), grad);
        store_one(grad + label, g.label);
    }
    const vf loss = plain_losses(vset1((float)row.others), vset1((float)row.left_out), vset1(ref.n),
                                 vset1(ref.shift - label_logit));
    float row_loss = vlane0(loss);
    if (w.loss != 1.0f)
        row_loss = vlane0(weighted_losses(vset1(w.loss), loss));
    if (rows->row_loss)
        ((float *)rows->row_loss)[i] = row_loss;
    if (rows->partial)
        rows->partial[i / rows->leaf_rows] = (double)row_loss;
    return 1;
}

/* As go_as_one_chunk_rows(); see LEAST_SHORT_LOSSES. */
LANES int go_side_by_side(int64_t rows, int64_t classes, const storage_format *format)
{
    const int enough = rows >= LEAST_SHORT_LOSSES || classes >= 3 * GROUP;
    return enough && go_as_one_chunk_rows(rows, classes, format);
}

static __attribute__((noinline)) void cross_entropy_short_rows(const cross_entropy_job *job,
                                                               int64_t begin, int64_t end)
{
    const int64_t tiles_end = end_of_tiles(begin, end, job->classes);
    const int streamed = streams(job) && job->grad_stride == job->classes;
    vd total = vd_zero();
    if (stay_rows(tiles_end - begin, job->classes, leaving_of(job), streamed, job->fetch)) {
        const int64_t whole = begin + ((tiles_end - begin) & -BLOCK);
        total = streamed ? cross_entropy_row_tiles_streamed(job, begin, whole, end)
                         : cross_entropy_row_tiles(job, begin, whole, end, NULL);
        if (whole < tiles_end) /* less than a tile */
            total = cross_entropy_tiles_stored(job, whole, tiles_end, end, total);
    } else if (tiles_end > begin && streamed)
        total = cross_entropy_tiles_streamed(job, begin, tiles_end, end);
    else if (tiles_end > begin)
        total = cross_entropy_tiles_stored(job, begin, tiles_end, end, total);
    if (go_side_by_side(end - tiles_end, job->classes, NULL))
        cross_entropy_one_chunk(job, tiles_end, end, total);
    else if (tiles_end < end)
        cross_entropy_few_rows(job, tiles_end, end, total);
}

void KERNEL(cross_entropy)(const cross_entropy_job *job, int64_t begin, int64_t end)
{
    const int is_block = job->classes >= 1 && job->classes <= BLOCK;
    const int in_tiles = go_in_tiles(job->classes, job->tile_classes) ||
                         go_in_row_tiles(end - begin, job->classes, job->row_tile_classes, leaving_of(job));
    if (is_block && !job->format && end - begin == 1 && cross_entropy_block_row(job, begin))
        return;
    if (!in_tiles && go_side_by_side(end - begin, job->classes, job->format))
        cross_entropy_one_chunk(job, begin, end, vd_zero());
    else if (job->format || !in_tiles)
        cross_entropy_rows(job, begin, end);
    else
        cross_entropy_short_rows(job, begin, end);
}

/* ---- long rows shared between threads --------------------------------------------------------- */

LANES const void *logits_chunk(const cross_entropy_job *job, const shared_chunk *c)
{
    return input_address(job->format, logits_row(job, c->row), c->at);
}

LANES void *grad_chunk(const cross_entropy_job *job, const shared_chunk *c)
{
    return job->grad ? output_address(job->format, grad_row(job, c->row), c->at) : NULL;
}

LANES int is_ignored(const cross_entropy_job *job, int64_t row)
{
    return label_at(&job->rows, row) == job->rows.ignore_index;
}

/* The label's column as seen from a chunk: LEAVE_NOTHING where it lies in another. */
LANES int64_t label_in_chunk(const cross_entropy_job *job, const shared_chunk *c)
{
    return left_out_from(label_at(&job->rows, c->row), c->at);
}

void KERNEL(cross_entropy_states)(const void *arg, shared_rows *s, int64_t begin, int64_t end)
{
    const cross_entropy_job *job = arg;
    for (int64_t i = begin; i < end; i++) {
        const shared_chunk c = chunk_of(s, i, job->classes);
        if (is_ignored(job, c.row))
            continue;
        const void *x = logits_chunk(job, &c);
        const int64_t label = label_in_chunk(job, &c);
        if (label >= 0)
            c.shared->label_logit = read_element(job->format, x, label);
        sum_shared(job->format, x, c.n, label, grad_chunk(job, &c), c.state);
    }
}

/* Row r of the batch, from its chunks to its loss and to the factors of its gradient. */
LANES void combine_cross_entropy(const cross_entropy_job *job, shared_rows *s, int64_t r,
                                 pending_losses *pending, int64_t j)
{
    const int64_t i = s->begin + r;
    if (is_ignored(job, i)) {
        set_ignored(pending, j);
        return;
    }
    const row_factors w = row_factors_of(&job->rows, i, label_at(&job->rows, i));
    const row_sum row = combine_row(s, r, 0);
    if (s->row[r].is_special) {
        set_special(pending, j, w.loss);
        return;
    }
    const row_gradient g = end_row(row, w, s->row[r].label_logit, pending, j);
    s->row[r].factor = g.h;
    s->row[r].value = g.label;
}

/* Row i's loss, into its lane; at the end of a leaf, the lanes into its partial sum. */
LANES void add_to_leaf(const row_terms *rows, shared_rows *s, int64_t i, float loss)
{
    s->leaf[i % BLOCK] += (double)loss;
    if ((i + 1) % rows->leaf_rows != 0 && i + 1 != s->row_count)
        return;
    for (int half = BLOCK / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            s->leaf[k] += s->leaf[k + half];
    rows->partial[i / rows->leaf_rows] = s->leaf[0];
    for (int k = 0; k < BLOCK; k++)
        s->leaf[k] = 0.0;
}

void KERNEL(cross_entropy_combine)(const void *arg, shared_rows *s)
{
    const cross_entropy_job *job = arg;
    const row_terms *rows = &job->rows;
    for (int64_t i = s->begin; i < s->end; i += BLOCK) {
        const int64_t count = s->end - i < BLOCK ? s->end - i : BLOCK;
        pending_losses pending;
        float loss[BLOCK];
        set_nothing_pending(&pending);
        for (int64_t j = 0; j < count; j++)
            combine_cross_entropy(job, s, i - s->begin + j, &pending, j);
        vstore_f32(loss, finish_pending(&pending));
        if (rows->row_loss)
            vstore_tail_f32((float *)rows->row_loss + i, count, vload_f32(loss));
        for (int64_t j = 0; rows->partial && j < count; j++)
            add_to_leaf(rows, s, i + j, loss[j]);
    }
}

void KERNEL(cross_entropy_outputs)(const void *arg, shared_rows *s, int64_t begin, int64_t end)
{
    const cross_entropy_job *job = arg;
    for (int64_t i = begin; job->grad && i < end; i++) {
        const shared_chunk c = chunk_of(s, i, job->classes);
        void *grad = grad_chunk(job, &c);
        const int64_t label = label_in_chunk(job, &c);
        if (is_ignored(job, c.row))
            fill_elements(job->format, grad, c.n, 0.0f);
        else if (c.shared->is_special)
            fill_elements(job->format, grad, c.n, LANE_NAN);
        else
            scale_shared(job->format, &c, logits_chunk(job, &c), label, grad);
    }
}

/* ---- classes a plane apart -------------------------------------------------------------------- */

/* Of a tile with rows whose e_y is too small to divide by, which need their logit, or with special rows: `special`
 * is set for those that are not ignored. */
static __attribute__((noinline)) void mend_pack_tile(const pack *p, int t, const row_terms *rows,
                                                     const cross_entropy_tile *w, pack_factors *f,
                                                     int *special, pending_losses *pending)
{
    const tile_sum *s = &p->sum[t];
    const input_planes in = input_tile(p->in, t);
    special_rows(s, special);
    set_nothing_pending(pending);
    for (int64_t j = 0; j < w->count; j++) {
        const reference ref = reference_at(&s->ref, (int)j);
        const int64_t label = p->column[t * BLOCK + j];
        const int is_ignored = label_at(rows, w->begin + j) == rows->ignore_index;
        pending->others[j] = (float)s->others[j];
        pending->label_term[j] = (float)s->left_out[j];
        pending->n[j] = ref.n;
        pending->shift_minus_logit[j] = ref.shift - load_position(in, label, j);
        if (is_ignored || special[j]) {
            special[j] &= !is_ignored;
            set_pending(pending, j, special[j] ? LANE_NAN : 0.0f, 1.0f, 0.0f);
            f->factor[t][j] = 0.0;
            f->value[t][j] = 0.0f;
        }
    }
}

/* From the sums of a tile to its losses, and to what its gradients are written with. */
LANES vf finish_pack_tile(const pack *p, int t, const row_terms *rows, const cross_entropy_tile *w,
                          pack_factors *f, int *special)
{
    const tile_sum *s = &p->sum[t];
    const vd sum = others_of(s), h = vd_over(w->gradient, vd_plus(sum, left_out_of(s)));
    vf others = vd_narrow(sum), label_term = vd_narrow(left_out_of(s)), n = vset1(0.0f), minus_logit = n;
    vd_store(f->factor[t], h);
    vstore_f32(f->value[t], label_gradients(sum, h));
    if (__builtin_expect(vany(vmask_or(vlt(label_term, vset1(SMALLEST_LABEL_TERM)), vnan(vadd(others, label_term)))),
                         0)) {
        pending_losses mended;
        mend_pack_tile(p, t, rows, w, f, special, &mended);
        others = vload_f32(mended.others);
        label_term = vload_f32(mended.label_term);
        n = vload_f32(mended.n);
        minus_logit = vload_f32(mended.shift_minus_logit);
    }
    return finish_losses(others, label_term, w->weight, n, minus_logit);
}

/* The losses of a tile's rows, which may be of two leaves: tiles begin where they lie in a plane. */
LANES vd add_pack_losses(const row_terms *rows, const cross_entropy_tile *t, int64_t end, vf loss, vd total)
{
    const int64_t leaf_end = rows->partial ? (t->begin / rows->leaf_rows + 1) * rows->leaf_rows : end;
    const int64_t first = smaller(t->count, leaf_end - t->begin);
    total = add_losses_anywhere(total, t->begin, first, loss);
    total = end_leaf(rows, t->begin + first, end, total);
    if (first < t->count) {
        float lane[2 * BLOCK] = {0.0f};
        vstore_f32(lane, loss);
        total = add_losses_anywhere(total, leaf_end, t->count - first, vload_f32(lane + first));
        total = end_leaf(rows, t->begin + t->count, end, total);
    }
    return total;
}

LANES void cross_entropy_packs(const cross_entropy_job *job, int64_t begin, int64_t end, pack *p)
{
    const row_terms *rows = &job->rows;
    cross_entropy_tile tile[PACK_TILES]; /* what its rows weigh: class 0 stands for the label of an ignored one */
    pack_factors f;
    vd total = vd_zero();
    FOR_NEIGHBOURS(r, begin, end, job->inner, rows_of_pack(job->classes, 1, job->beyond_cache))
    {
        int special[PACK_TILES][BLOCK];
        start_pack(p,
                   input_at(job->format, job->logits, job->logits_stride, job->logits_class_stride, r,
                            job->fetch.near),
                   job->classes, LEAVE_COLUMN, 0);
        for (int t = 0; t < p->tiles; t++) {
            tile[t].begin = r.row + t * BLOCK;
            tile[t].count = smaller(r.count - t * BLOCK, BLOCK);
            weigh_rows(rows, &tile[t]);
            for (int j = 0; j < BLOCK; j++)
                p->column[t * BLOCK + j] = (uint32_t)tile[t].label[j];
        }
        sum_pack(p);
        for (int t = 0; t < p->tiles; t++) {
            const cross_entropy_tile *w = &tile[t];
            const vf loss = finish_pack_tile(p, t, rows, w, &f, special[t]);
            if (rows->row_loss)
                vstore_tail_f32((float *)rows->row_loss + w->begin, w->count, loss);
            total = add_pack_losses(rows, w, end, loss, total);
        }
        if (!job->grad)
            continue;
        const output_planes out =
            output_at(job->format, job->grad, job->grad_stride, job->grad_class_stride, r, streams(job));
        write_pack(p, &f, 1, out);
        for (int t = 0; t < p->tiles; t++)
            if (__builtin_expect(has_special_rows(&p->sum[t]), 0)) /* and was mended */
                fill_rows(output_tile(out, t), special[t], job->classes, LANE_NAN);
    }
}

void KERNEL(cross_entropy_planes)(const cross_entropy_job *job, int64_t begin, int64_t end)
{
    pack p;
    cross_entropy_packs(job, begin, end, &p);
    if (streams(job))
        vstream_fence();
}
