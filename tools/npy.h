/* SPDX-License-Identifier: MIT */
/* NumPy .npy files: read without a copy, written to a temporary file that then takes the name.
 *
 * Formats     1.0, 2.0 and 3.0 are read, 1.0 is written, with the bytes that NumPy would write.
 * Arrays      C order, 0 to 2 dimensions, little-endian f2, f4, f8, i4, i8, and u1.
 * Errors      every function that can fail returns false and fills `err` (may be NULL) with one
 *             line that names the file, the field and its value.
 * Threads     safe on different objects; one object belongs to one thread at a time. */
#ifndef BALLAST_TOOLS_NPY_H
#define BALLAST_TOOLS_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Values are bits, so that a set of dtypes is their OR. */
typedef enum npy_dtype {
    NPY_F4 = 1,
    NPY_F8 = 2,
    NPY_I4 = 4,
    NPY_I8 = 8,
    NPY_U1 = 16,
    NPY_F2 = 32
} npy_dtype;

enum { NPY_MAX_DIMS = 2 };

typedef struct npy_error {
    char text[512]; /* one line, no newline, always terminated */
} npy_error;

typedef struct npy_array {
    const void *data; /* aligned to its element, never NULL; read-only */
    npy_dtype dtype;
    int ndim;                    /* 0 to NPY_MAX_DIMS */
    int64_t shape[NPY_MAX_DIMS]; /* entries from ndim on are 1 */
    int64_t count;               /* elements: the product of the shape, 1 for 0 dimensions */
    size_t bytes;                /* of data */

    void *map, *heap; /* private: what npy_close gives back */
    size_t map_bytes;
} npy_array;

/* Opens `path` ("-": standard input) and checks it whole: header, size, nothing after the data.
 * A regular file is mapped, so its size costs nothing; anything else (a pipe) is read into memory.
 * Nobody else may shorten a mapped file before npy_close: reading would raise SIGBUS.  npy_writer
 * never does that; it may replace a file that is open here.
 * On failure `out` is zeroed; npy_close is then allowed and does nothing. */
bool npy_open(const char *path, npy_array *out, npy_error *err);

/* The same for a file that is already in memory. `out` points into `bytes`, which must outlive it,
 * unless the data are not aligned to their element there: then they are copied.  Messages bear no
 * file name. */
bool npy_parse(const uint8_t *bytes, size_t size, npy_array *out, npy_error *err);

/* Checks that the dtype is in `dtype_mask` and that there are `ndim` dimensions (-1: any number).
 * `name` stands at the front of the message. */
bool npy_expect(const npy_array *array, const char *name, unsigned dtype_mask, int ndim,
                npy_error *err);

/* Zeroes `array`, so a second call does nothing. */
void npy_close(npy_array *array);

/* "<f2" and so on; NULL for anything but one dtype. */
const char *npy_dtype_name(npy_dtype dtype);

/* Bytes of one element; 0 for anything but one dtype. */
size_t npy_item_size(npy_dtype dtype);

/* A file on its way.  Zero-initialised is "not open". */
typedef struct npy_writer {
    size_t bytes;   /* of data that the header promises */
    size_t written; /* of them, given to npy_write so far */

    char *name, *target, *temporary; /* private: for messages; NULL when a stream */
    void *map, *buffer;
    size_t map_bytes;
    int fd;
    bool borrowed; /* standard output is not ours to close */
    bool reserved; /* the file has all its blocks, so a store into its mapping cannot fail */
} npy_writer;

/* Starts a file of this dtype and shape.  Use either npy_map or npy_write for the data, then
 * npy_commit or npy_abandon.
 *
 * A regular or new file is written beside `path` under a temporary name with all its space
 * reserved, so that a full disk is an error here; links are followed, and the permissions of a file
 * that is replaced are kept.  "-" (standard output), pipes and devices are streams: what was
 * written cannot be taken back, and signals (SIGPIPE) are the caller's.  File size limits raise
 * SIGXFSZ; ignored by the caller, they are an error.
 * On failure nothing is left behind and `w` is not open. */
bool npy_create(const char *path, npy_dtype dtype, int ndim, const int64_t *shape, npy_writer *w,
                npy_error *err);

/* The `w->bytes` bytes of data as memory, zero at first, aligned to 16 bytes at least, valid until
 * npy_commit or npy_abandon: the file itself where it can be mapped, else a buffer that npy_commit
 * writes.  NULL on failure, or after npy_write; the writer stays open. */
void *npy_map(npy_writer *w, npy_error *err);

/* Appends data.  Fails if there would be more than promised; the writer stays open. */
bool npy_write(npy_writer *w, const void *data, size_t bytes, npy_error *err);

/* Makes the file durable and gives it its name.  Fails if data are missing.  In each case `w` is
 * not open afterwards; on failure the temporary file is gone and the target is as it was. */
bool npy_commit(npy_writer *w, npy_error *err);

/* Drops the file; the target is as it was.  Does nothing to a writer that is not open. */
void npy_abandon(npy_writer *w);

#ifdef __cplusplus
}
#endif

#endif
