"""Layers that carry a state of their own from tick to tick of a loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import torch

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.node import Node
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor, single_step_dim
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axes as find_axes

State = dict[str, torch.Tensor]
# What is constant over one run of a loop: of a kind of its own for each class, which gets back what it gave.
LoopConstants: TypeAlias = Any


class LoopStart(Protocol):
    """What is known when a loop starts: the number of sequences, and the lengths of all axes known outside of it."""

    batch: int
    device: torch.device
    lengths: Mapping[Dim, Lengths]

    def zeros(self, spec: Spec) -> Tensor:
        """A tensor of this Spec full of 0."""
        ...

    def full(self, spec: Spec, value: float) -> Tensor:
        """A tensor of this Spec full of `value`."""
        ...

    def output(self, node: Node, value_of: Callable[[Node], Tensor]) -> Tensor:
        """The initial output of a layer, by its options; `value_of` gives what is known before the first tick."""
        ...


@dataclass
class Tick:
    """What one tick of a loop tells a layer besides its sources and its state.

    `number` counts from 0. `refs`: the layers that its options name, at this tick. `ended()`: bool (B,), which
    sequences had ended before this tick; None if that cannot be.
    """

    number: int
    refs: Mapping[str, Tensor]
    ended: Callable[[], torch.Tensor | None]


class Stateful(Layer):
    """Base of such layers.

    In a loop, a layer whose `carries_state` holds is asked for `begin_loop` (what is constant over one run),
    `first_state` (tensors with the batch axis in front, which the loop re-orders with its beams), then for a `step` per
    tick. When it was moved out of the loop, `over` computes all ticks at once; the sources have the loop axis, unless
    `takes_whole_sources`.
    """

    hidden_state = True
    takes_whole_sources: ClassVar[bool] = False
    state_has_loops: ClassVar[bool] = False  # the last state for all ticks of a loop at once has their axis in front
    needs_state: bool = False  # whether another layer reads the last hidden state (`Tensor.state`)

    def carries_state(self, sources: tuple[Spec | None, ...]) -> bool:
        """Whether the layer, with these sources, is one tick of the loop around it: they have no time axis."""
        return all(s is None or s.time is None for s in sources)

    def begin_loop(self, batch: int) -> LoopConstants:
        """What is constant over one run of a loop with `batch` sequences."""
        return None

    def look_ahead(
        self, constants: LoopConstants, known: Sequence[Tensor | None], specs: Sequence[Spec | None], dim: Dim
    ) -> LoopConstants:
        """The constants, with what can be computed for all ticks at once.

        known: the sources over the loop's axis `dim`, None for those that ticks compute; specs: of their frames.
        """
        return constants

    def first_state(self, make: LoopStart, refs: Mapping[str, Tensor]) -> State:
        """The state before the first tick."""
        return {}

    def initial_output(self, make: LoopStart, spec: Spec, state: State | None = None) -> Tensor:
        """What "prev:" of this layer reads at the first tick: zeros."""
        return make.zeros(spec)

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """One tick: the output, and the new state."""
        raise TypeError(f"layer class {self.class_name!r} has no step")

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """All ticks of the loop over `dim` at once."""
        raise TypeError(f"layer class {self.class_name!r} cannot be moved out of a loop")

    def merged_state(self, keep: torch.Tensor, new: State, old: State) -> State:
        """The state after a tick that counts only for the sequences where `keep` (bool (B,)) is True; 0 if none yet."""
        shapes = {k: (-1, *[1] * (v.dim() - 1)) for k, v in new.items()}
        return {k: torch.where(keep.reshape(shapes[k]), v, old.get(k, v.new_zeros(()))) for k, v in new.items()}


def is_frame(x: Spec, axis: AxisText) -> bool:
    """Whether `x` is one frame of the axis that a layer runs over: `single_step_dim`, or one that it lacks."""
    if axis is None or (isinstance(axis, str) and axis.lower() in ("t", "time")):
        return x.time is None
    return axis == single_step_dim or not find_axes(x, axis)


def ticking(node: Node) -> Stateful | None:
    """The layer of a node, if it is one tick of the loop around it and carries a state."""
    layer = node.layer
    carries = isinstance(layer, Stateful) and layer.carries_state(tuple(n.spec for n in node.sources))
    return layer if carries else None  # type: ignore[return-value]
