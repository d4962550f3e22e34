/* SPDX-License-Identifier: MIT */
/* CPU features: made-up CPUs against the ISAs that they must and must not run, and the real CPU
 * against the compiler's own detection.  Signatures, feature words and names are those of the
 * machines named; XCR0 is what their operating systems set, and some caches are made up. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../dispatch/cpu.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define KIB UINT64_C(1024)

/* ---- Made-up CPUs ---------------------------------------------------------------------------- */

typedef struct machine {
    const char *label;
    uint32_t last_basic, last_extended;
    const char *vendor, *name; /* as CPUID gives them: padded, of up to 12 and 48 characters */
    uint32_t signature, leaf1_ecx, leaf7_ebx, extended1_ecx;
    uint32_t leaf7_1_eax; /* 0: leaf 7 has no subleaf 1 */
    uint64_t xcr0;
    uint32_t cache_leaf;
    uint32_t caches[6][3]; /* eax, ebx, ecx */

    /* what must come out */
    const char *vendor_text, *name_text;
    uint32_t family, model, stepping;
    uint64_t cache[BALLAST__CPU_CACHE_LEVELS];
    const char *avx2, *avx512; /* reason, or NULL: runs */
} machine;

typedef struct fake {
    machine m;
    int xgetbv_calls;
    bool beyond_last; /* a leaf was asked that does not exist */
} fake;

/* Up to 16 characters of `text` from `from`, padded with 0. */
static void put_text(uint32_t *regs, size_t count, const char *text, size_t from)
{
    const size_t length = strlen(text);

    for (size_t i = 0; i < 4 * count; i++) {
        const uint32_t byte = from + i < length ? (unsigned char)text[from + i] : 0;

        regs[i / 4] |= byte << 8 * (i % 4);
    }
}

static void put_vendor(const machine *m, uint32_t regs[4])
{
    uint32_t words[3] = {0, 0, 0};

    put_text(words, 3, m->vendor, 0);
    regs[1] = words[0];
    regs[3] = words[1];
    regs[2] = words[2];
}

static void put_cache(const machine *m, uint32_t subleaf, uint32_t regs[4])
{
    if (subleaf < COUNT(m->caches))
        memcpy(regs, m->caches[subleaf], sizeof m->caches[subleaf]);
}

/* Beyond the last leaf every bit is set: the worst that a CPU or a hypervisor can answer there. */
static void fake_cpuid(void *context, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    fake *f = context;
    const machine *m = &f->m;
    const uint32_t last = leaf >> 31 ? m->last_extended : m->last_basic;

    memset(regs, 0, 16);
    if (leaf > last && leaf != UINT32_C(0x80000000)) {
        f->beyond_last = true;
        memset(regs, 0xff, 16);
    } else if (leaf == 0) {
        regs[0] = m->last_basic;
        put_vendor(m, regs);
    } else if (leaf == 1) {
        regs[0] = m->signature;
        regs[2] = m->leaf1_ecx;
    } else if (leaf == 7) {
        regs[0] = subleaf == 1 ? m->leaf7_1_eax : subleaf == 0 && m->leaf7_1_eax != 0;
        regs[1] = subleaf == 0 ? m->leaf7_ebx : 0;
        f->beyond_last |= subleaf > 1 || (subleaf == 1 && m->leaf7_1_eax == 0);
    } else if (leaf == UINT32_C(0x80000000)) {
        regs[0] = m->last_extended;
    } else if (leaf == UINT32_C(0x80000001)) {
        regs[2] = m->extended1_ecx;
    } else if (leaf >= UINT32_C(0x80000002) && leaf <= UINT32_C(0x80000004)) {
        put_text(regs, 4, m->name, 16 * (size_t)(leaf - UINT32_C(0x80000002)));
    } else if (leaf == m->cache_leaf) {
        put_cache(m, subleaf, regs);
    }
}

static uint64_t fake_xgetbv(void *context, uint32_t index)
{
    fake *f = context;

    f->xgetbv_calls++;
    return index == 0 ? f->m.xcr0 : ~UINT64_C(0);
}

static const machine nehalem = {
    .label = "Nehalem",
    .last_basic = 0xb, .last_extended = 0x80000008,
    .vendor = "GenuineIntel",
    .name = "Intel(R) Core(TM) i7 CPU         920  @ 2.67GHz",
    .signature = 0x000106a4, .leaf1_ecx = 0x0098e3bd, .leaf7_ebx = 0, .extended1_ecx = 0x00000001,
    .cache_leaf = 4,
    .caches = {{0x1c004121, 0x01c0003f, 0x3f}, {0x1c004122, 0x00c0003f, 0x7f},
               {0x1c004143, 0x01c0003f, 0x1ff}, {0x1c03c163, 0x03c0003f, 0x1fff}},
    .vendor_text = "GenuineIntel", .name_text = "Intel(R) Core(TM) i7 CPU 920 @ 2.67GHz",
    .family = 6, .model = 0x1a, .stepping = 4,
    .cache = {32 * KIB, 256 * KIB, 8192 * KIB},
    .avx2 = "the CPU lacks AVX, AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE",
    .avx512 = "the CPU lacks AVX, AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE",
};

