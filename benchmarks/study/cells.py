"""study.toml: groups of cells, and the recipe and run directory of each (cell, seed)."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from psgpo.config import Recipe, Section, load_recipe
from psgpo.config.base import PositiveFloat
from psgpo.errors import UserError

FOLDER = Path(__file__).parent
BASELINE = "baseline"
COMMAND = ".venv/bin/python benchmarks/study"


class Group(Section):
    """Cells that answer one question; they share a page of tables."""

    title: str
    question: str
    """What the page says above its tables."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    recipe: str
    """File in recipes/, unless a cell has another."""
    base: str | None = None
    """As `Cell.base`."""
    fresh: tuple[int, ...] = ()
    """Seeds by which nothing was chosen: the differences are shown on them alone too."""
    curves: bool = False
    """Draw metrics of training over PPO steps."""
    paths: bool = False
    """Draw the training pass rate against what lines earn."""
    heat: bool = False
    """Draw differences on a map: the cells' place on the axis of `at`, and length of the problem."""


class Cell(Section):
    """One recipe with its seeds, and what the tables take from it."""

    group: str
    title: str
    """For people: what differs from the group's other cells."""
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    """As `--set` of `psgpo run`; `{seed}` is replaced by the seed, `{runs}` by the folder of run directories."""
    seeds: tuple[int, ...] | None = None
    base: str | None = None
    """Cell whose run of the same seed is made before and lends its stages; "" for none where the group has one."""
    arms: tuple[str, ...] | None = None
    """Arms that the tables show, each against its reference. Absent: all of the recipe but the baseline."""
    against: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 (pydantic copies it)
    """References of an arm: arms of this cell, or `CELL/ARM`. Absent: this cell's baseline."""
    gain_of: dict[str, tuple[str, ...]] = {}  # noqa: RUF012
    """Arm to the arms (of this cell, or `CELL/ARM`) whose gains over their baselines its own gain is a share of."""
    curve_arms: tuple[str, ...] = ()
    """Policies whose checkpoints are evaluated too, for pass@1 against PPO steps."""
    best_of: tuple[str, ...] = ()
    """Policies of which `best_of_samples` responses per problem are drawn, for best-of-K."""
    best_of_samples: Annotated[int, Field(gt=1)] = 30
    best_of_prm: str | None = None
    """PRM that chooses among them, beside the unbiased pass@k."""
    at: dict[str, int | float | str] = {}  # noqa: RUF012
    """Axis of its group's figure, and where the cell lies on it."""


