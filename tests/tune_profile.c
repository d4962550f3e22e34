/* SPDX-License-Identifier: MIT */
/* Whatever was measured, a call takes what was chosen for its shape, and the default where nothing
 * was: also next to shapes that chose something else, and whatever the profile before said. And
 * which problems are measured follows the caches. */
#include "../tools/tune_profile.h"

#include "../dispatch/implementation.h"
#include "sanitized.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static tune_cases all;
static tune_results results;
static profile merged;

static uint64_t state = 20190616;

static int random_below(int n)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int)((state >> 33) % (uint64_t)n);
}

static int candidate_in_force(const tune_case *c, int which)
{
    const problem *p = &c->problems[0].p;
    const tuning t = ballast__tuning_of(c->where.operation, c->where.dtype, p->rows,
                                        problem_is_vector(p) ? 1 : p->classes);

    return (int)(t.word >> CHOICE_BITS * which & ((1u << CHOICE_BITS) - 1));
}

static int random_candidate(int which)
{
    int count = 1;

    while (ballast__candidate(which, count))
        count++;
    return which == CHOOSE_ISA ? 1 /* scalar, which runs everywhere */ : 1 + random_below(count - 1);
}

/* One in `rarely` chooses, one in eight was not measured. */
static void make_random(int rarely)
{
    results.count = 0;
    for (int i = 0; i < all.count; i++)
        for (int which = 0; which < CHOICES; which++) {
            const tune_verdict kept[] = {TUNE_SAME, TUNE_DEFAULT, TUNE_NOISY, TUNE_UNDECIDED};
            tune_result *r = &results.results[results.count];

            *r = (tune_result){.of = &all.cases[i], .which = (choice_kind)which};
            r->verdict = random_below(rarely) == 0 ? TUNE_CHOSEN : kept[random_below(4)];
            r->best = (tune_trial){random_candidate(which), 0.9, 0.85, 0.95, 20};
            results.count += random_below(8) != 0;
        }
}

static const tune_result *result_of(const tune_case *c, int which)
{
    for (int i = 0; i < results.count; i++)
        if (results.results[i].of == c && (int)results.results[i].which == which)
            return &results.results[i];
    return NULL;
}

/* What a file with these lines puts in force. */
static void put_in_force(void)
{
    static const char path[] = "tune_profile.tmp";
    static profile read;
    char reason[PROFILE_REASON];

    merged.cores = 1;
    if (!ballast__profile_write(path, &merged, reason) ||
        !ballast__profile_read(path, &read, reason))
        fail_msg("%s", reason);
    assert_int_equal(remove(path), 0);
    ballast__profile_use(&read, "merged");
}

static int expected(const tune_case *c, int which, int before)
{
    const tune_result *r = result_of(c, which);

    if (r && r->verdict == TUNE_CHOSEN)
        return r->best.candidate;
    return r && (r->verdict == TUNE_SAME || r->verdict == TUNE_DEFAULT) ? 0 : before;
}

static void check_all(int (*before)[CHOICES])
{
    for (int i = 0; i < all.count; i++)
        for (int which = 0; which < CHOICES; which++) {
            const int want = expected(&all.cases[i], which, before[i][which]);
            const int got = candidate_in_force(&all.cases[i], which);

            if (got != want)
                fail_msg("%s %s: %d is in force, not %d", all.cases[i].name,
                         ballast__choice_name(which), got, want);
        }
}

static void random_results(void **unused)
{
    static int before[TUNE_CASES][CHOICES];
    int most = 0;

    (void)unused;
    for (int run = 0; run < (SANITIZED ? 8 : 40); run++) { /* 8: a size each */
        memset(before, 0, sizeof before);
        merged.count = 0;
        for (int again = 0; again < 3; again++) { /* on what the last one left */
            make_random(40 + 20 * (run % 8));
            if (tune_profile_merge(&merged, &results) > 0)
                break; /* full: the next test */
            put_in_force();
            check_all(before);
            for (int i = 0; i < all.count; i++)
                for (int which = 0; which < CHOICES; which++)
                    before[i][which] = candidate_in_force(&all.cases[i], which);
            most = merged.count > most ? merged.count : most;
        }
    }
    print_message("# %d lines at most\n", most);
    assert_true(most > 100);
}

