"""What completions have shown: per probe, per response on its way through a search, and per problem as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from psgpo.labeling.journal import ProbeDraws
from psgpo.labeling.prefixes import CutResponse
from psgpo.labeling.search import Answer, Finding, Question, Search

Key = tuple[str, str, tuple[int, ...]]
"""Problem id, completer, response ids of the prefix: what makes two probes equal."""


class UnknownError(Exception):
    """Nobody can tell whether a prefix can be completed; the message says why."""


@dataclass(slots=True)
class Outcome:
    """What is known about one probe."""

    passes: list[bool | None] = field(default_factory=list)
    """Per completion drawn for it, in the order of their numbers; None: not known, its ids could not be proved."""
    reason: str = ""
    """Why not, of the first of these."""
    tokens: int = 0
    executions: int = 0
    proof: tuple[int, ...] | None = None
    """The first completion that passed."""

    @property
    def drawn(self) -> int:
        return len(self.passes)

    @property
    def passed(self) -> int:
        return self.passes.count(True)

    @property
    def refused(self) -> int:
        return self.passes.count(None)

    def add(self, draws: ProbeDraws) -> None:
        self.passes += [None if place in draws.refused else place in draws.passed for place in range(draws.drawn)]
        self.reason = self.reason or draws.reason
        self.tokens += draws.tokens
        self.executions += draws.executions
        if self.proof is None:
            self.proof = draws.proof

    def answer(self, question: Question, passed: int = 0, failed: int = 0) -> Answer | None:
        """The answer, once enough was drawn; `passed` and `failed` completions from elsewhere count first.

        Only the first completions count, as many as were asked for: how many more a round drew changes nothing.

        Raises:
            UnknownError: enough was drawn, and the answer hangs on completions that could not be proved.
        """
        seen = self.passes[: max(0, question.draws - passed - failed)]
        passed, drawn = passed + seen.count(True), passed + failed + len(seen)
        if question.until_pass and passed:
            return Answer(passed, drawn)
        if drawn >= question.draws:
            if None in seen:
                raise UnknownError(self.reason)
            return Answer(passed, drawn)
        return None


@dataclass(slots=True)
class Searching:
    """One failed response on its way through the search."""

    number: int
    """Position in the list of responses."""
    cut: CutResponse
    completer: str
    proved: int
    """Length in tokens of the longest prefix that a passing program begins with."""
    steps: Search
    question: Question | None = None
    """What it waits for; None when it is over."""
    finding: Finding = field(default_factory=lambda: Finding(0))
    asked: dict[int, Key] = field(default_factory=dict)
    """Line to probe, for lines that completions had to answer, in the order asked."""
    known: int = 0
    without_room: int = 0
    reused: int = 0
    """Completions drawn for other probes that answered its questions."""
    unlabelled: str = ""
    """Why it was given up."""

    @property
    def line(self) -> int:
        """The line asked about, among all lines of the response."""
        assert self.question is not None
        return self.cut.code[self.question.line - 1]

    def key(self) -> Key:
        return self.cut.response.problem_id, self.completer, self.cut.prefix(self.line)

    def send(self, answer: Answer | None) -> None:
        """Hand the search an answer (None: its first step) and take its next question."""
        try:
            self.question = next(self.steps) if answer is None else self.steps.send(answer)
        except StopIteration as stop:
            self.question, self.finding = None, stop.value

    def give_up(self, reason: str) -> None:
        """No line gets a label."""
        self.steps.close()
        self.question, self.finding, self.unlabelled = None, Finding(0, (0.0,) * len(self.cut.code)), reason

    def learn(self, proof: Sequence[int]) -> None:
        """A program passes that begins with these ids."""
        self.proved = max(self.proved, common_prefix(self.cut.own_ids, proof))


@dataclass(slots=True)
class _Node:
    children: dict[int, _Node] = field(default_factory=dict)
    marked: bool = False
    """Some response has a line that ends here."""
    passed: int = 0
    failed: int = 0


class Tree:
    """The prefixes of one problem and completer, and the completions that run through them from shorter ones.

    A completion of a shorter prefix that goes on with exactly the tokens of a longer one is, from there on, a
    completion of the longer one under the same policy: OmegaPRM (arXiv 2406.06592) reuses rollouts so.
    """

    def __init__(self) -> None:
        self._root = _Node()

    def mark(self, prefix: Sequence[int]) -> None:
        """Completions shall be counted here."""
        node = self._root
        for token in prefix:
            node = node.children.setdefault(token, _Node())
        node.marked = True

    def add(self, prefix: Sequence[int], completion: Sequence[int], passed: bool) -> None:
        """Count a completion at every marked prefix beyond the one it was drawn for."""
        node = self._root
        for place, token in enumerate((*prefix, *completion), start=1):
            child = node.children.get(token)
            if child is None:
                return
            node = child
            if node.marked and place > len(prefix):
                node.passed += passed
                node.failed += not passed

    def seen(self, prefix: Sequence[int]) -> tuple[int, int]:
        """(passed, failed) among completions of shorter prefixes that run through this one."""
        node = self._root
        for token in prefix:
            node = node.children[token]
        return node.passed, node.failed


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading items are equal."""
    length = min(len(left), len(right))
    return next((place for place in range(length) if left[place] != right[place]), length)
