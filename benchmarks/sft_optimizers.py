"""What an optimizer buys when the small policy is trained from scratch: held-out loss after the same examples.

    .venv/bin/python benchmarks/sft_optimizers.py [--examples 12000]

Every row trains the demo's model on the same OpChain examples in the same order, then prints the mean negative logprob
of held-out programs (nats per program) and the CPU seconds of training, tokenizer and data excluded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from psgpo.config import ModelSettings, SftSettings
from psgpo.models import create_policy, right_pad, token_logprobs, train_tokenizer
from psgpo.problems.opchain import OpChain
from psgpo.prompts import encode_prompt, fill
from psgpo.sft import train_sft

HELD_OUT = 512
ROWS = {
    "AdamW 3e-3": SftSettings(optimizer="adamw", learning_rate=3e-3),
    "AdamW 1e-2": SftSettings(optimizer="adamw", learning_rate=1e-2),
    "Muon 0.02, AdamW 1e-2 for the rest": SftSettings(optimizer="muon", learning_rate=1e-2, muon_learning_rate=0.02),
}


def main() -> None:
    """Train every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=12_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    examples = list(OpChain().sft_examples(options.examples + HELD_OUT))
    pairs = [(fill("# {prompt}\n", example.prompt), example.solution) for example in examples]
    size = ModelSettings()
    tokenizer = train_tokenizer([prompt + solution for prompt, solution in pairs[:3000]], size.vocab_size)
    sys.stdout.write("| optimizer | nats per held-out program | CPU seconds |\n|---|---|---|\n")
    for name, settings in ROWS.items():
        model = create_policy(
            tokenizer,
            hidden_size=size.hidden_size,
            intermediate_size=size.intermediate_size,
            num_hidden_layers=size.layers,
        )
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            train_sft(model, tokenizer, pairs[: options.examples], settings, out=Path(folder), seed=0)
            spent = time.process_time() - started
        sys.stdout.write(f"| {name} | {nats(model, tokenizer, pairs[options.examples :]):.2f} | {spent:.0f} |\n")
        sys.stdout.flush()


@torch.inference_mode()
def nats(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> float:
    """Mean negative logprob of a program and its end, given the prompt."""
    total = 0.0
    for start in range(0, len(pairs), 64):
        chunk = pairs[start : start + 64]
        prompts = [encode_prompt(tokenizer, prompt) for prompt, _ in chunk]
        rows = [
            [*prompt, *tokenizer(solution, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            for prompt, (_, solution) in zip(prompts, chunk, strict=True)
        ]
        ids, mask = right_pad(rows, tokenizer.pad_token_id)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        logprobs, _ = token_logprobs(model, ids, mask, mask * (torch.arange(ids.shape[1]) >= lengths[:, None]))
        total -= float(logprobs.sum())
    return total / len(pairs)


if __name__ == "__main__":
    main()
