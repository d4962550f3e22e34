/* SPDX-License-Identifier: MIT */
#include "bench_output.h"

#include "../bench/measure.h"
#include "ballast/ballast.h"
#include "json.h"
#include "output.h"
#include "progress.h"
#include "topology.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- Table ----------------------------------------------------------------------------------- */

enum { BAR = 20, EIGHTHS = 8, INTERVAL_COLUMNS = 96, BAR_COLUMNS = 98 + BAR };

/* What does not fit is left out on a terminal, for wrapped lines are no table: first the bars. */
static bool fits(int columns) { return terminal_columns(STDOUT_FILENO) >= columns; }

void bench_print_heads(int64_t seed, const char *pages)
{
    printf("clock %.2f GHz; inputs of seed %lld; %s pages\n", 1e-9 / measure_cycle(),
           (long long)seed, pages);
    printf("%s  %-14s %-7s %10s %8s %8s %8s %6s %8s", output_style(stdout, STYLE_HEAD), "contender",
           "ISA", "ns/element", "cycles", "least", "GB/s", "roof", "time");
    if (fits(INTERVAL_COLUMNS))
        printf("  %-16s", "95 % interval");
    if (fits(BAR_COLUMNS))
        printf("  %s", "ns/element");
    printf("%s\n", output_style(stdout, STYLE_PLAIN));
}

static bool is_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};

    for (int i = 0; i < 3; i++) {
        const char *value = getenv(names[i]);
        if (value && *value)
            return strstr(value, "UTF-8") || strstr(value, "utf8");
    }
    return false;
}

/* Blocks of one eighth to a whole: U+258F down to U+2588. */
static void print_bar(double share)
{
    const int eighths = (int)fmax(1.0, round(share * BAR * EIGHTHS));
    const int utf8 = is_utf8();

    for (int i = 0; i < eighths / EIGHTHS; i++)
        fputs(utf8 ? "\xe2\x96\x88" : "#", stdout);
    if (eighths % EIGHTHS && utf8)
        printf("\xe2\x96%c", 0x90 - eighths % EIGHTHS);
}

static void print_percent(double share)
{
    if (share > 0.0)
        printf(" %4.0f %%", 100.0 * share);
    else
        printf(" %6s", "");
}

static style style_of(const bench_result *r)
{
    if (r->is_roofline)
        return STYLE_DIM;
    return strcmp(r->contender, "ballast") == 0 ? STYLE_GOOD : STYLE_PLAIN;
}

static void print_row(const bench_result *r, double longest)
{
    const char *on = output_style(stdout, style_of(r)), *off = output_style(stdout, STYLE_PLAIN);

    printf("  %s%-14s %-7s %10.3f %8.3f %8.3f %8.2f", on, r->contender, r->isa, r->ns_per_element,
           r->cycles_per_element, r->least_cycles_per_element, r->gigabytes_per_second);
    print_percent(r->roofline);
    printf(" %8.3f", r->ratio);
    if (fits(INTERVAL_COLUMNS))
        printf("  %7.3f %8.3f", r->ratio_low, r->ratio_high);
    if (fits(BAR_COLUMNS)) {
        fputs("  ", stdout);
        print_bar(r->ns_per_element / longest);
    }
    printf("%s\n", off);
}

void bench_print(const bench_result *results, int count)
{
    double longest = 0.0;

    for (int i = 0; i < count; i++)
        longest = fmax(longest, results[i].ns_per_element);
    printf("%s%s%s\n", output_style(stdout, STYLE_HEAD), results[0].problem,
           output_style(stdout, STYLE_PLAIN));
    for (int i = 0; i < count; i++)
        print_row(&results[i], longest);
    fflush(stdout);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void write_caches(json *j, const topology *t)
{
    json_array(j, "caches");
    for (int i = 0; i < t->cache_count; i++) {
        const topology_cache *c = &t->caches[i];
        json_object(j, NULL);
        json_text(j, "type", c->kind == 'd' ? "Data" : c->kind == 'i' ? "Instruction" : "Unified");
        json_integer(j, "level", c->level);
        json_integer(j, "size", c->bytes);
        json_integer(j, "num_sharing", c->count > 0 ? t->cpus / c->count : 0);
        json_end(j);
    }
    json_end(j);
}

static bool is_clock_scaled(void)
{
    char governor[32] = "";
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "r");
    const bool known = file && fscanf(file, "%31s", governor) == 1;

    if (file)
        fclose(file);
    return known && strcmp(governor, "performance") != 0;
}

