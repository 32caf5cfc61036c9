"""The real verl: its configuration takes the export, its chain pays what PPO here pays, its critic is the PRM.

Nothing of verl is patched but the attention kernel of its critic loader, which is fixed to one that needs CUDA.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

if importlib.util.find_spec("verl") is None:
    if os.environ.get("PSGPO_ENGINES") == "verl":
        pytest.fail("verl is not installed here; remove .venv-verl and run make test-verl again", pytrace=False)
    pytest.skip("verl lives in an environment of its own; run make test-verl", allow_module_level=True)

from psgpo.engines.verl.overrides import HERE, PLUGIN, Cluster

os.environ["VERL_USE_EXTERNAL_MODULES"] = PLUGIN

import ray
import transfer_queue as tq
import verl
from hydra import compose, initialize_config_dir
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.reward_loop import RewardLoopManager
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.trainer.ppo.v1 import AgentLoopWorkerTQ, PPOTrainerSync, get_trainer_cls
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.model import load_valuehead_model
from verl.workers.rollout.replica import TokenOutput
from verl.workers.utils.padding import response_from_nested
from verl_world import ready_run, tasks

from psgpo.engines.verl.checkpoint import import_checkpoint
from psgpo.execution import Sandbox
from psgpo.lines import TokenText
from psgpo.models import TokenValueModel, load_policy, load_tokenizer, token_logprobs
from psgpo.records import Completion, Status, Verdict
from psgpo.rl.advantages import whiten
from psgpo.rl.rollout import judged_rollout
from psgpo.runs.directory import RunDirectory
from psgpo.runs.verl import export_arm
from psgpo.runs.work import arm_trainer

pytestmark = pytest.mark.timeout(900)
FEW = ("transfer_queue.backend.SimpleStorage.num_data_storage_units=1", "data.dataloader_num_workers=0")
"""For a machine with two cores."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return ready_run(tmp_path_factory.mktemp("verl"))


