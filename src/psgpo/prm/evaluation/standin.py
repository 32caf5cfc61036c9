"""Until psgpo.prm.open_scorer is merged."""

# mypy: ignore-errors
from types import SimpleNamespace

import numpy as np

from psgpo.prm.score import PrmScorer
from psgpo.prompts import fill


class TextScorer:
    def __init__(self, folder, device):
        self.inner = PrmScorer(folder, device=device)
        self.threshold = 0.0
        self.record = SimpleNamespace(target="sign", prompt_template="# {prompt}\n", calibration=None)

    def score_lines(self, problem, code):
        return self.inner.score_lines(fill(self.record.prompt_template, problem), code)

    def score_many(self, pairs):
        return [self.score_lines(*pair) for pair in pairs]


def open_scorer(folder, *, device="cpu"):
    return TextScorer(folder, device)


def probabilities(scores, calibration, target):
    return np.clip((scores + 1) / 2, 0, 1)
