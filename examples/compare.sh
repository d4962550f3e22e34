#!/bin/sh
# SPDX-License-Identifier: MIT
#
# A gate for continuous integration: fails where a new Ballast is slower than the one in use, or has
# other bits. Copy it, and keep the library that you ship as OLD.
#
#   examples/compare.sh old/libballast.so new/libballast.so --filter cross_entropy
#
# A shared machine can be too noisy to tell. Then the same is measured for longer, and after the last
# try the gate opens with a warning: what cannot be told is no regression.
#
#   BALLAST                the command (default ballast)
#   SECONDS_PER_CASE       for the first try (default 1)
#   GITHUB_STEP_SUMMARY    a file that the table is added to, in Markdown; GitHub Actions sets it
set -eu

if [ $# -lt 2 ]; then
    echo "usage: compare.sh OLD NEW [OPTION of ballast compare...]" >&2
    exit 2
fi
table=$(mktemp)
trap 'rm -f "$table"' EXIT

seconds=${SECONDS_PER_CASE:-1}
for try in 1 2 3; do
    status=0
    "${BALLAST:-ballast}" compare "$@" --seconds "$seconds" --markdown="$table" || status=$?
    [ "$status" -eq 3 ] || break
    seconds=$(awk "BEGIN { print 3 * $seconds }")
done

if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -s "$table" ]; then
    cat "$table" >>"$GITHUB_STEP_SUMMARY"
fi
if [ "$status" -eq 3 ]; then
    echo "compare.sh: too noisy to tell after $try tries" >&2
    exit 0
fi
exit "$status"
