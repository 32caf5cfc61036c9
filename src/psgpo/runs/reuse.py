"""Stages that another run has finished and that would be the same here: taken over, not run again (`--reuse`).

A stage is the same when every key that it reads has the same value in both recipes (`Stage.reads`; files count by their
content) and all stages that it needs are not just alike but the very ones: this run has taken them from the same run,
or both have them from a third. See docs/reuse.md.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from psgpo.config import BenchmarkSource, Recipe
from psgpo.errors import UserError
from psgpo.jsonl import write_json
from psgpo.runs.directory import RunDirectory, manifest
from psgpo.runs.inputs import file_prints, first_difference, inputs
from psgpo.runs.links import linked_copy, outputs
from psgpo.runs.stages import Stage, stage_graph, wanted_stages

_WEIGHTS = (".safetensors", ".bin", ".npy")
_STAGING = "taking"
"""Folder of the run in which a stage's results are gathered before they are put in place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reusable:
    """What other runs have for a run."""

    taken: dict[str, RunDirectory]
    """By stage, in order."""
    notes: tuple[str, ...]
    """What the user should know: runs that share nothing, and runs of another psgpo."""


def take_over(run: RunDirectory, sources: Sequence[Path], targets: Iterable[str] | None = None) -> dict[str, Path]:
    """Take over every stage that is not done here and that one of `sources` has done; what was taken, by stage.

    Says on standard error what comes from where. The manifest lists it, and a receipt says `taken_from`: the run that
    computed the stage.

    Args:
        targets: only these stages and what they need; None: all.

    Raises:
        UserError: a source is no run directory, or is this run.
    """
    found = reusable(run, sources, targets)
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    for note in found.notes:
        console.print(f"psgpo: {note}")
    graph = stage_graph(run.recipe)
    taken = {}
    for name, source in found.taken.items():
        _take(run, source, graph[name])
        console.print(f"  {name}: taken from {source.path}")
        taken[name] = source.path
        _write_down(run, taken)
    return taken


def reusable(run: RunDirectory, sources: Sequence[Path], targets: Iterable[str] | None = None) -> Reusable:
    """What `take_over` would take; writes nothing."""
    graph = stage_graph(run.recipe)
    refuse_no_runs(run.path, sources)
    opened = [RunDirectory.open(source) for source in sources]
    # What makes a finished stage the very one, not just one alike.
    known = {name: _identity(run, name) for name in graph if run.stage_done(name)}
    todo = [
        stage
        for name, stage in wanted_stages(graph, targets).items()
        if name not in known and name != "report" and not outputs(run.path, stage.writes)
    ]
    graphs = [graph, *(stage_graph(source.recipe) for source in opened)]
    reads = {key for stage in todo for one in graphs if stage.name in one for key in one[stage.name].reads}
    prints = file_prints(run.recipe, reads) | _copied(run)
    taken: dict[str, RunDirectory] = {}
    obstacles: dict[Path, str] = {}
    useful: set[Path] = set()
    for stage in todo:
        for source in opened:
            if not source.stage_done(stage.name):
                continue
            obstacle = _difference(run.recipe, source, stage, prints) or _other_need(source, stage, known)
            if obstacle is None and not _whole(source, stage):
                obstacle = f"{stage.name}: its results are no longer all there"
            if obstacle is not None:
                obstacles.setdefault(source.path, obstacle)
                continue
            useful.add(source.path)
            if stage.name not in taken:
                taken[stage.name] = source
                known[stage.name] = _identity(source, stage.name)
    idle = [source.path for source in opened if todo and source.path not in useful]
    nothing = "it has finished no stage that is to do here"
    notes = [f"{path}: nothing of it is reused: {obstacles.get(path, nothing)}" for path in idle]
    return Reusable(taken=taken, notes=(*notes, *_versions({source.path: source for source in taken.values()})))


def refuse_no_runs(out: Path, sources: Iterable[Path]) -> None:
    """
    Args:
        out: of the run that is to take something over.

    Raises:
        UserError: a source is no run directory, or `out` itself.
    """
    for source in sources:
        if not (source / "recipe.json").is_file():
            raise UserError(
                f"--reuse {source}: no run directory (no recipe.json in it); give the folder of another run"
            )
        if source.resolve() == out.resolve():
            raise UserError(f"--reuse {source}: that is this run, which goes on by itself; give another run")


