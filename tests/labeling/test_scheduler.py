"""Many searches on shared batches: answers, draws, sharing, alignment and costs, in a world labelled by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from labeling_world import (
    EOS,
    FakeGrader,
    FakeSampler,
    encode,
    label,
    problem,
    random_responses,
    response,
    words_of,
)

from psgpo.config import SamplingSettings
from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.labeling import LabelUsage, cost_summary, merge_usage, shard_responses, write_labels
from psgpo.labeling.journal import MEASURES
from psgpo.labeling.search import binary_search, last_solvable_line
from psgpo.lines import code_lines
from psgpo.records import Completion, LineLabels, Probe, Problem, Response, Status
from psgpo.sampling import SamplerStats

FIVE = problem("five", 5)
PERFECT = {"one": FakeSampler(1.0)}


def exact_last(of: Problem, text: str) -> int:
    """m* for a policy that never errs: the longest prefix whose words are the problem's."""
    words, neutral = words_of(text), [line.neutral for line in code_lines(text)]
    wanted = list(of.tests.calls[0].args)
    return last_solvable_line(binary_search(len(words), lambda m: words[:m] == wanted[:m]), neutral)


def test_the_papers_figure_with_a_real_search(tmp_path: Path) -> None:
    sampler = FakeSampler(1.0)
    text = "def\napple\nbirch\nwrong\nelder\n"
    grader = FakeGrader()
    (found,) = label([FIVE], [response(FIVE, text)], tmp_path / "j", {"one": sampler}, k=4, sandbox=grader).labels
    assert found.labels == (1, 1, 1, -1, -1)
    assert found.last_solvable == 3
    # m = 3 passes in its first batch of two, m = 4 never in four.
    assert found.probes == (Probe(line=3, drawn=2, passed=2), Probe(line=4, drawn=4, passed=0))
    assert found.completions == 6 == len(sampler.rows)
    prompt = encode("def,apple,birch,cedar,daisy\n")
    assert {row[0] for row in sampler.rows[:2]} == {prompt + encode("def\napple\nbirch\n")}
    assert {row[0] for row in sampler.rows[2:]} == {prompt + encode("def\napple\nbirch\nwrong\n")}
    assert len({seed for _, seed in sampler.rows}) == 6
    assert all(program.startswith("def\napple\nbirch\n") for program in grader.programs)


@pytest.mark.parametrize("strategy", ["binary-search", "linear-scan"])
def test_a_perfect_completer_finds_the_exact_line_whatever_the_program(tmp_path: Path, strategy: str) -> None:
    problems, responses = random_responses(120, seed=1)
    by_id = {p.id: p for p in problems}
    labels = label(problems, responses, tmp_path / "j", PERFECT, strategy=strategy, k=2).labels
    assert [found.response for found in labels] == responses
    assert {found.response.verdict.passed for found in labels} == {True, False}
    for found in labels:
        lines = code_lines(found.response.text)
        expected = exact_last(by_id[found.response.problem_id], found.response.text)
        assert found.last_solvable == expected
        assert found.labels == tuple(
            0 if line.neutral else (1 if m <= expected else -1) for m, line in enumerate(lines, start=1)
        )
        ends = [line.end - 1 for line in lines]
        if lines and not found.response.text.endswith("\n"):
            ends[-1] = len(found.response.token_ids) - 1  # no newline: the last token, here the end of sequence
        assert list(found.line_ends) == ends


def test_a_passing_response_is_positive_without_search(tmp_path: Path) -> None:
    sampler = FakeSampler(0.0)
    text = "def\n# why\napple\nbirch\ncedar\ndaisy"
    (found,) = label([FIVE], [response(FIVE, text)], tmp_path / "j", {"one": sampler}).labels
    assert found.labels == (1, 0, 1, 1, 1, 1)
    assert (found.last_solvable, found.completions, found.executions, found.probes) == (6, 0, 1, ())
    assert not sampler.rows


