/* SPDX-License-Identifier: MIT */
/* Compiled for any CPU; told by Meson what -march=native had. */
#include "rooflines.h"

int native_code_runs(void)
{
#if NATIVE_AVX512
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#elif NATIVE_AVX2
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}
