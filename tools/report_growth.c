/* SPDX-License-Identifier: MIT */
/* Time per element as rows grow longer or more: a small plot for each operation, a line for each
 * contender, named where it ends. */
#include "report_parts.h"

#include <math.h>
#include <stdlib.h>

enum { WIDTH = 460, LEFT = 44, RIGHT = 132, TOP = 28, PLOT = 230, BOTTOM = 40 };

static double size_of(const bench_result *r, growth g)
{
    return g == GROWTH_CLASSES ? r->classes : r->rows;
}

/* Totals need not be equal to the element: 65 rows of 1000 stand for 2^16. */
static double total_of(const bench_result *r) { return round(log2(r->elements)); }

static bool same_total(const bench_result *a, const bench_result *b, growth g)
{
    return g == GROWTH_CLASSES ? total_of(a) == total_of(b) : a->classes == b->classes;
}

static bool has_place(const bench_result *r)
{
    return is_known(r->ns_per_element) && is_known(r->rows) && is_known(r->classes) &&
           is_known(r->elements);
}

static int compare(double a, double b) { return (a > b) - (a < b); }

/* 0 on the same line. */
static int compare_lines(const bench_result *a, const bench_result *b)
{
    int order = compare_text(a->contender, b->contender);
    order = order ? order : compare_text(a->isa, b->isa);
    order = order ? order : compare_text(a->pages, b->pages);
    return order ? order : compare(a->threads, b->threads);
}

/* ---- Which results --------------------------------------------------------------------------- */

/* How many other points the line would have. */
static int others_in_line(const report *p, const bench_result *r, growth g)
{
    int others = 0;
    for (const bench_result *o = p->results; o < p->results + p->count; o++)
        others += same_text(o->suite, "growth") && has_place(o) && compare_lines(o, r) == 0 &&
                  same_total(o, r, g) && size_of(o, g) != size_of(r, g) &&
                  same_variant(o->problem, r->problem);
    return others;
}

/* A result that fits a line of each kind belongs to the longer one. */
void report_find_growth(report *p)
{
    for (int i = 0; i < p->count; i++) {
        const bench_result *r = &p->results[i];
        p->growth[i] = GROWTH_NONE;
        if (!same_text(r->suite, "growth") || !has_place(r))
            continue;
        const int longer = others_in_line(p, r, GROWTH_CLASSES);
        const int more = others_in_line(p, r, GROWTH_ROWS);
        if (longer || more)
            p->growth[i] = longer >= more ? GROWTH_CLASSES : GROWTH_ROWS;
    }
}

static bool same_plot(const report *p, int i, int j)
{
    return p->growth[i] != GROWTH_NONE && p->growth[i] == p->growth[j] &&
           same_total(&p->results[i], &p->results[j], p->growth[i]) &&
           same_variant(p->results[i].problem, p->results[j].problem);
}

/* Scalar code and limits stand for problems of other sizes than they have, and some plots would show
 * nothing else. */
static bool shows_ballast(const bench_result *const *results, int count)
{
    bool any = false;
    for (int i = 0; i < count; i++)
        any |= is_ballast(results[i]);
    return any;
}

/* Line by line, each from its left end: of classes and rows one is the same all over the plot, or
 * falls as the other grows. */
static int by_line_and_size(const void *a, const void *b)
{
    const bench_result *const r = *(const bench_result *const *)a;
    const bench_result *const s = *(const bench_result *const *)b;
    int order = compare_lines(r, s);
    order = order ? order : compare(r->classes, s->classes);
    return order ? order : compare(r->rows, s->rows);
}

/* ---- Drawing --------------------------------------------------------------------------------- */

typedef struct plot {
    const report *p;
    growth kind;
    axis x, y;
    int lines;
} plot;

static plot plot_of(const report *p, growth kind, int count)
{
    double low[2] = {INFINITY, INFINITY}, high[2] = {0, 0};
    int lines = 1;
    for (int i = 0; i < count; i++) {
        const double at[2] = {size_of(p->group[i], kind), p->group[i]->ns_per_element};
        lines += i > 0 && compare_lines(p->group[i - 1], p->group[i]) != 0;
        for (int k = 0; k < 2; k++) {
            low[k] = fmin(low[k], at[k]);
            high[k] = fmax(high[k], at[k]);
        }
    }
    const double height = fmax(PLOT, (LABEL_HEIGHT + 2) * lines);
    return (plot){
        .p = p,
        .kind = kind,
        .x = axis_over(low[0], high[0], LEFT, WIDTH - RIGHT),
        .y = axis_over(low[1], high[1], TOP + height, TOP),
    };
}

static int by_height(const void *a, const void *b)
{
    return compare(((const line_end *)a)->at.y, ((const line_end *)b)->at.y);
}

