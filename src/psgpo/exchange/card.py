"""The README.md of an exported dataset: a head that `datasets` reads, and what the columns mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import psgpo
from psgpo.exchange.steps import StepForm

_MEANING = {
    "prompt": "the task in words",
    "completions": "the steps: code lines, without the last newline",
    "labels": "per step, about the program up to its end",
    "id": "names the program",
    "problem_id": "split by this, never by row",
    "checkpoint": "the policy that wrote it; empty for made programs",
    "verdict": "of the whole program on its tests; `PASSED` or why not",
    "source": "the label strategy, with `/guess` where its labels rest on a probability and not on programs that were "
    "judged; or `mutation/<teacher>`",
    "kind": "`<family>/<kind>` of a made program",
    "text": "the whole response or program; offsets count its characters",
    "char_starts": "per step, its first character in `text`",
    "char_ends": "per step, the character after its last, newline left out",
    "token_ends": "per step, index into `token_ids` of the token that ends it",
    "token_ids": "the response as the policy sampled it; empty for made programs",
    "prompt_ids": "the ids the policy read before it",
    "tokenizer": "fingerprint of the tokenizer of the ids",
}
_LABELS = {
    "float": "+1: the program up to here can still be completed to one that passes; −1: it cannot; 0: no claim (a "
    "comment, a blank line, or a line that the strategy left open). Soft labels lie between: `soft` is 2 · (share of "
    "completions that pass) − 1, `noisy-soft` is 2 · (chance that it can be completed) − 1.",
    "bool": "true: the program up to here can still be completed to one that passes; false: the strategy in `source` "
    "found that it cannot, or no completion that passes. With `noisy-soft`, true: likelier than not it can be "
    "completed; false: it is not likelier.",
}
_TRAINER = {
    "float": "Labels of TRL's `PRMTrainer` are classes, made by `int(label)`: do not train it on these numbers, write "
    "the dataset with `--labels bool` for it.",
    "bool": "TRL's `PRMTrainer` takes them as they are.",
}
_UNLABELLED = {
    "keep": 'Every line is a step, so `"\\n".join(completions)` is the program.',
    "merge": "Lines without a claim are joined to the step after them; those after the last claim are left out, so "
    '`"\\n".join(completions)` is the program up to there.',
}


def dataset_card(
    *,
    name: str,
    license_name: str,
    origin: str,
    types: Mapping[str, str],
    form: StepForm,
    sizes: Mapping[str, Mapping[str, int]],
    sample: Mapping[str, Any],
) -> str:
    """Text of the card.

    Args:
        types: column to type.
        sizes: per split, see `count_steps`.
        sample: a row to show.
    """
    table = [f"| `{column}` | {kind} | {_MEANING[column]} |" for column, kind in types.items()]
    columns = list(next(iter(sizes.values())))
    counts = [f"| {split} | {' | '.join(f'{size[c]:,}' for c in columns)} |" for split, size in sizes.items()]
    shown = {key: sample[key] for key in ("prompt", "completions", "labels", "verdict")}
    return f"""{_head(license_name, types, sizes)}
# {name}

Programs with a label per line, for training and measuring process reward models.

    from datasets import load_dataset

    load_dataset("path/of/this/folder")          # Parquet
    load_dataset("path/of/this/folder/jsonl")    # the same as JSON Lines

## Labels

{_LABELS[form.labels]} {_UNLABELLED[form.unlabelled]}

| split | {" | ".join(columns).replace("_", " ")} |
|---|{"---|" * len(columns)}
{chr(10).join(counts)}

A problem is in one split only.

## Columns

`prompt`, `completions`, `labels` are TRL's stepwise form. {_TRAINER[form.labels]}
Trainers that tokenise each step on its own may cut elsewhere than the policy did; `token_ids` with `token_ends` is
exact under the policy's own tokenizer.

| column | type | |
|---|---|---|
{chr(10).join(table)}

```json
{json.dumps(shown, indent=2, ensure_ascii=False)}
```

## Where it comes from

{origin} Written by psgpo {psgpo.__version__} (`psgpo labels export`).

License: {license_name if license_name != "other" else "not chosen yet; set `license` in the head of this file"}.
Programs of a model and texts of a benchmark carry the licenses of their makers.
"""


def _head(license_name: str, types: Mapping[str, str], sizes: Mapping[str, Mapping[str, int]]) -> str:
    lines = ["---", f"license: {license_name}", "task_categories:", "- text-classification", "tags:"]
    return "\n".join([*lines, "- process-reward-model", "- code", *_files("data/{}.parquet", types, sizes), "---"])


def jsonl_card(types: Mapping[str, str], sizes: Mapping[str, Mapping[str, int]]) -> str:
    """The card of the folder with the JSON Lines: `datasets` reads one format per folder."""
    head = "\n".join(["---", *_files("{}.jsonl", types, sizes), "---"])
    return f"{head}\nThe rows of the folder above as JSON Lines; its README.md describes them.\n"


def _files(pattern: str, types: Mapping[str, str], sizes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """YAML: the files of the splits, and the columns' types, so that both formats load the same."""
    lines = ["configs:", "- config_name: default", "  data_files:"]
    for split in sizes:
        lines += [f"  - split: {split}", f"    path: {pattern.format(split)}"]
    lines += ["dataset_info:", "  config_name: default", "  features:"]
    for column, kind in types.items():
        element = kind.removeprefix("list of ")
        lines += [f"  - name: {column}", f"    {'dtype' if element == kind else 'list'}: {element}"]
    return lines
