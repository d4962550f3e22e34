/* SPDX-License-Identifier: MIT */
/* Softmax, log-softmax, log-sum-exp, and the gradients of the first two. */
#include "one_chunk_rows.h"
#include "row_tile.h"
#include "shared_row.h"
#include "softmax_backward_tile.h"

/* ---- forward, row by row ---------------------------------------------------------------------- */

LANES const storage *input_row(const softmax_job *job, int64_t i)
{
    return (const storage *)job->input + i * job->input_stride;
}

LANES storage *output_row(const softmax_job *job, int64_t i)
{
    return (storage *)job->output + i * job->output_stride;
}

/* The same where they may be of 16 bits. */
LANES const void *input_start(const softmax_job *job, int64_t i)
{
    return input_address(job->format, job->input, i * job->input_stride);
}

LANES void *output_start(const softmax_job *job, int64_t i)
{
    return output_address(job->format, job->output, i * job->output_stride);
}

LANES const void *row_after(const softmax_job *job, int64_t i, int64_t end)
{
    return i + 1 < end ? input_start(job, i + 1) : NULL;
}

LANES int streams(const softmax_job *job)
{
    return STREAMS && job->beyond_cache && job->output != job->input;
}

typedef void rows_function(const softmax_job *, int64_t begin, int64_t end, row_pipe *);
typedef void one_chunk_function(const softmax_job *, int64_t begin, int64_t end, float *scratch);

/* Out of line, as are the tiles: neither should take the other's stack. */
static __attribute__((noinline)) void long_rows(const softmax_job *job, int64_t begin, int64_t end,
                                                rows_function *rows,
                                                one_chunk_function *of_one_chunk)
{
    _Alignas(LINE) float scratch[SCRATCH_ROOM];
    if (go_as_one_chunk_rows(end - begin, job->classes, job->format)) {
        of_one_chunk(job, begin, end, scratch);
        return;
    }
    row_pipe pipe;
    open_pipe(&pipe, job->classes, scratch, job->fetch, job->format);
    rows(job, begin, end, &pipe);
}

/* output_c = e_c / S. `streamed` is a constant after inlining. */
LANES void softmax_rows_to(const softmax_job *job, int64_t begin, int64_t end, row_pipe *pipe,
                           const int streamed)
{
    const int64_t classes = job->classes;
    for (int64_t i = begin; i < end; i++) {
        const void *x = input_start(job, i);
        void *out = output_start(job, i);
        float *kept = kept_in(pipe, out, job->kept_chunks, streamed);
        const row_sum row = sum_row(pipe, x, LEAVE_NOTHING, row_after(job, i, end), kept, SCALED,
                                    streamed, 0);
        if (row_is_special(row))
            fill_elements(job->format, out, classes, LANE_NAN);
        else if (classes == 1)
            write_element(job->format, out, 0, 1.0f); /* e (1 / e) could be the number below 1 */
        else
            leave_scaled(pipe, x, row, 1.0 / row.others, LEAVE_NOTHING, 0.0f, kept, out, streamed);
    }
    close_pipe(pipe, SCALED, streamed);
}

static __attribute__((noinline)) void softmax_rows(const softmax_job *job, int64_t begin,
                                                   int64_t end, row_pipe *pipe)
{
    if (job->output != job->input)
        lend_outputs(pipe, output_start(job, begin), end - begin, job->output_stride);
    if (streams(job) && !job->format)
        softmax_rows_to(job, begin, end, pipe, 1);
    else
        softmax_rows_to(job, begin, end, pipe, 0);
}

/* output_c = (x_c - max) - log(S / e_max): both terms are <= 0, so nothing cancels. */
LANES void log_softmax_rows_to(const softmax_job *job, int64_t begin, int64_t end, row_pipe *pipe,
                               const int streamed)
{
    for (int64_t i = begin; i < end; i++) {
        const void *x = input_start(job, i);
        void *out = output_start(job, i);
        const row_sum row = sum_row(pipe, x, LEAVE_MAXIMUM, row_after(job, i, end), NULL, SUBTRACTED,
                                    streamed, 1);
        if (row_is_special(row))
            fill_elements(job->format, out, job->classes, LANE_NAN);
        else
            leave_subtracted(pipe, x, row.ref.max, log_of_sum_over_max(row), out);
    }
    close_pipe(pipe, SUBTRACTED, streamed);
}

static __attribute__((noinline)) void log_softmax_rows(const softmax_job *job, int64_t begin,
                                                       int64_t end, row_pipe *pipe)
{
    if (streams(job) && !job->format)
        log_softmax_rows_to(job, begin, end, pipe, 1);
    else
        log_softmax_rows_to(job, begin, end, pipe, 0);
}

/* Of a special row: NaN where it holds one, else its maximum, +inf or -inf. Found once more, for of 16 bits an
 * infinity may have been passed over. */
LANES float log_sum_exp_of_special(const storage_format *format, const void *x, int64_t classes)
{
    float wide[BLOCK];
    vf max = vset1(-LANE_INFINITY);
    for (int64_t at = 0; at < classes; at += BLOCK) {
        const int64_t n = smaller(classes - at, BLOCK);
        const float *block = read_elements(format, input_address(format, x, at), n, wide);
        const vf v = vload_tail(block, n, -LANE_INFINITY);
        if (vany(vnan(v)))
            return LANE_NAN;
        max = vmax(v, max);
    }
    return vmax_across(max);
}

/* max + log(S / e_max) */
LANES float log_sum_exp_of(row_sum row, const storage_format *format, const void *x,
                           int64_t classes)
{
    if (row_is_special(row))
        return log_sum_exp_of_special(format, x, classes);
    return row.ref.max + log_of_sum_over_max(row);
}

