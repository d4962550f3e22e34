/* SPDX-License-Identifier: MIT */
#include "contest.h"

#include "baselines/rooflines.h"
#include "losses.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum {
    CACHED_BYTES = 192 << 10, /* stay in L2, and a call's own cost is lost in them */
    LARGE_BYTES = 1 << 20,    /* may not stay in L2 */
    SCALAR_ELEMENTS = 1 << 12 /* plain C is slow: more would leave no time for the others */
};

#define TOLERANCE 1e-3      /* of a result */
#define TOLERANCE_TERMS 1e-5 /* of what was added up to it */

/* ---- Sizes ----------------------------------------------------------------------------------- */

static double element_bytes(const case_array *a)
{
    return a->data ? (double)a->rows * (double)a->columns * (double)size_of(a->dtype) : 0.0;
}

static double input_bytes(const case_data *c)
{
    double bytes = 0.0;

    for (int i = 0; i < CASE_INPUTS; i++)
        bytes += i == IN_COUNTS ? 0.0 : element_bytes(&c->in[i]);
    return bytes;
}

static double output_bytes(const case_results *r)
{
    double bytes = 0.0;

    for (int k = 0; k < CASE_OUTPUTS; k++)
        bytes += element_bytes(&r->out[k]);
    return bytes;
}

/* Every input is read once and every output written once. In place that is the same array. */
static double traffic(const case_data *c, const case_results *r)
{
    return input_bytes(c) + output_bytes(r);
}

static double elements_of(const problem *p)
{
    return (double)p->rows * (problem_is_vector(p) ? 1.0 : (double)p->classes);
}

/* Results are there twice while a baseline is checked. */
double contest_memory(const problem *p)
{
    const unsigned wanted = problem_outputs(p);
    double arrays = 1.0;

    if (problem_is_vector(p))
        arrays = p->operation->keys & KEY(KEY_WEIGHTS) && !p->weights ? 1.0 : 2.0;
    arrays += p->targets == TARGETS_U8 ? 1.0 / (double)size_of(p->dtype) : p->targets != TARGETS_LABELS;
    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (p->operation->outputs[k].shape == OUT_MATRIX && wanted >> k & 1)
            arrays += 2.0;
    return arrays * elements_of(p) * (double)size_of(p->dtype)
         + 16.0 * (double)p->rows;
}

/* Bytes that can be had without swapping; 0: unknown. */
static double memory_available(void)
{
    double kilobytes = 0.0;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "r");

    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lf", &kilobytes) == 1)
            break;
    if (file)
        fclose(file);
    return 1024.0 * kilobytes;
}

int contest_can_be_measured(const problem *p, char *message, size_t size)
{
    const double needed = contest_memory(p), available = memory_available();

    if (elements_of(p) < 1.0) {
        snprintf(message, size, "has no elements to measure");
        return 0;
    }
    if (available > 0.0 && needed > 0.9 * available) {
        snprintf(message, size, "needs %.3g GB, and %.3g GB of memory are free", 1e-9 * needed,
                 1e-9 * available);
        return 0;
    }
    return 1;
}

/* ---- Ballast --------------------------------------------------------------------------------- */

static void run_ours(void *context)
{
    entrant *e = context;
    contest *c = e->contest;
    ballast_exec exec = BALLAST_EXEC;

    exec.implementation = e->implementation;
    exec.parallel = c->parallel;
    e->status = c->data.p.operation->run(&c->data, &c->results, &exec);
}

/* The first rows alone, on this thread. */
static void run_view(void *context)
{
    entrant *e = context;
    ballast_exec exec = BALLAST_EXEC;

    exec.implementation = e->implementation;
    e->status = e->data.p.operation->run(&e->data, &e->results, &exec);
}

static entrant *enter(contest *c, const char *name, void (*run)(void *context))
{
    entrant *e = &c->entrants[c->count];

    if (c->count == MEASURE_CONTENDERS)
        abort();
    *e = (entrant){.name = name, .isa = "", .contest = c};
    e->elements = elements_of(&c->data.p);
    e->bytes = traffic(&c->data, &c->results);
    c->contenders[c->count++] = (contender){run, e, NULL};
    return e;
}

