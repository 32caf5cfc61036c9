"""`summary.json` as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
SHOWN_KINDS = 20
"""Of errors, in the text."""


def render(summary: Json) -> str:
    """Tables for a terminal: scorers, groups of lines, probes."""
    data = summary["data"]
    parts = [
        f"{data['programs']} programs of {data['problems']} problems: {data['right']} right, {data['wrong']} wrong, "
        f"{data['unknown']} unknown",
        f"{data['labelled']} labelled lines; {data['counted']} with each prefix once, {data['good']} of them good",
        "",
        *_scorers(summary["scorers"]),
        "",
        *_groups(summary["scorers"]),
    ]
    if summary["probes"]:
        parts += ["", *_probes(summary["probes"], summary["probe_threshold"])]
    return "\n".join([*parts, ""])


def _scorers(scorers: Json) -> list[str]:
    head = (
        f"{'':<22}{'AUROC':>7}{'accuracy':>10}{'F1 good':>9}{'F1 bad':>8}{'1st error':>11}{'within 1':>10}{'right':>7}"
    )
    rows = [f"{head}{'F1':>7}{'ECE':>7}"]
    for name, scorer in scorers.items():
        calibrated = scorer["calibration"]
        best = calibrated.get("calibrated") or calibrated.get("raw") or {"ece": math.nan}
        for way in ("own", "fitted"):
            if way in scorer:
                d = scorer[way]
                label = f"{name}, own threshold" if way == "own" else name
                rows.append(f"{label:<22}{_decisions(d)}{_number(best['ece'], 7)}")
    name, scorer = next(iter(scorers.items()))
    shown = {"AUROC": "auroc", "accuracy": "accuracy", "F1 bad": "f1_bad"}
    shown |= {"1st error": "first_error_exact", "F1": "first_error_f1"}
    for way in ("own", "fitted"):
        if way in scorer:
            found = scorer[way]["intervals"]
            parts = [f"{label} {_interval(found[key])}" for label, key in shown.items()]
            rows.append(f"95 % of {name}{', own threshold' if way == 'own' else ''}: {'; '.join(parts)}")
    rows.append(
        "1st error, within 1: of wrong programs. right: right programs called right. F1: of 1st error and right."
    )
    rows.append("Thresholds are those that suit the other half of the problems, where it does not say own.")
    return rows


def _decisions(d: Json) -> str:
    lines, first = d["lines"], d["first_error"]
    return (
        f"{_number(lines['auroc'], 7)}{_number(lines['accuracy'], 10)}{_number(lines['f1_good'], 9)}"
        f"{_number(lines['f1_bad'], 8)}{_number(first['acc_wrong'], 11)}{_number(first['acc_wrong_within_1'], 10)}"
        f"{_number(first['acc_right'], 7)}{_number(first['f1'], 7)}"
    )


def _groups(scorers: Json) -> list[str]:
    """The first scorer's lines by position and length, and its errors by kind."""
    name, scorer = next(iter(scorers.items()))
    d = scorer["fitted"]
    width = 28
    rows = [f"{name:<{width}}{'lines':>7}{'good':>7}{'AUROC':>7}{'accuracy':>10}{'F1 bad':>8}"]
    groups = [(f"{100 * g['from']:.0f}-{100 * g['to']:.0f} % of the program", g) for g in d["by_position"]]
    groups += [(f"programs of {g['from']}-{g['to']} lines", g) for g in d["by_length"]]
    for label, g in groups:
        rows.append(
            f"{label:<{width}}{g['lines']:>7}{_number(g['good_share'], 7)}{_number(g['auroc'], 7)}"
            f"{_number(g['accuracy'], 10)}{_number(g['f1_bad'], 8)}"
        )
    if d["by_kind"]:
        rows += ["", f"{'kind of error':<{width}}{'lines':>7}{'found':>7}{'programs':>10}{'1st error':>11}"]
        kinds = sorted(d["by_kind"].items(), key=lambda pair: -pair[1]["lines"])
        for kind, k in kinds[:SHOWN_KINDS]:
            rows.append(
                f"{kind:<{width}}{k['lines']:>7}{_number(k['found'], 7)}{k['programs']:>10}"
                f"{_number(k['first_error_exact'], 11)}"
            )
        if len(kinds) > SHOWN_KINDS:
            rows.append(f"and {len(kinds) - SHOWN_KINDS} more in summary.json")
    return rows


def _probes(probes: Json, threshold: float) -> list[str]:
    rows = [
        f"{'change':<18}{'':<7}{'programs':>9}{'|move|':>8}{'95 %':>7}{'flipped':>9}{'last':>8}{'lowest':>8}"
        f"{'decision':>10}{'right before':>14}{'after':>7}{'attacked':>10}"
    ]
    for name, probe in probes.items():
        for outcome in ("right", "wrong"):
            p = probe[outcome]
            rows.append(
                f"{name if outcome == 'right' else '':<18}{outcome:<7}{p['programs']:>9}{_number(p['lines_mean'], 8)}"
                f"{_number(p['lines_p95'], 7)}{_number(p['lines_flipped'], 9)}{_signed(p['last_mean'], 8)}"
                f"{_signed(p['lowest_mean'], 8)}{_number(p['decision_flipped'], 10)}"
                f"{_number(p['called_right_before'], 14)}{_number(p['called_right_after'], 7)}"
                f"{_number(p.get('attacked', math.nan), 10)}"
            )
    rows.append("|move|: of the scores of unchanged lines. attacked: called wrong before, right after.")
    rows.append(f"Decisions with the threshold that suits these programs best, {threshold:.4g}.")
    return rows


def _interval(pair: Sequence[float | None]) -> str:
    return " to ".join(_number(end, 0) for end in pair)


def _number(value: float | None, width: int) -> str:
    undefined = value is None or math.isnan(value)
    return f"{'-' if undefined else format(value, '.3f'):>{width}}"


def _signed(value: float | None, width: int) -> str:
    undefined = value is None or math.isnan(value)
    return f"{'-' if undefined else format(value, '+.3f'):>{width}}"
