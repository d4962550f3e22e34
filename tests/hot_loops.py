#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of tools/hot-loops, on disassembly written by hand: a reader can count along."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

TOOL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools", "hot-loops")
MEASURE = os.path.join(os.path.dirname(TOOL), "ports", "measure")

GCC = """\
Contents of section .comment:
 0000 00474343 3a202844 65626961 6e203132  .GCC: (Debian 12
 0010 2e322e30 2d313429 2031322e 322e3000  .2.0-14) 12.2.0.
"""
CLANG = """\
Contents of section .comment:
 0000 00446562 69616e20 636c616e 67207665  .Debian clang ve
 0010 7273696f 6e203134 2e302e36 00        rsion 14.0.6.
"""

# An outer loop over rows, in it the loop that counts, in that a rare way around (at 38) with fewer
# sums; ends in a small loop without arithmetic. The pointer in %rax walks,
# and (%rsp,%rdx,4) has an index: no spills.
X86 = """\
build/kernels/libkernels_avx2.a.p/sums.c.o:     file format elf64-x86-64

Disassembly of section .text:

0000000000000000 <sum_rows.constprop.0>:
   0:	push   %rbp
   1:	mov    %rsp,%rbp
   4:	lea    -0x40(%rbp),%rax
   8:	vbroadcastss 0x0(%rip),%ymm3        # 10 <sum_rows.constprop.0+0x10>
  10:	vmovups (%rsp,%rdx,4),%ymm0
  14:	cmp    $0x7,%ecx
  17:	je     38 <sum_rows.constprop.0+0x38>
  19:	vfmadd231ps 0x20(%rdi),%ymm3,%ymm0
  1e:	vmulps %ymm0,%ymm3,%ymm1
  22:	vaddps %ymm1,%ymm4,%ymm4
  26:	vmovaps %ymm4,%ymm5
SPILL
  2e:	vmovups %ymm5,(%rax)
  32:	add    $0x40,%rax
  36:	jmp    44 <sum_rows.constprop.0+0x44>
  38:	vmovups %ymm0,(%rsp,%rdx,4)
  3d:	vxorps %ymm5,%ymm5,%ymm5
  41:	vxorps %ymm6,%ymm6,%ymm6
  44:	vdivps %ymm0,%ymm5,%ymm5
  48:	add    $0x40,%rdi
  4c:	cmp    %rsi,%rdi
  4f:	jne    10 <sum_rows.constprop.0+0x10>
  51:	dec    %r8
  54:	jne    4 <sum_rows.constprop.0+0x4>
  56:	incb   (%rdi)
  58:	inc    %rdi
  5b:	cmp    %rdi,%r9
  5e:	jne    56 <sum_rows.constprop.0+0x56>
  60:	leave
  61:	ret

0000000000000070 <sum_rows.part.0>:
  70:	vmulps (%rdi,%rax,1),%ymm0,%ymm0
  75:	vmulps %ymm0,%ymm0,%ymm0
  79:	vmulps %ymm0,%ymm0,%ymm0
  7d:	vmulps %ymm0,%ymm0,%ymm0
  81:	call   0 <sum_rows.constprop.0>
  86:	add    $0x20,%rax
  8a:	jne    70 <sum_rows.part.0>
  8c:	ret
"""
X86_SPILL = """\
  2a:	vmovaps %ymm4,-0x60(%rbp)
  2b:	vmovaps -0x60(%rbp),%ymm6
"""
ROWS = {"instructions": 14, "fma": 2, "other": 1, "divide": 1, "move": 1, "load": 2, "store": 1,
        "stack": 0, "call": 0}

