"""What labels by mutants take, from the recipe and the reference solutions that are here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psgpo.config import BenchmarkSource, JsonlSource, Recipe
from psgpo.lines import code_lines
from psgpo.problems import load_problems_jsonl
from psgpo.problems.benchmarks import load_benchmark
from psgpo.records import Problem

LINES = 7
"""Code lines of a reference solution where none is here: MBPP 601-974 has 2,439 in 374 (docs/mutation.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class References:
    """Reference solutions of the problems to label."""

    problems: int
    lines: int
    """Code lines of all of them, neutral ones left out."""
    known: bool
    """Counted, not assumed."""

    @property
    def mean_lines(self) -> float:
        """Of one."""
        return self.lines / max(1, self.problems)


def references(recipe: Recipe, problems: int) -> References:
    """Of the problems to label.

    Args:
        problems: how many there are, where their file is not here.

    Raises:
        UserError: a file is malformed.
    """
    found = [p.reference_solution for p in _here(recipe) if p.reference_solution]
    if not found:
        return References(problems=problems, lines=problems * LINES, known=False)
    lines = sum(not line.neutral for text in found for line in code_lines(text))
    return References(problems=len(found), lines=lines, known=True)


def proposals(recipe: Recipe) -> tuple[int, int]:
    """(bugs, rewrites) of one line, at most: of the catalogue, and of a model that proposes too."""
    settings = recipe.mutation
    own = (settings.bugs_per_line, settings.refactors_per_line) if settings.catalogue else (0, 0)
    asked = 0 if settings.server is None else settings.per_line
    return own[0] + asked, own[1] + asked


def programs(recipe: Recipe, made: References) -> int:
    """Programs that run, at most: every proposal for every line, and the references."""
    return made.lines * sum(proposals(recipe)) + made.problems


def examples(recipe: Recipe, made: References, scope: str) -> int:
    """(problem, prefix) pairs that a PRM learns from, at most.

    A bug gives the prefix that ends with its line, a rewrite those of its line and of all behind it (half of the
    program in the mean), a reference all of its own. An ORM reads every program once.
    """
    if scope == "program":
        return programs(recipe, made)
    bugs, rewrites = proposals(recipe)
    return round(made.lines * (1 + bugs + rewrites * (made.mean_lines + 1) / 2))


def described(recipe: Recipe, made: References) -> str:
    """What the estimate rests on."""
    where = "counted" if made.known else f"assumed, {LINES} for each of {made.problems} solutions"
    bugs, rewrites = proposals(recipe)
    source = recipe.problems
    more = f", those of {source.plus}" if isinstance(source, BenchmarkSource) and source.plus is not None else ""
    return (
        f"mutants: {made.lines:,} lines of reference solutions ({where}), at most {bugs} bugs and {rewrites} rewrites "
        f"of each; a program runs on its problem's tests{more} and {recipe.mutation.generated} generated inputs, until "
        "one fails"
    )


def _here(recipe: Recipe) -> Sequence[Problem]:
    """Problems to label whose file is here."""
    source = recipe.problems
    if isinstance(source, JsonlSource):
        path = source.label or source.train
        return load_problems_jsonl(path) if path.is_file() else []
    if not isinstance(source, BenchmarkSource):
        return []
    tasks = source.label or source.sft or source.train
    data = source.data.get(tasks.benchmark)
    # The extended benchmarks need a sandbox to be read; what they strengthen has the same solutions.
    if data is None or not data.is_file() or tasks.benchmark.endswith("plus"):
        return []
    return load_benchmark(tasks.benchmark, data, ids=tasks.ids, data_key=f"problems.data.{tasks.benchmark}")
