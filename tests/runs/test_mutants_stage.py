"""The stage that makes mutants: of problems of any source, proposed by the catalogue or by a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_server import fake_server
from psgpo.config import parse_recipe
from psgpo.errors import UserError
from psgpo.mutation.labelled import load_programs
from psgpo.problems import save_problems_jsonl
from psgpo.records import AssertTests, Problem
from psgpo.runs.directory import RunDirectory
from psgpo.runs.work.mutants import make_mutants

COUNT = """\
def count_even(numbers):
    total = 0
    for number in numbers:
        if number % 2 == 0:
            total += 1
    return total
"""


def recipe_table(out: Path, **mutation: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "out": str(out),
        "problems": {"kind": "jsonl", "train": "a.jsonl", "test": "b.jsonl"},
        "labels": {"source": "mutation"},
        "mutation": {"generated": 5} | mutation,
        "arms": {"baseline": {}},
    }


def made(out: Path, **mutation: Any) -> RunDirectory:
    tests = AssertTests(
        entry_point="count_even", checks=("assert count_even([1, 2, 4]) == 2", "assert count_even([7]) == 0")
    )
    problem = Problem(
        id="toy/count",
        prompt="Count the even numbers.",
        tests=tests,
        reference_solution=COUNT,
        metadata={"text": "another wording"},
    )
    save_problems_jsonl(out / "problems" / "label.jsonl", [problem])
    run = RunDirectory(out, parse_recipe(recipe_table(out, **mutation), origin="test"))
    make_mutants(run, lambda done, total: None)
    return run


def test_mutants_carry_the_prompt_that_the_policy_reads(tmp_path: Path) -> None:
    made(tmp_path, bugs_per_line=1, refactors_per_line=1)
    programs = load_programs(tmp_path / "mutants" / "programs.jsonl")
    assert {program.prompt for program in programs} == {"Count the even numbers."}
    assert {program.teacher for program in programs} == {"reference", "catalogue"}
    assert {program.verdict for program in programs} == {"pass", "fail"}


def test_the_teacher_may_be_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(request: dict[str, Any], number: int) -> str:
        wanted = "total = 1" if "realistic bug" in request["messages"][0]["content"] else "total = int()"
        return (
            f"```python\n{wanted}\n```" if "is:\n    total = 0" in request["messages"][0]["content"] else "```\n(\n```"
        )

    monkeypatch.setenv("TEACHER_KEY", "secret")
    with fake_server(reply) as state:
        made(tmp_path, catalogue=False, server=state.url, model="coder-v2", api_key_env="TEACHER_KEY")
    assert state.headers[0]["Authorization"] == "Bearer secret"
    programs = load_programs(tmp_path / "mutants" / "programs.jsonl")
    found = {(program.teacher, program.family, program.verdict) for program in programs}
    assert found == {("reference", "reference", "pass"), ("coder-v2", "bug", "fail"), ("coder-v2", "refactor", "pass")}


@pytest.mark.parametrize(
    ("mutation", "words"),
    [({"catalogue": False}, "leaves nobody to propose mutants"), ({"server": "http://x/v1"}, "server and model")],
)
def test_a_run_without_a_teacher_is_refused(tmp_path: Path, mutation: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_recipe(recipe_table(tmp_path, **mutation), origin="test")
