from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_world import TEXT
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from psgpo.errors import UserError
from psgpo.models import train_tokenizer


def test_words_and_phrases_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = [tokenizer.decode([i]) for i in tokenizer("    x = out\n    return sum(x)\n")["input_ids"]]
    assert "".join(pieces) == "    x = out\n    return sum(x)\n"
    assert len(pieces) <= 9, pieces


def test_a_newline_merges_with_nothing_but_the_indent_after_it(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = [tokenizer.decode([i]) for i in tokenizer(TEXT)["input_ids"]]
    with_newline = {piece for piece in pieces if "\n" in piece}
    assert with_newline
    assert all(piece[0] == "\n" and not piece.strip() for piece in with_newline), with_newline


@settings(max_examples=200)
@given(text=st.text())
def test_every_string_round_trips(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("text", ["naïve ☃ 漢字 😀", "a\r\n\tb\x00c\n\n\n   d", "x" * 300, " leading and trailing  "])
def test_multi_byte_and_odd_white_space_round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens_are_distinct_and_survive_saving(tokenizer: PreTrainedTokenizerFast, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.pad_token_id != loaded.eos_token_id
    assert (loaded.pad_token, loaded.eos_token) == ("<pad>", "<eos>")
    assert loaded(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert loaded.decode(loaded("é\n")["input_ids"]) == "é\n"


def test_the_same_corpus_gives_the_same_tokenizer() -> None:
    first, second = (train_tokenizer([TEXT, TEXT.upper()], 290) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(UserError, match="at least 258"):
        train_tokenizer([TEXT], 200)
