/* SPDX-License-Identifier: MIT */
/* Groups of 16 bits in the passes of softmax_row.h and one_chunk_rows.h: widened where a pass reads them,
 * rounded where they leave. No pass stores what is only widened. */
#ifndef BALLAST_NARROW_ROWS_H
#define BALLAST_NARROW_ROWS_H

#include "one_chunk_rows.h"

enum { PAIR = 2 * BLOCK };

/* ---- a group of 64 elements; `is_f16` is a constant after inlining ------------------------------- */

LANES void load_narrow_pair(vf *v, const uint16_t *x, const int is_f16)
{
    if (is_f16)
        vload_pair_f16(x, v);
    else
        vload_pair_bf16(x, v);
}

LANES void load_narrow_group(vf *v, const uint16_t *x, const int is_f16)
{
    UNROLL for (int k = 0; k < GROUP_BLOCKS; k += 2) load_narrow_pair(v + k, x + BLOCK * k, is_f16);
}

/* The same, of which `left` elements are there; the other lanes are `fill`. */
LANES_LARGE void load_narrow_some(vf *v, const uint16_t *x, int64_t left, float fill, const int is_f16)
{
    if (left >= GROUP) {
        load_narrow_group(v, x, is_f16);
        return;
    }
    FOR_BLOCKS(k, GROUP_BLOCKS)
    v[k] = is_f16 ? vload_tail_f16(x + BLOCK * k, left - BLOCK * k, fill)
                  : vload_tail_bf16(x + BLOCK * k, left - BLOCK * k, fill);
}

/* As exponentials_of_group(). */
LANES_LARGE void narrow_exponentials(const uint16_t *x, int64_t left, exp_scale scale, vf shift,
                               const int shifted, const int is_f16, float *kept)
{
    vf e[GROUP_BLOCKS];
    load_narrow_some(e, x, left, -LANE_INFINITY, is_f16);
    if (shifted)
        FOR_BLOCKS(k, GROUP_BLOCKS) e[k] = vsub(e[k], shift);
    vexp_scaled(e, e, GROUP_BLOCKS, scale);
    FOR_BLOCKS(k, GROUP_BLOCKS) vstore_f32(kept + BLOCK * k, e[k]);
}

/* A whole group in two steps, between which a loop does what else it does: where registers hold the group
 * meanwhile, its polynomials find their arguments done, and on Zen 5 the loop takes 0.93 of the time. */
enum { REDUCES_FIRST = (int)BLOCKS_IN_FLIGHT == (int)GROUP_BLOCKS };
typedef struct narrow_group {
    const uint16_t *x;
    exp_reduced reduced;
} narrow_group;

LANES narrow_group begin_narrow_exponentials(const uint16_t *x, exp_scale scale, vf shift, const int shifted,
                                             const int is_f16)
{
    narrow_group g = {.x = x};
    if (REDUCES_FIRST) {
        vf v[GROUP_BLOCKS];
        load_narrow_group(v, x, is_f16);
        if (shifted)
            FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vsub(v[k], shift);
        g.reduced = vexp_reduced(v, BLOCKS_IN_FLIGHT, scale);
    }
    return g;
}

LANES void end_narrow_exponentials(const narrow_group *g, exp_scale scale, vf shift, const int shifted,
                                   const int is_f16, float *kept)
{
    if (REDUCES_FIRST) {
        vf e[BLOCKS_IN_FLIGHT]; /* two registers less, or the maximum would be kept in memory */
        vexp_of_reduced(&g->reduced, e, BLOCKS_IN_FLIGHT, anew(exp_coefficient));
        FOR_BLOCKS(k, BLOCKS_IN_FLIGHT) vstore_f32(kept + BLOCK * k, e[k]);
    } else {
        narrow_exponentials(g->x, GROUP, scale, shift, shifted, is_f16, kept);
    }
}

LANES_LARGE void store_narrow_tail(uint16_t *x, int64_t left, vf v, const int is_f16)
{
    if (is_f16)
        vstore_tail_f16(x, left, v);
    else
        vstore_tail_bf16(x, left, v);
}

/* No NaN; cpu_rounds: nothing subnormal, and the CPU can. One loop asks, for a second one would be 2 KB. */
LANES_LARGE void store_narrow_pair(uint16_t *x, const vf *v, const int is_f16, int cpu_rounds)
{
    if (is_f16)
        vstore_pair_f16(x, v[0], v[1]);
    else if (CPU_ROUNDS && cpu_rounds)
        vstore_pair_by_cpu_bf16(x, v[0], v[1]);
    else
        vstore_pair_bf16(x, v[0], v[1]);
}

/* The maxima of x[WORDS_FROM ... WORDS_FROM + 64). A NaN of the type may be taken for a number, or infinity for a NaN;
 * rows that hold either are special whatever their maximum. */
LANES_LARGE vn max_of_words(const uint16_t *x, vn max)
{
    UNROLL for (int k = 0; k < GROUP; k += PAIR) max = vn_max(max, x + k);
    return max;
}

/* Groups begin on lines, where loads of parts of two lines wait for both. What is before the first line, and a last
 * group, which overlaps others, come first. */
_Static_assert(!LOADS_LINES || LINE <= (int)PAIR * (int)sizeof(uint16_t), "a pair reaches to the first line");
LANES int64_t before_narrow_line(const uint16_t *x)
{
    return LOADS_LINES ? (int64_t)((0 - (uintptr_t)x) % LINE / sizeof *x) : 0;
}
LANES_LARGE vn max_of_end_groups(const uint16_t *x, int64_t n)
{
    vn max = vn_none();
    if (n > GROUP) {
        max = max_of_words(x + n - GROUP - WORDS_FROM, max);
        if (LOADS_LINES)
            max = vn_max(max, x);
    }
    return max;
}

/* The group at i, or the last one. */
LANES vn max_of_narrow_group(const uint16_t *x, int64_t i, int64_t n, vn max)
{
    return max_of_words(x + smaller(i, n - GROUP - WORDS_FROM), max);
}

LANES float max_of_lanes(vn words, const uint16_t *x, int64_t n, const int is_f16)
{
    vf max = vset1(-LANE_INFINITY);
    for (int64_t i = 0; i < (n > GROUP ? WORDS_FROM : n); i++)
        max = vmax(vset1(float_of_bits((uint32_t)x[i] << 16)), max);
    max = vn_uppers(words, max);
    return vmax_across(is_f16 ? vuppers_f16(max) : vuppers_bf16(max)) + 0.0f; /* no -0 */
}

#endif
