/* SPDX-License-Identifier: MIT */
/* A small reader of JSON (RFC 8259), for files that other runs wrote. */
#ifndef BALLAST_TOOLS_JSON_READ_H
#define BALLAST_TOOLS_JSON_READ_H

#include <stddef.h>

typedef enum json_kind {
    JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_TEXT, JSON_ARRAY, JSON_OBJECT
} json_kind;

typedef struct json_value {
    json_kind kind;
    double number;    /* of a bool: 0 or 1 */
    const char *text; /* JSON_TEXT, UTF-8 */
    const char *key;  /* in an object; else NULL */
    struct json_value *first, *next; /* what is in it; what comes after it */
} json_value;

/* The outermost value of the file, valid until json_read_free. NULL where it cannot be read or is
 * no JSON, with the reason in `message`. */
json_value *json_read(const char *path, char *message, size_t size);
void json_read_free(json_value *outermost);

/* A member of an object; a JSON_NULL where there is none, or `of` is no object. */
const json_value *json_member(const json_value *of, const char *key);

/* "" and `otherwise` where it is something else. */
const char *json_text_of(const json_value *of, const char *key);
double json_number_of(const json_value *of, const char *key, double otherwise);

#endif
