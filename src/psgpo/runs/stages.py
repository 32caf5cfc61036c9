"""The stages of a run: what each needs, reads and writes. The algorithms live elsewhere; here they are wired.

    problems -> sft -> rl-baseline -> responses -> labels-1..N -> labels -> prm-<name> -> rl-<arm>
             -> evaluate-<policy> -> report

With labels of another run's policy, `responses` waits for no RL. With labels from mutants, `mutants` stands for the
three label stages and needs the problems alone.

Every stage can be killed at any moment and run again; what it had computed stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from psgpo.config import OpChainSource, Recipe
from psgpo.errors import UserError
from psgpo.runs.directory import RunDirectory
from psgpo.runs.tracking import check_trackers, followed

if TYPE_CHECKING:
    from psgpo.runs.work.shared import Progress

BASELINE = "baseline"


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


def stage_graph(recipe: Recipe) -> dict[str, Stage]:
    """All stages of a recipe by name, in an order that respects their needs. Imports nothing heavy."""
    graph: dict[str, Stage] = {}

    def add(name: str, needs: list[str], function: str, *arguments: str, together: bool = False) -> None:
        def work(run: RunDirectory, progress: Progress) -> None:
            from psgpo.runs import work as module

            with module.one_thread():
                getattr(module, function)(run, progress, *arguments)

        graph[name] = Stage(name=name, needs=tuple(needs), work=work, together=together)

    add("problems", [], "make_problems")
    # The embedded benchmark's SFT data come from the seed, not from the problems.
    add("sft", [] if embedded(recipe) else ["problems"], "train_policy", together=True)
    add(f"rl-{BASELINE}", ["problems", "sft"], "train_arm", BASELINE, together=True)
    mutants = recipe.labels.source == "mutation"
    if recipe.prm and mutants:
        add("mutants", ["problems"], "make_mutants")
    elif recipe.prm:
        shards = [f"labels-{number}" for number in range(1, recipe.labels.shards + 1)]
        writers = [f"rl-{BASELINE}"] if recipe.labels.of is None else ["problems", "sft"]
        add("responses", writers, "sample_labelled_responses")
        for number, shard in enumerate(shards):
            add(shard, ["responses"], "label_shard", str(number))
        linear = ["labels-linear"] if recipe.labels.compare_linear else []
        if linear:
            add("labels-linear", ["responses"], "label_linear")
        add("labels", [*shards, *linear], "merge_labels")
    for name, prm in recipe.prm.items():
        # A causal one starts from the SFT policy, or asks what prompts it reads; a search has seen to that already.
        first = ["sft"] if mutants and prm.kind == "causal" else []
        labels = ["mutants"] if mutants else ["labels"]
        add(f"prm-{name}", labels + first, "train_reward_model", name, together=prm.from_policy and not mutants)
    for arm, settings in recipe.arms.items():
        if arm != BASELINE:
            prms = {settings.prm, settings.value_init} - {None, "oracle"}
            add(
                f"rl-{arm}",
                ["problems", "sft", *(f"prm-{name}" for name in sorted(str(p) for p in prms))],
                "train_arm",
                arm,
                together=True,
            )
    add("evaluate-sft", ["problems", "sft"], "evaluate", "sft")
    for arm in recipe.arms:
        add(f"evaluate-{arm}", [f"rl-{arm}"], "evaluate", arm)
    add("report", list(graph), "write_report")
    return graph


def startable(run: RunDirectory, todo: Iterable[Stage]) -> list[Stage]:
    """Those of `todo` that wait for nothing."""
    return [stage for stage in todo if all(run.stage_done(need) for need in stage.needs)]


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
    with run.stage(name):
        # Another process may have finished it while this one waited for its turn.
        left = not run.stage_done(name)
        if announce:
            announce(left)
        if left:
            with followed(run, name, progress) as reported:
                graph[name].work(run, reported)
    # Kept until the receipt is there: a stage killed after its last step must not start over.
    folder = run.path / "sft" if name == "sft" else run.path / Path(*name.split("-", 1))
    (folder / "state.pt").unlink(missing_ok=True)


def policy_folder(run: Path, policy: str) -> Path:
    """Where the trained policy `sft` or an arm's lies."""
    return run / "sft" / "model" if policy == "sft" else run / "rl" / policy / "model"


def embedded(recipe: Recipe) -> OpChainSource | None:
    """The embedded benchmark's settings, None when the problems are the user's own."""
    return recipe.problems if isinstance(recipe.problems, OpChainSource) else None
