"""`problems.train_tests`: RL and labelling see a part of the tests, exact labels and the evaluation all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from psgpo.config import parse_recipe
from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.problems import load_problems_jsonl
from psgpo.problems.opchain import OpChain, chain_of, weakened
from psgpo.problems.opchain.operation import program
from psgpo.problems.opchain.oracle import ExactOracle
from psgpo.records import Problem
from psgpo.runs.directory import RunDirectory
from psgpo.runs.stages import run_stage

SIZES = {"train": 12, "label": 6, "validation": 3, "test": 3}


def wrong_programs(problem: Problem) -> list[str]:
    """One for every misconception of every operation."""
    chain, programs = chain_of(problem), []
    right = [step.correct()[0] for step in chain]
    for place, step in enumerate(chain):
        for kind in range(len(step.operation.wrong)):
            codes = [*right[:place], step.wrong(kind)[0], *right[place + 1 :]]
            programs.append(program([line for code in codes for line in code]))
    return programs


def test_a_program_can_pass_weak_tests_fail_strong_ones_and_exact_labels_do_not_mind() -> None:
    strong = OpChain().problems("train", 12, (2, 5))
    weak = [weakened(problem, 1) for problem in strong]
    tried = [(s, w, code) for s, w in zip(strong, weak, strict=True) for code in wrong_programs(s)]
    with Sandbox() as sandbox:
        of_strong = sandbox.grade([(code, problem.tests) for problem, _, code in tried])
        of_weak = sandbox.grade([(code, problem.tests) for _, problem, code in tried])
        oracle = ExactOracle(sandbox.evaluate_many)
        exact = oracle.label([(problem, code) for problem, _, code in tried])
        exact_of_weak = oracle.label([(problem, code) for _, problem, code in tried])
    assert {verdict.tests_total for verdict in of_weak} == {1}
    assert {verdict.tests_total for verdict in of_strong} == {8}
    fooled = [n for n, (s, w) in enumerate(zip(of_strong, of_weak, strict=True)) if w.passed and not s.passed]
    assert fooled
    assert not any(s.passed and not w.passed for s, w in zip(of_strong, of_weak, strict=True))
    assert exact_of_weak == exact
    assert not any(exact[n].passed or exact[n].last_on_track == exact[n].lines for n in fooled)


def test_weak_problems_survive_the_file_and_stay_out_of_evaluation(tmp_path: Path) -> None:
    folders = {}
    for tests in (None, 2):
        table = {
            "name": "weak",
            "out": str(tmp_path / str(tests)),
            "problems": {"kind": "opchain", "train_tests": tests} | SIZES,
            "arms": {"baseline": {}},
        }
        run = RunDirectory.create(parse_recipe(table, origin="r"))
        run_stage(run, "problems", lambda done, total: None)
        folders[tests] = run.path / "problems"
    for split in SIZES:
        strong, weak = (load_problems_jsonl(folders[tests] / f"{split}.jsonl") for tests in (None, 2))
        seen = [weakened(problem, 2) for problem in strong] if split in ("train", "label") else strong
        assert weak == seen
    caught = [json.loads((folders[tests] / "strength.json").read_text()) for tests in (None, 2)]
    assert caught[0] != caught[1]


@pytest.mark.parametrize("tests", [0, 9])
def test_numbers_of_tests_that_no_problem_has_are_refused(tests: int) -> None:
    table = {"name": "t", "out": "o", "problems": {"kind": "opchain", "train_tests": tests}, "arms": {"baseline": {}}}
    with pytest.raises(UserError, match=r"problems\.train_tests"):
        parse_recipe(table, origin="r")
