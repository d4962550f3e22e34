/* SPDX-License-Identifier: MIT */
/* Random numbers that are the same on every machine (splitmix64, Steele et al., OOPSLA 2014). */
#ifndef BALLAST_EXAMPLES_RANDOM_H
#define BALLAST_EXAMPLES_RANDOM_H

#include <stdint.h>

static inline uint64_t random_bits(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Uniform in [low, high), or high itself where rounding gets there. */
static inline float random_float(uint64_t *state, float low, float high)
{
    return low + (high - low) * (float)(random_bits(state) >> 40) * 0x1p-24f;
}

#endif
