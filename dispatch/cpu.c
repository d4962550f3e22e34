/* SPDX-License-Identifier: MIT */
/* CPUID decoding.  It is plain arithmetic on what the source answers, so it is compiled and tested
 * on every architecture; only the instructions of the first section are x86.
 *
 * Sources: Intel SDM volume 2, CPUID, and volume 1, 13.2 and 15.2 (XCR0); AMD APM volume 3,
 * appendix E; the x86-64 psABI, micro-architecture levels. */
#include "cpu.h"

#include "text.h"

#include <string.h>

/* ---- The real CPU ---------------------------------------------------------------------------- */

#if defined(__x86_64__)

#include <cpuid.h>

static void real_cpuid(void *context, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    (void)context;
    __cpuid_count(leaf, subleaf, regs[0], regs[1], regs[2], regs[3]);
}

/* Not _xgetbv(): that wants -mxsave, and this file must be compiled for the baseline. */
static uint64_t real_xgetbv(void *context, uint32_t index)
{
    uint32_t low, high;

    (void)context;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(index));
    return (uint64_t)high << 32 | low;
}

static const ballast__cpu_source real_source = {BALLAST__ARCH_X86_64, real_cpuid, real_xgetbv,
                                                NULL};

#elif defined(__aarch64__)

/* The ABI of AArch64 passes arguments in Advanced SIMD registers, so there is nothing to ask. */
static const ballast__cpu_source real_source = {BALLAST__ARCH_ARM64, NULL, NULL, NULL};

#else

static const ballast__cpu_source real_source = {BALLAST__ARCH_OTHER, NULL, NULL, NULL};

#endif

/* ---- Asking ---------------------------------------------------------------------------------- */

#define EXTENDED UINT32_C(0x80000000) /* the first extended leaf */

typedef struct registers {
    uint32_t a, b, c, d;
} registers;

typedef struct reader {
    const ballast__cpu_source *source;
    uint32_t last_basic, last_extended;
} reader;

/* All zeros beyond the last leaf, where Intel CPUs and old hypervisors repeat some other leaf: what
 * a cache leaf holds there can look like AVX2. */
static registers ask(const reader *r, uint32_t leaf, uint32_t subleaf)
{
    const uint32_t last = leaf >= EXTENDED ? r->last_extended : r->last_basic;
    uint32_t regs[4] = {0, 0, 0, 0};

    if (leaf <= last && r->source->cpuid)
        r->source->cpuid(r->source->context, leaf, subleaf, regs);
    return (registers){regs[0], regs[1], regs[2], regs[3]};
}

static reader reader_of(const ballast__cpu_source *source)
{
    reader r = {source, 0, EXTENDED}; /* enough to ask for the last leaves */
    const uint32_t basic = ask(&r, 0, 0).a;
    const uint32_t extended = ask(&r, EXTENDED, 0).a;

    r.last_basic = basic;
    r.last_extended = extended >> 16 == EXTENDED >> 16 ? extended : 0; /* 0: there are none */
    return r;
}

/* ---- Features -------------------------------------------------------------------------------- */

enum { LEAF1_ECX, LEAF7_EBX, LEAF7_1_EAX, EXTENDED1_ECX, WORDS };