static const machine sandy_bridge = {
    .label = "Sandy Bridge",
    .last_basic = 0xd, .last_extended = 0x80000008,
    .vendor = "GenuineIntel", .name = "       Intel(R) Core(TM) i7-2600K CPU @ 3.40GHz",
    .signature = 0x000206a7, .leaf1_ecx = 0x1f9ae3bf, .leaf7_ebx = 0, .extended1_ecx = 0x00000001,
    .xcr0 = 7,
    .cache_leaf = 4,
    .caches = {{0x1c004121, 0x01c0003f, 0x3f}, {0x1c004122, 0x01c0003f, 0x3f},
               {0x1c004143, 0x01c0003f, 0x1ff}, {0x1c03c163, 0x03c0003f, 0x1fff}},
    .vendor_text = "GenuineIntel", .name_text = "Intel(R) Core(TM) i7-2600K CPU @ 3.40GHz",
    .family = 6, .model = 0x2a, .stepping = 7,
    .cache = {32 * KIB, 256 * KIB, 8192 * KIB},
    .avx2 = "the CPU lacks AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE",
    .avx512 = "the CPU lacks AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE",
};

static const machine haswell = {
    .label = "Haswell",
    .last_basic = 0xd, .last_extended = 0x80000008,
    .vendor = "GenuineIntel", .name = "Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz",
    .signature = 0x000306c3, .leaf1_ecx = 0x7ffafbff, .leaf7_ebx = 0x000027ab,
    .extended1_ecx = 0x00000021,
    .xcr0 = 7,
    .cache_leaf = 4,
    .caches = {{0x1c004121, 0x01c0003f, 0x3f}, {0x1c004122, 0x01c0003f, 0x3f},
               {0x1c004143, 0x01c0003f, 0x1ff}, {0x1c03c163, 0x03c0003f, 0x1fff}},
    .vendor_text = "GenuineIntel", .name_text = "Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz",
    .family = 6, .model = 0x3c, .stepping = 3,
    .cache = {32 * KIB, 256 * KIB, 8192 * KIB},
    .avx512 = "the CPU lacks AVX512F, AVX512BW, AVX512CD, AVX512DQ, AVX512VL",
};

static const machine skylake_x = {
    .label = "Skylake-X",
    .last_basic = 0x16, .last_extended = 0x80000008,
    .vendor = "GenuineIntel", .name = "Intel(R) Core(TM) i9-7900X CPU @ 3.30GHz",
    .signature = 0x00050654, .leaf1_ecx = 0x7ffefbbf, .leaf7_ebx = 0xd39ffffb,
    .extended1_ecx = 0x00000121,
    .xcr0 = 0xff,
    .cache_leaf = 4,
    .caches = {{0x3c004121, 0x01c0003f, 0x3f}, {0x3c004122, 0x01c0003f, 0x3f},
               {0x3c004143, 0x03c0003f, 0x3ff}, {0x3c07c163, 0x0280003f, 0x4fff}},
    .vendor_text = "GenuineIntel", .name_text = "Intel(R) Core(TM) i9-7900X CPU @ 3.30GHz",
    .family = 6, .model = 0x55, .stepping = 4,
    .cache = {32 * KIB, 1024 * KIB, 14080 * KIB},
};

static const machine knights_landing = {
    .label = "Knights Landing",
    .last_basic = 0xd, .last_extended = 0x80000008,
    .vendor = "GenuineIntel", .name = "Intel(R) Xeon Phi(TM) CPU 7210 @ 1.30GHz",
    .signature = 0x00050671, .leaf1_ecx = 0x7ff8f3bf, .leaf7_ebx = 0x1c0d23ab,
    .extended1_ecx = 0x00000121,
    .xcr0 = 0xe7,
    .cache_leaf = 4,
    .caches = {{0x1c000121, 0x01c0003f, 0x3f}, {0x1c000122, 0x01c0003f, 0x3f},
               {0x1c004143, 0x03c0003f, 0x3ff}},
    .vendor_text = "GenuineIntel", .name_text = "Intel(R) Xeon Phi(TM) CPU 7210 @ 1.30GHz",
    .family = 6, .model = 0x57, .stepping = 1,
    .cache = {32 * KIB, 1024 * KIB},
    .avx512 = "the CPU lacks AVX512BW, AVX512DQ, AVX512VL",
};

static const machine zen2 = {
    .label = "Zen 2",
    .last_basic = 0x10, .last_extended = 0x80000020,
    .vendor = "AuthenticAMD", .name = "AMD Ryzen 9 3900X 12-Core Processor            ",
    .signature = 0x00870f10, .leaf1_ecx = 0x7ed8320b, .leaf7_ebx = 0x219c91a9,
    .extended1_ecx = 0x75c237ff,
    .xcr0 = 0x207,
    .cache_leaf = 0x8000001d,
    .caches = {{0x00004121, 0x01c0003f, 0x3f}, {0x00004122, 0x01c0003f, 0x3f},
               {0x00004143, 0x01c0003f, 0x3ff}, {0x00014163, 0x03c0003f, 0x3fff}},
    .vendor_text = "AuthenticAMD", .name_text = "AMD Ryzen 9 3900X 12-Core Processor",
    .family = 0x17, .model = 0x71, .stepping = 0,
    .cache = {32 * KIB, 512 * KIB, 16384 * KIB},
    .avx512 = "the CPU lacks AVX512F, AVX512BW, AVX512CD, AVX512DQ, AVX512VL",
};

