"""Ask the models: PRMs for scores, the tokenizer for the text of tokens, an arm's PPO for credit (`credit`).

# L code lines, T response tokens
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.inspect_page.credit import credit_of_arms
from psgpo.inspect_page.evidence import Evidence, Scores, prm_view, run_target, unscored
from psgpo.inspect_page.model import Floats, Missing, PrmView
from psgpo.inspect_page.source import Entry, Source
from psgpo.labeling import tokenizer_fingerprint
from psgpo.lines import TokenText, code_lines, line_end_tokens
from psgpo.models import load_tokenizer
from psgpo.prm import PrmScorer, open_scorer
from psgpo.prm.record import FILE, ScorerRecord
from psgpo.report.programs import shown_prms
from psgpo.rl.rollout import reads_ids

LineEnds = tuple[int, ...]


def read_evidence(
    source: Source,
    *,
    prms: Sequence[str] = (),
    arms: Sequence[str] = (),
    tokenizer: Path | None = None,
    device: str = "cpu",
) -> Evidence:
    """Everything that models say about the entries of a source.

    Args:
        prms: PRMs of the run by name, or folders; empty: all of the run.
        arms: of the run; empty: all that have a line reward or a ValueInit.
        tokenizer: folder of the responses' tokenizer; None: the run's, or that of a PRM given as a folder.

    Raises:
        UserError: a name or folder that is not there, or a tokenizer of other responses.
    """
    missing: dict[str, Missing] = {}
    text = _reader(source, tokenizer, [_folder(name) or Path(name) for name in prms], missing)
    line_ends = [_line_ends(entry, text) for entry in source.entries]
    views, scores = _all_scores(source, prms, line_ends, text, missing, device)
    tokens = None if text is None else text.tokenizer
    credited, credit = credit_of_arms(source, arms, line_ends, tokens, missing, device)
    return Evidence(
        line_ends=line_ends,
        prms=views,
        scores=[
            {view.name: row for view in views if (row := scores[view.name][number]) is not None}
            for number in range(len(source.entries))
        ],
        tokens=[None if text is None else text.pieces(entry) for entry in source.entries],
        completions=[{} if text is None else text.completions(entry) for entry in source.entries],
        arms=credited,
        credit=credit,
        missing=missing,
    )


class Reader:
    """Text of the responses' tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self._text = tokenizer, TokenText(tokenizer)

    def line_ends(self, entry: Entry) -> LineEnds | None:
        """Per line, the token that ends it; None where the ids are not those of this tokenizer."""
        decoded, char_ends = self._text.decode_with_ends(entry.response.token_ids)
        return line_end_tokens(char_ends, code_lines(decoded)) if decoded == entry.response.text else None

    def pieces(self, entry: Entry) -> tuple[str, ...] | None:
        """The text of every token, its name in ⟨⟩ where it has none; None as for `line_ends`."""
        ids = list(entry.response.token_ids)
        decoded, char_ends = self._text.decode_with_ends(ids)
        if decoded != entry.response.text:
            return None
        names = self.tokenizer.convert_ids_to_tokens(ids)
        spans = zip([0, *char_ends[:-1]], char_ends, names, strict=True)
        return tuple(decoded[start:end] or f"⟨{name}⟩" for start, end, name in spans)

    def completions(self, entry: Entry) -> Mapping[int, tuple[str, str]]:
        """Per probed line, the text that was kept and what the first completion that passed added."""
        found = {}
        for line, added in entry.completions.items():
            assert entry.label is not None
            kept = entry.response.token_ids[: entry.label.line_ends[line - 1] + 1]
            before, whole = self._text.decode(kept), self._text.decode((*kept, *added))
            found[line] = (before, whole[len(before) :])
        return found


def _reader(source: Source, given: Path | None, prms: Sequence[Path], missing: dict[str, Missing]) -> Reader | None:
    """With the tokenizer of the responses."""
    wanted = {entry.label.tokenizer for entry in source.entries if entry.label is not None and entry.label.tokenizer}

    def reader(folder: Path) -> Reader | None:
        found = Reader(load_tokenizer(folder))
        if wanted:
            return found if wanted == {tokenizer_fingerprint(found.tokenizer)} else None
        # Samples name no tokenizer; another one gives another text.
        return found if any(found.pieces(entry) is not None for entry in source.entries) else None

    if given is not None:
        own = reader(given)
        if own is None:
            raise UserError(f"--tokenizer {given}: not the tokenizer of these responses; give that of their model")
        return own
    for folder in [*source.tokenizers, *prms]:
        if (folder / "tokenizer_config.json").is_file() and (own := reader(folder)) is not None:
            return own
    reason = "the tokenizer of the responses is not known; give its folder with --tokenizer"
    missing["tokens"] = missing["completions"] = Missing(reason=reason)
    return None


