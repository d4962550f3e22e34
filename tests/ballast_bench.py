#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of ballast-bench, whose path is the argument: everyone runs, and what is wrong is refused."""
import json
import subprocess
import sys

PROGRAM = sys.argv[1]


def run(*args):
    return subprocess.run([PROGRAM, *args], capture_output=True, text=True)


def benchmarks(*args):
    r = run("--benchmark_format=json", "--benchmark_min_time=0.001", *args)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)["benchmarks"]


def contenders(problem):
    found = benchmarks("--problem=" + problem)
    for b in found:
        assert "error_message" not in b, b
        assert b["cycles_per_element"] > 0 and b["bytes_per_second"] > 0, b
    return [b["name"].split("/")[1] for b in found]


listed = run("--benchmark_list_tests").stdout.split("\n")
for operation in ("softmax", "log_softmax", "log_sum_exp", "cross_entropy", "binary_cross_entropy",
                  "sigmoid_focal", "weighted_sum", "dot"):
    assert any(name.startswith(operation + ":f32:") for name in listed), operation
assert len(set(listed)) == len(listed)

assert {"ballast", "fast-math"} <= set(contenders("softmax:f32:rows=30,classes=7"))
assert "scale" in contenders("cross_entropy:f32:rows=30,classes=7,inplace=1")
assert "read" in contenders("dot:f32:count=1000")
assert set(contenders("cross_entropy:f32:rows=30,classes=7,threads=2")) >= {"ballast", "fast-math"}

nothing = benchmarks("--problem=softmax:f32:rows=0")
assert nothing and all(b["error_message"] == "has no elements to measure" for b in nothing)
for argument, message in (("--problem=sum:f32", "--problem: 'sum:f32': sum: no such operation"),
                          ("--problem=softmax:f32:rows=x", "rows=x: not a number"),
                          ("--pages=8k", "--pages: neither 4k nor huge: '8k'")):
    r = run(argument)
    assert r.returncode == 2 and message in r.stderr, r.stderr
