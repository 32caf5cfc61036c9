"""The strategy `splice` in the small world: what it proves, what it draws, that it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labeling_world import (
    CharTokenizer,
    FakeGrader,
    FakeSampler,
    TextSampler,
    label,
    problem,
    random_responses,
    response,
    words_of,
)
from pydantic import ValidationError

from psgpo.config import LabelSettings, PrmSettings, SamplingSettings
from psgpo.errors import UserError
from psgpo.labeling import Labelling
from psgpo.labeling.prefixes import cut_response
from psgpo.labeling.splice_pool import PoolSearch
from psgpo.labeling.suffixes import crossed_programs, suffix_programs
from psgpo.lines import TokenText
from psgpo.prm.data import build_examples
from psgpo.records import LineLabels, Response


def spliced(folder: Path, sampler: FakeSampler, count: int = 60, **changes: object) -> Labelling:
    problems, responses = random_responses(count, seed=5)
    return label(problems, responses, folder / "j.jsonl", {"one": sampler}, strategy="splice", **changes)


def right_words(label_: LineLabels, words: list[str]) -> int:
    """How many leading words of the response are the problem's: the truth of this world."""
    count = 0
    for word, wanted in zip(words_of(label_.response.text), words, strict=False):
        if word != wanted:
            break
        count += 1
    return count


def test_labels_are_the_truth_where_a_sibling_passes(tmp_path: Path) -> None:
    problems, _ = random_responses(60, seed=5)
    words = {one.id: list(one.tests.calls[0].args) for one in problems}
    labelling = spliced(tmp_path, FakeSampler(0.9))
    checked = 0
    for made in labelling.labels:
        if made.response.verdict.passed or not any(made.labels):
            continue
        known = right_words(made, words[made.response.problem_id])
        code = [value for value in made.labels if value]
        assert sum(value > 0 for value in code) == known
        checked += 1
    assert checked > 20


def test_halving_labels_the_same_here_with_fewer_programs(tmp_path: Path) -> None:
    sampler = FakeSampler(0.9)
    every = spliced(tmp_path, sampler)
    (tmp_path / "halved").mkdir()
    halved = spliced(tmp_path / "halved", sampler, halving=True)
    assert [one.labels for one in halved.labels] == [one.labels for one in every.labels]
    assert halved.usage.executions < every.usage.executions


def test_halving_is_refused_where_programs_are_not_joined_by_lines(tmp_path: Path) -> None:
    of = replace(problem("p", 2), source="mbpp")
    failed = response(of, "def\napple\nwrong\n", index=0)
    with pytest.raises(UserError, match=r"labels\.halving is for programs joined by lines"):
        label([of], [failed], tmp_path / "j", {"one": FakeSampler(0.5)}, strategy="splice", halving=True)


def test_halving_of_a_shard_without_responses_labels_nothing(tmp_path: Path) -> None:
    one = {"one": FakeSampler(0.5)}
    labelling = label([problem("p", 2)], [], tmp_path / "j", one, strategy="splice", halving=True)
    assert labelling.labels == []
    assert labelling.usage.completions == 0


def test_passing_siblings_cost_no_completions(tmp_path: Path) -> None:
    of = problem("p", 4)
    passing = response(of, "def\napple\nbirch\ncedar\n", index=0)
    failed = response(of, "def\napple\nwrong\ncedar\n", index=1)
    labelling = label([of], [failed, passing], tmp_path / "j", {"one": FakeSampler(0.5)}, strategy="splice")
    assert labelling.usage.completions == 0
    assert labelling.labels[0].labels == (1.0, 1.0, -1.0, -1.0)
    assert labelling.labels[0].strategy == "splice"
    assert labelling.labels[1].labels == (1.0,) * 4


def test_how_much_is_done_is_what_the_ending_leaves_of_the_shortest_program(tmp_path: Path) -> None:
    of = problem("p", 4)
    texts = [
        "def\napple\nbirch\ncedar\n",
        "def\n# now\napple\nwrong\ncedar\n",  # spliced: two lines of four are left
        "def\nwrong\nbirch\ncedar\n",  # a start that the sibling shares
        "wrong\n",
    ]
    made = label(
        [of],
        [response(of, text, index=n) for n, text in enumerate(texts)],
        tmp_path / "j",
        {"one": FakeSampler(0.5)},
        strategy="splice",
    ).labels
    assert [one.done for one in made] == [1.0, 0.5, 0.25, 0.0]
    settings = PrmSettings(target="progress")
    assert [example.targets for example in build_examples(made, settings)] == [
        (0.25, 0.5, 0.75, 1.0),
        (0.25, 0.25, 0.5, 0.5, 0.5),
        (0.25,) * 4,
        (0.0,),
    ]
    assert [LineLabels.from_json(json.loads(json.dumps(one.to_json()))) for one in made] == made


