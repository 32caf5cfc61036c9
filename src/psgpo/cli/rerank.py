"""`psgpo rerank`: choose among responses, or search for better ones with a PRM."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from psgpo.cli.eval import Data, Difficulty, Limit, Platform, Since, Split, Until
from psgpo.cli.tasks import Operations, Problems, limits_of_tasks, load_tasks
from psgpo.runs.progress import bars, drawn_on

app = typer.Typer(help="Best-of-N and guided search: what a PRM is worth without training.", no_args_is_help=True)

_PROGRAMS = "Programs"
OF_FILES = {"timeout": 2.0, "memory_mb": 256}
"""Usual limits of a program where the problems are a file."""
Out = Annotated[Path, typer.Option(help="Folder for summary.json, curves.csv and figures.", show_default=False)]
Orm = Annotated[list[str] | None, typer.Option(help="FOLDER or NAME=FOLDER of an ORM. Repeatable.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Of all that is random.")]
Resamples = Annotated[int, typer.Option(min=1, help="Of problems, behind the intervals.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, ...")]
Timeout = Annotated[
    float | None,
    typer.Option(help="Wall seconds for all inputs of a program; default: the benchmark's.", rich_help_panel=_PROGRAMS),
]
Memory = Annotated[
    int | None,
    typer.Option(help="Address space of a program, MiB; default: the benchmark's.", rich_help_panel=_PROGRAMS),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Side by side; default: one per core.", rich_help_panel=_PROGRAMS)
]


@app.command()
def samples(
    samples: Annotated[
        Path,
        typer.Argument(help="samples.jsonl of an evaluation, or folder of psgpo eval --model.", show_default=False),
    ],
    problems: Problems,
    out: Out,
    data: Data = None,
    prm: Annotated[
        list[str] | None, typer.Option(help="FOLDER or NAME=FOLDER of a PRM. Repeatable.", show_default=False)
    ] = None,
    orm: Orm = None,
    policy: Annotated[
        Path | None, typer.Option(help="Folder of the policy that wrote them: adds its likelihood.", show_default=False)
    ] = None,
    split: Split = None,
    platform: Platform = None,
    difficulty: Difficulty = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    operations: Operations = "1-6",
    majority: Annotated[bool, typer.Option(help="Let equal outputs on the tests' inputs vote.")] = True,
    timeout: Timeout = None,
    memory_mb: Memory = None,
    workers: Workers = None,
    resamples: Resamples = 2000,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Choose among responses that were sampled and judged: best of n, exactly, for every n. Nothing is sampled.

    The same command again goes on where it stopped; models may be added.
    """
    from psgpo.evaluation.benchmark import usable_cores
    from psgpo.job import only_process
    from psgpo.report.rerank_figures import write_rerank_figures
    from psgpo.rerank.render import render_samples
    from psgpo.rerank.run import RerankRequest, named_models, refuse_repeated_names, run_rerank

    prms, orms = named_models(prm or [], "--prm"), named_models(orm or [], "--orm")
    refuse_repeated_names(prms, orms)
    filters = {"split": split, "platform": platform, "difficulty": difficulty, "since": since, "until": until}
    given = filters | {"limit": limit}
    limits = limits_of_tasks(problems, of_files=OF_FILES, timeout=timeout, memory_mb=memory_mb)
    loaded = load_tasks(problems, data, given, operations, seed, {}, workers or usable_cores())
    request = RerankRequest(
        samples=samples,
        problems_file=Path(problems),
        problems={problem.id: problem for problem in loaded},
        out=out,
        prms=prms,
        orms=orms,
        policy=policy,
        majority=majority,
        timeout=limits.timeout,
        memory_mb=limits.memory_mb,
        workers=workers or usable_cores(),
        resamples=resamples,
        seed=seed,
        device=device,
    )
    with only_process(out), bars() as display:
        summary = run_rerank(request, progress=drawn_on(display))
    sys.stdout.write(render_samples(summary))
    written = [out / "summary.json", out / "curves.csv", *write_rerank_figures(summary, out)]
    sys.stdout.write("".join(f"{path}\n" for path in written))


