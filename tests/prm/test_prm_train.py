from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from prm_world import BAD, GOOD, SETTINGS, examples, labelled, random_labels
from transformers import AutoModelForTokenClassification

from metrics_world import without_times
from psgpo.config import LoraSettings, ModelSettings
from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.models import TokenValueModel
from psgpo.prm import PrmScorer, ScorerRecord, assess_prm, build_examples, split_by_problem, train_prm
from psgpo.prm.assess import score_examples
from psgpo.prm.data import ExactRecord, response_key
from psgpo.prm.scorers import CausalScorer
from psgpo.prm.train import line_mse

RECORD = ScorerRecord(kind="causal", scope="line", target="sign", prompt_template="# {prompt}\n", threshold=0.0)


@pytest.fixture(scope="module")
def trained(policy_dir, tokenizer, tmp_path_factory):
    out = tmp_path_factory.mktemp("prm")
    train, held_out = split_by_problem(examples(tokenizer, 240), 0.2)
    kept = train_prm(policy_dir, train, held_out, SETTINGS, out, seed=1)
    return out, kept, train, held_out


def test_line_mse_takes_its_denominator():
    scores, targets = torch.tensor([1.0, 0.5, 3.0]), torch.tensor([0.0, 1.0, -1.0])
    weights = torch.tensor([1.0, 1.0, 0.0])
    assert line_mse(scores, targets, weights, 2.0).item() == pytest.approx((1 + 0.25) / 2)
    halves = line_mse(scores[:1], targets[:1], weights[:1], 2.0) + line_mse(scores[1:], targets[1:], weights[1:], 2.0)
    assert halves.item() == pytest.approx(line_mse(scores, targets, weights, 2.0).item())


def test_training_learns_where_programs_break(trained):
    out, kept, _, _ = trained
    history = without_times(out)
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert kept["held_out_loss"] < 0.5 * history[0]["held_out_loss"]
    assert kept["held_out_loss"] == min(row["held_out_loss"] for row in history[1:])
    assert kept["held_out_accuracy"] > kept["held_out_majority"] + 0.1
    assert not (out / "best").exists()
    assert f"epoch {kept['epoch']} of 3" in (out / "model" / "README.md").read_text()


def test_the_folder_is_a_plain_token_classifier_with_the_same_scores(trained, tokenizer):
    out, _, _, held_out = trained
    example = held_out[0]
    plain = AutoModelForTokenClassification.from_pretrained(out / "model").eval()
    assert plain.config.num_labels == 1
    assert plain.score.bias is None or not plain.score.bias.any()
    with torch.no_grad():
        logits = plain(torch.tensor([[*example.prompt_ids, *example.token_ids]])).logits[0, :, 0]
    ours = PrmScorer(out / "model").score([(example.prompt_ids, example.token_ids, example.line_ends)])[0]
    ends = [len(example.prompt_ids) + end for end in example.line_ends]
    np.testing.assert_allclose(ours, logits[ends].numpy(), atol=1e-5)


