/* SPDX-License-Identifier: MIT */
#include "user_profile.h"

#include "../dispatch/profile.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t hash_of(const char *text, uint64_t hash)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return hash;
}

/* FNV-1a, 64 bits. */
static uint64_t number_of(const profile_machine *m)
{
    return hash_of(m->caches, hash_of(m->cpu, UINT64_C(0xcbf29ce484222325)));
}

/* A relative $XDG_CACHE_HOME is to be ignored (XDG Base Directory Specification 0.8). */
bool user_profile_path(char *path, size_t size)
{
    const char *const cache = getenv("XDG_CACHE_HOME"), *const home = getenv("HOME");
    const bool has_cache = cache && *cache == '/';
    profile_machine m;

    if (!has_cache && !(home && *home))
        return false;
    ballast__profile_machine(&m);
    const int length = snprintf(path, size, "%s%s/ballast/%016" PRIx64 "-%s.profile",
                                has_cache ? cache : home, has_cache ? "" : "/.cache",
                                number_of(&m), m.build);
    return length > 0 && (size_t)length < size;
}

bool user_profile_make_folders(const char *path)
{
    char folder[PATH_MAX];

    if (strlen(path) >= sizeof folder)
        return false;
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
        if (mkdir(folder, 0700) != 0 && errno != EEXIST)
            return false;
    }
    return true;
}

void user_profile_load(void)
{
    const char *const variable = getenv("BALLAST_PROFILE");
    char path[PATH_MAX];

    if (!(variable && *variable) && user_profile_path(path, sizeof path) && access(path, F_OK) == 0)
        (void)ballast_profile_load(path);
}