static entrant *enter_ours(contest *c, const char *name, void (*run)(void *context),
                           const ballast_implementation *implementation)
{
    entrant *e = enter(c, name, run);

    e->implementation = implementation;
    e->isa = ballast_implementation_name(implementation);
    return e;
}

/* Fewer rows of the same, for what needs no more. */
static void view_rows(entrant *e, int64_t rows)
{
    const contest *c = e->contest;

    case_rows(&c->data, 0, rows, &e->data);
    case_results_rows(&c->results, 0, rows, &e->results);
    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (c->data.p.operation->outputs[k].shape == OUT_NUMBER)
            e->results.out[k] = c->results.out[k];
    e->elements = elements_of(&e->data.p);
    e->bytes = traffic(&e->data, &e->results);
}

static int has_views(const contest *c)
{
    return !problem_is_vector(&c->data.p) && c->data.p.operation->keys & KEY(KEY_THREADS);
}

static void before_ours(void *context)
{
    const entrant *e = context;

    e->contest->put_in_force(0);
}

static void before_tuned(void *context)
{
    const entrant *e = context;

    e->contest->put_in_force(1);
}

/* For neither an implementation is named, for that is a choice, too. */
void contest_add_tuned(contest *c, void (*put_in_force)(int tuned))
{
    entrant *tuned = enter_ours(c, "ballast tuned", run_ours, c->entrants[0].implementation);

    c->entrants[0].implementation = tuned->implementation = NULL;
    c->put_in_force = put_in_force;
    c->contenders[0].before = before_ours;
    c->contenders[c->count - 1].before = before_tuned;
}

static void enter_scalar(contest *c, const ballast_implementation *scalar)
{
    const problem *p = &c->data.p;
    const int64_t rows = p->classes > 0 ? 1 + (SCALAR_ELEMENTS - 1) / p->classes : p->rows;

    if (has_views(c) && rows < p->rows)
        view_rows(enter_ours(c, "scalar", run_view, scalar), rows);
    else
        enter_ours(c, "scalar", run_ours, scalar);
}

/* The library lists the fastest last, and scalar first; f64 is the same in all of them. */
static void enter_implementations(contest *c, const ballast_implementation *only)
{
    int last = 0;

    while (ballast_implementation_at(last + 1))
        last++;
    if (only) {
        enter_ours(c, "ballast", run_ours, only);
        return;
    }
    for (int i = last; i >= 0; i--) {
        const ballast_implementation *it = ballast_implementation_at(i);

        if (!ballast_implementation_supported(it, NULL, 0))
            continue;
        if (c->count == 0)
            enter_ours(c, "ballast", run_ours, it);
        else if (c->data.p.dtype == BALLAST_F64)
            break;
        else if (i > 0)
            enter_ours(c, ballast_implementation_name(it), run_ours, it);
        else
            enter_scalar(c, it);
    }
}

/* The same kernel where memory costs next to nothing: what of its time is arithmetic. */
static void enter_cached(contest *c)
{
    const double bytes = traffic(&c->data, &c->results);
    const int64_t rows = (int64_t)(CACHED_BYTES * (double)c->data.p.rows / bytes);

    if (!has_views(c) || bytes <= LARGE_BYTES || rows < 1)
        return;
    entrant *e = enter_ours(c, "ballast in L2", run_view, c->entrants[0].implementation);
    e->is_limit = 1;
    view_rows(e, rows);
}

/* ---- In parts -------------------------------------------------------------------------------- */

static void in_parts(const contest *c, void (*task)(void *arg, int64_t index), void *arg)
{
    if (c->threads > 1)
        c->parallel->run(c->parallel->context, c->threads, task, arg);
    else
        task(arg, 0);
}

/* Where part `index` of n begins; a multiple of `step`, but for the end. */
static int64_t part_begin(int64_t n, int64_t step, int threads, int64_t index)
{
    return index == threads ? n : n / step * index / threads * step;
}

/* ---- Baselines ------------------------------------------------------------------------------- */

static int is_contiguous(const case_array *a) { return !a->data || a->stride == a->columns; }

