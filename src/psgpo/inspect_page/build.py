"""Put a page together: read the files, ask the models, write the HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from psgpo.errors import UserError
from psgpo.inspect_page.assemble import page_data
from psgpo.inspect_page.evidence import stored_evidence
from psgpo.inspect_page.exact import with_exact
from psgpo.inspect_page.model import Page
from psgpo.inspect_page.page import write_page
from psgpo.inspect_page.source import read_source


def build_page(
    path: Path,
    out: Path,
    *,
    prms: Sequence[str] = (),
    arms: Sequence[str] = (),
    policies: Sequence[str] = (),
    problem_ids: Sequence[str] = (),
    problems: Path | None = None,
    tokenizer: Path | None = None,
    limit: int = 200,
    stored: bool = False,
    device: str = "cpu",
    command: str = "",
) -> Page:
    """Write `out` and return what is on it. The arguments are those of `psgpo inspect` (`psgpo.cli.inspect_page`).

    Raises:
        UserError: something given is wrong, or there is nothing to show; nothing is written then.
    """
    source = read_source(path, policies=policies, problem_ids=problem_ids, limit=limit, problems=problems)
    if stored:
        if arms or tokenizer is not None:
            raise UserError("--stored opens no model, so it takes neither --arm nor --tokenizer; leave it or them out")
        evidence = stored_evidence(source, prms)
    else:
        from psgpo.inspect_page.scoring import read_evidence  # loads torch

        source = with_exact(source)
        evidence = read_evidence(source, prms=prms, arms=arms, tokenizer=tokenizer, device=device)
    page = page_data(source, evidence, command)
    write_page(page, out)
    return page
