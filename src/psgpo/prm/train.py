"""Training a process reward model.

    loss = sum_m w_m (R_φ(x, y^(<=m)) - l_m)² / number of lines with w_m = 1        (PSGPO, section 4.1)

The scalar head is read at the token that ends line m. Differs from the paper, which publishes the sum alone: the sum is
divided by the number of lines in the batch, so that the learning rate does not depend on program length; the trunk
starts from the SFT policy; the weights kept are those of the epoch with the least held-out loss.
Classes are not re-weighted unless asked for, as in the paper.
"""

# B sequences, L code lines

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from psgpo.config import ModelSettings, PrmSettings
from psgpo.errors import UserError
from psgpo.models import TokenValueModel, initial_model, load_tokenizer, prepare_training
from psgpo.optimizers import Muon
from psgpo.parallel.replica import Replica, clip_gradients, load_optimizer, optimizer_state
from psgpo.parallel.team import ALONE, Team
from psgpo.prm.assess import score_examples, scored_response
from psgpo.prm.card import model_card
from psgpo.prm.data import PrmExample
from psgpo.prm.measure import measure
from psgpo.prm.record import ScorerRecord
from psgpo.prm.score import PrmScorer, line_values
from psgpo.prm.weights import line_weights
from psgpo.seeds import derive_seed
from psgpo.training import ResumableLog, computing, length_buckets, rate_factor, set_rates, shared_batches

MAX_GRAD_NORM = 1.0


def line_mse(scores: Tensor, targets: Tensor, weights: Tensor, denominator: Tensor | float) -> Tensor:
    """sum_m w_m (R_m - l_m)² / denominator. Scores, targets, weights: (lines,)."""
    return (weights * (scores - targets) ** 2).sum() / denominator


