"""The strategies of many problems side by side: their questions of a round go to sampler and PRM together."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from psgpo.errors import UserError
from psgpo.lines import Tokenizer, TokenText
from psgpo.prm import TextScorer
from psgpo.rerank.strategies import Asking, Draw, Question, Score
from psgpo.sampling import HFSampler, Sampler
from psgpo.seeds import derive_seed


class PrefixScorer(Protocol):
    """The part of `psgpo.prm.TextScorer` that is needed here."""

    def score_prefixes(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]: ...


class ReadablePrefixes:
    """A PRM that says NaN of what it cannot read, being too long for it: one long text does not end a search."""

    def __init__(self, scorer: TextScorer) -> None:
        self._scorer = scorer

    def score_prefixes(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        scores = np.full(len(pairs), np.nan)
        fits = [n for n, pair in enumerate(pairs) if self._scorer.readable(*pair)]
        if fits:
            scores[fits] = self._scorer.score_prefixes([pairs[n] for n in fits])
        return scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Player:
    """One problem and what is asked about it."""

    problem_id: str
    prompt: str
    """As the PRM reads it: `Problem.prompt`."""
    prompt_ids: tuple[int, ...]
    """As the policy reads it."""
    asking: Asking


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """Who answers."""

    sampler: Sampler
    """Ends a completion where a response ends."""
    line_sampler: Sampler
    """The same policy; ends a completion at a newline too."""
    scorer: PrefixScorer
    temperature: float
    top_p: float
    seed: int
    """Row i of a problem draws the same numbers whatever the strategy, so strategies are compared in pairs."""

    def run(self, players: Sequence[Player]) -> None:
        """Answer until nobody asks any more."""
        waiting = [(player, question) for player in players if (question := _go_on(player, None)) is not None]
        while waiting:
            answers: dict[int, Any] = {}
            for sampler, whole in ((self.sampler, True), (self.line_sampler, False)):
                asked = [
                    (n, player, question)
                    for n, (player, question) in enumerate(waiting)
                    if isinstance(question, Draw) and question.whole == whole
                ]
                answers |= self._sampled(sampler, asked)
            answers |= self._scored([(n, player, q) for n, (player, q) in enumerate(waiting) if isinstance(q, Score)])
            waiting = [
                (player, question)
                for n, (player, _) in enumerate(waiting)
                if (question := _go_on(player, answers[n])) is not None
            ]

    def _sampled(self, sampler: Sampler, asked: Sequence[tuple[int, Player, Draw]]) -> dict[int, Any]:
        if not asked:
            return {}
        completions = sampler.sample(
            [(*player.prompt_ids, *prefix) for _, player, draw in asked for prefix in draw.prefixes],
            seeds=[
                derive_seed(self.seed, "rerank", player.problem_id, number)
                for _, player, draw in asked
                for number in draw.numbers
            ],
            max_new_tokens=[limit for _, _, draw in asked for limit in draw.limits],
            temperature=self.temperature,
            top_p=self.top_p,
        )
        return _shared(completions, [(n, len(draw.prefixes)) for n, _, draw in asked])

    def _scored(self, asked: Sequence[tuple[int, Player, Score]]) -> dict[int, Any]:
        if not asked:
            return {}
        scores = self.scorer.score_prefixes([(player.prompt, text) for _, player, q in asked for text in q.texts])
        return _shared([float(score) for score in scores], [(n, len(q.texts)) for n, _, q in asked])


def _go_on(player: Player, answer: Any) -> Question | None:
    """The player's next question; None where it is done."""
    try:
        question: Question = player.asking.send(answer)
    except StopIteration:
        return None
    return question


def _shared(items: Sequence[Any], shares: Sequence[tuple[int, int]]) -> dict[int, Any]:
    """Consecutive items by whom they are for."""
    found, start = {}, 0
    for n, count in shares:
        found[n] = items[start : start + count]
        start += count
    return found


def stops_at_lines(sampler: HFSampler, tokenizer: Tokenizer) -> HFSampler:
    """The same model, with completions that end at a token that holds a newline.

    Raises:
        UserError: the tokenizer has none.
    """
    text = TokenText(tokenizer)
    newlines = frozenset(token for token in range(len(tokenizer)) if "\n" in text.decode([token]))
    if not newlines:
        raise UserError("rerank search: the policy's tokenizer has no token with a newline, so lines have no end in it")
    twin = copy.copy(sampler)
    twin.stop_ids = sampler.stop_ids | newlines
    return twin
