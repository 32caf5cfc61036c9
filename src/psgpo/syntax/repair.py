"""The failed program itself, with the statement after a prefix changed and everything else kept.

Four kinds, by what happens to the next statement S:

    change    one place of S (of its header, when it is compound) is changed
    header    the header of S becomes the header of a donor's statement of the same kind
    replace   S becomes one to three statements of a donor, or nothing
    insert    one to three statements of a donor come before S

A repair that passes proves that the prefix can be completed, as any splice does. *change*, *header* and *replace* of a
plain statement prove more: the program is right but for S, so S is the first wrong statement.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psgpo.syntax import names as scopes
from psgpo.syntax.changes import changed
from psgpo.syntax.liveness import is_first_value
from psgpo.syntax.roles import matchings
from psgpo.syntax.splice import Donor, Receiver, local_names, uses_prefix
from psgpo.syntax.tree import Prefix, blocks_of, parse

SEGMENT = 3
"""Most statements taken from a donor."""
FITS = 3
"""Ways tried to name the variables of what is taken."""
TEXTS = 4
"""String constants tried in each other's place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repair:
    """One program to judge."""

    program: str
    confined: bool
    """Whether it differs from the failed program in the statement after the prefix only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """A failed program as its repairs need it."""

    lines: tuple[str, ...]
    statements: dict[int, ast.stmt]
    """First line to the outermost statement that begins there."""

    @classmethod
    def of(cls, lines: Sequence[str]) -> Patient | None:
        """None for what does not parse."""
        tree = parse("".join(f"{line}\n" for line in lines))
        if tree is None:
            return None
        found: dict[int, ast.stmt] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.stmt):
                found.setdefault(node.lineno, node)
        return cls(lines=tuple(lines), statements=found)

    def next_statement(self, line: int) -> ast.stmt | None:
        """The first statement that begins after `line` lines, docstrings left out."""
        for number in range(line + 1, len(self.lines) + 1):
            node = self.statements.get(number)
            if node is not None and not _is_text(node):
                return node
        return None


def repairs(prefix: Prefix, patient: Patient, receiver: Receiver, donors: Sequence[Donor]) -> Iterator[Repair]:
    """Distinct repairs of the program after a prefix of it, the kinds in turn."""
    kept = prefix.text.count("\n")
    node = patient.next_statement(kept)
    if node is None:
        return
    seen = {"".join(f"{line}\n" for line in patient.lines)}
    kinds = [
        _changes(prefix, patient, node),
        _replacements(prefix, patient, node, receiver, donors),
        _headers(prefix, patient, node, receiver, donors),
        _insertions(prefix, patient, node, receiver, donors),
    ]
    for row in itertools.zip_longest(*kinds):
        for repair in row:
            if repair is None or repair.program in seen:
                continue
            seen.add(repair.program)
            if uses_prefix(repair.program, kept, receiver):
                yield repair


def _changes(prefix: Prefix, patient: Patient, node: ast.stmt) -> Iterator[Repair]:
    texts = [text for top in patient.statements.values() for inner in ast.walk(top) if (text := _plain_text(inner))]
    for variant in changed(node, list(dict.fromkeys(texts))[:TEXTS]):
        yield Repair(program=_with_head(prefix, patient, node, variant), confined=True)


def _headers(
    prefix: Prefix, patient: Patient, node: ast.stmt, receiver: Receiver, donors: Sequence[Donor]
) -> Iterator[Repair]:
    if not isinstance(node, ast.For | ast.While | ast.If):
        return
    for donor in donors:
        for other in donor.statements:
            if type(other) is type(node):
                bare = _bare(other)
                for fitted in _fits([bare], prefix, receiver, donor):
                    yield Repair(program=_with_head(prefix, patient, node, fitted[0]), confined=True)


def _replacements(
    prefix: Prefix, patient: Patient, node: ast.stmt, receiver: Receiver, donors: Sequence[Donor]
) -> Iterator[Repair]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef) or _is_clause(patient, node):
        return
    confined = not list(blocks_of(node))
    yield Repair(program=_between(prefix, patient, node, [], node.end_lineno or node.lineno), confined=confined)
    for segment, donor in _segments(donors, type(node)):
        for fitted in _fits(segment, prefix, receiver, donor):
            stop = node.end_lineno or node.lineno
            # Where what is put there leaves the function, the rest of the program would only be out of reach.
            alone = confined and (_leaves([node]) or not _leaves(fitted))
            yield Repair(program=_between(prefix, patient, node, fitted, stop), confined=alone)


def _insertions(
    prefix: Prefix, patient: Patient, node: ast.stmt, receiver: Receiver, donors: Sequence[Donor]
) -> Iterator[Repair]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef) or _is_clause(patient, node):
        return
    for segment, donor in _segments(donors, None):
        for fitted in _fits(segment, prefix, receiver, donor):
            yield Repair(program=_between(prefix, patient, node, fitted, node.lineno - 1), confined=False)


def _segments(donors: Sequence[Donor], like: type[ast.stmt] | None) -> Iterator[tuple[list[ast.stmt], Donor]]:
    """Runs of statements of the donors, short ones first, then those that begin with a statement of that kind."""
    found: list[tuple[int, bool, int, list[ast.stmt], Donor]] = []
    for donor in donors:
        for block in donor.blocks:
            for start, length in itertools.product(range(len(block)), range(1, SEGMENT + 1)):
                segment = block[start : start + length]
                if len(segment) == length and not any(map(_is_text_or_definition, segment)):
                    found.append((length, type(segment[0]) is not like, len(found), segment, donor))
    for _, _, _, segment, donor in sorted(found, key=lambda item: item[:3]):
        yield segment, donor


def _fits(segment: Sequence[ast.stmt], prefix: Prefix, receiver: Receiver, donor: Donor) -> Iterator[list[ast.stmt]]:
    """A donor's statements in the words of the program they go into."""
    used = {name for node in segment for name in scopes.reads(node) | scopes.binds(node)}
    crossing = sorted(used & donor.local_names)
    bound = {name for node in segment for name in scopes.binds(node)} - scopes.needs(segment)
    ours = sorted(receiver.local_names | local_names(prefix.tree))
    begun = {name for part in ast.walk(prefix.tree) if isinstance(part, ast.stmt) for name in scopes.binds(part)}
    ways = matchings(crossing, ours, donor.roles, receiver.roles, spare=bound, limit=FITS)
    for way in ways:
        fitted = scopes.renamed(segment, way.partners)
        # A first value for a variable that has one already starts over.
        if not any(is_first_value(part) and scopes.binds(part) & begun for part in fitted):
            yield fitted


