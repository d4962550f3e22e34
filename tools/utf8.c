/* SPDX-License-Identifier: MIT */
#include "utf8.h"

int utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80)
        return 1;
    int more = s[0] >= 0xc2 && s[0] <= 0xdf   ? 1
               : s[0] >= 0xe0 && s[0] <= 0xef ? 2
               : s[0] >= 0xf0 && s[0] <= 0xf4 ? 3
                                              : 0;
    unsigned low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i <= more; i++, low = 0x80, high = 0xbf)
        if (s[i] < low || s[i] > high)
            return 0;
    return more ? more + 1 : 0;
}
