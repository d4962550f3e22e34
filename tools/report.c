/* SPDX-License-Identifier: MIT */
#include "report_parts.h"

#include <errno.h>
#include <stdlib.h>

/* ---- The machine ----------------------------------------------------------------------------- */

/* A line of the description; left out where nothing is known. */
static void print_fact(FILE *out, const char *name, const char *value)
{
    if (!value || !value[0])
        return;
    fputs("<div><dt>", out);
    xml_text(out, name);
    fputs("</dt><dd>", out);
    xml_text(out, value);
    fputs("</dd></div>\n", out);
}

static void print_measure(FILE *out, const char *name, double value, const char *unit)
{
    char text[LABEL_SIZE];
    if (!is_known(value))
        return;
    snprintf(text, sizeof text, "%.4g %s", value, unit);
    print_fact(out, name, text);
}

/* "L2: 512 KiB, 97.1 GB/s read", or the half of it that is known. */
static void print_level(FILE *out, const bench_machine *m, int i)
{
    static const char *const names[LEVELS] = {"L1", "L2", "L3", "memory"};
    const bool sized = is_known(m->level_bytes[i]), timed = is_known(m->level_gbps[i]);
    char size[NUMBER_SIZE] = "", speed[NUMBER_SIZE] = "", text[LABEL_SIZE];
    if (sized)
        format_bytes(size, m->level_bytes[i]);
    if (timed)
        snprintf(speed, sizeof speed, "%.4g GB/s read", m->level_gbps[i]);
    snprintf(text, sizeof text, "%s%s%s", size, sized && timed ? ", " : "", speed);
    print_fact(out, m->level_name[i] ? m->level_name[i] : names[i], text);
}

/* The pages that results were measured on, in one list. */
static void print_pages(const report *p)
{
    fputs("<div><dt>pages</dt><dd>", p->out);
    for (int i = 0, listed = 0; i < p->count; i++) {
        int j = 0;
        while (j < i && !same_text(p->results[j].pages, p->results[i].pages))
            j++;
        if (j < i || same_text(p->results[i].pages, ""))
            continue;
        fputs(listed++ ? ", " : "", p->out);
        xml_text(p->out, p->results[i].pages);
    }
    fputs("</dd></div>\n", p->out);
}

static void print_machine(const report *p)
{
    const bench_machine *m = p->machine;
    char text[NUMBER_SIZE];
    fputs("<section><h2>Machine</h2>\n<dl>\n", p->out);
    print_fact(p->out, "CPU", m->cpu);
    snprintf(text, sizeof text, "%d", m->cores);
    print_fact(p->out, "cores", m->cores > 0 ? text : NULL);
    print_measure(p->out, "clock", m->clock_ghz, "GHz, measured");
    print_fact(p->out, "ISA", m->isa);
    print_measure(p->out, "peak", m->peak_flops_per_cycle, "FMA-class operations a cycle");
    for (int i = 0; i < LEVELS; i++)
        print_level(p->out, m, i);
    print_pages(p);
    print_fact(p->out, "compiler", m->compiler);
    print_fact(p->out, "Ballast", m->version);
    print_fact(p->out, "date", m->date);
    snprintf(text, sizeof text, "%llu", m->seed);
    print_fact(p->out, "seed", text);
    print_fact(p->out, "CPU features", m->features);
    fputs("</dl>\n", p->out);
    if (m->command && m->command[0]) {
        fputs("<p>To run it again:</p>\n<pre><code>", p->out);
        xml_text(p->out, m->command);
        fputs("</code></pre>\n", p->out);
    }
    fputs("</section>\n", p->out);
}

/* ---- What the numbers mean ------------------------------------------------------------------- */

static void print_method(FILE *out)
{
    fputs(
        "<section><h2>What is measured</h2>\n<ul>\n"
        "<li>All contenders of a problem run in turn, A B C, C B A, in one process on the same "
        "inputs, so that a slow minute of the machine meets each of them.</li>\n"
        "<li><b>Time</b> is the median over the rounds. <b>Cycles</b> are time by the clock "
        "measured beside each run: the median, and the 5th percentile (“least”).</li>\n"
        "<li><b>Ratio</b> is a contender’s time over Ballast’s, pair by pair: the median, and its "
        "95 % interval in brackets. Above 1 Ballast is faster.</li>\n"
        "<li><b>GB/s</b> counts the necessary traffic: each input and each output once.</li>\n"
        "<li><b>Limits</b> (read, copy, …) move the same bytes and compute nothing. The roofline "
        "of a problem is the one that was measured beside it.</li>\n"
        "<li>A dash says that a number is not known.</li>\n"
        "</ul></section>\n",
        out);
}