def test_a_prm_of_the_first_layers(policy_dir, tokenizer, tmp_path):
    train, held_out = split_by_problem(examples(tokenizer, 24), 0.2)
    settings = SETTINGS.model_copy(update={"layers": 1, "epochs": 1})
    train_prm(policy_dir, train, held_out, settings, tmp_path, seed=1)
    assert TokenValueModel.from_pretrained(tmp_path / "model").classifier.config.num_hidden_layers == 1


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 40])
def test_an_interrupted_training_goes_on_to_the_identical_result(trained, policy_dir, tmp_path, at):
    reference, kept, train, held_out = trained

    def kill(done: int, total: int) -> None:
        if done == at:
            raise KilledError

    with pytest.raises(KilledError):
        train_prm(policy_dir, train, held_out, SETTINGS, tmp_path, seed=1, progress=kill)
    steps: list[int] = []
    again = train_prm(policy_dir, train, held_out, SETTINGS, tmp_path, seed=1, progress=lambda d, _: steps.append(d))
    assert (steps[0] > 1) == (at == 40)  # what was done before the last saved epoch is not done again
    assert without_times(tmp_path) == without_times(reference)
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in kept.items() if k != "seconds"}
    ours = TokenValueModel.from_pretrained(tmp_path / "model").state_dict()
    theirs = TokenValueModel.from_pretrained(reference / "model").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_state_of_another_training_is_refused(trained, policy_dir, tmp_path):
    _, _, train, held_out = trained

    def kill(done: int, total: int) -> None:
        if done == 40:
            raise KilledError

    with pytest.raises(KilledError):
        train_prm(policy_dir, train, held_out, SETTINGS, tmp_path, seed=1, progress=kill)
    with pytest.raises(UserError, match="other settings or data"):
        train_prm(policy_dir, train, held_out, SETTINGS, tmp_path, seed=2)
    first = train[0]
    for change in (
        {"targets": (0.5,) * len(first.targets)},
        {"prompt_ids": (*first.prompt_ids, 5)},
        {"line_ends": (0, *first.line_ends[1:])},
        {"weights": (0.0, *first.weights[1:])},
    ):
        with pytest.raises(UserError, match="other settings or data"):
            train_prm(
                policy_dir, [dataclasses.replace(first, **change), *train[1:]], held_out, SETTINGS, tmp_path, seed=1
            )


def test_too_long_and_missing_examples_are_refused(trained, policy_dir, tmp_path):
    _, _, train, held_out = trained
    with pytest.raises(UserError, match="examples on both sides"):
        train_prm(policy_dir, train, [], SETTINGS, tmp_path)
    endless = dataclasses.replace(train[0], token_ids=train[0].token_ids * 500)
    with pytest.raises(UserError, match="context holds 1024"):
        train_prm(policy_dir, [endless], held_out, SETTINGS, tmp_path)
    with pytest.raises(UserError, match=r"has 1025 tokens.*context holds 1024"):
        train_prm(policy_dir, train, held_out, SETTINGS, tmp_path, longest_scored=1025)


def test_open_responses_neither_break_the_training_nor_change_it(trained, policy_dir, tmp_path):
    _, _, train, held_out = trained
    settings = SETTINGS.model_copy(update={"epochs": 1, "batch_size": 1})
    blank = dataclasses.replace(train[0], weights=(0.0,) * len(train[0].weights))
    kept = train_prm(policy_dir, train[:6], held_out[:4], settings, tmp_path / "known")
    more = train_prm(policy_dir, [*train[:6], blank], [*held_out[:4], blank], settings, tmp_path / "more")
    assert {k: v for k, v in more.items() if k != "seconds"} == {k: v for k, v in kept.items() if k != "seconds"}
    with pytest.raises(UserError, match="none of the 1 responses to choose the epoch by has a line that counts"):
        train_prm(policy_dir, train[:6], [blank], settings, tmp_path / "blank")


