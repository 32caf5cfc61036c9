"""Exact labels of evaluation samples: a run asks its oracle about the labelled responses only. No torch.

As in the run's own stages, programs run in the sandbox with the recipe's limits. Nothing is written into the run.
"""

from __future__ import annotations

from dataclasses import replace

from psgpo.errors import UserError
from psgpo.execution import Sandbox, SandboxError
from psgpo.inspect_page.source import Source
from psgpo.problems.opchain.oracle import ExactOracle
from psgpo.report.load import Exact

NO_PROBLEM = "the problem is in none of the run's problem files, so the oracle cannot be asked"


def with_exact(source: Source) -> Source:
    """The source with exact labels of all its entries; a file, and a run without an oracle, as it is.

    Where an entry has none, because the sandbox cannot be had here or its problem is not there, `no_exact` says why.
    """
    if not source.embedded:
        return source
    asked = [
        number
        for number, entry in enumerate(source.entries)
        if entry.exact is None and entry.response.problem_id in source.problems
    ]
    source = replace(source, no_exact=NO_PROBLEM)
    if not asked:
        return source
    assert source.run is not None
    try:
        sandbox = Sandbox(**source.run.recipe.sandbox.limits())
    except UserError as error:  # the machine cannot confine programs; all else can be shown
        return replace(source, no_exact=str(error))
    responses = [source.entries[number].response for number in asked]
    items = [(source.problems[response.problem_id], response.text) for response in responses]
    try:
        with sandbox:
            labels = ExactOracle(sandbox.evaluate_many).label(items)
    except SandboxError as error:  # its self-test failed
        return replace(source, no_exact=str(error))
    entries = list(source.entries)
    for number, label in zip(asked, labels, strict=True):
        exact = Exact(last_on_track=label.last_on_track, lines=label.lines, progress=label.progress)
        entries[number] = replace(entries[number], exact=exact)
    return replace(source, entries=tuple(entries))
