/* SPDX-License-Identifier: MIT */
/* The options of a sub-command, told once: read with getopt_long, and printed by --help. */
#ifndef BALLAST_TOOLS_OPTIONS_H
#define BALLAST_TOOLS_OPTIONS_H

#include "ballast/ballast.h"
#include "output.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct option_spec {
    const char *name;  /* without the dashes; NULL ends the list */
    const char *value; /* what --help calls its value; NULL: it takes none; "[...]": it may; "[=...]": only so */
    const char *help;
    int id; /* > 0, below OPTION_COMMON */
} option_spec;

typedef struct command_spec {
    const char *name;     /* "loss" */
    const char *operands; /* "LOGITS.npy LABELS.npy"; "" for none */
    const char *about;
    const option_spec *options; /* with the common ones at most OPTIONS_MAX; one that has the
                                 * name of a common one replaces it */
    const char *const *examples; /* NULL ends the list */
    int operand_count;           /* exactly, or OPERANDS_ANY */
    const char *threads;         /* what --help says of --threads; NULL: what it says of most, "": nothing */
    void (*more)(FILE *out);     /* prints what --help ends with; NULL: nothing */
} command_spec;

enum { OPTION_COMMON = 1000, OPTIONS_MAX = 40, OPERANDS_ANY = -1 };

typedef struct options {
    /* Of every sub-command. */
    bool json, quiet;
    int64_t threads; /* 0: as many as there are usable cores */

    const char *name;  /* of the option just read */
    const char *value; /* its value; NULL for none */
    char **operands;   /* after the last */
    int operand_count;
    int exit_code;

    const command_spec *spec; /* private */
    int argc;
    char **argv;
    struct option table[OPTIONS_MAX + 1];
} options;

/* Takes the option just read, by its id, and its value, to `settings`. False where something is wrong; a line
 * about it is printed. */
typedef bool options_apply(const options *o, void *settings, int id);

/* Reads all of them; argv[0] is the name of the sub-command. `apply` is given those of the spec. False where
 * there is nothing to do but to return exit_code: help was printed, or something was wrong. */
bool options_read(options *o, const command_spec *spec, int argc, char **argv, options_apply *apply,
                  void *settings);

/* The value of the option just read. False where it is wrong; the line is printed. */
bool options_real(const options *o, double *out);
bool options_integer(const options *o, int64_t smallest, int64_t largest, int64_t *out);
bool options_choice(const options *o, const char *const *names, int *out); /* NULL ends the names */
bool options_implementation(const options *o, const ballast_implementation **out); /* runs here */

/* Of `names`, the one that was probably meant; NULL where none is near. */
const char *suggestion(const char *text, const char *const *names);

#endif
