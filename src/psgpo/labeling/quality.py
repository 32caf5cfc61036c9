"""How true line labels are, against exact ones; pure.

The exact labels of a response are its last on-track line, given by the embedded benchmark's oracle. Neutral lines are
left out everywhere: they carry no label. Responses that pass are +1 by themselves, so what the search did shows on the
failed ones only; every figure is over failed responses unless its name says otherwise.

A +1 is a proof, because a completed program passed all tests. Where the exact labels say -1 and the search +1, the
rollouts repaired a prefix that the oracle calls off track (`proved_off_track_*`), or the tests were too weak.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psgpo.lines import code_lines
from psgpo.records import LineLabels

_HEADER = re.compile(r"\s*(?:from|import|@|class|(?:async\s+)?def)\b|\s*@")
_DEF = re.compile(r"\s*(?:async\s+)?def\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelQuality:
    """Search labels against exact labels. Shares are NaN where there is nothing to count."""

    responses: int
    failed_responses: int
    failed_lines: int
    """Non-neutral lines of failed responses."""
    agreement: float
    """Share of those lines with the same sign."""
    agreement_all: float
    """The same over all responses, passing ones included."""
    agreement_by_operations: dict[int, float]
    """The same over failed responses, by the problem's number of operations."""
    majority: float
    """Agreement of the best constant label with the exact ones: what agreement must beat."""
    precision_positive: float
    """Share of search +1 that are exact +1."""
    precision_negative: float
    """Share of search -1 that are exact -1."""
    relative_position: float
    """Mean m*/T of the search, T and m* in non-neutral lines."""
    relative_position_exact: float
    nothing_salvageable: float
    """Share of responses whose m* lies no further than the header (see `header_lines`)."""
    nothing_salvageable_exact: float
    proved_off_track_lines: float
    """Share of exact -1 lines that a passing completion proved completable."""
    proved_off_track_share_of_lines: float
    """The same lines as a share of all non-neutral lines."""
    proved_off_track_responses: float
    """Share of responses whose search m* lies beyond the exact one."""
    last_line_exact: float
    """Share of responses whose m* is the exact one."""
    last_line_within_one: float
    """Share of responses whose m* is at most one non-neutral line away from the exact one."""
    monotone: float
    """Share of responses whose probe answers never go from rejected to accepted with growing m. A binary search
    cannot see otherwise (it asks beyond accepted lines and before rejected ones), so there it is 1."""

    def to_json(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        return {key: _json(value) for key, value in asdict(self).items()}


def header_lines(lines: Sequence[str], neutral: Sequence[bool]) -> int:
    """Number of leading lines that say nothing about the solution: neutral lines, imports, decorators, `class` lines,
    up to and including the first `def` line.

    A prefix of no more than these can be completed exactly when the problem can be solved at all.
    """
    count = 0
    for line, flag in zip(lines, neutral, strict=True):
        if not flag and not _HEADER.match(line):
            return count
        count += 1
        if not flag and _DEF.match(line):
            return count
    return count


def measure_labels(
    labels: Sequence[LineLabels], exact: Sequence[int], operations: Sequence[int | None]
) -> LabelQuality:
    """Compare labels with exact ones.

    Args:
        labels: search labels of N responses.
        exact: per response, its last on-track line, 0..T (lines numbered as in `LineLabels.labels`). Length N.
        operations: per response, its problem's `difficulty`; None is left out of `agreement_by_operations`. Length N.

    Raises:
        ValueError: an exact value does not lie in 0..T, or the lengths differ.
    """
    rows = [_row(*pair) for pair in zip(labels, exact, operations, strict=True)]
    failed = [row for row in rows if not row.passed]
    known = sorted({row.operations for row in failed if row.operations is not None})
    lines = sum(row.lines for row in failed)
    exact_positive = sum(row.exact for row in failed)
    off_track = lines - exact_positive
    both_positive = sum(min(row.found, row.exact) for row in failed)
    both_negative = sum(row.lines - max(row.found, row.exact) for row in failed)
    beyond = sum(max(0, row.found - row.exact) for row in failed)
    with_lines = [row for row in failed if row.lines]
    return LabelQuality(
        responses=len(rows),
        failed_responses=len(failed),
        failed_lines=lines,
        agreement=_agreement(failed),
        agreement_all=_agreement(rows),
        agreement_by_operations={n: _agreement([row for row in failed if row.operations == n]) for n in known},
        majority=_share(max(exact_positive, off_track), lines),
        precision_positive=_share(both_positive, both_positive + beyond),
        precision_negative=_share(both_negative, sum(row.lines - row.found for row in failed)),
        relative_position=_mean(row.found / row.lines for row in with_lines),
        relative_position_exact=_mean(row.exact / row.lines for row in with_lines),
        nothing_salvageable=_mean(row.found <= row.header for row in failed),
        nothing_salvageable_exact=_mean(row.exact <= row.header for row in failed),
        proved_off_track_lines=_share(beyond, off_track),
        proved_off_track_share_of_lines=_share(beyond, lines),
        proved_off_track_responses=_mean(row.found > row.exact for row in failed),
        last_line_exact=_mean(row.found == row.exact for row in failed),
        last_line_within_one=_mean(abs(row.found - row.exact) <= 1 for row in failed),
        monotone=_mean(is_monotone(label) for label in labels if not label.response.verdict.passed),
    )


def is_monotone(label: LineLabels) -> bool:
    """True unless a probe was accepted at a later line than one that was rejected."""
    accepted = [probe.line for probe in label.probes if probe.passed]
    rejected = [probe.line for probe in label.probes if not probe.passed]
    return not accepted or not rejected or max(accepted) < min(rejected)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One response, counted in non-neutral lines."""

    passed: bool
    operations: int | None
    lines: int
    found: int
    exact: int
    header: int


def _row(label: LineLabels, exact: int, operations: int | None) -> _Row:
    lines = code_lines(label.response.text)
    if not 0 <= exact <= len(lines):
        raise ValueError(
            f"response {label.response.index} of problem {label.response.problem_id}: exact last line {exact} does "
            f"not lie in 0..{len(lines)}; exact labels must be made from these responses"
        )
    neutral = [line.neutral for line in lines]
    header = header_lines([line.text for line in lines], neutral)

    def code(count: int) -> int:
        return count - sum(neutral[:count])

    return _Row(
        passed=label.response.verdict.passed,
        operations=operations,
        lines=code(len(lines)),
        found=code(label.last_solvable),
        exact=code(exact),
        header=code(header),
    )


def _agreement(rows: Sequence[_Row]) -> float:
    differing = sum(abs(row.found - row.exact) for row in rows)
    lines = sum(row.lines for row in rows)
    return _share(lines - differing, lines)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return _share(sum(listed), len(listed))


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
