"""Line labels for many responses at once: searches wait side by side, their rollouts share every batch.

PSGPO (arXiv 2410.17621), section "collecting labels": at line m draw up to K completions of the prefix; one that
passes all unit tests accepts it. Rounds are deterministic: each response in flight waits for one probe; a round
draws up to `draw` completions for every waiting probe in one batch per completer, judges prefix + completion, and
lets every search go on as far as the answers carry it.

Responses in flight fly in two lanes, whole problems in one or the other. While the programs of one lane's round are
judged (in the sandbox's processes), the other lane's round is generated. Lanes share nothing, and rounds start and end
in turn, so what a round draws follows from the rounds before it alone, whatever took how long.

What differs from the paper:
  - a probe stops at the first completion that passes. The answer is the one all K would give;
  - equal probes (problem, prefix ids, completer) share their completions;
  - a program known to pass proves every prefix it begins with, whatever the line: the problem's own passing
    responses, and the first passing completion of the response's earlier probes. Such probes draw nothing;
  - neutral lines are not asked about (`psgpo.labeling.search`).

Nothing in the labels depends on `draw`, `in_flight`, `fill` or the lanes, but those of `omega`, whose tree knows more
or less at the time of a question. A probe's cost is booked on the first response, in the order given, that asked it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.jsonl import write_jsonl
from psgpo.labeling.collect import Progress, QueueingGrader
from psgpo.labeling.costs import LabelUsage
from psgpo.labeling.drawing import MIXTURE, Drawer, Drawn, Wanted
from psgpo.labeling.identity import tokenizer_fingerprint
from psgpo.labeling.journal import MEASURES, Journal, Round
from psgpo.labeling.prefixes import CutResponse, cut_response
from psgpo.labeling.request import check_request, journal_header, place
from psgpo.labeling.rollouts import Key, Outcome, Searching, Tree, UnknownError
from psgpo.labeling.search import Answer, Finding, last_solvable_line, line_labels, spread_labels
from psgpo.labeling.splice_policy import Surprise, splice_responses
from psgpo.labeling.strategies import STRATEGIES
from psgpo.lines import Tokenizer, TokenText
from psgpo.records import LineLabels, Probe, Problem, Response

if TYPE_CHECKING:  # the sampler's package loads torch; nothing here needs it
    from psgpo.sampling import Sampler

LANES = 2
"""Rounds on their way at the same time: one is generated while the others are judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelling:
    """The labels, in the order of the responses, and what they cost."""

    labels: list[LineLabels]
    usage: LabelUsage


@dataclass(slots=True)
class _Lane:
    """Responses whose rounds take turns with the other lanes' rounds."""

    size: int
    """Responses in flight, at most."""
    waiting: deque[int] = field(default_factory=deque)
    """Failed responses that have not started."""
    active: list[Searching] = field(default_factory=list)
    open: Drawn | Round | None = None
    """The round on its way, or recorded by an earlier run."""


