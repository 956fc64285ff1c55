"""One training step recorded as a CUDA graph."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from returnn_lite.engine.graphs.net_step import (
    NetStep,
    NetStepInParts,
    Outputs,
    StepValues,
    Tensors,
    added,
    without_history,
)
from returnn_lite.engine.graphs.shapes import BatchShape


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

    def record(self, shape: BatchShape, step: NetStep) -> RecordedStep:
        """Records the step for batches of this shape; nothing is computed yet.

        Raises RuntimeError (of CUDA) for work that a graph cannot hold.
        """
        batch = next(iter(size[0] for _, size, _ in shape.data))
        data = {key: torch.zeros(size, dtype=dtype, device=self.device) for key, size, dtype in shape.data}
        lengths = {key: torch.ones(batch, dtype=torch.int32, device=self.device) for key in shape.lengths}
        graph = self._graph()
        if isinstance(step, NetStepInParts):
            with self._recording(graph):
                outputs = step.outputs(data, lengths)
            return RecordedParts(graph, data, lengths, self, step, outputs)
        with self._recording(graph):
            values = step.values(data, lengths)
            values.gradients = self._kept(values.gradients)
        return RecordedStep(graph, data, lengths, values)

    def record_gradients(
        self, step: NetStepInParts, tensors: list[torch.Tensor], given: list[torch.Tensor]
    ) -> tuple[torch.cuda.CUDAGraph, Tensors]:
        """Records the last part of a step, for the outputs that it begins with."""
        graph = self._graph()
        with self._recording(graph):
            found = self._kept(step.gradients(tensors, given))
        return graph, found

    def _graph(self) -> torch.cuda.CUDAGraph:
        """A graph that draws from the generators."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators():
            graph.register_generator_state(generator)
        return graph

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


class RecordedStep:
    """A step that can be repeated with other data of the same shape."""

    def __init__(
        self, graph: torch.cuda.CUDAGraph, data: Tensors, lengths: Tensors, values: StepValues | None = None
    ) -> None:
        self.graph, self.data, self.lengths, self.values = graph, data, lengths, values

    def repeat(self, data: Mapping[str, torch.Tensor], lengths: Mapping[str, torch.Tensor]) -> StepValues:
        """The step for this batch. What it gives is overwritten by the next repetition."""
        for key, target in self.data.items():
            fill(target, data[key])
        for key, target in self.lengths.items():
            target.copy_(lengths[key], non_blocking=True)
        self.graph.replay()
        return self.made()

    def made(self) -> StepValues:
        """What the repetition gives."""
        if self.values is None:
            raise RuntimeError("nothing was recorded")
        return self.values


class RecordedParts(RecordedStep):
    """A step whose losses are computed anew, between two graphs; the second one is recorded in the first repetition."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        data: Tensors,
        lengths: Tensors,
        recorder: Recorder,
        step: NetStepInParts,
        outputs: Outputs,
    ) -> None:
        super().__init__(graph, data, lengths)
        self.recorder, self.step, self.outputs = recorder, step, outputs
        self.back: torch.cuda.CUDAGraph | None = None
        self.used: list[int] = []
        self.given: list[torch.Tensor] = []
        self.gradients: Tensors = {}

    def made(self) -> StepValues:
        """Losses of the outputs, and the gradients."""
        values, given = self.step.losses(self.outputs)
        if self.back is None:
            self.used = [i for i, grad in enumerate(given) if grad is not None]
            self.given = [grad.clone() for grad in given if grad is not None]
            tensors = [self.outputs.tensors[i] for i in self.used]
            self.back, self.gradients = self.recorder.record_gradients(self.step, tensors, self.given)
            self.outputs = without_history(self.outputs)
        for target, i in zip(self.given, self.used, strict=True):
            grad = given[i]
            target.zero_() if grad is None else target.copy_(grad)
        self.back.replay()
        values.gradients = added(self.gradients, values.gradients)
        return values


def fill(target: torch.Tensor, x: torch.Tensor) -> None:
    """Copies `x` to the front of `target`, zeros behind."""
    if target.shape != x.shape:
        target.zero_()
        target = target[tuple(slice(n) for n in x.shape)]
    target.copy_(x, non_blocking=True)
