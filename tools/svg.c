/* SPDX-License-Identifier: MIT */
#include "svg.h"

#include "utf8.h"

#include <math.h>
#include <string.h>

/* ---- Text ------------------------------------------------------------------------------------ */

/* XML 1.0 has neither most control characters nor U+FFFE and U+FFFF (ef bf be, ef bf bf). */
static int is_xml(const char *s, int length)
{
    const unsigned char c = (unsigned char)s[0];
    if (length == 1)
        return c >= ' ' ? c != 0x7f : c == '\t' || c == '\n';
    return length != 3 || memcmp(s, "\xef\xbf\xbe", 3) < 0 || memcmp(s, "\xef\xbf\xbf", 3) > 0;
}

static const char *entity(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    default:
        return NULL;
    }
}

void xml_part(FILE *out, const char *text, size_t length)
{
    for (size_t i = 0; i < length && text[i];) {
        int n = utf8_length((const unsigned char *)text + i);
        const char *escaped = entity(text[i]);
        if (n == 0 || (size_t)n > length - i || !is_xml(text + i, n))
            fputs("\xef\xbf\xbd", out);
        else if (escaped)
            fputs(escaped, out);
        else
            fwrite(text + i, 1, (size_t)n, out);
        i += n ? (size_t)n : 1;
    }
}

void xml_text(FILE *out, const char *text)
{
    if (text)
        xml_part(out, text, strlen(text));
}

/* ---- Shapes ---------------------------------------------------------------------------------- */

/* A tenth of a unit is finer than a screen. What is no number has no place: callers leave it out,
 * and here it must not spoil the file. */
static double coordinate(double v) { return isfinite(v) ? fmax(-1e5, fmin(v, 1e5)) : 0.0; }

static void attribute(FILE *out, const char *name, double v)
{
    fprintf(out, " %s=\"%.1f\"", name, coordinate(v));
}

static void begin(FILE *out, const char *element, const char *class)
{
    fprintf(out, "<%s class=\"%s\"", element, class);
}

void svg_begin(FILE *out, const char *class, double width, double height, const char *title)
{
    begin(out, "svg", class);
    fprintf(out,
            " xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 %.0f %.0f\">"
            "<title>",
            coordinate(width), coordinate(height));
    xml_text(out, title);
    fputs("</title>\n", out);
}

void svg_end(FILE *out) { fputs("</svg>\n", out); }

void svg_line(FILE *out, const char *class, point from, point to)
{
    begin(out, "line", class);
    attribute(out, "x1", from.x);
    attribute(out, "y1", from.y);
    attribute(out, "x2", to.x);
    attribute(out, "y2", to.y);
    fputs("/>\n", out);
}

void svg_rect(FILE *out, const char *class, point corner, double width, double height)
{
    begin(out, "rect", class);
    attribute(out, "x", corner.x);
    attribute(out, "y", corner.y);
    attribute(out, "width", fmax(width, 0.0));
    attribute(out, "height", fmax(height, 0.0));
    fputs("/>\n", out);
}

void svg_text(FILE *out, const char *class, point at, const char *text)
{
    begin(out, "text", class);
    attribute(out, "x", at.x);
    attribute(out, "y", at.y);
    fputs(">", out);
    xml_text(out, text);
    fputs("</text>\n", out);
}

void svg_turned_text(FILE *out, const char *class, point at, double degrees, const char *text)
{
    fprintf(out, "<g transform=\"translate(%.1f %.1f) rotate(%.1f)\">", coordinate(at.x),
            coordinate(at.y), coordinate(degrees));
    svg_text(out, class, (point){0, 0}, text);
    fputs("</g>\n", out);
}

void svg_curve(FILE *out, const char *class, const point *points, int count)
{
    begin(out, "polyline", class);
    fputs(" points=\"", out);
    for (int i = 0; i < count; i++)
        fprintf(out, "%s%.1f,%.1f", i ? " " : "", coordinate(points[i].x), coordinate(points[i].y));
    fputs("\"/>\n", out);
}

void svg_marker(FILE *out, const char *class, marker shape, point at, const char *title)
{
    /* About a point at the origin, of about the same area. */
    static const char *const outline[MARKERS] = {
        [CIRCLE] = "M-4,0a4,4 0 1 0 8,0a4,4 0 1 0 -8,0z",
        [SQUARE] = "M-3.6,-3.6h7.2v7.2h-7.2z",
        [TRIANGLE] = "M0,-4.8l4.7,8.2h-9.4z",
        [DIAMOND] = "M0,-5l5,5l-5,5l-5,-5z",
        [CROSS] = ("M-4.4,-2.6l1.8,-1.8l2.6,2.6l2.6,-2.6l1.8,1.8l-2.6,2.6l2.6,2.6l-1.8,1.8"
                   "l-2.6,-2.6l-2.6,2.6l-1.8,-1.8l2.6,-2.6z"),
    };
    begin(out, "path", class);
    fprintf(out, " transform=\"translate(%.1f %.1f)\" d=\"%s\"><title>", coordinate(at.x),
            coordinate(at.y), outline[shape % MARKERS]);
    xml_text(out, title);
    fputs("</title></path>\n", out);
}
