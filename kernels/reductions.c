/* SPDX-License-Identifier: MIT */
/* Reductions of a vector: weighted sum, mean, sum of squares and log-sum-exp.
 *
 * The order of a sum, counted from the start of its leaf. Four f32 accumulators; lanes stay apart;
 * missing elements of the last span are 0 (weights too).
 *
 *   sum w x, x^2, w x^2   span of 256: block b into accumulator b % 4, by a fused multiply-add of w
 *                         and x; of x and x; of w x, rounded, and x
 *   sum x, sum w          span of 1024, in steps of 16 blocks: accumulator k adds
 *                         (b[k] + b[k + 8]) + (b[k + 4] + b[k + 12])
 *
 * At the end of a span the accumulators are added (0 + 2) + (1 + 3), and the sixteen lanes go into
 * sixteen doubles, which are folded at the end of the leaf. So a term passes through at most seven
 * roundings to f32, however long the vector is.
 *
 * Error, in ULP of the sum of |terms|, worst found: sum 1.5, dot 1.6, squares 1.5, weighted squares
 * 2.0, weighted mean 1.8; uniform data of 4096 elements 0.3. A longer span for products takes the
 * same time and loses 2 ULP (512) to 16 (4096) on equal elements; for the plain sum 2048 saves 3 %
 * of the time and loses 2. Four accumulators, not eight: eight times two registers and a load are
 * more than AVX2 has, and the tree of four blocks keeps the chains of the plain sum short.
 *
 * Range: lanes are f32, so a sum overflows where one lane's partial sum does. w x is formed before
 * w x^2: a weight of 0 rules out everything finite. 0 * inf is NaN, as in IEEE arithmetic. */
#include "softmax_row.h"

enum { PRODUCT_SPAN = 256, SUM_STEP = 256, SUM_SPAN = 1024 };

enum terms { PRODUCTS, SQUARES, WEIGHTED_SQUARES };

LANES double canonical_double(double x)
{
    const uint64_t bits = UINT64_C(0x7ff8000000000000);
    double nan;
    memcpy(&nan, &bits, sizeof nan);
    return x == x ? x : nan;
}


/* n elements from x on, of which `left` exist: x itself, or a copy in which `fill` follows. */
LANES const storage *whole(const storage *x, int64_t left, int64_t n, float fill, storage *copy)
{
    if (left >= n)
        return x;
    store_fill(copy, n, fill);
    memcpy(copy, x, (size_t)left * sizeof *copy);
    return copy;
}

/* ---- sums ------------------------------------------------------------------------------------ */

/* In scalar, too: a word a block, which takes three times as long in a loop. */
#define FOR_SUMS(k, blocks) UNROLL_ALWAYS for (int k = 0; k < (blocks); k++)

/* Blocks 0, 4, 8 and 12 from x on, of which `left` elements exist. */
LANES vf four_blocks(const storage *x, int64_t left)
{
    vf a[4];
    FOR_SUMS(k, 4) a[k] = vload_tail(x + 4 * BLOCK * k, left - 4 * BLOCK * k, 0.0f);
    return vadd(vadd(a[0], a[2]), vadd(a[1], a[3]));
}

/* One span of a plain sum, of which `left` elements exist: whole steps, then what is left. */
LANES_LARGE vd add_span(vd total, const storage *x, int64_t left)
{
    vf sum[GROUP_BLOCKS];
    if (left >= SUM_STEP)
        FOR_SUMS(k, GROUP_BLOCKS) sum[k] = four_blocks(x + BLOCK * k, SUM_STEP);
    else
        FOR_SUMS(k, GROUP_BLOCKS) sum[k] = four_blocks(x + BLOCK * k, left - BLOCK * k);
    int64_t i = SUM_STEP;
    for (; i < SUM_SPAN && i + SUM_STEP <= left; i += SUM_STEP)
        FOR_SUMS(k, GROUP_BLOCKS)
            sum[k] = vadd(sum[k], four_blocks(x + i + BLOCK * k, SUM_STEP));
    if (i < SUM_SPAN && i < left)
        FOR_SUMS(k, GROUP_BLOCKS)
            sum[k] = vadd(sum[k], four_blocks(x + i + BLOCK * k, left - i - BLOCK * k));
    return vd_add(total, fold_blocks(sum));
}

