"""`psgpo rerank`: choose among responses, or search for better ones with a PRM."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from psgpo.runs.progress import bars, drawn_on

app = typer.Typer(help="Best-of-N and guided search: what a PRM is worth without training.", no_args_is_help=True)

_PROGRAMS = "Programs"
Out = Annotated[Path, typer.Option(help="Folder for summary.json, curves.csv and figures.", show_default=False)]
Problems = Annotated[Path, typer.Option(help="JSON Lines file of the problems.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Of all that is random.")]
Resamples = Annotated[int, typer.Option(min=0, help="Of problems, behind the intervals.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, ...")]
Timeout = Annotated[float, typer.Option(help="Wall seconds for all inputs of a program.", rich_help_panel=_PROGRAMS)]
Memory = Annotated[int, typer.Option(help="Address space of a program, MiB.", rich_help_panel=_PROGRAMS)]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Side by side; default: one per core.", rich_help_panel=_PROGRAMS)
]


@app.command()
def samples(
    samples: Annotated[Path, typer.Argument(help="samples.jsonl of an evaluation.", show_default=False)],
    problems: Problems,
    out: Out,
    prm: Annotated[
        list[str] | None, typer.Option(help="FOLDER or NAME=FOLDER of a PRM. Repeatable.", show_default=False)
    ] = None,
    orm: Annotated[
        list[str] | None, typer.Option(help="FOLDER or NAME=FOLDER of an ORM. Repeatable.", show_default=False)
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Folder of the policy that wrote them: adds its likelihood.", show_default=False)
    ] = None,
    majority: Annotated[bool, typer.Option(help="Let equal outputs on the tests' inputs vote.")] = True,
    timeout: Timeout = 2.0,
    memory_mb: Memory = 256,
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
    from psgpo.problems import load_problems_jsonl
    from psgpo.report.rerank_figures import write_rerank_figures
    from psgpo.rerank.render import render_samples
    from psgpo.rerank.run import RerankRequest, named_models, refuse_repeated_names, run_rerank

    prms, orms = named_models(prm or [], "--prm"), named_models(orm or [], "--orm")
    refuse_repeated_names([*prms, *orms])
    request = RerankRequest(
        samples=samples,
        problems_file=problems,
        problems={problem.id: problem for problem in load_problems_jsonl(problems)},
        out=out,
        prms=prms,
        orms=orms,
        policy=policy,
        majority=majority,
        timeout=timeout,
        memory_mb=memory_mb,
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
