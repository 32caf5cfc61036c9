"""A batch padded to its longest row gives the loss and the gradient of its rows one by one, without any padding.

One by one is `microbatch_tokens = 1`: a row longer than the budget goes alone.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from models_world import REAL, tiny_policy
from torch import nn
from transformers import PreTrainedTokenizerFast

from psgpo.config import RlSettings
from psgpo.models import TokenValueModel, right_pad
from psgpo.models.dropout import switch_off_dropout
from psgpo.parallel.replica import Replica
from psgpo.parallel.team import ALONE
from psgpo.prm import train as prm
from psgpo.prm.data import PrmExample
from psgpo.rl.learner import Batch, Learner, Targets
from psgpo.sft import _backward

LENGTHS = [(3, 9), (5, 2), (2, 40), (4, 6), (3, 1)]
"""(prompt, response) tokens."""
Made = tuple[float, torch.Tensor]
"""A loss and its gradient."""


def rows() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(2, 250, (sum(length),), generator=generator).tolist() for length in LENGTHS]


def gradient(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def value_model(name: str, tokenizer: PreTrainedTokenizerFast) -> TokenValueModel:
    return TokenValueModel.from_policy(tiny_policy(name, tokenizer), head_init="normal", seed=2)


def sft(name: str, tokenizer: PreTrainedTokenizerFast, budget: int | None) -> Made:
    policy = tiny_policy(name, tokenizer)
    examples = [(row, prompt) for row, (prompt, _) in zip(rows(), LENGTHS, strict=True)]
    loss, _ = _backward(Replica(policy, ALONE, "cpu"), examples, 0, budget, "float32")
    return loss, gradient(policy)


def reward_model(name: str, tokenizer: PreTrainedTokenizerFast, budget: int | None) -> Made:
    model = value_model(name, tokenizer)
    examples = []
    for row, (prompt, response) in zip(rows(), LENGTHS, strict=True):
        ends = tuple(range(0, response, 3))
        values = [(-1.0) ** m * 0.5 for m in range(len(ends))]
        parts = {"prompt_ids": tuple(row[:prompt]), "token_ids": tuple(row[prompt:]), "line_ends": ends}
        numbers = {"targets": tuple(values), "weights": (1.0,) * len(ends), "neutral": (False,) * len(ends)}
        examples.append(PrmExample(problem_id="p", checkpoint="c", index=0, last_solvable=0, **parts, **numbers))
    loss, _ = prm._backward(Replica(model, ALONE, "cpu"), examples, 0, budget, "float32")
    return loss, gradient(model)


def updated(name: str, tokenizer: PreTrainedTokenizerFast, budget: int | None) -> tuple[Learner, dict[str, float]]:
    generator = torch.Generator().manual_seed(1)
    ids, attention = right_pad(rows(), 0)
    mask = (attention * (torch.arange(ids.shape[1]) >= torch.tensor([p for p, _ in LENGTHS])[:, None])).float()
    old, advantages, returns, values = (torch.randn(ids.shape, generator=generator) * mask for _ in range(4))
    settings = RlSettings(minibatches=1, microbatch_tokens=budget, max_grad_norm=1e9)
    policy = tiny_policy(name, tokenizer)
    switch_off_dropout(policy)  # as loading does
    learner = Learner(policy, None, value_model(name, tokenizer), settings, temperature=0.9, seed=5)
    batch = Batch(
        input_ids=ids,
        attention_mask=attention,
        mask=mask,
        old_logprobs=old - 5 * mask,
        rewards=old,
        finished=torch.ones(len(ids), dtype=torch.bool),
    )
    return learner, learner.update(0, batch, Targets(advantages=advantages, returns=returns, old_values=values))


def policy_update(name: str, tokenizer: PreTrainedTokenizerFast, budget: int | None) -> Made:
    learner, metrics = updated(name, tokenizer, budget)
    return metrics["policy_loss"], gradient(learner.policy)


def critic_update(name: str, tokenizer: PreTrainedTokenizerFast, budget: int | None) -> Made:
    learner, metrics = updated(name, tokenizer, budget)
    return metrics["value_loss"], gradient(learner.critic)


TRAININGS: dict[str, Callable[[str, PreTrainedTokenizerFast, int | None], Made]] = {
    "SFT": sft,
    "PRM": reward_model,
    "PPO policy": policy_update,
    "PPO critic": critic_update,
}


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("name", REAL)
def test_padding_changes_neither_loss_nor_gradient(
    name: str, training: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    loss, padded = TRAININGS[training](name, tokenizer, None)
    alone, one_by_one = TRAININGS[training](name, tokenizer, 1)
    difference = float((padded - one_by_one).norm() / one_by_one.norm())
    print(f"{name} {training}: loss {abs(loss - alone) / abs(alone):.1e}, gradient {difference:.1e}")
    assert loss == pytest.approx(alone, rel=1e-6)
    assert difference < 2e-6
    assert float(one_by_one.norm()) > 1e-3