/* Two whole spans side by side, added in order. */
LANES_LARGE vd add_two_spans(vd total, const storage *x)
{
    const storage *const y = x + SUM_SPAN;
    vf a[GROUP_BLOCKS], b[GROUP_BLOCKS];
    FOR_SUMS(k, GROUP_BLOCKS) a[k] = four_blocks(x + BLOCK * k, SUM_STEP);
    FOR_SUMS(k, GROUP_BLOCKS) b[k] = four_blocks(y + BLOCK * k, SUM_STEP);
    for (int64_t i = SUM_STEP; i < SUM_SPAN; i += SUM_STEP) {
        FOR_SUMS(k, GROUP_BLOCKS) a[k] = vadd(a[k], four_blocks(x + i + BLOCK * k, SUM_STEP));
        FOR_SUMS(k, GROUP_BLOCKS) b[k] = vadd(b[k], four_blocks(y + i + BLOCK * k, SUM_STEP));
    }
    return vd_add(vd_add(total, fold_blocks(a)), fold_blocks(b));
}

/* Side by side where registers have room: two streams come from L2 faster than one (AMD Zen 5: a sixth of
 * the time less). */
LANES vd add_spans(vd total, const storage *x, int64_t n)
{
    int64_t i = 0;
    if (BLOCKS_IN_FLIGHT == GROUP_BLOCKS)
        for (; i + 2 * SUM_SPAN <= n; i += 2 * SUM_SPAN)
            total = add_two_spans(total, x + i);
    for (; i < n; i += SUM_SPAN)
        total = add_span(total, x + i, n - i);
    return total;
}

LANES vf add_terms(enum terms terms, vf w, vf x, vf sum)
{
    if (terms == SQUARES)
        return vfma(x, x, sum);
    return vfma(terms == WEIGHTED_SQUARES ? vmul(w, x) : w, x, sum);
}

/* A group of a sum of products, of which `left` elements exist. SQUARES reads no weights. */
LANES_LARGE void add_group(vf *sum, enum terms terms, const storage *x, const storage *w, int64_t left)
{
    const storage *const factor = terms == SQUARES ? x : w;
    FOR_SUMS(k, GROUP_BLOCKS)
        sum[k] = add_terms(terms, vload_tail(factor + BLOCK * k, left - BLOCK * k, 0.0f),
                           vload_tail(x + BLOCK * k, left - BLOCK * k, 0.0f), sum[k]);
}

/* One span, of which `left` elements exist. */
LANES vd add_product_span(vd total, enum terms terms, const storage *x, const storage *w,
                          int64_t left)
{
    vf sum[GROUP_BLOCKS];
    FOR_SUMS(k, GROUP_BLOCKS) sum[k] = vset1(0.0f);
    int64_t i = 0;
    for (; i < PRODUCT_SPAN && i + GROUP <= left; i += GROUP)
        add_group(sum, terms, x + i, w + i, GROUP);
    if (i < PRODUCT_SPAN && i < left)
        add_group(sum, terms, x + i, w + i, left - i);
    return vd_add(total, fold_blocks(sum));
}

/* total += the terms of elements [0, n), by spans. */
LANES vd add_products(vd total, enum terms terms, const storage *x, const storage *w, int64_t n)
{
    for (int64_t i = 0; i < n; i += PRODUCT_SPAN)
        total = add_product_span(total, terms, x + i, w + i, n - i);
    return total;
}

/* ---- leaves ---------------------------------------------------------------------------------- */

/* The leaf that begins at element i: where its elements are and where its parts go. The first is found
 * without a division: it is all that a short sum has. */
