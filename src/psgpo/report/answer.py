"""The paragraph at the top and the box about seeds, written from the numbers. Pure.

A difference is called one only when its 95 % interval excludes zero; arms with exact labels are kept apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from psgpo.report.aggregate import BASELINE, Experiment, SeedEstimate, difference, pass_at_1
from psgpo.report.cells import Show, between, percent, plain, points
from psgpo.report.stage_tables import dig, label_intervals, prm_interval


def answer(data: Experiment) -> list[str]:
    """What the run shows: how the arms did, in sentences."""
    sentences = [_start(data), *_arms(data)]
    missing = [policy for policy in data.policies if len(data.with_evaluation(policy)) < len(data.runs)]
    if missing:
        sentences.append(f"Not evaluated yet: {join(missing)}.")
    if len(data.runs) == 1 and len(missing) < len(data.arms):
        sentences.append("Every arm was trained once: other training seeds may order them otherwise.")
    return sentences


def details(data: Experiment) -> list[str]:
    """What stood behind it: labels and PRMs, in sentences."""
    sentences = [*_labels(data), *_prms(data)]
    several = len(data.runs) > 1 and sentences
    return [f"Of seed {data.first.recipe.seed}:", *sentences] if several else sentences


def _start(data: Experiment) -> str:
    sft, baseline = pass_at_1(data, "sft"), pass_at_1(data, BASELINE)
    if sft is None and baseline is None:
        return "No policy has been evaluated yet, so this run cannot say which arm is better."
    known = baseline or sft
    assert known is not None
    where = f"On {known.n_problems} test problems" + (f" ({data.part.title})" if data.part else "")
    over = f", as a mean of {len(data.runs)} training seeds," if len(data.runs) > 1 else ""
    if sft is None or baseline is None:
        name = "after supervised fine-tuning" if baseline is None else "of the RL baseline"
        return f"{where}{over} {percent(known.mean)} of the responses {name} pass."
    return (
        f"{where}{over} {percent(sft.mean)} of the responses pass after supervised fine-tuning, and "
        f"{percent(baseline.mean)} after RL with unit-test rewards alone, the baseline."
    )


def _arms(data: Experiment) -> list[str]:
    found = [(arm, difference(data, arm)) for arm in data.arms if arm != BASELINE]
    known = [(arm, estimate) for arm, estimate in found if estimate is not None]
    method = [(arm, estimate) for arm, estimate in known if not data.is_oracle(arm)]
    sentences = []
    above = sorted((pair for pair in method if pair[1].sign > 0), key=lambda pair: -pair[1].mean)
    below = sorted((pair for pair in method if pair[1].sign < 0), key=lambda pair: pair[1].mean)
    same = [pair for pair in method if pair[1].sign == 0]
    if above:
        sentences.append(f"Above the baseline on the same problems: {named(above)}.")
    if below:
        sentences.append(f"Below it: {named(below)}.")
    if same:
        sentences.append(f"Not distinguishable from the baseline here: {named(same)}.")
    oracle = [pair for pair in known if data.is_oracle(pair[0])]
    if oracle:
        sentences.append(
            f"With exact labels in place of learned ones, an upper bound and not the method: {named(oracle)}."
        )
    return sentences


def named(pairs: Sequence[tuple[str, SeedEstimate]]) -> str:
    """Policies with their differences, as a list in words."""
    return join([f"{arm} ({points(e.mean)} points{_interval(e)})" for arm, e in pairs])


def _interval(found: SeedEstimate) -> str:
    return "" if math.isnan(found.low) else f", {points(found.low)} to {points(found.high)}"


def _labels(data: Experiment) -> list[str]:
    summary = data.first.label_summary
    completions = dig(summary, "cost.per_failed_response.completions")
    agreement, majority = dig(summary, "quality.agreement"), dig(summary, "quality.majority")
    if math.isnan(completions):
        return []
    strategy = data.first.recipe.labels.strategy.replace("-", " ")
    sentence = f"Labels by {strategy} took {plain(completions)} completions per failed response"
    if not math.isnan(agreement):
        ends = _ends(label_intervals(data.first, data.first.labels).get("agreement"), lambda v: percent(v, 0))
        sentence += f" and agree with exact labels on {percent(agreement, 0)}{ends} of its lines"
        sentence += f" (a constant label: {percent(majority, 0)})"
    return [sentence + "."]


def _prms(data: Experiment) -> list[str]:
    parts = []
    for name, prm in data.first.prm.items():
        truth = "exact" if (prm.measure or {}).get("exact") else "search"
        auroc, first = dig(prm.measure, f"{truth}.lines.auroc"), dig(prm.measure, f"{truth}.first_error.exact")
        if not math.isnan(auroc):
            found = (
                ""
                if math.isnan(first)
                else f" and finds the first bad line of {percent(first, 0)} of the wrong programs"
            )
            source = data.first.recipe.labels.source
            against = "the verdicts on mutants" if (truth, source) == ("search", "mutation") else f"{truth} labels"
            ends = _ends(prm_interval((prm.measure or {}).get(truth), "auroc"), lambda v: f"{v:.2f}")
            parts.append(f"“{name}” has AUROC {auroc:.2f}{ends} against {against}{found}")
    held_out = "mutants" if data.first.recipe.labels.source == "mutation" else "responses"
    return [f"On held-out {held_out} the PRM {'; '.join(parts)}."] if parts else []


def _ends(interval: tuple[float, float] | None, show: Show) -> str:
    """A 95 % interval in brackets; empty where there is none."""
    found = between(*interval, show) if interval is not None else ""
    return f" ({found})" if found else ""


def join(parts: Sequence[str]) -> str:
    """Words as a list: a, b and c."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else ""


def seed_note(data: Experiment) -> list[str]:
    """What one seed can and cannot show; empty with several."""
    if len(data.runs) > 1:
        return []
    compared = len(data.arms) - 1
    notes = [
        "It can show that these trained policies differ: an interval covers which problems were picked and which "
        "responses were drawn, paired on the same problems.",
        "It cannot show that training again would give the same difference. Another seed of the same arm is another "
        "policy, and baselines alone can lie several points apart; no interval here contains that.",
    ]
    if compared > 1:
        notes.append(
            f"{compared} arms are compared with the baseline, each at 95 %: the more arms, the likelier that one "
            "interval excludes zero by chance, and the best-looking one looks better than it is."
        )
    return notes
