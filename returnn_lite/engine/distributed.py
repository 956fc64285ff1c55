"""Training in several processes that torchrun started: each has its part of the data, all have the same parameters."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed

from returnn_lite.config import Config
from returnn_lite.datasets import Batch
from returnn_lite.engine.interrupt import StopRequest
from returnn_lite.engine.report import EpochScores
from returnn_lite.errors import ConfigError

T = TypeVar("T")
Tensors = Mapping[str, torch.Tensor]
UNKNOWN = -1.0  # in place of the part of the epoch that is done, where a process does not know it


@dataclass(frozen=True)
class World:
    """The processes of a training. Every method is called by all of them, and waits for all; alone it does nothing."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # where what is sent must be

    def together(self, batches: Iterable[Batch], stop: StopRequest) -> Iterator[Batch]:
        """The batches, as long as each process has one. `stop` in one of them ends all after the same step."""
        for batch in self._common(batches, stop) if self.size > 1 else batches:
            yield batch
            if self.size == 1:
                stop.check()

    def _common(self, batches: Iterable[Batch], stop: StopRequest) -> Iterator[Batch]:
        own = iter(batches)
        while True:
            try:
                batch = next(own, None)
            except Exception:
                stop.check()  # a signal to all processes of a group has ended those that read data, too
                raise
            known = None if batch is None else batch.complete
            state = [batch is None, stop.received is not None, UNKNOWN if known is None else known]
            ends, stopped, complete = self._reduced(state, torch.distributed.ReduceOp.MAX)
            if stopped:
                stop.stop("a signal to another process")
                stop.check()
            if ends or batch is None:
                return
            batch.complete = None if complete == UNKNOWN else complete  # what depends on it must be equal
            yield batch

    def mean(self, gradients: Tensors, params: Tensors) -> dict[str, torch.Tensor]:
        """The mean over the processes; of a parameter that some have no gradient for, theirs count as 0."""
        if self.size == 1:
            return dict(gradients)
        parts = [_flat(gradients.get(name), param) for name, param in params.items()]
        there = torch.tensor([float(name in gradients) for name in params], device=self.device)
        flat = torch.cat([there, *parts])
        torch.distributed.all_reduce(flat)
        there, *summed = flat.split([len(params), *(param.numel() for param in params.values())])
        found = zip(params.items(), there.tolist(), summed, strict=True)
        return {
            name: (part / self.size).view_as(param).to(param.dtype) for (name, param), count, part in found if count
        }

    def merge(self, scores: EpochScores) -> None:
        """Adds the sums of all other processes."""
        if self.size > 1:
            all_scores: list[Any] = [None] * self.size
            torch.distributed.all_gather_object(all_scores, scores)
            for rank, other in enumerate(all_scores):
                if rank != self.rank:
                    scores.join(other)

    def least(self, number: int) -> int:
        """The smallest of the processes' numbers."""
        return int(self._reduced([number], torch.distributed.ReduceOp.MIN)[0]) if self.size > 1 else number

    def from_first(self, value: T) -> T:
        """The first process's value."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def copy_first(self, params: Tensors) -> None:
        """Gives all processes the parameters of the first (running statistics differ)."""
        for _, param in sorted(params.items()) if self.size > 1 else ():
            with torch.no_grad():
                torch.distributed.broadcast(param.data, src=0)

    def _reduced(self, numbers: list[float], how: Any) -> list[float]:
        values = torch.tensor([float(number) for number in numbers], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(values, op=how)
        return values.tolist()


def _flat(gradient: torch.Tensor | None, param: torch.Tensor) -> torch.Tensor:
    if gradient is None:
        return torch.zeros(param.numel(), device=param.device)
    return (gradient.to_dense() if gradient.is_sparse else gradient).detach().float().flatten()


def processes(environ: Mapping[str, str]) -> tuple[int, int]:
    """(rank, number) of the processes that torchrun started."""
    return int(environ.get("RANK") or 0), int(environ.get("WORLD_SIZE") or 1)


@contextmanager
def joined_world(config: Config) -> Iterator[World]:
    """Joins the processes of torchrun. All but the first run dry: they write nothing.

    On GPUs, each takes the one of its local rank.
    """
    rank, size = processes(os.environ)
    if size == 1:
        yield World()
        return
    if config.is_true("use_last_best_model"):
        raise ConfigError("use_last_best_model", "is not supported for a training in several processes")
    on_gpu = config.value("device", None) != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0)) if on_gpu else torch.device("cpu")
    if on_gpu:
        if (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError("device", f"there are {torch.cuda.device_count()} GPUs, fewer than processes")
        torch.cuda.set_device(device)
    if rank:
        config.set("dry_run", True)
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield World(rank, size, device)
    finally:
        torch.distributed.destroy_process_group()
