"""A recipe, a device and what is assumed -> the plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

from psgpo.config import LoraSettings, Recipe
from psgpo.errors import UserError
from psgpo.models import ShiftConfig
from psgpo.runs.hub import cached_folder
from psgpo.runs.plan.devices import DECODING_SHARE, DEVICES, GIB, TRAINING_SHARE, Device, room
from psgpo.runs.plan.memory import StageMemory, StagePlanner
from psgpo.runs.plan.mutants import described, references
from psgpo.runs.plan.work import Assumed, StageWork, counted_problems, stages_work


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What to plan for, beside the recipe."""

    device: str = "a100-80g"
    """A name of `DEVICES`."""
    memory_gb: float | None = None
    """GiB of the device; None: what it is sold with."""
    prompt_tokens: int = 300
    response_tokens: int | None = None
    """Mean; None: half of `sampling.max_new_tokens`."""
    longest_prompt: int | None = None
    """None: twice the mean."""
    line_tokens: int = 10
    pass_rate: float = 0.3
    processes: int = 1
    """That a launcher starts to train together (docs/training-at-scale.md), each with a device of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run will take."""

    recipe: Recipe
    device: Device
    wanted: Wanted
    assumed: Assumed
    notes: list[str]
    parameters: dict[str, int]
    """Of policy and critic."""
    memory: list[StageMemory]
    work: list[StageWork]
    seconds: dict[str, float]
    """By stage, over all processes' devices: trainings are shared, other stages dealt."""
    remedy: str | None
    """What to change where a stage does not fit; None where all do."""

    @property
    def largest(self) -> StageMemory:
        """The stage with the highest peak."""
        return max(self.memory, key=lambda stage: stage.peak)


