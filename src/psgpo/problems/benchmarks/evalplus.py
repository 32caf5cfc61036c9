"""HumanEval+ and MBPP+ in EvalPlus's file format: inputs only, with the reference solution's outputs as expectation.

The base inputs come first; `metadata["base_tests"]` says how many they are, so that a verdict's outcomes give the score
on the base tests too. It is absent where a row does not tell them apart.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from psgpo.problems.benchmarks.evalplus_inputs import mbpp_arguments
from psgpo.problems.benchmarks.mbpp import entry_point_of
from psgpo.problems.benchmarks.reading import Json
from psgpo.problems.benchmarks.references import Evaluate, Reference, reference_outputs
from psgpo.problems.benchmarks.rows import Row, converting, id_number, split_of, text_of
from psgpo.problems.benchmarks.scripts import parse, read_stub
from psgpo.records import AssertTests, Call, CallTests, Problem, Tests

BATCH = 64
"""Tasks whose reference outputs are asked for at once."""

_SET_EQUAL = (
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum", "intersection_array",
    "find_dissimilar", "Diff",
)  # fmt: skip
_NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")
"""Tasks whose solutions may return a match object: only whether there is an answer counts."""
_COMPARATORS = dict.fromkeys(_SET_EQUAL, "evalplus-set") | {
    "are_equivalent": "evalplus-are-equivalent",
    "sum_div": "evalplus-sum-div",
    "digit_distance_nums": "evalplus-digit-distance",
    "surface_Area": "evalplus-surface-area",
}
_ANSWERED = """
def answered(result):
    return result if type(result) is bool else result is not None
