"""A folder that `datasets.load_dataset` reads: train and test, as JSON Lines and as Parquet, with a card.

    README.md    the card
    data/        train.parquet, test.parquet
    jsonl/       train.jsonl, test.jsonl, and a README.md that says so: `datasets` reads one format per folder

A problem is in one split only: the one that PRM training of this package keeps it in (`psgpo.seeds.is_held_out`).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.exchange.card import dataset_card, jsonl_card
from psgpo.exchange.steps import Row, StepForm, count_steps
from psgpo.jsonl import write_jsonl
from psgpo.seeds import is_held_out

COLUMNS: dict[str, str] = {
    "prompt": "string",
    "completions": "list of string",
    "labels": "list of {label}",
    "id": "string",
    "problem_id": "string",
    "checkpoint": "string",
    "verdict": "string",
    "source": "string",
    "kind": "string",
    "text": "string",
    "char_starts": "list of int64",
    "char_ends": "list of int64",
    "token_ends": "list of int64",
    "token_ids": "list of int64",
    "prompt_ids": "list of int64",
    "tokenizer": "string",
}
"""Column to type, in order; the label's is float64 or bool."""
SPLITS = ("train", "test")


def write_dataset(
    rows: Sequence[Row], out: Path, form: StepForm, *, holdout: float, name: str, license_name: str, origin: str
) -> dict[str, dict[str, int]]:
    """Write the folder and return the sizes of its splits.

    Args:
        holdout: expected share of problems in `test`; 0 for a dataset without it.
        origin: where the labels come from, for the card.

    Raises:
        UserError: pyarrow is missing, `out` holds other things, or a split is empty.
    """
    arrow, parquet = _pyarrow()
    splits = {
        "train": [row for row in rows if not is_held_out(row["problem_id"], holdout)],
        "test": [row for row in rows if is_held_out(row["problem_id"], holdout)],
    }
    splits = {split: chosen for split, chosen in splits.items() if chosen or holdout}
    empty = [split for split, chosen in splits.items() if not chosen]
    if empty:
        problems = len({row["problem_id"] for row in rows})
        raise UserError(
            f"--holdout {holdout}: {problems} problems leave no row for {empty[0]}; label more, or give --holdout 0"
        )
    if out.is_dir() and any(out.iterdir()) and not (out / "README.md").is_file():
        raise UserError(f"{out}: holds something else than a dataset; choose another --out")
    types = {column: kind.format(label=_label_type(form)) for column, kind in COLUMNS.items()}
    schema = arrow.schema([(column, _arrow_type(arrow, kind)) for column, kind in types.items()])
    ordered = {split: [{column: row[column] for column in types} for row in rows] for split, rows in splits.items()}
    (out / "data").mkdir(parents=True, exist_ok=True)
    for split, chosen in ordered.items():
        write_jsonl(out / "jsonl" / f"{split}.jsonl", chosen)
        temporary = out / "data" / f"{split}.parquet.tmp"
        parquet.write_table(arrow.Table.from_pylist(chosen, schema=schema), temporary)
        os.replace(temporary, out / "data" / f"{split}.parquet")
    for split in set(SPLITS) - ordered.keys():  # of an earlier export with a test split
        for file in (out / "data" / f"{split}.parquet", out / "jsonl" / f"{split}.jsonl"):
            file.unlink(missing_ok=True)
    sizes = {split: count_steps(chosen, form) for split, chosen in ordered.items()}
    card = dataset_card(
        name=name,
        license_name=license_name,
        origin=origin,
        types=types,
        form=form,
        sizes=sizes,
        sample=ordered["train"][0],
    )
    (out / "jsonl" / "README.md").write_text(jsonl_card(types, sizes), encoding="utf-8")
    (out / "README.md").write_text(card, encoding="utf-8")
    return sizes


def _label_type(form: StepForm) -> str:
    return "float64" if form.labels == "float" else "bool"


def _arrow_type(arrow: Any, kind: str) -> Any:
    names = {"string": arrow.string(), "int64": arrow.int64(), "float64": arrow.float64(), "bool": arrow.bool_()}
    element = kind.removeprefix("list of ")
    return names[element] if element == kind else arrow.list_(names[element])


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UserError("labels export: Parquet needs the package pyarrow; install psgpo[data]") from None
