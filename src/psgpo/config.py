"""Recipes: TOML files, checked whole before anything runs. No torch.

A recipe that loads is a recipe that can run: unknown keys, wrong types and impossible combinations raise
`UserError` with the key, what was found and what is allowed. The resolved recipe is written into the run directory.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from psgpo.errors import UserError


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"{list(value)} is an empty range; write [fewest, most]")
    return value


Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]


class Section(BaseModel):
    """One table of a recipe: unknown keys are refused, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OpChainSource(Section):
    """The embedded benchmark, made from a seed. See docs/opchain.md."""

    kind: Literal["opchain"] = "opchain"
    sparseness: PositiveFloat = 1.1
    """Scales the misconception rates of the SFT data: higher means fewer programs pass at first."""
    train: Positive = 2000
    """Problems for RL."""
    train_operations: Range = (6, 9)
    """Fewest and most operations of a training problem."""
    label: Positive = 200
    """Problems whose responses are labelled; from the training split."""
    label_operations: Range = (1, 6)
    """Shorter than the training problems: on long programs the policy cannot complete even good prefixes."""
    validation: Positive = 128
    test: Positive = 256
    test_operations: Range = (1, 8)
    """Of validation and test problems."""


class JsonlSource(Section):
    """Your own problems, one `Problem` record a line."""

    kind: Literal["jsonl"]
    train: Path
    test: Path
    validation: Path | None = None
    """Copied into the run beside the others; no stage reads it."""
    label: Path | None = None
    """Problems to label; the training problems when absent."""


class LoraSettings(Section):
    """Adapters of low rank in every linear layer but the heads (Hu et al. 2021, arXiv 2106.09685)."""

    rank: Positive = 16
    alpha: PositiveFloat = 32.0
    """An adapter's output is scaled by alpha / rank."""


class ModelSettings(Section):
    """The policy before SFT."""

    path: Path | None = None
    """A directory with any `AutoModelForCausalLM` and its tokenizer. Absent: a small decoder is made from the
    sizes below and its tokenizer trained on the SFT data."""
    hidden_size: Positive = 64
    intermediate_size: Positive = 128
    layers: Positive = 3
    heads: Positive = 4
    vocab_size: Annotated[int, Field(ge=258)] = 640
    max_positions: Positive = 512
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What training computes in. bfloat16: products in bfloat16 (autocast), weights and optimizer states in float32."""
    gradient_checkpointing: bool = False
    """Keep no activations inside layers and compute them again for the gradient: less memory, a third more time."""
    lora: LoraSettings | None = None
    """RL and PRM training learn adapters (and a value head), not the weights; SFT learns the weights. The policy with
    its adapters off is the reference. Saved models have the adapters merged in. Needs `pip install 'psgpo[lora]'`."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError("model.hidden_size must be an even multiple of model.heads")
        return self


