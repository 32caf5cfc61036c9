"""Target `soft`: success rates of prefixes as regression targets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from prm_world import SETTINGS, labelled

from psgpo.prm.assess import scored_response
from psgpo.prm.calibrate import probabilities
from psgpo.prm.data import ExactRecord, build_examples, response_key
from psgpo.prm.measure import measure

SOFT = SETTINGS.model_copy(update={"target": "soft"})
TEXT = "a = 1\n# note\nb = 2\nc = 3\n"


def rated(tokenizer, labels, last):
    label = labelled(tokenizer, TEXT, last)
    return dataclasses.replace(label, labels=labels, strategy="soft")


def test_targets_are_the_shares_that_passed_and_comments_weigh_nothing(tokenizer):
    (example,) = build_examples([rated(tokenizer, (0.5, 0.0, -0.9, -1.0), 3)], SOFT)
    assert example.targets == pytest.approx((0.75, 0.5, 0.05, 0.0))
    assert example.weights == (1.0, 0.0, 1.0, 1.0)


def test_of_a_passing_response_only_the_end_has_a_known_rate(tokenizer):
    (example,) = build_examples([rated(tokenizer, (1.0, 0.0, 1.0, 1.0), 4)], SOFT)
    assert example.targets[3] == 1.0
    assert example.weights == (0.0, 0.0, 0.0, 1.0)


def test_what_a_passing_response_is_labelled_with_before_its_end_reaches_no_target(tokenizer):
    (old,) = build_examples([rated(tokenizer, (1.0, 0.0, 1.0, 1.0), 4)], SOFT)
    (new,) = build_examples([rated(tokenizer, (0.0, 0.0, 0.0, 1.0), 4)], SOFT)
    assert new.weights == old.weights == (0.0, 0.0, 0.0, 1.0)
    assert new.targets[3] == old.targets[3] == 1.0


def test_exact_labels_measure_a_soft_prm_on_every_code_line(tokenizer):
    label = rated(tokenizer, (1.0, 0.0, 1.0, 1.0), 4)
    exact = {response_key(label.response): ExactRecord(last_on_track=2, progress=(0.0, 0.0, 0.5, 0.5))}
    (example,) = build_examples([label], SOFT.model_copy(update={"labels": "oracle"}), exact)
    assert example.targets == (1.0, 1.0, 0.0, 0.0)
    assert example.weights == (1.0, 0.0, 1.0, 1.0)


def test_measures_of_rates(tokenizer):
    (example,) = build_examples([rated(tokenizer, (0.5, 0.0, -0.9, -1.0), 3)], SOFT)
    scored = scored_response(example, np.array([0.75, 0.9, 0.05, 0.25]), "soft")
    found = measure([scored], "soft")
    assert found["lines"]["lines"] == 3
    assert found["lines"]["accuracy"] == pytest.approx(2 / 3)  # line 3 is good (m* = 3) and scores below one half
    assert found["regression"]["mse"] == pytest.approx(0.25**2 / 3)


def test_a_rate_is_its_own_probability():
    assert probabilities([-0.2, 0.3, 1.5], None, "soft").tolist() == [0.0, 0.3, 1.0]


def test_a_passing_response_is_right_whatever_its_lines_are_labelled_with(tokenizer):
    (example,) = build_examples([rated(tokenizer, (0.0, 0.0, 0.0, 1.0), 4)], SETTINGS)
    scored = scored_response(example, np.ones(4), "sign")
    assert scored.error_known
    assert measure([scored], "sign")["processbench"]["right"] == 1
