/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_TOOLS_COMPARE_H
#define BALLAST_TOOLS_COMPARE_H

int compare_main(int argc, char **argv);

#endif
