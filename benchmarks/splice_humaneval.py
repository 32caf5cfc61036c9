"""Splice labels on programs of a real model, without a model: failed programs beside passing siblings of the same task.

    python benchmarks/splice_humaneval.py [--data ../shared/data] [--strong] [--sample 50 --out sample.txt]

Wants HumanEval.jsonl.gz and humaneval_codellama34b.jsonl.gz (rows of task_id and program). `--out` writes programs with
their lines marked: + proved completable, - proved wrong, ? neither, . neutral.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from psgpo.execution import Sandbox
from psgpo.labeling.splice import SpliceResult, judge_all, names_used, splice_search
from psgpo.lines import code_lines
from psgpo.problems.benchmarks import load_benchmark
from psgpo.problems.programs import program_of
from psgpo.records import CallTests, Problem, Verdict
from strengthen import stronger_tests

Case = tuple[str, str]
"""Task id, failed program."""


def main() -> None:
    """Grade, splice, print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parent.parent.parent / "shared" / "data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=0.3, help="seconds a program may take")
    parser.add_argument("--strong", action="store_true", help="a program passes only if it passes generated tests too")
    parser.add_argument("--sample", type=int, default=0, help="programs written to --out; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with gzip.open(options.data / "humaneval_codellama34b.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    with Sandbox(workers=options.workers, timeout=options.timeout, memory_mb=512) as sandbox:
        loaded = load_benchmark("humaneval", options.data / "HumanEval.jsonl.gz", evaluate=sandbox.evaluate_many)
        study = _Study(sandbox, {problem.id: problem for problem in loaded}, rows, strong=options.strong)
        results = study.splice()
        study.report(results)
    if options.out:
        chosen = list(range(len(study.cases)))
        if options.sample:
            random.Random(options.seed).shuffle(chosen)
            chosen = sorted(chosen[: options.sample])
        options.out.write_text("".join(_shown(number, study.cases[number], results[number]) for number in chosen))


class _Study:
    def __init__(
        self, sandbox: Sandbox, problems: dict[str, Problem], rows: Sequence[dict[str, str]], *, strong: bool
    ) -> None:
        self._sandbox, self._problems, self._strong = sandbox, problems, strong
        tasks = [row["task_id"] for row in rows]
        verdicts = self._grade([(task, row["program"]) for task, row in zip(tasks, rows, strict=True)])
        passing: dict[str, list[str]] = defaultdict(list)
        for row, verdict in zip(rows, verdicts, strict=True):
            if verdict.passed and row["program"] not in passing[row["task_id"]]:
                passing[row["task_id"]].append(row["program"])
        failed = [(r["task_id"], r["program"]) for r, v in zip(rows, verdicts, strict=True) if not v.passed]
        self._copies = Counter(case for case in failed if passing[case[0]])
        self.cases: list[Case] = list(self._copies)
        mixed = sorted({task for task, _ in self.cases})
        self._pools = {task: passing[task] for task in mixed}
        print(
            f"{len(rows)} programs, {len(failed)} fail, {sum(self._copies.values())} of them beside a passing sibling: "
            f"{len(self.cases)} distinct ones of {len(mixed)} tasks"
        )
        self._stronger: dict[str, CallTests] = {}
        for task in mixed:
            tests = stronger_tests(sandbox, problems[task], self._pools[task])
            if tests is not None:
                self._stronger[task] = tests
        self._drop_lucky()

    def _grade(self, cases: Sequence[Case]) -> list[Verdict]:
        return self._sandbox.grade(
            [(program_of(self._problems[t], solution=program), self._problems[t].tests) for t, program in cases]
        )

    def _holds(self, cases: Sequence[Case]) -> list[bool]:
        """Whether programs pass the generated tests of their tasks; those of a task without any do."""
        asked = [(t, program_of(self._problems[t], solution=p)) for t, p in cases if t in self._stronger]
        verdicts = iter(self._sandbox.grade([(program, self._stronger[task]) for task, program in asked]))
        return [next(verdicts).passed if task in self._stronger else True for task, _ in cases]

    def _drop_lucky(self) -> None:
        cases = [(task, program) for task, pool in self._pools.items() for program in pool]
        holds = dict(zip(cases, self._holds(cases), strict=True))
        calls = [len(tests.calls) for tests in self._stronger.values()]
        print(
            f"generated tests for {len(calls)} of {len(self._pools)} tasks, {sum(calls) / max(1, len(calls)):.0f} "
            f"calls each; {len(cases) - sum(holds.values())} of {len(cases)} distinct passing programs fail them"
        )
        if self._strong:
            self._pools = {t: [p for p in pool if holds[t, p]] for t, pool in self._pools.items()}

    def splice(self) -> dict[int, SpliceResult]:
        """The result of every case."""
        searches = []
        for task, program in self.cases:
            problem = self._problems[task]
            searches.append(
                splice_search(
                    program,
                    self._pools[task],
                    roots=names_used(problem),
                    preamble=problem.preamble,
                    whole=lambda code, problem=problem: program_of(problem, solution=code),
                )
            )
        spent = 0.0

        def judge(asked: list[tuple[int, str]]) -> list[Verdict]:
            nonlocal spent
            tests = [self._problems[self.cases[number][0]].tests for number, _ in asked]
            verdicts = self._sandbox.grade(list(zip([program for _, program in asked], tests, strict=True)))
            spent += sum(verdict.cpu_seconds for verdict in verdicts)
            return self._confirmed(asked, verdicts) if self._strong else verdicts

        started, cpu = time.perf_counter(), time.process_time()
        results = dict(judge_all(searches, judge))
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        executions = sum(result.executions for result in results.values())
        print(
            f"{executions / len(searches):.1f} executions per distinct program; {wall:.0f} s wall, {cpu:.0f} s CPU of "
            f"the search, {spent:.0f} s CPU of the programs"
        )
        return results

    def _confirmed(self, asked: Sequence[tuple[int, str]], verdicts: list[Verdict]) -> list[Verdict]:
        """The verdicts; where one passes, that of the generated tests."""
        passed = [i for i, verdict in enumerate(verdicts) if verdict.passed]
        again = [i for i in passed if self.cases[asked[i][0]][0] in self._stronger]
        items = [(asked[i][1], self._stronger[self.cases[asked[i][0]][0]]) for i in again]
        for i, verdict in zip(again, self._sandbox.grade(items), strict=True):
            verdicts[i] = verdict
        return verdicts

    def report(self, results: dict[int, SpliceResult]) -> None:
        """Print the shares over all failed programs, and over distinct ones."""

        def share(name: str, test: Callable[[SpliceResult], bool]) -> None:
            flags = [test(results[number]) for number in range(len(self.cases))]
            copies = [self._copies[case] for case in self.cases]
            weighted = sum(flag * count for flag, count in zip(flags, copies, strict=True)) / sum(copies)
            print(f"{name:42s} {weighted:.3f} of programs, {sum(flags) / len(flags):.3f} of distinct ones")

        share("some prefix proved completable", lambda r: r.last_proved > 0)
        share("some line proved wrong", lambda r: r.first_refuted is not None)
        share("first wrong line proved from both sides", lambda r: r.exact and r.suspect == r.first_refuted)
        share("first wrong line known (or one statement)", lambda r: r.exact)
        proofs = [(number, result.proof) for number, result in sorted(results.items()) if result.proof]
        holds = self._holds([(self.cases[number][0], proof) for number, proof in proofs])
        lucky = [number for (number, _), flag in zip(proofs, holds, strict=True) if not flag]
        print(f"proofs that fail the generated tests: {len(lucky)} of {len(proofs)} {lucky}")


def _shown(number: int, case: Case, result: SpliceResult) -> str:
    lines = [
        f"######## {number} {case[0]} m*={result.last_proved} suspect={result.suspect} M={result.first_refuted} "
        f"exact={result.exact} confined={result.confined} executions={result.executions} donors={result.donors}"
    ]
    for place, line in enumerate(code_lines(case[1]), start=1):
        refuted = result.first_refuted is not None and place >= result.first_refuted
        mark = "." if line.neutral else "+" if place <= result.last_proved else "-" if refuted else "?"
        lines.append(f"{mark} {place:3d} {line.text}")
    if result.proof:
        lines += ["-------- end of the proof", *result.proof.split("\n")[result.last_proved :]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
