"""`psgpo prm eval`: score programs with a PRM and with what it has to beat, change them, measure, write.

scores/         what the models said, kept as it comes: the same command goes on where it stopped
lines.jsonl     a row per line: `program`, `problem_id`, `line`, `text`, `label`, `counted`, and each scorer's number
summary.json    `data`; `scorers`: `table.measure_scorer` of each; `probes`: `moves.measure_moves` of each, with
                decisions by `probe_threshold`
"""

# L code lines

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from psgpo.firsterror.measure import best_threshold
from psgpo.job import check_job
from psgpo.jsonl import finite, write_json, write_jsonl
from psgpo.lines import code_lines
from psgpo.prm.evaluation.baselines import majority, position
from psgpo.prm.evaluation.journal import check_model, digest, scored_rows
from psgpo.prm.evaluation.moves import Move, measure_moves
from psgpo.prm.evaluation.probes import PROBES, Probe, probe
from psgpo.prm.evaluation.programs import EvalProgram
from psgpo.prm.evaluation.readers import PrmReader, Reader
from psgpo.prm.evaluation.table import RESAMPLES, Lines, Scored, measure_scorer
from psgpo.seeds import derive_seed

Json = dict[str, Any]
Progress = Callable[[str, int, int], None]
"""(what, done, total)."""


def run_evaluation(
    programs: Sequence[EvalProgram],
    prm: PrmReader,
    others: Sequence[Reader],
    out: Path,
    *,
    probes: int = 200,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Json:
    """Measure `prm` on the programs, beside `others` and baselines that do not look; write everything but the figures.

    Args:
        probes: programs to change in harmless ways, half of them right where there are as many; 0 for none.

    Raises:
        UserError: `out` holds the scores of other programs or models, or a model does not give one number per line.
    """
    check_job(out / "job.json", {"programs": digest([(p.id, p.prompt, p.code) for p in programs]), "seed": seed})
    pairs = {p.id: (p.prompt, p.code) for p in programs}
    scored: list[Scored] = []
    for reader in (prm, *others):
        check_model(out / "scores" / f"{reader.name}.job.json", reader.identity)
        rows = scored_rows(
            out / "scores" / f"{reader.name}.jsonl", pairs, reader.read, progress=_named(progress, reader.name)
        )
        scored += reader.scored([rows[p.id] for p in programs])
    lines = Lines(programs)
    scored += [position(lines), majority(lines)]
    chosen = probed_programs(programs, probes, seed)
    threshold = probe_threshold(programs, scored[0])
    result = {
        "data": _description(programs, lines),
        "scorers": {s.name: measure_scorer(lines, s, resamples=resamples, seed=seed) for s in scored},
        "probe_threshold": threshold,
        "probes": run_probes(chosen, prm, out, threshold, seed=seed, progress=progress) if chosen else {},
    }
    write_jsonl(out / "lines.jsonl", _line_rows(programs, lines, scored))
    write_json(out / "summary.json", result)
    return result


def probe_threshold(programs: Sequence[EvalProgram], scored: Scored) -> float:
    """Behind the decisions that probes may flip: the one with the largest F1 on these programs.

    A threshold that suits other programs can call all of these wrong, and then nothing could flip. Without both right
    and wrong programs it is the scorer's own.
    """
    known = [(p, list(row)) for p, row in zip(programs, scored.evidence, strict=True) if p.outcome != "unknown"]
    if len({p.outcome for p, _ in known}) < 2:
        assert scored.threshold is not None
        return scored.threshold
    return best_threshold([p for p, _ in known], [row for _, row in known])


def run_probes(
    programs: Sequence[EvalProgram], prm: PrmReader, out: Path, threshold: float, *, seed: int, progress: Progress
) -> dict[str, Json]:
    """Every probe on every program that it applies to: `moves.measure_moves` by name of the probe."""
    changed = {(name, p.id): found for name in PROBES for p in programs if (found := _probe(name, p, seed)) is not None}
    by_id = {p.id: p for p in programs}
    before = {p.id: (p.prompt, p.code) for p in programs}
    after = {f"{name} {key}": (by_id[key].prompt, found.code) for (name, key), found in changed.items()}
    rows = scored_rows(
        out / "scores" / f"{prm.name}-probes.jsonl", before | after, prm.read, progress=_named(progress, "probes")
    )

    def moves(name: str) -> Iterator[Move]:
        for (probe_name, key), found in changed.items():
            if probe_name == name:
                old, new = (rows[row]["score"] for row in (key, f"{name} {key}"))
                yield Move(program=by_id[key], probe=found, before=old, after=new)

    return {name: measure_moves(list(moves(name)), threshold) for name in PROBES}


def _probe(name: str, program: EvalProgram, seed: int) -> Probe | None:
    rng = random.Random(derive_seed(seed, "probe", name, program.id))
    return probe(name, program.code, given_lines=program.candidates[0] - 1, rng=rng)


def probed_programs(programs: Sequence[EvalProgram], count: int, seed: int) -> list[EvalProgram]:
    """At most `count` programs, right and wrong ones in turn while both last, drawn at random; in the file's order."""
    groups = [[p for p in programs if p.outcome == outcome] for outcome in ("right", "wrong")]
    rng = random.Random(derive_seed(seed, "probed"))
    for group in groups:
        rng.shuffle(group)
    right, wrong = groups
    wrongs = min(len(wrong), max(count // 2, count - len(right)))
    chosen = {p.id for p in (*wrong[:wrongs], *right[: count - wrongs])}
    return [p for p in programs if p.id in chosen]


def _description(programs: Sequence[EvalProgram], lines: Lines) -> Json:
    labels = [label for p in programs for label in p.labels]
    outcomes = Counter(p.outcome for p in programs)
    return {
        "programs": len(programs),
        "problems": lines.problems,
        **{outcome: outcomes[outcome] for outcome in ("right", "wrong", "unknown")},
        "lines": len(labels),
        "labelled": sum(label != 0 for label in labels),
        "counted": len(lines.good_N),
        "good": int(lines.good_N.sum()),
        "families": dict(sorted(Counter(p.family for p in programs).items())),
    }


def _line_rows(programs: Sequence[EvalProgram], lines: Lines, scored: Sequence[Scored]) -> Iterator[Json]:
    for i, program in enumerate(programs):
        counted = set(lines.where[i])
        for m, line in enumerate(code_lines(program.code)):
            row = {"program": program.id, "problem_id": program.problem_id, "line": m + 1, "text": line.text}
            row |= {"label": program.labels[m], "counted": m in counted}
            row |= {s.name: round(float(s.evidence[i][m]), 6) for s in scored}
            row |= {
                f"{s.name}-{kind}": round(float(values[i][m]), 6)
                for s in scored
                for kind, values in s.probabilities.items()
            }
            yield finite(row)


def _named(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)
