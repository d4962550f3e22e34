/* SPDX-License-Identifier: MIT */
#include "suites.h"

#include <stddef.h>

/* What is written after every loss with dense targets. */
#define U8 "targets=u8,outputs=loss+grad"

/* A minute: every operation once, from L2. */
static const char *const quick[] = {
    "cross_entropy:f32:rows=50,classes=1000",
    "cross_entropy:f32:rows=6,classes=8192",
    "cross_entropy:f32:rows=500,classes=100",
    "cross_entropy:f32:rows=5000,classes=10",
    "cross_entropy:f32:rows=50,classes=1000,outputs=loss",
    "log_softmax:f32:rows=50,classes=1000",
    "softmax:f32:rows=50,classes=1000",
    "log_sum_exp:f32:rows=50,classes=1000",
    "binary_cross_entropy:f32:rows=50,classes=1000," U8,
    "sigmoid_focal:f32:rows=50,classes=1000,gamma=2," U8,
    "sigmoid_focal:f32:rows=50,classes=1000,gamma=0.5," U8,
    "sigmoid_focal:f32:rows=50,classes=1000,gamma=1.7," U8,
    "weighted_sum:f32:count=4000",
    "dot:f32:count=3000",
    "cross_entropy:f32:rows=1,classes=10",
    NULL,
};

/* The widths that people use, in L1 (6000 logits with their gradient) and in L2 (50000). */
static const char *const cache[] = {
    "cross_entropy:f32:rows=1,classes=10",
    "cross_entropy:f32:rows=300,classes=10",
    "cross_entropy:f32:rows=5000,classes=10",
    "cross_entropy:f32:rows=35,classes=80",
    "cross_entropy:f32:rows=625,classes=80",
    "cross_entropy:f32:rows=28,classes=100",
    "cross_entropy:f32:rows=500,classes=100",
    "cross_entropy:f32:rows=3,classes=1000",
    "cross_entropy:f32:rows=50,classes=1000",
    "cross_entropy:f32:rows=50,classes=1000,inplace=1",
    "cross_entropy:f32:rows=50,classes=1000,outputs=loss",
    "cross_entropy:f32:rows=6,classes=8142",
    "cross_entropy:f32:rows=6,classes=8192",
    "cross_entropy:f32:rows=2,classes=32000",
    "log_softmax:f32:rows=5000,classes=10",
    "log_softmax:f32:rows=500,classes=100",
    "log_softmax:f32:rows=50,classes=1000",
    "log_softmax:f32:rows=6,classes=8192",
    "softmax:f32:rows=5000,classes=10",
    "softmax:f32:rows=500,classes=100",
    "softmax:f32:rows=50,classes=1000",
    "softmax:f32:rows=6,classes=8192",
    "softmax:f32:rows=50,classes=1000,inplace=1",
    "log_sum_exp:f32:rows=5000,classes=10",
    "log_sum_exp:f32:rows=50,classes=1000",
    "binary_cross_entropy:f32:rows=3,classes=1000," U8,
    "binary_cross_entropy:f32:rows=625,classes=80," U8,
    "binary_cross_entropy:f32:rows=50,classes=1000," U8,
    "sigmoid_focal:f32:rows=3,classes=1000,gamma=2," U8,
    "sigmoid_focal:f32:rows=625,classes=80,gamma=2," U8,
    "sigmoid_focal:f32:rows=625,classes=80,gamma=0.5," U8,
    "sigmoid_focal:f32:rows=625,classes=80,gamma=1.7," U8,
    "weighted_sum:f32:count=4000",
    "weighted_sum:f32:count=100000",
    "weighted_sum:f32:count=50000,weights=row",
    "dot:f32:count=3000",
    "dot:f32:count=50000",
    NULL,
};

