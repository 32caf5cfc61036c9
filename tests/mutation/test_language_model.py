"""The teacher that is a model: what it asks, what it makes of replies, and servers that are down, slow or odd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mutation_world import COUNT, count_even

from model_server import FakeServer, fake_server
from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.mutation.chat import ChatServer
from psgpo.mutation.labelled import load_programs
from psgpo.mutation.language_model import PROMPTS, LanguageModel, filled, read_prompt, with_line
from psgpo.mutation.program import Program
from psgpo.mutation.run import Settings, run_mutation
from psgpo.mutation.summary import render
from psgpo.remote import UnusableReplyError


def server(state: FakeServer, **options: Any) -> ChatServer:
    return ChatServer(**({"url": state.url, "model": "teacher-1", "pause": 0.01, "timeout": 5.0} | options))


def teacher(state: FakeServer, **options: Any) -> LanguageModel:
    prompts = {family: read_prompt(path) for family, path in PROMPTS.items()}
    return LanguageModel(server=server(state, **options), prompts=prompts)


def rewriting(request: dict[str, Any], number: int) -> str:
    """Answers like a model: the line, changed, in a fence; nonsense for some."""
    prompt = request["messages"][0]["content"]
    line = prompt.split("\nLine ")[1].split("is:\n", 1)[1].split("\n")[0]
    bug = "realistic bug" in prompt
    if "total = 0" in line:
        return "```python\ntotal = 1\n```" if bug else "Sure:\n```python\ntotal = int()\n```\nDone."
    if "if number" in line:
        return "```\n4:     if number % 2 == 1:\n```" if bug else "```\nif not number % 2:\n```"
    if "total +=" in line:
        return "I cannot do that." if bug else "```\n            step = 1\n            total += step\n```"
    if "return" in line:
        return "" if bug else "```\n    return total\n```"
    return "```\ndef (:\n```"


def test_a_model_as_teacher_from_request_to_labels(sandbox: Sandbox, tmp_path: Path) -> None:
    task = count_even()
    with fake_server(rewriting) as state:
        summary = run_mutation([task], [teacher(state)], sandbox, tmp_path, settings=Settings(generated=5))
    assert len(state.requests) == 2 * 6
    first = state.requests[0]
    assert first["path"] == "/v1/chat/completions"
    assert first["model"] == "teacher-1"
    assert "Write count_even." in first["messages"][0]["content"]
    programs = {(p.family, p.mutated_line): p for p in load_programs(tmp_path / "programs.jsonl")}
    assert programs["bug", 2].verdict == "fail"
    assert programs["bug", 2].lines[1] == "    total = 1"
    assert programs["bug", 4].lines[3] == "        if number % 2 == 1:"
    assert programs["refactor", 2].verdict == "pass"
    several = programs["refactor", 5]
    assert several.lines[4:6] == ("            step = 1", "            total += step")
    assert not several.in_place
    assert {p.teacher for p in programs.values()} == {"reference", "teacher-1"}
    assert summary["by_teacher"][0]["teacher"] == "teacher-1"
    assert summary["candidates"] == 2 * 6
    assert summary["outcomes"]["unusable"] == 6  # lines 1 and 3 twice, a refusal, an empty reply
    assert summary["outcomes"]["duplicate"] == 1  # the line as it was
    assert "unusable" in render(summary)


def test_prompts_hold_the_program_once_whatever_is_in_it(tmp_path: Path) -> None:
    code = "def f(n):\n    return '{text} {line}'\n"
    text = filled("{line}|{text}|{code}|{other}", count_even(), Program(code), 2)
    assert text == "2|    return '{text} {line}'|1: def f(n):\n2:     return '{text} {line}'|{other}"
    path = tmp_path / "prompt.txt"
    path.write_text("Change it: {code}")
    with pytest.raises(UserError, match=r"lacks \{line\}"):
        read_prompt(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_prompt(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ("```python\n    total = 5\n```", "    total = 5"),
        ("total = 5", "    total = 5"),
        ("2: total = 5", "    total = 5"),
        ("```\n\t\ttotal = 5\n```", "    total = 5"),
        ("", None),
        ("```\n```", None),
        ("The line is wrong because", None),
        ("x" * 5000, None),
        ("total = (", None),
    ],
)
def test_replies_become_the_line_or_nothing(reply: str, line: str | None) -> None:
    code = with_line(Program(COUNT), 2, reply)
    assert (code is None) == (line is None)
    if code is not None:
        assert code == COUNT.replace("    total = 0", str(line))


def test_crlf_stays() -> None:
    code = COUNT.replace("\n", "\r\n")
    assert with_line(Program(code), 2, "total = 5") == code.replace("total = 0", "total = 5")


def test_busy_servers_are_asked_again_and_the_wait_they_ask_for_is_kept() -> None:
    pauses: list[float] = []

    def reply(request: dict[str, Any], number: int) -> tuple[int, str] | str:
        return [(503, "busy"), (429, "slow down"), "here"][number]  # type: ignore[return-value]

    with fake_server(reply) as state:
        assert server(state, api_key="secret").ask("hello", seed=7, sleep=pauses.append) == "here"
    assert 0.005 <= pauses[0] <= 0.01
    assert pauses[1] == 0.125
    assert state.headers[0]["Authorization"] == "Bearer secret"
    assert state.requests[0]["seed"] == 7
    assert state.requests[0]["messages"] == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("reply", "tries", "asked", "words"),
    [
        ((401, "bad key"), 3, 1, "HTTP 401"),
        ((500, "broken"), 3, 3, "HTTP 500"),
        (None, 2, 2, "does not answer"),
    ],
)
def test_servers_that_refuse_break_or_sleep(reply: Any, tries: int, asked: int, words: str) -> None:
    with fake_server(lambda request, number: reply) as state:
        chat = server(state, tries=tries, timeout=0.2)
        with pytest.raises(UserError, match=words) as caught:
            chat.ask("hello", sleep=lambda seconds: None)
    assert state.url in str(caught.value)
    assert len(state.requests) == asked


def test_a_server_that_is_down_is_named() -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9"):
        ChatServer(url="http://127.0.0.1:9/v1", model="m", tries=2).ask("hello", sleep=lambda seconds: None)


@pytest.mark.parametrize(
    "body", ["no json", "{}", json.dumps({"choices": []}), json.dumps({"choices": [{"message": {"content": None}}]})]
)
def test_a_server_that_never_gives_a_text_is_named(body: str) -> None:
    with fake_server(lambda request, number: (200, body)) as state:
        with pytest.raises(UnusableReplyError):
            server(state).ask("hello")
        with pytest.raises(UserError, match=r"none of 12 replies for toy/count can be used, the last: the reply"):
            teacher(state).propose(count_even(), Program(COUNT), seed=0)


def test_replies_that_were_cut_off_are_not_used() -> None:
    def cut(request: dict[str, Any], number: int) -> dict[str, Any]:
        whole = "Line 2 is" in request["messages"][0]["content"]
        return {"choices": [{"message": {"content": "x = 1"}, "finish_reason": "stop" if whole else "length"}]}

    with fake_server(cut) as state:
        found = teacher(state).propose(count_even(), Program(COUNT), seed=0)
    assert [candidate.line for candidate in found if candidate.code] == [2, 2]
