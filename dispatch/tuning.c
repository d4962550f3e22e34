/* SPDX-License-Identifier: MIT */
/* The data come first: operations, classes of shapes, choices and their candidates. Then what is
 * in force: one atomic word for each case, in static storage. A profile fills them; a call reads
 * one of them once, so that it needs no lock, and nothing has to outlive it. */
#include "tuning.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- Operations and dtypes ------------------------------------------------------------------- */

static const char *const operations[] = {
    [TUNE_SOFTMAX] = "softmax",
    [TUNE_LOG_SOFTMAX] = "log_softmax",
    [TUNE_LOG_SUM_EXP] = "log_sum_exp",
    [TUNE_SOFTMAX_BACKWARD] = "softmax_backward",
    [TUNE_LOG_SOFTMAX_BACKWARD] = "log_softmax_backward",
    [TUNE_CROSS_ENTROPY] = "cross_entropy",
    [TUNE_BINARY_CROSS_ENTROPY] = "binary_cross_entropy",
    [TUNE_SIGMOID_FOCAL] = "sigmoid_focal",
    [TUNE_WEIGHTED_SUM] = "weighted_sum",
    [TUNE_WEIGHTED_LOG_SUM_EXP] = "weighted_log_sum_exp",
};

/* By ballast_dtype: those of tensors come before BALLAST_I32. Gaps have no kernels. */
static const struct {
    const char *name;
    unsigned bytes;
} dtypes[BALLAST_I32] = {
    [BALLAST_F32] = {"f32", sizeof(float)},
    [BALLAST_F64] = {"f64", sizeof(double)},
    [BALLAST_BF16] = {"bf16", sizeof(uint16_t)},
    [BALLAST_F16] = {"f16", sizeof(uint16_t)},
};

enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

/* ---- Classes of shapes ----------------------------------------------------------------------- */

/* Where kernels and memory change their ways. */
enum {
    LAST_SHORT = 255,   /* classes of rows that go sixteen at once, in tiles */
    LAST_MEDIUM = 8192, /* of rows whose exponentials wait in L1 and L2 */
    LAST_FEW = 15       /* rows, fewer than a tile */
};

static const struct {
    const char *name;
    const char *classes[PART_CLASSES];
} shape_parts[SHAPE_PARTS] = {
    {"classes", {"short", "medium", "long"}}, /* to 255, to 8192, more */
    {"data", {"L2", "cache", "memory"}},      /* a working set in L2, what counts of the last, neither */
    {"rows", {"one", "few", "many"}},         /* 1, to 15, more */
};

/* How far neighbouring classes of each part are from each other, for a shape without a choice of
 * its own: where data lie says most about a choice, and how many rows there are least. */
static const int part_distance[SHAPE_PARTS] = {2, 4, 1};

/* ---- Choices and candidates ------------------------------------------------------------------ */

#define NUMBER(n) {#n, n}
#define LAST {NULL, 0}

/* No bit: every implementation gives the same, which the golden hashes hold. The default is what
 * implementation.c says: the fastest that runs. */
static const candidate isas[] = {
    {"default", -1},
    {"scalar", BALLAST__SCALAR},
    {"neon", BALLAST__NEON},
    {"avx2", BALLAST__AVX2},
    {"avx512", BALLAST__AVX512},
    LAST,
};

/* No bit: the same values reach the same addresses, by other instructions (tests/streaming.c).
 * By default what a core counts on of the last cache: lines that would leave it before they are
 * read again need not enter it. */
static const candidate stream_bytes[] = {
    {"default", 0},     {"always", 0},     NUMBER(262144),    NUMBER(524288),
    NUMBER(1048576),    NUMBER(2097152),   NUMBER(4194304),   NUMBER(8388608),
    NUMBER(16777216),   NUMBER(33554432),  NUMBER(67108864),  NUMBER(134217728),
    NUMBER(268435456),  NUMBER(536870912), {"never", INT64_MAX},
    LAST,
};

/* No bit: tasks are cut at rows, and where rows are summed at leaves, whose boundaries follow
 * from the number of rows alone. By default 15 to 20 us for each of two threads: waking one takes 5 us
 * (Zen 3) to 15 us (Zen 5, both virtual), and its share of the data comes from another core's cache. */
static const candidate task_cycles[] = {
    {"default", 60000}, NUMBER(7500),   NUMBER(15000),  NUMBER(30000),
    NUMBER(120000),     NUMBER(240000), NUMBER(480000), LAST,
};

