"""`run`: what is missing, cell by cell, so that an interrupted study has whole pairs."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from psgpo.errors import UserError
from psgpo.runs.directory import RunDirectory
from psgpo.runs.orchestrate import StageError, run_stages
from psgpo.runs.reuse import take_over
from psgpo.runs.stages import stage_graph
from study.cells import Study
from study.collect import collect
from study.posts import posts_of, run_posts
from study.results import load_all, unfinished

Job = tuple[str, int]
"""(cell, seed)."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a call of `run`."""

    done: list[Job]
    failed: dict[Job, str]
    """With the reason; jobs whose base failed too."""
    left: list[Job]
    """Not started, or not ended, for want of time."""


def order(study: Study, cells: Sequence[str], seeds: Sequence[int] | None) -> list[Job]:
    """What is missing, and the bases it needs: by group, then seed, then cell; a base always first.

    A cell runs with those of the given seeds that it wants.
    """
    results = load_all(study)
    jobs: list[Job] = []

    def add(cell: str, seed: int) -> None:
        base = study.cells[cell].base
        if base is not None and unfinished(study, results, cell, seed):
            add(base, seed)
        if (cell, seed) not in jobs and unfinished(study, results, cell, seed):
            jobs.append((cell, seed))

    for group in study.groups:
        inside = [cell for cell in cells if study.cells[cell].group == group]
        for seed in sorted({seed for cell in inside for seed in study.seeds(cell)}):
            if seeds is None or seed in seeds:
                for cell in inside:
                    if seed in study.seeds(cell):
                        add(cell, seed)
    return jobs


def carry_out(study: Study, jobs: Sequence[Job], *, processes: int, minutes: float | None) -> Outcome:
    """Run the jobs in order. A crash of one is said and the others go on; nothing new starts after `minutes`."""
    end = None if minutes is None else time.monotonic() + 60 * minutes
    outcome = Outcome(done=[], failed={}, left=[])

    def time_left() -> bool:
        return end is None or time.monotonic() < end

    for number, (cell, seed) in enumerate(jobs, start=1):
        base = study.cells[cell].base
        if not time_left():
            outcome.left.append((cell, seed))
            continue
        _say(f"{cell}, seed {seed} ({number} of {len(jobs)})")
        if base is not None and (base, seed) in {*outcome.failed, *outcome.left}:
            outcome.failed[cell, seed] = f"its base {base} is not done"
            _say(f"  left out: {outcome.failed[cell, seed]}")
            continue
        try:
            whole = run_one(study, cell, seed, processes=processes, go_on=time_left)
        except (UserError, StageError, OSError) as error:
            outcome.failed[cell, seed] = str(error)
            _say(f"  failed: {error}")
        except Exception as error:  # a defect in one cell must not cost the night's others
            outcome.failed[cell, seed] = f"{type(error).__name__}: {error}"
            _say(f"  failed: {traceback.format_exc()}")
        else:
            (outcome.done if whole else outcome.left).append((cell, seed))
    return outcome


def run_one(study: Study, cell: str, seed: int, *, processes: int, go_on: Callable[[], bool]) -> bool:
    """One (cell, seed) with its result file; what is done of it already is not done again. False: out of time.

    Raises:
        UserError, StageError: see `run_stages`; the base's run directory is not there.
    """
    recipe = study.recipe(cell, seed).model_copy(update={"processes": processes})
    run = RunDirectory.create(recipe)
    _take_from_base(study, cell, seed, run)
    # The report of each of some hundred runs is nobody's: `psgpo report` makes those that are wanted.
    run_stages(run, [stage for stage in stage_graph(recipe) if stage != "report"])
    posts = posts_of(run, study.cells[cell])
    if not run_posts(run, posts, processes, go_on=go_on):
        return False
    path = collect(study, cell, run, posts)
    _say(f"  {path}")
    return True


def _take_from_base(study: Study, cell: str, seed: int, run: RunDirectory) -> None:
    base = study.cells[cell].base
    if base is None:
        return
    source = study.run_path(base, seed)
    if not (source / "recipe.json").is_file():
        if study.stands_alone(cell):
            _say(f"  {source} is not on this machine: what it would lend is run here")
            return
        raise UserError(
            f"{source}: the run of base {base} is not on this machine, though its result is; repeat the study in a "
            f"folder of its own (--into FOLDER), or make this one again: delete {study.result_path(base, seed)} and "
            f"run --cells {base} --seeds {seed}"
        )
    take_over(run, [source])


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
