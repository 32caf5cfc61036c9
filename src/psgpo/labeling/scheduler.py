"""Line labels for many responses at once: searches wait side by side, their rollouts share every batch.

PSGPO (arXiv 2410.17621), section "collecting labels": at line m draw up to K completions of the prefix; one that
passes all unit tests accepts it. Rounds are deterministic: each response in flight waits for one probe; a round
draws up to `draw` completions for every waiting probe in one batch per completer, judges prefix + completion, and
lets every search go on as far as the answers carry it.

What differs from the paper:
  - a probe stops at the first completion that passes. The answer is the one all K would give;
  - equal probes (problem, prefix ids, completer) share their completions;
  - a program known to pass proves every prefix it begins with, whatever the line: the problem's own passing
    responses, and the first passing completion of the response's earlier probes. Such probes draw nothing;
  - neutral lines are not asked about (`psgpo.labeling.search`).

Nothing in the result depends on `draw` or `in_flight` but what early stopping costs: random numbers come from a hash of
(seed, problem, prefix ids, completer, draw number), and a probe's cost is booked on the first response, in the order
given, that asked for it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.jsonl import write_jsonl
from psgpo.labeling.collect import Grader, Progress, grade_programs
from psgpo.labeling.costs import LabelUsage
from psgpo.labeling.identity import tokenizer_fingerprint
from psgpo.labeling.journal import Journal, ProbeDraws, Round
from psgpo.labeling.prefixes import CutResponse, cut_response
from psgpo.labeling.request import check_request, journal_header, place
from psgpo.labeling.search import STRATEGIES, Search, last_solvable_line, line_labels
from psgpo.labeling.splice_policy import Surprise, splice_responses
from psgpo.lines import Tokenizer, TokenText, extract_code
from psgpo.records import LineLabels, Probe, Problem, Response
from psgpo.seeds import derive_seed

if TYPE_CHECKING:  # the sampler's package loads torch; nothing here needs it
    from psgpo.sampling import Sampler

MIXTURE = "*"
"""Completer of probes that all checkpoints draw for in turn."""

_Key = tuple[str, str, tuple[int, ...]]
"""Problem id, completer, response ids of the prefix: what makes two probes equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelling:
    """The labels, in the order of the responses, and what they cost."""

    labels: list[LineLabels]
    usage: LabelUsage


@dataclass(slots=True)
class _Outcome:
    """What is known about one probe."""

    drawn: int = 0
    passed: int = 0
    tokens: int = 0
    executions: int = 0
    proof: tuple[int, ...] | None = None

    def add(self, draws: ProbeDraws) -> None:
        self.drawn += draws.drawn
        self.passed += draws.passed
        self.tokens += draws.tokens
        self.executions += draws.executions
        if self.proof is None:
            self.proof = draws.proof


@dataclass(slots=True)
class _Searching:
    """One failed response on its way through the search."""

    number: int
    """Position in the list of responses."""
    cut: CutResponse
    completer: str
    proved: int
    """Length in tokens of the longest prefix that a passing program begins with."""
    steps: Search
    line: int = 0
    """The line asked about; 0 when the search is over."""
    last_solvable: int = 0
    asked: dict[int, _Key] = field(default_factory=dict)
    """Line to probe, for lines that completions had to answer, in the order asked."""
    questions: int = 0
    known: int = 0
    without_room: int = 0

    def key(self, line: int) -> _Key:
        return self.cut.response.problem_id, self.completer, self.cut.prefix(line)


