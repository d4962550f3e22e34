/* SPDX-License-Identifier: MIT */
/* ballast info: the machine, and what the library makes of it. */
#include "info.h"

#include "../dispatch/cpu.h"
#include "../dispatch/tuning.h"
#include "ballast/ballast.h"
#include "caches.h"
#include "json.h"
#include "options.h"
#include "pool.h"
#include "quota.h"
#include "topology.h"
#include "user_profile.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPT_CACHES = 1 };

static const option_spec specs[] = {
    {"caches", NULL, "measure where the last cache ends, too: about a second", OPT_CACHES},
    {NULL, NULL, NULL, 0},
};

static const char *const examples[] = {
    "ballast info",
    "ballast info --caches",
    "BALLAST_ISA=avx2 ballast info --json",
    NULL,
};

static const command_spec spec = {
    .name = "info",
    .operands = "",
    .about = "The CPU and its features, which implementation of the kernels is used and why, why "
             "the others are not, which profile is in force and why, caches, cores and the CPU quota of "
             "this process. The environment variable BALLAST_ISA can lower the implementation "
             "(scalar, avx2, avx512, neon); BALLAST_PROFILE names a profile, or is off.",
    .options = specs,
    .examples = examples,
    .operand_count = 0,
};

static const struct {
    uint64_t bit;
    const char *name;
} features[] = {
    {BALLAST__CPU_SSE3, "sse3"},         {BALLAST__CPU_SSSE3, "ssse3"},
    {BALLAST__CPU_SSE4_1, "sse4.1"},     {BALLAST__CPU_SSE4_2, "sse4.2"},
    {BALLAST__CPU_POPCNT, "popcnt"},     {BALLAST__CPU_CX16, "cx16"},
    {BALLAST__CPU_LAHF, "lahf"},         {BALLAST__CPU_AVX, "avx"},
    {BALLAST__CPU_AVX2, "avx2"},         {BALLAST__CPU_FMA, "fma"},
    {BALLAST__CPU_F16C, "f16c"},         {BALLAST__CPU_BMI1, "bmi1"},
    {BALLAST__CPU_BMI2, "bmi2"},         {BALLAST__CPU_LZCNT, "lzcnt"},
    {BALLAST__CPU_MOVBE, "movbe"},       {BALLAST__CPU_OSXSAVE, "osxsave"},
    {BALLAST__CPU_AVX512F, "avx512f"},   {BALLAST__CPU_AVX512BW, "avx512bw"},
    {BALLAST__CPU_AVX512CD, "avx512cd"}, {BALLAST__CPU_AVX512DQ, "avx512dq"},
    {BALLAST__CPU_AVX512VL, "avx512vl"}, {BALLAST__CPU_AVX512_BF16, "avx512_bf16"},
};

enum { FEATURES = sizeof features / sizeof features[0], REASON_SIZE = 256 };

void info_features(char *text, size_t size)
{
    ballast__cpu cpu;
    size_t used = 0;

    ballast__cpu_read(NULL, &cpu);
    text[0] = '\0';
    for (int i = 0; i < FEATURES && used < size; i++)
        if (cpu.features & features[i].bit)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "",
                                     features[i].name);
}

typedef struct facts {
    ballast__cpu cpu;
    topology machine;
    caches caches;
    quota q;
    int64_t threads;
    bool f64;
    const char *chosen, *variable;
    char *profile;      /* what the library says of it: lines */
    char own[PATH_MAX]; /* the user's; "" where there is no home */
    bool has_own;       /* and it is there */
} facts;

/* Asked of the library itself: only it knows what it was built with. */
static bool has_f64(void)
{
    double x = 0.0, y = 0.0;
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;
    a.input = ballast_const_matrix_f64(&x, 1, 1);
    a.output = ballast_matrix_f64(&y, 1, 1);
    return ballast_softmax(&a, NULL) == BALLAST_OK;
}

static char *read_profile(void)
{
    const size_t size = ballast_profile_describe(NULL, 0) + 1;
    char *text = calloc(size, 1);
    if (text)
        ballast_profile_describe(text, size);
    return text;
}

static void gather(facts *f, int64_t threads, bool measure)
{
    user_profile_load();
    f->profile = read_profile();
    if (!user_profile_path(f->own, sizeof f->own))
        f->own[0] = '\0';
    f->has_own = f->own[0] && access(f->own, F_OK) == 0;
    ballast__cpu_read(NULL, &f->cpu);
    topology_read(&f->machine);
    caches_read(&f->caches);
    if (measure)
        caches_measure(&f->caches, 1.0);
    quota_read("", &f->q);
    pool p;
    pool_open(&p, threads);
    f->threads = p.parallel.threads;
    pool_close(&p);
    f->f64 = has_f64();
    f->chosen = ballast_implementation_name(ballast_implementation_default(NULL, 0));
    f->variable = getenv("BALLAST_ISA");
}

