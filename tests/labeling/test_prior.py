"""The prior over the first wrong line: it learns where surprise points, and keeps quiet where it is not sure."""

from __future__ import annotations

import numpy as np
import pytest

from psgpo.labeling.prior import fit_prior, line_features, posterior, sure_labels


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
    assert chances == pytest.approx([1 / 3] * 3)


def test_only_sure_lines_are_labelled() -> None:
    assert sure_labels(np.array([0.05, 0.05, 0.5, 0.4]), 0.85) == [1.0, 1.0, 0.0, -1.0]
