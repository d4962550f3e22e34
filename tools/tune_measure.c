/* SPDX-License-Identifier: MIT */
#include "tune_measure.h"

#include "../bench/arrays.h"
#include "../bench/contest.h"
#include "../bench/measure.h"
#include "../bench/statistics.h"
#include "../dispatch/implementation.h"
#include "caches.h"
#include "progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WORTH 0.97    /* a candidate must take less than this share of the time */
#define HOPELESS 1.10 /* three pairs that all took longer are enough */
enum {
    PLACES = 2 * TUNE_PROBLEMS,
    FEWEST = 6,       /* pairs, for an interval of 95 % from signed ranks */
    FEWEST_FRESH = 8, /* of the best, measured again */
    MOST = 24         /* either time */
};

/* ---- Places ---------------------------------------------------------------------------------- */

/* A problem on one thread, or on all. */
typedef struct place {
    const tune_problem *problem;
    const ballast_parallel *parallel; /* NULL: one */
    case_data *data;
    case_results *results;
    ballast_status status;
    int64_t repeats;
    bool reads; /* what was written, afterwards */
} place;

typedef struct places {
    const tune_case *of;
    const tune_means *means;
    case_data data[TUNE_PROBLEMS];
    case_results results[TUNE_PROBLEMS];
    int count;
    place places[PLACES];
    int chosen_count;
    tuned_choice chosen[CHOICES]; /* so far; part of the default for those that follow */
} places;

static bool is_stopped(const places *p) { return p->means->stop(p->means->context); }

static void run_place(void *context)
{
    place *p = context;
    ballast_exec exec = BALLAST_EXEC;

    exec.parallel = p->parallel;
    p->status = p->data->p.operation->run(p->data, p->results, &exec);
}

static int threads_of(const place *p) { return p->parallel ? (int)p->parallel->threads : 1; }

/* A part of each output. */
static void read_part(void *arg, int64_t index)
{
    const place *p = arg;
    const int parts = threads_of(p);

    for (int k = 0; k < CASE_OUTPUTS; k++) {
        const case_array *a = &p->results->out[k];
        const int64_t bytes = a->data ? a->rows * a->columns * (int64_t)size_of(a->dtype) : 0;
        const int64_t begin = bytes / parts * index;
        const int64_t end = index + 1 < parts ? begin + bytes / parts : bytes;
        caches_touch((const char *)a->data + begin, end - begin);
    }
}

static void run_and_read(void *context)
{
    place *p = context;

    run_place(p);
    if (p->reads && p->parallel)
        p->parallel->run(p->parallel->context, threads_of(p), read_part, p);
    else if (p->reads)
        read_part(p, 0);
}

static contender contender_of(place *p) { return (contender){run_and_read, p, NULL}; }

/* Whoever called reads what was written, and outputs that went past the caches come back: the call
 * alone would look too good. With other choices they lie where they lay. */
static void read_outputs_where_it_counts(places *p, choice_kind which)
{
    for (int i = 0; i < p->count; i++)
        p->places[i].reads = which == CHOOSE_STREAM;
}

/* ---- What is in force ------------------------------------------------------------------------ */

typedef struct in_force {
    const places *p;
    const tuned_choice *tried;
} in_force;

static tuned_choice choice_at(const void *context, int index)
{
    const in_force *f = context;

    return index < f->p->chosen_count ? f->p->chosen[index] : *f->tried;
}

/* What was chosen before, and a candidate; NULL for its default. */
static void put_in_force(const places *p, const tuned_choice *tried)
{
    const in_force f = {p, tried};

    ballast__tuning_replace(p->chosen_count + (tried != NULL), choice_at, &f);
}

/* ---- What a candidate does ------------------------------------------------------------------- */

/* Lends threads, and notes into how many tasks each step of a call was cut. */
typedef struct recorder {
    const ballast_parallel *to;
    uint64_t hash;
} recorder;

static void run_recorded(void *context, int64_t tasks, void (*task)(void *arg, int64_t index),
                         void *arg)
{
    recorder *r = context;

    r->hash = (r->hash ^ (uint64_t)tasks) * UINT64_C(0x100000001b3);
    r->to->run(r->to->context, tasks, task, arg);
}

