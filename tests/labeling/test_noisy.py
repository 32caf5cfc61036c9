"""Noisy binary search against simulated completers."""

from __future__ import annotations

import math
import random

import numpy as np

from psgpo.labeling.noisy import NoisySearch, labels_of, noisy_search, soft_labels, soft_success, uniform_prior


def run(
    search: NoisySearch, last: int, passing: float, rng: random.Random
) -> tuple[np.ndarray, list[tuple[int, bool]]]:
    asked: list[tuple[int, bool]] = []
    answer: bool | None = None
    while True:
        try:
            line = next(search) if answer is None else search.send(answer)
        except StopIteration as stop:
            return stop.value, asked
        answer = line <= last and rng.random() < passing
        asked.append((line, answer))


def test_with_a_sure_completer_it_is_a_binary_search() -> None:
    for last in range(16):
        belief, asked = run(noisy_search(np.ones(16), passing=1 - 1e-9, draws=20), last, 1.0, random.Random(0))
        assert int(belief.argmax()) == last
        assert len(asked) <= 5


def test_what_passed_is_positive_and_draws_are_bounded() -> None:
    rng = random.Random(1)
    wrong = labelled = total = 0
    for _ in range(300):
        last, lines = rng.randint(0, 11), 12
        belief, asked = run(noisy_search(uniform_prior(lines), passing=0.5, draws=14), last, 0.5, rng)
        labels = labels_of(belief, 0.85)
        assert len(asked) <= 14
        assert all(label == 1.0 for line, answer in asked if answer for label in labels[:line])
        wrong += sum(label != 0 and (label > 0) != (place <= last) for place, label in enumerate(labels, start=1))
        labelled += sum(label != 0 for label in labels)
        total += lines
    assert wrong / labelled < 0.08
    assert labelled / total > 0.7


def test_failures_alone_prove_nothing() -> None:
    belief, _ = run(noisy_search(uniform_prior(6), passing=0.05, draws=3), 0, 0.05, random.Random(0))
    assert 0.0 in labels_of(belief, 0.85)
    assert all(-1 < label < 1 for label in soft_labels(belief))


def test_soft_success() -> None:
    assert soft_success([4, 1, 0], [4, 4, 4]) == [1.0, -0.5, -1.0]
    assert math.isnan(soft_success([0], [0])[0])


def test_a_pass_that_was_ruled_out_still_counts() -> None:
    search = noisy_search(np.array([1.0, 0.0, 0.0]), passing=0.5, draws=3, sure=1.1)
    belief, _ = run(search, 2, 1.0, random.Random(0))
    assert belief[0] == 0