static const machine zen3 = {
    .label = "Zen 3",
    .last_basic = 0x10, .last_extended = 0x80000023,
    .vendor = "AuthenticAMD", .name = "AMD Ryzen 9 5950X 16-Core Processor            ",
    .signature = 0x00a20f10, .leaf1_ecx = 0x7ed8320b, .leaf7_ebx = 0x219c97a9,
    .extended1_ecx = 0x75c237ff,
    .xcr0 = 0x207,
    .cache_leaf = 0x8000001d,
    .caches = {{0x00004121, 0x01c0003f, 0x3f}, {0x00004122, 0x01c0003f, 0x3f},
               {0x00004143, 0x01c0003f, 0x3ff}, {0x0003c163, 0x03c0003f, 0x7fff}},
    .vendor_text = "AuthenticAMD", .name_text = "AMD Ryzen 9 5950X 16-Core Processor",
    .family = 0x19, .model = 0x21, .stepping = 0,
    .cache = {32 * KIB, 512 * KIB, 32768 * KIB},
    .avx512 = "the CPU lacks AVX512F, AVX512BW, AVX512CD, AVX512DQ, AVX512VL",
};

static const machine zen4 = {
    .label = "Zen 4",
    .last_basic = 0x10, .last_extended = 0x80000028,
    .vendor = "AuthenticAMD", .name = "AMD Ryzen 9 7900X 12-Core Processor            ",
    .signature = 0x00a60f12, .leaf1_ecx = 0x7ef8320b, .leaf7_ebx = 0xf1bf97a9,
    .extended1_ecx = 0x75c237ff, .leaf7_1_eax = 0x00000020,
    .xcr0 = 0x2e7,
    .cache_leaf = 0x8000001d,
    .caches = {{0x00004121, 0x01c0003f, 0x3f}, {0x00004122, 0x01c0003f, 0x3f},
               {0x00004143, 0x01c0003f, 0x7ff}, {0x0002c163, 0x03c0003f, 0x7fff}},
    .vendor_text = "AuthenticAMD", .name_text = "AMD Ryzen 9 7900X 12-Core Processor",
    .family = 0x19, .model = 0x61, .stepping = 2,
    .cache = {32 * KIB, 1024 * KIB, 32768 * KIB},
};

static const machine hygon = {
    .label = "Hygon Dhyana",
    .last_basic = 0xd, .last_extended = 0x8000001f,
    .vendor = "HygonGenuine", .name = "Hygon C86 7185 32-core Processor               ",
    .signature = 0x00900f01, .leaf1_ecx = 0x7cd83209, .leaf7_ebx = 0x009c01a9,
    .extended1_ecx = 0x35c233ff,
    .xcr0 = 7,
    .vendor_text = "HygonGenuine", .name_text = "Hygon C86 7185 32-core Processor",
    .family = 0x18, .model = 0, .stepping = 1,
    .avx512 = "the CPU lacks AVX512F, AVX512BW, AVX512CD, AVX512DQ, AVX512VL",
};

/* The one that shows AVX2 and lacks FMA: testing for AVX2 alone would let it crash. */
static const machine via_eden = {
    .label = "VIA Eden X4",
    .last_basic = 0xd, .last_extended = 0x80000008,
    .vendor = "CentaurHauls", .name = "                      VIA Eden X4 C4250@1.2+GHz",
    .signature = 0x000006fe, .leaf1_ecx = 0x76fa63ab, .leaf7_ebx = 0x000c25ab,
    .extended1_ecx = 0x00000121,
    .xcr0 = 7,
    .cache_leaf = 4,
    .caches = {{0x0c000121, 0x01c0003f, 0x3f}, {0x0c000122, 0x01c0003f, 0x3f},
               {0x0c00c143, 0x03c0003f, 0x7ff}},
    .vendor_text = "CentaurHauls", .name_text = "VIA Eden X4 C4250@1.2+GHz",
    .family = 6, .model = 0x0f, .stepping = 14,
    .cache = {32 * KIB, 2048 * KIB},
    .avx2 = "the CPU lacks FMA",
    .avx512 = "the CPU lacks FMA",
};

/* With the vendor string of Zhaoxin's other chips: blanks at both ends. */
static const machine zhaoxin = {
    .label = "Zhaoxin KH-40000",
    .last_basic = 0x1f, .last_extended = 0x80000008,
    .vendor = "  Shanghai  ", .name = "            ZHAOXIN KaiSheng KH-40000/16@2.2GHz",
    .signature = 0x000507b3, .leaf1_ecx = 0x7ffa73e3, .leaf7_ebx = 0x201c25ab,
    .extended1_ecx = 0x00000121,
    .xcr0 = 0x207,
    .cache_leaf = 4,
    .caches = {{0xfc000121, 0x01c0003f, 0x3f}, {0xfc000122, 0x03c0003f, 0x3f},
               {0xfc000143, 0x01c0003f, 0x1ff}, {0xfc00c163, 0x03c0003f, 0x1fff}},
    .vendor_text = "Shanghai", .name_text = "ZHAOXIN KaiSheng KH-40000/16@2.2GHz",
    .family = 7, .model = 0x5b, .stepping = 3,
    .cache = {32 * KIB, 256 * KIB, 8192 * KIB},
    .avx512 = "the CPU lacks AVX512F, AVX512BW, AVX512CD, AVX512DQ, AVX512VL",
};

static const machine nothing = {
    .label = "no leaf but 0",
    .vendor = "\xff\n\x01 a\tb\x7f", .name = "",
    .vendor_text = "??? a?b?", .name_text = "",
    .avx2 = "the CPU lacks AVX, AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE, SSE3, SSSE3, SSE4.1, "
            "SSE4.2, POPCNT, CMPXCHG16B, LAHF",
    .avx512 = "the CPU lacks AVX, AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE, SSE3, SSSE3, SSE4.1, "
              "SSE4.2, POPCNT, CMPXCHG16B, LAHF",
};