typedef struct leaf {
    const storage_format *format;
    const char *x, *w;
    int64_t n;
    double *parts;
} leaf;

LANES leaf leaf_at(const reduce_job *job, int64_t i, int64_t end)
{
    const char *x = job->x, *w = job->weights;
    const int64_t bytes = bytes_of(job->format, i);
    return (leaf){job->format, x + bytes, w ? w + bytes : NULL, smaller(end - i, job->leaf_rows),
                  job->partial + (i == 0 ? 0 : i / job->leaf_rows * REDUCE_PARTS)};
}

/* Elements [i, i + n) of x or w. */
LANES const storage *elements_of(const leaf *l, const char *vector, int64_t i, int64_t n,
                                 storage *wide)
{
    return read_elements(l->format, vector + bytes_of(l->format, i), n, wide);
}

/* Adds the terms of n elements to `total`; where there is none, returns their sum. Out of line: a short sum
 * then needs no more registers and stack than it uses, which is a tenth of its time, and formats have no loops
 * of their own. */
typedef double add_function(const storage *x, const storage *w, int64_t n, vd *total);

#define DEFINE_ADD(name, add, ...)                                                                \
    static double name(const storage *x, const storage *w, int64_t n, vd *total)                  \
    {                                                                                             \
        const vd sum = add(total ? *total : vd_zero(), __VA_ARGS__, n);                           \
        (void)w;                                                                                  \
        if (!total)                                                                               \
            return canonical_double(vd_across(sum));                                              \
        *total = sum;                                                                             \
        return 0.0;                                                                               \
    }
DEFINE_ADD(add_x, add_spans, x)
DEFINE_ADD(add_w_x, add_products, PRODUCTS, x, w)
DEFINE_ADD(add_x_x, add_products, SQUARES, x, x)
DEFINE_ADD(add_w_x_x, add_products, WEIGHTED_SQUARES, x, w)

/* Elements that have a format are taken by pieces: whole spans, of which two fit L1. */
enum { PIECE = CHUNK };

LANES_SELDOM double add_pieces(const leaf *l, add_function *add)
{
    storage wide[2 * PIECE];
    vd total = vd_zero();
    for (int64_t i = 0, step = l->w ? PIECE : 2 * PIECE; i < l->n; i += step) {
        const int64_t n = smaller(step, l->n - i);
        const storage *x = elements_of(l, l->x, i, n, wide);
        add(x, l->w ? elements_of(l, l->w, i, n, wide + PIECE) : NULL, n, &total);
    }
    return canonical_double(vd_across(total));
}

LANES double sum_of(const leaf *l, add_function *add)
{
    return l->format ? add_pieces(l, add)
                     : add((const storage *)l->x, (const storage *)l->w, l->n, NULL);
}

void KERNEL(weighted_sum)(const reduce_job *job, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += job->leaf_rows) {
        const leaf l = leaf_at(job, i, end);
        l.parts[0] = sum_of(&l, l.w ? add_w_x : add_x);
    }
}

/* The two sums are taken one after the other over spans that stay in L1: together their
 * accumulators would not fit the registers. */
LANES_SELDOM void weighted_mean_of_leaf(const leaf *l)
{
    storage wide_x[SUM_SPAN], wide_w[SUM_SPAN];
    vd products = vd_zero(), weights = vd_zero();
    for (int64_t i = 0; i < l->n; i += SUM_SPAN) {
        const int64_t n = smaller(SUM_SPAN, l->n - i);
        const storage *w = elements_of(l, l->w, i, n, wide_w);
        products = add_products(products, PRODUCTS, elements_of(l, l->x, i, n, wide_x), w, n);
        weights = add_span(weights, w, n);
    }
    l->parts[0] = canonical_double(vd_across(products));
    l->parts[1] = canonical_double(vd_across(weights));
}

