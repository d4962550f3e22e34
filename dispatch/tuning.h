/* SPDX-License-Identifier: MIT */
/* What may be chosen for a call without changing a bit of it, and what is chosen.
 *
 * A choice has few candidates. Which one a call takes depends on what it computes, on the dtype,
 * and on the class of its shape. Without a profile it is the analytical default everywhere. The
 * operations, classes, choices and candidates are data, at the top of tuning.c. */
#ifndef BALLAST_DISPATCH_TUNING_H
#define BALLAST_DISPATCH_TUNING_H

#include "../kernels/kernels.h"
#include "ballast/ballast.h"
#include "cpu.h"

#include <stdbool.h>

typedef enum tuned_operation {
    TUNE_SOFTMAX,
    TUNE_LOG_SOFTMAX,
    TUNE_LOG_SUM_EXP,
    TUNE_SOFTMAX_BACKWARD,
    TUNE_LOG_SOFTMAX_BACKWARD,
    TUNE_CROSS_ENTROPY,
    TUNE_BINARY_CROSS_ENTROPY,
    TUNE_SIGMOID_FOCAL,
    TUNE_WEIGHTED_SUM, /* the mean, the sum of squares and the dot product, too */
    TUNE_WEIGHTED_LOG_SUM_EXP,
    TUNED_OPERATIONS
} tuned_operation;

/* Three classes each of: classes in a row, data read and written, rows. */
enum { SHAPE_PARTS = 3, PART_CLASSES = 3, SHAPE_CLASSES = 27 };

typedef enum choice_kind {
    CHOOSE_ISA,    /* value: a ballast__isa; the default is none */
    CHOOSE_STREAM, /* beyond so many bytes outputs go past the caches */
    CHOOSE_TASK,   /* cycles that a thread is woken for at least; a task takes half of them */
    CHOOSE_TASKS,  /* tasks a thread at most */
    CHOOSE_SHARE,  /* rows of fewer chunks are not shared between threads */
    CHOOSE_TILES,  /* rows of more classes do not go sixteen at once */
    CHOOSE_KEPT,   /* rows of more chunks compute their exponentials twice */
    CHOICES
} choice_kind;

/* The choices of one call. word: the number of a candidate for each, in CHOICE_BITS; 0: the
 * default. streams: what CHOOSE_STREAM comes to, for one matrix of the problem's shape read and
 * one written. */
typedef struct tuning {
    uint32_t word;
    bool streams;
} tuning;

enum { CHOICE_BITS = 4 };

/* ---- For calls: a few ns, no lock ------------------------------------------------------------ */

/* Of a validated problem whose elements fit in memory. For vectors: an element is a row of one
 * class. */
tuning ballast__tuning_of(tuned_operation operation, ballast_dtype dtype, int64_t rows,
                          int64_t classes);

/* Not for CHOOSE_STREAM. */
int64_t ballast__chosen(tuning t, choice_kind which);

/* The widest rows that go sixteen at once: those of CHOOSE_TILES, or of the kernels. A few rows make no
 * tile: from few_rows on they overlap better as long rows do, if they are as long as a group
 * (kernels/one_chunk_rows.h). */
static inline int64_t ballast__tile_classes(tuning t, int64_t rows, int64_t few_rows, int64_t of_kernels)
{
    const int64_t chosen = t.word == 0 ? 0 : ballast__chosen(t, CHOOSE_TILES);
    const bool few = rows >= few_rows && rows < LEAF_LANES && of_kernels >= LEAST_ONE_CHUNK;

    if (chosen != 0)
        return chosen;
    return few ? LEAST_ONE_CHUNK - 1 : of_kernels;
}

/* Of f32 rows, the widest that go sixteen at once on this CPU, but for what kernels say: of rows that are no
 * whole lines; and of whole lines that are streamed, and scaled exponentials. */
int64_t ballast__split_tile_classes(void);
int64_t ballast__streamed_line_classes(void);

/* Of kernels whose output is a matrix, which may be streamed. */
static inline int64_t ballast__matrix_tile_classes(tuning t, int64_t rows, int64_t few_rows, int64_t classes,
                                                   bool is_scaled, const kernel_table *kernels)
{
    const int64_t widest = t.streams ? kernels->streamed_tile_classes : kernels->tile_classes;
    const bool is_split = classes % LEAF_LANES != 0; /* a line holds as many */
    const int64_t on_cpu = kernels->format         ? INT64_MAX
                           : is_split              ? ballast__split_tile_classes()
                           : t.streams && is_scaled ? ballast__streamed_line_classes()
                                                   : INT64_MAX;

    return ballast__tile_classes(t, rows, few_rows, on_cpu < widest ? on_cpu : widest);
}

/* Of those that stay rows: more than of others, if what is written is not streamed. */
int64_t ballast__cpu_row_tile_classes(void);
static inline int64_t ballast__row_tile_classes(tuning t, const kernel_table *kernels)
{
    const bool is_chosen = t.word != 0 && ballast__chosen(t, CHOOSE_TILES) != 0;

    return is_chosen || t.streams || kernels->format ? 0 : ballast__cpu_row_tile_classes();
}

/* For jobs: 0 is what suits the kernels. */
static inline int64_t ballast__kept_chunks(tuning t)
{
    return t.word == 0 ? 0 : ballast__chosen(t, CHOOSE_KEPT);
}

/* For jobs, too: what suits the CPU, whatever is computed. */
fetching ballast__fetching(void);
const storage_format *ballast__format(const kernel_table *kernels);

/* At first use, before anything else here: the sizes of the caches decide. */
void ballast__tuning_begin(const ballast__cpu *cpu);

/* ---- For profiles, and for who measures ------------------------------------------------------ */

/* Where a choice applies. shape: (classes * 3 + data) * 3 + rows. */
typedef struct tuned_case {
    tuned_operation operation;
    ballast_dtype dtype;
    int shape;
} tuned_case;

/* Of the problem that ballast__tuning_of() is asked for. */
tuned_case ballast__tuned_case(tuned_operation operation, ballast_dtype dtype, int64_t rows,
                               int64_t classes);

/* So much of the last cache one core counts on, however large it is: many cores share it, and on
 * servers other tenants. Measured on an Intel server of 300 MiB (2 MiB of L2 a core), cross-entropy
 * with gradient between a pass that writes the logits and one that reads the gradient: streamed, all
 * of it took 1.2 times as long at 3 MiB, 0.96 at 12, 0.85 from 24 on. */
#define COUNTED_CACHE (UINT64_C(16) << 20)

/* Bytes of the largest working set of the data classes L2 (0) and cache (1). */
uint64_t ballast__data_bytes(int data_class);

typedef struct candidate {
    const char *name;
    int64_t value;
} candidate;

/* NULL past the last. Candidate 0 is the default. */
const char *ballast__tuned_operation_name(int operation);
const char *ballast__tuned_dtype_name(int dtype); /* "" for a dtype without kernels */
const char *ballast__shape_part(int part);
const char *ballast__shape_class_name(int part, int shape_class);
const char *ballast__choice_name(int which);
const candidate *ballast__candidate(int which, int index);

/* A candidate chosen for a case. */
typedef struct tuned_choice {
    tuned_case where;
    choice_kind which;
    int candidate;
} tuned_choice;

/* Puts choices in force, instead of all that were: the i-th is `at(context, i)`. A case without
 * a choice of its own takes that of the nearest shape of its operation and dtype. Threads: a
 * call takes all of its choices from before or all from after, so may run meanwhile; only one
 * thread may be in here. */
void ballast__tuning_replace(int count, tuned_choice (*at)(const void *context, int index),
                             const void *context);

#endif
