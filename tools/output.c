/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WIDTH = 80, COLUMNS_MAX = 8 };

/* ---- Colours --------------------------------------------------------------------------------- */

static color_mode mode_now = COLOR_AUTO;

void output_set_color(color_mode mode) { mode_now = mode; }

static bool is_set(const char *variable)
{
    const char *value = getenv(variable);
    return value && *value;
}

static bool has_color(FILE *stream)
{
    if (mode_now != COLOR_AUTO)
        return mode_now == COLOR_ALWAYS;
    const char *terminal = getenv("TERM");
    return !is_set("NO_COLOR") && terminal && strcmp(terminal, "dumb") != 0 &&
           isatty(fileno(stream));
}

const char *output_style(FILE *stream, style s)
{
    static const char *const sequences[] = {
        [STYLE_PLAIN] = "\033[0m", [STYLE_HEAD] = "\033[1m",    [STYLE_GOOD] = "\033[32m",
        [STYLE_DIM] = "\033[2m",   [STYLE_ERROR] = "\033[1;31m",
    };
    return has_color(stream) ? sequences[s] : "";
}

/* ---- Errors ---------------------------------------------------------------------------------- */

int complain(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *p = text; *p; p++) /* a path may hold a newline or an escape sequence */
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    fprintf(stderr, "%sballast:%s %s\n", output_style(stderr, STYLE_ERROR),
            output_style(stderr, STYLE_PLAIN), text);
    return EXIT_BAD_INPUT;
}

FILE *output_open(const char *path)
{
    FILE *file = strcmp(path, "-") ? fopen(path, "we") : NULL;

    if (!strcmp(path, "-"))
        complain("-: standard output holds the table: give the name of a file");
    else if (!file)
        complain("%s: cannot be written: %s", path, strerror(errno));
    return file;
}

bool output_close(FILE *file, const char *path)
{
    errno = 0;
    bool failed = ferror(file) != 0;
    failed |= fclose(file) != 0;
    if (failed)
        complain("%s: cannot be written: %s", path, errno ? strerror(errno) : "write error");
    return !failed;
}

int output_finish(int code)
{
    errno = 0;
    bool failed = ferror(stdout) != 0;
    failed |= fflush(stdout) != 0;
    if (!failed)
        return code;
    return complain("standard output: cannot write: %s", errno ? strerror(errno) : "write error");
}

/* ---- Text ------------------------------------------------------------------------------------ */

void output_wrap(FILE *stream, const char *text, int column, int indent)
{
    bool first = true;
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (!first && column + 1 + length > WIDTH) {
            fprintf(stream, "\n%*s", indent, "");
            column = indent;
        } else if (!first) {
            fputc(' ', stream);
            column++;
        }
        fprintf(stream, "%.*s", length, text);
        column += length;
        text += length;
        text += strspn(text, " ");
        first = false;
    }
    fputc('\n', stream);
}

void format_real(char text[CELL_SIZE], double value, int digits)
{
    if (isnan(value))
        snprintf(text, CELL_SIZE, "nan");
    else
        snprintf(text, CELL_SIZE, "%.*g", digits, value);
}

void format_exact(char text[CELL_SIZE], double value)
{
    for (int digits = 15; digits <= 17; digits++) {
        format_real(text, value, digits);
        if (strtod(text, NULL) == value)
            return;
    }
}

static int wider(int width, const char *text)
{
    int length = (int)strlen(text);
    return length > width ? length : width;
}

static void measure(const table *t, int width[COLUMNS_MAX])
{
    char text[CELL_SIZE];
    for (int c = 0; c < t->columns; c++)
        width[c] = wider(0, t->heads[c]);
    for (int64_t row = 0; row < t->rows; row++)
        for (int c = 0; c < t->columns; c++) {
            t->cell(t->arg, row, c, text);
            width[c] = wider(width[c], text);
        }
}

void table_print(const table *t)
{
    int width[COLUMNS_MAX];
    char text[CELL_SIZE];
    measure(t, width);
    fputs(output_style(stdout, STYLE_HEAD), stdout);
    for (int c = 0; c < t->columns; c++)
        printf("%s%*s", c ? "  " : "", width[c], t->heads[c]);
    printf("%s\n", output_style(stdout, STYLE_PLAIN));
    for (int64_t row = 0; row < t->rows && !ferror(stdout); row++) {
        for (int c = 0; c < t->columns; c++) {
            t->cell(t->arg, row, c, text);
            printf("%s%*s", c ? "  " : "", width[c], text);
        }
        putchar('\n');
    }
}
