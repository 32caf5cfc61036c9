"""Noisy binary search against simulated completers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from psgpo.labeling.noisy import (
    NoisySearch,
    hard_steps,
    labels_of,
    line_prior,
    noisy_search,
    soft_labels,
    soft_posterior_steps,
    uniform_prior,
)
from psgpo.labeling.search import Answer, Finding, Question, drive


def run(
    search: NoisySearch, last: int, passing: float, rng: random.Random, proved: int = 0
) -> tuple[np.ndarray, list[tuple[int, bool]]]:
    """The posterior and the completions drawn; a program is known that begins with the first `proved` lines."""
    asked: list[tuple[int, bool]] = []
    answer: Answer | None = None
    while True:
        try:
            question = next(search) if answer is None else search.send(answer)
        except StopIteration as stop:
            return stop.value, asked
        assert question.draws in (0, 1 + sum(line == question.line for line, _ in asked))
        if question.line <= proved:
            answer = Answer(1, 0, certain=True)
        elif question.draws == 0:
            answer = Answer(0, 0)
        else:
            passed = question.line <= last and rng.random() < passing
            asked.append((question.line, passed))
            answer = Answer(int(passed), question.draws)


def test_with_a_sure_completer_it_is_a_binary_search() -> None:
    for last in range(16):
        belief, asked = run(noisy_search(np.ones(16), passing=[1 - 1e-9], draws=20), last, 1.0, random.Random(0))
        assert int(belief.argmax()) == last
        assert len(asked) <= 5


def test_what_passed_is_positive_and_draws_are_bounded() -> None:
    rng = random.Random(1)
    wrong = labelled = total = 0
    for _ in range(300):
        last, lines = rng.randint(0, 11), 12
        belief, asked = run(noisy_search(uniform_prior(lines), passing=[0.5], draws=14), last, 0.5, rng)
        labels = labels_of(belief, 0.85)
        assert len(asked) <= 14
        assert all(label == 1.0 for line, answer in asked if answer for label in labels[:line])
        wrong += sum(label != 0 and (label > 0) != (place <= last) for place, label in enumerate(labels, start=1))
        labelled += sum(label != 0 for label in labels)
        total += lines
    assert wrong / labelled < 0.08
    assert labelled / total > 0.7


def test_failures_alone_prove_nothing() -> None:
    belief, _ = run(noisy_search(uniform_prior(6), passing=[0.05], draws=3), 0, 0.05, random.Random(0))
    assert 0.0 in labels_of(belief, 0.85)
    assert all(-1 < label < 1 for label in soft_labels(belief))


def test_a_pass_that_was_ruled_out_still_counts() -> None:
    search = noisy_search(np.array([0.5, 0.5, 0.0]), passing=[0.5], draws=2, sure=0.99)
    assert next(search) == Question(1, 0)
    assert search.send(Answer(0, 0)) == Question(1, 1)
    assert search.send(Answer(1, 1)) == Question(2, 0)
    with pytest.raises(StopIteration) as over:
        search.send(Answer(1, 0, certain=True))
    assert over.value.value.tolist() == [0, 0, 1]


def test_what_is_known_costs_nothing_and_is_not_asked_twice() -> None:
    belief, asked = run(noisy_search(uniform_prior(9), passing=[0.5], draws=6), 9, 0.0, random.Random(0), proved=5)
    assert len(asked) == 6
    assert all(line > 5 for line, _ in asked)
    assert labels_of(belief, 0.85)[:5] == [1.0] * 5
    belief, asked = run(noisy_search(uniform_prior(9), passing=[0.5], draws=6), 9, 0.0, random.Random(0), proved=9)
    assert labels_of(belief, 0.85) == [1.0] * 9
    assert not asked


def test_no_room_is_certain_too() -> None:
    search = noisy_search(uniform_prior(1), passing=[0.1], draws=1, sure=0.99)
    next(search)
    with pytest.raises(StopIteration) as over:
        search.send(Answer(0, 0, certain=True))
    assert over.value.value.tolist() == [1, 0]


def test_failures_say_less_where_the_policy_may_be_weak() -> None:
    sure, _ = run(noisy_search(uniform_prior(4), passing=[0.9], draws=8), 0, 0.0, random.Random(0))
    weak, _ = run(noisy_search(uniform_prior(4), passing=[0.05, 0.9], draws=8), 0, 0.0, random.Random(0))
    assert labels_of(sure, 0.85) == [-1.0] * 4
    assert sure[0] > weak[0]


def test_a_line_that_surprised_is_the_likelier_mistake() -> None:
    prior = line_prior([0.4, 5.9, 0.4])
    assert prior.sum() == pytest.approx(1)
    assert prior.tolist() == pytest.approx([0.5 / 7.1, 6 / 7.1, 0.5 / 7.1, 0.1 / 7.1])


def test_searches_over_lines_end_in_labels() -> None:
    def fails(question: Question) -> Answer:
        return Answer(0, question.draws)

    assert drive(hard_steps(uniform_prior(0), 5), fails) == Finding(0, ())
    hard = drive(hard_steps(uniform_prior(5), 40), fails)
    soft = drive(soft_posterior_steps(uniform_prior(5), 40), fails)
    assert hard == Finding(0, (-1.0,) * 5)
    assert soft.last == 0
    assert soft.labels is not None
    assert all(-1 <= label < -0.7 for label in soft.labels)