/* In the order in which a reason names them. */
static const struct {
    uint64_t feature;
    char name[12];
    unsigned char word, bit;
} feature_table[] = {
    {BALLAST__CPU_OSXSAVE, "OSXSAVE", LEAF1_ECX, 27},
    {BALLAST__CPU_AVX, "AVX", LEAF1_ECX, 28},
    {BALLAST__CPU_AVX2, "AVX2", LEAF7_EBX, 5},
    {BALLAST__CPU_FMA, "FMA", LEAF1_ECX, 12},
    {BALLAST__CPU_F16C, "F16C", LEAF1_ECX, 29},
    {BALLAST__CPU_BMI1, "BMI1", LEAF7_EBX, 3},
    {BALLAST__CPU_BMI2, "BMI2", LEAF7_EBX, 8},
    {BALLAST__CPU_LZCNT, "LZCNT", EXTENDED1_ECX, 5},
    {BALLAST__CPU_MOVBE, "MOVBE", LEAF1_ECX, 22},
    {BALLAST__CPU_SSE3, "SSE3", LEAF1_ECX, 0},
    {BALLAST__CPU_SSSE3, "SSSE3", LEAF1_ECX, 9},
    {BALLAST__CPU_SSE4_1, "SSE4.1", LEAF1_ECX, 19},
    {BALLAST__CPU_SSE4_2, "SSE4.2", LEAF1_ECX, 20},
    {BALLAST__CPU_POPCNT, "POPCNT", LEAF1_ECX, 23},
    {BALLAST__CPU_CX16, "CMPXCHG16B", LEAF1_ECX, 13},
    {BALLAST__CPU_LAHF, "LAHF", EXTENDED1_ECX, 0},
    {BALLAST__CPU_AVX512F, "AVX512F", LEAF7_EBX, 16},
    {BALLAST__CPU_AVX512BW, "AVX512BW", LEAF7_EBX, 30},
    {BALLAST__CPU_AVX512CD, "AVX512CD", LEAF7_EBX, 28},
    {BALLAST__CPU_AVX512DQ, "AVX512DQ", LEAF7_EBX, 17},
    {BALLAST__CPU_AVX512VL, "AVX512VL", LEAF7_EBX, 31},
    {BALLAST__CPU_AVX512_BF16, "AVX512_BF16", LEAF7_1_EAX, 5},
};

enum { FEATURES = sizeof feature_table / sizeof feature_table[0] };

/* x86-64-v3 without the operating system's part, and what v4 adds to it. */
#define LEVEL_V3                                                                                   \
    (BALLAST__CPU_SSE3 | BALLAST__CPU_SSSE3 | BALLAST__CPU_SSE4_1 | BALLAST__CPU_SSE4_2 |          \
     BALLAST__CPU_POPCNT | BALLAST__CPU_CX16 | BALLAST__CPU_LAHF | BALLAST__CPU_AVX |              \
     BALLAST__CPU_AVX2 | BALLAST__CPU_FMA | BALLAST__CPU_F16C | BALLAST__CPU_BMI1 |                \
     BALLAST__CPU_BMI2 | BALLAST__CPU_LZCNT | BALLAST__CPU_MOVBE)
#define LEVEL_V4                                                                                   \
    (BALLAST__CPU_AVX512F | BALLAST__CPU_AVX512BW | BALLAST__CPU_AVX512CD |                        \
     BALLAST__CPU_AVX512DQ | BALLAST__CPU_AVX512VL)

/* XCR0.  macOS sets the zmm bits for a thread only after its first AVX-512 instruction, so avx512
 * is never chosen there; asking the kernel instead would buy little for the few such machines. */
#define STATE_YMM UINT64_C(0x06) /* xmm, upper halves of ymm */
#define STATE_ZMM UINT64_C(0xe0) /* opmask, upper halves of zmm0-15, zmm16-31 */

static uint64_t features_of(const uint32_t words[WORDS])
{
    uint64_t features = 0;

    for (size_t i = 0; i < FEATURES; i++)
        if (words[feature_table[i].word] >> feature_table[i].bit & 1)
            features |= feature_table[i].feature;
    return features;
}

static uint64_t xcr0_of(const ballast__cpu_source *source, uint64_t features)
{
    if (!(features & BALLAST__CPU_OSXSAVE) || !source->xgetbv)
        return 0;
    return source->xgetbv(source->context, 0);
}

/* ---- Identity -------------------------------------------------------------------------------- */

/* Linux's rule.  The manuals extend the model for families 6 and 15 only, but Zhaoxin's family 7
 * does so as well, and no CPU of another family sets those bits. */
