"""The records every stage reads and writes. Frozen, keyword-only, JSON Lines on disk; no torch.

Each record has `to_json` (a plain dict) and `from_json` (its inverse, which raises `ValueError`,
`KeyError` or `TypeError` for malformed input; `psgpo.jsonl.read_jsonl` adds file and line).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from psgpo.plain import from_json_value, to_json_value

Json = dict[str, Any]


class Status(StrEnum):
    """What came of running one program against its tests. Only PASSED is a success."""

    PASSED = "PASSED"
    WRONG_ANSWER = "WRONG_ANSWER"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    SYNTAX_ERROR = "SYNTAX_ERROR"
    TIMEOUT = "TIMEOUT"
    MEMORY = "MEMORY"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    """The program returned or printed more than the limit."""
    BAD_VALUE = "BAD_VALUE"
    """The program returned something that is not plain data."""
    NO_REPORT = "NO_REPORT"
    """The program ended before every test had answered (exit, exec, closed channel)."""
    CRASHED = "CRASHED"
    """The program's process died of a signal that the limits did not send."""
    INFRASTRUCTURE = "INFRASTRUCTURE"
    """The grader itself failed: neither pass nor fail. Never cached, never a reward."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One hidden test: `function(*args)` must equal `expected`."""

    args: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class CallTests:
    """Function-call tests: the trusted side compares what the untrusted function returns."""

    function: str
    """Name of the entry point the program must define; `Solution.name` for a method of a class without arguments."""
    calls: tuple[Call, ...]
    """At least one call; an empty list can never be passed."""
    comparator: str = "exact"
    """Name of the comparison, see `psgpo.execution.comparators`."""
    tolerance: float = 0.0
    """Absolute tolerance; 0: the comparator's own. `exact` and `equal` have none."""

    def to_json(self) -> Json:
        calls = [
            {"args": [to_json_value(item) for item in call.args], "expected": to_json_value(call.expected)}
            for call in self.calls
        ]
        record = {"kind": "calls", "function": self.function, "comparator": self.comparator, "calls": calls}
        return record | ({"tolerance": self.tolerance} if self.tolerance else {})

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> CallTests:
        _refuse_unknown(record, ("kind", "function", "calls", "comparator", "tolerance"), "tests of kind 'calls'")
        function = record["function"]
        if not isinstance(function, str) or not all(part.isidentifier() for part in function.split(".")):
            raise ValueError(f"tests.function must be the name of a function, found {function!r}")
        calls = []
        for call in record["calls"]:
            _refuse_unknown(call, ("args", "expected"), "a call")
            if not isinstance(call["args"], list | tuple):
                raise ValueError(f"a call's args must be a list, found {type(call['args']).__name__}")
            if not _is_finite((call["args"], call["expected"])):
                raise ValueError('a call holds a bare NaN or infinity; write {"$float": "nan"}, "inf" or "-inf"')
            args = tuple(map(from_json_value, call["args"]))
            calls.append(Call(args=args, expected=from_json_value(call["expected"])))
        _refuse_empty(calls)
        tolerance = record.get("tolerance", 0.0)
        if type(tolerance) not in (int, float) or not 0 <= tolerance < math.inf:
            raise ValueError(f"tests.tolerance must be a number from 0, found {tolerance!r}")
        comparator = _comparator(record, "exact")
        return cls(function=function, calls=tuple(calls), comparator=comparator, tolerance=tolerance)


