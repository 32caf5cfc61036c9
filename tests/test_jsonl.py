"""JSON Lines: errors with file and line, torn tails, atomic writes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from psgpo.errors import UserError
from psgpo.jsonl import JsonlAppender, read_jsonl, write_json, write_jsonl
from psgpo.records import Problem


def test_broken_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(UserError, match=r"x\.jsonl:3: not valid JSON"):
        list(read_jsonl(path, dict))
    path.write_text("[1]\n")
    with pytest.raises(UserError, match=r"x\.jsonl:1: expected a JSON object"):
        list(read_jsonl(path, dict))
    path.write_text('{"id": "p", "prompt": "x"}\n')
    with pytest.raises(UserError, match=r"x\.jsonl:1: missing key 'tests'"):
        list(read_jsonl(path, Problem.from_json))
    with pytest.raises(UserError, match="no such file"):
        list(read_jsonl(tmp_path / "none", dict))


def test_a_problem_without_tests_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "p", "prompt": "x", "tests": {"kind": "calls", "function": "f", "calls": []}}\n')
    with pytest.raises(UserError, match=r"p\.jsonl:1: problem p: the problem has no tests"):
        list(read_jsonl(path, Problem.from_json))


def test_a_torn_tail_is_cut_before_appending(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":2}\n{"a":')
    assert [row["a"] for row in read_jsonl(path, dict, torn_tail_ok=True)] == [1, 2]
    with JsonlAppender(path) as log:
        log.append({"a": 3}, {"a": 4})
    assert [row["a"] for row in read_jsonl(path, dict)] == [1, 2, 3, 4]


def test_write_replaces_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [{"a": 1}])

    def broken() -> object:
        yield {"a": 2}
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError):
        write_jsonl(path, broken())  # type: ignore[arg-type]
    assert [row["a"] for row in read_jsonl(path, dict)] == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str, **_: object) -> None:
        path.write_bytes(text[:3].encode())
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space left"):
        write_json(tmp_path / "recipe.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        ('["assert f(1)"]', "tests must be an object"),
        ('{"kind": "calls", "function": 5, "calls": []}', "must be the name of a function"),
        (
            '{"kind": "calls", "function": "f", "calls": [{"args": "abc", "expected": 1}]}',
            "args must be a list, found str",
        ),
        ('{"kind": "calls", "function": "f", "calls": [{"args": [], "expected": Infinity}]}', "NaN or infinity"),
    ],
)
def test_odd_tests_are_refused(tmp_path: Path, tests: str, words: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"id": "p", "prompt": "x", "tests": {tests}}}\n')
    with pytest.raises(UserError, match=rf"p\.jsonl:1: problem p: .*{words}"):
        list(read_jsonl(path, Problem.from_json))


def test_nan_is_null_on_disk(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"a": float("nan"), "b": [float("inf"), 1.0]}])
    assert list(read_jsonl(tmp_path / "x.jsonl", dict)) == [{"a": None, "b": [None, 1.0]}]
