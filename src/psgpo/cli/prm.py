"""`psgpo prm`: train process reward models and measure them."""

from __future__ import annotations

from typing import Annotated

import typer

from psgpo.cli.stages import Overrides, RecipeFile, run_only

app = typer.Typer(help="Process reward models: train and measure them.", no_args_is_help=True)


@app.command()
def stage(
    recipe: RecipeFile,
    name: Annotated[str, typer.Option(help="Name of a PRM of the recipe.")] = "sign",
    overrides: Overrides = None,
) -> None:
    """Stage of a run: train one PRM of a recipe on the run's labels and measure it."""
    run_only(recipe, overrides, [f"prm-{name}"])


@app.callback()
def _group() -> None:
    """Keep `stage` a command of its own while it is the only one."""