static uint64_t tasks_of(place *p)
{
    recorder r = {p->parallel, UINT64_C(0xcbf29ce484222325)};
    const ballast_parallel recorded = {&r, run_recorded, p->parallel ? p->parallel->threads : 1};

    if (!p->parallel)
        return 0;
    p->parallel = &recorded;
    run_place(p);
    p->parallel = r.to;
    return r.hash;
}

/* By the default implementation, which need not be the one that was chosen before: then a candidate may be
 * measured that does what the default does. */
static bool goes_in_tiles(const tuned_case *where, int index, int64_t rows, int64_t classes, bool streams)
{
    const kernel_table *k = ballast_implementation_default(NULL, 0)->f32;
    const tuning standard = {0, streams};
    const int64_t few_rows = where->operation == TUNE_CROSS_ENTROPY ? LEAST_SHORT_LOSSES : LEAST_ONE_CHUNK_ROWS;
    const int64_t by_default =
        where->operation == TUNE_LOG_SUM_EXP
            ? ballast__tile_classes(standard, rows, few_rows, k->log_sum_exp_tile_classes)
            : ballast__matrix_tile_classes(standard, rows, few_rows, classes,
                                           where->operation != TUNE_LOG_SOFTMAX, k);

    return classes <= (index ? ballast__candidate(CHOOSE_TILES, index)->value : by_default);
}

static bool keeps(int index, int64_t classes)
{
    return classes <= CHUNK * (index ? ballast__candidate(CHOOSE_KEPT, index)->value : MOST_KEPT_CHUNKS);
}

/* With what is in force; a number that is another where something else is done. */
static uint64_t effect_of(const places *all, place *p, const tuned_choice *c)
{
    const tuned_case *where = &all->of->where;
    const int64_t rows = p->problem->p.rows;
    const int64_t classes = problem_is_vector(&p->problem->p) ? 1 : p->problem->p.classes;
    const bool can = all->of->ways >> c->which & 1;
    const bool streams = ballast__tuning_of(where->operation, where->dtype, rows, classes).streams;

    switch (c->which) {
    case CHOOSE_ISA:
        return (uint64_t)c->candidate;
    case CHOOSE_STREAM:
        return can && streams;
    case CHOOSE_TILES:
        return can && goes_in_tiles(where, c->candidate, rows, classes, streams);
    case CHOOSE_KEPT:
        return can && keeps(c->candidate, classes);
    default:
        return tasks_of(p);
    }
}

/* ---- Trials ---------------------------------------------------------------------------------- */

typedef struct trial {
    tuned_choice choice;
    uint64_t effects[PLACES];
    bool differs[PLACES]; /* from the default: measured there */
    bool out;             /* visited no more */
    int count;
    double log_ratio[MOST]; /* mean over the places */
    double at[PLACES][MOST];
    shift estimate;
} trial;

typedef struct trials {
    int count;
    trial trials[TUNE_CANDIDATES];
} trials;

/* Where two do the same, the one whose number is nearer to the default's: on what was not measured
 * it changes less. Candidates are in ascending order. */
static bool is_nearer(const tuned_choice *a, const tuned_choice *b)
{
    const int64_t standard = a->which == CHOOSE_STREAM
                                 ? (int64_t)ballast__data_bytes(1)
                                 : ballast__candidate((int)a->which, 0)->value;
    const int64_t x = ballast__candidate((int)a->which, a->candidate)->value;
    const int64_t y = ballast__candidate((int)b->which, b->candidate)->value;

    return (x <= standard && x > y) || (x > standard && x < y);
}

static void add_trial(trials *t, const trial *it)
{
    for (int i = 0; i < t->count; i++)
        if (memcmp(t->trials[i].effects, it->effects, sizeof it->effects) == 0) {
            if (is_nearer(&it->choice, &t->trials[i].choice))
                t->trials[i] = *it;
            return;
        }
    t->trials[t->count++] = *it;
}

