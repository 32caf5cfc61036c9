"""What all samplers check before they start, and where a completion ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from psgpo.errors import UserError
from psgpo.prompts import encoder_prompts


def checked_limits(
    prefixes: Sequence[Sequence[int]],
    seeds: Sequence[int],
    max_new_tokens: int | Sequence[int],
    *,
    temperature: float,
    top_p: float,
    context: int | None,
) -> list[int]:
    """One limit per row, in tokens.

    Args:
        context: most tokens of prefix and completion together; None when the model has no limit, or none is known.

    Raises:
        UserError: an empty prefix, lists of unequal length, a limit below 1, numbers that are no probability, or more
            tokens than the context holds.
    """
    limits = [max_new_tokens] * len(prefixes) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    if not len(prefixes) == len(seeds) == len(limits):
        raise UserError(f"{len(prefixes)} prefixes, {len(seeds)} seeds, {len(limits)} limits: give one of each per row")
    if temperature < 0 or not 0 < top_p <= 1:
        raise UserError(f"temperature {temperature}, top_p {top_p}: need temperature >= 0 and 0 < top_p <= 1")
    for i, (prefix, limit) in enumerate(zip(prefixes, limits, strict=True)):
        if not prefix:
            raise UserError(f"prefix {i} is empty; start it with a prompt or the BOS token")
        if limit < 1:
            raise UserError(f"max_new_tokens {limit} of prefix {i}: must be at least 1")
        if context is not None and len(prefix) + limit > context:
            raise UserError(
                f"prefix {i}: {len(prefix)} tokens + max_new_tokens {limit} exceed its context of {context}; "
                "lower max_new_tokens or shorten the prompt"
            )
    return limits


def refuse_encoder_prompts(tokenizer: Any, name: str) -> None:
    """
    Raises:
        UserError: the tokenizer belongs to an encoder–decoder, which this sampler cannot feed.
    """
    if encoder_prompts(tokenizer):
        raise UserError(
            f"{name}: serves no encoder–decoders; sample them in this process: sampling.engine = 'transformers', "
            "or hf:FOLDER on the command line"
        )


def stop_ids(config: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every id that ends a completion: the generation config's and the tokenizer's.

    Raises:
        UserError: there is none.
    """
    ids: Any = getattr(config, "eos_token_id", None)
    listed = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if tokenizer.eos_token_id is not None:
        listed = [*listed, tokenizer.eos_token_id]
    if not listed:
        raise UserError("neither generation_config nor the tokenizer names an eos_token_id; set tokenizer.eos_token")
    return frozenset(listed)


def folder_stop_ids(folder: Path | str, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """`stop_ids` of a model folder whose weights are not loaded here; of the tokenizer alone when it holds no model."""
    folder = Path(folder)
    config: GenerationConfig | None = None
    if (folder / "generation_config.json").is_file():
        config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    elif (folder / "config.json").is_file():
        model = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = GenerationConfig.from_model_config(model)
    return stop_ids(config, tokenizer)