static const machine *const machines[] = {
    &nehalem, &sandy_bridge, &haswell,  &skylake_x, &knights_landing, &zen2,
    &zen3,    &zen4,         &hygon,    &via_eden,  &zhaoxin,         &nothing,
};

/* ---- Checking -------------------------------------------------------------------------------- */

static void check_text(const char *label, const char *what, const char *want, const char *got)
{
    if (strcmp(want, got) != 0)
        fail_msg("%s: %s: expected \"%s\", got \"%s\"", label, what, want, got);
}

static void check_number(const char *label, const char *what, uint64_t want, uint64_t got)
{
    if (want != got)
        fail_msg("%s: %s: expected 0x%llx, got 0x%llx", label, what, (unsigned long long)want,
                 (unsigned long long)got);
}

static void check_isa(const char *label, const ballast__cpu *cpu, ballast__isa isa,
                      const char *want)
{
    char reason[BALLAST__CPU_REASON_SIZE];
    const bool runs = ballast__cpu_runs(cpu, isa, reason, sizeof reason);

    check_text(label, ballast__isa_name(isa), want ? want : "", reason);
    check_number(label, ballast__isa_name(isa), !want, runs);
}

static void check_isas(const char *label, const ballast__cpu *cpu, const char *avx2,
                       const char *avx512)
{
    check_isa(label, cpu, BALLAST__SCALAR, NULL);
    check_isa(label, cpu, BALLAST__AVX2, avx2);
    check_isa(label, cpu, BALLAST__AVX512, avx512);
    check_isa(label, cpu, BALLAST__NEON, "built for another architecture");
}

/* Reads the made-up CPU; whatever it is, no instruction may be asked for that would fault. */
static ballast__cpu read_machine(const char *label, const machine *m)
{
    const bool osxsave = m->last_basic >= 1 && (m->leaf1_ecx >> 27 & 1);
    fake f = {*m, 0, false};
    const ballast__cpu_source source = {BALLAST__ARCH_X86_64, fake_cpuid, fake_xgetbv, &f};
    ballast__cpu cpu;

    memset(&cpu, 0xa5, sizeof cpu);
    ballast__cpu_read(&source, &cpu);
    check_number(label, "asked beyond the last leaf", 0, f.beyond_last);
    check_number(label, "xgetbv calls", osxsave, (uint64_t)f.xgetbv_calls);
    check_number(label, "xcr0", osxsave ? m->xcr0 : 0, cpu.xcr0);
    check_number(label, "AVX512_BF16", m->last_basic >= 7 && (m->leaf7_1_eax >> 5 & 1),
                 (cpu.features & BALLAST__CPU_AVX512_BF16) != 0);
    return cpu;
}

static void known_machines(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(machines); i++) {
        const machine *m = machines[i];
        const ballast__cpu cpu = read_machine(m->label, m);

        check_text(m->label, "vendor", m->vendor_text, cpu.vendor);
        check_text(m->label, "name", m->name_text, cpu.name);
        check_number(m->label, "family", m->family, cpu.family);
        check_number(m->label, "model", m->model, cpu.model);
        check_number(m->label, "stepping", m->stepping, cpu.stepping);
        for (size_t level = 0; level < COUNT(cpu.cache); level++)
            check_number(m->label, "cache", m->cache[level], cpu.cache[level]);
        check_isas(m->label, &cpu, m->avx2, m->avx512);
    }
}

/* ---- The same CPUs under a hypervisor or operating system that hides something --------------- */

#define ALL UINT32_MAX /* as the machine has it */
#define NO_XSAVE "the operating system does not enable XSAVE"
#define NO_YMM(xcr0) "the operating system does not save ymm registers (XCR0 = " xcr0 ")"
#define NO_ZMM(xcr0) "the operating system does not save zmm registers (XCR0 = " xcr0 ")"
#define LACKS_F "the CPU lacks AVX512F, AVX512BW, AVX512CD, AVX512DQ, AVX512VL"
#define LACKS_LEAF7 "the CPU lacks AVX2, BMI1, BMI2"

