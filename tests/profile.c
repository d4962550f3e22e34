/* SPDX-License-Identifier: MIT */
/* A profile changes speed and never a bit; one that is foreign, damaged or cut is ignored with a
 * reason that says where and why; loading, saving and describing may go on while others compute.
 * Through the static library: profiles are made with dispatch/profile.h, as a tuner makes them.
 *
 *   test_profile HASHES      with tests/golden/hashes.txt
 *   test_profile --child     prints what is in force before and after a first call */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../bench/cases.h"
#include "../dispatch/arguments.h"
#include "../dispatch/profile.h"
#include "../dispatch/text.h"
#include "../kernels/kernels.h"
#include "sanitized.h"
#include "whole_file.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <dirent.h>
#include <unistd.h>

static const char *self, *golden_path;
static char folder[] = "/tmp/ballast-profile-XXXXXX";
static profile_machine machine; /* this one */

static const char *path_of(const char *name)
{
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* ---- Profiles -------------------------------------------------------------------------------- */

static uint32_t seed = 20190616;

static int random_below(int limit)
{
    seed = seed * 1664525u + 1013904223u;
    return (int)((uint64_t)(seed >> 8) * (uint64_t)limit >> 24);
}

static int candidates_of(int which)
{
    int count = 0;

    while (ballast__candidate(which, count))
        count++;
    return count;
}

/* Any candidate, but no ISA that does not run here. */
static int random_candidate(int which)
{
    for (;;) {
        const int index = random_below(candidates_of(which));
        const int64_t value = ballast__candidate(which, index)->value;

        if (which != CHOOSE_ISA || value < 0 || machine.isas >> value & 1)
            return index;
    }
}

static void add_line(profile *p, tuned_case where, int which, int candidate)
{
    const int32_t ratio = 500 + random_below(600);

    p->lines[p->count++] = (profile_line){
        {where, (choice_kind)which, candidate},
        ratio, ratio - random_below(100), ratio + random_below(100),
        (candidate > 0) + random_below(1000),
        20260000 + 100 * (1 + random_below(12)) + 1 + random_below(28)};
}

/* A choice of each kind for each operation and dtype, each for some shape: the others take the
 * nearest. `more` other lines. */
static void make_random(profile *p, int more)
{
    p->cores = 1 + random_below(64);
    p->count = 0;
    for (int o = 0; o < TUNED_OPERATIONS; o++)
        for (int d = 0; ballast__tuned_dtype_name(d); d++)
            for (int which = 0; which < CHOICES && *ballast__tuned_dtype_name(d); which++) {
                const int shape = random_below(SHAPE_CLASSES);

                for (int i = 0; i <= more; i++) {
                    const tuned_case where = {(tuned_operation)o, (ballast_dtype)d,
                                              (shape + i) % SHAPE_CLASSES};
                    add_line(p, where, which, random_candidate(which));
                }
            }
    assert_true(p->count <= PROFILE_CHOICES);
}

static char written[PROFILE_BYTES + 1];

static size_t write_text(const profile *p, const profile_machine *m, char *out)
{
    text t = {out, PROFILE_BYTES + 1, 0};

    ballast__profile_format(p, m, &t);
    assert_true(t.length <= PROFILE_BYTES);
    return t.length;
}

static bool is_equal(const profile *a, const profile *b)
{
    static char text_a[PROFILE_BYTES + 1], text_b[PROFILE_BYTES + 1];
    const size_t size = write_text(a, &machine, text_a);

    return size == write_text(b, &machine, text_b) && memcmp(text_a, text_b, size) == 0;
}

static char described[2 * PROFILE_BYTES];

static const char *describe(void)
{
    assert_true(ballast_profile_describe(described, sizeof described) < sizeof described);
    return described;
}

static void assert_described(const char *part)
{
    if (!strstr(describe(), part))
        fail_msg("expected \"%s\" in:\n%s", part, described);
}

/* ---- Round trip ------------------------------------------------------------------------------ */

static void round_trip(void **state)
{
    static profile made, read;
    static char again[PROFILE_BYTES + 1];
    char reason[PROFILE_REASON];

    (void)state;
    for (int i = 0; i < 50; i++) {
        make_random(&made, i % 5);
        const size_t size = write_text(&made, &machine, written);
        if (!ballast__profile_parse(written, size, &machine, &read, reason))
            fail_msg("%s", reason);
        assert_string_equal(reason, "");
        assert_true(is_equal(&made, &read));

        put_file(path_of("loaded"), written, size);
        assert_int_equal(ballast_profile_load(path_of("loaded")), BALLAST_OK);
        assert_int_equal(ballast_profile_save(path_of("saved")), BALLAST_OK);
        assert_int_equal(get_file(path_of("saved"), again, sizeof again), size);
        assert_memory_equal(again, written, size);
    }
    ballast_profile_reset();
    assert_int_equal(ballast_profile_save(path_of("saved")), BALLAST_OK); /* without choices */
    assert_int_equal(ballast_profile_load(path_of("saved")), BALLAST_OK);
    assert_described("0 choices in force");
    ballast_profile_reset();
}

/* As many lines as there may be, each as long as it can be, fit; one more does not. */
static void largest(void **state)
{
    static profile full, read;
    static char longer[PROFILE_BYTES + 200];
    char reason[PROFILE_REASON];

    (void)state;
    full.cores = 999999999;
    for (int i = 0; i < PROFILE_CHOICES; i++) {
        const tuned_case where = {(tuned_operation)(i / 108 % TUNED_OPERATIONS),
                                  (ballast_dtype)(1 + i / 27 % 4), i % SHAPE_CLASSES};
        const choice_kind which = i < 108 * TUNED_OPERATIONS ? CHOOSE_SHARE : CHOOSE_TASKS;
        full.lines[i] = (profile_line){{where, which, 4}, 999999, 999999, 999999, 999999999,
                                       99991231};
    }
    full.count = PROFILE_CHOICES;
    const size_t size = write_text(&full, &machine, longer);
    assert_true(ballast__profile_parse(longer, size, &machine, &read, reason));
    char *const last = strstr(longer, "sum ");
    strcpy(last, "softmax:f32:classes=short,data=L2,rows=one isa=default ratio=1.000 low=1.000 "
                 "high=1.000 samples=1 date=2026-11-23\nsum ");
    assert_false(ballast__profile_parse(longer, strlen(longer), &machine, &read, reason));
    assert_string_equal(reason, "line 2054, choice: expected no more choices than 2048");
}

/* ---- Damage ---------------------------------------------------------------------------------- */

static void refuse(const char *bytes, size_t size, const char *what, size_t at)
{
    static profile read;
    char *copy = malloc(size + (size == 0)); /* so that sanitizers see its end */
    char reason[PROFILE_REASON];

    assert_non_null(copy);
    memcpy(copy, bytes, size);
    const bool taken = ballast__profile_parse(copy, size, &machine, &read, reason);
    free(copy);
    if (taken)
        fail_msg("taken: %s %zu", what, at);
    if (strncmp(reason, "line ", 5) != 0 || strlen(reason) >= PROFILE_REASON - 1)
        fail_msg("%s %zu: no good reason: %s", what, at, reason);
    for (const char *c = reason; *c; c++)
        if (*c < ' ' || *c > '~')
            fail_msg("%s %zu: the reason is no line of text: %s", what, at, reason);
}

static void any_damage(void **state)
{
    static profile p;
    static char bytes[PROFILE_BYTES + 2];

    (void)state;
    p = (profile){.cores = 2};
    for (int which = 0; which < CHOICES; which++)
        add_line(&p, (tuned_case){TUNE_CROSS_ENTROPY, BALLAST_F32, 5 * which}, which, 1);
    const size_t size = write_text(&p, &machine, bytes);
    for (size_t i = 0; i < size; i++) {
        const char right = bytes[i];

        for (int flip = 1; flip < 256; flip++) {
            bytes[i] = (char)(right ^ flip);
            refuse(bytes, size, "changed byte", i);
        }
        bytes[i] = right;
        refuse(bytes, i, "cut to", i);
    }
    bytes[size] = '\n';
    refuse(bytes, size + 1, "a byte more than", size);
    for (size_t i = 0; i + 1 < size; i++) { /* a byte less, or twice */
        char without[2048];

        assert_true(size < sizeof without);
        memcpy(without, bytes, i);
        memcpy(without + i, bytes + i + 1, size - i - 1);
        refuse(without, size - 1, "without byte", i);
        memcpy(without, bytes, i + 1);
        memcpy(without + i + 1, bytes + i, size - i);
        refuse(without, size + 1, "twice byte", i);
    }
}

/* What each field may be, said in words; the sum is right, or the reason would be that. */
static void reasons(void **state)
{
    static const struct {
        const char *from, *to, *reason;
    } cases[] = {
        {"ballast profile 1", "ballast profile 2", "line 1, format: expected ballast profile 1"},
        {"cores 2", "cores 0", "line 5, cores: expected a number from 1 to 999999999"},
        {"cores 2", "cores 02", "line 5, cores: expected a number from 1 to 999999999"},
        {"cores 2", "cores 9999999999", "line 5, cores: expected a number from 1 to 999999999"},
        {"cores 2\n", "cores 2\r\n", "line 5, cores: expected the end of the line"},
        {"cross_entropy:", "entropy:", "line 6, operation: expected one of softmax log_softmax "},
        {":f32:", ":f33:", "line 6, dtype: expected one of f32 f64"},
        {"classes=long", "classes=wide", "line 6, classes: expected one of short medium long"},
        {"data=memory", "data=L3", "line 6, data: expected one of L2 cache memory"},
        {"rows=few", "rows=2", "line 6, rows: expected one of one few many"},
        {"stream=never", "prefetch=8", "line 6, choice: expected one of isa stream "},
        {"stream=never", "stream=100", "line 6, stream: expected one of default always "},
        {"stream=never", "isa=neon", "line 6, isa: expected one that runs here"},
        {"ratio=0.934", "ratio=0,934", "line 6, ratio: expected ."},
        {"ratio=0.934", "ratio=0.93", "line 6, ratio: expected a digit"},
        {"ratio=0.934", "ratio=nan", "line 6, ratio: expected a number from 0 to 999999999"},
        {"ratio=0.934", "ratio=1000.000", "line 6, ratio: expected a number below 1000"},
        {"low=0.921", "low=0.935", "line 6, low: expected an interval around the ratio"},
        {"high=0.947", "high=0.933", "line 6, low: expected an interval around the ratio"},
        {"samples=200", "samples=0", "line 6, samples: expected a number from 1 to 999999999"},
        {"never ratio=0.934 low=0.921 high=0.947 samples=200",
         "default ratio=1.000 low=1.000 high=1.000 samples=x",
         "line 6, samples: expected a number from 0 to 999999999"},
        {"date=2026-11-23", "date=2026-13-23", "line 6, date: expected a day of a month of a year"},
        {"23\n", "23 \n", "line 6, end: expected the end of the line"},
        {"sum ", "softmax", "line 7, dtype: expected :"},
    };
    static const char line[] = "cross_entropy:f32:classes=long,data=memory,rows=few stream=never "
                               "ratio=0.934 low=0.921 high=0.947 samples=200 date=2026-11-23\n";
    static profile read;
    profile_machine made_up = {"b", "c", "0 0 0 0", 2, 1};
    char reason[PROFILE_REASON], whole[1024], changed[1024];

    (void)state;
    snprintf(whole, sizeof whole,
             "ballast profile 1\nbuild b\ncpu c\ncaches 0 0 0 0\ncores 2\n%ssum ", line);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const at = strstr(whole, cases[i].from);

        assert_non_null(at);
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - whole), whole, cases[i].to,
                 at + strlen(cases[i].from));
        assert_false(ballast__profile_parse(changed, strlen(changed), &made_up, &read, reason));
        if (strncmp(reason, cases[i].reason, strlen(cases[i].reason)) != 0)
            fail_msg("%s: expected %s, got %s", cases[i].to, cases[i].reason, reason);
    }
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(strstr(whole, "sum") - whole), whole, line,
             "sum ");
    assert_false(ballast__profile_parse(changed, strlen(changed), &made_up, &read, reason));
    assert_string_equal(reason, "line 7, choice: expected one that no line before has made");
    const size_t cut = (size_t)(strstr(whole, "data=") - whole) + 2;
    assert_false(ballast__profile_parse(whole, cut, &made_up, &read, reason));
    assert_string_equal(reason,
                        "line 6, data: expected data, and the file ends within this line");
}

