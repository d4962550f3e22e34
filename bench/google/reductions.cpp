// SPDX-License-Identifier: MIT
#include "registry.hpp"

void register_reductions()
{
    for (const char *operation : {"weighted_sum", "dot"})
        register_operation(operation);
}
