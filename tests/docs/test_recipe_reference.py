"""docs/recipes.md is what the classes say, and they say something of every key."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from psgpo.cli.main import app
from psgpo.config.recipe import Recipe
from psgpo.config.reference import COMMAND, reference
from psgpo.errors import UserError

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def rows(page: str) -> list[list[str]]:
    """Cells of all rows, without head."""
    tables = [line for line in page.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in tables]


def test_the_committed_page_is_what_the_command_writes(tmp_path: Path) -> None:
    written = tmp_path / "recipes.md"
    assert CliRunner().invoke(app, ["recipe", "reference", "--out", str(written)]).exit_code == 0
    same = written.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    assert same, f"docs/recipes.md is not what the config says; renew it with: {COMMAND}"


def test_every_key_has_a_type_and_a_meaning() -> None:
    bare = [row[0] for row in rows(reference()) if len(row) != 4 or not row[1] or not row[3]]
    assert not bare, f"no docstring under {bare} in src/psgpo/config; say in a line what it means"


def test_a_table_of_the_top_has_a_row_and_a_place() -> None:
    page = reference()
    for name in Recipe.model_fields:
        assert f"| `{name}` |" in page
    assert '<a id="prm-name"></a>' in page
    assert '<a id="problems-benchmark"></a>' in page


def test_inherited_keys_are_described_once() -> None:
    assert reference("arms.NAME.rl").count("| `") == 0
    assert reference().count("| `kl_beta` |") == 1


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("rl", ["`clip`", "number > 0", "`0.2`"]),
        ("rl", ["`microbatch_tokens`", "integer > 0", "*absent*"]),
        ("rl", ["`gamma`", "number in [0, 1]", "`1.0`"]),
        ("sft", ["`operations`", "[integer > 0, integer > 0]", "`[1, 8]`"]),
        ("arms", ["`line_reward`", '`"none"`, `"sum"`', '`"none"`']),
        ("tracking", ["`to`", 'list of `"tensorboard"`', '`["tensorboard"]`']),
        ("arms", ["`rl`", "table [`[arms.NAME.rl]`](#arms-name-rl)", "*absent*"]),
        ("model.lora", ["`rank`", "integer > 0", "`16`"]),
        ("prm", ["`target`", '`"sign"`, `"progress"`', "**required**"]),
    ],
)
def test_rows_say_type_and_default_as_toml_writes_them(table: str, row: list[str]) -> None:
    found = next(cells for cells in rows(reference(table)) if cells[0] == row[0])
    assert [cell.startswith(start) for cell, start in zip(found, row, strict=False)] == [True] * len(row), found


def test_a_table_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"rll: no table of a recipe; there are: .*model\.lora"):
        reference("rll")