/* f64 has one implementation. Scalar takes up to sixty times as long as any other, and is not tried
 * where there is another. */
static bool may_run(const places *p, const tuned_choice *c)
{
    const int64_t isa = ballast__candidate((int)c->which, c->candidate)->value;
    const char *const standard =
        ballast_implementation_name(ballast_implementation_default(NULL, 0));

    if (c->which != CHOOSE_ISA)
        return true;
    return p->of->where.dtype != BALLAST_F64 && isa != BALLAST__SCALAR &&
           (ballast__isas() >> isa & 1) &&
           strcmp(ballast__isa_name((ballast__isa)isa), standard) != 0;
}

static void try_candidate(places *p, const uint64_t standard[PLACES], const tuned_choice *c,
                          trials *t)
{
    trial it = {.choice = *c};
    bool differs = false;

    put_in_force(p, c);
    for (int i = 0; i < p->count; i++) {
        it.effects[i] = effect_of(p, &p->places[i], c);
        it.differs[i] = it.effects[i] != standard[i];
        differs |= it.differs[i];
    }
    if (differs)
        add_trial(t, &it);
}

static void standard_effects(places *p, choice_kind which, uint64_t effects[PLACES])
{
    const tuned_choice standard = {p->of->where, which, 0};

    put_in_force(p, NULL);
    for (int i = 0; i < p->count; i++)
        effects[i] = effect_of(p, &p->places[i], &standard);
}

/* Those of a choice that do something else than the default, and than each other. */
static void find_trials(places *p, choice_kind which, trials *t)
{
    uint64_t standard[PLACES];

    t->count = 0;
    standard_effects(p, which, standard);
    for (int k = 1; ballast__candidate((int)which, k); k++) {
        const tuned_choice c = {p->of->where, which, k};
        if (may_run(p, &c) && !is_stopped(p))
            try_candidate(p, standard, &c, t);
    }
}

/* ---- Samples --------------------------------------------------------------------------------- */

static double time_of(const places *p, place *it, const tuned_choice *tried)
{
    const contender c = contender_of(it);
    double seconds, cycles;

    put_in_force(p, tried);
    measure_run(&c, it->repeats, &seconds, &cycles);
    return seconds;
}

/* A B B A */
static double pair_of(const places *p, place *it, const tuned_choice *tried)
{
    const double a = time_of(p, it, NULL), b = time_of(p, it, tried);
    const double b_again = time_of(p, it, tried), a_again = time_of(p, it, NULL);

    return 0.5 * log(b / a * b_again / a_again);
}

static void visit(places *p, trial *t)
{
    double sum = 0.0;
    int places_measured = 0;

    for (int i = 0; i < p->count; i++) {
        if (!t->differs[i])
            continue;
        t->at[i][t->count] = pair_of(p, &p->places[i], &t->choice);
        sum += t->at[i][t->count];
        places_measured++;
    }
    t->log_ratio[t->count++] = sum / places_measured;
}

static double least(const double *values, int count)
{
    double x = values[0];

    for (int i = 1; i < count; i++)
        x = fmin(x, values[i]);
    return x;
}

static bool is_better(const trial *t)
{
    return t->count >= FEWEST && t->estimate.high < log(WORTH);
}

static void judge(trial *t)
{
    if (t->count == 3)
        t->out = least(t->log_ratio, 3) > log(HOPELESS);
    if (t->count < FEWEST || t->count % 2 != 0)
        return;
    t->estimate = shift_of_pairs(t->log_ratio, t->count);
    t->out |= t->estimate.low > log(WORTH);
}

/* Not slower at any place, as far as can be told. */
static bool is_safe(const places *p, const trial *t)
{
    for (int i = 0; i < p->count; i++) {
        if (!t->differs[i])
            continue;
        const shift s = shift_of_pairs(t->at[i], t->count);
        if (s.low > 0.0 || s.value > log(1.02))
            return false;
    }
    return true;
}

/* ---- One choice ------------------------------------------------------------------------------ */

/* The one with the lowest estimate, of those that take longer nowhere if there are such; NULL: none
 * has an estimate. */
