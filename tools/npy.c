/* SPDX-License-Identifier: MIT */
/* The layout of a .npy file (numpy/lib/_format_impl.py): "\x93NUMPY", major, minor, the header's
 * length (2 bytes, from version 2.0 on 4), the header, the data.  The header is the literal of a
 * Python dict with exactly the keys descr, fortran_order and shape, padded with spaces. */
#include "npy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAGIC_BYTES = 6,
    PREAMBLE_MAX = 12,   /* magic, version, length of the header from version 2.0 on */
    HEADER_MAX = 65535,  /* all that version 1.0 can hold; a plain dtype never needs more */
    WRITTEN_HEADER = 128 /* preamble included; any dtype and two dimensions of 19 digits fit */
};

/* Sizes stay below this, so that adding a preamble and a header cannot overflow. */
static const int64_t bytes_max = PTRDIFF_MAX - PREAMBLE_MAX - HEADER_MAX;

static const uint8_t magic[MAGIC_BYTES] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

static const struct {
    npy_dtype dtype;
    char name[4];
    size_t size;
} dtypes[] = {
    {NPY_F2, "<f2", 2}, {NPY_F4, "<f4", 4}, {NPY_F8, "<f8", 8},
    {NPY_I4, "<i4", 4}, {NPY_I8, "<i8", 8}, {NPY_U1, "|u1", 1},
};

enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

/* ---- messages ---- */

/* The end of a path says more than its beginning. */
static void append_name(char *text, size_t room, const char *name)
{
    enum { SHOWN = 200 };
    size_t length = strlen(name);
    if (length > SHOWN)
        snprintf(text, room, "...%s: ", name + length - SHOWN);
    else
        snprintf(text, room, "%s: ", name);
}

/* Returns false, so that a failing check is one statement. */
static bool fail(npy_error *err, const char *name, const char *format, ...)
{
    if (!err)
        return false;
    err->text[0] = '\0';
    if (name)
        append_name(err->text, sizeof err->text, name);
    size_t used = strlen(err->text);
    va_list args;
    va_start(args, format);
    vsnprintf(err->text + used, sizeof err->text - used, format, args);
    va_end(args);
    for (char *p = err->text; *p; p++) /* a path may hold a newline or an escape sequence */
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    return false;
}

typedef struct {
    char text[64];
} shown;

/* Text of a file, fit for a message: printable ASCII, cut with dots. */
static shown show(const uint8_t *bytes, size_t size)
{
    shown s;
    size_t room = sizeof s.text - sizeof "...";
    size_t n = size < room ? size : room;
    for (size_t i = 0; i < n; i++)
        s.text[i] = bytes[i] >= ' ' && bytes[i] < 0x7f ? (char)bytes[i] : '?';
    memcpy(s.text + n, n < size ? "..." : "", n < size ? sizeof "..." : 1);
    return s;
}

static shown show_shape(int ndim, const int64_t *shape)
{
    shown s;
    if (ndim == 0)
        snprintf(s.text, sizeof s.text, "()");
    else if (ndim == 1)
        snprintf(s.text, sizeof s.text, "(%" PRId64 ",)", shape[0]);
    else
        snprintf(s.text, sizeof s.text, "(%" PRId64 ", %" PRId64 ")", shape[0], shape[1]);
    return s;
}

/* "<f2, <f4 or <f8" */
static shown show_dtypes(unsigned mask)
{
    shown s = {"nothing"};
    size_t used = 0;
    mask &= NPY_F2 | NPY_F4 | NPY_F8 | NPY_I4 | NPY_I8 | NPY_U1;
    for (int i = 0; i < DTYPES; i++) {
        if (!(mask & dtypes[i].dtype))
            continue;
        mask &= ~(unsigned)dtypes[i].dtype;
        const char *joint = used == 0 ? "" : mask ? ", " : " or ";
        int n = snprintf(s.text + used, sizeof s.text - used, "%s%s", joint, dtypes[i].name);
        used += (size_t)n;
    }
    return s;
}

