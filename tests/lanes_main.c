/* SPDX-License-Identifier: MIT */
/* Starts tests/lanes.c, which is compiled for one ISA, if this CPU has that ISA: this file is
 * compiled for the baseline.  -DLANES_ISA='"avx2"' names the ISA. */
#include <stdio.h>
#include <string.h>

int lanes_test(void);

static int cpu_has(const char *isa)
{
#if defined(__x86_64__) || defined(__i386__)
    int avx2, avx512;

    __builtin_cpu_init();
    avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
    avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
    if (!strcmp(isa, "avx2"))
        return avx2;
    if (!strcmp(isa, "avx512"))
        return avx512;
#endif
    return !strcmp(isa, "scalar") || !strcmp(isa, "neon");
}

int main(void)
{
    if (!cpu_has(LANES_ISA)) {
        printf("lanes: skipped, this CPU lacks %s\n", LANES_ISA);
        return 77;
    }
    return lanes_test();
}
