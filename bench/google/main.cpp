// SPDX-License-Identifier: MIT
// ballast-bench: the contenders of `ballast bench` in Google Benchmark's frame, with its filters,
// repetitions and reporters. Ratios are for `ballast bench`, which measures in turn.
#include "measured.h"
#include "registry.hpp"

#include <benchmark/benchmark.h>
#include <cstdio>
#include <string>

namespace {

// The value of --NAME=VALUE; nullptr for other arguments.
const char *value_of(const char *argument, const std::string &name)
{
    const std::string text = argument, head = "--" + name + "=";
    return text.rfind(head, 0) == 0 ? argument + head.size() : nullptr;
}

void help()
{
    std::puts("usage: ballast-bench [--problem=PROBLEM]... [--pages=4k|huge] [--benchmark_...]\n"
              "\n"
              "  --problem=PROBLEM  this problem in place of those of all suites; may be repeated\n"
              "  --pages=SIZE       4k (default) or huge: what large arrays stand on\n");
}

int refuse(const char *what, const char *value)
{
    std::fprintf(stderr, "ballast-bench: %s '%s' (see --help)\n", what, value);
    return 2;
}

void register_all()
{
    register_softmax();
    register_cross_entropy();
    register_binary_cross_entropy();
    register_sigmoid_focal();
    register_reductions();
}

} // namespace

int main(int argc, char **argv)
{
    bool has_problem = false;
    int kept = 1;

    measured_pages(0);
    for (int i = 1; i < argc; i++) {
        const std::string argument = argv[i];
        if (argument == "--help")
            help();
        if (const char *problem = value_of(argv[i], "problem")) {
            char why[512];
            if (!measured_is_problem(problem, why, sizeof why)) {
                std::fprintf(stderr, "ballast-bench: --problem: '%s': %s\n", problem, why);
                return 2;
            }
            register_problem(problem);
            has_problem = true;
        } else if (const char *pages = value_of(argv[i], "pages")) {
            if (std::string(pages) != "4k" && std::string(pages) != "huge")
                return refuse("--pages: neither 4k nor huge:", pages);
            measured_pages(std::string(pages) == "huge");
        } else {
            argv[kept++] = argv[i];
        }
    }
    argc = kept;
    argv[argc] = nullptr;
    if (!has_problem)
        register_all();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 2;
    benchmark::RunSpecifiedBenchmarks();
    measured_end();
    benchmark::Shutdown();
    return 0;
}
