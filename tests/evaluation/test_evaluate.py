from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from psgpo.config import EvaluationSettings, SamplingSettings, SftSettings
from psgpo.errors import UserError
from psgpo.evaluation import pass_at_k
from psgpo.evaluation.evaluate import evaluate_policy
from psgpo.evaluation.summary import read_results, summarise
from psgpo.execution import Sandbox
from psgpo.jsonl import read_jsonl
from psgpo.models import create_policy, load_tokenizer, train_tokenizer
from psgpo.records import Call, CallTests, Completion, Problem, Status, Verdict
from psgpo.sft import train_sft

TESTS = CallTests(function="solve", calls=(Call(args=(1,), expected=2),))
PROBLEMS = [Problem(id=f"p{i}", prompt=f"add {i}", tests=TESTS, difficulty=1 + i % 2) for i in range(6)]
SETTINGS = EvaluationSettings(samples=4, temperature=0.7, bootstrap=200)
SAMPLING = SamplingSettings(max_new_tokens=24, batch_size=2)


class EvenGrader:
    """Passes programs of even length; counts what it judged. Stands for the sandbox, which has its own tests."""

    def __init__(self) -> None:
        self.judged = 0

    def grade(self, items: Sequence[tuple[str, CallTests]], /) -> list[Verdict]:
        self.judged += len(items)
        statuses = [Status.WRONG_ANSWER if len(program) % 2 else Status.PASSED for program, _ in items]
        return [Verdict(status=status, tests_passed=0, tests_total=1) for status in statuses]


