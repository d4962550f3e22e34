/* SPDX-License-Identifier: MIT */
/* The report of a benchmark run: well-formed and complete for whatever is measured.
 *
 * usage: test_report         the tests
 *        test_report FILE    writes a page of invented results, to look at */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../tools/report.h"
#include "whole_file.h"

/* ---- Invented results ------------------------------------------------------------------------ */

enum { MOST = 1000, TEXT = 160 };

typedef struct run {
    bench_machine machine;
    bench_result results[MOST];
    char problems[MOST][TEXT];
    int count;
} run;

static const bench_machine zen3 = {
    .cpu = "AMD EPYC (Zen 3), 2 virtual CPUs",
    .isa = "avx2",
    .compiler = "gcc 12.2.0",
    .version = "0.1.0-36-g14b2364",
    .date = "2019-06-16T12:00:00Z",
    .command = "ballast bench --suite all --baselines on --html report.html",
    .features = "avx2 fma f16c bmi2",
    .clock_ghz = 3.2,
    .peak_flops_per_cycle = 16,
    .level_gbps = {198.4, 97.1, 44.8, 14.2},
    .level_bytes = {32768, 524288, 33554432, 8e9},
    .level_name = {"L1", "L2", "L3", "memory"},
    .cores = 2,
    .seed = 20190616,
};

/* A few per cent up and down, the same every time. */
static double wobble(int i) { return 1.0 + 0.06 * sin(12.9898 * i); }

static bench_result *add(run *r, const char *suite, const char *operation, double rows,
                         double classes, const char *rest, int threads)
{
    assert_true(r->count < MOST);
    char *text = r->problems[r->count];
    bench_result *b = &r->results[r->count++];
    snprintf(text, TEXT, "%s:f32:rows=%.0f,classes=%.0f%s", operation, rows, classes, rest);
    *b = (bench_result){.suite = suite,
                        .problem = text,
                        .operation = operation,
                        .dtype = "f32",
                        .pages = "4k",
                        .threads = threads,
                        .rows = rows,
                        .classes = classes,
                        .elements = rows * classes,
                        .bytes = 8 * rows * classes};
    return b;
}

typedef struct invented {
    const char *name;
    double in_cache;  /* cycles per element */
    double in_memory; /* of traffic */
} invented;

static const invented contenders[] = {
    {"ballast", 1.55, 1.9}, {"scalar", 78, 1.9}, {"fast-math", 7.3, 2.6}, {"sleef", 3.9, 3.6},
    {"onednn", 2.6, 2.9},   {"copy", 0.35, 1.8}, {"stream copy", 0, 1.3}, {"read", 0.15, 0.9},
};

/* Per element: arithmetic or traffic, and what a row and a call cost, over the threads. */
static double cycles_of(const invented *c, const bench_result *b, double cost)
{
    const double beyond_l2 = b->bytes > 33554432 ? 1.0 : b->bytes > 524288 ? 0.4 : 0.0;
    const double work = fmax(cost * c->in_cache, beyond_l2 * c->in_memory);
    return (work + 14 / b->classes + 350 / b->elements) / (b->threads > 1 ? 0.9 * b->threads : 1.0);
}

static void fill(bench_result *b, const invented *c, double cost, int seed)
{
    const double cycles = cycles_of(c, b, cost) * wobble(seed),
                 own = cycles_of(contenders, b, cost);
    b->contender = c->name;
    b->isa = c == contenders ? "avx2" : "";
    b->is_roofline = c >= contenders + 5;
    b->cycles_per_element = cycles;
    b->least_cycles_per_element = 0.86 * cycles;
    b->ns_per_element = cycles / 3.2;
    b->gigabytes_per_second = 8 / b->ns_per_element;
    b->flops_per_element = b->is_roofline ? 0 : 10 * cost + 2;
    b->roofline = fmin(1, 0.35 / cycles + 0.2);
    b->ratio = c == contenders ? 1 : cycles / own;
    b->ratio_low = c == contenders ? 1 : 0.97 * b->ratio;
    b->ratio_high = c == contenders ? 1 : 1.04 * b->ratio;
}

