"""Rollouts of one PPO step: sampled, split into lines, judged, scored line by line.

# L code lines, T response tokens
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from psgpo.config import ArmSettings, SamplingSettings
from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.labeling.identity import tokenizer_fingerprint
from psgpo.lines import TokenText, code_lines, extract_code, line_end_tokens
from psgpo.models import load_tokenizer
from psgpo.parallel.team import Team
from psgpo.prm.align import code_alone
from psgpo.prm.calibrate import probabilities
from psgpo.prm.record import FILE, ScorerRecord
from psgpo.prm.score import PrmScorer
from psgpo.prm.scorers import TextScorer, open_scorer
from psgpo.problems.opchain.oracle import ExactOracle
from psgpo.problems.programs import judged_lines, judged_program
from psgpo.records import Completion, Problem, Verdict
from psgpo.rl.rewards import can_pay_lines, line_rewards, token_rewards
from psgpo.sampling import Sampler

Array = NDArray[np.float64]
UNREAD = -1.0
"""What every line of a response counts that its PRM cannot read, being too long for it: as bad as a line can be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """One response of the current policy, judged."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """Length T, the end-of-sequence token included when it was sampled."""
    logprobs: tuple[float, ...]
    """Under the policy that sampled them. Length T."""
    finished: bool
    text: str
    line_ends: tuple[int, ...]
    """Per judged code line, the index in `token_ids` of its end. Length L."""
    neutral: tuple[bool, ...]
    """Per judged code line. Length L."""
    verdict: Verdict


def collect_rollouts(
    sampler: Sampler,
    token_text: TokenText,
    sandbox: Sandbox,
    prompts: Sequence[tuple[Problem, tuple[int, ...]]],
    seeds: Sequence[int],
    settings: SamplingSettings,
    clock: Callable[[str], None],
) -> list[Rollout]:
    """One response per (problem, prompt ids), in order. `clock(phase)` is called as a phase ends."""
    completions = sampler.sample(
        [ids for _, ids in prompts],
        seeds=seeds,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
    )
    clock("sample")
    decoded = [token_text.decode_with_ends(completion.token_ids) for completion in completions]
    verdicts = sandbox.grade(
        [
            (judged_program(problem, extract_code(text)), problem.tests)
            for (problem, _), (text, _) in zip(prompts, decoded, strict=True)
        ]
    )
    clock("grade")
    return [
        judged_rollout(problem, prompt_ids, completion, text, char_ends, verdict)
        for (problem, prompt_ids), completion, (text, char_ends), verdict in zip(
            prompts, completions, decoded, verdicts, strict=True
        )
    ]


def gathered(mine: Sequence[Rollout], problems: Sequence[Problem], team: Team) -> list[Rollout]:
    """Every process's rollouts, in order. Their problems, which every process has, do not travel: tests can be large.

    Args:
        problems: of all rollouts.
    """
    if team.size == 1:
        return list(mine)
    all_of_them = team.gather([replace(rollout, problem=None) for rollout in mine])  # type: ignore[arg-type]
    return [replace(rollout, problem=problem) for rollout, problem in zip(all_of_them, problems, strict=True)]


def judged_rollout(
    problem: Problem,
    prompt_ids: tuple[int, ...],
    completion: Completion,
    text: str,
    char_ends: Sequence[int],
    verdict: Verdict,
) -> Rollout:
    """One response with its judged lines; `text` and `char_ends` are `TokenText.decode_with_ends` of its ids."""
    lines = judged_lines(problem, text)
    return Rollout(
        problem=problem,
        prompt_ids=prompt_ids,
        token_ids=completion.token_ids,
        logprobs=completion.logprobs,
        finished=completion.finished,
        text=text,
        line_ends=line_end_tokens(char_ends, lines),
        neutral=tuple(line.neutral for line in lines),
        verdict=verdict,
    )


def rewarded_lines(rollout: Rollout, score_L: Array, arm: ArmSettings) -> Array:
    """λ · g of every line, as the arm wants it; a line without a score (NaN) counts `UNREAD`. Shape: (L,)."""
    return line_rewards(
        arm.line_reward,
        np.where(np.isnan(score_L), UNREAD, score_L),
        rollout.neutral,
        passed=rollout.verdict.passed,
        lambda_fail=arm.lambda_fail,
        lambda_pass=arm.lambda_pass,
        length_norm=arm.length_norm,
        neutral_lines=arm.neutral_lines,
        start=arm.start_score,
    )


def rewarded_tokens(rollout: Rollout, line_reward_L: Array, arm: ArmSettings) -> Array:
    """Line rewards where lines end (an ORM's at the last token) and the tests' reward at the last token; no KL.

    Shape: (T,). The tests' reward is R_UT for a pass and, for a failure, `partial_credit` times the share of test cases
    that hold (partial test credit, after VeRPO, arXiv 2601.03525). Grading runs every test case, whatever fails.
    """
    tokens = len(rollout.token_ids)
    ends = (tokens - 1,) if arm.line_reward == "program" else rollout.line_ends
    verdict = rollout.verdict
    of_tests = arm.unit_test_reward if verdict.passed else arm.partial_credit * verdict.fraction
    return token_rewards(line_reward_L, ends, tokens=tokens, unit_test_reward=of_tests)


def step_ends(rollout: Rollout, arm: ArmSettings) -> list[int]:
    """Tokens where the arm may pay this response: the last one, and the ends of lines that its line reward sees."""
    last = len(rollout.token_ids) - 1
    if not can_pay_lines(
        arm.line_reward, passed=rollout.verdict.passed, lambda_fail=arm.lambda_fail, lambda_pass=arm.lambda_pass
    ):
        return [last]
    unseen = rollout.neutral if arm.neutral_lines else (False,) * len(rollout.neutral)
    return sorted({last, *(end for end, neutral in zip(rollout.line_ends, unseen, strict=True) if not neutral)})


class LineScorer(Protocol):
    """R(x, y^(≤m)) for every line of every rollout; of an ORM one number for every rollout.

    NaN for all of a response that the model cannot read, and for nothing else.
    """

    def score(self, rollouts: Sequence[Rollout]) -> list[Array]: ...


class PrmLineScorer:
    """A trained PRM that shares the policy's tokenizer."""

    def __init__(self, prm: PrmScorer) -> None:
        self._prm = prm

    def score(self, rollouts: Sequence[Rollout]) -> list[Array]:
        most = self._prm.context
        fits = [most is None or len(r.prompt_ids) + len(r.token_ids) <= most for r in rollouts]
        read = [r for r, fit in zip(rollouts, fits, strict=True) if fit]
        scores = self._prm.score([(r.prompt_ids, r.token_ids, r.line_ends) for r in read])
        return _with_unread(scores, fits, [len(r.line_ends) for r in rollouts])


class TextLineScorer:
    """A PRM or ORM of any kind and any tokenizer: it reads the problem and the response as text.

    Text and tokens meet at lines: the PRM scores line m of `code_lines(text)`, and `Rollout.line_ends` says with which
    of the policy's tokens that line ends. Scores are those of `psgpo prm eval`.
    """

    NO_PROGRAM = -1.0
    """An ORM's score of a response without a line of code: as bad as a program that fails."""

    def __init__(self, scorer: TextScorer, *, signed: bool = False) -> None:
        """
        Args:
            signed: 2 P(good) − 1 in place of the score.
        """
        self._scorer = scorer
        self._signed = signed

    def score(self, rollouts: Sequence[Rollout]) -> list[Array]:
        pairs = [(rollout.problem.prompt, rollout.text) for rollout in rollouts]
        if self._scorer.record.scope == "program":
            return self._programs(pairs)
        fits = [self._scorer.readable(*pair) for pair in pairs]
        read = [pair for pair, fit in zip(pairs, fits, strict=True) if fit]
        counts = [len(rollout.line_ends) for rollout in rollouts]
        judged = [count for count, fit in zip(counts, fits, strict=True) if fit]
        found = self._scorer.score_many(read)
        # It reads all of the text, and lines behind the function's end stand behind those that are judged.
        scores = [self._read(score_L[:count]) for score_L, count in zip(found, judged, strict=True)]
        return _with_unread(scores, fits, counts)

    def _programs(self, pairs: Sequence[tuple[str, str]]) -> list[Array]:
        """One score for each. Shape of each: (1,)."""
        scores = [np.array([self.NO_PROGRAM]) for _ in pairs]
        there = [b for b, (_, text) in enumerate(pairs) if code_lines(text)]
        programs = [(pairs[b][0], code_alone(pairs[b][1])) for b in there]
        fits = [self._scorer.readable(*program) for program in programs]
        read = [program for program, fit in zip(programs, fits, strict=True) if fit]
        found = list(self._read(self._scorer.score_prefixes(read)).reshape(-1, 1))
        for b, score in zip(there, _with_unread(found, fits, [1] * len(there)), strict=True):
            scores[b] = score
        return scores

    def _read(self, scores: Array) -> Array:
        if not self._signed:
            return scores
        record = self._scorer.record
        return 2.0 * probabilities(scores, record.calibration, record.target) - 1.0


def _with_unread(scores: Sequence[Array], fits: Sequence[bool], counts: Sequence[int]) -> list[Array]:
    """The scores of what was read, in order, and as many NaN as there would be where it was not.

    Raises:
        UserError: the model itself gives NaN.
    """
    if any(np.isnan(score_L).any() for score_L in scores):
        raise UserError("a PRM behind line rewards scores NaN: its weights are broken; train it again")
    read = iter(scores)
    return [next(read) if fit else np.full(count, np.nan) for fit, count in zip(fits, counts, strict=True)]


class OracleLineScorer:
    """Exact labels of the embedded benchmark: the upper bound of any PRM, never the method.

    `sign`: +1 on the lines that are on track, −1 after. `progress`: the share of operations completed on track.
    """

    def __init__(self, oracle: ExactOracle, target: str) -> None:
        assert target in ("sign", "progress")
        self._oracle = oracle
        self._target = target

    def score(self, rollouts: Sequence[Rollout]) -> list[Array]:
        exact = self._oracle.label([(rollout.problem, rollout.text) for rollout in rollouts])
        scores: list[Array] = []
        for rollout, label in zip(rollouts, exact, strict=True):
            assert label.lines == len(rollout.line_ends)
            scores.append(exact_line_scores(label, self._target))
        return scores


class ExactLabel(Protocol):
    """What the oracle says of one response."""

    @property
    def last_on_track(self) -> int: ...

    @property
    def progress(self) -> Sequence[float]: ...


def exact_line_scores(label: ExactLabel, target: str) -> Array:
    """Exact labels in place of a PRM's scores, see `OracleLineScorer`. Shape: (L,)."""
    progress_L = np.asarray(label.progress, dtype=np.float64)
    if target == "progress":
        return progress_L
    return np.where(np.arange(1, len(progress_L) + 1) <= label.last_on_track, 1.0, -1.0)


def open_line_scorer(
    arm: ArmSettings,
    prm: Path,
    tokenizer: PreTrainedTokenizerBase,
    sandbox: Sandbox,
    *,
    device: str,
    dtype: str = "float32",
) -> LineScorer | None:
    """The scorer of an arm's lines: the PRM in folder `prm`, the oracle, or None without line rewards.

    A PRM of lines in the policy's own tokens reads the sampled ids; every other one reads text.

    Args:
        dtype: what a PRM computes in, as `model.dtype` of a recipe.

    Raises:
        UserError: the folder is no usable PRM.
    """
    if arm.line_reward == "none":
        return None
    if arm.prm == "oracle":
        return OracleLineScorer(
            ExactOracle(sandbox.evaluate_many), "progress" if arm.line_reward == "progress" else "sign"
        )
    return open_prm_lines(arm.line_score, prm, tokenizer, device=device, dtype=dtype)


def open_prm_lines(
    line_score: str, prm: Path, tokenizer: PreTrainedTokenizerBase, *, device: str, dtype: str = "float32"
) -> LineScorer:
    """The scorer of a trained PRM, see `open_line_scorer`; `line_score` as in `ArmSettings`."""
    if reads_ids(prm, tokenizer) and line_score == "score":
        return PrmLineScorer(PrmScorer(prm, tokenizer, device=device, dtype=dtype))
    return TextLineScorer(open_scorer(prm, device=device, dtype=dtype), signed=line_score == "signed")


def reads_ids(prm: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the PRM in this folder scores the lines of token ids of this tokenizer.

    A value model without a record can be read in no other way.
    """
    if not (prm / FILE).is_file():
        return True
    record = ScorerRecord.load(prm)
    if (record.kind, record.scope) != ("causal", "line"):
        return False
    return tokenizer_fingerprint(load_tokenizer(prm)) == tokenizer_fingerprint(tokenizer)
