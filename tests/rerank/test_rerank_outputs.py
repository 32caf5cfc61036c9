"""Majority of outputs: equal values share a cluster, hostile programs have no vote, expected values stay out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from psgpo.execution import Sandbox
from psgpo.jsonl import read_jsonl
from psgpo.records import AssertTests, Call, CallTests, Problem, Response, Status, StdioCase, StdioTests, Verdict
from psgpo.rerank.outputs import digest, votes_of, why_no_majority

CALLS = tuple(Call(args=(x,), expected="never to be seen") for x in (1, 2, 3))
PROBLEM = Problem(id="p", prompt="double", tests=CallTests(function="solve", calls=CALLS))
HONEST = {
    "double": "def solve(x):\n    return 2 * x\n",
    "twice": "def solve(x):\n    y = x + x\n    return y\n",
    "other": "def solve(x):\n    return 3 * x\n",
    # Only its number leaves the program, so its class cannot make it equal to others.
    "disguise": "class Any(int):\n    def __eq__(self, other):\n        return True\n"
    "def solve(x):\n    return Any(4 * x)\n",
    "half": "def solve(x):\n    return 2 * x if x < 3 else None[0]\n",
}
HOSTILE = {
    "exit": "import os\ndef solve(x):\n    os._exit(0)\n",
    "equal to all": "class All:\n    def __eq__(self, other):\n        return True\n    def __hash__(self):\n"
    "        return 0\ndef solve(x):\n    return All()\n",
    "endless": "def solve(x):\n    while True:\n        pass\n",
    "no function": "x = 1\n",
    "no program": "def solve(x:\n",
    "itself": "def solve(x):\n    x = []\n    x.append(x)\n    return x\n",
}


def responses(programs, problem="p"):
    verdict = Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=3)
    return [
        Response(problem_id=problem, index=i, checkpoint="c", token_ids=(1,), text=text, finished=True, verdict=verdict)
        for i, text in enumerate(programs)
    ]


class Watched:
    """A sandbox whose questions are kept."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox, self.asked = sandbox, []

    def evaluate_many(self, items):
        self.asked += items
        return self.sandbox.evaluate_many(items)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1, timeout=0.5, memory_mb=128) as opened:
        yield opened


def test_equal_outputs_vote_together_and_hostile_programs_do_not(sandbox: Sandbox, tmp_path: Path) -> None:
    programs = [*HONEST.values(), *HOSTILE.values(), f"So:\n```python\n{HONEST['double']}```\n"]
    watched = Watched(sandbox)
    groups = {"p": responses(programs)}
    votes = votes_of(groups, {"p": PROBLEM}, watched, tmp_path / "outputs.jsonl")["p"]
    assert votes == [0, 0, 1, 2, 3, *[None] * len(HOSTILE), 0]
    assert "never to be seen" not in repr(watched.asked)
    assert len(watched.asked) == len(programs) - 1  # the fenced one is the first
    again = votes_of(groups, {"p": PROBLEM}, watched, tmp_path / "outputs.jsonl")["p"]
    assert again == votes
    assert len(watched.asked) == len(programs) - 1  # all are known
    assert len(list(read_jsonl(tmp_path / "outputs.jsonl", dict))) == len(programs) - 1


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ({1: [2.0], 3: None}, {3: None, 1: [2.0]}, True),
        ({3, 1, 2}, {2, 3, 1}, True),
        (float("nan"), float("nan"), True),
        (0.0, -0.0, True),
        (1, True, False),
        (1, 1.0, False),
        ([1, 2], (1, 2), False),
        (["1", "2"], ["1,2"], False),
        (["a', 'b"], ["a", "b"], False),
        ({"a": 1}, {"a": 2}, False),
    ],
)
def test_digests_agree_for_equal_values_of_equal_types(left, right, same) -> None:
    assert (digest(left) == digest(right)) is same


def test_long_numbers_have_a_digest() -> None:
    assert digest(10**5000) == digest(10**5000) != digest(10**5000 + 1)


CASES = tuple(StdioCase(stdin=text, expected="never to be seen") for text in ("3\n1 2 3\n", "1\n5\n"))
SUMS = Problem(id="s", prompt="print the sum", tests=StdioTests(cases=CASES))
SCRIPTS = {
    "input": "n = int(input())\nprint(sum(map(int, input().split())))\n",
    "whole": "import sys\n_, *x = sys.stdin.read().split()\nsys.stdout.write(str(sum(map(int, x))))\n",
    "bytes": "import sys\n_, *x = sys.stdin.buffer.read().split()\n"
    "sys.stdout.buffer.write(b'%d \\n\\n' % sum(map(int, x)))\n",
    "number": "_, *x = open(0).read().split()\nprint(sum(map(int, x)))\n",
    "main": "def main():\n    input()\n    print(sum(map(int, input().split())))\n    exit()\n"
    "if __name__ == '__main__':\n    main()\n",
    "afresh": "try:\n    seen\nexcept NameError:\n    seen = True\n"
    "    input()\n    print(sum(map(int, input().split())))\n",
    "quotes": "s = '{}\"'\ninput()\nprint(sum(map(int, input().split())), end=s[3:])\n",
}
OTHERS = {
    "product": "input()\nx = 1\nfor y in input().split():\n    x *= int(y)\nprint(x + 1)\n",
    "first case only": "if input() == '1':\n    raise ValueError\nprint(6)\n",
}
SILENT = {
    "nothing": "input()\n",
    "crash": "print(1 / 0)\n",
    "no program": "print(\n",
    "killed": "import os\nos._exit(0)\n",
    "past the streams": "import os\nos.write(1, b'6')\n",
}


def test_programs_that_print_the_same_vote_together(sandbox: Sandbox, tmp_path: Path) -> None:
    programs = [*SCRIPTS.values(), *OTHERS.values(), *SILENT.values(), f"So:\n```python\n{SCRIPTS['input']}```\n"]
    watched = Watched(sandbox)
    groups = {"s": responses(programs, "s"), "p": responses([HONEST["double"], HONEST["twice"]])}
    votes = votes_of(groups, {"p": PROBLEM, "s": SUMS}, watched, tmp_path / "outputs.jsonl")
    assert votes["s"] == [*[0] * len(SCRIPTS), 1, 2, *[None] * len(SILENT), 0]
    assert votes["p"] == [0, 0]
    assert "never to be seen" not in repr(watched.asked)


def test_tests_that_are_scripts_have_no_outputs() -> None:
    script = Problem(id="a", prompt="double", tests=AssertTests(entry_point="f", checks=("assert f(1) == 2",)))
    assert why_no_majority([PROBLEM, SUMS]) is None
    assert why_no_majority([PROBLEM, script, SUMS]) == (
        "1 of 3 problems (a) are tested by scripts, which say of no value that it is the output"
    )