"""


MAX_ITEMS = 250_000
"""Inputs whose answer has more items than this are left out: no program could hand it over, see docs/sandbox.md."""
_ITEMS: dict[str, Callable[..., int]] = {
    "combinations_colors": lambda items, count: math.comb(len(items) + count - 1, count) * count if count > 0 else 0,
    "get_coordinates": lambda point: 3 ** len(point) * len(point),
}
"""MBPP+ functions (255, 630) whose answers explode -> how many items an answer has."""


def convert_humanevalplus(rows: Iterable[Row], evaluate: Evaluate | None) -> Iterator[Problem]:
    """Problems of HumanEval+; see `load_benchmark` for the errors."""
    return _convert(rows, evaluate, mbpp=False)


def convert_mbppplus(rows: Iterable[Row], evaluate: Evaluate | None) -> Iterator[Problem]:
    """Problems of MBPP+; see `load_benchmark` for the errors."""
    return _convert(rows, evaluate, mbpp=True)


def _convert(rows: Iterable[Row], evaluate: Evaluate | None, *, mbpp: bool) -> Iterator[Problem]:
    stream = iter(rows)
    while batch := list(islice(stream, BATCH)):
        tasks = [converting(row, lambda record: _Task(record, mbpp=mbpp)) for row in batch]
        outputs = reference_outputs([task.reference for task in tasks], evaluate)
        for task, expected in zip(tasks, outputs, strict=True):
            yield task.problem(expected)


class _Task:
    """One row, read."""

    def __init__(self, row: Json, *, mbpp: bool) -> None:
        self.mbpp = mbpp
        self.number = id_number(row["task_id"])
        self.prompt = text_of(row, "prompt")
        self.entry_point = text_of(row, "entry_point")
        self.solution = self.prompt + text_of(row, "canonical_solution")
        base, plus = (self._calls(row[key]) for key in ("base_input", "plus_input"))
        self.base_tests = len(base)
        self.calls = [*base, *plus]
        self.tolerance = float(row["atol"])
        if not self.calls:
            raise ValueError("the task has no input; remove it")

    def _calls(self, inputs: Any) -> list[tuple[Any, ...]]:
        calls = [self._arguments(arguments) for arguments in _inputs(inputs)]
        items = _ITEMS.get(self.entry_point) if self.mbpp else None
        return [call for call in calls if items is None or items(*call) <= MAX_ITEMS]

    def _arguments(self, arguments: Any) -> tuple[Any, ...]:
        # Rows of the Hub hold Python values; those of the release files are JSON.
        if self.mbpp and not isinstance(arguments, tuple):
            return mbpp_arguments(self.number, arguments)
        return tuple(arguments)

    @property
    def name(self) -> str:
        return f"{'Mbpp' if self.mbpp else 'HumanEval'}/{self.number}"

    @property
    def reference(self) -> Reference:
        program = self.solution
        if self.mbpp and self.entry_point in _NOT_NONE:
            inner = f"{_ANSWERED}\n_reference = {self.entry_point}\n"
            program += f"\n{inner}def {self.entry_point}(*arguments):\n    return answered(_reference(*arguments))\n"
        return Reference(task=self.name, program=program, function=self.entry_point, calls=self.calls)

    def tests(self, expected: Sequence[Any]) -> Tests:
        if self.mbpp and self.entry_point in _NOT_NONE:
            checks = [
                f"assert answered({self.entry_point}(*{arguments!r})) == {want!r}"
                for arguments, want in zip(self.calls, expected, strict=True)
            ]
            return AssertTests(entry_point=self.entry_point, setup=_ANSWERED, checks=tuple(checks))
        calls = [Call(args=args, expected=want) for args, want in zip(self.calls, expected, strict=True)]
        return CallTests(
            function=self.entry_point, calls=tuple(calls), comparator=self.comparator, tolerance=self.tolerance
        )

    @property
    def comparator(self) -> str:
        if not self.mbpp:
            return "evalplus-find-zero" if self.entry_point == "find_zero" else "evalplus"
        return _COMPARATORS.get(self.entry_point, "evalplus")

    def problem(self, expected: Sequence[Any]) -> Problem:
        return Problem(
            id=self.name,
            prompt=self.prompt,
            tests=self.tests(expected),
            source="mbppplus" if self.mbpp else "humanevalplus",
            split=split_of(self.number) if self.mbpp else "test",
            starter_code=self.prompt,
            preamble="" if self.mbpp else read_stub(self.prompt, self.entry_point).preamble,
            reference_solution=self.solution,
            metadata={"base_tests": self.base_tests} if self.base_tests else {},
        )


def _inputs(value: Any) -> list[Any]:
    """The list of inputs; the release files write an empty one as `{}`."""
    if value == {}:
        return []
    if not isinstance(value, list):
        raise ValueError(f"inputs must be a list of argument lists, found {type(value).__name__}")
    return value


def from_hub(row: Json) -> Json:
    """A row as the Hub's data sets have it: the inputs stand as literals in the test script.

    Raises:
        ValueError: the script holds no list of inputs.
    """
    constants = {"inf": math.inf, "nan": math.nan}
    found: dict[str, Any] = {"atol": 0.0}
    for node in ast.walk(parse(row["test"])):
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["inputs"]:
            found["inputs"] = _literal(node.value, constants)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "assertion" and len(node.args) == 3:
            found["atol"] = _literal(node.args[2], constants)
    if "inputs" not in found:
        raise ValueError("the test script holds no list named inputs; get the release file and give it with --data")
    if "entry_point" in row:
        task = {key: row[key] for key in ("prompt", "entry_point", "canonical_solution")}
    else:
        entry_point = entry_point_of(row["code"], row["test_list"])
        task = {"prompt": _docstring(row), "entry_point": entry_point, "canonical_solution": row["code"]}
    return task | {
        "task_id": row["task_id"],
        "base_input": [],
        "plus_input": [tuple(arguments) for arguments in found["inputs"]],
        "atol": found["atol"],
    }


def _literal(node: ast.expr, constants: dict[str, float]) -> Any:
    """The value of a literal that may also use `inf`, `nan` and `set()`."""
    if isinstance(node, ast.Name) and node.id in constants:
        return constants[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Name):
        return -_literal(node.operand, constants)
    if isinstance(node, ast.List):
        return [_literal(item, constants) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_literal(item, constants) for item in node.elts)
    if isinstance(node, ast.Dict):
        keys = [_literal(key, constants) for key in node.keys if key is not None]
        return dict(zip(keys, (_literal(value, constants) for value in node.values), strict=True))
    return ast.literal_eval(node)


def _docstring(row: Json) -> str:
    return f'"""\n{row["prompt"]}\n{row["test_list"][0]}\n"""\n'
