"""A policy out of a verl checkpoint, as a model folder that every command of psgpo reads."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

from psgpo.errors import UserError
from psgpo.models import load_policy

_STEP = "global_step_"


def import_checkpoint(checkpoint: Path, out: Path) -> None:
    """Copy or merge the actor of a checkpoint into `out`, and load it once.

    Args:
        checkpoint: `global_step_N`, its `actor` folder, or the folder of all steps (the latest is taken).

    Raises:
        UserError: no checkpoint there, its shards need verl to be merged, or the result is no causal LM.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give a new folder")
    actor = _actor(checkpoint)
    whole = actor / "huggingface"
    if any(whole.glob("*.safetensors")):
        shutil.copytree(whole, out, dirs_exist_ok=True)
    elif any(actor.glob("model_world_size_*_rank_*.pt")):
        _merge(actor, out)
    else:
        raise UserError(f"{actor}: neither huggingface/*.safetensors nor model_world_size_*_rank_*.pt in it")
    load_policy(out)


def _actor(checkpoint: Path) -> Path:
    if not checkpoint.is_dir():
        raise UserError(f"{checkpoint}: no such folder; give verl's checkpoint, DIR/checkpoints/global_step_N")
    steps = [path for path in checkpoint.iterdir() if re.fullmatch(rf"{_STEP}\d+", path.name)]
    if steps:
        checkpoint = max(steps, key=lambda path: int(path.name.removeprefix(_STEP)))
    if (checkpoint / "actor").is_dir():
        checkpoint = checkpoint / "actor"
    if not (checkpoint / "huggingface").is_dir():
        raise UserError(f"{checkpoint}: no huggingface folder in it, so it is no actor of a verl checkpoint")
    return checkpoint


def _merge(actor: Path, out: Path) -> None:
    """verl's own merger: it alone knows how its shards fit together. It writes bfloat16."""
    command = ["-m", "verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(actor)]
    command += ["--target_dir", str(out)]
    if importlib.util.find_spec("verl") is None:
        raise UserError(
            f"{actor}: holds shards only, and verl, which merges them, is not installed here; where it is, run: "
            f"python {' '.join(command)}"
        )
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{actor}: verl could not merge the shards ({last[:300]})")
