"""A PRM that is not in the policy's tokens pays what `psgpo prm eval` reads, line for line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from prm_text_world import mutants, save_mutants, save_roberta
from prm_world import save_policy

from psgpo.config import ArmSettings, PrmSettings
from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.lines import TokenText
from psgpo.models import load_tokenizer
from psgpo.prm import ScorerRecord, open_scorer
from psgpo.prm.build import PrmJob, build_prm
from psgpo.prm.evaluation.readers import PrmReader
from psgpo.prm.score import PrmScorer
from psgpo.prm.scorers import CausalScorer
from psgpo.records import AssertTests, Completion, Problem, Status, Verdict
from psgpo.rl.rollout import (
    PrmLineScorer,
    Rollout,
    TextLineScorer,
    judged_rollout,
    open_line_scorer,
    reads_ids,
    rewarded_lines,
)

FAILED = Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=1)
LINES = ArmSettings(line_reward="sum", prm="p")
PROGRAM = ArmSettings(line_reward="program", prm="p")
KINDS = {"encoder": ("encoder", "line"), "orm": ("encoder", "program"), "causal": ("causal", "line")}


@pytest.fixture(scope="module")
def prms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An encoder PRM, an encoder ORM and a causal PRM, trained a little."""
    folder = tmp_path_factory.mktemp("text")
    data, roberta, policy = save_mutants(folder / "data"), save_roberta(folder / "roberta"), folder / "policy"
    save_policy(policy)
    made = {}
    for name, (kind, scope) in KINDS.items():
        target = "sign" if kind == "causal" else "correct"
        record = ScorerRecord(kind=kind, scope=scope, target=target, prompt_template="# {prompt}\n", threshold=0.0)  # type: ignore[arg-type]
        job = PrmJob(
            data=(data,),
            out=folder / name,
            record=record,
            settings=PrmSettings(target="sign", epochs=1, learning_rate=3e-3),
            init=policy if kind == "causal" else roberta,
            calibration="temperature" if scope == "line" else None,
            choosing=0.3,
        )
        build_prm(job)
        made[name] = folder / name / "model"
    return made | {"policy": policy}


