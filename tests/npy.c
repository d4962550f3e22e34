/* SPDX-License-Identifier: MIT */
/* The .npy reader and writer.  The files are spelled out byte by byte as NumPy 1.9 to 2.4 and other
 * writers make them, so no NumPy is needed here. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tools/npy.h"
#include "whole_file.h"

enum { ALL_DTYPES = NPY_F4 | NPY_F8 | NPY_I4 | NPY_I8 | NPY_U1 };

/* ---- scratch folder and files in it ---- */

static char folder[64];

static int enter_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/ballast-npy-XXXXXX");
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

/* Counts what is in the folder; removes it too if asked. */
static int count_files(int (*each)(const char *))
{
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        n++;
        if (each)
            each(e->d_name);
    }
    closedir(d);
    return n;
}

static int leave_folder(void **state)
{
    (void)state;
    count_files(remove);
    return chdir("/") == 0 && rmdir(folder) == 0 ? 0 : -1;
}

static int clean_folder(void **state)
{
    (void)state;
    count_files(remove);
    return 0;
}

/* ---- files in memory ---- */

typedef struct {
    uint8_t bytes[1024];
    size_t size;
} image;

static void append(image *m, const void *bytes, size_t size)
{
    assert_true(size <= sizeof m->bytes - m->size);
    memcpy(m->bytes + m->size, bytes, size);
    m->size += size;
}

/* A file of this header, not padded, and `data` bytes 0, 1, 2, ... */
static image make(int version, const char *header, size_t data)
{
    image m = {{0}, 0};
    size_t n = strlen(header);
    const uint8_t start[] = {0x93, 'N', 'U', 'M', 'P', 'Y', (uint8_t)version, 0,
                             (uint8_t)n, (uint8_t)(n >> 8), 0, 0};
    append(&m, start, version == 1 ? 10 : 12);
    append(&m, header, n);
    for (size_t i = 0; i < data; i++)
        append(&m, &(uint8_t){(uint8_t)i}, 1);
    return m;
}

/* As NumPy makes it: the data start at a multiple of `multiple` (16 before NumPy 1.14, then 64). */
static image make_padded(int version, const char *header, size_t multiple, const void *data,
                         size_t bytes)
{
    char padded[256];
    size_t start = version == 1 ? 10 : 12, n = strlen(header);
    size_t length = (start + n + multiple) / multiple * multiple - start;
    memset(padded, ' ', sizeof padded);
    memcpy(padded, header, n);
    padded[length - 1] = '\n';
    padded[length] = '\0';
    image m = make(version, padded, 0);
    append(&m, data, bytes);
    return m;
}

/* Parses a copy of exactly this size, so that the address sanitizer sees every byte too many;
 * `shift` misaligns it.  The caller frees `*copy`. */
static bool parse_copy(const void *bytes, size_t size, size_t shift, npy_array *a, npy_error *err,
                       uint8_t **copy)
{
    *copy = malloc(size + shift ? size + shift : 1);
    assert_non_null(*copy);
    if (size)
        memcpy(*copy + shift, bytes, size);
    return npy_parse(*copy + shift, size, a, err);
}

static void assert_refused(image m, const char *message)
{
    npy_array a;
    npy_error err;
    uint8_t *copy;
    assert_false(parse_copy(m.bytes, m.size, 0, &a, &err, &copy));
    free(copy);
    assert_string_equal(err.text, message);
    assert_null(a.data);

    char with_name[600];
    snprintf(with_name, sizeof with_name, "x.npy: %s", message);
    put_file("x.npy", m.bytes, m.size);
    assert_false(npy_open("x.npy", &a, &err));
    assert_string_equal(err.text, with_name);
    assert_false(npy_open("x.npy", &a, NULL));
    npy_close(&a);
}

static void assert_accepted(image m, npy_dtype dtype, int ndim, int64_t d0, int64_t d1)
{
    for (size_t shift = 0; shift < 8; shift++) {
        npy_array a;
        npy_error err = {"no message"};
        uint8_t *copy;
        if (!parse_copy(m.bytes, m.size, shift, &a, &err, &copy))
            fail_msg("%s", err.text);
        assert_int_equal(a.dtype, dtype);
        assert_int_equal(a.ndim, ndim);
        assert_int_equal(a.shape[0], d0);
        assert_int_equal(a.shape[1], d1);
        assert_int_equal(a.count, d0 * d1);
        assert_int_equal(a.bytes, (size_t)a.count * npy_item_size(dtype));
        assert_non_null(a.data);
        assert_int_equal((uintptr_t)a.data % npy_item_size(dtype), 0);
        assert_memory_equal(a.data, m.bytes + m.size - a.bytes, a.bytes);
        npy_close(&a);
        npy_close(&a);
        free(copy);
    }
}

/* ---- reading ---- */

#define ORDER "'fortran_order': False, "

static void reads_what_numpy_wrote(void **state)
{
    (void)state;
    const float f4[] = {0, 1, 2, 3, 4, 5};
    const double f8[] = {1.5, -2.0};
    const int32_t i4[] = {0, 1, -2};
    const int64_t i8[] = {7};
    const uint8_t u1[] = {0, 255, 3};
    for (int version = 1; version <= 3; version++)
        for (size_t m = 16; m <= 64; m *= 4) {
            assert_accepted(make_padded(version, "{'descr': '<f4', " ORDER "'shape': (2, 3), }", m,
                                        f4, sizeof f4), NPY_F4, 2, 2, 3);
            assert_accepted(make_padded(version, "{'descr': '<f8', " ORDER "'shape': (2,), }", m,
                                        f8, sizeof f8), NPY_F8, 1, 2, 1);
            assert_accepted(make_padded(version, "{'descr': '<i4', " ORDER "'shape': (3,), }", m,
                                        i4, sizeof i4), NPY_I4, 1, 3, 1);
            assert_accepted(make_padded(version, "{'descr': '<i8', " ORDER "'shape': (), }", m,
                                        i8, sizeof i8), NPY_I8, 0, 1, 1);
            assert_accepted(make_padded(version, "{'descr': '|u1', " ORDER "'shape': (3, 1), }", m,
                                        u1, sizeof u1), NPY_U1, 2, 3, 1);
        }
}

