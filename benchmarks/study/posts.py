"""What the study measures of a finished run beyond its stages: checkpoints for pass@1 over PPO steps, best-of-K.

    study/curve/ARM/step-N/       evaluation of a checkpoint, the last one left out: it is the arm's own evaluation
    study/best_of/POLICY/         evaluation with more samples; chosen/ what the PRM takes of them (psgpo rerank)

Each is a process of its own and leaves a receipt in stages/, as the run's own stages do.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from psgpo.config import EvaluationSettings
from psgpo.problems import load_problems_jsonl
from psgpo.runs.directory import RunDirectory
from psgpo.runs.stages import policy_folder
from study.cells import Cell
from study.results import chosen_by

CHOSEN = "study-chosen-"
"""What the receipts of choices begin with, before the policy."""


@dataclass(frozen=True, kw_only=True)
class Post:
    """One thing to measure."""

    name: str
    """Of its receipt."""
    kind: str
    """`curve`, `best-of` or `chosen`."""
    policy: str
    folder: Path
    """Of the policy that is evaluated."""
    out: Path
    samples: int
    prm: str | None = None


def posts_of(run: RunDirectory, cell: Cell) -> list[Post]:
    """Everything that the cell wants measured, done or not; those of kind `chosen` come last."""
    found = list(_curves(run, cell))
    study = run.path / "study"
    for policy in cell.best_of:
        given = {"policy": policy, "folder": policy_folder(run.path, policy), "samples": cell.best_of_samples}
        out = study / "best_of" / policy
        found.append(Post(name=f"study-best-of-{policy}", kind="best-of", out=out, **given))
        if cell.best_of_prm is not None:
            found.append(
                Post(name=f"{CHOSEN}{policy}", kind="chosen", out=out / "chosen", prm=cell.best_of_prm, **given)
            )
    return sorted(found, key=lambda post: post.kind == "chosen")


def _curves(run: RunDirectory, cell: Cell) -> Iterator[Post]:
    for arm in cell.curve_arms:
        for step in run.recipe.rl_of(arm).checkpoint_steps[:-1]:
            yield Post(
                name=f"study-curve-{arm}-{step}",
                kind="curve",
                policy=arm,
                folder=run.path / "rl" / arm / "checkpoints" / f"step-{step}",
                out=run.path / "study" / "curve" / arm / f"step-{step}",
                samples=run.recipe.evaluation.samples,
            )


def run_posts(run: RunDirectory, posts: list[Post], jobs: int, *, go_on: Callable[[], bool]) -> bool:
    """Do those that are not done (`is_done`), `jobs` side by side. False when `go_on` forbade to start some.

    Raises:
        Whatever a post raises; the others end first.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["psgpo.runs.work"])
    whole = True
    # A choice reads what an evaluation wrote.
    for first in (True, False):
        todo = [p for p in posts if (p.kind != "chosen") == first and not is_done(run, p)]
        with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
            running = []
            for post in todo:
                whole &= go_on()
                if whole:
                    running.append(pool.submit(carry_out, run.path, post))
            for future in as_completed(running):
                sys.stderr.write(f"  {future.result()}: done\n")
        if not whole:
            return False
    return whole


def is_done(run: RunDirectory, post: Post) -> bool:
    """Whether a post has left its receipt; of a choice, whether it is that of the wanted PRM too.

    Another number of samples is refused in `collect`: those that are there are not thrown away unasked.
    """
    if post.kind != "chosen" or not run.stage_done(post.name):
        return run.stage_done(post.name)
    assert post.prm is not None
    file = post.out / "summary.json"
    return file.is_file() and chosen_by(post.prm, json.loads(file.read_text(encoding="utf-8"))["methods"])


def carry_out(path: Path, post: Post) -> str:
    """Body of a process; its receipt counts the process's CPU seconds. Returns the post's name."""
    from psgpo.runs.work import one_thread

    run = RunDirectory.open(path)
    with (path / "logs" / f"{post.name}.log").open("ab", buffering=0) as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    with run.stage(post.name), one_thread():
        if post.kind == "chosen":
            _choose(run, post)
        else:
            _evaluate(run, post)
    return post.name


def _evaluate(run: RunDirectory, post: Post) -> None:
    """The policy on the run's test problems, without the greedy response."""
    from psgpo.chats import recipe_template
    from psgpo.evaluation.evaluate import evaluate_policy
    from psgpo.models import load_tokenizer
    from psgpo.runs.opening import chosen_device, open_sandbox

    recipe = run.recipe
    settings = EvaluationSettings(samples=post.samples, greedy=False, temperature=recipe.evaluation.temperature)
    with open_sandbox(run) as sandbox:
        evaluate_policy(
            post.folder,
            load_problems_jsonl(run.path / "problems" / "test.jsonl"),
            sandbox,
            settings.model_copy(update={"bootstrap": 1}),  # the study's intervals are over seeds too
            recipe.sampling,
            post.out,
            prompt_template=recipe_template(recipe, load_tokenizer(post.folder)),
            seed=recipe.seed,
            device=chosen_device(recipe),
        )


def _choose(run: RunDirectory, post: Post) -> None:
    from psgpo.rerank.run import RerankRequest, run_rerank
    from psgpo.runs.opening import chosen_device

    file = run.path / "problems" / "test.jsonl"
    assert post.prm is not None
    request = RerankRequest(
        samples=post.out.parent / "samples.jsonl",
        problems_file=file,
        problems={problem.id: problem for problem in load_problems_jsonl(file)},
        out=post.out,
        prms=((post.prm, run.path / "prm" / post.prm / "model"),),
        majority=False,
        resamples=1,
        device=chosen_device(run.recipe),
    )
    run_rerank(request)
