/* SPDX-License-Identifier: MIT */
/* Class-balanced losses on a long-tailed data set: the class weights, the three losses class by
 * class, the gradient as a file, and the time it takes.
 *
 *   class_balanced [--grad FILE] [--rows N] DATA
 *
 * DATA is examples/data. --grad names the file for the gradient of the class-balanced softmax loss
 * (class_balanced_grad.npy). --rows is the size of the second, drawn input to measure times on, in
 * rows of 1024 logits (16384; 0: none). */
#include <ballast/ballast.h>

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../tools/npy.h"
#include "plain_c.h"
#include "random.h"

enum { KINDS = 3, DRAWN_CLASSES = 1024, MAX_CLASSES = DRAWN_CLASSES };

static const double beta = 0.999, focal_gamma = 2;
static const char *const kind_names[KINDS] = {"softmax", "sigmoid", "focal"};

static void fail(const char *text)
{
    fprintf(stderr, "class_balanced: %s\n", text);
    exit(1);
}

static void check(ballast_status status, const ballast_error *error)
{
    char text[200];

    if (status != BALLAST_OK)
        fail(ballast_error_message(error, text, sizeof text));
}

static void *allocate(int64_t count, size_t size)
{
    void *memory = calloc((size_t)count + 1, size);

    if (!memory)
        fail("out of memory");
    return memory;
}

/* ---- the input ------------------------------------------------------------------------------- */

typedef struct batch {
    int64_t rows, classes;
    const float *logits;         /* [rows, classes] */
    const int64_t *labels;       /* [rows] */
    int64_t counts[MAX_CLASSES]; /* rows of each class */
    float weights[MAX_CLASSES];
} batch;

/* Counts the labels, and weighs the classes by their effective number of rows. */
static void weigh_classes(batch *b)
{
    ballast_error error;
    ballast_class_weights_args a = BALLAST_CLASS_WEIGHTS_ARGS;

    a.beta = beta;
    a.classes = b->classes;
    a.labels = ballast_labels_i64(b->labels);
    a.label_count = b->rows;
    a.counts_out = b->counts;
    a.empty_class = BALLAST_EMPTY_CLASS_ONE; /* drawn labels may leave a class out */
    a.weights = b->weights;
    a.error = &error;
    check(ballast_class_weights(&a), &error);
}

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

/* More logits than a cache holds, almost normal, with labels that prefer the low classes. */
static void draw(batch *b, int64_t rows)
{
    uint64_t random = 2019;
    float *logits = allocate(rows * DRAWN_CLASSES, sizeof *logits);
    int64_t *labels = allocate(rows, sizeof *labels);

    for (int64_t i = 0; i < rows * DRAWN_CLASSES; i++) {
        const uint64_t r = random_bits(&random);
        const uint64_t sum = (r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48);

        logits[i] = ((float)sum - 131070) / 12600; /* mean 0, standard deviation 3 */
    }
    for (int64_t i = 0; i < rows; i++) {
        const float u = random_float(&random, 0, 0.999f);

        labels[i] = (int64_t)(u * u * u * DRAWN_CLASSES);
    }
    b->rows = rows;
    b->classes = DRAWN_CLASSES;
    b->logits = logits;
    b->labels = labels;
    weigh_classes(b);
}

/* ---- the losses ------------------------------------------------------------------------------ */

/* The class-balanced loss of a batch; with its gradient where `grad` is not NULL, and the loss of
 * each row where `row_loss` is not NULL. */
static double ballast_loss(const batch *b, int kind, const ballast_implementation *implementation,
                           float *grad, float *row_loss)
{
    double loss;
    ballast_error error;
    ballast_exec exec = BALLAST_EXEC;
    ballast_class_balanced_args a = BALLAST_CLASS_BALANCED_ARGS;

    a.kind = (ballast_class_balanced_kind)kind;
    a.gamma = focal_gamma;
    a.logits = ballast_const_matrix_f32(b->logits, b->rows, b->classes);
    a.labels = ballast_labels_i64(b->labels);
    a.class_weight = b->weights;
    a.loss = &loss;
    a.row_loss = row_loss;
    a.grad = ballast_matrix_f32(grad, b->rows, b->classes);
    a.error = &error;
    exec.implementation = implementation;
    check(ballast_class_balanced_loss(&a, &exec), &error);
    return loss;
}

/* The mean of the rows' losses, class by class. */
static void mean_by_class(const batch *b, const float *row_loss, double *means)
{
    ballast_error error;
    ballast_per_class_args a = BALLAST_PER_CLASS_ARGS;

    a.values = ballast_vector_f32(row_loss, b->rows);
    a.labels = ballast_labels_i64(b->labels);
    a.classes = b->classes;
    a.means = means;
    a.error = &error;
    check(ballast_per_class(&a), &error);
}

