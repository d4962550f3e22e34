/* SPDX-License-Identifier: MIT */
/* ballast bench: Ballast, what others would write or call, and the machine's limits, measured in
 * turn in one process. */
#include "bench.h"

#include "../bench/contest.h"
#include "../dispatch/profile.h"
#include "bench_cases.h"
#include "bench_machine.h"
#include "bench_output.h"
#include "bound_pool.h"
#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    OPT_PROBLEM = 1, OPT_SUITE, OPT_FILTER, OPT_ISA, OPT_BASELINES, OPT_PAGES, OPT_SECONDS,
    OPT_REPETITIONS, OPT_LIST, OPT_JSON, OPT_HTML, OPT_PROFILE, OPT_WAITING
};

static const option_spec specs[] = {
    {"problem", "PROBLEM", BENCH_PROBLEM_HELP, OPT_PROBLEM},
    {"suite", "NAME", BENCH_SUITE_HELP, OPT_SUITE},
    {"filter", "TEXT", BENCH_FILTER_HELP, OPT_FILTER},
    {"isa", "NAME", "this implementation alone (default: the fastest, and the others beside it)",
     OPT_ISA},
    {"baselines", "WHICH", "on or off: what others would write or call (default on)",
     OPT_BASELINES},
    {"profile", "FILE",
     "this profile and the defaults alone, in turn: what it gains; problems are left out of which it "
     "changes nothing",
     OPT_PROFILE},
    {"waiting", "HOW",
     "sleep or spin: what threads do between calls (default sleep); to wake one takes 5 to 35 us",
     OPT_WAITING},
    {"pages", "SIZE", "4k or huge: what arrays stand on (default 4k)", OPT_PAGES},
    {"seconds", "S", "time for each case (default 1)", OPT_SECONDS},
    {"repetitions", "N", "measure all of it N times, one after the other: for ballast compare "
                         "(default 1)", OPT_REPETITIONS},
    {"list", NULL, "print the cases that would be measured", OPT_LIST},
    {"json", "[FILE]", "Google Benchmark's JSON, to FILE or instead of the table", OPT_JSON},
    {"html", "FILE", "a page with plots, that needs nothing else", OPT_HTML},
    {NULL, NULL, NULL, 0},
};

static const char *const examples[] = {
    "ballast bench",
    "ballast bench --suite memory --filter cross_entropy --threads 2",
    "ballast bench --suite memory --profile product.profile",
    "ballast bench --problem sigmoid_focal:f32:rows=50,classes=1000,gamma=0.5 --json focal.json",
    NULL,
};

static const command_spec spec = {
    .name = "bench",
    .operands = "",
    .about = "Measures contenders in turn, A B C, C B A, in one process: Ballast's "
             "implementations; loops compiled with -ffast-math for the building machine; SLEEF; "
             "oneDNN; and limits: a copy of the same bytes, and Ballast on rows that stay in L2. "
             "A baseline whose result differs from Ballast's by more than 0.1 % is left out. "
             "Cycles are per element, the clock is measured beside each run: the median, and the "
             "5th percentile for machines that are shared. GB/s counts every input and output "
             "once. Roof is the share of the bandwidth that the fastest of the copies attained, above 100 % "
             "where no copy is as fast: for few bytes, copies wake threads that Ballast does not. "
             "Time is over Ballast's, pair by pair, with the interval in which its median lies "
             "with 95 %. One thread, unless --threads or the problem says otherwise; two and more are "
             "bound to a core each.",
    .options = specs,
    .examples = examples,
    .threads = BENCH_THREADS_HELP,
    .operand_count = 0,
};

typedef struct settings {
    bench_selection selection;
    const char *json_path, *html_path;
    const ballast_implementation *implementation;
    double seconds;
    int64_t repetitions;
    bool baselines, spin, huge, list, json, quiet, tuned;
} settings;

/* ---- A profile ------------------------------------------------------------------------------- */