void KERNEL(weighted_mean)(const reduce_job *job, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += job->leaf_rows) {
        const leaf l = leaf_at(job, i, end);
        const int is_short = end - begin <= REDUCE_SPAN && !l.format;
        if (l.w && !is_short) {
            weighted_mean_of_leaf(&l);
        } else {
            l.parts[0] = sum_of(&l, l.w ? add_w_x : add_x);
            l.parts[1] = l.w ? add_x((const storage *)l.w, NULL, l.n, NULL) : (double)l.n;
        }
    }
}

void KERNEL(weighted_sum_of_squares)(const reduce_job *job, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += job->leaf_rows) {
        const leaf l = leaf_at(job, i, end);
        l.parts[0] = sum_of(&l, l.w ? add_w_x_x : add_x_x);
    }
}

/* ---- log-sum-exp ----------------------------------------------------------------------------- */

/* A sum of w exp(x), of one chunk or of the chunks of a leaf so far: the element of the largest
 * logit is left out and kept beside the others, so that what is small against it keeps its digits.
 * Others that are not finite stand for themselves and need no reference. */
typedef struct exponential_sum {
    double others;   /* relative to ref */
    double left_out; /* the largest element's exponential, relative to ref; 0 where there is none */
    double weight;   /* its weight */
    reference ref;
} exponential_sum;

LANES double scaled(double total, double factor)
{
    return total - total == 0.0 ? total * factor : total;
}

/* Four blocks of logits; -inf where the weight is 0, so that whatever stands there adds nothing. */
LANES_LARGE void load_logits(vf *logits, const storage *x, const storage *w)
{
    const vf nothing = vset1(-LANE_INFINITY), zero = vset1(0.0f);
    FOR_BLOCKS(k, GROUP_BLOCKS) logits[k] = vload(x + BLOCK * k);
    if (w)
        FOR_BLOCKS(k, GROUP_BLOCKS)
            logits[k] = vselect(veq(vload(w + BLOCK * k), zero), nothing, logits[k]);
}

/* A group of 64 elements, filled up with logits of -inf and weights of 0. */
typedef struct group {
    const storage *x;
    const storage *w;
} group;

LANES group group_at(const storage *x, const storage *w, int64_t left, storage *copy)
{
    return (group){whole(x, left, GROUP, -LANE_INFINITY, copy),
                   w ? whole(w, left, GROUP, 0.0f, copy + GROUP) : NULL};
}

LANES float max_of_weighted(const storage *x, const storage *w, int64_t n)
{
    storage copy[2 * GROUP];
    vf max[GROUP_BLOCKS];
    FOR_BLOCKS(k, GROUP_BLOCKS) max[k] = vset1(-LANE_INFINITY);
    for (int64_t i = 0; i < n; i += GROUP) {
        const group g = group_at(x + i, w ? w + i : NULL, n - i, copy);
        vf logits[GROUP_BLOCKS];
        load_logits(logits, g.x, g.w);
        FOR_BLOCKS(k, GROUP_BLOCKS) max[k] = vmax(logits[k], max[k]);
    }
    return vmax_across(vmax(vmax(max[0], max[2]), vmax(max[1], max[3]))) + 0.0f; /* no -0 */
}

/* The index of the group in which the largest logit is first met, and its lane there. */
typedef struct place {
    int64_t group;
    int lane;
} place;

LANES place place_of(float max, const storage *x, const storage *w, int64_t n)
{
    storage copy[2 * GROUP];
    for (int64_t i = 0; i < n; i += GROUP) {
        const group g = group_at(x + i, w ? w + i : NULL, n - i, copy);
        vf logits[GROUP_BLOCKS];
        vm found[GROUP_BLOCKS];
        load_logits(logits, g.x, g.w);
        FOR_BLOCKS(k, GROUP_BLOCKS) found[k] = veq(logits[k], vset1(max));
        if (vany(vmask_or(vmask_or(found[0], found[1]), vmask_or(found[2], found[3]))))
            for (int k = 0; k < GROUP_BLOCKS; k++)
                if (vany(found[k]))
                    return (place){i, BLOCK * k + vfirst(found[k])};
    }
    return (place){-1, -1};
}

