"""Counts of a run of `psgpo mutate`, as JSON and as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from psgpo.mutation.examples import LineExample
from psgpo.mutation.labelled import LabelledProgram
from psgpo.mutation.strengthen import GENERATED, OWN, PLUS, STAGES
from psgpo.mutation.verify import MEMORY, NEGATIVE, OUTCOMES, POSITIVE, TIMEOUT

Json = dict[str, Any]
_NAMED = 5


def summarise(
    records: Sequence[Mapping[str, Any]], programs: Sequence[LabelledProgram], examples: Sequence[LineExample]
) -> Json:
    """Everything that is worth knowing of a run."""
    opened = [record for record in records if not record["skipped"]]
    entries = [entry for record in opened for entry in record["candidates"]]
    return {
        "problems": {
            "total": len(records),
            "used": len(opened),
            "skipped": {record["problem_id"]: record["skipped"] for record in records if record["skipped"]},
            "with_plus_tests": sum(PLUS in record["tests"] for record in opened),
            "with_generated_tests": sum(GENERATED in record["tests"] for record in opened),
        },
        "tests": {
            stage: {
                key: sum(record["tests"].get(stage, {}).get(key, 0) for record in opened) for key in ("kept", "refused")
            }
            for stage in STAGES
        },
        "candidates": len(entries),
        "outcomes": _counts(entries, "outcome"),
        "by_kind": _table(entries, "kind"),
        "by_operator": _table(entries, "operator"),
        "by_teacher": _table(entries, "teacher"),
        "false_positives": {family: _removed(entries, family) for family in ("bug", "refactor")},
        "programs": {"pass": _having(programs, "pass"), "fail": _having(programs, "fail")},
        "lines": _lines(programs, examples),
    }


def _counts(entries: Sequence[Mapping[str, Any]], key: str) -> dict[str, int]:
    return dict(Counter(entry[key] for entry in entries).most_common())


def _table(entries: Sequence[Mapping[str, Any]], key: str) -> list[Json]:
    """A row per value of `key`: family, and how many came out in each way."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for entry in entries:
        found.setdefault((entry["family"], entry[key]), Counter())[entry["outcome"]] += 1
    rows = sorted(found.items(), key=lambda item: (item[0][0], -sum(item[1].values()), item[0][1]))
    return [
        {key: name, "family": family, "proposed": sum(counts.values())} | {o: counts[o] for o in OUTCOMES}
        for (family, name), counts in rows
    ]


def _removed(entries: Sequence[Mapping[str, Any]], family: str) -> Json:
    """What passes the problems' own tests, and which further tests it fails."""
    run = [entry for entry in entries if entry["family"] == family and entry["status"]]
    passed = [entry for entry in run if entry["decided_by"] != OWN]
    by_stage = Counter(entry["decided_by"] for entry in passed if entry["outcome"] not in (TIMEOUT, MEMORY))
    return {
        "run": len(run),
        "passed_own_tests": len(passed),
        "removed_by_plus": by_stage[PLUS],
        "removed_by_generated": by_stage[GENERATED],
        "out_of_time_or_memory": sum(entry["outcome"] in (TIMEOUT, MEMORY) for entry in passed),
        "passed_all": by_stage[""],
        "of_those_unreached": sum(entry["outcome"] not in (POSITIVE,) for entry in passed if not entry["decided_by"]),
    }


def _having(programs: Sequence[LabelledProgram], verdict: str) -> int:
    return sum(program.verdict == verdict for program in programs)


def _lines(programs: Sequence[LabelledProgram], examples: Sequence[LineExample]) -> Json:
    mutated = Counter(
        program.labels[program.mutated_line - 1] for program in programs if program.mutated_line is not None
    )
    reference = sum(sum(label == 1 for label in p.labels) for p in programs if p.family == "reference")
    distinct = Counter(example.label for example in examples)
    return {
        "positive": reference + mutated[1],
        "negative": mutated[-1],
        "of_references": reference,
        "distinct_prefixes": {"positive": distinct[1], "negative": distinct[-1]},
    }


def render(summary: Json) -> str:
    """The summary for people."""
    problems, lines = summary["problems"], summary["lines"]
    text = [f"{problems['used']} of {problems['total']} problems; {summary['candidates']} proposals"]
    skipped = problems["skipped"]
    for problem_id, reason in list(skipped.items())[:_NAMED]:
        text.append(f"  skipped {problem_id}: {reason}")
    if len(skipped) > _NAMED:
        text.append(f"  and {len(skipped) - _NAMED} more, all in summary.json")
    text += ["", *_rows(summary["by_kind"], "kind"), ""]
    for family, counts in summary["false_positives"].items():
        text.append(
            f"{family:<9}pass the problem's own tests {counts['passed_own_tests']} of {counts['run']}; removed by plus "
            f"tests {counts['removed_by_plus']}, by generated ones {counts['removed_by_generated']}; left "
            f"{counts['passed_all']}"
        )
    distinct = lines["distinct_prefixes"]
    text += [
        "",
        f"lines      {lines['positive']} positive, {lines['negative']} negative (references: {lines['of_references']})",
        f"prefixes   {distinct['positive']} positive, {distinct['negative']} negative, each (problem, prefix) once",
        f"programs   {summary['programs']['pass']} right, {summary['programs']['fail']} wrong",
        "",
    ]
    return "\n".join(text)


def _rows(table: Sequence[Json], key: str) -> list[str]:
    """One line per row; outcomes that never occur get no column."""
    shown = [o for o in OUTCOMES if o in (POSITIVE, NEGATIVE, TIMEOUT) or any(row[o] for row in table)]
    columns = ["proposed", *shown]
    lines = [f"{'':<9}{key:<22}" + "".join(f"{name:>11}" for name in columns)]
    lines += [f"{row['family']:<9}{row[key]:<22}" + "".join(f"{row[name]:>11}" for name in columns) for row in table]
    totals = {name: sum(row[name] for row in table) for name in columns}
    return [*lines, f"{'':<9}{'all':<22}" + "".join(f"{totals[name]:>11}" for name in columns)]
