#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The training example must show what class-balancing is for: at least 3 points less balanced test
# error than plain cross-entropy, mean of five seeds.
#
# usage: tests/training.sh TRAIN_DIGITS DATA
set -euo pipefail

output=$("$1" "$2")
# the row "all": name, then mean, +-, deviation of plain, then of class-balanced
read -r plain balanced < <(awk '$1 == "all" { print $3, $6 }' <<<"$output")
echo "# balanced test error: plain $plain %, class-balanced $balanced %"
awk -v plain="$plain" -v balanced="$balanced" 'BEGIN { exit !(plain - balanced >= 3) }'
