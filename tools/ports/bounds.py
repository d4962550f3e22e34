# SPDX-License-Identifier: MIT
"""Lower bounds of loops, from a table of what instructions take of the parts of a CPU."""
import collections
import itertools
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
CPUS = sorted(name[:-len(".txt")] for name in os.listdir(HERE) if name.endswith(".txt"))
PARTS = ("divider", "load", "store", "to_general", "from_general", "general", "front_end", "third")
NO_BOUND = "third" # a part that only sometimes is in the way: see the table

Kind = collections.namedtuple("Kind", "name pipes parts measured names")


class Table:
    """The kinds of instructions that a CPU's file tells apart, and mixtures to measure."""

    def __init__(self, cpu):
        self.kinds, self.mixtures = {}, []
        with open(os.path.join(HERE, cpu + ".txt"), encoding="ascii") as lines:
            for line in lines:
                fields = re.split(r"\s{2,}", line.strip())
                if line.startswith("mix "):
                    words = line.split()[1:]
                    self.mixtures.append([(k, int(n)) for k, n in zip(words[::2], words[1::2])])
                elif len(fields) == 4 and line[0] != "#":
                    words = fields[1].replace("-", "").split()
                    self.kinds[fields[0]] = Kind(
                        fields[0], [frozenset(w) for w in words if "=" not in w],
                        {p: float(x) for p, x in (w.split("=") for w in words if "=" in w)},
                        fields[2], re.compile(fields[3]))

    def named(self, instruction):
        """The name of the kind of a vector instruction, in a list; nothing for a copy."""
        return [k.name for k in self.kinds.values() if k.names.match(instruction)][:1]

    def busy(self, loop):
        """{part: cycles} of a loop: of each instruction, the names of its kinds. The first is of pipes, "pipes 12": of all their sets
        the one that has most to do, for the work that fits no other pipe."""
        kinds = [self.kinds[name] for names in loop for name in ["each", *names]]
        uses = collections.Counter(use for kind in kinds for use in kind.pipes)
        pipes = sorted(set().union(*uses))
        sets = [set(s) for n in range(1, len(pipes) + 1) for s in itertools.combinations(pipes, n)]
        work = [(sum(n for use, n in uses.items() if use <= s) / len(s), s) for s in sets]
        most, busiest = max(work, key=lambda w: w[0], default=(0, ""))
        return {"pipes " + "".join(sorted(busiest)): most, **{
            part: sum((kind.parts.get(part, 0) for kind in kinds), 0.0) for part in PARTS}}


def bound(busy):
    """(part, cycles) of the part that is busy longest."""
    return max(((p, c) for p, c in busy.items() if p != NO_BOUND), key=lambda part: part[1])
