/* SPDX-License-Identifier: MIT */
/* The user's own profile of this machine, where `ballast tune` writes it. */
#ifndef BALLAST_TOOLS_USER_PROFILE_H
#define BALLAST_TOOLS_USER_PROFILE_H

#include <stdbool.h>
#include <stddef.h>

/* $XDG_CACHE_HOME/ballast/<CPU>-<build>.profile, or in ~/.cache; <CPU> is a number made of the CPU
 * and its caches. For homes are shared between machines, and machines between builds of the
 * library, each of which ignores the profiles of the others. False where there is no home. */
bool user_profile_path(char *path, size_t size);

/* Makes the folders that lead to a file. False where that is not possible. */
bool user_profile_make_folders(const char *path);

/* Puts it in force where it is there and BALLAST_PROFILE is not set. */
void user_profile_load(void);

#endif