def test_a_reference_solution_labels_what_nobody_solved(tmp_path: Path) -> None:
    of = replace(problem("p", 4), reference_solution="def\napple\nbirch\ncedar\n")
    wrong = replace(problem("q", 4), reference_solution="def\napple\nbirch\nbirch\n")
    failed = [response(of, "def\napple\nwrong\ncedar\n"), response(wrong, "def\napple\nwrong\ncedar\n")]
    sampler = FakeSampler(0.0)
    options: dict[str, Any] = {"strategy": "splice", "hunt": 0, "crossover": 0}
    with_it = label([of, wrong], failed, tmp_path / "a", {"one": sampler}, references=True, **options).labels
    assert with_it[0].labels == (1.0, 1.0, -1.0, -1.0)
    assert with_it[0].done == 0.5
    assert not any(with_it[1].labels), "a reference that fails its tests proves nothing"
    without = label([of, wrong], failed, tmp_path / "b", {"one": sampler}, **options).labels
    assert not any(without[0].labels)
    assert without[0].done is None
    assert [with_it[1].executions, without[1].executions] == [2, 1], "a reference that is judged is booked"


def test_references_of_solved_problems_are_not_judged(tmp_path: Path) -> None:
    of = replace(problem("p", 3), reference_solution="def\napple\nbirch\n# the reference\n")
    grader = FakeGrader()
    options: dict[str, Any] = {"strategy": "splice", "references": True, "sandbox": grader}
    label([of], [response(of, "def\napple\nbirch\n")], tmp_path / "j", {"one": FakeSampler(0.0)}, **options)
    assert not grader.programs


def test_references_are_for_splicing() -> None:
    with pytest.raises(ValidationError, match="strategy = 'splice'"):
        LabelSettings(references=True)


def test_a_program_that_stops_early_is_right_to_its_end(tmp_path: Path) -> None:
    of = problem("p", 4)
    passing = response(of, "def\napple\nbirch\ncedar\n", index=0)
    stopped = response(of, "def\napple\nbirch\n", index=1)
    labelling = label([of], [stopped, passing], tmp_path / "j", {"one": FakeSampler(0.5)}, strategy="splice")
    assert labelling.labels[0].labels == (1.0, 1.0, 1.0)


def test_the_hunt_is_bounded_and_booked_once(tmp_path: Path) -> None:
    of = problem("p", 4)
    failed = [response(of, f"def\nwrong\nbirch\ncedar{'x' * n}\n", index=n) for n in range(3)]
    sampler = FakeSampler(0.0)
    labelling = label([of], failed, tmp_path / "j", {"one": sampler}, strategy="splice", hunt=6, crossover=0)
    assert len(sampler.rows) == 6
    assert [made.completions for made in labelling.labels] == [6, 0, 0]
    assert all(set(made.labels) == {0.0} for made in labelling.labels), "nobody passes: nothing is known"


@pytest.mark.parametrize("room", [0, 1])
def test_the_hunt_draws_where_there_is_room(room: int) -> None:
    """What is booked, and counted against `labels.hunt`, was drawn; what is judged was drawn too."""
    of = problem("p", 4)
    cuts = [cut_response(response(of, "def\napple\nbirch\nwrong\n"), TokenText(CharTokenizer()))]
    sampler, judged = FakeSampler(0.0), list[str]()

    def judge(items: Sequence[tuple[str, str]]) -> list[bool]:
        judged.extend(program for program, _ in items)
        return [False] * len(items)

    longest = len(cuts[0].prefix(3))
    limit = SamplingSettings(max_new_tokens=longest + room)
    settings = LabelSettings(strategy="splice", hunt=6, crossover=0)
    search = PoolSearch(cuts, {"p": of}, {"one": sampler}, TokenText(CharTokenizer()), settings, limit, 7, judge)
    attempt = search.attempt("p", [0])
    search.hunt([attempt], {0: [0.0, 0.0, 0.0, 1.0]})
    assert attempt.completions == attempt.executions == len(sampler.rows) == len(judged) == 6
    assert min(sampler.limits) == (room or longest - len(cuts[0].prefix(2)))
    assert "def\napple\nbirch\n" not in judged


def test_an_unproved_reply_is_not_judged(tmp_path: Path) -> None:
    of, grader = problem("p", 4), FakeGrader()
    failed = [response(of, "def\napple\nwrong\ncedar\n")]
    sampler = TextSampler(1.0, lambda prefix, seed: True)
    options: dict[str, Any] = {"strategy": "splice", "hunt": 4, "crossover": 0, "sandbox": grader}
    labelling = label([of], failed, tmp_path / "j", {"one": sampler}, **options)
    assert (labelling.usage.completions, labelling.usage.refused, labelling.usage.executions) == (4, 4, 0)
    assert not grader.programs


def test_the_hunt_stops_at_the_first_pass(tmp_path: Path) -> None:
    of = problem("p", 4)
    failed = [response(of, "def\napple\nwrong\ncedar\n")]
    labelling = label([of], failed, tmp_path / "j", {"one": FakeSampler(1.0)}, strategy="splice")
    assert labelling.usage.completions == 4
    assert labelling.labels[0].labels == (1.0, 1.0, -1.0, -1.0)


