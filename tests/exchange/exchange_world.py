"""A toy policy folder that continues code, and the command in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from psgpo.cli.main import main
from psgpo.execution import Sandbox
from psgpo.labeling.engine import OpenEngine
from psgpo.models import create_policy, load_tokenizer, train_tokenizer
from psgpo.records import Call, CallTests, Completion, Problem

TEXT = "# add 1\ndef f(x):\n    y = x\n    return y + 1\n    # note\nprint(f(2))\n"
STARTER = "def f(x):\n"


def save_toy(folder: Path, *, text: str = TEXT, seed: int = 0, context: int = 96) -> Path:
    """A random model of the shift architecture with a tokenizer for `text`."""
    tokenizer = train_tokenizer([text] * 4, 300)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    create_policy(tokenizer, seed=seed, max_position_embeddings=context, **sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def add(amount: int, *, starter: str = "") -> Problem:
    """f(x) = x + amount."""
    tests = CallTests(function="f", calls=(Call(args=(1,), expected=1 + amount), Call(args=(5,), expected=5 + amount)))
    return Problem(id=f"add/{amount}", prompt=starter or f"add {amount}", tests=tests, starter_code=starter)


class Script:
    """A sampler that writes `texts[seed % len(texts)]`, less its first lines where the prefix ends with them."""

    context = 512

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        self._tokenizer = load_tokenizer(folder)
        self.texts = texts

    def sample(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int | Sequence[int] = 256,
    ) -> list[Completion]:
        return [self._complete(prefix, seed) for prefix, seed in zip(prefixes, seeds, strict=True)]

    def _complete(self, prefix: Sequence[int], seed: int) -> Completion:
        written = self._tokenizer.decode(list(prefix))
        text = self.texts[seed % len(self.texts)]
        lines = text.splitlines(keepends=True)
        done = next((n for n in range(len(lines), 0, -1) if written.endswith("".join(lines[:n]))), 0)
        ids = [*self._tokenizer("".join(lines[done:]), add_special_tokens=False)["input_ids"]]
        ids.append(self._tokenizer.eos_token_id)
        return Completion(token_ids=tuple(ids), logprobs=(0.0,) * len(ids), finished=True)


class ScriptEngine:
    """A `psgpo.labeling.engine.Engine` with one checkpoint, `toy`, that a `Script` plays."""

    names = ("toy",)
    gpus = 0.0

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        self.script, self._tokenizer = Script(folder, texts), load_tokenizer(folder)

    def environment(self, worker: int) -> dict[str, str]:
        return {}

    @contextmanager
    def open(self) -> Iterator[OpenEngine]:
        with Sandbox(timeout=1.0, memory_mb=128, allow_unconfined=True) as sandbox:
            yield OpenEngine(samplers={"toy": self.script}, tokenizer=self._tokenizer, sandbox=sandbox)


def psgpo(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit status of `psgpo ...` in this process; its output goes where pytest's `capsys` finds it."""
    monkeypatch.setattr(sys, "argv", ["psgpo", *map(str, arguments)])
    with pytest.raises(SystemExit) as ending:
        main()
    return int(ending.value.code or 0)
