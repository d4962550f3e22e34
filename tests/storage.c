/* SPDX-License-Identifier: MIT */
/* bf16 and f16 are storage only: a call gives, bit for bit, what the f32 call gives for the same
 * numbers, rounded once where it is stored in 16 bits. And no element beyond the last is touched.
 *
 * The problems are those that `ballast check` runs by default, on the fastest implementation:
 * tests/identity.c shows that all have its bits. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../bench/arrays.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static char current[PROBLEM_TEXT];

static void run(const case_data *c, case_results *r)
{
    const ballast_status status = case_run(c, NULL, NULL, r);

    if (status != BALLAST_OK)
        fail_msg("%s: %s", current, ballast_status_name(status));
    if (case_stray_write(r))
        fail_msg("%s: writes beyond %s", current, case_stray_write(r));
}

/* ---- The same bits as f32, rounded once ------------------------------------------------------ */

/* The problem in f32, with the numbers that `half` holds. */
static void widen(const case_data *half, case_data *wide)
{
    problem p = half->p;

    p.dtype = BALLAST_F32;
    case_make(&p, wide);
    for (int k = 0; k < CASE_INPUTS; k++) {
        const case_array *from = &half->in[k], *to = &wide->in[k];

        for (int64_t i = 0; is_half(from->dtype) && i < from->rows; i++)
            for (int64_t j = 0; j < from->columns; j++)
                store_real(BALLAST_F32, at(to, i, j), 0, real_at(from, i, j));
    }
}

/* What of a result in f32 is stored. */
static uint16_t stored(ballast_dtype dtype, double x)
{
    if (isnan(x))
        return dtype == BALLAST_BF16 ? 0x7fc0 : 0x7e00;
    return half_of_float(dtype, (float)x);
}

static void compare(const case_array *half, const case_array *wide)
{
    for (int64_t i = 0; half->data && i < half->rows; i++)
        for (int64_t j = 0; j < half->columns; j++) {
            const void *got = at(half, i, j), *want = at(wide, i, j);
            uint16_t bits;

            if (is_half(half->dtype)) {
                bits = stored(half->dtype, real_at(wide, i, j));
                want = &bits;
            }
            if (memcmp(got, want, size_of(half->dtype)) != 0)
                fail_msg("%s: %s[%lld][%lld]: got %a, f32 gives %a\n  run again: ballast check '%s'",
                         current, half->name, (long long)i, (long long)j, real_at(half, i, j),
                         real_at(wide, i, j), current);
        }
}

static void expect_bits_of_f32(const problem *p)
{
    case_data half, wide;
    case_results got, want;

    problem_format(p, current, sizeof current);
    case_make(p, &half);
    widen(&half, &wide);
    case_results_make(&half, &got);
    case_results_make(&wide, &want);
    run(&half, &got);
    run(&wide, &want);
    for (int k = 0; k < CASE_OUTPUTS; k++)
        compare(&got.out[k], &want.out[k]);
    case_results_free(&got);
    case_results_free(&want);
    case_free(&half);
    case_free(&wide);
}

static void test_bits_of_f32(void **state)
{
    const ballast_dtype dtype = *(const ballast_dtype *)*state;
    int tested = 0;
    problem p;

    for (int64_t i = 0; problem_default(0, i, &p); i++)
        if (p.dtype == dtype) {
            expect_bits_of_f32(&p);
            tested++;
        }
    assert_true(tested > 0);
}

/* Rows whose exponentials are kept, and computed again, in chunks and beyond them. */
static void test_long_rows(void **state)
{
    static const int widths[] = {2047, 2048, 2049, 4096, 8192, 8193, 262144, 262145};
    const ballast_dtype dtype = *(const ballast_dtype *)*state;
    char text[PROBLEM_TEXT], message[PROBLEM_TEXT];
    problem p;

    for (int i = 0; operation_at(i); i++)
        for (int w = 0; w < 8 && operation_at(i)->keys & KEY(KEY_INPLACE); w++)
            for (int inplace = 0; inplace < 2; inplace++) {
                snprintf(text, sizeof text, "%s:%s:rows=1,classes=%d,inputs=%s,inplace=%d",
                         operation_at(i)->name, problem_dtype_name(dtype), widths[w],
                         w % 2 ? "confident" : "uniform", inplace);
                if (!problem_parse(text, &p, message, sizeof message))
                    fail_msg("%s: %s", text, message);
                expect_bits_of_f32(&p);
            }
}

