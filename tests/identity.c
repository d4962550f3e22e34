/* SPDX-License-Identifier: MIT */
/* The same bits: every implementation against scalar, over widths, chunks, misalignments, strides,
 * in place, choices of outputs, splits of the rows and options.
 *
 *   identity [--isa NAME]
 *
 * Every claim takes the scalar implementation's results of the plain problem, serial and with all
 * outputs, and compares those of another implementation, or of another way to run the same numbers.
 * Implementations that this CPU or library lacks are skipped by name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../bench/cases.h"
#include "../bench/threads.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- One comparison -------------------------------------------------------------------------- */

typedef struct subject {
    const char *name; /* of the implementation */
    const ballast_implementation *implementation;
} subject;

static const ballast_implementation *scalar(void) { return ballast_implementation_find("scalar"); }

static void complain(const problem *p, const char *claim, const subject *s)
{
    char text[PROBLEM_TEXT];

    print_error("%s: %s: bits equal to scalar on %s ... FAILED\n", p->operation->name, claim,
                s->name);
    print_error("  run again: ballast check '%s' --isa %s\n", problem_format(p, text, sizeof text),
                s->name);
}

static void expect_ok(const problem *p, const char *claim, const subject *s, ballast_status status)
{
    if (status == BALLAST_OK)
        return;
    complain(p, claim, s);
    fail_msg("  %s", ballast_status_name(status));
}

static void expect_equal(const problem *p, const char *claim, const subject *s,
                         const case_results *want, const case_results *got)
{
    case_difference d;
    char place[64];

    if (case_stray_write(got)) {
        complain(p, claim, s);
        fail_msg("  wrote beside the rows of %s", case_stray_write(got));
    }
    if (case_equal(want, got, &d))
        return;
    complain(p, claim, s);
    fail_msg("  first difference at %s: scalar %s, %s %s", case_place(&d, place, sizeof place), d.a,
             s->name, d.b);
}

/* Runs c as it stands on the subject. */
static void expect_same(const case_data *c, const char *claim, const subject *s,
                        const ballast_parallel *parallel, const case_results *want)
{
    case_results got;

    case_results_make(c, &got);
    expect_ok(&c->p, claim, s, case_run(c, s->implementation, parallel, &got));
    expect_equal(&c->p, claim, s, want, &got);
    case_results_free(&got);
}

/* The plain problem, and what scalar makes of it. */
typedef struct base {
    case_data c;
    case_results want;
} base;

static int is_supported(const problem *p, const subject *s)
{
    static int f64 = -1;
    problem q = *p;
    base b;

    if (p->dtype != BALLAST_F64)
        return 1;
    if (strcmp(s->name, "scalar") != 0) /* f64 has one implementation */
        return 0;
    if (f64 < 0 && problem_parse("softmax:f64:rows=1,classes=1", &q, NULL, 0)) {
        case_make(&q, &b.c);
        case_results_make(&b.c, &b.want);
        f64 = case_run(&b.c, scalar(), NULL, &b.want) != BALLAST_ERR_UNSUPPORTED;
        case_results_free(&b.want);
        case_free(&b.c);
    }
    return f64;
}

static base make_base(const problem *p, const char *claim, const subject *s)
{
    base b;

    case_make(p, &b.c);
    b.c.p.inplace = b.c.p.pieces = 0;
    case_results_make(&b.c, &b.want);
    expect_ok(p, claim, s, case_run(&b.c, scalar(), NULL, &b.want));
    b.c.p = *p;
    return b;
}

static void free_base(base *b)
{
    case_results_free(&b->want);
    case_free(&b->c);
}

/* ---- Problems -------------------------------------------------------------------------------- */

typedef void visit_function(const problem *p, const char *claim, const subject *s);

__attribute__((format(printf, 3, 4))) static int parse(problem *p, const char *what,
                                                       const char *format, ...)
{
    char text[PROBLEM_TEXT], message[PROBLEM_TEXT];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (!problem_parse(text, p, message, sizeof message))
        fail_msg("%s: %s: %s", what, text, message);
    return 1;
}

