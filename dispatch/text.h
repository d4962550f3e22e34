/* SPDX-License-Identifier: MIT */
/* Text into a buffer of limited size. Not snprintf: it may set errno, follows the host's locale,
 * and may allocate. */
#ifndef BALLAST_DISPATCH_TEXT_H
#define BALLAST_DISPATCH_TEXT_H

#include <stddef.h>
#include <stdint.h>

typedef struct text {
    char *at;      /* where the next character goes; may be NULL where room is 0 */
    size_t room;   /* the final 0 included */
    size_t length; /* of all that was appended, what did not fit included */
} text;

static inline void append(text *t, const char *s)
{
    for (; *s; s++, t->length++)
        if (t->room > 1) {
            *t->at++ = *s;
            t->room--;
        }
    if (t->room > 0)
        *t->at = 0;
}

/* Numbers are of `width` digits at least: 1 to 16. */
static inline void append_integer(text *t, uint64_t value, int width)
{
    char digits[21];
    int first = sizeof digits - 1, last = first - width;

    digits[first] = 0;
    for (; value > 0 || first > last; value /= 10)
        digits[--first] = (char)('0' + value % 10);
    append(t, digits + first);
}

static inline void append_hex(text *t, uint64_t value, int width)
{
    char digits[17];
    int length = 0;

    for (int shift = 60; shift >= 0; shift -= 4)
        if (length > 0 || value >> shift != 0 || shift < 4 * width)
            digits[length++] = "0123456789abcdef"[value >> shift & 15];
    digits[length] = 0;
    append(t, digits);
}

#endif
