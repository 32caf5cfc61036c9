"""How the prompts of labelled responses are laid out, so that text is scored as it was sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.prompts import SLOT, TRIMMED_SLOT, encode_prompt, encoder_prompts, fill
from psgpo.records import LineLabels


def sampled_template(paths: Sequence[Path], prompts: Mapping[str, str], tokenizer: Any) -> str:
    """The template, with `{prompt}`, that gives the prompt ids of every response of these label files.

    Args:
        prompts: problem id to prompt.

    Raises:
        UserError: no template does.
    """
    templates: list[str] = []
    for path in paths:
        for label in read_jsonl(path, LineLabels.from_json):
            response = label.response
            if response.problem_id not in prompts:
                raise UserError(
                    f"{path}: problem {response.problem_id} is in none of the problem files; name its file with "
                    "--problems"
                )
            problem = prompts[response.problem_id]
            ids = tuple(response.prompt_ids)
            templates = templates or _candidates(tokenizer, ids, problem)
            templates = [one for one in templates if encode_prompt(tokenizer, fill(one, problem)) == ids]
            if not templates:
                raise UserError(
                    f"{path}: the prompt of problem {response.problem_id} is not its text in a layout that all "
                    "responses share; say with --template how the PRM shall read a problem"
                )
    assert templates, "label files are not empty"
    return templates[0]


def _candidates(tokenizer: Any, ids: tuple[int, ...], problem: str) -> list[str]:
    """Templates that may have made the ids of this problem's prompt; the text may stand there without its white space.

    A BOS that the tokenizer puts in front of every text is no part of them, nor are the space it puts there and the
    EOS of an encoder–decoder's prompt.
    """
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if encoder_prompts(tokenizer):
        text = text.removesuffix(tokenizer.eos_token)
    bare = text.removeprefix(tokenizer.bos_token) if tokenizer.bos_token else text
    forms = (bare, bare.removeprefix(" "), text)
    text = next((form for form in forms if encode_prompt(tokenizer, form) == ids), text)
    found = []
    for slot, inside in ((SLOT, problem), (TRIMMED_SLOT, problem.strip())):
        before, match, after = text.partition(inside)
        if match:
            found.append(f"{before}{slot}{after}")
    return found
