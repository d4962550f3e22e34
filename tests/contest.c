/* SPDX-License-Identifier: MIT */
/* The benchmark's contenders: all of them are right, and who is wrong is refused. */
#include "../bench/contest.h"
#include "../bench/suites.h"
#include "../bench/threads.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static problem parsed(const char *text)
{
    char message[PROBLEM_TEXT];
    problem p;

    if (!problem_parse(text, &p, message, sizeof message))
        fail_msg("%s: %s", text, message);
    return p;
}

static contest *opened(const char *text, const contest_options *o)
{
    char message[PROBLEM_TEXT];
    contest *c = malloc(sizeof *c);
    const problem p = parsed(text);

    assert_non_null(c);
    if (!contest_open(&p, o, c, message, sizeof message))
        fail_msg("%s: %s", text, message);
    return c;
}

static void closed(contest *c)
{
    contest_close(c);
    free(c);
}

static const entrant *entrant_of(const contest *c, const char *name)
{
    for (int i = 0; i < c->count; i++)
        if (strcmp(c->entrants[i].name, name) == 0)
            return &c->entrants[i];
    return NULL;
}

/* ---- Who is wrong ---------------------------------------------------------------------------- */

static double wrong_by;

/* Right, but for the last element of a slice. */
static void copy_with_error(slice *s)
{
    for (int64_t i = 0; i < s->rows * s->classes; i++)
        s->out[i] = expf(s->x[i]);
    for (int64_t i = 0; i < s->rows; i++) {
        float sum = 0.0f;

        for (int64_t c = 0; c < s->classes; c++)
            sum += s->out[i * s->classes + c];
        for (int64_t c = 0; c < s->classes; c++)
            s->out[i * s->classes + c] /= sum;
    }
    s->out[s->rows * s->classes - 1] *= (float)(1.0 + wrong_by);
}

static void sum_with_error(slice *s)
{
    s->sum = 0.0;
    for (int64_t i = 0; i < s->classes; i++)
        s->sum += s->x[i];
    s->sum *= 1.0 + wrong_by;
}

static void nan_loss(slice *s) { s->sum = NAN; }

static const baseline softmax_with_error = {"softmax", copy_with_error, NULL, NULL};
static const baseline weighted_sum_with_error = {"weighted_sum", sum_with_error, NULL, NULL};
static const baseline no_loss = {"cross_entropy", nan_loss, NULL, NULL};
static const contest_options alone = {NULL, NULL, 0, 0};

static int is_refused(const char *text, const baseline *b)
{
    contest *c = opened(text, &alone);
    const int before = c->count, added = contest_add(c, "candidate", b);

    assert_int_equal(c->count, before + added);
    assert_int_equal(c->note_count, !added);
    if (!added)
        assert_non_null(strstr(c->notes[0], "candidate is left out"));
    assert_int_equal(entrant_of(c, "candidate") != NULL, added);
    closed(c);
    return !added;
}

static void test_wrong_baselines_are_refused(void **state)
{
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2) {
        wrong_by = sign * 0.01;
        assert_true(is_refused("softmax:f32:rows=7,classes=3", &softmax_with_error));
        assert_true(is_refused("weighted_sum:f32:count=1000,inputs=equal",
                               &weighted_sum_with_error));
    }
    assert_true(is_refused("cross_entropy:f32:rows=7,classes=3,outputs=loss", &no_loss));
}

static void test_right_baselines_are_not(void **state)
{
    (void)state;
    wrong_by = 1e-5;
    assert_false(is_refused("softmax:f32:rows=7,classes=3", &softmax_with_error));
    assert_false(is_refused("weighted_sum:f32:count=1000", &weighted_sum_with_error));
}

static void test_a_baseline_is_asked_for_its_operation_only(void **state)
{
    (void)state;
    static const char *const others[] = {
        "log_softmax:f32:rows=7,classes=3", "softmax:f64:rows=7,classes=3",
        "softmax:f32:rows=7,classes=3,stride=4",
        "softmax:f32:rows=7,classes=3,pieces=1",
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        contest *c = opened(others[i], &alone);

        assert_int_equal(contest_add(c, "candidate", &softmax_with_error), 0);
        assert_int_equal(c->note_count, 0);
        closed(c);
    }
}

