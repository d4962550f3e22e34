/* SPDX-License-Identifier: MIT */
/* Ballast in a program that has threads of its own: prepare, rows from each thread, finish.
 * The result has the same bits as that of the plain call.
 *
 *   cc -o embed embed.c $(pkg-config --cflags --libs ballast) -pthread */
#include <ballast/ballast.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 3000, CLASSES = 100, THREADS = 2 };

typedef struct share {
    ballast_plan *plan;
    int64_t begin, end;
    ballast_status status;
} share;

static void *compute(void *argument)
{
    share *s = argument;

    s->status = ballast_plan_rows(s->plan, s->begin, s->end);
    return NULL;
}

/* Gives each thread its rows. A split must fall on a multiple of the plan's row step. */
static ballast_status compute_all(ballast_plan *plan)
{
    const int64_t rows = ballast_plan_row_count(plan), step = ballast_plan_row_step(plan);
    const int64_t steps = (rows + step - 1) / step;
    pthread_t thread[THREADS];
    share shares[THREADS];
    ballast_status status = BALLAST_OK;

    for (int t = 0; t < THREADS; t++) {
        shares[t].plan = plan;
        shares[t].begin = steps * t / THREADS * step;
        shares[t].end = t + 1 < THREADS ? steps * (t + 1) / THREADS * step : rows;
        if (pthread_create(&thread[t], NULL, compute, &shares[t]) != 0) {
            perror("pthread_create");
            exit(1);
        }
    }
    for (int t = 0; t < THREADS; t++) {
        pthread_join(thread[t], NULL);
        status = shares[t].status != BALLAST_OK ? shares[t].status : status;
    }
    return status == BALLAST_OK ? ballast_plan_finish(plan) : status;
}

int main(void)
{
    static float logits[ROWS][CLASSES], grad[ROWS][CLASSES], expected_grad[ROWS][CLASSES];
    static int32_t labels[ROWS];
    double loss, expected_loss;
    ballast_plan plan;
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    for (int i = 0; i < ROWS; i++) {
        labels[i] = i * i % CLASSES;
        for (int j = 0; j < CLASSES; j++)
            logits[i][j] = (float)((7 * i + 13 * j) % 37) / 8;
    }
    a.logits = ballast_const_matrix_f32(logits[0], ROWS, CLASSES);
    a.labels = ballast_labels_i32(labels);
    a.loss = &loss;
    a.grad = ballast_matrix_f32(grad[0], ROWS, CLASSES);
    ballast_status status = ballast_cross_entropy_prepare(&a, NULL, &plan);
    if (status == BALLAST_OK)
        status = compute_all(&plan);
    if (status != BALLAST_OK) {
        fprintf(stderr, "%s\n", ballast_status_name(status));
        return 1;
    }
    printf("loss %.6f from %d threads\n", loss, THREADS);

    a.loss = &expected_loss;
    a.grad = ballast_matrix_f32(expected_grad[0], ROWS, CLASSES);
    ballast_cross_entropy(&a, NULL);
    const int same = loss == expected_loss && memcmp(grad, expected_grad, sizeof grad) == 0;
    printf("%s\n", same ? "the same bits as from one" : "NOT the bits of one thread");
    return same ? 0 : 1;
}
