"""One round of completions: generated here, judged in the sandbox's processes, collected later."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psgpo.config import SamplingSettings
from psgpo.labeling.collect import QueueingGrader, sample_proved, submit_programs
from psgpo.labeling.journal import ProbeDraws, Round
from psgpo.labeling.rollouts import Key
from psgpo.lines import TokenText, extract_code
from psgpo.records import Problem, Verdict
from psgpo.seeds import derive_seed

if TYPE_CHECKING:  # the sampler's package loads torch; nothing here needs it
    from psgpo.sampling import Sampler

MIXTURE = "*"
"""Completer of probes that all checkpoints draw for in turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Completions that a round draws for one probe."""

    key: Key
    response: int
    """Position of the response that asks."""
    line: int
    prompt_ids: tuple[int, ...]
    numbers: range
    """Numbers of the draws."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A round whose programs are being judged."""

    wanted: Sequence[Wanted]
    completions: Sequence[tuple[int, ...] | None]
    """None where the ids cannot be proved; then there is no program."""
    reasons: Mapping[int, str]
    """Row to why not."""
    programs: Sequence[str | None]
    verdicts: Callable[[], list[Verdict]]
    """Waits for them: one per program, in order."""
    measures: Mapping[str, float]


class Drawer:
    """Samplers, tests and random numbers of one labelling.

    The random numbers of a completion come from a hash of (seed, problem, prefix ids, completer, draw number).
    """

    def __init__(
        self,
        samplers: Mapping[str, Sampler],
        problems: Mapping[str, Problem],
        token_text: TokenText,
        sandbox: QueueingGrader,
        sampling: SamplingSettings,
        seed: int,
    ) -> None:
        self._samplers, self._problems, self._token_text = samplers, problems, token_text
        self._sandbox, self._sampling, self._seed = sandbox, sampling, seed
        self._names = list(samplers)

    def start(self, wanted: Sequence[Wanted]) -> Drawn:
        """Generate the completions and hand the programs to the sandbox."""
        cpu, wall = time.process_time(), time.perf_counter()
        before = self._steps()
        rows = [(item, number) for item in wanted for number in item.numbers]
        completions, reasons = self._sample(rows)
        generated = time.perf_counter() - wall
        programs = [
            None if ids is None else extract_code(self._token_text.decode((*item.key[2], *ids)))
            for (item, _), ids in zip(rows, completions, strict=True)
        ]
        verdicts = submit_programs(
            self._sandbox,
            [
                (program, self._problems[item.key[0]])
                for program, (item, _) in zip(programs, rows, strict=True)
                if program is not None
            ],
        )
        row_steps, slot_steps = (after - start for after, start in zip(self._steps(), before, strict=True))
        measures = {"generation_seconds": generated, "row_steps": row_steps, "slot_steps": slot_steps}
        return Drawn(
            wanted, completions, reasons, programs, verdicts, measures | {"cpu_seconds": time.process_time() - cpu}
        )

    def finish(self, drawn: Drawn, *, keep: bool) -> Round:
        """Wait for the verdicts; `keep` the completions' ids."""
        wall = time.perf_counter()
        verdicts = drawn.verdicts()
        waited, cpu = time.perf_counter() - wall, time.process_time()
        ended = iter(verdicts)
        passes = [program is not None and next(ended).passed for program in drawn.programs]
        probes, place = [], 0
        for item in drawn.wanted:
            rows = range(place, place + len(item.numbers))
            place = rows.stop
            passed = tuple(number for number, row in enumerate(rows) if passes[row])
            completions = tuple(drawn.completions[row] or () for row in rows)
            refused = tuple(number for number, row in enumerate(rows) if row in drawn.reasons)
            probes.append(
                ProbeDraws(
                    response=item.response,
                    line=item.line,
                    drawn=len(rows),
                    passed=passed,
                    tokens=sum(map(len, completions)),
                    executions=len({drawn.programs[row] for row in rows} - {None}),
                    proof=completions[passed[0]] if passed else None,
                    completions=completions if keep else (),
                    refused=refused,
                    reason=drawn.reasons[rows[refused[0]]] if refused else "",
                )
            )
        fresh = {id(verdict): verdict for verdict in verdicts if not verdict.cached}  # shared by equal programs
        return Round(
            probes=tuple(probes),
            cpu_seconds=drawn.measures["cpu_seconds"] + time.process_time() - cpu,
            sandbox_cpu_seconds=sum(verdict.cpu_seconds for verdict in fresh.values()),
            generation_seconds=drawn.measures["generation_seconds"],
            waiting_seconds=waited,
            row_steps=int(drawn.measures["row_steps"]),
            slot_steps=int(drawn.measures["slot_steps"]),
        )

    def _sample(self, rows: Sequence[tuple[Wanted, int]]) -> tuple[list[tuple[int, ...] | None], dict[int, str]]:
        """Ids of one completion per row, one batch per checkpoint, and why some rows have none.

        The end-of-sequence token is kept.
        """
        by_name: dict[str, list[int]] = {}
        for row, (item, number) in enumerate(rows):
            name = self._names[number % len(self._names)] if item.key[1] == MIXTURE else item.key[1]
            by_name.setdefault(name, []).append(row)
        sampled: dict[int, tuple[int, ...] | None] = {}
        reasons: dict[int, str] = {}
        for name, members in by_name.items():
            keys = [rows[row][0].key for row in members]
            completions, refused = sample_proved(
                self._samplers[name],
                [rows[row][0].prompt_ids + key[2] for row, key in zip(members, keys, strict=True)],
                seeds=[
                    derive_seed(self._seed, "completion", *key, rows[row][1])
                    for row, key in zip(members, keys, strict=True)
                ],
                temperature=self._sampling.temperature,
                top_p=self._sampling.top_p,
                max_new_tokens=[self._sampling.max_new_tokens - len(key[2]) for key in keys],
            )
            sampled |= {
                row: None if c is None else tuple(c.token_ids) for row, c in zip(members, completions, strict=True)
            }
            reasons |= {members[place]: reason for place, reason in refused.items()}
        return [sampled[row] for row in range(len(rows))], reasons

    def _steps(self) -> tuple[int, int]:
        """(rows computed, rows there was room for) since the samplers were made; 0 where one of them does not count.

        Engines that batch by themselves (vLLM, servers) do not tell how full their batches were.
        """
        counting: list[Any] = [sampler for sampler in self._samplers.values() if hasattr(sampler, "batch_size")]
        if len(counting) < len(self._samplers):
            return 0, 0
        return (
            sum(sampler.stats.slot_steps for sampler in counting),
            sum(sampler.stats.steps * sampler.batch_size for sampler in counting),
        )
