"""Training a process reward model.

    loss = sum_m w_m (R_φ(x, y^(<=m)) - l_m)² / number of lines with w_m = 1        (PSGPO, section 4.1)

The scalar head is read at the token that ends line m. Differs from the paper, which publishes the sum alone: the sum is
divided by the number of lines in the batch, so that the learning rate does not depend on program length; the trunk
starts from the SFT policy; the weights kept are those of the epoch with the least held-out loss.
Classes are not re-weighted, as in the paper.
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
from torch import Tensor

from psgpo.config import PrmSettings
from psgpo.errors import UserError
from psgpo.models import TokenValueModel, load_tokenizer
from psgpo.prm.assess import score_examples, scored_response
from psgpo.prm.card import model_card
from psgpo.prm.data import PrmExample
from psgpo.prm.measure import measure
from psgpo.prm.score import PrmScorer, line_values
from psgpo.seeds import derive_seed
from psgpo.training import ResumableLog, length_buckets, warmup_cosine

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
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train a PRM from the SFT policy in `init_dir`; write `out_dir/model/` and `out_dir/metrics.jsonl`.

    One row of metrics per epoch, epoch 0 being the untrained model. The state after every epoch is kept in
    `out_dir/state.pt`: an interrupted training goes on from there to the same result. What is random (the order of
    examples) depends on `seed` and the epoch alone.

    Args:
        train, held_out: from `split_by_problem`; `held_out` chooses the epoch that is kept.
        progress: called with (optimizer steps done, all steps).

    Returns:
        The metrics row of the epoch that was kept.

    Raises:
        UserError: no examples on one side, an example longer than the model's context, or state of another training.
    """
    out = Path(out_dir)
    tokenizer = load_tokenizer(init_dir)
    model = TokenValueModel.from_policy(init_dir, seed=seed).to(device)
    _check(train, held_out, model)
    job = _job(train, held_out, settings, seed)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        learning, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.95)
    )

    scorer = PrmScorer(model, tokenizer, device=device)
    log = _open_log(out)
    best: dict[str, Any] | None = None
    done, spent, started = 0, 0.0, time.perf_counter()
    if log.state is None:
        log.log(
            {"epoch": 0, "step": 0, "train_loss": None, "learning_rate": None}
            | held_out_metrics(scorer, held_out, settings)
            | {"seconds": 0.0}
        )
    elif log.state["job"] != json.dumps(job):
        raise UserError(f"{out}: holds a PRM training with other settings or data; delete it or choose another folder")
    else:
        model.load_state_dict(log.state["model"])
        optimizer.load_state_dict(log.state["optimizer"])
        best, done, spent = json.loads(log.state["best"]), log.state["epoch"], log.state["seconds"]
    for epoch in range(done + 1, settings.epochs + 1):
        row = _train_epoch(model, optimizer, train, settings, epoch, seed, tokenizer.pad_token_id, progress)
        row |= held_out_metrics(scorer, held_out, settings) | {"seconds": spent + time.perf_counter() - started}
        if best is None or row["held_out_loss"] < best["held_out_loss"]:
            best = row
            model.save_pretrained(out / "best", tokenizer)
        log.log(row)
        plain = {"job": json.dumps(job), "best": json.dumps(best), "epoch": epoch, "seconds": row["seconds"]}
        log.save(row["step"], **plain, model=model.state_dict(), optimizer=optimizer.state_dict())
    assert best is not None
    _publish(out, model_card(settings, best, job))
    log.close()
    return best


def _open_log(out: Path) -> ResumableLog:
    if not (out / "state.pt").is_file():  # nothing to go on from: rows of an attempt that died early would stay
        (out / "metrics.jsonl").unlink(missing_ok=True)
    return ResumableLog(out)


def _publish(out: Path, card: str) -> None:
    """`best` becomes `model`, unless an attempt that died right after did that already."""
    if (out / "best").is_dir():
        (out / "best" / "README.md").write_text(card, encoding="utf-8")
        shutil.rmtree(out / "model", ignore_errors=True)
        (out / "best").rename(out / "model")


def _job(
    train: Sequence[PrmExample], held_out: Sequence[PrmExample], settings: PrmSettings, seed: int
) -> dict[str, Any]:
    """What decides the result, for the model card and to tell one training's state from another's."""
    digest = hashlib.blake2b(digest_size=8)
    for example in [*train, *held_out]:
        digest.update(repr((example.key, example.token_ids, example.targets)).encode())
    sizes = {"train_responses": len(train), "held_out_responses": len(held_out), "examples": digest.hexdigest()}
    return {"settings": settings.model_dump(mode="json"), "seed": seed} | sizes


def _train_epoch(
    model: TokenValueModel,
    optimizer: torch.optim.Optimizer,
    train: Sequence[PrmExample],
    settings: PrmSettings,
    epoch: int,
    seed: int,
    pad: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """One pass over `train`, in an order that depends on (seed, epoch) alone; the metrics of the pass."""
    rng = np.random.default_rng(derive_seed(seed, "prm", epoch))
    batches = length_buckets([example.length for example in train], settings.batch_size, rng)
    steps = len(batches) * settings.epochs
    loss_sum, lines, rate = 0.0, 0.0, 0.0
    model.train()
    for step, batch in enumerate(batches, start=(epoch - 1) * len(batches)):
        rate = settings.learning_rate * warmup_cosine(step, steps=steps, warmup=settings.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, count = _batch_loss(model, [train[i] for i in batch], pad)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        loss_sum, lines = loss_sum + float(loss.detach()) * count, lines + count
        if progress:
            progress(step + 1, steps)
    model.eval()
    return {"epoch": epoch, "step": epoch * len(batches), "train_loss": loss_sum / lines, "learning_rate": rate}


def _batch_loss(model: TokenValueModel, batch: Sequence[PrmExample], pad: int) -> tuple[Tensor, float]:
    """Loss of a batch, and the number of lines it is a mean over."""
    scores = line_values(model, [(e.prompt_ids, e.token_ids, e.line_ends) for e in batch], pad)
    targets = torch.tensor([value for e in batch for value in e.targets], device=scores.device)
    weights = torch.tensor([value for e in batch for value in e.weights], device=scores.device)
    count = float(sum(sum(e.weights) for e in batch))
    return line_mse(scores, targets, weights, count), count


def held_out_metrics(scorer: PrmScorer, held_out: Sequence[PrmExample], settings: PrmSettings) -> dict[str, Any]:
    """Loss per line, accuracy, majority and AUROC of a PRM on examples it is not trained on."""
    scores = score_examples(scorer, held_out)
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


def _check(train: Sequence[PrmExample], held_out: Sequence[PrmExample], model: TokenValueModel) -> None:
    if not train or not held_out:
        raise UserError(f"PRM training needs examples on both sides, found {len(train)} and {len(held_out)} held out")
    context = getattr(model.classifier.config, "max_position_embeddings", None) or math.inf
    longest = max(example.length for example in [*train, *held_out])
    if longest > context:
        raise UserError(
            f"PRM training: a response with its prompt has {longest} tokens, the model's context holds {context}; "
            "lower sampling.max_new_tokens or raise model.max_positions"
        )
