"""Rewards, values and advantages of responses, as an arm's PPO would make them in its *first* step.

There the policy still is its reference, so the reward has no KL, and the critic is as it starts: a fresh head says 0,
ValueInit says a·R + b. A run keeps no later critic. All numbers come from the functions that PPO itself calls.
Advantages are not whitened: whitening depends on the other responses of a step.

# B responses, S tokens of prompt and response, T response tokens, L code lines
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from psgpo.config import ArmSettings
from psgpo.errors import UserError
from psgpo.inspect_page.model import ArmView, Credit, Floats, Missing
from psgpo.inspect_page.source import Entry, Source
from psgpo.lines import code_lines
from psgpo.models import TokenValueModel, load_tokenizer, right_pad
from psgpo.prm.record import FILE
from psgpo.report.load import Run
from psgpo.report.sections import run_command
from psgpo.rl.advantages import gae
from psgpo.rl.learner import FORWARD_TOKENS, values_before
from psgpo.rl.ppo import VALUE_MAPS
from psgpo.rl.rollout import Rollout, exact_line_scores, open_prm_lines, rewarded_lines, rewarded_tokens
from psgpo.training import computing, token_batches

Array = np.ndarray


def credit_of_arms(
    source: Source,
    names: Sequence[str],
    line_ends: Sequence[tuple[int, ...] | None],
    tokenizer: Any,
    missing: dict[str, Missing],
    device: str,
) -> tuple[list[ArmView], list[Mapping[str, Credit]]]:
    """Arms that can pay, and per entry what they pay.

    Args:
        names: empty for all with a line reward or a ValueInit.
        tokenizer: of the responses; None where it is not known.

    Raises:
        UserError: a name that is no arm of the run.
    """
    run, credit = source.run, [dict[str, Credit]() for _ in source.entries]
    if run is None:
        if names:
            raise UserError(f"{source.path}: a label file has no arms; leave --arm out")
        missing["credit"] = Missing(reason="they come from the arms of a run; give a run directory")
        return [], list(credit)
    unknown = [name for name in names if name not in run.recipe.arms]
    if unknown:
        raise UserError(f"--arm {unknown[0]}: no arm of the run {run.path}; it has: {', '.join(run.recipe.arms)}")
    rollouts = [_rollout(source, entry, ends) for entry, ends in zip(source.entries, line_ends, strict=True)]
    known = [n for n, rollout in enumerate(rollouts) if rollout is not None]
    views = []
    for name in names or _paying_arms(run):
        try:
            scores = _line_scores(run, name, source.entries, rollouts, tokenizer, device)
        except UserError as error:  # a response that the PRM cannot read
            missing[f"arm {name}"] = Missing(reason=str(error))
            continue
        rows = [n for n in known if scores[n] is not None]
        if rows:
            views.append(_pay(run, name, rows, rollouts, scores, credit, missing, device))
            continue
        prm = run.recipe.arms[name].prm
        stage = "responses" if prm == "oracle" else f"prm-{prm}"
        missing[f"arm {name}"] = Missing(
            reason=f"its line reward needs scores of {prm}", command=f"{run_command(run)} --until {stage}"
        )
    return views, list(credit)


def _paying_arms(run: Run) -> list[str]:
    """Those that differ from the baseline; first those with both a line reward and a ValueInit."""
    paying = [name for name, arm in run.recipe.arms.items() if arm.line_reward != "none" or arm.value_init]
    return sorted(
        paying, key=lambda name: run.recipe.arms[name].line_reward == "none" or not run.recipe.arms[name].value_init
    )


def _pay(
    run: Run,
    name: str,
    rows: Sequence[int],
    rollouts: Sequence[Rollout | None],
    line_scores: Sequence[Array | None],
    credit: Sequence[dict[str, Credit]],
    missing: dict[str, Missing],
    device: str,
) -> ArmView:
    """Write the credit of one arm."""
    arm, rl = run.recipe.arms[name], run.recipe.rl
    paid = [(rollout, score) for n in rows if (rollout := rollouts[n]) and (score := line_scores[n]) is not None]
    line_rewards = [rewarded_lines(rollout, score, arm) for rollout, score in paid]
    rewards = [rewarded_tokens(rollout, reward, arm) for (rollout, _), reward in zip(paid, line_rewards, strict=True)]
    values, critic = _start_values(run, name, [rollout for rollout, _ in paid], missing, device)
    advantages = None if values is None else _advantages(rewards, values, rl.gamma, rl.gae_lambda)
    for k, n in enumerate(rows):
        credit[n][name] = Credit(
            line_rewards=_of_lines(line_rewards[k], arm, paid[k][0]),
            rewards=tuple(map(float, rewards[k])),
            values=() if values is None else tuple(map(float, values[k])),
            advantages=() if advantages is None else tuple(map(float, advantages[k])),
        )
    return ArmView(
        name=name,
        line_reward=arm.line_reward,
        prm=arm.prm or "",
        lambda_fail=arm.lambda_fail,
        lambda_pass=arm.lambda_pass,
        gamma=rl.gamma,
        gae_lambda=rl.gae_lambda,
        critic=critic,
    )


def _rollout(source: Source, entry: Entry, line_ends: tuple[int, ...] | None) -> Rollout | None:
    """A response as PPO holds it; None where its problem or its line ends are not known."""
    response = entry.response
    if line_ends is None or response.problem_id not in source.problems:
        return None
    return Rollout(
        problem=source.problems[response.problem_id],
        prompt_ids=response.prompt_ids,
        token_ids=response.token_ids,
        logprobs=(),
        finished=response.finished,
        text=response.text,
        line_ends=line_ends,
        neutral=tuple(line.neutral for line in code_lines(response.text)),
        verdict=response.verdict,
    )


def _of_lines(line_reward: Array, arm: ArmSettings, rollout: Rollout) -> Floats:
    """Line rewards; an ORM pays no line, but the response at its end. Shape: (L,)."""
    return (0.0,) * len(rollout.line_ends) if arm.line_reward == "program" else tuple(map(float, line_reward))


def _line_scores(
    run: Run,
    name: str,
    entries: Sequence[Entry],
    rollouts: Sequence[Rollout | None],
    tokenizer: Any,
    device: str,
) -> list[Array | None]:
    """What the arm's line reward reads; empty arrays without one, None where it is not there."""
    arm = run.recipe.arms[name]
    if arm.prm is None:
        return [np.zeros(0)] * len(entries)
    if arm.prm == "oracle":
        target = "progress" if arm.line_reward == "progress" else "sign"
        return [None if entry.exact is None else exact_line_scores(entry.exact, target) for entry in entries]
    folder = run.path / "prm" / arm.prm / "model"
    if tokenizer is None or not (folder / FILE).is_file():
        return [None] * len(entries)
    scored = [(n, rollout) for n, rollout in enumerate(rollouts) if rollout is not None]
    scorer = open_prm_lines(arm.line_score, folder, tokenizer, device=device)
    found = dict(zip((n for n, _ in scored), scorer.score([rollout for _, rollout in scored]), strict=True))
    return [found.get(n) for n in range(len(entries))]