class SftSettings(Section):
    """Supervised fine-tuning. On JSONL problems the data are the reference solutions."""

    examples: Annotated[int, Field(ge=0)] = 24_000
    """Generated examples (OpChain); 0 starts RL from the model as it is."""
    operations: Range = (1, 8)
    epochs: Positive = 1
    batch_size: Positive = 16
    optimizer: Literal["adamw", "muon"] = "muon"
    """muon: hidden matrices by Muon, the rest by AdamW; made for training from scratch. A pretrained model
    (model.path) is better served by adamw and a small learning rate."""
    learning_rate: PositiveFloat = 1e-2
    """Of AdamW."""
    muon_learning_rate: PositiveFloat = 0.02
    warmup: Fraction = 0.05
    """Share of the steps with a rising learning rate; it falls along a cosine after."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    microbatch_tokens: Positive | None = None
    """As `rl.microbatch_tokens`."""


class SamplingSettings(Section):
    """How responses and completions are drawn."""

    temperature: PositiveFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Positive = 256
    batch_size: Positive = 256
    """Sequences decoded side by side."""


class RlSettings(Section):
    """PPO. What the paper does not publish is chosen here (see docs/architecture.md)."""

    steps: Positive = 60
    prompts_per_step: Positive = 64
    responses_per_prompt: Positive = 1
    epochs: Positive = 1
    """Passes over the responses of a step."""
    minibatches: Positive = 2
    """Optimizer updates per pass."""
    microbatch_tokens: Positive | None = None
    """Padded tokens held at once, at most: a minibatch is worked through in parts of similar length whose gradients
    add up to that of one big batch. Absent: a minibatch is one part. Bounds memory; the result is the same."""
    policy_learning_rate: PositiveFloat = 5e-4
    critic_learning_rate: PositiveFloat = 1e-3
    critic_warmup: Annotated[int, Field(ge=0)] = 0
    """First steps in which only the critic learns."""
    clip: PositiveFloat = 0.2
    value_clip: PositiveFloat = 0.5
    """Half-width of the interval the new value may move in, around the old one."""
    kl_beta: Annotated[float, Field(ge=0)] = 0.02
    """Weight of the KL penalty to the SFT policy, subtracted from the reward at every token."""
    gamma: Fraction = 1.0
    gae_lambda: Fraction = 0.97
    whiten_advantages: bool = True
    whiten_floor: Annotated[float, Field(ge=0)] = 0.1
    """Least standard deviation that whitening divides by: where every response fails, advantages are the critic's
    noise, and blowing that up to variance 1 moves the policy at random."""
    max_grad_norm: PositiveFloat = 1.0
    value_fit_responses: Positive = 1024
    """Responses of the first policy that `value_map = "fit"` is fitted on, drawn before the first step."""
    checkpoints: Positive = 4
    """Evenly spaced over the run; the baseline's are the ones that are labelled."""


class LabelSettings(Section):
    """Line labels by search with rollouts (paper: binary search, K = 20)."""

    strategy: Literal["binary-search", "linear-scan", "soft", "noisy", "noisy-soft", "omega", "splice"] = (
        "binary-search"
    )
    """How the last completable line is found, see docs/labels.md."""
    budget: Positive = 14
    """noisy, noisy-soft: completions for a response, at most."""
    hunt: Annotated[int, Field(ge=0)] = 8
    """splice: completions drawn, at most, to find a first passing program of a problem."""
    crossover: Annotated[int, Field(ge=0)] = 400
    """splice: programs judged, at most, that join two failed ones, to find a first passing program of a problem."""
    k: Positive = 20
    """Completions per probe, at most; a probe stops at the first that passes."""
    draw: Positive = 5
    """Completions of a probe drawn at once."""
    fill: bool = True
    """Draw more at once where few probes wait, so that the sampler's batch stays full."""
    responses_per_problem: Positive = 1
    """Per checkpoint."""
    completer: Literal["own", "last", "mixture"] = "own"
    """Who completes prefixes: the checkpoint that wrote the response, the last one, or all in turn."""
    in_flight: Positive = 256
    """Responses searched side by side, per shard."""
    unit: Positive = 512
    """Responses of a unit, at least, where several workers label: what one holds at a time."""
    shards: Positive = 2
    """Parts labelled by processes of their own; the labels do not depend on it."""
    compare_linear: Annotated[int, Field(ge=0)] = 24
    """Failed responses that a linear scan labels too, for comparison; 0 for none."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the labelled problems kept from PRM training, to measure the PRM on."""


