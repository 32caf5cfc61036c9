"""Rewards, values and advantages of responses, as an arm's PPO would make them in its *first* step.

There the policy still is its reference, so the reward has no KL, and the critic is as it starts: a fresh head says 0,
ValueInit says a·R + b, or what the head says that was fitted. A run keeps no later critic. All numbers come from the
functions that PPO itself calls.
Advantages are not whitened: whitening depends on the other responses of a step.

# B responses, S tokens of prompt and response, T response tokens, L code lines
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from psgpo.config import ArmSettings
from psgpo.errors import UserError
from psgpo.inspect_page.model import ArmView, Credit, Floats, Missing
from psgpo.inspect_page.source import Entry, Source
from psgpo.models import initial_model, right_pad
from psgpo.prm.record import FILE
from psgpo.problems.programs import judged_lines
from psgpo.report.commands import run_command
from psgpo.report.load import Run
from psgpo.rl.advantages import gae
from psgpo.rl.learner import FORWARD_TOKENS, values_before
from psgpo.rl.ppo import HEAD_FILE, VALUE_MAPS
from psgpo.rl.rollout import Rollout, exact_line_scores, open_prm_lines, rewarded_lines, rewarded_tokens
from psgpo.training import computing, token_batches

Array = NDArray[np.float64]
ByEntry = dict[int, Array]
"""By the number of the entry."""


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
            raise UserError(f"{source.path}: a file has no arms; leave --arm out")
        missing["credit"] = Missing(reason="they come from the arms of a run; give a run directory")
        return [], list(credit)
    unknown = [name for name in names if name not in run.recipe.arms]
    if unknown:
        raise UserError(f"--arm {unknown[0]}: no arm of the run {run.path}; it has: {', '.join(run.recipe.arms)}")
    if tokenizer is None:
        missing["credit"] = missing["tokens"]
        return [], list(credit)
    rollouts = {
        number: rollout
        for number, (entry, ends) in enumerate(zip(source.entries, line_ends, strict=True))
        if (rollout := _rollout(source, entry, ends)) is not None
    }
    payer = _Payer(run, source.entries, rollouts, tokenizer, missing, device)
    views = []
    for name in names or _paying_arms(run):
        paid = payer.pay(name)
        if paid is not None:
            views.append(payer.view(name))
            for number, of_entry in paid.items():
                credit[number][name] = of_entry
    return views, list(credit)


def _paying_arms(run: Run) -> list[str]:
    """Those that differ from the baseline; first those with both a line reward and a ValueInit."""
    pays = {name: arm.line_reward != "none" or arm.partial_credit for name, arm in run.recipe.arms.items()}
    starts = {name: arm.value_init or arm.value_map == "head" for name, arm in run.recipe.arms.items()}
    paying = [name for name in run.recipe.arms if pays[name] or starts[name]]
    arms = run.recipe.arms
    return sorted(paying, key=lambda name: arms[name].line_reward == "none" or not arms[name].value_init)


def _rollout(source: Source, entry: Entry, line_ends: tuple[int, ...] | None) -> Rollout | None:
    """A response as PPO holds it; None where its problem or its line ends are not known."""
    response = entry.response
    if line_ends is None or response.problem_id not in source.problems:
        return None
    problem = source.problems[response.problem_id]
    neutral = tuple(line.neutral for line in judged_lines(problem, response.text))
    return Rollout(
        problem=problem,
        prompt_ids=response.prompt_ids,
        token_ids=response.token_ids,
        logprobs=(),
        finished=response.finished,
        text=response.text,
        line_ends=line_ends[: len(neutral)],
        neutral=neutral,
        verdict=response.verdict,
    )


class _Payer:
    """What the arms of one run pay. A PRM is opened once, however many arms use it."""

    def __init__(
        self,
        run: Run,
        entries: Sequence[Entry],
        rollouts: Mapping[int, Rollout],
        tokenizer: Any,
        missing: dict[str, Missing],
        device: str,
    ) -> None:
        """`rollouts` by the number of their entry."""
        self.run, self.entries, self.rollouts = run, entries, rollouts
        self.tokenizer, self.missing, self.device = tokenizer, missing, device
        self._scores: dict[tuple[str, str], ByEntry] = {}
        self._before: dict[Path, ByEntry] = {}

    def pay(self, name: str) -> dict[int, Credit] | None:
        """The credit of an arm by entry; None, and why, where its line reward has nothing to read."""
        arm, rl = self.run.recipe.arms[name], self.run.recipe.rl_of(name)
        try:
            scores = self._line_scores(arm)
        except UserError as error:  # a response that the PRM cannot read
            self.missing[f"arm {name}"] = Missing(reason=str(error))
            return None
        if not self.rollouts:
            reason = "the problems' file, or a tokenizer that gives the responses' text, is not there"
            self.missing[f"arm {name}"] = Missing(reason=reason)
            return None
        if not scores:
            stage = "responses" if arm.prm == "oracle" else f"prm-{arm.prm}"
            command = run_command(self.run, until=stage)
            self.missing[f"arm {name}"] = Missing(reason=f"its line reward needs scores of {arm.prm}", command=command)
            return None
        lines = {number: rewarded_lines(self.rollouts[number], score, arm) for number, score in scores.items()}
        rewards = {number: rewarded_tokens(self.rollouts[number], line, arm) for number, line in lines.items()}
        values = self._start_values(name, arm)
        advantages = {} if values is None else _advantages(rewards, values, rl.gamma, rl.gae_lambda)
        if arm.line_reward == "program":  # an ORM pays no line, but the response at its end
            lines = {number: np.zeros(len(self.rollouts[number].line_ends)) for number in lines}
        return {
            number: Credit(
                line_rewards=_floats(lines[number]),
                rewards=_floats(rewards[number]),
                values=() if values is None else _floats(values[number]),
                advantages=() if values is None else _floats(advantages[number]),
            )
            for number in scores
        }

    def view(self, name: str) -> ArmView:
        arm, rl = self.run.recipe.arms[name], self.run.recipe.rl_of(name)
        return ArmView(
            name=name,
            line_reward=arm.line_reward,
            prm=arm.prm or "",
            lambda_fail=arm.lambda_fail,
            lambda_pass=arm.lambda_pass,
            gamma=rl.gamma,
            gae_lambda=rl.gae_lambda,
            critic=self._critic(name, arm),
        )

    def _line_scores(self, arm: ArmSettings) -> ByEntry:
        """What the arm's line reward reads; empty arrays without one, nothing where it is not there."""
        if arm.prm is None:
            return dict.fromkeys(self.rollouts, np.zeros(0))
        if arm.prm == "oracle":
            target = "progress" if arm.line_reward == "progress" else "sign"
            exact = {number: self.entries[number].exact for number in self.rollouts}
            return {number: exact_line_scores(one, target) for number, one in exact.items() if one is not None}
        folder = self._folder(arm.prm)
        key = (arm.prm, arm.line_score)
        if key not in self._scores and (folder / FILE).is_file():
            dtype = self.run.recipe.model.dtype
            scorer = open_prm_lines(arm.line_score, folder, self.tokenizer, device=self.device, dtype=dtype)
            found = scorer.score(list(self.rollouts.values()))
            self._scores[key] = dict(zip(self.rollouts, found, strict=True))
        return self._scores.get(key, {})

    def _start_values(self, name: str, arm: ArmSettings) -> ByEntry | None:
        """V before every token, shape of each: (T,); None, and why, where the critic's start is not known."""
        if not self._has_critic(name):
            reason = f"arm {name} has no critic; its advantages compare the responses of a step with each other"
            self.missing[f"values {name}"] = Missing(reason=reason)
            return None
        own = self.run.recipe.critic.path
        if arm.value_map != "head" and arm.value_init is None and own is None:
            return {number: np.zeros(len(rollout.token_ids)) for number, rollout in self.rollouts.items()}
        folder = self._folder(arm.value_init) if arm.value_init else own or self.run.path / "sft" / "model"
        if not folder.is_dir():
            command = run_command(self.run, until=f"prm-{arm.value_init}") if arm.value_init else ""
            self.missing[f"values {name}"] = Missing(reason=f"{folder} is not there", command=command)
            return None
        head = self._fitted_head(name) if arm.value_map == "head" else None
        scale, shift = self._value_map(name, arm) if arm.value_init else (1.0, 0.0)
        if math.isnan(scale) if arm.value_map != "head" else head is None:
            command = run_command(self.run, until=f"rl-{name}")
            self.missing[f"values {name}"] = Missing(reason=f"arm {name} has not fitted its values", command=command)
            return None
        if head is not None:
            return self._scores_before(folder, head)
        if folder not in self._before:
            self._before[folder] = self._scores_before(folder)
        return {number: scale * score_T + shift for number, score_T in self._before[folder].items()}

    @torch.no_grad()
    def _scores_before(self, folder: Path, head: tuple[torch.Tensor, float] | None = None) -> ByEntry:
        """A value model's score of the state before every token, with another head if one is given. Each: (T,)."""
        critic = initial_model(folder, seed=0).to(self.device)
        if head is not None:
            critic.replace_head(*head)
        numbers, found = list(self.rollouts), dict[int, Array]()
        rows = [[*rollout.prompt_ids, *rollout.token_ids] for rollout in self.rollouts.values()]
        for part in token_batches([len(row) for row in rows], FORWARD_TOKENS):
            ids_BS, mask_BS = right_pad([rows[k] for k in part], self.tokenizer.pad_token_id, device=self.device)
            with computing(self.run.recipe.model.dtype, self.device):
                value_BS = values_before(critic, ids_BS, mask_BS)
            for k, value_S in zip(part, value_BS.double().cpu().numpy(), strict=True):
                found[numbers[k]] = value_S[len(self.rollouts[numbers[k]].prompt_ids) : len(rows[k])]
        return found

    def _critic(self, name: str, arm: ArmSettings) -> str:
        """How it starts, for people."""
        if not self._has_critic(name):
            return "none"
        own = self.run.recipe.critic.path
        trunk = f"PRM {arm.value_init}" if arm.value_init else str(own or "the SFT policy")
        if f"values {name}" in self.missing:
            return f"{trunk}, not known here"
        if arm.value_map == "head":
            return f"{trunk}, its head fitted to returns"
        if arm.value_init is None:
            return "a fresh head, V = 0 everywhere" if own is None else trunk
        scale, shift = self._value_map(name, arm)
        slope, sign = f"{scale:.3g}".replace("-", "−"), "−" if shift < 0 else "+"
        return f"{trunk}, V = {slope} R {sign} {abs(shift):.3g}"

    def _has_critic(self, name: str) -> bool:
        return self.run.recipe.rl_of(name).advantage == "gae"

    def _value_map(self, name: str, arm: ArmSettings) -> tuple[float, float]:
        """a, b of V = a·R + b; NaN where the arm has not fitted them yet, before its first step."""
        if arm.value_map in VALUE_MAPS:
            return VALUE_MAPS[arm.value_map]
        columns = [self.run.rl[name].get(key) for key in ("value_scale", "value_shift")]
        scale, shift = (math.nan if column is None or not len(column) else float(column[0]) for column in columns)
        return scale, shift

    def _fitted_head(self, name: str) -> tuple[torch.Tensor, float] | None:
        file = self.run.path / "rl" / name / HEAD_FILE
        if not file.is_file():
            return None
        found = json.loads(file.read_text(encoding="utf-8"))
        return torch.tensor([found["weight"]]), float(found["bias"])

    def _folder(self, prm: str) -> Path:
        return self.run.path / "prm" / prm / "model"


def _floats(values: Array) -> Floats:
    return tuple(map(float, values))


def _advantages(rewards: ByEntry, values: ByEntry, gamma: float, lam: float) -> ByEntry:
    """Shape of each: (T,)."""
    numbers = list(rewards)
    reward_BT, value_BT, mask_BT = (torch.zeros(len(numbers), max(map(len, rewards.values()))) for _ in range(3))
    for b, number in enumerate(numbers):
        T = len(rewards[number])
        reward_BT[b, :T] = torch.as_tensor(rewards[number])
        value_BT[b, :T] = torch.as_tensor(values[number])
        mask_BT[b, :T] = 1.0
    advantage_BT, _ = gae(reward_BT, value_BT, mask_BT, gamma=gamma, lam=lam)
    return {number: advantage_BT[b, : len(rewards[number])].numpy() for b, number in enumerate(numbers)}