/* One group's sum of w e: blocks in f32, (0 + 2) + (1 + 3), products by fused multiply-add. */
LANES vf weigh_group(const vf *e, const vf *w)
{
    vf sum[2];
    FOR_BLOCKS(k, 2) sum[k] = vmul(w[k], e[k]);
    FOR_BLOCKS(k, 2) sum[k] = vfma(w[k + 2], e[k + 2], sum[k]);
    return vadd(sum[0], sum[1]);
}

/* Over n <= CHUNK elements, without the one at `largest`; the groups' lanes add into sixteen
 * doubles. x - 0 is x, so every chunk takes the same way, shifted or not: the subtraction costs
 * less than a second copy of the loop. */
LANES exponential_sum sum_weighted_exponentials(const storage *x, const storage *w, int64_t n,
                                                reference ref, place largest)
{
    storage copy[2 * GROUP];
    const exp_scale scale = exp_scale_of(ref.n);
    const vf shift = vset1(ref.shift);
    exponential_sum sum = {0.0, 0.0, 0.0, ref};
    vd total = vd_zero();
    for (int64_t i = 0; i < n; i += GROUP) {
        const group g = group_at(x + i, w ? w + i : NULL, n - i, copy);
        vf e[GROUP_BLOCKS], weight[GROUP_BLOCKS];
        load_logits(e, g.x, g.w);
        FOR_BLOCKS(k, GROUP_BLOCKS) e[k] = vsub(e[k], shift);
        vexp_scaled(e, e, GROUP_BLOCKS, scale);
        if (w)
            FOR_BLOCKS(k, GROUP_BLOCKS) weight[k] = vload(g.w + BLOCK * k);
        if (__builtin_expect(i == largest.group, 0)) {
            float exponentials[GROUP];
            FOR_BLOCKS(k, GROUP_BLOCKS) vstore_f32(exponentials + BLOCK * k, e[k]);
            sum.left_out = (double)exponentials[largest.lane];
            sum.weight = w ? (double)load_one(g.w + largest.lane) : 1.0;
            FOR_BLOCKS(k, GROUP_BLOCKS)
            {
                const vm others = vmask_without(largest.lane - BLOCK * k);
                if (w)
                    weight[k] = vkeep(others, weight[k]);
                else
                    e[k] = vkeep(others, e[k]);
            }
        }
        total = vd_add(total, w ? weigh_group(e, weight) : fold_blocks(e));
    }
    sum.others = vd_across(total);
    return sum;
}

/* A chunk with an infinite logit, or NaN: +inf times its weight, inf - inf is NaN, and the finite
 * logits are nothing beside it. */
static double infinite_total(const storage *x, const storage *w, int64_t n)
{
    double total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const double logit = (double)load_one(x + i), weight = w ? (double)load_one(w + i) : 1.0;
        if (weight != weight || (weight != 0.0 && (logit != logit || logit == LANE_INFINITY)))
            total += weight * logit;
    }
    return total;
}

LANES exponential_sum sum_of_chunk(const storage *x, const storage *w, int64_t n)
{
    const float max = max_of_weighted(x, w, n);
    const reference nothing = reference_of(-LANE_INFINITY), ref = reference_of(max);
    if (max == LANE_INFINITY)
        return (exponential_sum){infinite_total(x, w, n), 0.0, 0.0, nothing};
    if (max == -LANE_INFINITY)
        return sum_weighted_exponentials(x, w, n, nothing, (place){-1, -1});
    return sum_weighted_exponentials(x, w, n, ref, place_of(max, x, w, n));
}

/* Two sums become one, relative to the larger maximum, whose element stays apart. Except beyond
 * DIRECT_BOUND the smaller is scaled by a power of two, exactly. */
LANES exponential_sum add_sums(exponential_sum a, exponential_sum b)
{
    const int a_larger = a.ref.max >= b.ref.max;
    const double factor = a_larger ? chunk_factor(b.ref, a.ref) : chunk_factor(a.ref, b.ref);
    const exponential_sum small = a_larger ? b : a;
    exponential_sum sum = a_larger ? a : b;
    sum.others += scaled(small.others + small.weight * small.left_out, factor);
    return sum;
}