class PrmSettings(Section):
    """One process reward model."""

    target: Literal["sign", "progress"]
    """sign: regression on the labels -1, 0, +1 (paper). progress: on min(m, m*)/T, the fraction done."""
    labels: Literal["search", "oracle"] = "search"
    """oracle: exact labels of the embedded benchmark; an upper bound for analysis, clearly not the method."""
    select: Literal["full", "remove-hard", "medium-only", "revised-only"] = "full"
    """Which labelled responses it is trained on (paper: Table 2); see `psgpo.labeling.select`."""
    medium: Annotated[tuple[Fraction, Fraction], AfterValidator(_ordered)] = (0.0, 1.0)
    """medium-only: pass rates strictly between these."""
    epochs: Positive = 12
    """At most: the best epoch on a slice of the training problems is kept."""
    batch_size: Positive = 16
    learning_rate: PositiveFloat = 2e-3
    warmup: Fraction = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    neutral_labels: bool = True
    """Comment lines are labelled 0 (paper). Off: they carry the label of the prefix, as code lines do."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a smaller held-out loss; 0: never. The best epoch is kept either way."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: good and bad lines weigh the same in sum. none: every line weighs the same (paper)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Targets of `sign` shrink by this share towards 0."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: for the matrices of a small model trained from scratch, at `muon_learning_rate`; AdamW for the rest."""
    muon_learning_rate: PositiveFloat = 0.02
    microbatch_tokens: Positive | None = None
    """As `rl.microbatch_tokens`; not for n-gram models and encoders."""

    @model_validator(mode="after")
    def _classes_exist(self) -> Self:
        if self.target != "sign" and (self.class_weights != "none" or self.label_smoothing):
            raise ValueError("class_weights and label_smoothing are for target 'sign': progress has no classes")
        return self


class ArmSettings(Section):
    """One RL run, from the SFT policy."""

    line_reward: Literal["none", "sum", "progress"] = "none"
    """none: unit tests only. sum: λ/T · R(x, y^(≤m)) at each line end (PSGPO's DenseReward).
    progress: λ times the increments of the running maximum of R, never negative."""
    prm: str | None = None
    """Name of the PRM behind the line reward, or `oracle`: the embedded benchmark's exact labels (upper bound)."""
    value_init: str | None = None
    """Name of the PRM whose weights start the critic (PSGPO's ValueInit); absent: SFT trunk and a fresh head."""
    value_map: Literal["fit", "probability", "identity"] = "fit"
    """How a PRM score R starts as a value: fit: a·R + b by least squares on returns of the first policy
    (rl.value_fit_responses of them); probability: (R + 1)/2; identity: R."""
    lambda_fail: Annotated[float, Field(ge=0)] = 0.25
    """λ of responses that fail the tests."""
    lambda_pass: Annotated[float, Field(ge=0)] = 0.025
    length_norm: bool = True
    """Divide the sum form by T (paper). Off shows the line-count hack."""
    neutral_lines: bool = True
    """No line reward on comments and blank lines. Off shows the comment hack."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.line_reward == "none") != (self.prm is None):
            raise ValueError("line_reward and prm go together: set both (line_reward 'sum' or 'progress') or neither")
        return self


class EvaluationSettings(Section):
    """pass@k on held-out problems."""

    samples: Positive = 8
    """Responses per problem."""
    greedy: bool = True
    """Also one greedy response per problem."""
    temperature: PositiveFloat = 1.0
    bootstrap: Positive = 2000
    """Resamples of problems behind every interval."""


class SandboxSettings(Section):
    """Limits of one untrusted program."""

    timeout_seconds: PositiveFloat = 2.0
    memory_mb: Annotated[int, Field(ge=64)] = 256
    allow_unconfined: bool = False
    """Run even where neither seccomp nor Landlock is available. For machines whose content does not matter."""


class TrackingSettings(Section):
    """Where metrics are shown while a run goes on; `metrics.jsonl` of every stage has them anyway."""

    to: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = ("tensorboard",)
    """`[]`: nowhere. TensorBoard reads the run's folder `tracking/tensorboard`."""
    project: str | None = None
    """W&B's, trackio's or MLflow's name for runs that belong together; default: the name of this run."""


