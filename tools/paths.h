/* SPDX-License-Identifier: MIT */
/* Names of files, as the user gave them. */
#ifndef BALLAST_TOOLS_PATHS_H
#define BALLAST_TOOLS_PATHS_H

#include <stdbool.h>

/* For messages: "standard input" for "-". */
const char *path_shown(const char *path);

/* Whether both names lead, or would lead, to the same file.  NULL leads nowhere. */
bool path_same(const char *a, const char *b);

/* Whether `out`, the value of `option`, may be written: it is not standard output, which holds the
 * report, and neither an input nor another output (any of these may be NULL). Complains where it
 * may not.  out NULL: it may. */
bool path_may_write(const char *option, const char *out, const char *other_output,
                    const char *const *inputs, int input_count);

#endif
