"""Measures of scorers by hand, on programs that come from all three files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from prm_world import labelled, random_labels

from psgpo.errors import UserError
from psgpo.firsterror.items import Item, candidate_lines
from psgpo.firsterror.judges import named_line
from psgpo.firsterror.measure import best_threshold, figures
from psgpo.jsonl import write_jsonl
from psgpo.labeling.select import count_labels
from psgpo.mutation.labelled import LabelledProgram, line_labels, text_lines
from psgpo.prm.data import ExactRecord, response_key
from psgpo.prm.evaluation.baselines import majority, position
from psgpo.prm.evaluation.programs import EvalProgram, counted_lines, load_eval_programs
from psgpo.prm.evaluation.table import Lines, Scored, best_cut, length_groups, measure_scorer

GIVEN = 'def f(a):\n    """Add 1."""\n'
CODE = GIVEN + "    b = a + 1\n    # done\n    return b\n"
BUG = CODE.replace("+ 1", "- 1")


def mutant(name: str, code: str, line: int | None, *, family: str = "bug", passed: bool = False) -> LabelledProgram:
    return LabelledProgram(
        id=f"p#{name}",
        problem_id="p",
        prompt="Add 1.",
        code=code,
        lines=tuple(text_lines(code)),
        labels=tuple(line_labels(code, mutated_line=line, passed=passed, after="unlabelled", given_lines=2)),
        mutated_line=line,
        reference_line=None,
        in_place=True,
        family=family,
        kind="arithmetic",
        operator="o",
        teacher="t",
        verdict="pass" if passed else "fail",
        status="PASSED" if passed else "WRONG_ANSWER",
        decided_by="" if passed else "tests",
    )


def item(name: str, first_error: int | None, source: str) -> Item:
    return Item(
        id=name,
        problem_id=name,
        prompt="Add 1.",
        code=CODE,
        first_error=first_error,
        candidates=candidate_lines(CODE, 2),
        source=source,
        kind="k",
    )


def program(problem: str, labels: tuple[int, ...], *, name: str = "", kind: str = "") -> EvalProgram:
    first = next((m for m, label in enumerate(labels, start=1) if label < 0), None)
    code = "".join(f"{problem}{m} = {label}\n" for m, label in enumerate(labels))
    return EvalProgram(
        id=name or problem,
        problem_id=problem,
        prompt="",
        code=code,
        labels=labels,
        candidates=tuple(range(1, len(labels) + 1)),
        first_error=first,
        outcome="right" if first is None else "wrong",
        family="",
        kind=kind,
    )


def test_mutants_are_read(tmp_path: Path) -> None:
    entries = [
        mutant("reference", CODE, None, family="reference", passed=True),
        mutant("0", BUG, 3),
        mutant("1", CODE.replace("return b", "return a"), 5),
        mutant("2", CODE.replace("a + 1", "1 + a"), 3, family="refactor", passed=True),
    ]
    write_jsonl(tmp_path / "programs.jsonl", [entry.to_json() for entry in entries])
    found = load_eval_programs(tmp_path)
    assert found == load_eval_programs(tmp_path / "programs.jsonl")
    assert [p.labels for p in found] == [(0, 0, 1, 0, 1), (0, 0, -1, 0, 0), (0, 0, 1, 0, -1), (0, 0, 1, 0, 1)]
    assert [p.first_error for p in found] == [None, 3, 5, None]
    assert [p.outcome for p in found] == ["right", "wrong", "wrong", "right"]
    assert {p.candidates for p in found} == {(3, 5)}
    assert [p.kind for p in found] == ["", "arithmetic", "arithmetic", "arithmetic"]
    # `b = a + 1` opens three programs and is one prefix.
    assert counted_lines(found) == [(0, 0, 1, 0, 1), (0, 0, -1, 0, 0), (0, 0, 0, 0, -1), (0, 0, 1, 0, 1)]


def test_items_are_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "i.jsonl", [item("a", 3, "opchain").to_json(), item("b", 3, "mutant").to_json()])
    chain, bug = load_eval_programs(tmp_path / "i.jsonl")
    assert chain.labels == (0, 0, -1, 0, -1)  # no completion passes any more
    assert bug.labels == (0, 0, -1, 0, 0)
    assert (chain.outcome, chain.first_error, chain.kind) == ("wrong", 3, "k")


def test_labels_are_read_with_their_problems_and_with_exact_ones(tmp_path: Path, tokenizer) -> None:
    labels = random_labels(tokenizer, 6)
    write_jsonl(tmp_path / "labels.jsonl", [label.to_json() for label in labels])
    prompts = {f"p{n}": f"Problem {n}." for n in range(3)}
    found = load_eval_programs(tmp_path / "labels.jsonl", prompts=lambda: prompts)
    assert [p.prompt for p in found] == ["Problem 0."] * 2 + ["Problem 1."] * 2 + ["Problem 2."] * 2
    assert [p.labels for p in found] == [tuple(map(int, label.labels)) for label in labels]
    assert [p.outcome for p in found][::2] == ["right"] * 3
    assert all(p.labels[p.first_error - 1] == -1 for p in found if p.first_error)
    exact = {response_key(x.response): ExactRecord(last_on_track=0, progress=()) for x in labels}
    none = load_eval_programs(tmp_path / "labels.jsonl", prompts=lambda: prompts, exact=exact)
    assert all(label <= 0 for p in none for label in p.labels)
    with pytest.raises(UserError, match=r"labels.jsonl:1: problem p0 is in none of the problem files; .*--problems"):
        load_eval_programs(tmp_path / "labels.jsonl")


def test_success_rates_are_read_as_labels_are_counted_elsewhere(tmp_path: Path, tokenizer) -> None:
    """A pass is right though `soft` labels its last line alone; of a failure a rate of one half is a bad line."""
    text = "x = 1\n# note\ny = 2\nz = 3\n"
    passed, failed = labelled(tokenizer, text, 4), labelled(tokenizer, text, 0, index=1)
    rates = [(passed, (0.0, 0.0, 0.0, 1.0)), (failed, (0.5, 0.0, 0.0, -1.0))]
    soft = [replace(label, strategy="soft", labels=values) for label, values in rates]
    write_jsonl(tmp_path / "labels.jsonl", [label.to_json() for label in soft])
    right, wrong = load_eval_programs(tmp_path / "labels.jsonl", prompts=lambda: {"p": "P."})
    assert (right.labels, right.outcome, right.first_error) == ((0, 0, 0, 1), "right", None)
    assert (wrong.labels, wrong.outcome, wrong.first_error) == ((1, 0, -1, -1), "wrong", 3)
    counted = count_labels(soft)
    labels = [label for program in (right, wrong) for label in program.labels]
    assert (labels.count(1), labels.count(-1)) == (counted.positive, counted.negative)
    # What the search left open in a failure stays open.
    write_jsonl(tmp_path / "labels.jsonl", [replace(failed, labels=(1.0, 0.0, 0.0, -1.0)).to_json()])
    (found,) = load_eval_programs(tmp_path / "labels.jsonl", prompts=lambda: {"p": "P."})
    assert (found.labels, found.outcome) == ((1, 0, 0, -1), "unknown")


def test_an_unlabelled_line_leaves_the_first_error_unknown(tmp_path: Path) -> None:
    entry = mutant("0", CODE.replace("return b", "return a"), 5).to_json()
    write_jsonl(tmp_path / "p.jsonl", [entry | {"labels": [1, 0, 0, 0, -1]}])
    (found,) = load_eval_programs(tmp_path / "p.jsonl")
    assert (found.outcome, found.first_error) == ("unknown", None)


def test_limits_draw_whole_problems_and_files_of_no_form_are_refused(tmp_path: Path) -> None:
    entries = [item(f"{n}", 3, "opchain") for n in range(20)]
    path = tmp_path / "i.jsonl"
    write_jsonl(path, [entry.to_json() for entry in entries])
    some = load_eval_programs(path, limit=5, seed=1)
    assert len(some) == 5
    assert some == load_eval_programs(path, limit=5, seed=1) != load_eval_programs(path, limit=5, seed=2)
    held = load_eval_programs(path, held_out=0.5)
    assert 0 < len(held) < 20
    for text, words in [
        ("", "no JSON record; expected labels.jsonl"),
        ('{"a": 1}\n', "a record with the keys a; expected labels.jsonl"),
        (json.dumps(entries[0].to_json()) + "\n" + json.dumps(entries[0].to_json()), "two programs have the same id"),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            load_eval_programs(path)
    with pytest.raises(UserError, match="no such file"):
        load_eval_programs(tmp_path / "none.jsonl")


def test_the_best_threshold_is_the_best_of_all() -> None:
    """Against every cut, tried one by one."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        programs, scores = [], []
        for n in range(12):
            labels = [1] * 5
            if rng.random() < 0.5:
                labels[rng.integers(5) :] = [-1]
            programs.append(program(f"p{n}", tuple(labels)))
            scores.append(list(np.round(rng.normal(size=len(labels)), 1)))
        every = sorted({s for row in scores for s in row})
        cuts = [every[0] - 1, *((a + b) / 2 for a, b in pairwise(every)), every[-1] + 1]

        def value(cut: float, programs=programs, scores=scores) -> float:
            named = [named_line(p, row, cut) for p, row in zip(programs, scores, strict=True)]
            return float(np.nan_to_num(figures(programs, named)["f1"], nan=-1.0))

        assert best_threshold(programs, scores) == max(cuts, key=value)


