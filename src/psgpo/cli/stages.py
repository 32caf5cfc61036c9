"""What the commands for single stages of a run share."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from psgpo.config import Recipe, load_recipe
from psgpo.errors import UserError
from psgpo.parallel.launch import launched
from psgpo.runs.directory import RunDirectory
from psgpo.runs.orchestrate import run_stages
from psgpo.runs.reuse import refuse_no_runs, take_over
from psgpo.runs.stages import refuse_unknown, stage_graph

RecipeFile = Annotated[Path, typer.Argument(help="A recipe (TOML), or a run's recipe.json.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override a key: rl.steps=40. Repeatable.")]


def load_run_recipe(recipe: Path, overrides: list[str] | None) -> Recipe:
    """A recipe that is going to be run.

    Raises:
        UserError: it is the recipe.json of a run that was moved or copied, and still names the old folder.
    """
    loaded = load_recipe(recipe, overrides)
    here = recipe.parent
    chosen = any(override.partition("=")[0].strip() == "out" for override in overrides or ())
    of_run = recipe.name == "recipe.json" and (here / "stages").is_dir()
    if of_run and not chosen and loaded.out.resolve() != here.resolve():
        raise UserError(
            f"{recipe}: its out is {loaded.out}, not the folder it lies in; to go on with the run here: "
            f"--set {shlex.quote(f'out={here.resolve()}')}; with the other: --set {shlex.quote(f'out={loaded.out}')}"
        )
    return loaded


def open_run(
    recipe: Path, overrides: list[str] | None, names: list[str] | None = None, reuse: Sequence[Path] = ()
) -> RunDirectory:
    """The run of a recipe, made when it is not there; of several processes the main one makes it.

    Args:
        names: stages that are going to be run. A name that is none's is refused before a folder is bound to the recipe.
        reuse: other runs, whose stages are taken over where they would be the same.
    """

    def create() -> RunDirectory:
        loaded = load_run_recipe(recipe, overrides)
        refuse_unknown(stage_graph(loaded), names or ())
        refuse_no_runs(loaded.out, reuse)
        made = RunDirectory.create(loaded)
        if reuse:
            take_over(made, reuse, names)
        return made

    if not launched():
        return create()
    from psgpo.parallel.team import current_team  # loads torch

    return current_team().on_main(create)


def run_only(recipe: Path, overrides: list[str] | None, names: list[str]) -> None:
    """Run the named stages; those they need must be done."""
    directory = open_run(recipe, overrides, names)
    graph = stage_graph(directory.recipe)
    for name in names:
        missing = [need for need in graph[name].needs if need not in names and not directory.stage_done(need)]
        if missing:
            raise UserError(f"{name} needs {', '.join(missing)} first; run: psgpo run {recipe} --until {name}")
    run_stages(directory, names)
