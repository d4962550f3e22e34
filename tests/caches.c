/* SPDX-License-Identifier: MIT */
/* Where the last cache ends, from curves of reads; and whom to believe. */
#include "../tools/caches.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define MIB (INT64_C(1) << 20)

static caches_point points[CACHES_POINTS];

static int64_t bytes_of(int i) { return (int64_t)(131072.0 * exp2(0.5 * i)); }

static uint64_t state = 20190616;

static double noise(double most)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return 1.0 - most * (double)(state >> 40) * 0x1p-24;
}

/* Reads of a machine with these caches: what is not there comes from behind. soft: of the last
 * cache, over how many doublings around its size it ends. */
typedef struct machine {
    int64_t l2, last; /* last 0: none behind L2 */
    double l2_gbps, last_gbps, memory_gbps;
    double soft, noise;
} machine;

static double share_in(double cache, double bytes, double soft)
{
    if (cache == 0.0)
        return 0.0;
    if (soft == 0.0)
        return bytes <= cache;
    return fmin(fmax(0.5 - log2(bytes / cache) / soft, 0.0), 1.0);
}

static int64_t knee_of(const machine *m, int64_t l2)
{
    for (int i = 0; i < CACHES_POINTS; i++) {
        const double bytes = (double)bytes_of(i);
        const double in_l2 = bytes <= (double)m->l2;
        const double in_last = fmax(share_in((double)m->last, bytes, m->soft) - in_l2, 0.0);
        const double behind = 1.0 - in_l2 - in_last;
        const double seconds =
            in_l2 / m->l2_gbps + in_last / m->last_gbps + behind / m->memory_gbps;

        points[i] = (caches_point){bytes_of(i), noise(m->noise) / seconds};
    }
    return caches_knee(points, CACHES_POINTS, l2);
}

/* Within a step of the curve, for each way to know L2. */
static void any_last_cache(void **unused)
{
    (void)unused;
    for (int64_t last = 4 * MIB; last <= 64 * MIB; last *= 2)
        for (int64_t l2 = MIB / 4; l2 <= last / 8 && l2 <= 2 * MIB; l2 *= 2)
            for (int soft = 0; soft <= 2; soft++)
                for (int i = 0; i < 20; i++) {
                    const machine m = {l2, last, 90.0, 24.0, 12.0, soft, 0.1};

                    for (int known = 0; known < 2; known++) {
                        const int64_t knee = knee_of(&m, known ? l2 : 0);
                        if (knee < 5 * last / 8 || knee > 3 * last / 2)
                            fail_msg("L2 of %d KiB, last of %d MiB: %d KiB", (int)(l2 / 1024),
                                     (int)(last / MIB), (int)(knee / 1024));
                    }
                }
}

static void none_behind_l2(void **unused)
{
    (void)unused;
    for (int i = 0; i < 20; i++) {
        const machine m = {2 * MIB, 0, 40.0, 1.0, 10.0, 0.0, 0.1};
        assert_int_equal(knee_of(&m, 2 * MIB), 0);
        assert_int_equal(knee_of(&m, 0), 0);
    }
}

/* As large as whatever was read, or as slow as memory. */
static void no_end_to_be_seen(void **unused)
{
    const machine large = {2 * MIB, 1024 * MIB, 90.0, 24.0, 12.0, 0.0, 0.1};
    const machine slow = {2 * MIB, 32 * MIB, 90.0, 13.0, 12.0, 0.0, 0.05};

    (void)unused;
    assert_int_equal(knee_of(&large, 2 * MIB), 0);
    assert_int_equal(knee_of(&slow, 2 * MIB), 0);
    assert_int_equal(caches_knee(points, 5, 2 * MIB), 0); /* too few */
    assert_int_equal(caches_knee(points, 0, 0), 0);
}

/* As read on a virtual machine of an Intel Xeon that shows the whole socket's 300 MiB. */
static void shared_socket(void **unused)
{
    static const double gbps[] = {95, 95, 96, 95, 95, 94, 94, 80, 51, 30, 25, 24,
                                  23, 24, 24, 23, 22, 20, 18, 14, 12, 12, 13};

    (void)unused;
    for (int i = 0; i < CACHES_POINTS; i++)
        points[i] = (caches_point){bytes_of(i), gbps[i]};
    assert_int_equal(caches_knee(points, CACHES_POINTS, 2 * MIB), 64 * MIB);
    assert_int_equal(caches_knee(points, CACHES_POINTS, 0), 64 * MIB);
}

static void whom_to_believe(void **unused)
{
    static const struct {
        int64_t cpu, os, taken, measured, real;
        bool disagree;
    } cases[] = {
        {32, 32, 32, 0, 32, false},   {32, 32, 32, 23, 32, false},   {0, 96, 32, 0, 96, false},
        {0, 96, 32, 64, 96, false},   {0, 0, 32, 0, 32, false},      {0, 0, 32, 23, 23, false},
        {300, 300, 16, 64, 64, true}, {32, 16, 16, 0, 32, true},     {1, 0, 1, 64, 64, true},
        {0, 96, 16, 32, 32, true},    {300, 300, 16, 0, 300, false},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const caches c = {.cpu = cases[i].cpu,
                          .os = cases[i].os,
                          .taken = cases[i].taken,
                          .measured = cases[i].measured};
        assert_int_equal(caches_believed(&c), cases[i].real);
        assert_true(caches_disagree(&c) == cases[i].disagree);
    }
    assert_true(caches_differ(2, 1) && caches_differ(1, 2) && caches_differ(0, 1));
    assert_false(caches_differ(3, 2) || caches_differ(2, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_last_cache),    cmocka_unit_test(none_behind_l2),
        cmocka_unit_test(no_end_to_be_seen), cmocka_unit_test(shared_socket),
        cmocka_unit_test(whom_to_believe),
    };

    return cmocka_run_group_tests_name("caches", tests, NULL, NULL);
}
