/* SPDX-License-Identifier: MIT */
#include "topology.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void add_cache(topology *t, const topology_cache *cache)
{
    for (int i = 0; i < t->cache_count; i++) {
        topology_cache *c = &t->caches[i];
        if (c->level == cache->level && c->kind == cache->kind && c->bytes == cache->bytes) {
            c->count++;
            return;
        }
    }
    if (t->cache_count < TOPOLOGY_CACHES)
        t->caches[t->cache_count++] = *cache;
}

/* ---- /sys ------------------------------------------------------------------------------------ */

enum { CPUS_MAX = 8192, PATH_SIZE = 256 };

#define CPU_FOLDER "/sys/devices/system/cpu/"
#define NODE_FOLDER "/sys/devices/system/node/"

static bool read_text(const char *path, char text[64])
{
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool ok = fgets(text, 64, f) != NULL;
    fclose(f);
    if (ok)
        text[strcspn(text, "\n")] = '\0';
    return ok;
}

/* How many numbers a list such as "0-3,8" has. */
static int count_list(const char *path)
{
    int count = 0, from, to;
    FILE *f = fopen(path, "re");
    while (f && fscanf(f, "%d", &from) == 1) {
        int next = fgetc(f);
        to = from;
        if (next == '-' && fscanf(f, "%d", &to) == 1)
            next = fgetc(f);
        count += to - from + 1;
        if (next != ',')
            break;
    }
    if (f)
        fclose(f);
    return count;
}

/* Each thing that CPUs share is counted once: at the first CPU of its list. */
static bool is_first(int cpu, const char *file)
{
    char path[PATH_SIZE], text[64];
    snprintf(path, sizeof path, CPU_FOLDER "cpu%d/%s", cpu, file);
    return read_text(path, text) && atoi(text) == cpu;
}

static bool cache_text(int cpu, int index, const char *file, char text[64])
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, CPU_FOLDER "cpu%d/cache/index%d/%s", cpu, index, file);
    return read_text(path, text);
}

static bool read_cache(int cpu, int index, topology_cache *cache)
{
    char level[64], type[64], size[64], line[64] = "0";
    if (!cache_text(cpu, index, "level", level) || !cache_text(cpu, index, "type", type) ||
        !cache_text(cpu, index, "size", size))
        return false;
    cache_text(cpu, index, "coherency_line_size", line);
    char *unit;
    cache->bytes = strtoll(size, &unit, 10) * (*unit == 'K' ? 1024 : *unit == 'M' ? 1048576 : 1);
    cache->level = atoi(level);
    cache->kind = type[0] == 'D' ? 'd' : type[0] == 'I' ? 'i' : 'u';
    cache->line = atoi(line);
    cache->count = 1;
    return true;
}

static void read_caches(topology *t, int cpu)
{
    char shared[64];
    topology_cache cache;
    for (int index = 0; index < TOPOLOGY_CACHES && read_cache(cpu, index, &cache); index++) {
        snprintf(shared, sizeof shared, "cache/index%d/shared_cpu_list", index);
        if (is_first(cpu, shared))
            add_cache(t, &cache);
    }
}

static void read_sysfs(topology *t)
{
    char path[PATH_SIZE];
    snprintf(t->source, sizeof t->source, "/sys");
    t->cpus = count_list(CPU_FOLDER "online");
    t->numa_nodes = count_list(NODE_FOLDER "online");
    for (int cpu = 0; cpu < CPUS_MAX; cpu++) {
        snprintf(path, sizeof path, CPU_FOLDER "cpu%d", cpu);
        if (access(path, F_OK) != 0)
            break;
        t->cores += is_first(cpu, "topology/thread_siblings_list");
        t->packages += is_first(cpu, "topology/core_siblings_list");
        read_caches(t, cpu);
    }
}

/* ---- hwloc ----------------------------------------------------------------------------------- */

#if HAVE_HWLOC
#include <hwloc.h>

static int at_least_0(int count) { return count > 0 ? count : 0; }

static void read_hwloc_caches(topology *t, hwloc_topology_t h)
{
    static const hwloc_obj_type_t types[] = {
        HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L1ICACHE, HWLOC_OBJ_L2CACHE,
        HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L4CACHE,
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        hwloc_obj_t o = NULL;
        while ((o = hwloc_get_next_obj_by_type(h, types[i], o)) != NULL) {
            const struct hwloc_cache_attr_s *a = &o->attr->cache;
            topology_cache cache = {(int)a->depth, 'u', (int64_t)a->size, (int)a->linesize, 1};
            cache.kind = a->type == HWLOC_OBJ_CACHE_DATA          ? 'd'
                         : a->type == HWLOC_OBJ_CACHE_INSTRUCTION ? 'i'
                                                                  : 'u';
            add_cache(t, &cache);
        }
    }
}

