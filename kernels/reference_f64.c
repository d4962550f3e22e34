/* SPDX-License-Identifier: MIT */
/* All kernels for f64: plain C, one element at a time, for gradient checks and references.
 *
 * exp, log and log1p are SLEEF's `cinz` functions, its family without FMA: the same bits on every
 * CPU. They are within 1 ULP. Sums carry what each addition rounds away (Neumaier, by Knuth's
 * two-sum), products in sums their rounding error (Dekker), differences of logits theirs, so that
 * little but the functions' error is left. Worst found against long double, in ULP: softmax and
 * cross-entropy 3.3, log-softmax 2.0, binary cross-entropy 2.1, focal 6.5 (|x| <= 700, gamma <= 5),
 * sums 0.5; where terms of both signs are added, of the sum of |terms|. */
#include <sleef.h>

#include <string.h>

#include "kernels.h"

#define INFINITE ((double)__builtin_inff())

/* ---- exact steps ----------------------------------------------------------------------------- */

static double canonical(double x)
{
    const uint64_t bits = UINT64_C(0x7ff8000000000000);
    double nan;
    memcpy(&nan, &bits, sizeof nan);
    return x == x ? x : nan;
}

static int is_finite(double x) { return x - x == 0.0; }

/* The limits of these losses: a factor of 0 wins over an infinite loss. */
static double limit_product(double factor, double value)
{
    return factor == 0.0 && (value == INFINITE || value == -INFINITE) ? 0.0 : factor * value;
}

/* A value and what its rounding lost; low is 0 where high is not finite. */
typedef struct pair {
    double high, low;
} pair;

static pair pair_of(double high, double low)
{
    return (pair){high, is_finite(low) ? low : 0.0};
}

/* a + b, exactly: Knuth's two-sum. */
static pair add_exactly(double a, double b)
{
    const double sum = a + b, b_used = sum - a;
    return pair_of(sum, (a - (sum - b_used)) + (b - b_used));
}

/* a b, exactly but for underflow, without FMA: Dekker 1971, Veltkamp's splitting. Rounded beyond
 * 2^996, where the splitting overflows. */
static pair multiply_exactly(double a, double b)
{
    const double splitter = 0x1p27 + 1.0, product = a * b;
    const double as = splitter * a, bs = splitter * b;
    const double ah = as - (as - a), bh = bs - (bs - b);
    const double al = a - ah, bl = b - bh;
    return pair_of(product, ((ah * bh - product) + ah * bl + al * bh) + al * bl);
}

/* A compensated sum, started from {0, 0}. */
typedef struct sum {
    double value, rest;
} sum;

static void add(sum *s, double x)
{
    const pair p = add_exactly(s->value, x);
    s->value = p.high;
    s->rest += p.low;
}

static void add_pair(sum *s, pair p)
{
    add(s, p.high);
    s->rest += p.low;
}

static double total_of(const sum *s) { return s->value + s->rest; }

static double exp_f64(double x) { return Sleef_cinz_expd1_u10purec(x); }
static double log_f64(double x) { return Sleef_cinz_logd1_u10purec(x); }
static double log1p_f64(double x) { return Sleef_cinz_log1pd1_u10purec(x); }

/* e^(high + low), where low is a rounding error of high. */
static double exp_of_pair(pair p)
{
    const double e = exp_f64(p.high);
    return e + e * p.low;
}

/* e^(x - max) for a finite max and x <= max. */
static double exp_difference(double x, double max)
{
    return exp_of_pair(add_exactly(x, -max));
}

/* ---- softmax --------------------------------------------------------------------------------- */

/* A row of a tensor [outer, classes, inner]: class c is x[c * stride]. */
typedef struct input_row {
    const double *x;
    int64_t stride, classes;
} input_row;

/* Where row i begins. */
static int64_t offset_of(int64_t i, int64_t inner, int64_t outer_stride)
{
    return i / inner * outer_stride + i % inner;
}

static double class_of(input_row r, int64_t c) { return r.x[c * r.stride]; }

/* The largest logit and the sum of the others' exponentials relative to it. at < 0: the row's
 * softmax is NaN, and `max` is its log-sum-exp: NaN, +inf or -inf. */
