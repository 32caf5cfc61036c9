"""How much a run will generate, judge and train on, and what that costs in operations.

With N parameters a forward pass takes 2 N operations a token, its backward pass twice that, checkpointing one forward
more (Kaplan et al. 2020, arXiv 2001.08361, section 2.1; attention's own products are left out: at a few thousand tokens
they are a few percent). Adapters need no gradient of the weights: two thirds. Of an encoder–decoder all weights count
for all tokens, though the encoder reads prompts alone and the decoder responses: an upper limit, about twice too much.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from psgpo.config import ArmSettings, JsonlSource, OpChainSource, PrmSettings, Recipe, TaskRange
from psgpo.labeling.twins import PER_RESPONSE
from psgpo.problems import load_problems_jsonl
from psgpo.runs.labelled import labelled_count
from psgpo.runs.plan import mutants

ABSENT = 1000
"""Problems of a file that is not here."""
TASKS = {
    "humaneval": 164,
    "humanevalplus": 164,
    "mbpp": 974,
    "mbpp-sanitized": 427,
    "mbppplus": 378,
    "livecodebench": 880,
}
"""Tasks of the benchmarks; LiveCodeBench grows, this is its release 5."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumed:
    """What no recipe says."""

    prompt_tokens: int
    """Mean of a prompt."""
    response_tokens: int
    """Mean of a response."""
    line_tokens: int
    """Mean of a line of code."""
    pass_rate: float
    """Share of responses that pass: those need no search."""
    problems: dict[str, int]
    """Problems of train, label and test; of sft where those are others than train's."""
    references: mutants.References | None = None
    """Of the problems to label, for mutants."""

    @property
    def lines(self) -> int:
        """T, of a mean response."""
        return max(1, round(self.response_tokens / self.line_tokens))


@dataclass(frozen=True, kw_only=True, slots=True)
class StageWork:
    """One stage, all its arms or PRMs together."""

    stage: str
    generated: int = 0
    """Tokens sampled."""
    generations: int = 0
    """Decoding steps: batches, one after the other, times tokens of a row."""
    judged: int = 0
    """Programs run."""
    trained: int = 0
    """Tokens that pass through the network in training, prompts and every epoch counted."""
    passes: float = 0.0
    """Forward passes over one token by one network, backward passes as two."""


def label_completions(recipe: Recipe, assumed: Assumed) -> tuple[int, int]:
    """(at most, expected) completions for one failed response of T lines.

    Binary search asks ⌊log2 T⌋ + 1 times at most, a scan or soft labels T times, K completions each at most. Expected:
    half of the probes are accepted, and stop after half their completions.
    """
    settings, T = recipe.labels, assumed.lines
    halvings = T.bit_length()
    probes = {"binary-search": halvings, "omega": halvings}
    if settings.strategy in ("noisy", "noisy-soft"):
        return settings.budget, settings.budget
    if settings.strategy == "splice":
        return settings.hunt, settings.hunt
    count = probes.get(settings.strategy, T)
    most = count * settings.k
    return most, most if settings.strategy == "soft" else math.ceil(0.75 * most)


def stages_work(recipe: Recipe, assumed: Assumed, planned: Collection[str] | None = None) -> list[StageWork]:
    """Every kind of stage, in order.

    Args:
        planned: PRMs whose training counts; None: all.
    """
    P, R = assumed.prompt_tokens, assumed.response_tokens
    sampling = recipe.sampling
    backward = 2 * (2 / 3 if recipe.model.lora is not None else 1.0)
    learning = 1 + backward + (1 if recipe.model.gradient_checkpointing else 0)
    found: list[StageWork] = []
    examples = recipe.sft.examples
    again = learning if recipe.sft.lora else 1 + 2 + (1 if recipe.model.gradient_checkpointing else 0)
    if not isinstance(recipe.problems, OpChainSource):
        examples = min(examples, assumed.problems.get("sft", assumed.problems["train"]))
    if examples:
        tokens = examples * recipe.sft.epochs * (P + R)
        found.append(StageWork(stage="sft", trained=tokens, passes=tokens * again))
    size = sampling.batch_size
    for name, arm in recipe.arms.items():
        rl = recipe.rl_of(name)
        each = rl.prompts_per_step * rl.responses_per_prompt
        steps = rl.steps * each
        fit = rl.value_fit_responses if _fits_values(arm) else 0
        rows = (steps + fit) * (P + R)
        # Reference (where there is a KL) and old values once, policy and critic learn, the PRM scores. In bfloat16, and
        # where an engine draws, the policy reads what was drawn before it learns from it.
        critic = rl.advantage == "gae"
        frozen = (rl.kl_beta > 0) + critic + (1 if arm.prm not in (None, "oracle") else 0)
        frozen += recipe.model.dtype != "float32" or sampling.engine != "transformers"
        found.append(
            StageWork(
                stage=f"rl-{name}",
                judged=steps + fit,
                generated=(steps + fit) * R,
                generations=(rl.steps * math.ceil(each / size) + math.ceil(fit / size)) * R,
                trained=steps * (P + R) * rl.epochs,
                passes=rows * frozen + steps * (P + R) * rl.epochs * (1 + critic) * learning,
            )
        )
    if recipe.prm:
        found += _labelling(recipe, assumed)
    for name, prm in recipe.prm.items():
        if planned is None or name in planned:
            tokens = _prm_tokens(recipe, prm, assumed)
            each_pass = 3 if prm.kind == "encoder" else learning
            found.append(StageWork(stage=f"prm-{name}", trained=tokens, passes=tokens * each_pass))
    count = assumed.problems["test"] * (recipe.evaluation.samples + recipe.evaluation.greedy)
    measured = ("sft", *recipe.arms)
    return found + [StageWork(stage=f"evaluate-{name}", judged=count, **_drawn(recipe, count, R)) for name in measured]


