"""Where problems come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from psgpo.config.base import Positive, PositiveFloat, Range, Section, ordered

BenchmarkName = Literal["humaneval", "humanevalplus", "mbpp", "mbpp-sanitized", "mbppplus", "livecodebench"]
"""As `psgpo.problems.benchmarks.BENCHMARKS` has them."""
STRONGER = {"mbppplus": ("mbpp", "mbpp-sanitized"), "humanevalplus": ("humaneval",)}
"""Benchmarks with more tests for the tasks of others."""
TESTS = 8
"""Hidden tests of a problem of the embedded benchmark."""
TaskNumber = Annotated[int, Field(ge=0)]


class OpChainSource(Section):
    """The embedded benchmark, made from a seed. See docs/opchain.md."""

    kind: Literal["opchain"] = "opchain"
    """The embedded benchmark."""
    sparseness: PositiveFloat = 1.1
    """Scales the misconception rates of the SFT data: higher means fewer programs pass at first."""
    train: Positive = 2000
    """Problems for RL."""
    train_operations: Range = (6, 9)
    """Fewest and most operations of a training problem."""
    train_tests: Annotated[int, Field(gt=0, le=TESTS)] | None = None
    """For studies of weak tests: how many of a problem's 8 hidden tests RL and labelling have, the first of them.
    Validation, test and exact labels keep all; `strength.json` says what those left miss. Absent: all."""
    label: Positive = 200
    """Problems whose responses are labelled; from the training split."""
    label_operations: Range = (1, 6)
    """Shorter than the training problems: on long programs the policy cannot complete even good prefixes."""
    validation: Positive = 128
    """Copied into the run beside the others; no stage reads it."""
    test: Positive = 256
    """Held-out problems of the evaluation."""
    test_operations: Range = (1, 8)
    """Of validation and test problems."""


class JsonlSource(Section):
    """Your own problems, one `Problem` record a line."""

    kind: Literal["jsonl"]
    """Your own problems."""
    train: Path
    """Problems for RL."""
    test: Path
    """Held-out problems of the evaluation; none may be among those that are trained on."""
    validation: Path | None = None
    """Copied into the run beside the others; no stage reads it."""
    label: Path | None = None
    """Problems to label; the training problems when absent."""


class TaskRange(Section):
    """Tasks of a public benchmark."""

    benchmark: BenchmarkName
    """Its name."""
    ids: Annotated[tuple[TaskNumber, TaskNumber], AfterValidator(ordered)] | None = None
    """First and last number of the tasks' ids, both included; absent: all tasks."""

    @model_validator(mode="after")
    def _ids_are_numbers(self) -> Self:
        if self.ids is not None and self.benchmark == "livecodebench":
            raise ValueError("ids: tasks of livecodebench have no numbers; leave ids out")
        return self


class BenchmarkSource(Section):
    """Public benchmarks, a range of tasks for each purpose. See docs/benchmarks.md for the files.

    A problem's prompt is its text as the benchmark has it: of MBPP the sentence and the tests, of HumanEval the code.
    """

    kind: Literal["benchmark"]
    """Public benchmarks."""
    data: dict[BenchmarkName, Path] = {}  # noqa: RUF012 (pydantic copies it)
    """A benchmark's own data file; those that are not named come from the Hugging Face Hub."""
    train: TaskRange
    """Problems for RL."""
    sft: TaskRange | None = None
    """Problems whose reference solutions SFT learns; absent: the training problems."""
    label: TaskRange | None = None
    """Problems that are labelled: responses to them, or mutants of their solutions (`labels.source`). Absent: the
    training problems, for mutants those of SFT."""
    plus: Literal["mbppplus", "humanevalplus"] | None = None
    """A benchmark with more tests for the labelled tasks, for the verdicts on mutants."""
    test: Annotated[dict[str, TaskRange], Field(min_length=1)]
    """Test sets by name. Each is measured and reported apart; the first one is the report's."""
    test_trained: Literal["refuse", "report"] = "refuse"
    """Test problems that are trained on too: refuse the recipe, or report every test set twice, as a whole and without
    them."""

    @model_validator(mode="after")
    def _plus_strengthens(self) -> Self:
        labelled = (self.label or self.sft or self.train).benchmark
        if self.plus is not None and labelled not in STRONGER[self.plus]:
            raise ValueError(
                f"plus = {self.plus!r} has tests for {' and '.join(STRONGER[self.plus])}, but the mutants are of "
                f"{labelled}; leave it out or set label.benchmark"
            )
        return self
