"""The prior over the first wrong line: it learns where surprise points, and keeps quiet where it is not sure."""

from __future__ import annotations

import numpy as np
import pytest

from psgpo.labeling.prior import SURE, choose_sure, fit_prior, line_features, posterior, sure_labels


def test_it_learns_that_surprise_marks_the_wrong_line() -> None:
    rng = np.random.default_rng(0)
    programs, wrong = [], []
    for _ in range(60):
        lines = [[0.05, float(rng.uniform(0, 0.3))] for _ in range(8)]
        line = int(rng.integers(1, 7))
        lines[line] = [0.1, 3.0]
        programs.append(line_features(lines))
        wrong.append(line)
    theta = fit_prior(programs, wrong)
    hits = [int(posterior(features, theta).argmax()) == line for features, line in zip(programs, wrong, strict=True)]
    assert np.mean(hits) > 0.95


def test_without_examples_every_line_is_as_likely() -> None:
    chances = posterior(line_features([[1.0], [2.0], [3.0]]), fit_prior([], []))
    assert chances == pytest.approx([1 / 3] * 3, abs=0.01)


def test_only_sure_lines_are_labelled() -> None:
    assert sure_labels(np.array([0.05, 0.05, 0.5, 0.4]), 0.85) == [1.0, 1.0, 0.0, -1.0]


def made_programs(count: int, seed: int) -> tuple[list[np.ndarray], list[int], list[str]]:
    """Eight lines, one of them surprising and the first wrong one; mistakes that follow are as surprising."""
    rng = np.random.default_rng(seed)
    programs, wrong = [], []
    for _ in range(count):
        line = int(rng.integers(0, 8))
        surprising = {line, *rng.integers(line, 8, size=3).tolist()}
        values = [rng.uniform(1.5, 4) if at in surprising else rng.uniform(0, 1) for at in range(8)]
        programs.append(line_features([[0.05, float(value)] for value in values]))
        wrong.append(line)
    return programs, wrong, [f"p{number % 11}" for number in range(count)]


def test_mistakes_after_the_first_do_not_blur_it() -> None:
    programs, wrong, _ = made_programs(80, seed=1)
    theta = fit_prior(programs, wrong)
    fresh, truth, _ = made_programs(80, seed=2)
    hits = [int(posterior(features, theta).argmax()) == line for features, line in zip(fresh, truth, strict=True)]
    assert np.mean(hits) > 0.9


def test_how_sure_is_chosen_by_what_it_brings() -> None:
    programs, wrong, groups = made_programs(80, seed=3)
    assert choose_sure(programs, wrong, groups, target=0.9) == SURE[0]
    shuffled = np.random.default_rng(0).integers(0, 8, size=80).tolist()
    assert choose_sure(programs, shuffled, groups, target=0.99) > SURE[0]
    assert choose_sure(programs[:3], wrong[:3], groups[:3], target=0.5) == SURE[-1], "too few to say"
