/* SPDX-License-Identifier: MIT */
/* Trains a small network on long-tailed digits, with plain and with class-balanced softmax
 * cross-entropy, and prints its error on a balanced test set.
 *
 *   train_digits [--loss plain|class-balanced|both] [--beta BETA] [--seeds N] [--epochs N] DATA
 *
 * The network (64-64-10, ReLU) and its training (SGD with momentum and weight decay) are plain C.
 * Loss and gradient come from Ballast, in one call per batch: see loss_and_gradient. */
#include <ballast/ballast.h>

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tools/npy.h"
#include "random.h"

enum { PIXELS = 64, HIDDEN = 64, CLASSES = 10, BATCH = 32, MAX_SEEDS = 1000 };

static const float learning_rate = 0.1f, momentum = 0.9f, weight_decay = 1e-3f;

static void fail(const char *text)
{
    fprintf(stderr, "train_digits: %s\n", text);
    exit(1);
}

/* ---- data ------------------------------------------------------------------------------------ */

typedef struct dataset {
    int64_t rows;
    float *pixels;   /* [rows, PIXELS], in 0 .. 1 */
    uint8_t *labels; /* [rows] */
} dataset;

static npy_array open_array(const char *folder, const char *name, npy_dtype dtype, int dims)
{
    char path[4096];
    npy_array array;
    npy_error error;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!npy_open(path, &array, &error) || !npy_expect(&array, name, dtype, dims, &error))
        fail(error.text);
    return array;
}

/* The images and digits whose row numbers stand in the file `split`. */
static dataset load(const char *folder, const char *split)
{
    npy_array images = open_array(folder, "digits_images.npy", NPY_U1, 2);
    npy_array digits = open_array(folder, "digits_classes.npy", NPY_U1, 1);
    npy_array chosen = open_array(folder, split, NPY_I4, 1);
    const uint8_t *image = images.data, *digit = digits.data;
    const int32_t *row = chosen.data;
    dataset d = {chosen.count, malloc((size_t)chosen.count * PIXELS * sizeof(float)),
                 malloc((size_t)chosen.count)};

    if (chosen.count == 0 || !d.pixels || !d.labels)
        fail("no rows, or no memory for them");
    if (images.shape[1] != PIXELS || digits.count != images.shape[0])
        fail("the images and digits do not match");
    for (int64_t i = 0; i < d.rows; i++) {
        if (row[i] < 0 || row[i] >= digits.count || digit[row[i]] >= CLASSES)
            fail("a row number or digit is out of range");
        for (int p = 0; p < PIXELS; p++)
            d.pixels[i * PIXELS + p] = (float)image[row[i] * PIXELS + p] / 16;
        d.labels[i] = digit[row[i]];
    }
    npy_close(&images);
    npy_close(&digits);
    npy_close(&chosen);
    return d;
}

/* ---- the network ----------------------------------------------------------------------------- */

enum { PARAMETERS = PIXELS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES };

typedef union network {
    struct {
        float w1[PIXELS][HIDDEN], b1[HIDDEN], w2[HIDDEN][CLASSES], b2[CLASSES];
    } layer;
    float all[PARAMETERS];
} network;

static void initialise(network *n, uint64_t *random)
{
    const float bound = 0.125f; /* 1 / sqrt(inputs), and each layer has 64: PyTorch's default */

    for (int i = 0; i < PARAMETERS; i++)
        n->all[i] = random_float(random, -bound, bound);
}

/* y += a x */
static inline void add_scaled(int count, float *y, float a, const float *x)
{
    for (int i = 0; i < count; i++)
        y[i] += a * x[i];
}

static void forward(const network *n, const float pixels[PIXELS], float hidden[HIDDEN],
                    float logits[CLASSES])
{
    memcpy(hidden, n->layer.b1, sizeof n->layer.b1);
    for (int p = 0; p < PIXELS; p++)
        add_scaled(HIDDEN, hidden, pixels[p], n->layer.w1[p]);
    for (int h = 0; h < HIDDEN; h++)
        hidden[h] = hidden[h] > 0 ? hidden[h] : 0;

    memcpy(logits, n->layer.b2, sizeof n->layer.b2);
    for (int h = 0; h < HIDDEN; h++)
        add_scaled(CLASSES, logits, hidden[h], n->layer.w2[h]);
}

/* Adds the gradient of one row to `g`, from the gradient of its logits. */
static void backward(const network *n, const float pixels[PIXELS], const float hidden[HIDDEN],
                     const float grad[CLASSES], network *g)
{
    float grad_hidden[HIDDEN];

    for (int h = 0; h < HIDDEN; h++) {
        float sum = 0;

        for (int c = 0; c < CLASSES; c++)
            sum += n->layer.w2[h][c] * grad[c];
        grad_hidden[h] = hidden[h] > 0 ? sum : 0;
        add_scaled(CLASSES, g->layer.w2[h], hidden[h], grad);
    }
    add_scaled(CLASSES, g->layer.b2, 1, grad);
    add_scaled(HIDDEN, g->layer.b1, 1, grad_hidden);
    for (int p = 0; p < PIXELS; p++)
        add_scaled(HIDDEN, g->layer.w1[p], pixels[p], grad_hidden);
}