/* `which` contenders, a bit each. */
static void measure(run *r, const char *suite, const char *operation, double rows, double classes,
                    const char *rest, double cost, int threads, unsigned which)
{
    for (int i = 0; i < 8; i++)
        if (which & 1u << i)
            fill(add(r, suite, operation, rows, classes, rest, threads), &contenders[i], cost,
                 r->count);
}

static void measure_growth(run *r, const char *operation, double cost, int threads, unsigned which)
{
    for (int total = 16; total <= 26; total += 10)
        for (double classes = 64; classes <= 262144; classes *= 4)
            if (classes <= ldexp(1, total))
                measure(r, "growth", operation, ldexp(1, total) / classes, classes, "", cost,
                        threads, which);
    for (double rows = 1; rows <= 1e6; rows *= 10)
        measure(r, "growth", operation, rows, 1000, "", cost, threads, which);
}

/* What a run of every suite looks like. */
static void make_run(run *r)
{
    enum { ALL = 0x3f, NO_ONEDNN = 0x2f, LIMITS = 0xff, GROWTH = 0x0d };
    static const struct {
        const char *suite, *operation;
        double rows, classes;
        const char *rest;
        double cost;
        int threads;
        unsigned which;
    } cases[] = {
        {"quick", "cross_entropy", 50, 1000, "", 1, 1, NO_ONEDNN},
        {"quick", "cross_entropy", 6, 8192, "", 1.15, 1, NO_ONEDNN},
        {"quick", "cross_entropy", 500, 100, "", 1.3, 1, NO_ONEDNN},
        {"quick", "cross_entropy", 5000, 10, "", 1.45, 1, NO_ONEDNN},
        {"quick", "cross_entropy", 4, 1000, "", 1.6, 1, NO_ONEDNN},
        {"quick", "cross_entropy", 50, 1000, ",outputs=loss", 0.8, 1, NO_ONEDNN},
        {"quick", "softmax", 50, 1000, "", 0.95, 1, ALL},
        {"quick", "log_softmax", 50, 1000, "", 1, 1, ALL},
        {"quick", "binary_cross_entropy", 50, 1000, ",targets=u8", 1.9, 1, NO_ONEDNN},
        {"quick", "sigmoid_focal", 50, 1000, ",targets=u8,gamma=2", 3.2, 1, NO_ONEDNN},
        {"quick", "sigmoid_focal", 50, 1000, ",targets=u8,gamma=0.5", 3, 1, NO_ONEDNN},
        {"quick", "sigmoid_focal", 50, 1000, ",targets=u8,gamma=1.7", 4.4, 1, NO_ONEDNN},
        {"memory", "cross_entropy", 8192, 8192, "", 1, 1, LIMITS},
        {"memory", "cross_entropy", 8192, 8192, "", 1, 2, LIMITS},
        {"memory", "cross_entropy", 2048, 32000, ",inplace=1", 1, 1, LIMITS},
        {"memory", "cross_entropy", 512, 128256, "", 1.02, 1, LIMITS},
        {"memory", "softmax", 8192, 8192, "", 1, 1, LIMITS},
        {"growth", "cross_entropy", 1, 10, "", 1, 1, NO_ONEDNN}, /* on no line */
    };
    r->machine = zen3;
    r->count = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        measure(r, cases[i].suite, cases[i].operation, cases[i].rows, cases[i].classes,
                cases[i].rest, cases[i].cost, cases[i].threads, cases[i].which);
    measure_growth(r, "cross_entropy", 1, 1, GROWTH | 2 | 32);
    measure_growth(r, "cross_entropy", 1, 2, GROWTH);
    measure_growth(r, "softmax", 0.95, 1, GROWTH | 0x10);
}

/* ---- Writing and reading pages --------------------------------------------------------------- */

