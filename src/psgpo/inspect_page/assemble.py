"""Files and evidence together become the page's data. Pure.

All text that a model or a problem's author wrote goes through `visible`: a carriage return or a direction override
must not make a line read as something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psgpo.inspect_page.evidence import Evidence
from psgpo.inspect_page.model import (
    ExactView,
    LabelView,
    LineView,
    Missing,
    Page,
    ProbeView,
    ProblemView,
    ResponseView,
    TestView,
    VerdictView,
)
from psgpo.inspect_page.source import Entry, Source
from psgpo.lines import code_lines
from psgpo.records import AssertTests, CallTests, Tests, Verdict
from psgpo.report.commands import run_command
from psgpo.report.programs import visible

LONGEST, MOST_TESTS = 500, 100
"""Characters of a test's input or output, and tests of a problem, that are shown."""


def page_data(source: Source, evidence: Evidence, command: str) -> Page:
    """Everything on the page; `command` is what made it."""
    ids = list(dict.fromkeys(entry.response.problem_id for entry in source.entries))
    return Page(
        title=source.title,
        facts=_facts(source),
        command=command,
        problems=tuple(_problem(source, name) for name in ids),
        responses=tuple(
            _response(entry, ids.index(entry.response.problem_id), evidence, number)
            for number, entry in enumerate(source.entries)
        ),
        prms=tuple(evidence.prms),
        arms=tuple(evidence.arms),
        missing={
            kind: Missing(reason=visible_text(one.reason), command=one.command)
            for kind, one in (_missing(source) | dict(evidence.missing)).items()
        },
    )


def _facts(source: Source) -> tuple[str, ...]:
    facts = [str(source.path)]
    samples = "samples" if source.run is None else "evaluation samples"
    if source.run is not None:
        facts.append(f"seed {source.run.recipe.seed}")
    for what, (shown, total) in (("labelled responses", source.labelled), (samples, source.sampled)):
        if total:
            facts.append(f"{shown} {what}" if shown == total else f"{shown} of {total} {what}")
    return tuple(facts)


def _missing(source: Source) -> dict[str, Missing]:
    """Why something may not be there, by kind (`Page.missing`)."""
    found = {
        "tests": Missing(reason="the problem is in none of the problem files; give its file with --problems"),
        "completions": Missing(reason="its journal is not beside the labels, or keeps none of this probe"),
    }
    run = source.run
    if run is None:
        found["exact"] = Missing(reason="only runs of the embedded benchmark keep exact labels")
        found["prm"] = Missing(reason="none was given; choose a folder with --prm")
        found["labels"] = Missing(reason="the file holds samples; psgpo labels make labels responses of a model")
        return found
    reason = source.no_exact if source.embedded else "only the embedded benchmark has an oracle"
    found["exact"] = Missing(reason=reason)
    found["prm"] = Missing(reason="the run has trained none", command=run_command(run))
    samples = {entry.response.checkpoint for entry in source.entries if entry.label is None}
    of = run.recipe.labels.of
    whose = "the baseline's checkpoints" if of is None else f"the checkpoints in {of}"
    for policy in sorted(samples):
        folder = run.path / "sft" / "model" if policy == "sft" else run.path / "rl" / policy / "model"
        found[f"labels {policy}"] = Missing(
            reason=f"a run labels responses of {whose} only; responses of this policy can be labelled apart",
            command=f"psgpo labels make --model hf:{folder} --problems {run.path / 'problems' / 'test.jsonl'} "
            f"--prompt {bash_quoted(run.recipe.prompt_template)} --out FOLDER",
        )
    return found


def bash_quoted(text: str) -> str:
    """In quotes that keep newlines readable.

    >>> print(bash_quoted("# it's {prompt}\\n"))
    $'# it\\'s {prompt}\\n'
    """
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"$'{escaped}'"