def test_neutral_lines_are_never_asked_about(tmp_path: Path) -> None:
    text = "# a\ndef\n\n# b\napple\n# c\nwrong\n# d\n"
    (found,) = label([FIVE], [response(FIVE, text)], tmp_path / "j", PERFECT, strategy="linear-scan").labels
    assert [probe.line for probe in found.probes] == [2, 5, 7]
    assert found.last_solvable == 6
    assert found.labels == (0, 1, 0, 0, 1, 0, -1, 0)


@pytest.mark.parametrize("draw", [1, 3, 5, 50])
def test_at_most_k_completions_and_none_after_a_pass(tmp_path: Path, draw: int) -> None:
    problems, responses = random_responses(60, seed=2)
    samplers = {"one": FakeSampler(0.6)}
    labelling = label(problems, responses, tmp_path / "j", samplers, k=7, draw=draw)
    sizes = list(samplers["one"].batches)
    probes = [probe for found in labelling.labels for probe in found.probes]
    assert len(sizes) == labelling.usage.rounds
    assert max(probe.drawn for probe in probes) == 7
    for probe in probes:
        if probe.passed:  # every batch before the last had none
            assert probe.passed <= min(draw, 7)
            assert probe.drawn % draw == 0 or probe.drawn == 7
        else:
            assert probe.drawn == 7
    assert (labelling.usage.completions < labelling.usage.full_completions) == (draw < 7)


def test_drawing_and_scheduling_change_no_label(tmp_path: Path) -> None:
    problems, responses = random_responses(80, seed=5, checkpoints=("one", "two"))
    samplers = {"one": FakeSampler(0.5), "two": FakeSampler(0.7)}
    found = {}
    for draw, in_flight in [(1, 1), (2, 5), (6, 1000), (2, 1000)]:
        run = label(problems, responses, tmp_path / f"{draw}-{in_flight}", samplers, draw=draw, in_flight=in_flight)
        found[draw, in_flight] = run.labels
    assert found[2, 5] == found[2, 1000]
    first = [(label_.last_solvable, label_.labels) for label_ in found[1, 1]]
    for labels in found.values():
        assert [(label_.last_solvable, label_.labels) for label_ in labels] == first
    scans = [
        label(problems, responses, tmp_path / f"scan-{draw}", samplers, draw=draw, strategy="linear-scan").labels
        for draw in (1, 6)
    ]
    asked = [[[probe.line for probe in found_.probes] for found_ in labels] for labels in scans]
    assert asked[0] == asked[1], "a program that passed later in the same batch must not prove more"
    other = label(problems, responses, tmp_path / "seed", samplers, seed=8).labels
    assert other != found[2, 5]


def test_the_order_of_the_responses_changes_no_answer(tmp_path: Path) -> None:
    problems, responses = random_responses(60, seed=6)
    samplers = {"one": FakeSampler(0.5)}
    forward = label(problems, responses, tmp_path / "a", samplers)
    backward = label(problems, responses[::-1], tmp_path / "b", samplers)
    assert [f.last_solvable for f in forward.labels] == [b.last_solvable for b in backward.labels[::-1]]
    assert forward.usage.completions == backward.usage.completions


def test_equal_prefixes_share_their_completions_and_the_first_pays(tmp_path: Path) -> None:
    sampler = FakeSampler(0.0)
    texts = ["def\nwrong\n", "def\nwrong\n# more\n", "def\nwrong"]
    responses = [response(FIVE, text, index=index) for index, text in enumerate(texts)]
    labelling = label([FIVE], responses, tmp_path / "j", {"one": sampler})
    assert [found.completions for found in labelling.labels] == [6, 0, 0]
    assert [found.executions > 1 for found in labelling.labels] == [True, False, False]
    assert {found.probes for found in labelling.labels} == {(Probe(line=1, drawn=6, passed=0),)}
    assert labelling.usage.probes_shared == 2
    assert len(sampler.rows) == 6


