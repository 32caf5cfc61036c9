"""A small trained Llama, vLLM's engine and vLLM's server with it. Without vLLM these tests skip: `make test-vllm`."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from engines_world import Served, serve, trained_llama

from psgpo.sampling import Sampler, open_sampler


@pytest.fixture(scope="session")
def vllm_environment() -> None:
    """Skips without vLLM; `make test-vllm` says that it must be there."""
    if importlib.util.find_spec("vllm") is None:
        if os.environ.get("PSGPO_ENGINES") == "vllm":
            pytest.fail("vLLM is not installed here; remove .venv-vllm and run make test-vllm again")
        pytest.skip("vLLM lives in an environment of its own; run make test-vllm")
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    os.environ.update(
        VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND=cores, HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR"
    )


@pytest.fixture(scope="session")
def llama(vllm_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def hf(llama: Path) -> Sampler:
    return open_sampler(str(llama))[0]


@pytest.fixture(scope="module")
def served(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve("vllm", llama, tmp_path_factory.mktemp("server") / "log.txt") as server:
        yield server