@dataclass(frozen=True, kw_only=True, slots=True)
class AssertTests:
    """A trusted test script. It runs on the trusted side; the names of the program are proxies there.

    `setup` runs once; then `checks` run in order in the same namespace, each also after one has failed. A check holds
    when it raises nothing. Other names than `entry_point` that come from the program (its classes) stand in `objects`.
    """

    entry_point: str
    """Name of the function the program must define."""
    checks: tuple[str, ...]
    """Python statements, each one test; at least one."""
    setup: str = ""
    """Python statements before the first check: imports, helpers, data. An error here fails every check."""
    objects: tuple[str, ...] = ()
    """Further names the program must define and the script uses, such as its classes."""

    def to_json(self) -> Json:
        record: Json = {"kind": "asserts", "entry_point": self.entry_point, "checks": list(self.checks)}
        return record | ({"setup": self.setup} if self.setup else {}) | _unless_empty("objects", list(self.objects))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> AssertTests:
        known = ("kind", "entry_point", "checks", "setup", "objects")
        _refuse_unknown(record, known, "tests of kind 'asserts'")
        checks, objects, setup = record["checks"], record.get("objects", []), record.get("setup", "")
        names = [record["entry_point"], *objects]
        if isinstance(objects, str) or not all(isinstance(name, str) and name.isidentifier() for name in names):
            raise ValueError(f"tests.entry_point and tests.objects must be names, found {names!r}")
        if not isinstance(checks, list) or not all(isinstance(check, str) for check in checks):
            raise ValueError("tests.checks must be a list of Python statements")
        if not isinstance(setup, str):
            raise ValueError("tests.setup must be Python statements")
        _refuse_empty(checks)
        return cls(entry_point=names[0], checks=tuple(checks), setup=setup, objects=tuple(names[1:]))


@dataclass(frozen=True, kw_only=True, slots=True)
class StdioCase:
    """One hidden test of a whole program."""

    stdin: str
    expected: str
    """What the program must write to standard output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StdioTests:
    """Tests of a program that reads standard input and writes standard output, run afresh for each case."""

    cases: tuple[StdioCase, ...]
    """At least one."""
    comparator: str = "lines"
    """Name of the comparison, see `psgpo.execution.comparators`."""

    def to_json(self) -> Json:
        cases = [{"stdin": case.stdin, "expected": case.expected} for case in self.cases]
        return {"kind": "stdio", "comparator": self.comparator, "cases": cases}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StdioTests:
        _refuse_unknown(record, ("kind", "cases", "comparator"), "tests of kind 'stdio'")
        for case in record["cases"]:
            _refuse_unknown(case, ("stdin", "expected"), "a stdio case")
        cases = [StdioCase(stdin=case["stdin"], expected=case["expected"]) for case in record["cases"]]
        if not all(isinstance(text, str) for case in cases for text in (case.stdin, case.expected)):
            raise ValueError("a stdio case needs the texts 'stdin' and 'expected'")
        _refuse_empty(cases)
        return cls(cases=tuple(cases), comparator=_comparator(record, "lines"))


Tests = CallTests | AssertTests | StdioTests
"""How a program is judged."""
_TESTS: dict[str, type[CallTests] | type[AssertTests] | type[StdioTests]] = {
    "calls": CallTests,
    "asserts": AssertTests,
    "stdio": StdioTests,
}


def tests_from_json(record: Mapping[str, Any]) -> Tests:
    """The inverse of `to_json` of any kind of tests.

    Raises:
        ValueError, KeyError, TypeError: the record is malformed; the message says how.
    """
    kind = record.get("kind") if isinstance(record, Mapping) else None
    if kind not in _TESTS:
        raise ValueError(f"tests must be an object whose 'kind' is one of {', '.join(_TESTS)}")
    return _TESTS[kind].from_json(record)


def _refuse_unknown(record: Any, known: Sequence[str], who: str) -> None:
    """A key that nothing reads, a misspelt one say, would make right programs fail."""
    if not isinstance(record, Mapping):
        raise ValueError(f"{who} must be an object, found {type(record).__name__}")
    if unknown := sorted(record.keys() - set(known)):
        raise ValueError(f"unknown keys {unknown} in {who}; allowed: {list(known)}")


def _refuse_empty(tests: Sequence[Any]) -> None:
    if not tests:
        raise ValueError("the problem has no tests; a problem without tests cannot be graded, remove it")


def _comparator(record: Mapping[str, Any], default: str) -> str:
    name = record.get("comparator", default)
    if not isinstance(name, str):
        raise ValueError(f"tests.comparator must be a name, found {name!r}")
    return name


def _unless_empty(name: str, value: Any) -> Json:
    return {name: value} if value else {}


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A programming task with hidden tests."""

    id: str
    prompt: str
    """What the program shall do, in words. Not yet wrapped for a model: see `Recipe.prompt_template`."""
    tests: Tests
    source: str = ""
    """Which benchmark or file it comes from."""
    split: str = ""
    """train, validation or test; empty when the source has no splits."""
    difficulty: int | None = None
    """For the embedded benchmark the number of operations; else the source's own scale."""
    starter_code: str = ""
    """Code that a completion continues (imports, signature, docstring); empty for none."""
    preamble: str = ""
    """Code that a whole program may rely on: the prompt's imports and helpers, put before it."""
    reference_solution: str | None = None
    metadata: Json = field(default_factory=dict)
    """Anything else the source knows (JSON values only)."""

    def to_json(self) -> Json:
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        record["tests"] = self.tests.to_json()
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Problem:
        _refuse_unknown(record, sorted(f.name for f in dataclasses.fields(cls)), "a problem")
        if not isinstance(record["id"], str) or not record["id"]:
            raise ValueError("a problem needs a non-empty string 'id'")
        if not isinstance(record["prompt"], str):
            raise ValueError(f"problem {record['id']}: 'prompt' must be a string")
        # What others write as null is what they leave out.
        values = {key: value for key, value in record.items() if value is not None or key == "tests"}
        for key, (kind, called) in _OPTIONAL.items():
            if type(values.get(key, kind())) is not kind:
                raise ValueError(f"problem {record['id']}: {key!r} must be {called}, found {values[key]!r:.60}")
        try:
            values["tests"] = tests_from_json(record["tests"])
        except (ValueError, TypeError) as error:
            raise ValueError(f"problem {record['id']}: {error}") from None
        return cls(**values)


