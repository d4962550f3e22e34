/* SPDX-License-Identifier: MIT */
/* A small writer of JSON (RFC 8259): valid whatever it is given, as long as begins and ends match.
 *
 * key    NULL inside an array
 * reals  the fewest digits that read back as the same double; infinities and NaN are null
 * texts  what is not UTF-8 is written as U+FFFD */
#ifndef BALLAST_TOOLS_JSON_H
#define BALLAST_TOOLS_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { JSON_DEPTH = 8 };

typedef struct json {
    FILE *out;
    int depth;
    bool full[JSON_DEPTH];   /* something stands in it already */
    char close[JSON_DEPTH];  /* '}' or ']' */
} json;

/* Opens the outermost object. */
void json_begin(json *j, FILE *out);

void json_object(json *j, const char *key);
void json_array(json *j, const char *key);

/* Closes the innermost object or array; a newline after the outermost. */
void json_end(json *j);

void json_text(json *j, const char *key, const char *value); /* NULL: null */
void json_real(json *j, const char *key, double value);
void json_integer(json *j, const char *key, int64_t value);
void json_bool(json *j, const char *key, bool value);

#endif
