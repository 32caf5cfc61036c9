"""How the prompts of labelled responses are laid out, so that text is scored as it was sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.prompts import encode_prompt, fill
from psgpo.records import LineLabels


def sampled_template(paths: Sequence[Path], prompts: Mapping[str, str], tokenizer: Any) -> str:
    """The template, with `{prompt}`, that gives the prompt ids of every response of these label files.

    Args:
        prompts: problem id to prompt.

    Raises:
        UserError: no template does.
    """
    template: str | None = None
    for path in paths:
        for label in read_jsonl(path, LineLabels.from_json):
            response = label.response
            if response.problem_id not in prompts:
                raise UserError(
                    f"{path}: problem {response.problem_id} is in none of the problem files; name its file with "
                    "--problems"
                )
            problem = prompts[response.problem_id]
            text = tokenizer.decode(response.prompt_ids, clean_up_tokenization_spaces=False)
            bos = tokenizer.bos_token
            text = text.removeprefix(bos) if bos else text  # encode_prompt puts it back
            if template is None and problem:
                before, found, after = text.partition(problem)
                template = f"{before}{{prompt}}{after}" if found else None
            if template is None or encode_prompt(tokenizer, fill(template, problem)) != tuple(response.prompt_ids):
                raise UserError(
                    f"{path}: the prompt of problem {response.problem_id} is not its text in a layout that all "
                    "responses share; say with --template how the PRM shall read a problem"
                )
    assert template is not None, "label files are not empty"
    return template
