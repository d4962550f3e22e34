/* SPDX-License-Identifier: MIT */
/* Softmax cross-entropy: loss and gradient in one call.
 *
 *   cc -o cross_entropy cross_entropy.c $(pkg-config --cflags --libs ballast) */
#include <ballast/ballast.h>

#include <stdio.h>

enum { ROWS = 2, CLASSES = 3 };

int main(void)
{
    const float logits[ROWS][CLASSES] = {{2, 1, 0}, {0, 0, 5}};
    const int64_t labels[ROWS] = {0, 1};
    float grad[ROWS][CLASSES];
    double loss;
    char text[200];
    ballast_error error;
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    a.logits = ballast_const_matrix_f32(logits[0], ROWS, CLASSES);
    a.labels = ballast_labels_i64(labels);
    a.loss = &loss;
    a.grad = ballast_matrix_f32(grad[0], ROWS, CLASSES);
    a.error = &error;
    if (ballast_cross_entropy(&a, NULL) != BALLAST_OK) {
        fprintf(stderr, "%s\n", ballast_error_message(&error, text, sizeof text));
        return 1;
    }
    printf("loss %.6f\n", loss);
    for (int i = 0; i < ROWS; i++)
        printf("grad %9.6f %9.6f %9.6f\n", grad[i][0], grad[i][1], grad[i][2]);
    return 0;
}