static void print_losses(const batch *b)
{
    float *row_loss = allocate(b->rows, sizeof *row_loss);
    double *means = allocate(KINDS * b->classes, sizeof *means);
    double loss[KINDS];

    for (int k = 0; k < KINDS; k++) {
        loss[k] = ballast_loss(b, k, NULL, NULL, row_loss);
        mean_by_class(b, row_loss, means + k * b->classes);
    }
    printf("Class-balanced losses of %lld rows, beta = %g, gamma of the focal loss = %g\n\n",
           (long long)b->rows, beta, focal_gamma);
    printf("                                     mean loss of a row\n"
           "class   rows  effective    weight    softmax   sigmoid     focal\n");
    for (int64_t c = 0; c < b->classes; c++) {
        printf("%5lld  %5lld  %9.4f  %8.5f ", (long long)c, (long long)b->counts[c],
               ballast_effective_number(beta, b->counts[c]), (double)b->weights[c]);
        for (int k = 0; k < KINDS; k++)
            printf("  %8.5f", means[k * b->classes + c]);
        printf("\n");
    }
    printf("  all  %5lld                      ", (long long)b->rows);
    for (int k = 0; k < KINDS; k++)
        printf("  %8.5f", loss[k]);
    printf("\n\n");
    free(row_loss);
    free(means);
}

/* The gradient goes straight into the mapped file. */
static void write_gradient(const batch *b, const char *path)
{
    const int64_t shape[2] = {b->rows, b->classes};
    npy_writer file;
    npy_error error;

    if (!npy_create(path, NPY_F4, 2, shape, &file, &error))
        fail(error.text);
    float *grad = npy_map(&file, &error);
    if (!grad)
        fail(error.text);
    ballast_loss(b, BALLAST_CB_SOFTMAX, NULL, grad, NULL);
    if (!npy_commit(&file, &error))
        fail(error.text);
    printf("Gradient of the softmax loss, [%lld, %lld] f32: %s\n\n", (long long)b->rows,
           (long long)b->classes, path);
}

/* ---- the time they take ---------------------------------------------------------------------- */

enum { CHOSEN, SCALAR, PLAIN_C, CONTENDERS };
enum { MIN_ROUNDS = 5, MAX_ROUNDS = 201 };
static const double sample_seconds = 0.0005, case_seconds = 1.0;

typedef struct times {
    double seconds[CONTENDERS]; /* of one call: the median */
    double ratio[CONTENDERS];   /* to CHOSEN: the median of the rounds' ratios */
} times;

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double plain_c_loss(const batch *b, int kind, float *grad)
{
    if (kind == BALLAST_CB_SOFTMAX)
        return plain_c_softmax(b->rows, b->classes, b->logits, b->labels, b->weights, grad);
    if (kind == BALLAST_CB_SIGMOID)
        return plain_c_sigmoid(b->rows, b->classes, b->logits, b->labels, b->weights, grad);
    return plain_c_focal(b->rows, b->classes, b->logits, b->labels, b->weights,
                         (float)focal_gamma, grad);
}

static double loss_by(int contender, const batch *b, int kind, float *grad)
{
    if (contender == PLAIN_C)
        return plain_c_loss(b, kind, grad);
    return ballast_loss(b, kind, contender == SCALAR ? ballast_implementation_find("scalar") : NULL,
                        grad, NULL);
}

