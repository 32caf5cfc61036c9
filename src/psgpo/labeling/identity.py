"""Whose ids a label file holds: fingerprints of tokenizers and model folders, and the check before offsets are used.

`line_ends` of a label are token offsets, and a response is token ids: under another tokenizer both point anywhere. So
every label carries the fingerprint of its tokenizer, and what reads offsets (training a causal PRM, completing
prefixes) asks `refuse_other_tokenizer` first. What reads text alone (an encoder PRM, an export) need not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from hashlib import file_digest, sha256
from pathlib import Path

from psgpo.errors import UserError
from psgpo.labeling.prefixes import cut_response
from psgpo.lines import Tokenizer, TokenText
from psgpo.records import LineLabels

_EDGE = 1 << 20
"""Bytes at both ends of a file of weights that go into the fingerprint."""


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """16 hex digits of SHA-256 over what ids mean: the token of every id, the decoder, the special ids.

    How text is cut into tokens is left out: a label file holds ids, and the same ids mean the same text.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    decoder = json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder")
    parts = [tokens, decoder, sorted(tokenizer.all_special_ids)]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over names, sizes and both ends of a model folder's files: whatever the size, some MiB are read.

    A training that leaves both ends of a file as they were is not seen; `folder_digest` sees it.
    """
    digest = sha256()
    for path in _files(folder, (".safetensors", ".bin", ".json")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(_EDGE))
            stream.seek(max(0, size - _EDGE))
            digest.update(stream.read())
    return digest.hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and whole contents of a model folder's files, a chat template among them: any other model
    gives another one. Takes as long as reading the files once."""
    digest = sha256()
    for path in _files(folder, (".safetensors", ".bin", ".json", ".npy", ".jinja")):
        with path.open("rb") as stream:
            digest.update(f"{path.name} {file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in suffixes and path.is_file())


def spec_folder(spec: str) -> Path | None:
    """The model folder that a sampler spec (`psgpo.sampling.open`) names; None for a server."""
    kind, _, rest = spec.partition(":")
    return None if kind == "openai" else Path(rest if kind in ("hf", "vllm") else spec)


def spec_identity(spec: str) -> dict[str, str]:
    """What makes two models the same: engine and weights; of a server, the name of the model."""
    folder, kind = spec_folder(spec), spec.partition(":")[0]
    if folder is None:
        return {"engine": "openai", "model": spec.partition("#")[2]}
    return {"engine": kind if kind in ("hf", "vllm") else "hf", "model": folder_fingerprint(folder)}


def refuse_other_tokenizer(labels: Iterable[LineLabels], tokenizer: Tokenizer, origin: str) -> None:
    """Raise unless the labels' token offsets hold under this tokenizer.

    A file that records no fingerprint is judged by its content: ids must decode to the text, and lines end where the
    file says.

    Args:
        origin: the label file, for messages.

    Raises:
        UserError: the labels belong to another tokenizer.
    """
    wanted, text = tokenizer_fingerprint(tokenizer), TokenText(tokenizer)
    advice = "give the model that the responses were sampled from, or label responses of this one (psgpo labels make)"
    for label in labels:
        if label.tokenizer == wanted:
            continue
        name = f"response {label.response.index} of problem {label.response.problem_id}"
        if label.tokenizer:
            raise UserError(
                f"{origin}: {name}: labels of another tokenizer ({label.tokenizer}; this model's is {wanted}), so its "
                f"line ends would fall on other tokens; {advice}"
            )
        try:
            cut = cut_response(label.response, text)
        except UserError:
            raise UserError(
                f"{origin}: {name}: its ids do not decode to its text with this tokenizer; {advice}"
            ) from None
        if cut.line_ends != label.line_ends:
            raise UserError(f"{origin}: {name}: its lines do not end at the tokens that it names; {advice}")
