"""A policy out of a verl checkpoint, as a model folder that every command of psgpo reads."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from psgpo.errors import UserError
from psgpo.models import load_policy

_STEP = "global_step_"
_LATEST = "latest_checkpointed_iteration.txt"
"""In the folder of all steps: the number of the latest one, which verl writes when all of that step is saved."""


def import_checkpoint(checkpoint: Path, out: Path) -> None:
    """Copy or merge the actor of a checkpoint into `out`, once it has been loaded; nothing is left there otherwise.

    Args:
        checkpoint: `global_step_N`, its `actor` folder, or the folder of all steps (the latest that verl calls saved
            is taken).

    Raises:
        UserError: no checkpoint there, its shards need verl to be merged, or the result is no causal LM.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give a new folder")
    actor = _actor(checkpoint)
    whole = actor / "huggingface"
    is_whole = any(whole.glob("*.safetensors"))
    if not is_whole and not any(actor.glob("model_world_size_*_rank_*.pt")):
        raise UserError(f"{actor}: neither huggingface/*.safetensors nor model_world_size_*_rank_*.pt in it")
    if not is_whole:
        _refuse_without_verl(actor, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as beside:
        policy = Path(beside) / "policy"
        if is_whole:
            shutil.copytree(whole, policy)
        else:
            _merge(actor, policy)
        load_policy(policy)
        try:
            policy.replace(out)
        except OSError as error:  # an empty folder that is a link or a mount
            raise UserError(f"{out}: cannot be replaced ({error.strerror}); give a folder that is not there") from None


def _actor(checkpoint: Path) -> Path:
    if not checkpoint.is_dir():
        raise UserError(f"{checkpoint}: no such folder; give verl's checkpoint, DIR/checkpoints/global_step_N")
    if any(re.fullmatch(rf"{_STEP}\d+", path.name) for path in checkpoint.iterdir()):
        checkpoint = _latest(checkpoint)
    if (checkpoint / "actor").is_dir():
        checkpoint = checkpoint / "actor"
    if not (checkpoint / "huggingface").is_dir():
        raise UserError(f"{checkpoint}: no huggingface folder in it, so it is no actor of a verl checkpoint")
    return checkpoint


def _latest(steps: Path) -> Path:
    """A step that is newer than the one verl names may be half written."""
    file = steps / _LATEST
    try:
        named = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise UserError(
            f"{steps}: no {_LATEST} in it, so verl has not finished saving any step; wait for it, or give one step, "
            f"{steps}/{_STEP}N"
        ) from None
    if not named.isdecimal() or not (steps / f"{_STEP}{named}").is_dir():
        raise UserError(
            f"{file}: names step {named!r}, which is not here; copy its folder too, or give one step, {steps}/{_STEP}N"
        )
    return steps / f"{_STEP}{named}"


def _merger(actor: Path, out: Path) -> list[str]:
    """Python's arguments for verl's own merger: it alone knows how its shards fit together. It writes bfloat16."""
    command = ["-m", "verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(actor)]
    return [*command, "--target_dir", str(out)]


def _refuse_without_verl(actor: Path, out: Path) -> None:
    if importlib.util.find_spec("verl") is None:
        raise UserError(
            f"{actor}: holds shards only, and verl, which merges them, is not installed here; where it is, run: "
            f"python {' '.join(_merger(actor, out))}"
        )


def _merge(actor: Path, out: Path) -> None:
    done = subprocess.run([sys.executable, *_merger(actor, out)], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{actor}: verl could not merge the shards ({last[:300]})")