class _File(Section):
    runs: Path = Path("runs/study")
    groups: dict[str, Group]
    cells: dict[str, Cell]
    seconds: dict[str, PositiveFloat]
    """CPU seconds of one unit of work by kind of stage, see `cost.work_of`; used where no result has measured it."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """The file, with the defaults of groups put into their cells."""

    path: Path
    runs: Path
    """Folder of run directories."""
    groups: Mapping[str, Group]
    cells: Mapping[str, Cell]
    seconds: Mapping[str, float]
    results: Path
    """Folder of the small files that the tables are made of."""
    into: Path | None = None
    """Where the study is repeated; None: beside the file, with the results that are in git."""

    @classmethod
    def load(cls, path: Path = FOLDER / "study.toml", into: Path | None = None) -> Study:
        """
        Args:
            into: folder for run directories and results in place of the file's own.

        Raises:
            UserError: the file is missing or malformed, or a cell names what is not there.
        """
        try:
            file = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(f"{path}: no such study") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not valid TOML: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        cells: dict[str, Cell] = {}
        for name, cell in file.cells.items():
            cells[name] = _completed(path, name, cell, file.groups, cells)
        runs, results = (file.runs, path.parent / "results") if into is None else (into / "runs", into / "results")
        return cls(
            path=path,
            runs=runs,
            results=results,
            into=into,
            groups=file.groups,
            cells=cells,
            seconds=file.seconds,
        )

    def seeds(self, cell: str) -> tuple[int, ...]:
        """Seeds that the tables want of a cell."""
        seeds = self.cells[cell].seeds
        assert seeds is not None
        return seeds

    def run_path(self, cell: str, seed: int) -> Path:
        return self.runs / f"{cell}-{seed}"

    def result_path(self, cell: str, seed: int) -> Path:
        return self.results / cell / f"{seed}.json"

    def recipe(self, cell: str, seed: int) -> Recipe:
        """
        Raises:
            UserError: the recipe or an override of the cell is wrong.
        """
        chosen = self.cells[cell]
        keys = [text.replace("{seed}", str(seed)).replace("{runs}", str(self.runs)) for text in chosen.overrides]
        keys += [f"seed={seed}", f"out={self.run_path(cell, seed)}"]
        assert chosen.recipe is not None
        try:
            return _load_recipe(self.path.parent / "recipes" / chosen.recipe, tuple(keys))
        except UserError as error:
            raise UserError(f"{self.path}: cells.{cell}: {error}") from None

    def arms(self, cell: str) -> tuple[str, ...]:
        """Arms of a cell that the tables show."""
        chosen = self.cells[cell].arms
        if chosen is not None:
            return chosen
        return tuple(arm for arm in self.recipe(cell, self.seeds(cell)[0]).arms if arm != BASELINE)

    def references(self, cell: str, arm: str) -> list[tuple[str, str]]:
        """(cell, arm) of everything that an arm is compared with."""
        parts = [reference.rpartition("/") for reference in self.cells[cell].against.get(arm, (BASELINE,))]
        return [(other or cell, name) for other, _, name in parts]

    def stands_alone(self, cell: str) -> bool:
        """Whether all that a cell is compared with is its own, so that its base saves time and nothing else."""
        compared = (self.cells[cell].against, self.cells[cell].gain_of)
        return not any("/" in name for references in compared for names in references.values() for name in names)

    def command(self, cell: str, seeds: Iterable[int]) -> str:
        """What makes a cell's results of these seeds."""
        return f"{self.command_of('run')} --cells {cell} --seeds {' '.join(map(str, seeds))}"

    def command_of(self, verb: str) -> str:
        """`plan`, `run` or `table` of this study."""
        return f"{COMMAND} {verb}" + ("" if self.into is None else f" --into {self.into}")

    def command_anew(self, cell: str, seeds: Sequence[int]) -> str:
        """The same where a run and a result of another recipe, or of another machine, stand in the way."""
        paths = [path for seed in seeds for path in (self.run_path(cell, seed), self.result_path(cell, seed))]
        here = [path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path for path in paths]
        return f"rm -rf {' '.join(map(str, here))} && {self.command(cell, seeds)}"

    def chosen(self, cells: Sequence[str] | None, group: str | None) -> list[str]:
        """The named cells, those of a group, or all, in the file's order.

        Raises:
            UserError: no such cell or group.
        """
        for kind, given, known in (("cell", cells or (), self.cells), ("group", [group] if group else (), self.groups)):
            for name in given:
                if name not in known:
                    raise UserError(f"{self.path}: no {kind} {name!r}; there are {', '.join(known)}")
        named = [name for name in self.cells if not cells or name in cells]
        return [name for name in named if group is None or self.cells[name].group == group]


@functools.cache
def _load_recipe(path: Path, overrides: tuple[str, ...]) -> Recipe:
    return load_recipe(path, list(overrides))


def _completed(path: Path, name: str, cell: Cell, groups: Mapping[str, Group], before: Mapping[str, Cell]) -> Cell:
    """The cell with its group's defaults, checked against what stands before it in the file."""

    def refuse(key: str, problem: str) -> UserError:
        return UserError(f"{path}: cells.{name}.{key}: {problem}")

    if cell.group not in groups:
        raise refuse("group", f"no group {cell.group!r}; there are {', '.join(groups)}")
    group = groups[cell.group]
    base = group.base if cell.base is None else cell.base
    whole = cell.model_copy(
        update={
            "recipe": cell.recipe or group.recipe,
            "seeds": group.seeds if cell.seeds is None else cell.seeds,
            "base": base if base and base != name else None,
        }
    )
    if whole.base is not None:
        if whole.base not in before:
            raise refuse("base", f"{whole.base!r} is no cell above this one; a base stands first")
        if other := set(whole.seeds or ()) - set(before[whole.base].seeds or ()):
            raise refuse("seeds", f"{sorted(other)} are no seeds of its base {whole.base!r}")
    if len(whole.at) > 1:
        raise refuse("at", f"{', '.join(whole.at)}: figures have one such axis; give one")
    for key, named in (("against", whole.against), ("gain_of", whole.gain_of)):
        for arm, references in named.items():
            for other in (reference.rpartition("/")[0] for reference in references):
                if other and other not in before:
                    raise refuse(f"{key}.{arm}", f"{other!r} is no cell above this one")
    return whole
