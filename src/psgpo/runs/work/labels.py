"""Responses of the baseline, or of another run's arm, and their line labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from psgpo.chats import recipe_template
from psgpo.config import LabelSettings
from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl, write_json, write_jsonl
from psgpo.labeling import (
    LabelUsage,
    cost_summary,
    cut_at_function_end,
    label_responses,
    make_twins,
    measure_labels,
    merge_usage,
    refuse_other_tokenizer,
    sample_responses,
    shard_responses,
    write_labels,
)
from psgpo.labeling.strategies import READS_SURPRISE
from psgpo.labeling.surprise import PolicySurprise
from psgpo.lines import TokenText
from psgpo.models import load_tokenizer
from psgpo.prm import (
    load_exact,
    response_key,
)
from psgpo.problems import load_problems_jsonl
from psgpo.problems.opchain.oracle import ExactOracle
from psgpo.records import LineLabels, Response
from psgpo.runs.directory import RunDirectory
from psgpo.runs.labelled import labelled_checkpoints, refuse_other_policy
from psgpo.runs.networks import check_split_prompts
from psgpo.runs.opening import open_sandbox
from psgpo.runs.stages import embedded, policy_folder
from psgpo.runs.work.shared import Progress, opened_sampler, read_labels
from psgpo.sampling import HFSampler


def sample_labelled_responses(run: RunDirectory, progress: Progress) -> None:
    """labels/responses.jsonl: responses of every labelled checkpoint; with exact labels where there is an oracle."""
    recipe = run.recipe
    problems = load_problems_jsonl(run.path / "problems" / "label.jsonl")
    by_id = {problem.id: problem for problem in problems}
    parts = run.path / "labels" / "responses"
    refuse_other_policy(recipe, policy_folder(run.path, "sft"))
    checkpoints = labelled_checkpoints(recipe, run.path)
    check_split_prompts(run, next(iter(checkpoints.values())), "label")
    with open_sandbox(run) as sandbox:
        for number, (name, folder) in enumerate(checkpoints.items()):
            part = parts / f"{number + 1}.jsonl"
            if not part.is_file():
                with opened_sampler(folder, recipe) as (sampler, tokenizer):
                    drawn = sample_responses(
                        sampler,
                        tokenizer,
                        problems,
                        sandbox,
                        checkpoint=name,
                        responses_per_problem=recipe.labels.responses_per_problem,
                        seed=recipe.seed,
                        prompt_template=recipe_template(recipe, tokenizer),
                        settings=recipe.sampling,
                    )
                    text = TokenText(tokenizer)
                    drawn = [cut_at_function_end(response, by_id[response.problem_id], text) for response in drawn]
                write_jsonl(part, (response.to_json() for response in drawn))
            progress(number + 1, len(checkpoints))
        files = [parts / f"{number + 1}.jsonl" for number in range(len(checkpoints))]
        responses = [response for file in files for response in read_jsonl(file, Response.from_json)]
        if embedded(recipe):
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
    labels = [label for shard in shards for label in read_labels(folder / f"{shard}.jsonl")]
    if not labels:
        raise UserError(f"{folder}: nothing was labelled; raise problems.label or labels.responses_per_problem")
    write_labels(folder / "labels.jsonl", labels)
    summary = _label_summary(run, labels, [_usage(folder / f"{shard}.usage.json") for shard in shards])
    if run.recipe.labels.compare_linear:
        linear = [label for label in read_labels(folder / "linear.jsonl") if not label.response.verdict.passed]
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


def make_label_twins(run: RunDirectory, progress: Progress) -> None:
    """labels/twins.jsonl: programs made of failed responses and right endings, labelled and run."""
    folder = run.path / "labels"
    tokenizer = load_tokenizer(policy_folder(run.path, "sft"))
    labels = read_labels(folder / "labels.jsonl")
    refuse_other_tokenizer(labels, tokenizer, str(folder / "labels.jsonl"))
    with open_sandbox(run, timeout=run.recipe.labels.timeout_seconds) as sandbox:
        twins = make_twins(
            labels,
            load_problems_jsonl(run.path / "problems" / "label.jsonl"),
            tokenizer=tokenizer,
            sandbox=sandbox,
            seed=run.recipe.seed,
            max_tokens=run.recipe.sampling.max_new_tokens,
            progress=progress,
        )
    write_labels(folder / "twins.jsonl", twins, tokenizer=tokenizer)


def _label(run: RunDirectory, progress: Progress, responses: Sequence[Response], name: str, strategy: str) -> None:
    recipe = run.recipe
    folder = run.path / "labels"
    with ExitStack() as stack:
        loaded = {
            checkpoint: stack.enter_context(opened_sampler(policy, recipe))
            for checkpoint, policy in _needed(labelled_checkpoints(recipe, run.path), recipe.labels, strategy).items()
        }
        samplers = {checkpoint: sampler for checkpoint, (sampler, _) in loaded.items()}
        models = {name: sampler.model for name, sampler in samplers.items() if isinstance(sampler, HFSampler)}
        tokenizer = next(iter(loaded.values()))[1]
        labelling = label_responses(
            responses,
            load_problems_jsonl(folder.parent / "problems" / "label.jsonl"),
            samplers=samplers,
            tokenizer=tokenizer,
            sandbox=stack.enter_context(open_sandbox(run, timeout=recipe.labels.timeout_seconds)),
            settings=recipe.labels.model_copy(update={"strategy": strategy}),
            sampling=recipe.sampling,
            seed=recipe.seed,
            journal=folder / f"{name}.journal.jsonl",
            progress=progress,
            surprise=PolicySurprise(models) if len(models) == len(samplers) else None,
        )
    write_labels(folder / f"{name}.jsonl", labelling.labels, tokenizer=tokenizer)
    write_json(folder / f"{name}.usage.json", asdict(labelling.usage))


def _needed(checkpoints: dict[str, Path], settings: LabelSettings, strategy: str) -> dict[str, Path]:
    """Those that complete prefixes or, where a strategy asks how sure a response's writer was, wrote them."""
    if settings.completer == "last" and strategy not in READS_SURPRISE:
        return dict([*checkpoints.items()][-1:])
    return checkpoints


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


def _responses(run: RunDirectory) -> list[Response]:
    return list(read_jsonl(run.path / "labels" / "responses.jsonl", Response.from_json))