/* ---- Who is right ---------------------------------------------------------------------------- */

/* Everyone once; none was refused, and Ballast's results are the same bits afterwards. */
static void everyone_runs(const char *text, const ballast_parallel *parallel)
{
    const contest_options all = {NULL, parallel, 1, 1};
    contest *c = opened(text, &all);

    for (int i = 0; i < c->note_count; i++)
        fail_msg("%s: %s", text, c->notes[i]);
    c->contenders[0].run(c->contenders[0].context);
    const uint64_t before = case_hash(&c->results);
    for (int i = 0; i < c->count; i++) {
        c->contenders[i].run(c->contenders[i].context);
        assert_int_equal(c->entrants[i].status, BALLAST_OK);
        assert_true(c->entrants[i].elements > 0.0 && c->entrants[i].bytes >= 0.0);
    }
    if (case_stray_write(&c->results))
        fail_msg("%s: somebody wrote beside %s", text, case_stray_write(&c->results));
    if (!c->data.p.inplace) {
        c->contenders[0].run(c->contenders[0].context);
        assert_int_equal(case_hash(&c->results), before);
    }
    assert_non_null(entrant_of(c, "fast-math"));
    closed(c);
}

static const char *const baseline_operations[] = {
    "softmax:f32:", "softmax:f32:inplace=1,", "log_softmax:f32:", "log_softmax:f32:inplace=1,",
    "log_sum_exp:f32:", "cross_entropy:f32:", "cross_entropy:f32:inplace=1,",
    "cross_entropy:f32:outputs=loss,", "cross_entropy:f32:reduction=sum,grad_scale=0.5,",
    "binary_cross_entropy:f32:targets=u8,outputs=loss+row_loss+grad,",
    "binary_cross_entropy:f32:targets=u8,outputs=loss+grad,inplace=1,",
    "sigmoid_focal:f32:targets=u8,outputs=loss+grad,",
    "sigmoid_focal:f32:targets=u8,outputs=loss+grad,gamma=0.5,alpha=-1,",
    "sigmoid_focal:f32:targets=u8,outputs=loss+row_loss,gamma=1.7,reduction=sum,",
};

static void test_everyone_is_right_on_matrices(void **state)
{
    static const char *const shapes[] = {
        "rows=1,classes=1", "rows=2,classes=10", "rows=37,classes=15", "rows=5,classes=33,offset=1",
        "rows=3,classes=259,offset=5", "rows=70,classes=1000", "rows=2,classes=40001",
        "rows=64,classes=100,inputs=confident", "rows=9,classes=77,inputs=uniform",
    };
    char text[PROBLEM_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof baseline_operations / sizeof *baseline_operations; i++)
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
            for (int64_t threads = 1; threads <= 3; threads += 2) {
                const ballast_parallel parallel = threads_to_lend(threads);

                if (strncmp(shapes[k], "rows=1,", 7) == 0 && threads > 1)
                    continue; /* fewer rows than threads */
                if (strncmp(shapes[k], "rows=2,", 7) == 0 && threads > 2)
                    continue;
                snprintf(text, sizeof text, "%s%s", baseline_operations[i], shapes[k]);
                everyone_runs(text, &parallel);
            }
}

