"""The label scheduler on the embedded benchmark: is the batch full, and is grading hidden behind generation?

    python benchmarks/label_scheduler.py [--model FOLDER] [--failed 1100] [--k 8]

The same failed responses are labelled with one lane (generate, then judge) and with two (judge while the other lane is
generated), with and without filling up small batches; all in one run, each from an empty journal. Columns:

    slots        share of batch slots (decoding steps x batch size) that gave a token that was kept
    rows         share of computed rows that did: finished rows leave the batch, so few slots cost little on a CPU
    waited       share of the wall time in which nothing was generated because verdicts were missing
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from psgpo.config import LabelSettings, SamplingSettings, SftSettings
from psgpo.execution import Sandbox
from psgpo.labeling import cost_summary, label_responses, sample_responses, scheduler
from psgpo.models import create_policy, load_policy, train_tokenizer
from psgpo.problems.opchain import OpChain, OpChainSettings
from psgpo.records import Problem, Response
from psgpo.sampling import HFSampler
from psgpo.sft import train_sft

TEMPLATE = "# {prompt}\n"
CASES = {
    "one lane": {"lanes": 1, "fill": False},
    "two lanes": {"lanes": 2, "fill": False},
    "two lanes, filled": {"lanes": 2, "fill": True},
}


def main() -> None:
    """Sample, label in every way, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a policy's folder; without it one is trained")
    parser.add_argument("--sft-examples", type=int, default=24_000)
    parser.add_argument("--failed", type=int, default=1_100, help="failed responses to label")
    parser.add_argument("--in-flight", type=int, default=1_024)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--draw", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=1, help="times that every case is run, in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=CASES, help="cases to run")
    parser.add_argument("--keep", type=Path, help="folder for the journals")
    parser.add_argument("--out", type=Path, help="write the rows as JSON too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chain = OpChain(OpChainSettings(seed=options.seed, sparseness=0.4))
    sampling = SamplingSettings(max_new_tokens=200, batch_size=options.batch_size)
    with tempfile.TemporaryDirectory() as scratch:
        model, tokenizer = load_policy(options.model or _train(chain, options.sft_examples, Path(scratch)))
        sampler = HFSampler(model, tokenizer, batch_size=options.batch_size)
        with Sandbox(workers=1, timeout=0.25, memory_mb=96) as sandbox:
            problems, responses = _responses(chain, sampler, tokenizer, sandbox, sampling, options)
            rows = []
            print("| | responses/s | slots | rows | waited | completions | programs | rounds | seconds |")
            print("|---" * 9 + "|")
            for turn in range(options.repeat):
                for name in options.only:
                    case = CASES[name]
                    scheduler.LANES = case["lanes"]
                    started = time.perf_counter()
                    labelling = label_responses(
                        responses,
                        problems,
                        samplers={"policy": sampler},
                        tokenizer=tokenizer,
                        sandbox=sandbox,
                        settings=LabelSettings(
                            k=options.k, draw=options.draw, in_flight=options.in_flight, fill=bool(case["fill"])
                        ),
                        sampling=sampling,
                        seed=options.seed,
                        journal=(options.keep or Path(scratch)) / f"{name}-{turn}.jsonl",
                    )
                    summary = cost_summary(labelling.labels, labelling.usage)
                    rows.append(_row(name, summary, time.perf_counter() - started))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


def _train(chain: OpChain, examples: int, scratch: Path) -> Path:
    pairs = [(TEMPLATE.format(prompt=e.prompt), e.solution) for e in chain.sft_examples(examples)]
    tokenizer = train_tokenizer([prompt + code for prompt, code in pairs[:3000]])
    policy = create_policy(tokenizer)
    train_sft(policy, tokenizer, pairs, SftSettings(examples=examples), out=scratch / "sft", seed=0)
    return scratch / "sft" / "model"


def _responses(
    chain: OpChain,
    sampler: HFSampler,
    tokenizer: Any,
    sandbox: Sandbox,
    sampling: SamplingSettings,
    options: argparse.Namespace,
) -> tuple[Sequence[Problem], list[Response]]:
    """Eight responses per problem, until enough fail; the passing ones come along."""
    problems = chain.problems("train", options.failed // 2, (3, 8))
    responses: list[Response] = []
    failed = 0
    for start in range(0, len(problems), 64):
        drawn = sample_responses(
            sampler,
            tokenizer,
            problems[start : start + 64],
            sandbox,
            checkpoint="policy",
            responses_per_problem=8,
            seed=options.seed,
            prompt_template=TEMPLATE,
            settings=sampling,
        )
        for response in drawn:
            if failed < options.failed:
                responses.append(response)
                failed += not response.verdict.passed
    print(f"{len(responses)} responses, {failed} fail; {options.in_flight} in flight, batch size {options.batch_size}")
    return problems, responses


def _row(name: str, summary: dict[str, Any], seconds: float) -> dict[str, Any]:
    row = {
        "case": name,
        "responses_per_second": summary["failed_responses"] / seconds,
        "slots": summary["generation_utilisation"],
        "rows": summary["row_utilisation"],
        "waited": summary["waiting_seconds"] / seconds,
        "generated": summary["generation_seconds"] / seconds,
        "completions": summary["per_failed_response"]["completions"],
        "executions": summary["executions"] / summary["failed_responses"],
        "sandbox_cpu_seconds": summary["sandbox_cpu_seconds"],
        "rounds": summary["rounds"],
        "seconds": seconds,
    }
    print(
        f"| {name} | {row['responses_per_second']:.1f} | {row['slots']:.3f} | {row['rows']:.3f} "
        f"| {row['waited']:.3f} | {row['completions']:.1f} | {row['executions']:.1f} "
        f"| {row['rounds']} | {seconds:.1f} |",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
