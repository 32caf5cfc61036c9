"""Options of `psgpo prm train`, checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from psgpo.config import PrmSettings
from psgpo.errors import UserError
from psgpo.prm.calibrate import METHODS
from psgpo.prm.record import Kind, Scope, ScorerRecord, Target


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
        template: None for the usual one: the problem and a newline, of an encoder the problem alone.

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
    if "{prompt}" not in template:
        raise UserError(f"--template {template!r} lacks {{prompt}}")
    if init is not None:
        check_architecture(kind, init, "--init")
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
    value = any("ForTokenClassification" in name for name in names)
    if kind == "causal" and not causal and not value:
        raise UserError(
            f"{key} {init}: {', '.join(names) or 'no architecture'} is no causal language model; give one, or use "
            f"{other} encoder"
        )
    if kind == "encoder" and causal:
        raise UserError(f"{key} {init}: {', '.join(names)} is a causal language model, no encoder; use {other} causal")


def chosen_settings(kind: str, *, learning_rate: float | None, batch_size: int | None, **options: Any) -> PrmSettings:
    """Training settings; what is None has a default that suits the kind.

    Raises:
        UserError: a value that is not allowed.
    """
    rate, size = (0.02, 32) if kind == "ngrams" else (2e-5, 16)
    given: dict[str, Any] = {
        "learning_rate": rate if learning_rate is None else learning_rate,
        "batch_size": size if batch_size is None else batch_size,
    }
    try:
        return PrmSettings(target="sign", **given, **options)
    except ValidationError as error:
        first = error.errors()[0]
        name = "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise UserError(f"--{name} {first.get('input')!r}: {first['msg']}") from None


def check_shares(holdout: float, choosing: float) -> None:
    """Refuse shares that leave nothing to train on.

    Raises:
        UserError: they add up to 1 or more.
    """
    if holdout + choosing >= 1:
        raise UserError(f"--holdout {holdout} and --choosing {choosing} leave no problem to train on; lower them")
