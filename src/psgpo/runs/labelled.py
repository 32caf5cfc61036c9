"""Whose responses are labelled: those of the baseline's checkpoints, or of another run's arm (`labels.of`)."""

from __future__ import annotations

from pathlib import Path

from psgpo.config import Recipe
from psgpo.errors import UserError
from psgpo.runs.stages import BASELINE


def labelled_checkpoints(recipe: Recipe, run: Path) -> dict[str, Path]:
    """Checkpoints in training order, `<arm>/step-N` to folder.

    Args:
        run: the run directory, whose baseline they are where `labels.of` is absent.
    """
    folder = recipe.labels.of or run / "rl" / BASELINE
    return {f"{folder.resolve().name}/{one.name}": one for one in _in_order(folder)}


def labelled_count(recipe: Recipe) -> int:
    """How many checkpoints there are or, where that is not known yet, will be."""
    of = recipe.labels.of
    return (len(_in_order(of)) if of is not None else 0) or recipe.rl.checkpoints


def check_labelled(recipe: Recipe) -> list[Path]:
    """Look at the folder of `labels.of`; its checkpoints in training order, none without the key.

    Raises:
        UserError: it is missing, is no RL arm of a run, or its training has not ended.
    """
    of = recipe.labels.of
    if of is None:
        return []
    advice = "give the folder of an RL arm whose training has ended, runs/NAME/rl/ARM"
    if not of.is_dir():
        raise UserError(f"labels.of = '{of}': no such folder; {advice}")
    found = _in_order(of)
    if not found:
        raise UserError(f"labels.of = '{of}': no checkpoints/step-N in it; {advice}")
    if not (of / "model").is_dir():
        raise UserError(f"labels.of = '{of}': no model in it, so more checkpoints may follow; {advice}")
    return found


def refuse_other_policy(recipe: Recipe, policy: Path) -> None:
    """Refuse checkpoints whose responses would be other tokens than the run's own policy writes.

    Args:
        policy: folder of the SFT policy, or of the model that it is made from.

    Raises:
        UserError: see `check_labelled`; or the tokenizers differ.
    """
    from psgpo.labeling.identity import tokenizer_fingerprint
    from psgpo.models import load_tokenizer  # loads torch

    for checkpoint in check_labelled(recipe)[:1]:  # one training wrote them all
        if len({tokenizer_fingerprint(load_tokenizer(folder)) for folder in (checkpoint, policy)}) > 1:
            raise UserError(
                f"labels.of = '{recipe.labels.of}': its tokenizer is not that of this run's policy {policy}, so its "
                "labels would be of other tokens; give an arm whose run has the same model.path or, for a new model, "
                "the same seed, problems, sft and model"
            )


def _in_order(arm: Path) -> list[Path]:
    return sorted((arm / "checkpoints").glob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
