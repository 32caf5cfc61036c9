from __future__ import annotations

import dataclasses
import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prm_world import SETTINGS, labelled

from psgpo.prm.assess import assess_prm, scored_response
from psgpo.prm.data import ExactRecord, PrmExample, build_examples, progress_targets, response_key
from psgpo.prm.measure import ScoredResponse, auroc, calibration, correlation, f1, first_errors, lines_left, measure


def scored(scores, last_good, *, neutral=None, progress=None, problem="p"):
    return ScoredResponse(
        problem_id=problem,
        scores=np.array(scores, dtype=float),
        neutral=neutral or [False] * len(scores),
        last_good=last_good,
        progress=progress,
    )


def test_auroc_by_hand():
    assert auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == 0.75  # 3 of 4 pairs in order
    assert auroc([1, 1, 1], [True, False, False]) == 0.5  # all tied
    assert auroc([2, 1, 1, 0], [True, True, False, False]) == (1 + 1 + 0.5 + 1) / 4
    assert math.isnan(auroc([1, 2], [True, True]))


def test_auroc_counts_pairs():
    rng = random.Random(0)
    for _ in range(50):
        scores = [rng.randint(0, 5) for _ in range(rng.randint(2, 12))]
        truth = [rng.random() < 0.5 for _ in scores]
        pairs = [
            (a > b) + 0.5 * (a == b)
            for a, t in zip(scores, truth, strict=True)
            if t
            for b, u in zip(scores, truth, strict=True)
            if not u
        ]
        assert auroc(scores, truth) == pytest.approx(np.mean(pairs)) if pairs else math.isnan(auroc(scores, truth))


def test_f1_by_hand():
    truth, called = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert f1(truth, called) == 0.5  # one hit, one miss, one false alarm
    assert f1(truth, ~truth) == 0.0
    assert math.isnan(f1(np.zeros(3, bool), np.zeros(3, bool)))


def test_sign_measures_by_hand():
    found = measure(
        [
            scored([0.9, 0.5, -0.2, 0.1], 2),  # error at line 3, found; line 4 called good
            scored([0.3, -0.4, -0.6], 2, problem="q"),  # error at line 3, reported at line 2
            scored([0.2, 0.8], 2, problem="q"),  # right, nothing reported
            scored([0.2, -0.1], 2, problem="r"),  # right, error reported
        ],
        "sign",
    )
    lines = found["lines"]
    # truth    + + - - | + + - | + + | + +
    # called   + + - + | + - - | + + | + -
    assert (found["responses"], found["problems"], lines["lines"]) == (4, 3, 11)
    assert lines["accuracy"] == pytest.approx(8 / 11)
    assert lines["majority"] == lines["good_share"] == pytest.approx(8 / 11)
    assert lines["accuracy_good"] == pytest.approx(6 / 8)
    assert lines["accuracy_bad"] == pytest.approx(2 / 3)
    assert lines["f1_good"] == pytest.approx(12 / 15)
    assert lines["f1_bad"] == pytest.approx(4 / 7)
    # good .9 .5 .3 -.4 .2 .8 .2 -.1 against bad -.2 .1 -.6: -.4 beats one, -.1 beats two, the other six beat three
    assert lines["auroc"] == pytest.approx((6 * 3 + 1 + 2) / 24)
    assert found["first_error"] == {"responses": 2, "exact": 0.5, "within_one": 1.0}
    assert found["processbench"] == {"accuracy_wrong": 0.5, "accuracy_right": 0.5, "f1": 0.5, "right": 2}
    assert found["regression"] == {"mse": None, "correlation": None}


def test_comments_are_left_out_and_do_not_move_the_first_error():
    # After the last good line comes a comment with a terrible score; the first wrong line is the one after it.
    found = measure([scored([0.5, -0.9, -0.5], 1, neutral=[False, True, False])], "sign")
    assert found["lines"]["lines"] == 2
    assert found["lines"]["accuracy"] == 1.0
    assert found["first_error"] == {"responses": 1, "exact": 1.0, "within_one": 1.0}
    # Only comments follow the last good line: nothing is wrong with this response's lines.
    assert measure([scored([0.5, -0.9], 1, neutral=[False, True])], "sign")["processbench"]["right"] == 1