static const struct {
    const char *label;
    const machine *base;
    uint32_t leaf1_ecx, leaf7_ebx, extended1_ecx; /* bits kept */
    uint32_t last_basic, last_extended;           /* at most */
    uint64_t xcr0;
    const char *avx2, *avx512;
} variants[] = {
    {"Haswell without OSXSAVE", &haswell, ~(UINT32_C(1) << 27), ALL, ALL, ALL, ALL, 7,
     NO_XSAVE, LACKS_F},
    {"Skylake-X without OSXSAVE", &skylake_x, ~(UINT32_C(1) << 27), ALL, ALL, ALL, ALL, 0xff,
     NO_XSAVE, NO_XSAVE},
    {"Haswell, x87 state only", &haswell, ALL, ALL, ALL, ALL, ALL, 1, NO_YMM("0x1"), LACKS_F},
    {"Haswell, xmm state only", &haswell, ALL, ALL, ALL, ALL, ALL, 3, NO_YMM("0x3"), LACKS_F},
    {"Haswell, ymm without xmm", &haswell, ALL, ALL, ALL, ALL, ALL, 5, NO_YMM("0x5"), LACKS_F},
    {"Skylake-X, ymm state only", &skylake_x, ALL, ALL, ALL, ALL, ALL, 7, NULL, NO_ZMM("0x7")},
    {"Skylake-X, no opmask state", &skylake_x, ALL, ALL, ALL, ALL, ALL, 0xc7, NULL,
     NO_ZMM("0xc7")},
    {"Skylake-X, no state", &skylake_x, ALL, ALL, ALL, ALL, ALL, 0, NO_YMM("0x0"), NO_YMM("0x0")},
    {"Skylake-X, zmm without ymm", &skylake_x, ALL, ALL, ALL, ALL, ALL, 0xe3, NO_YMM("0xe3"),
     NO_YMM("0xe3")},
    {"Skylake-X, high bits of XCR0", &skylake_x, ALL, ALL, ALL, ALL, ALL,
     UINT64_C(0x80000000000602e7), NULL, NULL},
    {"Skylake-X, only high bits", &skylake_x, ALL, ALL, ALL, ALL, ALL, UINT64_C(0xe700000003),
     NO_YMM("0xe700000003"), NO_YMM("0xe700000003")},
    {"Skylake-X without VL", &skylake_x, ALL, ~(UINT32_C(1) << 31), ALL, ALL, ALL, 0xff, NULL,
     "the CPU lacks AVX512VL"},
    {"Haswell, last leaf 6", &haswell, ALL, ALL, ALL, 6, ALL, 7, LACKS_LEAF7, LACKS_LEAF7},
    {"Zen 4, last leaf 6", &zen4, ALL, ALL, ALL, 6, ALL, 0xe7, LACKS_LEAF7, LACKS_LEAF7},
    {"Haswell, last leaf 1", &haswell, ALL, ALL, ALL, 1, ALL, 7, LACKS_LEAF7, LACKS_LEAF7},
    {"Haswell, no extended leaf", &haswell, ALL, ALL, ALL, ALL, 0, 7, "the CPU lacks LZCNT, LAHF",
     "the CPU lacks LZCNT, LAHF"},
    {"Haswell, last extended 0x80000000", &haswell, ALL, ALL, ALL, ALL, 0x80000000, 7,
     "the CPU lacks LZCNT, LAHF", "the CPU lacks LZCNT, LAHF"},
    {"Zen 2, no TOPOEXT", &zen2, ALL, ALL, ~(UINT32_C(1) << 22), ALL, ALL, 7, NULL, LACKS_F},
    {"Zen 2, last extended 0x8000001c", &zen2, ALL, ALL, ALL, ALL, 0x8000001c, 7, NULL, LACKS_F},
};

static uint32_t at_most(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void hidden_features(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(variants); i++) {
        machine m = *variants[i].base;
        ballast__cpu cpu;

        m.leaf1_ecx &= variants[i].leaf1_ecx;
        m.leaf7_ebx &= variants[i].leaf7_ebx;
        m.extended1_ecx &= variants[i].extended1_ecx;
        m.last_basic = at_most(m.last_basic, variants[i].last_basic);
        m.last_extended = at_most(m.last_extended, variants[i].last_extended);
        m.xcr0 = variants[i].xcr0;
        cpu = read_machine(variants[i].label, &m);
        check_isas(variants[i].label, &cpu, variants[i].avx2, variants[i].avx512);
    }
}

/* Each bit that the levels need, cleared alone; the positions stand here again on purpose. */
static const struct {
    const char *name;
    int word; /* 1: leaf 1 ecx, 7: leaf 7 ebx, 8: leaf 0x80000001 ecx */
    int bit;
    bool v4; /* needed by avx512 only */
} needed[] = {
    {"SSE3", 1, 0, false},        {"SSSE3", 1, 9, false},    {"FMA", 1, 12, false},
    {"CMPXCHG16B", 1, 13, false}, {"SSE4.1", 1, 19, false},  {"SSE4.2", 1, 20, false},
    {"MOVBE", 1, 22, false},      {"POPCNT", 1, 23, false},  {"AVX", 1, 28, false},
    {"F16C", 1, 29, false},       {"BMI1", 7, 3, false},     {"AVX2", 7, 5, false},
    {"BMI2", 7, 8, false},        {"AVX512F", 7, 16, true},  {"AVX512DQ", 7, 17, true},
    {"AVX512CD", 7, 28, true},    {"AVX512BW", 7, 30, true}, {"AVX512VL", 7, 31, true},
    {"LAHF", 8, 0, false},        {"LZCNT", 8, 5, false},
};

static void set_needed(machine *m, size_t but)
{
    m->leaf1_ecx = UINT32_C(1) << 27;
    m->leaf7_ebx = 0;
    m->extended1_ecx = 0;
    for (size_t i = 0; i < COUNT(needed); i++) {
        uint32_t *word = needed[i].word == 1   ? &m->leaf1_ecx
                         : needed[i].word == 7 ? &m->leaf7_ebx
                                               : &m->extended1_ecx;

        if (i != but)
            *word |= UINT32_C(1) << needed[i].bit;
    }
}

static void one_feature_missing(void **state)
{
    machine m = skylake_x;
    ballast__cpu cpu;

    (void)state;
    m.xcr0 = 0xe6;
    for (size_t i = 0; i < COUNT(needed); i++) {
        char want[64];

        set_needed(&m, i);
        cpu = read_machine(needed[i].name, &m);
        (void)snprintf(want, sizeof want, "the CPU lacks %s", needed[i].name);
        check_isas(needed[i].name, &cpu, needed[i].v4 ? NULL : want, want);
    }
    set_needed(&m, COUNT(needed));
    cpu = read_machine("only what is needed", &m);
    check_isas("only what is needed", &cpu, NULL, NULL);
}