def train_prm(
    init_dir: Path | str,
    train: Sequence[PrmExample],
    held_out: Sequence[PrmExample],
    settings: PrmSettings,
    out_dir: Path | str,
    *,
    record: ScorerRecord | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    compute: ModelSettings | None = None,
    team: Team = ALONE,
    longest_scored: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train a PRM from the model in `init_dir`; write `out_dir/model/` and `out_dir/metrics.jsonl`.

    One row of metrics per epoch, epoch 0 being the untrained model. The state after every epoch is kept in
    `out_dir/state.pt`: an interrupted training goes on from there to the same result. What is random (the order of
    examples) depends on `seed` and the epoch alone.

    Args:
        init_dir: a causal language model, an encoder–decoder, or a value model of either to go on from.
        train, held_out: from `split_by_problem`; `held_out` chooses the epoch that is kept.
        record: how the folder's scorer reads text, written beside the weights (`psgpo_prm.json`); None where text is
            never scored.
        compute: how training computes: precision, adapters, activations; None: the defaults.
        team: the processes that train together: each works through a share of every batch, the main one writes.
        longest_scored: tokens of the longest response, with its prompt, that will measure the PRM. Where the context
            cannot hold it, better to know before training.
        progress: called with (optimizer steps done, all steps).

    Returns:
        The metrics row of the epoch that was kept.

    Raises:
        UserError: no examples on one side, one longer than the model's context, or state of another training.
    """
    out = Path(out_dir)
    tokenizer = load_tokenizer(init_dir)
    model = initial_model(init_dir, seed)
    if settings.layers is not None:
        model.keep_layers(settings.layers)
    compute = compute or ModelSettings()
    prepare_training(model, compute, seed=seed)
    _check(train, held_out, longest_scored, model)
    job = _job(train, held_out, settings, seed) | compute.model_dump(mode="json", include={"dtype", "lora"})
    train, held_out = _informative(train, "train on"), _informative(held_out, "choose the epoch by")
    weigh = line_weights(train, settings)
    train = [weigh(example) for example in train]
    replica = Replica(model, team, device)
    optimizer = _optimizers(model, settings)
    held_out = [weigh(example) for example in held_out]

    log = open_log(out, writes=team.is_main)
    team.wait()  # all have read the state that the main process goes on to replace
    best: dict[str, Any] | None = None
    done, spent, started = 0, 0.0, time.perf_counter()
    if log.state is None:
        log.log(
            {"epoch": 0, "step": 0, "train_loss": None, "learning_rate": None}
            | _held_out(replica, tokenizer, held_out, settings)
            | {"seconds": 0.0}
        )
    elif log.state["job"] != json.dumps(job):
        raise UserError(f"{out}: holds a PRM training with other settings or data; delete it or choose another folder")
    else:
        replica.load(log.state["model"])
        for one, state in zip(optimizer, log.state["optimizer"], strict=True):
            load_optimizer(one, state)
        best, done, spent = json.loads(log.state["best"]), log.state["epoch"], log.state["seconds"]
        log.forget()
    for epoch in range(done + 1, settings.epochs + 1):
        if best is not None and settings.patience and epoch - best["epoch"] > settings.patience:
            break
        row = _train_epoch(
            replica, optimizer, train, settings, epoch, seed, tokenizer.pad_token_id, compute.dtype, progress
        )
        row |= _held_out(replica, tokenizer, held_out, settings) | {"seconds": spent + time.perf_counter() - started}
        if best is None or row["held_out_loss"] < best["held_out_loss"]:
            best = row
            with replica.whole() as whole:
                if team.is_main:
                    whole.save_pretrained(out / "best", tokenizer)
        log.log(row)
        plain = {"job": json.dumps(job), "best": json.dumps(best), "epoch": epoch, "seconds": row["seconds"]}
        moments = [optimizer_state(one, team) for one in optimizer]
        log.save(row["step"], **plain, model=replica.state(), optimizer=moments)
    assert best is not None
    if team.is_main:
        publish(out, model_card(settings, best, job, record), record)
    log.close()
    team.wait()
    return best


def _informative(examples: Sequence[PrmExample], what: str) -> list[PrmExample]:
    """Those with a line that weighs something: a batch of open responses alone would have a loss of 0 / 0.

    Raises:
        UserError: there is none.
    """
    found = [example for example in examples if any(example.weights)]
    if not found:
        raise UserError(
            f"PRM training: none of the {len(examples)} responses to {what} has a line that counts, their labels are "
            "open; label more responses, or by a strategy that decides more lines (docs/labels.md)"
        )
    return found


def _optimizers(model: TokenValueModel, settings: PrmSettings) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for hidden matrices where the settings say so; nothing for the frozen bias of the head."""
    learning = [p for p in model.parameters() if p.requires_grad]
    apart = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    apart |= {id(p) for p in model.head.parameters()}
    hidden = [p for p in learning if settings.optimizer == "muon" and p.ndim == 2 and id(p) not in apart]
    chosen = {id(p) for p in hidden}
    rest = [p for p in learning if id(p) not in chosen]
    adamw = torch.optim.AdamW(rest, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.95))
    if not hidden:
        return [adamw]
    return [adamw, Muon(hidden, lr=settings.muon_learning_rate, weight_decay=settings.weight_decay)]


def open_log(out: Path, *, writes: bool = True) -> ResumableLog:
    """The log of a training, cleared of an attempt that died before its first state. See `ResumableLog`."""
    if writes and not (out / "state.pt").is_file():
        # Nothing to go on from: rows of an attempt that died early would stay.
        (out / "metrics.jsonl").unlink(missing_ok=True)
    return ResumableLog(out, writes=writes)


def publish(out: Path, card: str, record: ScorerRecord | None) -> None:
    """`best` becomes `model`, unless an attempt that died right after did that already."""
    if (out / "best").is_dir():
        if record is not None:
            record.save(out / "best")
        (out / "best" / "README.md").write_text(card, encoding="utf-8")
        shutil.rmtree(out / "model", ignore_errors=True)
        (out / "best").rename(out / "model")


def _job(
    train: Sequence[PrmExample], held_out: Sequence[PrmExample], settings: PrmSettings, seed: int
) -> dict[str, Any]:
    """What decides the result, for the model card and to tell one training's state from another's."""
    digest = hashlib.blake2b(digest_size=8)
    for example in [*train, *held_out]:
        digest.update(repr(example).encode())
    sizes = {"train_responses": len(train), "held_out_responses": len(held_out), "examples": digest.hexdigest()}
    return {"settings": settings.training(), "seed": seed} | sizes


