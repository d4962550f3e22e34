/* SPDX-License-Identifier: MIT */
/* From results to the lines of a profile. */
#ifndef BALLAST_TOOLS_TUNE_PROFILE_H
#define BALLAST_TOOLS_TUNE_PROFILE_H

#include "../dispatch/profile.h"
#include "tune_output.h"

/* Changes the lines that the results decide; what else stands in `p` stays. Returns how many
 * choices of an operation and dtype were left out, as a profile has room for 1024 lines. Afterwards
 * the defaults are in force. */
int tune_profile_merge(profile *p, const tune_results *r);

#endif
