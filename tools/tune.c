/* SPDX-License-Identifier: MIT */
/* ballast tune: measures what this machine does best, and writes a profile. */
#include "tune.h"

#include "../dispatch/text.h"
#include "bound_pool.h"
#include "interrupt.h"
#include "options.h"
#include "progress.h"
#include "tune_output.h"
#include "tune_profile.h"
#include "user_profile.h"

#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPT_BUDGET = 1, OPT_FILTER, OPT_OUTPUT, OPT_CHECK, OPT_EXPORT, OPT_REPORT, OPT_LIST };

static const option_spec specs[] = {
    {"budget", "SECONDS", "how long it may take, about (default 60)", OPT_BUDGET},
    {"filter", "TEXT", "only cases with this text in their name or problems", OPT_FILTER},
    {"output", "FILE", "the profile (default: the user's own, see above)", OPT_OUTPUT},
    {"check", NULL, "measure the entries of the profile again, and write nothing", OPT_CHECK},
    {"export", "FILE",
     "measure nothing; copy the profile, to ship it with a product, to FILE, or to standard "
     "output where it is -",
     OPT_EXPORT},
    {"report", "FILE", "a page with the candidates drawn, that needs nothing else", OPT_REPORT},
    {"list", NULL, "print the cases and their problems", OPT_LIST},
    {NULL, NULL, NULL, 0},
};

static const char *const examples[] = {
    "ballast tune",
    "ballast tune --filter cross_entropy:f32 --budget 20 --output product.profile",
    "ballast tune --check",
    NULL,
};

static const command_spec spec = {
    .name = "tune",
    .operands = "",
    .about =
        "Measures, for each operation, dtype and class of shapes, what may differ without changing "
        "a bit, and writes what is faster than the default to a profile. Candidates and default "
        "are called in turn, A B B A. A candidate is chosen where it takes less than 0.97 of the "
        "default's time with 95 %, twice, and nowhere longer; else the default stays. The profile "
        "is $XDG_CACHE_HOME/ballast/CPU-BUILD.profile, or in ~/.cache; `ballast loss` and `ballast "
        "info` put that in force, other programs by BALLAST_PROFILE or ballast_profile_load. What "
        "stands in it of other cases is kept. Ctrl-C ends the measuring and writes what is known. "
        "Exit codes: 0 good, 1 --check found a stale entry, 2 wrong usage, or a file cannot be "
        "read or written.",
    .options = specs,
    .examples = examples,
    .operand_count = 0,
};

typedef struct settings {
    double begin, budget; /* seconds */
    const char *filter, *output, *export, *report;
    bool check, list, json, quiet;
    int64_t threads;
    const char *path;   /* of the profile */
    char own[PATH_MAX]; /* of the user's */
} settings;

/* ---- How far it is --------------------------------------------------------------------------- */

typedef struct meter {
    progress bar;
    const char *name; /* of the case */
    int done, count;  /* cases */
    double begin, budget;
} meter;

static void begin_meter(meter *m, const settings *s, int count)
{
    *m = (meter){.name = "", .count = count, .begin = s->begin, .budget = s->budget};
    progress_begin_timed(&m->bar, "", 1000, s->quiet);
}

/* In cases, or in time, whichever is more. */
static bool show_and_stop(void *context)
{
    meter *m = context;
    const double cases = (double)m->done / fmax(m->count, 1.0);
    const double time = (monotonic_seconds() - m->begin) / m->budget;

    progress_update_timed(&m->bar, m->name, (int64_t)(1000.0 * fmin(fmax(cases, time), 1.0)));
    return interrupt_seen();
}

/* ---- Threads --------------------------------------------------------------------------------- */

typedef struct means {
    pool pool;
    topology_cores cores;
    meter meter;
    tune_means tune;
    bool bound;
} means;

static void open_means(means *m, int64_t threads)
{
    pool_open(&m->pool, threads);
    topology_cores_open(&m->cores);
    m->bound = pool_bind(&m->pool, &m->cores);
    m->tune = (tune_means){&m->pool.parallel, show_and_stop, &m->meter, 0.0};
}

