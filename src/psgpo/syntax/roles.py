"""What a variable is for, and which variables of two programs play the same part.

A variable's *role* is a bag of facts about how it gets and gives its values: the shape of what it is assigned (names
left out), what it loops over, its place among the parameters, the methods called on it, what it is added to or
compared with.
"""

from __future__ import annotations

import ast
import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from psgpo.syntax.names import base_name, binds

Roles = Mapping[str, frozenset[str]]
OPTIONS = 3
"""Most partners tried for one name."""
PRODUCT = 64
"""Most combinations looked at."""


def roles_of(tree: ast.AST) -> dict[str, frozenset[str]]:
    """Every name's role in a program."""
    found: dict[str, set[str]] = {}

    def note(name: str | None, fact: str) -> None:
        if name is not None:
            found.setdefault(name, set()).add(fact)

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for place, argument in enumerate(node.args.args):
                note(argument.arg, f"parameter {place}")
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                for name, part in _targets(target):
                    note(name, f"assigned{part} {_shape(node.value)}")
                    note(name, f"kind {type(node.value).__name__}")
        elif isinstance(node, ast.AugAssign):
            note(base_name(node.target), f"changed {type(node.op).__name__}")
            note(base_name(node.target), f"changed by {_shape(node.value)}")
        elif isinstance(node, ast.For | ast.comprehension):
            for name, part in _targets(node.target):
                note(name, f"over{part} {_shape(node.iter)}")
                note(name, f"over {ast.unparse(node.iter)}")
            note(base_name(node.iter), "iterated")
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                note(base_name(node.func), f"method {node.func.attr}")
            elif isinstance(node.func, ast.Name):
                for given in node.args:
                    note(base_name(given), f"given to {node.func.id}")
        elif isinstance(node, ast.Return):
            note(base_name(node.value) if node.value else None, "returned")
        elif isinstance(node, ast.Subscript):
            note(base_name(node.value), "indexed")
            note(base_name(node.slice), "index")
        elif isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                note(base_name(side), "compared")
    return {name: frozenset(facts) for name, facts in found.items()}


def _targets(target: ast.AST) -> Iterable[tuple[str, str]]:
    if isinstance(target, ast.Tuple | ast.List):
        for place, item in enumerate(target.elts):
            for name in binds(item):
                yield name, f"[{place}]"
    else:
        for name in binds(target):
            yield name, ""


class _Nameless(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(id="_", ctx=node.ctx)


def _shape(node: ast.AST) -> str:
    return ast.unparse(_Nameless().visit(copy.deepcopy(node)))


def likeness(left: frozenset[str], right: frozenset[str]) -> float:
    """Shared facts over all facts, 0 to 1."""
    union = left | right
    return len(left & right) / len(union) if union else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Matching:
    """Partners for some names; a name without one keeps to itself."""

    partners: Mapping[str, str]
    absent: frozenset[str]
    """Names left without a partner."""
    cost: float


def matchings(
    wanted: Sequence[str], available: Sequence[str], theirs: Roles, ours: Roles, *, spare: Iterable[str], limit: int
) -> list[Matching]:
    """Ways to give the wanted names of a donor partners among the available names, nearest first.

    A name that is available itself is its own first choice. No two names share a partner.

    Args:
        theirs: roles in the donor.
        ours: roles in the program that is continued.
        spare: wanted names that may stay without a partner, because their definition can be brought along.
        limit: most ways returned.
    """
    empty: frozenset[str] = frozenset()
    options: list[list[tuple[float, str | None]]] = []
    for name in wanted:
        scored = [
            ((0.0 if name == other else 1.0) + 1.0 - likeness(theirs.get(name, empty), ours.get(other, empty)), other)
            for other in available
        ]
        listed: list[tuple[float, str | None]] = [*sorted(scored)[:OPTIONS]]
        if name in spare:
            listed.append((1.5 if name not in available else 3.0, None))
        options.append(listed)
    while _size(options) > PRODUCT:
        longest = max(options, key=len)
        longest.pop()
    found: list[Matching] = []
    for chosen in itertools.product(*options):
        partners = {name: other for name, (_, other) in zip(wanted, chosen, strict=True) if other is not None}
        if len(set(partners.values())) == len(partners):
            absent = frozenset(wanted) - partners.keys()
            found.append(Matching(partners=partners, absent=absent, cost=sum(cost for cost, _ in chosen)))
    return sorted(found, key=lambda way: (way.cost, sorted(way.partners.items())))[:limit]


def _size(options: Sequence[Sequence[object]]) -> int:
    size = 1
    for listed in options:
        size *= len(listed)
    return size