/* ---- the header's Python literal ---- */

typedef struct {
    const uint8_t *at, *end;
} span;

enum { SEEN_DESCR = 1, SEEN_ORDER = 2, SEEN_SHAPE = 4, SEEN_ALL = 7 };

typedef struct {
    const uint8_t *begin, *at, *end;
    const char *name;
    npy_error *err;

    unsigned seen;
    span descr, shape; /* as written, for the messages */
    bool fortran, negative, too_large;
    size_t ndim;
    int64_t dims[NPY_MAX_DIMS];
} dict;

static bool unexpected(const dict *d, const char *want)
{
    size_t at = (size_t)(d->at - d->begin);
    if (d->at == d->end)
        return fail(d->err, d->name, "header ends at byte %zu: want %s", at, want);
    return fail(d->err, d->name, "header byte %zu is '%s': want %s", at, show(d->at, 1).text,
                want);
}

static void skip_space(dict *d)
{
    while (d->at < d->end && memchr(" \t\n\f\r", *d->at, 5))
        d->at++;
}

static bool accept(dict *d, char c)
{
    skip_space(d);
    if (d->at == d->end || *d->at != (uint8_t)c)
        return false;
    d->at++;
    return true;
}

/* No escapes: nothing that is read here needs them. */
static bool parse_string(dict *d, span *out, const char *want)
{
    skip_space(d);
    if (d->at == d->end || (*d->at != '\'' && *d->at != '"'))
        return unexpected(d, want);
    uint8_t quote = *d->at++;
    out->at = d->at;
    while (d->at < d->end && *d->at != quote) {
        if (*d->at == '\\' || *d->at < ' ')
            return unexpected(d, "a plain character");
        d->at++;
    }
    if (d->at == d->end)
        return unexpected(d, "the closing quote");
    out->end = d->at++;
    return true;
}

static bool equals(span s, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(s.end - s.at) == n && memcmp(s.at, text, n) == 0;
}

static bool is_digit(const dict *d)
{
    return d->at < d->end && *d->at >= '0' && *d->at <= '9';
}

static bool is_word(const dict *d)
{
    return d->at < d->end && (is_digit(d) || *d->at == '_' || *d->at >= 0x80 ||
                              (*d->at >= 'a' && *d->at <= 'z') || (*d->at >= 'A' && *d->at <= 'Z'));
}

static bool parse_order(dict *d)
{
    skip_space(d);
    span s = {d->at, d->at};
    while (is_word(d))
        s.end = ++d->at;
    d->fortran = equals(s, "True");
    if (d->fortran || equals(s, "False"))
        return true;
    d->at = s.at;
    return unexpected(d, "True or False for fortran_order");
}

/* What is out of range is noted, not refused at once: the message shall show the whole shape. */
static bool parse_dimension(dict *d)
{
    d->negative |= accept(d, '-');
    if (!is_digit(d))
        return unexpected(d, "a dimension");
    bool leading_zero = *d->at == '0';
    const uint8_t *first = d->at;
    int64_t value = 0;
    for (; is_digit(d); d->at++) {
        int digit = *d->at - '0';
        if (value > (INT64_MAX - digit) / 10)
            d->too_large = true;
        else
            value = 10 * value + digit;
    }
    if (leading_zero && d->at - first > 1) { /* Python refuses these */
        d->at = first;
        return unexpected(d, "a dimension without leading zeros");
    }
    if (d->at < d->end && *d->at == 'L') /* Python 2 wrote long integers so */
        d->at++;
    if (d->ndim < NPY_MAX_DIMS)
        d->dims[d->ndim] = value;
    d->ndim++;
    return true;
}

