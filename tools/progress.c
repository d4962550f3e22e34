/* SPDX-License-Identifier: MIT */
#include "progress.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const int64_t least_bytes = INT64_C(256) << 20; /* less is done before anybody wonders */
static const double least_wait = 0.3, interval = 0.1;

double monotonic_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_begin(progress *p, const char *what, int64_t total, bool quiet)
{
    memset(p, 0, sizeof *p);
    p->what = what;
    p->total = total;
    p->terminal = isatty(STDERR_FILENO);
    p->on = !quiet && total > 0 && (p->terminal || total >= least_bytes);
    p->begin = p->last = monotonic_seconds();
}

void progress_begin_timed(progress *p, const char *what, int64_t total, bool quiet)
{
    progress_begin(p, what, total, quiet);
    p->timed = true;
    p->on = !quiet && total > 0;
}

/* The end of a path says more than its beginning. */
static const char *short_name(const char *name)
{
    enum { SHOWN = 32 };
    size_t length = strlen(name);
    return length > SHOWN ? name + length - SHOWN : name;
}

static void print_bytes(const progress *p, double now)
{
    double rate = now > p->begin ? (double)p->done / (now - p->begin) * 1e-9 : 0.0;
    fprintf(stderr, "%s%s: %3d %% of %.2f GB, %.2f GB/s%s", p->terminal ? "\r" : "ballast: ",
            short_name(p->what), (int)(100.0 * (double)p->done / (double)p->total),
            1e-9 * (double)p->total, rate, p->terminal ? "\033[K" : "\n");
}

int terminal_columns(int descriptor)
{
    struct winsize size;

    if (!isatty(descriptor) || ioctl(descriptor, TIOCGWINSZ, &size) != 0)
        return INT_MAX;
    return size.ws_col > 0 ? size.ws_col : INT_MAX;
}

void progress_name(const char *name, int column)
{
    const int left = terminal_columns(STDERR_FILENO) - 1 - column;
    fprintf(stderr, "%.*s", left > 0 ? left : 0, name);
}

/* "[#####.....] 43 %, 34 s left: what"; the time left as if the rest went on like this. */
static void print_time(const progress *p, double now)
{
    enum { BAR = 20 };
    const double share = (double)p->done / (double)p->total;
    const double left = share > 0.0 ? (now - p->begin) * (1.0 - share) / share : 0.0;
    const int filled = (int)(BAR * share);
    char told[64];
    snprintf(told, sizeof told, "%3d %%, %.0f s left: ", (int)(100.0 * share), left);
    if (!p->terminal) {
        fprintf(stderr, "ballast: %s%s\n", told, p->what);
        return;
    }
    fputs("\r[", stderr);
    for (int i = 0; i < BAR; i++)
        fputc(i < filled ? '#' : '.', stderr);
    fprintf(stderr, "] %s", told);
    progress_name(p->what, BAR + 3 + (int)strlen(told));
    fputs("\033[K", stderr);
}

static void print_line(const progress *p, double now)
{
    if (p->timed)
        print_time(p, now);
    else
        print_bytes(p, now);
    fflush(stderr);
}

static void update_terminal(progress *p, double now)
{
    if (now - p->begin < least_wait || now - p->last < interval)
        return;
    print_line(p, now);
    p->shown = true;
    p->last = now;
}

void progress_update(progress *p, int64_t done)
{
    p->done = done;
    if (!p->on)
        return;
    double now = monotonic_seconds();
    if (p->terminal) {
        update_terminal(p, now);
        return;
    }
    if (p->timed && now - p->begin < least_wait)
        return;
    int quarters = (int)(4.0 * (double)done / (double)p->total);
    if (quarters > p->quarters)
        print_line(p, now);
    p->quarters = quarters;
}

void progress_update_timed(progress *p, const char *what, int64_t done)
{
    p->what = what;
    progress_update(p, done);
}

void progress_end(progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->on = p->shown = false;
}