/* ---- Every result ---------------------------------------------------------------------------- */

static void print_text_cell(FILE *out, const char *text)
{
    fputs("<td class=\"text\">", out);
    xml_text(out, text);
    fputs("</td>", out);
}

static void print_result(FILE *out, const bench_result *r)
{
    fprintf(out, "<tr%s>", is_ballast(r) ? " class=\"own\"" : "");
    print_text_cell(out, r->suite);
    fputs("<th><code>", out);
    print_problem(out, r->problem);
    fputs("</code></th>", out);
    print_text_cell(out, r->contender);
    print_text_cell(out, r->isa);
    print_text_cell(out, r->pages);
    fprintf(out, "<td>%d</td>", r->threads);
    print_cell(out, r->ns_per_element);
    print_cell(out, r->cycles_per_element);
    print_cell(out, r->least_cycles_per_element);
    print_cell(out, r->gigabytes_per_second);
    print_percent_cell(out, r->roofline);
    fputs("<td>", out);
    print_ratio(out, r);
    fputs("</td></tr>\n", out);
}

static void print_table(const report *p)
{
    fputs("<section><h2>All results</h2>\n", p->out);
    if (p->count == 0) {
        fputs("<p>No results.</p></section>\n", p->out);
        return;
    }
    fputs("<p>Time, cycles and least are per element.</p>\n<div class=\"wide\">"
          "<table class=\"numbers long all\"><thead><tr><th class=\"text\">suite</th>"
          "<th class=\"text\">problem</th><th class=\"text\">contender</th><th "
          "class=\"text\">ISA</th>"
          "<th class=\"text\">pages</th><th>threads</th><th>ns</th><th>cycles</th><th>least</th>"
          "<th>GB/s</th><th>% of<br/>roofline</th><th>ratio [95 %]</th></tr></thead><tbody>\n",
          p->out);
    for (int i = 0; i < p->count; i++)
        print_result(p->out, &p->results[i]);
    fputs("</tbody></table></div></section>\n", p->out);
}

/* ---- The page -------------------------------------------------------------------------------- */

static void print_head(const report *p)
{
    fputs("<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n"
          "<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
          "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>Ballast benchmark",
          p->out);
    if (p->machine->cpu && p->machine->cpu[0])
        fputs(": ", p->out);
    xml_text(p->out, p->machine->cpu);
    fputs("</title>\n", p->out);
    report_style(p->out);
    fputs("</head>\n<body>\n<header><h1>Ballast benchmark</h1>\n<p>", p->out);
    xml_text(p->out, p->machine->cpu);
    fputs("<br/><span class=\"quiet\">", p->out);
    xml_text(p->out, p->machine->date);
    fprintf(p->out, " · %d result%s</span></p></header>\n", p->count, p->count == 1 ? "" : "s");
}

static void write_page(report *p)
{
    report_find_growth(p);
    print_head(p);
    report_ratios(p);
    print_machine(p);
    print_method(p->out);
    report_roofline(p);
    report_bars(p);
    report_growth(p);
    print_table(p);
    fputs("</body>\n</html>\n", p->out);
}

/* An error of an early write may be forgotten by the time that the last one succeeds. */
static int finish(FILE *out)
{
    if (fflush(out) == 0 && !ferror(out))
        return 0;
    errno = errno ? errno : EIO;
    return -1;
}

int report_write(FILE *out, const bench_machine *m, const bench_result *results, int count)
{
    const size_t all = count > 0 ? (size_t)count : 0, room = all + 1; /* never of 0 bytes */
    report p = {
        .out = out,
        .machine = m,
        .results = results,
        .count = (int)all,
        .growth = calloc(room, sizeof *p.growth),
        .group = calloc(room, sizeof *p.group),
        .points = calloc(room, sizeof *p.points),
        .ends = calloc(room, sizeof *p.ends),
        .boxes = calloc(2 * room + ROOF_BOXES, sizeof *p.boxes),
    };
    int status = -1;
    errno = 0;
    if (p.growth && p.group && p.points && p.ends && p.boxes) {
        write_page(&p);
        status = finish(out);
    } else {
        errno = ENOMEM;
    }
    const int error = errno; /* free may change it */
    free(p.growth);
    free(p.group);
    free(p.points);
    free(p.ends);
    free(p.boxes);
    errno = error;
    return status;
}
