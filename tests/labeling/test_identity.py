"""Label files know whose tokens they hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from labeling_world import CharTokenizer, FakeSampler, label, random_responses

from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.labeling import write_labels
from psgpo.labeling.identity import folder_digest, folder_fingerprint, refuse_other_tokenizer, tokenizer_fingerprint
from psgpo.records import LineLabels


class ShiftedTokenizer(CharTokenizer):
    """The same characters under other ids."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
        return super().convert_ids_to_tokens([token - 1 for token in ids])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    problems, responses = random_responses(12, seed=1)
    made = label(problems, responses, tmp_path / "journal.jsonl", {"one": FakeSampler(0.7)})
    write_labels(tmp_path / "labels.jsonl", made.labels, tokenizer=CharTokenizer())
    return tmp_path / "labels.jsonl"


def read(file: Path) -> list[LineLabels]:
    return list(read_jsonl(file, LineLabels.from_json))


def test_a_file_records_its_tokenizer_and_is_refused_under_another(file: Path) -> None:
    labels = read(file)
    assert {item.tokenizer for item in labels} == {tokenizer_fingerprint(CharTokenizer())}
    refuse_other_tokenizer(labels, CharTokenizer(), "f")
    with pytest.raises(UserError, match=r"f: response 0 of problem p0: labels of another tokenizer \(.*line ends"):
        refuse_other_tokenizer(labels, ShiftedTokenizer(), "f")


def test_without_a_fingerprint_the_content_decides(file: Path) -> None:
    old = [replace(item, tokenizer="") for item in read(file)]
    refuse_other_tokenizer(old, CharTokenizer(), "f")
    with pytest.raises(UserError, match="do not decode to its text"):
        refuse_other_tokenizer(old, ShiftedTokenizer(), "f")
    moved = [replace(item, line_ends=tuple(end - 1 for end in item.line_ends)) for item in old]
    with pytest.raises(UserError, match="do not end at the tokens"):
        refuse_other_tokenizer(moved, CharTokenizer(), "f")


def test_the_fingerprint_ignores_padding_and_tells_vocabularies_apart() -> None:
    from psgpo.models import train_tokenizer

    one, other = train_tokenizer(["def f(x):\n"] * 3, 270), train_tokenizer(["while True:\n"] * 3, 270)
    before = tokenizer_fingerprint(one)
    one(["a", "bb"], padding=True)
    assert tokenizer_fingerprint(one) == before != tokenizer_fingerprint(other)


def test_other_weights_give_another_folder_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = folder_fingerprint(tmp_path)
    (tmp_path / "notes.txt").write_text("not part of the model")
    assert folder_fingerprint(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"weightS")
    assert folder_fingerprint(tmp_path) != first


@pytest.mark.parametrize("name", ["model.safetensors", "weights.npy"])
def test_a_folder_digest_reads_weights_to_the_last_byte(tmp_path: Path, name: str) -> None:
    (tmp_path / "psgpo_prm.json").write_text("{}")
    weights = np.zeros(1 << 20, dtype=np.float32)
    (tmp_path / name).write_bytes(weights.tobytes())
    first = folder_digest(tmp_path)
    assert folder_digest(tmp_path) == first
    weights[1 << 19] = 1.0  # two MiB from either end
    (tmp_path / name).write_bytes(weights.tobytes())
    other = folder_digest(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert len({first, other, folder_digest(tmp_path)}) == 3