static __attribute__((noinline)) void log_sum_exp_rows(const softmax_job *job, int64_t begin,
                                                       int64_t end, row_pipe *pipe)
{
    for (int64_t i = begin; i < end; i++) {
        const void *x = input_start(job, i);
        const row_sum row = sum_row(pipe, x, LEAVE_MAXIMUM, row_after(job, i, end), NULL,
                                    NOTHING_LEAVES, 0, 1);
        ((float *)job->output)[i] = log_sum_exp_of(row, job->format, x, job->classes);
    }
}

/* ---- forward, rows of one chunk --------------------------------------------------------------- */

enum forward { SOFTMAX, LOG_SOFTMAX, LOG_SUM_EXP };

LANES int leaving_of(const enum forward what)
{
    return what == SOFTMAX ? SCALED : what == LOG_SOFTMAX ? SUBTRACTED : NOTHING_LEAVES;
}

/* log-sum-exp of rows from `begin` on, before log1p, which is latency bound: sixteen take as long as one. */
typedef struct pending_logs {
    int64_t begin;
    float max[BLOCK], ratio[BLOCK];
} pending_logs;

static __attribute__((noinline)) void end_logs(const softmax_job *job, pending_logs *p, int64_t end)
{
    const vf logs = vadd(vload_f32(p->max), vlog1p(vload_f32(p->ratio)));
    vstore_tail((storage *)job->output + p->begin, end - p->begin, logs);
    p->begin = end;
}

/* log-softmax of a row whose logarithm is not known: it is computed where the row after it ends. The sum's fold,
 * the division and log1p in one chain take longer than a CPU looks ahead. x = NULL: no row is. */
typedef struct waiting_log {
    const void *x;
    void *out;
    float max, ratio;
} waiting_log;

/* Row i has come to `row`. */
LANES void end_forward_row(const softmax_job *job, int64_t i, row_sum row, one_chunk_rows *rows,
                           pending_logs *logs, waiting_log *waiting, const enum forward what)
{
    const int64_t classes = job->classes;
    const void *x = input_start(job, i);
    void *out = output_start(job, i);
    if (what == LOG_SUM_EXP) {
        const int special = row_is_special(row);
        logs->max[i - logs->begin] = special ? log_sum_exp_of_special(job->format, x, classes) : row.ref.max;
        logs->ratio[i - logs->begin] = special ? 0.0f : others_over_max(row);
        if (i + 1 - logs->begin == BLOCK)
            end_logs(job, logs, i + 1);
    } else if (row_is_special(row))
        fill_elements(job->format, out, classes, LANE_NAN);
    else if (what == SOFTMAX)
        leave_row_scaled(rows, 1.0 / row.others, LEAVE_NOTHING, 0.0f, out);
    else {
        if (waiting->x)
            leave_row_subtracted(rows, waiting->x, waiting->max, log1p_of(waiting->ratio), waiting->out);
        *waiting = (waiting_log){x, out, row.ref.max, others_over_max(row)};
    }
}

LANES void forward_one_chunk(const softmax_job *job, int64_t begin, int64_t end, float *scratch,
                             const enum forward what, const int streamed)
{
    const int leaving = leaving_of(what);
    const int64_t left_out = what == SOFTMAX ? LEAVE_NOTHING : LEAVE_MAXIMUM;
    one_chunk_rows rows;
    pending_logs logs = {.begin = begin};
    waiting_log waiting = {.x = NULL};
    open_rows(&rows, job->classes, job->output_stride, scratch, job->fetch, job->format);
    for (int64_t i = begin; i < end; i++) {
        const row_sum before = take_in_row(&rows, input_start(job, i), left_out, row_after(job, i, end),
                                           output_start(job, i), leaving, streamed, what != SOFTMAX);
        if (i > begin)
            end_forward_row(job, i - 1, before, &rows, &logs, &waiting, what);
    }
    end_forward_row(job, end - 1, end_of_rows(&rows, leaving, streamed), &rows, &logs, &waiting, what);
    if (what == LOG_SUM_EXP)
        end_logs(job, &logs, end);
    if (what == LOG_SOFTMAX && waiting.x) {
        const float log = log1p_of(waiting.ratio); /* while the row before leaves */
        leave_rows(&rows, leaving, streamed);
        leave_row_subtracted(&rows, waiting.x, waiting.max, log, waiting.out);
    }
    close_rows(&rows, leaving, streamed);
}

static __attribute__((noinline)) void softmax_one_chunk(const softmax_job *job, int64_t begin,
                                                        int64_t end, float *scratch)
{
    if (streams(job) && !job->format)
        forward_one_chunk(job, begin, end, scratch, SOFTMAX, 1);
    else
        forward_one_chunk(job, begin, end, scratch, SOFTMAX, 0);
}
static __attribute__((noinline)) void log_softmax_one_chunk(const softmax_job *job, int64_t begin,
                                                            int64_t end, float *scratch)
{
    if (streams(job) && !job->format)
        forward_one_chunk(job, begin, end, scratch, LOG_SOFTMAX, 1);
    else
        forward_one_chunk(job, begin, end, scratch, LOG_SOFTMAX, 0);
}
static __attribute__((noinline)) void log_sum_exp_one_chunk(const softmax_job *job, int64_t begin,
                                                            int64_t end, float *scratch)
{
    forward_one_chunk(job, begin, end, scratch, LOG_SUM_EXP, 0);
}

/* ---- forward, sixteen rows at once ------------------------------------------------------------ */

/* What a tile's rows come to, between the steps. */
typedef struct forward_tile {
    vf max, n;
    float left_out[BLOCK];
    double others[BLOCK];
} forward_tile;

/* All but softmax keep the maximum out of the sum: it is a second term. Where it is moved in memory, that is a
 * tile behind, so that no store is waited for. */
