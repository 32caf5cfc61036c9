"""LiveCodeBench: both kinds of tests, the compressed private ones, filters, and what is refused."""

from __future__ import annotations

import base64
import json
import pickle
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from benchmarks_world import compressed, grade_one, livecodebench_row, write_jsonl

from psgpo.errors import UserError
from psgpo.problems.benchmarks import load_benchmark
from psgpo.problems.benchmarks.livecodebench import PREAMBLE, pickled_text, stated_tolerance
from psgpo.problems.programs import program_of
from psgpo.records import Call, CallTests, Problem, Status, StdioCase, StdioTests


def load_one(folder: Path, kind: str = "functional", **changes: Any) -> Problem:
    path = write_jsonl(folder / "d.jsonl", [livecodebench_row(kind, **changes)])
    return load_benchmark("livecodebench", path)[0]


def test_functional(tmp_path: Path) -> None:
    problem = load_one(tmp_path)
    assert problem.tests == CallTests(
        function="Solution.addLast",
        calls=(Call(args=([1, 2], 3), expected=[1, 2, 3]), Call(args=([], 1), expected=[1])),
        comparator="livecodebench",
    )
    assert (problem.id, problem.difficulty, problem.split) == ("3001", 1, "test")
    assert problem.metadata["contest_date"] == "2024-01-06T00:00:00"
    assert problem.metadata["public_tests"] == 1


def test_functional_programs(tmp_path: Path) -> None:
    problem = load_one(tmp_path)
    method = "class Solution:\n    def addLast(self, nums: List[int], x: int) -> List[int]:\n        "
    assert grade_one(problem, program_of(problem, solution=method + "return tuple(nums) + (x,)\n")).passed
    assert grade_one(problem, program_of(problem, completion="return nums + [x]\n")).passed
    assert grade_one(problem, program_of(problem, solution="def addLast(nums, x):\n    return [*nums, x]\n")).passed
    wrong = grade_one(problem, program_of(problem, solution=method + "return Counter(nums)\n"))
    assert (wrong.status, wrong.tests_passed) == (Status.WRONG_ANSWER, 0)


def test_stdin(tmp_path: Path) -> None:
    problem = load_one(tmp_path, "stdin")
    assert problem.tests == StdioTests(
        cases=(StdioCase(stdin="1 2\n", expected="3\n"), StdioCase(stdin="10 20\n", expected="30\n")),
        comparator="livecodebench",
    )


def test_stdin_programs(tmp_path: Path) -> None:
    problem = load_one(tmp_path, "stdin")
    main = "def main():\n    print(sum(map(int, input().split())))\nif __name__ == '__main__':\n    main()\n"
    assert grade_one(problem, program_of(problem, solution=main)).passed
    starred = "print(reduce(add, map(int, stdin.read().split())), '.0 ', sep='')"
    assert grade_one(problem, program_of(problem, solution=f"Here:\n```python\n{starred}\n```\n")).passed
    assert grade_one(problem, program_of(problem, solution="print(3)")).tests_passed == 1


def test_preamble_gives_the_modules_and_the_builtins() -> None:
    names: dict[str, Any] = {}
    limit = sys.getrecursionlimit()
    exec(PREAMBLE, names)
    sys.setrecursionlimit(limit)
    assert names["datetime"].__name__ == "datetime"
    assert names["pow"](2, 3, 5) == 3
    assert names["open"] is open
    assert {"List", "Counter", "heappush", "inf", "gcd", "re", "lru_cache", "deque", "bisect_left"} <= names.keys()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("text", ["[]", "é☃" * 40_000, "x" * 300])
def test_pickles_of_one_text(protocol: int, text: str) -> None:
    assert pickled_text(pickle.dumps(text, protocol)) == text


class Bomb:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('the pickle ran')",)


@pytest.mark.parametrize(
    "pickled",
    [
        pickle.dumps(Bomb()),
        pickle.dumps(Bomb(), 0),
        pickle.dumps(["[]"]),
        pickle.dumps(b"[]"),
        pickle.dumps(None),
        b"cos\nsystem\n(S'true'\ntR.",
        b"V[]\nV[]\n.",
        b"",
        b"\x80\x04\x95",
        b"V[]\n",
        b"\xff" * 10,
    ],
)
def test_other_pickles_are_refused_and_never_run(pickled: bytes, tmp_path: Path) -> None:
    encoded = base64.b64encode(zlib.compress(pickled)).decode()
    with pytest.raises(UserError, match=r"d.jsonl:1: private_test_cases hold a pickle") as caught:
        load_one(tmp_path, private_test_cases=encoded)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["not base64!", "aGVsbG8=", compressed([{"input": "x" * 99}])[:40], ""])
def test_damaged_private_tests(damage: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"d.jsonl:1: private_test_cases"):
        load_one(tmp_path, private_test_cases=damage)


