/* SPDX-License-Identifier: MIT */
/* `ballast check`: every implementation that this CPU has, against the others and the oracle. */
#include "check.h"

#include "../bench/cases.h"
#include "../bench/threads.h"
#include "json.h"
#include "options.h"
#include "progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IMPLEMENTATIONS = 8, MAX_ROWS = 64, MAX_FAILURES = 20, FAILURE_TEXT = 2 * PROBLEM_TEXT };

/* ---- Options --------------------------------------------------------------------------------- */

enum { OPT_ISA = 1, OPT_SEED, OPT_THREADS, OPT_QUICK, OPT_LONG };

static const option_spec specs[] = {
    {"isa", "NAME", "this implementation and scalar alone (default: all that run here)", OPT_ISA},
    {"seed", "N", "another seed for the inputs", OPT_SEED},
    {"threads", "N", "threads to lend to each call (default: as many as the problem says)",
     OPT_THREADS},
    {"quick", NULL, "fewer problems", OPT_QUICK},
    {"long", NULL, "more problems: hours", OPT_LONG},
    {NULL, NULL, NULL, 0},
};

static const char *const examples[] = {
    "ballast check",
    "ballast check --quick --isa avx2",
    "ballast check cross_entropy:f32:rows=50,classes=1000 dot:bf16",
    NULL,
};

static const command_spec spec = {
    .name = "check",
    .operands = "[PROBLEM...]",
    .about = "Runs problems on every implementation that this CPU has. The bits of all of them "
             "must be equal, and the results as close to the oracle's as the library says. Without "
             "a PROBLEM: all operations, shapes around the chunks' ends, ordinary and special "
             "inputs, for about a minute. Errors are in units in the last place (ULP), of the sum "
             "of the terms' magnitudes where terms of both signs are added. Exit codes: 0 all "
             "green, 1 a check failed, 2 wrong usage or input.",
    .options = specs,
    .examples = examples,
    .operand_count = OPERANDS_ANY,
    .more = problem_help,
};

typedef struct settings {
    const ballast_implementation *implementation; /* NULL: all */
    int64_t seed, threads;                        /* -1, 0: the problems' own */
    int sweep;
} settings;

/* Seeds and threads are such as a problem can say: a failure is run again by one. */
static bool apply(const options *o, void *to, int id)
{
    settings *const s = to;

    switch (id) {
    case OPT_ISA: return options_implementation(o, &s->implementation);
    case OPT_SEED: return options_integer(o, 0, INT64_C(9000000000000000), &s->seed);
    case OPT_THREADS: return options_integer(o, 1, 1024, &s->threads);
    case OPT_QUICK: s->sweep = 0; return true;
    default: s->sweep = 2; return true;
    }
}

/* ---- What was found -------------------------------------------------------------------------- */

/* The worst error so far, as a share of its bound. */
typedef struct worst {
    int measured;
    double ulp, bound;
    problem witness;
} worst;

/* One operation with one dtype. */
typedef struct finding {
    const operation *op;
    ballast_dtype dtype;
    int problems, unsupported, bits_differ;
    worst loss, grad;
} finding;

typedef struct check {
    const ballast_implementation *with[MAX_IMPLEMENTATIONS];
    int implementations;
    finding found[MAX_ROWS];
    int rows;
    char failures[MAX_FAILURES][FAILURE_TEXT];
    int failed;
} check;

static finding *finding_of(check *k, const problem *p)
{
    finding *f = k->found;

    for (; f < k->found + k->rows; f++)
        if (f->op == p->operation && f->dtype == p->dtype)
            return f;
    k->rows++;
    f->op = p->operation;
    f->dtype = p->dtype;
    return f;
}

static const char *last_name(const check *k)
{
    return ballast_implementation_name(k->with[k->implementations - 1]);
}

__attribute__((format(printf, 4, 5))) static void fail(check *k, const problem *p, const char *isa,
                                                       const char *format, ...)
{
    char what[256], text[PROBLEM_TEXT];
    va_list list;

    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    if (k->failed < MAX_FAILURES)
        snprintf(k->failures[k->failed], FAILURE_TEXT,
                 "%s: %s\n  run again: ballast check '%s' --isa %s", p->operation->name, what,
                 problem_format(p, text, sizeof text), isa);
    k->failed++;
}

/* ---- One problem ----------------------------------------------------------------------------- */

static ballast_status run(const case_data *c, const ballast_implementation *implementation,
                          case_results *r)
{
    const ballast_parallel parallel = threads_to_lend(c->p.threads);

    return case_run(c, implementation, c->p.threads > 1 ? &parallel : NULL, r);
}

static void note_error(check *k, const problem *p, const case_output *o, const case_error *e,
                       double bound, worst *w)
{
    if (!w->measured || e->ulp / bound > w->ulp / w->bound)
        *w = (worst){1, e->ulp, bound, *p};
    if (e->ulp <= bound)
        return;
    fail(k, p, last_name(k),
         "%s[%" PRId64 "][%" PRId64 "] = %.9g (%a), the oracle says %.12Lg: %.2f ULP%s, bound %g",
         o->name, e->row, e->column, e->got, e->got, e->want, e->ulp,
         e->of_terms ? " of terms" : "", bound);
}