static void every_xcr0(void **state)
{
    (void)state;
    for (uint32_t xcr0 = 0; xcr0 < 1024; xcr0++) {
        const bool ymm = (xcr0 >> 1 & 1) && (xcr0 >> 2 & 1);
        const bool zmm = ymm && (xcr0 >> 5 & 1) && (xcr0 >> 6 & 1) && (xcr0 >> 7 & 1);
        machine m = skylake_x;
        ballast__cpu cpu;

        m.xcr0 = xcr0;
        cpu = read_machine("Skylake-X", &m);
        assert_int_equal(ballast__cpu_runs(&cpu, BALLAST__AVX2, NULL, 0), ymm);
        assert_int_equal(ballast__cpu_runs(&cpu, BALLAST__AVX512, NULL, 0), zmm);
    }
}

/* ---- Identity and caches --------------------------------------------------------------------- */

static void signatures(void **state)
{
    static const struct {
        const char *label;
        uint32_t signature, family, model, stepping;
    } table[] = {
        {"80486", 0x00000435, 4, 3, 5},
        {"Pentium, reserved bits set", 0x000f0543, 5, 4, 3},
        {"Athlon", 0x00000642, 6, 4, 2},
        {"Pentium 4", 0x00000f29, 15, 2, 9},
        {"Prescott 2M", 0x00000f43, 15, 4, 3},
        {"Opteron K10", 0x00100f42, 16, 4, 2},
        {"family 6 ignores the extended family", 0x0ff106a4, 6, 0x1a, 4},
        {"every bit", 0xffffffff, 270, 0xff, 15},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        machine m = haswell;
        ballast__cpu cpu;

        m.signature = table[i].signature;
        cpu = read_machine(table[i].label, &m);
        check_number(table[i].label, "family", table[i].family, cpu.family);
        check_number(table[i].label, "model", table[i].model, cpu.model);
        check_number(table[i].label, "stepping", table[i].stepping, cpu.stepping);
    }
}

static void texts(void **state)
{
    static const struct {
        const char *given, *want;
    } table[] = {
        {"", ""},
        {" ", ""},
        {"                                                ", ""},
        {"x                                              y", "x y"},
        {"0123456789abcdef0123456789abcdef0123456789abcdef",
         "0123456789abcdef0123456789abcdef0123456789abcdef"},
        {"            ends exactly at the last character", "ends exactly at the last character"},
        {"line\nbreak \x80\xff end ", "line?break ?? end"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        machine m = haswell;
        ballast__cpu cpu;

        m.name = table[i].given;
        cpu = read_machine("name", &m);
        check_text("name", table[i].given, table[i].want, cpu.name);
    }
}

static void odd_caches(void **state)
{
    static const uint32_t table[6][3] = {
        {0x102, 0x01c0003f, 0x3f}, /* level 0 */
        {0x1a1, 0x01c0003f, 0x3f}, /* level 5 */
        {0x181, 0xffffffff, 0xffffffff}, /* 2^64 bytes: unknown */
        {0x183, 0x03c0003f, 0x1ffff},
        {0x163, 0x03c0103f, 0xffffffff}, /* two partitions, 2^32 sets */
        {0x163, 0x01c0003f, 0x3f},       /* level 3 a second time */
    };
    machine m = haswell;
    ballast__cpu cpu;

    (void)state;
    memcpy(m.caches, table, sizeof table);
    cpu = read_machine("odd caches", &m);
    check_number("odd caches", "level 1", 0, cpu.cache[0]);
    check_number("odd caches", "level 2", 0, cpu.cache[1]);
    check_number("odd caches", "level 3", UINT64_C(1) << 43, cpu.cache[2]);
    check_number("odd caches", "level 4", 128 * KIB * KIB, cpu.cache[3]);
}

static void amd_caches_hidden(void **state)
{
    machine m = zen2;
    ballast__cpu cpu;

    (void)state;
    m.cache_leaf = 4; /* TOPOEXT set and 0x8000001d empty: leaf 4 is the second choice */
    cpu = read_machine("Zen 2, caches in leaf 4", &m);
    check_number("Zen 2, caches in leaf 4", "level 3", 16384 * KIB, cpu.cache[2]);

    m = zen2;
    m.extended1_ecx &= ~(UINT32_C(1) << 22);
    cpu = read_machine("Zen 2, no TOPOEXT", &m);
    check_number("Zen 2, no TOPOEXT", "level 1", 0, cpu.cache[0]);
}

/* ---- Garbage --------------------------------------------------------------------------------- */

typedef struct noise {
    uint64_t seed; /* 0: every bit set; odd: all leaves exist, so that noise reaches each decoder */
    bool osxsave;
} noise;

static uint32_t noise_word(const noise *n, uint64_t key)
{
    uint64_t x = n->seed + key * UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return n->seed == 0 ? UINT32_MAX : (uint32_t)(x >> 32);
}

static void noise_cpuid(void *context, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    noise *n = context;

    for (uint32_t i = 0; i < 4; i++)
        regs[i] = noise_word(n, (uint64_t)leaf << 16 | (uint64_t)subleaf << 4 | i);
    if (n->seed % 2 == 1 && (leaf == 0 || leaf == UINT32_C(0x80000000)))
        regs[0] = leaf | 0xffff;
    if (leaf == 1)
        n->osxsave = regs[2] >> 27 & 1;
}

static uint64_t noise_xgetbv(void *context, uint32_t index)
{
    const noise *n = context;

    (void)index;
    assert_true(n->osxsave);
    return noise_word(n, UINT64_C(1) << 60);
}

static void check_printable(const char *text, size_t size)
{
    const char *end = memchr(text, 0, size);

    assert_non_null(end);
    for (; text < end; text++)
        assert_in_range(*text, ' ', '~');
}

static void garbage(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        noise n = {seed, false};
        const ballast__cpu_source source = {BALLAST__ARCH_X86_64, noise_cpuid, noise_xgetbv, &n};
        char reason[BALLAST__CPU_REASON_SIZE];
        ballast__cpu cpu;
        bool avx2, avx512;

        ballast__cpu_read(&source, &cpu);
        check_printable(cpu.vendor, sizeof cpu.vendor);
        check_printable(cpu.name, sizeof cpu.name);
        avx2 = ballast__cpu_runs(&cpu, BALLAST__AVX2, reason, sizeof reason);
        assert_int_equal(avx2, reason[0] == 0);
        avx512 = ballast__cpu_runs(&cpu, BALLAST__AVX512, reason, sizeof reason);
        assert_int_equal(avx512, reason[0] == 0);
        assert_true(avx2 || !avx512);
    }
}

