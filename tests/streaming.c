/* SPDX-License-Identifier: MIT */
/* What is written past the caches is what is written into them, rows that go one after the other are what
 * they are sixteen at once, and exponentials that are computed twice what they were, or waited anywhere: every
 * kernel gives the same bits either way for every width, alignment, stride and label, and nothing beside its
 * rows is touched: behind the arrays, at whose end every other matrix ends, is a page that nobody may read.
 * Problems of a test's size are never streamed by dispatch, so the kernels are called themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../dispatch/cpu.h"
#include "../kernels/kernels.h"

/* More rows where they are short: sixteen of them go at once, and several sixteens in a set. */
enum { LONG_ROWS = 7, ROWS = 150, SHORT = 270, MOST_CLASSES = 17000, PAD = 40, CASES = 3500, FILL = 0xa5 };
enum { ELEMENTS = LONG_ROWS * (MOST_CLASSES + PAD) + 2 * PAD, BYTES = ELEMENTS * sizeof(float) };
enum { PLANE_ROWS = 640, PLANE_CASES = 600, LEAVES = PLANE_ROWS / 16 }; /* of tensors whose classes are a plane apart */
_Static_assert(ELEMENTS * sizeof(uint16_t) % 64 == 0, "arrays that end with a page begin on a line");

static uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

static uint32_t below(uint32_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % n;
}

typedef struct shape {
    int64_t rows, classes, stride, out_stride, offset, out_offset;
    int64_t labels[ROWS];
    int in_place, is_weighted;
    enum target_kind targets; /* of losses of sigmoids */
    double gamma;
} shape;

/* Of a matrix of these rows: near the beginning of its array, or so that both end together. */
static int64_t any_offset(const shape *s, int64_t stride)
{
    return below(2) ? (int64_t)below(PAD) : ELEMENTS - ((s->rows - 1) * stride + s->classes);
}

static shape any_shape(void)
{
    static const uint32_t most[] = {20, SHORT, SHORT, 2100, 4200, 8300, MOST_CLASSES, MOST_CLASSES};
    shape s = {.classes = 1 + below(most[below(8)])};

    s.rows = 1 + below(s.classes < SHORT ? ROWS : LONG_ROWS);

    if (below(4) == 0 && s.classes > 64)
        s.classes &= -64;
    if (below(4) == 0 && s.classes > CHUNK) /* a few beyond whole chunks */
        s.classes = (s.classes & -CHUNK) + below(20);
    s.stride = s.classes + (int64_t)(below(2) * below(PAD));
    s.out_stride = s.classes + (int64_t)(below(2) * below(PAD));
    s.offset = any_offset(&s, s.stride);
    s.out_offset = any_offset(&s, s.out_stride);
    s.in_place = below(4) == 0;
    s.is_weighted = below(2) == 0;
    s.targets = (enum target_kind)below(3);
    s.gamma = (const double[]){0.0, 0.5, 1.0, 2.0, 1.7}[below(5)];
    for (int i = 0; i < ROWS; i++)
        s.labels[i] = below(6) ? (int64_t)below((uint32_t)s.classes) : -100;
    return s;
}

static size_t size_of_array(const storage_format *format)
{
    return ELEMENTS * (format ? sizeof(uint16_t) : sizeof(float));
}

/* What is mapped before an array, so that it ends where a page does. */
static size_t before_array(const storage_format *format)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    return (page - size_of_array(format) % page) % page;
}

/* On a line, and followed by a page that nobody may touch. */
static void *map_array(const storage_format *format)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), before = before_array(format);
    const size_t size = before + size_of_array(format);
    char *all = mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(all != MAP_FAILED && mprotect(all + size, page, PROT_NONE) == 0);
    return all + before;
}

static void unmap_array(const storage_format *format, void *array)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), before = before_array(format);

    munmap((char *)array - before, before + size_of_array(format) + page);
}

/* As the kernels store them. */
static void put(const storage_format *format, const float *from, void *to)
{
    if (format)
        format->narrow(from, ELEMENTS, to);
    else
        memcpy(to, from, BYTES);
}

