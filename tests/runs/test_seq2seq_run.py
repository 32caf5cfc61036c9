"""A run whose policy is an encoder–decoder, every stage of it; its critic starts from a smaller one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from models_world import save, tiny_policy
from seq2seq_world import code_tokenizer, sentence_tokenizer, tiny_seq2seq
from transformers import AutoModelForSeq2SeqLM, T5Config

from psgpo.config import parse_recipe
from psgpo.engines.verl.overrides import Cluster
from psgpo.errors import UserError
from psgpo.evaluation.draw import _continuation
from psgpo.jsonl import read_jsonl
from psgpo.lines import TokenText, code_lines, line_end_tokens
from psgpo.models import TokenValueModel, initial_model, load_policy, load_tokenizer
from psgpo.models.seq2seq_value import Seq2SeqForTokenClassification
from psgpo.prm import PrmScorer
from psgpo.prm.layout import sampled_template
from psgpo.prm.scorers import open_scorer
from psgpo.prm.train_options import check_architecture
from psgpo.problems import load_problems_jsonl, save_problems_jsonl
from psgpo.problems.opchain import OpChain
from psgpo.prompts import encode_prompt, fill
from psgpo.records import LineLabels
from psgpo.runs.directory import RunDirectory
from psgpo.runs.dry import dry_run
from psgpo.runs.networks import arm_networks
from psgpo.runs.stages import run_stage, stage_graph
from psgpo.runs.verl import export_arm
from psgpo.sampling.open import open_sampler
from psgpo.sampling.vllm import VllmSampler

TEMPLATE = "Write solve(x): {prompt}\n"


def t5_folder(folder: Path, width: int, vocab_size: int = 300) -> Path:
    """A new T5, of one tokenizer whatever its width."""
    torch.manual_seed(0)
    shape = {"d_model": width, "d_kv": 8, "d_ff": width, "num_layers": 1, "num_heads": 2, "vocab_size": vocab_size}
    ids = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    return save(AutoModelForSeq2SeqLM.from_config(T5Config(**shape, **ids)), code_tokenizer(), folder)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe on problem files with solutions."""
    folder = tmp_path_factory.mktemp("seq2seq")
    problems = OpChain().problems("train", 20, (1, 1))
    for name, part in (("train", problems[:14]), ("label", problems[8:14]), ("test", problems[14:])):
        save_problems_jsonl(folder / f"{name}.jsonl", part)
    files = {name: str(folder / f"{name}.jsonl") for name in ("train", "label", "test")}
    return {
        "name": "seq2seq",
        "out": str(folder / "run"),
        "device": "cpu",
        "processes": 1,
        "prompt_template": TEMPLATE,
        "problems": {"kind": "jsonl", **files},
        "model": {"path": str(t5_folder(folder / "policy", 32))},
        "critic": {"path": str(t5_folder(folder / "critic", 16))},
        "sft": {"examples": 14, "epochs": 80, "batch_size": 7, "optimizer": "adamw", "learning_rate": 2e-2},
        "sampling": {"max_new_tokens": 60},
        "rl": {"steps": 2, "prompts_per_step": 6, "minibatches": 1, "checkpoints": 2},
        "labels": {"k": 2, "draw": 2, "shards": 1, "compare_linear": 2, "holdout": 0.3},
        "prm": {"sign": {"target": "sign", "epochs": 1}},
        "arms": {
            "baseline": {},
            "dense": {"line_reward": "sum", "prm": "sign"},
            "both": {"value_init": "sign", "value_map": "probability"},
        },
        "evaluation": {"samples": 1, "bootstrap": 10},
        "tracking": {"to": []},
    }


@pytest.fixture(scope="module")
def run(table: dict[str, Any]) -> RunDirectory:
    made = RunDirectory.create(parse_recipe(table, origin="recipe"))
    for name in stage_graph(made.recipe):
        if name != "report":
            run_stage(made, name, lambda done, total: None)
    return made


def test_fine_tuning_learns_the_solutions(run: RunDirectory) -> None:
    rows = list(read_jsonl(run.path / "sft" / "metrics.jsonl", dict))
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"]
    model, tokenizer = load_policy(run.path / "sft" / "model")
    assert model.config.is_encoder_decoder
    assert encode_prompt(tokenizer, "x")[-1] == tokenizer.eos_token_id


def test_labels_are_of_prompts_that_the_encoder_reads(run: RunDirectory) -> None:
    labels = list(read_jsonl(run.path / "labels" / "labels.jsonl", LineLabels.from_json))
    problems = {p.id: p.prompt for p in load_problems_jsonl(run.path / "problems" / "label.jsonl")}
    tokenizer = load_tokenizer(run.path / "sft" / "model")
    for label in labels:
        wanted = encode_prompt(tokenizer, fill(TEMPLATE, problems[label.response.problem_id]))
        assert tuple(label.response.prompt_ids) == wanted
    assert any(probe.drawn for label in labels for probe in label.probes)
    file = run.path / "labels" / "labels.jsonl"
    assert sampled_template([file], problems, tokenizer) == TEMPLATE


def test_every_arm_trains_and_its_critic_is_the_one_it_should_be(run: RunDirectory) -> None:
    for arm in run.recipe.arms:
        rows = list(read_jsonl(run.path / "rl" / arm / "metrics.jsonl", dict))
        assert [row["step"] for row in rows] == [1, 2]
        assert rows[0]["kl"] == 0.0
        assert rows[1]["kl"] != 0.0
    dense = list(read_jsonl(run.path / "rl" / "dense" / "metrics.jsonl", dict))
    assert any(row["reward_lines"] for row in dense)
    prm = TokenValueModel.from_pretrained(run.path / "prm" / "sign" / "model")
    assert isinstance(prm.classifier, Seq2SeqForTokenClassification)
    _, _, critic, _ = arm_networks(run, "baseline")
    assert critic.head.in_features == 16  # the smaller model's
    _, _, critic, _ = arm_networks(run, "both")
    assert critic.head.in_features == 32  # the PRM's, which starts from the policy


