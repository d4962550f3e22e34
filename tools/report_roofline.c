/* SPDX-License-Identifier: MIT */
/* The roofline plot (Williams, Waterman and Patterson, CACM 52, 2009): how many operations a core
 * does a cycle, against how many there are to do for each byte; above them what memory and the
 * arithmetic units allow. */
#include "report_parts.h"

#include <math.h>
#include <string.h>

static const double PI = 0x1.921fb54442d18p+1;
static const char *const standard_names[LEVELS] = {"L1", "L2", "L3", "memory"};

enum { WIDTH = 860, HEIGHT = 520, LEFT = 48, RIGHT = 20, TOP = 32, BOTTOM = 42 };

/* A roof rises with the bytes that a level delivers, as far as the peak; 0: unknown. */
typedef struct roof {
    const bench_machine *m;
    bool in_cycles; /* else in nanoseconds, where the clock is not known */
} roof;

static double slope_of(const roof *f, int level)
{
    const double gbps = f->m->level_gbps[level];
    return !is_known(gbps) ? 0.0 : f->in_cycles ? gbps / f->m->clock_ghz : gbps;
}

/* Short enough for a label and for a column. */
static const char *level_name(const roof *f, int level)
{
    const char *name = f->m->level_name[level];
    return name && name[0] && strlen(name) <= 20 ? name : standard_names[level];
}

static double peak_of(const roof *f)
{
    return f->in_cycles && is_known(f->m->peak_flops_per_cycle) ? f->m->peak_flops_per_cycle : 0.0;
}

static double intensity_of(const bench_result *r)
{
    return r->flops_per_element / (r->bytes / r->elements);
}

static double speed_of(const roof *f, const bench_result *r)
{
    return r->flops_per_element / (f->in_cycles ? r->cycles_per_element : r->ns_per_element);
}

/* The nearest level that holds the bytes of a case; the last one known holds everything. */
static int level_of(const roof *f, double bytes)
{
    int level = -1;
    for (int i = 0; i < LEVELS; i++)
        if (slope_of(f, i) > 0.0) {
            level = i;
            if (bytes <= f->m->level_bytes[i])
                break;
        }
    return level;
}

static double roof_above(const roof *f, const bench_result *r)
{
    const int level = level_of(f, r->bytes);
    const double rising = level < 0 ? INFINITY : slope_of(f, level) * intensity_of(r);
    return fmin(rising, peak_of(f) > 0.0 ? peak_of(f) : INFINITY);
}

/* ---- Which results --------------------------------------------------------------------------- */

static bool has_place(const roof *f, const bench_result *r)
{
    return is_ballast(r) && r->threads <= 1 && is_known(r->flops_per_element) &&
           is_known(r->ns_per_element) && is_known(intensity_of(r)) && is_known(speed_of(f, r));
}

/* One point for each problem: the fastest ISA, in the first of equal runs. */
static bool is_shown(const report *p, const roof *f, int i)
{
    const bench_result *r = &p->results[i];
    if (p->growth[i] != GROWTH_NONE || !has_place(f, r))
        return false;
    for (int j = 0; j < p->count; j++) {
        const bench_result *o = &p->results[j];
        const bool better = o->ns_per_element < r->ns_per_element ||
                            (o->ns_per_element == r->ns_per_element && j < i);
        if (better && has_place(f, o) && same_text(o->problem, r->problem) &&
            same_text(o->pages, r->pages))
            return false;
    }
    return true;
}

static int gather(const report *p, const roof *f)
{
    int count = 0;
    for (int i = 0; i < p->count; i++)
        if (is_shown(p, f, i))
            p->group[count++] = &p->results[i];
    return count;
}

/* ---- The plot -------------------------------------------------------------------------------- */

typedef struct plot {
    const report *p;
    roof f;
    axis x, y;
    layout labels;
} plot;

static void widen(double range[2], double v)
{
    if (is_known(v)) {
        range[0] = fmin(range[0], v);
        range[1] = fmax(range[1], v);
    }
}

/* Wide enough for every point, the roof above it, and the edge where each roof meets the peak. */
static plot plot_of(const report *p, roof f, int count)
{
    double x[2] = {INFINITY, 0}, y[2] = {INFINITY, 0};
    const double peak = peak_of(&f);
    for (int i = 0; i < count; i++) {
        widen(x, intensity_of(p->group[i]) / 2);
        widen(x, intensity_of(p->group[i]) * 2);
        widen(y, speed_of(&f, p->group[i]) / 1.5);
        widen(y, roof_above(&f, p->group[i]));
    }
    for (int i = 0; i < LEVELS && peak > 0.0; i++)
        if (slope_of(&f, i) > 0.0) {
            widen(x, 0.3 * peak / slope_of(&f, i)); /* room for a name on the steepest */
            widen(x, 1.2 * peak / slope_of(&f, i));
        }
    widen(y, 1.2 * peak);
    return (plot){
        .p = p,
        .f = f,
        .x = axis_over(x[0], x[1], LEFT, WIDTH - RIGHT),
        .y = axis_over(y[0], y[1], HEIGHT - BOTTOM, TOP),
        .labels = {.frame = {LEFT + 2, TOP, WIDTH - RIGHT - LEFT - 2, HEIGHT - BOTTOM - TOP},
                   .taken = p->boxes,
                   .room = 2 * p->count + ROOF_BOXES},
    };
}