LANES int maxima_are_moved(int64_t classes, const enum forward what)
{
    return what != SOFTMAX && !are_compared(classes);
}

static __attribute__((noinline)) void move_maxima(const float *x, float *e, int64_t classes,
                                                  forward_tile *t)
{
    int32_t first[BLOCK];
    store_numbers(first, first_maxima(x, classes, t->max));
    leave_out(e, first, t->left_out);
}

/* Exponentials of a tile, those of the maxima apart where they are compared. */
LANES void exp_forward_tile(const float *x, float *e, int64_t classes, forward_tile *t, const void *ahead,
                            int near, line_stream *lines, const enum forward what)
{
    if (what == SOFTMAX || !are_compared(classes)) {
        vstore_f32(t->left_out, vset1(0.0f));
        exp_tile(x, e, classes, t->n, ahead, near, lines, NULL);
        return;
    }
    const vf greatest = vfloat_of_bits(first_maxima(x, classes, t->max));
    vstore_f32(t->left_out, exp_tile_but_one(x, e, classes, t->n, ahead, near, lines, greatest));
}

LANES int forward_is_irregular(const forward_tile *t)
{
    const vf others = vd_narrow(vd_load(t->others));
    return tile_is_irregular(t->max, vadd(others, vload_f32(t->left_out)));
}

/* 1 / S, or log(S / e_max), of each row. */
LANES vf finish_forward_tile(const forward_tile *t, const enum forward what)
{
    const vd others = vd_load(t->others);
    if (what == SOFTMAX)
        return vd_narrow(vd_normal(vd_over(vd_set1(1.0), others)));
    return vlog1p(vd_narrow(vd_over(others, vd_load_f32(t->left_out))));
}

LANES void write_forward_tile(const forward_tile *t, float *x, float *e, int64_t count,
                              int64_t classes, storage *out, int64_t stride, const enum forward what)
{
    const vf max = t->max, v = finish_forward_tile(t, what);
    if (what == SOFTMAX)
        store_rows(e, product_with(v), count, classes, out, stride);
    else if (what == LOG_SOFTMAX)
        store_rows(x, less_by(max, v), count, classes, out, stride);
    else
        vstore_tail(out, count, vadd(max, v));
}

static __attribute__((noinline)) void short_rows(const softmax_job *job, int64_t begin, int64_t end,
                                                 float *scratch, rows_function *rows)
{
    row_pipe pipe;
    open_pipe(&pipe, job->classes, scratch, job->fetch, job->format);
    rows(job, begin, end, &pipe);
}

LANES_PASS void pass_scaled(row_tiles *r, const storage *x, const storage *next, int second,
                            const softmax_job *job)
{
    pass_row_tiles(r, x, next, second, job->classes, job->input_stride, job->output_stride, SCALED, 0, 0);
}
LANES_PASS void pass_subtracted(row_tiles *r, const storage *x, const storage *next, int second,
                                const softmax_job *job)
{
    pass_row_tiles(r, x, next, second, job->classes, job->input_stride, job->output_stride, SUBTRACTED, 0, 1);
}

/* The tile of rows [i, i + BLOCK), which will have the slots `tile`. */
LANES void begin_forward_tile(const softmax_job *job, row_tiles *r, int64_t tile, int64_t i, forward_tile *t,
                              const enum forward what)
{
    t->max = maxima_of_rows(r);
    t->n = exponents_of(t->max);
    begin_row_tile(r, tile, t->n);
    if (what == LOG_SOFTMAX) {
        int32_t first[BLOCK];
        first_maxima_of_rows(input_row(job, i), job->classes, job->input_stride, t->max, first);
        set_own(r, tile, first, width_of(job->classes));
    }
}

/* All of it is added. */
LANES void end_row_tile(const softmax_job *job, row_tiles *r, int64_t tile, forward_tile *t, int64_t i,
                        storage *lines, float *scratch, const enum forward what, rows_function *rows)
{
    storage *out = lines ? lines : output_row(job, i);
    vd_store(t->others, vs_across_rows(r->folded));
    vstore_f32(t->left_out, what == LOG_SOFTMAX ? vload_f32(r->left_out + tile * BLOCK) : vset1(0.0f));
    r->x[tile] = input_row(job, i);
    r->out[tile] = NULL;
    r->past[tile] = lines ? output_row(job, i) : NULL;
    if (__builtin_expect(forward_is_irregular(t), 0))
        short_rows(job, i, i + BLOCK, scratch, rows);
    else if (what == SOFTMAX)
        set_scaled(r, tile, finish_forward_tile(t, SOFTMAX), out);
    else
        set_subtracted(r, tile, t->max, finish_forward_tile(t, LOG_SOFTMAX), out);
}

/* Rows [begin, end), whole tiles that stay rows: to softmax or log-softmax. Outputs that are
 * streamed go by way of `lines`, which is NULL elsewhere. */
