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
 * passes hand on kept in L1.
 *
 * Streams: rows are elements one after the other, and no element needs its row but for factors,
 * which go by lanes, and for the sum. So the rows of a batch are cut into tiles wherever it suits
 * the tiles. Where rows follow each other in memory a tile is a piece of it, in place; where they
 * do not, long rows are used in place but for their ends, and what is left or short is gathered
 * into a tile and scattered again. The last tile is filled up with x = -inf, negative, whose loss
 * and gradient are 0. What a tile leaves to be summed waits until the span of its row is whole.
 * Sums of short rows are taken sixteen rows at once.
 *
 * Labels: a row is computed as if all its elements were negative. The positive elements, one a row,
 * are gathered before anything is written; they are a tile of their own and then replace the
 * others. In short rows, and where gradients go past the caches and cannot be replaced, they are
 * targets like any other.
 *
 * Order of the sum: within a span of 256 elements, block b adds into f32 accumulator b % 4, which
 * starts at 0; accumulators are added (0 + 2) + (1 + 3); the 16 lanes go into 16 doubles, which are
 * folded at the end of the row. The row's weight multiplies the sum, in double; elements are
 * weighted where they are stored.
 *
 * Factors: the row's weight w and the gradient's factor s are products in double, rounded to f32
 * once. The focal loss's alpha is a factor of the element's loss, and in s before it is rounded.
 *
 * NaN: a NaN among the values summed makes the sum NaN, so the hot loop needs no test. Where a sum
 * or factor of a batch is not finite its outputs are swept: every NaN in them becomes the canonical
 * one.
 *
 * Zero: gradients are +0, not -0, for positive targets too; factors enter as fma(a, s, +0). */
#ifndef BALLAST_SIGMOID_ROW_H
#define BALLAST_SIGMOID_ROW_H

#include "loss_rows.h"
#include "tile_rows.h"

enum { SPAN_BLOCKS = 16, SPAN = SPAN_BLOCKS * BLOCK, TILE_BLOCKS = 32, TILE = TILE_BLOCKS * BLOCK };

/* What tiles are compiled for. */
enum { OUT_LOSS = 1, OUT_GRAD = 2, OUT_BOTH = 3, OUT_STREAMED = 4 /* the gradient, past the caches */ };

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

/* What passes hand on. With the room between them two arrays are not 4096 bytes apart: a load waits
 * for an earlier store whose address ends in the same twelve bits. */
enum { TILE_ROOM = TILE + 4 * BLOCK };
typedef struct tile_scratch {
    _Alignas(LINE) float e[TILE_ROOM];
    float low[TILE_ROOM], l[TILE_ROOM], w[TILE_ROOM];
} tile_scratch;