static const char *arch_name(ballast__arch arch)
{
    if (arch == BALLAST__ARCH_X86_64)
        return "x86-64";
    return arch == BALLAST__ARCH_ARM64 ? "arm64" : "other";
}

/* One implementation of all that Ballast has, built into this library or not. */
typedef struct implementation_fact {
    const char *name;
    bool built, runs, used;
    char reason[REASON_SIZE];
} implementation_fact;

static void examine(const facts *f, int isa, implementation_fact *i)
{
    i->name = ballast__isa_name((ballast__isa)isa);
    const ballast_implementation *implementation = ballast_implementation_find(i->name);
    i->built = implementation != NULL;
    i->used = strcmp(i->name, f->chosen) == 0;
    snprintf(i->reason, sizeof i->reason, "not built into this library");
    i->runs = i->built &&
              ballast_implementation_supported(implementation, i->reason, sizeof i->reason);
    if (i->used)
        ballast_implementation_default(i->reason, sizeof i->reason);
    else if (i->runs)
        snprintf(i->reason, sizeof i->reason, "runs here, but %s is used", f->chosen);
}

/* ---- Text ------------------------------------------------------------------------------------ */

enum { LABEL_WIDTH = 18 };

static void head(const char *text)
{
    printf("%s%s%s\n", output_style(stdout, STYLE_HEAD), text, output_style(stdout, STYLE_PLAIN));
}

static void line(const char *name, const char *text)
{
    printf("  %-*s", LABEL_WIDTH - 2, name);
    output_wrap(stdout, text, LABEL_WIDTH, LABEL_WIDTH);
}

static const char *or_unknown(const char *text) { return *text ? text : "unknown"; }

static void print_cpu(const ballast__cpu *cpu)
{
    char text[512] = "";
    head("CPU");
    line("architecture", arch_name(cpu->arch));
    line("vendor", or_unknown(cpu->vendor));
    line("name", or_unknown(cpu->name));
    if (cpu->arch != BALLAST__ARCH_X86_64)
        return;
    snprintf(text, sizeof text, "family %u, model %u, stepping %u", cpu->family, cpu->model,
             cpu->stepping);
    line("signature", text);
    text[0] = '\0';
    for (int i = 0; i < FEATURES; i++)
        if (cpu->features & features[i].bit) {
            size_t used = strlen(text);
            snprintf(text + used, sizeof text - used, "%s%s", used ? " " : "", features[i].name);
        }
    line("features", or_unknown(text));
    snprintf(text, sizeof text, "XCR0 = 0x%" PRIx64, cpu->xcr0);
    line("saved state", text);
}

static void print_implementations(const facts *f)
{
    implementation_fact i;
    head("Implementations");
    for (int isa = 0; isa < BALLAST__ISA_COUNT; isa++) {
        char text[REASON_SIZE + 16];
        examine(f, isa, &i);
        fputs(output_style(stdout, i.used ? STYLE_GOOD : STYLE_DIM), stdout);
        snprintf(text, sizeof text, "%s%s", i.used ? "used: " : "", i.reason);
        line(i.name, text);
        fputs(output_style(stdout, STYLE_PLAIN), stdout);
    }
    line("BALLAST_ISA", !f->variable ? "not set" : *f->variable ? f->variable : "empty");
    line("f64 tensors", f->f64 ? "yes" : "not built into this library");
}

/* Cuts the next line off `*text`; NULL past the last. */
static char *next_line(char **text)
{
    char *begin = *text;
    const size_t length = strcspn(begin, "\n");
    if (length == 0)
        return NULL;
    *text = begin + length + (begin[length] == '\n');
    begin[length] = '\0';
    return begin;
}

static void print_profile(facts *f)
{
    char *rest = f->profile, *one;
    const char *variable = getenv("BALLAST_PROFILE");
    head("Profile");
    for (const char *name = "in force"; (one = next_line(&rest)); name = "")
        line(name, one);
    line("BALLAST_PROFILE", variable ? variable : "not set");
    line("your own", *f->own ? f->own : "no folder for it: neither XDG_CACHE_HOME nor HOME is set");
    if (*f->own && !f->has_own)
        line("", "is not there: `ballast tune` writes it");
}

static void format_size(char *text, size_t size, int64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024.0 && unit < 4; unit++)
        value /= 1024.0;
    snprintf(text, size, "%.4g %s", value, units[unit]);
}

