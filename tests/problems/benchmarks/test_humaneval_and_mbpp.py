"""HumanEval and MBPP: scripts become single checks, and every reference solution passes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks_world import HUMANEVAL, MBPP, SANITIZED, data_file, grade_one, grade_references, write_jsonl

from psgpo.problems.benchmarks import load_benchmark
from psgpo.problems.programs import program_of
from psgpo.records import AssertTests, Status

FAIL_THEIR_OWN_TESTS: set[str] = set()
"""MBPP reference solutions that do not pass their own tests, see docs/benchmarks.md."""


def test_check_is_split(tmp_path: Path) -> None:
    (problem,) = load_benchmark("humaneval", write_jsonl(tmp_path / "d.jsonl", [HUMANEVAL]))
    tests = problem.tests
    assert isinstance(tests, AssertTests)
    assert tests.entry_point == "area"
    assert tests.checks == (
        "import math\nassert candidate(0) == 0",
        "value = candidate(1)\nassert abs(value - math.pi) < half(1e-06), 'one'",
        "for r in range(3):\n    assert candidate(r) >= 0",
    )
    assert tests.setup == "import math\ndef half(x):\n    return x / 2\n\ncandidate = area"
    assert problem.preamble == "import math\ndef half(x):\n    return x / 2\n"
    assert problem.starter_code == problem.prompt == HUMANEVAL["prompt"]


def test_partial_credit_and_helpers_out_of_the_programs_reach(tmp_path: Path) -> None:
    (problem,) = load_benchmark("humaneval", write_jsonl(tmp_path / "d.jsonl", [HUMANEVAL]))
    verdict = grade_one(problem, "def half(x):\n    return 10 ** 6\ndef area(r):\n    return r * 3\n")
    assert (verdict.status, verdict.tests_passed, verdict.tests_total) == (Status.WRONG_ANSWER, 2, 3)
    assert verdict.outcomes == (Status.PASSED, Status.WRONG_ANSWER, Status.PASSED)


def test_all_humaneval_references_pass() -> None:
    problems = load_benchmark("humaneval", data_file("HumanEval.jsonl.gz"))
    assert len(problems) == 164
    verdicts = grade_references(problems)
    assert [problem.id for problem, verdict in zip(problems, verdicts, strict=True) if not verdict.passed] == []
    assert Counter(verdict.mode for verdict in verdicts) == {"asserts": 164}


def test_humaneval_helpers_are_trusted() -> None:
    problems = {problem.id: problem for problem in load_benchmark("humaneval", data_file("HumanEval.jsonl.gz"))}
    with_helpers = [
        name for name, p in problems.items() if isinstance(p.tests, AssertTests) and "def " in p.tests.setup
    ]
    assert with_helpers == ["HumanEval/32", "HumanEval/38", "HumanEval/50"]
    cheats = {
        "HumanEval/32": "def poly(xs, x):\n    return 0\ndef find_zero(xs):\n    return 1.0\n",
        "HumanEval/38": "def encode_cyclic(s):\n    return s\ndef decode_cyclic(s):\n    return s\n",
        "HumanEval/50": "def encode_shift(s):\n    return s\ndef decode_shift(s):\n    return s\n",
    }
    for name, cheat in cheats.items():
        verdict = grade_one(problems[name], program_of(problems[name], solution=cheat))
        assert verdict.status is Status.WRONG_ANSWER


def test_mbpp_row(tmp_path: Path) -> None:
    (problem,) = load_benchmark("mbpp", write_jsonl(tmp_path / "d.jsonl", [MBPP]))
    assert problem.prompt == (
        "You are an expert Python programmer, and here is your task: Write a function to double. "
        "Your code should pass these tests:\n\n"
        "assert double(1) == 2\nassert double(2) == 4\nassert set(double([1])) == {1}\n"
    )
    assert problem.tests == AssertTests(entry_point="double", checks=tuple(MBPP["test_list"]))
    assert problem.reference_solution == "def double(x):\n  return 2 * x"
    assert (problem.id, problem.split) == ("Mbpp/2", "prompt")
    assert problem.metadata == {"text": MBPP["text"], "challenge_tests": ["assert double(0) == 0"]}


def test_sanitized_row(tmp_path: Path) -> None:
    (problem,) = load_benchmark("mbpp-sanitized", write_jsonl(tmp_path / "d.json", [SANITIZED]))
    assert problem.tests == AssertTests(
        entry_point="root", checks=tuple(SANITIZED["test_list"]), setup="import math\nimport math"
    )
    assert problem.split == "train"
    assert grade_references([problem])[0].passed


def test_standard_splits() -> None:
    path = data_file("mbpp.jsonl.gz")
    ids = {
        split: [int(problem.id.split("/")[1]) for problem in load_benchmark("mbpp", path, split=split)]
        for split in ("prompt", "test", "validation", "train")
    }
    assert {split: (min(numbers), max(numbers), len(numbers)) for split, numbers in ids.items()} == {
        "prompt": (1, 10, 10),
        "test": (11, 510, 500),
        "validation": (511, 600, 90),
        "train": (601, 974, 374),
    }


def test_mbpp_references_that_fail_are_known() -> None:
    problems = load_benchmark("mbpp", data_file("mbpp.jsonl.gz"))
    assert len(problems) == 974
    assert all(len(problem.tests.checks) == 3 for problem in problems if isinstance(problem.tests, AssertTests))
    verdicts = dict(zip((problem.id for problem in problems), grade_references(problems), strict=True))
    assert {name for name, verdict in verdicts.items() if not verdict.passed} == FAIL_THEIR_OWN_TESTS
    with_objects = {name for name, verdict in verdicts.items() if verdict.mode == "asserts+objects"}
    assert with_objects == {"Mbpp/367", "Mbpp/601", "Mbpp/927"}


def test_names_that_mbpp_tests_need() -> None:
    problems = load_benchmark("mbpp", data_file("mbpp.jsonl.gz"))
    tests = {problem.id: problem.tests for problem in problems if isinstance(problem.tests, AssertTests)}
    objects = {name: test.objects for name, test in tests.items() if test.objects}
    assert objects == {"Mbpp/367": ("Node",), "Mbpp/601": ("Pair",), "Mbpp/927": ("Node",)}
    assert tests["Mbpp/126"].entry_point == "sum"
    assert tests["Mbpp/596"].setup == "import sys\n"
