"""`psgpo inspect`: responses line by line, on one page."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def inspect(
    source: Annotated[
        Path,
        typer.Argument(
            help="A run directory, labels of psgpo labels (folder or file), or a file of samples.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.", show_default=False)],
    prm: Annotated[
        list[str] | None, typer.Option(help="A PRM: name in the run, or its folder. Repeatable; default: the run's.")
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="An arm whose rewards are shown. Repeatable; default: all that differ from the baseline."),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Show the evaluation samples of sft or an arm too. Repeatable.")
    ] = None,
    problem: Annotated[list[str] | None, typer.Option(help="Only the problem of this id. Repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Labelled responses (and evaluation samples), at most.")] = 200,
    problems: Annotated[
        Path | None, typer.Option(help="Problems of a file; default: beside it.", show_default=False)
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the responses' tokenizer, for a file.", show_default=False)
    ] = None,
    stored: Annotated[bool, typer.Option("--stored", help="Open no model, run no program: only the files.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Look at responses line by line: PRM scores, labels, probes, rewards, values, tests. Writes one HTML file."""
    from psgpo.inspect_page.build import build_page

    page = build_page(
        source,
        out,
        prms=prm or (),
        arms=arm or (),
        policies=policy or (),
        problem_ids=problem or (),
        problems=problems,
        tokenizer=tokenizer,
        limit=limit,
        stored=stored,
        device=device,
        command=shlex.join(["psgpo", *sys.argv[1:]]),
    )
    sys.stdout.write(
        f"{len(page.responses)} responses to {len(page.problems)} problems, PRMs: "
        f"{', '.join(view.name for view in page.prms) or 'none'}\n{out}\n"
    )
