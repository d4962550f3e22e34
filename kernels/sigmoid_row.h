/* SPDX-License-Identifier: MIT */
/* Rows of element-wise sigmoid losses: what binary cross-entropy and sigmoid focal loss share.
 *
 * An element has a logit x and a target. For a hard target everything follows from
 *
 *   z = x for a negative and -x for a positive element:  loss = f(z),  grad = f'(z) dz/dx
 *
 * and from e = exp(-|z|), which never overflows: sigmoid(z) is 1 / (1 + e) or e / (1 + e), and
 * log(1 + exp(z)) is max(z, 0) + log(1 + e). The kernel file defines `tile_terms`; this file brings
 * it tiles of logits and targets, and takes care of factors, sums and outputs.
 *
 * Tiles: a chain of two polynomials is too long for one loop, whose window holds too few of them.
 * The elements are taken by tiles instead, and a tile by passes, one polynomial each, with what
 * passes hand on kept in L1. A tile is a piece of one row, whole groups of 64, in place; or what they
 * leave of several rows, or all of several short rows, gathered: each row filled up to whole blocks
 * with x = -inf, negative, whose loss and gradient are 0.
 *
 * Short rows: sixteen of them make a tile, class by class; lanes are rows then.
 *
 * Labels: a row is computed as if all its elements were negative. The positive elements, one a row,
 * are gathered before anything is written; they are a tile of their own and then replace the others.
 * In a tile of short rows they are targets like any other.
 *
 * Order of the sum: within a span of 256 elements, block b adds into f32 accumulator b % 4, which
 * starts at 0; accumulators are added (0 + 2) + (1 + 3); the 16 lanes go into 16 doubles, which are
 * folded at the end of the row. The row's weight multiplies the sum, in double; elements are
 * weighted where they are stored.
 *
 * Factors: the row's weight w and the gradient's factor s are products in double, rounded to f32
 * once. The focal loss's alpha is a factor of the element's loss, and in s before it is rounded.
 *
 * NaN: a NaN among the values summed makes the sum NaN, so the hot loop needs no test. A row whose
 * sum or factors are not finite has its outputs swept: every NaN in them becomes the canonical one.
 *
 * Zero: gradients are +0, not -0, for positive targets too; factors enter as fma(a, s, +0). */
#ifndef BALLAST_SIGMOID_ROW_H
#define BALLAST_SIGMOID_ROW_H

#include "loss_rows.h"
#include "tile_rows.h"

enum { SPAN_BLOCKS = 16, SPAN = SPAN_BLOCKS * BLOCK, TILE_BLOCKS = 32, TILE = TILE_BLOCKS * BLOCK };
enum { BATCH_ROWS = BLOCK }; /* so that their positive elements are one block */

/* What a tile function is compiled for. */
enum { OUT_LOSS = 1, OUT_GRAD = 2, OUT_BOTH = 3 };

/* The targets of a tile. */
enum tile_targets {
    ALL_NEGATIVE,
    ALL_POSITIVE,
    BYTES, /* targets_u8: 0 negative, else positive */
    HARD,  /* targets: 0 or 1; the logit counts as NaN where they are neither */
    SOFT   /* targets: in [0, 1] */
};

/* The parameters of a loss. BCE needs none. */
typedef struct sigmoid_loss {
    float alpha_negative, alpha_positive;
    float limit_negative, limit_positive; /* of the loss before alpha: inf, or finite for alpha 0 */
    float gamma, gamma_low, cut;          /* of the focal loss, see there */
} sigmoid_loss;

/* What passes hand on, and what is summed: the losses, or the gradients where no loss is wanted. */
typedef struct tile_scratch {
    float e[TILE], low[TILE], l[TILE], w[TILE], terms[TILE];
} tile_scratch;

typedef struct tile {
    const sigmoid_loss *loss;
    const storage *x;
    const uint8_t *targets_u8; /* BYTES */
    const storage *targets;    /* HARD, SOFT */
    storage *grad;
    const float *scale_negative, *scale_positive; /* of the gradient: sixteen lanes for block 0, */
    int scale_step;                               /* and so many floats on for the next */
    tile_scratch *scratch;
    int blocks; /* a multiple of BLOCKS_IN_FLIGHT, or 1 where ALL_POSITIVE */
} tile;