/* ---- Other machines -------------------------------------------------------------------------- */

static void foreign(void **state)
{
    static profile p, read;
    char reason[PROFILE_REASON], expected[3 * MACHINE_TEXT];

    (void)state;
    make_random(&p, 0);
    for (int field = 0; field < 3; field++) {
        static const char *const names[] = {"build", "cpu", "caches"};
        profile_machine other = machine;
        char *const value = field == 0 ? other.build : field == 1 ? other.cpu : other.caches;
        const char *const ours = field == 0   ? machine.build
                                 : field == 1 ? machine.cpu
                                              : machine.caches;

        snprintf(value, MACHINE_TEXT, "another\t%d", field);
        const size_t size = write_text(&p, &other, written);
        assert_false(ballast__profile_parse(written, size, &machine, &read, reason));
        snprintf(expected, sizeof expected,
                 "line %d, %s: expected that of this %s, \"%s\", not \"another?%d\"", field + 2,
                 names[field], field == 0 ? "library" : "machine", ours, field);
        assert_string_equal(reason, expected);

        put_file(path_of("foreign"), written, size);
        assert_int_equal(ballast_profile_load(path_of("foreign")), BALLAST_ERR_PROFILE);
        assert_described("no profile: the analytical default is in force\nignored: ");
        assert_described(expected);
    }
    ballast_profile_reset();
    assert_string_equal(describe(), "no profile: the analytical default is in force\n");
}