/* Choices of an operation and dtype are then left out together, and the others are right. */
static void too_many(void **unused)
{
    (void)unused;
    make_random(2);
    merged.count = 0;
    assert_true(tune_profile_merge(&merged, &results) > 0);
    assert_true(merged.count <= PROFILE_CHOICES && merged.count > PROFILE_CHOICES - SHAPE_CLASSES);
    put_in_force();
    for (int i = 0; i < merged.count; i++) {
        tune_case c;
        assert_true(tune_case_make(merged.lines[i].chosen.where, results.caches.real, &c));
        assert_int_equal(candidate_in_force(&c, (int)merged.lines[i].chosen.which),
                         merged.lines[i].chosen.candidate);
    }
}

/* Where all stay at the default, nothing needs to be said. */
static void nothing_chosen(void **unused)
{
    (void)unused;
    make_random(1 << 30);
    merged.count = 0;
    assert_int_equal(tune_profile_merge(&merged, &results), 0);
    assert_int_equal(merged.count, 0);
}

/* A line of a shape that no problem stands for is kept, and its neighbours stay as they were
 * measured. */
static void by_hand(void **unused)
{
    static int before[TUNE_CASES][CHOICES];
    const tuned_case where = {TUNE_SOFTMAX, BALLAST_F32, SHAPE_CLASSES - 1 - 2};
    tune_case c;

    (void)unused;
    assert_false(tune_case_make(where, results.caches.real, &c));
    make_random(1 << 30);
    merged.count = 1;
    merged.lines[0] = (profile_line){{where, CHOOSE_TASK, 3}, 900, 900, 900, 9, 20261123};
    assert_int_equal(tune_profile_merge(&merged, &results), 0);
    assert_true(merged.count > 1);
    assert_int_equal(merged.lines[0].chosen.candidate, 3);
    put_in_force();
    check_all(before);
}

/* ---- Problems -------------------------------------------------------------------------------- */

static int64_t bytes_of(const problem *p) { return 2 * 4 * p->rows * p->classes; }

/* How many problems of the cases of f32 with many rows of 1000 classes in `data` lie within the
 * cache, and beyond it. */
static void count_problems(const char *data, int64_t cache, int *within, int *beyond)
{
    static tune_cases some;
    char name[TUNE_NAME];

    snprintf(name, sizeof name, "softmax:f32:classes=medium,data=%s,rows=many", data);
    tune_cases_make(name, cache, &some);
    *within = *beyond = 0;
    for (int i = 0; i < some.count; i++)
        for (int k = 0; k < some.cases[i].problem_count && some.cases[i].name[0] == 's'; k++) {
            const problem *p = &some.cases[i].problems[k].p;
            const tuned_case *where = &some.cases[i].where;

            assert_int_equal(
                ballast__tuned_case(where->operation, where->dtype, p->rows, p->classes).shape,
                where->shape);
            *within += bytes_of(p) <= cache;
            *beyond += bytes_of(p) > cache;
        }
}

/* Where the last cache is not what the library takes it for, both sides of its end are measured in
 * the class that it ends in. */
static void caches_of_another_size(void **unused)
{
    const int64_t taken = (int64_t)ballast__data_bytes(1), l2 = (int64_t)ballast__data_bytes(0);
    int within, beyond;

    (void)unused;
    count_problems("cache", taken, &within, &beyond);
    assert_int_equal(beyond, 0);
    assert_true(within >= 1);
    count_problems("memory", taken, &within, &beyond);
    assert_int_equal(within, 0);
    assert_int_equal(beyond, 1);
    if (taken / 5 > 8 * l2) {
        count_problems("cache", taken / 5, &within, &beyond);
        assert_true(within >= 1 && beyond >= 1);
    }
    count_problems("memory", 5 * taken, &within, &beyond);
    assert_true(within >= 1 && beyond >= 1);
}

static int set_up(void **unused)
{
    (void)unused;
    (void)ballast__isas();
    results.caches.real = (int64_t)ballast__data_bytes(1);
    tune_cases_make(NULL, results.caches.real, &all);
    return all.count > 100 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_results),
        cmocka_unit_test(too_many),
        cmocka_unit_test(nothing_chosen),
        cmocka_unit_test(by_hand),
        cmocka_unit_test(caches_of_another_size),
    };

    return cmocka_run_group_tests_name("tune_profile", tests, set_up, NULL);
}
