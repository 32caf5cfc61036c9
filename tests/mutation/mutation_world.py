"""What the tests of mutants share: small problems, a grader, a server that answers as it is told, data files."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from psgpo.mutation.catalogue import candidates_of
from psgpo.mutation.operators.registry import OPERATORS
from psgpo.mutation.program import Program
from psgpo.records import AssertTests, Problem

ROOT = Path(__file__).resolve().parents[2]

LARGEST = """\
def largest(numbers):
    # the first one is the largest so far
    best = numbers[0]
    for number in numbers:
        if number > best:
            best = number
    return best
"""
COUNT = """\
def count_even(numbers):
    total = 0
    for number in numbers:
        if number % 2 == 0:
            total += 1
    return total
"""


def data_file(name: str) -> Path:
    """A data file of others, or a skip that says where to put it."""
    folder = Path(os.environ.get("PSGPO_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / name).is_file():
        pytest.skip(f"{folder / name} is absent; put it there or name its folder in PSGPO_DATA")
    return folder / name


def problem(code: str | None, checks: list[str], *, name: str = "toy/1", setup: str = "", **others: Any) -> Problem:
    entry = checks[0].split("assert ")[1].split("(")[0]
    tests = AssertTests(entry_point=entry, checks=tuple(checks), setup=setup)
    return Problem(id=name, prompt=f"Write {entry}.", tests=tests, reference_solution=code, **others)


def largest() -> Problem:
    checks = ["assert largest([1, 5, 3]) == 5", "assert largest([9, 2]) == 9", "assert largest([-4, -2, -7]) == -2"]
    return problem(LARGEST, checks, name="toy/largest")


def count_even() -> Problem:
    return problem(COUNT, ["assert count_even([1, 2, 4]) == 2", "assert count_even([7]) == 0"], name="toy/count")


def changes(operator: str, code: str) -> list[str]:
    """What an operator makes of a program, in its order."""
    return [candidate.code for candidate in candidates_of(OPERATORS[operator], Program(code))]


def body(*lines: str) -> str:
    """A function `f(a, b)` with these lines."""
    return "def f(a, b):\n" + "".join(f"    {line}\n" for line in lines)


@dataclass
class FakeServer:
    """An OpenAI-compatible chat server of the tests' own."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


Reply = Callable[[dict[str, Any], int], "str | tuple[int, str] | None"]
"""(request, its number) -> the text to answer with, or (HTTP status, body), or None to say nothing for a second."""


@contextmanager
def fake_server(reply: Reply) -> Iterator[FakeServer]:
    state, lock = FakeServer(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(state.requests)
                state.requests.append(request | {"path": self.path})
                state.headers.append(dict(self.headers))
            answer = reply(request, number)
            if answer is None:
                time.sleep(1.0)
                answer = (503, "late")
            if isinstance(answer, str):
                answer = (200, json.dumps({"choices": [{"message": {"role": "assistant", "content": answer}}]}))
            data = answer[1].encode()
            try:
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(data)))
                if answer[0] == 429:
                    self.send_header("Retry-After", "0.125")
                self.end_headers()
                self.wfile.write(data)
            except BrokenPipeError:
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