LANES void forward_row_tiles(const softmax_job *job, int64_t begin, int64_t end, storage *lines,
                             const enum forward what, rows_function *rows)
{
    const int leaving = leaving_of(what);
    const int64_t classes = job->classes, stride = job->input_stride, last = end - BLOCK;
    const int64_t out_stride = job->output_stride;
    _Alignas(LINE) float scratch[SHORT_SCRATCH], e[SLOTS * SHORT_ROW];
    row_tiles r;
    forward_tile tile[2];
    open_row_tiles(&r, e, classes, job->fetch);
    find_maxima(input_row(job, begin), classes, stride, BLOCK, r.maxima);
    begin_forward_tile(job, &r, 0, begin, tile, what);
    find_maxima(input_row(job, begin + BLOCK), classes, stride, HALF, r.maxima);
    int64_t now = 0;
    for (int64_t i = begin; i < end; i += BLOCK, now = !now) {
        for (int second = 0; second < 2; second++) {
            const storage *x = input_row(job, i + second * HALF);
            const storage *next = second ? input_row(job, smaller(i + 2 * BLOCK, last))
                                         : input_row(job, smaller(i + BLOCK, last) + HALF);
            if (second) {
                if (i > begin)
                    end_row_tile(job, &r, !now, tile + !now, i - BLOCK, lines, scratch, what, rows);
                begin_forward_tile(job, &r, !now, smaller(i + BLOCK, last), tile + !now, what);
            }
            r.tile = now;
            if (what == SOFTMAX)
                pass_scaled(&r, x, next, second, job);
            else
                pass_subtracted(&r, x, next, second, job);
        }
    }
    leave_row_tile(&r, now, classes, stride, out_stride, leaving, 0);
    add_last_half(&r, !now, classes, what == LOG_SOFTMAX);
    end_row_tile(job, &r, !now, tile + !now, last, lines, scratch, what, rows);
    leave_row_tile(&r, !now, classes, stride, out_stride, leaving, 0);
    close_line(&r.line); /* of whichever tile left last: those after it may have been irregular */
}

static __attribute__((noinline)) void softmax_row_tiles(const softmax_job *job, int64_t begin, int64_t end,
                                                        storage *lines)
{
    forward_row_tiles(job, begin, end, lines, SOFTMAX, softmax_rows);
}
static __attribute__((noinline)) void log_softmax_row_tiles(const softmax_job *job, int64_t begin,
                                                            int64_t end, storage *lines)
{
    forward_row_tiles(job, begin, end, lines, LOG_SOFTMAX, log_softmax_rows);
}

typedef void row_tiles_function(const softmax_job *, int64_t begin, int64_t end, storage *lines);

/* Only this takes the stack for what is streamed. */
static __attribute__((noinline)) void stream_row_tiles(const softmax_job *job, int64_t begin, int64_t end,
                                                       row_tiles_function *tiles)
{
    _Alignas(LINE) storage lines[TILE_FLOATS];
    tiles(job, begin, end, lines);
    vstream_fence();
}

/* Those tiles of rows [begin, end) that stay rows; returns the row after them. Not in forward(), whose stack
 * they do not need. */
LANES int64_t leave_row_tiles(const softmax_job *job, int64_t begin, int64_t end, const int leaving,
                              row_tiles_function *tiles)
{
    const int streamed = streams(job) && job->output_stride == job->classes;
    const int64_t whole = begin + ((end - begin) & -BLOCK);
    if (!stay_rows(end - begin, job->classes, leaving, streamed, job->fetch))
        return begin;
    if (streamed)
        stream_row_tiles(job, begin, whole, tiles);
    else
        tiles(job, begin, whole, NULL);
    return whole;
}

/* The tiles of rows [begin, end), and then the rest row by row. Outputs are written last, for they may
 * lie over inputs that an irregular tile reads again. */
LANES void forward(const softmax_job *job, int64_t begin, int64_t end, const enum forward what,
                   rows_function *rows, one_chunk_function *of_one_chunk)
{
    const int64_t classes = job->classes, most = tiles_of(classes), size = classes * BLOCK;
    const int64_t tiles_end = end_of_tiles(begin, end, classes);
    const int64_t stride = what == LOG_SUM_EXP ? 1 : job->output_stride;
    const int streamed = what != LOG_SUM_EXP && streams(job) && stride == classes;
    const int moved = maxima_are_moved(classes, what);
    _Alignas(LINE) float x[TILE_FLOATS], fresh[TILE_FLOATS];
    storage *const lines = fresh; /* free once the sums are known */
    _Alignas(LINE) float scratch[SHORT_SCRATCH];
    float *const e = what == SOFTMAX ? x : fresh; /* the others need the logits once more */
    forward_tile tile[MAX_TILES];
    open_line line = {.n = 0};
    line_stream leaving = {.n = 0}; /* of the tiles before */
    while (begin < tiles_end) {
        const int64_t first = begin;
        int64_t tiles = 0;
        int irregular = 0;
        if (streamed)
            prefetch_pages(output_row(job, begin), most * size, most * size);
        for (; tiles < most && begin < tiles_end; tiles++, begin += BLOCK) {
            const int64_t count = smaller(end - begin, BLOCK);
            tile[tiles].max = load_rows(input_row(job, begin), job->input_stride, count, classes,
                                        x + tiles * size);
            tile[tiles].n = exponents_of(tile[tiles].max);
        }
        for (int64_t k = 0; k < tiles + moved; k++) {
            if (k < tiles)
                exp_forward_tile(x + k * size, e + k * size, classes, tile + k,
                                 tile_ahead(input_row(job, first + k * BLOCK), job->input_stride, most),
                                 job->fetch.near, streamed && what == SOFTMAX ? &leaving : NULL, what);
            if (k > 0 && moved)
                move_maxima(x + (k - 1) * size, e + (k - 1) * size, classes, tile + k - 1);
        }
        finish_stream(&leaving);
        for (int64_t k = 0; k < tiles; k++) {
            sum_exponentials(e + k * size, classes, tile[k].others);
            irregular |= forward_is_irregular(tile + k);
        }
        const int64_t last = smaller(begin, end);
        if (__builtin_expect(irregular, 0)) {
            short_rows(job, first, last, scratch, rows);
            continue;
        }
        storage *const to = (storage *)job->output + first * stride;
        storage *const out = streamed ? lines : to;
        for (int64_t k = 0; k < tiles; k++)
            write_forward_tile(tile + k, x + k * size, e + k * size,
                               smaller(last - first - k * BLOCK, BLOCK), classes,
                               out + k * BLOCK * stride, stride, what);
        if (streamed)
            leaving = open_stream(lines, (last - first) * stride, to, &line);
        if (what != SOFTMAX) /* `lines` are where exponentials will be */
            finish_stream(&leaving);
    }
    finish_stream(&leaving);
    if (streamed)
        end_streams(&line);
    if (go_as_one_chunk_rows(end - begin, classes, NULL)) /* two of them fit SHORT_SCRATCH */
        of_one_chunk(job, begin, end, scratch);
    else if (begin < end)
        short_rows(job, begin, end, scratch, rows);
}