def test_other_problems_and_other_completers_do_not_share(tmp_path: Path) -> None:
    twin = dataclasses.replace(FIVE, id="twin")
    text = "wrong\n"
    responses = [response(FIVE, text), response(twin, text), response(FIVE, text, checkpoint="two")]
    samplers = {"one": FakeSampler(0.0), "two": FakeSampler(0.0)}
    labelling = label([FIVE, twin], responses, tmp_path / "own", samplers)
    assert [found.completions for found in labelling.labels] == [6, 6, 6]
    assert (len(samplers["one"].rows), len(samplers["two"].rows)) == (12, 6)
    labelling = label([FIVE, twin], responses, tmp_path / "last", samplers, completer="last")
    assert [found.completions for found in labelling.labels] == [6, 6, 0]
    assert (len(samplers["one"].rows), len(samplers["two"].rows)) == (12, 18)


def test_a_mixture_takes_the_completers_in_turn(tmp_path: Path) -> None:
    samplers = {"one": FakeSampler(0.0), "two": FakeSampler(1.0)}
    text = "def\nwrong\n"
    for draw, rows in [(1, (1, 1)), (4, (2, 2))]:
        for sampler in samplers.values():
            sampler.batches.clear()
        (found,) = label(
            [FIVE], [response(FIVE, text)], tmp_path / f"{draw}", samplers, completer="mixture", draw=draw, k=4, seed=1
        ).labels
        first = found.probes[0]
        assert found.last_solvable == 1
        assert first.passed == rows[1]
        assert first.drawn == sum(rows)


def test_a_passing_sibling_proves_the_prefix_it_begins_with(tmp_path: Path) -> None:
    sampler = FakeSampler(0.0)
    good = response(FIVE, "def\napple\nbirch\ncedar\ndaisy\n", index=1, checkpoint="elsewhere")
    bad = response(FIVE, "def\napple\nbirch\nwrong\ndaisy\n")
    labelling = label([FIVE], [bad, good], tmp_path / "j", {"one": sampler}, completer="last")
    assert labelling.labels[0].last_solvable == 3
    assert [probe.line for probe in labelling.labels[0].probes] == [4]
    assert labelling.usage.probes_known == 1


def test_a_line_that_only_begins_like_a_proved_one_is_not_proved(tmp_path: Path) -> None:
    good = response(FIVE, "def\napple\nbirch\ncedar\ndaisy\n", index=1)
    bad = response(FIVE, "def\nappl\n")
    labels = label([FIVE], [bad, good], tmp_path / "j", {"one": FakeSampler(0.0)}, strategy="linear-scan").labels
    assert labels[0].labels == (1, -1)


def test_a_passing_completion_proves_later_lines_of_the_response_too(tmp_path: Path) -> None:
    sampler = FakeSampler(1.0)
    found = None
    for seed in range(40):  # some seed completes line 1 without a comment, as the response goes on
        sampler.batches.clear()
        bad = response(FIVE, "def\napple\nbirch\nwrong\ndaisy\n")
        run = label([FIVE], [bad], tmp_path / f"{seed}", {"one": sampler}, strategy="linear-scan", draw=1, seed=seed)
        found = run.labels[0]
        assert found.last_solvable == 3
        if [probe.line for probe in found.probes] == [1, 4, 5]:
            assert run.usage.probes_known == 2
            break
    else:
        pytest.fail(f"no completion repeated the response's own lines: {found}")


def test_the_last_line_is_asked_about_without_its_end_of_sequence(tmp_path: Path) -> None:
    for text in ("def\napple", "def\napple\n"):  # stopped too early; every line is right
        sampler = FakeSampler(1.0)
        (found,) = label([FIVE], [response(FIVE, text)], tmp_path / str(len(text)), {"one": sampler}).labels
        assert found.labels == (1, 1)
        assert all(EOS not in prefix for prefix, _ in sampler.rows)


