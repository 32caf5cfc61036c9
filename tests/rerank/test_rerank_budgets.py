"""Curves over budgets, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from psgpo.records import Response, Status, Verdict
from psgpo.rerank.budgets import measure_search
from psgpo.rerank.curves import share_of_gain


def candidate(tokens, score, logprob, passed):
    status = Status.PASSED if passed else Status.WRONG_ANSWER
    verdict = Verdict(status=status, tests_passed=int(passed), tests_total=1)
    response = Response(
        problem_id="p", index=0, checkpoint="c", token_ids=(1,), text="x", finished=True, verdict=verdict
    )
    return {"tokens": tokens, "scores": {"min": score}, "logprob": logprob, "response": response}


POOL = [candidate(8, 0.5, -1.0, False), candidate(16, 0.2, -3.0, True), candidate(40, 0.9, -2.0, True)]
ROWS = {
    "best-of-n": [{"problem_id": "p", "candidates": POOL}, {"problem_id": "q", "candidates": []}],
    "beam": [
        {"problem_id": "p", "candidates": [candidate(64, 0.1, -1.0, True)]},
        {"problem_id": "q", "candidates": [candidate(33, 0.3, -1.0, True), candidate(50, 0.3, -1.0, False)]},
    ],
}


def test_what_is_finished_within_a_budget_can_be_chosen():
    judged = {"orm": {"p": [0.1, 0.3, 0.2], "q": []}}
    found = measure_search(ROWS, {"p": [0, 1, 1], "q": []}, 64, "min", judged=judged, resamples=20, seed=0)
    values = {name: [point["value"] for point in method["curve"]] for name, method in found.items()}
    assert [point["tokens"] for point in found["random"]["curve"]] == [8, 16, 24, 32, 40, 48, 56, 64]
    # Of p; q never finishes under best-of-n and counts as a fail, so all are halved.
    assert values["best-of-n"] == [0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5]
    assert values["oracle"] == [0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert values["random"] == pytest.approx([0, 0.25, 0.25, 0.25, 1 / 3, 1 / 3, 1 / 3, 1 / 3])
    assert values["likelihood-mean"] == [0] * 8
    assert values["orm"] == [0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert values["majority"] == pytest.approx([0, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 0.5])
    # The tie of q is a coin from 50 tokens on; p comes with the last token.
    assert values["beam"] == [0, 0, 0, 0, 0.5, 0.5, 0.25, 0.75]
    assert found["beam"]["minus"]["best-of-n"]["value"] == pytest.approx(0.25)
    assert found["beam"]["minus"]["orm"]["value"] == pytest.approx(0.25)
    assert found["beam"]["minus"].keys() == {"random", "likelihood-mean", "best-of-n", "orm"}


def test_a_search_gains_where_the_oracle_of_the_pool_cannot():
    rows = {
        "best-of-n": [
            {"problem_id": "p", "candidates": [candidate(8, 0.5, -1.0, True), candidate(9, 0.6, -1.0, False)]},
            {"problem_id": "q", "candidates": [candidate(8, 0.5, -1.0, False)]},
        ],
        "beam": [
            {"problem_id": "p", "candidates": [candidate(8, 0.5, -1.0, False)]},
            {"problem_id": "q", "candidates": [candidate(8, 0.5, -1.0, True)]},
        ],
    }
    found = measure_search(rows, None, 64, "min", resamples=200, seed=0)
    # random is [1/2, 0], oracle [1, 0], beam [0, 1]: a quarter above random in the mean, as the oracle is.
    # Of resamples (p, p) has -1, (p, q) has 1, and in (q, q) nothing can be gained.
    assert found["beam"]["closed"] == {"value": 1.0, "low": -1.0, "high": 1.0, "count": 2}
    assert found["oracle"]["closed"] == {"value": 1.0, "low": 1.0, "high": 1.0, "count": 2}


def test_the_share_of_no_gain_is_undefined():
    found = share_of_gain(np.array([0.0, 1.0]), np.zeros(2), resamples=5, seed=0).to_json()
    assert found == {"value": None, "low": None, "high": None, "count": 2}
