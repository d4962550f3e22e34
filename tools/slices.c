/* SPDX-License-Identifier: MIT */
#include "slices.h"

#include "interrupt.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Large enough that threads even out and the cost of mapping is small, small against any memory. */
static const int64_t slice_bytes = INT64_C(32) << 20;

enum { TASKS_PER_THREAD = 4 };

/* ---- Memory ---------------------------------------------------------------------------------- */

static size_t bytes_per_row(size_t bytes, int64_t rows)
{
    return rows > 0 ? bytes / (size_t)rows : 0;
}

row_memory row_memory_of_input(const npy_array *array, int64_t rows)
{
    row_memory m = {.base = (void *)(uintptr_t)array->data, .fd = -1};
    m.row_bytes = bytes_per_row(array->bytes, rows);
    m.pages = array->map != NULL;
    if (m.pages)
        madvise(array->map, array->map_bytes, MADV_SEQUENTIAL);
    return m;
}

row_memory row_memory_of_output(const npy_writer *w, void *data, int64_t rows)
{
    row_memory m = {.base = data, .pages = w->map != NULL, .fd = -1};
    m.row_bytes = bytes_per_row(w->bytes, rows);
    if (m.pages) {
        m.fd = w->fd;
        m.file_base = w->map;
    }
    return m;
}

row_memory row_memory_of_scratch(void *base, size_t row_bytes)
{
    row_memory m = {.base = base, .row_bytes = row_bytes, .pages = true, .fd = -1};
    return m;
}

/* The page at the end may hold rows that are not done; that at the beginning holds done ones only.
 * Of a file, the system keeps what was given back and is told to begin writing it, so that the disk
 * works while the next slice is computed, and the commit has little left to wait for. Errors are
 * found, and told, by the commit. */
void row_memory_drop(const row_memory *m, int64_t begin, int64_t end)
{
    if (!m->base || !m->pages)
        return;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)m->base + (uintptr_t)begin * m->row_bytes;
    uintptr_t to = (uintptr_t)m->base + (uintptr_t)end * m->row_bytes;
    from -= from % page;
    to -= to % page;
    if (from >= to)
        return;
    madvise((void *)from, to - from, MADV_DONTNEED);
    if (m->fd >= 0)
        sync_file_range(m->fd, (off_t)(from - (uintptr_t)m->file_base), (off_t)(to - from),
                        SYNC_FILE_RANGE_WRITE);
}

void *scratch_map(size_t bytes)
{
    void *base = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return base == MAP_FAILED ? NULL : base;
}

void scratch_unmap(void *base, size_t bytes)
{
    if (base)
        munmap(base, bytes ? bytes : 1);
}

/* ---- Rows ------------------------------------------------------------------------------------ */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* A slice, cut into tasks at the plan's row steps. */
typedef struct slice {
    const slices *s;
    int64_t begin, end, step, tasks;
} slice;

/* Where task i begins: steps are dealt out so that tasks differ by one at most. */
static int64_t cut(const slice *p, int64_t i)
{
    int64_t steps = (p->end - p->begin + p->step - 1) / p->step;
    int64_t at = steps / p->tasks * i + smaller(i, steps % p->tasks);
    return smaller(p->begin + at * p->step, p->end);
}

static void run_task(void *arg, int64_t index)
{
    const slice *p = arg;
    int64_t begin = cut(p, index), end = cut(p, index + 1);
    if (p->s->before)
        p->s->before(p->s->arg, begin, end);
    ballast_plan_rows(p->s->plan, begin, end);
}

static void run_slice(slice *p)
{
    int64_t steps = (p->end - p->begin + p->step - 1) / p->step;
    p->tasks = larger(1, smaller(steps, p->s->parallel->threads * TASKS_PER_THREAD));
    if (p->s->parallel->threads <= 1)
        p->tasks = 1;
    p->s->parallel->run(p->s->parallel->context, p->tasks, run_task, p);
}

/* At least a step for each thread, however large. */
static int64_t rows_per_slice(const slices *s)
{
    int64_t step = ballast_plan_row_step(s->plan);
    int64_t row_bytes = larger(1, (int64_t)s->row_bytes);
    int64_t rows = larger(1, slice_bytes / row_bytes);
    int64_t steps = larger(rows / step, s->parallel->threads);
    return larger(1, steps) * step;
}

bool slices_run(const slices *s)
{
    int64_t rows = ballast_plan_row_count(s->plan), most = rows_per_slice(s);
    for (int64_t begin = 0; begin < rows;) {
        int64_t end = rows - begin > most ? begin + most : rows;
        slice p = {s, begin, end, ballast_plan_row_step(s->plan), 1};
        run_slice(&p);
        if (s->after && !s->after(s->arg, begin, end))
            return false;
        for (int i = 0; i < s->memory_count; i++)
            row_memory_drop(&s->memory[i], begin, end);
        progress_update(s->progress, end * (int64_t)s->row_bytes);
        if (interrupt_seen())
            return false;
        begin = end;
    }
    return !interrupt_seen();
}