def test_any_cut_of_the_journal_gives_the_same_labels(tmp_path: Path) -> None:
    whole = spliced(tmp_path, FakeSampler(0.6), in_flight=4)
    text = (tmp_path / "j.jsonl").read_bytes()
    assert text.count(b"\n") > 5
    for cut in range(0, len(text), 97):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "j.jsonl").write_bytes(text[:cut])
        again = spliced(folder, FakeSampler(0.6), in_flight=4)
        assert again.labels == whole.labels


def test_a_finished_journal_draws_and_judges_nothing(tmp_path: Path) -> None:
    spliced(tmp_path, FakeSampler(0.6))
    sampler, grader = FakeSampler(0.6), FakeGrader()
    spliced(tmp_path, sampler, sandbox=grader)
    assert not sampler.rows
    assert not grader.programs


def test_another_journal_is_refused(tmp_path: Path) -> None:
    spliced(tmp_path, FakeSampler(0.6))
    with pytest.raises(UserError, match="another labelling"):
        spliced(tmp_path, FakeSampler(0.6), seed=8)
    lines = (tmp_path / "j.jsonl").read_text().splitlines()
    record = json.loads(lines[1])
    record["problems"] = ["other"]
    (tmp_path / "j.jsonl").write_text("\n".join([lines[0], json.dumps(record)]) + "\n")
    with pytest.raises(UserError, match="not the group that comes next"):
        spliced(tmp_path, FakeSampler(0.6))


def test_suffixes_come_nearest_first_and_never_define_again() -> None:
    donor = ["def solve(x):", "    x = 1", "    x = 2", "    return x"]
    programs = list(suffix_programs(["def solve(x):", "    y = 1", "    z = 1"], 2, [donor]))
    assert programs[0] == "def solve(x):\n    y = 1\n    x = 2\n    return x\n"
    assert len(programs) == 4
    assert programs[-1] == "def solve(x):\n    y = 1\n"
    assert len(list(suffix_programs(["def solve(x):"], 1, [donor]))) == 3, "the program itself has failed"
    assert all(program.count("def ") == 1 for program in programs)


def test_two_failed_programs_may_make_one_that_passes(tmp_path: Path) -> None:
    of = problem("p", 4)
    failed = [response(of, "def\napple\nbirch\nwrong\n"), response(of, "def\nwrong\nbirch\ncedar\n", index=1)]
    labelling = label([of], failed, tmp_path / "j", {"one": FakeSampler(0.0)}, strategy="splice", hunt=0)
    assert [made.labels for made in labelling.labels] == [(1.0, 1.0, 1.0, -1.0), (1.0, -1.0, -1.0, -1.0)]
    assert labelling.usage.completions == 0
    off = label([of], failed, tmp_path / "k", {"one": FakeSampler(0.0)}, strategy="splice", hunt=0, crossover=0)
    assert {value for made in off.labels for value in made.labels} == {0.0}


def test_crossing_is_bounded_and_never_defines_again() -> None:
    programs = [["def solve(x):", f"    x = {n}", "    y = 2", "    return x"] for n in range(3)]
    made = list(crossed_programs(programs))
    assert len(set(made)) == len(made)
    assert all(program.count("def ") == 1 for program in made)


def test_what_is_drawn_is_joined_with_what_is_left_of_the_limit(tmp_path: Path) -> None:
    of = problem("p", 4)
    failed = [response(of, f"def\nwrong\nbirch\ncedar{'x' * n}\n", index=n) for n in range(3)]

    def joins(crossover: int) -> int:
        options: dict[str, Any] = {"strategy": "splice", "hunt": 8, "crossover": crossover}
        made = label([of], failed, tmp_path / f"{crossover}", {"one": FakeSampler(0.0)}, **options).labels
        assert made[0].completions == 8
        return made[0].executions - 1 - made[0].completions

    assert joins(5) == 5, "spent before anything is drawn"
    assert joins(20) == 20, "the rest goes to what is drawn"
    assert joins(1000) > 20


def test_completions_are_drawn_where_the_prior_expects_them_to_pass(tmp_path: Path) -> None:
    passing = [problem(f"q{n}", 4) for n in range(8)]
    solved = [response(of, "def\napple\nbirch\ncedar\n", index=0) for of in passing]
    failed = [response(of, "def\napple\nwrong\ncedar\n", index=1) for of in passing]
    of = problem("p", 8)
    unsolved = response(of, "def\napple\nbirch\ncedar\nwrong\nfern\nfern\n")

    def surprise(responses: Sequence[Response]) -> list[list[float]]:
        return [
            [4.0 if r.text[max(0, at - 5) : at + 5].find("wrong") >= 0 else 0.1 for at in range(len(r.token_ids))]
            for r in responses
        ]

    sampler = FakeSampler(0.0)
    label(
        [*passing, of],
        [*solved, *failed, unsolved],
        tmp_path / "j",
        {"one": sampler},
        strategy="splice",
        hunt=4,
        in_flight=64,
        surprise=surprise,
    )
    prefixes = ["".join(map(chr, ids)).split("\n", 1)[1] for ids, _ in sampler.rows]
    assert prefixes[0] == "def\napple\nbirch\ncedar\n", "the longest prefix that is likely right"
    assert len(set(prefixes)) > 1, "a failure makes its prefix less likely"
