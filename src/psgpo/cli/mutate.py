"""`psgpo mutate`: labelled lines from verified mutants and rewrites of reference solutions (PRLCoder)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from psgpo.errors import UserError
from psgpo.runs.progress import bars

_TASKS, _LABELS, _MODEL = "Which tasks", "Labels", "A model as teacher"

Benchmark = Annotated[
    str,
    typer.Option(help="mbpp, humaneval, ..., or a JSON Lines file of problems.", show_default=False),
]
Out = Annotated[Path, typer.Option(help="Folder for everything that is written.", show_default=False)]
Data = Annotated[Path | None, typer.Option(help="The benchmark's own data file.")]
Split = Annotated[str | None, typer.Option(help="Only this split; MBPP 601-974 is train.", rich_help_panel=_TASKS)]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.", rich_help_panel=_TASKS)]
Plus = Annotated[
    str | None, typer.Option(help="Benchmark with more inputs of the same tasks: mbppplus, humanevalplus.")
]
PlusData = Annotated[Path | None, typer.Option(help="Its data file.")]
Generated = Annotated[int, typer.Option(min=0, help="Inputs to make for each problem.")]
Bugs = Annotated[int, typer.Option(min=0, help="Most planted bugs for one line.")]
Refactors = Annotated[int, typer.Option(min=0, help="Most rewrites for one line.")]
Seed = Annotated[int, typer.Option(help="Of the choice of proposals and inputs.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Programs side by side; default: one per core.")]
Timeout = Annotated[float, typer.Option(help="Seconds for one program's tests of one kind.")]
Memory = Annotated[int, typer.Option(help="Address space of a program, MiB.")]
Cache = Annotated[Path | None, typer.Option(help="File that keeps verdicts for other runs.")]
Require = Annotated[str | None, typer.Option(help="Refuse to run below this rung of confinement (psgpo doctor).")]
After = Annotated[
    str, typer.Option(help="Lines after a planted bug: unlabelled, negative or positive.", rich_help_panel=_LABELS)
]
Timeouts = Annotated[
    str, typer.Option(help="Programs out of time: drop, or count as negative.", rich_help_panel=_LABELS)
]
Survivors = Annotated[
    str, typer.Option(help="Planted bugs that pass all tests: positive, or drop.", rich_help_panel=_LABELS)
]
Url = Annotated[
    str | None, typer.Option(help="OpenAI-compatible server, e.g. http://localhost:8000/v1.", rich_help_panel=_MODEL)
]
Model = Annotated[str | None, typer.Option(help="Name of its model.", rich_help_panel=_MODEL)]
KeyVariable = Annotated[
    str, typer.Option("--api-key-env", help="Environment variable with the key.", rich_help_panel=_MODEL)
]
PerLine = Annotated[int, typer.Option(min=1, help="Answers for each line, of each kind.", rich_help_panel=_MODEL)]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer of the model.", rich_help_panel=_MODEL)]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests at the same time.", rich_help_panel=_MODEL)]
RequestTimeout = Annotated[float, typer.Option(help="Seconds for one request.", rich_help_panel=_MODEL)]
BugPrompt = Annotated[Path | None, typer.Option(help="File with the prompt for bugs.", rich_help_panel=_MODEL)]
RefactorPrompt = Annotated[Path | None, typer.Option(help="File with the prompt for rewrites.", rich_help_panel=_MODEL)]
Catalogued = Annotated[
    bool, typer.Option("--catalogue/--no-catalogue", help="Use the operators too.", rich_help_panel=_MODEL)
]


def mutate(
    benchmark: Benchmark,
    out: Out,
    data: Data = None,
    split: Split = None,
    limit: Limit = None,
    plus: Plus = None,
    plus_data: PlusData = None,
    generated: Generated = 200,
    bugs_per_line: Bugs = 4,
    refactors_per_line: Refactors = 3,
    seed: Seed = 0,
    workers: Workers = None,
    timeout: Timeout = 2.0,
    memory_mb: Memory = 512,
    cache: Cache = None,
    require: Require = None,
    after: After = "unlabelled",
    timeouts: Timeouts = "drop",
    survivors: Survivors = "positive",
    server: Url = None,
    model: Model = None,
    api_key_env: KeyVariable = "OPENAI_API_KEY",
    per_line: PerLine = 1,
    max_tokens: MaxTokens = 512,
    concurrency: Concurrency = 8,
    request_timeout: RequestTimeout = 60.0,
    bug_prompt: BugPrompt = None,
    refactor_prompt: RefactorPrompt = None,
    catalogue: Catalogued = True,
) -> None:
    """Plant bugs in reference solutions and rewrite them, line by line; run each result; write labelled lines.

    The same command again goes on where it stopped; with other label options it only writes the files anew.
    """
    from psgpo.evaluation.benchmark import usable_cores
    from psgpo.execution import Sandbox
    from psgpo.execution.confinement import ladder
    from psgpo.job import only_process
    from psgpo.mutation.chat import ChatServer
    from psgpo.mutation.language_model import PROMPTS
    from psgpo.mutation.run import Labelling, Settings, run_mutation
    from psgpo.mutation.summary import render
    from psgpo.mutation.teachers import open_teachers
    from psgpo.problems.benchmarks import BENCHMARKS, load_benchmark

    labelling = Labelling(after=after, timeouts=timeouts, survivors=survivors)  # type: ignore[arg-type]
    settings = Settings(seed=seed, generated=generated, timeout=timeout, memory_mb=memory_mb)
    chat = None
    if server is not None:
        if model is None:
            raise UserError(f"--server {server}: name the model too, with --model")
        key = os.environ.get(api_key_env, "")
        chat = ChatServer(url=server, model=model, api_key=key, max_tokens=max_tokens, timeout=request_timeout)
    teachers = open_teachers(
        catalogue=catalogue,
        bugs_per_line=bugs_per_line,
        refactors_per_line=refactors_per_line,
        server=chat,
        prompts={"bug": bug_prompt or PROMPTS["bug"], "refactor": refactor_prompt or PROMPTS["refactor"]},
        per_line=per_line,
        concurrency=concurrency,
    )
    if not teachers:
        raise UserError("--no-catalogue without --server leaves no teacher; give --server and --model")
    slots, rung = workers or usable_cores(), require or ladder.LOWEST_CONFINED
    with only_process(out), bars() as display:
        with Sandbox(workers=slots, timeout=60.0, memory_mb=1024, require=rung, cache=cache) as references:
            problems = load_benchmark(benchmark, data, evaluate=references.evaluate_many, split=split, limit=limit)
            extended = {}
            if plus is not None:
                same = split if "split" in getattr(BENCHMARKS.get(plus), "filters", ("split",)) else None
                loaded = load_benchmark(plus, plus_data, evaluate=references.evaluate_many, split=same)
                extended = {problem.id: problem for problem in loaded}
        task = display.add_task("Problems", total=len(problems))
        with Sandbox(workers=slots, timeout=timeout, memory_mb=memory_mb, require=rung, cache=cache) as sandbox:
            summary = run_mutation(
                problems,
                teachers,
                sandbox,
                out,
                plus=extended,
                settings=settings,
                labelling=labelling,
                progress=lambda done, total: display.update(task, completed=done, total=total),
            )
    sys.stdout.write(render(summary))
    sys.stdout.write("".join(f"{out / name}\n" for name in ("programs.jsonl", "orm.jsonl", "summary.json")))
