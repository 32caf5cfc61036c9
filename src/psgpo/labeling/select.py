"""Which labelled responses a PRM is trained on: the selections of PSGPO's Table 2, as pure filters.

Known of the paper (arXiv 2410.17621, Table 2): Full; Remove-Hard; Medium-Only; Revised-Only, the prompts whose sampled
response failed while the search found a correct prefix and completed it. It defines neither hard nor medium. Here, with
all responses of a file to one problem together (whatever their checkpoint):

    salvaged     a failed response whose m* lies beyond its header (imports, decorators, the first `def`)
    hard         a problem without a passing and without a salvaged response
    medium       a problem whose pass rate r lies strictly between the two bounds; (0, 1): some pass, some fail

    full         every response
    remove-hard  all responses but those to hard problems
    medium-only  the responses to medium problems
    revised-only the salvaged responses, alone

A prefix that ends within the header says only that the problem can be solved at all, hence "beyond".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from psgpo.labeling.quality import header_lines
from psgpo.lines import code_lines
from psgpo.records import LineLabels


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prompt:
    """What the responses to one problem say about it."""

    pass_rate: float
    salvaged: bool
    """Some failed response was."""

    @property
    def hard(self) -> bool:
        return not self.pass_rate and not self.salvaged


_Rule = Callable[[LineLabels, _Prompt, tuple[float, float]], bool]
SELECTIONS: dict[str, _Rule] = {
    "full": lambda label, prompt, medium: True,
    "remove-hard": lambda label, prompt, medium: not prompt.hard,
    "medium-only": lambda label, prompt, medium: medium[0] < prompt.pass_rate < medium[1],
    "revised-only": lambda label, prompt, medium: is_salvaged(label),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCounts:
    """What a set of labels holds."""

    problems: int
    responses: int
    passing: int
    """Responses that pass."""
    salvaged: int
    """Failed responses whose search accepted a prefix beyond the header."""
    lines: int
    positive: int
    """Lines with a label above 0."""
    negative: int
    """Lines with a label below 0, or with a rate or chance of exactly one half."""
    unlabelled: int
    """Neutral lines, and those that the strategy left open."""

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def select_labels(
    labels: Sequence[LineLabels], keep: str, *, medium: tuple[float, float] = (0.0, 1.0)
) -> list[LineLabels]:
    """The labels that a selection of `SELECTIONS` keeps, in their order.

    Args:
        labels: all labels of a file: pass rates are over what is given.
        keep: a key of `SELECTIONS`.
        medium: pass rates of medium problems lie strictly between these.
    """
    by_problem: dict[str, list[LineLabels]] = {}
    for label in labels:
        by_problem.setdefault(label.response.problem_id, []).append(label)
    prompts = {
        problem_id: _Prompt(
            pass_rate=sum(label.response.verdict.passed for label in group) / len(group),
            salvaged=any(map(is_salvaged, group)),
        )
        for problem_id, group in by_problem.items()
    }
    rule = SELECTIONS[keep]
    return [label for label in labels if rule(label, prompts[label.response.problem_id], medium)]


def is_salvaged(label: LineLabels) -> bool:
    """Whether the response failed and its search accepted a prefix that ends beyond the header."""
    if label.response.verdict.passed:
        return False
    lines = code_lines(label.response.text)
    return label.last_solvable > header_lines([line.text for line in lines], [line.neutral for line in lines])


def count_labels(labels: Sequence[LineLabels]) -> LabelCounts:
    """Counts for people and for the summary of a file."""
    signs = [sign for label in labels for sign in _signs(label)]
    return LabelCounts(
        problems=len({label.response.problem_id for label in labels}),
        responses=len(labels),
        passing=sum(label.response.verdict.passed for label in labels),
        salvaged=sum(map(is_salvaged, labels)),
        lines=len(signs),
        positive=signs.count(1),
        negative=signs.count(-1),
        unlabelled=signs.count(0),
    )


def _signs(label: LineLabels) -> list[int]:
    """Per line, +1 for a label above 0, -1 for another, 0 for none."""
    if not label.real_valued:
        return [(value > 0) - (value < 0) for value in label.labels]
    lines = zip(code_lines(label.response.text), label.labels, strict=True)
    return [0 if line.neutral else 1 if value > 0 else -1 for line, value in lines]
