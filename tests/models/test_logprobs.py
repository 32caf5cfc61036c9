"""Chunked log-probabilities equal the plain softmax, gradients included, for every architecture and precision."""

from __future__ import annotations

import pytest
import torch
from models_world import REAL, softcapped, tiny_policy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from psgpo.models import right_pad, token_logprobs, token_loss
from psgpo.models.logprobs import head_logprobs, plain_head

ROWS = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17]]
PROMPTS = [2, 1, 3]


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids, mask = right_pad(ROWS, 0)
    return ids, mask, mask * (torch.arange(ids.shape[1]) >= torch.tensor(PROMPTS)[:, None])


def plain(model: PreTrainedModel, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole softmax by autograd, (B, T)."""
    ids, mask, marked = batch()
    log_p = (model(input_ids=ids, attention_mask=mask).logits.float() / temperature).log_softmax(-1)[:, :-1]
    logprobs = log_p.gather(2, ids[:, 1:, None])[..., 0] * marked[:, 1:]
    entropy = -(log_p.exp() * log_p).sum(-1) * marked[:, 1:]
    return torch.nn.functional.pad(logprobs, (1, 0)), torch.nn.functional.pad(entropy, (1, 0))


def gradients(model: PreTrainedModel, logprobs: torch.Tensor, entropy: torch.Tensor) -> list[torch.Tensor]:
    """Of a loss in which every position weighs differently."""
    weights = torch.linspace(-1.0, 2.0, logprobs.numel()).view(logprobs.shape)
    model.zero_grad()
    ((weights * logprobs).sum() + (weights.flip(0, 1) * entropy).sum()).backward()
    return [p.grad.clone().float() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("name", REAL)
def test_values_and_gradients_are_those_of_the_full_softmax(
    name: str,
    chunk: int | None,
    temperature: float,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_policy(name, tokenizer)
    assert plain_head(model) is not None
    want = plain(model, temperature)
    wanted = gradients(model, *want)
    if chunk:
        monkeypatch.setattr("psgpo.models.logprobs.CPU_CHUNK", chunk * len(tokenizer))
    logprobs, entropy = token_logprobs(model, *batch(), temperature=temperature, with_entropy=True)
    assert entropy is not None
    torch.testing.assert_close(logprobs, want[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, want[1], rtol=1e-5, atol=1e-5)
    for mine, full in zip(gradients(model, logprobs, entropy), wanted, strict=True):
        torch.testing.assert_close(mine, full, rtol=1e-4, atol=1e-5 * float(full.abs().max() + 1))


@pytest.mark.parametrize("name", REAL)
def test_bfloat16_is_as_near_as_bfloat16_allows(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_policy(name, tokenizer).to(torch.bfloat16)
    want = plain(model, 1.0)
    wanted = gradients(model, *want)
    logprobs, entropy = token_logprobs(model, *batch(), with_entropy=True)
    assert entropy is not None
    # The same bfloat16 logits, but for the shape of the products: no difference beyond one of their roundings.
    torch.testing.assert_close(logprobs, want[0], rtol=2e-2, atol=6e-2)
    torch.testing.assert_close(entropy, want[1], rtol=2e-2, atol=6e-2)
    for mine, full in zip(gradients(model, logprobs, entropy), wanted, strict=True):
        assert float((mine - full).norm() / full.norm().clamp(min=1e-6)) < 0.05


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("name", [*REAL, "softcapped"])
def test_a_loss_taken_chunk_by_chunk_is_the_loss_of_all_logprobs(
    name: str, chunk: int | None, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = softcapped(tokenizer) if name == "softcapped" else tiny_policy(name, tokenizer)
    logprobs, entropy = plain(model, 0.7)
    marked = batch()[2].bool()
    weight_N = torch.linspace(-1.0, 2.0, int(marked.sum()))
    want = (weight_N * torch.exp(0.1 * logprobs[marked])).sum()
    model.zero_grad()
    (2 * want).backward()
    wanted = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    if chunk:
        monkeypatch.setattr("psgpo.models.logprobs.CPU_CHUNK", chunk * len(tokenizer))
    model.zero_grad()
    loss, found = token_loss(
        model,
        *batch(),
        lambda logprob_N, part: (weight_N[part] * torch.exp(0.1 * logprob_N)).sum(),
        temperature=0.7,
        with_entropy=True,
    )
    (2 * loss).backward()
    assert found is not None
    assert not found.requires_grad
    torch.testing.assert_close(found, entropy[marked].detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=1e-5)
    for mine, full in zip([p.grad for p in model.parameters() if p.grad is not None], wanted, strict=True):
        torch.testing.assert_close(mine, full, rtol=1e-4, atol=1e-5 * float(full.abs().max() + 1))


def test_both_gradients_with_a_bias_and_several_chunks() -> None:
    """Against autograd through `Categorical` in double precision."""
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(5, 3), torch.randn(7, 3), torch.randn(7)
    target = torch.tensor([0, 6, 3, 3, 1])
    up, down = torch.randn(5), torch.randn(5)
    leaves = [tensor.clone().requires_grad_() for tensor in (hidden, weight, bias)]
    for chunk in (2, 5):
        logprobs, entropy = head_logprobs(*leaves, target, temperature=0.6, with_entropy=True, chunk=chunk)
        assert entropy is not None
        got = torch.autograd.grad((up * logprobs).sum() + (down * entropy).sum(), leaves)
        doubles = [tensor.double().requires_grad_() for tensor in (hidden, weight, bias)]
        p = torch.distributions.Categorical(logits=(doubles[0] @ doubles[1].T + doubles[2]) / 0.6)
        want = torch.autograd.grad((up * p.log_prob(target)).sum() + (down * p.entropy()).sum(), doubles)
        for mine, exact in zip(got, want, strict=True):
            torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-5)


def test_nothing_of_the_vocabularys_size_is_kept_for_the_gradient() -> None:
    hidden, weight = torch.randn(64, 8, requires_grad=True), torch.randn(500, 8, requires_grad=True)
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        head_logprobs(hidden, weight, None, torch.zeros(64, dtype=torch.long), with_entropy=True, chunk=16)
    assert kept
    assert max(kept) == weight.numel()


def test_under_autocast_the_products_are_bfloat16_and_gradients_reach_float32_weights(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = tiny_policy("qwen2", tokenizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logprobs, _ = token_logprobs(model, *batch())
        want = plain(model, 1.0)[0]
    exact = plain(model, 1.0)[0]
    logprobs.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    assert float((logprobs - want).detach().abs().max()) < 0.1
    assert not torch.equal(logprobs, exact)


def test_a_soft_cap_is_noticed_and_takes_the_models_own_forward(tokenizer: PreTrainedTokenizerFast) -> None:
    model = softcapped(tokenizer)
    want = plain(model, 0.8)
    with pytest.warns(UserWarning, match="Gemma2ForCausalLM: its logits are not a matrix"):
        logprobs, entropy = token_logprobs(model, *batch(), temperature=0.8, with_entropy=True)
    assert entropy is not None
    torch.testing.assert_close(logprobs, want[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, want[1], rtol=1e-5, atol=1e-5)
