"""What the labels are, and the examples that follow from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from mutation_world import COUNT

from psgpo.errors import UserError
from psgpo.jsonl import write_jsonl
from psgpo.mutation import load_line_examples
from psgpo.mutation.examples import line_examples
from psgpo.mutation.labelled import LabelledProgram, line_labels, load_programs, text_lines
from psgpo.mutation.run import Labelling

CODE = "def f(a):\n    # a comment\n    b = a + 1\n\n    c = b\n    return c\n"


def program(
    code: str, labels: list[int], *, mutated: int | None = None, verdict: str = "pass", **others: str
) -> LabelledProgram:
    values = {"id": "p#1", "problem_id": "p", "prompt": "Do it.", "family": "bug", "kind": "k", "operator": "o"}
    values |= {"teacher": "t", "status": "PASSED", "decided_by": ""} | others
    return LabelledProgram(
        code=code,
        lines=tuple(text_lines(code)),
        labels=tuple(labels),
        mutated_line=mutated,
        reference_line=None,
        in_place=True,
        verdict=verdict,
        **values,
    )


@pytest.mark.parametrize(
    ("mutated", "passed", "after", "labels"),
    [
        (None, True, "unlabelled", [1, 0, 1, 0, 1, 1]),
        (3, True, "unlabelled", [1, 0, 1, 0, 1, 1]),
        (3, False, "unlabelled", [1, 0, -1, 0, 0, 0]),
        (3, False, "negative", [1, 0, -1, 0, -1, -1]),
        (3, False, "positive", [1, 0, -1, 0, 1, 1]),
        (6, False, "unlabelled", [1, 0, 1, 0, 1, -1]),
    ],
)
def test_labels_by_hand(mutated: int | None, passed: bool, after: str, labels: list[int]) -> None:
    assert line_labels(CODE, mutated_line=mutated, passed=passed, after=after) == labels  # type: ignore[arg-type]


def test_lines_of_the_prompt_are_not_labelled() -> None:
    assert line_labels(CODE, mutated_line=5, passed=False, after="unlabelled", given_lines=3) == [0, 0, 0, 0, -1, 0]


def test_each_prefix_once_and_positive_wins() -> None:
    right = program("x = 1\ny = 2\n", [1, 1], id="a", family="reference")
    wrong = program("x = 1\ny = 2\nz = 3\n", [1, -1, 0], id="b", mutated=2, verdict="fail")
    other = program("x = 1\ny = 2\n", [1, 1], id="c", problem_id="q")
    for programs in ([right, wrong, other], [wrong, right, other]):
        examples = line_examples(programs)
        assert {(e.problem_id, e.prefix, e.label) for e in examples} == {
            ("p", "x = 1", 1),
            ("p", "x = 1\ny = 2", 1),
            ("q", "x = 1", 1),
            ("q", "x = 1\ny = 2", 1),
        }
        assert len(examples) == 4
    first = line_examples([wrong])[1]
    assert (first.label, first.line, first.lines, first.program_id, first.prompt) == (-1, 2, 3, "b", "Do it.")


def test_programs_and_examples_are_read_back(tmp_path: Path) -> None:
    survivor = program(COUNT, [1] * 6, id="s", mutated=2)
    refactor = dataclasses.replace(survivor, id="r", family="refactor", problem_id="q")
    path = tmp_path / "programs.jsonl"
    write_jsonl(path, [survivor.to_json(), refactor.to_json()])
    assert load_programs(path) == [survivor, refactor]
    assert len(load_line_examples(tmp_path)) == 12
    assert {e.problem_id for e in load_line_examples(path, survivors=False)} == {"q"}
    assert load_line_examples(path)[2].prefix == "\n".join(COUNT.split("\n")[:3])


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "programs.jsonl"
    with pytest.raises(UserError, match="no such file"):
        load_line_examples(path)
    good = program("x = 1\n", [1]).to_json()
    write_jsonl(path, [good, good | {"labels": [1, 1]}])
    with pytest.raises(UserError, match=r"programs.jsonl:2: .*one label"):
        load_line_examples(path)
    write_jsonl(path, [good | {"labels": [0]}])
    with pytest.raises(UserError, match="no labelled line"):
        load_line_examples(path)


@pytest.mark.parametrize("wrong", [{"after": "x"}, {"timeouts": "positive"}, {"survivors": "negative"}])
def test_unknown_choices_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UserError, match="choose one of"):
        Labelling(**wrong)  # type: ignore[arg-type]
