/* SPDX-License-Identifier: MIT */
/* `ballast check`: every implementation that this CPU has, against the others and the oracle. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include "../bench/cases.h"
#include "../bench/threads.h"

#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_IMPLEMENTATIONS = 8, MAX_ROWS = 64, MAX_FAILURES = 20, FAILURE_TEXT = 2 * PROBLEM_TEXT };

/* ---- Options --------------------------------------------------------------------------------- */

typedef struct options {
    const char *isa;
    int64_t seed; /* -1: the problems' own */
    int sweep, json;
} options;

static void help(void)
{
    fputs("usage: ballast check [PROBLEM...] [OPTION...]\n"
          "\n"
          "Runs problems on every implementation that this CPU has. The bits of all of them must\n"
          "be equal, and the results as close to the oracle's as the library says. Without a\n"
          "PROBLEM: all operations, shapes around the chunks' ends, ordinary and special inputs.\n"
          "\n"
          "  --isa NAME   this implementation and scalar only\n"
          "  --seed N     another seed for the inputs\n"
          "  --quick      fewer problems (a few seconds)\n"
          "  --long       more problems (minutes)\n"
          "  --json       a JSON object in place of the table\n"
          "  --help       this text\n"
          "\n"
          "Errors are in units in the last place (ULP), of the sum of the terms' magnitudes where\n"
          "terms of both signs are added. Exit status: 0 all green, 1 a check failed, 2 what was\n"
          "asked for cannot be done.\n"
          "\n", stdout);
    problem_help(stdout);
}

/* 0: go on; otherwise an exit status + 1. */
static int read_options(int argc, char **argv, options *o)
{
    static const struct option names[] = {
        {"isa", required_argument, NULL, 'i'}, {"seed", required_argument, NULL, 's'},
        {"quick", no_argument, NULL, 'q'},     {"long", no_argument, NULL, 'l'},
        {"json", no_argument, NULL, 'j'},      {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    char *end = NULL;

    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "h", names, NULL)) != -1;) {
        if (c == 'h') {
            help();
            return 1;
        }
        if (c == '?')
            return 3;
        if (c == 'i')
            o->isa = optarg;
        if (c == 's') {
            o->seed = strtoll(optarg, &end, 10);
            if (*end || !*optarg || o->seed < 0) {
                fprintf(stderr, "ballast check: --seed %s: not a number from 0 up\n", optarg);
                return 3;
            }
        }
        o->sweep = c == 'q' ? 0 : c == 'l' ? 2 : o->sweep;
        o->json |= c == 'j';
    }
    return 0;
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

static int choose_implementations(check *k, const char *isa)
{
    const ballast_implementation *named = isa ? ballast_implementation_find(isa) : NULL;
    char reason[128] = "not in this library";

    if (isa && (!named || !ballast_implementation_supported(named, reason, sizeof reason))) {
        fprintf(stderr, "ballast check: %s: %s\n", isa, reason);
        return 0;
    }
    for (int i = 0; ballast_implementation_at(i) && k->implementations < MAX_IMPLEMENTATIONS; i++) {
        const ballast_implementation *it = ballast_implementation_at(i);

        if ((i == 0 || !named || it == named) && ballast_implementation_supported(it, NULL, 0))
            k->with[k->implementations++] = it;
    }
    return 1;
}

static void progress(const char *text)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K%s", text);
}

static void seeded(problem *p, const options *o)
{
    if (o->seed >= 0)
        p->seed = o->seed;
}

static void check_defaults(check *k, const options *o)
{
    const operation *last = NULL;
    problem p;

    for (int64_t i = 0; problem_default(o->sweep, i, &p); i++) {
        if (p.operation != last)
            progress(p.operation->name);
        last = p.operation;
        seeded(&p, o);
        check_problem(k, &p);
    }
    progress("");
}

