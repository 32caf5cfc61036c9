"""Label noise at a known rate, and label budgets: who gets them, and that what measures a PRM never does."""

from __future__ import annotations

from collections import Counter

import pytest
from prm_world import SETTINGS, labelled, random_labels

from psgpo.config import PrmSettings, parse_recipe
from psgpo.errors import UserError
from psgpo.prm.data import PrmExample, build_examples, first_problems, with_noise


def noisy(examples: list[PrmExample], noise: float, seed: int = 0, **settings) -> list[PrmExample]:
    return with_noise(examples, SETTINGS.model_copy(update={"noise": noise, **settings}), seed)


def test_no_noise_changes_nothing(tokenizer):
    examples = build_examples(random_labels(tokenizer, 20), SETTINGS)
    assert noisy(examples, 0.0) == examples


@pytest.mark.parametrize("target", ["sign", "progress"])
def test_targets_follow_from_the_number_that_was_drawn(tokenizer, target):
    settings = SETTINGS.model_copy(update={"target": target})
    labels = random_labels(tokenizer, 60)
    redrawn = noisy(build_examples(labels, settings), 1.0, target=target)
    for label, example in zip(labels, redrawn, strict=True):
        lines = len(label.line_ends)
        honest = labelled(tokenizer, label.response.text, example.last_solvable)
        assert 0 <= example.last_solvable <= lines
        assert example.targets == build_examples([honest], settings)[0].targets


def test_every_number_of_lines_is_drawn(tokenizer):
    same = [labelled(tokenizer, "a = 1\nb = 2\nc = 3\n", 1, problem=f"p{n}") for n in range(400)]
    drawn = Counter(example.last_solvable for example in noisy(build_examples(same, SETTINGS), 1.0))
    assert sorted(drawn) == [0, 1, 2, 3]
    assert min(drawn.values()) > 60


def test_the_share_is_as_asked_and_a_higher_rate_changes_the_same_and_more(tokenizer):
    same = [labelled(tokenizer, "a = 1\n" * 30, 7, problem=f"p{n}") for n in range(400)]
    examples = build_examples(same, SETTINGS)
    moved = {}
    for noise in (0.2, 0.5):
        found = noisy(examples, noise)
        moved[noise] = {new.key: new.targets for old, new in zip(examples, found, strict=True) if new != old}
    assert 0.13 < len(moved[0.2]) / 400 < 0.27
    assert 0.4 < len(moved[0.5]) / 400 < 0.6
    assert moved[0.2].items() <= moved[0.5].items()
    assert noisy(examples, 0.5) == noisy(examples, 0.5)
    assert noisy(examples, 0.5) != noisy(examples, 0.5, seed=1)


def test_neutral_labels_are_kept(tokenizer):
    (example,) = noisy(build_examples([labelled(tokenizer, "a = 1\n# note\nb = 2\n", 1)], SETTINGS), 1.0)
    assert example.targets[1] == 0.0


def test_noise_where_there_is_nothing_to_replace_is_refused():
    with pytest.raises(ValueError, match="noise replaces m"):
        PrmSettings(target="soft", noise=0.1)
    table = {"name": "t", "out": "o", "problems": {"kind": "opchain"}, "arms": {"baseline": {}}}
    prm = {"p": {"target": "sign", "kind": "ngrams", "noise": 0.5}}
    with pytest.raises(UserError, match=r"noise = 0\.5 needs a PRM of lines that starts from the policy"):
        parse_recipe(table | {"prm": prm}, origin="r")


def test_a_budget_takes_whole_problems_and_a_larger_one_adds_to_it(tokenizer):
    same = [labelled(tokenizer, "a = 1\nb = 2\n", 1, problem=f"p{n % 20}", index=n // 20) for n in range(80)]
    examples = build_examples(same, SETTINGS)
    small, large = first_problems(examples, 10), first_problems(examples, 30)
    assert [len(small), len(large)] == [10, 30]
    assert {one.key for one in small} < {one.key for one in large}
    assert Counter(Counter(one.problem_id for one in large).values()) == {4: 7, 2: 1}
    assert first_problems(examples, 1000) == examples
    assert [examples.index(one) for one in large] == sorted(examples.index(one) for one in large)
