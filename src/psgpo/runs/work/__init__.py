"""The bodies of the stages: read the run directory, call the algorithm, write the run directory."""

from psgpo.runs.work.labels import label_linear, label_shard, make_label_twins, merge_labels, sample_labelled_responses
from psgpo.runs.work.mutants import make_mutants
from psgpo.runs.work.outcome import evaluate, write_report
from psgpo.runs.work.policy import arm_trainer, make_problems, train_arm, train_policy
from psgpo.runs.work.reward_model import train_reward_model
from psgpo.runs.work.shared import Progress, one_thread

__all__ = [
    "Progress",
    "arm_trainer",
    "evaluate",
    "label_linear",
    "label_shard",
    "make_label_twins",
    "make_mutants",
    "make_problems",
    "merge_labels",
    "one_thread",
    "sample_labelled_responses",
    "train_arm",
    "train_policy",
    "train_reward_model",
    "write_report",
]