/* Defined by the kernel file: loss (without the row's weight) and gradient (all factors in it) of a
 * tile, `width` blocks side by side. All but the tile are constants in every call. */
LANES void tile_terms(const tile *t, int path, enum tile_targets targets, int out, int width);

/* ---- element mathematics --------------------------------------------------------------------- */

/* log(1 + e) = e + e^2 q(e) on [0, 1]: degree 8, relative error 6e-9. */
#define LOG1P_DEGREE 8
static const float log1p_coefficient[LOG1P_DEGREE + 1] = {
    -0x1.ffffbep-2f, 0x1.554c8p-2f,   -0x1.ff0f88p-3f, 0x1.92f696p-3f, -0x1.397562p-3f,
    0x1.b2535ep-4f,  -0x1.d29cc8p-5f, 0x1.453f0cp-6f,  -0x1.a93364p-9f};

/* b = e q(e), so that log(1 + e) = e + e b. Nothing is subnormal on the way, as e^2 would be.
 * Cost 9 FMA-class operations a block. */
LANES_LARGE void log1p_bend(const vf *e, vf *b, int blocks)
{
    const vf leading = vconstant(log1p_coefficient[LOG1P_DEGREE]);
    vf c = vconstant(log1p_coefficient[LOG1P_DEGREE - 1]);
    FOR_BLOCKS(k, blocks) b[k] = vfma(leading, e[k], c);
    UNROLL for (int j = LOG1P_DEGREE - 2; j >= 0; j--)
    {
        c = vconstant(log1p_coefficient[j]);
        FOR_BLOCKS(k, blocks) b[k] = vfma(b[k], e[k], c);
    }
    FOR_BLOCKS(k, blocks) b[k] = vmul(b[k], e[k]);
}

/* l = log(1 + e) for e in [0, 1].  Error 1.5 ULP, e as given; witness e = 0x1.f4df2ap-1. */
LANES void log1p_of_fraction(const vf *e, vf *l, int blocks)
{
    log1p_bend(e, l, blocks);
    FOR_BLOCKS(k, blocks) l[k] = vfma(l[k], e[k], e[k]);
}

/* e = exp(-|z|), exactly 0 for |z| > 87. */
LANES void exp_of_minus_abs(const vf *z, vf *e, int blocks)
{
    FOR_BLOCKS(k, blocks) e[k] = vor(z[k], vset1(-0.0f));
    vexp_scaled(e, e, blocks, exp_scale_of(0.0f));
}

/* ---- blocks of a tile ------------------------------------------------------------------------ */

#define FOR_TILE(b, t, width) for (int b = 0; b < (t)->blocks; b += (width))

LANES void load_blocks(const float *from, int b, int width, vf *v)
{
    FOR_BLOCKS(k, width) v[k] = vload_f32(from + BLOCK * (b + k));
}
LANES void store_blocks(float *to, int b, int width, const vf *v)
{
    FOR_BLOCKS(k, width) vstore_f32(to + BLOCK * (b + k), v[k]);
}

/* Logits, NaN where a HARD target is neither 0 nor 1. */
LANES_LARGE void load_logits(const tile *t, enum tile_targets targets, int b, int width, vf *x)
{
    FOR_BLOCKS(k, width) x[k] = vload(t->x + BLOCK * (b + k));
    if (targets == HARD)
        FOR_BLOCKS(k, width) {
            const vf target = vload(t->targets + BLOCK * (b + k));
            const vm hard = vmask_or(veq(target, vset1(1.0f)), veq(target, vset1(0.0f)));
            x[k] = vselect(hard, x[k], vset1(LANE_NAN));
        }
}

/* z and the targets: the sign bit is set where positive, all other bits are 0. SOFT: x and t. */
LANES_LARGE void load_elements(const tile *t, enum tile_targets targets, int b, int width, vf *z,
                         vf *target)
{
    load_logits(t, targets, b, width, z);
    FOR_BLOCKS(k, width) {
        const int at = BLOCK * (b + k);
        if (targets == BYTES)
            target[k] = vload_positive_u8(t->targets_u8 + at);
        else if (targets == HARD)
            target[k] = vkeep(veq(vload(t->targets + at), vset1(1.0f)), vset1(-0.0f));
        else if (targets == SOFT)
            target[k] = vload(t->targets + at);
        else
            target[k] = vset1(targets == ALL_POSITIVE ? -0.0f : 0.0f);
        if (targets != ALL_NEGATIVE && targets != SOFT)
            z[k] = vxor(z[k], target[k]);
    }
}

