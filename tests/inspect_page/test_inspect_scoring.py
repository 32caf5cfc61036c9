"""What models add to the page: the same numbers that RL works with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from inspect_world import ADDED, BAD, GOOD, HELD, HOSTILE, SEEN, VALUE_SCALE, VALUE_SHIFT, World, write_search

from psgpo.errors import UserError
from psgpo.inspect_page.evidence import Evidence
from psgpo.inspect_page.exact import with_exact
from psgpo.inspect_page.scoring import read_evidence
from psgpo.inspect_page.source import Source, read_source
from psgpo.jsonl import write_json, write_jsonl
from psgpo.lines import code_lines
from psgpo.models import TokenValueModel, load_policy, train_tokenizer
from psgpo.prm import PrmScorer, open_scorer
from psgpo.rl.ppo import HEAD_FILE, PpoTrainer
from psgpo.rl.rollout import PrmLineScorer, Rollout


@pytest.fixture(scope="module")
def source(small_run: Path) -> Source:
    return read_source(small_run, policies=["dense"], limit=100)


@pytest.fixture(scope="module")
def evidence(source: Source) -> Evidence:
    return read_evidence(source)


def place(source: Source, problem: str, text: str) -> int:
    """The first entry with this program."""
    found = (
        number
        for number, entry in enumerate(source.entries)
        if (entry.response.problem_id, entry.response.text) == (problem, text)
    )
    return next(found)


def test_scores_are_those_that_rl_would_pay_for(source: Source, evidence: Evidence, small_run: Path) -> None:
    scorer = PrmScorer(small_run / "prm" / "sign" / "model")
    for number, entry in enumerate(source.entries):
        ends = evidence.line_ends[number]
        assert ends is not None
        wanted = scorer.score([(entry.response.prompt_ids, entry.response.token_ids, ends)])[0]
        np.testing.assert_allclose(evidence.scores[number]["sign"], wanted, atol=1e-6)
    assert len({row["sign"][0] for row in evidence.scores}) > 1


def test_every_token_has_its_text(source: Source, evidence: Evidence) -> None:
    for entry, tokens in zip(source.entries, evidence.tokens, strict=True):
        assert tokens is not None
        assert len(tokens) == len(entry.response.token_ids)
        assert "".join(tokens) == entry.response.text + "⟨<eos>⟩"


def test_a_completion_is_the_text_that_was_kept_and_the_text_that_was_drawn(source: Source, evidence: Evidence) -> None:
    kept, added = evidence.completions[place(source, HELD, BAD)][1]
    assert (kept.rstrip(" "), added) == ("def solve(x):\n", ADDED)


def test_rewards_stand_where_lines_end_and_the_unit_tests_pay_at_the_end(source: Source, evidence: Evidence) -> None:
    number = place(source, HELD, BAD)
    credit, ends = evidence.credit[number]["dense"], evidence.line_ends[number]
    assert ends is not None
    first, _, third, fourth = evidence.scores[number]["sign"]
    # λ of a failed response 0.25, 4 lines; the comment earns nothing.
    expected = [0.25 * first / 4, 0.0, 0.25 * third / 4, 0.25 * fourth / 4]
    assert credit.line_rewards == pytest.approx(expected, abs=1e-7)
    assert [credit.rewards[end] for end in ends] == pytest.approx(expected, abs=1e-7)
    assert credit.rewards[-1] == 0.0
    assert sum(credit.rewards) == pytest.approx(sum(expected), abs=1e-7)
    assert evidence.credit[place(source, HELD, GOOD)]["dense"].rewards[-1] == 1.0


def test_a_fresh_critic_values_everything_at_0(source: Source, evidence: Evidence) -> None:
    credit = evidence.credit[place(source, HELD, GOOD)]["dense"]
    assert set(credit.values) == {0.0}
    # γ = λ_GAE = 1 and V = 0: the advantage is what is still to be paid.
    assert credit.advantages == pytest.approx(np.cumsum(credit.rewards[::-1])[::-1].tolist(), abs=1e-6)


def test_value_init_is_the_prms_score_of_what_came_before_scaled_as_the_arm_fitted_it(
    source: Source, evidence: Evidence, small_run: Path
) -> None:
    number = place(source, HELD, BAD)
    response, credit = source.entries[number].response, evidence.credit[number]["both"]
    every = [(response.prompt_ids, response.token_ids, list(range(len(response.token_ids))))]
    scores = PrmScorer(small_run / "prm" / "sign" / "model").score(every)[0]
    before = [VALUE_SCALE * score + VALUE_SHIFT for score in scores[:-1]]
    assert credit.values[1:] == pytest.approx(before, abs=1e-5)
    assert credit.rewards == evidence.credit[number]["dense"].rewards
    left = np.cumsum(credit.rewards[::-1])[::-1]
    assert credit.advantages == pytest.approx((left - credit.values).tolist(), abs=1e-5)
    described = next(arm.critic for arm in evidence.arms if arm.name == "both")
    assert described == "PRM sign, V = 0.5 R − 0.25"


def test_credit_is_what_ppo_itself_makes_of_the_responses(
    source: Source, evidence: Evidence, small_run: Path, world: World, tmp_path: Path
) -> None:
    assert source.run is not None
    recipe, folder = source.run.recipe, small_run / "prm" / "sign" / "model"
    critic = TokenValueModel.from_pretrained(folder)
    critic.apply_affine(VALUE_SCALE, VALUE_SHIFT)
    trainer = PpoTrainer(
        policy=load_policy(small_run / "sft" / "model")[0],
        reference=load_policy(small_run / "sft" / "model")[0],
        critic=critic,
        tokenizer=world.tokenizer,
        sandbox=None,  # type: ignore[arg-type]  # the responses are judged
        arm=recipe.arms["both"],
        rl=recipe.rl.model_copy(update={"whiten_advantages": False}),
        sampling=recipe.sampling,
        out=tmp_path,
        seed=0,
        scorer=PrmLineScorer(PrmScorer(folder)),
    )
    rollouts = [rollout_of(source, number, evidence) for number in range(len(source.entries))]
    batch = trainer._batch(rollouts, trainer._line_rewards(rollouts))
    targets = trainer._targets(rollouts, batch, batch.rewards)
    for b, rollout in enumerate(rollouts):
        credit, start = evidence.credit[b]["both"], len(rollout.prompt_ids)
        own = slice(start, start + len(rollout.token_ids))
        assert credit.rewards == pytest.approx(batch.rewards[b, own].tolist(), abs=1e-5)
        assert credit.values == pytest.approx(targets.old_values[b, own].tolist(), abs=1e-4)
        assert credit.advantages == pytest.approx(targets.advantages[b, own].tolist(), abs=1e-4)


def rollout_of(source: Source, number: int, evidence: Evidence) -> Rollout:
    """An entry as the sampler of PPO would have handed it over."""
    response, ends = source.entries[number].response, evidence.line_ends[number]
    assert ends is not None
    return Rollout(
        problem=source.problems[response.problem_id],
        prompt_ids=response.prompt_ids,
        token_ids=response.token_ids,
        logprobs=(0.0,) * len(response.token_ids),
        finished=True,
        text=response.text,
        line_ends=ends,
        neutral=tuple(line.neutral for line in code_lines(response.text)),
        verdict=response.verdict,
    )


def test_the_oracle_pays_by_exact_labels(source: Source, evidence: Evidence) -> None:
    credit = evidence.credit[place(source, HELD, BAD)]["exact"]
    assert credit.line_rewards == pytest.approx((0.25 / 4, 0.0, -0.25 / 4, -0.25 / 4))


def test_the_oracle_pays_a_sample_of_a_final_policy_too(source: Source, evidence: Evidence) -> None:
    sample = place(source, "t/1", BAD)
    assert source.entries[sample].response.checkpoint == "dense"
    assert "exact" not in evidence.credit[sample]  # a run keeps no exact labels of samples
    credit = read_evidence(with_exact(source), arms=["exact"]).credit[sample]["exact"]
    assert credit.line_rewards == pytest.approx((0.25 / 4, 0.0, -0.25 / 4, -0.25 / 4))


def test_an_orm_pays_at_the_end(source: Source, evidence: Evidence, small_run: Path) -> None:
    credit = evidence.credit[place(source, HELD, BAD)]["judged"]
    judge = open_scorer(small_run / "prm" / "judge" / "model")
    assert credit.rewards[-1] == pytest.approx(0.25 * judge.score_prefixes([("add one", BAD.rstrip())])[0], abs=1e-4)
    assert set(credit.rewards[:-1]) == set(credit.line_rewards) == {0.0}
    assert len(credit.line_rewards) == 4


def test_a_run_without_any_tokenizer_shows_text_and_says_so(small_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(small_run, tmp_path / "run"))
    for file in copy.rglob("tokenizer_config.json"):
        file.unlink()
    for name in ("progress", "judge"):
        shutil.rmtree(copy / "prm" / name)
    shutil.rmtree(copy / "prm" / "sign" / "model")
    evidence = read_evidence(read_source(copy, limit=100))
    assert set(evidence.tokens) == {None}
    assert evidence.arms == []
    assert evidence.missing["credit"] == evidence.missing["tokens"]
    assert [len(row) for row in evidence.scores] == [0, 1, 0, 0]


def test_what_is_not_made_yet_is_missing_with_its_command(evidence: Evidence) -> None:
    assert [view.name for view in evidence.prms] == ["sign", "progress", "judge"]
    for name, stage in (("prm late", "prm-late"), ("values late", "rl-late")):
        command = evidence.missing[name].command
        assert command.startswith("psgpo run ")
        assert command.split()[2].endswith("recipe.json")
        assert command.endswith(f" --until {stage}")
    late = evidence.credit[0]["late"]
    assert late.values == late.advantages == ()
    assert len(late.rewards) > 0


def test_arms_with_reward_and_value_init_come_first_and_can_be_chosen(source: Source, evidence: Evidence) -> None:
    assert [arm.name for arm in evidence.arms] == ["both", "dense", "late", "exact", "judged"]
    assert [arm.name for arm in read_evidence(source, arms=["baseline"]).arms] == ["baseline"]
    with pytest.raises(
        UserError, match=r"--arm none: no arm of .*; it has: baseline, dense, both, late, exact, judged"
    ):
        read_evidence(source, arms=["none"])


def test_a_prm_without_its_model_shows_what_the_run_wrote(small_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(small_run, tmp_path / "run"))
    shutil.rmtree(copy / "prm" / "sign" / "model")
    evidence = read_evidence(read_source(copy, limit=100), prms=["sign"])
    assert [len(row) for row in evidence.scores] == [0, 1, 0, 0]
    assert "model was not opened" in evidence.missing["prm sign"].reason
    assert "both" not in [arm.name for arm in evidence.arms if arm.critic.startswith("PRM sign, V")]


def test_a_prms_folder_reads_text(small_run: Path, world: World) -> None:
    source = read_source(small_run / "labels" / "labels.jsonl", limit=100)
    folder = str(small_run / "prm" / "sign")
    evidence = read_evidence(source, prms=[folder])
    number = place(source, HELD, BAD)
    wanted = open_scorer(small_run / "prm" / "sign" / "model").score_lines("add one", BAD)
    assert evidence.scores[number][folder] == pytest.approx(wanted.tolist(), abs=1e-4)
    # Its tokenizer is that of the responses, so tokens are shown without --tokenizer.
    assert evidence.tokens[number] is not None
    assert "a run directory" in evidence.missing["credit"].reason


def test_a_program_that_a_prm_cannot_read_costs_no_other_one_its_scores(small_run: Path, tmp_path: Path) -> None:
    rows = [entry.label for entry in read_source(small_run, limit=100).entries if entry.label is not None]
    long = rows[0].response.text.replace("return y", "return " + " + ".join("y" for _ in range(200)))
    record = rows[0].to_json()
    record["response"] |= {"text": long, "index": 7, "problem_id": SEEN}
    shutil.copy(small_run / "problems" / "label.jsonl", tmp_path / "problems.jsonl")
    write_jsonl(tmp_path / "labels.jsonl", [record, *(row.to_json() for row in rows[1:])])
    source = read_source(tmp_path, limit=100)
    evidence = read_evidence(source, prms=[str(small_run / "prm" / "sign")])
    read = [bool(row) for row in evidence.scores]
    assert read.count(False) == 1
    assert not read[place(source, SEEN, long)]
    assert "tokens with its problem" in next(iter(evidence.missing.values())).reason


def test_names_that_are_neither_prm_nor_folder_are_refused(source: Source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a PRM of the run .* nor a PRM's folder"):
        read_evidence(source, prms=["nothing"])
    with pytest.raises(UserError, match="given twice"):
        read_evidence(source, prms=["sign", "sign"])


def test_another_tokenizer_is_refused(small_run: Path, tmp_path: Path) -> None:
    train_tokenizer(["other text", HOSTILE], 300).save_pretrained(tmp_path)
    source = read_source(small_run / "labels" / "labels.jsonl", limit=100)
    with pytest.raises(UserError, match="not the tokenizer of these responses"):
        read_evidence(source, tokenizer=tmp_path)
    assert read_evidence(source).missing["tokens"].reason.endswith("give its folder with --tokenizer")
    assert read_evidence(source, tokenizer=small_run / "sft" / "model").tokens[0] is not None


def test_a_prms_folder_reads_samples(small_run: Path, world: World, tmp_path: Path) -> None:
    write_search(tmp_path / "beam.jsonl", world)
    source = read_source(tmp_path / "beam.jsonl", limit=9, problems=small_run / "problems" / "label.jsonl")
    folder = str(small_run / "prm" / "sign")
    evidence = read_evidence(source, prms=[folder])
    wanted = open_scorer(small_run / "prm" / "sign" / "model").score_lines("add one", BAD)
    assert evidence.scores[place(source, HELD, BAD)][folder] == pytest.approx(wanted.tolist(), abs=1e-4)
    for entry, tokens in zip(source.entries, evidence.tokens, strict=True):  # by the PRM's tokenizer
        assert tokens is not None
        assert "".join(tokens) == entry.response.text + "⟨<eos>⟩"
    train_tokenizer(["other text", HOSTILE], 300).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="not the tokenizer of these responses"):
        read_evidence(source, tokenizer=tmp_path / "other")


def test_a_fitted_head_is_the_one_that_the_arm_left(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["arms"] = {
        "baseline": {},
        "control": {"value_map": "head"},
        "fitted": {"line_reward": "sum", "prm": "sign", "value_init": "sign", "value_map": "head"},
    }
    write_json(run / "recipe.json", recipe)
    critic = TokenValueModel.from_pretrained(run / "prm" / "sign" / "model")
    weight_D = torch.linspace(-1.0, 1.0, critic.head.in_features)
    write_json(run / "rl" / "fitted" / HEAD_FILE, {"weight": weight_D.tolist(), "bias": 0.25})
    source = read_source(run, limit=100)
    found = read_evidence(source, arms=["fitted", "control"])
    number = place(source, HELD, BAD)
    response = source.entries[number].response
    critic.replace_head(weight_D.unsqueeze(0), 0.25)
    with torch.no_grad():
        value_T = critic(torch.tensor([[*response.prompt_ids, *response.token_ids]]))[0]
    first = len(response.prompt_ids) - 1
    assert found.credit[number]["fitted"].values == pytest.approx(value_T[first:-1].tolist(), abs=1e-5)
    assert next(arm.critic for arm in found.arms if arm.name == "fitted") == "PRM sign, its head fitted to returns"
    assert "has not fitted its values" in found.missing["values control"].reason
    assert next(arm.critic for arm in found.arms if arm.name == "control") == "the SFT policy, not known here"


def test_a_critic_of_its_own_is_read_where_arms_start_from_it(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    own = run / "prm" / "sign" / "model"  # a value model, with a head that says something
    recipe = json.loads((run / "recipe.json").read_text())
    recipe |= {"critic": {"path": str(own)}, "model": recipe["model"] | {"path": str(run / "sft" / "model")}}
    recipe |= {"sft": recipe["sft"] | {"examples": 0}}
    recipe["arms"] = {"baseline": {}, "partial": {"partial_credit": 0.5}, "fitted": {"value_map": "head"}}
    write_json(run / "recipe.json", recipe)
    critic = TokenValueModel.from_pretrained(own)
    weight_D = torch.linspace(-1.0, 1.0, critic.head.in_features)
    write_json(run / "rl" / "fitted" / HEAD_FILE, {"weight": weight_D.tolist(), "bias": 0.25})
    source = read_source(run, limit=100)
    found = read_evidence(source)
    number = place(source, HELD, BAD)
    response = source.entries[number].response
    ids, first = torch.tensor([[*response.prompt_ids, *response.token_ids]]), len(response.prompt_ids) - 1
    for arm in ("partial", "fitted"):
        if arm == "fitted":
            critic.replace_head(weight_D.unsqueeze(0), 0.25)
        with torch.no_grad():
            wanted = critic(ids)[0, first:-1].tolist()
        assert found.credit[number][arm].values == pytest.approx(wanted, abs=1e-5)
        assert any(wanted)
    said = {arm.name: arm.critic for arm in found.arms}
    assert said == {"partial": str(own), "fitted": f"{own}, its head fitted to returns"}
