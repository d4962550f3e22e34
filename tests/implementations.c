/* SPDX-License-Identifier: MIT */
/* Implementations: listed, found, asked, forced; and what BALLAST_ISA does, in child processes, as
 * the library reads it once. */
#define _POSIX_C_SOURCE 200809L

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ballast/ballast.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *self;

static const ballast_implementation *fastest(void)
{
    const ballast_implementation *found = NULL, *it;

    for (int i = 0; (it = ballast_implementation_at(i)) != NULL; i++)
        if (ballast_implementation_supported(it, NULL, 0))
            found = it;
    return found;
}

static void listed_and_found(void **state)
{
    const ballast_implementation *it;
    int count = 0;

    (void)state;
    assert_string_equal(ballast_implementation_name(ballast_implementation_at(0)), "scalar");
    for (; (it = ballast_implementation_at(count)) != NULL; count++)
        assert_ptr_equal(ballast_implementation_find(ballast_implementation_name(it)), it);
    assert_in_range(count, 1, 4);
    assert_null(ballast_implementation_at(-1));
    assert_null(ballast_implementation_at(count));
    assert_null(ballast_implementation_find("AVX2"));
    assert_null(ballast_implementation_find(""));
    assert_null(ballast_implementation_find(NULL));
    assert_string_equal(ballast_implementation_name(NULL), "unknown");
}

/* What is supported says nothing, what is not says why; and nothing that is not can be used. */
static void not_above_the_cpu(void **state)
{
    const ballast_implementation *it;

    (void)state;
    for (int i = 0; (it = ballast_implementation_at(i)) != NULL; i++) {
        const ballast_implementation *before = ballast_implementation_default(NULL, 0);
        char reason[200] = "untouched";
        const int supported = ballast_implementation_supported(it, reason, sizeof reason);

        assert_int_equal(supported, ballast_implementation_supported(it, NULL, 0));
        assert_int_equal(supported, reason[0] == 0);
        assert_int_equal(ballast_implementation_set_default(it),
                         supported ? BALLAST_OK : BALLAST_ERR_ISA);
        assert_ptr_equal(ballast_implementation_default(NULL, 0), supported ? it : before);
    }
    assert_int_equal(ballast_implementation_set_default(NULL), BALLAST_OK);
    assert_int_equal(ballast_implementation_supported(ballast_implementation_at(0), NULL, 0), 1);
}

static void strangers_are_refused(void **state)
{
    const int stranger = 0;
    const ballast_implementation *it = (const ballast_implementation *)(const void *)&stranger;
    char reason[64];

    (void)state;
    assert_int_equal(ballast_implementation_supported(it, reason, sizeof reason), 0);
    assert_string_equal(reason, "not an implementation of this library");
    assert_int_equal(ballast_implementation_supported(NULL, reason, 8), 0);
    assert_string_equal(reason, "not an ");
    assert_int_equal(ballast_implementation_set_default(it), BALLAST_ERR_ISA);
    assert_string_equal(ballast_implementation_name(it), "unknown");
}

static void default_and_its_reason(void **state)
{
    char reason[200];

    (void)state;
    assert_ptr_equal(ballast_implementation_default(reason, sizeof reason), fastest());
    assert_string_equal(reason, "the fastest that runs here");
    assert_int_equal(ballast_implementation_set_default(ballast_implementation_at(0)), BALLAST_OK);
    assert_ptr_equal(ballast_implementation_default(reason, sizeof reason),
                     ballast_implementation_at(0));
    assert_string_equal(reason, "set by ballast_implementation_set_default");
    assert_int_equal(ballast_implementation_set_default(NULL), BALLAST_OK);
    assert_ptr_equal(ballast_implementation_default(NULL, 0), fastest());
}

static void errno_is_kept(void **state)
{
    char reason[8];

    (void)state;
    errno = 123;
    ballast_implementation_default(reason, sizeof reason);
    ballast_implementation_supported(ballast_implementation_at(0), reason, sizeof reason);
    assert_int_equal(errno, 123);
}

/* ---- BALLAST_ISA ----------------------------------------------------------------------------- */

enum { THREADS = 16 };

static void *ask(void *arg)
{
    (void)arg;
    return (void *)(uintptr_t)ballast_implementation_default(NULL, 0);
}

/* First use from many threads at once: all get the same answer, which goes to standard output. */
static int child(void)
{
    pthread_t threads[THREADS];
    char reason[200];

    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, ask, NULL) != 0)
            return 1;
    const ballast_implementation *it = ballast_implementation_default(reason, sizeof reason);
    for (int i = 0; i < THREADS; i++) {
        void *answer;

        pthread_join(threads[i], &answer);
        if (answer != (const void *)it)
            return 1;
    }
    /* too late to change anything */
    setenv("BALLAST_ISA", "scalar", 1);
    if (ballast_implementation_default(NULL, 0) != it)
        return 1;
    printf("%s: %s\n", ballast_implementation_name(it), reason);
    return 0;
}

static void check_child(const char *variable, const char *name, const char *reason)
{
    char command[512], expected[256], line[256] = "";

    if (variable)
        setenv("BALLAST_ISA", variable, 1);
    else
        unsetenv("BALLAST_ISA");
    snprintf(command, sizeof command, "'%s' --child", self);
    snprintf(expected, sizeof expected, "%s: %s\n", name, reason);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    assert_non_null(fgets(line, sizeof line, output));
    assert_int_equal(pclose(output), 0);
    unsetenv("BALLAST_ISA");
    assert_string_equal(line, expected);
}

static void variable_lowers(void **state)
{
    const ballast_implementation *it;

    (void)state;
    for (int i = 0; (it = ballast_implementation_at(i)) != NULL; i++) {
        const char *name = ballast_implementation_name(it);

        if (ballast_implementation_supported(it, NULL, 0))
            check_child(name, name, "named by BALLAST_ISA");
        else
            check_child(name, ballast_implementation_name(fastest()),
                        "the fastest that runs here; this machine cannot run the one that "
                        "BALLAST_ISA names");
    }
}

static void garbage_is_ignored(void **state)
{
    static const char *const garbage[] = {"avx1024", "AVX2", " scalar", "scalar ", "0", "%s%n"};
    const char *name = ballast_implementation_name(fastest());

    (void)state;
    check_child(NULL, name, "the fastest that runs here");
    check_child("", name, "the fastest that runs here");
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++)
        check_child(garbage[i], name,
                    "the fastest that runs here; BALLAST_ISA names no implementation of this "
                    "library");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listed_and_found),      cmocka_unit_test(not_above_the_cpu),
        cmocka_unit_test(strangers_are_refused), cmocka_unit_test(default_and_its_reason),
        cmocka_unit_test(errno_is_kept),         cmocka_unit_test(variable_lowers),
        cmocka_unit_test(garbage_is_ignored),
    };

    if (argc > 1 && strcmp(argv[1], "--child") == 0)
        return child();
    self = argv[0];
    unsetenv("BALLAST_ISA");
    return cmocka_run_group_tests_name("implementations", tests, NULL, NULL);
}