static point at_point(const plot *q, double x, double y)
{
    return (point){axis_at(&q->x, x), axis_at(&q->y, y)};
}

static bool put_label(plot *q, const char *class, double x, double y, const char *text)
{
    const box b = {x, y, label_width(text), LABEL_HEIGHT};
    if (!layout_is_free(&q->labels, b))
        return false;
    layout_take(&q->labels, b);
    svg_text(q->p->out, class, (point){x + 2, y + LABEL_HEIGHT - 3}, text);
    return true;
}

/* What a text of this width on a slanting line covers: a chain of small boxes along it. */
enum { LINKS = 16 };

static bool is_chain_free(const layout *l, point start, point step, box chain[LINKS])
{
    for (int i = 0; i < LINKS; i++) {
        chain[i] = (box){start.x + i * step.x - 6, start.y + i * step.y - 12, 8, 12};
        if (!layout_is_free(l, chain[i]))
            return false;
    }
    return true;
}

/* Along the line and above it, as far left as there is room. */
static void name_roof(plot *q, const char *class, point from, point to, const char *text)
{
    enum { PLACES = 40, OFF_THE_LINE = 4 };
    box chain[LINKS];
    const double length = hypot(to.x - from.x, to.y - from.y), width = label_width(text);
    const point along = {(to.x - from.x) / length, (to.y - from.y) / length};
    const point step = {along.x * width / LINKS, along.y * width / LINKS};
    for (int i = 0; i < PLACES; i++) {
        const double at = 12 + i * (length - width) / PLACES;
        const point start = {from.x + at * along.x + OFF_THE_LINE * along.y,
                             from.y + at * along.y - OFF_THE_LINE * along.x};
        if (at + width > length || !is_chain_free(&q->labels, start, step, chain))
            continue;
        for (int k = 0; k < LINKS; k++)
            layout_take(&q->labels, chain[k]);
        svg_turned_text(q->p->out, class, start, 180 / PI * atan2(along.y, along.x), text);
        return;
    }
}

/* Only the part within the axes: a clamped end would bend the line. */
static void draw_rising(plot *q, int level)
{
    char class[LABEL_SIZE], text[LABEL_SIZE];
    const double slope = slope_of(&q->f, level), peak = peak_of(&q->f);
    const double top = peak > 0.0 ? fmin(peak, q->y.high) : q->y.high;
    const double from = fmax(q->x.low, q->y.low / slope), to = fmin(q->x.high, top / slope);
    if (!(slope > 0.0) || !(from < to) || !isfinite(to))
        return;
    snprintf(class, sizeof class, "roof level%d", level);
    const point left = at_point(q, from, slope * from), right = at_point(q, to, slope * to);
    svg_line(q->p->out, class, left, right);
    snprintf(text, sizeof text, "%s %.4g GB/s", level_name(&q->f, level),
             q->f.m->level_gbps[level]);
    snprintf(class, sizeof class, "label level%d", level);
    name_roof(q, class, left, right, text);
}

/* From where the steepest roof meets it. */
static void draw_peak(plot *q)
{
    char text[LABEL_SIZE];
    const double peak = peak_of(&q->f);
    double steepest = 0.0;
    if (!(peak > 0.0))
        return;
    for (int i = 0; i < LEVELS; i++)
        steepest = fmax(steepest, slope_of(&q->f, i));
    const point end = at_point(q, q->x.high, peak);
    const double from = steepest > 0.0 ? peak / steepest : q->x.low;
    svg_line(q->p->out, "roof peak", at_point(q, from, peak), end);
    snprintf(text, sizeof text, "peak: %.4g a cycle", peak);
    put_label(q, "label", end.x - label_width(text) - 4, end.y - LABEL_HEIGHT - 2, text);
}

static const char *level_class(const plot *q, const bench_result *r, char text[LABEL_SIZE])
{
    const int level = level_of(&q->f, r->bytes);
    snprintf(text, LABEL_SIZE, "mark level%d", level < 0 ? 0 : level);
    return text;
}

