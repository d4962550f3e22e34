/* SPDX-License-Identifier: MIT */
/* Escaped text and SVG shapes, one line of the file each. Colours, anchors and widths belong to the
 * style sheet: a shape names a class. Coordinates are in units of the picture. */
#ifndef BALLAST_TOOLS_SVG_H
#define BALLAST_TOOLS_SVG_H

#include <stddef.h>
#include <stdio.h>

typedef struct point {
    double x, y;
} point;

/* Shapes that are told apart without colour. */
typedef enum marker { CIRCLE, SQUARE, TRIANGLE, DIAMOND, CROSS, MARKERS } marker;

/* Text for an element or an attribute. What XML cannot hold is written as U+FFFD; NULL is "". */
void xml_text(FILE *out, const char *text);
void xml_part(FILE *out, const char *text, size_t length);

/* Everything until svg_end is in the picture; `title` is what a screen reader says. */
void svg_begin(FILE *out, const char *class, double width, double height, const char *title);
void svg_end(FILE *out);

void svg_line(FILE *out, const char *class, point from, point to);
void svg_rect(FILE *out, const char *class, point corner, double width, double height);
void svg_text(FILE *out, const char *class, point at, const char *text);
void svg_turned_text(FILE *out, const char *class, point at, double degrees, const char *text);
void svg_curve(FILE *out, const char *class, const point *points, int count);
void svg_marker(FILE *out, const char *class, marker shape, point at, const char *title);

#endif