def label_responses(
    responses: Sequence[Response],
    problems: Iterable[Problem],
    *,
    samplers: Mapping[str, Sampler],
    tokenizer: Tokenizer,
    sandbox: Grader,
    settings: LabelSettings,
    sampling: SamplingSettings,
    seed: int,
    journal: Path | str,
    progress: Progress | None = None,
    surprise: Surprise | None = None,
) -> Labelling:
    """Label every line of every response; see the module's head for how.

    Args:
        responses: judged responses; order fixes the order of the result. Passing ones are +1 without search.
        problems: at least those the responses answer.
        samplers: checkpoint name to sampler, in training order (`completer = "last"` is the last of them).
        tokenizer: the one all checkpoints share.
        sandbox: judges programs.
        settings: strategy, K, draw, completer, in_flight.
        sampling: how completions are drawn; `max_new_tokens` bounds prefix and completion together.
        seed: of the run.
        journal: file that makes the run resumable; see `psgpo.labeling.journal`.
        progress: called with (responses labelled, responses in all).
        surprise: the policy's surprise at its own tokens, for the strategy `splice`; see `splice_responses`.

    Raises:
        UserError: a response's problem, checkpoint or verdict is missing, the tokenizer is another one, the journal
            belongs to another labelling, or the sandbox cannot judge.
    """
    if settings.strategy == "splice":
        labels, usage = splice_responses(
            responses,
            problems,
            samplers=samplers,
            tokenizer=tokenizer,
            sandbox=sandbox,
            settings=settings,
            sampling=sampling,
            seed=seed,
            journal=journal,
            progress=progress,
            surprise=surprise,
        )
        return Labelling(labels=labels, usage=usage)
    by_id = {problem.id: problem for problem in problems}
    check_request(responses, by_id, list(samplers), settings)
    token_text = TokenText(tokenizer)
    cuts = [cut_response(response, token_text) for response in responses]
    header = journal_header(responses, by_id, list(samplers), settings, sampling, seed)
    with Journal(journal, header) as opened:
        run = _Run(cuts, by_id, samplers, token_text, sandbox, settings, sampling, seed, opened, progress)
        run.play()
    return run.result()


def write_labels(path: Path | str, labels: Iterable[LineLabels], *, tokenizer: Tokenizer | None = None) -> int:
    """Write labels by problem id, checkpoint and index, whatever order they were made in; return how many.

    Args:
        tokenizer: whose ids the labels hold; its fingerprint is written into each. None leaves what is there.
    """
    ordered = sorted(labels, key=lambda label: place(label.response))
    if tokenizer is not None:
        fingerprint = tokenizer_fingerprint(tokenizer)
        ordered = [replace(label, tokenizer=fingerprint) for label in ordered]
    return write_jsonl(path, (label.to_json() for label in ordered))