static bool parse_shape(dict *d)
{
    skip_space(d);
    d->shape.at = d->at;
    if (!accept(d, '('))
        return unexpected(d, "a tuple for shape");
    bool comma = true;
    while (!accept(d, ')')) {
        if (!comma)
            return unexpected(d, "',' or ')' in shape");
        if (!parse_dimension(d))
            return false;
        comma = accept(d, ',');
        if (d->ndim == 1 && !comma)
            return unexpected(d, "',' in shape"); /* (3) is a number, (3,) is a tuple */
    }
    d->shape.end = d->at;
    return true;
}

static bool parse_descr(dict *d)
{
    skip_space(d);
    if (d->at < d->end && (*d->at == '[' || *d->at == '('))
        return fail(d->err, d->name, "dtype with fields is not supported: save one field");
    return parse_string(d, &d->descr, "a string for descr");
}

static bool parse_entry(dict *d)
{
    span key;
    if (!parse_string(d, &key, "a key in quotes"))
        return false;
    unsigned bit = equals(key, "descr")           ? SEEN_DESCR
                   : equals(key, "fortran_order") ? SEEN_ORDER
                   : equals(key, "shape")         ? SEEN_SHAPE
                                                  : 0;
    shown text = show(key.at, (size_t)(key.end - key.at));
    if (!bit)
        return fail(d->err, d->name, "header has the unknown key '%s'", text.text);
    if (d->seen & bit)
        return fail(d->err, d->name, "header has the key '%s' twice", text.text);
    d->seen |= bit;
    if (!accept(d, ':'))
        return unexpected(d, "':'");
    return bit == SEEN_DESCR ? parse_descr(d) : bit == SEEN_ORDER ? parse_order(d) : parse_shape(d);
}

static bool parse_dict(dict *d)
{
    if (!accept(d, '{'))
        return unexpected(d, "'{'");
    bool comma = true;
    while (!accept(d, '}')) {
        if (!comma)
            return unexpected(d, "',' or '}'");
        if (!parse_entry(d))
            return false;
        comma = accept(d, ',');
    }
    skip_space(d);
    if (d->at < d->end)
        return unexpected(d, "nothing after the '}'");
    if (d->seen == SEEN_ALL)
        return true;
    return fail(d->err, d->name, "header lacks the key '%s'",
                !(d->seen & SEEN_DESCR)   ? "descr"
                : !(d->seen & SEEN_ORDER) ? "fortran_order"
                                          : "shape");
}

/* ---- what the header means ---- */

/* Why a dtype that NumPy can write is refused: a word for the message. */
static const char *dtype_hint(span s)
{
    size_t n = (size_t)(s.end - s.at);
    if (n < 2)
        return "";
    switch (s.at[1]) {
    case 'b': return "bool; ";
    case 'c': return "complex; ";
    case 'O': return "Python objects; ";
    case 'S':
    case 'U': return "text; ";
    case 'M':
    case 'm': return "dates; ";
    case 'V': return "raw bytes, or bfloat16; ";
    default: return s.at[0] == '>' ? "big-endian; " : "";
    }
}

static bool judge_dtype(const dict *d, npy_array *out)
{
    for (int i = 0; i < DTYPES; i++)
        if (equals(d->descr, dtypes[i].name))
            out->dtype = dtypes[i].dtype;
    if (equals(d->descr, "<u1")) /* not NumPy, but other writers: a byte has no byte order */
        out->dtype = NPY_U1;
    if (out->dtype)
        return true;
    return fail(d->err, d->name, "dtype '%s' is not supported (%swant %s)",
                show(d->descr.at, (size_t)(d->descr.end - d->descr.at)).text, dtype_hint(d->descr),
                show_dtypes(~0u).text);
}

/* Sets the number of elements; false if elements of `item` bytes would be too large.  A 0 in the
 * shape does not excuse the others (NumPy cannot load such a shape either). */
static bool count_elements(int ndim, const int64_t *shape, size_t item, int64_t *count)
{
    int64_t limit = bytes_max / (int64_t)item;
    *count = 1;
    bool empty = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] == 0) {
            empty = true;
            continue;
        }
        if (*count > limit / shape[i])
            return false;
        *count *= shape[i];
    }
    if (empty)
        *count = 0;
    return true;
}

