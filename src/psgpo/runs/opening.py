"""What the stages of a run open alike: device and sandbox."""

from __future__ import annotations

import torch

from psgpo.config import Recipe
from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.runs.directory import RunDirectory


def open_sandbox(run: RunDirectory) -> Sandbox:
    """The sandbox with the recipe's limits and the run's cache of verdicts."""
    settings = run.recipe.sandbox
    return Sandbox(
        timeout=settings.timeout_seconds,
        memory_mb=settings.memory_mb,
        cache=run.path / "verdicts.sqlite",
        allow_unconfined=settings.allow_unconfined,
    )


def chosen_device(recipe: Recipe) -> str:
    """The PyTorch device of a recipe.

    Raises:
        UserError: it asks for CUDA where there is none.
    """
    if recipe.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device = 'cuda', but PyTorch finds no CUDA device; set device = 'cpu' or 'auto'")
    return recipe.device
