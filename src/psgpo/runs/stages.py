"""The stages of a run: what each needs, reads and writes. The algorithms live elsewhere; here they are wired.

    problems -> sft -> rl-baseline -> responses -> labels-1..N -> labels -> prm-<name> -> rl-<arm>
             -> evaluate-<policy> -> report

Where a PRM learns from twins, `twins` stands between `labels` and it.
With labels of another run's policy, `responses` waits for no RL. With labels from mutants, `mutants` stands for the
three label stages and needs the problems alone.

Every stage can be killed at any moment and run again; what it had computed stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from psgpo.config import BenchmarkSource, OpChainSource, Recipe
from psgpo.errors import UserError
from psgpo.runs.directory import RunDirectory
from psgpo.runs.inputs import file_prints
from psgpo.runs.links import own_copies
from psgpo.runs.tracking import check_trackers, followed

if TYPE_CHECKING:
    from psgpo.runs.work.shared import Progress

BASELINE = "baseline"


PROMPTS = ("prompt_template", "prompt_chat", "prompt_system")
DRAWS = ("seed", "device", "sampling", "sandbox", "model.dtype", *PROMPTS)
"""What every stage reads that samples and judges programs."""
SPLITS = ("train", "label", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One step of a run."""

    name: str
    """Also the name of its receipt, log and progress file."""
    needs: tuple[str, ...]
    """Stages that must be done before."""
    work: Callable[[RunDirectory, Progress], None] = field(repr=False)
    together: bool
    """All processes that a launcher started work on it together; else one of them does it."""
    reads: tuple[str, ...]
    """Tables and keys of the recipe that its results depend on, beside what it needs; `psgpo.runs.reuse` compares them.
    Problems made or read by the recipe alone (all but public benchmarks) are among them, see `split_keys`."""
    writes: tuple[str, ...]
    """Its results: files and folders in the run directory, or patterns of them. No other stage writes there."""


def stage_graph(recipe: Recipe) -> dict[str, Stage]:
    """All stages of a recipe by name, in an order that respects their needs. Imports nothing heavy."""
    graph: dict[str, Stage] = {}

    def add(
        name: str,
        needs: list[str],
        function: str,
        *arguments: str,
        reads: tuple[str, ...],
        writes: tuple[str, ...],
        together: bool = False,
    ) -> None:
        def work(run: RunDirectory, progress: Progress) -> None:
            from psgpo.runs import work as module

            with module.one_thread():
                getattr(module, function)(run, progress, *arguments)

        # Named by every stage that reads them, not by the first alone: that one may be taken over from a run whose
        # problems are others, and then all that follows would start before there are any.
        first = [] if name == "problems" or (name == "sft" and embedded(recipe)) else ["problems"]
        needed, once = tuple(dict.fromkeys([*first, *needs])), tuple(dict.fromkeys(reads))
        graph[name] = Stage(name=name, needs=needed, work=work, together=together, reads=once, writes=writes)

    def add_arm(arm: str, needs: list[str]) -> None:
        prm = recipe.arms[arm].prm
        paid = () if prm in (None, "oracle") else (f"prm.{prm}",)
        reads = (*DRAWS, "rl", f"arms.{arm}", *paid, "model", "critic", *split_keys(recipe, "train"))
        writes = (f"rl/{arm}",)
        add(f"rl-{arm}", ["sft", *needs], "train_arm", arm, together=True, reads=reads, writes=writes)

    add("problems", [], "make_problems", reads=_problem_keys(recipe), writes=("problems",))
    # The embedded benchmark's SFT data come from the seed, not from the problems.
    made = ("problems.kind", "problems.sparseness") if embedded(recipe) else split_keys(recipe, "train")
    reads = ("seed", "device", "model", "sft", *PROMPTS, *made)
    add("sft", [], "train_policy", together=True, reads=reads, writes=("sft",))
    add_arm(BASELINE, [])
    if recipe.prm:
        _add_labels(recipe, add)
    mutants = recipe.labels.source == "mutation"
    for name, prm in recipe.prm.items():
        # A causal one starts from the SFT policy, or asks what prompts it reads; a search has seen to that already.
        first = ["sft"] if mutants and prm.kind == "causal" else []
        needs = [*(["mutants"] if mutants else ["labels"]), *(["twins"] if prm.twins else []), *first]
        reads = ("seed", "device", f"prm.{name}", "labels.source", "labels.holdout", "model", *PROMPTS)
        reads += split_keys(recipe, "label")
        alone = mutants or not prm.from_policy
        writes = (f"prm/{name}",)
        add(f"prm-{name}", needs, "train_reward_model", name, together=not alone, reads=reads, writes=writes)
    for arm, settings in recipe.arms.items():
        if arm != BASELINE:
            prms = {settings.prm, settings.value_init} - {None, "oracle"}
            add_arm(arm, [f"prm-{name}" for name in sorted(str(p) for p in prms)])
    for policy in ("sft", *recipe.arms):
        trained = "sft" if policy == "sft" else f"rl-{policy}"
        reads = (*DRAWS, "evaluation", *split_keys(recipe, "test"))
        add(f"evaluate-{policy}", [trained], "evaluate", policy, reads=reads, writes=(f"evaluation/{policy}",))
    add("report", list(graph), "write_report", reads=(), writes=("report",))
    return graph


