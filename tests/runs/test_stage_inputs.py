"""What a stage says it reads and writes is all that it reads and writes: what `--reuse` rests on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from own_recipe import own_recipe

from psgpo.config import HOW_KEYS, Recipe, Section, load_recipe, parse_recipe
from psgpo.runs.directory import RunDirectory
from psgpo.runs.inputs import file_prints, fingerprint, first_difference, inputs
from psgpo.runs.links import outputs
from psgpo.runs.stages import SPLITS, stage_graph

ROOT = Path(__file__).parents[2]
SMALLER = [
    "sft.examples=200",
    "rl.steps=1",
    "rl.checkpoints=1",
    "rl.value_fit_responses=8",
    "labels.shards=2",
    "tracking.to=[]",
    "evaluation.samples=1",
    "evaluation.at=[1]",
    "arms.oracle.line_reward=progress",
    "arms.oracle.prm=oracle",
    "arms.oracle.rl.kl_beta=0.5",
]
WHOLE = {"model_dump", "model_dump_json", "model_copy", "__dict__"}
"""Attributes of a table that mean all of its keys."""
OPENED: list[str] | None = None
"""Files opened, while somebody listens."""


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and OPENED is not None:
        OPENED.append(str(arguments[0]))


sys.addaudithook(_listen)


@contextmanager
def recorded(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[set[str], list[str]]]:
    """Keys of the recipe that are read, tables read as a whole among them, and files that are opened."""
    global OPENED  # an audit hook stays for good
    places = dict(sections(run.recipe, ""))
    read: set[str] = set()

    def reading(self: Section, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if id(self) in places:
            place = places[id(self)]
            if name in WHOLE:
                read.add(place)
            elif name in type(self).model_fields and not holds_sections(value):
                read.add(f"{place}.{name}".lstrip("."))
        return value

    OPENED = []
    with monkeypatch.context() as patch:
        patch.setattr(Section, "__getattribute__", reading, raising=False)
        yield read, OPENED
    OPENED = None


def sections(value: Any, place: str) -> Iterator[tuple[int, str]]:
    """The tables of a recipe: identity and key."""
    if isinstance(value, Section):
        yield id(value), place
        for name in type(value).model_fields:
            yield from sections(getattr(value, name), f"{place}.{name}".lstrip("."))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from sections(item, f"{place}.{name}")


def holds_sections(value: Any) -> bool:
    """Whether it is a table, or a table of tables."""
    inside = value.values() if isinstance(value, dict) else [value]
    return any(isinstance(one, Section) for one in inside)


def covered(key: str, reads: tuple[str, ...]) -> bool:
    return any(key == read or key.startswith(f"{read}.") for read in (*reads, *HOW_KEYS))


def contents(run: RunDirectory) -> dict[Path, tuple[int, int]]:
    files = [path for path in run.path.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def check(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every stage, recorded."""
    run = RunDirectory.create(recipe)
    for name, stage in stage_graph(recipe).items():
        if name == "report":
            continue
        before = contents(run)
        with recorded(run, monkeypatch) as (read, opened):
            stage.work(run, lambda done, total: None)
        assert read, f"{name}: nothing was recorded"
        assert not {key for key in read if not covered(key, stage.reads)}, f"{name} reads more than it says"
        problems = {Path(file).stem for file in opened if Path(file).parent == run.path / "problems"} & {*SPLITS}
        if name != "problems":
            assert all(covered(f"problems.{split}", stage.reads) for split in problems), f"{name}: problems {problems}"
        written = {path for path, state in contents(run).items() if before.get(path) != state}
        mine = outputs(run.path, stage.writes)
        others = {path for path in written if not any(path == one or one in path.parents for one in mine)}
        assert {path.name for path in others} <= {"verdicts.sqlite", "verdicts.sqlite-wal", "verdicts.sqlite-shm"}, name
        with run.stage(name):
            pass


