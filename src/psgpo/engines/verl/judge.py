"""A response of verl's rollout becomes rewards: sandbox verdict and line scores, by the functions that PPO here calls.

Responses come one by one, many at a time; the PRM takes those that wait together.

# T response tokens, L code lines
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from psgpo.config import ArmSettings
from psgpo.execution import Sandbox
from psgpo.execution.encoding import REMEMBERED_BYTES
from psgpo.lines import Tokenizer, TokenText, extract_code
from psgpo.problems.programs import judged_program
from psgpo.records import Completion, Problem
from psgpo.rl.rollout import LineScorer, Rollout, judged_rollout, rewarded_lines, rewarded_tokens

Array = NDArray[np.float64]
Score = Callable[[Sequence[Rollout]], Awaitable[list[Array]]]
"""Line scores of several rollouts, (L,) each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A response and what it is paid."""

    rollout: Rollout
    line_rewards: Array
    """λ · g of every line. Shape: (L,)."""
    token_rewards: Array
    """Line rewards and unit-test reward; no KL, which verl adds. Shape: (T,)."""


class Judge:
    """Rewards of single responses, for asyncio."""

    def __init__(
        self, arm: ArmSettings, tokenizer: PreTrainedTokenizerBase, sandbox: Sandbox, score: Score | None
    ) -> None:
        """
        Args:
            score: line scores for `arm.line_reward`; None exactly when that is `none`.
        """
        assert (score is None) == (arm.line_reward == "none")
        self._arm, self._sandbox = arm, sandbox
        self._problems = Problems()
        self._text = TokenText(cast(Tokenizer, tokenizer))
        self._score = Gathered(score) if score is not None else None

    async def judge(self, ground_truth: str, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> Judged:
        """Run the tests, score the lines, add up.

        Args:
            ground_truth: the problem as the export wrote it.

        Raises:
            SandboxError: the grader itself failed; there is no reward then.
        """
        problem = self._problems.read(ground_truth)
        text, char_ends = self._text.decode_with_ends(token_ids)
        verdict = await self._sandbox.grade_async(judged_program(problem, extract_code(text)), problem.tests)
        completion = Completion(token_ids=tuple(token_ids), logprobs=(), finished=True)
        rollout = judged_rollout(problem, tuple(prompt_ids), completion, text, char_ends, verdict)
        score_L = np.zeros(0) if self._score is None else await self._score(rollout)
        line_reward_L = rewarded_lines(rollout, score_L, self._arm)
        token_reward_T = rewarded_tokens(rollout, line_reward_L, self._arm)
        return Judged(rollout=rollout, line_rewards=line_reward_L, token_rewards=token_reward_T)


class Problems:
    """Problems of ground truths, each read once: verl sends the whole text anew with every response.

    The same text gives the same object, which is how the sandbox knows tests that it has encoded.
    """

    def __init__(self, most: int = REMEMBERED_BYTES) -> None:
        """
        Args:
            most: characters of the texts whose problems are kept; the least recently used go first. About what the
                sandbox keeps: with fewer it would hold tests that nobody asks for again.
        """
        self._most, self._characters = most, 0
        self._known: OrderedDict[bytes, tuple[Problem, int]] = OrderedDict()
        """By digest of the text: the problem, and how long the text is."""

    def read(self, text: str) -> Problem:
        key = hashlib.sha256(text.encode()).digest()
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key][0]
        problem = Problem.from_json(json.loads(text))
        self._known[key] = problem, len(text)
        self._characters += len(text)
        while self._characters > self._most and len(self._known) > 1:
            self._characters -= self._known.popitem(last=False)[1][1]
        return problem


class Gathered:
    """One score at a time for the caller, one batch at a time for the scorer: all that wait when it gets free."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self._waiting: list[tuple[Rollout, asyncio.Future[Array]]] = []
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, rollout: Rollout) -> Array:
        future: asyncio.Future[Array] = asyncio.get_running_loop().create_future()
        self._waiting.append((rollout, future))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                scores = await self._score([rollout for rollout, _ in batch])
            except Exception as error:
                # It belongs to every caller of this batch; the next batch is tried again.
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), score_L in zip(batch, scores, strict=True):
                if not future.done():
                    future.set_result(score_L)


def in_thread(scorer: LineScorer) -> Score:
    """A scorer of this process, in a thread, so that tests go on beside it."""

    async def score(rollouts: Sequence[Rollout]) -> list[Array]:
        return await asyncio.to_thread(scorer.score, rollouts)

    return score