/* Every operation in every variant, with `matrix` for the shape of matrices and `vector` for that
 * of vectors; NULL: not these. At most `variants` of each. */
static void each_variant(ballast_dtype dtype, const char *matrix, const char *vector, int variants,
                         visit_function *visit, const char *claim, const subject *s)
{
    for (int i = 0; operation_at(i); i++) {
        const operation *op = operation_at(i);
        const char *shape = op->keys & KEY(KEY_COUNT) ? vector : matrix;
        problem p;

        if (!operation_has_dtype(op, dtype))
            continue;
        for (int v = 0; shape && v < variants && op->variants[v]; v++)
            if (parse(&p, claim, "%s:%s:%s,%s", op->name, problem_dtype_name(dtype), shape,
                      op->variants[v])
                && is_supported(&p, s))
                visit(&p, claim, s);
    }
}

enum { ALL_VARIANTS = 100 };

static void each_operation(const char *matrix, const char *vector, int variants,
                           visit_function *visit, const char *claim, const subject *s)
{
    each_variant(BALLAST_F32, matrix, vector, variants, visit, claim, s);
    each_variant(BALLAST_F64, matrix, vector, variants, visit, claim, s);
}

static int is_matrix(const problem *p) { return (p->operation->keys & KEY(KEY_STRIDE)) != 0; }

/* ---- Claims: the same numbers, computed by the subject --------------------------------------- */

static void expect_as_is(const problem *p, const char *claim, const subject *s)
{
    base b = make_base(p, claim, s);

    expect_same(&b.c, claim, s, NULL, &b.want);
    free_base(&b);
}

/* Against the plain layout: rows apart, all arrays off by some elements. */
static void expect_anywhere(const problem *p, const char *claim, const subject *s)
{
    base b = make_base(p, claim, s);
    problem q = *p;
    case_data moved;

    q.offset = (p->classes + p->rows) % 16;
    if (is_matrix(p))
        q.stride = p->classes + 1 + p->classes % 7;
    case_make(&q, &moved);
    expect_same(&moved, claim, s, NULL, &b.want);
    case_free(&moved);
    free_base(&b);
}

static void expect_at_every_offset(const problem *p, const char *claim, const subject *s)
{
    base b = make_base(p, claim, s);

    for (int64_t offset = 0; offset < 16; offset++) {
        problem q = *p;
        case_data moved;

        q.offset = offset;
        if (is_matrix(p))
            q.stride = p->classes + offset;
        case_make(&q, &moved);
        expect_same(&moved, claim, s, NULL, &b.want);
        case_free(&moved);
    }
    free_base(&b);
}

/* Rows side by side and classes in planes, with and without gaps. */
static void expect_in_planes(const problem *p, const char *claim, const subject *s)
{
    if (!(p->operation->keys & KEY(KEY_INNER))
        || (p->operation->keys & KEY(KEY_KIND) && p->kind != BALLAST_CB_SOFTMAX))
        return;
    base b = make_base(p, claim, s);

    for (int64_t inner = 1; inner <= p->rows; inner++) {
        problem q = *p;
        case_data moved;

        if (p->rows % inner)
            continue;
        q.offset = (p->classes + inner) % 16;
        q.inner = inner;
        q.class_stride = inner + 1 + p->classes % 3;
        q.stride = p->classes * q.class_stride + inner % 5;
        case_make(&q, &moved);
        expect_same(&moved, claim, s, NULL, &b.want);
        moved.p.inplace = p->operation->keys & KEY(KEY_INPLACE) ? 1 : 0;
        moved.p.pieces = 1;
        expect_same(&moved, claim, s, NULL, &b.want);
        case_free(&moved);
    }
    free_base(&b);
}

static void expect_in_place(const problem *p, const char *claim, const subject *s)
{
    if (!(p->operation->keys & KEY(KEY_INPLACE)))
        return;
    base b = make_base(p, claim, s);

    for (int64_t inplace = 0; inplace < 3; inplace++) {
        b.c.p.inplace = inplace;
        if (inplace < 2 || b.c.in[IN_GRAD].data)
            expect_same(&b.c, claim, s, NULL, &b.want);
    }
    free_base(&b);
}

