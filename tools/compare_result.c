/* SPDX-License-Identifier: MIT */
/* Verdicts, and how they are told: a table, JSON, Markdown, a page. */
#include "compare_result.h"

#include "../bench/statistics.h"
#include "json.h"
#include "output.h"
#include "report_parts.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void compare_warn(comparisons *c, const char *format, ...)
{
    va_list args;

    if (c->warning_count == COMPARE_WARNINGS)
        return;
    va_start(args, format);
    vsnprintf(c->warnings[c->warning_count++], COMPARE_TEXT, format, args);
    va_end(args);
}

/* ---- Verdicts -------------------------------------------------------------------------------- */

/* A regression is what is as large as the effect and not by chance; no regression, what the
 * interval says is smaller. What is left needs more runs, or fewer neighbours. */
static verdict judge(const comparison *c, double effect, double level)
{
    const bool by_chance = !(c->p <= level);

    if (!by_chance && c->ratio >= 1.0 + effect)
        return VERDICT_SLOWER;
    if (!by_chance && c->ratio <= 1.0 / (1.0 + effect))
        return VERDICT_FASTER;
    return c->high < 1.0 + effect ? VERDICT_SAME : VERDICT_UNCLEAR;
}

static bool has_times(const comparison *c)
{
    return c->verdict != VERDICT_ABSENT && c->verdict != VERDICT_BROKEN;
}

void compare_judge(comparisons *c)
{
    double *p = calloc((size_t)c->count + 1, sizeof *p);
    int n = 0;

    if (!p)
        abort();
    for (int i = 0; i < c->count; i++)
        if (has_times(&c->cases[i]))
            p[n++] = c->cases[i].p;
    adjust_for_count(p, n);
    n = 0;
    for (int i = 0; i < c->count; i++)
        if (has_times(&c->cases[i])) {
            c->cases[i].p = p[n++];
            c->cases[i].verdict = judge(&c->cases[i], c->effect, c->level);
        }
    free(p);
}

int compare_exit_code(const comparisons *c)
{
    bool unclear = false;

    for (int i = 0; i < c->count; i++) {
        const comparison *it = &c->cases[i];
        if (it->verdict == VERDICT_SLOWER || it->verdict == VERDICT_BROKEN
            || it->bits == BITS_DIFFERENT)
            return EXIT_CHECK_FAILED;
        unclear |= it->verdict == VERDICT_UNCLEAR;
    }
    if (c->problems_different)
        return EXIT_CHECK_FAILED;
    return unclear ? EXIT_UNCLEAR : EXIT_GOOD;
}

const char *verdict_name(verdict v)
{
    static const char *const names[] = {"same", "faster", "slower", "unclear", "absent", "broken"};
    return names[v];
}

static const char *bits_name(bits b)
{
    static const char *const names[] = {"-", "equal", "differ"};
    return names[b];
}

static int count_of(const comparisons *c, verdict v)
{
    int n = 0;

    for (int i = 0; i < c->count; i++)
        n += c->cases[i].verdict == v;
    return n;
}

static int different_bits(const comparisons *c)
{
    int n = 0;

    for (int i = 0; i < c->count; i++)
        n += c->cases[i].bits == BITS_DIFFERENT;
    return n;
}

/* "2 slower, 1 faster, 12 same; bits differ in 1" */
static void summary(const comparisons *c, char text[COMPARE_TEXT])
{
    static const verdict order[] = {VERDICT_BROKEN, VERDICT_SLOWER, VERDICT_UNCLEAR,
                                    VERDICT_FASTER, VERDICT_SAME, VERDICT_ABSENT};
    int length = 0;

    text[0] = '\0';
    for (int i = 0; i < 6; i++)
        if (count_of(c, order[i]))
            length += snprintf(text + length, (size_t)(COMPARE_TEXT - length), "%s%d %s",
                               length ? ", " : "", count_of(c, order[i]), verdict_name(order[i]));
    if (different_bits(c))
        length += snprintf(text + length, (size_t)(COMPARE_TEXT - length),
                           "; bits differ in %d", different_bits(c));
    if (c->problems_compared)
        snprintf(text + length, (size_t)(COMPARE_TEXT - length),
                 "; %d of %d more problems have other bits", c->problems_different,
                 c->problems_compared);
}

/* ---- Text ------------------------------------------------------------------------------------ */

static void format_time(char text[CELL_SIZE], double ns)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    int unit = 0;

    for (; ns >= 999.5 && unit < 3; unit++)
        ns /= 1000.0;
    if (ns > 0.0)
        snprintf(text, CELL_SIZE, "%.*f %s", ns < 9.995 ? 2 : ns < 99.95 ? 1 : 0, ns, units[unit]);
    else
        snprintf(text, CELL_SIZE, "-");
}

