"""Runs of layers that are compiled as one function, and those in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch.fx.experimental import _config

from returnn_lite.config_value import ConfigOptions
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.node import Node, full_name
from returnn_lite.layers.linear import Linear
from returnn_lite.log import Log
from returnn_lite.network.building import compute
from returnn_lite.network.compiling.options import explained
from returnn_lite.network.compiling.ports import Inputs, Refused
from returnn_lite.network.compiling.recording import Failed, Record, Recorder, Step
from returnn_lite.network.inner import InnerLayers
from returnn_lite.network.sources import DataSource
from returnn_lite.ops.precision import full_precision
from returnn_lite.tensor import Tensor

Values: TypeAlias = dict[Node, Tensor]
Compiled: TypeAlias = Callable[..., Sequence[torch.Tensor]]
FEWEST = 2  # layers of a function
MOST = 8  # functions of the same layers, for training and evaluation, batches of one sequence, …


class CompiledParts:
    """The steps of a program, in order: runs of them compiled, the others one by one. `kept`: nodes that others read.

    The log says which layers are not compiled, and why.
    """

    def __init__(self, steps: Sequence[Step], kept: Set[Node], options: ConfigOptions, log: Log) -> None:
        self.options, self.log = options, log
        self.readers = _readers(steps)
        self.kept = kept
        runs: list[list[Step]] = [[]]
        self.parts: list[Segment | Step] = []
        found = []
        for step in steps:
            why = left_out(step)
            if not why:
                runs[-1].append(step)
                continue
            self.parts += self.joined(runs[-1])
            runs.append([])
            self.parts.append(step)
            if not isinstance(step[1].layer, DataSource):
                found.append((step[0], why))
        self.parts += self.joined(runs[-1])
        self.report(found)
        self.inner = frozenset().union(*(part.inner for part in self.parts if isinstance(part, Segment)))

    def joined(self, steps: Sequence[Step]) -> list[Segment | Step]:
        """These steps as one, if there are enough of them."""
        return [Segment(steps, self)] if len(steps) >= FEWEST else list(steps)

    def report(self, found: Iterable[tuple[Node, str]]) -> None:
        """Logs which layers are not compiled."""
        text = ", ".join(f"{full_name(node)!r} ({why})" for node, why in found)
        if text:
            self.log.v3(f"torch_compile: not compiled: {text}")

    @staticmethod
    def usable() -> bool:
        """Whether functions may stand for layers: nobody records or transforms what these compute."""
        recorded = torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack()
        transformed = torch._C._functorch.peek_interpreter_stack() is not None
        return not (recorded or transformed or torch.compiler.is_compiling())

    def run(self, values: Values) -> None:
        """Computes all steps; the results are put into `values`."""
        run_parts(self.parts, values)


class Segment:
    """Steps, one right after the other, that one function computes; if some of them cannot be a part of it, it falls
    into `parts`. `inner`: nodes that nobody else reads."""

    def __init__(self, steps: Sequence[Step], of: CompiledParts) -> None:
        self.steps, self.of = tuple(steps), of
        inside = {node for node, _ in steps}
        read = dict.fromkeys(node for _, call in steps for node in call.inputs)
        self.reads = tuple(node for node in read if node not in inside)
        self.outputs = tuple(n for n, _ in steps if n in of.kept or of.readers.get(n, set()) - inside)
        if not self.outputs:
            self.outputs = (steps[-1][0],)
        self.inner = frozenset(inside.difference(self.outputs))
        self.parts: list[Segment | Step] | None = None
        self.recorder = Recorder(steps, self.reads, self.outputs)
        self.functions: dict[Any, list[tuple[Record, Compiled]]] = {}  # Any: what must be equal for them
        self.count = 0
        self.layer = steps[0][1].layer

    @property
    def name(self) -> str:
        """The first and the last layer."""
        return f"{full_name(self.steps[0][0])!r} to {full_name(self.steps[-1][0])!r}"

    def run(self, values: Values) -> None:
        """Computes the steps; the outputs are put into `values`."""
        function = None
        given = [values[node] for node in self.reads]
        if self.parts is None:
            try:
                inputs = Inputs(given)
                function = self._function(given, inputs)
            except Refused:
                pass
        if self.parts is not None:
            run_parts(self.parts, values)
        elif function is None:
            run_parts(self.steps, values)
        else:
            values.update(zip(self.outputs, self._called(*function, inputs, values), strict=True))

    def _function(self, given: Sequence[Tensor], inputs: Inputs) -> tuple[Record, Compiled] | None:
        """The function for inputs of this kind; None if there are too many, or if the steps are no part of one."""
        autocast = torch.get_autocast_dtype(self._device) if torch.is_autocast_enabled(self._device) else None
        params = tuple((c[k].dtype, c[k].device, c[k].requires_grad) for c, k in self.recorder.slots)
        key = (inputs.key, params, self.layer.training, torch.is_grad_enabled(), autocast)
        known = self.functions.setdefault(key, [])
        for function in known:
            if function[0].valid(inputs.sizes):
                return function
        if self.count >= MOST:
            return None
        self.count += 1
        try:
            record = self.recorder.record(given, inputs)
        except Failed as failed:
            self._split(failed)
            return None
        if self.count == MOST:
            self.of.log.v3(f"torch_compile: {self.name}: no functions for more kinds of batches than {MOST}")
        with explained(self.layer.path, f"layers {self.name}"):
            compiled = torch.compile(record.graph, **{"dynamic": True, **self.of.options})
        self.of.log.v4(f"torch_compile: compiled {self.name}, {len(self.steps)} layers")
        known.append((record, compiled))
        return known[-1]

    @property
    def _device(self) -> str:
        return self.layer.context.device.type

    def _split(self, failed: Failed) -> None:
        """Leaves out the step that failed, or halves them until it is found."""
        at, steps = failed.step, self.steps
        if at is None and len(steps) > 1:
            half = len(steps) // 2
            self.parts = [Segment(steps[:half], self.of), Segment(steps[half:], self.of)]
            return
        at = at or 0
        self.of.report([(steps[at][0], failed.reason)])
        self.parts = [*self.of.joined(steps[:at]), steps[at], *self.of.joined(steps[at + 1 :])]

    def _called(self, record: Record, compiled: Compiled, inputs: Inputs, values: Values) -> list[Tensor]:
        """The outputs of the function. Errors of layers name the layer."""
        generator = self.layer.context.generator
        shapes: Sequence[Any] = [shape(inputs.sizes) for shape in record.shapes]  # Any: tuples of ints
        given = [*inputs.tensors, *(container[key].contiguous() for container, key in self.recorder.slots)]
        drawn = [draw.numbers(shape, generator) for draw, shape in zip(record.draws, shapes, strict=True)]
        try:
            with explained(self.layer.path, f"layers {self.name}"), running(self._device):
                made = compiled(*given, *drawn)
        except ConfigError:
            run_parts(self.steps, dict(values))  # which layer it is, if it is a layer's fault
            raise
        return record.results(given, made, inputs)


def run_parts(parts: Iterable[Segment | Step], values: Values) -> None:
    """Computes segments and steps in order; the results are put into `values`."""
    for part in parts:
        if isinstance(part, Segment):
            part.run(values)
        else:
            values[part[0]] = compute(part[1], values)


@contextmanager
def running(device: str) -> Iterator[None]:
    """While a function is compiled or runs: conversions for mixed precision are a part of it, and axes of equal size in
    the first batch are not taken for the same."""
    with full_precision(torch.device(device)), _config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
        yield


def left_out(step: Step) -> str:
    """Why a layer is no part of a function, "" if it may be one."""
    node, call = step
    layer = call.layer
    if isinstance(layer, DataSource):
        return "is data"
    if isinstance(layer, InnerLayers):
        return "holds layers of its own"
    if layer.remembers:
        return "has a state"
    if layer.makes_beam or layer.grows:
        return "is for loops"
    if (
        isinstance(layer, Linear)
        and layer.sparse_grad
        and any(n.spec is not None and n.spec.sparse for n in call.sources)
    ):
        return "has gradients of single rows"
    if call.outputs_as_params or node.outputs_as_params:
        return "has outputs of layers as parameters"
    return layer.differs_by_step


def _readers(steps: Iterable[Step]) -> dict[Node, set[Node]]:
    found: dict[Node, set[Node]] = {}
    for node, call in steps:
        for read in call.inputs:
            found.setdefault(read, set()).add(node)
    return found
