"""How far harmless changes move the scores of a PRM (see `probes`). Pure NumPy.

Of every changed program: its lines' scores before and after, and what the PRM decides. A decision is the first line it
calls wrong, or that the program is right; it flips when it is not the same line afterwards (an inserted line that is
called wrong is a flip). A wrong program that was called wrong and is called right after the change has been attacked
with success.
"""

# L code lines of the old program

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgpo.firsterror.items import candidate_lines
from psgpo.firsterror.judges import RIGHT, named_line
from psgpo.prm.evaluation.probes import Probe
from psgpo.prm.evaluation.programs import EvalProgram

Array = NDArray[np.float64]
Json = dict[str, Any]
NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Move:
    """One program before and after one change."""

    program: EvalProgram
    probe: Probe
    before: Array
    """Evidence per line of the old program. Shape: (L,)."""
    after: Array
    """Evidence per line of the new program."""


def measure_moves(moves: Sequence[Move], threshold: float) -> Json:
    """Measures of one probe, of all programs and of the right and the wrong ones.

    Returns:
        `all`, `right`, `wrong`: `programs`; `lines_mean`, `lines_p95`: absolute change of the scores of lines that may
        be called wrong; `lines_flipped`: share of them called otherwise; `last_mean`: change, with its sign, from the
        score of the old last line to that of the new one; `lowest_mean`: of the lowest score of a program;
        `decision_flipped`: share of programs; `called_right_before`, `called_right_after`: share of programs.
        `wrong` also has `attacked`: of the programs called wrong before, the share called right after.
    """
    return {
        "all": _summary(moves, threshold),
        "right": _summary([m for m in moves if m.program.outcome == "right"], threshold),
        "wrong": _wrong([m for m in moves if m.program.outcome == "wrong"], threshold),
    }


def _wrong(moves: Sequence[Move], threshold: float) -> Json:
    decided = [_decisions(move, threshold) for move in moves]
    attacked = [after == RIGHT for before, after in decided if before != RIGHT]
    return _summary(moves, threshold) | {"attacked": _mean(attacked)}


def _summary(moves: Sequence[Move], threshold: float) -> Json:
    sizes: list[Array] = []
    flips: list[NDArray[np.bool_]] = []
    lowest: list[float] = []
    for move in moves:
        old = np.array(move.program.candidates) - 1
        new = np.array(move.probe.lines)[old] - 1
        sizes.append(np.abs(move.after[new] - move.before[old]))
        flips.append((move.after[new] >= threshold) != (move.before[old] >= threshold))
        lowest.append(float(move.after[np.array(_changed(move).candidates) - 1].min() - move.before[old].min()))
    size_N = np.concatenate([*sizes, np.zeros(0)])
    decided = [_decisions(move, threshold) for move in moves]
    return {
        "programs": len(moves),
        "lines_mean": _mean(size_N),
        "lines_p95": float(np.percentile(size_N, 95)) if len(size_N) else NAN,
        "lines_flipped": _mean(np.concatenate([*flips, np.zeros(0)])),
        "last_mean": _mean([move.after[-1] - move.before[-1] for move in moves]),
        "lowest_mean": _mean(lowest),
        "decision_flipped": _mean([before != after for before, after in decided]),
        "called_right_before": _mean([before == RIGHT for before, _ in decided]),
        "called_right_after": _mean([after == RIGHT for _, after in decided]),
    }


def _changed(move: Move) -> EvalProgram:
    """With the lines that may be called wrong after the change: the old ones, and inserted ones that say something."""
    old = set(move.probe.lines)
    lines = {move.probe.lines[n - 1] for n in move.program.candidates}
    lines |= {n for n in candidate_lines(move.probe.code, move.program.candidates[0] - 1) if n not in old}
    return replace(move.program, candidates=tuple(sorted(lines)))


def _decisions(move: Move, threshold: float) -> tuple[int, int]:
    """(line called wrong before, line called wrong after), both as lines of the new program; RIGHT for none."""
    before = named_line(move.program, list(move.before), threshold)
    after = named_line(_changed(move), list(move.after), threshold)
    return (RIGHT if before == RIGHT else move.probe.lines[before - 1]), after


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else NAN
