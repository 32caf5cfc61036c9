"""A prefix made a program whose open ends are marked: a test that never reaches a mark is decided by the prefix alone.

Every place where the prefix can be continued raises `MemoryError`, which the sandbox reports as a status of its own. A
test that fails in any other way was decided before any continuation could act; no continuation that leaves the
prefix's definitions and the interpreter's limits alone can mend it. That is a proof that the prefix cannot be
completed, as a passing splice is a proof that it can.

Functions that the prefix calls and does not define may be defined later, so calling them is an open end too. Where a
proof could be wrong there is none: a `try` may swallow the mark, an undefined name may stand for more than a function,
and later statements of the module, which no mark stands for, may change what a function of the prefix reads:

    primes = []                     primes.append(k) may follow at the module's level
    def nth(n):
        return primes[n - 1]        fails for want of it, and proves nothing
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable

from psgpo.records import Status, Verdict
from psgpo.syntax.names import BUILTINS, binds, reads
from psgpo.syntax.tree import Prefix

MARK = "raise MemoryError"


def open_ended(prefix: Prefix, *, roots: Iterable[str], known: Iterable[str] = ()) -> str | None:
    """The prefix with its open ends marked; None where no proof can come of it.

    Args:
        roots: names that the tests use; those that the prefix does not define may be defined later.
        known: names that the program may use without defining them.
    """
    nodes = list(ast.walk(prefix.tree))
    unclear = (ast.Try, ast.ClassDef, ast.Yield, ast.YieldFrom, ast.With, ast.Global)
    if any(isinstance(node, unclear) for node in nodes):
        return None
    wanted, by_functions = _wanted(prefix)
    defined = {name for node in prefix.tree.body for name in binds(node)} | BUILTINS | set(known)
    undefined = wanted - defined
    if len(prefix.position) == 1 and not any(isinstance(node, ast.FunctionDef) for node in nodes):
        return None
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    if any(isinstance(node, ast.Name) and node.id in undefined and id(node) not in called for node in nodes):
        return None
    if _changeable(prefix.tree) & (by_functions | set(roots)) or _has_attributes(nodes):
        return None
    marks = "".join(f"{indent}{MARK}\n" for indent in prefix.indents[:0:-1])
    stubs = "".join(f"def {name}(*_, **__):\n    {MARK}\n" for name in sorted((undefined | set(roots)) - defined))
    return prefix.text + marks + stubs


def decided(verdict: Verdict) -> bool:
    """Whether the verdict on an `open_ended` program shows a failed test that reached no mark."""
    return any(outcome not in (Status.PASSED, Status.MEMORY) for outcome in verdict.outcomes)


def _wanted(prefix: Prefix) -> tuple[set[str], set[str]]:
    """Names read anywhere as globals, and those of them that functions read, which is after the module has run."""
    wanted: set[str] = set()
    by_functions: set[str] = set()

    def visit(table: symtable.SymbolTable) -> None:
        in_module = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or in_module):
                (wanted if in_module else by_functions).add(symbol.get_name())
        for child in table.get_children():
            visit(child)

    visit(symtable.symtable(ast.unparse(prefix.tree), "<prefix>", "exec"))
    return wanted | by_functions, by_functions


def _changeable(tree: ast.Module) -> set[str]:
    """Names of the module whose value a later statement may change without binding them anew.

    Not among them: imports, functions without state of their own, and constants that nothing can change.
    """
    lasting: set[str] = set()
    changeable: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        names = binds(statement)
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            # A decorator of the program's own may keep state between calls: counts, answers.
            own = any(reads(decorator) & (lasting | changeable) for decorator in statement.decorator_list)
            lasts = not own and _defaults_last(statement.args, lasting)
        elif isinstance(statement, ast.Assign):
            plain = all(isinstance(target, ast.Name) for target in statement.targets)
            lasts = plain and _lasts(statement.value, lasting)
        else:
            lasts = isinstance(statement, ast.AnnAssign) and _lasts(statement.value, lasting)
        changeable |= set() if lasts else names
        lasting = (lasting | names) - changeable
    return changeable


def _lasts(value: ast.expr | None, lasting: set[str]) -> bool:
    """Whether a value is one that cannot be changed: numbers, texts, tuples of them, functions without state."""
    if isinstance(value, ast.Name):
        return value.id in lasting
    if isinstance(value, ast.Lambda):
        return _defaults_last(value.args, lasting)
    if isinstance(value, ast.Call):  # float("inf")
        known = isinstance(value.func, ast.Name) and value.func.id in ("float", "int")
        return known and not value.keywords and all(_lasts(argument, lasting) for argument in value.args)
    parts = (ast.Constant, ast.UnaryOp, ast.BinOp, ast.Tuple)
    return isinstance(value, parts) and all(
        _lasts(part, lasting) for part in ast.iter_child_nodes(value) if isinstance(part, ast.expr)
    )


def _defaults_last(arguments: ast.arguments, lasting: set[str]) -> bool:
    """Whether no parameter's default can be changed by a call."""
    defaults = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
    return all(_lasts(default, lasting | BUILTINS) for default in defaults)


def _has_attributes(nodes: list[ast.AST]) -> bool:
    """Whether an attribute of one of the program's functions is read or set (`solve.memo`): later statements may."""
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return any(
        isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in functions
        for node in nodes
    )