def test_the_prm_reads_text_as_it_reads_responses(run: RunDirectory) -> None:
    folder = run.path / "prm" / "sign" / "model"
    problem = load_problems_jsonl(run.path / "problems" / "test.jsonl")[0]
    code = problem.reference_solution or ""
    of_text = open_scorer(folder).score_lines(problem.prompt, code)
    scorer = PrmScorer(folder)
    ids = scorer.tokenizer(code, add_special_tokens=False)["input_ids"]
    written, ends = TokenText(scorer.tokenizer).decode_with_ends(ids)
    assert written == code
    prompt_ids = encode_prompt(scorer.tokenizer, fill(TEMPLATE, problem.prompt))
    (of_ids,) = scorer.score([(prompt_ids, ids, line_end_tokens(ends, code_lines(code)))])
    assert len(of_text) == len(code.splitlines())
    np.testing.assert_allclose(of_text, of_ids, rtol=1e-4, atol=1e-5)
    assert len(set(of_text.tolist())) == len(of_text)


def test_a_causal_prm_may_start_from_an_encoder_decoder(run: RunDirectory) -> None:
    for folder in ("sft/model", "prm/sign/model"):
        check_architecture("causal", run.path / folder, "--init")
        assert isinstance(initial_model(run.path / folder, 0).classifier, Seq2SeqForTokenClassification)


def test_responses_are_texts_of_their_own(run: RunDirectory) -> None:
    tokenizer = load_tokenizer(run.path / "sft" / "model")
    prompt = encode_prompt(tokenizer, "add 3 to each")
    code = tokenizer("def f(x):\n    return x\n", add_special_tokens=False)["input_ids"]
    assert _continuation(tokenizer, prompt, [*code, 2]) == "def f(x):\n    return x\n"


def test_a_dry_run_describes_policy_and_critic(table: dict[str, Any], tmp_path: Path) -> None:
    said = dry_run(parse_recipe(table | {"out": str(tmp_path / "run")}, origin="recipe"))
    assert "model: T5ForConditionalGeneration, " in said
    assert "critic: T5ForConditionalGeneration, 9," in said
    small = tiny_policy("llama", code_tokenizer())
    small.config.max_position_embeddings = 128  # a prompt of 45 tokens and a response of 60
    decoder = save(small, code_tokenizer(), tmp_path / "decoder")
    said = dry_run(parse_recipe(table | {"out": str(tmp_path / "run"), "critic": {"path": str(decoder)}}, origin="r"))
    assert "critic: LlamaForCausalLM, " in said


def refused(table: dict[str, Any], tmp_path: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        dry_run(parse_recipe(table | {"out": str(tmp_path / "run")} | changes, origin="recipe"))
    return str(caught.value)


def test_critics_that_do_not_fit_are_refused_with_both_names(table: dict[str, Any], tmp_path: Path) -> None:
    policy = table["model"]["path"]
    other = save(tiny_seq2seq("t5", 120), sentence_tokenizer(), tmp_path / "other")
    message = refused(table, tmp_path, critic={"path": str(other)})
    assert f"critic.path {other}: its tokenizer is not that of the policy {policy}" in message
    few = t5_folder(tmp_path / "few", 16, vocab_size=290)
    assert "knows 290 token ids, the policy" in refused(table, tmp_path, critic={"path": str(few)})
    decoder = save(tiny_policy("llama", code_tokenizer()), code_tokenizer(), tmp_path / "decoder")
    message = refused(table, tmp_path, model={"path": str(decoder)})
    assert "an encoder–decoder, which cannot tell where the prompts of the decoder" in message
    assert "no such folder" in refused(table, tmp_path, critic={"path": str(tmp_path / "nowhere")})
    assert "critic.path needs model.path" in refused_table(table, model={})


def refused_table(table: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        parse_recipe(table | changes, origin="recipe")
    return str(caught.value)


def test_a_value_model_may_be_the_critics_start(table: dict[str, Any], run: RunDirectory, tmp_path: Path) -> None:
    prm = str(run.path / "prm" / "sign" / "model")
    said = dry_run(parse_recipe(table | {"out": str(tmp_path / "run"), "critic": {"path": prm}}, origin="recipe"))
    assert "critic: Seq2SeqForTokenClassification, " in said


def test_what_serves_decoders_alone_says_so(run: RunDirectory, table: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"verl trains decoders alone, and 't5' is an encoder–decoder"):
        export_arm(run, "baseline", tmp_path / "export", Cluster(gpus=1, reward_workers=1))
    policy = run.path / "sft" / "model"
    with pytest.raises(UserError, match="serves no encoder–decoders"):
        VllmSampler(policy, load_tokenizer(policy))
    with pytest.raises(UserError, match="serves no encoder–decoders"):
        open_sampler("openai:http://127.0.0.1:9#m", tokenizer=policy)
    assert "serves no encoder–decoders" in refused(table, tmp_path, sampling={"max_new_tokens": 60, "engine": "vllm"})
    assert "reads a text, not a chat" in refused(table, tmp_path, prompt_chat=True)


def test_a_tokenizer_folder_of_its_own_serves_an_encoder_decoder(run: RunDirectory, tmp_path: Path) -> None:
    code_tokenizer().save_pretrained(tmp_path)
    sampler, tokenizer = open_sampler(str(run.path / "sft" / "model"), tokenizer=tmp_path)
    (completion,) = sampler.sample([encode_prompt(tokenizer, "sum")], seeds=[0], max_new_tokens=3)
    assert completion.token_ids
