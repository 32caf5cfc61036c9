"""Any sampler from one line of text: which engine, which model.

| spec | engine |
|---|---|
| `hf:FOLDER`, `FOLDER` | the model in this process (`HFSampler`) |
| `vllm:FOLDER` | vLLM's engine on this machine (`VllmSampler`) |
| `openai:URL#MODEL` | a model behind an OpenAI-compatible completions server (`OpenAISampler`) |
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.prompts import encoder_prompts, set_encoder_prompts
from psgpo.sampling.sampler import Sampler

_FORMS = "hf:FOLDER, vllm:FOLDER or openai:URL#MODEL"


def open_sampler(
    spec: str, *, tokenizer: Path | str | None = None, device: str = "cpu", batch_size: int = 256, **options: Any
) -> tuple[Sampler, Any]:
    """`(sampler, its tokenizer)`; nothing is downloaded.

    Args:
        spec: see the head of this file.
        tokenizer: folder of the tokenizer; the model's own folder without it. A server needs one.
        device: for models on this machine, `cpu` or `cuda`.
        batch_size: most rows decoded at the same time; for a server, requests.
        **options: of the engine. `hf`: `dtype`. `vllm`: see `VllmSampler`. `openai`: `timeout` (seconds without a byte
            of a reply), `tries`, `api_key_env` (environment variable that holds the key).

    Raises:
        UserError: the spec, the folder or an option is wrong, the engine is not installed, the server does not answer.
    """
    kind, separator, rest = spec.partition(":")
    if not separator or kind not in OPENERS:
        kind, rest = "hf", spec
        if not Path(spec).is_dir():
            raise UserError(f"sampler {spec!r}: no such folder, and none of the forms {_FORMS}")
    if not rest:
        raise UserError(f"sampler {spec!r}: write {_FORMS}")
    unknown = sorted(options.keys() - options_taken(spec, options).keys())
    if unknown:
        raise UserError(f"sampler {spec!r} takes no {', '.join(unknown)}; its options are {', '.join(_named(kind))}")
    return OPENERS[kind](rest, tokenizer, device, batch_size, **options)


def options_taken(spec: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that the sampler of this spec takes. vLLM takes all but those that other kinds name."""
    kind = spec.partition(":")[0] if ":" in spec else "hf"
    kind = kind if kind in OPENERS else "hf"
    own = _named(kind)
    foreign = {name for other in OPENERS for name in _named(other)} - set(own)
    return {name: value for name, value in options.items() if name in own or (kind == "vllm" and name not in foreign)}


def _named(kind: str) -> list[str]:
    """The options that a kind of sampler names."""
    parameters = inspect.signature(OPENERS[kind]).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def _open_hf(
    folder: str, tokenizer: Path | str | None, device: str, batch_size: int, *, dtype: str = "float32"
) -> tuple[Sampler, Any]:
    import torch

    from psgpo.models import load_policy, load_tokenizer
    from psgpo.sampling.hf import HFSampler

    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise UserError(f"dtype {dtype!r}: write float32, bfloat16 or float16")
    model, own = load_policy(folder, dtype=kind, device=device)
    chosen = own if tokenizer is None else load_tokenizer(tokenizer)
    set_encoder_prompts(chosen, encoder_prompts(own))  # a folder with a tokenizer alone cannot tell
    return HFSampler(model, chosen, batch_size=batch_size), chosen


def _open_vllm(
    folder: str, tokenizer: Path | str | None, device: str, batch_size: int, *, dtype: str = "", **engine: Any
) -> tuple[Sampler, Any]:
    from psgpo.models import load_tokenizer
    from psgpo.sampling.vllm import VllmSampler

    chosen = load_tokenizer(tokenizer or folder)
    return VllmSampler(folder, chosen, device=device, batch_size=batch_size, dtype=dtype, **engine), chosen


def _open_openai(
    address: str,
    tokenizer: Path | str | None,
    device: str,
    batch_size: int,
    *,
    timeout: float = 600.0,
    tries: int = 5,
    api_key_env: str = "OPENAI_API_KEY",
) -> tuple[Sampler, Any]:
    from psgpo.models import load_tokenizer
    from psgpo.remote import Endpoint
    from psgpo.sampling.openai import OpenAISampler
    from psgpo.sampling.rows import folder_stop_ids, refuse_encoder_prompts

    url, _, model = address.partition("#")
    if not model:
        raise UserError(f"sampler openai:{address}: name the model too, openai:{url}#MODEL")
    if tokenizer is None:
        raise UserError(f"sampler openai:{address} needs the folder of the model's tokenizer: prefixes are token ids")
    chosen = load_tokenizer(tokenizer)
    refuse_encoder_prompts(chosen, f"sampler openai:{address}")
    endpoint = Endpoint(url=url, api_key=os.environ.get(api_key_env, ""), timeout=timeout, tries=tries)
    stops = folder_stop_ids(tokenizer, chosen)
    sampler = OpenAISampler(endpoint, model, chosen, stop_ids=stops, concurrency=batch_size)
    sampler.connect()
    return sampler, chosen


OPENERS: Mapping[str, Callable[..., tuple[Sampler, Any]]] = {
    "hf": _open_hf,
    "vllm": _open_vllm,
    "openai": _open_openai,
}
