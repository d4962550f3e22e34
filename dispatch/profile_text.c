/* SPDX-License-Identifier: MIT */
/* Profiles as text. The parser keeps the first thing that it did not expect; after that it takes
 * nothing. No floating point, and nothing of the C library that follows a locale. */
#include "profile.h"

#include "text.h"

#include <string.h>

/* ---- Names ----------------------------------------------------------------------------------- */

/* The index-th name of a group; NULL past the last. */
typedef const char *names(int group, int index);

static const char *operation_name(int group, int index)
{
    (void)group;
    return ballast__tuned_operation_name(index);
}

static const char *dtype_name(int group, int index)
{
    (void)group;
    return ballast__tuned_dtype_name(index);
}

static const char *choice_name(int group, int index)
{
    (void)group;
    return ballast__choice_name(index);
}

static const char *candidate_name(int which, int index)
{
    const candidate *c = ballast__candidate(which, index);

    return c ? c->name : NULL;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static const char first_line[] = "ballast profile 1";

static void append_shape(text *t, int shape)
{
    int unit = SHAPE_CLASSES / PART_CLASSES;

    for (int part = 0; part < SHAPE_PARTS; part++, unit /= PART_CLASSES) {
        append(t, part == 0 ? ":" : ",");
        append(t, ballast__shape_part(part));
        append(t, "=");
        append(t, ballast__shape_class_name(part, shape / unit % PART_CLASSES));
    }
}

static void append_thousandths(text *t, const char *name, int32_t value)
{
    append(t, name);
    append_integer(t, (uint64_t)value / 1000, 1);
    append(t, ".");
    append_integer(t, (uint64_t)value % 1000, 3);
}

static void append_date(text *t, int32_t date)
{
    append(t, " date=");
    append_integer(t, (uint64_t)date / 10000, 4);
    append(t, "-");
    append_integer(t, (uint64_t)date / 100 % 100, 2);
    append(t, "-");
    append_integer(t, (uint64_t)date % 100, 2);
}

void ballast__profile_format_case(const tuned_case *where, text *t)
{
    append(t, operation_name(0, (int)where->operation));
    append(t, ":");
    append(t, dtype_name(0, (int)where->dtype));
    append_shape(t, where->shape);
}

void ballast__profile_format_line(const profile_line *line, text *t)
{
    const tuned_choice *c = &line->chosen;

    ballast__profile_format_case(&c->where, t);
    append(t, " ");
    append(t, choice_name(0, (int)c->which));
    append(t, "=");
    append(t, candidate_name((int)c->which, c->candidate));
    append_thousandths(t, " ratio=", line->ratio);
    append_thousandths(t, " low=", line->low);
    append_thousandths(t, " high=", line->high);
    append(t, " samples=");
    append_integer(t, (uint64_t)line->samples, 1);
    append_date(t, line->date);
}

static void append_line(text *t, const char *name, const char *value)
{
    append(t, name);
    append(t, value);
    append(t, "\n");
}

static uint64_t sum_of(const char *bytes, size_t size)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

void ballast__profile_format(const profile *p, const profile_machine *machine, text *t)
{
    const char *begin = t->at;

    append_line(t, first_line, "");
    append_line(t, "build ", machine->build);
    append_line(t, "cpu ", machine->cpu);
    append_line(t, "caches ", machine->caches);
    append(t, "cores ");
    append_integer(t, (uint64_t)p->cores, 1);
    append(t, "\n");
    for (int i = 0; i < p->count; i++) {
        ballast__profile_format_line(&p->lines[i], t);
        append(t, "\n");
    }
    const uint64_t sum = sum_of(begin, (size_t)(t->at - begin));
    append(t, "sum ");
    append_hex(t, sum, 16);
    append(t, "\n");
}

/* ---- Reading --------------------------------------------------------------------------------- */

typedef struct parser {
    const char *at, *end;
    unsigned line;
    text reason; /* empty: nothing wrong so far */
} parser;

static bool good(const parser *p) { return p->reason.length == 0; }

/* Begins the reason, where there is none; false where there is. */
static bool refuse(parser *p, const char *field)
{
    if (!good(p))
        return false;
    append(&p->reason, "line ");
    append_integer(&p->reason, p->line, 1);
    append(&p->reason, ", ");
    append(&p->reason, field);
    append(&p->reason, ": ");
    return true;
}

/* Every line of a whole file ends: one that does not was cut. */
static bool is_cut(const parser *p)
{
    return p->at < p->end && !memchr(p->at, '\n', (size_t)(p->end - p->at));
}

static void append_end(parser *p)
{
    if (p->at == p->end)
        append(&p->reason, ", not the end of the file");
    else if (is_cut(p))
        append(&p->reason, ", and the file ends within this line");
}

static void expected(parser *p, const char *field, const char *what)
{
    if (!refuse(p, field))
        return;
    append(&p->reason, "expected ");
    append(&p->reason, what);
    append_end(p);
}

static bool begins(const parser *p, const char *word)
{
    const size_t length = strlen(word);

    return (size_t)(p->end - p->at) >= length && memcmp(p->at, word, length) == 0;
}

static void take(parser *p, const char *field, const char *word)
{
    if (good(p) && begins(p, word)) {
        p->at += strlen(word);
        return;
    }
    if (*word == '\n')
        expected(p, field, "the end of the line");
    else
        expected(p, field, strcmp(word, " ") == 0 ? "a blank" : word);
}

static void end_line(parser *p, const char *field)
{
    take(p, field, "\n");
    p->line++;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool is_in_word(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static void expected_name(parser *p, const char *field, names *name, int group)
{
    if (!refuse(p, field))
        return;
    append(&p->reason, "expected one of");
    for (int i = 0; name(group, i); i++) {
        append(&p->reason, *name(group, i) ? " " : "");
        append(&p->reason, name(group, i));
    }
    append_end(p);
}

/* The index of the name that stands here. */
static int take_name(parser *p, const char *field, names *name, int group)
{
    size_t length = 0;

    while (p->at + length < p->end && is_in_word(p->at[length]))
        length++;
    for (int i = 0; good(p) && length > 0 && name(group, i); i++)
        if (strlen(name(group, i)) == length && memcmp(p->at, name(group, i), length) == 0) {
            p->at += length;
            return i;
        }
    expected_name(p, field, name, group);
    return 0;
}

/* Exactly so many digits. */
static int32_t take_digits(parser *p, const char *field, int count)
{
    int32_t value = 0;

    for (; count > 0 && p->at < p->end && is_digit(*p->at); count--)
        value = 10 * value + (*p->at++ - '0');
    if (count > 0)
        expected(p, field, "a digit");
    return value;
}

/* 1 to 999999999, without leading zeros; `zero`: or 0. */
static int32_t take_number(parser *p, const char *field, bool zero)
{
    int digits = 0;

    while (digits < 10 && p->at + digits < p->end && is_digit(p->at[digits]))
        digits++;
    const bool has_zero = digits > 0 && *p->at == '0';
    if (digits == 0 || digits > 9 || (has_zero && (digits > 1 || !zero))) {
        expected(p, field, zero ? "a number from 0 to 999999999" : "a number from 1 to 999999999");
        return 0;
    }
    return take_digits(p, field, digits);
}

/* "0.934" */
static int32_t take_thousandths(parser *p, const char *field, const char *prefix)
{
    take(p, field, prefix);
    const int32_t whole = take_number(p, field, true);
    take(p, field, ".");
    const int32_t rest = take_digits(p, field, 3);
    if (whole > 999) {
        expected(p, field, "a number below 1000");
        return 0;
    }
    return 1000 * whole + rest;
}

static int32_t take_date(parser *p)
{
    take(p, "date", " date=");
    const int32_t year = take_digits(p, "date", 4);
    take(p, "date", "-");
    const int32_t month = take_digits(p, "date", 2);
    take(p, "date", "-");
    const int32_t day = take_digits(p, "date", 2);
    if (month < 1 || month > 12 || day < 1 || day > 31)
        expected(p, "date", "a day of a month of a year");
    return (year * 100 + month) * 100 + day;
}

static int take_shape(parser *p)
{
    int shape = 0;

    for (int part = 0; part < SHAPE_PARTS; part++) {
        const char *const name = ballast__shape_part(part);

        take(p, name, part == 0 ? ":" : ",");
        take(p, name, name);
        take(p, name, "=");
        shape = shape * PART_CLASSES + take_name(p, name, ballast__shape_class_name, part);
    }
    return shape;
}

static tuned_choice take_choice(parser *p, unsigned isas)
{
    tuned_choice c;

    c.where.operation = (tuned_operation)take_name(p, "operation", operation_name, 0);
    take(p, "dtype", ":");
    c.where.dtype = (ballast_dtype)take_name(p, "dtype", dtype_name, 0);
    c.where.shape = take_shape(p);
    take(p, "choice", " ");
    c.which = (choice_kind)take_name(p, "choice", choice_name, 0);
    const char *const name = ballast__choice_name((int)c.which);
    take(p, name, "=");
    c.candidate = take_name(p, name, candidate_name, (int)c.which);
    const int64_t value = ballast__candidate((int)c.which, c.candidate)->value;
    if (c.which == CHOOSE_ISA && value >= 0 && !(isas >> value & 1))
        expected(p, name, "one that runs here");
    return c;
}

static bool is_same(const tuned_choice *a, const tuned_choice *b)
{
    return a->where.operation == b->where.operation && a->where.dtype == b->where.dtype &&
           a->where.shape == b->where.shape && a->which == b->which;
}

static void take_choice_line(parser *p, unsigned isas, profile *out)
{
    profile_line line;

    line.chosen = take_choice(p, isas);
    line.ratio = take_thousandths(p, "ratio", " ratio=");
    line.low = take_thousandths(p, "low", " low=");
    line.high = take_thousandths(p, "high", " high=");
    if (line.low > line.ratio || line.high < line.ratio)
        expected(p, "low", "an interval around the ratio");
    take(p, "samples", " samples=");
    line.samples = take_number(p, "samples", line.chosen.candidate == 0);
    line.date = take_date(p);
    for (int i = 0; i < out->count; i++)
        if (is_same(&out->lines[i].chosen, &line.chosen))
            expected(p, "choice", "one that no line before has made");
    if (out->count == PROFILE_CHOICES)
        expected(p, "choice", "no more choices than 2048");
    end_line(p, "end");
    if (good(p))
        out->lines[out->count++] = line;
}

/* What stands in the file is shown as far as it is printable. */
static void append_shown(text *t, const char *at, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        const char shown[2] = {at[i] >= ' ' && at[i] <= '~' ? at[i] : '?', 0};

        append(t, shown);
    }
}

/* A line that must be as this machine's. */
static void take_signature(parser *p, const char *field, const char *value, const char *ours)
{
    const char *const newline = memchr(p->at, '\n', (size_t)(p->end - p->at));
    const size_t length = (size_t)((newline ? newline : p->end) - p->at);

    take(p, field, field);
    take(p, field, " ");
    if (!good(p))
        return;
    const size_t rest = length - strlen(field) - 1;
    if (rest == strlen(value) && memcmp(p->at, value, rest) == 0) {
        p->at += rest;
    } else if (refuse(p, field)) {
        append(&p->reason, "expected that of ");
        append(&p->reason, ours);
        append(&p->reason, ", \"");
        append(&p->reason, value);
        append(&p->reason, "\", not \"");
        append_shown(&p->reason, p->at, rest < MACHINE_TEXT ? rest : MACHINE_TEXT);
        append(&p->reason, "\"");
    }
    end_line(p, field);
}

static void take_sum(parser *p, const char *begin)
{
    char digits[17];
    text t = {digits, sizeof digits, 0};

    append_hex(&t, sum_of(begin, (size_t)(p->at - begin)), 16);
    take(p, "sum", "sum ");
    if (p->end - p->at < 16)
        expected(p, "sum", "16 digits");
    if (good(p) && !begins(p, digits) && refuse(p, "sum")) {
        append(&p->reason, "the lines before it were changed: expected ");
        append(&p->reason, digits);
    }
    take(p, "sum", digits);
    end_line(p, "sum");
    if (good(p) && p->at != p->end)
        expected(p, "sum", "nothing after this line");
}

bool ballast__profile_parse(const char *bytes, size_t size, const profile_machine *machine,
                            profile *out, char *reason)
{
    parser p = {bytes, bytes + size, 1, {reason, PROFILE_REASON, 0}};

    *reason = 0;
    out->count = 0;
    take(&p, "format", first_line);
    end_line(&p, "format");
    take_signature(&p, "build", machine->build, "this library");
    take_signature(&p, "cpu", machine->cpu, "this machine");
    take_signature(&p, "caches", machine->caches, "this machine");
    take(&p, "cores", "cores ");
    out->cores = take_number(&p, "cores", false);
    end_line(&p, "cores");
    while (good(&p) && p.at < p.end && !begins(&p, "sum "))
        take_choice_line(&p, machine->isas, out);
    take_sum(&p, bytes);
    return good(&p);
}
