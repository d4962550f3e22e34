/* SPDX-License-Identifier: MIT */
/* Samples per class, from wherever they come, and the class-balanced weights that follow. */
#ifndef BALLAST_TOOLS_CLASS_COUNTS_H
#define BALLAST_TOOLS_CLASS_COUNTS_H

#include "ballast/ballast.h"
#include "npy.h"
#include "options.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct class_counts {
    int64_t *values;    /* [classes]; NULL: none */
    int64_t classes;
    const char *source; /* for messages: a file, or "--counts" */
    bool of_labels;     /* counted, not given */
} class_counts;

/* All functions complain and return false where something is wrong. */

/* text: numbers with commas between them, or the name of a .npy file. */
bool counts_from_text(const char *text, class_counts *out);

/* Counts every label, which are in [0, classes) or ignore_index.
 * classes < 0: as many as the largest label asks for. */
bool counts_from_labels(const char *path, const npy_array *labels, int64_t classes,
                        int64_t ignore_index, class_counts *out);

void counts_free(class_counts *c);

/* weights: [classes] of `dtype`. */
bool counts_weights(const class_counts *c, double beta, ballast_empty_class empty, void *weights,
                    ballast_dtype dtype);

/* One label per row; NULL data for an array that is not one of labels. */
ballast_labels labels_of(const npy_array *array);

/* The values of --beta, in [0, 1], and of --empty-class. */
bool read_beta(const options *o, double *beta);
bool read_empty_class(const options *o, ballast_empty_class *empty);
extern const char *const empty_class_names[];

/* Help texts that sub-commands share. */
#define HELP_BETA "class balance, from 0 (all classes alike) to 1 (by inverse frequency)"
#define HELP_EMPTY_CLASS                                                                          \
    "what a class without samples gets: error (default), zero (weight 0) or one (as if it had "    \
    "one sample)"
#define HELP_IGNORE "rows with this label are left out (default -100)"

#endif
