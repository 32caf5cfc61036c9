"""A whole recipe: its tables together, and what must fit between them."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from psgpo.config.base import Positive, PositiveFloat, Section
from psgpo.config.policy import CriticSettings, ModelSettings, RlSettings, SamplingSettings, SftSettings
from psgpo.config.problems import BenchmarkSource, JsonlSource, OpChainSource
from psgpo.config.rewards import READABLE, ArmSettings, LabelSettings, MutationSettings, PrmSettings
from psgpo.prompts import SLOT, has_slot, slot_fault

RECORDED = "recorded"
"""Key of the validation's context: whether the recipe is that of a run that exists (`parse_recipe`)."""
HOW_KEYS = frozenset({"processes", "out", "tracking", "parallel", "sandbox.workers"})
"""Keys of a recipe that change how a run is carried out, not what comes out; `table.key` is a key of a table."""


class EvaluationSettings(Section):
    """pass@k on held-out problems."""

    samples: Positive = 8
    """Responses per problem."""
    greedy: bool = True
    """Also one greedy response per problem."""
    temperature: PositiveFloat = 1.0
    """Of the samples."""
    bootstrap: Positive = 2000
    """Resamples of problems behind every interval."""
    at: tuple[Positive, ...] = ()
    """The k of pass@k in the report's tables of test sets (`problems.test` of benchmarks); empty: `samples` alone."""

    @model_validator(mode="after")
    def _enough_samples(self) -> Self:
        if max(self.at, default=0) > self.samples:
            raise ValueError(f"at = {list(self.at)}: pass@{max(self.at)} needs as many samples, found {self.samples}")
        return self


class SandboxSettings(Section):
    """Limits of one untrusted program."""

    timeout_seconds: PositiveFloat = 2.0
    """Wall time (seconds) that one program may take for all of its tests."""
    test_timeout_seconds: PositiveFloat | None = None
    """Wall time (seconds) that one test may take; absent: no limit but that of all tests."""
    memory_mb: Annotated[int, Field(ge=64)] = 256
    """Its memory (MB)."""
    packages: tuple[str, ...] = ()
    """Installed packages that programs may import besides the standard library. They need room in `memory_mb`: numpy
    wants 1024."""
    workers: Positive | None = None
    """Programs that one stage runs side by side; absent: the cores of the machine, divided among the stages or
    processes that run at once. No verdict depends on it, unless there are more of them than cores: time limits are of
    wall time."""
    allow_unconfined: bool = False
    """Run even where neither seccomp nor Landlock is available. For machines whose content does not matter."""

    def limits(self) -> dict[str, Any]:
        """Arguments of `psgpo.execution.Sandbox`: all but how many programs run at once, and the cache."""
        return {
            "timeout": self.timeout_seconds,
            "test_timeout": self.test_timeout_seconds,
            "memory_mb": self.memory_mb,
            "packages": self.packages,
            "allow_unconfined": self.allow_unconfined,
        }


class ParallelSettings(Section):
    """How the processes that a launcher started (docs/training-at-scale.md) train together; one process ignores it."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """ddp: every process holds all weights and optimizer states. fsdp: each holds a part of them."""


class TrackingSettings(Section):
    """Where metrics are shown while a run goes on; `metrics.jsonl` of every stage has them anyway."""

    to: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = ("tensorboard",)
    """`[]`: nowhere. TensorBoard reads the run's folder `tracking/tensorboard`."""
    project: str | None = None
    """W&B's, trackio's or MLflow's name for runs that belong together; default: the name of this run."""


