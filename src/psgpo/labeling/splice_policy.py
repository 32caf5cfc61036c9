"""The strategy `splice`: line labels of a policy's responses, from passing programs of the same problem.

Per problem:

    pool    its distinct passing responses. Where there are none and some response failed: at most `crossover` programs
            that begin like one failed response and end like another; then completions of early prefixes of the failed
            ones, at most `hunt`; until one passes
    splice  every failed response against the pool (`psgpo.labeling.suffixes`): the last prefix that some suffix
            completes is m*
    prior   where the pool stays empty: P(first wrong line) from the policy's surprise (`psgpo.labeling.prior`), fitted
            on the responses that splicing did label; a line is labelled where that is sure, else it is 0

+1 is proof: a program that begins so passed. -1 after a splice is absence of proof against every suffix of the pool;
by the prior it is a guess. Problems are worked on in groups; the journal holds one record per finished group.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.labeling.collect import Grader, Progress, grade_programs
from psgpo.labeling.costs import LabelUsage
from psgpo.labeling.group_journal import GroupJournal
from psgpo.labeling.prefixes import CutResponse, cut_response
from psgpo.labeling.prior import fit_prior, line_features, posterior, sure_labels
from psgpo.labeling.request import check_request, journal_header
from psgpo.labeling.search import last_solvable_line, line_labels
from psgpo.labeling.suffixes import crossed_programs, suffix_search
from psgpo.lines import Tokenizer, TokenText, code_lines, extract_code
from psgpo.records import LineLabels, Problem, Response
from psgpo.seeds import derive_seed

if TYPE_CHECKING:  # the sampler's package loads torch; nothing here needs it
    from psgpo.sampling import Sampler

Surprise = Callable[[Sequence[Response]], Sequence[Sequence[float]]]
"""Per response, -log p of each of its token ids under the policy that wrote it."""

EARLY = (0.25, 0.0, 0.4, 0.25)
"""Shares of a failed response that are kept when a passing program is looked for, in turn."""
HUNT_ROUND = 4
"""Completions drawn at once for a problem without a passing program."""
CROSS_BATCH = 32
"""Joined programs judged at once for a problem without a passing one."""
SURE = 0.85


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
    run = _Run([cut_response(r, text) for r in responses], by_id, samplers, text, sandbox, settings, sampling, seed)
    header = journal_header(responses, by_id, list(samplers), settings, sampling, seed)
    header |= {"labels.hunt": settings.hunt, "labels.crossover": settings.crossover}
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
            found += [Found(**item) for item in record["found"]]
            seconds = [seconds[0] + record["cpu_seconds"], seconds[1] + record["sandbox"]]
            if progress is not None:
                progress(number + 1, len(groups))
    return run.labels(found, surprise), _usage(found, settings, len(groups), seconds)


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
    ) -> None:
        self._cuts, self._problems, self._samplers, self._text = cuts, problems, samplers, text
        self._sandbox, self._settings, self._sampling, self._seed = sandbox, settings, sampling, seed
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
        cost: dict[str, list[int]] = {name: [0, 0, 0] for name in group}
        proved: dict[int, int] = {}
        hunted = [name for name in group if failed[name] and not pools[name]]
        drawn: dict[str, list[str]] = {name: [] for name in hunted}
        hunted = self._cross(hunted, failed, drawn, pools, cost)
        while hunted and cost[hunted[0]][0] < self._settings.hunt:
            self._hunt(hunted, failed, pools, cost, proved, drawn)
            hunted = [name for name in hunted if not pools[name]]
        self._cross([name for name in hunted if drawn[name]], failed, drawn, pools, cost)
        spliced = [n for name in group for n in failed[name] if pools[name]]
        last = self._splice(spliced, pools, proved)
        found = []
        for name in group:
            for place, number in enumerate(failed[name]):
                paid = cost[name] if place == 0 else [0, 0, 0]  # booked on the first response that needed it
                line, judged = last.get(number, (None, 0))
                found.append(
                    Found(
                        response=number,
                        last=line,
                        completions=paid[0],
                        tokens=paid[1],
                        executions=1 + paid[2] + judged,
                    )
                )
        return found

    def _passing(self, name: str) -> list[str]:
        programs = [
            extract_code(cut.response.text)
            for n in self._members[name]
            if (cut := self._cuts[n]).response.verdict.passed
        ]
        return list(dict.fromkeys(programs))

    def _cross(
        self,
        names: Sequence[str],
        failed: Mapping[str, list[int]],
        drawn: Mapping[str, list[str]],
        pools: Mapping[str, list[str]],
        cost: Mapping[str, list[int]],
    ) -> list[str]:
        """Join failed programs of a problem until one passes; the problems where none did."""
        sources: dict[str, Iterator[str]] = {}
        for name in names:
            texts = dict.fromkeys([*(extract_code(self._cuts[n].response.text) for n in failed[name]), *drawn[name]])
            lines = [[line.text for line in code_lines(text)] for text in texts]
            sources[name] = itertools.islice(crossed_programs(lines), self._settings.crossover)
        waiting = list(names)
        while waiting:
            batches = {name: list(itertools.islice(sources[name], CROSS_BATCH)) for name in waiting}
            items = [(program, name) for name in waiting for program in batches[name]]
            for (program, name), passed in zip(items, self._grade(items), strict=True):
                cost[name][2] += 1
                if passed:
                    pools[name].append(program)
            waiting = [name for name in waiting if batches[name] and not pools[name]]
        return [name for name in names if not pools[name]]

    def _hunt(
        self,
        names: Sequence[str],
        failed: Mapping[str, list[int]],
        pools: Mapping[str, list[str]],
        cost: Mapping[str, list[int]],
        proved: dict[int, int],
        drawn: Mapping[str, list[str]],
    ) -> None:
        """Draw a few completions for every problem without a passing program."""
        rows: list[tuple[str, int, int, tuple[int, ...], int]] = []
        for name in names:
            done = cost[name][0]
            for draw in range(done, min(done + HUNT_ROUND, self._settings.hunt)):
                number = failed[name][draw % len(failed[name])]
                cut = self._cuts[number]
                code = cut.code
                place = int(EARLY[draw % len(EARLY)] * len(code))
                line = code[min(place, len(code) - 1)] if code else 0
                prefix = cut.prefix(line) if line else ()
                rows.append((name, number, line, prefix, draw))
        completions = self._complete(rows)
        texts = [self._text.decode((*row[3], *ids)) for row, ids in zip(rows, completions, strict=True)]
        programs = [extract_code(text) for text in texts]
        verdicts = self._grade([(program, row[0]) for program, row in zip(programs, rows, strict=True)])
        for row, ids, program, passed in zip(rows, completions, programs, verdicts, strict=True):
            cost[row[0]][0] += 1
            cost[row[0]][1] += len(ids)
            cost[row[0]][2] += 1
            if not passed:
                drawn[row[0]].append(program)
            else:
                proved[row[1]] = max(proved.get(row[1], 0), row[2])
                if program not in pools[row[0]]:
                    pools[row[0]].append(program)

    def _complete(self, rows: Sequence[tuple[str, int, int, tuple[int, ...], int]]) -> list[tuple[int, ...]]:
        """Ids of one completion per row, one batch per checkpoint; a prefix that fills the limit gets none."""
        names = list(self._samplers)
        by_name: dict[str, list[int]] = {}
        for index, (_, number, _, prefix, draw) in enumerate(rows):
            own = self._cuts[number].response.checkpoint
            chosen = {"own": own, "last": names[-1], "mixture": names[draw % len(names)]}[self._settings.completer]
            if len(prefix) < self._sampling.max_new_tokens:
                by_name.setdefault(chosen, []).append(index)
        completions: dict[int, tuple[int, ...]] = {}
        for name, members in by_name.items():
            drawn = self._samplers[name].sample(
                [self._cuts[rows[i][1]].response.prompt_ids + rows[i][3] for i in members],
                seeds=[derive_seed(self._seed, "hunt", rows[i][0], name, rows[i][3], rows[i][4]) for i in members],
                temperature=self._sampling.temperature,
                top_p=self._sampling.top_p,
                max_new_tokens=[self._sampling.max_new_tokens - len(rows[i][3]) for i in members],
            )
            completions |= {i: tuple(item.token_ids) for i, item in zip(members, drawn, strict=True)}
        return [completions.get(index, ()) for index in range(len(rows))]

    def _splice(
        self, numbers: Sequence[int], pools: Mapping[str, list[str]], proved: Mapping[int, int]
    ) -> dict[int, tuple[int, int]]:
        """(m*, programs judged) per response, all searched side by side."""
        donors = {
            name: [[line.text for line in code_lines(program)] for program in pool] for name, pool in pools.items()
        }
        results: dict[int, tuple[int, int]] = {}
        waiting: dict[int, tuple[Any, list[str]]] = {}

        def advance(number: int, search: Any, answer: Any) -> None:
            try:
                waiting[number] = (search, search.send(answer))
            except StopIteration as stop:
                results[number] = stop.value

        for number in numbers:
            cut = self._cuts[number]
            pool = donors[cut.response.problem_id]
            lines = [line.text for line in cut.lines]
            shared = max((_same_start(lines, donor) for donor in pool), default=0)
            above = min(max(shared, proved.get(number, 0)), max(0, len(lines) - 1))
            advance(number, suffix_search(lines, cut.neutral, pool, above=above), None)
        while waiting:
            asked, ready = list(waiting.items()), dict(waiting)
            waiting.clear()
            items = [(program, self._cuts[n].response.problem_id) for n, (_, programs) in asked for program in programs]
            passed = iter(self._verdicts(items))
            for number, (search, programs) in ready.items():
                advance(number, search, [next(passed) for _ in programs])
        return results

    def _verdicts(self, items: Sequence[tuple[str, str]]) -> list[Any]:
        verdicts = grade_programs(self._sandbox, [(program, self._problems[name]) for program, name in items])
        fresh = {id(verdict): verdict for verdict in verdicts if not verdict.cached}
        self._sandbox_seconds += sum(verdict.cpu_seconds for verdict in fresh.values())
        return verdicts

    def _grade(self, items: Sequence[tuple[str, str]]) -> list[bool]:
        return [verdict.passed for verdict in self._verdicts(items)]

    def labels(self, found: Sequence[Found], surprise: Surprise | None) -> list[LineLabels]:
        """Labels in the order of the responses."""
        by_number = {item.response: item for item in found}
        guessed = self._guess(by_number, surprise) if surprise is not None else {}
        return [self._label(number, by_number.get(number), guessed.get(number)) for number in range(len(self._cuts))]

    def _guess(self, found: Mapping[int, Found], surprise: Surprise) -> dict[int, list[float]]:
        """Labels of the code lines of responses that splicing could not reach."""
        numbers = [number for number, item in found.items() if self._cuts[number].code]
        values = surprise([self._cuts[number].response for number in numbers]) if numbers else []
        features = {n: line_features(self._cuts[n].by_line(value)) for n, value in zip(numbers, values, strict=True)}
        known: list[tuple[int, int]] = []
        for number in numbers:
            last = found[number].last
            if last is not None:
                wrong = sum(line <= last for line in self._cuts[number].code)
                if wrong < len(self._cuts[number].code):
                    known.append((number, wrong))
        theta = fit_prior([features[number] for number, _ in known], [line for _, line in known])
        return {
            number: sure_labels(posterior(features[number], theta), SURE)
            for number in numbers
            if found[number].last is None
        }

    def _label(self, number: int, item: Found | None, guess: list[float] | None) -> LineLabels:
        cut = self._cuts[number]
        total = len(cut.lines)
        labels: tuple[float, ...]
        if item is None:
            last, labels = total, line_labels(total, cut.neutral)
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
        )


def _same_start(left: Sequence[str], right: Sequence[str]) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one.rstrip() != other.rstrip():
            break
        count += 1
    return count


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
        full_completions=sum(item.completions for item in found),
        cpu_seconds=seconds[0],
        sandbox_cpu_seconds=seconds[1],
    )


def _to_json(item: Found) -> dict[str, Any]:
    return {name: getattr(item, name) for name in Found.__slots__}