LANES void store_terms(const tile *t, int out, int b, int width, const vf *loss, const vf *grad)
{
    store_blocks(t->scratch->terms, b, width, out & OUT_LOSS ? loss : grad);
    if (out & OUT_GRAD)
        FOR_BLOCKS(k, width) vstore(t->grad + BLOCK * (b + k), grad[k]);
}

/* A factor that differs between positive and negative elements. */
LANES vf factor_of(enum tile_targets targets, vf target, float negative, float positive)
{
    if (targets == ALL_NEGATIVE)
        return vset1(negative);
    return vsign_select(target, vset1(positive), vset1(negative));
}

/* The gradient's factor of block b. Without alpha, positive and negative differ by the sign. */
LANES_LARGE vf scale_of(const tile *t, int with_alpha, enum tile_targets targets, vf target, int b)
{
    const float *negative = t->scale_negative + b * t->scale_step;
    const float *positive = t->scale_positive + b * t->scale_step;
    if (targets == ALL_POSITIVE)
        return vload_f32(positive);
    if (targets == ALL_NEGATIVE || targets == SOFT)
        return vload_f32(negative);
    if (!with_alpha)
        return vxor(vload_f32(negative), target);
    return vsign_select(target, vload_f32(positive), vload_f32(negative));
}

/* A loss before alpha, times alpha. Where alpha is 0, so is the loss, at infinity too: that is what
 * the limits do. */
LANES vf limited_loss(const sigmoid_loss *f, enum tile_targets targets, vf target, vf loss)
{
    return vmin(factor_of(targets, target, f->limit_negative, f->limit_positive), loss);
}
LANES vf alpha_of(const sigmoid_loss *f, enum tile_targets targets, vf target)
{
    return factor_of(targets, target, f->alpha_negative, f->alpha_positive);
}

/* ---- binary cross-entropy ---------------------------------------------------------------------- */

/* First pass: e, which needs no sign of x and so no targets. */
LANES_LARGE void exponential_pass(const tile *t, enum tile_targets targets, int width)
{
    FOR_TILE(b, t, width) {
        vf e[BLOCKS_IN_FLIGHT];
        load_logits(t, targets, b, width, e);
        exp_of_minus_abs(e, e, width);
        store_blocks(t->scratch->e, b, width, e);
    }
}

/* Binary cross-entropy against hard targets, times alpha (1 where the loss has none):
 *
 *   loss = max(z, 0) + log(1 + e)      df/dz = (z >= 0 ? 1 : e) / (1 + e)
 *
 * z = +0 and -0 give the same: e is 1.
 * Error, without alpha: loss 2.17 ULP, witness z = 0x1.0317c2p-7; gradient 2.41 ULP, witness
 * z = -0x1.b853fp+1. An alpha that is no power of two adds up to 0.6 and 1.
 * Cost 21 FMA-class operations a block, a selection and a division. */
LANES void binary_terms(const tile *t, int with_alpha, enum tile_targets targets, int out, int width)
{
    const vf zero = vset1(0.0f), one = vset1(1.0f);
    exponential_pass(t, targets, width);
    FOR_TILE(b, t, width) {
        vf z[BLOCKS_IN_FLIGHT], target[BLOCKS_IN_FLIGHT], e[BLOCKS_IN_FLIGHT];
        vf loss[BLOCKS_IN_FLIGHT], grad[BLOCKS_IN_FLIGHT];
        load_elements(t, targets, b, width, z, target);
        load_blocks(t->scratch->e, b, width, e);
        if (out & OUT_GRAD)
            FOR_BLOCKS(k, width) {
                const vf scale = scale_of(t, with_alpha, targets, target[k], b + k);
                grad[k] = vfma(vsign_select(z[k], e[k], one), scale, zero);
                grad[k] = vdiv(grad[k], vadd(one, e[k]));
            }
        if (out & OUT_LOSS) {
            log1p_of_fraction(e, loss, width);
            FOR_BLOCKS(k, width) loss[k] = vadd(loss[k], vmax(z[k], zero));
            if (with_alpha)
                FOR_BLOCKS(k, width)
                    loss[k] = vmul(limited_loss(t->loss, targets, target[k], loss[k]),
                                   alpha_of(t->loss, targets, target[k]));
        }
        store_terms(t, out, b, width, loss, grad);
    }
}