def _train_epoch(
    replica: Replica[TokenValueModel],
    optimizers: Sequence[torch.optim.Optimizer],
    train: Sequence[PrmExample],
    settings: PrmSettings,
    epoch: int,
    seed: int,
    pad: int,
    dtype: str,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """One pass over `train`, in an order that depends on (seed, epoch) alone; the metrics of the pass."""
    rng = np.random.default_rng(derive_seed(seed, "prm", epoch))
    batches = length_buckets([example.length for example in train], settings.batch_size, rng)
    steps = len(batches) * settings.epochs
    loss_sum, lines, rate = 0.0, 0.0, 0.0
    model = replica.network
    parameters = list(model.parameters())
    model.train()
    for step, batch in enumerate(batches, start=(epoch - 1) * len(batches)):
        factor = rate_factor(settings.schedule, step, steps=steps, warmup=settings.warmup)
        rate = settings.learning_rate * factor
        model.zero_grad()
        loss, count = _backward(replica, [train[i] for i in batch], pad, settings.microbatch_tokens, dtype)
        clip_gradients(parameters, MAX_GRAD_NORM)
        set_rates(optimizers, [settings.learning_rate, settings.muon_learning_rate][: len(optimizers)], factor)
        for optimizer in optimizers:
            optimizer.step()
        loss_sum, lines = loss_sum + loss * count, lines + count
        if progress:
            progress(step + 1, steps)
    model.eval()
    return {"epoch": epoch, "step": epoch * len(batches), "train_loss": loss_sum / lines, "learning_rate": rate}


def _backward(
    replica: Replica[TokenValueModel], batch: Sequence[PrmExample], pad: int, budget: int | None, dtype: str
) -> tuple[float, float]:
    """Make the gradient of a batch's loss; the loss, and the number of lines it is a mean over."""
    count = float(sum(sum(e.weights) for e in batch))
    total = torch.zeros(1, dtype=torch.float64)
    for indices, counts in shared_batches([e.length for e in batch], budget, replica.team):
        part = [batch[i] for i in indices]
        with computing(dtype, next(replica.network.parameters()).device):
            scores = line_values(replica.network, [(e.prompt_ids, e.token_ids, e.line_ends) for e in part], pad)
        targets = torch.tensor([value for e in part for value in e.targets], device=scores.device)
        weights = torch.tensor([value * counts for e in part for value in e.weights], device=scores.device)
        loss = line_mse(scores, targets, weights, count)
        torch.autograd.backward(loss)
        total += float(loss.detach())
    replica.sum_gradients()
    return float(replica.team.sum(total)), count


def _held_out(
    replica: Replica[TokenValueModel],
    tokenizer: PreTrainedTokenizerBase,
    held_out: Sequence[PrmExample],
    settings: PrmSettings,
) -> dict[str, Any]:
    """Loss per line, accuracy, majority and AUROC on examples that are not trained on; each process scores a part."""
    team = replica.team
    with replica.whole() as whole:
        scorer = PrmScorer(whole, tokenizer, device=next(replica.network.parameters()).device)
        scores = team.gather(score_examples(scorer, held_out[team.block(len(held_out))]))
    errors = [
        np.asarray(e.weights) * (row - np.asarray(e.targets)) ** 2 for e, row in zip(held_out, scores, strict=True)
    ]
    lines = sum(sum(e.weights) for e in held_out)
    found = measure(
        [scored_response(e, row, settings.target) for e, row in zip(held_out, scores, strict=True)], settings.target
    )
    return {
        "held_out_loss": float(sum(error.sum() for error in errors) / lines),
        "held_out_accuracy": found["lines"]["accuracy"],
        "held_out_majority": found["lines"]["majority"],
        "held_out_auroc": found["lines"]["auroc"],
    }


def _check(
    train: Sequence[PrmExample], held_out: Sequence[PrmExample], longest_scored: int, model: TokenValueModel
) -> None:
    if not train or not held_out:
        raise UserError(f"PRM training needs examples on both sides, found {len(train)} and {len(held_out)} held out")
    context = getattr(model.classifier.config, "max_position_embeddings", None) or math.inf
    longest = max(longest_scored, *(example.length for example in [*train, *held_out]))
    if longest > context:
        raise UserError(
            f"PRM training: a response with its prompt has {longest} tokens, the model's context holds {context}; "
            "start from a model with a longer context (recipe: model.max_positions) or leave longer responses out "
            "(recipe: sampling.max_new_tokens)"
        )