class _Run:
    """The rounds of one labelling."""

    def __init__(
        self,
        cuts: list[CutResponse],
        problems: Mapping[str, Problem],
        samplers: Mapping[str, Sampler],
        token_text: TokenText,
        sandbox: Grader,
        settings: LabelSettings,
        sampling: SamplingSettings,
        seed: int,
        journal: Journal,
        progress: Progress | None,
    ) -> None:
        self._cuts, self._problems, self._samplers = cuts, problems, samplers
        self._token_text, self._sandbox = token_text, sandbox
        self._settings, self._sampling, self._seed = settings, sampling, seed
        self._journal, self._progress = journal, progress
        self._names = list(samplers)
        self._outcomes: dict[_Key, _Outcome] = {}
        self._searches: dict[int, _Searching] = {}
        self._rounds: list[Round] = []
        self._passing: dict[str, list[tuple[int, ...]]] = {}
        for cut in cuts:
            if cut.response.verdict.passed:
                self._passing.setdefault(cut.response.problem_id, []).append(cut.own_ids)

    def play(self) -> None:
        """Search all failed responses, `in_flight` of them side by side."""
        waiting = deque(n for n, cut in enumerate(self._cuts) if not cut.response.verdict.passed)
        done = len(self._cuts) - len(waiting)
        active: list[_Searching] = []
        while True:
            while waiting and len(active) < self._settings.in_flight:
                search = self._start(waiting.popleft())
                if search.line:
                    active.append(search)
                else:
                    done += 1
            if self._progress is not None:
                self._progress(done, len(self._cuts))
            if not active:
                return
            self._play_round(active)
            for search in active:
                self._advance(search)
            done += sum(not search.line for search in active)
            active = [search for search in active if search.line]

    def _start(self, number: int) -> _Searching:
        cut = self._cuts[number]
        completers = {"own": cut.response.checkpoint, "last": self._names[-1], "mixture": MIXTURE}
        proofs = self._passing.get(cut.response.problem_id, [])
        search = _Searching(
            number=number,
            cut=cut,
            completer=completers[self._settings.completer],
            proved=max((_common_prefix(cut.own_ids, proof) for proof in proofs), default=0),
            steps=STRATEGIES[self._settings.strategy](len(cut.code)),
        )
        self._searches[number] = search
        self._send(search, None)
        self._advance(search)
        return search

    def _send(self, search: _Searching, answer: bool | None) -> None:
        """Hand the search an answer (None: its first step) and take its next question."""
        try:
            asked = next(search.steps) if answer is None else search.steps.send(answer)
        except StopIteration as stop:
            search.line = 0
            search.last_solvable = last_solvable_line(stop.value, search.cut.neutral)
        else:
            search.line = search.cut.code[asked - 1]
            search.questions += 1

    def _advance(self, search: _Searching) -> None:
        """Answer the search for as long as it needs no more completions."""
        while search.line:
            prefix = search.cut.prefix(search.line)
            if len(prefix) <= search.proved:
                search.known += 1
                self._send(search, True)
            elif len(prefix) >= self._sampling.max_new_tokens:
                search.without_room += 1
                self._send(search, False)
            else:
                key = search.asked.setdefault(search.line, search.key(search.line))
                outcome = self._outcomes.get(key, _Outcome())
                if not outcome.passed and outcome.drawn < self._settings.k:
                    return
                if outcome.proof is not None:
                    proof = prefix + outcome.proof
                    search.proved = max(search.proved, _common_prefix(search.cut.own_ids, proof))
                self._send(search, outcome.passed > 0)

    def _play_round(self, active: Sequence[_Searching]) -> None:
        """One batch for every distinct waiting probe, from the journal or from the samplers."""
        askers: dict[_Key, _Searching] = {}
        for search in active:
            askers.setdefault(search.key(search.line), search)
        played = self._journal.next_recorded([(search.number, search.line) for search in askers.values()])
        if played is None:
            played = self._draw(askers)
            self._journal.append(played)
        self._rounds.append(played)
        for key, draws in zip(askers, played.probes, strict=True):
            self._outcomes.setdefault(key, _Outcome()).add(draws)

    def _draw(self, askers: Mapping[_Key, _Searching]) -> Round:
        """Draw and judge up to `draw` completions for each probe."""
        started = time.process_time()
        rows: list[tuple[_Key, int]] = []  # a probe and the number of the draw
        for key in askers:
            drawn = self._outcomes[key].drawn if key in self._outcomes else 0
            rows += [(key, number) for number in range(drawn, min(self._settings.k, drawn + self._settings.draw))]
        completions = self._sample(rows, askers)
        texts = [self._token_text.decode((*key[2], *ids)) for (key, _), ids in zip(rows, completions, strict=True)]
        programs = [extract_code(text) for text in texts]
        verdicts = grade_programs(
            self._sandbox, [(p, self._problems[key[0]]) for p, (key, _) in zip(programs, rows, strict=True)]
        )
        judged: dict[_Key, list[int]] = {key: [] for key in askers}
        for row, (key, _) in enumerate(rows):
            judged[key].append(row)
        probes = []
        for key, search in askers.items():
            passing = [row for row in judged[key] if verdicts[row].passed]
            probes.append(
                ProbeDraws(
                    response=search.number,
                    line=search.line,
                    drawn=len(judged[key]),
                    passed=len(passing),
                    tokens=sum(len(completions[row]) for row in judged[key]),
                    executions=len({programs[row] for row in judged[key]}),
                    proof=completions[passing[0]] if passing else None,
                )
            )
        fresh = {id(verdict): verdict for verdict in verdicts if not verdict.cached}  # shared by equal programs
        return Round(
            probes=tuple(probes),
            cpu_seconds=time.process_time() - started,
            sandbox_cpu_seconds=sum(verdict.cpu_seconds for verdict in fresh.values()),
        )

    def _sample(self, rows: Sequence[tuple[_Key, int]], askers: Mapping[_Key, _Searching]) -> list[tuple[int, ...]]:
        """Ids of one completion per row, one batch per checkpoint; the end-of-sequence token is kept."""
        by_name: dict[str, list[int]] = {}
        for row, (key, number) in enumerate(rows):
            name = self._names[number % len(self._names)] if key[1] == MIXTURE else key[1]
            by_name.setdefault(name, []).append(row)
        sampled: dict[int, tuple[int, ...]] = {}
        for name, members in by_name.items():
            completions = self._samplers[name].sample(
                [askers[rows[row][0]].cut.response.prompt_ids + rows[row][0][2] for row in members],
                seeds=[derive_seed(self._seed, "completion", *rows[row][0], rows[row][1]) for row in members],
                temperature=self._sampling.temperature,
                top_p=self._sampling.top_p,
                max_new_tokens=[self._sampling.max_new_tokens - len(rows[row][0][2]) for row in members],
            )
            sampled |= {row: tuple(c.token_ids) for row, c in zip(members, completions, strict=True)}
        return [sampled[row] for row in range(len(rows))]

    def result(self) -> Labelling:
        """Labels in the order of the responses; each probe's cost goes to the first response that asked for it."""
        paid: set[_Key] = set()
        labels = [self._labels(number, paid) for number in range(len(self._cuts))]
        searches = self._searches.values()
        asked = sum(len(search.asked) for search in searches)
        outcomes = self._outcomes.values()
        usage = LabelUsage(
            k=self._settings.k,
            rounds=len(self._rounds),
            probes_asked=sum(search.questions for search in searches),
            probes_drawn=len(outcomes),
            probes_shared=asked - len(outcomes),
            probes_known=sum(search.known for search in searches),
            probes_without_room=sum(search.without_room for search in searches),
            completions=sum(outcome.drawn for outcome in outcomes),
            tokens=sum(outcome.tokens for outcome in outcomes),
            executions=sum(outcome.executions for outcome in outcomes),
            full_completions=self._settings.k * len(outcomes),
            cpu_seconds=sum(played.cpu_seconds for played in self._rounds),
            sandbox_cpu_seconds=sum(played.sandbox_cpu_seconds for played in self._rounds),
        )
        return Labelling(labels=labels, usage=usage)

    def _labels(self, number: int, paid: set[_Key]) -> LineLabels:
        cut = self._cuts[number]
        search = self._searches.get(number)
        asked = {} if search is None else search.asked
        booked = [self._outcomes[key] for key in asked.values() if key not in paid]
        paid.update(asked.values())
        last = len(cut.lines) if search is None else search.last_solvable
        return LineLabels(
            response=cut.response,
            line_ends=cut.line_ends,
            labels=line_labels(last, cut.neutral),
            last_solvable=last,
            strategy=self._settings.strategy,
            probes=tuple(
                Probe(line=line, drawn=self._outcomes[key].drawn, passed=self._outcomes[key].passed)
                for line, key in asked.items()
            ),
            completions=sum(outcome.drawn for outcome in booked),
            tokens=sum(outcome.tokens for outcome in booked),
            executions=1 + sum(outcome.executions for outcome in booked),
        )


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    length = min(len(left), len(right))
    return next((place for place in range(length) if left[place] != right[place]), length)
