"""Every strategy in the scheduler, in the world labelled by hand: what is drawn, what counts, what the labels are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from labeling_world import EOS, FakeGrader, FakeSampler, encode, label, problem, random_responses, response

from psgpo.errors import UserError
from psgpo.labeling import STRATEGIES
from psgpo.labeling.rollouts import Outcome, Tree
from psgpo.labeling.search import Answer, Question
from psgpo.records import Probe, Response, Status

FIVE = problem("five", 5)
ROLLOUTS = sorted(STRATEGIES)


def test_an_answer_rests_on_the_first_completions_only() -> None:
    outcome = Outcome(passes=[False, False, True, True])
    assert outcome.answer(Question(1, 2)) == Answer(0, 2)
    assert outcome.answer(Question(1, 4)) == Answer(2, 4)
    assert outcome.answer(Question(1, 9)) == Answer(2, 4)
    assert outcome.answer(Question(1, 9, until_pass=False)) is None
    assert Outcome().answer(Question(1, 1)) is None
    assert Outcome().answer(Question(1, 0)) == Answer(0, 0)
    # Completions of shorter prefixes count first, own ones only top them up.
    assert outcome.answer(Question(1, 3), 0, 2) == Answer(0, 3)
    assert outcome.answer(Question(1, 3), 1, 0) == Answer(1, 3)


def test_soft_labels_are_the_share_of_k_completions_that_pass(tmp_path: Path) -> None:
    sampler = FakeSampler(0.6)
    bad = response(FIVE, "def\n# note\napple\nbirch\nwrong\n")
    (found,) = label([FIVE], [bad], tmp_path / "j", {"one": sampler}, strategy="soft", k=8, draw=3).labels
    assert [probe.drawn for probe in found.probes] == [8, 8, 8, 8]
    rates = {probe.line: 2 * probe.passed / 8 - 1 for probe in found.probes}
    assert found.labels == (rates[1], 0, rates[3], rates[4], -1)
    assert 0 < found.probes[2].passed < 8
    assert found.last_solvable == 4
    assert found.completions == 32 == len(sampler.rows)


def test_a_known_program_does_not_stand_in_for_a_rate(tmp_path: Path) -> None:
    good, bad = response(FIVE, "def\napple\nbirch\ncedar\ndaisy\n", index=1), response(FIVE, "def\nwrong\n")
    labels = label([FIVE], [bad, good], tmp_path / "j", {"one": FakeSampler(0.0)}, strategy="soft").labels
    assert labels[0].labels == (-1, -1)
    assert labels[0].completions == 12


def test_of_a_response_that_passes_only_the_end_has_a_rate(tmp_path: Path) -> None:
    good = response(FIVE, "def\napple\nbirch\ncedar\ndaisy\n# note\n", index=1)
    bad, comment = response(FIVE, "def\napple\nwrong\n"), response(FIVE, "# note\n", index=2, status=Status.PASSED)
    given = ([FIVE], [bad, good, comment])
    rates = label(*given, tmp_path / "a", {"one": FakeSampler(0.6)}, strategy="soft", k=8).labels
    assert rates[1].labels == (0, 0, 0, 0, 1, 0), "what it shares with the failed one passes less often than always"
    assert (rates[1].last_solvable, rates[1].real_valued) == (6, False)
    assert rates[0].labels[0] < 1
    assert rates[2].labels == (0,)
    # A chance that the prefix can be completed is 1 in both.
    chances = label(*given, tmp_path / "b", {"one": FakeSampler(0.6)}, strategy="noisy-soft").labels
    assert chances[1].labels == (1, 1, 1, 1, 1, 0)
    assert chances[0].labels[:2] == (1, 1)


def test_noisy_search_draws_one_at_a_time_and_leaves_lines_open(tmp_path: Path) -> None:
    sampler = FakeSampler(0.0)
    bad = response(FIVE, "def\napple\nbirch\nwrong\ndaisy\n")
    found = label([FIVE], [bad], tmp_path / "a", {"one": sampler}, strategy="noisy", budget=4).labels[0]
    assert [len(batch) for batch in sampler.batches] == [1, 1, 1, 1]
    assert len({seed for _, seed in sampler.rows}) == 4
    assert 0.0 in found.labels
    assert set(found.labels) <= {-1.0, 0.0}
    sure = label([FIVE], [bad], tmp_path / "b", {"one": FakeSampler(1.0)}, strategy="noisy", budget=30).labels[0]
    assert sure.labels == (1, 1, 1, -1, -1)
    assert sure.last_solvable == 3
    soft = label([FIVE], [bad], tmp_path / "c", {"one": FakeSampler(1.0)}, strategy="noisy-soft", budget=30).labels[0]
    assert [round(value) for value in soft.labels] == [1, 1, 1, -1, -1]
    assert any(abs(value) < 1 for value in soft.labels)


def test_noisy_search_believes_surprise_and_proofs(tmp_path: Path) -> None:
    bad = response(FIVE, "def\napple\nbirch\nwrong\ndaisy\n")
    good = response(FIVE, "def\napple\nbirch\ncedar\ndaisy\n", index=1)
    sampler = FakeSampler(0.0)
    ends = [line + len("def\napple\nbirch\n") for line in range(5)]
    shock = [9.0 if place in ends else 0.01 for place in range(len(bad.token_ids))]
    run = label(
        [FIVE],
        [bad, good],
        tmp_path / "j",
        {"one": sampler},
        strategy="noisy",
        surprise=lambda responses: [shock for _ in responses],
    )
    assert run.labels[0].labels == (1, 1, 1, -1, -1)
    assert not sampler.rows
    assert run.usage.completions == 0
    assert run.labels[1].labels == (1,) * 5


def test_completions_count_for_the_prefixes_they_run_through() -> None:
    tree = Tree()
    for marked in ("ab", "abcd", "abx"):
        tree.mark(encode(marked))
    tree.add(encode("a"), encode("bcd!"), True)
    tree.add(encode("a"), encode("bcz"), False)
    tree.add(encode("ab"), (*encode("cd"), EOS), False)
    assert tree.seen(encode("ab")) == (1, 1)  # not the one that was drawn for it
    assert tree.seen(encode("abcd")) == (1, 1)
    assert tree.seen(encode("abx")) == (0, 0)


def test_omega_tops_up_what_ran_through(tmp_path: Path) -> None:
    other = problem("other", 5)

    class Never(FakeGrader):
        def _verdict(self, program: str, tests: object) -> object:
            return super()._verdict("wrong\n", tests)  # type: ignore[arg-type]

    plain, omega = FakeSampler(1.0), FakeSampler(1.0)
    texts = ["def\nwrong\n", "def\napple\nwrong\n"]
    both = [response(other, text, index=index) for index, text in enumerate(texts)]
    run = {
        name: label([other], both, tmp_path / name, {"one": sampler}, strategy=name, k=10, in_flight=1, sandbox=Never())
        for name, sampler in [("binary-search", plain), ("omega", omega)]
    }
    # "def" is asked for the first response, "def apple" for the second: nine in ten completions of "def" go there.
    assert len(plain.rows) == 20
    assert run["binary-search"].usage.reused == 0
    assert 10 <= len(omega.rows) < 15
    assert run["omega"].usage.reused == 20 - len(omega.rows)
    assert [found.labels for found in run["omega"].labels] == [(-1, -1), (-1, -1, -1)]


def test_omega_takes_a_pass_on_the_way_for_proof(tmp_path: Path) -> None:
    sampler = FakeSampler(1.0)
    texts = ["def\nwrong\nwrong\n", "def\napple\nwrong\n"]
    responses = [response(FIVE, text, index=index) for index, text in enumerate(texts)]
    run = label([FIVE], responses, tmp_path / "j", {"one": sampler}, strategy="omega", k=5, in_flight=1)
    assert [found.last_solvable for found in run.labels] == [1, 2]
    asked = {prefix for prefix, _ in sampler.rows}
    assert encode(FIVE.prompt + "\ndef\napple\n") not in asked
    assert run.usage.probes_known > 0


@pytest.mark.parametrize("strategy", ROLLOUTS)
def test_every_strategy_resumes_in_the_same_bytes(tmp_path: Path, strategy: str) -> None:
    problems, responses = random_responses(40, seed=3, checkpoints=("one", "two"))
    whole = tmp_path / "whole"
    settings = {"strategy": strategy, "budget": 6, "fill": True}

    def run(journal: Path) -> tuple[object, int]:
        samplers = {"one": FakeSampler(0.5), "two": FakeSampler(0.8)}
        labelling = label(problems, responses, journal, samplers, **settings)
        return labelling.labels, sum(len(sampler.rows) for sampler in samplers.values())

    labels, drawn = run(whole)
    assert drawn > 0
    data = whole.read_bytes()
    for number, cut in enumerate([len(data) // 5, len(data) // 2, len(data) - 1]):
        journal = tmp_path / str(number)
        journal.write_bytes(data[:cut])
        resumed, redrawn = run(journal)
        assert resumed == labels
        assert redrawn < drawn


@pytest.mark.parametrize("strategy", [name for name in ROLLOUTS if not STRATEGIES[name].tree])
def test_no_label_depends_on_the_make_up_of_rounds(tmp_path: Path, strategy: str) -> None:
    problems, responses = random_responses(60, seed=5, checkpoints=("one", "two"))
    samplers = {"one": FakeSampler(0.5), "two": FakeSampler(0.7)}
    found = [
        [
            (made.last_solvable, made.labels)
            for made in label(
                problems, responses, tmp_path / f"{number}", samplers, strategy=strategy, **changes
            ).labels
        ]
        for number, changes in enumerate(
            [{"draw": 1, "in_flight": 1}, {"draw": 3, "in_flight": 9}, {"draw": 2, "in_flight": 1000, "fill": True}]
        )
    ]
    assert found[0] == found[1] == found[2]


def test_few_probes_draw_what_is_left_at_once(tmp_path: Path) -> None:
    bad = response(FIVE, "wrong\n")
    for fill, sizes in [(False, [2, 2, 2]), (True, [6])]:
        sampler = FakeSampler(0.0)
        (found,) = label([FIVE], [bad], tmp_path / str(fill), {"one": sampler}, fill=fill).labels
        assert [len(batch) for batch in sampler.batches] == sizes
        assert found.probes == (Probe(line=1, drawn=6, passed=0),)


def test_two_lanes_take_turns_and_share_no_problem(tmp_path: Path) -> None:
    problems = [problem(f"p{number}", 4) for number in range(4)]
    responses = [response(of, "def\nwrong\napple\n") for of in problems]
    order: list[str] = []

    class Noting(FakeGrader):
        def submit(self, program: str, tests: object, /) -> object:
            future = super().submit(program, tests)  # type: ignore[arg-type]
            order.append("submit")

            class Slow:
                def result(self) -> object:
                    order.append("wait")
                    return future.result()

            return Slow()

    sampler = FakeSampler(0.0)
    label(problems, responses, tmp_path / "j", {"one": sampler}, sandbox=Noting(), k=1, draw=1)
    turns = [name for place, name in enumerate(order) if place == 0 or order[place - 1] != name]
    # Both lanes' first rounds are out before the first verdict is waited for.
    assert order[:4] == ["submit"] * 4
    assert turns[:4] == ["submit", "wait", "submit", "wait"]
    assert [len(batch) for batch in sampler.batches[:2]] == [2, 2]


def test_surprise_is_asked_for_once_and_written_down(tmp_path: Path) -> None:
    problems, responses = random_responses(24, seed=3)
    calls: list[int] = []

    def surprise(asked: Sequence[Response]) -> list[list[float]]:
        calls.append(len(asked))
        return [[float(len(calls)) * place for place in range(len(of.token_ids))] for of in asked]

    samplers = {"one": FakeSampler(0.6)}
    run = [
        label(problems, responses, tmp_path / "j", samplers, strategy="noisy", surprise=surprise).labels
        for _ in range(2)
    ]
    assert run[0] == run[1]
    assert calls == [sum(not of.verdict.passed for of in responses)]
    with pytest.raises(UserError, match="surprise was true, now null"):
        label(problems, responses, tmp_path / "j", samplers, strategy="noisy")
    flat = label(problems, responses, tmp_path / "flat", samplers, strategy="noisy").labels
    assert flat != run[0]
