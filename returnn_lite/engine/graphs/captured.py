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
    moved_to,
)
from returnn_lite.engine.graphs.shapes import BatchShape, fill

SHARE = 0.4  # of the memory that a step may take if others are to be recorded


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
        self.buffers: dict[tuple[str, int, torch.dtype], torch.Tensor] = {}

    @classmethod
    def with_room(cls, device: torch.device, generators: Callable[[], list[torch.Generator]]) -> Recorder:
        """A recorder, if there is memory for recorded steps beside the usual ones. Else raises RuntimeError."""
        taken, total = torch.cuda.max_memory_allocated(device), torch.cuda.mem_get_info(device)[1]
        if taken > SHARE * total:
            sizes = f"{taken / 2**30:.1f} of {total / 2**30:.1f} GB"
            raise RuntimeError(f"steps take {sizes}, and recorded ones would take as much again")
        torch.cuda.empty_cache()
        return cls(device, generators)

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
                seen = [self._buffer(f"output {i}", x) for i, x in enumerate(outputs.tensors)]
                for target, x in zip(seen, outputs.tensors, strict=True):
                    target.copy_(x.detach())
            return RecordedParts(graph, data, lengths, self, step, outputs, seen)
        with self._recording(graph):
            values = step.values(data, lengths)
            values.gradients = self._kept(values.gradients)
        return RecordedStep(graph, data, lengths, values)

    def record_gradients(
        self, step: NetStepInParts, tensors: Mapping[int, torch.Tensor]
    ) -> tuple[torch.cuda.CUDAGraph, dict[int, torch.Tensor], Tensors]:
        """Records the last part of a step, for the outputs that it begins with, by number: the graph, where it takes
        their gradients from, and those of the parameters."""
        graph = self._graph()
        given = {i: self._buffer(f"gradient {i}", x) for i, x in tensors.items()}
        with self._recording(graph):
            found = self._kept(step.gradients(list(tensors.values()), list(given.values())))
        return graph, given, found

    def _buffer(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Memory of this shape that steps of all shapes share."""
        key = name, 1 << max(0, like.numel() - 1).bit_length(), like.dtype
        if key not in self.buffers:
            self.buffers[key] = torch.empty(key[1], dtype=like.dtype, device=self.device)
        return self.buffers[key][: like.numel()].view(like.shape)

    def _graph(self) -> torch.cuda.CUDAGraph:
        """A graph that draws from the generators."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators():
            graph.register_generator_state(generator)
        return graph

    @contextmanager
    def _recording(self, graph: torch.cuda.CUDAGraph) -> Iterator[None]:
        gc.collect()  # former steps hold on to where gradients of parameters come together, on another stream
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
            fill(target, lengths[key])
        self.graph.replay()
        return self.made(len(next(iter(data.values()))))

    def made(self, rows: int) -> StepValues:
        """What the repetition gives, for so many sequences."""
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
        seen: list[torch.Tensor],
    ) -> None:
        super().__init__(graph, data, lengths)
        self.recorder, self.step = recorder, step
        self.outputs = moved_to(outputs, seen)
        self.computed = outputs.tensors  # until the second graph is recorded
        self.back: torch.cuda.CUDAGraph | None = None
        self.given: dict[int, torch.Tensor] = {}
        self.gradients: Tensors = {}

    def made(self, rows: int) -> StepValues:
        """Losses of the outputs, and the gradients."""
        values, given = self.step.losses(self.outputs, rows)
        if self.back is None:
            used = {i: self.computed[i] for i, grad in enumerate(given) if grad is not None}
            self.back, self.given, self.gradients = self.recorder.record_gradients(self.step, used)
            self.computed = []
        for i, target in self.given.items():
            grad = given[i]
            target.zero_() if grad is None else target.copy_(grad)
        self.back.replay()
        values.gradients = added(self.gradients, values.gradients)
        return values