/* Names keep the order of the lines: pushed down until none is on another, and up again from the
 * bottom. The plot is high enough for all. */
static void spread_names(line_end *ends, int count, double bottom)
{
    qsort(ends, (size_t)count, sizeof *ends, by_height);
    for (int i = 0; i < count; i++)
        ends[i].name = i ? fmax(ends[i].at.y, ends[i - 1].name + LABEL_HEIGHT) : ends[i].at.y;
    for (int i = count - 1; i >= 0; i--, bottom -= LABEL_HEIGHT)
        ends[i].name = fmin(ends[i].name, bottom);
}

static void name_lines(const plot *q)
{
    enum { GAP = 12 };
    char name[LABEL_SIZE], class[LABEL_SIZE];
    spread_names(q->p->ends, q->lines, q->y.from);
    for (const line_end *e = q->p->ends; e < q->p->ends + q->lines; e++) {
        const point at = {WIDTH - RIGHT + GAP, e->name};
        contender_label(name, e->result, true);
        snprintf(class, sizeof class, "label %s", contender_class(e->result));
        svg_line(q->p->out, "leader", (point){e->at.x + 5, e->at.y}, (point){at.x - 2, at.y});
        svg_text(q->p->out, class, (point){at.x, at.y + 4}, name);
    }
}

static void draw_line(plot *q, const bench_result *const *results, int count)
{
    char class[LABEL_SIZE], title[4 * LABEL_SIZE], name[LABEL_SIZE], value[NUMBER_SIZE];
    FILE *out = q->p->out;
    point *at = q->p->points;
    for (int i = 0; i < count; i++)
        at[i] = (point){axis_at(&q->x, size_of(results[i], q->kind)),
                        axis_at(&q->y, results[i]->ns_per_element)};
    contender_label(name, results[0], true);
    snprintf(class, sizeof class, "curve %s%s", contender_class(results[0]),
             results[0]->threads > 1 ? " threads" : "");
    svg_curve(out, class, at, count);
    snprintf(class, sizeof class, "mark %s%s", contender_class(results[0]),
             results[0]->threads > 1 ? " threads" : "");
    for (int i = 0; i < count; i++) {
        format_number(value, results[i]->ns_per_element);
        snprintf(title, sizeof title, "%s: %.0f × %.0f, %s ns per element", name, results[i]->rows,
                 results[i]->classes, value);
        svg_marker(out, class, contender_marker(results[i]), at[i], title);
    }
    q->p->ends[q->lines++] = (line_end){.result = results[0], .at = at[count - 1]};
}

static void print_caption(const report *p, growth kind, const bench_result *r)
{
    char size[TICK_SIZE];
    fputs("<figcaption><code>", p->out);
    print_variant(p->out, r->problem);
    fputs("</code> ", p->out);
    if (kind == GROWTH_CLASSES) {
        fprintf(p->out, "longer rows, 2<sup>%.0f</sup> elements in all", total_of(r));
    } else {
        format_count(size, r->classes);
        fprintf(p->out, "more rows of %s classes", size);
    }
    fputs("</figcaption>\n", p->out);
}

static void draw_plot(const report *p, growth kind, int count)
{
    qsort(p->group, (size_t)count, sizeof *p->group, by_line_and_size);
    plot q = plot_of(p, kind, count);
    fputs("<figure class=\"small\">", p->out);
    print_caption(p, kind, p->group[0]);
    svg_begin(p->out, "plot", WIDTH, q.y.from + BOTTOM, "time per element");
    axes_draw(p->out, &q.x, &q.y, kind == GROWTH_CLASSES ? "classes (elements of a row)" : "rows",
              "ns per element");
    for (int first = 0, next; first < count; first = next) {
        for (next = first + 1; next < count; next++)
            if (compare_lines(p->group[first], p->group[next]) != 0)
                break;
        draw_line(&q, p->group + first, next - first);
    }
    name_lines(&q);
    svg_end(p->out);
    fputs("</figure>\n", p->out);
}

void report_growth(const report *p)
{
    bool any = false;
    for (int i = 0; i < p->count; i++)
        any |= p->growth[i] != GROWTH_NONE && is_ballast(&p->results[i]);
    if (!any)
        return;
    fputs(
        "<section><h2>Growth</h2>\n<p>Time per element as rows grow longer or more. Both axes are "
        "logarithmic. Dashed lines and “×2” are runs on that many threads; dotted grey lines "
        "are limits.</p>\n<div class=\"plots\">\n",
        p->out);
    for (int i = 0; i < p->count; i++) {
        const int count = report_gather(p, i, same_plot);
        if (shows_ballast(p->group, count))
            draw_plot(p, p->growth[i], count);
    }
    fputs("</div></section>\n", p->out);
}
