/* SPDX-License-Identifier: MIT */
/* Any bytes are refused with one line, or give an array that lies within them.  With -DFUZZ_REPLAY
 * this is a program that runs the files and folders named as its arguments. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void claim(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz/npy: claim fails: %s\n", what);
    abort();
}

static void check_message(const npy_error *err)
{
    size_t n = strlen(err->text);
    claim(n > 0 && n < sizeof err->text - 1, "a refusal has a message that is not cut");
    for (size_t i = 0; i < n; i++)
        claim(err->text[i] >= ' ' && err->text[i] < 0x7f, "a message is one printable line");
}

static void check_array(const npy_array *a, const uint8_t *end)
{
    size_t item = npy_item_size(a->dtype);
    claim(item != 0 && npy_dtype_name(a->dtype), "the dtype is one of ours");
    claim(a->ndim >= 0 && a->ndim <= NPY_MAX_DIMS, "0 to 2 dimensions");
    for (int i = 0; i < NPY_MAX_DIMS; i++)
        claim(a->shape[i] >= 0 && (i < a->ndim || a->shape[i] == 1), "a shape");
    claim(a->count == a->shape[0] * a->shape[1], "count is the product of the shape");
    claim(a->bytes == (size_t)a->count * item, "bytes is what the elements take");
    claim(a->data && (uintptr_t)a->data % item == 0, "data are aligned");
    if (a->bytes)
        claim(memcmp(a->data, end - a->bytes, a->bytes) == 0, "data are the end of the file");
    npy_error err = {""};
    if (!npy_expect(a, "x.npy", NPY_F4 | NPY_F8, 2, &err))
        check_message(&err);
}

/* On a copy of exactly this size, `shift` bytes off the allocation's alignment. */
static bool run(const uint8_t *bytes, size_t size, size_t shift, npy_error *err)
{
    npy_array a;
    uint8_t *copy = malloc(shift + size + (shift + size == 0));
    if (!copy)
        abort();
    if (size)
        memcpy(copy + shift, bytes, size);
    bool ok = npy_parse(copy + shift, size, &a, err);
    if (ok)
        check_array(&a, copy + shift + size);
    else
        check_message(err);
    npy_close(&a);
    free(copy);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    npy_error aligned = {""}, shifted = {""};
    bool ok = run(bytes, size, 0, &aligned);
    claim(ok == run(bytes, size, 1, &shifted), "where a file lies in memory does not matter");
    claim(strcmp(aligned.text, shifted.text) == 0, "nor to the message");
    if (ok && size)
        claim(!run(bytes, size - 1, 0, &aligned), "no file is whole without its last byte");
    return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.h"
#endif
