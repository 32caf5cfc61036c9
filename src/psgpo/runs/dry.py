"""`psgpo run RECIPE --dry-run`: everything that can be refused is refused now, and what would run is listed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from psgpo.chats import recipe_template
from psgpo.config import BenchmarkSource, JsonlSource, Recipe
from psgpo.errors import UserError
from psgpo.evaluation.sets import parts_of
from psgpo.execution.packages import find_packages
from psgpo.parallel.launch import launched
from psgpo.records import Problem
from psgpo.runs.directory import RunDirectory
from psgpo.runs.labelled import check_labelled, refuse_other_policy
from psgpo.runs.reuse import Reusable, reusable
from psgpo.runs.splits import Tasks, load_splits, load_tasks, refuse_without_references
from psgpo.runs.stages import Stage, policy_folder, stage_graph, wanted_stages
from psgpo.runs.tracking import check_trackers


def dry_run(recipe: Recipe, reuse: Sequence[Path] = (), until: Sequence[str] | None = None) -> str:
    """Check recipe, run directory, trackers, device, problem files and model folder; write nothing.

    Args:
        reuse: other runs, whose stages would be taken over.
        until: list these stages and what they need; None: all.

    Returns:
        Stages with what each waits for, as text.

    Raises:
        UserError: what a run would have ended with, now or hours later.
    """
    wanted = wanted_stages(stage_graph(recipe), until)
    RunDirectory.resolve(recipe)
    check_trackers(recipe)
    find_packages(recipe.sandbox.packages)
    from psgpo.models import require_peft  # loads torch
    from psgpo.runs.opening import chosen_device
    from psgpo.runs.together import check_launcher

    if recipe.model.lora is not None:
        require_peft()
    if launched():
        check_launcher(recipe)
    run = RunDirectory(recipe.out, recipe)
    there = (recipe.out / "recipe.json").is_file()
    said = [f"{recipe.name}: {recipe.out} ({'goes on' if there else 'new'})"]
    many = f"{os.environ['WORLD_SIZE']} processes together" if launched() else f"{recipe.processes} stages side by side"
    said += [f"device {chosen_device(recipe)}, {many}"]
    said += [f"tracking: {', '.join(recipe.tracking.to) or 'none'}"]
    said += [*_policy(recipe), *_reward_models(recipe), *_labelled(run)]
    splits: dict[str, list[Problem]] = {}
    if isinstance(recipe.problems, JsonlSource):
        splits = load_splits(recipe.problems)
        refuse_without_references(splits["train"], str(recipe.problems.train), recipe.sft)
        said += ["problems: " + ", ".join(f"{len(problems)} {split}" for split, problems in splits.items())]
    if isinstance(recipe.problems, BenchmarkSource):
        tasks = load_tasks(recipe)
        splits = tasks.splits
        said += _benchmarks(tasks)
    if recipe.sampling.engine == "vllm" and find_spec("vllm") is None:
        raise UserError("sampling.engine = 'vllm': vLLM is not in this environment; see docs/samplers.md")
    _check_uses(recipe, splits.get("train", []))
    _check_prompts(recipe, splits)
    _fits(recipe, chosen_device(recipe))
    found = reusable(run, reuse, until)
    return "\n".join([*said, *found.notes, *_stages(run, found, wanted)]) + "\n"


def _stages(run: RunDirectory, found: Reusable, graph: Mapping[str, Stage]) -> list[str]:
    """A line for every stage: done, taken over, or what it waits for."""
    width = max(map(len, graph))
    done = {name: "done" for name in graph if run.stage_done(name)}
    done |= {name: f"taken from {source.path}" for name, source in found.taken.items()}
    said = []
    for name, stage in graph.items():
        waits = [need for need in stage.needs if need not in done] if name != "report" else []
        to_do = "to do" + (f", after {', '.join(waits)}" if waits else "")
        said.append(f"  {name:<{width}}  {done.get(name, to_do)}")
    return said


def _fits(recipe: Recipe, device: str) -> None:
    """Refuse a GPU that is too small, as far as it can be known now."""
    if device != "cuda" or recipe.sampling.engine == "vllm":
        return
    from psgpo.runs.hub import cached_folder
    from psgpo.runs.plan.make import refuse_small_device

    paths = [path for path in (recipe.model.path, recipe.critic.path) if path is not None]
    memory = _only_gpu()
    if memory is not None and all(cached_folder(path) is not None for path in paths):
        refuse_small_device(recipe, memory)


def _only_gpu() -> int | None:
    """Bytes of this machine's GPU; None where several may share the networks."""
    import torch

    return int(torch.cuda.mem_get_info()[1]) if torch.cuda.device_count() == 1 else None


_HUB = "from the Hugging Face Hub"
"""Of a model that is not here yet, so that there is nothing to look at."""


