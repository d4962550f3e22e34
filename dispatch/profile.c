/* SPDX-License-Identifier: MIT */
/* The profile in force, from files and into them.
 *
 * Everything is in static storage: BALLAST_PROFILE is read inside the first call, which
 * allocates nothing and has little stack. One lock keeps those apart who load, save, describe
 * and reset. Calls never take it: what they read is in tuning.c. */
#define _GNU_SOURCE /* secure_getenv, sched_getaffinity */

#include "profile.h"

#include "build_id.h"
#include "implementation.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

enum { PATH_BYTES = 4096 };

static struct {
    bool off;                   /* by BALLAST_PROFILE */
    bool replaced;              /* by the program, before BALLAST_PROFILE was read */
    bool is_used;               /* a profile is in force */
    char name[PATH_BYTES];      /* where it is from */
    profile used;
    char refused[PATH_BYTES];   /* what was to be loaded since then; "" for nothing */
    char reason[PROFILE_REASON]; /* and why it is ignored */
    profile_machine machine;
    profile incoming;
    char bytes[PROFILE_BYTES + 1]; /* of a file */
    char temporary[PATH_BYTES + 64];
    unsigned saves;
} state;

/* ---- This machine ---------------------------------------------------------------------------- */

static text text_of(char *buffer, size_t size)
{
    *buffer = 0;
    return (text){buffer, size, 0};
}

/* Arm's word for implementer, part and revision, of the core that this runs on; 0 where the
 * operating system does not show it. */
static uint64_t read_midr(void)
{
    uint64_t midr = 0;

#if defined(__aarch64__) && defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_CPUID)
        __asm__("mrs %0, midr_el1" : "=r"(midr));
#endif
    return midr;
}

static void describe_cpu(const ballast__cpu *cpu, text *t)
{
    if (cpu->arch != BALLAST__ARCH_X86_64) {
        append(t, cpu->arch == BALLAST__ARCH_ARM64 ? "arm64 midr " : "other ");
        append_hex(t, read_midr(), 8);
        return;
    }
    append(t, *cpu->vendor ? cpu->vendor : "unknown");
    append(t, " family ");
    append_integer(t, cpu->family, 1);
    append(t, " model ");
    append_integer(t, cpu->model, 1);
    append(t, " stepping ");
    append_integer(t, cpu->stepping, 1);
    append(t, *cpu->name ? " " : "");
    append(t, cpu->name);
}

static void describe_caches(const ballast__cpu *cpu, text *t)
{
    for (int i = 0; i < BALLAST__CPU_CACHE_LEVELS; i++) {
        append(t, i > 0 ? " " : "");
        append_integer(t, cpu->cache[i], 1);
    }
}

static int64_t usable_cores(void)
{
#if defined(__linux__)
    cpu_set_t set[8]; /* 8192 */

    if (sched_getaffinity(0, sizeof set, set) == 0)
        return CPU_COUNT_S(sizeof set, set);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);

    return online > 0 ? online : 1;
}

void ballast__profile_machine(profile_machine *machine)
{
    ballast__cpu cpu;
    text build = text_of(machine->build, sizeof machine->build);
    text name = text_of(machine->cpu, sizeof machine->cpu);
    text caches = text_of(machine->caches, sizeof machine->caches);

    ballast__cpu_read(NULL, &cpu);
    append(&build, ballast_version());
    append(&build, "-" BALLAST_BUILD_ID);
    describe_cpu(&cpu, &name);
    describe_caches(&cpu, &caches);
    machine->cores = usable_cores();
    machine->isas = ballast__isas();
}

/* ---- Alone ----------------------------------------------------------------------------------- */

/* A host's thread may not be cancelled with the lock, nor find errno changed. */
typedef struct visit {
    int saved_errno, cancel_state;
} visit;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static visit enter(void)
{
    visit v = {.saved_errno = errno};

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &v.cancel_state);
    pthread_mutex_lock(&lock);
    return v;
}

static void leave(const visit *v)
{
    int mine;

    pthread_mutex_unlock(&lock);
    pthread_setcancelstate(v->cancel_state, &mine);
    errno = v->saved_errno;
}

/* ---- Files ----------------------------------------------------------------------------------- */

/* Not strerror(), which follows the locale and is not for several threads. */
static const char *text_of_errno(int number)
{
    switch (number) {
    case ENOENT:
        return "there is no such file or folder";
    case EACCES:
    case EPERM:
    case EROFS:
        return "it may not be written or read";
    case EISDIR:
    case ENOTDIR:
        return "it is no regular file, or what should be a folder is none";
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return "there is no space left";
    case ENAMETOOLONG:
        return "its name is too long";
    default:
        return "an error of the file system";
    }
}

