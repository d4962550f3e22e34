/* SPDX-License-Identifier: MIT */
#include "tune_output.h"

#include "json.h"
#include "progress.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#define PROMISED 0.10 /* the default is to be within this of what tuning finds */

/* ---- Table ----------------------------------------------------------------------------------- */

const char *tune_verdict_name(tune_verdict v)
{
    static const char *const names[] = {"same", "default", "chosen", "noisy", "undecided"};
    return names[v];
}

static const char *candidate_name(const tune_result *r, int index)
{
    return ballast__candidate((int)r->which, index)->name;
}

static style style_of(const tune_result *r)
{
    switch (r->verdict) {
    case TUNE_CHOSEN:
        return STYLE_GOOD;
    case TUNE_NOISY:
    case TUNE_UNDECIDED:
        return STYLE_DIM;
    default:
        return STYLE_PLAIN;
    }
}

void tune_format_interval(char text[CELL_SIZE], const tune_trial *t)
{
    if (t->samples == 0)
        snprintf(text, CELL_SIZE, "-");
    else if (isfinite(t->high))
        snprintf(text, CELL_SIZE, "%.3f  [%.3f, %.3f]", t->ratio, t->low, t->high);
    else
        snprintf(text, CELL_SIZE, "%.3f", t->ratio);
}

/* Where no candidate does anything else, or none was begun, only an entry is worth a line. */
static bool is_shown(const tune_results *all, const tune_result *r)
{
    return all->entries || (r->verdict != TUNE_SAME && r->trial_count > 0);
}

static int name_width(const tune_results *r)
{
    int width = 4;

    for (int i = 0; i < r->count; i++) {
        const int length = (int)strlen(r->results[i].of->name);
        if (is_shown(r, &r->results[i]))
            width = length > width ? length : width;
    }
    return width;
}

/* Names stand in their column, so that each line says everything; on a terminal that is too narrow for it,
 * above the lines of their case. */
static void print_table(const tune_results *r, const char *(*last)(const tune_result *))
{
    enum { OTHER_COLUMNS = 72 };
    const int width = name_width(r);
    const bool above = terminal_columns(STDOUT_FILENO) < width + OTHER_COLUMNS;
    const char *name = "";
    char text[CELL_SIZE];

    printf("%s%-*s%s  %-17s  %-9s  %-22s  %5s  %s%s\n", output_style(stdout, STYLE_HEAD),
           above ? 0 : width, "case", above ? "\n" : "", "choice", "candidate", "time   [95 %]", "pairs",
           "verdict", output_style(stdout, STYLE_PLAIN));
    for (int i = 0; i < r->count; i++) {
        const tune_result *it = &r->results[i];
        if (!is_shown(r, it))
            continue;
        if (above && it->of->name != name)
            puts(name = it->of->name);
        tune_format_interval(text, &it->best);
        printf("%s%-*s  %-17s  %-9s  %-22s  %5d  %s%s\n", output_style(stdout, style_of(it)),
               above ? 0 : width, above ? "" : it->of->name, ballast__choice_name((int)it->which),
               it->best.samples ? candidate_name(it, it->best.candidate) : "-", text,
               it->best.samples, last(it), output_style(stdout, STYLE_PLAIN));
    }
}

/* ---- What it comes to ------------------------------------------------------------------------ */

typedef struct gains {
    int decided, chosen, large; /* large: beyond what is promised of the default */
    double log_sum;             /* over all that were decided */
    double best;                /* the largest gain */
    int of_candidate[TUNE_CANDIDATES];
} gains;

static gains gains_of(const tune_results *r, int which)
{
    gains g = {0};

    for (int i = 0; i < r->count; i++) {
        const tune_result *it = &r->results[i];
        if ((int)it->which != which || it->verdict == TUNE_SAME || it->verdict == TUNE_UNDECIDED)
            continue;
        g.decided++;
        if (it->verdict != TUNE_CHOSEN)
            continue;
        g.chosen++;
        g.of_candidate[it->best.candidate]++;
        g.log_sum += log(it->best.ratio);
        g.best = fmax(g.best, 1.0 - it->best.ratio);
        g.large += it->best.ratio < 1.0 - PROMISED;
    }
    return g;
}

static void print_gains(const tune_results *r, int which)
{
    const gains g = gains_of(r, which);

    if (g.decided == 0)
        return;
    printf("%s: %d of %d cases take another than the default", ballast__choice_name(which),
           g.chosen, g.decided);
    if (g.chosen > 0)
        printf("; all take %.1f %% less time in the geometric mean, one %.1f %% less",
               100.0 * (1.0 - exp(g.log_sum / g.decided)), 100.0 * g.best);
    if (g.large > 0)
        printf("; %d gain more than %.0f %%", g.large, 100.0 * PROMISED);
    for (int k = 1; k < TUNE_CANDIDATES; k++)
        if (2 * g.of_candidate[k] > g.decided)
            printf("; %s beats the default in most", ballast__candidate(which, k)->name);
    putchar('\n');
}

