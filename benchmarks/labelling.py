"""Label strategies on the embedded benchmark, in one run: cost, agreement with exact labels, coverage, speed.

    python benchmarks/labelling.py [--run runs/demo | --sft-examples 24000] [--problems 64] [--responses 8]

Takes the policy of a finished run (its SFT model) or trains one. `agreement` is with the exact oracle alone; `proofs`
with the oracle or, where a strategy completed a prefix to a program that passes, that proof: the oracle's grammar does
not hold every way to end, and a rollout may start over. `--labels FOLDER` keeps what every strategy said, for
`benchmarks/label_value.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from psgpo.config import LabelSettings, SamplingSettings, SftSettings
from psgpo.execution import Sandbox
from psgpo.jsonl import write_jsonl
from psgpo.labeling import label_responses, sample_responses, write_labels
from psgpo.labeling.costs import LabelUsage
from psgpo.labeling.prefixes import cut_response
from psgpo.labeling.surprise import PolicySurprise
from psgpo.lines import TokenText
from psgpo.models import create_policy, load_policy, train_tokenizer
from psgpo.problems.opchain import OpChain, OpChainSettings
from psgpo.problems.opchain.oracle import ExactLabels, ExactOracle
from psgpo.records import LineLabels, Problem, Response
from psgpo.sampling import HFSampler
from psgpo.sft import train_sft

TEMPLATE = "# {prompt}\n"
STRATEGIES: dict[str, dict[str, Any]] = {
    "binary search, K = 8": {"strategy": "binary-search", "k": 8},
    "binary search, K = 20 (paper)": {"strategy": "binary-search", "k": 20},
    "omega, K = 8": {"strategy": "omega", "k": 8},
    "linear scan, K = 8": {"strategy": "linear-scan", "k": 8},
    "soft success rate, K = 8": {"strategy": "soft", "k": 8},
    "noisy, 8 draws": {"strategy": "noisy", "budget": 8, "prior": True},
    "noisy, 14 draws": {"strategy": "noisy", "budget": 14, "prior": True},
    "splice": {"strategy": "splice", "hunt": 0, "crossover": 0},
    "splice + prior": {"strategy": "splice", "hunt": 0, "crossover": 0, "prior": True},
    "splice + 8 draws + prior": {"strategy": "splice", "hunt": 8, "crossover": 0, "prior": True},
    "splice + crossover + 8 draws + prior": {"strategy": "splice", "hunt": 8, "crossover": 400, "prior": True},
    "splice + crossover + 48 draws + prior": {"strategy": "splice", "hunt": 48, "crossover": 400, "prior": True},
    "splice + references": {"strategy": "splice", "hunt": 0, "crossover": 0, "references": True},
    "splice + references, halving": {
        "strategy": "splice",
        "hunt": 0,
        "crossover": 0,
        "references": True,
        "halving": True,
    },
}
LATER: dict[str, dict[str, Any]] = {
    "binary search, K = 8, by the later checkpoint": {"strategy": "binary-search", "k": 8, "completer": "last"},
    "binary search, K = 8, by both in turn": {"strategy": "binary-search", "k": 8, "completer": "mixture"},
    "splice + crossover + 8 draws by the later checkpoint + prior": {
        "strategy": "splice",
        "hunt": 8,
        "crossover": 400,
        "prior": True,
        "completer": "last",
    },
}
"""With `--later`."""
DIGITS = {
    "completions": 1,
    "tokens": 0,
    "programs": 0,
    "seconds": 3,
    "responses/s": 1,
    "rows used": 2,
    "agreement": 3,
    "proofs": 3,
    "labelled": 3,
    "precision of -1": 3,
}
"""Columns after the name; the first four are per failed response."""
SAMPLING = SamplingSettings(max_new_tokens=200)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one strategy did."""

    labels: list[tuple[float, ...]]
    """Per failed response."""
    proved: list[int]
    """Per failed response, a line whose prefix was completed to a passing program; 0 for none."""
    usage: LabelUsage
    seconds: float


