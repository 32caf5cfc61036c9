"""Labels without rollouts: verified mutants of reference solutions (PRLCoder)."""

from __future__ import annotations

import os
from dataclasses import replace

from psgpo.config import MutationSettings
from psgpo.mutation.chat import ChatServer
from psgpo.mutation.run import Labelling, Settings, run_mutation
from psgpo.mutation.teachers import open_teachers
from psgpo.problems import load_problems_jsonl
from psgpo.records import Problem
from psgpo.runs.directory import RunDirectory
from psgpo.runs.opening import open_sandbox
from psgpo.runs.work.shared import Progress


def make_mutants(run: RunDirectory, progress: Progress) -> None:
    """mutants/: what `psgpo mutate` writes, of the problems to label."""
    recipe, folder = run.recipe, run.path / "problems"
    plus = folder / "plus.jsonl"
    chosen = recipe.mutation
    with open_sandbox(run) as sandbox:
        run_mutation(
            [_as_prompted(problem) for problem in load_problems_jsonl(folder / "label.jsonl")],
            open_teachers(
                catalogue=chosen.catalogue,
                bugs_per_line=chosen.bugs_per_line,
                refactors_per_line=chosen.refactors_per_line,
                server=_server(chosen),
                per_line=chosen.per_line,
            ),
            sandbox,
            run.path / "mutants",
            plus={problem.id: problem for problem in load_problems_jsonl(plus)} if plus.is_file() else None,
            settings=Settings(
                seed=recipe.seed,
                generated=chosen.generated,
                timeout=recipe.sandbox.timeout_seconds,
                memory_mb=recipe.sandbox.memory_mb,
            ),
            labelling=Labelling(after=chosen.after, timeouts=chosen.timeouts, survivors=chosen.survivors),
            progress=progress,
        )


def _server(chosen: MutationSettings) -> ChatServer | None:
    if chosen.server is None or chosen.model is None:
        return None
    key = os.environ.get(chosen.api_key_env, "")
    return ChatServer(url=chosen.server, model=chosen.model, api_key=key, max_tokens=chosen.max_tokens)


def _as_prompted(problem: Problem) -> Problem:
    """Mutants carry the text that the policy reads, so that their PRM reads it too when it pays the policy."""
    return replace(problem, metadata={key: value for key, value in problem.metadata.items() if key != "text"})