static bool judge_shape(const dict *d, npy_array *out)
{
    shown text = show(d->shape.at, (size_t)(d->shape.end - d->shape.at));
    if (d->ndim > NPY_MAX_DIMS)
        return fail(d->err, d->name, "shape %s: want at most %d dimensions", text.text,
                    (int)NPY_MAX_DIMS);
    if (d->negative)
        return fail(d->err, d->name, "shape %s: a dimension is negative", text.text);
    out->ndim = (int)d->ndim;
    for (int i = 0; i < NPY_MAX_DIMS; i++)
        out->shape[i] = i < out->ndim ? d->dims[i] : 1;
    size_t item = npy_item_size(out->dtype);
    if (d->too_large || !count_elements(out->ndim, out->shape, item, &out->count))
        return fail(d->err, d->name, "shape %s: too large", text.text);
    out->bytes = (size_t)out->count * item;
    return true;
}

static bool judge_order(const dict *d, const npy_array *out)
{
    if (!d->fortran || out->shape[0] <= 1 || out->shape[1] <= 1)
        return true; /* the elements stand in the same places in both orders */
    return fail(d->err, d->name, "fortran_order True: save it with numpy.ascontiguousarray");
}

/* ---- the file ---- */

static bool judge_magic(const uint8_t *bytes, size_t size, const char *name, npy_error *err)
{
    if (size == 0)
        return fail(err, name, "file is empty");
    if (memcmp(bytes, magic, size < MAGIC_BYTES ? size : MAGIC_BYTES) != 0) {
        bool zip = size >= 4 && memcmp(bytes, "PK\3\4", 4) == 0;
        return fail(err, name, "not a .npy file%s",
                    zip ? " but a zip archive: save single arrays with numpy.save" : "");
    }
    if (size < MAGIC_BYTES + 2)
        return fail(err, name, "file is truncated: %zu bytes, no header", size);
    if (bytes[6] < 1 || bytes[6] > 3 || bytes[7] != 0)
        return fail(err, name, "format version %d.%d is not supported (want 1.0, 2.0 or 3.0)",
                    bytes[6], bytes[7]);
    return true;
}

/* Finds the header: its offset and its length. */
static bool judge_preamble(const uint8_t *bytes, size_t size, size_t *at, size_t *length,
                           const char *name, npy_error *err)
{
    if (!judge_magic(bytes, size, name, err))
        return false;
    size_t length_bytes = bytes[6] == 1 ? 2 : 4;
    *at = MAGIC_BYTES + 2 + length_bytes;
    if (size < *at)
        return fail(err, name, "file is truncated: %zu bytes, no header", size);
    *length = 0;
    for (size_t i = *at; i-- > MAGIC_BYTES + 2;)
        *length = *length << 8 | bytes[i];
    if (*length > HEADER_MAX)
        return fail(err, name, "header_len %zu is too large (at most %d)", *length,
                    (int)HEADER_MAX);
    if (size - *at < *length)
        return fail(err, name, "file is truncated: header_len is %zu, %zu bytes present", *length,
                    size - *at);
    return true;
}

/* Everything but the data; `offset` is where they start. */
static bool parse_header(const uint8_t *bytes, size_t size, npy_array *out, size_t *offset,
                         const char *name, npy_error *err)
{
    size_t at = 0, length = 0;
    memset(out, 0, sizeof *out);
    if (!judge_preamble(bytes, size, &at, &length, name, err))
        return false;
    *offset = at + length;
    dict d = {.begin = bytes + at, .at = bytes + at, .end = bytes + at + length};
    d.name = name;
    d.err = err;
    return parse_dict(&d) && judge_dtype(&d, out) && judge_shape(&d, out) && judge_order(&d, out);
}

static bool no_memory(size_t bytes, const char *name, npy_error *err)
{
    return fail(err, name, "no memory for %zu bytes", bytes);
}

