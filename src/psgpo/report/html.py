"""The page: sections rendered through one template. Everything is escaped except our own SVG and style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from psgpo.config import Recipe
from psgpo.report.aggregate import BASELINE, Experiment
from psgpo.report.answer import answer, details
from psgpo.report.figures import series_of
from psgpo.report.load import Run, Stage
from psgpo.report.sections import build_sections, run_command
from psgpo.report.style import Plot


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One box of the data-flow strip."""

    title: str
    detail: str
    stages: tuple[tuple[str, str], ...]
    """Stage and how long it took, or a dash."""


def render_page(data: Experiment) -> tuple[str, list[Plot]]:
    """The whole page, and the figures on it."""
    series = series_of(data)
    sections = build_sections(data, series)
    folder = files("psgpo.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = lambda plot: Markup(plot.svg)
    environment.filters["two"] = lambda value: "" if math.isnan(value) else f"{value:.2f}".replace("-", "−")
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    page = template.render(
        name=data.first.recipe.name,
        facts=facts(data),
        answer=answer(data),
        details=details(data),
        strip=list(strip(data)),
        total=total_time(data),
        sections=sections,
        series=series,
        recipe=flatten(data.first.recipe.model_dump(mode="json")),
        versions=[
            (key, str(value)) for key, value in data.first.manifest.items() if value is not None and key != "taken"
        ],
        command=run_command(data.first),
        runs=[str(run.path) for run in data.runs],
        css=Markup("".join((folder / name).read_text(encoding="utf-8") for name in ("tokens.css", "report.css"))),
    )
    plots = [plot for section in sections for block in section.blocks for plot in block.plots]
    return page, plots


def facts(data: Experiment) -> list[str]:
    """The line under the title."""
    seeds = ", ".join(str(run.recipe.seed) for run in data.runs)
    manifest = data.first.manifest
    found = [f"{'seeds' if len(data.runs) > 1 else 'seed'} {seeds}", f"{len(data.arms)} arms"]
    if manifest.get("created"):
        found.append(str(manifest["created"])[:10])
    if manifest.get("cpu"):
        found.append(str(manifest["cpu"]))
    return found


def strip(data: Experiment) -> Iterator[Step]:
    """The data flow, left to right, with the seconds of every stage (mean over seeds), wherever it was run."""
    recipe = data.first.recipe
    arms = [arm for arm in recipe.arms if arm != BASELINE]
    groups: list[tuple[str, str, list[str]]] = [
        ("Problems", "hidden tests", ["problems"]),
        ("SFT", "starting policy", ["sft"]),
        ("RL baseline", "unit tests only", ["rl-baseline"]),
        ("Line labels", _labelled_by(recipe), _label_stages(recipe)),
        ("PRM", "scores per line", [f"prm-{name}" for name in recipe.prm]),
        ("RL arms", "line rewards", [f"rl-{arm}" for arm in arms]),
        ("Evaluation", "pass@k", [f"evaluate-{policy}" for policy in data.policies]),
    ]
    for title, detail, stages in groups:
        if stages:
            times = tuple((_short(stage), _seconds([_time(run, stage) for run in data.runs])) for stage in stages)
            yield Step(title=title, detail=detail, stages=times)


def _label_stages(recipe: Recipe) -> list[str]:
    if not recipe.prm:
        return []
    if recipe.labels.source == "mutation":
        return ["mutants"]
    shards = [f"labels-{number + 1}" for number in range(recipe.labels.shards)]
    return ["responses", *shards, *(["labels-linear"] if recipe.labels.compare_linear else []), "labels"]


def _labelled_by(recipe: Recipe) -> str:
    return "mutants" if recipe.labels.source == "mutation" else recipe.labels.strategy.replace("-", " ")


SHORT = {
    "problems": "",
    "mutants": "",
    "sft": "",
    "rl-baseline": "",
    "responses": "sample",
    "labels": "merge",
    "labels-linear": "linear scan",
}


def _short(stage: str) -> str:
    """Name of a stage inside its box; empty when the box is the stage."""
    if stage in SHORT:
        return SHORT[stage]
    return stage.replace("labels-", "search ") if stage.startswith("labels-") else stage.partition("-")[2]


def _time(run: Run, stage: str) -> float:
    return run.stages[stage].seconds if stage in run.stages else math.nan


def _seconds(values: list[float]) -> str:
    seconds = sum(values) / len(values)  # NaN while a seed has not finished it
    return "not yet" if math.isnan(seconds) else f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def total_time(data: Experiment) -> str:
    """Sum over finished stages: wall and CPU time; those that another run computed are named, not counted."""
    finished = [stage for run in data.runs for stage in run.stages.values()]
    stages = [stage for stage in finished if not stage.taken_from]
    wall, cpu = sum(stage.seconds for stage in stages), sum(stage.cpu_seconds for stage in stages)
    if not finished:
        return ""
    peak = max((stage.peak_memory_mb for stage in stages if not math.isnan(stage.peak_memory_mb)), default=math.nan)
    memory = "" if math.isnan(peak) else f", at most {peak / 1024:.1f} GiB of memory"
    runs = "" if len(data.runs) == 1 else f" for {len(data.runs)} seeds"
    return (
        f"Stage times sum to {wall / 60:.1f} min{runs}, {cpu / 60:.1f} min of CPU{memory}; "
        f"stages in one box may have run side by side ({data.first.recipe.processes} processes).{_taken(finished)}"
    )


def _taken(stages: Sequence[Stage]) -> str:
    """What other runs computed, as a sentence; empty where there is none."""
    sources = {
        stage.taken_from: [other for other in stages if other.taken_from == stage.taken_from] for stage in stages
    }
    said = [
        f"{', '.join(sorted({stage.name for stage in taken}))} taken from {source} "
        f"({sum(stage.seconds for stage in taken) / 60:.1f} min)"
        for source, taken in sources.items()
        if source
    ]
    return f" Not counted: {'; '.join(said)}." if said else ""


def flatten(table: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A recipe as `key.path`, value pairs, as `--set` takes them."""
    pairs: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, dict) and value:
            pairs += flatten(value, f"{prefix}{key}.")
        elif value is not None:
            shown = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
            pairs.append((f"{prefix}{key}", shown or str(value)))
    return pairs
