/* SPDX-License-Identifier: MIT */
/* One call on OpenMP's threads. The result has the same bits as that of one thread.
 *
 *   cc -fopenmp -o openmp openmp.c $(pkg-config --cflags --libs ballast) */
#include "openmp.h"

#include <stdio.h>
#include <string.h>

enum { ROWS = 3000, CLASSES = 100 };

int main(void)
{
    static float logits[ROWS][CLASSES], probabilities[2][ROWS][CLASSES];
    const ballast_parallel threads = ballast_openmp();
    ballast_exec exec = BALLAST_EXEC;
    ballast_softmax_args a = BALLAST_SOFTMAX_ARGS;

    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < CLASSES; j++)
            logits[i][j] = (float)((7 * i + 13 * j) % 37) / 8;
    a.input = ballast_const_matrix_f32(logits[0], ROWS, CLASSES);

    for (int parallel = 0; parallel < 2; parallel++) {
        exec.parallel = parallel ? &threads : NULL;
        a.output = ballast_matrix_f32(probabilities[parallel][0], ROWS, CLASSES);
        const ballast_status status = ballast_softmax(&a, &exec);
        if (status != BALLAST_OK) {
            fprintf(stderr, "%s\n", ballast_status_name(status));
            return 1;
        }
    }
    const int same = memcmp(probabilities[0], probabilities[1], sizeof probabilities[0]) == 0;
    printf("%d threads, %s\n", (int)threads.threads,
           same ? "the same bits as from one" : "NOT the bits of one thread");
    return same ? 0 : 1;
}
