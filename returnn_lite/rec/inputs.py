"""What a loop reads from outside, and how its layers see it: whole tensors, frames, the counter, the previous tick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import Context
from returnn_lite.layers.core.node import Node
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.spec import scalar


class LoopInputs:
    """The nodes outside that a loop reads (`captured`, by the keys under which they come in) and their Specs.

    `has_source`: whether the loop has a source, which comes in as "source". `dim`: the axis of the loop, `key`: what
    gives it; None if its size is fixed, or if the layer `end` ends the loop. `path`: the loop's, for errors.
    """

    def __init__(self, path: str, *, has_source: bool) -> None:
        self.path = path
        self.has_source = has_source
        self.captured: dict[str, Node] = {}
        self.specs: dict[str, Spec | None] = {}
        self.dim: Dim | None = None
        self.key: str | None = None
        self.whole: set[str] = set()  # the keys of what is read as a whole
        self._keys: dict[Node, str] = {}
        self._twin: Dim | None = None

    @property
    def known_length(self) -> bool:
        """Whether the length is known before the loop runs."""
        return self.key is not None or (self.dim is not None and not self.dim.dynamic)

    @property
    def inner_dim(self) -> Dim | None:
        """The axis of the loop in layers that are moved out of it.

        It is another one where the loop reads a whole tensor that has the axis too: for a tick that one is an axis of
        its own.
        """
        dim = self.dim
        if dim is None or not any(
            spec is not None and dim in spec.dims for key, spec in self.specs.items() if key in self.whole
        ):
            return dim
        if self._twin is None or self._twin.size != dim.size:
            self._twin = Dim(dim.size, f"{dim.name}:loop", kind=dim.kind)
        return self._twin

    def capture(self, key: str, outer: Node) -> str:
        """Notes that the loop reads this node of the parent net; returns the key under which it comes in."""
        if outer not in self._keys:
            self._keys[outer] = key
            self.captured[key] = outer
        return self._keys[outer]

    def frame_dim(self, key: str, outer: Spec) -> Dim:
        """The axis of an outer tensor over whose frames the loop runs."""
        if key == "source" and self.key == "source" and self.dim is not None:
            return self.dim
        if outer.time_dim is None:
            raise ConfigError(self.path, f"{key!r} is read frame by frame, but has no time axis: {outer}")
        return outer.time_dim


class InnerSource(Layer):
    """What a loop reads from outside.

    `kind`: "outer" (a layer of the parent net, whole), "frame" (of data), "counter".
    """

    class_name: ClassVar[str] = "loop input"
    sources: ClassVar[str] = "none"

    def __init__(self, kind: str, key: str, inputs: LoopInputs) -> None:
        super().__init__()
        self.kind = kind
        self.key = key
        self.inputs = inputs
        if kind == "outer":
            inputs.whole.add(key)

    @property
    def outer_node(self) -> Node | None:
        """The node outside that it reads; None for the source and the counter."""
        return self.inputs.captured.get(self.key)

    def output_spec(self, sources: tuple[Spec | None, ...], refs: Mapping[str, Spec | None]) -> Spec | None:
        """As one tick sees it."""
        if self.kind == "counter":
            return scalar("int32")
        outer = self.inputs.specs.get(self.key)
        if outer is None or self.kind == "outer":
            return outer
        return outer.in_loop(self.inputs.frame_dim(self.key, outer))


class Previous(Layer):
    """A layer at the previous tick."""

    class_name: ClassVar[str] = "prev"
    sources: ClassVar[str] = "none"

    def __init__(self, of: Node) -> None:
        super().__init__()
        self.of = of

    def output_spec(self, sources: tuple[Spec | None, ...], refs: Mapping[str, Spec | None]) -> Spec | None:
        """That of the layer."""
        return self.of.spec


def link_previous(node: Node, of: Node, path: str, context: Context) -> None:
    """Makes `node` the layer `of` (at `path`) at the previous tick."""
    node.previous = of
    node.layer = Previous(of)
    node.layer.name, node.layer.path, node.layer.context = node.name, path, context


def is_counter(node: Node) -> bool:
    """Whether the node is ":i", the number of the tick."""
    return isinstance(node.layer, InnerSource) and node.layer.kind == "counter"


def counter(tick: int, device: torch.device) -> Tensor:
    """The value of ":i"."""
    return Tensor(torch.full((), tick, dtype=torch.int32, device=device), scalar("int32"), {})