static profile tuned_profile;

static bool read_profile(const char *path)
{
    char reason[PROFILE_REASON];

    if (ballast__profile_read(path, &tuned_profile, reason))
        return true;
    complain("--profile: %s: %s", path, reason);
    return false;
}

static tuned_choice choice_at(const void *context, int index)
{
    const profile *p = context;

    return p->lines[index].chosen;
}

static void put_in_force(int tuned)
{
    ballast__tuning_replace(tuned ? tuned_profile.count : 0, choice_at, &tuned_profile);
}

/* Its own, or that of all reductions; TUNED_OPERATIONS: not known here. */
static tuned_operation operation_of(const problem *p)
{
    int i = 0;

    while (i < TUNED_OPERATIONS && strcmp(ballast__tuned_operation_name(i), p->operation->name) != 0)
        i++;
    return i == TUNED_OPERATIONS && problem_is_vector(p) ? TUNE_WEIGHTED_SUM : (tuned_operation)i;
}

static tuning tuning_in_force(const problem *p, int tuned)
{
    put_in_force(tuned);
    return ballast__tuning_of(operation_of(p), p->dtype, p->rows,
                              problem_is_vector(p) ? 1 : p->classes);
}

/* Whether calls do anything else with the profile. */
static bool profile_matters(const problem *p)
{
    const unsigned for_threads = 1u << CHOOSE_TASK | 1u << CHOOSE_TASKS | 1u << CHOOSE_SHARE;

    if (operation_of(p) == TUNED_OPERATIONS)
        return true;
    const tuning tuned = tuning_in_force(p, 1), standard = tuning_in_force(p, 0);
    bool differs = tuned.streams != standard.streams;
    for (int i = 0; i < CHOICES; i++)
        if (i != CHOOSE_STREAM && (p->threads > 1 || !(for_threads >> i & 1)))
            differs |= ballast__chosen(tuned, (choice_kind)i) !=
                       ballast__chosen(standard, (choice_kind)i);
    return differs;
}

/* ---- One case -------------------------------------------------------------------------------- */

/* The best bandwidth of the copies; 0 where none was measured. */
static double best_bandwidth(const contest *c, const measurement *m)
{
    double best = 0.0;

    for (int i = 0; i < c->count; i++)
        if (c->entrants[i].is_limit && !*c->entrants[i].isa)
            best = fmax(best, c->entrants[i].bytes / m[i].seconds);
    return best;
}

/* FMA-class operations of an element in the hot loops of the softmax family: 10 of the exponential,
 * and where it leaves scaled, a multiplication and a comparison. 0: not counted. */
static double flops_of(const problem *p)
{
    const char *name = p->operation->name;
    const bool is_cross_entropy = strcmp(name, "cross_entropy") == 0;
    const bool has_grad = (problem_outputs(p) & 1u << 2) != 0;

    if (strcmp(name, "softmax") == 0 || (is_cross_entropy && has_grad))
        return 12.0;
    if (is_cross_entropy || strcmp(name, "log_softmax") == 0 || strcmp(name, "log_sum_exp") == 0)
        return 10.0;
    return 0.0;
}

static bench_result result_of(const bench_case *c, const entrant *e, const measurement *m,
                              const char *pages, double bandwidth)
{
    return (bench_result){
        .suite = c->suite,
        .problem = c->text,
        .operation = c->p.operation->name,
        .dtype = problem_dtype_name(c->p.dtype),
        .contender = e->name,
        .isa = e->isa,
        .pages = pages,
        .threads = (int)c->p.threads,
        .rows = (double)c->p.rows,
        .classes = (double)c->p.classes,
        .elements = e->elements,
        .bytes = e->bytes,
        .ns_per_element = 1e9 * m->seconds / e->elements,
        .cycles_per_element = m->cycles / e->elements,
        .least_cycles_per_element = m->least_cycles / e->elements,
        .gigabytes_per_second = 1e-9 * e->bytes / m->seconds,
        .roofline = bandwidth > 0.0 ? e->bytes / m->seconds / bandwidth : 0.0,
        .flops_per_element = *e->isa && c->p.dtype != BALLAST_F64 ? flops_of(&c->p) : 0.0,
        .ratio = m->ratio,
        .ratio_low = m->ratio_low,
        .ratio_high = m->ratio_high,
        .is_roofline = e->is_limit,
    };
}

