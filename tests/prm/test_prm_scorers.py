"""Every tokenizer and every text: one score per line, made from the program up to that line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prm_tokenizers import BACKENDS, BYTE_LEVEL, make, value_model
from prm_world import SETTINGS, examples, random_labels

from psgpo.errors import UserError
from psgpo.lines import code_lines
from psgpo.prm import PrmScorer, ScorerRecord, open_scorer, split_by_problem, train_prm
from psgpo.prm.scorers import CausalScorer

RECORD = ScorerRecord(
    kind="causal", scope="line", target="sign", prompt_template="# {prompt}\n", threshold=0.0, max_prompt_tokens=None
)
PIECES = [
    "x = 1", "\n", "\n\n", "\r\n", "\t", "    ", "  ", "y = 'ä€😀'", '"""doc\nmore"""', "# note", "```python\n",
    "\n```", "<eos>", "return x", ":", "é", "\\\n", "f(",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@pytest.fixture(scope="module", params=list(BACKENDS))
def named(request):
    tokenizer = make(request.param)
    return request.param, CausalScorer(PrmScorer(value_model(tokenizer), tokenizer), RECORD)


def test_a_program_that_the_context_cannot_hold_is_named(named):
    _, scorer = named
    held = scorer.scorer.context
    with pytest.raises(UserError, match=rf"a program for 'add one' has \d+ tokens .* context holds {held}; leave"):
        scorer.score_lines("add\none", "x = 1\n" * (held + 1))
    with pytest.raises(UserError, match="a program for 'add one'"):
        scorer.score_prefixes([("task", "x = 1\n"), ("add one", "x = 1\n" * (held + 1))])


@settings(max_examples=60)
@given(text=TEXTS)
def test_one_score_per_line_from_the_text_up_to_it(named, text):
    name, scorer = named
    lines = code_lines(text)
    aligned = scorer._align(text)
    scores = scorer.score_lines("task", text)
    assert scores.shape == (len(lines),)
    assert np.isfinite(scores).all()
    prompt = scorer._prompt("task")
    for m, (line, end) in enumerate(zip(lines, aligned.line_ends, strict=True)):
        if not text[: line.end].endswith("\n"):
            ids = (*aligned.token_ids, scorer.scorer.tokenizer.eos_token_id)  # the program ends here
        elif aligned.overhang[m]:
            ids = scorer._align(text[: line.end]).token_ids  # as if nothing followed
        else:
            ids = aligned.token_ids[: end + 1]
            if name in BYTE_LEVEL and "<eos>" not in text:
                seen = scorer.scorer.tokenizer.decode(ids).rstrip("\ufffd")
                assert seen.startswith(text[: line.end].rstrip("\n"))  # all of the line ...
                assert not seen[line.end :].strip()  # ... and of the next no more than its indentation
        alone = scorer.scorer.score([(prompt, ids, [len(ids) - 1])])[0]
        np.testing.assert_allclose(scores[m], alone[0], atol=1e-5)


@settings(max_examples=25)
@given(text=TEXTS, tail=TEXTS)
def test_what_follows_a_line_does_not_change_its_score(named, text, tail):
    _, scorer = named
    text = f"x = 1\n{text}"
    before, after = code_lines(text + "\n"), code_lines(f"{text}\nz = 2\n{tail}")
    same = [m for m in range(min(len(before), len(after))) if before[m].end == after[m].end]
    one, two = scorer.score_lines("t", text + "\n"), scorer.score_lines("t", f"{text}\nz = 2\n{tail}")
    if not any(fence in text for fence in ("```", "<eos>")):
        # A tokenizer may merge the newlines behind the last line with what follows: that line is left out.
        np.testing.assert_allclose(one[same[:-2]], two[same[:-2]], atol=1e-5)


def test_a_token_over_a_line_end_is_not_read(named):
    name, scorer = named
    aligned = scorer._align("if a:\n    y = x + 1\n\n    return y\n")
    assert any(aligned.overhang) == (name in ("no-split", "metaspace"))  # those cut nowhere before they merge


def test_a_run_of_newlines_scores_the_statement_and_the_blank_line_alike():
    tokenizer = make("llama3")
    scorer = CausalScorer(PrmScorer(value_model(tokenizer), tokenizer), RECORD)
    assert scorer._align("a = 1\n\nb = 2\n").line_ends[:2] == (scorer._align("a = 1\n\nb = 2\n").line_ends[0],) * 2
    scores = scorer.score_lines("t", "a = 1\n\nb = 2\n")
    assert scores[0] == scores[1] != scores[2]


@pytest.fixture(scope="module")
def folder(policy_dir, tokenizer, tmp_path_factory):
    out = tmp_path_factory.mktemp("opened")
    train, held_out = split_by_problem(examples(tokenizer, 60), 0.2)
    one = SETTINGS.model_copy(update={"epochs": 1})
    train_prm(policy_dir, train, held_out, one, out, record=RECORD, seed=1)
    return out / "model"


def test_open_scorer_reads_what_training_wrote(folder, tokenizer):
    scorer = open_scorer(folder)
    label = random_labels(tokenizer, 2)[1]
    text = label.response.text
    ids = tuple(tokenizer("# task\n", add_special_tokens=False)["input_ids"])
    by_ids = PrmScorer(folder).score([(ids, label.response.token_ids, label.line_ends)])[0]
    np.testing.assert_allclose(scorer.score_lines("task", text), by_ids, atol=1e-5)  # the template is applied
    np.testing.assert_allclose(scorer.probabilities("task", text), np.clip((by_ids + 1) / 2, 0, 1), atol=1e-5)
    assert scorer.threshold == 0.0
    several = scorer.score_many([("task", text), ("other", "x = 1"), ("task", "")])
    np.testing.assert_allclose(several[0], by_ids, atol=1e-5)
    assert [len(row) for row in several] == [len(by_ids), 1, 0]
    with pytest.raises(UserError, match="scores lines, not whole programs"):
        scorer.score_program("task", text)


def test_progress_lines_are_margins_around_zero(folder):
    scorer = open_scorer(folder)
    raw = scorer.score_lines("task", "x = 1\ny = 2\nz = 3\n")
    progress = CausalScorer(scorer.scorer, dataclasses.replace(RECORD, target="progress"))
    expected = 3 * max(0.0, raw.max()) + 0.5 - np.array([1, 2, 3])
    np.testing.assert_allclose(progress.score_lines("task", "x = 1\ny = 2\nz = 3\n"), expected, atol=1e-5)


def test_what_cannot_be_opened_says_why(folder, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_scorer(tmp_path / "none")
    with pytest.raises(UserError, match=r"no psgpo_prm\.json"):
        open_scorer(tmp_path)
    good = json.loads((folder / "psgpo_prm.json").read_text())
    assert good["version"] == 1
    for change, message in (
        ({"version": 2}, r"^\S+: version 2; this psgpo reads version 1; train the PRM again$"),
        ({"kind": "magic"}, "kind 'magic'; allowed: causal, encoder"),
        ({"surprise": 1}, "not readable"),
        ({"prompt_template": "none"}, "lacks {prompt}"),
    ):
        (tmp_path / "psgpo_prm.json").write_text(json.dumps(good | change))
        with pytest.raises(UserError, match=message):
            open_scorer(tmp_path)


def test_a_program_longer_than_the_context_is_refused(folder):
    with pytest.raises(UserError, match="the model's context holds 1024"):
        open_scorer(folder).score_lines("task", "x = 1\n" * 2000)
