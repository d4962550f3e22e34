/* SPDX-License-Identifier: MIT */
/* From results to the lines of a profile. */
#ifndef BALLAST_TOOLS_TUNE_PROFILE_H
#define BALLAST_TOOLS_TUNE_PROFILE_H

#include "../dispatch/profile.h"
#include "tune_output.h"

/* Changes the lines that the results decide; what else stands in `p` stays. */
void tune_profile_merge(profile *p, const tune_results *r);

#endif