def test_completions_get_the_tokens_that_the_prefix_left(tmp_path: Path) -> None:
    sampler = FakeSampler(1.0)
    text = "def\napple\nbirch\nwrong\nwrong"  # 27 characters, cut off there
    cut = response(FIVE, text, finished=False)
    (found,) = label(
        [FIVE],
        [cut],
        tmp_path / "j",
        {"one": sampler},
        sampling=SamplingSettings(max_new_tokens=len(text)),
        strategy="linear-scan",
        k=3,
    ).labels
    prompt = len(FIVE.prompt) + 1
    assert sampler.limits == [len(text) - (len(prefix) - prompt) for prefix, _ in sampler.rows]
    assert min(sampler.limits) == len("wrong")
    # Line 1 leaves just enough for the rest of the program, which then proves lines 2 and 3; after line 4 nothing
    # can pass; line 5 fills the budget and is rejected without a draw.
    assert [(probe.line, probe.passed > 0) for probe in found.probes] == [(1, True), (4, False)]
    assert found.last_solvable == 3


def test_responses_without_code(tmp_path: Path) -> None:
    responses = [response(FIVE, text, index=index) for index, text in enumerate(["", "\n\n", "# only\n"])]
    labels = label([FIVE], responses, tmp_path / "j", PERFECT).labels
    assert [found.labels for found in labels] == [(), (), (0,)]
    assert [(found.last_solvable, found.completions) for found in labels] == [(0, 0)] * 3


def test_no_responses(tmp_path: Path) -> None:
    labelling = label([], [], tmp_path / "j", PERFECT)
    assert labelling.labels == []
    assert cost_summary(labelling.labels, labelling.usage)["per_line"]["completions"] is None


def test_progress_rises_to_the_number_of_responses(tmp_path: Path) -> None:
    problems, responses = random_responses(30, seed=4)
    seen: list[tuple[int, int]] = []
    label(problems, responses, tmp_path / "j", {"one": FakeSampler(0.5)}, progress=lambda *pair: seen.append(pair))
    assert seen[-1] == (30, 30)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 3


def test_costs_add_up(tmp_path: Path) -> None:
    problems, responses = random_responses(60, seed=9)
    samplers = {"one": FakeSampler(0.5)}
    grader = FakeGrader()
    labelling = label(problems, responses, tmp_path / "j", samplers, sandbox=grader)
    labels, usage = labelling.labels, labelling.usage
    failed = [found for found in labels if not found.response.verdict.passed]
    assert sum(found.completions for found in labels) == usage.completions == len(samplers["one"].rows)
    assert sum(found.tokens for found in labels) == usage.tokens > 0
    assert sum(found.executions for found in labels) == usage.executions + len(labels)
    assert len(grader.programs) <= usage.executions <= usage.completions
    assert usage.full_completions == 6 * usage.probes_drawn
    answered = usage.probes_drawn + usage.probes_shared + usage.probes_known + usage.probes_without_room
    assert answered == usage.probes_asked
    summary = cost_summary(labels, usage)
    assert summary["completions"] == usage.completions
    assert summary["per_failed_response"]["completions"] == usage.completions / len(failed)
    assert summary["per_line"]["tokens"] == usage.tokens / sum(len(found.labels) for found in failed)
    assert summary["early_stop_saving"] == pytest.approx(1 - usage.completions / usage.full_completions)
    assert summary["sharing_saving"] == (usage.probes_shared + usage.probes_known) / usage.probes_asked
    assert usage.sandbox_cpu_seconds == pytest.approx(0.001 * len(grader.programs))


