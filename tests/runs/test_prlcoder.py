"""PRLCoder's recipe from end to end on a few real MBPP tasks: the shipped file with other models and smaller sizes."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
sys.path.insert(0, str(Path(__file__).parent.parent / "prm"))

from models_world import save
from prm_text_world import save_roberta
from seq2seq_world import code_tokenizer
from transformers import AutoModelForSeq2SeqLM, T5Config

from psgpo.config import load_recipe
from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.lines import TokenText
from psgpo.models import load_tokenizer
from psgpo.prm import open_scorer
from psgpo.problems import load_problems_jsonl
from psgpo.records import Completion, Status, Verdict
from psgpo.rl.rollout import judged_rollout, open_line_scorer
from psgpo.runs.directory import RunDirectory
from psgpo.runs.dry import dry_run
from psgpo.runs.stages import run_stage, stage_graph

ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("PSGPO_DATA", ROOT.parent / "shared" / "data"))
FILES = {"mbpp": "mbpp.jsonl.gz", "mbppplus": "mbppplus.jsonl.gz", "humaneval": "HumanEval.jsonl.gz"}

pytestmark = pytest.mark.skipif(
    not all((DATA / name).is_file() for name in FILES.values()),
    reason=f"needs {', '.join(FILES.values())} in PSGPO_DATA or ../shared/data",
)

SIZES = [
    # 616-624: of these nine tasks, six are for training the PRM, two for choosing its epoch, one for measuring it.
    "problems.sft.ids=[616, 624]",
    "problems.train.ids=[101, 104]",
    "problems.test.mbpp.ids=[99, 102]",
    "problems.test.humaneval.ids=[0, 1]",
    "mutation.bugs_per_line=3",
    "mutation.refactors_per_line=1",
    "mutation.generated=10",
    "sft.epochs=1",
    "sampling.max_new_tokens=40",
    "rl.steps=2",
    "rl.prompts_per_step=4",
    "rl.minibatches=2",
    "rl.checkpoints=1",
    "rl.critic_warmup=0",
    "prm.lines.epochs=1",
    "prm.program.epochs=1",
    "evaluation.samples=2",
    "evaluation.at=[1, 2]",
    "evaluation.bootstrap=20",
    "tracking.to=[]",
]


def t5_folder(folder: Path, width: int) -> Path:
    """A new T5 with a code tokenizer, in the place of CodeT5+."""
    torch.manual_seed(0)
    shape = {"d_model": width, "d_kv": 8, "d_ff": width, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
    ids = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    return save(AutoModelForSeq2SeqLM.from_config(T5Config(**shape, **ids)), code_tokenizer(), folder)


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Folders of tiny models, the data's files, small sizes: nothing else of the recipe is changed."""
    folder = tmp_path_factory.mktemp("prlcoder")
    encoder = save_roberta(folder / "encoder")
    folders = {
        "out": folder / "run",
        "model.path": t5_folder(folder / "policy", 32),
        "critic.path": t5_folder(folder / "critic", 16),
        "prm.lines.init": encoder,
        "prm.program.init": encoder,
    }
    folders |= {f"problems.data.{name}": DATA / file for name, file in FILES.items()}
    return [*(f"{key}={path}" for key, path in folders.items()), *SIZES]


@pytest.fixture(scope="module")
def run(overrides: list[str]) -> RunDirectory:
    made = RunDirectory.create(load_recipe(ROOT / "recipes" / "prlcoder-mbpp.toml", overrides))
    for name in stage_graph(made.recipe):
        run_stage(made, name, lambda done, total: None)
    return made