static void cache_name(const topology_cache *c, char text[16])
{
    snprintf(text, 16, "L%d%s", c->level, c->kind == 'd' ? "d" : c->kind == 'i' ? "i" : "");
}

static void print_machine(const topology *t)
{
    char text[256], size[32], name[16];
    head("Machine");
    format_size(size, sizeof size, t->memory);
    snprintf(text, sizeof text, "%d package%s, %d core%s, %d hardware thread%s", t->packages,
             t->packages == 1 ? "" : "s", t->cores, t->cores == 1 ? "" : "s", t->cpus,
             t->cpus == 1 ? "" : "s");
    line("cores", text);
    snprintf(text, sizeof text, "%s in %d NUMA node%s", size, t->numa_nodes,
             t->numa_nodes == 1 ? "" : "s");
    line("memory", text);
    for (int i = 0; i < t->cache_count; i++) {
        const topology_cache *c = &t->caches[i];
        cache_name(c, name);
        format_size(size, sizeof size, c->bytes);
        snprintf(text, sizeof text, "%d x %s, lines of %d bytes", c->count, size, c->line);
        line(name, text);
    }
    line("source", t->source);
}

/* Every second point: sizes twice the last. */
static void print_reads(const caches *c)
{
    char text[64], size[32];

    head("Reads of so much, again and again");
    for (int i = 0; i < c->count; i += 2) {
        format_size(size, sizeof size, c->points[i].bytes);
        snprintf(text, sizeof text, "%.1f GB/s", c->points[i].gbps);
        line(size, text);
    }
}

/* "300 MiB by the CPU", behind what others say; nothing of those that say nothing. */
static void add_size(char *text, size_t room, int64_t bytes, const char *who)
{
    char size[32];
    const size_t used = strlen(text);

    format_size(size, sizeof size, bytes);
    if (bytes > 0)
        snprintf(text + used, room - used, "%s%s %s", used ? ", " : "sizes differ: ", size, who);
}

static void print_disagreement(const caches *c)
{
    char text[256] = "";

    add_size(text, sizeof text, c->cpu, "by the CPU");
    add_size(text, sizeof text, c->os, "by the operating system");
    add_size(text, sizeof text, c->measured, "measured");
    line("", text);
}

/* A policy (COUNTED_CACHE); of less than that, all that the CPU tells of. */
static void print_counted(const caches *c)
{
    char text[256], size[32];

    format_size(size, sizeof size, c->taken);
    snprintf(text, sizeof text, "the library counts on %s of %s", size,
             c->taken == COUNTED_CACHE ? "any last cache at most, for many share it" : "it");
    line("", text);
}

static void print_last_cache(const caches *c)
{
    char text[256], bytes[32], measured[32];

    format_size(bytes, sizeof bytes, c->real);
    format_size(measured, sizeof measured, c->measured);
    if (c->count == 0)
        snprintf(text, sizeof text, "%s", bytes);
    else if (c->measured == 0)
        snprintf(text, sizeof text, "%s; beyond what reads slow down is not to be seen", bytes);
    else
        snprintf(text, sizeof text, "%s; reads slow down beyond %s", bytes, measured);
    line("last cache", text);
    if (c->taken < c->real)
        print_counted(c);
    if (caches_disagree(c))
        print_disagreement(c);
}

static void print_share(const facts *f)
{
    char text[512];
    head("This process");
    snprintf(text, sizeof text, "%d hardware thread%s of %d core%s", f->q.cpus,
             f->q.cpus == 1 ? "" : "s", f->q.cores, f->q.cores == 1 ? "" : "s");
    line("may use", text);
    snprintf(text, sizeof text, "%g CPUs, set by control group %s", f->q.limit, f->q.group);
    line("CPU quota", f->q.limit > 0.0 ? text : "none");
    snprintf(text, sizeof text, "%" PRId64 " (thread pool: %s)", f->threads, pool_kind());
    line("threads", text);
}

