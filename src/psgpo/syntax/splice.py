"""Programs that begin with a prefix and end like a donor: whole statements, re-indented, names matched by their roles.

A splice is made of four choices, each with a cost; cheap ones come first:

    where     a position of the donor: what stands after it is taken over, the rest of every open block, `else` clauses
    too depth     which open block of the prefix each open block of the donor continues; the others are closed
    names     which variable of the prefix each variable that crosses the cut stands for
    bridge    definitions from before the donor's cut that are brought along: helpers, imports, plain assignments

A splice must *use* its prefix: every statement of the prefix whose value the failed program itself used, other than
first values such as `r = []`, must take part in the result (`liveness`). Else each prefix could be completed by
starting over, which says nothing about its lines. A second definition of a function is such a start as well.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from psgpo.syntax import names as scopes
from psgpo.syntax.liveness import Liveness
from psgpo.syntax.names import BUILTINS
from psgpo.syntax.roles import Matching, Roles, matchings, roles_of
from psgpo.syntax.tree import (
    Block,
    Frame,
    Position,
    Prefix,
    blocks_of,
    clauses_after,
    parse,
    positions,
    statement_texts,
)

MATCHINGS = 4
"""Name matchings tried per position and depth."""
CONTEXT = 3
"""Statements before the cut that are compared."""
BRIDGE = 4
"""Most definitions brought along."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Donor:
    """A program whose endings are tried."""

    tree: ast.Module
    positions: tuple[tuple[Position, int], ...]
    texts: tuple[str, ...]
    roles: Roles
    statements: tuple[ast.stmt, ...]
    blocks: tuple[Block, ...]
    local_names: frozenset[str]
    """Of all its functions."""

    @classmethod
    def of(cls, program: str) -> Donor | None:
        """None for what does not parse."""
        tree = parse(program)
        if tree is None:
            return None
        return cls(
            tree=tree,
            positions=tuple(positions(tree)),
            texts=tuple(statement_texts(tree)),
            roles=roles_of(tree),
            statements=tuple(node for node in ast.walk(tree) if isinstance(node, ast.stmt)),
            blocks=tuple(block for node in ast.walk(tree) for _, _, block in blocks_of(node)),
            local_names=frozenset(local_names(tree)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Receiver:
    """A failed program whose prefixes are continued."""

    roles: Roles
    """Of the whole program where it parses, else of its longest prefix that does."""
    unused: frozenset[int]
    """First lines of statements that the program itself makes no use of."""
    roots: frozenset[str] | None
    """Names that the tests use; None for a program run for its output."""
    known: frozenset[str]
    """Further names that every program of the problem may use."""
    local_names: frozenset[str]
    """Of all its functions."""

    @classmethod
    def of(cls, lines: Sequence[str], *, roots: Iterable[str] | None, known: Iterable[str] = ()) -> Receiver:
        rooted = None if roots is None else frozenset(roots)
        tree = parse("".join(f"{line}\n" for line in lines))
        unused: frozenset[int] = frozenset()
        if tree is not None and (
            rooted is None or rooted <= {name for node in tree.body for name in scopes.binds(node)}
        ):
            every = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
            unused = frozenset(node.lineno for node in Liveness(tree, rooted).unused(every))
        for stop in range(len(lines), 0, -1):
            if tree is not None:
                break
            tree = parse("".join(f"{line}\n" for line in lines[:stop]))
        return cls(
            roles=roles_of(tree) if tree is not None else {},
            unused=unused,
            roots=rooted,
            known=frozenset(known),
            local_names=frozenset(local_names(tree)) if tree is not None else frozenset(),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Splice:
    """One program to judge."""

    program: str
    cost: float


def splices(prefix: Prefix, receiver: Receiver, donors: Sequence[Donor]) -> Iterator[Splice]:
    """Distinct programs that begin with the prefix and use it, nearest first."""
    texts = statement_texts(prefix.tree)
    if prefix.open_header:
        texts = texts[:-1]
    plans = [plan for number, donor in enumerate(donors) for plan in _plans(prefix, texts, donor, number)]
    seen: set[str] = set()
    for plan in sorted(plans, key=lambda plan: plan.cost):
        for program, cost in _programs(prefix, receiver, plan):
            if program not in seen:
                seen.add(program)
                if uses_prefix(program, prefix.text.count("\n"), receiver):
                    yield Splice(program=program, cost=cost)


def uses_prefix(program: str, lines: int, receiver: Receiver) -> bool:
    """Whether the program parses and every statement in its first `lines` lines takes part in its result."""
    tree = parse(program)
    if tree is None or _defined_twice(tree, lines):
        return False
    kept = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and node.lineno <= lines]
    unused = Liveness(tree, receiver.roots).unused(kept)
    return all(node.lineno in receiver.unused for node in unused)


def without_blocks(program: str, prefix: Prefix, receiver: Receiver) -> list[str]:
    """The program without one of the loops and ifs that stand whole in its prefix, once for each.

    Where such a program still passes, the block was not needed: what follows has done its work again. A block that may
    leave the function is kept, and one that the failed program itself makes no use of.
    """
    tree, kept = parse(program), prefix.text.count("\n")
    lines = program.split("\n")
    found = []
    for node in ast.walk(tree) if tree is not None else ():
        if (
            not isinstance(node, ast.For | ast.While | ast.If)
            or (node.end_lineno or 0) > kept
            or node.lineno in receiver.unused
        ):
            continue
        header = lines[node.lineno - 1]
        leaves = (ast.Return, ast.Raise, ast.Yield, ast.Break, ast.Continue)
        if any(isinstance(inner, leaves[: None if isinstance(node, ast.If) else 3]) for inner in ast.walk(node)):
            continue
        if header.lstrip().startswith("elif"):
            continue
        indent = header[: len(header) - len(header.lstrip())]
        found.append("\n".join([*lines[: node.lineno - 1], f"{indent}pass", *lines[node.end_lineno :]]))
    return found


def _defined_twice(tree: ast.Module, lines: int) -> bool:
    kept = {node.name for node in tree.body if isinstance(node, _DEFINITIONS) and node.lineno <= lines}
    added = {name for node in tree.body if node.lineno > lines for name in scopes.binds(node)}
    return bool(kept & added)


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Where a donor is cut and how its open blocks continue those of the prefix."""

    donor: Donor
    position: Position
    levels: tuple[int, ...]
    """Per open block of the donor, the open block of the prefix that it continues."""
    cost: float


def _plans(prefix: Prefix, texts: Sequence[str], donor: Donor, number: int) -> Iterator[_Plan]:
    for position, before in donor.positions:
        if not any(frame.rest or clauses_after(frame) for frame in position):
            continue
        same = itertools.takewhile(
            lambda pair: pair[0] == pair[1], zip(texts[::-1], donor.texts[:before][::-1], strict=False)
        )
        context = sum(1 for _ in itertools.islice(same, CONTEXT))
        distance = 0.25 * abs(before - len(texts)) - context
        for levels in _levels(prefix, position):
            mismatch = sum(position[place].kind != prefix.position[level].kind for place, level in enumerate(levels))
            closed = prefix.depth + 1 - len(levels)
            yield _Plan(
                donor=donor,
                position=position,
                levels=levels,
                cost=distance + mismatch + 0.5 * closed + 0.01 * number,
            )


def _levels(prefix: Prefix, position: Position) -> Iterator[tuple[int, ...]]:
    """Ways to lay the donor's open blocks over the prefix's; outermost on outermost, functions on functions."""
    inner = range(1, len(position))
    for chosen in itertools.combinations(range(1, prefix.depth + 1), len(inner)):
        levels = (0, *chosen)
        if prefix.open_header and levels[-1] != prefix.depth:
            continue
        if all(_continues(prefix.position[level], position[place]) for place, level in enumerate(levels)):
            deepest = prefix.position[levels[-1]]
            if position[-1].rest and not prefix.open_header and scopes.ends(deepest.block[: deepest.before]):
                continue  # nothing put there could ever run
            yield levels


def _continues(ours: Frame, theirs: Frame) -> bool:
    scope = {"module", "function", "class"}
    if ours.kind in scope or theirs.kind in scope:
        if ours.kind != theirs.kind:
            return False
        # The same function, where both programs have one of that name.
        our_name, their_name = getattr(ours.owner, "name", ""), getattr(theirs.owner, "name", "")
        return our_name == their_name or ours.kind == "module" or not (our_name and their_name)
    return True


def _programs(prefix: Prefix, receiver: Receiver, plan: _Plan) -> Iterator[tuple[str, float]]:
    cut = _Cut(prefix, receiver, plan)
    for matching in cut.matchings():
        program = cut.program(matching)
        if program is not None:
            yield program, plan.cost + matching.cost


class _Cut:
    """One plan, with the names that cross the cut."""

    def __init__(self, prefix: Prefix, receiver: Receiver, plan: _Plan) -> None:
        self._prefix, self._receiver, self._plan = prefix, receiver, plan
        self._taken = [statement for frame in reversed(plan.position[1:]) for statement in _taken(frame)]
        self._module_rest = list(plan.position[0].rest)
        self._needed = scopes.needs(self._taken)
        scope = _function_of(plan.position)
        self._before = _local_definitions(plan.position, scope)
        self._local = _locals(scope) if scope is not None else set()
        function = _function_of(prefix.position)
        self._available = _locals(function) if function is not None else set()
        self._module = {name for node in prefix.tree.body for name in scopes.binds(node)} | receiver.known

    def matchings(self) -> list[Matching]:
        """Names of the donor's function that stand on both sides of its cut, with partners."""
        used = {name for node in self._taken for name in scopes.reads(node) | scopes.binds(node)}
        crossing = sorted(name for name in used & self._local if name in self._needed or name in self._available)
        crossing = [name for name in crossing if name in self._needed or name in self._bound_before()]
        return matchings(
            crossing,
            sorted(self._available),
            self._plan.donor.roles,
            self._receiver.roles,
            spare=self._before.keys(),
            limit=MATCHINGS,
        )

    def _bound_before(self) -> set[str]:
        scope = _function_of(self._plan.position)
        return set() if scope is None else scopes.parameters(scope) | set(self._before)

    def program(self, matching: Matching) -> str | None:
        """The spliced program; None when a name stays undefined."""
        partners = dict(matching.partners)
        for name in {name for node in self._taken for name in scopes.binds(node)} - partners.keys():
            if name in partners.values():
                partners[name] = f"{name}_2"
        bridge = self._bridge(matching)
        if bridge is None:
            return None
        local = {name for node in [*bridge, *self._taken] for name in scopes.binds(node)}
        tail = self._module_tail([*bridge, *self._taken], local)
        if tail is None:
            return None
        imports, definitions = tail
        parts = [self._prefix.text]
        indents = self._prefix.indents
        innermost = True
        for place in range(len(self._plan.levels) - 1, 0, -1):
            frame, level = self._plan.position[place], self._plan.levels[place]
            block = [*(imports + bridge if innermost else []), *frame.rest]
            innermost = False
            parts.append(_render(scopes.renamed(block, partners), indents[level]))
            for clause in clauses_after(frame):
                if self._prefix.position[level].kind == frame.kind:
                    parts.append(f"{indents[level - 1]}else:\n")
                    parts.append(_render(scopes.renamed(clause, partners), indents[level - 1] + "    "))
        parts.append(_render([*(imports if innermost else []), *definitions], indents[0]))
        return "".join(parts)

    def _bridge(self, matching: Matching) -> list[ast.stmt] | None:
        """Assignments before the donor's cut that give the names without a partner their values."""
        wanted = sorted((matching.absent & self._needed) | (self._needed & self._local - matching.partners.keys()))
        found: list[ast.stmt] = []
        have = set(matching.partners) | self._available
        queue = [name for name in wanted if name not in matching.partners]
        while queue:
            name = queue.pop(0)
            definition = self._before.get(name)
            if definition is None:
                return None
            if definition in found:
                continue
            found.append(definition)
            if len(found) > BRIDGE:
                return None
            queue += sorted(scopes.reads(definition) & self._local - have - {name})
        return sorted(found, key=lambda node: node.lineno)

    def _module_tail(self, added: Block, local: set[str]) -> tuple[list[ast.stmt], list[ast.stmt]] | None:
        """What the added statements need from the donor's module: (imports, definitions put at the end)."""
        offered = {name: node for node in self._plan.donor.tree.body for name in scopes.binds(node)}
        definitions = [node for node in self._module_rest if not scopes.binds(node) <= self._module]
        imports: list[ast.stmt] = []
        wanted = set().union(*(scopes.reads(node) for node in [*added, *definitions]), set())
        wanted -= local | self._available | self._local
        while missing := sorted(wanted - self._module - BUILTINS - _bound(imports) - _bound(definitions)):
            for name in missing:
                node = offered.get(name)
                if node is None:
                    return None
                (imports if isinstance(node, ast.Import | ast.ImportFrom) else definitions).append(node)
                wanted |= scopes.reads(node)
        definitions.sort(key=lambda node: node.lineno)
        return imports, [*(imports if definitions else []), *definitions]


def local_names(tree: ast.AST) -> set[str]:
    """Names local to some function of a program."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {name for function in functions for name in _locals(function)}


def _taken(frame: Frame) -> list[ast.stmt]:
    return [*frame.rest, *(statement for clause in clauses_after(frame) for statement in clause)]


def _bound(block: Iterable[ast.stmt]) -> set[str]:
    return {name for node in block for name in scopes.binds(node)}


def _function_of(position: Position) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The innermost function the position stands in."""
    for frame in reversed(position):
        if isinstance(frame.owner, ast.FunctionDef | ast.AsyncFunctionDef):
            return frame.owner
    return None


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return scopes.parameters(function) | _bound(function.body)


def _local_definitions(position: Position, scope: ast.FunctionDef | ast.AsyncFunctionDef | None) -> dict[str, ast.stmt]:
    """Names bound by plain statements before the position, in the blocks it stands in; the last binding counts."""
    found: dict[str, ast.stmt] = {}
    if scope is None:
        return found
    inside = False
    for frame in position:
        inside = inside or frame.owner is scope
        for node in frame.block[: frame.before] if inside else []:
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom | ast.FunctionDef):
                found |= dict.fromkeys(scopes.binds(node), node)
    return found


def _render(block: Iterable[ast.stmt], indent: str) -> str:
    lines = []
    for node in block:
        lines += [f"{indent}{line}\n" if line else "\n" for line in ast.unparse(node).split("\n")]
    return "".join(lines)
