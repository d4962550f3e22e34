/* SPDX-License-Identifier: MIT */
/* The kernels of one ISA and storage type, in one table for dispatch. */
#include "softmax_tile.h"

const kernel_table KERNEL(kernels) = {
    .tile_classes = WIDEST_TILE,
    .streamed_tile_classes = WIDEST_STREAMED_TILE,
    .log_sum_exp_tile_classes = TILE_CLASSES,
    .softmax = KERNEL(softmax),
    .log_softmax = KERNEL(log_softmax),
    .log_sum_exp = KERNEL(log_sum_exp),
    .softmax_backward = KERNEL(softmax_backward),
    .log_softmax_backward = KERNEL(log_softmax_backward),
    .cross_entropy = KERNEL(cross_entropy),
    .softmax_planes = KERNEL(softmax_planes),
    .log_softmax_planes = KERNEL(log_softmax_planes),
    .log_sum_exp_planes = KERNEL(log_sum_exp_planes),
    .softmax_backward_planes = KERNEL(softmax_backward_planes),
    .log_softmax_backward_planes = KERNEL(log_softmax_backward_planes),
    .cross_entropy_planes = KERNEL(cross_entropy_planes),
    .binary_cross_entropy = KERNEL(binary_cross_entropy),
    .sigmoid_focal = KERNEL(sigmoid_focal),
    .weighted_sum = KERNEL(weighted_sum),
    .weighted_mean = KERNEL(weighted_mean),
    .weighted_sum_of_squares = KERNEL(weighted_sum_of_squares),
    .weighted_log_sum_exp = KERNEL(weighted_log_sum_exp),
    .log_sum_exp_of_parts = KERNEL(log_sum_exp_of_parts),
    .shared_softmax = {KERNEL(softmax_states), KERNEL(softmax_combine), KERNEL(softmax_outputs)},
    .shared_log_softmax = {KERNEL(log_softmax_states), KERNEL(log_softmax_combine),
                           KERNEL(log_softmax_outputs)},
    .shared_log_sum_exp = {KERNEL(log_sum_exp_states), KERNEL(log_sum_exp_combine), NULL},
    .shared_cross_entropy = {KERNEL(cross_entropy_states), KERNEL(cross_entropy_combine),
                             KERNEL(cross_entropy_outputs)},
};
