"""One mini-batch through the network (training and evaluation alike), and the scores of such steps."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, overload

import numpy as np
import torch

from returnn_lite.engine.batch_like import BatchLike, Padded
from returnn_lite.engine.models.model import Model, ModelOutput
from returnn_lite.engine.report import Column
from returnn_lite.errors import ConfigError
from returnn_lite.network.objective import LossValue
from returnn_lite.ops.precision import lowered

HOST = torch.device("cpu")


class BrokenScores(ConfigError):
    """A sum of losses became infinite or NaN."""


@dataclass(frozen=True)
class StepResult:
    """The network's output for a batch, and its losses and errors as one small tensor (still on the device)."""

    out: ModelOutput
    columns: tuple[Column, ...]
    scores: torch.Tensor


# Runs a network: (network, data, lengths, tags) -> what it gives for the batch.
Forward: TypeAlias = Callable[[Model, dict[str, Padded], dict[str, torch.Tensor], list[str]], ModelOutput]


def by_itself(net: Model, data: dict[str, Padded], lengths: dict[str, torch.Tensor], tags: list[str]) -> ModelOutput:
    """The usual `Forward`: the network is called."""
    return net(data, lengths, tags=tags)


def run_step(
    net: Model,
    batch: BatchLike,
    device: torch.device,
    forward: Forward = by_itself,
    *,
    wanted: Iterable[str] | None = None,
) -> StepResult:
    """Computes all layers and losses of `net` for `batch`. `wanted`: see `forward_batch`."""
    out = forward_batch(net, batch, device, forward, wanted=wanted)
    columns, numbers = loss_columns(out.losses)
    columns.append(("loss", ""))
    numbers.append(out.objective)
    flat = [torch.as_tensor(number, device=device).detach().to(torch.float32).reshape(()) for number in numbers]
    return StepResult(out, tuple(columns), torch.stack(flat))


def forward_batch(
    net: Model,
    batch: BatchLike,
    device: torch.device,
    forward: Forward = by_itself,
    *,
    wanted: Iterable[str] | None = None,
) -> ModelOutput:
    """The network's output for `batch`, which is moved to `device` (lengths only if the network wants them there).

    `wanted`: the names of layers whose outputs somebody asks for; others may go when they have been read.
    """
    data = {key: to_device(value, device) for key, value in batch.data.items()}
    if "seq_idx" in net.used_data_keys and "seq_idx" not in data:
        data["seq_idx"] = to_device(batch.seq_idx.astype(np.int64 if net.data_as_they_are else np.int32), device)
    lengths_on = HOST if net.lengths_on_host else device
    lengths = {key: to_device(value, lengths_on) for key, value in batch.lengths.items()}
    net.wanted = None if wanted is None else frozenset(wanted)
    try:
        with lowered(device, net.autocast):
            return forward(net, data, lengths, batch.tags)
    finally:
        net.wanted = None


def repeatable_objective(
    net: Model, batch: BatchLike, device: torch.device, forward: Forward = by_itself
) -> Callable[[], torch.Tensor]:
    """To be made before the step is run: computes its objective anew, with the same random numbers.

    What layers count by themselves (running statistics) is not counted again.
    """
    random_state = net.random_state
    counted = [param for param in net.params.values() if not param.requires_grad]

    def objective() -> torch.Tensor:
        before = [param.clone() for param in counted]
        net.random_state = random_state
        found = forward_batch(net, batch, device, forward).objective
        with torch.no_grad():
            for param, value in zip(counted, before, strict=True):
                param.data.copy_(value)  # past autograd, which may hold it though no gradient depends on it
        return found

    return objective


@overload
def to_device(value: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor: ...
@overload
def to_device(value: list[str], device: torch.device) -> list[str]: ...
def to_device(value: np.ndarray | Padded, device: torch.device) -> Padded:
    """An array, or a tensor in pinned memory, as a tensor on `device`; lists of strings stay as they are."""
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(value)
        value = tensor if device.type == "cpu" else tensor.pin_memory()
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


def loss_columns(losses: Mapping[str, LossValue]) -> tuple[list[Column], list[torch.Tensor]]:
    """The columns and values of all losses: unnormalised sums of cost and error, and the normalisation."""
    columns: list[Column] = []
    numbers: list[torch.Tensor] = []
    for name, loss in losses.items():
        for kind, number in (("cost", loss.sum), ("error", loss.error), ("inv_norm", loss.inv_norm)):
            if number is not None:
                columns.append((kind, name))
                numbers.append(number)
    return columns, numbers
