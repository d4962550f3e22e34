/* SPDX-License-Identifier: MIT */
/* The data come first: which problems stand for which class of shapes. */
#include "tune_cases.h"

#include "../bench/arrays.h"
#include "../dispatch/profile.h"
#include "../dispatch/text.h"
#include "caches.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- Operations, in the order in which they are measured ------------------------------------- */

#define CAN(choice) (1u << (choice))
#define GO_MORE_WAYS (CAN(CHOOSE_STREAM) | CAN(CHOOSE_TILES))
static const struct {
    tuned_operation operation;
    const char *options; /* of its problems */
    unsigned ways;       /* that its kernels can go: kernels/kernels.h */
} operations[] = {
    {TUNE_CROSS_ENTROPY, "", GO_MORE_WAYS | CAN(CHOOSE_KEPT)},
    {TUNE_SOFTMAX, "", GO_MORE_WAYS | CAN(CHOOSE_KEPT)},
    {TUNE_LOG_SOFTMAX, "", GO_MORE_WAYS},
    {TUNE_BINARY_CROSS_ENTROPY, ",targets=u8,outputs=loss+grad", CAN(CHOOSE_STREAM)},
    {TUNE_SIGMOID_FOCAL, ",targets=u8,outputs=loss+grad", CAN(CHOOSE_STREAM)},
    {TUNE_LOG_SUM_EXP, "", CAN(CHOOSE_TILES)},
    {TUNE_SOFTMAX_BACKWARD, "", 0},
    {TUNE_LOG_SOFTMAX_BACKWARD, "", 0},
    {TUNE_WEIGHTED_SUM, "", 0},
    {TUNE_WEIGHTED_LOG_SUM_EXP, "", 0},
};
enum { OPERATIONS = sizeof operations / sizeof operations[0] };
_Static_assert((int)OPERATIONS == (int)TUNED_OPERATIONS, "every operation is measured");

static const ballast_dtype dtypes[] = {BALLAST_F32, BALLAST_BF16, BALLAST_F16, BALLAST_F64};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

/* ---- Problems that stand for a class --------------------------------------------------------- */

enum { SHORT, MEDIUM, LONG };
enum { L2, CACHE, MEMORY, BETWEEN, GIVEN };
enum { ONE, FEW, MANY };

/* A problem's classes, and its rows: given, or so many that a matrix read and one written are
 * `share` times L2, the last cache, or what is in memory for certain. BETWEEN: where the library
 * takes the last cache for much larger or smaller than it is, what lies between the two sizes: in
 * the class of one side, and in truth on the other. */
typedef struct extent {
    int64_t classes;
    int of; /* GIVEN: `share` is the rows */
    double share;
} extent;

/* Where a class spans much, one problem stands near either end; what is not of the class on this
 * machine is left out. */
static const struct {
    int classes, data, rows;
    extent problems[TUNE_PROBLEMS];
} classes_of_shapes[] = {
    {SHORT, L2, MANY, {{10, L2, 0.5}, {100, L2, 0.5}, {200, L2, 0.5}}},
    {SHORT, CACHE, MANY, {{10, L2, 4.0}, {100, CACHE, 0.5}, {200, CACHE, 0.5}, {100, BETWEEN, 1.0}}},
    {SHORT, MEMORY, MANY, {{100, MEMORY, 1.0}, {200, MEMORY, 1.0}, {100, BETWEEN, 1.0}}},
    {SHORT, L2, FEW, {{100, GIVEN, 8}}},
    {SHORT, L2, ONE, {{100, GIVEN, 1}}},
    {MEDIUM, L2, MANY, {{1000, L2, 0.5}}},
    {MEDIUM, CACHE, MANY, {{1000, L2, 4.0}, {4096, CACHE, 0.5}, {1000, BETWEEN, 1.0}}},
    {MEDIUM, MEMORY, MANY, {{1000, MEMORY, 1.0}, {1000, BETWEEN, 1.0}}},
    {MEDIUM, L2, FEW, {{1000, GIVEN, 8}}},
    {MEDIUM, CACHE, FEW, {{8192, GIVEN, 12}}},
    {MEDIUM, L2, ONE, {{1000, GIVEN, 1}, {8192, GIVEN, 1}}},
    {LONG, L2, MANY, {{10000, L2, 0.75}}},
    {LONG, CACHE, MANY, {{32000, CACHE, 0.5}, {32000, BETWEEN, 1.0}}},
    {LONG, MEMORY, MANY, {{32000, MEMORY, 1.0}, {131072, MEMORY, 1.0},
                          {32000, BETWEEN, 1.0}, {131072, BETWEEN, 1.0}}},
    {LONG, L2, FEW, {{10000, GIVEN, 4}}},
    {LONG, CACHE, FEW, {{32000, GIVEN, 8}, {131072, GIVEN, 8}}},
    {LONG, L2, ONE, {{32000, GIVEN, 1}}},
    {LONG, CACHE, ONE, {{131072, GIVEN, 1}}},
};
enum { CLASSES_OF_SHAPES = sizeof classes_of_shapes / sizeof classes_of_shapes[0] };