static void print_text(facts *f)
{
    printf("%sBallast %s%s\n\n", output_style(stdout, STYLE_HEAD), ballast_version(),
           output_style(stdout, STYLE_PLAIN));
    print_cpu(&f->cpu);
    putchar('\n');
    print_implementations(f);
    putchar('\n');
    print_profile(f);
    putchar('\n');
    print_machine(&f->machine);
    print_last_cache(&f->caches);
    putchar('\n');
    if (f->caches.count > 0) {
        print_reads(&f->caches);
        putchar('\n');
    }
    print_share(f);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static const char *or_null(const char *text) { return *text ? text : NULL; }

static void write_cpu(json *j, const ballast__cpu *cpu)
{
    json_object(j, "cpu");
    json_text(j, "architecture", arch_name(cpu->arch));
    json_text(j, "vendor", or_null(cpu->vendor));
    json_text(j, "name", or_null(cpu->name));
    json_integer(j, "family", cpu->family);
    json_integer(j, "model", cpu->model);
    json_integer(j, "stepping", cpu->stepping);
    json_integer(j, "xcr0", (int64_t)cpu->xcr0);
    json_array(j, "features");
    for (int i = 0; i < FEATURES; i++)
        if (cpu->features & features[i].bit)
            json_text(j, NULL, features[i].name);
    json_end(j);
    json_end(j);
}

static void write_implementations(json *j, const facts *f)
{
    implementation_fact i;
    json_text(j, "isa", f->chosen);
    json_text(j, "ballast_isa", f->variable);
    json_bool(j, "f64", f->f64);
    json_array(j, "implementations");
    for (int isa = 0; isa < BALLAST__ISA_COUNT; isa++) {
        examine(f, isa, &i);
        json_object(j, NULL);
        json_text(j, "name", i.name);
        json_bool(j, "built", i.built);
        json_bool(j, "runs", i.runs);
        json_bool(j, "used", i.used);
        json_text(j, "reason", i.reason);
        json_end(j);
    }
    json_end(j);
}

static void write_machine(json *j, const topology *t)
{
    json_object(j, "machine");
    json_text(j, "source", t->source);
    json_integer(j, "packages", t->packages);
    json_integer(j, "cores", t->cores);
    json_integer(j, "hardware_threads", t->cpus);
    json_integer(j, "numa_nodes", t->numa_nodes);
    json_integer(j, "memory", t->memory);
    json_array(j, "caches");
    for (int i = 0; i < t->cache_count; i++) {
        char name[16];
        cache_name(&t->caches[i], name);
        json_object(j, NULL);
        json_text(j, "name", name);
        json_integer(j, "bytes", t->caches[i].bytes);
        json_integer(j, "line", t->caches[i].line);
        json_integer(j, "count", t->caches[i].count);
        json_end(j);
    }
    json_end(j);
    json_end(j);
}

static void write_share(json *j, const facts *f)
{
    json_object(j, "process");
    json_integer(j, "hardware_threads", f->q.cpus);
    json_integer(j, "cores", f->q.cores);
    if (f->q.limit > 0.0)
        json_real(j, "cpu_quota", f->q.limit);
    else
        json_text(j, "cpu_quota", NULL);
    json_integer(j, "threads", f->threads);
    json_text(j, "thread_pool", pool_kind());
    json_end(j);
}

static void write_profile(json *j, facts *f)
{
    char *rest = f->profile, *one;
    json_text(j, "ballast_profile", getenv("BALLAST_PROFILE"));
    json_text(j, "own_profile", *f->own ? f->own : NULL);
    json_bool(j, "own_profile_exists", f->has_own);
    json_array(j, "profile");
    while ((one = next_line(&rest)))
        json_text(j, NULL, one);
    json_end(j);
}

static void write_last_cache(json *j, const caches *c)
{
    json_object(j, "last_cache");
    json_integer(j, "bytes", c->real);
    json_integer(j, "cpu", c->cpu);
    json_integer(j, "os", c->os);
    json_integer(j, "taken", c->taken);
    json_integer(j, "measured", c->measured);
    json_array(j, "reads");
    for (int i = 0; i < c->count; i++) {
        json_object(j, NULL);
        json_integer(j, "bytes", c->points[i].bytes);
        json_real(j, "gbps", c->points[i].gbps);
        json_end(j);
    }
    json_end(j);
    json_end(j);
}

static void print_json(facts *f)
{
    json j;
    json_begin(&j, stdout);
    json_text(&j, "version", ballast_version());
    write_cpu(&j, &f->cpu);
    write_implementations(&j, f);
    write_profile(&j, f);
    write_machine(&j, &f->machine);
    write_last_cache(&j, &f->caches);
    write_share(&j, f);
    json_end(&j);
}

/* The one option. */
static bool measure_caches(const options *o, void *measure, int id)
{
    (void)o, (void)id;
    *(bool *)measure = true;
    return true;
}

int info_main(int argc, char **argv)
{
    options o;
    bool measure = false;
    if (!options_read(&o, &spec, argc, argv, measure_caches, &measure))
        return o.exit_code;
    facts *f = calloc(1, sizeof *f);
    if (!f)
        return complain("no memory");
    gather(f, o.threads, measure);
    const bool complete = f->profile != NULL;
    if (complete && o.json)
        print_json(f);
    else if (complete)
        print_text(f);
    free(f->profile);
    free(f);
    return complete ? EXIT_GOOD : complain("no memory");
}
