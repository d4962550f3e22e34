#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of the `ballast` command. BALLAST_TOOL names the binary.

Arrays are made by hand, and expected numbers are computed here with math.fsum.
"""
import fcntl
import json
import math
import os
import pty
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
import xml.etree.ElementTree

TOOL = os.environ.get("BALLAST_TOOL", "")
FORMATS = {"<f2": "e", "<f4": "f", "<f8": "d", "<i4": "i", "<i8": "q", "|u1": "B"}
SEED = 20190616


# ---- .npy files ----------------------------------------------------------------------------------

def npy_header(dtype, shape, fortran=False):
    text = "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }" % (dtype, fortran, tuple(shape))
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def npy_bytes(dtype, shape, values, fortran=False):
    return npy_header(dtype, shape, fortran) + struct.pack(
        "<%d%s" % (len(values), FORMATS[dtype]), *values)


def npy_read(path):
    with open(path, "rb") as f:
        data = f.read()
    length = struct.unpack("<H", data[8:10])[0]
    head = eval(data[10:10 + length].decode(), {"__builtins__": {}})  # our own output
    code = FORMATS[head["descr"]]
    body = data[10 + length:]
    count = len(body) // struct.calcsize(code)
    return head["descr"], head["shape"], list(struct.unpack("<%d%s" % (count, code), body))


class Random:
    """The same numbers with every Python."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n

    def logit(self):
        return struct.unpack("f", struct.pack("f", (self.below(20001) - 10000) / 1250.0))[0]


# ---- Reference -----------------------------------------------------------------------------------

def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def softmax_row(x, y):
    top = max(x)
    return top + math.log(math.fsum(math.exp(v - top) for v in x)) - x[y]


def softmax_grad(x, y):
    top = max(x)
    total = math.fsum(math.exp(v - top) for v in x)
    return [math.exp(v - top) / total - (j == y) for j, v in enumerate(x)]


def sigmoid_row(x, y):
    return math.fsum(softplus(-v if j == y else v) for j, v in enumerate(x))


def soft_row(x, t):
    return math.fsum(s * softplus(-v) + (1 - s) * softplus(v) for v, s in zip(x, t))


def focal_element(v, positive, gamma, alpha):
    z = v if positive else -v
    a = 1.0 if alpha is None else alpha if positive else 1 - alpha
    return a * math.exp(-gamma * softplus(z)) * softplus(-z)


def focal_row(x, y, gamma=2.0, alpha=0.25):
    return math.fsum(focal_element(v, j == y, gamma, alpha) for j, v in enumerate(x))


def effective(beta, n):
    return float(n) if beta == 1 else math.fsum(beta**k for k in range(n))


def class_weights(beta, counts):
    inverse = [1 / effective(beta, n) if n else 0.0 for n in counts]
    scale = sum(1 for n in counts if n) / math.fsum(inverse)
    return [scale * v for v in inverse]


# ---- Frame ---------------------------------------------------------------------------------------

class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