/* Left out: few long rows out of cache, which are of millions of classes, and one such row. */

/* ---- Problems -------------------------------------------------------------------------------- */

static int shape_of(int i)
{
    return (classes_of_shapes[i].classes * PART_CLASSES + classes_of_shapes[i].data) *
               PART_CLASSES +
           classes_of_shapes[i].rows;
}

/* cache: the size of the last one, in truth. */
static double bytes_of(int of, int64_t cache)
{
    const int64_t taken = (int64_t)ballast__data_bytes(1);

    switch (of) {
    case L2:
        return (double)ballast__data_bytes(0);
    case CACHE:
        return fmin((double)cache, (double)taken);
    case MEMORY:
        return fmax(2.0 * (double)cache, 1.125 * (double)taken);
    default:
        return caches_differ(2 * cache, taken) && caches_differ(cache, 2 * taken)
                   ? sqrt((double)cache * (double)taken)
                   : 0.0;
    }
}

static int64_t rows_of(const extent *e, int64_t classes, ballast_dtype dtype, int64_t cache)
{
    if (e->of == GIVEN)
        return (int64_t)e->share;
    const int64_t row_bytes = 2 * classes * (int64_t)size_of(dtype);
    return (int64_t)(e->share * bytes_of(e->of, cache)) / row_bytes;
}

/* False where the sizes of this machine's caches make another class of it. */
static bool make_problem(const tuned_case *where, const char *options, const extent *e,
                         int64_t cache, tune_problem *out)
{
    const char *const name = ballast__tuned_operation_name((int)where->operation);
    const char *const dtype = ballast__tuned_dtype_name((int)where->dtype);
    const operation *const op = operation_find(name, strlen(name));
    if (e->classes == 0 || !op || !operation_has_dtype(op, where->dtype))
        return false;
    const bool is_vector = op->keys & KEY(KEY_COUNT);
    const int64_t classes = is_vector ? 1 : e->classes;
    const int64_t rows = rows_of(e, classes, where->dtype, cache);
    char message[PROBLEM_TEXT];

    if (rows < 1 ||
        ballast__tuned_case(where->operation, where->dtype, rows, classes).shape != where->shape)
        return false;
    if (is_vector)
        snprintf(out->text, sizeof out->text, "%s:%s:count=%" PRId64 "%s", name, dtype, rows,
                 options);
    else
        snprintf(out->text, sizeof out->text, "%s:%s:rows=%" PRId64 ",classes=%" PRId64 "%s", name,
                 dtype, rows, classes, options);
    return problem_parse(out->text, &out->p, message, sizeof message);
}

static void name_case(tune_case *c)
{
    text t = {c->name, sizeof c->name, 0};

    ballast__profile_format_case(&c->where, &t);
}

/* The f64 kernels go one way. Outputs of 16 bits are not streamed, and cannot keep exponentials. */
static unsigned ways_of(ballast_dtype dtype, int classes)
{
    const unsigned tiles = classes == SHORT ? CAN(CHOOSE_TILES) : 0;
    const unsigned kept = classes == LONG ? CAN(CHOOSE_KEPT) : 0;

    if (dtype == BALLAST_F64)
        return 0;
    return dtype == BALLAST_F32 ? CAN(CHOOSE_STREAM) | tiles | kept : tiles;
}

static bool make_case(tuned_case where, int op, int shape, int64_t cache, tune_case *out)
{
    *out = (tune_case){.where = where};
    out->ways = operations[op].ways & ways_of(where.dtype, classes_of_shapes[shape].classes);
    name_case(out);
    for (int i = 0; i < TUNE_PROBLEMS; i++)
        out->problem_count +=
            make_problem(&where, operations[op].options, &classes_of_shapes[shape].problems[i],
                         cache, &out->problems[out->problem_count]);
    return out->problem_count > 0;
}

bool tune_case_make(tuned_case where, int64_t cache, tune_case *out)
{
    for (int op = 0; op < OPERATIONS; op++)
        for (int i = 0; i < CLASSES_OF_SHAPES; i++)
            if (operations[op].operation == where.operation && shape_of(i) == where.shape)
                return make_case(where, op, i, cache, out);
    return false;
}

static bool is_wanted(const tune_case *c, const char *filter)
{
    bool found = !filter || strstr(c->name, filter);

    for (int i = 0; i < c->problem_count && !found; i++)
        found = strstr(c->problems[i].text, filter) != NULL;
    return found;
}

void tune_cases_make(const char *filter, int64_t cache, tune_cases *out)
{
    out->count = 0;
    for (int d = 0; d < DTYPES; d++)
        for (int op = 0; op < OPERATIONS; op++)
            for (int i = 0; i < CLASSES_OF_SHAPES && out->count < TUNE_CASES; i++) {
                const tuned_case where = {operations[op].operation, dtypes[d], shape_of(i)};
                tune_case *c = &out->cases[out->count];
                if (make_case(where, op, i, cache, c) && is_wanted(c, filter))
                    out->count++;
            }
}