/* ---- Other architectures, arguments ---------------------------------------------------------- */

static void forbidden_cpuid(void *context, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    (void)context;
    (void)leaf;
    (void)subleaf;
    (void)regs;
    fail_msg("CPUID was asked off x86-64");
}

static void check_other(ballast__arch arch, const char *label, const char *neon)
{
    const ballast__cpu_source source = {arch, forbidden_cpuid, NULL, NULL};
    ballast__cpu cpu;

    memset(&cpu, 0xa5, sizeof cpu);
    ballast__cpu_read(&source, &cpu);
    check_number(label, "arch", arch, cpu.arch);
    check_number(label, "features", 0, cpu.features);
    check_number(label, "model", 0, cpu.family | cpu.model | cpu.stepping);
    check_text(label, "vendor", "", cpu.vendor);
    check_text(label, "name", "", cpu.name);
    cpu.features = ~UINT64_C(0); /* not even then */
    cpu.xcr0 = ~UINT64_C(0);
    check_isa(label, &cpu, BALLAST__SCALAR, NULL);
    check_isa(label, &cpu, BALLAST__AVX2, "built for another architecture");
    check_isa(label, &cpu, BALLAST__AVX512, "built for another architecture");
    check_isa(label, &cpu, BALLAST__NEON, neon);
}

static void other_architectures(void **state)
{
    (void)state;
    check_other(BALLAST__ARCH_ARM64, "arm64", NULL);
    check_other(BALLAST__ARCH_OTHER, "riscv64", "built for another architecture");
}

static void source_without_functions(void **state)
{
    const ballast__cpu_source source = {BALLAST__ARCH_X86_64, NULL, NULL, NULL};
    fake f = {haswell, 0, false};
    const ballast__cpu_source no_xgetbv = {BALLAST__ARCH_X86_64, fake_cpuid, NULL, &f};
    ballast__cpu cpu;

    (void)state;
    ballast__cpu_read(&source, &cpu);
    check_isas("no functions", &cpu, nothing.avx2, nothing.avx512);
    check_text("no functions", "vendor", "", cpu.vendor);
    check_text("no functions", "name", "", cpu.name);
    check_number("no functions", "model", 0, cpu.family | cpu.model | cpu.stepping);
    check_number("no functions", "features", 0, cpu.features);
    ballast__cpu_read(&no_xgetbv, &cpu);
    check_isas("no xgetbv", &cpu, NO_YMM("0x0"), LACKS_F);
}

static void short_reasons(void **state)
{
    const char *whole = nothing.avx2;
    const ballast__cpu cpu = read_machine(nothing.label, &nothing);

    (void)state;
    assert_true(strlen(whole) < BALLAST__CPU_REASON_SIZE);
    for (size_t size = 0; size <= BALLAST__CPU_REASON_SIZE; size++) {
        char reason[BALLAST__CPU_REASON_SIZE + 1];
        const size_t kept = size == 0 ? 0 : at_most((uint32_t)size - 1, (uint32_t)strlen(whole));

        memset(reason, '#', sizeof reason);
        assert_false(ballast__cpu_runs(&cpu, BALLAST__AVX2, reason, size));
        assert_memory_equal(reason, whole, kept);
        assert_int_equal(reason[kept], size == 0 ? '#' : 0);
        for (size_t i = kept + 1; i < sizeof reason; i++)
            assert_int_equal(reason[i], '#');
    }
}

static void names(void **state)
{
    const ballast__cpu cpu = read_machine(zen4.label, &zen4);

    (void)state;
    assert_string_equal(ballast__isa_name(BALLAST__SCALAR), "scalar");
    assert_string_equal(ballast__isa_name(BALLAST__AVX2), "avx2");
    assert_string_equal(ballast__isa_name(BALLAST__AVX512), "avx512");
    assert_string_equal(ballast__isa_name(BALLAST__NEON), "neon");
    assert_string_equal(ballast__isa_name(BALLAST__ISA_COUNT), "unknown");
    assert_string_equal(ballast__isa_name((ballast__isa)1000), "unknown");
    check_isa("no ISA", &cpu, BALLAST__ISA_COUNT, "unknown ISA");
    check_isa("no ISA", &cpu, (ballast__isa)1000, "unknown ISA");
}

