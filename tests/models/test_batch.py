from __future__ import annotations

import pytest
import torch
from models_world import ARCHITECTURES, tiny_policy
from transformers import PreTrainedTokenizerFast

from psgpo.models import right_pad, token_logprobs

ROWS = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17]]
PROMPTS = [2, 1, 3]


def _batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids, mask = right_pad(ROWS, 0)
    return ids, mask, mask * (torch.arange(ids.shape[1]) >= torch.tensor(PROMPTS)[:, None])


def test_right_pad() -> None:
    ids, mask = right_pad([[5, 6, 7], [8], []], 9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9], [9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert ids.dtype == mask.dtype == torch.long


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logprobs_and_entropy_equal_one_row_at_a_time(
    name: str, temperature: float, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_policy(name, tokenizer)
    logprobs, entropy = token_logprobs(model, *_batch(), temperature=temperature, with_entropy=True)
    assert entropy is not None
    alone, _ = token_logprobs(model, *_batch(), temperature=temperature)
    assert torch.equal(alone, logprobs)
    for b, (row, prompt) in enumerate(zip(ROWS, PROMPTS, strict=True)):
        distribution = torch.distributions.Categorical(logits=model(torch.tensor([row])).logits[0, :-1] / temperature)
        want, spread = torch.zeros(6), torch.zeros(6)
        want[prompt : len(row)] = distribution.log_prob(torch.tensor(row[1:]))[prompt - 1 :]
        spread[prompt : len(row)] = distribution.entropy()[prompt - 1 :]
        torch.testing.assert_close(logprobs[b], want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(entropy[b], spread, rtol=1e-4, atol=1e-4)


def test_the_gradient_is_that_of_the_full_softmax(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_policy("psgpo-shift", tokenizer)
    ids, mask, marked = _batch()
    token_logprobs(model, ids, mask, marked)[0].sum().backward()
    got = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    full = model(ids, attention_mask=mask).logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    (full * marked[:, 1:]).sum().backward()
    for mine, parameter in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["psgpo-shift", "llama"])
def test_nothing_marked_gives_zeros(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    ids, mask, marked = _batch()
    logprobs, entropy = token_logprobs(
        tiny_policy(name, tokenizer), ids, mask, torch.zeros_like(marked), with_entropy=True
    )
    assert not logprobs.any()
    assert entropy is not None
    assert not entropy.any()
