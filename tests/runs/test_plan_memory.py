"""`psgpo plan` against real PPO steps, in bytes of live tensors."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import plan_memory
from plan_memory import SMALL_T5, Case, cases, measured, networks, planned, sample
from psgpo.runs.plan.live import LiveBytes

CHOSEN = [
    Case(model="psgpo-shift"),
    Case(model="psgpo-shift", dtype="bfloat16", checkpointing=True, microbatch_tokens=130),
    Case(model="llama", lora=True),
    Case(model="llama", dtype="bfloat16", microbatch_tokens=130),
    Case(model="qwen2", checkpointing=True),
    Case(model="qwen2", lora=True, checkpointing=True, microbatch_tokens=130),
    Case(model="gpt2", microbatch_tokens=130),
    Case(model="gpt2", lora=True, dtype="bfloat16"),
    Case(model="t5"),
    Case(model="t5", lora=True, dtype="bfloat16", checkpointing=True),
    Case(model="t5-1.1", microbatch_tokens=130),
    Case(model="t5-1.1", dtype="bfloat16"),
    Case(model="t5", critic=SMALL_T5, microbatch_tokens=130),
]


@pytest.mark.parametrize("case", CHOSEN, ids=str)
def test_a_step_peaks_where_the_plan_says(case: Case) -> None:
    assert planned(case) == pytest.approx(measured(case), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=str)
def test_every_step_of_the_grid_peaks_where_the_plan_says(case: Case) -> None:
    assert planned(case) == pytest.approx(measured(case), rel=0.1)


def test_the_script_prints_a_row_for_each_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_memory, "cases", lambda: CHOSEN[:2])
    monkeypatch.setattr(sys, "argv", ["plan_memory.py"])
    plan_memory.main()
    _, _, first, second, _, end = capsys.readouterr().out.splitlines()
    assert first.startswith("| psgpo-shift |  |  | float32 |  | ")
    assert second.startswith("| psgpo-shift |  | yes | bfloat16 | 130 | ")
    assert end.startswith("2 steps: ratio ")


def test_what_is_planned_differs_by_more_than_its_error() -> None:
    """A plan that said one number for all would fail."""
    plain = planned(Case(model="llama"))
    assert planned(Case(model="llama", microbatch_tokens=130)) < 0.8 * plain
    assert planned(Case(model="llama", lora=True)) < 0.8 * plain
    assert planned(Case(model="llama", checkpointing=True)) < 0.8 * plain


def test_sampling_leaves_no_keys_and_values_behind() -> None:
    """A cycle in the cache would hold them through the update, until the garbage collector comes by."""
    case = Case(model="llama")
    policy, _, _ = networks(case)
    sample(policy, case)  # what a model's first call keeps
    gc.collect()
    gc.disable()
    try:
        with LiveBytes([*policy.parameters(), *policy.buffers()]) as live:
            before = live.now
            sample(policy, case)
            assert live.peak > before + 10_000
            assert live.now - before < 1_000
    finally:
        gc.enable()


def test_live_bytes_by_hand() -> None:
    with LiveBytes() as live:
        one = torch.zeros(10)  # 40 bytes
        view = one[2:5]
        assert live.now == 40
        two = one + 1
        assert live.now == 80
        del one
        assert live.now == 80  # the view holds it
        del view
        assert live.now == 40
        del two
    assert (live.now, live.peak) == (0, 80)


def test_a_tensor_that_was_there_counts_when_given() -> None:
    before = torch.zeros(25)
    with LiveBytes([before]) as live:
        before.add_(1)
    assert (live.now, live.peak) == (100, 100)
