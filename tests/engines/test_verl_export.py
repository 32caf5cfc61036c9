"""What goes to a cluster and what comes back, without verl: `make test-verl` has the rest."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from verl_world import ready_run, tasks

from psgpo.cli.verl import app
from psgpo.config import ArmSettings, LoraSettings, SandboxSettings
from psgpo.engines.verl.checkpoint import import_checkpoint
from psgpo.engines.verl.judge import Gathered, Judge, Problems, in_thread
from psgpo.engines.verl.overrides import Cluster, overrides
from psgpo.engines.verl.settings import VerlSettings
from psgpo.errors import UserError
from psgpo.execution import Sandbox, encoding
from psgpo.jsonl import dump_line, write_json
from psgpo.models import TokenValueModel, load_policy, load_tokenizer
from psgpo.prm import ScorerRecord
from psgpo.prompts import build_prompt_ids
from psgpo.records import Problem, Tests
from psgpo.rl.rollout import Rollout
from psgpo.runs.directory import RunDirectory
from psgpo.runs.verl import export_arm

pytest.importorskip("pyarrow", reason="psgpo verl export writes Parquet: pip install 'psgpo[data]'")
ONE_GPU = Cluster(gpus=1, reward_workers=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return ready_run(tmp_path_factory.mktemp("verl"))


@pytest.fixture(scope="module")
def exported(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "both"
    export_arm(run, "both", out, ONE_GPU)
    return out


def test_data_hold_prompt_ids_and_tests_and_no_solution(exported: Path) -> None:
    from pyarrow import parquet

    rows = parquet.read_table(exported / "train.parquet").to_pylist()
    tokenizer = load_tokenizer(exported / "policy")
    assert [row["extra_info"]["problem_id"] for row in rows] == [problem.id for problem in tasks()]
    for row, problem in zip(rows, tasks(), strict=True):
        assert tuple(row["extra_info"]["prompt_ids"]) == build_prompt_ids(tokenizer, "# {prompt}\n", problem)
        sent = Problem.from_json(json.loads(row["reward_model"]["ground_truth"]))
        assert sent == replace(problem, reference_solution=None)


def verls_settings(run: RunDirectory, *, sampling: dict[str, object] | None = None, **rl: object) -> dict[str, str]:
    """The overrides of arm both, with these keys of the recipe changed."""
    changed = {"rl": run.recipe.rl.model_copy(update=rl)}
    changed |= {"sampling": run.recipe.sampling.model_copy(update=sampling or {})}
    lines = overrides(run.recipe.model_copy(update=changed), "both", ONE_GPU, prompt_tokens=10)
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize(("warmup", "first"), [(0, 1), (1, 2), (3, 4)])
def test_the_policy_learns_from_the_same_step_on(warmup: int, first: int, run: RunDirectory) -> None:
    """`first`: the first step, counted from 1, whose update moves the policy here."""
    exported = int(verls_settings(run, critic_warmup=warmup)["trainer.critic_warmup"])
    # verl, trainer_base.py: `if critic_warmup <= global_steps: update_actor`, with global_steps from 1
    assert next(step for step in range(1, 9) if exported <= step) == first


def test_validation_samples_as_evaluation_here_does(run: RunDirectory) -> None:
    settings = verls_settings(run, sampling={"top_p": 0.9})
    keys = ("temperature", "top_p", "n")
    found = [float(settings[f"actor_rollout_ref.rollout.val_kwargs.{key}"]) for key in keys]
    assert found == [run.recipe.evaluation.temperature, 0.9, run.recipe.evaluation.samples]


def test_critic_and_prm_are_the_runs(run: RunDirectory, exported: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    prm = TokenValueModel.from_pretrained(run.path / "prm" / "sign" / "model")(ids)
    assert torch.equal(TokenValueModel.from_pretrained(exported / "critic")(ids), prm)
    assert torch.equal(TokenValueModel.from_pretrained(exported / "prm")(ids), prm)
    settings = VerlSettings.load(exported / "psgpo.json")
    assert (settings.arm, settings.rl) == (run.recipe.arms["both"], run.recipe.rl)


def test_a_prm_that_reads_text_cannot_be_shared_by_reward_workers(run: RunDirectory, tmp_path: Path) -> None:
    twin = RunDirectory(tmp_path / "run", run.recipe)
    shutil.copytree(run.path, twin.path)
    record = ScorerRecord(kind="encoder", scope="line", target="correct", prompt_template="{prompt}", threshold=0.0)
    record.save(twin.path / "prm" / "sign" / "model")
    with pytest.raises(UserError, match="the PRM of arm both reads text, not the policy's tokens"):
        export_arm(twin, "both", tmp_path / "out", ONE_GPU, prm_gpus=0.0)


def test_a_fitted_map_is_in_the_critics_head(run: RunDirectory, tmp_path: Path) -> None:
    export_arm(run, "fitted", tmp_path / "fitted", ONE_GPU)
    ids = torch.tensor([[5, 6, 7, 8]])
    score = TokenValueModel.from_pretrained(run.path / "prm" / "sign" / "model")(ids).detach().numpy().ravel()
    value = TokenValueModel.from_pretrained(tmp_path / "fitted" / "critic")(ids).detach().numpy().ravel()
    slope, shift = np.polyfit(score, value, 1)
    assert value == pytest.approx(slope * score + shift, abs=1e-5)
    assert slope != pytest.approx(1.0, abs=1e-3)


def test_the_launch_script_fills_in_its_folder(exported: Path, tmp_path: Path) -> None:
    moved = tmp_path / "else where"
    shutil.copytree(exported, moved)
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    done = subprocess.run(
        [moved / "run.sh", "trainer.nnodes=2"], env={"PATH": "/usr/bin:/bin", "PYTHON": str(fake)}, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    arguments = done.stdout.splitlines()
    assert arguments[:2] == ["-m", "verl.trainer.main_ppo"]
    assert f"actor_rollout_ref.model.path={moved}/policy" in arguments
    assert arguments[-1] == "trainer.nnodes=2"
    assert not [argument for argument in arguments if "@" in argument]


@pytest.mark.parametrize(
    ("arm", "cluster", "rl", "message"),
    [
        ("other", ONE_GPU, {}, "is no arm of this recipe"),
        ("both", Cluster(gpus=3), {}, "does not split over 3 GPUs"),
        ("both", Cluster(gpus=1, tensor_parallel=2), {}, "does not divide 1 GPUs"),
        ("both", ONE_GPU, {"prompts_per_step": 6, "minibatches": 4}, "the second must divide the first"),
        ("both", ONE_GPU, {"prompts_per_step": 64}, "would never start"),
        ("both", ONE_GPU, {"schedule": "linear"}, "verl has 'constant' and 'cosine'"),
    ],
)
def test_what_verl_would_stop_at_is_refused_first(
    arm: str, cluster: Cluster, rl: dict[str, object], message: str, run: RunDirectory, tmp_path: Path
) -> None:
    recipe = run.recipe.model_copy(update={"rl": run.recipe.rl.model_copy(update=rl)})
    with pytest.raises(UserError, match=message):
        export_arm(RunDirectory(run.path, recipe), arm, tmp_path / "out", cluster)
    assert not (tmp_path / "out").exists()


def test_the_commands(run: RunDirectory, tmp_path: Path) -> None:
    recipe = str(run.path.parent / "recipe.toml")
    options = ["--arm", "both", "--gpus", "1", "--prm-server", "http://node:8000", "--out", str(tmp_path / "export")]
    done = CliRunner().invoke(app, ["export", recipe, *options])
    assert done.exit_code == 0, done.output
    assert VerlSettings.load(tmp_path / "export" / "psgpo.json").prm_server == "http://node:8000"
    with pytest.raises(UserError, match="the PRM is in one place"):
        CliRunner().invoke(app, ["export", recipe, *options, "--prm-gpus", "1"], catch_exceptions=False)
    with pytest.raises(UserError, match="arm baseline has no PRM"):
        CliRunner().invoke(app, ["export", recipe, *options, "--arm", "baseline"], catch_exceptions=False)
    shutil.copytree(tmp_path / "export" / "policy", tmp_path / "global_step_1" / "actor" / "huggingface")
    done = CliRunner().invoke(
        app, ["import-checkpoint", str(tmp_path / "global_step_1"), "--out", str(tmp_path / "policy")]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "policy" / "config.json").is_file()


def test_adapters_are_refused(run: RunDirectory, tmp_path: Path) -> None:
    model = run.recipe.model.model_copy(update={"lora": LoraSettings()})
    with pytest.raises(UserError, match=r"model\.lora: the export trains all weights"):
        export_arm(
            RunDirectory(run.path, run.recipe.model_copy(update={"model": model})), "both", tmp_path / "out", ONE_GPU
        )


def test_missing_stages_and_used_folders_are_named(run: RunDirectory, exported: Path, tmp_path: Path) -> None:
    empty = RunDirectory.create(run.recipe.model_copy(update={"out": tmp_path / "empty"}))
    with pytest.raises(UserError, match=r"needs problems, sft, prm-sign first; run: psgpo run"):
        export_arm(empty, "both", tmp_path / "out", ONE_GPU)
    with pytest.raises(UserError, match="is not empty"):
        export_arm(run, "both", exported, ONE_GPU)


def test_an_architecture_that_vllm_lacks_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    from psgpo.models import create_policy

    tokenizer = load_tokenizer(run.path / "sft" / "model")
    small = create_policy(tokenizer, hidden_size=16, intermediate_size=16, num_attention_heads=2)
    other = RunDirectory.create(run.recipe.model_copy(update={"out": tmp_path / "run"}))
    for stage in ("problems", "sft"):
        write_json(other.path / "stages" / f"{stage}.json", {})
    small.save_pretrained(other.path / "sft" / "model")
    with pytest.raises(UserError, match="vLLM, which samples for verl, has no 'psgpo-shift'"):
        export_arm(other, "baseline", tmp_path / "out", ONE_GPU)


class Lengths:
    """Scores a line by its number; counts its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def score(self, rollouts: Sequence[Rollout]) -> list[np.ndarray]:
        self.batches.append(len(rollouts))
        return [np.arange(1.0, 1 + len(rollout.line_ends)) for rollout in rollouts]


