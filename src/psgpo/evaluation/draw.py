"""Samples of a model for a benchmark: a file that `psgpo eval` grades like any other.

`out/samples.jsonl`: task_id, sample_id (the index within the task), `completion` (prompt form `completion`) or
`solution` (form `chat`), `finished` (the model ended by itself), `tokens` that were sampled, `prompt_ids`, `token_ids`
(those of the answer: up to the token in which a completion that was cut ends) and the fingerprint of their `tokenizer`
(`psgpo.labeling.identity`). `out/sampling.json` is what was asked for.

A base model does not stop after the function. As in the HumanEval paper (Chen et al., arXiv 2107.03374, section 2.1) a
completion ends where a line of new top-level code begins; what the model wrote after that is not kept.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from psgpo.chats import chat_layout
from psgpo.errors import UserError
from psgpo.job import check_job
from psgpo.jsonl import JsonlAppender, read_jsonl, write_jsonl
from psgpo.labeling.identity import spec_identity, tokenizer_fingerprint
from psgpo.problems.programs import chat_prompt, completion_prompt, end_of_function
from psgpo.prompts import build_prompt_ids, encode_prompt, encoder_prompts, fill, slot_fault
from psgpo.records import Problem
from psgpo.seeds import derive_seed

if TYPE_CHECKING:  # torch is loaded only when something has to be drawn
    from psgpo.sampling import Sampler

Json = dict[str, Any]
DRAWN = "samples.jsonl"
"""File of a folder with the samples that were drawn for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawSettings:
    """What decides the samples, beside the model and the benchmark."""

    samples: int = 1
    """Per task."""
    temperature: float = 0.8
    """0 is greedy."""
    top_p: float = 0.95
    max_new_tokens: int = 512
    prompt: Literal["completion", "chat"] = "completion"
    seed: int = 0


class LoadedModel:
    """A model that is loaded when it is first needed: a finished file of samples needs none."""

    def __init__(self, spec: Path | str, *, batch_size: int, device: str, tokenizer: Path | None = None) -> None:
        """`spec` and `tokenizer`: see `psgpo.sampling.open`."""
        self.spec = str(spec)
        self._options: Json = {"tokenizer": tokenizer, "batch_size": batch_size, "device": device}

    def fingerprint(self) -> str:
        """See `folder_fingerprint`; samples of another engine are others, and a server tells no more than a name."""
        identity = spec_identity(self.spec)
        return identity["model"] if identity["engine"] == "hf" else f"{identity['engine']} {identity['model']}"

    def load(self) -> tuple[Sampler, Any, int | None]:
        """(sampler, tokenizer, context length where it is known)."""
        from psgpo.sampling.open import open_sampler
        from psgpo.sampling.sampler import context_of

        sampler, tokenizer = open_sampler(self.spec, **self._options)
        return sampler, tokenizer, context_of(sampler)


