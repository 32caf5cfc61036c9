"""Scripts that pages name: which test runs each, since a page's own commands take minutes to days."""

from __future__ import annotations

from docs_world import Command

SMALL = "tests/benchmarks/test_scripts.py"
SCRIPTS = {
    "benchmarks/grading.py": "tests/execution/test_grading_benchmark.py",
    "benchmarks/label_scheduler.py": SMALL,
    "benchmarks/label_value.py": SMALL,
    "benchmarks/labelling.py": SMALL,
    "benchmarks/plan_memory.py": "tests/runs/test_plan_memory.py",
    "benchmarks/ppo_step.py": "tests/rl/test_ppo_benchmark.py",
    "benchmarks/prm_kinds.py": SMALL,
    "benchmarks/prm_mutants.py": SMALL,
    "benchmarks/prm_shift.py": "tests/benchmarks/test_prm_shift.py",
    "benchmarks/processes.py": SMALL,
    "benchmarks/report_open.py": SMALL,
    "benchmarks/samplers.py": SMALL,
    "benchmarks/sampling.py": SMALL,
    "benchmarks/sft_optimizers.py": SMALL,
    "benchmarks/splice_humaneval.py": SMALL,
    "benchmarks/study": "tests/benchmarks/test_study_run.py",
    "examples/tutorial.py": "tests/docs/test_tutorial.py",
}
IN_PART = {
    "benchmarks/grading.py": "its contenders and tables; its peers want an environment of their own",
    "benchmarks/ppo_step.py": "our side and the tables; TRL's side wants an environment of its own",
    "benchmarks/processes.py": "one process",
    "benchmarks/samplers.py": "`hf` alone; vLLM wants an environment of its own",
}
"""What the test runs, where that is not the whole script."""


def script_of(command: Command) -> str:
    """The script of ours that a command starts, by whatever launcher; empty for none."""
    return next((word for word in command.words if word.startswith(("benchmarks/", "examples/"))), "")


def tested_elsewhere(script: str) -> str:
    """Why a page's command with this script is not run."""
    part = f" ({IN_PART[script]})" if script in IN_PART else ""
    return f"{SCRIPTS[script]} runs {script} at a small size{part}"