@pytest.fixture(scope="module")
def policy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that has just learned to write two-line functions, some with a comment."""
    folder = tmp_path_factory.mktemp("policy")
    programs = [f"def solve(x):\n{note}    return x + {i}\n" for i in range(10) for note in ("", "    # note\n")]
    pairs = [(f"# add {i // 2}\n", program) for i, program in enumerate(programs)]
    tokenizer = train_tokenizer([prompt + program for prompt, program in pairs], 290)
    policy = create_policy(tokenizer, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1)
    train_sft(policy, tokenizer, pairs * 40, SftSettings(learning_rate=1e-2, batch_size=8), out=folder, seed=0)
    return folder / "model"


def evaluate(policy_dir: Path, out: Path, **changes):
    arguments = {"problems": PROBLEMS, "sandbox": EvenGrader(), "settings": SETTINGS, "sampling": SAMPLING, "seed": 3}
    arguments |= {"prompt_template": "# {prompt}\n"} | changes
    return evaluate_policy(policy_dir, out_dir=out, **arguments)


def without_time(summary):
    return {key: value for key, value in summary.items() if key not in ("seconds", "drawn")}


def test_the_summary_agrees_with_the_samples(policy_dir, tmp_path):
    progress: list[tuple[int, int]] = []
    summary = evaluate(policy_dir, tmp_path / "sft", progress=lambda *at: progress.append(at))
    assert json.loads((tmp_path / "sft" / "summary.json").read_text()) == summary
    rows = list(read_jsonl(tmp_path / "sft" / "samples.jsonl", dict))
    assert len(rows) == 6 * 5
    assert progress[-1] == (30, 30)
    assert {row["checkpoint"] for row in rows} == {"sft"}
    sampled = [row for row in rows if not row["greedy"]]
    passed = [row["verdict"]["status"] == "PASSED" for row in sampled]
    assert summary["pass_at_1"]["value"] == pytest.approx(sum(passed) / 24)
    results = read_results(tmp_path / "sft" / "samples.jsonl")
    for entry in summary["pass_at_k"]:
        by_hand = [pass_at_k(4, sum(row), entry["k"]) for row in results.values()]
        assert entry["value"] == pytest.approx(sum(by_hand) / 6)
    assert [entry["k"] for entry in summary["pass_at_k"]] == [1, 2, 3, 4]
    greedy = read_results(tmp_path / "sft" / "samples.jsonl", greedy=True)
    assert summary["greedy"]["value"] == pytest.approx(sum(row[0] for row in greedy.values()) / 6)
    assert [group["difficulty"] for group in summary["by_difficulty"]] == [1, 2]
    assert [group["pass_at_1"]["count"] for group in summary["by_difficulty"]] == [3, 3]
    assert sum(bucket["responses"] for bucket in summary["by_tokens"]) == 24
    assert sum(summary["statuses"].values()) == 24
    assert summary["mean_tokens"]["value"] == pytest.approx(sum(len(row["token_ids"]) for row in sampled) / 24)


def test_the_same_seed_gives_the_same_samples(policy_dir, tmp_path):
    first = evaluate(policy_dir, tmp_path / "one" / "sft")
    again = evaluate(policy_dir, tmp_path / "two" / "sft")
    assert without_time(first) == without_time(again)
    one, two = (list(read_jsonl(tmp_path / name / "sft" / "samples.jsonl", dict)) for name in ("one", "two"))
    assert one == two
    other = evaluate(policy_dir, tmp_path / "three" / "sft", seed=4)
    assert without_time(other) != without_time(first)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("torn", [False, True])
def test_an_interrupted_evaluation_goes_on_without_drawing_again(policy_dir, tmp_path, torn):
    whole = evaluate(policy_dir, tmp_path / "whole" / "sft")

    def kill(done: int, total: int) -> None:
        if done >= 16:
            raise KilledError

    out = tmp_path / "part" / "sft"
    with pytest.raises(KilledError):
        evaluate(policy_dir, out, progress=kill)
    assert not (out / "summary.json").exists()
    path = out / "samples.jsonl"
    there = len(path.read_bytes().splitlines())
    assert 16 <= there < 30
    if torn:  # killed inside a write: the last row is half there, so its problem counts as missing
        path.write_bytes(path.read_bytes()[:-20])
    grader = EvenGrader()
    again = evaluate(policy_dir, out, sandbox=grader)
    assert again["drawn"] == 30 - there + (4 if torn else 0)
    assert grader.judged <= again["drawn"]
    assert without_time(again) == without_time(whole)
    rows = [list(read_jsonl(tmp_path / name / "sft" / "samples.jsonl", dict)) for name in ("whole", "part")]
    order = [sorted(part, key=lambda row: (row["greedy"], row["problem_id"], row["index"])) for part in rows]
    assert order[0] == order[1]


def test_a_finished_evaluation_draws_nothing(policy_dir, tmp_path):
    first = evaluate(policy_dir, tmp_path / "sft")
    again = evaluate(policy_dir, tmp_path / "sft")
    assert again["drawn"] == 0
    assert without_time(again) == without_time(first)


def test_samples_of_another_evaluation_are_refused(policy_dir, tmp_path):
    evaluate(policy_dir, tmp_path / "sft")
    with pytest.raises(UserError, match=r"another job \(seed differ"):
        evaluate(policy_dir, tmp_path / "sft", seed=4)
    # More resamples and other batches ask for the same samples.
    changed = {
        "settings": SETTINGS.model_copy(update={"bootstrap": 100}),
        "sampling": SamplingSettings(max_new_tokens=24),
    }
    assert evaluate(policy_dir, tmp_path / "sft", **changed)["drawn"] == 0


def test_samples_of_another_model_or_of_other_problems_are_refused(policy_dir, tmp_path):
    evaluate(policy_dir, tmp_path / "sft")
    other = tmp_path / "model"
    shutil.copytree(policy_dir, other)
    assert evaluate(other, tmp_path / "sft")["drawn"] == 0  # moved, and the same
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=r"another job \(model differ\); delete .*sft or choose another folder"):
        evaluate(other, tmp_path / "sft")
    harder = CallTests(function="solve", calls=(*TESTS.calls, Call(args=(2,), expected=3)))
    for change in ({"prompt": "add 7"}, {"tests": harder}):
        changed = [dataclasses.replace(PROBLEMS[0], **change), *PROBLEMS[1:]]
        with pytest.raises(UserError, match=r"another job \(tasks differ\)"):
            evaluate(policy_dir, tmp_path / "sft", problems=changed)
    assert evaluate(policy_dir, tmp_path / "sft", problems=PROBLEMS[::-1])["drawn"] == 0


def test_an_evaluation_begun_by_an_earlier_version_goes_on(policy_dir, tmp_path):
    evaluate(policy_dir, tmp_path / "sft")
    path = tmp_path / "sft" / "job.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in whole.items() if key not in ("model", "tasks")}))
    assert evaluate(policy_dir, tmp_path / "sft")["drawn"] == 0
    assert json.loads(path.read_text()) == whole  # from now on it is checked


def test_without_greedy(policy_dir, tmp_path):
    summary = evaluate(policy_dir, tmp_path / "sft", settings=SETTINGS.model_copy(update={"greedy": False}))
    assert summary["greedy"] is None
    assert summary["drawn"] == 24


def test_no_problems_and_doubled_ids_are_refused(policy_dir, tmp_path):
    with pytest.raises(UserError, match="no problems"):
        evaluate(policy_dir, tmp_path / "sft", problems=[])
    with pytest.raises(UserError, match="two problems have the id 'p0'"):
        evaluate(policy_dir, tmp_path / "sft", problems=[PROBLEMS[0], *PROBLEMS])


class Script:
    """A sampler that knows its lines: whatever number the prompt ends with is what its program adds."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer

    def sample(self, prefixes, *, seeds, temperature=1.0, top_p=1.0, max_new_tokens=256):
        completions = []
        for prefix in prefixes:
            number = self.tokenizer.decode(prefix).split()[-1]
            text = f"def solve(x):\n    # note\n    return x + {number}\n"
            ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
            completions.append(Completion(token_ids=tuple(ids), logprobs=(0.0,) * len(ids), finished=True))
        return completions


