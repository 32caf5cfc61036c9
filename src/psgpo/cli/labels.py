"""`psgpo labels`: make line labels for any model and problem set, choose among them, write them as a dataset."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from psgpo.cli.eval import (
    Cache,
    Data,
    Device,
    Difficulty,
    Limit,
    Memory,
    Package,
    Platform,
    Require,
    Since,
    Split,
    Unconfined,
    Until,
)
from psgpo.cli.tasks import OPCHAIN, Operations, Problems, limits_of_tasks, load_tasks
from psgpo.errors import UserError
from psgpo.runs.progress import bars

app = typer.Typer(help="Line labels: make them, select among them, export them.", no_args_is_help=True)

_MODEL, _DRAW, _SEARCH, _LIMITS = "Model", "Drawing", "Search", "Limits of one program"

Out = Annotated[Path, typer.Option(help="Folder for everything that is written.", show_default=False)]
Model = Annotated[
    list[str],
    typer.Option(
        help="hf:FOLDER, vllm:FOLDER or openai:URL#MODEL. Repeatable as NAME=SPEC, in training order.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
TokenizerFolder = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="Folder of the tokenizer; a server needs one.", rich_help_panel=_MODEL),
]
RequestTimeout = Annotated[
    float | None, typer.Option(help="openai: seconds without a byte of a reply.", rich_help_panel=_MODEL)
]
Tries = Annotated[int | None, typer.Option(min=1, help="openai: requests before giving up.", rich_help_panel=_MODEL)]
KeyVariable = Annotated[
    str | None, typer.Option("--api-key-env", help="openai: environment variable with the key.", rich_help_panel=_MODEL)
]
LabelWorkers = Annotated[int, typer.Option("--workers", min=1, help="Processes that label; each opens the models.")]
RayAddress = Annotated[
    str | None, typer.Option("--ray", help="Label on this Ray cluster: local, auto, ray://HOST:10001. With --workers.")
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="completion, chat, or a template with {prompt}; default: completion, and for opchain '# {prompt}\\n'.",
        rich_help_panel=_DRAW,
    ),
]
Count = Annotated[int, typer.Option("--responses-per-problem", min=1, help="Per checkpoint.", rich_help_panel=_DRAW)]
Given = Annotated[
    Path | None,
    typer.Option("--responses", help="Label these (responses.jsonl) and sample none.", rich_help_panel=_DRAW),
]
Temperature = Annotated[float, typer.Option(help="Above 0.", rich_help_panel=_DRAW)]
TopP = Annotated[float, typer.Option(help="Nucleus.", rich_help_panel=_DRAW)]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest response, tokens.", rich_help_panel=_DRAW)]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences side by side.", rich_help_panel=_DRAW)]
Seed = Annotated[int, typer.Option(help="Of responses and completions.", rich_help_panel=_DRAW)]
Strategy = Annotated[str, typer.Option(help="How lines are judged, see docs/labels.md.", rich_help_panel=_SEARCH)]
K = Annotated[int, typer.Option("--k", min=1, help="Completions per probe, at most.", rich_help_panel=_SEARCH)]
Budget = Annotated[
    int, typer.Option(min=1, help="noisy, noisy-soft: completions for a response, at most.", rich_help_panel=_SEARCH)
]
Hunt = Annotated[
    int,
    typer.Option(
        min=0, help="splice: completions for a problem that nothing passes, at most.", rich_help_panel=_SEARCH
    ),
]
Crossover = Annotated[
    int,
    typer.Option(min=0, help="splice: joins of two failed programs judged for it, at most.", rich_help_panel=_SEARCH),
]
References = Annotated[
    bool,
    typer.Option("--references", help="splice: reference solutions are joined too.", rich_help_panel=_SEARCH),
]
Halving = Annotated[
    bool, typer.Option("--halving", help="splice: half as many joins, embedded benchmark.", rich_help_panel=_SEARCH)
]
Completer = Annotated[str, typer.Option(help="Who completes: own, last or mixture.", rich_help_panel=_SEARCH)]
Timeout = Annotated[float | None, typer.Option(help="Seconds for all tests; default: the benchmark's.")]
TestTimeout = Annotated[float | None, typer.Option(help="Seconds for one test; default: the benchmark's.")]


@app.command()
def make(
    model: Model,
    problems: Problems,
    out: Out,
    data: Data = None,
    tokenizer: TokenizerFolder = None,
    request_timeout: RequestTimeout = None,
    tries: Tries = None,
    api_key_env: KeyVariable = None,
    workers: LabelWorkers = 1,
    ray: RayAddress = None,
    responses: Given = None,
    responses_per_problem: Count = 1,
    strategy: Strategy = "binary-search",
    k: K = 20,
    budget: Budget = 14,
    hunt: Hunt = 8,
    crossover: Crossover = 400,
    references: References = False,
    halving: Halving = False,
    completer: Completer = "own",
    prompt: Prompt = None,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_new_tokens: MaxNewTokens = 512,
    batch_size: BatchSize = 256,
    seed: Seed = 0,
    device: Device = "cpu",
    split: Split = None,
    platform: Platform = None,
    difficulty: Difficulty = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    operations: Operations = "1-6",
    timeout: Timeout = None,
    test_timeout: TestTimeout = None,
    memory_mb: Memory = None,
    package: Package = None,
    cache: Cache = None,
    require: Require = None,
    allow_unconfined: Unconfined = False,
) -> None:
    """Sample responses of a model (or take them from a file) and label their lines.

    Writes responses.jsonl, labels.jsonl and summary.json. The same command again goes on where it stopped.
    """
    from psgpo.evaluation.benchmark import usable_cores
    from psgpo.exchange.make import MakeRequest, make_labels
    from psgpo.exchange.render import render_summary

    named = {"strategy": strategy, "k": k, "completer": completer, "responses_per_problem": responses_per_problem}
    named |= {"budget": budget, "hunt": hunt, "crossover": crossover, "references": references}
    named |= {"halving": halving}
    drawing = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens, "batch_size": batch_size}
    server = {"timeout": request_timeout, "tries": tries, "api_key_env": api_key_env}
    limits = limits_of_tasks(problems, timeout=timeout, test_timeout=test_timeout, memory_mb=memory_mb)
    confinement = {"allow_unconfined": allow_unconfined} | ({"require": require} if require else {})
    filters = {"split": split, "platform": platform, "difficulty": difficulty, "since": since, "until": until}
    filters |= {"limit": limit}  # type: ignore[dict-item]
    request = MakeRequest(
        out=out,
        checkpoints=_checkpoints(model),
        problems=load_tasks(problems, data, filters, operations, seed, confinement, usable_cores()),
        source=problems,
        form=prompt or ("# {prompt}\n" if problems == OPCHAIN else "completion"),
        settings=_settings("LabelSettings", named),
        sampling=_settings("SamplingSettings", drawing),
        limits=limits,
        packages=tuple(package or ()),
        responses=responses,
        tokenizer=tokenizer,
        server={key: value for key, value in server.items() if value is not None},
        workers=workers,
        ray=ray,
        seed=seed,
        device=device,
        cache=cache,
        confinement=confinement,
    )
    with bars() as display:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = display.add_task(what.capitalize(), total=total)
            display.update(tasks[what], completed=done, total=total)

        summary = make_labels(request, progress=progress)
    sys.stdout.write(render_summary(summary))
    sys.stdout.write("".join(f"{out / name}\n" for name in ("responses.jsonl", "labels.jsonl", "summary.json")))


def _checkpoints(models: list[str]) -> dict[str, str]:
    """Name to spec; one without a name is called `model`."""
    named: dict[str, str] = {}
    for text in models:
        name, equals, spec = text.partition("=")
        if not equals or set(name) & set(":/\\#"):
            name, spec = "model", text
        if name in named:
            raise UserError(f"--model {text}: the name {name!r} is taken; write NAME=SPEC with a name for each")
        named[name] = spec
    return named


def _settings(section: str, values: dict[str, Any]) -> Any:
    """A section of a recipe from options, with the option named where a value is refused."""
    from pydantic import ValidationError

    from psgpo import config

    kind = getattr(config, section)
    try:
        return kind(**values)
    except ValidationError as error:
        wrong = error.errors()[0]
        key = str(wrong["loc"][0])
        choices = get_args(kind.model_fields[key].annotation)
        allowed = f"choose one of {', '.join(map(str, choices))}" if choices else wrong["msg"]
        raise UserError(f"--{key.replace('_', '-')} {wrong['input']!r}: {allowed}") from None


LabelFile = Annotated[Path, typer.Argument(help="labels.jsonl of `labels make` or of a run.", show_default=False)]
Keep = Annotated[str, typer.Option(help="full, remove-hard, medium-only or revised-only.", show_default=False)]
Medium = Annotated[
    tuple[float, float], typer.Option(help="medium-only: pass rates of a problem strictly between these.")
]


@app.command()
def select(
    file: LabelFile,
    keep: Keep,
    out: Annotated[Path, typer.Option(help="File for the labels that are kept.", show_default=False)],
    medium: Medium = (0.0, 1.0),
) -> None:
    """Keep a part of a file of labels (PSGPO, Table 2), and print what every selection would keep."""
    from psgpo.exchange.render import render_counts
    from psgpo.jsonl import read_jsonl, write_jsonl
    from psgpo.labeling.select import SELECTIONS, count_labels, select_labels
    from psgpo.records import LineLabels

    if keep not in SELECTIONS:
        raise UserError(f"--keep {keep!r}: choose one of {', '.join(SELECTIONS)}")
    if not 0 <= medium[0] < medium[1] <= 1:
        raise UserError(f"--medium {medium[0]} {medium[1]}: give two pass rates, the lower first")
    labels = list(read_jsonl(file, LineLabels.from_json))
    kept = {name: select_labels(labels, name, medium=medium) for name in SELECTIONS}
    sys.stdout.write(render_counts({name: count_labels(chosen).to_json() for name, chosen in kept.items()}) + "\n")
    if not kept[keep]:
        raise UserError(f"{file}: --keep {keep} keeps nothing; label more responses per problem, or widen --medium")
    write_jsonl(out, (label.to_json() for label in kept[keep]))
    sys.stdout.write(f"{out}\n")


@app.command()
def export(
    file: Annotated[
        Path, typer.Argument(help="labels.jsonl, or programs.jsonl of `psgpo mutate`.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the dataset.", show_default=False)],
    labels: Annotated[
        str, typer.Option(help="bool: can be completed or not, for TRL's PRMTrainer. float: +1, -1, 0 or soft.")
    ] = "bool",
    unlabelled: Annotated[
        str,
        typer.Option(help="Lines without a claim: merge them into the next, or with float keep them as steps of 0."),
    ] = "merge",
    holdout: Annotated[float, typer.Option(help="Share of the problems in the test split; 0 for none.")] = 0.2,
    problems: Annotated[Path | None, typer.Option(help="Problems of the labels; default: beside the file.")] = None,
    name: Annotated[str, typer.Option(help="Title of the card.")] = "Line labels",
    license_name: Annotated[str, typer.Option("--license", help="License for the card.")] = "other",
) -> None:
    """Write labels as a dataset: TRL's prompt, completions, labels, with offsets, as JSON Lines and Parquet."""
    from psgpo.exchange.dataset import write_dataset
    from psgpo.exchange.steps import StepForm, read_rows_of

    form = StepForm(labels=labels, unlabelled=unlabelled)
    if not 0 <= holdout < 1:
        raise UserError(f"--holdout {holdout}: give a share from 0 to below 1")
    rows = read_rows_of(file, form, problems)
    sizes = write_dataset(
        rows, out, form, holdout=holdout, name=name, license_name=license_name, origin=_origin(file, rows)
    )
    for split, size in sizes.items():
        sys.stdout.write(f"{split:<6}" + ", ".join(f"{count:,} {what}" for what, count in size.items()) + "\n")
    sys.stdout.write(f"{out / 'README.md'}\n")


def _origin(file: Path, rows: list[dict[str, Any]]) -> str:
    """Provenance for the card: strategies and policies found in the rows."""
    sources = ", ".join(f"`{source}`" for source in sorted({row["source"] for row in rows}))
    checkpoints = ", ".join(f"`{name}`" for name in sorted({row["checkpoint"] for row in rows} - {""}))
    policies = f" Responses of {checkpoints}." if checkpoints else ""
    return f"From `{file.name}`; labels by {sources}.{policies}"
