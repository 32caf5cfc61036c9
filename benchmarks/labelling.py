"""Label strategies on the embedded benchmark, in one run: cost, agreement with exact labels, coverage, speed.

    python benchmarks/labelling.py [--run runs/demo | --sft-examples 24000] [--problems 64] [--responses 8]

Takes the policy of a finished run (its SFT model) or trains one. Truth of a line is the oracle's label or, where a
strategy completed a prefix to a program that passes, that proof: the oracle's grammar does not hold every way to end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from psgpo.config import LabelSettings, SamplingSettings, SftSettings
from psgpo.execution import Sandbox
from psgpo.labeling import label_responses, sample_responses
from psgpo.labeling.prefixes import cut_response
from psgpo.labeling.surprise import PolicySurprise
from psgpo.lines import TokenText
from psgpo.models import create_policy, load_policy, train_tokenizer
from psgpo.problems.opchain import OpChain, OpChainSettings
from psgpo.problems.opchain.oracle import ExactOracle
from psgpo.records import LineLabels, Problem
from psgpo.sampling import HFSampler
from psgpo.sft import train_sft

TEMPLATE = "# {prompt}\n"
SAMPLING = SamplingSettings(max_new_tokens=200)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one strategy did."""

    labels: list[tuple[float, ...]]
    """Per failed response."""
    proved: list[int]
    """Per failed response, a line whose prefix was completed to a passing program; 0 for none."""
    completions: int
    tokens: int
    executions: int
    seconds: float


