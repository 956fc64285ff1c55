"""The processes of a training, and what they tell each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed

from returnn_lite.datasets import Batch
from returnn_lite.engine.interrupt import OTHER_PROCESS, StopRequest
from returnn_lite.engine.report import EpochScores
from returnn_lite.errors import ConfigError

T = TypeVar("T")
Tensors = Mapping[str, torch.Tensor]
ReduceOp = torch.distributed.ReduceOp
UNKNOWN = -1.0  # in place of the part of the epoch that is done, where a process does not know it


@dataclass(frozen=True)
class World:
    """The processes of a training. Every method is called by all of them, and waits for all; alone it does nothing.

    `host`: where numbers of the program must be to be exchanged; `device`: the same for parameters and gradients.
    """

    rank: int = 0
    size: int = 1
    host: torch.device = torch.device("cpu")
    device: torch.device = torch.device("cpu")

    # --- batches ------------------------------------------------------------------------------------------------------

    def together(self, batches: Iterable[Batch], stop: StopRequest, every: int = 1) -> Iterator[Batch]:
        """The batches, as long as each process has one. `stop` in one of them ends all after the same step.

        every: ask for that at the first step and then before each step whose number (from 1) is a multiple of it.
        """
        for batch in self._common(batches, stop, every) if self.size > 1 else batches:
            yield batch
            if self.size == 1:
                stop.check()

    def _common(self, batches: Iterable[Batch], stop: StopRequest, every: int) -> Iterator[Batch]:
        own, step = iter(batches), 0
        while True:
            try:
                batch = next(own, None)
            except Exception:
                stop.check()  # a signal to all processes of a group has ended those that read data, too
                raise
            if batch is None or step == 0 or (step + 1) % every == 0:
                if not self._all_have(batch, stop):
                    return
            if batch is not None:
                yield batch
            step += 1

    def _all_have(self, batch: Batch | None, stop: StopRequest) -> bool:
        """Whether each process has a batch; what depends on the part of the epoch that is done is equal in all."""
        known = None if batch is None else batch.complete
        state = [batch is None, stop.received is not None, UNKNOWN if known is None else known]
        ends, stopped, complete = self._reduced(state, ReduceOp.MAX)
        if stopped:
            stop.stop(OTHER_PROCESS)
            stop.check()
        if batch is not None:
            batch.complete = None if complete == UNKNOWN else complete
        return not ends

    # --- numbers and objects ------------------------------------------------------------------------------------------

    def merge(self, scores: EpochScores) -> None:
        """The sums of all processes, added in the same order everywhere."""
        if self.size > 1:
            scores.become_sum_of(self.gather(scores))

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def least(self, number: int) -> int:
        """The smallest of the processes' numbers."""
        return int(self._reduced([number], ReduceOp.MIN)[0]) if self.size > 1 else number

    def from_first(self, value: T) -> T:
        """The first process's value."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def require_equal(self, path: str, does: str, what: Mapping[str, object]) -> None:
        """ConfigError, the same in all processes, where one has another value than the first.

        does: what that means, such as "sees different data".
        """
        first, *others = self.gather(dict(what))
        for rank, other in enumerate(others, 1):
            for name in first:
                if other.get(name) != first[name]:
                    text = f"rank {rank} {does} than rank 0: {name} {other.get(name)} instead of {first[name]}"
                    raise ConfigError(path, text)

    def _reduced(self, numbers: Sequence[float], how: ReduceOp.RedOpType) -> list[float]:
        values = torch.tensor([float(number) for number in numbers], dtype=torch.float64, device=self.host)
        torch.distributed.all_reduce(values, op=how)
        return values.tolist()

    # --- tensors ------------------------------------------------------------------------------------------------------

    def mean(self, gradients: Tensors, params: Tensors) -> tuple[dict[str, torch.Tensor], bool]:
        """The mean over the processes, and whether all of them have a gradient of every parameter.

        A missing gradient counts as 0. Row-sparse gradients stay so, with the rows of all, each once.
        """
        numbers = [name in gradients for name in params]
        dense = [name in gradients and not gradients[name].is_sparse for name in params]
        counts = self._reduced(numbers + dense, ReduceOp.SUM)
        there = dict(zip(params, counts, strict=False))
        rows = [name for name, full in zip(params, counts[len(numbers) :], strict=True) if there[name] and not full]
        found = self._mean_of_rows(gradients, {name: params[name] for name in rows})
        found |= self._mean_of_dense(gradients, {name: params[name] for name in params if name not in found})
        found = {name: found[name] for name in params if there[name]}
        return found, all(count == self.size for count in there.values())

    def _mean_of_dense(self, gradients: Tensors, params: Tensors) -> dict[str, torch.Tensor]:
        if not params:
            return {}
        flat = torch.cat([_flat(gradients.get(name), param) for name, param in params.items()])
        torch.distributed.all_reduce(flat)
        parts = flat.split([param.numel() for param in params.values()])
        shaped = zip(params.items(), parts, strict=True)
        return {name: (part / self.size).view_as(param).to(param.dtype) for (name, param), part in shaped}

    def _mean_of_rows(self, gradients: Tensors, params: Tensors) -> dict[str, torch.Tensor]:
        own = {name: _rows(gradients.get(name), param) for name, param in params.items()}
        by_rank = self.gather([len(index) for index, _ in own.values()]) if own else []
        found = {}
        for (name, (index, values)), counts in zip(own.items(), zip(*by_rank, strict=True), strict=True):
            index, values = self._concatenated(index, counts), self._concatenated(values, counts)
            shape = params[name].shape
            rows = torch.sparse_coo_tensor(index[None], values / self.size, shape, check_invariants=False)
            found[name] = rows.coalesce()
        return found

    def _concatenated(self, part: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """The parts (N, …) of all processes, one behind the other; counts: N by rank."""
        padded = part.new_zeros(max(counts), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([other[:count] for other, count in zip(parts, counts, strict=True)])

    def average(self, params: Iterable[torch.Tensor], device: torch.device | None = None) -> None:
        """Replaces parameters by their mean over the processes, computed on `device` (default: where they lie)."""
        tensors = [param.data for param in params]
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.float().flatten() for tensor in tensors]).to(device or self.device)
        torch.distributed.all_reduce(flat)
        flat /= self.size
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def copy_first(self, params: Tensors) -> None:
        """Gives all processes the parameters of the first (running statistics differ)."""
        for _, param in sorted(params.items()) if self.size > 1 else ():
            with torch.no_grad():
                torch.distributed.broadcast(param.data, src=0)


def _flat(gradient: torch.Tensor | None, param: torch.Tensor) -> torch.Tensor:
    if gradient is None:
        return torch.zeros(param.numel(), device=param.device)
    return (gradient.to_dense() if gradient.is_sparse else gradient).detach().float().flatten()


def _rows(gradient: torch.Tensor | None, param: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers (N,) and values (N, …) of the rows of a row-sparse gradient."""
    if gradient is None:
        return torch.zeros(0, dtype=torch.int64, device=param.device), param.detach()[:0]
    return gradient._indices()[0], gradient._values()
