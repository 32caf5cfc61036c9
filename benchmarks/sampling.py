"""Useful tokens per second of HFSampler against `model.generate`: same model, same prompts, interleaved in one run.

    python benchmarks/sampling.py [--threads 1] [--train-seconds 40] [--prompts 64] [--responses 8] [--repeats 5]

The shift decoder is first trained briefly on OpChain, so that responses end where real ones end. A useful token is one
that belongs to a response, its end-of-sequence token included; what `generate` computes for rows that have ended is
not. Both sides draw at temperature 1 with the same limit. `generate` gets the prompts sorted by length in batches
of the size that suits it best among those tried, and `num_return_sequences` for the responses of a prompt.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from psgpo.models import create_policy, right_pad, token_logprobs, train_tokenizer
from psgpo.problems.opchain import OpChain
from psgpo.sampling import HFSampler
from psgpo.training import length_buckets

Pair = tuple[list[int], list[int]]


def main() -> None:
    """Train, sample, print one line per sampler and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train-seconds", type=float, default=40.0)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=int, default=200, help="max_new_tokens")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--generate-batches", type=int, nargs="+", default=[64, 256], help="rows per generate call")
    parser.add_argument("--architecture", choices=["psgpo-shift", "llama"], default="psgpo-shift")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    pairs = [(f"# {e.prompt}\n", e.solution) for e in OpChain().sft_examples(6000)]
    tokenizer = train_tokenizer([prompt + code for prompt, code in pairs[:3000]])
    policy = _untrained(options.architecture, tokenizer)
    loss = _train(policy, tokenizer, _encode(tokenizer, pairs), options.train_seconds)
    prompts = [ids for ids, _ in _encode(tokenizer, pairs[-options.prompts :])]
    print(f"{options.architecture}, {policy.num_parameters():,} parameters, trained to {loss:.2f} nats a token")

    sampler = HFSampler(policy, tokenizer, batch_size=options.batch_size)
    rows = [prompt for prompt in prompts for _ in range(options.responses)]

    def ours(repeat: int) -> list[int]:
        seeds = [repeat * len(rows) + i for i in range(len(rows))]
        return [len(c.token_ids) for c in sampler.sample(rows, seeds=seeds, max_new_tokens=options.limit)]

    contenders: dict[str, Callable[[int], list[int]]] = {"HFSampler": ours}
    for size in options.generate_batches:
        contenders[f"generate, batch {size}"] = _generator(policy, tokenizer, prompts, options, size)
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    lengths: dict[str, list[int]] = {name: [] for name in contenders}
    for repeat in range(options.repeats + 1):  # the first round warms up
        for name, run in contenders.items():
            started = time.perf_counter()
            counts = run(repeat)
            seconds = time.perf_counter() - started
            if repeat:
                speeds[name].append(sum(counts) / seconds)
                lengths[name] += counts
    for name, values in speeds.items():
        deciles = np.percentile(lengths[name], [10, 50, 90]).round().astype(int).tolist()
        span = f"{min(values):,.0f}-{max(values):,.0f}"
        print(f"{name:24s} {statistics.median(values):8,.0f} useful tokens/s ({span}); lengths 10/50/90 %: {deciles}")
    best = max((name for name in speeds if name != "HFSampler"), key=lambda name: statistics.median(speeds[name]))
    ratios = [mine / theirs for mine, theirs in zip(speeds["HFSampler"], speeds[best], strict=True)]
    print(f"ratio to the faster generate: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    print(f"slots in use: {sampler.stats.utilisation:.1%}")


def _untrained(architecture: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    if architecture == "psgpo-shift":
        return create_policy(tokenizer)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=1, bos_token_id=None, tie_word_embeddings=True, **sizes
    )
    return LlamaForCausalLM(config)


def _encode(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    codes = tokenizer([code for _, code in pairs])["input_ids"]
    return [(prompt, [*code, tokenizer.eos_token_id]) for prompt, code in zip(prompts, codes, strict=True)]


def _train(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: list[Pair], seconds: float) -> float:
    """Next-token training until the time is up; the mean loss of the last 20 steps."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95))
    lengths = [len(prompt) + len(code) for prompt, code in pairs]
    losses: list[float] = []
    started = time.perf_counter()
    epoch = 0
    while time.perf_counter() - started < seconds:
        for batch in length_buckets(lengths, 32, np.random.default_rng(epoch)):
            ids, mask = right_pad([[*pairs[i][0], *pairs[i][1]] for i in batch], tokenizer.pad_token_id)
            prompt = torch.tensor([len(pairs[i][0]) for i in batch])
            marked = mask * (torch.arange(ids.shape[1]) >= prompt[:, None])
            loss = -token_logprobs(model, ids, mask, marked)[0].sum() / marked.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            if time.perf_counter() - started > seconds:
                break
        epoch += 1
    model.eval()
    return statistics.fmean(losses[-20:])


def _generator(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    options: argparse.Namespace,
    batch_size: int,
) -> Callable[[int], list[int]]:
    """`generate` over prompts sorted by length, `batch_size` rows at a time."""
    ordered = sorted(prompts, key=len)
    step = max(1, batch_size // options.responses)

    def run(repeat: int) -> list[int]:
        torch.manual_seed(repeat)
        counts: list[int] = []
        for start in range(0, len(ordered), step):
            part = ordered[start : start + step]
            ids, mask = (t.flip(1) for t in right_pad([prompt[::-1] for prompt in part], tokenizer.pad_token_id))
            output = model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                top_k=0,
                max_new_tokens=options.limit,
                num_return_sequences=options.responses,
                pad_token_id=tokenizer.pad_token_id,
            )
            counts += (output[:, ids.shape[1] :] != tokenizer.pad_token_id).sum(1).tolist()
        return counts

    return run


if __name__ == "__main__":
    main()
