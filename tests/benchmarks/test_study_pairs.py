"""benchmarks/study: what is compared, what is not, and how sure the difference is. Made-up results."""

from __future__ import annotations

import dataclasses
import itertools
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_world import SAMPLES, STUDY, P, made_result, prm_measure, small_study

from psgpo.errors import UserError
from psgpo.jsonl import write_json, write_jsonl
from psgpo.records import Call, CallTests, Problem
from psgpo.runs.directory import RunDirectory
from study import collect, measures, naming, pace, rows
from study.cells import Study
from study.collect import best_of_result
from study.compare import Side, pair, share_of_gain, steps_to_reach, two_level_bootstrap
from study.posts import CHOSEN, Post, is_done
from study.results import load_all, pack_lengths, unfinished, unpack_lengths, why_no_best_of
from study.tables import shown

DENSE, BASELINE = Side(cell="main", arm="dense"), Side(cell="main", arm="baseline")


def test_a_difference_is_paired_by_seed_and_problem(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    for seed in range(3):
        made_result(study, "main", seed, {"dense": [2 + seed] * P, "baseline": [1] * P})
    pairs = pair(study, load_all(study), DENSE, BASELINE)
    assert pairs.seeds == (0, 1, 2)
    assert not pairs.missing
    assert [difference_P.tolist() for difference_P in pairs.differences()] == [
        [(1 + seed) / SAMPLES] * P for seed in range(3)
    ]
    assert two_level_bootstrap(pairs.differences()).value == pytest.approx(2 / SAMPLES)


def test_a_group_of_problems_is_cut_out_by_operations(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    made_result(study, "main", 0, {"dense": [4 if n % 8 < 2 else 2 for n in range(P)]})
    pairs = pair(study, load_all(study), DENSE, BASELINE)
    assert [difference_P.tolist() for difference_P in pairs.differences(1, 2)] == [[0.25] * 4]
    assert [difference_P.tolist() for difference_P in pairs.differences(3, 8)] == [[0.0] * 12]
    assert pairs.differences(9, 10) == []
    assert [pairs.factor(1, 2), pairs.factor(3, 8)] == [2.0, 1.0]
    assert [pairs.level(1, 2), pairs.level(3, 8)] == [0.25, 0.25]
    assert math.isnan(pairs.factor(9, 10))


def test_decoding_shows_greedy_programs_and_any_of_eight(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    half = [1] * (P // 2) + [0] * (P // 2)  # one pass in eight of half the problems, no greedy one
    for seed in range(2):
        made_result(study, "main", seed, {"dense": [4] * P, "baseline": half})
    row = next(row for row in rows.decoding(study, load_all(study), ["main"]) if row["arm"] == "dense")
    assert (row["pairs"], row["greedy"], row["greedy: difference"].value) == (2, 1.0, 1.0)
    assert (row["pass@8"], row["pass@8: difference"].value) == (1.0, 0.5)
    assert row["missing"].startswith("missing seeds 2: not run")


def test_without_a_greedy_program_the_table_has_a_dash(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    data = made_result(study, "main", 0)
    data["policies"]["dense"]["greedy"] = None
    made_result(study, "main", 0, policies=data["policies"])
    row = next(row for row in rows.decoding(study, load_all(study), ["main"]) if row["arm"] == "dense")
    assert [shown(row["greedy"]), shown(row["greedy: difference"])] == ["–", "–"]


def test_missing_seeds_are_named_with_their_command_and_not_averaged_over(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    made_result(study, "main", 1, {"dense": [4] * P})
    dense = next(row for row in rows.arms(study, load_all(study), ["main"]) if row["arm"] == "dense")
    assert (dense["seeds"], dense["pairs"], dense["pass@1"]) == (1, 1, 0.5)
    assert dense["difference, bootstrap"].value == 0.25
    assert math.isnan(dense["difference, bootstrap"].low), "one seed says nothing about others"
    assert dense["missing"] == (
        "missing seeds 0 2: not run (run: `.venv/bin/python benchmarks/study run --cells main --seeds 0 2`)"
    )


def test_a_result_of_another_recipe_is_refused_for_the_arms_that_it_changes(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    old = study.recipe("main", 0).model_dump(mode="json")
    old["arms"]["dense"]["lambda_fail"] = 0.5
    made_result(study, "main", 0, recipe=old)
    results = load_all(study)
    assert pair(study, results, DENSE, BASELINE).missing == {
        0: ("main", "made by another recipe"),
        1: ("main", "not run"),
        2: ("main", "not run"),
    }
    assert pair(study, results, Side(cell="main", arm="value"), BASELINE).seeds == (0,)
    assert unfinished(study, results, "main", 0) == ["dense"]


def test_how_many_programs_ran_at_once_makes_no_result_old(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    other = study.recipe("main", 0).model_dump(mode="json")
    other["sandbox"]["workers"] = 3
    made_result(study, "main", 0, recipe=other)
    assert unfinished(study, load_all(study), "main", 0) == []


def test_a_prm_of_another_recipe_makes_the_arms_behind_it_old(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    old = study.recipe("main", 0).model_dump(mode="json")
    old["prm"]["sign"]["epochs"] = 1
    made_result(study, "main", 0, recipe=old)
    assert unfinished(study, load_all(study), "main", 0) == ["dense", "value", "prm sign"]
    row = measures.prms(study, load_all(study), ["main"])[0]
    assert row["seeds"] == 0
    assert "missing seeds 0: made by another recipe" in row["missing"]


def test_a_key_that_a_newer_version_added_is_its_default(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    before = study.recipe("main", 0).model_dump(mode="json")
    del before["labels"]["hunt"]
    made_result(study, "main", 0, recipe=before)
    assert unfinished(study, load_all(study), "main", 0) == []


@pytest.mark.parametrize(
    ("key", "why"),
    [("problems", "other evaluation problems"), ("sft_sha256", "another SFT policy (other processor?)")],
)
def test_results_of_other_problems_or_another_sft_policy_are_not_paired(tmp_path: Path, key: str, why: str) -> None:
    study = small_study(tmp_path)
    for seed in (0, 1):
        made_result(study, "main", seed)
        made_result(study, "warm", seed)
    made_result(study, "warm", 1, **{key: "of another"})
    pairs = pair(study, load_all(study), Side(cell="warm", arm="dense"), DENSE)
    assert pairs.seeds == (0,)
    assert pairs.missing == {1: ("warm", why)}


def test_a_broken_result_is_refused_by_name(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    made_result(study, "main", 0)
    path = study.result_path("main", 0)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match=r"main/0\.json: not valid JSON.*delete it and run its cell again"):
        load_all(study)
    path.write_text("{}")
    with pytest.raises(UserError, match=r"main/0\.json: no 'cell', so no result"):
        load_all(study)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    truth, hits = 0.05, 0
    for trial in range(150):
        seeds = [truth + rng.normal(0, 0.1) + rng.normal(0, 0.3, size=64) for _ in range(5)]
        found = two_level_bootstrap(seeds, resamples=300, seed=trial)
        hits += found.low <= truth <= found.high
    assert 0.91 <= hits / 150 <= 1.0


def test_few_seeds_have_no_bootstrap_interval() -> None:
    """Two seeds that agree would look sure of themselves."""
    four = two_level_bootstrap([np.full(P, value) for value in (0.1, 0.1, 0.1, 0.1)])
    assert (four.value, four.count, math.isnan(four.low)) == (pytest.approx(0.1), 4, True)
    assert two_level_bootstrap([np.full(P, 0.1)] * 5).low == pytest.approx(0.1)


def test_the_interval_shrinks_with_seeds_and_holds_the_mean() -> None:
    rng = np.random.default_rng(1)
    few = [rng.normal(0.1, 0.2, size=64) for _ in range(6)]
    many = few + [rng.normal(0.1, 0.2, size=64) for _ in range(30)]
    narrow, wide = two_level_bootstrap(many), two_level_bootstrap(few)
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)
    assert narrow.value == pytest.approx(np.mean([value_P.mean() for value_P in many]))
    assert math.isnan(two_level_bootstrap([]).value)


def test_a_share_of_a_gain_varies_less_than_both_gains_where_they_vary_together() -> None:
    rng = np.random.default_rng(2)
    whole = [rng.normal(0.2 + 0.05 * seed, 0.1, size=64) for seed in range(6)]
    share = share_of_gain([0.8 * value_P for value_P in whole], whole)
    assert (share.value, share.low, share.high) == pytest.approx((0.8, 0.8, 0.8))
    loose = share_of_gain([0.8 * value_P + rng.normal(0, 0.1, size=64) for value_P in whole], whole)
    assert loose.low < 0.8 < loose.high


def test_there_is_no_sure_share_of_a_gain_that_may_be_none() -> None:
    rng = np.random.default_rng(3)
    whole = [rng.normal(value, 0.1, size=64) for value in (-0.2, 0.3, -0.1, 0.2, 0.1)]
    assert math.isnan(share_of_gain(whole, whole).low)


def test_shares_are_of_the_bound_on_the_same_seeds(tmp_path: Path) -> None:
    study = small_study(tmp_path, STUDY.replace('curve_arms = ["dense"]', 'gain_of = {{dense = ["value"]}}'))
    for seed in range(2):
        made_result(study, "main", seed, {"baseline": [1] * P, "dense": [2] * P, "value": [5] * P})
    (row,) = rows.shares(study, load_all(study), ["main"])
    assert (row["arm"], row["of the gain of"], row["seeds"], row["share"].value) == ("dense", "value", 2, 0.25)
    assert row["missing"].startswith("missing seeds 2: not run")


def test_a_share_may_be_of_an_arm_of_another_cell(tmp_path: Path) -> None:
    text = STUDY.replace('against = {{dense = ["main/dense"]}}', 'gain_of = {{dense = ["main/value"]}}')
    study = small_study(tmp_path, text)
    for seed in range(2):
        made_result(study, "main", seed, {"baseline": [1] * P, "value": [5] * P})
        made_result(study, "warm", seed, {"baseline": [2] * P, "dense": [4] * P})
    (row,) = rows.shares(study, load_all(study), ["warm"])
    assert (row["seeds"], row["of the gain of"]) == (2, "main/value")
    assert [row[key].value for key in ("gain", "which is", "share")] == [0.25, 0.5, 0.5]


def test_steps_to_the_baseline_are_interpolated() -> None:
    points = [(0.0, 0.1), (30.0, 0.1), (60.0, 0.4)]
    assert steps_to_reach(points, 0.25) == pytest.approx(45)
    assert steps_to_reach(points, 0.1) == 0
    assert steps_to_reach(points, 0.4) == 60
    assert math.isinf(steps_to_reach(points, 0.41))


def test_the_step_table_starts_at_the_sft_policy_and_counts_who_never_arrives(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    # The baseline ends at 2/8; SFT has 0, dense .125 at step 30 and .5 at 60: .25 is passed at step 40.
    for seed in range(2):
        made_result(study, "main", seed, {"sft": [0] * P, "dense": [4] * P})
    made_result(study, "main", 2, {"sft": [0] * P, "dense": [4] * P, "baseline": [6] * P})
    (row,) = pace.steps(study, load_all(study), ["main"])
    assert (row["pairs"], row["reached"], row["steps of each seed"]) == (3, 2, "40 40 never")
    assert row["share of the steps"] == pytest.approx(40 / 60)


def test_a_baseline_reaches_its_own_pass_rate_though_files_hold_it_rounded(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    made_result(study, "main", 0, {"sft": [0] * P, "dense": [2] * P}, curves={"dense": [[30, 0.1], [60, 0.249999]]})
    (row,) = pace.steps(study, load_all(study), ["main"])
    assert row["steps of each seed"] == "60"


def test_a_command_makes_room_for_what_run_would_take_for_done(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    for cell in ("main", "warm"):
        made_result(study, cell, 0)
    made_result(study, "warm", 0, sft_sha256="of another")
    pairs = pair(study, load_all(study), Side(cell="warm", arm="dense"), DENSE)
    said = naming.missing(study, pairs)
    where = f"{study.run_path('warm', 0)} {study.result_path('warm', 0)}"
    assert f"`rm -rf {where} && .venv/bin/python benchmarks/study run --cells warm --seeds 0`" in said


def test_a_seed_without_best_of_n_is_named(tmp_path: Path) -> None:
    study = small_study(tmp_path, STUDY.replace('curve_arms = ["dense"]', 'best_of = ["dense"]\nbest_of_samples = 2'))
    of = {"samples": 2, "passes": [1] * P}
    for seed, best_of in enumerate(({"dense": of}, {}, {"dense": of})):
        made_result(study, "main", seed, best_of=best_of)
    (row,) = measures.best_of(study, load_all(study), ["main"])
    assert (row["seeds"], row["n = 1"].value, row["n = 2"].value) == (2, 0.5, 1.0)
    assert "missing seeds 1: best of n not measured" in row["missing"]


BEST_OF = 'best_of = ["baseline"]\nbest_of_samples = 2\nbest_of_prm = "sign"'
OF: Any = {"samples": 2, "passes": [1] * P, "chosen": {"random": [0.5, 0.5], "sign-last": [0.5, 0.75]}}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ("best_of_samples = 3", "best of 2 measured, not of 3"),
        ('best_of_prm = "other"', "not chosen by PRM other"),
        ('overrides = ["prm.sign.epochs=9"]', "made by another recipe"),
    ],
)
def test_best_of_n_is_that_of_the_samples_and_the_prm_that_are_wanted(tmp_path: Path, changed: str, why: str) -> None:
    small = STUDY.replace('curve_arms = ["dense"]', BEST_OF)
    study = small_study(tmp_path, small)
    made_result(study, "main", 0, best_of={"baseline": OF})
    assert unfinished(study, load_all(study), "main", 0) == []
    assert [row["seeds"] for row in measures.best_of(study, load_all(study), ["main"])] == [1, 1]
    key = changed.partition(" = ")[0]
    lines = [line for line in small.splitlines() if not line.startswith(f"{key} = ") or "sampling" in line]
    lines.insert(lines.index('best_of = ["baseline"]'), changed)
    study = small_study(tmp_path, "\n".join(lines))
    assert "best of baseline" in unfinished(study, load_all(study), "main", 0)
    # The arm is there, its best of n is not.
    assert why_no_best_of(study, load_all(study), "main", 0, "baseline") == why
    assert measures.best_of(study, load_all(study), ["main"]) == []


def test_the_best_of_n_in_git_is_what_the_study_wants() -> None:
    study = Study.load()
    results = {pair: of for pair, of in load_all(study).items() if pair[0] == "main"}
    assert len(results) == 10
    for (cell, seed), policy in itertools.product(results, study.cells["main"].best_of):
        assert why_no_best_of(study, results, cell, seed, policy) is None


def best_of_post(run: Path, **changes: Any) -> Post:
    given = {"name": "study-best-of-dense", "kind": "best-of", "policy": "dense", "folder": run / "rl/dense/model"}
    return Post(**({"out": run / "study/best_of/dense", "samples": 2, **given} | changes))


def test_another_number_of_samples_is_not_recorded_over_what_was_drawn(tmp_path: Path) -> None:
    run = tmp_path / "run"
    tests = CallTests(function="solve", calls=(Call(args=(1,), expected=2),))
    problems = [Problem(id=name, prompt=name, tests=tests) for name in ("t0", "t1")]
    verdicts = {"t0": ("PASSED", "PASSED"), "t1": ("PASSED", "TIMEOUT")}
    drawn = [
        {"problem_id": name, "index": index, "verdict": {"status": status}}
        for name, statuses in verdicts.items()
        for index, status in enumerate(statuses)
    ]
    post = best_of_post(run)
    write_jsonl(post.out / "samples.jsonl", drawn)
    for name in (post.name, f"{CHOSEN}dense"):
        write_json(run / "stages" / f"{name}.json", {"stage": name})
    assert best_of_result(run, post, problems) == {"samples": 2, "passes": [2, 1]}
    with pytest.raises(
        UserError, match=r"2 samples of every problem, and study.toml wants best_of_samples = 3"
    ) as error:
        best_of_result(run, best_of_post(run, samples=3), problems)
    subprocess.run(str(error.value).partition("; ")[2].removesuffix(", and run again"), shell=True, check=True)
    assert not post.out.exists()
    assert list((run / "stages").iterdir()) == []


def test_a_choice_by_another_prm_is_to_do(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, Study.load().recipe("main", 0))
    post = best_of_post(tmp_path, name=f"{CHOSEN}dense", kind="chosen", out=tmp_path / "chosen", prm="sign")
    assert not is_done(run, post)
    write_json(tmp_path / "stages" / f"{post.name}.json", {"stage": post.name})
    assert not is_done(run, post)  # its results are gone
    write_json(post.out / "summary.json", {"methods": {"random": {}, "sign-last": {}}})
    assert is_done(run, post)
    assert not is_done(run, dataclasses.replace(post, prm="exact"))


def test_prms_are_measured_over_seeds(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    for seed, auroc in enumerate((0.90, 0.92, 0.97)):
        made_result(study, "main", seed, prm={"sign": {"exact": prm_measure(auroc)}})
    (row,) = measures.prms(study, load_all(study), ["main"])
    assert (row["seeds"], row["AUROC"].value, row["missing"]) == (3, pytest.approx(0.93), "")
    assert shown(row["AUROC"]) == "0.930 (0.840 … 1.000)", "a share ends at 1"


def test_the_place_of_a_line_alone_has_an_auroc() -> None:
    fifths = [{"lines": 2, "good_share": 1.0}, {"lines": 2, "good_share": 0.5}, {"lines": 0, "good_share": None}]
    assert collect._position(fifths) == pytest.approx((2 + 0.5) / 3)  # three good lines against one


def test_at_equal_cost_an_arm_has_the_steps_that_its_price_leaves(tmp_path: Path) -> None:
    study = small_study(
        tmp_path, STUDY.replace('arms = ["dense"]\nagainst', 'curve_arms = ["dense"]\narms = ["dense"]\nagainst')
    )
    seconds = {
        "rl-baseline": 4.0,
        "responses": 10.0,
        "labels-1": 20.0,  # without the programs; the labels' own count is 10 s for each of 6 responses that failed
        "labels": 1.0,
        "prm-sign": 9.0,
        "rl-dense": 99.0,
    }
    stages = {name: {"cpu_seconds": value} for name, value in seconds.items()}
    made_result(study, "main", 0, {"sft": [0] * P, "dense": [6] * P})  # 60 steps, to .75
    made_result(study, "warm", 0, {"sft": [0] * P, "dense": [4] * P}, stages=stages)
    row, lack = pace.equal_cost(study, load_all(study), ["warm"])
    # The baseline's two steps took 2 s each, so 83 s are 41.5 steps; 18.5 of 60 are left, on the line to .125 at 30.
    assert (row["against"], row["seed"], row["price in steps"], row["steps left"]) == ("main/dense", 0, 42, 18)
    assert row["pass@1 then"] == pytest.approx(0.125 * 18.5 / 30)
    assert (row["the reference's"], row["steps to it"]) == (0.75, "never")
    assert row["missing"] == ""
    assert lack["missing"].startswith("missing seeds 1: not run")
    assert list(lack) == list(row)
    assert [lack[key] for key in pace.EQUAL_COST] == ["–"] * len(pace.EQUAL_COST)
    assert pace.equal_cost(study, load_all(study), ["main"]) == []


def test_fresh_seeds_are_shown_alone(tmp_path: Path) -> None:
    study = small_study(tmp_path, STUDY.replace("seeds = [0, 1, 2]", "seeds = [0, 1, 2]\nfresh = [1, 2]"))
    for seed in range(2):
        made_result(study, "main", seed, {"baseline": [1] * P, "dense": [2 + seed] * P})
    row = next(row for row in rows.fresh(study, load_all(study), ["main"]) if row["arm"] == "dense")
    assert (row["pairs"], row["difference, bootstrap"].value) == (1, 0.25)
    assert row["missing"].startswith("missing seeds 2: not run")
    assert rows.fresh(study, load_all(study), ["warm"]) == []


def test_every_seed_is_shown(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    for seed in (0, 2):
        made_result(study, "main", seed, {"sft": [0] * P, "baseline": [1] * P, "dense": [2 + seed] * P})
    sft, baseline, dense, value = rows.by_seed(study, load_all(study), ["main"])
    assert [row["arm"] for row in (sft, baseline, dense, value)] == ["sft", "baseline", "dense", "value"]
    assert (dense["seed 0"], dense["seed 2"], baseline["seed 2"]) == (0.25, 0.5, 0.125)
    assert math.isnan(dense["seed 1"])
    assert dense["missing"].startswith("missing seeds 1: not run")


def test_steps_are_counted_to_the_first_reference(tmp_path: Path) -> None:
    study = small_study(
        tmp_path, STUDY.replace('arms = ["dense"]\nagainst', 'curve_arms = ["dense"]\narms = ["dense"]\nagainst')
    )
    made_result(study, "main", 0, {"dense": [2] * P})
    made_result(study, "warm", 0, {"sft": [0] * P, "dense": [4] * P, "baseline": [1] * P})
    (row,) = pace.steps(study, load_all(study), ["warm"])
    assert (row["to that of"], row["steps, median"]) == ("main/dense", "40")  # .25, between .125 at 30 and .5 at 60


def test_costs_are_by_kind_of_stage_and_what_is_taken_over_stands_apart(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    seconds = {"sft": 60.0, "rl-baseline": 40.0, "rl-dense": 50.0, "labels-1": 100.0, "labels": 2.0, "prm-sign": 30.0}
    stages: dict[str, dict[str, object]] = {name: {"cpu_seconds": value} for name, value in seconds.items()}
    stages["rl-value"] = {"cpu_seconds": 45.0, "taken_from": "elsewhere"}
    made_result(study, "main", 0, stages=stages)
    (row,) = measures.costs(study, load_all(study), ["main"])
    assert (row["SFT"], row["labels"], row["PRMs"], row["RL"], row["one arm of RL"]) == ("60", "102", "30", "90", "45")
    assert (row["all"], row["taken over"]) == ("282", "45")


def test_lengths_survive_packing() -> None:
    tokens, passed = [[0, 1, 256], [512, 9, 32767]], [[True, False, True], [False, False, True]]
    found = unpack_lengths(pack_lengths(tokens, passed), 2)
    assert found[0].tolist() == tokens
    assert found[1].tolist() == passed


def test_quarters_go_by_the_tokens_of_the_reference(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    made_result(study, "main", 0, {"dense": [2] * (P - 4) + [6] * 4})
    row = next(row for row in rows.by_length(study, load_all(study), ["main"]) if row["arm"] == "dense")
    assert (row["shortest: tokens"], row["longest: tokens"]) == ("12", "24")  # 10 … 13 and 22 … 25 tokens
    assert [row[name].value for name in rows.QUARTERS] == [0, 0, 0, 0.5]
