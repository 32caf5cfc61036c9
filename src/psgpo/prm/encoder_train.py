"""Training an encoder PRM or ORM (PRLCoder, section on the reward model).

    loss = Σ_i w_i BCE(σ(s(problem, prefix_i)), (1 - ε) p_i + ε / 2) / Σ_i w_i

p_i is 1 for a good prefix, 0 for a bad one, between for soft labels. Differs from the paper, which trains 10 epochs:
the weights kept are those of the epoch with the least loss on problems of their own, and `patience` stops early.
"""

# B sequences

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from psgpo.config import PrmSettings
from psgpo.errors import UserError
from psgpo.parallel.replica import load_optimizer
from psgpo.prm.card import encoder_card
from psgpo.prm.encoder import EncoderScorer, PairEncoder, context_of, load_encoder
from psgpo.prm.measure import auroc
from psgpo.prm.record import ScorerRecord
from psgpo.prm.texts import TextExample, both_classes
from psgpo.prm.train import MAX_GRAD_NORM, open_log, publish
from psgpo.prm.weights import weighed_texts
from psgpo.prompts import fill
from psgpo.seeds import derive_seed
from psgpo.training import length_buckets, rate_factor, set_rates


def train_encoder(
    init_dir: Path | str,
    train: Sequence[TextExample],
    held_out: Sequence[TextExample],
    settings: PrmSettings,
    record: ScorerRecord,
    out_dir: Path | str,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train from the encoder in `init_dir`; write `out_dir/model/` and `out_dir/metrics.jsonl`.

    Resumes after its last epoch, to the same result. `record.max_tokens` is filled in, or checked, from the encoder.

    Args:
        held_out: chooses the epoch that is kept; no problem of `train`.

    Returns:
        The metrics row of the epoch that was kept.

    Raises:
        UserError: one class is missing, the context is too short, or the folder holds another training.
    """
    out = Path(out_dir)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "head") % 2**63)
        model, tokenizer = load_encoder(init_dir, fresh_head=True)
    record = with_context(record, context_of(model), str(init_dir))
    weighed = weighed_texts(train, settings)
    both_classes(held_out, "examples that choose the epoch")
    scorer = EncoderScorer(model, tokenizer, record, device=device)
    assert record.max_tokens is not None
    encode = PairEncoder(tokenizer, record.max_tokens, record.max_prompt_tokens)
    rows = [encode((fill(record.prompt_template, e.prompt), e.prefix)) for e in train]
    target_N, weight_N = torch.tensor([e.target for e in weighed]), torch.tensor([e.weight for e in weighed])
    job = _job(train, held_out, settings, record, seed) | {"cut_share": encode.cut / len(rows)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)

    log = open_log(out)
    best: dict[str, Any] | None = None
    done, spent, started = 0, 0.0, time.perf_counter()
    if log.state is None:
        log.log({"epoch": 0, "step": 0, "train_loss": None} | held_out_row(scorer, held_out) | {"seconds": 0.0})
    elif log.state["job"] != json.dumps(job):
        raise UserError(f"{out}: holds a PRM training with other settings or data; delete it or choose another folder")
    else:
        model.load_state_dict(log.state["model"])
        load_optimizer(optimizer, log.state["optimizer"])
        best, done, spent = json.loads(log.state["best"]), log.state["epoch"], log.state["seconds"]
        log.forget()
    for epoch in range(done + 1, settings.epochs + 1):
        if best is not None and settings.patience and epoch - best["epoch"] > settings.patience:
            break
        batches = length_buckets(
            [len(ids) for ids, _ in rows], settings.batch_size, np.random.default_rng(derive_seed(seed, "prm", epoch))
        )
        steps, losses = len(batches) * settings.epochs, []
        model.train()
        with torch.random.fork_rng():  # dropout: the same after a restart
            torch.manual_seed(derive_seed(seed, "dropout", epoch) % 2**63)
            for step, batch in enumerate(batches, start=(epoch - 1) * len(batches)):
                factor = rate_factor(settings.schedule, step, steps=steps, warmup=settings.warmup)
                set_rates([optimizer], [settings.learning_rate], factor)
                logits_B = model(**encode.batch([rows[i] for i in batch], device)).logits[:, 0].float()
                weight_B = weight_N[batch].to(device)
                entropy_B = functional.binary_cross_entropy_with_logits(
                    logits_B, target_N[batch].to(device), reduction="none"
                )
                loss = (weight_B * entropy_B).sum() / weight_B.sum()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
                optimizer.step()
                losses.append(float(loss.detach()))
                if progress:
                    progress(step + 1, steps)
        model.eval()
        row = {"epoch": epoch, "step": epoch * len(batches), "train_loss": float(np.mean(losses))}
        row |= held_out_row(scorer, held_out) | {"seconds": spent + time.perf_counter() - started}
        if best is None or row["held_out_loss"] < best["held_out_loss"]:
            best = row
            model.save_pretrained(out / "best")
            tokenizer.save_pretrained(out / "best")
        log.log(row)
        plain = {"job": json.dumps(job), "best": json.dumps(best), "epoch": epoch, "seconds": row["seconds"]}
        log.save(row["step"], **plain, model=model.state_dict(), optimizer=optimizer.state_dict())
    assert best is not None
    publish(out, encoder_card(settings, best, job, record), record)
    log.close()
    return best


def with_context(record: ScorerRecord, context: int | None, name: str) -> ScorerRecord:
    """The record with the tokens that are read: what was asked for, or all that the encoder holds.

    Raises:
        UserError: more was asked for than the encoder holds, or it has no limit and none was given.
    """
    if record.max_tokens is None and context is None:
        raise UserError(f"{name}: this encoder names no context length; say with --max-tokens how many to read")
    if record.max_tokens is not None and context is not None and record.max_tokens > context:
        raise UserError(
            f"{name}: --max-tokens {record.max_tokens}, but the encoder's context holds {context}; lower it"
        )
    return record if record.max_tokens is not None else record.reading(context)


def held_out_row(scorer: EncoderScorer, held_out: Sequence[TextExample]) -> dict[str, Any]:
    """Log loss, accuracy, majority and AUROC on examples that are not trained on."""
    scores = scorer.score_prefixes([(e.prompt, e.prefix) for e in held_out])
    target_N = np.array([e.target for e in held_out])
    good_N = target_N > 0.5
    return {
        "held_out_loss": float(np.mean(np.logaddexp(0.0, scores) - target_N * scores)),
        "held_out_accuracy": float(np.mean((scores > 0) == good_N)),
        "held_out_majority": float(max(good_N.mean(), 1 - good_N.mean())),
        "held_out_auroc": auroc(scores, good_N),
    }


def _job(
    train: Sequence[TextExample],
    held_out: Sequence[TextExample],
    settings: PrmSettings,
    record: ScorerRecord,
    seed: int,
) -> dict[str, Any]:
    """What decides the result, for the model card and to tell one training's state from another's."""
    digest = hashlib.blake2b(repr([*train, *held_out]).encode(), digest_size=8)
    sizes = {"train_examples": len(train), "held_out_examples": len(held_out), "examples": digest.hexdigest()}
    reading = {"scope": record.scope, "template": record.prompt_template, "max_tokens": record.max_tokens}
    return {"settings": settings.training(), "seed": seed} | sizes | reading
