"""docs/tutorial.md: one program on its way through the system, with the numbers of a run.

    python examples/tutorial.py runs/demo     # collects docs/tutorial.json from the run, then writes docs/tutorial.md
    python examples/tutorial.py               # writes the page anew from docs/tutorial.json

The page's text is `examples/tutorial.md.j2`; every number in it is filled in from the JSON file. What a line was worth
to search, PRM and PPO comes from the same functions as the page of `psgpo inspect`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from psgpo.errors import UserError
from psgpo.evaluation.evaluate import evaluate_policy
from psgpo.execution import Sandbox
from psgpo.inspect_page.assemble import page_data
from psgpo.inspect_page.model import ArmView, ExactView, LabelView, Page, ResponseView
from psgpo.inspect_page.scoring import read_evidence
from psgpo.inspect_page.source import Entry, Source, read_source
from psgpo.jsonl import read_jsonl
from psgpo.problems.opchain.oracle import ExactOracle
from psgpo.report.load import Run

TEMPLATE = Path(__file__).with_suffix(".md.j2")
DOCS = Path(__file__).parent.parent / "docs"
Json = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", type=Path, nargs="?", help="a finished run of the embedded benchmark; none: keep the data"
    )
    parser.add_argument("--problem", help="id of a labelled problem; default: the run's most instructive one")
    parser.add_argument("--samples", type=int, default=256, help="responses of every policy to the problem, at the end")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of tutorial.md and tutorial.json")
    args = parser.parse_args()
    data = args.out / "tutorial.json"
    try:
        if args.run is not None:
            found = collect(args.run, problem=args.problem, samples=args.samples)
            data.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (args.out / "tutorial.md").write_text(render(json.loads(data.read_text(encoding="utf-8"))), encoding="utf-8")
    except UserError as error:
        sys.exit(f"tutorial: {error}")


def render(data: Json) -> str:
    """The page."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"number": _number, "token": _token}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(data)


def collect(path: Path, *, problem: str | None, samples: int) -> Json:
    """Everything that the page says of a run.

    Raises:
        UserError: the run is no finished one of the embedded benchmark, or has no failed response that was searched.
    """
    source = read_source(path, problem_ids=[problem] if problem else [], limit=sys.maxsize)
    run = source.run
    if run is None or run.recipe.problems.kind != "opchain":
        raise UserError(f"{path}: no run of the embedded benchmark; make one with: psgpo run recipes/demo.toml")
    chosen = most_instructive(source.entries, source)
    source = read_source(path, problem_ids=[chosen.response.problem_id], limit=sys.maxsize)
    page = page_data(source, read_evidence(source), "")
    return story(page, chosen, run) | {"after": after(run, source, chosen, samples)}


def most_instructive(entries: Sequence[Entry], source: Source) -> Entry:
    """A wrong answer of 7 to 11 lines whose search saw prefixes of both kinds; better held out, and labelled right."""

    def merit(entry: Entry) -> tuple[bool, ...]:
        assert entry.label is not None
        probes, lines = entry.label.probes, len(entry.label.labels)
        return (
            bool(source.held_out(entry.response.problem_id)),
            len(entry.completions) >= 2,
            any(not probe.passed for probe in probes),
            entry.exact is not None and entry.exact.last_on_track == entry.label.last_solvable,
            7 <= lines <= 11,
            3 <= entry.label.last_solvable <= lines - 3,
        )

    failed = [entry for entry in entries if entry.label is not None and entry.label.probes]
    if not failed:
        raise UserError(
            f"{source.path}: no failed response that was searched; run all stages, or choose another problem"
        )
    return max(failed, key=merit)  # of equals the first


