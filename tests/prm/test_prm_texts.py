"""Programs as text examples: what counts as a label, and what stands where programs disagree."""

from __future__ import annotations

from pathlib import Path

import pytest

from psgpo.cli.prm import _prompts_of_all
from psgpo.errors import UserError
from psgpo.jsonl import write_jsonl
from psgpo.prm.texts import TextProgram, load_text_programs, text_examples
from psgpo.problems import save_problems_jsonl
from psgpo.records import Call, CallTests, LineLabels, Problem, Response, Status, Verdict


def program(code: str, *labels: float | None, proved: bool = True) -> TextProgram:
    return TextProgram(problem_id="p", prompt="", code=code, labels=labels, passed=False, proved=proved)


def targets(*programs: TextProgram) -> dict[str, float]:
    return {example.prefix: example.target for example in text_examples(programs, "line")}


def saved(path: Path, strategy: str, labels: tuple[float, ...], **more: bool) -> Path:
    response = Response(
        problem_id="p",
        index=0,
        checkpoint="one",
        token_ids=(1,),
        text="# note\na\nb\nc\n",
        finished=True,
        verdict=Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=1),
    )
    record = LineLabels(
        response=response,
        line_ends=(0, 0, 0, 0),
        labels=labels,
        last_solvable=2,
        strategy=strategy,
        probes=(),
        completions=0,
        tokens=0,
        executions=1,
        **more,
    )
    write_jsonl(path, [record.to_json()])
    return path


def test_a_proof_stands_against_guesses_and_guesses_are_averaged() -> None:
    assert targets(program("a", -1.0), program("a", 1.0)) == {"a": 1.0}, "a program that passes proves its prefixes"
    assert targets(program("a", 1.0, proved=False), program("a", -1.0)) == {"a": 0.0}
    guesses = [program("a", label, proved=False) for label in (1.0, 0.0, -1.0, -1.0)]
    assert targets(*guesses) == {"a": pytest.approx(3 / 8)}


def test_a_line_without_a_label_is_none_and_a_soft_zero_is_one(tmp_path: Path) -> None:
    open_line = saved(tmp_path / "open.jsonl", "splice", (0.0, 1.0, 0.0, -1.0))
    (found,) = load_text_programs(open_line, {"p": "task"})
    assert (found.labels, found.proved) == ((None, 1.0, None, -1.0), True)
    soft = saved(tmp_path / "soft.jsonl", "soft", (0.0, 1.0, 0.0, -1.0))
    (found,) = load_text_programs(soft, {"p": "task"})
    assert (found.labels, found.proved) == ((None, 1.0, 0.0, -1.0), False)
    guessed = saved(tmp_path / "guessed.jsonl", "splice", (0.0, 1.0, 1.0, -1.0), guessed=True)
    assert not load_text_programs(guessed, {"p": "task"})[0].proved


def test_one_id_with_two_prompts_is_refused(tmp_path: Path) -> None:
    tests = CallTests(function="f", calls=(Call(args=(1,), expected=2),))
    files = []
    for name, prompt in (("one", "add one"), ("two", "add two")):
        (tmp_path / name).mkdir()
        save_problems_jsonl(tmp_path / name / "problems.jsonl", [Problem(id="p", prompt=prompt, tests=tests)])
        files.append(tmp_path / name / "labels.jsonl")
    assert _prompts_of_all(files[:1], None) == {"p": "add one"}
    with pytest.raises(UserError, match="problem p has another prompt in a file named before it"):
        _prompts_of_all(files, None)
