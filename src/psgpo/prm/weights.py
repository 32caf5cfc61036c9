"""Class weights and label smoothing, as changes of the examples: the loss stays what it is.

- balanced: a line of class c weighs N / (2 N_c), N lines that speak, N_c of them of its class. Both classes then weigh
  the same, and N lines weigh N together.
- smoothing ε: a target t becomes (1 - ε) t, a probability p becomes (1 - ε) p + ε / 2. Both mix the label with a fair
  coin.

A target between the classes (soft labels, neutral lines) counts for the class of its sign; 0 keeps weight 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from psgpo.config import PrmSettings
from psgpo.errors import UserError
from psgpo.prm.data import PrmExample
from psgpo.prm.texts import TextExample, both_classes

Weigh = Callable[[PrmExample], PrmExample]


def class_weights(examples: Sequence[PrmExample]) -> tuple[float, float]:
    """(weight of bad lines, weight of good lines).

    Raises:
        UserError: one class does not occur.
    """
    pairs = [(t, w) for e in examples for t, w in zip(e.targets, e.weights, strict=True)]
    bad = sum(weight for target, weight in pairs if target < 0)
    good = sum(weight for target, weight in pairs if target > 0)
    if not bad or not good:
        missing = "bad" if not bad else "good"
        raise UserError(f"class_weights = 'balanced': no {missing} line to train on; label more, or use 'none'")
    return (bad + good) / (2 * bad), (bad + good) / (2 * good)


def line_weights(examples: Sequence[PrmExample], settings: PrmSettings) -> Weigh:
    """What the settings do to an example; the classes are counted in `examples`."""
    bad, good = class_weights(examples) if settings.class_weights == "balanced" else (1.0, 1.0)
    keep = 1 - settings.label_smoothing

    def weigh(example: PrmExample) -> PrmExample:
        factors = [bad if target < 0 else good if target > 0 else 1.0 for target in example.targets]
        return dataclasses.replace(
            example,
            targets=tuple(target * keep for target in example.targets),
            weights=tuple(weight * factor for weight, factor in zip(example.weights, factors, strict=True)),
        )

    return (lambda example: example) if (bad, good, keep) == (1.0, 1.0, 1.0) else weigh


def weighed_texts(examples: Sequence[TextExample], settings: PrmSettings) -> list[TextExample]:
    """What the settings do to text examples; 1/2 counts for neither class.

    Raises:
        UserError: one class does not occur.
    """
    bad, good = both_classes(examples, "examples to train on")
    half = (bad + good) / 2
    low, high = (half / bad, half / good) if settings.class_weights == "balanced" else (1.0, 1.0)
    smooth = settings.label_smoothing
    return [
        dataclasses.replace(
            example,
            target=(1 - smooth) * example.target + smooth / 2,
            weight=example.weight * (low if example.target < 0.5 else high if example.target > 0.5 else 1.0),
        )
        for example in examples
    ]
