"""How tables name an arm, its reference, and a seed without a pair: with why, and the command that makes it."""

from __future__ import annotations

from collections.abc import Mapping

from study.cells import Study
from study.compare import OTHER_PROBLEMS, OTHER_SFT, Pairs, Side
from study.results import OTHER_RECIPE

STANDS_IN_THE_WAY = (OTHER_RECIPE, OTHER_PROBLEMS, OTHER_SFT)
"""Reasons for which `run` alone would refuse the run directory, or take the result for done."""


def named(study: Study, side: Side) -> dict[str, str]:
    return {"cell": study.cells[side.cell].title, "arm": side.arm}


def named_reference(side: Side, reference: Side) -> str:
    return reference.arm if side.cell == reference.cell else f"{reference.cell}/{reference.arm}"


def missing(study: Study, pairs: Pairs) -> str:
    """Seeds that could not be paired, why, and the command that makes them; empty when there are none."""
    return said(study, pairs.missing)


def said(study: Study, lack: Mapping[int, tuple[str, str]]) -> str:
    """As `missing`, of seeds with (cell, reason)."""
    groups: dict[tuple[str, str], list[int]] = {}
    for seed, reason in lack.items():
        groups.setdefault(reason, []).append(seed)
    said = []
    for (cell, why), seeds in groups.items():
        command = study.command_anew(cell, seeds) if why in STANDS_IN_THE_WAY else study.command(cell, seeds)
        said.append(f"missing seeds {' '.join(map(str, seeds))}: {why} (run: `{command}`)")
    return "; ".join(said)