def test_private_tests_as_plain_json(tmp_path: Path) -> None:
    private = [{"input": "[]\n1", "output": "[1]", "testtype": "functional"}]
    assert load_one(tmp_path, private_test_cases=json.dumps(private)) == load_one(tmp_path)


def test_broken_tests(tmp_path: Path) -> None:
    both = [{"input": "", "output": "", "testtype": kind} for kind in ("stdin", "functional")]
    for changes, message in (
        ({"private_test_cases": compressed(both)}, "tests must be all functional or all stdin"),
        ({"private_test_cases": "[]", "public_test_cases": "[]"}, "tests must be all functional or all stdin"),
        ({"metadata": "{}"}, "functional tests need metadata.func_name"),
        ({"private_test_cases": compressed([{"input": "x", "output": "1", "testtype": "functional"}])}, "Expecting"),
        ({"contest_date": "soon"}, "contest_date must begin with YYYY-MM-DD"),
    ):
        path = write_jsonl(tmp_path / "d.jsonl", [livecodebench_row(**changes)])
        with pytest.raises(UserError, match=rf"d.jsonl:1: .*{message}"):
            load_benchmark("livecodebench", path, since="2024-01-01")


def test_filters(tmp_path: Path) -> None:
    rows = [
        livecodebench_row("functional", question_id="a", contest_date="2023-05-07T00:00:00", difficulty="easy"),
        livecodebench_row("stdin", question_id="b", contest_date="2024-02-01T00:00:00", difficulty="hard"),
        livecodebench_row("stdin", question_id="c", contest_date="2025-01-01T00:00:00", difficulty="medium"),
    ]
    # What is filtered out is not even decoded.
    rows.append(livecodebench_row(question_id="d", platform="codeforces", private_test_cases="broken"))
    path = write_jsonl(tmp_path / "d.jsonl.gz", rows)

    def ids(**filters: Any) -> str:
        return "".join(problem.id for problem in load_benchmark("livecodebench", path, **filters))

    assert ids(platform="leetcode") == "a"
    assert ids(platform="atcoder") == "bc"
    assert ids(platform="atcoder", difficulty="hard") == "b"
    assert ids(platform="atcoder", since="2024-02-01", until="2024-02-01") == "b"
    assert ids(platform="atcoder", since="2024-02-02") == "c"
    assert ids(until="2024-01-01") == "a"
    assert ids(limit=2) == "ab"
    for filters, message in (
        ({"since": "2026-01-01"}, r"d.jsonl.gz: none of its 4 problems has since=2026-01-01; widen the filters"),
        ({"since": "2024-13-01"}, "since=2024-13-01: not a date; write YYYY-MM-DD"),
        ({"until": "tomorrow"}, "until=tomorrow: not a date"),
        ({"platform": "LeetCode"}, "platform=LeetCode: unknown; known: leetcode, codeforces, atcoder"),
        ({"difficulty": "1"}, "difficulty=1: unknown; known: easy, medium, hard"),
        ({"split": "test"}, "split=test: livecodebench has no such filter; it has difficulty, platform, since, until"),
    ):
        with pytest.raises(UserError, match=message):
            ids(**filters)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("Answers within 10^-5 of the actual answer will be accepted.", 5),
        ("Answers within 10^{-5} of the actual answer will be accepted.", 5),
        ("Your output is considered correct when its absolute or relative error is at most 10^{-8}.", 8),
        ("The relative error must not exceed $$$10^{-9}$$$.", 9),
        ("An error of 1e-6 is allowed", 6),
        ("An absolute error of 10^{-6} or a relative error of 10^{-4}.", 4),
        ("The answer is taken modulo 10^9+7.\n-10^9 <= x <= 10^9", None),
        ("At most 10^{-3} units of paint", None),
        ("Steps are within 10 - 5 metres.", None),
        ("", None),
    ],
)
def test_stated_tolerance(text: str, digits: int | None) -> None:
    assert stated_tolerance(text) == digits


def test_stated_tolerance_is_used(tmp_path: Path) -> None:
    text = "Divide. Answers within 10^-5 of the actual answer will be accepted."
    tests = [{"input": "1\n3", "output": "0.33333", "testtype": "functional"}]
    options = {"public_test_cases": json.dumps(tests), "private_test_cases": "[]"}
    program = "class Solution:\n    def addLast(self, a, b):\n        return a / b\n"
    assert grade_one(load_one(tmp_path, question_content=text, **options), program).passed
    assert not grade_one(load_one(tmp_path, question_content="Divide.", **options), program).passed
    tests = [{"input": "1 3\n", "output": "0.33333\n", "testtype": "stdin"}]
    options["public_test_cases"] = json.dumps(tests)
    program = "a, b = map(int, input().split())\nprint(a / b)\n"
    assert grade_one(load_one(tmp_path, "stdin", question_content=text, **options), program).passed
    assert not grade_one(load_one(tmp_path, "stdin", question_content="Divide.", **options), program).passed