/* In percent; what rounds to nothing has no sign, or else it would look like a direction. */
static double percent(double ratio)
{
    const double change = 100 * (ratio - 1);

    return fabs(change) < 0.05 ? 0.0 : change;
}

static void format_change(char text[CELL_SIZE], const comparison *c)
{
    if (c->runs && isfinite(c->low) && isfinite(c->high))
        snprintf(text, CELL_SIZE, "%+.1f %% [%+.1f, %+.1f]", percent(c->ratio), percent(c->low),
                 percent(c->high));
    else if (c->runs)
        snprintf(text, CELL_SIZE, "%+.1f %%", percent(c->ratio));
    else
        snprintf(text, CELL_SIZE, "-");
}

static void format_p(char text[CELL_SIZE], const comparison *c)
{
    if (!c->runs)
        snprintf(text, CELL_SIZE, "-");
    else if (c->p < 1e-6)
        snprintf(text, CELL_SIZE, "< 1e-6");
    else
        snprintf(text, CELL_SIZE, "%.2g", c->p);
}

enum { COLUMN_OLD, COLUMN_NEW, COLUMN_CHANGE, COLUMN_P, COLUMN_RUNS, COLUMN_BITS, COLUMN_VERDICT,
       COLUMN_COUNT };
static const char *const heads[COLUMN_COUNT] = {
    "old", "new", "change [95 %]", "p", "runs", "bits", "verdict"};

static void format_cell(const comparison *c, int column, char text[CELL_SIZE])
{
    switch (column) {
    case COLUMN_OLD: format_time(text, c->ns[0]); break;
    case COLUMN_NEW: format_time(text, c->ns[1]); break;
    case COLUMN_CHANGE: format_change(text, c); break;
    case COLUMN_P: format_p(text, c); break;
    case COLUMN_RUNS: snprintf(text, CELL_SIZE, "%d", c->runs); break;
    case COLUMN_BITS: snprintf(text, CELL_SIZE, "%s", bits_name(c->bits)); break;
    default: snprintf(text, CELL_SIZE, "%s", verdict_name(c->verdict)); break;
    }
}

static style style_of(verdict v)
{
    switch (v) {
    case VERDICT_SLOWER:
    case VERDICT_BROKEN: return STYLE_ERROR;
    case VERDICT_FASTER: return STYLE_GOOD;
    case VERDICT_SAME: return STYLE_PLAIN;
    default: return STYLE_DIM;
    }
}

static void describe(const comparisons *c, int side, char text[COMPARE_TEXT])
{
    snprintf(text, COMPARE_TEXT, "%s%s%s%s%s", c->path[side], *c->version[side] ? ", " : "",
             c->version[side], *c->isa[side] ? ", " : "", c->isa[side]);
}

static void print_widths(const comparisons *c, int name_width, const int *width, int row)
{
    char text[CELL_SIZE];

    if (row < 0)
        printf("%s%-*s", output_style(stdout, STYLE_HEAD), name_width, "case");
    else
        printf("%s%-*s", output_style(stdout, style_of(c->cases[row].verdict)), name_width,
               c->cases[row].name);
    for (int k = 0; k < COLUMN_COUNT; k++) {
        if (row < 0)
            snprintf(text, sizeof text, "%s", heads[k]);
        else
            format_cell(&c->cases[row], k, text);
        printf("  %*s", width[k], text);
    }
    printf("%s\n", output_style(stdout, STYLE_PLAIN));
    if (row >= 0 && *c->cases[row].note)
        printf("  %s\n", c->cases[row].note);
}

static int larger(int a, size_t b) { return a > (int)b ? a : (int)b; }