static void check_accuracy(check *k, finding *f, const case_data *c, const case_results *r)
{
    case_error errors[CASE_OUTPUTS];

    case_measure(c, r, errors);
    for (int i = 0; i < CASE_OUTPUTS; i++) {
        const case_output *o = &c->p.operation->outputs[i];

        if (errors[i].measured)
            note_error(k, &c->p, o, &errors[i], case_bound(&c->p, i),
                       strncmp(o->name, "grad", 4) == 0 ? &f->grad : &f->loss);
    }
}

static void check_bits(check *k, finding *f, const case_data *c, const case_results *want,
                       const case_results *got, const ballast_implementation *implementation)
{
    const char *name = ballast_implementation_name(implementation);
    const char *stray = case_stray_write(got);
    char place[64];
    case_difference d;

    if (stray)
        fail(k, &c->p, name, "%s wrote beside the rows of %s", name, stray);
    if (case_equal(want, got, &d))
        return;
    f->bits_differ++;
    fail(k, &c->p, name, "bits equal to %s on %s ... FAILED\n  first difference at %s: %s, %s %s",
         ballast_implementation_name(k->with[0]), name, case_place(&d, place, sizeof place), d.a,
         name, d.b);
}

/* The first implementation's results, then each other's against them, and the last one's against
 * the oracle: where bits are equal, that is the accuracy of all. */
static void check_case(check *k, finding *f, const case_data *c)
{
    case_results first, other;

    case_results_make(c, &first);
    case_results_make(c, &other);
    ballast_status status = run(c, k->with[0], &first);
    if (status == BALLAST_OK)
        check_bits(k, f, c, &first, &first, k->with[0]);
    for (int i = 1; i < k->implementations && status == BALLAST_OK; i++) {
        status = run(c, k->with[i], &other);
        if (status == BALLAST_OK)
            check_bits(k, f, c, &first, &other, k->with[i]);
    }
    if (status == BALLAST_ERR_UNSUPPORTED)
        f->unsupported++;
    else if (status != BALLAST_OK)
        fail(k, &c->p, last_name(k), "%s", ballast_status_name(status));
    else
        check_accuracy(k, f, c, k->implementations > 1 ? &other : &first);
    case_results_free(&other);
    case_results_free(&first);
}

static void check_problem(check *k, const problem *p)
{
    finding *f = finding_of(k, p);
    case_data c;

    case_make(p, &c);
    f->problems++;
    check_case(k, f, &c);
    case_free(&c);
}

/* ---- Which problems, which implementations --------------------------------------------------- */

static void choose_implementations(check *k, const ballast_implementation *named)
{
    for (int i = 0; ballast_implementation_at(i) && k->implementations < MAX_IMPLEMENTATIONS; i++) {
        const ballast_implementation *it = ballast_implementation_at(i);

        if ((i == 0 || !named || it == named) && ballast_implementation_supported(it, NULL, 0))
            k->with[k->implementations++] = it;
    }
}

static bool read_problem(const char *text, problem *p)
{
    char message[PROBLEM_TEXT];

    if (problem_parse(text, p, message, sizeof message))
        return true;
    complain("'%s': %s", text, message);
    return false;
}

static int64_t count_defaults(int sweep)
{
    int64_t count = 0;

    for (problem p; problem_default(sweep, count, &p);)
        count++;
    return count;
}

/* Those named, or else those run by default. NULL, and a line about it, where one is wrong. */
static problem *choose_problems(const options *o, const settings *s, int64_t *count)
{
    const bool are_named = o->operand_count > 0;
    *count = are_named ? o->operand_count : count_defaults(s->sweep);
    problem *problems = calloc((size_t)*count, sizeof *problems);

    if (!problems)
        complain("no memory");
    for (int64_t i = 0; i < *count && problems; i++) {
        problem *p = &problems[i];

        if (!(are_named ? read_problem(o->operands[i], p) : problem_default(s->sweep, i, p))) {
            free(problems);
            return NULL;
        }
        if (s->seed >= 0)
            p->seed = s->seed;
        if (s->threads > 0 && p->operation->keys & KEY(KEY_THREADS))
            p->threads = s->threads;
    }
    return problems;
}

/* About as long as it takes, with what there is to do whatever its size. */
static int64_t work_of(const problem *p)
{
    const double elements = (double)p->rows * (problem_is_vector(p) ? 1.0 : (double)p->classes);

    return (int64_t)fmin(1.0 + elements / 1024.0, 1e12);
}

static void check_problems(check *k, const problem *problems, int64_t count, bool quiet)
{
    int64_t total = 0, done = 0;
    progress shown;

    for (int64_t i = 0; i < count; i++)
        total += work_of(&problems[i]);
    progress_begin_timed(&shown, "", total, quiet);
    for (int64_t i = 0; i < count; i++) {
        progress_update_timed(&shown, problems[i].operation->name, done);
        check_problem(k, &problems[i]);
        done += work_of(&problems[i]);
    }
    progress_end(&shown);
}