class Recipe(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    """Of the run, for people and trackers."""
    out: Path
    """The run directory."""
    seed: int = 0
    """Every random number of the run follows from it."""
    device: Literal["cpu", "cuda", "auto"] = "auto"
    """auto: a GPU where there is one."""
    processes: Positive = 2
    """Stages run side by side, and label workers."""
    prompt_template: str = "# {prompt}\n"
    """What the model reads; `{prompt}` is the problem's text. In a chat it is the user's message, by default the
    problem alone."""
    prompt_chat: bool = False
    """Put it into the chat template of the model's tokenizer, see docs/prompts.md."""
    prompt_system: str | None = None
    """The system prompt of the chat; absent: what the chat template writes by itself."""
    problems: Annotated[OpChainSource | JsonlSource | BenchmarkSource, Field(discriminator="kind")]
    """Where problems come from; `kind` chooses."""
    model: ModelSettings = ModelSettings()
    critic: CriticSettings = CriticSettings()
    sft: SftSettings = SftSettings()
    sampling: SamplingSettings = SamplingSettings()
    sandbox: SandboxSettings = SandboxSettings()
    rl: RlSettings = RlSettings()
    labels: LabelSettings = LabelSettings()
    mutation: MutationSettings = MutationSettings()
    prm: dict[str, PrmSettings] = {}  # noqa: RUF012 (pydantic copies it)
    """Process and outcome reward models, each under a name of your choice."""
    arms: dict[str, ArmSettings]
    """RL runs, each under a name of your choice; `[arms.baseline]`, without settings, must be there."""
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()
    parallel: ParallelSettings = ParallelSettings()

    def rl_of(self, arm: str) -> RlSettings:
        """PPO's settings of an arm: the table `rl`, but for what `arms.<arm>.rl` has instead."""
        own = self.arms[arm].rl
        return self.rl if own is None else RlSettings.model_validate(self.rl.model_dump() | own.model_dump())

    @model_validator(mode="before")
    @classmethod
    def _message(cls, table: Any) -> Any:
        if isinstance(table, dict) and table.get("prompt_chat") is True:
            return {"prompt_template": SLOT} | table
        return table

    @model_validator(mode="before")
    @classmethod
    def _start_scores(cls, table: Any) -> Any:
        """R_0 of `difference` where the recipe does not say it: 0 of PRMs that start there."""
        prms, arms = (table.get(key) if isinstance(table, dict) else None for key in ("prm", "arms"))
        if not isinstance(prms, dict) or not isinstance(arms, dict):
            return table
        return table | {"arms": {name: _with_start(arm, prms) for name, arm in arms.items()}}

    @model_validator(mode="after")
    def _chat_fits(self) -> Self:
        if self.prompt_chat and self.model.path is None:
            raise ValueError("prompt_chat needs model.path: a new model's tokenizer has no chat template")
        if self.prompt_system is not None and not self.prompt_chat:
            raise ValueError("prompt_system is part of a chat; set prompt_chat = true or write it into prompt_template")
        if has_slot(self.prompt_system or ""):
            raise ValueError("prompt_system must not contain {prompt}; the problem goes into prompt_template")
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if "baseline" not in self.arms or self.arms["baseline"] != ArmSettings():
            raise ValueError("arms.baseline must be there, without settings: its checkpoints are what is labelled")
        for name in [*self.arms, *self.prm]:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"{name!r} names a folder: use letters, digits, '-' and '_'")
        if "oracle" in self.prm or "sft" in self.arms:
            raise ValueError("the names prm.oracle and arms.sft are taken; choose another")
        for arm, settings in self.arms.items():
            for key, value in (("prm", settings.prm), ("value_init", settings.value_init)):
                if value is None or value in self.prm or (key == "prm" and value == "oracle"):
                    continue
                known = [*self.prm, *(["oracle"] if key == "prm" else [])]
                raise ValueError(f"arms.{arm}.{key} = {value!r} is not a PRM of this recipe; allowed: {known}")
            start = self.prm.get(settings.value_init or "")
            starts = "value_map" if settings.value_map == "head" else "value_init" if start is not None else ""
            if starts and self.rl_of(arm).advantage != "gae":
                raise ValueError(f"arms.{arm}.{starts} starts a critic, and only advantage = 'gae' has one")
            if start is not None and settings.value_map == "probability" and start.target != "sign":
                raise ValueError(f"arms.{arm}.value_map = 'probability' needs a PRM of target 'sign'")
            target = None if settings.prm in (None, "oracle") else self.prm[settings.prm].target
            if target is not None and target not in (wanted := READABLE[settings.line_reward]):
                targets = " or ".join(map(repr, wanted))
                raise ValueError(f"arms.{arm}: line_reward {settings.line_reward!r} needs a PRM of target {targets}")
            if target not in (None, "sign") and settings.line_score == "signed":
                raise ValueError(f"arms.{arm}: line_score = 'signed' needs a PRM of target 'sign'")
        needs_oracle = any(a.prm == "oracle" for a in self.arms.values())
        needs_oracle |= any(p.labels == "oracle" for p in self.prm.values())
        if needs_oracle and self.problems.kind != "opchain":
            raise ValueError("'oracle' needs problems.kind = 'opchain': only the embedded benchmark has exact labels")
        if fault := slot_fault(self.prompt_template):
            raise ValueError(f"prompt_template {fault}")
        for table, rl in {"rl": self.rl, **{f"arms.{arm}.rl": self.rl_of(arm) for arm in self.arms}}.items():
            if rl.prompts_per_step * rl.responses_per_prompt % rl.minibatches:
                raise ValueError(f"{table}.minibatches must divide {table}.prompts_per_step * responses_per_prompt")
            if rl.steps < rl.checkpoints:
                raise ValueError(f"{table}.checkpoints cannot exceed {table}.steps")
            if rl.advantage != "gae" and rl.responses_per_prompt < 2:
                raise ValueError(f"{table}.advantage = {rl.advantage!r} compares responses: set responses_per_prompt")
            if rl.advantage != "gae" and rl.critic_warmup:
                raise ValueError(f"{table}.advantage = {rl.advantage!r} has no critic; leave critic_warmup out")
        if self.model.path is not None and self.sft.examples and self.sft.optimizer == "muon":
            raise ValueError(
                "sft.optimizer = 'muon' and its learning rates are for new models; with model.path set "
                "sft.optimizer = 'adamw' and sft.learning_rate (1e-5, say), or sft.examples = 0"
            )
        if self.critic.path is not None and self.model.path is None:
            raise ValueError(
                "critic.path needs model.path: a new model has a tokenizer of its own, which no folder shares"
            )
        muon = ["sft"] if self.sft.examples and self.sft.optimizer == "muon" else []
        muon += [f"prm.{name}" for name, settings in self.prm.items() if settings.optimizer == "muon"]
        if self.parallel.strategy == "fsdp" and muon:
            raise ValueError(f"{muon[0]}.optimizer = 'muon' needs whole matrices: with parallel.strategy 'fsdp', adamw")
        if self.sft.lora and self.model.lora is None:
            raise ValueError("sft.lora needs the sizes of the adapters: set model.lora.rank")
        if self.sft.lora and not self.sft.examples:
            raise ValueError("sft.lora with sft.examples = 0: nothing is fine-tuned; leave one of them out")
        if self.model.path is None and self.sft.examples == 0:
            raise ValueError("a new model (no model.path) needs sft.examples > 0")
        return self

    @model_validator(mode="after")
    def _has_an_effect(self, info: ValidationInfo) -> Self:
        """Settings that earlier versions took and did nothing with; a run that has them can still be read."""
        if (info.context or {}).get(RECORDED):
            return self
        for arm, settings in self.arms.items():
            if settings.value_init is None and settings.value_map in ("identity", "probability"):
                raise ValueError(
                    f"arms.{arm}.value_map = {settings.value_map!r} maps a PRM's scores: name it in value_init"
                )
            behind = self.prm.get(settings.prm or "")
            raw = settings.line_reward == "program" and settings.line_score == "score"
            if behind is not None and behind.kind != "causal" and raw:
                raise ValueError(
                    f"arms.{arm}: prm.{settings.prm} of kind {behind.kind!r} gives logits: none is the worst, to pay a "
                    "response without a program with; set line_score = 'signed'"
                )
        for table, rl in {"rl": self.rl, **{f"arms.{arm}.rl": self.rl_of(arm) for arm in self.arms}}.items():
            if rl.critic_warmup >= rl.steps:
                raise ValueError(
                    f"{table}.critic_warmup leaves the policy no step to learn in: less than {table}.steps"
                )
        return self

    @model_validator(mode="after")
    def _reward_models_fit(self) -> Self:
        for arm, settings in self.arms.items():
            scope = "program" if settings.line_reward == "program" else "line"
            behind = self.prm.get(settings.prm or "")
            if settings.prm is not None and scope != (behind.scope if behind else "line"):
                raise ValueError(f"arms.{arm}: line_reward {settings.line_reward!r} needs a PRM of scope {scope!r}")
            start = self.prm.get(settings.value_init or "")
            if start is not None and (start.kind, start.scope) != ("causal", "line"):
                raise ValueError(f"arms.{arm}.value_init: a critic starts from a PRM of kind 'causal', scope 'line'")
            if start is not None and start.init is not None and self.model.path is None:
                raise ValueError(
                    f"arms.{arm}.value_init: prm.{settings.value_init}.init is of no new model's tokenizer; leave init "
                    "out, or set model.path"
                )
        for name, prm in self.prm.items():
            most = self.model.layers if self.model.path is None and prm.init is None else None
            if prm.layers is not None and most is not None and prm.layers > most:
                raise ValueError(
                    f"prm.{name}.layers = {prm.layers}: the policy has model.layers = {most}; give no more"
                )
        twins = [name for name, prm in self.prm.items() if prm.twins]
        if twins and not (self.labels.strategy == "splice" and self.labels.references):
            raise ValueError(
                f"prm.{twins[0]}.twins: their endings are those of splices; set labels.strategy = 'splice' and "
                "labels.references = true, or leave twins out"
            )
        by_lines = [*(["labels.halving"] if self.labels.halving else []), *(f"prm.{name}.twins" for name in twins)]
        if by_lines and self.problems.kind == "benchmark":
            raise ValueError(f"{by_lines[0]} is for programs joined by lines, the embedded benchmark's; leave it out")
        plus = getattr(self.problems, "plus", None)
        if plus is not None and self.labels.source != "mutation":
            raise ValueError("problems.plus has tests for mutants; set labels.source = 'mutation', or leave it out")
        if self.labels.source == "search" and self.mutation != MutationSettings():
            raise ValueError("the table mutation makes mutants; set labels.source = 'mutation', or remove it")
        if self.labels.source == "mutation":
            for name, prm in self.prm.items():
                found = (prm.target, prm.labels, prm.select, prm.responses, prm.neutral_labels, prm.noise)
                if found != ("sign", "search", "full", None, True, 0.0):
                    raise ValueError(
                        f"prm.{name}: mutants have labels of lines and nothing else; leave labels, select, responses, "
                        "noise and neutral_labels out, with target = 'sign'"
                    )
        elif self.labels.strategy != "soft":
            for name, prm in self.prm.items():
                if prm.target == "soft":
                    raise ValueError(f"prm.{name}.target = 'soft' needs the rates of labels.strategy = 'soft'")
        return self


def without_keys(table: Mapping[str, Any], keys: Set[str]) -> dict[str, Any]:
    """A recipe's table without some keys, of which `table.key` is one of a table in it."""
    kept = {key: value for key, value in table.items() if key not in keys}
    for place in keys:
        name, _, key = place.partition(".")
        if key and isinstance(kept.get(name), Mapping):
            kept[name] = without_keys(kept[name], {key})
    return kept


def _with_start(arm: Any, prms: dict[str, Any]) -> Any:
    if not isinstance(arm, dict) or arm.get("line_reward") != "difference" or "start_score" in arm:
        return arm
    prm = prms.get(str(arm.get("prm")))
    starts_at_0 = isinstance(prm, dict) and prm.get("target") in ("progress", "soft")
    return arm | {"start_score": 0.0} if starts_at_0 else arm
