/* SPDX-License-Identifier: MIT */
#include "interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t seen;

static void note(int number) { seen = number; }

void interrupt_watch(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction action, old;
        sigaction(numbers[i], NULL, &old);
        if (old.sa_handler == SIG_IGN)
            continue;
        action.sa_handler = note;
        action.sa_flags = SA_RESTART;
        sigemptyset(&action.sa_mask);
        sigaction(numbers[i], &action, NULL);
    }
}

bool interrupt_seen(void) { return seen != 0; }

void interrupt_leave(void)
{
    if (!seen)
        return;
    signal(seen, SIG_DFL);
    raise(seen);
}