static char *written; /* the last page */
static size_t written_size;

static void write_run(const run *r)
{
    free(written);
    FILE *out = open_memstream(&written, &written_size);
    assert_non_null(out);
    assert_int_equal(report_write(out, &r->machine, r->results, r->count), 0);
    assert_int_equal(fclose(out), 0);
}

/* Gives the page, and texts that must be in it, to report_page.py. */
static void check_page_with(const char *texts)
{
    char folder[] = "/tmp/ballast-report-XXXXXX", page[64], list[64], command[512];
    assert_non_null(mkdtemp(folder));
    snprintf(page, sizeof page, "%s/page.html", folder);
    snprintf(list, sizeof list, "%s/texts", folder);
    snprintf(command, sizeof command, "'%s' '%s' %s %s 1>&2", PYTHON, REPORT_PAGE, page, list);
    put_file(page, written, written_size);
    put_file(list, texts, strlen(texts));
    const int status = system(command);
    remove(page);
    remove(list);
    rmdir(folder);
    assert_int_equal(status, 0);
}

static void check_page(const run *r)
{
    char *texts;
    size_t size;
    FILE *list = open_memstream(&texts, &size);
    assert_non_null(list);
    for (int i = 0; i < r->count; i++)
        fprintf(list, "%s\n", r->results[i].problem ? r->results[i].problem : "");
    assert_int_equal(fclose(list), 0);
    write_run(r);
    check_page_with(texts);
    free(texts);
}

static int occurrences(const char *of)
{
    int count = 0;
    for (const char *s = written; (s = strstr(s, of)); s += strlen(of))
        count++;
    return count;
}

static run the_run; /* too big for the stack */

/* ---- Tests ----------------------------------------------------------------------------------- */

static void test_every_suite(void **state)
{
    (void)state;
    make_run(&the_run);
    check_page(&the_run);
    assert_int_equal(occurrences("<figure"), 6); /* two operations, two totals and more rows */
    assert_non_null(strstr(written, "peak: 16 a cycle"));
    assert_non_null(strstr(written, "memory 14.2 GB/s"));
    assert_non_null(strstr(written, "20190616"));
    assert_non_null(strstr(written, "1 cross_entropy 50×1000"));
}

/* Growth lines would bury the bars, but a result that is on no line must not get lost. */
static void test_growth_has_no_bars(void **state)
{
    (void)state;
    make_run(&the_run);
    write_run(&the_run);
    const char *bars = strstr(written, "<h2>Time per element"),
               *end = strstr(written, "<h2>Growth");
    assert_non_null(bars);
    assert_non_null(end);
    const char *single = strstr(bars, "cross_entropy:f32:rows=1,<wbr/>classes=10<");
    assert_true(single && single < end);
    const char *line = strstr(bars, "cross_entropy:f32:rows=1024,<wbr/>classes=64<");
    assert_true(line && line > end);
}

/* Scalar code and limits are measured on fewer elements: no plot is theirs alone. */
static void test_growth_shows_ballast(void **state)
{
    enum { SCALAR = 2, IN_CACHE = 0x20 };
    (void)state;
    make_run(&the_run);
    for (double classes = 64; classes <= 4096; classes *= 4)
        measure(&the_run, "growth", "cross_entropy", 4096 / classes, classes, "", 1, 1,
                SCALAR | IN_CACHE);
    check_page(&the_run);
    assert_int_equal(occurrences("<figure"), 6);
    assert_int_equal(occurrences("2<sup>12</sup>"), 0);
}

static void test_no_results(void **state)
{
    (void)state;
    the_run.machine = zen3;
    the_run.count = 0;
    check_page(&the_run);
    assert_non_null(strstr(written, "No results"));
    FILE *out = fopen("/dev/null", "w");
    assert_non_null(out);
    assert_int_equal(report_write(out, &zen3, NULL, -1), 0);
    fclose(out);
}

