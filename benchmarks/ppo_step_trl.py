"""TRL's side of `ppo_step.py`, run by the Python of TRL's own environment. Prints one JSON object on its last line."""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from ppo_step_memory import peak_kb


def main() -> None:
    """`steps` PPO steps after one to warm up; the marks are taken where a step begins and where its sampling ends."""
    folder, job = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(job["threads"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / "policy", dtype="float32") for _ in range(2))
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(folder / name, num_labels=1, dtype="float32")
        for name in ("critic", "prm")
    )
    prompts = json.loads((folder / "prompts.json").read_text())
    config = PPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=job["micro"],
        gradient_accumulation_steps=job["batch"] // job["micro"],
        num_mini_batches=1,
        num_ppo_epochs=job["epochs"],
        local_rollout_forward_batch_size=job["batch"],
        total_episodes=job["batch"] * (job["steps"] + 2),
        response_length=job["response"],
        temperature=1.0,
        learning_rate=1e-5,
        num_sample_generations=0,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    marks: list[dict[str, float]] = []
    sample = ppo_trainer.batch_generation

    def marked(*arguments: Any) -> Any:
        began, cpu_began = time.perf_counter(), time.process_time()
        made = sample(*arguments)
        marks.append(
            {"at": began, "cpu_at": cpu_began, "tokens": made[1].shape[0] * made[1].shape[1]}
            | {"sample": time.perf_counter() - began, "cpu_sample": time.process_time() - cpu_began}
        )
        return made

    ppo_trainer.batch_generation = marked
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_dict({"input_ids": prompts * (job["steps"] + 2)}),
        eval_dataset=Dataset.from_dict({"input_ids": prompts}),
    )
    before = peak_kb()
    trainer.train()
    steps = [
        mark | {"step": following["at"] - mark["at"], "cpu_step": following["cpu_at"] - mark["cpu_at"]}
        for mark, following in itertools.pairwise(marks[1:])
    ]
    peak = peak_kb()
    print(json.dumps({"steps": steps, "before_mb": before / 1024, "peak_mb": peak / 1024}))


if __name__ == "__main__":
    main()
