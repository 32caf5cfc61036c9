"""Critics on encoder–decoders: causal, the policy's trunk, a folder that loads; and what is refused as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models_world import save
from seq2seq_world import SEQ2SEQ, code_tokenizer, rows, tiny_seq2seq
from transformers import (
    AutoModelForTokenClassification,
    BertConfig,
    BertForTokenClassification,
    T5Config,
    T5ForTokenClassification,
)

from psgpo.config import LoraSettings, ModelSettings
from psgpo.errors import UserError
from psgpo.models import TokenValueModel, learned_state, load_learned, prepare_training, right_pad
from psgpo.models.seq2seq_value import Seq2SeqForTokenClassification


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return right_pad(rows(code_tokenizer())[0], 0)


def states() -> torch.Tensor:
    """Where a value means something: from the prompt's end on, (B, S)."""
    ids, mask = batch()
    prompts = torch.tensor(rows(code_tokenizer())[1])
    return mask.bool() & (torch.arange(ids.shape[1]) >= prompts[:, None] - 1)


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_values_are_the_head_on_the_decoders_states(name: str) -> None:
    policy = tiny_seq2seq(name)
    model = TokenValueModel.from_policy(policy, head_init="normal", seed=1)
    with torch.no_grad():
        got = model(*batch())
        for b, (row, prompt) in enumerate(zip(*rows(code_tokenizer()), strict=True)):
            decoder_ids = torch.tensor([[0, *row[prompt:]]])
            encoded = policy.get_encoder()(input_ids=torch.tensor([row[:prompt]])).last_hidden_state
            hidden = policy.get_decoder()(input_ids=decoder_ids, encoder_hidden_states=encoded).last_hidden_state
            want = (hidden @ model.head.weight[0])[0]
            torch.testing.assert_close(got[b, prompt - 1 : len(row)], want, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model(torch.tensor([row]))[0, prompt - 1 :], want, rtol=1e-4, atol=1e-5)
    assert torch.equal(got[~states()], torch.zeros_like(got[~states()]))
    assert not TokenValueModel.from_policy(policy)(*batch()).any()


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_what_comes_later_changes_no_earlier_value(name: str) -> None:
    model = TokenValueModel.from_policy(tiny_seq2seq(name), head_init="normal", seed=1)
    (row, *_), (prompt, *_) = rows(code_tokenizer())
    with torch.no_grad():
        before = model(*right_pad([row], 0))[0]
        for at in range(prompt, len(row)):
            changed = [*row[:at], *[token + 3 for token in row[at:]]]
            after = model(*right_pad([changed], 0))[0]
            torch.testing.assert_close(after[:at], before[:at], rtol=1e-5, atol=1e-6)
            assert float((after[at] - before[at]).abs()) > 1e-4
        other = model(*right_pad([[8, *row[1:]]], 0))[0]
    assert float((other - before)[prompt - 1 :].abs().min()) > 1e-6  # the problem is read by all of them


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_folders_load_with_and_without_the_wrapper(name: str, tmp_path: Path) -> None:
    policy = tiny_seq2seq(name)
    model = TokenValueModel.from_policy(policy, head_init="normal", seed=1)
    model.apply_affine(2.0, 0.5)
    model.save_pretrained(tmp_path / "critic", code_tokenizer())
    loaded = TokenValueModel.from_pretrained(tmp_path / "critic")
    assert {key: v.shape for key, v in loaded.state_dict().items()} == {
        key: v.shape for key, v in model.state_dict().items()
    }
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())
    # Not to the bit: which products a processor fuses depends on where the weights lie in memory.
    torch.testing.assert_close(loaded(*batch()), model(*batch()), rtol=1e-6, atol=1e-6)
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path / "critic").eval()
    assert isinstance(plain, Seq2SeqForTokenClassification)
    torch.testing.assert_close(plain(*batch()).logits[..., 0], model(*batch()))
    from_folder = TokenValueModel.from_policy(
        save(policy, code_tokenizer(), tmp_path / "policy"), head_init="normal", seed=1
    )
    from_folder.apply_affine(2.0, 0.5)
    torch.testing.assert_close(from_folder(*batch()), model(*batch()))


@pytest.mark.parametrize("name", ["t5", "t5-1.1"])
def test_it_trains_without_noise_with_adapters_and_recomputed(name: str) -> None:
    def fresh(settings: ModelSettings) -> TokenValueModel:
        model = TokenValueModel.from_policy(tiny_seq2seq(name), head_init="normal", seed=1)
        prepare_training(model, settings, seed=1)
        return model.train()

    plain, again = fresh(ModelSettings()), fresh(ModelSettings(gradient_checkpointing=True))
    assert torch.equal(plain(*batch()), plain(*batch()))
    gradients = []
    for one in (plain, again):
        one(*batch())[states()].sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in one.parameters() if p.requires_grad]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-5
    adapted, other = fresh(ModelSettings(lora=LoraSettings(rank=4))), fresh(ModelSettings(lora=LoraSettings(rank=4)))
    learning = {key for key, p in adapted.named_parameters() if p.requires_grad}
    assert {key for key in learning if "lora_" not in key} == {"classifier.score.weight"}
    optimizer = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], lr=0.02)
    for _ in range(2):
        adapted(*batch())[states()].sum().backward()
        optimizer.step()
    assert not torch.allclose(adapted(*batch()), other(*batch()))
    load_learned(other, learned_state(adapted))
    assert torch.equal(other(*batch()), adapted(*batch()))


def test_encoders_are_no_value_models(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1}
    BertForTokenClassification(BertConfig(**sizes, vocab_size=300, num_labels=1)).save_pretrained(tmp_path / "bert")
    t5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 300, "num_labels": 1}
    T5ForTokenClassification(T5Config(**t5)).save_pretrained(tmp_path / "t5")
    for name in ("bert", "t5"):
        with pytest.raises(UserError, match=rf"{name}: its values \(model_type '{name}'\) come from an encoder"):
            TokenValueModel.from_pretrained(tmp_path / name)