def _fits_values(arm: ArmSettings) -> bool:
    return arm.value_map == "head" or (arm.value_init is not None and arm.value_map == "fit")


def _drawn(recipe: Recipe, count: int, tokens: int) -> dict[str, int]:
    """Of so many responses: tokens, and decoding steps of full batches."""
    batches = math.ceil(count / recipe.sampling.batch_size)
    return {"generated": count * tokens, "generations": batches * tokens}


def _responses(recipe: Recipe, assumed: Assumed) -> int:
    """That are labelled by search."""
    return assumed.problems["label"] * recipe.labels.responses_per_problem * labelled_count(recipe)


def _labelling(recipe: Recipe, assumed: Assumed) -> list[StageWork]:
    """The mutants, or the searches."""
    if recipe.labels.source == "mutation":
        made = _references(recipe, assumed)
        return [StageWork(stage="mutants", judged=mutants.programs(recipe, made))]
    R, responses = assumed.response_tokens, _responses(recipe, assumed)
    failed = round(responses * (1 - assumed.pass_rate))
    completions = failed * label_completions(recipe, assumed)[1]
    joined = failed * recipe.labels.crossover if recipe.labels.strategy == "splice" else 0
    first, later = _drawn(recipe, responses, R), _drawn(recipe, completions, max(1, R // 2))
    both = {name: first[name] + later[name] for name in first}
    found = [StageWork(stage="labels", judged=responses + completions + joined, **both)]
    if any(prm.twins for prm in recipe.prm.values()):
        found.append(StageWork(stage="twins", judged=2 * failed))
    return found


def _prm_tokens(recipe: Recipe, prm: PrmSettings, assumed: Assumed) -> int:
    """Tokens that a PRM is trained on, every epoch counted.

    A causal PRM reads a program once, an encoder every line behind all before it: half a program in the mean.
    """
    P, share = assumed.prompt_tokens, (1 - recipe.labels.holdout) * prm.epochs
    if recipe.labels.source == "mutation":
        made = _references(recipe, assumed)
        whole, lines = made.mean_lines * assumed.line_tokens, made.mean_lines
        programs = mutants.examples(recipe, made, "program")
        pairs = mutants.examples(recipe, made, "line")
    else:
        whole, lines = assumed.response_tokens, assumed.lines
        programs = _responses(recipe, assumed)
        pairs = round(programs * lines)
    if prm.kind == "encoder" and prm.scope == "line":
        return round(pairs * share * (P + whole / 2))
    twins = PER_RESPONSE if prm.twins else 0.0
    return round(round(programs * (1 + twins) * share) * (P + whole))


def _references(recipe: Recipe, assumed: Assumed) -> mutants.References:
    return assumed.references or mutants.references(recipe, assumed.problems["label"])


def counted_problems(recipe: Recipe) -> tuple[dict[str, int], list[str]]:
    """Problems of train, label and test, and a line for every number that is assumed.

    Raises:
        UserError: a file is malformed.
    """
    source = recipe.problems
    said: list[str] = []
    if isinstance(source, OpChainSource):
        return {"train": source.train, "label": source.label, "test": source.test}, said
    if isinstance(source, JsonlSource):
        files = {"train": source.train, "label": source.label or source.train, "test": source.test}
        counts = {}
        for split, path in files.items():
            if path.is_file():
                counts[split] = len(load_problems_jsonl(path))
            else:
                counts[split] = ABSENT
                said.append(f"problems.{split}: {path} is not here, {ABSENT} problems assumed")
        return counts, said
    tested = sum(_tasks(tasks) for tasks in source.test.values())
    sft = source.sft or source.train
    label = source.label or (sft if recipe.labels.source == "mutation" else source.train)
    return {"train": _tasks(source.train), "sft": _tasks(sft), "label": _tasks(label), "test": tested}, said


def _tasks(tasks: TaskRange) -> int:
    whole = TASKS[tasks.benchmark]
    return whole if tasks.ids is None else min(whole, tasks.ids[1] - tasks.ids[0] + 1)