/* Far out of cache: 2^24 logits or a little more, on one thread and on two, and in place. */
static const char *const memory[] = {
    "cross_entropy:f32:rows=1000000,classes=10",
    "cross_entropy:f32:rows=1000000,classes=10,threads=2",
    "cross_entropy:f32:rows=120087,classes=80",
    "cross_entropy:f32:rows=1000000,classes=100",
    "cross_entropy:f32:rows=1000000,classes=100,threads=2",
    "cross_entropy:f32:rows=1000000,classes=100,inplace=1",
    "cross_entropy:f32:rows=16384,classes=1000",
    "cross_entropy:f32:rows=16384,classes=1000,threads=2",
    "cross_entropy:f32:rows=16384,classes=1000,inplace=1",
    "cross_entropy:f32:rows=16384,classes=1000,inplace=1,threads=2",
    "cross_entropy:f32:rows=16384,classes=1000,outputs=loss",
    "cross_entropy:f32:rows=2048,classes=8142",
    "cross_entropy:f32:rows=2048,classes=8192",
    "cross_entropy:f32:rows=2048,classes=8192,inplace=1",
    "cross_entropy:f32:rows=512,classes=32000",
    "cross_entropy:f32:rows=512,classes=32000,threads=2",
    "cross_entropy:f32:rows=128,classes=128256",
    "cross_entropy:f32:rows=128,classes=131072",
    "cross_entropy:f32:rows=128,classes=131072,threads=2",
    "cross_entropy:f32:rows=128,classes=131072,inplace=1",
    "log_softmax:f32:rows=16384,classes=1000",
    "log_softmax:f32:rows=16384,classes=1000,threads=2",
    "log_softmax:f32:rows=16384,classes=1000,inplace=1",
    "softmax:f32:rows=16384,classes=1000",
    "softmax:f32:rows=128,classes=131072",
    "log_sum_exp:f32:rows=16384,classes=1000",
    "binary_cross_entropy:f32:rows=4096,classes=5000," U8,
    "binary_cross_entropy:f32:rows=4096,classes=5000,threads=2," U8,
    "sigmoid_focal:f32:rows=120087,classes=80,gamma=2," U8,
    "sigmoid_focal:f32:rows=120087,classes=80,gamma=2,threads=2," U8,
    "sigmoid_focal:f32:rows=120087,classes=80,gamma=0.5," U8,
    "sigmoid_focal:f32:rows=120087,classes=80,gamma=1.7," U8,
    "weighted_sum:f32:count=16777216",
    "weighted_sum:f32:count=16777216,threads=2",
    "dot:f32:count=16777216",
    NULL,
};

/* How time grows: with the classes, for 2^16 and 2^26 logits in all, and with the rows. */
static const char *const growth[] = {
    "cross_entropy:f32:rows=1024,classes=64",
    "cross_entropy:f32:rows=256,classes=256",
    "cross_entropy:f32:rows=64,classes=1024",
    "cross_entropy:f32:rows=16,classes=4096",
    "cross_entropy:f32:rows=4,classes=16384",
    "cross_entropy:f32:rows=1,classes=65536",
    "cross_entropy:f32:rows=1048576,classes=64",
    "cross_entropy:f32:rows=262144,classes=256",
    "cross_entropy:f32:rows=65536,classes=1024",
    "cross_entropy:f32:rows=16384,classes=4096",
    "cross_entropy:f32:rows=4096,classes=16384",
    "cross_entropy:f32:rows=1024,classes=65536",
    "cross_entropy:f32:rows=256,classes=262144",
    "cross_entropy:f32:rows=1,classes=1000",
    "cross_entropy:f32:rows=10,classes=1000",
    "cross_entropy:f32:rows=100,classes=1000",
    "cross_entropy:f32:rows=1000,classes=1000",
    "cross_entropy:f32:rows=10000,classes=1000",
    "cross_entropy:f32:rows=100000,classes=1000",
    "cross_entropy:f32:rows=1000000,classes=1000",
    NULL,
};

static const suite suites[] = {
    {"quick", "every operation once, from L2", quick},
    {"cache", "the widths that people use, from L1 and L2", cache},
    {"memory", "out of cache, one thread and two, in place", memory},
    {"growth", "more and more classes, more and more rows", growth},
};

const suite *suite_at(int index)
{
    const int count = (int)(sizeof suites / sizeof suites[0]);

    return index >= 0 && index < count ? &suites[index] : NULL;
}