/* ---- Printing -------------------------------------------------------------------------------- */

static const char *implementations_of(const check *k, const finding *f, char *text, size_t size)
{
    size_t used = 0;

    if (f->dtype == BALLAST_F64) {
        snprintf(text, size, "%s", f->unsupported ? "not in this library" : "reference");
        return text;
    }
    for (int i = 0; i < k->implementations && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? " " : "",
                                 ballast_implementation_name(k->with[i]));
    return text;
}

static const char *error_text(const worst *w, char *text, size_t size)
{
    if (!w->measured)
        snprintf(text, size, "-");
    else if (isinf(w->bound))
        snprintf(text, size, "%.2f", w->ulp);
    else
        snprintf(text, size, "%.2f of %.4g", w->ulp, w->bound);
    return text;
}

/* That which comes nearer to its bound. */
static const worst *nearer(const finding *f)
{
    if (!f->grad.measured)
        return &f->loss;
    if (!f->loss.measured)
        return &f->grad;
    return f->grad.ulp / f->grad.bound > f->loss.ulp / f->loss.bound ? &f->grad : &f->loss;
}

static void print_row(const check *k, const finding *f)
{
    char with[128], loss[40], grad[40], text[PROBLEM_TEXT];

    printf("%-24s %-5s %8d  %-20s %-6s  %-14s  %-14s  %s\n", f->op->name,
           problem_dtype_name(f->dtype), f->problems, implementations_of(k, f, with, sizeof with),
           f->bits_differ ? "DIFFER" : "equal", error_text(&f->loss, loss, sizeof loss),
           error_text(&f->grad, grad, sizeof grad),
           nearer(f)->measured ? problem_format(&nearer(f)->witness, text, sizeof text) : "-");
}

static void print_table(const check *k)
{
    const char *plain = output_style(stdout, STYLE_PLAIN);

    printf("%s%-24s %-5s %8s  %-20s %-6s  %-14s  %-14s  %s%s\n", output_style(stdout, STYLE_HEAD),
           "operation", "dtype", "problems", "implementations", "bits", "value, ULP", "grad, ULP",
           "nearest to its bound", plain);
    for (const finding *f = k->found; f < k->found + k->rows; f++)
        print_row(k, f);
    for (int i = 0; i < k->failed && i < MAX_FAILURES; i++)
        printf("\n%s\n", k->failures[i]);
    if (k->failed > MAX_FAILURES)
        printf("\n... and %d more\n", k->failed - MAX_FAILURES);
    printf("\n%s%s%s\n", output_style(stdout, k->failed ? STYLE_ERROR : STYLE_GOOD),
           k->failed ? "FAILED" : "all green", plain);
}

static void write_worst(json *j, const char *key, const worst *w)
{
    char text[PROBLEM_TEXT];

    if (!w->measured) {
        json_text(j, key, NULL);
        return;
    }
    json_object(j, key);
    json_real(j, "ulp", isfinite(w->ulp) ? w->ulp : 1e308); /* null would be none */
    json_real(j, "bound", w->bound);
    json_text(j, "witness", problem_format(&w->witness, text, sizeof text));
    json_end(j);
}

static void write_finding(json *j, const check *k, const finding *f)
{
    json_object(j, NULL);
    json_text(j, "operation", f->op->name);
    json_text(j, "dtype", problem_dtype_name(f->dtype));
    json_integer(j, "problems", f->problems);
    json_array(j, "implementations");
    for (int i = 0; i < k->implementations && f->dtype != BALLAST_F64; i++)
        json_text(j, NULL, ballast_implementation_name(k->with[i]));
    if (f->dtype == BALLAST_F64 && !f->unsupported)
        json_text(j, NULL, "reference");
    json_end(j);
    json_bool(j, "supported", !f->unsupported);
    json_bool(j, "bits_equal", !f->bits_differ);
    write_worst(j, "value", &f->loss);
    write_worst(j, "grad", &f->grad);
    json_end(j);
}

static void print_json(const check *k)
{
    json j;

    json_begin(&j, stdout);
    json_text(&j, "version", ballast_version());
    json_bool(&j, "green", !k->failed);
    json_array(&j, "operations");
    for (int i = 0; i < k->rows; i++)
        write_finding(&j, k, &k->found[i]);
    json_end(&j);
    json_array(&j, "failures");
    for (int i = 0; i < k->failed && i < MAX_FAILURES; i++)
        json_text(&j, NULL, k->failures[i]);
    json_end(&j);
    json_end(&j);
}

int check_main(int argc, char **argv)
{
    static check k; /* large */
    settings s = {.seed = -1, .sweep = 1};
    options o;
    int64_t count;

    if (!options_read(&o, &spec, argc, argv, apply, &s))
        return o.exit_code;
    problem *problems = choose_problems(&o, &s, &count);
    if (!problems)
        return EXIT_BAD_INPUT;
    choose_implementations(&k, s.implementation);
    check_problems(&k, problems, count, o.quiet);
    free(problems);
    if (o.json)
        print_json(&k);
    else
        print_table(&k);
    return k.failed ? EXIT_CHECK_FAILED : EXIT_GOOD;
}
