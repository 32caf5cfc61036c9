"""A few held-out programs, line by line: PRM score, search label and exact label beside each other. Pure.

The choice is a rule, not taste: the passing response of median length, then failing ones whose first bad line lies at
fixed quantiles of all first bad lines, each of another problem.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from psgpo.lines import code_lines
from psgpo.records import LineLabels
from psgpo.report.load import Key, Run, response_key

QUANTILES = (0.05, 0.35, 0.65, 0.95)
MOST_LINES = 40
"""Longer programs are not shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a shown program."""

    number: int
    text: str
    neutral: bool
    scores: tuple[float, ...]
    """Per shown PRM; NaN where it gave none."""
    search: str
    """+, −, · (neutral) or empty (unknown: the search left the line open)."""
    exact: str
    lean: float = math.nan
    """Where the first PRM puts it, from -1 (bad) to +1 (good); NaN where it gave no score or one that has no sides."""

    @property
    def tint(self) -> str:
        """CSS class of the background."""
        return "" if math.isnan(self.lean) or self.neutral else ("good" if self.lean >= 0 else "bad")

    @property
    def strength(self) -> float:
        """Opacity of the background, 0 to 0.5."""
        return 0.0 if math.isnan(self.lean) else round(0.5 * min(1.0, abs(self.lean)), 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """One program with what is known about its lines."""

    title: str
    prompt: str
    source: str
    """Which response it is."""
    prms: tuple[str, ...]
    exact: bool
    """Whether exact labels are there."""
    lines: tuple[Line, ...]


EVEN = {"sign": 0.0, "soft": 0.5}
"""As in `psgpo.prm.measure`, which comes with torch; a report opens without."""
BACKGROUNDS = {
    "sign": "The background is the first PRM's score, from orange (bad) to blue (good).",
    "soft": "The background is the first PRM's score, from orange (bad, below 1/2) to blue (good, above).",
    "progress": "Scores are the share of the program that is done and right: a small one says nothing against a line, "
    "so there is no background.",
}
"""What a PRM of a target draws behind the lines, those first that draw something."""


def shown_prms(run: Run) -> tuple[str, ...]:
    """PRMs with scores, those first whose score makes the background."""
    order = list(BACKGROUNDS)
    with_scores = [name for name, prm in run.prm.items() if prm.scores]
    return tuple(sorted(with_scores, key=lambda name: order.index(run.recipe.prm[name].target)))


def background(run: Run) -> str:
    """What the colours behind the lines mean."""
    prms = shown_prms(run)
    return BACKGROUNDS[run.recipe.prm[prms[0]].target if prms else "sign"]


def choose_programs(run: Run) -> list[Program]:
    """The programs to show; empty without PRM scores."""
    prms = shown_prms(run)
    keys: set[Key] = set().union(*(run.prm[name].scores for name in prms)) if prms else set()
    labels = [x for x in run.labels if response_key(x) in keys and 0 < len(x.labels) <= MOST_LINES]
    passing = sorted((x for x in labels if x.response.verdict.passed), key=lambda x: (len(x.labels), response_key(x)))
    failing = [x for x in labels if not x.response.verdict.passed and _last_good(run, x) < len(x.labels)]
    failing.sort(key=lambda x: (_last_good(run, x) / len(x.labels), response_key(x)))
    chosen = passing[len(passing) // 2 : len(passing) // 2 + 1]
    for quantile in QUANTILES:
        start = int(quantile * (len(failing) - 1)) if failing else 0
        problems = {x.response.problem_id for x in chosen}
        chosen += [x for x in failing[start:] if x.response.problem_id not in problems][:1]
    return [_program(run, label, prms) for label in chosen]


def visible(text: str) -> str:
    """`text` with control and formatting characters (carriage returns, direction overrides) as escapes; tabs stay."""
    hidden = ("Cc", "Cf", "Zl", "Zp", "Cs")
    return "".join(
        c if c == "\t" or unicodedata.category(c) not in hidden else c.encode("unicode_escape").decode() for c in text
    )


def _last_good(run: Run, label: LineLabels) -> int:
    exact = run.exact.get(response_key(label))
    return label.last_solvable if exact is None else exact.last_on_track


def _lean(score: float, target: str) -> float:
    """`Line.lean`: how far a score is from the one that says neither good nor bad."""
    even = EVEN.get(target, math.nan)
    return (score - even) / (1 - even)


def _mark(label: LineLabels, value: float) -> str:
    """`Line.search` of a code line."""
    return "+" if value > 0 else "−" if value < 0 or label.real_valued else ""


def _first_bad_is_known(label: LineLabels, lines: Sequence[Line]) -> bool:
    """Whether the search left no line open before the first bad one."""
    marks = [line.search for line in lines]
    return label.real_valued or ("−" in marks and "" not in marks[: marks.index("−")])


def _program(run: Run, label: LineLabels, prms: Sequence[str]) -> Program:
    key = response_key(label)
    exact = run.exact.get(key)
    rows = [run.prm[name].scores.get(key) for name in prms]
    lines: list[Line] = []
    for index, code in enumerate(code_lines(label.response.text)):
        on_track = None if exact is None else index < exact.last_on_track
        scores = tuple(row[index] if row is not None and index < len(row) else math.nan for row in rows)
        lines.append(
            Line(
                number=index + 1,
                text=visible(code.text),
                neutral=code.neutral,
                scores=scores,
                lean=_lean(scores[0], run.recipe.prm[prms[0]].target) if prms else math.nan,
                search="·" if code.neutral else _mark(label, label.labels[index]),
                exact="" if on_track is None else "·" if code.neutral else "+" if on_track else "−",
            )
        )
    response = label.response
    verdict = response.verdict
    tests = f"{verdict.tests_passed} of {verdict.tests_total} tests"
    good, which = _last_good(run, label), "exact" if exact is not None else "search"
    title = "Passes all tests" if verdict.passed else f"Fails ({tests})"
    if not verdict.passed and (exact is not None or _first_bad_is_known(label, lines)):
        title += f", first bad line {good + 1} of {len(lines)} ({which})"
    return Program(
        title=title,
        prompt=run.prompts.get(response.problem_id, ""),
        source=f"{response.problem_id}, response {response.index} of {response.checkpoint}",
        prms=tuple(prms),
        exact=exact is not None,
        lines=tuple(lines),
    )
