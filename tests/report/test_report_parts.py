"""The pure parts of the report, on hand-worked values."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_run import ARMS, make_run

from psgpo.jsonl import finite
from psgpo.prm.measure import EVEN as MEASURED
from psgpo.report.aggregate import Experiment, difference, difficulty_bins, estimate, length_bins, pass_at_1
from psgpo.report.answer import answer
from psgpo.report.cells import MISSING, percent, plain, points, two
from psgpo.report.figures import series_of, smooth
from psgpo.report.groups import experiment, flatten, groups_of
from psgpo.report.load import load_run
from psgpo.report.programs import BACKGROUNDS, EVEN, background, choose_programs, visible
from psgpo.report.stage_tables import counted, dig, estimated, prm_table, scan_table
from psgpo.report.style import end_labels, new_figure
from psgpo.report.tables import describe_arm, main_table


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return experiment([load_run(make_run(tmp_path_factory.mktemp("runs") / "run"))])


def test_smooth_averages_the_last_values_and_leaves_out_nan() -> None:
    values = np.array([1.0, 3.0, np.nan, 5.0])
    assert smooth(values, 2).tolist() == [1.0, 2.0, 3.0, 5.0]
    assert np.isnan(smooth(np.array([np.nan, 2.0]), 1)[0])


def test_numbers_are_written_for_people() -> None:
    assert plain(-1234.56) == "−1\u202f234.6"
    assert percent(0.125) == "12.5 %"
    assert points(-0.0312) == "−3.1"
    assert percent(math.nan) == "—"


def test_finite_turns_nan_into_null_at_any_depth() -> None:
    assert finite({"a": [1.0, math.nan, {"b": math.inf}], "c": (None,)}) == {"a": [1.0, None, {"b": None}], "c": [None]}


def test_dig_and_cells_of_seeds_never_average_over_missing() -> None:
    assert dig({"a": {"b": 2}}, "a.b") == 2.0
    assert math.isnan(dig({"a": None}, "a.b"))
    assert counted([0.5, math.nan], two) == MISSING
    assert (counted([0.25, 0.75], two).text, counted([0.25, 0.75], two).note) == ("0.50", "0.25 to 0.75")
    assert estimated([0.5, math.nan], [(0.4, 0.6)] * 2, two) == MISSING


def test_an_estimate_has_its_own_interval_or_that_over_seeds() -> None:
    alone = estimated([0.5], [(0.4, 0.6)], two)
    assert (alone.text, alone.note, alone.low, alone.high) == ("0.50", "0.40 to 0.60", 0.4, 0.6)
    unknown = estimated([0.5], [(math.nan, math.nan)], two)
    assert (unknown.note, math.isnan(unknown.low)) == ("", True)
    # Three seeds: standard error .1 / sqrt(3), Student's t of 2 degrees 4.303.
    three = estimated([0.4, 0.5, 0.6], [(0.39, 0.41)] * 3, two)
    assert three.high - 0.5 == pytest.approx(4.303 * 0.1 / math.sqrt(3), abs=1e-3)
    assert estimated([0.9, 1.0], [(0.0, 1.0)] * 2, two).high == 1.0


def test_estimate_of_one_run_is_over_problems_and_of_two_over_seeds(data: Experiment) -> None:
    run = data.first
    one = estimate([run], [{"a": 0.0, "b": 1.0, "c": 1.0, "d": 0.0}])
    assert one is not None
    assert (one.mean, one.n_problems, one.per_seed) == (0.5, 4, (0.5,))
    two_seeds = estimate([run, run], [{"a": 0.2, "b": 0.4}, {"c": 0.5}])
    assert two_seeds is not None
    # mean 0.4 of 0.3 and 0.5; t(1) = 12.706 times 0.1414 / sqrt(2) = 0.1
    assert two_seeds.mean == pytest.approx(0.4)
    assert two_seeds.high - two_seeds.mean == pytest.approx(1.2706, abs=1e-3)
    assert two_seeds.sign == 0
    assert estimate([], []) is None
    assert estimate([run, run], [{"a": 0.2, "b": 0.4}, {}]) is None  # a missing seed is not averaged away


def test_bins_part_the_problems(data: Experiment) -> None:
    problems = data.first.evaluations["baseline"].outcomes()
    for bins in (length_bins(data), difficulty_bins(data)):
        inside = [[name for name in problems if keep(data.first, name)] for _, keep in bins]
        assert sorted(name for group in inside for name in group) == sorted(problems)
    assert [label for label, _ in difficulty_bins(data)] == ["1–2", "3–4", "5–6", "7–8"]


def test_every_seed_is_in_every_quarter_of_lengths(data: Experiment) -> None:
    """Though one seed's baseline writes three times as much."""
    run = data.first
    baseline = run.evaluations["baseline"]
    longer = tuple(dataclasses.replace(sample, tokens=3 * sample.tokens) for sample in baseline.samples)
    evaluations = run.evaluations | {"baseline": dataclasses.replace(baseline, samples=longer)}
    recipe = run.recipe.model_copy(update={"seed": 1})
    other = dataclasses.replace(run, path=Path("other"), recipe=recipe, evaluations=evaluations)
    bins = length_bins(Experiment(runs=(run, other)))
    assert len(bins) == 4
    for one in (run, other):
        assert [sum(keep(one, name) for name in baseline.outcomes()) for _, keep in bins] == [8] * 4
    short, long = (min(map(np.mean, of.evaluations["baseline"].tokens().values())) for of in (run, other))
    assert long == 3 * short
    assert bins[0][0].startswith(f"{short:.0f}–")