@pytest.fixture(scope="module")
def exported(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "both"
    export_arm(run, "both", out, Cluster(gpus=1, reward_workers=1), prm_gpus=0)
    return out


def composed(exported: Path, *more: str) -> Any:
    lines = (exported / "overrides.txt").read_text().replace(HERE, str(exported)).splitlines()
    folder = Path(verl.__file__).parent / "trainer" / "config"
    with initialize_config_dir(config_dir=str(folder), version_base=None):
        return compose("ppo_trainer", overrides=[*lines, *more])


@pytest.fixture(scope="module")
def config(exported: Path) -> Any:
    return composed(exported, *FEW)


@pytest.fixture(scope="module")
def cluster(config: Any) -> Iterator[None]:
    variables = {"VERL_USE_EXTERNAL_MODULES": PLUGIN, "TRANSFER_QUEUE_ENABLE": "1", "OMP_NUM_THREADS": "1"}
    # More processors than there are: the actors of verl wait for theirs, and this machine may have two.
    ray.init(num_cpus=8, include_dashboard=False, logging_level="ERROR", runtime_env={"env_vars": variables})
    tq.init(config.transfer_queue)
    yield
    tq.close()
    ray.shutdown()


def test_verl_accepts_the_configuration(config: Any, run: RunDirectory) -> None:
    assert need_critic(config)
    assert need_reference_policy(config)
    validate_config(config, use_reference_policy=True, use_critic=True)
    actor, critic = config.actor_rollout_ref.actor, config.critic
    assert (actor.ppo_mini_batch_size, critic.ppo_mini_batch_size) == (2, 2)
    assert config.algorithm.kl_ctrl.kl_coef == run.recipe.rl.kl_beta
    assert omega_conf_to_dataclass(critic).ppo_infer_max_token_len_per_gpu == actor.ppo_max_token_len_per_gpu == 16384
    assert get_trainer_cls(config.trainer.v1.trainer_mode).__name__ == "LineRewardTrainer"


def test_the_command_in_the_document_composes(exported: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "verl.md").read_text()
    given = re.findall(r"(?<=\s)[\w.]+=\S+", document[document.index("trainer.total_training_steps=2") - 1 :])
    assert len(given) == 7
    assert composed(exported, *given).critic.fsdp.optimizer_offload is True


def test_verls_dataset_reads_the_data(config: Any, exported: Path) -> None:
    tokenizer = load_tokenizer(exported / "policy")
    dataset = RLHFDataset(config.data.train_files, tokenizer, config.data)
    assert len(dataset) == 4
    assert tokenizer.decode(dataset[0]["extra_info"]["prompt_ids"]) == dataset[0]["raw_prompt"][0]["content"]


class Recorded:
    """The language-model server of verl, which gives the responses that PPO here sampled."""

    def __init__(self, rollouts: list[Any]) -> None:
        self._rollouts = iter(rollouts)

    async def generate(self, *, prompt_ids: list[int], **_: Any) -> TokenOutput:
        rollout = next(self._rollouts)
        assert tuple(prompt_ids) == rollout.prompt_ids
        versions = {"min_global_steps": 0, "max_global_steps": 0}
        return TokenOutput(
            token_ids=list(rollout.token_ids), log_probs=list(rollout.logprobs), extra_fields=dict(versions)
        )


def native_step(run: RunDirectory) -> SimpleNamespace:
    """One step of PPO here, by a policy that has moved away from its reference, with all it computed."""
    seen = SimpleNamespace()
    with arm_trainer(run, "both") as (trainer, prompts):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in trainer.policy.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
        rollouts, batch, targets = trainer._rollouts, trainer._batch, trainer._targets

        def spy_rollouts(*arguments: Any) -> Any:
            seen.rollouts = rollouts(*arguments)
            return seen.rollouts

        def spy_batch(*arguments: Any) -> Any:
            seen.batch = batch(*arguments)
            return seen.batch

        def spy_targets(drawn: Any, given: Any, rewards: Any) -> Any:
            seen.rewards, seen.targets = rewards, targets(drawn, given, rewards)
            return seen.targets

        trainer._rollouts, trainer._batch, trainer._targets = spy_rollouts, spy_batch, spy_targets
        seen.metrics = trainer.step(1, prompts)
    return seen


async def through_verl(config: Any, exported: Path, native: SimpleNamespace) -> list[str]:
    """Every response through verl's agent-loop worker: loop, reward worker, TransferQueue. Their keys there."""
    manager = RewardLoopManager(config)
    tokenizer = load_tokenizer(exported / "policy")
    problems = {
        row["extra_info"]["problem_id"]: row for row in RLHFDataset(config.data.train_files, tokenizer, config.data)
    }
    kind = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    worker = kind.__new__(kind)  # its constructor wants a server with a GPU
    worker.config, worker.rollout_config = config, config.actor_rollout_ref.rollout
    worker.llm_client = Recorded(native.rollouts)
    worker.reward_loop_worker_handles = manager.reward_loop_worker_handles
    worker.tokenizer, worker.processor, worker.hf_model_type, worker.tools = tokenizer, None, None, []
    worker.dataset_cls, worker.distillation_enabled, worker.mm_processor_kwargs = RLHFDataset, False, {}
    keys = []
    for index, rollout in enumerate(native.rollouts):
        row = dict(problems[rollout.problem.id])
        row.pop("dummy_tensor")
        await worker._run_agent_loop(
            {},
            {"step": 1, "sample_index": index, "rollout_n": 0, "validate": False},
            agent_name=config.actor_rollout_ref.rollout.agent.default_agent_loop,
            trace=False,
            uid=f"u{index}",
            session_id=0,
            global_steps=1,
            **row,
        )
        keys.append(f"u{index}_0_0")
    return keys


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def responses(native: SimpleNamespace, values: torch.Tensor) -> list[torch.Tensor]:
    """Rows of a (B, S) tensor at response tokens."""
    return [row[mask.bool()] for row, mask in zip(values, native.batch.mask, strict=True)]


def critic_of(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The critic as verl loads it, but with attention that runs on a CPU."""
    from transformers import AutoConfig, AutoModelForTokenClassification

    load = AutoModelForTokenClassification.from_pretrained

    def on_cpu(*arguments: Any, **options: Any) -> Any:
        assert options["attn_implementation"] == "flash_attention_2"
        return load(*arguments, **options | {"attn_implementation": "sdpa"})

    monkeypatch.setattr(AutoModelForTokenClassification, "from_pretrained", on_cpu)
    folder = exported / "critic"
    return load_valuehead_model(str(folder), torch.float32, AutoConfig.from_pretrained(folder), False).eval()


def test_a_prm_is_verls_critic(run: RunDirectory, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.randint(2, 250, (3, 20), generator=torch.Generator().manual_seed(0))
    ours = TokenValueModel.from_pretrained(run.path / "prm" / "sign" / "model")(ids)
    theirs = critic_of(exported, monkeypatch)(input_ids=ids).logits.squeeze(-1)
    assert torch.equal(ours, theirs)
    assert ours.std() > 0.01


def test_verl_pays_what_ppo_here_pays(
    run: RunDirectory, config: Any, exported: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = native_step(run)
    verdicts = [rollout.verdict.passed for rollout in native.rollouts]
    assert len(verdicts) == 16
    assert any(verdicts)
    assert not all(verdicts)

    keys = asyncio.run(through_verl(config, exported, native))
    fields = ["rm_scores", "response_mask", "responses", "extra_fields"]
    found = tq.kv_batch_get(keys=keys, partition_id="train", select_fields=fields)
    for rollout, ids in zip(native.rollouts, found["responses"].unbind(), strict=True):
        assert tuple(ids.tolist()) == rollout.token_ids
    for want, got in zip(responses(native, native.batch.rewards), found["rm_scores"].unbind(), strict=True):
        assert torch.equal(got, want)
        assert (got[:-1] != 0).any()
    information = [fields["reward_extra_info"] for fields in found["extra_fields"]]
    assert [bool(each["acc"]) for each in information] == verdicts
    assert all(isinstance(value, float | int) for each in information for value in each.values())

    # What verl's GPU workers would add: log-probabilities, and the critic's values on whole sequences.
    reference, _ = load_policy(exported / "policy")
    batch = native.batch
    with torch.no_grad():
        ref_logprobs, _ = token_logprobs(reference, batch.input_ids, batch.attention_mask, batch.mask)
        logits = critic_of(exported, monkeypatch)(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).logits.squeeze(-1)
    whole = nested([row[mask.bool()] for row, mask in zip(logits, batch.attention_mask, strict=True)])
    added = {
        "old_log_probs": nested(responses(native, batch.old_logprobs)),
        "ref_log_prob": nested(responses(native, ref_logprobs)),
        "values": response_from_nested(whole, found["response_mask"]),
    }
    tq.kv_batch_put(keys=keys, partition_id="train", fields=TensorDict(added, batch_size=len(keys)))

    results = {}
    for name, kind in (("psgpo", get_trainer_cls("psgpo")), ("sync", PPOTrainerSync)):
        trainer = kind.__new__(kind)
        trainer.config, metrics = config, {}
        trainer.kl_ctrl_in_reward = core_algos.get_kl_controller(config.algorithm.kl_ctrl)
        trainer._compute_advantage(KVBatchMeta(partition_id="train", keys=keys, tags=[{} for _ in keys]), metrics)
        wanted = ["token_level_rewards", "values", "advantages", "returns"]
        results[name] = tq.kv_batch_get(keys=keys, partition_id="train", select_fields=wanted)
    ours, theirs = results["psgpo"], results["sync"]

    def equal(got: torch.Tensor, want: torch.Tensor) -> None:
        for row, expected in zip(got.unbind(), responses(native, want), strict=True):
            torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-5)

    equal(ours["values"], native.targets.old_values)
    equal(ours["token_level_rewards"], native.rewards)
    equal(ours["returns"], native.targets.returns)
    equal(ours["advantages"], native.targets.advantages)
    tokens = batch.mask.sum(1)
    kl = ((batch.old_logprobs - ref_logprobs) * batch.mask).sum(1)
    assert native.metrics["kl"] == pytest.approx(float(kl.mean()), rel=1e-4)
    assert metrics["actor/reward_kl_penalty"] == pytest.approx(float((kl / tokens).mean()), rel=1e-4)
    assert abs(metrics["actor/reward_kl_penalty"]) > 1e-3
    # verl's own trainer differs in the whitening alone: no floor, and a sample's standard deviation.
    equal(theirs["returns"], native.targets.returns)
    count = float(tokens.sum())
    plain = (native.targets.returns - native.targets.old_values) * batch.mask
    equal(theirs["advantages"], whiten(plain, batch.mask) * np.sqrt((count - 1) / count))


def test_a_prm_of_every_worker_scores_as_the_shared_one(exported: Path, config: Any, cluster: None) -> None:
    from psgpo.engines.verl.plugin import line_scores, settings_of

    settings, folder = settings_of(config)
    tokenizer = load_tokenizer(exported / "policy")
    text = "def solve(x):\n    return 0\n"
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    completion = Completion(token_ids=ids, logprobs=(), finished=True)
    verdict = Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=1)
    rollout = judged_rollout(tasks()[0], (3, 4), completion, text, TokenText(tokenizer).char_ends(ids), verdict)

    async def scores(prm_gpus: float | None) -> np.ndarray:
        score = line_scores(settings.model_copy(update={"prm_gpus": prm_gpus}), folder, tokenizer, sandbox)
        assert score is not None
        return (await score([rollout]))[0]

    with Sandbox() as sandbox:
        own, shared = asyncio.run(scores(None)), asyncio.run(scores(0.0))
    assert len(own) == 2
    assert np.array_equal(own, shared)


SHARDS = """
import json, sys, torch
from pathlib import Path
from torch import distributed
from torch.distributed.tensor import Shard, distribute_tensor
from transformers import AutoModelForCausalLM
source, actor, rank = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
distributed.init_process_group("gloo", init_method=f"file://{actor}/rendezvous", rank=rank, world_size=2)
mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,), mesh_dim_names=("fsdp",))
state = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).state_dict()
torch.save({key: distribute_tensor(value, mesh, [Shard(0)]) for key, value in state.items()},
           actor / f"model_world_size_2_rank_{rank}.pt")
distributed.barrier()
distributed.destroy_process_group()
"""
"""What verl's workers save: each its part of every parameter, as a DTensor."""


def test_shards_are_merged_by_verl(run: RunDirectory, tmp_path: Path) -> None:
    source = run.path / "sft" / "model"
    actor = tmp_path / "global_step_2" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (actor / "huggingface" / name).write_bytes((source / name).read_bytes())
    (actor / "fsdp_config.json").write_text('{"FSDP_version": 2, "world_size": 2}')
    commands = [[sys.executable, "-c", SHARDS, str(source), str(actor), str(rank)] for rank in range(2)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in processes] == [0, 0]
    import_checkpoint(tmp_path / "global_step_2", tmp_path / "policy")
    (want, _), (got, _) = load_policy(source), load_policy(tmp_path / "policy")
    for key, value in want.state_dict().items():
        assert torch.equal(got.state_dict()[key], value.bfloat16().float()), key