static void reads_variants_of_the_header(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}",
        "{'descr': '<f4', 'shape': (2, 3), 'fortran_order': False}",
        "{'fortran_order': False, 'descr': '<f4', 'shape': (2, 3)}",
        "{'fortran_order': False, 'shape': (2, 3), 'descr': '<f4'}",
        "{'shape': (2, 3), 'descr': '<f4', 'fortran_order': False,}",
        "{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}",
        "{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (2, 3)}\n",
        "{'descr':\"<f4\",\"fortran_order\":False,'shape':(2,3,)}",
        " \t{\n'descr' :\r\n'<f4' , 'fortran_order'\t:\fFalse , 'shape' : ( 2 , 3 , ) , } \n \n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }", /* Python 2 */
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        assert_accepted(make(1, headers[i], 24), NPY_F4, 2, 2, 3);
    assert_accepted(make(1, "{'descr': '<u1', " ORDER "'shape': (5,)}", 5), NPY_U1, 1, 5, 1);
}

static void reads_empty_arrays(void **state)
{
    (void)state;
    assert_accepted(make(1, "{'descr': '<f8', " ORDER "'shape': (0,)}", 0), NPY_F8, 1, 0, 1);
    assert_accepted(make(1, "{'descr': '<f8', " ORDER "'shape': (0, 7)}", 0), NPY_F8, 2, 0, 7);
    assert_accepted(make(1, "{'descr': '<f8', " ORDER "'shape': (7, 0)}", 0), NPY_F8, 2, 7, 0);
    assert_accepted(make(1, "{'descr': '<f8', " ORDER "'shape': (0, 0)}", 0), NPY_F8, 2, 0, 0);
}

static void fortran_order_only_where_it_is_the_same(void **state)
{
    (void)state;
#define FORTRAN "{'descr': '<f4', 'fortran_order': True, 'shape': "
    assert_accepted(make(1, FORTRAN "(6,)}", 24), NPY_F4, 1, 6, 1);
    assert_accepted(make(1, FORTRAN "()}", 4), NPY_F4, 0, 1, 1);
    assert_accepted(make(1, FORTRAN "(1, 6)}", 24), NPY_F4, 2, 1, 6);
    assert_accepted(make(1, FORTRAN "(6, 1)}", 24), NPY_F4, 2, 6, 1);
    assert_accepted(make(1, FORTRAN "(0, 6)}", 0), NPY_F4, 2, 0, 6);
    assert_refused(make(1, FORTRAN "(2, 3)}", 24),
                   "fortran_order True: save it with numpy.ascontiguousarray");
}

static void refuses_dtypes(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {">f4", "big-endian; "},          {">f8", "big-endian; "}, {">i8", "big-endian; "},
        {">f2", "big-endian; "},
        {"|b1", "bool; "},                {"|V2", "raw bytes, or bfloat16; "},
        {"<c8", "complex; "},             {"|O", "Python objects; "},
        {"|S5", "text; "},                {"<U5", "text; "},
        {"<M8[s]", "dates; "},            {"<m8", "dates; "},
        {"<f16", ""}, {"<i2", ""}, {"|i1", ""}, {"<u4", ""}, {"f4", ""}, {"=f4", ""}, {"<", ""},
        {"", ""}, {"<f44", ""}, {"<f4 ", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[128], message[256];
        snprintf(header, sizeof header, "{'descr': '%s', " ORDER "'shape': (2,)}", cases[i][0]);
        snprintf(message, sizeof message,
                 "dtype '%s' is not supported (%swant <f2, <f4, <f8, <i4, <i8 or |u1)", cases[i][0],
                 cases[i][1]);
        assert_refused(make(1, header, 8), message);
    }
    assert_refused(make(1, "{'descr': [('a', '<f4')], " ORDER "'shape': (2,)}", 8),
                   "dtype with fields is not supported: save one field");
    /* What a file says cannot upset a terminal or fill the screen. */
    assert_refused(make(1, "{'descr': '\x7f[31m\xc3\xa9', " ORDER "'shape': (2,)}", 8),
                   "dtype '?[31m?" "?' is not supported (want <f2, <f4, <f8, <i4, <i8 or |u1)");
    char header[256];
    snprintf(header, sizeof header, "{'descr': '%0100d', " ORDER "'shape': (2,)}", 0);
    assert_refused(make(1, header, 8),
                   "dtype '000000000000000000000000000000000000000000000000000000000000...'"
                   " is not supported (want <f2, <f4, <f8, <i4, <i8 or |u1)");
}

static void refuses_shapes(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"<f4", "(2, 3, 4)", "want at most 2 dimensions"},
        {"<f4", "(1, 1, 1, 1)", "want at most 2 dimensions"},
        {"<f4", "(-1,)", "a dimension is negative"},
        {"<f4", "(2, -3)", "a dimension is negative"},
        {"<f4", "(9223372036854775807,)", "too large"},
        {"|u1", "(9223372036854775807,)", "too large"},
        {"|u1", "(9223372036854775808,)", "too large"},
        {"|u1", "(18446744073709551617,)", "too large"},
        {"|u1", "(99999999999999999999999999, 0)", "too large"},
        {"<f4", "(4611686018427387904, 4)", "too large"},
        {"<f4", "(4294967296, 4294967296)", "too large"},
        {"<f8", "(4294967296, 536870912)", "too large"},
        {"<f8", "(2305843009213693952, 0)", "too large"},
        {"<f8", "(0, 2305843009213693952)", "too large"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[128], message[128];
        snprintf(header, sizeof header, "{'descr': '%s', " ORDER "'shape': %s}", cases[i][0],
                 cases[i][1]);
        snprintf(message, sizeof message, "shape %s: %s", cases[i][1], cases[i][2]);
        assert_refused(make(1, header, 8), message);
    }
    assert_refused(make(1, "{'descr': '|u1', " ORDER "'shape': (4294967296, 1073741824)}", 8),
                   "file is truncated: header promises 4611686018427387904 data bytes, 8 present");
}