void compare_print(const comparisons *c)
{
    int name_width = 4, width[COLUMN_COUNT];
    char text[COMPARE_TEXT];

    for (int k = 0; k < COLUMN_COUNT; k++)
        width[k] = (int)strlen(heads[k]);
    for (int i = 0; i < c->count; i++) {
        name_width = larger(name_width, strlen(c->cases[i].name));
        for (int k = 0; k < COLUMN_COUNT; k++) {
            char cell[CELL_SIZE];
            format_cell(&c->cases[i], k, cell);
            width[k] = larger(width[k], strlen(cell));
        }
    }
    for (int side = 0; side < 2; side++) {
        describe(c, side, text);
        printf("%s  %s\n", side ? "new" : "old", text);
    }
    for (int i = -1; i < c->count; i++)
        print_widths(c, name_width, width, i);
    if (*c->bits_note)
        printf("%s\n", c->bits_note);
    summary(c, text);
    printf("%s\n", text);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void write_case(json *j, const comparison *c)
{
    json_object(j, NULL);
    json_text(j, "name", c->name);
    json_text(j, "verdict", verdict_name(c->verdict));
    json_text(j, "bits", c->bits == BITS_NOT_COMPARED ? NULL : bits_name(c->bits));
    json_real(j, "old_ns", c->ns[0] > 0.0 ? c->ns[0] : NAN);
    json_real(j, "new_ns", c->ns[1] > 0.0 ? c->ns[1] : NAN);
    json_real(j, "ratio", c->runs ? c->ratio : NAN);
    json_real(j, "ratio_low", c->runs ? c->low : NAN);
    json_real(j, "ratio_high", c->runs ? c->high : NAN);
    json_real(j, "p", c->runs ? c->p : NAN);
    json_integer(j, "runs", c->runs);
    json_text(j, "note", *c->note ? c->note : NULL);
    json_end(j);
}

void compare_write_json(FILE *out, const comparisons *c)
{
    static const char *const sides[] = {"old", "new"};
    char text[COMPARE_TEXT];
    json j;

    json_begin(&j, out);
    for (int side = 0; side < 2; side++) {
        json_object(&j, sides[side]);
        json_text(&j, "path", c->path[side]);
        json_text(&j, "version", *c->version[side] ? c->version[side] : NULL);
        json_text(&j, "isa", *c->isa[side] ? c->isa[side] : NULL);
        json_end(&j);
    }
    json_text(&j, "kind", c->kind);
    json_real(&j, "effect", c->effect);
    json_real(&j, "level", c->level);
    json_integer(&j, "exit_code", compare_exit_code(c));
    summary(c, text);
    json_text(&j, "summary", text);
    json_integer(&j, "problems_compared", c->problems_compared);
    json_integer(&j, "problems_different", c->problems_different);
    json_text(&j, "bits_note", *c->bits_note ? c->bits_note : NULL);
    json_array(&j, "warnings");
    for (int i = 0; i < c->warning_count; i++)
        json_text(&j, NULL, c->warnings[i]);
    json_end(&j);
    json_array(&j, "cases");
    for (int i = 0; i < c->count; i++)
        write_case(&j, &c->cases[i]);
    json_end(&j);
    json_end(&j);
}

/* ---- Markdown -------------------------------------------------------------------------------- */

static void markdown_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("|\\`*_<>[]", *text))
            fputc('\\', out);
        fputc(*text, out);
    }
}

void compare_write_markdown(FILE *out, const comparisons *c)
{
    char text[COMPARE_TEXT];

    summary(c, text);
    fprintf(out, "**%s**\n\n| case |", text);
    for (int k = 0; k < COLUMN_COUNT; k++)
        fprintf(out, " %s |", heads[k]);
    fputs("\n|---|", out);
    for (int k = 0; k < COLUMN_COUNT; k++)
        fputs(k < COLUMN_BITS ? "---:|" : "---|", out);
    fputc('\n', out);
    for (int i = 0; i < c->count; i++) {
        fprintf(out, "| `%s` |", c->cases[i].name);
        for (int k = 0; k < COLUMN_COUNT; k++) {
            char cell[CELL_SIZE];
            const bool strong = k == COLUMN_VERDICT && c->cases[i].verdict != VERDICT_SAME;
            format_cell(&c->cases[i], k, cell);
            fprintf(out, " %s%s%s |", strong ? "**" : "", cell, strong ? "**" : "");
        }
        fputc('\n', out);
    }
    fputc('\n', out);
    for (int side = 0; side < 2; side++) {
        describe(c, side, text);
        fputs(side ? "- new: " : "- old: ", out);
        markdown_text(out, text);
        fputc('\n', out);
    }
    for (int i = 0; i < c->count; i++)
        if (*c->cases[i].note) {
            fprintf(out, "- `%s`: ", c->cases[i].name);
            markdown_text(out, c->cases[i].note);
            fputc('\n', out);
        }
    for (int i = 0; i < c->warning_count + (*c->bits_note != '\0'); i++) {
        fputs("- ", out);
        markdown_text(out, i < c->warning_count ? c->warnings[i] : c->bits_note);
        fputc('\n', out);
    }
}

/* ---- A page ---------------------------------------------------------------------------------- */

enum { PLOT_WIDTH = 260, PLOT_HEIGHT = 18 };

