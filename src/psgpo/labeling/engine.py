"""What a labelling process needs to open: models, tokenizer, sandbox; small enough to be sent to other processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.labeling.collect import QueueingGrader
from psgpo.labeling.splice_policy import Surprise
from psgpo.lines import Tokenizer

if TYPE_CHECKING:  # the sampler's package loads torch; it is imported where an engine is opened
    from psgpo.sampling import Sampler


VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenEngine:
    """Arguments of `label_responses` that cannot be sent to another process."""

    samplers: Mapping[str, Sampler]
    tokenizer: Tokenizer
    sandbox: QueueingGrader
    surprise: Surprise | None = None


@runtime_checkable
class Closing(Protocol):
    """A sampler with processes or memory of its own (vLLM's) to give back."""

    def close(self) -> None: ...


class Engine(Protocol):
    """Anything that can be pickled and opened."""

    @property
    def names(self) -> tuple[str, ...]:
        """Checkpoints, in training order."""

    @property
    def gpus(self) -> float:
        """GPUs that one worker takes."""

    def environment(self, worker: int) -> Mapping[str, str]:
        """Environment variables of worker `worker`, from 0, of those that share this machine."""

    def open(self) -> AbstractContextManager[OpenEngine]:
        """Load everything; sandbox and engines end with the context."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelEngine:
    """An `Engine` of samplers named by their specs."""

    samplers: Mapping[str, str]
    """Checkpoint name to sampler spec (`psgpo.sampling.open`), in training order. All share one tokenizer."""
    tokenizer: str | None = None
    """The tokenizer's folder; None: that of the model. A server needs one."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`. Workers on `cuda` are spread over the GPUs of their machine."""
    batch_size: int = 256
    threads: int = 1
    """PyTorch threads of a worker on the CPU. Cores are better used by more workers."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the samplers; each goes to those that take it."""
    sandbox: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of `psgpo.execution.Sandbox`."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.samplers)

    @property
    def gpus(self) -> float:
        return 0.0 if self.device == "cpu" else 1.0

    def environment(self, worker: int) -> Mapping[str, str]:
        """See `Engine.environment`: with `cuda` the one GPU that the worker sees, which vLLM needs to be told so."""
        return {VISIBLE: gpu} if self.device == "cuda" and (gpu := gpu_of(worker, visible_gpus())) else {}

    @contextmanager
    def open(self) -> Iterator[OpenEngine]:
        """See `Engine.open`.

        Raises:
            UserError: a sampler or the sandbox cannot be opened.
        """
        import torch

        from psgpo.labeling.surprise import PolicySurprise
        from psgpo.sampling import HFSampler
        from psgpo.sampling.open import open_sampler, options_taken

        own = {name: options_taken(spec, self.options) for name, spec in self.samplers.items()}
        unused = sorted(self.options.keys() - {option for taken in own.values() for option in taken})
        if unused:
            raise UserError(
                f"no sampler of {', '.join(self.samplers.values())} takes {', '.join(unused)}; leave it out"
            )
        torch.set_num_threads(self.threads)
        opened = {
            name: open_sampler(
                spec, tokenizer=self.tokenizer, device=self.device, batch_size=self.batch_size, **own[name]
            )
            for name, spec in self.samplers.items()
        }
        samplers = {name: sampler for name, (sampler, _) in opened.items()}
        models = {name: sampler.model for name, sampler in samplers.items() if isinstance(sampler, HFSampler)}
        with ExitStack() as stack:
            for sampler in samplers.values():
                if isinstance(sampler, Closing):
                    stack.callback(sampler.close)
            sandbox = stack.enter_context(Sandbox(**self.sandbox))
            yield OpenEngine(
                samplers=samplers,
                tokenizer=next(iter(opened.values()))[1],
                sandbox=sandbox,
                surprise=PolicySurprise(models) if len(models) == len(samplers) else None,
            )


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: those it lists, else all."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].replace(" ", "").split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def gpu_of(worker: int, gpus: Sequence[str]) -> str | None:
    """The GPU of a worker, from 0: each in turn, and from the front again where there are more workers.

    >>> [gpu_of(worker, ["2", "5"]) for worker in range(3)]
    ['2', '5', '2']
    """
    return gpus[worker % len(gpus)] if gpus else None