/* What was in force stays in force. */
static void ignored_leaves_what_was(void **state)
{
    static profile p;
    char before[256];

    (void)state;
    make_random(&p, 1);
    ballast__profile_use(&p, "by hand");
    const tuning t = ballast__tuning_of(TUNE_SOFTMAX, BALLAST_F32, 100, 1000);
    snprintf(before, sizeof before, "profile by hand: %d choices in force", p.count);
    assert_described(before);
    put_file(path_of("damaged"), "ballast profile 1\n", 18);
    assert_int_equal(ballast_profile_load(path_of("damaged")), BALLAST_ERR_PROFILE);
    assert_described(before);
    assert_described("line 2, build: expected build, not the end of the file");
    assert_int_equal(ballast__tuning_of(TUNE_SOFTMAX, BALLAST_F32, 100, 1000).word, t.word);
    assert_int_equal(ballast_profile_load(path_of("none there")), BALLAST_ERR_FILE);
    assert_described("none there: there is no such file or folder");
    assert_int_equal(ballast_profile_load(folder), BALLAST_ERR_FILE);
    assert_described("it is no regular file");
    assert_int_equal(ballast_profile_load(NULL), BALLAST_ERR_NULL);
    assert_int_equal(ballast_profile_save(NULL), BALLAST_ERR_NULL);
    assert_int_equal(mkfifo(path_of("pipe"), 0600), 0);
    assert_int_equal(ballast_profile_load(path_of("pipe")), BALLAST_ERR_FILE); /* does not wait */
    ballast_profile_reset();
}

static void oversized(void **state)
{
    char *bytes = calloc(PROFILE_BYTES + 2, 1);

    (void)state;
    assert_non_null(bytes);
    memset(bytes, 'x', PROFILE_BYTES + 2);
    for (size_t size = PROFILE_BYTES; size <= PROFILE_BYTES + 2; size++) {
        put_file(path_of("large"), bytes, size);
        assert_int_equal(ballast_profile_load(path_of("large")), BALLAST_ERR_PROFILE);
        assert_described(size == PROFILE_BYTES ? "line 1, format" : "larger than any profile");
    }
    free(bytes);
    ballast_profile_reset();
}

/* ---- Writing files --------------------------------------------------------------------------- */

static int count_files(void)
{
    DIR *d = opendir(folder);
    int count = 0;

    assert_non_null(d);
    while (readdir(d))
        count++;
    closedir(d);
    return count;
}

/* A limit of the file size is met like a full disk: in the middle of a write. */
static void full_disk(void **state)
{
    static profile p;
    static char before[PROFILE_BYTES], after[PROFILE_BYTES];
    struct rlimit unlimited, small;

    (void)state;
    ballast_profile_reset();
    assert_int_equal(ballast_profile_save(path_of("kept")), BALLAST_OK);
    const size_t size = get_file(path_of("kept"), before, sizeof before);
    const int files = count_files();
    make_random(&p, 3);
    ballast__profile_use(&p, "by hand");
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
    small = unlimited;
    small.rlim_cur = 1000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    errno = 123;
    const ballast_status status = ballast_profile_save(path_of("kept"));
    const int kept_errno = errno;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    assert_int_equal(status, BALLAST_ERR_FILE);
    assert_int_equal(kept_errno, 123);
    assert_int_equal(get_file(path_of("kept"), after, sizeof after), size);
    assert_memory_equal(before, after, size);
    assert_int_equal(count_files(), files);

    assert_int_equal(ballast_profile_save(folder), BALLAST_ERR_FILE);
    assert_int_equal(ballast_profile_save(path_of("none/there")), BALLAST_ERR_FILE);
    assert_int_equal(ballast_profile_save(""), BALLAST_ERR_FILE);
    assert_int_equal(count_files(), files);
    ballast_profile_reset();
}

