"""What labels cost, counted: completions, tokens, programs judged, CPU seconds, and what sharing and stopping saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psgpo.records import LineLabels


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelUsage:
    """Counters of one labelling run, earlier interrupted runs included."""

    k: int
    """K: completions a probe may draw."""
    rounds: int
    """Batches drawn."""
    probes_asked: int
    """Questions the searches asked."""
    probes_drawn: int
    """Distinct probes that completions were drawn for."""
    probes_shared: int
    """Questions answered by the completions of an equal probe: same problem, prefix ids and completer."""
    probes_known: int
    """Questions answered by a program already known to pass and to begin with the prefix."""
    probes_without_room: int
    """Questions rejected because the prefix fills max_new_tokens."""
    completions: int
    tokens: int
    """Tokens generated in completions."""
    executions: int
    """Completed programs judged, distinct within a probe's batch. The responses themselves are not among them."""
    full_completions: int
    """K x probes_drawn: what the same probes cost without stopping early. `completions` for strategies that do not ask
    K at a probe (noisy, splice): they have nothing to stop."""
    cpu_seconds: float
    """CPU time of the labelling process (sampling, decoding)."""
    sandbox_cpu_seconds: float
    """CPU time of the judged programs; programs known to the verdict cache cost 0."""
    reused: int = 0
    """Completions that answered questions about another prefix than the one they were drawn for."""
    refused: int = 0
    """Completions whose ids could not be proved (a server that returns text): they answered nothing."""
    generation_seconds: float = 0.0
    """Wall time in the samplers."""
    waiting_seconds: float = 0.0
    """Wall time in which the labelling process waited for verdicts and had nothing to generate."""
    row_steps: int = 0
    """Rows computed in decoding passes; 0 where the samplers do not count them."""
    slot_steps: int = 0
    """Rows there was room for in these passes: their number times the batch size."""


def merge_usage(usages: Sequence[LabelUsage]) -> LabelUsage:
    """Counters of shards labelled apart, as one; all with the same K."""
    assert usages
    assert len({usage.k for usage in usages}) == 1
    parts = [asdict(usage) for usage in usages]
    return LabelUsage(**{key: parts[0][key] if key == "k" else sum(part[key] for part in parts) for key in parts[0]})


def cost_summary(labels: Sequence[LineLabels], usage: LabelUsage) -> dict[str, Any]:
    """Totals and what one response, one failed response, one line cost. JSON values; a mean over nothing is None.

    `early_stop_saving` and `sharing_saving` are shares: 1 - completions / full_completions, and answers without own
    completions / questions asked. `generation_utilisation` is the share of batch slots that gave a token that was kept,
    `row_utilisation` the share of computed rows that did. The keys of `usage` are totals; `per_response`,
    `per_failed_response` and `per_line` (lines of failed responses) hold means of completions, tokens, executions and
    CPU seconds (the process's and the programs' together).
    """
    failed = [label for label in labels if not label.response.verdict.passed]
    totals = {
        "completions": sum(label.completions for label in labels),
        "tokens": sum(label.tokens for label in labels),
        "executions": sum(label.executions for label in labels),
        "cpu_seconds": usage.cpu_seconds + usage.sandbox_cpu_seconds,
    }
    lines = sum(len(label.labels) for label in failed)
    free = usage.probes_shared + usage.probes_known
    return asdict(usage) | {
        "responses": len(labels),
        "failed_responses": len(failed),
        "lines": sum(len(label.labels) for label in labels),
        "failed_lines": lines,
        "early_stop_saving": _ratio(usage.full_completions - usage.completions, usage.full_completions),
        "sharing_saving": _ratio(free, usage.probes_asked),
        "generation_utilisation": _ratio(usage.tokens, usage.slot_steps),
        "row_utilisation": _ratio(usage.tokens, usage.row_steps),
        "per_response": {key: _ratio(total, len(labels)) for key, total in totals.items()},
        "per_failed_response": {key: _ratio(total, len(failed)) for key, total in totals.items()},
        "per_line": {key: _ratio(total, lines) for key, total in totals.items()},
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
