"""Data files: what is read, and one clear line for what is not."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks_world import (
    HUMANEVAL,
    HUMANEVAL_PLUS,
    MBPP,
    MBPP_PLUS,
    SANITIZED,
    CountingEvaluate,
    livecodebench_row,
    write_jsonl,
)

from psgpo.errors import UserError
from psgpo.problems import save_problems_jsonl
from psgpo.problems.benchmarks import BENCHMARKS, load_benchmark
from psgpo.records import Problem

ROWS = {
    "humaneval": HUMANEVAL,
    "humanevalplus": HUMANEVAL_PLUS,
    "mbpp": MBPP,
    "mbpp-sanitized": SANITIZED,
    "mbppplus": MBPP_PLUS,
    "livecodebench": livecodebench_row(),
}


def load(name: str, path: Path | str | None, **options: Any) -> list[Problem]:
    return load_benchmark(name, path, evaluate=CountingEvaluate(), **options)


def refusal(name: str, path: Path | str | None, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(name, path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_benchmark_has_a_row_here() -> None:
    assert ROWS.keys() == BENCHMARKS.keys()


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("file", ["a.jsonl", "a.jsonl.gz", "a.json"])
def test_plain_compressed_and_array(name: str, file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    if file == "a.json":
        path.write_text(json.dumps([ROWS[name]], indent=2))
    else:
        write_jsonl(path, [ROWS[name]])
    problems = load(name, path)
    assert [problem.source for problem in problems] == [name]
    assert [problem.id for problem in problems] == [BENCHMARKS[name].canonical_id(problems[0].id)]
    assert Problem.from_json(json.loads(json.dumps(problems[0].to_json()))) == problems[0]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("other", ROWS)
def test_a_file_of_another_benchmark_is_named(name: str, other: str, tmp_path: Path) -> None:
    if name == other:
        return
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[other]])
    message = refusal(name, path)
    assert message.startswith(f"{path}:1: this looks like a file of {other}, not of {name}; use {other}")


def test_samples_and_problems_are_no_data_files(tmp_path: Path) -> None:
    samples = write_jsonl(tmp_path / "s.jsonl", [{"task_id": "HumanEval/0", "completion": "    pass"}])
    assert "looks like a file of samples, not of humaneval; get HumanEval.jsonl.gz" in refusal("humaneval", samples)
    assert "looks like a file of samples, not of problems" in refusal(str(samples), None)
    data = write_jsonl(tmp_path / "d.jsonl.gz", [MBPP])
    assert f"looks like a file of mbpp, not of problems; use --benchmark mbpp --data {data}" in refusal(str(data), None)


def test_truncated_gzip(tmp_path: Path) -> None:
    rows = [dict(HUMANEVAL, task_id=f"HumanEval/{index}", noise=str(index * 7919)) for index in range(200)]
    path = write_jsonl(tmp_path / "a.jsonl.gz", rows)
    path.write_bytes(path.read_bytes()[:-30])
    assert refusal("humaneval", path).startswith(f"{path}: truncated or damaged gzip")
    path.write_bytes(gzip.compress(b"{}")[:4] + b"\xff" * 20)
    assert refusal("humaneval", path).startswith(f"{path}: truncated or damaged gzip")


def test_broken_json_is_named_with_its_line(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [HUMANEVAL])
    path.write_text(path.read_text() + '\n{"task_id": oops}\n')
    assert re.match(re.escape(f"{path}:3: not valid JSON (Expecting value at column 13)"), refusal("humaneval", path))
    path.write_text(json.dumps(HUMANEVAL)[:-20])
    assert "the file looks cut off" in refusal("humaneval", path)
    array = tmp_path / "a.json"
    array.write_text("[\n" + json.dumps(SANITIZED) + ",\n{oops}]\n")
    assert refusal("mbpp-sanitized", array).startswith(f"{array}:3: not valid JSON")
    array.write_text("[1]")
    assert f"{array}[1]: expected a JSON object, found int" in refusal("mbpp-sanitized", array)
    path.write_text("17\n")
    assert f"{path}:1: expected a JSON object, found int" in refusal("humaneval", path)
    path.write_text(f'{{"n": {"9" * 5000}}}\n')
    assert f"{path}:1: not valid JSON (Exceeds the limit" in refusal("humaneval", path)
    path.write_text("[" * 100_000 + "\n")
    assert f"{path}:1: not valid JSON" in refusal("humaneval", path)
    path.write_bytes(b"\xff\xfe\n")
    assert f"{path}:1: not valid JSON" in refusal("humaneval", path)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    assert refusal("mbpp", tmp_path / "none.jsonl") == f"{tmp_path}/none.jsonl: no such file"
    (tmp_path / "empty.jsonl").write_text("\n\n")
    assert "holds no row" in refusal("mbpp", tmp_path / "empty.jsonl")


@pytest.mark.parametrize("name", ROWS)
def test_missing_keys_and_wrong_types_are_named_with_their_line(name: str, tmp_path: Path) -> None:
    refused: dict[str, str] = {}
    for key in ROWS[name]:
        for row in ({k: v for k, v in ROWS[name].items() if k != key}, ROWS[name] | {key: 17}):
            try:
                load(
                    name, write_jsonl(tmp_path / "a.jsonl", [row])
                )  # some keys are not needed, some numbers do no harm
            except UserError as error:
                refused[key] = str(error)
    assert len(refused) >= 4
    assert all(message.startswith(f"{tmp_path}/a.jsonl:1: ") for message in refused.values()), refused
    assert not any("\n" in message for message in refused.values())


def test_a_task_twice(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [MBPP, MBPP | {"task_id": "Mbpp/2"}])
    assert f"{path}:2: the task Mbpp/2 was on an earlier line too" in refusal("mbpp", path)


def test_unknown_benchmark_lists_the_known_ones() -> None:
    message = refusal("humanevall", None)
    assert message.startswith("humanevall: unknown benchmark; known: humaneval, humanevalplus, mbpp,")
    assert refusal("some/where.jsonl", None).startswith("some/where.jsonl: no such file; known: ")


def test_generic_file_of_problems(tmp_path: Path) -> None:
    problems = load("mbpp", write_jsonl(tmp_path / "d.jsonl", [MBPP, MBPP | {"task_id": 700}]))
    path = tmp_path / "p.jsonl"
    save_problems_jsonl(path, problems)
    assert load(str(path), None) == problems
    assert load(str(path), None, split="train") == problems[1:]
    assert load(str(path), None, limit=1) == problems[:1]
    assert "no problem has split=test; splits there: prompt, train" in refusal(str(path), None, split="test")
    assert "can be filtered by split only" in refusal(str(path), None, platform="leetcode")
    assert "leave out --data" in refusal(str(path), path)


def test_filters_that_do_not_apply(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [MBPP])
    assert refusal("mbpp", path, platform="leetcode") == "platform=leetcode: mbpp has no such filter; it has split"
    assert refusal("humaneval", path, split="test") == "split=test: humaneval has no such filter; it has none"
    assert "split=dev: unknown; known: prompt, test, validation, train" in refusal("mbpp", path, split="dev")
    assert "none of its 1 problems has split=train" in refusal("mbpp", path, split="train")
    assert "limit=0" in refusal("mbpp", path, limit=0)


@pytest.mark.parametrize(
    ("name", "raw", "canonical"),
    [
        ("mbpp", 2, "Mbpp/2"),
        ("mbpp", "2", "Mbpp/2"),
        ("mbppplus", "MBPP/2", "Mbpp/2"),
        ("mbpp-sanitized", "Mbpp/002", "Mbpp/2"),
        ("humaneval", 0, "HumanEval/0"),
        ("humanevalplus", "humaneval/163", "HumanEval/163"),
        ("humaneval", "Mbpp/2", "Mbpp/2"),
        ("humaneval", "0x1", "0x1"),
        ("livecodebench", "abc301_a", "abc301_a"),
        ("livecodebench", 2727, "2727"),
    ],
)
def test_canonical_ids(name: str, raw: object, canonical: str) -> None:
    assert BENCHMARKS[name].canonical_id(raw) == canonical


def test_tasks_by_their_numbers(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "mbpp.jsonl", [MBPP | {"task_id": number} for number in (600, 601, 603, 604)])
    assert [problem.id for problem in load_benchmark("mbpp", path, ids=(601, 603))] == ["Mbpp/601", "Mbpp/603"]
    with pytest.raises(UserError, match="none of its 4 problems has ids=5000-6000"):
        load_benchmark("mbpp", path, ids=(5000, 6000))
    with pytest.raises(UserError, match="livecodebench has no such filter"):
        load_benchmark("livecodebench", path, ids=(1, 2))
