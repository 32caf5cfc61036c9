"""How true line labels are, against exact ones; pure.

The exact labels of a response are its last on-track line, given by the embedded benchmark's oracle. Neutral lines are
left out everywhere: they carry no label. Responses that pass are +1 by themselves, so what the search did shows on the
failed ones only; every figure is over failed responses unless its name says otherwise.

Lines that a strategy left open are neither right nor wrong: `labelled` says how many are not. A real-valued label
counts as its sign.

Where labels rest on programs, a +1 is a proof: a completed program passed all tests. Where the exact labels say -1
then, the rollouts repaired a prefix that the oracle calls off track (`proved_off_track_*`), or the tests were too weak.
Labels that were `guessed` prove nothing and are left out there.
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
    labelled: float
    """Share of those lines that have a label."""
    agreement: float
    """Share of the labelled ones with the same sign as the exact label."""
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
    """Mean m*/T of the search, T and m* in non-neutral lines. This and all that follows but `monotone`: over the
    responses without an open line."""
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
    lines = [good for row in failed for _, good in row.lines]
    return LabelQuality(
        responses=len(rows),
        failed_responses=len(failed),
        failed_lines=len(lines),
        agreement_all=_share(*_agreeing(rows)),
        agreement_by_operations={n: _share(*_agreeing([row for row in failed if row.operations == n])) for n in known},
        majority=_share(max(sum(lines), len(lines) - sum(lines)), len(lines)),
        monotone=_mean(is_monotone(label) for label in labels if not label.response.verdict.passed),
        **{name: _share(*counts) for name, counts in _shares(failed).items()},
    )


def shares_by_problem(labels: Sequence[LineLabels], exact: Sequence[int]) -> dict[str, list[tuple[float, float]]]:
    """Numerator and denominator of every share of `LabelQuality` that is over failed responses, per problem.

    Whole problems can then be drawn again: lines of one response, and responses to one problem, are not independent.

    Args:
        labels: of N responses; those that pass are left out.
        exact: per response, its last on-track line. Length N.
    """
    members: dict[str, list[_Row]] = {}
    for label, last in zip(labels, exact, strict=True):
        if not label.response.verdict.passed:
            members.setdefault(label.response.problem_id, []).append(_row(label, last, None))
    counted = [_shares(rows) for rows in members.values()]
    return {name: [counts[name] for counts in counted] for name in (counted[0] if counted else ())}


def is_monotone(label: LineLabels) -> bool:
    """True unless a probe was accepted at a later line than one that was rejected."""
    accepted = [probe.line for probe in label.probes if probe.passed]
    rejected = [probe.line for probe in label.probes if not probe.passed]
    return not accepted or not rejected or max(accepted) < min(rejected)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One response, counted in non-neutral lines."""

    passed: bool
    guessed: bool
    operations: int | None
    lines: tuple[tuple[int, bool], ...]
    """Per line, the sign of its label (0: open) and whether it is exactly +1."""
    header: int

    @property
    def found(self) -> int:
        return sum(sign > 0 for sign, _ in self.lines)

    @property
    def exact(self) -> int:
        return sum(good for _, good in self.lines)


def _row(label: LineLabels, exact: int, operations: int | None) -> _Row:
    lines = code_lines(label.response.text)
    if not 0 <= exact <= len(lines):
        raise ValueError(
            f"response {label.response.index} of problem {label.response.problem_id}: exact last line {exact} does "
            f"not lie in 0..{len(lines)}; exact labels must be made from these responses"
        )
    neutral = [line.neutral for line in lines]
    header = header_lines([line.text for line in lines], neutral)
    return _Row(
        passed=label.response.verdict.passed,
        guessed=label.guessed,
        operations=operations,
        lines=tuple(
            (1 if value > 0 else -1 if value < 0 or label.real_valued else 0, number <= exact)
            for number, (value, flag) in enumerate(zip(label.labels, neutral, strict=True), start=1)
            if not flag
        ),
        header=header - sum(neutral[:header]),
    )


def _shares(failed: Sequence[_Row]) -> dict[str, tuple[float, float]]:
    """Numerator and denominator of the shares and means over failed responses, by their name in `LabelQuality`."""
    labelled = [(found, good) for row in failed for found, good in row.lines if found]
    whole = [row for row in failed if row.lines and all(found for found, _ in row.lines)]
    proving = [row for row in failed if not row.guessed]
    off_track = [found for row in proving for found, good in row.lines if not good]
    beyond = sum(found > 0 for found in off_track)
    return {
        "labelled": (len(labelled), sum(len(row.lines) for row in failed)),
        "agreement": _agreeing(failed),
        "precision_positive": _counted(good for found, good in labelled if found > 0),
        "precision_negative": _counted(not good for found, good in labelled if found < 0),
        "relative_position": _counted(row.found / len(row.lines) for row in whole),
        "relative_position_exact": _counted(row.exact / len(row.lines) for row in whole),
        "nothing_salvageable": _counted(row.found <= row.header for row in whole),
        "nothing_salvageable_exact": _counted(row.exact <= row.header for row in whole),
        "proved_off_track_lines": (beyond, len(off_track)),
        "proved_off_track_share_of_lines": (beyond, sum(len(row.lines) for row in proving)),
        "proved_off_track_responses": _counted(
            any(found > 0 and not good for found, good in row.lines) for row in proving
        ),
        "last_line_exact": _counted(row.found == row.exact for row in whole),
        "last_line_within_one": _counted(abs(row.found - row.exact) <= 1 for row in whole),
    }


def _agreeing(rows: Sequence[_Row]) -> tuple[float, float]:
    """Labelled lines with the sign of the exact label, and all labelled lines."""
    return _counted((found > 0) == good for row in rows for found, good in row.lines if found)


def _counted(values: Iterable[float]) -> tuple[float, float]:
    """Sum and number."""
    listed = list(values)
    return sum(listed), len(listed)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _mean(values: Iterable[float]) -> float:
    return _share(*_counted(values))


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