def _add_labels(recipe: Recipe, add: Callable[..., None]) -> None:
    """The stages between policies and PRMs."""
    label = split_keys(recipe, "label")
    if recipe.labels.source == "mutation":
        made = ("seed", "sandbox", "mutation", *label)
        add("mutants", [], "make_mutants", reads=made, writes=("mutants",))
        return
    writer = f"rl-{BASELINE}" if recipe.labels.of is None else "sft"
    drawn = (*DRAWS, "labels.responses_per_problem", "labels.of", *label)
    files = ("labels/responses", "labels/responses.jsonl", "labels/exact.jsonl")
    add("responses", [writer], "sample_labelled_responses", reads=drawn, writes=files)
    reads = (*DRAWS, "labels", *label)
    shards = [f"labels-{number}" for number in range(1, recipe.labels.shards + 1)]
    for number, shard in enumerate(shards):
        mine = (f"labels/shards/{number + 1}.*",)
        add(shard, ["responses"], "label_shard", str(number), reads=reads, writes=mine)
    linear = ["labels-linear"] if recipe.labels.compare_linear else []
    if linear:
        add("labels-linear", ["responses"], "label_linear", reads=reads, writes=("labels/linear.*",))
    merged = ("labels/labels.jsonl", "labels/summary.json")
    add("labels", [*shards, *linear], "merge_labels", reads=("labels", *label), writes=merged)
    if any(prm.twins for prm in recipe.prm.values()):
        reads = ("seed", "sandbox", "sampling.max_new_tokens", "labels.timeout_seconds", *label)
        add("twins", ["labels", "sft"], "make_label_twins", reads=reads, writes=("labels/twins.jsonl",))


def split_keys(recipe: Recipe, split: str) -> tuple[str, ...]:
    """The keys that one split of the problems is made of: all of `problems` but those of other splits.

    None of public benchmarks, whose splits hang together (what is trained on is told apart in what is tested): there a
    stage depends on the stage `problems` instead.
    """
    if isinstance(recipe.problems, BenchmarkSource):
        return ()
    # Without problems of their own, those of the training split are labelled.
    kept = {split, "train"} if split == "label" and not embedded(recipe) else {split}
    others = {f"{other}{what}" for other in SPLITS if other not in kept for what in ("", "_operations")}
    return ("seed", *(f"problems.{key}" for key in type(recipe.problems).model_fields if key not in others))


def _problem_keys(recipe: Recipe) -> tuple[str, ...]:
    if not isinstance(recipe.problems, BenchmarkSource):
        return ("seed", "problems")
    # A recipe without PRMs learns nothing from what is labelled, so that none of it is trained on.
    learned = ("sft.examples", *(() if recipe.prm else ("prm",)))
    return ("problems", "labels.source", "sandbox.allow_unconfined", *learned)


def startable(run: RunDirectory, todo: Iterable[Stage]) -> list[Stage]:
    """Those of `todo` that wait for nothing."""
    return [stage for stage in todo if all(run.stage_done(need) for need in stage.needs)]


def wanted_stages(graph: Mapping[str, Stage], targets: Iterable[str] | None) -> dict[str, Stage]:
    """`targets` and what they need, in the graph's order; all without targets.

    Raises:
        UserError: a target is no stage.
    """
    if targets is None:
        return dict(graph)
    queue = list(targets)
    refuse_unknown(graph, queue)
    wanted: set[str] = set()
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted.add(name)
            queue += graph[name].needs
    return {name: stage for name, stage in graph.items() if name in wanted}


def refuse_unknown(graph: Mapping[str, Stage], names: Iterable[str]) -> None:
    """
    Raises:
        UserError: a name is no stage's.
    """
    for name in names:
        if name not in graph:
            raise UserError(f"{name!r} is no stage of this recipe; its stages are: {', '.join(graph)}")


def run_stage(
    run: RunDirectory, name: str, progress: Progress, *, announce: Callable[[bool], object] | None = None
) -> None:
    """Run one stage in this process; nothing happens when it is done already.

    Args:
        announce: called once, before the work: whether there is any. Other processes that work along wait for it.

    Raises:
        UserError: no such stage, or one it needs is not done yet (and the command that does it).
    """
    graph = stage_graph(run.recipe)
    refuse_unknown(graph, [name])
    if run.stage_done(name):
        if announce:
            announce(False)
        return
    missing = [need for need in graph[name].needs if not run.stage_done(need)]
    if missing:
        raise UserError(
            f"{run.path}: stage {name} needs {', '.join(missing)} first; run: psgpo run RECIPE --until {name}"
        )
    check_trackers(run.recipe)
    stage = graph[name]
    with run.stage(name, files=file_prints(run.recipe, stage.reads)):
        # Another process may have finished it while this one waited for its turn.
        left = not run.stage_done(name)
        if announce:
            announce(left)
        if left:
            own_copies(run.path, stage.writes)
            if name == "sft" or name.startswith("rl-"):  # hours, before the next one draws for other problems
                from psgpo.runs.networks import check_run_prompts  # loads torch

                check_run_prompts(run)
            with followed(run, name, progress) as reported:
                stage.work(run, reported)
    # Kept until the receipt is there: a stage killed after its last step must not start over.
    folder = run.path / "sft" if name == "sft" else run.path / Path(*name.split("-", 1))
    (folder / "state.pt").unlink(missing_ok=True)


def policy_folder(run: Path, policy: str) -> Path:
    """Where the trained policy `sft` or an arm's lies."""
    return run / "sft" / "model" if policy == "sft" else run / "rl" / policy / "model"


def embedded(recipe: Recipe) -> OpChainSource | None:
    """The embedded benchmark's settings, None when the problems are the user's own."""
    return recipe.problems if isinstance(recipe.problems, OpChainSource) else None