/* Plain f32 cases: no stride, no weights but of reductions, nothing ignored. */
static int is_plain(const contest *c)
{
    const problem *p = &c->data.p;
    const int has_class_weights = (p->weights & WEIGHTS_CLASS) != 0;
    const int has_row_weights = (p->weights & WEIGHTS_ROW) && !problem_is_vector(p);

    if (p->dtype != BALLAST_F32 || p->rows < 1 || p->classes < 1 || has_class_weights
        || has_row_weights || p->pieces || p->ignored || p->background || p->grad_rows
        || p->denominator || p->labels != LABELS_I64 || c->results.out[ELEMENT_LOSS].data)
        return 0;
    if (p->operation->keys & KEY(KEY_REDUCTION) && p->reduction == BALLAST_NONE)
        return 0;
    if (p->operation->keys & KEY(KEY_TARGETS) && p->targets != TARGETS_U8)
        return 0;
    return is_contiguous(&c->data.in[IN_X]);
}

static int is_loss(const problem *p) { return (p->operation->keys & KEY(KEY_REDUCTION)) != 0; }

static double divisor(const problem *p)
{
    if (!is_loss(p) || p->reduction != BALLAST_MEAN)
        return 1.0;
    return p->operation->keys & KEY(KEY_TARGETS) ? elements_of(p) : (double)p->rows;
}

static slice slice_of(const contest *c, const case_results *r, int64_t begin, int64_t end)
{
    const problem *p = &c->data.p;
    const case_array *in = c->data.in, *out = &r->out[is_loss(p) ? GRAD : 0];
    const int is_vector = problem_is_vector(p), is_replaced = p->inplace && out->data;
    slice s = {.rows = end - begin, .classes = p->classes};

    if (is_vector) {
        s.rows = 1;
        s.classes = end - begin;
    }
    s.x = (const float *)(is_replaced ? out->data : in[IN_X].data) + begin * p->classes;
    if (in[IN_LABELS].data)
        s.labels = (const int64_t *)in[IN_LABELS].data + begin;
    if (in[IN_TARGETS].data)
        s.targets = (const uint8_t *)in[IN_TARGETS].data + begin * p->classes;
    if (in[IN_WEIGHT].data)
        s.weights = (const float *)in[IN_WEIGHT].data + begin;
    if (out->data && !is_vector)
        s.out = (float *)out->data + begin * out->columns;
    if (is_loss(p) && r->out[ROW_LOSS].data)
        s.row_loss = (float *)r->out[ROW_LOSS].data + begin;
    s.gamma = (float)p->gamma;
    s.alpha = (float)p->alpha;
    s.scale = (float)(p->grad_scale / divisor(p));
    return s;
}

static void run_slice(void *arg, int64_t index)
{
    entrant *e = arg;

    e->baseline->run(&e->slices[index]);
}

/* The reduced loss, or the reduction. */
static double total(const entrant *e)
{
    double sum = 0.0;

    for (int t = 0; t < e->contest->threads; t++)
        sum += e->slices[t].sum;
    return sum / divisor(&e->contest->data.p);
}

static void run_baseline(void *context)
{
    entrant *e = context;
    case_array *number = &e->contest->results.out[0];

    in_parts(e->contest, run_slice, e);
    if (number->data && number->dtype == BALLAST_F64)
        *(double *)number->data = total(e);
}

static void release(entrant *e)
{
    for (int t = 0; t < e->contest->threads && e->baseline && e->baseline->release; t++)
        if (e->slices[t].state)
            e->baseline->release(e->slices[t].state);
    for (int t = 0; t < CONTEST_THREADS; t++)
        e->slices[t].state = NULL;
}

static int prepare(entrant *e, const case_results *r)
{
    const contest *c = e->contest;

    for (int t = 0; t < c->threads; t++) {
        slice *s = &e->slices[t];
        *s = slice_of(c, r, part_begin(c->data.p.rows, 1, c->threads, t),
                      part_begin(c->data.p.rows, 1, c->threads, t + 1));
        if (e->baseline->prepare && !(s->state = e->baseline->prepare(s)))
            return 0;
    }
    return 1;
}

/* ---- Are they right? ------------------------------------------------------------------------- */

