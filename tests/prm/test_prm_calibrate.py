"""Calibration: what it fits, and that it never does worse than the scores themselves on the lines it is fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psgpo.errors import UserError
from psgpo.prm.calibrate import even_score, fit_calibration, fit_isotonic, probabilities

LINES = st.lists(st.tuples(st.integers(-32, 32).map(lambda n: n / 8), st.booleans()), min_size=20, max_size=40).filter(
    lambda lines: len({good for _, good in lines}) == 2
)


def log_loss(probability, good):
    p = np.where(good, probability, 1 - probability)
    return float(-np.log(np.maximum(p, 1e-300)).mean())


@settings(max_examples=40)
@given(lines=LINES, target=st.sampled_from(["correct", "sign"]))
def test_isotonic_never_raises_the_log_loss_where_it_is_fitted(lines, target):
    scores, good = (np.array(column) for column in zip(*lines, strict=True))
    raw = log_loss(probabilities(scores, None, target), good)
    fitted = probabilities(scores, fit_calibration("isotonic", scores, good), target)
    assert log_loss(fitted, good) <= raw + 1e-9
    assert fitted.mean() == pytest.approx(good.mean())  # as many good lines as there are
    assert (np.diff(fitted[np.argsort(scores, kind="stable")]) >= -1e-12).all()


@settings(max_examples=40)
@given(lines=LINES)
def test_a_temperature_never_raises_the_log_loss_of_logits(lines):
    scores, good = (np.array(column) for column in zip(*lines, strict=True))
    fitted = fit_calibration("temperature", scores, good)
    probability = probabilities(scores, fitted, "correct")
    assert log_loss(probability, good) <= log_loss(probabilities(scores, None, "correct"), good) + 1e-9
    assert ((scores >= 0) == (probability >= 0.5)).all()


def test_a_temperature_by_hand():
    # Score 1 is right three times in four: sigma(1 / t) = 3/4, so t = 1 / log 3.
    scores, good = np.ones(20), np.arange(20) % 4 > 0
    assert fit_calibration("temperature", scores, good)["temperature"] == pytest.approx(1 / np.log(3), rel=1e-4)


def test_isotonic_by_hand():
    knots, values = fit_isotonic(np.array([3.0, 1.0, 2.0, 2.0]), np.array([True, False, True, False]))
    assert (knots.tolist(), values.tolist()) == ([1.0, 2.0, 3.0], [0.0, 0.5, 1.0])
    knots, values = fit_isotonic(np.array([1.0, 2.0, 3.0]), np.array([True, False, False]))  # falling: one block
    assert (knots.tolist(), values.tolist()) == ([1.0, 3.0], [1 / 3, 1 / 3])
    block = {"method": "isotonic", "scores": [0.0, 1.0, 3.0], "probabilities": [0.2, 0.4, 0.8]}
    assert probabilities([-5, 0.5, 2, 9], block, "sign").tolist() == pytest.approx([0.2, 0.3, 0.6, 0.8])


@pytest.mark.parametrize(("values", "even"), [([0.2, 0.4, 0.8], 1.5), ([0.5, 0.6, 0.8], -1e9), ([0.1, 0.2, 0.4], 1e9)])
def test_the_score_that_parts_good_from_bad(values, even):
    fitted = {"method": "isotonic", "scores": [0.0, 1.0, 3.0], "probabilities": values}
    assert even_score(fitted) == pytest.approx(even)
    assert even_score({"method": "temperature", "temperature": 3.0}) == 0.0


def test_what_cannot_be_fitted_is_refused():
    good = np.arange(30) % 2 == 0
    with pytest.raises(UserError, match="allowed are temperature, isotonic"):
        fit_calibration("platt", np.arange(30.0), good)
    with pytest.raises(UserError, match="19 lines to fit on, 10 of them good; it needs at least 20"):
        fit_calibration("isotonic", np.arange(19.0), good[:19])
    with pytest.raises(UserError, match="both classes"):
        fit_calibration("isotonic", np.arange(30.0), good | True)
