"""`psgpo recipe`: what may stand in a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from psgpo.config.reference import reference as rendered
from psgpo.errors import UserError

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
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); give another file") from None
    sys.stdout.write(f"{out}\n")
