"""`psgpo plan`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from psgpo.cli.stages import Overrides, RecipeFile
from psgpo.config import load_recipe


def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    device: Annotated[str, typer.Option(help="a100-80g, h100-80g, rtx4090, cpu, ...")] = "a100-80g",
    memory: Annotated[float | None, typer.Option(min=1, help="GiB of the device, where it is another.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Of a mean prompt.")] = 300,
    longest_prompt: Annotated[int | None, typer.Option(min=1, help="Tokens; default: twice the mean.")] = None,
    response_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of a mean response; default: half of sampling.max_new_tokens.")
    ] = None,
    line_tokens: Annotated[int, typer.Option(min=1, help="Of a mean line.")] = 10,
    pass_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of responses that pass.")] = 0.3,
) -> None:
    """Say what a recipe will cost before it runs: memory by stage, tokens, programs, hours. Needs config.json alone."""
    loaded = load_recipe(recipe, overrides)
    from psgpo.runs.plan import Wanted, make_plan, render  # loads torch

    wanted = Wanted(
        device=device,
        memory_gb=memory,
        prompt_tokens=prompt_tokens,
        longest_prompt=longest_prompt,
        response_tokens=response_tokens,
        line_tokens=line_tokens,
        pass_rate=pass_rate,
    )
    sys.stdout.write(render(make_plan(loaded, wanted)))