static __attribute__((noinline)) void softmax_tiles(const softmax_job *job, int64_t begin, int64_t end)
{
    forward(job, begin, end, SOFTMAX, softmax_rows, softmax_one_chunk);
}
static __attribute__((noinline)) void log_softmax_tiles(const softmax_job *job, int64_t begin,
                                                        int64_t end)
{
    forward(job, begin, end, LOG_SOFTMAX, log_softmax_rows, log_softmax_one_chunk);
}
static __attribute__((noinline)) void log_sum_exp_tiles(const softmax_job *job, int64_t begin,
                                                        int64_t end)
{
    forward(job, begin, end, LOG_SUM_EXP, log_sum_exp_rows, log_sum_exp_one_chunk);
}

LANES int rows_go_in_tiles(const softmax_job *job, int64_t rows, const int leaving)
{
    return !job->format && (go_in_tiles(job->classes, job->tile_classes) ||
                            go_in_row_tiles(rows, job->classes, job->row_tile_classes, leaving));
}

void KERNEL(softmax)(const softmax_job *job, int64_t begin, int64_t end)
{
    if (job->classes == 1 || !rows_go_in_tiles(job, end - begin, SCALED)) /* 1: it is 1 */
        long_rows(job, begin, end, softmax_rows, softmax_one_chunk);
    else
        softmax_tiles(job, leave_row_tiles(job, begin, end, SCALED, softmax_row_tiles), end);
}

void KERNEL(log_softmax)(const softmax_job *job, int64_t begin, int64_t end)
{
    if (!rows_go_in_tiles(job, end - begin, SUBTRACTED))
        long_rows(job, begin, end, log_softmax_rows, log_softmax_one_chunk);
    else
        log_softmax_tiles(job, leave_row_tiles(job, begin, end, SUBTRACTED, log_softmax_row_tiles), end);
}

void KERNEL(log_sum_exp)(const softmax_job *job, int64_t begin, int64_t end)
{
    if (job->format || !go_in_tiles(job->classes, job->tile_classes))
        long_rows(job, begin, end, log_sum_exp_rows, log_sum_exp_one_chunk);
    else
        log_sum_exp_tiles(job, begin, end);
}

/* ---- backward --------------------------------------------------------------------------------- */

/* *sum += sum a_c b_c, or sum a_c where b is NULL: the four blocks of a group are added in f32. What was
 * added before is whole groups. */
LANES void add_products(vd *sum, const storage *a, const storage *b, int64_t n)
{
    vd total = *sum;
    for (int64_t i = 0; i < n; i += GROUP) {
        vf t[GROUP_BLOCKS];
        FOR_BLOCKS(k, GROUP_BLOCKS)
        {
            t[k] = vload_tail(a + i + BLOCK * k, n - i - BLOCK * k, 0.0f);
            if (b)
                t[k] = vmul(t[k], vload_tail(b + i + BLOCK * k, n - i - BLOCK * k, 0.0f));
        }
        total = vd_add(total, fold_blocks(t));
    }
    *sum = total;
}

void KERNEL(add_products)(vd *sum, const storage *a, const storage *b, int64_t n) { add_products(sum, a, b, n); }

LANES void softmax_gradient_of_block(const storage *y, const storage *g, vf mean, int64_t left, storage *out,
                                     open_line *line)
{
    const vf gj = vload_tail(g, left, 0.0f);
    const vf yj = vload_tail(y, left, 0.0f);
    leave_block(line, out, left, vcanonical(vmul(yj, vsub(gj, mean))), line != NULL);
}

/* out_c = y_c (g_c - mean), where mean = sum_k g_k y_k; out may be y or g. Streamed
 * by way of `line`, unless that is NULL. */
LANES void softmax_gradient_to(const storage *y, const storage *g, float mean, int64_t n, storage *out,
                               open_line *line)
{
    const vf m = vset1(mean);
    const int64_t unaligned = line ? before_line(out, n) : 0;
    if (unaligned > 0)
        softmax_gradient_of_block(y, g, m, unaligned, out, line);
    for (int64_t j = unaligned; j < n; j += BLOCK)
        softmax_gradient_of_block(y + j, g + j, m, n - j, out + j, line);
}

LANES void log_softmax_gradient_of_group(const storage *y, const storage *g, vf sum, exp_scale scale,
                                         int64_t left, storage *out, open_line *line)
{
    vf p[GROUP_BLOCKS];
    FOR_BLOCKS(k, GROUP_BLOCKS)
    p[k] = vmin(vset1(MOST_LOG_PROBABILITY), vload_tail(y + BLOCK * k, left - BLOCK * k, 0.0f));
    vexp_scaled(p, p, GROUP_BLOCKS, scale);
    FOR_BLOCKS(k, GROUP_BLOCKS)
    {
        const vf gj = vload_tail(g + BLOCK * k, left - BLOCK * k, 0.0f);
        leave_block(line, out + BLOCK * k, left - BLOCK * k, vcanonical(vfnma(p[k], sum, gj)), line != NULL);
    }
}