static void test_everyone_is_right_on_vectors(void **state)
{
    static const char *const texts[] = {
        "weighted_sum:f32:count=1", "weighted_sum:f32:count=1001,offset=3", "dot:f32:count=7",
        "weighted_sum:f32:count=100003,weights=row", "dot:f32:count=70001,offset=1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        everyone_runs(texts[i], NULL);
    const ballast_parallel parallel = threads_to_lend(3);
    everyone_runs("dot:f32:count=70001", &parallel);
}

static void test_fewer_rows_count_fewer_elements(void **state)
{
    const contest_options all = {NULL, NULL, 0, 1};
    contest *c = opened("cross_entropy:f32:rows=3000,classes=100", &all);
    const entrant *cached = entrant_of(c, "ballast in L2");

    (void)state;
    assert_non_null(cached);
    assert_true(cached->elements < c->entrants[0].elements && cached->bytes < 200e3);
    assert_true(c->entrants[0].bytes >= 2.0 * 4.0 * c->entrants[0].elements);
    closed(c);
}

/* ---- Round about ----------------------------------------------------------------------------- */

static void test_suites_are_problems_each_once(void **state)
{
    (void)state;
    assert_non_null(suite_at(0));
    assert_null(suite_at(-1));
    for (int i = 0; suite_at(i); i++)
        for (const char *const *p = suite_at(i)->problems; *p; p++) {
            const problem it = parsed(*p);

            assert_true(contest_memory(&it) > 0.0);
            for (const char *const *q = suite_at(i)->problems; q != p; q++)
                assert_string_not_equal(*p, *q);
        }
}

static void test_memory_is_not_underestimated(void **state)
{
    static const char *const texts[] = {
        "cross_entropy:f32:rows=1000,classes=1000", "softmax:f64:rows=1000,classes=1000",
        "binary_cross_entropy:f32:rows=1000,classes=1000,targets=u8", "dot:f32:count=1000000",
        "weighted_sum:f32:count=1000000,weights=row",
        "softmax_backward:f32:rows=1000,classes=1000",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        contest *c = opened(texts[i], &alone);

        assert_true(contest_memory(&c->data.p) >= c->entrants[0].bytes);
        closed(c);
    }
}

static void test_nothing_is_no_contest(void **state)
{
    static const char *const texts[] = {"softmax:f32:rows=0", "softmax:f32:classes=0",
                                        "dot:f32:count=0"};
    char message[PROBLEM_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        contest *c = malloc(sizeof *c);
        const problem p = parsed(texts[i]);

        assert_int_equal(contest_open(&p, &alone, c, message, sizeof message), 0);
        assert_string_equal(message, "has no elements to measure");
        free(c);
    }
}

/* What is compiled with -ffast-math must not change how this program computes. */
static void test_subnormals_are_honoured(void **state)
{
    volatile float smallest = 0x1p-126f, half = 0.5f;
    volatile float product = smallest * half;

    (void)state;
    assert_true(product == 0x1p-127f && product > 0.0f);
}

static void test_large_arrays_stand_on_pages(void **state)
{
    (void)state;
    case_use_pages(PAGES_4K);
    everyone_runs("cross_entropy:f32:rows=3001,classes=1000", NULL);
    case_use_pages(PAGES_HUGE);
    everyone_runs("cross_entropy:f32:rows=3001,classes=1000", NULL);
    case_use_pages(PAGES_OF_SYSTEM);
}

/* ---- A profile ------------------------------------------------------------------------------- */

static char in_force[64];

static void put_in_force(int tuned)
{
    const size_t length = strlen(in_force);

    assert_true(length + 1 < sizeof in_force);
    in_force[length] = tuned ? 'T' : 'D';
}

/* In turn, each with its own before it. */
static void test_tuned_and_default_in_turn(void **state)
{
    const contest_options default_alone = {ballast_implementation_default(NULL, 0), NULL, 0, 0};
    contest *c = opened("softmax:f32:rows=3,classes=10", &default_alone);
    measurement m[2];

    (void)state;
    contest_add_tuned(c, put_in_force);
    assert_int_equal(c->count, 2);
    assert_string_equal(c->entrants[0].name, "ballast");
    assert_string_equal(c->entrants[1].name, "ballast tuned");
    measure_in_turn(c->contenders, c->count, 0.0, m);
    assert_string_equal(in_force, "DTDTTDDT"); /* how often to repeat; three rounds */
    assert_int_equal(c->entrants[0].status, BALLAST_OK);
    assert_int_equal(c->entrants[1].status, BALLAST_OK);
    closed(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_baselines_are_refused),
        cmocka_unit_test(test_right_baselines_are_not),
        cmocka_unit_test(test_a_baseline_is_asked_for_its_operation_only),
        cmocka_unit_test(test_everyone_is_right_on_matrices),
        cmocka_unit_test(test_everyone_is_right_on_vectors),
        cmocka_unit_test(test_fewer_rows_count_fewer_elements),
        cmocka_unit_test(test_suites_are_problems_each_once),
        cmocka_unit_test(test_memory_is_not_underestimated),
        cmocka_unit_test(test_nothing_is_no_contest),
        cmocka_unit_test(test_subnormals_are_honoured),
        cmocka_unit_test(test_large_arrays_stand_on_pages),
        cmocka_unit_test(test_tuned_and_default_in_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