static void fill(const storage_format *format, void *to)
{
    static float x[ELEMENTS];
    static const float special[] = {NAN, INFINITY, -INFINITY, 70000.0f, -70000.0f, -0.0f};
    const float offset = below(5) ? 0.0f : 70000.0f, range = below(3) ? 8.0f : 120.0f;

    for (int i = 0; i < ELEMENTS; i++)
        x[i] = offset + range * ((float)below(1 << 24) * 0x1p-24f - 0.5f);
    /* a few, or so many that some tiles of short rows hold one and others do not */
    for (uint32_t n = below(4) ? below(4) : below(400); n > 0; n--)
        x[below(ELEMENTS)] = special[below(6)];
    put(format, x, to);
}

/* Bytes and floats that are 0 or 1, a weight for each row. */
static uint8_t target_bytes[ELEMENTS];
static float targets[ELEMENTS], weights[ROWS];

static void fill_targets(const storage_format *format)
{
    static float x[ELEMENTS];

    for (int i = 0; i < ELEMENTS; i++)
        x[i] = target_bytes[i] = below(4) == 0;
    put(format, x, targets);
    for (int i = 0; i < ROWS; i++)
        weights[i] = 0.5f + (float)below(16) / 8.0f;
}

typedef struct results {
    void *x, *out;
    float row_loss[PLANE_ROWS];
    double partial[LEAVES];
} results;

static void *element(const kernel_table *k, void *p, int64_t at)
{
    return (char *)p + at * (int64_t)(k->format ? sizeof(uint16_t) : sizeof(float));
}

/* How a job may be done. */
typedef struct way {
    int beyond;
    int64_t tile_classes, kept_chunks;
} way;

/* The first keeps all in the caches, the second streams. */
enum { WAYS = 4 };
static way any_way(int n)
{
    return n < 2 ? (way){n, SHORT, MOST_KEPT_CHUNKS * !n}
                 : (way){n % 2, below(3) ? (int64_t)below(SHORT) : -1, below(9)};
}

static void run_sigmoid(const kernel_table *k, int operation, const shape *s, const results *r, way w)
{
    void *x = element(k, r->x, s->offset), *out = s->in_place ? x : element(k, r->out, s->out_offset);
    const sigmoid_job job = {
        .rows = {.labels = s->labels, .label_bytes = s->targets == TARGET_LABEL ? 8 : 0,
                 .ignore_index = -100, .grad_scale = 0.37,
                 .row_weight = s->is_weighted ? weights : NULL, .row_loss = (void *)r->row_loss},
        .logits = x, .logits_stride = s->stride, .target_kind = s->targets,
        .targets = s->targets == TARGET_U8 ? (const void *)(target_bytes + s->offset)
                                           : element(k, targets, s->offset),
        .targets_stride = s->stride, .grad = out,
        .grad_stride = s->in_place ? s->stride : s->out_stride, .classes = s->classes,
        .format = k->format, .beyond_cache = w.beyond, .gamma = s->gamma,
        .alpha_positive = operation == 3 ? 1.0 : 0.25,
        .alpha_negative = operation == 3 ? 1.0 : 0.75};

    (operation == 3 ? k->binary_cross_entropy : k->sigmoid_focal)(&job, 0, s->rows);
}

static void run_backward(const kernel_table *k, int operation, const shape *s, const results *r, way w)
{
    void *x = element(k, r->x, s->offset);
    const softmax_backward_job job = {
        .output = x, .output_stride = s->stride, .output_class_stride = 1,
        .grad_output = element(k, targets, s->out_offset), .grad_output_stride = s->out_stride,
        .grad_output_class_stride = 1,
        .grad_input = s->in_place ? x : element(k, r->out, s->out_offset),
        .grad_input_stride = s->in_place ? s->stride : s->out_stride, .grad_input_class_stride = 1,
        .classes = s->classes, .inner = 1, .beyond_cache = w.beyond, .format = k->format};

    (operation == 5 ? k->softmax_backward : k->log_softmax_backward)(&job, 0, s->rows);
}

