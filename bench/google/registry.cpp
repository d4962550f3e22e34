// SPDX-License-Identifier: MIT
#include "registry.hpp"

#include "measured.h"

#include <algorithm>
#include <benchmark/benchmark.h>

namespace {

void run(benchmark::State &state, const std::string &problem, const std::string &contender)
{
    measured m;
    if (!measured_find(problem.c_str(), contender.c_str(), &m)) {
        state.SkipWithError(m.message);
        return;
    }
    m.run(m.context); // warm
    const double cycle_before = measured_cycle(), start = measured_now();
    for (auto _ : state)
        m.run(m.context);
    const double seconds = measured_now() - start;
    const double cycle = std::min(cycle_before, measured_cycle());
    const double elements = m.elements * static_cast<double>(state.iterations());
    state.SetItemsProcessed(static_cast<std::int64_t>(elements));
    state.SetBytesProcessed(
        static_cast<std::int64_t>(m.bytes * static_cast<double>(state.iterations())));
    state.counters["cycles_per_element"] = seconds / cycle / elements;
}

} // namespace

bool register_problem(const std::string &problem)
{
    for (int i = 0; const char *contender = measured_contender(problem.c_str(), i); i++)
        benchmark::RegisterBenchmark((problem + "/" + contender).c_str(), run, problem,
                                     std::string(contender))
            ->UseRealTime();
    return measured_contender(problem.c_str(), 0) != nullptr;
}

void register_operation(const std::string &operation)
{
    for (int i = 0; const char *problem = measured_problem(i); i++)
        if (std::string(problem).rfind(operation + ":", 0) == 0)
            register_problem(problem);
}
