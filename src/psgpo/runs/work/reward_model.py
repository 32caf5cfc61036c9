"""Reward models, trained on the labels of the run.

A PRM of lines on the SFT policy's trunk learns from token ids of its own responses; every other one, and all that learn
from mutants, learn from text as `psgpo prm train` does.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from psgpo.chats import recipe_template
from psgpo.config import ModelSettings, PrmSettings
from psgpo.labeling import (
    refuse_other_tokenizer,
    response_behind,
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
from psgpo.prm.build import PrmJob, build_prm
from psgpo.prm.data import PrmExample, first_problems, with_noise
from psgpo.prm.measure import EVEN
from psgpo.prm.train_options import check_architecture
from psgpo.problems import load_problems_jsonl
from psgpo.runs.directory import RunDirectory
from psgpo.runs.hub import model_folder
from psgpo.runs.networks import causal_template
from psgpo.runs.opening import chosen_device, training_team
from psgpo.runs.stages import embedded, policy_folder
from psgpo.runs.work.shared import Progress, read_labels
from psgpo.seeds import derive_seed

CHOOSING_SHARE = 0.15
"""Share of the PRM's training problems that choose the epoch to keep."""


def train_reward_model(run: RunDirectory, progress: Progress, name: str) -> None:
    """prm/<name>: a PRM or ORM, and how good its scores on held-out problems are."""
    if run.recipe.labels.source == "search" and run.recipe.prm[name].from_policy:
        _train_on_responses(run, progress, name)
    else:
        _train_on_text(run, progress, name)


def _train_on_text(run: RunDirectory, progress: Progress, name: str) -> None:
    recipe = run.recipe
    settings = recipe.prm[name]
    mutants = recipe.labels.source == "mutation"
    init = None if settings.kind == "ngrams" else policy_folder(run.path, "sft")
    if settings.init is not None:
        init = model_folder(settings.init, f"prm.{name}.init")
        check_architecture(settings.kind, init, f"prm.{name}.init")
    template, compute = "{prompt}", ModelSettings()  # the problem beside the code
    if settings.kind == "causal":  # it goes on after the prompt, as the policy does
        assert init is not None
        policy = load_tokenizer(policy_folder(run.path, "sft"))
        template, compute = causal_template(recipe, policy, load_tokenizer(init)), recipe.model
    problems = [] if mutants else load_problems_jsonl(run.path / "problems" / "label.jsonl")
    holdout = recipe.labels.holdout

    def training_alone(what: str, done: int, total: int) -> None:
        if what == "training":
            progress(done, total)

    build_prm(
        PrmJob(
            data=(run.path / "mutants" if mutants else run.path / "labels" / "labels.jsonl",),
            out=run.path / "prm" / name,
            record=ScorerRecord(
                kind=settings.kind,
                scope=settings.scope,
                target="sign" if settings.kind == "causal" else "correct",
                prompt_template=template,
                threshold=0.0,
            ),
            settings=settings,
            init=init,
            holdout=holdout,
            choosing=(1 - holdout) * CHOOSING_SHARE,
            prompts={problem.id: problem.prompt for problem in problems},
            seed=derive_seed(recipe.seed, "prm", name),
            device="cpu" if settings.kind == "ngrams" else chosen_device(recipe),
            compute=compute,
        ),
        training_alone,
    )


def _train_on_responses(run: RunDirectory, progress: Progress, name: str) -> None:
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
    if settings.responses is not None:
        rest = first_problems(rest, settings.responses)
    # The responses that choose the epoch are labelled as those that are learned from: with the same noise.
    rest = with_noise(rest, settings, run.recipe.seed)
    # The epoch is chosen on problems of its own, so that the held-out ones measure and do nothing else. The split is by
    # one hash per problem: raising the bar takes the next slice.
    train, choosing = split_by_problem(rest, holdout + (1 - holdout) * CHOOSING_SHARE)
    if settings.twins:
        train += _twins_of(run, train, settings)
    _warn_of_one_class(train, settings, str(file))
    out = run.path / "prm" / name
    seed = derive_seed(run.recipe.seed, "prm", name)
    device = chosen_device(run.recipe)
    record = ScorerRecord(
        kind="causal",
        scope="line",
        target=settings.target,
        prompt_template=recipe_template(run.recipe, tokenizer),
        threshold=EVEN.get(settings.target, 0.0),
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
        longest_scored=max((example.length for example in held_out), default=0),
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


def _twins_of(run: RunDirectory, examples: Sequence[PrmExample], settings: PrmSettings) -> list[PrmExample]:
    """Those of the responses that are learned from; what chooses the epoch and what measures are responses alone."""
    keys = {example.key for example in examples}
    twins = read_labels(run.path / "labels" / "twins.jsonl")
    return build_examples([twin for twin in twins if response_behind(twin.response) in keys], settings)


def _warn_of_one_class(examples: Sequence[PrmExample], settings: PrmSettings, name: str) -> None:
    """A PRM that has seen good lines alone, or bad ones alone, calls every line so."""
    if settings.target != "sign":
        return
    weighed = [t for e in examples for t, weight in zip(e.targets, e.weights, strict=True) if weight]
    good, bad = sum(t > 0 for t in weighed), sum(t < 0 for t in weighed)
    if not good or not bad:
        warnings.warn(
            f"{name}: {good} good and {bad} bad lines to train on, and a PRM learns from the difference; label more "
            "responses, or problems that the policy solves more often (problems.label)",
            stacklevel=2,
        )