def main() -> None:
    """Sample, label with every strategy, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run; its SFT model is the policy")
    parser.add_argument("--model", type=Path, help="a policy's folder")
    parser.add_argument("--later", type=Path, help="a later checkpoint that shares its tokenizer: completes too")
    parser.add_argument("--sft-examples", type=int, default=24_000)
    parser.add_argument("--sparseness", type=float, default=0.4, help="of the misconceptions trained into the policy")
    parser.add_argument("--keep", type=Path, help="folder for the policy trained here; use it again with --model")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--operations", type=int, nargs=2, default=(3, 8))
    parser.add_argument("--timeout", type=float, default=0.25, help="seconds a program may take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of strategies")
    parser.add_argument("--out", type=Path, help="write the table as JSON too")
    parser.add_argument("--labels", type=Path, help="folder for the labels of every strategy and the exact ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chain = OpChain(OpChainSettings(seed=options.seed, sparseness=options.sparseness))
    with tempfile.TemporaryDirectory() as scratch:
        given = options.model or (options.run and options.run / "sft" / "model")
        folder = given or _train(chain, options, options.keep or Path(scratch))
        model, tokenizer = load_policy(folder)
        with Sandbox(workers=1, timeout=options.timeout, memory_mb=96) as sandbox:
            samplers = {"policy": HFSampler(model, tokenizer)}
            if options.later:
                samplers["later"] = HFSampler(load_policy(options.later)[0], tokenizer)
            bench = _Bench(samplers, tokenizer, sandbox, Path(scratch), options)
            problems = chain.problems("train", options.problems, tuple(options.operations))
            bench.sample(problems, options.responses)
            rows = bench.table(options.only)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


def _train(chain: OpChain, options: argparse.Namespace, scratch: Path) -> Path:
    pairs = [(TEMPLATE.format(prompt=e.prompt), e.solution) for e in chain.sft_examples(options.sft_examples)]
    tokenizer = train_tokenizer([prompt + code for prompt, code in pairs[:3000]])
    policy = create_policy(tokenizer, seed=options.seed)
    train_sft(policy, tokenizer, pairs, SftSettings(examples=options.sft_examples), out=scratch / "sft", seed=0)
    return scratch / "sft" / "model"


class _Bench:
    def __init__(
        self,
        samplers: dict[str, HFSampler],
        tokenizer: PreTrainedTokenizerBase,
        sandbox: Sandbox,
        scratch: Path,
        options: argparse.Namespace,
    ) -> None:
        self._samplers, self._tokenizer, self._sandbox = samplers, tokenizer, sandbox
        self._scratch, self._seed, self._keep = scratch, options.seed, options.labels
        self._text = TokenText(tokenizer)

    def sample(self, problems: Sequence[Problem], count: int) -> None:
        """Responses, their cuts, and the oracle's labels."""
        self.problems = {problem.id: problem for problem in problems}
        self.responses = sample_responses(
            self._samplers["policy"],
            self._tokenizer,
            problems,
            self._sandbox,
            checkpoint="policy",
            responses_per_problem=count,
            seed=self._seed,
            prompt_template=TEMPLATE,
            settings=SAMPLING,
        )
        self.failed = [response for response in self.responses if not response.verdict.passed]
        self.cuts = [cut_response(response, self._text) for response in self.failed]
        oracle = ExactOracle(self._sandbox.evaluate_many)
        exact = oracle.label([(self.problems[r.problem_id], r.text) for r in self.responses])
        found = list(zip(self.responses, exact, strict=True))
        self.truth = [labels.last_on_track for response, labels in found if not response.verdict.passed]
        if self._keep is not None:
            write_jsonl(self._keep / "exact.jsonl", (_exact_row(response, labels) for response, labels in found))
        solved = len({r.problem_id for r in self.responses if r.verdict.passed})
        lines = statistics.fmean(len(cut.code) for cut in self.cuts)
        print(
            f"{len(self.responses)} responses to {len(problems)} problems, {len(self.failed)} fail; {solved} problems "
            f"have a passing one; {lines:.1f} lines of code per failed one"
        )

    def table(self, only: Sequence[str] | None) -> list[dict[str, Any]]:
        """Run the strategies and print a row of each as soon as it is there, then all with what they prove together."""
        strategies = STRATEGIES | (LATER if "later" in self._samplers else {})
        outcomes: dict[str, Outcome] = {}
        for name, changes in strategies.items():
            if not only or name in only:
                outcomes[name] = self._label(changes)
                print(_text(self._row(name, outcomes[name], self.truth)), flush=True)
        proved = [
            max([truth, *(outcome.proved[i] for outcome in outcomes.values())]) for i, truth in enumerate(self.truth)
        ]
        rows = [self._row(name, outcome, proved) for name, outcome in outcomes.items()]
        columns = ("strategy", *DIGITS)
        print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
        for row in rows:
            print(_text(row))
        return rows

    def _row(self, name: str, outcome: Outcome, proved: Sequence[int]) -> dict[str, Any]:
        agreement, coverage, precision = self._agreement(outcome.labels, self.truth)
        count, usage = len(self.failed), outcome.usage
        return {
            "strategy": name,
            "completions": usage.completions / count,
            "tokens": usage.tokens / count,
            "programs": usage.executions / count,
            "seconds": outcome.seconds / count,
            "responses/s": count / outcome.seconds,
            "rows used": usage.tokens / usage.row_steps if usage.row_steps else None,
            "agreement": agreement,
            "proofs": self._agreement(outcome.labels, proved)[0],
            "labelled": coverage,
            "precision of -1": precision,
        }

    def _agreement(self, labels: Sequence[Sequence[float]], truth: Sequence[int]) -> tuple[float, float, float]:
        """Share of labelled lines that are right, share of lines labelled, share of -1 that are right."""
        same = labelled = lines = negative = negative_right = 0
        for cut, made, last in zip(self.cuts, labels, truth, strict=True):
            for line in cut.code:
                label = made[line - 1]
                lines += 1
                labelled += label != 0
                same += label != 0 and (label > 0) == (line <= last)
                negative += label < 0
                negative_right += label < 0 and line > last
        return same / max(1, labelled), labelled / max(1, lines), negative_right / max(1, negative)

    def _label(self, changes: Mapping[str, Any]) -> Outcome:
        settings = LabelSettings(**{key: value for key, value in changes.items() if key != "prior"})
        prior = bool(changes.get("prior"))
        slug = "-".join(str(value) for value in changes.values())
        models = {name: sampler.model for name, sampler in self._samplers.items()}
        started = time.perf_counter()
        labelling = label_responses(
            self.responses,
            self.problems.values(),
            samplers=self._samplers,
            tokenizer=self._tokenizer,
            sandbox=self._sandbox,
            settings=settings,
            sampling=SAMPLING,
            seed=self._seed,
            journal=self._scratch / f"{slug}.jsonl",
            surprise=PolicySurprise(models) if prior else None,
        )
        seconds = time.perf_counter() - started
        if self._keep is not None:
            write_labels(self._keep / f"{slug}.jsonl", labelling.labels)
        made = [label for label in labelling.labels if not label.response.verdict.passed]
        return Outcome(
            labels=[label.labels for label in made],
            proved=[0 if prior and settings.strategy == "splice" else _proved(label) for label in made],
            usage=labelling.usage,
            seconds=seconds,
        )


def _exact_row(response: Response, labels: ExactLabels) -> dict[str, Any]:
    """As `psgpo.prm.data.load_exact` reads it."""
    return {
        "problem_id": response.problem_id,
        "index": response.index,
        "checkpoint": response.checkpoint,
        "last_on_track": labels.last_on_track,
        "progress": labels.progress,
    }


def _text(row: Mapping[str, Any]) -> str:
    cells = ["–" if row[name] is None else f"{row[name]:.{digits}f}" for name, digits in DIGITS.items()]
    return f"| {row['strategy']} | " + " | ".join(cells) + " |"


def _proved(label: LineLabels) -> int:
    """The last line that a passing program begins with, as far as this strategy (without a prior) found one."""
    if label.strategy != "splice":
        return max((probe.line for probe in label.probes if probe.passed), default=0)
    return max((line for line, value in enumerate(label.labels, start=1) if value > 0), default=0)


if __name__ == "__main__":
    main()
