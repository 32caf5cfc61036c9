"""Files in, the page's data and one safe HTML file out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from inspect_world import ADDED, BAD, GOOD, HELD, HOSTILE, PROBLEMS, SEEN, World, labels_of, write_labels, write_search
from typer.main import get_command

from psgpo.cli.main import app, main
from psgpo.errors import UserError
from psgpo.execution import SandboxError
from psgpo.inspect_page.assemble import bash_quoted, page_data
from psgpo.inspect_page.build import build_page
from psgpo.inspect_page.completions import run_completions
from psgpo.inspect_page.evidence import stored_evidence
from psgpo.inspect_page.exact import with_exact
from psgpo.inspect_page.model import Page, ResponseView
from psgpo.inspect_page.page import render_page, script_hash
from psgpo.inspect_page.source import read_source
from psgpo.jsonl import write_json, write_jsonl
from psgpo.records import AssertTests, Status, StdioCase, StdioTests, Tests

ROOT = Path(__file__).parents[2]


def stored_page(path: Path, **changes: Any) -> Page:
    source = read_source(path, **({"limit": 100} | changes))
    return page_data(source, stored_evidence(source), "psgpo inspect")


def named(page: Page, problem: str, checkpoint: str, index: int = 0) -> ResponseView:
    found = [
        one
        for one in page.responses
        if (page.problems[one.problem].id, one.checkpoint, one.index) == (problem, checkpoint, index)
    ]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def page(small_run: Path) -> Page:
    return stored_page(small_run)


def test_a_run_is_shown_as_its_files_have_it(page: Page) -> None:
    bad = named(page, HELD, "baseline/step-2")
    assert [line.text for line in bad.lines] == BAD.splitlines()
    assert [line.neutral for line in bad.lines] == [False, True, False, False]
    assert bad.label is not None
    assert bad.label.labels == (1.0, 0.0, -1.0, -1.0)
    assert [(probe.line, probe.drawn, probe.passed) for probe in bad.label.probes] == [(3, 4, 0), (1, 2, 1)]
    assert bad.exact is not None
    assert bad.exact.last_on_track == 2
    assert bad.verdict.outcomes == ("WRONG_ANSWER", "WRONG_ANSWER")
    tests = page.problems[bad.problem].tests
    assert [(test.call, test.expected) for test in tests] == [("solve(1)", "2"), ("solve(-5)", "-4")]
    assert page.problems[bad.problem].reference == GOOD


def test_without_models_only_written_scores_are_shown_and_the_rest_has_a_reason(page: Page) -> None:
    assert [view.name for view in page.prms] == ["sign"]
    scored = [one for one in page.responses if one.scores]
    assert scored == [named(page, HELD, "baseline/step-2")]
    assert page.to_json()["responses"][0]["scores"] in ({}, {"sign": [0.9, None, -0.8, -1]})
    assert all(one.tokens is None and not one.credit for one in page.responses)
    assert {"prm sign", "tokens", "credit", "completions"} <= set(page.missing)


def test_held_out_problems_come_first_and_say_so(page: Page) -> None:
    assert [(problem.id, problem.held_out) for problem in page.problems] == [(HELD, True), (SEEN, False)]


def test_the_limit_takes_whole_problems(small_run: Path) -> None:
    assert [one.problem for one in stored_page(small_run, limit=3).responses] == [0, 0, 0]
    assert len(stored_page(small_run, limit=2).responses) == 2
    facts = stored_page(small_run, limit=3).facts
    assert "3 of 4 labelled responses" in facts
    assert [one.id for one in stored_page(small_run, problem_ids=[SEEN]).problems] == [SEEN]


def test_evaluation_samples_are_shown_beside_labels_and_their_missing_labels_have_a_command(small_run: Path) -> None:
    page = stored_page(small_run, policies=["baseline", "dense"])
    samples = [one for one in page.responses if page.problems[one.problem].id == "t/1"]
    drawn = [(0, False), (1, False), (0, True)]
    assert [(one.checkpoint, one.index, one.greedy) for one in samples] == [
        (policy, *one) for policy in ("baseline", "dense") for one in drawn
    ]
    assert all(one.label is None and one.exact is None for one in samples)
    command = page.missing["labels dense"].command
    assert f"--model hf:{small_run}/rl/dense/model" in command
    assert "--prompt $'# {prompt}\\n'" in command


def test_samples_have_exact_labels_by_the_oracle_itself(small_run: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in small_run.rglob("*")}
    source = with_exact(read_source(small_run, policies=["dense"], limit=100))
    page = page_data(source, stored_evidence(source), "psgpo inspect")
    exact = [one.exact for one in page.responses if one.checkpoint == "dense"]
    assert [(one.last_on_track, one.progress) for one in exact if one is not None] == [
        (2, (0.0,) * 4),  # BAD: the header, and the comment after it
        (1, (0.0,) * 2),
        (3, (0.0, 0.0, 1.0)),  # passes, but `x` never is what the operation makes of it
    ]
    # Those that the run has written stay as they are, and so does the run.
    kept = named(page, HELD, "baseline/step-2").exact
    assert kept is not None
    assert kept.progress == (0.5,) * 4
    assert {path: path.stat().st_mtime_ns for path in small_run.rglob("*")} == files


def test_without_a_sandbox_the_page_says_why_there_are_no_exact_labels(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise UserError("this machine confines nothing")

    class Broken(contextlib.nullcontext):  # type: ignore[type-arg]
        def __enter__(self) -> None:
            raise SandboxError("the self-test failed")

    monkeypatch.setattr("psgpo.inspect_page.exact.Sandbox", lambda **_: Broken())
    source = with_exact(read_source(small_run, policies=["dense"], limit=100))
    assert page_data(source, stored_evidence(source), "psgpo inspect").missing["exact"].reason == "the self-test failed"
    monkeypatch.setattr("psgpo.inspect_page.exact.Sandbox", refuse)
    source = with_exact(read_source(small_run, policies=["dense"], limit=100))
    page = page_data(source, stored_evidence(source), "psgpo inspect")
    assert page.missing["exact"].reason == "this machine confines nothing"
    assert [one.exact for one in page.responses if one.checkpoint == "dense"] == [None] * 3
    assert "without --stored" in stored_page(small_run, policies=["dense"]).missing["exact"].reason


def test_a_prompt_survives_the_shell() -> None:
    template = "it's \\ {prompt}\nend"
    shown = subprocess.run(["bash", "-c", f"printf %s {bash_quoted(template)}"], capture_output=True, text=True)
    assert shown.stdout == template


def test_equal_probes_share_the_completion_that_was_drawn_for_one_of_them(world: World, small_run: Path) -> None:
    proofs = run_completions(small_run / "labels", labels_of(world), shards=2)
    added = tuple(world.added_ids(ADDED))
    assert proofs[HELD, "baseline/step-2", 0] == {1: added}
    assert proofs[HELD, "baseline/step-2", 1] == {1: added}
    assert proofs[SEEN, "baseline/step-1", 0] == {}


def test_another_checkpoint_does_not_share_unless_one_completes_for_all(world: World, tmp_path: Path) -> None:
    first, second, *_ = labels_of(world)
    other = dataclasses.replace(second, response=world.response(HELD, BAD, "baseline/step-9", 1))
    write_labels(tmp_path, world, "shards/1.journal.jsonl")
    write_jsonl(tmp_path / "responses.jsonl", (label.response.to_json() for label in (first, other)))
    place = (HELD, "baseline/step-9", 1)
    assert run_completions(tmp_path, [first, other], shards=1)[place] == {}
    journal = tmp_path / "shards" / "1.journal.jsonl"
    journal.write_text(journal.read_text(encoding="utf-8").replace('"own"', '"last"'), encoding="utf-8")
    assert set(run_completions(tmp_path, [first, other], shards=1)[place]) == {1}


def test_a_journal_of_other_responses_is_refused(world: World, tmp_path: Path) -> None:
    write_labels(tmp_path, world, "shards/1.journal.jsonl")
    journal = tmp_path / "shards" / "1.journal.jsonl"
    journal.write_text(journal.read_text(encoding="utf-8").replace('"response":0', '"response":7'), encoding="utf-8")
    with pytest.raises(UserError, match="other responses"):
        run_completions(tmp_path, labels_of(world), shards=1)


@pytest.fixture
def labels_folder(world: World, tmp_path: Path) -> Path:
    """As `psgpo labels make` leaves it."""
    write_labels(tmp_path, world, "units/1.jsonl")
    write_jsonl(tmp_path / "problems.jsonl", (PROBLEMS[name].to_json() for name in (HELD, SEEN)))
    models = {"baseline/step-1": {}, "baseline/step-2": {}}
    write_json(tmp_path / "job.json", {"models": models, "labels": {"strategy": "binary-search"}})
    return tmp_path


def test_labels_without_a_run_have_probes_completions_and_tests(labels_folder: Path) -> None:
    for path in (labels_folder, labels_folder / "labels.jsonl"):
        source = read_source(path, limit=100)
        completions = {entry.response.index: entry.completions for entry in source.entries if entry.completions}
        assert set(completions) == {0, 1}
        page = stored_page(path)
        assert len(page.responses) == 4
        assert page.prms == ()
        assert all(problem.tests and problem.held_out is None for problem in page.problems)


def test_a_file_of_samples_is_shown_without_labels(small_run: Path, world: World, tmp_path: Path) -> None:
    write_search(tmp_path / "beam.jsonl", world)
    page = stored_page(tmp_path / "beam.jsonl", problems=small_run / "problems" / "label.jsonl")
    shown = [(page.problems[one.problem].id, one.checkpoint, one.index, one.label) for one in page.responses]
    assert shown == [(HELD, "beam", 0, None), (HELD, "beam", 1, None)]
    assert page.facts[1:] == ("2 samples",)
    assert page.problems[0].tests
    assert "psgpo labels make" in page.missing["labels"].reason
    samples = small_run / "evaluation" / "dense" / "samples.jsonl"
    with pytest.raises(UserError, match="give them with --problems"):
        read_source(samples, limit=9)
    page = stored_page(samples, problems=small_run / "problems" / "test.jsonl")
    assert [(one.index, one.greedy) for one in page.responses] == [(0, False), (1, False), (0, True)]


def test_a_file_of_something_else_is_refused_with_its_line(labels_folder: Path) -> None:
    with pytest.raises(UserError, match=r"problems\.jsonl:1: neither a label \(labels\).*its keys are: id, prompt"):
        read_source(labels_folder / "problems.jsonl", limit=9)


def test_some_of_the_labels_keep_their_completions(labels_folder: Path, world: World) -> None:
    shared = labels_of(world)[1]
    write_jsonl(labels_folder / "labels.jsonl", [shared.to_json()])
    (entry,) = read_source(labels_folder, limit=100).entries
    assert entry.completions == {}  # drawn for a response that is no longer there
    write_jsonl(labels_folder / "labels.jsonl", [label.to_json() for label in labels_of(world)[:1]])
    (entry,) = read_source(labels_folder, limit=100).entries
    assert set(entry.completions) == {1}


def test_a_label_file_alone_is_told_its_problems(labels_folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "labels.jsonl"
    alone.parent.mkdir()
    shutil.move(labels_folder / "labels.jsonl", alone)
    problems = shutil.move(labels_folder / "problems.jsonl", tmp_path / "tasks.jsonl")
    with pytest.raises(UserError, match="give them with --problems"):
        read_source(alone, limit=9)
    page = stored_page(alone, problems=Path(problems))
    assert all(problem.tests for problem in page.problems)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policies": ["nobody"]}, "--policy nobody: the run .* has no such policy; it has: sft, baseline, dense"),
        ({"policies": ["both"]}, "not evaluated yet; run: psgpo run .*/recipe.json .*--until evaluate-both"),
        ({"problem_ids": ["p/none"]}, "no labelled response of these problems"),
        ({"problem_ids": [HELD, "p/none"]}, "--problem p/none: .* has no response to this problem"),
        ({"problems": Path("mine.jsonl")}, "--problems mine.jsonl: .* is a run, which has its own problems"),
        ({"stored": True, "prms": ["none"]}, "--prm none: neither a PRM of the run .*sign, progress, late, judge"),
        ({"stored": True, "arms": ["dense"]}, "--stored opens no model"),
    ],
)
def test_what_is_not_there_is_refused_by_name(
    small_run: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_page(small_run, tmp_path / "page.html", **arguments)
    assert not (tmp_path / "page.html").exists()


def test_a_folder_that_is_neither_run_nor_labels_is_refused(tmp_path: Path, labels_folder: Path) -> None:
    with pytest.raises(UserError, match="neither a run directory"):
        read_source(tmp_path / "nothing", limit=9)
    with pytest.raises(UserError, match="not a run directory, so it has no evaluation samples"):
        read_source(labels_folder, policies=["sft"], limit=9)


def test_programs_cannot_break_out_of_the_data(page: Page) -> None:
    text = render_page(page)
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, flags=re.DOTALL)
    assert len(scripts) == 2
    assert HOSTILE not in text
    assert "<" not in scripts[0]
    assert json.loads(scripts[0]) == page.to_json()
    assert "<!--" not in text
    assert f"'sha256-{script_hash(scripts[1][1:-1])}'" in text


def test_text_around_a_fenced_program_is_kept_apart(labels_folder: Path, world: World) -> None:
    text = f"Here it is:\n```python\n{BAD}```\nDone <b>.\n"
    label = world.label(world.response(HELD, text, "baseline/step-1", 5), 1)
    write_jsonl(labels_folder / "labels.jsonl", [label.to_json()])
    (one,) = stored_page(labels_folder).responses
    assert [line.text for line in one.lines] == BAD.splitlines()
    assert (one.before, one.after) == ("Here it is:\n```python\n", "```\nDone <b>.\n")
    assert [line.end for line in one.lines] == list(label.line_ends)


@pytest.mark.parametrize(
    ("tests", "shown"),
    [
        (AssertTests(entry_point="f", checks=("assert f(1) == 2",)), ("assert f(1) == 2", "")),
        (StdioTests(cases=(StdioCase(stdin="1\n2\n", expected="3\n"),)), ("1\n2\n", "3\n")),
    ],
)
def test_tests_of_every_kind(labels_folder: Path, tests: Tests, shown: tuple[str, str]) -> None:
    problems = [dataclasses.replace(PROBLEMS[name], tests=tests) for name in (HELD, SEEN)]
    write_jsonl(labels_folder / "problems.jsonl", (one.to_json() for one in problems))
    (test,) = stored_page(labels_folder).problems[0].tests
    assert (test.call, test.expected) == shown


def test_long_test_data_is_cut(labels_folder: Path) -> None:
    tests = StdioTests(cases=(StdioCase(stdin="9" * 5000, expected="0"),))
    problems = [dataclasses.replace(PROBLEMS[name], tests=tests) for name in (HELD, SEEN)]
    write_jsonl(labels_folder / "problems.jsonl", (one.to_json() for one in problems))
    (test,) = stored_page(labels_folder).problems[0].tests
    assert test.call == "9" * 500 + "… (5000 characters)"


def test_of_a_thousand_tests_the_first_are_shown(labels_folder: Path, world: World) -> None:
    tests = StdioTests(cases=tuple(StdioCase(stdin=str(n), expected="0") for n in range(1000)))
    write_jsonl(labels_folder / "problems.jsonl", [dataclasses.replace(PROBLEMS[HELD], tests=tests).to_json()])
    response = world.response(HELD, BAD, "baseline/step-1")
    outcomes = (Status.PASSED,) * 700 + (Status.TIMEOUT,) * 300
    verdict = dataclasses.replace(response.verdict, outcomes=outcomes, first_failing=700, tests_total=1000)
    label = world.label(dataclasses.replace(response, verdict=verdict), 2)
    write_jsonl(labels_folder / "labels.jsonl", [label.to_json()])
    (labels_folder / "job.json").unlink()
    page = stored_page(labels_folder)
    assert len(page.problems[0].tests) == len(page.responses[0].verdict.outcomes) == 100
    assert page.responses[0].verdict.first_failing == 700


def test_a_given_up_search_and_soft_labels_say_what_they_are(labels_folder: Path, world: World) -> None:
    label = labels_of(world)[0]
    soft = dataclasses.replace(label, strategy="soft", labels=(0.5, 0.0, 0.0, -1.0))
    given_up = dataclasses.replace(label, unlabelled="no reply", labels=(0.0,) * 4, guessed=True)
    for changed, real in ((soft, True), (given_up, False)):
        write_jsonl(labels_folder / "labels.jsonl", [changed.to_json()])
        (one,) = stored_page(labels_folder).responses
        assert one.label is not None
        assert (one.label.real_valued, one.label.unlabelled, one.label.guessed, one.label.labels) == (
            real,
            changed.unlabelled,
            changed.guessed,
            changed.labels,
        )


def test_nothing_is_fetched_and_no_text_is_set_as_markup(page: Page) -> None:
    text = render_page(page)
    assert not re.search(r"https?://|@import|url\(|src=|innerHTML|insertAdjacent|document\.write", text)
    assert "default-src 'none'" in text


def test_a_direction_override_is_spelt_out(page: Page) -> None:
    worse = named(page, SEEN, "baseline/step-1")
    assert "\u202e" not in worse.lines[1].text
    assert "\\u202e" in worse.lines[1].text
    assert "\\u202e" in worse.verdict.detail


def test_the_command_writes_the_page_and_says_what_is_on_it(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "page.html"
    monkeypatch.setattr("sys.argv", ["psgpo", "inspect", str(small_run), "--stored", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert f"4 responses to 2 problems, PRMs: sign\n{out}\n" in capsys.readouterr().out
    assert "--stored --out" in out.read_text(encoding="utf-8")


def test_the_document_names_every_option_and_every_key() -> None:
    document = (ROOT / "docs" / "inspect.md").read_text(encoding="utf-8")
    command = get_command(app).commands["inspect"]  # type: ignore[attr-defined]
    options = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    table = document[document.index("## Options") : document.index("## Untrusted programs")]
    assert set(re.findall(r"`(--[a-z]+)`", table)) == options - {"--out"}
    script = (files("psgpo.inspect_page") / "templates" / "inspect.js").read_text(encoding="utf-8")
    keys = {key for text in re.findall(r'\["(\S|\S, \S)", "[^"]+", \(?\w*\)?', script) for key in text.split(", ")}
    assert len(keys) == 12
    section = document[document.index("## Keys") : document.index("Colour is never")]
    assert set(re.findall(r"`(\S)`", section)) == keys
