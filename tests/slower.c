/* SPDX-License-Identifier: MIT */
/* What makes a Ballast worse, for the test of `ballast compare`: linked with --wrap, so that the
 * kernel of cross-entropy takes SLOWER_PERCENT longer, or gets another last bit. */
#include "../kernels/kernels.h"

#include <time.h>

#if SLOWER_PERCENT
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
#endif

typedef void kernel(const cross_entropy_job *job, int64_t begin, int64_t end);

static void run(kernel *real, const cross_entropy_job *job, int64_t begin, int64_t end)
{
#if SLOWER_PERCENT
    const double start = now();
    real(job, begin, end);
    const double ready = now();
    while (now() < ready + 0.01 * SLOWER_PERCENT * (ready - start))
        continue;
#else
    real(job, begin, end);
    if (job->grad && begin == 0 && end > 0)
        *(uint32_t *)job->grad ^= 1;
#endif
}

#define WRAP(isa)                                                                                 \
    kernel __real_ballast__cross_entropy_f32_##isa, __wrap_ballast__cross_entropy_f32_##isa;      \
    void __wrap_ballast__cross_entropy_f32_##isa(const cross_entropy_job *job, int64_t begin,     \
                                                 int64_t end)                                     \
    {                                                                                             \
        run(__real_ballast__cross_entropy_f32_##isa, job, begin, end);                            \
    }
WRAP(scalar)
#if BALLAST_HAVE_AVX2
WRAP(avx2)
#endif
#if BALLAST_HAVE_AVX512
WRAP(avx512)
#endif
#if BALLAST_HAVE_NEON
WRAP(neon)
#endif