static void run(const kernel_table *k, int operation, const shape *s, const results *r, way w)
{
    void *x = element(k, r->x, s->offset), *out = s->in_place ? x : element(k, r->out, s->out_offset);
    const int64_t out_stride = s->in_place ? s->stride : s->out_stride;
    const cross_entropy_job loss = {
        .rows = {.labels = s->labels, .label_bytes = 8, .ignore_index = -100, .grad_scale = 0.37,
                 .row_loss = (void *)r->row_loss},
        .logits = x, .logits_stride = s->stride, .grad = out, .grad_stride = out_stride,
        .classes = s->classes, .format = k->format, .beyond_cache = w.beyond,
        .tile_classes = w.tile_classes, .kept_chunks = w.kept_chunks};
    const softmax_job softmax = {.input = x, .input_stride = s->stride, .output = out,
                                 .output_stride = out_stride, .classes = s->classes,
                                 .format = k->format, .beyond_cache = w.beyond, .tile_classes = w.tile_classes,
                                 .kept_chunks = w.kept_chunks};

    if (operation > 4)
        run_backward(k, operation, s, r, w);
    else if (operation > 2)
        run_sigmoid(k, operation, s, r, w);
    else if (operation == 0)
        k->cross_entropy(&loss, 0, s->rows);
    else if (operation == 1)
        k->softmax(&softmax, 0, s->rows);
    else
        k->log_softmax(&softmax, 0, s->rows);
}

static int same_results(const storage_format *format, const results *a, const results *b)
{
    const size_t bytes = size_of_array(format);

    return !memcmp(a->x, b->x, bytes) && !memcmp(a->out, b->out, bytes) &&
           !memcmp(a->row_loss, b->row_loss, sizeof a->row_loss) &&
           !memcmp(a->partial, b->partial, sizeof a->partial);
}

static void open_results(const storage_format *format, results *r)
{
    r->x = map_array(format);
    r->out = map_array(format);
}

static void close_results(const storage_format *format, results *r)
{
    unmap_array(format, r->x);
    unmap_array(format, r->out);
}

static void clear_results(const storage_format *format, results *r)
{
    memset(r->out, FILL, size_of_array(format));
    memset(r->row_loss, FILL, sizeof r->row_loss);
    memset(r->partial, FILL, sizeof r->partial);
}

static void same_every_way(const kernel_table *k)
{
    static const char *const names[] = {"cross_entropy", "softmax", "log_softmax",
                                        "binary_cross_entropy", "sigmoid_focal", "softmax_backward",
                                        "log_softmax_backward"};
    enum { OPERATIONS = sizeof names / sizeof names[0] };
    results r[2];

    fill_targets(k->format);

    for (int i = 0; i < 2; i++)
        open_results(k->format, &r[i]);
    for (int n = 0; n < CASES; n++) {
        const shape s = any_shape();
        const int operation = n % OPERATIONS;
        const way first = any_way(0), second = any_way(1 + n / OPERATIONS % (WAYS - 1));

        fill(k->format, r[0].x);
        memcpy(r[1].x, r[0].x, size_of_array(k->format));
        for (int i = 0; i < 2; i++) {
            clear_results(k->format, &r[i]);
            run(k, operation, &s, &r[i], i == 0 ? first : second);
        }
        if (!same_results(k->format, &r[0], &r[1]))
            fail_msg("case %d: %s, %d rows of %d, strides %d and %d, offsets %d and %d, %s; "
                     "targets %d, gamma %g; streamed %d, tiles to %d, kept %d",
                     n, names[operation], (int)s.rows, (int)s.classes, (int)s.stride,
                     (int)s.out_stride, (int)s.offset, (int)s.out_offset,
                     s.in_place ? "in place" : "separate", (int)s.targets, s.gamma, second.beyond,
                     (int)second.tile_classes, (int)second.kept_chunks);
    }
    for (int i = 0; i < 2; i++)
        close_results(k->format, &r[i]);
}

/* ---- classes a plane apart: lines of each plane are streamed ---------------------------------- */

typedef struct planes {
    int64_t outer, classes, inner, class_stride, offset;
    int64_t labels[PLANE_ROWS];
} planes;

static planes any_planes(void)
{
    planes p = {.outer = 1 + below(2), .inner = 1 + below(PLANE_ROWS / 2)};

    if (below(3)) /* whole lines */
        p.inner = (p.inner + 15) & -16;
    p.class_stride = p.inner + 16 * (int64_t)below(2) + (int64_t)below(8) / 7;
    p.offset = below(2) ? 16 * (int64_t)below(3) : below(PAD);
    const int64_t room = (ELEMENTS - PAD) / (p.outer * p.class_stride);
    p.classes = 1 + below((uint32_t)(room < 1100 ? room : below(3) ? 100 : 1100));
    if (below(2)) /* they end together with their array */
        p.offset = ELEMENTS - (p.outer * p.classes - 1) * p.class_stride - p.inner;
    for (int i = 0; i < PLANE_ROWS; i++)
        p.labels[i] = below(6) ? (int64_t)below((uint32_t)p.classes) : -100;
    return p;
}