def test_scores_do_not_depend_on_the_batch(trained):
    out, _, _, held_out = trained
    items = [(e.prompt_ids, e.token_ids, e.line_ends) for e in held_out]
    items.insert(3, (items[0][0], items[0][1], ()))
    together = PrmScorer(out / "model").score(items)
    small = PrmScorer(out / "model", batch_tokens=1).score(items)
    assert [len(s) for s in together] == [len(item[2]) for item in items]
    for a, b in zip(together, small, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("last", ["\n", ""], ids=["newline", "none"])
def test_text_is_read_as_the_ids_of_training_are(trained, tokenizer, last):
    out, _, _, _ = trained
    scorer = CausalScorer(PrmScorer(out / "model"), RECORD)
    text = "\n".join([GOOD[0], GOOD[1], BAD, GOOD[2]]) + last
    label = labelled(tokenizer, text, 2)
    by_ids = scorer.scorer.score([(label.response.prompt_ids, label.response.token_ids, label.line_ends)])[0]
    by_text = scorer.score_lines("task", text)
    np.testing.assert_allclose(by_text, by_ids, atol=1e-5)
    assert (by_text > 0).tolist() == [True, True, False, False]
    assert scorer.score_lines("task", "").shape == (0,)


def test_a_line_is_scored_on_its_prefix_alone(trained):
    out, _, _, held_out = trained
    scorer = PrmScorer(out / "model")
    example = max(held_out, key=lambda e: len(e.line_ends))
    whole = scorer.score([(example.prompt_ids, example.token_ids, example.line_ends)])[0]
    ends = example.line_ends[:2]
    prefix = scorer.score([(example.prompt_ids, example.token_ids[: ends[-1] + 1], ends)])[0]
    np.testing.assert_allclose(whole[:2], prefix, atol=1e-5)


def test_assess_writes_scores_and_both_truths(trained, tokenizer, tmp_path):
    out, _, _, _ = trained
    labels = random_labels(tokenizer, 40, seed=9)
    exact = {
        response_key(label.response): ExactRecord(last_on_track=0, progress=(0.0,) * len(label.line_ends))
        for label in labels
    }
    found = assess_prm(PrmScorer(out / "model"), labels, SETTINGS, tmp_path, exact)
    assert json.loads((tmp_path / "measure.json").read_text()) == found
    assert found["search"]["lines"]["accuracy"] > 0.85
    assert found["exact"]["lines"]["good_share"] == 0.0  # this oracle calls every line wrong
    scores = list(read_jsonl(tmp_path / "scores.jsonl", dict))
    assert [(row["problem_id"], row["index"], row["checkpoint"]) for row in scores] == list(exact)
    assert all(len(row["scores"]) == len(label.line_ends) for row, label in zip(scores, labels, strict=True))
    assert assess_prm(PrmScorer(out / "model"), labels, SETTINGS, tmp_path)["exact"] is None


def test_a_progress_prm_learns_the_share_done(policy_dir, tokenizer, tmp_path):
    settings = SETTINGS.model_copy(update={"target": "progress"})
    train, held_out = split_by_problem(build_examples(random_labels(tokenizer, 160), settings), 0.2)
    kept = train_prm(policy_dir, train, held_out, settings, tmp_path)
    assert kept["held_out_loss"] < 0.6 * without_times(tmp_path)[0]["held_out_loss"]


def test_micro_batches_and_recomputed_activations_train_the_same(policy_dir, tokenizer, tmp_path):
    train, held_out = split_by_problem(examples(tokenizer, 60), 0.2)
    settings = SETTINGS.model_copy(update={"epochs": 1})
    whole = train_prm(policy_dir, train, held_out, settings, tmp_path / "a", seed=1)
    small = settings.model_copy(update={"microbatch_tokens": 60})
    again = ModelSettings(gradient_checkpointing=True)
    parts = train_prm(policy_dir, train, held_out, small, tmp_path / "b", seed=1, compute=again)
    assert whole["train_loss"] == pytest.approx(parts["train_loss"], rel=1e-5)
    assert whole["held_out_loss"] == pytest.approx(parts["held_out_loss"], rel=1e-4)
    rough = train_prm(
        policy_dir, train, held_out, settings, tmp_path / "c", seed=1, compute=ModelSettings(dtype="bfloat16")
    )
    assert rough["train_loss"] != whole["train_loss"]
    assert rough["train_loss"] == pytest.approx(whole["train_loss"], rel=0.05)


def test_adapters_learn_and_the_folder_is_a_plain_scorer(policy_dir, tokenizer, tmp_path):
    train, held_out = split_by_problem(examples(tokenizer, 120), 0.2)
    compute = ModelSettings(lora=LoraSettings(rank=4))
    settings = SETTINGS.model_copy(update={"epochs": 2, "learning_rate": 1e-2})
    kept = train_prm(policy_dir, train, held_out, settings, tmp_path, seed=1, compute=compute)
    history = without_times(tmp_path)
    assert kept["held_out_loss"] < 0.9 * history[0]["held_out_loss"]
    found = score_examples(PrmScorer(tmp_path / "model"), held_out)
    errors = [
        np.asarray(e.weights) * (row - np.asarray(e.targets)) ** 2 for e, row in zip(held_out, found, strict=True)
    ]
    lines = sum(sum(e.weights) for e in held_out)
    assert sum(error.sum() for error in errors) / lines == pytest.approx(kept["held_out_loss"], rel=1e-3)
