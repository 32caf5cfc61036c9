"""Options of `psgpo prm train`, checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from psgpo.chats import chat_layout
from psgpo.config import LoraSettings, ModelSettings, PrmSettings
from psgpo.errors import UserError
from psgpo.prm.calibrate import METHODS
from psgpo.prm.record import Kind, Scope, ScorerRecord, Target
from psgpo.prompts import slot_fault

CHAT = "chat"


def chosen_record(
    kind: str,
    scope: str,
    init: Path | None,
    template: str | None,
    max_tokens: int | None,
    max_prompt_tokens: int | None,
    calibration: str,
    device: str = "cpu",
) -> ScorerRecord:
    """What the folder will say of itself.

    Args:
        template: None for the usual one: the problem and a newline, of an encoder the problem alone. `chat`: the chat
            template of the tokenizer in `init`.

    Raises:
        UserError: an unknown word, or options that do not go together.
    """
    for name, value, allowed in (
        ("--kind", kind, get_args(Kind)),
        ("--scope", scope, get_args(Scope)),
        ("--calibration", calibration, (*METHODS, "none")),
    ):
        if value not in allowed:
            raise UserError(f"{name} {value!r}: allowed are {', '.join(allowed)}")
    if (init is None) != (kind == "ngrams"):
        needs = "starts from nothing; leave --init out" if kind == "ngrams" else "needs a model to start from: --init"
        raise UserError(f"--kind {kind} {needs}")
    if max_tokens is not None and kind != "encoder":
        raise UserError(f"--max-tokens is for encoders; kind {kind} reads whole programs")
    if max_prompt_tokens is not None and kind == "ngrams":
        raise UserError("--max-prompt-tokens: an n-gram model has no tokens; leave it out")
    if device != "cpu" and kind == "ngrams":
        raise UserError("--device: an n-gram model runs on the CPU; leave it out")
    if template is not None and kind == "ngrams":
        raise UserError("--template: an n-gram model reads the problem's words as they are; leave it out")
    template = template if template is not None else "{prompt}\n" if kind == "causal" else "{prompt}"
    if template != CHAT and (fault := slot_fault(template)):
        raise UserError(f"--template {template!r} {fault}; write chat, or a template with one slot")
    if init is not None:
        check_architecture(kind, init, "--init")
    if template == CHAT:
        template = _chat_of(kind, init)
    target: Target = "sign" if kind == "causal" else "correct"
    return ScorerRecord(
        kind=kind,  # type: ignore[arg-type]
        scope=scope,  # type: ignore[arg-type]
        target=target,
        prompt_template=template,
        threshold=0.0,
        max_prompt_tokens=max_prompt_tokens,
        max_tokens=max_tokens,
    )


def _chat_of(kind: str, init: Path | None) -> str:
    if kind != "causal" or init is None:
        raise UserError(f"--template chat is for causal models; kind {kind} has no chat")
    from psgpo.models import load_tokenizer  # loads torch

    return chat_layout(load_tokenizer(init))


def check_architecture(kind: str, init: Path, key: str) -> None:
    """Refuse an encoder where a causal model is needed, whose scores would know the lines to come, and the reverse.

    Args:
        key: how the user named `init`, for messages.

    Raises:
        UserError: the folder is no model, or one of the other kind.
    """
    other = "--kind" if key.startswith("--") else "kind"
    config = init / "config.json"
    if not config.is_file():
        raise UserError(f"{key} {init}: no model folder (config.json); download the model and give its local folder")
    try:
        names = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    except (ValueError, AttributeError):
        raise UserError(f"{key} {init}: its config.json is no JSON object; save the model again") from None
    causal = any(word in name for name in names for word in ("CausalLM", "LMHead"))
    # An encoder–decoder reads lines with its decoder, or whole with both halves.
    either = any(word in name for name in names for word in ("ForTokenClassification", "ForConditionalGeneration"))
    if kind == "causal" and not causal and not either:
        raise UserError(
            f"{key} {init}: {', '.join(names) or 'no architecture'} is no causal language model; give one, or use "
            f"{other} encoder"
        )
    if kind == "encoder" and causal:
        raise UserError(f"{key} {init}: {', '.join(names)} is a causal language model, no encoder; use {other} causal")


def chosen_settings(
    kind: str,
    *,
    learning_rate: float | None,
    batch_size: int | None,
    microbatch_tokens: int | None,
    layers: int | None,
    **options: Any,
) -> PrmSettings:
    """Training settings; what is None has a default that suits the kind.

    Raises:
        UserError: a value that is not allowed, or an option that this kind does not have.
    """
    if microbatch_tokens is not None and kind != "causal":
        raise UserError(f"--microbatch-tokens is for --kind causal; kind {kind} takes --batch-size at once")
    if layers is not None and kind != "causal":
        raise UserError(f"--layers is for --kind causal; kind {kind} keeps the whole model")
    rate, size = (0.02, 32) if kind == "ngrams" else (2e-5, 16)
    given: dict[str, Any] = {
        "learning_rate": rate if learning_rate is None else learning_rate,
        "batch_size": size if batch_size is None else batch_size,
    }
    try:
        return PrmSettings(target="sign", microbatch_tokens=microbatch_tokens, layers=layers, **given, **options)
    except ValidationError as error:
        first = error.errors()[0]
        name = "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise UserError(f"--{name} {first.get('input')!r}: {first['msg']}") from None


def chosen_compute(
    kind: str, *, dtype: str | None, gradient_checkpointing: bool, lora_rank: int | None
) -> ModelSettings:
    """How a causal PRM computes while it learns.

    Raises:
        UserError: an unknown type, or an option that this kind does not have.
    """
    given = {"--dtype": dtype is not None, "--gradient-checkpointing": gradient_checkpointing}
    wrong = [name for name, there in (given | {"--lora-rank": lora_rank is not None}).items() if there]
    if wrong and kind != "causal":
        raise UserError(f"{', '.join(wrong)}: for --kind causal; kind {kind} trains in float32, all its weights")
    if dtype not in (None, *get_args(ModelSettings.model_fields["dtype"].annotation)):
        raise UserError(f"--dtype {dtype!r}: write float32 or bfloat16")
    adapters = {} if lora_rank is None else {"lora": LoraSettings(rank=lora_rank, alpha=2.0 * lora_rank)}
    chosen = {} if dtype is None else {"dtype": dtype}
    return ModelSettings.model_validate(
        {**chosen, **adapters, "gradient_checkpointing": gradient_checkpointing}, strict=False
    )


def check_shares(holdout: float, choosing: float) -> None:
    """Refuse shares that leave nothing to train on.

    Raises:
        UserError: they add up to 1 or more.
    """
    if holdout + choosing >= 1:
        raise UserError(f"--holdout {holdout} and --choosing {choosing} leave no problem to train on; lower them")