static void close_means(means *m)
{
    pool_close(&m->pool);
    topology_cores_close(&m->cores);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

enum { SHARE_MOST = 4 }; /* a case may take so many times its share, for most need less */

static void measure_cases(const settings *s, const tune_cases *all, means *m, tune_results *r)
{
    char message[PROBLEM_TEXT];

    begin_meter(&m->meter, s, all->count);
    m->tune.end = m->meter.begin + s->budget;
    for (int i = 0; i < all->count && !interrupt_seen(); i++) {
        const double left = m->tune.end - monotonic_seconds();
        const double share = fmin(SHARE_MOST * left / (all->count - i), left);
        tune_result found[CHOICES];
        if (left <= 0.0)
            break;
        m->meter.name = all->cases[i].name;
        m->meter.done = i;
        if (!tune_measure_case(&all->cases[i], &m->tune, share, found, message, sizeof message)) {
            r->cases_refused++;
            continue;
        }
        r->cases_measured += !interrupt_seen();
        memcpy(r->results + r->count, found, sizeof found);
        r->count += CHOICES;
    }
    progress_end(&m->meter.bar);
    r->interrupted = interrupt_seen();
    r->seconds = monotonic_seconds() - m->meter.begin;
}

/* A doubt is measured twice. */
static void check_line(const tune_case *c, const profile_line *line, const means *m, double seconds,
                       tune_result *out)
{
    char message[PROBLEM_TEXT];

    for (int tries = 0; tries < 2 && !interrupt_seen(); tries++)
        if (!tune_measure_candidate(c, &m->tune, 0.5 * seconds, &line->chosen, out, message,
                                    sizeof message) ||
            !tune_is_stale(out))
            break;
}

static bool is_wanted(const tune_case *c, const char *filter)
{
    return !filter || strstr(c->name, filter);
}

static int find_entries(const settings *s, const profile *known, int64_t cache, tune_cases *all,
                        const profile_line **lines)
{
    int count = 0;

    for (int i = 0; i < known->count; i++)
        if (known->lines[i].chosen.candidate != 0 &&
            tune_case_make(known->lines[i].chosen.where, cache, &all->cases[count]) &&
            is_wanted(&all->cases[count], s->filter))
            lines[count++] = &known->lines[i];
    return count;
}

/* Those that are not clear yet. How many had too much noise. */
static int check_lines(const profile_line *const *lines, means *m, tune_results *r)
{
    int noisy = 0;

    for (int i = 0; i < r->count && !interrupt_seen(); i++) {
        tune_result *it = &r->results[i];
        const double left = fmax(m->tune.end - monotonic_seconds(), 0.0);
        if (it->verdict != TUNE_UNDECIDED && it->verdict != TUNE_NOISY)
            continue;
        m->meter.name = it->of->name;
        m->meter.done = i;
        check_line(it->of, lines[i], m, left / (r->count - i), it);
        noisy += it->verdict == TUNE_NOISY;
    }
    return noisy;
}

/* Once each; what met too much noise again, while there is time. */
static void measure_entries(const settings *s, const profile *known, tune_cases *all, means *m,
                            tune_results *r)
{
    static const profile_line *lines[PROFILE_CHOICES];

    r->count = r->case_count = find_entries(s, known, r->caches.real, all, lines);
    for (int i = 0; i < r->count; i++)
        r->results[i] = (tune_result){
            .of = &all->cases[i], .which = lines[i]->chosen.which, .verdict = TUNE_UNDECIDED};
    begin_meter(&m->meter, s, r->count);
    m->tune.end = m->meter.begin + s->budget;
    while (check_lines(lines, m, r) > 0 && !interrupt_seen() && monotonic_seconds() < m->tune.end)
        continue;
    progress_end(&m->meter.bar);
    for (int i = 0; i < r->count; i++)
        r->cases_measured += r->results[i].verdict != TUNE_UNDECIDED;
    r->seconds = monotonic_seconds() - m->meter.begin;
}

/* ---- The profile ----------------------------------------------------------------------------- */

static bool is_there(const char *path)
{
    struct stat about;

    return stat(path, &about) == 0;
}

/* A file that somebody else wrote for something else is not written over. */
static bool is_profile(const char *path)
{
    static const char first[] = "ballast profile ";
    char begin[sizeof first] = "";
    FILE *file = fopen(path, "re");
    const size_t size = file ? fread(begin, 1, sizeof first - 1, file) : 0;

    if (file)
        fclose(file);
    return size == 0 || strcmp(begin, first) == 0;
}

/* False where the name is too long. */
static bool folder_of(const char *path, char folder[PATH_MAX])
{
    const char *const slash = strrchr(path, '/');

    snprintf(folder, PATH_MAX, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    return strlen(path) < PATH_MAX;
}

static const char *reason_not_to_write(const char *path)
{
    struct stat about;
    char folder[PATH_MAX];

    if (!folder_of(path, folder))
        return "is too long a name";
    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode))
        return "is no regular file";
    if (!is_profile(path))
        return "is there, and no profile";
    return access(folder, W_OK | X_OK) == 0 ? NULL : "its folder cannot be written to";
}

