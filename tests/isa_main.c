/* SPDX-License-Identifier: MIT */
/* Starts a test that is compiled for one ISA, if this CPU has that ISA: this file is compiled for the
 * baseline.  -DTEST_ISA='"avx2"' names the ISA, -DTEST_FUNCTION=lanes_test the test. */
#include <stdio.h>
#include <string.h>

int TEST_FUNCTION(void);

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
    if (!cpu_has(TEST_ISA)) {
        printf("1..0 # SKIP this CPU lacks %s\n", TEST_ISA);
        return 0;
    }
    return TEST_FUNCTION();
}