typedef struct tile {
    const sigmoid_loss *loss;
    const float *x;
    const float *ahead;        /* what will be read later, to be fetched beside x */
    const uint8_t *targets_u8; /* BYTES */
    const float *targets;      /* HARD, SOFT */
    float *grad;
    int streamed; /* grad is on a line, and goes past the caches: nothing may change it afterwards */
    float *terms; /* what is summed: the losses, or the gradients where no loss is wanted */
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
 * Or b times `factor`, a power of two.  Cost 9 FMA-class operations a block. */
LANES_LARGE void log1p_bend(const vf *e, vf *b, int blocks, float factor)
{
    const vf leading = vconstant(factor * log1p_coefficient[LOG1P_DEGREE]);
    vf c = vconstant(factor * log1p_coefficient[LOG1P_DEGREE - 1]);
    FOR_BLOCKS(k, blocks) b[k] = vfma(leading, e[k], c);
    UNROLL for (int j = LOG1P_DEGREE - 2; j >= 0; j--)
    {
        c = vconstant(factor * log1p_coefficient[j]);
        FOR_BLOCKS(k, blocks) b[k] = vfma(b[k], e[k], c);
    }
    FOR_BLOCKS(k, blocks) b[k] = vmul(b[k], e[k]);
}

/* l = log(1 + e) for e in [0, 1].  Error 1.5 ULP, e as given; witness e = 0x1.f4df2ap-1. */
LANES void log1p_of_fraction(const vf *e, vf *l, int blocks)
{
    log1p_bend(e, l, blocks, 1.0f);
    FOR_BLOCKS(k, blocks) l[k] = vfma(l[k], e[k], e[k]);
}

/* e = exp(-|z|), exactly 0 below about 2^(n - 125.5), as by vexp_scaled() and 2^n, which is `unit`. */
LANES_LARGE void exp_of_minus_abs(const vf *z, vf *e, int blocks, float n, float unit)
{
    const exp_scale scale = exp_scale_of(n);
    const float factor = POWER_UNIT(unit);
    vf r[BLOCKS_IN_FLIGHT], t[BLOCKS_IN_FLIGHT], m[BLOCKS_IN_FLIGHT], p[BLOCKS_IN_FLIGHT];
    vw w[BLOCKS_IN_FLIGHT];
    vf c = vconstant(LOG2_E);
    FOR_BLOCKS(k, blocks) r[k] = vpower_clamp(scale.floor, vor(z[k], vset1(-0.0f)));
    FOR_BLOCKS(k, blocks) t[k] = vfma(r[k], c, scale.rounder);
    FOR_BLOCKS(k, blocks) m[k] = vsub(t[k], scale.rounder);
    FOR_BLOCKS(k, blocks) w[k] = vpower(t[k], m[k]);
    c = vconstant(LN2_HIGH);
    FOR_BLOCKS(k, blocks) r[k] = vfnma(m[k], c, r[k]);
    c = vconstant(LN2_LOW);
    FOR_BLOCKS(k, blocks) r[k] = vfnma(m[k], c, r[k]);
    const vf leading = vconstant(factor * exp_coefficient[EXP_DEGREE]);
    c = vconstant(factor * exp_coefficient[EXP_DEGREE - 1]);
    FOR_BLOCKS(k, blocks) p[k] = vfma(leading, r[k], c);
    UNROLL for (int j = EXP_DEGREE - 2; j >= 0; j--)
    {
        c = vconstant(factor * exp_coefficient[j]);
        FOR_BLOCKS(k, blocks) p[k] = vfma(p[k], r[k], c);
    }
    FOR_BLOCKS(k, blocks) e[k] = vpower_times(w[k], p[k]);
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

/* A block of f32 is a line. */
LANES void fetch_ahead(const tile *t, int b, int width)
{
    FOR_BLOCKS(k, width) vprefetch(t->ahead + BLOCK * (b + k));
}

/* Logits, NaN where a HARD target is neither 0 nor 1. */
LANES_LARGE void load_logits(const tile *t, enum tile_targets targets, int b, int width, vf *x)
{
    FOR_BLOCKS(k, width) x[k] = vload_f32(t->x + BLOCK * (b + k));
    if (targets == HARD)
        FOR_BLOCKS(k, width) {
            const vf target = vload_f32(t->targets + BLOCK * (b + k));
            const vm hard = vmask_or(veq(target, vset1(1.0f)), veq(target, vset1(0.0f)));
            x[k] = vselect(hard, x[k], vset1(LANE_NAN));
        }
}

/* z and the targets, which are not SOFT. */
LANES_LARGE void load_elements(const tile *t, enum tile_targets targets, int b, int width, vf *z,
                         vp *target)
{
    load_logits(t, targets, b, width, z);
    FOR_BLOCKS(k, width) {
        const int at = BLOCK * (b + k);
        if (targets == BYTES)
            target[k] = vload_positive_u8(t->targets_u8 + at);
        else if (targets == HARD)
            target[k] = vpositive(veq(vload_f32(t->targets + at), vset1(1.0f)));
        else
            target[k] = vpositive(vmask_first(targets == ALL_POSITIVE ? BLOCK : 0));
        if (targets != ALL_NEGATIVE)
            z[k] = vpositive_neg(target[k], z[k]);
    }
}

LANES void store_terms(const tile *t, int out, int b, int width, const vf *loss, const vf *grad)
{
    store_blocks(t->terms, b, width, out & OUT_LOSS ? loss : grad);
    if (out & OUT_STREAMED)
        FOR_BLOCKS(k, width) vstore_stream_f32(t->grad + BLOCK * (b + k), grad[k]);
    else if (out & OUT_GRAD)
        store_blocks(t->grad, b, width, grad);
}

/* A factor that differs between positive and negative elements. */
LANES vf factor_of(enum tile_targets targets, vp target, float negative, float positive)
{
    if (targets == ALL_NEGATIVE)
        return vset1(negative);
    return vpositive_select(target, vset1(positive), vset1(negative));
}

/* The gradient's factor of block b. Without alpha, positive and negative differ by the sign. Either is
 * never -0, so that where it is multiplied by 1 it may be left alone. */
LANES_LARGE vf scale_of(const tile *t, int with_alpha, enum tile_targets targets, vp target, int b)
{
    const float *negative = t->scale_negative + b * t->scale_step;
    const float *positive = t->scale_positive + b * t->scale_step;
    if (targets == ALL_POSITIVE)
        return vload_f32(positive);
    if (targets == ALL_NEGATIVE)
        return vload_f32(negative);
    if (!with_alpha)
        return vpositive_opposite(target, vload_f32(negative), vload_f32(positive));
    return vpositive_select(target, vload_f32(positive), vload_f32(negative));
}

/* A loss before alpha, times alpha. Where alpha is 0, so is the loss, at infinity too: that is what
 * the limits do. */
LANES vf limited_loss(const sigmoid_loss *f, enum tile_targets targets, vp target, vf loss)
{
    return vmin(factor_of(targets, target, f->limit_negative, f->limit_positive), loss);
}
LANES vf alpha_of(const sigmoid_loss *f, enum tile_targets targets, vp target)
{
    return factor_of(targets, target, f->alpha_negative, f->alpha_positive);
}

/* ---- binary cross-entropy ---------------------------------------------------------------------- */

/* First pass: e, which needs no sign of x and so no targets. */
LANES_LARGE void exponential_pass(const tile *t, enum tile_targets targets, int width)
{
    FOR_TILE(b, t, width) {
        vf e[BLOCKS_IN_FLIGHT];
        fetch_ahead(t, b, width);
        load_logits(t, targets, b, width, e);
        exp_of_minus_abs(e, e, width, 0.0f, 1.0f);
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
        vf z[BLOCKS_IN_FLIGHT], e[BLOCKS_IN_FLIGHT];
        vp target[BLOCKS_IN_FLIGHT];
        vf loss[BLOCKS_IN_FLIGHT], grad[BLOCKS_IN_FLIGHT];
        load_elements(t, targets, b, width, z, target);
        load_blocks(t->scratch->e, b, width, e);
        if (out & OUT_GRAD)
            FOR_BLOCKS(k, width) {
                const vf scale = scale_of(t, with_alpha, targets, target[k], b + k);
                grad[k] = vdiv(vsign_times(z[k], scale, e[k], zero), vadd(one, e[k]));
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

/* One path and one choice of outputs: its tiles, by kind of target, the same where the gradient goes past
 * the caches, for a branch in the loops takes 1 % of the time, and its positive elements. */
typedef struct sigmoid_functions {
    tile_function *tiles[3], *streamed[3];
    tile_function *positives;
} sigmoid_functions;

/* The copies are for the compiler: what is stored cannot change them. */
#define TILE_FUNCTION(name, path, targets, out, width)                                            \
    static void name(const tile *given)                                                           \
    {                                                                                             \
        const sigmoid_loss loss = *given->loss;                                                   \
        tile t = *given;                                                                          \
        t.loss = &loss;                                                                           \
        tile_terms(&t, path, targets, out, width);                                                \
    }
/* Not called without a gradient, nor where nothing is streamed. */
#define STREAMED_FUNCTION(name, path, targets, out, width)                                        \
    static void name(const tile *given)                                                           \
    {                                                                                             \
        const sigmoid_loss loss = *given->loss;                                                   \
        tile t = *given;                                                                          \
        t.loss = &loss;                                                                           \
        if (STREAMS_SIGMOIDS && (out) & OUT_GRAD)                                                 \
            tile_terms(&t, path, targets, (out) | OUT_STREAMED, width);                           \
    }
/* `dense` is what dense targets are: SOFT or HARD. */
#define SIGMOID_FUNCTIONS(name, path, out, dense)                                                 \
    TILE_FUNCTION(name##_label, path, ALL_NEGATIVE, out, BLOCKS_IN_FLIGHT)                        \
    TILE_FUNCTION(name##_positive, path, ALL_POSITIVE, out, 1)                                    \
    TILE_FUNCTION(name##_u8, path, BYTES, out, BLOCKS_IN_FLIGHT)                                  \
    TILE_FUNCTION(name##_dense, path, dense, out, BLOCKS_IN_FLIGHT)                               \
    STREAMED_FUNCTION(name##_u8_streamed, path, BYTES, out, BLOCKS_IN_FLIGHT)                     \
    STREAMED_FUNCTION(name##_dense_streamed, path, dense, out, BLOCKS_IN_FLIGHT)                  \
    static const sigmoid_functions name = {                                                       \
        {[TARGET_LABEL] = name##_label, [TARGET_U8] = name##_u8, [TARGET_DENSE] = name##_dense},  \
        {[TARGET_U8] = name##_u8_streamed, [TARGET_DENSE] = name##_dense_streamed},               \
        name##_positive};

/* ---- a batch of rows --------------------------------------------------------------------------- */

enum {
    BATCH_ROWS = 8 * BLOCK,
    STEP = BLOCKS_IN_FLIGHT * BLOCK, /* tiles are whole steps */
    WAITING = 3 * TILE,              /* terms: of short rows, all that a batch has */
    SHORT_CLASSES = 2 * BLOCK
};

/* Rows one after the other, without those that are ignored: their elements are the batch's stream,
 * in which element j of row i has position i * classes + j. */
typedef struct batch {
    const sigmoid_job *job;
    int64_t classes;
    int64_t first;         /* of the job's rows: the batch covers [first, first + covered) */
    int covered, rows;     /* rows: how many of them are not ignored */
    int outputs;           /* OUT_... */
    int is_uniform;        /* all rows have the same factors */
    int is_contiguous;     /* the stream is contiguous in memory, inputs and gradient */
    int streams;           /* what can be of the gradient goes past the caches */
    int labels_as_targets; /* TARGET_LABEL, but computed as TARGET_U8 */
    int index[BATCH_ROWS]; /* where row i stands among those covered */
    int64_t label[BATCH_ROWS]; /* TARGET_LABEL: the positive column; negative for background */
    float weight[BATCH_ROWS], scale_negative[BATCH_ROWS], scale_positive[BATCH_ROWS];
    double sum[BATCH_ROWS]; /* of a row's losses, without its weight */
    float positive_loss[BATCH_ROWS], positive_grad[BATCH_ROWS]; /* of the labelled elements */
    int next_label;         /* the first row whose labelled element was not put in yet */
    int row;                /* where the tile under way begins */
    int64_t column;

    /* Sums: terms of the stream from `summed` on are not in them. */
    int64_t summed;
    int sum_row;        /* the row and the column that stand there */
    int64_t sum_column;
    vd total;           /* of the row's columns before */
    uint8_t targets_u8[WAITING + TILE_ROOM]; /* not used in place, or of labels */
    /* The tile's from WAITING on; before it, those not summed yet. */
    _Alignas(LINE) float terms[WAITING + TILE + BLOCK];

    float negative_lanes[TILE_ROOM], positive_lanes[TILE_ROOM]; /* scales of a tile */
    float x[TILE_ROOM], targets[TILE_ROOM], grad[TILE_ROOM];    /* what is not used in place */
    tile_scratch scratch;
} batch;

/* So many that they are whole steps, for what is left is gathered; sixteen at least. */
LANES int64_t fewest_rows(int64_t classes)
{
    const int64_t whole = STEP / (classes & -classes);
    return whole > BLOCK ? whole : BLOCK;
}

/* Rows that are added sixteen at once, when all of a batch has been computed. Not 25, 27, 29 or 31 classes, whose
 * terms would be too many to wait. */
LANES int is_short(int64_t classes)
{
    return classes == 0 || (classes <= SHORT_CLASSES && fewest_rows(classes) * classes <= WAITING);
}

/* Of short rows no more than fill a tile, or as few as can be. */
LANES int64_t rows_of_batch(int64_t classes)
{
    if (!is_short(classes))
        return STEP;
    const int64_t some = classes > 0 ? classes : 1, fewest = fewest_rows(some), times = TILE / (fewest * some);
    return smaller((times > 1 ? times : 1) * fewest, BATCH_ROWS);
}

/* Element j of row i of an array of the job. */
LANES int64_t element_at(const batch *a, int i, int64_t j, int64_t stride)
{
    return (a->first + a->index[i]) * stride + j;
}

/* Columns [column, column + n) of a row, which stand at `at` of a tile. */
typedef struct piece {
    int row;
    int64_t column, at, n;
} piece;

/* The pieces of the tile under way, of `size` elements. */
#define FOR_PIECES(p, a, size)                                                                    \
    for (piece p = first_piece(a, size); p.n > 0; p = next_piece(a, p, size))

/* The same, as runs of elements that lie together in memory. */
#define FOR_RUNS(p, a, size)                                                                      \
    for (piece p = first_run(a, size); p.n > 0; p = next_piece(a, p, size))

LANES piece first_piece(const batch *a, int64_t size)
{
    return (piece){a->row, a->column, 0, smaller(a->classes - a->column, size)};
}
LANES piece next_piece(const batch *a, piece p, int64_t size)
{
    const int64_t at = p.at + p.n;
    return (piece){p.row + 1, 0, at, smaller(a->classes, size - at)};
}

LANES piece first_run(const batch *a, int64_t size)
{
    return a->is_contiguous ? (piece){a->row, a->column, 0, size} : first_piece(a, size);
}

/* Element `at` of an array of the job; logits, dense targets and outputs may have a format. */
LANES const void *place(const sigmoid_job *job, const void *array, int64_t at)
{
    return (const char *)array + bytes_of(job->format, at);
}
LANES void *output_place(const sigmoid_job *job, void *array, int64_t at)
{
    return (char *)array + bytes_of(job->format, at);
}

/* ---- factors of rows --------------------------------------------------------------------------- */

/* The factors of sixteen rows: each a product in double, rounded to f32 once. */
LANES void set_factors(batch *a, int i, vd loss, vd gradient)
{
    const vd negative = vd_times(vd_set1(a->job->alpha_negative), gradient);
    const vd positive = vd_times(vd_set1(a->job->alpha_positive), gradient);
    const vf zero = vset1(0.0f);
    vstore_f32(a->weight + i, vd_narrow(loss));
    vstore_f32(a->scale_negative + i, vadd(vd_narrow(negative), zero));
    vstore_f32(a->scale_positive + i, vadd(vneg(vd_narrow(positive)), zero));
}

static void set_uniform_factors(batch *a)
{
    const row_terms *t = &a->job->rows;
    a->is_uniform = !t->class_weight && !t->row_weight && !t->grad_rows;
    for (int i = 0; i < BATCH_ROWS; i += BLOCK)
        set_factors(a, i, vd_set1(1.0), vd_set1(t->grad_scale));
}

/* One number a row, or 1 where there are none. */
LANES vd values_of_rows(const batch *a, const float *values, int i)
{
    float v[BLOCK];
    if (!values)
        return vd_set1(1.0);
    if (a->rows == a->covered && i + BLOCK <= a->rows)
        return vd_load_f32(values + a->first + i);
    for (int k = 0; k < BLOCK; k++)
        v[k] = i + k < a->rows ? values[a->first + a->index[i + k]] : 1.0f;
    return vd_load_f32(v);
}

/* The same by classes. A row without a label has no class weight. */
LANES vd values_of_labels(const batch *a, const float *values, int i)
{
    float v[BLOCK];
    if (!values)
        return vd_set1(1.0);
    for (int k = 0; k < BLOCK; k++)
        v[k] = a->label[i + k] >= 0 ? values[a->label[i + k]] : 1.0f;
    return vd_load_f32(v);
}

static void take_factors(batch *a)
{
    const row_terms *t = &a->job->rows;
    for (int i = 0; i < a->rows; i += BLOCK) {
        const vd by_class = values_of_labels(a, t->class_weight, i);
        const vd by_row = values_of_rows(a, t->row_weight, i);
        const vd upstream = vd_times(vd_set1(t->grad_scale), values_of_rows(a, t->grad_rows, i));
        set_factors(a, i, vd_times(by_class, by_row),
                    vd_times(vd_times(upstream, by_class), by_row));
    }
}

/* The scales of the tile under way. */
static void use_scales(batch *a, tile *t, int64_t size)
{
    const int all_negative = a->job->target_kind == TARGET_LABEL && !a->labels_as_targets;
    t->scale_negative = a->scale_negative;
    t->scale_positive = a->scale_positive;
    t->scale_step = 0;
    if (a->is_uniform)
        return;
    FOR_PIECES(p, a, size) {
        const int64_t n = p.n == size ? BLOCK : p.n; /* a tile of one row: the first block does */
        for (int64_t j = p.at; j < p.at + n; j += BLOCK) {
            vstore_f32(a->negative_lanes + j, vset1(a->scale_negative[p.row]));
            if (!all_negative)
                vstore_f32(a->positive_lanes + j, vset1(a->scale_positive[p.row]));
        }
        t->scale_step = p.n == size ? 0 : BLOCK;
    }
    t->scale_negative = a->negative_lanes;
    t->scale_positive = a->positive_lanes;
}

/* ---- labels ------------------------------------------------------------------------------------ */

/* The labelled elements as if each were positive, a lane a row; what is computed for a row without
 * a label is not used. */
static void positive_elements(batch *a, tile *t, tile_function *compute)
{
    for (int i = 0; i < a->rows; i += BLOCK) {
        const sigmoid_job *job = a->job;
        for (int k = 0; k < BLOCK; k++) {
            const int64_t label = a->label[i + k];
            const int64_t at = element_at(a, i + k, label, job->logits_stride);
            float wide;
            a->x[k] = label < 0 ? 0.0f
                    : *read_elements(job->format, place(job, job->logits, at), 1, &wide);
        }
        t->x = t->ahead = a->x;
        t->terms = a->positive_loss + i;
        t->grad = a->positive_grad + i;
        t->scale_positive = a->scale_positive + i;
        t->scale_step = 0;
        t->blocks = 1;
        compute(t);
    }
}

/* Puts them into the tile, up to position `end` of the stream. */
LANES void put_positives(batch *a, const tile *t, int64_t from, int64_t end)
{
    for (; a->next_label < a->rows; a->next_label++) {
        const int64_t label = a->label[a->next_label];
        const int64_t position = a->next_label * a->classes + label;
        if (label >= 0 && position >= end)
            return;
        if (label < 0)
            continue;
        t->terms[position - from] = a->positive_loss[a->next_label];
        if (t->grad)
            t->grad[position - from] = a->positive_grad[a->next_label];
    }
}

/* ---- sums of rows ------------------------------------------------------------------------------ */

/* The next `n` terms of a row, a span at most. */
LANES vd add_span_of_terms(vd total, const float *terms, int64_t n)
{
    vf sum[GROUP_BLOCKS];
    FOR_BLOCKS(k, GROUP_BLOCKS) sum[k] = vset1(0.0f);
    for (; n >= GROUP; n -= GROUP, terms += GROUP)
        FOR_BLOCKS(k, GROUP_BLOCKS) sum[k] = vadd(sum[k], vload_f32(terms + BLOCK * k));
    FOR_BLOCKS(k, GROUP_BLOCKS) {
        const int64_t left = n - BLOCK * k;
        if (left >= BLOCK)
            sum[k] = vadd(sum[k], vload_f32(terms + BLOCK * k));
        else if (left > 0)
            sum[k] = vadd(sum[k], vkeep(vmask_first((int)left), vload_f32(terms + BLOCK * k)));
    }
    return vd_add(total, fold_blocks(sum));
}

/* Sixteen rows at once, or the last few: lanes are rows. The order is that of a long row: the
 * second block adds to the first in f32, then lanes are doubles. */
static void sum_short_rows(batch *a, const float *terms)
{
    float columns[SHORT_CLASSES * BLOCK];
    for (int i = 0; i < a->rows; i += BLOCK, terms += BLOCK * a->classes) {
        load_rows(terms, a->classes, smaller(a->rows - i, BLOCK), a->classes, columns);
        for (int64_t c = BLOCK; c < a->classes; c++) {
            float *first = columns + (c - BLOCK) * BLOCK;
            vstore_f32(first, vadd(vload_f32(first), vload_f32(columns + c * BLOCK)));
        }
        sum_tile(columns, smaller(a->classes, BLOCK), a->sum + i);
    }
}

/* Adds what can be added now that the terms before `end` are known; `n` of them are the tile's. */
static void add_terms(batch *a, int64_t end, int64_t n)
{
    const float *const terms = a->terms + WAITING + n - (end - a->summed);
    const float *next = terms;
    if (is_short(a->classes)) {
        if (end == a->rows * a->classes) {
            sum_short_rows(a, terms);
            next += end;
        }
    } else {
        vd total = a->total;
        for (;;) {
            const int64_t span = smaller(a->classes - a->sum_column, SPAN);
            if (a->sum_row == a->rows || next - terms + span > end - a->summed)
                break;
            total = add_span_of_terms(a->sum_column > 0 ? total : vd_zero(), next, span);
            next += span;
            a->sum_column += span;
            if (a->sum_column == a->classes) {
                a->sum[a->sum_row++] = vd_across(total);
                a->sum_column = 0;
            }
        }
        a->total = total;
        a->summed += next - terms;
    }
    /* The next tile's terms follow what is left; the copy may run into their place. */
    const float *const last = a->terms + WAITING + n;
    for (; next < last; next += BLOCK)
        vstore_f32(a->terms + (next - a->terms) - n, vload_f32(next));
}

/* ---- tiles of a stream ------------------------------------------------------------------------- */

/* Elements to f32; the last block is filled up. */
LANES void copy_in(const storage_format *f, float *to, const void *elements, int64_t n, float fill)
{
    const float *from = elements;
    if (f) {
        vstore_f32(to + (n & -(int64_t)BLOCK), vset1(fill));
        f->widen(elements, n, to);
        return;
    }
    for (; n >= BLOCK; n -= BLOCK, to += BLOCK, from += BLOCK)
        vstore_f32(to, vload_f32(from));
    if (n > 0)
        vstore_f32(to, vload_n_f32(from, (int)n, fill));
}
LANES void copy_out(const storage_format *f, void *elements, const float *from, int64_t n)
{
    float *to = elements;
    if (f) {
        f->narrow(from, n, elements);
        return;
    }
    for (; n >= BLOCK; n -= BLOCK, to += BLOCK, from += BLOCK)
        vstore_f32(to, vload_f32(from));
    if (n > 0)
        vstore_n_f32(to, (int)n, vload_f32(from));
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

/* How many elements of `left` go into the next tile, so that tiles are of about one size. */
LANES int64_t share_of(int64_t left)
{
    const int64_t tiles = (left + TILE - 1) / TILE, share = (left + tiles - 1) / tiles;
    return (share + STEP - 1) & -(int64_t)STEP;
}

LANES void clear_targets(batch *a, int64_t n)
{
    for (int64_t j = 0; j < n; j += LINE) /* at once it is a call or "rep stos", which take longer */
        memset(a->targets_u8 + j, 0, LINE);
}

/* Short rows have their labels as targets, those of a whole batch. */
static void targets_of_short_rows(batch *a)
{
    const int64_t rows = a->rows, classes = a->classes;
    clear_targets(a, rows * classes);
    for (int64_t i = 0; i < rows; i++)
        if (a->label[i] >= 0)
            a->targets_u8[i * classes + a->label[i]] = 1;
}

/* The same for `size` elements from position `from` of the stream on. Targets are read by blocks, and a
 * block that was stored in parts cannot be read before these, and all stores before them, have left for
 * the cache or past it; so blocks are stored whole, but for those of two labels. */
static void targets_of_tile(batch *a, int64_t from, int64_t size)
{
    static const uint8_t one[2 * BLOCK] = {[BLOCK] = 1};
    int64_t next_block = 0;
    clear_targets(a, TILE);
    for (; a->next_label < a->rows; a->next_label++) {
        const int64_t label = a->label[a->next_label];
        const int64_t at = a->next_label * a->classes + label - from, lane = at % BLOCK;
        if (label < 0)
            continue;
        if (at >= size)
            return;
        if (at >= next_block)
            memcpy(a->targets_u8 + at - lane, one + BLOCK - lane, BLOCK);
        else
            a->targets_u8[at] = 1;
        next_block = at - lane + BLOCK;
    }
}

LANES float *grad_of_tile(const batch *a)
{
    return (float *)a->job->grad + element_at(a, a->row, a->column, a->job->grad_stride);
}

/* A tile that lies in memory as it is. */
LANES void tile_in_place(batch *a, tile *t)
{
    const sigmoid_job *job = a->job;
    const int64_t target = element_at(a, a->row, a->column, job->targets_stride);
    t->x = (const float *)job->logits + element_at(a, a->row, a->column, job->logits_stride);
    t->ahead = t->x + PREFETCH_AHEAD;
    if (job->target_kind == TARGET_U8)
        t->targets_u8 = (const uint8_t *)job->targets + target;
    if (job->target_kind == TARGET_DENSE)
        t->targets = (const float *)job->targets + target;
    if (a->outputs & OUT_GRAD)
        t->grad = grad_of_tile(a);
    t->streamed = a->streams;
}

/* A tile of copies, filled up to whole steps with x = -inf, negative: loss and gradient are 0. */
static void gathered_tile(batch *a, tile *t, int64_t n)
{
    const sigmoid_job *job = a->job;
    t->x = t->ahead = a->x;
    t->grad = a->outputs & OUT_GRAD ? a->grad : NULL;
    t->streamed = 0;
    FOR_RUNS(p, a, n) {
        const int64_t logit = element_at(a, p.row, p.column, job->logits_stride);
        const int64_t target = element_at(a, p.row, p.column, job->targets_stride);
        copy_in(job->format, a->x + p.at, place(job, job->logits, logit), p.n, -LANE_INFINITY);
        if (job->target_kind == TARGET_U8)
            copy_bytes(a->targets_u8 + p.at, (const uint8_t *)job->targets + target, p.n);
        if (job->target_kind == TARGET_DENSE)
            copy_in(job->format, a->targets + p.at, place(job, job->targets, target), p.n, 0.0f);
    }
    if (job->target_kind == TARGET_U8)
        t->targets_u8 = a->targets_u8;
    t->targets = a->targets;
    for (int64_t j = (n + BLOCK - 1) & -(int64_t)BLOCK; j % STEP != 0; j += BLOCK) {
        vstore_f32(a->x + j, vset1(-LANE_INFINITY));
        vstore_f32(a->targets + j, vset1(0.0f));
        if (job->target_kind == TARGET_U8)
            memset(a->targets_u8 + j, 0, BLOCK);
    }
}

/* The gradients of a gathered tile. */
LANES void scatter_gradients(const batch *a, int64_t n)
{
    const sigmoid_job *job = a->job;
    FOR_RUNS(p, a, n) {
        const int64_t at = element_at(a, p.row, p.column, job->grad_stride);
        copy_out(job->format, output_place(job, job->grad, at), a->grad + p.at, p.n);
    }
}

static void store_element_losses(const batch *a, int64_t n)
{
    const float *terms = a->terms + WAITING;
    const sigmoid_job *job = a->job;
    float wide[TILE_ROOM];
    FOR_PIECES(p, a, n) {
        const int64_t at = element_at(a, p.row, p.column, job->element_loss_stride);
        void *const out = output_place(job, job->element_loss, at);
        float *const loss = place_of_elements(job->format, out, wide);
        const vf weight = vset1(a->weight[p.row]), limit = limit_for_weight(weight);
        for (int64_t j = 0; j < p.n; j += BLOCK)
            vstore_tail_f32(loss + j, p.n - j,
                            vmul(weight, vmin(limit, vload_f32(terms + p.at + j))));
        write_elements(job->format, loss, p.n, out);
    }
}

/* n elements on. */
LANES void advance(batch *a, int64_t n)
{
    a->column += n;
    if (a->column >= a->classes) {
        a->row += (int)(a->column / a->classes);
        a->column %= a->classes;
    }
}

/* Inside of a long row a tile ends with a span, or a little after it, so that few terms wait. */
LANES int64_t up_to_span(const batch *a, int64_t n)
{
    const int64_t beyond = (a->column + n) % SPAN & -(int64_t)STEP;
    return a->column + n < a->classes && beyond < n ? n - beyond : n;
}

/* Chooses the next tile; returns how many elements it has. A run is what lies together in memory:
 * the whole stream, or a row. Long runs are used in place but for what is no whole step, or, of
 * streams, before the first line; short ones are gathered. `left` elements of the batch are left. */
LANES int64_t next_tile(batch *a, tile *t, int64_t left)
{
    const int64_t in_run = a->is_contiguous ? left : a->classes - a->column;
    const int runs_in_place = !a->job->format && (a->is_contiguous || a->classes >= TILE);
    const int64_t head = a->streams ? before_line(grad_of_tile(a), left) : 0;
    if (runs_in_place && in_run >= STEP && head == 0) {
        tile_in_place(a, t);
        return up_to_span(a, smaller(share_of(in_run), in_run & -(int64_t)STEP));
    }
    const int64_t n = head ? head : smaller(left, runs_in_place ? STEP : share_of(left));
    gathered_tile(a, t, n);
    return n;
}

/* All elements of the batch, tile by tile. */
static void compute_batch(batch *a, const sigmoid_loss *loss, const sigmoid_functions *f)
{
    const enum target_kind kind = a->job->target_kind;
    const int64_t all = a->rows * a->classes;
    const int labelled = kind == TARGET_LABEL && !a->labels_as_targets;
    const enum target_kind computed = a->labels_as_targets ? TARGET_U8 : kind;
    tile t;
    t.loss = loss;
    t.scratch = &a->scratch;
    a->summed = a->sum_column = a->column = 0;
    a->sum_row = a->row = 0;
    a->next_label = 0;
    if (a->labels_as_targets && is_short(a->classes))
        targets_of_short_rows(a);
    if (labelled)
        positive_elements(a, &t, f->positives);
    t.terms = a->terms + WAITING;
    t.grad = NULL;
    t.targets = NULL;
    t.targets_u8 = NULL;
    for (int64_t from = 0, n; from < all; from += n, advance(a, n)) {
        n = next_tile(a, &t, all - from);
        if (a->labels_as_targets) {
            if (!is_short(a->classes))
                targets_of_tile(a, from, n);
            t.targets_u8 = a->targets_u8 + (is_short(a->classes) ? from : 0);
        }
        use_scales(a, &t, n);
        t.blocks = (int)((n + STEP - 1) / STEP * BLOCKS_IN_FLIGHT);
        (t.streamed ? f->streamed : f->tiles)[computed](&t);
        if (labelled)
            put_positives(a, &t, from, from + n);
        if (t.grad == a->grad)
            scatter_gradients(a, n);
        if (a->job->element_loss)
            store_element_losses(a, n);
        add_terms(a, from + n, n);
    }
}

/* ---- all rows -------------------------------------------------------------------------------- */

static void clear_elements(const sigmoid_job *job, void *output, int64_t from, int64_t n)
{
    float wide[TILE];
    for (int64_t at = 0; at < n; at += TILE) {
        const int64_t some = smaller(n - at, TILE);
        void *const out = output_place(job, output, from + at);
        float *const zeros = place_of_elements(job->format, out, wide);
        store_fill(zeros, some, 0.0f);
        write_elements(job->format, zeros, some, out);
    }
}

/* The outputs of an ignored row are 0. */
static void clear_row(const sigmoid_job *job, int64_t row, int64_t classes)
{
    if (job->element_loss)
        clear_elements(job, job->element_loss, row * job->element_loss_stride, classes);
    if (job->grad)
        clear_elements(job, job->grad, row * job->grad_stride, classes);
}

static void take_labels(batch *a)
{
    const row_terms *t = &a->job->rows;
    int rows = 0;
    for (int i = 0; i < a->covered; i++) {
        const int64_t label = label_at(t, a->first + i);
        a->index[rows] = i;
        a->label[rows] = label;
        if (label == t->ignore_index)
            clear_row(a->job, a->first + i, a->classes);
        else
            rows++;
    }
    a->rows = rows;
}

/* All batches begin with these: rows without labels keep them. */
static void open_batches(batch *a, const sigmoid_job *job, int outputs)
{
    a->job = job;
    a->classes = job->classes;
    a->outputs = outputs;
    set_uniform_factors(a);
    for (int i = 0; i < BATCH_ROWS; i++) {
        a->index[i] = i;
        a->label[i] = -1;
        a->sum[i] = 0.0;
    }
}

/* Takes the next rows. */
static void take_rows(batch *a, int64_t first, int64_t end)
{
    const sigmoid_job *job = a->job;
    const int labelled = job->target_kind == TARGET_LABEL;
    a->first = first;
    a->rows = a->covered = (int)smaller(end - first, rows_of_batch(a->classes));
    if (labelled)
        take_labels(a);
    for (int i = a->rows; i % BLOCK != 0; i++) { /* up to whole blocks */
        a->label[i] = -1;
        a->sum[i] = 0.0;
    }
    const int64_t c = a->classes;
    a->is_contiguous = a->rows == a->covered && job->logits_stride == c
                    && (labelled || job->targets_stride == c)
                    && (!job->grad || job->grad_stride == c);
    /* Positive elements cannot be put into lines that have left; and where rows are not long, to gather
     * them from memory takes as long as what it saves. */
    a->streams = STREAMS_SIGMOIDS && job->beyond_cache && a->is_contiguous && job->grad && job->grad != job->logits
              && !job->format;
    a->labels_as_targets = labelled && (is_short(a->classes) || a->streams || (job->beyond_cache && c <= TILE));
    if (!a->is_uniform)
        take_factors(a);
}

static __attribute__((noinline)) void make_nan_canonical(float *p, int64_t n)
{
    for (int64_t i = 0; i < n; i += BLOCK)
        vstore_tail_f32(p + i, n - i, vcanonical(vload_tail_f32(p + i, n - i, 0.0f)));
}

/* Some row of the batch may hold a NaN. */
LANES int may_have_nan(const batch *a)
{
    const vf zero = vset1(0.0f);
    vd products = vd_zero();
    for (int i = 0; i < a->rows; i += BLOCK) {
        vf factors = vmul(zero, vload_f32(a->weight + i));
        factors = vfma(zero, vload_f32(a->scale_negative + i), factors);
        factors = vfma(zero, vload_f32(a->scale_positive + i), factors);
        products = vd_add(products, factors);
        products = vd_plus(products, vd_times(vd_zero(), vd_load(a->sum + i)));
    }
    return !(vd_across(products) == 0.0);
}

static __attribute__((noinline)) void make_outputs_canonical(const batch *a)
{
    const sigmoid_job *job = a->job;
    for (int i = 0; i < a->rows; i++) {
        if (job->element_loss)
            make_nan_canonical((float *)job->element_loss
                               + element_at(a, i, 0, job->element_loss_stride), a->classes);
        if (job->grad)
            make_nan_canonical((float *)job->grad + element_at(a, i, 0, job->grad_stride),
                               a->classes);
    }
}

/* The losses of the rows covered, weighted: 0 for ignored ones and the lanes after the last. Returns
 * where they are: without weights they are the sums. */
LANES const double *losses_of_rows(const batch *a, double *loss)
{
    if (a->is_uniform && a->rows == a->covered)
        return a->sum;
    for (int i = 0; i < a->covered; i += BLOCK)
        vd_store(loss + i, vd_zero());
    for (int i = 0; i < a->rows; i++)
        loss[a->index[i]] = a->weight[i] == 0.0f && a->sum[i] == a->sum[i]
                          ? 0.0 : (double)a->weight[i] * a->sum[i];
    return loss;
}

/* Rows [begin, end). One copy, in sigmoid_focal.c, is for the kernels of all files. */
void KERNEL(sigmoid_rows)(const sigmoid_job *job, const sigmoid_loss *loss,
                          const sigmoid_functions *f, int outputs, int64_t begin, int64_t end);
static inline void sigmoid_rows(const sigmoid_job *job, const sigmoid_loss *loss,
                                const sigmoid_functions *f, int outputs, int64_t begin, int64_t end)
{
    const row_terms *t = &job->rows;
    int64_t leaf_end = begin;
    vd leaf = vd_zero();
    batch a;
    open_batches(&a, job, outputs);
    for (int64_t row = begin; row < end; row += a.covered) {
        double room[BATCH_ROWS];
        take_rows(&a, row, end);
        compute_batch(&a, loss, f);
        if (__builtin_expect(may_have_nan(&a), 0) && !job->format) /* narrowed, it is canonical */
            make_outputs_canonical(&a);
        const double *losses = losses_of_rows(&a, room);
        for (int i = 0; i < a.covered; i += BLOCK) {
            const vd sixteen = vd_load(losses + i);
            if (t->row_loss)
                vstore_tail_f32((float *)t->row_loss + row + i, a.covered - i,
                                vcanonical(vd_narrow(sixteen)));
            if (!t->partial)
                continue;
            if (row + i == leaf_end) {
                leaf = vd_zero();
                leaf_end = row + i + t->leaf_rows;
            }
            leaf = vd_plus(leaf, sixteen);
            if (row + i + BLOCK >= smaller(leaf_end, end))
                t->partial[(row + i) / t->leaf_rows] = vd_across(leaf);
        }
    }
    if (job->beyond_cache)
        vstream_fence();
}

LANES int outputs_of(const sigmoid_job *job)
{
    const int loss = job->rows.partial || job->rows.row_loss || job->element_loss;
    return (loss ? OUT_LOSS : 0) | (job->grad ? OUT_GRAD : 0);
}

#endif