def _policy(recipe: Recipe) -> list[str]:
    """What the policy and a critic of its own are, as far as they are here."""
    from psgpo.models import check_policy_folder, load_tokenizer  # loads torch
    from psgpo.runs.hub import cached_folder
    from psgpo.runs.networks import check_critic
    from psgpo.sampling.rows import refuse_encoder_prompts

    if recipe.model.path is None:
        return []
    context = recipe.sampling.max_new_tokens
    folder = cached_folder(recipe.model.path)
    critic = None if recipe.critic.path is None else cached_folder(recipe.critic.path)
    if folder is None:
        said = [f"model: {recipe.model.path}, {_HUB}"]
    else:
        said = [f"model: {check_policy_folder(folder, context=context)}"]
        tokenizer = load_tokenizer(folder)
        recipe_template(recipe, tokenizer)
        if recipe.sampling.engine == "vllm":
            refuse_encoder_prompts(tokenizer, "sampling.engine = 'vllm'")
    if critic is not None and folder is not None:
        said += [f"critic: {check_critic(critic, folder, context=context)}"]
    elif recipe.critic.path is not None:
        said += [f"critic: {recipe.critic.path}" + (f", {_HUB}" if critic is None else "")]
    return said


def _labelled(run: RunDirectory) -> list[str]:
    """Whose responses are labelled, where they are another run's."""
    from psgpo.runs.hub import cached_folder

    recipe = run.recipe
    if not recipe.prm or recipe.labels.of is None:
        return []
    steps = ", ".join(checkpoint.name for checkpoint in check_labelled(recipe))
    known = policy_folder(run.path, "sft") if run.stage_done("sft") else None
    if known is None and recipe.model.path is not None:
        known = cached_folder(recipe.model.path)
    if known is not None:
        refuse_other_policy(recipe, known)
    return [f"labels: responses of {recipe.labels.of}, {steps}"]


def _reward_models(recipe: Recipe) -> list[str]:
    """A line for every reward model that starts from a model of its own, looked at where it is here."""
    from psgpo.prm.train_options import check_architecture  # loads torch
    from psgpo.runs.hub import cached_folder

    said = []
    for name, prm in recipe.prm.items():
        start = prm.init or recipe.model.path
        _check_layers(f"prm.{name}", prm.layers, None if start is None else cached_folder(start))
        if prm.init is None:
            continue
        folder = cached_folder(prm.init)
        if folder is not None:
            check_architecture(prm.kind, folder, f"prm.{name}.init")
        where = f"{prm.init}, {_HUB}" if folder is None else str(prm.init)
        said.append(f"prm {name}: {prm.kind}, scope {prm.scope}, {where}")
    return said


def _check_layers(key: str, layers: int | None, folder: Path | None) -> None:
    from psgpo.models import limit_layers  # loads torch
    from psgpo.runs.plan.make import model_config

    if layers is not None and folder is not None:
        try:
            limit_layers(model_config(folder, f"{key}.init"), layers)
        except UserError as error:
            raise UserError(f"{key}.{error}") from None


def _check_uses(recipe: Recipe, train: list[Problem]) -> None:
    """Whether causal reward models of other models, as far as they are here, can do what the arms want of them.

    Args:
        train: problems, where they are known before a run.
    """
    from psgpo.models import load_tokenizer  # loads torch
    from psgpo.runs.hub import cached_folder
    from psgpo.runs.networks import causal_template, check_critic, check_line_reader

    policy = None if recipe.model.path is None else cached_folder(recipe.model.path)
    limit = recipe.sampling.max_new_tokens
    for name, prm in recipe.prm.items():
        folder = None if prm.init is None or prm.kind != "causal" else cached_folder(prm.init)
        if folder is None or (policy is None and recipe.model.path is not None):
            continue
        key, own = f"prm.{name}.init", load_tokenizer(folder)
        template = causal_template(recipe, own if policy is None else load_tokenizer(policy), own)
        if name in {arm.prm for arm in recipe.arms.values()}:
            check_line_reader(folder, key, template, train, limit)
        if policy is not None and name in {arm.value_init for arm in recipe.arms.values()}:
            check_critic(folder, policy, key=key, context=limit)


def _check_prompts(recipe: Recipe, splits: dict[str, list[Problem]]) -> None:
    """Whether prompts and responses fit the models that are here.

    Args:
        splits: problems, where they are known before a run.
    """
    from psgpo.runs.hub import cached_folder
    from psgpo.runs.networks import check_prompts, drawn_splits  # loads torch

    policy = None if recipe.model.path is None else cached_folder(recipe.model.path)
    if policy is None:
        return
    starts = {"the critic": recipe.critic.path}
    starts |= {
        f"prm.{arm.value_init}.init": recipe.prm[arm.value_init].init for arm in recipe.arms.values() if arm.value_init
    }
    folders = {name: None if path is None else cached_folder(path) for name, path in starts.items()}
    here = {name: folder for name, folder in folders.items() if folder is not None}
    drawn = {split: splits[split] for split in drawn_splits(recipe) if split in splits}
    check_prompts(recipe, {"the policy": policy}, policy, drawn)
    check_prompts(recipe, here, policy, {split: drawn[split] for split in ("train",) if split in drawn})


def _benchmarks(tasks: Tasks) -> list[str]:
    """How many problems there are for what, and which tests were trained on."""
    counts = [f"{len(problems)} {split}" for split, problems in tasks.splits.items() if split != "test"]
    return ["problems: " + ", ".join(counts), *(f"test {part.title}" for part in parts_of(tasks.tests))]