static bool place_data(const uint8_t *data, npy_array *out, const char *name, npy_error *err)
{
    static const double none = 0.0;
    out->data = data;
    if (out->bytes == 0)
        out->data = &none; /* `data` may be unaligned or one past the end of a mapping */
    else if ((uintptr_t)data % npy_item_size(out->dtype) != 0) {
        out->heap = malloc(out->bytes);
        if (!out->heap)
            return no_memory(out->bytes, name, err);
        out->data = memcpy(out->heap, data, out->bytes);
    }
    return true;
}

static bool parse_whole(const uint8_t *bytes, size_t size, npy_array *out, const char *name,
                        npy_error *err)
{
    size_t offset;
    if (!parse_header(bytes, size, out, &offset, name, err))
        return false;
    size_t present = size - offset;
    if (present < out->bytes)
        return fail(err, name, "file is truncated: header promises %zu data bytes, %zu present",
                    out->bytes, present);
    if (present > out->bytes)
        return fail(err, name,
                    "bytes after the data: header promises %zu data bytes, at least %zu present",
                    out->bytes, present);
    return place_data(bytes + offset, out, name, err);
}

bool npy_parse(const uint8_t *bytes, size_t size, npy_array *out, npy_error *err)
{
    bool ok = parse_whole(bytes, size, out, NULL, err);
    if (!ok)
        memset(out, 0, sizeof *out);
    return ok;
}

static bool read_failed(const char *name, npy_error *err)
{
    return fail(err, name, "cannot read: %s", strerror(errno));
}

/* Reads until `size` bytes or the end; returns false on an error in errno. */
static bool read_up_to(int fd, uint8_t *to, size_t size, size_t *got)
{
    *got = 0;
    while (*got < size) {
        ssize_t n = read(fd, to + *got, size - *got);
        if (n == 0)
            return true;
        if (n > 0)
            *got += (size_t)n;
        else if (errno != EINTR)
            return false;
    }
    return true;
}

/* The header first: it tells how much memory the rest takes.  One byte more is asked for, so that
 * bytes after the data are noticed without reading them all. */
static bool read_stream(int fd, npy_array *out, const char *name, npy_error *err)
{
    size_t head = PREAMBLE_MAX + HEADER_MAX, got, more = 0, offset;
    uint8_t *bytes = malloc(head);
    if (!bytes)
        return no_memory(head, name, err);
    bool ok = read_up_to(fd, bytes, head, &got) || read_failed(name, err);
    ok = ok && parse_header(bytes, got, out, &offset, name, err);
    if (ok && got == head && offset + out->bytes >= head) {
        size_t total = offset + out->bytes;
        uint8_t *larger = realloc(bytes, total + 1);
        ok = larger || no_memory(total, name, err);
        bytes = larger ? larger : bytes;
        ok = ok && (read_up_to(fd, bytes + head, total + 1 - head, &more) ||
                    read_failed(name, err));
    }
    ok = ok && parse_whole(bytes, got + more, out, name, err);
    if (!ok || out->heap || out->bytes == 0)
        free(bytes); /* nothing points into it */
    else
        out->heap = bytes;
    return ok;
}

static bool load(int fd, npy_array *out, const char *name, npy_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return read_failed(name, err);
    if (S_ISDIR(st.st_mode))
        return fail(err, name, "is a directory");
    /* Standard input may be a file that somebody has read a part of. */
    bool whole = S_ISREG(st.st_mode) && st.st_size > 0 && lseek(fd, 0, SEEK_CUR) == 0;
    if (!whole || (uintmax_t)st.st_size > PTRDIFF_MAX)
        return read_stream(fd, out, name, err);
    size_t size = (size_t)st.st_size;
    void *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return read_stream(fd, out, name, err);
    bool ok = parse_whole(map, size, out, name, err);
    if (ok && !out->heap) {
        out->map = map;
        out->map_bytes = size;
    } else {
        munmap(map, size);
    }
    return ok;
}

