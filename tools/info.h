/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_TOOLS_INFO_H
#define BALLAST_TOOLS_INFO_H

/* `ballast info`; argv[0] is its name. Returns the exit code. */
int info_main(int argc, char **argv);

#endif