/* As root, nothing else would keep a device from being renamed over. */
static void no_regular_file(void **state)
{
    static profile p;
    char reason[PROFILE_REASON];
    struct stat about;

    (void)state;
    assert_int_equal(mkfifo(path_of("another pipe"), 0600), 0);
    assert_int_equal(ballast_profile_save(path_of("another pipe")), BALLAST_ERR_FILE);
    assert_false(ballast__profile_write(path_of("another pipe"), &p, reason));
    assert_string_equal(reason, "it is no regular file, or what should be a folder is none");
    assert_int_equal(stat(path_of("another pipe"), &about), 0);
    assert_true(S_ISFIFO(about.st_mode));
    assert_int_equal(unlink(path_of("another pipe")), 0);
}

/* What is in force is no matter, nor is it changed. */
static void read_and_write(void **state)
{
    static profile p, read;
    char reason[PROFILE_REASON];

    (void)state;
    ballast_profile_reset();
    make_random(&p, 1);
    assert_true(ballast__profile_write(path_of("written"), &p, reason));
    assert_true(ballast__profile_read(path_of("written"), &read, reason));
    assert_true(is_equal(&p, &read));
    assert_non_null(strstr(describe(), "no profile"));
    assert_int_equal(unlink(path_of("written")), 0);
    assert_false(ballast__profile_read(path_of("written"), &read, reason));
    assert_string_equal(reason, "there is no such file or folder");
}

/* Temporary files that a process of this number once left are no obstacle, and stay as they are. */
static void left_over_files(void **state)
{
    char name[256], bytes[8];

    (void)state;
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "%s.%d.%d.tmp", path_of("kept"), (int)getpid(), i);
        put_file(name, "left", 4);
    }
    assert_int_equal(ballast_profile_save(path_of("kept")), BALLAST_OK);
    assert_int_equal(ballast_profile_load(path_of("kept")), BALLAST_OK);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "%s.%d.%d.tmp", path_of("kept"), (int)getpid(), i);
        assert_int_equal(get_file(name, bytes, sizeof bytes), 4);
        unlink(name);
    }
    ballast_profile_reset();
}

static void names_of_any_length(void **state)
{
    char *name = malloc(9000);

    (void)state;
    assert_non_null(name);
    for (int length = 4000; length < 9000; length += 37) {
        memset(name, 'n', (size_t)length);
        name[length] = 0;
        assert_int_equal(ballast_profile_load(name), BALLAST_ERR_FILE);
        assert_int_equal(ballast_profile_save(name), BALLAST_ERR_FILE);
    }
    free(name);
    describe();
    ballast_profile_reset();
}

static void errno_is_kept(void **state)
{
    (void)state;
    errno = 123;
    ballast_profile_load(path_of("none there"));
    assert_int_equal(errno, 123);
    ballast_profile_save(path_of("none/there"));
    assert_int_equal(errno, 123);
    ballast_profile_describe(NULL, 0);
    assert_int_equal(errno, 123);
    ballast_profile_reset();
}

static void described_in_little_room(void **state)
{
    static profile p;
    char small[100];

    (void)state;
    make_random(&p, 0);
    ballast__profile_use(&p, "by hand");
    const size_t length = ballast_profile_describe(NULL, 0);
    assert_int_equal(strlen(describe()), length);
    for (size_t size = 1; size < sizeof small - 1; size++) {
        memset(small, 'x', sizeof small);
        assert_int_equal(ballast_profile_describe(small, size), length);
        assert_int_equal(strlen(small), size - 1);
        assert_memory_equal(small, described, size - 1);
        assert_int_equal(small[size], 'x');
    }
    ballast_profile_reset();
}

/* A locale of the test's own, as few machines have one installed. */
static void comma_locale(void **state)
{
    char command[256];

    snprintf(command, sizeof command,
             "localedef -f UTF-8 -i de_DE '%s/de_DE.UTF-8' >/dev/null 2>&1", folder);
    const int made = system(command);
    setenv("LOCPATH", folder, 1);
    const bool found = setlocale(LC_ALL, "de_DE.UTF-8") && *localeconv()->decimal_point == ',';
    unsetenv("LOCPATH");
    if (made != 0 || !found) {
        assert_non_null(setlocale(LC_ALL, "C"));
        print_message("skipped: localedef makes no de_DE.UTF-8 here\n");
        skip();
    }
    round_trip(state);
    assert_non_null(setlocale(LC_ALL, "C"));
}

/* ---- What calls take ------------------------------------------------------------------------- */

static int64_t chosen(tuned_operation o, ballast_dtype dtype, int64_t rows, int64_t classes,
                      choice_kind which)
{
    return ballast__chosen(ballast__tuning_of(o, dtype, rows, classes), which);
}

