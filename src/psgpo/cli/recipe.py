"""`psgpo recipe`: what may stand in a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from psgpo.config.reference import reference as rendered

app = typer.Typer(help="What may stand in a recipe.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps the name of a single command."""


@app.command()
def reference(
    table: Annotated[str, typer.Argument(help="One table, as rl, prm or model.lora; default: all.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write this file instead of printing.")] = None,
) -> None:
    """Every key with its type, default and meaning, as Markdown (docs/recipes.md)."""
    page = rendered(table)
    if out is None:
        sys.stdout.write(page)
        return
    out.write_text(page, encoding="utf-8")
    sys.stdout.write(f"{out}\n")
