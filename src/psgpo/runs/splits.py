"""The user's own problem files: which there are, and that no test problem is trained on."""

from __future__ import annotations

from pathlib import Path

from psgpo.config import JsonlSource
from psgpo.errors import UserError
from psgpo.problems import load_problems_jsonl
from psgpo.records import Problem


def load_splits(source: JsonlSource) -> dict[str, list[Problem]]:
    """Problems of `train`, `label`, `test` and, where there is one, `validation`.

    Raises:
        UserError: a file is missing or malformed, or a test problem is trained on.
    """
    files = {"train": source.train, "label": source.label or source.train, "test": source.test}
    if source.validation is not None:
        files["validation"] = source.validation
    loaded = {split: load_problems_jsonl(path) for split, path in files.items()}
    _refuse_overlap(loaded, files)
    return loaded


def _refuse_overlap(problems: dict[str, list[Problem]], files: dict[str, Path]) -> None:
    """Raise `UserError` when a test problem is also trained on."""
    for key in ("id", "prompt"):
        tested = {getattr(problem, key) for problem in problems["test"]}
        for split in ("train", "label"):
            both = tested & {getattr(problem, key) for problem in problems[split]}
            if both:
                raise UserError(
                    f"{files['test']}: {len(both)} problem(s) are in {files[split]} too (same {key}: "
                    f"{min(both)[:60]!r}); test on problems that nothing is trained on"
                )
