"""Folders of encoder–decoders load as policies, prompts end where they must, encoders are refused."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from models_world import save
from seq2seq_world import SEQ2SEQ, code_tokenizer, sentence_tokenizer, tiny_seq2seq
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerFast, RobertaConfig

from psgpo.errors import UserError
from psgpo.models import check_policy_folder, load_policy, load_tokenizer
from psgpo.prompts import cut_prompt, encode_prompt, encoder_prompts, split_prompt


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_every_architecture_loads_from_its_folder(name: str, tmp_path: Path) -> None:
    model = tiny_seq2seq(name)
    folder = save(model, code_tokenizer(), tmp_path)
    loaded, tokenizer = load_policy(folder)
    inputs = {"input_ids": torch.tensor([[5, 6, 2]]), "decoder_input_ids": torch.tensor([[0, 7, 8]])}
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-5)
    assert not loaded.training
    loaded.train()
    assert torch.equal(loaded(**inputs).logits, loaded(**inputs).logits)  # no dropout
    assert encoder_prompts(tokenizer)
    assert encoder_prompts(load_tokenizer(folder))
    assert type(model).__name__ in check_policy_folder(folder)
    twice = save(loaded, tokenizer, tmp_path / "twice")
    torch.testing.assert_close(load_policy(twice)[0](**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-5)


def test_a_context_that_positions_limit_is_checked(tmp_path: Path) -> None:
    folder = save(tiny_seq2seq("bart"), code_tokenizer(), tmp_path)
    with pytest.raises(UserError, match="its context holds 96 tokens"):
        check_policy_folder(folder, context=96)


@pytest.mark.parametrize("make", [code_tokenizer, sentence_tokenizer])
def test_a_prompt_ends_with_its_only_end_token(make) -> None:
    tokenizer: PreTrainedTokenizerFast = make()
    for copied in (tokenizer, copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        ids = encode_prompt(copied, "add 3 to each")
        assert ids == tuple(tokenizer("add 3 to each")["input_ids"])
        assert ids.index(2) == len(ids) - 1
    assert cut_prompt(tokenizer, ids, 4) == (*ids[:3], 2)
    assert cut_prompt(tokenizer, ids, 400) == ids
    assert split_prompt([*ids, 9, 2, 7], end=2) == (ids, (9, 2, 7))
    with pytest.raises(UserError, match="no end-of-sequence token"):
        split_prompt([5, 6], end=2)


def test_an_end_token_in_the_problems_text_is_text_or_refused() -> None:
    text = "keep</s> the </s>"
    ids = encode_prompt(code_tokenizer(), text)
    assert ids.index(2) == len(ids) - 1
    assert code_tokenizer().decode(ids) == f"<s>{text}</s>"
    with pytest.raises(UserError, match=r"prompt 'keep</s> the </s>': the tokenizer has '</s>' .* inside it too"):
        encode_prompt(sentence_tokenizer(), text)  # unigrams have no other way to write it


def test_a_tokenizer_that_ends_no_text_gets_an_end_and_one_that_begins_with_it_is_refused() -> None:
    bare = copy.deepcopy(code_tokenizer())
    bare.backend_tokenizer.post_processor = None
    assert encode_prompt(bare, "sum")[-1] == 2
    bare.eos_token = "<s>"
    bare.backend_tokenizer.post_processor = copy.deepcopy(code_tokenizer()).backend_tokenizer.post_processor
    with pytest.raises(UserError, match=r"the tokenizer has '<s>' .* inside it too"):
        encode_prompt(bare, "sum")


def _change(path: Path, **values: object) -> None:
    content = json.loads(path.read_text())
    content.update(values)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_special_ids_that_are_missing_or_differ_are_named(tmp_path: Path) -> None:
    folder = save(tiny_seq2seq("t5"), code_tokenizer(), tmp_path)
    _change(folder / "config.json", decoder_start_token_id=None)
    assert load_policy(folder)[0].config.decoder_start_token_id == 0  # generation_config.json says so
    (folder / "generation_config.json").unlink()
    for load in (load_policy, check_policy_folder):
        with pytest.raises(UserError, match="names no decoder_start_token_id"):
            load(folder)
    _change(folder / "config.json", decoder_start_token_id=0, eos_token_id=[7, 2])
    assert load_policy(folder)[0].config.eos_token_id == 2
    _change(folder / "config.json", eos_token_id=1)
    for load in (load_policy, check_policy_folder):
        with pytest.raises(UserError, match=r"ends sequences with id 1, its tokenizer with 2 \('</s>'\)"):
            load(folder)


def test_an_encoder_is_refused_where_it_would_load(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1}
    config = RobertaConfig(**sizes, vocab_size=300, pad_token_id=0, eos_token_id=2)
    folder = save(AutoModelForMaskedLM.from_config(config), code_tokenizer(), tmp_path)
    for load in (load_policy, check_policy_folder):
        with pytest.raises(UserError, match=r"'roberta' cannot be policy and critic: it is an encoder"):
            load(folder)
    _change(folder / "config.json", is_decoder=True)
    assert load_policy(folder)[0].config.is_decoder  # a decoder of that name is one