/* ---- what a path is compiled for --------------------------------------------------------------- */

typedef void tile_function(const tile *t);

/* One path and one choice of outputs: its tiles, by kind of target, and its positive elements. */
typedef struct sigmoid_functions {
    tile_function *tiles[3];
    tile_function *positives;
} sigmoid_functions;

/* The copy is for the compiler: what is stored cannot change it. */
#define TILE_FUNCTION(name, path, targets, out, width)                                            \
    static void name(const tile *given)                                                           \
    {                                                                                             \
        const tile t = *given;                                                                    \
        tile_terms(&t, path, targets, out, width);                                                \
    }
/* `dense` is what dense targets are: SOFT or HARD. */
#define SIGMOID_FUNCTIONS(name, path, out, dense)                                                 \
    TILE_FUNCTION(name##_label, path, ALL_NEGATIVE, out, BLOCKS_IN_FLIGHT)                        \
    TILE_FUNCTION(name##_positive, path, ALL_POSITIVE, out, 1)                                    \
    TILE_FUNCTION(name##_u8, path, BYTES, out, BLOCKS_IN_FLIGHT)                                  \
    TILE_FUNCTION(name##_dense, path, dense, out, BLOCKS_IN_FLIGHT)                               \
    static const sigmoid_functions name = {                                                       \
        {[TARGET_LABEL] = name##_label, [TARGET_U8] = name##_u8, [TARGET_DENSE] = name##_dense},  \
        name##_positive};

/* ---- a batch of rows --------------------------------------------------------------------------- */

typedef struct sigmoid_row {
    const storage *logits;
    const uint8_t *targets_u8; /* TARGET_U8 */
    const storage *targets;    /* TARGET_DENSE */
    storage *element_loss;     /* NULL: not wanted */
    storage *grad;
    int64_t index;
    int64_t label; /* TARGET_LABEL: the positive column; negative for background */
    float weight;
    double sum; /* of the elements' losses, without the row's weight */
} sigmoid_row;

typedef struct batch {
    int64_t classes;
    int rows;
    sigmoid_row row[BATCH_ROWS];
    vd total[BATCH_ROWS];                   /* of the terms of whole spans */
    vf last_span[BATCH_ROWS][GROUP_BLOCKS]; /* sums of the terms after them */
    float scale_negative[BATCH_ROWS], scale_positive[BATCH_ROWS];
    float positive_loss[BATCH_ROWS]; /* TARGET_LABEL: of the labelled elements */
    storage positive_grad[BATCH_ROWS];
    float negative_lanes[TILE], positive_lanes[TILE]; /* scales as tiles take them */
    tile_scratch scratch;
} batch;

/* Adds the next `blocks` blocks of a span; those before were a multiple of GROUP_BLOCKS. */
LANES void add_blocks(vf *sum, const float *terms, int blocks)
{
    int b = 0;
    for (; b + GROUP_BLOCKS <= blocks; b += GROUP_BLOCKS)
        FOR_BLOCKS(k, GROUP_BLOCKS) sum[k] = vadd(sum[k], vload_f32(terms + BLOCK * (b + k)));
    FOR_BLOCKS(k, GROUP_BLOCKS - 1)
        if (b + k < blocks)
            sum[k] = vadd(sum[k], vload_f32(terms + BLOCK * (b + k)));
}

LANES void start_span(vf *sum)
{
    FOR_BLOCKS(k, GROUP_BLOCKS) sum[k] = vset1(0.0f);
}

/* Columns [at, at + n) of row i have their terms at `terms` and their gradients at `grad`: puts in
 * the labelled element. */
LANES void put_positive(const batch *a, int i, int64_t at, int64_t n, float *terms, storage *grad)
{
    const int64_t label = a->row[i].label - at;
    if (label >= 0 && label < n) {
        terms[label] = a->positive_loss[i];
        if (grad)
            grad[label] = a->positive_grad[i];
    }
}

LANES void store_element_loss(const sigmoid_row *r, int64_t at, int64_t n, const float *terms)
{
    const vf weight = vset1(r->weight), limit = limit_for_weight(weight);
    for (int64_t j = 0; j < n; j += BLOCK)
        vstore_tail(r->element_loss + at + j, n - j,
                    vmul(weight, vmin(limit, vload_f32(terms + j))));
}

/* The labelled elements as if each were positive, a lane a row; what is computed for a row without a
 * label is not used. */
static void positive_elements(batch *a, tile *t, tile_function *compute)
{
    storage x[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        x[i] = i < a->rows && a->row[i].label >= 0 ? a->row[i].logits[a->row[i].label] : 0;
    t->x = x;
    t->grad = a->positive_grad;
    t->scale_positive = a->scale_positive;
    t->scale_step = 0;
    t->blocks = 1;
    compute(t);
    memcpy(a->positive_loss, a->scratch.terms, sizeof a->positive_loss);
}

/* Row i's factors in all lanes of `blocks` blocks, from block `first` on. */
LANES void scales_of_blocks(batch *a, int i, int first, int blocks)
{
    for (int b = first; b < first + blocks; b++) {
        vstore_f32(a->negative_lanes + BLOCK * b, vset1(a->scale_negative[i]));
        vstore_f32(a->positive_lanes + BLOCK * b, vset1(a->scale_positive[i]));
    }
}
LANES void use_scales_of_blocks(const batch *a, tile *t, int step)
{
    t->scale_negative = a->negative_lanes;
    t->scale_positive = a->positive_lanes;
    t->scale_step = step;
}

/* Adds n terms from the start of a span on, n a multiple of GROUP: whole spans to the row's total, and
 * what is left to the sums of its last span. */
LANES void add_terms_in_place(batch *a, int i, const float *terms, int64_t n)
{
    vd total = a->total[i];
    vf sum[GROUP_BLOCKS];
    for (; n >= SPAN; n -= SPAN, terms += SPAN) {
        start_span(sum);
        add_blocks(sum, terms, SPAN_BLOCKS);
        total = vd_add(total, fold_blocks(sum));
    }
    a->total[i] = total;
    add_blocks(a->last_span[i], terms, (int)n / BLOCK);
}

/* Columns [0, end) of row i, a multiple of GROUP: read and written where they are. */
static void columns_in_place(batch *a, int i, tile *t, tile_function *compute, int64_t end)
{
    const sigmoid_row *r = &a->row[i];
    a->total[i] = vd_zero();
    start_span(a->last_span[i]);
    scales_of_blocks(a, i, 0, 1);
    use_scales_of_blocks(a, t, 0);
    for (int64_t at = 0; at < end; at += TILE) {
        const int64_t n = end - at < TILE ? end - at : TILE;
        t->blocks = (int)n / BLOCK;
        t->x = r->logits + at;
        t->targets_u8 = r->targets_u8 ? r->targets_u8 + at : NULL;
        t->targets = r->targets ? r->targets + at : NULL;
        t->grad = r->grad ? r->grad + at : NULL;
        compute(t);
        put_positive(a, i, at, n, a->scratch.terms, t->grad);
        if (r->element_loss)
            store_element_loss(r, at, n, a->scratch.terms);
        add_terms_in_place(a, i, a->scratch.terms, n);
    }
}

/* The row's lanes, when those of columns before `at` are known and `blocks` blocks follow. */
LANES vd sum_to_the_end(const batch *a, int i, int64_t at, const float *terms, int blocks)
{
    vf sum[GROUP_BLOCKS];
    start_span(sum);
    if (at > 0)
        FOR_BLOCKS(k, GROUP_BLOCKS) sum[k] = a->last_span[i][k];
    add_blocks(sum, terms, blocks);
    return vd_add(at > 0 ? a->total[i] : vd_zero(), fold_blocks(sum));
}

/* n bytes, and zeros up to a whole block. The last bytes go by parts of constant size: for so few a
 * call of memcpy takes longer than all the rest. */
LANES void copy_bytes(uint8_t *to, const uint8_t *from, int64_t n)
{
    for (; n >= BLOCK; n -= BLOCK, to += BLOCK, from += BLOCK)
        memcpy(to, from, BLOCK);
    if (n > 0)
        memset(to, 0, BLOCK);
    if (n & 8) {
        memcpy(to, from, 8);
        to += 8;
        from += 8;
    }
    if (n & 4) {
        memcpy(to, from, 4);
        to += 4;
        from += 4;
    }
    if (n & 2) {
        memcpy(to, from, 2);
        to += 2;
        from += 2;
    }
    if (n & 1)
        *to = *from;
}

/* n elements of a row, filled up to whole blocks; and back. */
LANES void copy_from_row(storage *to, const storage *row, int64_t n, float fill)
{
    const int64_t tail = n % BLOCK, whole = n - tail;
    for (int64_t j = 0; j < whole; j += BLOCK)
        vstore(to + j, vload(row + j));
    if (tail > 0)
        vstore(to + whole, vload_n(row + whole, (int)tail, fill));
}
LANES void copy_to_row(storage *row, const storage *from, int64_t n)
{
    const int64_t tail = n % BLOCK, whole = n - tail;
    for (int64_t j = 0; j < whole; j += BLOCK)
        vstore(row + j, vload(from + j));
    if (tail > 0)
        vstore_n(row + whole, (int)tail, vload(from + whole));
}

/* The columns from `at` on of rows [first, end), less than a span each, side by side in one tile. */
static void ends_of_rows(batch *a, int first, int end, tile *t, tile_function *compute,
                         int64_t at)
{
    storage x[TILE], targets[TILE], grad[TILE];
    uint8_t targets_u8[TILE];
    const int64_t n = a->classes - at;
    const int blocks = (int)((n + BLOCK - 1) / BLOCK), size = blocks * BLOCK;
    int all = 0;
    for (int i = first; i < end; i++, all += blocks) {
        const sigmoid_row *r = &a->row[i];
        copy_from_row(x + BLOCK * all, r->logits + at, n, -LANE_INFINITY);
        if (r->targets_u8)
            copy_bytes(targets_u8 + BLOCK * all, r->targets_u8 + at, n);
        if (r->targets)
            copy_from_row(targets + BLOCK * all, r->targets + at, n, 0.0f);
        scales_of_blocks(a, i, all, blocks);
    }
    for (; all % BLOCKS_IN_FLIGHT != 0; all++) {
        vstore(x + BLOCK * all, vset1(-LANE_INFINITY));
        vstore(targets + BLOCK * all, vset1(0.0f));
        memset(targets_u8 + BLOCK * all, 0, BLOCK);
        scales_of_blocks(a, first, all, 1);
    }
    t->x = x;
    t->targets_u8 = targets_u8;
    t->targets = targets;
    t->grad = grad;
    t->blocks = all;
    use_scales_of_blocks(a, t, BLOCK);
    if (all > 0)
        compute(t);
    float *terms = a->scratch.terms;
    for (int i = first; i < end; i++) /* all before the first is read, which would wait for it */
        put_positive(a, i, at, n, terms + size * (i - first), grad + size * (i - first));
    for (int i = first; i < end; i++, terms += size) {
        sigmoid_row *r = &a->row[i];
        if (r->element_loss)
            store_element_loss(r, at, n, terms);
        if (r->grad)
            copy_to_row(r->grad + at, grad + size * (i - first), n);
        r->sum = vd_across(sum_to_the_end(a, i, at, terms, blocks));
    }
}

/* How many rows' ends make a tile. */
LANES int rows_of_tile(int64_t rest)
{
    const int blocks = (int)((rest + BLOCK - 1) / BLOCK);
    return blocks * BATCH_ROWS > TILE_BLOCKS ? TILE_BLOCKS / blocks : BATCH_ROWS;
}

/* ---- sixteen short rows ------------------------------------------------------------------------ */

/* Rows of up to two blocks go side by side, a lane each: nothing of a tile is filled up, and nothing
 * is done row by row. */
enum { SHORT_CLASSES = 2 * BLOCK, SHORT_CLASSES_U8 = 24 }; /* bytes are moved one by one */

/* The rows of a batch are next to each other unless one between them was ignored. */
LANES int is_short(const batch *a, enum target_kind kind)
{
    const int64_t most = kind == TARGET_U8 ? SHORT_CLASSES_U8 : SHORT_CLASSES;
    return a->classes > 0 && a->classes <= most && a->rows == BATCH_ROWS
        && a->row[BATCH_ROWS - 1].index - a->row[0].index == BATCH_ROWS - 1;
}

/* Targets of sixteen rows, class by class. */
LANES void short_targets_of_labels(const batch *a, uint8_t *targets)
{
    memset(targets, 0, SHORT_CLASSES * BLOCK);
    for (int i = 0; i < BLOCK; i++)
        if (a->row[i].label >= 0)
            targets[a->row[i].label * BLOCK + i] = 1;
}
LANES void short_targets_u8(const batch *a, uint8_t *targets)
{
    for (int i = 0; i < BLOCK; i++)
        for (int64_t c = 0; c < a->classes; c++)
            targets[c * BLOCK + i] = a->row[i].targets_u8[c];
}

LANES void store_short_element_loss(const batch *a, int64_t stride, const float *terms)
{
    float loss[SHORT_CLASSES * BLOCK], weights[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        weights[i] = a->row[i].weight;
    const vf weight = vload_f32(weights), limit = limit_for_weight(weight);
    for (int64_t c = 0; c < a->classes; c++)
        vstore_f32(loss + c * BLOCK, vmul(weight, vmin(limit, vload_f32(terms + c * BLOCK))));
    store_rows(loss, unchanged(), BLOCK, a->classes, a->row[0].element_loss, stride);
}

/* The order of a long row: the second block adds to the first in f32, then lanes are doubles. */
LANES void sum_short_rows(batch *a, float *terms)
{
    double sum[BLOCK];
    for (int64_t c = BLOCK; c < a->classes; c++) {
        float *first = terms + (c - BLOCK) * BLOCK;
        vstore_f32(first, vadd(vload_f32(first), vload_f32(terms + c * BLOCK)));
    }
    sum_tile(terms, a->classes < BLOCK ? a->classes : BLOCK, sum);
    for (int i = 0; i < BLOCK; i++)
        a->row[i].sum = sum[i];
}

static void short_rows(batch *a, const sigmoid_job *job, tile *t, const sigmoid_functions *f)
{
    float x[TILE], targets[TILE], grad[TILE];
    uint8_t targets_u8[TILE];
    const enum target_kind kind = job->target_kind;
    t->x = x;
    t->targets_u8 = targets_u8;
    t->targets = targets;
    t->grad = grad;
    t->scale_negative = a->scale_negative;
    t->scale_positive = a->scale_positive;
    t->scale_step = 0;
    load_rows(a->row[0].logits, job->logits_stride, BLOCK, a->classes, x);
    if (kind == TARGET_LABEL)
        short_targets_of_labels(a, targets_u8);
    else if (kind == TARGET_U8)
        short_targets_u8(a, targets_u8);
    else
        load_rows(a->row[0].targets, job->targets_stride, BLOCK, a->classes, targets);
    for (t->blocks = (int)a->classes; t->blocks % BLOCKS_IN_FLIGHT != 0; t->blocks++) {
        vstore_f32(x + BLOCK * t->blocks, vset1(-LANE_INFINITY));
        vstore_f32(targets + BLOCK * t->blocks, vset1(0.0f));
        memset(targets_u8 + BLOCK * t->blocks, 0, BLOCK);
    }
    f->tiles[kind == TARGET_LABEL ? TARGET_U8 : kind](t);
    if (job->element_loss)
        store_short_element_loss(a, job->element_loss_stride, a->scratch.terms);
    if (job->grad)
        store_rows(grad, unchanged(), BLOCK, a->classes, a->row[0].grad, job->grad_stride);
    sum_short_rows(a, a->scratch.terms);
}

static void compute_batch(batch *a, const sigmoid_job *job, const sigmoid_loss *loss,
                          const sigmoid_functions *f)
{
    const enum target_kind kind = job->target_kind;
    const int64_t rest = a->classes < SPAN ? a->classes : a->classes % GROUP;
    const int64_t in_place = a->classes - rest;
    const int some = rows_of_tile(rest);
    tile t = {0};
    t.loss = loss;
    t.scratch = &a->scratch;
    if (is_short(a, kind)) {
        short_rows(a, job, &t, f);
        return;
    }
    if (kind == TARGET_LABEL)
        positive_elements(a, &t, f->positives);
    for (int first = 0; first < a->rows; first += some) {
        const int end = a->rows - first < some ? a->rows : first + some;
        if (in_place > 0)
            for (int i = first; i < end; i++)
                columns_in_place(a, i, &t, f->tiles[kind], in_place);
        ends_of_rows(a, first, end, &t, f->tiles[kind], in_place);
    }
}

/* ---- all rows -------------------------------------------------------------------------------- */

static __attribute__((noinline)) void make_nan_canonical(storage *p, int64_t n)
{
    for (int64_t i = 0; i < n; i += BLOCK)
        vstore_tail(p + i, n - i, vcanonical(vload_tail(p + i, n - i, 0.0f)));
}

LANES float canonical_float(double x)
{
    return x == x ? (float)x : LANE_NAN;
}

/* Takes a row into the batch. Returns 0 where it is ignored: its outputs are then 0. */
LANES int add_row(const sigmoid_job *job, batch *a, int64_t row)
{
    const row_terms *t = &job->rows;
    const int labelled = job->target_kind == TARGET_LABEL;
    sigmoid_row *r = &a->row[a->rows];
    r->index = row;
    r->label = labelled ? label_at(t, row) : -1;
    r->element_loss = job->element_loss
                    ? (storage *)job->element_loss + row * job->element_loss_stride : NULL;
    r->grad = job->grad ? (storage *)job->grad + row * job->grad_stride : NULL;
    if (labelled && r->label == t->ignore_index) {
        if (r->element_loss)
            store_fill(r->element_loss, a->classes, 0.0f);
        if (r->grad)
            store_fill(r->grad, a->classes, 0.0f);
        if (t->row_loss)
            ((float *)t->row_loss)[row] = 0.0f;
        return 0;
    }
    r->logits = (const storage *)job->logits + row * job->logits_stride;
    r->targets_u8 = job->target_kind == TARGET_U8
                  ? (const uint8_t *)job->targets + row * job->targets_stride : NULL;
    r->targets = job->target_kind == TARGET_DENSE
               ? (const storage *)job->targets + row * job->targets_stride : NULL;
    const row_factors factors = row_factors_of(t, row, r->label);
    r->weight = factors.loss;
    a->scale_negative[a->rows] = (float)(job->alpha_negative * factors.gradient);
    a->scale_positive[a->rows] = -(float)(job->alpha_positive * factors.gradient);
    a->rows++;
    return 1;
}

/* The loss of a computed row, weighted. */
LANES double loss_of_row(const batch *a, int i)
{
    const sigmoid_row *r = &a->row[i];
    const double finite = 0.0 * r->sum + 0.0 * (double)r->weight + 0.0 * (double)a->scale_negative[i]
                        + 0.0 * (double)a->scale_positive[i];
    if (__builtin_expect(!(finite == 0.0), 0)) {
        if (r->element_loss)
            make_nan_canonical(r->element_loss, a->classes);
        if (r->grad)
            make_nan_canonical(r->grad, a->classes);
    }
    return r->weight == 0.0f && r->sum == r->sum ? 0.0 : (double)r->weight * r->sum;
}

/* Rows [begin, end). */
static void sigmoid_rows(const sigmoid_job *job, const sigmoid_loss *loss,
                         const sigmoid_functions *f, int64_t begin, int64_t end)
{
    const row_terms *t = &job->rows;
    const int64_t step = t->partial ? t->leaf_rows : end - begin;
    batch a;
    a.classes = job->classes;
    for (int64_t leaf = begin; leaf < end; leaf += step) {
        const int64_t leaf_end = end - leaf < step ? end : leaf + step;
        double lanes[LEAF_LANES] = {0.0};
        for (int64_t row = leaf; row < leaf_end;) {
            for (a.rows = 0; a.rows < BATCH_ROWS && row < leaf_end; row++)
                add_row(job, &a, row);
            compute_batch(&a, job, loss, f);
            for (int i = 0; i < a.rows; i++) {
                const double row_loss = loss_of_row(&a, i);
                lanes[(a.row[i].index - leaf) % LEAF_LANES] += row_loss;
                if (t->row_loss)
                    ((float *)t->row_loss)[a.row[i].index] = canonical_float(row_loss);
            }
        }
        for (int half = LEAF_LANES / 2; half > 0; half /= 2)
            for (int i = 0; i < half; i++)
                lanes[i] += lanes[i + half];
        if (t->partial)
            t->partial[leaf / step] = lanes[0];
    }
}

LANES int outputs_of(const sigmoid_job *job)
{
    const int loss = job->rows.partial || job->rows.row_loss || job->element_loss;
    return (loss ? OUT_LOSS : 0) | (job->grad ? OUT_GRAD : 0);
}

#endif
