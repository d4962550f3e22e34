/* SPDX-License-Identifier: MIT */
#include "json_read.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 64, LARGEST = 64 << 20 /* bytes of a file */ };

/* All values are in one piece of memory, and all texts in another. */
typedef struct reader {
    const char *at, *begin;
    json_value *values;
    char *texts;
    int value_count, depth;
    const char *problem; /* NULL: none yet */
} reader;

/* What json_read_free frees; the outermost value is the first of `values`. */
typedef struct document {
    char *texts;
    json_value values[];
} document;

static void skip_space(reader *r)
{
    r->at += strspn(r->at, " \t\r\n");
}

static bool fail(reader *r, const char *problem)
{
    if (!r->problem)
        r->problem = problem;
    return false;
}

static bool take(reader *r, const char *word)
{
    const size_t length = strlen(word);

    if (strncmp(r->at, word, length) != 0)
        return false;
    r->at += length;
    return true;
}

/* ---- Texts ----------------------------------------------------------------------------------- */

/* Four digits after "\u"; -1 where they are none. */
static int32_t hex4(reader *r)
{
    int32_t value = 0;

    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *digit = *r->at ? strchr(digits, *r->at) : NULL;
        if (!digit)
            return -1;
        value = 16 * value + (int32_t)((digit - digits) % 16);
        r->at++;
    }
    return value;
}

static char *put_utf8(char *out, int32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
        return out;
    }
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const int lead[] = {0, 0xC0, 0xE0, 0xF0};
    *out++ = (char)(lead[more] | c >> 6 * more);
    for (int k = more - 1; k >= 0; k--)
        *out++ = (char)(0x80 | (c >> 6 * k & 0x3F));
    return out;
}

/* A surrogate without its other half, and NUL, are U+FFFD. */
static bool read_escape(reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *simple = *r->at ? strchr(from, *r->at) : NULL;

    if (simple) {
        *r->texts++ = to[simple - from];
        r->at++;
        return true;
    }
    if (!take(r, "u"))
        return fail(r, "an escape that is none");
    int32_t c = hex4(r);
    if (c < 0)
        return fail(r, "an escape that is none");
    if (c >= 0xD800 && c < 0xDC00 && r->at[0] == '\\' && r->at[1] == 'u') {
        const char *back = r->at;
        r->at += 2;
        const int32_t low = hex4(r);
        if (low >= 0xDC00 && low < 0xE000) {
            r->texts = put_utf8(r->texts, 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00));
            return true;
        }
        r->at = back;
    }
    r->texts = put_utf8(r->texts, c == 0 || (c >= 0xD800 && c < 0xE000) ? 0xFFFD : c);
    return true;
}

static const char *read_text(reader *r)
{
    const char *text = r->texts;

    if (!take(r, "\"")) {
        fail(r, "no text where one must be");
        return NULL;
    }
    while (*r->at != '"') {
        if ((unsigned char)*r->at < ' ') {
            fail(r, "a text that does not end");
            return NULL;
        }
        if (*r->at != '\\')
            *r->texts++ = *r->at++;
        else if (r->at++, !read_escape(r))
            return NULL;
    }
    r->at++;
    *r->texts++ = '\0';
    return text;
}

/* ---- Values ---------------------------------------------------------------------------------- */

static bool read_number(reader *r, json_value *v)
{
    char *end;
    const size_t length = strspn(r->at, "+-.0123456789eE");

    if (*r->at != '-' && (*r->at < '0' || *r->at > '9'))
        return fail(r, "no value where one must be");
    v->kind = JSON_NUMBER;
    v->number = strtod(r->at, &end);
    if (end != r->at + length)
        return fail(r, "a number that is none");
    r->at = end;
    return true;
}

static json_value *read_value(reader *r);