static void step(network *n, network *velocity, const network *g)
{
    for (int i = 0; i < PARAMETERS; i++) {
        velocity->all[i] = momentum * velocity->all[i] + g->all[i] + weight_decay * n->all[i];
        n->all[i] -= learning_rate * velocity->all[i];
    }
}

/* ---- the loss -------------------------------------------------------------------------------- */

/* Class weights by the effective number of training rows. */
static void class_weights(const dataset *train, double beta, float weights[CLASSES])
{
    int64_t counts[CLASSES];
    ballast_error error;
    char text[200];
    ballast_class_weights_args a = BALLAST_CLASS_WEIGHTS_ARGS;

    a.beta = beta;
    a.classes = CLASSES;
    a.labels = ballast_labels_u8(train->labels);
    a.label_count = train->rows;
    a.counts_out = counts;
    a.weights = weights;
    a.error = &error;
    if (ballast_class_weights(&a) != BALLAST_OK)
        fail(ballast_error_message(&error, text, sizeof text));
}

/* The mean loss over a batch; its gradient takes the logits' place. Without `weights`: the plain
 * softmax cross-entropy. */
static double loss_and_gradient(float *logits, const uint8_t *labels, int rows,
                                const float *weights)
{
    double loss;
    ballast_error error;
    char text[200];
    ballast_status status;

    if (weights) {
        ballast_class_balanced_args a = BALLAST_CLASS_BALANCED_ARGS;

        a.logits = ballast_const_matrix_f32(logits, rows, CLASSES);
        a.labels = ballast_labels_u8(labels);
        a.class_weight = weights;
        a.loss = &loss;
        a.grad = ballast_matrix_f32(logits, rows, CLASSES);
        a.error = &error;
        status = ballast_class_balanced_loss(&a, NULL);
    } else {
        ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

        a.logits = ballast_const_matrix_f32(logits, rows, CLASSES);
        a.labels = ballast_labels_u8(labels);
        a.loss = &loss;
        a.grad = ballast_matrix_f32(logits, rows, CLASSES);
        a.error = &error;
        status = ballast_cross_entropy(&a, NULL);
    }
    if (status != BALLAST_OK)
        fail(ballast_error_message(&error, text, sizeof text));
    return loss;
}

/* ---- training and testing -------------------------------------------------------------------- */

static void shuffle(int64_t *order, int64_t count, uint64_t *random)
{
    for (int64_t i = count - 1; i > 0; i--) {
        const int64_t j = (int64_t)(random_bits(random) % (uint64_t)(i + 1));
        const int64_t kept = order[i];

        order[i] = order[j];
        order[j] = kept;
    }
}

/* One step on the `rows` training rows named by `order`; returns their mean loss. */
static double train_batch(network *n, network *velocity, const dataset *train,
                          const int64_t *order, int rows, const float *weights)
{
    static network g;
    float hidden[BATCH][HIDDEN], logits[BATCH][CLASSES];
    uint8_t labels[BATCH];

    for (int i = 0; i < rows; i++) {
        forward(n, train->pixels + order[i] * PIXELS, hidden[i], logits[i]);
        labels[i] = train->labels[order[i]];
    }
    const double loss = loss_and_gradient(logits[0], labels, rows, weights);

    memset(&g, 0, sizeof g);
    for (int i = 0; i < rows; i++)
        backward(n, train->pixels + order[i] * PIXELS, hidden[i], logits[i], &g);
    step(n, velocity, &g);
    return loss;
}

/* Trains from scratch on one seed; returns the mean loss of the last epoch. */
static double train_network(network *n, const dataset *train, const float *weights, int epochs,
                            uint64_t seed)
{
    static network velocity;
    int64_t *order = malloc((size_t)train->rows * sizeof *order);
    uint64_t random = seed;
    double loss = 0;

    if (!order)
        fail("out of memory");
    for (int64_t i = 0; i < train->rows; i++)
        order[i] = i;
    initialise(n, &random);
    memset(&velocity, 0, sizeof velocity);
    for (int epoch = 0; epoch < epochs; epoch++) {
        loss = 0;
        shuffle(order, train->rows, &random);
        for (int64_t at = 0; at < train->rows; at += BATCH) {
            const int64_t left = train->rows - at;
            const int rows = left < BATCH ? (int)left : BATCH;

            loss += rows * train_batch(n, &velocity, train, order + at, rows, weights);
        }
        loss /= (double)train->rows;
    }
    free(order);
    return loss;
}