def rollouts(policy: Path) -> list[Rollout]:
    """What a policy with its own tokens might write: two programs, one fenced in prose, and nothing."""
    tokenizer = load_tokenizer(policy)
    text = TokenText(tokenizer)
    codes = [program.code for program in mutants(2)] + ["Here:\n```python\nx = 1\n\nreturn x\n```\nThat is it.", ""]
    made = []
    for number, code in enumerate(codes):
        ids = (*tokenizer(code, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
        completion = Completion(token_ids=ids, logprobs=(0.0,) * len(ids), finished=True)
        tests = AssertTests(entry_point="solve", checks=("assert solve(1) == 2",))
        problem = Problem(id=f"q{number}", prompt=f"add {number} and return", tests=tests)
        decoded, ends = text.decode_with_ends(ids)
        assert decoded == code
        made.append(judged_rollout(problem, (5, 6), completion, decoded, ends, FAILED))
    return made


def opened(arm: ArmSettings, prm: Path, policy: Path, **options: str):
    return open_line_scorer(arm, prm, load_tokenizer(policy), Sandbox.__new__(Sandbox), device="cpu", **options)


def test_line_scores_are_those_of_prm_eval_and_meet_the_policys_tokens(prms: dict[str, Path]) -> None:
    found = rollouts(prms["policy"])
    scores = opened(LINES, prms["encoder"], prms["policy"]).score(found)
    reader = PrmReader(prms["encoder"], "prm")
    whole = [np.array(row["score"]) for row in reader.read([(r.problem.prompt, r.text) for r in found])]
    assert sum(map(len, scores)) > 10
    for rollout, score_L, eval_L in zip(found, scores, whole, strict=True):
        assert len(score_L) == len(rollout.line_ends)  # one number for every end that the policy's tokens have
        np.testing.assert_allclose(score_L, eval_L, rtol=0, atol=1e-12)
    assert len(scores[-1]) == 0


@pytest.mark.parametrize("kind", ["causal", "encoder", "orm"])
def test_in_bfloat16_a_prm_computes_and_is_kept_in_it(prms: dict[str, Path], kind: str) -> None:
    arm, found = PROGRAM if kind == "orm" else LINES, rollouts(prms["policy"])[:3]
    exact, rough = (opened(arm, prms[kind], prms["policy"], **more) for more in ({}, {"dtype": "bfloat16"}))
    model = (rough._prm if kind == "causal" else rough._scorer).model
    assert torch.bfloat16 in {p.dtype for p in model.parameters()}
    want, got = np.concatenate(exact.score(found)), np.concatenate(rough.score(found))
    assert 0 < np.abs(want - got).max() < 0.05
    # Products are rounded as those over float32 weights are under autocast, and to no other number.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(np.concatenate(exact.score(found)), got)


def test_signed_scores_are_calibrated_probabilities(prms: dict[str, Path]) -> None:
    arm = LINES.model_copy(update={"line_score": "signed"})
    found = rollouts(prms["policy"])[:2]
    scorer = open_scorer(prms["encoder"])
    for rollout, score_L in zip(found, opened(arm, prms["encoder"], prms["policy"]).score(found), strict=True):
        probability_L = scorer.probabilities(rollout.problem.prompt, rollout.text)
        np.testing.assert_allclose(score_L, 2 * probability_L - 1, atol=1e-6)
        assert np.abs(score_L).max() <= 1


def test_an_orm_reads_the_program_and_calls_none_wrong(prms: dict[str, Path]) -> None:
    found = rollouts(prms["policy"])
    scores = opened(PROGRAM, prms["orm"], prms["policy"]).score(found)
    orm = open_scorer(prms["orm"])
    expected = [orm.score_program(r.problem.prompt, r.text) for r in found[:-1]]
    np.testing.assert_allclose([float(score) for (score,) in scores[:-1]], expected, atol=1e-5)
    assert scores[-1].tolist() == [-1.0]


def test_only_a_prm_in_the_policys_tokens_reads_ids(prms: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(prms["policy"])
    assert reads_ids(prms["causal"], tokenizer)
    assert isinstance(opened(LINES, prms["causal"], prms["policy"]), PrmLineScorer)
    assert isinstance(
        opened(LINES.model_copy(update={"line_score": "signed"}), prms["causal"], prms["policy"]), TextLineScorer
    )
    other = load_tokenizer(prms["policy"])
    other.add_tokens(["another"])
    assert not reads_ids(prms["causal"], other)
    assert not reads_ids(prms["encoder"], tokenizer)


@pytest.mark.parametrize("reads", ["ids", "lines", "programs"])
def test_what_a_prm_cannot_read_costs_what_a_bad_line_costs(prms: dict[str, Path], reads: str) -> None:
    found = [rollout for rollout in rollouts(prms["policy"]) if "```" not in rollout.text]
    model = PrmScorer(prms["causal"])
    if reads == "ids":
        scorer, arm = PrmLineScorer(model), LINES
        items = [(rollout.prompt_ids, rollout.token_ids) for rollout in found]
    else:
        scope = "program" if reads == "programs" else "line"
        record = ScorerRecord(kind="causal", scope=scope, target="sign", prompt_template="{prompt}\n", threshold=0.0)
        causal = CausalScorer(model, record)
        scorer, arm = TextLineScorer(causal), PROGRAM if scope == "program" else LINES
        items = [causal._last(rollout.problem.prompt, rollout.text)[:2] for rollout in found]
    before = scorer.score(found)
    sizes = [len(prompt) + len(ids) for prompt, ids in items]
    longest = sizes.index(max(sizes))
    config = model.model.classifier.config
    config.max_position_embeddings = sizes[longest] - 1
    after = scorer.score(found)
    for b, (one, other) in enumerate(zip(before, after, strict=True)):
        assert other.shape == one.shape
        np.testing.assert_allclose(other, np.full_like(one, np.nan) if sizes[b] == sizes[longest] else one, atol=1e-6)
    paid = rewarded_lines(found[longest], after[longest], arm.model_copy(update={"length_norm": False}))
    bad = [0.0 if neutral else -0.25 for neutral in found[longest].neutral]
    assert paid.tolist() == ([-0.25] if reads == "programs" else bad)
    config.max_position_embeddings = 1
    assert all(np.isnan(score).all() for score in scorer.score(found[:2]))


def test_a_prm_of_broken_weights_is_not_taken_for_one_that_cannot_read(prms: dict[str, Path]) -> None:
    model = PrmScorer(prms["causal"])
    model.model.apply_affine(float("nan"), 0.0)
    with pytest.raises(UserError, match="scores NaN: its weights are broken"):
        PrmLineScorer(model).score(rollouts(prms["policy"]))
