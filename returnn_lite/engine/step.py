"""One mini-batch through the network (training and evaluation alike), and the scores of such steps."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.engine.report import Column, EpochScores, Progress
from returnn_lite.errors import ConfigError

HOST = torch.device("cpu")


class BatchLike(Protocol):
    """What a step needs of a batch: padded arrays [B, T, …], lengths [B], tags, and the progress of the pass."""

    data: dict[str, Any]
    lengths: dict[str, np.ndarray]
    tags: list[str]
    complete: float | None


class BrokenScores(ConfigError):
    """A sum of losses became infinite or NaN."""


@dataclass(frozen=True)
class StepResult:
    """The network's output for a batch, and its losses and errors as one small tensor (still on the device)."""

    out: Any
    columns: tuple[Column, ...]
    scores: torch.Tensor


def run_step(net: Any, batch: BatchLike, device: torch.device) -> StepResult:
    """Computes all layers and losses of `net` for `batch`."""
    out = forward_batch(net, batch, device)
    columns, numbers = loss_columns(out.losses)
    columns.append(("loss", ""))
    numbers.append(out.objective)
    flat = [torch.as_tensor(number, device=device).detach().to(torch.float32).reshape(()) for number in numbers]
    return StepResult(out, tuple(columns), torch.stack(flat))


def forward_batch(net: Any, batch: BatchLike, device: torch.device) -> Any:
    """The network's output for `batch`, which is moved to `device` (lengths only if the network wants them there)."""
    data = {key: to_device(value, device) for key, value in batch.data.items()}
    lengths_on = HOST if net.lengths_on_host else device
    lengths = {key: to_device(value, lengths_on) for key, value in batch.lengths.items()}
    return net(data, lengths, tags=batch.tags)


def repeatable_objective(net: Any, batch: BatchLike, device: torch.device) -> Callable[[], torch.Tensor]:
    """To be made before the step is run: computes its objective anew, with the same random numbers.

    What layers count by themselves (running statistics) is not counted again.
    """
    random_state = net.random_state
    counted = [param for param in net.params.values() if not param.requires_grad]

    def objective() -> torch.Tensor:
        before = [param.clone() for param in counted]
        net.random_state = random_state
        found: torch.Tensor = forward_batch(net, batch, device).objective
        with torch.no_grad():
            for param, value in zip(counted, before, strict=True):
                param.data.copy_(value)  # past autograd, which may hold it though no gradient depends on it
        return found

    return objective


def to_device(value: Any, device: torch.device) -> Any:
    """An array, or a tensor in pinned memory, as a tensor on `device`; lists of strings stay as they are."""
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(value)
        value = tensor if device.type == "cpu" else tensor.pin_memory()
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


def loss_columns(losses: Mapping[str, Any]) -> tuple[list[Column], list[Any]]:
    """The columns and values of all losses: unnormalised sums of cost and error, and the normalisation."""
    columns: list[Column] = []
    numbers: list[Any] = []
    for name in sorted(losses):
        loss = losses[name]
        for kind, number in (("cost", loss.sum), ("error", loss.error), ("inv_norm", loss.inv_norm)):
            if number is not None:
                columns.append((kind, name))
                numbers.append(number)
    return columns, numbers


class OutOfMemory(ConfigError):
    """The device has not enough memory for a batch."""


@contextmanager
def with_batch_context(batch: BatchLike, config: Config, net: Any = None) -> Iterator[None]:
    """Turns running out of GPU memory into an error that describes the batch, and the largest layers of `net`."""
    try:
        yield
    except torch.OutOfMemoryError as exc:
        lengths = {key: values.tolist() for key, values in batch.lengths.items()}
        shapes = {key: tuple(np.shape(value)) for key, value in batch.data.items()}
        options = f"batch_size {config.number_or_dict('batch_size', 1)}, max_seqs {config.literal('max_seqs', -1)}"
        text = f"out of GPU memory in a batch of shapes {shapes}, with {options}"
        text = f"{text}{largest_outputs(net, batch)}; sequences {batch.tags}, lengths {lengths}"
        raise OutOfMemory("batch_size", f"{text}; {str(exc).splitlines()[0]}") from exc


def largest_outputs(net: Any, batch: BatchLike, count: int = 3) -> str:
    """The layers with the most numbers in their outputs, roughly: every axis with lengths is as long as the longest
    sequence. "" for a network without layers."""
    spec_of = getattr(net, "spec", None)
    if spec_of is None:
        return ""
    longest = max((int(values.max(initial=0)) for values in batch.lengths.values()), default=1)
    sizes = {}
    for name in net.layers:
        axes = [num_rows(batch) if dim.is_batch else dim.size or longest for dim in spec_of(name).dims]
        sizes[f"{name} {axes}"] = 4 * math.prod(axes)
    largest = sorted(sizes, key=lambda name: -sizes[name])[:count]
    return f"; largest outputs: {', '.join(f'{name}: {sizes[name] / 2**20:.0f} MB' for name in largest)}"


