"""Rows from the Hub, with a stand-in for the package `datasets`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from benchmarks_world import HUMANEVAL, HUMANEVAL_PLUS, MBPP, SANITIZED, CountingEvaluate, livecodebench_row

from psgpo.errors import UserError
from psgpo.problems.benchmarks import load_benchmark
from psgpo.records import Call, CallTests

CHECK = """
import numpy as np
from math import inf

def assertion(out, exp, atol):
    assert out == exp

"""
HUB_HUMANEVAL_PLUS = {
    **{key: HUMANEVAL_PLUS[key] for key in ("task_id", "prompt", "entry_point", "canonical_solution")},
    "test": CHECK + "def check(candidate):\n    inputs = [[[1.0, -inf]], [[2.0]]]\n    results = [-inf, 2.0]\n"
    "    for i, (inp, exp) in enumerate(zip(inputs, results)):\n        assertion(candidate(*inp), exp, 1e-06)\n",
}
HUB_MBPP_PLUS = {
    "task_id": 2,
    "code": "def similar_elements(a, b):\n    assert type(a) is type(b) is tuple\n    return tuple(set(a) & set(b))\n",
    "prompt": "Shared elements.",
    "source_file": "a.ipynb",
    "test_imports": [],
    "test_list": ["assert set(similar_elements((3, 4), (4, 5))) == {4}"],
    "test": CHECK + "inputs = [[(3, 4), (4, 5)], [(), (1,)]]\nresults = [(4,), ()]\n"
    "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(similar_elements(*inp), exp, 0)\n",
}


def stand_in(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[Any]:
    asked: list[Any] = []

    def load_dataset(path: str, **options: Any) -> Any:
        asked.append((path, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def load(name: str, **options: Any) -> Any:
    return load_benchmark(name, evaluate=CountingEvaluate(), **options)


@pytest.mark.parametrize(
    ("name", "rows", "path"),
    [
        ("humaneval", [HUMANEVAL], "openai/openai_humaneval"),
        ("mbpp", {"train": [MBPP | {"task_id": 700}], "prompt": [MBPP]}, "google-research-datasets/mbpp"),
        ("mbpp-sanitized", {"train": [SANITIZED]}, "google-research-datasets/mbpp"),
        ("livecodebench", [livecodebench_row()], "json"),
    ],
)
def test_rows_go_through_the_same_converters(name: str, rows: Any, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch, rows)
    problems = load(name)
    assert [problem.source for problem in problems] == [name] * len(problems)
    assert len(problems) == (2 if name == "mbpp" else 1)
    assert [given for given, _ in asked] == [path]


def test_split_of_hub_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, {"train": [MBPP | {"task_id": 700}], "prompt": [MBPP]})
    assert [problem.id for problem in load("mbpp", split="prompt")] == ["Mbpp/2"]


def test_evalplus_rows_hold_their_inputs_in_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, [HUB_HUMANEVAL_PLUS])
    (problem,) = load("humanevalplus")
    assert problem.tests == CallTests(
        function="mean",
        calls=(Call(args=([1.0, float("-inf")],), expected=float("-inf")), Call(args=([2.0],), expected=2.0)),
        comparator="evalplus",
        tolerance=1e-6,
    )
    stand_in(monkeypatch, [HUB_MBPP_PLUS])
    assert "base_tests" not in problem.metadata  # the rows do not tell which inputs are the original benchmark's
    (problem,) = load("mbppplus")
    assert "base_tests" not in problem.metadata
    assert problem.id == "Mbpp/2"
    assert [call.args for call in problem.tests.calls] == [((3, 4), (4, 5)), ((), (1,))]
    assert [call.expected for call in problem.tests.calls] == [(4,), ()]
    assert problem.prompt == f'"""\nShared elements.\n{HUB_MBPP_PLUS["test_list"][0]}\n"""\n'  # type: ignore[index]


def test_offline_or_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ConnectionError("no\nroute"))
    with pytest.raises(UserError) as caught:
        load("humaneval")
    assert str(caught.value) == (
        "humaneval: openai/openai_humaneval cannot be loaded from the Hub (no route); "
        "get HumanEval.jsonl.gz of github.com/openai/human-eval and give it with --data"
    )
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"mbppplus: no data file given, and the package datasets is not installed"):
        load("mbppplus")


def test_broken_hub_rows_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, [HUB_HUMANEVAL_PLUS | {"test": "pass"}])
    with pytest.raises(UserError, match=r"^evalplus/humanevalplus\[0\]: the test script holds no list named inputs"):
        load("humanevalplus")