def _problem(source: Source, name: str) -> ProblemView:
    problem = source.problems.get(name)
    known: dict[str, Any] = {"prompt": "", "difficulty": None, "split": "", "starter_code": "", "reference": ""}
    if problem is not None:
        known = {
            "prompt": visible_text(problem.prompt),
            "difficulty": problem.difficulty,
            "split": problem.split,
            "starter_code": visible_text(problem.starter_code),
            "reference": visible_text(problem.reference_solution or ""),
        }
    tests = () if problem is None else _tests(problem.tests)
    return ProblemView(id=visible(name), tests=tests, held_out=source.held_out(name), **known)


def _tests(tests: Tests) -> tuple[TestView, ...]:
    """The first ones."""
    if isinstance(tests, CallTests):
        calls = tests.calls[:MOST_TESTS]
        texts = [(f"{tests.function}({', '.join(map(repr, call.args))})", repr(call.expected)) for call in calls]
    elif isinstance(tests, AssertTests):
        texts = [(check, "") for check in tests.checks[:MOST_TESTS]]
    else:
        texts = [(case.stdin, case.expected) for case in tests.cases[:MOST_TESTS]]
    return tuple(TestView(call=_cut(call), expected=_cut(expected)) for call, expected in texts)


def _response(entry: Entry, problem: int, evidence: Evidence, number: int) -> ResponseView:
    response = entry.response
    lines = code_lines(response.text)
    ends = evidence.line_ends[number]
    start, end = (lines[0].start, lines[-1].end) if lines else (len(response.text), len(response.text))
    tokens = evidence.tokens[number]
    exact = entry.exact
    return ResponseView(
        problem=problem,
        checkpoint=visible(response.checkpoint),
        index=response.index,
        greedy=entry.greedy,
        finished=response.finished,
        before=visible_text(response.text[:start]),
        after=visible_text(response.text[end:]),
        lines=tuple(
            LineView(text=visible(line.text), neutral=line.neutral, end=None if ends is None else ends[m])
            for m, line in enumerate(lines)
        ),
        verdict=_verdict(response.verdict),
        label=_label(entry, evidence, number),
        exact=None if exact is None else ExactView(last_on_track=exact.last_on_track, progress=exact.progress),
        scores={name: row for name, row in evidence.scores[number].items() if len(row) == len(lines)},
        tokens=None if tokens is None else tuple(map(visible_text, tokens)),
        credit=evidence.credit[number],
    )


def _verdict(verdict: Verdict) -> VerdictView:
    return VerdictView(
        status=verdict.status.value,
        passed=verdict.tests_passed,
        total=verdict.tests_total,
        outcomes=tuple(outcome.value for outcome in verdict.outcomes[:MOST_TESTS]),
        first_failing=verdict.first_failing,
        detail=visible_text(verdict.detail),
        mode=verdict.mode,
        cpu_seconds=verdict.cpu_seconds,
    )


def _label(entry: Entry, evidence: Evidence, number: int) -> LabelView | None:
    label = entry.label
    if label is None:
        return None
    completions = evidence.completions[number]
    return LabelView(
        labels=label.labels,
        last_solvable=label.last_solvable,
        strategy=label.strategy,
        real_valued=label.real_valued,
        guessed=label.guessed,
        unlabelled=visible_text(label.unlabelled),
        completions=label.completions,
        tokens=label.tokens,
        executions=label.executions,
        probes=tuple(
            ProbeView(
                line=probe.line,
                drawn=probe.drawn,
                passed=probe.passed,
                completion=_both_visible(completions.get(probe.line)),
            )
            for probe in label.probes
        ),
    )


def _both_visible(texts: Sequence[str] | None) -> tuple[str, str] | None:
    return None if texts is None else (visible_text(texts[0]), visible_text(texts[1]))


def visible_text(text: str) -> str:
    """`visible`, line by line."""
    return "\n".join(map(visible, text.split("\n")))


def _cut(text: str) -> str:
    shown = visible_text(text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}… ({len(text)} characters)"
