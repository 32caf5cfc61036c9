"""A small tokenizer for one corpus: a token is a word or a common phrase of one line, yet every string round-trips."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from psgpo.errors import UserError

PAD, EOS = "<pad>", "<eos>"
_WORDS = r"\n *| ?[^\w\s]* ?\w+| ?[^\w\s]+|\s+"
"""First merges: inside a word, with the signs before it."""
_PHRASES = r"\n *|; then|[^;\n]+|;"
"""Later merges: anything between newlines and semicolons. A newline only ever merges with the indent after it."""
_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
"""One printable character for each of the 256 bytes."""

Pair = tuple[str, str]


def train_tokenizer(texts: Iterable[str], vocab_size: int = 640) -> PreTrainedTokenizerFast:
    """Train a tokenizer in three rounds: words, phrases inside a line out of whole words, then a selection.

    Byte-pair merges leave their halves behind (`squ` on the way to `square`). So more are made than there is room
    for, the pieces that a segmentation of the corpus really uses are kept (those that save most), and a unigram model
    cuts text into the likeliest of them. All 256 bytes are in the vocabulary: there is no unknown token and decoding
    gives back every string exactly. `save_pretrained` writes a folder that `AutoTokenizer.from_pretrained` reads
    without this package. On OpChain with 640 ids: 7.0 tokens of code and 3.0 of prompt per operation (17 and 7 with
    byte-pair words alone).

    Raises:
        UserError: `vocab_size` leaves no room beside the bytes and the two special tokens.
    """
    room = vocab_size - 2 - len(_BYTES)
    if room < 0:
        raise UserError(f"vocab_size {vocab_size}: 256 bytes and 2 special tokens need at least 258; raise it")
    corpus = list(texts)
    words = _pretokenised(models.BPE(), _WORDS)
    trainer = trainers.BpeTrainer(vocab_size=len(_BYTES) + room, initial_alphabet=_BYTES, show_progress=False)
    words.train_from_iterator(corpus, trainer)
    usage = _phrase_usage(words, corpus, merges=2 * room)
    # What a piece saves grows with its length, but less than in proportion: without it other pieces stand in.
    worth = {piece: count * (len(piece) - 1) ** 0.5 for piece, count in usage.items() if len(piece) > 1}
    chosen = sorted(worth, key=lambda piece: (-worth[piece], piece))[:room]
    total = sum(usage.values()) + len(_BYTES)
    scores = {piece: math.log((usage[piece] + 1) / total) for piece in [*_BYTES, *chosen]}
    vocab = [(PAD, -100.0), (EOS, -100.0), *scores.items()]
    return PreTrainedTokenizerFast(
        tokenizer_object=_pretokenised(models.Unigram(vocab, None, False), _PHRASES),
        pad_token=PAD,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
    )


def _pretokenised(model: models.Model, pieces: str) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _phrase_usage(words: Tokenizer, corpus: list[str], merges: int) -> Counter[str]:
    """How often each piece is used after up to `merges` further merges inside phrases, the most frequent pair first."""
    split = pre_tokenizers.Split(Regex(_PHRASES), behavior="isolated")
    phrases = Counter(piece for text in corpus for piece, _ in split.pre_tokenize_str(text))
    tokens = [encoding.tokens for encoding in words.encode_batch(list(phrases))]
    frequency = list(phrases.values())
    pairs: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for phrase in range(len(tokens)):
        _count(tokens[phrase], frequency[phrase], phrase, pairs, places)
    for _ in range(merges):
        best = max(pairs, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        for phrase in tuple(places[best]):
            _count(tokens[phrase], -frequency[phrase], phrase, pairs, places)
            tokens[phrase] = _merged(tokens[phrase], best)
            _count(tokens[phrase], frequency[phrase], phrase, pairs, places)
        del pairs[best], places[best]
    usage: Counter[str] = Counter()
    for phrase, pieces in enumerate(tokens):
        for piece in pieces:
            usage[piece] += frequency[phrase]
    return usage


def _count(
    tokens: list[str],
    weight: int,
    phrase: int,
    pairs: Counter[Pair],
    places: defaultdict[Pair, set[int]],
) -> None:
    for pair in pairwise(tokens):
        pairs[pair] += weight
        places[pair].add(phrase)


def _merged(tokens: list[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    for token in tokens:
        if merged and (merged[-1], token) == pair:
            merged[-1] += token
        else:
            merged.append(token)
    return merged
