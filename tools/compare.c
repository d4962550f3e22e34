/* SPDX-License-Identifier: MIT */
/* ballast compare: did it become slower, and are the bits the same? */
#include "compare.h"

#include "compare_parts.h"
#include "output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPT_PROBLEM = 1, OPT_SUITE, OPT_FILTER, OPT_ISA, OPT_SECONDS, OPT_LOADS, OPT_EFFECT, OPT_LEVEL, OPT_BITS,
    OPT_JSON, OPT_MARKDOWN, OPT_HTML
};

static const option_spec specs[] = {
    {"problem", "PROBLEM", BENCH_PROBLEM_HELP, OPT_PROBLEM},
    {"suite", "NAME", BENCH_SUITE_HELP, OPT_SUITE},
    {"filter", "TEXT", BENCH_FILTER_HELP, OPT_FILTER},
    {"isa", "NAME", "this implementation of both libraries (default: what each takes itself)",
     OPT_ISA},
    {"seconds", "S", "time for each case (default 1)", OPT_SECONDS},
    {"loads", "N", "load the libraries at so many places (default 20)", OPT_LOADS},
    {"effect", "SHARE", "the least change that matters (default 3%)", OPT_EFFECT},
    {"level", "P", "how often chance may be taken for a change, all cases together (default 0.01)",
     OPT_LEVEL},
    {"bits", "WHICH", "on or off: compare the results, too (default on)", OPT_BITS},
    {"json", "[=FILE]", "JSON, instead of the table, or to a file", OPT_JSON},
    {"markdown", "[=FILE]", "a table for a pull request, instead of the other, or to a file",
     OPT_MARKDOWN},
    {"html", "FILE", "a page with the intervals drawn, that needs nothing else", OPT_HTML},
    {NULL, NULL, NULL, 0},
};

static const char *const examples[] = {
    "ballast compare old/libballast.so new/libballast.so",
    "ballast compare old.so new.so --filter cross_entropy --effect 2% --seconds 5",
    "ballast compare monday.json tuesday.json --markdown=changes.md",
    NULL,
};

static const command_spec spec = {
    .name = "compare",
    .operands = "OLD NEW",
    .about = "Tells whether NEW is slower than OLD, and whether its results are the same bits. OLD "
             "and NEW are two shared libraries, called in turn, A B B A, in one process on the "
             "same arrays, and loaded at several places, for where code lies counts, too; or two "
             "files of `ballast bench --repetitions N --json`, which say less: a "
             "change of the machine between them looks like one of the code. Slower means: by "
             "--effect at least, and by chance less often than --level, where a permutation test "
             "(signed ranks of the log-ratios, one a load; rank sums of runs) counts how often, "
             "adjusted for the number of cases (Holm). Exit codes: 0 nothing is slower, 1 something is, or "
             "has other bits, 2 wrong usage or input, 3 too noisy to tell.",
    .options = specs,
    .examples = examples,
    .threads = BENCH_THREADS_HELP,
    .operand_count = 2,
};

typedef struct settings {
    compare_settings compare;
    double effect, level;
    bool json, markdown;
    const char *measures; /* an option that was given, of what is measured; NULL: none */
    const char *json_path, *markdown_path, *html_path;
} settings;

/* ---- Options --------------------------------------------------------------------------------- */

/* "3%" or 0.03. */
static bool read_effect(const options *o, settings *s)
{
    char *end;

    s->effect = strtod(o->value, &end);
    const bool is_percent = strcmp(end, "%") == 0;
    if (is_percent)
        s->effect /= 100.0;
    if (end != o->value && (is_percent || *end == '\0') && s->effect > 0.0 && s->effect <= 1.0)
        return true;
    complain("--effect: '%s' is no share above 0, up to 100%%, such as 3%%", o->value);
    return false;
}

static bool read_level(const options *o, settings *s)
{
    if (!options_real(o, &s->level))
        return false;
    if (s->level > 0.0 && s->level < 0.5)
        return true;
    complain("--level: %s is outside (0, 0.5)", o->value);
    return false;
}

static bool read_bits(const options *o, settings *s)
{
    static const char *const switches[] = {"off", "on", NULL};
    int value = 1;
    const bool good = options_choice(o, switches, &value);

    s->compare.bits = value == 1;
    return good;
}