static void defaults(void **state)
{
    ballast__cpu cpu;
    uint64_t last = 0;

    (void)state;
    ballast_profile_reset();
    ballast__cpu_read(NULL, &cpu);
    for (int i = 0; i < BALLAST__CPU_CACHE_LEVELS; i++)
        last = cpu.cache[i] > last ? cpu.cache[i] : last;
    last = last && last < COUNTED_CACHE ? last : COUNTED_CACHE;
    for (int i = 0; i < TUNED_OPERATIONS; i++) {
        const tuned_operation o = (tuned_operation)i;
        const int64_t rows = (int64_t)(last / 8 / 1000); /* within it: 2 * 4 * 1000 bytes each */

        assert_int_equal(chosen(o, BALLAST_F32, rows, 1000, CHOOSE_TASK), 60000);
        assert_int_equal(chosen(o, BALLAST_F32, rows, 1000, CHOOSE_TASKS), 16);
        assert_int_equal(chosen(o, BALLAST_F32, rows, 1000, CHOOSE_SHARE), 4);
        assert_int_equal(chosen(o, BALLAST_F32, rows, 1000, CHOOSE_ISA), -1);
        const tuning t = ballast__tuning_of(o, BALLAST_F32, 8, 100);
        const int64_t widest[][3] = {{3, 255, 255}, {4, 255, 63}, {15, 160, 63}, {16, 255, 255}, {8, 40, 40}};
        for (size_t i = 0; i < sizeof widest / sizeof widest[0]; i++)
            assert_int_equal(ballast__tile_classes(t, widest[i][0], 4, widest[i][1]), widest[i][2]);
        assert_int_equal(ballast__tile_classes(t, 2, 2, 255), 63);
        assert_int_equal(ballast__kept_chunks(t), 0);
        assert_false(ballast__tuning_of(o, BALLAST_F32, rows, 1000).streams);
        assert_true(ballast__tuning_of(o, BALLAST_F32, rows + 1, 1000).streams);
        assert_true(ballast__tuning_of(o, BALLAST_F64, rows / 2 + 1, 1000).streams);
    }
}

/* What is in force for an operation and dtype is what was chosen for them. */
static void each_operation(void **state)
{
    static profile p;

    (void)state;
    p = (profile){.cores = 1};
    for (int o = 0; o < TUNED_OPERATIONS; o++)
        for (int d = 0; d < 2; d++)
            add_line(&p, (tuned_case){(tuned_operation)o, d ? BALLAST_F64 : BALLAST_F32, 0},
                     CHOOSE_TASK, 1 + (o + 3 * d) % 6);
    ballast__profile_use(&p, "by hand");
    for (int i = 0; i < p.count; i++) {
        const tuned_choice *c = &p.lines[i].chosen;

        assert_int_equal(chosen(c->where.operation, c->where.dtype, 70, 5000, CHOOSE_TASK),
                         ballast__candidate(CHOOSE_TASK, c->candidate)->value);
    }
    ballast_profile_reset();
}

/* A shape without a choice takes the nearest of its operation and dtype, and no other's. */
static void nearest(void **state)
{
    static profile p;
    const tuned_case small = ballast__tuned_case(TUNE_SOFTMAX, BALLAST_F32, 1, 10);
    const tuned_case large = ballast__tuned_case(TUNE_SOFTMAX, BALLAST_F32, 1 << 20, 1 << 20);

    (void)state;
    assert_int_equal(small.shape, 0);
    assert_int_equal(large.shape, SHAPE_CLASSES - 1);
    p = (profile){.cores = 1};
    add_line(&p, small, CHOOSE_TASKS, 1); /* 1 */
    add_line(&p, large, CHOOSE_TASKS, 4); /* 8 */
    add_line(&p, large, CHOOSE_STREAM, 14); /* never */
    ballast__profile_use(&p, "by hand");
    assert_int_equal(chosen(TUNE_SOFTMAX, BALLAST_F32, 1, 10, CHOOSE_TASKS), 1);
    assert_int_equal(chosen(TUNE_SOFTMAX, BALLAST_F32, 20, 300, CHOOSE_TASKS), 1); /* in L2 */
    assert_int_equal(chosen(TUNE_SOFTMAX, BALLAST_F32, 1, 1 << 30, CHOOSE_TASKS), 8);
    assert_int_equal(chosen(TUNE_SOFTMAX, BALLAST_F32, 1 << 30, 10, CHOOSE_TASKS), 8);
    assert_false(ballast__tuning_of(TUNE_SOFTMAX, BALLAST_F32, 1 << 20, 1 << 20).streams);
    assert_int_equal(chosen(TUNE_SOFTMAX, BALLAST_F64, 1, 10, CHOOSE_TASKS), 16);
    assert_int_equal(chosen(TUNE_LOG_SOFTMAX, BALLAST_F32, 1, 10, CHOOSE_TASKS), 16);
    assert_int_equal(chosen(TUNE_SOFTMAX, BALLAST_F32, 1, 10, CHOOSE_SHARE), 4);
    ballast_profile_reset();
    assert_int_equal(chosen(TUNE_SOFTMAX, BALLAST_F32, 1, 10, CHOOSE_TASKS), 16);
}

static const ballast_implementation *used_with(const ballast_implementation *named)
{
    ballast_exec exec = BALLAST_EXEC;
    arguments in;

    exec.implementation = named;
    ballast__begin(&in);
    ballast__read_exec(&in, &exec);
    ballast__tune(&in, TUNE_SOFTMAX, BALLAST_F32, 1, 10);
    return in.implementation;
}

/* A profile's ISA stands behind whatever the program says. */
static void program_names_the_implementation(void **state)
{
    const ballast_implementation *fastest = ballast_implementation_default(NULL, 0);
    const ballast_implementation *scalar = ballast_implementation_find("scalar");

    (void)state;
    assert_ptr_equal(ballast__implementation_tuned(BALLAST__SCALAR), scalar);
    assert_int_equal(ballast_implementation_set_default(fastest), BALLAST_OK);
    assert_ptr_equal(ballast__implementation_tuned(BALLAST__SCALAR), fastest);
    assert_int_equal(ballast_implementation_set_default(NULL), BALLAST_OK);
    for (int isa = 0; isa < BALLAST__ISA_COUNT; isa++)
        if (!(machine.isas >> isa & 1))
            assert_ptr_equal(ballast__implementation_tuned((ballast__isa)isa), fastest);

    static profile p = {.cores = 1};
    add_line(&p, ballast__tuned_case(TUNE_SOFTMAX, BALLAST_F32, 1, 10), CHOOSE_ISA, 1);
    assert_ptr_equal(used_with(NULL), fastest);
    ballast__profile_use(&p, "by hand");
    assert_ptr_equal(used_with(NULL), scalar);
    assert_ptr_equal(used_with(fastest), fastest);
    ballast_profile_reset();
    assert_ptr_equal(used_with(NULL), fastest);
}