bool npy_open(const char *path, npy_array *out, npy_error *err)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    memset(out, 0, sizeof *out);
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(err, name, "cannot open: %s", strerror(errno));
    bool ok = load(fd, out, name, err);
    if (!standard)
        close(fd);
    if (!ok)
        memset(out, 0, sizeof *out);
    return ok;
}

bool npy_expect(const npy_array *array, const char *name, unsigned dtype_mask, int ndim,
                npy_error *err)
{
    if (!(array->dtype & dtype_mask))
        return fail(err, name, "dtype '%s' is not supported (want %s)",
                    npy_dtype_name(array->dtype), show_dtypes(dtype_mask).text);
    if (ndim >= 0 && array->ndim != ndim)
        return fail(err, name, "shape %s: want %d dimension%s",
                    show_shape(array->ndim, array->shape).text, ndim, ndim == 1 ? "" : "s");
    return true;
}

void npy_close(npy_array *array)
{
    if (array->map)
        munmap(array->map, array->map_bytes);
    free(array->heap);
    memset(array, 0, sizeof *array);
}

const char *npy_dtype_name(npy_dtype dtype)
{
    for (int i = 0; i < DTYPES; i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].name;
    return NULL;
}

size_t npy_item_size(npy_dtype dtype)
{
    for (int i = 0; i < DTYPES; i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].size;
    return 0;
}

/* ---- the writer ---- */

