"""Process reward models: data, training, scoring, measuring."""

from psgpo.prm.assess import assess_prm
from psgpo.prm.data import (
    ExactLines,
    ExactRecord,
    PrmExample,
    build_examples,
    load_exact,
    response_key,
    split_by_problem,
)
from psgpo.prm.measure import ScoredResponse, measure
from psgpo.prm.record import ScorerRecord
from psgpo.prm.score import PrmScorer
from psgpo.prm.scorers import TextScorer, open_scorer
from psgpo.prm.train import train_prm

__all__ = [
    "ExactLines",
    "ExactRecord",
    "PrmExample",
    "PrmScorer",
    "ScoredResponse",
    "ScorerRecord",
    "TextScorer",
    "assess_prm",
    "build_examples",
    "load_exact",
    "measure",
    "open_scorer",
    "response_key",
    "split_by_problem",
    "train_prm",
]
