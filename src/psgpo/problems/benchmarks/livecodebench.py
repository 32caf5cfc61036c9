"""LiveCodeBench, code generation: contest problems with functional tests (LeetCode) or standard input and output.

Private tests come as JSON text, or as that text pickled, compressed with zlib and written in base64. Nothing is
unpickled here: the opcodes are read, and anything but one string is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from psgpo.problems.benchmarks.reading import Json
from psgpo.problems.benchmarks.references import Evaluate
from psgpo.problems.benchmarks.rows import Row, converting, text_of
from psgpo.records import Call, CallTests, Problem, StdioCase, StdioTests, Tests

PLATFORMS = ("leetcode", "codeforces", "atcoder")
DIFFICULTIES = ("easy", "medium", "hard")
"""In this order `Problem.difficulty` counts from 1."""
MAX_TESTS_BYTES = 1 << 30
"""Longest text of private tests after decompression."""

_TEXT_OPCODES = {
    "PROTO", "FRAME", "STOP", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
}  # fmt: skip
"""What the pickle of one string is made of, in every protocol."""

_STARRED = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
_NAMES_KEPT = ("builtins", "typing")
PREAMBLE = "\n".join(
    [f"from {name} import *" for name in _STARRED]
    + ["import " + ", ".join(name for name in _STARRED if name not in _NAMES_KEPT), "sys.setrecursionlimit(50000)", ""]
)
"""Names that the benchmark's own checker puts before every program, in its order: later ones win."""


def convert_livecodebench(rows: Iterable[Row], evaluate: Evaluate | None) -> Iterator[Problem]:
    """Problems of LiveCodeBench; see `load_benchmark` for the errors."""
    return (converting(row, _problem) for row in rows)


def _problem(row: Json) -> Problem:
    content, starter = text_of(row, "question_content"), row.get("starter_code") or ""
    metadata = row.get("metadata") or {}
    if isinstance(metadata, str):
        metadata = json.loads(metadata)
    difficulty = row["difficulty"]
    public = _decoded(row["public_test_cases"])
    tests = [*public, *_decoded(row["private_test_cases"])]
    return Problem(
        id=str(row["question_id"]),
        prompt=content,
        tests=_tests(tests, metadata.get("func_name"), starter, stated_tolerance(content)),
        source="livecodebench",
        split="test",
        difficulty=DIFFICULTIES.index(difficulty) + 1 if difficulty in DIFFICULTIES else None,
        starter_code=starter,
        preamble=PREAMBLE,
        metadata={
            "title": row.get("question_title", ""),
            "platform": row["platform"],
            "difficulty": difficulty,
            "contest_id": str(row.get("contest_id", "")),
            "contest_date": str(row["contest_date"]),
            "public_tests": len(public),
        },
    )


def _tests(tests: Sequence[Any], function: str | None, starter: str, digits: int | None) -> Tests:
    kinds = {test["testtype"] for test in tests}
    if not tests or kinds - {"functional", "stdin"} or len(kinds) > 1:
        raise ValueError(f"tests must be all functional or all stdin, found {sorted(kinds)}")
    if kinds == {"stdin"}:
        cases = tuple(StdioCase(stdin=test["input"], expected=test["output"]) for test in tests)
        return StdioTests(cases=cases, comparator=f"livecodebench-1e-{digits}" if digits else "livecodebench")
    if not function:
        raise ValueError("functional tests need metadata.func_name")
    calls = [
        Call(args=tuple(json.loads(line) for line in test["input"].split("\n")), expected=json.loads(test["output"]))
        for test in tests
    ]
    return CallTests(
        function=f"Solution.{function}" if "class Solution" in starter else function,
        calls=tuple(calls),
        comparator="livecodebench",
        tolerance=float(f"1e-{digits}") if digits else 0.0,
    )


def _decoded(cases: Any) -> list[Any]:
    """Test cases given as a list, as JSON, or compressed."""
    if isinstance(cases, str):
        text = cases if cases.lstrip().startswith("[") else _decompressed(cases)
        cases = json.loads(text)
    if not isinstance(cases, list):
        raise ValueError(f"test cases must be a list, found {type(cases).__name__}")
    return cases


def _decompressed(encoded: str) -> str:
    try:
        packed = base64.b64decode(encoded, validate=True)
        unpacker = zlib.decompressobj()
        pickled = unpacker.decompress(packed, MAX_TESTS_BYTES)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ValueError(f"private_test_cases are neither JSON nor compressed JSON ({error})") from None
    if not unpacker.eof:
        raise ValueError("private_test_cases are cut off, or larger than 1 GiB")
    return pickled_text(pickled)


def pickled_text(pickled: bytes) -> str:
    """The string that a pickle holds, without unpickling it.

    Raises:
        ValueError: it holds anything else.
    """
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name not in _TEXT_OPCODES:
                raise ValueError(f"opcode {opcode.name}")
            if opcode.name.endswith(("UNICODE", "UNICODE8")):
                texts.append(str(argument))
    except Exception as error:  # genops raises whatever damaged bytes lead to
        raise ValueError(f"private_test_cases hold a pickle that is not one string ({error}); refused") from None
    if len(texts) != 1:
        raise ValueError(f"private_test_cases hold a pickle of {len(texts)} strings instead of one; refused")
    return texts[0]


_POWER = re.compile(r"10\s*\^?\s*\{?\s*[-−–]\s*(\d+)|\b1e-(\d+)")
_GRANTING = re.compile(r"\berror\b|\baccepted\b|considered correct|\btolerance\b", re.IGNORECASE)


def stated_tolerance(text: str) -> int | None:
    """n where the problem's text grants answers an error of 10^-n, None where it does not.

    Only sentences about errors count, not the limits of inputs; the loosest tolerance when several are named.
    """
    sentences = filter(_GRANTING.search, re.split(r"[.\n]", text))
    digits = [int(next(filter(None, match))) for sentence in sentences for match in _POWER.findall(sentence)]
    return min((digit for digit in digits if 1 <= digit <= 15), default=None)
