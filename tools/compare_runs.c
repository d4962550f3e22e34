/* SPDX-License-Identifier: MIT */
/* Two files of `ballast bench --json` or ballast-bench, in Google Benchmark's format. Their runs
 * are not pairs, so each needs several repetitions, and the machine must have stayed as it was. */
#include "compare_parts.h"

#include "../bench/statistics.h"
#include "json_read.h"
#include "output.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct runs {
    char name[PROBLEM_TEXT];
    double log_ns[2][STATISTICS_SAMPLES];
    int count[2];
} runs;

typedef struct all_runs {
    runs *runs;
    int count, room;
} all_runs;

/* What names a case in both files: the problem, which stands before the contender. 0: not ours. */
static size_t problem_length(const json_value *b)
{
    const char *name = json_text_of(b, "name"), *contender = strchr(name, '/');
    const char *const error = "error_occurred";

    if (!contender || strcmp(json_text_of(b, "run_type"), "aggregate") == 0
        || json_member(b, error)->number != 0.0)
        return 0;
    contender++;
    return strcspn(contender, "/") == 7 && strncmp(contender, "ballast", 7) == 0
             ? (size_t)(contender - 1 - name) : 0;
}

static double nanoseconds(const json_value *b)
{
    const char *unit = json_text_of(b, "time_unit");
    const double time = json_number_of(b, "real_time", NAN);

    if (strcmp(unit, "s") == 0)
        return 1e9 * time;
    return strcmp(unit, "ms") == 0 ? 1e6 * time : strcmp(unit, "us") == 0 ? 1e3 * time : time;
}

static runs *runs_of(all_runs *all, const char *name, size_t length)
{
    for (int i = 0; i < all->count; i++)
        if (strlen(all->runs[i].name) == length && strncmp(all->runs[i].name, name, length) == 0)
            return &all->runs[i];
    if (all->count == all->room) {
        all->room = 2 * all->room + 16;
        all->runs = realloc(all->runs, (size_t)all->room * sizeof *all->runs);
        if (!all->runs)
            abort();
    }
    runs *r = &all->runs[all->count++];
    memset(r, 0, sizeof *r);
    snprintf(r->name, sizeof r->name, "%.*s", (int)length, name);
    return r;
}

static void gather(all_runs *all, const json_value *file, int side)
{
    const json_value *list = json_member(file, "benchmarks");

    for (const json_value *b = list->first; b; b = b->next) {
        const size_t length = problem_length(b);
        const double ns = nanoseconds(b);
        if (length == 0 || length >= PROBLEM_TEXT || !(ns > 0.0 && isfinite(ns)))
            continue;
        runs *r = runs_of(all, json_text_of(b, "name"), length);
        if (r->count[side] < STATISTICS_SAMPLES)
            r->log_ns[side][r->count[side]++] = log(ns);
    }
}

/* ---- Machines and settings ------------------------------------------------------------------- */

static void describe(const json_value *v, char text[64])
{
    switch (v->kind) {
    case JSON_TEXT: snprintf(text, 64, "%s", v->text); break;
    case JSON_NUMBER: snprintf(text, 64, "%.10g", v->number); break;
    case JSON_BOOL: snprintf(text, 64, "%s", v->number != 0.0 ? "true" : "false"); break;
    default: snprintf(text, 64, "unknown"); break;
    }
}

static void warn_about(const json_value *old, const json_value *new, comparisons *out)
{
    static const char *const fields[] = {"host_name", "num_cpus", "cpu_scaling_enabled", "pages",
                                         "library_build_type", NULL};
    char a[64], b[64];

    for (int i = 0; fields[i]; i++) {
        describe(json_member(old, fields[i]), a);
        describe(json_member(new, fields[i]), b);
        if (strcmp(a, b) != 0)
            compare_warn(out, "%s differs: %s, was %s", fields[i], b, a);
    }
    const double was = json_number_of(old, "mhz_per_cpu", 0.0);
    const double is = json_number_of(new, "mhz_per_cpu", 0.0);
    if (fabs(is - was) > 0.03 * was)
        compare_warn(out, "the clock differs: %.0f MHz, was %.0f", is, was);
    compare_warn(out, "the runs are not pairs: a change of the machine between them looks like one "
                      "of the code");
}

/* ---- Cases ----------------------------------------------------------------------------------- */

/* The least p that so many runs can have. */
static double least_p(int a, int b)
{
    return 2.0 * exp(lgamma(a + 1.0) + lgamma(b + 1.0) - lgamma(a + b + 1.0));
}

static double median_ns(double *log_ns, int count)
{
    for (int i = 1; i < count; i++) /* few: sorted by insertion */
        for (int k = i; k > 0 && log_ns[k] < log_ns[k - 1]; k--) {
            const double swapped = log_ns[k];
            log_ns[k] = log_ns[k - 1];
            log_ns[k - 1] = swapped;
        }
    return exp(0.5 * (log_ns[(count - 1) / 2] + log_ns[count / 2]));
}

static void compare_one(runs *r, int cases, double level, comparison *out)
{
    const int fewer = r->count[0] < r->count[1] ? r->count[0] : r->count[1];

    snprintf(out->name, sizeof out->name, "%s", r->name);
    for (int k = 0; k < 2; k++)
        out->ns[k] = r->count[k] ? median_ns(r->log_ns[k], r->count[k]) : 0.0;
    if (fewer == 0) {
        out->verdict = VERDICT_ABSENT;
        snprintf(out->note, sizeof out->note, "the %s file does not have it",
                 r->count[0] ? "new" : "old");
        return;
    }
    const shift s = shift_of_samples(r->log_ns[0], r->count[0], r->log_ns[1], r->count[1]);
    out->ratio = exp(s.value);
    out->low = exp(s.low);
    out->high = exp(s.high);
    out->p = s.p;
    out->runs = fewer;
    if (cases * least_p(r->count[0], r->count[1]) > level)
        snprintf(out->note, sizeof out->note, "%d and %d runs are too few to tell: more "
                 "--repetitions", r->count[0], r->count[1]);
}

static json_value *opened(const char *path)
{
    char message[COMPARE_TEXT];
    json_value *v = json_read(path, message, sizeof message);

    if (!v)
        complain("%s: %s", path, message);
    else if (json_member(v, "benchmarks")->kind != JSON_ARRAY)
        complain("%s: holds no benchmarks", path);
    else
        return v;
    json_read_free(v);
    return NULL;
}

int compare_runs(comparisons *out)
{
    json_value *files[2] = {NULL, NULL};
    all_runs all = {0};

    out->kind = "runs";
    for (int k = 0; k < 2; k++)
        if (!(files[k] = opened(out->path[k]))) {
            json_read_free(files[0]);
            return EXIT_BAD_INPUT;
        }
    for (int k = 0; k < 2; k++) {
        const json_value *context = json_member(files[k], "context");
        snprintf(out->version[k], sizeof out->version[k], "%s",
                 json_text_of(context, "ballast_version"));
        gather(&all, files[k], k);
    }
    warn_about(json_member(files[0], "context"), json_member(files[1], "context"), out);
    out->cases = calloc((size_t)all.count + 1, sizeof *out->cases);
    if (!out->cases)
        abort();
    for (int i = 0; i < all.count; i++)
        compare_one(&all.runs[i], all.count, out->level, &out->cases[out->count++]);
    free(all.runs);
    json_read_free(files[0]);
    json_read_free(files[1]);
    if (out->count > 0)
        return EXIT_GOOD;
    return complain("%s, %s: no case of Ballast's", out->path[0], out->path[1]);
}
