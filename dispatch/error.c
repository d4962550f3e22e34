/* SPDX-License-Identifier: MIT */
/* The public side of errors: names and messages. arguments.c finds them. */
#include "ballast/ballast.h"
#include "fp_environment.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

static const struct {
    const char *name, *text;
    bool has_value;
} statuses[] = {
    [BALLAST_OK] = {"BALLAST_OK", "no error", false},
    [BALLAST_ERR_STRUCT_SIZE] = {"BALLAST_ERR_STRUCT_SIZE",
                                 "struct_size is unset, or the struct sets options unknown to this "
                                 "version",
                                 true},
    [BALLAST_ERR_NULL] = {"BALLAST_ERR_NULL", "a pointer that is needed is NULL", false},
    [BALLAST_ERR_DTYPE] = {"BALLAST_ERR_DTYPE", "a dtype that this argument cannot have", true},
    [BALLAST_ERR_SHAPE] = {"BALLAST_ERR_SHAPE",
                           "a size that is negative, does not match, or is too large", true},
    [BALLAST_ERR_STRIDE] = {"BALLAST_ERR_STRIDE", "with this stride rows would overlap", true},
    [BALLAST_ERR_ALIGNMENT] = {"BALLAST_ERR_ALIGNMENT", "data not aligned to its element", false},
    [BALLAST_ERR_OVERLAP] = {"BALLAST_ERR_OVERLAP",
                             "output overlaps another argument, and is not in place", false},
    [BALLAST_ERR_LABEL] = {"BALLAST_ERR_LABEL",
                           "label outside [0, classes) and not ignore_index", true},
    [BALLAST_ERR_WEIGHT] = {"BALLAST_ERR_WEIGHT", "weight that is negative, infinite or NaN", true},
    [BALLAST_ERR_COUNT] = {"BALLAST_ERR_COUNT",
                           "class count that is negative, or 0 where that is refused", true},
    [BALLAST_ERR_OPTION] = {"BALLAST_ERR_OPTION",
                            "outside its range, or excluded by another argument", true},
    [BALLAST_ERR_SPLIT] = {"BALLAST_ERR_SPLIT", "rows not on the plan's row steps", false},
    [BALLAST_ERR_ISA] = {"BALLAST_ERR_ISA", "this machine cannot run the implementation", false},
    [BALLAST_ERR_UNSUPPORTED] = {"BALLAST_ERR_UNSUPPORTED", "not built into this library", true},
    [BALLAST_ERR_FILE] = {"BALLAST_ERR_FILE", "a file cannot be read or written", false},
    [BALLAST_ERR_PROFILE] = {"BALLAST_ERR_PROFILE",
                             "a profile of another machine or build, or a damaged one", false},
};

enum { STATUSES = sizeof statuses / sizeof statuses[0] };

const char *ballast_status_name(ballast_status status)
{
    return (unsigned)status < STATUSES ? statuses[status].name : "unknown status";
}

#define TEXT_OF(number) #number
#define VERSION_TEXT(major, minor, patch) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(patch)

const char *ballast_version(void)
{
    return VERSION_TEXT(BALLAST_VERSION_MAJOR, BALLAST_VERSION_MINOR, BALLAST_VERSION_PATCH);
}

typedef struct message {
    const ballast_error *error;
    char *text;
    size_t size;
} message;

/* " = 12", " = -0.5", or nothing: where an option excludes a pointer, there is no value. */
static void write_value(const ballast_error *e, char *text, size_t size)
{
    const bool whole = (double)e->integer == e->value;

    text[0] = 0;
    if (!statuses[e->status].has_value || (e->status == BALLAST_ERR_OPTION && e->value == 0.0))
        return;
    if (whole)
        snprintf(text, size, " = %lld", (long long)e->integer);
    else
        snprintf(text, size, " = %.9g", e->value);
}

static void write_message(void *arg)
{
    const message *m = arg;
    const ballast_error *e = m->error;
    char index[32] = "", value[48];

    if (e->index >= 0)
        snprintf(index, sizeof index, "[%lld]", (long long)e->index);
    write_value(e, value, sizeof value);
    snprintf(m->text, m->size, "%s%s%s: %s", e->argument ? e->argument : "?", index, value,
             statuses[e->status].text);
}

const char *ballast_error_message(const ballast_error *error, char *text, size_t size)
{
    const int saved_errno = errno;
    message m = {error, text, size};

    if (!text || size == 0)
        return text;
    if (!error || error->status == BALLAST_OK)
        snprintf(text, size, "%s", statuses[BALLAST_OK].text);
    else if ((unsigned)error->status >= STATUSES)
        snprintf(text, size, "%s", ballast_status_name(error->status));
    else
        ballast__guarded(write_message, &m);
    errno = saved_errno;
    return text;
}