@dataclass(frozen=True)
class _Pending:
    step: int
    columns: tuple[Column, ...]
    scores: torch.Tensor
    tags: list[str]
    complete: float | None
    sizes: dict[str, int]


class StepMeter:
    """Collects the scores of an epoch's steps, checks them, and writes the step lines.

    On a GPU the scores are fetched once in a while only (the device need not wait), but each step at verbosity 5.
    """

    FETCH_INTERVAL = 32

    def __init__(
        self, progress: Progress, scores: EpochScores, *, log_sizes: bool = False, stop_on_nonfinite: bool = True
    ) -> None:
        self.progress, self.scores = progress, scores
        self.log_sizes, self.stop_on_nonfinite = log_sizes, stop_on_nonfinite
        self._pending: list[_Pending] = []

    def add(self, result: StepResult, batch: BatchLike) -> None:
        """Takes a step's scores; raises BrokenScores if they are known at once (CPU) and not finite."""
        sizes = batch_sizes(batch) if self.log_sizes else {}
        row = _Pending(self.progress.steps, result.columns, result.scores, batch.tags, batch.complete, sizes)
        self._pending.append(row)
        on_cpu = result.scores.device.type == "cpu"
        if self.stop_on_nonfinite and on_cpu and not bool(torch.isfinite(result.scores).all()):
            self.flush()

    def end_step(self) -> None:
        """To be called when all work of the step is under way."""
        self.progress.steps += 1
        on_cpu = self._pending and self._pending[-1].scores.device.type == "cpu"
        if on_cpu or self.progress.log.verbosity >= 5 or len(self._pending) >= self.FETCH_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Fetches and counts all scores still on the device; raises BrokenScores."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        rows, start = torch.cat([p.scores for p in pending]).cpu().numpy(), 0
        for row in pending:
            end = start + len(row.columns)
            scores = self.scores.add(row.columns, rows[start:end])
            if self.stop_on_nonfinite and not np.isfinite(rows[start:end]).all():
                self._broken(row, rows[start:end], scores)
            start = end
            self.progress.step_line(row.step, {**scores, **row.sizes}, row.complete)

    def finish(self, wait_time: float) -> dict[str, float]:
        """Ends the pass; returns its scores. wait_time: seconds spent waiting for data."""
        self.flush()
        self.progress.finish(wait_time)
        means = self.scores.means()
        if self.scores.empty():
            text = f"no targets for {', '.join(self.scores.empty())}: the score is not defined (nan)"
            self.progress.log.v2(f"note: {self.progress.prefix}: {text}")
        if not self.scores.finite():
            self.progress.log.v1(f"Model seems broken, got inf or nan final score: {means}")
        return means

    def _broken(self, row: _Pending, sums: np.ndarray, scores: Mapping[str, np.float32]) -> None:
        log = self.progress.log
        log.v1("Model seems broken, got inf or nan score.")
        log.v1(f"Accumulated scores: {self.scores.accumulated()}")
        names = [f"{kind}:{name}".rstrip(":") for kind, name in row.columns]
        broken = [(key, value) for key, value in zip(names, sums, strict=True) if not np.isfinite(value)]
        bad = ", ".join(f"{key} {scores.get(key, value)!s}" for key, value in broken)
        shown = ", ".join(row.tags[:10]) + (", …" if len(row.tags) > 10 else "")
        where = f"{self.progress.prefix}, step {row.step}"
        raise BrokenScores("", f"Inf/nan score in {where}: {bad} (sequences: {shown})")


def batch_sizes(batch: BatchLike) -> dict[str, int]:
    """`max_size:<key>` (longest sequence of the batch) and `num_seqs`."""
    sizes = {f"max_size:{key}": int(lengths.max(initial=0)) for key, lengths in batch.lengths.items()}
    return {**sizes, "num_seqs": num_rows(batch)}


def num_rows(batch: BatchLike) -> int:
    """The batch dimension."""
    return len(next(iter(batch.data.values()))) if batch.data else len(batch.tags)


def nonfinite_layer(net: Any, batch: BatchLike, device: torch.device) -> str:
    """Names the first parameter or layer output that is not finite, '' if all are; runs the step again."""
    for name, param in net.params.items():
        if param.is_floating_point() and not bool(torch.isfinite(param).all()):
            return f"parameter {name!r} is not finite"
    with torch.no_grad():
        out = run_step(net, batch, device).out
    for name in net.layers:
        try:
            data = out[name].data
        except (KeyError, AttributeError):  # layers without data of their own
            continue
        if isinstance(data, torch.Tensor) and data.is_floating_point() and not bool(torch.isfinite(data).all()):
            return f"{name} is not finite" if name.startswith("data:") else f"first non-finite layer output: {name!r}"
    return ""