/* out_c = g_c - exp(y_c) sum, where sum = sum_k g_k; out may be y or g. `line` as above. */
LANES void log_softmax_gradient_to(const storage *y, const storage *g, float sum, int64_t n, storage *out,
                                   open_line *line)
{
    const vf s = vset1(sum);
    const exp_scale scale = exp_scale_of(0.0f);
    const int64_t unaligned = line ? before_line(out, n) : 0;
    if (unaligned > 0)
        log_softmax_gradient_of_group(y, g, s, scale, unaligned, out, line);
    for (int64_t j = unaligned; j < n; j += GROUP)
        log_softmax_gradient_of_group(y + j, g + j, s, scale, n - j, out + j, line);
}

void KERNEL(softmax_gradient)(const storage *y, const storage *g, float mean, int64_t n, storage *out)
{
    softmax_gradient_to(y, g, mean, n, out, NULL);
}

void KERNEL(log_softmax_gradient)(const storage *y, const storage *g, float sum, int64_t n,
                                  storage *out)
{
    log_softmax_gradient_to(y, g, sum, n, out, NULL);
}

LANES const storage *row_of(const void *x, int64_t stride, int64_t i)
{
    return (const storage *)x + i * stride;
}

static __attribute__((noinline)) int64_t softmax_backward_tiles(const softmax_backward_job *job,
                                                                int64_t begin, int64_t end)
{
    return backward_tiles(job, begin, end, OF_SOFTMAX);
}
static __attribute__((noinline)) int64_t log_softmax_backward_tiles(const softmax_backward_job *job,
                                                                    int64_t begin, int64_t end)
{
    return backward_tiles(job, begin, end, OF_LOG_SOFTMAX);
}

/* What a row begins with, up to a line, takes as long as a whole block, or, with exponentials, a group. */
LANES int backward_streams(const softmax_backward_job *job, const enum backward of)
{
    return STREAMS && job->beyond_cache && job->grad_input != job->output && job->grad_input != job->grad_output &&
           job->classes >= (of == OF_SOFTMAX ? GROUP : 8 * GROUP);
}

LANES void backward_rows(const softmax_backward_job *job, int64_t begin, int64_t end, const enum backward of,
                         open_line *line)
{
    const int64_t classes = job->classes;
    for (int64_t i = begin; i < end; i++) {
        const storage *y = row_of(job->output, job->output_stride, i);
        const storage *g = row_of(job->grad_output, job->grad_output_stride, i);
        storage *out = (storage *)job->grad_input + i * job->grad_input_stride;
        vd sum = vd_zero();
        add_products(&sum, g, of == OF_SOFTMAX ? y : NULL, classes);
        const float total = (float)vd_across(sum);
        if (of == OF_SOFTMAX && line)
            softmax_gradient_to(y, g, total, classes, out, line);
        else if (of == OF_SOFTMAX)
            KERNEL(softmax_gradient)(y, g, total, classes, out);
        else if (line)
            log_softmax_gradient_to(y, g, total, classes, out, line);
        else
            KERNEL(log_softmax_gradient)(y, g, total, classes, out);
    }
}

/* Out of line: the others should not take their registers. */
LANES_LARGE void backward_rows_streamed(const softmax_backward_job *job, int64_t begin, int64_t end,
                                        const enum backward of)
{
    open_line line = {.n = 0};
    backward_rows(job, begin, end, of, &line);
    end_streams(&line);
}
static __attribute__((noinline)) void softmax_backward_streamed(const softmax_backward_job *job, int64_t begin,
                                                                int64_t end)
{
    backward_rows_streamed(job, begin, end, OF_SOFTMAX);
}
static __attribute__((noinline)) void log_softmax_backward_streamed(const softmax_backward_job *job,
                                                                    int64_t begin, int64_t end)
{
    backward_rows_streamed(job, begin, end, OF_LOG_SOFTMAX);
}

void KERNEL(softmax_backward)(const softmax_backward_job *job, int64_t begin, int64_t end)
{
    begin = softmax_backward_tiles(job, begin, end);
    if (backward_streams(job, OF_SOFTMAX))
        softmax_backward_streamed(job, begin, end);
    else
        backward_rows(job, begin, end, OF_SOFTMAX, NULL);
}

void KERNEL(log_softmax_backward)(const softmax_backward_job *job, int64_t begin, int64_t end)
{
    begin = log_softmax_backward_tiles(job, begin, end);
    if (backward_streams(job, OF_LOG_SOFTMAX))
        log_softmax_backward_streamed(job, begin, end);
    else
        backward_rows(job, begin, end, OF_LOG_SOFTMAX, NULL);
}

/* ---- long rows, chunk by chunk ----------------------------------------------------------------- */

reference KERNEL(chunk_reference)(const storage *x, int64_t n) { return reference_of(max_of(x, n)); }

chunk_sum KERNEL(chunk_sum)(const storage *x, int64_t n, reference ref, int64_t left_out, float *e)
{
    return sum_alone(x, n, ref, left_out, e);
}

void KERNEL(chunk_leaves)(const departure *d, int leaving) { leave_now(d, leaving, 0); }

/* ---- long rows shared between threads --------------------------------------------------------- */

LANES const void *input_chunk(const softmax_job *job, const shared_chunk *c)
{
    return input_address(job->format, input_start(job, c->row), c->at);
}

LANES void *output_chunk(const softmax_job *job, const shared_chunk *c)
{
    return output_address(job->format, output_start(job, c->row), c->at);
}

void KERNEL(softmax_states)(const void *arg, shared_rows *s, int64_t begin, int64_t end)
{
    const softmax_job *job = arg;
    for (int64_t i = begin; i < end; i++) {
        const shared_chunk c = chunk_of(s, i, job->classes);
        sum_shared(job->format, input_chunk(job, &c), c.n, LEAVE_NOTHING, output_chunk(job, &c),
                   c.state);
    }
}

void KERNEL(softmax_combine)(const void *arg, shared_rows *s)
{
    (void)arg;
    for (int64_t r = 0; r < s->end - s->begin; r++)
        s->row[r].factor = 1.0 / combine_row(s, r, 0).others;
}