/* Linked with --wrap, which counts the calls: bits do not tell implementations apart. */
typedef void cross_entropy_kernel(const cross_entropy_job *job, int64_t begin, int64_t end);
cross_entropy_kernel __real_ballast__cross_entropy_f32_scalar;
cross_entropy_kernel __wrap_ballast__cross_entropy_f32_scalar;

static atomic_int scalar_calls;

void __wrap_ballast__cross_entropy_f32_scalar(const cross_entropy_job *job, int64_t begin,
                                              int64_t end)
{
    atomic_fetch_add(&scalar_calls, 1);
    __real_ballast__cross_entropy_f32_scalar(job, begin, end);
}

static int scalar_calls_of(int64_t rows, int64_t classes)
{
    static float logits[16 * 300], grad[16 * 300];
    static const uint8_t labels[16];
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    double loss;

    a.logits = ballast_const_matrix_f32(logits, rows, classes);
    a.labels = ballast_labels_u8(labels);
    a.loss = &loss;
    a.grad = ballast_matrix_f32(grad, rows, classes);
    atomic_store(&scalar_calls, 0);
    assert_int_equal(ballast_cross_entropy(&a, NULL), BALLAST_OK);
    return atomic_load(&scalar_calls);
}

static void skip_where_scalar_is_the_default(void)
{
    if (ballast_implementation_default(NULL, 0) == ballast_implementation_find("scalar")) {
        print_message("skipped: scalar is the default here\n");
        skip();
    }
}

/* A few rows need no plan, unless a profile says how. */
static void few_rows_follow_the_profile(void **state)
{
    static const int64_t rows[] = {1, 2, 15, 16}, classes[] = {1, 10, 255, 300};

    (void)state;
    skip_where_scalar_is_the_default();
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 4; k++) {
            static profile p;

            p = (profile){.cores = 1};
            add_line(&p, ballast__tuned_case(TUNE_CROSS_ENTROPY, BALLAST_F32, rows[i], classes[k]),
                     CHOOSE_ISA, 1);
            assert_int_equal(scalar_calls_of(rows[i], classes[k]), 0);
            ballast__profile_use(&p, "by hand");
            if (scalar_calls_of(rows[i], classes[k]) == 0)
                fail_msg("%d rows of %d classes: not computed by what the profile names",
                         (int)rows[i], (int)classes[k]);
            ballast_profile_reset();
        }
}

typedef void reduce_kernel(const reduce_job *job, int64_t begin, int64_t end);
reduce_kernel __real_ballast__weighted_sum_f32_scalar;
reduce_kernel __wrap_ballast__weighted_sum_f32_scalar;

void __wrap_ballast__weighted_sum_f32_scalar(const reduce_job *job, int64_t begin, int64_t end)
{
    atomic_fetch_add(&scalar_calls, 1);
    __real_ballast__weighted_sum_f32_scalar(job, begin, end);
}

static int scalar_calls_of_sum(int64_t count)
{
    static const float x[4096];
    ballast_reduce_args a = BALLAST_REDUCE_ARGS;
    double result;

    a.x = ballast_vector_f32(x, count);
    a.result = &result;
    atomic_store(&scalar_calls, 0);
    assert_int_equal(ballast_weighted_sum(&a, NULL), BALLAST_OK);
    return atomic_load(&scalar_calls);
}

/* Nor does a sum of one leaf. */
static void short_sums_follow_the_profile(void **state)
{
    static const int64_t counts[] = {1, 4096};

    (void)state;
    skip_where_scalar_is_the_default();
    for (int i = 0; i < 2; i++) {
        static profile p;

        p = (profile){.cores = 1};
        add_line(&p, ballast__tuned_case(TUNE_WEIGHTED_SUM, BALLAST_F32, counts[i], 1), CHOOSE_ISA,
                 1);
        assert_int_equal(scalar_calls_of_sum(counts[i]), 0);
        ballast__profile_use(&p, "by hand");
        assert_int_not_equal(scalar_calls_of_sum(counts[i]), 0);
        ballast_profile_reset();
    }
}

/* ---- Bits ------------------------------------------------------------------------------------ */

enum { MOST_PROBLEMS = 1000, LENT = 5 };

static struct {
    problem p;
    char text[PROBLEM_TEXT];
    uint64_t hash;
} golden[MOST_PROBLEMS];
static int golden_count;

/* Small ones of the golden file; and ones of several tasks, shared rows, and every class of
 * rows, whose hash is that without a profile. */
static const char *const large_problems[] = {
    "cross_entropy:f32:rows=1,classes=40000", "cross_entropy:f32:rows=3,classes=20000,inplace=1",
    "cross_entropy:f32:rows=2000,classes=10", "cross_entropy:f32:rows=300,classes=300",
    "softmax:f32:rows=2,classes=30000",       "log_softmax:f32:rows=700,classes=100",
    "log_sum_exp:f32:rows=1,classes=50000",   "softmax_backward:f32:rows=90,classes=1000",
    "binary_cross_entropy:f32:rows=300,classes=80", "sigmoid_focal:f32:rows=300,classes=80",
    "weighted_sum:f32:count=200000",          "weighted_log_sum_exp:f32:count=100000",
    "dot:f32:count=200000",                   "cross_entropy:f32:rows=1000,classes=21,inner=500",
};

/* Last task first: none may depend on another. */
static int64_t most_tasks;

static void run_backwards(void *context, int64_t tasks, void (*task)(void *, int64_t), void *arg)
{
    (void)context;
    most_tasks = tasks > most_tasks ? tasks : most_tasks;
    while (tasks-- > 0)
        task(arg, tasks);
}

