// SPDX-License-Identifier: MIT
#include "registry.hpp"

void register_softmax()
{
    for (const char *operation : {"softmax", "log_softmax", "log_sum_exp"})
        register_operation(operation);
}
