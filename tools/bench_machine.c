/* SPDX-License-Identifier: MIT */
#include "bench_machine.h"

#include "../bench/baselines/rooflines.h"
#include "../bench/measure.h"
#include "../dispatch/cpu.h"
#include "ballast/ballast.h"
#include "caches.h"
#include "info.h"
#include "topology.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LEVELS = 4, MEMORY = LEVELS - 1, LINE = 64 };
static const int64_t beyond_caches = INT64_C(256) << 20;

/* The shortest of several runs: a limit is what is possible. */
static double shortest(const contender *c, double budget)
{
    double best = 1e300;
    const double end = measure_now() + budget;

    c->run(c->context); /* warm */
    do {
        const double start = measure_now();
        c->run(c->context);
        const double seconds = measure_now() - start;
        best = seconds < best ? seconds : best;
    } while (measure_now() < end);
    return best;
}

typedef struct reading {
    const void *from;
    size_t bytes;
    long repeats; /* so that the clock's own time does not matter */
} reading;

static void read_repeatedly(void *context)
{
    const reading *r = context;

    for (long i = 0; i < r->repeats; i++)
        roofline_read(r->from, r->bytes);
}

static double read_bandwidth(const void *from, int64_t bytes)
{
    reading r = {from, (size_t)(bytes / LINE * LINE), 1 + (1 << 20) / bytes};
    const contender c = {read_repeatedly, &r, NULL};

    return 1e-9 * (double)r.bytes * (double)r.repeats / shortest(&c, 0.08);
}

/* The clock at its fastest, as the peak is taken at its fastest. */
static double fastest_clock(void)
{
    double cycle = 1e300;

    for (int i = 0; i < 1000; i++) {
        const double now = measure_cycle();
        cycle = now < cycle ? now : cycle;
    }
    return 1e-9 / cycle;
}

enum { STEPS = 20000 };

static void multiply_add(void *context) { *(double *)context = roofline_multiply_add(STEPS); }

static double peak(void)
{
    double operations = 0.0;
    const contender c = {multiply_add, &operations, NULL};
    const double seconds = shortest(&c, 0.05);

    return operations / (seconds * 1e9 * fastest_clock());
}

static int64_t cache_bytes(const topology *t, int level)
{
    for (int i = 0; i < t->cache_count; i++)
        if (t->caches[i].level == level && t->caches[i].kind != 'i')
            return t->caches[i].bytes;
    return 0;
}

/* Virtual machines tell of the whole socket's L3. */
static int64_t level_bytes(const topology *t, const caches *last, int level)
{
    const int64_t told = cache_bytes(t, level);

    return level == 3 && told > 0 ? last->real : told;
}

/* From half of each cache, for the other half is not ours alone. */
static void read_levels(bench_machine *m, const topology *t)
{
    static const char *const names[LEVELS] = {"L1", "L2", "L3", "memory"};
    caches last;
    caches_read(&last);
    caches_measure(&last, 1.0);
    char *array = aligned_alloc(LINE, (size_t)beyond_caches);

    if (array)
        memset(array, 0, (size_t)beyond_caches);
    for (int i = 0; i < LEVELS; i++) {
        const int64_t size = i < MEMORY ? level_bytes(t, &last, i + 1) : t->memory;
        const int64_t part = i < MEMORY ? size / 2 : beyond_caches;

        m->level_name[i] = names[i];
        m->level_bytes[i] = (double)size;
        if (array && part >= LINE && part <= beyond_caches && native_code_runs())
            m->level_gbps[i] = read_bandwidth(array, part);
    }
    free(array);
}

static void join(char *text, size_t size, int argc, char **argv)
{
    size_t used = (size_t)snprintf(text, size, "ballast");

    for (int i = 0; i < argc && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, " %s", argv[i]);
}

void bench_machine_read(bench_machine *m, int argc, char **argv)
{
    static ballast__cpu cpu;
    static char date[32], command[1024], features[512];
    const time_t now = time(NULL);
    topology t;

    memset(m, 0, sizeof *m);
    ballast__cpu_read(NULL, &cpu);
    topology_read(&t);
    strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S %z", localtime(&now));
    join(command, sizeof command, argc, argv);
    info_features(features, sizeof features);
    m->cpu = cpu.name;
    m->isa = ballast_implementation_name(ballast_implementation_default(NULL, 0));
    m->compiler = __VERSION__;
    m->version = ballast_version();
    m->date = date;
    m->command = command;
    m->features = features;
    m->cores = t.cores;
    m->clock_ghz = fastest_clock();
    if (native_code_runs())
        m->peak_flops_per_cycle = peak();
    read_levels(m, &t);
}
