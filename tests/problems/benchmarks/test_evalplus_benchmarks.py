"""HumanEval+ and MBPP+: inputs restored, expected outputs from the reference, computed once."""

from __future__ import annotations

import ast
import gzip
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks_world import (
    HUMANEVAL_PLUS,
    MBPP_PLUS,
    CountingEvaluate,
    Value,
    data_file,
    grade_one,
    grade_references,
    write_jsonl,
)

from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.problems.benchmarks import load_benchmark
from psgpo.problems.benchmarks.evalplus_inputs import mbpp_arguments
from psgpo.problems.benchmarks.references import Reference, reference_outputs
from psgpo.problems.benchmarks.scripts import parse
from psgpo.records import AssertTests, Call, CallTests, Problem, Status

SLOW = {"Mbpp/84", "Mbpp/123", "Mbpp/271", "Mbpp/300", "Mbpp/389", "Mbpp/392", "Mbpp/589", "Mbpp/592", "Mbpp/599"}
"""References that take a second or more; Mbpp/599 takes twenty."""


def load_one(name: str, row: dict[str, Any], folder: Path, evaluate: Any = None) -> Problem:
    (problem,) = load_benchmark(name, write_jsonl(folder / "d.jsonl", [row]), evaluate=evaluate or CountingEvaluate())
    return problem


def test_humaneval_plus_row(tmp_path: Path) -> None:
    problem = load_one("humanevalplus", HUMANEVAL_PLUS, tmp_path)
    assert problem.tests == CallTests(
        function="mean",
        calls=(
            Call(args=([1.0, 2.0],), expected=1.5),
            Call(args=([0.1, 0.2, 0.3],), expected=(0.1 + 0.2 + 0.3) / 3),
            Call(args=([5.0],), expected=5.0),
        ),
        comparator="evalplus",
    )
    assert problem.metadata["base_tests"] == 1
    assert problem.preamble == "from typing import List\n"
    assert grade_references([problem])[0].passed
    almost = "def mean(numbers):\n    import statistics\n    return statistics.fmean(numbers) + 1e-8\n"
    assert grade_one(problem, almost).passed
    assert grade_one(problem, almost.replace("1e-8", "1e-4")).status is Status.WRONG_ANSWER


def test_mbpp_plus_row(tmp_path: Path) -> None:
    problem = load_one("mbppplus", MBPP_PLUS, tmp_path)
    assert isinstance(problem.tests, CallTests)
    assert problem.tests.comparator == "evalplus-set"
    assert [call.args for call in problem.tests.calls] == [((3, 4, 5, 6), (5, 7, 4, 10)), ((1, 2), ())]
    assert problem.split == "prompt"
    verdict = grade_one(problem, "def similar_elements(a, b):\n    return [x for x in b if x in a] * 2\n")
    assert verdict.passed


def test_only_whether_there_is_an_answer_counts(tmp_path: Path) -> None:
    row = MBPP_PLUS | {
        "task_id": "Mbpp/737",
        "entry_point": "check_str",
        "canonical_solution": "import re\ndef check_str(string):\n    return re.search('^[aeiou]', string)\n",
        "base_input": [["annie"], ["dawood"]],
        "plus_input": {},
    }
    problem = load_one("mbppplus", row, tmp_path)
    assert isinstance(problem.tests, AssertTests)
    assert problem.tests.checks == (
        "assert answered(check_str(*('annie',))) == True",
        "assert answered(check_str(*('dawood',))) == False",
    )
    right = ("return re.search('^[aeiou]', s)", "return s[0] in 'aeiou'", "return s if s[0] in 'aeiou' else None")
    for body in right:
        assert grade_one(problem, f"import re\ndef check_str(s):\n    {body}\n").passed
    liar = "class T:\n    def __eq__(self, other):\n        return True\ndef check_str(s):\n    return T()\n"
    assert not grade_one(problem, liar).passed


