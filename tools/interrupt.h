/* SPDX-License-Identifier: MIT */
/* Ctrl-C while temporary files exist: noticed between pieces of work, so that they are removed. */
#ifndef BALLAST_TOOLS_INTERRUPT_H
#define BALLAST_TOOLS_INTERRUPT_H

#include <stdbool.h>

/* From here on SIGINT, SIGTERM and SIGHUP only leave a note (not those that are ignored). */
void interrupt_watch(void);

bool interrupt_seen(void);

/* Ends the process with the signal that was seen, as if it had never been caught. Does nothing
 * where none was. */
void interrupt_leave(void);

#endif
