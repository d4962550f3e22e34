/* SPDX-License-Identifier: MIT */
/* ballast: the sub-commands. */
#include "ballast/ballast.h"
#include "bench.h"
#include "check.h"
#include "compare.h"
#include "info.h"
#include "loss.h"
#include "options.h"
#include "output.h"
#include "tune.h"
#include "weights.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} commands[] = {
    {"info", info_main, "what the CPU can do, and which implementation is used"},
    {"weights", weights_main, "class-balanced weights of a data set"},
    {"loss", loss_main, "losses and gradients of logits in a file"},
    {"check", check_main, "check this machine's results against those expected"},
    {"bench", bench_main, "time and cycles of each implementation"},
    {"tune", tune_main, "what this machine does best, into a profile"},
    {"compare", compare_main, "two libraries, or two runs: has anything become slower?"},
};

enum { COMMANDS = sizeof commands / sizeof commands[0], COLUMN = 12 };

static void print_usage(FILE *out)
{
    const char *head = output_style(out, STYLE_HEAD), *plain = output_style(out, STYLE_PLAIN);
    fprintf(out, "%sUsage:%s ballast COMMAND [arguments] [options]\n\n", head, plain);
    output_wrap(out, "Loss kernels for CPUs: losses, gradients and class-balanced weights of NumPy "
                     "files. Results are the same bits on every CPU.", 0, 0);
    fprintf(out, "\n%sCommands:%s\n", head, plain);
    for (int i = 0; i < COMMANDS; i++) {
        int column = fprintf(out, "  %s", commands[i].name);
        fprintf(out, "%*s", COLUMN - column, "");
        output_wrap(out, commands[i].about, COLUMN, COLUMN);
    }
    fprintf(out, "\n%sOptions:%s\n  --help      print this text\n  --version   print the version\n",
            head, plain);
    fprintf(out, "\nballast COMMAND --help tells more. Exit codes: 0 good, 1 a check failed,\n"
                 "2 wrong usage or input, 3 too noisy to tell.\n");
}

static int refuse_command(const char *name)
{
    const char *names[COMMANDS + 1] = {NULL};
    for (int i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    if (name[0] == '-')
        return complain("unknown option '%s' (see ballast --help)", name);
    const char *meant = suggestion(name, names);
    if (meant)
        return complain("unknown command '%s' (did you mean '%s'?)", name, meant);
    return complain("unknown command '%s' (see ballast --help)", name);
}

/* A closed standard stream would let a file take its number. Standard output is replaced by one
 * that cannot be written, so that the report is not lost in silence. */
static void keep_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == 1 ? O_RDONLY : O_RDWR) < 0)
            _exit(EXIT_BAD_INPUT);
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_BAD_INPUT;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage(stdout);
        return EXIT_GOOD;
    }
    if (strcmp(name, "--version") == 0) {
        printf("ballast %s\n", ballast_version());
        return EXIT_GOOD;
    }
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    return refuse_command(name);
}

int main(int argc, char **argv)
{
    keep_standard_streams();
    signal(SIGPIPE, SIG_IGN); /* writing then fails, which is told, and cleaned up after */
    signal(SIGXFSZ, SIG_IGN);
    return output_finish(run(argc, argv));
}