def test_scripted_programs_in_the_real_sandbox(policy_dir, tmp_path):
    with Sandbox() as sandbox:
        tokenizer = load_tokenizer(policy_dir)
        scripted = nullcontext((Script(tokenizer), tokenizer))
        options = {"problems": PROBLEMS[:4], "sandbox": sandbox, "open_policy": lambda: scripted}
        summary = evaluate(policy_dir, tmp_path / "sft", **options)
    # Every test asks for solve(1) == 2, and only the answer to "add 1" adds 1.
    results = read_results(tmp_path / "sft" / "samples.jsonl")
    assert results == {"p0": [False] * 4, "p1": [True] * 4, "p2": [False] * 4, "p3": [False] * 4}
    assert summary["pass_at_1"]["value"] == summary["greedy"]["value"] == 0.25
    assert summary["statuses"] == {"PASSED": 4, "WRONG_ANSWER": 12}
    assert [group["pass_at_1"]["value"] for group in summary["by_difficulty"]] == [0.0, 0.5]
    assert (summary["mean_lines"]["value"], summary["finished"]) == (3.0, 1.0)
    assert summary["comment_ratio"]["value"] == pytest.approx(1 / 3)


def row(problem, index, passed, tokens, *, lines=2, comments=0, greedy=False):
    verdict = {"status": "PASSED" if passed else "TIMEOUT"}
    return {
        "problem_id": problem,
        "index": index,
        "greedy": greedy,
        "difficulty": {"a": 2, "b": None}[problem],
        "verdict": verdict,
        "token_ids": [0] * tokens,
        "finished": passed,
        "lines": lines,
        "comment_lines": comments,
    }


def test_summary_by_hand():
    rows = [
        row("b", 1, False, 100, lines=4, comments=2),
        row("a", 0, True, 25),
        row("a", 1, False, 26),
        row("b", 0, False, 101),
        row("a", 0, True, 5, lines=9, greedy=True),
        row("b", 0, False, 5, lines=9, greedy=True),
    ]
    found = summarise(rows, resamples=100)
    assert (found["problems"], found["samples"]) == (2, 2)
    assert [entry["value"] for entry in found["pass_at_k"]] == [0.25, 0.5]
    assert found["greedy"]["value"] == 0.5
    assert [(group["difficulty"], group["pass_at_n"]["value"]) for group in found["by_difficulty"]] == [
        (2, 1.0),
        (None, 0.0),
    ]
    assert [(b["from"], b["to"], b["responses"], b["pass_rate"]["value"]) for b in found["by_tokens"]] == [
        (0, 25, 1, 1.0),
        (25, 50, 1, 0.0),
        (50, 100, 1, 0.0),
        (100, 200, 1, 0.0),
    ]
    assert found["mean_tokens"]["value"] == 63.0
    assert found["mean_lines"]["value"] == 2.5
    assert found["comment_ratio"]["value"] == 0.2
    assert found["finished"] == 0.25
    assert found["statuses"] == {"PASSED": 1, "TIMEOUT": 3}
    json.dumps(found, allow_nan=False)
