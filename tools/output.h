/* SPDX-License-Identifier: MIT */
/* What the tool says: error lines on stderr, tables on stdout, colours where somebody sees them. */
#ifndef BALLAST_TOOLS_OUTPUT_H
#define BALLAST_TOOLS_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Exit codes of every sub-command. */
enum { EXIT_GOOD = 0, EXIT_CHECK_FAILED = 1, EXIT_BAD_INPUT = 2 };

typedef enum color_mode { COLOR_AUTO, COLOR_ALWAYS, COLOR_NEVER } color_mode;

/* For the rest of the process.  AUTO: on a terminal that is not "dumb", unless NO_COLOR is set. */
void output_set_color(color_mode mode);

typedef enum style { STYLE_PLAIN, STYLE_HEAD, STYLE_GOOD, STYLE_DIM, STYLE_ERROR } style;

/* The escape sequence that starts a style (PLAIN: ends it); "" where `stream` gets no colours. */
const char *output_style(FILE *stream, style s);

/* One line on stderr, "ballast: ...", control characters replaced.  Returns EXIT_BAD_INPUT, so that
 * failing is one statement. */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A file to write, closed when another program starts.  NULL after a complaint. */
FILE *output_open(const char *path);

/* Closes it.  Complains, and returns false, where the file did not take everything. */
bool output_close(FILE *file, const char *path);

/* Flushes stdout.  Returns `code`, or complains where stdout did not take everything. */
int output_finish(int code);

/* Prints a paragraph, wrapped at 80 columns; lines but the first are indented. `column` is where
 * the first line already stands. */
void output_wrap(FILE *stream, const char *text, int column, int indent);

enum { CELL_SIZE = 48 };

/* Prints rows under heads, columns aligned to the right. cell() writes one cell, and is called
 * twice for each: the first time for the widths. */
typedef struct table {
    const char *const *heads;
    int columns; /* at most 8 */
    int64_t rows;
    void (*cell)(const void *arg, int64_t row, int column, char text[CELL_SIZE]);
    const void *arg;
} table;
void table_print(const table *t);

/* Writes `value` with `digits` significant digits; a NaN is "nan", whatever its sign. */
void format_real(char text[CELL_SIZE], double value, int digits);

/* The fewest digits, 15 at least, that read back as the same double. */
void format_exact(char text[CELL_SIZE], double value);

#endif
