/* SPDX-License-Identifier: MIT */
#include "axis.h"

#include <math.h>
#include <stdbool.h>

/* ---- Axes ------------------------------------------------------------------------------------ */

enum { STEPS = 3, LABELLED_DECADES = 7 };
static const double steps[STEPS] = {1, 2, 5};

/* Powers of ten stay well inside the range of a double. */
static const double least = 1e-290, most = 1e290;

/* Rounding of log10 and pow must not move a tick off the axis that ends in it. */
static const double slack = 1e-9;

static double step_below(double v)
{
    const double power = pow(10.0, floor(log10(v) + slack));
    double below = power;
    for (int i = 1; i < STEPS; i++)
        if (steps[i] * power <= v * (1 + slack))
            below = steps[i] * power;
    return below;
}

static double step_above(double v)
{
    const double below = step_below(v);
    if (below >= v * (1 - slack))
        return below;
    const double digit = below / pow(10.0, floor(log10(below) + slack));
    return below * (digit < 1.5 ? 2.0 : digit < 3.0 ? 2.5 : 2.0);
}

axis axis_over(double low, double high, double from, double to)
{
    if (!(low > 0.0) || !(high >= low) || !isfinite(high))
        return (axis){1.0, 10.0, from, to};
    low = step_below(fmax(least, fmin(low, most)));
    high = step_above(fmax(least, fmin(high, most)));
    while (high < 5.0 * low * (1 - slack)) {
        high = step_above(1.5 * high);
        if (high < 5.0 * low * (1 - slack))
            low = step_below(low / 1.5);
    }
    return (axis){low, high, from, to};
}

double axis_at(const axis *a, double value)
{
    const double inside = fmax(a->low, fmin(value, a->high));
    const double part = (log(inside) - log(a->low)) / (log(a->high) - log(a->low));
    return a->from + part * (a->to - a->from);
}

int axis_ticks(const axis *a, double ticks[AXIS_TICKS])
{
    const int first = (int)floor(log10(a->low) + slack), last = (int)ceil(log10(a->high) - slack);
    const int decades = last - first;
    const int used = decades <= 3 ? STEPS : 1;
    const int every = 1 + (decades - 1) / LABELLED_DECADES;
    int count = 0;
    for (int e = first; e <= last; e += every)
        for (int i = 0; i < used && count < AXIS_TICKS; i++) {
            const double v = steps[i] * pow(10.0, e);
            if (v >= a->low * (1 - slack) && v <= a->high * (1 + slack))
                ticks[count++] = v;
        }
    return count;
}

void axis_label(char text[TICK_SIZE], double value)
{
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1.0, ""}};
    int i = 0;
    while (i < 3 && value < units[i].unit * (1 - slack))
        i++;
    if (value < 1e-4 || value > 1e13)
        snprintf(text, TICK_SIZE, "%.0e", value);
    else
        snprintf(text, TICK_SIZE, "%.6g%s", value / units[i].unit, units[i].name);
}

static void draw_ticks(FILE *out, const axis *a, const axis *across, bool upright)
{
    double ticks[AXIS_TICKS];
    char text[TICK_SIZE];
    const int count = axis_ticks(a, ticks);
    for (int i = 0; i < count; i++) {
        const double at = axis_at(a, ticks[i]);
        axis_label(text, ticks[i]);
        if (upright) {
            svg_line(out, "grid", (point){across->from, at}, (point){across->to, at});
            svg_text(out, "tick end", (point){across->from - 6, at + 4}, text);
        } else {
            svg_line(out, "grid", (point){at, across->from}, (point){at, across->to});
            svg_text(out, "tick middle", (point){at, across->from + 16}, text);
        }
    }
}

void axes_draw(FILE *out, const axis *x, const axis *y, const char *below, const char *above)
{
    draw_ticks(out, x, y, false);
    draw_ticks(out, y, x, true);
    svg_line(out, "edge", (point){x->from, y->from}, (point){x->to, y->from});
    svg_text(out, "name end", (point){x->to, y->from + 33}, below);
    svg_text(out, "name", (point){2, y->to - 10}, above);
}

/* ---- Labels ---------------------------------------------------------------------------------- */

void layout_take(layout *l, box b)
{
    if (l->count < l->room)
        l->taken[l->count++] = b;
}

static bool apart(const box *a, const box *b)
{
    return a->x + a->width <= b->x || b->x + b->width <= a->x || a->y + a->height <= b->y ||
           b->y + b->height <= a->y;
}

static bool inside(const box *a, const box *frame)
{
    return a->x >= frame->x && a->y >= frame->y && a->x + a->width <= frame->x + frame->width &&
           a->y + a->height <= frame->y + frame->height;
}

int layout_is_free(const layout *l, box b)
{
    if (!inside(&b, &l->frame))
        return 0;
    for (int i = 0; i < l->count; i++)
        if (!apart(&b, &l->taken[i]))
            return 0;
    return 1;
}

double label_width(const char *text)
{
    int characters = 0;
    for (; *text; text++)
        characters += (*text & 0xc0) != 0x80; /* not the later bytes of one */
    return 6.4 * characters + 4;
}