/* A change at its place between -span and span. */
static double place(double ratio, double span)
{
    const double change = fmax(-span, fmin(span, ratio - 1.0));
    return PLOT_WIDTH * (0.5 + 0.48 * change / span);
}

/* The interval as a line, its middle as a mark, 1 and the effect as lines behind it. */
static void draw(FILE *out, const comparison *c, double effect, double span)
{
    const double middle = 0.5 * PLOT_HEIGHT;

    svg_begin(out, "interval", PLOT_WIDTH, PLOT_HEIGHT, c->name);
    svg_line(out, "one", (point){place(1.0, span), 0}, (point){place(1.0, span), PLOT_HEIGHT});
    for (int sign = -1; sign <= 1; sign += 2) {
        const double x = place(1.0 + sign * effect, span);
        svg_line(out, "grid", (point){x, 0}, (point){x, PLOT_HEIGHT});
    }
    svg_line(out, "median", (point){place(c->low, span), middle},
             (point){place(c->high, span), middle});
    svg_marker(out, c->verdict == VERDICT_SLOWER ? "mark c-fast-math" : "mark c-ballast",
               c->verdict == VERDICT_SLOWER ? SQUARE : CIRCLE,
               (point){place(c->ratio, span), middle}, verdict_name(c->verdict));
    svg_end(out);
}

static void write_row(FILE *out, const comparisons *all, const comparison *c, double span)
{
    fprintf(out, "<tr%s><th><code>", c->verdict == VERDICT_SLOWER ? " class=\"own\"" : "");
    print_problem(out, c->name);
    fputs("</code>", out);
    if (*c->note) {
        fputs("<br/><span class=\"quiet\">", out);
        xml_text(out, c->note);
        fputs("</span>", out);
    }
    fputs("</th>", out);
    for (int k = 0; k < COLUMN_COUNT; k++) {
        char text[CELL_SIZE];
        format_cell(c, k, text);
        fputs(k >= COLUMN_BITS ? "<td class=\"text\">" : "<td>", out);
        xml_text(out, text);
        fputs("</td>", out);
    }
    fputs("<td>", out);
    if (c->runs)
        draw(out, c, all->effect, span);
    fputs("</td></tr>\n", out);
}

static void write_facts(FILE *out, const comparisons *c)
{
    char text[COMPARE_TEXT];

    fputs("<p>", out);
    for (int side = 0; side < 2; side++) {
        describe(c, side, text);
        fputs(side ? "<br/>new: " : "old: ", out);
        xml_text(out, text);
    }
    fputs("</p>\n", out);
    for (int i = 0; i < c->warning_count + (*c->bits_note != '\0'); i++) {
        fputs("<p><b>", out);
        xml_text(out, i < c->warning_count ? c->warnings[i] : c->bits_note);
        fputs("</b></p>\n", out);
    }
    fprintf(out, "<p>Slower and faster: by %.3g %% at least, and less likely than %.3g by chance, "
                 "with all cases taken together. Same: what the interval leaves possible is less. "
                 "Unclear: neither. Drawings reach from the old time, in the middle, to twice the "
                 "largest change and the effect; fine lines are the effect.</p>\n",
            100 * c->effect, c->level);
}

int compare_write_html(FILE *out, const comparisons *c)
{
    double span = 2.0 * c->effect;
    char text[COMPARE_TEXT];

    for (int i = 0; i < c->count; i++)
        if (c->cases[i].runs)
            span = fmax(span, 2.0 * fabs(c->cases[i].ratio - 1.0));
    fputs("<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n"
          "<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
          "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
          "<title>Ballast, old and new</title>\n", out);
    report_style(out);
    summary(c, text);
    fputs("</head>\n<body>\n<header><h1>Ballast, old and new</h1>\n<p>", out);
    xml_text(out, text);
    fputs("</p></header>\n", out);
    write_facts(out, c);
    fputs("<div class=\"wide\"><table class=\"numbers all\"><thead><tr>"
          "<th class=\"text\">case</th>", out);
    for (int k = 0; k < COLUMN_COUNT; k++)
        fprintf(out, "<th%s>%s</th>", k >= COLUMN_BITS ? " class=\"text\"" : "", heads[k]);
    fputs("<th></th></tr></thead><tbody>\n", out);
    for (int i = 0; i < c->count; i++)
        write_row(out, c, &c->cases[i], span);
    fputs("</tbody></table></div>\n</body>\n</html>\n", out);
    return fflush(out) == 0 && !ferror(out) ? 0 : -1;
}