static void refuses_bad_headers(void **state)
{
    (void)state;
#define BEGIN "{'descr': '<f4', " ORDER "'shape': "
    static const char *const cases[][2] = {
        {"", "header ends at byte 0: want '{'"},
        {"   ", "header ends at byte 3: want '{'"},
        {"[1]", "header byte 0 is '[': want '{'"},
        {"{", "header ends at byte 1: want a key in quotes"},
        {"{}", "header lacks the key 'descr'"},
        {"{,}", "header byte 1 is ',': want a key in quotes"},
        {"{descr: 1}", "header byte 1 is 'd': want a key in quotes"},
        {"{'descr", "header ends at byte 7: want the closing quote"},
        {"{'descr\": 1}", "header ends at byte 12: want the closing quote"},
        {"{'de\\x73cr': 1}", "header byte 4 is '\\': want a plain character"},
        {"{'de\nscr': 1}", "header byte 4 is '?': want a plain character"},
        {"{'descr' '<f4'}", "header byte 9 is ''': want ':'"},
        {"{'descr': 4}", "header byte 10 is '4': want a string for descr"},
        {"{'descr': '<f4' 'shape': (2,)}", "header byte 16 is ''': want ',' or '}'"},
        {"{'descr': '<f4', 'x': 3}", "header has the unknown key 'x'"},
        {"{'descr': '<f4', 'descr': '<f4'}", "header has the key 'descr' twice"},
        {"{'descr': '<f4', 'shape': (2,)}", "header lacks the key 'fortran_order'"},
        {"{'descr': '<f4', 'fortran_order': False}", "header lacks the key 'shape'"},
        {"{'fortran_order': 0}", "header byte 18 is '0': want True or False for fortran_order"},
        {"{'fortran_order': Falsely}",
         "header byte 18 is 'F': want True or False for fortran_order"},
        {"{'fortran_order': ", "header ends at byte 18: want True or False for fortran_order"},
        {"{'shape': 2}", "header byte 10 is '2': want a tuple for shape"},
        {"{'shape': [2, 3]}", "header byte 10 is '[': want a tuple for shape"},
        {"{'shape': (2)}", "header byte 12 is ')': want ',' in shape"},
        {"{'shape': (,)}", "header byte 11 is ',': want a dimension"},
        {"{'shape': (2,,)}", "header byte 13 is ',': want a dimension"},
        {"{'shape': (2, 3 4)}", "header byte 16 is '4': want ',' or ')' in shape"},
        {"{'shape': (2.0,)}", "header byte 12 is '.': want ',' in shape"},
        {"{'shape': (1e3,)}", "header byte 12 is 'e': want ',' in shape"},
        {"{'shape': (0x10,)}", "header byte 12 is 'x': want ',' in shape"},
        {"{'shape': (1_0,)}", "header byte 12 is '_': want ',' in shape"},
        {"{'shape': (+2,)}", "header byte 11 is '+': want a dimension"},
        {"{'shape': (--2,)}", "header byte 12 is '-': want a dimension"},
        {"{'shape': (02,)}", "header byte 11 is '0': want a dimension without leading zeros"},
        {"{'shape': (2, ", "header ends at byte 14: want a dimension"},
        {"{'shape': (2, 3", "header ends at byte 15: want ',' or ')' in shape"},
        {BEGIN "(2,)", "header ends at byte 54: want ',' or '}'"},
        {BEGIN "(2,)},", "header byte 55 is ',': want nothing after the '}'"},
        {BEGIN "(2,)} #", "header byte 56 is '#': want nothing after the '}'"},
        {BEGIN "(2,),,}", "header byte 55 is ',': want a key in quotes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(make(1, cases[i][0], 8), cases[i][1]);
    image m = make(1, BEGIN "(2,)}  ", 8);
    m.bytes[10 + 56] = '\0';
    assert_refused(m, "header byte 56 is '?': want nothing after the '}'");
}

static image raw(const char *bytes, size_t size)
{
    image m = {{0}, 0};
    append(&m, bytes, size);
    return m;
}

static void refuses_what_is_no_npy_file(void **state)
{
    (void)state;
    assert_refused(raw("", 0), "file is empty");
    assert_refused(raw("P5 3 3\n", 7), "not a .npy file");
    assert_refused(raw("\x93NUMPX\1\0", 8), "not a .npy file");
    assert_refused(raw("PK\3\4....", 8),
                   "not a .npy file but a zip archive: save single arrays with numpy.save");
    assert_refused(raw("\x93NUM", 4), "file is truncated: 4 bytes, no header");
    assert_refused(raw("\x93NUMPY\1\0\x76", 9), "file is truncated: 9 bytes, no header");
    assert_refused(raw("\x93NUMPY\2\0\x76\0", 10), "file is truncated: 10 bytes, no header");
    assert_refused(raw("\x93NUMPY\1\0\x76\0{'de", 14),
                   "file is truncated: header_len is 118, 4 bytes present");
    static const char want[] = "is not supported (want 1.0, 2.0 or 3.0)";
    static const uint8_t versions[][2] = {{0, 0}, {4, 0}, {1, 1}, {255, 255}};
    for (int i = 0; i < 4; i++) {
        image m = make(1, BEGIN "(2,)}", 8);
        char message[128];
        memcpy(m.bytes + 6, versions[i], 2);
        snprintf(message, sizeof message, "format version %d.%d %s", versions[i][0], versions[i][1],
                 want);
        assert_refused(m, message);
    }
    assert_refused(raw("\x93NUMPY\2\0\0\0\1\0{}", 14),
                   "header_len 65536 is too large (at most 65535)");
    assert_refused(raw("\x93NUMPY\3\0\xff\xff\xff\xff{}", 14),
                   "header_len 4294967295 is too large (at most 65535)");
    assert_refused(make(1, BEGIN "(1000,)}", 12),
                   "file is truncated: header promises 4000 data bytes, 12 present");
    assert_refused(make(1, BEGIN "(2,)}", 9),
                   "bytes after the data: header promises 8 data bytes, at least 9 present");
    assert_refused(make(1, BEGIN "(0,)}", 1),
                   "bytes after the data: header promises 0 data bytes, at least 1 present");
}

static void refuses_every_prefix(void **state)
{
    (void)state;
    const float data[] = {1, 2, 3, 4, 5, 6};
    for (int version = 1; version <= 3; version++) {
        image m = make_padded(version, BEGIN "(2, 3), }", 64, data, sizeof data);
        for (size_t n = 0; n < m.size; n++) {
            npy_array a;
            npy_error err = {""};
            uint8_t *copy;
            assert_false(parse_copy(m.bytes, n, 0, &a, &err, &copy));
            free(copy);
            assert_true(strstr(err.text, n ? "truncated" : "empty"));
            put_file("x.npy", m.bytes, n);
            assert_false(npy_open("x.npy", &a, &err));
            assert_true(strstr(err.text, n ? "truncated" : "empty"));
        }
    }
}

/* Every byte of the header replaced by every value: refused, or an array that is all there. */
static void survives_every_changed_byte(void **state)
{
    (void)state;
    const float data[] = {1, 2, 3, 4, 5, 6};
    image m = make_padded(1, BEGIN "(2, 3), }", 64, data, sizeof data);
    for (size_t at = 0; at < m.size - sizeof data; at++)
        for (int value = 0; value < 256; value++) {
            uint8_t old = m.bytes[at];
            npy_array a;
            npy_error err = {""};
            uint8_t *copy;
            m.bytes[at] = (uint8_t)value;
            if (parse_copy(m.bytes, m.size, 0, &a, &err, &copy))
                assert_memory_equal(a.data, copy + m.size - a.bytes, a.bytes);
            else
                assert_true(err.text[0] != '\0' && !strchr(err.text, '\n'));
            npy_close(&a);
            free(copy);
            m.bytes[at] = old;
        }
}

static void maps_a_sparse_file_of_four_gigabytes(void **state)
{
    (void)state;
    if (sizeof(size_t) < 8)
        skip();
    image m = make_padded(1, "{'descr': '<f4', " ORDER "'shape': (32768, 32768), }", 64, "", 0);
    put_file("x.npy", m.bytes, m.size);
    off_t end = (off_t)m.size + ((off_t)1 << 32);
    float last = 42.0f;
    int fd = open("x.npy", O_WRONLY);
    assert_true(fd >= 0 && pwrite(fd, &last, sizeof last, end - (off_t)sizeof last) == sizeof last);
    close(fd);
    npy_array a;
    npy_error err = {""};
    if (!npy_open("x.npy", &a, &err))
        fail_msg("%s", err.text);
    assert_int_equal(a.count, 1 << 30);
    assert_null(a.heap);
    assert_true(((const float *)a.data)[0] == 0.0f);
    assert_true(((const float *)a.data)[a.count - 1] == 42.0f);
    npy_close(&a);
    assert_int_equal(truncate("x.npy", end - 4), 0);
    assert_false(npy_open("x.npy", &a, &err));
    assert_string_equal(err.text, "x.npy: file is truncated: header promises 4294967296 data bytes,"
                                  " 4294967292 present");
}

static void copies_data_that_a_file_misaligns(void **state)
{
    (void)state;
    for (size_t pad = 0; pad < 8; pad++) {
        char header[128];
        snprintf(header, sizeof header, "{'descr': '<f8', " ORDER "'shape': (2,)}%*s", (int)pad,
                 "");
        image m = make(1, header, 16);
        put_file("x.npy", m.bytes, m.size);
        npy_array a;
        assert_true(npy_open("x.npy", &a, NULL));
        assert_true((a.heap != NULL) == ((m.size - 16) % 8 != 0));
        assert_int_equal((uintptr_t)a.data % 8, 0);
        assert_memory_equal(a.data, m.bytes + m.size - 16, 16);
        npy_close(&a);
    }
}

/* ---- standard input and other streams ---- */

/* Makes standard input a pipe that a child fills with the image and then `zeros` zero bytes. */
static int feed(image m, size_t zeros, pid_t *child)
{
    int ends[2], saved = dup(STDIN_FILENO);
    assert_int_equal(pipe(ends), 0);
    *child = fork();
    if (*child == 0) {
        static const uint8_t nothing[4096];
        signal(SIGPIPE, SIG_DFL);
        close(ends[0]);
        bool ok = write(ends[1], m.bytes, m.size) == (ssize_t)m.size;
        for (; ok && zeros > 0;) {
            ssize_t n = write(ends[1], nothing, zeros < 4096 ? zeros : 4096);
            ok = n > 0;
            zeros -= ok ? (size_t)n : 0;
        }
        _exit(ok ? 0 : 1);
    }
    close(ends[1]);
    dup2(ends[0], STDIN_FILENO);
    close(ends[0]);
    return saved;
}

static bool open_fed(image m, size_t zeros, npy_array *a, npy_error *err)
{
    pid_t child;
    int saved = feed(m, zeros, &child);
    bool ok = npy_open("-", a, err);
    dup2(saved, STDIN_FILENO);
    close(saved);
    waitpid(child, NULL, 0);
    return ok;
}

static void reads_a_pipe(void **state)
{
    (void)state;
    npy_array a;
    npy_error err;
    assert_true(open_fed(make(1, BEGIN "(2, 3)}", 24), 0, &a, &err));
    assert_int_equal(a.count, 6);
    assert_memory_equal(a.data, "\0\1\2\3\4\5\6\7", 8);
    npy_close(&a);
    assert_true(open_fed(make(1, BEGIN "(0, 3)}", 0), 0, &a, &err));
    assert_int_equal(a.count, 0);
    npy_close(&a);
    assert_false(open_fed(make(1, BEGIN "(2, 3)}", 23), 0, &a, &err));
    assert_string_equal(err.text, "standard input: file is truncated: "
                                  "header promises 24 data bytes, 23 present");
    assert_false(open_fed(make(1, "", 0), 0, &a, &err));
    assert_false(open_fed(raw("", 0), 0, &a, &err));
    assert_string_equal(err.text, "standard input: file is empty");
}

/* Sizes around the first read, which takes 12 + 65535 bytes. */
static void reads_pipes_of_every_size_that_matters(void **state)
{
    (void)state;
    npy_error err;
    static const int around[] = {65547 - 72, 65547 * 3};
    for (int i = 0; i < 2; i++)
        for (int n = around[i] - 12; n <= around[i] + 12; n++) {
            char header[128];
            snprintf(header, sizeof header, "{'descr': '|u1', " ORDER "'shape': (%d,)}", n);
            image m = make(1, header, 5);
            size_t zeros = (size_t)n - 5;
            npy_array a;
            if (!open_fed(m, zeros, &a, &err))
                fail_msg("%d: %s", n, err.text);
            assert_int_equal(((const uint8_t *)a.data)[4], 4);
            assert_int_equal(((const uint8_t *)a.data)[n - 1], 0);
            npy_close(&a);
            assert_false(open_fed(m, zeros - 1, &a, &err));
            assert_non_null(strstr(err.text, "truncated"));
            assert_false(open_fed(m, zeros + 1, &a, &err));
            assert_non_null(strstr(err.text, "bytes after the data"));
            assert_false(open_fed(m, zeros + 5000000, &a, &err)); /* not read to the end */
        }
}

static void reads_standard_input_that_is_a_file(void **state)
{
    (void)state;
    image m = make_padded(1, BEGIN "(2, 3), }", 64, "................????????", 24);
    int saved = dup(STDIN_FILENO);
    for (int skip_first = 0; skip_first < 2; skip_first++) {
        image whole = {{0}, 0};
        append(&whole, "line\n", skip_first ? 5 : 0);
        append(&whole, m.bytes, m.size);
        put_file("x.npy", whole.bytes, whole.size);
        int fd = open("x.npy", O_RDONLY);
        lseek(fd, skip_first ? 5 : 0, SEEK_SET);
        dup2(fd, STDIN_FILENO);
        close(fd);
        npy_array a;
        npy_error err = {""};
        bool ok = npy_open("-", &a, &err);
        dup2(saved, STDIN_FILENO);
        if (!ok)
            fail_msg("%s", err.text);
        assert_true((a.map != NULL) == !skip_first);
        assert_memory_equal(a.data, m.bytes + m.size - 24, 24);
        npy_close(&a);
    }
    close(saved);
}

static void refuses_what_cannot_be_opened(void **state)
{
    (void)state;
    npy_array a;
    npy_error err;
    assert_false(npy_open("none.npy", &a, &err));
    assert_string_equal(err.text, "none.npy: cannot open: No such file or directory");
    assert_false(npy_open(".", &a, &err));
    assert_string_equal(err.text, ".: is a directory");
    assert_false(npy_open("/dev/null", &a, &err));
    assert_string_equal(err.text, "/dev/null: file is empty");
    assert_false(npy_open("/dev/zero", &a, &err));
    assert_string_equal(err.text, "/dev/zero: not a .npy file");
    assert_false(npy_open("a\nb\033[31m", &a, &err));
    assert_string_equal(err.text, "a?b?[31m: cannot open: No such file or directory");
    npy_close(&a);

    char longer[1000];
    memset(longer, '/', sizeof longer);
    strcpy(longer + 900, "/none.npy");
    assert_false(npy_open(longer, &a, &err));
    assert_memory_equal(err.text, "...///", 6);
    assert_non_null(strstr(err.text, "/none.npy: cannot open: No such file or directory"));
}

static void expects_dtype_and_dimensions(void **state)
{
    (void)state;
    image m = make(1, BEGIN "(3, 4)}", 48);
    npy_array a;
    npy_error err = {""};
    assert_true(npy_parse(m.bytes, m.size, &a, &err));
    assert_true(npy_expect(&a, "labels.npy", NPY_F4, 2, &err));
    assert_true(npy_expect(&a, "labels.npy", ALL_DTYPES, -1, &err));
    assert_false(npy_expect(&a, "labels.npy", ALL_DTYPES, 1, &err));
    assert_string_equal(err.text, "labels.npy: shape (3, 4): want 1 dimension");
    assert_false(npy_expect(&a, "labels.npy", ALL_DTYPES, 0, &err));
    assert_string_equal(err.text, "labels.npy: shape (3, 4): want 0 dimensions");
    assert_false(npy_expect(&a, "labels.npy", NPY_I4 | NPY_I8 | NPY_U1, 1, &err));
    assert_string_equal(err.text,
                        "labels.npy: dtype '<f4' is not supported (want <i4, <i8 or |u1)");
    assert_false(npy_expect(&a, "labels.npy", NPY_F8, 2, &err));
    assert_string_equal(err.text, "labels.npy: dtype '<f4' is not supported (want <f8)");
    npy_close(&a);

    m = make(1, BEGIN "(3,)}", 12);
    assert_true(npy_parse(m.bytes, m.size, &a, &err));
    assert_false(npy_expect(&a, "logits.npy", NPY_F4 | NPY_F8, 2, &err));
    assert_string_equal(err.text, "logits.npy: shape (3,): want 2 dimensions");
    npy_close(&a);
    m = make(1, BEGIN "()}", 4);
    assert_true(npy_parse(m.bytes, m.size, &a, &err));
    assert_false(npy_expect(&a, "logits.npy", NPY_F4 | NPY_F8, 2, &err));
    assert_string_equal(err.text, "logits.npy: shape (): want 2 dimensions");
    npy_close(&a);
}

/* ---- writing ---- */

typedef enum { MAPPED, STREAMED, STREAMED_BYTEWISE, HOWS } how;

static bool write_data(npy_writer *w, how h, const void *data, size_t bytes, npy_error *err)
{
    if (h == STREAMED)
        return npy_write(w, data, bytes, err);
    bool ok = true;
    for (size_t i = 0; h == STREAMED_BYTEWISE && i < bytes; i++)
        ok = ok && npy_write(w, (const uint8_t *)data + i, 1, err);
    if (h != MAPPED)
        return ok;
    uint8_t *to = npy_map(w, err);
    if (!to)
        return false;
    assert_int_equal((uintptr_t)to % 16, 0);
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(to[i], 0);
    memcpy(to, data, bytes);
    assert_ptr_equal(npy_map(w, err), to);
    return true;
}

static void write_file(const char *path, npy_dtype dtype, int ndim, const int64_t *shape, how h,
                       const void *data, size_t bytes)
{
    npy_writer w;
    npy_error err = {""};
    if (!npy_create(path, dtype, ndim, shape, &w, &err))
        fail_msg("%s", err.text);
    assert_int_equal(w.bytes, bytes);
    if (!write_data(&w, h, data, bytes, &err))
        fail_msg("%s", err.text);
    if (!npy_commit(&w, &err))
        fail_msg("%s", err.text);
    npy_abandon(&w);
}

static void round_trips(void **state)
{
    (void)state;
    static const npy_dtype dtypes[] = {NPY_F4, NPY_F8, NPY_I4, NPY_I8, NPY_U1};
    static const struct {
        int ndim;
        int64_t shape[2];
    } shapes[] = {{0, {1, 1}}, {1, {5, 1}}, {1, {0, 1}}, {2, {5, 7}},
                  {2, {0, 3}}, {2, {3, 0}}, {2, {1, 999}}};
    uint8_t data[8 * 999];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 37 + i / 256);
    for (int t = 0; t < 5; t++)
        for (int s = 0; s < 7; s++)
            for (how h = MAPPED; h < HOWS; h++) {
                int64_t count = shapes[s].shape[0] * shapes[s].shape[1];
                size_t bytes = (size_t)count * npy_item_size(dtypes[t]);
                write_file("x.npy", dtypes[t], shapes[s].ndim, shapes[s].shape, h, data, bytes);
                npy_array a;
                npy_error err = {""};
                if (!npy_open("x.npy", &a, &err))
                    fail_msg("%s", err.text);
                assert_true(npy_expect(&a, "x.npy", dtypes[t], shapes[s].ndim, &err));
                assert_memory_equal(a.shape, shapes[s].shape, sizeof a.shape);
                assert_int_equal(a.bytes, bytes);
                assert_memory_equal(a.data, data, bytes);
                npy_close(&a);
                assert_int_equal(count_files(NULL), 1);
            }
}

static void writes_the_bytes_of_numpy(void **state)
{
    (void)state;
    const float f4[] = {0, 1, 2, 3, 4, 5};
    uint8_t got[1024];
    for (how h = MAPPED; h < HOWS; h++) {
        write_file("x.npy", NPY_F4, 2, (const int64_t[]){2, 3}, h, f4, sizeof f4);
        image m = make_padded(1, "{'descr': '<f4', " ORDER "'shape': (2, 3), }", 128, f4, 24);
        assert_int_equal(get_file("x.npy", got, sizeof got), 152);
        assert_memory_equal(got, m.bytes, 152);
        write_file("x.npy", NPY_U1, 1, (const int64_t[]){24}, h, f4, sizeof f4);
        m = make_padded(1, "{'descr': '|u1', " ORDER "'shape': (24,), }", 128, f4, 24);
        assert_int_equal(get_file("x.npy", got, sizeof got), 152);
        assert_memory_equal(got, m.bytes, 152);
        write_file("x.npy", NPY_I4, 0, NULL, h, f4, 4);
        m = make_padded(1, "{'descr': '<i4', " ORDER "'shape': (), }", 128, f4, 4);
        assert_int_equal(get_file("x.npy", got, sizeof got), 132);
        assert_memory_equal(got, m.bytes, 132);
    }
}

static void refuses_promises(void **state)
{
    (void)state;
    npy_writer w;
    npy_error err;
    assert_false(npy_create("y.npy", (npy_dtype)3, 1, (const int64_t[]){3}, &w, &err));
    assert_string_equal(err.text, "y.npy: dtype 3: want one of the NPY_ constants");
    assert_false(npy_create("y.npy", NPY_F4, 3, (const int64_t[]){3, 3, 3}, &w, &err));
    assert_string_equal(err.text, "y.npy: 3 dimensions: want 0 to 2");
    assert_false(npy_create("y.npy", NPY_F4, -1, (const int64_t[]){3}, &w, &err));
    assert_string_equal(err.text, "y.npy: -1 dimensions: want 0 to 2");
    assert_false(npy_create("y.npy", NPY_F4, 2, (const int64_t[]){3, -1}, &w, &err));
    assert_string_equal(err.text, "y.npy: shape (3, -1): a dimension is negative");
    assert_false(npy_create("y.npy", NPY_F4, 2, (const int64_t[]){INT64_MAX, INT64_MAX}, &w, &err));
    assert_string_equal(err.text,
                        "y.npy: shape (9223372036854775807, 9223372036854775807): too large");
    assert_false(npy_create("", NPY_F4, 0, NULL, &w, &err));
    assert_string_equal(err.text, "the name of the output file is empty");
    assert_false(npy_create(".", NPY_F4, 0, NULL, &w, &err));
    assert_string_equal(err.text, ".: is a directory");
    assert_false(npy_create("none/y.npy", NPY_F4, 0, NULL, &w, &err));
    assert_string_equal(err.text, "none/y.npy: cannot create a temporary file beside it: "
                                  "No such file or directory");
    assert_false(npy_create("y.npy/", NPY_F4, 0, NULL, &w, &err));
    char longer[300];
    memset(longer, 'n', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_false(npy_create(longer, NPY_F4, 0, NULL, &w, &err)); /* now, not at the rename */
    assert_non_null(strstr(err.text, "File name too long"));
    put_file("x.npy", "old", 3);
    assert_false(npy_create("x.npy/y.npy", NPY_F4, 0, NULL, &w, &err));
    assert_false(npy_create("none/y.npy", NPY_F4, 0, NULL, &w, NULL));
    npy_abandon(&w);
    assert_int_equal(count_files(NULL), 1);
}

static void takes_as_much_as_promised(void **state)
{
    (void)state;
    npy_writer w;
    npy_error err;
    assert_true(npy_create("y.npy", NPY_U1, 1, (const int64_t[]){5}, &w, &err));
    assert_true(npy_write(&w, "abc", 3, &err));
    assert_false(npy_write(&w, "abc", 3, &err));
    assert_string_equal(err.text, "y.npy: 3 data bytes after 3: header promises 5");
    assert_false(npy_write(&w, "abc", SIZE_MAX, &err));
    assert_null(npy_map(&w, &err));
    assert_string_equal(err.text, "y.npy: npy_map: the writer is not open, or has been written to");
    assert_false(npy_commit(&w, &err));
    assert_string_equal(err.text, "y.npy: header promises 5 data bytes, 3 written");
    assert_int_equal(count_files(NULL), 0);

    assert_false(npy_commit(&w, &err));
    assert_string_equal(err.text, "npy_commit: the writer is not open");
    assert_false(npy_write(&w, "abc", 3, &err));
    assert_null(npy_map(&w, &err));

    assert_true(npy_create("y.npy", NPY_U1, 1, (const int64_t[]){5}, &w, &err));
    assert_non_null(npy_map(&w, &err));
    assert_false(npy_write(&w, "abcde", 5, &err));
    assert_string_equal(err.text, "y.npy: npy_write: the writer is not open, or is mapped");
    assert_true(npy_commit(&w, &err));
    assert_int_equal(count_files(NULL), 1);
}

static void keeps_the_target_until_commit(void **state)
{
    (void)state;
    uint8_t got[1024];
    put_file("x.npy", "precious", 8);
    for (how h = MAPPED; h < HOWS; h++) {
        npy_writer w;
        npy_error err;
        assert_true(npy_create("x.npy", NPY_U1, 1, (const int64_t[]){5}, &w, &err));
        assert_true(write_data(&w, h, "abcde", 5, &err));
        assert_int_equal(get_file("x.npy", got, sizeof got), 8);
        assert_int_equal(count_files(NULL), 2);
        npy_abandon(&w);
        npy_abandon(&w);
        assert_int_equal(get_file("x.npy", got, sizeof got), 8);
        assert_memory_equal(got, "precious", 8);
        assert_int_equal(count_files(NULL), 1);
    }
}

/* An array can be replaced while it is read, as a tool does that works in place. */
static void replaces_a_file_that_is_open(void **state)
{
    (void)state;
    write_file("x.npy", NPY_U1, 1, (const int64_t[]){5}, STREAMED, "abcde", 5);
    npy_array a;
    npy_error err;
    assert_true(npy_open("x.npy", &a, &err));
    write_file("x.npy", NPY_U1, 1, (const int64_t[]){2}, MAPPED, "xy", 2);
    assert_memory_equal(a.data, "abcde", 5);
    npy_close(&a);
    assert_true(npy_open("x.npy", &a, &err));
    assert_int_equal(a.count, 2);
    assert_memory_equal(a.data, "xy", 2);
    npy_close(&a);
}

static void two_writers_do_not_meet(void **state)
{
    (void)state;
    npy_writer w[2];
    npy_error err;
    for (int i = 0; i < 2; i++) {
        assert_true(npy_create("x.npy", NPY_U1, 1, (const int64_t[]){1 + i}, &w[i], &err));
        assert_true(npy_write(&w[i], "abc", (size_t)(1 + i), &err));
    }
    npy_array a;
    for (int i = 1; i >= 0; i--) {
        assert_true(npy_commit(&w[i], &err));
        assert_true(npy_open("x.npy", &a, &err));
        assert_int_equal(a.count, 1 + i);
        npy_close(&a);
    }
    assert_int_equal(count_files(NULL), 1);
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode;
}

static void follows_links(void **state)
{
    (void)state;
    assert_int_equal(mkdir("deep", 0777), 0);
    put_file("deep/real.npy", "old", 3);
    assert_int_equal(symlink("real.npy", "deep/near.npy"), 0);
    assert_int_equal(symlink("deep/near.npy", "far.npy"), 0);
    assert_int_equal(symlink("deep/new.npy", "dangling.npy"), 0);
    char absolute[128];
    snprintf(absolute, sizeof absolute, "%s/deep/absolute.npy", folder);
    assert_int_equal(symlink(absolute, "absolute.npy"), 0);
    assert_int_equal(symlink("circle.npy", "circle.npy"), 0);

    static const char *const names[][2] = {{"far.npy", "deep/real.npy"},
                                           {"dangling.npy", "deep/new.npy"},
                                           {"absolute.npy", "deep/absolute.npy"}};
    for (int i = 0; i < 3; i++) {
        write_file(names[i][0], NPY_U1, 1, (const int64_t[]){5}, MAPPED, "abcde", 5);
        assert_true(S_ISLNK(mode_of(names[i][0])));
        assert_true(S_ISREG(mode_of(names[i][1])));
        npy_array a;
        assert_true(npy_open(names[i][1], &a, NULL));
        assert_int_equal(a.count, 5);
        npy_close(&a);
        assert_int_equal(remove(names[i][1]), 0);
    }
    assert_true(S_ISLNK(mode_of("deep/near.npy")));
    npy_writer w;
    npy_error err;
    assert_false(npy_create("circle.npy", NPY_F4, 0, NULL, &w, &err));
    assert_int_equal(remove("deep/near.npy"), 0);
    assert_int_equal(rmdir("deep"), 0); /* no temporary is left in it */
}

static void keeps_permissions(void **state)
{
    (void)state;
    mode_t mask = umask(027);
    write_file("x.npy", NPY_U1, 0, NULL, MAPPED, "a", 1);
    assert_int_equal(mode_of("x.npy") & 07777, 0640);
    assert_int_equal(chmod("x.npy", 0604), 0);
    write_file("x.npy", NPY_U1, 0, NULL, STREAMED, "a", 1);
    assert_int_equal(mode_of("x.npy") & 07777, 0604);
    umask(mask);
    if (geteuid() == 0)
        return; /* nothing is write-protected */
    assert_int_equal(chmod("x.npy", 0444), 0);
    npy_writer w;
    npy_error err;
    assert_false(npy_create("x.npy", NPY_U1, 0, NULL, &w, &err));
    assert_string_equal(err.text, "x.npy: cannot write: Permission denied");
}

static void reports_a_full_device(void **state)
{
    (void)state;
    npy_writer w;
    npy_error err;
    assert_false(npy_create("/dev/full", NPY_U1, 1, (const int64_t[]){5}, &w, &err));
    assert_string_equal(err.text, "/dev/full: cannot write: No space left on device");
    assert_true(S_ISCHR(mode_of("/dev/full"))); /* not replaced */

    int saved = dup(STDOUT_FILENO), full = open("/dev/full", O_WRONLY);
    fflush(stdout);
    dup2(full, STDOUT_FILENO);
    bool ok = npy_create("-", NPY_U1, 1, (const int64_t[]){5}, &w, &err);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    close(full);
    assert_false(ok);
    assert_string_equal(err.text, "standard output: cannot write: No space left on device");

    write_file("/dev/null", NPY_U1, 1, (const int64_t[]){5}, MAPPED, "abcde", 5);
    write_file("/dev/null", NPY_U1, 1, (const int64_t[]){5}, STREAMED, "abcde", 5);
    assert_true(S_ISCHR(mode_of("/dev/null")));
}

/* The limit stands in for a full disk: it takes the same way through the file system. */
static void reports_a_full_disk(void **state)
{
    (void)state;
    struct rlimit old, small;
    npy_writer w = {0};
    npy_error err = {""};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    put_file("x.npy", "precious", 8);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 65536;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bool created = npy_create("x.npy", NPY_U1, 1, (const int64_t[]){70000}, &w, &err);
    bool fits = npy_create("y.npy", NPY_U1, 1, (const int64_t[]){65536 - 128}, &w, NULL);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    assert_false(created);
    assert_string_equal(err.text, "x.npy: cannot reserve 70128 bytes: File too large");
    assert_true(fits);
    assert_non_null(npy_map(&w, &err));
    assert_true(npy_commit(&w, &err));
    assert_int_equal(count_files(NULL), 2);
}

/* What happens when the disk fills although the space was reserved, or could not be. */
static void reports_a_disk_that_fills_later(void **state)
{
    (void)state;
    npy_writer w;
    npy_error err;
    for (int mapped = 0; mapped < 2; mapped++) {
        assert_true(npy_create("x.npy", NPY_U1, 1, (const int64_t[]){5}, &w, &err));
        w.reserved = false; /* as on a file system without posix_fallocate */
        if (mapped) {
            assert_non_null(npy_map(&w, &err));
            assert_null(w.map);
        }
        int full = open("/dev/full", O_WRONLY);
        dup2(full, w.fd);
        close(full);
        if (mapped)
            assert_false(npy_commit(&w, &err));
        else
            assert_false(npy_write(&w, "abcde", 5, &err));
        assert_string_equal(err.text, "x.npy: cannot write: No space left on device");
        npy_abandon(&w);
        assert_int_equal(count_files(NULL), 0);
    }
}

static void writes_standard_output(void **state)
{
    (void)state;
    uint8_t got[1024], want[1024];
    for (how h = MAPPED; h < HOWS; h++) {
        int ends[2], saved = dup(STDOUT_FILENO);
        assert_int_equal(pipe(ends), 0);
        fflush(stdout);
        dup2(ends[1], STDOUT_FILENO);
        npy_writer w;
        npy_error err = {""};
        bool ok = npy_create("-", NPY_U1, 1, (const int64_t[]){5}, &w, &err) &&
                  write_data(&w, h, "abcde", 5, &err) && npy_commit(&w, &err);
        bool open_still = fcntl(STDOUT_FILENO, F_GETFD) != -1;
        dup2(saved, STDOUT_FILENO);
        close(saved);
        close(ends[1]);
        ssize_t n = read(ends[0], got, sizeof got);
        close(ends[0]);
        assert_true(ok && open_still);
        write_file("x.npy", NPY_U1, 1, (const int64_t[]){5}, STREAMED, "abcde", 5);
        assert_int_equal(n, get_file("x.npy", want, sizeof want));
        assert_memory_equal(got, want, (size_t)n);
    }
}

#define CASE(f) cmocka_unit_test_teardown(f, clean_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(reads_what_numpy_wrote),
        CASE(reads_variants_of_the_header),
        CASE(reads_empty_arrays),
        CASE(fortran_order_only_where_it_is_the_same),
        CASE(refuses_dtypes),
        CASE(refuses_shapes),
        CASE(refuses_bad_headers),
        CASE(refuses_what_is_no_npy_file),
        CASE(refuses_every_prefix),
        CASE(survives_every_changed_byte),
        CASE(maps_a_sparse_file_of_four_gigabytes),
        CASE(copies_data_that_a_file_misaligns),
        CASE(reads_a_pipe),
        CASE(reads_pipes_of_every_size_that_matters),
        CASE(reads_standard_input_that_is_a_file),
        CASE(refuses_what_cannot_be_opened),
        CASE(expects_dtype_and_dimensions),
        CASE(round_trips),
        CASE(writes_the_bytes_of_numpy),
        CASE(refuses_promises),
        CASE(takes_as_much_as_promised),
        CASE(keeps_the_target_until_commit),
        CASE(replaces_a_file_that_is_open),
        CASE(two_writers_do_not_meet),
        CASE(follows_links),
        CASE(keeps_permissions),
        CASE(reports_a_full_device),
        CASE(reports_a_full_disk),
        CASE(reports_a_disk_that_fills_later),
        CASE(writes_standard_output),
    };
    return cmocka_run_group_tests_name("npy", tests, enter_folder, leave_folder);
}
