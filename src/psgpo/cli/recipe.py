"""`psgpo recipe`: the recipes that come with psgpo, and what may stand in one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from psgpo.config.reference import reference as rendered
from psgpo.config.shipped import headline, shipped_recipe, shipped_recipes
from psgpo.errors import UserError

app = typer.Typer(help="The recipes that come with psgpo, and what may stand in one.", no_args_is_help=True)


@app.command(name="list")
def list_recipes() -> None:
    """The recipes that come with psgpo, each with its first line."""
    known = {name: headline(shipped_recipe(name)) for name in shipped_recipes()}
    width = max(map(len, known), default=0)
    sys.stdout.write("".join(f"{name:<{width}}  {said}\n" for name, said in known.items()))


@app.command()
def show(name: Annotated[str, typer.Argument(help="As `psgpo recipe list` names it.", show_default=False)]) -> None:
    """Print one of them."""
    sys.stdout.write(shipped_recipe(name))


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