# x1 is a fixed place on the stack in the loop, x2 one that walks along it.
ARM = """\
build/kernels/libkernels_neon.a.p/sums.c.o:     file format elf64-littleaarch64

Disassembly of section .text:

0000000000000000 <sum_rows>:
   0:	stp	x29, x30, [sp, #-96]!
   4:	mov	x29, sp
   8:	mov	x2, sp
   c:	ld1	{v4.4s-v7.4s}, [x0], #64
  10:	ldr	q0, [x0, #16]
  14:	fmla	v0.4s, v4.4s, v5.4s
  18:	fmul	v1.4s, v0.4s, v6.4s
  1c:	mov	v2.16b, v1.16b
  20:	fadd	v2.4s, v2.4s, v7.4s
SPILL
  2c:	fdiv	v2.4s, v2.4s, v0.4s
  30:	st1	{v2.4s}, [x2], #16
  34:	str	q2, [sp, x3]
  38:	prfm	pldl2keep, [x0, #2048]
  3c:	cmp	x0, x4
  40:	b.ne	c <sum_rows+0xc>  // b.any
  44:	ldp	x29, x30, [sp], #96
  48:	ret

0000000000000050 <square>:
  50:	fmul	v0.4s, v0.4s, v0.4s
  54:	fmul	v1.4s, v1.4s, v1.4s
  58:	fmul	v2.4s, v2.4s, v2.4s
  5c:	fmul	v3.4s, v3.4s, v3.4s
  60:	ret

0000000000000070 <copy>:
  70:	ldr	q0, [x0], #16
  74:	str	q0, [x1], #16
  78:	cbnz	x0, 70 <copy>
  7c:	ret
"""
ARM_SPILL = """\
  24:	add	x1, sp, #0x30
  28:	st1	{v2.4s}, [x1]
"""
ARM_ROWS = {"instructions": 12, "fma": 2, "other": 1, "divide": 1, "move": 1, "load": 2, "store": 2,
            "stack": 0, "call": 0}


