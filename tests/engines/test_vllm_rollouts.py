"""PPO whose responses vLLM draws: the engine follows the policy's weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engines_world import BLOCK, problems, random_prefixes
from typer.testing import CliRunner

from psgpo.cli.main import app
from psgpo.config import ArmSettings, LoraSettings, ModelSettings, RlSettings, SamplingSettings
from psgpo.execution import Sandbox
from psgpo.jsonl import read_jsonl
from psgpo.models import TokenValueModel, load_policy, prepare_training
from psgpo.problems import save_problems_jsonl
from psgpo.prompts import encode_prompt
from psgpo.rl.ppo import PpoTrainer
from psgpo.sampling import HFSampler, open_sampler
from psgpo.sampling.vllm import VllmSampler

pytestmark = pytest.mark.timeout(900)
PREFIXES = random_prefixes([2, 3, 40, 100])
GREEDY = {"seeds": range(4), "temperature": 0.0, "max_new_tokens": 30}


@pytest.fixture(scope="module")
def engine(llama: Path) -> Iterator[VllmSampler]:
    sampler, _ = open_sampler(f"vllm:{llama}", batch_size=64, enforce_eager=True, block_size=BLOCK)
    assert isinstance(sampler, VllmSampler)
    yield sampler
    sampler.close()


def agree(engine: VllmSampler, model: torch.nn.Module, tokenizer: object) -> None:
    got = engine.sample(PREFIXES, **GREEDY)
    want = HFSampler(model, tokenizer).sample(PREFIXES, **GREEDY)
    assert [c.token_ids for c in got] == [c.token_ids for c in want]
    for ours, theirs in zip(got, want, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=5e-4)


def test_the_engine_takes_weights_and_forgets_what_it_cached(engine: VllmSampler, llama: Path) -> None:
    model, tokenizer = load_policy(llama)
    engine.take_weights(model)
    before = engine.sample(PREFIXES, **GREEDY)  # its prefixes are cached now
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    engine.take_weights(model)
    agree(engine, model, tokenizer)
    assert [c.token_ids for c in engine.sample(PREFIXES, **GREEDY)] != [c.token_ids for c in before]


def test_adapters_are_merged_on_the_way(engine: VllmSampler, llama: Path) -> None:
    pytest.importorskip("peft", reason="pip install 'psgpo[lora]'")
    model, tokenizer = load_policy(llama)
    prepare_training(model, ModelSettings(lora=LoraSettings(rank=4)), seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    engine.take_weights(model)
    agree(engine, model, tokenizer)


def test_ppo_learns_from_the_engines_responses(engine: VllmSampler, llama: Path, tmp_path: Path) -> None:
    policy, tokenizer = load_policy(llama)
    start = {name: value.clone() for name, value in policy.state_dict().items()}
    tasks = problems()
    with Sandbox() as sandbox:
        trainer = PpoTrainer(
            policy=policy,
            reference=load_policy(llama)[0],
            critic=TokenValueModel.from_policy(llama),
            tokenizer=tokenizer,
            sandbox=sandbox,
            arm=ArmSettings(),
            rl=RlSettings(steps=3, prompts_per_step=8, checkpoints=1, value_fit_responses=8),
            sampling=SamplingSettings(max_new_tokens=60, temperature=1.5, engine="vllm"),
            out=tmp_path,
            seed=3,
            engine=engine,
        )
        trainer.train([(task, encode_prompt(tokenizer, task.prompt)) for task in tasks])
    rows = list(read_jsonl(tmp_path / "metrics.jsonl", dict))
    assert len(rows) == 3
    # Log-probabilities of the engine are those of the policy, which has moved by then, to the last bits.
    assert all(row["engine_logprob_gap"] < 1e-3 for row in rows)
    assert any(not torch.equal(value, start[name]) for name, value in policy.state_dict().items())
    engine.take_weights(policy)
    agree(engine, policy, tokenizer)


def test_a_run_draws_everything_with_the_engine(llama: Path, tmp_path: Path) -> None:
    save_problems_jsonl(tmp_path / "train.jsonl", problems()[:3])
    save_problems_jsonl(tmp_path / "test.jsonl", problems()[3:])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"""
name = "engine"
out = "{tmp_path / "run"}"
processes = 1
device = "cpu"
prompt_template = "{{prompt}}"
problems = {{kind = "jsonl", train = "{tmp_path / "train.jsonl"}", test = "{tmp_path / "test.jsonl"}"}}
model = {{path = "{llama}"}}
sft = {{examples = 0}}
rl = {{steps = 2, prompts_per_step = 4, checkpoints = 1}}
labels = {{k = 2, draw = 2, shards = 1, compare_linear = 0, responses_per_problem = 4, holdout = 0.4}}
evaluation = {{samples = 2}}
tracking = {{to = []}}
arms = {{baseline = {{}}}}
[sampling]
engine = "vllm"
max_new_tokens = 60
temperature = 1.5
batch_size = 16
engine_options = {{enforce_eager = true, block_size = {BLOCK}}}
[prm.sign]
target = "sign"
epochs = 1
"""
    )
    result = CliRunner().invoke(app, ["run", str(recipe), "--until", "labels"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["run", str(recipe), "--until", "evaluate-baseline"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "labels" / "summary.json").read_text())["cost"]
    rows = list(read_jsonl(tmp_path / "run" / "rl" / "baseline" / "metrics.jsonl", dict))
    assert [row["engine_logprob_gap"] < 1e-3 for row in rows] == [True, True]
    assert (tmp_path / "run" / "evaluation" / "baseline" / "summary.json").is_file()
