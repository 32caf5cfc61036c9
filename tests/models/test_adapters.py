"""LoRA: off it is the model it was, on it learns, merged it is a folder like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models_world import REAL, tiny_policy
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from psgpo.config import LoraSettings, ModelSettings
from psgpo.errors import UserError
from psgpo.models import (
    TokenValueModel,
    adapters_off,
    learned_state,
    load_learned,
    load_policy,
    prepare_training,
    right_pad,
    save_merged,
    token_logprobs,
)

LORA = ModelSettings(lora=LoraSettings(rank=4, alpha=8.0))


def logprobs(model: PreTrainedModel) -> torch.Tensor:
    ids, mask = right_pad([[5, 6, 7, 8, 9, 10], [11, 12, 13]], 0)
    marked = mask * (torch.arange(ids.shape[1]) >= 1)
    return token_logprobs(model, ids, mask, marked)[0]


def trained(model: PreTrainedModel) -> PreTrainedModel:
    """A few steps on the adapters."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        (-logprobs(model).sum()).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("name", REAL)
def test_off_it_is_the_base_model_and_merged_it_is_the_trained_one(
    name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    base, model = tiny_policy(name, tokenizer), tiny_policy(name, tokenizer)
    prepare_training(model, LORA, seed=1)
    before = logprobs(base)
    assert torch.equal(logprobs(model), before)  # B is 0
    trained(model)
    after = logprobs(model)
    assert not torch.equal(after, before)
    with adapters_off(model):
        assert torch.equal(logprobs(model), before)
    assert torch.equal(logprobs(model), after)
    save_merged(model, tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = load_policy(tmp_path)
    assert {key: value.shape for key, value in loaded.state_dict().items()} == {
        key: value.shape for key, value in base.state_dict().items()
    }
    torch.testing.assert_close(logprobs(loaded), after, rtol=1e-4, atol=1e-4)
    assert torch.equal(logprobs(model), after)  # saving left it as it was


def test_the_state_is_the_adapters_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    model, other = tiny_policy("qwen2", tokenizer), tiny_policy("qwen2", tokenizer)
    for one in (model, other):
        prepare_training(one, LORA, seed=1)
    state = learned_state(trained(model))
    assert all("lora_" in key for key in state)
    load_learned(other, state)
    assert torch.equal(logprobs(other), logprobs(model))


def test_a_value_models_head_learns_in_full_and_its_bias_is_kept(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    policy = tiny_policy("llama", tokenizer)
    critic, other = (TokenValueModel.from_policy(policy, head_init="normal") for _ in range(2))
    for one in (critic, other):
        prepare_training(one, LORA, seed=1)
    learning = {name for name, p in critic.named_parameters() if p.requires_grad}
    assert "classifier.score.weight" in learning
    assert all("lora_" in name for name in learning - {"classifier.score.weight"})
    critic.apply_affine(2.0, 0.5)
    load_learned(other, learned_state(critic))
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(other(ids), critic(ids))
    critic.save_pretrained(tmp_path)
    torch.testing.assert_close(TokenValueModel.from_pretrained(tmp_path)(ids), critic(ids), rtol=1e-5, atol=1e-5)


def test_without_peft_the_way_to_get_it(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psgpo.models.adapters.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'psgpo\[lora\]'"):
        prepare_training(tiny_policy("llama", tokenizer), LORA)


@pytest.mark.parametrize("name", ["llama", "gpt2"])  # gpt2 ties its head to the embedding
def test_saved_in_another_precision_tied_matrices_stay_one(
    name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = tiny_policy(name, tokenizer)
    save_merged(model, tmp_path / "whole")
    save_merged(model, tmp_path / "half", dtype=torch.bfloat16)
    stored = [load_file(tmp_path / folder / "model.safetensors") for folder in ("whole", "half")]
    assert stored[0].keys() == stored[1].keys()
    for key, value in stored[0].items():
        assert torch.equal(value.to(torch.bfloat16), stored[1][key])
    assert model.dtype == torch.float32
