/* SPDX-License-Identifier: MIT */
/* Any bytes are refused with one line that says where, or are a profile that is written again
 * byte for byte. Bytes are tried as they are and, since no fuzzer finds a checksum, with the
 * line of the right sum after them. With -DFUZZ_REPLAY this is a program that runs the files and
 * folders named as its arguments. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../dispatch/profile.h"
#include "../../dispatch/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* That the profiles of the corpus are of; it runs scalar and AVX2. */
static const profile_machine machine = {"0.1.0-0123456789abcdef",
                                        "AuthenticAMD family 25 model 1 stepping 1 AMD EPYC",
                                        "32768 524288 33554432 0", 2, 3};

static void claim(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz/profile: claim fails: %s\n", what);
    abort();
}

static void check_reason(const char *reason)
{
    const size_t n = strlen(reason);

    claim(strncmp(reason, "line ", 5) == 0, "a reason names its line");
    claim(n < PROFILE_REASON - 1, "a reason is not cut");
    for (size_t i = 0; i < n; i++)
        claim(reason[i] >= ' ' && reason[i] <= '~', "a reason is one printable line");
}

static void check_profile(const profile *p, const char *bytes, size_t size)
{
    static char again[PROFILE_BYTES + 1];
    text t = {again, sizeof again, 0};

    claim(p->count >= 0 && p->count <= PROFILE_CHOICES, "so many choices fit");
    for (int i = 0; i < p->count; i++) {
        const tuned_choice *c = &p->lines[i].chosen;

        claim((unsigned)c->where.operation < TUNED_OPERATIONS, "an operation");
        claim(c->where.dtype >= BALLAST_F32 && c->where.dtype <= BALLAST_F16, "a dtype");
        claim(c->where.shape >= 0 && c->where.shape < SHAPE_CLASSES, "a shape");
        claim((unsigned)c->which < CHOICES, "a choice");
        claim(c->candidate >= 0 && c->candidate < 1 << CHOICE_BITS, "a candidate");
        claim(ballast__candidate((int)c->which, c->candidate) != NULL, "one that there is");
    }
    ballast__profile_format(p, &machine, &t);
    claim(t.length == size && memcmp(again, bytes, size) == 0, "it is written again byte for byte");
}

/* On a copy of exactly this size. */
static int run(const char *bytes, size_t size)
{
    static profile p;
    char reason[PROFILE_REASON], *copy = malloc(size + (size == 0));

    if (!copy)
        abort();
    memcpy(copy, bytes, size);
    const bool good = ballast__profile_parse(copy, size, &machine, &p, reason);
    if (good)
        check_profile(&p, copy, size);
    else
        check_reason(reason);
    free(copy);
    return good;
}

/* Not the function that is tested. */
static uint64_t sum_of(const uint8_t *bytes, size_t size)
{
    uint64_t sum = 14695981039346656037u;

    while (size-- > 0)
        sum = (sum ^ *bytes++) * 1099511628211u;
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static char text[PROFILE_BYTES + 64];

    if (size > PROFILE_BYTES)
        return 0;
    memcpy(text, bytes, size);
    run(text, size);
    const int line = snprintf(text + size, 32, "sum %016" PRIx64 "\n", sum_of(bytes, size));
    if (run(text, size + (size_t)line)) {
        claim(!run(text, size + (size_t)line - 1), "no profile is whole without its last byte");
        text[size / 2] ^= 1;
        claim(!run(text, size + (size_t)line), "nor with another byte in its middle");
    }
    return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.h"
#endif
