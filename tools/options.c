/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_COLUMN = 26, THREADS_MAX = 4096 };

enum { COMMON_HELP = OPTION_COMMON, COMMON_JSON, COMMON_THREADS, COMMON_COLOR, COMMON_QUIET };

static const option_spec common[] = {
    {"json", NULL, "print JSON instead of text", COMMON_JSON},
    {"threads", "N", "threads to use (default: the cores that this process may use)",
     COMMON_THREADS},
    {"color", "WHEN",
     "auto, always or never (default auto: on a terminal, unless NO_COLOR is set)", COMMON_COLOR},
    {"quiet", NULL, "no progress on standard error", COMMON_QUIET},
    {"help", NULL, "print this text", COMMON_HELP},
    {NULL, NULL, NULL, 0},
};

/* ---- Suggestions ----------------------------------------------------------------------------- */

static int least(int a, int b) { return a < b ? a : b; }

/* Letters to change, add, leave out or swap with the neighbour (optimal string alignment). */
static int distance(const char *a, const char *b)
{
    enum { LONGEST = 31 };
    int d[LONGEST + 1][LONGEST + 1];
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (int i = 0; i <= n; i++)
        for (int j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            int cost = a[i - 1] != b[j - 1];
            d[i][j] = least(d[i - 1][j - 1] + cost, least(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    return d[n][m];
}

const char *suggestion(const char *text, const char *const *names)
{
    const char *best = NULL;
    int best_distance = (int)strlen(text) < 4 ? 2 : 3; /* nearer than this */
    for (; *names; names++) {
        int found = distance(text, *names);
        if (found < best_distance) {
            best = *names;
            best_distance = found;
        }
    }
    return best;
}

/* ---- Help ------------------------------------------------------------------------------------ */

static bool is_own(const command_spec *spec, const option_spec *o)
{
    for (const option_spec *own = spec->options; own->name; own++)
        if (own != o && strcmp(own->name, o->name) == 0)
            return true;
    return false;
}

static const char *help_of(const command_spec *spec, const option_spec *o)
{
    return o->id == COMMON_THREADS && spec->threads ? spec->threads : o->help;
}

static void print_options(const command_spec *spec, const option_spec *list)
{
    for (; list->name; list++) {
        const char *value = list->value ? list->value : "";
        const char *help = help_of(spec, list);
        if (is_own(spec, list) || !*help)
            continue;
        int column = printf("  --%s%s%s", list->name, *value && value[1] != '=' ? " " : "", value);
        if (column + 2 > HELP_COLUMN) {
            putchar('\n');
            column = 0;
        }
        printf("%*s", HELP_COLUMN - column, "");
        output_wrap(stdout, help, HELP_COLUMN, HELP_COLUMN);
    }
}

static void print_head(const char *text)
{
    printf("\n%s%s:%s\n", output_style(stdout, STYLE_HEAD), text,
           output_style(stdout, STYLE_PLAIN));
}

static void print_help(const command_spec *spec)
{
    printf("%sUsage:%s ballast %s%s%s [options]\n\n", output_style(stdout, STYLE_HEAD),
           output_style(stdout, STYLE_PLAIN), spec->name, *spec->operands ? " " : "",
           spec->operands);
    output_wrap(stdout, spec->about, 0, 0);
    if (spec->options[0].name)
        print_head("Options");
    print_options(spec, spec->options);
    print_head("Common options");
    print_options(spec, common);
    print_head("Examples");
    for (const char *const *e = spec->examples; *e; e++)
        printf("  %s\n", *e);
    if (spec->more) {
        putchar('\n');
        spec->more(stdout);
    }
}

/* ---- Reading --------------------------------------------------------------------------------- */

static int count_options(const option_spec *list)
{
    int n = 0;
    while (list[n].name)
        n++;
    return n;
}

static const option_spec *option_at(const options *o, int index)
{
    int own = count_options(o->spec->options);
    return index < own ? &o->spec->options[index] : &common[index - own];
}

static int option_total(const options *o)
{
    return least(count_options(o->spec->options) + count_options(common), OPTIONS_MAX);
}

static void begin(options *o, const command_spec *spec, int argc, char **argv)
{
    memset(o, 0, sizeof *o);
    o->spec = spec;
    o->argc = argc;
    o->argv = argv;
    for (int i = 0; i < option_total(o); i++) {
        const option_spec *s = option_at(o, i);
        o->table[i].name = s->name;
        o->table[i].has_arg = !s->value            ? no_argument
                              : s->value[0] == '[' ? optional_argument
                                                   : required_argument;
        o->table[i].val = s->id;
    }
    opterr = 0;
    optind = 0; /* glibc and musl: start anew */
}

/* In place of the next option's id: they are all read; or there is nothing to do but to return exit_code. */
enum { OPTIONS_END = 0, OPTIONS_STOP = -1 };

static int stop(options *o, int code)
{
    o->exit_code = code;
    return OPTIONS_STOP;
}

/* How many options begin so: getopt_long takes such a text for any of them if it is one. */
static int count_begun(const options *o, const char *text, size_t length)
{
    int n = 0;
    for (int i = 0; i < option_total(o); i++)
        n += strncmp(option_at(o, i)->name, text, length) == 0;
    return n;
}

static int refuse_long(options *o, const char *text)
{
    const char *names[OPTIONS_MAX + 1] = {NULL};
    char name[64];
    for (int i = 0; i < option_total(o); i++)
        names[i] = option_at(o, i)->name;
    size_t length = strcspn(text, "=");
    snprintf(name, sizeof name, "%.*s", (int)length, text);
    if (length > 0 && count_begun(o, text, length) > 1)
        return complain("option '--%s' could be several: write it in full", name);
    const char *meant = suggestion(name, names);
    if (meant)
        return complain("unknown option '--%s' (did you mean '--%s'?)", name, meant);
    return complain("unknown option '--%s' (see ballast %s --help)", name, o->spec->name);
}

static int refuse_option(options *o)
{
    const char *text = o->argv[optind - 1];
    for (int i = 0; i < option_total(o) && optopt; i++)
        if (option_at(o, i)->id == optopt)
            return complain("--%s: takes no value", option_at(o, i)->name);
    if (optopt)
        return complain("unknown option '-%c' (see ballast %s --help)", optopt, o->spec->name);
    return refuse_long(o, strncmp(text, "--", 2) == 0 ? text + 2 : text);
}

static bool apply_common(options *o, int id)
{
    static const char *const modes[] = {"auto", "always", "never", NULL};
    int mode;
    switch (id) {
    case COMMON_JSON: o->json = true; return true;
    case COMMON_QUIET: o->quiet = true; return true;
    case COMMON_THREADS: return options_integer(o, 1, THREADS_MAX, &o->threads);
    default:
        if (!options_choice(o, modes, &mode))
            return false;
        output_set_color((color_mode)mode);
        return true;
    }
}

static int finish(options *o)
{
    int given = o->argc - optind;
    o->operands = o->argv + optind;
    o->operand_count = given;
    if (o->spec->operand_count == OPERANDS_ANY || given == o->spec->operand_count)
        return OPTIONS_END;
    if (given > o->spec->operand_count)
        return stop(o, complain("unexpected argument '%s' (usage: ballast %s%s%s [options])",
                                o->operands[o->spec->operand_count], o->spec->name,
                                *o->spec->operands ? " " : "", o->spec->operands));
    return stop(o, complain("missing argument (usage: ballast %s %s [options])", o->spec->name,
                            o->spec->operands));
}

/* False where its value is to name a file, and is empty: a variable of a script that was not set, say. */
static bool take_option(options *o, int id)
{
    for (int i = 0; i < option_total(o); i++)
        if (option_at(o, i)->id == id) {
            const char *value = option_at(o, i)->value;
            o->name = option_at(o, i)->name;
            if (o->value && !*o->value && value && strstr(value, "FILE")) {
                complain("--%s: the name of the file is empty", o->name);
                return false;
            }
        }
    return true;
}

static int next(options *o)
{
    for (;;) {
        int id = getopt_long(o->argc, o->argv, ":hq", o->table, NULL);
        id = id == 'h' ? COMMON_HELP : id == 'q' ? COMMON_QUIET : id;
        o->value = optarg;
        if (id == -1)
            return finish(o);
        if (id == '?')
            return stop(o, refuse_option(o));
        if (!take_option(o, id == ':' ? optopt : id))
            return stop(o, EXIT_BAD_INPUT);
        if (id == ':')
            return stop(o, complain("--%s: its value is missing", o->name));
        if (id < OPTION_COMMON)
            return id;
        if (id == COMMON_HELP) {
            print_help(o->spec);
            return stop(o, EXIT_GOOD);
        }
        if (!apply_common(o, id))
            return stop(o, EXIT_BAD_INPUT);
    }
}

bool options_read(options *o, const command_spec *spec, int argc, char **argv, options_apply *apply,
                  void *settings)
{
    int id;

    begin(o, spec, argc, argv);
    while ((id = next(o)) > 0)
        if (!apply(o, settings, id)) {
            o->exit_code = EXIT_BAD_INPUT;
            return false;
        }
    return id == OPTIONS_END;
}

/* ---- Values ---------------------------------------------------------------------------------- */

bool options_real(const options *o, double *out)
{
    char *end;
    *out = strtod(o->value, &end);
    if (end != o->value && *end == '\0')
        return true;
    complain("--%s: '%s' is not a number", o->name, o->value);
    return false;
}

bool options_integer(const options *o, int64_t smallest, int64_t largest, int64_t *out)
{
    char *end;
    errno = 0;
    intmax_t value = strtoimax(o->value, &end, 10);
    if (end == o->value || *end != '\0') {
        complain("--%s: '%s' is not a whole number", o->name, o->value);
        return false;
    }
    if (errno == ERANGE || value < smallest || value > largest) {
        complain("--%s: %s is outside [%" PRId64 ", %" PRId64 "]", o->name, o->value, smallest,
                 largest);
        return false;
    }
    *out = value;
    return true;
}

bool options_choice(const options *o, const char *const *names, int *out)
{
    char list[256] = "";
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], o->value) == 0) {
            *out = i;
            return true;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    }
    const char *meant = suggestion(o->value, names);
    complain("--%s: '%s' is none of %s%s%s%s", o->name, o->value, list,
             meant ? " (did you mean '" : "", meant ? meant : "", meant ? "'?)" : "");
    return false;
}

bool options_implementation(const options *o, const ballast_implementation **out)
{
    enum { NAMES_MAX = 15 };
    const char *names[NAMES_MAX + 1] = {NULL};
    char reason[256];
    int choice;
    for (int i = 0; i < NAMES_MAX && ballast_implementation_at(i); i++)
        names[i] = ballast_implementation_name(ballast_implementation_at(i));
    if (!options_choice(o, names, &choice))
        return false;
    *out = ballast_implementation_at(choice);
    if (ballast_implementation_supported(*out, reason, sizeof reason))
        return true;
    complain("--%s: %s does not run here: %s", o->name, o->value, reason);
    return false;
}
