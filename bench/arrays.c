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

/* With the strides set; the memory is to come. */
static case_array with_memory(const problem *p, case_array a)
{
    const int64_t plane = a.columns > 0 ? (a.columns - 1) * a.column_stride + a.inner : 0;
    const size_t elements = a.rows > 0 ? (size_t)((a.rows / a.inner - 1) * a.stride + plane) : 0;
    const ballast_dtype dtype = a.dtype;

    a.bytes = 2 * GUARD + ((size_t)p->offset + elements) * size_of(dtype);
    a.memory = allocate(a.bytes);
    a.data = (char *)a.memory + GUARD + (size_t)p->offset * size_of(dtype);
    memset(a.memory, FILL, a.bytes);
    return a;
}

case_array make_array(const problem *p, const char *name, ballast_dtype dtype, int64_t rows,
                      int64_t columns)
{
    return with_memory(p, (case_array){.name = name,
                                       .dtype = dtype,
                                       .rows = rows,
                                       .columns = columns,
                                       .stride = columns,
                                       .inner = 1,
                                       .column_stride = 1,
                                       .per_row = rows == p->rows});
}

case_array make_matrix(const problem *p, const char *name, ballast_dtype dtype)
{
    const int64_t plane = p->class_stride ? p->class_stride : p->inner;

    return with_memory(p, (case_array){.name = name,
                                       .dtype = dtype,
                                       .rows = p->rows,
                                       .columns = p->classes,
                                       .stride = p->stride ? p->stride : p->classes * plane,
                                       .inner = p->inner,
                                       .column_stride = plane,
                                       .per_row = 1});
}