def _line_ends(entry: Entry, text: Reader | None) -> LineEnds | None:
    if entry.label is not None:
        return entry.label.line_ends
    return None if text is None else text.line_ends(entry)


def _all_scores(
    source: Source,
    names: Sequence[str],
    line_ends: Sequence[LineEnds | None],
    text: Reader | None,
    missing: dict[str, Missing],
    device: str,
) -> tuple[list[PrmView], dict[str, Scores]]:
    views: list[PrmView] = []
    scores: dict[str, Scores] = {}
    for name in names or _own_prms(source):
        if name in scores:
            raise UserError(f"--prm {name}: given twice; remove one")
        scored = _scored(source, name, line_ends, text, missing, device)
        if scored is not None:
            views.append(scored[0])
            scores[name] = scored[1]
    return views, scores


def _own_prms(source: Source) -> list[str]:
    """All of the run, in the report's order: the first one colours the lines."""
    if source.run is None:
        return []
    first = shown_prms(source.run)
    return [*first, *(name for name in source.run.recipe.prm if name not in first)]


def _scored(
    source: Source,
    name: str,
    line_ends: Sequence[LineEnds | None],
    text: Reader | None,
    missing: dict[str, Missing],
    device: str,
) -> tuple[PrmView, Scores] | None:
    """A PRM of the run as RL reads it: at the responses' own tokens where it shares them. A folder reads text."""
    run = source.run
    if run is None or name not in run.recipe.prm:
        folder = _folder(name)
        if folder is None:
            if run is not None:
                run_target(run, name)
            raise UserError(f"--prm {name}: no {FILE} in it, so it is no PRM's folder; give the folder of a PRM")
        return _scored_as_text(source, name, folder, missing, device)
    folder = run.path / "prm" / name / "model"
    if not (folder / FILE).is_file():
        return unscored(run, name, source.entries, missing)
    if text is None or not reads_ids(folder, text.tokenizer):
        return _scored_as_text(source, name, folder, missing, device)
    items = {
        number: (entry.response.prompt_ids, entry.response.token_ids, ends)
        for number, (entry, ends) in enumerate(zip(source.entries, line_ends, strict=True))
        if ends is not None
    }
    rows = dict(zip(items, PrmScorer(folder, device=device).score(list(items.values())), strict=True))
    record = ScorerRecord.load(folder)
    view = prm_view(name, record.target, record.threshold, f"{folder}, read at the responses' own tokens")
    return view, [_row(rows[number]) if number in rows else None for number in range(len(source.entries))]


def _scored_as_text(
    source: Source, name: str, folder: Path, missing: dict[str, Missing], device: str
) -> tuple[PrmView, Scores]:
    scorer = open_scorer(folder, device=device)
    readable = [n for n, entry in enumerate(source.entries) if entry.response.problem_id in source.problems]
    pairs = [
        (source.problems[entry.response.problem_id].prompt, entry.response.text)
        for entry in (source.entries[n] for n in readable)
    ]
    scores: Scores = [None] * len(source.entries)
    try:
        for number, row in zip(readable, scorer.score_many(pairs), strict=True):
            scores[number] = _row(row)
    except UserError as error:  # a program that it cannot read: the others are read alone
        missing[f"prm {name}"] = Missing(reason=str(error))
        for number, pair in zip(readable, pairs, strict=True):
            try:
                scores[number] = _row(scorer.score_lines(*pair))
            except UserError:
                continue
    record = scorer.record
    margins = record.kind == "causal" and record.target == "progress"
    return prm_view(name, record.target, scorer.threshold, f"{folder}, read as text", margins=margins), scores


def _row(scores: Iterable[float]) -> Floats:
    return tuple(map(float, scores))


def _folder(name: str) -> Path | None:
    """The folder of a PRM that a name of `--prm` points to; None for none."""
    return next((folder for folder in (Path(name), Path(name) / "model") if (folder / FILE).is_file()), None)