static void copy(char *to, size_t size, const char *from)
{
    text t = text_of(to, size);

    append(&t, from);
}

/* Keeps the reason in the state. */
static ballast_status ignore(const char *name, ballast_status status, const char *reason)
{
    copy(state.refused, sizeof state.refused, name);
    if (reason != state.reason)
        copy(state.reason, sizeof state.reason, reason);
    return status;
}

/* Up to `size` bytes; -1 where it fails. */
static ssize_t read_bytes(int file, char *bytes, size_t size)
{
    size_t got = 0;

    while (got < size) {
        const ssize_t n = read(file, bytes + got, size - got);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

/* Into state.bytes, and no more than one byte too many. Pipes and devices, which may wait for
 * ever, are not read. */
static ssize_t read_file(const char *path, const char **reason)
{
    struct stat about;
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t size = -1;

    if (file < 0) {
        *reason = text_of_errno(errno);
        return -1;
    }
    if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode))
        *reason = "it is no regular file";
    else if ((size = read_bytes(file, state.bytes, sizeof state.bytes)) < 0)
        *reason = text_of_errno(errno);
    close(file);
    return size;
}

static bool write_bytes(int file, const char *bytes, size_t size)
{
    while (size > 0) {
        const ssize_t n = write(file, bytes, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

/* The name of a file beside `path` that no other process uses, nor an earlier call here. */
static bool name_temporary(const char *path)
{
    text t = text_of(state.temporary, sizeof state.temporary);

    append(&t, path);
    append(&t, ".");
    append_integer(&t, (uint64_t)getpid(), 1);
    append(&t, ".");
    append_integer(&t, state.saves++, 1);
    append(&t, ".tmp");
    return t.length < sizeof state.temporary;
}

/* Opens that file. One of that name may be left of a process that had this one's number. */
static int create_temporary(const char *path)
{
    for (int tries = 0; tries < 1000; tries++) {
        if (!name_temporary(path)) {
            errno = ENAMETOOLONG;
            return -1;
        }
        const int file = open(state.temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file >= 0 || errno != EEXIST)
            return file;
    }
    return -1;
}

/* So that the new name outlives a crash. Where the file system cannot do it, it is left. */
static void sync_folder(const char *path)
{
    const char *const slash = strrchr(path, '/');

    copy(state.temporary, sizeof state.temporary, slash ? path : ".");
    if (slash)
        state.temporary[slash == path ? 1 : slash - path] = 0;
    const int folder = open(state.temporary, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (folder >= 0) {
        (void)fsync(folder);
        close(folder);
    }
}

/* Either the file is there whole, or what was there before, and errno says why. A device is not
 * replaced by a file. */
static bool replace_file(const char *path, const char *bytes, size_t size)
{
    struct stat about;

    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode)) {
        errno = EISDIR;
        return false;
    }
    const int file = create_temporary(path);
    if (file < 0)
        return false;
    const bool written = write_bytes(file, bytes, size) && fsync(file) == 0;
    const int not_written = errno;
    const bool closed = close(file) == 0;
    if (!written)
        errno = not_written;
    if (written && closed && rename(state.temporary, path) == 0) {
        sync_folder(path);
        return true;
    }
    const int failed = errno;
    unlink(state.temporary);
    errno = failed;
    return false;
}

/* ---- In force; with the lock ----------------------------------------------------------------- */

static tuned_choice choice_at(const void *context, int index)
{
    const profile *p = context;

    return p->lines[index].chosen;
}

static void use(const profile *p, const char *name)
{
    state.used = *p;
    state.is_used = true;
    copy(state.name, sizeof state.name, name);
    state.refused[0] = 0;
    ballast__tuning_replace(p->count, choice_at, p);
}

static void forget(void)
{
    state.is_used = false;
    state.refused[0] = 0;
    ballast__tuning_replace(0, NULL, NULL);
}

/* Where it is refused, `reason` may be state.reason. */
static ballast_status read_profile(const char *path, profile *out, const char **reason)
{
    const ssize_t size = read_file(path, reason);

    if (size < 0)
        return BALLAST_ERR_FILE;
    *reason = "it is larger than any profile";
    if (size > PROFILE_BYTES)
        return BALLAST_ERR_PROFILE;
    ballast__profile_machine(&state.machine);
    *reason = state.reason;
    return ballast__profile_parse(state.bytes, (size_t)size, &state.machine, out, state.reason)
               ? BALLAST_OK : BALLAST_ERR_PROFILE;
}

static ballast_status load(const char *path)
{
    const char *reason = NULL;

    if (state.off)
        return ignore(path, BALLAST_ERR_PROFILE, "BALLAST_PROFILE is off");
    const ballast_status status = read_profile(path, &state.incoming, &reason);
    if (status != BALLAST_OK)
        return ignore(path, status, reason);
    use(&state.incoming, path);
    return BALLAST_OK;
}

/* Of a profile, or where it is NULL of the one in force. */
static ballast_status save(const profile *p, const char *path, const char **reason)
{
    text t = text_of(state.bytes, sizeof state.bytes);

    ballast__profile_machine(&state.machine);
    if (!p && !state.is_used) {
        state.used.cores = state.machine.cores;
        state.used.count = 0;
    }
    ballast__profile_format(p ? p : &state.used, &state.machine, &t);
    if (replace_file(path, state.bytes, t.length))
        return BALLAST_OK;
    *reason = text_of_errno(errno);
    return BALLAST_ERR_FILE;
}

static void describe_used(text *t)
{
    append(t, "profile ");
    append(t, state.name);
    append(t, ": ");
    append_integer(t, (uint64_t)state.used.count, 1);
    append(t, state.used.count == 1 ? " choice in force" : " choices in force");
    append(t, ", made with ");
    append_integer(t, (uint64_t)state.used.cores, 1);
    append(t, state.used.cores == 1 ? " usable core\n" : " usable cores\n");
    for (int i = 0; i < state.used.count; i++) {
        ballast__profile_format_line(&state.used.lines[i], t);
        append(t, "\n");
    }
}

static void describe(text *t)
{
    if (state.is_used)
        describe_used(t);
    else if (state.off)
        append(t, "no profile, as BALLAST_PROFILE is off: the analytical default is in force\n");
    else
        append(t, "no profile: the analytical default is in force\n");
    if (*state.refused) {
        append(t, "ignored: ");
        append(t, state.refused);
        append(t, ": ");
        append(t, state.reason);
        append(t, "\n");
    }
}

/* ---- First use ------------------------------------------------------------------------------- */

/* A program with more rights than its user reads no file of the user's choice. */
static const char *variable(void)
{
#if defined(__linux__)
    return secure_getenv("BALLAST_PROFILE");
#else
    return getenv("BALLAST_PROFILE");
#endif
}

void ballast__profile_begin(void)
{
    const char *const value = variable();

    if (!value || !*value)
        return;
    const visit v = enter();
    state.off = strcmp(value, "off") == 0;
    if (state.off)
        forget();
    else if (!state.replaced)
        (void)load(value);
    leave(&v);
}

/* BALLAST_PROFILE comes before whatever the program says, and before the lock. */
static visit enter_after_first_use(void)
{
    (void)ballast__isas();
    return enter();
}

void ballast__profile_use(const profile *p, const char *name)
{
    const visit v = enter_after_first_use();

    state.replaced = true;
    use(p, name);
    leave(&v);
}

bool ballast__profile_read(const char *path, profile *out, char reason[PROFILE_REASON])
{
    const char *why = "";
    const visit v = enter_after_first_use();
    const ballast_status status = read_profile(path, out, &why);

    copy(reason, PROFILE_REASON, status == BALLAST_OK ? "" : why);
    leave(&v);
    return status == BALLAST_OK;
}

bool ballast__profile_write(const char *path, const profile *p, char reason[PROFILE_REASON])
{
    const char *why = "";
    const visit v = enter_after_first_use();
    const ballast_status status = save(p, path, &why);

    copy(reason, PROFILE_REASON, why);
    leave(&v);
    return status == BALLAST_OK;
}

/* ---- Public ---------------------------------------------------------------------------------- */

ballast_status ballast_profile_load(const char *path)
{
    if (!path)
        return BALLAST_ERR_NULL;
    const visit v = enter_after_first_use();
    state.replaced = true;
    const ballast_status status = load(path);
    leave(&v);
    return status;
}

ballast_status ballast_profile_save(const char *path)
{
    if (!path)
        return BALLAST_ERR_NULL;
    const visit v = enter_after_first_use();
    const char *reason = NULL;
    const ballast_status status = save(NULL, path, &reason);
    leave(&v);
    return status;
}

size_t ballast_profile_describe(char *out, size_t size)
{
    text t = {out, out ? size : 0, 0};
    const visit v = enter_after_first_use();

    append(&t, "");
    describe(&t);
    leave(&v);
    return t.length;
}

void ballast_profile_reset(void)
{
    const visit v = enter_after_first_use();

    state.replaced = true;
    forget();
    leave(&v);
}