@app.command()
def search(
    problems: Problems,
    out: Out,
    policy: Annotated[str, typer.Option(help="FOLDER or hf:FOLDER of a model.", show_default=False)],
    prm: Annotated[Path, typer.Option(help="Folder of a PRM.", show_default=False)],
    budget: Annotated[int, typer.Option(help="Sampled tokens for a problem, lost ones included.", show_default=False)],
    data: Data = None,
    orm: Orm = None,
    split: Split = None,
    platform: Platform = None,
    difficulty: Difficulty = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    operations: Operations = "1-6",
    method: Annotated[
        list[str] | None, typer.Option(help="beam or rejection, beside best-of-n. Repeatable; default: both.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="What the policy reads: a text with {prompt}, completion or chat; default: the PRM's."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest response, tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="Above 0.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus.")] = 1.0,
    width: Annotated[int, typer.Option(help="beam: prefixes kept.")] = 4,
    expansions: Annotated[int, typer.Option(help="beam: next lines of each.")] = 4,
    delta: Annotated[
        float, typer.Option(help="rejection: a score so much below the highest before it is a fall.")
    ] = 0.5,
    tries: Annotated[int, typer.Option(help="rejection: before a new program is begun.")] = 4,
    choose: Annotated[
        Literal["last", "mean", "min", "product"],
        typer.Option(help="Aggregate of line scores that takes a finished program."),
    ] = "min",
    batch_size: Annotated[int, typer.Option(min=1, help="Rows sampled side by side.")] = 256,
    timeout: Timeout = None,
    memory_mb: Memory = None,
    workers: Workers = None,
    resamples: Resamples = 2000,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Let a PRM guide the sampling line by line, against best-of-n by the same PRM with the same tokens.

    The same command again goes on where it stopped; methods and ORMs may be added, and --choose may change.
    """
    from psgpo.errors import UserError
    from psgpo.evaluation.benchmark import usable_cores
    from psgpo.job import only_process
    from psgpo.report.rerank_figures import write_rerank_figures
    from psgpo.rerank.render import render_search
    from psgpo.rerank.run import named_models, refuse_repeated_names
    from psgpo.rerank.scores import open_readers
    from psgpo.rerank.search import STRATEGIES, SearchSettings, open_models, run_search

    chosen = list(dict.fromkeys(method or STRATEGIES))
    if unknown := [name for name in chosen if name not in STRATEGIES]:
        raise UserError(f"--method {unknown[0]}: write {' or '.join(STRATEGIES)}; best-of-n is always measured")
    settings = SearchSettings(
        budget=budget,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        width=width,
        expansions=expansions,
        delta=delta,
        tries=tries,
    )
    settings.check()
    orms = named_models(orm or [], "--orm")
    refuse_repeated_names([], orms)
    filters = {"split": split, "platform": platform, "difficulty": difficulty, "since": since, "until": until}
    given = filters | {"limit": limit}
    used = limits_of_tasks(problems, of_files=OF_FILES, timeout=timeout, memory_mb=memory_mb)
    limits = {key: value for key, value in asdict(used).items() if value is not None}
    limits |= {"workers": workers or usable_cores()}
    loaded = load_tasks(problems, data, given, operations, seed, {}, limits["workers"])
    models = open_models(policy, prm, template=template, batch_size=batch_size, device=device)
    _, judges = open_readers([], orms, device)
    with only_process(out), bars() as display:
        summary = run_search(
            loaded,
            models,
            settings,
            out,
            strategies=chosen,
            limits=limits,
            orms=judges,
            resamples=resamples,
            choose=choose,
            progress=drawn_on(display),
        )
    sys.stdout.write(render_search(summary))
    written = [out / "summary.json", out / "curves.csv", *write_rerank_figures(summary, out)]
    sys.stdout.write("".join(f"{path}\n" for path in written))
