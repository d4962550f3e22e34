/* SPDX-License-Identifier: MIT */
/* The bits that every implementation, compiler and system gives: tests/golden/hashes.txt.
 *
 *   golden [--isa NAME] HASHES     checks the implementations that this CPU has, or the one named
 *   golden --update HASHES         writes the file again, with the hashes of the scalar one
 *
 * A line of the file is a problem and the hash of its outputs. To add a problem, write it without a
 * hash and update. A hash may change only on purpose: NEWS.md then says why.
 *
 * Prints a line for each failure, and a summary. Exits 0, or 1 where a hash differs, 2 where the
 * file cannot be read, 77 where the CPU or the library lacks the implementation. Needs nothing but
 * the C library, and no threads, so that it can be run in an emulator. */
#include "../bench/cases.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINES = 4096, LINE = PROBLEM_TEXT + 64 };

typedef struct line {
    char text[LINE]; /* a comment, an empty line, or a problem */
    int is_problem, has_hash;
    uint64_t hash;
    problem p;
} line;

static line lines[MAX_LINES];
static int line_count;

/* ---- The file -------------------------------------------------------------------------------- */

static int read_line(line *l, int number)
{
    char message[PROBLEM_TEXT];

    l->text[strcspn(l->text, "\n")] = '\0';
    if (l->text[0] == '#' || l->text[0] == '\0')
        return 1;
    l->is_problem = 1;
    char *space = strchr(l->text, ' ');
    if (space) {
        *space = '\0';
        l->has_hash = sscanf(space + 1, "%" SCNx64, &l->hash) == 1;
    }
    if (problem_parse(l->text, &l->p, message, sizeof message))
        return 1;
    printf("golden: line %d: %s\n", number, message);
    return 0;
}

static int read_file(const char *path)
{
    FILE *in = fopen(path, "r");
    int good = in != NULL;

    if (!in)
        perror(path);
    while (good && line_count < MAX_LINES && fgets(lines[line_count].text, LINE, in)) {
        good = read_line(&lines[line_count], line_count + 1);
        line_count++;
    }
    if (in)
        fclose(in);
    return good;
}

/* ---- Hashes ---------------------------------------------------------------------------------- */

/* Problems with this in their text are left out; NULL: none is. */
static const char *left_out;

typedef struct tally {
    int equal, failed, unsupported, left_out;
} tally;

static void check_line(const line *l, const ballast_implementation *implementation, tally *t)
{
    const char *name = ballast_implementation_name(implementation);
    uint64_t hash = 0;

    if (left_out && strstr(l->text, left_out)) {
        t->left_out++;
        return;
    }
    const ballast_status status = case_hash_of(&l->p, implementation, NULL, &hash);

    if (status == BALLAST_ERR_UNSUPPORTED) {
        t->unsupported++;
        return;
    }
    if (status == BALLAST_OK && l->has_hash && hash == l->hash) {
        t->equal++;
        return;
    }
    t->failed++;
    if (status != BALLAST_OK)
        printf("golden: %s: %s: %s\n", name, l->text, ballast_status_name(status));
    else if (!l->has_hash)
        printf("golden: %s: %s has no hash: golden --update\n", name, l->text);
    else
        printf("golden: %s: %s: got %016" PRIx64 ", want %016" PRIx64 "\n", name, l->text, hash,
               l->hash);
}

static int check(const ballast_implementation *implementation)
{
    tally t = {0};

    for (int i = 0; i < line_count; i++)
        if (lines[i].is_problem)
            check_line(&lines[i], implementation, &t);
    printf("golden: %s: %d hashes equal, %d failed", ballast_implementation_name(implementation),
           t.equal, t.failed);
    if (t.unsupported)
        printf(", %d skipped: f64 is not built into this library", t.unsupported);
    if (t.left_out)
        printf(", %d skipped: %s is left out", t.left_out, left_out);
    putchar('\n');
    fflush(stdout);
    return t.failed == 0;
}

/* ---- Modes ----------------------------------------------------------------------------------- */

static int update(const char *path)
{
    const ballast_implementation *scalar = ballast_implementation_find("scalar");
    char text[PROBLEM_TEXT];

    for (int i = 0; i < line_count; i++) {
        const ballast_status status =
            lines[i].is_problem ? case_hash_of(&lines[i].p, scalar, NULL, &lines[i].hash)
                                : BALLAST_OK;

        if (status != BALLAST_OK) {
            printf("golden: %s: %s\n", lines[i].text, ballast_status_name(status));
            return 1;
        }
    }
    FILE *out = fopen(path, "w");
    if (!out) {
        perror(path);
        return 2;
    }
    for (int i = 0; i < line_count; i++)
        if (lines[i].is_problem)
            fprintf(out, "%s %016" PRIx64 "\n",
                    problem_format(&lines[i].p, text, sizeof text), lines[i].hash);
        else
            fprintf(out, "%s\n", lines[i].text);
    return fclose(out) == 0 ? 0 : 2;
}

static int check_named(const char *name)
{
    const ballast_implementation *implementation = ballast_implementation_find(name);
    char reason[128] = "not in this library";

    if (!implementation
        || !ballast_implementation_supported(implementation, reason, sizeof reason)) {
        printf("golden: %s skipped: %s\n", name, reason);
        return 77;
    }
    return check(implementation) ? 0 : 1;
}

static int check_all(void)
{
    int good = 1;

    for (int i = 0; ballast_implementation_at(i); i++)
        good &= check_named(ballast_implementation_name(ballast_implementation_at(i))) != 1;
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[argc - 1] : NULL;
    const int is_update = argc == 3 && strcmp(argv[1], "--update") == 0;
    const int leaves_out = argc == 6 && strcmp(argv[3], "--without") == 0;
    const int is_named = (argc == 4 || leaves_out) && strcmp(argv[1], "--isa") == 0;

    if (argc != 2 && !is_update && !is_named) {
        puts("usage: golden [--isa NAME [--without TEXT] | --update] HASHES");
        return 2;
    }
    if (leaves_out)
        left_out = argv[4];
    if (!read_file(path))
        return 2;
    if (is_update)
        return update(path);
    return is_named ? check_named(argv[2]) : check_all();
}