static void decode_signature(uint32_t eax, ballast__cpu *cpu)
{
    const uint32_t family = eax >> 8 & 15;

    cpu->family = family == 15 ? family + (eax >> 20 & 255) : family;
    cpu->model = eax >> 4 & 15;
    if (family >= 6)
        cpu->model |= (eax >> 16 & 15) << 4;
    cpu->stepping = eax & 15;
}

/* The characters of `count` registers, up to the first 0: other than printable ASCII becomes '?',
 * blanks are dropped at both ends and kept once between words.  out: 4 * count + 1 bytes. */
static void decode_text(const uint32_t *regs, size_t count, char *out)
{
    size_t length = 0;

    for (size_t i = 0; i < 4 * count; i++) {
        const uint32_t byte = regs[i / 4] >> 8 * (i % 4) & 255;

        if (byte == 0)
            break;
        if (byte == ' ' && (length == 0 || out[length - 1] == ' '))
            continue;
        out[length++] = byte < ' ' || byte > '~' ? '?' : (char)byte;
    }
    if (length > 0 && out[length - 1] == ' ')
        length--;
    out[length] = 0;
}

static void decode_name(const reader *r, char name[49])
{
    uint32_t regs[12];

    for (uint32_t i = 0; i < 3; i++) {
        const registers part = ask(r, EXTENDED + 2 + i, 0);

        memcpy(regs + 4 * i, (const uint32_t[4]){part.a, part.b, part.c, part.d}, 16);
    }
    decode_text(regs, 12, name);
}

/* ---- Caches ---------------------------------------------------------------------------------- */

#define LEAF_CACHES UINT32_C(4)
#define LEAF_CACHES_AMD UINT32_C(0x8000001d)

/* The product wraps to 0, which is "unknown", only when every bit of every field is set. */
static uint64_t cache_size(registers x)
{
    const uint64_t ways = (x.b >> 22) + 1;
    const uint64_t partitions = (x.b >> 12 & 1023) + 1;
    const uint64_t line = (x.b & 4095) + 1;
    const uint64_t sets = (uint64_t)x.c + 1;

    return ways * partitions * line * sets;
}

static void decode_caches(const reader *r, uint32_t leaf, uint64_t cache[BALLAST__CPU_CACHE_LEVELS])
{
    enum { NONE, DATA, INSTRUCTION, UNIFIED, MOST = 16 }; /* MOST: a broken leaf has no end */

    for (uint32_t i = 0; i < MOST; i++) {
        const registers x = ask(r, leaf, i);
        const uint32_t type = x.a & 31, level = x.a >> 5 & 7;

        if (type == NONE)
            return;
        if ((type == DATA || type == UNIFIED) && level >= 1 && level <= BALLAST__CPU_CACHE_LEVELS &&
            cache[level - 1] == 0)
            cache[level - 1] = cache_size(x);
    }
}

/* AMD's leaf first, where TOPOEXT announces it: some hypervisors fill leaf 4 on AMD as well, with a
 * made-up cache.  Leaf 4 after all if that said nothing. */
static void read_caches(const reader *r, uint64_t cache[BALLAST__CPU_CACHE_LEVELS])
{
    const uint32_t topoext = UINT32_C(1) << 22;

    if (ask(r, EXTENDED + 1, 0).c & topoext)
        decode_caches(r, LEAF_CACHES_AMD, cache);
    if (cache[0] == 0)
        decode_caches(r, LEAF_CACHES, cache);
}

/* ---- Reading --------------------------------------------------------------------------------- */