/* w is given or not for a whole vector; each form gets its loops. The reference is the largest
 * logit itself, at which its element is worth its weight, exactly. */
LANES void log_sum_exp_of_leaf(const leaf *l, const int weighted)
{
    storage wide_x[CHUNK], wide_w[CHUNK];
    exponential_sum sum = {0.0, 0.0, 0.0, reference_of(-LANE_INFINITY)};
    for (int64_t i = 0; i < l->n; i += CHUNK) {
        const int64_t n = smaller(CHUNK, l->n - i);
        const storage *x = elements_of(l, l->x, i, n, wide_x);
        const storage *w = weighted ? elements_of(l, l->w, i, n, wide_w) : NULL;
        sum = add_sums(sum, sum_of_chunk(x, w, n));
    }
    const double others = sum.left_out > 0.0 ? sum.others / sum.left_out : sum.others;
    l->parts[0] = canonical_double(sum.weight + others);
    l->parts[1] = (double)sum.ref.max;
}

/* One read from memory: the maximum and the exponentials of a chunk while it is in L1. Chunks are
 * added in index order, each relative to the largest so far.
 *
 * References follow the logits alone. An element whose exponential is below 2^-125 of its chunk's
 * largest adds 0 even where its weight would make up for it; w times exponential, at most 1.5 w, is
 * summed in f32.
 * Error: 1.5 ULP of |max| + |log of the rest| (worst found), and 2^-53. */
void KERNEL(weighted_log_sum_exp)(const reduce_job *job, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += job->leaf_rows) {
        const leaf l = leaf_at(job, i, end);
        if (l.w)
            log_sum_exp_of_leaf(&l, 1);
        else
            log_sum_exp_of_leaf(&l, 0);
    }
}

/* log x for 0 < x < inf:  x = 2^k m,  m in [sqrt 1/2, sqrt 2),  s = (m - 1) / (m + 1),
 *
 *   log x = k ln 2 + 2 s + 2 s^3 (1/3 + s^2 (1/5 + ... + s^20 / 23))      |s| <= 0.1716
 *
 * m - 1 is exact, so nothing cancels near 1; k times the first word of ln 2 is exact. The series is
 * cut at 2e-20 of the result. Relative error 3.4e-16. */
static double log_of_double(double x)
{
    double k = 0.0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        k = -54.0;
    }
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const int64_t exponent = (int64_t)((bits - UINT64_C(0x3fe6a09e667f3bcd)) << 1) >> 53;
    bits -= (uint64_t)exponent << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    k += (double)exponent;
    const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
    double q = 0.0;
    for (int j = 23; j >= 3; j -= 2)
        q = q * s2 + 1.0 / j;
    return k * 0x1.62e42fefa38p-1 + (2.0 * s + (2.0 * s * s2 * q + k * 0x1.ef35793c7673p-45));
}

double KERNEL(log_sum_exp_of_parts)(const double *parts, int64_t leaves)
{
    double largest = (double)-LANE_INFINITY, total = 0.0;
    for (int64_t i = 0; i < leaves; i++) {
        const double ref = parts[REDUCE_PARTS * i + 1];
        if (parts[REDUCE_PARTS * i] != 0.0 && ref > largest)
            largest = ref;
    }
    for (int64_t i = 0; i < leaves; i++) {
        const double part = parts[REDUCE_PARTS * i], ref = parts[REDUCE_PARTS * i + 1];
        if (part != 0.0)
            total += scaled(part, exp_of_double(ref - largest));
    }
    if (!(total >= 0.0))
        return canonical_double((double)LANE_NAN);
    if (total == 0.0)
        return (double)-LANE_INFINITY;
    return total == (double)LANE_INFINITY ? total : log_of_double(total) + largest;
}
