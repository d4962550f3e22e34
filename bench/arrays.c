/* SPDX-License-Identifier: MIT */
#include "arrays.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { GUARD = 256, ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

static enum case_pages pages_wanted = PAGES_OF_SYSTEM;

void case_use_pages(enum case_pages pages) { pages_wanted = pages; }

/* Huge pages are 2 MiB: what is smaller stands on small ones. */
static void *allocate_pages(size_t bytes)
{
    const size_t whole = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *memory = aligned_alloc(HUGE_PAGE, whole);

    if (memory)
        madvise(memory, whole, pages_wanted == PAGES_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return memory;
}

void *allocate(size_t bytes)
{
    const size_t whole = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    const int by_page = pages_wanted != PAGES_OF_SYSTEM && bytes >= HUGE_PAGE;
    void *memory = by_page ? allocate_pages(bytes) : aligned_alloc(ALIGNMENT, whole);

    if (!memory) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(2);
    }
    return memory;
}

static case_array make_strided(const problem *p, const char *name, ballast_dtype dtype,
                               int64_t rows, int64_t columns, int64_t stride)
{
    const size_t elements = rows > 0 ? (size_t)((rows - 1) * stride + columns) : 0;
    case_array a = {name, dtype, rows, columns, stride, rows == p->rows, NULL, NULL, 0};

    a.bytes = 2 * GUARD + ((size_t)p->offset + elements) * size_of(dtype);
    a.memory = allocate(a.bytes);
    a.data = (char *)a.memory + GUARD + (size_t)p->offset * size_of(dtype);
    memset(a.memory, FILL, a.bytes);
    return a;
}

case_array make_array(const problem *p, const char *name, ballast_dtype dtype, int64_t rows,
                      int64_t columns)
{
    return make_strided(p, name, dtype, rows, columns, columns);
}

case_array make_matrix(const problem *p, const char *name, ballast_dtype dtype)
{
    return make_strided(p, name, dtype, p->rows, p->classes, p->stride ? p->stride : p->classes);
}
