/* SPDX-License-Identifier: MIT */
#include "tune_profile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int32_t today(void)
{
    const time_t now = time(NULL);
    struct tm t;

    gmtime_r(&now, &t);
    return ((t.tm_year + 1900) * 100 + t.tm_mon + 1) * 100 + t.tm_mday;
}

static int32_t thousandths(double x)
{
    return (int32_t)fmin(fmax(round(1000.0 * x), 0.0), 999999.0);
}

static tuned_choice choice_of(const tune_case *c, int which, int index)
{
    return (tuned_choice){c->where, (choice_kind)which, index};
}

static profile_line kept_default(const tune_case *c, int which, int samples)
{
    return (profile_line){choice_of(c, which, 0), 1000, 1000, 1000, samples, today()};
}

static profile_line chosen_line(const tune_result *r)
{
    const tune_trial *t = &r->best;
    const int32_t ratio = thousandths(t->ratio);
    const int32_t low = thousandths(t->low), high = thousandths(t->high);

    return (profile_line){choice_of(r->of, (int)r->which, t->candidate),
                          ratio,
                          low < ratio ? low : ratio,
                          high > ratio ? high : ratio,
                          t->samples,
                          today()};
}

static bool is_about(const profile_line *line, const tuned_case *where, int which)
{
    const tuned_case *it = &line->chosen.where;

    return it->operation == where->operation && it->dtype == where->dtype &&
           it->shape == where->shape && (int)line->chosen.which == which;
}

static const profile_line *find_line(const profile *p, const tuned_case *where, int which)
{
    for (int i = 0; i < p->count; i++)
        if (is_about(&p->lines[i], where, which))
            return &p->lines[i];
    return NULL;
}

static const tune_result *find_result(const tune_results *r, const tuned_case *where, int which)
{
    for (int i = 0; i < r->count; i++)
        if (memcmp(&r->results[i].of->where, where, sizeof *where) == 0 &&
            (int)r->results[i].which == which)
            return &r->results[i];
    return NULL;
}

/* What is now known of a choice: of this run, else of the profile before; else that nothing is,
 * which keeps the default, too. */
static profile_line line_of(const profile *before, const tune_results *r, const tune_case *c,
                            int which)
{
    const tune_result *it = find_result(r, &c->where, which);
    const profile_line *line = find_line(before, &c->where, which);

    if (it && it->verdict == TUNE_CHOSEN)
        return chosen_line(it);
    if (it && it->verdict != TUNE_UNDECIDED)
        return kept_default(c, which, it->best.samples);
    return line ? *line : kept_default(c, which, 0);
}

static void add(profile *p, const profile_line *line)
{
    if (p->count < PROFILE_CHOICES && !find_line(p, &line->chosen.where, (int)line->chosen.which))
        p->lines[p->count++] = *line;
}

/* A shape without a line takes the choice of its nearest neighbour. So defaults are written, but
 * only where the same operation and dtype has another choice for some shape. */
static void add_group(profile *p, const profile *before, const tune_results *r,
                      const tune_cases *all, int first, int which)
{
    const tuned_case *of = &all->cases[first].where;
    bool any = false;

    for (int pass = 0; pass < 1 + any; pass++)
        for (int i = first; i < all->count && all->cases[i].where.operation == of->operation &&
                            all->cases[i].where.dtype == of->dtype;
             i++) {
            const profile_line line = line_of(before, r, &all->cases[i], which);
            any |= line.chosen.candidate != 0;
            if (pass == 1)
                add(p, &line);
        }
}

static bool begins_group(const tune_cases *all, int i)
{
    const tuned_case *a = i > 0 ? &all->cases[i - 1].where : NULL, *b = &all->cases[i].where;

    return !a || a->operation != b->operation || a->dtype != b->dtype;
}

static bool is_measured(const tune_cases *all, const tuned_case *where)
{
    for (int i = 0; i < all->count; i++)
        if (memcmp(&all->cases[i].where, where, sizeof *where) == 0)
            return true;
    return false;
}

void tune_profile_merge(profile *p, const tune_results *r)
{
    static tune_cases all;
    profile *before = malloc(sizeof *before);

    if (!before)
        abort();
    *before = *p;
    p->count = 0;
    tune_cases_make(NULL, &all);
    for (int i = 0; i < all.count; i++)
        for (int which = 0; which < CHOICES && begins_group(&all, i); which++)
            add_group(p, before, r, &all, i, which);
    for (int i = 0; i < before->count; i++)
        if (!is_measured(&all, &before->lines[i].chosen.where))
            add(p, &before->lines[i]);
    free(before);
}