typedef struct row_state {
    int64_t at;
    double max;
    double rest;
} row_state;

static row_state row_maximum(input_row r)
{
    row_state row = {-1, -INFINITE, 0.0};
    for (int64_t c = 0; c < r.classes; c++) {
        const double x = class_of(r, c);
        if (x != x)
            return (row_state){-1, canonical(x), 0.0};
        if (x > row.max)
            row = (row_state){c, x, 0.0};
    }
    if (row.max == INFINITE)
        row.at = -1;
    return row;
}

/* Without the columns a and b. */
static double sum_exponentials(input_row r, double max, int64_t a, int64_t b)
{
    sum s = {0.0, 0.0};
    for (int64_t c = 0; c < r.classes; c++)
        if (c != a && c != b)
            add(&s, exp_difference(class_of(r, c), max));
    return total_of(&s);
}

static row_state row_state_of(input_row r)
{
    row_state row = row_maximum(r);
    if (row.at >= 0)
        row.rest = sum_exponentials(r, row.max, row.at, row.at);
    return row;
}

static void fill(double *x, int64_t stride, int64_t n, double value)
{
    for (int64_t c = 0; c < n; c++)
        x[c * stride] = value;
}

static input_row softmax_input(const softmax_job *job, int64_t i)
{
    const double *x = job->input;
    return (input_row){x + offset_of(i, job->inner, job->input_stride), job->input_class_stride,
                       job->classes};
}

static double *softmax_output(const softmax_job *job, int64_t i)
{
    return (double *)job->output + offset_of(i, job->inner, job->output_stride);
}

static void softmax(const softmax_job *job, int64_t begin, int64_t end)
{
    const int64_t stride = job->output_class_stride;
    for (int64_t i = begin; i < end; i++) {
        const input_row x = softmax_input(job, i);
        double *y = softmax_output(job, i);
        const row_state row = row_state_of(x);
        if (row.at < 0)
            fill(y, stride, job->classes, canonical(INFINITE - INFINITE));
        else
            for (int64_t c = 0; c < job->classes; c++)
                y[c * stride] = exp_difference(class_of(x, c), row.max) / (1.0 + row.rest);
    }
}

/* (x - max) - log1p(rest): both parts are <= 0. */
static void log_softmax(const softmax_job *job, int64_t begin, int64_t end)
{
    const int64_t stride = job->output_class_stride;
    for (int64_t i = begin; i < end; i++) {
        const input_row x = softmax_input(job, i);
        double *y = softmax_output(job, i);
        const row_state row = row_state_of(x);
        const double log_sum = row.at < 0 ? canonical(INFINITE - INFINITE) : log1p_f64(row.rest);
        for (int64_t c = 0; c < job->classes; c++) {
            const pair d = add_exactly(class_of(x, c), -row.max);
            y[c * stride] = canonical((d.high - log_sum) + d.low);
        }
    }
}

static void log_sum_exp(const softmax_job *job, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        const row_state row = row_state_of(softmax_input(job, i));
        ((double *)job->output)[i] = row.max + log1p_f64(row.rest);
    }
}

/* What a backward operation reads and writes of one row. */
typedef struct backward_row {
    input_row y, g;
    double *dx;
    int64_t stride; /* of dx */
} backward_row;

static backward_row backward_row_of(const softmax_backward_job *job, int64_t i)
{
    const double *y = job->output, *g = job->grad_output;
    const int64_t inner = job->inner;
    return (backward_row){
        {y + offset_of(i, inner, job->output_stride), job->output_class_stride, job->classes},
        {g + offset_of(i, inner, job->grad_output_stride), job->grad_output_class_stride,
         job->classes},
        (double *)job->grad_input + offset_of(i, inner, job->grad_input_stride),
        job->grad_input_class_stride};
}

static void softmax_backward(const softmax_backward_job *job, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        const backward_row r = backward_row_of(job, i);
        sum dot = {0.0, 0.0};
        for (int64_t c = 0; c < job->classes; c++)
            add_pair(&dot, multiply_exactly(class_of(r.g, c), class_of(r.y, c)));
        const double mean = total_of(&dot);
        for (int64_t c = 0; c < job->classes; c++)
            r.dx[c * r.stride] = canonical(class_of(r.y, c) * (class_of(r.g, c) - mean));
    }
}