/* "[a, b]" or "{"k": a}": the values in a list behind v. */
static bool read_members(reader *r, json_value *v, const char *close)
{
    json_value **end = &v->first;

    if (++r->depth > DEPTH)
        return fail(r, "too many brackets");
    for (skip_space(r); !take(r, close); skip_space(r)) {
        const char *key = NULL;
        if (v->first && !take(r, ","))
            return fail(r, "no comma where one must be");
        skip_space(r);
        if (v->kind == JSON_OBJECT) {
            if (!(key = read_text(r)))
                return false;
            skip_space(r);
            if (!take(r, ":"))
                return fail(r, "no colon where one must be");
        }
        json_value *member = read_value(r);
        if (!member)
            return false;
        member->key = key;
        *end = member;
        end = &member->next;
    }
    r->depth--;
    return true;
}

static json_value *read_value(reader *r)
{
    json_value *v = &r->values[r->value_count++];
    bool good = true;

    skip_space(r);
    if (take(r, "{")) {
        v->kind = JSON_OBJECT;
        good = read_members(r, v, "}");
    } else if (take(r, "[")) {
        v->kind = JSON_ARRAY;
        good = read_members(r, v, "]");
    } else if (*r->at == '"') {
        v->kind = JSON_TEXT;
        good = (v->text = read_text(r)) != NULL;
    } else if (take(r, "true")) {
        *v = (json_value){.kind = JSON_BOOL, .number = 1.0};
    } else if (take(r, "false")) {
        v->kind = JSON_BOOL;
    } else if (!take(r, "null")) {
        good = read_number(r, v);
    }
    return good ? v : NULL;
}

/* ---- Files ----------------------------------------------------------------------------------- */

/* The whole file with a final zero; NULL with a message. */
static char *read_file(const char *path, char *message, size_t size)
{
    FILE *file = fopen(path, "rb");
    size_t room = 1 << 16, length = 0;
    char *text = file ? malloc(room) : NULL;

    while (text) {
        length += fread(text + length, 1, room - 1 - length, file);
        if (length < room - 1 || room > LARGEST)
            break;
        char *larger = realloc(text, room *= 2);
        if (!larger)
            free(text);
        text = larger;
    }
    const bool failed = !text || ferror(file) || length > LARGEST;
    if (failed)
        snprintf(message, size, "cannot be read: %s",
                 file && text && length > LARGEST ? "too large" : strerror(errno));
    else
        text[length] = '\0';
    if (file)
        fclose(file);
    if (!failed)
        return text;
    free(text);
    return NULL;
}

json_value *json_read(const char *path, char *message, size_t size)
{
    char *text = read_file(path, message, size);

    if (!text)
        return NULL;
    const size_t length = strlen(text) + 2; /* a value takes a byte of the file at least */
    document *d = calloc(1, sizeof *d + length * sizeof *d->values);
    char *texts = malloc(length); /* a text and its final zero take no more than in quotes */
    reader r = {.at = text, .begin = text, .values = d ? d->values : NULL, .texts = texts};
    const bool good = d && texts && read_value(&r) && (skip_space(&r), *r.at == '\0');

    if (!good) {
        snprintf(message, size, "is no JSON at byte %td: %s", r.at - r.begin,
                 r.problem ? r.problem : !d || !texts ? "no memory" : "something after its end");
        free(texts);
        free(d);
        free(text);
        return NULL;
    }
    free(text);
    d->texts = texts;
    return d->values;
}

void json_read_free(json_value *outermost)
{
    if (!outermost)
        return;
    document *d = (document *)((char *)outermost - offsetof(document, values));
    free(d->texts);
    free(d);
}

const json_value *json_member(const json_value *of, const char *key)
{
    static const json_value none = {.kind = JSON_NULL};

    if (of->kind == JSON_OBJECT)
        for (const json_value *v = of->first; v; v = v->next)
            if (strcmp(v->key, key) == 0)
                return v;
    return &none;
}

const char *json_text_of(const json_value *of, const char *key)
{
    const json_value *v = json_member(of, key);

    return v->kind == JSON_TEXT ? v->text : "";
}

double json_number_of(const json_value *of, const char *key, double otherwise)
{
    const json_value *v = json_member(of, key);

    return v->kind == JSON_NUMBER ? v->number : otherwise;
}
