/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_TOOLS_TUNE_H
#define BALLAST_TOOLS_TUNE_H

int tune_main(int argc, char **argv);

#endif
