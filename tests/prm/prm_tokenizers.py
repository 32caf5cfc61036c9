"""Tokenizers of the kinds that models come with, trained on a few lines, and small value models for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from psgpo.models import TokenValueModel
from psgpo.models.shift import ShiftConfig, ShiftForTokenClassification

CORPUS = ["def f(x):\n    y = x + 1\n\n    return y\n", "if a:\r\n\tb = 'ä€'\n", "# note\n\n\n        pass\n"] * 3
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _LETTERS + r"\p{N}{1,3}" + _REST
QWEN2 = _LETTERS + r"\p{N}" + _REST


def _byte_level(split: str | None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split:
        steps.insert(0, pre_tokenizers.Split(Regex(split), behavior="isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "<eos>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _no_split() -> Tokenizer:
    """Byte-level without any cut: merges run over newlines (`:\\n    y`)."""
    return _byte_level(r"[\s\S]+")


def _metaspace() -> Tokenizer:
    """SentencePiece's way with byte fallback, as Llama 2: a space in front, pieces with ▁."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<pad>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _wordpiece() -> Tokenizer:
    """BERT's way: folds case and accents, drops all white space, has an unknown token."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["<pad>", "<eos>", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _words() -> Tokenizer:
    """Whole words and signs; anything else is unknown."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<pad>", "<eos>", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


BACKENDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": lambda: _byte_level(None),
    "llama3": lambda: _byte_level(LLAMA3),
    "qwen2": lambda: _byte_level(QWEN2),
    "no-split": _no_split,
    "metaspace": _metaspace,
    "wordpiece": _wordpiece,
    "words": _words,
}
BYTE_LEVEL = ("gpt2", "llama3", "qwen2", "no-split")


def make(name: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=BACKENDS[name](), pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def value_model(tokenizer: PreTrainedTokenizerFast) -> TokenValueModel:
    """Untrained, but with a head that is not zero: every token moves the values."""
    config = ShiftConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TokenValueModel(ShiftForTokenClassification(config).eval())
