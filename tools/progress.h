/* SPDX-License-Identifier: MIT */
/* How far long work is, on stderr: a line that renews itself on a terminal, elsewhere a line for
 * each quarter.  Work that is done soon shows nothing. */
#ifndef BALLAST_TOOLS_PROGRESS_H
#define BALLAST_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct progress {
    const char *what;
    int64_t total, done; /* bytes, or of timed work parts of it */
    bool timed;
    bool on, terminal, shown;
    int quarters;        /* told so far */
    double begin, last;  /* seconds */
} progress;

/* `what` is shown, such as a file name. */
void progress_begin(progress *p, const char *what, int64_t total, bool quiet);
void progress_update(progress *p, int64_t done);

/* The same of work that is a matter of time, in so many parts: a bar and about how long it still
 * takes. `what` may change from part to part. */
void progress_begin_timed(progress *p, const char *what, int64_t total, bool quiet);
void progress_update_timed(progress *p, const char *what, int64_t done);

/* Clears the line of a terminal. Must come before anything else is written to stderr. */
void progress_end(progress *p);

/* How many columns the terminal has; INT_MAX: it is none, or does not say. */
int terminal_columns(int descriptor);

/* Writes a name from that column on, as far as the terminal is wide: a line that goes on in the next row is
 * not cleared by going back to its beginning. */
void progress_name(const char *name, int column);

/* Seconds of a clock that never goes back. */
double monotonic_seconds(void);

#endif
