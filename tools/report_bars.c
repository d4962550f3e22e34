/* SPDX-License-Identifier: MIT */
/* Time per element of every contender, problem by problem: bars in a table, so that they can be
 * read, copied and printed with their numbers. */
#include "report_parts.h"

#include <math.h>
#include <stdlib.h>

/* A bar of more than this many of ballast's is cut off: whole, it would hide the others. */
static const double longest = 10.0;

/* ---- Which results --------------------------------------------------------------------------- */

static bool same_operation(const report *p, int i, int j)
{
    return p->growth[i] == GROWTH_NONE && p->growth[j] == GROWTH_NONE &&
           same_text(p->results[i].operation, p->results[j].operation);
}

static bool same_bars(const report *p, int i, int j)
{
    return p->growth[i] == GROWTH_NONE && p->growth[j] == GROWTH_NONE &&
           same_case(&p->results[i], &p->results[j]);
}

static int rank(const bench_result *r) { return r->is_roofline ? 2 : is_ballast(r) ? 0 : 1; }

/* Ballast, its competitors, the limits; each from fast to slow, unknown ones last. */
static int by_rank_and_time(const void *a, const void *b)
{
    const bench_result *const r = *(const bench_result *const *)a;
    const bench_result *const s = *(const bench_result *const *)b;
    const double x = is_known(r->ns_per_element) ? r->ns_per_element : INFINITY;
    const double y = is_known(s->ns_per_element) ? s->ns_per_element : INFINITY;
    return rank(r) != rank(s) ? rank(r) - rank(s) : (x > y) - (x < y);
}

/* What the full width of the bars stands for. */
static double full_width(const bench_result *const *group, int count)
{
    double slowest = 0.0;
    for (int i = 0; i < count; i++)
        if (is_known(group[i]->ns_per_element))
            slowest = fmax(slowest, group[i]->ns_per_element);
    if (is_ballast(group[0]) && is_known(group[0]->ns_per_element))
        return fmin(slowest, longest * group[0]->ns_per_element);
    return slowest;
}

/* ---- One bar --------------------------------------------------------------------------------- */

/* Two strokes across the end of a bar that goes on. */
static void draw_cut(FILE *out)
{
    fputs("<svg x=\"100%\" overflow=\"visible\">"
          "<path class=\"cut\" d=\"M-22 16l6 -18M-16 16l6 -18\"/></svg>",
          out);
}

static void draw_bar(FILE *out, const bench_result *r, double full)
{
    const double least = r->ns_per_element * r->least_cycles_per_element / r->cycles_per_element;
    fputs("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"bar\" aria-hidden=\"true\">", out);
    if (is_known(r->ns_per_element) && full > 0.0) {
        fprintf(out, "<rect width=\"%.2f%%\" height=\"100%%\"/>",
                100 * fmin(r->ns_per_element / full, 1.0));
        if (is_known(least) && least <= full)
            fprintf(out,
                    "<line class=\"least\" x1=\"%.2f%%\" x2=\"%.2f%%\" y1=\"0\" y2=\"100%%\"/>",
                    100 * least / full, 100 * least / full);
        if (r->ns_per_element > full)
            draw_cut(out);
    }
    fputs("</svg>", out);
}

static void print_row(FILE *out, const bench_result *r, double full)
{
    char name[LABEL_SIZE];
    contender_label(name, r, false);
    fprintf(out, "<tr class=\"%s\"><th>", contender_class(r));
    xml_text(out, name);
    fputs("</th><td class=\"drawn\">", out);
    draw_bar(out, r, full);
    fputs("</td><td>", out);
    print_number(out, r->ns_per_element);
    fputs("</td><td>", out);
    if (is_ballast(r) && r->ratio == 1.0)
        fputs("1", out);
    else
        print_ratio(out, r);
    fputs("</td></tr>\n", out);
}

/* ---- Problems, operation by operation -------------------------------------------------------- */

/* Where there is only one, its name says nothing. */
static bool has_suites(const report *p)
{
    for (int i = 1; i < p->count; i++)
        if (!same_text(p->results[i].suite, p->results[0].suite))
            return true;
    return false;
}

static void print_case(const report *p, int count)
{
    const bench_result *const *group = p->group;
    qsort(p->group, (size_t)count, sizeof *p->group, by_rank_and_time);
    const double full = full_width(group, count);
    fputs("<tbody><tr class=\"problem\"><th colspan=\"4\"><code>", p->out);
    print_problem(p->out, group[0]->problem);
    fputs("</code> <span class=\"quiet\">", p->out);
    print_setting(p->out, group[0]);
    if (has_suites(p) && !same_text(group[0]->suite, "")) {
        fputs(", suite ", p->out);
        xml_text(p->out, group[0]->suite);
    }
    fputs("</span></th></tr>\n", p->out);
    for (int i = 0; i < count; i++)
        print_row(p->out, group[i], full);
    fputs("</tbody>\n", p->out);
}

static void print_operation(const report *p, int first)
{
    fputs("<h3><code>", p->out);
    xml_text(p->out, p->results[first].operation);
    fputs("</code></h3>\n<table class=\"bars\"><thead><tr><th>contender</th>"
          "<td class=\"drawn\"></td><td>ns / element</td>"
          "<td>time ÷ Ballast’s <span class=\"quiet\">[95 %]</span></td></tr></thead>\n",
          p->out);
    for (int i = first; i < p->count; i++)
        if (same_operation(p, first, i)) {
            const int count = report_gather(p, i, same_bars);
            if (count)
                print_case(p, count);
        }
    fputs("</table>\n", p->out);
}

void report_bars(const report *p)
{
    bool any = false;
    for (int i = 0; i < p->count; i++)
        any |= p->growth[i] == GROWTH_NONE;
    if (!any)
        return;
    fputs("<section><h2>Time per element</h2>\n<p>Shorter is faster. The fine line in a bar is the "
          "5th percentile: what the core does when nobody slows it down. Outlined bars are limits: "
          "the same bytes, only read or copied. Bars of more than ten times Ballast’s are cut off."
          "</p>\n",
          p->out);
    for (int i = 0; i < p->count; i++)
        if (report_gather(p, i, same_operation))
            print_operation(p, i);
    fputs("</section>\n", p->out);
}
