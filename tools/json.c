/* SPDX-License-Identifier: MIT */
#include "json.h"

#include "output.h"
#include "utf8.h"

#include <inttypes.h>
#include <math.h>

/* Members of the outer two levels stand on lines of their own, deeper ones in a row. */
enum { LEVELS_IN_LINES = 2 };

static void start_line(json *j) { fprintf(j->out, "\n%*s", 2 * j->depth, ""); }

static void write_text(FILE *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    fputc('"', out);
    while (*s) {
        int length = utf8_length(s);
        if (length == 0)
            fputs("\\ufffd", out);
        else if (*s == '"' || *s == '\\')
            fprintf(out, "\\%c", *s);
        else if (*s < ' ' || *s == 0x7f)
            fprintf(out, "\\u%04x", *s);
        else
            fwrite(s, 1, (size_t)length, out);
        s += length ? length : 1;
    }
    fputc('"', out);
}

/* The comma, the line and the key that come before a value. */
static void place(json *j, const char *key)
{
    int level = j->depth - 1;
    if (j->full[level])
        fputs(j->depth > LEVELS_IN_LINES ? ", " : ",", j->out);
    j->full[level] = true;
    if (j->depth <= LEVELS_IN_LINES)
        start_line(j);
    if (key) {
        write_text(j->out, key);
        fputs(": ", j->out);
    }
}

static void open_level(json *j, char open, char close)
{
    fputc(open, j->out);
    j->full[j->depth] = false;
    j->close[j->depth++] = close;
}

void json_begin(json *j, FILE *out)
{
    j->out = out;
    j->depth = 0;
    open_level(j, '{', '}');
}

void json_object(json *j, const char *key)
{
    place(j, key);
    open_level(j, '{', '}');
}

void json_array(json *j, const char *key)
{
    place(j, key);
    open_level(j, '[', ']');
}

void json_end(json *j)
{
    bool lines = j->depth <= LEVELS_IN_LINES;
    j->depth--;
    if (lines && j->full[j->depth])
        start_line(j);
    fputc(j->close[j->depth], j->out);
    if (j->depth == 0)
        fputc('\n', j->out);
}

void json_text(json *j, const char *key, const char *value)
{
    place(j, key);
    if (value)
        write_text(j->out, value);
    else
        fputs("null", j->out);
}

void json_real(json *j, const char *key, double value)
{
    char text[CELL_SIZE];
    place(j, key);
    format_exact(text, value);
    fputs(isfinite(value) ? text : "null", j->out);
}

void json_integer(json *j, const char *key, int64_t value)
{
    place(j, key);
    fprintf(j->out, "%" PRId64, value);
}

void json_bool(json *j, const char *key, bool value)
{
    place(j, key);
    fputs(value ? "true" : "false", j->out);
}
