"""The client of a PRM on a vLLM server, against a server that answers as told; `make test-vllm` has the real one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_server import fake_server
from psgpo.engines.pooling import PoolingScorer
from psgpo.errors import UserError
from psgpo.problems.opchain import OpChain
from psgpo.records import Status, Verdict
from psgpo.rl.rollout import Rollout

MODELS = [{"id": "prm", "max_model_len": 5}]


def rollout(prompt: tuple[int, ...], tokens: tuple[int, ...], ends: tuple[int, ...]) -> Rollout:
    return Rollout(
        problem=OpChain().problems("train", 1, (1, 1))[0],
        prompt_ids=prompt,
        token_ids=tokens,
        logprobs=(),
        finished=True,
        text="",
        line_ends=ends,
        neutral=(False,) * len(ends),
        verdict=Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=1),
    )


def ten_times(request: dict[str, Any], _: int) -> dict[str, Any]:
    rows = [{"index": i, "data": [[10.0 * token] for token in row]} for i, row in enumerate(request["input"])]
    return {"data": rows[::-1]}


def root(url: str) -> str:
    return url.removesuffix("/v1")


def test_scores_are_read_where_lines_end() -> None:
    rollouts = [rollout((7, 8), (1, 2, 3), (0, 2)), rollout((7,), (4,), ()), rollout((), (5, 6), (1,))]
    with fake_server(ten_times, MODELS) as server:
        found = PoolingScorer(root(server.url)).score(rollouts)
    assert [row.tolist() for row in found] == [[10.0, 30.0], [], [60.0]]
    sent = server.requests[0]
    assert sent["input"] == [[7, 8, 1, 2, 3], [5, 6]]
    assert (sent["model"], sent["task"], sent["use_activation"]) == ("prm", "token_classify", False)


def test_many_responses_go_in_parts() -> None:
    rollouts = [rollout((7,), (number,), (0,)) for number in range(130)]
    with fake_server(ten_times, MODELS) as server:
        found = PoolingScorer(root(server.url)).score(rollouts)
    assert [len(request["input"]) for request in server.requests] == [64, 64, 2]
    assert np.concatenate(found).tolist() == [10.0 * number for number in range(130)]


def test_what_is_longer_than_the_server_reads_has_no_scores() -> None:
    """The context holds five tokens. A server refuses every row of a request with one that is longer."""
    fits, long = rollout((7, 8), (1, 2, 3), (0, 2)), rollout((7, 8), (1, 2, 3, 4), (0, 2, 3))
    empty = rollout((7, 8), (1, 2, 3, 4), ())
    with fake_server(ten_times, MODELS) as server:
        scorer = PoolingScorer(root(server.url))
        found = scorer.score([long, fits, empty])
        alone = scorer.score([long])
    assert [row.tolist() for row in (found[1], found[2])] == [[10.0, 30.0], []]
    assert [row.shape for row in (found[0], alone[0])] == [(3,), (3,)]
    assert np.isnan([found[0], alone[0]]).all()
    assert [request["input"] for request in server.requests] == [[[7, 8, 1, 2, 3]]]


def test_responses_without_lines_ask_nobody() -> None:
    found = PoolingScorer("http://127.0.0.1:9").score([rollout((7, 8), (1,), ())])
    assert [row.shape for row in found] == [(0,)]


@pytest.mark.parametrize("models", [[], [{"id": "prm"}], [{"id": "prm", "max_model_len": None}]])
def test_a_server_that_does_not_say_how_much_it_reads_is_refused(models: list[Any]) -> None:
    with (
        fake_server(ten_times, models) as server,
        pytest.raises(UserError, match=r"v1/models names no model with its max_model_len"),
    ):
        PoolingScorer(root(server.url)).score([rollout((7, 8), (1,), (0,))])


def test_a_server_without_models_is_asked_for_no_scores() -> None:
    with fake_server(ten_times) as server, pytest.raises(UserError, match=r"the server refuses \(HTTP 404"):
        PoolingScorer(root(server.url)).score([rollout((7, 8), (1,), (0,))])
    assert server.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        {"data": []},
        {"data": [{"index": 0, "data": [[1.0], [2.0]]}]},
        {"data": [{"index": 0, "data": [[0.1, 0.9]] * 3}]},
        {"data": [{"index": 0, "data": [[1.0], [None], [2.0]]}]},
    ],
    ids=["nothing", "too few", "two labels", "no number"],
)
def test_what_is_no_number_per_token_is_refused(answer: dict[str, Any]) -> None:
    with (
        fake_server(lambda *_: answer, MODELS) as server,
        pytest.raises(UserError, match=r"no number per token; start it with vllm serve PRM --runner pooling"),
    ):
        PoolingScorer(root(server.url)).score([rollout((7, 8), (1,), (0,))])
