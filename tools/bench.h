/* SPDX-License-Identifier: MIT */
#ifndef BALLAST_TOOLS_BENCH_H
#define BALLAST_TOOLS_BENCH_H

int bench_main(int argc, char **argv);

#endif
