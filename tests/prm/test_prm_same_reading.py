"""A causal PRM is trained on exactly what it reads when it scores, under every tokenizer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prm_tokenizers import BACKENDS, make, value_model
from test_prm_scorers import RECORD, TEXTS

from psgpo.lines import code_lines
from psgpo.prm import PrmScorer
from psgpo.prm.assess import score_examples
from psgpo.prm.programs import Encoder, PromptShape, line_examples, program_examples
from psgpo.prm.scorers import CausalScorer
from psgpo.prm.texts import TextProgram
from psgpo.rl.rollout import TextLineScorer

SHAPE = PromptShape(template=RECORD.prompt_template)


@pytest.fixture(scope="module", params=list(BACKENDS))
def scorer(request):
    tokenizer = make(request.param)
    return CausalScorer(PrmScorer(value_model(tokenizer), tokenizer), RECORD)


def labelled(text, label):
    labels = tuple(None if line.neutral else label for line in code_lines(text))
    return TextProgram(problem_id="p", prompt="task", code=text, labels=labels, passed=label > 0)


def same_values(one, other):
    """The same numbers, however often each."""
    near = np.isclose(np.reshape(one, (-1, 1)), np.reshape(other, (1, -1)), atol=1e-5)
    return bool(near.any(1).all() and near.any(0).all())


@settings(max_examples=40)
@given(text=TEXTS, label=st.sampled_from([1, -1]))
def test_every_target_stands_where_scoring_reads(scorer, text, label):
    program = labelled(text, label)
    examples = line_examples(Encoder(scorer.scorer.tokenizer, SHAPE), [program])
    scores = scorer.score_lines("task", text)
    trained = score_examples(scorer.scorer, examples)
    pairs = [
        (score, target)
        for example, row in zip(examples, trained, strict=True)
        for score, target, weight in zip(row, example.targets, example.weights, strict=True)
        if weight
    ]
    assert all(target == label for _, target in pairs)
    # Lines that end in one token have one score and one target between them; every other labelled line has its own.
    told = [score for score, value in zip(scores, program.labels, strict=True) if value]
    assert same_values(told, [score for score, _ in pairs])
    if examples and not scorer._align(text).overhang.count(True):
        # The ids of training are the beginning of those of scoring.
        whole = scorer._ended(text)
        assert whole.token_ids[: len(examples[0].token_ids)] == examples[0].token_ids


@settings(max_examples=20)
@given(text=TEXTS.filter(lambda text: code_lines(text) != ()))
def test_an_outcome_model_reads_programs_as_it_is_trained(scorer, text):
    orm = CausalScorer(scorer.scorer, dataclasses.replace(RECORD, scope="program"))
    (example,) = program_examples(Encoder(scorer.scorer.tokenizer, SHAPE), [(labelled(text, 1), True)])
    assert [(t, w) for t, w in zip(example.targets, example.weights, strict=True) if w] == [(1.0, 1.0)]
    assert example.token_ids[-1] == scorer.scorer.tokenizer.eos_token_id
    trained = score_examples(orm.scorer, [example])[0][-1]
    np.testing.assert_allclose(orm.score_program("task", text), trained, atol=1e-5)
    np.testing.assert_allclose(orm.score_lines("task", text)[-1], trained, atol=1e-5)
    if text.endswith("\n"):  # a newline at the end of the program says nothing about its outcome
        np.testing.assert_allclose(orm.score_program("task", text + "\n"), trained, atol=1e-5)


def test_an_outcome_model_reads_the_code_of_a_chat_answer_in_training_scoring_and_rl(scorer):
    orm = CausalScorer(scorer.scorer, dataclasses.replace(RECORD, scope="program"))
    encoder = Encoder(scorer.scorer.tokenizer, SHAPE)
    code = "def f(x):\n    return x"
    chat = f"Here it is:\n```python\n{code}\n```\nDone.\n"
    ids = [program_examples(encoder, [(labelled(text, 1), True)])[0].token_ids for text in (chat, code)]
    assert ids[0] == ids[1]
    scores = [orm.score_program("task", text) for text in (chat, code)]
    assert scores[0] == scores[1]
    paid = TextLineScorer(orm)._programs([("task", chat)])
    np.testing.assert_allclose(paid[0], scores[:1], atol=1e-5)


@pytest.mark.parametrize("name", ["no-split", "metaspace"])
def test_lines_whose_token_knows_the_next_line_are_trained_alone(name):
    tokenizer = make(name)
    text = "if a:\n    y = x + 1\n\n    return y\n"
    encoder = Encoder(tokenizer, SHAPE)
    alone = {m: ids for m, ids in encoder.code(text)[1].items() if code_lines(text)[m].text}
    assert alone
    whole, *rest = line_examples(encoder, [labelled(text, 1)])
    assert [example.token_ids for example in rest] == list(alone.values())
    assert all(whole.weights[m] == 0 for m in alone)
    assert {example.targets for example in rest} == {(1.0,)}
    assert {example.weights for example in rest} == {(1.0,)}