def make_plan(recipe: Recipe, wanted: Wanted) -> Plan:
    """Plan a run.

    Raises:
        UserError: an unknown device, or a config.json that is not here.
    """
    if wanted.device not in DEVICES:
        raise UserError(f"--device {wanted.device!r}: known are {', '.join(DEVICES)}; or give the nearest and --memory")
    device = DEVICES[wanted.device]
    if wanted.memory_gb is not None:
        device = Device(memory=int(wanted.memory_gb * GIB), bandwidth=device.bandwidth, flops=device.flops)
    problems, notes = counted_problems(recipe)
    made = None
    if recipe.prm and recipe.labels.source == "mutation":
        made = references(recipe, problems["label"])
        notes.append(described(recipe, made))
    of = recipe.labels.of
    if recipe.prm and of is not None and not (of / "checkpoints").is_dir():
        notes.append(f"labels.of: {of} is not here, {recipe.rl.checkpoints} checkpoints assumed")
    mean = wanted.response_tokens or max(1, recipe.sampling.max_new_tokens // 2)
    longest = wanted.longest_prompt or 2 * wanted.prompt_tokens
    assumed = Assumed(
        prompt_tokens=wanted.prompt_tokens,
        response_tokens=mean,
        line_tokens=wanted.line_tokens,
        pass_rate=wanted.pass_rate,
        problems=problems,
        references=made,
    )
    gpu = wanted.device != "cpu"
    planner = planner_of(recipe, longest, gpu=gpu, processes=wanted.processes)
    readers = {name: planner.reader(name) for name in recipe.prm}
    notes += [
        f"prm.{name} is not planned: n-gram models need no such device"
        if prm.kind == "ngrams"
        else f"prm.{name} is not planned: init = '{prm.init}', its config.json is not here"
        for name, prm in recipe.prm.items()
        if readers[name] is None
    ]
    memory = list(planner.stages())
    work = stages_work(recipe, assumed, planned={name for name, network in readers.items() if network is not None})
    sizes = {f"prm-{name}": network.parameters for name, network in readers.items() if network is not None}
    weights, count = planner.policy.weights, planner.policy.parameters
    fits = all(stage.peak <= room(device.memory) for stage in memory)
    return Plan(
        recipe=recipe,
        device=device,
        wanted=wanted,
        assumed=assumed,
        notes=notes,
        parameters={"policy": planner.policy.parameters, "critic": planner.critic.parameters},
        memory=memory,
        work=work,
        seconds={
            one.stage: _seconds(one, sizes.get(one.stage, count), weights, device, recipe) / wanted.processes
            for one in work
        },
        remedy=None if fits else remedy(recipe, longest, device.memory, gpu=gpu, processes=wanted.processes),
    )


def planner_of(recipe: Recipe, longest_prompt: int, *, gpu: bool = True, processes: int = 1) -> StagePlanner:
    """The memory of a recipe's stages for rows of the longest prompt and `sampling.max_new_tokens`.

    Raises:
        UserError: no config.json of policy or critic.
    """
    config = model_config(recipe.model.path, "model.path") if recipe.model.path is not None else new_model(recipe)
    critic = None if recipe.critic.path is None else model_config(recipe.critic.path, "critic.path")
    row = longest_prompt, recipe.sampling.max_new_tokens
    inits = {}
    for name, prm in recipe.prm.items():
        folder = None if prm.init is None else cached_folder(prm.init)
        if folder is not None and (folder / "config.json").is_file():
            inits[name] = model_config(folder, f"prm.{name}.init")
    return StagePlanner(recipe, config, row, critic, inits=inits, gpu=gpu, processes=processes)


def model_config(path: Path, key: str) -> PretrainedConfig:
    """config.json of a model folder or of a name in the Hub's cache; nothing is downloaded.

    Raises:
        UserError: there is none.
    """
    folder = cached_folder(path)
    if folder is None or not (folder / "config.json").is_file():
        raise UserError(
            f"{key} = '{path}': its config.json is not here, and a plan needs no other file; get it where there is a "
            f"network (hf download {path.as_posix()} config.json --local-dir FOLDER) and set {key} to that folder"
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: no usable config.json ({' '.join(str(error).split())[:200]})") from error
    return config


def new_model(recipe: Recipe) -> ShiftConfig:
    """The shape of the small decoder that a recipe without `model.path` makes."""
    model = recipe.model
    return ShiftConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        max_position_embeddings=model.max_positions,
        pad_token_id=0,
        eos_token_id=1,
    )


def remedy(recipe: Recipe, longest_prompt: int, memory: int, *, gpu: bool = True, processes: int = 1) -> str:
    """The first settings, one added to the other, with which every stage fits."""
    width = longest_prompt + recipe.sampling.max_new_tokens
    table = recipe.model_dump()
    tried: list[str] = []
    steps: list[tuple[str, str, object]] = [
        ("model", "dtype", "bfloat16"),
        ("model", "gradient_checkpointing", True),
        ("rl", "microbatch_tokens", width),
        ("sft", "microbatch_tokens", width),
        ("sampling", "batch_size", min(32, recipe.sampling.batch_size)),
        ("model", "lora", LoraSettings().model_dump()),
        ("sft", "lora", True),
    ]
    for section, key, value in steps:
        if section == "sft" and not recipe.sft.examples:
            continue
        if table[section].get(key) == value or (key == "lora" and table[section].get(key)):
            continue
        table[section][key] = value
        tried.append(f"{section}.{key} = {'{}' if key == 'lora' and section == 'model' else str(value).lower()}")
        if key == "microbatch_tokens":
            for prm in table["prm"].values():
                if prm["kind"] == "causal":
                    prm["microbatch_tokens"] = width
        if (section, key) == ("rl", "microbatch_tokens"):
            for name, arm in table["arms"].items():
                if arm["rl"] and key in arm["rl"]:
                    arm["rl"][key] = width
                    tried.append(f"arms.{name}.rl.{key} = {width}")
        planner = planner_of(Recipe.model_validate(table), longest_prompt, gpu=gpu, processes=processes)
        if all(stage.peak <= room(memory) for stage in planner.stages()):
            return "set " + ", ".join(tried)
    return (
        f"{', '.join(tried)} would not do either; lower sampling.max_new_tokens, take a larger device or several "
        "(accelerate launch, psgpo verl export)"
    )


def refuse_small_device(recipe: Recipe, memory: int) -> None:
    """Refuse a recipe whose largest stage does not fit into a device with so many bytes.

    Looks at responses of full length behind short prompts: what is refused cannot work.

    Raises:
        UserError: with the stage, what it needs, and settings that fit.
    """
    longest_prompt = 1
    for stage in planner_of(recipe, longest_prompt).stages():
        if stage.peak > memory:
            raise UserError(
                f"{stage.stage} needs {stage.peak / GIB:.1f} GiB on a device of {memory / GIB:.1f} GiB; "
                f"{remedy(recipe, longest_prompt, memory)} (see psgpo plan)"
            )


def _seconds(work: StageWork, parameters: int, weights: int, device: Device, recipe: Recipe) -> float:
    """Training at a share of the peak arithmetic; a decoding step reads all weights, or is bound by arithmetic too."""
    flops = device.flops[recipe.model.dtype]
    training = 2 * parameters * work.passes / (flops * TRAINING_SHARE)
    share = DECODING_SHARE[recipe.sampling.engine]
    decoding = max(
        work.generations * weights / (device.bandwidth * share),
        2 * parameters * work.generated / (flops * TRAINING_SHARE),
    )
    return training + decoding