static double largest(const case_array *a)
{
    double most = 0.0;

    for (int64_t i = 0; i < a->rows; i++)
        for (int64_t j = 0; j < a->columns; j++)
            most = fmax(most, fabs(real_at(a, i, j)));
    return most;
}

static double sum_of_magnitudes(const case_data *c)
{
    double sum = 0.0;

    for (int64_t i = 0; problem_is_vector(&c->p) && i < c->p.rows; i++)
        sum += fabs(real_at(&c->in[IN_X], 0, i) * factor_at(&c->in[IN_WEIGHT], 0, i));
    return sum;
}

/* How large the numbers are that a result is the sum of: those of a row's logarithm, x - lse, are
 * as large as x, however near to 0 it is. */
static double terms_of(const case_data *c, const case_array *want)
{
    const int is_logarithm = strncmp(c->p.operation->name, "log_", 4) == 0;

    return fmax(is_logarithm ? largest(&c->in[IN_X]) : largest(want), sum_of_magnitudes(c));
}

static int same(const contest *c, const case_array *want, const case_array *got, char *message,
                size_t size)
{
    const double terms = terms_of(&c->data, want);

    for (int64_t i = 0; i < want->rows; i++)
        for (int64_t j = 0; j < want->columns; j++) {
            const double a = real_at(want, i, j), b = real_at(got, i, j);

            if (fabs(a - b) <= TOLERANCE * fabs(a) + TOLERANCE_TERMS * terms)
                continue;
            snprintf(message, size, "%s[%" PRId64 "][%" PRId64 "] is %.9g, should be %.9g",
                     want->name, i, j, b, a);
            return 0;
        }
    return 1;
}

/* Once, on arrays of its own, against the results of the first entrant. */
static int is_right(entrant *e, case_results *want, char *message, size_t size)
{
    contest *c = e->contest;
    case_results got;
    int right = 1;

    case_results_make(&c->data, &got);
    case_results_reset(&c->data, &got);
    if (!prepare(e, &got)) {
        snprintf(message, size, "cannot be prepared");
        right = 0;
    }
    if (right)
        in_parts(c, run_slice, e);
    for (int k = 0; k < CASE_OUTPUTS && right; k++) {
        if (!got.out[k].data)
            continue;
        if (c->data.p.operation->outputs[k].shape == OUT_NUMBER)
            *(double *)got.out[k].data = total(e);
        right = same(c, &want->out[k], &got.out[k], message, size);
    }
    release(e);
    case_results_free(&got);
    return right;
}

int contest_add(contest *c, const char *name, const baseline *b)
{
    char message[CONTEST_TEXT / 2] = "";

    if (!is_plain(c) || strcmp(b->operation, c->data.p.operation->name) != 0
        || c->data.p.rows < c->threads)
        return 0;
    entrant *e = enter(c, name, run_baseline);
    e->baseline = b;
    case_results_reset(&c->data, &c->results);
    run_ours(&c->entrants[0]);
    if (is_right(e, &c->results, message, sizeof message) && prepare(e, &c->results))
        return 1;
    release(e);
    c->count--;
    snprintf(c->notes[c->note_count++], CONTEST_TEXT, "%s is left out: %s", name, message);
    return 0;
}

static void add_of(contest *c, const char *name, const baseline *list)
{
    for (; list->operation; list++)
        contest_add(c, name, list);
}

static void add_baselines(contest *c)
{
    if (!native_code_runs()) {
        snprintf(c->notes[c->note_count++], CONTEST_TEXT,
                 "baselines are left out: they were built for another CPU");
        return;
    }
    add_of(c, "fast-math", fast_math_baselines);
#if HAVE_SLEEF
    add_of(c, "sleef", sleef_baselines);
#endif
#if HAVE_ONEDNN
    add_of(c, "onednn", onednn_baselines);
#endif
}

/* ---- Limits ---------------------------------------------------------------------------------- */

/* The bytes of an array from its first multiple of 64 on. */
typedef struct span {
    char *data;
    int64_t bytes;
} span;

