"""The policy's surprise at its own tokens is what the sampler said when it drew them."""

from __future__ import annotations

import pytest

from psgpo.errors import UserError
from psgpo.labeling.surprise import PolicySurprise
from psgpo.models import create_policy, train_tokenizer
from psgpo.records import Response, Status, Verdict
from psgpo.sampling import HFSampler


def test_it_is_the_sampler_s_logprob() -> None:
    tokenizer = train_tokenizer(["# add one\ndef solve(x):\n    x = x + 1\n    return x\n"] * 20)
    policies = {name: create_policy(tokenizer, seed=seed) for seed, name in enumerate(("one", "two"))}
    responses, wanted = [], []
    for index, name in enumerate(["one", "two", "one"]):
        prompt = tuple(tokenizer("# add one\n" * (index + 1))["input_ids"])
        drawn = HFSampler(policies[name], tokenizer).sample([prompt], seeds=[index], max_new_tokens=5 + 4 * index)[0]
        wanted.append([-value for value in drawn.logprobs])
        responses.append(
            Response(
                problem_id="p",
                index=index,
                checkpoint=name,
                token_ids=drawn.token_ids,
                text="",
                finished=drawn.finished,
                verdict=Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=1),
                prompt_ids=prompt,
            )
        )
    for made, values in zip(PolicySurprise(policies)(responses), wanted, strict=True):
        assert made == pytest.approx(values, abs=1e-4)


def test_a_response_of_an_unknown_checkpoint_is_refused() -> None:
    verdict = Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=1)
    stranger = Response(
        problem_id="p",
        index=0,
        checkpoint="old",
        token_ids=(1,),
        text="",
        finished=True,
        verdict=verdict,
        prompt_ids=(1,),
    )
    with pytest.raises(UserError, match="the model of checkpoint 'old' is not given"):
        PolicySurprise({})([stranger])