static trial *best_of(const places *p, trials *t)
{
    trial *best = NULL;
    bool best_is_safe = false;

    for (int i = 0; i < t->count; i++) {
        trial *it = &t->trials[i];
        if (it->count < FEWEST)
            continue;
        const bool safe = is_safe(p, it);
        const bool lower = best && it->estimate.value < best->estimate.value;
        if (!best || safe > best_is_safe || (safe == best_is_safe && lower)) {
            best = it;
            best_is_safe = safe;
        }
    }
    return best;
}

/* One round over those that are not out; false where all are, or one is good enough to be measured
 * again. */
static bool visit_all(places *p, trials *t)
{
    const trial *best;
    int left = 0;

    for (int i = 0; i < t->count && !is_stopped(p); i++) {
        trial *it = &t->trials[i];
        if (it->out || it->count == MOST)
            continue;
        visit(p, it);
        judge(it);
        left += !it->out && it->count < MOST;
    }
    best = best_of(p, t);
    return left > 0 && !(best && is_better(best) && best->count >= 2 * FEWEST);
}

static bool is_decided(const trials *t)
{
    for (int i = 0; i < t->count; i++)
        if (!t->trials[i].out && t->trials[i].count < FEWEST)
            return false;
    return true;
}

/* What was begun is brought to an end, unless all of the time is over. */
static void search(places *p, trials *t, double seconds)
{
    const double end = monotonic_seconds() + seconds;

    while (visit_all(p, t) && !is_stopped(p) &&
           monotonic_seconds() < (is_decided(t) ? end : p->means->end))
        continue;
}

/* Of few pairs the interval is infinite. */
static tune_trial told(const trial *t)
{
    const shift s = shift_of_pairs(t->log_ratio, t->count);

    return (tune_trial){t->choice.candidate, exp(s.value), exp(s.low), exp(s.high), t->count};
}

/* Of pairs that were not picked for what they say. */
static tune_verdict judge_fresh(const places *p, const trial *t, const noise *n)
{
    if (n->too_much)
        return TUNE_NOISY;
    if (is_better(t))
        return is_safe(p, t) ? TUNE_CHOSEN : TUNE_DEFAULT;
    return t->estimate.low > log(WORTH) ? TUNE_DEFAULT : TUNE_UNDECIDED;
}

/* As many pairs as the time allows, and eight at least. */
static void measure_again(places *p, const trial *best, double seconds, tune_result *out)
{
    const double end = monotonic_seconds() + seconds;
    const noise_mark begin = noise_begin();
    trial *fresh = malloc(sizeof *fresh);

    if (!fresh)
        abort();
    *fresh = *best;
    fresh->count = 0;
    while (fresh->count < MOST && (fresh->count < FEWEST_FRESH || monotonic_seconds() < end) &&
           !is_stopped(p))
        visit(p, fresh);
    out->verdict = TUNE_UNDECIDED;
    if (fresh->count >= FEWEST_FRESH) {
        fresh->estimate = shift_of_pairs(fresh->log_ratio, fresh->count);
        out->best = told(fresh);
        out->noise = noise_since(&begin);
        out->verdict = judge_fresh(p, fresh, &out->noise);
    }
    free(fresh);
}

/* Whether all are known not to gain 3 %. */
static bool all_are_out(const trials *t)
{
    for (int i = 0; i < t->count; i++)
        if (!t->trials[i].out)
            return false;
    return true;
}

static void decide(places *p, trials *t, double seconds, tune_result *out)
{
    const trial *best = best_of(p, t);

    for (int i = 0; i < t->count; i++)
        out->trials[out->trial_count++] = told(&t->trials[i]);
    out->best = best ? told(best) : out->trials[0];
    out->verdict = all_are_out(t) ? TUNE_DEFAULT : TUNE_UNDECIDED;
    if (!best || !is_better(best) || !is_decided(t))
        return;
    measure_again(p, best, seconds, out);
    if (out->verdict == TUNE_NOISY)
        measure_again(p, best, seconds, out);
}