static int check_named(check *k, const options *o, char **texts, int count)
{
    problem *problems = calloc((size_t)count, sizeof *problems);
    char message[PROBLEM_TEXT];
    int good = problems != NULL;

    for (int i = 0; i < count && good; i++) {
        good = problem_parse(texts[i], &problems[i], message, sizeof message);
        if (!good)
            fprintf(stderr, "ballast check: %s: %s\n", texts[i], message);
    }
    for (int i = 0; i < count && good; i++) {
        seeded(&problems[i], o);
        check_problem(k, &problems[i]);
    }
    free(problems);
    return good;
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
        snprintf(text, size, "%.2f of %g", w->ulp, w->bound);
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

static void print_table(const check *k)
{
    char with[128], loss[40], grad[40], text[PROBLEM_TEXT];

    printf("%-24s %-5s %8s  %-20s %-5s  %-13s %-13s  %s\n", "operation", "dtype", "problems",
           "implementations", "bits", "value, ULP", "grad, ULP", "nearest to its bound");
    for (const finding *f = k->found; f < k->found + k->rows; f++)
        printf("%-24s %-5s %8d  %-20s %-5s  %-13s %-13s  %s\n", f->op->name,
               problem_dtype_name(f->dtype), f->problems,
               implementations_of(k, f, with, sizeof with), f->bits_differ ? "DIFFER" : "equal",
               error_text(&f->loss, loss, sizeof loss), error_text(&f->grad, grad, sizeof grad),
               nearer(f)->measured ? problem_format(&nearer(f)->witness, text, sizeof text) : "-");
    for (int i = 0; i < k->failed && i < MAX_FAILURES; i++)
        printf("\n%s\n", k->failures[i]);
    if (k->failed > MAX_FAILURES)
        printf("\n... and %d more\n", k->failed - MAX_FAILURES);
    printf("\n%s\n", k->failed ? "FAILED" : "all green");
}

static void print_string(const char *text)
{
    putchar('"');
    for (; *text; text++)
        if (*text == '\n')
            fputs("\\n", stdout);
        else
            printf(*text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    putchar('"');
}

static void print_worst(const char *name, const worst *w)
{
    char text[PROBLEM_TEXT];

    printf(", \"%s\": ", name);
    if (!w->measured) {
        fputs("null", stdout);
        return;
    }
    /* JSON knows no infinity */
    printf("{\"ulp\": %.6g, \"bound\": ", isfinite(w->ulp) ? w->ulp : 1e308);
    printf(isfinite(w->bound) ? "%g" : "null", w->bound);
    fputs(", \"witness\": ", stdout);
    print_string(problem_format(&w->witness, text, sizeof text));
    putchar('}');
}

static void print_json_finding(const check *k, const finding *f)
{
    printf("    {\"operation\": \"%s\", \"dtype\": \"%s\", \"problems\": %d, ",
           f->op->name, problem_dtype_name(f->dtype), f->problems);
    fputs("\"implementations\": [", stdout);
    for (int i = 0; i < k->implementations && f->dtype != BALLAST_F64; i++)
        printf("%s\"%s\"", i ? ", " : "", ballast_implementation_name(k->with[i]));
    printf("%s], \"supported\": %s, \"bits_equal\": %s",
           f->dtype == BALLAST_F64 && !f->unsupported ? "\"reference\"" : "",
           f->unsupported ? "false" : "true", f->bits_differ ? "false" : "true");
    print_worst("value", &f->loss);
    print_worst("grad", &f->grad);
    putchar('}');
}

static void print_json(const check *k)
{
    printf("{\n  \"version\": \"%s\",\n  \"green\": %s,\n  \"operations\": [\n", ballast_version(),
           k->failed ? "false" : "true");
    for (int i = 0; i < k->rows; i++) {
        print_json_finding(k, &k->found[i]);
        puts(i + 1 < k->rows ? "," : "");
    }
    fputs("  ],\n  \"failures\": [", stdout);
    for (int i = 0; i < k->failed && i < MAX_FAILURES; i++) {
        fputs(i ? ",\n    " : "\n    ", stdout);
        print_string(k->failures[i]);
    }
    puts(k->failed ? "\n  ]\n}" : "]\n}");
}

int check_main(int argc, char **argv)
{
    static check k; /* large */
    options o = {NULL, -1, 1, 0};
    const int status = read_options(argc, argv, &o);

    memset(&k, 0, sizeof k);
    if (status)
        return status - 1;
    if (!choose_implementations(&k, o.isa))
        return 2;
    if (optind == argc)
        check_defaults(&k, &o);
    else if (!check_named(&k, &o, argv + optind, argc - optind))
        return 2;
    if (o.json)
        print_json(&k);
    else
        print_table(&k);
    return k.failed ? 1 : 0;
}
