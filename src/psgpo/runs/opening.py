"""What the stages of a run open alike: device, sandbox, the processes that train together."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from psgpo.config import Recipe
from psgpo.errors import UserError
from psgpo.evaluation.benchmark import usable_cores
from psgpo.execution import Sandbox
from psgpo.parallel.launch import launched
from psgpo.parallel.team import Team, current_team
from psgpo.runs.directory import RunDirectory


def open_sandbox(run: RunDirectory, *, timeout: float | None = None) -> Sandbox:
    """The sandbox with the recipe's limits, or another one of time, and the run's cache of verdicts."""
    limits = run.recipe.sandbox.limits()
    if timeout is not None:
        limits["timeout"] = timeout
    return Sandbox(workers=sandbox_workers(run.recipe), cache=run.path / "verdicts.sqlite", **limits)


def sandbox_workers(recipe: Recipe) -> int:
    """How many programs one sandbox of this process runs at once: the recipe's number, or its share of the cores.

    Under a launcher every process opens its own, else every stage that runs beside others.
    """
    if recipe.sandbox.workers is not None:
        return recipe.sandbox.workers
    beside = int(os.environ["WORLD_SIZE"]) if launched() else recipe.processes
    return max(1, usable_cores() // beside)


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