/* Per element, where the work is not as large as the first contender's. */
static void scale_ratio(bench_result *r, double elements)
{
    const double factor = elements / r->elements;

    r->ratio *= factor;
    r->ratio_low *= factor;
    r->ratio_high *= factor;
}

/* Returns how many results there are; 0 where a profile changes nothing; -1 where it cannot be measured,
 * with a line about it. */
static int measure_case(const settings *s, const bench_case *c, const pool *p,
                        bench_result *results)
{
    static contest it; /* large */
    static measurement m[MEASURE_CONTENDERS];
    char message[PROBLEM_TEXT];

    if (s->tuned && !profile_matters(&c->p))
        return 0;
    const contest_options o = {s->implementation, &p->parallel, s->baselines && !s->tuned,
                               !s->tuned};

    if (!contest_open(&c->p, &o, &it, message, sizeof message)) {
        bench_clear_progress(s->quiet);
        complain("'%s' %s", c->text, message);
        return -1;
    }
    if (it.note_count > 0)
        bench_clear_progress(s->quiet);
    for (int i = 0; i < it.note_count; i++)
        complain("'%s': %s", c->text, it.notes[i]);
    if (s->tuned)
        contest_add_tuned(&it, put_in_force);
    measure_in_turn(it.contenders, it.count, s->seconds, m);
    if (s->tuned)
        put_in_force(0);
    const double bandwidth = best_bandwidth(&it, m);
    for (int i = 0; i < it.count; i++) {
        results[i] = result_of(c, &it.entrants[i], &m[i], s->huge ? "huge" : "4k", bandwidth);
        scale_ratio(&results[i], it.entrants[0].elements);
    }
    const int count = it.count;
    contest_close(&it);
    return count;
}

static int measure_all(const settings *s, const bench_cases *all, bench_result *results)
{
    const bool print = !s->json || s->json_path;
    pool p;
    topology_cores cores;
    int count = 0, refused = 0, same = 0;

    pool_open(&p, 1);
    p.spins = s->spin;
    topology_cores_open(&cores);
    for (int turn = 0; turn < all->count * s->repetitions; turn++) {
        const int i = turn % all->count;
        const bench_case *c = &all->cases[i];
        bench_show_progress(s->quiet, all, i);
        if (pool_adapt(&p, c->p.threads)) /* started once for all that want as many */
            pool_bind(&p, &cores);
        const int got = measure_case(s, c, &p, results + count);
        bench_clear_progress(s->quiet);
        for (int k = 0; k < got; k++)
            results[count + k].repetition = turn / all->count;
        refused += got < 0;
        same += got == 0;
        if (print && got > 0 && count == 0)
            bench_print_heads(c->p.seed, s->huge ? "huge" : "4k");
        if (print && got > 0)
            bench_print(results + count, got);
        count += got > 0 ? got : 0;
    }
    topology_cores_close(&cores);
    pool_close(&p);
    if (same > 0 && !s->quiet)
        complain("left out %d of %d problems: the profile changes nothing of them", same,
                 all->count * (int)s->repetitions);
    return refused && s->selection.named_count ? -1 : count;
}

/* ---- Options --------------------------------------------------------------------------------- */

/* The value may be missing, or be the next argument. */
static void read_json(const options *o, settings *s)
{
    s->json = true;
    s->json_path = o->value;
    if (!o->value && optind < o->argc && o->argv[optind][0] != '-')
        s->json_path = o->argv[optind++];
}

