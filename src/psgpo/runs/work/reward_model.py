"""Process reward models, trained on the labels of the run."""

from __future__ import annotations

from psgpo.chats import recipe_template
from psgpo.labeling import (
    refuse_other_tokenizer,
    select_labels,
)
from psgpo.models import (
    load_tokenizer,
)
from psgpo.prm import (
    PrmScorer,
    ScorerRecord,
    assess_prm,
    build_examples,
    load_exact,
    response_key,
    split_by_problem,
    train_prm,
)
from psgpo.runs.directory import RunDirectory
from psgpo.runs.opening import chosen_device, training_team
from psgpo.runs.stages import embedded, policy_folder
from psgpo.runs.work.shared import Progress, read_labels
from psgpo.seeds import derive_seed

CHOOSING_SHARE = 0.15
"""Share of the PRM's training problems that choose the epoch to keep."""


def train_reward_model(run: RunDirectory, progress: Progress, name: str) -> None:
    """prm/<name>: a PRM, its scores on held-out problems and how good they are."""
    settings = run.recipe.prm[name]
    start = policy_folder(run.path, "sft")
    file = run.path / "labels" / "labels.jsonl"
    labels = read_labels(file)
    tokenizer = load_tokenizer(start)
    refuse_other_tokenizer(labels, tokenizer, str(file))
    exact = load_exact(run.path / "labels" / "exact.jsonl") if embedded(run.recipe) else None
    examples = build_examples(labels, settings, exact)
    holdout = run.recipe.labels.holdout
    rest, held_out = split_by_problem(examples, holdout)
    kept = {response_key(label.response) for label in select_labels(labels, settings.select, medium=settings.medium)}
    rest = [example for example in rest if example.key in kept]
    # The epoch is chosen on problems of its own, so that the held-out ones measure and do nothing else. The split is by
    # one hash per problem: raising the bar takes the next slice.
    train, choosing = split_by_problem(rest, holdout + (1 - holdout) * CHOOSING_SHARE)
    out = run.path / "prm" / name
    seed = derive_seed(run.recipe.seed, "prm", name)
    device = chosen_device(run.recipe)
    record = ScorerRecord(
        kind="causal",
        scope="line",
        target=settings.target,
        prompt_template=recipe_template(run.recipe, tokenizer),
        threshold=0.0,
    )
    team = training_team(run.recipe)
    train_prm(
        start,
        train,
        choosing,
        settings,
        out,
        record=record,
        seed=seed,
        device=device,
        compute=run.recipe.model,
        team=team,
        progress=progress,
    )
    if not team.is_main:
        return
    keys = {example.key for example in held_out}
    assess_prm(
        PrmScorer(out / "model", device=device),
        [label for label in labels if response_key(label.response) in keys],
        settings,
        out,
        exact,
    )
