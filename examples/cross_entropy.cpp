// SPDX-License-Identifier: MIT
// Softmax cross-entropy from C++17, and what a wrong argument says.
//
//   c++ -std=c++17 -o cross_entropy cross_entropy.cpp $(pkg-config --cflags --libs ballast)
#include <ballast/ballast.h>

#include <array>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

// The mean loss of `labels.size()` rows; its gradient takes the place of the logits.
static double cross_entropy(std::vector<float> &logits, const std::vector<int64_t> &labels)
{
    const auto rows = static_cast<int64_t>(labels.size());
    const auto classes = static_cast<int64_t>(logits.size()) / rows;
    double loss = 0;
    ballast_error error;
    ballast_cross_entropy_args a = BALLAST_CROSS_ENTROPY_ARGS;

    a.logits = ballast_const_matrix_f32(logits.data(), rows, classes);
    a.labels = ballast_labels_i64(labels.data());
    a.loss = &loss;
    a.grad = ballast_matrix_f32(logits.data(), rows, classes);
    a.error = &error;
    if (ballast_cross_entropy(&a, nullptr) != BALLAST_OK) {
        std::array<char, 200> text;
        throw std::invalid_argument(ballast_error_message(&error, text.data(), text.size()));
    }
    return loss;
}

int main()
{
    const std::vector<float> logits = {2, 1, 0, 0, 0, 5};
    std::vector<float> grad = logits;

    std::cout << "loss " << cross_entropy(grad, {0, 1}) << '\n';
    for (float g : grad)
        std::cout << "grad " << g << '\n';

    // A label out of range: nothing is written, and the message names row and label.
    std::vector<float> untouched = logits;
    try {
        cross_entropy(untouched, {0, 3});
    } catch (const std::invalid_argument &e) {
        std::cout << "refused: " << e.what() << '\n';
        const bool named = std::string(e.what()).find("labels[1] = 3") == 0;
        return named && untouched == logits ? 0 : 1;
    }
    return 1;
}