def story(page: Page, chosen: Entry, run: Run) -> Json:
    """The response line by line and token by token."""
    key = (chosen.response.checkpoint, chosen.response.index)
    view = next(one for one in page.responses if (one.checkpoint, one.index) == key)
    label, exact, problem = view.label, view.exact, page.problems[view.problem]
    if label is None or exact is None or view.tokens is None or not page.arms:
        raise UserError(f"{run.path}: labels, exact labels or arms are missing; go on with: psgpo run RECIPE")
    main_arm = page.arms[0]
    twins = [arm for arm in page.arms[1:] if (arm.line_reward, arm.prm) == (main_arm.line_reward, main_arm.prm)]
    arms = [main_arm, *twins[:1]]
    return _rounded(
        {
            "run": {
                "name": run.recipe.name,
                "cpu": run.manifest.get("cpu", ""),
                "seed": run.recipe.seed,
                "k": run.recipe.labels.k,
            },
            "problem": {
                "id": problem.id,
                "prompt": problem.prompt,
                "operations": problem.difficulty,
                "reference": problem.reference.strip("\n"),
                "tests": [asdict(test) for test in problem.tests[:3]],
                "held_out": problem.held_out,
            },
            "response": {"checkpoint": view.checkpoint, "tokens": len(view.tokens), "lines": len(view.lines)},
            "verdict": asdict(view.verdict),
            "label": asdict(label),
            "exact": exact.last_on_track,
            "prms": [asdict(prm) for prm in page.prms],
            "arms": [asdict(arm) | {"slope": _slope(run, arm.name)} for arm in arms],
            "lines": _lines(view, label, exact, arms),
            "tokens": _tokens(view, view.tokens, arms),
        }
    )


def _lines(view: ResponseView, label: LabelView, exact: ExactView, arms: Sequence[ArmView]) -> list[Json]:
    return [
        {
            "text": line.text,
            "label": label.labels[m],
            "exact": 0.0 if line.neutral else 1.0 if m < exact.last_on_track else -1.0,
            "progress": exact.progress[m],
            "scores": {name: scores[m] for name, scores in view.scores.items()},
            "rewards": {arm.name: view.credit[arm.name].line_rewards[m] for arm in arms},
        }
        for m, line in enumerate(view.lines)
    ]


def _tokens(view: ResponseView, texts: Sequence[str], arms: Sequence[ArmView]) -> list[Json]:
    ends = {line.end: number for number, line in enumerate(view.lines, start=1)}
    rows = []
    for t, text in enumerate(texts):
        credit = {}
        for arm in arms:
            one = view.credit[arm.name]
            credit[arm.name] = {"reward": one.rewards[t], "value": one.values[t], "advantage": one.advantages[t]}
        rows.append({"text": text, "line": ends.get(t, 0), "credit": credit})
    return rows


def after(run: Run, source: Source, chosen: Entry, samples: int) -> Json:
    """What every policy of the run answers to the problem now, judged by its tests and by the oracle."""
    recipe, problem = run.recipe, source.problems[chosen.response.problem_id]
    settings = recipe.evaluation.model_copy(update={"samples": samples, "at": ()})
    trained = {name: run.path / "rl" / name / "model" for name in recipe.arms}
    policies = {"sft": run.path / "sft" / "model"} | {name: path for name, path in trained.items() if path.is_dir()}
    rows = []
    with Sandbox(**recipe.sandbox.limits()) as sandbox, tempfile.TemporaryDirectory() as folder:
        oracle = ExactOracle(sandbox.evaluate_many)
        for name, model in policies.items():
            out = Path(folder) / name
            given: Json = {"prompt_template": recipe.prompt_template, "seed": recipe.seed}
            evaluate_policy(model, [problem], sandbox, settings, recipe.sampling, out, **given)
            drawn = [row for row in read_jsonl(out / "samples.jsonl", dict) if not row["greedy"]]
            exact = oracle.label([(problem, row["text"]) for row in drawn])
            done = Counter(round(one.progress[-1] * (problem.difficulty or 1)) if one.progress else 0 for one in exact)
            passed = sum(row["verdict"]["status"] == "PASSED" for row in drawn)
            rows.append(
                {"policy": name, "passed": passed, "done": [done[n] for n in range((problem.difficulty or 1) + 1)]}
            )
    return {"samples": samples, "policies": rows}


def _slope(run: Run, arm: str) -> float | None:
    """a of ValueInit's V = a·R + b; None without a fit."""
    fitted = run.rl[arm].get("value_scale") if run.recipe.arms[arm].value_init else None
    return float(fitted[0]) if fitted is not None and len(fitted) else None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _number(value: float, digits: int = 3) -> str:
    """With a real minus; 0 is bare, so that what is paid stands out."""
    return "0" if value == 0 else f"{value:.{digits}f}".replace("-", "−")


def _token(text: str) -> str:
    """Its text with marks for what cannot be seen, as code in a table."""
    return "`" + text.replace("\n", "⏎").replace(" ", "·").replace("|", "\\|") + "`"


if __name__ == "__main__":
    main()
