/* SPDX-License-Identifier: MIT */
#include "library.h"

#define LINKED_OPERATION(name, args)                                                              \
    .name = ballast_##name, .name##_prepare = ballast_##name##_prepare,
#define LINKED_FUNCTION(name, result, parameters) .name = ballast_##name,

const library library_linked = {
    LIBRARY_OPERATIONS(LINKED_OPERATION)
    LIBRARY_FUNCTIONS(LINKED_FUNCTION)
};