static void expect_every_subset(const problem *p, const char *claim, const subject *s)
{
    if (!(p->operation->keys & KEY(KEY_OUTPUTS)))
        return;
    base b = make_base(p, claim, s);
    const unsigned all = problem_outputs(p);

    for (unsigned subset = 1; subset <= all; subset++) {
        b.c.p.outputs = subset;
        if ((subset & ~all) == 0 && problem_outputs(&b.c.p))
            expect_same(&b.c, claim, s, NULL, &b.want);
    }
    free_base(&b);
}

/* A row of a batch, and batches that begin and end inside it. Means have another denominator there,
 * so that the reduction is a sum. */
static void expect_rows_alone(const problem *p, const char *claim, const subject *s)
{
    problem q = *p;

    if (!is_matrix(p))
        return;
    if (q.reduction == BALLAST_MEAN && q.operation->keys & KEY(KEY_REDUCTION))
        q.reduction = BALLAST_SUM;
    base b = make_base(&q, claim, s);
    for (int64_t begin = 0; begin < q.rows; begin++) {
        const int64_t end = begin % 3 == 2 && begin + 5 < q.rows ? begin + 5 : begin + 1;
        case_results want;
        case_data part;

        case_rows(&b.c, begin, end, &part);
        case_results_rows(&b.want, begin, end, &want);
        expect_same(&part, claim, s, NULL, &want);
    }
    free_base(&b);
}

/* All tasks on the caller, last first: a host may do that. */
static void run_backwards(void *context, int64_t tasks, void (*task)(void *arg, int64_t index),
                          void *arg)
{
    (void)context;
    while (tasks > 0)
        task(arg, --tasks);
}