def _difference(recipe: Recipe, source: RunDirectory, stage: Stage, prints: dict[str, str]) -> str | None:
    """The first key that a stage, which the source has finished, read with another value there."""
    theirs = stage_graph(source.recipe).get(stage.name)
    if theirs is None:
        return f"{stage.name}: in none of its recipe's stages"
    reads = dict.fromkeys([*stage.reads, *theirs.reads])
    recorded = source.receipt(stage.name).get("files", {}) | _copied(source)
    return first_difference(inputs(recipe, reads, prints), inputs(source.recipe, reads, recorded))


def _copied(run: RunDirectory) -> dict[str, str]:
    """Fingerprints of the problem files that a run has made its problems of: later stages read these alone, whatever
    lies in the files by then. Empty before that."""
    files = run.receipt("problems").get("files", {}) if run.stage_done("problems") else {}
    return {key: value for key, value in files.items() if key.startswith("problems.")}


def _other_need(source: RunDirectory, stage: Stage, known: dict[str, dict[str, Any]]) -> str | None:
    """A stage that this one rests on and that is not the very one of the source.

    Problems are compared by the keys that they are made of, except where those do not tell (`stages.split_keys`).
    """
    told = not isinstance(source.recipe.problems, BenchmarkSource)
    for need in stage.needs:
        same = need in known and source.stage_done(need) and known[need] == _identity(source, need)
        if not same and not (told and need == "problems"):
            return f"{stage.name}: it rests on another {need} than this run's"
    return None


def _identity(run: RunDirectory, stage: str) -> dict[str, Any]:
    """A receipt, seconds and date in it, but for where it was taken from."""
    return {key: value for key, value in run.receipt(stage).items() if key != "taken_from"}


def _whole(source: RunDirectory, stage: Stage) -> bool:
    """Whether its results are still there, weights included: people remove those to save space."""
    found = outputs(source.path, stage.writes)
    models = [model for folder in found for model in (folder / "model", *folder.glob("checkpoints/*"))]
    if stage.name.split("-")[0] not in ("sft", "rl", "prm"):
        return bool(found)
    return bool(found) and all(any(file.suffix in _WEIGHTS for file in model.rglob("*")) for model in models)


def _versions(sources: dict[Path, RunDirectory]) -> list[str]:
    """A note for every run that another psgpo or PyTorch made: the recipe does not tell what changed in between."""
    ours = manifest()
    found = []
    for path, source in sources.items():
        theirs = _manifest_of(source)
        other = [key for key in ("psgpo", "commit", "torch") if theirs.get(key) != ours[key]]
        if other:
            said = ", ".join(f"{key} {theirs.get(key)} there, {ours[key]} here" for key in other)
            found.append(f"{path}: made by other software ({said}); a stage may have changed in between")
    return found


def _manifest_of(run: RunDirectory) -> dict[str, Any]:
    file = run.path / "manifest.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _take(run: RunDirectory, source: RunDirectory, stage: Stage) -> None:
    """Link or copy a stage's results: gathered aside, then renamed into place, then the receipt.

    A kill before the first rename leaves the stage not begun. One between renames and receipt leaves it begun: it is
    not taken again, and runs here.
    """
    with run.locked(stage.name):
        if run.stage_done(stage.name):  # by another command meanwhile
            return
        gathered = run.path / _STAGING / stage.name
        shutil.rmtree(gathered, ignore_errors=True)
        results = [path.relative_to(source.path) for path in outputs(source.path, stage.writes)]
        for result in results:
            linked_copy(source.path / result, gathered / result)
        log = Path("logs") / f"{stage.name}.log"
        if (source.path / log).is_file():
            (run.path / log).parent.mkdir(exist_ok=True)
            shutil.copy2(source.path / log, run.path / log)
        for result in results:
            (run.path / result).parent.mkdir(parents=True, exist_ok=True)
            (gathered / result).rename(run.path / result)
        receipt = source.receipt(stage.name)
        run.outdate_report()
        computed = receipt.get("taken_from", str(source.path))
        write_json(run.path / "stages" / f"{stage.name}.json", receipt | {"taken_from": computed})
        shutil.rmtree(gathered)
    if not any((run.path / _STAGING).iterdir()):
        (run.path / _STAGING).rmdir()


def _write_down(run: RunDirectory, taken: dict[str, Path]) -> None:
    known = _manifest_of(run)
    known["taken"] = known.get("taken", {}) | {stage: str(path) for stage, path in taken.items()}
    write_json(run.path / "manifest.json", known)