def draw_samples(
    model: LoadedModel,
    problems: Sequence[Problem],
    settings: DrawSettings,
    out: Path,
    *,
    prompt_of: Callable[[Problem], str],
    benchmark: str,
    chunk: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw what `out/samples.jsonl` does not hold yet and return its path.

    The random numbers of a sample depend on the seed, its task and its index alone.

    Args:
        prompt_of: the task as text; in chat form the user's message.
        chunk: samples between two writes.

    Raises:
        UserError: a setting makes no sense, the folder holds samples of another job, the tokenizer has no chat form,
            or a prompt does not fit into the model's context.
    """
    _check(settings)
    asked = "".join(f"{problem.id}\n{prompt_of(problem)}\n" for problem in problems)
    prompts = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()
    job = {"model": model.fingerprint(), "benchmark": benchmark, "prompts": prompts, **asdict(settings)}
    path = out / DRAWN
    rows = _kept(path)  # first, for what another program wrote is refused before the folder is claimed
    check_job(out / "sampling.json", job, results=path)
    wanted = [(problem, index) for problem in problems for index in range(settings.samples)]
    if strange := rows.keys() - {(problem.id, index) for problem, index in wanted}:
        raise UserError(f"{path}: holds a sample of {min(strange)[0]} that was not asked for; choose another --out")
    missing = [(problem, index) for problem, index in wanted if (problem.id, index) not in rows]
    if missing:
        with JsonlAppender(path) as stream:
            for new in _drawn(model, missing, settings, prompt_of, chunk):
                stream.append(*new)
                rows |= {(row["task_id"], row["sample_id"]): row for row in new}
                if progress:
                    progress(len(rows), len(wanted))
        write_jsonl(path, [rows[problem.id, index] for problem, index in wanted])
    return path


def _check(settings: DrawSettings) -> None:
    if settings.samples < 1 or settings.temperature < 0 or not 0 < settings.top_p <= 1 or settings.max_new_tokens < 1:
        raise UserError("--samples and --max-new-tokens must be at least 1, --temperature at least 0, 0 < --top-p <= 1")
    if settings.temperature == 0 and settings.samples > 1:
        raise UserError(f"--temperature 0 draws the same sample {settings.samples} times; give --samples 1")


def _kept(path: Path) -> dict[tuple[str, int], Json]:
    """Rows of an interrupted call, by task and index."""
    if not path.is_file():
        return {}
    return {(row["task_id"], row["sample_id"]): row for row in read_jsonl(path, _drawn_here, torn_tail_ok=True)}


def _drawn_here(row: Json) -> Json:
    if "task_id" not in row or "sample_id" not in row:
        raise ValueError("no sample that psgpo eval drew; choose another --out")
    return row


def _drawn(
    model: LoadedModel,
    missing: Sequence[tuple[Problem, int]],
    settings: DrawSettings,
    prompt_of: Callable[[Problem], str],
    chunk: int,
) -> Iterator[list[Json]]:
    sampler, tokenizer, context = model.load()
    fingerprint = tokenizer_fingerprint(tokenizer)
    prompts: dict[str, tuple[int, ...]] = {}
    for start in range(0, len(missing), chunk):
        batch = missing[start : start + chunk]
        for problem, _ in batch:
            if problem.id not in prompts:
                prompts[problem.id] = prompt_ids(tokenizer, prompt_of(problem), settings.prompt)
        prefixes = [prompts[problem.id] for problem, _ in batch]
        completions = sampler.sample(
            prefixes,
            seeds=[derive_seed(settings.seed, "eval", problem.id, index) for problem, index in batch],
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=[
                _room(problem, prefix, settings.max_new_tokens, context)
                for (problem, _), prefix in zip(batch, prefixes, strict=True)
            ],
        )
        rows = []
        for (problem, index), prefix, completion in zip(batch, prefixes, completions, strict=True):
            text = _continuation(tokenizer, prefix, completion.token_ids)
            kept, form = text, "solution" if settings.prompt == "chat" else "completion"
            if form == "completion" and problem.starter_code:
                kept = end_of_function(text)
            ids = completion.token_ids
            if kept != text:
                ids = _ids_of(tokenizer, prefix, ids, len(kept))
            ending = {"finished": completion.finished, "tokens": len(completion.token_ids)}
            source = {"prompt_ids": list(prefix), "token_ids": list(ids), "tokenizer": fingerprint}
            rows.append({"task_id": problem.id, "sample_id": index, form: kept, **ending, **source})
        yield rows


def _ids_of(tokenizer: Any, prefix: Sequence[int], ids: Sequence[int], length: int) -> Sequence[int]:
    """The fewest ids whose text is at least so many characters long."""
    return ids[: bisect_left(range(len(ids)), length, key=lambda n: len(_continuation(tokenizer, prefix, ids[:n])))]


def prompt_ids(tokenizer: Any, text: str, form: str) -> tuple[int, ...]:
    """Ids of a prompt in form `completion`, or of a user's message in the tokenizer's chat form.

    Raises:
        UserError: the tokenizer has no chat template.
    """
    if form == "completion":
        return encode_prompt(tokenizer, text)
    if not getattr(tokenizer, "chat_template", None):
        raise UserError("the model's tokenizer has no chat template; give --prompt completion")
    return encode_prompt(tokenizer, fill(chat_layout(tokenizer), text))


def pose(form: str, tokenizer: Any, *, option: str = "--prompt") -> Callable[[Problem], tuple[int, ...]]:
    """From a problem to the ids that a model reads.

    Args:
        form: `completion` or `chat`, as benchmarks pose a task, or a template with `{prompt}`.
        option: what the user sets to give it, for messages.

    Raises:
        UserError: none of the three.
    """
    if form == "completion":
        return lambda problem: prompt_ids(tokenizer, completion_prompt(problem), form)
    if form == "chat":
        return lambda problem: prompt_ids(tokenizer, chat_prompt(problem), form)
    if fault := slot_fault(form):
        raise UserError(f"{option} {form!r}: write completion, chat, or a template; as one it {fault}")
    return lambda problem: build_prompt_ids(tokenizer, form, problem)


def _room(problem: Problem, prefix: Sequence[int], limit: int, context: int | None) -> int:
    if context is None:
        return limit
    if len(prefix) >= context:
        raise UserError(
            f"{problem.id}: its prompt of {len(prefix)} tokens fills the model's context of {context}; "
            "use a model with a longer one"
        )
    return min(limit, context - len(prefix))


def _continuation(tokenizer: Any, prefix: Sequence[int], ids: Sequence[int]) -> str:
    """The text after the prompt. Decoded together with it: some tokenizers drop the space a text begins with.

    An encoder–decoder's response is a text of its own.
    """
    options: Json = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    if encoder_prompts(tokenizer):
        return str(tokenizer.decode(list(ids), **options))
    before, whole = tokenizer.decode(list(prefix), **options), tokenizer.decode([*prefix, *ids], **options)
    return str(whole[len(before) :] if whole.startswith(before) else tokenizer.decode(list(ids), **options))