void KERNEL(softmax_outputs)(const void *arg, shared_rows *s, int64_t begin, int64_t end)
{
    const softmax_job *job = arg;
    for (int64_t i = begin; i < end; i++) {
        const shared_chunk c = chunk_of(s, i, job->classes);
        void *out = output_chunk(job, &c);
        if (c.shared->is_special)
            fill_elements(job->format, out, c.n, LANE_NAN);
        else
            scale_shared(job->format, &c, input_chunk(job, &c), LEAVE_NOTHING, out);
    }
}

void KERNEL(log_softmax_states)(const void *arg, shared_rows *s, int64_t begin, int64_t end)
{
    const softmax_job *job = arg;
    for (int64_t i = begin; i < end; i++) {
        const shared_chunk c = chunk_of(s, i, job->classes);
        sum_shared(job->format, input_chunk(job, &c), c.n, LEAVE_MAXIMUM, NULL, c.state);
    }
}

void KERNEL(log_softmax_combine)(const void *arg, shared_rows *s)
{
    (void)arg;
    for (int64_t r = 0; r < s->end - s->begin; r++)
        s->row[r].value = log_of_sum_over_max(combine_row(s, r, 1));
}

void KERNEL(log_softmax_outputs)(const void *arg, shared_rows *s, int64_t begin, int64_t end)
{
    const softmax_job *job = arg;
    float wide[CHUNK];
    for (int64_t i = begin; i < end; i++) {
        const shared_chunk c = chunk_of(s, i, job->classes);
        void *out = output_chunk(job, &c);
        const departure d = {.x = read_elements(job->format, input_chunk(job, &c), c.n, wide),
                             .out = place_of_elements(job->format, out, wide),
                             .n = c.n,
                             .max = c.shared->whole.max,
                             .rest = c.shared->value};
        if (c.shared->is_special) {
            fill_elements(job->format, out, c.n, LANE_NAN);
        } else {
            leave_now(&d, SUBTRACTED, 0);
            write_elements(job->format, d.out, c.n, out);
        }
    }
}

void KERNEL(log_sum_exp_states)(const void *arg, shared_rows *s, int64_t begin, int64_t end)
{
    KERNEL(log_softmax_states)(arg, s, begin, end);
}

void KERNEL(log_sum_exp_combine)(const void *arg, shared_rows *s)
{
    const softmax_job *job = arg;
    for (int64_t r = 0; r < s->end - s->begin; r++) {
        const int64_t i = s->begin + r;
        const row_sum row = combine_row(s, r, 1);
        ((float *)job->output)[i] =
            log_sum_exp_of(row, job->format, input_start(job, i), job->classes);
    }
}

/* ---- classes a plane apart -------------------------------------------------------------------- */

/* Rows without a softmax, after the others of their tile are written. */
LANES void fill_special_rows(const tile_sum *s, output_planes out, int64_t classes)
{
    int special[BLOCK];
    if (__builtin_expect(!has_special_rows(s), 1))
        return;
    special_rows(s, special);
    fill_rows(out, special, classes, LANE_NAN);
}

LANES input_planes input_of(const softmax_job *job, neighbours r)
{
    return input_at(job->format, job->input, job->input_stride, job->input_class_stride, r,
                    job->fetch.near);
}

void KERNEL(softmax_planes)(const softmax_job *job, int64_t begin, int64_t end)
{
    const int64_t classes = job->classes;
    pack p;
    pack_factors f;
    FOR_NEIGHBOURS(r, begin, end, job->inner, rows_of_pack(classes, 1, job->beyond_cache))
    {
        const output_planes out =
            output_at(job->format, job->output, job->output_stride, job->output_class_stride, r, streams(job));
        start_pack(&p, input_of(job, r), classes, LEAVE_NOTHING, 0);
        sum_pack(&p);
        for (int t = 0; t < p.tiles; t++)
            vd_store(f.factor[t], vd_over(vd_set1(1.0), others_of(&p.sum[t])));
        if (classes == 1) /* e (1 / e) could be the number below 1 */
            fill_elements(job->format, out.x, r.count, 1.0f);
        else
            write_pack(&p, &f, 0, out);
        for (int t = 0; t < p.tiles; t++)
            fill_special_rows(&p.sum[t], output_tile(out, t), classes);
    }
    if (streams(job))
        vstream_fence();
}

LANES vf logs_of_sums_over_maxima(const tile_sum *s)
{
    return vlog1p(vd_narrow(vd_over(others_of(s), left_out_of(s))));
}

/* Classes [from, from + n) of a pack of 16 bits, by way of `tile`, where its logits are. */
static __attribute__((noinline)) void write_narrow_logs(const pack *p, float *tile, int64_t from,
                                                        int64_t n, const vf *rest, output_planes out)
{
    for (int t = 0; t < p->tiles; t++)
        put_out(tile + t * n * BLOCK, less_by(p->sum[t].ref.max, rest[t]), n);
    narrow_pack(tile, n, out, from, n);
}

/* The logits are in the scratch where they fit. */
LANES void write_logs(pack *p, const vf *rest, output_planes out)
{
    const int64_t classes = p->classes;
    if (out.format && p->fits) {
        write_narrow_logs(p, p->scratch, 0, classes, rest, out);
        return;
    }
    for (int64_t w = 0; out.format && w < classes; w += GROUP) {
        const int64_t some = smaller(classes - w, GROUP);
        read_pack(p->in, w, some, p->window);
        write_narrow_logs(p, p->window, w, some, rest, out);
    }
    for (int t = 0; !out.format && t < p->tiles; t++) {
        const tile_output o = less_by(p->sum[t].ref.max, rest[t]);
        const input_planes x = input_tile(p->in, t);
        const output_planes to = output_tile(out, t);
        if (p->fits)
            write_planes(p->scratch + t * classes * BLOCK, classes, o, to.x, to.stride, to.rows, to.streamed);
        else
            for (int64_t c = 0; c < classes; c++)
                store_class(to, c, output_of(load_class(x, c), o));
    }
}