def test_problems_of_one_length_are_in_one_quarter(data: Experiment) -> None:
    baseline = data.first.evaluations["baseline"]
    names = list(baseline.outcomes())
    few = set(names[-8:])
    samples = tuple(dataclasses.replace(s, tokens=30 if s.problem_id in few else 20) for s in baseline.samples)
    evaluations = {"baseline": dataclasses.replace(baseline, samples=samples)}
    run = dataclasses.replace(data.first, evaluations=evaluations)
    (short, keep), (long, _) = length_bins(Experiment(runs=(run,)))
    assert (short, long) == ("20–20", "30–30")
    assert sum(keep(run, name) for name in names) == len(names) - 8


def test_as_many_groups_as_there_are_lengths(data: Experiment) -> None:
    baseline = data.first.evaluations["baseline"]
    alike = tuple(dataclasses.replace(sample, tokens=9) for sample in baseline.samples)
    evaluations = {"baseline": dataclasses.replace(baseline, samples=alike)}
    ((label, keep),) = length_bins(Experiment(runs=(dataclasses.replace(data.first, evaluations=evaluations),)))
    assert label == "9–9"
    assert all(keep(data.first, name) for name in baseline.outcomes())


def test_difference_within_bins_adds_up(data: Experiment) -> None:
    parts = [difference(data, "dense", keep) for _, keep in difficulty_bins(data)]
    whole = difference(data, "dense")
    assert whole is not None
    total = sum(part.mean * part.n_problems for part in parts if part is not None)
    assert total / whole.n_problems == pytest.approx(whole.mean)


def test_arms_are_described_and_oracle_arms_known(data: Experiment) -> None:
    assert [arm for arm in ARMS if data.is_oracle(arm)] == ["progress-exact"]
    assert describe_arm(data, "dense") == "unit tests + λ/T · line score, PRM “sign”, λ\u00a00.25\u00a0/\u00a00.025"
    assert describe_arm(data, "value-init") == "unit tests only, critic from PRM “sign”"
    assert len({(style.colour, str(style.dash)) for style in series_of(data).values()}) == len(ARMS) + 1


def test_an_arm_with_ppo_settings_of_its_own_says_them(tmp_path: Path) -> None:
    arms = {"baseline": {}, "loose": {"unit_test_reward": 2.0, "rl": {"kl_beta": 0.0, "clip": 0.3}}}
    found = groups_of([load_run(make_run(tmp_path / "run", arms=arms))])[0].data
    assert describe_arm(found, "loose") == "2 · unit tests only, clip 0.3, kl_beta 0.0"


def test_main_table_has_a_row_per_policy(data: Experiment) -> None:
    table = main_table(data)
    assert [row[0].text for row in table.rows] == ["sft", *ARMS]
    assert all(len(row) == len(table.columns) for row in table.rows)
    baseline = pass_at_1(data, "baseline")
    assert baseline is not None
    assert table.rows[1][1].text == percent(baseline.mean)


def test_stage_tables_have_full_rows(data: Experiment) -> None:
    for table in (prm_table(data), scan_table(data)):
        assert table is not None
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert any(cell != MISSING for row in table.rows for cell in row[2:])


