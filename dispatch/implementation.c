/* SPDX-License-Identifier: MIT */
/* Which implementations there are, and which one is used.
 *
 * What was found out at first use is one atomic word: which implementations run here, which was
 * chosen, and why. Threads that race to find out all arrive at the same CPU, and the first word
 * published is the one that everybody uses: no lock, and BALLAST_ISA counts as read once. */
#include "implementation.h"

#include "fp_environment.h"
#include "profile.h"
#include "tuning.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLES(isa)                                                                               \
    &ballast__kernels_f32_##isa, &ballast__kernels_bf16_##isa, &ballast__kernels_f16_##isa

/* Slowest first. */
static const ballast_implementation list[] = {
    {BALLAST__SCALAR, TABLES(scalar), 24.0},
#if BALLAST_HAVE_NEON
    {BALLAST__NEON, TABLES(neon), 2.0},
#endif
#if BALLAST_HAVE_AVX2
    {BALLAST__AVX2, TABLES(avx2), 1.0},
#endif
#if BALLAST_HAVE_AVX512
    {BALLAST__AVX512, TABLES(avx512), 0.5},
#endif
};

enum { IMPLEMENTATIONS = sizeof list / sizeof list[0] };

/* ---- What runs here -------------------------------------------------------------------------- */

typedef enum choice_reason {
    FASTEST,
    BY_VARIABLE,
    VARIABLE_UNKNOWN,
    VARIABLE_TOO_HIGH
} choice_reason;

/* The published word: KNOWN, reason, choice, and a bit for each implementation that runs. */
enum { RUNS_BITS = 8, CHOICE_SHIFT = RUNS_BITS, REASON_SHIFT = CHOICE_SHIFT + 8 };
#define KNOWN (1u << 31)

_Static_assert((int)IMPLEMENTATIONS <= (int)RUNS_BITS, "the published word has a bit for each");

static atomic_uint found; /* 0: not found out yet */
static atomic_int forced; /* 1 + index of the one that set_default named; 0: none */

static bool runs(unsigned word, int index) { return word >> index & 1; }
static int choice_of(unsigned word) { return (int)(word >> CHOICE_SHIFT & 0xff); }
static choice_reason reason_of(unsigned word)
{
    return (choice_reason)(word >> REASON_SHIFT & 0xff);
}

static int index_of_name(const char *name)
{
    for (int i = 0; i < IMPLEMENTATIONS; i++)
        if (strcmp(ballast__isa_name(list[i].isa), name) == 0)
            return i;
    return -1;
}

static int index_of(const ballast_implementation *implementation)
{
    for (int i = 0; i < IMPLEMENTATIONS; i++)
        if (implementation == &list[i])
            return i;
    return -1;
}

/* Lowers `*choice` to what BALLAST_ISA names; never raises it. */
static choice_reason apply_variable(unsigned runnable, int *choice)
{
    const char *name = getenv("BALLAST_ISA");

    if (!name || !*name)
        return FASTEST;
    const int named = index_of_name(name);
    if (named < 0)
        return VARIABLE_UNKNOWN;
    if (!runs(runnable, named))
        return VARIABLE_TOO_HIGH;
    *choice = named;
    return BY_VARIABLE;
}

static unsigned find_out(void)
{
    ballast__cpu cpu;
    unsigned runnable = 0;
    int choice = 0;

    ballast__cpu_read(NULL, &cpu);
    ballast__tuning_begin(&cpu);
    ballast__fp_environment_begin(&cpu);
    for (int i = 0; i < IMPLEMENTATIONS; i++)
        if (ballast__cpu_runs(&cpu, list[i].isa, NULL, 0)) {
            runnable |= 1u << i;
            choice = i;
        }
    const choice_reason reason = apply_variable(runnable, &choice);
    return KNOWN | (unsigned)reason << REASON_SHIFT | (unsigned)choice << CHOICE_SHIFT | runnable;
}

