"""Tokens by inverse CDF, against distributions worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from psgpo.sampling.choose import choose_tokens, row_uniforms

LOGITS = torch.log(torch.tensor([0.5, 0.0, 0.3, 0.2]))


def shares(temperature: float, top_p: float) -> list[float]:
    """Exact share of every token: the uniform number runs through a fine grid."""
    grid = (torch.arange(10_000) + 0.5) / 10_000
    ids, _ = choose_tokens(LOGITS.repeat(len(grid), 1), grid, temperature, top_p)
    return (torch.bincount(ids, minlength=4) / len(grid)).tolist()


def test_shares_are_the_probabilities() -> None:
    assert shares(1.0, 1.0) == pytest.approx([0.5, 0, 0.3, 0.2], abs=2e-4)


def test_temperature_one_half_squares_the_probabilities() -> None:
    assert shares(0.5, 1.0) == pytest.approx([25 / 38, 0, 9 / 38, 4 / 38], abs=2e-4)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    assert shares(1.0, 0.79) == pytest.approx([5 / 8, 0, 3 / 8, 0], abs=2e-4)
    assert shares(1.0, 0.81) == pytest.approx([0.5, 0, 0.3, 0.2], abs=2e-4)
    assert shares(1.0, 0.4) == [1, 0, 0, 0]


def test_top_p_works_on_tempered_probabilities() -> None:
    assert shares(0.5, 0.66) == pytest.approx([25 / 34, 0, 9 / 34, 0], abs=2e-4)
    assert shares(0.5, 0.65) == [1, 0, 0, 0]


def test_logprobs_are_those_before_truncation() -> None:
    number = torch.tensor([0.1, 0.9])
    ids, logprobs = choose_tokens(LOGITS.repeat(2, 1), number, 0.5, 0.8)
    assert ids.tolist() == [0, 2]
    assert logprobs.tolist() == pytest.approx([math.log(25 / 38), math.log(9 / 38)], abs=1e-6)


def test_greedy_reports_the_probability_at_temperature_one() -> None:
    ids, logprobs = choose_tokens(LOGITS[None], torch.tensor([0.99]), 0.0, 1.0)
    assert ids.tolist() == [0]
    assert logprobs.item() == pytest.approx(math.log(0.5))


def test_an_impossible_token_is_never_chosen_at_either_end() -> None:
    ends = torch.tensor([0.0, 1 - 2.0**-24, 1.0])
    for hole in range(4):
        logits = torch.zeros(4)
        logits[hole] = -math.inf
        ids, _ = choose_tokens(logits.repeat(3, 1), ends, 1.0, 1.0)
        assert hole not in ids.tolist()
    single = torch.full((3, 4), -math.inf)
    single[:, 2] = 0.0
    assert choose_tokens(single, ends, 1.0, 1.0)[0].tolist() == [2, 2, 2]


def test_uniforms_depend_on_seed_and_position_only() -> None:
    assert row_uniforms(7, 50)[:20].tolist() == row_uniforms(7, 20).tolist()
    assert row_uniforms(7, 20).tolist() != row_uniforms(8, 20).tolist()
    numbers = np.concatenate([row_uniforms(seed, 64) for seed in range(200)])
    assert 0 <= numbers.min() < 0.001
    assert 0.999 < numbers.max() < 1
    # 12,800 numbers: the mean's standard error is .0026, the lag-one correlation's .0088.
    assert abs(numbers.mean() - 0.5) < 0.013
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.045


def test_uniforms_are_pinned() -> None:
    """The numbers are part of every run's record: a change of them changes all results."""
    words = np.random.Philox(key=3).random_raw(2)
    assert row_uniforms(3, 2).tolist() == [float(int(word) >> 40) / 2**24 for word in words]


def test_a_seed_of_63_bits_is_fine() -> None:
    assert row_uniforms(2**63 - 1, 1)[0] != row_uniforms(2**62, 1)[0]