def _between(prefix: Prefix, patient: Patient, node: ast.stmt, added: Sequence[ast.stmt], stop: int) -> str:
    """The prefix, lines up to the statement, what is added in its place, the lines after `stop`."""
    indent = _indent(patient.lines[node.lineno - 1])
    kept = prefix.text.count("\n")
    between = patient.lines[kept : node.lineno - 1]
    text = [f"{indent}{line}" if line else "" for part in added for line in ast.unparse(part).split("\n")]
    return prefix.text + "".join(f"{line}\n" for line in (*between, *text, *patient.lines[stop:]))


def _with_head(prefix: Prefix, patient: Patient, node: ast.stmt, variant: ast.stmt) -> str:
    """The program with the statement (or only its header) written anew."""
    blocks = list(blocks_of(node))
    if not blocks:
        return _between(prefix, patient, node, [variant], node.end_lineno or node.lineno)
    body = blocks[0][2]
    stop = body[0].lineno - 1
    header = ast.unparse(_bare(variant)).split("\n", 1)[0]
    first = patient.lines[node.lineno - 1]
    word = "el" if first.strip().startswith("elif") else ""
    if stop < node.lineno:  # the body stands on the header's line
        return ""
    between = patient.lines[prefix.text.count("\n") : node.lineno - 1]
    rest = patient.lines[stop:]
    return prefix.text + "".join(f"{line}\n" for line in (*between, f"{_indent(first)}{word}{header}", *rest))


def _bare(node: ast.stmt) -> ast.stmt:
    """A compound statement with `pass` for a body."""
    if isinstance(node, ast.For):
        return ast.For(target=node.target, iter=node.iter, body=[ast.Pass()], orelse=[], lineno=1, col_offset=0)
    if isinstance(node, ast.While):
        return ast.While(test=node.test, body=[ast.Pass()], orelse=[])
    if isinstance(node, ast.If):
        return ast.If(test=node.test, body=[ast.Pass()], orelse=[])
    return node


def _leaves(block: Sequence[ast.stmt]) -> bool:
    jumps = (ast.Return, ast.Raise, ast.Break, ast.Continue)
    return any(isinstance(inner, jumps) for node in block for inner in ast.walk(node))


def _is_clause(patient: Patient, node: ast.stmt) -> bool:
    return patient.lines[node.lineno - 1].lstrip().startswith("elif")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_text_or_definition(node: ast.stmt) -> bool:
    return _is_text(node) or isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)


def _plain_text(node: ast.AST) -> str:
    """A short string constant; empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 12:
        return node.value
    return ""


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
