"""The first teacher: every operator of the catalogue on every line, chosen by seed and without repeats."""

from __future__ import annotations

import random
from collections.abc import Sequence

from psgpo.mutation.candidates import Candidate, changed_lines
from psgpo.mutation.operators import (
    bug_expressions,
    bug_statements,
    bug_values,
    refactor_expressions,
    refactor_loops,
    refactor_statements,
)
from psgpo.mutation.operators.registry import OPERATORS, Family, Operator
from psgpo.mutation.program import Program, parse
from psgpo.records import Problem
from psgpo.seeds import derive_seed

MODULES = (bug_expressions, bug_values, bug_statements, refactor_expressions, refactor_statements, refactor_loops)
"""Importing them fills `OPERATORS`."""


class Catalogue:
    """Proposes changes through the syntax tree.

    Args:
        bugs_per_line, refactors_per_line: at most so many proposals for one line of the reference.
        operators: names to use; all of them by default.
    """

    name = "catalogue"

    def __init__(
        self, *, bugs_per_line: int = 4, refactors_per_line: int = 3, operators: Sequence[str] = tuple(OPERATORS)
    ) -> None:
        self._most: dict[Family, int] = {"bug": bugs_per_line, "refactor": refactors_per_line}
        self._operators = [OPERATORS[name] for name in operators]

    def settings(self) -> dict[str, object]:
        return {"most": dict(self._most), "operators": [operator.name for operator in self._operators]}

    def propose(self, problem: Problem, program: Program, *, seed: int) -> list[Candidate]:
        """Proposals in the order of their lines; the same for the same problem, program and seed."""
        by_place: dict[tuple[int, Family], list[Candidate]] = {}
        for operator in self._operators:
            for candidate in candidates_of(operator, program):
                by_place.setdefault((candidate.line, operator.family), []).append(candidate)
        chosen: list[Candidate] = []
        for (line, family), found in sorted(by_place.items()):
            rng = random.Random(derive_seed(seed, "mutate", problem.id, line, family))
            chosen += _varied(found, self._most[family], rng)
        return chosen


def candidates_of(operator: Operator, program: Program) -> list[Candidate]:
    """What one operator makes of a program; proposals that no longer parse are left out."""
    found = []
    for proposal in operator.propose(program):
        code = program.apply(proposal.edits)
        try:
            parse(code)
        except (SyntaxError, ValueError, RecursionError):
            continue
        changed = changed_lines(program.text, code)
        if changed is None:
            continue
        found.append(
            Candidate(
                code=code,
                teacher=Catalogue.name,
                operator=operator.name,
                kind=operator.kind,
                family=operator.family,
                line=proposal.line,
                mutated_line=changed.first,
                in_place=changed.in_place,
                layout=operator.layout,
            )
        )
    return found


def _varied(found: list[Candidate], most: int, rng: random.Random) -> list[Candidate]:
    """At most `most` of one line, of as many kinds as possible."""
    rng.shuffle(found)
    rank: dict[str, int] = {}
    ranked = []
    for candidate in found:
        rank[candidate.kind] = rank.get(candidate.kind, -1) + 1
        ranked.append((rank[candidate.kind], candidate))
    return [candidate for _, candidate in sorted(ranked, key=lambda entry: entry[0])[:most]]