/* ---- The real CPU ---------------------------------------------------------------------------- */

static void print_real(const ballast__cpu *cpu)
{
    print_message("# \"%s\" \"%s\" family %u model %u stepping %u xcr0 0x%llx\n", cpu->vendor,
                  cpu->name, cpu->family, cpu->model, cpu->stepping,
                  (unsigned long long)cpu->xcr0);
    for (size_t i = 0; i < COUNT(cpu->cache); i++)
        print_message("# level %u: %llu KiB\n", (unsigned)i + 1,
                      (unsigned long long)(cpu->cache[i] / KIB));
    for (int i = 0; i < BALLAST__ISA_COUNT; i++) {
        char reason[BALLAST__CPU_REASON_SIZE];
        const bool runs = ballast__cpu_runs(cpu, (ballast__isa)i, reason, sizeof reason);

        print_message("# %s: %s\n", ballast__isa_name((ballast__isa)i), runs ? "runs" : reason);
    }
}

#if defined(__x86_64__)

#define SAME(feature, name)                                                                        \
    check_number("real CPU", name, __builtin_cpu_supports(name) != 0, (shown & (feature)) != 0)

/* The compiler counts what is wider than xmm only if the operating system saves it. */
static uint64_t usable_features(const ballast__cpu *cpu)
{
    uint64_t features = cpu->features;

    if ((cpu->xcr0 & 6) != 6)
        features &= ~(BALLAST__CPU_AVX | BALLAST__CPU_AVX2 | BALLAST__CPU_FMA | BALLAST__CPU_F16C);
    if ((cpu->xcr0 & 0xe6) != 0xe6)
        features &= ~(BALLAST__CPU_AVX512F | BALLAST__CPU_AVX512BW | BALLAST__CPU_AVX512CD |
                      BALLAST__CPU_AVX512DQ | BALLAST__CPU_AVX512VL | BALLAST__CPU_AVX512_BF16);
    return features;
}

static void check_real(const ballast__cpu *cpu)
{
    const uint64_t shown = usable_features(cpu);

    __builtin_cpu_init();
    check_number("real CPU", "arch", BALLAST__ARCH_X86_64, cpu->arch);
    check_number("real CPU", "intel", __builtin_cpu_is("intel") != 0,
                 strcmp(cpu->vendor, "GenuineIntel") == 0);
    SAME(BALLAST__CPU_SSE3, "sse3");
    SAME(BALLAST__CPU_SSSE3, "ssse3");
    SAME(BALLAST__CPU_SSE4_1, "sse4.1");
    SAME(BALLAST__CPU_SSE4_2, "sse4.2");
    SAME(BALLAST__CPU_POPCNT, "popcnt");
    SAME(BALLAST__CPU_AVX, "avx");
    SAME(BALLAST__CPU_AVX2, "avx2");
    SAME(BALLAST__CPU_FMA, "fma");
    SAME(BALLAST__CPU_BMI1, "bmi");
    SAME(BALLAST__CPU_BMI2, "bmi2");
    SAME(BALLAST__CPU_AVX512F, "avx512f");
    SAME(BALLAST__CPU_AVX512BW, "avx512bw");
    SAME(BALLAST__CPU_AVX512CD, "avx512cd");
    SAME(BALLAST__CPU_AVX512DQ, "avx512dq");
    SAME(BALLAST__CPU_AVX512VL, "avx512vl");
#if !defined(__clang__) && __GNUC__ >= 12
    check_number("real CPU", "x86-64-v3", __builtin_cpu_supports("x86-64-v3") != 0,
                 ballast__cpu_runs(cpu, BALLAST__AVX2, NULL, 0));
    check_number("real CPU", "x86-64-v4", __builtin_cpu_supports("x86-64-v4") != 0,
                 ballast__cpu_runs(cpu, BALLAST__AVX512, NULL, 0));
#endif
}

#elif defined(__aarch64__)

static void check_real(const ballast__cpu *cpu)
{
    check_number("real CPU", "arch", BALLAST__ARCH_ARM64, cpu->arch);
    check_isa("real CPU", cpu, BALLAST__NEON, NULL);
    check_isa("real CPU", cpu, BALLAST__AVX2, "built for another architecture");
}

#else

static void check_real(const ballast__cpu *cpu)
{
    check_number("real CPU", "arch", BALLAST__ARCH_OTHER, cpu->arch);
}

#endif

static void real_cpu(void **state)
{
    ballast__cpu cpu, again;

    (void)state;
    errno = 12345;
    ballast__cpu_read(NULL, &cpu);
    ballast__cpu_read(NULL, &again);
    assert_int_equal(errno, 12345);
    print_real(&cpu);
    check_number("real CPU", "features a second time", cpu.features, again.features);
    check_isa("real CPU", &cpu, BALLAST__SCALAR, NULL);
    check_real(&cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_machines),
        cmocka_unit_test(hidden_features),
        cmocka_unit_test(one_feature_missing),
        cmocka_unit_test(every_xcr0),
        cmocka_unit_test(signatures),
        cmocka_unit_test(texts),
        cmocka_unit_test(odd_caches),
        cmocka_unit_test(amd_caches_hidden),
        cmocka_unit_test(garbage),
        cmocka_unit_test(other_architectures),
        cmocka_unit_test(source_without_functions),
        cmocka_unit_test(short_reasons),
        cmocka_unit_test(names),
        cmocka_unit_test(real_cpu),
    };

    return cmocka_run_group_tests_name("cpu", tests, NULL, NULL);
}