static void test_one_result(void **state)
{
    (void)state;
    static const unsigned alone[] = {1, 2, 32};
    for (int i = 0; i < 3; i++)
        for (int growth = 0; growth < 2; growth++) {
            the_run.machine = zen3;
            the_run.count = 0;
            measure(&the_run, growth ? "growth" : "", "softmax", 50, 1000, "", 1, 1, alone[i]);
            check_page(&the_run);
        }
}

static void test_nothing_known(void **state)
{
    (void)state;
    the_run.machine = (bench_machine){0};
    memset(the_run.results, 0, sizeof the_run.results);
    the_run.count = 3;
    check_page(&the_run);
}

/* Every number of every result in turn is something that cannot be drawn. */
static void test_impossible_numbers(void **state)
{
    (void)state;
    static const double values[] = {NAN, INFINITY, -INFINITY, -1, 0, 1e308, 5e-324};
    static const size_t fields[] = {
        offsetof(bench_result, rows),
        offsetof(bench_result, classes),
        offsetof(bench_result, elements),
        offsetof(bench_result, bytes),
        offsetof(bench_result, ns_per_element),
        offsetof(bench_result, cycles_per_element),
        offsetof(bench_result, least_cycles_per_element),
        offsetof(bench_result, gigabytes_per_second),
        offsetof(bench_result, roofline),
        offsetof(bench_result, flops_per_element),
        offsetof(bench_result, ratio),
        offsetof(bench_result, ratio_low),
        offsetof(bench_result, ratio_high),
    };
    const int kinds = (int)(sizeof fields / sizeof *fields),
              of = (int)(sizeof values / sizeof *values);
    for (int shift = 0; shift < of; shift++) {
        make_run(&the_run);
        for (int i = 0; i < the_run.count; i++)
            if (i % 2)
                memcpy((char *)&the_run.results[i] + fields[i / 2 % kinds],
                       &values[(i / 2 / kinds + shift) % of], sizeof(double));
        check_page(&the_run);
    }
}

static void test_impossible_machine(void **state)
{
    (void)state;
    static const double values[] = {NAN, INFINITY, -1, 0, 1e308, 5e-324};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        for (int field = 0; field < 4; field++) {
            make_run(&the_run);
            if (field == 0)
                the_run.machine.clock_ghz = values[i];
            if (field == 1)
                the_run.machine.peak_flops_per_cycle = values[i];
            for (int k = (int)i % 4; k < 4; k++) {
                if (field == 2)
                    the_run.machine.level_gbps[k] = values[i];
                if (field == 3)
                    the_run.machine.level_bytes[k] = values[i];
            }
            check_page(&the_run);
        }
}

/* Scales of hundreds of decades still have few ticks. */
static void test_extreme_ranges(void **state)
{
    (void)state;
    make_run(&the_run);
    for (int i = 0; i < the_run.count; i++) {
        const double scale = pow(10.0, -280 + i % 560);
        the_run.results[i].ns_per_element *= scale;
        the_run.results[i].cycles_per_element *= scale;
        the_run.results[i].ratio *= scale;
    }
    check_page(&the_run);
}

static void test_texts_are_escaped(void **state)
{
    (void)state;
    make_run(&the_run);
    const char *evil = "<script>alert(\"1\")</script> & ]]> 'x' ×";
    for (int i = 0; i < 12; i++) {
        bench_result *b = &the_run.results[i];
        b->suite = b->problem = b->operation = b->dtype = b->contender = b->isa = b->pages = evil;
    }
    the_run.machine.cpu = the_run.machine.isa = the_run.machine.compiler = evil;
    the_run.machine.version = the_run.machine.date = the_run.machine.features = evil;
    the_run.machine.command = the_run.machine.level_name[0] = evil;
    check_page(&the_run);
}

