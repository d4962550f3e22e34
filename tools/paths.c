/* SPDX-License-Identifier: MIT */
#include "paths.h"

#include "output.h"

#include <limits.h>
#include <string.h>
#include <sys/stat.h>

const char *path_shown(const char *path)
{
    return strcmp(path, "-") == 0 ? "standard input" : path;
}

static bool same_inode(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The part after the last slash; `folder` gets what is before, "." for nothing. */
static const char *split(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) + 1 : 0;
    if (length == 0)
        snprintf(folder, PATH_MAX, ".");
    else
        snprintf(folder, PATH_MAX, "%.*s", (int)(length < PATH_MAX ? length : 0), path);
    return path + length;
}

bool path_same(const char *a, const char *b)
{
    char a_folder[PATH_MAX], b_folder[PATH_MAX];
    if (!a || !b || strcmp(a, "-") == 0 || strcmp(b, "-") == 0)
        return false;
    if (same_inode(a, b))
        return true;
    const char *a_name = split(a, a_folder), *b_name = split(b, b_folder);
    return strcmp(a_name, b_name) == 0 && same_inode(a_folder, b_folder);
}

static bool refuse(const char *option, const char *out, const char *why)
{
    complain("--%s: %s %s", option, out, why);
    return false;
}

bool path_may_write(const char *option, const char *out, const char *other_output,
                    const char *const *inputs, int input_count)
{
    if (!out)
        return true;
    if (strcmp(out, "-") == 0)
        return refuse(option, out, "is standard output, which holds the report");
    if (path_same(out, other_output))
        return refuse(option, out, "is another output too: write to another file");
    for (int i = 0; i < input_count; i++)
        if (path_same(out, inputs[i]))
            return refuse(option, out, "is an input: write to another file");
    return true;
}