def summary(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def ids(run: RunDirectory, split: str) -> list[str]:
    return [problem.id for problem in load_problems_jsonl(run.path / "problems" / f"{split}.jsonl")]


def test_every_purpose_has_the_tasks_that_the_recipe_names(run: RunDirectory) -> None:
    assert ids(run, "sft") == ids(run, "label") == [f"Mbpp/{n}" for n in range(616, 625)]
    assert ids(run, "train") == [f"Mbpp/{n}" for n in range(101, 105)]
    assert ids(run, "test") == [*(f"Mbpp/{n}" for n in range(99, 103)), "HumanEval/0", "HumanEval/1"]
    first = load_problems_jsonl(run.path / "problems" / "sft.jsonl")[0]
    assert first.prompt.startswith("Write a function")  # the task and its tests, without a frame around them
    assert "\nassert " in first.prompt


def test_mutants_teach_a_prm_and_an_orm(run: RunDirectory) -> None:
    made = list(read_jsonl(run.path / "mutants" / "programs.jsonl", dict))
    assert {program["problem_id"] for program in made} == set(ids(run, "sft"))
    assert {"pass", "fail"} == {program["verdict"] for program in made}
    assert summary(run.path / "mutants" / "summary.json")["problems"]["with_plus_tests"] > 0
    for name, scope in (("lines", "line"), ("program", "program")):
        scorer = open_scorer(run.path / "prm" / name / "model")
        assert (scorer.record.kind, scorer.record.scope) == ("encoder", scope)
        assert scorer.record.calibration is not None
        assert 0 <= summary(run.path / "prm" / name / "measure.json")["lines"]["accuracy"] <= 1


def test_arms_are_paid_by_their_reward_model_alone(run: RunDirectory) -> None:
    rows = {arm: list(read_jsonl(run.path / "rl" / arm / "metrics.jsonl", dict)) for arm in run.recipe.arms}
    for arm in ("prm", "orm"):
        assert [row["step"] for row in rows[arm]] == [1, 2]
        assert all(row["reward_unit_test"] == 0 for row in rows[arm])
        assert any(row["reward_lines"] != 0 for row in rows[arm])
        assert all(
            math.isclose(row["reward_total"], row["reward_lines"] - row["kl_penalty"], abs_tol=1e-4)
            for row in rows[arm]
        )
    assert all(row["reward_lines"] == 0 for row in rows["baseline"])
    # One score in [-1, 1] for every response.
    assert all(abs(row["reward_lines"]) <= 1 for row in rows["orm"])


def test_line_scores_reach_the_tokens_of_an_encoder_decoder(run: RunDirectory) -> None:
    """The PRM reads the program as text in its own tokens; its numbers stand where the policy's lines end."""
    tokenizer = load_tokenizer(run.path / "sft" / "model")
    problem = load_problems_jsonl(run.path / "problems" / "train.jsonl")[0]
    code = problem.reference_solution or ""
    token_ids = (*tokenizer(code, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
    text, char_ends = TokenText(tokenizer).decode_with_ends(token_ids)
    verdict = Verdict(status=Status.PASSED, tests_passed=3, tests_total=3)
    completion = Completion(token_ids=token_ids, logprobs=(0.0,) * len(token_ids), finished=True)
    rollout = judged_rollout(problem, (5, 2), completion, text, char_ends, verdict)
    prm = run.path / "prm" / "lines" / "model"
    arm = run.recipe.arms["prm"]
    scorer = open_line_scorer(arm, prm, tokenizer, None, device="cpu")  # type: ignore[arg-type]
    assert scorer is not None
    (score_L,) = scorer.score([rollout])
    assert len(score_L) == len(rollout.line_ends) > 3
    assert all("\n" in tokenizer.decode([token_ids[end]]) for end in rollout.line_ends[:-1])
    expected = 2 * open_scorer(prm).probabilities(problem.prompt, code) - 1
    np.testing.assert_allclose(score_L, expected, atol=1e-5)


def test_what_was_trained_on_is_never_the_only_number(run: RunDirectory) -> None:
    for policy in ("sft", *run.recipe.arms):
        found = summary(run.path / "evaluation" / policy / "summary.json")
        assert "pass_at_1" not in found  # none that mixes test sets
        mbpp, human = found["tests"]["mbpp"], found["tests"]["humaneval"]
        assert (mbpp["trained_on"], mbpp["all"]["problems"], mbpp["clean"]["problems"]) == (2, 4, 2)
        assert (human["trained_on"], human["all"]["problems"], human["clean"]["problems"]) == (0, 2, 2)
    report = summary(run.path / "report" / "summary.json")
    assert report["part"] == {"test": "mbpp", "which": "clean", "problems": 2, "trained_on": 0}
    parts = [(row["part"]["test"], row["part"]["which"], row["part"]["problems"]) for row in report["tests"]]
    assert parts == [("mbpp", "clean", 2), ("mbpp", "all", 4), ("humaneval", "all", 2)]
    assert set(report["tests"][0]["pass_at_k"]["prm"]) == {"2"}
    page = (run.path / "report" / "index.html").read_text(encoding="utf-8")
    assert "mbpp: 2 problems that nothing was trained on" in page
    assert "mbpp: all 4 problems, 2 of them trained on" in page
    assert "humaneval: all 2 problems, none of them trained on" in page


def test_mutants_are_not_made_twice(run: RunDirectory) -> None:
    """A run whose receipt was lost takes up its journal: nothing is judged again, and the files are the same."""
    folder = run.path / "mutants"
    before = {name: (folder / name).read_bytes() for name in ("journal.jsonl", "programs.jsonl", "orm.jsonl")}
    receipt = run.path / "stages" / "mutants.json"
    kept = receipt.read_bytes()
    receipt.unlink()
    run_stage(run, "mutants", lambda done, total: None)
    assert {name: (folder / name).read_bytes() for name in before} == before
    receipt.write_bytes(kept)


def test_a_dry_run_says_what_is_trained_on_and_tested(overrides: list[str], tmp_path: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "prlcoder-mbpp.toml", [*overrides, f"out={tmp_path / 'run'}"])
    said = dry_run(recipe)
    assert "prm lines: encoder, scope line, " in said
    assert "test mbpp: all 4 problems, 2 of them trained on" in said
    assert "  mutants            to do, after problems\n" in said
    refusing = [*overrides, f"out={tmp_path / 'run'}", "problems.test_trained=refuse"]
    with pytest.raises(UserError, match=r"problems.test.mbpp: 2 of 4 problems are trained on too .*test_trained"):
        dry_run(load_recipe(ROOT / "recipes" / "prlcoder-mbpp.toml", refusing))
