/* SPDX-License-Identifier: MIT */
#include "bench_cases.h"

#include "../bench/suites.h"
#include "output.h"
#include "progress.h"

#include <string.h>
#include <unistd.h>

/* ---- Options --------------------------------------------------------------------------------- */

bool bench_add_problem(const options *o, bench_selection *s)
{
    if (s->named_count == BENCH_CASES - 1) {
        complain("--problem: %d at most", BENCH_CASES - 1);
        return false;
    }
    s->named[s->named_count++] = o->value;
    return true;
}

bool bench_choose_suite(const options *o, bench_selection *s)
{
    static const char *const names[] = {"quick", "cache", "memory", "growth", "all", NULL};
    int value;

    s->suite = o->value;
    s->suite_given = true;
    return options_choice(o, names, &value);
}

bool bench_seconds(const options *o, double *seconds)
{
    if (!options_real(o, seconds))
        return false;
    if (*seconds >= 0.0 && *seconds <= 3600.0)
        return true;
    complain("--seconds: %s is outside [0, 3600]", o->value);
    return false;
}

/* ---- Which cases ----------------------------------------------------------------------------- */

static bool choose(const bench_selection *s, const char *suite_name, const char *text,
                   bench_cases *out)
{
    char message[PROBLEM_TEXT];
    bench_case *c = &out->cases[out->count];

    if (!problem_parse(text, &c->p, message, sizeof message)) {
        complain("--problem '%s': %s", text, message);
        return false;
    }
    c->suite = suite_name;
    snprintf(c->text, sizeof c->text, "%s", text);
    if (s->threads > 0 && s->threads != c->p.threads && c->p.operation->keys & KEY(KEY_THREADS)) {
        c->p.threads = s->threads;
        problem_format(&c->p, c->text, sizeof c->text);
    }
    if (s->filter && !strstr(text, s->filter) && !strstr(c->text, s->filter))
        return true;
    if (++out->count == BENCH_CASES) {
        complain("%d cases at most", BENCH_CASES - 1);
        return false;
    }
    return true;
}

static bool is_wanted(const bench_selection *s, const suite *it)
{
    return strcmp(s->suite, "all") == 0 || strcmp(s->suite, it->name) == 0;
}

static bool choose_suite(const bench_selection *s, const suite *it, bench_cases *out)
{
    for (const char *const *p = it->problems; *p; p++)
        if (!choose(s, it->name, *p, out))
            return false;
    return true;
}

bool bench_choose(const bench_selection *s, bench_cases *out)
{
    bool good = true;

    if (s->suite_given && s->named_count > 0) {
        complain("--problem and --suite: one of them");
        return false;
    }
    for (int i = 0; i < s->named_count && good; i++)
        good = choose(s, "", s->named[i], out);
    for (int i = 0; suite_at(i) && !s->named_count && good; i++)
        if (is_wanted(s, suite_at(i)))
            good = choose_suite(s, suite_at(i), out);
    if (good && out->count == 0) {
        complain("--filter '%s': no case has it", s->filter);
        return false;
    }
    return good;
}

int bench_list(const bench_cases *all)
{
    for (int i = 0; i < all->count; i++)
        puts(all->cases[i].text);
    return output_finish(EXIT_GOOD);
}

/* ---- Progress -------------------------------------------------------------------------------- */

static bool shows_progress(bool quiet) { return !quiet && isatty(STDERR_FILENO); }

void bench_clear_progress(bool quiet)
{
    if (shows_progress(quiet))
        fputs("\r\033[K", stderr);
}

void bench_show_progress(bool quiet, const bench_cases *all, int i)
{
    bench_clear_progress(quiet);
    if (shows_progress(quiet))
        progress_name(all->cases[i].text, fprintf(stderr, "%d of %d: ", i + 1, all->count));
    fflush(stderr);
}
