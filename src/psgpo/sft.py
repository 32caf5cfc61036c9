"""Supervised fine-tuning: next-token loss on solutions, given their prompts."""

# B sequences, T tokens

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from psgpo.config import SftSettings
from psgpo.errors import UserError
from psgpo.models import right_pad, token_loss
from psgpo.optimizers import make_optimizers
from psgpo.prompts import encode_prompt
from psgpo.seeds import derive_seed
from psgpo.training import ResumableLog, computing, length_buckets, rate_factor, set_rates, token_batches


def train_sft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    settings: SftSettings,
    *,
    out: Path,
    seed: int,
    device: str = "cpu",
    dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Train `model` on (prompt as the model reads it, solution) pairs and save it to `out/model`.

    The loss is the mean negative logprob of solution tokens and the end-of-sequence token, per batch. Metrics go to
    `out/metrics.jsonl`. An interrupted training goes on from `out/state.pt`, written twenty times per run.

    Args:
        dtype: `model.dtype` of the recipe.

    Raises:
        UserError: no pair fits the model's context.
    """
    examples = _tokenise(tokenizer, pairs, _context(model))
    batches: list[list[int]] = []
    lengths = [len(ids) for ids, _ in examples]
    for epoch in range(settings.epochs):
        rng = np.random.default_rng(derive_seed(seed, "sft", epoch))
        batches += length_buckets(lengths, settings.batch_size, rng)
    model.to(device).train()
    optimizers = make_optimizers(
        model,
        muon=settings.optimizer == "muon",
        lr=settings.learning_rate,
        muon_lr=settings.muon_learning_rate,
        weight_decay=settings.weight_decay,
    )
    base_rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    log = ResumableLog(out)
    if log.state is not None:
        model.load_state_dict(log.state["model"])
        for optimizer, state in zip(optimizers, log.state["optimizers"], strict=True):
            optimizer.load_state_dict(state)
    started, tokens, loss_sum, count = time.perf_counter(), 0, 0.0, 0
    for step in range(log.step, len(batches)):
        chosen = [examples[index] for index in batches[step]]
        factor = rate_factor(settings.schedule, step, steps=len(batches), warmup=settings.warmup)
        set_rates(optimizers, base_rates, factor)
        model.zero_grad()
        loss, marked = _backward(model, chosen, tokenizer.pad_token_id, settings.microbatch_tokens, dtype)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        tokens, loss_sum, count = tokens + marked, loss_sum + loss, count + 1
        done = step + 1
        if done % 50 == 0 or done == len(batches):
            speed = tokens / (time.perf_counter() - started)
            log.log(
                {
                    "step": done,
                    "loss": loss_sum / count,
                    "learning_rate": settings.learning_rate * factor,
                    "examples": min(done * settings.batch_size, len(examples) * settings.epochs),
                    "tokens_per_second": speed,
                }
            )
            started, tokens, loss_sum, count = time.perf_counter(), 0, 0.0, 0
        if done % max(1, len(batches) // 20) == 0 or done == len(batches):
            log.save(done, model=model.state_dict(), optimizers=[optimizer.state_dict() for optimizer in optimizers])
        if progress:
            progress(done, len(batches))
    model.eval()
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    log.close()


def _backward(
    model: PreTrainedModel, examples: Sequence[tuple[list[int], int]], pad: int, budget: int | None, dtype: str
) -> tuple[float, int]:
    """Add the gradient of a batch's loss; the loss, and the number of tokens it is a mean over."""
    count = sum(len(ids) - prompt for ids, prompt in examples)
    total = 0.0
    for indices in token_batches([len(ids) for ids, _ in examples], budget):
        part = [examples[i] for i in indices]
        ids_BT, mask_BT = right_pad([ids for ids, _ in part], pad, device=model.device)
        prompt_B = torch.tensor([prompt for _, prompt in part], device=model.device)
        loss_mask_BT = mask_BT * (torch.arange(ids_BT.shape[1], device=model.device) >= prompt_B[:, None])
        with computing(dtype, model.device):
            loss, _ = token_loss(model, ids_BT, mask_BT, loss_mask_BT, lambda logprob_N, _: -logprob_N.sum() / count)
        torch.autograd.backward(loss)
        total += float(loss.detach())
    return total, count


def _context(model: PreTrainedModel) -> int:
    return int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)


def _tokenise(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], context: int
) -> list[tuple[list[int], int]]:
    """(prompt + solution + EOS ids, length of the prompt) of every pair that fits the context."""
    prompts = [encode_prompt(tokenizer, prompt) for prompt, _ in pairs]
    solutions = tokenizer([text for _, text in pairs], add_special_tokens=False)["input_ids"] if pairs else []
    examples = [
        ([*prompt, *solution, tokenizer.eos_token_id], len(prompt))
        for prompt, solution in zip(prompts, solutions, strict=True)
    ]
    fitting = [example for example in examples if len(example[0]) <= context]
    if not fitting:
        raise UserError(
            f"SFT: none of {len(pairs)} examples fits the model's context of {context} tokens; "
            "give examples with reference solutions, raise model.max_positions or set sft.examples = 0"
        )
    if dropped := len(examples) - len(fitting):
        print(
            f"psgpo: SFT leaves out {dropped} of {len(examples)} examples: longer than the model's {context} tokens",
            file=sys.stderr,
        )
    return fitting
