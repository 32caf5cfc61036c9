"""docs/results/README.md from findings.md.j2: the prose is by hand, the numbers come from the pages' CSV files.

What the template calls, with the names of study.toml; all give text, and "–" where there is no number:

gain(CELL, ARM, AGAINST)      paired difference of pass@1 with its interval, bold where it is clear of zero
level(CELL, ARM)              pass@1;  greedy(…), many(…): of greedy programs, of any of eight
reference(CELL, ARM, AGAINST) pass@1 of what the arm is compared with, on the seeds of both
seed_level(CELL, ARM, SEED)   pass@1 on one seed;  seed_share(…, OF): share of OF's gain, OF being CELL/ARM
greedy_gain(…)                the difference of greedy programs, as `gain`
gain_t(…), greedy_t(…)        `gain` and `greedy_gain` with Student's t interval over the seeds
operations(CELL, ARM, "1–2")  the difference on these lengths;  factor(…): by how much pass@1 grows there
quarter(CELL, ARM, COLUMN)    the difference on a quarter of the problems by length of the response, or its tokens
share(CELL, ARM, OF)          share of the gain of another arm;  share_base(…): that gain, on the same seeds
steps(CELL, ARM)              PPO steps to the baseline's last pass@1, median
auroc(CELL, PRM)              against exact labels, with its interval
place(CELL, PRM)              AUROC of a line's place in its program, on the same lines
label(CELL, COLUMN)           a column of the table of labels
fresh_gain(CELL, ARM)         as `gain`, on the seeds that nothing was chosen by;  fresh_t(…): as `gain_t`
fresh_share(CELL, ARM, OF)    share of the gain of OF, which is CELL/ARM, there
pairs_of(TABLE, CELL, OTHER)  rows of two cells with the same seed, of a table with a row a seed
mean_of(TABLE, CELL, COLUMN)  mean over a cell's rows there; as_share(…) of a column: as the others
mean_gap(…, COLUMN, OTHER)    mean of a difference of columns, with Student's t interval
cost(CELL, KIND)              CPU-seconds of a seed
best(CELL, POLICY, HOW, N)    pass@1 of the program chosen of N
checkpoint(CELL, ARM, STEP)   pass@1 of a checkpoint, mean over seeds; or "least" or "most" of them
intervals()                   how many bootstrap intervals the pages of the groups show
at_end(CELL, METRIC, ARM)     a curve's mean at its last step; or "least" or "most" of the seeds
at_start(…)                   at its first; share_at_end(…), share_at_start(…): of a share
"""

from __future__ import annotations

import csv
import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from psgpo.errors import UserError
from psgpo.evaluation.metrics import NAN
from study.cells import BASELINE, FOLDER, Study
from study.compare import over_seeds

TEMPLATE = FOLDER / "findings.md.j2"
DASH = "–"
BOOTSTRAPPED = ("arms", "decoding", "fresh", "length", "operations", "shares")
"""Tables whose intervals are bootstraps."""
Row = dict[str, str]