/* Classes in planes: packs of one to four tiles, whole and not, that are kept and that are not. */
static void test_planes(void **state)
{
    static const int widths[] = {1, 21, 256, 300, 1000, 1025, 2049, 5000}, inners[] = {1, 17, 64, 130};
    const ballast_dtype dtype = *(const ballast_dtype *)*state;
    char text[PROBLEM_TEXT], message[PROBLEM_TEXT];
    problem p;

    for (int i = 0; operation_at(i); i++)
        for (int w = 0; w < 32 && operation_at(i)->keys & KEY(KEY_INNER); w++) {
            const int inner = inners[w % 4];

            snprintf(text, sizeof text, "%s:%s:rows=%d,classes=%d,inner=%d,inputs=%s",
                     operation_at(i)->name, problem_dtype_name(dtype), inner, widths[w / 4], inner,
                     w / 4 % 2 ? "mixed_specials" : "confident");
            if (!problem_parse(text, &p, message, sizeof message))
                fail_msg("%s: %s", text, message);
            expect_bits_of_f32(&p);
        }
}

/* ---- Up to the last byte of a page ------------------------------------------------------------ */

typedef struct guarded {
    char *base;
    size_t bytes;
} guarded;

/* Moves an array to the end of readable memory. */
static guarded move_to_edge(case_array *a)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t row = (size_t)a->columns * size_of(a->dtype);
    const size_t size = a->rows > 0 ? (size_t)((a->rows - 1) * a->stride) * size_of(a->dtype) + row : 0;
    guarded g = {NULL, (size + page - 1) / page * page + page};

    if (!a->data)
        return g;
    g.base = mmap(NULL, g.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.base != MAP_FAILED);
    char *end = g.base + g.bytes - page;
    assert_int_equal(mprotect(end, page, PROT_NONE), 0);
    memcpy(end - size, a->data, size);
    a->data = end - size;
    return g;
}

static void release(guarded g)
{
    if (g.base)
        munmap(g.base, g.bytes);
}

static void run_at_edge(const problem *p)
{
    guarded in[CASE_INPUTS], out[CASE_OUTPUTS];
    void *memory[CASE_OUTPUTS];
    case_results r;
    case_data c;

    problem_format(p, current, sizeof current);
    case_make(p, &c);
    case_results_make(&c, &r);
    for (int k = 0; k < CASE_INPUTS; k++)
        in[k] = move_to_edge(&c.in[k]);
    for (int k = 0; k < CASE_OUTPUTS; k++) {
        memory[k] = r.out[k].data;
        out[k] = move_to_edge(&r.out[k]);
    }
    if (case_run(&c, NULL, NULL, &r) != BALLAST_OK)
        fail_msg("%s", current);
    for (int k = 0; k < CASE_OUTPUTS; k++) {
        release(out[k]);
        r.out[k].data = memory[k];
    }
    for (int k = 0; k < CASE_INPUTS; k++)
        release(in[k]);
    case_results_free(&r);
    case_free(&c);
}

static void test_edges(void **state)
{
    const ballast_dtype dtype = *(const ballast_dtype *)*state;
    char text[PROBLEM_TEXT], message[PROBLEM_TEXT];
    problem p;

    for (int i = 0; operation_at(i); i++) {
        const operation *op = operation_at(i);

        for (int v = 0; operation_has_dtype(op, dtype) && op->variants[v]; v++)
            for (int width = 1; width < 140; width++) {
                snprintf(text, sizeof text, "%s:%s:%s=%d,%s,%s", op->name,
                         problem_dtype_name(dtype),
                         op->keys & KEY(KEY_COUNT) ? "count" : "rows=3,classes", width,
                         width % 2 ? "inputs=normal" : "inputs=mixed_specials", op->variants[v]);
                if (!problem_parse(text, &p, message, sizeof message))
                    fail_msg("%s: %s", text, message);
                run_at_edge(&p);
            }
    }
}

int main(void)
{
    static ballast_dtype bf16 = BALLAST_BF16, f16 = BALLAST_F16;
#define ON(test)                                                                                  \
    {#test ": bf16", test, NULL, NULL, &bf16}, {#test ": f16", test, NULL, NULL, &f16}
    const struct CMUnitTest tests[] = {ON(test_bits_of_f32), ON(test_long_rows), ON(test_planes),
                                       ON(test_edges)};

    return cmocka_run_group_tests_name("storage", tests, NULL, NULL);
}
