/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_TOOLS_INFO_H
#define BALLAST_TOOLS_INFO_H

#include <stddef.h>

/* `ballast info`; argv[0] is its name. Returns the exit code. */
int info_main(int argc, char **argv);

/* The features of the CPU that Ballast knows, by name, with spaces between them. */
void info_features(char *text, size_t size);

#endif
