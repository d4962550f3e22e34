/* SPDX-License-Identifier: MIT */
/* Files written and read whole; a test fails where that cannot be done. Include after <cmocka.h>. */
#ifndef BALLAST_TESTS_WHOLE_FILE_H
#define BALLAST_TESTS_WHOLE_FILE_H

#include <stdio.h>

static inline void put_file(const char *path, const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* How many bytes there are, up to `room`. */
static inline size_t get_file(const char *path, void *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");

    assert_non_null(f);
    const size_t size = fread(bytes, 1, room, f);
    fclose(f);
    return size;
}

#endif