/* By one to three threads, by tasks in another order, and in the three pieces of a call. */
static void expect_split(const problem *p, const char *claim, const subject *s)
{
    const ballast_parallel backwards = {NULL, run_backwards, 5};
    base b = make_base(p, claim, s);

    for (int64_t threads = 1; threads <= 3; threads++) {
        const ballast_parallel parallel = threads_to_lend(threads);

        b.c.p.threads = threads;
        expect_same(&b.c, claim, s, &parallel, &b.want);
    }
    expect_same(&b.c, claim, s, &backwards, &b.want);
    b.c.p.threads = p->threads;
    b.c.p.pieces = 1;
    expect_same(&b.c, claim, s, NULL, &b.want);
    free_base(&b);
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static const subject *subject_of(void **state)
{
    static subject s;
    char reason[128] = "not in this library";

    s.name = *state;
    s.implementation = ballast_implementation_find(s.name);
    if (!s.implementation
        || !ballast_implementation_supported(s.implementation, reason, sizeof reason)) {
        print_message("%s: skipped, %s\n", s.name, reason);
        skip();
    }
    return &s;
}

static void test_widths(void **state)
{
    const subject *s = subject_of(state);

    for (int width = 0; width < 260; width++) {
        char matrix[64], vector[64];

        snprintf(matrix, sizeof matrix, "rows=3,classes=%d", width);
        snprintf(vector, sizeof vector, "count=%d", width);
        each_operation(matrix, vector, ALL_VARIANTS, expect_anywhere, "widths", s);
    }
}

static void test_chunks(void **state)
{
    static const int widths[] = {2047, 2048, 2049, 4095, 4096, 4097, 6145};
    static const int long_widths[] = {262143, 262144, 262145};
    const subject *s = subject_of(state);
    char matrix[64];

    for (int i = 0; i < 7; i++) {
        snprintf(matrix, sizeof matrix, "rows=2,classes=%d,inputs=confident", widths[i]);
        each_operation(matrix, NULL, ALL_VARIANTS, expect_anywhere, "chunks", s);
    }
    for (int i = 0; i < 3; i++) {
        snprintf(matrix, sizeof matrix, "rows=1,classes=%d", long_widths[i]);
        each_operation(matrix, NULL, 1, expect_anywhere, "long rows", s);
        each_operation(matrix, NULL, 1, expect_in_place, "long rows in place", s);
    }
}

static void test_row_counts(void **state)
{
    static const int counts[] = {0, 1, 15, 16, 17, 31, 33, 100, 16384, 16385, 40000};
    const subject *s = subject_of(state);
    char matrix[64];

    for (int i = 0; i < 11; i++) {
        snprintf(matrix, sizeof matrix, "rows=%d,classes=5", counts[i]);
        each_operation(matrix, NULL, ALL_VARIANTS, expect_as_is, "row counts", s);
    }
}

static void test_vector_sizes(void **state)
{
    static const int sizes[] = {4096, 8192, 65536, 4096 * 1023, 4096 * 1024, 4096 * 1025};
    const subject *s = subject_of(state);
    char vector[64];

    for (int i = 0; i < 6; i++)
        for (int off = -1; off <= 1; off++) {
            snprintf(vector, sizeof vector, "count=%d", sizes[i] + off);
            each_operation(NULL, vector, sizes[i] > 100000 ? 2 : ALL_VARIANTS, expect_as_is,
                           "vector sizes", s);
        }
}

static void test_offsets(void **state)
{
    const subject *s = subject_of(state);

    each_operation("rows=2,classes=17", "count=300", ALL_VARIANTS, expect_at_every_offset,
                   "misaligned", s);
    each_operation("rows=2,classes=300", "count=5000", ALL_VARIANTS, expect_at_every_offset,
                   "misaligned", s);
    each_operation("rows=2,classes=2050", "count=4097", 2, expect_at_every_offset, "misaligned", s);
}

static void test_planes(void **state)
{
    static const char *const shapes[] = {
        "rows=12,classes=1", "rows=24,classes=21", "rows=150,classes=10",
        "rows=36,classes=130,inputs=mixed_specials", "rows=48,classes=257,inputs=confident",
        "rows=8,classes=1025", "rows=6,classes=2049,inputs=offset1e30",
        "rows=6,classes=4100,inputs=mixed_specials", "rows=0,classes=5"};
    const subject *s = subject_of(state);

    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        each_operation(shapes[i], NULL, ALL_VARIANTS, expect_in_planes, "planes", s);
}

/* Every kind of inputs with every variant. */
static void test_inputs(void **state)
{
    static const char *const kinds[] = {"normal", "uniform", "confident", "offset1e4", "offset1e30",
                                        "masked", "equal", "exponents", "patterns",
                                        "mixed_specials"};
    const subject *s = subject_of(state);
    char matrix[128], vector[128];

    for (int i = 0; i < INPUTS_KINDS; i++)
        for (int seed = 0; seed < 16; seed++) {
            snprintf(matrix, sizeof matrix, "rows=%d,classes=%d,seed=%d,inputs=%s", 9 + seed,
                     1 + 37 * seed, seed, kinds[i]);
            snprintf(vector, sizeof vector, "count=%d,seed=%d,inputs=%s", 1 + 613 * seed, seed,
                     kinds[i]);
            each_operation(matrix, vector, ALL_VARIANTS, expect_as_is, kinds[i], s);
        }
}

static void test_in_place(void **state)
{
    const subject *s = subject_of(state);

    each_operation("rows=5,classes=77", NULL, ALL_VARIANTS, expect_in_place, "in place", s);
    each_operation("rows=2,classes=4099", NULL, ALL_VARIANTS, expect_in_place, "in place", s);
    each_operation("rows=9,classes=77,inputs=mixed_specials", NULL, ALL_VARIANTS, expect_in_place,
                   "in place", s);
}

static void test_subsets(void **state)
{
    const subject *s = subject_of(state);

    each_operation("rows=40,classes=77", NULL, ALL_VARIANTS, expect_every_subset, "outputs",
                   s);
    each_operation("rows=2,classes=4099", NULL, ALL_VARIANTS, expect_every_subset, "outputs", s);
    each_operation("rows=16,classes=50,inputs=mixed_specials", NULL, ALL_VARIANTS,
                   expect_every_subset, "outputs", s);
}

static void test_rows_alone(void **state)
{
    const subject *s = subject_of(state);

    each_operation("rows=37,classes=19", NULL, ALL_VARIANTS, expect_rows_alone, "rows alone", s);
    each_operation("rows=7,classes=2100,inputs=confident", NULL, ALL_VARIANTS, expect_rows_alone,
                   "rows alone", s);
    each_operation("rows=24,classes=40,inputs=mixed_specials", NULL, ALL_VARIANTS,
                   expect_rows_alone, "rows alone", s);
}

static void test_splits(void **state)
{
    const subject *s = subject_of(state);

    each_operation("rows=3001,classes=100", "count=1000003", ALL_VARIANTS, expect_split, "split", s);
    each_operation("rows=40000,classes=3", "count=5000001", 2, expect_split, "split", s);
    each_operation("rows=2,classes=70001", NULL, 3, expect_split, "sharing rows", s);
}

/* tests/storage.c compares results of 16 bits with those of f32, of which all the tests above are. Here
 * are the ways of rows to f32 and back: some at a time, by chunks, and as planes. */
static void test_half(void **state)
{
    static const char *const matrices[] = {
        "rows=37,classes=19,inputs=mixed_specials", "rows=20,classes=300",
        "rows=3,classes=4099,inputs=confident"};
    static const char *const planes[] = {"rows=96,classes=21", "rows=36,classes=300",
                                         "rows=16,classes=4099,inputs=mixed_specials"};
    static visit_function *const claims[] = {expect_anywhere, expect_in_place, expect_every_subset,
                                             expect_rows_alone, expect_split};
    const subject *s = subject_of(state);

    for (int c = 0; c < 5; c++)
        for (int i = 0; i < 3; i++)
            each_variant(BALLAST_BF16, matrices[i], "count=5000", ALL_VARIANTS, claims[c], "bf16", s);
    for (int i = 0; i < 3; i++)
        each_variant(BALLAST_BF16, planes[i], NULL, 2, expect_in_planes, "bf16 in planes", s);
    each_variant(BALLAST_F16, matrices[0], "count=5000", ALL_VARIANTS, expect_anywhere, "f16", s);
    each_variant(BALLAST_BF16, "rows=3001,classes=100", "count=1000003", 2, expect_split, "bf16", s);
    each_variant(BALLAST_BF16, "rows=2,classes=70001", NULL, 3, expect_split,
                 "bf16, sharing rows", s);
}

/* ---- Main ------------------------------------------------------------------------------------ */

/* As it is, scalar is what all are compared with: there it could not fail. */
static const struct {
    const char *name;
    void (*run)(void **state);
    int is_as_is;
} tests[] = {
    {"widths", test_widths, 0},         {"chunks", test_chunks, 0},
    {"row counts", test_row_counts, 1}, {"vector sizes", test_vector_sizes, 1},
    {"offsets", test_offsets, 0},       {"planes", test_planes, 0},
    {"inputs", test_inputs, 1},         {"half", test_half, 0},
    {"in place", test_in_place, 0},     {"outputs", test_subsets, 0},
    {"rows alone", test_rows_alone, 0}, {"splits", test_splits, 0},
};

enum { TESTS = sizeof tests / sizeof tests[0], ISAS = 4 };

int main(int argc, char **argv)
{
    static char isas[ISAS][8] = {"scalar", "avx2", "avx512", "neon"};
    static char names[ISAS * TESTS][64];
    static struct CMUnitTest list[ISAS * TESTS];
    const char *only = argc == 3 && strcmp(argv[1], "--isa") == 0 ? argv[2] : NULL;
    size_t count = 0;

    if (argc > 1 && !only) {
        puts("usage: identity [--isa NAME]");
        return 2;
    }
    for (int i = 0; i < ISAS; i++)
        for (int t = 0; t < (int)TESTS && (!only || strcmp(only, isas[i]) == 0); t++) {
            if (i == 0 && tests[t].is_as_is)
                continue;
            snprintf(names[count], sizeof names[count], "%s: %s", isas[i], tests[t].name);
            list[count].name = names[count];
            list[count].test_func = tests[t].run;
            list[count].initial_state = isas[i];
            count++;
        }
    return _cmocka_run_group_tests("identity", list, count, NULL, NULL);
}
