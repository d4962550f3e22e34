/* SPDX-License-Identifier: MIT */
#include "tune_profile.h"

#include <math.h>
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
    if (it && (it->verdict == TUNE_SAME || it->verdict == TUNE_DEFAULT))
        return kept_default(c, which, it->best.samples);
    return line ? *line : kept_default(c, which, 0);
}

/* ---- Groups ---------------------------------------------------------------------------------- */

/* The lines of one choice of an operation and dtype, for each of its cases. others: lines that stand
 * before them in the profile. */
typedef struct group {
    int which, count, other_count;
    const profile_line *others;
    const tune_case *cases[SHAPE_CLASSES];
    profile_line lines[SHAPE_CLASSES];
    bool left_out[SHAPE_CLASSES];
} group;

static bool is_same_group(const tuned_case *a, const tuned_case *b)
{
    return a->operation == b->operation && a->dtype == b->dtype;
}

static void gather(group *g, const profile *before, const tune_results *r, const tune_cases *all,
                   int first)
{
    for (int i = first; i < all->count && g->count < SHAPE_CLASSES &&
                        is_same_group(&all->cases[i].where, &all->cases[first].where);
         i++) {
        g->cases[g->count] = &all->cases[i];
        g->lines[g->count++] = line_of(before, r, &all->cases[i], g->which);
    }
}

static int lines_of(const group *g)
{
    int count = 0;

    for (int i = 0; i < g->count; i++)
        count += !g->left_out[i];
    return count;
}

static tuned_choice choice_at(const void *context, int index)
{
    const group *g = context;
    int i = 0;

    if (index < g->other_count)
        return g->others[index].chosen;
    index -= g->other_count;
    while (g->left_out[i] || index-- > 0)
        i++;
    return g->lines[i].chosen;
}

/* The candidate that a call takes. */
static int candidate_in_force(const tune_case *c, int which)
{
    const problem *p = &c->problems[0].p;
    const tuning t = ballast__tuning_of(c->where.operation, c->where.dtype, p->rows,
                                        problem_is_vector(p) ? 1 : p->classes);

    return (int)(t.word >> CHOICE_BITS * which & ((1u << CHOICE_BITS) - 1));
}

static bool says_the_same(const group *g)
{
    ballast__tuning_replace(g->other_count + lines_of(g), choice_at, g);
    for (int i = 0; i < g->count; i++)
        if (candidate_in_force(g->cases[i], g->which) != g->lines[i].chosen.candidate)
            return false;
    return true;
}

/* A shape without a line takes the choice of its nearest neighbour. So the default must be written
 * for some shapes, but not where the nearest line says so too. */
static void leave_out_defaults(group *g)
{
    for (int i = 0; i < g->count; i++) {
        g->left_out[i] = g->lines[i].chosen.candidate == 0;
        if (g->left_out[i] && !says_the_same(g))
            g->left_out[i] = false;
    }
}

/* All or nothing. */
static bool add_group(profile *p, const group *g)
{
    if (p->count + lines_of(g) > PROFILE_CHOICES)
        return false;
    for (int i = 0; i < g->count; i++)
        if (!g->left_out[i])
            p->lines[p->count++] = g->lines[i];
    return true;
}

static bool begins_group(const tune_cases *all, int i)
{
    return i == 0 || !is_same_group(&all->cases[i - 1].where, &all->cases[i].where);
}

static bool is_case(const tune_cases *all, const tuned_case *where)
{
    for (int i = 0; i < all->count; i++)
        if (memcmp(&all->cases[i].where, where, sizeof *where) == 0)
            return true;
    return false;
}

int tune_profile_merge(profile *p, const tune_results *r)
{
    static tune_cases all;
    static profile before;
    int left_out = 0;

    before = *p;
    p->count = 0;
    tune_cases_make(NULL, r->caches.real, &all);
    for (int i = 0; i < before.count; i++) /* by hand: no problem stands for them */
        if (!is_case(&all, &before.lines[i].chosen.where))
            p->lines[p->count++] = before.lines[i];
    const int by_hand = p->count;
    for (int i = 0; i < all.count; i++)
        for (int which = 0; which < CHOICES && begins_group(&all, i); which++) {
            group g = {.which = which, .others = p->lines, .other_count = by_hand};
            gather(&g, &before, r, &all, i);
            leave_out_defaults(&g);
            left_out += !add_group(p, &g);
        }
    ballast__tuning_replace(0, NULL, NULL);
    return left_out;
}