def main() -> None:
    """Sample, label with every strategy, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run; its SFT model is the policy")
    parser.add_argument("--model", type=Path, help="a policy's folder")
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
    options = parser.parse_args()
    torch.set_num_threads(1)
    chain = OpChain(OpChainSettings(seed=options.seed, sparseness=options.sparseness))
    with tempfile.TemporaryDirectory() as scratch:
        given = options.model or (options.run and options.run / "sft" / "model")
        folder = given or _train(chain, options, options.keep or Path(scratch))
        model, tokenizer = load_policy(folder)
        with Sandbox(workers=1, timeout=options.timeout, memory_mb=96) as sandbox:
            bench = _Bench(HFSampler(model, tokenizer), tokenizer, sandbox, Path(scratch), options.seed)
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
        self, sampler: HFSampler, tokenizer: PreTrainedTokenizerBase, sandbox: Sandbox, scratch: Path, seed: int
    ) -> None:
        self._sampler, self._tokenizer, self._sandbox = sampler, tokenizer, sandbox
        self._scratch, self._seed = scratch, seed
        self._text = TokenText(tokenizer)

    def sample(self, problems: Sequence[Problem], count: int) -> None:
        """Responses, their cuts, and the oracle's labels."""
        self.problems = {problem.id: problem for problem in problems}
        self.responses = sample_responses(
            self._sampler,
            self._tokenizer,
            problems,
            self._sandbox,
            checkpoint="policy",
            responses_per_problem=count,
            seed=self._seed,
            prompt_template="# {prompt}\n",
            settings=SAMPLING,
        )
        self.failed = [response for response in self.responses if not response.verdict.passed]
        self.cuts = [cut_response(response, self._text) for response in self.failed]
        exact = ExactOracle(self._sandbox.evaluate_many).label(
            [(self.problems[r.problem_id], r.text) for r in self.failed]
        )
        self.truth = [labels.last_on_track for labels in exact]
        solved = len({r.problem_id for r in self.responses if r.verdict.passed})
        lines = statistics.fmean(len(cut.code) for cut in self.cuts)
        print(
            f"{len(self.responses)} responses to {len(problems)} problems, {len(self.failed)} fail; {solved} problems "
            f"have a passing one; {lines:.1f} lines of code per failed one"
        )

    def table(self, only: Sequence[str] | None) -> list[dict[str, object]]:
        """Run the strategies, print one row each; all are held against the truth that all of them together proved."""
        strategies: dict[str, Callable[[], Outcome]] = {
            "binary search, K = 8": lambda: self._scheduler("binary-search", k=8, draw=4),
            "binary search, K = 20 (paper)": lambda: self._scheduler("binary-search", k=20, draw=5),
            "linear scan, K = 8": lambda: self._scheduler("linear-scan", k=8, draw=4),
            "soft, K = 8": lambda: self._scheduler("soft", k=8, draw=8),
            "omega, K = 20": lambda: self._scheduler("omega", k=20, draw=5),
            "noisy, 8 draws": lambda: self._scheduler("noisy", budget=8),
            "noisy, 8 draws + prior": lambda: self._scheduler("noisy", budget=8, prior=True),
            "noisy, 14 draws + prior": lambda: self._scheduler("noisy", budget=14, prior=True),
            "splice": lambda: self._scheduler("splice"),
            "splice + prior": lambda: self._scheduler("splice", prior=True),
            "splice + 8 draws": lambda: self._scheduler("splice", hunt=8),
            "splice + 8 draws + prior": lambda: self._scheduler("splice", hunt=8, prior=True),
            "splice + crossover + 8 draws": lambda: self._scheduler("splice", hunt=8, crossover=400),
            "splice + crossover + 8 draws + prior": lambda: self._scheduler(
                "splice", hunt=8, crossover=400, prior=True
            ),
            "splice + crossover + 32 draws": lambda: self._scheduler("splice", hunt=32, crossover=400),
            "splice + crossover + 32 draws + prior": lambda: self._scheduler(
                "splice", hunt=32, crossover=400, prior=True
            ),
        }
        outcomes = {name: run() for name, run in strategies.items() if not only or name in only}
        best = [
            max([truth, *(outcome.proved[i] for outcome in outcomes.values())]) for i, truth in enumerate(self.truth)
        ]
        columns = "completions tokens programs seconds agreement oracle labelled precision-of-−1 responses/s"
        print("| strategy | " + " | ".join(columns.split()) + " |")
        print("|---" * 10 + "|")
        return [self._row(name, outcome, best) for name, outcome in outcomes.items()]

    def _row(self, name: str, outcome: Outcome, truth: Sequence[int]) -> dict[str, object]:
        count = len(self.failed)
        agreement, coverage, precision = self._agreement(outcome.labels, truth)
        oracle, _, _ = self._agreement(outcome.labels, self.truth)
        row = {
            "strategy": name,
            "completions": outcome.completions / count,
            "tokens": outcome.tokens / count,
            "executions": outcome.executions / count,
            "seconds": outcome.seconds / count,
            "agreement": agreement,
            "agreement_oracle": oracle,
            "labelled": coverage,
            "precision_negative": precision,
            "responses_per_second": count / outcome.seconds,
        }
        print(
            f"| {name} | {row['completions']:.1f} | {row['tokens']:.0f} | {row['executions']:.0f} | "
            f"{row['seconds']:.3f} | {agreement:.3f} | {oracle:.3f} | {coverage:.3f} | "
            f"{precision:.3f} | {row['responses_per_second']:.1f} |"
        )
        return row

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

    def _scheduler(
        self,
        strategy: str,
        *,
        k: int = 20,
        draw: int = 5,
        hunt: int = 0,
        crossover: int = 0,
        budget: int = 14,
        prior: bool = False,
    ) -> Outcome:
        settings = LabelSettings(strategy=strategy, k=k, draw=draw, hunt=hunt, crossover=crossover, budget=budget)
        journal = self._scratch / f"{strategy}-{k}-{hunt}-{crossover}-{budget}-{prior}.jsonl"
        started = time.perf_counter()
        labelling = label_responses(
            self.responses,
            self.problems.values(),
            samplers={"policy": self._sampler},
            tokenizer=self._tokenizer,
            sandbox=self._sandbox,
            settings=settings,
            sampling=SAMPLING,
            seed=self._seed,
            journal=journal,
            surprise=PolicySurprise({"policy": self._sampler.model}) if prior else None,
        )
        seconds = time.perf_counter() - started
        made = [label for label in labelling.labels if not label.response.verdict.passed]
        return Outcome(
            labels=[label.labels for label in made],
            proved=[0 if prior and strategy == "splice" else _proved(label) for label in made],
            completions=labelling.usage.completions,
            tokens=labelling.usage.tokens,
            executions=labelling.usage.executions,
            seconds=seconds,
        )


def _proved(label: LineLabels) -> int:
    """The last line that a passing program begins with, as far as this strategy (without a prior) found one."""
    if label.strategy != "splice":
        return max((probe.line for probe in label.probes if probe.passed), default=0)
    return max((line for line, value in enumerate(label.labels, start=1) if value > 0), default=0)


if __name__ == "__main__":
    main()
