"""What the stages of a run open alike: device, sandbox, the processes that train together."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from psgpo.config import Recipe
from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.parallel.launch import launched
from psgpo.parallel.team import Team, current_team
from psgpo.runs.directory import RunDirectory


def open_sandbox(run: RunDirectory, *, timeout: float | None = None) -> Sandbox:
    """The sandbox with the recipe's limits, or another one of time, and the run's cache of verdicts."""
    settings = run.recipe.sandbox
    return Sandbox(
        timeout=timeout or settings.timeout_seconds,
        memory_mb=settings.memory_mb,
        cache=run.path / "verdicts.sqlite",
        allow_unconfined=settings.allow_unconfined,
    )


def chosen_device(recipe: Recipe) -> str:
    """The PyTorch device of a recipe; of several processes, each has a GPU of its own.

    Raises:
        UserError: it asks for CUDA where there is none, or for more GPUs than there are.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device = 'cuda', but PyTorch finds no CUDA device; set device = 'cpu' or 'auto'")
    if recipe.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    if not launched():
        return "cuda"
    place, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if place >= gpus:
        raise UserError(f"more than {place} processes for {gpus} GPUs; launch one for each, or set device = 'cpu'")
    return f"cuda:{place}"


def training_team(recipe: Recipe) -> Team:
    """The processes that train this recipe's networks, and whether each holds them whole."""
    team = current_team()
    return replace(team, sharded=team.size > 1 and recipe.parallel.strategy == "fsdp")