static char *copy_text(const char *text, size_t length)
{
    char *copy = malloc(length + 1);
    if (!copy)
        return NULL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

/* The part of a path up to its last slash, that included. */
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* Allocates folder (its first `length` bytes) + rest. */
static char *join(const char *folder, size_t length, const char *rest)
{
    size_t tail = strlen(rest);
    char *path = malloc(length + tail + 1);
    if (!path)
        return NULL;
    memcpy(path, folder, length);
    memcpy(path + length, rest, tail + 1);
    return path;
}

/* Follows the links at the end of the path, also to a file that does not exist yet, so that the
 * file is replaced and the link stays.  NULL with errno on failure. */
static char *follow_links(const char *path)
{
    enum { LINKS_MAX = 40 };
    char link[4096];
    char *now = copy_text(path, strlen(path));
    for (int i = 0; now && i < LINKS_MAX; i++) {
        ssize_t n = readlink(now, link, sizeof link - 1);
        if (n < 0)
            return now;
        link[n] = '\0';
        char *next = join(now, link[0] == '/' ? 0 : folder_length(now), link);
        free(now);
        now = next;
    }
    int reason = now ? ELOOP : ENOMEM;
    free(now);
    errno = reason;
    return NULL;
}

static bool write_all(int fd, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    while (bytes > 0) {
        ssize_t n = write(fd, p, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n < 0 ? errno : EIO;
            return false;
        }
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

/* The name holds nothing of the target's, which may be as long as a name can be. */
static bool open_temporary(npy_writer *w, npy_error *err)
{
    enum { TRIES = 1000 };
    char rest[64];
    for (int i = 0; i < TRIES; i++) {
        snprintf(rest, sizeof rest, ".ballast-%ld-%d.tmp", (long)getpid(), i);
        w->temporary = join(w->target, folder_length(w->target), rest);
        if (!w->temporary)
            return no_memory(strlen(w->target), w->name, err);
        w->fd = open(w->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0)
            return true;
        free(w->temporary);
        w->temporary = NULL;
        if (errno != EEXIST)
            break;
    }
    return fail(err, w->name, "cannot create a temporary file beside it: %s", strerror(errno));
}

/* A file system that cannot reserve is no error: npy_map then uses a buffer. */
static bool reserve(npy_writer *w, npy_error *err)
{
    int code;
    do
        code = posix_fallocate(w->fd, 0, (off_t)(WRITTEN_HEADER + w->bytes));
    while (code == EINTR);
    w->reserved = code == 0;
    if (code == 0 || code == EOPNOTSUPP || code == ENOSYS || code == EINVAL)
        return true;
    return fail(err, w->name, "cannot reserve %zu bytes: %s", WRITTEN_HEADER + w->bytes,
                strerror(code));
}

static bool open_file(npy_writer *w, const char *path, const struct stat *old, npy_error *err)
{
    if (old && access(path, W_OK) != 0) /* a rename would not ask */
        return fail(err, w->name, "cannot write: %s", strerror(errno));
    w->target = follow_links(path);
    if (!w->target)
        return fail(err, w->name, "cannot follow the link: %s", strerror(errno));
    if (!open_temporary(w, err))
        return false;
    if (old && fchmod(w->fd, old->st_mode & 0777) != 0)
        return fail(err, w->name, "cannot keep its permissions: %s", strerror(errno));
    return reserve(w, err);
}

static bool open_stream(npy_writer *w, const char *path, npy_error *err)
{
    w->fd = open(path, O_WRONLY | O_CLOEXEC);
    return w->fd >= 0 || fail(err, w->name, "cannot open: %s", strerror(errno));
}

static bool open_target(npy_writer *w, const char *path, npy_error *err)
{
    struct stat st;
    if (strcmp(path, "-") == 0) {
        w->fd = STDOUT_FILENO;
        w->borrowed = true;
        return true;
    }
    if (path[0] == '\0')
        return fail(err, NULL, "the name of the output file is empty");
    bool exists = stat(path, &st) == 0;
    if (!exists && errno != ENOENT)
        return fail(err, w->name, "cannot create: %s", strerror(errno));
    if (exists && S_ISDIR(st.st_mode))
        return fail(err, w->name, "is a directory");
    if (exists && !S_ISREG(st.st_mode))
        return open_stream(w, path, err);
    return open_file(w, path, exists ? &st : NULL, err);
}

/* As numpy.save writes it: padded so that the data start at a multiple of 64. */
static void build_header(uint8_t *header, npy_dtype dtype, int ndim, const int64_t *shape)
{
    enum { AT = 10, LENGTH = WRITTEN_HEADER - AT };
    memset(header, ' ', WRITTEN_HEADER);
    memcpy(header, magic, MAGIC_BYTES);
    const uint8_t rest[] = {1, 0, LENGTH, 0};
    memcpy(header + MAGIC_BYTES, rest, sizeof rest);
    char text[LENGTH + 1];
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                     npy_dtype_name(dtype), show_shape(ndim, shape).text);
    memcpy(header + AT, text, (size_t)n);
    header[WRITTEN_HEADER - 1] = '\n';
}

static bool check_promise(npy_writer *w, npy_dtype dtype, int ndim, const int64_t *shape,
                          npy_error *err)
{
    size_t item = npy_item_size(dtype);
    if (item == 0)
        return fail(err, w->name, "dtype %d: want one of the NPY_ constants", (int)dtype);
    if (ndim < 0 || ndim > NPY_MAX_DIMS)
        return fail(err, w->name, "%d dimensions: want 0 to %d", ndim, (int)NPY_MAX_DIMS);
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 0)
            return fail(err, w->name, "shape %s: a dimension is negative",
                        show_shape(ndim, shape).text);
    int64_t count;
    if (!count_elements(ndim, shape, item, &count))
        return fail(err, w->name, "shape %s: too large", show_shape(ndim, shape).text);
    w->bytes = (size_t)count * item;
    return true;
}

static bool write_failed(const npy_writer *w, npy_error *err)
{
    return fail(err, w->name, "cannot write: %s", strerror(errno));
}

bool npy_create(const char *path, npy_dtype dtype, int ndim, const int64_t *shape, npy_writer *w,
                npy_error *err)
{
    uint8_t header[WRITTEN_HEADER];
    const char *name = strcmp(path, "-") == 0 ? "standard output" : path;
    memset(w, 0, sizeof *w);
    w->fd = -1;
    w->name = copy_text(name, strlen(name));
    bool ok = w->name || no_memory(strlen(name), name, err);
    ok = ok && check_promise(w, dtype, ndim, shape, err) && open_target(w, path, err);
    if (ok) {
        build_header(header, dtype, ndim, shape);
        ok = write_all(w->fd, header, sizeof header) || write_failed(w, err);
    }
    if (!ok)
        npy_abandon(w);
    return ok;
}

void *npy_map(npy_writer *w, npy_error *err)
{
    if (!w->name || w->written > 0) {
        fail(err, w->name, "npy_map: the writer is not open, or has been written to");
        return NULL;
    }
    if (w->reserved && !w->map && !w->buffer) {
        size_t size = WRITTEN_HEADER + w->bytes;
        void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
        if (map != MAP_FAILED) {
            w->map = map;
            w->map_bytes = size;
        }
    }
    if (w->map)
        return (uint8_t *)w->map + WRITTEN_HEADER;
    if (!w->buffer)
        w->buffer = calloc(1, w->bytes ? w->bytes : 1);
    if (!w->buffer)
        no_memory(w->bytes, w->name, err);
    return w->buffer;
}

bool npy_write(npy_writer *w, const void *data, size_t bytes, npy_error *err)
{
    if (!w->name || w->map || w->buffer)
        return fail(err, w->name, "npy_write: the writer is not open, or is mapped");
    if (bytes > w->bytes - w->written)
        return fail(err, w->name, "%zu data bytes after %zu: header promises %zu", bytes,
                    w->written, w->bytes);
    if (!write_all(w->fd, data, bytes))
        return write_failed(w, err);
    w->written += bytes;
    return true;
}

/* The data are in the file, or on their way down the stream. */
static bool finish_data(npy_writer *w, npy_error *err)
{
    if (w->map)
        return msync(w->map, w->map_bytes, MS_SYNC) == 0 || write_failed(w, err);
    if (w->buffer)
        return write_all(w->fd, w->buffer, w->bytes) || write_failed(w, err);
    if (w->written == w->bytes)
        return true;
    return fail(err, w->name, "header promises %zu data bytes, %zu written", w->bytes, w->written);
}

/* Closing can be the moment when a network file system reports that it is full. */
static bool finish_file(npy_writer *w, npy_error *err)
{
    if (w->temporary && fsync(w->fd) != 0)
        return write_failed(w, err);
    int fd = w->fd;
    w->fd = -1;
    if (!w->borrowed && close(fd) != 0 && errno != EINTR)
        return write_failed(w, err);
    return true;
}

/* The name is durable when the folder is; not every file system can sync one, so no error. */
static void sync_folder(const char *path)
{
    size_t length = folder_length(path);
    char *folder = length ? copy_text(path, length) : copy_text(".", 1);
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

static bool take_name(npy_writer *w, npy_error *err)
{
    if (!w->temporary)
        return true;
    if (rename(w->temporary, w->target) != 0)
        return fail(err, w->name, "cannot rename the temporary file: %s", strerror(errno));
    free(w->temporary);
    w->temporary = NULL; /* nothing is left to remove */
    sync_folder(w->target);
    return true;
}

bool npy_commit(npy_writer *w, npy_error *err)
{
    if (!w->name)
        return fail(err, NULL, "npy_commit: the writer is not open");
    bool ok = finish_data(w, err) && finish_file(w, err) && take_name(w, err);
    npy_abandon(w);
    return ok;
}

void npy_abandon(npy_writer *w)
{
    if (!w->name)
        return;
    if (w->map)
        munmap(w->map, w->map_bytes);
    if (w->fd >= 0 && !w->borrowed)
        close(w->fd);
    if (w->temporary)
        unlink(w->temporary);
    free(w->buffer);
    free(w->temporary);
    free(w->target);
    free(w->name);
    memset(w, 0, sizeof *w);
}
