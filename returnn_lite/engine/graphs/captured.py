"""One training step recorded as a CUDA graph."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from returnn_lite.engine.graphs.shapes import BatchShape
from returnn_lite.network.objective import LossValue

Tensors = dict[str, torch.Tensor]


@dataclass
class StepValues:
    """What a step gives: its losses, objective, and the gradients of the parameters."""

    losses: dict[str, LossValue]
    objective: torch.Tensor
    gradients: Tensors


class Recorder:
    """What all recorded steps share: the memory, the stream, and the place where gradients end up.

    `generators`: those that a step draws from; a repeated step draws on.
    """

    def __init__(self, device: torch.device, generators: Callable[[], list[torch.Generator]]) -> None:
        self.device = device
        self.generators = generators
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)
        self.gradients: Tensors = {}

    def record(self, shape: BatchShape, step: Callable[[Tensors, Tensors], StepValues]) -> RecordedStep:
        """Records `step` (data, lengths) -> values for batches of this shape; nothing is computed yet.

        Raises RuntimeError (of CUDA) for work that a graph cannot hold.
        """
        batch = next(iter(size[0] for _, size, _ in shape.data))
        data = {key: torch.zeros(size, dtype=dtype, device=self.device) for key, size, dtype in shape.data}
        lengths = {key: torch.ones(batch, dtype=torch.int32, device=self.device) for key in shape.lengths}
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators():
            graph.register_generator_state(generator)
        with self._recording(graph):
            values = step(data, lengths)
            values.gradients = self._kept(values.gradients)
        return RecordedStep(graph, data, lengths, values)

    @contextmanager
    def _recording(self, graph: torch.cuda.CUDAGraph) -> Iterator[None]:
        current = torch.cuda.current_stream(self.device)
        torch.cuda.synchronize(self.device)
        self.stream.wait_stream(current)
        collects = gc.isenabled()
        gc.disable()  # what it frees may not be freed while a step is recorded
        try:
            with torch.cuda.stream(self.stream):
                graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
                try:
                    yield
                except BaseException:
                    self._give_up(graph)
                    raise
                graph.capture_end()
        finally:
            if collects:
                gc.enable()
        current.wait_stream(self.stream)

    def _give_up(self, graph: torch.cuda.CUDAGraph) -> None:
        """Ends a recording that has failed, and frees the generators from it."""
        try:
            graph.capture_end()
        except RuntimeError:  # what was recorded is no graph
            default = torch.cuda.default_generators[self.device.index or 0]
            for generator in (default, *self.generators()):
                generator.graphsafe_set_state(generator.clone_state())

    def _kept(self, gradients: Tensors) -> Tensors:
        """The gradients in memory that all recorded steps share: only one of them runs at a time."""
        kept = {}
        for name, grad in gradients.items():
            if grad.is_sparse:
                kept[name] = grad
                continue
            if name not in self.gradients:
                self.gradients[name] = torch.empty_like(grad)
            kept[name] = self.gradients[name]
        dense = [name for name, grad in gradients.items() if not grad.is_sparse]
        if dense:
            torch._foreach_copy_([kept[name] for name in dense], [gradients[name] for name in dense])
        return kept


@dataclass
class RecordedStep:
    """A step that can be repeated with other data of the same shape."""

    graph: torch.cuda.CUDAGraph
    data: Tensors
    lengths: Tensors
    values: StepValues

    def repeat(self, data: Mapping[str, torch.Tensor], lengths: Mapping[str, torch.Tensor]) -> StepValues:
        """The step for this batch. What it gives is overwritten by the next repetition."""
        for key, target in self.data.items():
            fill(target, data[key])
        for key, target in self.lengths.items():
            target.copy_(lengths[key], non_blocking=True)
        self.graph.replay()
        return self.values


def fill(target: torch.Tensor, x: torch.Tensor) -> None:
    """Copies `x` to the front of `target`, zeros behind."""
    if target.shape != x.shape:
        target.zero_()
        target = target[tuple(slice(n) for n in x.shape)]
    target.copy_(x, non_blocking=True)