/* Wrong answers in percent: of each class, and in the last place of all. */
static void test_network(const network *n, const dataset *test, double errors[CLASSES + 1])
{
    int64_t wrong[CLASSES + 1] = {0}, rows[CLASSES + 1] = {0};

    for (int64_t i = 0; i < test->rows; i++) {
        float hidden[HIDDEN], logits[CLASSES];
        int answer = 0;
        const int label = test->labels[i];

        forward(n, test->pixels + i * PIXELS, hidden, logits);
        for (int c = 1; c < CLASSES; c++)
            answer = logits[c] > logits[answer] ? c : answer;
        wrong[label] += answer != label;
        wrong[CLASSES] += answer != label;
        rows[label]++;
        rows[CLASSES]++;
    }
    for (int c = 0; c <= CLASSES; c++)
        errors[c] = 100.0 * (double)wrong[c] / (double)rows[c];
}

/* ---- the command line ------------------------------------------------------------------------ */

enum { PLAIN, CLASS_BALANCED, LOSSES };
static const char *const loss_names[LOSSES] = {"plain", "class-balanced"};

typedef struct options {
    int wanted[LOSSES];
    double beta;
    int seeds, epochs;
    const char *folder;
} options;

/* Errors of every class, and of all, on every seed. */
typedef double results[MAX_SEEDS][CLASSES + 1];

static void usage(void)
{
    fail("usage: train_digits [--loss plain|class-balanced|both] [--beta BETA] [--seeds N] "
         "[--epochs N] DATA");
}

static double number(const char *text, double low, double high)
{
    char *end;
    const double value = strtod(text, &end);

    if (end == text || *end || !(value >= low && value <= high))
        usage();
    return value;
}

static options parse(int argc, char **argv)
{
    options o = {{1, 1}, 0.999, 5, 200, NULL};

    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";

        if (name[0] != '-' && !o.folder) {
            o.folder = name;
            continue;
        }
        if (strcmp(name, "--loss") == 0) {
            const int both = strcmp(value, "both") == 0;

            for (int l = 0; l < LOSSES; l++)
                o.wanted[l] = both || strcmp(value, loss_names[l]) == 0;
        } else if (strcmp(name, "--beta") == 0) {
            o.beta = number(value, 0, 1);
        } else if (strcmp(name, "--seeds") == 0) {
            o.seeds = (int)number(value, 1, MAX_SEEDS);
        } else if (strcmp(name, "--epochs") == 0) {
            o.epochs = (int)number(value, 1, 1e6);
        } else {
            usage();
        }
        i++;
    }
    if (!o.folder || (!o.wanted[PLAIN] && !o.wanted[CLASS_BALANCED]))
        usage();
    return o;
}

static void run(const options *o, int loss, const dataset *train, const dataset *test,
                const float *weights, results errors)
{
    static network n;

    for (int seed = 0; seed < o->seeds; seed++) {
        const double last = train_network(&n, train, weights, o->epochs, (uint64_t)seed);

        test_network(&n, test, errors[seed]);
        fprintf(stderr, "%-14s  seed %d: training loss %.4f, test error %.1f %%\n",
                loss_names[loss], seed, last, errors[seed][CLASSES]);
    }
}

/* Mean and standard deviation over the seeds. */
static void print_error(results errors, int seeds, int class)
{
    double mean = 0, squares = 0;

    for (int s = 0; s < seeds; s++)
        mean += errors[s][class] / seeds;
    for (int s = 0; s < seeds; s++)
        squares += (errors[s][class] - mean) * (errors[s][class] - mean);
    printf("  %7.1f +- %4.1f", mean, seeds > 1 ? sqrt(squares / (seeds - 1)) : 0);
}

static void print_table(const options *o, const dataset *train, results errors[LOSSES])
{
    int64_t rows[CLASSES + 1] = {0};

    for (int64_t i = 0; i < train->rows; i++)
        rows[train->labels[i]]++;
    rows[CLASSES] = train->rows;

    printf("Test error in %%, mean and standard deviation over %d seed%s; beta = %g\n\n", o->seeds,
           o->seeds > 1 ? "s" : "", o->beta);
    printf("digit  training rows");
    for (int l = 0; l < LOSSES; l++)
        if (o->wanted[l])
            printf("  %15s", loss_names[l]);
    for (int c = 0; c <= CLASSES; c++) {
        if (c < CLASSES)
            printf("\n%5d", c);
        else
            printf("\n  all");
        printf("  %13lld", (long long)rows[c]);
        for (int l = 0; l < LOSSES; l++)
            if (o->wanted[l])
                print_error(errors[l], o->seeds, c);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    static results errors[LOSSES];
    const options o = parse(argc, argv);
    const dataset train = load(o.folder, "digits_lt_train.npy");
    const dataset test = load(o.folder, "digits_lt_test.npy");
    float weights[CLASSES];

    class_weights(&train, o.beta, weights);
    if (o.wanted[PLAIN])
        run(&o, PLAIN, &train, &test, NULL, errors[PLAIN]);
    if (o.wanted[CLASS_BALANCED])
        run(&o, CLASS_BALANCED, &train, &test, weights, errors[CLASS_BALANCED]);
    print_table(&o, &train, errors);

    free(train.pixels);
    free(train.labels);
    free(test.pixels);
    free(test.labels);
    return 0;
}