static double seconds_per_call(int contender, const batch *b, int kind, float *grad, int64_t calls)
{
    const double start = now();

    for (int64_t i = 0; i < calls; i++)
        loss_by(contender, b, kind, grad);
    return (now() - start) / (double)calls;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

/* The contenders take turns, so that whatever else the machine does meets them all alike. */
static times race(const batch *b, int kind, float *grad)
{
    static double seconds[CONTENDERS][MAX_ROUNDS], ratio[CONTENDERS][MAX_ROUNDS];
    int64_t calls[CONTENDERS];
    times t;
    int rounds = 0;

    for (int c = 0; c < CONTENDERS; c++)
        calls[c] = 1 + (int64_t)(sample_seconds / seconds_per_call(c, b, kind, grad, 1));
    const double start = now();
    while (rounds < MIN_ROUNDS || (rounds < MAX_ROUNDS && now() - start < case_seconds)) {
        for (int c = 0; c < CONTENDERS; c++) {
            seconds[c][rounds] = seconds_per_call(c, b, kind, grad, calls[c]);
            ratio[c][rounds] = seconds[c][rounds] / seconds[CHOSEN][rounds];
        }
        rounds++;
    }
    for (int c = 0; c < CONTENDERS; c++) {
        t.seconds[c] = median(seconds[c], rounds);
        t.ratio[c] = median(ratio[c], rounds);
    }
    return t;
}

/* The scalar implementation gives the same bits; plain C, which rounds elsewhere, comes near. */
static void compare_results(const batch *b, int kind, float *grad, float *other)
{
    const int64_t count = b->rows * b->classes;
    const double loss = loss_by(CHOSEN, b, kind, grad);
    double difference = 0, largest = 0;

    if (loss_by(SCALAR, b, kind, other) != loss ||
        memcmp(grad, other, (size_t)count * sizeof *grad) != 0)
        fail("the scalar implementation gives other bits");
    if (fabs(loss_by(PLAIN_C, b, kind, other) - loss) > 1e-4 * loss)
        fail("plain C gives another loss");
    for (int64_t i = 0; i < count; i++) {
        difference = fmax(difference, fabs((double)grad[i] - (double)other[i]));
        largest = fmax(largest, fabs((double)grad[i]));
    }
    if (!(difference <= 1e-5 * largest))
        fail("plain C gives another gradient");
}

static void print_time(double seconds, double bytes)
{
    if (seconds < 1e-3)
        printf("  %7.1f us", 1e6 * seconds);
    else
        printf("  %7.1f ms", 1e3 * seconds);
    printf("  %5.2f", 1e-9 * bytes / seconds);
}

static void print_times_header(const char *chosen)
{
    printf("Time of a call (loss and gradient, one thread), GB/s of necessary traffic, and how\n"
           "many times as long the scalar implementation and plain C (-O3 -march=native) take\n\n");
    printf("%-22s  %10s  %5s", "input          loss", chosen, "GB/s");
    printf("  %10s  %5s  %6s  %10s  %5s  %6s\n", "scalar", "GB/s", "times", "plain C", "GB/s",
           "times");
}

/* What must move: the logits and labels in, the gradient out, each once. */
static double necessary_bytes(const batch *b)
{
    return (double)b->rows * ((double)b->classes * 2 * sizeof(float) + sizeof(int64_t));
}

static void print_times(const batch *b)
{
    float *grad = allocate(b->rows * b->classes, sizeof *grad);
    float *other = allocate(b->rows * b->classes, sizeof *other);

    for (int k = 0; k < KINDS; k++) {
        fprintf(stderr, "class_balanced: measuring %s on [%lld, %lld]\n", kind_names[k],
                (long long)b->rows, (long long)b->classes);
        compare_results(b, k, grad, other);
        const times t = race(b, k, grad);

        printf("[%5lld, %4lld]  %-7s", (long long)b->rows, (long long)b->classes, kind_names[k]);
        for (int c = 0; c < CONTENDERS; c++) {
            print_time(t.seconds[c], necessary_bytes(b));
            if (c != CHOSEN)
                printf("  %5.1fx", t.ratio[c]);
        }
        printf("\n");
    }
    free(grad);
    free(other);
}

/* ---- the machine ----------------------------------------------------------------------------- */

/* What Linux calls the CPU. */
static void print_cpu(void)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256] = "";
    const char *name = NULL;

    while (file && !name && fgets(line, sizeof line, file))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':'))
            name = strchr(line, ':') + 2;
    if (file)
        fclose(file);
    line[strcspn(line, "\n")] = 0;
    printf("CPU      %s\n", name ? name : "(its name is not known)");
}

/* The implementation that runs, and why not a faster one; returns its name. */
static const char *print_implementations(void)
{
    char reason[200];
    const ballast_implementation *chosen = ballast_implementation_default(reason, sizeof reason);

    printf("Ballast  %s, runs %s: %s\n", ballast_version(), ballast_implementation_name(chosen),
           reason);
    for (int i = 0; ballast_implementation_at(i); i++)
        if (!ballast_implementation_supported(ballast_implementation_at(i), reason, sizeof reason))
            printf("         not %s: %s\n",
                   ballast_implementation_name(ballast_implementation_at(i)), reason);
    printf("\n");
    return ballast_implementation_name(chosen);
}

/* ---- the whole ------------------------------------------------------------------------------- */

typedef struct options {
    const char *folder, *grad;
    int64_t rows;
} options;

static options parse(int argc, char **argv)
{
    options o = {NULL, "class_balanced_grad.npy", 16384};

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--grad") == 0 && i + 1 < argc)
            o.grad = argv[++i];
        else if (strcmp(argv[i], "--rows") == 0 && i + 1 < argc)
            o.rows = atoll(argv[++i]);
        else if (argv[i][0] != '-' && !o.folder)
            o.folder = argv[i];
        else
            o.rows = -1;
    }
    if (!o.folder || o.rows < 0 || o.rows > 1 << 20)
        fail("usage: class_balanced [--grad FILE] [--rows N] DATA");
    return o;
}

int main(int argc, char **argv)
{
    static batch real, drawn;
    const options o = parse(argc, argv);
    npy_array logits = open_array(o.folder, "digits_lt_logits.npy", NPY_F4, 2);
    npy_array labels = open_array(o.folder, "digits_lt_labels.npy", NPY_I8, 1);

    if (labels.count != logits.shape[0] || logits.shape[1] < 1 || logits.shape[1] > MAX_CLASSES)
        fail("the logits and labels do not match");
    real.rows = logits.shape[0];
    real.classes = logits.shape[1];
    real.logits = logits.data;
    real.labels = labels.data;
    weigh_classes(&real);

    print_cpu();
    const char *chosen = print_implementations();
    print_losses(&real);
    write_gradient(&real, o.grad);

    print_times_header(chosen);
    print_times(&real);
    if (o.rows > 0) {
        draw(&drawn, o.rows);
        print_times(&drawn);
        free((void *)drawn.logits);
        free((void *)drawn.labels);
    }
    npy_close(&logits);
    npy_close(&labels);
    return 0;
}
