/* SPDX-License-Identifier: MIT */
#include "quota.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_SIZE = 4096, PATH_SIZE = 4096, CPUS_MAX = 8192, FOLDER_SIZE = 2 * PATH_SIZE + 64 };

/* ---- Affinity -------------------------------------------------------------------------------- */

/* The first hardware thread of the core that `cpu` belongs to; `cpu` itself where unknown. */
static int core_of(const char *root, int cpu)
{
    char path[PATH_SIZE];
    int first = cpu;
    snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
             root, cpu);
    FILE *f = fopen(path, "re");
    if (!f)
        return cpu;
    if (fscanf(f, "%d", &first) != 1)
        first = cpu;
    fclose(f);
    return first;
}

static void count_allowed(const char *root, const cpu_set_t *set, size_t size, quota *q)
{
    bool *seen = calloc(CPUS_MAX, sizeof *seen);
    q->cpus = q->cores = 0;
    for (int cpu = 0; cpu < CPUS_MAX; cpu++) {
        if (!CPU_ISSET_S(cpu, size, set))
            continue;
        int core = core_of(root, cpu);
        q->cpus++;
        if (seen && core >= 0 && core < CPUS_MAX && !seen[core]) {
            seen[core] = true;
            q->cores++;
        }
    }
    free(seen);
}

static void read_affinity(const char *root, quota *q)
{
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
    size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
    q->cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    q->cores = q->cpus;
    if (set && sched_getaffinity(0, size, set) == 0)
        count_allowed(root, set, size, q);
    CPU_FREE(set);
    q->cpus = q->cpus > 0 ? q->cpus : 1;
    q->cores = q->cores > 0 ? q->cores : q->cpus;
}

/* ---- Control groups -------------------------------------------------------------------------- */

static bool read_line(const char *path, char line[LINE_SIZE])
{
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool ok = fgets(line, LINE_SIZE, f) != NULL;
    fclose(f);
    return ok;
}

/* CPUs' worth of time of one folder of a hierarchy; 0 where it sets no limit. */
static double limit_of_folder(const char folder[FOLDER_SIZE], bool v2)
{
    char path[FOLDER_SIZE + 32], line[LINE_SIZE];
    double allowed = 0.0, period = 0.0;
    snprintf(path, sizeof path, "%s/%s", folder, v2 ? "cpu.max" : "cpu.cfs_quota_us");
    if (!read_line(path, line))
        return 0.0;
    int found = sscanf(line, "%lf %lf", &allowed, &period); /* "max" is no number */
    if (!v2 && found >= 1) {
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
        found = read_line(path, line) && sscanf(line, "%lf", &period) == 1 ? 2 : 0;
    }
    return found == 2 && allowed > 0.0 && period > 0.0 ? allowed / period : 0.0;
}

/* Where a hierarchy is mounted, and the process's group in it. */
typedef struct hierarchy {
    char mount[PATH_SIZE]; /* folder */
    char top[PATH_SIZE];   /* the group that the folder shows */
    char group[PATH_SIZE]; /* the process's */
    bool v2;
} hierarchy;

/* Every group from the process's up to the mount may set a limit; the least counts. */
static void limit_of_hierarchy(const char *root, const hierarchy *h, quota *q)
{
    char folder[FOLDER_SIZE], group[PATH_SIZE];
    size_t top = strcmp(h->top, "/") == 0 ? 0 : strlen(h->top);
    bool inside = strncmp(h->group, h->top, top) == 0;
    snprintf(group, sizeof group, "%s", inside ? h->group + top : "");
    for (;;) {
        snprintf(folder, sizeof folder, "%s%s%s", root, h->mount, group);
        double limit = limit_of_folder(folder, h->v2);
        if (limit > 0.0 && (q->limit == 0.0 || limit < q->limit)) {
            q->limit = limit;
            snprintf(q->group, sizeof q->group, "%.200s", *group ? group : "/");
        }
        char *slash = strrchr(group, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
}

/* Whether `word` is one of the words in `list`, which commas separate. */
static bool in_list(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, word, length) == 0 && (p[length] == ',' || p[length] == '\0'))
            return true;
    }
    return false;
}

/* /proc/self/cgroup: "0::/path" for v2, "3:cpu,cpuacct:/path" for v1. */
static bool find_group(const char *root, hierarchy *h)
{
    char path[PATH_SIZE], line[LINE_SIZE];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        controllers++;
        found = h->v2 ? *controllers == '\0' : in_list(controllers, "cpu");
        snprintf(h->group, sizeof h->group, "%s", strcmp(group, "/") == 0 ? "" : group);
    }
    if (f)
        fclose(f);
    return found;
}

/* /proc/self/mountinfo: "36 35 98:0 /top /mount rw,noatime ... - cgroup2 source options". Blanks in
 * names are written as octal numbers; such a folder is not found, which means no limit. */
static bool parse_mount(char *line, hierarchy *h)
{
    char kind[64], options[LINE_SIZE];
    char *rest = strstr(line, " - ");
    if (!rest || sscanf(line, "%*s %*s %*s %4095s %4095s", h->top, h->mount) != 2)
        return false;
    if (sscanf(rest, " - %63s %*s %4095s", kind, options) != 2)
        return false;
    return h->v2 ? strcmp(kind, "cgroup2") == 0
                 : strcmp(kind, "cgroup") == 0 && in_list(options, "cpu");
}

static bool find_mount(const char *root, hierarchy *h)
{
    char path[PATH_SIZE], line[LINE_SIZE];
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *f = fopen(path, "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        found = parse_mount(line, h);
    }
    if (f)
        fclose(f);
    return found;
}

void quota_read(const char *root, quota *q)
{
    memset(q, 0, sizeof *q);
    read_affinity(root, q);
    hierarchy *h = malloc(sizeof *h);
    for (int version = 1; h && version <= 2; version++) { /* a system can mount both */
        h->v2 = version == 2;
        if (find_group(root, h) && find_mount(root, h))
            limit_of_hierarchy(root, h, q);
    }
    free(h);
}

int quota_threads(const quota *q)
{
    int fed = q->limit >= 1.0 ? (q->limit < q->cores ? (int)q->limit : q->cores) : 1;
    return q->limit > 0.0 ? fed : q->cores;
}
