"""`psgpo rerank` with any model of transformers, with chats, and on benchmarks by name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_world import family_tokenizer
from rerank_world import PROBLEMS, RECORD, rerank, search, summary_of
from seq2seq_world import code_tokenizer, tiny_seq2seq
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from psgpo.config import SftSettings
from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl, write_jsonl
from psgpo.labeling.identity import tokenizer_fingerprint
from psgpo.lines import code_lines
from psgpo.models import load_tokenizer
from psgpo.prm import open_scorer
from psgpo.problems.programs import chat_prompt
from psgpo.records import Completion
from psgpo.rerank import search as search_module
from psgpo.rerank.scores import aggregates
from psgpo.sft import train_sft


def llama() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """With a tokenizer as Qwen2.5's: other merges, other special tokens, other ids than the PRM's."""
    tokenizer = family_tokenizer("qwen2.5-base")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **special)
    return LlamaForCausalLM(config), tokenizer


def t5() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """An encoder–decoder with a tokenizer as CodeT5's."""
    return tiny_seq2seq("t5"), code_tokenizer()


@pytest.mark.parametrize("make", [llama, t5])
def test_any_model_of_transformers_can_be_searched(make, world: Path, tmp_path: Path) -> None:
    model, tokenizer = make()
    assert tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(load_tokenizer(world / "prm"))
    pairs = [(f"# add {i}\n", f"def solve(x):\n    return x + {i}\n") for i in range(6)]
    settings = SftSettings(learning_rate=1e-2, batch_size=8)
    train_sft(model, tokenizer, pairs * 120, settings, out=tmp_path / "policy", seed=0)
    out, folder = tmp_path / "out", tmp_path / "policy" / "model"
    search(world, out, "--policy", f"hf:{folder}", "--max-new-tokens", "40", "--budget", "320", "--temperature", "0.5")
    scorer, own = open_scorer(world / "prm"), load_tokenizer(folder)
    prompts = {problem.id: problem.prompt for problem in PROBLEMS}
    methods, statuses = summary_of(out)["methods"], set[str]()
    for name in ("best-of-n", "beam", "rejection"):
        rows = list(read_jsonl(out / f"{name}.jsonl", dict))
        found = [(row["problem_id"], candidate) for row in rows for candidate in row["candidates"]]
        assert len(found) > len(PROBLEMS)
        assert all(row["spent"] <= 320 for row in rows)
        for problem, candidate in found:
            response = candidate["response"]
            ids = response["token_ids"]
            assert response["finished"]
            assert ids[-1] == own.eos_token_id
            assert own.decode(ids, skip_special_tokens=True) == response["text"]
            neutral = [line.neutral for line in code_lines(response["text"])]
            if not all(neutral):  # the PRM reads the text of the policy's tokens, cut its own way
                scores = scorer.score_lines(prompts[problem], response["text"])
                assert candidate["scores"] == pytest.approx(aggregates(scores, neutral, RECORD), abs=1e-4)
        assert methods[name]["curve"][-1]["value"] == pytest.approx(np.mean([passed_by_min(row) for row in rows]))
        statuses |= {candidate["response"]["verdict"]["status"] for _, candidate in found}
    assert "PASSED" in statuses


def passed_by_min(row: dict[str, Any]) -> float:
    """Share of passing programs among those with the highest least score: a tie is broken at random."""
    scores = [-np.inf if c["scores"]["min"] is None else c["scores"]["min"] for c in row["candidates"]]
    tied = [c for c, score in zip(row["candidates"], scores, strict=True) if score == max(scores)]
    return float(np.mean([c["response"]["verdict"]["status"] == "PASSED" for c in tied])) if tied else 0.0


FENCED = "Sure! Here it is:\n```python\ndef solve(x):\n    # add\n    return x + {0}\n```\n"


CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>"


