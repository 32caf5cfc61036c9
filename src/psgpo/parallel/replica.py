"""A network that all processes train: gradients, whole weights, state.

Data parallel: every process holds the network; the gradients of its share of rows are summed over processes after the
last micro-batch. Own sums, not `DistributedDataParallel`: that averages where our losses are divided by the tokens of
the whole minibatch already, its hooks sit in `forward`, which the chunked loss (`psgpo.models.logprobs`) goes around,
and it wants as many passes from every process. The price is that sums do not overlap with the backward pass.

Sharded (FSDP 2): every process keeps a part of each weight, gradient and optimizer state; a block's weights are
gathered while it computes. The gradient is summed, not averaged, after every micro-batch.
"""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from psgpo.errors import UserError
from psgpo.models import TokenValueModel, learned_state, load_learned
from psgpo.models.logprobs import plain_head
from psgpo.parallel.team import Team

Network = TypeVar("Network", PreTrainedModel, TokenValueModel)
T = TypeVar("T")

ANEW = "start it anew in another folder, with a lower learning rate"
SUMMED = ("set_gradient_divide_factor", "set_force_sum_reduction_for_comms")
"""Methods of FSDP 2 that make it sum gradients; younger than FSDP 2 itself."""


class Replica(Generic[Network]):
    """`network` as this process holds it. Made before its optimizer: sharding replaces parameters.

    Raises:
        RuntimeError: the processes start from different weights.
    """

    network: Network
    _plain: Network

    def __init__(self, network: Network, team: Team, device: str | torch.device) -> None:
        self.network, self.team = network, team
        self._plain = network
        _check_equal(network.state_dict(), team, "they were loaded or drawn in different ways")
        if team.sharded:
            self._plain = _hollow(network, device)
            _shard(_root(network), team, device)
        else:
            network.to(device)

    @property
    def plain(self) -> Network:
        """A network without hooks: the network itself, or where it is sharded a twin that is empty but for `whole`."""
        return self._plain

    def run(self, call: Callable[[], T]) -> T:
        """`call`, which uses the network in other ways than by its `forward`."""
        if not self.team.sharded:
            return call()
        found: T = _root(self.network).run_whole(call)
        return found

    @contextmanager
    def whole(self) -> Iterator[Network]:
        """`plain` with all weights, in every process."""
        if not self.team.sharded:
            yield self._plain
            return
        parts, twins = dict(self.network.named_parameters()), dict(self._plain.named_parameters())
        with torch.no_grad():
            for name, twin in twins.items():
                twin.data = _gathered(parts[name])
        try:
            yield self._plain
        finally:
            for twin in twins.values():
                twin.data = twin.data.new_empty(0)

    def sum_gradients(self) -> None:
        """After the last micro-batch of an update: the gradient of all processes' rows."""
        if not self.team.sharded:
            self.team.sum_gradients([p for p in self.network.parameters() if p.requires_grad])

    def state(self) -> dict[str, Tensor]:
        """What training changed (`learned_state`), whole; the same file whatever the number of processes.

        Raises:
            UserError: the training diverged: a weight is not a number.
            RuntimeError: the processes hold different weights, which nothing after can mend.
        """
        with self.whole() as plain:
            state = learned_state(plain)
            _check_numbers(state)
            if not self.team.sharded:
                _check_equal(state, self.team, "their updates differed")
                return state
            return {name: value.cpu().clone() for name, value in state.items()} if self.team.is_main else {}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Take up a `state`."""
        if not self.team.sharded:
            load_learned(self.network, state)
            return
        for name, mine in [*self.network.named_parameters(), *self.network.named_buffers()]:
            if name in state:
                mine.copy_(placed(state[name], mine))


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> float:
    """Scale the gradient down to this norm, at most; its norm before.

    Raises:
        UserError: the norm is no number: a step along it would leave no weight a number.
    """
    norm = _gathered(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    if not math.isfinite(norm):
        raise UserError(f"the training diverged: the gradient's norm is {float(norm)}; {ANEW}")
    nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return float(norm)


def optimizer_state(optimizer: torch.optim.Optimizer, team: Team) -> dict[str, Any]:
    """Its `state_dict`; called by every process. Where it is sharded the main one gets it whole, others get nothing."""
    state = optimizer.state_dict()
    if not team.sharded:
        return state
    moments: dict[int, dict[str, Any]] = {}
    for index, values in state["state"].items():
        moments[index] = {}
        for key, value in values.items():
            whole = _gathered(value)
            moments[index][key] = whole.cpu() if team.is_main else None
    return {**state, "state": moments}


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up a copy of an `optimizer_state`, which may be mapped from a file."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    parts = {
        index: {key: placed(value, parameters[index]) for key, value in moments.items()}
        for index, moments in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})


def _root(network: nn.Module) -> Any:
    """The model of transformers in it, whose `forward` gathers what lies outside its blocks."""
    return network.classifier if isinstance(network, TokenValueModel) else network


def _hollow(network: Network, device: str | torch.device) -> Network:
    """A copy without weights."""
    empty = {id(p): nn.Parameter(p.new_empty(0, device=device), p.requires_grad) for p in network.parameters()}
    twin = copy.deepcopy(network, empty)
    for module in twin.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)
    return twin


def blocks_of(root: nn.Module) -> list[nn.Module]:
    """What is sharded as a whole: the layers that a model of transformers says must not be split."""
    names = set(getattr(root, "_no_split_modules", None) or ())
    return [module for module in root.modules() if type(module).__name__ in names]


def _shard(root: PreTrainedModel, team: Team, device: str | torch.device) -> None:
    """Split the weights over the processes, one group for each block and one for the rest.

    Block by block from where the model lies to `device`, so no device ever holds it whole.
    """
    too_old = f'parallel.strategy = "fsdp": PyTorch {torch.__version__} is too old for it; update it or use "ddp"'
    try:
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
    except ImportError:
        raise UserError(too_old) from None
    if not all(hasattr(FSDPModule, method) for method in SUMMED):
        raise UserError(too_old)
    from torch.distributed.device_mesh import init_device_mesh

    blocks = blocks_of(root)
    if not blocks:
        raise UserError(
            f'{type(root).__name__}: names no blocks (_no_split_modules) to shard by; use parallel.strategy = "ddp"'
        )
    if root.get_output_embeddings() is not None:
        plain_head(root)  # found out by a forward pass, which every process can still do alone
    mesh = init_device_mesh(torch.device(device).type, (team.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(root, mesh=mesh, reshard_after_forward=True)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    # What comes out of a value model is squeezed into a new tensor, never changed in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    root.run_whole = MethodType(lambda _self, call: call(), root)
    register_fsdp_forward_method(root, "run_whole")


def _is_sharded(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")


def _gathered(tensor: Any) -> Tensor:
    """All of a tensor that may be sharded."""
    whole: Tensor = tensor.full_tensor() if _is_sharded(tensor) else tensor
    return whole


def placed(whole: Any, like: Tensor) -> Any:
    """A copy of a whole tensor as the part of it that `like` is; of one of another shape, where it is."""
    if not isinstance(whole, Tensor):
        return whole
    if whole.shape != like.shape:
        return whole.clone()
    if not _is_sharded(like):
        return whole.to(like.device, copy=True)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)  # type: ignore[attr-defined]


def _check_numbers(state: dict[str, Tensor]) -> None:
    for name, value in state.items():
        if value.isnan().any():
            raise UserError(f"the training diverged: {name} is not a number; {ANEW}")


def _check_equal(state: dict[str, Tensor], team: Team, cause: str) -> None:
    """Compare every tensor, bit for bit; about a second for each gigabyte.

    Raises:
        RuntimeError: two processes hold different weights; in each of them.
    """
    if team.size == 1:
        return
    digests = team.gather([{name: _digest(value) for name, value in state.items()}])
    for rank, theirs in enumerate(digests):
        differing = [name for name, digest in digests[0].items() if theirs.get(name) != digest]
        if differing or len(theirs) != len(digests[0]):
            named = f", {differing[0]} first" if differing else ""
            raise RuntimeError(
                f"process {rank} holds other weights than process 0 ({len(differing)} of {len(digests[0])} tensors"
                f"{named}): {cause}"
            )


def _digest(value: Tensor) -> str:
    raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(raw.numpy(), digest_size=16).hexdigest()
