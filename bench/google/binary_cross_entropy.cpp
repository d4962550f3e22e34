// SPDX-License-Identifier: MIT
#include "registry.hpp"

void register_binary_cross_entropy() { register_operation("binary_cross_entropy"); }