def test_a_judged_response_by_hand(run: RunDirectory) -> None:
    """sum over v; the passing program has five lines, the failing one three, of which one is a comment."""
    tokenizer = load_tokenizer(run.path / "sft" / "model")
    problem = tasks()[0]
    failing = "def solve(x):\n    # nothing\n    return 0\n"
    texts = [str(problem.reference_solution), failing]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    arm = ArmSettings(line_reward="sum", prm="sign")
    lengths = Lengths()

    async def judge_both() -> list:
        judge = Judge(arm, tokenizer, sandbox, in_thread(lengths))
        return await asyncio.gather(*(judge.judge(dump_line(problem.to_json()), (3, 4), row) for row in ids))

    with Sandbox(allow_unconfined=SandboxSettings().allow_unconfined) as sandbox:
        good, bad = asyncio.run(judge_both())
    assert good.rollout.verdict.passed
    assert not bad.rollout.verdict.passed
    assert good.line_rewards == pytest.approx([0.025 * m / 5 for m in (1, 2, 3, 4, 5)])
    assert bad.line_rewards == pytest.approx([0.25 * 1 / 3, 0.0, 0.25 * 3 / 3])
    assert good.token_rewards.sum() == pytest.approx(1 + 0.025 * 15 / 5)
    assert [bad.token_rewards[end] for end in bad.rollout.line_ends] == pytest.approx(bad.line_rewards)
    assert len(bad.token_rewards) == len(ids[1])


