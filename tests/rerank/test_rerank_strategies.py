"""Strategies with a scripted policy and PRM: exact token counts, what is kept, what is written again."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from psgpo.problems.programs import end_of_answer
from psgpo.records import AssertTests, Completion, Problem
from psgpo.rerank.drive import Driver, Player
from psgpo.rerank.strategies import Attempt, beam, best_of_n, rejection

END = 0
VOCABULARY = {1: "a\n", 2: "b\n", 3: "# c\n", 4: "d\n", 5: "e", 6: "\n"}
"""A token is a line, but for 5 and 6."""


class Text:
    """Stands for `TokenText`."""

    def decode(self, ids):
        return self.decode_with_ends(ids)[0]

    def decode_with_ends(self, ids):
        parts = [VOCABULARY.get(token, "") for token in ids]
        return "".join(parts), np.cumsum([len(part) for part in parts]).tolist()


class Script:
    """Answers a prefix with the next of the continuations listed for it; ends at END, or at newlines too."""

    def __init__(self, continuations, *, at_lines):
        self.continuations, self.at_lines, self.seeds = continuations, at_lines, []

    def sample(self, prefixes, *, seeds, temperature, top_p, max_new_tokens):
        self.seeds += seeds
        return [self._one(tuple(p[1:]), limit) for p, limit in zip(prefixes, max_new_tokens, strict=True)]

    def _one(self, prefix, limit):
        ids = self.continuations[prefix].pop(0)
        if self.at_lines:
            stop = next(i for i, token in enumerate(ids) if token == END or "\n" in VOCABULARY[token])
            ids = ids[: stop + 1]
        ids = tuple(ids[:limit])
        done = ids[-1] == END or (self.at_lines and "\n" in VOCABULARY[ids[-1]])
        return Completion(token_ids=ids, logprobs=(-1.0,) * len(ids), finished=done)


class Words:
    """The score of a text, from a table; remembers what was asked."""

    def __init__(self, table):
        self.table, self.asked = table, []

    def score_prefixes(self, pairs):
        self.asked += [text for _, text in pairs]
        return np.array([self.table[text] for _, text in pairs])


def played(strategy, continuations, table, *, budget, longest=50, fences=False, ends_at=lambda text: None):
    stops = frozenset({END})
    attempt = Attempt(budget=budget, max_new_tokens=longest, text=Text(), stops=stops, fences=fences, ends_at=ends_at)
    whole, lines = (Script(continuations, at_lines=at_lines) for at_lines in (False, True))
    words = Words(table)
    driver = Driver(sampler=whole, line_sampler=lines, scorer=words, temperature=1.0, top_p=1.0, seed=0)
    driver.run([Player(problem_id="p", prompt="p", prompt_ids=(9,), asking=strategy(attempt))])
    assert attempt.spent <= budget
    assert len({*whole.seeds, *lines.seeds}) == attempt.drawn
    return attempt, words


def found(attempt):
    """(ids, tokens spent)."""
    return [(c.row.ids, c.tokens) for c in attempt.candidates]


FUNCTION = {11: "    y = x\n", 12: "    return y\n", 13: "print", 14: "(f(1))\n", 15: "```\n", 16: "    "}
HEAD = AssertTests(entry_point="f", checks=("f",))
inside_f = functools.partial(end_of_answer, Problem(id="p", prompt="p", tests=HEAD, starter_code="def f(x):\n"))


@pytest.fixture
def function_words(monkeypatch: pytest.MonkeyPatch):
    for token, text in FUNCTION.items():
        monkeypatch.setitem(VOCABULARY, token, text)


def test_best_of_n_spends_the_budget_on_whole_programs():
    programs = {(): [(1, 2, END), (4, END), (1, 1, 1, END)]}
    attempt, words = played(best_of_n, programs, {}, budget=7)
    assert found(attempt) == [((1, 2, END), 3), ((4, END), 5)]  # two tokens are left: the third is cut off
    assert attempt.spent == 7
    assert words.asked == []  # nothing guides it
    assert attempt.candidates[0].row.logprobs == (-1.0,) * 3


def test_beam_keeps_the_best_prefixes_and_counts_lost_lines():
    script = {
        (): [(1,), (2,), (4,), (1,)],  # width 2 x 2 expansions: a, b, d, a; the second a is the first
        (1,): [(2,), (END,)],
        (4,): [(1,), (4,)],
        (1, 2): [(END,), (END,)],
        (4, 4): [(END,), (END,)],
    }
    table = {"a\n": 0.5, "b\n": 0.1, "d\n": 0.9, "a\nb\n": 0.6, "d\na\n": 0.2, "d\nd\n": 0.8}
    attempt, words = played(lambda a: beam(a, width=2, expansions=2), script, table, budget=12)
    # b is dropped; then of (a b, a END, d a, d d) the best are d d (.8) and a b (.6); both end.
    assert found(attempt) == [((1, END), 8), ((4, 4, END), 12), ((1, 2, END), 12)]
    assert attempt.spent == 12
    assert words.asked == ["a\n", "b\n", "d\n", "d\na\n", "d\nd\n", "a\nb\n"]  # a finished text is not asked again


def test_a_finished_program_keeps_its_place_in_the_beam():
    script = {
        (): [(4,), (4,), (1,), (2,)],
        (4,): [(END,), (END,)],
        (1,): [(2,), (4,)],
        (1, 4): [(END,), (1,)],  # a b has no place beside the finished d and a d
    }
    table = {"d\n": 0.9, "a\n": 0.5, "b\n": 0.1, "a\nb\n": 0.1, "a\nd\n": 0.3, "a\nd\na\n": 0.2}
    attempt, _ = played(lambda a: beam(a, width=2, expansions=2), script, table, budget=12)
    assert found(attempt) == [((4, END), 8), ((1, 4, END), 10)]
    assert attempt.spent == 10  # a new search would need four rows


def test_comments_are_no_step():
    script = {(): [(3,)], (3,): [(5, 6)], (3, 5, 6): [(END,)]}
    attempt, words = played(lambda a: beam(a, width=1, expansions=1), script, {"# c\ne\n": 0.3}, budget=4)
    assert words.asked == ["# c\ne\n"]
    assert found(attempt) == [((3, 5, 6, END), 4)]


def test_the_budget_is_shared_and_never_exceeded():
    lines = {(): [(5, 5, 6)] * 4, (5,): [(5, 6)] * 9, (5, 5): [(6,)] * 9}
    attempt, _ = played(lambda a: beam(a, width=2, expansions=2), lines, {"ee\n": 1.0}, budget=9)
    assert attempt.spent == 8  # two tokens each, and one is too few for four rows
    assert attempt.candidates == []


def test_a_prefix_ends_with_its_token_indentation_included(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(VOCABULARY, 1, "a:\n  ")
    monkeypatch.setitem(VOCABULARY, 2, "b\nc")
    table = {"a:\n  ": 0.1, "a:\n  b\n": 0.2, "a:\n  b\nc": 0.3}
    _, words = played(lambda a: rejection(a, delta=9.0, tries=1), {(): [(1, 2, END)]}, table, budget=3)
    assert words.asked == ["a:\n  ", "a:\n  b\n", "a:\n  b\nc"]  # what a token holds of the next line's code stays out


def test_a_narrow_beam_is_best_of_n():
    programs = [(1, 2, END), (4, END), (1, 1, 1, END), (2, END)]
    table = {"a\n": 0, "a\nb\n": 1, "d\n": 2, "a\na\n": 0, "a\na\na\n": 3, "b\n": 4}
    whole, _ = played(best_of_n, {(): list(programs)}, table, budget=10)
    stepwise: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for program in programs:
        for i in range(len(program)):
            stepwise.setdefault(program[:i], []).append(program[i:])
    narrow, _ = played(lambda a: beam(a, width=1, expansions=1), stepwise, table, budget=10)
    assert found(narrow) == found(whole)
    assert narrow.spent == whole.spent == 10


def test_rejection_writes_the_falling_line_again():
    script = {(): [(1, 3, 2, 4, END)], (1, 3): [(4, END)]}
    table = {"a\n": 0.5, "a\n# c\nb\n": 0.1, "a\n# c\nb\nd\n": 0.9, "a\n# c\nd\n": 0.45}
    attempt, words = played(lambda a: rejection(a, delta=0.2, tries=3), script, table, budget=7)
    # b falls from .5 to .1: it goes, the comment before it stays; .45 is no fall of more than .2.
    assert found(attempt) == [((1, 3, 2, 4, END), 5), ((1, 3, 4, END), 7)]
    assert attempt.spent == 7
    assert words.asked == ["a\n", "a\n# c\nb\n", "a\n# c\nb\nd\n", "a\n# c\nd\n"]  # what stood before is known


def test_rejection_begins_anew_after_its_tries():
    script = {(): [(1, 2, END), (4, END)], (1,): [(2, END), (2, END)]}
    table = {"a\n": 0.5, "a\nb\n": -0.5, "d\n": 0.0}
    attempt, _ = played(lambda a: rejection(a, delta=0.2, tries=2), script, table, budget=9)
    assert [ids for ids, _ in found(attempt)] == [(1, 2, END)] * 3 + [(4, END)]


def test_rejection_without_a_fall_is_best_of_n():
    programs = [(1, 2, END), (4, END), (1, 1, 1, END)]
    table = {"a\n": 9, "a\nb\n": 1, "d\n": 2, "a\na\n": 0, "a\na\na\n": 3}
    runs = [
        played(strategy, {(): list(programs)}, table, budget=9)[0]
        for strategy in (best_of_n, lambda a: rejection(a, delta=math.inf, tries=4))
    ]
    assert found(runs[0]) == found(runs[1])


@pytest.mark.parametrize("strategy", [best_of_n, lambda a: rejection(a, delta=0.2, tries=3)])
@pytest.mark.usefixtures("function_words")
def test_of_functions_drawn_one_at_a_time_too(strategy):
    table = {"    y = x\n": 0.5, "    y = x\n    return y\n": 0.1, "    return y\n": 0.4}

    def script():
        drawn = [(11, 12, 13, 14), (12, 13, 14, 13), (11, 12, END)] * 3
        return {(): drawn, (11,): [(12, 13, 14), (12, END)] * 3}

    whole = found(played(strategy, script(), table, budget=15, ends_at=inside_f)[0])
    assert len(whole) > 2
    for budget in range(1, 15):
        part, _ = played(strategy, script(), table, budget=budget, ends_at=inside_f)
        assert found(part) == [one for one in whole if one[1] <= budget]


@pytest.mark.parametrize("strategy", [best_of_n, lambda a: rejection(a, delta=0.2, tries=3)])
def test_of_rows_drawn_one_at_a_time_a_smaller_budget_is_a_part_of_the_larger(strategy):
    table = {"e\n": 0.5, "e\nb\n": 0.1, "e\nd\n": 0.45, "d\n": 0.2}

    def script():
        return {(): [(5, 6, 2, END), (4, END), (5, 6, 4, END)] * 3, (5, 6): [(2, END), (4, END)] * 3}

    whole = found(played(strategy, script(), table, budget=12)[0])
    assert len(whole) > 2
    for budget in range(1, 12):
        part, _ = played(strategy, script(), table, budget=budget)
        assert found(part) == [one for one in whole if one[1] <= budget]


def test_of_a_beam_it_is_not():
    def script():
        return {(): [(END,), (5, 5, 5, 5, 6)] * 2, (5, 5): [(5, 5, 6)] * 2, (5, 5, 5, 5, 6): [(END,)] * 2}

    two = functools.partial(beam, width=1, expansions=2)
    larger, smaller = (played(two, script(), {"eeee\n": 0.5}, budget=budget)[0] for budget in (12, 5))
    # A share of 6 lets the second row end its line, 5 tokens, beside the first row's one; a share of 2 cuts it.
    assert found(larger)[0] == ((END,), 6)
    assert found(smaller) == [((END,), 5)]


@pytest.mark.parametrize("strategy", [best_of_n, lambda a: rejection(a, delta=0.1, tries=1)])
def test_programs_without_lines_are_not_read(strategy):
    attempt, words = played(strategy, {(): [(3, END), (END,)]}, {}, budget=3)
    assert [ids for ids, _ in found(attempt)] == [(3, END), (END,)]
    assert words.asked == []


def test_responses_end_at_max_new_tokens():
    attempt, _ = played(best_of_n, {(): [(1, 1, 1, END), (2, END), (2, END)]}, {}, budget=6, longest=2)
    assert found(attempt) == [((2, END), 4), ((2, END), 6)]


FENCED = {11: "Sure! Here:\n", 12: "```python\n", 13: "```", 14: "Done.\n"}
ANSWER = (11, 12, 1, 2, 13, 6, 14, END)


def stepwise(*programs):
    """Of a narrow beam: what is left of each program at each of its prefixes."""
    script = {}
    for program in programs:
        for i in range(len(program)):
            script.setdefault(program[:i], []).append(program[i:])
    return script


@pytest.mark.parametrize(
    ("strategy", "script"),
    [
        (best_of_n, {(): [ANSWER]}),
        (lambda a: beam(a, width=1, expansions=1), stepwise(ANSWER)),
        (lambda a: rejection(a, delta=9.0, tries=1), {(): [ANSWER]}),
    ],
)
def test_the_lines_of_a_fenced_answer_are_those_of_its_block(strategy, script, monkeypatch: pytest.MonkeyPatch):
    for token, text in FENCED.items():
        monkeypatch.setitem(VOCABULARY, token, text)
    head = "Sure! Here:\n```python\n"
    table = {f"{head}a\n": 0.5, f"{head}a\nb\n": 0.25}
    attempt, words = played(strategy, script, table, budget=6, fences=True)
    if strategy is not best_of_n:
        assert words.asked == [f"{head}a\n", f"{head}a\nb\n"]  # prose and fence are read, and have no score
    assert found(attempt) == [((11, 12, 1, 2, 13, 6), 6)]  # it ends with the fence, no stop token needed
    assert len(attempt.candidates[0].row.logprobs) == 6


def test_a_beam_prunes_fenced_answers_by_their_first_line_of_code(monkeypatch: pytest.MonkeyPatch):
    for token, text in FENCED.items():
        monkeypatch.setitem(VOCABULARY, token, text)
    script = {
        (): [(11,), (12,)],
        (11,): [(12,)],
        (12,): [(1,)],
        (11, 12): [(2,)],
        (12, 1): [(13, 6), (13, 6)],
    }
    table = {"```python\na\n": 0.9, "Sure! Here:\n```python\nb\n": 0.1}
    attempt, words = played(lambda a: beam(a, width=1, expansions=2), script, table, budget=9, fences=True)
    assert sorted(words.asked) == sorted(table)
    assert found(attempt) == [((12, 1, 13, 6), 9)]
    assert attempt.spent == 9  # five for the first lines, prose included, and twice two for the fence that closes


@pytest.mark.parametrize(
    ("first", "asked"),
    [
        ("def f(x):\n", ["def f(x):\n", "def f(x):\nb\n"]),  # code: line by line
        ("Here it is:\n", ["Here it is:\nb\n"]),  # not before the end shows that no fence comes
        ("Answer: this\n", ["Answer: this\nb\n"]),  # nor is what Python would take for an annotation
    ],
)
def test_a_chat_may_answer_without_a_fence(first: str, asked: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(VOCABULARY, 11, first)
    table = dict.fromkeys(asked, 0.5)
    attempt, words = played(
        lambda a: beam(a, width=1, expansions=1), stepwise((11, 2, END)), table, budget=3, fences=True
    )
    assert words.asked == asked
    assert found(attempt) == [((11, 2, END), 3)]


@pytest.mark.parametrize(
    "strategy",
    [best_of_n, lambda a: beam(a, width=1, expansions=1), lambda a: rejection(a, delta=9.0, tries=1)],
)
@pytest.mark.parametrize("behind", [(13, 14, 13, 14), (13, 14, 15, 13)])
@pytest.mark.usefixtures("function_words")
def test_a_response_that_goes_on_with_a_head_ends_with_the_function(strategy, behind):
    table = {"    y = x\n": 0.5, "    y = x\n    return y\n": 0.25}
    script: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for i in range(3):
        script[(11, 12)[:i]] = [(11, 12, *behind)[i:]] * 3
    attempt, words = played(strategy, script, table, budget=9, ends_at=inside_f)
    # Two tokens are kept of each; that which shows the end (`print(`, not `print`) is paid for, the rest is not.
    assert found(attempt) == [((11, 12), 4), ((11, 12), 8)]
    assert attempt.spent == 9
    assert all(row.finished and row.logprobs == (-1.0,) * 2 for row in (c.row for c in attempt.candidates))
    assert set(words.asked) <= set(table)


@pytest.mark.usefixtures("function_words")
def test_a_line_written_again_behind_a_function_never_shortens_its_row():
    script = {(): [(11, 12, 11, 13, 14)] * 9, (11,): [(12, 13, 14)] * 9, (11, 12): [(13, 14)] * 9}
    table = {"    y = x\n": 0.9, "    y = x\n    return y\n": 0.8, "    y = x\n    return y\n    y = x\n": 0.1}
    attempt, _ = played(lambda a: rejection(a, delta=0.3, tries=2), script, table, budget=20, ends_at=inside_f)
    tokens = [spent for _, spent in found(attempt)]
    assert tokens == sorted(tokens)
    assert {ids for ids, _ in found(attempt)} == {(11, 12, 11), (11, 12)}


@pytest.mark.usefixtures("function_words")
def test_an_end_may_show_behind_a_word_that_the_budget_cut_a_row_at():
    script = {(): [(11,), (11,)], (11,): [(13, 14), (12,)], (11, 13): [(14,)]}
    table = {"    y = x\n": 0.5, "    y = x\n    return y\n": 0.4}
    attempt, _ = played(lambda a: beam(a, width=1, expansions=2), script, table, budget=5, ends_at=inside_f)
    assert found(attempt) == [((11,), 5)]
