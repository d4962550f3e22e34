/* SPDX-License-Identifier: MIT */
#include "measured.h"

#include "../../tools/bound_pool.h"
#include "../contest.h"
#include "../suites.h"

#include <stdlib.h>
#include <string.h>

/* ---- Names ----------------------------------------------------------------------------------- */

static int is_in(const char *text, const suite *until, const char *const *end)
{
    for (int i = 0; suite_at(i); i++)
        for (const char *const *p = suite_at(i)->problems; *p; p++) {
            if (suite_at(i) == until && p == end)
                return 0;
            if (strcmp(*p, text) == 0)
                return 1;
        }
    return 0;
}

const char *measured_problem(int i)
{
    for (int k = 0; suite_at(k); k++)
        for (const char *const *p = suite_at(k)->problems; *p; p++)
            if (!is_in(*p, suite_at(k), p) && i-- == 0)
                return *p;
    return NULL;
}

static int has_operation(const baseline *list, const char *name)
{
    while (list->operation && strcmp(list->operation, name) != 0)
        list++;
    return list->operation != NULL;
}

static int may_take_part(const problem *p, const char *name)
{
    const char *its = p->operation->name;

    if (strcmp(name, "fast-math") == 0)
        return has_operation(fast_math_baselines, its);
#if HAVE_SLEEF
    if (strcmp(name, "sleef") == 0)
        return has_operation(sleef_baselines, its);
#endif
#if HAVE_ONEDNN
    if (strcmp(name, "onednn") == 0)
        return has_operation(onednn_baselines, its);
#endif
    return strcmp(name, "ballast") == 0 || strcmp(name, "scalar") == 0;
}

static int writes_matrix(const problem *p)
{
    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (p->operation->outputs[k].shape == OUT_MATRIX && problem_outputs(p) >> k & 1)
            return 1;
    return 0;
}

static const char *limit_of(const problem *p)
{
    return !writes_matrix(p) ? "read" : p->inplace ? "scale" : "stream copy";
}

int measured_is_problem(const char *text, char *message, size_t size)
{
    problem p;

    return problem_parse(text, &p, message, size);
}

const char *measured_contender(const char *text, int i)
{
    static const char *const names[] = {"ballast", "scalar", "fast-math", "sleef", "onednn"};
    char message[PROBLEM_TEXT];
    problem p;

    if (!problem_parse(text, &p, message, sizeof message))
        return NULL;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        if (may_take_part(&p, names[k]) && i-- == 0)
            return names[k];
    return i == 0 ? limit_of(&p) : NULL;
}

/* ---- The problem that is open ---------------------------------------------------------------- */

static struct {
    char problem[PROBLEM_TEXT];
    contest c;
    int is_open;
} now;

/* Threads on cores of their own, as `ballast bench` has them. The cores are asked for once, before any thread
 * is bound: later there would seem to be one. */
static struct {
    pool p;
    topology_cores cores;
    int are_open;
} workers;

static const ballast_parallel *use_threads(int64_t threads)
{
    if (!workers.are_open) {
        topology_cores_open(&workers.cores);
        pool_open(&workers.p, 1);
        workers.are_open = 1;
    }
    if (pool_adapt(&workers.p, threads))
        pool_bind(&workers.p, &workers.cores);
    return &workers.p.parallel;
}

static void close_problem(void)
{
    if (now.is_open)
        contest_close(&now.c);
    now.is_open = 0;
}

void measured_end(void)
{
    close_problem();
    if (!workers.are_open)
        return;
    pool_close(&workers.p);
    topology_cores_close(&workers.cores);
    workers.are_open = 0;
}

static int open_problem(const char *text, char *message, size_t size)
{
    problem p;

    close_problem();
    if (!problem_parse(text, &p, message, size))
        return 0;
    const contest_options o = {NULL, use_threads(p.threads), 1, 1};
    now.is_open = contest_open(&p, &o, &now.c, message, size);
    snprintf(now.problem, sizeof now.problem, "%s", text);
    return now.is_open;
}

int measured_find(const char *text, const char *name, measured *out)
{
    const int is_same = now.is_open && strcmp(now.problem, text) == 0;

    if (!is_same && !open_problem(text, out->message, sizeof out->message))
        return 0;
    for (int i = 0; i < now.c.count; i++)
        if (strcmp(now.c.entrants[i].name, name) == 0) {
            out->run = now.c.contenders[i].run;
            out->context = now.c.contenders[i].context;
            out->elements = now.c.entrants[i].elements;
            out->bytes = now.c.entrants[i].bytes;
            return 1;
        }
    snprintf(out->message, sizeof out->message, "%s",
             now.c.note_count ? now.c.notes[0] : "does not take part");
    return 0;
}

void measured_pages(int huge) { case_use_pages(huge ? PAGES_HUGE : PAGES_4K); }

double measured_now(void) { return measure_now(); }
double measured_cycle(void) { return measure_cycle(); }
