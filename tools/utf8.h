/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_TOOLS_UTF8_H
#define BALLAST_TOOLS_UTF8_H

/* Bytes of the UTF-8 character at `s`; 0 where there is none (Unicode 15, table 3-7). */
int utf8_length(const unsigned char *s);

#endif