/* No bit: as above. By default enough for threads to even out, few enough to hand out: half a task is
 * lost at the end, and one more costs pthreadpool 10 ns. */
static const candidate tasks_per_thread[] = {
    {"default", 16}, NUMBER(1), NUMBER(2), NUMBER(4), NUMBER(8), NUMBER(32), LAST,
};

/* No bit: a row's sum is that of its chunks in index order, whoever computes them. By default, a
 * row of fewer chunks is not worth two rounds of tasks. */
static const candidate least_shared_chunks[] = {
    {"default", 4}, NUMBER(2), NUMBER(8), NUMBER(16), NUMBER(32), NUMBER(64), {"never", INT64_MAX},
    LAST,
};

/* No bit: short rows are computed sixteen at once, or one after the other as long ones are, to the
 * same sum. The default is that of the kernels, measured for each ISA. */
static const candidate tile_classes[] = {
    {"default", 0}, {"none", -1},  NUMBER(32),  NUMBER(48),  NUMBER(64), NUMBER(96),
    NUMBER(128),    NUMBER(160),   NUMBER(192), NUMBER(224), NUMBER(255), LAST,
};

/* No bit: an exponential computed again is the same. By default they wait in the output, as far as can be. */
static const candidate kept_chunks[] = {
    {"default", 0}, {"none", 1}, NUMBER(8), NUMBER(16), NUMBER(32), NUMBER(64), NUMBER(128), LAST,
};