static void read_loaded(topology *t, hwloc_topology_t h)
{
    snprintf(t->source, sizeof t->source, "hwloc");
    t->packages = at_least_0(hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_PACKAGE));
    t->cores = at_least_0(hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_CORE));
    t->cpus = at_least_0(hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_PU));
    t->numa_nodes = at_least_0(hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_NUMANODE));
    read_hwloc_caches(t, h);
}

/* Plugins look at graphics cards and the like, load twenty libraries and take 40 ms: left out. */
static void without_plugins(void)
{
    setenv("HWLOC_PLUGINS_PATH", "/nonexistent", 0);
    setenv("HWLOC_HIDE_ERRORS", "2", 0);
}

static bool read_hwloc(topology *t)
{
    hwloc_topology_t h;
    without_plugins();
    if (hwloc_topology_init(&h) != 0)
        return false;
    hwloc_topology_set_flags(h, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
    hwloc_topology_set_type_filter(h, HWLOC_OBJ_L1ICACHE, HWLOC_TYPE_FILTER_KEEP_ALL);
    bool ok = hwloc_topology_load(h) == 0;
    if (ok)
        read_loaded(t, h);
    hwloc_topology_destroy(h);
    return ok;
}

/* Leaves only what this process may use. */
static bool restrict_to_process(hwloc_topology_t h)
{
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    const bool ok = allowed && hwloc_get_cpubind(h, allowed, HWLOC_CPUBIND_PROCESS) == 0 &&
                    hwloc_topology_restrict(h, allowed, 0) == 0;
    hwloc_bitmap_free(allowed);
    return ok;
}

void topology_cores_open(topology_cores *c)
{
    hwloc_topology_t h;
    *c = (topology_cores){0, NULL};
    without_plugins();
    if (hwloc_topology_init(&h) != 0)
        return;
    if (hwloc_topology_load(h) == 0 && restrict_to_process(h))
        *c = (topology_cores){at_least_0(hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_CORE)), h};
    else
        hwloc_topology_destroy(h);
}

void topology_cores_close(topology_cores *c)
{
    if (c->handle)
        hwloc_topology_destroy(c->handle);
    *c = (topology_cores){0, NULL};
}

bool topology_bind(const topology_cores *c, int index)
{
    if (c->count == 0)
        return false;
    const hwloc_obj_t core =
        hwloc_get_obj_by_type(c->handle, HWLOC_OBJ_CORE, (unsigned)(index % c->count));
    hwloc_bitmap_t one = core ? hwloc_bitmap_dup(core->cpuset) : NULL;
    if (!one)
        return false;
    hwloc_bitmap_singlify(one);
    const bool bound = hwloc_set_cpubind(c->handle, one, HWLOC_CPUBIND_THREAD) == 0;
    hwloc_bitmap_free(one);
    return bound;
}

#else

static bool read_hwloc(topology *t)
{
    (void)t;
    return false;
}

void topology_cores_open(topology_cores *c)
{
    cpu_set_t set;
    *c = (topology_cores){0, NULL};
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        c->count = CPU_COUNT(&set);
    c->handle = c->count > 0 ? CPU_ALLOC(CPU_SETSIZE) : NULL;
    if (c->handle)
        memcpy(c->handle, &set, sizeof set);
    else
        c->count = 0;
}

void topology_cores_close(topology_cores *c)
{
    CPU_FREE(c->handle);
    *c = (topology_cores){0, NULL};
}

/* By hardware threads, for which of them are of one core is not known here. */
bool topology_bind(const topology_cores *c, int index)
{
    const cpu_set_t *all = c->handle;
    cpu_set_t one;
    int left = c->count > 0 ? index % c->count : -1, cpu = 0;
    if (left < 0)
        return false;
    for (; cpu < CPU_SETSIZE - 1 && (!CPU_ISSET(cpu, all) || left > 0); cpu++)
        left -= CPU_ISSET(cpu, all) != 0;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0;
}

#endif

void topology_read(topology *t)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    memset(t, 0, sizeof *t);
    t->memory = pages > 0 && page > 0 ? (int64_t)pages * page : 0;
    if (!read_hwloc(t))
        read_sysfs(t);
}
