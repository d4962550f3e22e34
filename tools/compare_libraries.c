/* SPDX-License-Identifier: MIT */
/* Two shared libraries in one process, call by call, on the same arrays: whatever slows the machine
 * down meets both.
 *
 * Where code lies counts, too: two copies of one library differ by up to 5 % in a process, and by
 * something else in the next. So both are loaded again and again, each time elsewhere, and what is
 * tested are the medians of the loads: pairs of one load are no independent witnesses. */
#include "compare_parts.h"

#include "../bench/contest.h"
#include "../bench/statistics.h"
#include "../bench/threads.h"
#include "bound_pool.h"
#include "output.h"
#include "shared_library.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct side {
    const char *path, *isa; /* isa: NULL for its default */
    shared_library library;
    const ballast_implementation *implementation;
} side;

/* ---- Loads ----------------------------------------------------------------------------------- */

static bool load(side *s, size_t gap_bytes)
{
    char message[COMPARE_TEXT], reason[128] = "not in this library";
    const library *l = &s->library.functions;

    if (!shared_library_open(s->path, gap_bytes, &s->library, message, sizeof message)) {
        complain("%s", message);
        return false;
    }
    s->implementation = s->isa ? l->implementation_find(s->isa)
                               : l->implementation_default(NULL, 0);
    if (s->implementation
        && (!s->isa || l->implementation_supported(s->implementation, reason, sizeof reason)))
        return true;
    complain("--isa '%s': %s: %s", s->isa ? s->isa : "", s->path, reason);
    shared_library_close(&s->library);
    return false;
}

static void unload(side sides[2])
{
    shared_library_close(&sides[1].library);
    shared_library_close(&sides[0].library);
}

/* Up to 16 MiB of whole pages, from the same numbers in every run. */
static size_t next_gap(void)
{
    static uint64_t state = 1;

    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (size_t)(1 + (state >> 33) % 4096) * 4096;
}

/* Both at another place; the one that is loaded first changes from load to load. */
static bool load_elsewhere(side sides[2], int number)
{
    const int first = number % 2;

    unload(sides);
    if (!load(&sides[first], next_gap()))
        return false;
    if (load(&sides[!first], next_gap()))
        return true;
    unload(sides);
    return false;
}

/* One case, run by one of the libraries. */
typedef struct runner {
    case_data data; /* a view of the case's, but for the library */
    case_results *results;
    ballast_exec exec;
    ballast_status status;
} runner;

static void run(void *context)
{
    runner *r = context;

    r->status = r->data.p.operation->run(&r->data, r->results, &r->exec);
}

static runner runner_of(const side *s, const case_data *c, const ballast_parallel *parallel,
                        case_results *results)
{
    runner r = {.data = *c, .results = results, .exec = BALLAST_EXEC};

    r.data.library = &s->library.functions;
    r.data.is_view = 1;
    r.exec.implementation = s->implementation;
    r.exec.parallel = parallel;
    return r;
}

/* ---- Bits ------------------------------------------------------------------------------------ */

typedef struct outcome {
    ballast_status status[2];
    bits bits;
    char note[160]; /* "grad[3][17] is 0x3e99999a, was 0x3e999999" */
} outcome;

/* Each library on results of its own. results[0] are those of the old one afterwards. */
static outcome compare_bits(const side sides[2], const case_data *c,
                            const ballast_parallel *parallel, case_results results[2])
{
    outcome o = {.bits = BITS_EQUAL};
    case_difference d;
    char place[64];

    for (int k = 0; k < 2; k++) {
        runner r = runner_of(&sides[k], c, parallel, &results[k]);
        case_results_reset(c, &results[k]);
        run(&r);
        o.status[k] = r.status;
    }
    if (o.status[0] != BALLAST_OK || o.status[1] != BALLAST_OK) {
        o.bits = BITS_NOT_COMPARED;
        snprintf(o.note, sizeof o.note, "status %d, was %d", (int)o.status[1], (int)o.status[0]);
    } else if (!case_equal(&results[0], &results[1], &d)) {
        o.bits = BITS_DIFFERENT;
        snprintf(o.note, sizeof o.note, "%s is %s, was %s", case_place(&d, place, sizeof place),
                 d.b, d.a);
    }
    return o;
}

static bool both_have(const side sides[2], const problem *p)
{
    return shared_library_has(&sides[0].library, p->operation->name)
        && shared_library_has(&sides[1].library, p->operation->name);
}

/* The problems of `ballast check --quick`: the shapes and inputs at which results go wrong. */
static void compare_problems(const side sides[2], comparisons *out)
{
    problem p;

    for (int64_t i = 0; problem_default(0, i, &p); i++) {
        const ballast_parallel parallel = threads_to_lend(p.threads);
        case_data c;
        case_results results[2];
        char text[PROBLEM_TEXT];

        if (!both_have(sides, &p))
            continue;
        case_make(&p, &c);
        case_results_make(&c, &results[0]);
        case_results_make(&c, &results[1]);
        const outcome o = compare_bits(sides, &c, p.threads > 1 ? &parallel : NULL, results);
        const bool wrong = o.bits == BITS_DIFFERENT || o.status[0] != o.status[1];
        if (wrong && !*out->bits_note)
            snprintf(out->bits_note, sizeof out->bits_note, "%s: %s",
                     problem_format(&p, text, sizeof text), o.note);
        out->problems_compared++;
        out->problems_different += wrong;
        case_results_free(&results[0]);
        case_results_free(&results[1]);
        case_free(&c);
    }
}

/* ---- Times ----------------------------------------------------------------------------------- */

