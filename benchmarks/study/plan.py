"""`plan`: cells, seeds done and missing, and what the missing ones cost, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from study.carry import order
from study.cells import Study
from study.cost import Cost, cost_of, lent, measured
from study.results import load_all


def costs(study: Study, cells: Sequence[str], seeds: Sequence[int] | None) -> list[Cost]:
    """Of every missing (cell, seed) in the order of `run`; what a base lends is counted once, at the base."""
    rates, jobs = measured(study, load_all(study)), order(study, cells, seeds)

    def shared(cell: str, seed: int) -> frozenset[str]:
        base = study.cells[cell].base
        there = base is not None and ((base, seed) in jobs or (study.run_path(base, seed) / "recipe.json").is_file())
        return lent(study, cell, seed) if there or not study.stands_alone(cell) else frozenset()

    return [cost_of(study, rates, cell, seed, shared(cell, seed)) for cell, seed in jobs]


def plan(study: Study, cells: Sequence[str], seeds: Sequence[int] | None, processes: int) -> str:
    """The plan as text.

    Raises:
        UserError: a recipe of the chosen cells is wrong.
    """
    missing = costs(study, cells, seeds)
    named = list(dict.fromkeys([*(cost.cell for cost in missing), *cells]))
    lines = [f"{'cell':28} {'done':>5} {'missing':>8} {'CPU-minutes each':>17}  seeds missing"]
    for cell in (name for name in study.cells if name in named):
        mine = [cost for cost in missing if cost.cell == cell]
        wanted = [seed for seed in study.seeds(cell) if seeds is None or seed in seeds]
        left = [str(cost.seed) for cost in mine]
        each = f"{sum(cost.seconds for cost in mine) / len(mine) / 60:.1f}" if mine else ""
        lines.append(f"{cell:28} {len(wanted) - len(left):5} {len(left):8} {each:>17}  {' '.join(left)}".rstrip())
    minutes = sum(cost.seconds for cost in missing) / 60
    shared = sum(len(cost.shared) for cost in missing)
    lines.append(
        f"{len(missing)} runs to go: about {minutes:.0f} CPU-minutes, {minutes / processes:.0f} minutes on {processes} "
        f"cores with nothing else running; {shared} stages are taken over from other cells and counted there"
    )
    return "\n".join(lines) + "\n"
