/* SPDX-License-Identifier: MIT */
/* What the CPU is, and which ISAs it and its operating system run. */
#ifndef BALLAST__DISPATCH_CPU_H
#define BALLAST__DISPATCH_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a kernel is compiled for.  avx2 is all of x86-64-v3 and avx512 all of x86-64-v4, because the
 * compiler may use any instruction of the level, not only those that the intrinsics name. */
typedef enum ballast__isa {
    BALLAST__SCALAR,
    BALLAST__AVX2,
    BALLAST__AVX512,
    BALLAST__NEON,
    BALLAST__ISA_COUNT
} ballast__isa;

typedef enum ballast__arch {
    BALLAST__ARCH_OTHER, /* scalar only; 32-bit x86 and Arm are here too */
    BALLAST__ARCH_X86_64,
    BALLAST__ARCH_ARM64
} ballast__arch;

/* Where the facts come from; tests feed made-up values.
 * cpuid   stores eax, ebx, ecx, edx; never asked beyond the highest leaf that the source declares
 * xgetbv  called only where CPUID shows OSXSAVE, as the instruction faults elsewhere
 * Both may be NULL and are called for BALLAST__ARCH_X86_64 only. */
typedef struct ballast__cpu_source {
    ballast__arch arch;
    void (*cpuid)(void *context, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);
    uint64_t (*xgetbv)(void *context, uint32_t index);
    void *context;
} ballast__cpu_source;

/* Bits of ballast__cpu.features: what CPUID shows, usable under this operating system or not. */
#define BALLAST__CPU_SSE3 (UINT64_C(1) << 0)
#define BALLAST__CPU_SSSE3 (UINT64_C(1) << 1)
#define BALLAST__CPU_SSE4_1 (UINT64_C(1) << 2)
#define BALLAST__CPU_SSE4_2 (UINT64_C(1) << 3)
#define BALLAST__CPU_POPCNT (UINT64_C(1) << 4)
#define BALLAST__CPU_CX16 (UINT64_C(1) << 5)
#define BALLAST__CPU_LAHF (UINT64_C(1) << 6)
#define BALLAST__CPU_AVX (UINT64_C(1) << 7)
#define BALLAST__CPU_AVX2 (UINT64_C(1) << 8)
#define BALLAST__CPU_FMA (UINT64_C(1) << 9)
#define BALLAST__CPU_F16C (UINT64_C(1) << 10)
#define BALLAST__CPU_BMI1 (UINT64_C(1) << 11)
#define BALLAST__CPU_BMI2 (UINT64_C(1) << 12)
#define BALLAST__CPU_LZCNT (UINT64_C(1) << 13)
#define BALLAST__CPU_MOVBE (UINT64_C(1) << 14)
#define BALLAST__CPU_AVX512F (UINT64_C(1) << 15)
#define BALLAST__CPU_AVX512BW (UINT64_C(1) << 16)
#define BALLAST__CPU_AVX512CD (UINT64_C(1) << 17)
#define BALLAST__CPU_AVX512DQ (UINT64_C(1) << 18)
#define BALLAST__CPU_AVX512VL (UINT64_C(1) << 19)
#define BALLAST__CPU_OSXSAVE (UINT64_C(1) << 20)
#define BALLAST__CPU_AVX512_BF16 (UINT64_C(1) << 21)

enum { BALLAST__CPU_CACHE_LEVELS = 4 };

/* Text is printable ASCII without blanks at the ends or in runs, so that it can stand in a line of
 * a text file; "" where unknown.  Off x86-64 everything but arch is empty or 0.
 * vendor  "GenuineIntel", "AuthenticAMD", "HygonGenuine", "CentaurHauls" or "Shanghai" (Zhaoxin)
 * cache   bytes of the data or unified cache of level i + 1, one instance; 0 where unknown.  Of the
 *         core that ran the read: the cores of a hybrid CPU differ. */
typedef struct ballast__cpu {
    ballast__arch arch;
    char vendor[13];
    char name[49];
    uint32_t family, model, stepping;
    uint64_t features; /* BALLAST__CPU_... */
    uint64_t xcr0;     /* register state that the operating system saves; 0 without OSXSAVE */
    uint64_t cache[BALLAST__CPU_CACHE_LEVELS];
} ballast__cpu;

/* Reads everything; source NULL is the real CPU.  In a virtual machine each CPUID traps, about
 * fifteen of them: read once and keep the result.  Threads: safe. */
void ballast__cpu_read(const ballast__cpu_source *source, ballast__cpu *cpu);

enum { BALLAST__CPU_REASON_SIZE = 160 }; /* no reason is longer, its final 0 included */

/* Whether the CPU and its operating system run the ISA; says nothing of what was compiled in.
 * If not, `reason` says why, cut to `size` with its final 0, such as "the CPU lacks AVX512VL" or
 * "the operating system does not save zmm registers (XCR0 = 0x7)"; if so, it is "".
 * reason may be NULL if size is 0. */
bool ballast__cpu_runs(const ballast__cpu *cpu, ballast__isa isa, char *reason, size_t size);

/* "scalar", "avx2", "avx512", "neon"; "unknown" for any other value. */
const char *ballast__isa_name(ballast__isa isa);

#endif
