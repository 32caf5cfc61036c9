"""A PRM on the real vLLM server gives the scores that it gives in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engines_world import serve
from test_pooling import rollout
from transformers import Qwen2Config, Qwen2ForCausalLM

from psgpo.engines.pooling import PoolingScorer
from psgpo.models import TokenValueModel, train_tokenizer
from psgpo.prm import PrmScorer
from psgpo.rl.rollout import PrmLineScorer

pytestmark = pytest.mark.timeout(900)


def test_a_served_prm_scores_as_here(vllm_environment: None, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["def solve(x):\n    return x\n"] * 4, 300)
    torch.manual_seed(3)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    policy = Qwen2ForCausalLM(
        Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=128, **sizes)
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.12)
    prm = TokenValueModel.from_policy(policy, head_init="normal", seed=1)
    with torch.no_grad():
        prm.head.weight.mul_(20)
    prm.save_pretrained(tmp_path / "prm", tokenizer)
    rows = np.random.default_rng(0).integers(2, 250, size=(5, 24)).tolist()
    rollouts = [rollout(tuple(row[: 4 + i]), tuple(row[4 + i :]), (2, 7, 19 - i)) for i, row in enumerate(rows)]
    want = PrmLineScorer(PrmScorer(prm, tokenizer)).score(rollouts)
    with serve("pooling", tmp_path / "prm", tmp_path / "log.txt") as server:
        got = PoolingScorer(server.url.removesuffix("/v1")).score(rollouts)
    for ours, theirs in zip(want, got, strict=True):
        assert theirs == pytest.approx(ours, abs=2e-4)
    assert np.concatenate(want).std() > 0.1
