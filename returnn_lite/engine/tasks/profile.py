"""Task `profile`: what each layer of a network costs in training steps."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from returnn_lite.config import Config
from returnn_lite.datasets import Batch
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.models.torch_model import TorchNet
from returnn_lite.engine.step import run_step
from returnn_lite.engine.train import Trainer, open_trainer
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.tensor import Tensor

WARM_UP, MEASURED = 2, 5  # batches
MEGABYTE = 2.0**20
HEADER = ("layer", "class", "calls", "ms", "%", "MB of output", "parameters")


@dataclass
class Cost:
    """Of one layer, over all measured steps: its own seconds in the forward pass, without those of layers inside it,
    and bytes of its outputs."""

    kind: str
    parameters: int
    calls: int = 0
    seconds: float = 0.0
    bytes: int = 0


@dataclass
class Stopwatch:
    """Measures layers while they run. `inside`: seconds of layers inside the running ones, innermost last."""

    device: torch.device
    costs: dict[str, Cost] = field(default_factory=dict)
    inside: list[float] = field(default_factory=list)

    def now(self) -> float:
        """The time when the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def timed(self, name: str, function: Any) -> Any:  # Any: whatever a layer or module takes and gives
        """The function, measured as the work of a layer."""

        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            self.inside.append(0.0)
            start = self.now()
            out = function(*args, **kwargs)
            took = self.now() - start
            cost = self.costs[name]
            cost.calls += 1
            cost.seconds += took - self.inside.pop()
            cost.bytes += size_of(out)
            if self.inside:
                self.inside[-1] += took
            return out

        return measured


def profile_task(config: Config, log: Log) -> None:
    """Trains a few batches without saving anything, and logs a table (verbosity 1)."""
    config.set("dry_run", True)
    config.set("torch_cuda_graph", False)
    trainer = open_trainer(config, log)
    watch = Stopwatch(trainer.device)
    trainer.network.prepare(trainer.start_epoch, trainer.global_step)
    trainer.data.start_epoch(trainer.start_epoch)
    rate = trainer.learning_rate(trainer.start_epoch)
    batches = islice(iter(trainer.data.training_batches(trainer.net, trainer.start_epoch)), WARM_UP + MEASURED)
    parts = {"forward": 0.0, "backward and update": 0.0}
    steps = 0
    with measured_layers(trainer.net, watch):
        for number, batch in enumerate(batches):
            if number == WARM_UP:
                forget(watch, parts)
                steps = 0
            train_step(trainer, batch, number, rate, watch, parts)
            steps += 1
    if not steps:
        raise ConfigError("train", "has no batches")
    for line in [*table(watch, steps), *summary(parts, steps, trainer.device)]:
        log.v1(line)


def forget(watch: Stopwatch, parts: dict[str, float]) -> None:
    """What was measured so far does not count."""
    for cost in watch.costs.values():
        cost.calls, cost.seconds, cost.bytes = 0, 0.0, 0
    parts.update(dict.fromkeys(parts, 0.0))
    if watch.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(watch.device)


def train_step(
    trainer: Trainer, batch: Batch, number: int, rate: float, watch: Stopwatch, parts: dict[str, float]
) -> None:
    """One step; its seconds are added to `parts`."""
    net = trainer.net.train()
    start = watch.now()
    result = run_step(net, batch, trainer.device)
    middle = watch.now()
    trainer.updater.step(
        result.out.objective, global_step=trainer.global_step + number, learning_rate=rate, epoch_step=number
    )
    parts["forward"] += middle - start
    parts["backward and update"] += watch.now() - middle


@contextmanager
def measured_layers(net: Model, watch: Stopwatch) -> Iterator[None]:
    """Measures the layers of a layer net, or the modules of a model written in torch."""
    attribute = "forward" if isinstance(net, TorchNet) else "run"
    modules = dict(net.model.named_modules()) if isinstance(net, TorchNet) else dict(net.layers)
    modules = {name: module for name, module in modules.items() if name and hasattr(module, attribute)}
    try:
        for name, module in modules.items():
            count = sum(param.numel() for param in module.parameters(recurse=False))
            watch.costs[name] = Cost(getattr(module, "class_name", type(module).__name__), count)
            setattr(module, attribute, watch.timed(name, getattr(module, attribute)))
        yield
    finally:
        for module in modules.values():
            vars(module).pop(attribute, None)


def size_of(out: object) -> int:
    """Bytes of the tensors in an output."""
    if isinstance(out, Tensor):
        out = out.data
    if isinstance(out, torch.Tensor):
        return out.numel() * out.element_size()
    if isinstance(out, list | tuple | Mapping):
        return sum(map(size_of, out.values() if isinstance(out, Mapping) else out))
    return 0


def table(watch: Stopwatch, steps: int) -> list[str]:
    """A line for each layer that ran, the most expensive first; numbers are those of a step."""
    costs = {name: cost for name, cost in watch.costs.items() if cost.calls}
    total = sum(cost.seconds for cost in costs.values()) or 1.0
    rows = [HEADER]
    for name, cost in sorted(costs.items(), key=lambda item: -item[1].seconds):
        milliseconds, share = 1000 * cost.seconds / steps, 100 * cost.seconds / total
        size = f"{cost.bytes / MEGABYTE / steps:.2f}"
        calls = f"{cost.calls / steps:g}"
        rows.append((name, cost.kind, calls, f"{milliseconds:.3f}", f"{share:.1f}", size, f"{cost.parameters}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    places = list(enumerate(widths))
    return ["  ".join(aligned(cell, *place) for cell, place in zip(row, places, strict=True)) for row in rows]


def aligned(cell: str, column: int, width: int) -> str:
    """Names to the left, numbers to the right."""
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def summary(parts: Mapping[str, float], steps: int, device: torch.device) -> list[str]:
    """Seconds of a step, and on a GPU its highest memory."""
    lines = [f"{name}: {1000 * seconds / steps:.1f} ms a step" for name, seconds in parts.items()]
    if device.type == "cuda":
        lines.append(f"peak of GPU memory: {torch.cuda.max_memory_allocated(device) / MEGABYTE:.0f} MB")
    return [f"mean of {steps} steps: {', '.join(lines)}"]
