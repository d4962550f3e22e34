/* SPDX-License-Identifier: MIT */
#include "noise.h"

#include "../bench/measure.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define MOST_LOST 0.1
#define MOST_DRIFT 0.05
enum { LEAST_TICKS = 3, CLOCKS = 20 }; /* a tick more or less says nothing */

/* "cpu user nice system idle iowait irq softirq steal guest guest_nice"; guests count as users. */
static void read_ticks(noise_mark *m)
{
    enum { FIELDS = 8, STEAL = 7 };
    uint64_t field[FIELDS] = {0};
    FILE *file = fopen("/proc/stat", "re");
    int found = 0;

    if (file && fscanf(file, "cpu") == 0)
        while (found < FIELDS && fscanf(file, "%" SCNu64, &field[found]) == 1)
            found++;
    if (file)
        fclose(file);
    for (int i = 0; i < FIELDS && found == FIELDS; i++)
        m->all += field[i];
    m->stolen = found == FIELDS ? field[STEAL] : 0;
}

/* "ran waited turns" */
static void add_thread(const char *name, noise_mark *m)
{
    char path[320];
    uint64_t ran, waited;

    snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", name);
    FILE *file = fopen(path, "re");
    if (file && fscanf(file, "%" SCNu64 " %" SCNu64, &ran, &waited) == 2) {
        m->ran += ran;
        m->waited += waited;
    }
    if (file)
        fclose(file);
}

static void read_threads(noise_mark *m)
{
    DIR *folder = opendir("/proc/self/task");
    const struct dirent *entry;

    while (folder && (entry = readdir(folder)))
        if (entry->d_name[0] != '.')
            add_thread(entry->d_name, m);
    if (folder)
        closedir(folder);
}

noise_mark noise_begin(void)
{
    noise_mark m = {.cycle = measure_cycle()};

    read_ticks(&m);
    read_threads(&m);
    for (int i = 1; i < CLOCKS; i++)
        m.cycle = fmin(m.cycle, measure_cycle());
    return m;
}

noise noise_since(const noise_mark *begin)
{
    const noise_mark end = noise_begin();
    const uint64_t ticks = end.stolen - begin->stolen, all = end.all - begin->all;
    const double waited = (double)(end.waited - begin->waited);
    const double ready = waited + (double)(end.ran - begin->ran);
    noise n = {.stolen = all > 0 ? (double)ticks / (double)all : 0.0,
               .waited = ready > 0.0 ? waited / ready : 0.0,
               .drift = end.cycle / begin->cycle - 1.0};

    n.too_much = (ticks >= LEAST_TICKS && n.stolen > MOST_LOST) || n.waited > MOST_LOST ||
                 fabs(n.drift) > MOST_DRIFT;
    return n;
}
