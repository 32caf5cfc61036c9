"""Figures about label quality, worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from labeling_world import problem, response

from psgpo.labeling import measure_labels
from psgpo.labeling.quality import header_lines, is_monotone, shares_by_problem
from psgpo.labeling.search import line_labels
from psgpo.lines import code_lines
from psgpo.records import LineLabels, Probe

OF = problem("p", 5)


def found(text: str, last: int, probes: tuple[tuple[int, int], ...] = ()) -> LineLabels:
    lines = code_lines(text)
    return LineLabels(
        response=response(OF, text),
        line_ends=tuple(range(len(lines))),
        labels=line_labels(last, [line.neutral for line in lines]),
        last_solvable=last,
        strategy="linear-scan",
        probes=tuple(Probe(line=line, drawn=2, passed=passed) for line, passed in probes),
        completions=0,
        tokens=0,
        executions=1,
    )


FOUR = "def f():\na\nb\nc\n"
COMMENTED = "def f():\n# x\na\nb\n"
PASSING = "def\napple\nbirch\ncedar\ndaisy\n"


def test_figures_by_hand() -> None:
    labels = [
        found(FOUR, 2),  # exact 3: one good line called bad
        found(FOUR, 4),  # exact 3: one bad line proved good
        found(COMMENTED, 2),  # exact 1: the same, because line 2 is a comment; nothing salvageable
        found(PASSING, 5),
    ]
    quality = measure_labels(labels, [3, 3, 1, 5], [2, 3, 3, 5])
    assert (quality.responses, quality.failed_responses, quality.failed_lines) == (4, 3, 11)
    assert quality.agreement == pytest.approx(9 / 11)
    assert quality.agreement_all == pytest.approx(14 / 16)
    assert quality.agreement_by_operations == {2: pytest.approx(3 / 4), 3: pytest.approx(6 / 7)}
    assert quality.majority == pytest.approx(7 / 11)  # exact +1: 3 + 3 + 1
    assert quality.precision_positive == pytest.approx(6 / 7)  # +1 by search: 2 + 4 + 1, of which one is wrong
    assert quality.precision_negative == pytest.approx(3 / 4)  # -1 by search: 2 + 0 + 2, of which one is wrong
    assert quality.relative_position == pytest.approx((2 / 4 + 4 / 4 + 1 / 3) / 3)
    assert quality.relative_position_exact == pytest.approx((3 / 4 + 3 / 4 + 1 / 3) / 3)
    assert quality.nothing_salvageable == pytest.approx(1 / 3)
    assert quality.nothing_salvageable_exact == pytest.approx(1 / 3)
    assert quality.proved_off_track_lines == pytest.approx(1 / 4)  # exact -1: 1 + 1 + 2
    assert quality.proved_off_track_share_of_lines == pytest.approx(1 / 11)
    assert quality.proved_off_track_responses == pytest.approx(1 / 3)
    assert quality.last_line_exact == pytest.approx(1 / 3)
    assert quality.last_line_within_one == 1


def test_shares_by_problem_add_up_to_the_figures() -> None:
    labels = [found(FOUR, 2), found(FOUR, 4), found(COMMENTED, 2), found(PASSING, 5)]
    other = replace(labels[1], response=replace(labels[1].response, problem_id="other"))
    exact = [3, 3, 1, 5]
    shares = shares_by_problem([labels[0], other, *labels[2:]], exact)
    assert shares["agreement"] == [(3 + 3, 4 + 3), (3, 4)]  # of two problems; passing ones are left out
    figures = measure_labels(labels, exact, [2, 3, 3, 5]).to_json()
    for name, counts in shares.items():
        assert sum(n for n, _ in counts) / sum(d for _, d in counts) == pytest.approx(figures[name]), name
    assert shares_by_problem([labels[3]], [5]) == {}


def test_exact_labels_agree_with_themselves() -> None:
    quality = measure_labels([found(FOUR, 0), found(FOUR, 3)], [0, 3], [None, None])
    assert quality.agreement == quality.precision_positive == quality.precision_negative == quality.last_line_exact == 1
    assert quality.relative_position == quality.relative_position_exact
    assert quality.proved_off_track_lines == quality.proved_off_track_responses == 0
    assert quality.agreement_by_operations == {}
    assert quality.nothing_salvageable == 0.5


def test_open_lines_are_no_mistakes_and_guesses_no_proofs() -> None:
    open_ended = replace(found(FOUR, 0), labels=(0.0, 0.0, -1.0, -1.0))
    guessed = replace(found(FOUR, 4), guessed=True)
    quality = measure_labels([open_ended, guessed], [3, 3], [1, 1])
    assert quality.labelled == pytest.approx(6 / 8)
    assert quality.agreement == pytest.approx((1 + 3) / 6)  # line 3 is good and said to be bad, line 4 the reverse
    assert quality.precision_negative == pytest.approx(1 / 2)
    assert quality.proved_off_track_lines == 0, "what was guessed proves nothing"
    assert quality.last_line_exact == 0, "of the one response without an open line"


def test_a_soft_label_is_its_sign_and_half_is_not_good() -> None:
    soft = replace(found(FOUR, 0), strategy="soft", labels=(1.0, 0.5, 0.0, -0.5))
    quality = measure_labels([soft], [2], [1])
    assert (quality.labelled, quality.agreement) == (1, 1)


def test_nothing_to_count_is_nan_and_null() -> None:
    quality = measure_labels([found(PASSING, 5)], [5], [5])
    assert math.isnan(quality.agreement)
    assert math.isnan(quality.nothing_salvageable)
    assert quality.agreement_all == 1
    record: dict[str, Any] = json.loads(json.dumps(quality.to_json(), allow_nan=False))
    assert record["agreement"] is None
    assert record["responses"] == 1


def test_foreign_exact_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="must be made from these responses"):
        measure_labels([found(FOUR, 1)], [5], [1])
    with pytest.raises(ValueError, match="argument 2"):
        measure_labels([found(FOUR, 1)], [], [1])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("x = 1\n", 0),
        ("def f():\n    x\n", 1),
        ("# why\nfrom a import b\nimport c\n\nclass A:\n    @cache\n    def f(self):\n        # x\n        y\n", 7),
        ("import a\nx = 1\ndef f():\n", 1),
        ("async def f():\n    x\ndef g():\n", 1),
        ("define = 1\n", 0),
    ],
)
def test_header_ends_with_the_first_def(text: str, count: int) -> None:
    lines = code_lines(text)
    assert header_lines([line.text for line in lines], [line.neutral for line in lines]) == count


@pytest.mark.parametrize(
    ("probes", "monotone"),
    [
        ((), True),
        (((1, 0), (2, 0)), True),
        (((1, 2), (2, 1), (3, 0)), True),
        (((1, 2), (2, 0), (3, 1)), False),
        (((3, 1), (2, 0)), False),
    ],
)
def test_monotone_answers(probes: tuple[tuple[int, int], ...], monotone: bool) -> None:
    label = found(FOUR, 1, probes)
    assert is_monotone(label) is monotone
    assert measure_labels([label], [1], [1]).monotone == monotone
