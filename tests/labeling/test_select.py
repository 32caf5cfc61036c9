"""The selections of Table 2 on a file that can be worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
from labeling_world import problem, response

from psgpo.labeling.select import SELECTIONS, count_labels, is_salvaged, select_labels
from psgpo.records import LineLabels, Response, Status

HEADED = "import re\ndef solve(x):\n    a = 1\n    return a\n"


def labelled(of: Response, last: int, labels: tuple[float, ...] = ()) -> LineLabels:
    count = of.text.count("\n")
    signs = labels or tuple(1.0 if line <= last else -1.0 for line in range(1, count + 1))
    ends = tuple(place for place, char in enumerate(of.text) if char == "\n")
    costs = {"completions": 0, "tokens": 0, "executions": 1}
    return LineLabels(response=of, line_ends=ends, labels=signs, last_solvable=last, strategy="x", probes=(), **costs)


def label(name: str, index: int, passed: bool, last: int, *, checkpoint: str = "one") -> LineLabels:
    status = Status.PASSED if passed else Status.WRONG_ANSWER
    return labelled(response(problem(name, 1), HEADED, index=index, checkpoint=checkpoint, status=status), last)


FILE = [
    label("easy", 0, True, 4),
    label("easy", 1, True, 4),
    label("mixed", 0, True, 4),
    label("mixed", 1, False, 3),
    label("mixed", 0, False, 2, checkpoint="two"),  # accepted no further than its header
    label("saved", 0, False, 3),
    label("hard", 0, False, 2),
    label("hard", 1, False, 0),
]


def kept(keep: str, **settings: tuple[float, float]) -> list[str]:
    chosen = select_labels(FILE, keep, **settings)
    return [f"{item.response.problem_id}/{item.response.checkpoint}/{item.response.index}" for item in chosen]


def test_the_selections() -> None:
    mixed = ["mixed/one/0", "mixed/one/1", "mixed/two/0"]
    assert kept("full") == ["easy/one/0", "easy/one/1", *mixed, "saved/one/0", "hard/one/0", "hard/one/1"]
    assert kept("remove-hard") == ["easy/one/0", "easy/one/1", *mixed, "saved/one/0"]
    assert kept("medium-only") == mixed
    assert kept("revised-only") == ["mixed/one/1", "saved/one/0"]


def test_medium_bounds_are_strict() -> None:
    assert kept("medium-only", medium=(1 / 3, 1.0)) == []
    assert len(kept("medium-only", medium=(0.33, 0.34))) == 3


def test_counts() -> None:
    counts = count_labels([*FILE[3:5], labelled(response(problem("n", 1), "# a\nx\n"), 0, (0.0, -0.5))])
    assert counts.to_json() == {
        "problems": 2,
        "responses": 3,
        "passing": 0,
        "salvaged": 1,
        "lines": 10,
        "positive": 5,
        "negative": 4,
        "unlabelled": 1,
    }


def test_a_prefix_beyond_the_header_salvages_a_failed_response_only() -> None:
    assert [is_salvaged(item) for item in FILE] == [False, False, False, True, False, True, False, False]


def test_recipes_know_the_same_names() -> None:
    from typing import get_args

    from psgpo.config import PrmSettings

    assert list(get_args(PrmSettings.model_fields["select"].annotation)) == list(SELECTIONS)


def test_an_unknown_selection_is_a_defect_of_the_caller() -> None:
    with pytest.raises(KeyError):
        select_labels(FILE, "hardest")


def test_a_rate_of_one_half_is_counted_with_the_labels() -> None:
    rated = labelled(response(problem("n", 1), "# a\nx\ny\n"), 2, (0.0, 0.0, 0.5))
    counts = count_labels([dataclasses.replace(rated, strategy="soft")])
    assert (counts.positive, counts.negative, counts.unlabelled) == (1, 1, 1)