/* False where this library has no f64. */
static bool hash_of(const problem *p, const ballast_parallel *parallel, uint64_t *hash)
{
    return case_hash_of(p, NULL, parallel, hash) == BALLAST_OK;
}

static void add_problem(const char *words)
{
    char message[PROBLEM_TEXT];

    assert_true(golden_count < MOST_PROBLEMS);
    if (!problem_parse(words, &golden[golden_count].p, message, sizeof message))
        fail_msg("%s: %s", words, message);
    snprintf(golden[golden_count].text, PROBLEM_TEXT, "%s", words);
    golden_count++;
}

static void read_golden(void)
{
    FILE *file = fopen(golden_path, "r");
    char line[PROBLEM_TEXT + 64];

    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        char *const space = strchr(line, ' ');

        if (line[0] == '#' || !space)
            continue;
        *space = 0;
        add_problem(line);
        assert_int_equal(sscanf(space + 1, "%" SCNx64, &golden[golden_count - 1].hash), 1);
    }
    fclose(file);
    assert_true(golden_count > 100);
    for (size_t i = 0; i < sizeof large_problems / sizeof large_problems[0]; i++) {
        add_problem(large_problems[i]);
        assert_true(hash_of(&golden[golden_count - 1].p, NULL, &golden[golden_count - 1].hash));
    }
}

static void check_golden(int i, const profile *p)
{
    const ballast_parallel parallel = {NULL, run_backwards, LENT};

    for (int lent = 0; lent < 2; lent++) {
        uint64_t hash;

        if (!hash_of(&golden[i].p, lent ? &parallel : NULL, &hash) || hash == golden[i].hash)
            continue;
        write_text(p, &machine, written);
        fail_msg("%s: %016" PRIx64 ", want %016" PRIx64 " with%s threads and the profile\n%s",
                 golden[i].text, hash, golden[i].hash, lent ? "" : "out", written);
    }
}

/* Each problem of the file with some of the profiles, the large ones with each. Bits do not depend on
 * a sanitizer: there each problem of the file goes with one. */
static void same_bits(void **state)
{
    enum { STRIDE = 10, PROFILES = SANITIZED ? STRIDE : 3 * STRIDE };
    static profile p;
    int64_t tasks = 0;

    (void)state;
    ballast_profile_reset();
    read_golden();
    const int large = golden_count - (int)(sizeof large_problems / sizeof large_problems[0]);
    for (int k = 0; k < PROFILES; k++) {
        make_random(&p, 4);
        ballast__profile_use(&p, "by hand");
        most_tasks = 0;
        for (int i = k % STRIDE; i < large; i += STRIDE)
            check_golden(i, &p);
        for (int i = large; i < golden_count; i++)
            check_golden(i, &p);
        tasks = most_tasks > tasks ? most_tasks : tasks;
    }
    assert_true(tasks > 4 * LENT); /* more than ever without a profile */
    ballast_profile_reset();
}

/* ---- While others compute -------------------------------------------------------------------- */

enum { CALLERS = 3, CALL_ROWS = 40, CALL_CLASSES = 300 };

static atomic_bool stop;
static atomic_int wrong;
static float call_logits[CALL_ROWS * CALL_CLASSES];
static uint8_t call_labels[CALL_ROWS];

static void run_in_order(void *context, int64_t tasks, void (*task)(void *, int64_t), void *arg)
{
    (void)context;
    for (int64_t i = 0; i < tasks; i++)
        task(arg, i);
}

static double loss_of_call(float *grad)
{
    const ballast_parallel parallel = {NULL, run_in_order, LENT};
    ballast_exec exec = BALLAST_EXEC;
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;
    double loss = 0.0;

    exec.parallel = &parallel;
    a.logits = ballast_const_matrix_f32(call_logits, CALL_ROWS, CALL_CLASSES);
    a.labels = ballast_labels_u8(call_labels);
    a.loss = &loss;
    a.grad = ballast_matrix_f32(grad, CALL_ROWS, CALL_CLASSES);
    return ballast_cross_entropy(&a, &exec) == BALLAST_OK ? loss : -1.0;
}

static void *call_on(void *arg)
{
    static _Thread_local float grad[CALL_ROWS * CALL_CLASSES];
    const double *expected = arg;

    while (!atomic_load(&stop))
        if (loss_of_call(grad) != *expected)
            atomic_store(&wrong, 1);
    return NULL;
}

static void *describe_on(void *arg)
{
    static char seen[2 * PROFILE_BYTES];

    (void)arg;
    while (!atomic_load(&stop)) {
        ballast_profile_describe(seen, sizeof seen);
        if (strncmp(seen, "profile ", 8) != 0 && strncmp(seen, "no profile", 10) != 0)
            atomic_store(&wrong, 2);
    }
    return NULL;
}

static void loads_while_others_compute(void **state)
{
    static float grad[CALL_ROWS * CALL_CLASSES];
    static profile p;
    pthread_t threads[CALLERS + 1];
    double expected;

    (void)state;
    for (int i = 0; i < CALL_ROWS * CALL_CLASSES; i++)
        call_logits[i] = (float)(i * 7919 % 1000) * 0.01f - 5.0f;
    for (int i = 0; i < CALL_ROWS; i++)
        call_labels[i] = (uint8_t)(i * 5);
    for (int i = 0; i < 2; i++) {
        make_random(&p, 1);
        put_file(path_of(i ? "one" : "other"), written, write_text(&p, &machine, written));
    }
    expected = loss_of_call(grad);
    for (int i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_on, &expected), 0);
    assert_int_equal(pthread_create(&threads[CALLERS], NULL, describe_on, NULL), 0);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(ballast_profile_load(path_of(i % 2 ? "one" : "other")), BALLAST_OK);
        if (i % 50 == 0)
            assert_int_equal(ballast_profile_save(path_of("saved")), BALLAST_OK);
        if (i % 10 == 0)
            ballast_profile_reset();
    }
    atomic_store(&stop, true);
    for (int i = 0; i <= CALLERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&wrong), 0);
    ballast_profile_reset();
}

