/* SPDX-License-Identifier: MIT */
/* What a plot needs besides shapes: logarithmic axes, and room for labels. */
#ifndef BALLAST_TOOLS_AXIS_H
#define BALLAST_TOOLS_AXIS_H

#include "svg.h"

/* Values low to high stand at coordinates from to to, which may run downwards. */
typedef struct axis {
    double low, high, from, to;
} axis;

/* Both ends are rounded outwards to 1, 2 or 5 times a power of ten, a factor of five apart at
 * least. Where there is no positive range: 1 to 10. */
axis axis_over(double low, double high, double from, double to);

/* The coordinate of a value; beyond the ends, that of the end. */
double axis_at(const axis *a, double value);

enum { AXIS_TICKS = 24, TICK_SIZE = 24 };

/* Ticks at 1, 2 and 5 on short axes, at powers of ten on longer ones. Returns how many. */
int axis_ticks(const axis *a, double ticks[AXIS_TICKS]);

/* "0.05", "200", "5k", "1M". */
void axis_label(char text[TICK_SIZE], double value);

/* The area between two axes, with grid, ticks and the names of both: `below` in the lower right
 * corner, `above` over the vertical axis, so that nobody has to turn the head. */
void axes_draw(FILE *out, const axis *x, const axis *y, const char *below, const char *above);

/* ---- Labels ---------------------------------------------------------------------------------- */

typedef struct box {
    double x, y, width, height; /* upper left corner */
} box;

/* Where something stands already. */
typedef struct layout {
    box frame; /* labels stay inside */
    box *taken;
    int count, room;
} layout;

void layout_take(layout *l, box b); /* forgotten where the room is over */
int layout_is_free(const layout *l, box b);

enum { LABEL_HEIGHT = 13 };

/* Width of a label, estimated from above: no font is at hand. */
double label_width(const char *text);

#endif
