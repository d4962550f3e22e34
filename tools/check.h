/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_TOOLS_CHECK_H
#define BALLAST_TOOLS_CHECK_H

/* `ballast check`: argv[0] is "check". Returns the exit status: 0 all green, 1 a check failed, 2
 * what was asked for cannot be done. */
int check_main(int argc, char **argv);

#endif
