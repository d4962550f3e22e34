/* SPDX-License-Identifier: MIT */
#include "shared_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

_Static_assert(sizeof(void *) == sizeof(void (*)(void)), "POSIX");

static bool find(void *handle, const char *name, void *function)
{
    void *symbol = dlsym(handle, name);

    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

#define FIND_OPERATION(name, args)                                                                \
    find(l->handle, "ballast_" #name, &l->functions.name);                                        \
    find(l->handle, "ballast_" #name "_prepare", &l->functions.name##_prepare);
#define FIND_FUNCTION(name, result, parameters)                                                   \
    if (!find(l->handle, "ballast_" #name, &l->functions.name) && !missing)                       \
        missing = "ballast_" #name;

/* Address space alone, no memory. */
static void make_gap(shared_library *l, size_t bytes)
{
    void *gap = bytes ? mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                      : MAP_FAILED;

    if (gap == MAP_FAILED)
        return;
    l->gap = gap;
    l->gap_bytes = bytes;
}

/* A copy in memory, which no other load shares pages with; "" where there can be none. */
static int copy_to_memory(const char *path, char name[64])
{
    const int copy = memfd_create("ballast", MFD_CLOEXEC);
    FILE *file = fopen(path, "rb");
    char bytes[1 << 16];
    size_t n = 1;

    while (file && copy >= 0 && n > 0 && (n = fread(bytes, 1, sizeof bytes, file)) > 0)
        if (write(copy, bytes, n) != (ssize_t)n)
            n = 0;
    const bool good = file && copy >= 0 && feof(file) && !ferror(file);
    if (file)
        fclose(file);
    name[0] = '\0';
    if (good)
        snprintf(name, 64, "/proc/self/fd/%d", copy);
    return copy;
}

bool shared_library_open(const char *path, size_t gap_bytes, shared_library *l, char *message,
                         size_t size)
{
    const char *missing = NULL;
    char here[4096], in_memory[64];

    memset(l, 0, sizeof *l);
    make_gap(l, gap_bytes);
    l->copy = copy_to_memory(path, in_memory); /* open as long as its name must be its own */
    l->handle = *in_memory ? dlopen(in_memory, RTLD_NOW | RTLD_LOCAL) : NULL;
    /* a name without a slash would be looked for elsewhere */
    snprintf(here, sizeof here, "%s%s", strchr(path, '/') ? "" : "./", path);
    l->is_copy = l->handle != NULL;
    if (!l->is_copy)
        l->handle = dlopen(here, RTLD_NOW | RTLD_LOCAL);
    if (!l->handle) {
        snprintf(message, size, "%s", dlerror());
        shared_library_close(l);
        return false;
    }
    LIBRARY_OPERATIONS(FIND_OPERATION)
    LIBRARY_FUNCTIONS(FIND_FUNCTION)
    if (!missing)
        return true;
    snprintf(message, size, "%s: is no Ballast: has no %s", path, missing);
    shared_library_close(l);
    return false;
}

void shared_library_close(shared_library *l)
{
    if (l->handle)
        dlclose(l->handle);
    if (l->gap)
        munmap(l->gap, l->gap_bytes);
    if (l->copy > 0)
        close(l->copy);
    memset(l, 0, sizeof *l);
}

bool shared_library_has(const shared_library *l, const char *operation)
{
    char name[128];

    snprintf(name, sizeof name, "ballast_%s", operation);
    return dlsym(l->handle, name) != NULL;
}