def label_responses(
    responses: Sequence[Response],
    problems: Iterable[Problem],
    *,
    samplers: Mapping[str, Sampler],
    tokenizer: Tokenizer,
    sandbox: QueueingGrader,
    settings: LabelSettings,
    sampling: SamplingSettings,
    seed: int,
    journal: Path | str,
    progress: Progress | None = None,
    surprise: Surprise | None = None,
) -> Labelling:
    """Label every line of every response; see the module's head for how.

    Args:
        responses: judged responses; order fixes the order of the result. Passing ones are +1 without search; with
            `soft` on their last code line, and 0 before it: nobody measured how often those prefixes pass.
        problems: at least those the responses answer.
        samplers: checkpoint name to sampler, in training order (`completer = "last"` is the last of them).
        tokenizer: the one all checkpoints share.
        sandbox: judges programs.
        settings: strategy, K, draw, completer, in_flight, fill.
        sampling: how completions are drawn; `max_new_tokens` bounds prefix and completion together.
        seed: of the run.
        journal: file that makes the run resumable; see `psgpo.labeling.journal`.
        progress: called with (responses labelled, responses in all).
        surprise: the policy's surprise at its own tokens, for strategies with a prior: `splice` (see
            `splice_responses`) and `noisy`, whose prior is flat without it.

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
    prior = surprise if STRATEGIES[settings.strategy].prior else None
    if prior is not None:
        header["surprise"] = True
    with Journal(journal, header) as opened:
        drawer = Drawer(samplers, by_id, token_text, sandbox, sampling, seed)
        run = _Run(cuts, list(samplers), drawer, settings, sampling, opened, progress)
        run.play(opened.surprise(lambda: _line_surprise(cuts, prior)) if prior is not None else {})
    return run.result()


def _line_surprise(cuts: Sequence[CutResponse], surprise: Surprise) -> dict[int, list[float]]:
    """Summed surprise of every code line, by position of the failed response."""
    failed = [number for number, cut in enumerate(cuts) if not cut.response.verdict.passed and cut.code]
    values = surprise([cuts[number].response for number in failed]) if failed else []
    return {
        number: [sum(line) for line in cuts[number].by_line(value)]
        for number, value in zip(failed, values, strict=True)
    }


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
        names: list[str],
        drawer: Drawer,
        settings: LabelSettings,
        sampling: SamplingSettings,
        journal: Journal,
        progress: Progress | None,
    ) -> None:
        self._cuts, self._names, self._drawer = cuts, names, drawer
        self._settings, self._sampling = settings, sampling
        self._journal, self._progress = journal, progress
        self._strategy = STRATEGIES[settings.strategy]
        self._outcomes: dict[Key, Outcome] = {}
        self._trees: dict[tuple[str, str], Tree] = {}
        self._searches: dict[int, Searching] = {}
        self._rounds: list[Round] = []
        self._passing: dict[str, list[tuple[int, ...]]] = {}
        for cut in cuts:
            if cut.response.verdict.passed:
                self._passing.setdefault(cut.response.problem_id, []).append(cut.own_ids)

    def play(self, surprise: Mapping[int, Sequence[float]]) -> None:
        """Search all failed responses, `in_flight` of them side by side.

        Args:
            surprise: summed per code line, by position of the response; for strategies with a prior.
        """
        lanes = self._lanes()
        while True:
            for lane in lanes:
                if lane.open is not None:
                    self._finish(lane)
                lane.active = [search for search in lane.active if search.question]
                while lane.waiting and len(lane.active) < lane.size:
                    search = self._start(lane.waiting.popleft(), surprise)
                    if search.question:
                        lane.active.append(search)
                if lane.active:
                    self._begin(lane)
                if self._progress is not None:
                    left = sum(len(other.waiting) + len(other.active) for other in lanes)
                    self._progress(len(self._cuts) - left, len(self._cuts))
            if not any(lane.active for lane in lanes):
                return

    def _lanes(self) -> list[_Lane]:
        """Problems in turn to one lane and the other, so that nothing a lane asks can matter to another."""
        count = min(LANES, self._settings.in_flight)
        lanes = [_Lane((self._settings.in_flight + number) // count) for number in range(count)]
        lane_of: dict[str, int] = {}
        for number, cut in enumerate(self._cuts):
            if not cut.response.verdict.passed:
                chosen = lane_of.setdefault(cut.response.problem_id, len(lane_of) % count)
                lanes[chosen].waiting.append(number)
                if self._strategy.tree:
                    tree = self._trees.setdefault((cut.response.problem_id, self._completer(cut)), Tree())
                    for line in cut.code:
                        tree.mark(cut.prefix(line))
        return lanes

    def _completer(self, cut: CutResponse) -> str:
        chosen = {"own": cut.response.checkpoint, "last": self._names[-1], "mixture": MIXTURE}
        return chosen[self._settings.completer]

    def _start(self, number: int, surprise: Mapping[int, Sequence[float]]) -> Searching:
        cut = self._cuts[number]
        search = Searching(
            number=number,
            cut=cut,
            completer=self._completer(cut),
            proved=0,
            steps=self._strategy.start(len(cut.code), self._settings, surprise.get(number)),
        )
        for proof in self._passing.get(cut.response.problem_id, []):
            search.learn(proof)
        self._searches[number] = search
        search.send(None)
        self._advance(search)
        return search

    def _advance(self, search: Searching) -> None:
        """Answer the search for as long as it needs no more completions."""
        try:
            while search.question and (answer := self._answer(search)) is not None:
                search.send(answer)
        except UnknownError as error:
            search.give_up(str(error))

    def _answer(self, search: Searching) -> Answer | None:
        question = search.question
        assert question is not None
        prefix = search.cut.prefix(search.line)
        if question.until_pass and len(prefix) <= search.proved:
            search.known += 1
            return Answer(1, 0, certain=True)
        if len(prefix) >= self._sampling.max_new_tokens:
            search.without_room += 1
            return Answer(0, 0, certain=True)
        key = search.key()
        passed, failed = self._seen_elsewhere(key)
        outcome = self._outcomes.get(key, Outcome())
        if question.draws == 0:
            return outcome.answer(question, passed, failed)
        if key in self._outcomes:
            search.asked.setdefault(search.line, key)
        answer = outcome.answer(question, passed, failed)
        if answer is None:
            search.asked.setdefault(search.line, key)
        elif key not in self._outcomes:
            search.known += 1
        if answer is not None:
            search.reused += passed + failed
            if answer.solvable and outcome.proof is not None:
                search.learn(prefix + outcome.proof)
        return answer

    def _seen_elsewhere(self, key: Key) -> tuple[int, int]:
        """(passed, failed) of completions drawn for shorter prefixes that count for this one."""
        return self._trees[key[:2]].seen(key[2]) if self._strategy.tree else (0, 0)

    def _begin(self, lane: _Lane) -> None:
        """The lane's next round: a batch for every distinct waiting probe, from the journal or from the samplers."""
        askers: dict[Key, Searching] = {}
        wanted: dict[Key, int] = {}
        for search in lane.active:
            assert search.question is not None
            key = search.key()
            askers.setdefault(key, search)
            wanted[key] = max(wanted.get(key, 0), search.question.draws - sum(self._seen_elsewhere(key)))
        lane.open = self._journal.next_recorded([(search.number, search.line) for search in askers.values()])
        if lane.open is None:
            lane.open = self._drawer.start(
                [
                    Wanted(
                        key=key,
                        response=search.number,
                        line=search.line,
                        prompt_ids=search.cut.response.prompt_ids,
                        numbers=self._numbers(key, wanted),
                    )
                    for key, search in askers.items()
                ]
            )

    def _numbers(self, key: Key, wanted: Mapping[Key, int]) -> range:
        """Draws of a probe in this round: `draw`, or as many as fill the completer's batch where few probes wait."""
        drawn = self._outcomes[key].drawn if key in self._outcomes else 0
        count = self._settings.draw
        if self._settings.fill:
            rivals = sum(other[1] == key[1] for other in wanted)
            batches = len(self._names) if key[1] == MIXTURE else 1
            count = max(count, batches * self._sampling.batch_size // rivals)
        return range(drawn, min(wanted[key], drawn + count))

    def _finish(self, lane: _Lane) -> None:
        """End the lane's round: verdicts, journal, answers."""
        played = lane.open
        assert played is not None
        if isinstance(played, Drawn):
            played = self._drawer.finish(played, keep=self._strategy.tree)
            self._journal.append(played)
        lane.open = None
        self._rounds.append(played)
        for probe in played.probes:
            cut = self._cuts[probe.response]
            key = (cut.response.problem_id, self._completer(cut), cut.prefix(probe.line))
            self._outcomes.setdefault(key, Outcome()).add(probe)
            for offset, completion in enumerate(probe.completions):
                if offset in probe.refused:
                    continue
                self._trees[key[:2]].add(key[2], completion, offset in probe.passed)
        for search in lane.active:
            self._advance(search)

    def result(self) -> Labelling:
        """Labels in the order of the responses; each probe's cost goes to the first response that asked for it."""
        paid: set[Key] = set()
        labels = [self._labels(number, paid) for number in range(len(self._cuts))]
        searches = self._searches.values()
        asked = sum(len(search.asked) for search in searches)
        outcomes = self._outcomes.values()
        completions = sum(outcome.drawn for outcome in outcomes)
        usage = LabelUsage(
            k=self._settings.k,
            rounds=len(self._rounds),
            probes_asked=asked + sum(search.known + search.without_room for search in searches),
            probes_drawn=len(outcomes),
            probes_shared=asked - len(outcomes),
            probes_known=sum(search.known for search in searches),
            probes_without_room=sum(search.without_room for search in searches),
            completions=completions,
            tokens=sum(outcome.tokens for outcome in outcomes),
            executions=sum(outcome.executions for outcome in outcomes),
            refused=sum(outcome.refused for outcome in outcomes),
            full_completions=self._settings.k * len(outcomes) if self._strategy.uses_k else completions,
            reused=sum(search.reused for search in searches),
            **{name: sum(getattr(played, name) for played in self._rounds) for name in MEASURES},
        )
        return Labelling(labels=labels, usage=usage)

    def _labels(self, number: int, paid: set[Key]) -> LineLabels:
        cut = self._cuts[number]
        search = self._searches.get(number)
        asked = {} if search is None else search.asked
        booked = [self._outcomes[key] for key in asked.values() if key not in paid]
        paid.update(asked.values())
        finding = Finding(len(cut.code)) if search is None else search.finding
        last = last_solvable_line(finding.last, cut.neutral) if search else len(cut.lines)
        given = finding.labels
        if search is None and self._strategy.rates:
            given = (*(0.0,) * (len(cut.code) - 1), 1.0)[: len(cut.code)]
        return LineLabels(
            response=cut.response,
            line_ends=cut.line_ends,
            labels=line_labels(last, cut.neutral) if given is None else spread_labels(given, cut.neutral),
            last_solvable=last,
            strategy=self._settings.strategy,
            probes=tuple(
                Probe(line=line, drawn=self._outcomes[key].drawn, passed=self._outcomes[key].passed)
                for line, key in asked.items()
            ),
            completions=sum(outcome.drawn for outcome in booked),
            tokens=sum(outcome.tokens for outcome in booked),
            executions=1 + sum(outcome.executions for outcome in booked),
            guessed=search is not None and self._settings.strategy in ("noisy", "noisy-soft"),
            unlabelled="" if search is None else search.unlabelled,
        )
