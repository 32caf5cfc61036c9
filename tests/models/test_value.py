"""One value per token: trunk, head, affine map and the portable folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models_world import ARCHITECTURES, REAL, save, tiny_policy
from seq2seq_world import tiny_seq2seq
from transformers import AutoModelForTokenClassification, OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast
from transformers.cache_utils import DynamicLayer

from psgpo.errors import UserError
from psgpo.models import TokenValueModel, right_pad

IDS, MASK = right_pad([[5, 6, 7, 8, 9], [10, 11, 12]], 0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_fresh_value_model_has_the_policys_trunk_and_values_zero(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    policy = tiny_policy(name, tokenizer)
    model = TokenValueModel.from_policy(policy)
    with torch.no_grad():
        want = policy.base_model(IDS, attention_mask=MASK).last_hidden_state
        got = model.classifier.base_model(IDS, attention_mask=MASK).last_hidden_state
        assert torch.equal(got[MASK.bool()], want[MASK.bool()])
        assert torch.equal(model(IDS, MASK), torch.zeros(2, 5))
    trunk = next(model.classifier.base_model.parameters())
    assert trunk.data_ptr() != next(policy.base_model.parameters()).data_ptr()


def test_the_value_is_the_head_on_the_trunk_and_the_seed_decides_the_head(tokenizer: PreTrainedTokenizerFast) -> None:
    policy = tiny_policy("psgpo-shift", tokenizer)
    model, same, other = (TokenValueModel.from_policy(policy, head_init="normal", seed=seed) for seed in (1, 1, 2))
    with torch.no_grad():
        hidden = policy.base_model(IDS, attention_mask=MASK).last_hidden_state
        torch.testing.assert_close(model(IDS, MASK), hidden @ model.head.weight[0])
        assert torch.equal(model(IDS, MASK), same(IDS, MASK))
        assert not torch.allclose(model(IDS, MASK), other(IDS, MASK))


def test_dropout_is_off_even_in_training_and_the_bias_does_not_learn(tokenizer: PreTrainedTokenizerFast) -> None:
    model = TokenValueModel.from_policy(tiny_policy("gpt2", tokenizer), head_init="normal").train()
    assert torch.equal(model(IDS, MASK), model(IDS, MASK))
    model(IDS, MASK).sum().backward()
    assert model.head.bias.grad is None
    assert model.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", REAL)
def test_no_cache_is_filled(
    name: str, train: bool, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TokenValueModel.from_policy(tiny_policy(name, tokenizer), head_init="normal").train(train)
    filled: list[object] = []
    monkeypatch.setattr(DynamicLayer, "update", lambda layer, *_, **__: filled.append(layer))
    model(IDS, MASK)
    assert filled == []


def test_affine_maps_every_value(tokenizer: PreTrainedTokenizerFast) -> None:
    model = TokenValueModel.from_policy(tiny_policy("llama", tokenizer), head_init="normal")
    with torch.no_grad():
        before = model(IDS, MASK)
        model.apply_affine(0.5, 0.5)
        torch.testing.assert_close(model(IDS, MASK), 0.5 * before + 0.5)
        model.apply_affine(2.0, -1.0)
        torch.testing.assert_close(model(IDS, MASK), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_saved_values_load_again(name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = TokenValueModel.from_policy(tiny_policy(name, tokenizer), head_init="normal")
    model.save_pretrained(tmp_path, tokenizer)
    loaded = TokenValueModel.from_pretrained(tmp_path)
    for key, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], weight)
    torch.testing.assert_close(loaded(IDS, MASK), model(IDS, MASK), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_first_layers_are_a_model_that_loads_again(
    name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    whole = TokenValueModel.from_policy(tiny_policy(name, tokenizer), head_init="normal")
    part = TokenValueModel.from_policy(tiny_policy(name, tokenizer), head_init="normal")
    part.keep_layers(1)
    seen: list[torch.Tensor] = []
    for model in (whole, part):
        layers = next(
            child for child in model.classifier.base_model.children() if isinstance(child, torch.nn.ModuleList)
        )
        layers[0].register_forward_hook(lambda _, __, out: seen.append(out if torch.is_tensor(out) else out[0]))
        assert len(layers) == (2 if model is whole else 1)
    with torch.no_grad():
        whole(IDS, MASK)
        values = part(IDS, MASK)
    assert torch.equal(*seen)
    part.save_pretrained(tmp_path, tokenizer)
    loaded = TokenValueModel.from_pretrained(tmp_path)
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in whole.parameters())
    torch.testing.assert_close(loaded(IDS, MASK), values, rtol=0, atol=1e-5)


def test_more_layers_than_there_are_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    model = TokenValueModel.from_policy(tiny_policy("llama", tokenizer))
    with pytest.raises(UserError, match="layers = 3: the model to start from has 2; give no more"):
        model.keep_layers(3)


def test_layers_of_an_encoder_decoder_are_refused() -> None:
    with pytest.raises(UserError, match="layers = 1: an encoder–decoder has layers on both sides"):
        TokenValueModel.from_policy(tiny_seq2seq("t5")).keep_layers(1)


def test_a_policy_folder_gives_the_same_trunk(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    policy = tiny_policy("qwen2", tokenizer)
    model = TokenValueModel.from_policy(save(policy, tokenizer, tmp_path))
    for key, weight in policy.base_model.state_dict().items():
        assert torch.equal(model.classifier.base_model.state_dict()[key], weight)


def test_other_tools_read_the_folder_without_this_package(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = TokenValueModel.from_policy(tiny_policy("qwen2", tokenizer), head_init="normal")
    model.save_pretrained(tmp_path, tokenizer)
    torch.save(model(IDS, MASK).detach(), tmp_path / "values.pt")
    script = f"""
import sys, torch
from transformers import AutoModelForTokenClassification
model = AutoModelForTokenClassification.from_pretrained({str(tmp_path)!r}).eval()
assert type(model).__name__ == "Qwen2ForTokenClassification" and model.config.num_labels == 1
assert model.score.bias is not None and not model.score.bias.any()
logits = model(torch.tensor({IDS.tolist()}), attention_mask=torch.tensor({MASK.tolist()})).logits
torch.testing.assert_close(logits[..., 0], torch.load({str(tmp_path / "values.pt")!r}), rtol=0, atol=1e-5)
assert not any(name.startswith("psgpo") for name in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_two_labels_are_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    config = tiny_policy("llama", tokenizer).config
    config.num_labels = 2
    AutoModelForTokenClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="num_labels = 1, found 2"):
        TokenValueModel.from_pretrained(tmp_path)


def test_a_policy_folder_and_a_missing_folder_are_no_value_models(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save(tiny_policy("llama", tokenizer), tokenizer, tmp_path / "policy")
    with pytest.raises(UserError, match="num_labels"):
        TokenValueModel.from_pretrained(tmp_path / "policy")
    with pytest.raises(UserError, match="no such folder"):
        TokenValueModel.from_pretrained(tmp_path / "nowhere")


def test_an_architecture_without_token_classification_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    sizes = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16}
    config = OPTConfig(num_hidden_layers=1, num_attention_heads=2, vocab_size=300, **sizes)
    with pytest.raises(UserError, match=r"model_type 'opt'.*no token-classification"):
        TokenValueModel.from_policy(OPTForCausalLM(config))
