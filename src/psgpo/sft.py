"""Supervised fine-tuning: next-token loss on solutions, given their prompts."""

# B sequences, T tokens

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from psgpo.config import SftSettings
from psgpo.errors import UserError
from psgpo.models import right_pad, save_merged, token_loss
from psgpo.optimizers import make_optimizers
from psgpo.parallel.replica import Replica, clip_gradients, load_optimizer, optimizer_state
from psgpo.parallel.team import ALONE, Team
from psgpo.prompts import encode_prompt
from psgpo.seeds import derive_seed
from psgpo.training import ResumableLog, computing, length_buckets, rate_factor, set_rates, shared_batches


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
    team: Team = ALONE,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Train `model` on (prompt as the model reads it, solution) pairs and save it to `out/model`, adapters merged.

    The loss is the mean negative logprob of solution tokens and the end-of-sequence token, per batch. Metrics go to
    `out/metrics.jsonl`. An interrupted training goes on from `out/state.pt`, see `ResumableLog.due`.

    Args:
        dtype: `model.dtype` of the recipe.
        team: the processes that train together: each works through a share of every batch, the main one writes.

    Raises:
        UserError: no pair fits the model's context, the training diverged, or its state is of an older version.
    """
    examples = _tokenise(tokenizer, pairs, _context(model))
    batches: list[list[int]] = []
    lengths = [len(ids) for ids, _ in examples]
    for epoch in range(settings.epochs):
        rng = np.random.default_rng(derive_seed(seed, "sft", epoch))
        batches += length_buckets(lengths, settings.batch_size, rng)
    replica = Replica(model.train(), team, device)
    optimizers = make_optimizers(
        model,
        muon=settings.optimizer == "muon",
        lr=settings.learning_rate,
        muon_lr=settings.muon_learning_rate,
        weight_decay=settings.weight_decay,
    )
    base_rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    parameters = [p for p in model.parameters() if p.requires_grad]
    log = ResumableLog(out, writes=team.is_main)
    team.wait()  # all have read the state that the main process goes on to replace
    loss_sum, count = 0.0, 0
    if log.state is not None:
        if "loss_sum" not in log.state:
            raise UserError(f"{log.state_path}: an older psgpo wrote it; delete it, to train from the start")
        replica.load(log.state["model"])
        for optimizer, state in zip(optimizers, log.state["optimizers"], strict=True):
            load_optimizer(optimizer, state)
        loss_sum, count = log.state["loss_sum"], log.state["count"]
        log.forget()
    started, tokens = time.perf_counter(), 0
    for step in range(log.step, len(batches)):
        chosen = [examples[index] for index in batches[step]]
        factor = rate_factor(settings.schedule, step, steps=len(batches), warmup=settings.warmup)
        set_rates(optimizers, base_rates, factor)
        model.zero_grad()
        loss, marked = _backward(replica, chosen, tokenizer.pad_token_id, settings.microbatch_tokens, dtype)
        clip_gradients(parameters, 1.0)
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
        if log.due(done, len(batches), parts=20, team=team):
            moments = [optimizer_state(optimizer, team) for optimizer in optimizers]
            log.save(done, model=replica.state(), optimizers=moments, loss_sum=loss_sum, count=count)
        if progress:
            progress(done, len(batches))
    model.eval()
    with replica.whole() as whole:
        if team.is_main:
            save_merged(whole, out / "model")
            tokenizer.save_pretrained(out / "model")
    log.close()


def _backward(
    replica: Replica[PreTrainedModel],
    examples: Sequence[tuple[list[int], int]],
    pad: int,
    budget: int | None,
    dtype: str,
) -> tuple[float, int]:
    """Make the gradient of a batch's loss; the loss, and the number of tokens it is a mean over."""
    model, device = replica.network, replica.network.device
    count = sum(len(ids) - prompt for ids, prompt in examples)
    total = torch.zeros(1, dtype=torch.float64)
    for indices, counts in shared_batches([len(ids) for ids, _ in examples], budget, replica.team):
        part = [examples[i] for i in indices]
        ids_BT, mask_BT = right_pad([ids for ids, _ in part], pad, device=device)
        prompt_B = torch.tensor([prompt for _, prompt in part], device=device)
        loss_mask_BT = mask_BT * (torch.arange(ids_BT.shape[1], device=device) >= prompt_B[:, None]) * counts
        inputs = ids_BT, mask_BT, loss_mask_BT
        with computing(dtype, device):
            loss, _ = replica.run(partial(token_loss, model, *inputs, lambda logprob_N, _: -logprob_N.sum() / count))
        torch.autograd.backward(loss)
        total += float(loss.detach())
    replica.sum_gradients()
    return float(replica.team.sum(total)), count


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
