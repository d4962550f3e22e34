// SPDX-License-Identifier: MIT
// Benchmarks are named by problem and contender: softmax:f32:rows=50,classes=1000/sleef
#pragma once

#include <string>

// Registers the problems of one operation with all who may take part in them.
void register_operation(const std::string &operation);

// One problem, with all who may take part; false where it is none.
bool register_problem(const std::string &problem);

// One for each file of an operation.
void register_softmax();
void register_cross_entropy();
void register_binary_cross_entropy();
void register_sigmoid_focal();
void register_reductions();
