/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_TOOLS_WEIGHTS_H
#define BALLAST_TOOLS_WEIGHTS_H

/* `ballast weights`; argv[0] is its name. Returns the exit code. */
int weights_main(int argc, char **argv);

#endif