static void read_x86(const ballast__cpu_source *source, ballast__cpu *cpu)
{
    const reader r = reader_of(source);
    const registers id = ask(&r, 0, 0), leaf1 = ask(&r, 1, 0), leaf7 = ask(&r, 7, 0);
    uint32_t words[WORDS];

    decode_text((const uint32_t[3]){id.b, id.d, id.c}, 3, cpu->vendor);
    decode_name(&r, cpu->name);
    decode_signature(leaf1.a, cpu);

    words[LEAF1_ECX] = leaf1.c;
    words[LEAF7_EBX] = leaf7.b;
    words[LEAF7_1_EAX] = leaf7.a >= 1 ? ask(&r, 7, 1).a : 0; /* the highest subleaf */
    words[EXTENDED1_ECX] = ask(&r, EXTENDED + 1, 0).c;
    cpu->features = features_of(words);
    cpu->xcr0 = xcr0_of(source, cpu->features);
    read_caches(&r, cpu->cache);
}

void ballast__cpu_read(const ballast__cpu_source *source, ballast__cpu *cpu)
{
    if (!source)
        source = &real_source;
    *cpu = (ballast__cpu){.arch = source->arch};
    if (source->arch == BALLAST__ARCH_X86_64)
        read_x86(source, cpu);
}

/* ---- Which ISAs run -------------------------------------------------------------------------- */

static bool has(const ballast__cpu *cpu, uint64_t features, text *why)
{
    const uint64_t missing = features & ~cpu->features;
    const char *before = "the CPU lacks ";

    for (size_t i = 0; i < FEATURES; i++) {
        if (missing & feature_table[i].feature) {
            append(why, before);
            append(why, feature_table[i].name);
            before = ", ";
        }
    }
    return missing == 0;
}

static bool enables_xsave(const ballast__cpu *cpu, text *why)
{
    if (cpu->features & BALLAST__CPU_OSXSAVE)
        return true;
    append(why, "the operating system does not enable XSAVE");
    return false;
}

static bool saves(const ballast__cpu *cpu, uint64_t state, const char *registers_name, text *why)
{
    if ((cpu->xcr0 & state) == state)
        return true;
    append(why, "the operating system does not save ");
    append(why, registers_name);
    append(why, " registers (XCR0 = 0x");
    append_hex(why, cpu->xcr0, 1);
    append(why, ")");
    return false;
}

static bool is_arch(const ballast__cpu *cpu, ballast__arch arch, text *why)
{
    if (cpu->arch == arch)
        return true;
    append(why, "built for another architecture");
    return false;
}

/* The CPU before the operating system: what the user cannot change is the better reason. */
bool ballast__cpu_runs(const ballast__cpu *cpu, ballast__isa isa, char *reason, size_t size)
{
    text why = {reason, size, 0};

    append(&why, "");
    switch (isa) {
    case BALLAST__SCALAR:
        return true;
    case BALLAST__AVX2:
        return is_arch(cpu, BALLAST__ARCH_X86_64, &why) && has(cpu, LEVEL_V3, &why) &&
               enables_xsave(cpu, &why) && saves(cpu, STATE_YMM, "ymm", &why);
    case BALLAST__AVX512:
        return is_arch(cpu, BALLAST__ARCH_X86_64, &why) && has(cpu, LEVEL_V3, &why) &&
               has(cpu, LEVEL_V4, &why) && enables_xsave(cpu, &why) &&
               saves(cpu, STATE_YMM, "ymm", &why) && saves(cpu, STATE_ZMM, "zmm", &why);
    case BALLAST__NEON:
        return is_arch(cpu, BALLAST__ARCH_ARM64, &why);
    case BALLAST__ISA_COUNT:
        break;
    }
    append(&why, "unknown ISA");
    return false;
}

const char *ballast__isa_name(ballast__isa isa)
{
    switch (isa) {
    case BALLAST__SCALAR:
        return "scalar";
    case BALLAST__AVX2:
        return "avx2";
    case BALLAST__AVX512:
        return "avx512";
    case BALLAST__NEON:
        return "neon";
    case BALLAST__ISA_COUNT:
        break;
    }
    return "unknown";
}
