"""psgpo's side of `ppo_step.py`. Prints one JSON object on its last line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from ppo_step_memory import peak_kb
from psgpo.config import ArmSettings, RlSettings, SamplingSettings
from psgpo.execution import Sandbox
from psgpo.models import TokenValueModel, load_policy
from psgpo.prm import PrmScorer
from psgpo.records import Call, CallTests, Problem, Status, Verdict
from psgpo.rl.ppo import PpoTrainer
from psgpo.rl.rollout import PrmLineScorer


class NoSandbox:
    """TRL grades nothing, so neither does this side: every second program passes."""

    def grade(self, items: Sequence[Any]) -> list[Verdict]:
        right, wrong = (
            Verdict(status=status, tests_passed=int(status is Status.PASSED), tests_total=1)
            for status in (Status.PASSED, Status.WRONG_ANSWER)
        )
        return [right if number % 2 else wrong for number, _ in enumerate(items)]


def main() -> None:
    """`steps` PPO steps after one to warm up."""
    folder, job = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(job["threads"])
    policy, tokenizer = load_policy(folder / "policy")
    reference, _ = load_policy(folder / "policy")
    prompts = json.loads((folder / "prompts.json").read_text())
    problem = Problem(id="p", prompt="p", tests=CallTests(function="solve", calls=(Call(args=(1,), expected=1),)))
    trainer = PpoTrainer(
        policy=policy,
        reference=reference,
        critic=TokenValueModel.from_pretrained(folder / "critic-tokens"),
        tokenizer=tokenizer,
        sandbox=cast(Sandbox, NoSandbox()),
        arm=ArmSettings(line_reward="sum", prm="prm"),
        rl=RlSettings(
            steps=job["steps"] + 1,
            prompts_per_step=job["batch"],
            epochs=job["epochs"],
            minibatches=1,
            microbatch_tokens=job["micro"] * (job["prompt"] + job["response"]),
            policy_learning_rate=1e-5,
            critic_learning_rate=1e-5,
            checkpoints=1,
        ),
        sampling=SamplingSettings(max_new_tokens=job["response"]),
        out=folder / "psgpo",
        seed=1,
        scorer=PrmLineScorer(PrmScorer(folder / "prm-tokens")),
    )
    before = peak_kb()
    items = [(problem, tuple(ids)) for ids in prompts]
    cpu_sample = 0.0
    sample = trainer.sampler.sample

    def marked(*arguments: Any, **options: Any) -> Any:
        nonlocal cpu_sample
        began = time.process_time()
        made = sample(*arguments, **options)
        cpu_sample = time.process_time() - began
        return made

    trainer.sampler.sample = marked  # type: ignore[method-assign]
    steps = []
    for step in range(job["steps"] + 2):
        # The first two are to warm up: the very first needs no reference.
        began = time.process_time()
        row = trainer.step(step, items)
        steps.append(
            {"sample": row["seconds_sample"], "step": row["seconds_step"], "cpu_sample": cpu_sample}
            | {"cpu_step": time.process_time() - began, "tokens": row["tokens_per_response"] * job["batch"]}
        )
    peak = peak_kb()
    print(json.dumps({"steps": steps[2:], "before_mb": before / 1024, "peak_mb": peak / 1024}))


if __name__ == "__main__":
    main()
