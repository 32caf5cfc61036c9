"""Prompts as token ids, the same for training, sampling and scoring. No torch.

A prompt of an encoder–decoder is what its encoder reads: it ends with the tokenizer's end-of-sequence token and holds
no other. So `prompt + response` needs no mark between them (`split_prompt`), and rows, prefixes and label files are
lists of ids for every kind of model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psgpo.errors import UserError
from psgpo.records import Problem

_MARK = "psgpo_encoder_reads_prompts"
"""Attribute of a tokenizer; it survives copies and pickling, and is no part of what `save_pretrained` writes."""


def set_encoder_prompts(tokenizer: Any, encoder: bool) -> None:
    """Say whether this tokenizer's prompts are read by an encoder. Whoever loads a tokenizer knows its model."""
    setattr(tokenizer, _MARK, encoder)


def encoder_prompts(tokenizer: Any) -> bool:
    """Whether the tokenizer belongs to an encoder–decoder."""
    return bool(getattr(tokenizer, _MARK, False))


def encode_prompt(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of a prompt as the model reads it: no special token, except the BOS of tokenizers that put one there.

    Of an encoder–decoder: with all special tokens that its tokenizer puts around a text, ending with one EOS.

    Raises:
        UserError: an encoder–decoder's tokenizer has its EOS inside the prompt too.
    """
    if encoder_prompts(tokenizer):
        return _encoder_prompt(tokenizer, text)
    ids = tuple(int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"])
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is not None and ids[:1] != (bos,) and list(tokenizer(text)["input_ids"])[:1] == [bos]:
        return (int(bos), *ids)
    return ids


def _encoder_prompt(tokenizer: Any, text: str) -> tuple[int, ...]:
    # A "</s>" in the problem's text stays text, where the vocabulary can write it otherwise.
    ids = tuple(int(token) for token in tokenizer(text, split_special_tokens=True)["input_ids"])
    end = tokenizer.eos_token_id
    ids = ids if ids[-1:] == (end,) else (*ids, end)
    if ids.index(end) != len(ids) - 1:
        raise UserError(
            f"prompt {' '.join(text.split())[:60]!r}: the tokenizer has {tokenizer.eos_token!r} (id {end}) inside it "
            "too, so an encoder–decoder's response cannot be told from it; leave the problem out, or choose a "
            "tokenizer that only ends texts with it"
        )
    return ids


def cut_prompt(tokenizer: Any, ids: Sequence[int], max_tokens: int | None) -> tuple[int, ...]:
    """At most `max_tokens` ids: a longer prompt loses its end, an encoder–decoder's keeps the EOS there."""
    if max_tokens is None or len(ids) <= max_tokens:
        return tuple(ids)
    return (*ids[: max_tokens - 1], ids[-1]) if encoder_prompts(tokenizer) else tuple(ids[:max_tokens])


def split_prompt(ids: Sequence[int], end: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(prompt with its EOS, what was written of the response) of an encoder–decoder's row.

    Raises:
        UserError: there is no EOS, so no prompt of an encoder–decoder.

    >>> split_prompt([5, 6, 2, 7, 8, 2], end=2)
    ((5, 6, 2), (7, 8, 2))
    """
    ids = tuple(ids)
    if end not in ids:
        raise UserError(
            f"a row of {len(ids)} tokens has no end-of-sequence token (id {end}), with which the prompt of an "
            "encoder–decoder ends; load its tokenizer with psgpo.models.load_tokenizer and use encode_prompt"
        )
    cut = ids.index(end) + 1
    return ids[:cut], ids[cut:]


SLOT, TRIMMED_SLOT = "{prompt}", "{prompt|trim}"
"""In a template: the problem's text as it is, and without white space around it."""


def has_slot(template: str) -> bool:
    """Whether the template says where the problem's text goes."""
    return SLOT in template or TRIMMED_SLOT in template


def slot_fault(template: str) -> str | None:
    """What is wrong with the slots of a template, as the end of a sentence; None where nothing is.

    >>> slot_fault("{prompt} {prompt|trim}")
    'holds both {prompt} and {prompt|trim}; keep one of them'
    """
    if not has_slot(template):
        return "lacks {prompt}"
    if SLOT in template and TRIMMED_SLOT in template:
        return "holds both {prompt} and {prompt|trim}; keep one of them"
    return None


def fill(template: str, prompt: str) -> str:
    """The template with the problem's text in its slot; other braces stay as they are.

    >>> fill("# {prompt|trim}!", " add ")
    '# add!'
    """
    if TRIMMED_SLOT in template:
        return template.replace(TRIMMED_SLOT, prompt.strip())
    return template.replace(SLOT, prompt)


def build_prompt_ids(tokenizer: Any, template: str, problem: Problem) -> tuple[int, ...]:
    """Ids of a problem's prompt; `{prompt}` in the template is the problem's text."""
    return encode_prompt(tokenizer, fill(template, problem.prompt))