def test_lines_fall_into_fifths_of_their_program():
    found = measure([scored([1.0] * 5, 5), scored([1.0] * 10, 10), scored([1.0], 1)], "sign")
    assert [fifth["lines"] for fifth in found["by_position"]] == [3, 3, 3, 3, 4]
    assert [fifth["to"] for fifth in found["by_position"]] == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_nothing_is_undefined_rather_than_zero():
    found = measure([], "sign")
    assert found["lines"]["accuracy"] is None
    assert found["processbench"]["f1"] is None
    assert found["calibration"]["ece"] is None
    one_class = measure([scored([0.5, 0.5], 2)], "sign")
    assert one_class["lines"]["auroc"] is None
    assert one_class["lines"]["f1_bad"] is None
    json.dumps(found, allow_nan=False)
    json.dumps(one_class, allow_nan=False)


def test_never_finding_an_error_is_a_processbench_f1_of_zero():
    assert measure([scored([1, 1], 1), scored([1, 1], 2)], "sign")["processbench"]["f1"] == 0.0


def test_a_perfect_and_an_inverted_prm():
    truth = [(4, 2), (5, 5), (3, 0), (6, 4)]
    perfect = measure([scored([1.0 if m <= g else -1.0 for m in range(1, n + 1)], g) for n, g in truth], "sign")
    assert perfect["lines"]["accuracy"] == perfect["lines"]["auroc"] == perfect["processbench"]["f1"] == 1.0
    assert perfect["calibration"]["ece"] == 0.0
    inverted = measure([scored([-1.0 if m <= g else 1.0 for m in range(1, n + 1)], g) for n, g in truth], "sign")
    assert inverted["lines"]["accuracy"] == inverted["lines"]["auroc"] == 0.0
    assert inverted["calibration"]["ece"] == 1.0


def test_a_response_whose_first_error_is_open_counts_for_neither_first_errors_nor_right_programs():
    known = [scored([0.9, -0.5], 1), scored([0.2, 0.8], 2, problem="q")]
    unknown = dataclasses.replace(scored([0.5, 0.5], 2, problem="q"), error_known=False)
    found, without = measure([*known, unknown], "sign", resamples=20), measure(known, "sign", resamples=20)
    assert found["first_error"] == without["first_error"] == {"responses": 1, "exact": 1.0, "within_one": 1.0}
    assert found["processbench"] == without["processbench"]
    assert found["lines"]["lines"] == 6


@pytest.mark.parametrize(
    ("signs", "known"),
    [
        ((1, 0, 1, -1), True),  # the comment says nothing
        ((0, 0, 1, -1), False),
        ((1, 0, -1, 0), True),
        ((1, 0, 1, 0), False),
        ((1, 0, 1, 1), True),
    ],
)
def test_an_open_line_before_the_first_bad_one_leaves_the_error_open(signs, known):
    example = PrmExample(
        problem_id="p",
        checkpoint="c",
        index=0,
        prompt_ids=(1,),
        token_ids=(1, 2, 3, 4),
        line_ends=(0, 1, 2, 3),
        neutral=(False, True, False, False),
        last_solvable=2,
        targets=tuple(map(float, signs)),
        weights=tuple(1.0 if sign or m == 1 else 0.0 for m, sign in enumerate(signs)),
    )
    assert scored_response(example, np.zeros(4), "sign").error_known == known


@pytest.mark.parametrize(
    ("strategy", "labels", "last", "errors"),
    [
        ("noisy-soft", (0.9, 0.6, 0.4, -0.9), 1, [1, 1.0]),
        ("soft", (0.8, -0.2, -0.5, -1.0), 3, [1, 1.0]),
        ("soft", (0.5, 0.25, 0.0, -1.0), 3, [1, 1.0]),
    ],
)
def test_a_prm_that_says_what_real_valued_labels_say_is_right(tokenizer, strategy, labels, last, errors):
    label = dataclasses.replace(labelled(tokenizer, "a\nb\nc\nd\n", last), strategy=strategy, labels=labels)
    (example,) = build_examples([label], SETTINGS)
    found = measure([scored_response(example, np.array(labels), "sign")], "sign")
    assert found["lines"]["accuracy"] == found["lines"]["auroc"] == 1.0
    assert [found["first_error"][key] for key in ("responses", "exact")] == errors
    assert found["calibration"]["ece"] == pytest.approx(0.0)


