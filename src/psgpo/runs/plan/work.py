"""How much a run will generate, judge and train on, and what that costs in operations.

With N parameters a forward pass takes 2 N operations a token, its backward pass twice that, checkpointing one forward
more (Kaplan et al. 2020, arXiv 2001.08361, section 2.1; attention's own products are left out: at a few thousand tokens
they are a few percent). Adapters need no gradient of the weights: two thirds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from psgpo.config import JsonlSource, OpChainSource, PrmSettings, Recipe, TaskRange
from psgpo.problems import load_problems_jsonl

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
    """Problems of train, label and test."""

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

    Binary search asks ⌈log2 T⌉ times, a scan or soft labels T times, K completions each at most. Expected: half of the
    probes are accepted, and stop after half their completions.
    """
    settings, T = recipe.labels, assumed.lines
    halvings = max(1, math.ceil(math.log2(T)))
    probes = {"binary-search": halvings, "omega": halvings}
    if settings.strategy in ("noisy", "noisy-soft"):
        return settings.budget, settings.budget
    if settings.strategy == "splice":
        return settings.hunt, settings.hunt
    count = probes.get(settings.strategy, T)
    most = count * settings.k
    return most, most if settings.strategy == "soft" else math.ceil(0.75 * most)


def stages_work(recipe: Recipe, assumed: Assumed) -> list[StageWork]:
    """Every kind of stage, in order."""
    P, R = assumed.prompt_tokens, assumed.response_tokens
    sampling, rl = recipe.sampling, recipe.rl

    def drawn(count: int, tokens: int) -> dict[str, int]:
        return {"generated": count * tokens, "generations": math.ceil(count / sampling.batch_size) * tokens}

    backward = 2 * (2 / 3 if recipe.model.lora is not None else 1.0)
    learning = 1 + backward + (1 if recipe.model.gradient_checkpointing else 0)
    found: list[StageWork] = []
    examples = recipe.sft.examples
    again = learning if recipe.sft.lora else 1 + 2 + (1 if recipe.model.gradient_checkpointing else 0)
    if not isinstance(recipe.problems, OpChainSource):
        examples = min(examples, assumed.problems["train"])
    if examples:
        tokens = examples * recipe.sft.epochs * (P + R)
        found.append(StageWork(stage="sft", trained=tokens, passes=tokens * again))
    size = sampling.batch_size
    each = rl.prompts_per_step * rl.responses_per_prompt
    steps = rl.steps * each
    for name, arm in recipe.arms.items():
        fit = rl.value_fit_responses if arm.value_init and arm.value_map == "fit" else 0
        rows = (steps + fit) * (P + R)
        # Reference and old values once, policy and critic learn, the PRM scores.
        frozen = 2 + (1 if arm.prm not in (None, "oracle") else 0)
        found.append(
            StageWork(
                stage=f"rl-{name}",
                judged=steps + fit,
                generated=(steps + fit) * R,
                generations=(rl.steps * math.ceil(each / size) + math.ceil(fit / size)) * R,
                trained=steps * (P + R) * rl.epochs,
                passes=rows * frozen + steps * (P + R) * rl.epochs * 2 * learning,
            )
        )
    planned = {name: prm for name, prm in recipe.prm.items() if not _unplanned(recipe, prm)}
    if planned:
        responses = assumed.problems["label"] * recipe.labels.responses_per_problem * rl.checkpoints
        failed = round(responses * (1 - assumed.pass_rate))
        _, expected = label_completions(recipe, assumed)
        completions = failed * expected
        joined = failed * recipe.labels.crossover if recipe.labels.strategy == "splice" else 0
        first, later = drawn(responses, R), drawn(completions, max(1, R // 2))
        found.append(
            StageWork(
                stage="labels",
                judged=responses + completions + joined,
                generated=first["generated"] + later["generated"],
                generations=first["generations"] + later["generations"],
            )
        )
        for name, prm in planned.items():
            tokens = round(responses * (1 - recipe.labels.holdout)) * prm.epochs * (P + R)
            found.append(StageWork(stage=f"prm-{name}", trained=tokens, passes=tokens * learning))
    count = assumed.problems["test"] * (recipe.evaluation.samples + recipe.evaluation.greedy)
    measured = ("sft", *recipe.arms)
    return found + [StageWork(stage=f"evaluate-{name}", judged=count, **drawn(count, R)) for name in measured]


def counted_problems(recipe: Recipe) -> tuple[dict[str, int], list[str]]:
    """Problems of train, label and test, and a line for every number that is assumed.

    Raises:
        UserError: a file is malformed.
    """
    source = recipe.problems
    reasons = {name: _unplanned(recipe, prm) for name, prm in recipe.prm.items()}
    said = [f"prm.{name} and its labels are not planned: {why}" for name, why in reasons.items() if why]
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
    return {"train": _tasks(source.train), "label": _tasks(source.label or source.train), "test": tested}, said


def _unplanned(recipe: Recipe, prm: PrmSettings) -> str:
    """Why a PRM's cost is not known; empty where it is."""
    if recipe.labels.source == "mutation":
        return "how many mutants survive is not known before"
    return "" if prm.kind == "causal" else f"kind {prm.kind!r}"


def _tasks(tasks: TaskRange) -> int:
    whole = TASKS[tasks.benchmark]
    return whole if tasks.ids is None else min(whole, tasks.ids[1] - tasks.ids[0] + 1)
