/* SPDX-License-Identifier: MIT */
#include "progress.h"

#include <stdio.h>
#include <string.h>
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

/* The end of a path says more than its beginning. */
static const char *short_name(const char *name)
{
    enum { SHOWN = 32 };
    size_t length = strlen(name);
    return length > SHOWN ? name + length - SHOWN : name;
}

static void print_line(const progress *p, double now)
{
    double rate = now > p->begin ? (double)p->done / (now - p->begin) * 1e-9 : 0.0;
    fprintf(stderr, "%s%s: %3d %% of %.2f GB, %.2f GB/s%s", p->terminal ? "\r" : "ballast: ",
            short_name(p->what), (int)(100.0 * (double)p->done / (double)p->total),
            1e-9 * (double)p->total, rate, p->terminal ? "\033[K" : "\n");
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
    int quarters = (int)(4.0 * (double)done / (double)p->total);
    if (quarters > p->quarters)
        print_line(p, now);
    p->quarters = quarters;
}

void progress_end(progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->on = p->shown = false;
}
