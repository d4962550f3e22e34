// SPDX-License-Identifier: MIT
#include "registry.hpp"

void register_sigmoid_focal() { register_operation("sigmoid_focal"); }
