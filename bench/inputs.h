/* SPDX-License-Identifier: MIT */
/* What the inputs of cases are filled with: the same bits for a kind of inputs and a seed, row by
 * row, wherever the program is compiled. */
#ifndef BALLAST_BENCH_INPUTS_H
#define BALLAST_BENCH_INPUTS_H

#include "arrays.h"

/* `input` is that of enum case_input: each has random numbers of its own. */
case_array make_logits(const case_data *c, int input, const char *name);
case_array make_reals(const case_data *c, int input, const char *name, int64_t rows,
                      int64_t columns);

/* In [0, 4], some of them 0. */
case_array make_weights(const case_data *c, int input, const char *name, int64_t rows,
                        int64_t columns);

void make_labels(case_data *c);
void make_targets(case_data *c);

/* One row of an array. */
typedef struct row_place {
    const problem *p;
    int input; /* enum case_input */
    int64_t row, columns;
    int64_t lead; /* the column that is ahead in confident rows; -1: any */
} row_place;

void fill_row(const row_place *r, void *row);               /* as the problem's inputs= says */
void fill_probabilities(const row_place *r, void *row);     /* like a softmax */
void fill_log_probabilities(const row_place *r, void *row); /* like a log-softmax */

#endif