def test_the_embedded_benchmark(tmp_path: Path, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*tiny_overrides, *SMALLER, f"out={tmp_path / 'run'}"]
    recipe = load_recipe(ROOT / "recipes" / "demo.toml", overrides)
    arms = {name: recipe.arms[name] for name in ("baseline", "both", "oracle")}
    check(recipe.model_copy(update={"arms": arms, "prm": {"sign": recipe.prm["sign"]}}), monkeypatch)


@pytest.mark.parametrize(
    ("labels", "prm", "form"),
    [
        ({"strategy": "noisy", "budget": 2}, {"target": "sign"}, "sum"),
        ({"strategy": "splice", "references": True, "hunt": 0}, {"target": "progress", "twins": True}, "progress"),
    ],
    ids=["noisy", "splice, twins"],
)
def test_problems_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: dict[str, Any], prm: dict[str, Any], form: str
) -> None:
    labels = labels | {"k": 1, "draw": 1, "shards": 1, "compare_linear": 0, "holdout": 0.3}
    table = own_recipe(tmp_path, trained=32) | {
        "rl": {"steps": 1, "checkpoints": 1, "prompts_per_step": 2, "minibatches": 1},
        "labels": labels,
        "prm": {"p": prm | {"epochs": 1}},
        "arms": {"baseline": {}, "a": {"line_reward": form, "prm": "p"}},
    }
    check(parse_recipe(table, origin="r"), monkeypatch)


def test_mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = own_recipe(tmp_path, trained=32) | {
        "rl": {"steps": 1, "checkpoints": 1, "prompts_per_step": 2, "minibatches": 1},
        "labels": {"source": "mutation", "holdout": 0.3},
        "mutation": {"generated": 1, "bugs_per_line": 1, "refactors_per_line": 1},
        "prm": {"n": {"target": "sign", "kind": "ngrams"}},
    }
    check(parse_recipe(table, origin="r"), monkeypatch)


def test_no_two_stages_write_the_same(tiny_recipe: Recipe) -> None:
    patterns = [pattern for stage in stage_graph(tiny_recipe).values() for pattern in stage.writes]
    assert len(patterns) == len({*patterns})
    for one in patterns:
        assert not [other for other in patterns if other.startswith(f"{one}/")], one


def test_files_count_by_their_content(tmp_path: Path) -> None:
    table = own_recipe(tmp_path)
    recipe = parse_recipe(table, origin="r")
    reads = ("problems", "model")
    before = file_prints(recipe, reads)
    assert set(before) == {"problems.train", "problems.test", "model.path"}
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes((tmp_path / "train.jsonl").read_bytes())
    other = parse_recipe(table | {"problems": table["problems"] | {"train": str(moved)}}, origin="r")
    same = inputs(other, reads, file_prints(other, reads))
    assert first_difference(same, inputs(recipe, reads, before)) is None
    (tmp_path / "m" / "config.json").write_text("{}")
    changed = first_difference(inputs(recipe, reads, file_prints(recipe, reads)), inputs(recipe, reads, before))
    assert str(changed).startswith("model.path: ")
    old = first_difference(inputs(recipe, reads, before), inputs(recipe, reads, {}))
    assert 'problems.train: "a file that left no fingerprint" there' in str(old)


def test_an_arm_is_known_by_its_name_and_its_checkpoints(tmp_path: Path) -> None:
    """Labels name the writer of a response `<arm>/step-N`: under other names the same weights are another writer."""

    def arm(folder: str, *steps: int) -> str:
        for step in steps:
            checkpoint = tmp_path / folder / "checkpoints" / f"step-{step}"
            checkpoint.mkdir(parents=True)
            (checkpoint / "model.safetensors").write_bytes(b"weights")
        return fingerprint(tmp_path / folder)

    found = [
        arm("a/rl/both", 5),
        arm("b/rl/both", 5),
        arm("c/rl/both", 6),
        arm("d/rl/other", 5),
        arm("e/rl/both", 5, 6),
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 4
