from __future__ import annotations

import dataclasses
import json

import pytest
from prm_world import SETTINGS, labelled, random_labels

from psgpo.errors import UserError
from psgpo.prm.data import (
    ExactRecord,
    build_examples,
    load_exact,
    response_key,
    split_by_problem,
    token_weights,
)
from psgpo.seeds import is_held_out

TEXT = "a = 1\n# note\nb = 2\nc = 3\n"


def test_sign_targets_are_the_labels_with_comments_neutral(tokenizer):
    (example,) = build_examples([labelled(tokenizer, TEXT, 3)], SETTINGS)
    assert example.targets == (1.0, 0.0, 1.0, -1.0)
    assert example.neutral == (False, True, False, False)
    assert example.weights == (1.0, 1.0, 1.0, 1.0)
    assert example.last_solvable == 3


@pytest.mark.parametrize(("last", "comment"), [(3, 1.0), (2, 1.0), (1, -1.0)])
def test_without_neutral_labels_a_comment_carries_the_label_of_its_prefix(tokenizer, last, comment):
    settings = SETTINGS.model_copy(update={"neutral_labels": False})
    (example,) = build_examples([labelled(tokenizer, TEXT, last)], settings)
    assert example.targets[1] == comment


def test_progress_target_is_the_share_done_and_stays_where_the_error_is(tokenizer):
    settings = SETTINGS.model_copy(update={"target": "progress"})
    failing, passing = build_examples([labelled(tokenizer, TEXT, 2), labelled(tokenizer, TEXT, 4)], settings)
    assert failing.targets == (0.25, 0.5, 0.5, 0.5)
    assert passing.targets == (0.25, 0.5, 0.75, 1.0)


def test_oracle_labels_replace_the_search(tokenizer):
    label = labelled(tokenizer, TEXT, 1)
    exact = {response_key(label.response): ExactRecord(last_on_track=3, progress=(0.0, 0.0, 0.5, 0.5))}
    oracle = SETTINGS.model_copy(update={"labels": "oracle"})
    (sign,) = build_examples([label], oracle, exact)
    assert (sign.targets, sign.last_solvable) == ((1.0, 0.0, 1.0, -1.0), 3)
    (progress,) = build_examples([label], oracle.model_copy(update={"target": "progress"}), exact)
    assert progress.targets == (0.0, 0.0, 0.5, 0.5)
    with pytest.raises(UserError, match="no exact labels for response p/0/c"):
        build_examples([label], oracle, {})


def test_a_rate_of_one_half_is_a_target_and_an_open_line_is_none(tokenizer):
    label = dataclasses.replace(labelled(tokenizer, "a = 1\nb = 2\n", 1), labels=(0.5, 0.0))
    (rate,) = build_examples([dataclasses.replace(label, strategy="soft")], SETTINGS)
    (left_open,) = build_examples([dataclasses.replace(label, strategy="noisy")], SETTINGS)
    assert rate.targets == left_open.targets == (0.5, 0.0)
    assert (rate.weights, left_open.weights) == ((1.0, 1.0), (1.0, 0.0))


def test_of_a_passing_response_with_rates_the_end_alone_has_a_sign_and_every_line_has_progress(tokenizer):
    label = dataclasses.replace(labelled(tokenizer, TEXT, 4), strategy="soft", labels=(0.0, 0.0, 0.0, 1.0))
    (sign,) = build_examples([label], SETTINGS)
    assert (sign.targets, sign.weights) == ((0.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.0, 1.0))
    (progress,) = build_examples([label], SETTINGS.model_copy(update={"target": "progress"}))
    assert (progress.targets, progress.weights) == ((0.25, 0.5, 0.75, 1.0), (1.0,) * 4)


def test_without_neutral_labels_a_comment_behind_an_open_line_weighs_nothing(tokenizer):
    settings = SETTINGS.model_copy(update={"neutral_labels": False})
    label = dataclasses.replace(labelled(tokenizer, TEXT, 1), strategy="noisy", labels=(0.0, 0.0, 0.0, -1.0))
    assert build_examples([label], settings)[0].weights == (0.0, 0.0, 0.0, 1.0)
    known = dataclasses.replace(label, labels=(1.0, 0.0, 0.0, -1.0))
    assert build_examples([known], settings)[0].weights == (1.0, 1.0, 0.0, 1.0)


def test_a_response_without_lines_is_no_example(tokenizer):
    assert build_examples([labelled(tokenizer, "\n", 0)], SETTINGS) == []


def test_the_last_line_speaks_for_a_shared_token_but_a_blank_line_gives_way_to_code():
    assert token_weights([2, 2, 4], [False, False, False]) == (0.0, 1.0, 1.0)
    assert token_weights([2, 2, 2, 4], [False, True, True, False]) == (1.0, 0.0, 0.0, 1.0)
    assert token_weights([2, 2], [True, True]) == (0.0, 1.0)


def test_a_problem_is_on_one_side_only_and_stays_there(tokenizer):
    labels = random_labels(tokenizer, 200)
    examples = build_examples(labels, SETTINGS)
    train, held_out = split_by_problem(examples, 0.25)
    assert len(train) + len(held_out) == len(examples)
    assert not {e.problem_id for e in train} & {e.problem_id for e in held_out}
    assert 0.1 < len(held_out) / len(examples) < 0.45
    again, _ = split_by_problem(examples[:60], 0.25)
    assert again == [e for e in train if e in examples[:60]]
    assert all(is_held_out(e.problem_id, 0.5) for e in held_out)  # a larger share keeps those already out


def test_an_empty_side_is_refused(tokenizer):
    with pytest.raises(UserError, match="label more problems"):
        split_by_problem(build_examples([labelled(tokenizer, TEXT, 1)], SETTINGS), 0.2)


def test_exact_labels_load_by_response(tmp_path):
    row = {"problem_id": "p", "index": 2, "checkpoint": "c", "last_on_track": 1, "lines": 2, "progress": [0.5, 0.5]}
    (tmp_path / "exact.jsonl").write_text(json.dumps(row) + "\n")
    exact = load_exact(tmp_path / "exact.jsonl")
    assert exact == {("p", 2, "c"): ExactRecord(last_on_track=1, progress=(0.5, 0.5))}
