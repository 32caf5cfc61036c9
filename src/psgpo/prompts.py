"""Prompts as token ids, the same for training, sampling and scoring. No torch."""

from __future__ import annotations

from typing import Any

from psgpo.records import Problem


def encode_prompt(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of a prompt as the model reads it: no special token, except the BOS of tokenizers that put one there."""
    ids = tuple(int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"])
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is not None and ids[:1] != (bos,) and list(tokenizer(text)["input_ids"])[:1] == [bos]:
        return (int(bos), *ids)
    return ids


SLOT, TRIMMED_SLOT = "{prompt}", "{prompt|trim}"
"""In a template: the problem's text as it is, and without white space around it."""


def has_slot(template: str) -> bool:
    """Whether the template says where the problem's text goes."""
    return SLOT in template or TRIMMED_SLOT in template


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
