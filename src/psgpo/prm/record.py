"""`psgpo_prm.json`: what a PRM folder needs beside weights and tokenizer to score text. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from psgpo.errors import UserError
from psgpo.jsonl import write_json
from psgpo.prompts import slot_fault

FILE = "psgpo_prm.json"
VERSION = 1
Kind = Literal["causal", "encoder", "ngrams"]
Scope = Literal["line", "program"]
Target = Literal["sign", "progress", "soft", "correct"]


@dataclass(frozen=True, kw_only=True)
class ScorerRecord:
    """How a folder is read."""

    kind: Kind
    """causal: one pass over prompt and program, read where lines end. encoder: one pass for every prefix.
    ngrams: a linear model on text."""
    scope: Scope
    """program: an outcome reward model (ORM)."""
    target: Target
    """sign: near +1 or -1. progress: share of the program done and right. soft: share of completions that
    pass. correct: the logit of "right"."""
    prompt_template: str
    """With `{prompt}` where the problem's text goes."""
    threshold: float
    """A line that scores below it is called wrong."""
    max_prompt_tokens: int | None = None
    """Longer prompts lose their end; None keeps all."""
    max_tokens: int | None = None
    """Of an encoder: problem and prefix together."""
    calibration: dict[str, Any] | None = None
    """Score to P(good), see `psgpo.prm.calibrate`; None where nothing was fitted."""

    def save(self, folder: Path | str) -> None:
        write_json(Path(folder) / FILE, {"version": VERSION} | asdict(self))

    def calibrated(self, calibration: dict[str, Any] | None, threshold: float) -> ScorerRecord:
        """The same with another calibration and threshold."""
        return replace(self, calibration=calibration, threshold=threshold)

    def reading(self, max_tokens: int | None) -> ScorerRecord:
        """The same, reading so many tokens."""
        return replace(self, max_tokens=max_tokens)

    @classmethod
    def load(cls, folder: Path | str) -> ScorerRecord:
        """Read the file of a model folder.

        Raises:
            UserError: no folder, no file, or one of another version or form.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise UserError(
                f"{folder}: no {FILE} in it, so it is no PRM folder of psgpo; give the model folder that "
                "psgpo prm train or a run's PRM stage wrote"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values.pop("version")
            if version != VERSION:
                raise UserError(f"{path}: version {version!r}; this psgpo reads version {VERSION}; train the PRM again")
            record = cls(**values)
        except UserError:
            raise  # a ValueError too, but one that says what is wrong
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}: not readable ({error}); train the PRM again") from None
        for name, allowed in (("kind", Kind), ("scope", Scope), ("target", Target)):
            if getattr(record, name) not in get_args(allowed):
                raise UserError(f"{path}: {name} {getattr(record, name)!r}; allowed: {', '.join(get_args(allowed))}")
        if fault := slot_fault(record.prompt_template):
            raise UserError(f"{path}: prompt_template {fault}")
        return record


def needs_orm(record: ScorerRecord, name: str) -> None:
    """Refuse to score whole programs with a model that scores lines.

    Raises:
        UserError: the scope is not `program`.
    """
    if record.scope != "program":
        raise UserError(
            f"{name}: scores lines, not whole programs; combine score_lines (least, mean, last), or train an ORM with "
            "psgpo prm train --scope program"
        )