/* Before anything is measured. */
static bool may_write(const char *path)
{
    const char *const reason = reason_not_to_write(path);

    if (reason)
        complain("--output: %s: %s", path, reason);
    return !reason;
}

/* Waits until no other tuner is between reading a profile of this folder and writing it. Where the
 * file system has no locks, the last one to write wins. */
static int lock_folder(const char *path)
{
    char folder[PATH_MAX];

    if (!folder_of(path, folder))
        return -1;
    const int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file >= 0)
        (void)flock(file, LOCK_EX);
    return file;
}

/* What was known before is read now, for another tuner may have written it meanwhile. */
static int write_profile(const settings *s, int64_t cores, const tune_results *r)
{
    static profile p;
    char reason[PROFILE_REASON];
    const int folder = lock_folder(s->path);

    if (!is_there(s->path) || !ballast__profile_read(s->path, &p, reason))
        p.count = 0;
    p.cores = cores;
    if (tune_profile_merge(&p, r) > 0)
        complain("%s: is full: some choices were left out", s->path);
    const bool written = ballast__profile_write(s->path, &p, reason);
    if (folder >= 0)
        close(folder); /* and with it the lock */
    if (written)
        return EXIT_GOOD;
    return complain("%s: cannot be written: %s", s->path, reason);
}

static bool find_own(settings *s, bool make)
{
    if (!user_profile_path(s->own, sizeof s->own)) {
        complain("neither XDG_CACHE_HOME nor HOME names a folder: --output FILE");
        return false;
    }
    s->path = s->own;
    if (!make || user_profile_make_folders(s->own))
        return true;
    complain("%s: its folder cannot be made", s->own);
    return false;
}

/* That of --output, to be read that of BALLAST_PROFILE, or the user's own. */
static bool find_path(settings *s)
{
    const char *const variable = getenv("BALLAST_PROFILE");
    const bool reads = s->check || s->export;

    s->path = s->output;
    if (!s->path && reads && variable && *variable && strcmp(variable, "off") != 0)
        s->path = variable;
    if (!s->path && !find_own(s, !reads))
        return false;
    return reads || may_write(s->path);
}

static bool read_profile(const settings *s, profile *p)
{
    char reason[PROFILE_REASON];

    if (ballast__profile_read(s->path, p, reason))
        return true;
    complain("%s: %s", s->path, reason);
    return false;
}

/* ---- What the command does ------------------------------------------------------------------- */

static int list(const tune_cases *all)
{
    for (int i = 0; i < all->count; i++) {
        puts(all->cases[i].name);
        for (int k = 0; k < all->cases[i].problem_count; k++)
            printf("  %s\n", all->cases[i].problems[k].text);
    }
    return EXIT_GOOD;
}

static int export_profile(const settings *s)
{
    static profile p;
    static char bytes[PROFILE_BYTES + 1];
    profile_machine machine;
    char reason[PROFILE_REASON];
    text t = {bytes, sizeof bytes, 0};

    if (!read_profile(s, &p))
        return EXIT_BAD_INPUT;
    if (strcmp(s->export, "-") != 0)
        return ballast__profile_write(s->export, &p, reason)
                   ? EXIT_GOOD
                   : complain("%s: cannot be written: %s", s->export, reason);
    ballast__profile_machine(&machine);
    ballast__profile_format(&p, &machine, &t);
    fwrite(bytes, 1, t.length, stdout);
    return EXIT_GOOD;
}