/* Neither broken UTF-8 nor what XML forbids; a page with one of them is not read at all. */
static void test_texts_that_are_no_text(void **state)
{
    (void)state;
    static const char *const given[] = {"\xff",         "a\xc3",        "\x01", "\x7f",
                                        "\xef\xbf\xbe", "\xed\xa0\x80", "\r"};
    char texts[] = "\xef\xbf\xbd\na\xef\xbf\xbd\n";
    make_run(&the_run);
    for (int i = 0; i < 7; i++) {
        bench_result *b = &the_run.results[i];
        b->problem = b->contender = b->suite = given[i];
    }
    write_run(&the_run);
    check_page_with(texts);
}

static void test_long_texts(void **state)
{
    (void)state;
    static char text[5000];
    for (size_t shift = 0; shift < 3; shift++) { /* a cut at each byte of a character */
        memset(text, 'x', shift);
        for (size_t i = shift; i + 3 < sizeof text; i += 3)
            memcpy(text + i, "→", 4);
        make_run(&the_run);
        for (int i = 0; i < the_run.count; i += 2) {
            the_run.results[i].problem = text;
            the_run.results[i].contender = i % 4 ? text : the_run.results[i].contender;
        }
        the_run.machine.level_name[1] = "a level with quite a long name";
        check_page(&the_run);
        assert_int_equal(occurrences("\xef\xbf\xbd"), 0);
    }
}

/* Points and labels in one place, and many of them. */
static void test_many_results(void **state)
{
    (void)state;
    the_run.machine = zen3;
    the_run.count = 0;
    for (int i = 0; i < 500; i++)
        measure(&the_run, "cache", "cross_entropy", 1 + i / 10, 10 + i, "", 1, 1, 1);
    check_page(&the_run);
    for (int i = 0; i < 500; i++)
        the_run.results[i].suite = "growth";
    check_page(&the_run);
    for (int i = 0; i < 500; i++) {
        the_run.results[i].contender = the_run.problems[i];
        the_run.results[i].classes = 10 + i % 5;
        the_run.results[i].rows = 100;
    }
    check_page(&the_run);
}

/* A roofline of the length that a run of `quick` has: with room, every label is there in full. */
static void test_labels_find_room(void **state)
{
    (void)state;
    make_run(&the_run);
    write_run(&the_run);
    static const char *const labels[] = {
        "1 cross_entropy 50×1000<",    "4 cross_entropy 5000×10<",
        "7 softmax 50×1000<",          "10 sigmoid_focal 50×1000 u8 gamma=2<",
        "13 cross_entropy 8192×8192<",
    };
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++)
        assert_non_null(strstr(written, labels[i]));
}

static void test_write_errors(void **state)
{
    (void)state;
    FILE *full = fopen("/dev/full", "w");
    if (!full)
        skip();
    make_run(&the_run);
    errno = 0;
    assert_int_equal(report_write(full, &the_run.machine, the_run.results, the_run.count), -1);
    assert_int_equal(errno, ENOSPC);
    fclose(full);
}

static int write_sample(const char *path)
{
    FILE *out = fopen(path, "w");
    if (!out)
        return perror(path), 1;
    make_run(&the_run);
    const int status = report_write(out, &the_run.machine, the_run.results, the_run.count);
    return fclose(out) || status ? perror(path), 1 : 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_suite),        cmocka_unit_test(test_growth_has_no_bars),
        cmocka_unit_test(test_growth_shows_ballast),
        cmocka_unit_test(test_no_results),         cmocka_unit_test(test_one_result),
        cmocka_unit_test(test_nothing_known),      cmocka_unit_test(test_impossible_numbers),
        cmocka_unit_test(test_impossible_machine), cmocka_unit_test(test_extreme_ranges),
        cmocka_unit_test(test_texts_are_escaped),  cmocka_unit_test(test_texts_that_are_no_text),
        cmocka_unit_test(test_long_texts),         cmocka_unit_test(test_many_results),
        cmocka_unit_test(test_labels_find_room),   cmocka_unit_test(test_write_errors),
    };
    if (argc > 1)
        return write_sample(argv[1]);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(written);
    return failed;
}
