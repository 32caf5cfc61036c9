"""Recipes on public benchmarks: ranges, test sets, what is trained on and tested; models by their name on the Hub."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from psgpo.config import PrmSettings, Recipe, parse_recipe
from psgpo.config.problems import BenchmarkName
from psgpo.errors import UserError
from psgpo.evaluation.sets import EvalSet, load_sets, parts_of, save_sets
from psgpo.evaluation.summary import summarise_tests
from psgpo.problems.benchmarks import BENCHMARKS
from psgpo.runs import hub
from psgpo.runs.directory import RunDirectory
from psgpo.runs.hub import cached_folder, model_folder
from psgpo.runs.splits import load_tasks
from psgpo.runs.stages import run_stage, stage_graph

Table = dict[str, Any]


def mbpp_row(number: int, text: str | None = None) -> Table:
    text = text or f"Write a function to add {number}."
    code = f"def add(x):\n    return x + {number}"
    tests = [f"assert add(1) == {number + 1}"]
    return {
        "task_id": number,
        "text": text,
        "code": code,
        "test_list": tests,
        "test_setup_code": "",
        "challenge_test_list": [],
    }


@pytest.fixture
def mbpp(tmp_path: Path) -> Path:
    path = tmp_path / "mbpp.jsonl"
    path.write_text("".join(json.dumps(mbpp_row(number)) + "\n" for number in range(1, 21)))
    return path


def recipe(mbpp: Path, problems: Table, **changes: Any) -> Recipe:
    source = {"kind": "benchmark", "data": {"mbpp": str(mbpp)}} | problems
    table: Table = {"name": "t", "out": str(mbpp.parent / "run"), "problems": source, "arms": {"baseline": {}}}
    return parse_recipe(table | changes, origin="r.toml")


def tasks(first: int, last: int) -> Table:
    return {"benchmark": "mbpp", "ids": [first, last]}


def test_the_names_of_benchmarks_are_those_that_can_be_loaded() -> None:
    assert set(get_args(BenchmarkName)) == set(BENCHMARKS)


def test_ranges_are_read_and_prompts_are_the_tasks_own_words(mbpp: Path) -> None:
    found = load_tasks(recipe(mbpp, {"train": tasks(3, 4), "sft": tasks(5, 6), "test": {"m": tasks(1, 2)}}))
    ids = {name: [problem.id for problem in problems] for name, problems in found.splits.items()}
    assert ids == {
        "sft": ["Mbpp/5", "Mbpp/6"],
        "train": ["Mbpp/3", "Mbpp/4"],
        "label": ["Mbpp/3", "Mbpp/4"],
        "test": ["Mbpp/1", "Mbpp/2"],
    }
    assert found.splits["train"][0].prompt == "Write a function to add 3.\nassert add(1) == 4"
    mutants = {"labels": {"source": "mutation"}}
    found = load_tasks(recipe(mbpp, {"train": tasks(3, 4), "sft": tasks(5, 6), "test": {"m": tasks(1, 2)}}, **mutants))
    assert [problem.id for problem in found.splits["label"]] == ["Mbpp/5", "Mbpp/6"]


def test_what_is_trained_on_is_refused_as_a_test_or_counted(mbpp: Path) -> None:
    overlapping = {"train": tasks(3, 8), "sft": tasks(10, 12), "test": {"m": tasks(1, 5), "n": tasks(12, 13)}}
    with pytest.raises(UserError, match=r"problems\.test\.m: 3 of 5 problems are trained on too \(Mbpp/3\)"):
        load_tasks(recipe(mbpp, overlapping))
    found = load_tasks(recipe(mbpp, overlapping | {"test_trained": "report"})).tests
    assert found["m"].trained_on == {"Mbpp/3", "Mbpp/4", "Mbpp/5"}
    assert found["n"].trained_on == {"Mbpp/12"}  # by SFT
    assert found["m"].part("clean") == {"Mbpp/1", "Mbpp/2"}


def test_the_same_task_under_another_number_is_trained_on_too(mbpp: Path) -> None:
    rows = [mbpp_row(3), mbpp_row(3) | {"task_id": 30}]
    mbpp.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"1 of 1 problems are trained on too \(Mbpp/30\)"):
        load_tasks(recipe(mbpp, {"train": tasks(3, 3), "test": {"m": tasks(30, 30)}}))


def test_a_problem_belongs_to_one_test_set(mbpp: Path) -> None:
    with pytest.raises(UserError, match=r"Mbpp/2 is in 'a' and in 'b'"):
        load_tasks(recipe(mbpp, {"train": tasks(5, 6), "test": {"a": tasks(1, 2), "b": tasks(2, 3)}}))


@pytest.mark.parametrize(
    ("labels", "twins", "key"), [({"halving": True}, False, "labels.halving"), ({}, True, "prm.p.twins")]
)
def test_what_joins_programs_by_lines_is_refused(mbpp: Path, labels: Table, twins: bool, key: str) -> None:
    splice = {"strategy": "splice", "references": True} | labels
    prm = {"p": {"target": "progress", "twins": twins}}
    splits = {"train": tasks(1, 2), "test": {"m": tasks(3, 4)}}
    with pytest.raises(UserError, match=re.escape(f"{key} is for programs joined by lines")):
        recipe(mbpp, splits, labels=splice, prm=prm)


@pytest.mark.parametrize(
    ("problems", "words"),
    [
        ({"train": {"benchmark": "mbbp"}}, "problems.train.benchmark"),
        ({"train": {"benchmark": "mbpp", "idz": [1, 2]}}, "did you mean 'ids'"),
        ({"train": {"benchmark": "mbpp", "ids": [5, 1]}}, "[fewest, most]"),
        ({"train": {"benchmark": "livecodebench", "ids": [1, 2]}}, "have no numbers"),
        ({"test": {}}, "problems.test"),
        ({"trian": tasks(1, 2)}, "did you mean 'train'"),
        ({"data": {"mbbp": "a.jsonl"}}, "problems.data.mbbp"),
    ],
)
def test_a_source_that_makes_no_sense_names_its_key(mbpp: Path, problems: Table, words: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe(mbpp, {"train": tasks(3, 4), "test": {"m": tasks(1, 2)}} | problems)
    assert words in str(caught.value)


def test_no_file_and_no_hub_names_file_and_key(mbpp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    problems = {"data": {}, "train": tasks(3, 4), "test": {"m": tasks(1, 2)}}
    with pytest.raises(
        UserError, match=r"no route to host\); get mbpp\.jsonl of .* and give it with problems\.data\.mbpp"
    ):
        load_tasks(recipe(mbpp, problems))


MUTATION = {"labels": {"source": "mutation"}}
TASKS = {"train": tasks(3, 4), "test": {"m": tasks(1, 2)}}


def test_mutants_take_the_place_of_the_search(mbpp: Path) -> None:
    prms = {
        "encoder": {"kind": "encoder", "target": "sign", "init": "owner/name"},
        "own": {"target": "sign"},
        "causal": {"target": "sign", "init": "owner/name"},
        "orm": {"kind": "ngrams", "target": "sign", "scope": "program"},
    }
    graph = stage_graph(recipe(mbpp, TASKS, prm=prms, **MUTATION))
    assert graph["mutants"].needs == ("problems",)
    assert not [name for name in graph if name.startswith(("responses", "labels"))]
    needs = {name: graph[f"prm-{name}"].needs for name in prms}
    assert needs == {
        "encoder": ("problems", "mutants"),
        "own": ("problems", "mutants", "sft"),
        "causal": ("problems", "mutants", "sft"),
        "orm": ("problems", "mutants"),
    }
    searched = stage_graph(recipe(mbpp, TASKS, prm=prms))
    assert searched["prm-encoder"].needs == ("problems", "labels")
    assert [name for name, stage in searched.items() if stage.together] == ["sft", "rl-baseline", "prm-own"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prm": {"p": {"target": "progress"}}} | MUTATION, "mutants have labels of lines and nothing else"),
        ({"prm": {"p": {"target": "sign", "responses": 9}}} | MUTATION, "leave labels, select, responses"),
        ({"prm": {"p": {"target": "sign", "kind": "encoder"}}}, "needs init"),
        ({"prm": {"p": {"target": "sign", "kind": "ngrams", "init": "x"}}}, "starts from nothing"),
        ({"prm": {"p": {"target": "progress", "kind": "ngrams"}}}, "target = 'progress' needs a PRM of lines"),
        ({"arms": {"baseline": {}, "a": {"line_reward": "program", "prm": "p"}}}, "needs a PRM of scope 'program'"),
        ({"arms": {"baseline": {}, "a": {"line_reward": "sum", "prm": "o"}}}, "needs a PRM of scope 'line'"),
        ({"arms": {"baseline": {}, "a": {"value_init": "o"}}}, "a critic starts from a PRM of kind 'causal'"),
        ({"arms": {"baseline": {}, "a": {"unit_test_reward": 0.0}}}, "leaves nothing to learn from"),
        ({"arms": {"baseline": {}, "a": {"line_score": "signed"}}}, "line_score = 'signed' is for"),
        ({"evaluation": {"samples": 4, "at": [1, 8]}}, "pass@8 needs as many samples"),
        ({"problems": {"plus": "mbppplus"}}, "problems.plus has tests for mutants"),
    ],
)
def test_what_does_not_fit_together_is_refused(mbpp: Path, changes: Table, words: str) -> None:
    prms = {"p": {"target": "sign"}, "o": {"target": "sign", "scope": "program"}}
    others = {key: value for key, value in changes.items() if key != "problems"}
    with pytest.raises(UserError) as caught:
        recipe(mbpp, TASKS | changes.get("problems", {}), **({"prm": prms} | others))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_a_training_do_not_say_whose_weights_they_are() -> None:
    one = PrmSettings(target="sign")
    other = PrmSettings(target="sign", kind="encoder", scope="program", init=Path("x"))
    assert one.training() == other.training()
    assert one.from_policy
    assert not other.from_policy


@pytest.mark.parametrize(
    ("plus", "label", "words"),
    [
        ("livecodebench", {}, "problems.plus"),
        ("humanevalplus", {}, "plus = 'humanevalplus' has tests for humaneval, but the mutants are of mbpp"),
        ("mbppplus", {"label": {"benchmark": "humaneval"}}, "but the mutants are of humaneval"),
        ("mbppplus", {"sft": {"benchmark": "mbppplus"}}, "but the mutants are of mbppplus"),
    ],
)
def test_stronger_tests_are_of_the_tasks_that_are_mutated(mbpp: Path, plus: str, label: Table, words: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe(mbpp, TASKS | label | {"plus": plus}, **MUTATION)
    assert words in str(caught.value)
    assert recipe(mbpp, TASKS | {"plus": "mbppplus"}, **MUTATION).problems.plus == "mbppplus"


def test_what_nothing_learns_from_is_not_trained_on(mbpp: Path) -> None:
    ranges = {"sft": tasks(10, 12), "label": tasks(14, 15), "train": tasks(1, 2), "test": {"m": tasks(10, 15)}}
    prm = {"prm": {"n": {"kind": "ngrams", "target": "sign"}}}
    model = {"model": {"path": "m"}}

    def trained(examples: int, **changes: Any) -> set[str]:
        source = ranges | {"test_trained": "report"}
        sft = {"examples": examples, "optimizer": "adamw"}
        return set(load_tasks(recipe(mbpp, source, sft=sft, **model, **changes)).tests["m"].trained_on)

    fine_tuned, labelled = {"Mbpp/10", "Mbpp/11", "Mbpp/12"}, {"Mbpp/14", "Mbpp/15"}
    assert trained(0) == set()
    assert trained(9) == fine_tuned
    assert trained(0, **prm) == labelled
    assert trained(9, **prm) == fine_tuned | labelled


RANGES = {"train": tasks(1, 2), "label": tasks(14, 15), "test": {"m": tasks(13, 16)}, "test_trained": "report"}
UNTUNED: Table = {"sft": {"examples": 0, "optimizer": "adamw"}, "model": {"path": "m"}}
PRM: Table = {"prm": {"n": {"kind": "ngrams", "target": "sign"}}}


def made(mbpp: Path, problems: Table, **changes: Any) -> RunDirectory:
    """A run that has its problems."""
    run = RunDirectory.create(recipe(mbpp, problems, **UNTUNED, **changes))
    run_stage(run, "problems", lambda done, total: None)
    return run


def test_a_prm_that_is_added_to_a_run_does_not_leave_its_tests_clean(mbpp: Path) -> None:
    run = made(mbpp, RANGES)
    assert load_sets(run.path / "problems")["m"].trained_on == set()
    (run.path / "stages" / "evaluate-baseline.json").write_text("{}")
    more = recipe(mbpp, RANGES, **UNTUNED, **PRM)
    with pytest.raises(UserError, match=r"2 of 4 problems of problems\.test\.m \(Mbpp/14\) count as clean") as caught:
        RunDirectory.create(more)
    assert json.loads((run.path / "recipe.json").read_text())["prm"] == {}
    advice = str(caught.value).partition("(nothing is drawn anew): ")[2].removesuffix(", and run the recipe again")
    subprocess.run(advice, shell=True, check=True)
    again = RunDirectory.create(more)
    assert not again.stage_done("evaluate-baseline")
    run_stage(again, "problems", lambda done, total: None)
    assert load_sets(run.path / "problems")["m"].trained_on == {"Mbpp/14", "Mbpp/15"}
    assert RunDirectory.create(more).stage_done("problems")


def test_a_prm_that_spoils_a_test_is_not_added_where_that_is_refused(mbpp: Path) -> None:
    strict = RANGES | {"test_trained": "refuse"}
    made(mbpp, strict)
    with pytest.raises(UserError, match=r"2 of 4 problems .* are labelled, so the PRM that is added would be trained"):
        RunDirectory.create(recipe(mbpp, strict, **UNTUNED, **PRM))


def test_a_recipe_without_the_prms_of_its_run_counts_its_labels_too(mbpp: Path) -> None:
    """A PRM that another recipe added stays part of the run."""
    run = made(mbpp, RANGES, **PRM)
    plain = recipe(mbpp, RANGES, **UNTUNED)
    (run.path / "stages" / "problems.json").unlink()
    run_stage(RunDirectory.create(plain), "problems", lambda done, total: None)
    assert load_sets(run.path / "problems")["m"].trained_on == {"Mbpp/14", "Mbpp/15"}


def test_a_prm_that_spoils_nothing_is_welcome(mbpp: Path) -> None:
    apart = RANGES | {"test": {"m": tasks(16, 18)}}
    made(mbpp, apart)
    assert RunDirectory.create(recipe(mbpp, apart, **UNTUNED, **PRM)).stage_done("problems")


def rows(passed: dict[str, list[bool]]) -> list[Table]:
    verdicts = {True: {"status": "PASSED"}, False: {"status": "WRONG_ANSWER"}}
    plain = {"greedy": False, "difficulty": None, "token_ids": [1], "lines": 1, "comment_lines": 0, "finished": True}
    return [
        plain | {"problem_id": name, "index": index, "verdict": verdicts[ok]}
        for name, results in passed.items()
        for index, ok in enumerate(results)
    ]


def test_every_part_has_numbers_of_its_own(tmp_path: Path) -> None:
    tests = {
        "mbpp": EvalSet(problems=("a", "b", "c"), trained_on=frozenset({"a"})),
        "other": EvalSet(problems=("d",), trained_on=frozenset()),
        "spoilt": EvalSet(problems=("e",), trained_on=frozenset({"e"})),
    }
    passed = {"a": [True, True], "b": [True, False], "c": [False, False], "d": [True, False], "e": [True, True]}
    found = summarise_tests(rows(passed), tests, resamples=10)["tests"]
    assert found["mbpp"]["all"]["pass_at_1"]["value"] == 0.5
    assert found["mbpp"]["clean"]["pass_at_1"]["value"] == 0.25
    assert found["mbpp"]["clean"]["pass_at_k"][1]["value"] == 0.5
    assert found["other"]["clean"] == found["other"]["all"]
    assert found["spoilt"]["clean"] is None
    titles = [part.title for part in parts_of(tests)]
    assert titles == [
        "mbpp: 2 problems that nothing was trained on",
        "mbpp: all 3 problems, 1 of them trained on",
        "other: all 1 problems, none of them trained on",
        "spoilt: all 1 problems, 1 of them trained on",
    ]
    save_sets(tmp_path, tests)
    assert load_sets(tmp_path) == tests
    assert load_sets(tmp_path / "elsewhere") == {}


def test_a_name_on_the_hub_is_downloaded_and_a_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(name: str, **_: Any) -> str:
        asked.append(name)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert model_folder(Path("Salesforce/codet5p-770m"), "model.path") == tmp_path
    assert asked == ["Salesforce/codet5p-770m"]
    assert model_folder(tmp_path, "model.path") == tmp_path
    assert model_folder(Path("models"), "model.path") == Path("models")  # no owner: a folder, and its reader complains
    assert len(asked) == 1


def test_a_hub_out_of_reach_says_what_to_download_and_which_key_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(
        UserError, match=r"prm\.lines\.init = 'a/b': .*no network.*hf download a/b .* set prm\.lines\.init"
    ):
        model_folder(Path("a/b"), "prm.lines.init")
    assert cached_folder(Path("a/b")) is None
    assert cached_folder(Path("elsewhere")) == Path("elsewhere")