static void measure_choice(places *p, choice_kind which, double seconds, tune_result *out)
{
    trials *t = calloc(1, sizeof *t);

    if (!t)
        abort();
    *out = (tune_result){.of = p->of, .which = which, .verdict = TUNE_SAME};
    read_outputs_where_it_counts(p, which);
    find_trials(p, which, t);
    if (is_stopped(p)) {
        out->verdict = TUNE_UNDECIDED;
    } else if (t->count > 0) {
        search(p, t, 0.6 * seconds);
        decide(p, t, 0.4 * seconds, out);
    }
    if (out->verdict == TUNE_CHOSEN)
        p->chosen[p->chosen_count++] = (tuned_choice){p->of->where, which, out->best.candidate};
    free(t);
}

/* ---- One case -------------------------------------------------------------------------------- */

static void close_problem(places *p, int i)
{
    case_results_free(&p->results[i]);
    case_free(&p->data[i]);
}

static void close_places(places *p, int problems)
{
    ballast__tuning_replace(0, NULL, NULL);
    for (int i = 0; i < problems; i++)
        close_problem(p, i);
    free(p);
}

static void add_place(places *p, int i, const ballast_parallel *parallel)
{
    place *it = &p->places[p->count++];

    *it = (place){.problem = &p->of->problems[i],
                  .parallel = parallel,
                  .data = &p->data[i],
                  .results = &p->results[i]};
    const contender c = contender_of(it);
    it->repeats = measure_repeats(&c);
}

/* False, with nothing left open of it, where a problem does not fit in memory, or this library
 * cannot run it. */
static bool open_problem(places *p, int i, char *message, size_t size)
{
    const tune_problem *it = &p->of->problems[i];

    if (!contest_can_be_measured(&it->p, message, size))
        return false;
    case_make(&it->p, &p->data[i]);
    case_results_make(&p->data[i], &p->results[i]);
    case_results_reset(&p->data[i], &p->results[i]);
    put_in_force(p, NULL);
    add_place(p, i, NULL);
    const ballast_status status = p->places[p->count - 1].status;
    if (status != BALLAST_OK) {
        snprintf(message, size, "cannot be run here: status %d", (int)status);
        close_problem(p, i);
        return false;
    }
    if (p->means->parallel->threads > 1)
        add_place(p, i, p->means->parallel);
    return true;
}

static places *open_places(const tune_case *c, const tune_means *means, char *message, size_t size)
{
    places *p = calloc(1, sizeof *p);

    if (!p)
        abort();
    p->of = c;
    p->means = means;
    for (int i = 0; i < c->problem_count; i++)
        if (!open_problem(p, i, message, size)) {
            close_places(p, i);
            return NULL;
        }
    return p;
}

bool tune_measure_case(const tune_case *c, const tune_means *means, double seconds,
                       tune_result results[CHOICES], char *message, size_t size)
{
    const double end = monotonic_seconds() + seconds;
    places *p = open_places(c, means, message, size);

    if (!p)
        return false;
    for (int which = 0; which < CHOICES; which++) {
        const double left = fmax(end - monotonic_seconds(), 0.0);
        measure_choice(p, (choice_kind)which, left / (CHOICES - which), &results[which]);
    }
    close_places(p, c->problem_count);
    return true;
}

bool tune_measure_candidate(const tune_case *c, const tune_means *means, double seconds,
                            const tuned_choice *chosen, tune_result *out, char *message,
                            size_t size)
{
    places *p = open_places(c, means, message, size);
    trials *t = calloc(1, sizeof *t);
    uint64_t standard[PLACES];

    if (!t)
        abort();
    if (!p) {
        free(t);
        return false;
    }
    *out = (tune_result){.of = c, .which = chosen->which, .verdict = TUNE_SAME};
    read_outputs_where_it_counts(p, chosen->which);
    standard_effects(p, chosen->which, standard);
    try_candidate(p, standard, chosen, t);
    if (t->count > 0)
        measure_again(p, &t->trials[0], seconds, out);
    free(t);
    close_places(p, c->problem_count);
    return true;
}