static void write_context(json *j, const bench_result *results, int count)
{
    char date[64], host[256] = "", program[512] = "";
    const time_t now = time(NULL);
    double load[3] = {0};
    topology t;

    topology_read(&t);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S%z", localtime(&now));
    memmove(date + 23, date + 22, 3); /* +0200 to +02:00 */
    date[22] = ':';
    gethostname(host, sizeof host - 1);
    if (readlink("/proc/self/exe", program, sizeof program - 1) < 0)
        program[0] = '\0';
    json_object(j, "context");
    json_text(j, "date", date);
    json_text(j, "host_name", host);
    json_text(j, "executable", program);
    json_integer(j, "num_cpus", t.cpus);
    json_integer(j, "mhz_per_cpu", (int64_t)round(1e-6 / measure_cycle()));
    json_bool(j, "cpu_scaling_enabled", is_clock_scaled());
    write_caches(j, &t);
    json_array(j, "load_avg");
    for (int i = 0; i < getloadavg(load, 3); i++)
        json_real(j, NULL, load[i]);
    json_end(j);
    json_text(j, "library_build_type", "release");
    json_text(j, "ballast_version", ballast_version());
    json_text(j, "pages", count ? results[0].pages : NULL);
    json_end(j);
}

/* real_time is that of one call, the median of the rounds. CPU time is not measured apart: on one
 * thread they are the same. */
static void write_result(json *j, const bench_result *r, int index, int repetitions)
{
    const double real_time = r->ns_per_element * r->elements;
    char name[640];

    snprintf(name, sizeof name, "%s/%s%s%s", r->problem, r->contender, *r->isa ? "/" : "", r->isa);
    json_object(j, NULL);
    json_text(j, "name", name);
    json_integer(j, "family_index", index);
    json_integer(j, "per_family_instance_index", 0);
    json_text(j, "run_name", name);
    json_text(j, "run_type", "iteration");
    json_integer(j, "repetitions", repetitions);
    json_integer(j, "repetition_index", r->repetition);
    json_integer(j, "threads", r->threads);
    json_integer(j, "iterations", 1);
    json_real(j, "real_time", real_time);
    json_real(j, "cpu_time", real_time);
    json_text(j, "time_unit", "ns");
    json_real(j, "bytes_per_second", 1e9 * r->gigabytes_per_second);
    json_real(j, "items_per_second", 1e9 / r->ns_per_element);
    json_real(j, "ns_per_element", r->ns_per_element);
    json_real(j, "cycles_per_element", r->cycles_per_element);
    json_real(j, "least_cycles_per_element", r->least_cycles_per_element);
    json_real(j, "roofline", r->roofline);
    json_real(j, "ratio", r->ratio);
    json_real(j, "ratio_low", r->ratio_low);
    json_real(j, "ratio_high", r->ratio_high);
    json_text(j, "problem", r->problem);
    json_text(j, "contender", r->contender);
    json_text(j, "isa", r->isa);
    json_text(j, "suite", r->suite);
    json_text(j, "pages", r->pages);
    json_bool(j, "is_limit", r->is_roofline);
    json_end(j);
}

void bench_write_json(FILE *out, const bench_result *results, int count)
{
    json j;

    json_begin(&j, out);
    write_context(&j, results, count);
    json_array(&j, "benchmarks");
    for (int i = 0; i < count; i++) /* the last has the highest */
        write_result(&j, &results[i], i, results[count - 1].repetition + 1);
    json_end(&j);
    json_end(&j);
}