static bool apply(const options *o, void *to, int id)
{
    settings *const s = to;
    static const char *const switches[] = {"off", "on", NULL};
    static const char *const ways[] = {"sleep", "spin", NULL};
    static const char *const sizes[] = {"4k", "huge", NULL};
    int value = 0;
    bool good = true;

    switch (id) {
    case OPT_PROBLEM: return bench_add_problem(o, &s->selection);
    case OPT_ISA: return options_implementation(o, &s->implementation);
    case OPT_SECONDS: return bench_seconds(o, &s->seconds);
    case OPT_REPETITIONS: return options_integer(o, 1, 64, &s->repetitions);
    case OPT_FILTER: s->selection.filter = o->value; return true;
    case OPT_PROFILE: s->tuned = true; return read_profile(o->value);
    case OPT_LIST: s->list = true; return true;
    case OPT_JSON: read_json(o, s); return true;
    case OPT_HTML: s->html_path = o->value; return true;
    case OPT_SUITE: return bench_choose_suite(o, &s->selection);
    case OPT_WAITING: good = options_choice(o, ways, &value); s->spin = value == 1; return good;
    case OPT_PAGES: good = options_choice(o, sizes, &value); s->huge = value == 1; return good;
    default: good = options_choice(o, switches, &value); s->baselines = value == 1; return good;
    }
}

/* Files are opened before anything is measured, which may take long. */
typedef struct files {
    FILE *json, *html;
} files;

static bool open_files(const settings *s, files *f)
{
    *f = (files){NULL, NULL};
    if (s->json && !(f->json = s->json_path ? output_open(s->json_path) : stdout))
        return false;
    return !s->html_path || (f->html = output_open(s->html_path));
}

static bool close_file(FILE *file, const char *path)
{
    return !file || !path || output_close(file, path);
}

static int write_files(const settings *s, const files *f, const bench_machine *m,
                       const bench_result *results, int count)
{
    if (f->json)
        bench_write_json(f->json, results, count);
    if (f->html)
        report_write(f->html, m, results, count);
    const bool json_good = close_file(f->json, s->json_path);
    const bool html_good = close_file(f->html, s->html_path);
    return json_good && html_good ? EXIT_GOOD : EXIT_BAD_INPUT;
}

static int run(const settings *s, const bench_cases *all, bench_machine *m)
{
    bench_result *results = calloc((size_t)(all->count * s->repetitions) * MEASURE_CONTENDERS,
                                   sizeof *results);
    files f;

    if (!results)
        return complain("no memory");
    if (!open_files(s, &f))
        return EXIT_BAD_INPUT;
    case_use_pages(s->huge ? PAGES_HUGE : PAGES_4K);
    const int count = measure_all(s, all, results);
    const int code = count < 0 ? EXIT_BAD_INPUT : write_files(s, &f, m, results, count);
    free(results);
    return output_finish(code);
}

int bench_main(int argc, char **argv)
{
    static bench_cases all; /* large */
    bench_machine m = {0};
    settings s = {.selection.suite = "quick", .seconds = 1.0, .repetitions = 1, .baselines = true};
    options o;

    if (!options_read(&o, &spec, argc, argv, apply, &s))
        return o.exit_code;
    s.selection.threads = o.threads;
    s.quiet = o.quiet;
    if (s.tuned && s.implementation)
        return complain("--profile and --isa: one of them");
    if (s.tuned)
        s.implementation = ballast_implementation_default(NULL, 0);
    if (s.html_path && s.repetitions > 1)
        return complain("--html shows one repetition, not %d", (int)s.repetitions);
    if (!bench_choose(&s.selection, &all))
        return EXIT_BAD_INPUT;
    if (s.list)
        return bench_list(&all);
    if (s.html_path) {
        bench_machine_read(&m, argc, argv);
        m.seed = (unsigned long long)all.cases[0].p.seed;
    }
    return run(&s, &all, &m);
}
