"""Evaluation: pass@k on held-out problems. Importing this package loads no torch; `evaluate` does."""

from psgpo.evaluation.metrics import (
    Estimate,
    best_of_k_curve,
    bootstrap_mean,
    mean_pass_at_k,
    paired_difference,
    paired_seed_difference,
    pass_at_k,
    pass_at_k_by_group,
    problem_pass_at_k,
)
from psgpo.evaluation.summary import read_results, summarise

__all__ = [
    "Estimate",
    "best_of_k_curve",
    "bootstrap_mean",
    "mean_pass_at_k",
    "paired_difference",
    "paired_seed_difference",
    "pass_at_k",
    "pass_at_k_by_group",
    "problem_pass_at_k",
    "read_results",
    "summarise",
]