def chatty_policy(world: Path, tmp_path: Path) -> Path:
    """The world's policy, with a tokenizer that has a chat template."""
    folder = tmp_path / "chatty"
    shutil.copytree(world / "policy" / "model", folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def test_a_chat_that_talks_around_its_code_is_searched_line_by_line(world: Path, tmp_path: Path) -> None:
    folder = chatty_policy(world, tmp_path)
    tokenizer = load_tokenizer(folder)
    models = search_module.open_models(str(folder), world / "prm", template="chat", batch_size=8, device="cpu")
    prompt = models.prompt_ids(PROBLEMS[2])
    assert models.fences
    assert tokenizer.decode(prompt) == f"<user>{chat_prompt(PROBLEMS[2])}\n<assistant>"
    answer = [*tokenizer(FENCED.format(2) + "It adds.")["input_ids"], tokenizer.eos_token_id]
    block = len(tokenizer(FENCED.format(2))["input_ids"])

    class Script:
        model, stop_ids = models.sampler.model, models.sampler.stop_ids

        def sample(self, prefixes, *, max_new_tokens, **_):
            drawn = []
            for prefix, limit in zip(prefixes, max_new_tokens, strict=True):
                rest = answer[len(prefix) - len(prompt) :][:limit]
                stop = next((n for n, token in enumerate(rest) if token in self.stop_ids), len(rest) - 1)
                ids = tuple(rest[: stop + 1])
                done = ids[-1] in self.stop_ids
                drawn.append(Completion(token_ids=ids, logprobs=(-1.0,) * len(ids), finished=done))
            return drawn

    settings = search_module.SearchSettings(budget=2 * len(answer), max_new_tokens=len(answer), width=1, expansions=1)
    scripted = dataclasses.replace(models, sampler=Script())
    limits = {"timeout": 2.0, "memory_mb": 256, "workers": 1}
    search_module.run_search(PROBLEMS[2:3], scripted, settings, tmp_path / "out", limits=limits, resamples=5)
    scores = open_scorer(world / "prm").score_lines(PROBLEMS[2].prompt, FENCED.format(2))
    expected = aggregates(scores, [False, True, False], RECORD)
    for name in ("best-of-n", "beam", "rejection"):
        (row,) = read_jsonl(tmp_path / "out" / f"{name}.jsonl", dict)
        first = row["candidates"][0]
        assert first["response"]["text"] == FENCED.format(2)
        assert first["response"]["verdict"]["status"] == "PASSED"
        assert first["response"]["finished"]  # with its fence: nothing is cut off
        assert first["tokens"] == block
        assert first["scores"] == pytest.approx(expected, abs=1e-4)


def test_only_chats_wait_for_a_fence(world: Path, tmp_path: Path) -> None:
    folder = chatty_policy(world, tmp_path)
    templates = {None: False, "# {prompt}\n": False, "completion": False, "<user>Do {prompt}\n<assistant>": True}
    for template, fences in templates.items():
        models = search_module.open_models(str(folder), world / "prm", template=template, batch_size=8, device="cpu")
        assert models.fences is fences


def test_benchmarks_are_searched_and_reranked_by_name(world: Path, tmp_path: Path) -> None:
    row = {
        "task_id": "HumanEval/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    return x\n",
        "test": "def check(candidate):\n    assert candidate(1) == 1\n",
    }
    write_jsonl(tmp_path / "HumanEval.jsonl", [row, row | {"task_id": "HumanEval/1"}])
    benchmark = ["--problems", "humaneval", "--data", str(tmp_path / "HumanEval.jsonl"), "--limit", "1"]
    search(world, tmp_path / "out", "--method", "beam", "--template", "completion", *benchmark)
    assert [r["problem_id"] for r in read_jsonl(tmp_path / "out" / "beam.jsonl", dict)] == ["HumanEval/0"]
    job = json.loads((tmp_path / "out" / "job.json").read_text())
    assert (job["timeout"], job["test_timeout"], job["memory_mb"]) == (10.0, 5.0, 512)  # HumanEval's own
    search(world, tmp_path / "opchain", "--problems", "opchain", "--operations", "1", "--limit", "1", "--split", "test")
    job = json.loads((tmp_path / "opchain" / "job.json").read_text())
    assert (job["timeout"], job["memory_mb"]) == (0.5, 96)
    for command_of in (search, rerank):
        with pytest.raises(UserError, match="nothing: unknown benchmark; known: humaneval"):
            command_of(world, tmp_path / "none", "--problems", "nothing")
    with pytest.raises(UserError, match="these samples are of other problems than humaneval"):
        rerank(world, tmp_path / "samples", *benchmark)