static const struct {
    const char *name;
    const candidate *candidates;
} choices[] = {
    [CHOOSE_ISA] = {"isa", isas},
    [CHOOSE_STREAM] = {"stream", stream_bytes},
    [CHOOSE_TASK] = {"task_cycles", task_cycles},
    [CHOOSE_TASKS] = {"tasks_per_thread", tasks_per_thread},
    [CHOOSE_SHARE] = {"share_from_chunks", least_shared_chunks},
    [CHOOSE_TILES] = {"tile_classes", tile_classes},
    [CHOOSE_KEPT] = {"kept_chunks", kept_chunks},
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
_Static_assert(COUNT(operations) == TUNED_OPERATIONS, "every operation has a name");
_Static_assert(COUNT(choices) == CHOICES && CHOICES * CHOICE_BITS <= 32, "choices fit in a word");
#define FITS(candidates) (COUNT(candidates) - 1 <= (size_t)1 << CHOICE_BITS)
_Static_assert(FITS(isas) && FITS(stream_bytes) && FITS(task_cycles) && FITS(tasks_per_thread) &&
                   FITS(least_shared_chunks) && FITS(tile_classes) && FITS(kept_chunks),
               "and so do candidates");

/* ---- What CPUs are like ---------------------------------------------------------------------- */

/* No choices of a profile: what follows from how fast a core is beside its memory. One for each family that
 * was measured to want something else than the first, which suits the kernels. */
typedef struct cpu_habits {
    const char *vendor;
    uint32_t family;
    /* 0: 1024 elements, into L2. On Intel's Emerald Rapids twice and four times as far took 1.00 to 1.04
     * of the time; on Zen 5, whose arithmetic is as fast as memory, 4096 into L1 take 0.68 to 0.86
     * (cross-entropy out of cache, 256 to 8192 classes, the gradient apart, in place or none; 131072,
     * apart: 1.0), into L2 0.75 to 1.0. */
    fetching fetch;
    /* Whether losses of sigmoids, too, stream what lies beyond the cache by default: where their arithmetic
     * takes less time than the lines that are fetched to be overwritten. Zen 5: 0.86 of the time for binary
     * cross-entropy; before it, arithmetic hid the lines (Zen 3: 1.03). */
    bool sigmoids_stream;
    /* Up to how many classes short rows that are no whole lines go sixteen at once, if the kernels do not say
     * less. On Zen 5, in L2, rows of one chunk take 0.85 to 0.96 of the time of 255 classes, but more than
     * tiles of 224 and 240, which are whole lines. */
    int64_t split_tile_classes;
    /* The same of whole lines that are streamed, but for log-softmax. Zen 5: 0.83 to 0.96 at 144 and 160. */
    int64_t streamed_line_classes;
    /* The same of many rows that stay rows and are not streamed, if it is more. Zen 5: 0.75 to 0.91 from 217 on. */
    int64_t row_tile_classes;
} cpu_habits;

static const cpu_habits cpus[] = {
    {"", 0, {0, 0}, false, INT64_MAX, INT64_MAX, 0},
    {"AuthenticAMD", 26, {4096, 1}, true, 216, 128, 256}, /* Zen 5 */
};

/* ---- The data, by number --------------------------------------------------------------------- */

const char *ballast__tuned_operation_name(int operation)
{
    return operation < TUNED_OPERATIONS ? operations[operation] : NULL;
}

const char *ballast__tuned_dtype_name(int dtype)
{
    if (dtype >= (int)DTYPES)
        return NULL;
    return dtypes[dtype].name ? dtypes[dtype].name : "";
}

const char *ballast__shape_part(int part)
{
    return part < SHAPE_PARTS ? shape_parts[part].name : NULL;
}

const char *ballast__shape_class_name(int part, int shape_class)
{
    return shape_class < PART_CLASSES ? shape_parts[part].classes[shape_class] : NULL;
}

const char *ballast__choice_name(int which) { return which < CHOICES ? choices[which].name : NULL; }

const candidate *ballast__candidate(int which, int index)
{
    const candidate *c = &choices[which].candidates[index];

    return c->name ? c : NULL;
}

/* ---- What is in force ------------------------------------------------------------------------ */

/* Of the CPU. May be read before they are written by a thread whose first call races another's:
 * 0, a matter of speed only. */
static _Atomic uint64_t l2_bytes, counted_bytes;
static _Atomic(const cpu_habits *) habits = &cpus[0];
static atomic_bool rounds_bf16;

static atomic_bool any; /* word other than 0 */
static _Atomic uint32_t words[TUNED_OPERATIONS][DTYPES][SHAPE_CLASSES]; /* 0: the defaults */

/* Of most servers where CPUID does not say. */
void ballast__tuning_begin(const ballast__cpu *cpu)
{
    const uint64_t usual_l2 = UINT64_C(1) << 20;
    const uint64_t l2 = cpu->cache[1] ? cpu->cache[1] : usual_l2;
    uint64_t last = 0;

    for (int i = 0; i < BALLAST__CPU_CACHE_LEVELS; i++)
        if (cpu->cache[i] > last)
            last = cpu->cache[i];
    if (last == 0 || last > COUNTED_CACHE)
        last = COUNTED_CACHE;
    for (int i = 1; i < (int)COUNT(cpus); i++)
        if (cpu->family == cpus[i].family && strcmp(cpu->vendor, cpus[i].vendor) == 0)
            atomic_store_explicit(&habits, &cpus[i], memory_order_relaxed);
    atomic_store_explicit(&rounds_bf16, (cpu->features & BALLAST__CPU_AVX512_BF16) != 0, memory_order_relaxed);
    atomic_store_explicit(&l2_bytes, l2, memory_order_relaxed);
    atomic_store_explicit(&counted_bytes, last, memory_order_relaxed);
}

static bool streams_by_default(tuned_operation operation, bool beyond_cache)
{
    const bool sigmoid = operation == TUNE_BINARY_CROSS_ENTROPY || operation == TUNE_SIGMOID_FOCAL;

    return beyond_cache &&
           (!sigmoid || atomic_load_explicit(&habits, memory_order_relaxed)->sigmoids_stream);
}

fetching ballast__fetching(void)
{
    return atomic_load_explicit(&habits, memory_order_relaxed)->fetch;
}

const storage_format *ballast__format(const kernel_table *kernels)
{
    return atomic_load_explicit(&rounds_bf16, memory_order_relaxed) ? kernels->cpu_format : kernels->format;
}

int64_t ballast__split_tile_classes(void)
{
    return atomic_load_explicit(&habits, memory_order_relaxed)->split_tile_classes;
}

int64_t ballast__cpu_row_tile_classes(void)
{
    return atomic_load_explicit(&habits, memory_order_relaxed)->row_tile_classes;
}

int64_t ballast__streamed_line_classes(void)
{
    return atomic_load_explicit(&habits, memory_order_relaxed)->streamed_line_classes;
}

/* No array has 2^60 elements (arguments.c), and none has more than eight bytes. */
static uint64_t working_set(ballast_dtype dtype, int64_t rows, int64_t classes)
{
    return UINT64_C(2) * dtypes[dtype].bytes * ((uint64_t)rows * (uint64_t)classes);
}

typedef struct extent {
    int shape;
    bool beyond_cache;
    uint64_t bytes;
} extent;

static inline extent extent_of(ballast_dtype dtype, int64_t rows, int64_t classes)
{
    const uint64_t bytes = working_set(dtype, rows, classes);
    const bool beyond_l2 = bytes > atomic_load_explicit(&l2_bytes, memory_order_relaxed);
    const bool beyond_cache = bytes > atomic_load_explicit(&counted_bytes, memory_order_relaxed);
    const int width = (classes > LAST_SHORT) + (classes > LAST_MEDIUM);
    const int data = beyond_cache ? 2 : beyond_l2;
    const int height = (rows > 1) + (rows > LAST_FEW);

    return (extent){(width * PART_CLASSES + data) * PART_CLASSES + height, beyond_cache, bytes};
}

tuned_case ballast__tuned_case(tuned_operation operation, ballast_dtype dtype, int64_t rows,
                               int64_t classes)
{
    return (tuned_case){operation, dtype, extent_of(dtype, rows, classes).shape};
}

uint64_t ballast__data_bytes(int data_class)
{
    return atomic_load_explicit(data_class == 0 ? &l2_bytes : &counted_bytes,
                                memory_order_relaxed);
}

static unsigned index_of(uint32_t word, choice_kind which)
{
    return word >> (CHOICE_BITS * (unsigned)which) & ((1u << CHOICE_BITS) - 1);
}

int64_t ballast__chosen(tuning t, choice_kind which)
{
    return choices[which].candidates[index_of(t.word, which)].value;
}

tuning ballast__tuning_of(tuned_operation operation, ballast_dtype dtype, int64_t rows,
                          int64_t classes)
{
    const uint64_t last = atomic_load_explicit(&counted_bytes, memory_order_relaxed);

    /* Without a profile there is no class to find. */
    if (!atomic_load_explicit(&any, memory_order_relaxed))
        return (tuning){0, streams_by_default(operation, working_set(dtype, rows, classes) > last)};
    const extent e = extent_of(dtype, rows, classes);
    const uint32_t word =
        atomic_load_explicit(&words[operation][dtype][e.shape], memory_order_relaxed);
    const unsigned stream = index_of(word, CHOOSE_STREAM);

    return (tuning){word, stream ? e.bytes > (uint64_t)stream_bytes[stream].value
                                 : streams_by_default(operation, e.beyond_cache)};
}

/* ---- Replacing it ---------------------------------------------------------------------------- */

static int distance(int a, int b)
{
    int sum = 0;

    for (int part = SHAPE_PARTS - 1; part >= 0; part--) {
        sum += part_distance[part] * abs(a % PART_CLASSES - b % PART_CLASSES);
        a /= PART_CLASSES;
        b /= PART_CLASSES;
    }
    return sum;
}

/* For each shape of a case's operation and dtype, how far away its choices were made. */
typedef struct map {
    uint32_t words[TUNED_OPERATIONS][DTYPES][SHAPE_CLASSES];
    unsigned char from[TUNED_OPERATIONS][DTYPES][SHAPE_CLASSES][CHOICES]; /* 0: nowhere yet */
} map;

/* Of two as near, the one that was there first stays. */
static void spread(map *m, const tuned_choice *c)
{
    const unsigned shift = CHOICE_BITS * (unsigned)c->which;
    const uint32_t mask = ((1u << CHOICE_BITS) - 1) << shift;

    for (int shape = 0; shape < SHAPE_CLASSES; shape++) {
        uint32_t *word = &m->words[c->where.operation][c->where.dtype][shape];
        unsigned char *from = &m->from[c->where.operation][c->where.dtype][shape][c->which];
        const int away = 1 + distance(shape, c->where.shape);

        if (*from == 0 || away < *from) {
            *from = (unsigned char)away;
            *word = (*word & ~mask) | (uint32_t)c->candidate << shift;
        }
    }
}

void ballast__tuning_replace(int count, tuned_choice (*at)(const void *context, int index),
                             const void *context)
{
    static map m; /* not on the stack of a host's thread */

    memset(&m, 0, sizeof m);
    for (int i = 0; i < count; i++) {
        const tuned_choice c = at(context, i);

        spread(&m, &c);
    }
    atomic_store_explicit(&any, count > 0, memory_order_relaxed);
    for (int o = 0; o < TUNED_OPERATIONS; o++)
        for (int d = 0; d < (int)DTYPES; d++)
            for (int s = 0; s < SHAPE_CLASSES; s++)
                atomic_store_explicit(&words[o][d][s], m.words[o][d][s], memory_order_relaxed);
}