@pytest.mark.parametrize(
    ("number", "arguments", "restored"),
    [
        (2, [[1, 2], [3]], ((1, 2), (3,))),
        (63, [[[1, 2], [3]]], ([(1, 2), (3,)],)),
        (75, [[[1, 2]], 3], ([(1, 2)], 3)),
        (106, [[1], [2]], ([1], (2,))),
        (115, [[[1, 2], [], 3]], ([{1, 2}, {}, {}],)),
        (124, ["1.5", "2j"], (1.5, 2j)),
        (250, [[1, 2], 1], ((1, 2), 1)),
        (252, ["(1+2j)"], (1 + 2j,)),
        (259, [[[1, 2]], [[3]]], (((1, 2),), ((3,),))),
        (278, [[1, [2, 3]]], ((1, (2, 3)),)),
        (307, [[1, [2]], 1, 2], ((1, [2]), 1, 2)),
        (722, [{"a": [1, 2]}, 3, 4], ({"a": (1, 2)}, 3, 4)),
        (580, [[1, [2, [3]]]], ((1, (2, (3,))),)),
        (3, [[1, 2]], ([1, 2],)),
    ],
)
def test_inputs_restored(number: int, arguments: list[Any], restored: tuple[Any, ...]) -> None:
    found = mbpp_arguments(number, arguments)
    assert repr(found) == repr(restored)


def test_outputs_are_computed_once(tmp_path: Path, reference_cache: Path) -> None:
    first, second, third = CountingEvaluate(), CountingEvaluate(), CountingEvaluate()
    problem = load_one("humanevalplus", HUMANEVAL_PLUS, tmp_path, first)
    assert load_one("humanevalplus", HUMANEVAL_PLUS, tmp_path, second) == problem
    assert (first.calls, second.calls) == (3, 0)
    changed = HUMANEVAL_PLUS | {"canonical_solution": "    return 0.0\n"}
    assert load_one("humanevalplus", changed, tmp_path, third) != problem
    assert third.calls == 3
    for file in reference_cache.iterdir():
        file.write_text("[1,")
    again = CountingEvaluate()
    assert load_one("humanevalplus", HUMANEVAL_PLUS, tmp_path, again) == problem
    assert again.calls == 3


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_one("humanevalplus", HUMANEVAL_PLUS, tmp_path).metadata["base_tests"] == 1


def test_values_survive_the_cache() -> None:
    program = "def f(i):\n    return [(1, {2}), {3: b'x'}, float('inf'), 2j, None, frozenset({1}), 'é', 10**400][i]\n"
    reference = Reference(task="t", program=program, function="f", calls=[(index,) for index in range(8)])
    fresh = reference_outputs([reference], CountingEvaluate())
    assert repr(reference_outputs([reference], None)) == repr(fresh)
    assert repr(fresh[0]) == repr([(1, {2}), {3: b"x"}, float("inf"), 2j, None, frozenset({1}), "é", 10**400])


def test_calls_that_ended_a_program_are_tried_in_smaller_groups() -> None:
    class Tired:
        """A program answers three calls, then its time is up."""

        def __call__(self, items: Any) -> Any:
            return [
                [
                    Value(value=call[0]) if index < 3 else Value(error="TIMEOUT: wall")
                    for index, call in enumerate(calls)
                ]
                for _, _, calls in items
            ]

    calls = [(index,) for index in range(50)]
    reference = Reference(task="t", program="p", function="f", calls=calls)
    assert reference_outputs([reference], Tired()) == [list(range(50))]


def test_a_reference_that_fails_is_named(tmp_path: Path) -> None:
    row = HUMANEVAL_PLUS | {"plus_input": [[[1.0]], [[]]]}
    with pytest.raises(UserError, match=r"HumanEval/7: the reference solution fails on input 2 \(RUNTIME_ERROR: Zero"):
        load_one("humanevalplus", row, tmp_path)
    with pytest.raises(UserError, match="HumanEval/7: its expected outputs must be computed first"):
        load_benchmark("humanevalplus", write_jsonl(tmp_path / "d.jsonl", [HUMANEVAL_PLUS]))
    with pytest.raises(UserError, match=r"d.jsonl:1: the task has no input"):
        load_one("humanevalplus", HUMANEVAL_PLUS | {"base_input": [], "plus_input": []}, tmp_path)