static span span_of(const case_array *a)
{
    const size_t off = a->data ? (size_t)(uintptr_t)a->data % 64 : 0, skip = off ? 64 - off : 0;
    const int64_t bytes = (int64_t)element_bytes(a) - (int64_t)skip;

    return (span){(char *)a->data + skip, bytes > 0 ? bytes / 64 * 64 : 0};
}

/* The output matrix; NULL where there is none. */
static const case_array *matrix_out(const contest *c)
{
    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (c->results.out[k].data && c->data.p.operation->outputs[k].shape == OUT_MATRIX)
            return &c->results.out[k];
    return NULL;
}

static span part_of(span s, int threads, int64_t index)
{
    const int64_t begin = part_begin(s.bytes, 64, threads, index);

    return (span){s.data + begin, part_begin(s.bytes, 64, threads, index + 1) - begin};
}

static void read_inputs(const contest *c, int64_t index)
{
    for (int i = 0; i < CASE_INPUTS; i++) {
        const span part = part_of(span_of(&c->data.in[i]), c->threads, index);

        if (c->data.in[i].data)
            roofline_read(part.data, (size_t)part.bytes);
    }
}

static void run_limit_part(void *arg, int64_t index)
{
    const entrant *e = arg;
    const contest *c = e->contest;
    const case_array *out = matrix_out(c);

    if (e->limit == READ) {
        read_inputs(c, index);
        return;
    }
    const span to = part_of(span_of(out), c->threads, index);
    const span from = part_of(span_of(&c->data.in[IN_X]), c->threads, index);

    if (e->limit == COPY)
        roofline_copy(to.data, from.data, (size_t)to.bytes);
    else if (e->limit == STREAM_COPY)
        roofline_stream_copy(to.data, from.data, (size_t)to.bytes);
    else
        roofline_scale(to.data, (size_t)to.bytes);
}

static void run_limit(void *context)
{
    entrant *e = context;

    in_parts(e->contest, run_limit_part, e);
}

static void enter_limit(contest *c, const char *name, int limit, double bytes)
{
    entrant *e = enter(c, name, run_limit);

    e->limit = limit;
    e->is_limit = 1;
    e->bytes = bytes;
}

/* On the arrays of the case: X is copied to the output matrix, which is scaled by 1 where it
 * replaces X; without such an output the inputs are read. */
static void enter_limits(contest *c)
{
    const case_array *out = matrix_out(c);

    if (!is_contiguous(&c->data.in[IN_X]) || !native_code_runs())
        return;
    if (!out) {
        enter_limit(c, "read", READ, input_bytes(&c->data));
        return;
    }
    const double both = 2.0 * (double)span_of(out).bytes;
    if (c->data.p.inplace) {
        enter_limit(c, "scale", SCALE, both);
        return;
    }
    enter_limit(c, "copy", COPY, both);
    if (roofline_stream_copy(NULL, NULL, 0))
        enter_limit(c, "stream copy", STREAM_COPY, both);
}

/* ---- Contests -------------------------------------------------------------------------------- */

int contest_open(const problem *p, const contest_options *o, contest *c, char *message,
                 size_t size)
{
    memset(c, 0, sizeof *c);
    if (!contest_can_be_measured(p, message, size))
        return 0;
    c->parallel = o->parallel && o->parallel->threads > 1 ? o->parallel : NULL;
    c->threads = c->parallel ? (int)c->parallel->threads : 1;
    if (c->threads > CONTEST_THREADS)
        c->threads = CONTEST_THREADS;
    case_make(p, &c->data);
    case_results_make(&c->data, &c->results);
    case_results_reset(&c->data, &c->results);
    enter_implementations(c, o->implementation);
    run_ours(&c->entrants[0]);
    if (c->entrants[0].status != BALLAST_OK) {
        snprintf(message, size, "fails: %s", ballast_status_name(c->entrants[0].status));
        contest_close(c);
        return 0;
    }
    if (o->baselines)
        add_baselines(c);
    if (o->limits) {
        enter_cached(c);
        enter_limits(c);
    }
    case_results_reset(&c->data, &c->results);
    return 1;
}

void contest_close(contest *c)
{
    for (int i = 0; i < c->count; i++)
        release(&c->entrants[i]);
    case_results_free(&c->results);
    case_free(&c->data);
}