class ToolTest(unittest.TestCase):
    ROWS, CLASSES = 37, 7

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ballast-tool-")
        self.addCleanup(shutil.rmtree, self.folder)
        r = Random(SEED)
        self.x = [[r.logit() for _ in range(self.CLASSES)] for _ in range(self.ROWS)]
        self.y = [i % self.CLASSES if i < 2 * self.CLASSES else r.below(3)
                  for i in range(self.ROWS)]
        self.counts = [self.y.count(c) for c in range(self.CLASSES)]
        self.logits = self.npy("logits.npy", "<f4", (self.ROWS, self.CLASSES), sum(self.x, []))
        self.labels = self.npy("labels.npy", "<i8", (self.ROWS,), self.y)

    def path(self, name):
        return os.path.join(self.folder, name)

    def file(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return name

    def npy(self, name, dtype, shape, values, **how):
        return self.file(name, npy_bytes(dtype, shape, values, **how))

    def run_tool(self, *args, env=None, **how):
        how.setdefault("stdout", subprocess.PIPE)
        own = {"XDG_CACHE_HOME": self.path("cache")}  # no profile of the user's
        p = subprocess.run([TOOL, *map(str, args)], stderr=subprocess.PIPE, cwd=self.folder,
                           env={**os.environ, **own, **(env or {})}, **how)
        return Result(p.returncode, (p.stdout or b"").decode(), p.stderr.decode())

    def good(self, *args, **how):
        r = self.run_tool(*args, **how)
        self.assertEqual((r.code, r.err), (0, ""))
        return r.out

    def json(self, *args, **how):
        def refuse(text):
            raise ValueError("%s is not JSON" % text)
        return json.loads(self.good(*args, "--json", **how), parse_constant=refuse)

    def bad(self, message, *args, **how):
        """The line, exactly; nothing on stdout; exit code 2; nothing left behind."""
        before = sorted(os.listdir(self.folder))
        r = self.run_tool(*args, **how)
        self.assertEqual(r.err, "ballast: " + message + "\n")
        self.assertEqual((r.code, r.out), (2, ""))
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def near(self, got, want, tolerance=2e-6):
        self.assertLessEqual(abs(got - want), tolerance * max(abs(want), 1e-3), (got, want))


# ---- info, help ----------------------------------------------------------------------------------

class Info(ToolTest):
    def test_text(self):
        out = self.good("info")
        for word in ("CPU", "vendor", "features", "Implementations", "scalar", "BALLAST_ISA",
                     "not set", "CPU quota", "threads"):
            self.assertIn(word, out)

    def test_json(self):
        info = self.json("info")
        used = [i["name"] for i in info["implementations"] if i["used"]]
        self.assertEqual(used, [info["isa"]])
        self.assertTrue(all(i["reason"] for i in info["implementations"]))
        self.assertGreaterEqual(info["process"]["threads"], 1)
        self.assertGreaterEqual(info["machine"]["cores"], 1)
        allowed = len(os.sched_getaffinity(0))
        self.assertEqual(info["process"]["hardware_threads"], allowed)
        self.assertLessEqual(info["process"]["threads"], allowed)

    def test_affinity(self):
        cpu = min(os.sched_getaffinity(0))
        info = self.json("info", preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
        self.assertEqual(info["process"]["hardware_threads"], 1)
        self.assertEqual(info["process"]["threads"], 1)

    def test_no_more_threads(self):
        """Where the system does not give as many as asked for, those that there are do."""
        room = 200 << 20  # of addresses: stacks of 8 MiB
        files = [self.logits, self.labels]
        out = self.good("loss", *files, "--threads", 64, timeout=60,
                        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (room, room)))
        self.assertEqual(out, self.good("loss", *files, "--threads", 1))

    def test_ballast_isa(self):
        info = self.json("info", env={"BALLAST_ISA": "scalar"})
        self.assertEqual((info["isa"], info["ballast_isa"]), ("scalar", "scalar"))
        self.assertIn("named by BALLAST_ISA", self.good("info", env={"BALLAST_ISA": "scalar"}))

    def test_ballast_profile(self):
        self.assertIn("no profile: the analytical default", self.good("info"))
        info = self.json("info", env={"BALLAST_PROFILE": "off"})
        self.assertEqual(info["ballast_profile"], "off")
        self.assertEqual(len(info["profile"]), 1)
        self.assertIn("BALLAST_PROFILE is off", info["profile"][0])
        info = self.json("info", env={"BALLAST_PROFILE": "/none there"})
        self.assertEqual(len(info["profile"]), 2)
        self.assertIn("no such file", info["profile"][1])

    def test_last_cache(self):
        """What the library counts on, where it is less; and sizes that differ."""
        cache, text = self.json("info")["last_cache"], self.good("info")
        told = [cache[who] for who in ("cpu", "os") if cache[who]]
        self.assertEqual("the library counts on" in text, cache["taken"] < cache["bytes"])
        self.assertEqual("sizes differ: " in text, max(told, default=0) >= 2 * min(told, default=1))

    def test_version(self):
        self.assertRegex(self.good("--version"), r"^ballast \d+\.\d+\.\d+\n$")
        self.assertEqual(self.json("info")["version"], self.good("--version").split()[1])

    def test_help_width(self):
        for args in ([], ["info"], ["weights"], ["loss"], ["check"], ["bench"], ["compare"], ["tune"]):
            out = self.good(*args, "--help").split("PROBLEM is")[0]
            self.assertIn("Usage:", out)
            for line in out.split("\n"):
                self.assertTrue(len(line) <= 80 or line.startswith("  ballast "), (args, line))
            if args:
                self.assertIn("Examples:", out)

    def test_help_of_threads(self):
        """Who says "the cores" and takes one thread misleads."""
        for command, default in (("loss", "cores"), ("tune", "cores"), ("bench", "problem"),
                                 ("compare", "problem"), ("check", "problem"), ("weights", None)):
            out = re.sub(r"\s+", " ", self.good(command, "--help"))
            found = re.search(r"--threads N [^()]*\(default: (?:the |as many as the )(\w+)", out)
            self.assertEqual(found and found[1], default, command)


# ---- weights -------------------------------------------------------------------------------------

class Weights(ToolTest):
    COUNTS = [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]
    LIST = ",".join(map(str, COUNTS))

    def check(self, got, beta, counts, want):
        self.assertEqual([c["class"] for c in got["per_class"]], list(range(len(counts))))
        self.assertEqual([c["count"] for c in got["per_class"]], counts)
        for c, n, w in zip(got["per_class"], counts, want):
            self.near(c["effective_number"], effective(beta, n), 1e-14)
            self.near(c["weight"], w, 1e-14)

    def test_list(self):
        for beta in (0, 0.9, 0.99, 0.999, 0.9999, 1):
            got = self.json("weights", "--beta", beta, "--counts", self.LIST)
            self.check(got, beta, self.COUNTS, class_weights(beta, self.COUNTS))

    def test_paper(self):
        got = self.json("weights", "--beta", "0.9999", "--counts", self.LIST)["per_class"]
        want = [.089030, .126678, .185257, .276057, .416751, .634413, .969534, 1.489447,
                2.292256, 3.520576]
        for c, w in zip(got, want):
            self.assertAlmostEqual(c["weight"], w, 6)

    def test_table(self):
        lines = self.good("weights", "--beta", "0.999", "--counts", "30,100,25").splitlines()
        self.assertEqual(lines[0].split(), ["class", "count", "effective", "number", "weight"])
        self.assertEqual(len({len(line) for line in lines}), 1, "columns are aligned")
        self.assertEqual([float(line.split()[3]) for line in lines[1:]],
                         [1.196368093, 0.3715601836, 1.432071724])

    def test_count_files(self):
        for dtype in ("<i4", "<i8", "<f4", "<f8", "|u1"):
            self.npy("counts.npy", dtype, (3,), [30, 100, 25])
            got = self.json("weights", "--beta", "0.9", "--counts", "counts.npy")
            self.check(got, 0.9, [30, 100, 25], class_weights(0.9, [30, 100, 25]))

    def test_labels(self):
        for dtype in ("<i4", "<i8", "|u1"):
            self.npy("l.npy", dtype, (5,), [0, 2, 2, 1, 2])
            got = self.json("weights", "--beta", "0.5", "--labels", "l.npy")
            self.check(got, 0.5, [1, 1, 3], class_weights(0.5, [1, 1, 3]))

    def test_labels_ignored(self):
        self.npy("l.npy", "<i4", (5,), [0, -100, 1, 7, 1])
        got = self.json("weights", "--beta", "0.5", "--labels", "l.npy", "--classes", 8,
                        "--empty-class", "zero")
        self.assertEqual([c["count"] for c in got["per_class"]], [1, 2, 0, 0, 0, 0, 0, 1])
        self.bad("l.npy: row 1: label -100 is outside [0, 2)", "weights", "--beta", "0.5",
                 "--labels", "l.npy", "--ignore-index", 7)

    def test_empty_class(self):
        zero = self.json("weights", "--beta", ".9", "--counts", "4,0,2", "--empty-class", "zero")
        self.check(zero, 0.9, [4, 0, 2], class_weights(0.9, [4, 0, 2]))
        one = self.json("weights", "--beta", ".9", "--counts", "4,0,2", "--empty-class", "one")
        for c, w in zip(one["per_class"], class_weights(0.9, [4, 1, 2])):
            self.near(c["weight"], w, 1e-14)
        self.bad("--counts: class 1: count 0 (--empty-class zero or one allows it)",
                 "weights", "--beta", ".9", "--counts", "4,0,2")
        self.npy("l.npy", "<i4", (2,), [0, 2])
        self.bad("l.npy: class 1: no label (--empty-class zero or one allows it)",
                 "weights", "--beta", ".9", "--labels", "l.npy")

    def test_out(self):
        for dtype, size in (("f4", "f"), ("f8", "d")):
            got = self.json("weights", "--beta", ".99", "--counts", self.LIST, "--out", "w.npy",
                            "--dtype", dtype)
            shown = [c["weight"] for c in got["per_class"]]
            want = [struct.unpack(size, struct.pack(size, w))[0] for w in shown]
            self.assertEqual(npy_read(self.path("w.npy")), ("<" + dtype, (10,), want))

    def test_bad(self):
        for message, args in (
                ("--beta is missing (see ballast weights --help)", ["--counts", "1,2"]),
                ("--beta: 1.5 is outside [0, 1]", ["--beta", "1.5", "--counts", "1,2"]),
                ("--beta: nan is outside [0, 1]", ["--beta", "nan", "--counts", "1,2"]),
                ("--beta: 'x' is not a number", ["--beta", "x"]),
                ("give either --counts or --labels", ["--beta", ".9"]),
                ("give either --counts or --labels",
                 ["--beta", ".9", "--counts", "1", "--labels", "labels.npy"]),
                ("--counts: class 1: count -3 is negative", ["--beta", ".9", "--counts", "5,-3"]),
                ("--counts: class 1: count nan is not a whole number",
                 ["--beta", ".9", "--counts", "5,nan,2"]),
                ("--counts: class 0: count 1.5 is not a whole number",
                 ["--beta", ".9", "--counts", "1.5,2"]),
                ("--counts: class 1: count '' is not a whole number",
                 ["--beta", ".9", "--counts", "1,,2"]),
                ("--counts: class 2: count x is not a whole number",
                 ["--beta", ".9", "--counts", "1,2,x"]),
                ("--counts: class 0: count 1e+30 is too large",
                 ["--beta", ".9", "--counts", "1e30,2"]),
                ("none.npy: cannot open: No such file or directory",
                 ["--beta", ".9", "--counts", "none.npy"]),
                ("--out: ./labels.npy is an input: write to another file",
                 ["--beta", ".9", "--labels", "labels.npy", "--out", "./labels.npy"]),
                ("--out: - is standard output, which holds the report",
                 ["--beta", ".9", "--counts", "1,2", "--out", "-"]),
                ("--classes goes with --labels, not with --counts",
                 ["--beta", ".9", "--counts", "1,2", "--classes", "2"]),
                ("--dtype goes with --out", ["--beta", ".9", "--counts", "1,2", "--dtype", "f8"]),
                ("--counts: the name of the file is empty", ["--beta", ".9", "--counts", ""]),
                ("--labels: the name of the file is empty", ["--beta", ".9", "--labels="]),
                ("--empty-class: 'zeros' is none of error, zero, one (did you mean 'zero'?)",
                 ["--beta", ".9", "--counts", "1,2", "--empty-class", "zeros"]),
                ("labels.npy: row 3: label 3 is outside [0, 3)",
                 ["--beta", ".9", "--labels", "labels.npy", "--classes", "3"])):
            with self.subTest(args=args):
                self.bad(message, "weights", *args)

    def test_bad_files(self):
        self.npy("nan.npy", "<f8", (2,), [3.0, math.nan])
        self.bad("nan.npy: class 1: count nan is not a whole number",
                 "weights", "--beta", ".9", "--counts", "nan.npy")
        self.npy("neg.npy", "<f4", (2,), [-3.0, 1.0])
        self.bad("neg.npy: class 0: count -3 is negative",
                 "weights", "--beta", ".9", "--counts", "neg.npy")
        self.npy("two.npy", "<i4", (2, 1), [1, 2])
        self.bad("two.npy: shape (2, 1): want 1 dimension",
                 "weights", "--beta", ".9", "--counts", "two.npy")
        self.npy("far.npy", "<i8", (2,), [1, 2**40])
        self.bad("far.npy: row 1: label 1099511627776 would make too many classes: say how many "
                 "with --classes", "weights", "--beta", ".9", "--labels", "far.npy")


# ---- loss ----------------------------------------------------------------------------------------

class Loss(ToolTest):
    def rows(self, function, weights=None):
        return [(weights[y] if weights else 1.0) * function(x, y) for x, y in zip(self.x, self.y)]

    def check_classes(self, got, rows, weights):
        for c in range(self.CLASSES):
            mine = [v for v, y in zip(rows, self.y) if y == c]
            entry = got["per_class"][c]
            self.assertEqual((entry["class"], entry["rows"]), (c, len(mine)))
            self.near(entry["mean_loss"], math.fsum(mine) / len(mine))
            self.near(entry["weight"], weights[c] if weights else 1.0)

    def check(self, function, *args, denominator, weights=None):
        got = self.json("loss", self.logits, self.labels, *args)
        rows = self.rows(function, weights)
        self.near(got["loss"], math.fsum(rows) / denominator)
        self.check_classes(got, rows, weights)
        self.assertEqual((got["rows"], got["counted_rows"], got["classes"]),
                         (self.ROWS, self.ROWS, self.CLASSES))

    def test_plain(self):
        elements = self.ROWS * self.CLASSES
        self.check(softmax_row, denominator=self.ROWS)
        self.check(softmax_row, "--reduction", "sum", denominator=1)
        self.check(sigmoid_row, "--loss", "sigmoid", denominator=elements)
        self.check(sigmoid_row, "--loss", "bce", denominator=elements)
        self.check(focal_row, "--loss", "focal", denominator=elements)
        self.check(lambda x, y: focal_row(x, y, 1.5, None), "--loss", "focal", "--gamma", "1.5",
                   "--alpha", "off", denominator=elements)

    def test_balanced(self):
        w = class_weights(0.9, self.counts)
        beta = ["--beta", "0.9"]
        self.check(softmax_row, *beta, denominator=self.ROWS, weights=w)
        self.check(sigmoid_row, "--loss", "sigmoid", *beta, denominator=self.ROWS, weights=w)
        self.check(lambda x, y: focal_row(x, y, 2, None), "--loss", "focal", *beta,
                   denominator=self.ROWS, weights=w)
        given = [30, 100, 25, 7, 1, 2, 3]
        self.check(softmax_row, *beta, "--counts", ",".join(map(str, given)),
                   denominator=self.ROWS, weights=class_weights(0.9, given))

    def test_paper(self):
        self.npy("x.npy", "<f8", (2, 3), [.78, .1, .05, .78, .83, .05])
        self.npy("y.npy", "<i4", (2,), [0, 2])
        for loss, want in (("softmax", 1.599431860650), ("sigmoid", 3.261559572710),
                           ("focal", 1.175118066658)):
            r = self.run_tool("loss", "x.npy", "y.npy", "--loss", loss, "--beta", ".999",
                              "--counts", "30,100,25", "--json")
            if "built without f64" in r.err:
                self.skipTest("f64 is not built in")
            self.near(json.loads(r.out)["loss"], want, 1e-11)

    def test_denominators(self):
        weights = [0.5, 2, 1, 1, 3, 1, 0]
        self.npy("w.npy", "<f4", (7,), weights)
        total = math.fsum(self.rows(softmax_row, weights))
        for name, d in (("weight-sum", math.fsum(weights[y] for y in self.y)), ("rows", self.ROWS),
                        ("counted-rows", self.ROWS), ("positives", self.ROWS),
                        ("elements", self.ROWS * self.CLASSES), ("12.5", 12.5)):
            got = self.json("loss", self.logits, self.labels, "--weights", "w.npy",
                            "--denominator", name)
            self.near(got["loss"], total / d)

    def test_label_types(self):
        want = self.good("loss", self.logits, self.labels)
        for dtype in ("<i4", "|u1"):
            self.npy("l.npy", dtype, (self.ROWS,), self.y)
            self.assertEqual(self.good("loss", self.logits, "l.npy"), want)

    def test_outputs(self):
        self.good("loss", self.logits, self.labels, "--grad-out", "g.npy", "--row-loss-out",
                  "r.npy")
        dtype, shape, grad = npy_read(self.path("g.npy"))
        self.assertEqual((dtype, shape), ("<f4", (self.ROWS, self.CLASSES)))
        want = sum((softmax_grad(x, y) for x, y in zip(self.x, self.y)), [])
        for g, w in zip(grad, want):
            self.near(g * self.ROWS, w)
        dtype, shape, rows = npy_read(self.path("r.npy"))
        self.assertEqual((dtype, shape), ("<f4", (self.ROWS,)))
        for r, w in zip(rows, self.rows(softmax_row)):
            self.near(r, w)
        self.assertEqual(sorted(os.listdir(self.folder)),
                         ["g.npy", "labels.npy", "logits.npy", "r.npy"])

    def test_half_precision(self):
        """Logits and targets of f2: the loss of the same numbers in f4, and their gradient once rounded."""
        r, shape = Random(SEED + 2), (self.ROWS, self.CLASSES)
        x = [round(r.logit() * 8) / 8 for _ in range(self.ROWS * self.CLASSES)]
        t = [r.below(5) / 4 for _ in x]
        for dtype in ("<f2", "<f4"):
            self.npy("x%s.npy" % dtype[1:], dtype, shape, x)
            self.npy("t%s.npy" % dtype[1:], dtype, shape, t)
        out = "--grad-out", "g.npy", "--row-loss-out", "r.npy"
        for how in ((self.labels, "--beta", ".99"), (self.labels, "--loss", "focal"),
                    ("t%s.npy", "--loss", "bce")):
            results = []
            for kind in ("f4", "f2"):
                labels = how[0].replace("%s", kind)
                text = self.good("loss", "x%s.npy" % kind, labels, *how[1:], *out)
                results.append((text, npy_read(self.path("r.npy")), npy_read(self.path("g.npy"))))
            (text, rows, wide), (half_text, half_rows, narrow) = results
            self.assertEqual((text, rows), (half_text, half_rows))
            self.assertEqual(narrow[:2], ("<f2", shape))
            self.assertEqual(list(narrow[2]), list(struct.unpack(
                "<%de" % len(x), struct.pack("<%de" % len(x), *wide[2]))))
        t[100] = 1.5
        self.npy("t.npy", "<f2", shape, t)
        self.bad("t.npy: row 14, class 2: target 1.5 is outside [0, 1]", "loss", "xf2.npy",
                 "t.npy", "--loss", "bce")

    def test_none(self):
        got = self.json("loss", self.logits, self.labels, "--reduction", "none",
                        "--row-loss-out", "r.npy")
        self.assertNotIn("loss", got)
        self.check_classes(got, self.rows(softmax_row), None)
        for r, w in zip(npy_read(self.path("r.npy"))[2], self.rows(softmax_row)):
            self.near(r, w)

    def test_targets(self):
        r = Random(SEED + 1)
        hard = [[r.below(2) for _ in range(self.CLASSES)] for _ in range(self.ROWS)]
        soft = [[r.below(5) / 4 for _ in range(self.CLASSES)] for _ in range(self.ROWS)]
        shape, elements = (self.ROWS, self.CLASSES), self.ROWS * self.CLASSES
        for dtype in ("|u1", "<f4"):
            self.npy("t.npy", dtype, shape, sum(hard, []))
            got = self.json("loss", self.logits, "t.npy", "--loss", "sigmoid")
            self.near(got["loss"], math.fsum(map(soft_row, self.x, hard)) / elements)
            self.assertNotIn("per_class", got)
            got = self.json("loss", self.logits, "t.npy", "--loss", "focal", "--reduction", "sum")
            want = math.fsum(focal_element(v, t, 2, .25) for x, ts in zip(self.x, hard)
                             for v, t in zip(x, ts))
            self.near(got["loss"], want)
        self.npy("t.npy", "<f4", shape, sum(soft, []))
        got = self.json("loss", self.logits, "t.npy", "--loss", "bce", "--grad-out", "g.npy",
                        "--row-loss-out", "r.npy")
        self.near(got["loss"], math.fsum(map(soft_row, self.x, soft)) / elements)
        for r, w in zip(npy_read(self.path("r.npy"))[2], map(soft_row, self.x, soft)):
            self.near(r, w)

    def test_ignored_rows(self):
        labels = [-100 if i % 3 == 0 else y for i, y in enumerate(self.y)]
        self.npy("l.npy", "<i8", (self.ROWS,), labels)
        got = self.json("loss", self.logits, "l.npy")
        rows = [softmax_row(x, y) for x, y in zip(self.x, labels) if y >= 0]
        self.near(got["loss"], math.fsum(rows) / len(rows))
        self.assertEqual((got["rows"], got["counted_rows"]), (self.ROWS, len(rows)))

    def test_empty(self):
        self.npy("x.npy", "<f4", (0, 3), [])
        self.npy("y.npy", "<i8", (0,), [])
        got = self.json("loss", "x.npy", "y.npy", "--grad-out", "g.npy", "--row-loss-out", "r.npy")
        self.assertEqual((got["loss"], got["rows"]), (None, 0))
        self.assertEqual([c["mean_loss"] for c in got["per_class"]], [None] * 3)
        self.assertEqual(npy_read(self.path("g.npy"))[1], (0, 3))
        self.assertIn("loss          nan\n", self.good("loss", "x.npy", "y.npy"))

    def test_same_bits(self):
        """For every implementation and number of threads."""
        runs = [["--threads", 1], ["--threads", 3]]
        runs += [["--isa", i["name"]] for i in self.json("info")["implementations"] if i["runs"]]
        seen = set()
        for args in runs:
            got = self.json("loss", self.logits, self.labels, "--beta", ".99", "--grad-out",
                            "g.npy", *args)
            got.pop("isa")
            with open(self.path("g.npy"), "rb") as f:
                seen.add((json.dumps(got), f.read()))
        self.assertEqual(len(seen), 1)

    def test_slices(self):
        """A file of several slices and batches gives what one of its equal parts gives."""
        r, part, parts = Random(SEED + 2), 1000, 2400
        x = npy_bytes("<f4", (part, 4), [r.logit() for _ in range(4 * part)])
        y = npy_bytes("|u1", (part,), [r.below(4) for _ in range(part)])
        self.file("x1.npy", x)
        self.file("y1.npy", y)
        self.file("x.npy", npy_header("<f4", (part * parts, 4)) + x[-16 * part:] * parts)
        self.file("y.npy", npy_header("|u1", (part * parts,)) + y[-part:] * parts)
        one = self.json("loss", "x1.npy", "y1.npy", "--row-loss-out", "r1.npy", "--grad-out",
                        "g1.npy", "--denominator", "7")
        with open(self.path("r1.npy"), "rb") as f, open(self.path("g1.npy"), "rb") as g:
            row_loss, grad = f.read()[-4 * part:], g.read()[-16 * part:]
        seen = set()
        for threads in (1, 3):
            got = self.json("loss", "x.npy", "y.npy", "--row-loss-out", "r.npy", "--grad-out",
                            "g.npy", "--denominator", "7", "--threads", threads)
            seen.add(json.dumps(got))
            with open(self.path("r.npy"), "rb") as f, open(self.path("g.npy"), "rb") as g:
                self.assertTrue(f.read()[128:] == row_loss * parts)
                self.assertTrue(g.read()[128:] == grad * parts)
            self.near(got["loss"], one["loss"] * parts, 1e-12)
            for c, d in zip(got["per_class"], one["per_class"]):
                self.assertEqual(c["rows"], d["rows"] * parts)
                self.near(c["mean_loss"], d["mean_loss"], 1e-12)
        self.assertEqual(len(seen), 1)

    def test_standard_input(self):
        want = self.good("loss", self.logits, self.labels)
        with open(self.path("logits.npy"), "rb") as f:
            data = f.read()
        self.assertEqual(self.good("loss", "-", self.labels, input=data), want)
        with open(self.path("labels.npy"), "rb") as f:
            self.assertEqual(self.good("loss", self.logits, "-", stdin=f), want)

    def test_time_is_on_stderr(self):
        r = self.run_tool("loss", self.logits, self.labels, "--time")
        self.assertEqual(r.code, 0)
        self.assertRegex(r.err, r"^ballast: [\d.]+ s, [\d.]+ GB read, [\d.]+ GB written, "
                                r"[\d.]+ GB/s\n$")
        numbers = [float(x) for x in re.findall(r"[\d.]+(?= (?:s|GB))", r.err)]
        self.assertTrue(all(x > 0.0 for x in numbers[:2]), r.err)  # of small files, too
        self.assertEqual(r.out, self.good("loss", self.logits, self.labels))


class BadLoss(ToolTest):
    def test_usage(self):
        files = [self.logits, self.labels]
        usage = "(usage: ballast loss LOGITS.npy LABELS.npy [options])"
        for message, args in (
                ("missing argument " + usage, [self.logits]),
                ("unexpected argument 'x' " + usage, files + ["x"]),
                ("unknown option '--btea' (did you mean '--beta'?)", files + ["--btea", "1"]),
                ("unknown option '--xyzzy' (see ballast loss --help)", files + ["--xyzzy"]),
                ("unknown option '-x' (see ballast loss --help)", files + ["-x"]),
                ("option '--co' could be several: write it in full", files + ["--co", "1"]),
                ("--beta: its value is missing", files + ["--beta"]),
                ("--json: takes no value", files + ["--json=1"]),
                ("--loss: 'sofmax' is none of softmax, sigmoid, focal, bce (did you mean "
                 "'softmax'?)", files + ["--loss", "sofmax"]),
                ("--beta: -0.1 is outside [0, 1]", files + ["--beta", "-0.1"]),
                ("--gamma: -1 is not a finite number >= 0", files + ["--gamma", "-1"]),
                ("--gamma: nan is not a finite number >= 0", files + ["--gamma", "nan"]),
                ("--gamma goes with --loss focal", files + ["--gamma", "1"]),
                ("--alpha: 2 is outside [0, 1] (off switches it off)", files + ["--alpha", "2"]),
                ("--alpha goes with --loss focal", files + ["--alpha", "off"]),
                ("--alpha and --beta exclude each other: the class-balanced loss has no alpha",
                 files + ["--loss", "focal", "--beta", ".9", "--alpha", ".5"]),
                ("--counts needs --beta", files + ["--counts", "1,2"]),
                ("--empty-class needs --beta", files + ["--empty-class", "one"]),
                ("--denominator goes with --reduction mean",
                 files + ["--reduction", "sum", "--denominator", "rows"]),
                ("--denominator: -2 is not a finite number > 0", files + ["--denominator", "-2"]),
                ("--denominator: 'row' is none of weight-sum, rows, counted-rows, elements, "
                 "positives (did you mean 'rows'?)", files + ["--denominator", "row"]),
                ("--threads: 0 is outside [1, 4096]", files + ["--threads", "0"]),
                ("--threads: 'many' is not a whole number", files + ["--threads", "many"]),
                ("LOGITS and LABELS cannot both be standard input", ["-", "-"]),
                ("--grad-out: logits.npy is an input: write to another file",
                 files + ["--grad-out", "logits.npy"]),
                ("--row-loss-out: ./labels.npy is an input: write to another file",
                 files + ["--row-loss-out", "./labels.npy"]),
                ("--grad-out: g.npy is another output too: write to another file",
                 files + ["--grad-out", "g.npy", "--row-loss-out", "./g.npy"]),
                ("--grad-out: - is standard output, which holds the report",
                 files + ["--grad-out", "-"])):
            with self.subTest(args=args):
                self.bad(message, "loss", *args)

    def test_commands(self):
        self.bad("unknown command 'los' (did you mean 'loss'?)", "los")
        self.bad("unknown command 'frobnicate' (see ballast --help)", "frobnicate")
        self.bad("unknown option '--frob' (see ballast --help)", "--frob")
        r = self.run_tool()
        self.assertEqual((r.code, r.out), (2, ""))
        self.assertIn("Usage:", r.err)

    def test_isa(self):
        r = self.run_tool("loss", self.logits, self.labels, "--isa", "sse9")
        self.assertEqual(r.code, 2)
        self.assertRegex(r.err, r"^ballast: --isa: 'sse9' is none of scalar.*\n$")
        for i in self.json("info")["implementations"]:
            if i["built"] and not i["runs"]:
                self.bad("--isa: %s does not run here: %s" % (i["name"], i["reason"]), "loss",
                         self.logits, self.labels, "--isa", i["name"])

    def test_labels(self):
        self.y[17] = 12
        self.npy("labels.npy", "<i8", (self.ROWS,), self.y)
        self.bad("labels.npy: row 17: label 12 is outside [0, 7)", "loss", self.logits,
                 self.labels, "--grad-out", "g.npy")
        self.y[3] = -1
        self.npy("labels.npy", "<i4", (self.ROWS,), self.y)
        for loss in ("softmax", "sigmoid", "focal"):
            self.bad("labels.npy: row 3: label -1 is outside [0, 7)", "loss", self.logits,
                     self.labels, "--loss", loss)

    def test_shapes(self):
        def bad(message, labels, *args):
            with self.subTest(labels=labels, args=args):
                self.bad(message, "loss", self.logits, labels, *args)
        bad("s.npy: shape (2,): want (37,), one label per row of logits.npy",
            self.npy("s.npy", "<i8", (2,), [0, 1]))
        bad("f.npy: dtype '<f4' is not supported (want <i4, <i8 or |u1)",
            self.npy("f.npy", "<f4", (self.ROWS,), self.y))
        dense = self.npy("t.npy", "|u1", (self.ROWS, self.CLASSES), [0] * 37 * 7)
        bad("t.npy: shape (37, 7): softmax needs one label per row", dense)
        bad("t.npy: shape (37, 7): class weights need one label per row", dense, "--loss",
            "sigmoid", "--beta", ".9")
        bad("t.npy: shape (37, 7): this --denominator needs one label per row", dense, "--loss",
            "sigmoid", "--denominator", "positives")
        bad("t2.npy: shape (37, 2): want (37, 7), the shape of logits.npy",
            self.npy("t2.npy", "|u1", (37, 2), [0] * 74), "--loss", "sigmoid")
        bad("t3.npy: dtype '<i4' is not supported (want <f4 or |u1)",
            self.npy("t3.npy", "<i4", (37, 7), [0] * 37 * 7), "--loss", "sigmoid")

    def test_targets(self):
        t = [0] * 37 * 7
        t[100] = 255
        self.npy("t.npy", "|u1", (37, 7), t)
        self.bad("t.npy: row 14, class 2: target 255 is outside [0, 1]", "loss", self.logits,
                 "t.npy", "--loss", "sigmoid", "--grad-out", "g.npy")
        t[100], t[99] = 0.5, math.nan
        self.npy("t.npy", "<f4", (37, 7), t)
        self.bad("t.npy: row 14, class 1: target nan is neither 0 nor 1", "loss", self.logits,
                 "t.npy", "--loss", "focal")

    def test_logits(self):
        def bad(message, name):
            with self.subTest(name=name):
                self.bad(message, "loss", name, self.labels)
        bad("none.npy: cannot open: No such file or directory", "none.npy")
        bad(".: is a directory", ".")
        bad("i.npy: dtype '<i4' is not supported (want <f2, <f4 or <f8)",
            self.npy("i.npy", "<i4", (2, 2), [0] * 4))
        bad("v.npy: shape (4,): want 2 dimensions", self.npy("v.npy", "<f4", (4,), [0] * 4))
        bad("z.npy: shape (37, 0): there are no classes", self.npy("z.npy", "<f4", (37, 0), []))
        bad("o.npy: fortran_order True: save it with numpy.ascontiguousarray",
            self.npy("o.npy", "<f4", (2, 2), [0] * 4, fortran=True))
        bad("t.npy: file is truncated: header promises 16 data bytes, 12 present",
            self.npy("t.npy", "<f4", (2, 2), [0] * 3))
        bad("n.npy: not a .npy file", self.file("n.npy", b"hello, world"))

    def test_weights(self):
        def bad(message, *args):
            with self.subTest(args=args):
                self.bad(message, "loss", self.logits, self.labels, *args)
        good = [1.0] * 7
        for value, shown in ((math.nan, "nan"), (-1.0, "-1"), (math.inf, "inf")):
            self.npy("w.npy", "<f4", (7,), good[:3] + [value] + good[4:])
            bad("w.npy: class 3: weight %s is not a finite number >= 0" % shown, "--weights",
                "w.npy")
        self.npy("w.npy", "<f4", (6,), good[:6])
        bad("w.npy: 6 weights, but logits.npy has 7 classes", "--weights", "w.npy")
        bad("--weights and --beta exclude each other", "--weights", "w.npy", "--beta", "0")
        bad("--counts: 2 counts, but logits.npy has 7 classes", "--beta", ".9", "--counts", "1,2")
        bad("--counts: class 2: count 0 (--empty-class zero or one allows it)", "--beta", ".9",
            "--counts", "1,2,0,1,1,1,1")

    def test_outputs(self):
        self.bad("no/g.npy: cannot create a temporary file beside it: No such file or directory",
                 "loss", self.logits, self.labels, "--grad-out", "no/g.npy")
        self.bad("no/r.npy: cannot create a temporary file beside it: No such file or directory",
                 "loss", self.logits, self.labels, "--grad-out", "g.npy", "--row-loss-out",
                 "no/r.npy")


# ---- bench, check --------------------------------------------------------------------------------

class Bench(ToolTest):
    CASE = "cross_entropy:f32:rows=20,classes=50"

    def benchmarks(self, *args):
        return json.loads(self.good("bench", "--seconds", 0, "--json", *args))["benchmarks"]

    def contenders(self, *args):
        return [b["contender"] for b in self.benchmarks(*args)]

    def test_contenders(self):
        found = self.contenders("--problem", self.CASE)
        self.assertEqual(found[0], "ballast")
        self.assertLessEqual({"ballast", "fast-math", "copy"}, set(found))
        self.assertNotIn("fast-math", self.contenders("--problem", self.CASE, "--baselines", "off"))
        self.assertIn("scale", self.contenders("--problem", self.CASE + ",inplace=1"))
        self.assertIn("read", self.contenders("--problem", "dot:f32:count=1000"))

    def test_numbers(self):
        for b in self.benchmarks("--problem", self.CASE):
            self.assertEqual(b["name"].split("/")[0], self.CASE)
            self.assertEqual(b["time_unit"], "ns")
            self.assertGreater(b["real_time"], 0)
            self.assertLessEqual(b["least_cycles_per_element"], b["cycles_per_element"])
            self.assertLessEqual(b["ratio_low"], b["ratio"])
            self.assertLessEqual(b["ratio"], b["ratio_high"])
            self.assertAlmostEqual(b["real_time"] / 1000, b["ns_per_element"])
        first = self.benchmarks("--problem", self.CASE)[0]
        bytes = 20 * (2 * 4 * 50 + 8 + 4) + 8  # logits, gradient; label and loss of a row; loss
        self.assertAlmostEqual(first["bytes_per_second"] * first["real_time"] * 1e-9, bytes)
        self.assertEqual(first["ratio"], 1)

    def test_context(self):
        context = json.loads(self.good("bench", "--seconds", 0, "--json", "--problem",
                                       self.CASE))["context"]
        self.assertRegex(context["date"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$")
        self.assertGreater(context["num_cpus"], 0)
        self.assertGreater(context["mhz_per_cpu"], 0)
        self.assertTrue(os.path.samefile(context["executable"], TOOL))

    def test_json_to_a_file(self):
        for option in (["--json", "out.json"], ["--json=out.json"]):
            text = self.good("bench", "--seconds", 0, "--problem", self.CASE, *option)
            self.assertIn(self.CASE, text)
            with open(self.path("out.json")) as f:
                self.assertEqual(json.load(f)["benchmarks"][0]["contender"], "ballast")
            os.remove(self.path("out.json"))

    def test_table(self):
        text = self.good("bench", "--seconds", 0, "--problem", self.CASE)
        self.assertRegex(text, r"clock \d+\.\d\d GHz; inputs of seed \d+; 4k pages")
        self.assertRegex(text, r"(?m)^%s$" % re.escape(self.CASE))
        self.assertRegex(text, r"(?m)^  ballast +\S+( +[\d.]+){4} +\d+ % +1\.000")
        self.assertIn("huge pages", self.good("bench", "--seconds", 0, "--problem", self.CASE,
                                              "--pages", "huge"))

    def test_isa_and_threads(self):
        found = self.benchmarks("--problem", self.CASE, "--isa", "scalar", "--baselines", "off")
        self.assertEqual({b["isa"] for b in found if b["contender"] == "ballast"}, {"scalar"})
        found = self.benchmarks("--problem", self.CASE, "--threads", 2)
        self.assertEqual({b["threads"] for b in found}, {2})
        found = self.benchmarks("--problem", self.CASE, "--threads", 2, "--waiting", "spin")
        self.assertEqual({b["threads"] for b in found}, {2})
        self.assertTrue(all("threads=2" in b["problem"] for b in found))

    def test_list(self):
        every = self.good("bench", "--list", "--suite", "all").split()
        names = ("quick", "cache", "memory", "growth")
        self.assertEqual(every, sum((self.good("bench", "--list", "--suite", n).split()
                                     for n in names), []))
        some = self.good("bench", "--list", "--suite", "all", "--filter", "classes=8142").split()
        self.assertTrue(some)
        self.assertEqual(some, [p for p in every if "classes=8142" in p])

    def test_html(self):
        self.good("bench", "--seconds", 0, "--problem", self.CASE, "--html", "out.html")
        with open(self.path("out.html"), encoding="utf-8") as f:
            page = f.read()
        xml.etree.ElementTree.fromstring(page[page.index("<html"):])
        for text in (self.CASE, "fast-math", "FMA-class", "ballast bench --seconds 0"):
            self.assertIn(text, page)

    def test_refusals(self):
        for option, value, message in (
                ("suite", "every", "'every' is none of quick, cache, memory, growth, all"),
                ("pages", "8k", "'8k' is none of 4k, huge (did you mean '4k'?)"),
                ("baselines", "maybe", "'maybe' is none of off, on"),
                ("seconds", "-1", "-1 is outside [0, 3600]"),
                ("seconds", "nan", "nan is outside [0, 3600]")):
            self.bad("--%s: %s" % (option, message), "bench", "--" + option, value)
        self.assertRegex(self.run_tool("bench", "--isa", "mmx").err,
                         r"^ballast: --isa: 'mmx' is none of scalar.*\n$")
        self.bad("--filter 'nobody': no case has it", "bench", "--filter", "nobody")
        self.bad("--problem 'sum:f32': sum: no such operation (ballast check --help names them)",
                 "bench", "--problem", "sum:f32")
        self.bad("--problem and --suite: one of them", "bench", "--problem", self.CASE, "--suite",
                 "quick")
        for option in ("json=", "html=", "profile="):
            self.bad("--%s: the name of the file is empty" % option[:-1], "bench", "--" + option)
        for option in ("json", "html"):
            self.bad("-: standard output holds the table: give the name of a file", "bench",
                     "--%s=-" % option)
        self.bad("'softmax:f32:rows=0' has no elements to measure", "bench", "--problem",
                 "softmax:f32:rows=0")
        for option in ("json", "html"):
            self.bad("no/where: cannot be written: No such file or directory", "bench",
                     "--" + option, "no/where")
            r = self.run_tool("bench", "--quiet", "--seconds", "0.01", "--problem", "dot:f32:count=9",
                              f"--{option}=/dev/full")
            self.assertEqual(r.code, 2)
            self.assertRegex(r.err, r"^ballast: /dev/full: cannot be written: .+\n$")
        large = "softmax:f32:rows=1000000,classes=1000000000"
        r = self.run_tool("bench", "--problem", large)
        self.assertEqual((r.code, r.out), (2, ""))
        self.assertRegex(r.err, r"^ballast: '%s' needs 1\.2e\+07 GB, and \S+ GB of memory are "
                                r"free\n$" % large)


class Check(ToolTest):
    CASES = "softmax:f32:rows=5,classes=7", "dot:bf16:count=9", "softmax:f32:rows=3,classes=300"

    def witnesses(self, *args):
        found = self.json("check", *args)
        self.assertEqual((found["green"], found["failures"]), (True, []))
        return [o["value"]["witness"] for o in found["operations"]]

    def test_problems(self):
        """Any number of them, between options; one line for each operation and dtype."""
        isas = [i["name"] for i in self.json("info")["implementations"] if i["runs"]]
        found = self.json("check", self.CASES[0], "--isa", isas[-1], *self.CASES[1:])
        self.assertEqual(sorted(found), ["failures", "green", "operations", "version"])
        self.assertEqual([(o["operation"], o["dtype"], o["problems"]) for o in found["operations"]],
                         [("softmax", "f32", 2), ("dot", "bf16", 1)])
        for o in found["operations"]:
            self.assertEqual(o["implementations"], sorted({"scalar", isas[-1]}, key=isas.index))
            self.assertEqual((o["supported"], o["bits_equal"], o["grad"]), (True, True, None))
            self.assertLessEqual(o["value"]["ulp"], o["value"]["bound"])
            self.assertIn(o["value"]["witness"], self.CASES)

    def test_seed_and_threads(self):
        self.assertEqual(self.witnesses(self.CASES[1], "--seed", 7), [self.CASES[1] + ",seed=7"])
        self.assertEqual(self.witnesses(self.CASES[1], "--threads", 3),
                         [self.CASES[1] + ",threads=3"])

    def test_table(self):
        """Columns are aligned."""
        lines = self.good("check", "--quiet", *self.CASES, "softmax:f16").splitlines()
        self.assertEqual(lines[-1], "all green")
        at = lines[0].index("nearest to its bound")
        for line in lines[1:4]:
            self.assertRegex(line, r"^.{%d}  \S+$" % (at - 2))

    def test_nothing_to_measure(self):
        found = self.json("check", "softmax:f32:rows=0")["operations"]
        self.assertEqual([(o["value"], o["grad"]) for o in found], [(None, None)])

    def test_help(self):
        out = self.good("check", "--help")
        for word in ("[PROBLEM...]", "class_balanced_loss", "grad_scale"):
            self.assertIn(word, out)

    def test_refusals(self):
        for message, args in (
                ("'sum:f32': sum: no such operation (ballast check --help names them)",
                 [self.CASES[0], "sum:f32"]),
                ("'softmax': a dtype is missing, such as softmax:f32", ["softmax"]),
                ("'softmax:f9': f9: no such dtype (f32, f64, bf16 or f16)", ["softmax:f9"]),
                ("'softmax:f32:rows=x': rows=x: not a number", ["softmax:f32:rows=x"]),
                ("'dot:f32:row=3': row: no such key (ballast check --help names them)",
                 ["dot:f32:row=3"]),
                ("'cross_entropy:f32:labels=u9': labels=u9: none of i64, i32, u8",
                 ["cross_entropy:f32:labels=u9"]),
                ("'softmax:f32:rows=1e12,classes=1e12': rows, classes: more elements than an array "
                 "can have", ["softmax:f32:rows=1e12,classes=1e12"]),
                ("unknown option '--sed' (did you mean '--seed'?)", ["--sed", "3"]),
                ("--seed: -1 is outside [0, 9000000000000000]", ["--seed", "-1"]),
                ("--seed: 'x' is not a whole number", ["--seed", "x"]),
                ("--threads: 0 is outside [1, 1024]", ["--threads", "0"]),
                ("--quick: takes no value", ["--quick=3"])):
            with self.subTest(args=args):
                self.bad(message, "check", *args)
        self.assertRegex(self.run_tool("check", "--isa", "sse9").err,
                         r"^ballast: --isa: 'sse9' is none of scalar.*\n$")


# ---- Streams, colours, signals, size -------------------------------------------------------------

class Streams(ToolTest):
    def test_full_disk(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "wb") as full:
            r = self.run_tool("loss", self.logits, self.labels, stdout=full)
        self.assertEqual(r.code, 2)
        self.assertEqual(r.err, "ballast: standard output: cannot write: No space left on device\n")

    def test_closed_pipe(self):
        reader, writer = os.pipe()
        os.close(reader)
        r = self.run_tool("info", stdout=writer)
        os.close(writer)
        self.assertEqual(r.code, 2)
        self.assertEqual(r.err, "ballast: standard output: cannot write: Broken pipe\n")

    def test_closed_stdout(self):
        r = self.run_tool("loss", self.logits, self.labels, "--grad-out", "g.npy", stdout=None,
                          preexec_fn=lambda: os.close(1))
        self.assertEqual(r.code, 2)
        self.assertIn("standard output: cannot write", r.err)
        self.assertEqual(npy_read(self.path("g.npy"))[1], (37, 7))

    def test_color_option(self):
        for args in (["weights", "--beta", ".9", "--counts", "1,2"], ["info"], ["--help"]):
            self.assertNotIn("\033", self.good(*args))
        args = ["weights", "--beta", ".9", "--counts", "1,2", "--color"]
        self.assertIn("\033[1m", self.good(*args, "always"))
        self.assertNotIn("\033", self.good(*args, "never"))
        self.bad("--color: 'blue' is none of auto, always, never", *args, "blue")

    def on_terminal(self, *args, env=None, columns=0):
        """What a terminal gets that is stdout and stderr; columns 0: it does not say."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        p = subprocess.Popen([TOOL, *args], stdout=slave, stderr=slave, cwd=self.folder,
                             env={**os.environ, "TERM": "xterm", "NO_COLOR": "", **(env or {})})
        os.close(slave)
        text = b""
        while select.select([master], [], [], 60)[0]:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            text += piece
        os.close(master)
        return p.wait(), text.decode()

    def test_terminal(self):
        args = ["weights", "--beta", ".9", "--counts", "1,2"]
        self.assertIn("\033[1m", self.on_terminal(*args)[1])
        self.assertNotIn("\033", self.on_terminal(*args, "--color", "never")[1])
        self.assertNotIn("\033", self.on_terminal(*args, env={"NO_COLOR": "1"})[1])
        self.assertNotIn("\033", self.on_terminal(*args, env={"TERM": "dumb"})[1])
        code, text = self.on_terminal("loss", "none.npy", "labels.npy")
        self.assertEqual(code, 2)
        self.assertIn("\033[1;31mballast:\033[0m none.npy", text)

    def test_narrow_terminal(self):
        """No line is longer, or it would go on in the next row, where nothing clears it."""
        case = "sigmoid_focal:f32:rows=3,classes=100,gamma=1.7,targets=u8,outputs=loss+grad"
        for columns in (80, 100, 120):
            code, text = self.on_terminal("bench", "--seconds", "0", "--problem", case, "--color",
                                          "never", "--baselines", "off", columns=columns)
            self.assertEqual(code, 0, text)
            lines = [line for line in re.split(r"\r\033\[K|\r*\n", text) if line]
            self.assertEqual(lines[0][:8], "1 of 1: ")
            self.assertLessEqual(max(map(len, lines)), columns, text)
            self.assertEqual("95 % interval" in lines[2], columns > 80)
            self.assertEqual(lines[2].count("ns/element"), 1 + (columns == 120))

    def test_no_progress_for_small_files(self):
        self.assertNotIn("%", self.on_terminal("loss", "logits.npy", "labels.npy")[1])


class Scripts(ToolTest):
    def test_unknown_stages(self):
        """Refused before anything is installed, built or overwritten."""
        own = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools")
        os.mkdir(self.path("tools"))
        with open(self.path("tools/install-packages"), "w") as f:
            f.write("#!/bin/sh\ntouch installed\nexit 1\n")
        os.chmod(self.path("tools/install-packages"), 0o755)
        before = sorted(os.listdir(self.folder))
        for name, stages in (("test", ["gcd"]), ("test", ["gcc", "gcd"]),
                             ("long-test", ["chek"]), ("long-test", ["check", "chek"])):
            shutil.copy(os.path.join(own, name), self.path("tools"))
            p = subprocess.run([self.path("tools/" + name), *stages], capture_output=True, text=True)
            self.assertEqual((p.returncode, p.stdout, p.stderr), (
                2, "", "tools/%s: no stage '%s' (see --help)\n" % (name, stages[-1])))
            self.assertEqual(sorted(os.listdir(self.folder)), before)


class Large(ToolTest):
    CLASSES_LARGE = 1000

    def large(self, size=2**30):
        """Logits of `size` bytes that take no space, and labels."""
        if shutil.disk_usage(self.folder).free < 3 * size:
            self.skipTest("%s: less than %d GiB free" % (self.folder, 3 * size >> 30))
        rows = size // 4 // self.CLASSES_LARGE
        with open(self.path("x.npy"), "wb") as f:
            f.write(npy_header("<f4", (rows, self.CLASSES_LARGE)))
            f.truncate(f.tell() + rows * self.CLASSES_LARGE * 4)
        with open(self.path("y.npy"), "wb") as f:
            f.write(npy_header("<i4", (rows,)))
            f.truncate(f.tell() + rows * 4)
        return rows

    def start(self, *args):
        with open(self.path("out"), "wb") as out, open(self.path("err"), "wb") as err:
            return subprocess.Popen(
                [TOOL, *args], stdout=out, stderr=err, cwd=self.folder,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def read(self, name):
        with open(self.path(name)) as f:
            return f.read()

    def peak(self, *args):
        p = self.start(*args)
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual((p.returncode, self.read("err").count("ballast: x.npy: ")), (0, 4))
        return usage.ru_maxrss * 1024

    def test_memory(self):
        """A file of 1 GiB: progress on stderr only, a fraction of it in memory, right numbers."""
        rows = self.large()
        for args in ([], ["--grad-out", "g.npy", "--row-loss-out", "r.npy"]):
            peak = self.peak("loss", "x.npy", "y.npy", "--json", *args)
            self.assertLess(peak, 0.25 * 2**30)
            got = json.loads(self.read("out"))
            self.near(got["loss"], math.log(self.CLASSES_LARGE), 1e-6)
            self.assertEqual(got["per_class"][0]["rows"], rows)
            self.near(got["per_class"][0]["mean_loss"], math.log(self.CLASSES_LARGE), 1e-6)
            self.assertRegex(self.read("err"), re.compile(
                r"\Aballast: x\.npy: +\d+ % of 1\.07 GB, [\d.]+ GB/s$", re.M))
        with open(self.path("g.npy"), "rb") as f:
            for row in (0, rows // 2, rows - 1):
                f.seek(128 + 4000 * row)
                first, second = struct.unpack("<2f", f.read(8))
                self.near(first * rows, 1e-3 - 1, 1e-5)
                self.near(second * rows, 1e-3, 1e-5)

    def test_quiet(self):
        self.large(2**28)
        p = self.start("loss", "x.npy", "y.npy", "--quiet")
        self.assertEqual((p.wait(), self.read("err")), (0, ""))

    def test_interrupt(self):
        """SIGINT and SIGTERM end it as such, and leave no file."""
        self.large()
        for number in (signal.SIGINT, signal.SIGTERM):
            p = self.start("loss", "x.npy", "y.npy", "--grad-out", "g.npy")
            while p.poll() is None and not any(n.endswith(".tmp") for n in os.listdir(self.folder)):
                time.sleep(0.001)
            p.send_signal(number)
            self.assertEqual(p.wait(), -number)
            self.assertEqual(sorted(os.listdir(self.folder)),
                             ["err", "labels.npy", "logits.npy", "out", "x.npy", "y.npy"])
            self.assertEqual(self.read("out"), "")


if __name__ == "__main__":
    if not TOOL:
        sys.exit("BALLAST_TOOL must name the ballast binary")
    TOOL = os.path.abspath(TOOL)
    unittest.main(verbosity=2)