static void log_softmax_backward(const softmax_backward_job *job, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        const backward_row r = backward_row_of(job, i);
        sum all = {0.0, 0.0};
        for (int64_t c = 0; c < job->classes; c++)
            add(&all, class_of(r.g, c));
        const double grad_sum = total_of(&all);
        for (int64_t c = 0; c < job->classes; c++)
            r.dx[c * r.stride] = canonical(class_of(r.g, c) - exp_f64(class_of(r.y, c)) * grad_sum);
    }
}

/* ---- rows of losses -------------------------------------------------------------------------- */

static int64_t label_at(const row_terms *t, int64_t row)
{
    switch (t->label_bytes) {
    case 1:
        return ((const uint8_t *)t->labels)[row];
    case 4:
        return ((const int32_t *)t->labels)[row];
    case 8:
        return ((const int64_t *)t->labels)[row];
    default:
        return -1;
    }
}

static int is_ignored(const row_terms *t, int64_t label)
{
    return t->label_bytes != 0 && label == t->ignore_index;
}

/* What multiplies a row's loss, and its gradient. label < 0: no class weight. */
typedef struct row_factors {
    double loss, gradient;
} row_factors;

static row_factors row_factors_of(const row_terms *t, int64_t row, int64_t label)
{
    const double *class_weight = t->class_weight, *row_weight = t->row_weight, *g = t->grad_rows;
    const double weight = (class_weight && label >= 0 ? class_weight[label] : 1.0) *
                          (row_weight ? row_weight[row] : 1.0);
    return (row_factors){weight, (g ? t->grad_scale * g[row] : t->grad_scale) * weight};
}

/* The row losses of one leaf. */
typedef struct leaf_sum {
    double lanes[LEAF_LANES];
} leaf_sum;

