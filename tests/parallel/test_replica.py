"""A network in several processes: what is noticed when they disagree, and when a training diverged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from parallel_world import together
from psgpo.errors import UserError
from psgpo.models import create_policy, train_tokenizer
from psgpo.parallel import replica as module
from psgpo.parallel.replica import Replica, clip_gradients, load_optimizer
from psgpo.parallel.team import ALONE, Team, current_team
from psgpo.training import ResumableLog


def network(seed: int = 4) -> torch.nn.Module:
    tokenizer = train_tokenizer(["x = 1\n"], 290)
    return create_policy(tokenizer, hidden_size=16, intermediate_size=16, num_attention_heads=2, seed=seed)


def said(replica: Replica) -> str:
    with pytest.raises((RuntimeError, UserError)) as caught:
        replica.state()
    return f"{type(caught.value).__name__}: {caught.value}"


def disagreements() -> list[str]:
    team = current_team()
    found = []
    with pytest.raises(RuntimeError) as caught:
        Replica(network(seed=team.rank), team, "cpu")
    found.append(str(caught.value))
    one = Replica(network(), team, "cpu")
    assert len(one.state()) > 5
    weight = one.network.get_input_embeddings().weight.data
    if team.rank == 1:
        weight[:2] = weight[:2].flip(0)  # the sum is the same
    found.append(said(one))
    weight[0, 0] = torch.nan
    return [*found, said(one)]


def test_processes_that_disagree(tmp_path: Path) -> None:
    first, second = together(disagreements, 2, tmp_path)
    assert first == second
    started, drifted, diverged = first
    assert "process 1 holds other weights than process 0" in started
    assert started.endswith("they were loaded or drawn in different ways")
    assert drifted.startswith("RuntimeError: process 1 holds other weights than process 0 (1 of 21 tensors, ")
    assert drifted.endswith("their updates differed")
    assert diverged.startswith("UserError: the training diverged: ")
    assert diverged.endswith(" is not a number; start it anew in another folder, with a lower learning rate")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_no_number_ends_the_training_before_it_reaches_a_weight(value: float) -> None:
    policy = network()
    parameters = list(policy.parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    assert clip_gradients(parameters, 1.0) == pytest.approx(sum(p.numel() for p in parameters) ** 0.5)
    parameters[0].grad.view(-1)[0] = value
    with pytest.raises(UserError, match="the training diverged: the gradient's norm is"):
        clip_gradients(parameters, 1.0)


def test_one_process_names_a_divergence_too() -> None:
    one = Replica(network(), ALONE, "cpu")
    one.network.get_input_embeddings().weight.data[3, 2] = torch.nan
    assert "the training diverged" in said(one)


def test_an_old_pytorch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SUMMED", ("set_a_factor_of_later",))
    with pytest.raises(UserError, match=r'PyTorch .* is too old for it; update it or use "ddp"'):
        Replica(network(), Team(size=1, sharded=True), "cpu")


def test_a_state_taken_up_is_let_go(tmp_path: Path) -> None:
    """Neither weights nor moments keep the file mapped; the step stays."""

    def made() -> tuple[Replica, torch.optim.Optimizer]:
        replica = Replica(network(), ALONE, "cpu")
        return replica, torch.optim.Adam(replica.network.parameters())

    def mapped() -> bool:
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    replica, optimizer = made()
    for parameter in replica.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    first = ResumableLog(tmp_path)
    first.save(7, model=replica.state(), optimizer=optimizer.state_dict())
    want = [state["exp_avg"] for state in optimizer.state.values()]

    log = ResumableLog(tmp_path)
    replica, optimizer = made()
    assert log.state is not None
    assert mapped()
    replica.load(log.state["model"])
    load_optimizer(optimizer, log.state["optimizer"])
    log.forget()
    assert log.step == 7
    assert not mapped()
    got = [state["exp_avg"] for state in optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
