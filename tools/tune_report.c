/* SPDX-License-Identifier: MIT */
/* The page of `ballast tune --report`: for each choice of a case, the time of its candidates. */
#include "../dispatch/profile.h"
#include "report_parts.h"
#include "tune_output.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 460, LEFT = 40, RIGHT = 12, TOP = 28, PLOT = 150, BOTTOM = 42 };

/* What the numbers of a choice's candidates count. */
static const char *const axis_names[CHOICES] = {
    [CHOOSE_ISA] = "implementation",
    [CHOOSE_STREAM] = "bytes from which outputs go past the caches",
    [CHOOSE_TASK] = "cycles for which a thread is woken",
    [CHOOSE_TASKS] = "tasks a thread, at most",
    [CHOOSE_SHARE] = "chunks of a row that is shared, at least",
    [CHOOSE_TILES] = "classes of rows that go sixteen at once, at most",
    [CHOOSE_KEPT] = "chunks of a row whose exponentials are kept, at most",
};

/* ---- One plot -------------------------------------------------------------------------------- */

typedef struct plot {
    FILE *out;
    const tune_result *of;
    double low, high; /* of the vertical axis, in steps of a tenth */
} plot;

static point place_of(const plot *q, int index, double ratio)
{
    const double slots = q->of->trial_count + 1.0; /* the first is the default's */
    const double shown = fmin(fmax(ratio, q->low), q->high);

    return (point){LEFT + (WIDTH - LEFT - RIGHT) * (index + 0.5) / slots,
                   TOP + PLOT * (q->high - shown) / (q->high - q->low)};
}

/* What is far away ends at the edge: 0.5 to 2. */
static plot plot_of(FILE *out, const tune_result *r)
{
    double low = 0.9, high = 1.1;

    for (int i = 0; i < r->trial_count; i++) {
        const tune_trial *t = &r->trials[i];
        low = fmin(low, isfinite(t->high) ? t->low : t->ratio);
        high = fmax(high, isfinite(t->high) ? t->high : t->ratio);
    }
    return (plot){out, r, fmax(floor(10.0 * low) / 10.0, 0.5), fmin(ceil(10.0 * high) / 10.0, 2.0)};
}

static void draw_grid(const plot *q)
{
    const int step = q->high - q->low > 0.6 ? 2 : 1;
    char text[NUMBER_SIZE];

    for (int tenth = (int)round(10.0 * q->low); tenth <= (int)round(10.0 * q->high); tenth++) {
        if ((tenth - 10) % step != 0)
            continue;
        const double y = place_of(q, 0, 0.1 * tenth).y;
        svg_line(q->out, tenth == 10 ? "one" : "grid", (point){LEFT, y}, (point){WIDTH - RIGHT, y});
        snprintf(text, sizeof text, "%.1f", 0.1 * tenth);
        svg_text(q->out, "tick end", (point){LEFT - 5, y + 4}, text);
    }
    svg_text(q->out, "tick", (point){0, 12}, "time ÷ the default’s");
    svg_text(q->out, "tick end", (point){WIDTH - RIGHT, TOP + PLOT + BOTTOM - 8},
             axis_names[q->of->which]);
    const double y = place_of(q, 0, 0.97).y;
    svg_line(q->out, "leader", (point){LEFT, y}, (point){WIDTH - RIGHT, y});
}

static const char *name_of(const tune_result *r, int candidate_index)
{
    return ballast__candidate((int)r->which, candidate_index)->name;
}

static void draw_candidate(const plot *q, int i, point *at)
{
    const tune_trial *t = &q->of->trials[i];
    char title[LABEL_SIZE];

    at[i + 1] = place_of(q, i + 1, t->ratio);
    if (isfinite(t->high))
        svg_line(q->out, "edge", place_of(q, i + 1, t->low), place_of(q, i + 1, t->high));
    snprintf(title, sizeof title, "%s: %.3f, %d pairs", name_of(q->of, t->candidate), t->ratio,
             t->samples);
    const bool chosen = q->of->verdict == TUNE_CHOSEN && q->of->best.candidate == t->candidate;
    svg_marker(q->out, chosen ? "mark c-ballast" : "mark c-other", chosen ? SQUARE : CIRCLE,
               at[i + 1], title);
    svg_text(q->out, "tick middle", (point){at[i + 1].x, TOP + PLOT + 16},
             name_of(q->of, t->candidate));
}

static void draw(FILE *out, const tune_result *r)
{
    const plot q = plot_of(out, r);
    point at[TUNE_CANDIDATES + 1];
    char title[2 * LABEL_SIZE];

    snprintf(title, sizeof title, "%s of %s", ballast__choice_name((int)r->which), r->of->name);
    svg_begin(out, "plot", WIDTH, TOP + PLOT + BOTTOM, title);
    draw_grid(&q);
    at[0] = place_of(&q, 0, 1.0);
    for (int i = 0; i < r->trial_count; i++)
        at[i + 1] = place_of(&q, i + 1, r->trials[i].ratio);
    svg_curve(out, "curve c-limit", at, r->trial_count + 1);
    svg_marker(out, "mark c-scalar", DIAMOND, at[0], "default: 1");
    svg_text(out, "tick middle", (point){at[0].x, TOP + PLOT + 16}, "default");
    for (int i = 0; i < r->trial_count; i++)
        draw_candidate(&q, i, at);
    svg_end(out);
}

/* ---- The page -------------------------------------------------------------------------------- */

static void write_figure(FILE *out, const tune_result *r)
{
    char text[CELL_SIZE];

    fputs("<figure class=\"small\"><figcaption><code>", out);
    xml_text(out, r->of->name);
    fputs("</code> ", out);
    xml_text(out, ballast__choice_name((int)r->which));
    fputs(": <b>", out);
    xml_text(out, tune_verdict_name(r->verdict));
    fputs("</b>", out);
    if (r->best.samples > 0) {
        tune_format_interval(text, &r->best);
        fputs(", ", out);
        xml_text(out, name_of(r, r->best.candidate));
        fputs(" ", out);
        xml_text(out, text);
    }
    fputs("</figcaption>\n", out);
    draw(out, r);
    fputs("</figure>\n", out);
}

static void write_facts(FILE *out, const tune_results *r)
{
    profile_machine machine;

    ballast__profile_machine(&machine);
    fputs("<p>", out);
    xml_text(out, machine.cpu);
    fputs("<br/>Ballast ", out);
    xml_text(out, machine.build);
    fprintf(out, "<br/>%d of %d cases measured in %.0f s, %d thread%s%s</p>\n", r->cases_measured,
            r->case_count, r->seconds, r->threads, r->threads == 1 ? "" : "s",
            r->bound ? ", bound to cores" : "");
    fputs("<p>Time with a candidate over the time with the default, pair by pair, and the 95 % "
          "interval of "
          "the search. A candidate is chosen (square) where the interval of fresh pairs, in the "
          "caption, "
          "lies below 0.97, the dotted line. What ends at the edge is farther away. Three pairs "
          "that all "
          "took 10 % longer end the search of a candidate: no interval.</p>\n",
          out);
}

void tune_write_html(FILE *out, const tune_results *r)
{
    fputs("<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n"
          "<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
          "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
          "<title>Ballast, tuned</title>\n",
          out);
    report_style(out);
    fputs("</head>\n<body>\n<header><h1>Ballast, tuned</h1></header>\n", out);
    write_facts(out, r);
    fputs("<div class=\"plots\">\n", out);
    for (int i = 0; i < r->count; i++)
        if (r->results[i].trial_count > 0)
            write_figure(out, &r->results[i]);
    fputs("</div>\n</body>\n</html>\n", out);
}
