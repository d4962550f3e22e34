/* SPDX-License-Identifier: MIT */
/* A Ballast library from a file, beside the one that this program is linked with. */
#ifndef BALLAST_TOOLS_SHARED_LIBRARY_H
#define BALLAST_TOOLS_SHARED_LIBRARY_H

#include "../bench/library.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct shared_library {
    library functions;
    bool is_copy; /* in memory of its own; else what other loads of the file share */
    void *handle, *gap; /* private */
    size_t gap_bytes;
    int copy;
} shared_library;

/* Its functions see each other and nobody else's. Where it comes to lie changes with the bytes that
 * are kept free above it. False with a message, where it is no Ballast. */
bool shared_library_open(const char *path, size_t gap_bytes, shared_library *l, char *message,
                         size_t size);
void shared_library_close(shared_library *l);

/* Whether it has an operation: an older library may not know what a newer registry names. */
bool shared_library_has(const shared_library *l, const char *operation);

#endif