def test_best_cut_by_hand() -> None:
    assert best_cut(np.array([0.0, 1.0, 2.0, 3.0]), np.array([False, True, False, True])) == 0.5
    assert best_cut(np.array([5.0, 5.0, 5.0]), np.array([False, False, True])) == 6.0  # all bad
    assert math.isnan(best_cut(np.zeros(0), np.zeros(0, dtype=bool)))


def test_length_groups_by_hand() -> None:
    assert length_groups(np.array([5, 5, 5, 5])) == [(5, 5)]
    assert length_groups(np.array([], dtype=int)) == []


PROGRAMS = [
    program("a", (1, 1, -1, -1), kind="loop"),
    program("b", (1, 1, 1, 1)),
    program("c", (-1, -1), kind="call"),
    program("d", (1, 1)),
]
SCORES = [np.array(row) for row in ([2.0, 1.0, -1.0, 3.0], [1.0, 1.0, 1.0, -1.0], [-2.0, -2.0], [1.0, 1.0])]


def test_measures_by_hand() -> None:
    """Own threshold 0: line 4 of a (bad, +3) and line 4 of b (good, -1) are mistaken, 12 lines in all."""
    scored = Scored(name="s", evidence=SCORES, threshold=0.0)
    found = measure_scorer(Lines(PROGRAMS), scored, resamples=20)["own"]
    assert found["lines"]["accuracy"] == pytest.approx(10 / 12)
    assert found["lines"]["f1_bad"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert [part["lines"] for part in found["by_position"]] == [0, 2, 4, 2, 4]
    assert [part["accuracy"] for part in found["by_position"]][1:] == [1, 1, 1, 0.5]
    assert found["by_kind"] == {
        "call": {"lines": 2, "found": 1.0, "programs": 1, "first_error_exact": 1.0},
        "loop": {"lines": 2, "found": 0.5, "programs": 1, "first_error_exact": 1.0},
    }
    assert (found["first_error"]["acc_wrong"], found["first_error"]["acc_right"]) == (1.0, 0.5)
    assert [(part["from"], part["to"], part["lines"]) for part in found["by_length"]] == [(2, 2, 4), (3, 4, 8)]
    low, high = found["intervals"]["accuracy"]
    assert low <= 10 / 12 <= high < 1.001
    perfect = Scored(name="p", evidence=[np.array(p.labels, dtype=float) for p in PROGRAMS])
    assert measure_scorer(Lines(PROGRAMS), perfect, resamples=5)["fitted"]["intervals"]["auroc"] == [1.0, 1.0]


def test_thresholds_come_from_the_other_half() -> None:
    """Scores that mean the opposite in one half: what suits one half is wrong in the other."""
    programs = [program(f"p{n}", (1, -1)) for n in range(8)]
    lines = Lines(programs)
    flipped = [np.array([1.0, 0.0]) if half else np.array([0.0, 1.0]) for half in lines.first_half]
    honest = [np.array([1.0, 0.0])] * 8
    assert measure_scorer(lines, Scored(name="a", evidence=honest), resamples=0)["fitted"]["lines"]["accuracy"] == 1
    assert measure_scorer(lines, Scored(name="b", evidence=flipped), resamples=0)["fitted"]["lines"]["accuracy"] < 0.6


def test_calibration_is_measured_as_given() -> None:
    programs = [program(f"p{n}", (1, -1)) for n in range(4)]
    raw = [np.array([0.75, 0.25])] * 4
    sure = [np.array([1.0, 0.0])] * 4
    scored = Scored(name="s", evidence=raw, probabilities={"raw": raw, "calibrated": sure})
    found = measure_scorer(Lines(programs), scored, resamples=5)["calibration"]
    assert found["raw"]["ece"] == 0.25
    assert found["raw"]["interval"] == [0.25, 0.25]
    assert found["calibrated"]["ece"] == 0


def test_baselines_by_hand() -> None:
    """Two lines, the second always bad; each half counts three good and three bad lines and one of both on top."""
    lines = Lines([program(f"p{n}", (1, -1)) for n in range(6)])
    place = position(lines)
    np.testing.assert_allclose(place.evidence[0], [4 / 5, 1 / 5])
    assert measure_scorer(lines, place, resamples=0)["fitted"]["lines"]["accuracy"] == 1
    constant = measure_scorer(lines, majority(lines), resamples=0)["fitted"]["lines"]
    assert (constant["accuracy"], constant["auroc"]) == (0.5, 0.5)