_TEXT = (str, "text")
_OPTIONAL: dict[str, tuple[type, str]] = {
    "source": _TEXT,
    "split": _TEXT,
    "difficulty": (int, "a whole number"),
    "starter_code": _TEXT,
    "preamble": _TEXT,
    "reference_solution": _TEXT,
    "metadata": (dict, "an object"),
}
"""Type of what a problem may leave out, and what it is called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the trusted side found out about one program."""

    status: Status
    tests_passed: int
    tests_total: int
    first_failing: int | None = None
    """Index of the first test that did not hold; None when all held or none ran."""
    outcomes: tuple[Status, ...] = ()
    """One per test, in order; tests that never ran carry what ended the program."""
    mode: str = ""
    """How the tests reached the program: calls, asserts, asserts+objects (objects of the program's own classes were
    used, by reference) or stdio."""
    detail: str = ""
    """One line for people: the exception's type and message, the limit that was hit."""
    cpu_seconds: float = 0.0
    """CPU time of the program's process."""
    wall_seconds: float = 0.0
    confinement: str = ""
    """The rung of the hardening ladder that was in force, see `psgpo doctor`."""
    cached: bool = False
    """True when the verdict came from the cache and nothing was run."""

    @property
    def passed(self) -> bool:
        return self.status is Status.PASSED

    @property
    def fraction(self) -> float:
        """Share of the tests that held, in [0, 1]: partial credit."""
        return self.tests_passed / self.tests_total if self.tests_total else 0.0

    def to_json(self) -> Json:
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return record | {"status": self.status.value, "outcomes": [outcome.value for outcome in self.outcomes]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Verdict:
        outcomes = tuple(map(Status, record.get("outcomes", ())))
        return cls(**(dict(record) | {"status": Status(record["status"]), "outcomes": outcomes}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a sampler returns for one prefix."""

    token_ids: tuple[int, ...]
    """The sampled ids after the prefix; the end-of-sequence token, when sampled, is the last of them."""
    logprobs: tuple[float, ...]
    """log softmax(logits / temperature) of each sampled id, before top-p truncation."""
    finished: bool
    """True when the end-of-sequence token was sampled, False when max_new_tokens cut it off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """One response of a policy to a problem, with its verdict."""

    problem_id: str
    index: int
    """Which of the problem's responses this is, from 0."""
    checkpoint: str
    """Name of the policy that wrote it, e.g. `baseline/step-40`."""
    token_ids: tuple[int, ...]
    text: str
    """`token_ids` decoded, end-of-sequence token left out."""
    finished: bool
    """The policy ended it: with the end-of-sequence token, in a search also with the fence that closes its code or the
    function that it goes on with."""
    verdict: Verdict
    prompt_ids: tuple[int, ...] = ()

    def to_json(self) -> Json:
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return record | {
            "verdict": self.verdict.to_json(),
            "token_ids": list(self.token_ids),
            "prompt_ids": list(self.prompt_ids),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Response:
        values = dict(record) | {"verdict": Verdict.from_json(record["verdict"])}
        return cls(**(values | {"token_ids": tuple(record["token_ids"]), "prompt_ids": tuple(record["prompt_ids"])}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One question of the search: can a completion of the first `line` lines pass?"""

    line: int
    """m: how many lines were kept."""
    drawn: int
    """Completions drawn, at most K (fewer when an early one passed)."""
    passed: int
    """How many of those drawn passed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LineLabels:
    """Line labels of one response, and what they cost."""

    response: Response
    line_ends: tuple[int, ...]
    """Per code line, index into `response.token_ids` of the token that ends the line."""
    labels: tuple[float, ...]
    """Per code line: +1 the prefix can be completed, -1 it cannot, 0 neutral (comment, blank, docstring) or not known;
    anything between where the labels are `real_valued`."""
    last_solvable: int
    """m*: how many leading lines the search found completable; T when the response itself passes."""
    strategy: str
    """Name of the label strategy, see `LabelSettings.strategy`; `twin` of a twin (`psgpo.labeling.twins`)."""
    probes: tuple[Probe, ...]
    completions: int
    """Completions drawn for this response."""
    tokens: int
    """Tokens generated for this response."""
    executions: int
    """Programs judged for this response, the response itself included."""
    tokenizer: str = ""
    """Fingerprint of the tokenizer that `line_ends` and the response's ids belong to (`psgpo.labeling.identity`); empty
    where the writer did not record it."""
    guessed: bool = False
    """Whether +1 and -1 rest on a probability (noisy search, a prior) and not on programs that were judged."""
    unlabelled: str = ""
    """Why the search was given up; all labels are 0 then and `last_solvable` says nothing. Empty when it was not."""
    done: float | None = None
    """How much of a program the good lines stand for, where an ending is known: 1 − (code lines of the ending that
    completes them) / (code lines of the shortest passing program known), in [0, 1]. None where that was not
    found out."""
    joined: tuple[int, float] | None = None
    """Of a twin that passes: how many of its first lines are the response's, and what share of a program they stand
    for; `done` is of all its lines."""

    @property
    def real_valued(self) -> bool:
        """Whether 0 on a code line is a value like any other, and not a line that was left open.

        A response that passes is never probed, so its lines have no rates but the last.
        """
        return self.strategy in ("soft", "noisy-soft") and not self.unlabelled and not self.response.verdict.passed

    def to_json(self) -> Json:
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        record |= {"response": self.response.to_json(), "probes": [dataclasses.asdict(probe) for probe in self.probes]}
        for name in ("guessed", "unlabelled"):
            if not record[name]:
                del record[name]
        for name in ("done", "joined"):
            if record[name] is None:
                del record[name]
        return record | {"line_ends": list(self.line_ends), "labels": list(self.labels)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> LineLabels:
        values = dict(record) | {"response": Response.from_json(record["response"])}
        values["probes"] = tuple(Probe(**probe) for probe in record["probes"])
        if record.get("joined") is not None:
            values["joined"] = tuple(record["joined"])
        return cls(**(values | {"line_ends": tuple(record["line_ends"]), "labels": tuple(record["labels"])}))
