/* SPDX-License-Identifier: MIT */
/* The host's floating-point environment, set aside and put back.
 *
 * Reading and writing the control word wait for the arithmetic before them. On the way in it is
 * written only where the host's modes differ from ours; its sticky flags harm nothing. */
#include "fp_environment.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)

/* MXCSR: flags in bits 0 to 5, DAZ 6, masks 7 to 12, rounding 13 and 14, FTZ 15. */
enum { FLAGS = 0x3f, DEFAULT_MODES = 0x1f80 };

typedef uint32_t environment;

static environment read_environment(void)
{
    environment word;

    __asm__ volatile("stmxcsr %0" : "=m"(word));
    return word;
}

static void write_environment(environment word)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(word) : "memory");
}

static environment enter(void)
{
    const environment host = read_environment();

    if ((host & ~(environment)FLAGS) != DEFAULT_MODES)
        write_environment(DEFAULT_MODES);
    return host;
}

/* Whether to look first if flags have been set. Reading waits for all arithmetic, too: on AMD Zen 3 it
 * took 6 ns longer than writing. On Intel Golden Cove what follows a write waits, and nothing is gained
 * by what the CPU would have done meanwhile, up to 50 cycles; mostly the host has the flags already. */
static atomic_bool looks_first;

void ballast__fp_environment_begin(const ballast__cpu *cpu)
{
    atomic_store_explicit(&looks_first, strcmp(cpu->vendor, "GenuineIntel") == 0,
                          memory_order_relaxed);
}

static void leave(const environment *host)
{
    if (!atomic_load_explicit(&looks_first, memory_order_relaxed) || read_environment() != *host)
        write_environment(*host);
}

#elif defined(__aarch64__)

/* FPCR holds the modes, all 0 by default; FPSR the flags. */
typedef struct environment {
    uint64_t modes, flags;
} environment;

static uint64_t read_modes(void)
{
    uint64_t word;

    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
}

static void write_modes(uint64_t word)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(word) : "memory");
}

static uint64_t read_flags(void)
{
    uint64_t word;

    __asm__ volatile("mrs %0, fpsr" : "=r"(word));
    return word;
}

static void write_flags(uint64_t word)
{
    __asm__ volatile("msr fpsr, %0" : : "r"(word) : "memory");
}

static environment enter(void)
{
    const environment host = {read_modes(), read_flags()};

    if (host.modes != 0)
        write_modes(0);
    return host;
}

static void leave(const environment *host)
{
    if (read_flags() != host->flags)
        write_flags(host->flags);
    if (host->modes != 0)
        write_modes(host->modes);
}

#else

#include <fenv.h>

typedef fenv_t environment;

static environment enter(void)
{
    fenv_t host;

    fegetenv(&host);
    fesetenv(FE_DFL_ENV);
    return host;
}

static void leave(const environment *host)
{
    fesetenv(host);
}

#endif

#if !defined(__x86_64__)
void ballast__fp_environment_begin(const ballast__cpu *cpu) { (void)cpu; }
#endif

/* Through a volatile pointer: a compiler that saw the callee could move its arithmetic out from
 * between the two writes, as it does not know that arithmetic depends on the control word. */
void ballast__guarded(void (*work)(void *arg), void *arg)
{
    void (*volatile call)(void *) = work;
    const environment host = enter();

    call(arg);
    leave(&host);
}
