"""Which tasks a command is about: a benchmark by name, OpChain, or a file of problems, and the usual limits of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from psgpo.errors import UserError

if TYPE_CHECKING:
    from psgpo.execution import Limits
    from psgpo.records import Problem

OPCHAIN = "opchain"
OPCHAIN_LIMITS = {"timeout": 0.5, "memory_mb": 96}
"""An honest OpChain program takes milliseconds and a few megabytes."""

Problems = Annotated[
    str,
    typer.Option(help="mbpp, humaneval, ..., opchain, or a JSON Lines file of problems.", show_default=False),
]
Operations = Annotated[str, typer.Option(help="opchain: fewest-most operations.", rich_help_panel="Which tasks")]


def load_tasks(
    name: str,
    data: Path | None,
    filters: dict[str, Any],
    operations: str,
    seed: int,
    confinement: dict[str, Any],
    workers: int,
) -> list[Problem]:
    """The problems of `--problems`.

    Args:
        data: the benchmark's own file; None to fetch it.
        filters: split, platform, difficulty, since, until, limit; None for one that was not given.
        operations: opchain's fewest-most.
        seed: of opchain's problems.
        confinement: `require` and `allow_unconfined` of the sandbox that runs reference solutions.

    Raises:
        UserError: an unknown name, a broken file, an option that does not apply.
    """
    given = {key: value for key, value in filters.items() if value is not None}
    if name == OPCHAIN:
        from psgpo.problems.opchain import OpChain, OpChainSettings

        wrong = sorted(given.keys() - {"split", "limit"} | ({"data"} if data else set()))
        if wrong:
            raise UserError(f"--{', --'.join(wrong)}: opchain takes --split, --limit and --operations only")
        low, dash, high = operations.partition("-")
        if not low.isdigit() or (dash and not high.isdigit()):
            raise UserError(f"--operations {operations!r}: write fewest-most, e.g. 1-6")
        chain = OpChain(OpChainSettings(seed=seed))
        return chain.problems(given.get("split", "train"), given.get("limit", 200), (int(low), int(high or low)))
    from psgpo.execution import Sandbox
    from psgpo.problems.benchmarks import BENCHMARKS, load_benchmark

    if name not in BENCHMARKS:  # a file holds what its references return
        return load_benchmark(name, data, **given)
    with Sandbox(workers=workers, timeout=60.0, memory_mb=1024, **confinement) as references:
        return load_benchmark(name, data, evaluate=references.evaluate_many, **given)


def limits_of_tasks(name: str, *, of_files: dict[str, Any] | None = None, **given: Any) -> Limits:
    """What a program may use: the usual limits of the tasks, but for those that are given and not None.

    Args:
        of_files: usual limits of a file of problems, where a command has its own.
    """
    from psgpo.evaluation.benchmark import limits_of
    from psgpo.problems.benchmarks import BENCHMARKS

    usual = OPCHAIN_LIMITS if name == OPCHAIN else {} if name in BENCHMARKS else of_files or {}
    return limits_of(name, **(usual | {key: value for key, value in given.items() if value is not None}))