@pytest.mark.parametrize("strategy", ["noisy", "noisy-soft"])
def test_what_does_not_ask_k_at_a_probe_stops_none_early(tmp_path: Path, strategy: str) -> None:
    problems, responses = random_responses(30, seed=9)
    labelling = label(problems, responses, tmp_path / "j", {"one": FakeSampler(0.5)}, strategy=strategy, budget=5)
    assert labelling.usage.full_completions == labelling.usage.completions > 0
    assert cost_summary(labelling.labels, labelling.usage)["early_stop_saving"] == 0


def test_shards_labelled_apart_make_the_file_of_one_run(tmp_path: Path) -> None:
    problems, responses = random_responses(70, seed=11, checkpoints=("one", "two"))
    samplers = {"one": FakeSampler(0.5), "two": FakeSampler(0.8)}
    whole = label(problems, responses, tmp_path / "whole", samplers)
    parts = [
        label(problems, part, tmp_path / f"part-{number}", samplers)
        for number, part in enumerate(shard_responses(responses, 3))
    ]
    assert sum(len(part.labels) for part in parts) == len(responses)
    assert min(len(part.labels) for part in parts) > len(responses) // 6
    write_labels(tmp_path / "a.jsonl", whole.labels)
    write_labels(tmp_path / "b.jsonl", [found for part in parts for found in part.labels])
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert list(read_jsonl(tmp_path / "a.jsonl", LineLabels.from_json)) == sorted(
        whole.labels, key=lambda found: (found.response.problem_id, found.response.checkpoint, found.response.index)
    )
    merged = merge_usage([part.usage for part in parts])
    times = dict.fromkeys(("rounds", *MEASURES), 0)
    assert dataclasses.replace(merged, **times) == dataclasses.replace(whole.usage, **times)
    assert isinstance(merged, LabelUsage)


def test_how_full_the_batches_were_where_all_samplers_count(tmp_path: Path) -> None:
    class Counting(FakeSampler):
        batch_size = 100

        def __init__(self) -> None:
            super().__init__(0.0)
            self.stats = SamplerStats(steps=7, slot_steps=9)  # of earlier work

        def sample(self, *args: Any, **options: Any) -> list[Completion]:
            drawn = super().sample(*args, **options)
            self.stats += SamplerStats(steps=3, slot_steps=250)
            return drawn

    class Server(FakeSampler):
        stats = SamplerStats(completions=5)

    bad = response(FIVE, "wrong\n")
    run = label([FIVE], [bad], tmp_path / "a", {"one": Counting()}, draw=6)
    assert (run.usage.row_steps, run.usage.slot_steps) == (250, 300)
    summary = cost_summary(run.labels, run.usage)
    assert summary["generation_utilisation"] == run.usage.tokens / 300
    assert summary["row_utilisation"] == run.usage.tokens / 250
    run = label([FIVE], [bad], tmp_path / "b", {"one": Counting(), "two": Server(0.0)}, draw=6)
    assert cost_summary(run.labels, run.usage)["generation_utilisation"] is None


BAD = response(FIVE, "wrong\n")


@pytest.mark.parametrize(
    ("responses", "problems", "samplers", "message"),
    [
        ([BAD], [], PERFECT, "its problem is not among"),
        ([BAD], [FIVE], {}, "no checkpoint"),
        ([BAD], [FIVE], {"two": FakeSampler(1.0)}, "needs checkpoint 'one'; given: two"),
        ([BAD, BAD], [FIVE], PERFECT, "given twice"),
        ([dataclasses.replace(BAD, prompt_ids=())], [FIVE], PERFECT, "no prompt_ids"),
        ([dataclasses.replace(BAD, text="wrong")], [FIVE], PERFECT, "give the tokenizer it was sampled with"),
        ([response(FIVE, "x", status=Status.INFRASTRUCTURE)], [FIVE], PERFECT, "never judged"),
    ],
)
def test_what_cannot_be_labelled_is_refused(
    tmp_path: Path, responses: list[Response], problems: list[Problem], samplers: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        label(problems, responses, tmp_path / "j", samplers)