def test_answer_keeps_the_oracle_apart_and_claims_only_what_excludes_zero(data: Experiment) -> None:
    sentences = answer(data)
    above = " ".join(s for s in sentences if s.startswith("Above"))
    for arm in ARMS:
        found = difference(data, arm)
        assert found is not None
        if arm != "baseline":
            assert bool(re.search(rf"[ ,]{arm} \(", above)) == (found.sign > 0 and not data.is_oracle(arm))
    assert any("trained once" in s for s in sentences)


def test_programs_are_chosen_by_rule(data: Experiment) -> None:
    programs = choose_programs(data.first)
    assert len(programs) == 5
    assert programs[0].title == "Passes all tests"
    firsts = []
    for program in programs[1:]:
        marks = [line.exact for line in program.lines if not line.neutral]
        assert marks == sorted(marks, key="+−".index)  # good lines, then bad ones
        firsts.append(marks.index("−") / len(marks))
    assert firsts == sorted(firsts)
    assert all(len(line.scores) == 2 and not math.isnan(line.scores[0]) for p in programs for line in p.lines)


def test_a_line_that_the_search_left_open_has_no_mark(data: Experiment) -> None:
    def marks(first: int, **changes: Any) -> tuple[str, set[str], bool]:
        """Mark and title of a program whose bad lines, from `first` on in their order, are 0."""
        labels = []
        for label in data.first.labels:
            bad = [index for index, value in enumerate(label.labels) if value < 0]
            values = tuple(0.0 if index in bad[first:] else value for index, value in enumerate(label.labels))
            labels.append(dataclasses.replace(label, labels=values, **changes))
        programs = choose_programs(dataclasses.replace(data.first, labels=tuple(labels), exact={}))[1:]
        assert programs
        lines = [line for program in programs for line in program.lines if not line.neutral]
        return programs[0].title, {line.search for line in lines}, all("first bad line" in p.title for p in programs)

    assert marks(0) == ("Fails (3 of 8 tests)", {"+", ""}, False)
    assert marks(1)[1:] == ({"+", "−", ""}, True)  # proved up to the first bad line
    assert marks(0, strategy="soft")[1:] == ({"+", "−"}, True)  # there 0 is a success rate


def test_a_line_has_the_colour_of_the_side_that_its_score_is_on(data: Experiment) -> None:
    def shown(target: str, score: float) -> tuple[set[tuple[str, float]], str]:
        """Tint and strength of all code lines, and the lead's word on them, where one PRM scores every line so."""
        prm = data.first.prm["sign"]
        scores = {key: tuple(score for _ in row) for key, row in prm.scores.items()}
        settings = data.first.recipe.prm["sign"].model_copy(update={"target": target})
        run = dataclasses.replace(
            data.first,
            recipe=data.first.recipe.model_copy(update={"prm": {"sign": settings}}),
            prm={"sign": dataclasses.replace(prm, scores=scores)},
        )
        lines = [line for program in choose_programs(run) for line in program.lines if not line.neutral]
        return {(line.tint, line.strength) for line in lines}, background(run)

    assert shown("sign", -0.6)[0] == {("bad", 0.3)}
    assert shown("sign", 2.0)[0] == {("good", 0.5)}
    assert shown("soft", 0.02) == ({("bad", 0.48)}, BACKGROUNDS["soft"])
    assert shown("soft", 0.75)[0] == {("good", 0.25)}
    assert shown("progress", 0.02) == ({("", 0.0)}, BACKGROUNDS["progress"])
    assert shown("sign", math.nan)[0] == {("", 0.0)}
    assert EVEN == MEASURED


def test_hidden_characters_of_programs_are_shown() -> None:
    assert visible("a\u202eb\r\tc\x08") == "a\\u202eb\\r\tc\\x08"


def test_flatten_names_keys_as_set_takes_them() -> None:
    assert flatten({"rl": {"steps": 7, "x": None}, "on": True}) == [("rl.steps", "7"), ("on", "true")]


def test_end_labels_do_not_touch(data: Experiment) -> None:
    _, axes = new_figure("half")
    axes.set_ylim(0, 1)
    series = list(series_of(data).values())
    end_labels(axes, [(1.0, 0.99, style) for style in series], gap=0.1)
    places = sorted(text.xy[1] for text in axes.texts)
    assert all(after - before >= 0.1 - 1e-9 for before, after in itertools.pairwise(places))
    assert places[-1] <= 1.0


def test_unknown_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe\.json: missing"):
        load_run(tmp_path)
