"""Twins in the small world: what they begin and end with, that they are run, what is known of their lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labeling_world import EOS, CharTokenizer, FakeGrader, encode, label, problem, random_responses, response, words_of

from psgpo.config import PrmSettings
from psgpo.errors import UserError
from psgpo.labeling import make_twins, response_behind
from psgpo.lines import code_lines
from psgpo.prm.data import build_examples
from psgpo.records import LineLabels, Problem, Response


def with_solution(of: Problem) -> Problem:
    return replace(of, reference_solution="".join(f"{word}\n" for word in of.tests.calls[0].args))


def spliced(problems: Sequence[Problem], responses: Sequence[Response], folder: Path) -> tuple[LineLabels, ...]:
    made = label(problems, responses, folder / "j", {"one": None}, strategy="splice", references=True, hunt=0)
    return tuple(made.labels)


def twins(labels: Sequence[LineLabels], problems: Sequence[Problem], **changes: Any) -> list[LineLabels]:
    arguments = {"tokenizer": CharTokenizer(), "sandbox": FakeGrader(), "seed": 3} | changes
    return make_twins(labels, problems, **arguments)


def of_kind(made: Sequence[LineLabels], kind: str) -> list[LineLabels]:
    return [twin for twin in made if twin.response.checkpoint.endswith(kind)]


def test_a_failed_response_is_mended_and_continued(tmp_path: Path) -> None:
    asked = with_solution(problem("p", 4))
    failed = response(asked, "def\n# note\napple\nwrong\n", index=5)
    labels = spliced([asked], [failed], tmp_path)
    assert (labels[0].last_solvable, labels[0].done) == (3, 0.5)
    mended, continued = twins(labels, [asked])

    assert mended.response.text == "def\n# note\napple\nbirch\ncedar\n"
    assert mended.response.checkpoint == "one/mended"
    assert mended.response.verdict.passed
    assert mended.response.token_ids == (*encode(mended.response.text), EOS)
    assert (mended.labels, mended.last_solvable, mended.done) == ((1, 0, 1, 1, 1), 5, 1.0)

    # One wrong line stands for nothing of the ending or for its first line.
    assert continued.response.text.removeprefix("def\n# note\napple\nwrong\n") in ("birch\ncedar\n", "cedar\n")
    assert not continued.response.verdict.passed
    assert (continued.labels[:4], set(continued.labels[4:])) == ((1, 0, 1, -1), {-1})
    assert (continued.last_solvable, continued.done) == (3, 0.5)

    for twin in (mended, continued):
        ends = [twin.response.token_ids[end] for end in twin.line_ends]
        assert ends == [ord("\n")] * len(code_lines(twin.response.text))
        assert response_behind(twin.response) == ("p", 5, "one")
        assert (twin.completions, twin.tokens, twin.executions, twin.probes) == (0, 0, 1, ())
        assert LineLabels.from_json(twin.to_json()) == twin


def test_a_prm_learns_what_is_done_from_twins(tmp_path: Path) -> None:
    asked = with_solution(problem("p", 4))
    labels = spliced([asked], [response(asked, "def\napple\nwrong\n")], tmp_path)
    mended, continued = build_examples(twins(labels, [asked]), PrmSettings(target="progress"))
    assert mended.targets == (0.25, 0.5, 0.75, 1.0)
    assert continued.targets[:3] == (0.25, 0.5, 0.5)
    assert set(continued.targets[3:]) == {0.5}
    assert set(mended.weights + continued.weights) == {1.0}


def test_labels_of_twins_are_the_truth(tmp_path: Path) -> None:
    problems, responses = random_responses(80, seed=9)
    problems = [with_solution(one) for one in problems]
    labels = spliced(problems, responses, tmp_path)
    made = twins(labels, problems)
    words = {one.id: list(one.tests.calls[0].args) for one in problems}
    for twin in made:
        wanted = words[twin.response.problem_id]
        here = words_of(twin.response.text)
        right = next((n for n, (a, b) in enumerate(zip(here, wanted, strict=False)) if a != b), len(wanted))
        assert [value for value in twin.labels if value] == [1.0 if n < right else -1.0 for n in range(len(here))]
        assert twin.response.verdict.passed == (here == wanted) == twin.response.checkpoint.endswith("/mended")
    failed = {label_.response.problem_id for label_ in labels if not label_.response.verdict.passed}
    assert {twin.response.problem_id for twin in of_kind(made, "/mended")} == failed
    assert len(of_kind(made, "/continued")) > len(failed)


def test_equal_programs_of_a_problem_are_one_twin(tmp_path: Path) -> None:
    asked = with_solution(problem("p", 3))
    failed = [response(asked, "def\nwrong\n", index=index) for index in range(6)]
    made = twins(spliced([asked], failed, tmp_path), [asked])
    texts = [twin.response.text for twin in made]
    assert len(set(texts)) == len(texts)
    assert len(of_kind(made, "/mended")) == 1


def test_what_is_drawn_depends_on_the_response_and_the_seed_alone(tmp_path: Path) -> None:
    problems, responses = random_responses(60, seed=2)
    problems = [with_solution(one) for one in problems]
    labels = spliced(problems, responses, tmp_path)
    made = {twin.response.text: twin.labels for twin in twins(labels, problems)}
    some = {twin.response.text: twin.labels for twin in twins(labels[::2], problems)}
    assert some.items() <= made.items()
    assert {twin.response.text for twin in twins(labels, problems, seed=4)} != made.keys()


def test_what_has_no_known_ending_has_no_twin(tmp_path: Path) -> None:
    asked = with_solution(problem("p", 4))
    known, guessed = spliced(
        [asked], [response(asked, f"def\n{word}\n", index=n) for n, word in enumerate("ab")], tmp_path
    )
    made = twins([known, replace(guessed, guessed=True)], [asked])
    assert {response_behind(twin.response) for twin in made} == {("p", 0, "one")}
    with pytest.raises(UserError, match="none of 1 failed responses has a known ending"):
        twins([replace(known, done=None)], [asked])
    assert twins(spliced([asked], [response(asked, "def\napple\nbirch\ncedar\n")], tmp_path / "x"), [asked]) == []


def test_a_tokenizer_that_changes_the_program_is_refused(tmp_path: Path) -> None:
    class Lower(CharTokenizer):
        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return super().__call__(text.replace("apple", "APPLE"))

    asked = with_solution(problem("p", 4))
    labels = spliced([asked], [response(asked, "def\nwrong\n")], tmp_path)
    with pytest.raises(UserError, match="does not give a program for problem p back"):
        twins(labels, [asked], tokenizer=Lower())
