"""Encoders that read (problem, prefix): layout, cutting, training, resuming, what weights and smoothing do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from prm_text_world import mutants, save_bert, save_roberta
from prm_world import BAD, GOOD, SETTINGS
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from metrics_world import without_times
from psgpo.errors import UserError
from psgpo.prm import ScorerRecord, open_scorer, split_by_problem
from psgpo.prm.encoder import EncoderScorer, PairEncoder, context_of, load_encoder
from psgpo.prm.encoder_train import train_encoder
from psgpo.prm.texts import TextProgram, text_examples
from psgpo.prm.weights import weighed_texts

RECORD = ScorerRecord(kind="encoder", scope="line", target="correct", prompt_template="{prompt}", threshold=0.0)
ONE = SETTINGS.model_copy(update={"epochs": 1})
PROBLEM, LINES = "add 1 and return", ["def solve(x):", GOOD[0], BAD, GOOD[1]]


def text_programs(problems: int) -> list[TextProgram]:
    return [
        TextProgram(
            problem_id=p.problem_id,
            prompt=p.prompt,
            code=p.code,
            labels=tuple(float(label) if label else None for label in p.labels),
            passed=p.verdict == "pass",
        )
        for p in mutants(problems)
    ]


@pytest.fixture(scope="module")
def sides():
    train, held_out = split_by_problem(text_programs(90), 0.2)
    return text_examples(train, "line"), text_examples(held_out, "line")


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    return save_roberta(tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def trained(roberta, sides, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    kept = train_encoder(roberta, *sides, SETTINGS.model_copy(update={"epochs": 5}), RECORD, out, seed=1)
    return out, kept


@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_pairs_are_laid_out_as_the_tokenizer_does_it(name, request):
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(name))
    encode = PairEncoder(tokenizer, 128)
    prefix = "\n".join(LINES)
    ids, types = encode((PROBLEM, prefix))
    whole = tokenizer(PROBLEM, prefix)
    assert ids == whole["input_ids"]
    assert encode.cut == 0
    batch = encode.batch([(ids, types), encode((PROBLEM, LINES[0]))], "cpu")
    assert batch["attention_mask"].sum(1).tolist() == [len(ids), len(tokenizer(PROBLEM, LINES[0])["input_ids"])]
    assert (name == "bert") == ("token_type_ids" in batch)
    if name == "bert":
        assert batch["token_type_ids"][0].tolist() == whole["token_type_ids"]
        assert set(whole["token_type_ids"]) == {0, 1}


def test_a_long_pair_loses_the_end_of_the_problem_and_the_beginning_of_the_prefix(roberta):
    tokenizer = AutoTokenizer.from_pretrained(roberta)
    problem, prefix = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in ("z" * 90, "q" * 60 + "boom"))
    for most, left in ((None, 22), (10, 10)):  # 48 - 4 special tokens; by default at most half for the problem
        encode = PairEncoder(tokenizer, 48, most)
        ids, _ = encode(("z" * 90, "q" * 60 + "boom"))
        assert ids == [0, *problem[:left], 2, 2, *prefix[left - 44 :], 2]
        assert encode.cut == 1
        short, _ = encode(("z" * 90, "x = 1"))  # the problem may use what the prefix leaves
        assert len(short) == 48
        assert encode.cut == 2
        encode(("z", "x = 1"))
        assert encode.cut == 2


def test_contexts_too_short_are_refused(roberta, bert, sides, tmp_path):
    assert context_of(load_encoder(roberta, fresh_head=True)[0]) == 128  # RoBERTa's positions begin behind its pad id
    assert context_of(load_encoder(bert, fresh_head=True)[0]) == 96
    with pytest.raises(UserError, match="--max-tokens 500, but the encoder's context holds 96"):
        train_encoder(bert, *sides, ONE, RECORD.reading(500), tmp_path)
    with pytest.raises(UserError, match="leaves fewer than 16 for the prefix"):
        train_encoder(bert, *sides, ONE, RECORD.reading(30), tmp_path)
    narrow = save_roberta(tmp_path / "narrow", positions=20)
    with pytest.raises(UserError, match="longer context"):
        train_encoder(narrow, *sides, ONE, RECORD, tmp_path)


def test_training_learns_what_makes_lines_bad(trained, sides):
    out, kept = trained
    history = without_times(out)
    assert kept["held_out_loss"] == min(row["held_out_loss"] for row in history[1:]) < 0.5 * history[0]["held_out_loss"]
    assert kept["held_out_accuracy"] > max(0.95, kept["held_out_majority"] + 0.05)
    scorer = open_scorer(out / "model")
    assert isinstance(scorer, EncoderScorer)
    assert scorer.record.max_tokens == 128
    scores = scorer.score_lines(PROBLEM, "\n".join(LINES) + "\n")
    assert (scores > 0).tolist() == [True, True, False, False]
    alone = scorer.score_prefixes([(PROBLEM, "\n".join(LINES[:m])) for m in range(1, 5)])
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    several = scorer.score_many([(PROBLEM, ""), (PROBLEM, "\n".join(LINES)), (PROBLEM, LINES[0])])
    assert [len(row) for row in several] == [0, 4, 1]
    np.testing.assert_allclose(several[1], scores, atol=1e-5)
    np.testing.assert_allclose(scorer.probabilities(PROBLEM, LINES[0]), 1 / (1 + np.exp(-scores[:1])), atol=1e-5)
    with pytest.raises(UserError, match="scores lines, not whole programs"):
        scorer.score_program(PROBLEM, LINES[0])


def test_the_folder_reads_without_this_package_as_its_card_says(trained):
    out, _ = trained
    model = AutoModelForSequenceClassification.from_pretrained(out / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    assert model.config.num_labels == 1
    with torch.no_grad():
        logit = model(**tokenizer(PROBLEM, "\n".join(LINES[:3]), return_tensors="pt")).logits[0, 0]
    assert float(logit) == pytest.approx(open_scorer(out / "model").score_lines(PROBLEM, "\n".join(LINES))[2], abs=1e-5)
    card = (out / "model" / "README.md").read_text()
    assert "It reads 128 tokens" in card
    assert "0.0% of the training pairs" in card


def test_cut_training_pairs_are_counted_in_the_card(roberta, sides, tmp_path):
    train, held_out = sides
    endless = [dataclasses.replace(e, prompt="z " * 200) if i % 2 else e for i, e in enumerate(train[:40])]
    train_encoder(roberta, endless, held_out, ONE, RECORD, tmp_path)
    assert "50.0% of the training pairs" in (tmp_path / "model" / "README.md").read_text()


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 120])
def test_a_stopped_training_goes_on_to_the_identical_weights(trained, roberta, sides, tmp_path, at):
    reference, kept = trained
    five = SETTINGS.model_copy(update={"epochs": 5})

    def kill(done: int, total: int) -> None:
        if done == at:
            raise KilledError

    with pytest.raises(KilledError):
        train_encoder(roberta, *sides, five, RECORD, tmp_path, seed=1, progress=kill)
    if at > 1:
        with pytest.raises(UserError, match="other settings or data"):
            train_encoder(roberta, *sides, five, RECORD, tmp_path, seed=2)
    steps: list[int] = []
    again = train_encoder(roberta, *sides, five, RECORD, tmp_path, seed=1, progress=lambda d, _: steps.append(d))
    assert (steps[0] > 1) == (at > 1)  # epochs that were saved are not repeated
    assert again | {"seconds": 0} == kept | {"seconds": 0}
    assert without_times(tmp_path) == without_times(reference)
    ours, theirs = (load_encoder(out / "model", fresh_head=False)[0].state_dict() for out in (tmp_path, reference))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_encoder_with_segments_trains_and_an_orm_scores_programs(bert, tmp_path):
    record = dataclasses.replace(RECORD, scope="program")
    train, held_out = split_by_problem(text_programs(120), 0.2)
    sides = text_examples(train, "program"), text_examples(held_out, "program")
    train_encoder(bert, *sides, SETTINGS.model_copy(update={"epochs": 6, "learning_rate": 1e-2}), record, tmp_path)
    scorer = open_scorer(tmp_path / "model")
    right, wrong = "\n".join([LINES[0], GOOD[0], GOOD[1]]), "\n".join(LINES)
    assert scorer.score_program(PROBLEM, right) > scorer.score_program(PROBLEM, wrong)
    assert scorer.score_program(PROBLEM, right + "\n\n") == pytest.approx(scorer.score_program(PROBLEM, right))
    assert np.isnan(scorer.score_program(PROBLEM, ""))
    assert "Outcome reward model" in (tmp_path / "model" / "README.md").read_text()


def made_by_hand(examples, changes):
    """Targets and weights replaced; `changes`: (new target, new weight) by old target."""
    return [dataclasses.replace(e, target=changes[e.target][0], weight=changes[e.target][1]) for e in examples]


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ({"label_smoothing": 0.2}, {1.0: (0.9, 1.0), 0.0: (0.1, 1.0)}),
        ({"class_weights": "balanced"}, {1.0: (1.0, 40 / 60), 0.0: (0.0, 40 / 20)}),
    ],
)
def test_smoothing_and_balancing_are_changes_of_the_examples(roberta, sides, tmp_path, option, changes):
    good, bad = ([e for e in sides[0] if e.target == target] for target in (1.0, 0.0))
    train = [*good[:30], *bad[:10]]
    weighed = weighed_texts(train, ONE.model_copy(update=option))
    by_hand = made_by_hand(train, changes)
    assert [e.target for e in weighed] == pytest.approx([e.target for e in by_hand])
    assert [e.weight for e in weighed] == pytest.approx([e.weight for e in by_hand])
    train_encoder(roberta, train, sides[1], ONE.model_copy(update=option), RECORD, tmp_path / "option")
    train_encoder(roberta, by_hand, sides[1], ONE, RECORD, tmp_path / "hand")
    train_encoder(roberta, train, sides[1], ONE, RECORD, tmp_path / "plain")
    option_row, hand_row, plain_row = (without_times(tmp_path / name)[1] for name in ("option", "hand", "plain"))
    assert option_row["held_out_loss"] == pytest.approx(hand_row["held_out_loss"], rel=1e-6)
    assert option_row["held_out_loss"] != pytest.approx(plain_row["held_out_loss"], rel=1e-4)


def test_soft_labels_are_soft_targets_and_half_counts_for_no_class(sides):
    program = TextProgram(problem_id="p", prompt="", code="a\nb\nc\nd", labels=(1.0, 0.5, -1.0, 0.0), passed=False)
    examples = text_examples([program], "line")
    assert [e.target for e in examples] == [1.0, 0.75, 0.0, 0.5]
    weighed = weighed_texts(examples, SETTINGS.model_copy(update={"class_weights": "balanced"}))
    assert [e.weight for e in weighed] == [0.75, 0.75, 1.5, 1.0]  # two good, one bad, one neither


def test_one_class_and_unusable_folders_are_refused(roberta, sides, tmp_path):
    train, held_out = sides
    with pytest.raises(UserError, match="0 bad examples; a PRM needs both"):
        train_encoder(roberta, [e for e in train if e.target == 1], held_out, ONE, RECORD, tmp_path)
    with pytest.raises(UserError, match="choose the epoch: 0 good"):
        train_encoder(roberta, train, [e for e in held_out if e.target == 0], ONE, RECORD, tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        load_encoder(tmp_path / "none", fresh_head=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no encoder with its tokenizer"):
        load_encoder(tmp_path / "empty", fresh_head=True)
    RECORD.save(tmp_path / "empty")
    with pytest.raises(UserError, match="lacks max_tokens"):
        open_scorer(tmp_path / "empty")