static int count_of(const tune_results *r, tune_verdict v)
{
    int n = 0;

    for (int i = 0; i < r->count; i++)
        n += r->results[i].verdict == v && is_shown(r, &r->results[i]);
    return n;
}

static const char *plain_verdict(const tune_result *r) { return tune_verdict_name(r->verdict); }

/* What the library takes the last cache for decides the classes of data; which problems stand for
 * them follows what it is. */
static void print_caches(const caches *c)
{
    if (caches_differ(c->real, c->taken))
        printf("the library takes the last cache for %.4g MiB; %s %.4g MiB, and problems go by "
               "that\n",
               (double)c->taken / 1048576.0,
               c->real == c->measured ? "reads slow down beyond" : "it is said to have",
               (double)c->real / 1048576.0);
}

void tune_print(const tune_results *r)
{
    print_table(r, plain_verdict);
    printf("\n%d of %d cases measured in %.0f s, %d thread%s%s\n", r->cases_measured, r->case_count,
           r->seconds, r->threads, r->threads == 1 ? "" : "s", r->bound ? ", bound to cores" : "");
    print_caches(&r->caches);
    for (int which = 0; which < CHOICES; which++)
        print_gains(r, which);
    if (count_of(r, TUNE_NOISY) > 0)
        printf("%d kept at the default, for the machine was too noisy\n", count_of(r, TUNE_NOISY));
    if (count_of(r, TUNE_UNDECIDED) > 0)
        printf("%d kept at the default, for it was not clear enough\n",
               count_of(r, TUNE_UNDECIDED));
    const int left = r->case_count - r->cases_measured - r->cases_refused;
    if (left > 0)
        printf("%d case%s not reached: %s\n", left, left == 1 ? " was" : "s were",
               r->interrupted ? "interrupted" : "more --budget");
    if (r->path)
        printf("profile: %s\n", r->path);
}

/* ---- Entries measured again ------------------------------------------------------------------ */

/* Where the entry gains no 3 % any more, with 95 %; in noise, where it is slower by 10 %. */
bool tune_is_stale(const tune_result *r)
{
    if (r->verdict == TUNE_SAME)
        return true;
    return r->best.samples > 0 && r->best.low > (r->verdict == TUNE_NOISY ? 1.10 : 0.97);
}

static const char *check_verdict(const tune_result *r)
{
    if (tune_is_stale(r))
        return "stale";
    switch (r->verdict) {
    case TUNE_CHOSEN:
        return "holds";
    case TUNE_NOISY:
        return "noisy";
    default:
        return "undecided";
    }
}

void tune_print_check(const tune_results *r)
{
    int stale = 0;

    for (int i = 0; i < r->count; i++)
        stale += tune_is_stale(&r->results[i]);
    if (r->count > 0) {
        print_table(r, check_verdict);
        putchar('\n');
    }
    printf("%s: %d of %d entries measured again, %d stale\n", r->path, r->cases_measured,
           r->case_count, stale);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void write_trial(json *j, const tune_result *r, const tune_trial *t)
{
    json_text(j, "candidate", candidate_name(r, t->candidate));
    json_real(j, "ratio", t->ratio);
    json_real(j, "ratio_low", t->low);
    json_real(j, "ratio_high", t->high);
    json_integer(j, "pairs", t->samples);
}

static void write_result(json *j, const tune_results *all, const tune_result *r)
{
    json_object(j, NULL);
    json_text(j, "case", r->of->name);
    json_array(j, "problems");
    for (int i = 0; i < r->of->problem_count; i++)
        json_text(j, NULL, r->of->problems[i].text);
    json_end(j);
    json_text(j, "choice", ballast__choice_name((int)r->which));
    json_text(j, "verdict", all->entries ? check_verdict(r) : tune_verdict_name(r->verdict));
    if (r->best.samples > 0)
        write_trial(j, r, &r->best);
    json_real(j, "stolen", r->noise.stolen);
    json_real(j, "waited", r->noise.waited);
    json_real(j, "clock_drift", r->noise.drift);
    json_array(j, "candidates");
    for (int i = 0; i < r->trial_count; i++) {
        json_object(j, NULL);
        write_trial(j, r, &r->trials[i]);
        json_end(j);
    }
    json_end(j);
    json_end(j);
}

void tune_write_json(FILE *out, const tune_results *r)
{
    json j;

    json_begin(&j, out);
    json_text(&j, "profile", r->path);
    json_object(&j, "last_cache");
    json_integer(&j, "taken", r->caches.taken);
    json_integer(&j, "measured", r->caches.measured);
    json_integer(&j, "bytes", r->caches.real);
    json_end(&j);
    json_integer(&j, "threads", r->threads);
    json_bool(&j, "bound", r->bound);
    json_real(&j, "seconds", r->seconds);
    json_integer(&j, "cases", r->case_count);
    json_integer(&j, "cases_measured", r->cases_measured);
    json_array(&j, "results");
    for (int i = 0; i < r->count; i++)
        if (is_shown(r, &r->results[i]))
            write_result(&j, r, &r->results[i]);
    json_end(&j);
    json_end(&j);
}
