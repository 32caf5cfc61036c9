"""The bodies of the stages: read the run directory, call the algorithm, write the run directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from psgpo.config import ArmSettings, JsonlSource, Recipe
from psgpo.errors import UserError
from psgpo.evaluation.evaluate import evaluate_policy
from psgpo.execution import Sandbox
from psgpo.jsonl import read_jsonl, write_json, write_jsonl
from psgpo.labeling import (
    LabelUsage,
    cost_summary,
    label_responses,
    measure_labels,
    merge_usage,
    refuse_other_tokenizer,
    sample_responses,
    select_labels,
    shard_responses,
    write_labels,
)
from psgpo.labeling.surprise import PolicySurprise
from psgpo.models import (
    create_policy,
    load_policy,
    load_tokenizer,
    prepare_training,
    train_tokenizer,
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
from psgpo.problems import load_problems_jsonl, save_problems_jsonl
from psgpo.problems.opchain import OpChain, OpChainSettings, measure_strength
from psgpo.problems.opchain.oracle import ExactOracle
from psgpo.prompts import build_prompt_ids, fill
from psgpo.records import LineLabels, Problem, Response
from psgpo.rl.ppo import PpoTrainer
from psgpo.rl.rollout import LineScorer, open_line_scorer
from psgpo.runs.directory import RunDirectory
from psgpo.runs.networks import arm_networks
from psgpo.runs.opening import chosen_device, open_sandbox
from psgpo.runs.splits import load_splits
from psgpo.runs.stages import BASELINE, embedded, policy_folder
from psgpo.sampling import HFSampler
from psgpo.seeds import derive_seed
from psgpo.sft import train_sft

Progress = Callable[[int, int], None]

TOKENIZER_EXAMPLES = 3_000
"""SFT examples the tokenizer is trained on."""
CHOOSING_SHARE = 0.15
"""Share of the PRM's training problems that choose the epoch to keep."""
STRENGTH_PROBLEMS = 200
"""Training problems whose tests are tried on mutants."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one CPU thread: sums, hence results, then do not depend on the caller's setting or the load.

    Stages use several cores by running side by side.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_problems(run: RunDirectory, progress: Progress) -> None:
    """problems/{train,label,validation,test}.jsonl, and how strong their tests are (embedded benchmark)."""
    folder = run.path / "problems"
    source = run.recipe.problems
    if isinstance(source, JsonlSource):
        for split, problems in load_splits(source).items():
            save_problems_jsonl(folder / f"{split}.jsonl", problems)
        return
    chain = _benchmark(run.recipe)
    # Labelled problems are training problems too; their ids may coincide with those of RL.
    wanted = {
        "train": ("train", source.train, source.train_operations),
        "label": ("train", source.label, source.label_operations),
        "validation": ("validation", source.validation, source.test_operations),
        "test": ("test", source.test, source.test_operations),
    }
    for done, (name, (split, count, operations)) in enumerate(wanted.items()):
        progress(done, len(wanted) + 1)
        save_problems_jsonl(folder / f"{name}.jsonl", chain.problems(split, count, operations))
    problems = load_problems_jsonl(folder / "train.jsonl") + load_problems_jsonl(folder / "label.jsonl")
    step = max(1, len(problems) // STRENGTH_PROBLEMS)
    write_json(folder / "strength.json", measure_strength(problems[::step], seed=run.recipe.seed))
    progress(len(wanted) + 1, len(wanted) + 1)


def train_policy(run: RunDirectory, progress: Progress) -> None:
    """sft/model: the policy RL starts from."""
    recipe = run.recipe
    pairs = _sft_pairs(run)
    if recipe.model.path is not None:
        model, tokenizer = load_policy(recipe.model.path)
    else:
        tokenizer = train_tokenizer(
            [prompt + text for prompt, text in pairs[:TOKENIZER_EXAMPLES]], recipe.model.vocab_size
        )
        model = create_policy(
            tokenizer,
            seed=derive_seed(recipe.seed, "policy"),
            hidden_size=recipe.model.hidden_size,
            intermediate_size=recipe.model.intermediate_size,
            num_hidden_layers=recipe.model.layers,
            num_attention_heads=recipe.model.heads,
            max_position_embeddings=recipe.model.max_positions,
        )
    prepare_training(model, recipe.model, adapt=False)
    if not pairs:
        model.save_pretrained(run.path / "sft" / "model")
        tokenizer.save_pretrained(run.path / "sft" / "model")
        return
    train_sft(
        model,
        tokenizer,
        pairs,
        recipe.sft,
        out=run.path / "sft",
        seed=recipe.seed,
        device=chosen_device(recipe),
        dtype=recipe.model.dtype,
        progress=progress,
    )


def train_arm(run: RunDirectory, progress: Progress, arm: str) -> None:
    """rl/<arm>: one PPO run from the SFT policy."""
    with arm_trainer(run, arm) as (trainer, prompts):
        trainer.train(prompts, progress=progress)


@contextmanager
def arm_trainer(run: RunDirectory, arm: str) -> Iterator[tuple[PpoTrainer, list[tuple[Problem, tuple[int, ...]]]]]:
    """The trainer of an arm before its first step, and the (problem, prompt ids) it trains on."""
    recipe = run.recipe
    settings = recipe.arms[arm]
    policy, reference, critic, tokenizer = arm_networks(run, settings)
    problems = load_problems_jsonl(run.path / "problems" / "train.jsonl")
    with open_sandbox(run) as sandbox:
        trainer = PpoTrainer(
            policy=policy,
            reference=reference,
            critic=critic,
            tokenizer=tokenizer,
            sandbox=sandbox,
            arm=settings,
            rl=recipe.rl,
            sampling=recipe.sampling,
            out=run.path / "rl" / arm,
            seed=recipe.seed,
            scorer=_line_scorer(run, settings, tokenizer, sandbox),
            device=chosen_device(recipe),
            dtype=recipe.model.dtype,
        )
        prompts = [(problem, build_prompt_ids(tokenizer, recipe.prompt_template, problem)) for problem in problems]
        yield trainer, prompts


def sample_labelled_responses(run: RunDirectory, progress: Progress) -> None:
    """labels/responses.jsonl: responses of every baseline checkpoint; with exact labels where there is an oracle."""
    recipe = run.recipe
    problems = load_problems_jsonl(run.path / "problems" / "label.jsonl")
    parts = run.path / "labels" / "responses"
    checkpoints = _checkpoints(run)
    with open_sandbox(run) as sandbox:
        for number, (name, folder) in enumerate(checkpoints.items()):
            part = parts / f"{number + 1}.jsonl"
            if not part.is_file():
                sampler, tokenizer = _sampler(folder, recipe)
                drawn = sample_responses(
                    sampler,
                    tokenizer,
                    problems,
                    sandbox,
                    checkpoint=name,
                    responses_per_problem=recipe.labels.responses_per_problem,
                    seed=recipe.seed,
                    prompt_template=recipe.prompt_template,
                    settings=recipe.sampling,
                )
                write_jsonl(part, (response.to_json() for response in drawn))
            progress(number + 1, len(checkpoints))
        files = [parts / f"{number + 1}.jsonl" for number in range(len(checkpoints))]
        responses = [response for file in files for response in read_jsonl(file, Response.from_json)]
        if embedded(recipe):
            by_id = {problem.id: problem for problem in problems}
            exact = ExactOracle(sandbox.evaluate_many).label([(by_id[r.problem_id], r.text) for r in responses])
            rows = [
                {"problem_id": r.problem_id, "index": r.index, "checkpoint": r.checkpoint}
                | {"last_on_track": e.last_on_track, "lines": e.lines, "progress": list(e.progress)}
                for r, e in zip(responses, exact, strict=True)
            ]
            write_jsonl(run.path / "labels" / "exact.jsonl", rows)
    write_jsonl(run.path / "labels" / "responses.jsonl", (response.to_json() for response in responses))


def label_shard(run: RunDirectory, progress: Progress, shard: str) -> None:
    """labels/shards/<n>.*: line labels of one part of the responses."""
    parts = shard_responses(_responses(run), run.recipe.labels.shards)
    _label(run, progress, parts[int(shard)], f"shards/{int(shard) + 1}", run.recipe.labels.strategy)


def label_linear(run: RunDirectory, progress: Progress) -> None:
    """labels/linear.*: a linear scan of a few failed responses, evenly spread, to compare with the search.

    Passing responses to the same problems come along: their programs prove prefixes for the search too.
    """
    responses = _responses(run)
    failed = [response for response in responses if not response.verdict.passed]
    count = min(run.recipe.labels.compare_linear, len(failed))
    chosen = [failed[index * len(failed) // count] for index in range(count)]
    problems = {response.problem_id for response in chosen}
    chosen += [r for r in responses if r.verdict.passed and r.problem_id in problems]
    _label(run, progress, chosen, "linear", "linear-scan")


def merge_labels(run: RunDirectory, progress: Progress) -> None:
    """labels/labels.jsonl and labels/summary.json: all shards together, their cost and (with an oracle) quality."""
    folder = run.path / "labels"
    shards = [f"shards/{number + 1}" for number in range(run.recipe.labels.shards)]
    labels = [label for shard in shards for label in _read_labels(folder / f"{shard}.jsonl")]
    if not labels:
        raise UserError(f"{folder}: nothing was labelled; raise problems.label or labels.responses_per_problem")
    write_labels(folder / "labels.jsonl", labels)
    summary = _label_summary(run, labels, [_usage(folder / f"{shard}.usage.json") for shard in shards])
    if run.recipe.labels.compare_linear:
        linear = [label for label in _read_labels(folder / "linear.jsonl") if not label.response.verdict.passed]
        summary["linear_scan"] = _label_summary(run, linear, [_usage(folder / "linear.usage.json")])
        # Completions behind the answers, whoever paid for them: one shared with a response outside counts in full.
        summary["linear_scan"]["completions"] = _drawn(linear)
        same = {response_key(label.response) for label in linear}
        chosen = [label for label in labels if response_key(label.response) in same]
        summary["same_responses"] = {
            "quality": _quality(run, chosen),
            "completions": _drawn(chosen),
        }
    write_json(folder / "summary.json", summary)
    progress(1, 1)


def train_reward_model(run: RunDirectory, progress: Progress, name: str) -> None:
    """prm/<name>: a PRM, its scores on held-out problems and how good they are."""
    settings = run.recipe.prm[name]
    start = policy_folder(run.path, "sft")
    file = run.path / "labels" / "labels.jsonl"
    labels = _read_labels(file)
    refuse_other_tokenizer(labels, load_tokenizer(start), str(file))
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
        prompt_template=run.recipe.prompt_template,
        threshold=0.0,
    )
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
        progress=progress,
    )
    keys = {example.key for example in held_out}
    assess_prm(
        PrmScorer(out / "model", device=device),
        [label for label in labels if response_key(label.response) in keys],
        settings,
        out,
        exact,
    )


def evaluate(run: RunDirectory, progress: Progress, policy: str) -> None:
    """evaluation/<policy>: pass@k on the test problems."""
    recipe = run.recipe
    with open_sandbox(run) as sandbox:
        evaluate_policy(
            policy_folder(run.path, policy),
            load_problems_jsonl(run.path / "problems" / "test.jsonl"),
            sandbox,
            recipe.evaluation,
            recipe.sampling,
            run.path / "evaluation" / policy,
            prompt_template=recipe.prompt_template,
            seed=recipe.seed,
            device=chosen_device(recipe),
            progress=progress,
        )


def write_report(run: RunDirectory, progress: Progress) -> None:
    """report/: one page, its figures, summary.json."""
    from psgpo.report.build import build_report  # loads matplotlib, which no other stage needs

    build_report([run.path], run.path / "report")
    progress(1, 1)


def _benchmark(recipe: Recipe) -> OpChain:
    source = embedded(recipe)
    assert source is not None
    return OpChain(OpChainSettings(seed=recipe.seed, sparseness=source.sparseness))


def _sft_pairs(run: RunDirectory) -> list[tuple[str, str]]:
    recipe = run.recipe
    if embedded(recipe):
        examples = _benchmark(recipe).sft_examples(recipe.sft.examples, recipe.sft.operations)
        pairs = [(example.prompt, example.solution) for example in examples]
    else:
        problems = load_problems_jsonl(run.path / "problems" / "train.jsonl")
        pairs = [(p.prompt, p.reference_solution) for p in problems if p.reference_solution][: recipe.sft.examples]
        if recipe.sft.examples and not pairs:
            raise UserError(
                f"{run.path / 'problems' / 'train.jsonl'}: no problem has a reference_solution to fine-tune on; "
                "add some or set sft.examples = 0"
            )
    return [(fill(recipe.prompt_template, prompt), solution) for prompt, solution in pairs]


def _line_scorer(
    run: RunDirectory, arm: ArmSettings, tokenizer: PreTrainedTokenizerBase, sandbox: Sandbox
) -> LineScorer | None:
    prm = run.path / "prm" / str(arm.prm) / "model"
    return open_line_scorer(arm, prm, tokenizer, sandbox, device=chosen_device(run.recipe))


def _label(run: RunDirectory, progress: Progress, responses: Sequence[Response], name: str, strategy: str) -> None:
    recipe = run.recipe
    loaded = {checkpoint: _sampler(folder, recipe) for checkpoint, folder in _checkpoints(run).items()}
    folder = run.path / "labels"
    tokenizer = next(iter(loaded.values()))[1]
    with open_sandbox(run) as sandbox:
        labelling = label_responses(
            responses,
            load_problems_jsonl(folder.parent / "problems" / "label.jsonl"),
            samplers={checkpoint: sampler for checkpoint, (sampler, _) in loaded.items()},
            tokenizer=tokenizer,
            sandbox=sandbox,
            settings=recipe.labels.model_copy(update={"strategy": strategy}),
            sampling=recipe.sampling,
            seed=recipe.seed,
            journal=folder / f"{name}.journal.jsonl",
            progress=progress,
            surprise=PolicySurprise({checkpoint: sampler.model for checkpoint, (sampler, _) in loaded.items()}),
        )
    write_labels(folder / f"{name}.jsonl", labelling.labels, tokenizer=tokenizer)
    write_json(folder / f"{name}.usage.json", asdict(labelling.usage))


def _label_summary(run: RunDirectory, labels: Sequence[LineLabels], usages: Sequence[LabelUsage]) -> dict[str, Any]:
    return {"cost": cost_summary(labels, merge_usage(usages)), "quality": _quality(run, labels)}


def _drawn(labels: Sequence[LineLabels]) -> int:
    return sum(probe.drawn for label in labels for probe in label.probes)


def _quality(run: RunDirectory, labels: Sequence[LineLabels]) -> dict[str, Any] | None:
    if not embedded(run.recipe):
        return None
    exact = load_exact(run.path / "labels" / "exact.jsonl")
    difficulty = {p.id: p.difficulty for p in load_problems_jsonl(run.path / "problems" / "label.jsonl")}
    truth = [exact[response_key(label.response)].last_on_track for label in labels]
    return measure_labels(labels, truth, [difficulty[label.response.problem_id] for label in labels]).to_json()


def _usage(path: Path) -> LabelUsage:
    return LabelUsage(**json.loads(path.read_text(encoding="utf-8")))


def _read_labels(path: Path) -> list[LineLabels]:
    return list(read_jsonl(path, LineLabels.from_json))


def _responses(run: RunDirectory) -> list[Response]:
    return list(read_jsonl(run.path / "labels" / "responses.jsonl", Response.from_json))


def _checkpoints(run: RunDirectory) -> dict[str, Path]:
    """The baseline's checkpoints in training order, `baseline/step-N` to folder."""
    folders = sorted(
        (run.path / "rl" / BASELINE / "checkpoints").iterdir(), key=lambda p: int(p.name.partition("-")[2])
    )
    return {f"{BASELINE}/{folder.name}": folder for folder in folders}


def _sampler(folder: Path, recipe: Recipe) -> tuple[HFSampler, PreTrainedTokenizerBase]:
    model, tokenizer = load_policy(folder, device=chosen_device(recipe))
    return HFSampler(model, tokenizer, batch_size=recipe.sampling.batch_size), tokenizer
