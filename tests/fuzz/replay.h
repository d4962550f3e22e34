/* SPDX-License-Identifier: MIT */
/* Makes a fuzz target a program that runs the files and folders named as its arguments. */
#include <dirent.h>
#include <sys/stat.h>

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return 1;
    }
    static uint8_t bytes[1 << 20];
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    printf("%s\n", path); /* the last line before a crash names the file */
    fflush(stdout);
    LLVMFuzzerTestOneInput(bytes, n);
    return 0;
}

static int replay(const char *path)
{
    struct stat st;
    DIR *d = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? opendir(path) : NULL;
    if (!d)
        return replay_file(path);
    int failed = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char inner[4096];
        if (e->d_name[0] == '.')
            continue;
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        failed |= replay(inner);
    }
    closedir(d);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= replay(argv[i]);
    return failed;
}
