"""Labels without rollouts: verified mutants of reference solutions (PRLCoder)."""

from __future__ import annotations

from dataclasses import replace

from psgpo.mutation.catalogue import Catalogue
from psgpo.mutation.run import Labelling, Settings, run_mutation
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
            [Catalogue(bugs_per_line=chosen.bugs_per_line, refactors_per_line=chosen.refactors_per_line)],
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


def _as_prompted(problem: Problem) -> Problem:
    """Mutants carry the text that the policy reads, so that their PRM reads it too when it pays the policy."""
    return replace(problem, metadata={key: value for key, value in problem.metadata.items() if key != "text"})
