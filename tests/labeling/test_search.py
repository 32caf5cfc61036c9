"""The pure search against answers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psgpo.config import LabelSettings
from psgpo.labeling.search import (
    Answer,
    Question,
    Search,
    binary_search,
    binary_search_steps,
    drive,
    last_solvable_line,
    line_labels,
    linear_scan,
    linear_scan_steps,
    soft_steps,
    spread_labels,
)
from psgpo.labeling.strategies import STRATEGIES

K = 4
STEPS: dict[str, Callable[[int, int], Search]] = {
    "binary-search": binary_search_steps,
    "linear-scan": linear_scan_steps,
}


def asked(strategy: str, lines: int, last: int) -> tuple[int, list[int]]:
    """m* and the questions of a search whose answers are true up to `last`."""
    questions: list[Question] = []

    def solvable(question: Question) -> Answer:
        questions.append(question)
        return Answer(1, 2) if question.line <= last else Answer(0, K)

    found = drive(STEPS[strategy](lines, K), solvable)
    assert found.labels is None
    assert {(question.draws, question.until_pass) for question in questions} <= {(K, True)}
    return found.last, [question.line for question in questions]


def test_figure_2_of_the_paper() -> None:
    found, questions = asked("binary-search", 5, 3)
    assert (found, questions) == (3, [3, 4])
    assert line_labels(found, [False] * 5) == (1, 1, 1, -1, -1)


@pytest.mark.parametrize(
    ("lines", "last", "questions"),
    [
        (0, 0, []),
        (1, 0, [1]),
        (1, 1, [1]),
        (2, 0, [1]),
        (2, 1, [1, 2]),
        (4, 2, [2, 3]),
        (5, 0, [3, 1]),
        (5, 5, [3, 4, 5]),
        (6, 2, [3, 1, 2]),
        (12, 7, [6, 9, 7, 8]),
    ],
)
def test_binary_search_asks_floor_midpoints(lines: int, last: int, questions: list[int]) -> None:
    assert asked("binary-search", lines, last) == (last, questions)


@pytest.mark.parametrize("lines", range(1, 13))
def test_every_last_line_is_found_with_few_questions(lines: int) -> None:
    for last in range(lines + 1):
        found, questions = asked("binary-search", lines, last)
        assert found == last
        assert len(questions) == len(set(questions)) <= math.floor(math.log2(lines)) + 1
        assert asked("linear-scan", lines, last) == (last, list(range(1, lines + 1)))
        assert 0 not in questions


@given(st.lists(st.booleans(), max_size=40))
def test_linear_scan_trusts_the_last_acceptance_and_binary_an_accepted_line(answers: list[bool]) -> None:
    def solvable(line: int) -> bool:
        return answers[line - 1]

    accepted = [line for line, answer in enumerate(answers, start=1) if answer]
    assert linear_scan(len(answers), solvable) == max(accepted, default=0)
    found = binary_search(len(answers), solvable)
    assert found == 0 or found in accepted
    assert found == len(answers) or not answers[found]


def test_the_recipe_and_the_registry_name_the_same_strategies() -> None:
    named = set(STRATEGIES) | {"splice"}  # no search for a line by probes, see `psgpo.labeling.splice_policy`
    assert named == set(LabelSettings.model_fields["strategy"].annotation.__args__)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("solvable", "neutral", "last"),
    [
        (0, [True, False, False], 0),  # a leading comment is not proved by nothing
        (1, [True, False, False], 2),
        (1, [False, True, False], 2),  # the comment after the last solvable line goes with it
        (1, [False, True, True, False, True], 3),
        (2, [False, True, True, False, True], 5),
        (0, [], 0),
    ],
)
def test_code_lines_are_carried_back_to_lines(solvable: int, neutral: list[bool], last: int) -> None:
    assert last_solvable_line(solvable, neutral) == last


def test_labels_of_neutral_lines_with_and_without_neutral_labelling() -> None:
    neutral = [False, True, False, True]
    assert line_labels(2, neutral) == (1, 0, -1, 0)
    assert line_labels(2, neutral, neutral_labels=False) == (1, 1, -1, -1)
    assert line_labels(0, neutral) == (-1, 0, -1, 0)


def test_soft_labels_are_success_rates() -> None:
    passed = {1: 4, 2: 0, 3: 1}
    found = drive(soft_steps(3, K), lambda q: Answer(passed[q.line], K))
    assert found.labels == (1.0, -1.0, -0.5)
    assert found.last == 3
    questions: list[Question] = []
    drive(soft_steps(2, K), lambda q: questions.append(q) or Answer(0, K))
    assert questions == [Question(1, K, until_pass=False), Question(2, K, until_pass=False)]


def test_a_line_that_leaves_no_room_has_no_chance() -> None:
    assert drive(soft_steps(1, K), lambda _: Answer(0, 0, certain=True)).labels == (-1.0,)


def test_labels_of_code_lines_are_put_in_their_places() -> None:
    assert spread_labels((0.5, -1), (True, False, True, False)) == (0, 0.5, 0, -1)
    assert spread_labels((), ()) == ()
