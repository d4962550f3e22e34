/* SPDX-License-Identifier: MIT */
/* A profile: choices that were measured to be faster on a machine, with what was measured, as
 * text.
 *
 *   ballast profile 1
 *   build 0.1.0-4d1b3c0f9a2e5768
 *   cpu AuthenticAMD family 25 model 1 stepping 1 AMD EPYC 7763 64-Core Processor
 *   caches 32768 524288 33554432 0
 *   cores 2
 *   cross_entropy:f32:classes=long,data=memory,rows=few stream=never ratio=0.934 low=0.921
 *   ... high=0.947 samples=200 date=2026-11-23
 *   sum 9ae16a3b2f90404f
 *
 * (a choice is one line). Operations, classes, choices and candidates are those of tuning.c.
 * ratio: time with the candidate over time with the default, and the interval that it lies in.
 * sum: FNV-1a, 64 bits, of all bytes before that line. Blanks are single, lines end in a
 * newline, numbers have no leading zeros: there is one way to write a profile, and what is read
 * is written again byte for byte. */
#ifndef BALLAST_DISPATCH_PROFILE_H
#define BALLAST_DISPATCH_PROFILE_H

#include "tuning.h"

enum {
    PROFILE_CHOICES = 2048, /* lines of choices at most */
    PROFILE_BYTES = 176 * PROFILE_CHOICES + 1024,
    PROFILE_REASON = 512,
    MACHINE_TEXT = 128
};

/* What a profile must have been made with, as in its lines. */
typedef struct profile_machine {
    char build[MACHINE_TEXT], cpu[MACHINE_TEXT], caches[MACHINE_TEXT];
    int64_t cores;
    unsigned isas; /* that run here: a bit for each */
} profile_machine;

/* Numbers of the ratio are in thousandths; date: 20261123. samples: 0 where nothing was measured:
 * the line keeps the default against the choice of a neighbouring shape. */
typedef struct profile_line {
    tuned_choice chosen;
    int32_t ratio, low, high, samples, date;
} profile_line;

/* cores: usable ones where it was made. They are no reason to ignore it: choices are made for a
 * thread. */
typedef struct profile {
    int64_t cores;
    int count;
    profile_line lines[PROFILE_CHOICES];
} profile;

/* ---- Text: profile_text.c -------------------------------------------------------------------- */

/* Reads a profile of `machine` from `size` bytes. False where it is of another or not as above:
 * `reason`, of PROFILE_REASON bytes, says which line, which field, and what was expected. */
bool ballast__profile_parse(const char *bytes, size_t size, const profile_machine *machine,
                            profile *p, char *reason);

struct text;

/* Appends the whole profile; one line of it without its newline; what that line is about. */
void ballast__profile_format(const profile *p, const profile_machine *machine, struct text *t);
void ballast__profile_format_line(const profile_line *line, struct text *t);
void ballast__profile_format_case(const tuned_case *where, struct text *t);

/* ---- In force: profile.c --------------------------------------------------------------------- */

/* This machine. In a virtual machine each CPUID of it traps. */
void ballast__profile_machine(profile_machine *machine);

/* Puts a profile in force. `name` says in descriptions where it is from. */
void ballast__profile_use(const profile *p, const char *name);

/* From and to files, whatever is in force. False with the reason where it cannot be done. */
bool ballast__profile_read(const char *path, profile *out, char reason[PROFILE_REASON]);
bool ballast__profile_write(const char *path, const profile *p, char reason[PROFILE_REASON]);

/* At first use, by one thread: what BALLAST_PROFILE names. */
void ballast__profile_begin(void);

#endif