static int check(const settings *s, tune_cases *all, tune_results *r)
{
    static profile known;
    int code = EXIT_GOOD;
    means m;

    if (!read_profile(s, &known))
        return EXIT_BAD_INPUT;
    open_means(&m, s->threads);
    r->threads = (int)m.pool.parallel.threads;
    r->bound = m.bound;
    r->entries = true;
    measure_entries(s, &known, all, &m, r);
    close_means(&m);
    for (int i = 0; i < r->count; i++)
        if (tune_is_stale(&r->results[i]))
            code = EXIT_CHECK_FAILED;
    if (s->json)
        tune_write_json(stdout, r);
    else
        tune_print_check(r);
    return code;
}

/* Opened before anything is measured, which takes long. */
static bool open_report(const settings *s, FILE **file)
{
    *file = s->report ? output_open(s->report) : NULL;
    return !s->report || *file;
}

static int write_report(const settings *s, FILE *file, const tune_results *r)
{
    if (!file)
        return EXIT_GOOD;
    tune_write_html(file, r);
    return output_close(file, s->report) ? EXIT_GOOD : EXIT_BAD_INPUT;
}

static int tune(const settings *s, const tune_cases *all, tune_results *r)
{
    profile_machine machine;
    FILE *report;
    means m;

    if (!open_report(s, &report))
        return EXIT_BAD_INPUT;
    ballast__profile_machine(&machine); /* cores: before this thread is bound to one */
    open_means(&m, s->threads);
    r->case_count = all->count;
    r->threads = (int)m.pool.parallel.threads;
    r->bound = m.bound;
    measure_cases(s, all, &m, r);
    close_means(&m);
    const int code = write_profile(s, machine.cores, r);
    r->path = code == EXIT_GOOD ? s->path : NULL;
    if (s->json)
        tune_write_json(stdout, r);
    else
        tune_print(r);
    const int report_code = write_report(s, report, r);
    return code == EXIT_GOOD ? report_code : code;
}

static bool read_budget(const options *o, settings *s)
{
    if (!options_real(o, &s->budget))
        return false;
    if (s->budget > 0.0 && s->budget <= 86400.0)
        return true;
    complain("--budget: %s is outside (0, 86400]", o->value);
    return false;
}

static bool apply(const options *o, void *to, int id)
{
    settings *const s = to;
    switch (id) {
    case OPT_BUDGET:
        return read_budget(o, s);
    case OPT_FILTER:
        s->filter = o->value;
        return true;
    case OPT_OUTPUT:
        s->output = o->value;
        return true;
    case OPT_CHECK:
        s->check = true;
        return true;
    case OPT_REPORT:
        s->report = o->value;
        return true;
    case OPT_EXPORT:
        s->export = o->value;
        return true;
    default:
        s->list = true;
        return true;
    }
}

int tune_main(int argc, char **argv)
{
    static tune_cases all; /* large */
    static tune_results results;
    settings s = {.begin = monotonic_seconds(), .budget = 60.0};
    options o;

    if (!options_read(&o, &spec, argc, argv, apply, &s))
        return o.exit_code;
    s.threads = o.threads;
    s.quiet = o.quiet;
    s.json = o.json;
    if (s.check && s.export)
        return complain("--check and --export: one of them");
    if (s.report && (s.check || s.export))
        return complain("--report is for tuning alone");
    if (s.export)
        return find_path(&s) ? export_profile(&s) : EXIT_BAD_INPUT;
    interrupt_watch();
    caches_read(&results.caches);
    caches_measure(&results.caches, fmin(1.0, 0.1 * s.budget));
    tune_cases_make(s.filter, results.caches.real, &all);
    if (all.count == 0)
        return complain("--filter '%s': no case has it", s.filter);
    if (s.list) {
        interrupt_leave();
        return list(&all);
    }
    if (!find_path(&s))
        return EXIT_BAD_INPUT;
    case_use_pages(PAGES_4K);
    results.path = s.path;
    const int code = s.check ? check(&s, &all, &results) : tune(&s, &all, &results);
    if (interrupt_seen())
        fflush(stdout);
    interrupt_leave();
    return code;
}