def test_a_problem_is_read_and_its_tests_are_encoded_once(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """verl sends the problem's text with every response, each time another string."""
    tokenizer = load_tokenizer(run.path / "sft" / "model")
    problem = tasks()[0]
    done = {"read": 0, "encoded": 0}
    from_json, encode = Problem.from_json, encoding._encode

    def counted_read(record: dict[str, Any]) -> Problem:
        done["read"] += 1
        return from_json(record)

    def counted_encode(tests: Tests) -> encoding.EncodedTests:
        done["encoded"] += 1
        return encode(tests)

    monkeypatch.setattr(Problem, "from_json", counted_read)
    monkeypatch.setattr(encoding, "_encode", counted_encode)

    async def judge_three() -> list:
        judge = Judge(ArmSettings(), tokenizer, sandbox, None)
        rows = [tokenizer(text)["input_ids"] for text in ("x = 1\n", "x = 2\n", "x = 3\n")]
        return [await judge.judge(dump_line(problem.to_json()), (3, 4), row) for row in rows]

    with Sandbox(allow_unconfined=SandboxSettings().allow_unconfined) as sandbox:
        judged = asyncio.run(judge_three())
    assert done == {"read": 1, "encoded": 1}
    assert [each.rollout.problem for each in judged] == [problem] * 3


def test_only_so_many_problems_are_kept() -> None:
    first, second, third = (dump_line(problem.to_json()) for problem in tasks()[:3])
    problems = Problems(most=len(first) + len(second) + len(third) - 1)
    kept, forgotten = problems.read(first), problems.read(second)
    assert problems.read(first) is kept
    problems.read(third)
    assert problems.read(first) is kept
    assert problems.read(second) is not forgotten
    assert problems.read(second) == forgotten
    alone = Problems(most=0)
    assert alone.read(first) is alone.read(first)


def test_responses_that_wait_are_scored_together_and_errors_reach_their_callers() -> None:
    calls: list[int] = []

    async def score(rollouts: Sequence[Rollout]) -> list[np.ndarray]:
        calls.append(len(rollouts))
        await asyncio.sleep(0)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return [np.array([float(id(rollout) % 7)]) for rollout in rollouts]

    async def many() -> list:
        gathered = Gathered(score)
        rollouts = [object() for _ in range(6)]
        first = [asyncio.create_task(gathered(rollout)) for rollout in rollouts[:1]]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rest = [asyncio.create_task(gathered(rollout)) for rollout in rollouts[1:]]  # type: ignore[arg-type]
        found = await asyncio.gather(*first, *rest, return_exceptions=True)
        again = await gathered(rollouts[0])  # type: ignore[arg-type]
        return [*found, again]

    found = asyncio.run(many())
    assert calls == [1, 5, 1]
    assert [isinstance(item, RuntimeError) for item in found] == [False, *[True] * 5, False]


def test_a_whole_checkpoint_is_copied_and_loads(run: RunDirectory, tmp_path: Path) -> None:
    source = run.path / "sft" / "model"
    for step in (4, 12):
        shutil.copytree(source, tmp_path / "checkpoints" / f"global_step_{step}" / "actor" / "huggingface")
    model, _ = load_policy(source)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.save_pretrained(tmp_path / "checkpoints" / "global_step_12" / "actor" / "huggingface")
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("12")
    import_checkpoint(tmp_path / "checkpoints", tmp_path / "policy")
    found, _ = load_policy(tmp_path / "policy")
    assert torch.equal(found.lm_head.weight, model.lm_head.weight)


def test_a_step_that_is_still_being_saved_is_not_taken(run: RunDirectory, tmp_path: Path) -> None:
    steps = tmp_path / "checkpoints"
    shutil.copytree(run.path / "sft" / "model", steps / "global_step_8" / "actor" / "huggingface")
    shutil.copytree(steps / "global_step_8", steps / "global_step_12")
    half = steps / "global_step_12" / "actor" / "huggingface" / "model.safetensors"
    half.write_bytes(half.read_bytes()[:1000])
    with pytest.raises(UserError, match="verl has not finished saving any step"):
        import_checkpoint(steps, tmp_path / "policy")
    latest = steps / "latest_checkpointed_iteration.txt"
    for named in ("", "10"):
        latest.write_text(named)
        with pytest.raises(UserError, match=f"names step '{named}', which is not here"):
            import_checkpoint(steps, tmp_path / "policy")
    latest.write_text("8\n")
    import_checkpoint(steps, tmp_path / "policy")
    want, got = (load_policy(folder)[0] for folder in (run.path / "sft" / "model", tmp_path / "policy"))
    assert torch.equal(got.lm_head.weight, want.lm_head.weight)


def test_an_import_that_fails_can_be_tried_again(run: RunDirectory, tmp_path: Path) -> None:
    whole = tmp_path / "global_step_1" / "actor" / "huggingface"
    shutil.copytree(run.path / "sft" / "model", whole)
    weights = (whole / "model.safetensors").read_bytes()
    (whole / "model.safetensors").write_bytes(weights[:1000])
    out = tmp_path / "new" / "policy"
    with pytest.raises(UserError):
        import_checkpoint(tmp_path / "global_step_1", out)
    assert list(out.parent.iterdir()) == []
    (whole / "model.safetensors").write_bytes(weights)
    out.mkdir()
    import_checkpoint(tmp_path / "global_step_1", out)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert list(out.parent.iterdir()) == [out]
    (whole / "model.safetensors").unlink()
    (whole.parent / "model_world_size_2_rank_0.pt").touch()
    if importlib.util.find_spec("verl") is None:
        with pytest.raises(UserError, match=f"run: python -m verl.model_merger .* --target_dir {tmp_path}/other$"):
            import_checkpoint(tmp_path / "global_step_1", tmp_path / "other")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        import_checkpoint(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "global_step_1" / "actor").mkdir(parents=True)
    with pytest.raises(UserError, match="no huggingface folder"):
        import_checkpoint(tmp_path / "global_step_1", tmp_path / "out")
    (tmp_path / "global_step_1" / "actor" / "huggingface").mkdir()
    with pytest.raises(UserError, match="neither huggingface"):
        import_checkpoint(tmp_path / "global_step_1", tmp_path / "out")


def test_importing_psgpo_never_imports_verl() -> None:
    modules = "psgpo.cli.main, psgpo.runs.verl, psgpo.engines.verl.export, psgpo.engines.verl.checkpoint"
    code = f"import sys, {modules}; sys.exit('verl' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