/* ---- BALLAST_PROFILE ------------------------------------------------------------------------- */

static void *first_call(void *arg)
{
    static _Thread_local float grad[CALL_ROWS * CALL_CLASSES];

    errno = 123;
    return loss_of_call(grad) >= 0.0 && errno == 123 ? arg : NULL;
}

/* First calls come first, from many threads, and with them the variable; then what the program
 * loads. */
static int child(const char *load)
{
    pthread_t threads[16];
    void *good = threads;

    for (int i = 0; i < 16; i++)
        if (pthread_create(&threads[i], NULL, first_call, threads) != 0)
            return 1;
    for (int i = 0; i < 16; i++) {
        void *result;

        pthread_join(threads[i], &result);
        good = result ? good : NULL;
    }
    if (!good)
        return 1;
    setenv("BALLAST_PROFILE", "too late", 1);
    if (getenv("BALLAST_ISA"))
        printf("%s\n", ballast_implementation_name(used_with(NULL)));
    if (load)
        printf("%s\n", ballast_status_name(ballast_profile_load(load)));
    fputs(describe(), stdout);
    return 0;
}

/* What a child prints, from its beginning on. */
static void check_child(const char *variable, const char *load, const char *expected)
{
    char command[1024], seen[4096];

    if (variable)
        setenv("BALLAST_PROFILE", variable, 1);
    else
        unsetenv("BALLAST_PROFILE");
    snprintf(command, sizeof command, "'%s' --child '%s'", self, load ? load : "");
    FILE *output = popen(command, "r");
    assert_non_null(output);
    const size_t length = fread(seen, 1, sizeof seen - 1, output);
    seen[length] = 0;
    while (fgetc(output) != EOF)
        continue;
    assert_int_equal(pclose(output), 0);
    unsetenv("BALLAST_PROFILE");
    if (strncmp(seen, expected, strlen(expected)) != 0)
        fail_msg("expected:\n%s\ngot:\n%s", expected, seen);
}

static void variable(void **state)
{
    static profile p;
    char expected[512], path[128];

    (void)state;
    make_random(&p, 0);
    snprintf(path, sizeof path, "%s", path_of("named"));
    put_file(path, written, write_text(&p, &machine, written));
    snprintf(expected, sizeof expected, "profile %s: %d choices in force", path, p.count);
    check_child(path, NULL, expected);
    check_child(NULL, NULL, "no profile: the analytical default is in force\n");
    check_child("", NULL, "no profile: the analytical default is in force\n");
    check_child("off", NULL, "no profile, as BALLAST_PROFILE is off: ");
    check_child("off", path, "BALLAST_ERR_PROFILE\nno profile, as BALLAST_PROFILE is off: ");
    check_child(path_of("none there"), path, "BALLAST_OK\nprofile ");
    snprintf(expected, sizeof expected,
             "no profile: the analytical default is in force\nignored: %s: it is no regular file\n",
             path_of("pipe"));
    check_child(path_of("pipe"), NULL, expected);
    check_child(path_of("damaged"), NULL,
                "no profile: the analytical default is in force\nignored: ");
}

/* The user's word for this process counts more than a profile. */
static void variable_names_the_implementation(void **state)
{
    const char *name = ballast_implementation_name(ballast_implementation_default(NULL, 0));
    static profile p = {.cores = 1};
    char path[128], expected[64];

    (void)state;
    add_line(&p, ballast__tuned_case(TUNE_SOFTMAX, BALLAST_F32, 1, 10), CHOOSE_ISA, 1);
    snprintf(path, sizeof path, "%s", path_of("scalar"));
    put_file(path, written, write_text(&p, &machine, written));
    setenv("BALLAST_ISA", name, 1);
    snprintf(expected, sizeof expected, "%s\nprofile ", name);
    check_child(path, NULL, expected);
    setenv("BALLAST_ISA", "", 1);
    check_child(path, NULL, "scalar\nprofile ");
    unsetenv("BALLAST_ISA");
}

static int set_up(void **state)
{
    (void)state;
    ballast__profile_machine(&machine);
    return mkdtemp(folder) ? 0 : 1;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(largest),
        cmocka_unit_test(any_damage),
        cmocka_unit_test(reasons),
        cmocka_unit_test(foreign),
        cmocka_unit_test(ignored_leaves_what_was),
        cmocka_unit_test(oversized),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(no_regular_file),
        cmocka_unit_test(read_and_write),
        cmocka_unit_test(left_over_files),
        cmocka_unit_test(names_of_any_length),
        cmocka_unit_test(errno_is_kept),
        cmocka_unit_test(described_in_little_room),
        cmocka_unit_test(comma_locale),
        cmocka_unit_test(defaults),
        cmocka_unit_test(each_operation),
        cmocka_unit_test(nearest),
        cmocka_unit_test(program_names_the_implementation),
        cmocka_unit_test(few_rows_follow_the_profile),
        cmocka_unit_test(short_sums_follow_the_profile),
        cmocka_unit_test(loads_while_others_compute),
        cmocka_unit_test(variable),
        cmocka_unit_test(variable_names_the_implementation),
        cmocka_unit_test(same_bits),
    };

    if (argc > 1 && strcmp(argv[1], "--child") == 0)
        return child(argc > 2 && *argv[2] ? argv[2] : NULL);
    self = argv[0];
    golden_path = argc > 1 ? argv[1] : "tests/golden/hashes.txt";
    unsetenv("BALLAST_ISA");
    unsetenv("BALLAST_PROFILE");
    return cmocka_run_group_tests_name("profile", tests, set_up, tear_down);
}
