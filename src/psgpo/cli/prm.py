"""`psgpo prm`: train process reward models and measure them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from psgpo.cli.stages import Overrides, RecipeFile, run_only
from psgpo.errors import UserError
from psgpo.runs.progress import bars, drawn_on

if TYPE_CHECKING:
    from psgpo.prm.record import ScorerRecord

_BESIDE, _LINES = "To compare with", "Which lines"
_READING, _TRAINING, _SPLIT = "How it reads", "Training", "Problems kept from training"

app = typer.Typer(help="Process reward models: train and measure them.", no_args_is_help=True)


@app.command()
def stage(
    recipe: RecipeFile,
    name: Annotated[str, typer.Option(help="Name of a PRM of the recipe.")] = "sign",
    overrides: Overrides = None,
) -> None:
    """Stage of a run: train one PRM of a recipe on the run's labels and measure it."""
    run_only(recipe, overrides, [f"prm-{name}"])


@app.command()
def train(
    data: Annotated[
        list[Path],
        typer.Argument(help="labels.jsonl (psgpo labels, a run), programs.jsonl (psgpo mutate), or their folders."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for model/, metrics.jsonl and measure.json.", show_default=False)],
    kind: Annotated[str, typer.Option(help="causal, encoder or ngrams; see docs/prm.md.")] = "causal",
    scope: Annotated[str, typer.Option(help="line: a PRM. program: an ORM.")] = "line",
    init: Annotated[
        Path | None, typer.Option(help="Folder of the model to start from: the policy, or an encoder.")
    ] = None,
    problems: Annotated[Path | None, typer.Option(help="Problems of a label file; default: beside it.")] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="chat, or the input with {prompt} in it; default: as responses were sampled, else it and a newline.",
            rich_help_panel=_READING,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="encoder: problem and prefix together; default: its context.", rich_help_panel=_READING
        ),
    ] = None,
    max_prompt_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longer problems lose their end; encoder: where the prefix needs the room.",
            rich_help_panel=_READING,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="At most.", rich_help_panel=_TRAINING)] = 10,
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after so many epochs without a gain; 0: never.", rich_help_panel=_TRAINING)
    ] = 3,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Programs, or prefixes; default: 16, ngrams 32.", rich_help_panel=_TRAINING),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Default: 2e-5, ngrams 0.02.", rich_help_panel=_TRAINING)
    ] = None,
    class_weights: Annotated[
        str, typer.Option(help="none, or balanced: both classes weigh the same.", rich_help_panel=_TRAINING)
    ] = "none",
    label_smoothing: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Share of a label that is a fair coin.", rich_help_panel=_TRAINING)
    ] = 0.0,
    microbatch_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="causal: padded tokens held at once; bounds memory, same result.", rich_help_panel=_TRAINING
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(min=1, help="causal: keep so many of the model's first layers.", rich_help_panel=_TRAINING),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="causal: float32, or bfloat16 products.", rich_help_panel=_TRAINING)
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option(help="causal: compute activations again.", rich_help_panel=_TRAINING)
    ] = False,
    lora_rank: Annotated[
        int | None,
        typer.Option(min=1, help="causal: learn adapters of this rank; alpha is twice it.", rich_help_panel=_TRAINING),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of head, order and dropout.", rich_help_panel=_TRAINING)] = 0,
    calibration: Annotated[
        str, typer.Option(help="temperature, isotonic or none.", rich_help_panel=_SPLIT)
    ] = "temperature",
    holdout: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share that only measures.", rich_help_panel=_SPLIT)
    ] = 0.2,
    choosing: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.9, help="Share that chooses the epoch and fits the calibration.", rich_help_panel=_SPLIT
        ),
    ] = 0.1,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Train a PRM or ORM on label files, calibrate it and measure it on held-out problems.

    The same command again goes on after the last epoch. `psgpo prm eval --held-out` with the same share measures more.
    """
    from psgpo.job import only_process
    from psgpo.prm.build import PrmJob, build_prm
    from psgpo.prm.texts import data_file, recognised
    from psgpo.prm.train_options import check_shares, chosen_compute, chosen_record, chosen_settings

    record = chosen_record(kind, scope, init, template, max_tokens, max_prompt_tokens, calibration, device)
    settings = chosen_settings(
        kind,
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        learning_rate=learning_rate,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        microbatch_tokens=microbatch_tokens,
        layers=layers,
    )
    compute = chosen_compute(kind, dtype=dtype, gradient_checkpointing=gradient_checkpointing, lora_rank=lora_rank)
    check_shares(holdout, choosing)
    labels = [path for path in map(data_file, data) if recognised(path) == "labels"]
    prompts = _prompts_of_all(labels, problems)
    if problems is not None and not labels:
        raise UserError(f"--problems {problems}: programs.jsonl brings its problems along; leave it out")
    if labels and kind == "causal" and template is None:
        record = _as_sampled(record, labels, prompts, init)
    job = PrmJob(
        data=tuple(data),
        out=out,
        record=record,
        settings=settings,
        init=init,
        holdout=holdout,
        choosing=choosing,
        calibration=None if calibration == "none" else calibration,
        prompts=prompts,
        seed=seed,
        device=device,
        compute=compute,
    )
    with only_process(out), bars() as display:
        found = build_prm(job, drawn_on(display))
    lines, error = found["lines"], found["calibration"]
    fitted = "" if error["fitted"] is None else f", {error['fitted']['ece']:.3f} with {calibration}"
    what = "labelled prefixes" if scope == "line" else "programs"
    sys.stdout.write(
        f"trained on {found['examples']['train']} {what}, {found['examples']['choose']} chose the epoch\n"
        f"held out    {found['problems']} problems, {lines['lines']} {what}, each text once\n"
        f"accuracy    {lines['accuracy']:.3f}, majority {lines['majority']:.3f}; of good {lines['accuracy_good']:.3f}, "
        f"of bad {lines['accuracy_bad']:.3f}\n"
        f"AUROC       {lines['auroc']:.3f}\n"
        f"ECE         {error['raw']['ece']:.3f}{fitted}\n"
        f"{out / 'model'}\n{out / 'metrics.jsonl'}\n{out / 'measure.json'}\n"
    )


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
    from psgpo.job import only_process
    from psgpo.prm.data import load_exact
    from psgpo.prm.evaluation.programs import load_eval_programs
    from psgpo.prm.evaluation.readers import PolicyReader, PrmReader, Reader
    from psgpo.prm.evaluation.render import render
    from psgpo.prm.evaluation.run import run_evaluation
    from psgpo.prm.texts import data_file
    from psgpo.report.prm_figures import write_prm_figures

    programs = load_eval_programs(
        data,
        prompts=lambda: _prompts(data_file(data), problems),
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


def _as_sampled(record: ScorerRecord, labels: list[Path], prompts: dict[str, str], init: Path | None) -> ScorerRecord:
    """The record with the layout that the labelled responses were sampled with."""
    from psgpo.models import load_tokenizer
    from psgpo.prm.layout import sampled_template

    assert init is not None
    return replace(record, prompt_template=sampled_template(labels, prompts, load_tokenizer(init)))


def _prompts_of_all(files: list[Path], problems: Path | None) -> dict[str, str]:
    """Problem id to prompt, for several label files together."""
    prompts: dict[str, str] = {}
    for file in files:
        for problem, text in _prompts(file, problems).items():
            if prompts.setdefault(problem, text) != text:
                raise UserError(
                    f"{file}: problem {problem} has another prompt in a file named before it; train on one of them, "
                    "or give the problems ids of their own"
                )
    return prompts


def _prompts(data: Path, problems: Path | None) -> dict[str, str]:
    """Problem id to prompt, for a label file: of the file that was named, or of the one beside the labels."""
    from psgpo.exchange.steps import problems_beside
    from psgpo.problems import load_problems_jsonl

    return {problem.id: problem.prompt for problem in load_problems_jsonl(problems or problems_beside(data))}
