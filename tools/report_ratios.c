/* SPDX-License-Identifier: MIT */
/* The run at a glance: how many times as long as Ballast each competitor takes. */
#include "report_parts.h"

#include <math.h>
#include <stdlib.h>

enum { WIDTH = 860, LEFT = 130, RIGHT = 20, TOP = 8, ROW = 30, BOTTOM = 44 };

static bool is_competitor(const bench_result *r)
{
    return !r->is_roofline && !is_ballast(r) && is_known(r->ratio);
}

static bool same_competitor(const report *p, int i, int j)
{
    const bench_result *a = &p->results[i], *b = &p->results[j];
    return is_competitor(a) && is_competitor(b) && same_text(a->contender, b->contender) &&
           same_text(a->isa, b->isa);
}

static int by_ratio(const void *a, const void *b)
{
    const double x = (*(const bench_result *const *)a)->ratio;
    const double y = (*(const bench_result *const *)b)->ratio;
    return (x > y) - (x < y);
}

/* The middle one, of an even number the lower. */
static double median(const report *p, int count) { return p->group[(count - 1) / 2]->ratio; }

/* The next group of one competitor, sorted; 0 after the last. */
static int next_group(const report *p, int *i)
{
    int count = 0;
    while (count == 0 && *i < p->count)
        count = report_gather(p, (*i)++, same_competitor);
    qsort(p->group, (size_t)count, sizeof *p->group, by_ratio);
    return count;
}

/* ---- The plot -------------------------------------------------------------------------------- */

/* Covers 1, which everybody looks for. Returns the number of rows. */
static int find_range(const report *p, double *low, double *high)
{
    int rows = 0, i = 0, count;
    *low = *high = 1.0;
    for (; (count = next_group(p, &i)) > 0; rows++) {
        *low = fmin(*low, p->group[0]->ratio);
        *high = fmax(*high, p->group[count - 1]->ratio);
    }
    return rows;
}

static void draw_row(const report *p, const axis *x, double y, int count)
{
    char name[LABEL_SIZE], class[LABEL_SIZE];
    contender_label(name, p->group[0], false);
    svg_text(p->out, "label end", (point){LEFT - 14, y + 4}, name);
    svg_line(p->out, "grid", (point){LEFT, y}, (point){x->to, y});
    snprintf(class, sizeof class, "mark faint %s", contender_class(p->group[0]));
    for (int i = 0; i < count; i++)
        svg_marker(p->out, class, contender_marker(p->group[0]),
                   (point){axis_at(x, p->group[i]->ratio), y}, p->group[i]->problem);
    const double middle = axis_at(x, median(p, count));
    svg_line(p->out, "median", (point){middle, y - 11}, (point){middle, y + 11});
}

static void draw(const report *p, const axis *x, int rows)
{
    const double bottom = TOP + ROW * rows;
    double ticks[AXIS_TICKS];
    char text[TICK_SIZE];
    int i = 0, count;
    svg_begin(p->out, "plot", WIDTH, bottom + BOTTOM, "time over ballast's");
    for (int t = axis_ticks(x, ticks) - 1; t >= 0; t--) {
        const double at = axis_at(x, ticks[t]);
        axis_label(text, ticks[t]);
        svg_line(p->out, "grid", (point){at, TOP}, (point){at, bottom});
        svg_text(p->out, "tick middle", (point){at, bottom + 16}, text);
    }
    svg_line(p->out, "one", (point){axis_at(x, 1), TOP}, (point){axis_at(x, 1), bottom});
    svg_text(p->out, "name end", (point){x->to, bottom + 34},
             "time ÷ Ballast’s; right of 1 Ballast is faster");
    for (double y = TOP + ROW / 2.0; (count = next_group(p, &i)) > 0; y += ROW)
        draw_row(p, x, y, count);
    svg_end(p->out);
}

/* ---- The table ------------------------------------------------------------------------------- */

static void print_row(const report *p, int count)
{
    char name[LABEL_SIZE];
    int faster = 0, slower = 0;
    for (int i = 0; i < count; i++) {
        const bench_result *r = p->group[i];
        faster += is_known(r->ratio_low) && r->ratio_low > 1.0;
        slower += is_known(r->ratio_high) && r->ratio_high < 1.0;
    }
    contender_label(name, p->group[0], false);
    fputs("<tr><th>", p->out);
    xml_text(p->out, name);
    fprintf(p->out, "</th><td>%d</td>", count);
    print_cell(p->out, p->group[0]->ratio);
    print_cell(p->out, median(p, count));
    print_cell(p->out, p->group[count - 1]->ratio);
    fprintf(p->out, "<td>%d</td><td>%d</td></tr>\n", faster, slower);
}

void report_ratios(const report *p)
{
    double low, high;
    int i = 0, count;
    const int rows = find_range(p, &low, &high);
    if (rows == 0)
        return;
    const axis x = axis_over(low, high, LEFT, WIDTH - RIGHT);
    fputs("<section><h2>Against each competitor</h2>\n<p>How many times as long as Ballast each "
          "takes: a mark per result, a bar at the median.</p>\n<div class=\"wide\">",
          p->out);
    draw(p, &x, rows);
    fputs("</div>\n<div class=\"wide\"><table class=\"numbers\"><thead><tr>"
          "<th class=\"text\">competitor</th><th>results</th><th>least</th><th>median</th><th>most</th>"
          "<th>Ballast faster*</th><th>slower*</th></tr></thead><tbody>\n",
          p->out);
    while ((count = next_group(p, &i)) > 0)
        print_row(p, count);
    fputs("</tbody></table></div>\n<p class=\"quiet\">* The whole 95 % interval is on that side of "
          "1; where it holds 1, this run does not tell.</p></section>\n",
          p->out);
}