static void measure_load(const side sides[2], const case_data *c, const ballast_parallel *parallel,
                         double seconds, int first, case_results *results, paired *out)
{
    runner runners[2];
    contender contenders[2];

    for (int k = 0; k < 2; k++) {
        runners[k] = runner_of(&sides[k ^ first], c, parallel, results);
        contenders[k] = (contender){run, &runners[k], NULL};
    }
    measure_pairs(contenders, seconds, out);
    if (first)
        *out = (paired){{out->seconds[1], out->seconds[0]}, -out->log_ratio, out->count};
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* False where a library could be loaded no more. */
static bool measure(const compare_settings *s, side sides[2], const case_data *c,
                    const ballast_parallel *parallel, case_results *results, comparison *out)
{
    double log_ratio[COMPARE_LOADS], ns[2][COMPARE_LOADS];

    case_results_reset(c, results);
    for (int i = 0; i < s->loads; i++) {
        paired p;
        if (!load_elsewhere(sides, i / 2))
            return false;
        measure_load(sides, c, parallel, s->seconds / s->loads, i % 2, results, &p);
        log_ratio[i] = p.log_ratio;
        ns[0][i] = 1e9 * p.seconds[0];
        ns[1][i] = 1e9 * p.seconds[1];
    }
    const shift it = shift_of_pairs(log_ratio, s->loads);
    for (int k = 0; k < 2; k++) {
        qsort(ns[k], (size_t)s->loads, sizeof ns[k][0], by_size);
        out->ns[k] = ns[k][s->loads / 2];
    }
    out->ratio = exp(it.value);
    out->low = exp(it.low);
    out->high = exp(it.high);
    out->p = it.p;
    out->runs = s->loads;
    return true;
}

/* False where a library could be loaded no more. */
static bool compare_case(const compare_settings *s, side sides[2], const bench_case *it,
                         const ballast_parallel *parallel, comparison *out)
{
    case_data c;
    case_results results[2];
    bool good = true;

    snprintf(out->name, sizeof out->name, "%s", it->text);
    if (!both_have(sides, &it->p)) {
        const bool is_new = !shared_library_has(&sides[0].library, it->p.operation->name);
        out->verdict = is_new ? VERDICT_ABSENT : VERDICT_BROKEN;
        snprintf(out->note, sizeof out->note, "the %s library has no ballast_%s",
                 is_new ? "old" : "new", it->p.operation->name);
        return true;
    }
    if (!contest_can_be_measured(&it->p, out->note, sizeof out->note)) {
        out->verdict = VERDICT_ABSENT;
        return true;
    }
    case_make(&it->p, &c);
    case_results_make(&c, &results[0]);
    case_results_make(&c, &results[1]);
    const outcome o = compare_bits(sides, &c, parallel, results);
    if (s->bits)
        out->bits = o.bits;
    if (s->bits || o.bits == BITS_NOT_COMPARED)
        snprintf(out->note, sizeof out->note, "%s", o.note);
    if (o.bits == BITS_NOT_COMPARED)
        out->verdict = o.status[0] == BALLAST_OK ? VERDICT_BROKEN : VERDICT_ABSENT;
    else
        good = measure(s, sides, &c, parallel, &results[0], out);
    case_results_free(&results[0]);
    case_results_free(&results[1]);
    case_free(&c);
    return good;
}

static int compare_cases(const compare_settings *s, side sides[2], const bench_cases *all,
                         comparisons *out)
{
    bool good = true;
    pool p;
    topology_cores cores;

    out->cases = calloc((size_t)all->count, sizeof *out->cases);
    if (!out->cases)
        return complain("no memory");
    case_use_pages(PAGES_4K);
    if (s->bits)
        compare_problems(sides, out);
    pool_open(&p, 1);
    topology_cores_open(&cores);
    for (int i = 0; i < all->count && good; i++) {
        bench_show_progress(s->quiet, all, i);
        if (pool_adapt(&p, all->cases[i].p.threads)) /* started once for all that want as many */
            pool_bind(&p, &cores);
        good = compare_case(s, sides, &all->cases[i], &p.parallel, &out->cases[out->count++]);
    }
    bench_clear_progress(s->quiet);
    topology_cores_close(&cores);
    pool_close(&p);
    return good ? EXIT_GOOD : EXIT_BAD_INPUT;
}

static void describe(const side sides[2], comparisons *out)
{
    for (int k = 0; k < 2; k++) {
        const library *l = &sides[k].library.functions;
        snprintf(out->isa[k], sizeof out->isa[k], "%s",
                 l->implementation_name(sides[k].implementation));
        snprintf(out->version[k], sizeof out->version[k], "%s", l->version());
    }
    if (!sides[0].library.is_copy || !sides[1].library.is_copy)
        compare_warn(out, "no copies of the libraries can be loaded: where they lie counts");
    if (sides[0].library.handle == sides[1].library.handle)
        compare_warn(out, "both are one file: nothing is compared with itself");
    if (strcmp(out->isa[0], out->isa[1]) != 0)
        compare_warn(out, "the old library takes %s by default, the new one %s", out->isa[0],
                     out->isa[1]);
}

int compare_libraries(const compare_settings *s, comparisons *out)
{
    static bench_cases all; /* large */
    side sides[2] = {{.path = out->path[0], .isa = s->isa}, {.path = out->path[1], .isa = s->isa}};

    out->kind = "libraries";
    if (!bench_choose(&s->selection, &all) || !load_elsewhere(sides, 0))
        return EXIT_BAD_INPUT;
    describe(sides, out);
    if (all.count * ldexp(1.0, 1 - (int)s->loads) > out->level) /* the least p that there can be */
        compare_warn(out, "%d loads are too few to tell: more --loads", (int)s->loads);
    const int code = compare_cases(s, sides, &all, out);
    unload(sides);
    return code;
}
