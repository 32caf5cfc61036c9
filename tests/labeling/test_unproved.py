"""Completions whose ids cannot be proved: what hangs on them has no label, and everything else has its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

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
)

from psgpo.config import PrmSettings, SamplingSettings
from psgpo.errors import RefusedRowsError
from psgpo.jsonl import read_jsonl
from psgpo.labeling import sample_responses, write_labels
from psgpo.labeling.strategies import STRATEGIES
from psgpo.prm.data import build_examples
from psgpo.records import LineLabels, Probe

FIVE, THREE = problem("five", 5), problem("three", 3)
BAD = response(FIVE, "def\napple\nbirch\nwrong\n# note\nelder\n")
FINE = response(THREE, "def\nwrong\n")
RIGHT = FakeSampler(1.0)


def after(*endings: str) -> TextSampler:
    """Never errs; the server's replies behind these prefixes cannot be proved."""
    return TextSampler(1.0, lambda prefix, seed: prefix.startswith("def,apple,birch,c") and prefix.endswith(endings))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_the_response_that_hangs_on_it_stays_without_labels(strategy: str, tmp_path: Path) -> None:
    usual = label([FIVE, THREE], [BAD, FINE], tmp_path / "a", {"one": RIGHT}, strategy=strategy)
    run = label([FIVE, THREE], [BAD, FINE], tmp_path / "b", {"one": after("")}, strategy=strategy)
    lost, kept = run.labels
    assert lost.labels == (0,) * 6
    assert lost.unlabelled.startswith("no proof of")
    assert (lost.last_solvable, lost.real_valued) == (0, False)
    assert kept == usual.labels[1]
    assert run.usage.refused == lost.completions > 0
    again = label([FIVE, THREE], [BAD, FINE], tmp_path / "b", {"one": None}, strategy=strategy)  # nothing is drawn
    assert again.labels == run.labels
    assert (again.usage.refused, again.usage.completions) == (run.usage.refused, run.usage.completions)


def test_a_proof_beside_it_answers_all_the_same(tmp_path: Path) -> None:
    """m = 3: of the first two completions one is lost and one passes. m = 4: nothing passes, and one is lost."""
    seen: Counter[str] = Counter()

    def every_other(prefix: str, seed: int) -> bool:
        seen[prefix] += 1
        return seen[prefix] % 2 == 1 and prefix.endswith("birch\n")

    (found,) = label([FIVE], [BAD], tmp_path / "a", {"one": TextSampler(1.0, every_other)}, k=4).labels
    assert found.labels == (1, 1, 1, -1, 0, -1)
    assert found.probes == (Probe(line=3, drawn=2, passed=1), Probe(line=4, drawn=4, passed=0))
    (found,) = label([FIVE], [BAD], tmp_path / "b", {"one": after("wrong\n")}, k=4).labels
    assert found.labels == (0,) * 6
    assert found.probes == (Probe(line=3, drawn=2, passed=2), Probe(line=4, drawn=4, passed=0))
    assert "wrong" in found.unlabelled


def test_no_label_depends_on_rounds(tmp_path: Path) -> None:
    problems, responses = random_responses(60, seed=5)
    found = []
    for number, changes in enumerate(({"draw": 1}, {"draw": 6, "in_flight": 40}, {"fill": True})):
        sampler = TextSampler(0.6, lambda prefix, seed: seed % 9 == 0)
        run = label(problems, responses, tmp_path / str(number), {"one": sampler}, **changes)
        found.append([(one.labels, one.unlabelled) for one in run.labels])
    assert found[0] == found[1] == found[2]
    lost = sum(bool(reason) for _, reason in found[0])
    assert 3 < lost < len(responses) / 2


def test_splicing_goes_on_without_the_completion(tmp_path: Path) -> None:
    run = label([FIVE], [BAD], tmp_path / "a", {"one": after("")}, strategy="splice")
    assert run.usage.refused == run.usage.completions > 0
    assert run.usage.tokens == 0
    assert not run.labels[0].unlabelled


def test_files_say_it_and_a_prm_does_not_learn_from_it(tmp_path: Path) -> None:
    run = label([FIVE, THREE], [BAD, FINE], tmp_path / "j", {"one": after("")}, strategy="soft")
    write_labels(tmp_path / "labels.jsonl", run.labels)
    rows = list(read_jsonl(tmp_path / "labels.jsonl", dict))
    assert ["unlabelled" in row for row in rows] == [True, False]
    labels = list(read_jsonl(tmp_path / "labels.jsonl", LineLabels.from_json))
    assert labels == run.labels
    assert [example.problem_id for example in build_examples(labels, PrmSettings(target="sign"))] == ["three"]


def test_replies_that_are_no_response_are_left_out_and_named() -> None:
    sampler = TextSampler(1.0, lambda prefix, seed: prefix.startswith("def,apple,birch\n") and seed % 2 == 0)
    options = {"checkpoint": "one", "responses_per_problem": 8, "seed": 1, "prompt_template": "{prompt}\n"}
    given = (sampler, CharTokenizer(), [FIVE, THREE], FakeGrader())
    settings = SamplingSettings(max_new_tokens=99, batch_size=2)
    refused: list[tuple[str, int, str]] = []
    found = sample_responses(*given, **options, settings=settings, refused=lambda *row: refused.append(row))
    assert {name for name, _, _ in refused} == {"three"}
    assert {reason for _, _, reason in refused} == {"no proof of 'def,apple,birch\\n'"}
    places = [(one.problem_id, one.index) for one in found] + [(name, index) for name, index, _ in refused]
    assert sorted(places) == [(name, index) for name in ("five", "three") for index in range(8)]
    assert 0 < len(refused) < 8
    with pytest.raises(RefusedRowsError):
        sample_responses(*given, **options, settings=settings)
