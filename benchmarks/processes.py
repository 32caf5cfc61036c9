"""What a PPO update costs each of several processes: seconds, and memory, whole networks or sharded.

    python benchmarks/processes.py                                            one process
    torchrun --nproc-per-node 2 benchmarks/processes.py --strategy ddp        two, on CPUs or GPUs
    torchrun --nproc-per-node 2 benchmarks/processes.py --strategy fsdp

A random Llama is policy, reference and critic; rows are random ids. Sampling and grading are not part of it. Memory is
the peak of the updates, when the networks are where they belong: on a GPU what PyTorch allocated, on a CPU the resident
memory of the process above that before the networks were made (set MALLOC_MMAP_THRESHOLD_=65536, or the C library keeps
what was freed).
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from psgpo.config import RlSettings
from psgpo.models import TokenValueModel
from psgpo.parallel.launch import ended_together, launched
from psgpo.parallel.team import current_team
from psgpo.rl.learner import Batch, Learner, Targets


def main() -> None:
    """Measure, and print a line for every process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", choices=["ddp", "fsdp"], default="ddp")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--rows", type=int, default=8, help="responses of a step")
    parser.add_argument("--tokens", type=int, default=128, help="of a row, half of them the response")
    parser.add_argument("--microbatch-tokens", type=int, default=256)
    parser.add_argument("--updates", type=int, default=3, help="measured, after one that is not")
    options = parser.parse_args()
    if launched():
        with ended_together():
            measure(options)
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """One process's part."""
    torch.set_num_threads(1)
    team = replace(current_team(), sharded=launched() and options.strategy == "fsdp")
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    before = peak_mb(device)  # nothing but the libraries so far
    critic = TokenValueModel.from_policy(network(options))
    settings = RlSettings(minibatches=1, microbatch_tokens=options.microbatch_tokens)
    learner = Learner(
        network(options), network(options), critic, settings, temperature=1.0, seed=0, team=team, device=device
    )
    forget_peak(device)
    generator = torch.Generator().manual_seed(0)
    shape = (options.rows, options.tokens)
    ids = torch.randint(2, options.vocabulary, shape, generator=generator)
    mask = (torch.arange(options.tokens) >= options.tokens // 2).expand(shape).float()
    noise = [(torch.randn(shape, generator=generator) * mask).to(device) for _ in range(4)]
    batch = Batch(
        input_ids=ids.to(device),
        attention_mask=torch.ones_like(ids).to(device),
        mask=mask.to(device),
        old_logprobs=noise[0],
        rewards=noise[0],
        finished=torch.ones(len(ids), dtype=torch.bool, device=device),
    )
    targets = Targets(advantages=noise[1], returns=noise[2], old_values=noise[3])
    seconds = []
    for step in range(options.updates + 1):
        team.wait()
        started = time.perf_counter()
        learner.ref_logprobs(batch)
        learner.values(batch)
        learner.update(step, batch, targets)
        team.wait()
        seconds.append(time.perf_counter() - started)
    middle = statistics.median(seconds[1:])
    rows = team.gather([(team.rank, peak_mb(device) - before)])
    if team.is_main:
        count = sum(p.numel() for p in learner.policy.parameters())
        name = "one process" if team.size == 1 else f"{options.strategy}, {team.size} processes"
        print(f"{name}, {device.partition(':')[0]}, {count / 1e6:.1f} M parameters in each of three networks")
        print(f"  {middle:.2f} s an update, {options.rows * options.tokens / middle:,.0f} tokens/s")
        for rank, megabytes in rows:
            print(f"  process {rank}: {megabytes:,.0f} MB at most")


def network(options: argparse.Namespace) -> PreTrainedModel:
    """A random Llama; equal in all processes."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=3 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        pad_token_id=0,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def forget_peak(device: str) -> None:
    """Begin a new peak: networks were made whole before they were split."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb(device: str) -> float:
    """Megabytes."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
