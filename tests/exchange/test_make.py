"""`psgpo labels make`: any model, any problems, exactly resumable, and what it refuses."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exchange_world import STARTER, TEXT, Script, ScriptEngine, add, psgpo, save_toy

from model_server import fake_server
from psgpo.config import LabelSettings, SamplingSettings
from psgpo.errors import RefusedRowsError, UserError
from psgpo.exchange import make
from psgpo.exchange.make import MakeRequest, make_labels
from psgpo.exchange.render import render_summary
from psgpo.execution import Limits
from psgpo.jsonl import read_jsonl, write_jsonl
from psgpo.labeling.engine import OpenEngine
from psgpo.labeling.identity import tokenizer_fingerprint
from psgpo.models import load_policy, load_tokenizer
from psgpo.problems import save_problems_jsonl
from psgpo.records import Completion, LineLabels, Problem, Response
from psgpo.sampling import HFSampler


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("toy"))


def request(out: Path, folder: Path, problems: list[Problem], **changes: Any) -> MakeRequest:
    values: dict[str, Any] = {
        "checkpoints": {"toy": f"hf:{folder}"},
        "source": "toy problems",
        "form": "completion",
        "settings": LabelSettings(k=4, draw=2, responses_per_problem=4),
        "sampling": SamplingSettings(max_new_tokens=40, batch_size=4),
        "limits": Limits(timeout=1.0, memory_mb=128),
        "confinement": {"allow_unconfined": True},
    }
    return MakeRequest(out=out, problems=problems, **(values | changes))


def labels_of(out: Path) -> list[LineLabels]:
    return list(read_jsonl(out / "labels.jsonl", LineLabels.from_json))


def scripted(monkeypatch: pytest.MonkeyPatch, folder: Path, *texts: str) -> None:
    monkeypatch.setattr(make, "_engine", lambda request: ScriptEngine(folder, texts))


def test_a_continued_function_is_judged_behind_its_starter_and_cut_at_its_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = "    y = x\n    return y + 1\nprint(f(2))\ndef g("
    scripted(monkeypatch, folder, right, "    y = x\n    return y\n")
    summary = make_labels(request(tmp_path, folder, [add(1, starter=STARTER)]))
    labels = labels_of(tmp_path)
    passing = [label for label in labels if label.response.verdict.passed]
    failed = [label for label in labels if not label.response.verdict.passed]
    assert passing
    assert failed
    assert {label.response.text for label in passing} == {"    y = x\n    return y + 1\n"}
    assert all(not label.response.finished and label.labels == (1.0, 1.0) for label in passing)
    assert {label.labels for label in failed} == {(1.0, -1.0)}
    assert summary["counts"]["salvaged"] == len(failed)
    assert {label.tokenizer for label in labels} == {tokenizer_fingerprint(load_tokenizer(folder))}

    whole = tuple(load_tokenizer(folder).encode(right, add_special_tokens=False))
    given = [replace(label.response, text=right, token_ids=whole) for label in passing]
    write_jsonl(tmp_path / "given.jsonl", (response.to_json() for response in given))
    asked = request(tmp_path / "again", folder, [add(1, starter=STARTER)], responses=tmp_path / "given.jsonl")
    make_labels(asked)
    assert {label.response.text for label in labels_of(tmp_path / "again")} == {"    y = x\n    return y + 1\n"}


def test_the_prompt_can_be_a_template_and_a_whole_program_is_judged_as_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, folder, "def f(x):\n    y = x\n    return y + 1\n")
    make_labels(request(tmp_path, folder, [add(1), add(2)], form="# {prompt}\n"))
    rows = list(read_jsonl(tmp_path / "responses.jsonl", Response.from_json))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.decode(rows[0].prompt_ids) == "# add 1\n"
    assert [row.verdict.passed for row in rows] == [True] * 4 + [False] * 4
    assert [(row.problem_id, row.index) for row in rows[3:5]] == [("add/1", 3), ("add/2", 0)]


def _die_at(call: int, asked: MakeRequest) -> None:
    """Body of a process that is killed in its n-th batch of samples."""
    sample, calls = HFSampler.sample, [0]

    def counted(self: HFSampler, *arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample(self, *arguments, **options)

    HFSampler.sample = counted  # type: ignore[method-assign]
    make_labels(asked)


def test_killed_at_any_batch_it_ends_with_the_same_labels(folder: Path, tmp_path: Path) -> None:
    problems = [add(1, starter=STARTER), add(2, starter=STARTER), add(3)]
    whole = request(tmp_path / "whole", folder, problems)
    make_labels(whole)
    killed = request(tmp_path / "killed", folder, problems)
    deaths = 0
    for call in (1, 3, 2, 1):
        process = multiprocessing.get_context("fork").Process(target=_die_at, args=(call, killed))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        deaths += process.exitcode != 0
    assert deaths >= 3
    make_labels(killed)
    wanted, found = ((tmp_path / name / "labels.jsonl").read_text() for name in ("whole", "killed"))
    assert _without_seconds(found) == _without_seconds(wanted)


def _without_seconds(text: str) -> list[Any]:
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        row["response"]["verdict"] = row["response"]["verdict"]["status"]
    return rows


class Unproved(Script):
    """A server that returns text: no proof behind `marks`, nor of every third reply from scratch."""

    marks: tuple[str, ...] = ()

    def sample(self, prefixes: Sequence[Sequence[int]], *, seeds: Sequence[int], **options: Any) -> list[Completion]:
        drawn = super().sample(prefixes, seeds=seeds, **options)
        texts = [self._tokenizer.decode(list(prefix)) for prefix in prefixes]
        refused = {
            number: "no proof"
            for number, text in enumerate(texts)
            if (text.endswith(STARTER) and seeds[number] % 3 == 0) or text.rstrip(" ").endswith(self.marks)
        }
        if refused:
            kept = [None if number in refused else completion for number, completion in enumerate(drawn)]
            raise RefusedRowsError("text", refused, kept, unproved=True)
        return drawn


def test_what_cannot_be_proved_is_counted_and_the_rest_is_labelled(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ScriptEngine(folder, ("    y = x\n    return y\n", "    y = x\n    y = 3\n    return y\n"))
    script.script = Unproved(folder, script.script.texts)
    script.script.marks = ("    y = x\n    y = 3\n",)
    monkeypatch.setattr(make, "_engine", lambda request: script)
    settings = LabelSettings(k=4, draw=2, responses_per_problem=12, strategy="linear-scan")
    asked = request(tmp_path, folder, [add(1, starter=STARTER)], settings=settings)
    summary = make_labels(asked)
    labels, replies = labels_of(tmp_path), list(read_jsonl(tmp_path / "refused.jsonl", dict))
    assert len(labels) + len(replies) == 12
    assert {(row["problem_id"], row["checkpoint"], row["reason"]) for row in replies} == {("add/1", "toy", "no proof")}
    lost = [label for label in labels if label.unlabelled]
    assert {label.response.text for label in lost} == {"    y = x\n    y = 3\n    return y\n"}
    assert {label.labels for label in lost} == {(0.0, 0.0, 0.0)}
    assert {label.labels for label in labels if not label.unlabelled} == {(-1.0, -1.0)}
    counted = {"replies": len(replies), "responses": len(lost), "reasons": {"no proof": len(replies) + len(lost)}}
    assert summary["refused"] == counted
    assert min(len(replies), len(lost), len(labels) - len(lost)) > 0
    said = f"not labelled: {len(lost)} failed responses (all their labels are 0), and {len(replies)} replies"
    assert said in render_summary(summary)
    script.script.marks = ("",)
    with pytest.raises(UserError, match="none of 12 replies can be used: no proof; look at --tokenizer"):
        make_labels(replace(asked, out=tmp_path / "none"))


def test_done_is_done_and_another_job_is_refused_by_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "out", tmp_path / "problems.jsonl"
    save_problems_jsonl(file, [add(1, starter=STARTER)])
    given: list[str | Path] = ["labels", "make", "--model", f"toy={folder}", "--problems", file, "--out", out]
    given += ["--max-new-tokens", "12", "--k", "2", "--allow-unconfined"]
    assert psgpo(monkeypatch, *given) == 0
    first = capsys.readouterr().out
    assert "problems" in first
    assert str(out / "labels.jsonl") in first
    with monkeypatch.context() as patch:
        patch.setattr(make, "_engine", lambda request: pytest.fail("a model was loaded"))
        assert psgpo(monkeypatch, *given) == 0
    assert capsys.readouterr().out == first
    assert psgpo(monkeypatch, *given, "--seed", "1", "--strategy", "linear-scan") == 2
    assert "another job (labels, seed differ)" in capsys.readouterr().err
    other = save_toy(tmp_path / "other", seed=1)
    assert psgpo(monkeypatch, *given[:3], f"toy={other}", *given[4:]) == 2
    assert "another job (models differ)" in capsys.readouterr().err


def test_given_responses_are_labelled_and_strangers_refused(folder: Path, tmp_path: Path) -> None:
    problems = [add(1, starter=STARTER), add(2)]
    make_labels(request(tmp_path / "first", folder, problems))
    file = tmp_path / "first" / "responses.jsonl"
    make_labels(request(tmp_path / "again", folder, problems, responses=file))
    assert labels_of(tmp_path / "again") == labels_of(tmp_path / "first")

    def refused(words: str, name: str, **changes: Any) -> None:
        given = {"problems": problems, "folder": folder, "responses": file} | changes
        with pytest.raises(ValueError, match=words):
            make_labels(request(tmp_path / name, **given))

    refused("its problem is not among the problems given", "a", problems=problems[:1])
    refused("problem add/1 answers another prompt than toy problems has", "b", form="# {prompt}\n")
    refused("needs checkpoint 'toy'; given: other", "c", checkpoints={"other": str(folder)})
    rows = [response.to_json() for response in read_jsonl(file, Response.from_json)]
    changed = tmp_path / "changed.jsonl"
    write_jsonl(changed, [row | {"token_ids": [token + 1 for token in row["token_ids"]]} for row in rows])
    refused("do not decode to its text", "d", responses=changed)
    write_jsonl(changed, [])
    refused("holds no response", "e", responses=changed)


def test_responses_of_another_model_of_the_same_name_are_refused(folder: Path, tmp_path: Path) -> None:
    make_labels(request(tmp_path / "first", folder, [add(1)]))
    file = tmp_path / "first" / "responses.jsonl"
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    model, _ = load_policy(other)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    model.save_pretrained(other)
    again = request(tmp_path / "again", other, [add(1)], responses=file)
    with pytest.raises(UserError, match=r"the model 'toy' that wrote these responses is another one than hf:.*other"):
        make_labels(again)
    named = {"checkpoints": {"later": f"hf:{other}"}}
    last = LabelSettings(k=4, draw=2, completer="last")
    make_labels(request(tmp_path / "named", folder, [add(1)], responses=file, settings=last, **named))
    assert labels_of(tmp_path / "named")


def test_checkpoints_share_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    other = save_toy(tmp_path / "other", text=TEXT.replace("print", "import sys\n"))
    with pytest.raises(ValueError, match=f"other={other}: has another tokenizer"):
        make_labels(request(tmp_path / "o", folder, [add(1)], checkpoints={"toy": str(folder), "other": str(other)}))


def test_the_models_that_sampled_are_gone_when_the_workers_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[Any]] = []

    class Forgetful(ScriptEngine):
        """Holds no sampler itself."""

        @contextmanager
        def open(self) -> Iterator[OpenEngine]:
            with super().open() as engine:
                script = Script(folder, [TEXT])
                opened.append(weakref.ref(script))
                yield replace(engine, samplers={"toy": script})

    def workers(responses: Sequence[Response], *rest: Any) -> Any:
        assert responses
        assert [reference() for reference in opened] == [None]
        raise UserError("they start")

    monkeypatch.setattr(make, "_engine", lambda request: Forgetful(folder, [TEXT]))
    monkeypatch.setattr(make, "label_with_workers", workers)
    with pytest.raises(UserError, match="they start"):
        make_labels(request(tmp_path, folder, [add(1, starter=STARTER)], workers=2))


@pytest.mark.slow
def test_workers_write_the_labels_of_one(folder: Path, tmp_path: Path) -> None:
    problems = [add(1, starter=STARTER), add(2, starter=STARTER)]
    settings = LabelSettings(k=3, draw=2, responses_per_problem=2, unit=2)
    make_labels(request(tmp_path / "one", folder, problems, settings=settings))
    make_labels(request(tmp_path / "two", folder, problems, settings=settings, workers=2))
    one, two = ((tmp_path / name / "labels.jsonl").read_text() for name in ("one", "two"))
    assert _without_seconds(one) == _without_seconds(two)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--strategy", "guess"], "--strategy 'guess': choose one of binary-search, linear-scan"),
        (["--completer", "all"], "--completer 'all': choose one of own, last, mixture"),
        (["--temperature", "0"], "--temperature 0.0"),
        (["--prompt", "plain"], "--prompt 'plain': write completion, chat, or a template"),
        (["--prompt", "chat"], "no chat template"),
        (["--max-new-tokens", "95"], "exceed the context of toy, 96; give --max-new-tokens"),
        (["--model", "toy=FOLDER"], "the name 'toy' is taken"),
        (["--model", "b=openai:http://127.0.0.1:9/v1#m", "--tries", "1"], "does not answer, 1 tries"),
        (["--tries", "1", "--request-timeout", "2"], "takes timeout, tries; leave it out"),
        (["--problems", "untested.jsonl"], "untested.jsonl:1: problem u: the problem has no tests"),
        (["--problems", "opchain", "--platform", "x"], "--platform: opchain takes"),
        (["--responses", "none.jsonl"], "none.jsonl: no such file"),
    ],
)
def test_mistakes_cost_one_line_and_exit_status_2(
    arguments: list[str],
    words: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_problems_jsonl("problems.jsonl", [add(1)])
    record = add(1).to_json() | {"id": "u"}
    record["tests"]["calls"] = []
    write_jsonl("untested.jsonl", [record])
    given = ["--model", f"toy={folder}", "--problems", "problems.jsonl", "--max-new-tokens", "8"]
    given += [argument.replace("FOLDER", str(folder)) for argument in arguments]
    assert psgpo(monkeypatch, "labels", "make", "--out", "out", "--allow-unconfined", *given) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("psgpo:")]
    assert len(lines) == 1
    assert words in lines[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("down", "does not answer, 1 tries"),
        (None, "nothing within 0.2 s"),
        ((500, "out of memory"), "HTTP 500"),
        ({"choices": []}, "empty choices"),
    ],
)
def test_servers_of_no_use(
    answer: Any,
    words: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "problems.jsonl"
    save_problems_jsonl(file, [add(1)])
    with fake_server(lambda request, number: answer) as server:
        url = "http://127.0.0.1:9/v1" if answer == "down" else server.url
        given = ["--model", f"openai:{url}#m", "--request-timeout", "0.2", "--tries", "1"]
        given += ["--problems", str(file), "--out", str(tmp_path / "out"), "--allow-unconfined"]
        assert psgpo(monkeypatch, "labels", "make", *given) == 2
        assert "give its folder with --tokenizer" in capsys.readouterr().err
        assert psgpo(monkeypatch, "labels", "make", *given, "--tokenizer", folder) == 2
    assert words in capsys.readouterr().err


def test_a_server_that_returns_fewer_tokens_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def short(asked: dict[str, Any], number: int) -> dict[str, Any]:
        ids = load_tokenizer(folder)("    y", add_special_tokens=False)["input_ids"]
        choice = {"text": "    y", "finish_reason": "length", "token_ids": ids, "prompt_token_ids": asked["prompt"]}
        return {"choices": [choice], "usage": {"prompt_tokens": len(asked["prompt"]), "completion_tokens": len(ids)}}

    file = tmp_path / "problems.jsonl"
    save_problems_jsonl(file, [add(1)])
    with fake_server(short) as server:
        given = ["--model", f"openai:{server.url}#m", "--tokenizer", folder, "--problems", file, "--out", tmp_path]
        assert psgpo(monkeypatch, "labels", "make", *given, "--max-new-tokens", "40", "--allow-unconfined") == 2
    error = capsys.readouterr().err
    assert "of 40 tokens; the model's context or a limit of the server is too short" in error
