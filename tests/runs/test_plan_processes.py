"""`psgpo plan --processes` against the resident memory of real processes (docs/training-at-scale.md)."""

from __future__ import annotations

import pytest
from transformers import LlamaConfig

from psgpo.config import ModelSettings, RlSettings
from psgpo.runs.plan.memory import ppo_step
from psgpo.runs.plan.network import Network
from psgpo.runs.plan.share import Share

LLAMA = LlamaConfig(
    vocab_size=8000,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    pad_token_id=0,
)
"""That of benchmarks/processes.py."""
MEASURED = {
    Share(): 1290,
    Share(processes=2): 1303,
    Share(processes=2, sharded=True): 786,
}
"""MB of a process during updates."""


@pytest.mark.parametrize("share", MEASURED, ids=str)
def test_a_process_holds_about_what_was_measured(share: Share) -> None:
    policy, critic = (Network(LLAMA, role, ModelSettings(), gpu=False) for role in ("policy", "critic"))
    rl = RlSettings(minibatches=1, microbatch_tokens=256)
    step = ppo_step(policy, critic, rl, [[(64, 64)] * 8], temperature=1.0, share=share)
    assert step.peak / 1e6 == pytest.approx(MEASURED[share], rel=0.05)


def test_a_process_gets_the_longest_rows_and_never_none() -> None:
    assert Share(processes=2).rows([(1, 2), (1, 9), (1, 5)]) == [(1, 9)]
    assert Share(processes=4).rows([(3, 3)]) == [(3, 3)]
    assert Share(processes=4).held(10) == 10
    assert Share(processes=4, sharded=True).held(10) == 3