static unsigned known(void)
{
    unsigned word = atomic_load_explicit(&found, memory_order_relaxed);

    if (word == 0) {
        const unsigned mine = find_out();

        if (atomic_compare_exchange_strong(&found, &word, mine)) {
            word = mine;
            ballast__profile_begin(); /* others go on without it: a matter of speed only */
        }
    }
    return word;
}

const ballast_implementation *
ballast__implementation_resolve(const ballast_implementation *wanted)
{
    const unsigned word = known();

    if (wanted) {
        const int index = index_of(wanted);
        return index >= 0 && runs(word, index) ? wanted : NULL;
    }
    const int named = atomic_load_explicit(&forced, memory_order_relaxed);
    return &list[named ? named - 1 : choice_of(word)];
}

const ballast_implementation *ballast__implementation_tuned(ballast__isa isa)
{
    const unsigned word = known();
    const int index = index_of_name(ballast__isa_name(isa));
    const bool named = reason_of(word) == BY_VARIABLE ||
                       atomic_load_explicit(&forced, memory_order_relaxed) != 0;

    if (named || index < 0 || !runs(word, index))
        return ballast__implementation_resolve(NULL);
    return &list[index];
}

unsigned ballast__isas(void)
{
    const unsigned word = known();
    unsigned isas = 0;

    for (int i = 0; i < IMPLEMENTATIONS; i++)
        if (runs(word, i))
            isas |= 1u << list[i].isa;
    return isas;
}

/* ---- Public ---------------------------------------------------------------------------------- */

static void write_reason(char *reason, size_t size, const char *text)
{
    const int saved_errno = errno;

    if (reason && size > 0)
        snprintf(reason, size, "%s", text);
    errno = saved_errno;
}

const ballast_implementation *ballast_implementation_at(int index)
{
    return index >= 0 && index < IMPLEMENTATIONS ? &list[index] : NULL;
}

const ballast_implementation *ballast_implementation_find(const char *name)
{
    return name ? ballast_implementation_at(index_of_name(name)) : NULL;
}

const char *ballast_implementation_name(const ballast_implementation *implementation)
{
    return index_of(implementation) < 0 ? "unknown" : ballast__isa_name(implementation->isa);
}

int ballast_implementation_supported(const ballast_implementation *implementation, char *reason,
                                     size_t size)
{
    char why_not[BALLAST__CPU_REASON_SIZE] = "not an implementation of this library";
    const int index = index_of(implementation);
    const bool supported = index >= 0 && runs(known(), index);

    if (index >= 0 && reason) {
        ballast__cpu cpu; /* read again rather than kept: who asks why does not ask often */

        ballast__cpu_read(NULL, &cpu);
        ballast__cpu_runs(&cpu, implementation->isa, why_not, sizeof why_not);
    }
    write_reason(reason, size, why_not);
    return supported;
}

const ballast_implementation *ballast_implementation_default(char *reason, size_t size)
{
    static const char *const texts[] = {
        [FASTEST] = "the fastest that runs here",
        [BY_VARIABLE] = "named by BALLAST_ISA",
        [VARIABLE_UNKNOWN] =
            "the fastest that runs here; BALLAST_ISA names no implementation of this library",
        [VARIABLE_TOO_HIGH] =
            "the fastest that runs here; this machine cannot run the one that BALLAST_ISA names",
    };
    const int named = atomic_load_explicit(&forced, memory_order_relaxed);
    const unsigned word = known();

    write_reason(reason, size,
                 named ? "set by ballast_implementation_set_default" : texts[reason_of(word)]);
    return &list[named ? named - 1 : choice_of(word)];
}

ballast_status ballast_implementation_set_default(const ballast_implementation *implementation)
{
    if (implementation && !ballast__implementation_resolve(implementation))
        return BALLAST_ERR_ISA;
    atomic_store_explicit(&forced, implementation ? index_of(implementation) + 1 : 0,
                          memory_order_relaxed);
    return BALLAST_OK;
}