class HotLoops(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = temporary.name
        self.budget = os.path.join(self.directory, "budget")

    def run_tool(self, disassembly, *arguments, isa="avx2", comments=GCC):
        """The tool over a build directory with one library, and an objdump that knows the text."""
        kernels = os.path.join(self.directory, isa, "kernels")
        os.makedirs(kernels, exist_ok=True)
        with open(os.path.join(kernels, f"libkernels_{isa}.a"), "w", encoding="ascii"):
            pass
        listing = os.path.join(self.directory, "listing")
        with open(listing, "w", encoding="ascii") as out:
            out.write(disassembly + comments)
        objdump = os.path.join(self.directory, "objdump")
        with open(objdump, "w", encoding="ascii") as out:
            out.write(f"#!/bin/sh\ncat '{listing}'\n")
        os.chmod(objdump, 0o755)
        return subprocess.run(
            [sys.executable, TOOL, "--objdump", objdump, *arguments, os.path.dirname(kernels)],
            capture_output=True, text=True, check=False)

    def loops(self, disassembly, *arguments, **more):
        r = self.run_tool(disassembly, "--json", *arguments, **more)
        self.assertEqual(r.returncode, 0, r.stderr)
        return json.loads(r.stdout)

    def test_x86_counts(self):
        loops = self.loops(X86.replace("SPILL\n", ""))
        self.assertEqual(list(loops), ["gcc-12.2.0-avx2"])
        loops = loops["gcc-12.2.0-avx2"]
        # clones of one function are counted on; the loop without arithmetic is not hot
        self.assertEqual(list(loops), ["sums:sum_rows/1", "sums:sum_rows/2"])
        self.assertEqual(loops["sums:sum_rows/1"], ROWS)
        self.assertEqual(loops["sums:sum_rows/2"], {
            "instructions": 7, "fma": 4, "other": 0, "divide": 0, "move": 0, "load": 1, "store": 0,
            "stack": 0, "call": 1})

    def test_x86_spill_is_counted(self):
        loops = self.loops(X86.replace("SPILL\n", X86_SPILL))["gcc-12.2.0-avx2"]
        self.assertEqual(loops["sums:sum_rows/1"], {**ROWS, "instructions": 16, "stack": 2})

    def test_x86_frame_register_is_another_where_it_is_not_set(self):
        text = X86.replace("SPILL\n", X86_SPILL).replace("mov    %rsp,%rbp", "mov    %rcx,%rbp")
        loops = self.loops(text)["gcc-12.2.0-avx2"]
        self.assertEqual(loops["sums:sum_rows/1"],
                         {**ROWS, "instructions": 16, "load": 3, "store": 2})

    def test_aarch64_counts(self):
        loops = self.loops(ARM.replace("SPILL\n", ""), isa="neon")["gcc-12.2.0-neon"]
        self.assertEqual(list(loops), ["sums:sum_rows/1", "sums:square/1"])
        self.assertEqual(loops["sums:sum_rows/1"], ARM_ROWS)
        self.assertEqual(loops["sums:square/1"]["fma"], 4)
        self.assertEqual(loops["sums:square/1"]["instructions"], 5)

    def test_aarch64_spill_through_a_register_is_counted(self):
        loops = self.loops(ARM.replace("SPILL\n", ARM_SPILL), isa="neon")["gcc-12.2.0-neon"]
        self.assertEqual(loops["sums:sum_rows/1"], {**ARM_ROWS, "instructions": 14, "stack": 1})

    def test_show_marks_the_spill(self):
        r = self.run_tool(X86.replace("SPILL\n", X86_SPILL), "--show", "sums:sum_rows/1")
        marked = [line.split()[1] for line in r.stdout.splitlines() if line.startswith("S ")]
        self.assertEqual(marked, ["2a", "2b"], r.stdout)

    def test_ports_of_zen5(self):
        """The loop of ROWS: pipes 0 and 1 take two multiplications and a division's two uses."""
        loop = self.loops(X86.replace("SPILL\n", ""), "--ports", "zen5")["gcc-12.2.0-avx2"][
            "sums:sum_rows/1"]
        self.assertEqual(loop, {
            "cycles": 2.5, "pipes": 2.0, "of": "01", "divider": 2.5, "load": 1.0, "store": 0.5,
            "to_general": 0.0, "from_general": 0.0, "general": 4 * 0.167, "front_end": 14 / 8,
            "third": 1.0})

    def test_ports_of_uses_that_share_pipes(self):
        """Three on 1 and 2, three on 2 and 3: pipes 1 to 3 have six uses, no two of them four."""
        body = ["vpermps %zmm1,%zmm2,%zmm3", "vcmpps $0x1,%zmm1,%zmm2,%k1"] + [
            "vaddps %zmm1,%zmm2,%zmm4", "vmulps %zmm1,%zmm2,%zmm5"] * 2 + [
            "vcvtps2pd %ymm1,%zmm6", "vpxord %zmm7,%zmm7,%zmm7", "vmovaps %zmm1,%zmm8"]
        lines = [f"   {at:x}:\t{text}" for at, text in enumerate(body + ["jne    0 <f>"])]
        text = X86[:X86.index("0000000000000000 <")] + "\n".join(["0000000000000000 <f>:", *lines])
        loop = self.loops(text + "\n", "--ports", "zen5", isa="avx512")["gcc-12.2.0-avx512"][
            "sums:f/1"]
        self.assertEqual((loop["cycles"], loop["pipes"], loop["of"]), (2.0, 2.0, "123"))
        self.assertEqual(loop["front_end"], 10 / 8)

    def test_ports_are_for_x86(self):
        r = self.run_tool(ARM.replace("SPILL\n", ""), "--ports", "zen5", isa="neon")
        self.assertEqual((r.returncode, "is for x86" in r.stdout), (77, True), r.stdout)

    def test_ports_can_be_measured(self):
        """Builds and runs; what it finds is right on the CPU of the table only."""
        two_words = {**os.environ, "CC": "env " + os.environ.get("CC", "cc")}
        r = subprocess.run([sys.executable, MEASURE, "zen5"], capture_output=True, text=True,
                           check=False, env=two_words)
        if r.returncode == 77:
            self.skipTest(r.stdout.strip())
        self.assertIn(r.returncode, (0, 1), r.stderr)
        self.assertRegex(r.stdout, r"(?m)^fma +\d+\.\d+  bound 0\.500 pipes 01 ")
        self.assertRegex(r.stdout, r"\d+ measured, \d+ below the table's bound\n$")

    def update(self, *arguments, **more):
        r = self.run_tool(*arguments, "--update", self.budget, **more)
        self.assertEqual(r.returncode, 0, r.stderr)
        return r.stdout

    def check(self, *arguments, **more):
        r = self.run_tool(*arguments, "--check", self.budget, **more)
        return r.returncode, r.stdout

    def test_check_fails_for_a_spill_and_names_it(self):
        for isa, text, spill, grown in (
                ("avx2", X86, X86_SPILL, "instructions 14 -> 16 (+2), stack 0 -> 2 (+2)"),
                ("neon", ARM, ARM_SPILL, "instructions 12 -> 14 (+2), stack 0 -> 1 (+1)")):
            good, bad = text.replace("SPILL\n", ""), text.replace("SPILL\n", spill)
            self.update(good, isa=isa)
            self.assertEqual(self.check(good, isa=isa)[0], 0)
            status, said = self.check(bad, isa=isa)
            self.assertEqual(status, 1)
            self.assertIn(f"  sums:sum_rows/1: {grown}\n", said)
            self.assertNotIn("sum_rows/2", said)
            self.assertIn(grown, self.update(bad, isa=isa))
            self.assertEqual(self.check(bad, isa=isa)[0], 0)
            status, said = self.check(good, isa=isa) # less is no failure
            self.assertEqual(status, 0)
            self.assertIn("less than the budget", said)

    def test_check_fails_for_loops_that_come_and_go(self):
        good = ARM.replace("SPILL\n", "")
        less = good[:good.index("0000000000000050")]
        for before, after, said in ((good, less, "square/1 of the budget: gone"),
                                    (less, good, "square/1: no line in the budget")):
            self.update(before, isa="neon")
            self.assertEqual(self.check(after, isa="neon"), (1, (
                f"gcc-12.2.0-neon: {2 if after == good else 1} loops, FAILED\n"
                f"  sums:{said}\n"
                "If this is meant: tools/hot-loops --update, see --help\n")))

    def test_a_loop_that_comes_changes_no_other(self):
        """Although those behind it in the function are numbered anew."""
        text = X86.replace("SPILL\n", "")
        second = text[text.index("0000000000000070"):]
        first = second.replace("00000000000070 <", "00000000000090 <").replace("  7d:", "  9d:")
        first = first.replace("vmulps %ymm0,%ymm0,%ymm0", "vaddps %ymm0,%ymm0,%ymm0")
        begin = text.index("0000000000000000 <sum_rows")
        self.update(text)
        status, said = self.check(text[:begin] + first + "\n" + text[begin:])
        self.assertEqual((status, said.split("\n")[1:-2]),
                         (1, ["  sums:sum_rows/1: no line in the budget"]))
        swapped = text[:begin] + second + "\n" + text[begin:text.index("0000000000000070")]
        self.assertEqual(self.check(swapped)[0], 0)

    def test_check_is_skipped_for_another_compiler(self):
        good = X86.replace("SPILL\n", "")
        self.update(good)
        status, said = self.check(X86.replace("SPILL\n", X86_SPILL), comments=CLANG)
        self.assertEqual(status, 77)
        self.assertEqual(said.count("\n"), 1)
        self.assertIn("clang-14.0.6-avx2: no budget", said)

    def test_check_is_skipped_without_a_disassembler(self):
        unknown = "objdump: can't disassemble for architecture UNKNOWN!\n"
        r = self.run_tool(unknown, "--check", self.budget)
        self.assertEqual(r.returncode, 77)
        self.assertIn("no objdump for", r.stdout)

    def test_a_directory_without_kernels_is_an_error(self):
        r = self.run_tool(X86, "--isa", "neon")
        self.assertEqual(r.returncode, 2)
        self.assertIn("no kernels' libraries of neon in ", r.stderr)

    def test_an_unknown_loop_is_named(self):
        r = self.run_tool(X86, "--show", "sums:nobody/1")
        self.assertEqual((r.returncode, r.stdout), (2, ""))
        self.assertEqual(r.stderr, "tools/hot-loops: --show: no loop 'sums:nobody/1': their names are "
                                   "those of the table\n")


if __name__ == "__main__":
    unittest.main()