static bool apply(const options *o, void *to, int id)
{
    settings *const s = to;
    bench_selection *selection = &s->compare.selection;

    if (id <= OPT_LOADS || id == OPT_BITS)
        s->measures = o->name;
    switch (id) {
    case OPT_PROBLEM: return bench_add_problem(o, selection);
    case OPT_SUITE: return bench_choose_suite(o, selection);
    case OPT_FILTER: selection->filter = o->value; return true;
    case OPT_ISA: s->compare.isa = o->value; return true;
    case OPT_SECONDS: return bench_seconds(o, &s->compare.seconds);
    case OPT_LOADS: return options_integer(o, 1, COMPARE_LOADS, &s->compare.loads);
    case OPT_EFFECT: return read_effect(o, s);
    case OPT_LEVEL: return read_level(o, s);
    case OPT_BITS: return read_bits(o, s);
    case OPT_JSON: s->json = true; s->json_path = o->value; return true;
    case OPT_MARKDOWN: s->markdown = true; s->markdown_path = o->value; return true;
    default: s->html_path = o->value; return true;
    }
}

/* ---- Files ----------------------------------------------------------------------------------- */

/* The first byte tells: a library begins with 0x7f, JSON with a brace. -1: cannot be read. */
static int is_library(const char *path)
{
    errno = 0;
    FILE *file = fopen(path, "rb");
    const int first = file ? getc(file) : EOF;

    if (file)
        fclose(file);
    if (first == EOF)
        complain("%s: cannot be read: %s", path, errno ? strerror(errno) : "it is empty");
    return first == EOF ? -1 : first == 0x7f;
}

/* Opened before anything is measured, which may take long; NULL: not wanted. */
typedef struct files {
    FILE *json, *markdown, *html;
} files;

/* The file of that name, or standard output where there is none. */
static bool open_file(bool wanted, const char *path, FILE **file)
{
    *file = !wanted ? NULL : path ? output_open(path) : stdout;
    return !wanted || *file;
}

static bool open_files(const settings *s, files *f)
{
    return open_file(s->json, s->json_path, &f->json) &&
           open_file(s->markdown, s->markdown_path, &f->markdown) &&
           open_file(s->html_path != NULL, s->html_path, &f->html);
}

static void write_html(FILE *out, const comparisons *c) { compare_write_html(out, c); }

static bool write_to(FILE *file, const char *path, void (*write)(FILE *, const comparisons *),
                     const comparisons *c)
{
    if (!file)
        return true;
    write(file, c);
    return !path || output_close(file, path);
}

static int tell(const settings *s, const files *f, const comparisons *c)
{
    const bool print = f->json != stdout && f->markdown != stdout;
    bool good = true;

    for (int i = 0; i < c->warning_count; i++)
        complain("%s", c->warnings[i]);
    if (print)
        compare_print(c);
    good &= write_to(f->json, s->json_path, compare_write_json, c);
    good &= write_to(f->markdown, s->markdown_path, compare_write_markdown, c);
    good &= write_to(f->html, s->html_path, write_html, c);
    return good ? compare_exit_code(c) : EXIT_BAD_INPUT;
}

int compare_main(int argc, char **argv)
{
    settings s = {.compare = {.selection.suite = "quick", .seconds = 1.0, .loads = 20, .bits = true},
                  .effect = 0.03, .level = 0.01};
    options o;
    files f = {NULL, NULL, NULL};

    if (!options_read(&o, &spec, argc, argv, apply, &s))
        return o.exit_code;
    s.compare.selection.threads = o.threads;
    if (o.threads > 0)
        s.measures = "threads";
    s.compare.quiet = o.quiet;
    comparisons c = {.path = {o.operands[0], o.operands[1]}, .effect = s.effect, .level = s.level};
    const int old = is_library(c.path[0]), new = old < 0 ? -1 : is_library(c.path[1]);
    if (old < 0 || new < 0)
        return EXIT_BAD_INPUT;
    if (old != new)
        return complain("%s is a library, %s is not", c.path[!old], c.path[old]);
    if (!old && s.measures)
        return complain("--%s goes with two libraries: runs are measured already", s.measures);
    if (s.json && !s.json_path && s.markdown && !s.markdown_path)
        return complain("--json and --markdown: one of them to a file");
    if (!open_files(&s, &f))
        return EXIT_BAD_INPUT;
    int code = old ? compare_libraries(&s.compare, &c) : compare_runs(&c);
    if (code == EXIT_GOOD) {
        compare_judge(&c);
        code = tell(&s, &f, &c);
    }
    free(c.cases);
    return output_finish(code);
}