def test_responses_that_a_search_gave_up_count_against_neither_truth(tokenizer, tmp_path):
    class Flat:
        def score(self, items):
            return [np.zeros(len(ends)) for _, _, ends in items]

    labels = [labelled(tokenizer, "a\nb\n", 1, index=index) for index in range(2)]
    labels[0] = dataclasses.replace(labels[0], labels=(0.0, 0.0), last_solvable=0, unlabelled="no proof")
    exact = {response_key(label.response): ExactRecord(last_on_track=1, progress=(0.5, 0.5)) for label in labels}
    found = assess_prm(Flat(), labels, SETTINGS, tmp_path, exact)
    assert [found[truth]["responses"] for truth in ("search", "exact")] == [1, 1]


def test_first_errors_within_one_line_and_silence():
    true = [np.array([True, True, False]), np.array([False, False]), np.array([True, True])]
    called = [np.array([True, False, True]), np.array([True, True]), np.array([True, False])]
    found = first_errors(true, called)
    assert found["first_error"] == {"responses": 2, "exact": 0.0, "within_one": 0.5}
    assert found["processbench"]["accuracy_right"] == 0.0


def test_calibration_by_hand():
    found = calibration([0.05, 0.05, 0.95, 1.7], [0.0, 1.0, 1.0, 1.0])
    # Bin 0: says .05, truth .5; bin 9: says (.95 + 1)/2 = .975, truth 1.
    assert found["ece"] == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)
    assert [b["lines"] for b in found["bins"]] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert math.isnan(found["bins"][4]["true"])


def test_progress_is_read_where_the_score_stops_rising():
    assert lines_left([0.25, 0.5, 0.45, 0.5]).tolist() == [1.5, 0.5, -0.5, -1.5]
    assert lines_left([-0.5, -0.1]).tolist() == [-0.5, -1.5]
    assert lines_left([1.7]).tolist() == [0.5]
    assert lines_left([]).shape == (0,)
    truth = {"last_good": 2, "progress": [0.25, 0.5, 0.5, 0.5]}
    exact = measure([scored([0.25, 0.5, 0.5, 0.5], **truth)], "progress")
    assert exact["first_error"]["exact"] == 1.0
    assert exact["lines"]["accuracy"] == exact["lines"]["auroc"] == 1.0
    assert exact["regression"] == {"mse": 0.0, "correlation": pytest.approx(1.0)}
    # A wobble of less than half a line (0.125 of 4 lines) after the error is no progress, more is.
    small = measure([scored([0.25, 0.5, 0.5, 0.6], **truth)], "progress")
    assert small["first_error"]["exact"] == 1.0
    large = measure([scored([0.25, 0.5, 0.5, 0.7], **truth)], "progress")
    assert large["first_error"] == {"responses": 1, "exact": 0.0, "within_one": 1.0}
    assert large["lines"]["accuracy"] == 0.75
    assert large["regression"]["mse"] == pytest.approx(0.04 / 4)


@given(st.lists(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1))
def test_true_progress_finds_every_first_error(responses):
    targets = [(progress_targets([False] * n, good), good) for n, good in responses]
    made = [scored(row, good, progress=row) for row, good in targets]
    found = measure(made, "progress")
    assert found["lines"]["accuracy"] == 1.0
    assert found["first_error"]["exact"] in (1.0, None)
    assert found["regression"]["mse"] == found["calibration"]["ece"] == 0.0


def test_correlation_needs_variation():
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert math.isnan(correlation([1, 1], [0, 1]))
    assert math.isnan(correlation([1], [1]))


def test_intervals_come_from_drawing_whole_problems():
    # Two kinds of problems, all right and all wrong: drawing lines would hide that there are only 8 problems.
    responses = [scored([1.0] * 50 if i % 2 else [-1.0] * 50, 50, problem=str(i)) for i in range(8)]
    found = measure(responses, "sign", resamples=400)
    low, high = found["intervals"]["accuracy"]
    # 8 coins: the standard error of the mean is .177; 400 lines would give .025.
    assert low == pytest.approx(0.125, abs=0.07)
    assert high == pytest.approx(0.875, abs=0.07)
    assert found["intervals"]["auroc"] == [None, None]
    assert found == measure(responses, "sign", resamples=400)
    assert measure(responses, "sign")["intervals"]["accuracy"] == [None, None]
