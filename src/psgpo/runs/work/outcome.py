"""What came out: pass@k and the report."""

from __future__ import annotations

from psgpo.chats import recipe_template
from psgpo.evaluation.evaluate import evaluate_policy
from psgpo.evaluation.sets import load_sets
from psgpo.models import load_tokenizer
from psgpo.problems import load_problems_jsonl
from psgpo.runs.directory import RunDirectory
from psgpo.runs.networks import check_split_prompts
from psgpo.runs.opening import open_sandbox
from psgpo.runs.stages import policy_folder
from psgpo.runs.work.shared import Progress, opened_sampler


def evaluate(run: RunDirectory, progress: Progress, policy: str) -> None:
    """evaluation/<policy>: pass@k on the test problems."""
    recipe = run.recipe
    folder = policy_folder(run.path, policy)
    check_split_prompts(run, folder, "test")
    with open_sandbox(run) as sandbox:
        evaluate_policy(
            folder,
            load_problems_jsonl(run.path / "problems" / "test.jsonl"),
            sandbox,
            recipe.evaluation,
            recipe.sampling,
            run.path / "evaluation" / policy,
            prompt_template=recipe_template(recipe, load_tokenizer(folder)),
            seed=recipe.seed,
            open_policy=lambda: opened_sampler(policy_folder(run.path, policy), recipe),
            progress=progress,
            tests=load_sets(run.path / "problems"),
        )


def write_report(run: RunDirectory, progress: Progress) -> None:
    """report/: one page, its figures, summary.json."""
    from psgpo.report.build import build_report  # loads matplotlib, which no other stage needs

    build_report([run.path], run.path / "report")
    progress(1, 1)