/* Around the point, nearest first. */
static bool name_point(plot *q, point at, const char *text)
{
    const double width = label_width(text);
    for (int ring = 0; ring < 12; ring++) {
        const double away = 7 + 4 * ring, up = at.y - LABEL_HEIGHT / 2.0;
        const box places[] = {
            {at.x + away, up, 0, 0},
            {at.x - away - width, up, 0, 0},
            {at.x + away, up - away, 0, 0},
            {at.x + away, up + away, 0, 0},
            {at.x - away - width, up - away, 0, 0},
            {at.x - away - width, up + away, 0, 0},
            {at.x - width / 2, up - away - 4, 0, 0},
            {at.x - width / 2, up + away + 4, 0, 0},
        };
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            const box b = places[i];
            if (!layout_is_free(&q->labels, (box){b.x, b.y, width, LABEL_HEIGHT}))
                continue;
            if (ring > 2)
                svg_line(q->p->out, "leader", at,
                         (point){fmax(b.x, fmin(at.x, b.x + width)), b.y + LABEL_HEIGHT / 2.0});
            return put_label(q, "label", b.x, b.y, text);
        }
    }
    return false;
}

/* Number and problem where there is room, else the number; the table below has both. */
static void name_points(plot *q, int count)
{
    for (int i = 0; i < count; i++) {
        char number[NUMBER_SIZE], problem[LABEL_SIZE], text[LABEL_SIZE + NUMBER_SIZE];
        const bench_result *r = q->p->group[i];
        const point at = at_point(q, intensity_of(r), speed_of(&q->f, r));
        problem_label(problem, r);
        snprintf(number, sizeof number, "%d", i + 1);
        snprintf(text, sizeof text, "%s %s", number, problem);
        if (count > 30 || !name_point(q, at, text))
            name_point(q, at, number);
    }
}

static void draw_points(plot *q, int count)
{
    char class[LABEL_SIZE];
    for (int i = 0; i < count; i++) {
        const bench_result *r = q->p->group[i];
        const point at = at_point(q, intensity_of(r), speed_of(&q->f, r));
        const int level = level_of(&q->f, r->bytes);
        layout_take(&q->labels, (box){at.x - 5, at.y - 5, 10, 10});
        svg_marker(q->p->out, level_class(q, r, class), level < 0 ? CIRCLE : (marker)level, at,
                   r->problem);
    }
}

static void draw(const report *p, roof f, int count)
{
    plot q = plot_of(p, f, count);
    fputs("<div class=\"wide\">", p->out);
    svg_begin(p->out, "plot roofline", WIDTH, HEIGHT, "roofline");
    axes_draw(p->out, &q.x, &q.y, "FMA-class operations per byte of necessary traffic",
              f.in_cycles ? "FMA-class operations per cycle, one core"
                          : "FMA-class operations per nanosecond, one core");
    for (int i = 0; i < LEVELS; i++)
        draw_rising(&q, i);
    draw_peak(&q);
    draw_points(&q, count);
    name_points(&q, count);
    svg_end(p->out);
    fputs("</div>\n", p->out);
}

/* ---- The key --------------------------------------------------------------------------------- */

static void print_point(const report *p, const roof *f, int i)
{
    const bench_result *r = p->group[i];
    const int level = level_of(f, r->bytes);
    fprintf(p->out, "<tr><td>%d</td><th><code>", i + 1);
    print_problem(p->out, r->problem);
    fputs("</code></th><td class=\"text\">", p->out);
    xml_text(p->out, r->isa);
    fputs("</td><td class=\"text\">", p->out);
    xml_text(p->out, level < 0 ? "–" : level_name(f, level));
    fputs("</td>", p->out);
    print_cell(p->out, intensity_of(r));
    print_cell(p->out, speed_of(f, r));
    print_percent_cell(p->out, speed_of(f, r) / roof_above(f, r));
    fputs("</tr>\n", p->out);
}

void report_roofline(const report *p)
{
    const roof f = {p->machine, is_known(p->machine->clock_ghz)};
    const int count = gather(p, &f);
    fputs("<section><h2>Roofline</h2>\n", p->out);
    if (count == 0) {
        fputs("<p>Nothing to plot: no result of one thread comes with its operations and its "
              "traffic, but for those that are drawn as growth.</p></section>\n",
              p->out);
        return;
    }
    fputs(
        "<p>Each point is Ballast’s fastest ISA on one problem, one thread. Lines are what one "
        "core can do: sloping ones read each level as fast as was measured, the flat one keeps its "
        "arithmetic units busy. Shape and colour of a point are those of the level that holds its "
        "necessary traffic.</p>\n",
        p->out);
    draw(p, f, count);
    fprintf(
        p->out,
        "<h3>The points by number</h3>\n<div class=\"wide\">"
        "<table class=\"numbers long\"><thead><tr><th></th><th class=\"text\">problem</th>"
        "<th class=\"text\">ISA</th><th class=\"text\">fits in</th><th>operations<br/>per byte</th>"
        "<th>operations<br/>per %s</th><th>%% of<br/>the roof</th></tr></thead><tbody>\n",
        f.in_cycles ? "cycle" : "ns");
    for (int i = 0; i < count; i++)
        print_point(p, &f, i);
    fputs("</tbody></table></div></section>\n", p->out);
}
