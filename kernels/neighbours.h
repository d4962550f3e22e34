/* SPDX-License-Identifier: MIT */
/* Rows of a tensor [outer, classes, inner] that are neighbours in memory. */
#ifndef BALLAST_NEIGHBOURS_H
#define BALLAST_NEIGHBOURS_H

#include "storage.h"

/* Rows [row, row + count), neighbours in memory: positions from `at` on of one outer index. */
typedef struct neighbours {
    int64_t row, count, outer, at;
} neighbours;

LANES neighbours neighbours_from(int64_t row, int64_t outer, int64_t at, int64_t end, int64_t inner,
                                 int64_t most)
{
    int64_t count = inner - at < most ? inner - at : most;
    if (end - row < count)
        count = end - row;
    return (neighbours){row, count, outer, at};
}

LANES neighbours first_neighbours(int64_t begin, int64_t end, int64_t inner, int64_t most)
{
    return neighbours_from(begin, begin / inner, begin % inner, end, inner, most);
}

LANES neighbours next_neighbours(neighbours r, int64_t end, int64_t inner, int64_t most)
{
    const int last = r.at + r.count == inner;
    return neighbours_from(r.row + r.count, r.outer + last, last ? 0 : r.at + r.count, end, inner,
                           most);
}

/* Rows [begin, end), at most `most` neighbours at a time. */
#define FOR_NEIGHBOURS(r, begin, end, inner, most)                                                \
    for (neighbours r = first_neighbours(begin, end, inner, most); r.count > 0;                   \
         r = next_neighbours(r, end, inner, most))

#endif
