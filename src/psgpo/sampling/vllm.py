"""Sampling with vLLM's offline engine on this machine: paged attention, prefixes cached across calls."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from psgpo.errors import UserError
from psgpo.models import save_merged
from psgpo.records import Completion
from psgpo.sampling.rows import checked_limits, folder_stop_ids, refuse_encoder_prompts
from psgpo.sampling.sampler import SamplerStats

_HAND_OVER = "psgpo-weights-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
CPU_CACHE = 2 << 30
"""Bytes for keys and values on a CPU, unless told otherwise."""


class VllmSampler:
    """Implements `psgpo.sampling.Sampler` with `vllm.LLM`.

    Prefixes go in as token ids and completions come out as token ids: no text in between. A row has its own generator,
    seeded with its seed. `logprobs` are vLLM's *processed* ones, log softmax(logits / temperature), which is what
    `Sampler` promises; with a top_p below 1 vLLM counts the truncation in, so they are NaN. Its last bits, and with
    them now and then a token, depend on which rows are decoded together.
    """

    def __init__(
        self,
        folder: Path | str,
        tokenizer: Any,
        *,
        device: str = "cpu",
        batch_size: int = 256,
        dtype: str = "",
        **engine: Any,
    ) -> None:
        """Load the model; takes half a minute and, unless told otherwise, most of a GPU's memory (a CPU's: 2 GiB).

        Args:
            folder: the model, of an architecture that vLLM knows (the embedded benchmark's `psgpo-shift` is none).
            tokenizer: the model's own.
            device: must be what the installed vLLM was built for.
            batch_size: most rows decoded at the same time.
            dtype: of the weights; float32 on a CPU, else the folder's own (vLLM makes float32 a half type there).
            **engine: other arguments of `vllm.LLM`, such as `max_model_len`, `gpu_memory_utilization`,
                `tensor_parallel_size`; on a CPU `kv_cache_memory_bytes` is `CPU_CACHE` without one.

        Raises:
            UserError: vLLM is not installed or built for another device, or cannot load the model.
        """
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size}: must be at least 1")
        refuse_encoder_prompts(tokenizer, f"sampler vllm:{folder}")
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder; give the local folder of a model (download hub models first)")
        vllm = _vllm()
        built_for = vllm.platforms.current_platform.device_type
        if built_for != device.partition(":")[0]:
            raise UserError(f"this vLLM was built for {built_for}, not for {device}; ask for {built_for} or install it")
        self.stop_ids = folder_stop_ids(folder, tokenizer)
        self.stats = SamplerStats()
        arguments = {
            "dtype": dtype or ("float32" if built_for == "cpu" else "auto"),
            "max_num_seqs": batch_size,
            "enable_prefix_caching": True,
            "logprobs_mode": "processed_logprobs",
            "disable_log_stats": True,
        }
        if built_for == "cpu":
            # A prompt cut in two takes back the random number of its first part, which CPU generators cannot
            # (vLLM 0.32: "CPU Generator does not use offset"): with seeds that kills the engine.
            arguments["enable_chunked_prefill"] = False
            # Left to itself vLLM asks for 92 % of the machine's memory, and refuses to start where that is not free.
            # VLLM_CPU_KVCACHE_SPACE (GiB) goes before this.
            if "gpu_memory_utilization" not in engine:
                arguments["kv_cache_memory_bytes"] = CPU_CACHE
        try:
            self._engine = vllm.LLM(str(folder), **(arguments | engine))
        except (TypeError, ValueError, RuntimeError, OSError, NotImplementedError) as error:
            words = " ".join(str(error).split())[:500]
            raise UserError(f"{folder}: vLLM cannot load it ({words}); see its log above") from error
        self._inputs, self._parameters = vllm.TokensPrompt, vllm.SamplingParams
        self.context: int = self._engine.model_config.max_model_len
        """Most tokens of prefix and completion together."""

    def sample(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int | Sequence[int] = 256,
    ) -> list[Completion]:
        """See `Sampler.sample`.

        Raises:
            UserError: an empty prefix, lists of unequal length, or more tokens than the model's context holds.
        """
        limits = checked_limits(
            prefixes, seeds, max_new_tokens, temperature=temperature, top_p=top_p, context=self.context
        )
        if not limits:
            return []
        started = time.perf_counter()
        prompts = [self._inputs(prompt_token_ids=list(prefix)) for prefix in prefixes]
        parameters = [
            self._parameters(
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                max_tokens=limit,
                stop_token_ids=sorted(self.stop_ids),
                logprobs=0,  # of the sampled id alone
                detokenize=False,
            )
            for seed, limit in zip(seeds, limits, strict=True)
        ]
        outputs = self._engine.generate(prompts, parameters, use_tqdm=False)
        completions = [self._completion(output.outputs[0], top_p) for output in outputs]
        self.stats += SamplerStats(
            completions=len(completions),
            useful_tokens=sum(len(completion.token_ids) for completion in completions),
            prefill_tokens=sum(len(output.prompt_token_ids) - (output.num_cached_tokens or 0) for output in outputs),
            seconds=time.perf_counter() - started,
        )
        return completions

    def _completion(self, output: Any, top_p: float) -> Completion:
        ids = tuple(output.token_ids)
        if top_p == 1.0:
            logprobs = tuple(entry[token].logprob for token, entry in zip(ids, output.logprobs, strict=True))
        else:
            logprobs = (math.nan,) * len(ids)
        assert output.finish_reason in ("stop", "length"), output.finish_reason
        return Completion(token_ids=ids, logprobs=logprobs, finished=ids[-1] in self.stop_ids)

    def take_weights(self, model: PreTrainedModel) -> None:
        """Draw from these weights from now on: those of a policy in this process, adapters merged.

        They pass through a folder, in memory where the system has one (/dev/shm): the same way for one worker process
        and for many, on CPUs and GPUs. What was cached under the old weights is forgotten.

        Args:
            model: of the engine's own architecture and sizes.
        """
        with _hand_over_folder(_memory_root()) as folder:
            save_merged(model, folder, dtype=self._engine.model_config.dtype)
            self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM kept prefixes of the old weights: a request was still running")

    def close(self) -> None:
        """End the engine's process and free its memory."""
        self._engine.llm_engine.engine_core.shutdown()


def _memory_root() -> Path:
    return Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())


@contextmanager
def _hand_over_folder(root: Path) -> Iterator[Path]:
    """A new folder in `root`, locked as long as it is used.

    What a killed process left there goes, for nobody else would free it: the folders whose lock is free. A lock holds
    where process ids say nothing: containers that share /dev/shm count them each from 1.
    """
    for left in root.glob(f"{_HAND_OVER}*"):
        with suppress(OSError):  # in use, gone meanwhile, or another user's
            _remove_unless_locked(left)
    folder, lock = _new_locked_folder(root)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


def _remove_unless_locked(folder: Path) -> None:
    lock = os.open(folder, _FOLDER)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)


def _new_locked_folder(root: Path) -> tuple[Path, int]:
    """The folder, and its open file, which holds the lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_HAND_OVER, dir=root))
        with suppress(FileNotFoundError):
            lock = os.open(folder, _FOLDER)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)
        # Before it was locked another process took it for left behind: try again.


def _vllm() -> Any:
    try:
        import vllm
        import vllm.platforms
    except ImportError as error:
        raise UserError(
            f"vLLM cannot be imported ({error}); install it in an environment of its own: `pip install vllm` on a "
            "GPU machine, or see requirements/vllm.txt for CPUs"
        ) from None
    return vllm
