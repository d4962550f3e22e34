#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of `ballast tune`.

usage: tune.py BALLAST [OPTION of unittest...]

What is fastest depends on the machine, so that nothing here asks for a choice: tests ask that what
is told, written and read again is the same, and that whatever happens leaves a whole profile.
"""
import fcntl
import json
import os
import pty
import re
import resource
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

TOOL = os.path.abspath(sys.argv[1])
FEW = "log_softmax:f32:classes=medium,data=L2"  # three cases, none of which takes long
CASE = "log_softmax:f32:classes=medium,data=L2,rows=many"


class Tune(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ballast-tune-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("BALLAST_")}
        self.env.update(XDG_CACHE_HOME=self.path("cache"), HOME=self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def write(self, name, text):
        with open(self.path(name), "w", encoding="ascii") as file:
            file.write(text)
        return name

    def start(self, *args, env=None, **how):
        return subprocess.Popen([TOOL, *map(str, args)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, cwd=self.folder,
                                env={**self.env, **(env or {})}, **how)

    def run_tool(self, *args, **how):
        p = self.start(*args, **how)
        p.out, p.err = p.communicate(timeout=120)
        return p

    def good(self, *args, code=0, **how):
        r = self.run_tool(*args, **how)
        self.assertEqual((r.returncode, r.err), (code, ""), r.err)
        return r.out

    def tune(self, *args, **how):
        return json.loads(self.good("tune", "--quiet", "--json", "--budget", 5, "--filter", FEW,
                                    *args, **how))

    def bad(self, message, *args, **how):
        """One line; nothing is left behind."""
        before = sorted(os.listdir(self.folder))
        r = self.run_tool("tune", "--quiet", "--budget", 0.1, "--filter", FEW, *args, **how)
        self.assertEqual((r.returncode, r.err), (2, "ballast: " + message + "\n"))
        self.assertEqual(sorted(os.listdir(self.folder)), before)
        return r

    def profile(self, *lines):
        """A profile with these lines, as the tool itself begins and ends one."""
        self.tune("--output", "made", "--threads", 1)
        head = self.read("made").split("\n")[:5]
        text = "\n".join([*head, *lines]) + "\n"
        value = 0xcbf29ce484222325
        for byte in text.encode():
            value = (value ^ byte) * 0x100000001b3 % 2**64
        os.remove(self.path("made"))
        return text + "sum %016x\n" % value

    def line(self, case, choice, ratio="0.900"):
        return ("%s %s ratio=%s low=%s high=%s samples=9 date=2026-11-23"
                % (case, choice, ratio, ratio, ratio))

    # ---- what is measured and written -----------------------------------------------------------

    def test_profile(self):
        """What is told is what is written, where it is said to be, and in force there."""
        told = self.tune()
        self.assertTrue(told["profile"].startswith(self.path("cache/ballast/")), told["profile"])
        self.assertEqual(os.stat(os.path.dirname(told["profile"])).st_mode & 0o777, 0o700)
        self.assertEqual((told["cases"], told["cases_measured"]), (3, 3))
        text = self.read(told["profile"])
        build = text.split("\n")[1].removeprefix("build ")  # another build has another file
        self.assertRegex(os.path.basename(told["profile"]),
                         r"^[0-9a-f]{16}-%s\.profile$" % re.escape(build))
        lines = [line.split() for line in text.split("\n")[5:-2]]
        chosen = {(l[0], l[1]) for l in lines if not l[1].endswith("=default")}
        self.assertEqual(chosen, {(r["case"], r["choice"] + "=" + r["candidate"])
                                  for r in told["results"] if r["verdict"] == "chosen"})
        info = self.good("info")
        self.assertIn("%d choice" % len(lines), " ".join(info.split()))
        info = json.loads(self.good("info", "--json"))
        self.assertEqual((info["own_profile"], info["own_profile_exists"]),
                         (told["profile"], True))
        self.assertNotIn("ignored", " ".join(info["profile"]))

    def test_no_profile_yet(self):
        info = json.loads(self.good("info", "--json"))
        self.assertTrue(info["own_profile"].startswith(self.path("cache/ballast/")))
        self.assertFalse(info["own_profile_exists"])
        self.assertIn("`ballast tune` writes it", self.good("info"))
        nowhere = {"XDG_CACHE_HOME": "", "HOME": ""}
        info = json.loads(self.good("info", "--json", env=nowhere))
        self.assertEqual((info["own_profile"], info["own_profile_exists"]), (None, False))

    def test_only_what_is_faster_is_chosen(self):
        for r in self.tune()["results"]:
            self.assertIn(r["verdict"], ("default", "chosen", "noisy", "undecided"))
            if r["verdict"] == "chosen":
                self.assertLess(r["ratio_high"], 0.97)
                self.assertGreaterEqual(r["pairs"], 8)
                self.assertLessEqual(max(r["stolen"], r["waited"]), 0.1)
            for c in r["candidates"]:
                if c["ratio_high"] is not None:
                    self.assertLessEqual(c["ratio_low"], c["ratio"])
                    self.assertLessEqual(c["ratio"], c["ratio_high"])

    def test_one_thread_has_no_tasks(self):
        told = self.tune("--threads", 1)
        self.assertEqual(told["threads"], 1)
        self.assertEqual({r["choice"] for r in told["results"]} - {"isa"}, {"stream"})

    def test_table(self):
        out = self.good("tune", "--quiet", "--budget", 5, "--filter", FEW, "--output", "p")
        self.assertRegex(out, r"(?m)^case +choice +candidate +time +\[95 %\] +pairs +verdict$")
        self.assertRegex(out, r"(?m)^%s +stream +\w+ +\d+\.\d{3}" % CASE)
        self.assertTrue(out.endswith("profile: p\n"), out)

    def test_narrow_terminal(self):
        """No line of the table is longer than the terminal is wide; names have lines of their own."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        p = subprocess.Popen([TOOL, "tune", "--quiet", "--color", "never", "--budget", "5", "--filter",
                              FEW, "--output", "p"], stdout=slave, stderr=subprocess.DEVNULL,
                             cwd=self.folder, env=self.env)
        shown = self.shown(master, slave, p)
        lines = shown.decode().replace("\r", "").split("\n")
        table = lines[:lines.index("")]
        self.assertLessEqual(max(map(len, table)), 80, table)
        self.assertEqual(table[0], "case")
        self.assertRegex(table[1], r"^  choice +candidate +time +\[95 %\] +pairs +verdict$")
        self.assertEqual(table[2], CASE)
        self.assertRegex(table[3], r"^  isa +\w+ +\d+\.\d{3}")

    def test_report(self):
        """Well-formed, with nothing from elsewhere, and a plot for each choice."""
        told = self.tune("--report", "r.html")
        page = xml.etree.ElementTree.fromstring(self.read("r.html").removeprefix("<!DOCTYPE html>"))
        space = "{http://www.w3.org/1999/xhtml}"
        names = [f.find(space + "figcaption/" + space + "code").text
                 for f in page.iter(space + "figure")]
        self.assertEqual(names, [r["case"] for r in told["results"]])
        texts = self.read("r.html").split("</text>")
        self.assertEqual(sum(t.endswith(">time ÷ the default’s") for t in texts), len(names))
        self.assertTrue(any(t.endswith(">bytes from which outputs go past the caches") for t in texts))
        self.assertNotRegex(self.read("r.html"), r"<script|<link|src=|url\(")
        self.assertNotIn("nan", self.read("r.html"))
        self.bad("none/r.html: cannot be written: No such file or directory", "--report", "none/r.html")
        self.bad("--report is for tuning alone", "--report", "r", "--check")
        r = self.run_tool("tune", "--quiet", "--budget", 0.1, "--filter", FEW, "--report", "/dev/full")
        self.assertEqual(r.returncode, 2)
        self.assertRegex(r.err, r"^ballast: /dev/full: cannot be written: .+\n$")

    def test_list(self):
        out = self.good("tune", "--list", "--filter", FEW).split("\n")
        self.assertEqual(out[0], CASE)
        self.assertRegex(out[1], r"^  log_softmax:f32:rows=\d+,classes=1000$")
        everything = self.good("tune", "--list")
        self.assertNotIn("classes=short,data=memory,rows=one", everything)  # cannot exist
        for name in ("weighted_sum:bf16", "sigmoid_focal:f16", "softmax:f64"):
            self.assertIn(name, everything)

    def test_caches(self):
        """What was measured lies where it was looked for; problems go by it."""
        told = self.tune("--threads", 1)["last_cache"]
        info = json.loads(self.good("info", "--caches", "--json"))["last_cache"]
        sizes = [r["bytes"] for r in info["reads"]]
        self.assertEqual(sizes, sorted(sizes))
        self.assertIn(info["measured"], [0, *sizes])
        self.assertTrue(all(r["gbps"] > 0 for r in info["reads"]))
        self.assertEqual(told["taken"], info["taken"])
        for it in (told, info):
            self.assertGreater(it["bytes"], 0)
        self.assertEqual(json.loads(self.good("info", "--json"))["last_cache"]["reads"], [])
        self.assertRegex(self.good("info", "--caches"), r"(?m)^  128 KiB +\d+\.\d GB/s$")

    def test_progress(self):
        r = self.run_tool("tune", "--budget", 2, "--filter", "log_softmax:f32", "--json")
        self.assertRegex(r.err, r"^ballast:  \d\d %, \d+ s left: log_softmax:f32:")
        json.loads(r.out)

    def shown(self, master, slave, program):
        """All that a program that ends well writes to its terminal."""
        os.close(slave)
        shown = b""
        try:
            while data := os.read(master, 4096):
                shown += data
        except OSError:  # the other end is closed
            pass
        os.close(master)
        self.assertEqual(program.wait(), 0)
        return shown

    def bar(self, budget):
        """What a terminal is shown."""
        master, slave = pty.openpty()
        p = subprocess.Popen([TOOL, "tune", "--budget", str(budget), "--filter", "log_softmax:f32",
                              "--output", "p"], stdout=subprocess.DEVNULL, stderr=slave,
                             cwd=self.folder, env=self.env)
        return self.shown(master, slave, p)

    def test_bar(self):
        """On a terminal one line renews itself, and is gone at the end."""
        for budget in (2, 8, 25):  # on a busy machine no case is done soon
            shown = self.bar(budget)
            if shown:
                break
        self.assertRegex(shown, rb"\r\[#*\.+\] +\d+ %, \d+ s left: log_softmax:f32:")
        self.assertNotIn(b"\n", shown)
        self.assertTrue(shown.endswith(b"\r\033[K"), shown[-80:])

    # ---- what was there before ------------------------------------------------------------------

    def test_other_cases_are_kept(self):
        other = self.line("sigmoid_focal:f32:classes=long,data=memory,rows=many",
                          "task_cycles=7500")
        elsewhere = self.line("softmax:f64:classes=short,data=memory,rows=one", "isa=scalar")
        this = self.line(CASE, "share_from_chunks=never", "0.500")  # of rows of one chunk
        self.write("p", self.profile(other, elsewhere, this))
        self.tune("--output", "p")
        text = self.read("p")
        self.assertIn(other + "\n", text)
        self.assertIn(elsewhere + "\n", text)
        self.assertNotIn("ratio=0.500", text)  # measured in this run
        # what was not measured keeps the default against its neighbour
        self.assertRegex(text, r"\nsigmoid_focal:f32:classes=medium,data=memory,rows=many "
                               r"task_cycles=default ratio=1.000 .* samples=0 ")
        self.assertIn("in force", self.good("info", env={"BALLAST_PROFILE": "p"}))
        self.assertNotIn("ignored", self.good("info", env={"BALLAST_PROFILE": "p"}))

    def test_another_build(self):
        """A profile that is of no use any more is replaced."""
        text = re.sub("\nbuild .*\n", "\nbuild 0.0.0-0\n", self.profile(), count=1)
        self.write("p", text)
        self.tune("--output", "p")
        self.assertNotIn("0.0.0-0", self.read("p"))

    def test_variable(self):
        """Defaults are measured whatever is in force."""
        self.write("p", self.profile(self.line(CASE, "stream=never")))
        for variable in ("off", "p", "/none there"):
            self.tune("--output", "q", env={"BALLAST_PROFILE": variable})
            self.assertNotIn("ratio=0.900", self.read("q"))

    # ---- interruptions --------------------------------------------------------------------------

    def interrupted(self, number):
        for seconds in (2.0, 8.0, 25.0):  # on a busy machine no case is done soon
            p = self.start("tune", "--quiet", "--budget", 50, "--filter", "f32", "--output", "p")
            time.sleep(seconds)
            p.send_signal(number)
            out, err = p.communicate(timeout=60)
            self.assertEqual((p.returncode, err), (-number, ""))
            if not re.search(r"(?m)^0 of \d+ cases", out):
                break
        self.assertRegex(out, r"(?m)^[1-9]\d* of \d+ cases measured in \d+ s")
        self.assertRegex(out, r"(?m)^\d+ cases were not reached: interrupted$")
        self.assertIn("in force", self.good("info", env={"BALLAST_PROFILE": "p"}))
        self.assertNotIn("ignored", self.good("info", env={"BALLAST_PROFILE": "p"}))
        self.assertEqual([f for f in os.listdir(self.folder) if "tmp" in f], [])

    def test_control_c(self):
        self.interrupted(signal.SIGINT)

    def test_termination(self):
        self.interrupted(signal.SIGTERM)

    def test_two_at_once(self):
        both = [self.start("tune", "--quiet", "--budget", 1, "--filter", FEW, "--output", "p")
                for _ in range(2)]
        for p in both:
            self.assertEqual(p.communicate(timeout=30)[1], "")
            self.assertEqual(p.returncode, 0)
        self.assertEqual(os.listdir(self.folder), ["p"])
        self.assertNotIn("ignored", self.good("info", env={"BALLAST_PROFILE": "p"}))

    def test_two_write_in_turn(self):
        """What another tuner writes meanwhile is not lost: this one waits, and keeps it."""
        other = self.line("sigmoid_focal:f32:classes=long,data=memory,rows=many",
                          "task_cycles=7500")
        text = self.profile(other)
        folder = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        p = self.start("tune", "--quiet", "--budget", 0.1, "--filter", FEW, "--output", "p")
        time.sleep(3.0)
        self.assertIsNone(p.poll())
        self.write("p", text)
        os.close(folder)
        self.assertEqual(p.communicate(timeout=30)[1], "")
        self.assertIn(other + "\n", self.read("p"))

    def test_no_space(self):
        """The profile before is left as it was, and the table is printed all the same."""
        self.write("p", self.profile(self.line(CASE, "stream=never")))
        before = self.read("p")

        def no_space():
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
        r = self.bad("p: cannot be written: there is no space left", "--output", "p",
                     preexec_fn=no_space)
        self.assertIn("cases measured", r.out)
        self.assertNotIn("profile: ", r.out)
        self.assertEqual(self.read("p"), before)

    def test_full_standard_output(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            r = subprocess.run([TOOL, "tune", "--quiet", "--budget", "0.1", "--filter", FEW],
                               stdout=full, stderr=subprocess.PIPE, text=True, env=self.env,
                               check=False)
        self.assertEqual(r.returncode, 2)
        self.assertEqual(r.stderr, "ballast: standard output: cannot write: "
                                   "No space left on device\n")

    # ---- an entry measured again ----------------------------------------------------------------

    def check(self, *lines, code):
        self.write("p", self.profile(*lines))
        return json.loads(self.good("tune", "--quiet", "--check", "--json", "--budget", 2,
                                    "--output", "p", code=code))

    def test_stale(self):
        """Where nothing is streamed by default, "never" does nothing else."""
        told = self.check(self.line(CASE, "stream=never"), code=1)
        self.assertEqual([r["verdict"] for r in told["results"]], ["stale"])

    def test_slower(self):
        """Scalar is slower by so much that no noise hides it."""
        told = self.check(self.line(CASE, "isa=scalar"), code=1)
        self.assertEqual([r["verdict"] for r in told["results"]], ["stale"])
        self.assertIn("1 of 1 entries measured again, 1 stale",
                      self.good("tune", "--quiet", "--check", "--budget", 1, "--output", "p",
                                code=1))

    def test_nothing_to_check(self):
        told = self.check(self.line(CASE, "stream=default", "1.000"), code=0)
        self.assertEqual(told["results"], [])

    # ---- export ---------------------------------------------------------------------------------

    def test_export(self):
        text = self.profile(self.line(CASE, "stream=never"))
        self.write("p", text)
        self.assertEqual(self.good("tune", "--export", "-", env={"BALLAST_PROFILE": "p"}), text)
        self.assertEqual(self.good("tune", "--export", "q", "--output", "p"), "")
        self.assertEqual(self.read("q"), text)

    # ---- what it gains --------------------------------------------------------------------------

    def test_bench(self):
        """Scalar is slower by so much that no noise hides it."""
        self.write("p", self.profile(self.line(CASE, "isa=scalar")))
        out = self.good("bench", "--profile", "p", "--json", "--seconds", 2,
                        "--problem", "log_softmax:f32:rows=20,classes=900")
        told = json.loads(out)["benchmarks"]
        self.assertEqual([r["contender"] for r in told], ["ballast", "ballast tuned"])
        if told[0]["isa"] != "scalar":
            self.assertGreater(told[1]["ratio"], 1.5)
        for args, message in ((["--profile", "none"],
                               "--profile: none: there is no such file or folder"),
                              (["--profile", "p", "--isa", "scalar"],
                               "--profile and --isa: one of them")):
            r = self.run_tool("bench", *args)
            self.assertEqual((r.returncode, r.err), (2, "ballast: " + message + "\n"))

    def test_tuned_runs(self):
        """Twenty runs in small: what is there is not measured again."""
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools/tuned-runs")
        command = [sys.executable, script, TOOL, self.path("runs"), "--runs=1", "--budget=0.3",
                   "--seconds=0.01", "--suites=cache", "--threads=1", "--filter=weighted_sum:f32"]
        seen = []
        for _ in range(2):
            r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=self.env, check=False)
            self.assertIn(r.returncode, (0, 1), r.stderr)  # 1: noise that was there three times
            self.assertRegex(r.stdout, r"(?m)^\d of 3 shapes within 3 %, and in every run\.$")
            files = os.listdir(self.path("runs"))
            seen.append((r.stdout, {f: os.stat(self.path("runs/" + f)).st_mtime_ns
                                    for f in files}))
        self.assertIn("00.profile", seen[0][1])
        self.assertEqual(seen[0], seen[1])

    # ---- wrong usage ----------------------------------------------------------------------------

    def test_bad_options(self):
        self.bad("--budget: 0 is outside (0, 86400]", "--budget", 0)
        self.bad("--budget: nan is outside (0, 86400]", "--budget", "nan")
        self.bad("--filter 'mmx': no case has it", "--filter", "mmx")
        self.bad("--check and --export: one of them", "--check", "--export", "-")
        self.bad("--output: none/p: its folder cannot be written to", "--output", "none/p")
        self.bad("--output: .: is no regular file", "--output", ".")
        self.bad("--output: /dev/full: is no regular file", "--output", "/dev/full")
        self.bad("neither XDG_CACHE_HOME nor HOME names a folder: --output FILE",
                 env={"XDG_CACHE_HOME": "relative", "HOME": ""})

    def test_another_file_is_kept(self):
        self.write("notes", "not a profile\n")
        self.bad("--output: notes: is there, and no profile", "--output", "notes")
        self.assertEqual(self.read("notes"), "not a profile\n")

    def test_bad_profile(self):
        for option in ("--check", "--export=q"):
            self.bad("none: there is no such file or folder", option, "--output", "none")
            self.write("p", "ballast profile 1\nbuild other\n")
            build = self.profile().split("\n")[1].removeprefix("build ")
            self.bad("p: line 2, build: expected that of this library, \"%s\", not \"other\""
                     % build, option, "--output", "p")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
