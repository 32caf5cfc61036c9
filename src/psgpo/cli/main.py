"""`psgpo`: every command, thin. Exit codes: 0 done, 1 something broke, 2 the input is wrong, 130 interrupted."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from psgpo import __version__
from psgpo.cli import firsterror, labels, prm, recipe, rerank, verl
from psgpo.cli.eval import evaluate_samples
from psgpo.cli.inspect_page import inspect
from psgpo.cli.mutate import mutate
from psgpo.cli.plan import plan
from psgpo.cli.stages import Overrides, RecipeFile, load_run_recipe, open_run, run_only
from psgpo.config import load_recipe
from psgpo.errors import UserError, reported
from psgpo.execution import SandboxError
from psgpo.parallel.launch import ended_together, launched, speaks
from psgpo.runs.directory import RunDirectory
from psgpo.runs.orchestrate import StageError, run_stages
from psgpo.runs.progress import StageProgress, bars
from psgpo.runs.stages import run_stage, stage_graph

app = typer.Typer(
    help="Reinforcement learning for code generation with line-level process rewards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


LABEL_STAGES = ("responses", "labels", "twins", "mutants")
"""How the names of what `psgpo label` runs begin."""
TOGETHER = ("run", "sft", "rl", "label", "evaluate")
"""Commands for the processes of a launcher."""


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    until: Annotated[list[str] | None, typer.Option(help="Only this stage and what it needs. Repeatable.")] = None,
    reuse: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of another run: take over its stages that would be the same here. Repeatable."),
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Check everything, list the stages, write nothing.")] = False,
) -> None:
    """Run a recipe: every stage that is not done yet. Running it again goes on where it stopped."""
    if dry:
        from psgpo.runs.dry import dry_run

        said = dry_run(load_run_recipe(recipe, overrides), reuse or (), until)
        sys.stdout.write(said if speaks() else "")
        return
    directory = open_run(recipe, overrides, until, reuse or ())
    run_stages(directory, until)
    if directory.stage_done("report") and speaks():
        _say(f"report: {directory.path / 'report' / 'index.html'}")


@app.command()
def sft(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Stage: make the problems and the SFT policy."""
    run_only(recipe, overrides, ["problems", "sft"])


@app.command()
def rl(
    recipe: RecipeFile,
    arm: Annotated[str, typer.Option(help="Name of an arm of the recipe.")] = "baseline",
    overrides: Overrides = None,
) -> None:
    """Stage: train one arm with PPO."""
    run_only(recipe, overrides, [f"rl-{arm}"])


@app.command()
def label(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Stage: sample responses of the baseline's checkpoints (or `labels.of`'s), label their lines; or make mutants.

    With PRMs that learn from twins, these too.
    """
    loaded = load_recipe(recipe, overrides)
    names = [name for name in stage_graph(loaded) if name.split("-")[0] in LABEL_STAGES]
    if not names:
        raise UserError(f"{recipe}: no [prm.<name>] in this recipe, so nothing needs labels; add one")
    run_only(recipe, overrides, names)


@app.command()
def evaluate(
    recipe: RecipeFile,
    policy: Annotated[str, typer.Option(help="`sft` or an arm.")] = "sft",
    overrides: Overrides = None,
) -> None:
    """Stage: pass@k of one policy on the test problems."""
    run_only(recipe, overrides, [f"evaluate-{policy}"])


app.command(name="eval")(evaluate_samples)
app.command()(inspect)
app.command()(mutate)
app.command()(plan)
app.add_typer(firsterror.app, name="firsterror")
app.add_typer(labels.app, name="labels")
app.add_typer(prm.app, name="prm")
app.add_typer(recipe.app, name="recipe")
app.add_typer(rerank.app, name="rerank")
app.add_typer(verl.app, name="verl")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories: seeds of one recipe, or other recipes too.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the page; of one run by default its report/.")] = None,
) -> None:
    """Write the HTML report of one run, or of several: seeds averaged, other settings side by side."""
    from psgpo.report.build import build_report

    _say(f"report: {build_report(runs, out)}")


@app.command()
def problems(
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    operations: Annotated[str, typer.Option(help="Fewest-most operations, e.g. 6-9.")] = "1-8",
    seed: Annotated[int, typer.Option(help="Seed of the benchmark.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Export to this JSON Lines file instead of printing.")] = None,
) -> None:
    """Print or export problems of the embedded benchmark."""
    from psgpo.problems import save_problems_jsonl
    from psgpo.problems.opchain import OpChain, OpChainSettings

    low, dash, high = operations.partition("-")
    if not low.isdigit() or (dash and not high.isdigit()):
        raise UserError(f"--operations {operations!r}: write fewest-most, e.g. 6-9")
    made = OpChain(OpChainSettings(seed=seed)).problems(split, count, (int(low), int(high or low)))
    if out is not None:
        _say(f"{save_problems_jsonl(out, made)} problems: {out}")
        return
    for problem in made:
        tests = "\n".join(f"  solve({', '.join(map(repr, c.args))}) == {c.expected!r}" for c in problem.tests.calls)
        sys.stdout.write(f"{problem.id}\n{problem.prompt}\n\n{problem.reference_solution}\n{tests}\n\n")


@app.command()
def doctor() -> None:
    """Say what confines untrusted programs on this machine, and what is missing."""
    from psgpo.execution import doctor as checks

    sys.stdout.write(checks.render(checks.report()) + "\n")


@app.command(hidden=True)
def stage(name: str, directory: Path) -> None:
    """One stage of an existing run, in this process."""
    opened = RunDirectory.open(directory)
    with bars() as display:
        run_stage(opened, name, StageProgress(opened.path, name, draw=display))


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"psgpo {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    if launched() and context.invoked_subcommand not in TOGETHER:
        raise UserError(
            f"psgpo {context.invoked_subcommand} is the work of one process; start it without a launcher. "
            f"Those for several are: {', '.join(TOGETHER)}"
        )


def _say(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(message)


def main() -> None:
    """Entry point of the `psgpo` command."""
    if launched():
        with ended_together():
            _command()
        return
    # A polite kill ends the stages too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with reported():
        _command()


def _command() -> None:
    try:
        app()
    except (StageError, SandboxError) as error:
        sys.exit(f"psgpo: {error}")
    except SystemExit as ending:
        if ending.code != 130:
            raise
        raise KeyboardInterrupt from None  # typer ends a Ctrl-C without a word


if __name__ == "__main__":
    main()
