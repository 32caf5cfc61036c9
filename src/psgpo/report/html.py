"""The page: chapters rendered through templates. Everything is escaped except our own SVG and style sheet.

One group of runs is one chapter. Several groups have a chapter that compares them first, then one each, whose ids and
file names begin with the group's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from psgpo.report.aggregate import Experiment
from psgpo.report.answer import answer, details
from psgpo.report.commands import made_by, run_command
from psgpo.report.compare import compare_sections, compared
from psgpo.report.figures import series_of
from psgpo.report.frames import Frame, slug
from psgpo.report.groups import Group, comparisons, flatten
from psgpo.report.sections import Block, Section, build_sections
from psgpo.report.strip import Step, strip, total_time
from psgpo.report.style import Plot, Series


@dataclass(frozen=True, kw_only=True, slots=True)
class Chapter:
    """What the page says of one group of runs."""

    prefix: str
    """Of ids and file names; empty where there is one group."""
    title: str
    facts: list[str]
    answer: list[str]
    details: list[str]
    strip: list[Step]
    total: str
    sections: list[Section]
    series: dict[str, Series]
    recipe: list[tuple[str, str]]
    versions: list[tuple[str, str]]
    made_by: list[str]
    go_on: list[str]
    paths: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """The page and the files that belong beside it."""

    text: str
    pictures: dict[str, bytes]
    """PNG files by name."""
    frames: dict[str, Frame]
    """CSV files by name without `.csv`."""


def render_page(groups: Sequence[Group], command: str) -> Page:
    """The whole page, its figures and its data.

    Args:
        command: what makes this page.
    """
    several = len(groups) > 1
    comparing = compare_sections(groups) if several else []
    chapters = [_chapter(group, prefix) for group, prefix in zip(groups, _prefixes(groups), strict=True)]
    names = [group.label for group in groups]
    text = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=" · ".join(names) if several else groups[0].data.first.recipe.name,
            facts=[f"{len(names)} recipes side by side"] if several else chapters[0].facts,
            answer=[sentence for each in comparisons(groups) for sentence in compared(each)] if several else [],
            comparing=comparing,
            chapters=chapters,
            command=command,
            css=Markup("".join(_style())),
        )
    )
    parts = [*(("", section) for section, _ in comparing), *((c.prefix, s) for c in chapters for s in c.sections)]
    plots = {f"{prefix}{plot.name}": plot for prefix, section in parts for plot in _plots(section.blocks)}
    tables = {f"{prefix}{frame.name}": frame for prefix, section in parts for frame in _tables(section.blocks)}
    frames = {name: plot.frame for name, plot in plots.items()} | tables
    return Page(text=text, pictures={name: plot.png for name, plot in plots.items()}, frames=frames)


def _prefixes(groups: Sequence[Group]) -> list[str]:
    """What ids and file names of each group begin with."""
    if len(groups) == 1:
        return [""]
    slugs = [slug(group.label) for group in groups]
    clear = all(slugs) and len(set(slugs)) == len(slugs)
    return [f"{word if clear else f'run-{number + 1}'}-" for number, word in enumerate(slugs)]


def _chapter(group: Group, prefix: str) -> Chapter:
    data = group.data
    series = series_of(data)
    return Chapter(
        prefix=prefix,
        title=group.label,
        facts=facts(data),
        answer=answer(data),
        details=details(data),
        strip=list(strip(data)),
        total=total_time(data),
        sections=build_sections(data, series),
        series=series,
        recipe=flatten(data.first.recipe.model_dump(mode="json")),
        versions=[
            (key, str(value)) for key, value in data.first.manifest.items() if value is not None and key != "taken"
        ],
        made_by=[made_by(run) for run in data.runs],
        go_on=[run_command(run) for run in data.runs],
        paths=[str(run.path) for run in data.runs],
    )


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


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("psgpo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = lambda plot: Markup(plot.svg)
    environment.filters["two"] = lambda value: "" if math.isnan(value) else f"{value:.2f}".replace("-", "−")
    return environment


def _style() -> Iterator[str]:
    folder = files("psgpo.report") / "templates"
    return ((folder / name).read_text(encoding="utf-8") for name in ("tokens.css", "report.css", "print.css"))


def _plots(blocks: Sequence[Block]) -> Iterator[Plot]:
    for block in _flat(blocks):
        yield from block.plots


def _tables(blocks: Sequence[Block]) -> Iterator[Frame]:
    return (block.table.frame for block in _flat(blocks) if block.table is not None)


def _flat(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        for column in block.columns:
            yield from _flat(column)
