"""The strategy `splice`: line labels of a policy's responses, from passing programs of the same problem.

Per problem:

    pool    its distinct passing responses, and with `labels.references` its reference solution. Where there are none
            and some response failed: programs that begin like one failed response and end like another, then
            completions of prefixes (`psgpo.labeling.splice_pool`)
    splice  every failed response against the pool. The embedded benchmark's programs share names and layout, so lines
            are joined (`psgpo.labeling.suffixes`): the last prefix that some suffix completes, and that the completed
            program needs, is m*. Other programs: `psgpo.labeling.splice_statements`, and the prior is left out
    prior   where the pool stays empty: P(first wrong line) from the policy's surprise (`psgpo.labeling.prior`), fitted
            on the responses that splicing did label; a line is labelled where that is sure, else it is 0. How sure it
            must be is chosen by cross-validation on the same responses

+1 after a splice is proof: a program that begins so, and needs these lines, passed. -1 is absence of proof against
every suffix of the pool. By the prior both are guesses. Problems are worked on in groups, in two passes: the second
draws completions for problems without a pool where a prior fitted on the group's first pass expects most of them. So
what is drawn depends on `in_flight`, and what the prior labels on which responses are labelled together (a shard, a
unit). The journal holds one record per finished group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.errors import UserError
from psgpo.labeling.collect import Grader, Progress, grade_programs
from psgpo.labeling.costs import LabelUsage
from psgpo.labeling.group_journal import GroupJournal
from psgpo.labeling.prefixes import CutResponse, cut_response
from psgpo.labeling.prior import Features, choose_sure, fit_prior, line_features, posterior, sure_labels
from psgpo.labeling.request import check_request, journal_header
from psgpo.labeling.search import last_solvable_line, line_labels
from psgpo.labeling.splice_pool import Attempt, PoolSearch
from psgpo.labeling.splice_statements import FailedProgram, ProvedLines, prove_lines
from psgpo.labeling.suffixes import Reader, Spliced, done_share, same_start, suffix_search
from psgpo.lines import Tokenizer, TokenText, code_lines, extract_code
from psgpo.records import LineLabels, Problem, Response

if TYPE_CHECKING:  # the sampler's package loads torch; nothing here needs it
    from psgpo.sampling import Sampler

Surprise = Callable[[Sequence[Response]], Sequence[Sequence[float]]]
"""Per response, -log p of each of its token ids under the policy that wrote it."""

LINE_BY_LINE = ("opchain",)
"""Sources of problems whose programs are joined by lines."""
TARGET = 0.97
"""Share of the lines labelled by the prior that should be right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What splicing found out about one failed response."""

    response: int
    """Position in the list that is labelled."""
    last: int | None
    """m* in lines; None where no program of the problem passes."""
    completions: int
    tokens: int
    executions: int
    labels: tuple[float, ...] | None = None
    """Of every line, where whole statements were spliced; only proofs."""
    refused: int = 0
    done: float | None = None
    """See `LineLabels.done`."""


def splice_responses(
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
) -> tuple[list[LineLabels], LabelUsage]:
    """Label every line of every response; arguments and errors as `label_responses`.

    Args:
        surprise: None leaves the lines of problems that nobody solves without labels.
    """
    by_id = {problem.id: problem for problem in problems}
    check_request(responses, by_id, list(samplers), settings)
    text = TokenText(tokenizer)
    cuts = [cut_response(response, text) for response in responses]
    run = _Run(cuts, by_id, samplers, text, sandbox, settings, sampling, seed, surprise)
    header = journal_header(responses, by_id, list(samplers), settings, sampling, seed)
    header |= {"labels.hunt": settings.hunt, "labels.crossover": settings.crossover}
    header |= {"labels.references": settings.references, "prior": surprise is not None}
    if settings.halving:  # absent from journals that older versions began
        header |= {"labels.halving": True}
        if responses and all(by_id[response.problem_id].source not in LINE_BY_LINE for response in responses):
            raise UserError("labels.halving is for programs joined by lines, the embedded benchmark's; leave it out")
    found: list[Found] = []
    seconds = [0.0, 0.0]
    groups = list(run.groups())
    with GroupJournal(Path(journal), header) as recorded:
        for number, group in enumerate(groups):
            record = recorded.next(group)
            if record is None:
                started = time.process_time()
                record = {"kind": "group", "problems": group, "found": [_to_json(item) for item in run.work(group)]}
                record |= {"cpu_seconds": round(time.process_time() - started, 6), "sandbox": round(run.taken(), 6)}
                recorded.append(record)
            found += [_from_json(item) for item in record["found"]]
            seconds = [seconds[0] + record["cpu_seconds"], seconds[1] + record["sandbox"]]
            if progress is not None:
                progress(number + 1, len(groups))
    return run.labels(found), _usage(found, settings, len(groups), seconds)


class _Run:
    def __init__(
        self,
        cuts: list[CutResponse],
        problems: Mapping[str, Problem],
        samplers: Mapping[str, Sampler],
        text: TokenText,
        sandbox: Grader,
        settings: LabelSettings,
        sampling: SamplingSettings,
        seed: int,
        surprise: Surprise | None,
    ) -> None:
        self._cuts, self._problems, self._samplers, self._text = cuts, problems, samplers, text
        self._sandbox, self._settings, self._sampling, self._seed = sandbox, settings, sampling, seed
        self._surprise = surprise
        self._members: dict[str, list[int]] = {}
        for number, cut in enumerate(cuts):
            self._members.setdefault(cut.response.problem_id, []).append(number)
        self._sandbox_seconds = 0.0

    def groups(self) -> Iterator[list[str]]:
        """Problems that are worked on together: as many as fill `in_flight` responses."""
        group: list[str] = []
        for problem_id in self._members:
            group.append(problem_id)
            if sum(len(self._members[name]) for name in group) >= self._settings.in_flight:
                yield group
                group = []
        if group:
            yield group

    def taken(self) -> float:
        """CPU seconds of the programs judged since the last call."""
        seconds, self._sandbox_seconds = self._sandbox_seconds, 0.0
        return seconds

    def work(self, group: Sequence[str]) -> list[Found]:
        pools = {name: self._passing(name) for name in group}
        failed = {name: [n for n in self._members[name] if not self._cuts[n].response.verdict.passed] for name in group}
        referred = self._add_references({name: pools[name] for name in group if failed[name]})
        search = PoolSearch(
            self._cuts,
            self._problems,
            self._samplers,
            self._text,
            self._settings,
            self._sampling,
            self._seed,
            self._grade,
        )
        attempts = {name: search.attempt(name, failed[name]) for name in group if failed[name] and not pools[name]}
        spliced = self._splice([n for name in group if pools[name] for n in failed[name]], pools, None)
        search.cross(list(attempts.values()), self._settings.crossover)
        unsolved = [attempt for attempt in attempts.values() if not attempt.pool]
        if unsolved and self._settings.hunt:
            search.hunt(unsolved, self._chances({n: one.last for n, one in spliced.items()}, unsolved))
        drawn = {name: attempt.pool for name, attempt in attempts.items() if attempt.pool}
        spliced |= self._splice([n for name in drawn for n in failed[name]], drawn, search.proved)
        pools |= drawn
        proofs = self._prove([n for name in group for n in failed[name]], pools)
        found = []
        for name in group:
            for place, number in enumerate(failed[name]):
                paid = attempts.get(name) if place == 0 else None
                one = self._found(number, paid, spliced.get(number), proofs.get(number), pools[name])
                found.append(replace(one, executions=one.executions + (place == 0 and name in referred)))
        return found

    def _prove(self, numbers: Sequence[int], pools: Mapping[str, list[str]]) -> dict[int, ProvedLines]:
        """Proofs of the responses whose programs are spliced by statements."""
        chosen = [number for number in numbers if not self._by_lines(number)]
        programs = [
            FailedProgram(
                problem=self._problems[name := self._cuts[number].response.problem_id],
                code=extract_code(self._cuts[number].response.text),
                pool=pools.get(name, []),
            )
            for number in chosen
        ]
        proved = prove_lines(programs, self._sandbox)
        self._sandbox_seconds += sum(item.cpu_seconds for item in proved)
        return dict(zip(chosen, proved, strict=True))

    def _by_lines(self, number: int) -> bool:
        return self._problems[self._cuts[number].response.problem_id].source in LINE_BY_LINE

    def _found(
        self,
        number: int,
        paid: Attempt | None,
        spliced: Spliced | None,
        proved: ProvedLines | None,
        pool: Sequence[str],
    ) -> Found:
        """What a search cost (`paid`) is booked on the first response that needed it."""
        line, judged = (spliced.last, spliced.judged) if spliced else (None, 0)
        if proved:
            line, judged = proved.last, proved.executions
        return Found(
            response=number,
            last=line,
            completions=paid.completions if paid else 0,
            tokens=paid.tokens if paid else 0,
            executions=1 + judged + (paid.executions if paid else 0),
            labels=proved.labels if proved else None,
            refused=paid.refused if paid else 0,
            done=done_share([line.text for line in self._cuts[number].lines], spliced, pool) if spliced else None,
        )

    def _chances(self, last: Mapping[int, int], unsolved: Sequence[Attempt]) -> dict[int, list[float]]:
        """P(first wrong code line) of the responses to unsolved problems, from what is known in their group."""
        asked = [number for attempt in unsolved for number in attempt.numbers]
        features = self._features([*last, *asked])
        theta = fit_prior(*self._examples(features, last)[:2])
        return {number: posterior(features[number], theta).tolist() for number in asked if number in features}

    def _features(self, numbers: Sequence[int]) -> dict[int, Features]:
        """Per response that has code lines; nothing without the policy's surprise."""
        numbers = [number for number in numbers if self._cuts[number].code]
        if self._surprise is None or not numbers:
            return {}
        values = self._surprise([self._cuts[number].response for number in numbers])
        return {n: line_features(self._cuts[n].by_line(value)) for n, value in zip(numbers, values, strict=True)}

    def _examples(
        self, features: Mapping[int, Features], last: Mapping[int, int]
    ) -> tuple[list[Features], list[int], list[str]]:
        """Features, index of the first wrong code line, and problem of the responses where that is known."""
        known = []
        for number, row in features.items():
            code = self._cuts[number].code
            if (
                self._by_lines(number)
                and number in last
                and (wrong := sum(line <= last[number] for line in code)) < len(code)
            ):
                known.append((row, wrong, self._cuts[number].response.problem_id))
        return [row for row, _, _ in known], [wrong for _, wrong, _ in known], [name for _, _, name in known]

    def _passing(self, name: str) -> list[str]:
        programs = [
            extract_code(cut.response.text)
            for n in self._members[name]
            if (cut := self._cuts[n]).response.verdict.passed
        ]
        return list(dict.fromkeys(programs))

    def _add_references(self, pools: Mapping[str, list[str]]) -> set[str]:
        """Put every problem's reference solution that passes its tests into the pool; the problems whose was judged."""
        if not self._settings.references:
            return set()
        solutions = {name: self._problems[name].reference_solution for name in pools}
        known = [(text, name) for name, text in solutions.items() if text]
        for (text, name), right in zip(known, self._grade(known), strict=True):
            if right and text not in pools[name]:
                pools[name].append(text)
        return {name for _, name in known}

    def _splice(
        self, numbers: Sequence[int], pools: Mapping[str, list[str]], proved: Mapping[int, int] | None
    ) -> dict[int, Spliced]:
        """What splicing says of each response, all searched side by side.

        A start that a passing *response* shares is proved. Programs that were joined or drawn for this (`proved` is
        given then) begin with the failed ones' lines by construction: they count where they need them.
        """
        donors = {
            name: [[line.text for line in code_lines(program)] for program in pool] for name, pool in pools.items()
        }
        readers = {name: Reader.of(self._problems[name], pool) for name, pool in pools.items()}
        results: dict[int, Spliced] = {}
        waiting: dict[int, tuple[Any, list[str]]] = {}

        def advance(number: int, search: Any, answer: Any) -> None:
            try:
                waiting[number] = (search, search.send(answer))
            except StopIteration as stop:
                results[number] = stop.value

        for number in filter(self._by_lines, numbers):
            cut = self._cuts[number]
            pool = donors[cut.response.problem_id]
            lines = [line.text for line in cut.lines]
            if proved is None:
                above = max((same_start(lines, donor) for donor in pool), default=0)
            else:
                above = proved.get(number, 0)
            reader = readers[cut.response.problem_id]
            halving = self._settings.halving
            advance(number, suffix_search(lines, cut.neutral, pool, reader, above=above, halving=halving), None)
        while waiting:
            asked, ready = list(waiting.items()), dict(waiting)
            waiting.clear()
            items = [(program, self._cuts[n].response.problem_id) for n, (_, programs) in asked for program in programs]
            verdicts = iter(self._verdicts(items))
            for number, (search, programs) in ready.items():
                advance(number, search, [next(verdicts) for _ in programs])
        return results

    def _verdicts(self, items: Sequence[tuple[str, str]]) -> list[Any]:
        verdicts = grade_programs(self._sandbox, [(program, self._problems[name]) for program, name in items])
        fresh = {id(verdict): verdict for verdict in verdicts if not verdict.cached}
        self._sandbox_seconds += sum(verdict.cpu_seconds for verdict in fresh.values())
        return verdicts

    def _grade(self, items: Sequence[tuple[str, str]]) -> list[bool]:
        return [verdict.passed for verdict in self._verdicts(items)]

    def labels(self, found: Sequence[Found]) -> list[LineLabels]:
        """Labels in the order of the responses."""
        by_number = {item.response: item for item in found}
        guessed = self._guess({number: item.last for number, item in by_number.items()})
        return [self._label(number, by_number.get(number), guessed.get(number)) for number in range(len(self._cuts))]

    def _guess(self, found: Mapping[int, int | None]) -> dict[int, list[float]]:
        """Labels of the code lines of responses that splicing could not reach."""
        features = self._features(list(found))
        examples = self._examples(features, {number: last for number, last in found.items() if last is not None})
        theta, sure = fit_prior(*examples[:2]), choose_sure(*examples, target=TARGET)
        return {
            number: sure_labels(posterior(row, theta), sure)
            for number, row in features.items()
            if found[number] is None
        }

    def _label(self, number: int, item: Found | None, guess: list[float] | None) -> LineLabels:
        cut = self._cuts[number]
        total = len(cut.lines)
        labels: tuple[float, ...]
        if item is None:
            last, labels = total, line_labels(total, cut.neutral)
        elif item.labels is not None:
            last, labels = item.last or 0, item.labels
        elif item.last is not None:
            last = last_solvable_line(sum(line <= item.last for line in cut.code), cut.neutral)
            labels = line_labels(last, cut.neutral)
        else:
            by_line = dict(zip(cut.code, guess or [0.0] * len(cut.code), strict=True))
            labels = tuple(by_line.get(line, 0.0) for line in range(1, total + 1))
            last = max((line for line, label in by_line.items() if label > 0), default=0)
        return LineLabels(
            response=cut.response,
            line_ends=cut.line_ends,
            labels=labels,
            last_solvable=last,
            strategy="splice",
            probes=(),
            completions=0 if item is None else item.completions,
            tokens=0 if item is None else item.tokens,
            executions=1 if item is None else item.executions,
            guessed=item is not None and item.last is None,
            done=1.0 if item is None else item.done,
        )


def _usage(found: Sequence[Found], settings: LabelSettings, groups: int, seconds: Sequence[float]) -> LabelUsage:
    return LabelUsage(
        k=settings.k,
        rounds=groups,
        probes_asked=0,
        probes_drawn=0,
        probes_shared=0,
        probes_known=0,
        probes_without_room=0,
        completions=sum(item.completions for item in found),
        tokens=sum(item.tokens for item in found),
        executions=sum(item.executions - 1 for item in found),
        refused=sum(item.refused for item in found),
        full_completions=sum(item.completions for item in found),
        cpu_seconds=seconds[0],
        sandbox_cpu_seconds=seconds[1],
    )


def _to_json(item: Found) -> dict[str, Any]:
    return {name: getattr(item, name) for name in Found.__slots__}


def _from_json(record: dict[str, Any]) -> Found:
    labels = record["labels"]
    return Found(**record | {"labels": None if labels is None else tuple(labels)})
