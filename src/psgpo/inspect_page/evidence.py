"""What models add to the files: scores of lines, text of tokens, rewards, values and advantages. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from psgpo.errors import UserError
from psgpo.inspect_page.model import ArmView, Credit, Floats, Missing, PrmView
from psgpo.inspect_page.source import Entry, Source
from psgpo.report.commands import run_command
from psgpo.report.load import Run
from psgpo.report.programs import shown_prms

Scores = list[Floats | None]
"""Per entry, one score per line."""
SPANS = {"sign": 1.0, "correct": 4.0}
"""Distance from the threshold that has the full colour. Logits of 4 are probabilities of 0.98."""
STORED = "scores that the run wrote of the problems it held out"
NO_MODELS = Missing(reason="--stored opens no model; leave it out to see them")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything per entry of a `Source`, in its order."""

    prms: Sequence[PrmView]
    scores: Sequence[Mapping[str, Floats]]
    """PRM to scores, shape of each: (L,)."""
    line_ends: Sequence[tuple[int, ...] | None]
    """Index of the token that ends each line. Shape of each: (L,)."""
    tokens: Sequence[tuple[str, ...] | None]
    """Text of every token. Shape of each: (T,)."""
    completions: Sequence[Mapping[int, tuple[str, str]]]
    """Probed line to the text that was kept and the text that was added."""
    arms: Sequence[ArmView]
    credit: Sequence[Mapping[str, Credit]]
    missing: Mapping[str, Missing] = field(default_factory=dict)


def prm_view(name: str, target: str, threshold: float, origin: str, *, margins: bool = False) -> PrmView:
    """How the scores of a PRM become colours.

    Args:
        margins: scores of target `progress` are margins around 0, in lines (`psgpo.prm.scorers.CausalScorer`).
    """
    form = "share" if target in ("progress", "soft") and not margins else "signed"
    span = 3.0 if margins else SPANS.get(target, 1.0)
    return PrmView(name=name, target=target, form=form, threshold=threshold, span=span, origin=origin)


def run_target(run: Run, name: str) -> str:
    """Target of a PRM of the run.

    Raises:
        UserError: it has none of that name.
    """
    if name not in run.recipe.prm:
        known = ", ".join(run.recipe.prm) or "none"
        raise UserError(f"--prm {name}: neither a PRM of the run {run.path} (it has: {known}) nor a PRM's folder")
    return run.recipe.prm[name].target


def unscored(
    run: Run, name: str, entries: Sequence[Entry], missing: dict[str, Missing]
) -> tuple[PrmView, Scores] | None:
    """What the files say of a PRM whose model is not opened; None, and why, where they say nothing."""
    target = run_target(run, name)
    if name in run.prm and run.prm[name].scores:
        missing[f"prm {name}"] = Missing(reason=f"its model was not opened; there are the {STORED}, and no others")
        return prm_view(name, target, 0.0, STORED), [entry.stored.get(name) for entry in entries]
    missing[f"prm {name}"] = Missing(reason="not trained yet", command=run_command(run, until=f"prm-{name}"))
    return None


def stored_evidence(source: Source, names: Sequence[str] = ()) -> Evidence:
    """What the run's files hold; no model is opened.

    Args:
        names: PRMs of the run; empty for all that have scores.

    Raises:
        UserError: a name that the run does not have.
    """
    missing = dict.fromkeys(("tokens", "completions", "credit"), NO_MODELS)
    scored: list[tuple[PrmView, Scores]] = []
    if source.run is not None:
        found = [unscored(source.run, name, source.entries, missing) for name in names or shown_prms(source.run)]
        scored = [one for one in found if one is not None]
    elif names:
        raise UserError(f"{source.path}: a file holds no scores of {', '.join(names)}; leave --stored out")
    nothing: list[None] = [None] * len(source.entries)
    return Evidence(
        prms=[view for view, _ in scored],
        scores=[
            {view.name: row for view, rows in scored if (row := rows[number]) is not None}
            for number in range(len(source.entries))
        ],
        line_ends=[None if entry.label is None else entry.label.line_ends for entry in source.entries],
        tokens=nothing,
        completions=[{} for _ in source.entries],
        arms=(),
        credit=[{} for _ in source.entries],
        missing=missing,
    )