def _start_values(
    run: Run, name: str, rollouts: Sequence[Rollout], missing: dict[str, Missing], device: str
) -> tuple[list[Array] | None, str]:
    """V before every token, shape of each: (T,), and how the critic starts; None where that is not known."""
    arm = run.recipe.arms[name]
    if arm.value_init is None:
        return [np.zeros(len(r.token_ids)) for r in rollouts], "a fresh head, V = 0 everywhere"
    folder = run.path / "prm" / arm.value_init / "model"
    scale, shift = VALUE_MAPS.get(arm.value_map) or _fitted(run, name)
    if math.isnan(scale) or not folder.is_dir():
        lacking = f"arm {name} has not fitted its values" if folder.is_dir() else f"{folder} is not there"
        stage = f"rl-{name}" if folder.is_dir() else f"prm-{arm.value_init}"
        missing[f"values {name}"] = Missing(reason=lacking, command=f"{run_command(run)} --until {stage}")
        return None, f"PRM {arm.value_init}, not known here"
    critic = TokenValueModel.from_pretrained(folder, device=device)
    critic.apply_affine(scale, shift)
    slope, sign = f"{scale:.3g}".replace("-", "−"), "−" if shift < 0 else "+"
    described = f"PRM {arm.value_init}, V = {slope} R {sign} {abs(shift):.3g}"
    pad = load_tokenizer(folder).pad_token_id
    return _values(critic, rollouts, pad, run.recipe.model.dtype, device), described


def _fitted(run: Run, name: str) -> tuple[float, float]:
    """a, b of V = a·R + b that the arm fitted before its first step; NaN where it has not."""
    columns = [run.rl[name].get(key) for key in ("value_scale", "value_shift")]
    scale, shift = (math.nan if column is None or not len(column) else float(column[0]) for column in columns)
    return scale, shift


@torch.no_grad()
def _values(critic: TokenValueModel, rollouts: Sequence[Rollout], pad: int, dtype: str, device: str) -> list[Array]:
    rows = [[*rollout.prompt_ids, *rollout.token_ids] for rollout in rollouts]
    found = [np.zeros(0)] * len(rows)
    for part in token_batches([len(row) for row in rows], FORWARD_TOKENS):
        input_ids, attention_mask = right_pad([rows[n] for n in part], pad, device=device)
        with computing(dtype, device):
            value_BS = values_before(critic, input_ids, attention_mask)
        for n, value_S in zip(part, value_BS.double().cpu().numpy(), strict=True):
            found[n] = value_S[len(rollouts[n].prompt_ids) : len(rows[n])]
    return found


def _advantages(rewards: Sequence[Array], values: Sequence[Array], gamma: float, lam: float) -> list[Array]:
    """Shape of each: (T,)."""
    shape = len(rewards), max(map(len, rewards))
    reward_BT, value_BT, mask_BT = (torch.zeros(shape) for _ in range(3))
    for b, (reward_T, value_T) in enumerate(zip(rewards, values, strict=True)):
        reward_BT[b, : len(reward_T)] = torch.as_tensor(reward_T)
        value_BT[b, : len(reward_T)] = torch.as_tensor(value_T)
        mask_BT[b, : len(reward_T)] = 1.0
    advantage_BT, _ = gae(reward_BT, value_BT, mask_BT, gamma=gamma, lam=lam)
    return [row[: len(reward_T)].numpy() for row, reward_T in zip(advantage_BT, rewards, strict=True)]