static void run_planes(const kernel_table *k, int operation, const planes *p, results *r, int beyond)
{
    const int64_t outer_stride = p->classes * p->class_stride, rows = p->outer * p->inner;
    void *x = element(k, r->x, p->offset), *out = element(k, r->out, p->offset);
    const cross_entropy_job loss = {
        .rows = {.labels = p->labels, .label_bytes = 8, .ignore_index = -100, .grad_scale = 0.37,
                 .row_loss = (void *)r->row_loss, .partial = r->partial, .leaf_rows = 16},
        .logits = x, .logits_stride = outer_stride, .logits_class_stride = p->class_stride, .grad = out,
        .grad_stride = outer_stride, .grad_class_stride = p->class_stride, .classes = p->classes,
        .inner = p->inner, .format = k->format, .beyond_cache = beyond};
    const softmax_job softmax = {.input = x, .input_stride = outer_stride,
                                 .input_class_stride = p->class_stride, .output = out,
                                 .output_stride = outer_stride, .output_class_stride = p->class_stride,
                                 .classes = p->classes, .inner = p->inner, .format = k->format,
                                 .beyond_cache = beyond};

    if (operation == 0)
        k->cross_entropy_planes(&loss, 0, rows);
    else
        (operation == 1 ? k->softmax_planes : k->log_softmax_planes)(&softmax, 0, rows);
}

static void planes_same_every_way(const kernel_table *k)
{
    static const char *const names[] = {"cross_entropy", "softmax", "log_softmax"};
    results r[2];

    for (int i = 0; i < 2; i++)
        open_results(k->format, &r[i]);
    for (int n = 0; n < PLANE_CASES; n++) {
        const planes p = any_planes();

        fill(k->format, r[0].x);
        memcpy(r[1].x, r[0].x, size_of_array(k->format));
        for (int i = 0; i < 2; i++) {
            clear_results(k->format, &r[i]);
            run_planes(k, n % 3, &p, &r[i], i);
        }
        if (!same_results(k->format, &r[0], &r[1]))
            fail_msg("case %d: %s, tensor %d x %d x %d, planes %d apart, offset %d", n, names[n % 3],
                     (int)p.outer, (int)p.classes, (int)p.inner, (int)p.class_stride, (int)p.offset);
    }
    for (int i = 0; i < 2; i++)
        close_results(k->format, &r[i]);
}

#define SAME_EVERY_WAY(isa)                                                                       \
    (same_every_way(&ballast__kernels_f32_##isa), same_every_way(&ballast__kernels_bf16_##isa),   \
     same_every_way(&ballast__kernels_f16_##isa), planes_same_every_way(&ballast__kernels_f32_##isa), \
     planes_same_every_way(&ballast__kernels_bf16_##isa))

static void scalar(void **unused)
{
    (void)unused;
    SAME_EVERY_WAY(scalar);
}

#if BALLAST_HAVE_AVX2 || BALLAST_HAVE_AVX512
static int runs(ballast__isa isa)
{
    ballast__cpu cpu;

    ballast__cpu_read(NULL, &cpu);
    return ballast__cpu_runs(&cpu, isa, NULL, 0);
}
#endif

#if BALLAST_HAVE_AVX2
static void avx2(void **unused)
{
    (void)unused;
    if (!runs(BALLAST__AVX2))
        skip();
    SAME_EVERY_WAY(avx2);
}
#endif

#if BALLAST_HAVE_AVX512
static void avx512(void **unused)
{
    (void)unused;
    if (!runs(BALLAST__AVX512))
        skip();
    SAME_EVERY_WAY(avx512);
}
#endif

#if BALLAST_HAVE_NEON
static void neon(void **unused)
{
    (void)unused;
    SAME_EVERY_WAY(neon);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalar),
#if BALLAST_HAVE_AVX2
        cmocka_unit_test(avx2),
#endif
#if BALLAST_HAVE_AVX512
        cmocka_unit_test(avx512),
#endif
#if BALLAST_HAVE_NEON
        cmocka_unit_test(neon),
#endif
    };

    return cmocka_run_group_tests_name("streaming", tests, NULL, NULL);
}
