/* SPDX-License-Identifier: MIT */
#include "report_parts.h"

#include "utf8.h"

#include <math.h>
#include <string.h>

/* ---- Numbers --------------------------------------------------------------------------------- */

bool is_known(double v) { return isfinite(v) && v > 0.0; }

void format_number(char text[NUMBER_SIZE], double v)
{
    if (!is_known(v))
        snprintf(text, NUMBER_SIZE, "–");
    else if (v >= 1e6 || v < 1e-3)
        snprintf(text, NUMBER_SIZE, "%.2e", v);
    else
        snprintf(text, NUMBER_SIZE, "%.*f", v < 10 ? 3 : v < 100 ? 2 : v < 1000 ? 1 : 0, v);
}

void print_number(FILE *out, double v)
{
    char text[NUMBER_SIZE];
    format_number(text, v);
    fputs(text, out);
}

void print_cell(FILE *out, double v)
{
    fputs("<td>", out);
    print_number(out, v);
    fputs("</td>", out);
}

void print_percent_cell(FILE *out, double fraction)
{
    if (is_known(fraction) && fraction < 1e4)
        fprintf(out, "<td>%.1f</td>", 100 * fraction);
    else
        print_cell(out, 100 * fraction);
}

/* Two digits after the point say enough of a ratio, but not of a small one. */
static void format_ratio(char text[NUMBER_SIZE], double v)
{
    if (v >= 0.1 && v < 1000)
        snprintf(text, NUMBER_SIZE, "%.2f", v);
    else
        format_number(text, v);
}

void print_ratio(FILE *out, const bench_result *r)
{
    char text[NUMBER_SIZE], low[NUMBER_SIZE], high[NUMBER_SIZE];
    format_ratio(text, r->ratio);
    format_ratio(low, r->ratio_low);
    format_ratio(high, r->ratio_high);
    fputs(text, out);
    if (is_known(r->ratio_low) && is_known(r->ratio_high))
        fprintf(out, " <span class=\"quiet\">[%s, %s]</span>", low, high);
}

void format_bytes(char text[NUMBER_SIZE], double bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    int i = 0;
    for (; i < 4 && bytes >= 1024; i++)
        bytes /= 1024;
    snprintf(text, NUMBER_SIZE, "%.4g %s", bytes, units[i]);
}

void format_count(char text[TICK_SIZE], double v)
{
    if (v < 1e6)
        snprintf(text, TICK_SIZE, "%.0f", v);
    else
        axis_label(text, v);
}

/* ---- Results --------------------------------------------------------------------------------- */

int compare_text(const char *a, const char *b) { return strcmp(a ? a : "", b ? b : ""); }

bool same_text(const char *a, const char *b) { return compare_text(a, b) == 0; }

bool is_ballast(const bench_result *r) { return same_text(r->contender, "ballast"); }

bool same_case(const bench_result *a, const bench_result *b)
{
    return a->threads == b->threads && same_text(a->problem, b->problem) &&
           same_text(a->suite, b->suite) && same_text(a->pages, b->pages);
}

typedef struct look {
    const char *contender, *class;
    marker shape;
} look;

static const look looks[] = {
    {"ballast", "c-ballast", CIRCLE}, {"fast-math", "c-fast-math", SQUARE},
    {"sleef", "c-sleef", TRIANGLE},   {"onednn", "c-onednn", DIAMOND},
    {"scalar", "c-scalar", CROSS},
};
static const look limit = {"", "c-limit", CROSS}, other = {"", "c-other", SQUARE};

static const look *look_of(const bench_result *r)
{
    if (r->is_roofline)
        return &limit;
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++)
        if (same_text(r->contender, looks[i].contender))
            return &looks[i];
    return &other;
}

const char *contender_class(const bench_result *r) { return look_of(r)->class; }
marker contender_marker(const bench_result *r) { return look_of(r)->shape; }

/* Ends a text of more than `characters` with an ellipsis; never within a character. */
static void cut_off(char *text, int characters)
{
    char *s = text, *last = text;
    for (int i = 0; *s; i++) {
        const int n = utf8_length((const unsigned char *)s);
        if (i == characters - 1)
            last = s;
        if (i == characters) {
            strcpy(last, "…");
            return;
        }
        s += n ? n : 1;
    }
}

/* What snprintf cut within a character must not be shown as one that is broken. */
static void mend_end(char text[LABEL_SIZE])
{
    size_t end = strlen(text);
    if (end + 1 < LABEL_SIZE)
        return;
    while (end > 0 && (text[end - 1] & 0xc0) == 0x80)
        end--;
    if (end > 0 && text[end - 1] & 0x80)
        end--;
    text[end] = '\0';
}

