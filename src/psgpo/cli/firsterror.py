"""`psgpo firsterror`: make the benchmark of first errors, and run a PRM, a model or a baseline on it."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from psgpo.errors import UserError
from psgpo.runs.progress import bars

app = typer.Typer(help="Which line of a program is the first wrong one?", no_args_is_help=True)

Items = Annotated[Path, typer.Argument(help="items.jsonl of `make`.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Folder for results.jsonl and summary.json.", show_default=False)]


@app.command()
def make(
    out: Annotated[Path, typer.Option(help="File to write, e.g. items.jsonl.", show_default=False)],
    opchain: Annotated[int, typer.Option(min=0, help="Pairs from the embedded benchmark and its exact oracle.")] = 0,
    operations: Annotated[str, typer.Option(help="Their fewest-most operations.")] = "3-10",
    mutants: Annotated[
        list[Path] | None, typer.Option(help="Folder or programs.jsonl of psgpo mutate. Repeatable.")
    ] = None,
    per_problem: Annotated[int, typer.Option(min=1, help="Pairs for one problem of `--mutants`.")] = 2,
    seed: Annotated[int, typer.Option(help="Of all choices.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Programs side by side.")] = 1,
) -> None:
    """Make pairs of a wrong program, whose first wrong line is known, and a right one."""
    from psgpo.execution import Sandbox
    from psgpo.firsterror.make import mutant_items, opchain_items, refuse_repeats
    from psgpo.jsonl import write_jsonl

    low, _, high = operations.partition("-")
    if not low.isdigit() or not (high or low).isdigit():
        raise UserError(f"--operations {operations!r}: write fewest-most, e.g. 3-10")
    if not opchain and not mutants:
        raise UserError("nothing to make items from; give --opchain 200, or --mutants FOLDER of psgpo mutate, or both")
    items = []
    if opchain:
        with Sandbox(workers=workers) as sandbox:
            items += opchain_items(opchain, sandbox.evaluate_many, operations=(int(low), int(high or low)), seed=seed)
    for path in mutants or []:
        items += mutant_items(path, per_problem=per_problem, seed=seed)
    refuse_repeats(items)
    write_jsonl(out, (item.to_json() for item in items))
    wrong = sum(item.first_error is not None for item in items)
    sys.stdout.write(f"{wrong} wrong and {len(items) - wrong} right programs: {out}\n")


@app.command()
def run(
    items: Items,
    out: Out,
    scorer: Annotated[
        str | None, typer.Option(help="package.module:factory; what it returns has score_lines(problem, code).")
    ] = None,
    prm: Annotated[Path | None, typer.Option(help="Folder of a PRM.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="A line below it is wrong; default: chosen on the other half of the problems.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="all-right, first-line, middle-line, last-line or random.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="OpenAI-compatible server of a judge.")] = None,
    model: Annotated[str | None, typer.Option(help="Its model.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="File with the judge's prompt.")] = None,
    api_key_env: Annotated[str, typer.Option(help="Environment variable with the key.")] = "OPENAI_API_KEY",
    temperature: Annotated[float, typer.Option(help="Of the judge.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of the judge.")] = 2048,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at the same time.")] = 8,
    request_timeout: Annotated[float, typer.Option(help="Seconds for one request.")] = 120.0,
    seed: Annotated[int, typer.Option(help="Sent to the judge's server.")] = 0,
    held_out: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Only problems that PRM training with this --holdout has not seen."),
    ] = None,
) -> None:
    """Let a PRM, any scorer, a chat model or a baseline name the first wrong line; print the ProcessBench F1."""
    from psgpo.firsterror.items import load_items
    from psgpo.firsterror.judges import PROMPT, ChatJudge, read_judge_prompt
    from psgpo.firsterror.measure import render
    from psgpo.firsterror.run import run_baseline, run_judge, run_scorer
    from psgpo.job import only_process
    from psgpo.mutation.chat import ChatServer
    from psgpo.seeds import is_held_out

    if sum(judge is not None for judge in (scorer, prm, baseline, server)) != 1:
        raise UserError("give exactly one of --scorer, --prm, --baseline and --server")
    loaded = load_items(items)
    if held_out is not None:
        loaded = [item for item in loaded if is_held_out(item.problem_id, held_out)]
        if not loaded:
            raise UserError(f"{items}: --held-out {held_out} keeps none of its problems; raise it")
    with only_process(out), bars() as display:
        task = display.add_task("Programs", total=len(loaded))

        def progress(done: int, total: int) -> None:
            display.update(task, completed=done, total=total)

        if baseline is not None:
            result = run_baseline(loaded, baseline, out)
        elif server is not None:
            if model is None:
                raise UserError(f"--server {server}: name the model too, with --model")
            chat = ChatServer(
                url=server,
                model=model,
                api_key=os.environ.get(api_key_env, ""),
                temperature=temperature,
                max_tokens=max_tokens,
                timeout=request_timeout,
            )
            judge = ChatJudge(server=chat, prompt=read_judge_prompt(prompt or PROMPT))
            result = run_judge(loaded, judge, out, concurrency=concurrency, seed=seed, progress=progress)
        else:
            opened = _prm(prm) if prm is not None else _scorer(scorer or "")
            name = str(prm) if prm is not None else scorer or ""
            result = run_scorer(loaded, opened, out, name=name, threshold=threshold, progress=progress)
    sys.stdout.write(render(result))
    sys.stdout.write(f"{out / 'results.jsonl'}\n{out / 'summary.json'}\n")


def _prm(folder: Path) -> Any:
    if not folder.is_dir():
        raise UserError(f"--prm {folder}: no such folder")
    from psgpo.prm import open_scorer  # loads torch, which takes seconds and which no other judge needs

    return open_scorer(folder)


def _scorer(name: str) -> Any:
    """What `package.module:factory` returns when it is called without arguments."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"--scorer {name!r}: {error}; write package.module:factory") from None
    if not hasattr(found, "score_lines"):
        raise UserError(f"--scorer {name!r}: what it returns has no score_lines(problem, code)")
    return found
