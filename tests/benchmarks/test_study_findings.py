"""docs/results/README.md: its numbers are those of the tables that are published beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from study_world import ROOT

from psgpo.errors import UserError
from study import findings
from study.cells import Study

RESULTS = ROOT / "docs" / "results"


def test_the_results_page_is_what_the_tables_say() -> None:
    page = findings.render(Study.load(), RESULTS / "study")
    assert page == (RESULTS / "README.md").read_text(encoding="utf-8"), "run `benchmarks/study table` again"


def test_the_numbers_of_the_study_in_the_readme_stand_on_the_results_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, after = text.partition("## What it brings")
    told, _, _ = after.partition("\n## ")
    numbers = set(re.findall(r"[+−]?\.\d{3}", told))
    assert len(numbers) > 10
    assert numbers <= set(re.findall(r"[+−]?\.\d{3}", (RESULTS / "README.md").read_text(encoding="utf-8")))


def test_a_seed_that_is_not_there_has_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the group `main` seed 3 is taken away."""
    tables = tmp_path / "tables"
    tables.mkdir()
    head, *rows = (RESULTS / "study" / "main-seeds.csv").read_text(encoding="utf-8").splitlines()
    place = head.split(",").index("seed 3")
    kept = [",".join("" if n == place else cell for n, cell in enumerate(row.split(","))) for row in rows]
    (tables / "main-seeds.csv").write_text("\n".join([head, *kept]), encoding="utf-8")
    asks = ["seed_level('main', 'dense', %d)", "seed_share('main', 'dense', %d, 'main/oracle-dense')"]
    template = tmp_path / "t.j2"
    template.write_text(" ".join("{{ " + ask % seed + " }}" for seed in (3, 4) for ask in asks), encoding="utf-8")
    monkeypatch.setattr(findings, "TEMPLATE", template)
    found = findings.render(Study.load(), tables).split()
    assert found[:2] == ["–", "–"]
    assert re.fullmatch(r"\.\d{3} -?\.\d\d", " ".join(found[2:]))


@pytest.mark.parametrize(
    ("asks", "says"),
    [
        ('gain("main", "nobody")', "main-arms.csv has no row {'cell': 'round one', 'arm': 'nobody', 'against': 'base"),
        ('level("elsewhere", "dense")', "no cell 'elsewhere'"),
        ('at_end("main", "pass-rate", "nobody")', "main-pass-rate.csv has no line of main/nobody"),
    ],
)
def test_a_number_that_is_in_no_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: str, says: str
) -> None:
    template = tmp_path / "t.j2"
    template.write_text("{{ " + asks + " }}", encoding="utf-8")
    monkeypatch.setattr(findings, "TEMPLATE", template)
    with pytest.raises(UserError) as caught:
        findings.render(Study.load(), RESULTS / "study")
    assert str(caught.value).startswith(f"{template}: ")
    assert says in str(caught.value)
