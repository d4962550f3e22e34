/* SPDX-License-Identifier: MIT */
/* Runs a plan over arrays larger than memory should hold: a slice of rows at a time, whose pages
 * are given back when it is done. */
#ifndef BALLAST_TOOLS_SLICES_H
#define BALLAST_TOOLS_SLICES_H

#include "ballast/ballast.h"
#include "npy.h"
#include "progress.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Memory with a fixed number of bytes per row.  Of pages that are given back, those of a file keep
 * their content; those of scratch memory are zero when touched again. */
typedef struct row_memory {
    void *base;      /* NULL: nothing to do */
    size_t row_bytes;
    bool pages;      /* mapped, so that pages can be given back */
    int fd;          /* of a file that is written; -1: none */
    void *file_base; /* where it is mapped */
} row_memory;

row_memory row_memory_of_input(const npy_array *array, int64_t rows);
row_memory row_memory_of_output(const npy_writer *w, void *data, int64_t rows);
row_memory row_memory_of_scratch(void *base, size_t row_bytes);

/* Gives back the pages of rows [begin, end). Rows before them must be done, too. */
void row_memory_drop(const row_memory *m, int64_t begin, int64_t end);

/* Scratch memory that takes space only where it is touched. NULL where there is none. */
void *scratch_map(size_t bytes);
void scratch_unmap(void *base, size_t bytes);

enum { SLICES_MEMORY = 4 };

typedef struct slices {
    ballast_plan *plan;
    const ballast_parallel *parallel;
    size_t row_bytes; /* how much work a row is */
    row_memory memory[SLICES_MEMORY];
    int memory_count;
    /* Called before rows are computed, from any thread; and after a slice, from this thread: false
     * stops. NULL: nothing to call. */
    void (*before)(void *arg, int64_t begin, int64_t end);
    bool (*after)(void *arg, int64_t begin, int64_t end);
    void *arg;
    progress *progress;
} slices;

/* All rows of the plan; the finish is left to the caller. False where `after` said so, or a signal
 * was seen (interrupt.h). */
bool slices_run(const slices *s);

#endif