void contender_label(char text[LABEL_SIZE], const bench_result *r, bool with_threads)
{
    char threads[NUMBER_SIZE] = "", name[LABEL_SIZE];
    const bool has_isa = r->isa && r->isa[0] && !same_text(r->isa, r->contender);
    snprintf(name, sizeof name, "%s%s%s", r->contender ? r->contender : "", has_isa ? " " : "",
             has_isa ? r->isa : "");
    mend_end(name);
    cut_off(name, 16);
    if (with_threads && r->threads > 1)
        snprintf(threads, sizeof threads, " ×%d", r->threads);
    snprintf(text, LABEL_SIZE, "%.63s%.31s", name, threads);
}

void print_setting(FILE *out, const bench_result *r)
{
    if (r->threads > 0)
        fprintf(out, "%d thread%s", r->threads, r->threads > 1 ? "s" : "");
    if (r->pages && r->pages[0]) {
        fputs(r->threads > 0 ? ", " : "", out);
        xml_text(out, r->pages);
        fputs(" pages", out);
    }
}

int report_gather(const report *p, int first, same_results *same)
{
    int count = 0;
    for (int i = 0; i < first; i++)
        if (same(p, i, first))
            return 0;
    for (int i = first; i < p->count; i++)
        if (same(p, first, i))
            p->group[count++] = &p->results[i];
    return count;
}

/* ---- Problem strings ------------------------------------------------------------------------- */

typedef struct part {
    const char *at;
    size_t length;
} part;

static bool is_size(part t)
{
    static const char *const sizes[] = {"rows=", "classes=", "count=", "threads="};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (t.length > strlen(sizes[i]) && strncmp(t.at, sizes[i], strlen(sizes[i])) == 0)
            return true;
    return false;
}

/* Cuts off the next part, of those between colons and commas, that is no size; at the end an empty
 * one. */
static part next_part(const char **rest)
{
    part t;
    do {
        *rest += strspn(*rest, ":,");
        t = (part){*rest, strcspn(*rest, ":,")};
        *rest += t.length;
    } while (t.length && is_size(t));
    return t;
}

void print_problem(FILE *out, const char *problem)
{
    for (const char *s = problem ? problem : ""; *s;) {
        const size_t comma = strcspn(s, ","), length = comma + (s[comma] == ',');
        xml_part(out, s, length);
        s += length;
        fputs(*s ? "<wbr/>" : "", out);
    }
}

bool same_variant(const char *a, const char *b)
{
    part s, t;
    a = a ? a : "";
    b = b ? b : "";
    do {
        s = next_part(&a);
        t = next_part(&b);
        if (s.length != t.length || strncmp(s.at, t.at, s.length) != 0)
            return false;
    } while (s.length);
    return true;
}

void print_variant(FILE *out, const char *problem)
{
    const char *rest = problem ? problem : "";
    part t = next_part(&rest);
    for (int i = 0; t.length; i++, t = next_part(&rest)) {
        fputs(i == 0 ? "" : i < 3 ? ":" : ",", out);
        xml_part(out, t.at, t.length);
    }
}

static void format_size(char text[2 * TICK_SIZE + 4], const bench_result *r)
{
    char rows[TICK_SIZE], classes[TICK_SIZE];
    format_count(rows, r->rows);
    format_count(classes, r->classes);
    const bool is_matrix = r->classes > 1.0 && isfinite(r->classes);
    text[0] = '\0';
    if (is_known(r->rows))
        snprintf(text, 2 * TICK_SIZE + 4, " %s%s%s", rows, is_matrix ? "×" : "",
                 is_matrix ? classes : "");
}

/* Of a name that says nothing its value does not say, the value. */
static part short_part(part t)
{
    static const char *const dropped[] = {"outputs=", "targets=", "inputs="};
    for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++) {
        const size_t n = strlen(dropped[i]);
        if (t.length > n && strncmp(t.at, dropped[i], n) == 0)
            return (part){t.at + n, t.length - n};
    }
    return t;
}

static void append_part(char text[LABEL_SIZE], part t)
{
    const size_t used = strlen(text);
    snprintf(text + used, LABEL_SIZE - used, " %.*s", (int)t.length, t.at);
}

void problem_label(char text[LABEL_SIZE], const bench_result *r)
{
    char size[2 * TICK_SIZE + 4];
    const char *rest = r->problem ? r->problem : "";
    const part operation = next_part(&rest), dtype = next_part(&rest);
    format_size(size, r);
    snprintf(text, LABEL_SIZE, "%.*s%s", (int)operation.length, operation.at, size);
    if (!same_text(r->dtype, "f32"))
        append_part(text, dtype);
    for (part t = next_part(&rest); t.length; t = next_part(&rest))
        append_part(text, short_part(t));
    mend_end(text);
    cut_off(text, 44);
}
