"""benchmarks/study: cells, what a run will cost, in what order it goes, and its pages. Made-up results."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from study_world import STUDY, made_result, small_study

from psgpo.errors import UserError
from study import carry, cli, plan
from study.cells import Study
from study.cost import cost_of, measured, own_stages
from study.pages import write_pages
from study.results import load_all


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('group = "more"', 'group = "mroe"', r"cells\.warm\.group: no group 'mroe'; there are main, more"),
        ('base = "main"', 'base = "mian"', r"cells\.warm\.base: 'mian' is no cell above this one"),
        ('base = "main"', 'base = "main"\nseeds = [7]', r"cells\.warm\.seeds: \[7\] are no seeds of its base 'main'"),
        (
            'base = "main"',
            'base = "main"\ngain_of = {{dense = ["mian/dense"]}}',
            r"cells\.warm\.gain_of\.dense: 'mian' is no cell above",
        ),
        ('"main/dense"', '"mian/dense"', r"cells\.warm\.against\.dense: 'mian' is no cell above"),
        ('title = "warmer"', 'titel = "warmer"', r"cells\.warm\.title: Field required"),
        (
            'title = "warmer"',
            'title = "warmer"\nat = {{a = 1, b = 2}}',
            r"cells\.warm\.at: a, b: figures have one such axis",
        ),
    ],
)
def test_a_wrong_study_is_refused_by_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_study(tmp_path, STUDY.replace(old, new))


def test_a_wrong_override_names_its_cell(tmp_path: Path) -> None:
    study = small_study(tmp_path, STUDY.replace("sampling.temperature", "sampling.temprature"))
    with pytest.raises(UserError, match=r"cells\.warm: .*did you mean 'temperature'"):
        study.recipe("warm", 0)


def test_the_seed_goes_into_overrides_and_the_run_directory(tmp_path: Path) -> None:
    study = small_study(tmp_path, STUDY.replace("sampling.temperature=1.2", "model.path=runs/main-{{seed}}/x"))
    with pytest.raises(UserError, match=r"model\.path"):  # a new model's optimizer does not go with it
        study.recipe("warm", 1)
    recipe = small_study(tmp_path).recipe("warm", 1)
    assert (recipe.seed, recipe.out, recipe.sampling.temperature) == (1, tmp_path / "runs" / "warm-1", 1.2)


def test_seeds_go_before_cells_and_a_base_before_what_it_lends_to(tmp_path: Path) -> None:
    text = STUDY + '[cells.cold]\ngroup = "more"\ntitle = "colder"\noverrides = ["sampling.temperature=0.8"]\n'
    study = small_study(tmp_path, text)
    assert carry.order(study, ["warm", "cold"], None) == [
        ("main", 0),
        ("warm", 0),
        ("cold", 0),
        ("main", 1),
        ("warm", 1),
        ("cold", 1),
    ]
    made_result(study, "main", 0)
    made_result(study, "warm", 0)
    assert carry.order(study, ["warm", "cold"], [0]) == [("cold", 0)]


def test_costs_come_from_the_table_until_something_is_measured(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    first = cost_of(study, {}, "main", 0, frozenset())
    # 60 steps of 64 rollouts at 10 s a thousand; 200 problems of 4 checkpoints, 12 epochs; 16 problems, 9 or 8 samples.
    assert first.stages["rl-dense"] == pytest.approx(38.4)
    assert first.stages["prm-sign"] == pytest.approx(0.8 * 12)
    assert first.stages["labels-1"] == first.stages["labels-2"] == pytest.approx(20)
    assert first.stages["evaluate-dense"] == pytest.approx(0.016 * 9 * 2)
    assert first.stages["study-curve-dense-15"] == pytest.approx(0.016 * 8 * 2)
    assert first.seconds == pytest.approx(sum(first.stages.values()))
    assert set(first.stages) == set(own_stages(study, "main", 0))
    made_result(study, "main", 1)  # rl-dense took 100 s there
    rates = measured(study, load_all(study))
    again = cost_of(study, rates, "main", 0, frozenset())
    assert again.stages["rl-dense"] == pytest.approx(100)
    assert again.stages["rl-value"] == pytest.approx(100), "another stage of the kind"
    assert again.stages["sft"] == first.stages["sft"]


def test_what_was_taken_over_measures_nothing_and_what_is_lent_costs_nothing(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    made_result(study, "main", 0, stages={"rl-dense": {"cpu_seconds": 0.0, "taken_from": "elsewhere"}})
    assert measured(study, load_all(study)) == {}
    whole = cost_of(study, {}, "warm", 0, frozenset())
    less = cost_of(study, {}, "warm", 0, frozenset({"sft", "problems"}))
    assert whole.seconds - less.seconds == pytest.approx(24 * 1 + 10)


def test_the_plan_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(tmp_path)
    monkeypatch.setattr(plan, "lent", lambda study, cell, seed: frozenset({"sft"} if cell == "warm" else ()))
    made_result(study, "main", 0)
    missing = plan.costs(study, ["main", "warm"], None)
    assert [(cost.cell, cost.seed) for cost in missing] == [("main", 1), ("main", 2), ("warm", 0), ("warm", 1)]
    said = plan.plan(study, ["main", "warm"], None, 2)
    minutes = sum(cost.seconds for cost in missing) / 60
    assert f"4 runs to go: about {minutes:.0f} CPU-minutes, {minutes / 2:.0f} minutes on 2 cores" in said
    assert "2 stages are taken over" in said
    assert said.splitlines()[1].split()[:3] == ["main", "1", "2"]
    assert said.splitlines()[1].endswith("  1 2")


def test_one_that_crashes_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = STUDY + '[cells.cold]\ngroup = "more"\ntitle = "colder"\noverrides = ["sampling.temperature=0.8"]\n'
    study = small_study(tmp_path, text)

    def run_one(study: Study, cell: str, seed: int, **options: object) -> bool:
        if (cell, seed) == ("main", 0):
            raise UserError("no room")
        if (cell, seed) == ("cold", 0):
            raise ZeroDivisionError("a defect")
        return True

    monkeypatch.setattr(carry, "run_one", run_one)
    jobs = [("main", 0), ("warm", 0), ("cold", 0), ("main", 1), ("warm", 1)]
    outcome = carry.carry_out(study, jobs, processes=1, minutes=None)
    assert outcome.done == [("main", 1), ("warm", 1)]
    assert outcome.failed == {
        ("main", 0): "no room",
        ("warm", 0): "its base main is not done",
        ("cold", 0): "ZeroDivisionError: a defect",
    }
    monkeypatch.setattr(sys, "argv", ["study"])
    assert (
        cli._run(cli._parser().parse_args(["run", "--study", str(study.path), "--cells", "main", "--seeds", "0"])) == 1
    )


def test_nothing_new_starts_when_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(tmp_path)
    monkeypatch.setattr(carry, "run_one", lambda *_, **__: pytest.fail("started"))
    outcome = carry.carry_out(study, [("main", 0), ("main", 1)], processes=1, minutes=0)
    assert (outcome.done, outcome.failed, outcome.left) == ([], {}, [("main", 0), ("main", 1)])


def test_pages_have_tables_figures_and_the_same_numbers_as_csv(tmp_path: Path) -> None:
    study = small_study(tmp_path / "study")
    for seed in range(2):
        made_result(study, "main", seed, {"dense": [4] * 16})
    out = tmp_path / "out"
    written = write_pages(study, ["main"], out)
    assert {path.name for path in written} >= {
        "main.md",
        "main-arms.csv",
        "main-differences.png",
        "main-checkpoints.png",
    }
    assert not (out / "more.md").exists()
    page = (out / "main.md").read_text()
    assert "```\n.venv/bin/python benchmarks/study table --group main\n```" in page
    index = (out / "README.md").read_text()
    assert "| [Main](main.md) | Does it help? | 2 of 3 |" in index
    assert "| More: `.venv/bin/python benchmarks/study run --group more` | And here? | 0 of 2 |" in index
    assert "| first | dense | 2 | 0.500 | baseline | 2 | +0.250 | **+0.250** (+0.250 … +0.250) |" in page
    assert "[1] missing seeds 2: not run (run: `.venv/bin/python benchmarks/study run --cells main --seeds 2`)" in page
    with (out / "main-arms.csv").open() as stream:
        dense = next(row for row in csv.DictReader(stream) if row["arm"] == "dense")
    assert (dense["pass@1"], dense["difference, bootstrap"]) == ("0.5", "0.25")
    assert dense["missing"].startswith("missing seeds 2")
    assert "| first | binary-search | 2 | 8 | 6 | 40.0 | 30.0 | 0.900 |" in page


def test_a_study_is_repeated_in_a_folder_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = small_study(tmp_path / "published")
    for seed in range(3):
        made_result(study, "main", seed)
    again = Study.load(study.path, tmp_path / "again")
    assert again.run_path("main", 0) == tmp_path / "again" / "runs" / "main-0"
    assert load_all(again) == {}
    made_result(again, "main", 0)
    with pytest.raises(SystemExit) as ended:
        cli.main(["table", "--study", str(study.path), "--into", str(tmp_path / "again")])
    assert ended.value.code == 0
    page = (tmp_path / "again" / "pages" / "main.md").read_text()
    assert f"study run --into {tmp_path / 'again'} --cells main --seeds 1 2" in page
    assert f"`{tmp_path / 'again' / 'results'}/`" in page
    assert str(tmp_path / "again" / "pages") in capsys.readouterr().out


def test_commands_refuse_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = small_study(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", "--study", str(study.path), "--cells", "mian"])
    assert ended.value.code == 2
    assert "no cell 'mian'; there are main, warm" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--study", str(study.path), "--jobs", "0"])
    assert ended.value.code == 2
