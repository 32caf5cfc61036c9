"""Prompts, responses, judging, and prefixes cut from real byte-level BPE tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from labeling_world import EOS, CharTokenizer, FakeGrader, FakeSampler, encode, problem
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from psgpo.config import SamplingSettings
from psgpo.errors import UserError
from psgpo.labeling import cut_at_function_end, grade_programs, sample_responses
from psgpo.labeling.prefixes import cut_response
from psgpo.lines import TokenText
from psgpo.problems.programs import judged_lines
from psgpo.prompts import build_prompt_ids
from psgpo.records import CallTests, Response, Status, Verdict
from psgpo.seeds import derive_seed

PROBLEMS = [problem("a", 2), problem("b", 4), problem("c", 6)]


def collect(sampler: FakeSampler, grader: Any, count: int = 3, **changes: Any) -> list[Response]:
    options: dict[str, Any] = {
        "checkpoint": "one",
        "responses_per_problem": count,
        "seed": 5,
        "prompt_template": "{prompt}\n",
        "settings": SamplingSettings(max_new_tokens=100, batch_size=1),
    }
    return sample_responses(sampler, CharTokenizer(), PROBLEMS, grader, **(options | changes))


def test_responses_come_in_order_judged_and_decoded() -> None:
    sampler = FakeSampler(0.7)
    seen: list[tuple[int, int]] = []
    responses = collect(sampler, FakeGrader(), progress=lambda *pair: seen.append(pair))
    assert [(r.problem_id, r.index) for r in responses] == [(p, i) for p in "abc" for i in range(3)]
    assert seen == [(4, 9), (8, 9), (9, 9)]
    assert {r.verdict.status for r in responses} == {Status.PASSED, Status.WRONG_ANSWER}
    for r, (prefix, _) in zip(responses, sampler.rows, strict=True):
        assert r.finished
        assert r.token_ids == (*encode(r.text), EOS)
        assert r.prompt_ids == prefix == encode({p.id: p.prompt for p in PROBLEMS}[r.problem_id] + "\n")


def test_a_response_depends_on_its_own_place_alone() -> None:
    few, many = collect(FakeSampler(0.7), FakeGrader(), 2), collect(FakeSampler(0.7), FakeGrader(), 5)
    assert few == [r for r in many if r.index < 2]
    assert few != collect(FakeSampler(0.7), FakeGrader(), 2, seed=6)
    assert few == collect(FakeSampler(0.7), FakeGrader(), 2, settings=SamplingSettings(max_new_tokens=100))
    other = collect(FakeSampler(0.7), FakeGrader(), 2, checkpoint="two")
    assert [r.text for r in few] != [r.text for r in other]


def test_greedy_is_temperature_zero() -> None:
    temperatures = []

    class Noting(FakeSampler):
        def sample(self, prefixes: Sequence[Sequence[int]], **options: Any) -> Any:
            temperatures.append(options.pop("temperature"))
            return super().sample(prefixes, **options)

    collect(Noting(1.0), FakeGrader(), 1, greedy=True)
    collect(Noting(1.0), FakeGrader(), 1)
    assert temperatures == [0.0, 1.0]


def test_bos_only_where_the_tokenizer_adds_it() -> None:
    class WithBos(CharTokenizer):
        bos_token_id = 1  # type: ignore[assignment]
        adds = True

        def __call__(self, text: str, *, add_special_tokens: bool = True, **_: Any) -> dict[str, list[int]]:
            ids = [ord(char) for char in text]
            return {"input_ids": [1, *ids, 2] if self.adds and add_special_tokens else ids}

    tokenizer, text = WithBos(), encode("# def,apple\n")
    assert build_prompt_ids(tokenizer, "# {prompt}\n", PROBLEMS[0]) == (1, *text)
    tokenizer.adds = False
    assert build_prompt_ids(tokenizer, "# {prompt}\n", PROBLEMS[0]) == text
    assert build_prompt_ids(CharTokenizer(), "# {prompt}\n", PROBLEMS[0]) == text


def test_equal_programs_are_judged_once_per_problem() -> None:
    grader = FakeGrader()
    items = [("def\napple", PROBLEMS[0]), ("def\napple", PROBLEMS[1]), ("def\napple", PROBLEMS[0])]
    assert [verdict.passed for verdict in grade_programs(grader, items)] == [True, False, True]
    assert len(grader.programs) == 2


def test_a_program_without_verdict_is_no_failure() -> None:
    class Broken(FakeGrader):
        def grade(self, items: Sequence[tuple[str, CallTests]], /) -> list[Verdict]:
            broken = Verdict(status=Status.INFRASTRUCTURE, tests_passed=0, tests_total=1, detail="no memory")
            return [*super().grade(items)[:-1], broken]

    items = [("def\napple", PROBLEMS[0]), ("x", PROBLEMS[1])]
    with pytest.raises(UserError, match=r"problem b: a program could not be judged \(no memory\); run `psgpo doctor`"):
        grade_programs(Broken(), items)


def test_seeds_tell_every_part_apart() -> None:
    seeds = [derive_seed(*parts) for parts in [(1, "a"), (1, "b"), (2, "a"), ("1", "a"), (1, (1, 2)), (1, 1, 2), (12,)]]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "a") == derive_seed(1, "a")


class BpeTokenizer:
    """A byte-level BPE trained on code, with merged newlines, as `TokenText` wants it."""

    all_special_ids = (EOS,)

    def __init__(self, corpus: str, size: int) -> None:
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
        )
        bpe.train_from_iterator([corpus] * 3, trainer)
        self.backend_tokenizer = bpe

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
        return [self.backend_tokenizer.id_to_token(token) for token in ids]

    def decode(self, token_ids: list[int], **_: Any) -> str:
        return str(self.backend_tokenizer.decode(token_ids))

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size())


@pytest.mark.parametrize("size", [257, 270, 300, 400])
@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    y = x\n    return y\n",
        "def f(x):\n\n\n    # ünïcode ✓\n    return 'é✓'\n\n",
        "Here:\n```python\ndef f(x):\n    return x\n```\ndone",
        "def f(x):\n    return x",
    ],
)
def test_prefixes_are_sampled_ids_that_hold_the_newline(size: int, text: str) -> None:
    corpus = "def f(x):\n    y = x\n    return y\n\n\n    # ünïcode ✓\n```python\n```\ndone"
    tokenizer = BpeTokenizer(corpus, size)
    ids = (*tokenizer.backend_tokenizer.encode(text).ids, EOS)
    verdict = Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=1)
    response = Response(
        problem_id="p", index=0, checkpoint="one", token_ids=ids, text=text, finished=True, verdict=verdict
    )
    token_text = TokenText(tokenizer)
    cut = cut_response(response, token_text)
    assert cut.lines
    for number, line in enumerate(cut.lines, start=1):
        prefix = cut.prefix(number)
        assert prefix == ids[: len(prefix)]
        assert EOS not in prefix
        assert text.startswith(token_text.decode(prefix))
        assert len(token_text.decode(prefix)) >= line.end
        if prefix != ids[:-1]:  # one token less would lack the newline
            assert len(token_text.decode(prefix[:-1])) < line.end
    if "return x" in text and text.endswith("x"):
        assert cut.prefix(len(cut.lines)) == ids[:-1]


@pytest.mark.parametrize("fence", ["", "```python\n"])
def test_labels_and_rewards_agree_on_what_is_judged(fence: str) -> None:
    text = f"{fence}    return 2 * x\n\nprint(solve(3))\ny = 1\n" + ("```\n" if fence else "")
    task = dataclasses.replace(problem("a", 2), starter_code="def solve(x):\n")
    response = Response(
        problem_id="a",
        index=0,
        checkpoint="one",
        token_ids=(*encode(text), EOS),
        text=text,
        finished=True,
        verdict=Verdict(status=Status.PASSED, tests_passed=1, tests_total=1),
        prompt_ids=(1,),
    )
    cut = cut_at_function_end(response, task, TokenText(CharTokenizer()))
    assert cut.text == f"{fence}    return 2 * x\n\n"
    assert cut.token_ids == encode(cut.text)
    assert [line.text for line in cut_response(cut, TokenText(CharTokenizer())).lines] == ["    return 2 * x"]
    assert {line.text for line in judged_lines(task, text)} == {"    return 2 * x", ""}
    other = dataclasses.replace(response, token_ids=encode("    return 2\n"))
    assert cut_at_function_end(other, task, TokenText(CharTokenizer())) is other
    with pytest.raises(UserError, match="token ids do not decode to its text"):
        cut_response(other, TokenText(CharTokenizer()))
