"""What the tests of the benchmarks share: the data folder, files in every benchmark's format, reference runs."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from psgpo.execution import Sandbox
from psgpo.problems.programs import program_of
from psgpo.records import Problem, Verdict

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]


def data_file(name: str) -> Path:
    """A data file of others, or a skip that says where to put it."""
    folder = Path(os.environ.get("PSGPO_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / name).is_file():
        pytest.skip(f"{folder / name} is absent; put it there or name its folder in PSGPO_DATA")
    return folder / name


def write_jsonl(path: Path, rows: Sequence[Json]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@dataclass
class Value:
    """Like `psgpo.execution.Outcome`."""

    value: Any = None
    error: str | None = None


class CountingEvaluate:
    """Runs programs of these tests in this process, and counts what it was asked."""

    def __init__(self) -> None:
        self.items = 0
        self.calls = 0

    def __call__(self, items: Sequence[tuple[str, str, Sequence[tuple[Any, ...]]]]) -> list[list[Value]]:
        self.items += len(items)
        self.calls += sum(len(calls) for _, _, calls in items)
        return [[self._call(program, function, arguments) for arguments in calls] for program, function, calls in items]

    def _call(self, program: str, function: str, arguments: tuple[Any, ...]) -> Value:
        names: Json = {}
        exec(program, names)
        try:
            return Value(value=names[function](*arguments))
        except Exception as error:
            return Value(error=f"RUNTIME_ERROR: {error!r}")


def grade_references(problems: Sequence[Problem], *, timeout: float = 30.0, memory_mb: int = 512) -> list[Verdict]:
    """Verdicts of the reference solutions, as whole programs."""
    items = [(program_of(problem, solution=problem.reference_solution), problem.tests) for problem in problems]
    with Sandbox(workers=1, timeout=timeout, memory_mb=memory_mb) as sandbox:
        return sandbox.grade(items)


def grade_one(problem: Problem, program: str) -> Verdict:
    with Sandbox(workers=1, timeout=10.0) as sandbox:
        return sandbox.grade([(program, problem.tests)])[0]


HUMANEVAL: Json = {
    "task_id": "HumanEval/0",
    "prompt": "import math\n\ndef half(x):\n    return x / 2\n\n"
    'def area(r: float) -> float:\n    """Area of a disc."""\n',
    "entry_point": "area",
    "canonical_solution": "    return math.pi * r * r\n",
    "test": "METADATA = {'author': 'x'}\n\ndef check(candidate):\n    import math\n    assert candidate(0) == 0\n"
    "    value = candidate(1)\n    assert abs(value - math.pi) < half(1e-6), 'one'\n    assert True, 'always'\n"
    "    for r in range(3):\n        assert candidate(r) >= 0\n    print('done')\n",
}
MBPP: Json = {
    "task_id": 2,
    "text": "Write a function to double.",
    "code": "def double(x):\r\n  return 2 * x",
    "test_list": ["assert double(1) == 2", "assert double(2) == 4", "assert set(double([1])) == {1}"],
    "test_setup_code": "",
    "challenge_test_list": ["assert double(0) == 0"],
}
SANITIZED: Json = {
    "source_file": "a.ipynb",
    "task_id": 602,
    "prompt": "Write a function to take a root.",
    "code": "import math\ndef root(x):\n    return math.sqrt(x)",
    "test_imports": ["import math"],
    "test_list": ["assert math.isclose(root(4), 2)", "assert root(9) == 3"],
}
HUMANEVAL_PLUS: Json = {
    "task_id": "HumanEval/7",
    "prompt": 'from typing import List\n\n\ndef mean(numbers: List[float]) -> float:\n    """Mean."""\n',
    "contract": "",
    "entry_point": "mean",
    "canonical_solution": "    return sum(numbers) / len(numbers)\n",
    "base_input": [[[1.0, 2.0]]],
    "plus_input": [[[0.1, 0.2, 0.3]], [[5.0]]],
    "atol": 0,
    "test": "def check(candidate):\n    assert candidate([1.0, 2.0]) == 1.5\n",
}
MBPP_PLUS: Json = {
    "task_id": "Mbpp/2",
    "prompt": '"""\nShared elements.\nassert similar_elements((3, 4), (4,)) == (4,)\n"""\n',
    "entry_point": "similar_elements",
    "canonical_solution": "\ndef similar_elements(a, b):\n    assert type(a) is type(b) is tuple\n"
    "    return tuple(set(a) & set(b))\n",
    "base_input": [[[3, 4, 5, 6], [5, 7, 4, 10]]],
    "plus_input": [[[1, 2], []]],
    "atol": 0,
    "contract": "",
    "assertion": "",
}


def compressed(cases: Sequence[Json], protocol: int = 4) -> str:
    """Private tests as LiveCodeBench writes them: JSON text, pickled, compressed, in base64."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases), protocol))).decode()


def livecodebench_row(kind: str = "functional", **changes: Any) -> Json:
    """A made-up problem in the real format."""
    if kind == "functional":
        public = [{"input": "[1, 2]\n3", "output": "[1, 2, 3]", "testtype": "functional"}]
        private = [{"input": "[]\n1", "output": "[1]", "testtype": "functional"}]
        starter = "class Solution:\n    def addLast(self, nums: List[int], x: int) -> List[int]:\n        "
        named: Json = {"platform": "leetcode", "metadata": json.dumps({"func_name": "addLast"})}
    else:
        public = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
        private = [{"input": "10 20\n", "output": "30\n", "testtype": "stdin"}]
        starter, named = "", {"platform": "atcoder", "metadata": "{}"}
    return {
        "question_title": "Add",
        "question_content": "Add the last.",
        "question_id": "3001",
        "contest_id": "weekly-1",
        "contest_date": "2024-01-06T00:00:00",
        "starter_code": starter,
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": compressed(private),
        **named,
        **changes,
    }