class Recipe(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    out: Path
    """The run directory."""
    seed: int = 0
    device: Literal["cpu", "cuda", "auto"] = "auto"
    processes: Positive = 2
    """Stages run side by side, and label workers."""
    prompt_template: str = "# {prompt}\n"
    """What the model reads; `{prompt}` is the problem's text."""
    problems: Annotated[OpChainSource | JsonlSource, Field(discriminator="kind")]
    model: ModelSettings = ModelSettings()
    sft: SftSettings = SftSettings()
    sampling: SamplingSettings = SamplingSettings()
    sandbox: SandboxSettings = SandboxSettings()
    rl: RlSettings = RlSettings()
    labels: LabelSettings = LabelSettings()
    prm: dict[str, PrmSettings] = {}
    arms: dict[str, ArmSettings]
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()

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
            if start is not None and settings.value_map == "probability" and start.target != "sign":
                raise ValueError(f"arms.{arm}.value_map = 'probability' needs a PRM of target 'sign'")
            target = None if settings.prm in (None, "oracle") else self.prm[settings.prm].target
            wanted = {"sum": "sign", "progress": "progress"}.get(settings.line_reward)
            if target is not None and target != wanted:
                raise ValueError(f"arms.{arm}: line_reward {settings.line_reward!r} needs a PRM of target {wanted!r}")
        needs_oracle = any(a.prm == "oracle" for a in self.arms.values())
        needs_oracle |= any(p.labels == "oracle" for p in self.prm.values())
        if needs_oracle and self.problems.kind != "opchain":
            raise ValueError("'oracle' needs problems.kind = 'opchain': only the embedded benchmark has exact labels")
        if "{prompt}" not in self.prompt_template:
            raise ValueError("prompt_template must contain {prompt}")
        if self.rl.prompts_per_step * self.rl.responses_per_prompt % self.rl.minibatches:
            raise ValueError("rl.minibatches must divide rl.prompts_per_step * rl.responses_per_prompt")
        if self.rl.steps < self.rl.checkpoints:
            raise ValueError("rl.checkpoints cannot exceed rl.steps")
        if self.model.path is not None and self.sft.examples and self.sft.optimizer == "muon":
            raise ValueError(
                "sft.optimizer = 'muon' and its learning rates are for new models; with model.path set "
                "sft.optimizer = 'adamw' and sft.learning_rate (1e-5, say), or sft.examples = 0"
            )
        if self.model.path is None and self.sft.examples == 0:
            raise ValueError("a new model (no model.path) needs sft.examples > 0")
        return self


def load_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read a TOML recipe and apply `key.path=value` overrides (values in TOML syntax, bare words are strings).

    Relative paths in a recipe are relative to the working directory.

    Raises:
        UserError: naming the file and key, what was found and what is allowed.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    for override in overrides or []:
        _apply_override(table, override)
    return parse_recipe(table, origin=str(path))


def parse_recipe(table: dict[str, Any], *, origin: str) -> Recipe:
    """Check a recipe given as nested dicts; `origin` names it in errors."""
    try:
        return Recipe.model_validate(table, strict=False)
    except ValidationError as error:
        raise UserError(f"{origin}: " + "; ".join(_explain(item) for item in error.errors()[:3])) from None


def _apply_override(table: dict[str, Any], override: str) -> None:
    key, equals, raw = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override!r}: write key.path=value, e.g. --set rl.steps=40")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    *parents, last = key.strip().split(".")
    node = table
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {override!r}: {parent!r} is a value, not a table")
    node[last] = value


def _explain(item: Any) -> str:
    # The discriminated union adds its tag ('opchain') to the location; the key in the file has no such part.
    location = [
        str(part) for index, part in enumerate(item["loc"]) if not (index == 1 and item["loc"][0] == "problems")
    ]
    key = ".".join(location) or "recipe"
    if item["type"] == "extra_forbidden":
        allowed = _allowed_keys(list(item["loc"])[:-1])
        close = difflib.get_close_matches(location[-1], allowed, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"unknown key {key!r}{hint} (allowed here: {', '.join(allowed)})"
    if item["type"] == "missing":
        return f"missing key {key!r}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message if key == "recipe" else f"{key}: {message}"
    return f"{key} = {json.dumps(item['input'], default=str)}: {message[0].lower()}{message[1:]}"


def _allowed_keys(location: list[Any]) -> list[str]:
    section: type[BaseModel] = Recipe
    tables: dict[str, type[BaseModel]] = {
        "prm": PrmSettings,
        "arms": ArmSettings,
        "opchain": OpChainSource,
        "jsonl": JsonlSource,
    }
    for part in location:
        if part in tables:
            section = tables[part]
        elif part in section.model_fields and part != "problems":
            annotation = section.model_fields[part].annotation
            section = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else section
    return sorted(section.model_fields)
