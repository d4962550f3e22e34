/* SPDX-License-Identifier: MIT */
/* Rows of element-wise sigmoid losses: what binary cross-entropy and sigmoid focal loss share.
 *
 * An element has a logit x and a target. For a hard target everything follows from
 *
 *   z = x for a negative and -x for a positive element:  loss = f(z),  grad = f'(z) dz/dx
 *
 * and from e = exp(-|z|), which never overflows: sigmoid(z) is 1 / (1 + e) or e / (1 + e), and
 * log(1 + exp(z)) is max(z, 0) + log(1 + e). The kernel file defines `element_terms`; this file
 * brings it logits and targets, and takes care of factors, sums and outputs.
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

enum { ACCUMULATORS = GROUP_BLOCKS, SPAN = 256 };

/* What a row function is compiled for. */
enum { OUT_LOSS = 1, OUT_GRAD = 2, OUT_BOTH = 3 };

/* What a step of the loop knows of its targets. */
enum step_targets {
    ALL_NEGATIVE, /* target[] is not read */
    HARD,         /* target[]: the sign bit is set where positive, all other bits are 0 */
    SOFT          /* target[]: in [0, 1] */
};

typedef struct sigmoid_row {
    const storage *logits;
    int64_t classes;
    enum target_kind target_kind;
    int64_t label;             /* TARGET_LABEL: the positive column; negative for background */
    const uint8_t *targets_u8; /* TARGET_U8 */
    const storage *targets;    /* TARGET_DENSE */
    storage *element_loss;     /* NULL: not wanted */
    storage *grad;
    float weight;
    float alpha_negative, alpha_positive;
    float scale_negative, scale_positive; /* of the gradient; alpha is in it */
    float limit_negative, limit_positive; /* of the loss before alpha: inf, or finite for alpha 0 */
    float gamma, gamma_low, cut;          /* of the focal loss, see there */
} sigmoid_row;

/* Defined by the kernel file: loss (without the row's weight) and gradient (all factors in it) of
 * `blocks` blocks. `path`, `targets` and `out` are constants in every call. */
LANES void element_terms(const sigmoid_row *r, int path, enum step_targets targets, int out,
                         const vf *x, const vf *target, int blocks, vf *loss, vf *grad);

/* ---- element mathematics --------------------------------------------------------------------- */

/* log(1 + e) = e + e^2 q(e) on [0, 1]: degree 8, relative error 6e-9. */
#define LOG1P_DEGREE 8
static const float log1p_coefficient[LOG1P_DEGREE + 1] = {
    -0x1.ffffbep-2f, 0x1.554c8p-2f,   -0x1.ff0f88p-3f, 0x1.92f696p-3f, -0x1.397562p-3f,
    0x1.b2535ep-4f,  -0x1.d29cc8p-5f, 0x1.453f0cp-6f,  -0x1.a93364p-9f};

/* b = e q(e), so that log(1 + e) = e + e b. Nothing is subnormal on the way, as e^2 would be.
 * Cost 9 FMA-class operations a block. */
