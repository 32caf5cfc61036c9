"""Tokens per second and peak memory of a PPO step: psgpo against TRL 1.12, the last release with PPO, in one run.

    make bench-ppo                                  # sets up TRL's own environment, then runs this
    python benchmarks/ppo_step.py [--rounds 3] [--steps 3] [--batch 32] [--micro 8] [--threads 1]

Both sides load the same random Llama (policy, reference, critic, reward model), take the same prompts and make
responses of the same length: nothing in a random model ends early. One pass over the batch, one optimizer step, in
micro-batches of `--micro` rows. The critic and the reward model have the policy's trunk and one number per token. psgpo
scores lines, TRL the last token; neither grades programs. Contenders run by turns, each in a process of its own; a
figure is the median over the steps of all rounds, the first of each process left out. Tokens are response tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from psgpo.models import TokenValueModel

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Make the models, run both sides by turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, default=Path(".venv-trl"), help="TRL's environment")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="measured steps of a process")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--micro", type=int, default=8, help="rows of a micro-batch")
    parser.add_argument("--prompt", type=int, default=64, help="tokens")
    parser.add_argument("--response", type=int, default=128, help="tokens")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every step here")
    options = parser.parse_args()
    python = options.trl / "bin" / "python"
    if not python.is_file():
        raise SystemExit(f"{python}: no such file; `make bench-ppo` makes TRL's environment")
    job = {
        name: getattr(options, name) for name in ("steps", "batch", "micro", "prompt", "response", "epochs", "threads")
    }
    contenders = {"TRL 1.12": (str(python), "ppo_step_trl.py"), "psgpo": (sys.executable, "ppo_step_psgpo.py")}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as scratch:
        parameters = make_models(Path(scratch), options)
        for number in range(options.rounds):
            for name, (interpreter, script) in contenders.items():
                found[name].append(run(interpreter, script, Path(scratch), job))
                print(f"round {number + 1}: {name} done", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps({"job": job, "found": found}))
    print(f"Llama, {parameters / 1e6:.1f} M parameters, vocabulary {options.vocab:,}; {job}")
    print_table(found)


def run(interpreter: str, script: str, folder: Path, job: dict[str, int]) -> dict[str, Any]:
    """What one process of a contender reports."""
    threads = {"OMP_NUM_THREADS": str(job["threads"]), "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    made = subprocess.run(
        [interpreter, str(HERE / script), str(folder), json.dumps(job)],
        env=os.environ | threads,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise SystemExit(f"{script} ended with status {made.returncode}:\n{made.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return answer


def print_table(found: dict[str, list[dict[str, Any]]]) -> None:
    """Medians, and psgpo's share of or factor over TRL's."""
    rows: dict[str, dict[str, float]] = {}
    for name, runs in found.items():
        steps = [step for one in runs for step in one["steps"]]
        rows[name] = {
            "tokens/s, learning alone": statistics.median(s["tokens"] / (s["step"] - s["sample"]) for s in steps),
            "tokens/s, sampling included": statistics.median(s["tokens"] / s["step"] for s in steps),
            "tokens/s, sampling alone": statistics.median(s["tokens"] / s["sample"] for s in steps),
            "peak memory, MB": statistics.median(one["peak_mb"] for one in runs),
            "of that on top of the loaded models, MB": statistics.median(o["peak_mb"] - o["before_mb"] for o in runs),
        }
    theirs, ours = rows["TRL 1.12"], rows["psgpo"]
    print("| | TRL 1.12 | psgpo | psgpo / TRL |\n|---|---|---|---|")
    for label in theirs:
        print(f"| {label} | {theirs[label]:,.0f} | {ours[label]:,.0f} | {ours[label] / theirs[label]:.2f} |")


def make_models(folder: Path, options: argparse.Namespace) -> int:
    """Write policy, critic and reward model, as each side reads them, and the prompts; the policy's parameters."""
    tokenizer = byte_level_tokenizer(options.vocab)
    config = LlamaConfig(
        vocab_size=options.vocab,
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 11 // 4,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        num_key_value_heads=options.hidden // 64,
        max_position_embeddings=options.prompt + options.response + 8,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        num_labels=1,
    )
    torch.manual_seed(0)
    policy = LlamaForCausalLM(config)
    policy.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    for name in ("critic", "prm"):
        tokens = TokenValueModel.from_policy(policy, head_init="normal", seed=1)
        tokens.save_pretrained(folder / f"{name}-tokens", tokenizer)
        sequence = LlamaForSequenceClassification(config)
        sequence.model.load_state_dict(policy.model.state_dict())
        sequence.score.weight.data.copy_(tokens.head.weight)
        sequence.save_pretrained(folder / name)
    rng = np.random.default_rng(0)
    prompts = rng.integers(2, options.vocab, size=(options.batch, options.prompt)).tolist()
    (folder / "prompts.json").write_text(json.dumps(prompts))
    return policy.num_parameters()


def byte_level_tokenizer(size: int) -> PreTrainedTokenizerBase:
    """A vocabulary of `size` byte-level pieces; every sixteenth ends a line."""
    pieces = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [f"x{number}" + ("Ċ" if number % 16 == 0 else "Ġ") for number in range(size - len(pieces))]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


if __name__ == "__main__":
    main()
