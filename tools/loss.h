/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_TOOLS_LOSS_H
#define BALLAST_TOOLS_LOSS_H

/* `ballast loss`; argv[0] is its name. Returns the exit code. */
int loss_main(int argc, char **argv);

#endif