LANES void log1p_bend(const vf *e, vf *b, int blocks)
{
    FOR_BLOCKS(k, blocks)
        b[k] = vfma(vset1(log1p_coefficient[LOG1P_DEGREE]), e[k],
                    vset1(log1p_coefficient[LOG1P_DEGREE - 1]));
    UNROLL for (int j = LOG1P_DEGREE - 2; j >= 0; j--)
        FOR_BLOCKS(k, blocks) b[k] = vfma(b[k], e[k], vset1(log1p_coefficient[j]));
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

/* Hard targets: z = x for a negative and -x for a positive element. */
LANES void signed_logits(enum step_targets targets, const vf *x, const vf *target, int blocks,
                         vf *z)
{
    FOR_BLOCKS(k, blocks) z[k] = targets == ALL_NEGATIVE ? x[k] : vxor(x[k], target[k]);
}

/* A factor that differs between positive and negative elements. */
LANES vf factor_of(enum step_targets targets, vf target, float negative, float positive)
{
    if (targets == ALL_NEGATIVE)
        return vset1(negative);
    return vsign_select(target, vset1(positive), vset1(negative));
}

LANES vf loss_limit(const sigmoid_row *r, enum step_targets targets, vf target)
{
    return factor_of(targets, target, r->limit_negative, r->limit_positive);
}

/* Binary cross-entropy against hard targets, times alpha (1 where the loss has none):
 *
 *   loss = max(z, 0) + log(1 + e)      df/dz = (z >= 0 ? 1 : e) / (1 + e)
 *
 * z = +0 and -0 give the same: e is 1. Where alpha is 0, so is the loss, at infinity too: that is
 * what the limits do.
 * Error, without alpha: loss 2.17 ULP, witness z = 0x1.0317c2p-7; gradient 2.41 ULP, witness
 * z = -0x1.b853fp+1. An alpha that is no power of two adds up to 0.6 and 1.
 * Cost 23 FMA-class operations a block, and a division. */
LANES void binary_terms(const sigmoid_row *r, int with_alpha, enum step_targets targets, int out,
                        const vf *x, const vf *target, int blocks, vf *loss, vf *grad)
{
    const vf zero = vset1(0.0f), one = vset1(1.0f);
    vf z[BLOCKS_IN_FLIGHT], e[BLOCKS_IN_FLIGHT], l[BLOCKS_IN_FLIGHT];
    signed_logits(targets, x, target, blocks, z);
    exp_of_minus_abs(z, e, blocks);
    if (out & OUT_GRAD) {
        vf scale[BLOCKS_IN_FLIGHT];
        FOR_BLOCKS(k, blocks) {
            if (with_alpha)
                scale[k] = factor_of(targets, target[k], r->scale_negative, r->scale_positive);
            else
                scale[k] = targets == HARD ? vxor(vset1(r->scale_negative), target[k])
                                           : vset1(r->scale_negative);
        }
        FOR_BLOCKS(k, blocks) grad[k] = vfma(vsign_select(z[k], e[k], one), scale[k], zero);
        FOR_BLOCKS(k, blocks) grad[k] = vdiv(grad[k], vadd(one, e[k]));
    }
    if (out & OUT_LOSS) {
        log1p_of_fraction(e, l, blocks);
        FOR_BLOCKS(k, blocks) {
            loss[k] = vadd(l[k], vmax(z[k], zero));
            if (with_alpha)
                loss[k] = vmul(vmin(loss_limit(r, targets, target[k]), loss[k]),
                               factor_of(targets, target[k], r->alpha_negative, r->alpha_positive));
        }
    }
}

/* ---- one row --------------------------------------------------------------------------------- */

/* The targets of the 16 columns from `at` on, of which `there` are in the row. Dense targets that
 * are wanted HARD become sign bits; the logit becomes NaN where the target is neither 0 nor 1. */
LANES void load_target(const sigmoid_row *r, enum target_kind kind, enum step_targets targets,
                       int64_t at, int64_t there, vf *x, vf *target)
{
    if (kind == TARGET_LABEL) {
        const int64_t lane = r->label - at;
        const int not_here = lane < 0 || lane >= BLOCK;
        *target = vselect(vmask_without(not_here ? BLOCK : (int)lane), vset1(0.0f), vset1(-0.0f));
    } else if (kind == TARGET_U8) {
        if (there >= BLOCK)
            *target = vload_positive_u8(r->targets_u8 + at);
        else
            *target = there > 0 ? vload_n_positive_u8(r->targets_u8 + at, (int)there) : vset1(0.0f);
    } else {
        *target = vload_tail(r->targets + at, there, 0.0f);
        if (targets == HARD) {
            const vm positive = veq(*target, vset1(1.0f)), negative = veq(*target, vset1(0.0f));
            *x = vselect(vmask_or(positive, negative), *x, vset1(LANE_NAN));
            *target = vkeep(positive, vset1(-0.0f));
        }
    }
}

/* `blocks` blocks from column `at` on, of which `left` elements are in the row: loads, terms, sum,
 * stores. Lanes past the row are filled with x = -inf, negative: their loss and gradient are 0. */
LANES void step(const sigmoid_row *r, int path, int out, enum target_kind kind,
                enum step_targets targets, int64_t at, int64_t left, int blocks, vf *partial)
{
    vf x[BLOCKS_IN_FLIGHT], target[BLOCKS_IN_FLIGHT];
    vf loss[BLOCKS_IN_FLIGHT], grad[BLOCKS_IN_FLIGHT];
    FOR_BLOCKS(k, blocks)
        x[k] = vload_tail(r->logits + at + BLOCK * k, left - BLOCK * k, -LANE_INFINITY);
    if (targets != ALL_NEGATIVE)
        FOR_BLOCKS(k, blocks)
            load_target(r, kind, targets, at + BLOCK * k, left - BLOCK * k, &x[k], &target[k]);
    element_terms(r, path, targets, out, x, target, blocks, loss, grad);
    FOR_BLOCKS(k, blocks) partial[k] = vadd(partial[k], out & OUT_LOSS ? loss[k] : grad[k]);
    if (out & OUT_GRAD)
        FOR_BLOCKS(k, blocks)
            vstore_tail(r->grad + at + BLOCK * k, left - BLOCK * k, grad[k]);
    if (out & OUT_LOSS && r->element_loss) {
        const vf weight = vset1(r->weight), limit = limit_for_weight(weight);
        FOR_BLOCKS(k, blocks)
            vstore_tail(r->element_loss + at + BLOCK * k, left - BLOCK * k,
                        vmul(weight, vmin(limit, loss[k])));
    }
}

/* Up to a group from column `at` on, of any length and with any targets: the row's end, and the
 * group that holds the label. */
LANES void any_group(const sigmoid_row *r, int path, int out, enum step_targets dense, int64_t at,
                     vf *partial)
{
    const int64_t left = r->classes - at < GROUP ? r->classes - at : GROUP;
    for (int64_t i = 0; i < left; i += BLOCK) {
        if (dense == SOFT && r->target_kind == TARGET_DENSE)
            step(r, path, out, TARGET_DENSE, SOFT, at + i, left - i, 1, partial + i / BLOCK);
        else
            step(r, path, out, r->target_kind, HARD, at + i, left - i, 1, partial + i / BLOCK);
    }
}

typedef void group_function(const sigmoid_row *r, int64_t at, vf *partial);

/* Computes a row and returns the sum of its elements' losses, without the row's weight. (Where no
 * loss is wanted: a number that is NaN where a gradient is.) `kind` is a constant. */
LANES double row_of(const sigmoid_row *r, int path, int out, enum target_kind kind,
                    enum step_targets targets, group_function *special_group)
{
    vd total = vd_zero();
    for (int64_t span = 0; span < r->classes; span += SPAN) {
        vf partial[ACCUMULATORS];
        FOR_BLOCKS(k, ACCUMULATORS) partial[k] = vset1(0.0f);
        const int64_t end = r->classes - span < SPAN ? r->classes : span + SPAN;
        for (int64_t at = span; at < end; at += GROUP) {
            if (end - at < GROUP || (kind == TARGET_LABEL && (uint64_t)(r->label - at) < GROUP))
                special_group(r, at, partial);
            else
                for (int first = 0; first < ACCUMULATORS; first += BLOCKS_IN_FLIGHT)
                    step(r, path, out, kind, targets, at + BLOCK * first, GROUP, BLOCKS_IN_FLIGHT,
                         partial + first);
        }
        total = vd_add(total, fold_blocks(partial));
    }
    return vd_across(total);
}

/* The functions of one path and one choice of outputs, by kind of target; `dense` is what dense
 * targets are: SOFT or HARD. */
typedef double row_function(const sigmoid_row *r);
#define ROW_FUNCTION(name, path, out, kind, targets, group)                                       \
    static double name(const sigmoid_row *r)                                                      \
    {                                                                                             \
        return row_of(r, path, out, kind, targets, group);                                        \
    }
#define ROW_FUNCTIONS(name, path, out, dense)                                                     \
    static __attribute__((noinline)) void name##_group(const sigmoid_row *r, int64_t at, vf *sum) \
    {                                                                                             \
        any_group(r, path, out, dense, at, sum);                                                  \
    }                                                                                             \
    ROW_FUNCTION(name##_label, path, out, TARGET_LABEL, ALL_NEGATIVE, name##_group)               \
    ROW_FUNCTION(name##_u8, path, out, TARGET_U8, HARD, name##_group)                             \
    ROW_FUNCTION(name##_dense, path, out, TARGET_DENSE, dense, name##_group)                      \
    static row_function *const name[] = {                                                         \
        [TARGET_LABEL] = name##_label, [TARGET_U8] = name##_u8, [TARGET_DENSE] = name##_dense};

/* ---- all rows -------------------------------------------------------------------------------- */

static __attribute__((noinline)) void make_nan_canonical(storage *p, int64_t n)
{
    for (int64_t i = 0; i < n; i += BLOCK)
        vstore_tail(p + i, n - i, vcanonical(vload_tail(p + i, n - i, 0.0f)));
}

/* Loss of one row, weighted; everything about the row but the path is filled in here. */
LANES double sigmoid_row_loss(const sigmoid_job *job, sigmoid_row *r, row_function *compute,
                              int64_t row)
{
    const row_terms *t = &job->rows;
    const int labelled = job->target_kind == TARGET_LABEL;
    r->label = labelled ? label_at(t, row) : -1;
    r->element_loss = job->element_loss
                    ? (storage *)job->element_loss + row * job->element_loss_stride : NULL;
    r->grad = job->grad ? (storage *)job->grad + row * job->grad_stride : NULL;
    if (labelled && r->label == t->ignore_index) {
        if (r->element_loss)
            store_fill(r->element_loss, r->classes, 0.0f);
        if (r->grad)
            store_fill(r->grad, r->classes, 0.0f);
        return 0.0;
    }
    r->logits = (const storage *)job->logits + row * job->logits_stride;
    if (job->target_kind == TARGET_U8)
        r->targets_u8 = (const uint8_t *)job->targets + row * job->targets_stride;
    else if (job->target_kind == TARGET_DENSE)
        r->targets = (const storage *)job->targets + row * job->targets_stride;

    const row_factors factors = row_factors_of(t, row, r->label);
    r->weight = factors.loss;
    r->scale_negative = (float)(job->alpha_negative * factors.gradient);
    r->scale_positive = -(float)(job->alpha_positive * factors.gradient);

    const double sum = compute(r);
    const double finite = 0.0 * sum + 0.0 * (double)r->weight + 0.0 * (double)r->scale_negative
                        + 0.0 * (double)r->scale_positive;
    if (__builtin_expect(!(finite == 0.0), 0)) {
        if (r->element_loss)
            make_nan_canonical(r->element_loss, r->classes);
        if (r->grad)
            make_nan_canonical(r->grad, r->classes);
    }
    return r->weight == 0.0f && sum == sum ? 0.0 : (double)r->weight * sum;
}

LANES float canonical_float(double x)
{
    return x == x ? (float)x : LANE_NAN;
}

/* Rows [begin, end): `r` holds what is the same for all of them. */
LANES void sigmoid_rows(const sigmoid_job *job, sigmoid_row *r, row_function *compute,
                        int64_t begin, int64_t end)
{
    const row_terms *t = &job->rows;
    const int64_t step = t->partial ? t->leaf_rows : end - begin;
    for (int64_t leaf = begin; leaf < end; leaf += step) {
        const int64_t leaf_end = end - leaf < step ? end : leaf + step;
        double lanes[LEAF_LANES] = {0.0};
        for (int64_t row = leaf; row < leaf_end; row++) {
            const double loss = sigmoid_row_loss(job, r, compute, row);
            lanes[(row - leaf) % LEAF_LANES] += loss;
            if (t->row_loss)
                ((float *)t->row_loss)[row] = canonical_float(loss);
        }
        for (int half = LEAF_LANES / 2; half > 0; half /= 2)
            for (int i = 0; i < half; i++)
                lanes[i] += lanes[i + half];
        if (t->partial)
            t->partial[leaf / step] = lanes[0];
    }
}

LANES sigmoid_row sigmoid_row_of(const sigmoid_job *job)
{
    sigmoid_row r = {0};
    r.classes = job->classes;
    r.target_kind = job->target_kind;
    r.limit_negative = r.limit_positive = LANE_INFINITY;
    return r;
}

LANES int outputs_of(const sigmoid_job *job)
{
    const int loss = job->rows.partial || job->rows.row_loss || job->element_loss;
    return (loss ? OUT_LOSS : 0) | (job->grad ? OUT_GRAD : 0);
}

#endif