static void store_leaf(leaf_sum *leaf, double *partial)
{
    for (int half = LEAF_LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            leaf->lanes[k] += leaf->lanes[k + half];
    *partial = canonical(leaf->lanes[0]);
}

/* Row i's loss is known: store it, add it, and store the leaf after its last row. */
static void store_row_loss(const row_terms *t, int64_t row, int64_t end, double loss,
                           leaf_sum *leaf)
{
    if (t->row_loss)
        ((double *)t->row_loss)[row] = loss;
    if (!t->partial)
        return;
    const int64_t i = row % t->leaf_rows;
    if (i == 0)
        *leaf = (leaf_sum){{0.0}};
    leaf->lanes[i % LEAF_LANES] += loss;
    if (i + 1 == t->leaf_rows || row + 1 == end)
        store_leaf(leaf, t->partial + row / t->leaf_rows);
}

/* ---- softmax cross-entropy ------------------------------------------------------------------- */

/* One row, with y the label, k the maximum:
 *
 *   loss   = (x_k - x_y) + log1p(sum without k)         both parts >= 0
 *   grad_c = e_c / S,  grad_y = -(sum without y) / S
 *
 * `apart` is the sum without either; so neither sum is a difference. grad may be x. */
static double cross_entropy_row(input_row x, int64_t y, row_factors factors, double *grad,
                                int64_t stride)
{
    const row_state row = row_maximum(x);
    if (row.at < 0) {
        const double nan = canonical(INFINITE - INFINITE);
        if (grad)
            fill(grad, stride, x.classes, nan);
        return nan;
    }
    const double apart = sum_exponentials(x, row.max, y, row.at);
    const double label = y == row.at ? 0.0 : exp_difference(class_of(x, y), row.max);
    const double rest = apart + label, others = y == row.at ? apart : 1.0 + apart;
    const pair gap = add_exactly(row.max, -class_of(x, y));
    const double loss = (gap.high + log1p_f64(rest)) + gap.low;
    if (grad) {
        for (int64_t c = 0; c < x.classes; c++) {
            const double e = exp_difference(class_of(x, c), row.max);
            grad[c * stride] = canonical(factors.gradient * (e / (1.0 + rest)));
        }
        grad[y * stride] = canonical(0.0 - factors.gradient * (others / (1.0 + rest)));
    }
    return canonical(limit_product(factors.loss, loss));
}

static void cross_entropy(const cross_entropy_job *job, int64_t begin, int64_t end)
{
    leaf_sum leaf = {{0.0}};
    for (int64_t i = begin; i < end; i++) {
        const double *logits = job->logits;
        const input_row x = {logits + offset_of(i, job->inner, job->logits_stride),
                             job->logits_class_stride, job->classes};
        double *grad = job->grad
                           ? (double *)job->grad + offset_of(i, job->inner, job->grad_stride)
                           : NULL;
        const int64_t label = label_at(&job->rows, i);
        double loss = 0.0;
        if (!is_ignored(&job->rows, label))
            loss = cross_entropy_row(x, label, row_factors_of(&job->rows, i, label), grad,
                                     job->grad_class_stride);
        else if (grad)
            fill(grad, job->grad_class_stride, job->classes, 0.0);
        store_row_loss(&job->rows, i, end, loss, &leaf);
    }
}

/* ---- sigmoid losses -------------------------------------------------------------------------- */

/* The loss of an element and its derivative by x, without weights. */
typedef struct element {
    double loss, grad;
} element;

typedef element element_function(const sigmoid_job *job, double x, double target);

/* Everything of z comes from e = exp(-|z|):
 * p = sigmoid(z), q = sigmoid(-z), log1p = log(1 + e), softplus = log(1 + exp(-z)) = -log p. */
typedef struct sigmoid_terms {
    double p, q, log1p, softplus;
} sigmoid_terms;

static sigmoid_terms sigmoid_terms_of(double z)
{
    const double e = exp_f64(z > 0.0 ? -z : z), near_one = 1.0 / (1.0 + e), rest = e / (1.0 + e);
    const double log1p = log1p_f64(e);
    if (z > 0.0)
        return (sigmoid_terms){near_one, rest, log1p, log1p};
    return (sigmoid_terms){rest, near_one, log1p, log1p - z};
}

/* t softplus(-x) + (1 - t) softplus(x); its derivative adds terms of both signs for 0 < t < 1. */
static element binary_cross_entropy_element(const sigmoid_job *job, double x, double t)
{
    (void)job;
    const sigmoid_terms up = sigmoid_terms_of(x), down = sigmoid_terms_of(-x);
    return (element){limit_product(t, up.softplus) + limit_product(1.0 - t, down.softplus),
                     (1.0 - t) * up.p - t * up.q};
}

/* q^gamma = exp(-gamma log(1 + e^z)) = exp(-(gamma max(z, 0) + gamma log1p)): the first product is
 * taken exactly, as its rounding error would be a relative error of the result. */
static double modulator_of(double gamma, double z, double log1p)
{
    if (gamma == 0.0)
        return 1.0;
    const pair product = multiply_exactly(-gamma, z > 0.0 ? z : 0.0);
    const pair exponent = add_exactly(product.high, -gamma * log1p);
    return exp_of_pair((pair){exponent.high, exponent.low + product.low});
}

/* a q^gamma softplus and its derivative by z, -a q^gamma (gamma p softplus + q). */
static element sigmoid_focal_element(const sigmoid_job *job, double x, double t)
{
    if (t != 0.0 && t != 1.0)
        return (element){canonical(INFINITE - INFINITE), canonical(INFINITE - INFINITE)};
    const double z = t == 1.0 ? x : -x;
    const double alpha = t == 1.0 ? job->alpha_positive : job->alpha_negative;
    const sigmoid_terms s = sigmoid_terms_of(z);
    const double modulator = alpha * modulator_of(job->gamma, z, s.log1p);
    const double by_z = -modulator * (job->gamma * limit_product(s.p, s.softplus) + s.q);
    return (element){limit_product(modulator, s.softplus), t == 1.0 ? by_z : -by_z};
}

static double target_at(const sigmoid_job *job, int64_t row, int64_t column, int64_t label)
{
    const int64_t at = row * job->targets_stride + column;
    switch (job->target_kind) {
    case TARGET_LABEL:
        return column == label ? 1.0 : 0.0;
    case TARGET_U8:
        return ((const uint8_t *)job->targets)[at] ? 1.0 : 0.0;
    default:
        return ((const double *)job->targets)[at];
    }
}

/* NULL for an output that is not wanted. */
static double *output_row(void *data, int64_t stride, int64_t row)
{
    return data ? (double *)data + row * stride : NULL;
}

static double sigmoid_row(const sigmoid_job *job, int64_t i, int64_t label, element_function *f)
{
    const double *x = (const double *)job->logits + i * job->logits_stride;
    double *losses = output_row(job->element_loss, job->element_loss_stride, i);
    double *grad = output_row(job->grad, job->grad_stride, i);
    const row_factors factors = row_factors_of(&job->rows, i, label);
    sum s = {0.0, 0.0};
    for (int64_t c = 0; c < job->classes; c++) {
        const element e = f(job, x[c], target_at(job, i, c, label));
        add(&s, e.loss);
        if (losses)
            losses[c] = canonical(limit_product(factors.loss, e.loss));
        if (grad)
            grad[c] = canonical(factors.gradient * e.grad) + 0.0; /* no -0 */
    }
    return canonical(limit_product(factors.loss, total_of(&s)));
}

static void sigmoid_rows(const sigmoid_job *job, int64_t begin, int64_t end, element_function *f)
{
    leaf_sum leaf = {{0.0}};
    for (int64_t i = begin; i < end; i++) {
        const int64_t label = label_at(&job->rows, i);
        double loss = 0.0;
        if (is_ignored(&job->rows, label)) {
            if (job->element_loss)
                fill(output_row(job->element_loss, job->element_loss_stride, i), 1, job->classes,
                     0.0);
            if (job->grad)
                fill(output_row(job->grad, job->grad_stride, i), 1, job->classes, 0.0);
        } else {
            loss = sigmoid_row(job, i, label, f);
        }
        store_row_loss(&job->rows, i, end, loss, &leaf);
    }
}

static void binary_cross_entropy(const sigmoid_job *job, int64_t begin, int64_t end)
{
    sigmoid_rows(job, begin, end, binary_cross_entropy_element);
}

static void sigmoid_focal(const sigmoid_job *job, int64_t begin, int64_t end)
{
    sigmoid_rows(job, begin, end, sigmoid_focal_element);
}

/* ---- reductions ------------------------------------------------------------------------------ */

static double weight_at(const double *w, int64_t i) { return w ? w[i] : 1.0; }

static double sum_of_products(const double *x, const double *w, int64_t n)
{
    sum s = {0.0, 0.0};
    for (int64_t i = 0; i < n; i++)
        add_pair(&s, w ? multiply_exactly(w[i], x[i]) : (pair){x[i], 0.0});
    return canonical(total_of(&s));
}

static double sum_of_squares(const double *x, const double *w, int64_t n)
{
    sum s = {0.0, 0.0};
    for (int64_t i = 0; i < n; i++) {
        const pair product = w ? multiply_exactly(w[i], x[i]) : (pair){x[i], 0.0};
        const pair square = multiply_exactly(product.high, x[i]);
        add_pair(&s, pair_of(square.high, square.low + product.low * x[i]));
    }
    return canonical(total_of(&s));
}

/* Logit i, and -inf where its weight is 0: whatever stands there adds nothing. */
static double logit_at(const double *x, const double *w, int64_t i)
{
    return weight_at(w, i) == 0.0 ? -INFINITE : x[i];
}

/* parts: the sum of w e^(x - max), and max. Where max is infinite, the sum stands for itself: 0, or
 * what the infinite elements, which are all that matters, and NaN add up to. */
static void log_sum_exp_of_leaf(const double *x, const double *w, int64_t n, double *parts)
{
    double max = -INFINITE;
    sum s = {0.0, 0.0};
    for (int64_t i = 0; i < n; i++)
        if (logit_at(x, w, i) > max)
            max = logit_at(x, w, i);
    for (int64_t i = 0; i < n; i++) {
        const double logit = logit_at(x, w, i), weight = weight_at(w, i);
        if (logit != logit || weight != weight || logit == INFINITE)
            add(&s, weight * logit);
        else if (is_finite(max) && logit != -INFINITE)
            add_pair(&s, multiply_exactly(weight, exp_difference(logit, max)));
    }
    parts[0] = canonical(total_of(&s));
    parts[1] = is_finite(max) ? max : -INFINITE;
}

/* log(sum of part e^(reference - largest)) + largest. A part not finite has no reference. */
static double log_sum_exp_of_parts(const double *parts, int64_t leaves)
{
    double largest = -INFINITE;
    sum s = {0.0, 0.0};
    for (int64_t i = 0; i < leaves; i++)
        if (parts[REDUCE_PARTS * i] != 0.0 && parts[REDUCE_PARTS * i + 1] > largest)
            largest = parts[REDUCE_PARTS * i + 1];
    for (int64_t i = 0; i < leaves; i++) {
        const double part = parts[REDUCE_PARTS * i], ref = parts[REDUCE_PARTS * i + 1];
        if (!is_finite(part))
            add(&s, part);
        else if (part != 0.0)
            add_pair(&s, multiply_exactly(part, exp_difference(ref, largest)));
    }
    const double total = total_of(&s);
    if (!(total >= 0.0))
        return canonical(INFINITE - INFINITE);
    if (total == 0.0 || total == INFINITE)
        return total == 0.0 ? -INFINITE : INFINITE;
    return log_f64(total) + largest;
}

typedef void leaf_function(const double *x, const double *w, int64_t n, double *parts);

static void for_each_leaf(const reduce_job *job, int64_t begin, int64_t end, leaf_function *f)
{
    const double *x = job->x, *w = job->weights;
    for (int64_t i = begin; i < end; i += job->leaf_rows) {
        const int64_t n = end - i < job->leaf_rows ? end - i : job->leaf_rows;
        f(x + i, w ? w + i : NULL, n, job->partial + i / job->leaf_rows * REDUCE_PARTS);
    }
}

static void sum_of_leaf(const double *x, const double *w, int64_t n, double *parts)
{
    parts[0] = sum_of_products(x, w, n);
}

static void mean_of_leaf(const double *x, const double *w, int64_t n, double *parts)
{
    parts[0] = sum_of_products(x, w, n);
    parts[1] = w ? sum_of_products(w, NULL, n) : (double)n;
}

static void squares_of_leaf(const double *x, const double *w, int64_t n, double *parts)
{
    parts[0] = sum_of_squares(x, w, n);
}

static void weighted_sum(const reduce_job *job, int64_t begin, int64_t end)
{
    for_each_leaf(job, begin, end, sum_of_leaf);
}

static void weighted_mean(const reduce_job *job, int64_t begin, int64_t end)
{
    for_each_leaf(job, begin, end, mean_of_leaf);
}

static void weighted_sum_of_squares(const reduce_job *job, int64_t begin, int64_t end)
{
    for_each_leaf(job, begin, end, squares_of_leaf);
}

static void weighted_log_sum_exp(const reduce_job *job, int64_t begin, int64_t end)
{
    for_each_leaf(job, begin, end, log_sum_exp_of_leaf);
}

const kernel_table ballast__kernels_f64_reference = {
    .softmax = softmax,
    .log_softmax = log_softmax,
    .log_sum_exp = log_sum_exp,
    .softmax_backward = softmax_backward,
    .log_softmax_backward = log_softmax_backward,
    .cross_entropy = cross_entropy,
    .softmax_planes = softmax,
    .log_softmax_planes = log_softmax,
    .log_sum_exp_planes = log_sum_exp,
    .softmax_backward_planes = softmax_backward,
    .log_softmax_backward_planes = log_softmax_backward,
    .cross_entropy_planes = cross_entropy,
    .binary_cross_entropy = binary_cross_entropy,
    .sigmoid_focal = sigmoid_focal,
    .weighted_sum = weighted_sum,
    .weighted_mean = weighted_mean,
    .weighted_sum_of_squares = weighted_sum_of_squares,
    .weighted_log_sum_exp = weighted_log_sum_exp,
    .log_sum_exp_of_parts = log_sum_exp_of_parts,
};
