// SPDX-License-Identifier: MIT
#include "registry.hpp"

void register_cross_entropy() { register_operation("cross_entropy"); }
