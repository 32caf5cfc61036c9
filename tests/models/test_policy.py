from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from models_world import ARCHITECTURES, save, tiny_policy
from transformers import PreTrainedTokenizerFast

from psgpo.config import LoraSettings, ModelSettings
from psgpo.errors import UserError
from psgpo.models import TokenValueModel, load_policy, prepare_training


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_loads_from_its_folder(
    name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = tiny_policy(name, tokenizer)
    loaded, loaded_tokenizer = load_policy(save(model, tokenizer, tmp_path))
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
    assert loaded_tokenizer.eos_token_id == 1
    assert not loaded.training
    assert loaded.dtype == torch.float32


def test_without_a_pad_token_the_end_token_pads(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save(tiny_policy("gpt2", tokenizer), tokenizer, tmp_path)
    _change(tmp_path / "tokenizer_config.json", pad_token=None)
    _, loaded = load_policy(tmp_path)
    assert loaded.pad_token_id == loaded.eos_token_id == 1


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        load_policy(tmp_path / "nowhere")


def test_a_missing_tokenizer_says_how_to_save_one(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tiny_policy("llama", tokenizer).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no usable tokenizer.*save_pretrained"):
        load_policy(tmp_path)


def test_a_tokenizer_without_an_end_token_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save(tiny_policy("llama", tokenizer), tokenizer, tmp_path)
    _change(tmp_path / "tokenizer_config.json", eos_token=None)
    with pytest.raises(UserError, match="no eos_token"):
        load_policy(tmp_path)


def test_missing_weights_and_foreign_code_are_user_errors(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save(tiny_policy("llama", tokenizer), tokenizer, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="not loadable"):
        load_policy(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')\n")
    _change(tmp_path / "config.json", model_type="evil", auto_map={"AutoModelForCausalLM": "evil.Evil"})
    with pytest.raises(UserError):
        load_policy(tmp_path)


def _change(path: Path, **values: object) -> None:
    content = json.loads(path.read_text())
    content.update(values)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_folder_without_all_weights_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="pip install 'psgpo[lora]'")
    model = tiny_policy("llama", tokenizer)
    prepare_training(model, ModelSettings(lora=LoraSettings(rank=2)))
    model.save_pretrained(tmp_path / "unmerged")  # transformers' own: adapters beside the weights
    tokenizer.save_pretrained(tmp_path / "unmerged")
    with pytest.raises(UserError, match=r"unmerged: lacks \d+ of the weights of a LlamaForCausalLM.*proj"):
        load_policy(tmp_path / "unmerged")
    save(tiny_policy("llama", tokenizer), tokenizer, tmp_path / "policy")
    config = json.loads((tmp_path / "policy" / "config.json").read_text())
    (tmp_path / "policy" / "config.json").write_text(json.dumps(config | {"num_labels": 1}))
    with pytest.raises(UserError, match="lacks 2 of the weights of a LlamaForTokenClassification"):
        TokenValueModel.from_pretrained(tmp_path / "policy")  # it has no head