def mbppplus_rows() -> list[dict[str, Any]]:
    with gzip.open(data_file("mbppplus.jsonl.gz"), "rt") as stream:
        rows = [json.loads(line) for line in stream]
    assert len(rows) == 399
    return rows


def mbppplus_part(folder: Path, wanted: Callable[[str], bool]) -> list[Problem]:
    rows = mbppplus_rows()
    path = write_jsonl(folder / "d.jsonl", [row for row in rows if wanted(row["task_id"])])
    with Sandbox(workers=1, timeout=30.0) as sandbox:
        return load_benchmark("mbppplus", path, evaluate=sandbox.evaluate_many)


OBJECTS = {"Mbpp/737", "Mbpp/787", "Mbpp/794"}
LEFT_OUT = {"Mbpp/255": 5, "Mbpp/630": 2}


@pytest.mark.parametrize("one_of", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_mbpp_plus_references_pass(one_of: int, tmp_path: Path) -> None:
    problems = mbppplus_part(
        tmp_path, lambda task: task not in SLOW and (task in OBJECTS or int(task.split("/")[1]) % one_of == 0)
    )
    verdicts = grade_references(problems)
    assert [problem.id for problem, verdict in zip(problems, verdicts, strict=True) if not verdict.passed] == []
    with_objects = {p.id for p, verdict in zip(problems, verdicts, strict=True) if verdict.mode == "asserts+objects"}
    assert with_objects == OBJECTS
    assert len(problems) > 60
    assert len(problems) == 399 - len(SLOW) or one_of > 1
    rows = {row["task_id"]: len(row["base_input"]) + len(row["plus_input"]) for row in mbppplus_rows()}
    left_out = {p.id: rows[p.id] - verdict.tests_total for p, verdict in zip(problems, verdicts, strict=True)}
    assert {name: count for name, count in left_out.items() if count} == {
        name: count for name, count in LEFT_OUT.items() if name in left_out
    }


@pytest.mark.slow
def test_slow_mbpp_plus_references_pass(tmp_path: Path) -> None:
    problems = mbppplus_part(tmp_path, SLOW.__contains__)
    assert all(verdict.passed for verdict in grade_references(problems, timeout=100.0))
    assert {problem.id for problem in problems} == SLOW


def test_mbpp_plus_inputs_meet_the_contracts() -> None:
    """The data's own assertions about types prove that tuples, sets and complex numbers came back."""
    rows = mbppplus_rows()
    items = [(_contract(row), "contract", _calls(row)) for row in rows]
    with Sandbox(workers=1, timeout=30.0) as sandbox:
        answers = sandbox.evaluate_many(items)
    broken = {
        row["task_id"]: sum(outcome.error is not None for outcome in outcomes)
        for row, outcomes in zip(rows, answers, strict=True)
        if any(outcome.error is not None for outcome in outcomes)
    }
    assert broken == {"Mbpp/267": 3, "Mbpp/734": 104}  # floats for an int, and empty lists: so in the data


def _calls(row: dict[str, Any]) -> list[tuple[Any, ...]]:
    number = int(row["task_id"].split("/")[1])
    return [mbpp_arguments(number, list(arguments)) for arguments in [*row["base_input"], *row["plus_input"]]]


def _contract(row: dict[str, Any]) -> str:
    functions = [node for node in parse(row["canonical_solution"]).body if isinstance(node, ast.FunctionDef)]
    (function,) = [node for node in functions if node.name == row["entry_point"]][-1:]
    body = textwrap.indent(textwrap.dedent(row["contract"].expandtabs(8)), "    ")
    return f"{row['canonical_solution']}\n\ndef contract({ast.unparse(function.args)}):\n    pass\n{body}"