def render(study: Study, tables: Path) -> str:
    """The page, from the CSV files in `tables`.

    Raises:
        UserError: the template asks for a row that is in no table.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(**_functions(study, tables))


def _functions(study: Study, tables: Path) -> dict[str, Callable[..., Any]]:
    @functools.cache
    def rows(name: str) -> list[Row]:
        path = tables / f"{name}.csv"
        if not path.is_file():
            raise UserError(f"{TEMPLATE}: asks for {path}, which is not there; run `{study.command_of('table')}`")
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))

    def row(table: str, cell: str, **wanted: str) -> Row:
        chosen = study.cells.get(cell)
        if chosen is None:
            raise UserError(f"{TEMPLATE}: no cell {cell!r}")
        wanted = {"cell": chosen.title} | wanted
        for found in rows(f"{chosen.group}-{table}"):
            if all(found[key] == value for key, value in wanted.items()):
                return found
        raise UserError(f"{TEMPLATE}: {chosen.group}-{table}.csv has no row {wanted}")

    def of_arm(table: str, cell: str, arm: str, against: str | None = None) -> Row:
        return row(table, cell, arm=arm, **({} if against is None else {"against": against}))

    def gain(cell: str, arm: str, against: str = BASELINE) -> str:
        return _difference(of_arm("arms", cell, arm, against), "difference, bootstrap")

    def reference(cell: str, arm: str, against: str = BASELINE) -> str:
        found = of_arm("arms", cell, arm, against)
        if found["difference, bootstrap"] in ("", DASH):
            return DASH
        if found["seeds"] != found["pairs"]:
            raise UserError(f"{TEMPLATE}: reference({cell!r}, {arm!r}): some of the arm's seeds lack {against}")
        return _share(str(float(found["pass@1"]) - float(found["difference, bootstrap"])))

    def greedy_gain(cell: str, arm: str, against: str = BASELINE, kind: str = "") -> str:
        return _difference(of_arm("decoding", cell, arm, against), f"greedy: difference{kind}")

    def on_seed(cell: str, arm: str, seed: int) -> float:
        return float(row("seeds", cell, arm=arm)[f"seed {seed}"] or NAN)

    def seed_share(cell: str, arm: str, seed: int, of: str) -> str:
        other, _, bound = of.rpartition("/")
        gains = [on_seed(c, a, seed) - on_seed(c, BASELINE, seed) for c, a in ((cell, arm), (other, bound))]
        return _share(str(gains[0] / gains[1]), 2) if gains[1] and not np.isnan(sum(gains)) else DASH

    def fresh_share(cell: str, arm: str, of: str) -> str:
        other, _, bound = of.rpartition("/")
        gains = [
            row("fresh", c, arm=a, against=BASELINE)["difference, bootstrap"] for c, a in ((cell, arm), (other, bound))
        ]
        return _share(str(float(gains[0]) / float(gains[1])), 2)

    def operations(cell: str, arm: str, lengths: str, against: str = BASELINE) -> str:
        return _difference(of_arm("operations", cell, arm, against), f"{lengths} operations")

    def factor(cell: str, arm: str, lengths: str, against: str = BASELINE) -> str:
        return f"{float(of_arm('operations', cell, arm, against)[f'{lengths} operations: factor']):.1f}"

    def quarter(cell: str, arm: str, column: str) -> str:
        found = of_arm("length", cell, arm, BASELINE)
        return found[column] if column.endswith(": tokens") else _difference(found, column)

    def intervals() -> str:
        count = 0
        for path in tables.glob("*.csv"):
            if path.stem.rpartition("-")[2] in BOOTSTRAPPED:
                lows = [key for key in rows(path.stem)[0] if key.endswith(": low") and "t over seeds" not in key]
                count += sum(each[key] not in ("", DASH) for each in rows(path.stem) for key in lows)
        return f"{count:,}"

    def seeds_of(table: str, cell: str) -> list[Row]:
        title = study.cells[cell].title
        known = [each for each in rows(f"{study.cells[cell].group}-{table}") if each["cell"] == title]
        return [each for each in known if each["seed"] != DASH]

    def pairs_of(table: str, cell: str, other: str) -> list[tuple[Row, Row]]:
        by_seed = {each["seed"]: each for each in seeds_of(table, other)}
        return [(each, by_seed[each["seed"]]) for each in seeds_of(table, cell) if each["seed"] in by_seed]

    def mean_of(table: str, cell: str, column: str) -> str:
        known = [float(each[column]) for each in seeds_of(table, cell)]
        return str(statistics.fmean(known)) if known else DASH

    def mean_gap(table: str, cell: str, column: str, other: str) -> str:
        found = over_seeds([np.array([float(each[column]) - float(each[other])]) for each in seeds_of(table, cell)])
        return f"{_signed(str(found.value))} ({_signed(str(found.low))} … {_signed(str(found.high))})"

    def points(cell: str, metric: str, arm: str) -> list[Row]:
        group = study.cells[cell].group
        lines = {arm, f"{study.cells[cell].title}: {arm}"}  # the second where the group has several cells
        found = [each for each in rows(f"{group}-{metric}") if each["line"] in lines]
        if not found:
            raise UserError(f"{TEMPLATE}: {group}-{metric}.csv has no line of {cell}/{arm}")
        return found

    def curve(cell: str, metric: str, arm: str, of: str = "mean", *, place: int, digits: int = 1) -> str:
        return f"{float(points(cell, metric, arm)[place][of]):.{digits}f}".replace("-", "−")

    def checkpoint(cell: str, arm: str, step: int, of: str = "mean") -> str:
        found = {int(float(each["PPO step"])): each[of] for each in points(cell, "checkpoints", arm)}
        if step not in found:
            raise UserError(f"{TEMPLATE}: {cell}/{arm} has checkpoints {list(found)}, not {step}")
        return _share(found[step])

    return {
        "gain": gain,
        "reference": reference,
        "greedy_gain": greedy_gain,
        "gain_t": lambda cell, arm, against=BASELINE: _difference(
            of_arm("arms", cell, arm, against), "difference, t over seeds"
        ),
        "greedy_t": functools.partial(greedy_gain, kind=", t over seeds"),
        "level": lambda cell, arm: _share(of_arm("arms", cell, arm)["pass@1"]),
        "seed_level": lambda cell, arm, seed: _share(row("seeds", cell, arm=arm)[f"seed {seed}"]),
        "seed_share": seed_share,
        "greedy": lambda cell, arm: _share(of_arm("decoding", cell, arm)["greedy"]),
        "many": lambda cell, arm: _share(of_arm("decoding", cell, arm)["pass@8"]),
        "operations": operations,
        "factor": factor,
        "quarter": quarter,
        "intervals": intervals,
        "share": lambda cell, arm, of: _interval(row("shares", cell, arm=arm, **{"of the gain of": of}), "share", 2),
        "share_base": lambda cell, arm, of: _difference(
            row("shares", cell, arm=arm, **{"of the gain of": of}), "which is"
        ),
        "steps": lambda cell, arm: row("steps", cell, arm=arm)["steps, median"],
        "auroc": lambda cell, prm: _interval(row("prm", cell, PRM=prm), "AUROC", 3),
        "place": lambda cell, prm: _share(row("prm", cell, PRM=prm)["position"]),
        "label": lambda cell, column: _plain(row("labels", cell)[column]),
        "pairs_of": pairs_of,
        "mean_of": mean_of,
        "mean_gap": mean_gap,
        "as_share": _share,
        "fresh_gain": lambda cell, arm: _difference(
            row("fresh", cell, arm=arm, against=BASELINE), "difference, bootstrap"
        ),
        "fresh_t": lambda cell, arm, against=BASELINE: _difference(
            row("fresh", cell, arm=arm, against=against), "difference, t over seeds"
        ),
        "fresh_share": fresh_share,
        "cost": lambda cell, kind: row("costs", cell)[kind],
        "best": lambda cell, policy, how, n: _share(row("best-of", cell, policy=policy, takes=how)[f"n = {n}"]),
        "at_end": functools.partial(curve, place=-1),
        "checkpoint": checkpoint,
        "at_start": functools.partial(curve, place=0),
        "share_at_end": functools.partial(curve, place=-1, digits=3),
        "share_at_start": functools.partial(curve, place=0, digits=3),
    }


def _difference(row: Row, column: str) -> str:
    """
    >>> _difference({"d": "0.0871", "d: low": "0.0567", "d: high": "0.119"}, "d")
    '**+.087** (+.057 … +.119)'
    >>> _difference({"d": "-0.01", "d: low": "", "d: high": ""}, "d"), _difference({"d": ""}, "d")
    ('−.010', '–')
    """
    if row[column] in ("", DASH):
        return DASH
    point = _signed(row[column])
    low, high = row[f"{column}: low"], row[f"{column}: high"]
    if not low:
        return point
    clear = float(low) > 0 or float(high) < 0
    return f"{f'**{point}**' if clear else point} ({_signed(low)} … {_signed(high)})"


def _interval(row: Row, column: str, digits: int) -> str:
    """
    >>> _interval({"s": "0.574", "s: low": "-0.44", "s: high": "1.03"}, "s", 2)
    '.57 (−.44 … 1.03)'
    """
    parts = [_share(row[key], digits) for key in (column, f"{column}: low", f"{column}: high")]
    return parts[0] if DASH in parts else f"{parts[0]} ({parts[1]} … {parts[2]})"


def _share(value: str, digits: int = 3) -> str:
    return DASH if value in ("", DASH) else f"{float(value):.{digits}f}".replace("0.", ".", 1).replace("-", "−")


def _signed(value: str) -> str:
    return f"{float(value):+.3f}".replace("-", "−").replace("0.", ".", 1)


def _plain(value: str) -> str:
    """A share as a share, other numbers as they are."""
    return _share(value) if value.startswith("0.") else value or DASH
