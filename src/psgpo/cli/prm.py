"""`psgpo prm`: train process reward models and measure them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from psgpo.cli.stages import Overrides, RecipeFile, run_only
from psgpo.runs.progress import bars, drawn_on

_BESIDE, _LINES = "To compare with", "Which lines"

app = typer.Typer(help="Process reward models: train and measure them.", no_args_is_help=True)


@app.command()
def stage(
    recipe: RecipeFile,
    name: Annotated[str, typer.Option(help="Name of a PRM of the recipe.")] = "sign",
    overrides: Overrides = None,
) -> None:
    """Stage of a run: train one PRM of a recipe on the run's labels and measure it."""
    run_only(recipe, overrides, [f"prm-{name}"])


@app.command(name="eval")
def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            help="labels.jsonl (a run, psgpo labels), programs.jsonl (psgpo mutate) or items.jsonl (psgpo firsterror).",
            show_default=False,
        ),
    ],
    prm: Annotated[Path, typer.Option(help="Folder of the PRM.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for summary.json, lines.jsonl and figures.", show_default=False)],
    orm: Annotated[Path | None, typer.Option(help="Folder of an ORM to compare with.", rich_help_panel=_BESIDE)] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Folder of a policy: its surprise as a baseline.", rich_help_panel=_BESIDE)
    ] = None,
    policy_template: Annotated[
        str | None, typer.Option(help="What the policy reads; default: the PRM's.", rich_help_panel=_BESIDE)
    ] = None,
    problems: Annotated[
        Path | None, typer.Option(help="Problems of a label file; default: beside it.", rich_help_panel=_LINES)
    ] = None,
    exact: Annotated[
        Path | None, typer.Option(help="exact.jsonl of a run: the oracle's labels instead.", rich_help_panel=_LINES)
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Only problems that a holdout of this keeps.", rich_help_panel=_LINES),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many programs.", rich_help_panel=_LINES)] = None,
    probes: Annotated[int, typer.Option(min=0, help="Programs that are changed in harmless ways.")] = 200,
    resamples: Annotated[int, typer.Option(min=0, help="Of problems, behind the intervals.")] = 300,
    seed: Annotated[int, typer.Option(help="Of samples and probes.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Measure a PRM on labelled lines, against trivial baselines, and under harmless changes of programs.

    The same command again goes on where it stopped.
    """
    from psgpo.evaluation.job import only_process
    from psgpo.prm.data import load_exact
    from psgpo.prm.evaluation.programs import load_eval_programs
    from psgpo.prm.evaluation.readers import PolicyReader, PrmReader, Reader
    from psgpo.prm.evaluation.render import render
    from psgpo.prm.evaluation.run import run_evaluation
    from psgpo.report.prm_figures import write_prm_figures

    programs = load_eval_programs(
        data,
        prompts=lambda: _prompts(data, problems),
        exact=None if exact is None else load_exact(exact),
        held_out=held_out,
        limit=limit,
        seed=seed,
    )
    tested = PrmReader(prm, "prm", device=device)
    others: list[Reader] = [] if orm is None else [PrmReader(orm, "orm", device=device)]
    if policy is not None:
        others.append(PolicyReader(policy, policy_template or tested.template, device=device))
    with only_process(out), bars() as display:
        summary = run_evaluation(
            programs,
            tested,
            others,
            out,
            probes=probes,
            resamples=resamples,
            seed=seed,
            progress=drawn_on(display),
        )
    sys.stdout.write(render(summary))
    written = [out / "summary.json", out / "lines.jsonl", *write_prm_figures(summary, out)]
    sys.stdout.write("".join(f"{path}\n" for path in written))


def _prompts(data: Path, problems: Path | None) -> dict[str, str]:
    """Problem id to prompt, for a label file: of the file that was named, or of the one beside the labels."""
    from psgpo.exchange.steps import problems_beside
    from psgpo.problems import load_problems_jsonl

    return {problem.id: problem.prompt for problem in load_problems_jsonl(problems or problems_beside(data))}