void KERNEL(log_softmax_planes)(const softmax_job *job, int64_t begin, int64_t end)
{
    const int64_t classes = job->classes;
    pack p;
    FOR_NEIGHBOURS(r, begin, end, job->inner, rows_of_pack(classes, 2, job->beyond_cache))
    {
        const output_planes out =
            output_at(job->format, job->output, job->output_stride, job->output_class_stride, r, streams(job));
        vf rest[PACK_TILES];
        start_pack(&p, input_of(job, r), classes, LEAVE_MAXIMUM, 1);
        sum_pack(&p);
        for (int t = 0; t < p.tiles; t++)
            rest[t] = logs_of_sums_over_maxima(&p.sum[t]);
        write_logs(&p, rest, out);
        for (int t = 0; t < p.tiles; t++)
            fill_special_rows(&p.sum[t], output_tile(out, t), classes);
    }
    if (streams(job))
        vstream_fence();
}

/* log_sum_exp of a special row. */
LANES float special_log_sum(input_planes in, int j, int64_t classes, float max)
{
    for (int64_t c = 0; c < classes; c++) {
        const float x = load_position(in, c, j);
        if (x != x)
            return LANE_NAN;
    }
    return max;
}

void KERNEL(log_sum_exp_planes)(const softmax_job *job, int64_t begin, int64_t end)
{
    const int64_t classes = job->classes;
    pack p;
    FOR_NEIGHBOURS(r, begin, end, job->inner, rows_of_pack(classes, 1, job->beyond_cache))
    {
        start_pack(&p, input_of(job, r), classes, LEAVE_MAXIMUM, 0);
        sum_pack(&p);
        for (int t = 0; t < p.tiles; t++) {
            const tile_sum *s = &p.sum[t];
            const input_planes in = input_tile(p.in, t);
            int special[BLOCK];
            float lse[BLOCK];
            vstore_f32(lse, vadd(s->ref.max, logs_of_sums_over_maxima(s)));
            if (__builtin_expect(has_special_rows(s), 0)) {
                special_rows(s, special);
                for (int j = 0; j < BLOCK && j < in.rows; j++)
                    if (special[j])
                        lse[j] = special_log_sum(in, j, classes, reference_at(&s->ref, j).max);
            }
            vstore_tail((storage *)job->output + r.row + t * BLOCK, in.rows, vload_f32(lse));
        }
    }
}

/* Both tensors of sixteen rows or fewer. */
typedef struct backward_tile {
    operand y, g;
    output_planes out;
} backward_tile;

enum { BACKWARD_CLASSES = SCRATCH_CLASSES / 2 };

/* Copies them to the scratch, where they fit: see softmax_planes.h. */
LANES backward_tile read_backward_tile(const softmax_backward_job *job, neighbours r, float *scratch)
{
    const int64_t n = job->classes;
    float *y_kept = n <= BACKWARD_CLASSES ? scratch : NULL;
    float *g_kept = n <= BACKWARD_CLASSES ? scratch + n * BLOCK : NULL;
    const backward_tile b = {
        {input_at(NULL, job->output, job->output_stride, job->output_class_stride, r, 0), y_kept},
        {input_at(NULL, job->grad_output, job->grad_output_stride, job->grad_output_class_stride, r, 0),
         g_kept},
        output_at(NULL, job->grad_input, job->grad_input_stride, job->grad_input_class_stride, r, 0)};
    if (y_kept) {
        read_pack(b.y.planes, 0, n, y_kept);
        read_pack(b.g.planes, 0, n, g_kept);
    }
    return b;
}

void KERNEL(softmax_backward_planes)(const softmax_backward_job *job, int64_t begin, int64_t end)
{
    const int64_t classes = job->classes;
    float scratch[SCRATCH_CLASSES * BLOCK];
    FOR_NEIGHBOURS(r, begin, end, job->inner, BLOCK)
    {
        const backward_tile b = read_backward_tile(job, r, scratch);
        const vf mean = sums_of_products(&b.g, &b.y, classes);
        for (int64_t c = 0; c < classes; c++) {
            const vf y = class_of(b.y, c), g = class_of(b.g, c);
            store_class(b.out, c, vcanonical(vmul(y, vsub(g, mean))));
        }
    }
}

void KERNEL(log_softmax_backward_planes)(const softmax_backward_job *job, int64_t begin, int64_t end)
{
    const int64_t classes = job->classes;
    const exp_scale scale = exp_scale_of(0.0f);
    float scratch[SCRATCH_CLASSES * BLOCK];
    FOR_NEIGHBOURS(r, begin, end, job->inner, BLOCK)
    {
        const backward_tile b = read_backward_tile(job, r, scratch);
        const vf sum = sums_of_products(&b.g, NULL, classes);
        for (int64_t c = 0; c < classes; c += GROUP_BLOCKS) {
            const int some = classes - c < GROUP_BLOCKS ? (int)(classes - c) : GROUP_BLOCKS;
            vf p[GROUP_BLOCKS];
            FOR_BLOCKS(k, GROUP_BLOCKS)
            p[k] = vmin(vset1(MOST_LOG_PROBABILITY), k < some ? class_of(b.y, c + k) : vset1(0.0f));
            vexp_scaled(p, p, GROUP_BLOCKS, scale);
            FOR_BLOCKS(k, GROUP_BLOCKS)
            if (k < some)
                store_class(b.out, c + k, vcanonical(vfnma(p[k], sum, class_of(b.g, c + k))));
        }
    }
}
